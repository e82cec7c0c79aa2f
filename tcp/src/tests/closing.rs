//! FINs in every order, resets, FIN-WAIT-2, TIME-WAIT.

use crate::drop_reason::DropReason;
use crate::state::State;
use crate::testing::Exchange;

#[test]
fn open_and_close_take_six_packets_when_the_app_answers_at_once() {
    // SYN, SYN-ACK, ACK were exchanged by the fixture; FIN, FIN with ACK, ACK are left.
    let mut x = Exchange::close_wait();
    x.app_closes().sends(["F. 1:1(0) ack 2"]).gets([". 2:2(0) ack 2"]);
    x.tells(["Closed: finished"]).is_in(State::Listen).sends_nothing();
    assert_eq!(x.counts().flows, 0);
}

#[test]
fn fin_rides_on_the_last_data_and_a_small_rest_does_not_wait_for_it() {
    let mut x = Exchange::established();
    x.app_writes(1500).sends([". 1:1001(1000)"]);
    x.app_closes().sends(["FP. 1001:1501(500)"]).is_in(State::FinWait1);
    x.gets([". ack 1502"]).tells(["Acknowledged"]).is_in(State::FinWait2);
}

#[test]
fn fin_waits_for_the_data_before_it() {
    let mut x = Exchange::established().window(1000);
    x.app_writes(2000).sends([". 1:1001(1000)"]);
    x.app_half_closes().sends_nothing().is_in(State::Established);
    x.gets([". ack 1001"]).sends(["P. 1001:2001(1000)"]).is_in(State::Established);
    x.gets([". ack 2001"]).sends(["F. 2001:2001(0)"]).is_in(State::FinWait1);
}

// covers: MUST-13
#[test]
fn half_closed_we_still_receive_and_after_the_peer_s_fin_wait() {
    let mut x = Exchange::fin_wait_2();
    x.gets(["1:1001(1000) ack 2", "P. 1001:1501(500) ack 2"])
        .tells(["Received"])
        .sends([". 2:2(0) ack 1501"]);
    x.app_reads(1500);
    x.gets(["F. 1501:1501(0) ack 2"]).tells(["PeerClosed", "Closed: finished"]).sends([". 2:2(0) ack 1502"]);
    x.is_in(State::TimeWait);
    assert_eq!((x.counts().connections, x.counts().time_wait), (0, 1));
    x.after(59_999).is_in(State::TimeWait).after(2).is_in(State::Listen).tells([]);
    assert_eq!(x.counts().flows, 0);
}

#[test]
fn the_peer_half_closes_and_we_still_send() {
    let mut x = Exchange::close_wait();
    x.app_writes(100).sends(["P. 1:101(100) ack 2"]).gets([". 2:2(0) ack 101"]);
    x.app_half_closes().sends(["F. 101:101(0) ack 2"]).is_in(State::LastAck);
    x.gets([". 2:2(0) ack 102"]).is_in(State::Listen);
}

// covers: MUST-13
#[test]
fn fins_that_cross_end_in_time_wait_at_both_ends() {
    let mut x = Exchange::fin_wait_1();
    x.gets(["F. 1:1(0) ack 1"]).sends([". 2:2(0) ack 2"]).is_in(State::Closing).tells(["PeerClosed"]);
    x.gets([". 2:2(0) ack 2"]).sends_nothing().is_in(State::TimeWait).tells(["Closed: finished"]);
}

// covers: T06
#[test]
fn a_lost_fin_is_sent_again_and_given_up_in_the_end() {
    let mut x = Exchange::fin_wait_1().config(|config| config.retransmits_max = 3);
    x.after(200)
        .sends(["F. 1:1(0) ack 1"])
        .after(400)
        .sends(["F. 1:1(0) ack 1"])
        .after(800)
        .sends(["F. 1:1(0) ack 1"]);
    x.after(1600).sends_nothing().tells(["Closed: timed out"]).is_in(State::Listen);
    assert_eq!((x.counts().flows, x.engine.armed_timers()), (0, 0));
}

