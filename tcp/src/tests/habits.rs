//! What [`TcpConfig`] and options can make different from the RFCs' ways: each habit, beside what is done without it.

use hoststack_transport::{ConnectFailure, Duration};

use crate::config::{Blackhole, TcpConfig};
use crate::drop_reason::DropReason;
use crate::seed::IcmpError;
use crate::state::State;
use crate::testing::Exchange;

const WITHIN: Duration = Duration::from_secs(3600);

// ---- records ----

#[test]
fn no_segment_spans_the_end_of_a_record() {
    let mut x = Exchange::established().options(|o| o.nodelay = true);
    x.app_writes_records(&[1_400, 1_100]);
    x.sends([". 1:1001(1000)", "P. 1001:1401(400)", ". 1401:2401(1000)", "P. 2401:2501(100)"]);
    let mut x = Exchange::established().options(|o| o.nodelay = true);
    x.app_writes(2_500).sends([". 1:1001(1000)", ". 1001:2001(1000)", "P. 2001:2501(500)"]);
}

#[test]
fn nagle_does_not_hold_a_record_that_nothing_can_join() {
    let mut x = Exchange::established();
    x.app_writes(500).sends(["P. 1:501(500)"]);
    // The last might become longer: it waits as any small segment does.
    x.app_writes_records(&[100, 100, 100]).sends(["P. 501:601(100)", "P. 601:701(100)"]);
    x.gets([". ack 601"]).sends_nothing().gets([". ack 701"]).sends(["P. 701:801(100)"]);
}

#[test]
fn records_are_sent_again_as_they_were() {
    let mut x = Exchange::established().options(|o| o.nodelay = true);
    x.app_writes_records(&[100, 100, 100]).sends(["P. 1:101(100)", "P. 101:201(100)", "P. 201:301(100)"]);
    x.after(200).sends(["P. 1:101(100)", "P. 101:201(100)", "P. 201:301(100)"]).gets([". ack 301"]);
    // What was acknowledged ends nothing any more.
    x.app_writes(50).sends(["P. 301:351(50)"]);
}

#[test]
fn more_record_ends_than_are_remembered_replace_the_last() {
    let mut x = Exchange::established().options(|o| o.nodelay = true).config(|c| c.initial_window = 200);
    x.app_writes_records(&[1; 80]);
    let sent = x.sent();
    assert_eq!((sent.len(), sent[62].as_str()), (64, "P. 63:64(1) ack 1 win 65535"));
    assert_eq!(sent[63], "P. 64:81(17) ack 1 win 65535");
}

// ---- acknowledgments ----

fn talking() -> Exchange {
    Exchange::established().config(|c| (c.quick_acks, c.interactive_acks) = (8, true))
}

#[test]
fn data_that_carries_no_acknowledgment_is_no_answer() {
    let mut x = talking();
    x.gets(["P. 1:11(10) ack 1"]).sends([". 1:1(0) ack 11"]);
    x.gets(["P. 11:21(10) ack 1"]).app_writes(100).sends([". 1:1(0) ack 21", "P. 1:101(100) ack 21"]);
    // That carried none: what the app says of its own accord is no answer.
    x.gets(["P. 21:31(10) ack 101"]).sends([". 101:101(0) ack 31"]);
}

#[test]
fn the_acknowledgment_of_the_syn_ack_goes_with_early_data_and_the_next_waits() {
    let open = |interactive: bool| {
        let mut x = Exchange::closed().config(|c| (c.quick_acks, c.interactive_acks) = (8, interactive));
        x.app_connects_with(WITHIN, 100).takes_iss().sends(["S 0:0(0)"]);
        x.gets(["S. 0:0(0) ack 1 win 5000 <mss 1000>"]).sends(["P. 1:101(100) ack 1"]);
        x.gets(["P. 1:11(10) ack 101"]);
        x
    };
    let mut x = open(true);
    x.sends_nothing_for(39).after(1).sends([". 101:101(0) ack 11"]);
    // It was not answered in time: the next is acknowledged at once.
    x.gets(["P. 11:21(10) ack 101"]).sends([". 101:101(0) ack 21"]);
    open(false).sends([". 101:101(0) ack 11"]);
}

