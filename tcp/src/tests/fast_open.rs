//! Fast Open (RFC 7413), server and client, segment by segment.

use alloc::string::String;

use hoststack_transport::{ConnectFailure, Duration};

use crate::drop_reason::DropReason;
use crate::seed::IcmpError;
use crate::state::State;
use crate::testing::Exchange;

/// The cookie of 10.0.0.2 at 10.0.0.1 with the key of these tests.
pub(super) const COOKIE: &str = "dcfa12da5bd712d8";

fn server() -> Exchange {
    Exchange::listen().config(|config| config.fast_open_key = Some([1; 16].into())).options(|options| {
        options.fast_open = true;
        options.nodelay = true;
    })
}

fn syn(len: u32, option: &str) -> String {
    alloc::format!("S 0:{len}({len}) win 5000 <mss 1000,{option}>")
}

/// A server that has taken 100 bytes of a SYN; its SYN-ACK was seen.
fn opened() -> Exchange {
    let mut x = server();
    x.gets([&syn(100, &alloc::format!("FO {COOKIE},nop,nop"))]).takes_iss();
    assert_eq!(x.sent(), ["S. 0:0(0) ack 101 win 65435 <mss 1460>"]);
    x
}

// ---- server ----

#[test]
fn a_request_is_answered_with_a_cookie_and_the_handshake_goes_on() {
    let mut x = server();
    x.gets([&syn(0, "FO")]).takes_iss();
    assert_eq!(x.sent(), [alloc::format!("S. 0:0(0) ack 1 win 65535 <mss 1460,FO {COOKIE},nop,nop>")]);
    x.tells([]).gets([". ack 1"]).tells(["Accepted"]).is_in(State::Established);
    assert_eq!(x.engine.counters().fast_open_cookies_out, 1);
    let mut x = server();
    x.gets([&syn(0, "FOEXP")]).takes_iss();
    assert_eq!(x.sent(), [alloc::format!("S. 0:0(0) ack 1 win 65535 <mss 1460,FOEXP {COOKIE}>")]);
}

#[test]
fn a_listener_without_fast_open_ignores_the_option_and_the_data() {
    let mut x = server().options(|options| options.fast_open = false);
    x.gets([&syn(100, &alloc::format!("FO {COOKIE}"))]).takes_iss();
    assert_eq!(x.sent(), ["S. 0:0(0) ack 1 win 65535 <mss 1460>"]);
    x.tells([]).gets([". ack 1"]).tells(["Accepted"]);
}

#[test]
fn data_without_the_option_is_not_acknowledged() {
    let mut x = server();
    x.gets(["S 0:100(100) win 5000 <mss 1000>"]).takes_iss();
    assert_eq!(x.sent(), ["S. 0:0(0) ack 1 win 65535 <mss 1460>"]);
    x.tells([]);
}

// RFC 7413 §4.2.2.
#[test]
fn a_good_cookie_gives_the_app_the_connection_and_the_data_before_the_ack() {
    let mut x = opened();
    x.tells(["Accepted", "Received"]).is_in(State::SynReceived).app_reads(100);
    assert_eq!(x.info().state, State::SynReceived);
    let counts = x.counts();
    assert_eq!((counts.connections, counts.syn_received, counts.flows), (1, 0, 1));
    x.after(30).gets([". 101:101(0) ack 1 win 7000"]).is_in(State::Established).sends_nothing();
    let info = x.info();
    assert_eq!((info.snd_wnd, info.srtt.map(|srtt| srtt.as_millis())), (7000, Some(30)));
    x.gets(["P. 101:201(100) ack 1"]).tells(["Received"]).app_reads(100);
    assert_eq!(x.engine.counters().fast_opens_in, 1);
}

#[test]
fn the_app_answers_before_the_ack() {
    let mut x = opened();
    x.app_writes(1500).sends([". 1:1001(1000) ack 101", "P. 1001:1501(500) ack 101"]);
    x.after(20).gets([". 101:101(0) ack 1501"]).is_in(State::Established).sends_nothing();
    x.tells(["Accepted", "Received", "Acknowledged"]);
}

#[test]
fn the_window_of_the_syn_bounds_what_is_sent_before_the_ack() {
    let mut x = server();
    let option = alloc::format!("nop,wscale 7,FO {COOKIE},nop,nop");
    x.gets([&alloc::format!("S 0:10(10) win 1500 <mss 1000,{option}>")])
        .takes_iss()
        .sends(["S. 0:0(0) ack 11"]);
    // The window of a SYN is not scaled.
    x.app_writes(3000).sends([". 1:1001(1000)"]);
}

