//! `connect`, and the writes that open a connection (TCP Fast Open, RFC 7413): `MSG_FASTOPEN` and `TCP_FASTOPEN_CONNECT`.

use std::net::SocketAddr;

use hoststack::app::{ConnectOptions, Context};

use super::options::TCP_FASTOPEN_NO_COOKIE;
use super::stream::Manner;
use super::{Connecting, Sockets, State, Stop, wait_or};
use crate::call::{Answer, Destination};

/// Bits of `tcp_fastopen`: clients may, even without a cookie.
const CLIENT: u64 = 1;
const WITHOUT_COOKIE: u64 = 4;

impl Sockets {
    pub(super) fn connect(
        &mut self,
        ctx: &mut Context<'_>,
        fd: i32,
        to: SocketAddr,
        expired: bool,
    ) -> Result<Answer, Stop> {
        let (socket, nonblocking) = self.get(fd)?;
        let timeout = socket.choices.send_timeout;
        match &mut socket.state {
            State::Fresh => {}
            State::Listening(_) | State::Deferred(_) => return Err(Stop::Errno(libc::EISCONN)),
            State::Connecting(_) if nonblocking => return Err(Stop::Errno(libc::EALREADY)),
            State::Connecting(_) => return Err(wait_or(expired, libc::EINPROGRESS, timeout)),
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
        let wants_early = socket.choices.kept(libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT) != 0;
        if wants_early && self.early_room(fd, to)?.is_some() {
            self.get(fd)?.0.state = State::Deferred(to);
            return Ok(Answer::number(0));
        }
        self.open(ctx, fd, to, wants_early, &[], Manner::default())?;
        Err(wait_or(nonblocking, libc::EINPROGRESS, timeout))
    }

    /// How many bytes may go with a SYN to a peer; `None`: it gave no cookie.
    fn early_room(&mut self, fd: i32, to: SocketAddr) -> Result<Option<usize>, Stop> {
        let bits = self.settings.fast_open();
        let watch = self.watch.clone();
        let socket = self.get(fd)?.0;
        let any =
            bits & WITHOUT_COOKIE != 0 || socket.choices.kept(libc::IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE) != 0;
        let most = socket.choices.mss_max();
        let ip = to.ip().to_canonical();
        Ok(watch.lock().early_room(ip, most, any))
    }

    /// Starts a connection, which begins with `early`.
    fn open(
        &mut self,
        ctx: &mut Context<'_>,
        fd: i32,
        to: SocketAddr,
        fast_open: bool,
        early: &[u8],
        manner: Manner,
    ) -> Result<(), Stop> {
        let token = self.next_number();
        let system = self.settings.clone();
        let socket = self.get(fd)?.0;
        if to.is_ipv6() != socket.is_v6 {
            return Err(Stop::Errno(libc::EAFNOSUPPORT));
        }
        let remote = SocketAddr::new(to.ip().to_canonical(), to.port());
        let bound = socket.bound.map(|bound| (bound.ip().to_canonical(), bound.port()));
        let options = ConnectOptions {
            local_addr: bound.map(|(ip, _)| ip).filter(|ip| !ip.is_unspecified()),
            local_port: bound.map_or(0, |(_, port)| port),
            timeout: system.connect_timeout(),
            opaque: token,
            fifos: socket.choices.fifos(),
            socket: socket.choices.options(&system, fast_open),
            ..ConnectOptions::to(remote)
        };
        let connect = ctx.connect_with(options, early).map_err(|_| Stop::Errno(libc::EINVAL))?;
        // Cannot cut: early data is at most a segment.
        socket.state = State::Connecting(Connecting { token, connect, early: early.len() as u32, manner });
        Ok(())
    }

    /// All calls that send: one that opens the connection first, or one on a connection that is there.
    pub(super) fn send(
        &mut self,
        ctx: &mut Context<'_>,
        fd: i32,
        data: &[u8],
        flags: i32,
        done: &mut usize,
        to: Destination,
        expired: bool,
    ) -> Result<Answer, Stop> {
        let is_fast_open = flags & libc::MSG_FASTOPEN != 0;
        let Ok((socket, nonblocking)) = self.get(fd) else {
            return self.write(ctx, fd, data, flags, done, expired);
        };
        let must_not = nonblocking || flags & libc::MSG_DONTWAIT != 0;
        let timeout = socket.choices.send_timeout;
        let deferred = if let State::Deferred(to) = socket.state { Some(to) } else { None };
        if !is_fast_open && deferred.is_none() {
            return self.write(ctx, fd, data, flags, done, expired);
        }
        if self.settings.fast_open() & CLIENT == 0 || to == Destination::Unspecified {
            return Err(Stop::Errno(libc::EOPNOTSUPP));
        }
        let socket = self.get(fd)?.0;
        match &mut socket.state {
            State::Fresh | State::Deferred(_) => {}
            State::Connecting(_) if must_not => return Err(Stop::Errno(libc::EALREADY)),
            // What was told to the caller of a failure is an error, even if bytes were taken.
            State::Failed(errno) => {
                let errno = *errno;
                socket.state = State::Fresh;
                return Err(Stop::Errno(errno));
            }
            State::Connected(stream) if stream.is_known && *done == 0 => {
                return Err(Stop::Errno(libc::EISCONN));
            }
            State::Connected(stream) => {
                stream.is_known = true;
                return self.write(ctx, fd, data, flags, done, expired);
            }
            State::Connecting(_) | State::Listening(_) => {
                return self.write(ctx, fd, data, flags, done, expired);
            }
        }
        let to = match (deferred, to) {
            (Some(to), _) => to,
            (None, Destination::Address(to)) => to,
            (None, _) => return Err(Stop::Errno(libc::EINVAL)),
        };
        let room = self.early_room(fd, to)?;
        let early = &data[..data.len().min(room.unwrap_or(0))];
        let manner = Manner::of(&self.get(fd)?.0.choices, flags);
        self.open(ctx, fd, to, true, early, manner)?;
        *done = early.len();
        match () {
            () if !must_not => Err(Stop::Wait(timeout)),
            () if early.is_empty() => Err(Stop::Errno(libc::EINPROGRESS)),
            // Cannot cut: early data is at most a segment.
            () => Ok(Answer::number(early.len() as i64)),
        }
    }
}