// ---- opens ----

/// Without options that fill SYNs.
fn client() -> Exchange {
    Exchange::closed().options(|o| {
        o.fast_open = true;
        (o.timestamps, o.sack, o.window_scale) = (false, false, false);
    })
}

#[test]
fn the_first_syn_timeouts_may_be_equally_long() {
    let mut x = Exchange::closed().config(|c| (c.syn_linear_timeouts, c.syn_retries) = (4, 7));
    x.app_connects(WITHIN).takes_iss().sends(["S 0:0(0)"]);
    for second in [1, 1, 1, 1, 1, 2, 4] {
        x.sends_nothing_for(second * 1000 - 1).after(1).sends(["S 0:0(0)"]);
    }
    x.sends_nothing_for(7_999).after(1);
    assert_eq!(x.outcomes, [Err(ConnectFailure::TimedOut)]);
}

#[test]
fn without_cookies_data_goes_with_the_syn_of_the_size_that_the_server_took_last() {
    let mut x = client().options(|o| o.fast_open_no_cookie = true);
    x.app_connects_with(WITHIN, 2000).takes_iss();
    assert_eq!(x.sent(), ["S 0:1420(1420) win 65535 <mss 1460>"]);
    x.gets(["S. 0:0(0) ack 1421 win 5000 <mss 1000,FO abcd1234,nop,nop>"]);
    x.sends(["P. 1421:2001(580) ack 1"]).gets([". ack 2001"]);
    assert_eq!((x.half_opens.counters().fast_opens_accepted, x.half_opens.counters().cookies_learnt), (1, 0));
    x.peer_is_at(81).app_connects_with(WITHIN, 2000).takes_iss();
    assert_eq!(x.sent(), ["S 0:960(960) win 65535 <mss 1460>"]);
    // Sent again, it is a plain one.
    x.after(1000);
    assert_eq!(x.sent(), ["S 0:0(0) win 65535 <mss 1460>"]);
}

#[test]
fn a_listener_that_needs_no_cookie_takes_data_in_any_syn() {
    let listener = || Exchange::listen().options(|o| (o.fast_open, o.fast_open_no_cookie) = (true, true));
    for option in ["", ",FO 0102030405060708", ",FO"] {
        let mut x = listener();
        x.gets([&alloc::format!("S 0:100(100) win 5000 <mss 1000{option}>")]).takes_iss();
        assert_eq!(x.sent(), ["S. 0:0(0) ack 101 win 65435 <mss 1460>"], "{option}");
        x.tells(["Accepted", "Received"]).gets([". 101:101(0) ack 1"]).is_in(State::Established);
    }
    // Nothing to hurry for.
    let mut x = listener();
    x.gets(["S 0:0(0) win 5000 <mss 1000>"]).takes_iss().sends(["S. 0:0(0) ack 1"]).tells([]);
    let mut x = listener().config(|c| c.fast_open_pending_max = 0);
    x.gets(["S 0:100(100) win 5000 <mss 1000>"]).takes_iss().sends(["S. 0:0(0) ack 1"]).tells([]);
}

#[test]
fn a_cookie_that_comes_after_a_timeout_shows_that_the_option_passed() {
    let mut x = client();
    for port in [81, 82, 83] {
        x.peer_is_at(port).app_connects(WITHIN).takes_iss();
        let syn = x.sent().concat();
        assert!(syn.contains("FO"), "{syn}");
        x.after(1000).gets(["S. 0:0(0) ack 1 win 5000 <mss 1000,FO abcd1234,nop,nop>", "R 1:1(0)"]);
        x.sent();
    }
    x.half_opens.forget_servers();
    x.peer_is_at(84).app_connects(WITHIN).takes_iss();
    assert_eq!(x.sent(), ["S 0:0(0) win 65535 <mss 1460,FO,nop,nop>"]);
}

