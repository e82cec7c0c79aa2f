//! The machine's own sockets and pollers, with a meddler in between.
//!
//! Every call reaches the host's socket, or is answered as the host might have answered it. A poller is a real one: its
//! events are edited on their way, and those that are made up lie in a `Tray` whose bell the poller watches, so that
//! whoever sleeps on the poller is woken. Where a call is answered `EAGAIN` though the host would not, the event that would
//! follow is made up as well: readiness is told by edges, and the host owes none.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Weak};

use hoststack_kernel::Native;
use hoststack_kernel::host::{Errno, Host, Interest, ModelPoller, ModelSocket, Poller, Readiness, Socket};
use hoststack_transport::{Address, Endpoint, SocketOption, SocketOptions};
use parking_lot::Mutex;
use rustix::event::EventfdFlags;

use super::script::{ConnectMode, Script, StreamMode};

/// The bell of a [`Tray`], as its poller knows it: no token of the transport, which has 28 bits of generation.
const BELL: u64 = u64::MAX;
/// Looks at a connect that find it under way, after an event that came too early.
const ODD_LOOKS: u32 = 1;
/// The same for [`ConnectMode::Already`].
const ALREADY_LOOKS: u32 = 3;

/// The host, meddled with by a script.
#[derive(Clone, Debug)]
pub struct Injecting {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Plan>,
    /// Open sockets by descriptor: how a poller knows whose events it tells.
    sockets: Mutex<BTreeMap<RawFd, Arc<State>>>,
}

#[derive(Debug)]
struct Plan {
    script: Script,
    /// Attempts that are still to be refused.
    refusals: u32,
    strikes: Strikes,
}

/// How often a script struck: a script that never does proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strikes {
    /// Connects answered otherwise, and looks at them.
    pub connect: u32,
    /// Reads, writes and events of connections.
    pub stream: u32,
}

impl Default for Injecting {
    fn default() -> Injecting {
        let plan = Plan { script: Script::PLAIN, refusals: 0, strikes: Strikes::default() };
        Injecting { shared: Arc::new(Shared { script: Mutex::new(plan), sockets: Mutex::default() }) }
    }
}

impl Injecting {
    /// From now on new sockets are meddled with by `script`; strikes are counted anew.
    pub fn set(&self, script: Script) {
        let refusals = u32::from(script.connect == ConnectMode::RefusedOnce);
        *self.shared.script.lock() = Plan { script, refusals, strikes: Strikes::default() };
    }

    /// How often the script has struck.
    #[must_use]
    pub fn strikes(&self) -> Strikes {
        self.shared.script.lock().strikes
    }

    /// Sockets that are open, those that listen included.
    #[must_use]
    pub fn open_sockets(&self) -> usize {
        self.shared.sockets.lock().len()
    }
}

impl Host for Injecting {
    fn socket(&self, like: &Address, options: &SocketOptions) -> Result<Socket, Errno> {
        Ok(Meddled::wrap(Native.socket(like, options)?, &self.shared))
    }

    fn poller(&self) -> Result<Poller, Errno> {
        let poller = Native.poller()?;
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let watched = Socket::Fd(bell.try_clone().map_err(|_| Errno::MFILE)?);
        poller.add(&watched, BELL, Interest::Accept)?;
        Ok(Poller::Model(Box::new(EditedPoller {
            poller,
            tray: Arc::new(Tray { made_up: Mutex::default(), bell }),
            _watched: watched,
            states: Mutex::default(),
            shared: self.shared.clone(),
        })))
    }
}

/// Events that are made up, on their way to one poller.
#[derive(Debug)]
struct Tray {
    made_up: Mutex<VecDeque<Readiness>>,
    bell: OwnedFd,
}

