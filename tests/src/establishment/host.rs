//! The host of the enumeration: sockets whose connect, bytes and events are what a test says, and pollers over them.
//!
//! A socket here does what Linux's does and nothing kinder. A connect is told once, then not before the socket is armed
//! again. A stream's readiness is told at its edge: when bytes, an end or an error come, and when room comes after a write
//! that found too little; what is told then is all that is so at that moment. An error is handed out once. A close with
//! bytes unread resets.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use hoststack_kernel::host::{Errno, Host, Interest, ModelPoller, ModelSocket, Poller, Readiness, Socket};
use hoststack_transport::{Address, Endpoint, SocketOption, SocketOptions};
use parking_lot::{Mutex, MutexGuard};

/// A socket of the host, by its number since the last [`ModelHost::begin`].
pub type SocketNumber = usize;

/// How a socket's connect goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connects {
    /// It is up when the call returns.
    AtOnce,
    /// Later: `opens`, `refuses`, or never.
    Later,
    /// The call says that nobody listens.
    RefusedAtOnce,
}

/// What a socket will do, decided before it is made.
#[derive(Clone, Debug)]
pub struct Script {
    /// How its connect goes.
    pub connects: Connects,
    /// What the peer has done by the time the connection is up.
    pub at_open: Vec<PeerStep>,
    /// The peer resets when the connection is watched as a stream: before anything is read or written.
    pub resets_at_first_io: bool,
    /// The event that says that the connection is up has these flags besides, though nothing has ended.
    pub hangs_up_with_open: bool,
    /// Where writing stops until the peer makes room, as offsets in the stream; after the last, nothing stops it.
    pub windows: VecDeque<usize>,
    /// At the first window's end it stops for good.
    pub never_opens: bool,
}

impl Script {
    /// Up at once, and nothing else.
    pub fn plain() -> Script {
        Script {
            connects: Connects::AtOnce,
            at_open: Vec::new(),
            resets_at_first_io: false,
            hangs_up_with_open: false,
            windows: VecDeque::new(),
            never_opens: false,
        }
    }
}

/// Something the peer does, or the network, or the host by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerStep {
    /// The connect succeeds.
    Opens,
    /// The connect fails.
    Refuses,
    /// An event of a connect under way: hung up, no error, not connected.
    HangUpEvent,
    /// An event of a connect under way: an error, but there is none, and not connected.
    ErrorEvent,
    /// Bytes come.
    Bytes(Vec<u8>),
    /// The peer ends its direction.
    Fin,
    /// The peer resets.
    Reset,
}

/// How our end of a socket was closed, as the peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a FIN.
    Finished,
    /// With a RST.
    Reset,
    /// Before it was connected.
    Unconnected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Fresh,
    Connecting,
    Up,
    Dead,
}

/// A socket as the test sees it.
#[derive(Debug)]
pub struct Sock {
    script: Script,
    phase: Phase,
    error: Option<Errno>,
    rx: VecDeque<u8>,
    /// Bytes that were read.
    pub read: usize,
    /// The peer ended its direction.
    pub fin: bool,
    /// The peer's end was read.
    pub fin_read: bool,
    reset: bool,
    /// All that was written.
    pub wire: Vec<u8>,
    /// A write found too little room since room last came.
    pub is_blocked: bool,
    again_once: bool,
    short_once: bool,
    /// We ended our direction.
    pub finished: bool,
    reset_on_close: bool,
    /// How it was closed; `None`: it is open.
    pub ended: Option<Ended>,
    /// A connect was told to whoever watches.
    pub open_was_told: bool,
}

impl Sock {
    fn new(script: Script) -> Sock {
        Sock {
            script,
            phase: Phase::Fresh,
            error: None,
            rx: VecDeque::new(),
            read: 0,
            fin: false,
            fin_read: false,
            reset: false,
            wire: Vec::new(),
            is_blocked: false,
            again_once: false,
            short_once: false,
            finished: false,
            reset_on_close: false,
            ended: None,
            open_was_told: false,
        }
    }

