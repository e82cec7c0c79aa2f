//! The state machine by hand-made acknowledgments, after Appendix A of the draft. What needs a path is in `paths`.

mod link;
mod paths;

use super::*;
use crate::rate::{LostRange, RateSample};
use link::{FAST, Link, MSS};
use proptest::prelude::*;

/// A connection that is told what the test wants: rounds of 50 ms, by default.
struct Hand {
    bbr: Bbr,
    now_us: u64,
    rtt_us: u32,
    /// Of each acknowledgment.
    in_flight: u32,
    lost: u32,
    tx_in_flight: u32,
    is_app_limited: bool,
}

impl Hand {
    fn new() -> Hand {
        let mut bbr = Bbr::new(1000, 1);
        bbr.on_sent(Instant::ZERO, 1000, 1000);
        Hand {
            bbr,
            now_us: 0,
            rtt_us: 50_000,
            in_flight: 100_000,
            lost: 0,
            tx_in_flight: 100_000,
            is_app_limited: false,
        }
    }

    fn now(&self) -> Instant {
        Instant::from_micros(self.now_us)
    }

    /// An acknowledgment of what was sent when `prior_delivered` were delivered.
    fn ack(&mut self, prior_delivered: u64, rate: u64) {
        let total = self.bbr.delivered + 1000;
        let sample = RateSample {
            delivery_rate: Some(rate),
            interval_us: u64::from(self.rtt_us),
            delivered: total - prior_delivered,
            prior_delivered,
            lost: self.lost,
            tx_in_flight: self.tx_in_flight,
            newly_acked: 1000,
            newly_lost: 0,
            is_app_limited: self.is_app_limited,
        };
        self.bbr.on_ack(&AckInfo {
            now: self.now(),
            bytes_acked: 1000,
            bytes_delivered: 1000,
            rtt_us: Some(self.rtt_us),
            flight_before: self.in_flight + 1000,
            rate: Some(sample),
            has_sack: true,
            ..AckInfo::default()
        });
    }

    /// The acknowledgment that ends a round.
    fn round(&mut self, rate: u64) {
        self.now_us += u64::from(self.rtt_us);
        self.ack(self.bbr.delivered, rate);
    }

    /// An acknowledgment within a round, 1000 bytes later at 2 MB/s.
    fn within(&mut self, rate: u64) {
        self.now_us += 500;
        self.ack(self.bbr.next_round_delivered.saturating_sub(1), rate);
    }

    fn lose(&mut self, range: LostRange) {
        let delivered = self.bbr.delivered;
        self.bbr.on_lost(self.now(), &LostRange { delivered, prior_delivered: delivered, ..range });
    }

    /// A fifth of what was in flight, sent when `prior_delivered` were delivered.
    fn lose_a_fifth(&mut self, prior_delivered: u64) {
        let (bytes, delivered) = (20_000, self.bbr.delivered);
        let range =
            LostRange { bytes, tx_in_flight: 100_000, lost_since_sent: bytes, ..LostRange::default() };
        self.bbr.on_lost(self.now(), &LostRange { delivered, prior_delivered, ..range });
    }

    /// One segment of a hundred.
    fn lose_one(&mut self) {
        let tx_in_flight = 100_000;
        self.lose(LostRange { bytes: 1000, tx_in_flight, lost_since_sent: 1000, ..LostRange::default() });
    }

    /// The third segment of a hundred and twenty.
    fn lose_too_much(&mut self) {
        let tx_in_flight = 120_000;
        self.lose(LostRange { bytes: 1000, tx_in_flight, lost_since_sent: 6000, ..LostRange::default() });
    }

    fn recover(&mut self) {
        self.bbr.on_congestion_event(self.now(), self.in_flight, CongestionKind::Loss);
    }

