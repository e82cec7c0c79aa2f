//! What was sent and is not acknowledged: ranges of sequence space, each with when it was last sent and what became of
//! it. This is the scoreboard of RFC 6675 and the list of segments of RFC 8985 in one.
//!
//! Ranges are ascending and without gaps: one ends where the next begins, the first begins at SND.UNA, the last ends at
//! SND.NXT. What was sent at one time is one range, however many segments it took; SACKed neighbours are one range. So
//! there are about as many ranges as acknowledgments are under way, and around a loss twice as many as holes.
//!
//! An acknowledgment costs what it changes and a few binary searches, not what is in flight, whatever the peer says
//! (CVE-2019-11478): [`ranges`] finds and splits, [`sendings`] leads to what may be lost, a heap to what is to be sent
//! again. Only a timeout, reneging and an undo walk over all.

mod ranges;
mod sendings;

use alloc::collections::{BTreeSet, BinaryHeap, VecDeque};
use core::cmp::Reverse;

use hoststack_transport::Instant;
use hoststack_wire::SeqNum;

use self::ranges::{Place, Ranges};
use self::sendings::{Sending, Sendings};
use crate::rate::Snapshot;

/// Ranges that SACK blocks may make besides those that sending made: a receiver reports whole segments, and only one
/// that means harm reports ever smaller pieces (CVE-2019-11478).
pub(crate) const SPLITS_MAX: usize = 256;

/// A range of sequence space that was sent, as one or several segments, at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// One past its last sequence number.
    pub(crate) end: SeqNum,
    /// When it was sent last (RFC 8985 Segment.xmit_ts).
    pub(crate) sent_at: Instant,
    /// The delivery rate sampler's note of that time.
    pub(crate) snapshot: Snapshot,
    /// The peer has it.
    pub(crate) is_sacked: bool,
    /// It is thought to be lost; if sent again since, `is_out`.
    pub(crate) is_lost: bool,
    /// Its retransmission is in the network, as far as we know.
    pub(crate) is_out: bool,
    /// It was sent more than once (RFC 8985 Segment.retransmitted).
    pub(crate) is_repeated: bool,
}

impl Sent {
    /// A range that is sent for the first time.
    pub(crate) fn new(end: SeqNum, sent_at: Instant, snapshot: Snapshot) -> Sent {
        Sent { end, sent_at, snapshot, is_sacked: false, is_lost: false, is_out: false, is_repeated: false }
    }

    /// Whether it waits to be sent again.
    pub(crate) fn wants_retransmission(&self) -> bool {
        self.is_lost && !self.is_out && !self.is_sacked
    }

    /// Whether it is in the network, as far as we know.
    fn is_in_network(&self) -> bool {
        !self.is_sacked && (!self.is_lost || self.is_out)
    }
}

/// The ranges in flight and their sums.
#[derive(Debug)]
pub(crate) struct Flight {
    /// SND.UNA.
    una: SeqNum,
    /// The same, as an offset that does not wrap.
    una_offset: u64,
    ranges: Ranges,
    /// All that is in the network lies in sendings of its `sent_at`, each range in one.
    sendings: Sendings,
    /// Where ranges that wait to be sent again begin; and, no longer true, where others did.
    waiting: BinaryHeap<Reverse<u64>>,
    /// Bytes SACKed.
    sacked: u32,
    /// Bytes lost and not SACKed.
    lost: u32,
    /// Bytes whose retransmission is in the network.
    out: u32,
    /// Ranges SACKed.
    sacked_ranges: u32,
    /// Ranges, sendings and places looked at, but for binary searches: what all cost so far.
    #[cfg(test)]
    looks: core::cell::Cell<u64>,
}

/// The offset at which a flight begins: what is below SND.UNA has one too.
const OFFSET_FIRST: u64 = 1 << 32;

impl Flight {
    /// Nothing in flight.
    pub(crate) fn new() -> Flight {
        Flight {
            una: SeqNum(0),
            una_offset: OFFSET_FIRST,
            ranges: Ranges::default(),
            sendings: Sendings::default(),
            waiting: BinaryHeap::new(),
            sacked: 0,
            lost: 0,
            out: 0,
            sacked_ranges: 0,
            #[cfg(test)]
            looks: core::cell::Cell::new(0),
        }
    }

