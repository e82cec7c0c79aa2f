//! What a session's app must still be told: a set of bits with one order of delivery.

use core::fmt;
use core::ops::BitOr;

use hoststack_transport::canary::{self, Bug};

/// Things to tell an app about a session; delivered lowest bit first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pending(u8);

impl Pending {
    /// Nothing.
    pub const NONE: Pending = Pending(0);
    /// `connected` or `accepted`.
    pub const ANNOUNCE: Pending = Pending(0x01);
    /// `urgent`.
    pub const URGENT: Pending = Pending(0x02);
    /// `readable`.
    pub const READABLE: Pending = Pending(0x04);
    /// `writable`.
    pub const WRITABLE: Pending = Pending(0x08);
    /// `peer_closed`.
    pub const PEER_CLOSED: Pending = Pending(0x10);
    /// `reset`.
    pub const RESET: Pending = Pending(0x20);
    /// `closed`, after which the session is freed.
    pub const CLOSED: Pending = Pending(0x40);
    /// What an app that closed or was told of a failure does not hear any more.
    pub(crate) const ALL_BUT_THE_END: Pending = Pending(
        Pending::URGENT.0
            | Pending::READABLE.0
            | Pending::WRITABLE.0
            | Pending::PEER_CLOSED.0
            | Pending::RESET.0,
    );
    /// Not a thing to tell: the app was told that the connect failed and must not hear of the session's end.
    pub(crate) const SILENT: Pending = Pending(0x80);

    /// Whether all of `other` is pending.
    pub const fn has(self, other: Pending) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is to be told.
    pub const fn is_empty(self) -> bool {
        self.0 & !Pending::SILENT.0 == 0
    }

    /// Whether this one thing is told before that one.
    pub(crate) fn is_before(self, other: Pending) -> bool {
        self.0 < other.0 || (canary::has(Bug::CloseOvertakesData) && self == Pending::PEER_CLOSED)
    }

    /// What is pending, by name, in the order of delivery.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        const NAMES: [&str; 8] =
            ["announce", "urgent", "readable", "writable", "peer-closed", "reset", "closed", "silent"];
        NAMES
            .into_iter()
            .enumerate()
            .filter_map(move |(bit, name)| (self.0 & (1 << bit) != 0).then_some(name))
    }

    /// Adds `other`.
    pub(crate) fn add(&mut self, other: Pending) {
        self.0 |= other.0;
    }

    /// Removes `other`.
    pub(crate) fn remove(&mut self, other: Pending) {
        self.0 &= !other.0;
    }

    /// What comes first.
    pub(crate) fn first(self) -> Option<Pending> {
        let bits = self.0 & !Pending::SILENT.0;
        if canary::has(Bug::CloseOvertakesData)
            && self.has(Pending::READABLE | Pending::PEER_CLOSED)
            && !self.has(Pending::ANNOUNCE)
        {
            return Some(Pending::PEER_CLOSED);
        }
        (bits != 0).then(|| Pending(bits & bits.wrapping_neg()))
    }
}

impl BitOr for Pending {
    type Output = Pending;
    fn bitor(self, other: Pending) -> Pending {
        Pending(self.0 | other.0)
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // covers: E04, N09
    #[test]
    fn data_comes_before_the_close_whatever_the_order_of_adding() {
        let mut pending = Pending::NONE;
        pending.add(Pending::CLOSED);
        pending.add(Pending::PEER_CLOSED);
        pending.add(Pending::READABLE);
        let mut order = Vec::new();
        while let Some(next) = pending.first() {
            order.push(next);
            pending.remove(next);
        }
        assert_eq!(order, [Pending::READABLE, Pending::PEER_CLOSED, Pending::CLOSED]);
    }
}
