//! The socket calls over a builtin app: a table of descriptors, blocking and not, `errno`.
//!
//! Each call is tried ([`Sockets::attempt`]) inside a callback of the app worker, where sessions can be worked on; one that
//! must wait is tried again after anything has changed. Callbacks (`on_*`) only note what they are told.
//!
//! Here: the table, and opening and closing. `open`: fast open. `stream`: bytes. `ready`: poll and epoll. `options`:
//! socket options. `notices`: the error queue. `inspect`: what is told of a socket as a whole.

mod inspect;
mod notices;
mod open;
mod options;
mod ready;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use hoststack::app::{
    CloseReason, ConnectFailure, ConnectId, Context, Duration, Endpoint, ListenError, ListenOptions,
    ListenerId, SessionHandle, SocketOptions,
};
use parking_lot::Mutex;

use crate::call::{Answer, Call, Out};
use crate::flags::{Flags, Profile};
use crate::settings::Settings;
use crate::watch::Watch;
use options::{Choices, changes};
use ready::Interests;
use stream::{Manner, Stream};

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
    choices: Choices,
    state: State,
}

enum State {
    Fresh,
    Listening(Listening),
    /// TCP_FASTOPEN_CONNECT: the first write opens it, to this peer.
    Deferred(SocketAddr),
    Connecting(Connecting),
    /// The connect failed with this errno, which nobody has asked for yet.
    Failed(i32),
    Connected(Stream),
}

struct Connecting {
    /// Comes back with the outcome.
    token: u64,
    connect: ConnectId,
    /// Bytes that were written before, with which the connection begins, and how.
    early: u32,
    manner: Manner,
}

struct Listening {
    /// Comes back with what the stack says, and with each session.
    token: u64,
    /// Listen requests that are not answered.
    asked: usize,
    listeners: Vec<ListenerId>,
    failed: Option<ListenError>,
    backlog: u32,
    /// Where it listens: an IPv6 socket may at two places.
    places: Vec<SocketAddr>,
    /// How accepted connections behave, as the stack was told.
    offered: SocketOptions,
    /// Accepted by the stack, not yet by the script.
    queue: VecDeque<Stream>,
}

/// All descriptors.
pub(crate) struct Sockets {
    flags: Flags,
    /// The system's settings, as they are now.
    pub(crate) settings: Settings,
    watch: Arc<Mutex<Watch>>,
    /// Our addresses.
    pub(crate) ours: Vec<IpAddr>,
    descriptors: BTreeMap<i32, Descriptor>,
    pipes: BTreeMap<u64, VecDeque<u8>>,
    /// The last number given to a connect, a listener, a pipe.
    numbers: u64,
    next_port: u16,
    /// Something happened since calls that wait were tried last.
    changed: bool,
}

