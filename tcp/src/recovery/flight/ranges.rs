//! The ranges themselves: a deque in chunks, so that one range in the middle becomes two, or two one, by moving no more
//! than a chunk of them, however many are in flight. In a steady flow nothing is allocated: the chunk that empties in
//! front is the next one at the back.

use alloc::collections::VecDeque;
use core::ops::{Index, IndexMut};

use hoststack_wire::SeqNum;

use super::Sent;

/// Ranges in a chunk, at most. 64 are some 2.5 KB to move at worst; and 10^5 ranges are few enough chunks that one more
/// among them costs little.
const CHUNK: usize = 64;

/// Where a range is, until ranges are inserted or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    chunk: usize,
    index: usize,
}

/// Ranges in ascending order.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// None of them is empty.
    chunks: VecDeque<VecDeque<Sent>>,
    len: usize,
    /// An empty chunk to be used next.
    spare: VecDeque<Sent>,
}

impl Ranges {
    /// Forgets all; keeps one chunk's memory.
    pub(super) fn clear(&mut self) {
        if let Some(mut chunk) = self.chunks.pop_front() {
            chunk.clear();
            self.spare = chunk;
        }
        self.chunks.clear();
        self.chunks.shrink_to(16);
        self.len = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn first(&self) -> Option<&Sent> {
        self.chunks.front()?.front()
    }

    pub(super) fn last(&self) -> Option<&Sent> {
        self.chunks.back()?.back()
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Sent> {
        self.chunks.back_mut()?.back_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Sent> {
        self.chunks.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Sent> {
        self.chunks.iter_mut().flatten()
    }

    #[inline]
    pub(super) fn push_back(&mut self, sent: Sent) {
        self.len += 1;
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push_back(sent),
            _ => {
                let mut chunk = core::mem::take(&mut self.spare);
                chunk.push_back(sent);
                self.chunks.push_back(chunk);
            }
        }
    }

    pub(super) fn pop_front(&mut self) {
        self.remove(Place { chunk: 0, index: 0 });
    }

    pub(super) fn pop_back(&mut self) {
        if let Some(place) = self.last_place() {
            self.remove(place);
        }
    }

    fn last_place(&self) -> Option<Place> {
        let chunk = self.chunks.len().checked_sub(1)?;
        Some(Place { chunk, index: self.chunks[chunk].len() - 1 })
    }

    /// The first range that ends after `seq`.
    pub(super) fn find(&self, seq: SeqNum) -> Option<Place> {
        let is_below = |sent: &Sent| sent.end.at_or_before(seq);
        let chunk = self.chunks.partition_point(|chunk| chunk.back().is_none_or(is_below));
        let index = self.chunks.get(chunk)?.partition_point(is_below);
        Some(Place { chunk, index })
    }

    /// The place after this one.
    pub(super) fn next(&self, Place { chunk, index }: Place) -> Option<Place> {
        if index + 1 < self.chunks[chunk].len() {
            return Some(Place { chunk, index: index + 1 });
        }
        (chunk + 1 < self.chunks.len()).then_some(Place { chunk: chunk + 1, index: 0 })
    }

    /// The place before this one.
    pub(super) fn previous(&self, Place { chunk, index }: Place) -> Option<Place> {
        if let Some(index) = index.checked_sub(1) {
            return Some(Place { chunk, index });
        }
        let chunk = chunk.checked_sub(1)?;
        Some(Place { chunk, index: self.chunks[chunk].len() - 1 })
    }

    /// Puts `sent` before the range at `place`; returns where both are then.
    pub(super) fn insert(&mut self, mut place: Place, sent: Sent) -> (Place, Place) {
        if self.chunks[place.chunk].len() == CHUNK {
            let mut upper = core::mem::take(&mut self.spare);
            upper.extend(self.chunks[place.chunk].drain(CHUNK / 2..));
            self.chunks.insert(place.chunk + 1, upper);
            if place.index > CHUNK / 2 {
                place = Place { chunk: place.chunk + 1, index: place.index - CHUNK / 2 };
            }
        }
        self.chunks[place.chunk].insert(place.index, sent);
        self.len += 1;
        let after = self.next(place).unwrap_or_else(|| unreachable!("it was pushed up by the one before it"));
        (place, after)
    }

    /// Takes the range at `place` out. Places before it stay as they are.
    pub(super) fn remove(&mut self, place: Place) {
        let Some(chunk) = self.chunks.get_mut(place.chunk) else { return };
        if chunk.remove(place.index).is_some() {
            self.len -= 1;
        }
        if chunk.is_empty()
            && let Some(chunk) = self.chunks.remove(place.chunk)
        {
            self.spare = chunk;
        }
    }
}

impl Index<Place> for Ranges {
    type Output = Sent;

    fn index(&self, place: Place) -> &Sent {
        &self.chunks[place.chunk][place.index]
    }
}

impl IndexMut<Place> for Ranges {
    fn index_mut(&mut self, place: Place) -> &mut Sent {
        &mut self.chunks[place.chunk][place.index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Snapshot;
    use alloc::vec::Vec;
    use hoststack_transport::Instant;
    use proptest::prelude::*;

    fn sent(end: u32) -> Sent {
        Sent::new(SeqNum(end), Instant::ZERO, Snapshot::default())
    }

    proptest! {
        /// Against a vector: each step is what is done and, of what is there, where.
        #[test]
        fn chunks_hold_what_a_vector_would(steps in prop::collection::vec((0u8..8, any::<u16>()), 1..2000)) {
            let (mut ranges, mut model) = (Ranges::default(), Vec::<u32>::new());
            for (what, place) in steps {
                let at = usize::from(place) % model.len().max(1);
                let below = at.checked_sub(1).map_or(0, |at| model[at]);
                match what {
                    0..=2 => {
                        let end = model.last().copied().unwrap_or(0) + 1000;
                        model.push(end);
                        ranges.push_back(sent(end));
                    }
                    3..=5 if !model.is_empty() && model[at] > below + 1 => {
                        let found = ranges.find(SeqNum(below)).unwrap();
                        prop_assert_eq!(ranges[found].end.0, model[at]);
                        let middle = below + (model[at] - below) / 2;
                        let (lower, upper) = ranges.insert(found, sent(middle));
                        prop_assert_eq!((ranges[lower].end.0, ranges[upper].end.0), (middle, model[at]));
                        prop_assert_eq!(ranges.previous(upper), Some(lower));
                        model.insert(at, middle);
                    }
                    6 if !model.is_empty() => {
                        ranges.remove(ranges.find(SeqNum(below)).unwrap());
                        model.remove(at);
                    }
                    7 if !model.is_empty() => {
                        ranges.pop_front();
                        model.remove(0);
                    }
                    _ => {}
                }
                prop_assert_eq!(ranges.len(), model.len());
                prop_assert!(ranges.iter().map(|sent| sent.end.0).eq(model.iter().copied()));
                prop_assert!(ranges.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
            }
        }
    }
}