impl Tray {
    fn put(&self, readiness: Readiness) {
        self.made_up.lock().push_back(readiness);
        // Cannot fail but for a full counter, which rings as well.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// What is left to do to a socket.
#[derive(Debug)]
struct State {
    script: Script,
    shared: Arc<Shared>,
    left: Mutex<Left>,
}

#[derive(Debug, Default)]
struct Left {
    /// Calls of `connect` so far.
    connects: u32,
    /// Looks that find the connect under way.
    odd_looks: u32,
    writes_again: u32,
    reads_again: u32,
    is_write_interrupted: bool,
    is_read_interrupted: bool,
    /// The last call moved a byte: the next says `EAGAIN`.
    has_written: bool,
    has_read: bool,
    /// Who watches it, and by which name.
    watch: Option<(Arc<Tray>, u64)>,
    /// Made up before it was watched.
    owed: Option<Readiness>,
}

impl Left {
    fn new(script: Script) -> Left {
        Left {
            odd_looks: match script.connect {
                ConnectMode::Spurious | ConnectMode::ErrorBit | ConnectMode::HangUp => ODD_LOOKS,
                ConnectMode::Already => ALREADY_LOOKS,
                _ => 0,
            },
            writes_again: match script.stream {
                StreamMode::AgainOnce => 1,
                StreamMode::AgainTwice => 2,
                _ => 0,
            },
            reads_again: u32::from(script.stream == StreamMode::ReadAgain),
            is_write_interrupted: script.stream == StreamMode::Interrupted,
            is_read_interrupted: script.stream == StreamMode::Interrupted,
            ..Left::default()
        }
    }

    /// Has the poller tell of something, now or as soon as there is one.
    fn tell(&mut self, readiness: Readiness) {
        match &self.watch {
            Some((tray, token)) => tray.put(Readiness { token: *token, ..readiness }),
            None => {
                let owed = self.owed.get_or_insert_default();
                owed.readable |= readiness.readable;
                owed.writable |= readiness.writable;
            }
        }
    }
}

impl State {
    fn struck_connect(&self) {
        self.shared.script.lock().strikes.connect += 1;
    }

    fn struck_stream(&self) {
        self.shared.script.lock().strikes.stream += 1;
    }

    /// What the poller is to tell first of a socket that is watched for `interest`.
    fn first(&self, interest: Interest, left: &Left) -> Option<Readiness> {
        let nothing = Readiness::default();
        match interest {
            Interest::Accept => None,
            Interest::Connect if left.odd_looks == 0 => None,
            Interest::Connect => match self.script.connect {
                ConnectMode::Spurious | ConnectMode::Already => Some(Readiness { writable: true, ..nothing }),
                ConnectMode::ErrorBit => Some(Readiness { error: true, writable: true, ..nothing }),
                ConnectMode::HangUp => Some(Readiness { hang_up: true, writable: true, ..nothing }),
                _ => None,
            },
            Interest::Stream => match self.script.stream {
                StreamMode::Spurious => Some(Readiness { readable: true, writable: true, ..nothing }),
                StreamMode::ErrorBit => {
                    Some(Readiness { readable: true, writable: true, error: true, ..nothing })
                }
                _ => None,
            },
        }
    }

    /// What becomes of an event of the host's.
    fn edit(&self, interest: Interest, event: &mut Readiness) {
        match interest {
            Interest::Connect if self.script.connect == ConnectMode::HangUp => event.hang_up = true,
            Interest::Stream if self.script.stream == StreamMode::MaskedHangUp => {
                if event.hang_up || event.peer_closed {
                    self.struck_stream();
                }
                event.hang_up = false;
                event.peer_closed = false;
            }
            _ => {}
        }
    }
}

/// A socket of the host's, meddled with.
#[derive(Debug)]
struct Meddled {
    socket: Socket,
    state: Arc<State>,
}

impl Meddled {
    fn wrap(socket: Socket, shared: &Arc<Shared>) -> Socket {
        let script = shared.script.lock().script;
        let left = Mutex::new(Left::new(script));
        Meddled::with(socket, Arc::new(State { script, shared: shared.clone(), left }))
    }

    fn with(socket: Socket, state: Arc<State>) -> Socket {
        if let Some(fd) = socket.as_fd() {
            state.shared.sockets.lock().insert(fd.as_raw_fd(), state.clone());
        }
        Socket::Model(Box::new(Meddled { socket, state }))
    }

    /// The first `connect`.
    fn start(&self, to: &Address) -> Result<(), Errno> {
        let is_refused = {
            let mut plan = self.state.shared.script.lock();
            let is_refused = plan.refusals > 0;
            plan.refusals -= u32::from(is_refused);
            plan.strikes.connect += u32::from(self.state.script.connect != ConnectMode::Plain);
            is_refused
        };
        let or_pending = |result| match result {
            Ok(()) => Err(Errno::INPROGRESS),
            Err(error) => Err(error),
        };
        match self.state.script.connect {
            ConnectMode::RefusedOnce if is_refused => Err(Errno::CONNREFUSED),
            ConnectMode::Plain | ConnectMode::RefusedOnce => self.socket.connect(to),
            ConnectMode::Now => self.connect_blocking(to),
            ConnectMode::Pending => or_pending(self.connect_blocking(to)),
            ConnectMode::Interrupted => match or_pending(self.socket.connect(to)) {
                Err(Errno::INPROGRESS) => Err(Errno::INTR),
                other => other,
            },
            ConnectMode::Spurious | ConnectMode::ErrorBit | ConnectMode::HangUp | ConnectMode::Already => {
                or_pending(self.socket.connect(to))
            }
        }
    }

    fn connect_blocking(&self, to: &Address) -> Result<(), Errno> {
        let fd = self.socket.as_fd().ok_or(Errno::BADF)?;
        rustix::io::ioctl_fionbio(fd, false)?;
        let result = self.socket.connect(to);
        rustix::io::ioctl_fionbio(fd, true)?;
        result
    }
}

impl Drop for Meddled {
    fn drop(&mut self) {
        // Before the descriptor is closed and another socket gets its number.
        if let Some(fd) = self.socket.as_fd() {
            self.state.shared.sockets.lock().remove(&fd.as_raw_fd());
        }
    }
}

const WRITABLE: Readiness =
    Readiness { token: 0, readable: false, writable: true, peer_closed: false, hang_up: false, error: false };
const READABLE: Readiness = Readiness { readable: true, writable: false, ..WRITABLE };

impl ModelSocket for Meddled {
    fn connect(&self, to: &Address) -> Result<(), Errno> {
        let is_first = {
            let mut left = self.state.left.lock();
            left.connects += 1;
            if left.connects > 1 && left.odd_looks > 0 {
                left.odd_looks -= 1;
                drop(left);
                self.state.struck_connect();
                return Err(Errno::ALREADY);
            }
            left.connects == 1
        };
        if is_first { self.start(to) } else { self.socket.connect(to) }
    }

    fn bind(&self, to: &Address, shared: bool) -> Result<(), Errno> {
        self.socket.bind(to, shared)
    }

    fn listen(&self, backlog: u32) -> Result<(), Errno> {
        self.socket.listen(backlog)
    }

    fn accept(&self) -> Result<(Socket, Endpoint), Errno> {
        let (socket, peer) = self.socket.accept()?;
        Ok((Meddled::wrap(socket, &self.state.shared), peer))
    }

    fn try_clone(&self) -> Result<Socket, Errno> {
        Ok(Meddled::with(self.socket.try_clone()?, self.state.clone()))
    }

    fn local(&self) -> Result<Endpoint, Errno> {
        self.socket.local()
    }

    fn is_connected(&self) -> bool {
        self.state.left.lock().odd_looks == 0 && self.socket.is_connected()
    }

    fn take_error(&self) -> Option<Errno> {
        if self.state.left.lock().odd_looks > 0 { None } else { self.socket.take_error() }
    }

    fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        let mut left = self.state.left.lock();
        if std::mem::take(&mut left.is_read_interrupted) {
            self.state.struck_stream();
            return Err(Errno::INTR);
        }
        if left.reads_again > 0 || left.has_read {
            left.reads_again = left.reads_again.saturating_sub(1);
            left.has_read = false;
            left.tell(READABLE);
            self.state.struck_stream();
            return Err(Errno::AGAIN);
        }
        if self.state.script.stream != StreamMode::Dribble {
            return self.socket.read(into);
        }
        let most = into.len().min(1);
        let result = self.socket.read(&mut into[..most]);
        left.has_read = matches!(result, Ok(1..));
        result
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut left = self.state.left.lock();
        if std::mem::take(&mut left.is_write_interrupted) {
            self.state.struck_stream();
            return Err(Errno::INTR);
        }
        if left.writes_again > 0 || left.has_written {
            left.writes_again = left.writes_again.saturating_sub(1);
            left.has_written = false;
            left.tell(WRITABLE);
            self.state.struck_stream();
            return Err(Errno::AGAIN);
        }
        let is_short = matches!(self.state.script.stream, StreamMode::Short | StreamMode::ShortAgain);
        if !is_short || bytes.len() <= 1 {
            return self.socket.write(bytes);
        }
        let result = self.socket.write(&bytes[..1]);
        left.has_written = self.state.script.stream == StreamMode::ShortAgain && result.is_ok();
        self.state.struck_stream();
        result
    }

    fn finish(&self) -> Result<(), Errno> {
        self.socket.finish()
    }

    fn reset_on_close(&self) -> Result<(), Errno> {
        self.socket.reset_on_close()
    }

    fn set_option(&self, option: SocketOption) {
        self.socket.set_option(option);
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_fd()
    }
}

/// A poller of the host's whose events are edited.
#[derive(Debug)]
struct EditedPoller {
    poller: Poller,
    tray: Arc<Tray>,
    /// The bell, kept open as long as it is watched.
    _watched: Socket,
    states: Mutex<BTreeMap<u64, (Weak<State>, Interest)>>,
    shared: Arc<Shared>,
}

impl EditedPoller {
    /// From now on made-up events of `socket` come here; what is owed comes first.
    fn attach(&self, socket: &Socket, token: u64, interest: Interest) {
        let fd = socket.as_fd().map(|fd| fd.as_raw_fd());
        let Some(state) = fd.and_then(|fd| self.shared.sockets.lock().get(&fd).cloned()) else { return };
        let mut states = self.states.lock();
        states.retain(|_, (state, _)| state.strong_count() > 0);
        states.insert(token, (Arc::downgrade(&state), interest));
        let mut left = state.left.lock();
        left.watch = Some((self.tray.clone(), token));
        let first = state.first(interest, &left);
        if let Some(readiness) = first {
            left.tell(readiness);
            match interest {
                Interest::Connect => state.struck_connect(),
                Interest::Stream | Interest::Accept => state.struck_stream(),
            }
        }
        if let Some(owed) = left.owed.take() {
            left.tell(owed);
        }
    }
}

impl ModelPoller for EditedPoller {
    fn add(&self, socket: &Socket, token: u64, interest: Interest) -> Result<(), Errno> {
        self.poller.add(socket, token, interest)?;
        self.attach(socket, token, interest);
        Ok(())
    }

