//! Applications and app workers: attach, callbacks on main, and detach in the order of the design (section 3).

use std::panic::{AssertUnwindSafe, catch_unwind};

use hoststack_app::{
    Application, AttachError, AttachOptions, DetachError, DetachPolicy, DetachReport, MainContext,
    MainRequest, WorkerDetachReport,
};
use hoststack_session::{HalfOpenCounters, HalfOpenSession};
use hoststack_transport::{
    AppId, AppWorkerId, ConnectFailure, Duration, Instant, ListenerId, Pool, WorkerId,
};

use super::Main;
use crate::messages::{Attached, Command, Reply};

/// An application.
pub(super) struct App {
    pub(super) name: String,
    /// `None` while a callback of it runs, and after one panicked.
    object: Option<Box<dyn Application>>,
    options: AttachOptions,
    pub(super) app_workers: Vec<AppWorkerId>,
    next_unit: u32,
    pub(super) detach: Option<AppDetach>,
}

/// The detach of an application: ends with its last app worker.
pub(super) struct AppDetach {
    reports: Vec<WorkerDetachReport>,
    replies: Vec<Reply<Result<DetachReport, DetachError>>>,
}

/// An app worker.
pub(super) struct AppWorkerRecord {
    pub(super) app: AppId,
    pub(super) unit: u32,
    pub(super) half_opens: Pool<HalfOpenSession>,
    pub(super) counters: HalfOpenCounters,
    pub(super) listeners: Vec<ListenerId>,
    detach: Option<WorkerDetach>,
}

impl AppWorkerRecord {
    pub(super) fn is_detaching(&self) -> bool {
        self.detach.is_some()
    }
}

/// The detach of an app worker.
struct WorkerDetach {
    policy: DetachPolicy,
    began: Instant,
    /// When workers that have not answered are named as stuck.
    deadline: Instant,
    phase: Phase,
    /// Workers that have not answered in this phase.
    waiting: Vec<WorkerId>,
    half_opens: usize,
    sessions: usize,
    sessions_reset: usize,
    listeners: usize,
    stuck: Vec<WorkerId>,
    panicked: bool,
    replies: Vec<Reply<Result<WorkerDetachReport, DetachError>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// `DetachBegin` is out: requests that were made before are still arriving.
    Beginning,
    /// `DetachEnd` is out: workers end sessions.
    Ending,
}

impl Main {
    // ---- Attach ----

    pub(super) fn attach(
        &mut self,
        app: Box<dyn Application>,
        options: &AttachOptions,
    ) -> Result<Attached, AttachError> {
        options.validate()?;
        if self.names.contains_key(&options.name) {
            return Err(AttachError::NameInUse);
        }
        let count = options.app_workers as usize;
        if count > self.config.app_workers_max {
            return Err(AttachError::BadWorkers);
        }
        if self.app_workers.len() + count > self.app_workers.limit() {
            return Err(AttachError::NoRoom);
        }
        let key = self
            .apps
            .insert(App {
                name: options.name.clone(),
                object: Some(app),
                options: options.clone(),
                app_workers: Vec::with_capacity(count),
                next_unit: 0,
                detach: None,
            })
            .map_err(|_| AttachError::NoRoom)?;
        let id = AppId(key);
        self.names.insert(options.name.clone(), id);
        for _ in 0..count {
            if let Err(error) = self.attach_app_worker(id) {
                self.detach_app(id, DetachPolicy::Reset, None);
                return Err(error);
            }
        }
        self.call_app(id, |app, ctx| app.attached(ctx));
        let app_workers = self.apps.get(key).map(|app| app.app_workers.clone()).unwrap_or_default();
        tracing::info!(app = %options.name, %id, app_workers = count, "attached");
        Ok(Attached { app: id, app_workers })
    }

