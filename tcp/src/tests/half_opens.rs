//! Active opens: SYN-SENT on main, the hand-over, simultaneous opens.

use hoststack_transport::{ConnectFailure, Duration};

use crate::drop_reason::DropReason;
use crate::seed::IcmpError;
use crate::state::State;
use crate::testing::Exchange;
use hoststack_transport::SocketOptions;

// covers: MUST-14, MAY-3
#[test]
fn syn_carries_every_option_that_is_wanted() {
    let mut x = Exchange::closed().options(|options| *options = SocketOptions::default());
    x.app_connects(Duration::from_secs(9)).takes_iss();
    let syn = x.sent().concat();
    assert!(syn.starts_with("S 0:0(0) win 65535 <mss 1460,sackOK,TS val "), "{syn}");
    assert!(syn.ends_with(" ecr 0,nop,wscale 3>"), "{syn}");
    let mut x = Exchange::closed().options(|options| {
        *options = SocketOptions { window_scale: false, timestamps: false, sack: false, ..*options }
    });
    x.app_connects(Duration::from_secs(9)).takes_iss();
    assert_eq!(x.sent(), ["S 0:0(0) win 65535 <mss 1460>"]);
}

// covers: MUST-22
#[test]
fn syn_is_sent_again_with_back_off_until_the_deadline() {
    let mut x = Exchange::syn_sent();
    for second in [1, 2, 4, 8] {
        x.sends_nothing_for(second * 1000 - 1).after(1).sends(["S 0:0(0)"]);
    }
    x.after(14_999).sends_nothing().after(1).sends_nothing().is_in(State::Closed).tells(["FlowGone"]);
    assert_eq!(x.outcomes, [Err(ConnectFailure::TimedOut)]);
    assert_eq!((x.deleted, x.half_opens.len(), x.counts().flows), (1, 0, 0));
}

// covers: MUST-22
#[test]
fn syn_gives_up_by_itself_when_the_deadline_is_far() {
    let mut x = Exchange::closed().config(|config| config.syn_retries = 2);
    x.app_connects(Duration::from_secs(3600)).after(6999);
    assert_eq!(x.sent().len(), 3);
    assert!(x.outcomes.is_empty());
    x.after(1);
    assert_eq!(x.outcomes, [Err(ConnectFailure::TimedOut)]);
}

#[test]
fn syn_ack_establishes_and_the_app_s_first_data_carries_the_ack() {
    let mut x = Exchange::syn_sent();
    x.after(20).gets(["S. 0:0(0) ack 1 win 5000 <mss 700>"]).sends([". 1:1(0) ack 1"]).tells(["Connected"]);
    assert_eq!((x.outcomes.as_slice(), x.deleted), ([Ok(())].as_slice(), 1));
    let info = x.info();
    assert_eq!((info.mss, info.snd_wnd, info.srtt), (700, 5000, Some(Duration::from_millis(20))));
}

#[test]
fn options_hold_only_when_both_ends_offered_them() {
    let mut x = Exchange::closed().options(|options| *options = SocketOptions::default());
    x.app_connects(Duration::from_secs(9))
        .takes_iss()
        .gets(["S. 0:0(0) ack 1 win 5000 <mss 700,nop,wscale 2>"]);
    let info = x.info();
    assert_eq!((info.timestamps, info.sack, info.snd_scale, info.rcv_scale), (false, false, 2, 3));
    assert_eq!(info.snd_wnd, 5000, "the window of a SYN-ACK is not scaled");
    let mut x = Exchange::closed().options(|options| *options = SocketOptions::default());
    x.app_connects(Duration::from_secs(9))
        .takes_iss()
        .gets(["S. 0:0(0) ack 1 win 5000 <mss 700,sackOK,TS val 5 ecr 1>"]);
    let info = x.info();
    assert_eq!((info.timestamps, info.sack, info.snd_scale, info.rcv_scale), (true, true, 0, 0));
    assert_eq!((info.mss, info.ts_recent), (688, 5));
}

#[test]
fn a_reset_refuses_and_cleans_up() {
    let mut x = Exchange::syn_sent();
    x.gets(["R. 0:0(0) ack 1"]).tells(["FlowGone"]).sends_nothing();
    assert_eq!((x.outcomes.as_slice(), x.deleted), ([Err(ConnectFailure::Refused)].as_slice(), 1));
    assert_eq!(x.half_opens.armed_timers(), 0);
}

