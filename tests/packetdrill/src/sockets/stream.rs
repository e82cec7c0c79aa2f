//! Bytes: what is read from and written to connected sockets and pipes.

use std::collections::VecDeque;
use std::net::SocketAddr;

use hoststack::app::{CloseReason, ConnectionStats, Context, SessionHandle, SocketOption};

use super::notices::Notices;
use super::options::{Choices, TCP_INQ, TX_CAPACITY};
use super::{Kind, Sockets, State, Stop, wait_unless};
use crate::call::{Answer, Control, Out};
use crate::ffi::WANTS_CONTROL;
use crate::flags::Profile;
use crate::watch::{Ends, Flow, Write};

/// Bytes that a pipe holds, as in Linux.
const PIPE_MAX: usize = 65_536;

/// An established connection, or what is left of one.
pub(super) struct Stream {
    pub(super) session: SessionHandle,
    pub(super) remote: SocketAddr,
    pub(super) ends: Ends,
    /// The script knows that it is connected: it accepted it, or asked how its connect went.
    pub(super) is_known: bool,
    pub(super) peer_closed: bool,
    /// The session is over.
    pub(super) closed: Option<CloseReason>,
    /// What was unread when it was over.
    leftover: VecDeque<u8>,
    /// The script has shut its reading down.
    pub(super) reads_over: bool,
    /// The script has shut its writing down.
    pub(super) writes_over: bool,
    /// A write found less room than it wanted, and none has been seen since.
    pub(super) was_full: bool,
    /// Told once: by a read, a write, or SO_ERROR.
    pub(super) error: Option<i32>,
    /// Told by SO_ERROR only.
    pub(super) soft_error: Option<i32>,
    /// The script closed its direction before the peer did.
    pub(super) closed_first: bool,
    /// The send buffer as it has grown by itself.
    pub(super) sndbuf: u32,
    /// There is room enough in the send buffer to say so.
    pub(super) has_room: bool,
    /// What the connection measured, when it was looked at last: it outlives the connection.
    pub(super) last_stats: Option<ConnectionStats>,
    pub(super) notices: Notices,
    /// The stack was told to send full segments only.
    pub(super) is_corked: bool,
}

/// What `MSG_*` flags and the socket ask of a write.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    more: bool,
    eor: bool,
    zero_copy: bool,
    /// SOF_TIMESTAMPING_* of the socket.
    stamps: i32,
}

impl Manner {
    pub(super) fn of(choices: &Choices, flags: i32) -> Manner {
        let kept = |name| choices.kept(libc::SOL_SOCKET, name);
        Manner {
            more: flags & libc::MSG_MORE != 0,
            eor: flags & libc::MSG_EOR != 0,
            zero_copy: flags & libc::MSG_ZEROCOPY != 0 && kept(libc::SO_ZEROCOPY) != 0,
            stamps: kept(libc::SO_TIMESTAMPING),
        }
    }
}

impl Stream {
    pub(super) fn of(ctx: &Context<'_>, session: SessionHandle) -> Stream {
        let flow = ctx.flow(session).expect("cannot fail because the session is being announced");
        let remote = SocketAddr::new(flow.remote.addr, flow.remote.port);
        Stream {
            session,
            remote,
            ends: (SocketAddr::new(flow.local.addr, flow.local.port), remote),
            is_known: false,
            peer_closed: false,
            closed: None,
            leftover: VecDeque::new(),
            reads_over: false,
            writes_over: false,
            was_full: false,
            error: None,
            soft_error: None,
            closed_first: false,
            sndbuf: 0,
            has_room: true,
            last_stats: ctx.stats(session).ok(),
            notices: Notices::default(),
            is_corked: false,
        }
    }

    /// The connection began with bytes that were written before.
    pub(super) fn begin_with(&mut self, count: u32, manner: Manner) {
        if count > 0 {
            self.notices.wrote(count, manner.zero_copy, manner.stamps);
        }
    }

    /// The connection was cut off.
    pub(super) fn cut_off(&mut self, reason: CloseReason) {
        self.error = Some(match reason {
            // As Linux: a peer that closed and then resets makes writing pointless, no more.
            CloseReason::PeerReset if self.peer_closed => libc::EPIPE,
            CloseReason::TimedOut => libc::ETIMEDOUT,
            CloseReason::Unreachable => libc::EHOSTUNREACH,
            CloseReason::NoRoom => libc::ENOBUFS,
            CloseReason::PeerReset | CloseReason::LocalReset | CloseReason::Finished => libc::ECONNRESET,
            CloseReason::Truncated | CloseReason::Corrupt => libc::EPROTO,
        });
    }