    /// Begins anew at `una`; keeps a little memory.
    pub(crate) fn reset(&mut self, una: SeqNum) {
        let Flight { ranges, sendings, waiting, .. } = self;
        ranges.clear();
        sendings.clear();
        waiting.clear();
        waiting.shrink_to(64);
        let (ranges, sendings, waiting) =
            (core::mem::take(ranges), core::mem::take(sendings), core::mem::take(waiting));
        *self = Flight { una, ranges, sendings, waiting, ..Flight::new() };
    }

    /// Something was looked at.
    #[inline]
    fn look(&self) {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
    }

    /// Where `seq` is, which is less than 2^31 away from SND.UNA.
    #[inline]
    fn offset(&self, seq: SeqNum) -> u64 {
        self.una_offset.wrapping_add_signed(i64::from(seq.since(self.una) as i32)) // signed distance on the circle
    }

    /// The sequence number at an offset.
    fn seq(&self, offset: u64) -> SeqNum {
        self.una + (offset.wrapping_sub(self.una_offset) as u32) // modulo 2^32 by intent
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of ranges.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// SND.NXT.
    pub(crate) fn nxt(&self) -> SeqNum {
        self.ranges.last().map_or(self.una, |last| last.end)
    }

    /// Bytes SACKed.
    #[inline]
    pub(crate) fn sacked(&self) -> u32 {
        self.sacked
    }

    /// Ranges SACKed: discontiguous ones.
    pub(crate) fn sacked_ranges(&self) -> u32 {
        self.sacked_ranges
    }

    /// Bytes lost and not SACKed, sent again or not.
    #[inline]
    pub(crate) fn lost(&self) -> u32 {
        self.lost
    }

    /// Bytes whose retransmission is in the network.
    #[inline]
    pub(crate) fn out(&self) -> u32 {
        self.out
    }

    /// Bytes in the network (RFC 6675 §4, SetPipe): neither SACKed nor lost, and those sent again.
    #[inline]
    pub(crate) fn pipe(&self) -> u32 {
        self.nxt().since(self.una) - self.sacked - self.lost + self.out
    }

    /// Where the range at `place` begins.
    fn start(&self, place: Place) -> SeqNum {
        self.ranges.previous(place).map_or(self.una, |previous| self.ranges[previous].end)
    }

    /// SND.UNA.
    pub(crate) fn una(&self) -> SeqNum {
        self.una
    }

    /// The ranges with their beginnings, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SeqNum, &Sent)> {
        let mut start = self.una;
        self.ranges.iter().map(move |sent| (core::mem::replace(&mut start, sent.end), sent))
    }

    /// The first range.
    pub(crate) fn first(&self) -> Option<&Sent> {
        self.ranges.first()
    }

    /// New data was sent, from SND.NXT to `sent.end`.
    pub(crate) fn push(&mut self, sent: Sent) {
        let nxt = self.nxt();
        debug_assert!(sent.end.after(nxt), "an empty range");
        let (start, end) = (self.offset(nxt), self.offset(sent.end));
        let sending_start = self.sendings.push(sent.sent_at, start, end);
        if let Some(last) = self.ranges.last_mut()
            && last.sent_at == sent.sent_at
            && !(last.is_sacked || last.is_lost || last.is_repeated)
            && sending_start < start
        {
            last.end = sent.end;
            // What is in flight after all of it.
            last.snapshot = sent.snapshot;
            return;
        }
        self.ranges.push_back(sent);
    }

    /// The last `count` sequence numbers were taken back: SND.NXT is where they began.
    pub(crate) fn retract(&mut self, count: u32) {
        let nxt = self.nxt() - count;
        while let Some(last) = self.ranges.last().copied()
            && last.end.after(nxt)
        {
            let start = self.ranges.find(last.end - 1).map_or(self.una, |place| self.start(place));
            let cut = last.end.since(start.max(nxt));
            self.uncount(&last, cut);
            if start.before(nxt) {
                self.ranges.last_mut().into_iter().for_each(|last| last.end = nxt);
                return;
            }
            self.sacked_ranges -= u32::from(last.is_sacked);
            self.ranges.pop_back();
        }
    }