#[test]
fn a_cookie_without_data_opens_at_once_too() {
    let mut x = server();
    x.gets([&syn(0, &alloc::format!("FO {COOKIE}"))]).takes_iss();
    assert_eq!(x.sent(), ["S. 0:0(0) ack 1 win 65535 <mss 1460>"]);
    x.tells(["Accepted"]).app_writes(10).sends(["P. 1:11(10) ack 1"]);
    x.gets([". ack 11"]).is_in(State::Established);
}

#[test]
fn a_bad_cookie_gets_the_usual_handshake_and_a_good_cookie() {
    let mut x = server();
    x.gets([&syn(100, "FO 0102030405060708")]).takes_iss();
    assert_eq!(x.sent(), [alloc::format!("S. 0:0(0) ack 1 win 65535 <mss 1460,FO {COOKIE},nop,nop>")]);
    x.tells([]).gets(["P. 1:101(100) ack 1"]).tells(["Accepted", "Received"]);
    assert_eq!((x.engine.counters().fast_open_cookies_bad, x.engine.counters().fast_opens_in), (1, 0));
}

#[test]
fn a_cookie_of_the_previous_key_opens_and_is_replaced() {
    let mut x = server().config(|config| {
        config.fast_open_key_previous = Some([1; 16].into());
        config.fast_open_key = Some([2; 16].into());
    });
    x.gets([&syn(100, &alloc::format!("FO {COOKIE}"))]).takes_iss().tells(["Accepted", "Received"]);
    let sent = x.sent().concat();
    assert!(
        sent.starts_with("S. 0:0(0) ack 101 win 65435 <mss 1460,FO ") && !sent.contains(COOKIE),
        "{sent}"
    );
}

// RFC 7413 §5.1: PendingFastOpenRequests.
#[test]
fn beyond_the_limit_of_pending_ones_the_handshake_is_the_usual_one() {
    let mut x = server().config(|config| config.fast_open_pending_max = 1);
    let syn = syn(100, &alloc::format!("FO {COOKIE}"));
    x.peer_is_at(1).gets([&syn]).takes_iss().tells(["Accepted", "Received"]).sends(["S. 0:0(0) ack 101"]);
    x.peer_is_at(2).gets([&syn]).takes_iss().tells([]).sends(["S. 0:0(0) ack 1"]);
    assert_eq!(x.engine.counters().fast_opens_put_off, 1);
    x.peer_is_at(1).gets(["R 101:101(0)"]).tells(["Closed: reset by the peer"]);
    // A reset does not make room: it may be what an attacker was after.
    x.peer_is_at(3).gets([&syn]).takes_iss().tells([]).sends(["S. 0:0(0) ack 1"]);
    x.after(60_000).peer_is_at(4).gets([&syn]).tells(["Accepted", "Received"]);
}

#[test]
fn the_ack_makes_room_for_another() {
    let mut x = server().config(|config| config.fast_open_pending_max = 1);
    let syn = syn(100, &alloc::format!("FO {COOKIE}"));
    for port in 1..5 {
        x.peer_is_at(port).gets([&syn]).takes_iss().tells(["Accepted", "Received"]);
        x.gets([". 101:101(0) ack 1"]).is_in(State::Established);
    }
}

#[test]
fn a_reset_ends_it_and_one_that_is_not_exact_is_challenged() {
    let mut x = opened();
    x.tells(["Accepted", "Received"]);
    x.gets(["R 102:102(0)"]).dropped(DropReason::ResetChallenged, 1).sends([". 1:1(0) ack 101"]);
    x.gets(["R 1:1(0)"]).dropped(DropReason::ResetOutOfWindow, 1).sends_nothing().tells([]);
    x.gets(["R 101:101(0)"]).tells(["Closed: reset by the peer"]).is_in(State::Listen);
    assert_eq!((x.counts().flows, x.counts().connections, x.engine.armed_timers()), (0, 0, 0));
}

