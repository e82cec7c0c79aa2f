//! What main asks of a worker.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hoststack_app::context::AppWorkerState;
use hoststack_session::{SessionOptions, StagePlans};
use hoststack_tcp::EstablishError;
use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    AppWorkerId, ConnectFailure, ConnectTicket, EarlyData, Instant, SessionHandle, SessionLayer,
};

use super::packets::out;
use super::{AppSlot, Worker, inspect};
use crate::messages::{Command, EndHow, Report, Seed, Settled};

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
            Command::Attach { app_worker, unit, pending_connects_max, object, abandoned } => {
                self.attach(app_worker, unit, pending_connects_max, object, abandoned);
            }
            Command::DetachBegin { app_worker } => self.begin_detach(app_worker),
            Command::DetachEnd { app_worker, policy } => self.end_detach(app_worker, policy),
            Command::Listen { record, domain, local, backlog, socket } => {
                let listener = record.id;
                let result =
                    self.tcp.listen(listener, domain, local, backlog, *socket).map_err(|error| match error {
                        hoststack_tcp::ListenError::InUse => hoststack_app::ListenError::InUse,
                        hoststack_tcp::ListenError::Full => hoststack_app::ListenError::NoRoom,
                    });
                if result.is_ok() {
                    self.sessions.listeners().add(*record);
                }
                self.reports.push(Report::Listening { listener, result });
            }
            Command::Unlisten { .. } if canary::has(Bug::ListenerLeft) => {}
            Command::Unlisten { listener } => {
                self.tcp.unlisten(now, listener, &mut out!(self), &mut self.events);
                self.sessions.listeners().remove(listener);
                self.after_tcp();
            }
            Command::Open { half_open, syn } => {
                if self.tcp.open_and_send(now, &syn, half_open, &mut out!(self)).is_err() {
                    self.reports.push(Report::OpenRefused { half_open });
                }
            }
            Command::SendSyn { half_open, syn } => self.tcp.send_syn(now, &syn, half_open, &mut out!(self)),
            Command::Establish { ticket, seed, deadline, options, early_data, stages } => {
                self.establish(ticket, seed, deadline, options, &early_data, &stages);
            }
            Command::Outcome { ticket, failure, attempt } => {
                if let Some((half_open, flow)) = attempt {
                    self.tcp.forget_half_open(&flow, half_open, &mut self.events);
                    self.after_tcp();
                    self.unpark(half_open);
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
            Command::Inspect { query, what } => self.inspections.push_back(inspect::Run::new(query, what)),
            Command::Stop => self.stopped = true,
        }
    }

    fn attach(
        &mut self,
        app_worker: AppWorkerId,
        unit: u32,
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
        self.apps[slot] = Some(AppSlot { id: app_worker, unit, object, state, detach: None, abandoned });
        self.call(app_worker, |app, ctx| app.attached(ctx));
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
    ) {
        let Seed::Tcp(seed) = seed;
        let half_open = seed.half_open;
        let mut opened =
            self.sessions.open_outbound(seed.flow, ticket, deadline, options, stages, early_data);
        if let Ok(session) = opened
            && stages.is_empty()
            && !self.sessions.queue_early(session, early_data.as_slice())
            && let Some(ticket) = self.sessions.abandon(session)
        {
            opened = Err((ticket, ConnectFailure::NoRoom));
        }
        match opened {
            Ok(session) => {
                let established = self.tcp.establish(
                    self.now,
                    seed,
                    session,
                    &mut self.sessions,
                    &mut out!(self),
                    &mut self.events,
                );
                match established {
                    Ok(connection) => {
                        self.sessions.bind(session, connection);
                        if !early_data.is_empty() {
                            self.sessions.program_tx(session);
                        }
                        self.after_tcp();
                        if let Some(deadline) = self.sessions.connect_deadline(session) {
                            // Not up yet (simultaneous open): the worker keeps the deadline now.
                            self.connect_timers.insert(deadline, session);
                        }
                    }
                    Err(EstablishError::Full | EstablishError::NoFlow) => {
                        self.after_tcp();
                        if let Some(ticket) = self.sessions.abandon(session) {
                            self.outcomes.push_back((ticket, ConnectFailure::NoRoom));
                        }
                    }
                }
            }
            Err((ticket, failure)) => {
                // The peer believes in the connection: it must hear that there is none.
                self.tcp.refuse(self.now, &seed, &mut out!(self), &mut self.events);
                self.after_tcp();
                self.outcomes.push_back((ticket, failure));
            }
        }
        self.unpark(half_open);
    }

    fn end_session(&mut self, session: SessionHandle, how: EndHow) {
        let Some((id, _)) = self.sessions.find(session) else { return };
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