    /// Takes `len` bytes of a range out of the sums.
    fn uncount(&mut self, sent: &Sent, len: u32) {
        if sent.is_sacked {
            self.sacked -= len;
        } else {
            if sent.is_lost {
                self.lost -= len;
            }
            if sent.is_out {
                self.out -= len;
            }
        }
    }

    /// SND.UNA moved to `una`: what is below it is gone; `on_acked` sees what is of each range of it, and its length.
    pub(crate) fn acknowledge(&mut self, una: SeqNum, mut on_acked: impl FnMut(&Sent, u32)) {
        let una_offset = self.offset(una);
        while let Some(first) = self.ranges.first().copied()
            && una.after(self.una)
        {
            self.look();
            let until = first.end.min(una);
            let len = until.since(self.una);
            on_acked(&Sent { end: until, ..first }, len);
            self.uncount(&first, len);
            self.una = until;
            if until == first.end {
                self.sacked_ranges -= u32::from(first.is_sacked);
                self.ranges.pop_front();
            }
        }
        (self.una, self.una_offset) = (una, una_offset);
        self.sendings.acknowledge(una_offset);
    }

    /// The peer says that it has `start..end`, which lies in SND.UNA..SND.NXT; `on_sacked` sees each range of it that
    /// was not known yet, and its length. At too many ranges a block that would make more is ignored: its bytes count
    /// as being in the network, which sends less, and nothing is lost because of it.
    pub(crate) fn sack(
        &mut self,
        start: SeqNum,
        end: SeqNum,
        ranges_max: usize,
        mut on_sacked: impl FnMut(&Sent, u32),
    ) {
        let Some(mut place) = self.ranges.find(start) else { return };
        if self.ranges[place].is_sacked && self.ranges[place].end.at_or_after(end) {
            return;
        }
        if !self.ranges[place].is_sacked && self.start(place).before(start) {
            if self.ranges.len() >= ranges_max {
                return;
            }
            (_, place) = self.split(place, start);
        }
        let mut next = Some(place);
        while let Some(mut place) = next
            && self.start(place).before(end)
        {
            self.look();
            if !self.ranges[place].is_sacked {
                if self.ranges[place].end.after(end) {
                    if self.ranges.len() >= ranges_max {
                        break;
                    }
                    (place, _) = self.split(place, end);
                }
                let sent = self.ranges[place];
                let len = sent.end.since(self.start(place));
                on_sacked(&sent, len);
                self.uncount(&sent, len);
                self.ranges[place] = Sent { is_sacked: true, is_lost: false, is_out: false, ..sent };
                self.sacked += len;
                self.sacked_ranges += 1;
            }
            next = self.ranges.next(place);
        }
        self.join_sacked(start);
    }

    /// Makes one of the SACKed neighbours around the range at `seq`.
    fn join_sacked(&mut self, seq: SeqNum) {
        let Some(mut into) = self.ranges.find(seq) else { return };
        if let Some(previous) = self.ranges.previous(into)
            && self.ranges[previous].is_sacked
        {
            into = previous;
        }
        if !self.ranges[into].is_sacked {
            return;
        }
        while let Some(next) = self.ranges.next(into)
            && self.ranges[next].is_sacked
        {
            self.look();
            // Of what was SACKed only its extent matters.
            self.ranges[into].end = self.ranges[next].end;
            self.ranges.remove(next);
            self.sacked_ranges -= 1;
        }
    }

    /// Makes two of one range, at `at` inside it, and says where they are.
    fn split(&mut self, place: Place, at: SeqNum) -> (Place, Place) {
        let sent = self.ranges[place];
        debug_assert!(at.after(self.start(place)) && at.before(sent.end));
        self.sacked_ranges += u32::from(sent.is_sacked);
        if sent.wants_retransmission() {
            self.waiting.push(Reverse(self.offset(at)));
        }
        self.ranges.insert(place, Sent { end: at, ..sent })
    }

    /// Forgets what the peer said it had: it may have discarded it (RFC 2018 §8).
    pub(crate) fn forget_sacked(&mut self) {
        if self.sacked == 0 {
            return;
        }
        for sent in self.ranges.iter_mut() {
            sent.is_sacked = false;
        }
        (self.sacked, self.sacked_ranges) = (0, 0);
        self.rebuild_sendings();
    }

