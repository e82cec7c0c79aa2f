//! Explicit congestion notification (RFC 3168).

use hoststack_transport::{EcnMode, SocketOption};

use crate::config::SynCookies;
use crate::testing::Exchange;

// covers: SHLD-8
#[test]
fn a_peer_that_asks_for_it_gets_it_unless_it_is_off() {
    let mut x = Exchange::listen();
    x.gets(["SEW 0:0(0) win 65535 <mss 1000>"]);
    assert_eq!(x.sent().last().map(|syn_ack| syn_ack.starts_with("S.E ")), Some(true));
    assert!(Exchange::established().ecn().stats().ecn);
    let mut x = Exchange::listen().options(|o| o.ecn = EcnMode::Off);
    x.gets(["SEW 0:0(0) win 65535 <mss 1000>"]);
    assert_eq!(x.sent().last().map(|syn_ack| syn_ack.starts_with("S. ")), Some(true));
    assert!(!Exchange::established().ecn().options(|o| o.ecn = EcnMode::Off).stats().ecn);
}

#[test]
fn a_syn_that_does_not_ask_is_not_answered_with_it() {
    for syn in
        ["S 0:0(0) win 65535 <mss 1000>", "SE 0:0(0) win 65535 <mss 1000>", "SW 0:0(0) win 65535 <mss 1000>"]
    {
        let mut x = Exchange::listen();
        x.gets([syn]);
        assert_eq!(x.sent().last().map(|syn_ack| syn_ack.starts_with("S. ")), Some(true), "{syn}");
    }
}

#[test]
fn our_syn_asks_only_if_told_to_and_only_the_first_time() {
    let mut x = Exchange::closed();
    x.app_connects(core::time::Duration::from_secs(30));
    assert!(x.sent()[0].starts_with("S 0"));
    let mut x = Exchange::closed().options(|o| o.ecn = EcnMode::Request);
    x.app_connects(core::time::Duration::from_secs(30));
    assert!(x.sent()[0].starts_with("SEW 0"));
    x.after(1000);
    assert!(x.sent()[0].starts_with("S 0"), "RFC 3168 §6.1.1.1: not when it is sent again");
}

#[test]
fn a_syn_ack_agrees_with_echo_and_without_reduced() {
    for (syn_ack, agrees) in [("S.E", true), ("S.", false), ("S.EW", false)] {
        let mut x = Exchange::syn_sent().options(|o| o.ecn = EcnMode::Request);
        x.gets([&*std::format!("{syn_ack} 0:0(0) ack 1 win 65535 <mss 1000>")]);
        assert_eq!(x.stats().ecn, agrees, "{syn_ack}");
    }
}

#[test]
fn new_data_may_be_marked_and_nothing_else() {
    let mut x = Exchange::established().ecn();
    x.app_writes(1000);
    assert_eq!(x.sent_tos(), [2]);
    // Sent again, an acknowledgment, a FIN of its own.
    x.after(300);
    assert_eq!(x.sent_tos(), [0]);
    x.gets(["P. 1:11(10) ack 1001"]).after(50);
    assert_eq!(x.sent_tos(), [0]);
    x.app_half_closes();
    assert_eq!(x.sent_tos(), [0]);
    let mut x = Exchange::established();
    x.app_writes(1000);
    assert_eq!(x.sent_tos(), [0]);
}

#[test]
fn a_mark_is_echoed_until_the_peer_says_that_it_answered() {
    let mut x = Exchange::established().ecn();
    x.peer_ecn = 3;
    x.gets(["P. 1:11(10) ack 1"]).sends([".E 1:1(0) ack 11"]);
    x.peer_ecn = 2;
    x.gets(["P. 11:21(10) ack 1"]).after(50).sends([".E 1:1(0) ack 21"]);
    // On data as well.
    x.app_writes(10).sends(["P.E 1:11(10) ack 21"]);
    x.gets(["P.W 21:31(10) ack 11"]).sends([". 11:11(0) ack 31"]);
    // A mark on the segment that answers is a new one.
    x.peer_ecn = 3;
    x.gets(["P.W 31:41(10) ack 11"]).sends([".E 11:11(0) ack 41"]);
    assert_eq!(x.engine.counters().ce_in, 2);
}

