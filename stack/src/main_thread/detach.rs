//! Detach, in the order of the design (section 3): workers refuse and say so, main settles every connect whose ticket it
//! holds, workers end the rest and say so, the slot is freed, the end is told.
//!
//! Work is done in slices, so that an app worker with a hundred thousand connects stalls nobody. A worker that does not
//! answer (a callback that hangs) is waited for until the deadline: then the end is told with its name, and the slot
//! stays taken until the worker answers after all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use hoststack_app::{DetachError, DetachPolicy, DetachReport, WorkerDetachReport};
use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{AppId, AppWorkerId, ConnectFailure, ConnectId, Instant, WorkerId};

use super::Main;
use super::apps::App;
use crate::events::What;
use crate::messages::{Command, Reply};

/// The detach of an application: ends with its last app worker.
pub(super) struct AppDetach {
    reports: Vec<WorkerDetachReport>,
    replies: Vec<Reply<Result<DetachReport, DetachError>>>,
}

/// The detach of an app worker.
pub(super) struct WorkerDetach {
    policy: DetachPolicy,
    began: Instant,
    /// When workers that have not answered in this phase are waited for no longer.
    deadline: Instant,
    phase: Phase,
    /// Workers that have not answered in this phase.
    waiting: Vec<WorkerId>,
    /// Requests through stack handles that were made before it began are below this number.
    requests_end: u64,
    /// Connects that were pending when it began, and those that were asked for before every worker had heard of it.
    pub(super) half_opens: usize,
    sessions: usize,
    sessions_reset: usize,
    listeners: usize,
    stuck: Vec<WorkerId>,
    panicked: bool,
    replies: Vec<Reply<Result<WorkerDetachReport, DetachError>>>,
}

impl WorkerDetach {
    /// Whether its end was told, without a worker that is stuck.
    pub(super) fn is_told(&self) -> bool {
        self.phase == Phase::Told
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// `DetachBegin` is out: requests that were made before are still arriving.
    Beginning,
    /// All that can come has come: connects that are left to settle, how many were, and how many outcomes the app worker
    /// had when that began.
    Settling { left: Vec<ConnectId>, sent: u64, told_before: u64 },
    /// `DetachEnd` is out: workers end sessions.
    Ending,
    /// The end was told without the workers named as stuck.
    Told,
}

impl Main {
    /// Detaches an application: all its app workers, then itself.
    pub(super) fn detach_app(
        &mut self,
        app: AppId,
        policy: DetachPolicy,
        reply: Option<Reply<Result<DetachReport, DetachError>>>,
    ) {
        let error = match self.apps.get_mut(app.0) {
            None => Some(DetachError::NotAttached),
            Some(record) if record.detach.is_some() => Some(DetachError::Detaching),
            Some(record) => {
                record.detach = Some(AppDetach { reports: Vec::new(), replies: Vec::new() });
                None
            }
        };
        if let Some(error) = error {
            if let Some(reply) = reply {
                let _ = reply.send(Err(error));
            }
            return;
        }
        let Some(record) = self.apps.get_mut(app.0) else { return };
        if let (Some(detach), Some(reply)) = (&mut record.detach, reply) {
            detach.replies.push(reply);
        }
        for app_worker in record.app_workers.clone() {
            // One that is being detached already ends by its own policy.
            let _ = self.begin_detach(app_worker, policy, false);
        }
        self.try_finish_app_detach(app);
    }

    /// Begins the detach of one app worker: workers refuse its new connects and listens, and say so.
    pub(super) fn begin_detach(
        &mut self,
        app_worker: AppWorkerId,
        policy: DetachPolicy,
        panicked: bool,
    ) -> Result<(), DetachError> {
        let waiting: Vec<WorkerId> = self.workers().collect();
        let now = self.now;
        let record = self.app_workers.get_mut(app_worker.0).ok_or(DetachError::NotAttached)?;
        match &mut record.detach {
            Some(detach) if detach.phase == Phase::Told => return Err(DetachError::NotAttached),
            Some(detach) => {
                detach.panicked |= panicked;
                return Err(DetachError::Detaching);
            }
            None => {}
        }
        // From here on no stack handle makes a connect for it, and those that did have sent it: they are among the
        // requests that wait now.
        let requests = self.directory.close(&app_worker, || self.tape.find(|| self.requests.len()));
        let requests_end = self.requests_taken + requests as u64;
        record.detach = Some(WorkerDetach {
            policy,
            began: now,
            deadline: now + self.config.detach_grace,
            phase: Phase::Beginning,
            waiting,
            requests_end,
            half_opens: record.half_opens.len(),
            sessions: 0,
            sessions_reset: 0,
            listeners: record.listeners.len(),
            stuck: Vec::new(),
            panicked,
            replies: Vec::new(),
        });
        let app = record.app;
        if let Some(app) = self.apps.get_mut(app.0) {
            app.app_workers.retain(|&id| id != app_worker);
            app.ending.push(app_worker);
        }
        self.detaching.push(app_worker);
        self.note_app_worker(app_worker, What::DetachBegun);
        tracing::info!(%app_worker, app = self.app_worker_name(app_worker), ?policy, panicked, "detaching");
        self.broadcast(|| Command::DetachBegin { app_worker });
        Ok(())
    }

