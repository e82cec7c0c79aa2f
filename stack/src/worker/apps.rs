//! Callbacks, what apps ask for in them, and detach.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use hoststack_app::{AppRequest, AppWorker, Context, DetachPolicy};
use hoststack_session::{Announcement, AppSide, EndedBy, Pending};
use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{AppWorkerId, CloseReason, ConnectFailure, Instant, SessionId};

use super::Worker;
use super::transports::Ask;
use crate::events::What;
use crate::messages::Report;

/// The detach of an app worker on this worker, after `DetachEnd`.
#[derive(Debug)]
pub(super) struct DetachRun {
    policy: DetachPolicy,
    /// When what is left is reset.
    deadline: Instant,
    /// Next slot of the walk over the session pool.
    cursor: u32,
    /// The walk resets, because of the policy or because the deadline passed.
    resetting: bool,
    sessions_reset: usize,
}

impl Worker {
    /// Calls an app worker's object, if it is still there. Says whether it was, and lived through it.
    ///
    /// A panic drops the object and is reported; main then detaches the app worker.
    pub(super) fn call(
        &mut self,
        app_worker: AppWorkerId,
        callback: impl FnOnce(&mut dyn AppWorker, &mut Context<'_>),
    ) -> bool {
        let workers = self.config.workers as u8;
        let Some(slot) = self.apps.get_mut(app_worker.0.slot as usize).and_then(Option::as_mut) else {
            return false;
        };
        if slot.id != app_worker || slot.abandoned.load(Ordering::Relaxed) {
            return false;
        }
        let Some(mut object) = slot.object.take() else { return false };
        let mut ctx = Context::new(
            self.now,
            workers,
            app_worker,
            slot.unit,
            &mut self.sessions,
            &self.transports.tcp,
            &mut slot.state,
            &mut self.mint,
            &mut self.requests,
            &mut self.armed,
        );
        let outcome = catch_unwind(AssertUnwindSafe(|| callback(&mut *object, &mut ctx)));
        self.figures.callbacks += 1;
        for (at, app_worker, token) in self.armed.drain(..) {
            self.app_timers.insert(at, (app_worker, token));
        }
        match outcome {
            Ok(()) => {
                slot.object = Some(object);
                true
            }
            Err(panic) => {
                slot.state.timers.clear();
                // Its destructor, and its payload's, may panic as well.
                drop_quietly(object);
                drop_quietly(panic);
                tracing::error!(%app_worker, worker = %self.id, "a callback panicked: its app worker is being detached");
                self.reports.push(Report::Panicked { app_worker });
                false
            }
        }
    }

    /// Everything apps must be told: failed connects, messages, and what is pending of sessions. Only what waits at
    /// the start of the stage, so that a callback that causes events cannot keep it here for ever, and a bounded number
    /// of each, so that packets do not wait for a hundred thousand callbacks.
    pub(super) fn deliver_app_events(&mut self) -> bool {
        let told_max = self.config.bursts.callbacks;
        let mut worked = false;
        for _ in 0..self.outcomes.len().min(told_max) {
            let Some((ticket, failure)) = self.outcomes.pop_front() else { break };
            worked = true;
            self.tell_failure(None, ticket, failure);
        }
        for _ in 0..self.notices.len().min(told_max) {
            let Some((app_worker, message)) = self.notices.pop_front() else { break };
            worked = true;
            self.call(app_worker, |app, ctx| app.notified(ctx, message));
        }
        self.sessions.serve_chunk_waiters();
        for _ in 0..self.sessions.ready_len().min(told_max) {
            let Some((session, app_worker)) = self.sessions.next_ready() else { break };
            worked = true;
            self.deliver_session(session, app_worker);
        }
        worked
    }

    /// There are few ways to fail: each is a stage's name and a cause from a table.
    fn count_not_accepted(&mut self, failure: ConnectFailure) {
        match self.not_accepted.iter_mut().find(|(other, _)| *other == failure) {
            Some((_, count)) => *count += 1,
            None => self.not_accepted.push((failure, 1)),
        }
    }

    /// Tells the outcome of a connect that failed, with the session `id` or without one.
    fn tell_failure(
        &mut self,
        id: Option<SessionId>,
        ticket: hoststack_transport::ConnectTicket,
        failure: ConnectFailure,
    ) {
        self.measured.connect_failures += 1;
        self.measured.connect_failure.record(self.now.micros_since(ticket.made()));
        let (connect, opaque) = (ticket.connect(), ticket.opaque());
        self.note_failed(id, ticket.app_worker(), connect, What::Failed, failure);
        let told =
            self.call(ticket.app_worker(), |app, ctx| app.connected(ctx, connect, opaque, Err(failure)));
        if canary::has(Bug::OutcomeToldTwice) {
            self.call(ticket.app_worker(), |app, ctx| app.connected(ctx, connect, opaque, Err(failure)));
        }
        self.report_settled(ticket, Err(failure), told);
    }

    /// Tells an app what is pending of one session, in order.
    fn deliver_session(&mut self, id: SessionId, app_worker: AppWorkerId) {
        self.note_stage_turns();
        let handle = self.sessions.handle(id);
        let mut last = None;
        while let Some(pending) = self.sessions.take_pending(id, last) {
            last = Some(pending);
            match pending {
                Pending::ANNOUNCE => match self.sessions.announce(id) {
                    Some(Announcement::Accepted) => {
                        self.measured.accepts += 1;
                        self.note_announced(id, app_worker, None);
                        if !self.call(app_worker, |app, ctx| app.accepted(ctx, handle)) {
                            self.requests.push(AppRequest::Reset(id));
                        }
                    }
                    Some(Announcement::Connected(ticket)) => {
                        self.measured.connects += 1;
                        self.measured.connect_latency.record(self.now.micros_since(ticket.made()));
                        let (connect, opaque) = (ticket.connect(), ticket.opaque());
                        self.note_announced(id, app_worker, Some(connect));
                        let told =
                            self.call(app_worker, |app, ctx| app.connected(ctx, connect, opaque, Ok(handle)));
                        self.report_settled(ticket, Ok(()), told);
                        if !told {
                            self.requests.push(AppRequest::Reset(id));
                        }
                    }
                    Some(Announcement::Failed(ticket, failure, connection)) => {
                        self.reset_if_there(id, connection);
                        self.tell_failure(Some(id), ticket, failure);
                        return;
                    }
                    Some(Announcement::Retry(ticket, failure, connection)) => {
                        self.reset_if_there(id, connection);
                        self.note_failed(Some(id), app_worker, ticket.connect(), What::Retry, failure);
                        self.reports.push(Report::NextAttempt { ticket, failure });
                        return;
                    }
                    Some(Announcement::NotAccepted(flow, failure, connection)) => {
                        self.reset_if_there(id, connection);
                        self.note_not_accepted(id, app_worker, &flow, failure);
                        self.count_not_accepted(failure);
                        self.call(app_worker, |app, ctx| app.not_accepted(ctx, &flow, failure));
                        return;
                    }
                    None => return,
                },
                Pending::URGENT => {
                    self.call(app_worker, |app, ctx| app.urgent(ctx, handle));
                }
                Pending::READABLE => {
                    self.call(app_worker, |app, ctx| app.readable(ctx, handle));
                }
                Pending::WRITABLE => {
                    self.call(app_worker, |app, ctx| app.writable(ctx, handle));
                }
                Pending::PEER_CLOSED => {
                    self.call(app_worker, |app, ctx| app.peer_closed(ctx, handle));
                }
                Pending::RESET => {
                    let reason = self.close_reason(id);
                    self.call(app_worker, |app, ctx| app.reset(ctx, handle, reason));
                }
                Pending::CLOSED => {
                    self.measured.ends += 1;
                    if !self.sessions.is_silent(id) {
                        let reason = self.close_reason(id);
                        let opaque = self.sessions.get(id).map_or(0, |session| session.opaque());
                        self.call(app_worker, |app, ctx| app.closed(ctx, handle, opaque, reason));
                    }
                    self.sessions.free(id);
                    return;
                }
                _ => unreachable!("take_pending returns one of the bits above"),
            }
            // An app that closed or reset the session in its callback hears no more of it but its end.
            self.handle_requests();
        }
    }

    fn close_reason(&self, id: SessionId) -> CloseReason {
        match self.sessions.get(id).map(|session| session.transport_side()) {
            Some(hoststack_session::TransportSide::Closed(reason)) => reason,
            _ => CloseReason::LocalReset,
        }
    }

    /// What apps asked for in callbacks of this step.
    pub(super) fn handle_requests(&mut self) -> bool {
        if self.requests.is_empty() {
            return false;
        }
        let mut requests = std::mem::take(&mut self.requests);
        for request in requests.drain(..) {
            match request {
                AppRequest::Connect(app_worker, connect, options, early_data) => {
                    let made = self.now;
                    self.reports.push(Report::Connect { app_worker, connect, options, early_data, made });
                }
                AppRequest::Cancel(connect) => self.reports.push(Report::Cancel { connect }),
                AppRequest::Listen(app_worker, options) => {
                    self.reports.push(Report::Listen { app_worker, options })
                }
                AppRequest::Unlisten(app_worker, listener) => {
                    self.reports.push(Report::Unlisten { app_worker, listener });
                }
                AppRequest::Detach(app_worker, policy) => {
                    self.reports.push(Report::Detach { app_worker, policy })
                }
                AppRequest::Close(_)
                | AppRequest::HalfClose(_)
                | AppRequest::Reset(_)
                | AppRequest::Set(..) => {
                    self.ask_transport(&request, EndedBy::App);
                }
            }
        }
        self.requests = requests;
        true
    }

    /// Apps' timers whose time has come.
    pub(super) fn fire_app_timers(&mut self) -> bool {
        if self.app_timers.next_deadline().is_none_or(|deadline| deadline > self.now) {
            return false;
        }
        let mut fired = std::mem::take(&mut self.fired_timers);
        self.app_timers.advance(self.now, &mut fired);
        let mut worked = false;
        for (at, (app_worker, token)) in fired.drain(..) {
            // A timer that was moved or taken back leaves its old entry in the wheel.
            let Some(slot) = self.app_slot(app_worker) else { continue };
            if slot.state.timers.get(&token) == Some(&at) {
                slot.state.timers.remove(&token);
                self.call(app_worker, |app, ctx| app.timer(ctx, token));
                worked = true;
            }
        }
        self.fired_timers = fired;
        worked
    }

    // ---- Detach ----

    /// No more connects, listens or sessions; what was asked for before is in the channel before the answer.
    pub(super) fn begin_detach(&mut self, app_worker: AppWorkerId) {
        self.sessions.app_workers().begin_detach(app_worker);
        self.call(app_worker, |app, ctx| app.detaching(ctx, app_worker));
        if let Some(slot) = self.app_slot(app_worker) {
            slot.state.detaching = true;
        }
        // Requests of that callback, and of earlier ones in this step, go ahead of the answer.
        self.handle_requests();
        let sessions = self.sessions.app_workers().sessions(app_worker);
        self.reports.push(Report::DetachBegun { app_worker, sessions });
    }

    /// Main has settled all it could: end what is here.
    pub(super) fn end_detach(&mut self, app_worker: AppWorkerId, policy: DetachPolicy) {
        let now = self.now;
        let Some(slot) = self.app_slot(app_worker) else {
            debug_assert!(false, "main ends a detach once, after the app worker was attached here");
            return;
        };
        let (deadline, resetting) = (now + policy.linger(), policy.linger().is_zero());
        slot.detach = Some(DetachRun { policy, deadline, cursor: 0, resetting, sessions_reset: 0 });
    }

    pub(super) fn detach_deadline(&self) -> Option<Instant> {
        self.apps
            .iter()
            .flatten()
            .filter_map(|slot| slot.detach.as_ref())
            .map(|run| run.deadline.max(self.now))
            .min()
    }

    /// Detaches under way: a slice of the session pool each, then wait for the last session, then drop the object.
    pub(super) fn run_detaches(&mut self) -> bool {
        let mut worked = false;
        for index in 0..self.apps.len() {
            let Some(slot) = self.apps[index].as_mut() else { continue };
            let id = slot.id;
            let Some(mut run) = slot.detach.take() else { continue };
            worked |= self.detach_slice(id, &mut run);
            let waiting = self.outcomes.iter().any(|(ticket, _)| ticket.app_worker() == id)
                && !canary::has(Bug::DetachOvertakesOutcomes);
            if self.sessions.app_workers().sessions(id) == 0 && !waiting {
                self.finish_detach(id, &run);
                worked = true;
            } else if let Some(slot) = self.apps[index].as_mut() {
                slot.detach = Some(run);
            }
        }
        worked
    }

    fn detach_slice(&mut self, app_worker: AppWorkerId, run: &mut DetachRun) -> bool {
        if !run.resetting && self.now >= run.deadline {
            run.resetting = true;
            run.cursor = 0;
        }
        let end = self.sessions.slot_end();
        let mut worked = false;
        let stop = end.min(run.cursor.saturating_add(self.config.bursts.detach_slots));
        let mut ended = 0;
        while run.cursor < stop && ended < self.config.bursts.detach_ended {
            let slot = run.cursor;
            run.cursor += 1;
            let Some((id, session)) = self.sessions.at_slot(slot) else { continue };
            if session.app_worker() != app_worker {
                continue;
            }
            worked = true;
            ended += 1;
            if session.app_side() == AppSide::Unannounced {
                // Its outcome, if it is outbound, is told as `Detached` unless another was decided before.
                self.fail_establishing(id, ConnectFailure::Detached);
                if let Some((_, session)) = self.sessions.at_slot(slot)
                    && let Some(connection) = session.connection()
                {
                    self.ask(id, connection, Ask::Reset);
                }
                run.sessions_reset += 1;
            } else if run.resetting {
                run.sessions_reset += 1;
                self.ask_transport(&AppRequest::Reset(id), EndedBy::Detach);
            } else {
                self.ask_transport(&AppRequest::Close(id), EndedBy::Detach);
            }
        }
        if run.resetting && run.cursor >= end {
            // All were reset once; a session that is still here waits for its `closed` to be delivered. A walk that
            // has to start again (sessions announced since) does so at the next deadline.
            run.deadline = Instant::FAR;
        }
        worked | (run.cursor < end)
    }

    /// A session failed before its app was told of it: its transport's connection is of no use.
    fn reset_if_there(&mut self, session: SessionId, connection: Option<hoststack_transport::ConnectionId>) {
        if let Some(connection) = connection {
            self.ask(session, connection, Ask::Reset);
        }
    }

    fn finish_detach(&mut self, app_worker: AppWorkerId, run: &DetachRun) {
        let index = app_worker.0.slot as usize;
        if let Some(object) = self.apps[index].take().and_then(|slot| slot.object) {
            drop_quietly(object);
        }
        self.sessions.app_workers().remove(app_worker);
        self.notices.retain(|(to, _)| *to != app_worker);
        tracing::debug!(%app_worker, worker = %self.id, policy = ?run.policy, reset = run.sessions_reset, "detached");
        self.reports.push(Report::Detached { app_worker, sessions_reset: run.sessions_reset });
    }
}

/// Drops an app's value; a panic in its destructor ends there.
fn drop_quietly<T>(value: T) {
    if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
        tracing::error!("an app's destructor panicked");
    }
}
