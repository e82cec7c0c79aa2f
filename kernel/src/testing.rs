//! For tests: a host whose sockets do what a script says, and a session layer that is easily seen to be right.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hoststack_transport::{
    AcceptError, Address, AppWorkerId, ConnectionId, Endpoint, FlowKey, HalfOpenUser, Instant, Key,
    ListenerId, OooRange, RxStored, SessionId, SessionLayer, SocketOption, SocketOptions,
};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::host::{Errno, Host, Interest, ModelPoller, ModelSocket, Poller, Readiness, Socket};

// ---- The host ----

/// What a scripted socket does and what was done to it.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Answers of `connect`; then `INPROGRESS`, `ALREADY`, ...
    pub(crate) connects: VecDeque<Result<(), Errno>>,
    pub(crate) connect_calls: usize,
    pub(crate) is_connected: bool,
    pub(crate) error: Option<Errno>,
    pub(crate) bind: Option<Errno>,
    pub(crate) bound: Vec<(Address, bool)>,
    pub(crate) listening: Option<u32>,
    pub(crate) port: u16,
    /// Answers of `accept`; then `AGAIN`.
    pub(crate) accepts: VecDeque<Result<Arc<Mutex<Script>>, Errno>>,
    /// What is to be read, in order, an empty one being the end; then `AGAIN`.
    pub(crate) reads: VecDeque<Result<Vec<u8>, Errno>>,
    pub(crate) read_calls: usize,
    /// The most that a write takes, or its error; then all.
    pub(crate) writes: VecDeque<Result<usize, Errno>>,
    pub(crate) written: Vec<u8>,
    pub(crate) write_calls: usize,
    pub(crate) finish: Option<Errno>,
    pub(crate) is_finished: bool,
    pub(crate) is_reset: bool,
    pub(crate) is_closed: bool,
    pub(crate) options: Vec<SocketOption>,
}

#[derive(Clone, Debug)]
pub(crate) struct Wire(pub(crate) Arc<Mutex<Script>>);

impl Wire {
    pub(crate) fn new() -> Wire {
        static PORT: AtomicU16 = AtomicU16::new(10_000);
        let port = PORT.fetch_add(1, Ordering::Relaxed);
        Wire(Arc::new(Mutex::new(Script { port, ..Script::default() })))
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    pub(crate) fn socket(&self) -> Socket {
        Socket::Model(Box::new(Model(self.clone())))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.script().is_closed
    }

    /// Something to be read.
    pub(crate) fn sends(&self, bytes: impl Into<Vec<u8>>) {
        self.script().reads.push_back(Ok(bytes.into()));
    }

    pub(crate) fn ends(&self) {
        self.script().reads.push_back(Ok(Vec::new()));
    }
}

#[derive(Debug)]
struct Model(Wire);

impl Drop for Model {
    fn drop(&mut self) {
        self.0.script().is_closed = true;
    }
}

impl ModelSocket for Model {
    fn connect(&self, _to: &Address) -> Result<(), Errno> {
        let mut script = self.0.script();
        script.connect_calls += 1;
        let next = if script.connect_calls == 1 { Errno::INPROGRESS } else { Errno::ALREADY };
        let answer = script.connects.pop_front().unwrap_or(Err(next));
        script.is_connected |= answer.is_ok();
        answer
    }

    fn bind(&self, to: &Address, shared: bool) -> Result<(), Errno> {
        let mut script = self.0.script();
        script.bound.push((to.clone(), shared));
        script.bind.map_or(Ok(()), Err)
    }

    fn listen(&self, backlog: u32) -> Result<(), Errno> {
        self.0.script().listening = Some(backlog);
        Ok(())
    }

    fn accept(&self) -> Result<(Socket, Endpoint), Errno> {
        let accepted = self.0.script().accepts.pop_front().unwrap_or(Err(Errno::AGAIN))?;
        Ok((Wire(accepted).socket(), endpoint(9)))
    }

    fn try_clone(&self) -> Result<Socket, Errno> {
        Ok(self.0.socket())
    }

    fn local(&self) -> Result<Endpoint, Errno> {
        Ok(endpoint(self.0.script().port))
    }

    fn is_connected(&self) -> bool {
        self.0.script().is_connected
    }

    fn take_error(&self) -> Option<Errno> {
        self.0.script().error.take()
    }

    fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        let mut script = self.0.script();
        script.read_calls += 1;
        let mut bytes = script.reads.pop_front().unwrap_or(Err(Errno::AGAIN))?;
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&bytes[..count]);
        if count < bytes.len() {
            script.reads.push_front(Ok(bytes.split_off(count)));
        }
        Ok(count)
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut script = self.0.script();
        script.write_calls += 1;
        let count = script.writes.pop_front().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
        script.written.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn finish(&self) -> Result<(), Errno> {
        let mut script = self.0.script();
        script.is_finished = true;
        script.finish.map_or(Ok(()), Err)
    }

    fn reset_on_close(&self) -> Result<(), Errno> {
        self.0.script().is_reset = true;
        Ok(())
    }