    fn again(&self, socket: &Socket, token: u64) -> Result<(), Errno> {
        self.poller.again(socket, token)?;
        self.attach(socket, token, Interest::Connect);
        Ok(())
    }

    fn remove(&self, socket: &Socket, token: u64) {
        self.poller.remove(socket, token);
        if let Some((state, _)) = self.states.lock().remove(&token)
            && let Some(state) = state.upgrade()
        {
            let mut left = state.left.lock();
            if left.watch.as_ref().is_some_and(|(tray, _)| Arc::ptr_eq(tray, &self.tray)) {
                left.watch = None;
            }
        }
    }

    fn poll(&self, max: usize, ready: &mut Vec<Readiness>) {
        let begin = ready.len();
        {
            let mut made_up = self.tray.made_up.lock();
            let count = made_up.len().min(max);
            ready.extend(made_up.drain(..count));
            if made_up.is_empty() {
                // That it was not rung is no error.
                let _ = rustix::io::read(&self.tray.bell, &mut [0; 8]);
            }
        }
        let of_the_host = ready.len();
        self.poller.poll(true, max - (of_the_host - begin), ready);
        let mut told = ready.split_off(of_the_host);
        let states = self.states.lock();
        told.retain_mut(|event| {
            if let Some((state, interest)) = states.get(&event.token)
                && let Some(state) = state.upgrade()
            {
                state.edit(*interest, event);
            }
            event.token != BELL
        });
        ready.append(&mut told);
    }