    /// In ProbeBW_DOWN, at 2 MB/s and 50 ms: a product of 100,000. Twice that is in flight.
    fn down() -> Hand {
        let mut hand = Hand::new();
        hand.in_flight = 200_000;
        hand.round(1_000_000);
        while hand.bbr.state != State::Down {
            hand.round(2_000_000);
        }
        for _ in 0..200 {
            hand.within(2_000_000);
        }
        // Twice the product, and the segment that each acknowledgment brings at once.
        assert_eq!((hand.bbr.state, hand.bbr.window()), (State::Down, 201_000));
        hand
    }

    fn cruise() -> Hand {
        let mut hand = Hand::down();
        hand.in_flight = 100_000;
        hand.round(2_000_000);
        assert_eq!(hand.bbr.state, State::Cruise);
        hand
    }

    /// In ProbeBW_UP, its first acknowledgment come.
    fn up() -> Hand {
        let mut hand = Hand::cruise();
        hand.probe_again();
        hand
    }

    fn probe_again(&mut self) {
        // More than 3 s pass, and not 5.
        self.now_us += 3_000_000;
        self.within(2_000_000);
        assert_eq!(self.bbr.state, State::Refill);
        // A lower round trip, so that ProbeRTT stays away.
        self.rtt_us -= 1;
        self.round(2_000_000);
        assert_eq!(self.bbr.state, State::Up);
    }
}

#[test]
fn startup_ends_after_three_rounds_that_grow_by_less_than_a_quarter() {
    let mut hand = Hand::new();
    for rate in [1_000_000, 2_000_000, 2_499_999, 2_400_000] {
        hand.round(rate);
        assert_eq!((hand.bbr.state, hand.bbr.full_bw.is_reached), (State::Startup, false));
    }
    // Within a round nothing counts.
    for _ in 0..5 {
        hand.within(2_400_000);
    }
    assert_eq!(hand.bbr.state, State::Startup);
    hand.round(2_400_000);
    assert_eq!((hand.bbr.full_bw.is_now, hand.bbr.full_bw.is_reached), (true, true));
    assert_ne!(hand.bbr.state, State::Startup);
}

#[test]
fn growth_of_a_quarter_begins_the_count_again() {
    let mut hand = Hand::new();
    for rate in [1_000_000, 1_000_000, 1_000_000, 1_250_000, 1_250_000, 1_250_000] {
        hand.round(rate);
        assert_eq!(hand.bbr.state, State::Startup);
    }
    hand.in_flight = 1_000_000;
    hand.round(1_250_000);
    assert_eq!(hand.bbr.state, State::Drain);
}

#[test]
fn startup_never_ends_while_the_application_limits_it_and_nothing_is_lost() {
    let mut hand = Hand::new();
    hand.is_app_limited = true;
    for _ in 0..50 {
        hand.round(1_000_000);
    }
    assert_eq!(hand.bbr.state, State::Startup);
}

/// Startup with losses found by `events` acknowledgments of a round, `lost` of 100,000 bytes in all, in a recovery
/// that lasted for a round before.
fn startup_with_loss(events: u32, lost: u32) -> Hand {
    let mut hand = Hand::new();
    hand.is_app_limited = true;
    hand.round(1_000_000);
    hand.lose_one();
    hand.within(1_000_000);
    hand.recover();
    hand.round(1_000_000);
    for _ in 0..events {
        hand.lose_one();
        hand.within(1_000_000);
    }
    assert_eq!(hand.bbr.state, State::Startup, "not before the round ends");
    hand.lost = lost;
    hand.in_flight = 1_000_000;
    hand.round(1_000_000);
    hand
}

#[test]
fn startup_ends_after_a_round_of_six_losses_above_two_per_cent_even_if_app_limited() {
    let hand = startup_with_loss(6, 5001);
    assert_eq!((hand.bbr.state, hand.bbr.full_bw.is_reached), (State::Drain, true));
    // The product is 50,000, and less than it was delivered in a round.
    assert_eq!(hand.bbr.inflight_longterm, 50_000);
    assert_eq!(startup_with_loss(5, 5001).bbr.state, State::Startup);
    assert_eq!(startup_with_loss(6, 5000).bbr.state, State::Startup);
}

