//! A worker's side: its listeners and its connections, all waited for by one poller.
//!
//! [`Engine::poll`] takes in what the host has to say and reads; writing happens in [`Transport::transmit`], where the
//! session layer's schedule says whose turn it is. Both are bounded, and what is left over waits in a list, whose end is
//! the place of whoever had its turn.

use core::fmt;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use hoststack_transport::border::{Measures, SessionLayer, Transmitted, Transport, TransportEvent};
use hoststack_transport::{
    Address, CloseReason, ConnectionId, ConnectionStats, Duration, EndStats, FlowKey, Full, Instant, Key,
    Known, ListenerId, Pool, Protocol, SessionId, SocketOption, SocketOptions, TimerWheel,
};

use crate::connection::{Connection, Fate, flow};
use crate::error::is_no_room;
use crate::half_opens::Seed;
use crate::host::{Errno, Host, Interest, Poller, Readiness, Socket};
use crate::token::Token;

#[cfg(test)]
mod tests;

/// Bytes of one read, or write.
const SCRATCH: usize = 64 * 1024;
/// How long a listener that found no descriptor, or no memory, is left alone.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a connection could not be taken over; its socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EstablishError {
    /// The pool of connections is at its limit.
    Full,
    /// The host does not watch the socket.
    System(Errno),
}

impl fmt::Display for EstablishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EstablishError::Full => Full.fmt(f),
            EstablishError::System(error) => write!(f, "the host does not watch the socket: {error}"),
        }
    }
}

impl core::error::Error for EstablishError {}

impl From<Full> for EstablishError {
    fn from(Full: Full) -> EstablishError {
        EstablishError::Full
    }
}

/// What a worker's engine did so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EngineCounters {
    /// Connections taken over from main.
    pub established: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that were accepted and reset, for want of room or of a listener.
    pub refused: u64,
    /// Failed calls of `accept`: the connection was gone, or there was no room.
    pub accept_errors: u64,
    /// How often a listener was paused, for the host had no descriptors or memory.
    pub accept_pauses: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Of these, by a reset of ours.
    pub local_resets: u64,
    /// Of these, by a reset of the peer's, or an error.
    pub failed: u64,
    /// Events of the poller.
    pub events: u64,
    /// Of these, of something that is gone.
    pub stale: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
}

/// What of [`EngineCounters`] is kept apart for each sort of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SocketCounters {
    /// Connections taken over from main.
    pub established: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that ended. Those that are up: `established` and `accepted` without these.
    pub closed: u64,
    /// Of these, by a reset of the peer's, or an error.
    pub failed: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
}

/// [`SocketCounters`] of sockets of the host's TCP and of Unix sockets.
#[derive(Clone, Copy, Debug, Default)]
struct BySocket {
    tcp: SocketCounters,
    unix: SocketCounters,
}

impl BySocket {
    #[inline]
    fn of(&mut self, flow: &FlowKey) -> &mut SocketCounters {
        if flow.protocol == Protocol::KernelUnix { &mut self.unix } else { &mut self.tcp }
    }
}

struct Listener {
    address: Address,
    socket: Socket,
    options: SocketOptions,
    /// When it is watched again; `None` while it is.
    paused_until: Option<Instant>,
}

/// A listener, for the CLI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    /// Its name.
    pub listener: ListenerId,
    /// Where.
    pub address: Address,
    /// Until when it takes nothing, for the host had no descriptors or memory.
    pub paused_until: Option<Instant>,
}

/// All connections of a worker over the host's sockets.
pub struct Engine {
    poller: Poller,
    connections: Pool<Connection>,
    listeners: BTreeMap<ListenerId, Listener>,
    wheel: TimerWheel<Token>,
    fired: Vec<(Instant, Token)>,
    ready: Vec<Readiness>,
    /// Connections whose turn it is, each at most once.
    turns: VecDeque<Key>,
    /// Sockets of connections that have ended, to be closed by [`Engine::flush`].
    ended: Vec<OwnedFd>,
    /// The poller, or a listener, may have more to say.
    has_more: bool,
    scratch: Box<[u8]>,
    counters: EngineCounters,
    by_socket: BySocket,
}

