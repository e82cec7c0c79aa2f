//! What other threads use: requests to main, answered by message.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use hoststack_app::{
    Application, AttachError, AttachOptions, CancelError, ConnectError, ConnectMint, ConnectOptions,
    DetachError, DetachPolicy, DetachReport, ListenError, ListenOptions, WorkerDetachReport,
};
use hoststack_net::pcap::LinkType;
use hoststack_transport::{AppId, AppWorkerId, ConnectId, ListenerId, SessionHandle, WorkerId};
use parking_lot::Mutex;

use crate::capture::RunningCapture;
use crate::directory::{Directory, Refused};
use crate::inspect::{
    Answer, CaptureError, CaptureReport, CaptureSpec, Clear, Query, TraceError, TraceSpec, check_filter,
};
use crate::main_thread::MAIN_ORIGIN;
use crate::messages::{Attached, EndHow, Reply, Request};
use crate::ping::{PingError, PingOptions, Pinging};
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
pub trait FromStopped {
    #[doc(hidden)]
    fn stopped() -> Self;
}

impl FromStopped for Result<Answer, Stopped> {
    fn stopped() -> Self {
        Err(Stopped)
    }
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
stopped_is!(AttachError, DetachError, CancelError, ListenError, PingError, TraceError);

/// What is fixed at start and known to every handle.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) requests: Sender<Request>,
    pub(crate) wake: Arc<Wake>,
    pub(crate) directory: Arc<Directory<AppWorkerId>>,
    pub(crate) workers: usize,
    /// Cores that workers are pinned to.
    pub(crate) worker_cores: OnceLock<Vec<usize>>,
    pub(crate) domains: Vec<u16>,
    pub(crate) pending_connects_max: usize,
    /// Names and link types, in the order of the interfaces' numbers.
    pub(crate) interfaces: Vec<(String, LinkType)>,
    /// Microseconds since 1970 at the stack's start.
    pub(crate) epoch_us: u64,
    pub(crate) capture: Mutex<CaptureSlot>,
}

/// The one capture that there may be.
#[derive(Debug, Default)]
pub(crate) enum CaptureSlot {
    #[default]
    Free,
    /// Its file is being created, or its last packets are being gathered.
    Busy(PathBuf),
    Running(RunningCapture),
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
        let number = shared.directory.next_origin();
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

