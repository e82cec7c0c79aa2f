//! Time as an argument: microseconds since the stack's epoch, one epoch for all its threads.

use core::fmt;
use core::ops::{Add, Sub};

pub use core::time::Duration;

/// A moment, in microseconds since the stack's epoch.
///
/// Threads read the clock once per step, so two threads' moments may disagree by a step: differences saturate at
/// zero instead of wrapping or panicking.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The stack's epoch.
    pub const ZERO: Instant = Instant(0);
    /// Later than any moment a stack reaches; the deadline of something that has none.
    pub const FAR: Instant = Instant(u64::MAX);

    /// The moment `micros` microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Instant {
        Instant(micros)
    }

    /// The moment `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Instant {
        Instant(millis * 1000)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Microseconds after `earlier`; zero if it is not after it.
    pub const fn micros_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `micros` microseconds later; [`Instant::FAR`] at most.
    pub const fn plus_micros(self, micros: u64) -> Instant {
        Instant(self.0.saturating_add(micros))
    }

    /// The earliest of some deadlines; none if there is none.
    #[inline]
    pub fn earliest<const N: usize>(deadlines: [Option<Instant>; N]) -> Option<Instant> {
        let mut earliest = Instant::FAR;
        for deadline in deadlines {
            earliest = earliest.min(deadline.unwrap_or(Instant::FAR));
        }
        (earliest != Instant::FAR).then_some(earliest)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, after: Duration) -> Instant {
        self.plus_micros(u64::try_from(after.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    /// Saturates at zero, like [`Instant::since`].
    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Instant::FAR { f.write_str("far") } else { fmt::Display::fmt(self, f) }
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_saturate_because_threads_disagree_by_a_step() {
        let (early, late) = (Instant::from_micros(5), Instant::from_micros(9));
        assert_eq!(late - early, Duration::from_micros(4));
        assert_eq!(early - late, Duration::ZERO);
        assert_eq!(Instant::FAR + Duration::from_secs(1), Instant::FAR);
    }

    #[test]
    fn the_earliest_deadline_is_found_among_some_that_are_none() {
        let at = |micros| Some(Instant::from_micros(micros));
        assert_eq!(Instant::earliest([at(7), None, at(5), at(9)]), at(5));
        assert_eq!(Instant::earliest([None, None]), None);
    }
}
