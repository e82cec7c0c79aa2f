//! The socket calls over a builtin app: a table of descriptors, blocking and not, `errno`.
//!
//! Each call is tried ([`Sockets::attempt`]) inside a callback of the app worker, where sessions can be worked on; one that
//! must wait is tried again after anything has changed. Callbacks (`on_*`) only note what they are told.
//!
//! Here: the table, and opening and closing. `stream`: bytes. `ready`: poll and epoll. `options`: socket options.

mod options;
mod ready;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use hoststack::app::{
    CloseReason, ConnectFailure, ConnectId, ConnectOptions, Context, Duration, Endpoint, ListenError,
    ListenOptions, ListenerId, SessionHandle, SocketOptions,
};

use crate::call::{Answer, Call, Out};
use crate::flags::Flags;
use options::Settings;
use ready::Interests;
use stream::Stream;

/// Longer than the stack itself tries (183 s): its own timers end a connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(600);
/// Ports for sockets that are bound to none.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// What came of trying a call.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// It is answered.
    Done(Answer),
    /// It must wait, at most this long.
    Wait(Option<Duration>),
}

/// Why a call is not done.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Errno(i32),
    Wait(Option<Duration>),
}

/// What a place-holder descriptor stands for.
enum Kind {
    Socket(Box<Socket>),
    Epoll(Interests),
    /// An end of a pipe, by its number.
    Pipe {
        number: u64,
        is_reader: bool,
    },
}

struct Descriptor {
    /// A real descriptor of the process, so that no other has the number.
    placeholder: OwnedFd,
    nonblocking: bool,
    /// Counts what happened to it: edges for epoll.
    activity: u64,
    kind: Kind,
}

struct Socket {
    is_v6: bool,
    bound: Option<SocketAddr>,
    settings: Settings,
    state: State,
}

enum State {
    Fresh,
    Listening(Listening),
    /// Under the number that comes back with the outcome.
    Connecting(u64, ConnectId),
    /// The connect failed with this errno, which nobody has asked for yet.
    Failed(i32),
    Connected(Stream),
}

struct Listening {
    /// Comes back with what the stack says, and with each session.
    token: u64,
    /// Listen requests that are not answered.
    asked: usize,
    listeners: Vec<ListenerId>,
    failed: Option<ListenError>,
    /// Accepted by the stack, not yet by the script.
    queue: VecDeque<Stream>,
}

/// All descriptors.
pub(crate) struct Sockets {
    flags: Flags,
    descriptors: BTreeMap<i32, Descriptor>,
    pipes: BTreeMap<u64, VecDeque<u8>>,
    /// The last number given to a connect, a listener, a pipe.
    numbers: u64,
    next_port: u16,
    /// Something happened since calls that wait were tried last.
    changed: bool,
}

impl Sockets {
    pub(crate) fn new(flags: Flags) -> Sockets {
        Sockets {
            flags,
            descriptors: BTreeMap::new(),
            pipes: BTreeMap::new(),
            numbers: 0,
            next_port: *EPHEMERAL.start(),
            changed: false,
        }
    }

    /// Whether anything happened since this was asked last.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Leaves all place holders open: packetdrill has closed them itself, behind our back.
    pub(crate) fn forget_descriptors(&mut self) {
        for descriptor in std::mem::take(&mut self.descriptors).into_values() {
            let _ = descriptor.placeholder.into_raw_fd();
        }
    }

    /// The session of a socket that is connected, if it is.
    ///
    /// # Errors
    /// An errno: EBADF, ENOTSOCK.
    pub(crate) fn session(&mut self, fd: i32) -> Result<Option<SessionHandle>, i32> {
        match self.get(fd) {
            Ok((socket, _)) => match &socket.state {
                State::Connected(stream) => Ok(Some(stream.session)),
                _ => Ok(None),
            },
            Err(Stop::Errno(errno)) => Err(errno),
            Err(Stop::Wait(_)) => Ok(None),
        }
    }

    /// Notes which full send buffers have room again: an edge for epoll.
    fn look_for_room(&mut self, ctx: &Context<'_>) {
        for (activity, socket) in self.sockets() {
            let sndbuf = socket.settings.sndbuf();
            if let State::Connected(stream) = &mut socket.state
                && stream.was_full
                && stream.is_writable(ctx, sndbuf)
            {
                stream.was_full = false;
                *activity += 1;
            }
        }
    }

