//! What is acknowledged when, the windows announced, PAWS, challenge ACKs.

use crate::drop_reason::DropReason;
use crate::state::State;
use crate::testing::{Exchange, PEER_TSVAL};

// covers: SHLD-18, SHLD-19, MUST-40
#[test]
fn every_second_full_segment_is_acknowledged_and_a_single_one_after_40_ms() {
    let mut x = Exchange::established();
    x.gets(["1:1001(1000) ack 1"]).sends_nothing_for(39).after(1).sends([". ack 1001"]);
    x.gets(["1001:2001(1000) ack 1"]).sends_nothing().gets(["2001:3001(1000) ack 1"]).sends([". ack 3001"]);
    x.sends_nothing_for(100);
    assert_eq!(x.engine.counters().delayed_acks, 1);
}

// covers: MUST-58, MUST-59
#[test]
fn a_burst_gets_one_acknowledgment() {
    let mut x = Exchange::established();
    x.gets(["1:1001(1000) ack 1", "1001:2001(1000) ack 1", "2001:3001(1000) ack 1", "3001:4001(1000) ack 1"]);
    x.sends([". ack 4001"]).tells(["Received"]);
}

// covers: MUST-58
#[test]
fn data_of_the_app_carries_the_acknowledgment() {
    let mut x = Exchange::established();
    x.gets(["P. 1:101(100) ack 1"]).app_writes(50).sends(["P. 1:51(50) ack 101"]).sends_nothing_for(100);
}

#[test]
fn the_first_segments_are_acknowledged_without_delay() {
    let mut x = Exchange::established().config(|config| config.quick_acks = 2);
    x.gets(["1:11(10) ack 1"]).sends([". ack 11"]).gets(["11:21(10) ack 1"]).sends([". ack 21"]);
    x.gets(["21:31(10) ack 1"]).sends_nothing();
}

// covers: SHLD-31, MAY-13
#[test]
fn out_of_order_data_is_acknowledged_one_for_one_with_sack_newest_first() {
    let mut x = Exchange::established().sack();
    x.gets(["1001:2001(1000) ack 1"]).sends([". ack 1 sack 1001:2001"]);
    x.gets(["3001:4001(1000) ack 1", "5001:6001(1000) ack 1"]).sends([
        ". ack 1 <nop,nop,sack 3001:4001 1001:2001>",
        ". ack 1 <nop,nop,sack 5001:6001 3001:4001 1001:2001>",
    ]);
    // More of an older range moves it to the front.
    x.gets(["2001:2501(500) ack 1"]).sends([". ack 1 <nop,nop,sack 1001:2501 5001:6001 3001:4001>"]);
    // The gap fills.
    x.gets(["1:1001(1000) ack 1"]).sends([". ack 2501 <nop,nop,sack 5001:6001 3001:4001>"]);
    x.gets(["2501:3001(500) ack 1"]).sends([". ack 4001 sack 5001:6001"]);
    x.gets(["4001:5001(1000) ack 1"]).sends([". ack 6001"]).tells(["Received"]);
}

#[test]
fn timestamps_leave_room_for_three_sack_blocks() {
    let mut x = Exchange::established().sack().timestamps();
    for first in [1001, 3001, 5001, 7001] {
        x.gets([alloc::format!("{first}:{}(100) ack 1", first + 100).as_str()]);
    }
    let last = x.sent().pop().unwrap_or_default();
    assert!(last.contains("sack 7001:7101 5001:5101 3001:3101>"), "{last}");
}

#[test]
fn without_sack_out_of_order_data_gets_plain_duplicates() {
    let mut x = Exchange::established();
    x.gets(["1001:2001(1000) ack 1", "2001:3001(1000) ack 1"]).sends([". ack 1", ". ack 1"]);
}

#[test]
fn old_data_is_acknowledged_again_and_new_data_within_it_is_taken() {
    let mut x = Exchange::established();
    x.gets(["1:1001(1000) ack 1", "1:1001(1000) ack 1"]).sends([". ack 1001"]);
    x.gets(["501:1501(1000) ack 1"]).sends([". ack 1501"]);
    x.dropped(DropReason::DuplicateData, 1).dropped(DropReason::OutOfWindow, 1);
}

#[test]
fn data_beyond_the_window_is_cut() {
    let mut x = Exchange::established().options(|options| options.rx_window = 1500);
    x.layer.rx_capacity = 1500;
    x.gets(["1:2001(2000) ack 1"]).sends([". ack 1501 win 0"]).dropped(DropReason::BeyondWindow, 1);
    x.gets(["1501:1502(1) ack 1"]).sends([". ack 1501 win 0"]).dropped(DropReason::BeyondWindow, 2);
}