    /// The session is over: what is unread stays with us.
    pub(super) fn end(&mut self, ctx: &mut Context<'_>, reason: CloseReason) {
        if let Ok(stats) = ctx.stats(self.session) {
            self.last_stats = Some(stats);
        }
        let mut left = vec![0; ctx.rx_len(self.session)];
        let count = ctx.read(self.session, &mut left);
        self.leftover.extend(&left[..count]);
        self.closed = Some(reason);
    }

    /// Bytes written and not acknowledged.
    pub(super) fn unacknowledged(&self, ctx: &Context<'_>) -> usize {
        if self.closed.is_some() {
            0
        } else {
            (TX_CAPACITY as usize).saturating_sub(ctx.tx_room(self.session))
        }
    }

    /// Bytes that can be read.
    pub(super) fn unread(&self, ctx: &Context<'_>) -> usize {
        if self.closed.is_some() { self.leftover.len() } else { ctx.rx_len(self.session) }
    }

    /// Whether no more will come than is there.
    pub(super) fn is_at_end(&self) -> bool {
        self.peer_closed || self.reads_over || self.closed.is_some()
    }

    fn take(&mut self, ctx: &mut Context<'_>, len: usize, peek: bool) -> Vec<u8> {
        let count = len.min(self.unread(ctx));
        match (self.closed.is_some(), peek) {
            (true, true) => self.leftover.iter().take(count).copied().collect(),
            (true, false) => self.leftover.drain(..count).collect(),
            // What lies together: a shorter read than asked for is allowed.
            (false, true) => ctx.peek(self.session).iter().take(count).copied().collect(),
            (false, false) => {
                let mut bytes = vec![0; count];
                let count = ctx.read(self.session, &mut bytes);
                bytes.truncate(count);
                bytes
            }
        }
    }
}

impl Sockets {
    pub(super) fn read(
        &mut self,
        ctx: &mut Context<'_>,
        fd: i32,
        len: usize,
        flags: i32,
        expired: bool,
    ) -> Result<Answer, Stop> {
        if let Kind::Pipe { number, is_reader } = self.descriptor(fd)?.kind {
            return self.read_pipe(fd, number, is_reader, len, expired);
        }
        let (socket, nonblocking) = self.get(fd)?;
        let must_not = nonblocking || flags & libc::MSG_DONTWAIT != 0 || expired;
        if flags & libc::MSG_ERRQUEUE != 0 {
            let is_v6 = socket.is_v6;
            let State::Connected(stream) = &mut socket.state else { return Err(Stop::Errno(libc::EAGAIN)) };
            let (control, flags) = stream.notices.take(is_v6).ok_or(Stop::Errno(libc::EAGAIN))?;
            return Ok(Answer::with(0, Out::Message(Vec::new(), control, flags)));
        }
        let wants_left = flags & WANTS_CONTROL != 0 && socket.choices.kept(libc::IPPROTO_TCP, TCP_INQ) != 0;
        if flags & libc::MSG_OOB != 0 {
            return Err(Stop::Errno(libc::EINVAL));
        }
        let timeout = socket.choices.receive_timeout;
        let least = socket.choices.kept(libc::SOL_SOCKET, libc::SO_RCVLOWAT).max(1);
        let least = usize::try_from(least).unwrap_or(1).min(len);
        let stream = match &mut socket.state {
            State::Fresh | State::Listening(_) => return Err(Stop::Errno(libc::ENOTCONN)),
            State::Deferred(_) | State::Connecting(_) => return Err(wait_unless(must_not, timeout)),
            State::Failed(errno) => {
                let errno = *errno;
                socket.state = State::Fresh;
                return Err(Stop::Errno(errno));
            }
            State::Connected(stream) => stream,
        };
        if len == 0 {
            return Ok(Answer::with(0, Out::Bytes(Vec::new())));
        }
        let unread = stream.unread(ctx);
        let wants_all = unread < least || (flags & libc::MSG_WAITALL != 0 && unread < len);
        if wants_all && !must_not && !stream.is_at_end() && stream.error.is_none() {
            return Err(Stop::Wait(timeout));
        }
        if unread == 0 {
            return match stream.error.take() {
                Some(errno) => Err(Stop::Errno(errno)),
                None if stream.is_at_end() => Ok(Answer::with(0, Out::Bytes(Vec::new()))),
                None => Err(wait_unless(must_not, timeout)),
            };
        }
        let bytes = stream.take(ctx, len, flags & libc::MSG_PEEK != 0);
        // Cannot cut: a fifo is at most 1 GiB.
        let count = bytes.len() as i64;
        // MSG_TRUNC throws the bytes away and counts them.
        let bytes = if flags & libc::MSG_TRUNC != 0 { Vec::new() } else { bytes };
        if wants_left {
            // A FIN that waits counts as one, so that the app reads on (tcp(7)).
            let left = stream.unread(ctx) + usize::from(stream.peer_closed);
            // Cannot cut: a fifo is at most 1 GiB.
            let data = (left as i32).to_ne_bytes().to_vec();
            let control = Control { level: libc::IPPROTO_TCP, kind: TCP_INQ, data };
            return Ok(Answer::with(count, Out::Message(bytes, vec![control], 0)));
        }
        Ok(Answer::with(count, Out::Bytes(bytes)))
    }

