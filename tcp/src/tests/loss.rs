//! Retransmission: time-outs, fast retransmit, NewReno, SACK.

use alloc::string::String;
use alloc::vec::Vec;

use crate::state::State;
use crate::testing::Exchange;

// covers: MUST-19
#[test]
fn a_timeout_sends_the_first_segment_again_and_backs_off() {
    let mut x = Exchange::established();
    x.app_writes(100).sends(["P. 1:101(100)"]);
    for ms in [200, 400, 800, 1600] {
        x.sends_nothing_for(ms - 1).after(1).sends(["P. 1:101(100)"]);
    }
    assert_eq!((x.info().retransmits, x.info().recovery), (4, "loss"));
    x.gets([". ack 101"]);
    assert_eq!((x.info().retransmits, x.info().recovery, x.engine.armed_timers()), (0, "open", 0));
    assert_eq!(x.engine.counters().rtos, 4);
}

// covers: T06, MUST-20
#[test]
fn r2_ends_the_connection() {
    let mut x = Exchange::established().config(|config| config.retransmits_max = 2);
    x.app_writes(100).after(200 + 400 + 799).is_in(State::Established).after(1).is_in(State::Listen);
    x.tells(["Closed: timed out"]);
    assert_eq!(x.counts().flows, 0);
}

// covers: MUST-19
#[test]
fn after_a_timeout_the_rest_follows_in_slow_start() {
    let mut x = Exchange::established();
    x.app_writes(5000);
    assert_eq!(x.sent().len(), 5);
    x.after(200).sends([". 1:1001(1000)"]);
    assert_eq!(x.info().cwnd, 1000);
    x.gets([". ack 1001"]).sends([". 1001:2001(1000)", ". 2001:3001(1000)"]);
    x.gets([". ack 3001"]).sends([". 3001:4001(1000)", "P. 4001:5001(1000)"]);
    x.gets([". ack 5001"]).sends_nothing();
    assert_eq!(x.info().recovery, "open");
}

#[test]
fn three_duplicates_send_the_first_segment_again() {
    let mut x = Exchange::established();
    x.app_writes(6000);
    assert_eq!(x.sent().len(), 6);
    x.gets([". ack 1", ". ack 1"]).sends_nothing().gets([". ack 1"]).sends([". 1:1001(1000)"]);
    assert_eq!((x.info().recovery, x.info().ssthresh), ("recovery", 3000));
    x.gets([". ack 6001"]).sends_nothing();
    assert_eq!((x.info().recovery, x.info().cwnd), ("open", 3000));
    assert_eq!(x.engine.counters().fast_retransmits, 1);
}

#[test]
fn cubic_is_the_default_and_leaves_seven_tenths_of_the_flight() {
    let mut x = Exchange::established().options(|o| o.congestion = Default::default());
    assert_eq!(x.info().congestion, "cubic");
    x.app_writes(6000);
    assert_eq!(x.sent().len(), 6);
    x.gets([". ack 1", ". ack 1", ". ack 1"]).sends([". 1:1001(1000)"]);
    assert_eq!((x.info().recovery, x.info().ssthresh), ("recovery", 4200));
    x.gets([". ack 6001"]).sends_nothing();
    assert_eq!((x.info().recovery, x.info().cwnd), ("open", 4200));
}

#[test]
fn the_first_two_duplicates_let_new_segments_out() {
    // RFC 3042.
    let mut x = Exchange::established();
    x.app_writes(15_000);
    assert_eq!(x.sent().len(), 10);
    x.gets([". ack 1"]).sends([". 10001:11001(1000)"]).gets([". ack 1"]).sends([". 11001:12001(1000)"]);
    x.gets([". ack 1"]).sends([". 1:1001(1000)"]);
}

