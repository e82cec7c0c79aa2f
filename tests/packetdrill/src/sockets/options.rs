//! Socket options: what is set on a socket, what that means for its connection, and what `getsockopt` says.
//!
//! What has a counterpart in the stack is a field of [`Choices`] and takes effect when the socket is opened
//! ([`Choices::options`]) or, on a connection that is up, at once. What has none but is harmless is kept and told
//! ([`KEPT`]). All else is refused with ENOPROTOOPT, so that a script fails where it asks for it.

use std::collections::BTreeMap;

use hoststack::app::{
    Algorithm, Context, Duration, EcnMode, Keepalive, SessionOptions, SocketOption, SocketOptions,
};

use super::{Socket, Sockets, State, Stop};
use crate::call::{Answer, Out};
use crate::flags::{Flags, Profile};
use crate::settings::{Settings, algorithm, algorithm_name};

/// Linux's least SO_SNDBUF and SO_RCVBUF, doubled (socket(7)).
const SNDBUF_MIN: u32 = 4608;
const RCVBUF_MIN: u32 = 2304;
/// The MSS of a socket that is not connected.
const MSS_DEFAULT: i32 = 536;

/// The stack's send fifo: more than any SO_SNDBUF, which scripts change while a connection is up; a stack's fifo stays as it
/// was made.
pub(super) const TX_CAPACITY: u32 = 1 << 30;

const SOCKET: i32 = libc::SOL_SOCKET;
const TCP: i32 = libc::IPPROTO_TCP;
const IP: i32 = libc::IPPROTO_IP;
const IPV6: i32 = libc::IPPROTO_IPV6;
// Of Linux's tcp.h, which libc does not have.
pub(super) const TCP_FASTOPEN_KEY: i32 = 33;
pub(super) const TCP_FASTOPEN_NO_COOKIE: i32 = 34;
pub(super) const TCP_INQ: i32 = 36;
pub(super) const TCP_TX_DELAY: i32 = 37;

/// Kept and told, without effect: level, name, value at first.
const KEPT: &[(i32, i32, i32)] = &[
    (SOCKET, libc::SO_BROADCAST, 0),
    (SOCKET, libc::SO_BUSY_POLL, 0),
    (SOCKET, libc::SO_DEBUG, 0),
    (SOCKET, libc::SO_DONTROUTE, 0),
    (SOCKET, libc::SO_INCOMING_CPU, -1),
    (SOCKET, libc::SO_MARK, 0),
    (SOCKET, libc::SO_OOBINLINE, 0),
    (SOCKET, libc::SO_PRIORITY, 0),
    (SOCKET, libc::SO_RCVLOWAT, 1),
    (SOCKET, libc::SO_TIMESTAMP, 0),
    (SOCKET, libc::SO_TIMESTAMPNS, 0),
    (SOCKET, libc::SO_TIMESTAMPING, 0),
    (SOCKET, libc::SO_ZEROCOPY, 0),
    (TCP, libc::TCP_DEFER_ACCEPT, 0),
    (TCP, libc::TCP_FASTOPEN, 0),
    (TCP, libc::TCP_FASTOPEN_CONNECT, 0),
    (TCP, TCP_FASTOPEN_NO_COOKIE, 0),
    (TCP, TCP_INQ, 0),
    (TCP, libc::TCP_SAVE_SYN, 0),
    (TCP, libc::TCP_THIN_DUPACK, 0),
    (TCP, libc::TCP_THIN_LINEAR_TIMEOUTS, 0),
    (TCP, libc::TCP_TIMESTAMP, 0),
    (TCP, TCP_TX_DELAY, 0),
    (TCP, libc::TCP_WINDOW_CLAMP, 0),
    (IP, libc::IP_BIND_ADDRESS_NO_PORT, 0),
    (IP, libc::IP_FREEBIND, 0),
    (IP, libc::IP_MINTTL, 0),
    (IP, libc::IP_MTU_DISCOVER, 1),
    (IP, libc::IP_PKTINFO, 0),
    (IP, libc::IP_RECVERR, 0),
    (IP, libc::IP_RECVTOS, 0),
    (IP, libc::IP_RECVTTL, 0),
    (IP, libc::IP_TRANSPARENT, 0),
    (IP, libc::IP_TTL, 64),
    (IPV6, libc::IPV6_FREEBIND, 0),
    (IPV6, libc::IPV6_MTU_DISCOVER, 1),
    (IPV6, libc::IPV6_RECVERR, 0),
    (IPV6, libc::IPV6_RECVHOPLIMIT, 0),
    (IPV6, libc::IPV6_RECVPKTINFO, 0),
    (IPV6, libc::IPV6_RECVTCLASS, 0),
    (IPV6, libc::IPV6_UNICAST_HOPS, 64),
];

