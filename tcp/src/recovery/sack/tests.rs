//! The scoreboard against RFC 6675 by example, and against a model that keeps a flag per byte.

use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const SMSS: u32 = 1000;

fn blocks(list: &[(u32, u32)]) -> Vec<(SeqNum, SeqNum)> {
    list.iter().map(|&(start, end)| (SeqNum(start), SeqNum(end))).collect()
}

/// SND.UNA 0, SND.NXT 20_000, these ranges SACKed.
fn board(list: &[(u32, u32)]) -> Scoreboard {
    let mut board = Scoreboard::new();
    board.begin_recovery(SeqNum(0), SeqNum(20_000));
    for block in blocks(list) {
        board.update(SeqNum(0), &[block], SeqNum(20_000));
    }
    board.check_consistency(SeqNum(0), SeqNum(20_000));
    board
}

fn ranges(board: &Scoreboard) -> Vec<(u32, u32)> {
    board.ranges().map(|(start, end)| (start.0, end.0)).collect()
}

fn next(board: &Scoreboard, can_send_new: bool) -> Option<NextSeg> {
    board.next_seg(SeqNum(0), SeqNum(20_000), SMSS, can_send_new)
}

fn retransmit(seq: u32, len: u32) -> Option<NextSeg> {
    Some(NextSeg::Retransmit { seq: SeqNum(seq), len })
}

#[test]
fn blocks_merge_when_they_overlap_or_touch_and_count_once() {
    let mut board = board(&[(1000, 2000), (3000, 4000), (5000, 6000)]);
    let update = board.update(SeqNum(0), &blocks(&[(2000, 5000)]), SeqNum(20_000));
    assert_eq!(update, SackUpdate { newly_sacked: 2000, duplicate: None });
    assert_eq!((ranges(&board), board.sacked_bytes()), (vec![(1000, 6000)], 5000));
    assert_eq!(board.update(SeqNum(0), &blocks(&[(1500, 3500)]), SeqNum(20_000)).newly_sacked, 0);
}

#[test]
fn blocks_beyond_what_was_sent_empty_or_reversed_are_ignored() {
    let mut board = board(&[]);
    let bad = blocks(&[(19_000, 20_001), (3000, 3000), (4000, 3000), (0x9000_0000, 0x9000_1000)]);
    assert_eq!(board.update(SeqNum(0), &bad, SeqNum(20_000)), SackUpdate::default());
    assert!(board.is_empty());
}

#[test]
fn a_first_block_below_the_ack_or_inside_the_second_reports_a_duplicate() {
    let mut board = Scoreboard::new();
    let update = board.update(SeqNum(5000), &blocks(&[(1000, 2000), (7000, 8000)]), SeqNum(20_000));
    assert_eq!(update, SackUpdate { newly_sacked: 1000, duplicate: Some((SeqNum(1000), SeqNum(2000))) });
    let update = board.update(SeqNum(5000), &blocks(&[(7000, 7500), (7000, 8000)]), SeqNum(20_000));
    assert_eq!(update, SackUpdate { newly_sacked: 0, duplicate: Some((SeqNum(7000), SeqNum(7500))) });
    let update = board.update(SeqNum(5000), &blocks(&[(7000, 9000), (1000, 2000)]), SeqNum(20_000));
    assert_eq!(update, SackUpdate { newly_sacked: 1000, duplicate: None });
}

#[test]
fn an_advance_forgets_what_is_below_and_says_what_had_been_delivered() {
    let mut board = board(&[(1000, 2000), (3000, 4000)]);
    assert_eq!(board.advance(SeqNum(3500)), 1500);
    assert_eq!(ranges(&board), vec![(3500, 4000)]);
    assert!(board.has_reneged(SeqNum(3500)));
    assert_eq!(board.high_rxt, SeqNum(3500));
    assert_eq!(board.advance(SeqNum(4000)), 500);
    assert!(board.is_empty() && !board.has_reneged(SeqNum(4000)));
}

