//! Congestion window validation (RFC 7661): a window that the sender does not use says nothing about the path.
//!
//! pipeACK is what was acknowledged in a round trip, the most over the last second. While it is less than half the
//! window (the non-validated phase, NVP) the window is kept but does not grow; a loss then is answered from what was in
//! use; and after five minutes the window is halved.

use hoststack_transport::Instant;

use super::AckInfo;

/// How long a window is kept that is not validated (RFC 7661 §4.4.3), in microseconds.
const NVP_US: u64 = 300_000_000;
/// The pipeACK sampling period is `max(3*RTT, 1 s)` (RFC 7661 §4.2), in microseconds.
const SAMPLING_PERIOD_LEAST_US: u64 = 1_000_000;

/// What a connection's use of its window was, and the rounds by which it is measured.
#[derive(Clone, Debug)]
pub(super) struct Validation {
    /// The largest samples of this half of the sampling period and of the half before.
    samples: [u32; 2],
    /// When this half began.
    half_began: Instant,
    /// When the non-validated phase began; [`Instant::FAR`] in the validated one.
    nvp_began: Instant,
    /// Bytes that end the round: what was outstanding when it began. 0: it begins with the next acknowledgment.
    round: u32,
    /// Of these, acknowledged.
    acked: u32,
    /// cwnd when the round began.
    round_window: u32,
    /// `max(pipeACK, LossFlightSize)` while a loss recovery lasts that began in the NVP; else 0.
    loss_pipe: u32,
    /// R of RFC 7661 §4.4.1: bytes lost, hence sent again, in that recovery.
    lost: u32,
    /// pipeACK is defined: a round was measured.
    is_defined: bool,
}

impl Validation {
    /// At the start of a connection: the validated phase, pipeACK undefined (RFC 7661 §4.1).
    pub(super) fn new() -> Validation {
        Validation {
            samples: [0; 2],
            half_began: Instant::ZERO,
            nvp_began: Instant::FAR,
            round: 0,
            acked: 0,
            round_window: 0,
            loss_pipe: 0,
            lost: 0,
            is_defined: false,
        }
    }

    /// Back to pipeACK undefined: after loss recovery (RFC 7661 §4.4.1), a timeout or an idle time.
    pub(super) fn reset(&mut self) {
        *self = Validation::new();
    }

    /// pipeACK, in bytes.
    fn pipe_ack(&self) -> u32 {
        self.samples[0].max(self.samples[1])
    }

    /// Whether this is the non-validated phase.
    fn is_non_validated(&self) -> bool {
        self.nvp_began != Instant::FAR
    }

    /// An acknowledgment came while cwnd was `window`. Returns whether a round ended with it: all that was outstanding
    /// when it began is acknowledged.
    pub(super) fn on_ack(&mut self, ack: &AckInfo, window: u32) -> bool {
        self.lost =
            if self.loss_pipe == 0 { ack.bytes_lost } else { self.lost.saturating_add(ack.bytes_lost) };
        if ack.in_recovery {
            // RFC 7661 §4.2: no samples in loss recovery.
            self.round = 0;
            return false;
        }
        if ack.bytes_acked == 0 {
            return false;
        }
        if self.round == 0 {
            self.begin_round(ack.flight_before, window);
        }
        self.acked = self.acked.saturating_add(ack.bytes_acked);
        if self.acked < self.round {
            return false;
        }
        self.sample(ack);
        self.begin_round(ack.flight_before.saturating_sub(ack.bytes_acked), window);
        true
    }

    fn begin_round(&mut self, outstanding: u32, window: u32) {
        self.round = outstanding;
        self.acked = 0;
        self.round_window = window;
    }