/// What can be set on a socket.
#[derive(Clone, Debug)]
pub(super) struct Choices {
    profile: Profile,
    pub(super) reuse_address: bool,
    reuse_port: bool,
    pub(super) v6_only: bool,
    nodelay: bool,
    cork: bool,
    quick_ack: Option<bool>,
    /// `SO_LINGER` when it is on.
    pub(super) linger: Option<Duration>,
    pub(super) receive_timeout: Option<Duration>,
    pub(super) send_timeout: Option<Duration>,
    rcvbuf: u32,
    sndbuf: u32,
    /// The script set it, so it does not grow by itself.
    is_sndbuf_set: bool,
    /// The window offered at first, while the script has not set the receive buffer.
    first_window: Option<u32>,
    /// What `getsockopt` says of the receive buffer, and what SO_SNDBUF takes, over what was set.
    doubling: u32,
    keepalive: Option<bool>,
    probes: Option<Keepalive>,
    user_timeout_ms: u32,
    mss_max: Option<u16>,
    syn_retries: Option<u8>,
    linger2: i32,
    congestion: Option<Algorithm>,
    /// DSCP and ECN bits.
    tos: u8,
    pacing_rate_max: Option<u64>,
    notsent_lowat: Option<u32>,
    fast_open_key: Option<Vec<u8>>,
    kept: BTreeMap<(i32, i32), i32>,
}

impl Choices {
    pub(super) fn new(flags: &Flags, system: &Settings) -> Choices {
        let sndbuf =
            flags.sndbuf.or_else(|| system.memory("tcp_wmem", 1)).or_else(|| system.space("sendspace"));
        Choices {
            profile: flags.profile,
            reuse_address: false,
            reuse_port: false,
            v6_only: false,
            nodelay: false,
            cork: false,
            quick_ack: None,
            linger: None,
            receive_timeout: None,
            send_timeout: None,
            rcvbuf: flags.rcvbuf.or_else(|| system.space("recvspace")).unwrap_or(flags.default_rcvbuf()),
            sndbuf: sndbuf.unwrap_or(flags.default_sndbuf()),
            first_window: flags.rcvbuf.is_none().then(|| flags.first_window()),
            is_sndbuf_set: flags.sndbuf.is_some() || flags.profile == Profile::FreeBsd,
            doubling: if flags.profile == Profile::Linux { 2 } else { 1 },
            keepalive: None,
            probes: None,
            user_timeout_ms: 0,
            mss_max: None,
            syn_retries: None,
            linger2: 0,
            congestion: None,
            tos: 0,
            pacing_rate_max: None,
            notsent_lowat: None,
            fast_open_key: None,
            kept: BTreeMap::new(),
        }
    }

    pub(super) fn fifos(&self) -> SessionOptions {
        SessionOptions { rx_capacity: self.rcvbuf, tx_capacity: TX_CAPACITY, ..SessionOptions::default() }
    }

    /// What may be written and not acknowledged, when a connection's buffer has grown to `grown` by itself.
    pub(super) fn sndbuf(&self, grown: u32) -> u32 {
        if self.is_sndbuf_set { self.sndbuf } else { self.sndbuf.max(grown) }
    }

    /// Unsent bytes above which the socket is not writable.
    pub(super) fn notsent_lowat(&self, system: &Settings) -> u32 {
        match self.notsent_lowat {
            Some(bytes) if bytes > 0 => bytes,
            _ => system.notsent_lowat(),
        }
    }

