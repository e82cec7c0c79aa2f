//! What a callback is lent: [`Context`] on a worker, [`MainContext`] on main.
//!
//! Work on sessions takes effect at once (bytes are read and written in place); everything that reaches beyond the
//! session layer (connect, listen, close, ...) becomes an [`AppRequest`], handled in the request stage of the same step.

use std::collections::BTreeMap;

use hoststack_session::{Layer, Sessions, establish::proxy};
use hoststack_transport::{
    AppId, AppWorkerId, ConnectId, ConnectionStats, Duration, EarlyData, FlowKey, Instant, ListenerId,
    Measures, SessionHandle, SessionId, SocketOption, WorkerId,
};

use crate::error::{ConnectError, ListenError, SessionError};
use crate::options::{ConnectOptions, DetachPolicy, ListenOptions};

/// Mints connect ids: one per thread that may call `connect`.
#[derive(Debug)]
pub struct ConnectMint {
    origin: u16,
    count: u64,
}

impl ConnectMint {
    /// Mints for `origin`: a worker's number, or above 255 for stack handles.
    pub fn new(origin: u16) -> ConnectMint {
        ConnectMint { origin, count: 0 }
    }

    /// Starts in the `lap`th slice of 2^32 counts: for two mints of one origin.
    pub fn skip(&mut self, lap: u64) {
        self.count = lap << 32;
    }

    /// The next id.
    pub fn mint(&mut self) -> ConnectId {
        self.count += 1;
        ConnectId::new(self.origin, self.count)
    }
}

/// What an app asked for in a callback on a worker.
#[derive(Clone, Debug)]
pub enum AppRequest {
    /// Connect: to main.
    Connect(AppWorkerId, ConnectId, Box<ConnectOptions>, EarlyData),
    /// Cancel a connect: to main.
    Cancel(ConnectId),
    /// Listen: to main.
    Listen(AppWorkerId, Box<ListenOptions>),
    /// Unlisten: to main.
    Unlisten(AppWorkerId, ListenerId),
    /// Close a session.
    Close(SessionId),
    /// Close our direction of a session.
    HalfClose(SessionId),
    /// Reset a session.
    Reset(SessionId),
    /// Change an option of a session's connection.
    Set(SessionId, SocketOption),
    /// Detach the app worker itself: to main.
    Detach(AppWorkerId, DetachPolicy),
}

/// What an app worker's object on one worker has besides its sessions.
#[derive(Debug, Default)]
pub struct AppWorkerState {
    /// Timers by token.
    pub timers: BTreeMap<u64, Instant>,
    /// Connects made on this worker whose outcome has not been told (wherever it is told).
    pub pending_connects: usize,
    /// The limit of the above.
    pub pending_connects_max: usize,
    /// Whether requests that create something are refused.
    pub detaching: bool,
}

/// What a callback on a worker is lent.
pub struct Context<'a> {
    now: Instant,
    workers: u8,
    app_worker: AppWorkerId,
    unit: u32,
    sessions: &'a mut Sessions,
    measures: &'a dyn Measures,
    state: &'a mut AppWorkerState,
    mint: &'a mut ConnectMint,
    requests: &'a mut Vec<AppRequest>,
    /// Timers set or moved in this callback, for the stack's wheel.
    armed: &'a mut Vec<(Instant, AppWorkerId, u64)>,
}

