//! What other threads use: requests to main, answered by message.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, bounded};
use hoststack_app::{
    Application, AttachError, AttachOptions, CancelError, ConnectError, ConnectMint, ConnectOptions,
    DetachError, DetachPolicy, DetachReport, ListenError, ListenOptions, WorkerDetachReport,
};
use hoststack_transport::{AppId, AppWorkerId, ConnectId, ListenerId, SessionHandle, WorkerId};
use parking_lot::Mutex;

use crate::inspect::{Answer, Query};
use crate::main_thread::{Directory, MAIN_ORIGIN};
use crate::messages::{Attached, EndHow, Reply, Request};
use crate::wake::Wake;

/// The stack has stopped: nothing can be asked of it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stack has stopped")
    }
}

impl std::error::Error for Stopped {}

/// Carries [`Stopped`] into the error of the operation that met it.
pub(crate) trait FromStopped {
    fn stopped() -> Self;
}

macro_rules! stopped_is {
    ($($error:ident),*) => {
        $(impl<T> FromStopped for Result<T, $error> {
            fn stopped() -> Self {
                Err($error::Stopped)
            }
        })*
    };
}
stopped_is!(AttachError, DetachError, CancelError, ListenError);

/// What is fixed at start and known to every handle.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) requests: Sender<Request>,
    pub(crate) wake: Arc<Wake>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) workers: usize,
    pub(crate) domains: Vec<u16>,
    pub(crate) pending_connects_max: usize,
}

/// A running stack, from any thread. Cheap to clone.
///
/// Calls that return a `Result` of something made wait for main's answer; do not call those from inside a callback
/// (its context offers the same without waiting).
pub struct StackHandle {
    shared: Arc<Shared>,
    mint: Mutex<ConnectMint>,
}

impl Clone for StackHandle {
    fn clone(&self) -> StackHandle {
        StackHandle::new(self.shared.clone())
    }
}

impl fmt::Debug for StackHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackHandle").field("workers", &self.shared.workers).finish_non_exhaustive()
    }
}

impl StackHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> StackHandle {
        // Origins wrap after some 65000 handles; two handles of one origin would have to be older than each other's
        // connects to collide, so their counts start far apart.
        let number = shared.directory.origins.fetch_add(1, Ordering::Relaxed);
        let origins = usize::from(u16::MAX - MAIN_ORIGIN);
        let origin = MAIN_ORIGIN + 1 + (number % origins) as u16;
        let mut mint = ConnectMint::new(origin);
        mint.skip((number / origins) as u64);
        StackHandle { shared, mint: Mutex::new(mint) }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    pub(crate) fn send(&self, request: Request) -> Result<(), Stopped> {
        self.shared.requests.send(request).map_err(|_| Stopped)?;
        self.shared.wake.notify();
        Ok(())
    }

    /// Sends a request that is answered, and returns where the answer comes.
    pub(crate) fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<Receiver<T>, Stopped> {
        let (reply, answer) = bounded(1);
        self.send(request(reply))?;
        Ok(answer)
    }

    fn call<T: FromStopped>(&self, request: impl FnOnce(Reply<T>) -> Request) -> T {
        self.ask(request).ok().and_then(|answer| answer.recv().ok()).unwrap_or_else(T::stopped)
    }

    /// Attaches an application and its app workers.
    ///
    /// # Errors
    /// A taken or bad name, bad numbers, no room.
    pub fn attach(
        &self,
        app: impl Application + 'static,
        options: AttachOptions,
    ) -> Result<Attached, AttachError> {
        self.call(|reply| Request::Attach { app: Box::new(app), options, reply })
    }

    /// Attaches one more app worker of an application.
    ///
    /// # Errors
    /// No such application, no room.
    pub fn attach_worker(&self, app: AppId) -> Result<AppWorkerId, AttachError> {
        self.call(|reply| Request::AttachWorker { app, reply })
    }

    /// Detaches an application; returns when nothing of it is left.
    ///
    /// # Errors
    /// It is not attached, or is being detached already.
    pub fn detach(&self, app: AppId, policy: DetachPolicy) -> Result<DetachReport, DetachError> {
        self.call(|reply| Request::Detach { app, policy, reply })
    }

    /// Detaches one app worker; returns when nothing of it is left.
    ///
    /// # Errors
    /// It is not attached, or is being detached already.
    pub fn detach_worker(
        &self,
        app_worker: AppWorkerId,
        policy: DetachPolicy,
    ) -> Result<WorkerDetachReport, DetachError> {
        self.call(|reply| Request::DetachWorker { app_worker, policy, reply })
    }

    /// Opens a connection for an app worker; does not wait. After `Ok` its `connected` follows, exactly once.
    ///
    /// # Errors
    /// What this thread knows to be wrong; nothing follows then.
    pub fn connect(
        &self,
        app_worker: AppWorkerId,
        options: ConnectOptions,
    ) -> Result<ConnectId, ConnectError> {
        options.validate()?;
        let shared = &self.shared;
        if options.worker.is_some_and(|worker| worker.index() >= shared.workers) {
            return Err(ConnectError::NoWorker);
        }
        if !shared.domains.contains(&options.domain.0) {
            return Err(ConnectError::NoDomain);
        }
        if !shared.directory.live.read().contains(&app_worker) {
            return Err(ConnectError::Detached);
        }
        let pending = shared.directory.pending.fetch_add(1, Ordering::Relaxed);
        let refused = if pending >= shared.pending_connects_max {
            ConnectError::TooManyPending
        } else {
            let connect = self.mint.lock().mint();
            match self.send(Request::Connect { app_worker, connect, options: Box::new(options) }) {
                Ok(()) => return Ok(connect),
                Err(Stopped) => ConnectError::Stopped,
            }
        };
        shared.directory.pending.fetch_sub(1, Ordering::Relaxed);
        Err(refused)
    }

    /// Cancels a connect: its outcome is `Cancelled`, unless another was decided before.
    ///
    /// # Errors
    /// It is not pending.
    pub fn cancel(&self, connect: ConnectId) -> Result<(), CancelError> {
        self.call(|reply| Request::Cancel { connect, reply })
    }

    /// Listens for an app worker; returns when every worker has the listener.
    ///
    /// # Errors
    /// A taken or bad endpoint, no such app worker, no room: then no worker has it.
    pub fn listen(&self, app_worker: AppWorkerId, options: ListenOptions) -> Result<ListenerId, ListenError> {
        self.call(|reply| Request::Listen { app_worker, options: Box::new(options), reply })
    }

    /// Stops listening. Accepted sessions stay.
    ///
    /// # Errors
    /// It is no listener of that app worker.
    pub fn unlisten(&self, app_worker: AppWorkerId, listener: ListenerId) -> Result<(), ListenError> {
        self.call(|reply| Request::Unlisten { app_worker, listener, reply })
    }

    /// Sends a message to an app worker's object on one worker. If it is gone the message is dropped.
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn notify(
        &self,
        app_worker: AppWorkerId,
        worker: WorkerId,
        message: Box<dyn Any + Send>,
    ) -> Result<(), Stopped> {
        self.send(Request::Notify { app_worker, worker, message })
    }

    /// Closes or resets a session from outside. A handle that names nothing does nothing.
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn end_session(&self, session: SessionHandle, how: EndHow) -> Result<(), Stopped> {
        self.send(Request::EndSession { session, how })
    }

    /// Asks the whole stack a question; answered by message, in slices, stalling nobody.
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn inspect(&self, what: Query) -> Result<Answer, Stopped> {
        self.ask(|reply| Request::Inspect { what, reply })?.recv().map_err(|_| Stopped)
    }
}