    /// Whether TCP_CORK is on.
    pub(super) fn is_corked(&self) -> bool {
        self.cork
    }

    /// An option that is kept, by its value; 0 if nobody set it.
    pub(super) fn kept(&self, level: i32, name: i32) -> i32 {
        let default = || KEPT.iter().find(|kept| (kept.0, kept.1) == (level, name)).map_or(0, |kept| kept.2);
        self.kept.get(&(level, name)).copied().unwrap_or_else(default)
    }

    /// The keys of fast open cookies that were set on the socket: the newest, and the one before.
    pub(super) fn fast_open_keys(&self) -> [Option<[u8; 16]>; 2] {
        let bytes = self.fast_open_key.as_deref().unwrap_or(&[]);
        let key = |at: usize| bytes.get(at..at + 16).and_then(|key| key.try_into().ok());
        [key(0), key(16)]
    }

    fn keepalive(&self, system: &Settings) -> Option<Keepalive> {
        let is_on = self.keepalive.unwrap_or(system.socket().keepalive.is_some());
        is_on.then(|| self.probes.unwrap_or(system.keepalive()))
    }

    fn linger_ms(&self) -> Option<u32> {
        self.linger.map(|linger| u32::try_from(linger.as_millis()).unwrap_or(u32::MAX))
    }

    /// The largest segment that the script lets it have.
    pub(super) fn mss_max(&self) -> Option<u16> {
        self.mss_max
    }

    /// How a connection of this socket behaves. `fast_open`: whether data may go with its SYN.
    pub(super) fn options(&self, system: &Settings, fast_open: bool) -> SocketOptions {
        let base = system.socket();
        SocketOptions {
            rx_window_initial: self.first_window.unwrap_or(u32::MAX),
            nodelay: self.nodelay,
            cork: self.cork,
            quick_ack: self.quick_ack.unwrap_or(base.quick_ack),
            keepalive: self.keepalive(system),
            user_timeout_ms: self.user_timeout_ms,
            linger_ms: self.linger_ms(),
            mss_max: self.mss_max,
            syn_retries: self.syn_retries.or(base.syn_retries),
            congestion: self.congestion.unwrap_or(base.congestion),
            dscp: self.tos >> 2,
            // ECT set by hand would be taken for negotiated: RFC 3168 leaves these bits to TCP.
            ecn: if base.ecn == EcnMode::Off { EcnMode::Off } else { base.ecn },
            pacing_rate_max: self.pacing_rate_max.unwrap_or(u64::MAX),
            fast_open,
            // 4: clients need no cookie.
            fast_open_no_cookie: system.fast_open() & 4 != 0 || self.kept(TCP, TCP_FASTOPEN_NO_COOKIE) != 0,
            ..base
        }
    }

    /// The same for an accepted connection.
    pub(super) fn accepted_options(&self, system: &Settings) -> SocketOptions {
        let bits = system.fast_open();
        // 2: servers may; 0x400: all do; a socket asks with the length of its queue.
        let is_open = bits & 2 != 0 && (bits & 0x400 != 0 || self.kept(TCP, libc::TCP_FASTOPEN) > 0);
        let options = self.options(system, is_open);
        // How often SYN-ACKs are repeated is the system's to say, unless the socket does.
        // 0x200: servers want no cookie.
        let fast_open_no_cookie = bits & 0x200 != 0 || self.kept(TCP, TCP_FASTOPEN_NO_COOKIE) != 0;
        SocketOptions { syn_retries: self.syn_retries, fast_open_no_cookie, ..options }
    }

    /// A buffer size as it is set: within the limits, and at least half of what `least` is doubled.
    fn buffer(&self, asked: i32, least: u32) -> u32 {
        u32::try_from(asked).unwrap_or(0).clamp(least / self.doubling, TX_CAPACITY / 2)
    }
}