// covers: N09
#[test]
fn a_fin_before_its_data_is_taken_when_the_gap_fills() {
    let mut x = Exchange::established();
    x.gets(["F. 1001:1001(0) ack 1"]).sends([". 1:1(0) ack 1"]).is_in(State::Established);
    x.gets(["1:1001(1000) ack 1"]).sends([". 1:1(0) ack 1002"]).tells(["Received", "PeerClosed"]);
    x.is_in(State::CloseWait);
}

// covers: SHLD-3, MAY-1
#[test]
fn closing_with_unread_data_resets() {
    let mut x = Exchange::established();
    x.gets(["P. 1:101(100) ack 1"]);
    x.app_closes()
        .sends(["R. 1:1(0) ack 101"])
        .tells(["Received", "Closed: reset by us"])
        .is_in(State::Listen);
}

// covers: SHLD-3, MAY-1
#[test]
fn data_for_an_app_that_closed_is_answered_with_a_reset() {
    let mut x = Exchange::established();
    x.app_closes().sends(["F. 1:1(0) ack 1"]).gets([". ack 2"]).is_in(State::FinWait2);
    x.gets(["P. 1:101(100) ack 2"]).sends(["R 2:2(0)"]).tells(["Closed: reset by us"]).is_in(State::Listen);
    x.dropped(DropReason::DataAfterClose, 1);
    // What the peer has not got of ours is not counted: the reset is at the number that it expects.
    let mut x = Exchange::established();
    x.app_writes(100).app_closes().sends(["P. 1:101(100) ack 1", "F. 101:101(0) ack 1"]);
    x.gets(["P. 1:101(100) ack 1"]).sends(["R 1:1(0)"]).is_in(State::Listen);
}

#[test]
fn fin_wait_2_ends_by_itself_when_the_app_is_gone_and_not_when_it_half_closed() {
    let mut x = Exchange::established();
    x.app_closes().gets([". ack 2"]).after(59_999).is_in(State::FinWait2).after(2);
    x.is_in(State::Listen).tells(["Closed: timed out"]);
    let mut x = Exchange::fin_wait_2();
    x.after(3_600_000).is_in(State::FinWait2);
    x.app_closes().after(59_999).is_in(State::FinWait2).after(2).is_in(State::Listen);
}

#[test]
fn a_reset_by_the_app_tells_the_peer_at_once() {
    let mut x = Exchange::established();
    x.app_writes(100).sends(["P. 1:101(100)"]);
    x.app_resets().sends(["R. 101:101(0) ack 1"]).tells(["Closed: reset by us"]).is_in(State::Listen);
}

#[test]
fn an_active_open_says_when_its_flow_may_be_used_again() {
    let mut x = Exchange::connected();
    x.app_closes().gets([". ack 2", "F. 1:1(0) ack 2"]).tells(["PeerClosed", "Closed: finished"]);
    x.after(60_000).tells(["FlowGone"]).is_in(State::Closed);
    let mut x = Exchange::connected();
    x.gets(["R 1:1(0)"]).tells(["Closed: reset by the peer", "FlowGone"]);
}

// covers: MUST-13
#[test]
fn time_wait_acknowledges_the_fin_again_and_starts_anew() {
    let mut x = Exchange::time_wait();
    x.after(30_000).gets(["F. 1:1(0) ack 2"]).sends([". 2:2(0) ack 2"]);
    x.after(59_990).is_in(State::TimeWait).after(20).is_in(State::Listen);
}

#[test]
fn time_wait_ignores_resets() {
    let mut x = Exchange::time_wait();
    x.gets(["R 2:2(0)"]).sends_nothing().is_in(State::TimeWait).dropped(DropReason::TimeWaitReset, 1);
}

