use std::collections::VecDeque;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::{Algorithm, Congestion};
use super::*;

const MSS: u16 = 1000;
const SMSS: u32 = 1000;
const NOW: Instant = Instant::ZERO;

fn at(us: u64) -> Instant {
    Instant::from_micros(us)
}

/// A segment acknowledged while the window is full.
fn ack(cubic: &mut Cubic, now: Instant) {
    ack_bytes(cubic, now, SMSS, 0);
}

fn ack_bytes(cubic: &mut Cubic, now: Instant, bytes_acked: u32, rtt_us: u32) {
    let flight_before = cubic.window().max(bytes_acked);
    cubic.on_ack(&AckInfo { now, bytes_acked, flight_before, srtt_us: Some(rtt_us), ..AckInfo::default() });
}

/// In congestion avoidance, about to begin a stage, after a loss at `segments` that were all in flight.
fn after_loss(segments: u32) -> Cubic {
    let mut cubic = Cubic::new(MSS);
    cubic.window.size = segments * SMSS;
    cubic.on_congestion_event(NOW, segments * SMSS, CongestionKind::Loss);
    cubic.on_recovery_exit(NOW);
    cubic
}

#[test]
fn the_cube_root_is_that_of_a_naive_search() {
    let mut root: u64 = 0;
    for n in 0..100_000u64 {
        while (root + 1).pow(3) <= n {
            root += 1;
        }
        assert_eq!(cube_root(u128::from(n)), root, "{n}");
    }
    assert_eq!(cube_root(u128::MAX), 6_981_463_658_331);
}

proptest! {
    #[test]
    fn the_cube_root_is_exact(root in 1u128..6_981_463_658_331, beyond in any::<u128>()) {
        let (cube, next) = (root.pow(3), (root + 1).pow(3));
        prop_assert_eq!(u128::from(cube_root(cube)), root);
        prop_assert_eq!(u128::from(cube_root(cube - 1)), root - 1);
        prop_assert_eq!(u128::from(cube_root(cube + beyond % (next - cube))), root);
    }
}

#[test]
fn k_and_w_cubic_are_those_worked_by_hand_from_rfc_9438() {
    // W_max 100, cwnd_epoch 70: K = cbrt(30 / 0.4) = cbrt(75) = 4.217163 s.
    let mut cubic = after_loss(100);
    ack(&mut cubic, NOW);
    let epoch = cubic.state().epoch;
    assert_eq!((epoch.k_us, epoch.w_max, epoch.cwnd_prior), (4_217_163, 100_000, 100_000));
    let k = 4_217_163;
    // W(0) = 70; W(K - 1 s) = 99.6; W(K - 2 s) = 96.8; W(K) = 100; W(K + 1 s) = 100.4; W(K + 10 s) = 500.
    for (t_us, bytes) in [
        (0, 70_000),
        (k - 2_000_000, 96_800),
        (k - 1_000_000, 99_600),
        (k, 100_000),
        (k + 1_000_000, 100_400),
        (k + 10_000_000, 500_000),
        (u64::MAX, WINDOW_MAX),
    ] {
        assert!(epoch.w_cubic(t_us, SMSS).abs_diff(bytes) <= 1, "{t_us}: {}", epoch.w_cubic(t_us, SMSS));
    }
}

/// One second into a stage that began with 70 segments, where the curve is at 86.7 and Reno at 70.
fn one_second_in() -> Cubic {
    let mut cubic = after_loss(100);
    ack(&mut cubic, NOW);
    assert_eq!(cubic.window(), 70_007, "Reno is faster in the first moment: 9/17 * 1000/70");
    cubic
}

#[test]
fn an_acknowledgment_adds_what_is_missing_to_the_target_divided_by_the_window() {
    // A round trip before K the target is W_max.
    let mut cubic = one_second_in();
    ack_bytes(&mut cubic, at(1_000_000), SMSS, 3_217_163);
    // (100000 - 70007) * 1000 / 70007 = 428 and 30004/70007.
    assert_eq!((cubic.window(), cubic.state().epoch.rest), (70_435, 30_004));
    ack_bytes(&mut cubic, at(1_000_000), SMSS, 3_217_163);
    // ((100000 - 70435) * 1000 + 30004) / 70435 = 420 and 12304/70435: the rest is not lost.
    assert_eq!((cubic.window(), cubic.state().epoch.rest), (70_855, 12_304));
}

