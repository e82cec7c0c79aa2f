//! Urgent data (RFC 9293 §3.8.5), both ways.

use hoststack_transport::SocketOption;

use crate::state::State;
use crate::testing::Exchange;

/// Of the peer's stream, bytes up to the end of what it called urgent that the app has not read.
fn left(x: &Exchange) -> u32 {
    let app = x.app_sees();
    app.rx_urgent.saturating_sub(app.read)
}

// covers: MUST-30, MUST-32, MUST-33, MUST-62
#[test]
fn urgent_data_is_announced_before_it_is_readable_and_read_in_line() {
    let mut x = Exchange::established();
    x.gets(["U. 1:101(100) ack 1 urg 60"]).tells(["Urgent", "Received"]);
    assert_eq!((left(&x), x.app_sees().received), (60, 100));
    x.app_reads(40);
    assert_eq!(left(&x), 20);
    x.app_reads(60);
    assert_eq!((left(&x), x.app_sees().is_corrupt), (0, false));
    assert_eq!(x.engine.counters().urgent_in, 1);
}

// covers: MUST-31, MUST-32, MUST-33
#[test]
fn the_pointer_may_lie_beyond_what_has_come_and_moves_on() {
    let mut x = Exchange::established();
    // A window's worth is to come.
    x.gets(["U. 1:1001(1000) ack 1 urg 65535"]).tells(["Urgent", "Received"]);
    x.app_reads(1000);
    assert_eq!(left(&x), 64_535);
    // The same pointer, said by later segments, is no news.
    x.gets(["U. 1001:2001(1000) ack 1 urg 64535", "2001:3001(1000) ack 1"]).tells(["Received"]);
    x.gets(["U. 3001:4001(1000) ack 1 urg 65535"]).tells(["Urgent", "Received"]);
    assert_eq!(left(&x), 65_535 + 3000 - 1000);
}

// covers: MUST-32
#[test]
fn old_pointers_and_empty_ones_are_not_told() {
    let mut x = Exchange::established();
    x.gets(["U. 1:101(100) ack 1 urg 100"]).tells(["Urgent", "Received"]).app_reads(100);
    // Of a duplicate (all of it is old), of one that says something of old data again, and none at all.
    x.gets(["U. 1:101(100) ack 1 urg 100", "U. 51:151(100) ack 1 urg 50"]).tells(["Received"]);
    x.app_reads(50).gets(["U. 151:161(10) ack 1 urg 0"]).tells(["Received"]).app_reads(10);
    assert_eq!(left(&x), 0);
    x.gets(["161:171(10) ack 1"]).tells(["Received"]);
    // What is unread is urgent although it came before.
    x.gets(["U. 161:181(20) ack 1 urg 5"]).tells(["Urgent", "Received"]);
    assert_eq!(left(&x), 5);
    // A pointer does not recede.
    x.gets(["U. 161:191(30) ack 1 urg 2"]).tells(["Received"]);
    assert_eq!(left(&x), 5);
    assert_eq!(x.engine.counters().urgent_in, 2);
}

// covers: MUST-32
#[test]
fn pointers_wrap_around_with_the_sequence_numbers() {
    let mut x = Exchange::established().isns(7, u32::MAX - 50);
    x.gets(["U. 1:41(40) ack 1 urg 200"]).tells(["Urgent", "Received"]);
    assert_eq!(left(&x), 200);
    x.gets(["U. 41:141(100) ack 1 urg 160"]).tells(["Received"]);
    x.gets(["U. 141:241(100) ack 1 urg 100"]).tells(["Urgent", "Received"]);
    assert_eq!(left(&x), 240);
}

// covers: MUST-32, MUST-66
#[test]
fn a_pointer_comes_through_a_closed_window_and_ahead_of_a_gap() {
    let mut x = Exchange::established().options(|options| options.rx_window = 1000);
    x.layer.rx_capacity = 1000;
    x.gets(["1:1001(1000) ack 1"]).tells(["Received"]).after(40).sends([". ack 1001 win 0"]);
    x.gets(["U. 1001:1002(1) ack 1 urg 500"]).tells(["Urgent"]).sends([". ack 1001 win 0"]);
    assert_eq!(left(&x), 1500);
    x.app_reads(1000).sends([". ack 1001 win 1000"]);
    x.gets(["U. 1501:1601(100) ack 1 urg 100"]).tells(["Urgent"]);
    assert_eq!(left(&x), 600);
}