    pub(super) fn write(
        &mut self,
        ctx: &mut Context<'_>,
        fd: i32,
        data: &[u8],
        flags: i32,
        done: &mut usize,
        expired: bool,
    ) -> Result<Answer, Stop> {
        if let Kind::Pipe { number, is_reader } = self.descriptor(fd)?.kind {
            return self.write_pipe(fd, number, is_reader, data, expired);
        }
        let watch = self.watch.clone();
        let system = self.settings.clone();
        let is_linux = self.flags.profile == Profile::Linux;
        let (socket, nonblocking) = self.get(fd)?;
        let lowat = socket.choices.notsent_lowat(&system);
        let is_corked = socket.choices.is_corked();
        let must_not = nonblocking || flags & libc::MSG_DONTWAIT != 0 || expired;
        if flags & libc::MSG_OOB != 0 {
            // There is no urgent data to be sent: RFC 9293 SHLD-13 would have us not use it.
            return Err(Stop::Errno(libc::EOPNOTSUPP));
        }
        let manner = Manner::of(&socket.choices, flags);
        let timeout = socket.choices.send_timeout;
        let choices = &socket.choices;
        let stream = match &mut socket.state {
            State::Fresh | State::Listening(_) => return Err(Stop::Errno(libc::EPIPE)),
            State::Deferred(_) | State::Connecting(_) => return Err(wait_unless(must_not, timeout)),
            State::Failed(errno) => {
                let errno = *errno;
                socket.state = State::Fresh;
                return Err(Stop::Errno(errno));
            }
            State::Connected(stream) => stream,
        };
        let sndbuf = choices.sndbuf(stream.sndbuf);
        // Cannot cut: what was taken lies in a fifo of 1 GiB at most, or went through one in pieces of a script's call.
        let so_far = |done: usize| if done > 0 { Some(Answer::number(done as i64)) } else { None };
        if let Some(errno) = stream.error {
            return so_far(*done).ok_or_else(|| {
                stream.error = None;
                Stop::Errno(errno)
            });
        }
        if stream.writes_over || stream.closed.is_some() {
            return so_far(*done).ok_or(Stop::Errno(libc::EPIPE));
        }
        // A buffer that is full stays so until it is worth waking for.
        let is_closed_for_now = stream.was_full && !stream.has_room;
        // Cannot cut: what does not fit is left for another turn.
        let want = if is_closed_for_now { 0 } else { (data.len() - *done).min(1 << 30) as u32 };
        let write = Write {
            now_us: ctx.now().as_micros(),
            want,
            more: manner.more,
            eor: manner.eor,
            sndbuf,
            lowat,
            cwnd: ctx.stats(stream.session).map_or(0, |stats| stats.cwnd),
        };
        let count = match is_linux {
            true => watch.lock().wrote(stream.ends, &write),
            // FreeBSD counts bytes.
            false => {
                let room = (sndbuf as usize).saturating_sub(stream.unacknowledged(ctx));
                let want = want.min(u32::try_from(room).unwrap_or(u32::MAX));
                watch.lock().wrote(stream.ends, &Write { want, sndbuf: u32::MAX, ..write })
            }
        };
        // MSG_MORE is TCP_CORK for one write; and TCP_NODELAY may have pushed past a cork, once.
        let corks = is_corked || manner.more;
        if corks != stream.is_corked {
            stream.is_corked = corks;
            ctx.set_option(stream.session, SocketOption::Cork(corks));
        }
        let written = ctx.write(stream.session, &data[*done..*done + count as usize]);
        assert_eq!(written, count as usize, "the stack's send fifo is larger than any send buffer");
        *done += written;
        stream.was_full = *done < data.len();
        let is_whole = !stream.was_full;
        if manner.eor && is_whole {
            ctx.end_record(stream.session);
        }
        let end = watch.lock().flow(&stream.ends).map_or(0, Flow::written);
        if is_whole || must_not {
            stream.notices.wrote(end, manner.zero_copy, manner.stamps);
        }
        if *done == data.len() {
            return Ok(Answer::number(*done as i64));
        }
        match wait_unless(must_not, timeout) {
            Stop::Errno(errno) => so_far(*done).ok_or(Stop::Errno(errno)),
            wait @ Stop::Wait(_) => Err(wait),
        }
    }