    /// Whether the peer discarded bytes that it had SACKed: it has SND.UNA, but does not acknowledge it (RFC 2018 §8).
    pub(crate) fn has_reneged(&self) -> bool {
        self.ranges.first().is_some_and(|first| first.is_sacked)
    }

    /// Marks ranges lost for which `is_lost` says so, of those that are in the network. Looks at all that begin below
    /// `until`, and splits none; `on_lost` sees each and its length. Returns the bytes newly lost.
    pub(crate) fn mark_lost(
        &mut self,
        until: SeqNum,
        mut is_lost: impl FnMut(SeqNum, &Sent) -> bool,
        mut on_lost: impl FnMut(&Sent, u32),
    ) -> u32 {
        let mut bytes = 0;
        let mut next = self.ranges.find(self.una);
        let mut start = self.una;
        while let Some(place) = next
            && start.before(until)
        {
            self.look();
            let sent = self.ranges[place];
            if sent.is_in_network() && is_lost(start, &sent) {
                bytes += self.lose(place, start, &mut on_lost);
            }
            start = sent.end;
            next = self.ranges.next(place);
        }
        bytes
    }

    /// The range at `place`, which begins at `start` and is in the network, is lost; returns its length.
    fn lose(&mut self, place: Place, start: SeqNum, on_lost: &mut impl FnMut(&Sent, u32)) -> u32 {
        let sent = &mut self.ranges[place];
        let len = sent.end.since(start);
        if core::mem::take(&mut sent.is_out) {
            self.out -= len;
        }
        if !core::mem::replace(&mut sent.is_lost, true) {
            self.lost += len;
        }
        on_lost(sent, len);
        self.waiting.push(Reverse(self.offset(start)));
        len
    }

    /// RFC 8985 §6.2 step 5: of what was sent before `latest`, a time and the end of what was sent then, marks lost what
    /// was sent `due_us` ago or earlier, the oldest first. `on_lost` sees each range and its length. Returns the bytes
    /// newly lost, and in how long the youngest of the others is due. `latest` never goes back, and is later than all
    /// that was delivered.
    pub(crate) fn mark_lost_before(
        &mut self,
        latest: (Instant, SeqNum),
        now: Instant,
        due_us: u64,
        mut on_lost: impl FnMut(&Sent, u32),
    ) -> (u32, Option<u64>) {
        let (at, end) = (latest.0, self.offset(latest.1));
        for _ in 0..self.sendings.pass(at, end) {
            self.look();
        }
        let mut bytes = 0;
        while let Some(oldest) = self.sendings.passed.front().copied() {
            let (Some(place), start) = self.in_network(oldest, oldest.end) else {
                self.sendings.passed.pop_front();
                continue;
            };
            self.sendings.passed[0].start = start;
            if now.micros_since(oldest.at) < due_us {
                break;
            }
            bytes += self.lose(place, self.seq(start), &mut on_lost);
        }
        // Sent at the same time as the latest, some of it before.
        while let Some(split) = self.sendings.ahead.front().copied()
            && split.at == at
            && split.start < end
        {
            let (found, start) = self.in_network(split, end - 1);
            self.sendings.ahead[0].start = start;
            let Some(place) = found else { break };
            let age_us = now.micros_since(at);
            if age_us < due_us {
                return (bytes, Some(due_us - age_us));
            }
            bytes += self.lose(place, self.seq(start), &mut on_lost);
        }
        while let Some(youngest) = self.sendings.passed.back().copied() {
            self.sendings.passed.pop_back();
            if let (Some(_), start) = self.in_network(youngest, youngest.end) {
                self.sendings.passed.push_back(Sending { start, ..youngest });
                return (bytes, Some(due_us.saturating_sub(now.micros_since(youngest.at))));
            }
        }
        (bytes, None)
    }

    /// The first range of `sending` that ends at `until` or below and is in the network, and where it begins; without
    /// one, where the first range begins that ends above.
    fn in_network(&self, sending: Sending, until: u64) -> (Option<Place>, u64) {
        let mut start = sending.start.max(self.una_offset);
        let mut next = self.ranges.find(self.seq(start));
        // A range that begins below was seen before: it was joined to what is SACKed.
        while let Some(place) = next {
            self.look();
            let sent = &self.ranges[place];
            let end = self.offset(sent.end);
            if end > until.min(sending.end) {
                break;
            }
            if sent.sent_at == sending.at && sent.is_in_network() {
                return (Some(place), start);
            }
            start = end;
            next = self.ranges.next(place);
        }
        (None, start)
    }

