//! BBR over the modelled link.

use super::*;

const MS: u64 = 1000;
const SECOND: u64 = 1_000_000;
/// 50 ms.
const RTT: u64 = 50 * MS;

/// 100 Mbit/s, 50 ms, a buffer of so many products of the two.
fn fast(buffers: u64, loss_ppm: u64, seed: u64) -> Link {
    Link::new(FAST, RTT, FAST * RTT / SECOND * buffers, loss_ppm, seed)
}

/// Per cent of the rate that was received in `us`.
fn use_of(link: &mut Link, us: u64) -> u64 {
    link.run(us) * 100 * SECOND / us / link.rate
}

#[test]
fn a_path_is_filled_within_nine_round_trips_and_startup_ends_within_fifteen() {
    let mut link = fast(4, 0, 1);
    assert!(link.run_until(9 * RTT, |link| link.bbr.max_bw.value() >= FAST * 98 / 100));
    assert!(link.run_until(7 * RTT, |link| link.bbr.state != State::Startup));
    assert_eq!(link.bbr.state, State::Drain);
    let bw = link.bbr.max_bw.value();
    assert!((FAST * 98 / 100..=FAST * 102 / 100).contains(&bw), "{bw}");
    assert!(link.queue_max <= link.bdp() * 5 / 4, "{}", link.queue_max);
    assert!(link.run_until(3 * RTT, |link| link.bbr.state != State::Drain));
}

#[test]
fn the_states_follow_each_other_in_the_order_of_the_draft() {
    let mut link = fast(4, 0, 2);
    let mut seen = alloc::vec![State::Startup];
    let mut note = |link: &Link| {
        if seen.last() != Some(&link.bbr.state) {
            seen.push(link.bbr.state);
        }
        false
    };
    link.run_until(SECOND, &mut note);
    // On a path of one length the least round trip is met again and again, and ProbeRTT never due.
    link.rtt_us += RTT / 10;
    link.run_until(11 * SECOND, &mut note);
    // DOWN follows Drain for an acknowledgment at most, as there is no queue.
    seen.retain(|&state| state != State::Down);
    let cycle = [State::Cruise, State::Refill, State::Up, State::Cruise, State::ProbeRtt];
    assert_eq!(seen[..2], [State::Startup, State::Drain]);
    assert_eq!(seen[2..7], cycle, "{seen:?}");
    assert_eq!(seen[7..10], [State::Cruise, State::Refill, State::Up], "{seen:?}");
}

#[test]
fn a_deep_buffer_is_not_filled_and_the_link_is_used() {
    for seed in 1..5 {
        let mut link = fast(4, 0, seed);
        link.run(SECOND);
        assert!(use_of(&mut link, 20 * SECOND) >= 95);
        assert_eq!(link.lost, 0);
        assert!(link.queue_max < 2 * link.bdp(), "{}", link.queue_max);
        // Most of the time there is none at all.
        let mut sum = 0;
        for _ in 0..400 {
            link.queue_max = 0;
            link.run(RTT);
            sum += link.queue_max;
        }
        assert!(sum / 400 < link.bdp() / 4, "{}", sum / 400);
    }
}

#[test]
fn a_shallow_buffer_costs_little() {
    let mut link = fast(1, 0, 3);
    link.buffer = link.bdp() / 10;
    link.run(2 * SECOND);
    let lost = link.lost;
    let used = use_of(&mut link, 20 * SECOND);
    assert!(used >= 90, "{used}");
    assert!((link.lost - lost) * 100 < link.received, "less than 1% lost");
}

#[test]
fn one_per_cent_of_random_loss_leaves_most_of_the_link() {
    for seed in 1..5 {
        let mut link = fast(4, 10_000, seed);
        link.run(SECOND);
        let used = use_of(&mut link, 30 * SECOND);
        assert!(used >= 90, "{used}");
    }
}

#[test]
fn eight_per_cent_of_loss_is_taken_for_congestion() {
    let mut link = fast(4, 80_000, 1);
    assert!(
        link.run_until(SECOND, |link| link.bbr.inflight_longterm != NO_BOUND),
        "above the threshold of 2%"
    );
    assert_ne!(link.bbr.state, State::Startup);
    let bound = link.bbr.inflight_longterm;
    link.run(10 * SECOND);
    assert!(link.bbr.inflight_longterm < bound);
    assert!(link.bbr.window() >= 4 * MSS);
    // It recovers when the losses end.
    link.loss_ppm = 0;
    link.run(20 * SECOND);
    assert!(use_of(&mut link, 5 * SECOND) >= 90);
}

#[test]
fn half_the_bandwidth_is_found_within_three_cycles_and_the_queue_drained() {
    let mut link = fast(2, 0, 4);
    link.run(4 * SECOND);
    link.rate /= 2;
    link.run(12 * SECOND);
    assert!(link.bbr.max_bw.value() <= link.rate * 101 / 100);
    link.run_until(6 * SECOND, |link| link.bbr.state == State::Cruise);
    link.queue_max = 0;
    link.run(2 * RTT);
    assert!(link.queue_max < link.bdp() / 10, "{}", link.queue_max);
    assert!(use_of(&mut link, 10 * SECOND) >= 95);
}

