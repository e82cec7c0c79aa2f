//! The life of a connect request on main: a half-open session in its app worker's pool, attempts under one ticket,
//! one outcome sent to the worker that tells it, and the delete notification that frees.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hoststack_app::{CancelError, ConnectOptions};
use hoststack_session::{HalfOpenSession, HalfOpenState};
use hoststack_tcp::HalfOpenAction;
use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    AppWorkerId, ConnectFailure, ConnectId, ConnectTicket, EarlyData, Endpoint, FlowKey, HalfOpenId,
    HalfOpenUser, Instant, Key, Protocol, SocketOptions, WorkerId,
};

use super::attempts::remotes;
use super::{MAIN_ORIGIN, Main};
use crate::events::What;
use crate::messages::{Command, Seed, Settled};

/// Local ports tried when workers say that one is taken, before the outcome is `AddressInUse`.
const COLLISIONS_MAX: u8 = 8;

/// The half-open of a request for which there was no room: it names nothing.
const NO_HALF_OPEN: Key = Key { slot: u32::MAX, generation: u32::MAX };

/// The socket options of the latest connect: those of the next are mostly the same, and then they are kept once.
#[derive(Default)]
pub(super) struct SharedOptions(Arc<SocketOptions>);

impl SharedOptions {
    fn share(&mut self, options: SocketOptions) -> Arc<SocketOptions> {
        if *self.0 != options {
            self.0 = Arc::new(options);
        }
        self.0.clone()
    }
}

impl Main {
    /// A connect request, made at `made`, arrived. Exactly one outcome follows.
    pub(super) fn connect(
        &mut self,
        app_worker: AppWorkerId,
        connect: ConnectId,
        options: &ConnectOptions,
        early_data: EarlyData,
        made: Instant,
    ) {
        let now = self.now;
        let wanted = options.worker.filter(|worker| worker.index() < self.config.workers);
        let worker = wanted.unwrap_or_else(|| self.least_loaded());
        let ledger = self.ledger.clone();
        let socket = SocketOptions { rx_window: options.fifos.rx_capacity, ..options.socket };
        let socket = self.socket_options.share(socket);
        let Some(record) = self.app_workers.get_mut(app_worker.0) else {
            debug_assert!(false, "an app worker's slot is freed after every request that was made for it");
            self.connects_orphaned += 1;
            self.forget_pending(None, app_worker, connect);
            return;
        };
        record.counters.requested += 1;
        let detaching = record.is_detaching();
        if let Some(detach) = &mut record.detach {
            detach.half_opens += 1;
        }
        let flow = FlowKey {
            local: Endpoint::new(
                options.local_addr.unwrap_or(Endpoint::UNSPECIFIED.addr),
                options.local_port,
            ),
            remote: options.remote.endpoint().unwrap_or(Endpoint::UNSPECIFIED),
            domain: options.domain,
            protocol: options.remote.protocol(),
        };
        let inserted = record.half_opens.insert_with(|key| HalfOpenSession {
            connect,
            ticket: Some(ConnectTicket::mint(connect, key, app_worker, options.opaque, made, ledger.clone())),
            state: HalfOpenState::Connecting,
            transport: None,
            flow,
            worker,
            attempts: 0,
            collisions: 0,
            verdict: None,
            remotes: remotes(options),
            opaque: options.opaque,
            deadline: made + options.timeout,
            born: now,
            options: options.fifos,
            local_addr: options.local_addr,
            local_port: options.local_port,
            owns_tuple: false,
            socket,
            stages: options.stages.clone(),
            early_data,
        });
        self.note_connect(app_worker, connect, What::Requested);
        let Ok(key) = inserted else {
            self.warn_limit("half_opens_max", app_worker);
            let ticket = ConnectTicket::mint(connect, NO_HALF_OPEN, app_worker, options.opaque, made, ledger);
            self.in_flight[worker.index()] += 1;
            self.send(worker, Command::Outcome { ticket, failure: ConnectFailure::NoRoom, attempt: None });
            return;
        };
        self.connects.insert(connect, (app_worker, key));
        self.in_flight[worker.index()] += 1;
        if detaching {
            self.fail(app_worker, key, ConnectFailure::Detached);
        } else if let Err(failure) = self.attempt(app_worker, key, wanted) {
            self.attempt_failed(app_worker, key, failure);
        }
    }

    /// The worker with the fewest sessions and connects under way.
    fn least_loaded(&mut self) -> WorkerId {
        let load = |worker: &usize| {
            self.stats[*worker].sessions.load(Ordering::Relaxed).saturating_add(self.in_flight[*worker])
        };
        let least = || (0..self.config.workers).min_by_key(load).unwrap_or(0);
        WorkerId(self.tape.find(least) as u8)
    }