#[test]
fn without_sack_the_first_loss_ends_startup() {
    let mut hand = Hand::new();
    hand.round(1_000_000);
    hand.bbr.has_sack = false;
    hand.lose_one();
    hand.recover();
    let sample =
        RateSample { delivered: 1000, prior_delivered: 1000, newly_acked: 1000, ..RateSample::default() };
    hand.bbr.on_ack(&AckInfo {
        now: hand.now(),
        flight_before: 500_000,
        rate: Some(sample),
        ..AckInfo::default()
    });
    assert_eq!(hand.bbr.state, State::Drain);
}

#[test]
fn drain_ends_when_the_flight_is_the_product_of_bandwidth_and_delay() {
    let mut hand = Hand::new();
    hand.in_flight = 200_000;
    for rate in [1_000_000, 2_000_000, 2_000_000, 2_000_000, 2_000_000] {
        hand.round(rate);
    }
    assert_eq!((hand.bbr.state, hand.bbr.state.pacing_gain()), (State::Drain, 50));
    // 99% of half the bandwidth.
    assert_eq!(hand.bbr.pacing_rate(), Some(990_000));
    hand.in_flight = 100_001;
    hand.within(2_000_000);
    assert_eq!(hand.bbr.state, State::Drain);
    hand.in_flight = 100_000;
    hand.within(2_000_000);
    // DOWN, which has nothing to drain.
    assert_eq!((hand.bbr.state, hand.bbr.ack_phase), (State::Cruise, AckPhase::ProbeStopping));
    assert_eq!(hand.bbr.pacing_rate(), Some(1_980_000));
}

#[test]
fn drain_ends_after_three_rounds_at_the_latest() {
    let mut hand = Hand::new();
    hand.in_flight = 200_000;
    for rate in [1_000_000, 2_000_000, 2_000_000, 2_000_000, 2_000_000, 2_000_000, 2_000_000, 2_000_000] {
        hand.round(rate);
    }
    assert_eq!(hand.bbr.state, State::Drain);
    hand.round(2_000_000);
    assert_eq!((hand.bbr.state, hand.bbr.pacing_rate()), (State::Down, Some(1_782_000)));
}

#[test]
fn down_ends_when_the_queue_is_drained_and_headroom_left() {
    let mut hand = Hand::down();
    hand.in_flight = 100_001;
    hand.within(2_000_000);
    assert_eq!(hand.bbr.state, State::Down);
    hand.bbr.inflight_longterm = 100_000;
    hand.in_flight = 85_001;
    hand.within(2_000_000);
    assert_eq!(hand.bbr.state, State::Down, "15% of headroom");
    hand.in_flight = 85_000;
    hand.within(2_000_000);
    assert_eq!(hand.bbr.state, State::Cruise);
    assert_eq!(hand.bbr.window(), 85_000);
}

#[test]
fn down_that_does_not_drain_ends_with_the_next_probe() {
    let mut hand = Hand::down();
    hand.in_flight = 200_000;
    hand.now_us += 3_000_001;
    hand.within(2_000_000);
    assert_eq!(hand.bbr.state, State::Refill);
}

#[test]
fn the_next_probe_comes_after_two_to_three_seconds_or_as_many_rounds_as_reno_would_take() {
    // A product of 4 segments: 4 rounds, less what was picked at random.
    for (rate, rounds) in [(80_000, 4), (2_000_000, 63)] {
        let mut hand = Hand::new();
        hand.rtt_us = 1000;
        hand.in_flight = 1000;
        for _ in 0..5 {
            hand.round(rate * 50);
        }
        assert!(hand.bbr.state.is_probe_bw());
        let picked = hand.bbr.rounds_since_probe_up;
        let mut seen = 0;
        while hand.bbr.state != State::Refill {
            hand.round(rate * 50);
            seen += 1;
        }
        assert_eq!(seen + picked, rounds);
    }
    let waits: std::collections::BTreeSet<u64> = (0..100)
        .map(|seed| {
            let mut bbr = Bbr::new(1000, seed);
            bbr.start_down(Instant::ZERO);
            bbr.probe_wait_us
        })
        .collect();
    assert!(waits.iter().all(|wait| (2_000_000..3_000_000).contains(wait)) && waits.len() > 90);
}

