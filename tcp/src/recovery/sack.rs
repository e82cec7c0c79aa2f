//! The scoreboard of a SACK sender (RFC 6675): which bytes above SND.UNA the peer says it has.
//!
//! Bytes are in `SND.UNA..SND.NXT`; the caller passes the two, because they are the connection's. A bound on the right
//! is exclusive here where RFC 6675 names the highest octet: [`Scoreboard::high_rxt`] is one past HighRxt.

use hoststack_wire::SeqNum;
use smallvec::SmallVec;

use super::DUP_THRESH;

/// Ranges kept. A receiver reports three or four at a time, so only many separate losses in one window come near it.
pub const RANGES_MAX: usize = 64;
/// Ranges kept without memory of their own.
const RANGES_INLINE: usize = 8;

/// SACKed bytes `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: SeqNum,
    end: SeqNum,
}

impl Range {
    fn len(self) -> u32 {
        self.end.since(self.start)
    }
}

/// What [`Scoreboard::update`] learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SackUpdate {
    /// Bytes SACKed for the first time.
    pub newly_sacked: u32,
    /// The duplicate that the first block reports (RFC 2883 §4): the peer got these bytes twice.
    pub duplicate: Option<(SeqNum, SeqNum)>,
}

/// What to send next in loss recovery (RFC 6675 §4, NextSeg).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextSeg {
    /// Rules 1 and 3: send these bytes again, then tell [`Scoreboard::on_retransmitted`]. All of them are unSACKed, and
    /// `0 < len <= smss`.
    Retransmit {
        /// First byte.
        seq: SeqNum,
        /// Number of bytes.
        len: u32,
    },
    /// Rule 2: send new data.
    New,
    /// Rule 4: send these bytes, the last that are unSACKed, again; then tell [`Scoreboard::on_rescued`].
    Rescue {
        /// First byte.
        seq: SeqNum,
        /// Number of bytes.
        len: u32,
    },
}

/// The SACKed ranges of a connection and the variables of its recovery.
///
/// At [`RANGES_MAX`] ranges the highest is forgotten: its bytes count as being in the network, which sends less, and
/// nothing is lost because of it.
#[derive(Clone, Debug, Default)]
pub struct Scoreboard {
    /// One past the highest byte sent again in this recovery (RFC 6675 HighRxt); at SND.UNA or after it.
    pub high_rxt: SeqNum,
    /// RescueRxt: set when this recovery had its rescue, until SND.UNA passes it.
    pub rescue_rxt: Option<SeqNum>,
    /// SND.NXT when recovery began: recovery ends when SND.UNA reaches it.
    pub recovery_point: SeqNum,
    /// Unsacked bytes before this are lost, whatever the ranges say.
    lost_below: Option<SeqNum>,
    /// Bytes in all ranges.
    sacked: u32,
    /// Ascending, disjoint, not adjacent.
    ranges: SmallVec<[Range; RANGES_INLINE]>,
}

impl Scoreboard {
    /// Nothing SACKed.
    pub fn new() -> Scoreboard {
        Scoreboard::default()
    }

    /// Whether nothing is SACKed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of ranges.
    pub fn ranges_len(&self) -> usize {
        self.ranges.len()
    }