#[test]
fn a_byte_is_lost_below_three_ranges_or_more_than_two_segments() {
    assert!(board(&[(1000, 1001), (2000, 2001), (3000, 3001)]).is_lost(SeqNum(999), SMSS));
    assert!(!board(&[(1000, 1001), (2000, 2001), (3000, 3001)]).is_lost(SeqNum(1001), SMSS));
    assert!(!board(&[(1000, 3000)]).is_lost(SeqNum(0), SMSS));
    assert!(board(&[(1000, 3001)]).is_lost(SeqNum(0), SMSS));
    assert!(board(&[(1000, 2000), (3000, 4001)]).is_lost(SeqNum(0), SMSS));
    assert!(!board(&[(1000, 2000), (3000, 4001)]).is_lost(SeqNum(2500), SMSS));
    assert!(!Scoreboard::new().is_lost(SeqNum(0), SMSS));
}

#[test]
fn recovery_fills_lost_holes_first_then_sends_new_data_then_guesses_then_rescues_once() {
    let mut board = board(&[(1000, 2000), (3500, 6000), (7000, 8000)]);
    // 0..1000 and 2000..3500 are lost, 6000..7000 is not, 8000..20000 is in flight.
    assert_eq!(board.pipe(SeqNum(0), SeqNum(20_000), SMSS), 13_000);
    for (seq, len) in [(0, 1000), (2000, 1000), (3000, 500)] {
        assert_eq!(next(&board, true), retransmit(seq, len));
        board.on_retransmitted(SeqNum(seq), len);
    }
    assert_eq!(board.pipe(SeqNum(0), SeqNum(20_000), SMSS), 15_500);
    assert_eq!(next(&board, true), Some(NextSeg::New));
    assert_eq!(next(&board, false), retransmit(6000, 1000));
    board.on_retransmitted(SeqNum(6000), 1000);
    assert_eq!(next(&board, false), Some(NextSeg::Rescue { seq: SeqNum(19_000), len: 1000 }));
    board.on_rescued();
    assert_eq!(board.high_rxt, SeqNum(7000));
    assert_eq!(next(&board, false), None);
}

#[test]
fn a_rescue_takes_the_highest_hole_when_the_tail_is_sacked_and_only_what_the_hole_has() {
    let mut board = board(&[(1000, 2000), (2300, 20_000)]);
    board.on_retransmitted(SeqNum(2000), 300);
    assert_eq!(next(&board, false), Some(NextSeg::Rescue { seq: SeqNum(2000), len: 300 }));
    let all = self::board(&[(0, 20_000)]);
    assert_eq!(next(&all, false), None);
}

#[test]
fn after_a_timeout_all_that_is_not_sacked_goes_out_again_in_order() {
    let mut board = board(&[(1000, 2000)]);
    board.on_rto(SeqNum(0), SeqNum(3500));
    assert_eq!(board.pipe(SeqNum(0), SeqNum(3500), SMSS), 0);
    let mut sent = Vec::new();
    while let Some(NextSeg::Retransmit { seq, len }) = board.next_seg(SeqNum(0), SeqNum(3500), SMSS, false) {
        sent.push((seq.0, len));
        board.on_retransmitted(seq, len);
    }
    assert_eq!(sent, [(0, 1000), (2000, 1000), (3000, 500)]);
    assert_eq!(board.pipe(SeqNum(0), SeqNum(3500), SMSS), 2500);
    assert_eq!(board.next_seg(SeqNum(0), SeqNum(3500), SMSS, false), None, "no rescue after a timeout");
    board.advance(SeqNum(3500));
    board.check_consistency(SeqNum(3500), SeqNum(3500));
}

#[test]
fn a_timeout_forgets_the_ranges_of_a_peer_that_reneged() {
    let mut board = board(&[(1000, 2000), (3000, 4000)]);
    board.advance(SeqNum(1000));
    board.on_rto(SeqNum(1000), SeqNum(5000));
    assert!(board.is_empty());
    assert_eq!(board.next_seg(SeqNum(1000), SeqNum(5000), SMSS, false), retransmit(1000, 1000));
}

#[test]
fn without_sack_the_marked_segment_is_lost_and_nothing_else() {
    let mut board = board(&[]);
    board.mark_lost(SeqNum(1000));
    assert_eq!(next(&board, true), retransmit(0, 1000));
    board.on_retransmitted(SeqNum(0), 1000);
    assert_eq!(board.pipe(SeqNum(0), SeqNum(20_000), SMSS), 20_000);
    assert_eq!(next(&board, true), Some(NextSeg::New));
    // A partial ACK, up to the next loss.
    board.advance(SeqNum(4000));
    board.mark_lost(SeqNum(5000));
    assert_eq!(board.next_seg(SeqNum(4000), SeqNum(20_000), SMSS, true), retransmit(4000, 1000));
}

