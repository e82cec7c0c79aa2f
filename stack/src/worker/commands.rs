//! What main asks of a worker.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hoststack_app::ListenError;
use hoststack_app::context::AppWorkerState;
use hoststack_session::{AppSide, EndedBy, SessionOptions, StagePlans};
use hoststack_tcp::EstablishError;
use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    AppWorkerId, ConnectFailure, ConnectTicket, ConnectionId, EarlyData, FlowKey, HalfOpenId, Instant,
    ListenerId, SessionHandle, SessionId, SessionLayer,
};

use super::packets::out;
use super::{AppSlot, Worker, inspect};
use crate::messages::{Command, EndHow, ListenOn, Report, Seed, Settled};

impl Worker {
    /// Commands, in the order main sent them, while the devices take what they cause to be sent: a wave of SYNs waits
    /// here, and then in main's outbox, rather than being dropped. A bounded number, so that a wave for one app does not
    /// keep the others' packets waiting.
    pub(super) fn take_commands(&mut self) -> bool {
        /// What an outcome counts for: it lets a flow go, and costs a callback and a report besides.
        const OUTCOME_COST: usize = 32;
        let mut batches = self.tape.find_waiting("batches of commands", || self.commands.available());
        let burst = self.config.bursts.commands;
        let mut left = burst;
        // Half of a step's packets is left to sessions, so that a wave of SYNs does not silence them. Behind a slow device,
        // where half is never free, the two take turns.
        let reserved = if self.commands_may_fill { 0 } else { self.path.room_max() / 2 };
        while left > 0 && self.path.room() > reserved {
            if let Some(command) = self.command_batch.pop() {
                let is_outcome = matches!(command, Command::Outcome { .. });
                left = left.saturating_sub(if is_outcome { OUTCOME_COST } else { 1 });
                self.lingers |= !matches!(command, Command::Inspect { .. });
                self.command(command);
            } else if batches > 0
                && let Some(mut batch) = self.commands.take()
            {
                batches -= 1;
                // Taken from the end: the first command last.
                batch.reverse();
                self.commands.recycle(std::mem::replace(&mut self.command_batch, batch));
            } else {
                break;
            }
        }
        let is_waiting = !self.command_batch.is_empty() && self.path.room() > 0;
        self.commands_may_fill = is_waiting && !self.commands_may_fill;
        left < burst || is_waiting
    }

    fn command(&mut self, command: Command) {
        let now = self.now;
        match command {
            Command::Net(update) => self.path.apply(now.as_micros(), &update, &mut self.pool),
            Command::Probe { interface, target } => {
                // A probe that cannot be sent is counted as a drop; main asks again.
                let _ = self.path.probe(interface, target, &mut self.pool);
            }
            Command::Attach { app_worker, unit, name, pending_connects_max, object, abandoned } => {
                self.attach(app_worker, unit, name, pending_connects_max, object, abandoned);
            }
            Command::DetachBegin { app_worker } => self.begin_detach(app_worker),
            Command::DetachEnd { app_worker, policy } => self.end_detach(app_worker, policy),
            Command::Listen { record, on } => {
                let listener = record.id;
                let result = self.listen(listener, on);
                if result.is_ok() {
                    self.sessions.listeners().add(*record);
                }
                self.reports.push(Report::Listening { listener, result });
            }
            Command::Unlisten { .. } if canary::has(Bug::ListenerLeft) => {}
            Command::Unlisten { listener } => {
                self.transports.tcp.unlisten(now, listener, &mut out!(self), &mut self.events);
                self.transports.kernel.unlisten(listener);
                self.sessions.listeners().remove(listener);
                self.after_transport();
            }
            Command::Open { half_open, syn } => {
                if self.transports.tcp.open_and_send(now, &syn, half_open, &mut out!(self)).is_err() {
                    self.reports.push(Report::OpenRefused { half_open });
                }
            }
            Command::SendSyn { half_open, syn } => {
                self.transports.tcp.send_syn(now, &syn, half_open, &mut out!(self))
            }
            Command::Establish { ticket, seed, deadline, options, early_data, stages, may_retry } => {
                self.establish(ticket, seed, deadline, options, &early_data, &stages, may_retry);
            }
            Command::Forget { half_open, flow } => self.forget_half_open(half_open, &flow),
            Command::Outcome { ticket, failure, attempt } => {
                if let Some((half_open, flow)) = attempt {
                    self.forget_half_open(half_open, &flow);
                }
                self.outcomes.push_back((ticket, failure));
            }
            Command::FailConnect { connect, failure } => {
                if let Some(session) = self.sessions.find_establishing(connect) {
                    self.fail_establishing(session, failure);
                }
            }
            Command::ConnectsSettled { app_worker, count } => {
                if let Some(slot) = self.app_slot(app_worker) {
                    slot.state.pending_connects = slot.state.pending_connects.saturating_sub(count);
                }
            }
            Command::Notify { app_worker, message } => self.notices.push_back((app_worker, message)),
            Command::EndSession { session, how } => self.end_session(session, how),
            Command::SetTcpConfig(config) => self.set_tcp_config(*config),
            Command::Inspect { query, what } => self.inspections.push_back(inspect::Run::new(query, what)),
            Command::Clear(what) => self.clear(what),
            Command::Ping(ping) => self.ping(ping),
            Command::SetSessionLog(is_on) => self.config.session_log = is_on,
            Command::Watch(command) => self.watch(command),
            Command::Stop => self.stopped = true,
        }
    }