// covers: SHLD-9, SHLD-10
#[test]
fn at_the_third_retransmission_in_a_row_the_app_may_see_the_trouble() {
    let mut x = Exchange::established().rtt_ms(10);
    x.app_writes(100);
    let look = |x: &Exchange| (x.stats().retransmits, x.stats().in_trouble, x.engine.counters().r1_reached);
    let mut seen = Vec::new();
    for _ in 0..5 {
        let rtos = x.engine.counters().rtos;
        while x.engine.counters().rtos == rtos {
            x.after(1);
        }
        seen.push(look(&x));
    }
    assert_eq!(seen, [(1, false, 0), (2, false, 0), (3, true, 1), (4, true, 1), (5, true, 1)]);
    x.gets([". ack 101"]);
    assert_eq!(look(&x), (0, false, 1));
}

#[test]
fn newreno_sends_one_hole_for_each_partial_ack() {
    let mut x = Exchange::established();
    x.app_writes(10_000);
    assert_eq!(x.sent().len(), 10);
    // Segments 1 and 4 are lost.
    x.gets([". ack 1"; 8]).sends([". 1:1001(1000)"]);
    x.gets([". ack 3001"]).sends([". 3001:4001(1000)"]);
    assert_eq!(x.info().recovery, "recovery");
    x.gets([". ack 10001"]).sends_nothing();
    assert_eq!(x.info().recovery, "open");
    assert_eq!((x.engine.counters().fast_retransmits, x.engine.counters().rtos), (1, 0));
}

#[test]
fn an_ack_with_data_or_another_window_is_no_duplicate() {
    let mut x = Exchange::established();
    x.app_writes(6000);
    x.sent();
    x.gets([". ack 1", ". ack 1 win 60000", ". ack 1 win 50000", "1:11(10) ack 1 win 50000"]);
    x.after(40).sends([". 6001:6001(0) ack 11"]);
    assert_eq!(x.info().recovery, "open");
}

#[test]
fn sack_finds_the_holes_and_sends_only_them() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(10_000);
    assert_eq!(x.sent().len(), 10);
    // 1, 4 and 5 are lost. A quarter of the round trip is waited for what is only late.
    x.after(40).gets([". ack 1 sack 1001:2001"]).sends_nothing();
    x.gets([". ack 1 sack 1001:3001"]).sends_nothing();
    // RFC 8985 §6.2.1: three SACKed segments end the waiting, and all that was sent before them is lost.
    x.gets([". ack 1 sack 1001:3001 5001:6001"]).sends([". 1:1001(1000)"]);
    assert_eq!(x.info().recovery, "recovery");
    // RFC 6937: one for two that arrive; below ssthresh, as many as arrive.
    x.gets([". ack 1 sack 1001:3001 5001:7001"]).sends([". 3001:4001(1000)"]);
    x.gets([". ack 1 sack 1001:3001 5001:8001"]).sends([". 4001:5001(1000)"]);
    x.gets([". ack 1 sack 1001:3001 5001:10001"]).sends_nothing();
    x.after(40).gets([". ack 3001 sack 5001:10001"]).sends_nothing();
    x.gets([". ack 10001"]).sends_nothing();
    assert_eq!((x.info().recovery, x.info().cwnd), ("open", 5000));
    assert_eq!((x.engine.counters().retransmitted_segments, x.engine.counters().rtos), (3, 0));
}

#[test]
fn the_style_guide_s_exchange() {
    let mut x = Exchange::established().mss(1000).sack().rtt_ms(40);
    x.app_writes(4000).sends(["1:1001(1000)", "1001:2001(1000)", "2001:3001(1000)", "P. 3001:4001(1000)"]);
    x.at_ms(50).gets([". ack 1 sack 1001:2001", ". ack 1 sack 1001:3001", ". ack 1 sack 1001:4001"]);
    // RTO: SRTT (43 ms) + 200 ms, from the retransmission on.
    x.sends(["1:1001(1000)"]).sends_nothing_for(242).after(1).sends(["1:1001(1000)"]);
}

#[test]
fn after_a_timeout_what_was_sacked_is_not_sent_again() {
    let mut x = Exchange::established().sack().rtt_ms(40).config(|c| c.tail_loss_probe = false);
    x.app_writes(4000);
    x.sent();
    x.after(40).gets([". ack 1 sack 2001:3001"]).after(10).sends([". 1:1001(1000)"]);
    // It is lost once more.
    x.after(240).sends([". 1:1001(1000)"]);
    x.after(40).gets([". ack 1001 sack 2001:3001"]).sends([". 1001:2001(1000)", "P. 3001:4001(1000)"]);
    x.gets([". ack 4001"]).sends_nothing();
}