#[test]
fn the_syn_again_gets_the_same_syn_ack_and_a_syn_in_the_window_a_challenge() {
    let mut x = opened();
    x.gets(["S 0:0(0) win 5000 <mss 1000>"]).sends(["S. 0:0(0) ack 101 win 65435 <mss 1460>"]);
    x.gets(["S 150:150(0) win 5000"]).dropped(DropReason::SynChallenged, 1).sends([". 1:1(0) ack 101"]);
    x.gets([". 101:101(0) ack 2"]).dropped(DropReason::SynReceivedBadAck, 1).sends(["R 2:2(0)"]);
    x.is_in(State::SynReceived).gets([". 101:101(0) ack 1"]).is_in(State::Established);
    assert_eq!(x.info().srtt, None, "Karn");
}

#[test]
fn the_syn_ack_is_sent_again_beside_the_data_until_given_up() {
    let mut x = opened();
    x.tells(["Accepted", "Received"]);
    for second in [1, 2, 4, 8, 16] {
        x.sends_nothing_for(second * 1000 - 1).after(1).sends(["S. 0:0(0) ack 101"]);
    }
    x.after(32_000).tells(["Closed: timed out"]).is_in(State::Listen);
    assert_eq!((x.counts().flows, x.engine.armed_timers()), (0, 0));
}

#[test]
fn the_app_closes_or_resets_before_the_ack() {
    let mut x = opened();
    x.app_reads(100).app_closes().sends(["F. 1:1(0) ack 101"]);
    x.gets([". 101:101(0) ack 1"]).is_in(State::FinWait1).gets([". 101:101(0) ack 2"]).is_in(State::FinWait2);
    let mut x = opened();
    x.app_resets().sends(["R. 1:1(0) ack 101"]).is_in(State::Listen);
    assert_eq!((x.counts().flows, x.engine.armed_timers()), (0, 0));
    // Unread data turns a close into a reset.
    let mut x = opened();
    x.app_closes().sends(["R. 1:1(0) ack 101"]).is_in(State::Listen);
}

#[test]
fn icmp_errors_are_of_the_data_and_not_of_the_handshake() {
    let mut x = opened();
    x.app_writes(1000).sends(["P. 1:1001(1000)"]);
    x.gets_icmp(0, IcmpError::Unreachable).dropped(DropReason::IcmpOutOfWindow, 1);
    x.gets_icmp(1, IcmpError::PacketTooBig { mtu: 600 }).sends([". 1:561(560)", "P. 561:1001(440)"]);
    assert_eq!(x.info().mss, 560);
}

#[test]
fn unlistening_leaves_what_the_app_has() {
    let mut x = opened();
    x.app_unlistens().sends_nothing().is_in(State::SynReceived).app_reads(100);
    x.gets([". 101:101(0) ack 1"]).is_in(State::Established).gets(["R 101:101(0)"]).is_in(State::Closed);
}

#[test]
fn an_app_that_takes_no_connection_lets_the_handshake_go_on_without_data() {
    let mut x = server();
    x.layer.refuses = Some(hoststack_transport::AcceptError::NoRoom);
    x.gets([&syn(100, &alloc::format!("FO {COOKIE}"))]).takes_iss().sends(["S. 0:0(0) ack 1"]);
    x.dropped(DropReason::AcceptNoRoom, 1).tells([]);
    x.layer.refuses = None;
    x.gets(["P. 1:101(100) ack 1"]).tells(["Accepted", "Received"]);
}

#[test]
fn data_that_finds_no_memory_is_not_acknowledged() {
    let mut x = server();
    x.layer.is_full = true;
    x.gets([&syn(100, &alloc::format!("FO {COOKIE}"))]).takes_iss().sends(["S. 0:0(0) ack 1"]);
    x.tells(["Accepted"]).dropped(DropReason::ReceiveFull, 1);
    x.layer.is_full = false;
    x.gets(["P. 1:101(100) ack 1"]).tells(["Received"]).is_in(State::Established);
}

// ---- client ----

fn client() -> Exchange {
    Exchange::closed().options(|options| {
        options.fast_open = true;
        options.nodelay = true;
        options.timestamps = false;
        options.sack = false;
    })
}

const WITHIN: Duration = Duration::from_secs(30);

/// A client that knows a cookie of its peer, and that it announces an MSS of 1000.
fn knowing() -> Exchange {
    let mut x = client();
    x.app_connects_with(WITHIN, 10).takes_iss();
    assert_eq!(x.sent(), ["S 0:0(0) win 65535 <mss 1460,FO,nop,nop>"]);
    x.gets(["S. 0:0(0) ack 1 win 5000 <mss 1000,FO abcd1234,nop,nop>"]).sends(["P. 1:11(10) ack 1"]);
    x.gets(["R 1:1(0)"]);
    x.events.clear();
    x.outcomes.clear();
    x.peer_is_at(81);
    x
}