    /// Up, and open at our end.
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up && self.ended.is_none()
    }

    /// A connect is under way.
    pub fn is_connecting(&self) -> bool {
        self.phase == Phase::Connecting && self.ended.is_none()
    }

    /// Bytes that have come, read or not.
    pub fn received(&self) -> usize {
        self.read + self.rx.len()
    }

    /// The peer has reset it.
    pub fn is_reset(&self) -> bool {
        self.reset
    }

    fn window(&self) -> usize {
        self.script.windows.front().copied().unwrap_or(usize::MAX)
    }

    /// Whether room can come.
    pub fn can_unblock(&self) -> bool {
        self.is_blocked && self.is_up() && !(self.script.never_opens && self.wire.len() >= self.window())
    }

    fn level(&self, token: u64) -> Readiness {
        let is_over = self.phase == Phase::Dead || self.reset;
        let is_up = self.phase == Phase::Up;
        // Until a write has found that there is none.
        let has_room = is_up && !self.is_blocked;
        Readiness {
            token,
            readable: is_over || (is_up && (!self.rx.is_empty() || self.fin)),
            writable: is_over || has_room,
            peer_closed: is_over || (is_up && self.fin),
            hang_up: is_over || (is_up && self.fin && self.finished),
            error: self.error.is_some(),
        }
    }

    fn steps(&mut self, step: &PeerStep) {
        match step {
            PeerStep::Opens => {
                self.phase = Phase::Up;
                for step in std::mem::take(&mut self.script.at_open) {
                    self.steps(&step);
                }
            }
            PeerStep::Refuses => {
                self.phase = Phase::Dead;
                self.error = Some(Errno::CONNREFUSED);
            }
            PeerStep::HangUpEvent | PeerStep::ErrorEvent => {}
            PeerStep::Bytes(bytes) => self.rx.extend(bytes),
            PeerStep::Fin => self.fin = true,
            PeerStep::Reset => {
                self.reset = true;
                self.error = Some(Errno::CONNRESET);
            }
        }
    }
}

#[derive(Debug)]
struct Watch {
    poller: usize,
    socket: SocketNumber,
    token: u64,
    interest: Interest,
    armed: bool,
    edge: bool,
    /// Flags that are told once, whatever is so.
    forced: Option<Readiness>,
}

/// What the host holds.
#[derive(Debug, Default)]
pub struct State {
    scripts: VecDeque<Script>,
    socks: Vec<Sock>,
    watches: Vec<Watch>,
    pollers: usize,
    /// Sockets of an earlier cell must not be mistaken for this one's.
    era: u64,
    /// Counts everything that changed something: what the stack did to sockets, and what it was told.
    pub changes: u64,
    /// Events that were told.
    pub told: u64,
    /// What happened, when somebody wants to read it.
    pub log: Option<Vec<String>>,
}

