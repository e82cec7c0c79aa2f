//! Which descriptors are ready: `poll` and `epoll`.

use std::collections::BTreeMap;

use hoststack::app::{Context, Duration};

use super::{Kind, Socket, Sockets, State, Stop};
use crate::call::{Answer, Out};

const IN: u32 = (libc::EPOLLIN | libc::EPOLLRDNORM) as u32;
const OUT: u32 = (libc::EPOLLOUT | libc::EPOLLWRNORM) as u32;
const ERR: u32 = libc::EPOLLERR as u32;
const HUP: u32 = libc::EPOLLHUP as u32;
const RDHUP: u32 = libc::EPOLLRDHUP as u32;
/// Told whether asked for or not.
const ALWAYS: u32 = ERR | HUP;
/// Behaviour bits, not events.
const EDGE: u32 = libc::EPOLLET as u32;
const ONE_SHOT: u32 = libc::EPOLLONESHOT as u32;
const BEHAVIOUR: u32 = EDGE | ONE_SHOT | libc::EPOLLWAKEUP as u32 | libc::EPOLLEXCLUSIVE as u32;

/// What an epoll descriptor watches.
#[derive(Default)]
pub(super) struct Interests(BTreeMap<i32, Interest>);

struct Interest {
    events: u32,
    data: u64,
    /// The descriptor's activity when it was told last: an edge is a newer one.
    told: Option<u64>,
}

impl Interests {
    pub(super) fn forget(&mut self, fd: i32) {
        self.0.remove(&fd);
    }
}

/// What a socket is ready for, as Linux's `tcp_poll` documents it in poll(2) and epoll_ctl(2).
fn socket_ready(ctx: &Context<'_>, socket: &Socket) -> u32 {
    match &socket.state {
        State::Fresh => OUT | HUP,
        State::Failed(_) => IN | OUT | ERR | HUP | RDHUP,
        State::Connecting(_) => 0,
        State::Deferred(_) => OUT,
        State::Listening(listening) if listening.queue.is_empty() => 0,
        State::Listening(_) => IN,
        State::Connected(stream) => {
            let writes_over = stream.writes_over || stream.closed.is_some();
            let mut ready = 0;
            if stream.is_at_end() {
                ready |= IN | RDHUP;
            }
            if stream.is_at_end() && writes_over {
                ready |= HUP;
            }
            // SO_RCVLOWAT: less is not worth waking for.
            let least = socket.choices.kept(libc::SOL_SOCKET, libc::SO_RCVLOWAT).max(1);
            if stream.unread(ctx) >= usize::try_from(least).unwrap_or(1) {
                ready |= IN;
            }
            if writes_over || stream.has_room {
                ready |= OUT;
            }
            if stream.error.is_some() || !stream.notices.is_empty() {
                ready |= ERR;
            }
            ready
        }
    }
}

impl Sockets {
    /// What a descriptor is ready for, and its activity; `None`: there is none.
    fn ready(&self, ctx: &Context<'_>, fd: i32) -> Option<(u32, u64)> {
        let descriptor = self.descriptors.get(&fd)?;
        let ready = match &descriptor.kind {
            Kind::Socket(socket) => socket_ready(ctx, socket),
            // Watched by nobody in what packetdrill can write.
            Kind::Epoll(_) => 0,
            Kind::Pipe { number, is_reader: true } => match self.pipes.get(number) {
                Some(pipe) if !pipe.is_empty() => IN,
                _ => 0,
            },
            Kind::Pipe { .. } => OUT,
        };
        Some((ready, descriptor.activity))
    }

    pub(super) fn poll(
        &mut self,
        ctx: &mut Context<'_>,
        asked: &[(i32, i16)],
        timeout_ms: i32,
        expired: bool,
    ) -> Result<Answer, Stop> {
        let mut revents = Vec::with_capacity(asked.len());
        for (fd, events) in asked {
            revents.push(match self.ready(ctx, *fd) {
                _ if *fd < 0 => 0,
                None => libc::POLLNVAL,
                // Cannot cut: poll's events are epoll's lower 16 bits.
                Some((ready, _)) => (ready & (u32::from(*events as u16) | ALWAYS)) as i16,
            });
        }
        let count = revents.iter().filter(|revents| **revents != 0).count();
        if count == 0 && !expired && timeout_ms != 0 {
            return Err(Stop::Wait(milliseconds(timeout_ms)));
        }
        // Cannot cut: a count of descriptors.
        Ok(Answer::with(count as i64, Out::Revents(revents)))
    }

    pub(super) fn epoll_ctl(
        &mut self,
        epoll: i32,
        op: i32,
        fd: i32,
        events: u32,
        data: u64,
    ) -> Result<Answer, Stop> {
        self.descriptor(fd)?;
        if fd == epoll {
            return Err(Stop::Errno(libc::EINVAL));
        }
        let Kind::Epoll(Interests(interests)) = &mut self.descriptor(epoll)?.kind else {
            return Err(Stop::Errno(libc::EINVAL));
        };
        let interest = Interest { events, data, told: None };
        match (op, interests.contains_key(&fd)) {
            (libc::EPOLL_CTL_ADD, false) | (libc::EPOLL_CTL_MOD, true) => {
                interests.insert(fd, interest);
            }
            (libc::EPOLL_CTL_ADD, true) => return Err(Stop::Errno(libc::EEXIST)),
            (libc::EPOLL_CTL_DEL, true) => {
                interests.remove(&fd);
            }
            (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, false) => return Err(Stop::Errno(libc::ENOENT)),
            _ => return Err(Stop::Errno(libc::EINVAL)),
        }
        self.changed = true;
        Ok(Answer::number(0))
    }

    pub(super) fn epoll_wait(
        &mut self,
        ctx: &mut Context<'_>,
        epoll: i32,
        max: usize,
        timeout_ms: i32,
        expired: bool,
    ) -> Result<Answer, Stop> {
        let Kind::Epoll(interests) = &mut self.descriptor(epoll)?.kind else {
            return Err(Stop::Errno(libc::EINVAL));
        };
        if max == 0 {
            return Err(Stop::Errno(libc::EINVAL));
        }
        let mut interests = std::mem::take(interests);
        let mut events = Vec::new();
        for (fd, interest) in &mut interests.0 {
            let Some((ready, activity)) = self.ready(ctx, *fd) else { continue };
            let wanted = interest.events & !BEHAVIOUR;
            let ready = ready & (wanted | ALWAYS);
            let is_spent = interest.events & EDGE != 0 && interest.told == Some(activity);
            // A one-shot interest that was told is without events until it is modified.
            let is_off = wanted == 0 && interest.events & ONE_SHOT != 0;
            if ready == 0 || is_spent || is_off || events.len() == max {
                continue;
            }
            interest.told = Some(activity);
            if interest.events & ONE_SHOT != 0 {
                interest.events &= BEHAVIOUR;
            }
            events.push((ready, interest.data));
        }
        self.descriptor(epoll)?.kind = Kind::Epoll(interests);
        if events.is_empty() && !expired && timeout_ms != 0 {
            return Err(Stop::Wait(milliseconds(timeout_ms)));
        }
        // Cannot cut: a count of descriptors.
        Ok(Answer::with(events.len() as i64, Out::Events(events)))
    }
}

/// A timeout of poll: below zero there is none.
fn milliseconds(timeout_ms: i32) -> Option<Duration> {
    u64::try_from(timeout_ms).ok().map(Duration::from_millis)
}
