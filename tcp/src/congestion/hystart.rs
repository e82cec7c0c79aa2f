//! HyStart++ (RFC 9406): leaves the first slow start when the round trip grows, before the queue overflows.
//!
//! Each round of slow start has a least round trip. When it rises well above that of the round before, a queue is
//! building: conservative slow start (CSS) follows, which grows a quarter as fast. If the round trip falls again the
//! rise was noise and slow start resumes; if it does not for five rounds, congestion avoidance begins.

/// MIN_RTT_THRESH, in microseconds.
const MIN_RTT_THRESH_US: u32 = 4_000;
/// MAX_RTT_THRESH, in microseconds.
const MAX_RTT_THRESH_US: u32 = 16_000;
/// MIN_RTT_DIVISOR.
const MIN_RTT_DIVISOR: u32 = 8;
/// N_RTT_SAMPLE.
const N_RTT_SAMPLE: u8 = 8;
/// CSS_GROWTH_DIVISOR.
const CSS_GROWTH_DIVISOR: u32 = 4;
/// CSS_ROUNDS.
const CSS_ROUNDS: u8 = 5;

/// No round trip known.
const INFINITY: u32 = u32::MAX;

/// The initial slow start of a connection: standard slow start or CSS.
#[derive(Clone, Debug)]
pub(super) struct HyStart {
    /// lastRoundMinRTT, in microseconds.
    last_round_min_rtt: u32,
    /// currentRoundMinRTT, in microseconds.
    current_round_min_rtt: u32,
    /// cssBaselineMinRtt, in microseconds; [`INFINITY`] outside CSS.
    css_baseline_min_rtt: u32,
    /// rttSampleCount, as far as it matters.
    rtt_sample_count: u8,
    /// Rounds of CSS that ended.
    css_rounds: u8,
}

impl HyStart {
    /// At the start of a connection.
    pub(super) fn new() -> HyStart {
        HyStart {
            last_round_min_rtt: INFINITY,
            current_round_min_rtt: INFINITY,
            css_baseline_min_rtt: INFINITY,
            rtt_sample_count: 0,
            css_rounds: 0,
        }
    }

    /// Whether this is conservative slow start.
    pub(super) fn is_conservative(&self) -> bool {
        self.css_baseline_min_rtt != INFINITY
    }

    /// By how much `bytes_acked` open the window (RFC 9406 §4.2).
    pub(super) fn growth(&self, bytes_acked: u32) -> u32 {
        // Deviates: §4.2 has a limit L of 8 segments for a sender that does not pace. Receivers that acknowledge all segments
        // of a step at once, as this stack does, would keep the window from doubling. Linux has none.
        if self.is_conservative() { bytes_acked / CSS_GROWTH_DIVISOR } else { bytes_acked }
    }

    /// An acknowledgment came, after the window grew: the round trip that it measured, and whether a round ended with
    /// it. Returns whether slow start is over.
    #[must_use]
    pub(super) fn on_ack(&mut self, rtt_us: Option<u32>, is_round_end: bool) -> bool {
        if let Some(rtt_us) = rtt_us {
            self.current_round_min_rtt = self.current_round_min_rtt.min(rtt_us);
            self.rtt_sample_count = self.rtt_sample_count.saturating_add(1);
        }
        if self.rtt_sample_count >= N_RTT_SAMPLE {
            self.judge();
        }
        if !is_round_end {
            return false;
        }
        self.last_round_min_rtt = self.current_round_min_rtt;
        self.current_round_min_rtt = INFINITY;
        self.rtt_sample_count = 0;
        if !self.is_conservative() {
            return false;
        }
        // RFC 9406 §4.2: "If the transition into CSS happens in the middle of a round, that partial round counts
        // towards the limit."
        self.css_rounds += 1;
        self.css_rounds >= CSS_ROUNDS
    }

