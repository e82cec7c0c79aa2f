//! The round-trip time estimator and the retransmission timeout (RFC 6298).
//!
//! Which segments may be measured (Karn's rule, RFC 6298 §3) is the caller's business.

/// Bounds of the retransmission timeout, in microseconds: the same for all connections of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtoLimits {
    /// Never less is added to the round trip. RFC 6298 (2.4) says 1 s for the whole; all stacks in use say less.
    pub min_us: u32,
    /// Never less than this before back-off.
    pub floor_us: u32,
    /// Added after back-off.
    pub slop_us: u32,
    /// Never longer, back-off included (RFC 6298 (2.5): at least 60 s).
    pub max_us: u32,
    /// Before the first sample (RFC 6298 (2.1): 1 s).
    pub initial_us: u32,
}

impl RtoLimits {
    pub(crate) fn of(config: &crate::config::TcpConfig) -> RtoLimits {
        let micros =
            |duration: hoststack_transport::Duration| u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        RtoLimits {
            min_us: micros(config.rto_min),
            floor_us: micros(config.rto_floor),
            slop_us: micros(config.rto_slop),
            max_us: micros(config.rto_max),
            initial_us: micros(config.rto_initial),
        }
    }
}

impl Default for RtoLimits {
    /// 200 ms, 60 s, 1 s.
    fn default() -> RtoLimits {
        RtoLimits { min_us: 200_000, floor_us: 0, slop_us: 0, max_us: 60_000_000, initial_us: 1_000_000 }
    }
}

/// The clock granularity G: timers are kept to the microsecond, and fire once per step, some tens of them.
const GRANULARITY_US: u32 = 64;
/// RFC 6298 (5.7): the RTO for data, when a SYN was retransmitted on a timeout.
const AFTER_SYN_TIMEOUT_US: u32 = 3_000_000;
/// Longer samples are taken for this (268 s), so that scaled values fit.
const SAMPLE_MAX_US: u32 = 1 << 28;
/// Doubling more often changes nothing: 64 us doubled 26 times is over an hour.
const BACK_OFFS_MAX: u8 = 26;

/// SRTT and RTTVAR of a connection, and the back-off of its retransmission timer. Times are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RttEstimator {
    /// SRTT x 8, so that the average does not lose its fractions; 0 before the first sample.
    srtt_x8: u32,
    /// RTTVAR x 4.
    var_x4: u32,
    /// The latest sample.
    latest_us: u32,
    /// The least sample; `u32::MAX` before the first.
    min_us: u32,
    /// How often the timeout was doubled since the last new acknowledgment.
    back_offs: u8,
    /// A SYN timed out, and nothing was measured since.
    syn_timed_out: bool,
}

impl RttEstimator {
    /// Without samples.
    pub const fn new() -> RttEstimator {
        RttEstimator {
            srtt_x8: 0,
            var_x4: 0,
            latest_us: 0,
            min_us: u32::MAX,
            back_offs: 0,
            syn_timed_out: false,
        }
    }

    /// Takes a measurement of a segment that was sent once, or was told apart by timestamps (RFC 6298 §3; RFC 9293 §3.8.1,
    /// MUST-18).
    pub fn sample(&mut self, rtt_us: u32) {
        // Zero means "no sample" in `srtt_x8`, and nothing returns in less than a microsecond.
        let rtt_us = rtt_us.clamp(1, SAMPLE_MAX_US);
        if self.srtt_x8 == 0 {
            // RFC 6298 (2.2): SRTT <- R, RTTVAR <- R/2.
            self.srtt_x8 = rtt_us * 8;
            self.var_x4 = rtt_us * 2;
        } else {
            // RFC 6298 (2.3): RTTVAR first, with beta 1/4 and the old SRTT; then SRTT, with alpha 1/8.
            let error = (self.srtt_x8 / 8).abs_diff(rtt_us);
            self.var_x4 = self.var_x4 - self.var_x4 / 4 + error;
            self.srtt_x8 = (self.srtt_x8 - self.srtt_x8 / 8 + rtt_us).max(8);
        }
        self.latest_us = rtt_us;
        self.note_least(rtt_us);
        self.syn_timed_out = false;
    }

