//! Passive opens: options, retransmission, backlog, the session layer's refusal.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use hoststack_transport::{AcceptError, ConnectFailure, Duration};
use hoststack_wire::{OptionProfile, SegmentHeader};

use crate::config::SynCookies;
use crate::drop_reason::DropReason;
use crate::state::State;
use crate::testing::Exchange;

#[test]
fn syn_ack_answers_each_option_only_if_it_was_offered() {
    let cases = [
        ("S 0:0(0) win 1000", "S. 0:0(0) ack 1 win 65535 <mss 1460>"),
        ("S 0:0(0) win 1000 <mss 900>", "S. 0:0(0) ack 1 win 65535 <mss 1460>"),
        ("S 0:0(0) win 1000 <mss 900,nop,nop,sackOK>", "S. 0:0(0) ack 1 win 65535 <mss 1460,nop,nop,sackOK>"),
        ("S 0:0(0) win 1000 <mss 900,nop,wscale 7>", "S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 3>"),
    ];
    for (syn, syn_ack) in cases {
        let mut x = Exchange::listen().options(|options| {
            options.window_scale = true;
            options.rx_window = 400_000;
        });
        x.gets([syn]);
        let sent = x.sent();
        assert_eq!(sent, [syn_ack], "{syn}");
    }
}

#[test]
fn timestamps_are_echoed_and_go_on_from_syn_ack_to_data() {
    let mut x = Exchange::listen();
    x.gets(["S 0:0(0) win 1000 <mss 900,TS val 77 ecr 0>"]);
    let ts = x.out.sent.front().and_then(|sent| sent.header.options.timestamps).expect("it echoes");
    assert_eq!(ts.ecr, 77);
    let mut x = Exchange::listen().options(|options| options.timestamps = false);
    x.gets(["S 0:0(0) win 1000 <mss 900,TS val 77 ecr 0>"]);
    assert_eq!(x.out.sent.front().and_then(|sent| sent.header.options.timestamps), None);
}

// covers: MUST-67, MUST-14
#[test]
fn the_announced_mss_follows_the_mtu_and_the_option() {
    let announces = |mtu, max| {
        let mut x = Exchange::listen().mtu(mtu).options(|options| options.mss_max = max);
        x.gets(["S 0:0(0) win 1000"]);
        x.out.sent.front().and_then(|sent| sent.header.options.mss)
    };
    assert_eq!(announces(1500, None), Some(1460));
    assert_eq!(announces(9000, None), Some(8960));
    assert_eq!(announces(9000, Some(1200)), Some(1200));
    assert_eq!(announces(20, None), Some(64));
}

// covers: MUST-15
#[test]
fn options_are_written_as_the_profile_says() {
    let mut x = Exchange::listen().config(|config| config.option_profile = OptionProfile::FreeBsd);
    x.gets(["S 0:0(0) win 1000 <mss 900,nop,nop,sackOK>"]);
    assert_eq!(x.sent(), ["S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>"]);
}

#[test]
fn an_mss_option_that_is_tiny_makes_segments_of_64_bytes_and_no_smaller() {
    // CVE-2019-11479: with what a peer's option says taken at its word, each byte would cost a packet.
    for announced in [0, 1, 8, 48, 63, 64] {
        Exchange::established().mss(announced).app_writes(128).sends([". 1:65(64)", "P. 65:129(64)"]);
    }
    Exchange::established().mss(65).timestamps().app_writes(128).sends([". 1:65(64)", "P. 65:129(64)"]);
}

#[test]
fn the_window_offered_first_may_be_smaller_than_the_fifo() {
    let mut x = Exchange::listen().options(|options| options.rx_window_initial = 5000);
    x.gets(["S 0:0(0) win 1000"]).sends(["S. 0:0(0) ack 1 win 5000"]);
    let mut x = Exchange::closed().options(|options| options.rx_window_initial = 5000);
    x.app_connects(Duration::from_secs(9)).takes_iss().sends(["S 0:0(0) win 5000"]);
}

#[test]
fn syn_and_syn_ack_retries_are_the_options_where_they_say_so() {
    let mut x = Exchange::syn_received().options(|options| options.syn_retries = Some(1));
    x.after(1000).sends(["S. 0:0(0) ack 1"]).after(1999).is_in(State::SynReceived).after(1);
    x.sends_nothing().is_in(State::Listen);
    let mut x = Exchange::closed().options(|options| options.syn_retries = Some(0));
    x.app_connects(Duration::from_secs(3600)).takes_iss().after(999).sends(["S 0:0(0)"]);
    assert!(x.outcomes.is_empty());
    x.after(1).sends_nothing();
    assert_eq!(x.outcomes, [Err(ConnectFailure::TimedOut)]);
}

