//! What users of sockets expect: keep-alive, user timeout, cork, Nagle, quick ACKs, linger, and changes while up.

use hoststack_transport::{Algorithm, CloseReason, Keepalive, SocketOption, TransportEvent};

use crate::state::State;
use crate::testing::Exchange;

const KEEPALIVE: Keepalive = Keepalive { idle_ms: 10_000, interval_ms: 1_000, probes: 3 };

fn closed(x: &Exchange) -> Option<CloseReason> {
    x.events.iter().find_map(|event| match event {
        TransportEvent::Closed { reason, .. } => Some(*reason),
        _ => None,
    })
}

// covers: MUST-25
#[test]
fn keepalive_is_off_unless_asked_for() {
    let mut x = Exchange::established();
    x.sends_nothing_for(86_400_000).is_in(State::Established);
}

// covers: MUST-28
#[test]
fn keepalive_waits_two_hours_by_default() {
    let mut x = Exchange::established().options(|o| o.keepalive = Some(Keepalive::default()));
    x.sends_nothing_for(7_199_999).after(1).sends([". 0:0(0) ack 1"]);
}

// covers: MUST-26, MUST-27, SHLD-12, MAY-5
#[test]
fn keepalive_probes_an_idle_peer_with_an_old_sequence_number() {
    let mut x = Exchange::established().options(|o| o.keepalive = Some(KEEPALIVE));
    x.sends_nothing_for(9_999).after(1).sends([". 0:0(0) ack 1"]);
    // An answer starts the idle time anew.
    x.gets([". ack 1"]).sends_nothing_for(9_999).after(1).sends([". 0:0(0) ack 1"]);
    // So does anything else that comes.
    x.gets(["P. 1:11(10) ack 1"]).after(40).sends([". 1:1(0) ack 11"]);
    x.sends_nothing_for(9_959).after(1).sends([". 0:0(0) ack 11"]);
}

// covers: MUST-29
#[test]
fn keepalive_gives_up_after_the_last_unanswered_probe_and_not_before() {
    let mut x = Exchange::established().options(|o| o.keepalive = Some(KEEPALIVE));
    x.after(10_000).sends([". 0:0(0) ack 1"]);
    x.after(1_000).sends([". 0:0(0) ack 1"]).after(1_000).sends([". 0:0(0) ack 1"]);
    x.sends_nothing_for(999).is_in(State::Established).after(1).sends(["R. 1:1(0) ack 1"]);
    assert_eq!(closed(&x), Some(CloseReason::TimedOut));
}

// covers: MUST-26
#[test]
fn keepalive_waits_while_something_is_in_flight() {
    let mut x = Exchange::established().options(|o| o.keepalive = Some(KEEPALIVE)).rtt_ms(10);
    x.after(9_000);
    x.app_writes(100).sends(["P. 1:101(100) ack 1"]);
    x.after(9_900);
    assert!(x.sent().iter().all(|segment| segment.starts_with("P. 1:101")), "retransmissions only");
    x.gets([". ack 101"]).sends_nothing_for(9_999).after(1).sends([". 100:100(0) ack 1"]);
}

// covers: MUST-24
#[test]
fn keepalive_may_be_switched_on_and_off_on_a_connection_that_is_up() {
    let mut x = Exchange::established();
    x.after(5_000).app_sets(SocketOption::Keepalive(Some(KEEPALIVE)));
    x.sends_nothing_for(9_999).after(1).sends([". 0:0(0) ack 1"]);
    x.app_sets(SocketOption::Keepalive(None)).sends_nothing_for(100_000).is_in(State::Established);
}

// covers: MUST-21
#[test]
fn the_user_timeout_ends_a_connection_whose_data_is_not_acknowledged() {
    let mut x = Exchange::established().rtt_ms(10).options(|o| o.user_timeout_ms = 3_000);
    x.app_writes(100);
    x.after(2_999).is_in(State::Established);
    x.after(1);
    assert_eq!(closed(&x), Some(CloseReason::TimedOut));
}

