//! Which bytes beyond the in-order ones are held: ascending, disjoint, non-adjacent ranges, a bounded number of them.
//!
//! Knows offsets only, no bytes.

use hoststack_transport::OooRange;

use super::index;

/// The most ranges of out-of-order data that a fifo keeps; data that would open another is refused. Enough for a
/// window with a loss in every other segment of a 128-segment flight; a peer that makes more is not owed memory.
pub const OOO_RANGES_MAX: usize = 64;

/// Ranges of out-of-order data. While a segment is being stored, a first range that starts at 0 is the new in-order
/// data; [`take_in_order`](OooRanges::take_in_order) removes it.
pub(super) struct OooRanges {
    count: u32,
    ranges: [OooRange; OOO_RANGES_MAX + 1],
}

impl OooRanges {
    pub(super) const fn new() -> Self {
        OooRanges { count: 0, ranges: [OooRange { start: 0, end: 0 }; OOO_RANGES_MAX + 1] }
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[OooRange] {
        &self.ranges[..index(self.count)]
    }

    /// The first range that ends after `offset`, by position.
    #[inline]
    fn position(&self, offset: u32) -> usize {
        // New data most often lies behind all that is held.
        match self.as_slice().last() {
            Some(last) if last.end > offset => self.as_slice().partition_point(|range| range.end <= offset),
            _ => index(self.count),
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
        let (i, count) = (self.position(start), index(self.count));
        let joins_left = i > 0 && self.ranges[i - 1].end == start;
        let joins_right = i < count && self.ranges[i].start == end;
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[i - 1].end = self.ranges[i].end;
                self.remove(i);
            }
            (true, false) => self.ranges[i - 1].end = end,
            (false, true) => self.ranges[i].start = start,
            (false, false) => {
                self.ranges.copy_within(i..count, i + 1);
                self.ranges[i] = OooRange { start, end };
                self.count += 1;
            }
        }
    }

    fn remove(&mut self, i: usize) {
        self.ranges.copy_within(i + 1..index(self.count), i);
        self.count -= 1;
    }

    /// Removes the range that starts at 0, if there is one, and counts the others from its end. Returns its length.
    pub(super) fn take_in_order(&mut self) -> u32 {
        let Some(&OooRange { start: 0, end }) = self.as_slice().first() else { return 0 };
        self.remove(0);
        for range in &mut self.ranges[..index(self.count)] {
            range.start -= end;
            range.end -= end;
        }
        end
    }

    /// Removes the last range.
    pub(super) fn pop(&mut self) -> Option<OooRange> {
        let last = self.as_slice().last().copied()?;
        self.count -= 1;
        Some(last)
    }

    pub(super) fn clear(&mut self) {
        self.count = 0;
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
