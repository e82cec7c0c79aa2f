//! What is sent when: Nagle, silly windows, probes, PSH, MSS, idle restarts, bursts.

use hoststack_transport::{Transmitted, Transport};

use crate::drop_reason::DropReason;
use crate::seed::IcmpError;
use crate::state::State;
use crate::testing::Exchange;

// covers: MUST-61, SHLD-28
#[test]
fn data_is_cut_into_full_segments_and_the_last_is_pushed() {
    let mut x = Exchange::established();
    x.app_writes(2500).sends([". 1:1001(1000) ack 1", ". 1001:2001(1000) ack 1"]);
    x.gets([". ack 2001"]).sends(["P. 2001:2501(500) ack 1"]).tells(["Acknowledged"]);
}

// covers: SHLD-7, MUST-17, MAY-16
#[test]
fn nagle_holds_a_small_segment_while_another_is_in_flight() {
    let mut x = Exchange::established();
    x.app_writes(10).sends(["P. 1:11(10)"]).app_writes(10).app_writes(10).sends_nothing();
    x.gets([". ack 11"]).sends(["P. 11:31(20)"]);
    let mut x = Exchange::established().options(|options| options.nodelay = true);
    x.app_writes(10).app_writes(10).sends(["P. 1:11(10)", "P. 11:21(10)"]);
}

// covers: MUST-19
#[test]
fn the_initial_window_is_ten_segments() {
    let mut x = Exchange::established();
    x.app_writes(20_000);
    assert_eq!(x.sent().len(), 10);
    // Slow start: an ACK of two segments lets four out.
    x.gets([". ack 2001"]);
    assert_eq!(x.sent().len(), 4);
}

// covers: MUST-38
#[test]
fn the_peer_s_window_bounds_what_is_in_flight() {
    let mut x = Exchange::established().window(2500);
    x.app_writes(5000).sends([". 1:1001(1000)", ". 1001:2001(1000)"]);
    // 500 bytes of window are a silly window while something is in flight.
    x.gets([". ack 1001 win 1500"]).sends_nothing();
    x.gets([". ack 2001 win 3000"]).sends([". 2001:3001(1000)", ". 3001:4001(1000)", "P. 4001:5001(1000)"]);
}

// covers: MUST-38, MUST-60
#[test]
fn half_of_the_largest_window_is_not_silly() {
    let mut x = Exchange::established().window(800);
    x.app_writes(2000).sends([". 1:801(800)"]).gets([". ack 801 win 400"]).sends([". 801:1201(400)"]);
    x.gets([". ack 1201 win 399"]).sends_nothing().sends_nothing_for(199);
    // The persist timer overrides.
    x.after(1).sends([". 1201:1600(399)"]);
}

// covers: MUST-36, MUST-37, SHLD-30
#[test]
fn a_closed_window_is_probed_with_back_off_as_long_as_the_peer_answers() {
    let mut x = Exchange::established().window(0).config(|config| {
        config.retransmits_max = 3;
        config.rto_max = core::time::Duration::from_secs(1);
    });
    x.app_writes(3000).sends_nothing();
    assert_eq!(x.info().timer, "persist");
    x.sends_nothing_for(199);
    let mut wait = 1;
    for _ in 0..20 {
        x.after(wait).sends([". 1:2(1)"]).gets([". ack 1 win 0"]).sends_nothing();
        wait = (x.info().timer_in.expect("it goes on").as_millis()) as u64;
        x.sends_nothing_for(wait - 1);
        wait = 1;
    }
    assert_eq!(x.info().rto.as_secs(), 1);
    x.gets([". ack 1 win 3000"]).sends([". 1:1001(1000)", ". 1001:2001(1000)", "P. 2001:3001(1000)"]);
    x.gets([". ack 3001"]).is_in(State::Established);
    assert_eq!(x.engine.armed_timers(), 0);
}

#[test]
fn a_probe_that_is_accepted_counts_as_sent() {
    let mut x = Exchange::established().window(0);
    x.app_writes(100).after(200).sends([". 1:2(1)"]);
    x.gets([". ack 2 win 0"]).sends_nothing().tells(["Acknowledged"]);
    x.gets([". ack 2 win 1000"]).sends(["P. 2:101(99)"]);
}

// covers: T06
#[test]
fn unanswered_probes_end_the_connection() {
    let mut x = Exchange::established().window(0).config(|config| config.retransmits_max = 3);
    x.app_writes(100).after(100_000).tells(["Closed: timed out"]).is_in(State::Listen);
    assert_eq!(x.sent().len(), 3);
}

#[test]
fn a_fin_waits_for_a_closed_window_and_is_its_own_probe() {
    let mut x = Exchange::established().window(0);
    x.app_half_closes().sends_nothing().is_in(State::Established);
    x.after(200).sends(["F. 1:1(0)"]).is_in(State::FinWait1).gets([". ack 2 win 0"]).is_in(State::FinWait2);
}

