//! What was sent and is not acknowledged: ranges of sequence space, each with when it was last sent and what became of
//! it. This is the scoreboard of RFC 6675 and the list of segments of RFC 8985 in one.
//!
//! Ranges are ascending and without gaps: one ends where the next begins, the first begins at SND.UNA, the last ends at
//! SND.NXT. What was sent at one time is one range, however many segments it took; SACKed neighbours are one range. So
//! there are about as many ranges as acknowledgments are under way, and around a loss twice as many as holes.

use alloc::collections::VecDeque;

use hoststack_transport::Instant;
use hoststack_wire::SeqNum;

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
}

/// The ranges in flight and their sums.
#[derive(Debug)]
pub(crate) struct Flight {
    /// SND.UNA.
    una: SeqNum,
    ranges: VecDeque<Sent>,
    /// Bytes SACKed.
    sacked: u32,
    /// Bytes lost and not SACKed.
    lost: u32,
    /// Bytes whose retransmission is in the network.
    out: u32,
    /// Ranges SACKed.
    sacked_ranges: u32,
}

impl Flight {
    /// Nothing in flight.
    pub(crate) fn new() -> Flight {
        Flight { una: SeqNum(0), ranges: VecDeque::new(), sacked: 0, lost: 0, out: 0, sacked_ranges: 0 }
    }

    /// Begins anew at `una`; keeps a little memory.
    pub(crate) fn reset(&mut self, una: SeqNum) {
        self.ranges.clear();
        self.ranges.shrink_to(64);
        *self = Flight { una, ranges: core::mem::take(&mut self.ranges), ..Flight::new() };
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
        self.ranges.back().map_or(self.una, |last| last.end)
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

    /// Where the `index`th range begins.
    pub(crate) fn start(&self, index: usize) -> SeqNum {
        if index == 0 { self.una } else { self.ranges[index - 1].end }
    }

    /// The ranges with their beginnings, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SeqNum, &Sent)> {
        let mut start = self.una;
        self.ranges.iter().map(move |sent| (core::mem::replace(&mut start, sent.end), sent))
    }

    /// The first range.
    pub(crate) fn first(&self) -> Option<&Sent> {
        self.ranges.front()
    }

    /// One past the highest SACKed byte.
    /// New data was sent, from SND.NXT to `sent.end`.
    pub(crate) fn push(&mut self, sent: Sent) {
        debug_assert!(sent.end.after(self.nxt()), "an empty range");
        if let Some(last) = self.ranges.back_mut()
            && last.sent_at == sent.sent_at
            && !(last.is_sacked || last.is_lost || last.is_repeated)
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
        while let Some(last) = self.ranges.len().checked_sub(1) {
            let start = self.start(last);
            if start.before(nxt) {
                let cut = self.ranges[last].end.since(nxt);
                self.uncount(last, cut);
                self.ranges[last].end = nxt;
                return;
            }
            let len = self.ranges[last].end.since(start);
            self.uncount(last, len);
            if self.ranges[last].is_sacked {
                self.sacked_ranges -= 1;
            }
            self.ranges.pop_back();
            if start == nxt {
                return;
            }
        }
    }