// covers: MUST-39
#[test]
fn reading_reopens_the_window_by_worthwhile_steps_only() {
    let mut x = Exchange::established().options(|options| options.rx_window = 10_000);
    x.layer.rx_capacity = 10_000;
    for n in 0..10u32 {
        let first = n * 1000 + 1;
        x.gets([alloc::format!("{first}:{}(1000) ack 1", first + 1000).as_str()]);
    }
    assert!(x.sent().pop().unwrap_or_default().contains("ack 10001 win 0"));
    x.app_reads(500).sends_nothing().app_reads(499).sends_nothing();
    x.app_reads(1).sends([". ack 10001 win 1000"]).app_reads(999).sends_nothing();
    x.app_reads(1).sends([". ack 10001 win 2000"]);
    x.app_reads(1000).sends_nothing().app_reads(1000).sends([". ack 10001 win 4000"]);
}

/// The peer does not scale windows: what the field cannot say does not make an update due (RFC 9293 §3.8.6.2.2).
// covers: MUST-39
#[test]
fn a_window_that_cannot_grow_is_not_updated() {
    let mut x = Exchange::established().options(|options| options.rx_window = 1_000_000);
    x.layer.rx_capacity = 1_000_000;
    x.gets(["1:1001(1000) ack 1"]).after(40).sends([". ack 1001 win 65535"]);
    x.app_reads(1000).sends_nothing();
}

// covers: SHLD-14
#[test]
fn the_right_edge_never_moves_back() {
    let mut x = Exchange::established().options(|options| options.rx_window = 10_000);
    x.layer.rx_capacity = 10_000;
    x.gets(["1:1001(1000) ack 1"]).after(40).sends([". ack 1001 win 9000"]);
    // Memory runs out: what was promised stays promised.
    x.layer.rx_capacity = 3000;
    x.gets(["1001:1101(100) ack 1"]).after(40).sends([". ack 1101 win 8900"]);
    x.layer.is_full = true;
    x.gets(["1101:2101(1000) ack 1"]).sends([". ack 1101 win 8900"]).dropped(DropReason::ReceiveFull, 1);
    x.layer.is_full = false;
    x.gets(["1101:2101(1000) ack 1"]).after(40).sends([". ack 2101 win 7900"]);
}

#[test]
fn into_a_closed_window_acks_and_fins_are_accepted() {
    let mut x = Exchange::established().options(|options| options.rx_window = 1000);
    x.layer.rx_capacity = 1000;
    x.app_writes(100).sends(["P. 1:101(100)"]);
    x.gets(["1:1001(1000) ack 1"]).after(40).sends([". 101:101(0) ack 1001 win 0"]);
    x.gets(["1001:2001(1000) ack 101"])
        .tells(["Received", "Acknowledged"])
        .sends([". 101:101(0) ack 1001 win 0"]);
    x.gets(["F. 1001:1001(0) ack 101"]).tells(["PeerClosed"]).is_in(State::CloseWait);
}

#[test]
fn paws_drops_what_is_older_than_ts_recent() {
    let mut x = Exchange::established().timestamps();
    x.gets(["1:101(100) ack 1"]).after(50).gets(["101:201(100) ack 1"]).after(40);
    x.sent();
    let old = alloc::format!("201:301(100) ack 1 <nop,nop,TS val {} ecr 0>", PEER_TSVAL - 1);
    x.gets([old.as_str()]).dropped(DropReason::Paws, 1);
    assert_eq!(x.sent().len(), 1, "and answers with an ACK");
    // A reset is not tested.
    x.gets(["R 201:201(0)"]).is_in(State::Listen);
}

/// A forged segment in the window cannot move TS.Recent without an acceptable ACK (RFC 5961 §5 on RFC 7323 §4.3).
// covers: MAY-12
#[test]
fn ts_recent_is_not_taken_from_a_segment_whose_ack_is_not_acceptable() {
    let mut x = Exchange::established().timestamps();
    let forged = alloc::format!("1:101(100) ack 9999 <nop,nop,TS val {} ecr 0>", PEER_TSVAL + 100_000);
    x.gets([forged.as_str()]);
    x.sent();
    x.gets(["1:101(100) ack 1"]).dropped(DropReason::Paws, 0).tells(["Received"]);
}

#[test]
fn paws_forgets_after_24_days() {
    let mut x = Exchange::established().timestamps();
    x.gets(["1:101(100) ack 1"]).after(24 * 24 * 3600 * 1000 + 1).peer_clock_jumps(i32::MIN / 2);
    x.peer_clock_jumps(-2_000_000_000).gets(["101:201(100) ack 1"]).dropped(DropReason::Paws, 0);
    assert_eq!(x.info().rcv_nxt.since(x.info().irs), 201);
}

#[test]
fn ts_recent_is_taken_from_what_spans_the_last_ack_only() {
    let mut x = Exchange::established().timestamps();
    x.gets(["101:201(100) ack 1 <nop,nop,TS val 5000 ecr 0>"]);
    assert_eq!(x.info().ts_recent, PEER_TSVAL, "not from beyond a gap");
    x.gets(["1:101(100) ack 1 <nop,nop,TS val 4000 ecr 0>"]);
    assert_eq!(x.info().ts_recent, 4000);
}