impl Sockets {
    pub(crate) fn new(flags: Flags, watch: Arc<Mutex<Watch>>) -> Sockets {
        Sockets {
            settings: Settings::new(flags.profile),
            watch,
            ours: vec![flags.local_v4.into(), flags.local_v6.into()],
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

    /// The keys of fast open cookies of the listener that has its own: the stack has one for all, so that of the latest.
    pub(crate) fn fast_open_keys(&mut self) -> [Option<[u8; 16]>; 2] {
        let keys = self.sockets().filter(|(_, socket)| matches!(socket.state, State::Listening(_)));
        keys.map(|(_, socket)| socket.choices.fast_open_keys())
            .rfind(|keys| keys[0].is_some())
            .unwrap_or([None; 2])
    }

    /// Notes which full send buffers have room again: an edge for epoll.
    fn look_for_room(&mut self, ctx: &Context<'_>) {
        let watch = self.watch.clone();
        let watch = watch.lock();
        let system = self.settings.clone();
        let is_linux = self.flags.profile == Profile::Linux;
        let sndbuf_max = system.memory("tcp_wmem", 2).unwrap_or(4 << 20);
        for (activity, socket) in self.sockets() {
            let lowat = socket.choices.notsent_lowat(&system);
            let State::Connected(stream) = &mut socket.state else { continue };
            let flow = watch.flow(&stream.ends);
            if let Ok(stats) = ctx.stats(stream.session) {
                stream.last_stats = Some(stats);
            }
            if let Some((stats, flow)) = stream.last_stats.zip(flow)
                && (stream.was_full || stream.sndbuf == 0)
            {
                let grown = flow.expanded_sndbuf(stats.cwnd, stats.mss.max(1).into());
                stream.sndbuf = stream.sndbuf.max(grown.min(sndbuf_max));
            }
            let sndbuf = socket.choices.sndbuf(stream.sndbuf);
            stream.has_room = match flow {
                Some(flow) if is_linux => flow.is_writable(sndbuf, lowat),
                // A third of the buffer, so that a writer is not woken for every acknowledgment.
                _ => stream.unacknowledged(ctx) * 3 <= sndbuf as usize * 2,
            };
            if stream.was_full && stream.has_room {
                stream.was_full = false;
                *activity += 1;
            }
            if stream.notices.refresh(flow, stream.closed.is_some()) {
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
            Call::Write { fd, data, flags, done, to } => {
                self.send(ctx, *fd, data, *flags, done, *to, expired)
            }
            Call::Fcntl(fd, command, argument) => self.fcntl(*fd, *command, *argument),
            Call::Ioctl(fd, request, argument) => self.ioctl(ctx, *fd, *request, *argument),
            Call::Close(fd) => self.close(ctx, *fd),
            Call::Shutdown(fd, how) => self.shutdown(ctx, *fd, *how),
            Call::GetOption(fd, level, name, room) => self.option(Some(ctx), *fd, *level, *name, *room),
            Call::SetOption(fd, level, name, value) => self.set_option(Some(ctx), *fd, *level, *name, value),
            Call::Poll(asked, timeout_ms) => self.poll(ctx, asked, *timeout_ms, expired),
            Call::EpollCreate => self.insert(false, Kind::Epoll(Interests::default())).map(number),
            Call::EpollCtl(epoll, op, fd, events, data) => self.epoll_ctl(*epoll, *op, *fd, *events, *data),
            Call::EpollWait(epoll, max, timeout_ms) => {
                self.epoll_wait(ctx, *epoll, *max, *timeout_ms, expired)
            }
            Call::Pipe => self.pipe(),
            Call::Splice(from, to, len, flags) => self.splice(ctx, *from, *to, *len, *flags, expired),
            // The driver answers these itself.
            Call::System(_)
            | Call::Await(_)
            | Call::NetSend(_)
            | Call::NetReceive
            | Call::Sleep(_)
            | Call::Clock
            | Call::Free => Err(Stop::Errno(libc::ENOSYS)),
        }
    }

    /// Answers a call that needs no stack; `None`: it does.
    pub(crate) fn without_stack(&mut self, call: &Call) -> Option<Answer> {
        let result = match call {
            Call::Socket(domain, kind, protocol) => self.socket(*domain, *kind, *protocol),
            Call::Bind(fd, addr) => self.bind(*fd, *addr),
            Call::Fcntl(fd, command, argument) => self.fcntl(*fd, *command, *argument),
            Call::GetOption(fd, level, name, room) => self.option(None, *fd, *level, *name, *room),
            Call::SetOption(fd, level, name, value) => self.set_option(None, *fd, *level, *name, value),
            _ => return None,
        };
        match result {
            Ok(answer) => Some(answer),
            Err(Stop::Errno(errno)) => Some(Answer::error(errno)),
            // None of these waits.
            Err(Stop::Wait(_)) => None,
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

    fn sockets(&mut self) -> impl DoubleEndedIterator<Item = (&mut u64, &mut Socket)> {
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
        let system = self.settings.clone();
        for (activity, socket) in self.sockets() {
            let wanted = socket.choices.accepted_options(&system);
            if let State::Listening(listening) = &mut socket.state
                && listening.token == token
            {
                // What was set on the listener since it was told to the stack.
                for change in changes(&listening.offered, &wanted) {
                    ctx.set_option(session, change);
                }
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
            let State::Connecting(connecting) = &mut socket.state else { continue };
            if connecting.token != token {
                continue;
            }
            *activity += 1;
            let (early, manner) = (connecting.early, connecting.manner);
            socket.state = match outcome {
                Ok(session) => {
                    let mut stream = Stream::of(ctx, session);
                    stream.begin_with(early, manner);
                    State::Connected(stream)
                }
                Err(failure) => State::Failed(errno_of(failure)),
            };
            return;
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
        self.note(session, |stream| {
            stream.closed_first = stream.writes_over;
            stream.peer_closed = true;
        });
    }

    pub(crate) fn on_reset(&mut self, session: SessionHandle, reason: CloseReason) {
        self.note(session, |stream| stream.cut_off(reason));
    }

    /// A command ends the connection.
    pub(crate) fn on_dropped(&mut self, session: SessionHandle) {
        self.note(session, |stream| stream.error = Some(libc::ECONNABORTED));
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
        let choices = Choices::new(&self.flags, &self.settings);
        let socket = Socket { is_v6, bound: None, choices, state: State::Fresh };
        self.insert(nonblocking, Kind::Socket(Box::new(socket))).map(number)
    }

    fn bind(&mut self, fd: i32, addr: SocketAddr) -> Result<Answer, Stop> {
        let ours = self.ours.clone();
        let port = if addr.port() == 0 { self.free_port() } else { addr.port() };
        let socket = self.get(fd)?.0;
        if socket.bound.is_some() || !matches!(socket.state, State::Fresh) {
            return Err(Stop::Errno(libc::EINVAL));
        }
        if addr.is_ipv6() != socket.is_v6 {
            return Err(Stop::Errno(if socket.is_v6 { libc::EINVAL } else { libc::EAFNOSUPPORT }));
        }
        let ip = addr.ip().to_canonical();
        let binds_any = socket.choices.kept(libc::IPPROTO_IP, libc::IP_FREEBIND) != 0;
        if !ip.is_unspecified() && !ours.contains(&ip) && !binds_any {
            return Err(Stop::Errno(libc::EADDRNOTAVAIL));
        }
        let shares = socket.choices.reuse_address;
        let is_taken = self.sockets().any(|(_, other)| {
            let is_same = other.bound.is_some_and(|bound| {
                bound.port() == port
                    && (bound.ip() == addr.ip() || bound.ip().is_unspecified() || ip.is_unspecified())
            });
            is_same && (matches!(other.state, State::Listening(_)) || !shares || !other.choices.reuse_address)
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
            // A script that asks again may change the backlog: what was announced stays.
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
        if socket.is_v6 && bound.ip().is_unspecified() && !socket.choices.v6_only {
            places.push(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), bound.port()));
        }
        // As in Linux, no backlog means room for one.
        let backlog = u32::try_from(backlog).map_or(4096, |backlog| backlog.max(1));
        socket.state = State::Listening(Listening {
            token,
            asked: 0,
            listeners: Vec::new(),
            failed: None,
            backlog,
            offered: SocketOptions::DEFAULT,
            places,
            queue: VecDeque::new(),
        });
        self.announce(ctx, fd)?;
        Err(Stop::Wait(None))
    }

    /// Tells the stack of a listener, as it is now.
    fn announce(&mut self, ctx: &mut Context<'_>, fd: i32) -> Result<(), Stop> {
        let system = self.settings.clone();
        let socket = self.get(fd)?.0;
        let (fifos, options) = (socket.choices.fifos(), socket.choices.accepted_options(&system));
        let State::Listening(listening) = &mut socket.state else { return Ok(()) };
        listening.offered = options;
        for place in &listening.places {
            let options = ListenOptions {
                backlog: listening.backlog,
                opaque: listening.token,
                fifos,
                socket: options,
                ..ListenOptions::on(Endpoint::from(*place))
            };
            ctx.listen(options).map_err(|_| Stop::Errno(libc::EINVAL))?;
            listening.asked += 1;
        }
        Ok(())
    }

    /// Tells the stack again of a listener that was set to behave otherwise in its handshakes.
    fn relisten(&mut self, ctx: &mut Context<'_>, fd: i32) {
        let system = self.settings.clone();
        let Ok((socket, _)) = self.get(fd) else { return };
        let wanted = socket.choices.accepted_options(&system);
        if let State::Listening(listening) = &mut socket.state
            && listening.asked == 0
            && handshake(&listening.offered) != handshake(&wanted)
        {
            listening.listeners.drain(..).for_each(|listener| ctx.unlisten(listener));
            // Refused only when it is detaching: then nothing matters.
            let _ = self.announce(ctx, fd);
        }
    }

    fn accept(&mut self, fd: i32, expired: bool) -> Result<Answer, Stop> {
        let (socket, nonblocking) = self.get(fd)?;
        let State::Listening(listening) = &mut socket.state else { return Err(Stop::Errno(libc::EINVAL)) };
        let Some(mut stream) = listening.queue.pop_front() else {
            return Err(wait_unless(nonblocking || expired, socket.choices.receive_timeout));
        };
        stream.is_known = true;
        let remote = if socket.is_v6 { mapped(stream.remote) } else { stream.remote };
        let accepted = Socket {
            is_v6: socket.is_v6,
            bound: socket.bound,
            choices: socket.choices.clone(),
            state: State::Connected(stream),
        };
        let fd = self.insert(false, Kind::Socket(Box::new(accepted)))?;
        Ok(Answer::with(fd.into(), Out::Address(remote)))
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
            let cut_off = socket.choices.linger == Some(Duration::ZERO);
            if let State::Connected(stream) = &socket.state
                && stream.closed.is_none()
                && self.flags.profile == Profile::FreeBsd
            {
                // FreeBSD throws away what is unread and closes as usual.
                ctx.consume(stream.session, stream.unread(ctx));
            }
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
            State::Fresh | State::Failed(_) | State::Deferred(_) => {
                return Err(Stop::Errno(libc::ENOTCONN));
            }
            // As Linux does: a reader's end of a listener ends it, an attempt that is shut down fails.
            State::Listening(_) if !reads => {}
            State::Listening(_) | State::Connecting(_) => {
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

/// What of a listener's options counts before there is a connection.
fn handshake(options: &SocketOptions) -> (bool, bool, Option<u16>) {
    (options.fast_open, options.fast_open_no_cookie, options.mss_max)
}

/// Gives up what a socket was: orderly, or at once if asked for or if bytes stay unread (RFC 2525 §2.17).
fn abandon(ctx: &mut Context<'_>, state: State, cut_off: bool) {
    match state {
        State::Fresh | State::Failed(_) | State::Deferred(_) => {}
        State::Listening(listening) => {
            listening.listeners.iter().for_each(|listener| ctx.unlisten(*listener));
            listening.queue.iter().for_each(|stream| ctx.reset(stream.session));
        }
        State::Connecting(connecting) => ctx.cancel(connecting.connect),
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
        ConnectFailure::System(errno) => errno,
        ConnectFailure::Stage(_) => libc::EPROTO,
    }
}