    /// The round is over: its bytes are a pipeACK sample (RFC 7661 §4.2).
    fn sample(&mut self, ack: &AckInfo) {
        let period_us = (3 * u64::from(ack.srtt_us.unwrap_or(0))).max(SAMPLING_PERIOD_LEAST_US);
        let age_us = ack.now.micros_since(self.half_began);
        if age_us >= period_us / 2 {
            let before = if age_us < period_us { self.samples[0] } else { 0 };
            self.samples = [0, before];
            self.half_began = ack.now;
        }
        self.samples[0] = self.samples[0].max(self.acked);
        self.is_defined = true;
        // RFC 7661 §4.3: validated while pipeACK >= cwnd / 2.
        // Deviates: cwnd is that of the round's beginning, with which what was measured was sent. Slow start has
        // doubled it since, and would find itself not validated.
        if self.pipe_ack() >= self.round_window / 2 {
            self.nvp_began = Instant::FAR;
        } else if !self.is_non_validated() {
            self.nvp_began = ack.now;
        }
    }

    /// Whether the window, `window`, may grow by this acknowledgment (RFC 7661 §4.4).
    pub(super) fn may_grow(&self, ack: &AckInfo, window: u32) -> bool {
        if !self.is_defined {
            // "Undefined" means validated; FlightSize is the next best thing to know.
            return ack.flight_before >= window / 2;
        }
        // What this round brought already is less than its sample will be.
        !self.is_non_validated() || self.acked >= window / 2
    }

    /// Whether the non-validated phase has lasted for too long and ends: once per five minutes of it.
    pub(super) fn take_expired(&mut self, now: Instant) -> bool {
        let is_expired = self.is_non_validated() && now.micros_since(self.nvp_began) > NVP_US;
        if is_expired {
            self.nvp_began = now;
        }
        is_expired
    }

    /// Congestion shows while `flight` bytes are in flight; `is_lost`: recovery of a loss begins. Returns the capacity
    /// that was in use, `max(pipeACK, LossFlightSize)`, in the non-validated phase (RFC 7661 §4.4.1).
    pub(super) fn on_congestion(&mut self, flight: u32, is_lost: bool) -> Option<u32> {
        if !self.is_non_validated() {
            return None;
        }
        let pipe = self.pipe_ack().max(flight);
        let lost = self.lost;
        self.reset();
        if is_lost {
            self.loss_pipe = pipe;
            self.lost = lost;
        }
        Some(pipe)
    }