    /// Takes `len` bytes of a range out of the sums.
    fn uncount(&mut self, index: usize, len: u32) {
        let sent = &self.ranges[index];
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

    /// SND.UNA moved to `una`: what is below it is gone; `on_acked` sees each range of it and the bytes that are.
    pub(crate) fn acknowledge(&mut self, una: SeqNum, mut on_acked: impl FnMut(&Sent, u32)) {
        while let Some(first) = self.ranges.front().copied()
            && una.after(self.una)
        {
            let until = first.end.min(una);
            let len = until.since(self.una);
            on_acked(&first, len);
            self.uncount(0, len);
            self.una = until;
            if until == first.end {
                self.sacked_ranges -= u32::from(first.is_sacked);
                self.ranges.pop_front();
            }
        }
        self.una = una;
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
        let mut index = self.ranges.partition_point(|sent| sent.end.at_or_before(start));
        if self.ranges.get(index).is_some_and(|sent| sent.is_sacked && sent.end.at_or_after(end)) {
            return;
        }
        if self.start(index).before(start) && !self.ranges[index].is_sacked {
            if self.ranges.len() >= ranges_max {
                return;
            }
            self.split(index, start);
            index += 1;
        }
        let first = index;
        while let Some(sent) = self.ranges.get(index)
            && self.start(index).before(end)
        {
            if !sent.is_sacked {
                if sent.end.after(end) {
                    if self.ranges.len() >= ranges_max {
                        break;
                    }
                    self.split(index, end);
                }
                let len = self.ranges[index].end.since(self.start(index));
                on_sacked(&self.ranges[index], len);
                self.uncount(index, len);
                let sent = &mut self.ranges[index];
                (sent.is_sacked, sent.is_lost, sent.is_out) = (true, false, false);
                self.sacked += len;
                self.sacked_ranges += 1;
            }
            index += 1;
        }
        self.join_sacked(first.saturating_sub(1), index.min(self.ranges.len() - 1));
    }

    /// Makes one of SACKed neighbours between two indices.
    fn join_sacked(&mut self, first: usize, last: usize) {
        let (mut into, mut last) = (first, last);
        while into <= last && into < self.ranges.len() {
            if self.ranges[into].is_sacked {
                let more = self.ranges.range(into + 1..).take_while(|sent| sent.is_sacked).count();
                if more > 0 {
                    // Of what was SACKed only its extent matters.
                    self.ranges[into].end = self.ranges[into + more].end;
                    self.ranges.drain(into + 1..=into + more);
                    self.sacked_ranges -= more as u32; // at most the number of ranges
                    last = last.saturating_sub(more);
                }
            }
            into += 1;
        }
    }

    /// Makes two of one range, at `at` inside it.
    fn split(&mut self, index: usize, at: SeqNum) {
        let mut lower = self.ranges[index];
        debug_assert!(at.after(self.start(index)) && at.before(lower.end));
        lower.end = at;
        self.ranges.insert(index, lower);
        self.sacked_ranges += u32::from(lower.is_sacked);
    }

    /// Forgets what the peer said it had: it may have discarded it (RFC 2018 §8).
    pub(crate) fn forget_sacked(&mut self) {
        for sent in &mut self.ranges {
            sent.is_sacked = false;
        }
        (self.sacked, self.sacked_ranges) = (0, 0);
    }

    /// Whether the peer discarded bytes that it had SACKed: it has SND.UNA, but does not acknowledge it (RFC 2018 §8).
    pub(crate) fn has_reneged(&self) -> bool {
        self.ranges.front().is_some_and(|first| first.is_sacked)
    }

    /// Marks ranges lost for which `is_lost` says so, of those that are in the network. Looks at no range above `until`,
    /// and splits none; `on_lost` sees each and its length. Returns the bytes newly lost.
    pub(crate) fn mark_lost(
        &mut self,
        until: SeqNum,
        mut is_lost: impl FnMut(SeqNum, &Sent) -> bool,
        mut on_lost: impl FnMut(&Sent, u32),
    ) -> u32 {
        let mut bytes = 0;
        let mut start = self.una;
        for sent in &mut self.ranges {
            if start.at_or_after(until) {
                break;
            }
            let len = sent.end.since(start);
            if !sent.is_sacked && (!sent.is_lost || sent.is_out) && is_lost(start, sent) {
                if sent.is_out {
                    self.out -= len;
                    sent.is_out = false;
                }
                if !sent.is_lost {
                    self.lost += len;
                    sent.is_lost = true;
                }
                bytes += len;
                on_lost(sent, len);
            }
            start = sent.end;
        }
        bytes
    }

    /// Marks the first `len` bytes lost, whatever range they are in.
    pub(crate) fn mark_first_lost(&mut self, len: u32) {
        let until = self.una + len.min(self.nxt().since(self.una));
        // Only so much, also where it ends inside of another range than the first.
        let last = self.ranges.partition_point(|sent| sent.end.before(until));
        if let Some(sent) = self.ranges.get(last)
            && sent.end.after(until)
            && self.start(last).before(until)
            && !sent.wants_retransmission()
            && !sent.is_sacked
        {
            self.split(last, until);
        }
        self.mark_lost(until, |_, _| true, |_, _| ());
    }

    /// What was marked lost and not sent again counts as being in the network again: it was not lost.
    pub(crate) fn unmark_lost(&mut self) {
        for sent in &mut self.ranges {
            (sent.is_lost, sent.is_out) = (false, false);
        }
        (self.lost, self.out) = (0, 0);
    }

    /// Whether something is lost and waits to be sent again.
    pub(crate) fn has_lost_waiting(&self) -> bool {
        self.lost != self.out
    }

    /// The first bytes that are lost and wait to be sent again: at most `most`.
    pub(crate) fn next_lost(&self, most: u32) -> Option<(SeqNum, u32)> {
        if !self.has_lost_waiting() {
            return None;
        }
        let (start, sent) = self.iter().find(|(_, sent)| sent.wants_retransmission())?;
        Some((start, sent.end.since(start).min(most)))
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
        let index = self.ranges.iter().rposition(|sent| !sent.is_sacked)?;
        let end = self.ranges[index].end;
        let len = end.since(self.start(index)).min(most);
        Some((end - len, len))
    }

    /// `len` bytes from `seq` on are sent again.
    pub(crate) fn on_retransmitted(&mut self, seq: SeqNum, len: u32, now: Instant, snapshot: Snapshot) {
        let end = seq + len;
        let mut index = self.ranges.partition_point(|sent| sent.end.at_or_before(seq));
        if index < self.ranges.len() && self.start(index).before(seq) {
            self.split(index, seq);
            index += 1;
        }
        while index < self.ranges.len() && self.start(index).before(end) {
            if self.ranges[index].end.after(end) {
                self.split(index, end);
            }
            let len = self.ranges[index].end.since(self.start(index));
            let sent = &mut self.ranges[index];
            if !sent.is_sacked && sent.is_lost && !sent.is_out {
                sent.is_out = true;
                self.out += len;
            }
            (sent.sent_at, sent.snapshot, sent.is_repeated) = (now, snapshot, true);
            index += 1;
        }
        self.join_repeated(index);
    }

    /// Makes one range of the two below `index` if they were sent again as one: else a long range that is sent again
    /// piece by piece would stay in pieces.
    fn join_repeated(&mut self, index: usize) {
        let Some(lower) = index.checked_sub(2) else { return };
        let (a, b) = (self.ranges[lower], self.ranges[lower + 1]);
        if a.sent_at == b.sent_at
            && (a.is_sacked, a.is_lost, a.is_out, a.is_repeated)
                == (b.is_sacked, b.is_lost, b.is_out, b.is_repeated)
            && !a.is_sacked
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
    }
}

#[cfg(any(test, feature = "testing"))]
pub(crate) mod model;
#[cfg(test)]
mod tests;