impl<'a> Context<'a> {
    /// Called by the stack only.
    #[doc(hidden)]
    pub fn new(
        now: Instant,
        workers: u8,
        app_worker: AppWorkerId,
        unit: u32,
        sessions: &'a mut Sessions,
        measures: &'a dyn Measures,
        state: &'a mut AppWorkerState,
        mint: &'a mut ConnectMint,
        requests: &'a mut Vec<AppRequest>,
        armed: &'a mut Vec<(Instant, AppWorkerId, u64)>,
    ) -> Context<'a> {
        Context { now, workers, app_worker, unit, sessions, measures, state, mint, requests, armed }
    }

    /// The time of this step.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// This worker.
    pub fn worker(&self) -> WorkerId {
        self.sessions.worker()
    }

    /// Number of workers of the stack.
    pub fn workers(&self) -> u8 {
        self.workers
    }

    /// This app worker.
    pub fn app_worker(&self) -> AppWorkerId {
        self.app_worker
    }

    /// This app worker's number in its application.
    pub fn unit(&self) -> u32 {
        self.unit
    }

    // ---- Connections ----

    /// Opens a connection. Never waits; after `Ok` exactly one [`crate::AppWorker::connected`] follows, on the worker
    /// that owns the flow.
    ///
    /// # Errors
    /// What this thread knows to be wrong; nothing follows then.
    pub fn connect(&mut self, options: ConnectOptions) -> Result<ConnectId, ConnectError> {
        self.connect_with(options, &[])
    }

    /// The same, with the first bytes of the stream: they are sent first and exactly once, whatever else is written. With
    /// `fast_open` in the options, and the server's cookie known, as many as fit go with the first packet (RFC 7413), and
    /// then its app may see them twice. At most [`EARLY_DATA_MAX`](hoststack_transport::EARLY_DATA_MAX) bytes.
    ///
    /// # Errors
    /// What this thread knows to be wrong; nothing follows then.
    pub fn connect_with(
        &mut self,
        options: ConnectOptions,
        early_data: &[u8],
    ) -> Result<ConnectId, ConnectError> {
        let early_data = options.validate_with(early_data)?;
        if options.worker.is_some_and(|worker| worker.0 >= self.workers) {
            return Err(ConnectError::NoWorker);
        }
        if self.state.detaching {
            return Err(ConnectError::Detached);
        }
        if self.state.pending_connects >= self.state.pending_connects_max {
            return Err(ConnectError::TooManyPending);
        }
        self.state.pending_connects += 1;
        let connect = self.mint.mint();
        self.requests.push(AppRequest::Connect(self.app_worker, connect, Box::new(options), early_data));
        Ok(connect)
    }

    /// Cancels a connect request: its outcome is `Cancelled`, unless another was decided first.
    pub fn cancel(&mut self, connect: ConnectId) {
        self.requests.push(AppRequest::Cancel(connect));
    }

    /// Listens; [`crate::Application::listening`] tells how that went.
    ///
    /// # Errors
    /// What this thread knows to be wrong; nothing follows then.
    pub fn listen(&mut self, options: ListenOptions) -> Result<(), ListenError> {
        options.validate()?;
        if self.state.detaching {
            return Err(ListenError::Detached);
        }
        self.requests.push(AppRequest::Listen(self.app_worker, Box::new(options)));
        Ok(())
    }

    /// Stops listening. Sessions that were accepted stay; what is still in its handshake is dropped.
    pub fn unlisten(&mut self, listener: ListenerId) {
        self.requests.push(AppRequest::Unlisten(self.app_worker, listener));
    }

    /// Detaches this app worker from within.
    pub fn detach(&mut self, policy: DetachPolicy) {
        self.requests.push(AppRequest::Detach(self.app_worker, policy));
    }

    // ---- Sessions ----

    /// Whether the handle names a live session of this app worker on this worker.
    pub fn is_live(&self, session: SessionHandle) -> bool {
        self.own(session).is_some()
    }

    /// Wants no more of the session: what is queued is sent, then it closes both ways. `closed` follows.
    pub fn close(&mut self, session: SessionHandle) {
        if let Some(id) = self.own(session) {
            self.requests.push(AppRequest::Close(id));
        }
    }

    /// Has sent all it will: the peer sees the end after what is queued. Reading goes on.
    pub fn half_close(&mut self, session: SessionHandle) {
        if let Some(id) = self.own(session) {
            self.requests.push(AppRequest::HalfClose(id));
        }
    }

    /// Cuts the session off; the peer is told. `closed` follows.
    pub fn reset(&mut self, session: SessionHandle) {
        if let Some(id) = self.own(session) {
            self.requests.push(AppRequest::Reset(id));
        }
    }

    /// Changes how a session's connection behaves; takes effect in this step. What the session's transport does not know
    /// is ignored.
    pub fn set_option(&mut self, session: SessionHandle, option: SocketOption) {
        if let Some(id) = self.own(session) {
            self.requests.push(AppRequest::Set(id, option));
        }
    }

    /// What the session's connection measured and counted so far.
    ///
    /// # Errors
    /// [`SessionError::NotFound`], also when the transport has closed the connection already.
    pub fn stats(&self, session: SessionHandle) -> Result<ConnectionStats, SessionError> {
        let id = self.own(session).ok_or(SessionError::NotFound)?;
        let session = self.sessions.get(id).ok_or(SessionError::NotFound)?;
        let connection = session.connection().ok_or(SessionError::NotFound)?;
        self.measures.stats(session.flow().protocol, connection).ok_or(SessionError::NotFound)
    }

    /// The flow of a session.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub fn flow(&self, session: SessionHandle) -> Result<FlowKey, SessionError> {
        let id = self.own(session).ok_or(SessionError::NotFound)?;
        self.sessions.get(id).map(|session| *session.flow()).ok_or(SessionError::NotFound)
    }

    /// Whom the session's connection is said to be between, if it began with a PROXY header.
    pub fn declared(&self, session: SessionHandle) -> Option<&proxy::Declared> {
        self.sessions.declared(self.own(session)?)
    }

    /// What lies between the session's transport and the app, if something does: TLS. The crate it comes from says what is
    /// known of it.
    pub fn layer(&self, session: SessionHandle) -> Option<&dyn Layer> {
        self.own(session).and_then(|id| self.sessions.get(id))?.layer()
    }

    /// The app's value of a session; 0 for a stale handle.
    pub fn opaque(&self, session: SessionHandle) -> u64 {
        self.own(session).and_then(|id| self.sessions.get(id)).map_or(0, |session| session.opaque())
    }

    /// Sets the app's value of a session.
    pub fn set_opaque(&mut self, session: SessionHandle, opaque: u64) {
        if let Some(id) = self.own(session) {
            self.sessions.set_opaque(id, opaque);
        }
    }

    /// Bytes that may be read; 0 for a stale handle.
    pub fn rx_len(&self, session: SessionHandle) -> usize {
        self.own(session).and_then(|id| self.sessions.get(id)).map_or(0, |session| session.rx_len())
    }

    /// Copies received bytes into `into` and takes them; returns how many.
    pub fn read(&mut self, session: SessionHandle, into: &mut [u8]) -> usize {
        self.own(session).map_or(0, |id| self.sessions.read(id, into))
    }

    /// The received bytes that lie together, in place; [`Context::consume`] takes them. There may be more behind.
    pub fn peek(&self, session: SessionHandle) -> &[u8] {
        self.own(session).map_or(&[], |id| self.sessions.peek(id))
    }

    /// Takes `count` received bytes, at most what is there; returns how many.
    pub fn consume(&mut self, session: SessionHandle, count: usize) -> usize {
        self.own(session).map_or(0, |id| self.sessions.consume(id, count))
    }

    /// Queues bytes for sending, as many as there is room for; returns how many. After a short write `writable`
    /// follows when there is room again.
    pub fn write(&mut self, session: SessionHandle, bytes: &[u8]) -> usize {
        self.own(session).map_or(0, |id| self.sessions.write(id, bytes))
    }

    /// [`Context::write`] of bytes that are urgent, and with them all that was written before (RFC 9293 §3.8.5): the peer's
    /// app is told where they end. New applications should not use it (SHLD-13): what the peer makes of it differs.
    pub fn write_urgent(&mut self, session: SessionHandle, bytes: &[u8]) -> usize {
        self.own(session).map_or(0, |id| self.sessions.write_urgent(id, bytes))
    }

    /// Bytes to read until the end of what the peer called urgent (RFC 9293 §3.8.5, MUST-33), which may be more than have
    /// come yet; 0 if nothing unread is urgent.
    pub fn urgent_left(&self, session: SessionHandle) -> usize {
        self.own(session).and_then(|id| self.sessions.get(id)).map_or(0, |session| session.urgent_left())
    }

    /// What was written so far ends a record: no segment holds bytes of both sides of its end, and its last segment is pushed
    /// (Linux: `MSG_EOR`). Needs no call after the last write: its end is one anyhow until more is written.
    pub fn end_record(&mut self, session: SessionHandle) {
        if let Some(id) = self.own(session)
            // A layer's records are not the app's.
            && let Some(queued) =
                self.sessions.get(id).filter(|session| session.layer().is_none()).map(|session| session.tx_len())
        {
            // Cannot cut: a fifo is at most 1 GiB.
            self.requests.push(AppRequest::Set(id, SocketOption::RecordEnd(queued as u32)));
        }
    }

    /// Room to write in place, at most `want` bytes that lie together; [`Context::commit`] queues them.
    pub fn reserve(&mut self, session: SessionHandle, want: usize) -> &mut [u8] {
        match self.own(session) {
            Some(id) => self.sessions.reserve(id, want),
            None => &mut [],
        }
    }

    /// Queues the first `count` bytes of what [`Context::reserve`] returned last for this session.
    pub fn commit(&mut self, session: SessionHandle, count: usize) {
        if let Some(id) = self.own(session) {
            self.sessions.commit(id, count);
        }
    }

    /// Bytes that a write would take now.
    pub fn tx_room(&self, session: SessionHandle) -> usize {
        self.own(session).map_or(0, |id| self.sessions.tx_room(id))
    }

    /// Asks for `writable` when there is room, as a short write does (for relays that look at [`Context::tx_room`]).
    pub fn want_room(&mut self, session: SessionHandle) {
        if let Some(id) = self.own(session) {
            self.sessions.want_room(id);
        }
    }

    /// Moves bytes received on `from` to be sent on `to` (the same session for an echo), as many as there is room
    /// for; returns how many. If some stay behind, `writable` of `to` follows when there is room.
    pub fn splice(&mut self, from: SessionHandle, to: SessionHandle) -> usize {
        let (Some(from), Some(to)) = (self.own(from), self.own(to)) else { return 0 };
        self.sessions.splice(from, to)
    }

    // ---- Timers ----

    /// Calls [`crate::AppWorker::timer`] with `token` after `delay`. One timer per token: setting it again moves it.
    pub fn set_timer(&mut self, token: u64, delay: Duration) {
        let at = self.now + delay;
        self.state.timers.insert(token, at);
        self.armed.push((at, self.app_worker, token));
    }

    /// Takes a timer back.
    pub fn cancel_timer(&mut self, token: u64) {
        self.state.timers.remove(&token);
    }

    /// The session of a handle, if it is this app worker's, lives here and was not closed by the app's `closed`.
    fn own(&self, handle: SessionHandle) -> Option<SessionId> {
        let (id, session) = self.sessions.find(handle)?;
        (session.app_worker() == self.app_worker).then_some(id)
    }
}

