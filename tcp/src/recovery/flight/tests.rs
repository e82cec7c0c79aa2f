//! The flight against a naive model: random steps, and what the model does not see.

use super::model::{FlightStep, check_flight};
use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

fn step() -> impl Strategy<Value = FlightStep> {
    prop_oneof![
        4 => (1u32..40).prop_map(FlightStep::Push),
        4 => Just(FlightStep::Tick),
        2 => (0u32..60).prop_map(FlightStep::Acknowledge),
        6 => (0u32..200, 1u32..40).prop_map(|(a, b)| FlightStep::Sack(a, b)),
        3 => (0u32..200, 0u64..20).prop_map(|(a, b)| FlightStep::Lose(a, b)),
        3 => (0u64..8, 0u32..200, 0u64..12).prop_map(|(a, b, c)| FlightStep::Detect(a, b, c)),
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

fn at(us: u64) -> Instant {
    Instant::from_micros(us)
}

/// A flight of `segments` of 1000 bytes, one each microsecond from 1 on.
fn sent_one_by_one(segments: u32) -> Flight {
    let mut flight = Flight::new();
    flight.reset(SeqNum(0));
    for n in 1..=segments {
        flight.push(Sent::new(SeqNum(1000 * n), at(n.into()), Snapshot::default()));
    }
    flight
}

#[test]
fn what_an_acknowledgment_costs_depends_on_what_it_changes_and_not_on_what_is_in_flight() {
    const SEGMENTS: u32 = 100_000;
    const RTT_US: u64 = 200_000;
    let is_hole = |n: u32| n % 10 == 3;
    // Twice a reordering window, so that what is too young is looked at and left.
    for window_us in [0, 5_000] {
        let mut flight = sent_one_by_one(SEGMENTS);
        let due_us = RTT_US + window_us;
        let (mut acknowledgments, mut retransmissions, mut lost) = (0u64, 0u64, 0);
        // Each segment that arrives is SACKed by itself; every third acknowledgment lets something out again, which is
        // lost again one time in ten.
        let mut again = Vec::new();
        for n in (0..SEGMENTS).filter(|&n| !is_hole(n)) {
            let now = at(u64::from(n) + 1 + due_us);
            flight.sack(SeqNum(1000 * n), SeqNum(1000 * (n + 1)), usize::MAX, |_, _| ());
            let latest = (at(u64::from(n) + 1), SeqNum(1000 * (n + 1)));
            lost += flight.mark_lost_before(latest, now, due_us, |_, _| ()).0;
            acknowledgments += 1;
            if n % 3 == 0
                && let Some((seq, len)) = flight.next_lost(1000)
            {
                flight.on_retransmitted(seq, len, now, Snapshot::default());
                retransmissions += 1;
                again.push((seq, now));
            }
        }
        flight.check_consistency(SeqNum(0), SeqNum(1000 * SEGMENTS));
        // A round trip later: most of what was sent again is SACKed.
        for (_, (seq, sent_at)) in again.into_iter().enumerate().filter(|(n, _)| n % 10 != 0) {
            flight.sack(seq, seq + 1000, usize::MAX, |_, _| ());
            let latest = (sent_at, seq + 1000);
            lost += flight.mark_lost_before(latest, sent_at.plus_micros(due_us), due_us, |_, _| ()).0;
            acknowledgments += 1;
            let _ = flight.next_lost(1000);
        }
        // The last that was sent again and is missing is younger than what was SACKed last.
        assert!(lost >= 1000 * (SEGMENTS / 10) && retransmissions > 9_000, "{lost}, {retransmissions}");
        let looks = flight.looks.get();
        let most = 4 * (u64::from(SEGMENTS) + acknowledgments + 2 * retransmissions);
        assert!(looks <= most, "{looks} looks, at most {most} expected");
        flight.check_consistency(SeqNum(0), SeqNum(1000 * SEGMENTS));
    }
}

#[test]
fn of_what_was_sent_at_one_time_only_what_lies_below_the_latest_is_lost() {
    let mut flight = Flight::new();
    flight.reset(SeqNum(0));
    flight.push(Sent::new(SeqNum(10_000), at(1), Snapshot::default()));
    flight.sack(SeqNum(4000), SeqNum(5000), 100, |_, _| ());
    assert_eq!(flight.mark_lost_before((at(1), SeqNum(5000)), at(21), 20, |_, _| ()), (4000, None));
    assert_eq!((flight.lost(), flight.next_lost(1000)), (4000, Some((SeqNum(0), 1000))));
    // With a window nothing is due yet, and it is said when it will be.
    flight.sack(SeqNum(7000), SeqNum(8000), 100, |_, _| ());
    assert_eq!(flight.mark_lost_before((at(1), SeqNum(8000)), at(21), 25, |_, _| ()), (0, Some(5)));
    assert_eq!(flight.mark_lost_before((at(1), SeqNum(8000)), at(26), 25, |_, _| ()), (2000, None));
}

#[test]
fn what_was_sent_before_a_retransmission_that_arrived_is_lost_wherever_it_lies() {
    let mut flight = sent_one_by_one(10);
    flight.sack(SeqNum(1000), SeqNum(7000), 100, |_, _| ());
    assert_eq!(flight.mark_lost_before((at(7), SeqNum(7000)), at(107), 100, |_, _| ()), (1000, None));
    flight.on_retransmitted(SeqNum(0), 1000, at(107), Snapshot::default());
    flight.acknowledge(SeqNum(7000), |_, _| ());
    let mut lost = Vec::new();
    let found = flight
        .mark_lost_before((at(107), SeqNum(1000)), at(207), 100, |sent, len| lost.push((sent.end, len)));
    assert_eq!((found, flight.out()), ((3000, None), 0));
    assert_eq!(lost, [(SeqNum(8000), 1000), (SeqNum(9000), 1000), (SeqNum(10_000), 1000)]);
}

#[test]
fn a_range_of_which_only_a_part_is_acknowledged_is_told_as_ending_there() {
    let mut flight = Flight::new();
    flight.reset(SeqNum(0));
    flight.push(Sent::new(SeqNum(10_000), at(1), Snapshot::default()));
    let mut told = Vec::new();
    flight.acknowledge(SeqNum(2000), |sent, len| told.push((sent.end, len)));
    assert_eq!(told, [(SeqNum(2000), 2000)]);
}