#[test]
fn the_target_is_at_most_half_again_the_window() {
    let mut cubic = one_second_in();
    ack_bytes(&mut cubic, at(1_000_000), 70_007, 60_000_000);
    assert_eq!(cubic.window(), 70_007 + 35_003);
}

#[test]
fn the_window_follows_the_curve_through_the_concave_and_the_convex_part() {
    // 1000 segments, RTT 100 ms: K = cbrt(300 / 0.4) = 9.0856 s.
    let mut cubic = after_loss(1000);
    let mut now_us = 0;
    for second in 1..=18u64 {
        while now_us < second * 1_000_000 {
            ack_bytes(&mut cubic, at(now_us), 2 * SMSS, 100_000);
            now_us += 100_000 * 2 * u64::from(SMSS) / u64::from(cubic.window());
        }
        let curve = 0.4 * (second as f64 - 9.0856).powi(3) + 1000.0;
        let window = f64::from(cubic.window()) / f64::from(SMSS);
        assert!((window / curve - 1.0).abs() < 0.005, "{second} s: {window}, not {curve}");
    }
}

#[test]
fn w_est_grows_by_nine_seventeenths_of_a_segment_per_window_and_by_one_from_cwnd_prior_on() {
    let mut cubic = after_loss(10);
    assert_eq!(cubic.window(), 7000);
    // All at one moment: the curve stands still, so this is the Reno-friendly region from the second window on.
    ack_bytes(&mut cubic, NOW, 7000, 0);
    assert_eq!((cubic.window(), cubic.state().epoch.w_est), (7529, 7529), "7000 + 9000/17");
    let mut windows = 1;
    while cubic.state().epoch.w_est < 10_000 {
        let window = cubic.window();
        ack_bytes(&mut cubic, NOW, window, 0);
        windows += 1;
    }
    // 3 segments / (9/17) = 5.67.
    assert_eq!(windows, 6);
    let window = cubic.window();
    ack_bytes(&mut cubic, NOW, window, 0);
    assert_eq!(cubic.window(), window + 1000);
}

#[test]
fn w_est_keeps_its_fractions_whatever_the_size_of_acknowledgments() {
    let mut whole = after_loss(10);
    let mut parts = after_loss(10);
    ack_bytes(&mut whole, NOW, 7000, 0);
    for _ in 0..700 {
        ack_bytes(&mut parts, NOW, 10, 0);
    }
    // Later parts are divided by a window that grew.
    assert!(whole.window().abs_diff(parts.window()) <= 25, "{} {}", whole.window(), parts.window());
}

#[test]
fn a_loss_leaves_seven_tenths_of_the_flight_and_two_segments_at_least() {
    let mut cubic = after_loss(100);
    assert_eq!((cubic.window(), cubic.ssthresh()), (70_000, 70_000));
    cubic.on_congestion_event(NOW, 10_000, CongestionKind::Loss);
    assert_eq!((cubic.window(), cubic.ssthresh()), (7000, 7000), "FlightSize, not cwnd");
    cubic.on_congestion_event(NOW, 1000, CongestionKind::Loss);
    assert_eq!((cubic.window(), cubic.ssthresh()), (2000, 2000));
    cubic.on_congestion_event(NOW, 1000, CongestionKind::Ecn);
    assert_eq!((cubic.window(), cubic.ssthresh()), (1000, 2000), "one after a mark");
}

#[test]
fn a_loss_below_the_last_w_max_makes_the_next_one_smaller_still() {
    let mut cubic = after_loss(100);
    cubic.on_congestion_event(NOW, 70_000, CongestionKind::Loss);
    assert_eq!(cubic.state().epoch.w_max, 59_500, "70000 * 0.85");
    let mut cubic = after_loss(100);
    cubic.window.size = 100_000;
    cubic.on_congestion_event(NOW, 100_000, CongestionKind::Loss);
    assert_eq!(cubic.state().epoch.w_max, 100_000, "not below it");
}