#[test]
fn at_the_limit_the_highest_range_is_forgotten() {
    let mut board = Scoreboard::new();
    let nxt = SeqNum(1 << 20);
    for n in 1..=RANGES_MAX as u32 {
        assert_eq!(board.update(SeqNum(0), &blocks(&[(n * 20, n * 20 + 10)]), nxt).newly_sacked, 10);
    }
    assert_eq!(board.update(SeqNum(0), &blocks(&[(5000, 5010)]), nxt).newly_sacked, 0);
    assert_eq!(board.update(SeqNum(0), &blocks(&[(5, 10)]), nxt).newly_sacked, 5);
    assert_eq!((board.ranges_len(), board.highest_sacked()), (RANGES_MAX, Some(SeqNum(63 * 20 + 10))));
    board.check_consistency(SeqNum(0), nxt);
}

/// One flag per byte, and the words of RFC 6675 §4 on them.
struct Model {
    una: usize,
    nxt: usize,
    sacked: Vec<bool>,
    /// One past HighRxt.
    high_rxt: usize,
    rescued: bool,
    lost_below: usize,
}

const MODEL_SMSS: usize = 7;

impl Model {
    fn is_lost(&self, byte: usize) -> bool {
        let above = &self.sacked[byte + 1..self.nxt];
        let bytes = above.iter().filter(|&&sacked| sacked).count();
        let runs = above.chunk_by(|a, b| a == b).filter(|run| run[0]).count();
        byte < self.lost_below || runs >= 3 || bytes > 2 * MODEL_SMSS
    }

    fn pipe(&self) -> usize {
        let unsacked = (self.una..self.nxt).filter(|&byte| !self.sacked[byte]);
        unsacked.map(|byte| usize::from(!self.is_lost(byte)) + usize::from(byte < self.high_rxt)).sum()
    }

    /// Start and length of the unsacked run from `byte` on, one segment at most.
    fn segment(&self, byte: usize) -> (usize, usize) {
        (byte, (byte..self.nxt).take(MODEL_SMSS).take_while(|&b| !self.sacked[b]).count())
    }