    fn read_pipe(
        &mut self,
        fd: i32,
        number: u64,
        is_reader: bool,
        len: usize,
        expired: bool,
    ) -> Result<Answer, Stop> {
        let nonblocking = self.descriptor(fd)?.nonblocking;
        let has_writer = self.has_end(number, false);
        let pipe = self.pipes.get_mut(&number).filter(|_| is_reader).ok_or(Stop::Errno(libc::EBADF))?;
        if pipe.is_empty() && has_writer && len > 0 {
            return Err(wait_unless(nonblocking || expired, None));
        }
        let bytes: Vec<u8> = pipe.drain(..len.min(pipe.len())).collect();
        self.changed = true;
        Ok(Answer::with(bytes.len() as i64, Out::Bytes(bytes)))
    }

    fn write_pipe(
        &mut self,
        fd: i32,
        number: u64,
        is_reader: bool,
        data: &[u8],
        expired: bool,
    ) -> Result<Answer, Stop> {
        let nonblocking = self.descriptor(fd)?.nonblocking;
        if !is_reader && !self.has_end(number, true) {
            return Err(Stop::Errno(libc::EPIPE));
        }
        let pipe = self.pipes.get_mut(&number).filter(|_| !is_reader).ok_or(Stop::Errno(libc::EBADF))?;
        let count = data.len().min(PIPE_MAX - pipe.len());
        if count == 0 && !data.is_empty() {
            return Err(wait_unless(nonblocking || expired, None));
        }
        pipe.extend(&data[..count]);
        self.changed = true;
        Ok(Answer::number(count as i64))
    }

    fn has_end(&self, number: u64, reader: bool) -> bool {
        let is_end = |kind: &Kind| matches!(kind, Kind::Pipe { number: other, is_reader } if *other == number && *is_reader == reader);
        self.descriptors.values().any(|descriptor| is_end(&descriptor.kind))
    }

    /// Moves bytes between a socket and a pipe, without waiting for the pipe.
    pub(super) fn splice(
        &mut self,
        ctx: &mut Context<'_>,
        from: i32,
        to: i32,
        len: usize,
        flags: u32,
        expired: bool,
    ) -> Result<Answer, Stop> {
        let dont_wait = if flags & libc::SPLICE_F_NONBLOCK != 0 { libc::MSG_DONTWAIT } else { 0 };
        let end = |sockets: &mut Sockets, fd| match sockets.descriptor(fd)?.kind {
            Kind::Pipe { number, is_reader } => Ok(Some((number, is_reader))),
            _ => Ok(None),
        };
        match (end(self, from)?, end(self, to)?) {
            (None, Some((number, false))) => {
                let room = self.pipes.get(&number).map_or(0, |pipe| PIPE_MAX - pipe.len());
                if room == 0 {
                    return Err(Stop::Errno(libc::EAGAIN));
                }
                let answer = self.read(ctx, from, len.min(room), dont_wait, expired)?;
                if let (Out::Bytes(bytes), Some(pipe)) = (&answer.out, self.pipes.get_mut(&number)) {
                    pipe.extend(bytes);
                }
                self.changed = true;
                Ok(Answer::number(answer.result))
            }
            (Some((number, true)), None) => {
                let bytes: Vec<u8> =
                    self.pipes.get(&number).into_iter().flatten().take(len).copied().collect();
                if bytes.is_empty() {
                    return if self.has_end(number, false) {
                        Err(Stop::Errno(libc::EAGAIN))
                    } else {
                        Ok(Answer::number(0))
                    };
                }
                // What is taken at once: the rest stays in the pipe.
                let answer = self.write(ctx, to, &bytes, libc::MSG_DONTWAIT, &mut 0, expired)?;
                if let Some(pipe) = self.pipes.get_mut(&number) {
                    pipe.drain(..usize::try_from(answer.result).unwrap_or(0));
                }
                Ok(answer)
            }
            _ => Err(Stop::Errno(libc::EINVAL)),
        }
    }
}
