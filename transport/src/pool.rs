//! Pools that never move an element, whose keys carry a generation.

use alloc::vec::Vec;
use core::fmt;

use slab::Slab;

use crate::usage::Usage;

/// A place in a [`Pool`]: slot and generation, 28 bits each, so that a worker number fits beside them in a `u64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Position in the pool.
    pub slot: u32,
    /// How often that position had been given out before.
    pub generation: u32,
}

impl Key {
    /// The bits of a slot, and of a generation.
    pub const MASK: u64 = (1 << 28) - 1;
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The pool is at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pool is at its limit: raise the limit or close something first")
    }
}

impl core::error::Error for Full {}

/// Elements per chunk: a chunk is allocated whole and never grows, so nothing in it moves.
const CHUNK: usize = 1024;
const CHUNK_BITS: u32 = CHUNK.trailing_zeros();
/// A slot whose generation would pass this is retired instead of reused.
const GENERATION_MAX: u32 = Key::MASK as u32;

struct Entry<T> {
    generation: u32,
    /// `None` in a slot that is free or retired.
    value: Option<T>,
}

struct Chunk<T> {
    /// Entries are never taken out: that would copy a large value, only to drop the copy.
    slab: Slab<Entry<T>>,
    /// The most entries; the slab's capacity may be more.
    room: usize,
    /// Entries without a value whose slot may be used again, the latest on top: it is in the cache.
    free: Vec<u16>,
}

impl<T> Chunk<T> {
    fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slab.len() < self.room
    }
}

/// Where memory or numbers are taken for a connection: each place can refuse, and a simulated fault makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AllocationPoint {
    /// A half-open session, in its app worker's pool on main.
    HalfOpenSession,
    /// A half-open transport connection, on main.
    HalfOpen,
    /// A 4-tuple, on main.
    Tuple,
    /// A listener, on main.
    Listener,
    /// The flow of a half-open, on its worker.
    HalfOpenFlow,
    /// A record in SYN-RECEIVED.
    SynReceived,
    /// An established transport connection.
    Connection,
    /// A session.
    Session,
    /// A chunk of a fifo.
    FifoChunk,
}

impl AllocationPoint {
    /// All of them, in the order in which a connection meets them.
    pub const ALL: [AllocationPoint; 9] = [
        AllocationPoint::HalfOpenSession,
        AllocationPoint::HalfOpen,
        AllocationPoint::Tuple,
        AllocationPoint::Listener,
        AllocationPoint::HalfOpenFlow,
        AllocationPoint::SynReceived,
        AllocationPoint::Connection,
        AllocationPoint::Session,
        AllocationPoint::FifoChunk,
    ];
}

/// A pool of at most `limit` values in slab chunks of fixed capacity.
///
/// Values never move; a [`Key`] of a value that was removed finds nothing, for ever.
pub struct Pool<T> {
    chunks: Vec<Chunk<T>>,
    /// Chunks with room, as a stack; each at most once.
    roomy: Vec<u32>,
    len: usize,
    /// The largest that `len` was.
    len_max: usize,
    limit: usize,
    retired: usize,
    refusing: bool,
}

