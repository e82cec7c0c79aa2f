//! Socket options. What the stack cannot do is refused with ENOPROTOOPT, so that a script fails where it asks for it.

use hoststack::app::{Duration, SessionOptions};

use super::{Sockets, State, Stop};
use crate::call::{Answer, Out};
use crate::flags::{Flags, Profile};

/// Linux's least SO_SNDBUF and SO_RCVBUF, doubled (socket(7)).
const SNDBUF_MIN: u32 = 4608;
const RCVBUF_MIN: u32 = 2304;

/// The stack's send fifo: more than any SO_SNDBUF, which scripts change while a connection is up; a stack's fifo stays as it
/// was made.
pub(super) const TX_CAPACITY: u32 = 1 << 30;

/// What can be set on a socket.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) reuse_address: bool,
    reuse_port: bool,
    pub(super) v6_only: bool,
    pub(super) nodelay: bool,
    /// `SO_LINGER` when it is on.
    pub(super) linger: Option<Duration>,
    pub(super) receive_timeout: Option<Duration>,
    pub(super) send_timeout: Option<Duration>,
    rcvbuf: u32,
    sndbuf: u32,
    /// What `getsockopt` says of the receive buffer, and what SO_SNDBUF takes, over what was set.
    doubling: u32,
}

impl Settings {
    pub(super) fn new(flags: &Flags) -> Settings {
        Settings {
            reuse_address: false,
            reuse_port: false,
            v6_only: false,
            nodelay: false,
            linger: None,
            receive_timeout: None,
            send_timeout: None,
            rcvbuf: flags.default_rcvbuf(),
            sndbuf: flags.sndbuf,
            doubling: if flags.profile == Profile::Linux { 2 } else { 1 },
        }
    }

    pub(super) fn fifos(&self) -> SessionOptions {
        SessionOptions { rx_capacity: self.rcvbuf, tx_capacity: TX_CAPACITY }
    }

    /// Bytes that may be written and not acknowledged, now.
    pub(super) fn sndbuf(&self) -> usize {
        self.sndbuf as usize
    }

    /// A buffer size as it is set: within the limits, and at least half of what `least` is doubled.
    fn buffer(&self, asked: i32, least: u32) -> u32 {
        u32::try_from(asked).unwrap_or(0).clamp(least / self.doubling, TX_CAPACITY / 2)
    }
}

impl Sockets {
    pub(super) fn option(&mut self, fd: i32, level: i32, name: i32) -> Result<Answer, Stop> {
        let socket = self.get(fd)?.0;
        let settings = &socket.settings;
        let number = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_ERROR) => match &mut socket.state {
                State::Connected(stream) => stream.error.take().unwrap_or(0),
                State::Failed(errno) => {
                    let errno = *errno;
                    socket.state = State::Fresh;
                    errno
                }
                _ => 0,
            },
            (libc::SOL_SOCKET, libc::SO_TYPE) => libc::SOCK_STREAM,
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => libc::IPPROTO_TCP,
            (libc::SOL_SOCKET, libc::SO_DOMAIN) if socket.is_v6 => libc::AF_INET6,
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => libc::AF_INET,
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => matches!(socket.state, State::Listening(_)).into(),
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => settings.reuse_address.into(),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => settings.reuse_port.into(),
            // Cannot cut: buffers are at most 2^30 with doubling.
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => (settings.rcvbuf * settings.doubling) as i32,
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => settings.sndbuf as i32,
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => settings.nodelay.into(),
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) if socket.is_v6 => settings.v6_only.into(),
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let seconds = settings.linger.map_or(0, |linger| linger.as_secs() as i32);
                return Ok(value(
                    [i32::from(settings.linger.is_some()), seconds].map(i32::to_ne_bytes).concat(),
                ));
            }
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => return Ok(timeval(settings.receive_timeout)),
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => return Ok(timeval(settings.send_timeout)),
            _ => return Err(Stop::Errno(libc::ENOPROTOOPT)),
        };
        Ok(value(number.to_ne_bytes().to_vec()))
    }

    pub(super) fn set_option(
        &mut self,
        fd: i32,
        level: i32,
        name: i32,
        bytes: &[u8],
    ) -> Result<Answer, Stop> {
        let socket = self.get(fd)?.0;
        let is_open = !matches!(socket.state, State::Fresh);
        let settings = &mut socket.settings;
        let int = || int_at(bytes, 0).ok_or(Stop::Errno(libc::EINVAL));
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => settings.reuse_address = int()? != 0,
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => settings.reuse_port = int()? != 0,
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let (Some(on), Some(seconds)) = (int_at(bytes, 0), int_at(bytes, 4)) else {
                    return Err(Stop::Errno(libc::EINVAL));
                };
                let seconds = u64::try_from(seconds).unwrap_or(0);
                settings.linger = (on != 0).then(|| Duration::from_secs(seconds));
            }
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => settings.receive_timeout = timeout(bytes)?,
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => settings.send_timeout = timeout(bytes)?,
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) if socket.is_v6 => settings.v6_only = int()? != 0,
            (libc::SOL_SOCKET, libc::SO_RCVBUF | libc::SO_RCVBUFFORCE) if !is_open => {
                settings.rcvbuf = settings.buffer(int()?, RCVBUF_MIN);
            }
            (libc::SOL_SOCKET, libc::SO_SNDBUF | libc::SO_SNDBUFFORCE) => {
                // Linux takes twice what was asked for: scripts write that much at once.
                settings.sndbuf = settings.buffer(int()?, SNDBUF_MIN) * settings.doubling;
            }
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) if !is_open || settings.nodelay == (int()? != 0) => {
                settings.nodelay = int()? != 0;
            }
            // The stack fixes the receive buffer and Nagle when a connection is opened; the rest it does not have.
            _ => return Err(Stop::Errno(libc::ENOPROTOOPT)),
        }
        Ok(Answer::number(0))
    }
}

fn value(bytes: Vec<u8>) -> Answer {
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

fn timeval(timeout: Option<Duration>) -> Answer {
    let timeout = timeout.unwrap_or_default();
    value([timeout.as_secs(), u64::from(timeout.subsec_micros())].map(u64::to_ne_bytes).concat())
}
