//! The attempts of a connect request: each is a generation under the request's one ticket, over whichever transport its
//! address names, with a half-open transport connection and stages of its own.

use std::net::IpAddr;

use hoststack_app::ConnectOptions;
use hoststack_net::{InterfaceId, NeighborState};
use hoststack_session::{HalfOpenSession, HalfOpenState, Remotes, StagePlans};
use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    Address, AppWorkerId, ConnectFailure, ConnectTicket, EarlyData, Endpoint, FlowKey, HalfOpenId,
    HalfOpenUser, Instant, Key, ListenerId, Protocol, WorkerId,
};

use super::listeners::Place;
use super::{Main, worker_of};
use crate::events::{Subject, What};
use crate::messages::{Command, Seed};

/// What a request has to try, unless it is one attempt at an endpoint by this stack's TCP, which its flow says.
pub(super) fn remotes(options: &ConnectOptions) -> Option<Box<Remotes>> {
    let is_plain = options.alternatives.is_empty()
        && options.rounds == 1
        && options.attempt_timeout.is_none()
        && matches!(options.remote, Address::Tcp(_));
    (!is_plain).then(|| {
        Box::new(Remotes {
            list: options.remotes().cloned().collect(),
            current: 0,
            rounds_left: options.rounds - 1,
            attempt_timeout: options.attempt_timeout,
            retry_delay: options.retry_delay,
            deadline: Instant::FAR,
            is_pausing: false,
        })
    })
}

/// A request that waits before an attempt, and which attempt that is: what waited for an earlier one finds another number.
pub(super) type Waiter = (AppWorkerId, Key, u16);

impl Main {
    /// Starts an attempt.
    pub(super) fn attempt(
        &mut self,
        app_worker: AppWorkerId,
        key: Key,
        wanted: Option<WorkerId>,
    ) -> Result<(), ConnectFailure> {
        let now = self.now;
        let Some(session) = self.half_open(app_worker, key) else { return Ok(()) };
        session.attempts = session.attempts.wrapping_add(1);
        let mut remote = Address::Tcp(session.flow.remote);
        if let Some(remotes) = &mut session.remotes {
            remotes.deadline =
                remotes.attempt_timeout.map_or(session.deadline, |most| session.deadline.min(now + most));
            remote = remotes.list[remotes.current].clone();
        }
        session.flow.protocol = remote.protocol();
        session.flow.remote = remote.endpoint().unwrap_or(Endpoint::UNSPECIFIED);
        session.flow.local =
            Endpoint::new(session.local_addr.unwrap_or(Endpoint::UNSPECIFIED.addr), session.local_port);
        let (connect, number, domain) = (session.connect, session.attempts, session.flow.domain.0);
        self.note_connect(app_worker, connect, What::Attempt(number));
        match remote {
            Address::Tcp(_) => self.attempt_tcp(app_worker, key, wanted),
            Address::KernelTcp(_) | Address::KernelUnix(_) => self.attempt_kernel(app_worker, key, &remote),
            Address::Local(name) => {
                let place = Place::Local(domain, name);
                let listener = self.places.get(&place).copied().ok_or(ConnectFailure::Refused)?;
                self.attempt_local(app_worker, key, listener)
            }
        }
    }

    /// By this stack's TCP: route, source, neighbour, 4-tuple, half-open transport connection.
    fn attempt_tcp(
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
            let waiter = (app_worker, key, session.attempts);
            self.waiting.entry((next_hop.interface, next_hop.addr)).or_default().push(waiter);
            self.wait_timers.insert(session.attempt_deadline(), waiter);
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
            session.attempt_deadline(),
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
        if !self.router_actions.is_empty() {
            self.router_acts(steered);
        }
        self.half_opens_act();
        Ok(())
    }