    /// One more app worker for an application: its objects go to all workers.
    pub(super) fn attach_app_worker(&mut self, app: AppId) -> Result<AppWorkerId, AttachError> {
        let record =
            self.apps.get_mut(app.0).filter(|app| app.detach.is_none()).ok_or(AttachError::NoApplication)?;
        let (unit, half_opens_max) = (record.next_unit, record.options.half_opens_max);
        let pending_connects_max = record.options.pending_connects_max;
        let object = record.object.as_mut().ok_or(AttachError::NoApplication)?;
        if self.app_workers.is_full() {
            // Before its objects are made: an app is not asked for what cannot be attached.
            return Err(AttachError::NoRoom);
        }
        let workers: Vec<WorkerId> = (0..self.config.workers).map(|worker| WorkerId(worker as u8)).collect();
        let made = catch_unwind(AssertUnwindSafe(|| {
            workers.iter().map(|&worker| object.app_worker(unit, worker)).collect::<Vec<_>>()
        }));
        let Ok(objects) = made else {
            tracing::error!(%app, unit, "making an app worker's objects panicked");
            return Err(AttachError::NoApplication);
        };
        let key = self
            .app_workers
            .insert(AppWorkerRecord {
                app,
                unit,
                half_opens: Pool::new(half_opens_max),
                counters: HalfOpenCounters::default(),
                listeners: Vec::new(),
                detach: None,
            })
            .map_err(|_| AttachError::NoRoom)?;
        let app_worker = AppWorkerId(key);
        if let Some(record) = self.apps.get_mut(app.0) {
            record.next_unit += 1;
            record.app_workers.push(app_worker);
        }
        for (worker, object) in workers.into_iter().zip(objects) {
            self.send(worker, Command::Attach { app_worker, unit, pending_connects_max, object });
        }
        self.directory.live.write().insert(app_worker);
        Ok(app_worker)
    }

    // ---- Callbacks on main ----

