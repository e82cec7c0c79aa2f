//! The flight against a naive model: random steps, and what the model does not see.

use super::model::{FlightStep, check_flight};
use super::*;
use proptest::prelude::*;
use std::vec;

fn step() -> impl Strategy<Value = FlightStep> {
    prop_oneof![
        4 => (1u32..40).prop_map(FlightStep::Push),
        4 => Just(FlightStep::Tick),
        2 => (0u32..60).prop_map(FlightStep::Acknowledge),
        6 => (0u32..200, 1u32..40).prop_map(|(a, b)| FlightStep::Sack(a, b)),
        3 => (0u32..200, 0u64..20).prop_map(|(a, b)| FlightStep::Lose(a, b)),
        1 => (1u32..30).prop_map(FlightStep::LoseFirst),
        4 => (1u32..30).prop_map(FlightStep::Again),
        1 => (1u32..30).prop_map(FlightStep::ProbeTail),
        1 => (1u32..10).prop_map(FlightStep::Retract),
        1 => Just(FlightStep::Forget),
        1 => Just(FlightStep::Unmark),
    ]
}

proptest! {
    #[test]
    fn ranges_say_what_bytes_would(isn in any::<u32>(), steps in prop::collection::vec(step(), 1..120)) {
        check_flight(isn, &steps);
    }
}

#[test]
fn what_is_sent_at_one_time_is_one_range_and_sacked_neighbours_are_one() {
    let mut flight = Flight::new();
    flight.reset(SeqNum(0));
    for n in 1..=10u32 {
        flight.push(Sent::new(SeqNum(n * 100), Instant::from_micros(u64::from(n / 6)), Snapshot::default()));
    }
    assert_eq!(flight.len(), 2);
    flight.sack(SeqNum(300), SeqNum(400), 100, |_, _| ());
    flight.sack(SeqNum(600), SeqNum(700), 100, |_, _| ());
    assert_eq!((flight.len(), flight.sacked_ranges()), (6, 2));
    flight.sack(SeqNum(400), SeqNum(600), 100, |_, _| ());
    assert_eq!((flight.len(), flight.sacked_ranges(), flight.sacked()), (3, 1, 400));
}

#[test]
fn first_bytes_that_end_inside_the_second_range_are_lost_and_no_more() {
    let mut flight = Flight::new();
    flight.reset(SeqNum(0));
    flight.push(Sent::new(SeqNum(100), Instant::ZERO, Snapshot::default()));
    flight.push(Sent::new(SeqNum(10_000), Instant::from_micros(1), Snapshot::default()));
    flight.mark_first_lost(150);
    assert_eq!((flight.lost(), flight.len()), (150, 3));
}

#[test]
fn a_peer_that_sacks_ever_smaller_pieces_makes_no_more_ranges_than_the_limit() {
    let mut flight = Flight::new();
    flight.reset(SeqNum(0));
    flight.push(Sent::new(SeqNum(100_000), Instant::ZERO, Snapshot::default()));
    for n in 0..40_000 {
        flight.sack(SeqNum(2 * n + 1), SeqNum(2 * n + 2), 50, |_, _| ());
    }
    assert!(flight.len() <= 51, "{} ranges", flight.len());
    flight.check_consistency(SeqNum(0), SeqNum(100_000));
    // What needs no new range is taken all the same.
    flight.sack(SeqNum(1), SeqNum(100_000), 50, |_, _| ());
    assert_eq!(flight.sacked(), 99_999);
}