#[test]
fn an_unreachable_ends_a_handshake_of_a_listener_that_wants_it() {
    let listen = |aborts: bool| {
        let mut x = Exchange::listen().options(|o| o.abort_on_icmp = aborts);
        x.gets(["S 0:0(0) win 5000 <mss 1000>"]).takes_iss().sends(["S. 0:0(0) ack 1"]);
        x
    };
    let mut x = listen(true);
    x.gets_icmp(7, IcmpError::Unreachable).is_in(State::SynReceived);
    x.gets_icmp(0, IcmpError::PacketTooBig { mtu: 576 }).is_in(State::SynReceived);
    x.gets_icmp(0, IcmpError::Unreachable).is_in(State::Listen);
    x.gets([". ack 1"]).sends(["R 1:1(0)"]).tells([]);
    assert_eq!(x.counts().flows, 0);
    let mut x = listen(false);
    x.gets_icmp(0, IcmpError::Unreachable).gets([". ack 1"]).tells(["Accepted"]);
    // A fast open's app is told.
    let mut x = Exchange::listen()
        .options(|o| (o.abort_on_icmp, o.fast_open, o.fast_open_no_cookie) = (true, true, true));
    x.gets(["S 0:100(100) win 5000 <mss 1000>"]).takes_iss().sends(["S. 0:0(0) ack 101"]);
    x.gets_icmp(0, IcmpError::Unreachable);
    assert_eq!(x.counts().connections, 0);
    x.tells(["Accepted", "Received", "Closed: unreachable"]);
}

#[test]
fn a_missing_timestamp_may_be_tolerated_in_the_handshake_too() {
    for (tolerates, told) in [(true, &["Accepted"][..]), (false, &[])] {
        let mut x = Exchange::listen()
            .config(|c| c.tolerate_missing_timestamps = tolerates)
            .options(|o| o.timestamps = true);
        x.gets(["S 0:0(0) win 5000 <mss 1000,TS val 100 ecr 0>"]).takes_iss();
        x.sent();
        x.gets([". ack 1"]);
        let names: alloc::vec::Vec<_> = told.to_vec();
        match names.as_slice() {
            [one] => _ = x.tells([*one]),
            _ => _ = x.tells([]).dropped(DropReason::TimestampMissing, 1),
        }
    }
}

#[test]
fn a_slop_is_added_to_timeouts_that_were_doubled_and_not_to_that_of_the_first_syn() {
    let ms = Duration::from_millis;
    let mut x = Exchange::closed().config(|c| (c.rto_slop, c.syn_linear_timeouts) = (ms(200), 1));
    x.app_connects(WITHIN).takes_iss().sends(["S 0:0(0)"]);
    for wait in [1_000, 1_200, 2_200, 4_200] {
        x.sends_nothing_for(wait - 1).after(1).sends(["S 0:0(0)"]);
    }
    let mut x = Exchange::established()
        .config(|c| (c.rto_min, c.rto_floor, c.rto_slop) = (ms(0), ms(30), ms(200)))
        .rtt_ms(50);
    x.app_writes(100).sends(["P. 1:101(100)"]);
    // 50 ms and four times 25 ms.
    for wait in [350, 500, 800] {
        x.sends_nothing_for(wait - 1).after(1).sends(["P. 1:101(100)"]);
    }
    let mut x = Exchange::established().config(|c| (c.rto_min, c.rto_floor) = (ms(0), ms(30))).rtt_ms(1);
    x.app_writes(100).sends(["P. 1:101(100)"]).sends_nothing_for(29).after(1).sends(["P. 1:101(100)"]);
}

// ---- RFC 5961, and what there was before ----

#[test]
fn any_reset_in_the_window_may_be_believed() {
    let mut x = Exchange::established().config(|c| c.exact_resets = false);
    x.gets(["R 100000:100000(0)"]).is_in(State::Established).dropped(DropReason::ResetOutOfWindow, 1);
    x.gets(["R 1000:1000(0)"]).sends_nothing().tells(["Closed: reset by the peer"]);
    let mut x = Exchange::established();
    x.gets(["R 1000:1000(0)"]).sends([". 1:1(0) ack 1"]).is_in(State::Established);
}