#[test]
fn a_peer_that_forgets_what_it_sacked_gets_everything_again() {
    let mut x = Exchange::established().sack().rtt_ms(40).config(|c| c.tail_loss_probe = false);
    x.app_writes(3000);
    x.sent();
    x.after(40).gets([". ack 1 sack 1001:3001"]).after(10).sends([". 1:1001(1000)"]);
    x.after(40).gets([". ack 1001"]).after(500);
    assert_eq!(
        x.sent().first().map(String::as_str).unwrap_or_default().split(" ack").next(),
        Some(". 1001:2001(1000)")
    );
    x.gets([". ack 2001"]);
    x.after(1000).gets([". ack 3001"]);
    assert_eq!(x.info().recovery, "open");
}

#[test]
fn rack_what_is_only_late_is_not_sent_again() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(4000);
    x.sent();
    x.after(40).gets([". ack 1 sack 1001:2001"]).sends_nothing();
    // Less than a quarter of the round trip late.
    x.after(9).gets([". ack 2001"]).after(50).sends_nothing();
    assert_eq!((x.engine.counters().fast_retransmits, x.info().recovery), (0, "open"));
}

#[test]
fn rack_after_a_quarter_of_the_round_trip_it_counts_as_lost() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(4000);
    x.sent();
    x.after(40).gets([". ack 1 sack 1001:2001"]).sends_nothing_for(9).after(1).sends([". 1:1001(1000)"]);
    assert_eq!((x.engine.counters().fast_retransmits, x.info().recovery), (1, "recovery"));
}

#[test]
fn rack_once_reordering_was_seen_three_duplicates_are_not_enough() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(10_000);
    x.sent();
    // Segment 1 arrives after 2: reordering.
    x.after(40).gets([". ack 1 sack 1001:2001", ". ack 2001"]).sends_nothing();
    x.gets([". ack 2001 sack 3001:4001", ". ack 2001 sack 3001:5001", ". ack 2001 sack 3001:6001"]);
    x.sends_nothing_for(9).after(1).sends([". 2001:3001(1000)"]);
}

#[test]
fn rack_a_retransmission_that_is_lost_is_sent_again_without_a_timeout() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(20_000);
    assert_eq!(x.sent().len(), 10);
    x.after(40).gets([". ack 1 sack 1001:4001"]).sends([". 1:1001(1000)"]);
    x.gets([". ack 1 sack 1001:7001"]).sends([". 10001:11001(1000)"]);
    // What was sent after the retransmission arrives, a round trip later: the retransmission was lost, too.
    x.after(40).gets([". ack 1 sack 1001:7001 10001:11001"]);
    assert!(x.sent().iter().any(|segment| segment.starts_with(". 1:1001(1000)")));
    assert_eq!(x.engine.counters().rtos, 0);
}

#[test]
fn rack_a_tail_that_is_lost_is_found_when_a_retransmission_sent_later_arrives() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(10_000);
    assert_eq!(x.sent().len(), 10);
    // The first and the last two are lost. Nothing is SACKed and nothing out when the first arrives.
    x.after(40).gets([". ack 1 sack 1001:4001"]).sends([". 1:1001(1000)"]);
    x.gets([". ack 1 sack 1001:8001"]).sends_nothing();
    x.after(40).gets([". ack 8001"]).sends([". 8001:9001(1000)", "P. 9001:10001(1000)"]);
    x.after(40).gets([". ack 10001"]).sends_nothing();
    assert_eq!((x.engine.counters().rtos, x.engine.counters().fast_retransmits), (0, 1));
}

#[test]
fn rack_an_acknowledgment_of_part_of_a_burst_is_no_sign_of_reordering() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(10_000);
    assert_eq!(x.sent().len(), 10);
    // The third is lost: nothing was late, so three that follow it are enough.
    x.after(40).gets([". ack 2001", ". ack 2001 sack 3001:6001"]);
    assert!(x.sent().iter().any(|segment| segment.starts_with(". 2001:3001(1000)")));
}

