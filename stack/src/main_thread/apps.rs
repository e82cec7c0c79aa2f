//! Applications and app workers: attach, and callbacks on main.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hoststack_app::{Application, AttachError, AttachOptions, DetachPolicy, MainContext, MainRequest};
use hoststack_session::{HalfOpenCounters, HalfOpenSession};
use hoststack_transport::{AppId, AppWorkerId, ListenerId, Pool, WorkerId};

use super::Main;
use super::detach::{AppDetach, WorkerDetach};
use crate::events::What;
use crate::messages::{Attached, Command};

/// An application.
pub(super) struct App {
    pub(super) name: String,
    /// `None` while a callback of it runs, and after one panicked.
    pub(super) object: Option<Box<dyn Application>>,
    options: AttachOptions,
    /// App workers that are attached.
    pub(super) app_workers: Vec<AppWorkerId>,
    /// App workers whose detach has begun and was not told.
    pub(super) ending: Vec<AppWorkerId>,
    next_unit: u32,
    pub(super) detach: Option<AppDetach>,
}

/// An app worker.
pub(super) struct AppWorkerRecord {
    pub(super) app: AppId,
    pub(super) unit: u32,
    pub(super) half_opens: Pool<HalfOpenSession>,
    pub(super) counters: HalfOpenCounters,
    pub(super) listeners: Vec<ListenerId>,
    pub(super) detach: Option<WorkerDetach>,
    /// Set when its end was told while a worker had not answered: that worker calls its object no more.
    pub(super) abandoned: Arc<AtomicBool>,
}

impl AppWorkerRecord {
    /// Whether its end was told: no callback for it follows.
    pub(super) fn is_told(&self) -> bool {
        self.detach.as_ref().is_some_and(WorkerDetach::is_told)
    }

    pub(super) fn is_detaching(&self) -> bool {
        self.detach.is_some()
    }
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
                ending: Vec::new(),
                next_unit: 0,
                detach: None,
            })
            .map_err(|_| AttachError::NoRoom)?;
        let id = AppId(key);
        self.names.insert(options.name.clone(), id);
        self.note_app(What::AppAttached(id));
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
        let abandoned = Arc::new(AtomicBool::new(false));
        let key = self
            .app_workers
            .insert(AppWorkerRecord {
                app,
                unit,
                half_opens: Pool::new(half_opens_max),
                counters: HalfOpenCounters::default(),
                listeners: Vec::new(),
                detach: None,
                abandoned: abandoned.clone(),
            })
            .map_err(|_| AttachError::NoRoom)?;
        let app_worker = AppWorkerId(key);
        if let Some(record) = self.apps.get_mut(app.0) {
            record.next_unit += 1;
            record.app_workers.push(app_worker);
        }
        self.note_app_worker(app_worker, What::WorkerAttached);
        let name: Arc<str> = self.app_worker_name(app_worker).into();
        for (worker, object) in workers.into_iter().zip(objects) {
            let (name, abandoned) = (name.clone(), abandoned.clone());
            self.send(
                worker,
                Command::Attach { app_worker, unit, name, pending_connects_max, object, abandoned },
            );
        }
        self.directory.open(app_worker);
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
                MainRequest::Connect(app_worker, connect, options, early_data) => {
                    self.connect(app_worker, connect, &options, early_data, self.now);
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
}