    /// A round trip that is no sample, because a later part of the same acknowledgment took longer, may be the least.
    pub fn note_least(&mut self, rtt_us: u32) {
        self.min_us = self.min_us.min(rtt_us.max(1));
    }

    /// The retransmission timeout, back-off included, within `limits`.
    pub fn rto_us(&self, limits: &RtoLimits) -> u32 {
        let base = self.base_rto_us(limits);
        // In whole milliseconds where less does not matter.
        let base = if base >= 100_000 { base / 1000 * 1000 } else { base };
        let doubled = u64::from(base) << self.back_offs;
        u32::try_from(doubled + u64::from(limits.slop_us)).unwrap_or(u32::MAX).min(limits.max_us)
    }

    /// The retransmission timeout without back-off, within `limits`.
    pub fn base_rto_us(&self, limits: &RtoLimits) -> u32 {
        let rto = if self.srtt_x8 != 0 {
            // RFC 6298 (2.3): SRTT + max(G, 4 * RTTVAR). At most 2^28 + 2^30: cannot overflow.
            // Deviates: (2.4) floors the whole; as in Linux the floor is for what is added to the round trip, or a long
            // path whose round trip hardly varies would time out with the first acknowledgment that is delayed.
            (self.srtt_x8 / 8 + self.var_x4.max(GRANULARITY_US).max(limits.min_us)).max(limits.floor_us)
        } else if self.syn_timed_out {
            limits.initial_us.max(AFTER_SYN_TIMEOUT_US)
        } else {
            limits.initial_us
        };
        rto.min(limits.max_us)
    }

    /// The retransmission timer expired: doubles the timeout (RFC 6298 (5.5); RFC 9293 §3.8.2, MUST-19).
    pub fn back_off(&mut self) {
        self.back_offs = (self.back_offs + 1).min(BACK_OFFS_MAX);
    }

    /// New data was acknowledged: the timeout is what was measured again (RFC 6298 §5, last paragraph).
    pub fn reset_back_off(&mut self) {
        self.back_offs = 0;
    }

    /// How often the timeout was doubled since the last [`RttEstimator::reset_back_off`].
    pub fn back_offs(&self) -> u8 {
        self.back_offs
    }

    /// Data transmission begins after the SYN (or SYN-ACK) timed out at least once: the timeout is 3 s until something
    /// was measured (RFC 6298 (5.7)). Ends the back-off of the SYN.
    pub fn begin_after_syn_timeout(&mut self) {
        self.back_offs = 0;
        self.syn_timed_out = true;
    }

    /// SRTT, once something was measured.
    pub fn srtt_us(&self) -> Option<u32> {
        (self.srtt_x8 != 0).then_some(self.srtt_x8 / 8)
    }

    /// RTTVAR; 0 before the first sample.
    pub fn var_us(&self) -> u32 {
        self.var_x4 / 4
    }

    /// The latest sample.
    pub fn latest_us(&self) -> Option<u32> {
        (self.srtt_x8 != 0).then_some(self.latest_us)
    }

    /// The least sample of the connection.
    pub fn min_us(&self) -> Option<u32> {
        (self.srtt_x8 != 0).then_some(self.min_us)
    }
}

impl Default for RttEstimator {
    fn default() -> RttEstimator {
        RttEstimator::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: RtoLimits =
        RtoLimits { min_us: 1, floor_us: 0, slop_us: 0, max_us: 60_000_000, initial_us: 1_000_000 };

    fn after(samples: &[u32]) -> RttEstimator {
        let mut rtt = RttEstimator::new();
        samples.iter().for_each(|&us| rtt.sample(us));
        rtt
    }

    #[test]
    fn takes_20_bytes_at_most() {
        assert!(size_of::<RttEstimator>() <= 20);
    }

    #[test]
    fn without_samples_the_timeout_is_the_initial_one_doubled_at_each_expiry() {
        let mut rtt = RttEstimator::new();
        let mut seen = [0; 8];
        for us in &mut seen {
            *us = rtt.rto_us(&LIMITS) / 1_000_000;
            rtt.back_off();
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 60, 60]);
        rtt.reset_back_off();
        assert_eq!(rtt.rto_us(&LIMITS), 1_000_000);
        assert_eq!((rtt.srtt_us(), rtt.min_us(), rtt.latest_us()), (None, None, None));
    }

