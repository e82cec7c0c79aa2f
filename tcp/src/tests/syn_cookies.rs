//! SYN cookies (RFC 4987 §3.6): a listener without room, its peers, and whoever guesses.

use hoststack_wire::parse_notation;

use crate::config::SynCookies;
use crate::drop_reason::DropReason;
use crate::state::State;
use crate::testing::Exchange;

/// A listener that keeps no state of a SYN.
fn stateless() -> Exchange {
    Exchange::listen().config(|config| config.syn_cookies = SynCookies::Always)
}

/// It answered the SYN of a peer with this option list.
fn answered(mut x: Exchange, options: &str) -> Exchange {
    x.gets([&alloc::format!("S 0:0(0) win 1000 <{options}>")]).takes_iss();
    assert_eq!((x.counts().syn_received, x.counts().flows), (0, 0));
    x
}

#[test]
fn the_ack_of_a_cookie_makes_a_connection_and_nothing_was_kept() {
    let mut x = answered(stateless(), "mss 900");
    assert_eq!(x.sent(), ["S. 0:0(0) ack 1 win 65535 <mss 1460>"]);
    assert_eq!(x.engine.armed_timers(), 0);
    x.after(30).gets([". ack 1 win 3000"]).is_in(State::Established).tells(["Accepted"]).sends_nothing();
    let info = x.info();
    assert_eq!((info.mss, info.snd_wnd, info.srtt, info.timestamps), (536, 3000, None, false));
    x.app_writes(600).sends([". 1:537(536) ack 1"]);
    assert_eq!((x.engine.counters().syn_cookies_out, x.engine.counters().syn_cookies_in), (1, 1));
}

#[test]
fn data_on_the_ack_is_taken() {
    let mut x = answered(stateless(), "mss 1460");
    x.sent();
    x.gets(["P. 1:101(100) ack 1"]).tells(["Accepted", "Received"]).after(40).sends([". 1:1(0) ack 101"]);
}

#[test]
fn what_the_peer_offered_comes_back_in_the_echo_of_a_timestamp() {
    for (offered, scale, sack) in
        [("", 0, false), (",nop,wscale 7", 7, false), (",sackOK,nop,wscale 14", 14, true)]
    {
        let x = stateless().options(|options| {
            options.window_scale = true;
            options.rx_window = 400_000;
        });
        let mut x = answered(x, &alloc::format!("mss 1460,TS val 77 ecr 0{offered}"));
        let syn_ack = x.sent().concat();
        let noted = parse_notation(&syn_ack).expect("a segment");
        let ts = noted.options.timestamps.expect("it echoes");
        assert_eq!((ts.ecr, noted.options.sack_permitted), (77, sack));
        assert_eq!(noted.options.window_scale, (scale > 0).then_some(3), "{syn_ack}");
        x.gets([&alloc::format!(". ack 1 win 100 <TS val 80 ecr {}>", ts.val)]).is_in(State::Established);
        let info = x.info();
        assert_eq!((info.timestamps, info.sack, info.snd_scale), (true, sack, scale));
        assert_eq!((info.ts_recent, info.snd_wnd, info.mss), (80, 100 << scale, 1448));
        // Later values do not undercut the one of the SYN-ACK.
        x.app_writes(10);
        let sent = x.out.sent.back().and_then(|sent| sent.header.options.timestamps).expect("it has one");
        assert!(sent.val.wrapping_sub(ts.val) < 1000);
    }
}

#[test]
fn without_timestamps_nothing_is_offered_that_could_not_be_kept() {
    let x = stateless().options(|options| options.window_scale = true);
    let mut x = answered(x, "mss 1460,nop,nop,sackOK,nop,wscale 7");
    assert_eq!(x.sent(), ["S. 0:0(0) ack 1 win 65535 <mss 1460>"]);
    x.gets([". ack 1 win 100"]);
    let info = x.info();
    assert_eq!((info.sack, info.snd_scale, info.rcv_scale, info.snd_wnd), (false, 0, 0, 100));
}

#[test]
fn a_full_backlog_or_pool_answers_with_cookies_by_default() {
    let mut full_pool = Exchange::listen().config(|config| config.syn_received_max = 0);
    full_pool.gets(["S 0:0(0) win 1000 <mss 1460>"]).takes_iss().sends(["S. 0:0(0) ack 1"]);
    full_pool.gets([". ack 1"]).is_in(State::Established);
    let mut x = Exchange::listen().backlog(1);
    x.peer_is_at(1).gets(["S 0:0(0) win 1000 <mss 1460>"]).sends(["S. 0:0(0) ack 1"]);
    x.peer_is_at(2).gets(["S 0:0(0) win 1000 <mss 1460>"]).takes_iss();
    assert_eq!((x.counts().syn_received, x.engine.counters().syn_cookies_out), (1, 1));
    x.gets([". ack 1"]).is_in(State::Established).dropped(DropReason::BacklogFull, 0);
}

