//! Warnings that come by the thousand, said once a second.

use hoststack_transport::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(1);

/// When a warning was said last, and what was swallowed since.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    next: Instant,
    swallowed: u64,
}

impl RateLimit {
    /// Something to warn of happened. If it is to be said: how often it happened since it was said last, this time
    /// included.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u64> {
        self.swallowed += 1;
        if now < self.next {
            return None;
        }
        self.next = now + PAUSE;
        Some(std::mem::take(&mut self.swallowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_within_a_second_is_counted_and_said_later() {
        let mut limit = RateLimit::default();
        let said =
            [0, 1, 999_999, 1_000_000, 1_000_001, 5_000_000].map(|at| limit.admit(Instant::from_micros(at)));
        assert_eq!(said, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