#[test]
fn up_ends_when_the_rate_does_not_grow_for_three_rounds() {
    let mut hand = Hand::up();
    assert_eq!(hand.bbr.pacing_rate(), Some(2_475_000));
    for _ in 0..2 {
        hand.rtt_us -= 1;
        hand.round(2_000_000);
        assert_eq!(hand.bbr.state, State::Up);
    }
    hand.round(2_000_000);
    assert_eq!((hand.bbr.state, hand.bbr.inflight_longterm), (State::Down, NO_BOUND));
    assert!(!hand.bbr.was_probe_too_high);
}

#[test]
fn loss_above_two_per_cent_ends_up_and_bounds_the_flight_to_where_it_began() {
    let mut hand = Hand::up();
    let lost = LostRange { bytes: 1000, tx_in_flight: 120_000, ..LostRange::default() };
    hand.lose(LostRange { lost_since_sent: 5400, ..lost });
    assert_eq!((hand.bbr.state, hand.bbr.inflight_longterm), (State::Up, NO_BOUND));
    hand.lose(LostRange { lost_since_sent: 6000, ..lost });
    // 2% of 119,000 and three segments are 5380, 5000 were lost before: 380 / 0.98 more.
    assert_eq!((hand.bbr.state, hand.bbr.inflight_longterm), (State::Down, 119_387));
    assert!(hand.bbr.was_probe_too_high);
    hand.lose(LostRange { lost_since_sent: 90_000, tx_in_flight: 10_000, ..lost });
    assert_eq!(hand.bbr.inflight_longterm, 119_387, "once per probe");
}

#[test]
fn the_bound_falls_by_three_tenths_at_most_and_not_while_app_limited() {
    let mut hand = Hand::up();
    let target = hand.bbr.target_inflight();
    let lost = LostRange {
        bytes: 1000,
        tx_in_flight: 20_000,
        lost_since_sent: 9000,
        is_app_limited: true,
        ..LostRange::default()
    };
    hand.lose(lost);
    assert_eq!((hand.bbr.state, hand.bbr.inflight_longterm), (State::Down, NO_BOUND));
    let mut hand = Hand::up();
    hand.lose(LostRange { is_app_limited: false, ..lost });
    assert_eq!(hand.bbr.inflight_longterm, part_of_window(target, 70));
}

#[test]
fn after_a_probe_that_went_too_high_the_next_stops_at_the_bound_and_goes_on_if_that_was_safe() {
    let mut hand = Hand::up();
    hand.lose_too_much();
    hand.in_flight = 90_000;
    hand.tx_in_flight = 90_000;
    hand.rtt_us -= 1;
    hand.round(2_000_000);
    hand.round(2_000_000);
    assert_eq!(hand.bbr.state, State::Cruise);
    hand.probe_again();
    assert_eq!(hand.bbr.state, State::Up);
    // 1000 more before the acknowledgment, and 1000 would not fit.
    hand.in_flight = 117_387;
    hand.within(2_000_000);
    assert_eq!(hand.bbr.state, State::Up);
    hand.in_flight = 117_388;
    hand.within(2_000_000);
    assert_eq!((hand.bbr.state, hand.bbr.was_probe_precautionary), (State::Down, true));
    hand.round(2_000_000);
    assert_eq!(hand.bbr.state, State::Refill);
    assert!(!hand.bbr.was_probe_too_high && !hand.bbr.was_probe_precautionary);
}