#[test]
fn a_timeout_starts_over_and_the_curve_begins_at_the_window_that_slow_start_reaches() {
    let mut cubic = after_loss(100);
    cubic.on_rto(NOW, 50_000);
    assert_eq!((cubic.window(), cubic.ssthresh()), (1000, 35_000));
    cubic.on_rto(NOW, 1000);
    assert_eq!((cubic.window(), cubic.ssthresh()), (1000, 35_000), "the same segment");
    for _ in 0..34 {
        ack(&mut cubic, at(5));
    }
    assert_eq!(cubic.window(), 35_000);
    ack(&mut cubic, at(7));
    let epoch = cubic.state().epoch;
    assert_eq!((epoch.k_us, epoch.w_max, epoch.began, epoch.cwnd_prior), (0, 35_000, at(7), 70_000));
}

#[test]
fn a_congestion_event_that_was_none_is_undone_with_its_epoch() {
    let mut cubic = after_loss(100);
    ack(&mut cubic, at(1000));
    let (window, ssthresh) = (cubic.window(), cubic.ssthresh());
    cubic.on_congestion_event(at(2000), window, CongestionKind::Loss);
    cubic.on_spurious(at(3000));
    assert_eq!((cubic.window(), cubic.ssthresh()), (window, ssthresh));
    cubic.on_recovery_exit(at(3000));
    assert_eq!(cubic.window(), window, "no recovery any more");
    let epoch = cubic.state().epoch;
    assert_eq!((epoch.k_us, epoch.w_max, epoch.began), (4_217_163, 100_000, at(1000)));
    cubic.on_rto(at(4000), window);
    cubic.on_rto(at(5000), 1000);
    cubic.on_spurious(at(6000));
    cubic.on_spurious(at(6000));
    assert_eq!((cubic.window(), cubic.ssthresh(), cubic.state().epoch.w_max), (window, ssthresh, 100_000));
}

#[test]
fn a_window_that_has_outgrown_what_was_before_is_not_undone() {
    let mut cubic = after_loss(100);
    cubic.window.size = 120_000;
    cubic.on_spurious(NOW);
    assert_eq!((cubic.window(), cubic.ssthresh()), (120_000, 70_000));
}

#[test]
fn the_first_slow_start_goes_on_when_its_loss_was_none() {
    let mut cubic = Cubic::new(MSS);
    cubic.on_congestion_event(NOW, 10_000, CongestionKind::Loss);
    cubic.on_spurious(NOW);
    cubic.on_recovery_exit(NOW);
    assert_eq!((cubic.window(), cubic.ssthresh()), (10_000, u32::MAX));
    ack_bytes(&mut cubic, NOW, 9000, 0);
    assert_eq!(cubic.window(), 19_000, "all of it: HyStart++");
}

#[test]
fn time_in_which_the_window_was_not_used_is_not_the_curves() {
    let mut cubic = after_loss(100);
    ack(&mut cubic, at(0));
    ack(&mut cubic, at(100_000));
    let unused = AckInfo { bytes_acked: SMSS, is_app_limited: true, ..AckInfo::default() };
    for now_us in (200_000..60_000_000).step_by(100_000) {
        cubic.on_ack(&AckInfo { now: at(now_us), flight_before: cubic.window(), ..unused });
    }
    let window = cubic.window();
    ack(&mut cubic, at(60_100_000));
    assert_eq!(cubic.state().epoch.began, at(60_000_000), "100 ms were used");
    assert!(cubic.window() - window < SMSS, "no leap");
}

#[test]
fn a_long_idle_time_restarts_with_the_initial_window_and_grows_back_by_slow_start() {
    let mut cubic = after_loss(100);
    ack(&mut cubic, at(0));
    let window = cubic.window();
    cubic.on_idle_restart(at(60_000_000));
    assert_eq!((cubic.window(), cubic.ssthresh()), (10_000, 70_000));
    for _ in 0..120 {
        ack(&mut cubic, at(60_100_000));
    }
    assert!(cubic.window() >= 70_000 && cubic.window() <= window + SMSS, "{}", cubic.window());
    assert_eq!(cubic.state().epoch.began, at(60_100_000));
    // An idle time that leaves the window alone leaves the curve where it was.
    let mut cubic = after_loss(10);
    ack(&mut cubic, at(0));
    cubic.on_idle_restart(at(60_000_000));
    ack(&mut cubic, at(60_000_000));
    assert_eq!(cubic.state().epoch.began, at(60_000_000));
}

