//! Numbered requirements of RFC 9293 that no other test covers: one test each, in the RFC's order. `docs/rfc9293.md` has
//! them all.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hoststack_transport::{
    ConnectFailure, DomainId, Duration, Endpoint, FlowKey, ListenerId, Protocol, SocketOptions,
    TransportEvent,
};
use hoststack_wire::Flags;

use crate::config::TcpConfig;
use crate::engine::ListenError;
use crate::output::send_mss;
use crate::state::State;
use crate::testing::{Exchange, listener};

// covers: MUST-1
#[test]
fn a_window_field_with_its_highest_bit_set_is_a_large_window() {
    let mut x = Exchange::established().window(0x8000);
    assert_eq!(x.info().snd_wnd, 0x8000);
    x.gets([". ack 1 win 65535"]);
    assert_eq!(x.info().snd_wnd, 65_535);
    x.app_writes(2000).sends([". 1:1001(1000)", "P. 1001:2001(1000)"]);
}

// covers: REC-1
#[test]
fn windows_of_a_gigabyte_are_computed_with_in_both_directions() {
    let mut x = Exchange::established().scale(14).options(|options| options.rx_window = 1 << 30);
    x.layer.rx_capacity = 1 << 30;
    x.gets(["1:1001(1000) ack 1 win 65535"]).after(40);
    assert_eq!(x.info().snd_wnd, 65_535 << 14);
    // 2^30 - 1000, rounded up to a multiple of 2^14 only where that takes nothing back.
    assert_eq!(x.info().rcv_wnd, 65_535 << 14);
    x.sends([". ack 1001 win 65535"]);
    x.app_writes(2000).sends([". 1:1001(1000)", "P. 1001:2001(1000)"]);
    x.gets([". 1001:1001(0) ack 2001 win 65535"]).is_in(State::Established);
}

// covers: MUST-11
#[test]
fn a_reset_in_syn_received_ends_an_active_open_and_leaves_a_listener_listening() {
    let mut passive = Exchange::syn_received();
    passive.gets(["R 1:1(0)"]).tells([]).is_in(State::Listen);
    passive.gets(["S 0:0(0) win 1000"]).is_in(State::SynReceived);
    let mut active = Exchange::crossed_syns();
    active.gets(["R 1:1(0)"]).tells(["Closed: reset by the peer", "FlowGone"]).is_in(State::Closed);
}

// covers: MUST-11
#[test]
fn a_syn_in_the_window_in_syn_received_ends_a_passive_open_and_challenges_an_active_one() {
    Exchange::syn_received().gets(["S 9:9(0) win 1000"]).sends_nothing().is_in(State::Listen);
    Exchange::crossed_syns().gets(["S 9:9(0) win 1000"]).sends([". ack 1"]).is_in(State::SynReceived);
}

// covers: MUST-12
#[test]
fn the_app_is_told_whether_the_peer_closed_or_aborted() {
    let mut x = Exchange::established();
    x.gets(["F. 1:1(0) ack 1"]).tells(["PeerClosed"]);
    x.app_closes().gets([". 2:2(0) ack 2"]).tells(["Closed: finished"]);
    Exchange::established().gets(["R 1:1(0)"]).tells(["Closed: reset by the peer"]);
    Exchange::close_wait().gets(["R 2:2(0)"]).tells(["Closed: reset by the peer"]);
}

fn flow_to(remote: IpAddr, local: IpAddr) -> FlowKey {
    let (local, remote) = (Endpoint::new(local, 80), Endpoint::new(remote, 4000));
    FlowKey { local, remote, domain: DomainId(0), protocol: Protocol::Tcp }
}

