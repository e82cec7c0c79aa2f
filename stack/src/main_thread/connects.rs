//! The life of a connect request on main: a half-open session in its app worker's pool, attempts under one ticket,
//! one outcome sent to the worker that tells it, and the delete notification that frees.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hoststack_app::{CancelError, ConnectOptions};
use hoststack_net::{InterfaceId, NeighborState};
use hoststack_session::{HalfOpenSession, HalfOpenState};
use hoststack_tcp::HalfOpenAction;
use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    AppWorkerId, ConnectFailure, ConnectId, ConnectTicket, EarlyData, Endpoint, FlowKey, HalfOpenId,
    HalfOpenUser, Instant, Key, Protocol, SocketOptions, WorkerId,
};

use super::{MAIN_ORIGIN, Main, worker_of};
use crate::messages::{Command, Seed, Settled};

/// Local ports tried when workers say that one is taken, before the outcome is `AddressInUse`.
const ATTEMPTS_MAX: u8 = 8;

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
                options.local_addr.unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
                options.local_port,
            ),
            remote: options.remote,
            domain: options.domain,
            protocol: Protocol::Tcp,
        };
        let inserted = record.half_opens.insert_with(|key| HalfOpenSession {
            connect,
            ticket: Some(ConnectTicket::mint(connect, key, app_worker, options.opaque, ledger.clone())),
            state: HalfOpenState::Connecting,
            transport: None,
            flow,
            worker,
            attempts: 0,
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
        let Ok(key) = inserted else {
            let ticket = ConnectTicket::mint(connect, NO_HALF_OPEN, app_worker, options.opaque, ledger);
            self.in_flight[worker.index()] += 1;
            self.send(worker, Command::Outcome { ticket, failure: ConnectFailure::NoRoom, attempt: None });
            return;
        };
        self.connects.insert(connect, (app_worker, key));
        self.in_flight[worker.index()] += 1;
        if detaching {
            self.fail(app_worker, key, ConnectFailure::Detached);
        } else if let Err(failure) = self.attempt(app_worker, key, wanted) {
            self.fail(app_worker, key, failure);
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

    /// Starts an attempt: route, source, neighbour, 4-tuple, half-open transport connection.
    fn attempt(
        &mut self,
        app_worker: AppWorkerId,
        key: Key,
        wanted: Option<WorkerId>,
    ) -> Result<(), ConnectFailure> {
        let now = self.now;
        let Some(session) = self.app_workers.get_mut(app_worker.0).and_then(|r| r.half_opens.get_mut(key))
        else {
            return Ok(());
        };
        let worker_hint = session.worker;
        let (domain, remote) = (session.flow.domain.0, session.flow.remote);
        let next_hop = self.router.lookup(domain, remote.addr).ok_or(ConnectFailure::Unreachable)?;
        if self.router.is_local(domain, remote.addr) {
            // A domain does not talk to itself: its interfaces lead elsewhere (a loopback device is its own domain).
            return Err(ConnectFailure::Unreachable);
        }
        if self.router.is_directed_broadcast(domain, remote.addr) {
            // RFC 9293 §3.9.1.1 (MUST-46): nobody has that address.
            return Err(ConnectFailure::Unreachable);
        }
        // A wave of connects to a neighbour that is not known yet waits here, not as packets in a bounded queue: none of
        // them pays a retransmission time for it.
        let known = self.router.need(now.as_micros(), next_hop, &mut self.router_actions);
        if matches!(known, NeighborState::Incomplete | NeighborState::Failed) {
            self.waiting.entry((next_hop.interface, next_hop.addr)).or_default().push((app_worker, key));
            self.wait_timers.insert(session.deadline, (app_worker, key));
            self.router_acts(worker_hint);
            return Ok(());
        }
        // RFC 9293 §3.9.1.1 (MUST-43, MUST-44): before the first SYN.
        let source = self
            .router
            .select_source(domain, remote.addr, session.local_addr)
            .map_err(|_| ConnectFailure::AddressNotAvailable)?;
        let mut flow = FlowKey { local: Endpoint::new(source, session.local_port), ..session.flow };
        let (hasher, workers) = (self.hasher, self.config.workers);
        let worker = wanted.unwrap_or(session.worker);
        let allocated = self.tuples.allocate(flow, |flow| worker_of(&hasher, workers, flow) == worker);
        let owns_tuple = match allocated {
            Ok(port) => {
                flow.local.port = port;
                true
            }
            // The tuple may be in TIME-WAIT, which its worker may let us reuse (RFC 6191).
            Err(hoststack_transport::TupleError::InUse) if session.local_port != 0 => false,
            Err(_) => return Err(ConnectFailure::AddressInUse),
        };
        let mtu = self.router.mtu(next_hop).unwrap_or(576);
        let user = HalfOpenUser { app_worker, half_open: key };
        let opened = self.half_opens.open(
            now,
            flow,
            user,
            session.socket.clone(),
            // All attempts have the same; what stages write goes before it.
            if session.stages.is_empty() { session.early_data.clone() } else { EarlyData::NONE },
            u16::try_from(mtu).unwrap_or(u16::MAX),
            session.deadline,
            &mut self.actions,
        );
        let Ok(half_open) = opened else {
            if owns_tuple {
                self.tuples.release(&flow);
            }
            return Err(ConnectFailure::NoRoom);
        };
        let steered = worker_of(&hasher, workers, &flow);
        self.in_flight[session.worker.index()] -= 1;
        self.in_flight[steered.index()] += 1;
        session.worker = steered;
        session.flow = flow;
        session.owns_tuple = owns_tuple;
        session.transport = Some(half_open);
        session.attempts += 1;
        if !self.router_actions.is_empty() {
            self.router_acts(steered);
        }
        self.half_opens_act();
        Ok(())
    }

    /// A neighbour is known, or will not be: the connects that waited for it go on, or fail.
    pub(super) fn neighbor_resolved(&mut self, hop: (InterfaceId, IpAddr), is_known: bool) {
        for (app_worker, key) in self.waiting.remove(&hop).unwrap_or_default() {
            if !self.is_waiting(app_worker, key) {
                continue;
            }
            let result =
                if is_known { self.attempt(app_worker, key, None) } else { Err(ConnectFailure::Unreachable) };
            if let Err(failure) = result {
                self.fail(app_worker, key, failure);
            }
        }
    }

    /// Connects whose deadline passed while they waited for a neighbour.
    pub(super) fn poll_waiting(&mut self) -> bool {
        if self.wait_timers.next_deadline().is_none_or(|deadline| deadline > self.now) {
            return false;
        }
        let mut fired = Vec::new();
        self.wait_timers.advance(self.now, &mut fired);
        for (_, (app_worker, key)) in fired {
            if self.is_waiting(app_worker, key) {
                self.fail(app_worker, key, ConnectFailure::TimedOut);
            }
        }
        true
    }

    /// Whether a request has had no attempt yet because its neighbour is not known.
    fn is_waiting(&mut self, app_worker: AppWorkerId, key: Key) -> bool {
        self.half_open(app_worker, key)
            .is_some_and(|session| session.ticket.is_some() && session.transport.is_none())
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
                HalfOpenAction::Establish { half_open, user, seed } => {
                    let Some(session) = self.half_open(user.app_worker, user.half_open) else { continue };
                    debug_assert_eq!(session.transport, Some(half_open));
                    let Some(ticket) = session.ticket.take() else { continue };
                    session.state = HalfOpenState::HandedOver;
                    let command = Command::Establish {
                        ticket,
                        seed: Seed::Tcp(seed),
                        deadline: session.deadline,
                        options: session.options,
                        early_data: std::mem::take(&mut session.early_data),
                        stages: std::mem::take(&mut session.stages),
                    };
                    let worker = session.worker;
                    let again =
                        canary::has(Bug::DoubleEstablish).then(|| self.establish_again(&command)).flatten();
                    self.send(worker, command);
                    if let Some(again) = again {
                        self.send(worker, again);
                    }
                }
                HalfOpenAction::Failed { user, failure, .. } => {
                    self.fail(user.app_worker, user.half_open, failure)
                }
                HalfOpenAction::Late { user, .. } => {
                    if let Some(record) = self.app_workers.get_mut(user.app_worker.0) {
                        record.counters.late_segments += 1;
                    }
                }
                HalfOpenAction::Deleted { half_open, user } => {
                    let session = self.half_open(user.app_worker, user.half_open);
                    if session.is_some_and(|session| session.transport == Some(half_open)) {
                        self.free_half_open(user.app_worker, user.half_open);
                    }
                }
            }
        }
        // An action may have caused others meanwhile: they are in the other vector, behind these.
        std::mem::swap(&mut self.actions, &mut actions);
        if !actions.is_empty() {
            self.actions.append(&mut actions);
            self.half_opens_act();
        }
    }

    /// The canary's second hand-over of a connection.
    #[cold]
    fn establish_again(&self, first: &Command) -> Option<Command> {
        let Command::Establish { ticket, seed, deadline, options, early_data, stages } = first else {
            return None;
        };
        let (connect, half_open, app_worker) = (ticket.connect(), ticket.half_open(), ticket.app_worker());
        let Seed::Tcp(seed) = seed;
        Some(Command::Establish {
            ticket: ConnectTicket::mint(connect, half_open, app_worker, ticket.opaque(), self.ledger.clone()),
            seed: Seed::Tcp(seed.clone()),
            deadline: *deadline,
            options: *options,
            early_data: early_data.clone(),
            stages: stages.clone(),
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
        let attempt = session.transport.map(|half_open| (half_open, session.flow));
        let worker = session.worker;
        if let Some((half_open, _)) = attempt {
            // Stops its timers and marks it; it is freed when the outcome was told.
            self.half_opens.cleanup(half_open);
        }
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
        let (flow, owns_tuple, again) = (
            session.flow,
            session.owns_tuple,
            session.ticket.is_some() && session.local_port == 0 && session.attempts < ATTEMPTS_MAX,
        );
        // This attempt never had a flow on the worker: it ends here, its tuple comes back here.
        session.transport = None;
        session.owns_tuple = false;
        self.half_opens.cleanup(half_open);
        self.half_opens.settled(half_open, &mut self.actions);
        if owns_tuple {
            self.tuples.release(&flow);
        }
        self.half_opens_act();
        let result =
            if again { self.attempt(app_worker, key, None) } else { Err(ConnectFailure::AddressInUse) };
        if let Err(failure) = result {
            self.fail(app_worker, key, failure);
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
                self.send(worker, Command::FailConnect { connect, failure });
                Ok(())
            }
            HalfOpenState::Failed(_) | HalfOpenState::Settled => Err(CancelError::NotPending),
        }
    }

    /// A worker told the outcome (or could not): the transport may delete the half-open now.
    pub(super) fn settled(&mut self, worker: WorkerId, settled: Settled) {
        let Settled { connect, app_worker, half_open: key, opaque, outcome, undelivered } = settled;
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
        match session.transport {
            Some(half_open) => {
                self.half_opens.settled(half_open, &mut self.actions);
                self.half_opens_act();
            }
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