    /// The ranges `start..end`, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = (SeqNum, SeqNum)> {
        self.ranges.iter().map(|range| (range.start, range.end))
    }

    /// Bytes SACKed.
    #[inline]
    pub fn sacked_bytes(&self) -> u32 {
        self.sacked
    }

    /// One past the highest SACKed byte.
    pub fn highest_sacked(&self) -> Option<SeqNum> {
        self.ranges.last().map(|range| range.end)
    }

    /// Fast recovery begins (RFC 6675 §5 step 4): HighRxt is SND.UNA, RecoveryPoint is SND.NXT.
    pub fn begin_recovery(&mut self, snd_una: SeqNum, snd_nxt: SeqNum) {
        self.high_rxt = snd_una;
        self.rescue_rxt = None;
        self.recovery_point = snd_nxt;
    }

    /// SND.UNA moved: forgets what is below it. Call it before [`Scoreboard::update`] of the same segment.
    ///
    /// Returns how many of the acknowledged bytes had been SACKed before: they were delivered earlier.
    pub fn advance(&mut self, snd_una: SeqNum) -> u32 {
        self.high_rxt = self.high_rxt.max(snd_una);
        self.lost_below = self.lost_below.filter(|lost| lost.after(snd_una));
        self.rescue_rxt = self.rescue_rxt.filter(|rescue| !snd_una.after(*rescue));
        if self.ranges.is_empty() {
            return 0;
        }
        let sacked = self.sacked;
        let gone = self.ranges.iter().take_while(|range| range.end.at_or_before(snd_una)).count();
        self.sacked -= self.ranges[..gone].iter().map(|range| range.len()).sum::<u32>();
        self.ranges.drain(..gone);
        if let Some(first) = self.ranges.first_mut()
            && first.start.before(snd_una)
        {
            self.sacked -= snd_una.since(first.start);
            first.start = snd_una;
        }
        sacked - self.sacked
    }

    /// Takes the SACK blocks of a segment (RFC 6675 §4, Update); `snd_una` is after the segment's own ACK.
    ///
    /// Blocks that are empty, reversed or not in `snd_una..snd_nxt` are ignored, but what an old block has above
    /// `snd_una` counts. A duplicate is reported when the first block is below `snd_una`, or inside the second
    /// (RFC 2883 §4); it means one only if the segment acknowledges `snd_una` itself.
    pub fn update(&mut self, snd_una: SeqNum, blocks: &[(SeqNum, SeqNum)], snd_nxt: SeqNum) -> SackUpdate {
        let mut update = SackUpdate::default();
        for (n, &(start, end)) in blocks.iter().enumerate() {
            if !start.before(end) || end.after(snd_nxt) {
                continue;
            }
            if n == 0 {
                let is_inside_second = blocks.get(1).is_some_and(|&(outer_start, outer_end)| {
                    outer_start.at_or_before(start) && outer_end.at_or_after(end)
                });
                if end.at_or_before(snd_una) || is_inside_second {
                    update.duplicate = Some((start, end));
                }
            }
            let start = start.max(snd_una);
            if start.before(end) {
                update.newly_sacked += self.insert(Range { start, end });
            }
        }
        update
    }

    /// Adds a range and returns how many of its bytes are new.
    fn insert(&mut self, mut new: Range) -> u32 {
        // `first..last` are the ranges that overlap or touch it.
        let first = self.ranges.partition_point(|range| range.end.before(new.start));
        let mut last = first;
        let mut known = 0;
        while let Some(range) = self.ranges.get(last)
            && range.start.at_or_before(new.end)
        {
            known += range.len();
            new = Range { start: new.start.min(range.start), end: new.end.max(range.end) };
            last += 1;
        }
        if first == last {
            if self.ranges.len() == RANGES_MAX {
                if first == RANGES_MAX {
                    return 0;
                }
                self.sacked -= self.ranges.pop().map_or(0, Range::len);
            }
            self.ranges.insert(first, new);
        } else {
            self.ranges[first] = new;
            self.ranges.drain(first + 1..last);
        }
        self.sacked += new.len() - known;
        new.len() - known
    }

    /// Everything unSACKed before this is lost (RFC 6675 §4, IsLost); `None` when nothing is.
    ///
    /// IsLost asks for DupThresh ranges above a byte, or more than (DupThresh - 1) * SMSS bytes in them. What holds for
    /// a byte holds for every byte below, so one bound answers for all.
    fn lost_edge(&self, smss: u32) -> Option<SeqNum> {
        let (mut ranges, mut bytes) = (0, 0u32);
        for range in self.ranges.iter().rev() {
            ranges += 1;
            bytes += range.len();
            if ranges >= DUP_THRESH || bytes > (DUP_THRESH - 1) * smss {
                return Some(self.lost_below.map_or(range.start, |lost| lost.max(range.start)));
            }
        }
        self.lost_below
    }

    /// Whether the unSACKed byte `seq` is lost (RFC 6675 §4, IsLost). `is_lost(snd_una, ..)` starts recovery.
    pub fn is_lost(&self, seq: SeqNum, smss: u32) -> bool {
        self.lost_edge(smss).is_some_and(|edge| seq.before(edge))
    }

    /// Counts unSACKed bytes before `until` as lost, until SND.UNA passes it: for a timeout, and for senders without
    /// SACK, whose first segment is lost when recovery begins and after each partial ACK.
    pub fn mark_lost(&mut self, until: SeqNum) {
        self.lost_below = Some(self.lost_below.map_or(until, |lost| lost.max(until)));
    }

    /// Bytes in the network (RFC 6675 §4, SetPipe): those that are neither SACKed nor lost, and those sent again.
    pub fn pipe(&self, snd_una: SeqNum, snd_nxt: SeqNum, smss: u32) -> u32 {
        let edge = self.lost_edge(smss).map_or(snd_una, |edge| edge.min(snd_nxt).max(snd_una));
        let high_rxt = self.high_rxt.min(snd_nxt).max(snd_una);
        let (mut sacked_above_edge, mut sacked_below_rxt) = (0, 0);
        for range in &self.ranges {
            if range.end.after(edge) {
                sacked_above_edge += range.end.since(range.start.max(edge));
            }
            if range.start.before(high_rxt) {
                sacked_below_rxt += range.end.min(high_rxt).since(range.start);
            }
        }
        snd_nxt.since(edge) - sacked_above_edge + (high_rxt.since(snd_una) - sacked_below_rxt)
    }

    /// What to send next in recovery, by the rules of RFC 6675 §4 (NextSeg); `None` for nothing.
    ///
    /// `can_send_new`: there is unsent data and the peer's window has room for it. That the congestion window has room
    /// is for the caller to see ([`Scoreboard::pipe`]), as is the first segment of a recovery that began with three
    /// duplicate ACKs before anything counted as lost (RFC 6675 §5 step 4.3).
    pub fn next_seg(
        &self,
        snd_una: SeqNum,
        snd_nxt: SeqNum,
        smss: u32,
        can_send_new: bool,
    ) -> Option<NextSeg> {
        let hole = self.next_unsacked(self.high_rxt.max(snd_una), snd_nxt);
        // Rule 1: the first byte above HighRxt that is lost. If the first unSACKed one is not, none is.
        if let Some((seq, end)) = hole
            && self.is_lost(seq, smss)
        {
            return Some(NextSeg::Retransmit { seq, len: end.since(seq).min(smss) });
        }
        // Rule 2.
        if can_send_new {
            return Some(NextSeg::New);
        }
        // Rule 3: as rule 1, but anything below the highest SACKed byte will do.
        if let (Some((seq, end)), Some(highest)) = (hole, self.highest_sacked())
            && seq.before(highest)
        {
            return Some(NextSeg::Retransmit { seq, len: end.since(seq).min(smss) });
        }
        // Rule 4: once per recovery, the segment with the highest outstanding unSACKed byte.
        if self.rescue_rxt.is_none()
            && let Some((start, end)) = self.last_unsacked(snd_una, snd_nxt)
        {
            let len = end.since(start).min(smss);
            return Some(NextSeg::Rescue { seq: end - len, len });
        }
        None
    }

    /// `len` bytes from `seq` on were sent again.
    pub fn on_retransmitted(&mut self, seq: SeqNum, len: u32) {
        self.high_rxt = self.high_rxt.max(seq + len);
    }

    /// The rescue was sent; there is no other in this recovery. HighRxt stays as it is.
    pub fn on_rescued(&mut self) {
        self.rescue_rxt = Some(self.recovery_point);
    }

    /// The first run of unSACKed bytes in `from..until`, as `start..end`.
    pub fn next_unsacked(&self, from: SeqNum, until: SeqNum) -> Option<(SeqNum, SeqNum)> {
        let mut above = self.ranges.iter().skip(self.ranges.partition_point(|r| r.end.at_or_before(from)));
        let mut start = from;
        let mut next = above.next();
        if let Some(range) = next
            && range.start.at_or_before(from)
        {
            start = range.end;
            next = above.next();
        }
        let end = next.map_or(until, |range| range.start.min(until));
        start.before(end).then_some((start, end))
    }

    /// The first run of unSACKed bytes at or after `from` that has SACKed bytes above it, as `start..end`.
    pub fn next_hole(&self, from: SeqNum) -> Option<(SeqNum, SeqNum)> {
        self.next_unsacked(from, self.highest_sacked()?)
    }

    /// The last run of unSACKed bytes, as `start..end`.
    fn last_unsacked(&self, snd_una: SeqNum, snd_nxt: SeqNum) -> Option<(SeqNum, SeqNum)> {
        let mut end = snd_nxt;
        for range in self.ranges.iter().rev() {
            if range.end.before(end) {
                return Some((range.end, end));
            }
            end = range.start;
        }
        snd_una.before(end).then_some((snd_una, end))
    }

    /// Whether the peer discarded bytes that it had SACKed: it has SND.UNA, but does not acknowledge it
    /// (RFC 2018 §8).
    pub fn has_reneged(&self, snd_una: SeqNum) -> bool {
        self.ranges.first().is_some_and(|first| first.start.at_or_before(snd_una))
    }

    /// The retransmission timer expired (RFC 6675 §5.1): all that is outstanding and not SACKed is lost, and
    /// [`Scoreboard::next_seg`] fills it in, lowest first, without a rescue.
    ///
    /// The ranges are kept unless the peer reneged (RFC 2018 §8 wants them turned off, for fear of reneging; RFC 6675
    /// keeps them in use). If the timer expires again, call [`Scoreboard::clear`] first.
    pub fn on_rto(&mut self, snd_una: SeqNum, snd_nxt: SeqNum) {
        if self.has_reneged(snd_una) {
            self.clear();
        }
        self.high_rxt = snd_una;
        self.recovery_point = snd_nxt;
        self.rescue_rxt = Some(snd_nxt);
        self.lost_below = snd_una.before(snd_nxt).then_some(snd_nxt);
    }

    /// Forgets what is SACKed and what is lost, and gives back memory.
    pub fn clear(&mut self) {
        self.ranges = SmallVec::new();
        self.sacked = 0;
        self.lost_below = None;
    }

    /// Checks what holds between calls.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn check_consistency(&self, snd_una: SeqNum, snd_nxt: SeqNum) {
        assert!(self.ranges.len() <= RANGES_MAX, "more SACKed ranges than the limit");
        let mut last = None;
        let mut sacked = 0;
        for range in &self.ranges {
            assert!(range.start.before(range.end), "an empty SACKed range");
            assert!(range.start.at_or_after(snd_una), "a SACKed range below SND.UNA");
            assert!(
                last.is_none_or(|end| range.start.after(end)),
                "SACKed ranges that overlap, touch or descend"
            );
            last = Some(range.end);
            sacked += range.len();
        }
        assert!(last.is_none_or(|end| end.at_or_before(snd_nxt)), "a SACKed range above SND.NXT");
        assert!(sacked == self.sacked, "the count of SACKed bytes is not the sum of the ranges");
        assert!(self.lost_below.is_none_or(|lost| lost.after(snd_una)), "a stale mark of lost bytes");
    }
}

#[cfg(test)]
mod tests;