    /// Tries a call; `expired` when it has waited as long as it may.
    pub(crate) fn attempt(&mut self, ctx: &mut Context<'_>, call: &mut Call, expired: bool) -> Attempt {
        self.look_for_room(ctx);
        match self.call(ctx, call, expired) {
            Ok(answer) => Attempt::Done(answer),
            Err(Stop::Errno(errno)) => Attempt::Done(Answer::error(errno)),
            Err(Stop::Wait(timeout)) => Attempt::Wait(timeout),
        }
    }

    fn call(&mut self, ctx: &mut Context<'_>, call: &mut Call, expired: bool) -> Result<Answer, Stop> {
        match call {
            Call::Socket(domain, kind, protocol) => self.socket(*domain, *kind, *protocol),
            Call::Bind(fd, addr) => self.bind(*fd, *addr),
            Call::Listen(fd, backlog) => self.listen(ctx, *fd, *backlog),
            Call::Accept(fd) => self.accept(*fd, expired),
            Call::Connect(fd, Some(to)) => self.connect(ctx, *fd, *to, expired),
            Call::Connect(fd, None) => self.disconnect(ctx, *fd),
            Call::Read { fd, len, flags } => self.read(ctx, *fd, *len, *flags, expired),
            Call::Write { fd, data, flags, done } => self.write(ctx, *fd, data, *flags, done, expired),
            Call::Fcntl(fd, command, argument) => self.fcntl(*fd, *command, *argument),
            Call::Ioctl(fd, request, argument) => self.ioctl(ctx, *fd, *request, *argument),
            Call::Close(fd) => self.close(ctx, *fd),
            Call::Shutdown(fd, how) => self.shutdown(ctx, *fd, *how),
            Call::GetOption(fd, level, name) => self.option(*fd, *level, *name),
            Call::SetOption(fd, level, name, value) => self.set_option(*fd, *level, *name, value),
            Call::Poll(asked, timeout_ms) => self.poll(ctx, asked, *timeout_ms, expired),
            Call::EpollCreate => self.insert(false, Kind::Epoll(Interests::default())).map(number),
            Call::EpollCtl(epoll, op, fd, events, data) => self.epoll_ctl(*epoll, *op, *fd, *events, *data),
            Call::EpollWait(epoll, max, timeout_ms) => {
                self.epoll_wait(ctx, *epoll, *max, *timeout_ms, expired)
            }
            Call::Pipe => self.pipe(),
            Call::Splice(from, to, len, flags) => self.splice(ctx, *from, *to, *len, *flags, expired),
            // The driver answers these itself.
            Call::TcpInfo(..)
            | Call::NetSend(_)
            | Call::NetReceive
            | Call::Sleep(_)
            | Call::Clock
            | Call::Free => Err(Stop::Errno(libc::ENOSYS)),
        }
    }

    // ---- The table ----

    fn insert(&mut self, nonblocking: bool, kind: Kind) -> Result<i32, Stop> {
        let placeholder: OwnedFd = File::open("/dev/null").map_err(|_| Stop::Errno(libc::EMFILE))?.into();
        let fd = placeholder.as_raw_fd();
        // What was there before was closed behind our back.
        if let Some(old) = self.descriptors.remove(&fd) {
            let _ = old.placeholder.into_raw_fd();
        }
        self.descriptors.insert(fd, Descriptor { placeholder, nonblocking, activity: 0, kind });
        Ok(fd)
    }

    fn descriptor(&mut self, fd: i32) -> Result<&mut Descriptor, Stop> {
        self.descriptors.get_mut(&fd).ok_or(Stop::Errno(libc::EBADF))
    }

    /// A socket, and whether its calls must not wait.
    fn get(&mut self, fd: i32) -> Result<(&mut Socket, bool), Stop> {
        let descriptor = self.descriptor(fd)?;
        match &mut descriptor.kind {
            Kind::Socket(socket) => Ok((socket, descriptor.nonblocking)),
            Kind::Epoll(_) | Kind::Pipe { .. } => Err(Stop::Errno(libc::ENOTSOCK)),
        }
    }

    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn sockets(&mut self) -> impl Iterator<Item = (&mut u64, &mut Socket)> {
        self.descriptors.values_mut().filter_map(|descriptor| match &mut descriptor.kind {
            Kind::Socket(socket) => Some((&mut descriptor.activity, &mut **socket)),
            Kind::Epoll(_) | Kind::Pipe { .. } => None,
        })
    }