/// It has sent 600 bytes of early data with its SYN.
fn sent_early() -> Exchange {
    let mut x = knowing();
    x.app_connects_with(WITHIN, 600).takes_iss();
    assert_eq!(x.sent(), ["S 0:600(600) win 65535 <mss 1460,FO abcd1234,nop,nop>"]);
    x
}

/// What the next SYN with 50 bytes of early data carries.
fn next_syn(x: &mut Exchange, port: u16) -> String {
    x.sent();
    x.peer_is_at(port).app_connects_with(WITHIN, 50).takes_iss();
    x.sent().concat()
}

#[test]
fn without_fast_open_early_data_is_the_first_data() {
    let mut x = client().options(|options| options.fast_open = false);
    x.app_connects_with(WITHIN, 2000).takes_iss();
    assert_eq!(x.sent(), ["S 0:0(0) win 65535 <mss 1460>"]);
    x.gets(["S. 0:0(0) ack 1 win 5000 <mss 1000,FO abcd1234>"]);
    x.sends([". 1:1001(1000) ack 1", "P. 1001:2001(1000) ack 1"]).app_writes(10);
    // A cookie that was not asked for is not remembered.
    assert_eq!(x.half_opens.counters().cookies_learnt, 0);
}

// covers: F48
#[test]
fn the_data_goes_with_the_syn_and_is_acknowledged() {
    let mut x = sent_early();
    x.after(20).gets(["S. 0:0(0) ack 601 win 5000 <mss 1000>"]).tells(["Connected"]);
    x.sends([". 601:601(0) ack 1"]).app_writes(100).sends(["P. 601:701(100) ack 1"]);
    assert_eq!(x.info().srtt.map(|srtt| srtt.as_millis()), Some(20));
    assert_eq!(x.half_opens.counters().fast_opens_accepted, 1);
    x.gets([". ack 701"]).tells(["Acknowledged"]);
}

#[test]
fn a_part_is_acknowledged_and_the_rest_is_sent_at_once() {
    let mut x = sent_early();
    x.gets(["S. 0:0(0) ack 101 win 5000 <mss 300>"]).tells(["Connected"]);
    x.sends([". 101:401(300) ack 1", "P. 401:601(200) ack 1"]);
    assert_eq!(x.half_opens.counters().fast_opens_accepted, 0);
}

#[test]
fn none_is_acknowledged_and_all_is_sent_at_once_and_a_new_cookie_replaces_the_old() {
    let mut x = sent_early();
    x.gets(["S. 0:0(0) ack 1 win 5000 <mss 1000,FO 0102030405060708,nop,nop>"])
        .sends(["P. 1:601(600) ack 1"]);
    assert_eq!(next_syn(&mut x, 82), "S 0:50(50) win 65535 <mss 1460,FO 0102030405060708,nop,nop>");
}

#[test]
fn more_than_was_sent_is_not_acceptable() {
    let mut x = sent_early();
    x.gets(["S. 0:0(0) ack 602 win 5000 <mss 1000,FO badc00ce>"]).dropped(DropReason::SynSentBadAck, 1);
    x.sends(["R 602:602(0)"]).is_in(State::SynSent);
    assert!(next_syn(&mut x, 82).ends_with("FO abcd1234,nop,nop>"), "what was not acceptable taught nothing");
}

#[test]
fn a_reset_of_any_part_refuses() {
    for ack in [1, 300, 601] {
        let mut x = sent_early();
        x.gets([&alloc::format!("R. 0:0(0) ack {ack}")]).tells(["FlowGone"]);
        assert_eq!(x.outcomes, [Err(ConnectFailure::Refused)], "{ack}");
    }
    let mut x = sent_early();
    x.gets(["R. 0:0(0) ack 602"]).dropped(DropReason::SynSentReset, 1).is_in(State::SynSent);
}