impl<T> Pool<T> {
    /// An empty pool of at most `limit` values (2^28 at most); memory is taken chunk by chunk as it fills.
    pub fn new(limit: usize) -> Pool<T> {
        let limit = limit.min(1 << 28);
        Pool { chunks: Vec::new(), roomy: Vec::new(), len: 0, len_max: 0, limit, retired: 0, refusing: false }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most values it holds.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What it holds of its limit, and in how much memory.
    pub fn usage(&self) -> Usage {
        /// As large as what a slab keeps for an element.
        #[expect(dead_code, reason = "only its size is of interest")]
        enum Place<T> {
            Vacant(usize),
            Occupied(Entry<T>),
        }
        let element_bytes = size_of::<Place<T>>();
        let of_chunk = |chunk: &Chunk<T>| {
            chunk.slab.capacity() * element_bytes + chunk.free.capacity() * size_of::<u16>()
        };
        Usage {
            used: self.len,
            high_water: Some(self.len_max),
            limit: Some(self.limit),
            element_bytes,
            held_bytes: self.chunks.iter().map(of_chunk).sum(),
        }
    }

    /// Whether [`Pool::insert`] would return [`Full`].
    pub fn is_full(&self) -> bool {
        self.refusing || self.len + self.retired >= self.limit
    }

    /// From now on every insertion finds the pool full, or no longer so: for simulated faults.
    pub fn set_refusing(&mut self, refusing: bool) {
        self.refusing = refusing;
    }

    /// Puts a value in.
    ///
    /// # Errors
    /// [`Full`] at the limit.
    pub fn insert(&mut self, value: T) -> Result<Key, Full> {
        self.insert_with(|_| value)
    }

    /// Puts in the value that `make` returns for its own key.
    ///
    /// # Errors
    /// [`Full`] at the limit; `make` is then not called.
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Result<Key, Full> {
        if self.is_full() {
            return Err(Full);
        }
        let c = match self.roomy.last() {
            Some(&c) => c as usize,
            None => {
                let room = CHUNK.min(self.limit - self.chunks.len() * CHUNK);
                self.chunks.push(Chunk { slab: Slab::with_capacity(room), room, free: Vec::new() });
                self.roomy.push(self.chunks.len() as u32 - 1);
                self.chunks.len() - 1
            }
        };
        let chunk = &mut self.chunks[c];
        let key_of =
            |slot: usize, generation| Key { slot: ((c as u32) << CHUNK_BITS) | slot as u32, generation };
        let key = if let Some(&slot) = chunk.free.last() {
            let entry = &mut chunk.slab[slot.into()];
            let key = key_of(slot.into(), entry.generation);
            entry.value = Some(make(key));
            chunk.free.pop();
            key
        } else {
            let vacant = chunk.slab.vacant_entry();
            let key = key_of(vacant.key(), 0);
            vacant.insert(Entry { generation: 0, value: Some(make(key)) });
            key
        };
        if !chunk.has_room() {
            self.roomy.pop();
        }
        self.len += 1;
        self.len_max = self.len_max.max(self.len);
        Ok(key)
    }

    /// The value at `key`, unless it was removed.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        let chunk = self.chunks.get((key.slot >> CHUNK_BITS) as usize)?;
        let entry = chunk.slab.get(key.slot as usize & (CHUNK - 1))?;
        if entry.generation == key.generation { entry.value.as_ref() } else { None }
    }