// covers: T07, MAY-2, SHLD-4
#[test]
fn time_wait_gives_way_to_a_syn_that_cannot_be_old() {
    // By sequence number.
    let mut x = Exchange::time_wait();
    x.gets(["S 1:1(0) win 1000"]).sends([". 2:2(0) ack 2"]).is_in(State::TimeWait);
    x.gets(["S 3:3(0) win 1000"]).is_in(State::SynReceived);
    let iss = x.out.sent.back().expect("a SYN-ACK").header.seq;
    assert!(iss.after(x.iss() + 2), "beyond all that was sent before");
    // By timestamp, whatever the sequence number.
    let mut x = Exchange::time_wait().timestamps();
    x.gets(["S 1:1(0) win 1000 <TS val 1 ecr 0>"]).sends([". 2:2(0) ack 2"]).is_in(State::TimeWait);
    x.after(1).gets(["S 1:1(0) win 1000 <TS val 1001 ecr 0>"]).is_in(State::SynReceived);
    assert_eq!(x.engine.counters().time_wait_reused_in, 1);
    assert_eq!(x.counts().time_wait, 0);
}

// covers: T07
#[test]
fn time_wait_gives_way_to_our_own_open_with_a_later_isn() {
    let mut x = Exchange::connected();
    x.app_closes().gets([". ack 2", "F. 1:1(0) ack 2"]).is_in(State::TimeWait).after(1000);
    x.sent();
    x.app_connects(core::time::Duration::from_secs(9)).takes_iss().sends(["S 0:0(0)"]).is_in(State::SynSent);
    assert_eq!(x.engine.counters().time_wait_reused_out, 1);
    // The first incarnation's end said nothing of the flow: the second one will.
    x.events.retain(|event| matches!(event, hoststack_transport::TransportEvent::FlowGone { .. }));
    x.tells([]).gets(["R. 0:0(0) ack 1"]).tells(["FlowGone"]);
}

/// RFC 6191 §4: the clock must have ticked since the last timestamp, or the peer cannot tell the incarnations apart.
// covers: SHLD-4
#[test]
fn time_wait_is_kept_from_our_own_open_until_the_timestamp_clock_has_ticked() {
    let mut x = Exchange::connected().timestamps();
    // More than the ISN clock runs on in the meantime, so that only the timestamp can tell.
    x.app_writes(1000).gets([". ack 1001"]);
    x.app_closes().gets([". ack 1002", "F. 1:1(0) ack 1002"]).is_in(State::TimeWait);
    x.app_connects(core::time::Duration::from_secs(9)).is_in(State::TimeWait);
    assert_eq!(x.engine.counters().time_wait_reused_out, 0);
    x.after(1).sent();
    x.app_connects(core::time::Duration::from_secs(9)).takes_iss().is_in(State::SynSent);
    assert_eq!(x.engine.counters().time_wait_reused_out, 1);
}

/// Main's clock was ahead when it sent the SYN, so the connection's timestamps run ahead of its worker's clock: those of
/// TIME-WAIT do not fall behind them.
#[test]
fn time_wait_acknowledges_with_no_earlier_timestamp_than_the_connection_sent() {
    let mut x = Exchange::syn_sent().timestamps();
    x.clock_back(20);
    x.gets(["S. 0:0(0) ack 1"]).is_in(State::Established);
    x.app_closes().gets([". ack 2", "F. 1:1(0) ack 2"]).is_in(State::TimeWait);
    let last = x.last_timestamp();
    x.gets(["F. 1:1(0) ack 2"]);
    assert_eq!(x.last_timestamp(), last, "the clock stands still");
}

#[test]
fn at_the_limit_the_oldest_time_wait_goes() {
    let mut x = Exchange::time_wait().config(|config| config.time_wait_max = 1);
    let first = x.flow();
    x.peer_is_at(4001).gets(["S 0:0(0) win 1000"]).takes_iss().gets([". ack 1"]);
    x.app_half_closes().gets([". ack 2", "F. 1:1(0) ack 2"]).is_in(State::TimeWait);
    assert_eq!((x.engine.state_of(&first), x.counts().time_wait), (None, 1));
    x.dropped(DropReason::TimeWaitOverflow, 1);
}