impl Engine {
    /// Without listeners, for at most `connections_max` connections.
    ///
    /// # Errors
    /// The host's, which gives no poller.
    pub fn new(host: Arc<dyn Host>, connections_max: usize) -> Result<Engine, Errno> {
        Ok(Engine {
            poller: host.poller()?,
            connections: Pool::new(connections_max),
            listeners: BTreeMap::new(),
            wheel: TimerWheel::new(Instant::ZERO),
            fired: Vec::new(),
            ready: Vec::new(),
            turns: VecDeque::new(),
            ended: Vec::new(),
            has_more: false,
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            counters: EngineCounters::default(),
            by_socket: BySocket::default(),
        })
    }

    /// What the worker sleeps on: readable while there is something to [`Engine::poll`].
    pub fn wait_fd(&self) -> Option<RawFd> {
        self.poller.wait_fd()
    }

    /// From now on every connection finds the pool full, or no longer so: for simulated faults.
    pub fn set_refusing(&mut self, refusing: bool) {
        self.connections.set_refusing(refusing);
    }

    /// Accepts on `socket`, which listens at `address`, from now on. `options` are those of its connections.
    ///
    /// # Errors
    /// The host's, which does not watch it; then it is closed.
    pub fn listen(
        &mut self,
        listener: ListenerId,
        address: Address,
        socket: Socket,
        options: SocketOptions,
    ) -> Result<(), Errno> {
        self.unlisten(listener);
        self.poller.add(&socket, Token::Listener(listener.0).as_u64(), Interest::Accept)?;
        self.listeners.insert(listener, Listener { address, socket, options, paused_until: None });
        Ok(())
    }

    /// Closes a listener's socket; its connections stay. Does nothing if it is gone.
    pub fn unlisten(&mut self, listener: ListenerId) {
        let gone = self.listeners.remove(&listener);
        if let Some(gone) = gone.filter(|gone| gone.paused_until.is_none()) {
            // Other workers may have clones of it: then closing it is not enough for the poller.
            self.poller.remove(&gone.socket, Token::Listener(listener.0).as_u64());
        }
    }

    /// Takes a connection over that main brought up, for `session`: [`TransportEvent::Connected`]. It is read and written
    /// later.
    ///
    /// # Errors
    /// [`EstablishError`]; then the connection is reset, and nothing follows.
    #[allow(clippy::boxed_local, reason = "it travels in a message, as it is")]
    pub fn establish<L: SessionLayer>(
        &mut self,
        _now: Instant,
        seed: Box<Seed>,
        session: SessionId,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) -> Result<ConnectionId, EstablishError> {
        let Seed { half_open: _, flow, socket, options } = *seed;
        if self.connections.is_full() {
            let _ = socket.reset_on_close(); // else it ends with a FIN
            return Err(EstablishError::Full);
        }
        let connection = Connection::new(session, flow, socket, options.linger_ms);
        let key = self.connections.insert(connection)?;
        if let Err(error) = self.watch(key) {
            if let Some(connection) = self.connections.remove(key) {
                let _ = connection.socket.reset_on_close();
            }
            return Err(EstablishError::System(error));
        }
        self.counters.established += 1;
        self.by_socket.of(&flow).established += 1;
        events.push(TransportEvent::Connected { session });
        if layer.tx_len(session) > 0 {
            layer.program_tx(session);
        }
        Ok(ConnectionId(key))
    }

    fn watch(&self, key: Key) -> Result<(), Errno> {
        match self.connections.get(key) {
            Some(connection) => {
                self.poller.add(&connection.socket, Token::Record(key).as_u64(), Interest::Stream)
            }
            None => Ok(()),
        }
    }

    /// Takes in what the host has to say, at most `burst` events, accepts at most `burst` connections, gives at most
    /// `burst` connections their turn to read, and fires what is due. Says whether anything happened.
    pub fn poll<L: SessionLayer>(
        &mut self,
        now: Instant,
        burst: usize,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) -> bool {
        let mut worked = self.has_work();
        self.flush(); // what is accepted may need the descriptors
        let mut ready = core::mem::take(&mut self.ready);
        let is_watched = !self.connections.is_empty() || !self.listeners.is_empty();
        self.poller.poll(is_watched, burst, &mut ready);
        worked |= !ready.is_empty();
        self.has_more = ready.len() >= burst;
        self.counters.events += ready.len() as u64; // widens
        let mut accepts_left = burst;
        for readiness in ready.drain(..) {
            match Token::from_u64(readiness.token) {
                Token::Record(key) => self.on_ready(key, &readiness, layer),
                Token::Listener(key) => {
                    self.on_acceptable(now, ListenerId(key), &mut accepts_left, layer, events);
                }
            }
        }
        self.ready = ready;
        for _ in 0..self.turns.len().min(burst) {
            let Some(key) = self.turns.pop_front() else { break };
            self.turn(now, key, layer, events);
        }
        // After the turns: what has come when a deadline passes came in time.
        let mut fired = core::mem::take(&mut self.fired);
        self.wheel.advance(now, &mut fired);
        for (at, token) in fired.drain(..) {
            worked |= self.on_timer(now, at, token, events);
        }
        self.fired = fired;
        worked
    }

