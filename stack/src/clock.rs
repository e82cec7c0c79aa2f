//! The only file that reads a clock.
#![allow(clippy::disallowed_methods)]

use hoststack_transport::Instant;

use crate::measure::StageClock;

/// What tells a stack the time: microseconds since its epoch, the same for all its threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: std::time::Instant,
}

impl Clock {
    /// A clock whose epoch is now.
    pub(crate) fn start() -> Clock {
        Clock { epoch: std::time::Instant::now() }
    }

    /// Microseconds since 1970 now, as the host's clock has it: for what is read beside other hosts' records.
    pub(crate) fn unix_us() -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// The time now.
    pub(crate) fn now(&self) -> Instant {
        let micros = self.epoch.elapsed().as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

impl StageClock for Clock {
    fn nanos(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