#[test]
fn what_is_no_cookie_is_reset_unless_cookies_are_out() {
    let mut x = Exchange::listen();
    x.gets([". 1:1(0) ack 1"]).dropped(DropReason::ListenAck, 1).dropped(DropReason::SynCookieBad, 0);
    x.sends(["R 1:1(0)"]);
    let mut x = answered(stateless(), "mss 1460");
    x.sent();
    for wrong in [". 1:1(0) ack 2", ". 1:1(0) ack 0", ". 2:2(0) ack 1", ". 0:0(0) ack 1"] {
        x.gets([wrong]).is_in(State::Listen).sends_nothing();
    }
    x.dropped(DropReason::SynCookieBad, 4).tells([]);
    x.gets(["S. 1:1(0) ack 1"]).dropped(DropReason::ListenAck, 1).sends(["R 1:1(0)"]);
    // Another flow's cookie is none.
    x.peer_is_at(7).gets([". ack 1"]).is_in(State::Listen).dropped(DropReason::SynCookieBad, 5);
}

#[test]
fn data_that_overtakes_the_ack_waits_for_what_proves_the_cookie() {
    let mut x = answered(stateless(), "mss 1460");
    x.sent();
    x.gets(["101:201(100) ack 1", "F. 201:201(0) ack 1"]).sends_nothing().is_in(State::Listen);
    x.dropped(DropReason::SynCookieBad, 2);
    x.gets(["1:101(100) ack 1"]).is_in(State::Established);
}

#[test]
fn an_old_ack_opens_no_second_connection() {
    let mut x = answered(stateless(), "mss 1460");
    x.gets([". ack 1"]).app_resets().is_in(State::Listen).sent();
    x.gets([". ack 1", "1:101(100) ack 1"]).sends_nothing().is_in(State::Listen);
    x.dropped(DropReason::SynCookieSpent, 2);
    // A new SYN of the same flow is another matter.
    x.gets(["S 900:900(0) win 1000 <mss 1460>"]).takes_iss().sends(["S. 0:0(0) ack 901"]);
    x.gets([". 901:901(0) ack 1"]).is_in(State::Established);
}

#[test]
fn a_cookie_is_good_for_a_minute_and_for_two_at_most() {
    let mut x = answered(stateless(), "mss 1460");
    x.after(60_000).gets([". ack 1"]).is_in(State::Established);
    let mut x = answered(stateless(), "mss 1460");
    x.sent();
    x.after(128_000).gets([". ack 1"]).is_in(State::Listen).sends(["R 1:1(0)"]);
    // One more that went out keeps the door open, but not for the old one.
    let mut x = answered(stateless(), "mss 1460");
    x.after(127_000).peer_is_at(2).gets(["S 0:0(0) win 1000 <mss 1460>"]).after(2000);
    x.peer_is_at(4000).gets([". ack 1"]).is_in(State::Listen).dropped(DropReason::SynCookieBad, 1);
}

#[test]
fn an_mss_that_no_cookie_can_say_is_not_answered() {
    let mut x = stateless();
    x.gets(["S 0:0(0) win 1000 <mss 63>"]).sends_nothing().dropped(DropReason::SynCookieImpossible, 1);
}

#[test]
fn a_flood_leaves_no_state_and_its_resets_end_nothing() {
    let mut x = stateless();
    for port in 1..500 {
        x.peer_is_at(port).gets(["S 0:0(0) win 1000 <mss 1460>"]);
        x.gets(["R 1:1(0)"]);
    }
    assert_eq!((x.counts().flows, x.engine.armed_timers()), (0, 0));
    assert_eq!(x.sent().len(), 499);
}

#[test]
fn a_full_connection_pool_resets_the_peer() {
    let mut x = answered(stateless().config(|config| config.connections_max = 0), "mss 1460");
    x.sent();
    x.gets([". ack 1"]).sends(["R 1:1(0)"]).dropped(DropReason::AcceptNoRoom, 1).is_in(State::Listen);
    assert_eq!(x.counts().flows, 0);
}

#[test]
fn a_cookie_counts_though_its_syn_found_room_when_it_came_again() {
    let syn = "S 0:0(0) win 1000 <mss 1460>";
    let mut x = Exchange::listen().backlog(1);
    x.peer_is_at(1).gets([syn]);
    x.peer_is_at(2).gets([syn]).takes_iss();
    assert_eq!(x.engine.counters().syn_cookies_out, 1);
    // Room is made, and the SYN comes again: it has a record now, with another ISS.
    x.peer_is_at(1).gets(["R 1:1(0)"]);
    x.peer_is_at(2).gets([syn]);
    assert_eq!((x.counts().syn_received, x.engine.counters().syn_cookies_out), (1, 1));
    x.sent();
    // The peer took the first answer.
    x.gets(["P. 1:101(100) ack 1"]).is_in(State::Established).tells(["Accepted", "Received"]);
    assert_eq!((x.counts().syn_received, x.counts().flows), (0, 1));
    x.after(40).sends([". 1:1(0) ack 101"]);
    // Anything else is reset as ever.
    let mut x = Exchange::listen().backlog(1);
    x.peer_is_at(1).gets([syn]);
    x.peer_is_at(2).gets([syn]).sent();
    x.peer_is_at(1).gets([". ack 1"]).sends(["R 1:1(0)"]).is_in(State::SynReceived);
}
