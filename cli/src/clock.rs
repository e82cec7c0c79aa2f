//! What a run cost: wall time and CPU time of the process. The stack keeps its own time; this measures it from outside, and
//! rests by it.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Wall and CPU time since a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    wall: f64,
    cpu: f64,
}

impl Stopwatch {
    /// Starts now.
    pub(crate) fn start() -> Stopwatch {
        Stopwatch { wall: seconds(ClockId::Monotonic), cpu: seconds(ClockId::ProcessCPUTime) }
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        seconds(ClockId::Monotonic) - self.wall
    }

    /// CPU seconds of the whole process, user and system, since the start.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        seconds(ClockId::ProcessCPUTime) - self.cpu
    }
}

/// Microseconds since 1970, for the time stamps of captures.
pub(crate) fn unix_micros() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    // A clock before 1970 stamps its captures with 1970.
    u64::try_from(micros).unwrap_or(0)
}

/// The calling thread leaves its core for about so long. It is for the sake of others: nothing may be waited for in this way.
pub(crate) fn rest_for(span: Duration) {
    let tv_nsec = i64::from(span.subsec_nanos());
    // A rest that a signal cuts short was one.
    let _ = rustix::thread::nanosleep(&Timespec { tv_sec: span.as_secs().cast_signed(), tv_nsec });
}

fn seconds(clock: ClockId) -> f64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    tv_sec as f64 + tv_nsec as f64 * 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_cpu_and_wall_time() {
        let watch = Stopwatch::start();
        let mut sum = 0u64;
        while watch.cpu_seconds() <= 0.001 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(watch.seconds() > 0.0);
        assert!(unix_micros() > 1_500_000_000_000_000);
    }
}
