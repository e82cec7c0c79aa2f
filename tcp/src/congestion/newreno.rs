//! NewReno: slow start and congestion avoidance (RFC 5681) with byte counting (RFC 3465).
//!
//! The window is not inflated by duplicate ACKs. What RFC 5681 §3.2 does by adding a segment to cwnd, `recovery` does
//! by taking a segment off the pipe: the same segments go out, and cwnd means one thing.

use hoststack_transport::Instant;

use super::{AckInfo, CongestionControl, CongestionKind, initial_window};

/// No window passes this (RFC 7323 §2.3: the largest window there is).
const WINDOW_MAX: u32 = 1 << 30;

/// RFC 5681 and 6582.
#[derive(Clone, Debug)]
pub struct NewReno {
    /// cwnd.
    window: u32,
    /// ssthresh; `u32::MAX` before the first congestion.
    ssthresh: u32,
    /// Bytes acknowledged in congestion avoidance that have not opened the window yet (RFC 3465 §2.1).
    acked: u32,
    /// cwnd and ssthresh before the latest congestion event or timeout.
    before: (u32, u32),
    /// SMSS.
    mss: u16,
    /// The timer expired and nothing new was acknowledged since.
    is_timed_out: bool,
    /// In the slow start that follows a timeout.
    is_restarting: bool,
    /// [`NewReno::before`] holds something to go back to.
    can_undo: bool,
}

impl NewReno {
    /// At the start of a connection; `mss` is SMSS, options excluded.
    pub fn new(mss: u16) -> NewReno {
        let mss = mss.max(1);
        NewReno {
            window: initial_window(mss),
            ssthresh: u32::MAX,
            acked: 0,
            before: (0, 0),
            mss,
            is_timed_out: false,
            is_restarting: false,
            can_undo: false,
        }
    }

    fn smss(&self) -> u32 {
        u32::from(self.mss)
    }

    /// Remembers what a congestion event is about to change, and lowers ssthresh:
    /// `max(FlightSize / 2, 2*SMSS)` (RFC 5681 (4)).
    fn reduce(&mut self, flight: u32) {
        self.before = (self.window, self.ssthresh);
        self.can_undo = true;
        self.ssthresh = (flight / 2).max(2 * self.smss()).min(WINDOW_MAX);
        self.acked = 0;
    }
}

impl CongestionControl for NewReno {
    fn on_ack(&mut self, ack: &AckInfo) {
        if ack.bytes_acked == 0 || ack.in_recovery {
            return;
        }
        self.is_timed_out = false;
        // RFC 7661 §4.3 in spirit: a window that was not used says nothing about the path, so it does not grow. One
        // that was used to less than half was not either, whatever limited it.
        if ack.is_app_limited || ack.flight_before < self.window / 2 {
            return;
        }
        // RFC 9293 §3.8.2 (MUST-19): slow start, or congestion avoidance.
        if self.window < self.ssthresh {
            // RFC 3465 §2.2, §2.3: L is 2*SMSS, but 1*SMSS in the slow start after a timeout.
            let limit = if self.is_restarting { self.smss() } else { 2 * self.smss() };
            // Up to ssthresh only: what is above counts as congestion avoidance.
            let growth = ack.bytes_acked.min(limit).min(self.ssthresh - self.window);
            self.window += growth;
        } else {
            self.is_restarting = false;
            // RFC 3465 §2.1: one SMSS per window of acknowledged bytes.
            self.acked = self.acked.saturating_add(ack.bytes_acked);
            if self.acked >= self.window {
                self.acked = (self.acked - self.window).min(self.window);
                self.window += self.smss();
            }
        }
        self.window = self.window.min(WINDOW_MAX);
    }

    fn on_congestion_event(&mut self, _now: Instant, flight: u32, kind: CongestionKind) {
        // RFC 3168 §6.1.2: a mark is answered as a loss is.
        let (CongestionKind::Loss | CongestionKind::Ecn) = kind;
        self.reduce(flight);
        self.window = self.ssthresh;
        self.is_restarting = false;
    }

    fn on_recovery_exit(&mut self, _now: Instant) {
        // RFC 6582 §3.2 step 3, option 2; the sender's burst limit stands in for option 1. `min`, because recovery may
        // have been undone.
        self.window = self.window.min(self.ssthresh);
        self.acked = 0;
    }