/// What an application asked for in a callback on main.
#[derive(Clone, Debug)]
pub enum MainRequest {
    /// Connect.
    Connect(AppWorkerId, ConnectId, Box<ConnectOptions>, EarlyData),
    /// Cancel a connect.
    Cancel(ConnectId),
    /// Listen.
    Listen(AppWorkerId, Box<ListenOptions>),
    /// Unlisten.
    Unlisten(AppWorkerId, ListenerId),
    /// Detach an app worker.
    DetachWorker(AppWorkerId, DetachPolicy),
    /// Detach the application.
    Detach(AppId, DetachPolicy),
}

/// What a callback on main is lent. Requests are handled after the callback returned.
pub struct MainContext<'a> {
    now: Instant,
    workers: u8,
    app: AppId,
    app_workers: &'a [AppWorkerId],
    mint: &'a mut ConnectMint,
    requests: &'a mut Vec<MainRequest>,
}

impl<'a> MainContext<'a> {
    /// Called by the stack only.
    #[doc(hidden)]
    pub fn new(
        now: Instant,
        workers: u8,
        app: AppId,
        app_workers: &'a [AppWorkerId],
        mint: &'a mut ConnectMint,
        requests: &'a mut Vec<MainRequest>,
    ) -> MainContext<'a> {
        MainContext { now, workers, app, app_workers, mint, requests }
    }

    /// The time of this step.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Number of workers of the stack.
    pub fn workers(&self) -> u8 {
        self.workers
    }

    /// The application.
    pub fn app(&self) -> AppId {
        self.app
    }

    /// Its app workers that are attached, in the order of their numbers.
    pub fn app_workers(&self) -> &[AppWorkerId] {
        self.app_workers
    }

    /// Opens a connection for `app_worker`, as [`Context::connect`] does.
    ///
    /// # Errors
    /// What is wrong with the arguments; nothing follows then.
    pub fn connect(
        &mut self,
        app_worker: AppWorkerId,
        options: ConnectOptions,
    ) -> Result<ConnectId, ConnectError> {
        self.connect_with(app_worker, options, &[])
    }

    /// Opens a connection for `app_worker` with the first bytes of its stream, as [`Context::connect_with`] does.
    ///
    /// # Errors
    /// What is wrong with the arguments; nothing follows then.
    pub fn connect_with(
        &mut self,
        app_worker: AppWorkerId,
        options: ConnectOptions,
        early_data: &[u8],
    ) -> Result<ConnectId, ConnectError> {
        let early_data = options.validate_with(early_data)?;
        if options.worker.is_some_and(|worker| worker.0 >= self.workers) {
            return Err(ConnectError::NoWorker);
        }
        if !self.app_workers.contains(&app_worker) {
            return Err(ConnectError::Detached);
        }
        let connect = self.mint.mint();
        self.requests.push(MainRequest::Connect(app_worker, connect, Box::new(options), early_data));
        Ok(connect)
    }

    /// Cancels a connect request.
    pub fn cancel(&mut self, connect: ConnectId) {
        self.requests.push(MainRequest::Cancel(connect));
    }

    /// Listens for `app_worker`; [`crate::Application::listening`] tells how that went.
    ///
    /// # Errors
    /// What is wrong with the arguments; nothing follows then.
    pub fn listen(&mut self, app_worker: AppWorkerId, options: ListenOptions) -> Result<(), ListenError> {
        options.validate()?;
        if !self.app_workers.contains(&app_worker) {
            return Err(ListenError::Detached);
        }
        self.requests.push(MainRequest::Listen(app_worker, Box::new(options)));
        Ok(())
    }

    /// Stops listening.
    pub fn unlisten(&mut self, app_worker: AppWorkerId, listener: ListenerId) {
        self.requests.push(MainRequest::Unlisten(app_worker, listener));
    }

    /// Detaches one of the application's app workers.
    pub fn detach_worker(&mut self, app_worker: AppWorkerId, policy: DetachPolicy) {
        self.requests.push(MainRequest::DetachWorker(app_worker, policy));
    }

    /// Detaches the application.
    pub fn detach(&mut self, policy: DetachPolicy) {
        self.requests.push(MainRequest::Detach(self.app, policy));
    }
}
