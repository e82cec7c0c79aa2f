//! Passive opens: options, retransmission, backlog, the session layer's refusal.

use hoststack_transport::AcceptError;

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
    let mut x = Exchange::listen().backlog(0);
    x.gets(["S 0:0(0) win 1000"]).sends_nothing().dropped(DropReason::BacklogFull, 1);
    let mut x = Exchange::syn_received().backlog(1);
    assert_eq!(x.counts().syn_received, 1);
    x.gets(["R 1:1(0)"]).gets(["S 0:0(0) win 1000"]).dropped(DropReason::BacklogFull, 0);
    assert_eq!(x.counts().syn_received, 1);
}

#[test]
fn the_syn_received_pool_bounds_all_listeners() {
    let mut x = Exchange::listen().config(|config| config.syn_received_max = 0);
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