    fn set_option(&self, option: SocketOption) {
        self.0.script().options.push(option);
    }
}

#[derive(Debug, Default)]
struct HostState {
    /// The next sockets; then fresh ones.
    sockets: VecDeque<Result<Wire, Errno>>,
    /// Sockets made.
    made: usize,
    /// What the next poll tells.
    events: VecDeque<Readiness>,
    /// The poller watches nothing from now on.
    watch: Option<Errno>,
    /// What is watched, by its port, for that names a script; and how often it was armed again.
    watched: BTreeMap<u16, (u64, Interest, usize)>,
}

/// A host of scripts, with one poller for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelHost(Arc<Mutex<HostState>>);

impl ModelHost {
    pub(crate) fn as_host(&self) -> Arc<dyn Host> {
        Arc::new(self.clone())
    }

    /// The next socket that is made is this one.
    pub(crate) fn next_socket(&self) -> Wire {
        let wire = Wire::new();
        self.0.lock().unwrap().sockets.push_back(Ok(wire.clone()));
        wire
    }

    /// The next socket cannot be made.
    pub(crate) fn next_socket_fails(&self, error: Errno) {
        self.0.lock().unwrap().sockets.push_back(Err(error));
    }

    pub(crate) fn made(&self) -> usize {
        self.0.lock().unwrap().made
    }

    pub(crate) fn refuse_to_watch(&self, error: Option<Errno>) {
        self.0.lock().unwrap().watch = error;
    }

    /// The poller tells this of a socket.
    pub(crate) fn tell(&self, wire: &Wire, readiness: Readiness) {
        let (token, ..) = self.watch_of(wire).expect("the poller knows it");
        self.0.lock().unwrap().events.push_back(Readiness { token, ..readiness });
    }

    /// How the poller watches it: token, for what, how often again.
    pub(crate) fn watch_of(&self, wire: &Wire) -> Option<(u64, Interest, usize)> {
        let port = wire.script().port;
        self.0.lock().unwrap().watched.get(&port).copied()
    }

    pub(crate) fn tell_token(&self, token: u64, readiness: Readiness) {
        self.0.lock().unwrap().events.push_back(Readiness { token, ..readiness });
    }
}

impl Host for ModelHost {
    fn socket(&self, _like: &Address, _options: &SocketOptions) -> Result<Socket, Errno> {
        let mut state = self.0.lock().unwrap();
        state.made += 1;
        state.sockets.pop_front().unwrap_or_else(|| Ok(Wire::new())).map(|wire| wire.socket())
    }

    fn poller(&self) -> Result<Poller, Errno> {
        Ok(Poller::Model(Box::new(self.clone())))
    }
}

fn port_of(socket: &Socket) -> u16 {
    socket.local().unwrap().port
}

impl ModelPoller for ModelHost {
    fn add(&self, socket: &Socket, token: u64, interest: Interest) -> Result<(), Errno> {
        let mut state = self.0.lock().unwrap();
        if let Some(error) = state.watch {
            return Err(error);
        }
        let known = state.watched.insert(port_of(socket), (token, interest, 0));
        assert!(known.is_none_or(|(_, before, _)| before != interest), "added twice");
        Ok(())
    }

    fn again(&self, socket: &Socket, token: u64) -> Result<(), Errno> {
        let mut state = self.0.lock().unwrap();
        let watch = state.watched.get_mut(&port_of(socket)).expect("armed again before it was added");
        assert_eq!((watch.0, watch.1), (token, Interest::Connect));
        watch.2 += 1;
        Ok(())
    }

    fn remove(&self, socket: &Socket, token: u64) {
        let gone = self.0.lock().unwrap().watched.remove(&port_of(socket));
        assert_eq!(gone.map(|watch| watch.0), Some(token), "removed what was not added");
    }

    fn poll(&self, max: usize, ready: &mut Vec<Readiness>) {
        let events = &mut self.0.lock().unwrap().events;
        ready.extend(events.drain(..max.min(events.len())));
    }
}

pub(crate) const READABLE: Readiness =
    Readiness { token: 0, readable: true, writable: false, peer_closed: false, hang_up: false, error: false };
pub(crate) const WRITABLE: Readiness = Readiness { readable: false, writable: true, ..READABLE };
pub(crate) const FAILED: Readiness = Readiness { writable: true, error: true, hang_up: true, ..READABLE };
pub(crate) const HUNG_UP: Readiness = Readiness { error: false, ..FAILED };

// ---- Small things ----

pub(crate) fn endpoint(port: u16) -> Endpoint {
    Endpoint::new("192.0.2.1".parse().unwrap(), port)
}

pub(crate) fn user() -> HalfOpenUser {
    let key = Key { slot: 3, generation: 1 };
    HalfOpenUser { app_worker: AppWorkerId(key), half_open: key }
}

pub(crate) fn ms(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// Whether the host has IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    std::net::TcpListener::bind("[::1]:0").is_ok()
}