    /// What the half-open transport connections want done.
    pub(super) fn half_opens_act(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                HalfOpenAction::SendSyn { half_open, syn } => {
                    let worker = self.worker_of(&syn.flow);
                    let command = if syn.first {
                        Command::Open { half_open, syn }
                    } else {
                        Command::SendSyn { half_open, syn }
                    };
                    self.send(worker, command);
                }
                HalfOpenAction::Establish { user, seed, .. } => self.hand_over(user, Seed::Tcp(seed)),
                HalfOpenAction::Failed { user, failure, .. } => {
                    self.attempt_failed(user.app_worker, user.half_open, failure);
                }
                HalfOpenAction::Late { user, .. } => {
                    if let Some(record) = self.app_workers.get_mut(user.app_worker.0) {
                        record.counters.late_segments += 1;
                    }
                }
                HalfOpenAction::Deleted { half_open, user } => self.half_open_deleted(half_open, user),
            }
        }
        // An action may have caused others meanwhile: they are in the other vector, behind these.
        std::mem::swap(&mut self.actions, &mut actions);
        if !actions.is_empty() {
            self.actions.append(&mut actions);
            self.half_opens_act();
        }
    }

    /// What the host's connecting sockets want done.
    pub(super) fn kernel_acts(&mut self) {
        use hoststack_kernel::HalfOpenAction;
        let mut actions = std::mem::take(&mut self.kernel_actions);
        for action in actions.drain(..) {
            match action {
                HalfOpenAction::Establish { user, seed, .. } => self.hand_over(user, Seed::Kernel(seed)),
                HalfOpenAction::Failed { user, failure, .. } => {
                    self.attempt_failed(user.app_worker, user.half_open, failure);
                }
                HalfOpenAction::Deleted { half_open, user } => self.half_open_deleted(half_open, user),
            }
        }
        std::mem::swap(&mut self.kernel_actions, &mut actions);
        if !actions.is_empty() {
            self.kernel_actions.append(&mut actions);
            self.kernel_acts();
        }
    }

    /// A transport's delete notification: what it was for is freed, unless it goes on with another attempt.
    fn half_open_deleted(&mut self, half_open: HalfOpenId, user: HalfOpenUser) {
        let session = self.half_open(user.app_worker, user.half_open);
        if session.is_some_and(|session| session.transport == Some(half_open)) {
            self.free_half_open(user.app_worker, user.half_open);
        }
    }

    /// The canary's second hand-over of a connection.
    pub(super) fn establish_again(&self, first: &Command) -> Option<Command> {
        if !canary::has(Bug::DoubleEstablish) {
            return None;
        }
        let Command::Establish { ticket, seed, deadline, options, early_data, stages, may_retry } = first
        else {
            return None;
        };
        let (connect, half_open, app_worker) = (ticket.connect(), ticket.half_open(), ticket.app_worker());
        let (opaque, made) = (ticket.opaque(), ticket.made());
        let Seed::Tcp(seed) = seed else { return None };
        Some(Command::Establish {
            ticket: ConnectTicket::mint(connect, half_open, app_worker, opaque, made, self.ledger.clone()),
            seed: Seed::Tcp(seed.clone()),
            deadline: *deadline,
            options: *options,
            early_data: early_data.clone(),
            stages: stages.clone(),
            may_retry: *may_retry,
        })
    }

    pub(super) fn half_open(&mut self, app_worker: AppWorkerId, key: Key) -> Option<&mut HalfOpenSession> {
        self.app_workers.get_mut(app_worker.0)?.half_opens.get_mut(key)
    }

    /// Settles a request as failed, if main still holds its ticket: the ticket goes to the worker that tells.
    pub(super) fn fail(&mut self, app_worker: AppWorkerId, key: Key, failure: ConnectFailure) {
        let Some(session) = self.half_open(app_worker, key) else { return };
        let Some(ticket) = session.ticket.take() else { return };
        session.state = HalfOpenState::Failed(failure);
        let (transport, flow, worker) = (session.transport, session.flow, session.worker);
        if let Some(half_open) = transport {
            // Stops its timers and marks it; it is freed when the outcome was told.
            self.cleanup_half_open(flow.protocol, half_open);
        }
        let attempt = transport.filter(|_| flow.protocol == Protocol::Tcp).map(|half_open| (half_open, flow));
        self.send(worker, Command::Outcome { ticket, failure, attempt });
        if canary::has(Bug::FreedBeforeOutcome) {
            self.free_half_open(app_worker, key);
        }
    }

    /// The tuple of an attempt is taken on its worker: another port, or no more.
    pub(super) fn open_refused(&mut self, half_open: HalfOpenId) {
        let Some(info) = self.half_opens.describe(half_open) else { return };
        let HalfOpenUser { app_worker, half_open: key } = info.user;
        let Some(session) = self.half_open(app_worker, key).filter(|s| s.transport == Some(half_open)) else {
            return;
        };
        let (connect, flow, owns_tuple, again) = (
            session.connect,
            session.flow,
            session.owns_tuple,
            session.ticket.is_some() && session.local_port == 0 && session.collisions + 1 < COLLISIONS_MAX,
        );
        // This attempt never had a flow on the worker: it ends here, its tuple comes back here.
        session.transport = None;
        session.owns_tuple = false;
        session.collisions += 1;
        self.half_opens.cleanup(half_open);
        self.half_opens.settled(half_open, &mut self.actions);
        if owns_tuple {
            self.tuples.release(&flow);
        }
        self.half_opens_act();
        self.note_connect_failure(app_worker, connect, What::AttemptFailed, ConnectFailure::AddressInUse);
        let result =
            if again { self.attempt(app_worker, key, None) } else { Err(ConnectFailure::AddressInUse) };
        if let Err(failure) = result {
            self.attempt_failed(app_worker, key, failure);
        }
        // A request whose outcome was told while this came has no transport left to notify its deletion.
        let settled = self
            .half_open(app_worker, key)
            .is_some_and(|s| s.state == HalfOpenState::Settled && s.transport.is_none());
        if settled {
            self.free_half_open(app_worker, key);
        }
    }

    /// Cancels a connect request: here if main holds its ticket, else by asking the worker that does.
    pub(super) fn cancel(&mut self, connect: ConnectId) -> Result<(), CancelError> {
        if let Some(&(app_worker, _)) = self.connects.get(&connect) {
            self.note_connect(app_worker, connect, What::CancelAsked);
        }
        self.fail_connect(connect, ConnectFailure::Cancelled)
    }

    pub(super) fn fail_connect(
        &mut self,
        connect: ConnectId,
        failure: ConnectFailure,
    ) -> Result<(), CancelError> {
        let &(app_worker, key) = self.connects.get(&connect).ok_or(CancelError::NotPending)?;
        let session = self.half_open(app_worker, key).ok_or(CancelError::NotPending)?;
        let worker = session.worker;
        match session.state {
            HalfOpenState::Connecting => {
                self.fail(app_worker, key, failure);
                Ok(())
            }
            HalfOpenState::HandedOver => {
                // The ticket may be on its way back.
                session.verdict = Some(failure);
                self.send(worker, Command::FailConnect { connect, failure });
                Ok(())
            }
            HalfOpenState::Failed(_) | HalfOpenState::Settled => Err(CancelError::NotPending),
        }
    }

    /// A worker told the outcome (or could not): the transport may delete the half-open now.
    pub(super) fn settled(&mut self, worker: WorkerId, settled: Settled) {
        let Settled { connect, app_worker, half_open: key, opaque, outcome, undelivered } = settled;
        match outcome {
            Ok(()) => self.note_connect(app_worker, connect, What::Settled),
            Err(cause) => {
                self.note_connect_failure(app_worker, connect, What::Settled, cause);
                self.log_failed(app_worker, connect, cause, key);
            }
        }
        self.in_flight[worker.index()] = self.in_flight[worker.index()].saturating_sub(1);
        self.forget_pending(Some(worker), app_worker, connect);
        if let Some(record) = self.app_workers.get_mut(app_worker.0) {
            record.counters.count(outcome);
            record.counters.undelivered += u64::from(undelivered);
        }
        if key == NO_HALF_OPEN {
            self.tell_cleaned(app_worker, connect, opaque);
            return;
        }
        let Some(session) = self.half_open(app_worker, key) else { return };
        session.state = HalfOpenState::Settled;
        let protocol = session.flow.protocol;
        match session.transport {
            Some(half_open) => self.half_open_settled(protocol, half_open),
            None => self.free_half_open(app_worker, key),
        }
    }

    /// A connect has its outcome: it no longer counts where it was made.
    fn forget_pending(&mut self, told_on: Option<WorkerId>, app_worker: AppWorkerId, connect: ConnectId) {
        match connect.origin() {
            origin if origin > MAIN_ORIGIN => {
                self.directory.settle();
            }
            MAIN_ORIGIN => {}
            origin => {
                let made_on = WorkerId(origin as u8);
                if told_on != Some(made_on) {
                    *self.settled_elsewhere.entry((made_on, app_worker)).or_default() += 1;
                }
            }
        }
    }

    /// The one place that frees a half-open session: its transport has deleted it, or it never had one.
    fn free_half_open(&mut self, app_worker: AppWorkerId, key: Key) {
        let Some(record) = self.app_workers.get_mut(app_worker.0) else { return };
        let Some(session) = record.half_opens.remove(key) else { return };
        debug_assert!(
            session.state == HalfOpenState::Settled || canary::has(Bug::FreedBeforeOutcome),
            "a half-open is freed after its outcome was told"
        );
        self.connects.remove(&session.connect);
        self.tell_cleaned(app_worker, session.connect, session.opaque);
    }

    fn tell_cleaned(&mut self, app_worker: AppWorkerId, connect: ConnectId, opaque: u64) {
        let Some(record) = self.app_workers.get_mut(app_worker.0) else { return };
        record.counters.cleaned += 1;
        if record.is_told() {
            return;
        }
        let app = record.app;
        self.call_app(app, |app, ctx| app.half_open_cleaned(ctx, connect, opaque));
    }
}