    /// By a socket of the host, which connects here and moves to its worker when it is up.
    fn attempt_kernel(
        &mut self,
        app_worker: AppWorkerId,
        key: Key,
        remote: &Address,
    ) -> Result<(), ConnectFailure> {
        let now = self.now;
        let Some(session) = self.app_workers.get_mut(app_worker.0).and_then(|r| r.half_opens.get_mut(key))
        else {
            return Ok(());
        };
        let is_bound =
            remote.endpoint().is_some() && (session.local_addr.is_some() || session.local_port != 0);
        let local = is_bound.then(|| match (session.local_addr, remote.endpoint()) {
            (None, Some(Endpoint { addr: IpAddr::V6(_), .. })) => {
                Endpoint::new(std::net::Ipv6Addr::UNSPECIFIED.into(), session.local_port)
            }
            _ => session.flow.local,
        });
        let half_open = self
            .kernel
            .open(
                now,
                remote,
                local,
                HalfOpenUser { app_worker, half_open: key },
                session.socket.clone(),
                session.attempt_deadline(),
                &mut self.kernel_actions,
            )
            .map_err(|_| ConnectFailure::NoRoom)?;
        session.transport = Some(half_open);
        self.kernel_acts();
        Ok(())
    }

    /// To another app of this stack: there is nothing to wait for on main.
    fn attempt_local(
        &mut self,
        app_worker: AppWorkerId,
        key: Key,
        listener: ListenerId,
    ) -> Result<(), ConnectFailure> {
        let chosen = self.listeners.get(listener.0).and_then(|listener| listener.worker);
        let Some(session) = self.half_open(app_worker, key) else { return Ok(()) };
        let seed =
            Seed::Local { listener, worker: chosen.unwrap_or(session.worker), domain: session.flow.domain };
        self.hand_over(HalfOpenUser { app_worker, half_open: key }, seed);
        Ok(())
    }

    /// The transport is open, or will be without main: the ticket goes to the worker, where the session is made.
    pub(super) fn hand_over(&mut self, user: HalfOpenUser, seed: Seed) {
        let Some(session) = self.half_open(user.app_worker, user.half_open) else { return };
        let Some(ticket) = session.ticket.take() else { return };
        self.events_ring.push(
            self.now,
            Subject::app_worker(user.app_worker).connect(ticket.connect()),
            What::HandedOver,
        );
        let Some(session) = self.half_open(user.app_worker, user.half_open) else { return };
        session.state = HalfOpenState::HandedOver;
        let may_retry = session.remotes.as_ref().is_some_and(|remotes| remotes.has_more());
        let (early_data, stages) = if may_retry {
            (session.early_data.clone(), session.stages.clone())
        } else {
            (std::mem::take(&mut session.early_data), std::mem::take(&mut session.stages))
        };
        let stages = if canary::has(Bug::StagesDroppedOnRetry) && session.attempts > 1 {
            StagePlans::NONE
        } else {
            stages
        };
        let command = Command::Establish {
            ticket,
            seed,
            deadline: session.attempt_deadline(),
            options: session.options,
            early_data,
            stages,
            may_retry,
        };
        let worker = session.worker;
        let again = self.establish_again(&command);
        self.send(worker, command);
        if let Some(again) = again {
            self.send(worker, again);
        }
    }

    /// An attempt failed while main holds the ticket: the next one, or the outcome.
    pub(super) fn attempt_failed(&mut self, app_worker: AppWorkerId, key: Key, failure: ConnectFailure) {
        let mut failure = failure;
        // Each round of the loop is an attempt that failed at once.
        loop {
            let now = self.now;
            let Some(session) = self.half_open(app_worker, key).filter(|session| session.ticket.is_some())
            else {
                return;
            };
            let connect = session.connect;
            let is_final = matches!(failure, ConnectFailure::Cancelled | ConnectFailure::Detached);
            let remotes = session.remotes.as_mut().filter(|remotes| remotes.has_more());
            let Some(remotes) = remotes.filter(|_| !is_final && now < session.deadline) else {
                return self.fail(app_worker, key, failure);
            };
            let pause = remotes.advance();
            session.collisions = 0;
            self.note_connect_failure(app_worker, connect, What::AttemptFailed, failure);
            let Some(session) = self.half_open(app_worker, key) else { return };
            if let Some(pause) = pause {
                session.attempts = session.attempts.wrapping_add(1);
                let waiter = (app_worker, key, session.attempts);
                let until = session.deadline.min(now + pause);
                self.end_attempt(app_worker, key, false);
                self.wait_timers.insert(until, waiter);
                return;
            }
            self.end_attempt(app_worker, key, false);
            match self.attempt(app_worker, key, None) {
                Ok(()) => return,
                Err(next) => failure = next,
            }
        }
    }