    pub(super) fn reply_when_detached(
        &mut self,
        app_worker: AppWorkerId,
        reply: Reply<Result<WorkerDetachReport, DetachError>>,
    ) {
        if let Some(detach) = self.detach(app_worker) {
            detach.replies.push(reply);
        }
    }

    fn detach(&mut self, app_worker: AppWorkerId) -> Option<&mut WorkerDetach> {
        self.app_workers.get_mut(app_worker.0)?.detach.as_mut()
    }

    /// A worker refuses now; all it was asked for before has arrived.
    pub(super) fn worker_began_detach(&mut self, worker: WorkerId, app_worker: AppWorkerId, sessions: usize) {
        let Some(detach) = self.detach(app_worker) else { return };
        detach.sessions += sessions;
        if detach.phase == Phase::Beginning {
            detach.waiting.retain(|&waiting| waiting != worker);
        }
    }

    /// A worker has nothing of it left.
    pub(super) fn worker_detached(
        &mut self,
        worker: WorkerId,
        app_worker: AppWorkerId,
        sessions_reset: usize,
    ) {
        if let Some(detach) = self.detach(app_worker) {
            detach.sessions_reset += sessions_reset;
            detach.waiting.retain(|&waiting| waiting != worker);
        }
    }

    /// Takes every detach as far as it can go now. Says whether anything was done.
    pub(super) fn run_detaches(&mut self) -> bool {
        let mut worked = false;
        for index in (0..self.detaching.len()).rev() {
            let app_worker = self.detaching[index];
            worked |= self.run_detach(app_worker);
            // What its callbacks asked for goes before another app worker ends, to which they may have spoken.
            worked |= self.handle_main_requests();
            if self.app_workers.get(app_worker.0).is_none() {
                self.detaching.retain(|&id| id != app_worker);
            }
        }
        worked
    }

    fn run_detach(&mut self, app_worker: AppWorkerId) -> bool {
        let (now, requests_taken, grace) = (self.now, self.requests_taken, self.config.detach_grace);
        let bursts = self.config.bursts;
        let Some(record) = self.app_workers.get_mut(app_worker.0) else { return false };
        let Some(detach) = &mut record.detach else { return false };
        if now >= detach.deadline + grace / 2 && !detach.is_told() {
            // Main itself was late (a suspended machine, a jump of the clock): so were the workers, perhaps.
            detach.deadline = now + grace;
        }
        match &mut detach.phase {
            Phase::Beginning => {
                if requests_taken < detach.requests_end && !canary::has(Bug::RequestsOrphaned) {
                    return false;
                }
                if !detach.waiting.is_empty() {
                    if now < detach.deadline {
                        return false;
                    }
                    detach.stuck = detach.waiting.clone();
                    tracing::warn!(%app_worker, stuck = ?detach.stuck, "workers do not answer a detach: a callback hangs");
                }
                detach.listeners = record.listeners.len();
                let mut connects: Vec<_> =
                    record.half_opens.iter().map(|(_, session)| session.connect).collect();
                if canary::has(Bug::DetachForgetsHalfOpens) {
                    connects.truncate(1);
                }
                detach.phase =
                    Phase::Settling { left: connects, sent: 0, told_before: record.counters.settled() };
                detach.deadline = now + grace;
                for listener in record.listeners.clone() {
                    let _ = self.unlisten(app_worker, listener);
                }
                true
            }
            Phase::Settling { left, sent, told_before } => {
                // Outcomes that others decided count as told as well: then a few more are under way.
                let told = record.counters.settled() - *told_before;
                if sent.saturating_sub(told) >= bursts.settling as u64 && now < detach.deadline {
                    return false;
                }
                let rest = left.len().saturating_sub(bursts.settled);
                let some = left.split_off(rest);
                *sent += some.len() as u64;
                let is_done = left.is_empty();
                for connect in some {
                    // Those whose outcome is on its way already lose nothing by it.
                    let _ = self.fail_connect(connect, ConnectFailure::Detached);
                }
                if is_done {
                    self.end_detach(app_worker);
                }
                true
            }
            Phase::Ending => {
                let is_over = detach.waiting.is_empty() && record.half_opens.is_empty();
                if !is_over && now < detach.deadline {
                    return false;
                }
                if !is_over && detach.waiting.is_empty() {
                    // Only the news of outcomes is missing, which are told: it comes with the next reports.
                    detach.deadline = now + grace;
                    return true;
                }
                if !is_over {
                    detach.stuck = detach.waiting.clone();
                    tracing::warn!(%app_worker, stuck = ?detach.stuck, "a detach ends without workers that do not answer: a callback hangs");
                }
                self.tell_detached(app_worker);
                true
            }
            Phase::Told => {
                if !detach.waiting.is_empty() || !record.half_opens.is_empty() {
                    return false;
                }
                tracing::info!(%app_worker, "a worker that was stuck has let go of a detached app worker");
                self.app_workers.remove(app_worker.0);
                true
            }
        }
    }

