//! The flight against a naive model: one record a byte.

use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Byte {
    at: u64,
    is_sacked: bool,
    is_lost: bool,
    is_out: bool,
    is_repeated: bool,
}

/// Bytes from SND.UNA on.
struct Model {
    una: SeqNum,
    bytes: Vec<Byte>,
}

impl Model {
    fn check(&self, flight: &Flight) {
        let nxt = self.una + self.bytes.len() as u32;
        flight.check_consistency(self.una, nxt);
        let mut seen = Vec::new();
        for (start, sent) in flight.iter() {
            for _ in 0..sent.end.since(start) {
                seen.push(Byte {
                    at: sent.sent_at.as_micros(),
                    is_sacked: sent.is_sacked,
                    is_lost: sent.is_lost,
                    is_out: sent.is_out,
                    is_repeated: sent.is_repeated,
                });
            }
        }
        assert_eq!(seen.len(), self.bytes.len());
        for (n, (mine, theirs)) in seen.iter().zip(&self.bytes).enumerate() {
            if theirs.is_sacked {
                assert!(mine.is_sacked && !mine.is_lost && !mine.is_out, "byte {n}");
            } else {
                assert_eq!(mine, theirs, "byte {n}");
            }
        }
        let count = |is: fn(&Byte) -> bool| self.bytes.iter().filter(|b| is(b)).count() as u32;
        assert_eq!(flight.sacked(), count(|b| b.is_sacked));
        assert_eq!(flight.lost(), count(|b| b.is_lost));
        assert_eq!(flight.out(), count(|b| b.is_out));
        assert_eq!(flight.pipe(), count(|b| !b.is_sacked && (!b.is_lost || b.is_out)));
        let wants = |b: &Byte| b.is_lost && !b.is_out;
        assert_eq!(
            flight.next_lost(u32::MAX).map(|(seq, _)| seq.since(self.una) as usize),
            self.bytes.iter().position(wants)
        );
        assert_eq!(flight.has_reneged(), self.bytes.first().is_some_and(|b| b.is_sacked));
        assert_eq!(
            flight.last_unsacked(1).map(|(seq, _)| seq.since(self.una) as usize),
            self.bytes.iter().rposition(|b| !b.is_sacked)
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(u32),
    Tick,
    Acknowledge(u32),
    Sack(u32, u32),
    Lose(u32, u64),
    LoseFirst(u32),
    Again(u32),
    ProbeTail(u32),
    Retract(u32),
    Forget,
    Unmark,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u32..40).prop_map(Step::Push),
        4 => Just(Step::Tick),
        2 => (0u32..60).prop_map(Step::Acknowledge),
        6 => (0u32..200, 1u32..40).prop_map(|(a, b)| Step::Sack(a, b)),
        3 => (0u32..200, 0u64..20).prop_map(|(a, b)| Step::Lose(a, b)),
        1 => (1u32..30).prop_map(Step::LoseFirst),
        4 => (1u32..30).prop_map(Step::Again),
        1 => (1u32..30).prop_map(Step::ProbeTail),
        1 => (1u32..10).prop_map(Step::Retract),
        1 => Just(Step::Forget),
        1 => Just(Step::Unmark),
    ]
}