    /// Closes the sockets of what has ended since the last call: to be called at the end of each step. One after the other,
    /// for the host's way through a close is long, and only the first has to bring it into the cache.
    pub fn flush(&mut self) {
        self.ended.clear();
    }

    fn on_ready<L: SessionLayer>(&mut self, key: Key, readiness: &Readiness, layer: &mut L) {
        match self.connections.get_mut(key) {
            Some(connection) => {
                connection.on_ready(readiness, layer);
                self.list(key);
            }
            None => self.counters.stale += 1,
        }
    }

    /// It will have a turn.
    fn list(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.is_listed
        {
            connection.is_listed = true;
            self.turns.push_back(key);
        }
    }

    /// A connection reads.
    fn turn<L: SessionLayer>(
        &mut self,
        now: Instant,
        key: Key,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.is_listed = false;
        let before = connection.bytes_in;
        let fate = connection.receive(now, &mut self.scratch, layer, events);
        let read = connection.bytes_in - before;
        self.counters.bytes_in += read;
        self.by_socket.of(&connection.flow).bytes_in += read;
        self.follow(key, fate, events);
    }

    /// What follows from a connection's turn.
    fn follow(&mut self, key: Key, fate: Fate, events: &mut Vec<TransportEvent>) {
        match fate {
            Fate::Waits => {}
            Fate::GoesOn => self.list(key),
            Fate::Over(reason) => return self.end(key, reason, events),
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let timer = connection.timer();
        if timer < connection.wheel_at {
            connection.wheel_at = timer;
            self.wheel.insert(timer, Token::Record(key));
        }
    }

    /// A connection has ended: the only place where one is freed, and its end told.
    fn end(&mut self, key: Key, reason: CloseReason, events: &mut Vec<TransportEvent>) {
        let Some(connection) = self.connections.remove(key) else { return };
        let by_socket = self.by_socket.of(&connection.flow);
        by_socket.closed += 1;
        self.counters.closed += 1;
        match reason {
            CloseReason::Finished => {}
            CloseReason::LocalReset => self.counters.local_resets += 1,
            _ => {
                self.counters.failed += 1;
                by_socket.failed += 1;
            }
        }
        if let Socket::Fd(fd) = connection.socket {
            self.ended.push(fd);
        }
        // What the host's TCP measures is not to be had; see `Measures` below.
        let stats = EndStats {
            bytes_in: connection.bytes_in,
            bytes_out: connection.bytes_out,
            ..EndStats::default()
        };
        events.push(TransportEvent::Closed { session: connection.session, reason, stats });
    }

    fn on_timer(
        &mut self,
        now: Instant,
        at: Instant,
        token: Token,
        events: &mut Vec<TransportEvent>,
    ) -> bool {
        match token {
            Token::Record(key) => {
                let Some(connection) = self.connections.get_mut(key).filter(|c| c.wheel_at == at) else {
                    return false;
                };
                connection.wheel_at = Instant::FAR;
                let fate = connection.on_timer(now);
                self.follow(key, fate, events);
                fate != Fate::Waits
            }
            Token::Listener(key) => self.resume(now, ListenerId(key)),
        }
    }

    // ---- Passive opens ----

    /// Accepts what waits, at most `left` connections.
    fn on_acceptable<L: SessionLayer>(
        &mut self,
        now: Instant,
        id: ListenerId,
        left: &mut usize,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) {
        loop {
            let Some(listener) = self.listeners.get(&id).filter(|l| l.paused_until.is_none()) else {
                self.counters.stale += 1;
                return;
            };
            if *left == 0 {
                self.has_more = true;
                return;
            }
            *left -= 1;
            let accepted = listener.socket.accept();
            match accepted.and_then(|(socket, remote)| {
                let local = match listener.address.endpoint() {
                    Some(at) if !at.addr.is_unspecified() => at,
                    Some(_) => socket.local()?,
                    None => remote,
                };
                Ok((socket, flow(&listener.address, local, remote), listener.options.linger_ms))
            }) {
                Ok((socket, flow, linger_ms)) => self.accept(id, socket, flow, linger_ms, layer, events),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.counters.accept_errors += 1;
                    if is_no_room(error) {
                        return self.pause(now, id);
                    }
                    // Of that connection (`accept(2)`: "the already-pending network errors"): the next may do.
                }
            }
        }
    }