#[test]
fn a_syn_in_the_window_may_reset_the_connection() {
    let mut x = Exchange::established().config(|c| c.challenge_syns = false);
    x.gets(["S 100000:100000(0)"]).sends([". 1:1(0) ack 1"]).is_in(State::Established);
    x.gets(["S 1:1(0)"]).sends(["R. 1:1(0) ack 1"]).tells(["Closed: reset by the peer"]);
    let mut x = Exchange::established();
    x.gets(["S 1:1(0)"]).sends([". 1:1(0) ack 1"]).is_in(State::Established);
}

#[test]
fn an_old_acknowledgment_may_bring_data() {
    // A window of 5000 was offered, and 20000 bytes are acknowledged since.
    let old = |bounded: bool| {
        let mut x = Exchange::established().config(|c| c.bounded_acks = bounded).window(5000);
        for end in (1..=20).map(|n| n * 1000 + 1) {
            x.app_writes(1000).gets([&alloc::format!(". ack {end}")]);
        }
        x.sent();
        x.gets(["P. 1:101(100) ack 1"]);
        x
    };
    old(false)
        .tells(["Acknowledged", "Received"])
        .sends_nothing_for(39)
        .after(1)
        .sends([". 20001:20001(0) ack 101"]);
    old(true).dropped(DropReason::AckTooOld, 1).sends([". 20001:20001(0) ack 1"]);
}

#[test]
fn syn_and_fin_together_may_be_dropped_everywhere() {
    let mut x = Exchange::listen().config(|c| c.drop_syn_fin = true);
    x.gets(["SF 0:0(0) win 5000 <mss 1000>"]).sends_nothing().dropped(DropReason::SynFin, 1);
    let mut x = Exchange::established().config(|c| c.drop_syn_fin = true);
    x.gets(["SF. 1:1(0) ack 1"]).sends_nothing().dropped(DropReason::SynFin, 1);
    let mut x = Exchange::listen();
    x.gets(["SF 0:0(0) win 5000 <mss 1000>"]).takes_iss().sends(["S. 0:0(0) ack 1"]);
}

#[test]
fn a_black_hole_answers_nothing() {
    for (blackhole, answers) in
        [(Blackhole::Off, [1, 1]), (Blackhole::Syns, [0, 1]), (Blackhole::All, [0, 0])]
    {
        let mut x = Exchange::listen().config(|c| c.blackhole = blackhole);
        x.app_unlistens();
        for (segment, count) in ["S 0:0(0) win 5000", ". 5:5(0) ack 7"].into_iter().zip(answers) {
            x.gets([segment]);
            assert_eq!(x.sent().len(), count, "{blackhole:?}: {segment}");
        }
        x.dropped(DropReason::NoFlow, 2);
    }
}

// ---- sending ----

#[test]
fn the_initial_window_may_be_another() {
    for (segments, expected) in [(2, 2), (10, 10), (20, 20)] {
        let mut x = Exchange::established().config(|c| c.initial_window = segments);
        x.app_writes(30_000);
        assert_eq!(x.sent().len(), expected);
    }
}

#[test]
fn the_window_may_outlive_an_idle_time() {
    for (restarts, expected) in [(true, 10), (false, 20)] {
        let mut x = Exchange::established().config(|c| c.idle_restart = restarts).rtt_ms(10);
        x.app_writes(10_000).after(10).gets([". ack 10001"]).sent();
        x.after(5_000).app_writes(40_000);
        assert_eq!(x.sent().len(), expected);
    }
}

#[test]
fn limited_transmit_may_be_off() {
    for (limited, count) in [(true, 1), (false, 0)] {
        let mut x = Exchange::established().config(|c| c.limited_transmit = limited).sack().rtt_ms(40);
        x.app_writes(12_000);
        assert_eq!(x.sent().len(), 10);
        x.after(40).gets([". ack 1 sack 1001:2001"]);
        assert_eq!(x.sent().len(), count, "{limited}");
    }
}