    /// The stream of a session, accepted by the script or not.
    fn note(&mut self, session: SessionHandle, note: impl FnOnce(&mut Stream)) {
        self.changed = true;
        for (activity, socket) in self.sockets() {
            let stream = match &mut socket.state {
                State::Connected(stream) if stream.session == session => Some(stream),
                State::Listening(listening) => {
                    listening.queue.iter_mut().find(|stream| stream.session == session)
                }
                _ => None,
            };
            if let Some(stream) = stream {
                *activity += 1;
                note(stream);
                return;
            }
        }
        // The script has closed it: nobody wants to know.
    }

    // ---- What the app is told ----

    pub(crate) fn on_listening(&mut self, token: u64, result: Result<ListenerId, ListenError>) {
        self.changed = true;
        for (_, socket) in self.sockets() {
            if let State::Listening(listening) = &mut socket.state
                && listening.token == token
            {
                listening.asked -= 1;
                match result {
                    Ok(listener) => listening.listeners.push(listener),
                    Err(error) => listening.failed = Some(error),
                }
            }
        }
    }

    pub(crate) fn on_accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.changed = true;
        let token = ctx.opaque(session);
        let stream = Stream::of(ctx, session);
        for (activity, socket) in self.sockets() {
            if let State::Listening(listening) = &mut socket.state
                && listening.token == token
            {
                *activity += 1;
                listening.queue.push_back(stream);
                return;
            }
        }
        // The listener was closed in the meantime.
        ctx.reset(session);
    }

    pub(crate) fn on_connected(
        &mut self,
        ctx: &mut Context<'_>,
        token: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        self.changed = true;
        for (activity, socket) in self.sockets() {
            if matches!(socket.state, State::Connecting(number, _) if number == token) {
                *activity += 1;
                socket.state = match outcome {
                    Ok(session) => State::Connected(Stream::of(ctx, session)),
                    Err(failure) => State::Failed(errno_of(failure)),
                };
                return;
            }
        }
        // The socket was closed before.
        if let Ok(session) = outcome {
            ctx.reset(session);
        }
    }

    pub(crate) fn on_activity(&mut self, session: SessionHandle) {
        self.note(session, |_| {});
    }

    pub(crate) fn on_peer_closed(&mut self, session: SessionHandle) {
        self.note(session, |stream| stream.peer_closed = true);
    }

    pub(crate) fn on_reset(&mut self, session: SessionHandle, reason: CloseReason) {
        self.note(session, |stream| stream.cut_off(reason));
    }

    pub(crate) fn on_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, reason: CloseReason) {
        self.note(session, |stream| stream.end(ctx, reason));
    }

    // ---- Opening and closing ----

    fn socket(&mut self, domain: i32, kind: i32, protocol: i32) -> Result<Answer, Stop> {
        let is_v6 = match domain {
            libc::AF_INET => false,
            libc::AF_INET6 => true,
            _ => return Err(Stop::Errno(libc::EAFNOSUPPORT)),
        };
        let nonblocking = kind & libc::SOCK_NONBLOCK != 0;
        let kind = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        if kind != libc::SOCK_STREAM || ![0, libc::IPPROTO_TCP].contains(&protocol) {
            return Err(Stop::Errno(libc::EPROTONOSUPPORT));
        }
        let settings = Settings::new(&self.flags);
        let socket = Socket { is_v6, bound: None, settings, state: State::Fresh };
        self.insert(nonblocking, Kind::Socket(Box::new(socket))).map(number)
    }

    fn bind(&mut self, fd: i32, addr: SocketAddr) -> Result<Answer, Stop> {
        let ours = [IpAddr::from(self.flags.local_v4), IpAddr::from(self.flags.local_v6)];
        let port = if addr.port() == 0 { self.free_port() } else { addr.port() };
        let socket = self.get(fd)?.0;
        if socket.bound.is_some() || !matches!(socket.state, State::Fresh) {
            return Err(Stop::Errno(libc::EINVAL));
        }
        if addr.is_ipv6() != socket.is_v6 {
            return Err(Stop::Errno(if socket.is_v6 { libc::EINVAL } else { libc::EAFNOSUPPORT }));
        }
        let ip = addr.ip().to_canonical();
        if !ip.is_unspecified() && !ours.contains(&ip) {
            return Err(Stop::Errno(libc::EADDRNOTAVAIL));
        }
        let shares = socket.settings.reuse_address;
        let is_taken = self.sockets().any(|(_, other)| {
            let is_same = other.bound.is_some_and(|bound| {
                bound.port() == port
                    && (bound.ip() == addr.ip() || bound.ip().is_unspecified() || ip.is_unspecified())
            });
            is_same
                && (matches!(other.state, State::Listening(_)) || !shares || !other.settings.reuse_address)
        });
        if is_taken {
            return Err(Stop::Errno(libc::EADDRINUSE));
        }
        self.get(fd)?.0.bound = Some(SocketAddr::new(addr.ip(), port));
        Ok(Answer::number(0))
    }

    fn free_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = if port == *EPHEMERAL.end() { *EPHEMERAL.start() } else { port + 1 };
        port
    }

    fn listen(&mut self, ctx: &mut Context<'_>, fd: i32, backlog: i32) -> Result<Answer, Stop> {
        let (token, port) = (self.next_number(), self.free_port());
        let socket = self.get(fd)?.0;
        match &socket.state {
            State::Listening(listening) if listening.asked > 0 => return Err(Stop::Wait(None)),
            State::Listening(listening) => {
                let Some(error) = listening.failed else { return Ok(Answer::number(0)) };
                listening.listeners.iter().for_each(|listener| ctx.unlisten(*listener));
                socket.state = State::Fresh;
                return Err(Stop::Errno(match error {
                    ListenError::InUse => libc::EADDRINUSE,
                    ListenError::AddressNotAvailable => libc::EADDRNOTAVAIL,
                    ListenError::NoRoom => libc::ENOBUFS,
                    _ => libc::EINVAL,
                }));
            }
            State::Fresh => {}
            _ => return Err(Stop::Errno(libc::EINVAL)),
        }
        let any: IpAddr = if socket.is_v6 { IpAddr::from([0_u16; 8]) } else { Ipv4Addr::UNSPECIFIED.into() };
        let bound = *socket.bound.get_or_insert(SocketAddr::new(any, port));
        let mut places = vec![SocketAddr::new(bound.ip().to_canonical(), bound.port())];
        if socket.is_v6 && bound.ip().is_unspecified() && !socket.settings.v6_only {
            places.push(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), bound.port()));
        }
        for place in &places {
            let options = ListenOptions {
                // As in Linux, no backlog means room for one.
                backlog: u32::try_from(backlog).map_or(4096, |backlog| backlog.max(1)),
                opaque: token,
                fifos: socket.settings.fifos(),
                socket: SocketOptions { nodelay: socket.settings.nodelay, ..SocketOptions::DEFAULT },
                ..ListenOptions::on(Endpoint::from(*place))
            };
            ctx.listen(options).map_err(|_| Stop::Errno(libc::EINVAL))?;
        }
        socket.state = State::Listening(Listening {
            token,
            asked: places.len(),
            listeners: Vec::new(),
            failed: None,
            queue: VecDeque::new(),
        });
        Err(Stop::Wait(None))
    }

    fn accept(&mut self, fd: i32, expired: bool) -> Result<Answer, Stop> {
        let (socket, nonblocking) = self.get(fd)?;
        let State::Listening(listening) = &mut socket.state else { return Err(Stop::Errno(libc::EINVAL)) };
        let Some(mut stream) = listening.queue.pop_front() else {
            return Err(wait_unless(nonblocking || expired, socket.settings.receive_timeout));
        };
        stream.is_known = true;
        let remote = if socket.is_v6 { mapped(stream.remote) } else { stream.remote };
        let accepted = Socket {
            is_v6: socket.is_v6,
            bound: socket.bound,
            settings: socket.settings.clone(),
            state: State::Connected(stream),
        };
        let fd = self.insert(false, Kind::Socket(Box::new(accepted)))?;
        Ok(Answer::with(fd.into(), Out::Address(remote)))
    }

    fn connect(
        &mut self,
        ctx: &mut Context<'_>,
        fd: i32,
        to: SocketAddr,
        expired: bool,
    ) -> Result<Answer, Stop> {
        let token = self.next_number();
        let (socket, nonblocking) = self.get(fd)?;
        match &mut socket.state {
            State::Fresh => {}
            State::Listening(_) => return Err(Stop::Errno(libc::EISCONN)),
            State::Connecting(..) if nonblocking => return Err(Stop::Errno(libc::EALREADY)),
            State::Connecting(..) => {
                return Err(wait_or(expired, libc::EINPROGRESS, socket.settings.send_timeout));
            }
            State::Failed(errno) => {
                let errno = *errno;
                socket.state = State::Fresh;
                return Err(Stop::Errno(errno));
            }
            State::Connected(stream) if stream.is_known => return Err(Stop::Errno(libc::EISCONN)),
            State::Connected(stream) => {
                stream.is_known = true;
                return Ok(Answer::number(0));
            }
        }
        let remote = SocketAddr::new(to.ip().to_canonical(), to.port());
        if to.is_ipv6() != socket.is_v6 {
            return Err(Stop::Errno(libc::EAFNOSUPPORT));
        }
        let bound = socket.bound.map(|bound| (bound.ip().to_canonical(), bound.port()));
        let connect = ConnectOptions {
            local_addr: bound.map(|(ip, _)| ip).filter(|ip| !ip.is_unspecified()),
            local_port: bound.map_or(0, |(_, port)| port),
            timeout: CONNECT_TIMEOUT,
            opaque: token,
            fifos: socket.settings.fifos(),
            socket: SocketOptions { nodelay: socket.settings.nodelay, ..SocketOptions::DEFAULT },
            ..ConnectOptions::to(remote)
        };
        let connect = ctx.connect(connect).map_err(|_| Stop::Errno(libc::EINVAL))?;
        socket.state = State::Connecting(token, connect);
        Err(wait_or(nonblocking, libc::EINPROGRESS, socket.settings.send_timeout))
    }

    /// `connect` with AF_UNSPEC: the socket is as new; what it had is cut off.
    fn disconnect(&mut self, ctx: &mut Context<'_>, fd: i32) -> Result<Answer, Stop> {
        let socket = self.get(fd)?.0;
        let state = std::mem::replace(&mut socket.state, State::Fresh);
        abandon(ctx, state, true);
        self.changed = true;
        Ok(Answer::number(0))
    }

    fn close(&mut self, ctx: &mut Context<'_>, fd: i32) -> Result<Answer, Stop> {
        // Closes the place holder as well, when it is dropped.
        let descriptor = self.descriptors.remove(&fd).ok_or(Stop::Errno(libc::EBADF))?;
        for other in self.descriptors.values_mut() {
            if let Kind::Epoll(interests) = &mut other.kind {
                interests.forget(fd);
            }
        }
        if let Kind::Socket(socket) = descriptor.kind {
            let cut_off = socket.settings.linger == Some(Duration::ZERO);
            abandon(ctx, socket.state, cut_off);
        }
        self.changed = true;
        Ok(Answer::number(0))
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>, fd: i32, how: i32) -> Result<Answer, Stop> {
        let (reads, writes) = match how {
            libc::SHUT_RD => (true, false),
            libc::SHUT_WR => (false, true),
            libc::SHUT_RDWR => (true, true),
            _ => return Err(Stop::Errno(libc::EINVAL)),
        };
        let socket = self.get(fd)?.0;
        match &mut socket.state {
            State::Fresh | State::Failed(_) => return Err(Stop::Errno(libc::ENOTCONN)),
            // As Linux does: a reader's end of a listener ends it, an attempt that is shut down fails.
            State::Listening(_) if !reads => {}
            State::Listening(_) | State::Connecting(..) => {
                let state = std::mem::replace(&mut socket.state, State::Fresh);
                abandon(ctx, state, true);
            }
            State::Connected(stream) if stream.closed.is_some() => return Err(Stop::Errno(libc::ENOTCONN)),
            State::Connected(stream) => {
                stream.reads_over |= reads;
                if writes && !stream.writes_over {
                    stream.writes_over = true;
                    ctx.half_close(stream.session);
                }
            }
        }
        self.changed = true;
        Ok(Answer::number(0))
    }

    fn fcntl(&mut self, fd: i32, command: i32, argument: i32) -> Result<Answer, Stop> {
        let descriptor = self.descriptor(fd)?;
        match command {
            libc::F_GETFL if descriptor.nonblocking => Ok(number(libc::O_RDWR | libc::O_NONBLOCK)),
            libc::F_GETFL => Ok(number(libc::O_RDWR)),
            libc::F_SETFL => {
                descriptor.nonblocking = argument & libc::O_NONBLOCK != 0;
                Ok(Answer::number(0))
            }
            libc::F_GETFD | libc::F_SETFD => Ok(Answer::number(0)),
            _ => Err(Stop::Errno(libc::EINVAL)),
        }
    }

    fn ioctl(&mut self, ctx: &mut Context<'_>, fd: i32, request: u64, argument: i32) -> Result<Answer, Stop> {
        if request == libc::FIONBIO {
            self.descriptor(fd)?.nonblocking = argument != 0;
            return Ok(Answer::number(0));
        }
        let socket = self.get(fd)?.0;
        let count = match (&socket.state, request) {
            (State::Connected(stream), libc::FIONREAD) => stream.unread(ctx),
            (State::Connected(stream), libc::TIOCOUTQ) => stream.unacknowledged(ctx),
            (State::Listening(_), libc::FIONREAD | libc::TIOCOUTQ) => return Err(Stop::Errno(libc::EINVAL)),
            (_, libc::FIONREAD | libc::TIOCOUTQ) => 0,
            _ => return Err(Stop::Errno(libc::ENOTTY)),
        };
        Ok(Answer::with(0, Out::Int(i32::try_from(count).unwrap_or(i32::MAX))))
    }

    fn pipe(&mut self) -> Result<Answer, Stop> {
        let number = self.next_number();
        let reader = self.insert(false, Kind::Pipe { number, is_reader: true })?;
        let writer = self.insert(false, Kind::Pipe { number, is_reader: false })?;
        self.pipes.insert(number, VecDeque::new());
        Ok(Answer::with(0, Out::Pair([reader, writer])))
    }
}