proptest! {
    #[test]
    fn ranges_say_what_bytes_would(isn in any::<u32>(), steps in prop::collection::vec(step(), 1..120)) {
        let una = SeqNum(isn);
        let mut flight = Flight::new();
        flight.reset(una);
        let mut model = Model { una, bytes: Vec::new() };
        let mut at = 0;
        for step in steps {
            let now = Instant::from_micros(at);
            let len = model.bytes.len() as u32;
            let nxt = model.una + len;
            match step {
                Step::Push(count) => {
                    flight.push(Sent::new(nxt + count, now, Snapshot::default()));
                    let new = Byte { at, is_sacked: false, is_lost: false, is_out: false, is_repeated: false };
                    model.bytes.extend((0..count).map(|_| new));
                }
                Step::Tick => at += 1,
                Step::Acknowledge(count) => {
                    let count = count.min(len);
                    let (mut told, mut told_sacked) = (0, 0);
                    flight.acknowledge(model.una + count, |sent, len| {
                        told += len;
                        told_sacked += if sent.is_sacked { len } else { 0 };
                    });
                    let gone: Vec<Byte> = model.bytes.drain(..count as usize).collect();
                    model.una += count;
                    prop_assert_eq!(told, count);
                    prop_assert_eq!(told_sacked as usize, gone.iter().filter(|b| b.is_sacked).count());
                }
                Step::Sack(from, count) if from < len => {
                    let end = (from + count).min(len);
                    let mut told = 0;
                    flight.sack(model.una + from, model.una + end, 1000, |_, len| told += len);
                    let mut new = 0;
                    for byte in &mut model.bytes[from as usize..end as usize] {
                        new += u32::from(!byte.is_sacked);
                        (byte.is_sacked, byte.is_lost, byte.is_out) = (true, false, false);
                    }
                    prop_assert_eq!(told, new);
                }
                Step::Lose(until, age) => {
                    // By whole ranges, which share a time.
                    let is_lost = |sent_at: u64| sent_at + age <= at;
                    let until = model.una + until.min(len);
                    let mut told = 0;
                    let bytes = flight.mark_lost(
                        until,
                        |_, sent| is_lost(sent.sent_at.as_micros()),
                        |_, len| told += len,
                    );
                    prop_assert_eq!(bytes, told);
                    let mut new = 0;
                    let ends: Vec<(SeqNum, SeqNum)> =
                        flight.iter().map(|(start, sent)| (start, sent.end)).collect();
                    for (start, end) in ends {
                        if !start.before(until) {
                            break;
                        }
                        let (a, b) = (start.since(model.una) as usize, end.since(model.una) as usize);
                        for byte in &mut model.bytes[a..b] {
                            if !byte.is_sacked && (!byte.is_lost || byte.is_out) && is_lost(byte.at) {
                                (byte.is_lost, byte.is_out) = (true, false);
                                new += 1;
                            }
                        }
                    }
                    prop_assert_eq!(bytes, new);
                }
                Step::LoseFirst(count) if len > 0 && !model.bytes[0].is_sacked && !model.bytes[0].is_lost => {
                    // It marks whole ranges but for the first, which it splits.
                    let first = flight.first().map_or(0, |first| first.end.since(model.una));
                    let count = count.min(first);
                    flight.mark_first_lost(count);
                    for byte in &mut model.bytes[..count as usize] {
                        byte.is_lost = true;
                    }
                }
                Step::Again(most) => {
                    if let Some((seq, len)) = flight.next_lost(most) {
                        flight.on_retransmitted(seq, len, now, Snapshot::default());
                        let first = seq.since(model.una) as usize;
                        for byte in &mut model.bytes[first..first + len as usize] {
                            prop_assert!(byte.is_lost && !byte.is_out && !byte.is_sacked);
                            (byte.at, byte.is_out, byte.is_repeated) = (at, true, true);
                        }
                    }
                }
                Step::ProbeTail(most) => {
                    if let Some((seq, len)) = flight.last_unsacked(most) {
                        flight.on_retransmitted(seq, len, now, Snapshot::default());
                        let first = seq.since(model.una) as usize;
                        for byte in &mut model.bytes[first..first + len as usize] {
                            prop_assert!(!byte.is_sacked);
                            (byte.at, byte.is_repeated) = (at, true);
                            byte.is_out |= byte.is_lost;
                        }
                    }
                }
                Step::Retract(count) => {
                    let count = count.min(len);
                    if count > 0 {
                        flight.retract(count);
                        model.bytes.truncate((len - count) as usize);
                    }
                }
                Step::Forget => {
                    flight.forget_sacked();
                    // What was SACKed has no history of its own any more: the model takes the flight's.
                    let mut n = 0;
                    for (start, sent) in flight.iter() {
                        for _ in 0..sent.end.since(start) {
                            let byte = &mut model.bytes[n];
                            if byte.is_sacked {
                                byte.is_sacked = false;
                                (byte.at, byte.is_repeated) = (sent.sent_at.as_micros(), sent.is_repeated);
                            }
                            n += 1;
                        }
                    }
                }
                Step::Unmark => {
                    flight.unmark_lost();
                    for byte in &mut model.bytes {
                        (byte.is_lost, byte.is_out) = (false, false);
                    }
                }
                Step::Sack(..) | Step::LoseFirst(_) => {}
            }
            model.check(&flight);
        }
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