#[test]
fn tlp_the_tail_is_probed_after_two_round_trips_with_the_last_segment() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(3000);
    x.sent();
    x.after(40).gets([". ack 1001"]).sends_nothing_for(81).after(1).sends(["P. 2001:3001(1000)"]);
    assert_eq!(x.engine.counters().tail_probes, 1);
    // 2 was lost, and the original of 3: the probe's SACK tells of it.
    x.after(40).gets([". ack 1001 sack 2001:3001"]).sends([". 1001:2001(1000)"]);
    x.after(40).gets([". ack 3001"]);
    assert_eq!((x.engine.counters().rtos, x.info().recovery), (0, "open"));
}

#[test]
fn tlp_new_data_is_the_better_probe() {
    let mut x = Exchange::established().sack().rtt_ms(40).options(|o| o.nodelay = true);
    x.app_writes(12_000);
    assert_eq!(x.sent().len(), 10);
    x.sends_nothing_for(81).after(1).sends([". 10001:11001(1000)"]);
    // Only one probe until something is heard: then the retransmission timer.
    x.sends_nothing_for(157).after(1).sends([". 1:1001(1000)"]);
}

#[test]
fn tlp_a_single_segment_is_given_time_for_a_delayed_acknowledgment() {
    let mut x = Exchange::established().sack().rtt_ms(10);
    x.app_writes(1000).sends(["P. 1:1001(1000)"]);
    // PTO: 2 SRTT + 200 ms; the RTO of 210 ms comes first and gives its time to the probe.
    x.sends_nothing_for(209).after(1).sends(["P. 1:1001(1000)"]);
    assert_eq!((x.engine.counters().tail_probes, x.engine.counters().rtos), (1, 0));
}

#[test]
fn tlp_a_loss_that_the_probe_repaired_is_answered_by_congestion_control() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(10_000);
    x.sent();
    x.after(40).gets([". ack 9001"]).after(82).after(200).sends(["P. 9001:10001(1000)"]);
    let before = x.info().cwnd;
    x.app_writes(1000).sends(["P. 10001:11001(1000)"]);
    // The probe is acknowledged with what came after it, and nothing says that the original arrived, too.
    x.after(40).gets([". ack 11001"]);
    assert_eq!(x.engine.counters().tail_losses_repaired, 1);
    assert!(x.info().cwnd < before);
}

#[test]
fn tlp_a_probe_that_arrived_twice_repaired_nothing() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(10_000);
    x.sent();
    x.after(40).gets([". ack 9001"]).after(82).after(200).sends(["P. 9001:10001(1000)"]);
    let before = x.info().cwnd;
    x.gets([". ack 10001", ". ack 10001 sack 9001:10001"]);
    assert_eq!((x.engine.counters().tail_losses_repaired, x.engine.counters().dsacks_in), (0, 1));
    assert!(x.info().cwnd >= before);
}

#[test]
fn frto_originals_that_arrive_after_a_timeout_undo_it() {
    let mut x = Exchange::established().sack().rtt_ms(40).config(|c| c.tail_loss_probe = false);
    x.app_writes(20_000);
    assert_eq!(x.sent().len(), 10);
    x.after(240).sends([". 1:1001(1000)"]);
    assert_eq!((x.info().recovery, x.info().cwnd), ("loss", 1000));
    // All had been delayed: the acknowledgment covers what was not sent again.
    x.after(10).gets([". ack 2001"]);
    assert_eq!((x.info().recovery, x.info().cwnd), ("open", 10_000));
    assert!(x.sent().iter().all(|segment| !segment.starts_with(". 2001:")), "nothing else is sent again");
    assert_eq!(x.engine.counters().undone, 1);
}