// covers: MUST-15, MUST-16
#[test]
fn the_effective_send_mss_is_the_least_of_what_the_peer_takes_and_the_path_carries() {
    let v4 = flow_to(Ipv4Addr::new(10, 0, 0, 2).into(), Ipv4Addr::new(10, 0, 0, 1).into());
    let v6 = flow_to(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let no_limit = u16::MAX;
    for (flow, mtu, max, peer, timestamps, mss) in [
        // Nothing was said: 576 - 40, 1280 - 60.
        (&v4, 9000, no_limit, None, false, 536),
        (&v6, 9000, no_limit, None, false, 1220),
        (&v4, 500, no_limit, None, false, 460),
        // The peer's, the path's, the app's limit; options come off each.
        (&v4, 1500, no_limit, Some(1000), false, 1000),
        (&v4, 1500, no_limit, Some(9000), false, 1460),
        (&v6, 1500, no_limit, Some(9000), false, 1440),
        (&v4, 1500, 700, Some(9000), false, 700),
        (&v4, 1500, no_limit, Some(1460), true, 1448),
    ] {
        assert_eq!(send_mss(flow, mtu, max, peer, timestamps), mss, "{mtu} {max} {peer:?} {timestamps}");
    }
}

// covers: MUST-16
#[test]
fn no_segment_is_larger_than_the_peers_mss_or_the_paths_mtu() {
    Exchange::established().mss(400).app_writes(800).sends([". 1:401(400)", "P. 401:801(400)"]);
    Exchange::established().mss(1460).mtu(640).app_writes(1200).sends([". 1:601(600)", "P. 601:1201(600)"]);
}

// covers: MUST-65, MUST-14, MAY-3, SHLD-5
#[test]
fn every_syn_carries_an_mss_and_nothing_else_does() {
    let mss_of = |mut x: Exchange, input: &str| {
        x.gets([input]).after(1000);
        let sent = x.out.sent.iter().map(|sent| (sent.header.flags.has(Flags::SYN), sent.header.options.mss));
        sent.collect::<Vec<_>>()
    };
    // The SYN-ACK, and the same a second later.
    assert_eq!(mss_of(Exchange::listen(), "S 0:0(0) win 1000"), [(true, Some(1460)); 2]);
    assert_eq!(mss_of(Exchange::listen().mtu(576), "S 0:0(0) win 1000"), [(true, Some(536)); 2]);
    assert_eq!(mss_of(Exchange::syn_sent(), "R 0:0(0)"), [(true, Some(1460))], "the SYN again");
    assert_eq!(mss_of(Exchange::crossed_syns(), ". 70000:70000(0) ack 1")[0], (false, None));
    for (x, input) in [
        (Exchange::syn_sent(), "S. 0:0(0) ack 1 win 1000 <mss 700>"),
        (Exchange::established(), "1:11(10) ack 1"),
        (Exchange::fin_wait_2(), "F. 1:1(0) ack 2"),
        (Exchange::closed(), "1:11(10) ack 1"),
    ] {
        assert_eq!(mss_of(x, input), [(false, None)], "{input}");
    }
}

// covers: SHLD-2
#[test]
fn a_reset_may_carry_data() {
    Exchange::established().gets(["RP. 1:31(30) ack 1"]).tells(["Closed: reset by the peer"]).sends_nothing();
    let mut x = Exchange::syn_sent();
    x.gets(["R. 0:30(30) ack 1"]);
    assert_eq!(x.outcomes, [Err(ConnectFailure::Refused)]);
}

// covers: MUST-19
#[test]
fn after_ssthresh_the_window_grows_by_a_segment_in_a_round_trip() {
    let mut x = Exchange::established();
    x.app_writes(200_000);
    x.sent();
    // A loss sets ssthresh to half of what was in flight.
    x.gets([". ack 1"; 3]).gets([". ack 10001"]);
    let (cwnd, mut acked) = (x.info().cwnd, 10_001);
    assert_eq!((cwnd, x.info().ssthresh), (5000, 5000));
    for round in 1..4 {
        let window = x.info().cwnd;
        for _ in 0..window / 1000 {
            acked += 1000;
            x.gets([format!(". ack {acked}").as_str()]);
        }
        assert_eq!(x.info().cwnd, cwnd + round * 1000, "round {round}");
    }
}

/// When the timers give up, from the first transmission on.
fn patience(mut x: Exchange, step_ms: u64, is_over: impl Fn(&Exchange) -> bool) -> Duration {
    let start = x.now;
    while !is_over(&x) {
        x.after(step_ms);
        assert!(x.now.since(start).as_secs() < 3600, "it ends");
    }
    x.now.since(start)
}

// covers: MUST-20, SHLD-11
#[test]
fn r2_of_data_is_above_100_s_by_default() {
    let mut x = Exchange::established();
    x.app_writes(100);
    let ended = |x: &Exchange| x.events.iter().any(|event| matches!(event, TransportEvent::Closed { .. }));
    let patience = patience(x, 1000, ended);
    assert!(patience.as_secs() >= 100, "{patience:?}");
}

// covers: MUST-23
#[test]
fn r2_of_a_syn_is_3_minutes_at_least_by_default() {
    let mut x = Exchange::closed().config(|config| *config = TcpConfig::default());
    x.app_connects(Duration::from_secs(3600));
    let patience = patience(x, 1000, |x| !x.outcomes.is_empty());
    assert!(patience.as_secs() >= 180, "{patience:?}");
}

// covers: MUST-34, SHLD-15, SHLD-16, SHLD-17, MAY-7
#[test]
fn into_a_window_that_shrank_nothing_new_is_sent_and_the_old_is_retransmitted() {
    let mut x = Exchange::established().config(|config| config.retransmits_max = 2);
    x.app_writes(5000);
    assert_eq!(x.sent().len(), 5);
    // SND.UNA + SND.WND is now two segments before SND.NXT; and there is more to send.
    x.gets([". ack 1 win 3000"]).app_writes(3000).sends_nothing();
    x.after(200).sends([". 1:1001(1000)"]);
    // What is acknowledged opens cwnd, not the window: the old is sent again, and nothing beyond 5001.
    x.gets([". ack 1001 win 2000"]);
    let again = x.sent();
    assert!(again.iter().all(|text| text.starts_with(". 1001:") || text.starts_with(". 2001:")), "{again:?}");
    assert!(!again.is_empty());
    // Never timed out, however long the edge stays where it is, as long as the peer answers.
    for _ in 0..6 {
        let wait = x.info().timer_in.expect("a timer runs").as_millis() as u64;
        x.after(wait).gets([". ack 1001 win 0"]).is_in(State::Established);
    }
    x.sent();
    // The window opens: what cwnd allows of the new goes.
    x.gets([". ack 5001 win 9000"]).tells(["Acknowledged"]).sends([". 5001:6001(1000)", ". 6001:7001(1000)"]);
}

// covers: MUST-35, MUST-36, SHLD-29, SHLD-30
#[test]
fn a_window_that_closes_is_probed_after_one_timeout_and_then_ever_more_rarely() {
    let mut x = Exchange::established();
    x.app_writes(1000).sends(["P. 1:1001(1000)"]).after(20).gets([". ack 1001 win 0"]);
    x.app_writes(1000).sends_nothing();
    let mut rto = x.info().rto.as_millis() as u64;
    for _ in 0..5 {
        x.sends_nothing_for(rto - 1).after(1).sends([". 1001:1002(1)"]).gets([". ack 1001 win 0"]);
        rto *= 2;
    }
}

// covers: MAY-8
#[test]
fn probes_of_our_closed_window_are_answered_without_end() {
    let mut x = Exchange::established().options(|options| options.rx_window = 1000);
    x.layer.rx_capacity = 1000;
    x.gets(["1:1001(1000) ack 1"]).after(40).sends([". ack 1001 win 0"]);
    for _ in 0..100 {
        x.after(60_000).gets(["1001:1002(1) ack 1"]).sends([". ack 1001 win 0"]);
    }
    x.app_reads(1000).sends([". ack 1001 win 1000"]).is_in(State::Established);
}

// covers: MUST-38
#[test]
fn a_window_that_opens_bit_by_bit_does_not_draw_small_segments() {
    let mut x = Exchange::established();
    x.app_writes(20_000);
    x.sent();
    x.gets([". ack 10001 win 0"]).sends_nothing();
    for win in [1, 100, 500, 999] {
        x.gets([format!(". ack 10001 win {win}").as_str()]).sends_nothing();
    }
    x.gets([". ack 10001 win 1000"]).sends([". 10001:11001(1000)"]);
}

// covers: MUST-40, SHLD-18
#[test]
fn an_acknowledgment_is_delayed_and_for_less_than_half_a_second() {
    let mut x = Exchange::established().config(|config| config.ack_delay = TcpConfig::default().ack_delay);
    x.gets(["P. 1:11(10) ack 1"]).sends_nothing().after(499).sends([". ack 11"]);
}

// covers: SHLD-19
#[test]
fn two_full_segments_are_acknowledged_at_once_whatever_their_size() {
    for size in [536, 1000, 1460] {
        let mut x = Exchange::established().mss(size);
        let segment =
            |n: u16| format!("{}:{}({size}) ack 1", u32::from(n * size) + 1, u32::from((n + 1) * size) + 1);
        x.gets([segment(0).as_str()]).after(500);
        x.sent();
        x.gets([segment(1).as_str()]).gets([segment(2).as_str()]);
        assert_eq!(x.sent().len(), 1, "{size}");
    }
}

// covers: MUST-41
#[test]
fn a_passive_open_of_an_endpoint_that_has_one_fails_and_changes_nothing() {
    let mut x = Exchange::syn_received();
    let local = Endpoint::new(Ipv4Addr::UNSPECIFIED.into(), 80);
    let other = ListenerId(x.half_opens.at_slot(0).map_or(listener().0, |h| h.half_open.0));
    let again = x.engine.listen(other, DomainId(0), local, 1, SocketOptions::default());
    assert_eq!(again, Err(ListenError::InUse));
    assert_eq!((x.counts().listeners, x.counts().syn_received), (1, 1));
    x.gets([". ack 1"]).is_in(State::Established).tells(["Accepted"]);
}

// covers: MUST-42, MUST-41
#[test]
fn a_port_can_be_listened_on_while_connections_of_that_port_are_being_opened() {
    for (mut x, state) in
        [(Exchange::syn_sent(), State::SynSent), (Exchange::crossed_syns(), State::SynReceived)]
    {
        let ours = x.flow();
        let any = Endpoint::new(Ipv4Addr::UNSPECIFIED.into(), ours.local.port);
        x.engine.listen(listener(), DomainId(0), any, 4, SocketOptions::default()).expect("the port is free");
        x.is_in(state).peer_is_at(4001).gets(["S 0:0(0) win 1000"]).is_in(State::SynReceived);
        assert_eq!(x.engine.state_of(&ours), Some(state), "the open goes on");
        x.peer_is_at(ours.remote.port).gets(["S. 0:0(0) ack 1 win 1000"]).is_in(State::Established);
    }
}

// covers: MUST-45
#[test]
fn every_segment_of_a_connection_has_the_addresses_that_its_syn_had() {
    // The listener has the unspecified address.
    let mut x = Exchange::listen();
    let flow = x.flow();
    x.gets(["S 0:0(0) win 9000 <mss 1000>"]).takes_iss().gets([". ack 1"]).app_writes(1500);
    x.after(1000).gets([". ack 1501", "1:2(1) ack 1501"]).app_closes();
    let flows: Vec<FlowKey> = x.out.sent.iter().map(|sent| sent.flow).collect();
    assert_eq!(flows.len(), 5, "SYN-ACK, data, data again, reset for unread data");
    assert!(flows.iter().all(|sent| *sent == flow), "{flows:?}");
}

// covers: MUST-47, SHLD-25, MUST-56
#[test]
fn a_soft_error_is_told_as_the_cause_of_the_end_and_forgotten_when_the_peer_answers() {
    use crate::seed::IcmpError;
    let mut x = Exchange::established().config(|config| config.retransmits_max = 2);
    x.app_writes(100).gets_icmp(1, IcmpError::Unreachable).is_in(State::Established).tells([]);
    x.after(200).gets([". ack 101"]).tells(["Acknowledged"]);
    x.app_writes(100).after(60_000).tells(["Closed: timed out"]);
    let mut x = Exchange::established().config(|config| config.retransmits_max = 2);
    x.app_writes(100).gets_icmp(1, IcmpError::Unreachable).after(60_000).tells(["Closed: unreachable"]);
    let mut x = Exchange::syn_sent();
    x.gets_icmp(0, IcmpError::Unreachable).is_in(State::SynSent).after(60_000);
    assert_eq!(x.outcomes, [Err(ConnectFailure::Unreachable)]);
}

// covers: MUST-54
#[test]
fn an_icmp_error_reaches_the_connection_that_it_quotes_and_no_other() {
    use crate::drop_reason::DropReason;
    use crate::seed::IcmpError;
    let mut x = Exchange::established().config(|config| config.retransmits_max = 1);
    let first = x.flow();
    x.app_writes(100).peer_is_at(4001).gets(["S 0:0(0) win 9000 <mss 1000>"]).takes_iss().gets([". ack 1"]);
    x.tells(["Accepted"]).app_writes(100).gets_icmp(1, IcmpError::Unreachable).after(60_000);
    x.events.retain(|event| matches!(event, TransportEvent::Closed { .. }));
    assert_eq!(x.events.len(), 2);
    x.tells(["Closed: timed out", "Closed: unreachable"]);
    assert_eq!(x.engine.state_of(&first), None);
    x.gets_icmp(1, IcmpError::Unreachable).dropped(DropReason::IcmpNoFlow, 1);
}

// covers: MUST-58, MUST-59
#[test]
fn a_burst_in_order_is_processed_whole_before_one_acknowledgment_answers_it() {
    let mut x = Exchange::established();
    let texts: Vec<String> =
        (0..20).map(|n| format!("{}:{}(1000) ack 1", n * 1000 + 1, n * 1000 + 1001)).collect();
    x.gets(core::array::from_fn::<&str, 20, _>(|n| texts[n].as_str())).sends([". ack 20001"]);
    // With old data, a window that is overrun and a challenge among them, too.
    x.gets(["1:1001(1000) ack 1", "S 5:5(0)", "20001:21001(1000) ack 1", "R 20009:20009(0)"]);
    x.sends([". ack 21001"]);
}

// covers: MUST-60, MAY-16
#[test]
fn data_that_waits_for_more_goes_when_what_is_in_flight_is_acknowledged_or_lost() {
    let mut x = Exchange::established();
    x.app_writes(10).sends(["P. 1:11(10)"]).app_writes(10).sends_nothing_for(199);
    x.after(1)
        .sends([". 1:11(10)"])
        .gets([". ack 11"])
        .sends(["P. 11:21(10)"])
        .gets([". ack 21"])
        .sends_nothing();
}

// covers: MUST-61, SHLD-27, SHLD-28
#[test]
fn writes_collapse_into_full_segments_and_only_the_last_is_pushed() {
    let mut x = Exchange::established();
    x.app_writes(100).sends(["P. 1:101(100)"]);
    // Full segments go at once; the rest waits for the acknowledgment.
    x.app_writes(300).app_writes(300).app_writes(300).sends_nothing();
    x.app_writes(300).sends([". 101:1101(1000)"]).app_writes(300).sends_nothing();
    x.gets([". ack 1101"]).sends(["P. 1101:1601(500)"]);
}

// covers: SHLD-31, MAY-13
#[test]
fn segments_beyond_a_gap_are_kept_and_acknowledged_at_once() {
    let mut x = Exchange::established();
    x.gets(["2001:3001(1000) ack 1"]).sends([". ack 1"]).tells([]);
    x.gets(["1001:2001(1000) ack 1"]).sends([". ack 1"]).tells([]);
    x.gets(["1:1001(1000) ack 1"]).sends([". ack 3001"]).tells(["Received"]);
}

// covers: MAY-12
#[test]
fn an_ack_field_out_of_its_range_discards_the_segment_and_is_answered() {
    let mut x = Exchange::established().window(1000);
    x.app_writes(1000).sends(["P. 1:1001(1000)"]).gets([". ack 1001 win 1000"]).tells(["Acknowledged"]);
    // SND.UNA - MAX.SND.WND =< SEG.ACK =< SND.NXT: 1 to 1001.
    x.gets(["1:11(10) ack 0"]).sends([". 1001:1001(0) ack 1"]).tells([]);
    x.gets(["1:11(10) ack 1002"]).sends([". 1001:1001(0) ack 1"]).tells([]);
    x.gets(["1:11(10) ack 1"]).tells(["Received"]);
    x.gets(["11:21(10) ack 1001"]).tells(["Received"]);
}