    fn end_detach(&mut self, app_worker: AppWorkerId) {
        let waiting: Vec<WorkerId> = self.workers().collect();
        let (now, grace) = (self.now, self.config.detach_grace);
        let Some(detach) = self.detach(app_worker) else { return };
        detach.phase = Phase::Ending;
        detach.waiting = waiting;
        detach.deadline = now + detach.policy.linger() + grace;
        let policy = detach.policy;
        self.broadcast(|| Command::DetachEnd { app_worker, policy });
    }

    /// Every worker has reported and its half-open pool is empty, or the deadline has passed: the end is told.
    fn tell_detached(&mut self, app_worker: AppWorkerId) {
        let now = self.now;
        let Some(record) = self.app_workers.get_mut(app_worker.0) else { return };
        let (app, unit, outcomes) = (record.app, record.unit, record.counters);
        let unresolved = record.half_opens.len();
        let Some(detach) = &mut record.detach else { return };
        let report = WorkerDetachReport {
            app_worker,
            unit,
            half_opens: detach.half_opens,
            sessions: detach.sessions,
            sessions_reset: detach.sessions_reset,
            listeners: detach.listeners,
            took: now - detach.began,
            stuck: detach.stuck.clone(),
            unresolved,
            outcomes,
            panicked: detach.panicked,
        };
        let replies = std::mem::take(&mut detach.replies);
        if detach.waiting.is_empty() && unresolved == 0 {
            self.app_workers.remove(app_worker.0);
        } else {
            detach.phase = Phase::Told;
            record.abandoned.store(true, Ordering::Relaxed);
        }
        self.note_app_worker(app_worker, What::DetachEnded);
        tracing::info!(%app_worker, half_opens = report.half_opens, sessions = report.sessions, "detached");
        if let Some(app) = self.apps.get_mut(app.0) {
            app.ending.retain(|&id| id != app_worker);
        }
        self.call_app(app, |app, ctx| app.worker_detached(ctx, &report));
        if let Some(detach) = self.apps.get_mut(app.0).and_then(|app| app.detach.as_mut()) {
            detach.reports.push(report.clone());
        }
        for reply in replies {
            let _ = reply.send(Ok(report.clone()));
        }
        self.try_finish_app_detach(app);
    }

    fn try_finish_app_detach(&mut self, id: AppId) {
        let is_over = |app: &App| app.detach.is_some() && app.app_workers.is_empty() && app.ending.is_empty();
        if !self.apps.get(id.0).is_some_and(is_over) {
            return;
        }
        let Some(app) = self.apps.remove(id.0) else { return };
        self.names.remove(&app.name);
        self.note_app(What::AppDetached(id));
        tracing::info!(app = %app.name, %id, "application detached");
        let Some(mut detach) = app.detach else { return };
        detach.reports.sort_by_key(|report| report.unit);
        let report = DetachReport { app: id, name: app.name, app_workers: detach.reports };
        if let Some(mut object) = app.object {
            let told = catch_unwind(AssertUnwindSafe(|| {
                object.detached(&report);
                drop(object);
            }));
            if told.is_err() {
                tracing::error!(%id, "the detached callback panicked");
            }
        }
        for reply in detach.replies {
            let _ = reply.send(Ok(report.clone()));
        }
    }

    /// When main must look at a detach again by itself.
    pub(super) fn detach_deadline(&self) -> Option<Instant> {
        self.detaching
            .iter()
            .filter_map(|id| self.app_workers.get(id.0)?.detach.as_ref())
            .filter(|detach| !detach.is_told())
            .map(|detach| detach.deadline)
            .min()
    }
}