    fn attach(
        &mut self,
        app_worker: AppWorkerId,
        unit: u32,
        name: Arc<str>,
        pending_connects_max: usize,
        object: Box<dyn hoststack_app::AppWorker>,
        abandoned: Arc<AtomicBool>,
    ) {
        let slot = app_worker.0.slot as usize;
        if self.apps.len() <= slot {
            self.apps.resize_with(slot + 1, || None);
        }
        self.sessions.app_workers().attach(app_worker);
        let state = AppWorkerState { pending_connects_max, ..AppWorkerState::default() };
        let object = Some(object);
        self.apps[slot] =
            Some(AppSlot { id: app_worker, unit, name, object, state, detach: None, abandoned });
        self.call(app_worker, |app, ctx| app.attached(ctx));
    }

    fn listen(&mut self, listener: ListenerId, on: ListenOn) -> Result<(), ListenError> {
        match on {
            ListenOn::Tcp { domain, local, backlog, socket } => {
                self.transports.tcp.listen(listener, domain, local, backlog, *socket).map_err(|error| {
                    match error {
                        hoststack_tcp::ListenError::InUse => ListenError::InUse,
                        hoststack_tcp::ListenError::Full => ListenError::NoRoom,
                    }
                })
            }
            ListenOn::Kernel { socket: None, .. } | ListenOn::Local => Ok(()),
            ListenOn::Kernel { address, socket: Some(socket), options } => {
                self.transports.kernel.listen(listener, address, socket, *options).map_err(|error| {
                    tracing::warn!(%error, "the host does not let us wait for connections");
                    ListenError::Host
                })
            }
        }
    }

    /// An attempt by this stack's TCP has failed: its flow is let go.
    fn forget_half_open(&mut self, half_open: HalfOpenId, flow: &FlowKey) {
        self.transports.tcp.forget_half_open(flow, half_open, &mut self.events);
        self.after_transport();
        self.unpark(half_open);
    }