    /// Between slow start and CSS, once a round has samples enough.
    fn judge(&mut self) {
        if self.is_conservative() {
            if self.current_round_min_rtt < self.css_baseline_min_rtt {
                // The exit was spurious: slow start resumes.
                self.css_baseline_min_rtt = INFINITY;
            }
        } else if self.last_round_min_rtt != INFINITY {
            let threshold =
                (self.last_round_min_rtt / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH_US, MAX_RTT_THRESH_US);
            if self.current_round_min_rtt >= self.last_round_min_rtt.saturating_add(threshold) {
                self.css_baseline_min_rtt = self.current_round_min_rtt;
                self.css_rounds = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of `samples` acknowledgments of which each measured `rtt_us`; whether slow start ended.
    fn round(start: &mut HyStart, samples: u32, rtt_us: u32) -> bool {
        let mut is_over = false;
        for sample in 1..=samples {
            assert!(!is_over, "only a round's end ends slow start");
            is_over = start.on_ack(Some(rtt_us), sample == samples);
        }
        is_over
    }

    /// After a round of 80 ms, so that the threshold is 10 ms.
    fn after_80_ms() -> HyStart {
        let mut start = HyStart::new();
        assert!(!round(&mut start, 10, 80_000));
        start
    }

    #[test]
    fn takes_16_bytes_at_most() {
        assert!(size_of::<HyStart>() <= 16);
    }

    #[test]
    fn a_rise_of_an_eighth_begins_css_and_one_microsecond_less_does_not() {
        let mut start = after_80_ms();
        round(&mut start, 8, 89_999);
        assert!(!start.is_conservative());
        let mut start = after_80_ms();
        round(&mut start, 8, 90_000);
        assert!(start.is_conservative());
    }

    #[test]
    fn the_threshold_is_4_ms_at_least_and_16_ms_at_most() {
        for (last, threshold) in
            [(1, 4_000), (8_000, 4_000), (40_000, 5_000), (128_000, 16_000), (500_000, 16_000)]
        {
            for (rise, begins) in [(threshold - 1, false), (threshold, true)] {
                let mut start = HyStart::new();
                round(&mut start, 8, last);
                round(&mut start, 8, last + rise);
                assert_eq!(start.is_conservative(), begins, "{last} and {rise} more");
            }
        }
    }

    #[test]
    fn seven_samples_say_nothing_and_the_eighth_does() {
        let mut start = after_80_ms();
        for _ in 0..7 {
            assert!(!start.on_ack(Some(200_000), false));
            assert!(!start.on_ack(None, false), "an acknowledgment without a measurement is no sample");
        }
        assert!(!start.is_conservative());
        assert!(!start.on_ack(Some(200_000), false));
        assert!(start.is_conservative());
    }

    #[test]
    fn one_low_sample_is_the_rounds_minimum() {
        let mut start = after_80_ms();
        assert!(!start.on_ack(Some(81_000), false));
        round(&mut start, 20, 200_000);
        assert!(!start.is_conservative());
    }

    #[test]
    fn the_first_round_and_one_after_a_round_without_samples_are_not_judged() {
        let mut start = HyStart::new();
        round(&mut start, 20, 900_000);
        assert!(!start.is_conservative());
        let mut start = after_80_ms();
        assert!(!start.on_ack(None, true));
        round(&mut start, 20, 900_000);
        assert!(!start.is_conservative());
    }

    #[test]
    fn css_ends_slow_start_after_five_rounds_the_partial_one_included() {
        let mut start = after_80_ms();
        assert!(!round(&mut start, 20, 100_000), "CSS begins within this round");
        for _ in 0..3 {
            assert!(!round(&mut start, 20, 100_000));
        }
        assert!(round(&mut start, 20, 100_000));
    }

    #[test]
    fn slow_start_resumes_when_the_round_trip_falls_below_the_baseline_and_css_counts_afresh() {
        let mut start = after_80_ms();
        for _ in 0..4 {
            assert!(!round(&mut start, 8, 100_000));
        }
        assert!(start.is_conservative());
        round(&mut start, 7, 99_999);
        assert!(start.is_conservative(), "seven samples");
        let mut start = after_80_ms();
        for _ in 0..3 {
            assert!(!round(&mut start, 8, 100_000));
        }
        assert!(!round(&mut start, 8, 99_999));
        assert!(!start.is_conservative());
        for _ in 0..4 {
            assert!(!round(&mut start, 8, 120_000));
            assert!(start.is_conservative());
        }
        assert!(round(&mut start, 8, 120_000));
    }

    #[test]
    fn css_grows_a_quarter_as_fast() {
        let mut start = after_80_ms();
        assert_eq!([800, 8_000, 8_001, 64_000].map(|bytes| start.growth(bytes)), [800, 8_000, 8_001, 64_000]);
        round(&mut start, 8, 100_000);
        assert_eq!([800, 8_000, 8_001, 64_000].map(|bytes| start.growth(bytes)), [200, 2_000, 2_000, 16_000]);
    }
}