/// What differs between two ways for a connection to behave, for one that is up.
pub(super) fn changes(from: &SocketOptions, to: &SocketOptions) -> Vec<SocketOption> {
    let mut changes = Vec::new();
    let mut add = |differs: bool, option: SocketOption| {
        if differs {
            changes.push(option);
        }
    };
    add(from.nodelay != to.nodelay, SocketOption::NoDelay(to.nodelay));
    add(from.cork != to.cork, SocketOption::Cork(to.cork));
    add(from.quick_ack != to.quick_ack, SocketOption::QuickAck(to.quick_ack));
    add(from.keepalive != to.keepalive, SocketOption::Keepalive(to.keepalive));
    add(from.user_timeout_ms != to.user_timeout_ms, SocketOption::UserTimeout(to.user_timeout_ms));
    add(from.linger_ms != to.linger_ms, SocketOption::Linger(to.linger_ms));
    add(from.mss_max != to.mss_max, SocketOption::MssMax(to.mss_max.unwrap_or(u16::MAX)));
    add(from.pacing_rate_max != to.pacing_rate_max, SocketOption::PacingRateMax(to.pacing_rate_max));
    add(from.congestion != to.congestion, SocketOption::Congestion(to.congestion));
    add(from.dscp != to.dscp, SocketOption::Dscp(to.dscp));
    changes
}

/// The error of a socket, told once.
fn take_error(socket: &mut Socket) -> i32 {
    match &mut socket.state {
        State::Connected(stream) => stream.error.take().or_else(|| stream.soft_error.take()).unwrap_or(0),
        State::Failed(errno) => {
            let errno = *errno;
            socket.state = State::Fresh;
            errno
        }
        _ => 0,
    }
}