// covers: MUST-21
#[test]
fn the_user_timeout_counts_from_the_last_progress_and_outlasts_the_retransmissions() {
    let mut x = Exchange::established()
        .rtt_ms(10)
        .config(|c| c.retransmits_max = 2)
        .options(|o| o.user_timeout_ms = 60_000);
    x.app_writes(2_000);
    x.after(50_000).is_in(State::Established).gets([". ack 1001"]);
    x.after(59_999).is_in(State::Established).after(1);
    assert_eq!(closed(&x), Some(CloseReason::TimedOut));
}

#[test]
fn the_user_timeout_ends_a_connection_whose_peer_keeps_its_window_shut() {
    let mut x = Exchange::established().rtt_ms(10).options(|o| o.user_timeout_ms = 5_000);
    x.gets([". ack 1 win 0"]).app_writes(100);
    x.after(4_999).is_in(State::Established).after(1);
    assert_eq!(closed(&x), Some(CloseReason::TimedOut));
}

#[test]
fn crossed_syns_are_given_up_at_the_user_timeout() {
    let mut x = Exchange::crossed_syns().options(|o| o.user_timeout_ms = 7_000);
    x.after(6_900).is_in(State::SynReceived).after(200).is_in(State::Closed);
    // Once established, it counts from what waits then.
    let mut x = Exchange::crossed_syns().options(|o| o.user_timeout_ms = 7_000);
    x.after(2_000).gets([". ack 1"]).is_in(State::Established).after(100_000).app_writes(100);
    x.after(6_900).is_in(State::Established).after(200).is_in(State::Closed);
}

#[test]
fn a_user_timeout_may_be_longer_than_255_retransmissions() {
    let mut x = Exchange::established().options(|o| o.user_timeout_ms = 20_000_000);
    x.app_writes(100).after(19_900_000).is_in(State::Established);
    x.after(200_000).is_in(State::Listen);
}

#[test]
fn the_user_timeout_may_be_set_while_data_is_in_flight() {
    let mut x = Exchange::established().rtt_ms(10);
    x.app_writes(100).after(1_000).app_sets(SocketOption::UserTimeout(2_000));
    x.after(1_999).is_in(State::Established).after(1);
    assert_eq!(closed(&x), Some(CloseReason::TimedOut));
}

#[test]
fn a_cork_holds_back_less_than_a_segment_for_a_timeout_at_most() {
    let mut x = Exchange::established().rtt_ms(10).options(|o| (o.cork, o.nodelay) = (true, true));
    x.app_writes(1_500)
        .sends([". 1:1001(1000)"])
        .after(10)
        .gets([". ack 1001"])
        .sends_nothing_for(199)
        .after(1)
        .sends(["P. 1001:1501(500)"]);
}

#[test]
fn taking_the_cork_out_sends_what_it_held() {
    let mut x = Exchange::established().options(|o| o.nodelay = true);
    x.app_sets(SocketOption::Cork(true)).app_writes(100).app_writes(100).sends_nothing();
    x.app_sets(SocketOption::Cork(false)).sends(["P. 1:201(200)"]);
    // A close does as well.
    x.gets([". ack 201"]).app_sets(SocketOption::Cork(true)).app_writes(10).sends_nothing();
    x.app_half_closes().sends(["FP. 201:211(10)"]);
}

#[test]
fn switching_nagle_off_sends_what_waited_for_an_acknowledgment() {
    let mut x = Exchange::established();
    x.app_writes(100).sends(["P. 1:101(100)"]).app_writes(100).sends_nothing();
    x.app_sets(SocketOption::NoDelay(true)).sends(["P. 101:201(100)"]);
    x.app_sets(SocketOption::NoDelay(false)).app_writes(1).sends_nothing();
}

#[test]
fn quick_acks_acknowledge_each_segment_at_once() {
    let mut x = Exchange::established().config(|c| c.quick_acks = 0);
    x.gets(["P. 1:11(10) ack 1"]).sends_nothing();
    // Switching them on sends the one that waits.
    x.app_sets(SocketOption::QuickAck(true)).sends([". 1:1(0) ack 11"]);
    x.gets(["P. 11:21(10) ack 1"]).sends([". 1:1(0) ack 21"]);
    x.app_sets(SocketOption::QuickAck(false)).gets(["P. 21:31(10) ack 1"]).sends_nothing();
}