    /// Lets go of the half-open transport connection of an attempt that has failed, at once (I13).
    fn end_attempt(&mut self, app_worker: AppWorkerId, key: Key, was_handed_over: bool) {
        let Some(session) = self.half_open(app_worker, key) else { return };
        let (worker, flow) = (session.worker, session.flow);
        session.owns_tuple = false;
        let Some(half_open) = session.transport.take() else { return };
        if flow.protocol == Protocol::Tcp && !was_handed_over {
            // Its tuple comes back when its worker has let the flow go.
            self.send(worker, Command::Forget { half_open, flow });
        }
        self.cleanup_half_open(flow.protocol, half_open);
        self.half_open_settled(flow.protocol, half_open);
    }

    /// A worker gives a ticket back: the connection failed before the app was told of it.
    pub(super) fn next_attempt(&mut self, ticket: ConnectTicket, failure: ConnectFailure) {
        let (app_worker, key) = (ticket.app_worker(), ticket.half_open());
        let Some(session) = self.half_open(app_worker, key) else {
            debug_assert!(false, "a half-open outlives its ticket");
            return;
        };
        session.ticket = Some(ticket);
        session.state = HalfOpenState::Connecting;
        let verdict = session.verdict.take();
        self.end_attempt(app_worker, key, true);
        match verdict {
            // It crossed with a cancel or a detach.
            Some(failure) => self.fail(app_worker, key, failure),
            None => self.attempt_failed(app_worker, key, failure),
        }
    }

    /// Stops a half-open transport connection; frees nothing.
    pub(super) fn cleanup_half_open(&mut self, protocol: Protocol, half_open: HalfOpenId) {
        match protocol {
            Protocol::Tcp => self.half_opens.cleanup(half_open),
            Protocol::KernelTcp | Protocol::KernelUnix => self.kernel.cleanup(half_open),
            Protocol::Local => {}
        }
    }

    /// What a half-open transport connection was for has ended: it is deleted, and says so.
    pub(super) fn half_open_settled(&mut self, protocol: Protocol, half_open: HalfOpenId) {
        match protocol {
            Protocol::Tcp => {
                self.half_opens.settled(half_open, &mut self.actions);
                self.half_opens_act();
            }
            Protocol::KernelTcp | Protocol::KernelUnix => {
                self.kernel.settled(half_open, &mut self.kernel_actions);
                self.kernel_acts();
            }
            Protocol::Local => {}
        }
    }

    // ---- Waiting before an attempt ----

    /// A neighbour is known, or will not be: the connects that waited for it go on, or fail.
    pub(super) fn neighbor_resolved(&mut self, hop: (InterfaceId, IpAddr), is_known: bool) {
        for (app_worker, key, attempt) in self.waiting.remove(&hop).unwrap_or_default() {
            if self.waiter(app_worker, key, attempt).is_none() {
                continue;
            }
            let result =
                if is_known { self.attempt(app_worker, key, None) } else { Err(ConnectFailure::Unreachable) };
            if let Err(failure) = result {
                self.attempt_failed(app_worker, key, failure);
            }
        }
    }

    /// Connects whose time has come while they waited: for a neighbour, or to try again.
    pub(super) fn poll_waiting(&mut self) -> bool {
        if self.wait_timers.next_deadline().is_none_or(|deadline| deadline > self.now) {
            return false;
        }
        let now = self.now;
        let mut fired = Vec::new();
        self.wait_timers.advance(now, &mut fired);
        for (_, (app_worker, key, attempt)) in fired {
            let Some(session) = self.waiter(app_worker, key, attempt) else { continue };
            let is_pausing =
                session.remotes.as_mut().is_some_and(|remotes| std::mem::take(&mut remotes.is_pausing));
            let result = if is_pausing && now < session.deadline {
                self.attempt(app_worker, key, None)
            } else {
                Err(ConnectFailure::TimedOut)
            };
            if let Err(failure) = result {
                self.attempt_failed(app_worker, key, failure);
            }
        }
        true
    }

    /// The request, if it still waits before that attempt.
    fn waiter(&mut self, app_worker: AppWorkerId, key: Key, attempt: u16) -> Option<&mut HalfOpenSession> {
        self.half_open(app_worker, key).filter(|session| {
            session.ticket.is_some() && session.transport.is_none() && session.attempts == attempt
        })
    }
}