#[test]
fn hystart_ends_the_first_slow_start_and_the_curve_begins_there() {
    let mut cubic = Cubic::new(MSS);
    let mut now_us = 0;
    let mut rounds = 0;
    // Full windows; the round trip is 50 ms and rises by 10 ms a round from the third on.
    while cubic.ssthresh() == u32::MAX {
        assert!(rounds < 20);
        let rtt_us = 50_000 + 10_000 * u32::max(rounds, 2) - 20_000;
        now_us += u64::from(rtt_us);
        let flight_before = cubic.window();
        for _ in 0..flight_before / SMSS {
            cubic.on_ack(&AckInfo {
                now: at(now_us),
                bytes_acked: SMSS,
                flight_before,
                rtt_us: Some(rtt_us),
                ..AckInfo::default()
            });
            if cubic.ssthresh() != u32::MAX {
                break;
            }
        }
        rounds += 1;
    }
    let window = cubic.ssthresh();
    assert_eq!(cubic.window(), window);
    assert!(window > 80_000 && window < 300_000, "{window}");
    ack(&mut cubic, at(now_us));
    let epoch = cubic.state().epoch;
    assert_eq!((epoch.k_us, epoch.w_max), (0, window));
}

#[test]
fn a_loss_of_a_window_that_was_not_used_is_answered_from_what_was() {
    let mut cubic = after_loss(200);
    // 20 segments a round trip of a window of 140.
    for round in 0..30 {
        for _ in 0..20 {
            cubic.on_ack(&AckInfo {
                now: at(round * 100_000),
                bytes_acked: SMSS,
                flight_before: 20 * SMSS,
                ..AckInfo::default()
            });
        }
    }
    assert_eq!(cubic.window(), 140_000, "kept");
    cubic.on_ack(&AckInfo { bytes_lost: 2 * SMSS, flight_before: 30 * SMSS, ..AckInfo::default() });
    cubic.on_congestion_event(NOW, 30 * SMSS, CongestionKind::Loss);
    assert_eq!((cubic.window(), cubic.ssthresh()), (15_000, 15_000));
    cubic.on_recovery_exit(NOW);
    assert_eq!((cubic.window(), cubic.ssthresh()), (14_000, 14_000), "less half of what was lost");
    assert_eq!(cubic.state().epoch.cwnd_prior, 30_000);
}

#[test]
fn five_minutes_of_little_use_halve_the_window() {
    let mut cubic = after_loss(200);
    for round in 0..=601 {
        let now = at(round * 500_000);
        cubic.on_ack(&AckInfo { now, bytes_acked: SMSS, flight_before: SMSS, ..AckInfo::default() });
        let expected = if round <= 600 { (140_000, 140_000) } else { (70_000, 140_000) };
        assert_eq!((cubic.window(), cubic.ssthresh()), expected, "{round}");
    }
}

/// The average window in segments when every `period`th segment is lost: RFC 9438 §5.
fn average_window(period: u64, rtt_us: u64, losses: u32) -> f64 {
    let mut cubic = after_loss(10);
    let (mut now_ns, mut measured_ns, mut measured) = (0u64, 0u64, 0u64);
    for loss in 0..losses {
        let began_ns = now_ns;
        for _ in 0..period {
            // One segment at a time, evenly over the round trip.
            now_ns += rtt_us * 1000 * u64::from(SMSS) / u64::from(cubic.window());
            ack_bytes(&mut cubic, at(now_ns / 1000), SMSS, rtt_us as u32);
        }
        let flight = cubic.window();
        cubic.on_congestion_event(at(now_ns / 1000), flight, CongestionKind::Loss);
        cubic.on_recovery_exit(at(now_ns / 1000));
        if loss >= losses / 2 {
            measured_ns += now_ns - began_ns;
            measured += period;
        }
    }
    measured as f64 * (rtt_us * 1000) as f64 / measured_ns as f64
}