// RFC 7413 §4.2.1: no more than one segment, of what the peer's MSS allows.
#[test]
fn one_segment_goes_with_the_syn_and_the_rest_follows() {
    let mut x = knowing();
    x.app_connects_with(WITHIN, 3000).takes_iss();
    assert_eq!(x.sent(), ["S 0:960(960) win 65535 <mss 1460,FO abcd1234,nop,nop>"]);
    x.gets(["S. 0:0(0) ack 961 win 5000 <mss 1000>"]);
    x.sends([". 961:1961(1000) ack 1", ". 1961:2961(1000) ack 1", "P. 2961:3001(40) ack 1"]);
}

#[test]
fn the_syn_is_sent_again_without_option_and_data() {
    let mut x = sent_early();
    x.after(1000);
    assert_eq!(x.sent(), ["S 0:0(0) win 65535 <mss 1460>"]);
    x.gets(["S. 0:0(0) ack 1 win 5000 <mss 1000>"]).sends(["P. 1:601(600) ack 1"]);
    assert_eq!(x.half_opens.counters().fast_opens_lost, 1);
    // The first got through after all.
    let mut x = sent_early();
    x.after(1000).gets(["S. 0:0(0) ack 601 win 5000 <mss 1000>"]);
    assert_eq!(x.sent()[1..], [". 601:601(0) ack 1 win 65535"]);
    assert_eq!(x.half_opens.counters().fast_opens_lost, 0);
}

#[test]
fn a_syn_that_is_too_big_goes_again_at_once_without_data() {
    let mut x = sent_early();
    x.after(10).gets_icmp(0, IcmpError::PacketTooBig { mtu: 600 });
    assert_eq!(x.sent(), ["S 0:0(0) win 65535 <mss 560>"]);
    x.gets_icmp(0, IcmpError::PacketTooBig { mtu: 600 }).sends_nothing();
    x.sends_nothing_for(1989).after(11);
    assert_eq!(x.sent(), ["S 0:0(0) win 65535 <mss 560>"], "2 s after the second");
    // The IP layer has learnt it as well.
    x.out.mtu = 600;
    x.gets(["S. 0:0(0) ack 1 win 5000 <mss 1000>"]).sends([". 1:561(560) ack 1", "P. 561:601(40) ack 1"]);
}

// RFC 7413 §4.1.3.1.
#[test]
fn a_path_that_swallows_data_in_syns_is_given_plain_ones_for_a_while() {
    let mut x = knowing();
    for port in [82, 83] {
        assert!(next_syn(&mut x, port).contains("FO abcd1234"));
        x.after(1000).gets(["S. 0:0(0) ack 1 win 5000 <mss 1000>", "R 1:1(0)"]);
    }
    assert_eq!(next_syn(&mut x, 84), "S 0:0(0) win 65535 <mss 1460>");
    x.gets(["S. 0:0(0) ack 1 win 5000 <mss 1000>"]).after(60_000);
    assert!(next_syn(&mut x, 85).contains("FO abcd1234"));
}

#[test]
fn without_early_data_a_known_cookie_goes_along_all_the_same() {
    let mut x = knowing();
    x.app_connects(WITHIN).takes_iss();
    assert_eq!(x.sent(), ["S 0:0(0) win 65535 <mss 1460,FO abcd1234,nop,nop>"]);
}

#[test]
fn syns_with_data_that_cross_make_a_connection_and_the_data_is_sent_once() {
    for acked in [1, 200, 601] {
        let mut x = sent_early();
        x.gets(["S 0:100(100) win 5000 <mss 1000,FO 87654321>"]).sends(["S. 0:0(0) ack 1"]);
        x.is_in(State::SynReceived).after(20);
        x.gets([&alloc::format!("S. 0:0(0) ack {acked} win 5000 <mss 1000>")]).is_in(State::Established);
        let sent = x.sent();
        let rest = match acked {
            601 => String::from(". 601:601(0) ack 1 win 65535"),
            _ => alloc::format!("P. {acked}:601({}) ack 1 win 65535", 601 - acked),
        };
        assert_eq!(sent, [rest]);
        x.gets(["P. 1:101(100) ack 601"]).app_reads(100);
    }
}

#[test]
fn an_open_that_is_cleaned_up_or_times_out_leaves_nothing() {
    let mut x = sent_early();
    x.after(30_000);
    assert_eq!((x.outcomes.as_slice(), x.half_opens.len()), ([Err(ConnectFailure::TimedOut)].as_slice(), 0));
    assert_eq!((x.counts().flows, x.half_opens.armed_timers()), (0, 0));
}