    /// The value at `key`, unless it was removed.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.get_slot_mut(key)?.as_mut()
    }

    /// Whether `key` names a value.
    pub fn contains(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// The value in `slot` and its key, whatever its generation: for walks in slices and for tables that hold slots.
    #[inline]
    pub fn at_slot(&self, slot: u32) -> Option<(Key, &T)> {
        let chunk = self.chunks.get((slot >> CHUNK_BITS) as usize)?;
        let entry = chunk.slab.get(slot as usize & (CHUNK - 1))?;
        Some((Key { slot, generation: entry.generation }, entry.value.as_ref()?))
    }

    /// One past the highest slot ever used: the end of a walk with [`Pool::at_slot`].
    pub fn slot_end(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    /// Takes the value at `key` out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let value = self.get_slot_mut(key)?.take()?;
        self.vacate(key);
        Some(value)
    }

    /// Drops the value at `key` where it is: cheaper than [`Pool::remove`] for a large one. Whether there was one.
    pub fn discard(&mut self, key: Key) -> bool {
        let Some(slot) = self.get_slot_mut(key).filter(|slot| slot.is_some()) else { return false };
        *slot = None;
        self.vacate(key);
        true
    }

    /// The place of `key`'s value, taken or not.
    #[inline]
    fn get_slot_mut(&mut self, key: Key) -> Option<&mut Option<T>> {
        let chunk = self.chunks.get_mut((key.slot >> CHUNK_BITS) as usize)?;
        let entry = chunk.slab.get_mut(key.slot as usize & (CHUNK - 1))?;
        (entry.generation == key.generation).then_some(&mut entry.value)
    }

    /// The slot of `key`, whose value is gone, is free.
    fn vacate(&mut self, key: Key) {
        self.len -= 1;
        if key.generation >= GENERATION_MAX {
            // It stays occupied by nothing, for ever: its generation would wrap and a stale key would match.
            self.retired += 1;
            return;
        }
        let c = key.slot >> CHUNK_BITS;
        let (chunk, slot) = (&mut self.chunks[c as usize], key.slot as usize & (CHUNK - 1));
        if !chunk.has_room() {
            self.roomy.push(c);
        }
        chunk.slab[slot].generation = key.generation + 1;
        // Cannot cut: a slot of a chunk.
        chunk.free.push(slot as u16);
    }

    /// All values, with their keys, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.chunks.iter().enumerate().flat_map(|(c, chunk)| {
            chunk.slab.iter().filter_map(move |(slot, entry)| {
                let key =
                    Key { slot: ((c as u32) << CHUNK_BITS) | slot as u32, generation: entry.generation };
                entry.value.as_ref().map(|value| (key, value))
            })
        })
    }

    /// The first key of a slot, set as if it had been reused `generation` times.
    #[cfg(test)]
    fn age(&mut self, slot: u32, generation: u32) {
        self.chunks[(slot >> CHUNK_BITS) as usize].slab[slot as usize & (CHUNK - 1)].generation = generation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_removed_key_finds_nothing_even_when_its_slot_is_reused() {
        let mut pool = Pool::new(4);
        let first = pool.insert('a').unwrap();
        assert_eq!(pool.remove(first), Some('a'));
        let second = pool.insert('b').unwrap();
        assert_eq!(first.slot, second.slot);
        assert_eq!(pool.get(first), None);
        assert_eq!(pool.remove(first), None);
        assert_eq!(pool.get(second), Some(&'b'));
    }

    #[test]
    fn usage_tells_what_is_held_and_what_was_the_most() {
        let mut pool = Pool::new(3000);
        assert_eq!(pool.usage().held_bytes, 0, "nothing is taken before it is needed");
        let keys: Vec<Key> = (0..1500u64).map(|n| pool.insert(n).unwrap()).collect();
        for key in &keys[..1400] {
            pool.remove(*key).unwrap();
        }
        let usage = pool.usage();
        assert_eq!((usage.used, usage.high_water, usage.limit), (100, Some(1500), Some(3000)));
        assert!(usage.element_bytes >= size_of::<u64>() + size_of::<u32>());
        assert!(usage.held_bytes >= 2 * CHUNK * usage.element_bytes, "whole chunks are kept");
    }

    #[test]
    fn a_slot_whose_generation_would_wrap_is_retired() {
        let mut pool = Pool::new(2);
        let key = pool.insert(0).unwrap();
        pool.remove(key).unwrap();
        pool.age(key.slot, GENERATION_MAX);
        let last = pool.insert(1).unwrap();
        assert_eq!(last, Key { slot: key.slot, generation: GENERATION_MAX });
        assert_eq!(pool.remove(last), Some(1));
        assert_eq!(pool.get(last), None);
        assert_eq!(pool.remove(last), None);
        let other = pool.insert(2).unwrap();
        assert_ne!(other.slot, key.slot);
        assert_eq!(pool.insert(3), Err(Full), "the retired slot counts against the limit");
        assert_eq!(pool.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        // covers: D15, D16
        #[test]
        fn behaves_as_a_map_of_keys(steps in proptest::collection::vec((any::<bool>(), 0usize..3000), 0..4000)) {
            let mut pool = Pool::new(2500);
            let mut model = alloc::collections::BTreeMap::new();
            let mut dead = Vec::new();
            for (n, (put, pick)) in steps.into_iter().enumerate() {
                if put {
                    match pool.insert(n) {
                        Ok(key) => prop_assert!(model.insert(key, n).is_none()),
                        Err(Full) => prop_assert_eq!(model.len(), 2500),
                    }
                } else if let Some((&key, &value)) = model.iter().nth(pick % model.len().max(1)) {
                    prop_assert_eq!(pool.remove(key), Some(value));
                    model.remove(&key);
                    dead.push(key);
                }
            }
            prop_assert_eq!(pool.len(), model.len());
            prop_assert!(pool.iter().map(|(k, &v)| (k, v)).eq(model.into_iter()));
            prop_assert!(dead.into_iter().all(|key| !pool.contains(key)));
        }
    }
}