    fn accept<L: SessionLayer>(
        &mut self,
        id: ListenerId,
        socket: Socket,
        flow: FlowKey,
        linger_ms: Option<u32>,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) {
        if self.connections.is_full() {
            self.counters.refused += 1;
            let _ = socket.reset_on_close(); // else it ends with a FIN
            return;
        }
        // The session's name is not known before the connection's.
        let nobody = SessionId(Key { slot: u32::MAX, generation: u32::MAX });
        let Ok(key) = self.connections.insert(Connection::new(nobody, flow, socket, linger_ms)) else {
            return;
        };
        let session = self.watch(key).ok().and_then(|()| layer.accept(id, ConnectionId(key), &flow).ok());
        match (session, self.connections.get_mut(key)) {
            (Some(session), Some(connection)) => {
                connection.session = session;
                self.counters.accepted += 1;
                self.by_socket.of(&flow).accepted += 1;
                events.push(TransportEvent::Accepted { session });
            }
            (_, _) => {
                self.counters.refused += 1;
                if let Some(connection) = self.connections.remove(key) {
                    let _ = connection.socket.reset_on_close();
                }
            }
        }
    }

    /// The host has no room for another connection: asking again at once would find the same.
    fn pause(&mut self, now: Instant, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(&id) else { return };
        self.poller.remove(&listener.socket, Token::Listener(id.0).as_u64());
        self.counters.accept_pauses += 1;
        let until = now + PAUSE;
        listener.paused_until = Some(until);
        self.wheel.insert(until, Token::Listener(id.0));
    }

    fn resume(&mut self, now: Instant, id: ListenerId) -> bool {
        let Some(listener) = self.listeners.get_mut(&id) else { return false };
        if listener.paused_until.is_none_or(|until| until > now) {
            return false;
        }
        let token = Token::Listener(id.0);
        if self.poller.add(&listener.socket, token.as_u64(), Interest::Accept).is_ok() {
            listener.paused_until = None;
        } else {
            let until = now + PAUSE;
            listener.paused_until = Some(until);
            self.wheel.insert(until, token);
        }
        true
    }

    // ---- When to come back ----

    /// When [`Engine::poll`] must be called next at the latest; [`Instant::ZERO`] if something is left to do now.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.has_work() { Some(Instant::ZERO) } else { self.wheel.next_deadline() }
    }

    /// Whether [`Engine::poll`] has something to do without the host having anything new to say.
    pub fn has_work(&self) -> bool {
        self.has_more || !self.turns.is_empty()
    }

    // ---- For people and tests ----

    /// What the pool of connections holds of its limit.
    pub fn usage(&self) -> hoststack_transport::Usage {
        self.connections.usage()
    }

    /// Connections that are up.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Listeners.
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// The listeners, in the order of their names.
    pub fn describe_listeners(&self) -> impl Iterator<Item = ListenerInfo> {
        self.listeners.iter().map(|(&listener, record)| ListenerInfo {
            listener,
            address: record.address.clone(),
            paused_until: record.paused_until,
        })
    }

    /// Connections and listeners whose timers run.
    pub fn armed_timers(&self) -> usize {
        let connections = self.connections.iter().filter(|(_, c)| c.timer() != Instant::FAR).count();
        connections + self.listeners.values().filter(|listener| listener.paused_until.is_some()).count()
    }

    /// What happened so far.
    pub fn counters(&self) -> &EngineCounters {
        &self.counters
    }

    /// What is wrong with a connection that it cannot go on by itself; `None` if nothing is, or if it is gone.
    pub fn fault(&self, connection: ConnectionId) -> Option<&'static str> {
        self.connections.get(connection.0)?.fault()
    }

    /// What happened so far on sockets of the host's TCP (`KernelTcp`) or on Unix sockets (`KernelUnix`).
    pub fn socket_counters(&self, protocol: Protocol) -> &SocketCounters {
        if protocol == Protocol::KernelUnix { &self.by_socket.unix } else { &self.by_socket.tcp }
    }

    /// Checks what must hold between any two calls.
    ///
    /// # Panics
    /// When it does not.
    pub fn check_consistency(&self) {
        for (_, connection) in self.connections.iter() {
            connection.check_consistency();
        }
        let listed = self.connections.iter().filter(|(_, connection)| connection.is_listed).count();
        let waiting = self.turns.iter().filter(|&&key| self.connections.contains(key)).count();
        assert_eq!(listed, waiting, "each connection that is listed has one turn, and only those");
        let up = |of: SocketCounters| of.established + of.accepted - of.closed;
        let counted = up(self.by_socket.tcp) + up(self.by_socket.unix);
        assert_eq!(counted, self.connections.len() as u64, "what came up and did not end is up");
    }
}

