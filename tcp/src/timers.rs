//! What fires when. Timers are lazy: a connection stores its deadlines as numbers and has one wheel entry of interest;
//! re-arming later than that entry costs a store, and the entry re-inserts itself when it fires too early.

use hoststack_transport::{Instant, Key, TimerWheel};

/// Whose wheel entry it is, in 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey {
    /// Slot (28 bits) and, in the top bit, the pool.
    slot: u32,
    generation: u32,
}

/// The pool that a [`TimerKey`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerOwner {
    /// A connection.
    Connection(Key),
    /// A SYN-RECEIVED record.
    SynReceived(Key),
}

const SYN_RECEIVED: u32 = 1 << 31;

impl TimerKey {
    pub(crate) fn owner(self) -> TimerOwner {
        let key = Key { slot: self.slot & !SYN_RECEIVED, generation: self.generation };
        if self.slot & SYN_RECEIVED == 0 { TimerOwner::Connection(key) } else { TimerOwner::SynReceived(key) }
    }
}

impl From<TimerOwner> for TimerKey {
    fn from(owner: TimerOwner) -> TimerKey {
        match owner {
            TimerOwner::Connection(key) => TimerKey { slot: key.slot, generation: key.generation },
            TimerOwner::SynReceived(key) => {
                TimerKey { slot: key.slot | SYN_RECEIVED, generation: key.generation }
            }
        }
    }
}

/// The wheel entries of one owner that still mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WheelEntry {
    /// Deadline of the earliest; `FAR` when there is none.
    at: Instant,
    /// Deadline of one behind it, kept so that a short timer within a long one does not leave an entry each time.
    behind: Instant,
}

impl WheelEntry {
    pub(crate) const NONE: WheelEntry = WheelEntry { at: Instant::FAR, behind: Instant::FAR };

    /// Makes sure that something fires at `deadline` or earlier.
    #[inline]
    pub(crate) fn arm(&mut self, deadline: Instant, owner: TimerOwner, wheel: &mut TimerWheel<TimerKey>) {
        if deadline < self.at {
            wheel.insert(deadline, owner.into());
            self.behind = self.at.min(self.behind);
            self.at = deadline;
        }
    }

    /// Something else than the wheel fires at `deadline`, the first of this owner.
    pub(crate) fn note_queued(&mut self, deadline: Instant) {
        debug_assert!(self.at == Instant::FAR, "a queue is for the first deadline");
        self.at = deadline;
    }

    /// An entry of this owner fired: whether it is the one of interest. If so, the one behind it takes its place.
    pub(crate) fn fired(&mut self, at: Instant) -> bool {
        if at != self.at {
            return false;
        }
        self.at = self.behind;
        self.behind = Instant::FAR;
        true
    }

    /// Whether an entry fires at `deadline` or earlier.
    pub(crate) fn covers(&self, deadline: Instant) -> bool {
        self.at <= deadline
    }
}

/// What a connection's retransmission timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Not armed.
    None,
    /// Something in flight must be acknowledged (RFC 6298).
    Retransmit,
    /// More may be found lost when it fires: the reordering timer (RFC 8985 §6.2).
    Reordering,
    /// The tail of what is in flight is probed (RFC 8985 §7).
    TailProbe,
    /// The peer's window forbids what waits: probe it (RFC 9293 §3.8.6.1).
    Persist,
    /// An idle peer is asked whether it is still there (RFC 9293 §3.8.4).
    Keepalive,
    /// The peer's FIN must come, for the app is gone.
    FinWait2,
}

impl Purpose {
    /// Whether it looks after what is in flight.
    pub(crate) const fn is_for_flight(self) -> bool {
        matches!(self, Purpose::Retransmit | Purpose::Reordering | Purpose::TailProbe | Purpose::Persist)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Purpose::None => "none",
            Purpose::Retransmit => "retransmit",
            Purpose::Reordering => "reordering",
            Purpose::TailProbe => "tail-probe",
            Purpose::Persist => "persist",
            Purpose::Keepalive => "keepalive",
            Purpose::FinWait2 => "fin-wait-2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_timer_key_takes_8_bytes_and_gives_its_owner_back() {
        assert_eq!(size_of::<TimerKey>(), 8);
        let key = Key { slot: (1 << 28) - 1, generation: 77 };
        for owner in [TimerOwner::Connection(key), TimerOwner::SynReceived(key)] {
            assert_eq!(TimerKey::from(owner).owner(), owner);
        }
    }

    #[test]
    fn a_short_timer_within_a_long_one_leaves_no_entries_behind() {
        let mut wheel = TimerWheel::new(Instant::ZERO);
        let owner = TimerOwner::Connection(Key { slot: 1, generation: 1 });
        let mut entry = WheelEntry::NONE;
        let far = Instant::from_millis(3_600_000);
        entry.arm(far, owner, &mut wheel);
        let mut fired = Vec::new();
        for ms in (40..40_000).step_by(40) {
            entry.arm(Instant::from_millis(ms), owner, &mut wheel);
            wheel.advance(Instant::from_millis(ms), &mut fired);
            assert!(fired.drain(..).any(|(at, _)| entry.fired(at)));
            entry.arm(far, owner, &mut wheel);
            assert!(entry.covers(far));
            assert!(wheel.len() <= 2);
        }
    }
}