    // covers: MUST-18
    #[test]
    fn samples_give_the_values_worked_out_by_hand_from_rfc_6298() {
        let rtt = after(&[100_000]);
        // SRTT 100, RTTVAR 50, RTO 100 + 4*50.
        assert_eq!((rtt.srtt_us(), rtt.var_us(), rtt.rto_us(&LIMITS)), (Some(100_000), 50_000, 300_000));
        let rtt = after(&[100_000, 180_000]);
        // RTTVAR 3/4*50 + 1/4*80 = 57.5; SRTT 7/8*100 + 1/8*180 = 110; RTO 110 + 230.
        assert_eq!((rtt.srtt_us(), rtt.var_us(), rtt.rto_us(&LIMITS)), (Some(110_000), 57_500, 340_000));
        let rtt = after(&[100_000, 180_000, 30_000]);
        // RTTVAR 3/4*57.5 + 1/4*80 = 63.125; SRTT 7/8*110 + 1/8*30 = 100; RTO 100 + 252.5.
        assert_eq!((rtt.srtt_us(), rtt.var_us(), rtt.rto_us(&LIMITS)), (Some(100_000), 63_125, 352_000));
        assert_eq!((rtt.min_us(), rtt.latest_us()), (Some(30_000), Some(30_000)));
    }

    #[test]
    fn the_limits_bind_below_and_above() {
        let limits = RtoLimits::default();
        assert_eq!(after(&[500]).rto_us(&limits), 200_000);
        let mut rtt = after(&[40_000_000]);
        assert_eq!(rtt.rto_us(&limits), 60_000_000);
        for _ in 0..255 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto_us(&limits), 60_000_000);
        rtt.reset_back_off();
        assert_eq!(after(&[u32::MAX]).base_rto_us(&RtoLimits { max_us: u32::MAX, ..limits }), 3 << 28);
    }

    // covers: MUST-19
    #[test]
    fn back_off_starts_from_what_was_measured_and_ends_with_a_new_acknowledgment() {
        let mut rtt = after(&[100_000]);
        rtt.back_off();
        rtt.back_off();
        assert_eq!((rtt.rto_us(&LIMITS), rtt.base_rto_us(&LIMITS), rtt.back_offs()), (1_200_000, 300_000, 2));
        rtt.reset_back_off();
        assert_eq!(rtt.rto_us(&LIMITS), 300_000);
    }

    #[test]
    fn after_a_syn_timeout_data_starts_with_3_seconds_until_the_first_sample() {
        let mut rtt = RttEstimator::new();
        rtt.back_off();
        rtt.begin_after_syn_timeout();
        assert_eq!(rtt.rto_us(&LIMITS), 3_000_000);
        rtt.back_off();
        assert_eq!(rtt.rto_us(&LIMITS), 6_000_000);
        rtt.sample(10_000);
        rtt.reset_back_off();
        assert_eq!(rtt.rto_us(&LIMITS), 30_000);
    }

    #[test]
    fn a_constant_round_trip_settles_at_itself_plus_the_granularity() {
        let rtt = after(&[10_000; 200]);
        assert_eq!(rtt.srtt_us(), Some(10_000));
        assert!((10_000 + GRANULARITY_US..10_100).contains(&rtt.rto_us(&LIMITS)), "{rtt:?}");
        assert_eq!(after(&[0; 50]).srtt_us(), Some(1));
    }

    proptest! {
        #[test]
        fn follows_the_formulas_in_real_numbers(samples in proptest::collection::vec(1u32..5_000_000, 1..60)) {
            let rtt = after(&samples);
            let (mut srtt, mut var) = (f64::from(samples[0]), f64::from(samples[0]) / 2.0);
            for &us in &samples[1..] {
                var = 0.75 * var + 0.25 * (srtt - f64::from(us)).abs();
                srtt = 0.875 * srtt + 0.125 * f64::from(us);
            }
            prop_assert!((f64::from(rtt.srtt_us().unwrap()) - srtt).abs() < 3.0);
            prop_assert!((f64::from(rtt.var_us()) - var).abs() < 5.0);
            prop_assert!((f64::from(rtt.base_rto_us(&LIMITS)) - (srtt + (4.0 * var).max(64.0)).min(60e6)).abs() < 25.0);
        }
    }
}