#[test]
fn up_raises_the_bound_by_a_segment_a_round_then_two_then_four() {
    let mut hand = Hand::up();
    hand.bbr.inflight_longterm = hand.bbr.window();
    let mut grown = alloc::vec::Vec::new();
    for round in 0..4 {
        let before = hand.bbr.inflight_longterm;
        for i in 0..before / 1000 {
            let prior = hand.bbr.next_round_delivered;
            // UP began with a round.
            let is_first = i == 0 && round > 0;
            let sample = RateSample {
                delivery_rate: Some(2_000_000),
                prior_delivered: prior - u64::from(!is_first),
                delivered: hand.bbr.delivered + 1000 - (prior - u64::from(!is_first)),
                tx_in_flight: 1000,
                newly_acked: 1000,
                ..RateSample::default()
            };
            let ack = AckInfo {
                now: hand.now(),
                flight_before: 90_000,
                is_cwnd_limited: true,
                ..AckInfo::default()
            };
            hand.bbr.on_ack(&AckInfo { rate: Some(sample), has_sack: true, ..ack });
        }
        grown.push((hand.bbr.inflight_longterm - before) / 1000);
        assert_eq!((hand.bbr.state, hand.bbr.full_bw.is_now), (State::Up, false), "limited by the bound");
    }
    assert_eq!(grown[0], 1);
    assert!(grown.windows(2).all(|w| w[1] >= 2 * w[0] - 1 && w[1] <= 2 * w[0] + 1), "{grown:?}");
}

#[test]
fn a_round_with_loss_in_cruise_lowers_the_short_term_bounds_to_what_was_delivered() {
    let mut hand = Hand::cruise();
    let cwnd = hand.bbr.window();
    hand.round(1_800_000);
    hand.lose_a_fifth(hand.bbr.delivered);
    hand.within(1_900_000);
    assert_eq!((hand.bbr.bw_shortterm, hand.bbr.inflight_shortterm), (NO_RATE_BOUND, NO_BOUND));
    hand.round(1_800_000);
    assert_eq!(hand.bbr.bw_shortterm, 1_900_000);
    assert_eq!(hand.bbr.inflight_shortterm, part_of_window(cwnd, 70), "less than that was delivered");
    assert_eq!((hand.bbr.bw, hand.bbr.window()), (1_900_000, hand.bbr.inflight_shortterm));
    // Three tenths a round at most, and only in rounds with loss.
    hand.round(100_000);
    hand.lose_a_fifth(hand.bbr.delivered);
    hand.round(100_000);
    hand.round(100_000);
    hand.round(100_000);
    assert_eq!(hand.bbr.bw_shortterm, 1_330_000);
    // The next probe forgets them.
    hand.now_us += 3_000_000;
    hand.within(1_000_000);
    assert_eq!((hand.bbr.state, hand.bbr.bw_shortterm), (State::Refill, NO_RATE_BOUND));
    assert_eq!(hand.bbr.bw, 2_000_000);
}

#[test]
fn what_a_probe_lost_bounds_the_flight_and_not_the_rate_after_it() {
    for is_of_probe in [true, false] {
        let mut hand = Hand::up();
        let of_probe = hand.bbr.delivered;
        hand.within(2_000_000);
        hand.lose_too_much();
        assert_eq!(hand.bbr.state, State::Down);
        assert_ne!(hand.bbr.inflight_longterm, NO_BOUND);
        hand.within(2_000_000);
        hand.lose_a_fifth(if is_of_probe { of_probe } else { hand.bbr.delivered });
        hand.round(1_900_000);
        hand.round(1_900_000);
        assert_eq!(hand.bbr.bw_shortterm == NO_RATE_BOUND, is_of_probe);
    }
}

#[test]
fn a_round_trip_that_is_the_least_but_for_noise_puts_probe_rtt_off() {
    let mut hand = Hand::cruise();
    hand.rtt_us = 51_562;
    for _ in 0..100 {
        hand.now_us += 100_000;
        hand.within(2_000_000);
        assert_ne!(hand.bbr.state, State::ProbeRtt);
    }
    assert_eq!(hand.bbr.min_rtt_us, 50_000, "noise is not learnt");
    hand.rtt_us += 1;
    hand.now_us += 5_000_000;
    hand.within(2_000_000);
    assert_eq!(hand.bbr.state, State::ProbeRtt);
}