    fn wait_fd(&self) -> Option<RawFd> {
        self.poller.wait_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connecting socket and the accepted one, over a Unix socket.
    fn pair(host: &Injecting, script: Script) -> (Result<(), Errno>, Socket, Socket, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let at = Address::kernel_unix(path.to_str().expect("UTF-8")).expect("a short path");
        let socket = || host.socket(&at, &SocketOptions::DEFAULT).expect("a socket");
        let listener = socket();
        listener.bind(&at, false).and_then(|()| listener.listen(1)).expect("it listens");
        host.set(script);
        let client = socket();
        let connected = client.connect(&at);
        let (server, _) = listener.accept().expect("it waits");
        (connected, client, server, dir)
    }

    fn told(poller: &Poller) -> Vec<Readiness> {
        let mut ready = Vec::new();
        poller.poll(true, 8, &mut ready);
        ready
    }

    #[test]
    fn what_says_eagain_without_a_reason_is_told_when_it_can_go_on() {
        let host = Injecting::default();
        let script = Script { connect: ConnectMode::Plain, stream: StreamMode::AgainTwice };
        let (connected, client, server, _dir) = pair(&host, script);
        assert_eq!(connected, Ok(()));
        let poller = host.poller().expect("a poller");
        poller.add(&client, 7, Interest::Stream).expect("it is watched");
        // The host's own edge.
        assert!(told(&poller).iter().all(|event| event.token == 7 && event.writable));
        for _ in 0..2 {
            assert_eq!(client.write(b"x"), Err(Errno::AGAIN));
            assert_eq!(told(&poller), [Readiness { token: 7, ..WRITABLE }]);
            assert_eq!(told(&poller), []);
        }
        assert_eq!(client.write(b"x"), Ok(1));
        assert_eq!(host.strikes(), Strikes { connect: 0, stream: 2 });
        assert_eq!(server.read(&mut [0; 8]), Ok(1));
    }

    #[test]
    fn bytes_come_one_by_one_with_an_event_each() {
        let host = Injecting::default();
        let script = Script { connect: ConnectMode::Plain, stream: StreamMode::Dribble };
        let (_, client, server, _dir) = pair(&host, script);
        let poller = host.poller().expect("a poller");
        poller.add(&server, 3, Interest::Stream).expect("it is watched");
        assert_eq!(client.write(b"abc"), Ok(3));
        let (mut got, mut bytes) = (Vec::new(), [0; 8]);
        while got.len() < 3 {
            assert!(told(&poller).iter().any(|event| event.token == 3 && event.readable), "after {got:?}");
            assert_eq!(server.read(&mut bytes), Ok(1));
            got.push(bytes[0]);
            assert_eq!(server.read(&mut bytes), Err(Errno::AGAIN));
        }
        assert_eq!(got, b"abc");
        told(&poller);
        assert_eq!(server.read(&mut bytes), Err(Errno::AGAIN), "the host's own");
        assert_eq!(told(&poller), []);
    }

    #[test]
    fn an_early_event_finds_the_connect_under_way_and_the_next_one_does_not() {
        let host = Injecting::default();
        let script = Script { connect: ConnectMode::HangUp, stream: StreamMode::Plain };
        let (connected, client, _server, dir) = pair(&host, script);
        assert_eq!(connected, Err(Errno::INPROGRESS));
        let poller = host.poller().expect("a poller");
        poller.add(&client, 5, Interest::Connect).expect("it is watched");
        let first = told(&poller)[0];
        assert!(first.token == 5 && first.hang_up && !client.is_connected());
        assert_eq!(client.take_error(), None);
        let at = Address::kernel_unix(dir.path().join("s").to_str().expect("UTF-8")).expect("a short path");
        assert_eq!(client.connect(&at), Err(Errno::ALREADY));
        poller.again(&client, 5).expect("it is watched");
        assert!(told(&poller).iter().any(|event| event.hang_up) && client.is_connected());
    }

    #[test]
    fn a_socket_that_is_closed_is_forgotten() {
        let host = Injecting::default();
        let (_, client, server, _dir) = pair(&host, Script::PLAIN);
        let clone = client.try_clone().expect("a clone");
        // The listener is gone.
        assert_eq!(host.open_sockets(), 3);
        drop((client, server));
        assert_eq!(host.open_sockets(), 1);
        drop(clone);
        assert_eq!(host.open_sockets(), 0);
    }
}