#[test]
fn frto_after_the_first_acknowledgment_new_data_is_sent_and_a_duplicate_ends_it() {
    let mut x = Exchange::established().sack().rtt_ms(40).config(|c| c.tail_loss_probe = false);
    x.app_writes(20_000);
    assert_eq!(x.sent().len(), 10);
    x.after(240).sends([". 1:1001(1000)"]);
    x.after(40).gets([". ack 1001"]).sends([". 10001:11001(1000)", ". 11001:12001(1000)"]);
    // RFC 5682 §3.1 step 3: what is heard of is the new data only, so the rest was lost.
    x.after(40).gets([". ack 1001 sack 10001:11001"]);
    assert_eq!(x.info().recovery, "loss");
    assert_eq!(x.sent().first().map(|segment| segment.starts_with(". 1001:2001")), Some(true));
    assert_eq!(x.engine.counters().undone, 0);
}

#[test]
fn without_sack_originals_undo_a_timeout_only_if_no_gap_was_filled() {
    let mut x = Exchange::established().rtt_ms(40);
    x.app_writes(10_000);
    assert_eq!(x.sent().len(), 10);
    x.after(240).sends([". 1:1001(1000)"]);
    // The retransmission filled the only gap, beneath what the peer held.
    x.after(40).gets([". ack 10001"]);
    assert_eq!((x.engine.counters().undone, x.info().recovery), (0, "open"));
}

#[test]
fn eifel_an_echo_from_before_the_retransmission_undoes_fast_recovery() {
    let mut x = Exchange::established().sack().timestamps().rtt_ms(40);
    x.app_writes(10_000);
    assert_eq!(x.sent().len(), 10);
    let cwnd = x.info().cwnd;
    let first = x.last_timestamp();
    x.after(40).gets([". ack 1 sack 989:3953", ". ack 1 sack 989:4941"]);
    x.after(2);
    assert_eq!((x.info().recovery, x.sent().is_empty()), ("recovery", false));
    // The first segment was late: its acknowledgment echoes its own time.
    x.after(5).gets([&*std::format!(". ack 4941 <nop,nop,TS val 1060 ecr {first}>")]);
    assert_eq!((x.info().recovery, x.engine.counters().undone), ("open", 1));
    assert!(x.info().cwnd >= cwnd);
}

#[test]
fn dsack_that_all_was_sent_twice_undoes_fast_recovery_also_after_it_ended() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(10_000);
    assert_eq!(x.sent().len(), 10);
    let cwnd = x.info().cwnd;
    x.after(40).gets([". ack 1 sack 1001:4001"]).sends([". 1:1001(1000)"]);
    x.app_writes(5000);
    x.sent();
    x.after(5).gets([". ack 10001"]);
    assert_eq!(x.info().recovery, "open");
    assert!(x.info().cwnd < cwnd);
    x.after(30).gets([". ack 10001 sack 1:1001"]);
    assert_eq!(x.engine.counters().undone, 1);
    assert!(x.info().cwnd >= cwnd);
}

#[test]
fn pacing_spreads_a_window_over_the_round_trip() {
    let mut x = Exchange::established().rtt_ms(100).options(|o| o.pacing = true);
    x.app_writes(10_000);
    // Slow start: two windows of 10 kB in 100 ms are 200 kB/s, 5 ms a segment.
    let mut times = std::vec::Vec::new();
    for ms in 0..60 {
        for _ in x.sent() {
            times.push(ms);
        }
        x.after(1);
    }
    assert_eq!(times, [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]);
}

#[test]
fn no_more_is_sent_in_a_second_than_the_largest_pacing_rate() {
    let mut x = Exchange::established().rtt_ms(10).options(|o| o.pacing_rate_max = 100_000);
    x.app_writes(10_000).sends([". 1:1001(1000)"]).sends_nothing_for(9).after(1).sends([". 1001:2001(1000)"]);
    x.after(85);
    assert_eq!(x.sent().len(), 8);
}

#[test]
fn several_new_blocks_in_one_acknowledgment_are_no_reordering() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(10_000).sent();
    // The newest is told first; the other came before it.
    x.after(40).gets([". ack 1 sack 5001:6001 1001:2001"]).sends_nothing();
    // If reordering had been seen, three would be no proof of a loss.
    x.gets([". ack 1 sack 5001:7001 1001:2001"]);
    assert_eq!(x.info().recovery, "recovery");
    assert!(x.sent().first().is_some_and(|first| first.starts_with(". 1:1001(1000)")));
}