    fn on_rto(&mut self, _now: Instant, flight: u32) {
        // RFC 5681 §3.1: when the same segment times out again, ssthresh stays as it is.
        if !self.is_timed_out {
            self.reduce(flight);
        }
        self.window = self.smss();
        self.is_timed_out = true;
        self.is_restarting = true;
    }

    fn on_spurious(&mut self, _now: Instant) {
        if self.can_undo {
            let (window, ssthresh) = self.before;
            self.window = self.window.max(window);
            self.ssthresh = self.ssthresh.max(ssthresh);
            self.acked = 0;
            self.is_timed_out = false;
            self.is_restarting = false;
            self.can_undo = false;
        }
    }

    fn on_idle_restart(&mut self, _now: Instant) {
        // RFC 5681 §4.1: RW = min(IW, cwnd).
        self.window = self.window.min(initial_window(self.mss));
        self.acked = 0;
    }

    fn on_sent(&mut self, _now: Instant, _bytes: u32, _flight: u32) {}

    fn on_mss_change(&mut self, mss: u16) {
        // The window is in bytes and describes the path, not the segments; it only must hold one.
        self.mss = mss.max(1);
        self.window = self.window.max(self.smss());
    }

    #[inline]
    fn window(&self) -> u32 {
        self.window
    }

    fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    #[inline]
    fn pacing_rate(&self) -> Option<u64> {
        None
    }

    fn name(&self) -> &'static str {
        "newreno"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Instant = Instant::ZERO;

    /// An acknowledgment of `bytes` while the whole window was in flight.
    fn ack(reno: &mut NewReno, bytes: u32) {
        let flight_before = reno.window();
        reno.on_ack(&AckInfo { bytes_acked: bytes, flight_before, ..AckInfo::default() });
    }

    /// In congestion avoidance with a window of `segments` of 1000.
    fn avoiding(segments: u32) -> NewReno {
        let mut reno = NewReno::new(1000);
        reno.on_congestion_event(NOW, 2000 * segments, CongestionKind::Loss);
        reno.on_recovery_exit(NOW);
        assert_eq!((reno.window(), reno.ssthresh()), (1000 * segments, 1000 * segments));
        reno
    }

    // covers: MUST-19
    #[test]
    fn slow_start_adds_what_was_acknowledged_but_two_segments_at_most() {
        let mut reno = NewReno::new(1000);
        assert_eq!((reno.window(), reno.ssthresh()), (10_000, u32::MAX));
        let mut seen = [0; 4];
        for (window, bytes) in seen.iter_mut().zip([1000, 2000, 9000, 10]) {
            ack(&mut reno, bytes);
            *window = reno.window();
        }
        assert_eq!(seen, [11_000, 13_000, 15_000, 15_010]);
    }

    // covers: MUST-19
    #[test]
    fn congestion_avoidance_adds_one_segment_per_window() {
        let mut reno = avoiding(4);
        for _ in 0..3 {
            ack(&mut reno, 1000);
        }
        assert_eq!(reno.window(), 4000);
        ack(&mut reno, 1000);
        assert_eq!(reno.window(), 5000);
        for _ in 0..4 {
            ack(&mut reno, 1000);
        }
        assert_eq!(reno.window(), 5000);
        ack(&mut reno, 1000);
        assert_eq!(reno.window(), 6000);
    }

    #[test]
    fn slow_start_ends_exactly_at_ssthresh() {
        let mut reno = NewReno::new(1000);
        reno.on_rto(NOW, 5000);
        assert_eq!((reno.window(), reno.ssthresh()), (1000, 2500));
        ack(&mut reno, 1000);
        ack(&mut reno, 1000);
        assert_eq!(reno.window(), 2500);
        ack(&mut reno, 1000);
        assert_eq!(reno.window(), 2500, "congestion avoidance");
    }

    #[test]
    fn a_timeout_leaves_one_segment_and_its_slow_start_counts_one_segment_per_ack() {
        let mut reno = NewReno::new(1000);
        reno.on_rto(NOW, 20_000);
        assert_eq!((reno.window(), reno.ssthresh()), (1000, 10_000));
        ack(&mut reno, 5000);
        assert_eq!(reno.window(), 2000);
    }

    #[test]
    fn a_second_timeout_of_the_same_segment_keeps_ssthresh_and_one_of_a_later_segment_does_not() {
        let mut reno = NewReno::new(1000);
        reno.on_rto(NOW, 20_000);
        reno.on_rto(NOW, 1000);
        assert_eq!((reno.window(), reno.ssthresh()), (1000, 10_000));
        ack(&mut reno, 1000);
        reno.on_rto(NOW, 2000);
        assert_eq!((reno.window(), reno.ssthresh()), (1000, 2000));
    }

