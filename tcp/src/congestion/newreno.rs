//! NewReno: slow start and congestion avoidance (RFC 5681) with byte counting (RFC 3465).
//!
//! The window is not inflated by duplicate ACKs. What RFC 5681 §3.2 does by adding a segment to cwnd, `recovery` does
//! by taking a segment off the pipe: the same segments go out, and cwnd means one thing.

use hoststack_transport::Instant;

use super::window::{Ratio, Stage, WINDOW_MAX, Window};
use super::{AckInfo, CongestionControl, CongestionKind};

/// `FlightSize / 2` (RFC 5681 (4)).
const BETA: Ratio = Ratio(1, 2);

/// RFC 5681 and 6582.
#[derive(Clone, Debug)]
pub struct NewReno {
    window: Window,
    /// Bytes acknowledged in congestion avoidance that have not opened the window yet (RFC 3465 §2.1).
    acked: u32,
    /// cwnd and ssthresh before the latest congestion event or timeout; cwnd is 0 when there is nothing to go back to.
    before: (u32, u32),
}

impl NewReno {
    /// At the start of a connection; `mss` is SMSS, options excluded.
    pub fn new(mss: u16) -> NewReno {
        NewReno { window: Window::new(mss), acked: 0, before: (0, 0) }
    }

    /// Remembers what a congestion event is about to change.
    fn remember(&mut self) {
        self.before = (self.window.size, self.window.ssthresh);
        self.acked = 0;
    }
}

impl CongestionControl for NewReno {
    #[inline]
    fn on_ack(&mut self, ack: &AckInfo) {
        if self.window.on_ack(ack) != Stage::Avoidance {
            return;
        }
        // RFC 3465 §2.1: one SMSS per window of acknowledged bytes.
        self.acked = self.acked.saturating_add(ack.bytes_acked);
        if self.acked >= self.window.size {
            self.acked = (self.acked - self.window.size).min(self.window.size);
            self.window.size = (self.window.size + self.window.smss()).min(WINDOW_MAX);
        }
    }

    fn on_congestion_event(&mut self, _now: Instant, flight: u32, kind: CongestionKind) {
        self.remember();
        // RFC 3168 §6.1.2: a mark is answered as a loss is.
        self.window.on_congestion(flight, kind, BETA);
        self.window.size = self.window.ssthresh;
    }

    fn on_recovery_exit(&mut self, _now: Instant) {
        self.window.on_recovery_exit();
        self.acked = 0;
    }

    fn on_rto(&mut self, _now: Instant, flight: u32) {
        if self.window.is_first_timeout() {
            self.remember();
        }
        self.window.on_rto(flight, BETA);
    }

    fn on_spurious(&mut self, _now: Instant) {
        let (size, ssthresh) = core::mem::take(&mut self.before);
        if size > 0 {
            self.window.restore(self.window.size.max(size), self.window.ssthresh.max(ssthresh));
            self.acked = 0;
        }
    }

    fn on_idle_restart(&mut self, _now: Instant) {
        self.window.on_idle_restart();
        self.acked = 0;
    }

    fn on_mss_change(&mut self, mss: u16) {
        self.window.on_mss_change(mss);
    }

    fn set_initial_window(&mut self, segments: u8) {
        self.window.set_initial(segments);
    }

    fn take_over(&mut self, window: u32, ssthresh: u32) {
        self.window.take_over(window, ssthresh);
    }

    #[inline]
    fn window(&self) -> u32 {
        self.window.size
    }

    fn ssthresh(&self) -> u32 {
        self.window.ssthresh
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
    fn slow_start_adds_what_was_acknowledged() {
        let mut reno = NewReno::new(1000);
        assert_eq!((reno.window(), reno.ssthresh()), (10_000, u32::MAX));
        let mut seen = [0; 4];
        for (window, bytes) in seen.iter_mut().zip([1000, 2000, 9000, 10]) {
            ack(&mut reno, bytes);
            *window = reno.window();
        }
        assert_eq!(seen, [11_000, 13_000, 22_000, 22_010]);
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
        assert_eq!(reno.window(), 10_000);
        reno.on_ack(&AckInfo { flight_before: 5001, is_app_limited: true, ..unused });
        assert_eq!(reno.window(), 11_000, "more than half of it is enough in slow start");
        let mut reno = avoiding(4);
        for _ in 0..100 {
            let flight_before = reno.window();
            reno.on_ack(&AckInfo { flight_before, is_app_limited: true, ..unused });
        }
        assert_eq!(reno.window(), 4000, "but not in congestion avoidance");
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
    fn leaving_a_recovery_that_was_undone_leaves_the_window_above_ssthresh() {
        let mut reno = avoiding(4);
        for _ in 0..4 {
            ack(&mut reno, 1000);
        }
        reno.on_congestion_event(NOW, 5000, CongestionKind::Loss);
        reno.on_spurious(NOW);
        reno.on_recovery_exit(NOW);
        assert_eq!((reno.window(), reno.ssthresh()), (5000, 4000));
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
                        prop_assert!(reno.window() - before <= n.max(reno.window.smss()));
                    }
                }
                prop_assert!(reno.window() >= reno.window.smss() && reno.window() <= WINDOW_MAX);
                prop_assert!(reno.ssthresh() >= 2);
            }
        }
    }
}