    /// What is in the network again is found by time again.
    fn rebuild_sendings(&mut self) {
        let mut sendings = core::mem::take(&mut self.sendings);
        sendings.rebuild(self.iter().filter(|(_, sent)| sent.is_in_network()).map(|(start, sent)| {
            self.look();
            Sending { at: sent.sent_at, start: self.offset(start), end: self.offset(sent.end) }
        }));
        self.sendings = sendings;
    }

    /// Marks the first `len` bytes lost, whatever range they are in.
    pub(crate) fn mark_first_lost(&mut self, len: u32) {
        let until = self.una + len.min(self.nxt().since(self.una));
        // Only so much, also where it ends inside of another range than the first.
        if until.after(self.una)
            && let Some(last) = self.ranges.find(until - 1)
            && self.ranges[last].end.after(until)
            && self.ranges[last].is_in_network()
        {
            self.split(last, until);
        }
        self.mark_lost(until, |_, _| true, |_, _| ());
    }

    /// What was marked lost and not sent again counts as being in the network again: it was not lost.
    pub(crate) fn unmark_lost(&mut self) {
        if self.lost == 0 {
            return;
        }
        for sent in self.ranges.iter_mut() {
            (sent.is_lost, sent.is_out) = (false, false);
        }
        let had_waiting = self.lost != self.out;
        (self.lost, self.out) = (0, 0);
        self.waiting.clear();
        if had_waiting {
            self.rebuild_sendings();
        }
    }

    /// Whether something is lost and waits to be sent again.
    pub(crate) fn has_lost_waiting(&self) -> bool {
        self.lost != self.out
    }

    /// The first bytes that are lost and wait to be sent again: at most `most`.
    pub(crate) fn next_lost(&mut self, most: u32) -> Option<(SeqNum, u32)> {
        if !self.has_lost_waiting() {
            self.waiting.clear();
            return None;
        }
        while let Some(&Reverse(offset)) = self.waiting.peek() {
            self.look();
            let start = self.seq(offset.max(self.una_offset));
            if let Some(place) = self.ranges.find(start)
                && self.ranges[place].wants_retransmission()
                && self.start(place) == start
            {
                return Some((start, self.ranges[place].end.since(start).min(most)));
            }
            self.waiting.pop();
        }
        unreachable!("something waits to be sent again, and it is not known where it begins")
    }

    /// What was sent more than once and is not known to have arrived: how many segments of `mss`, and when the first of them
    /// was sent last (`FAR` if there are none).
    pub(crate) fn repeated(&self, mss: u32) -> (u32, Instant) {
        let repeated = self.iter().filter(|(_, sent)| sent.is_repeated && !sent.is_sacked);
        repeated.fold((0, Instant::FAR), |(count, first), (start, sent)| {
            (count + sent.end.since(start).div_ceil(mss.max(1)), first.min(sent.sent_at))
        })
    }

    /// The last bytes in flight that are not SACKed: at most `most` of one segment's worth.
    pub(crate) fn last_unsacked(&self, most: u32) -> Option<(SeqNum, u32)> {
        // SACKed neighbours are one: it is the last range or the one before.
        let mut place = self.ranges.find(self.nxt() - 1)?;
        if self.ranges[place].is_sacked {
            place = self.ranges.previous(place)?;
        }
        let end = self.ranges[place].end;
        let len = end.since(self.start(place)).min(most);
        Some((end - len, len))
    }

