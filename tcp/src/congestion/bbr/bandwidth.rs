//! What the model remembers of rates: the filter of max_bw (§5.5.3), and of the data that comes acknowledged in lumps
//! (§5.5.9).

use hoststack_transport::Instant;

use super::params::*;

/// BBR.max_bw_filter: the highest delivery rate of this cycle of ProbeBW and of the one before, in bytes per second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MaxBw {
    previous: u64,
    current: u64,
}

impl MaxBw {
    /// BBR.max_bw; 0 before the first sample.
    pub(super) fn value(&self) -> u64 {
        self.previous.max(self.current)
    }

    /// UpdateMaxBw (§5.5.5): a sample that the application held down counts only if it is the highest.
    pub(super) fn update(&mut self, rate: u64, is_app_limited: bool) {
        if rate >= self.value() || !is_app_limited {
            self.current = self.current.max(rate);
        }
    }

    /// AdvanceMaxBwFilter (§5.5.6): the next cycle begins. A cycle without samples does not push out one that had some.
    pub(super) fn advance(&mut self) {
        if self.current != 0 {
            self.previous = self.current;
            self.current = 0;
        }
    }
}

/// BBR.extra_acked (§5.5.9).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExtraAcked {
    /// BBR.extra_acked_interval_start.
    interval_start: Instant,
    /// BBR.extra_acked_delivered.
    delivered: u32,
    /// The highest excess of this half of the window and of the half before.
    halves: [u32; 2],
    /// BBR.round_count when this half began.
    half_start: u32,
}

impl ExtraAcked {
    /// A new interval begins: at the start, and after idleness (§5.4.1).
    pub(super) fn restart(&mut self, now: Instant) {
        self.interval_start = now;
        self.delivered = 0;
    }

    /// The estimate, in bytes.
    pub(super) fn value(&self) -> u32 {
        self.halves[0].max(self.halves[1])
    }

    /// UpdateACKAggregation. `bw` is BBR.bw, `round` BBR.round_count.
    pub(super) fn update(
        &mut self,
        now: Instant,
        newly_acked: u32,
        bw: u64,
        cwnd: u32,
        round: u32,
        is_full: bool,
    ) {
        // The window: 1 round in Startup. Deviates: afterwards two halves of it, not a filter of single rounds, so
        // that it covers 5 to 10 rounds.
        let half = if is_full { EXTRA_ACKED_FILTER_ROUNDS / 2 } else { 1 };
        let elapsed = round.wrapping_sub(self.half_start);
        if elapsed >= half {
            self.halves = [0, if is_full && elapsed < 2 * half { self.halves[0] } else { 0 }];
            self.half_start = round;
        }
        let mut expected = bw.saturating_mul(now.micros_since(self.interval_start)) / 1_000_000;
        if u64::from(self.delivered) <= expected {
            self.restart(now);
            expected = 0;
        }
        self.delivered = self.delivered.saturating_add(newly_acked);
        let extra = window_from(u64::from(self.delivered).saturating_sub(expected)).min(cwnd);
        self.halves[0] = self.halves[0].max(extra);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_rate_is_kept_for_this_cycle_and_the_next() {
        let mut bw = MaxBw::default();
        bw.update(100, true);
        bw.update(90, true);
        assert_eq!(bw.value(), 100, "an app-limited sample counts if it is the highest");
        bw.advance();
        bw.update(60, false);
        assert_eq!(bw.value(), 100);
        bw.advance();
        assert_eq!(bw.value(), 60);
        bw.advance();
        bw.advance();
        assert_eq!(bw.value(), 60, "a cycle without samples is none");
    }

    #[test]
    fn what_is_acknowledged_beyond_the_rate_is_extra_and_forgotten_after_ten_rounds() {
        let mut extra = ExtraAcked::default();
        extra.restart(Instant::ZERO);
        // 1 MB/s: 1000 bytes a millisecond. 10 kB come at once after 10 ms; then 2 kB after 1 ms.
        extra.update(Instant::from_millis(10), 10_000, 1_000_000, 50_000, 1, true);
        assert_eq!(extra.value(), 10_000, "the interval begins with what comes late");
        extra.update(Instant::from_millis(11), 2000, 1_000_000, 50_000, 1, true);
        assert_eq!(extra.value(), 11_000);
        // No more than the window; and an interval that fell behind begins again.
        extra.update(Instant::from_millis(12), 9000, 1_000_000, 15_000, 2, true);
        assert_eq!(extra.value(), 15_000);
        extra.update(Instant::from_millis(1000), 500, 1_000_000, 15_000, 5, true);
        assert_eq!((extra.value(), extra.delivered), (15_000, 500));
        extra.update(Instant::from_millis(2000), 500, 1_000_000, 15_000, 10, true);
        extra.update(Instant::from_millis(3000), 500, 1_000_000, 15_000, 15, true);
        assert_eq!(extra.value(), 500);
    }

    #[test]
    fn in_startup_only_the_round_at_hand_counts() {
        let mut extra = ExtraAcked::default();
        extra.restart(Instant::ZERO);
        extra.update(Instant::from_millis(1), 9000, 1_000_000, 50_000, 1, false);
        extra.update(Instant::from_millis(90), 700, 1_000_000, 50_000, 2, false);
        assert_eq!(extra.value(), 700);
    }
}