impl Sockets {
    /// `getsockopt`; `room` is how much of the value is wanted.
    pub(super) fn option(
        &mut self,
        ctx: Option<&mut Context<'_>>,
        fd: i32,
        level: i32,
        name: i32,
        room: usize,
    ) -> Result<Answer, Stop> {
        if (level, name) == (TCP, libc::TCP_INFO) {
            let info = self.tcp_info(ctx.as_deref(), fd, room.max(1))?;
            return Ok(value(info, room));
        }
        let stats = match (&self.get(fd)?.0.state, &ctx) {
            (State::Connected(stream), Some(ctx)) => ctx.stats(stream.session).ok(),
            _ => None,
        };
        let system = self.settings.clone();
        let socket = self.get(fd)?.0;
        let choices = &socket.choices;
        let keepalive = choices.probes.unwrap_or(system.keepalive());
        // Cannot cut: counts of seconds, and sizes below 2^31.
        let seconds = |ms: u32| (ms / 1000) as i32;
        let number = match (level, name) {
            (SOCKET, libc::SO_ERROR) => take_error(socket),
            (SOCKET, libc::SO_TYPE) => libc::SOCK_STREAM,
            (SOCKET, libc::SO_PROTOCOL) => libc::IPPROTO_TCP,
            (SOCKET, libc::SO_DOMAIN) if socket.is_v6 => libc::AF_INET6,
            (SOCKET, libc::SO_DOMAIN) => libc::AF_INET,
            (SOCKET, libc::SO_ACCEPTCONN) => matches!(socket.state, State::Listening(_)).into(),
            (SOCKET, libc::SO_REUSEADDR) => choices.reuse_address.into(),
            (SOCKET, libc::SO_REUSEPORT) => choices.reuse_port.into(),
            (SOCKET, libc::SO_RCVBUF) => match choices.first_window {
                None => (choices.rcvbuf * choices.doubling) as i32,
                // As the system says it of a buffer that nobody set: Linux's setting, FreeBSD's that grows on connecting.
                Some(_) if choices.profile == Profile::Linux => {
                    system.memory("tcp_rmem", 1).unwrap_or(131_072) as i32
                }
                Some(grown) if stats.is_some() => grown as i32,
                Some(_) => 1 << 16,
            },
            (SOCKET, libc::SO_SNDBUF) => choices.sndbuf as i32,
            (SOCKET, libc::SO_KEEPALIVE) => choices.keepalive(&system).is_some().into(),
            (SOCKET, libc::SO_MAX_PACING_RATE) => match choices.pacing_rate_max {
                Some(rate) => rate as i32,
                None => -1,
            },
            (TCP, libc::TCP_NODELAY) => choices.nodelay.into(),
            (TCP, libc::TCP_CORK) => choices.cork.into(),
            (TCP, libc::TCP_QUICKACK) => choices.quick_ack.unwrap_or(true).into(),
            (TCP, libc::TCP_KEEPIDLE) => seconds(keepalive.idle_ms),
            (TCP, libc::TCP_KEEPINTVL) => seconds(keepalive.interval_ms),
            (TCP, libc::TCP_KEEPCNT) => keepalive.probes.into(),
            (TCP, libc::TCP_USER_TIMEOUT) => choices.user_timeout_ms as i32,
            (TCP, libc::TCP_SYNCNT) => {
                choices.syn_retries.or(system.socket().syn_retries).unwrap_or(6).into()
            }
            (TCP, libc::TCP_LINGER2) if choices.linger2 == 0 => {
                system.number("net.ipv4.tcp_fin_timeout").unwrap_or(60) as i32
            }
            (TCP, libc::TCP_LINGER2) => choices.linger2,
            (TCP, libc::TCP_MAXSEG) => match stats {
                Some(stats) => stats.mss.into(),
                None => choices.mss_max.map_or(MSS_DEFAULT, i32::from),
            },
            (TCP, libc::TCP_NOTSENT_LOWAT) => choices.notsent_lowat.unwrap_or(0) as i32,
            (TCP, libc::TCP_CC_INFO) => return Ok(value(Vec::new(), room)),
            (TCP, libc::TCP_CONGESTION) => {
                let algorithm = choices.congestion.unwrap_or(system.congestion());
                let mut name = algorithm_name(choices.profile, algorithm).as_bytes().to_vec();
                name.resize(16, 0);
                return Ok(value(name, room));
            }
            (TCP, TCP_FASTOPEN_KEY) => {
                return Ok(value(choices.fast_open_key.clone().unwrap_or_default(), room));
            }
            (IPV6, libc::IPV6_V6ONLY) if socket.is_v6 => choices.v6_only.into(),
            (IP, libc::IP_TOS) | (IPV6, libc::IPV6_TCLASS) => choices.tos.into(),
            (SOCKET, libc::SO_LINGER) => {
                let seconds = choices.linger.map_or(0, |linger| linger.as_secs() as i32);
                let bytes = [i32::from(choices.linger.is_some()), seconds].map(i32::to_ne_bytes).concat();
                return Ok(value(bytes, room));
            }
            (SOCKET, libc::SO_RCVTIMEO) => return Ok(value(timeval(choices.receive_timeout), room)),
            (SOCKET, libc::SO_SNDTIMEO) => return Ok(value(timeval(choices.send_timeout), room)),
            (SOCKET, libc::SO_MEMINFO) => return Ok(value(vec![0; 36], room)),
            (level, name) if KEPT.iter().any(|kept| (kept.0, kept.1) == (level, name)) => {
                choices.kept(level, name)
            }
            _ => return Err(Stop::Errno(libc::ENOPROTOOPT)),
        };
        // Linux gives a small number of IP in one byte to who has room for no more (ip(7)).
        if level == IP && room < 4 && room > 0 && (0..=255).contains(&number) {
            return Ok(value(vec![number as u8], room));
        }
        Ok(value(number.to_ne_bytes().to_vec(), room))
    }

    pub(super) fn set_option(
        &mut self,
        mut ctx: Option<&mut Context<'_>>,
        fd: i32,
        level: i32,
        name: i32,
        bytes: &[u8],
    ) -> Result<Answer, Stop> {
        let system = self.settings.clone();
        let socket = self.get(fd)?.0;
        let before = socket.choices.options(&system, false);
        let cork_off = matches!((level, name), (TCP, libc::TCP_NODELAY)) && before.cork;
        set(socket, &system, level, name, bytes)?;
        let after = socket.choices.options(&system, false);
        if let (State::Connected(stream), Some(ctx)) = (&mut socket.state, &mut ctx) {
            for change in changes(&before, &after) {
                if let SocketOption::Cork(is_on) = change {
                    stream.is_corked = is_on;
                }
                ctx.set_option(stream.session, change);
            }
            // Linux: TCP_NODELAY pushes what is there, even past a cork, which holds again from the next write on.
            if cork_off && after.nodelay {
                stream.is_corked = false;
                ctx.set_option(stream.session, SocketOption::Cork(false));
            }
        }
        if let Some(ctx) = ctx {
            self.relisten(ctx, fd);
        }
        self.changed = true;
        Ok(Answer::number(0))
    }
}