    /// The calls that are answered, without waiting for their answers.
    pub fn requests(&self) -> Requests<'_> {
        Requests { handle: self }
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
        self.requests().attach(app, options).wait()
    }

    /// Attaches one more app worker of an application.
    ///
    /// # Errors
    /// No such application, no room.
    pub fn attach_worker(&self, app: AppId) -> Result<AppWorkerId, AttachError> {
        self.requests().attach_worker(app).wait()
    }

    /// Detaches an application; returns when nothing of it is left, or at the deadline with the workers that are stuck.
    ///
    /// # Errors
    /// It is not attached, or is being detached already.
    pub fn detach(&self, app: AppId, policy: DetachPolicy) -> Result<DetachReport, DetachError> {
        self.requests().detach(app, policy).wait()
    }

    /// Detaches one app worker; returns when nothing of it is left, or at the deadline with the workers that are stuck.
    ///
    /// # Errors
    /// It is not attached, or is being detached already.
    pub fn detach_worker(
        &self,
        app_worker: AppWorkerId,
        policy: DetachPolicy,
    ) -> Result<WorkerDetachReport, DetachError> {
        self.requests().detach_worker(app_worker, policy).wait()
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
        self.connect_with(app_worker, options, &[])
    }

    /// The same, with the first bytes of the stream: they are sent first and exactly once, whatever else is written. With
    /// `fast_open` in the options, and the server's cookie known, as many as fit go with the first packet (RFC 7413), and
    /// then its app may see them twice. At most [`EARLY_DATA_MAX`](hoststack_transport::EARLY_DATA_MAX) bytes.
    ///
    /// # Errors
    /// What this thread knows to be wrong; nothing follows then.
    pub fn connect_with(
        &self,
        app_worker: AppWorkerId,
        options: ConnectOptions,
        early_data: &[u8],
    ) -> Result<ConnectId, ConnectError> {
        let early_data = options.validate_with(early_data)?;
        let shared = &self.shared;
        if options.worker.is_some_and(|worker| worker.index() >= shared.workers) {
            return Err(ConnectError::NoWorker);
        }
        let needs_domain =
            options.remotes().any(|remote| matches!(remote, hoststack_transport::Address::Tcp(_)));
        if needs_domain && !shared.domains.contains(&options.domain.0) {
            return Err(ConnectError::NoDomain);
        }
        let connect = shared
            .directory
            .admit(&app_worker, shared.pending_connects_max, || {
                let connect = self.mint.lock().mint();
                let options = Box::new(options);
                let request = Request::Connect { app_worker, connect, options, early_data };
                shared.requests.send(request).map(|()| connect)
            })
            .map_err(|refused| match refused {
                Refused::TooManyPending => ConnectError::TooManyPending,
                Refused::Detached => ConnectError::Detached,
                Refused::Unsent(_) => ConnectError::Stopped,
            })?;
        shared.wake.notify();
        Ok(connect)
    }

    /// Cancels a connect: its outcome is `Cancelled`, unless another was decided before.
    ///
    /// # Errors
    /// It is not pending.
    pub fn cancel(&self, connect: ConnectId) -> Result<(), CancelError> {
        self.requests().cancel(connect).wait()
    }

    /// Listens for an app worker; returns when every worker has the listener.
    ///
    /// # Errors
    /// A taken or bad endpoint, no such app worker, no room: then no worker has it.
    pub fn listen(&self, app_worker: AppWorkerId, options: ListenOptions) -> Result<ListenerId, ListenError> {
        self.requests().listen(app_worker, options).wait()
    }

    /// Stops listening. Accepted sessions stay.
    ///
    /// # Errors
    /// It is no listener of that app worker.
    pub fn unlisten(&self, app_worker: AppWorkerId, listener: ListenerId) -> Result<(), ListenError> {
        self.requests().unlisten(app_worker, listener).wait()
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

    /// From now on TCP works by `config`, but for the limits of pools, which stay as the stack was built. Connections that
    /// are up keep what they took from it at their start; timers that run keep their deadlines. Workers hear of it one
    /// after the other.
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn set_tcp_config(&self, config: hoststack_tcp::TcpConfig) -> Result<(), Stopped> {
        self.send(Request::SetTcpConfig(Box::new(config)))
    }

    /// From now on each session has a line in the log at its end and each connect that failed one, or no longer; see
    /// [`StackConfig::session_log`](crate::StackConfig::session_log).
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn set_session_log(&self, is_on: bool) -> Result<(), Stopped> {
        self.send(Request::SetSessionLog(is_on))
    }

    /// Asks the whole stack a question; answered by message, in slices, stalling nobody.
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn inspect(&self, what: Query) -> Result<Answer, Stopped> {
        self.requests().inspect(what).wait()
    }

    /// Keeps the calling thread, and those that it starts, off the cores that workers are pinned to; says whether it does:
    /// nothing is pinned where there are fewer cores than threads, and a thread is not left without any. For threads that
    /// compute: a system lets one run on for milliseconds before it gives its core to a worker that has woken, whatever the
    /// priority of either.
    pub fn keep_off_workers(&self) -> bool {
        self.shared.worker_cores.get().is_some_and(|cores| crate::threads::keep_off(cores))
    }

    pub(crate) fn set_worker_cores(&self, cores: Vec<usize>) {
        // Cannot fail because a stack starts once.
        let _ = self.shared.worker_cores.set(cores);
    }

    /// Has counters shown as counted from now on. What is asked for afterwards is counted so.
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn clear(&self, what: Clear) -> Result<(), Stopped> {
        self.send(Request::Clear { what })
    }

    /// Sends echo requests; each has one result. At most [`PINGS_MAX`](crate::ping::PINGS_MAX) at once.
    ///
    /// # Errors
    /// What is wrong with the options, or as many pings are under way as may be.
    pub fn ping(&self, options: PingOptions) -> Result<Pinging, PingError> {
        self.requests().ping(options).wait()
    }

    // ---- Packets that someone watches ----

    /// Traces packets: what each stage decides of them is recorded, until there are as many as were asked for. What was
    /// recorded is the answer to [`Query::Trace`].
    ///
    /// # Errors
    /// A bad specification, too many traces.
    pub fn trace_add(&self, spec: TraceSpec) -> Result<(), TraceError> {
        self.requests().trace_add(spec)?.wait()
    }

    /// Ends all traces and forgets what they recorded.
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn trace_clear(&self) -> Result<(), Stopped> {
        self.send(Request::TraceClear)
    }

    /// Captures packets into a file, with what became of them as comments. Creates the file before it returns; packets
    /// are captured from each worker's next step on.
    ///
    /// # Errors
    /// A file that cannot be created, a filter that nothing can pass, a capture that was not stopped.
    pub fn pcap_start(&self, spec: CaptureSpec) -> Result<(), CaptureError> {
        let shared = &self.shared;
        let interfaces = shared.interfaces.iter().map(|(name, _)| name.as_str());
        check_filter(&spec.filter, shared.workers, interfaces).map_err(CaptureError::Nothing)?;
        {
            let mut slot = shared.capture.lock();
            if let Some(file) = slot.file() {
                return Err(CaptureError::Running(file.clone()));
            }
            *slot = CaptureSlot::Busy(spec.file.clone());
        }
        // The lock is not held while the host creates the file.
        let started = RunningCapture::start(spec, &shared.interfaces, shared.epoch_us).and_then(|capture| {
            let tap = Arc::clone(capture.tap());
            self.send(Request::Capture(Some(tap))).map_err(|Stopped| CaptureError::Stopped)?;
            Ok(capture)
        });
        let (slot, result) = match started {
            Ok(capture) => (CaptureSlot::Running(capture), Ok(())),
            Err(error) => (CaptureSlot::Free, Err(error)),
        };
        *shared.capture.lock() = slot;
        result
    }

    /// Ends the capture; returns when all of it is in the file, which waits for the disk.
    ///
    /// # Errors
    /// None runs.
    pub fn pcap_stop(&self) -> Result<CaptureReport, CaptureError> {
        let ending = self.begin_pcap_stop()?;
        // The answer comes when every worker has heard that it is over. A stack that has stopped has none.
        let _ = self.inspect(Query::Trace { limit: 0 });
        Ok(ending.finish())
    }

    /// Has the workers end the capture: when they have answered another question, they have.
    pub(crate) fn begin_pcap_stop(&self) -> Result<EndingCapture, CaptureError> {
        let capture = {
            let mut slot = self.shared.capture.lock();
            let busy = slot.file().map_or(CaptureSlot::Free, |file| CaptureSlot::Busy(file.clone()));
            match std::mem::replace(&mut *slot, busy) {
                CaptureSlot::Running(capture) => capture,
                CaptureSlot::Free => return Err(CaptureError::NotRunning),
                CaptureSlot::Busy(file) => {
                    *slot = CaptureSlot::Busy(file.clone());
                    return Err(CaptureError::Running(file));
                }
            }
        };
        // No worker of a stack that has stopped puts packets anywhere.
        let _ = self.send(Request::Capture(None));
        Ok(EndingCapture { shared: Arc::clone(&self.shared), capture })
    }

    /// The capture, if one was started and not stopped.
    pub fn pcap(&self) -> Option<CaptureReport> {
        match &*self.shared.capture.lock() {
            CaptureSlot::Running(capture) => Some(capture.report()),
            CaptureSlot::Free | CaptureSlot::Busy(_) => None,
        }
    }
}