#[test]
fn what_comes_while_main_decides_is_parked_and_lost_is_nothing() {
    let mut x = Exchange::syn_sent();
    x.is_main_slow = true;
    x.gets(["S. 0:0(0) ack 1 win 5000 <mss 700>", "P. 1:101(100) ack 1", "S. 0:0(0) ack 1 win 5000"])
        .sends_nothing();
    assert_eq!(x.counts().half_open_entries, 1);
    x.main_catches_up().tells(["Connected", "Received"]).sends([". 1:1(0) ack 101"]);
    assert_eq!(x.counts().half_open_entries, 0);
}

#[test]
fn a_syn_is_not_sent_again_once_an_answer_is_on_its_way_to_main() {
    let mut x = Exchange::syn_sent();
    x.is_main_slow = true;
    x.gets(["S. 0:0(0) ack 1 win 5000 <mss 700>"]).after(1000).main_catches_up().sends([". 1:1(0) ack 1"]);
}

// covers: MUST-56, SHLD-25
#[test]
fn an_unreachable_is_remembered_as_the_cause_and_aborts_by_option() {
    let mut x = Exchange::syn_sent();
    x.gets_icmp(0, IcmpError::PortUnreachable).after(30_000);
    assert_eq!(x.outcomes, [Err(ConnectFailure::Unreachable)]);
    let mut x = Exchange::syn_sent().options(|options| options.abort_on_icmp = true);
    x.gets_icmp(5, IcmpError::Unreachable).dropped(DropReason::IcmpOutOfWindow, 1);
    assert!(x.outcomes.is_empty());
    x.gets_icmp(0, IcmpError::Unreachable);
    assert_eq!(x.outcomes, [Err(ConnectFailure::Unreachable)]);
}

// covers: MUST-10
#[test]
fn syns_that_cross_establish_with_one_syn_ack_each() {
    let mut x = Exchange::syn_sent();
    x.gets(["S 0:0(0) win 5000 <mss 700>"]).sends(["S. 0:0(0) ack 1"]).is_in(State::SynReceived).tells([]);
    x.after(999).sends_nothing().after(1).sends(["S. 0:0(0) ack 1"]);
    x.gets(["S. 0:0(0) ack 1 win 5000 <mss 700>"]).tells(["Connected"]).is_in(State::Established);
    x.sends([". 1:1(0) ack 1"]);
}

#[test]
fn crossed_syns_that_are_reset_end_before_they_are_connected() {
    let mut x = Exchange::crossed_syns();
    x.gets(["R 1:1(0)"]).tells(["Closed: reset by the peer", "FlowGone"]).is_in(State::Closed);
}

#[test]
fn a_full_pool_resets_the_peer_that_answered() {
    let mut x = Exchange::closed().config(|config| config.connections_max = 0);
    x.app_connects(Duration::from_secs(9)).takes_iss().sends(["S 0:0(0)"]);
    x.gets(["S. 0:0(0) ack 1 win 5000"]).sends(["R. 1:1(0) ack 1"]).tells(["FlowGone"]);
    assert_eq!(x.outcomes, [Err(ConnectFailure::NoRoom)]);
    assert_eq!(x.counts().flows, 0);
}

#[test]
fn the_half_open_pool_is_bounded() {
    let mut x = Exchange::closed().config(|config| config.half_opens_max = 0);
    x.app_connects(Duration::from_secs(9)).sends_nothing();
    assert_eq!((x.half_opens.len(), x.counts().flows), (0, 0));
}

// covers: H34, H50
#[test]
fn a_half_open_that_is_cleaned_up_stays_silent_until_it_is_settled() {
    let mut x = Exchange::syn_sent();
    let id = x.half_opens.at_slot(0).expect("the first slot").half_open;
    x.half_opens.cleanup(id);
    assert_eq!((x.half_opens.len(), x.half_opens.armed_timers()), (1, 0));
    x.gets(["R. 0:0(0) ack 1"]).after(60_000).sends_nothing();
    assert!(x.outcomes.is_empty());
    assert_eq!(x.half_opens.counters().stale, 1);
    let mut actions = alloc::vec::Vec::new();
    x.half_opens.settled(id, &mut actions);
    x.half_opens.settled(id, &mut actions);
    assert_eq!((actions.len(), x.half_opens.len()), (1, 0), "deleted exactly once");
}

#[test]
fn a_second_open_of_a_flow_in_use_is_refused() {
    let mut x = Exchange::connected();
    x.app_connects(Duration::from_secs(9)).sends_nothing();
    assert_eq!(x.outcomes, [Err(ConnectFailure::AddressInUse)]);
    x.is_in(State::Established).tells([]);
}
