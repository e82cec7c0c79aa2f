//! Which bytes beyond the in-order ones are held: ascending, disjoint, non-adjacent ranges, a bounded number of them.
//!
//! Knows offsets only, no bytes.

use hoststack_transport::OooRange;
use smallvec::SmallVec;

/// The most ranges of out-of-order data that a fifo keeps; data that would open another is refused. Enough for a loss of
/// one in twenty on a path that holds 30 MB; 8 KiB that a peer makes us look at with a segment, at worst, and no more
/// (CVE-2018-5390).
pub const OOO_RANGES_MAX: usize = 1024;
/// Ranges kept without memory of their own.
const RANGES_INLINE: usize = 32;

/// Ranges of out-of-order data. While a segment is being stored, a first range that starts at 0 is the new in-order
/// data; [`take_in_order`](OooRanges::take_in_order) removes it.
pub(super) struct OooRanges {
    ranges: SmallVec<[OooRange; RANGES_INLINE]>,
}

impl OooRanges {
    pub(super) fn new() -> Self {
        OooRanges { ranges: SmallVec::new() }
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[OooRange] {
        &self.ranges
    }

    /// The first range that ends after `offset`, by position.
    #[inline]
    fn position(&self, offset: u32) -> usize {
        // New data most often lies behind all that is held.
        match self.as_slice().last() {
            Some(last) if last.end > offset => self.as_slice().partition_point(|range| range.end <= offset),
            _ => self.ranges.len(),
        }
    }

    /// The first range that ends after `offset`.
    #[inline]
    pub(super) fn find(&self, offset: u32) -> Option<OooRange> {
        self.as_slice().get(self.position(offset)).copied()
    }

    /// Whether a hole's bytes `start..end` may be added: they touch a range, are in order, or there is room for one
    /// more range.
    pub(super) fn accepts(&self, start: u32, end: u32) -> bool {
        let held = self.as_slice();
        let ooo = held.len() - usize::from(held.first().is_some_and(|range| range.start == 0));
        if start == 0 || ooo < OOO_RANGES_MAX {
            return true;
        }
        let i = self.position(start);
        (i > 0 && held[i - 1].end == start) || held.get(i).is_some_and(|range| range.start == end)
    }

    /// Adds `start..end`, which no range overlaps and which was [accepted](Self::accepts).
    pub(super) fn add(&mut self, start: u32, end: u32) {
        let (i, count) = (self.position(start), self.ranges.len());
        let joins_left = i > 0 && self.ranges[i - 1].end == start;
        let joins_right = i < count && self.ranges[i].start == end;
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[i - 1].end = self.ranges[i].end;
                self.ranges.remove(i);
            }
            (true, false) => self.ranges[i - 1].end = end,
            (false, true) => self.ranges[i].start = start,
            (false, false) => self.ranges.insert(i, OooRange { start, end }),
        }
    }

    /// Removes the range that starts at 0, if there is one, and counts the others from its end. Returns its length.
    pub(super) fn take_in_order(&mut self) -> u32 {
        let Some(&OooRange { start: 0, end }) = self.as_slice().first() else { return 0 };
        self.ranges.remove(0);
        for range in &mut self.ranges {
            range.start -= end;
            range.end -= end;
        }
        end
    }

    /// Removes the last range.
    pub(super) fn pop(&mut self) -> Option<OooRange> {
        self.ranges.pop()
    }

    /// Forgets all, and gives back memory of its own.
    pub(super) fn clear(&mut self) {
        self.ranges = SmallVec::new();
    }

    /// Asserts that the ranges are what the module says.
    pub(super) fn check(&self) {
        assert!(!self.as_slice().is_empty(), "an empty range list is kept");
        assert!(self.as_slice().len() <= OOO_RANGES_MAX, "more ranges than the limit");
        let mut last = 0;
        for range in self.as_slice() {
            assert!(last < range.start && range.start < range.end, "ranges overlap, touch or are empty");
            last = range.end;
        }
    }
}
