//! Waiting for the outside world: the only place of the test house that reads a clock or sleeps.
#![expect(
    clippy::disallowed_methods,
    reason = "kernel peers live in real time; every wait is a polled condition with a deadline"
)]

use std::time::{Duration, Instant};

/// How long a peer may take to become ready before a test fails.
pub const READY: Duration = Duration::from_secs(20);

/// Pause between two looks at a condition: short beside a process start, long beside a system call.
const POLL: Duration = Duration::from_millis(5);

/// Looks at `condition` until it gives a value or `limit` has passed; `None` means that the time ran out.
///
/// The condition is looked at once more after the last pause, so a slow machine gets a fair last look.
pub fn poll<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if start.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// As [`poll`], for a condition that must come true.
///
/// # Panics
/// When `limit` passes first; the message says what was waited for.
pub fn until<T>(what: &str, limit: Duration, condition: impl FnMut() -> Option<T>) -> T {
    poll(limit, condition).unwrap_or_else(|| panic!("waited {limit:?} in vain for {what}"))
}

/// A running measurement of real time.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_returns_the_first_value_and_stops_looking() {
        let mut looks = 0;
        let got = poll(READY, || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(got, Some(3));
        assert_eq!(looks, 3);
    }

    #[test]
    fn poll_gives_up_at_its_limit_after_looking_at_least_once() {
        let mut looks = 0;
        let got: Option<()> = poll(Duration::ZERO, || {
            looks += 1;
            None
        });
        assert_eq!(got, None);
        assert_eq!(looks, 1);
    }
}
