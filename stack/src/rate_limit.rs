//! Warnings that come by the thousand, said once a second.

use hoststack_transport::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(1);

/// Warnings by what they are of: one that comes by the thousand silences no other.
#[derive(Debug, Default)]
pub(crate) struct RateLimits(Vec<RateLimit>);

/// When a warning was said last, and what was swallowed since.
#[derive(Debug)]
struct RateLimit {
    of: &'static str,
    next: Instant,
    swallowed: u64,
}

impl RateLimits {
    /// Something to warn of happened. If it is to be said: how often it happened since it was said last, this time
    /// included.
    pub(crate) fn admit(&mut self, of: &'static str, now: Instant) -> Option<u64> {
        // There are few.
        let place = self.0.iter().position(|limit| limit.of == of).unwrap_or_else(|| {
            self.0.push(RateLimit { of, next: Instant::ZERO, swallowed: 0 });
            self.0.len() - 1
        });
        let limit = &mut self.0[place];
        limit.swallowed += 1;
        if now < limit.next {
            return None;
        }
        limit.next = now + PAUSE;
        Some(std::mem::take(&mut limit.swallowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_within_a_second_is_counted_and_said_later() {
        let mut limits = RateLimits::default();
        let said = [0, 1, 999_999, 1_000_000, 1_000_001, 5_000_000]
            .map(|at| limits.admit("sessions", Instant::from_micros(at)));
        assert_eq!(said, [Some(1), None, None, Some(3), None, Some(2)]);
    }

    #[test]
    fn each_limit_is_said_and_counted_by_itself() {
        let mut limits = RateLimits::default();
        let said = [(0, "sessions"), (1, "parked_max"), (2, "parked_max"), (1_000_001, "parked_max")]
            .map(|(at, of)| limits.admit(of, Instant::from_micros(at)));
        assert_eq!(said, [Some(1), Some(1), None, Some(2)]);
    }
}