impl<L: SessionLayer> Transport<L, ()> for Engine {
    fn close(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        layer: &mut L,
        out: &mut (),
        events: &mut Vec<TransportEvent>,
    ) {
        let key = connection.0;
        let Some(record) = self.connections.get_mut(key) else { return };
        if record.close(now, layer) {
            return self.reset(now, connection, layer, out, events);
        }
        let session = record.session;
        if self.send(key, usize::MAX, layer, events) == Transmitted::More {
            layer.program_tx(session);
        }
    }

    fn half_close(
        &mut self,
        _now: Instant,
        connection: ConnectionId,
        layer: &mut L,
        _out: &mut (),
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(record) = self.connections.get_mut(connection.0) else { return };
        record.half_close();
        let session = record.session;
        if self.send(connection.0, usize::MAX, layer, events) == Transmitted::More {
            layer.program_tx(session);
        }
    }

    /// Over a Unix socket, which knows no reset, the peer sees an end, or, if it sent something that was not read,
    /// `ECONNRESET`.
    fn reset(
        &mut self,
        _now: Instant,
        connection: ConnectionId,
        _layer: &mut L,
        _out: &mut (),
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(record) = self.connections.get(connection.0) else { return };
        let _ = record.socket.reset_on_close(); // else it ends with a FIN
        self.end(connection.0, CloseReason::LocalReset, events);
    }

    fn transmit(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        burst: usize,
        layer: &mut L,
        _out: &mut (),
        events: &mut Vec<TransportEvent>,
    ) -> Transmitted {
        let key = connection.0;
        // The app may have read: there is room again for what waits.
        if self.connections.get(key).is_some_and(|connection| !connection.is_listed) {
            self.turn(now, key, layer, events);
        }
        self.send(key, burst, layer, events)
    }

    fn set_option(
        &mut self,
        _now: Instant,
        connection: ConnectionId,
        option: SocketOption,
        _layer: &mut L,
        _out: &mut (),
    ) {
        if let Some(connection) = self.connections.get_mut(connection.0) {
            connection.set_option(option);
        }
    }

    fn describe(&self, _now: Instant, connection: ConnectionId) -> Option<String> {
        self.connections.get(connection.0).map(Connection::describe)
    }
}

impl Engine {
    /// A connection writes.
    fn send<L: SessionLayer>(
        &mut self,
        key: Key,
        burst: usize,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) -> Transmitted {
        let Some(connection) = self.connections.get_mut(key) else { return Transmitted::Idle };
        let before = connection.bytes_out;
        let fate = connection.send(burst, &mut self.scratch, layer, events);
        let written = connection.bytes_out - before;
        self.counters.bytes_out += written;
        self.by_socket.of(&connection.flow).bytes_out += written;
        let is_failing = connection.is_failing();
        if fate == Fate::GoesOn && !is_failing {
            // The session layer's schedule says when it goes on.
            self.follow(key, Fate::Waits, events);
            return Transmitted::More;
        }
        self.follow(key, fate, events);
        Transmitted::Idle
    }
}

impl Measures for Engine {
    /// Only bytes: what the host's TCP measures (`TCP_INFO`) is not to be had without unsafe code or another dependency.
    fn stats(&self, _: Protocol, connection: ConnectionId) -> Option<ConnectionStats> {
        let connection = self.connections.get(connection.0)?;
        Some(ConnectionStats {
            bytes_acked: connection.bytes_out,
            bytes_received: connection.bytes_in,
            known: Known::Bytes,
            ..ConnectionStats::default()
        })
    }
}