#[test]
fn a_timeout_leaves_one_segment_and_the_window_comes_back_when_all_is_repaired() {
    let mut hand = Hand::cruise();
    let before = hand.bbr.window();
    hand.bbr.on_rto(hand.now(), 3000);
    assert_eq!(hand.bbr.window(), 1000);
    hand.bbr.on_rto(hand.now(), 3000);
    hand.within(2_000_000);
    assert_eq!(hand.bbr.window(), 4000, "the floor");
    hand.within(2_000_000);
    assert_eq!(hand.bbr.window(), 5000, "what was acknowledged");
    hand.within(2_000_000);
    assert_eq!(hand.bbr.window(), before);
}

#[test]
fn a_recovery_that_ends_gives_the_window_back_within_the_model() {
    let mut hand = Hand::cruise();
    let before = hand.bbr.window();
    hand.recover();
    hand.bbr.cwnd = 10_000;
    hand.bbr.on_recovery_exit(hand.now());
    assert_eq!(hand.bbr.window(), before);
    hand.recover();
    hand.bbr.inflight_shortterm = 50_000;
    hand.bbr.on_recovery_exit(hand.now());
    assert_eq!(hand.bbr.window(), 50_000);
}

#[test]
fn a_loss_that_was_none_takes_back_what_it_did() {
    // Out of Startup, and back.
    let mut hand = startup_with_loss(6, 5001);
    hand.bbr.on_spurious(hand.now());
    assert_eq!((hand.bbr.state, hand.bbr.full_bw.is_reached), (State::Startup, false));
    assert_eq!(hand.bbr.inflight_longterm, NO_BOUND);
    // Out of UP, and back by REFILL.
    let mut hand = Hand::up();
    hand.lose_too_much();
    hand.recover();
    assert_eq!(hand.bbr.state, State::Down);
    hand.bbr.on_spurious(hand.now());
    assert_eq!((hand.bbr.state, hand.bbr.inflight_longterm), (State::Refill, NO_BOUND));
    // In CRUISE: the bounds; and once.
    let mut hand = Hand::cruise();
    let before = hand.bbr.window();
    hand.round(1_000_000);
    hand.lose_a_fifth(hand.bbr.delivered);
    hand.recover();
    hand.round(1_000_000);
    hand.round(1_000_000);
    assert!(hand.bbr.bw_shortterm < 2_000_000 && hand.bbr.window() < before);
    hand.bbr.on_spurious(hand.now());
    assert_eq!((hand.bbr.bw_shortterm, hand.bbr.window()), (NO_RATE_BOUND, before));
    hand.bbr.bw_shortterm = 7;
    hand.bbr.on_spurious(hand.now());
    assert_eq!(hand.bbr.bw_shortterm, 7);
    // After a timeout.
    hand.bbr.reset_short_term_model();
    hand.bbr.on_rto(hand.now(), 50_000);
    hand.bbr.on_spurious(hand.now());
    assert_eq!(hand.bbr.window(), before);
}

#[test]
fn a_congestion_mark_ends_startup_and_a_probe_and_lowers_the_bounds_otherwise() {
    let mark = |hand: &mut Hand| {
        hand.bbr.on_congestion_event(hand.now(), 100_000, CongestionKind::Ecn);
        hand.in_flight = 1_000_000;
        hand.within(1_500_000);
    };
    let mut hand = Hand::new();
    hand.round(1_000_000);
    mark(&mut hand);
    assert_eq!(hand.bbr.state, State::Drain);
    let mut hand = Hand::up();
    mark(&mut hand);
    assert_eq!((hand.bbr.state, hand.bbr.inflight_longterm), (State::Down, 100_000));
    let mut hand = Hand::cruise();
    hand.round(1_500_000);
    mark(&mut hand);
    hand.round(1_500_000);
    assert!(hand.bbr.bw_shortterm < 2_000_000);
}