/// Gives up what a socket was: orderly, or at once if asked for or if bytes stay unread (RFC 2525 §2.17).
fn abandon(ctx: &mut Context<'_>, state: State, cut_off: bool) {
    match state {
        State::Fresh | State::Failed(_) => {}
        State::Listening(listening) => {
            listening.listeners.iter().for_each(|listener| ctx.unlisten(*listener));
            listening.queue.iter().for_each(|stream| ctx.reset(stream.session));
        }
        State::Connecting(_, connect) => ctx.cancel(connect),
        State::Connected(stream) if stream.closed.is_some() => {}
        State::Connected(stream) if cut_off || stream.unread(ctx) > 0 => ctx.reset(stream.session),
        State::Connected(stream) => ctx.close(stream.session),
    }
}

fn number(number: i32) -> Answer {
    Answer::number(number.into())
}

/// An address as an IPv6 socket tells it.
fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// Waits, or says EAGAIN.
fn wait_unless(must_not: bool, timeout: Option<Duration>) -> Stop {
    wait_or(must_not, libc::EAGAIN, timeout)
}

fn wait_or(must_not: bool, errno: i32, timeout: Option<Duration>) -> Stop {
    if must_not { Stop::Errno(errno) } else { Stop::Wait(timeout) }
}

fn errno_of(failure: ConnectFailure) -> i32 {
    match failure {
        ConnectFailure::Refused => libc::ECONNREFUSED,
        ConnectFailure::TimedOut => libc::ETIMEDOUT,
        ConnectFailure::Unreachable => libc::EHOSTUNREACH,
        ConnectFailure::Cancelled | ConnectFailure::Detached => libc::ECONNABORTED,
        ConnectFailure::AddressInUse | ConnectFailure::AddressNotAvailable => libc::EADDRNOTAVAIL,
        ConnectFailure::NoRoom => libc::ENOBUFS,
    }
}
