//! Retransmission: time-outs, fast retransmit, NewReno, SACK.

use alloc::string::String;

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
fn the_first_two_duplicates_let_new_segments_out() {
    // RFC 3042.
    let mut x = Exchange::established();
    x.app_writes(15_000);
    assert_eq!(x.sent().len(), 10);
    x.gets([". ack 1"]).sends([". 10001:11001(1000)"]).gets([". ack 1"]).sends([". 11001:12001(1000)"]);
    x.gets([". ack 1"]).sends([". 1:1001(1000)"]);
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
    let mut x = Exchange::established().sack();
    x.app_writes(10_000);
    assert_eq!(x.sent().len(), 10);
    // 1, 4 and 5 are lost.
    x.gets([". ack 1 sack 1001:2001"]).sends_nothing();
    x.gets([". ack 1 sack 1001:3001"]).sends_nothing();
    x.gets([". ack 1 sack 1001:3001 5001:6001"]).sends([". 1:1001(1000)"]);
    assert_eq!(x.info().recovery, "recovery");
    x.gets([". ack 1 sack 1001:3001 5001:7001"]).sends_nothing();
    x.gets([". ack 1 sack 1001:3001 5001:8001"]).sends([". 3001:4001(1000)", ". 4001:5001(1000)"]);
    // RFC 6675 §4, NextSeg (4): one rescue, when the window has room and nothing else is left to send.
    x.gets([". ack 1 sack 1001:3001 5001:9001"]).sends(["P. 9001:10001(1000)"]);
    x.gets([". ack 3001 sack 5001:10001"]).sends_nothing();
    x.gets([". ack 10001"]).sends_nothing();
    assert_eq!((x.info().recovery, x.info().cwnd), ("open", 5000));
    assert_eq!((x.engine.counters().retransmitted_segments, x.engine.counters().rtos), (4, 0));
}

#[test]
fn the_style_guide_s_exchange() {
    let mut x = Exchange::established().mss(1000).sack();
    x.app_writes(4000).sends(["1:1001(1000)", "1001:2001(1000)", "2001:3001(1000)", "P. 3001:4001(1000)"]);
    x.at_ms(50).gets([". ack 1 sack 1001:2001", ". ack 1 sack 1001:3001", ". ack 1 sack 1001:4001"]);
    x.sends(["1:1001(1000)"]).sends_nothing_for(199).after(1).sends(["1:1001(1000)"]);
}

#[test]
fn after_a_timeout_what_was_sacked_is_not_sent_again() {
    let mut x = Exchange::established().sack();
    x.app_writes(4000);
    x.sent();
    x.gets([". ack 1 sack 2001:3001"]).after(200).sends([". 1:1001(1000)"]);
    x.gets([". ack 1001 sack 2001:3001"]).sends([". 1001:2001(1000)", "P. 3001:4001(1000)"]);
    x.gets([". ack 4001"]).sends_nothing();
}

#[test]
fn a_peer_that_forgets_what_it_sacked_gets_everything_again() {
    let mut x = Exchange::established().sack();
    x.app_writes(3000);
    x.sent();
    x.gets([". ack 1 sack 1001:3001"]).after(200).sends([". 1:1001(1000)"]);
    x.gets([". ack 1001"]).after(500);
    assert_eq!(
        x.sent().first().map(String::as_str).unwrap_or_default().split(" ack").next(),
        Some(". 1001:2001(1000)")
    );
    x.gets([". ack 2001"]);
    x.after(1000).gets([". ack 3001"]);
    assert_eq!(x.info().recovery, "open");
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