#[test]
fn probe_rtt_comes_after_five_seconds_without_a_lower_round_trip() {
    let mut hand = Hand::cruise();
    let before = hand.bbr.window();
    hand.rtt_us = 60_000;
    hand.now_us += 4_999_500;
    hand.within(2_000_000);
    assert_ne!(hand.bbr.state, State::ProbeRtt);
    hand.within(2_000_000);
    assert_eq!(hand.bbr.state, State::ProbeRtt);
    assert_eq!((hand.bbr.window(), hand.bbr.min_rtt_us), (50_000, 50_000), "half the product");
    // Little in flight, then 200 ms, then a round.
    hand.in_flight = 50_001;
    hand.within(1_000_000);
    assert_eq!(hand.bbr.probe_rtt_cwnd(), 50_000);
    hand.now_us += 300_000;
    hand.in_flight = 50_000;
    hand.within(1_000_000);
    hand.now_us += 200_001;
    hand.within(1_000_000);
    assert_eq!(hand.bbr.state, State::ProbeRtt, "no round yet");
    hand.round(1_000_000);
    assert_eq!(hand.bbr.state, State::Cruise);
    assert_eq!(hand.bbr.window(), before);
    // What was sent in it does not count as what the path takes.
    assert!(
        hand.bbr
            .without_probe_rtt(RateSample { prior_delivered: hand.bbr.delivered, ..RateSample::default() })
            .is_app_limited
    );
    let later = hand.bbr.delivered + 60_000;
    assert!(
        !hand
            .bbr
            .without_probe_rtt(RateSample { prior_delivered: later, ..RateSample::default() })
            .is_app_limited
    );
}

#[test]
fn probe_rtt_out_of_startup_goes_back_to_startup() {
    let mut hand = Hand::new();
    hand.is_app_limited = true;
    hand.round(1_000_000);
    hand.now_us += 5_000_001;
    hand.within(1_000_000);
    assert_eq!(hand.bbr.state, State::ProbeRtt);
    hand.in_flight = 1000;
    hand.within(1_000_000);
    hand.now_us += 200_001;
    hand.round(1_000_000);
    assert_eq!(hand.bbr.state, State::Startup);
}

#[test]
fn idleness_counts_as_probe_rtt_and_sending_goes_on_at_the_bandwidth() {
    let mut hand = Hand::cruise();
    let window = hand.bbr.window();
    hand.now_us += 6_000_000;
    hand.bbr.on_idle_restart(hand.now());
    assert_eq!((hand.bbr.window(), hand.bbr.pacing_rate()), (window, Some(1_980_000)));
    hand.within(2_000_000);
    assert_ne!(hand.bbr.state, State::ProbeRtt);
    // Idle in ProbeRTT for long enough: it is over before anything is sent.
    let mut hand = Hand::cruise();
    hand.now_us += 5_100_000;
    hand.rtt_us = 60_000;
    hand.in_flight = 50_000;
    hand.within(2_000_000);
    assert_eq!(hand.bbr.state, State::ProbeRtt);
    hand.now_us += 1_000_000;
    hand.bbr.on_idle_restart(hand.now());
    assert_eq!((hand.bbr.state, hand.bbr.window()), (State::Cruise, window));
}

#[test]
fn the_first_pacing_rate_is_that_of_the_initial_window_in_a_round_trip() {
    let mut bbr = Bbr::new(1000, 1);
    // 10,000 bytes in 1 ms, times 2.77; 64 kB in a burst.
    assert_eq!((bbr.pacing_rate(), bbr.send_quantum()), (Some(27_700_000), 27_700));
    let sample = RateSample {
        delivery_rate: Some(20_000),
        delivered: 1000,
        newly_acked: 1000,
        ..RateSample::default()
    };
    let ack = AckInfo {
        now: Instant::from_millis(50),
        rtt_us: Some(50_000),
        rate: Some(sample),
        ..AckInfo::default()
    };
    bbr.on_ack(&ack);
    assert_eq!((bbr.pacing_rate(), bbr.send_quantum()), (Some(554_000), 2000));
    // It does not fall in Startup.
    bbr.on_ack(&ack);
    assert_eq!(bbr.pacing_rate(), Some(554_000));
    bbr.full_bw.is_reached = true;
    bbr.bw = 1_000_000_000_000;
    bbr.set_pacing_rate(100);
    assert_eq!(bbr.send_quantum(), 65_536);
}