    /// The rule that applies, and its segment.
    fn next_seg(&self, can_send_new: bool) -> Option<(u8, (usize, usize))> {
        let highest = (self.una..self.nxt).rev().find(|&byte| self.sacked[byte]);
        let mut above_rxt = (self.una.max(self.high_rxt)..self.nxt).filter(|&byte| !self.sacked[byte]);
        let rule_1 = above_rxt.clone().find(|&byte| self.is_lost(byte));
        let rule_3 = above_rxt.find(|&byte| highest.is_some_and(|highest| byte < highest));
        let rule_4 = (self.una..self.nxt).rev().find(|&byte| !self.sacked[byte] && !self.rescued);
        if let Some(byte) = rule_1 {
            return Some((1, self.segment(byte)));
        }
        if can_send_new {
            return Some((2, (0, 0)));
        }
        if let Some(byte) = rule_3 {
            return Some((3, self.segment(byte)));
        }
        rule_4.map(|last| {
            let run = (self.una..=last).rev().take(MODEL_SMSS).take_while(|&b| !self.sacked[b]).count();
            (4, (last + 1 - run, run))
        })
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Sack(Vec<(usize, usize)>),
    Ack(usize),
    Next(bool),
    Recover,
    Timeout,
    MarkLost(usize),
}

const MODEL_BYTES: usize = 600;

fn step() -> impl Strategy<Value = Step> {
    let block = (0..MODEL_BYTES, 1..25usize);
    prop_oneof![
        3 => (0..60usize).prop_map(Step::Send),
        6 => proptest::collection::vec(block, 1..4).prop_map(Step::Sack),
        2 => (0..30usize).prop_map(Step::Ack),
        8 => any::<bool>().prop_map(Step::Next),
        1 => Just(Step::Recover),
        1 => Just(Step::Timeout),
        1 => (0..20usize).prop_map(Step::MarkLost),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn behaves_as_a_flag_per_byte(base in any::<u32>(), steps in proptest::collection::vec(step(), 0..120)) {
        let seq = |byte: usize| SeqNum(base) + byte as u32;
        let mut board = Scoreboard::new();
        board.begin_recovery(seq(0), seq(0));
        let mut model = Model {
            una: 0, nxt: 0, sacked: vec![false; MODEL_BYTES + 1], high_rxt: 0, rescued: false, lost_below: 0,
        };
        for step in steps {
            match step {
                Step::Send(bytes) => model.nxt = (model.nxt + bytes).min(MODEL_BYTES),
                Step::Sack(list) => {
                    // Positions are relative to the window, so that most blocks matter.
                    let window = (model.nxt - model.una).max(1);
                    let list: Vec<_> = list.iter()
                        .map(|&(at, len)| (model.una + at % window, model.una + at % window + len))
                        .map(|(start, end)| (start.saturating_sub(5), end.saturating_sub(5)))
                        .collect();
                    let wire: Vec<_> = list.iter().map(|&(start, end)| (seq(start), seq(end))).collect();
                    let mut new = 0;
                    for &(start, end) in list.iter().filter(|&&(_, end)| end <= model.nxt) {
                        for byte in start.max(model.una)..end {
                            new += u32::from(!core::mem::replace(&mut model.sacked[byte], true));
                        }
                    }
                    prop_assert_eq!(board.update(seq(model.una), &wire, seq(model.nxt)).newly_sacked, new);
                }
                Step::Ack(bytes) => {
                    let from = model.una;
                    model.una = (from + bytes).min(model.nxt);
                    let known = model.sacked[from..model.una].iter().filter(|&&sacked| sacked).count();
                    model.high_rxt = model.high_rxt.max(model.una);
                    model.rescued &= !seq(model.una).after(board.recovery_point);
                    prop_assert_eq!(board.advance(seq(model.una)), known as u32);
                }
                Step::Next(can_send_new) => {
                    let got = board.next_seg(seq(model.una), seq(model.nxt), MODEL_SMSS as u32, can_send_new);
                    let want = model.next_seg(can_send_new);
                    let wire = |(start, len): (usize, usize)| (seq(start), len as u32);
                    match (got, want) {
                        (None, None) | (Some(NextSeg::New), Some((2, _))) => {}
                        (Some(NextSeg::Retransmit { seq, len }), Some((1 | 3, run))) => {
                            prop_assert_eq!((seq, len), wire(run));
                            board.on_retransmitted(seq, len);
                            model.high_rxt = model.high_rxt.max(run.0 + run.1);
                        }
                        (Some(NextSeg::Rescue { seq, len }), Some((4, run))) => {
                            prop_assert_eq!((seq, len), wire(run));
                            board.on_rescued();
                            model.rescued = true;
                        }
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
                Step::Recover => {
                    board.begin_recovery(seq(model.una), seq(model.nxt));
                    (model.high_rxt, model.rescued) = (model.una, false);
                }
                Step::Timeout => {
                    if board.has_reneged(seq(model.una)) {
                        model.sacked.fill(false);
                    }
                    board.on_rto(seq(model.una), seq(model.nxt));
                    (model.high_rxt, model.rescued, model.lost_below) = (model.una, true, model.nxt);
                }
                Step::MarkLost(bytes) => {
                    let until = (model.una + bytes).min(model.nxt);
                    if until > model.una {
                        board.mark_lost(seq(until));
                        model.lost_below = model.lost_below.max(until);
                    }
                }
            }
            board.check_consistency(seq(model.una), seq(model.nxt));
            prop_assert_eq!(board.pipe(seq(model.una), seq(model.nxt), MODEL_SMSS as u32), model.pipe() as u32);
            let unsacked = (model.una..model.nxt).find(|&byte| !model.sacked[byte]);
            prop_assert_eq!(
                board.next_unsacked(seq(model.una), seq(model.nxt)).map(|(start, _)| start),
                unsacked.map(seq)
            );
            for byte in (model.una..model.nxt).filter(|&byte| !model.sacked[byte]) {
                prop_assert_eq!(board.is_lost(seq(byte), MODEL_SMSS as u32), model.is_lost(byte));
            }
        }
    }
}