    /// A half-open becomes a connection and a session, both allocated here.
    fn establish(
        &mut self,
        ticket: ConnectTicket,
        seed: Seed,
        deadline: Instant,
        options: SessionOptions,
        early_data: &EarlyData,
        stages: &StagePlans,
        may_retry: bool,
    ) {
        let half_open = match &seed {
            Seed::Tcp(seed) => Some(seed.half_open),
            Seed::Kernel(_) | Seed::Local { .. } => None,
        };
        let (connect, app_worker) = (ticket.connect(), ticket.app_worker());
        let mut opened =
            self.sessions.open_outbound(seed.flow(), ticket, deadline, options, stages, early_data);
        if let Ok(session) = opened
            && stages.is_empty()
            && !self.sessions.queue_early(session, early_data.as_slice())
            && let Some(ticket) = self.sessions.abandon(session)
        {
            opened = Err((ticket, ConnectFailure::NoRoom));
        }
        match opened {
            Ok(session) => {
                self.note_born(session, app_worker, connect);
                if may_retry {
                    self.sessions.may_retry(session);
                }
                match self.connect_transport(seed, session) {
                    Ok(connection) => {
                        self.sessions.bind(session, connection);
                        if !early_data.is_empty() {
                            self.sessions.program_tx(session);
                        }
                        self.after_transport();
                        if let Some(deadline) = self.sessions.connect_deadline(session) {
                            // Not up yet (simultaneous open), or with stages to go: the worker keeps the deadline now.
                            self.connect_timers.insert(deadline, session);
                        }
                    }
                    Err(failure) => {
                        self.after_transport();
                        if let Some(ticket) = self.sessions.abandon(session) {
                            self.outcomes.push_back((ticket, failure));
                        }
                    }
                }
            }
            Err((ticket, failure)) => {
                if failure == ConnectFailure::NoRoom {
                    self.warn_limit("sessions");
                }
                // The peer believes in the connection: it must hear that there is none.
                match seed {
                    Seed::Tcp(seed) => {
                        self.transports.tcp.refuse(self.now, &seed, &mut out!(self), &mut self.events);
                        self.after_transport();
                    }
                    Seed::Kernel(seed) => {
                        // What cannot be reset is closed, which the peer sees as well.
                        let _ = seed.socket.reset_on_close();
                    }
                    Seed::Local { .. } => {}
                }
                self.outcomes.push_back((ticket, failure));
            }
        }
        if let Some(half_open) = half_open {
            self.unpark(half_open);
        }
    }

    /// Makes the connection of a session from what main handed over.
    fn connect_transport(&mut self, seed: Seed, session: SessionId) -> Result<ConnectionId, ConnectFailure> {
        match seed {
            Seed::Tcp(seed) => self
                .transports
                .tcp
                .establish(self.now, seed, session, &mut self.sessions, &mut out!(self), &mut self.events)
                .map_err(|error| match error {
                    EstablishError::Full | EstablishError::NoFlow => ConnectFailure::NoRoom,
                }),
            Seed::Kernel(seed) => self
                .transports
                .kernel
                .establish(self.now, seed, session, &mut self.sessions, &mut self.events)
                .map_err(|error| match error {
                    hoststack_kernel::EstablishError::Full => ConnectFailure::NoRoom,
                    hoststack_kernel::EstablishError::System(errno) => {
                        ConnectFailure::System(errno.raw_os_error())
                    }
                }),
            Seed::Local { listener, worker, domain } => self
                .transports
                .local
                .connect(listener, worker, domain, session, &mut self.sessions, &mut self.events)
                .map_err(|hoststack_transport::Full| ConnectFailure::NoRoom),
        }
    }

    fn end_session(&mut self, session: SessionHandle, how: EndHow) {
        let Some((id, session)) = self.sessions.find(session) else { return };
        if session.app_side() != AppSide::Unannounced {
            self.sessions.note_end(id, EndedBy::Operator, how == EndHow::Reset);
        }
        self.requests.push(match how {
            EndHow::Close => hoststack_app::AppRequest::Close(id),
            EndHow::Reset => hoststack_app::AppRequest::Reset(id),
        });
    }

    /// Reports a spent ticket, and takes the connect off its app worker's count if it was made here.
    pub(super) fn report_settled(
        &mut self,
        ticket: ConnectTicket,
        outcome: Result<(), ConnectFailure>,
        told: bool,
    ) {
        let spent = ticket.spend();
        if spent.connect.origin() == u16::from(self.id.0)
            && let Some(slot) = self.app_slot(spent.app_worker)
        {
            slot.state.pending_connects = slot.state.pending_connects.saturating_sub(1);
        }
        self.reports.push(Report::Settled(Settled {
            connect: spent.connect,
            app_worker: spent.app_worker,
            half_open: spent.half_open,
            opaque: spent.opaque,
            outcome,
            undelivered: !told,
        }));
    }
}