#[test]
fn what_was_lost_after_a_recovery_began_is_sent_again_when_that_ends() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(30_000);
    assert_eq!(x.sent().len(), 10);
    x.after(40).gets([". ack 1 sack 1001:4001"]).sends([". 1:1001(1000)"]);
    // The window lets out new data while the first hole is being filled.
    x.gets([". ack 1 sack 1001:10001"]);
    assert!(x.sent().len() >= 4);
    // The recovery ends with the very acknowledgment that finds the next loss.
    x.after(40).gets([". ack 10001 sack 11001:14001"]);
    let sent = x.sent();
    assert!(sent.first().is_some_and(|first| first.contains("10001:11001(1000)")), "{sent:?}");
}

#[test]
fn the_acknowledgment_of_an_earlier_retransmission_undoes_no_later_recovery() {
    let mut x = Exchange::established().sack().timestamps().rtt_ms(40);
    // Where the nth segment begins.
    let at = |n: u32| 1 + 988 * n;
    let sack = |ack: u32, blocks: &[(u32, u32)], ecr: u32| {
        let blocks: std::vec::Vec<_> =
            blocks.iter().map(|&(from, to)| std::format!("{}:{}", at(from), at(to))).collect();
        let blocks = blocks.join(" ");
        std::format!(". ack {} <nop,nop,TS val 1060 ecr {ecr},sack {blocks}>", at(ack))
    };
    x.app_writes(60_000);
    x.sent();
    let first = x.last_timestamp();
    x.after(40).gets([&*sack(0, &[(1, 4)], first)]).gets([&*sack(0, &[(1, 10)], first)]);
    // In the recovery, something sent after it began is lost too, and sent again.
    x.after(20).gets([&*sack(0, &[(11, 14), (1, 10)], first)]);
    let again = x.last_timestamp();
    x.after(20).gets([&*sack(10, &[(11, 14)], again)]);
    assert_eq!(x.info().recovery, "open");
    // It is on its way still when the next recovery begins ..
    x.after(5).gets([&*sack(10, &[(15, 18), (11, 14)], again)]);
    assert_eq!(x.info().recovery, "recovery");
    assert_ne!(x.last_timestamp(), again);
    // .. of which its acknowledgment says nothing.
    x.after(15).gets([&*sack(14, &[(15, 18)], again)]);
    assert_eq!((x.info().recovery, x.engine.counters().undone), ("recovery", 0));
}

#[test]
fn a_fin_in_flight_is_sent_again_with_the_data_before_it() {
    let mut x = Exchange::established();
    x.app_writes(1500).app_closes().sends([". 1:1001(1000)", "FP. 1001:1501(500)"]);
    x.after(200).sends([". 1:1001(1000)"]).gets([". ack 1001"]).sends(["FP. 1001:1501(500)"]);
    x.gets([". ack 1502"]).is_in(State::FinWait2);
}

// covers: MUST-18
#[test]
fn karn_a_retransmitted_segment_is_not_measured_without_timestamps() {
    let mut x = Exchange::established();
    let srtt = x.info().srtt;
    x.app_writes(100).after(200).after(10).gets([". ack 101"]);
    assert_eq!(x.info().srtt, srtt);
    // With them the echo tells which one was answered.
    let mut x = Exchange::established().timestamps();
    let srtt = x.info().srtt;
    x.app_writes(100).after(210).gets([". ack 101"]);
    assert_ne!(x.info().srtt, srtt);
    assert!(x.info().srtt.is_some_and(|srtt| srtt.as_millis() <= 10), "{:?}", x.info().srtt);
}

#[test]
fn the_timer_restarts_with_each_ack_of_new_data() {
    let mut x = Exchange::established();
    x.app_writes(3000);
    x.sent();
    x.after(150).gets([". ack 1001"]).sends_nothing();
    let rto = x.info().rto.as_millis() as u64;
    x.sends_nothing_for(rto - 1).after(1).sends([". 1001:2001(1000)"]);
}