impl CaptureSlot {
    fn file(&self) -> Option<&PathBuf> {
        match self {
            CaptureSlot::Free => None,
            CaptureSlot::Busy(file) => Some(file),
            CaptureSlot::Running(capture) => Some(&capture.tap().spec.file),
        }
    }
}

/// A capture that workers are being told the end of.
pub(crate) struct EndingCapture {
    shared: Arc<Shared>,
    capture: RunningCapture,
}

impl EndingCapture {
    /// Waits for the disk.
    pub(crate) fn finish(self) -> CaptureReport {
        let report = self.capture.finish();
        *self.shared.capture.lock() = CaptureSlot::Free;
        report
    }
}

/// The calls of a [`StackHandle`] that are answered, each returning where its answer will be: for callers that must not
/// wait. See the handle's calls of the same names.
#[derive(Clone, Copy, Debug)]
pub struct Requests<'h> {
    handle: &'h StackHandle,
}

impl Requests<'_> {
    fn ask<T: FromStopped>(self, request: impl FnOnce(Reply<T>) -> Request) -> Waiting<T> {
        let (reply, answer) = bounded(1);
        // A stack that has stopped drops the request, and with it the reply: the answer is `Stopped`.
        let _ = self.handle.send(request(reply));
        Waiting { answer }
    }

    /// See [`StackHandle::attach`].
    pub fn attach(
        self,
        app: impl Application + 'static,
        options: AttachOptions,
    ) -> Waiting<Result<Attached, AttachError>> {
        self.ask(|reply| Request::Attach { app: Box::new(app), options, reply })
    }

    /// See [`StackHandle::attach_worker`].
    pub fn attach_worker(self, app: AppId) -> Waiting<Result<AppWorkerId, AttachError>> {
        self.ask(|reply| Request::AttachWorker { app, reply })
    }

    /// See [`StackHandle::detach`].
    pub fn detach(self, app: AppId, policy: DetachPolicy) -> Waiting<Result<DetachReport, DetachError>> {
        self.ask(|reply| Request::Detach { app, policy, reply })
    }

    /// See [`StackHandle::detach_worker`].
    pub fn detach_worker(
        self,
        app_worker: AppWorkerId,
        policy: DetachPolicy,
    ) -> Waiting<Result<WorkerDetachReport, DetachError>> {
        self.ask(|reply| Request::DetachWorker { app_worker, policy, reply })
    }

    /// See [`StackHandle::cancel`].
    pub fn cancel(self, connect: ConnectId) -> Waiting<Result<(), CancelError>> {
        self.ask(|reply| Request::Cancel { connect, reply })
    }

    /// See [`StackHandle::listen`].
    pub fn listen(
        self,
        app_worker: AppWorkerId,
        options: ListenOptions,
    ) -> Waiting<Result<ListenerId, ListenError>> {
        self.ask(|reply| Request::Listen { app_worker, options: Box::new(options), reply })
    }

    /// See [`StackHandle::unlisten`].
    pub fn unlisten(self, app_worker: AppWorkerId, listener: ListenerId) -> Waiting<Result<(), ListenError>> {
        self.ask(|reply| Request::Unlisten { app_worker, listener, reply })
    }

    /// See [`StackHandle::inspect`].
    pub fn inspect(self, what: Query) -> Waiting<Result<Answer, Stopped>> {
        self.ask(|reply| Request::Inspect { what, reply })
    }

    /// See [`StackHandle::ping`].
    pub fn ping(self, options: PingOptions) -> Waiting<Result<Pinging, PingError>> {
        let Shared { workers, domains, .. } = &*self.handle.shared;
        if let Err(error) = options.validate(*workers, domains) {
            let (reply, answer) = bounded(1);
            // Cannot fail because there is room for one and the other end is here.
            let _ = reply.send(Err(error));
            return Waiting { answer };
        }
        self.ask(|reply| Request::Ping { options, reply })
    }

    /// See [`StackHandle::trace_add`].
    ///
    /// # Errors
    /// What this thread knows to be wrong.
    pub fn trace_add(self, spec: TraceSpec) -> Result<Waiting<Result<(), TraceError>>, TraceError> {
        let shared = &self.handle.shared;
        spec.check(shared.workers, shared.interfaces.iter().map(|(name, _)| name.as_str()))?;
        let spec = Arc::new(spec);
        Ok(self.ask(|reply| Request::TraceAdd { spec, reply }))
    }
}

/// Where the answer to a request will be.
#[derive(Debug)]
#[must_use = "an answer that nobody looks at may be an error"]
pub struct Waiting<T> {
    answer: Receiver<T>,
}

impl<T: FromStopped> Waiting<T> {
    /// Waits for the answer: not on the thread that steps, nor inside a callback.
    pub fn wait(self) -> T {
        self.answer.recv().unwrap_or_else(|_| T::stopped())
    }

    /// Waits for the answer, `limit` at most: `None` if it has not come by then. Where [`Waiting::wait`] may be called.
    pub fn wait_for(&mut self, limit: std::time::Duration) -> Option<T> {
        match self.answer.recv_timeout(limit) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(T::stopped()),
        }
    }

    /// The answer, if it has come; it is there once.
    pub fn try_take(&mut self) -> Option<T> {
        match self.answer.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(T::stopped()),
        }
    }
}
