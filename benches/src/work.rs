//! What one measured run hands back, and the figures drawn from it.

use serde::{Deserialize, Serialize};

/// One measured run: how much was done, and what it took. Set-up is never in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Operations completed; each workload says what it counts as one.
    pub operations: u64,
    /// Wall time, seconds.
    pub wall_seconds: f64,
    /// CPU time of the whole process (user and system, all threads), seconds.
    pub cpu_seconds: f64,
    /// Payload bytes that reached the receiving app, or for `memory` the bytes that resident memory grew by.
    pub bytes: u64,
}

impl Work {
    /// Operations per second of wall time; 0 when no time passed.
    pub fn rate_wall(&self) -> f64 {
        per(self.operations as f64, self.wall_seconds)
    }

    /// Operations per second of CPU time; 0 when no CPU time was counted.
    pub fn rate_cpu(&self) -> f64 {
        per(self.operations as f64, self.cpu_seconds)
    }

    /// Payload gigabits (10^9) per second of wall time.
    pub fn gbit_per_wall_second(&self) -> f64 {
        per(self.bytes as f64 * 8e-9, self.wall_seconds)
    }

    /// Payload gigabits (10^9) per second of CPU time.
    pub fn gbit_per_cpu_second(&self) -> f64 {
        per(self.bytes as f64 * 8e-9, self.cpu_seconds)
    }

    /// Bytes per operation; what `memory` reports.
    pub fn bytes_per_operation(&self) -> f64 {
        per(self.bytes as f64, self.operations as f64)
    }

    /// Nanoseconds of CPU time per operation; 0 when there was none.
    pub fn cpu_nanos_per_operation(&self) -> f64 {
        per(self.cpu_seconds * 1e9, self.operations as f64)
    }

    /// Nanoseconds of wall time per operation; 0 when there was none.
    pub fn nanos_per_operation(&self) -> f64 {
        per(self.wall_seconds * 1e9, self.operations as f64)
    }
}

/// `amount / of`, and 0 where the division has no meaning, so that a report never prints `NaN` or `inf`.
pub(crate) fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_the_counts() {
        let work = Work { operations: 4_000, wall_seconds: 2.0, cpu_seconds: 1.0, bytes: 1_000_000_000 };
        assert_eq!(work.rate_wall(), 2_000.0);
        assert_eq!(work.rate_cpu(), 4_000.0);
        assert!((work.gbit_per_wall_second() - 4.0).abs() < 1e-9);
        assert!((work.gbit_per_cpu_second() - 8.0).abs() < 1e-9);
        assert_eq!(work.bytes_per_operation(), 250_000.0);
        assert_eq!(work.nanos_per_operation(), 500_000.0);
        assert_eq!(work.cpu_nanos_per_operation(), 250_000.0);
    }

    #[test]
    fn nothing_done_in_no_time_is_zero_everywhere() {
        let work = Work::default();
        assert_eq!([work.rate_wall(), work.rate_cpu(), work.bytes_per_operation()], [0.0; 3]);
        assert_eq!([work.gbit_per_wall_second(), work.nanos_per_operation()], [0.0; 2]);
    }
}