    /// Recovery is over. Returns the window that it leaves if it began in the non-validated phase:
    /// `(max(pipeACK, LossFlightSize) - R) / 2` (RFC 7661 §4.4.1).
    pub(super) fn on_recovery_exit(&mut self) -> Option<u32> {
        let window = (self.loss_pipe > 0).then(|| self.loss_pipe.saturating_sub(self.lost) / 2);
        self.reset();
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT_US: u64 = 100_000;

    /// `bytes` acknowledged in one round that ends at `now`, all in flight before.
    fn round(validation: &mut Validation, now_us: u64, bytes: u32, window: u32) {
        let ack = AckInfo {
            now: Instant::from_micros(now_us),
            bytes_acked: bytes,
            flight_before: bytes,
            srtt_us: Some(RTT_US as u32),
            ..AckInfo::default()
        };
        assert!(validation.on_ack(&ack, window));
    }

    fn may_grow(validation: &Validation, window: u32) -> bool {
        validation.may_grow(&AckInfo::default(), window)
    }

    #[test]
    fn takes_48_bytes_at_most() {
        assert!(size_of::<Validation>() <= 48);
    }

    #[test]
    fn before_a_round_was_measured_flight_size_decides() {
        let validation = Validation::new();
        for (flight_before, expected) in [(4_999, false), (5_000, true)] {
            let ack = AckInfo { flight_before, ..AckInfo::default() };
            assert_eq!(validation.may_grow(&ack, 10_000), expected);
        }
    }

    #[test]
    fn half_a_window_acknowledged_in_a_round_validates_it_and_a_byte_less_does_not() {
        let mut validation = Validation::new();
        round(&mut validation, 0, 4_999, 10_000);
        assert!(!may_grow(&validation, 10_000));
        round(&mut validation, RTT_US, 5_000, 10_000);
        assert!(may_grow(&validation, 10_000));
    }

    #[test]
    fn a_round_ends_when_what_was_outstanding_at_its_beginning_is_acknowledged() {
        let mut validation = Validation::new();
        let ack = AckInfo { bytes_acked: 2_000, flight_before: 10_000, ..AckInfo::default() };
        let ends: std::vec::Vec<bool> = (0..13).map(|_| validation.on_ack(&ack, 10_000)).collect();
        let at: std::vec::Vec<usize> = (0..13).filter(|&n| ends[n]).collect();
        assert_eq!(at, [4, 8, 12], "10000 bytes first, then the 8000 that an acknowledgment leaves");
        assert_eq!(validation.pipe_ack(), 10_000);
    }

    #[test]
    fn the_best_round_of_the_sampling_period_counts_and_an_older_one_does_not() {
        let mut validation = Validation::new();
        round(&mut validation, 10_000_000, 9_000, 10_000);
        for now_us in (10_100_000..=10_400_000).step_by(100_000) {
            round(&mut validation, now_us, 1_000, 10_000);
            assert!(may_grow(&validation, 10_000), "{now_us}");
        }
        for now_us in (11_000_000..=12_000_000).step_by(100_000) {
            round(&mut validation, now_us, 1_000, 10_000);
        }
        assert!(!may_grow(&validation, 10_000));
        assert_eq!(validation.pipe_ack(), 1_000);
    }

    #[test]
    fn a_burst_that_fills_half_the_window_validates_it_before_its_round_is_over() {
        let mut validation = Validation::new();
        round(&mut validation, 0, 1_000, 10_000);
        let ack = AckInfo { bytes_acked: 1_000, flight_before: 10_000, ..AckInfo::default() };
        let grows: std::vec::Vec<bool> = (0..6)
            .map(|_| {
                validation.on_ack(&ack, 10_000);
                validation.may_grow(&ack, 10_000)
            })
            .collect();
        assert_eq!(grows, [false, false, false, false, true, true]);
    }

    #[test]
    fn five_minutes_without_validation_expire_once_and_again_after_five_more() {
        let mut validation = Validation::new();
        round(&mut validation, 0, 1_000, 10_000);
        let at = |seconds: u64| Instant::from_millis(seconds * 1000);
        assert_eq!(
            [300, 301, 302, 601, 602].map(|s| validation.take_expired(at(s))),
            [false, true, false, false, true]
        );
        round(&mut validation, 602_000_000, 9_000, 10_000);
        assert!(!validation.take_expired(at(10_000)), "validated");
    }

    #[test]
    fn a_loss_without_validation_is_answered_from_what_was_in_use_less_what_was_lost() {
        let mut validation = Validation::new();
        round(&mut validation, 0, 8_000, 40_000);
        let found = AckInfo { bytes_lost: 1_000, ..AckInfo::default() };
        validation.on_ack(&found, 40_000);
        assert_eq!(validation.on_congestion(12_000, true), Some(12_000), "LossFlightSize");
        validation.on_ack(&AckInfo { in_recovery: true, bytes_acked: 1_000, ..found }, 6_000);
        validation.on_ack(&AckInfo { bytes_acked: 1_000, bytes_lost: 0, ..found }, 6_000);
        assert_eq!(validation.on_recovery_exit(), Some(5_000), "(12000 - 2000) / 2");
        assert_eq!(validation.on_recovery_exit(), None);
    }

    #[test]
    fn pipe_ack_counts_when_it_is_more_than_the_flight_and_a_mark_leaves_nothing_for_the_end_of_recovery() {
        let mut validation = Validation::new();
        round(&mut validation, 0, 8_000, 40_000);
        assert_eq!(validation.on_congestion(3_000, false), Some(8_000));
        assert_eq!(validation.on_recovery_exit(), None);
    }

    #[test]
    fn a_loss_of_a_validated_window_is_none_of_this_and_leaves_pipe_ack_undefined() {
        let mut validation = Validation::new();
        round(&mut validation, 0, 8_000, 10_000);
        assert_eq!(validation.on_congestion(8_000, true), None);
        assert_eq!(validation.on_recovery_exit(), None);
        assert!(!validation.is_defined);
    }
}