#[test]
fn after_the_peer_s_fin_and_for_an_app_that_closed_nothing_is_told() {
    let mut x = Exchange::close_wait();
    x.gets(["U. 2:2(0) ack 1 urg 9"]).tells([]).is_in(State::CloseWait);
    let mut x = Exchange::established();
    x.app_closes().gets(["U. 1:1(0) ack 2 urg 9"]).tells([]).is_in(State::FinWait2);
    // An app that closed its direction only still reads.
    let mut x = Exchange::fin_wait_2();
    x.gets(["U. 1:1(0) ack 2 urg 9"]).tells(["Urgent"]);
}

// covers: MUST-30, MUST-62
#[test]
fn what_the_app_calls_urgent_is_flagged_until_it_is_acknowledged() {
    let mut x = Exchange::established();
    x.app_writes_urgent(500).sends(["UP. 1:501(500) ack 1 urg 500"]);
    // Behind it, nothing is urgent, though it is not acknowledged.
    x.app_sets(SocketOption::NoDelay(true)).app_writes(100).sends(["P. 501:601(100) ack 1"]);
    x.gets(["1:101(100) ack 1"]).after(40).sends([". 601:601(0) ack 101"]);
    // Sent again, it is urgent again.
    x.after(160).sends(["UP. 1:601(600) ack 101 urg 500"]);
    x.gets([". 101:101(0) ack 601"]).app_writes(10).sends(["P. 601:611(10) ack 101"]);
    assert_eq!(x.engine.counters().urgent_out, 1);
}

// covers: MUST-30
#[test]
fn nothing_is_urgent_by_default() {
    let mut x = Exchange::established();
    x.app_writes(2500).sends(["1:1001(1000)", "1001:2001(1000)"]);
    x.gets([". ack 2001"]).sends(["P. 2001:2501(500)"]);
    assert_eq!(x.engine.counters().urgent_out, 0);
}

// covers: MUST-31
#[test]
fn urgent_data_may_be_longer_than_the_field_can_say() {
    let mut x = Exchange::established().scale(4).mss(1460);
    x.app_writes_urgent(70_000);
    let sent = x.sent();
    assert_eq!(sent.len(), 10, "{sent:?}");
    // 70001 - SEG.SEQ, or as far as the field reaches.
    for (n, text) in sent.iter().enumerate() {
        let urgent = (70_000 - n * 1460).min(65_535);
        assert!(text.starts_with(".U ") && text.contains(&alloc::format!(" urg {urgent}")), "{text}");
    }
    // More of it while some is under way: the pointer moves on.
    x.app_writes_urgent(1000).gets([". ack 14601"]);
    let sent = x.sent();
    assert!(sent[0].contains("14601:16061(1460)") && sent[0].contains(" urg 56400"), "{sent:?}");
    assert_eq!(x.engine.counters().urgent_out, 2);
}

// covers: MUST-30
#[test]
fn urgent_data_waits_neither_for_nagle_nor_for_a_cork() {
    let mut x = Exchange::established();
    x.app_writes(100).sends(["P. 1:101(100)"]).app_writes(100).sends_nothing();
    x.app_writes_urgent(1).sends(["UP. 101:202(101) ack 1 urg 101"]);
    x.gets([". ack 202"]).app_sets(SocketOption::Cork(true)).app_writes(10).sends_nothing();
    x.app_writes_urgent(1).sends(["UP. 202:213(11) ack 1 urg 11"]);
}

// covers: MUST-30
#[test]
fn the_pointer_goes_ahead_of_data_that_the_window_does_not_let_out() {
    let mut x = Exchange::established().window(0);
    x.app_writes_urgent(100).sends_nothing();
    x.gets(["1:11(10) ack 1 win 0"]).after(40).sends(["U. 1:1(0) ack 11 urg 100"]);
    x.after(160).sends(["U. 1:2(1) ack 11 urg 100"]);
    x.gets([". 11:11(0) ack 1 win 1000"]).sends(["UP. 1:101(100) ack 11 urg 100"]);
}