#[test]
fn an_echo_reduces_the_window_once_a_round_trip_and_is_answered_on_new_data() {
    let mut x = Exchange::established().ecn();
    x.app_writes(20_000);
    assert_eq!(x.sent().len(), 10);
    x.gets([".E ack 1001"]);
    assert_eq!((x.info().cwnd, x.info().recovery), (5_000, "open"));
    assert_eq!(x.stats().delivered_ce, 1);
    x.gets([".E ack 2001", ".E ack 3001"]);
    assert_eq!(x.info().cwnd, 5_000, "once per window of data");
    x.gets([". ack 6001"]);
    let sent = x.sent();
    assert!(sent[0].starts_with(".W 10001:11001"), "{sent:?}");
    x.gets([". ack 10001"]);
    assert!(x.sent().iter().all(|segment| !segment.contains('W')), "once");
    x.gets([".E ack 11001"]);
    assert!(x.info().cwnd < 5_000, "a new round trip, a new reduction");
}

#[test]
fn without_agreement_marks_and_echoes_mean_nothing() {
    let mut x = Exchange::established();
    x.peer_ecn = 3;
    x.gets(["P. 1:11(10) ack 1"]).after(50).sends([". 1:1(0) ack 11"]);
    x.app_writes(5_000);
    x.sent();
    let before = x.info().cwnd;
    x.gets([".E ack 1001"]);
    assert!(x.info().cwnd >= before);
}

// covers: MUST-48, SHLD-21, SHLD-22
#[test]
fn the_differentiated_services_field_is_the_apps_and_may_change() {
    let mut x = Exchange::established().options(|o| (o.dscp, o.nodelay) = (46, true));
    x.app_writes(10);
    assert_eq!(x.sent_tos(), [46 << 2]);
    x.app_sets(SocketOption::Dscp(8)).app_writes(10);
    assert_eq!(x.sent_tos(), [8 << 2]);
    let mut x = Exchange::closed().options(|o| o.dscp = 46);
    x.app_connects(core::time::Duration::from_secs(30));
    assert_eq!(x.sent_tos(), [46 << 2]);
    let mut x = Exchange::listen().options(|o| o.dscp = 46);
    x.gets(["S 0:0(0) win 65535 <mss 1000>"]);
    assert_eq!(x.sent_tos(), [46 << 2]);
}

// covers: MUST-49
#[test]
fn the_time_to_live_is_the_apps_and_may_change() {
    let mut x = Exchange::established();
    x.app_writes(10);
    assert_eq!(x.sent_ttls(), [64]);
    let mut x = Exchange::established().options(|o| (o.ttl, o.nodelay) = (255, true));
    x.app_writes(10);
    assert_eq!(x.sent_ttls(), [255]);
    // What is sent again and an acknowledgment too.
    x.after(300).gets(["P. 1:11(10) ack 11"]).after(50);
    assert_eq!(x.sent_ttls(), [255, 255]);
    x.app_sets(SocketOption::Ttl(7)).app_writes(10);
    assert_eq!(x.sent_ttls(), [7]);
    // Nothing may be sent with 0 (RFC 1122 §3.2.1.7).
    x.app_sets(SocketOption::Ttl(0)).app_resets();
    assert_eq!(x.sent_ttls(), [1]);
}

// covers: MUST-49
#[test]
fn the_time_to_live_is_that_of_the_handshake_too() {
    let mut x = Exchange::closed().options(|o| o.ttl = 255);
    x.app_connects(core::time::Duration::from_secs(30)).after(1000);
    assert_eq!(x.sent_ttls(), [255, 255]);
    for always in [SynCookies::Never, SynCookies::Always] {
        let mut x = Exchange::listen().options(|o| o.ttl = 255).config(|c| c.syn_cookies = always);
        x.gets(["S 0:0(0) win 65535 <mss 1000>"]).takes_iss();
        assert_eq!(x.sent_ttls(), [255]);
        x.gets([". ack 1"]).app_writes(10);
        assert_eq!(x.sent_ttls(), [255]);
    }
    let mut x = Exchange::listen().options(|o| o.ttl = 255);
    x.gets(["S 0:0(0) win 65535 <mss 1000>"]).app_unlistens();
    assert_eq!(x.sent_ttls(), [255, 255], "the reset of what was under way");
    let mut x = Exchange::closed().options(|o| o.ttl = 255);
    x.gets(["S 0:0(0) win 65535 <mss 1000>"]);
    assert_eq!(x.sent_ttls(), [64], "no app speaks for a flow that is none");
}