    /// Calls an application, if it is still there. A panic drops it and detaches all of it.
    pub(super) fn call_app(
        &mut self,
        app: AppId,
        callback: impl FnOnce(&mut dyn Application, &mut MainContext<'_>),
    ) {
        let now = self.now;
        let Some(record) = self.apps.get_mut(app.0) else { return };
        let Some(mut object) = record.object.take() else { return };
        let workers = self.config.workers as u8; // cannot fail because a configuration has 255 at most
        let mut ctx =
            MainContext::new(now, workers, app, &record.app_workers, &mut self.mint, &mut self.main_requests);
        match catch_unwind(AssertUnwindSafe(|| callback(&mut *object, &mut ctx))) {
            Ok(()) => record.object = Some(object),
            Err(panic) => {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(object)));
                let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
                tracing::error!(%app, "a callback on main panicked: the application is being detached");
                self.main_requests.push(MainRequest::Detach(app, DetachPolicy::Reset));
            }
        }
    }

    /// What applications asked for in callbacks; those that wait at the start.
    pub(super) fn handle_main_requests(&mut self) -> bool {
        if self.main_requests.is_empty() {
            return false;
        }
        for request in std::mem::take(&mut self.main_requests) {
            // Errors are what the callback could not know yet: the app is told through its callbacks.
            match request {
                MainRequest::Connect(app_worker, connect, options) => {
                    self.connect(app_worker, connect, &options)
                }
                MainRequest::Cancel(connect) => {
                    let _ = self.cancel(connect);
                }
                MainRequest::Listen(app_worker, options) => self.listen(app_worker, &options, None),
                MainRequest::Unlisten(app_worker, listener) => {
                    let _ = self.unlisten(app_worker, listener);
                }
                MainRequest::DetachWorker(app_worker, policy) => {
                    let _ = self.begin_detach(app_worker, policy, false);
                }
                MainRequest::Detach(app, policy) => self.detach_app(app, policy, None),
            }
        }
        true
    }

    // ---- Detach ----

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
        let (now, grace) = (self.now, self.config.detach_grace);
        let record = self.app_workers.get_mut(app_worker.0).ok_or(DetachError::NotAttached)?;
        if let Some(detach) = &mut record.detach {
            detach.panicked |= panicked;
            return Err(DetachError::Detaching);
        }
        let linger = match policy {
            DetachPolicy::Reset => Duration::ZERO,
            DetachPolicy::Close { linger } => linger,
        };
        record.detach = Some(WorkerDetach {
            policy,
            began: now,
            deadline: now + linger + grace,
            phase: Phase::Beginning,
            waiting,
            half_opens: record.half_opens.len(),
            sessions: 0,
            sessions_reset: 0,
            listeners: record.listeners.len(),
            stuck: Vec::new(),
            panicked,
            replies: Vec::new(),
        });
        self.directory.live.write().remove(&app_worker);
        self.broadcast(|| Command::DetachBegin { app_worker });
        Ok(())
    }

    pub(super) fn reply_when_detached(
        &mut self,
        app_worker: AppWorkerId,
        reply: Reply<Result<WorkerDetachReport, DetachError>>,
    ) {
        if let Some(detach) = self.app_workers.get_mut(app_worker.0).and_then(|record| record.detach.as_mut())
        {
            detach.replies.push(reply);
        }
    }

    /// A worker refuses now; all it was asked for before has arrived. When all do, everything main can settle is.
    pub(super) fn worker_began_detach(&mut self, worker: WorkerId, app_worker: AppWorkerId, sessions: usize) {
        let Some(record) = self.app_workers.get_mut(app_worker.0) else { return };
        let Some(detach) = &mut record.detach else { return };
        debug_assert_eq!(detach.phase, Phase::Beginning);
        detach.sessions += sessions;
        detach.waiting.retain(|&waiting| waiting != worker);
        if !detach.waiting.is_empty() {
            return;
        }
        detach.phase = Phase::Ending;
        detach.half_opens = record.half_opens.len();
        detach.waiting = (0..self.config.workers).map(|worker| WorkerId(worker as u8)).collect();
        detach.listeners = record.listeners.len();
        let policy = detach.policy;
        let listeners = record.listeners.clone();
        let connects: Vec<_> = record.half_opens.iter().map(|(_, session)| session.connect).collect();
        for listener in listeners {
            let _ = self.unlisten(app_worker, listener);
        }
        for connect in connects {
            // Those whose outcome is on its way already lose nothing by it.
            let _ = self.fail_connect(connect, ConnectFailure::Detached);
        }
        self.broadcast(|| Command::DetachEnd { app_worker, policy });
    }

    /// A worker has nothing of it left.
    pub(super) fn worker_detached(
        &mut self,
        worker: WorkerId,
        app_worker: AppWorkerId,
        sessions_reset: usize,
    ) {
        if let Some(detach) = self.app_workers.get_mut(app_worker.0).and_then(|record| record.detach.as_mut())
        {
            detach.sessions_reset += sessions_reset;
            detach.waiting.retain(|&waiting| waiting != worker);
        }
        self.try_finish_detach(app_worker);
    }

    /// Frees an app worker once every worker has reported and its half-open pool is empty.
    pub(super) fn try_finish_detach(&mut self, app_worker: AppWorkerId) {
        let Some(record) = self.app_workers.get(app_worker.0) else { return };
        let done = record
            .detach
            .as_ref()
            .is_some_and(|detach| detach.phase == Phase::Ending && detach.waiting.is_empty());
        if !done || !record.half_opens.is_empty() {
            return;
        }
        let Some(record) = self.app_workers.remove(app_worker.0) else { return };
        let Some(detach) = record.detach else { return };
        let report = WorkerDetachReport {
            app_worker,
            unit: record.unit,
            half_opens: detach.half_opens,
            sessions: detach.sessions,
            sessions_reset: detach.sessions_reset,
            listeners: detach.listeners,
            took: self.now - detach.began,
            stuck: detach.stuck,
            outcomes: record.counters,
            panicked: detach.panicked,
        };
        tracing::info!(%app_worker, half_opens = report.half_opens, sessions = report.sessions, "detached");
        if let Some(app) = self.apps.get_mut(record.app.0) {
            app.app_workers.retain(|&id| id != app_worker);
        }
        self.call_app(record.app, |app, ctx| app.worker_detached(ctx, &report));
        if let Some(detach) = self.apps.get_mut(record.app.0).and_then(|app| app.detach.as_mut()) {
            detach.reports.push(report.clone());
        }
        for reply in detach.replies {
            let _ = reply.send(Ok(report.clone()));
        }
        self.try_finish_app_detach(record.app);
    }

    fn try_finish_app_detach(&mut self, id: AppId) {
        let done = self.apps.get(id.0).is_some_and(|app| app.detach.is_some() && app.app_workers.is_empty());
        if !done {
            return;
        }
        let Some(app) = self.apps.remove(id.0) else { return };
        self.names.remove(&app.name);
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

    /// When the next detach has waited too long.
    pub(super) fn detach_deadline(&self) -> Option<Instant> {
        self.app_workers
            .iter()
            .filter_map(|(_, record)| record.detach.as_ref())
            .filter(|detach| detach.stuck.is_empty())
            .map(|detach| detach.deadline)
            .min()
    }

    /// Names the workers that have not answered by a detach's deadline.
    pub(super) fn note_stuck_detaches(&mut self) -> bool {
        let now = self.now;
        if self.detach_deadline().is_none_or(|deadline| deadline > now) {
            return false;
        }
        let ids: Vec<AppWorkerId> = self.app_workers.iter().map(|(key, _)| AppWorkerId(key)).collect();
        for id in ids {
            let Some(detach) = self.app_workers.get_mut(id.0).and_then(|record| record.detach.as_mut())
            else {
                continue;
            };
            if detach.stuck.is_empty() && detach.deadline <= now {
                if detach.waiting.is_empty() {
                    // Only outcomes are missing: their workers will be heard of.
                    detach.deadline = Instant::FAR;
                } else {
                    detach.stuck = detach.waiting.clone();
                    tracing::warn!(app_worker = %id, stuck = ?detach.stuck, "workers have not answered a detach: a callback hangs");
                }
            }
        }
        true
    }
}