#[test]
fn the_response_function_is_that_of_rfc_9438_tables_1_and_2() {
    for (rtt_us, period, losses, expected) in [
        (100_000, 100, 40, 12.0),
        (100_000, 1_000, 40, 38.0),
        (100_000, 10_000, 24, 187.0),
        (100_000, 100_000, 16, 1054.0),
        // Here the Reno-friendly region is all there is.
        (10_000, 100, 40, 12.0),
        (10_000, 1_000, 40, 38.0),
        (10_000, 10_000, 24, 120.0),
        (10_000, 100_000, 16, 379.0),
    ] {
        let average = average_window(period, rtt_us, losses);
        assert!((average / expected - 1.0).abs() < 0.1, "{rtt_us} us, 1/{period}: {average}, not {expected}");
    }
}

/// A sender that always has data, on a [`Link`].
struct Flow {
    congestion: Congestion,
    sent: u64,
    in_flight: u32,
    /// Losses of segments before this one belong to a congestion event that was answered.
    recover: u64,
    is_recovering: bool,
    delivered: u64,
}

/// A bottleneck with a drop-tail queue that sends a segment per `service_us`, `delay_us` from acknowledged.
struct Link {
    service_us: u64,
    delay_us: u64,
    queue_max: u64,
    free_at: u64,
    /// When the sender learns what became of a segment: time, flow, number, when sent, whether it was lost.
    pending: VecDeque<(u64, usize, u64, u64, bool)>,
}

impl Link {
    /// `flow` fills its window at `now`.
    fn send(&mut self, index: usize, flow: &mut Flow, now: u64) {
        while (flow.in_flight + 1) * SMSS <= flow.congestion.window() {
            let begins = self.free_at.max(now);
            let is_lost = begins - now >= self.queue_max * self.service_us;
            if !is_lost {
                self.free_at = begins + self.service_us;
            }
            // A loss shows when what follows is acknowledged, so all come back in order.
            self.pending.push_back((self.free_at.max(now) + self.delay_us, index, flow.sent, now, is_lost));
            flow.sent += 1;
            flow.in_flight += 1;
        }
    }

    /// The flows' deliveries between the two times.
    fn run(&mut self, flows: &mut [Flow], now: &mut u64, until: u64) -> Vec<u64> {
        let before: Vec<u64> = flows.iter().map(|flow| flow.delivered).collect();
        for (index, flow) in flows.iter_mut().enumerate() {
            self.send(index, flow, *now);
        }
        while *now < until {
            let (time, index, number, sent_at, is_lost) = self.pending.pop_front().unwrap();
            *now = time;
            let flow = &mut flows[index];
            let flight = flow.in_flight * SMSS;
            flow.in_flight -= 1;
            if is_lost {
                if number >= flow.recover {
                    flow.congestion.on_congestion_event(at(time), flight, CongestionKind::Loss);
                    flow.recover = flow.sent;
                    flow.is_recovering = true;
                }
            } else {
                flow.delivered += 1;
                let is_exit = flow.is_recovering && number >= flow.recover;
                flow.is_recovering &= !is_exit;
                let rtt_us = (time - sent_at) as u32;
                flow.congestion.on_ack(&AckInfo {
                    now: at(time),
                    bytes_acked: SMSS,
                    flight_before: flight,
                    rtt_us: Some(rtt_us),
                    srtt_us: Some(rtt_us),
                    in_recovery: flow.is_recovering,
                    ..AckInfo::default()
                });
                if is_exit {
                    flow.congestion.on_recovery_exit(at(time));
                }
            }
            self.send(index, flow, time);
        }
        flows.iter().zip(before).map(|(flow, before)| flow.delivered - before).collect()
    }
}

fn flow(algorithm: Algorithm) -> Flow {
    Flow {
        congestion: Congestion::new(algorithm, MSS, 1),
        sent: 0,
        in_flight: 0,
        recover: 0,
        is_recovering: false,
        delivered: 0,
    }
}