#[test]
fn a_backlog_that_is_half_full_gives_up_sooner() {
    let mut x = Exchange::listen().backlog(8);
    for port in 1..=5 {
        x.peer_is_at(port).gets(["S 0:0(0) win 1000"]);
    }
    // Two repetitions, after 1 s and 3 s; the third would be due after 7 s.
    x.after(6_999);
    assert_eq!((x.sent().len(), x.counts().syn_received), (15, 5));
    x.after(1);
    // Those that go leave the rest more time.
    assert_eq!((x.counts().syn_received, x.sent().len()), (4, 4));
    // A backlog of one is not under pressure from one.
    let mut x = Exchange::listen().backlog(1);
    x.gets(["S 0:0(0) win 1000"]).after(7_000);
    assert_eq!((x.sent().len(), x.counts().syn_received), (4, 1));
}

#[test]
fn without_an_mss_option_segments_carry_536_bytes() {
    Exchange::established()
        .mss(None)
        .app_writes(1000)
        .sends([". 1:537(536)"])
        .gets([". ack 537"])
        .sends(["P. 537:1001(464)"]);
}

// covers: MUST-16
#[test]
fn timestamps_take_12_bytes_of_each_segment() {
    Exchange::established().mss(1000).timestamps().app_writes(988).sends(["P. 1:989(988)"]);
}

#[test]
fn the_window_of_a_syn_is_never_scaled_and_later_ones_are() {
    let mut x = Exchange::established().scale(4).window(1000).options(|options| options.rx_window = 1 << 20);
    assert_eq!(x.info().snd_wnd, 16_000);
    x.layer.rx_capacity = 1 << 20;
    x.gets(["1:1001(1000) ack 1 win 10"]).after(40).sends([". 1:1(0) ack 1001 win 32736"]);
    assert_eq!(x.info().snd_wnd, 160);
}

#[test]
fn syn_ack_is_sent_again_with_back_off_until_given_up() {
    let mut x = Exchange::syn_received();
    for second in [1, 2, 4, 8, 16] {
        x.sends_nothing_for(second * 1000 - 1).after(1).sends(["S. 0:0(0) ack 1"]);
    }
    x.after(32_000).sends_nothing().is_in(State::Listen);
    assert_eq!((x.counts().flows, x.engine.armed_timers()), (0, 0));
    x.tells([]);
}

#[test]
fn a_retransmitted_syn_gets_the_same_syn_ack() {
    let mut x = Exchange::syn_received();
    x.after(10).gets(["S 0:0(0) win 65535 <mss 1000>"]).sends(["S. 0:0(0) ack 1 win 65535 <mss 1460>"]);
    x.gets([". ack 1"]).is_in(State::Established).tells(["Accepted"]);
}

#[test]
fn the_handshake_measures_the_round_trip_unless_a_syn_ack_was_sent_twice() {
    let mut x = Exchange::syn_received();
    x.after(30).gets([". ack 1"]);
    assert_eq!(x.info().srtt.map(|srtt| srtt.as_millis()), Some(30));
    let mut x = Exchange::syn_received();
    x.after(1030).gets([". ack 1"]);
    assert_eq!(x.info().srtt, None);
    assert_eq!(x.info().rto.as_secs(), 3, "RFC 6298 (5.7)");
}

#[test]
fn the_backlog_bounds_syn_received_and_frees_again() {
    let mut x = Exchange::listen().backlog(0).config(|config| config.syn_cookies = SynCookies::Never);
    x.gets(["S 0:0(0) win 1000"]).sends_nothing().dropped(DropReason::BacklogFull, 1);
    let mut x = Exchange::syn_received().backlog(1);
    assert_eq!(x.counts().syn_received, 1);
    x.gets(["R 1:1(0)"]).gets(["S 0:0(0) win 1000"]).dropped(DropReason::BacklogFull, 0);
    assert_eq!(x.counts().syn_received, 1);
}

#[test]
fn the_syn_received_pool_bounds_all_listeners() {
    let mut x = Exchange::listen().config(|config| {
        config.syn_received_max = 0;
        config.syn_cookies = SynCookies::Never;
    });
    x.gets(["S 0:0(0) win 1000"]).sends_nothing().dropped(DropReason::SynReceivedFull, 1);
    assert_eq!(x.counts().flows, 0);
}