#[test]
fn without_prr_the_window_falls_at_once() {
    // Ten in flight, the first lost: seven may be, by CUBIC.
    let count = |prr: bool| {
        let mut x = Exchange::established().config(|c| c.prr = prr).sack();
        x.app_writes(30_000);
        assert_eq!(x.sent().len(), 10);
        x.after(50).gets([". ack 1 sack 1001:4001"]);
        let first = x.sent().len();
        x.gets([". ack 1 sack 1001:5001"]).gets([". ack 1 sack 1001:6001"]);
        (first, x.sent().len(), x.info().recovery)
    };
    assert_ne!(count(true), count(false));
    assert_eq!((count(true).2, count(false).2), ("recovery", "recovery"));
}

#[test]
fn probes_of_a_closed_window_may_be_further_apart() {
    let mut x = Exchange::established().config(|c| c.persist_min = Duration::from_secs(5)).window(0);
    x.app_writes(100).sends_nothing_for(4_999).after(1).sends([". 1:2(1)"]);
    x.gets([". ack 1 win 0"]).sends_nothing_for(4_999).after(1).sends([". 1:2(1)"]);
    let mut x = Exchange::established().window(0);
    x.app_writes(100).sends_nothing_for(199).after(1).sends([". 1:2(1)"]);
}

// ---- while it runs ----

#[test]
fn what_begins_after_a_change_follows_it() {
    let mut x = Exchange::listen().config(|c| c.quick_acks = 4);
    x.gets(["S 0:0(0) win 5000 <mss 1000>"]).takes_iss().sends(["S. 0:0(0) ack 1"]).gets([". ack 1"]);
    let changed = TcpConfig {
        quick_acks: 0,
        initial_window: 2,
        rto_min: Duration::from_millis(500),
        ack_delay: Duration::from_millis(100),
        ..TcpConfig::default()
    };
    x.engine.set_config(changed);
    x.half_opens.set_config(TcpConfig { rto_initial: Duration::from_secs(3), ..changed });
    // What it took at its start stays; what is asked for each time is new.
    x.gets(["P. 1:11(10) ack 1"]).sends([". 1:1(0) ack 11"]);
    x.app_writes(100).sends(["P. 1:101(100)"]).sends_nothing_for(499).after(1).sends(["P. 1:101(100)"]);
    x.gets(["R 11:11(0)"]);
    x.sent();
    x.gets(["S 0:0(0) win 5000 <mss 1000>"]).takes_iss().sends(["S. 0:0(0) ack 1"]).gets([". ack 1"]);
    x.gets(["P. 1:11(10) ack 1"]).sends_nothing_for(99).after(1).sends([". 1:1(0) ack 11"]);
    x.app_writes(5_000);
    assert_eq!(x.sent().len(), 2);
    let mut x = Exchange::closed();
    x.half_opens.set_config(TcpConfig { rto_initial: Duration::from_secs(3), ..TcpConfig::default() });
    x.app_connects(WITHIN)
        .takes_iss()
        .sends(["S 0:0(0)"])
        .sends_nothing_for(2_999)
        .after(1)
        .sends(["S 0:0(0)"]);
}

#[test]
fn a_new_cookie_key_holds_for_syns_that_come_then() {
    let mut x =
        Exchange::listen().config(|c| c.fast_open_key = Some([1; 16].into())).options(|o| o.fast_open = true);
    x.gets(["S 0:0(0) win 5000 <mss 1000,FO>"]).takes_iss();
    let first = x.sent().concat();
    x.gets([". ack 1", "R 1:1(0)"]);
    x.sent();
    x.engine.set_config(TcpConfig { fast_open_key: Some([2; 16].into()), ..TcpConfig::default() });
    x.gets(["S 0:0(0) win 5000 <mss 1000,FO>"]).takes_iss();
    let second = x.sent().concat();
    assert!(first.contains("FO ") && second.contains("FO ") && first != second, "{first} {second}");
}