/// The deliveries of the two in 60 s, of which the second came 20 s late and had 60 s to catch up; and what the link
/// can carry in that time.
fn share(first: Algorithm, second: Algorithm, service_us: u64, delay_us: u64) -> (Vec<u64>, u64) {
    let queue_max = delay_us / service_us;
    let mut link = Link { service_us, delay_us, queue_max, free_at: 0, pending: VecDeque::new() };
    let mut flows = std::vec![flow(first)];
    let mut now = 0;
    link.run(&mut flows, &mut now, 20_000_000);
    flows.push(flow(second));
    link.run(&mut flows, &mut now, 80_000_000);
    let delivered = link.run(&mut flows, &mut now, 140_000_000);
    (delivered, 60_000_000 / service_us)
}

#[test]
fn a_flow_that_comes_late_gets_its_share_and_the_link_stays_full() {
    // 80 Mbit/s and 50 ms; 8 Mbit/s and 20 ms.
    for (service_us, delay_us) in [(100, 50_000), (1000, 20_000)] {
        let (delivered, capacity) = share(Algorithm::Cubic, Algorithm::Cubic, service_us, delay_us);
        let (least, most) = (delivered[0].min(delivered[1]), delivered[0].max(delivered[1]));
        assert!(most < 2 * least, "{delivered:?}");
        assert!(most + least > capacity * 9 / 10, "{delivered:?} of {capacity}");
    }
}

#[test]
fn where_the_window_is_small_reno_keeps_its_share_beside_cubic() {
    // 8 Mbit/s, 20 ms: 20 segments in the pipe, 20 in the queue.
    let (delivered, _) = share(Algorithm::Cubic, Algorithm::NewReno, 1000, 20_000);
    assert!(delivered[0] < 2 * delivered[1] && delivered[1] < 2 * delivered[0], "{delivered:?}");
}

#[test]
fn slow_start_leaves_a_deep_queue_before_it_overflows() {
    // 80 Mbit/s, 50 ms: 500 segments in the pipe, and 3000 in the queue.
    for algorithm in [Algorithm::Cubic, Algorithm::NewReno] {
        let mut link =
            Link { service_us: 100, delay_us: 50_000, queue_max: 3000, free_at: 0, pending: VecDeque::new() };
        let mut flows = [flow(algorithm)];
        link.run(&mut flows, &mut 0, 2_000_000);
        let (ssthresh, recover) = (flows[0].congestion.ssthresh(), flows[0].recover);
        assert!(ssthresh > 500 * SMSS && ssthresh < 3500 * SMSS, "{algorithm}: {ssthresh}");
        assert_eq!(recover, 0, "{algorithm}: nothing was lost");
    }
}

proptest! {
    #[test]
    fn the_window_always_holds_a_segment_never_passes_the_limit_and_only_congestion_lowers_it(
        mss in 1u16..=u16::MAX,
        events in proptest::collection::vec((0u8..12, any::<u32>(), 0u64..2_000_000), 0..200),
    ) {
        let mut cubic = Cubic::new(mss);
        let mut now_us = 0;
        for (event, n, later) in events {
            now_us += later;
            let (now, before) = (at(now_us), cubic.window());
            match event {
                0 => cubic.on_congestion_event(now, n, CongestionKind::Loss),
                1 => cubic.on_congestion_event(now, n, CongestionKind::Ecn),
                2 => cubic.on_rto(now, n),
                3 => cubic.on_recovery_exit(now),
                4 => cubic.on_idle_restart(now),
                5 => {
                    cubic.on_spurious(now);
                    prop_assert!(cubic.window() >= before);
                }
                6 => cubic.on_mss_change(n as u16),
                _ => {
                    cubic.on_ack(&AckInfo {
                        now,
                        bytes_acked: n,
                        flight_before: cubic.window().max(n),
                        rtt_us: Some(n),
                        srtt_us: Some(n),
                        ..AckInfo::default()
                    });
                    prop_assert!(cubic.window() >= before);
                    let most = (before / 2 + 1).max(n);
                    let w_est = cubic.state().epoch.w_est;
                    prop_assert!(cubic.window() - before <= most || cubic.window() == w_est);
                }
            }
            prop_assert!(cubic.window() >= cubic.window.smss() && cubic.window() <= WINDOW_MAX);
            prop_assert!(cubic.ssthresh() >= 2);
        }
    }
}
