//! A table of 64-bit words in buckets of one cache line: what a stack finds flows and 4-tuples by.
//!
//! A lookup costs one cache miss: eight words lie together, and each carries the upper half of its hash, which both
//! chooses its bucket and tells it from its neighbours. The lower half is the owner's. Eight bytes a word, no pointer,
//! no allocation but when it grows.

use alloc::vec;
use alloc::vec::Vec;

use crate::usage::Usage;

const WORDS: usize = 8;

/// A bucket: zero words are empty, and behind the others only until a removal.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Bucket([u64; WORDS]);

const EMPTY: Bucket = Bucket([0; WORDS]);

/// A table of words that are not 0. The upper 32 bits of a word are the hash that it is found by.
pub struct WordTable {
    buckets: Vec<Bucket>,
    len: usize,
}

impl WordTable {
    /// With room for `words` before it grows.
    pub fn with_capacity(words: usize) -> WordTable {
        WordTable { buckets: vec![EMPTY; buckets_for(words)], len: 0 }
    }

    /// Words held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// What it holds, and in how much memory.
    pub fn usage(&self) -> Usage {
        Usage {
            used: self.len,
            element_bytes: size_of::<u64>(),
            held_bytes: self.buckets.capacity() * size_of::<Bucket>(),
            ..Usage::default()
        }
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A word of this hash for which `is_it` holds.
    #[inline]
    pub fn find(&self, hash: u32, mut is_it: impl FnMut(u64) -> bool) -> Option<u64> {
        let mut at = self.home(hash);
        loop {
            let Bucket(words) = &self.buckets[at];
            let mut has_room = false;
            for &word in words {
                has_room |= word == 0;
                if (word >> 32) as u32 == hash && word != 0 && is_it(word) {
                    return Some(word);
                }
            }
            if has_room {
                return None;
            }
            at = self.next(at);
        }
    }

    /// Puts a word in, even if an equal one is there.
    ///
    /// # Panics
    /// On 0, which means "empty".
    #[inline]
    pub fn insert(&mut self, word: u64) {
        assert!(word != 0, "0 is no word");
        if self.len >= self.buckets.len() * WORDS * 5 / 8 {
            self.grow();
        }
        self.put(word);
        self.len += 1;
    }

    /// Puts `new` where `old` is; both have the same upper half. Says whether `old` was there.
    #[inline]
    pub fn replace(&mut self, old: u64, new: u64) -> bool {
        debug_assert_eq!(old >> 32, new >> 32, "a word stays in its bucket");
        match self.place(old) {
            Some((bucket, slot)) => {
                self.buckets[bucket].0[slot] = new;
                true
            }
            None => false,
        }
    }

    /// Takes a word out. Says whether it was there.
    pub fn remove(&mut self, word: u64) -> bool {
        let Some((mut bucket, mut slot)) = self.place(word) else { return false };
        self.len -= 1;
        // A full bucket may have sent words on: one of them comes back into the gap, or a lookup would stop here.
        loop {
            let was_full = !self.buckets[bucket].0.contains(&0);
            self.buckets[bucket].0[slot] = 0;
            if !was_full {
                return true;
            }
            let Some((from, at)) = self.find_displaced(bucket) else { return true };
            self.buckets[bucket].0[slot] = self.buckets[from].0[at];
            (bucket, slot) = (from, at);
        }
    }

    /// A word in the buckets behind `gap` that a lookup would reach through it.
    fn find_displaced(&self, gap: usize) -> Option<(usize, usize)> {
        let mut at = self.next(gap);
        let mut distance = 1;
        loop {
            let Bucket(words) = &self.buckets[at];
            for (slot, &word) in words.iter().enumerate() {
                if word != 0 && self.distance(self.home((word >> 32) as u32), at) >= distance {
                    return Some((at, slot));
                }
            }
            if words.contains(&0) || distance == self.buckets.len() {
                return None;
            }
            at = self.next(at);
            distance += 1;
        }
    }

    /// All words.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().flat_map(|bucket| bucket.0).filter(|&word| word != 0)
    }

    fn place(&self, word: u64) -> Option<(usize, usize)> {
        let mut at = self.home((word >> 32) as u32);
        loop {
            let Bucket(words) = &self.buckets[at];
            if let Some(slot) = words.iter().position(|&other| other == word) {
                return (word != 0).then_some((at, slot));
            }
            if words.contains(&0) {
                return None;
            }
            at = self.next(at);
        }
    }

    fn put(&mut self, word: u64) {
        let mut at = self.home((word >> 32) as u32);
        loop {
            if let Some(slot) = self.buckets[at].0.iter().position(|&other| other == 0) {
                self.buckets[at].0[slot] = word;
                return;
            }
            at = self.next(at);
        }
    }

    #[cold]
    fn grow(&mut self) {
        let doubled = vec![EMPTY; self.buckets.len() * 2];
        for bucket in core::mem::replace(&mut self.buckets, doubled) {
            for word in bucket.0 {
                if word != 0 {
                    self.put(word);
                }
            }
        }
    }

    /// The number of buckets is a power of two. The lower bits choose: the upper ones steer flows to workers.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }

    #[inline]
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.buckets.len() - 1)
    }
}

fn buckets_for(words: usize) -> usize {
    (words * 8 / 5 / WORDS + 1).next_power_of_two().max(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_set_even_where_hashes_crowd(
            steps in proptest::collection::vec((any::<bool>(), 0u32..40, 1u32..60), 0..2000),
        ) {
            let mut table = WordTable::with_capacity(1);
            let mut model = alloc::collections::BTreeSet::new();
            for (put, hash, low) in steps {
                // Few hashes, many words: buckets overflow into their neighbours.
                let word = u64::from(hash) << 32 | u64::from(low);
                if put {
                    if model.insert(word) {
                        table.insert(word);
                    }
                } else {
                    prop_assert_eq!(table.remove(word), model.remove(&word));
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.find(hash, |found| found == word).is_some(), model.contains(&word));
            }
            for &word in &model {
                prop_assert_eq!(table.find((word >> 32) as u32, |found| found == word), Some(word));
            }
            let mut all: Vec<u64> = table.iter().collect();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(model.into_iter()));
        }
    }

    #[test]
    fn a_replaced_word_is_found_and_the_old_one_is_not() {
        let mut table = WordTable::with_capacity(8);
        table.insert(7 << 32 | 1);
        assert!(table.replace(7 << 32 | 1, 7 << 32 | 2));
        assert!(!table.replace(7 << 32 | 1, 7 << 32 | 3));
        assert_eq!(table.find(7, |_| true), Some(7 << 32 | 2));
    }
}