/// Sets an option of a socket, as far as the socket itself goes.
fn set(socket: &mut Socket, system: &Settings, level: i32, name: i32, bytes: &[u8]) -> Result<(), Stop> {
    let is_fresh = matches!(socket.state, State::Fresh | State::Failed(_));
    let is_known = matches!(socket.state, State::Connected(_));
    let choices = &mut socket.choices;
    let invalid = Stop::Errno(libc::EINVAL);
    let int = || match (level, bytes) {
        // Options of IP take a byte as well (ip(7)).
        (IP | IPV6, [byte, ..]) if bytes.len() < 4 => Ok(i32::from(*byte)),
        _ => int_at(bytes, 0).ok_or(invalid),
    };
    let between = |least: i32, most: i32| {
        int().and_then(|n| if (least..=most).contains(&n) { Ok(n) } else { Err(invalid) })
    };
    match (level, name) {
        (SOCKET, libc::SO_REUSEADDR) => choices.reuse_address = int()? != 0,
        (SOCKET, libc::SO_REUSEPORT) => choices.reuse_port = int()? != 0,
        (SOCKET, libc::SO_LINGER) => {
            let (Some(on), Some(seconds)) = (int_at(bytes, 0), int_at(bytes, 4)) else { return Err(invalid) };
            let seconds = u64::try_from(seconds).unwrap_or(0);
            choices.linger = (on != 0).then(|| Duration::from_secs(seconds));
        }
        (SOCKET, libc::SO_RCVTIMEO) => choices.receive_timeout = timeout(bytes)?,
        (SOCKET, libc::SO_SNDTIMEO) => choices.send_timeout = timeout(bytes)?,
        (IPV6, libc::IPV6_V6ONLY) if socket.is_v6 => choices.v6_only = int()? != 0,
        // The stack's fifo stays as it was made: on an open socket the number is kept only.
        (SOCKET, libc::SO_RCVBUF | libc::SO_RCVBUFFORCE) => {
            choices.rcvbuf = choices.buffer(int()?, RCVBUF_MIN);
            choices.first_window = None;
        }
        (SOCKET, libc::SO_SNDBUF | libc::SO_SNDBUFFORCE) => {
            // Linux takes twice what was asked for: scripts write that much at once.
            choices.sndbuf = choices.buffer(int()?, SNDBUF_MIN) * choices.doubling;
            choices.is_sndbuf_set = true;
        }
        (SOCKET, libc::SO_KEEPALIVE) => choices.keepalive = Some(int()? != 0),
        (SOCKET, libc::SO_MAX_PACING_RATE) => {
            let rate = match bytes.len() {
                8.. => long_at(bytes, 0).unwrap_or(u64::MAX),
                // Cannot cut: all ones mean no limit.
                _ => match int()? as u32 {
                    u32::MAX => u64::MAX,
                    rate => rate.into(),
                },
            };
            choices.pacing_rate_max = Some(rate);
        }
        (SOCKET, libc::SO_ZEROCOPY) => _ = choices.kept.insert((level, name), between(0, 1)?),
        (TCP, libc::TCP_NODELAY) => choices.nodelay = int()? != 0,
        (TCP, libc::TCP_CORK) => choices.cork = int()? != 0,
        (TCP, libc::TCP_QUICKACK) => choices.quick_ack = Some(int()? != 0),
        (TCP, libc::TCP_KEEPIDLE | libc::TCP_KEEPINTVL) => {
            // Cannot cut: at most 32767 seconds.
            let ms = between(1, 32_767)? as u32 * 1000;
            let probes = choices.probes.get_or_insert(system.keepalive());
            if name == libc::TCP_KEEPIDLE {
                probes.idle_ms = ms;
            } else {
                probes.interval_ms = ms;
            }
        }
        (TCP, libc::TCP_KEEPCNT) => {
            let count = between(1, 127)? as u8;
            choices.probes.get_or_insert(system.keepalive()).probes = count;
        }
        (TCP, libc::TCP_USER_TIMEOUT) => {
            choices.user_timeout_ms = u32::try_from(int()?).map_err(|_| invalid)?;
        }
        (TCP, libc::TCP_SYNCNT) => choices.syn_retries = Some(between(1, 127)? as u8),
        (TCP, libc::TCP_LINGER2) => choices.linger2 = int()?,
        (TCP, libc::TCP_MAXSEG) => match int()? {
            0 => choices.mss_max = None,
            mss => {
                // Linux's limits (TCP_MIN_MSS, MAX_TCP_WINDOW).
                let mss = u16::try_from(mss).ok().filter(|mss| (88..=32_767).contains(mss));
                choices.mss_max = Some(mss.ok_or(invalid)?);
            }
        },
        (TCP, libc::TCP_NOTSENT_LOWAT) => choices.notsent_lowat = Some(int()? as u32),
        (TCP, libc::TCP_CONGESTION) => {
            let name = bytes.split(|byte| *byte == 0).next().unwrap_or(&[]);
            let name = std::str::from_utf8(name).map_err(|_| invalid)?;
            choices.congestion = Some(algorithm(name).ok_or(Stop::Errno(libc::ENOENT))?);
        }
        (TCP, TCP_FASTOPEN_KEY) => match bytes.len() {
            16 | 32 => choices.fast_open_key = Some(bytes.to_vec()),
            _ => return Err(invalid),
        },
        (TCP, libc::TCP_FASTOPEN_CONNECT) => {
            let value = between(0, 1)?;
            if system.fast_open() & 1 == 0 {
                return Err(Stop::Errno(libc::EOPNOTSUPP));
            }
            if !is_fresh {
                return Err(invalid);
            }
            choices.kept.insert((level, name), value);
        }
        (TCP, libc::TCP_FASTOPEN) if is_known => return Err(invalid),
        (TCP, TCP_INQ) => _ = choices.kept.insert((level, name), between(0, 1)?),
        (IP, libc::IP_TOS) | (IPV6, libc::IPV6_TCLASS) => choices.tos = int()? as u8,
        (level, name) if KEPT.iter().any(|kept| (kept.0, kept.1) == (level, name)) => {
            choices.kept.insert((level, name), int()?);
        }
        _ => return Err(Stop::Errno(libc::ENOPROTOOPT)),
    }
    Ok(())
}