#[test]
fn an_acknowledgment_that_delivers_nothing_changes_nothing_but_the_flight() {
    let mut hand = Hand::cruise();
    let (window, rate, round) = (hand.bbr.window(), hand.bbr.pacing_rate(), hand.bbr.round_count);
    hand.bbr.on_ack(&AckInfo { now: hand.now(), flight_before: 5000, ..AckInfo::default() });
    assert_eq!((hand.bbr.window(), hand.bbr.pacing_rate(), hand.bbr.round_count), (window, rate, round));
    assert_eq!(hand.bbr.in_flight, 5000);
}

proptest! {
    #[test]
    fn window_and_rate_stay_within_their_bounds_whatever_comes(
        mss in 1u16..=9000,
        seed in any::<u64>(),
        events in proptest::collection::vec((0u8..16, any::<u32>(), any::<u64>()), 0..300),
    ) {
        let mut bbr = Bbr::new(mss, seed);
        let (mut now_us, mut delivered) = (0, 0u64);
        // The initial window may be two segments.
        let mut floor = 2;
        for (event, n, m) in events {
            now_us += m % 1_000_000;
            let now = Instant::from_micros(now_us);
            match event {
                0 => bbr.on_congestion_event(now, n, CongestionKind::Loss),
                1 => {
                    bbr.on_rto(now, n);
                    floor = 1;
                }
                2 => bbr.on_recovery_exit(now),
                3 => bbr.on_idle_restart(now),
                4 => bbr.on_spurious(now),
                5 => bbr.on_congestion_event(now, n, CongestionKind::Ecn),
                6 => bbr.on_lost(now, &LostRange {
                    bytes: n % 100_000, tx_in_flight: n / 2, lost_since_sent: n, delivered,
                    prior_delivered: delivered.saturating_sub(m % 1_000_000), is_app_limited: m & 1 == 0,
                }),
                _ => {
                    let prior_delivered = delivered.saturating_sub(m % 1_000_000);
                    delivered += u64::from(n % 100_000);
                    bbr.on_ack(&AckInfo {
                        now,
                        bytes_acked: n % 100_000,
                        bytes_delivered: n % 100_000,
                        rtt_us: (m & 2 == 0).then_some(n % 10_000_000),
                        flight_before: n,
                        rate: (m & 4 == 0).then_some(RateSample {
                            delivery_rate: (m & 8 == 0).then_some(m >> (n % 64)),
                            interval_us: 1,
                            delivered: delivered - prior_delivered,
                            prior_delivered,
                            lost: n >> 8,
                            tx_in_flight: n >> 1,
                            newly_acked: n % 100_000,
                            newly_lost: 0,
                            is_app_limited: m & 16 == 0,
                        }),
                        is_cwnd_limited: m & 32 == 0,
                        has_sack: m & 64 == 0,
                        ..AckInfo::default()
                    });
                    if m & 4 == 0 {
                        floor = 4;
                    }
                }
            }
            floor = match event {
                2 => 4,
                4 => floor.max(2),
                _ => floor,
            };
            prop_assert!(bbr.window() >= floor * u32::from(mss) && bbr.window() <= WINDOW_MAX);
            prop_assert!(bbr.pacing_rate().unwrap() >= u64::from(mss));
            prop_assert!(bbr.send_quantum() >= 2 * u32::from(mss) && bbr.send_quantum() <= 65_536);
        }
    }
}
