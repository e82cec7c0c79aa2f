//! When a session's life took its turns, and who ended it: a few numbers that each session keeps for its last line in the
//! log.
//!
//! Times are microseconds since the session was allocated, cut off at some 71 minutes: what they are kept for is over by
//! then, or long past caring.

use core::fmt;

use hoststack_transport::Instant;

/// It has not happened.
const NEVER: u32 = u32::MAX;

/// Who was the first to end a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndedBy {
    /// Nobody yet; or neither end, but what lies between.
    #[default]
    Nobody,
    /// Its app closed, half-closed or reset it.
    App,
    /// The peer closed its direction.
    Peer,
    /// The detach of its app worker.
    Detach,
    /// Another thread, by its handle: the debug CLI.
    Operator,
}

impl fmt::Display for EndedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            EndedBy::Nobody => "nobody",
            EndedBy::App => "app",
            EndedBy::Peer => "peer",
            EndedBy::Detach => "detach",
            EndedBy::Operator => "operator",
        })
    }
}

/// The turns of one session's life.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// From the connect request to the session.
    requested_us: u32,
    up_us: u32,
    announced_us: u32,
    first_byte_us: u32,
    ended_by: EndedBy,
    is_outbound: bool,
}

impl Life {
    /// An outbound session's, so long after its request.
    pub(crate) fn outbound(requested_us: u64) -> Life {
        Life { requested_us: short(requested_us), up_us: NEVER, is_outbound: true, ..Life::accepted() }
    }

    /// An accepted session's: it begins when its transport is up.
    pub(crate) fn accepted() -> Life {
        Life {
            requested_us: 0,
            up_us: 0,
            announced_us: NEVER,
            first_byte_us: NEVER,
            ended_by: EndedBy::Nobody,
            is_outbound: false,
        }
    }

    /// The transport is open.
    pub(crate) fn on_up(&mut self, born: Instant, now: Instant) {
        self.up_us = short(now.micros_since(born));
    }

    /// The app is told of it; there are bytes for it already or not.
    pub(crate) fn on_announced(&mut self, born: Instant, now: Instant, has_bytes: bool) {
        self.announced_us = short(now.micros_since(born));
        if has_bytes {
            self.first_byte_us = self.announced_us;
        }
    }

    /// There are bytes for the app. Called for every segment: the first after the announcement counts.
    #[inline]
    pub(crate) fn on_bytes(&mut self, born: Instant, now: Instant) {
        if self.first_byte_us == NEVER && self.announced_us != NEVER {
            self.first_byte_us = short(now.micros_since(born));
        }
    }

    /// Somebody ends it: the first counts.
    pub(crate) fn on_end(&mut self, by: EndedBy) {
        if self.ended_by == EndedBy::Nobody {
            self.ended_by = by;
        }
    }

    /// Somebody resets it, whoever ended it before; what a detach or an operator ends, no app does.
    pub(crate) fn on_reset(&mut self, by: EndedBy) {
        if by != EndedBy::App || !matches!(self.ended_by, EndedBy::Detach | EndedBy::Operator) {
            self.ended_by = by;
        }
    }

    /// Whether we opened it.
    pub fn is_outbound(&self) -> bool {
        self.is_outbound
    }

    /// Who ended it.
    pub fn ended_by(&self) -> EndedBy {
        self.ended_by
    }

    /// From the connect request to the allocation of the session; 0 for an accepted one.
    pub fn requested_us(&self) -> u64 {
        u64::from(self.requested_us)
    }

    /// From the connect request until the transport was open; `None` for an accepted session, and before.
    pub fn connect_us(&self) -> Option<u64> {
        (self.is_outbound && self.up_us != NEVER).then(|| self.requested_us() + u64::from(self.up_us))
    }

    /// From the open transport to the announcement: what the establishment stages took.
    pub fn stages_us(&self) -> Option<u64> {
        (self.announced_us != NEVER).then(|| u64::from(self.announced_us.saturating_sub(self.up_us)))
    }

    /// From the announcement to the first byte that the app could read.
    pub fn first_byte_us(&self) -> Option<u64> {
        (self.first_byte_us != NEVER).then(|| u64::from(self.first_byte_us - self.announced_us))
    }
}

fn short(micros: u64) -> u32 {
    u32::try_from(micros).unwrap_or(NEVER).min(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BORN: Instant = Instant::from_micros(1_000);

    fn at(micros: u64) -> Instant {
        Instant::from_micros(1_000 + micros)
    }

    #[test]
    fn an_outbound_life_counts_from_its_request() {
        let mut life = Life::outbound(70);
        assert_eq!((life.connect_us(), life.stages_us(), life.first_byte_us()), (None, None, None));
        life.on_up(BORN, at(5));
        life.on_bytes(BORN, at(8));
        life.on_announced(BORN, at(30), false);
        assert_eq!((life.connect_us(), life.stages_us(), life.first_byte_us()), (Some(75), Some(25), None));
        life.on_bytes(BORN, at(130));
        life.on_bytes(BORN, at(999));
        assert_eq!(life.first_byte_us(), Some(100));
    }

    #[test]
    fn bytes_that_wait_for_the_announcement_come_with_it() {
        let mut life = Life::accepted();
        life.on_announced(BORN, at(7), true);
        life.on_bytes(BORN, at(9));
        assert_eq!((life.connect_us(), life.stages_us(), life.first_byte_us()), (None, Some(7), Some(0)));
    }

    #[test]
    fn the_first_to_end_counts_unless_it_is_reset() {
        let mut life = Life::accepted();
        life.on_end(EndedBy::Peer);
        life.on_end(EndedBy::App);
        assert_eq!(life.ended_by(), EndedBy::Peer);
        life.on_reset(EndedBy::App);
        assert_eq!(life.ended_by(), EndedBy::App);
        life.on_reset(EndedBy::Operator);
        life.on_reset(EndedBy::App);
        assert_eq!(life.ended_by(), EndedBy::Operator);
    }

    #[test]
    fn times_that_do_not_fit_are_cut_off_and_have_happened() {
        let mut life = Life::outbound(u64::MAX);
        life.on_up(BORN, Instant::FAR);
        assert_eq!(life.connect_us(), Some(2 * u64::from(NEVER - 1)));
    }
}