    #[test]
    fn loss_halves_the_flight_not_the_window_and_never_below_two_segments() {
        let mut reno = avoiding(40);
        reno.on_congestion_event(NOW, 20_000, CongestionKind::Loss);
        assert_eq!((reno.window(), reno.ssthresh()), (10_000, 10_000));
        reno.on_congestion_event(NOW, 1000, CongestionKind::Ecn);
        assert_eq!((reno.window(), reno.ssthresh()), (2000, 2000));
    }

    #[test]
    fn the_window_stands_still_during_recovery_and_on_duplicates() {
        let mut reno = avoiding(4);
        for in_recovery in [true, false] {
            for _ in 0..20 {
                let bytes_acked = if in_recovery { 4000 } else { 0 };
                reno.on_ack(&AckInfo { bytes_acked, flight_before: 8000, in_recovery, ..AckInfo::default() });
            }
        }
        assert_eq!(reno.window(), 4000);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut reno = NewReno::new(1000);
        let unused = AckInfo { bytes_acked: 1000, flight_before: 4999, ..AckInfo::default() };
        reno.on_ack(&unused);
        reno.on_ack(&AckInfo { flight_before: 10_000, is_app_limited: true, ..unused });
        assert_eq!(reno.window(), 10_000);
        reno.on_ack(&AckInfo { flight_before: 5000, ..unused });
        assert_eq!(reno.window(), 11_000);
    }

    #[test]
    fn an_idle_connection_restarts_with_the_initial_window_at_most() {
        let mut reno = avoiding(40);
        reno.on_idle_restart(NOW);
        assert_eq!((reno.window(), reno.ssthresh()), (10_000, 40_000));
        let mut reno = avoiding(4);
        reno.on_idle_restart(NOW);
        assert_eq!(reno.window(), 4000);
    }

    #[test]
    fn a_loss_that_was_none_is_undone_once() {
        let mut reno = avoiding(40);
        reno.on_congestion_event(NOW, 20_000, CongestionKind::Loss);
        reno.on_spurious(NOW);
        assert_eq!((reno.window(), reno.ssthresh()), (40_000, 40_000));
        reno.on_rto(NOW, 20_000);
        reno.on_rto(NOW, 1000);
        reno.on_spurious(NOW);
        reno.on_spurious(NOW);
        assert_eq!((reno.window(), reno.ssthresh()), (40_000, 40_000));
    }

    #[test]
    fn leaving_a_recovery_that_was_undone_does_not_open_the_window_to_ssthresh() {
        let mut reno = NewReno::new(1000);
        reno.on_congestion_event(NOW, 10_000, CongestionKind::Loss);
        reno.on_spurious(NOW);
        reno.on_recovery_exit(NOW);
        assert_eq!((reno.window(), reno.ssthresh()), (10_000, u32::MAX));
    }

    #[test]
    fn a_larger_mss_makes_room_for_one_segment() {
        let mut reno = NewReno::new(500);
        reno.on_rto(NOW, 1000);
        reno.on_mss_change(1400);
        assert_eq!(reno.window(), 1400);
        reno.on_mss_change(0);
        ack(&mut reno, 1);
        assert!(reno.window() >= 1);
    }

    proptest! {
        #[test]
        fn the_window_always_holds_a_segment_and_never_passes_the_limit(
            mss in 1u16..=u16::MAX,
            events in proptest::collection::vec((0u8..8, any::<u32>()), 0..200),
        ) {
            let mut reno = NewReno::new(mss);
            for (event, n) in events {
                let before = reno.window();
                match event {
                    0 => reno.on_congestion_event(NOW, n, CongestionKind::Loss),
                    1 => reno.on_rto(NOW, n),
                    2 => reno.on_recovery_exit(NOW),
                    3 => reno.on_idle_restart(NOW),
                    4 => reno.on_spurious(NOW),
                    5 => reno.on_mss_change(n as u16),
                    _ => {
                        ack(&mut reno, n);
                        prop_assert!(reno.window() - before <= 2 * reno.smss());
                    }
                }
                prop_assert!(reno.window() >= reno.smss() && reno.window() <= WINDOW_MAX);
                prop_assert!(reno.ssthresh() >= 2);
            }
        }
    }
}