impl State {
    fn note(&mut self, words: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(words());
        }
    }

    /// A socket of this cell.
    pub fn sock(&self, number: SocketNumber) -> Option<&Sock> {
        self.socks.get(number)
    }

    /// All of this cell.
    pub fn socks(&self) -> &[Sock] {
        &self.socks
    }

    fn edge(&mut self, number: SocketNumber) {
        for watch in self.watches.iter_mut().filter(|watch| watch.socket == number) {
            watch.edge = true;
        }
    }

    /// Something happens to a socket.
    pub fn peer(&mut self, number: SocketNumber, step: &PeerStep) {
        self.note(|| format!("socket {number}: peer {step:?}"));
        let hangs_up = match step {
            PeerStep::HangUpEvent => Some(Readiness { hang_up: true, ..Readiness::default() }),
            PeerStep::ErrorEvent => Some(Readiness { error: true, hang_up: true, ..Readiness::default() }),
            PeerStep::Opens if self.socks[number].script.hangs_up_with_open => {
                Some(Readiness { hang_up: true, peer_closed: true, writable: true, ..Readiness::default() })
            }
            _ => None,
        };
        self.socks[number].steps(step);
        for watch in self.watches.iter_mut().filter(|watch| watch.socket == number) {
            watch.forced = hangs_up.or(watch.forced);
        }
        self.edge(number);
    }

    /// The peer takes what was written: there is room again. Does nothing where nothing is stuck.
    pub fn unblock(&mut self, number: SocketNumber) {
        self.note(|| format!("socket {number}: room comes"));
        let sock = &mut self.socks[number];
        if sock.wire.len() >= sock.window() {
            sock.script.windows.pop_front();
        }
        sock.is_blocked = false;
        self.edge(number);
    }

    /// The next write of a socket finds no room, or room for one byte only.
    pub fn trip(&mut self, number: SocketNumber, short: bool) {
        self.note(|| format!("socket {number}: the next write {}", if short { "is short" } else { "waits" }));
        let sock = &mut self.socks[number];
        (sock.again_once, sock.short_once) = (!short, short);
    }

    /// Every socket that is watched is said to be readable and writable, or hung up if it is connecting, once.
    pub fn spurious(&mut self) {
        self.note(|| "events that mean nothing".to_owned());
        for watch in &mut self.watches {
            watch.forced = Some(match watch.interest {
                Interest::Connect => Readiness { hang_up: true, ..Readiness::default() },
                Interest::Stream => Readiness { readable: true, writable: true, ..Readiness::default() },
                Interest::Accept => Readiness { readable: true, ..Readiness::default() },
            });
        }
    }

    fn ready(&self, watch: &Watch) -> Option<Readiness> {
        let level = self.socks[watch.socket].level(watch.token);
        let merged = match watch.forced {
            Some(forced) => Readiness {
                token: watch.token,
                readable: level.readable || forced.readable,
                writable: level.writable || forced.writable,
                peer_closed: level.peer_closed || forced.peer_closed,
                hang_up: level.hang_up || forced.hang_up,
                error: level.error || forced.error,
            },
            None => level,
        };
        let is_something = merged != Readiness { token: watch.token, ..Readiness::default() };
        let is_told = match watch.interest {
            Interest::Connect => watch.armed && (merged.writable || merged.error || merged.hang_up),
            Interest::Stream => (watch.edge || watch.forced.is_some()) && is_something,
            Interest::Accept => merged.readable,
        };
        is_told.then_some(merged)
    }

    /// Whether a poller has something to tell.
    pub fn has_ready(&self) -> bool {
        self.watches.iter().any(|watch| self.ready(watch).is_some())
    }

    /// Whether something wakes the stack when this socket changes.
    pub fn is_watched(&self, number: SocketNumber) -> bool {
        self.watches
            .iter()
            .any(|watch| watch.socket == number && (watch.armed || watch.interest != Interest::Connect))
    }

    /// Whether it is watched for its connect, and would be told of it.
    pub fn awaits_connect(&self, number: SocketNumber) -> bool {
        self.watches
            .iter()
            .any(|watch| watch.socket == number && watch.armed && watch.interest == Interest::Connect)
    }
}

/// A host for a stack; clones are the same host.
#[derive(Clone, Default)]
pub struct ModelHost(Arc<Mutex<State>>);

impl fmt::Debug for ModelHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModelHost")
    }
}

impl ModelHost {
    /// Forgets all sockets of before, which must have been closed; the next ones are numbered from 0.
    ///
    /// # Panics
    /// When one is still open.
    pub fn begin(&self) {
        let mut state = self.0.lock();
        assert!(state.socks.iter().all(|sock| sock.ended.is_some()), "a socket was left open");
        assert!(state.watches.is_empty(), "a closed socket is not watched");
        state.era += 1;
        state.socks.clear();
        state.scripts.clear();
        (state.changes, state.told) = (0, 0);
    }

    /// The next socket that is made and has no script yet does this.
    pub fn script(&self, script: Script) {
        self.0.lock().scripts.push_back(script);
    }

    /// What the host holds. Not while the stack steps.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Host for ModelHost {
    fn socket(&self, _like: &Address, _options: &SocketOptions) -> Result<Socket, Errno> {
        let mut state = self.0.lock();
        // One that nobody foresaw is refused, which no cell expects.
        let script = state
            .scripts
            .pop_front()
            .unwrap_or(Script { connects: Connects::RefusedAtOnce, ..Script::plain() });
        let number = state.socks.len();
        state.changes += 1;
        state.note(|| format!("socket {number}: made"));
        state.socks.push(Sock::new(script));
        let era = state.era;
        Ok(Socket::Model(Box::new(Handle { host: self.clone(), number, era })))
    }

    fn poller(&self) -> Result<Poller, Errno> {
        let mut state = self.0.lock();
        let number = state.pollers;
        state.pollers += 1;
        Ok(Poller::Model(Box::new(Pollers { host: self.clone(), number })))
    }
}