/// Gets 10 bytes in a segment without the timestamps that were agreed on: `Exchange::gets` would add them.
fn gets_without_timestamps(x: &mut Exchange) {
    let flow = x.flow();
    let hash = x.engine.flow_hash(&flow);
    let noted = hoststack_wire::parse_notation("P. 1:11(10) ack 1").expect("a segment");
    let header = noted.to_header(4000, 80, hoststack_wire::SeqNum(0x1000), x.iss(), 100);
    let segment = hoststack_wire::Segment { header, payload: &[0; 10], ecn: 0 };
    let (now, mut told) = (x.now, alloc::vec::Vec::new());
    let _ = x.engine.input(now, flow, hash, &segment, &mut x.layer, &mut x.out, &mut x.events, &mut told);
}

#[test]
fn a_segment_without_the_agreed_timestamps_is_dropped() {
    let mut x = Exchange::established().timestamps();
    gets_without_timestamps(&mut x);
    x.dropped(DropReason::TimestampMissing, 1).tells([]);
}

#[test]
fn a_segment_without_a_timestamp_is_taken_if_the_stack_is_told_to() {
    let mut x = Exchange::established().timestamps().config(|c| c.tolerate_missing_timestamps = true);
    gets_without_timestamps(&mut x);
    x.tells(["Received"]);
}

#[test]
fn challenge_acks_are_limited_by_the_second() {
    let mut x = Exchange::established().config(|config| config.challenge_acks_per_second = 2);
    for _ in 0..5 {
        x.gets(["R 10:10(0)"]);
    }
    x.sends([". ack 1", ". ack 1"]).dropped(DropReason::ChallengeLimited, 3);
    x.after(1000).gets(["S 10:10(0)"]).sends([". ack 1"]);
}

/// An acknowledgment that waited for room behind data would make the peer retransmit what has arrived.
#[test]
fn acks_go_out_whatever_the_room() {
    let mut x = Exchange::established();
    x.out.room = 0;
    x.gets(["1:1001(1000) ack 1", "1001:2001(1000) ack 1"]).sends([". ack 2001"]);
    assert!(!x.engine.has_acks_to_flush());
}

// covers: N09
#[test]
fn data_after_the_fin_is_ignored() {
    let mut x = Exchange::established();
    x.gets(["F. 101:101(0) ack 1"]).gets(["1:201(200) ack 1"]).tells(["Received", "PeerClosed"]);
    x.dropped(DropReason::DataAfterFin, 1);
    assert_eq!(x.info().rcv_nxt.since(x.info().irs), 102);
}

#[test]
fn an_acknowledgment_that_is_new_brings_its_window_even_on_an_old_segment() {
    let mut x = Exchange::established().options(|o| o.nodelay = true);
    x.gets(["1:501(500) ack 1 win 1524"]).app_writes(1000);
    x.sent();
    x.gets(["501:1001(500) ack 1 win 1524"]);
    // The peer sends its first segment again, and more: it has taken 1000 bytes meanwhile, and has no room.
    x.gets(["1:1101(1100) ack 1001 win 0"]).app_writes(1000);
    x.after(5);
    assert!(x.sent().iter().all(|segment| !segment.contains("1001:1") || segment.contains("(0)")), "beyond");
}

#[test]
fn what_comes_twice_is_reported_in_the_first_block() {
    let mut x = Exchange::established().sack();
    x.gets(["1:1001(1000) ack 1"]).after(50).sends([". 1:1(0) ack 1001"]);
    // RFC 2883 §4.1: below the acknowledgment; once.
    x.gets(["501:1001(500) ack 1"]).sends([". 1:1(0) ack 1001 <nop,nop,sack 501:1001>"]);
    x.gets(["1001:1002(1) ack 1"]).after(50).sends([". 1:1(0) ack 1002"]);
    // Partly new.
    x.gets(["901:1102(201) ack 1"]).sends([". 1:1(0) ack 1102 <nop,nop,sack 901:1002>"]);
    // §4.1.2: beyond a gap; the range that it lies in follows.
    x.gets(["2001:3001(1000) ack 1"]).sends([". 1:1(0) ack 1102 <nop,nop,sack 2001:3001>"]);
    x.gets(["2501:2601(100) ack 1"]).sends([". 1:1(0) ack 1102 <nop,nop,sack 2501:2601 2001:3001>"]);
    assert_eq!(x.engine.counters().dsacks_out, 3);
    let mut x = Exchange::established().sack().config(|c| c.dsack = false);
    x.gets(["1:1001(1000) ack 1", "1:1001(1000) ack 1"]).sends([". 1:1(0) ack 1001"]);
}