// covers: MUST-34, MUST-35, SHLD-17, MAY-7
#[test]
fn a_window_that_shrinks_is_survived() {
    let mut x = Exchange::established().config(|config| config.retransmits_max = 2);
    x.app_writes(3000);
    assert_eq!(x.sent().len(), 3);
    x.gets([". ack 1 win 0"]);
    for _ in 0..5 {
        let wait = x.info().timer_in.expect("a timer runs").as_millis() as u64;
        x.after(wait).sends([". 1:1001(1000)"]).gets([". ack 1 win 0"]);
    }
    x.gets([". ack 1001 win 5000"]).sends([". 1001:2001(1000)", "P. 2001:3001(1000)"]);
    x.gets([". ack 3001 win 5000"]).sends_nothing().tells(["Acknowledged"]);
}

#[test]
fn an_older_segment_does_not_set_the_window() {
    let mut x = Exchange::established();
    x.gets(["1:11(10) ack 1 win 500"]);
    assert_eq!(x.info().snd_wnd, 500);
    x.gets([". 1:1(0) ack 1 win 9000"]);
    assert_eq!(x.info().snd_wnd, 500);
}

#[test]
fn after_idling_the_initial_window_begins_again() {
    let mut x = Exchange::established();
    for n in 0..10 {
        x.app_writes(30_000);
        while x.info().flight_size > 0 {
            let all = x.info().snd_nxt.since(x.iss());
            x.gets([alloc::format!(". ack {all}").as_str()]);
        }
        assert_eq!(x.info().snd_nxt.since(x.iss()), 30_000 * (n + 1) + 1);
    }
    assert!(x.info().cwnd > 20_000);
    x.sent();
    x.after(10_000).app_writes(30_000);
    assert_eq!(x.sent().len(), 10);
}

#[test]
fn a_burst_and_the_room_of_the_output_end_a_turn() {
    let mut x = Exchange::established();
    let id = x.engine.connection_of(&x.flow()).expect("a connection");
    let session = x.layer.newest().expect("a session");
    x.layer.write(session, 5000);
    let more = x.engine.transmit(x.now, id, 2, &mut x.layer, &mut x.out, &mut std::vec::Vec::new());
    assert_eq!(more, Transmitted::More);
    x.sends([". 1:1001(1000)", ". 1001:2001(1000)"]);
    x.out.room = 1;
    let more = x.engine.transmit(x.now, id, 10, &mut x.layer, &mut x.out, &mut std::vec::Vec::new());
    assert_eq!(more, Transmitted::More);
    x.sends([". 2001:3001(1000)"]);
    x.out.room = 100;
    let more = x.engine.transmit(x.now, id, 10, &mut x.layer, &mut x.out, &mut std::vec::Vec::new());
    assert_eq!(more, Transmitted::Idle);
    x.sends([". 3001:4001(1000)", "P. 4001:5001(1000)"]);
}

#[test]
fn sequence_numbers_wrap_in_both_directions() {
    let mut x = Exchange::established().isns(u32::MAX - 1500, u32::MAX - 700);
    assert_eq!(x.iss().0, u32::MAX - 1500);
    x.app_writes(3000).sends([". 1:1001(1000)", ". 1001:2001(1000)", "P. 2001:3001(1000)"]);
    x.gets(["1:1001(1000) ack 2001", "1001:2001(1000) ack 3001"]).sends([". 3001:3001(0) ack 2001"]);
    x.app_reads(2000).app_closes().sends(["F. 3001:3001(0) ack 2001"]).gets(["F. 2001:2001(0) ack 3002"]);
    x.is_in(State::TimeWait);
    x.tells(["Acknowledged", "Received", "Acknowledged", "Received", "PeerClosed", "Closed: finished"]);
}

// covers: MUST-54
#[test]
fn too_big_a_packet_makes_segments_smaller_and_sends_them_again() {
    let mut x = Exchange::established().mss(1460);
    x.app_writes(2920).sends([". 1:1461(1460)", "P. 1461:2921(1460)"]);
    let cwnd = x.info().cwnd;
    x.gets_icmp(1, IcmpError::PacketTooBig { mtu: 1000 });
    x.sends([". 1:961(960)", ". 961:1921(960)", ". 1921:2881(960)", "P. 2881:2921(40)"]);
    assert_eq!((x.info().mss, x.info().cwnd), (960, cwnd), "no congestion");
    x.gets_icmp(1, IcmpError::PacketTooBig { mtu: 68 });
    assert_eq!(x.info().mss, 512, "not smaller than every path takes");
    x.gets_icmp(90_000, IcmpError::PacketTooBig { mtu: 552 }).dropped(DropReason::IcmpOutOfWindow, 1);
}

// covers: MUST-56, MUST-47, SHLD-25
#[test]
fn an_unreachable_does_not_end_a_connection_but_names_the_cause() {
    let mut x = Exchange::established().config(|config| config.retransmits_max = 1);
    x.app_writes(10).gets_icmp(1, IcmpError::Unreachable).is_in(State::Established);
    x.after(10_000).tells(["Closed: unreachable"]);
}