#[test]
fn a_linger_of_zero_resets_on_close() {
    let mut x = Exchange::established().options(|o| o.linger_ms = Some(0));
    x.app_writes(100);
    x.sent();
    x.app_closes().sends(["R. 101:101(0) ack 1"]);
    assert_eq!(closed(&x), Some(CloseReason::LocalReset));
}

#[test]
fn a_close_that_lingers_too_long_is_a_reset() {
    let mut x = Exchange::established().rtt_ms(10);
    x.app_sets(SocketOption::Linger(Some(2_000))).app_writes(100).app_closes();
    x.after(1_999).is_in(State::FinWait1);
    x.sent();
    x.after(1).sends(["R. 102:102(0) ack 1"]);
    assert_eq!(closed(&x), Some(CloseReason::LocalReset));
}

#[test]
fn a_close_that_is_acknowledged_in_time_does_not_reset() {
    let mut x = Exchange::established().rtt_ms(10).options(|o| o.linger_ms = Some(2_000));
    x.app_writes(100).app_closes().gets([". ack 102"]).is_in(State::FinWait2);
    x.sent();
    x.sends_nothing_for(10_000).is_in(State::FinWait2);
}

#[test]
fn the_largest_segment_may_be_lowered_while_up_and_never_raised() {
    let mut x = Exchange::established().options(|o| o.nodelay = true);
    x.app_sets(SocketOption::MssMax(500)).app_writes(1000).sends([". 1:501(500)", "P. 501:1001(500)"]);
    x.app_sets(SocketOption::MssMax(900)).app_writes(500).sends(["P. 1001:1501(500)"]);
}

// covers: MAY-18
#[test]
fn another_congestion_control_takes_over_the_window() {
    for &algorithm in Algorithm::ALL {
        let mut x = Exchange::established().rtt_ms(10);
        let before = x.info().cwnd;
        x.app_sets(SocketOption::Congestion(algorithm));
        assert_eq!((x.info().congestion, x.info().cwnd), (algorithm.name(), before));
    }
}

#[test]
fn statistics_count_what_happened() {
    let mut x = Exchange::established().sack().rtt_ms(40);
    x.app_writes(5_000).after(40).gets([". ack 1 sack 1001:4001", "P. 1:101(100) ack 1 sack 1001:4001"]);
    let stats = x.stats();
    assert_eq!((stats.flight, stats.sacked, stats.lost, stats.retransmitted), (5_000, 3_000, 1_000, 1_000));
    assert_eq!((stats.retransmitted_segments, stats.recovery), (1, 3));
    assert_eq!((stats.bytes_received, stats.bytes_acked, stats.delivered), (100, 0, 3));
    assert_eq!((stats.mss, stats.path_mtu, stats.sack, stats.timestamps), (1_000, 1_500, true, false));
    assert!(stats.srtt_us >= 40_000 && stats.rtt_min_us == 40_000 && stats.rto_us >= 240_000, "{stats:?}");
    x.after(40).gets(["101:101(0) ack 5001"]);
    let stats = x.stats();
    assert_eq!((stats.flight, stats.bytes_acked, stats.recovery), (0, 5_000, 0));
    assert_eq!(stats.congestion.name(), x.info().congestion);
}

#[test]
fn with_minshalls_nagle_only_an_earlier_small_segment_holds_a_small_one_back() {
    let mut x = Exchange::established().config(|c| c.minshall = true);
    x.app_writes(1_500).sends([". 1:1001(1000)", "P. 1001:1501(500)"]);
    x.app_writes(100).sends_nothing().gets([". ack 1001"]).sends_nothing();
    x.gets([". ack 1501"]).sends(["P. 1501:1601(100)"]);
    let mut x = Exchange::established();
    x.app_writes(1_500).sends([". 1:1001(1000)"]).gets([". ack 1001"]).sends(["P. 1001:1501(500)"]);
}
