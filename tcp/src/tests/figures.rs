//! What an engine counts of all its connections for people.

use crate::describe::{CongestionState, RecoveryPhase};
use crate::testing::Exchange;

fn state(x: &Exchange) -> CongestionState {
    let mut states = (0..x.engine.connection_slot_end()).filter_map(|slot| x.engine.congestion_at_slot(slot));
    let state = states.next().expect("a connection");
    assert_eq!(states.next(), None);
    state
}

#[test]
fn every_round_trip_sample_is_counted_once() {
    for mut x in [Exchange::established().rtt_ms(30), Exchange::connected().rtt_ms(30)] {
        let first = x.info().srtt.expect("the handshake measured").as_micros();
        assert_eq!((x.engine.round_trips().count(), u128::from(x.engine.round_trips().sum())), (1, first));
        x.app_writes(100).sends(["P. 1:101(100)"]).after(50).gets([". ack 101"]);
        assert_eq!((x.engine.round_trips().count(), x.engine.round_trips().max()), (2, 50_000));
        // Karn: what was sent again measures nothing.
        x.app_writes(100).sends(["P. 101:201(100)"]).after(1000).gets([". ack 201"]);
        assert!(x.engine.counters().retransmitted_segments > 0);
        assert_eq!(x.engine.round_trips().count(), 2);
    }
}

#[test]
fn congestion_states_are_those_of_the_connection() {
    let mut x = Exchange::established();
    x.app_writes(6000);
    let start = state(&x);
    assert_eq!((start.is_slow_start, start.recovery, start.pacing_rate), (true, RecoveryPhase::Open, None));
    assert_eq!((start.cwnd, start.flight, start.algorithm), (x.info().cwnd, 6000, x.info().congestion));
    x.gets([". ack 1", ". ack 1", ". ack 1"]);
    assert_eq!((state(&x).recovery, state(&x).is_slow_start), (RecoveryPhase::Fast, false));
    x.gets([". ack 6001"]);
    assert_eq!((state(&x).recovery, state(&x).is_slow_start), (RecoveryPhase::Open, false));
    x.app_writes(1000).after(2000);
    assert_eq!(state(&x).recovery, RecoveryPhase::Loss);
}

#[test]
fn ends_by_a_reset_of_the_peers_or_a_timeout_are_failures_and_others_are_not() {
    let failed = |x: &Exchange| (x.engine.counters().failed, x.engine.counters().closed);
    let mut x = Exchange::established();
    x.gets(["R 1:1(0)"]);
    assert_eq!(failed(&x), (1, 1));
    let mut x = Exchange::established().config(|config| config.retransmits_max = 1);
    x.app_writes(100).after(10_000);
    assert_eq!(failed(&x), (1, 1));
    let mut x = Exchange::established();
    x.app_resets();
    assert_eq!(failed(&x), (0, 1));
    let mut x = Exchange::last_ack();
    x.gets([". 2:2(0) ack 2"]);
    assert_eq!(failed(&x), (0, 1));
}