#[test]
fn a_session_layer_that_refuses_resets_the_peer() {
    for (error, reason) in [
        (AcceptError::NoRoom, DropReason::AcceptNoRoom),
        (AcceptError::NoListener, DropReason::AcceptNoListener),
    ] {
        let mut x = Exchange::syn_received();
        x.layer.refuses = Some(error);
        x.gets([". ack 1"]).sends(["R 1:1(0)"]).dropped(reason, 1).tells([]).is_in(State::Listen);
        assert_eq!(x.counts().flows, 0);
    }
}

#[test]
fn a_full_connection_pool_resets_the_peer() {
    let mut x = Exchange::syn_received().config(|config| config.connections_max = 0);
    x.gets([". ack 1"]).sends(["R 1:1(0)"]).dropped(DropReason::AcceptNoRoom, 1).is_in(State::Listen);
}

#[test]
fn data_and_fin_on_the_completing_ack_are_taken() {
    let mut x = Exchange::syn_received();
    x.gets(["FP. 1:101(100) ack 1"])
        .tells(["Accepted", "Received", "PeerClosed"])
        .sends([". 1:1(0) ack 102"]);
}

// covers: H02
#[test]
fn unlistening_resets_what_is_in_syn_received_and_leaves_the_rest() {
    let mut x = Exchange::syn_received();
    x.app_unlistens().sends(["R. 1:1(0) ack 1"]).is_in(State::Closed);
    let mut x = Exchange::established();
    x.app_unlistens().sends_nothing().is_in(State::Established);
}

#[test]
fn resets_for_no_flow_are_bounded_in_a_step() {
    let mut x = Exchange::closed().config(|config| config.resets_per_step = 2);
    x.gets(["S 0:0(0)", "S 0:0(0)", "S 0:0(0)"]).sends(["R. 0:0(0) ack 1", "R. 0:0(0) ack 1"]);
    x.dropped(DropReason::ResetLimited, 1);
    x.after(1).gets(["S 0:0(0)"]).sends(["R. 0:0(0) ack 1"]);
}

// RFC 6528 §3, RFC 7323 §7.1: what one peer is told says nothing of what others are.
#[test]
fn sequence_numbers_and_timestamps_are_each_flow_s_own() {
    let mut x = Exchange::listen().backlog(100);
    let (mut isns, mut clocks) = (BTreeSet::new(), BTreeSet::new());
    for port in 1..=50 {
        x.peer_is_at(port).gets(["S 0:0(0) win 1000 <mss 900,TS val 77 ecr 0>"]);
        let syn_ack = x.out.sent.pop_back().expect("a SYN-ACK").header;
        isns.insert(syn_ack.seq.0);
        clocks.insert(syn_ack.options.timestamps.expect("it echoes").val);
        // The same flow a second later: both count on, by 4 us and by 1 ms (and the flow's next ISN is above).
        x.gets(["R 1:1(0)"]).after(1000).gets(["S 500:500(0) win 1000 <mss 900,TS val 99 ecr 0>"]);
        let again = x.out.sent.pop_back().expect("a SYN-ACK").header;
        assert_eq!(again.seq.since(syn_ack.seq), 250_000);
        let clock = |header: &SegmentHeader| header.options.timestamps.map_or(0, |ts| ts.val);
        assert_eq!(clock(&again).wrapping_sub(clock(&syn_ack)), 1000);
    }
    let spread = |values: &BTreeSet<u32>| {
        let values: Vec<u32> = values.iter().copied().collect();
        values.windows(2).map(|pair| pair[1] - pair[0]).max()
    };
    assert_eq!((isns.len(), clocks.len()), (50, 50));
    // Not a common clock with the 50 seconds that have passed on it.
    assert!(spread(&isns) > Some(1 << 25) && spread(&clocks) > Some(1 << 25));
}

// RFC 5961 §3.2, §4.2 in SYN-RECEIVED; RFC 1337: a reset does not end TIME-WAIT.
#[test]
fn resets_that_are_not_exact_end_no_handshake_and_no_time_wait() {
    let mut x = Exchange::syn_received();
    x.gets(["R 5:5(0)"]).dropped(DropReason::ResetChallenged, 1).sends([". 1:1(0) ack 1"]);
    x.gets(["R 70000:70000(0)"]).dropped(DropReason::ResetOutOfWindow, 1).sends_nothing();
    x.is_in(State::SynReceived).gets(["R 1:1(0)"]).is_in(State::Listen);
    let mut x = Exchange::time_wait();
    x.gets(["R 2:2(0)"]).is_in(State::TimeWait).dropped(DropReason::TimeWaitReset, 1).sends_nothing();
}