    /// `len` bytes from `seq` on are sent again.
    pub(crate) fn on_retransmitted(&mut self, seq: SeqNum, len: u32, now: Instant, snapshot: Snapshot) {
        let end = seq + len;
        let mut next = self.ranges.find(seq);
        if let Some(place) = next
            && self.start(place).before(seq)
        {
            next = Some(self.split(place, seq).1);
        }
        let mut last = None;
        while let Some(mut place) = next
            && self.start(place).before(end)
        {
            self.look();
            if self.ranges[place].end.after(end) {
                (place, _) = self.split(place, end);
            }
            let len = self.ranges[place].end.since(self.start(place));
            let sent = &mut self.ranges[place];
            if sent.wants_retransmission() {
                sent.is_out = true;
                self.out += len;
            }
            (sent.sent_at, sent.snapshot, sent.is_repeated) = (now, snapshot, true);
            last = Some(place);
            next = self.ranges.next(place);
        }
        let sending_start = self.sendings.push(now, self.offset(seq), self.offset(end));
        if let Some(last) = last {
            self.join_repeated(last, sending_start);
        }
        // What is sent again and again leaves sendings behind that nothing takes out if nothing is delivered.
        if self.sendings.len() > 2 * self.ranges.len() + 64 {
            self.rebuild_sendings();
        }
    }

    /// Makes one of a range and the one below it if they were sent again as one, from `sending_start` on: else a long
    /// range that is sent again piece by piece would stay in pieces.
    fn join_repeated(&mut self, upper: Place, sending_start: u64) {
        let Some(lower) = self.ranges.previous(upper) else { return };
        let (a, b) = (self.ranges[lower], self.ranges[upper]);
        if a.sent_at == b.sent_at
            && (a.is_sacked, a.is_lost, a.is_out, a.is_repeated)
                == (b.is_sacked, b.is_lost, b.is_out, b.is_repeated)
            && !a.is_sacked
            && self.offset(self.start(lower)) >= sending_start
        {
            self.ranges.remove(lower);
        }
    }

    /// Checks what holds between calls.
    ///
    /// # Panics
    /// When it does not hold.
    pub(crate) fn check_consistency(&self, una: SeqNum, nxt: SeqNum) {
        assert!(self.una == una, "the flight begins at {} and not at SND.UNA {una}", self.una);
        assert!(self.nxt() == nxt, "the flight ends at {} and not at SND.NXT {nxt}", self.nxt());
        let (mut sacked, mut lost, mut out, mut sacked_ranges) = (0, 0, 0, 0);
        let mut was_sacked = false;
        for (start, sent) in self.iter() {
            assert!(sent.end.after(start), "an empty range in flight");
            let len = sent.end.since(start);
            assert!(!(was_sacked && sent.is_sacked), "SACKed neighbours that are not one range");
            was_sacked = sent.is_sacked;
            sacked_ranges += u32::from(sent.is_sacked);
            if sent.is_sacked {
                assert!(!sent.is_lost && !sent.is_out, "a SACKed range that is lost or out");
                sacked += len;
            }
            assert!(sent.is_lost || !sent.is_out, "a retransmission is out for what was not lost");
            lost += if sent.is_lost { len } else { 0 };
            out += if sent.is_out { len } else { 0 };
        }
        assert_eq!(
            (sacked, lost, out, sacked_ranges),
            (self.sacked, self.lost, self.out, self.sacked_ranges),
            "the sums of the flight are not those of its ranges"
        );
        self.check_indices();
    }

    /// Checks that what leads to ranges leads to all of them.
    fn check_indices(&self) {
        let Sendings { passed, ahead } = &self.sendings;
        let waiting: BTreeSet<u64> =
            self.waiting.iter().map(|offset| offset.0.max(self.una_offset)).collect();
        assert!(passed.iter().is_sorted_by_key(|sending| sending.at), "sendings passed out of order");
        let is_sorted = |a: &&Sending, b: &&Sending| (a.at, a.end) < (b.at, b.end);
        assert!(ahead.iter().is_sorted_by(is_sorted), "sendings out of order");
        for (start, sent) in self.iter() {
            let (start, end) = (self.offset(start), self.offset(sent.end));
            if sent.wants_retransmission() {
                assert!(waiting.contains(&start), "{sent:?} waits to be sent again, and nothing leads to it");
            }
            let has = |queue: &VecDeque<Sending>| {
                let first = queue.partition_point(|sending| sending.at < sent.sent_at);
                let mut same = queue.range(first..).take_while(|sending| sending.at == sent.sent_at);
                same.any(|sending| sending.start <= start && end <= sending.end)
            };
            assert!(!sent.is_in_network() || has(passed) || has(ahead), "{sent:?} is in no sending");
        }
    }
}

#[cfg(any(test, feature = "testing"))]
pub(crate) mod model;
#[cfg(test)]
mod tests;