/// A value, as much of it as there is room for.
fn value(mut bytes: Vec<u8>, room: usize) -> Answer {
    bytes.truncate(room);
    Answer::with(0, Out::Bytes(bytes))
}

fn int_at(bytes: &[u8], at: usize) -> Option<i32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(i32::from_ne_bytes(bytes.try_into().expect("cannot fail because these are four bytes")))
}

fn long_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_ne_bytes(bytes.try_into().expect("cannot fail because these are eight bytes")))
}

/// A `struct timeval`; zero: none.
fn timeout(bytes: &[u8]) -> Result<Option<Duration>, Stop> {
    let (Some(seconds), Some(micros)) = (long_at(bytes, 0), long_at(bytes, 8)) else {
        return Err(Stop::Errno(libc::EINVAL));
    };
    if micros >= 1_000_000 || seconds > 1 << 40 {
        return Err(Stop::Errno(libc::EDOM));
    }
    let timeout = Duration::from_micros(seconds * 1_000_000 + micros);
    Ok((!timeout.is_zero()).then_some(timeout))
}

fn timeval(timeout: Option<Duration>) -> Vec<u8> {
    let timeout = timeout.unwrap_or_default();
    [timeout.as_secs(), u64::from(timeout.subsec_micros())].map(u64::to_ne_bytes).concat()
}