/// Byte `offset` of every stream.
pub(crate) fn pattern(offset: usize) -> u8 {
    (offset.wrapping_mul(2_654_435_761) >> 24) as u8
}

pub(crate) fn stream(len: usize) -> Vec<u8> {
    (0..len).map(pattern).collect()
}

/// Waits until one of the pollers has something to say; whether one has.
pub(crate) fn wait(pollers: &[&Poller], most: core::time::Duration) -> bool {
    let mut fds: Vec<PollFd<'_>> = pollers
        .iter()
        .map(|poller| match poller {
            Poller::Epoll(epoll) => PollFd::from_borrowed_fd(epoll.as_fd(), PollFlags::IN),
            Poller::Model(_) => panic!("a model's poller has nothing to wait for"),
        })
        .collect();
    let timeout = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0
}

// ---- The session layer ----

/// A session: what it sent and received, from the beginning.
#[derive(Debug, Default)]
pub(crate) struct FakeSession {
    pub(crate) connection: Option<ConnectionId>,
    /// Queued and not acknowledged.
    pub(crate) tx: VecDeque<u8>,
    pub(crate) rx: Vec<u8>,
    /// Of `rx`, what the app has read.
    pub(crate) read: usize,
}

/// A session layer whose fifos are plain.
#[derive(Debug)]
pub(crate) struct FakeLayer {
    pub(crate) sessions: Vec<FakeSession>,
    pub(crate) programmed: VecDeque<SessionId>,
    /// Capacity of the rx fifos.
    pub(crate) rx_capacity: usize,
    /// Bytes that there is memory for.
    pub(crate) memory: usize,
    pub(crate) refuses: Option<AcceptError>,
    pub(crate) accepted: Vec<(ListenerId, FlowKey)>,
}

impl FakeLayer {
    pub(crate) fn new() -> FakeLayer {
        FakeLayer {
            sessions: Vec::new(),
            programmed: VecDeque::new(),
            rx_capacity: 256 * 1024,
            memory: usize::MAX,
            refuses: None,
            accepted: Vec::new(),
        }
    }

    pub(crate) fn open(&mut self) -> SessionId {
        self.sessions.push(FakeSession::default());
        SessionId(Key { slot: self.sessions.len() as u32 - 1, generation: 0 })
    }

    pub(crate) fn of(&mut self, session: SessionId) -> &mut FakeSession {
        &mut self.sessions[session.0.slot as usize]
    }

    fn at(&self, session: SessionId) -> &FakeSession {
        &self.sessions[session.0.slot as usize]
    }

    pub(crate) fn write(&mut self, session: SessionId, bytes: &[u8]) {
        self.of(session).tx.extend(bytes);
        self.program_tx(session);
    }

    /// The app reads all; how many bytes that were.
    pub(crate) fn read(&mut self, session: SessionId) -> usize {
        let record = self.of(session);
        let count = record.rx.len() - record.read;
        record.read += count;
        if count > 0 {
            self.program_tx(session);
        }
        count
    }
}

impl SessionLayer for FakeLayer {
    fn accept(
        &mut self,
        listener: ListenerId,
        connection: ConnectionId,
        flow: &FlowKey,
    ) -> Result<SessionId, AcceptError> {
        if let Some(error) = self.refuses {
            return Err(error);
        }
        let session = self.open();
        self.of(session).connection = Some(connection);
        self.accepted.push((listener, *flow));
        Ok(session)
    }

    fn rx_room(&self, session: SessionId) -> u32 {
        let session = self.at(session);
        self.rx_capacity.saturating_sub(session.rx.len() - session.read) as u32
    }

    fn rx_store(&mut self, session: SessionId, offset: u32, data: &[u8]) -> RxStored {
        assert_eq!(offset, 0, "a stream is in order");
        assert!(data.len() <= self.rx_room(session) as usize, "more was read than there is room for");
        let stored = data.len().min(self.memory);
        self.memory -= stored;
        self.of(session).rx.extend_from_slice(&data[..stored]);
        RxStored { advanced: stored as u32, refused: (data.len() - stored) as u32 }
    }

    fn rx_ranges(&self, _session: SessionId) -> &[OooRange] {
        &[]
    }

    fn rx_unread(&self, session: SessionId) -> u32 {
        let session = self.at(session);
        (session.rx.len() - session.read) as u32
    }

    fn tx_len(&self, session: SessionId) -> u32 {
        self.at(session).tx.len() as u32
    }

    fn tx_copy(&self, session: SessionId, offset: u32, into: &mut [u8]) {
        let tx = &self.at(session).tx;
        assert!(offset as usize + into.len() <= tx.len(), "copied beyond what was written");
        for (byte, &from) in into.iter_mut().zip(tx.range(offset as usize..)) {
            *byte = from;
        }
    }

    fn tx_acknowledge(&mut self, session: SessionId, count: u32) {
        self.of(session).tx.drain(..count as usize);
    }

    fn program_tx(&mut self, session: SessionId) {
        if !self.programmed.contains(&session) {
            self.programmed.push_back(session);
        }
    }
}