#[test]
fn half_the_bandwidth_with_a_shallow_buffer_is_answered_within_rounds() {
    let mut link = fast(1, 0, 5);
    link.buffer = link.bdp() / 4;
    link.run_until(20 * SECOND, |link| link.bbr.state == State::Cruise && link.now_us > 2 * SECOND);
    link.rate /= 2;
    link.run(20 * RTT);
    let lost = link.lost;
    link.run(5 * RTT);
    assert!(link.bbr.bw < link.rate * 11 / 10, "{}", link.bbr.bw);
    assert!((link.lost - lost) * 20 < link.bdp() * 5, "less than 5% lost");
}

#[test]
fn ten_times_the_bandwidth_is_found_in_a_few_probes() {
    let mut link = Link::new(FAST / 10, RTT, FAST / 20, 0, 6);
    link.run(3 * SECOND);
    link.rate = FAST;
    link.run(12 * SECOND);
    assert!(link.bbr.max_bw.value() >= FAST * 95 / 100, "{}", link.bbr.max_bw.value());
}

#[test]
fn probe_rtt_drains_the_path_and_finds_a_longer_one() {
    let mut link = fast(4, 0, 7);
    assert!(
        !link.run_until(20 * SECOND, |link| link.bbr.state == State::ProbeRtt),
        "the queue was empty often"
    );
    link.rtt_us += RTT / 10;
    assert!(link.run_until(6 * SECOND, |link| link.bbr.state == State::ProbeRtt));
    let begun = link.now_us;
    assert!(link.run_until(SECOND, |link| link.bbr.state != State::ProbeRtt));
    assert!((200 * MS..350 * MS).contains(&(link.now_us - begun)));
    assert!(u64::from(link.in_flight()) <= link.bdp() * 51 / 100);
    // The path grows longer: at the latest when the filter is 10 s old, the model knows.
    link.rtt_us = 80 * MS;
    link.run(16 * SECOND);
    assert!((80_000..85_000).contains(&link.bbr.min_rtt_us), "{}", link.bbr.min_rtt_us);
    assert!(use_of(&mut link, 5 * SECOND) >= 90);
}

#[test]
fn idleness_keeps_the_model() {
    let mut link = fast(4, 0, 8);
    link.run(3 * SECOND);
    link.is_idle = true;
    link.run(8 * SECOND);
    link.is_idle = false;
    // One round trip is empty, and a bit.
    assert!(use_of(&mut link, 20 * RTT) >= 90);
    assert!(link.queue_max <= link.bdp() * 5 / 4);
}

#[test]
fn a_path_that_holds_less_than_a_segment_is_kept_busy_with_four() {
    // 64 kbit/s, 20 ms: 160 bytes.
    let mut link = Link::new(8000, 20 * MS, 50_000, 0, 9);
    link.run(20 * SECOND);
    let used = use_of(&mut link, 60 * SECOND);
    assert!(used >= 90, "{used}");
    assert!(link.bbr.window() >= 4 * MSS);
    assert!(link.bbr.pacing_rate().unwrap() < 12_000);
}

#[test]
fn a_path_that_breaks_for_a_while_is_used_again() {
    let mut link = fast(2, 0, 10);
    link.run(3 * SECOND);
    link.loss_ppm = 1_000_000;
    link.run(3 * SECOND);
    assert_eq!(link.bbr.window(), MSS, "timeouts");
    link.loss_ppm = 0;
    link.run(SECOND);
    assert!(use_of(&mut link, 5 * SECOND) >= 85);
}

#[test]
fn acknowledgments_in_lumps_do_not_leave_the_path_idle() {
    for slot_us in [5 * MS, 20 * MS] {
        let mut link = fast(4, 0, 3);
        link.slot_us = slot_us;
        link.run(2 * SECOND);
        link.queue_max = 0;
        let used = use_of(&mut link, 10 * SECOND);
        assert!(used >= 94, "{used}");
        let bw = link.bbr.max_bw.value();
        assert!((FAST * 97 / 100..=FAST * 102 / 100).contains(&bw), "{bw}");
        // What comes at once: as much as the link passes in a slot.
        let extra = u64::from(link.bbr.extra_acked.value());
        assert!((FAST * slot_us / SECOND / 2..=FAST * slot_us / SECOND * 2).contains(&extra), "{extra}");
        assert!(link.queue_max < 2 * link.bdp());
    }
}

#[test]
fn long_and_short_paths_are_used() {
    // A round trip of a second spends most of one in ProbeRTT, each five seconds.
    let paths = [(FAST, 100, 95), (FAST, SECOND, 80), (FAST / 100, 30 * MS, 95), (10 * FAST, MS, 95)];
    for (rate, rtt_us, least) in paths {
        let mut link = Link::new(rate, rtt_us, (4 * rate * rtt_us / SECOND).max(100_000), 0, 11);
        link.run(SECOND + 25 * rtt_us);
        let used = use_of(&mut link, 10 * SECOND);
        assert!(used >= least, "{rate} {rtt_us}: {used}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut link = fast(1, 3000, seed);
        link.run(10 * SECOND);
        (link.received, link.lost, link.bbr.pacing_rate(), link.bbr.window())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_second_flow_comes_to_its_share() {
    for seed in 1..4 {
        let mut link = fast(1, 0, seed);
        link.run(3 * SECOND);
        link.join(seed + 100);
        link.run(40 * SECOND);
        let before = link.received_by_each();
        link.run(30 * SECOND);
        let shares: alloc::vec::Vec<u64> = link
            .received_by_each()
            .iter()
            .zip(before)
            .map(|(after, before)| (after - before) * 100 / (30 * FAST))
            .collect();
        assert!(shares.iter().all(|&share| share >= 33) && shares.iter().sum::<u64>() >= 93, "{shares:?}");
    }
}