/// The stack's end of a socket.
#[derive(Debug)]
struct Handle {
    host: ModelHost,
    number: SocketNumber,
    era: u64,
}

impl Handle {
    fn with<T>(&self, work: impl FnOnce(&mut State, &mut Sock) -> T) -> T {
        let mut state = self.host.0.lock();
        assert_eq!(state.era, self.era, "a socket of an earlier cell is still used");
        // Taken out for the call, so that both can be lent.
        let mut sock = std::mem::replace(&mut state.socks[self.number], Sock::new(Script::plain()));
        let result = work(&mut state, &mut sock);
        state.socks[self.number] = sock;
        result
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.host.0.lock();
        if state.era != self.era {
            return;
        }
        let number = self.number;
        state.changes += 1;
        let sock = &mut state.socks[number];
        let ended = match sock.phase {
            Phase::Fresh | Phase::Connecting | Phase::Dead => Ended::Unconnected,
            Phase::Up if sock.reset || sock.reset_on_close || !sock.rx.is_empty() => Ended::Reset,
            Phase::Up => Ended::Finished,
        };
        sock.ended = Some(ended);
        state.watches.retain(|watch| watch.socket != number);
        state.note(|| format!("socket {number}: closed, {ended:?}"));
    }
}

impl ModelSocket for Handle {
    fn connect(&self, _to: &Address) -> Result<(), Errno> {
        self.with(|state, sock| {
            state.changes += 1;
            let result = match (sock.phase, sock.script.connects) {
                (Phase::Up, _) => Err(Errno::ISCONN),
                (Phase::Connecting, _) => Err(Errno::ALREADY),
                (Phase::Dead, _) => Err(sock.error.take().unwrap_or(Errno::CONNABORTED)),
                (Phase::Fresh, Connects::AtOnce) => {
                    sock.steps(&PeerStep::Opens);
                    sock.open_was_told = true;
                    Ok(())
                }
                (Phase::Fresh, Connects::Later) => {
                    sock.phase = Phase::Connecting;
                    Err(Errno::INPROGRESS)
                }
                (Phase::Fresh, Connects::RefusedAtOnce) => {
                    sock.phase = Phase::Dead;
                    Err(Errno::CONNREFUSED)
                }
            };
            state.note(|| format!("socket {}: connect: {result:?}", self.number));
            result
        })
    }

    fn bind(&self, _to: &Address, _shared: bool) -> Result<(), Errno> {
        Ok(())
    }

    fn listen(&self, _backlog: u32) -> Result<(), Errno> {
        Err(Errno::OPNOTSUPP)
    }

    fn accept(&self) -> Result<(Socket, Endpoint), Errno> {
        Err(Errno::OPNOTSUPP)
    }

    fn try_clone(&self) -> Result<Socket, Errno> {
        Err(Errno::OPNOTSUPP)
    }

    fn local(&self) -> Result<Endpoint, Errno> {
        Ok(local(self.number).into())
    }

    fn is_connected(&self) -> bool {
        self.with(|_, sock| sock.phase == Phase::Up && !sock.reset)
    }

    fn take_error(&self) -> Option<Errno> {
        self.with(|state, sock| {
            let error = sock.error.take();
            state.note(|| format!("socket {}: its error is {error:?}", self.number));
            error
        })
    }

    fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        self.with(|state, sock| {
            let result = match sock.phase {
                _ if !sock.rx.is_empty() => {
                    let count = into.len().min(sock.rx.len());
                    for (to, from) in into.iter_mut().zip(sock.rx.drain(..count)) {
                        *to = from;
                    }
                    sock.read += count;
                    state.changes += u64::from(count > 0);
                    Ok(count)
                }
                _ if sock.error.is_some() => {
                    state.changes += 1;
                    Err(sock.error.take().unwrap_or(Errno::CONNRESET))
                }
                Phase::Fresh | Phase::Connecting => Err(Errno::NOTCONN),
                Phase::Up if sock.fin || sock.reset => {
                    state.changes += u64::from(!sock.fin_read);
                    sock.fin_read = true;
                    Ok(0)
                }
                Phase::Up => Err(Errno::AGAIN),
                Phase::Dead => Ok(0),
            };
            state.note(|| format!("socket {}: read: {result:?}", self.number));
            result
        })
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        self.with(|state, sock| {
            let room = sock.window().saturating_sub(sock.wire.len());
            let trips = std::mem::take(&mut sock.again_once);
            let result = match sock.phase {
                Phase::Fresh | Phase::Connecting => Err(Errno::NOTCONN),
                _ if sock.reset || sock.phase == Phase::Dead || sock.finished => {
                    state.changes += 1;
                    Err(sock.error.take().unwrap_or(Errno::PIPE))
                }
                _ if bytes.is_empty() => Ok(0),
                _ if room == 0 || trips || sock.is_blocked => {
                    sock.is_blocked = true;
                    Err(Errno::AGAIN)
                }
                _ => {
                    let room = if std::mem::take(&mut sock.short_once) { 1 } else { room };
                    let count = bytes.len().min(room);
                    sock.wire.extend(&bytes[..count]);
                    sock.is_blocked = count < bytes.len();
                    state.changes += 1;
                    Ok(count)
                }
            };
            state.note(|| format!("socket {}: write of {}: {result:?}", self.number, bytes.len()));
            result
        })
    }

    fn finish(&self) -> Result<(), Errno> {
        self.with(|state, sock| {
            state.note(|| format!("socket {}: finish", self.number));
            state.changes += 1;
            if sock.phase != Phase::Up || sock.reset {
                return Err(Errno::NOTCONN);
            }
            sock.finished = true;
            Ok(())
        })
    }

    fn reset_on_close(&self) -> Result<(), Errno> {
        self.with(|_, sock| sock.reset_on_close = true);
        Ok(())
    }

    fn set_option(&self, _option: SocketOption) {}
}

/// Where a socket of this number is bound.
pub fn local(number: SocketNumber) -> SocketAddr {
    // Fits: a cell makes a handful.
    SocketAddr::from(([192, 0, 2, 2], 1000 + number as u16))
}

#[derive(Debug)]
struct Pollers {
    host: ModelHost,
    number: usize,
}

impl Pollers {
    fn number_of(&self, socket: &Socket) -> Result<SocketNumber, Errno> {
        let Socket::Model(model) = socket else { return Err(Errno::INVAL) };
        // See `local`.
        Ok(usize::from(model.local()?.port) - 1000)
    }
}

impl ModelPoller for Pollers {
    fn add(&self, socket: &Socket, token: u64, interest: Interest) -> Result<(), Errno> {
        let number = self.number_of(socket)?;
        let mut state = self.host.0.lock();
        if state.watches.iter().any(|watch| watch.socket == number && watch.poller == self.number) {
            return Err(Errno::EXIST);
        }
        if interest == Interest::Stream && state.socks[number].script.resets_at_first_io {
            state.peer(number, &PeerStep::Reset);
        }
        state.changes += 1;
        state.note(|| format!("socket {number}: watched for {interest:?}"));
        let poller = self.number;
        state.watches.push(Watch {
            poller,
            socket: number,
            token,
            interest,
            armed: true,
            edge: true,
            forced: None,
        });
        Ok(())
    }

    fn again(&self, socket: &Socket, token: u64) -> Result<(), Errno> {
        let number = self.number_of(socket)?;
        let mut state = self.host.0.lock();
        state.note(|| format!("socket {number}: watched again"));
        let watch = state
            .watches
            .iter_mut()
            .find(|watch| watch.socket == number && watch.poller == self.number)
            .ok_or(Errno::NOENT)?;
        (watch.armed, watch.token) = (true, token);
        Ok(())
    }

    fn poll(&self, max: usize, ready: &mut Vec<Readiness>) {
        let mut state = self.host.0.lock();
        let end = ready.len() + max;
        for at in 0..state.watches.len() {
            let watch = &state.watches[at];
            if watch.poller != self.number || ready.len() >= end {
                continue;
            }
            let Some(readiness) = state.ready(watch) else { continue };
            let number = watch.socket;
            let watch = &mut state.watches[at];
            (watch.edge, watch.forced) = (false, None);
            watch.armed = watch.interest != Interest::Connect;
            state.told += 1;
            state.socks[number].open_was_told |= readiness.writable;
            state.note(|| format!("socket {number}: {readiness:?}"));
            ready.push(readiness);
        }
    }
}
