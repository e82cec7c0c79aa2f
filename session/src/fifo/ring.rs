//! Bytes in order over chunks: a run of `len` bytes, any offset of it found in O(1).
//!
//! The map from byte position to chunk is a ring of chunk ids whose size is a power of two: two ids inline, which is
//! all that a fifo of a few segments needs, or a boxed ring that grows by doubling and goes back to the pool when the
//! fifo empties. Places beyond `len` may hold chunks too (out-of-order data, a reservation): they are the owner's to
//! account for.

use std::iter::FusedIterator;

use super::chunk::{ChunkId, ChunkPool};
use super::{copy_bytes, index};

/// The chunk map: its length is a power of two, a place without a chunk holds [`ChunkId::NONE`].
enum Slots {
    Inline([ChunkId; 2]),
    Boxed(Box<[ChunkId]>),
}

impl Slots {
    const EMPTY: Slots = Slots::Inline([ChunkId::NONE; 2]);

    #[inline]
    fn as_slice(&self) -> &[ChunkId] {
        match self {
            Slots::Inline(slots) => slots,
            Slots::Boxed(slots) => slots,
        }
    }

    #[inline]
    fn as_mut_slice(&mut self) -> &mut [ChunkId] {
        match self {
            Slots::Inline(slots) => slots,
            Slots::Boxed(slots) => slots,
        }
    }
}

/// Bytes in a chunk.
#[inline]
fn chunk_size(pool: &ChunkPool) -> u32 {
    1 << pool.chunk_bits()
}

/// A run of bytes over chunks. All offsets are from its front.
pub(super) struct ByteRing {
    slots: Slots,
    /// Position of the front, in bytes, within the ring of slots.
    start: u32,
    len: u32,
}

const _: () = assert!(size_of::<ByteRing>() == 24, "an idle fifo is at most 32 bytes");

impl ByteRing {
    pub(super) const fn new() -> Self {
        ByteRing { slots: Slots::EMPTY, start: 0, len: 0 }
    }

    /// Bytes in order.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Slot of `offset`, when the ring reaches that far, and the byte within its chunk.
    #[inline]
    fn place(&self, pool: &ChunkPool, offset: u32) -> (Option<usize>, usize) {
        // Cannot overflow: the front lies in the first half of u32 and an offset is at most BYTES_MAX.
        let in_chunk = chunk_size(pool) - 1;
        let from_head = (self.start & in_chunk) + offset;
        let slots = self.slots.as_slice().len();
        let nth = index(from_head >> pool.chunk_bits());
        let slot = (nth < slots).then(|| (index(self.start >> pool.chunk_bits()) + nth) & (slots - 1));
        (slot, index(from_head & in_chunk))
    }

    /// The chunk that holds `offset`, if there is one, and the byte within it.
    #[inline]
    fn chunk(&self, pool: &ChunkPool, offset: u32) -> (ChunkId, usize) {
        let (slot, at) = self.place(pool, offset);
        (slot.map_or(ChunkId::NONE, |slot| self.slots.as_slice()[slot]), at)
    }

    /// The chunk for `offset`, taken from the pool when there is none yet, and the byte within it.
    #[inline]
    pub(super) fn chunk_or_alloc(&mut self, pool: &mut ChunkPool, offset: u32) -> Option<(ChunkId, usize)> {
        let (slot, at) = self.place(pool, offset);
        let slot = match slot {
            Some(slot) => slot,
            None if pool.available() == 0 => return None,
            None => {
                self.widen(pool, offset);
                self.place(pool, offset).0?
            }
        };
        let id = &mut self.slots.as_mut_slice()[slot];
        if *id == ChunkId::NONE {
            *id = pool.alloc()?;
        }
        Some((*id, at))
    }

    /// Widens the map so that it reaches `offset`.
    #[cold]
    fn widen(&mut self, pool: &mut ChunkPool, offset: u32) {
        let nth = index(((self.start & (chunk_size(pool) - 1)) + offset) >> pool.chunk_bits());
        let mut wide = pool.take_ring((nth + 1).next_power_of_two());
        let head = index(self.start >> pool.chunk_bits());
        let old = self.slots.as_mut_slice();
        for (n, slot) in wide.iter_mut().take(old.len()).enumerate() {
            *slot = std::mem::replace(&mut old[(head + n) & (old.len() - 1)], ChunkId::NONE);
        }
        self.start &= chunk_size(pool) - 1;
        if let Slots::Boxed(old) = std::mem::replace(&mut self.slots, Slots::Boxed(wide)) {
            pool.give_ring(old);
        }
    }

    /// Appends as much of `data` as there are chunks for. Returns how much.
    #[inline]
    pub(super) fn append(&mut self, pool: &mut ChunkPool, data: &[u8]) -> u32 {
        let done = self.write(pool, self.len, data);
        self.len += done;
        done
    }

    /// Writes `data` at `offset`, as much as there are chunks for. Returns how much. Does not change the length.
    #[inline]
    pub(super) fn write(&mut self, pool: &mut ChunkPool, offset: u32, data: &[u8]) -> u32 {
        let mut done = 0;
        while done < data.len() {
            // `done` stays below the length of a fifo, so it fits.
            let Some((id, at)) = self.chunk_or_alloc(pool, offset + done as u32) else { break };
            let room = &mut pool.bytes_mut(id)[at..];
            let count = room.len().min(data.len() - done);
            copy_bytes(&mut room[..count], &data[done..done + count]);
            done += count;
        }
        done as u32
    }

    /// How many of `count` bytes at `offset` could be written with at most `budget` new chunks.
    pub(super) fn writable(&self, pool: &ChunkPool, offset: u32, count: u32, mut budget: usize) -> u32 {
        let mut done = 0;
        while done < count {
            let (id, at) = self.chunk(pool, offset + done);
            if id == ChunkId::NONE {
                if budget == 0 {
                    break;
                }
                budget -= 1;
            }
            done += chunk_size(pool) - at as u32; // cannot fail because a place is below the chunk size
        }
        done.min(count)
    }

    /// Counts `count` bytes that were written at the end as in order.
    #[inline]
    pub(super) fn extend(&mut self, count: u32) {
        self.len += count;
    }

    /// Room to write at the end without crossing into another chunk; takes the chunk when there is none.
    pub(super) fn tail_mut<'a>(&mut self, pool: &'a mut ChunkPool) -> &'a mut [u8] {
        match self.chunk_or_alloc(pool, self.len) {
            Some((id, at)) => &mut pool.bytes_mut(id)[at..],
            None => &mut [],
        }
    }

    /// The chunk that holds `offset`, which must be written, and the byte within it.
    pub(super) fn written(&self, pool: &ChunkPool, offset: u32) -> (ChunkId, usize) {
        let place = self.chunk(pool, offset);
        assert!(place.0 != ChunkId::NONE, "no bytes are held at that offset");
        place
    }

    /// The written bytes at `offset`, up to the end of their chunk.
    #[inline]
    pub(super) fn piece<'a>(&self, pool: &'a ChunkPool, offset: u32) -> &'a [u8] {
        let (id, at) = self.written(pool, offset);
        &pool.bytes(id)[at..]
    }

    /// Copies the written bytes at `offset` into all of `into`.
    #[inline]
    pub(super) fn copy(&self, pool: &ChunkPool, offset: u32, into: &mut [u8]) {
        let mut done = 0;
        while done < into.len() {
            let piece = self.piece(pool, offset + done as u32); // fits: below the length of a fifo
            let count = piece.len().min(into.len() - done);
            copy_bytes(&mut into[done..done + count], &piece[..count]);
            done += count;
        }
    }

    /// The `count` written bytes at `offset` as contiguous slices.
    pub(super) fn slices<'a>(&'a self, pool: &'a ChunkPool, offset: u32, count: u32) -> Slices<'a> {
        Slices { ring: self, pool, offset, left: count }
    }

    /// Drops `count` bytes at the front, which must be there, and frees the chunks that they filled.
    #[inline]
    pub(super) fn advance(&mut self, pool: &mut ChunkPool, count: u32) {
        assert!(count <= self.len, "took more bytes than the fifo holds");
        let bits = pool.chunk_bits();
        let slots = self.slots.as_mut_slice();
        let mask = slots.len() - 1;
        let head = index(self.start >> bits);
        let passed = index(((self.start & (chunk_size(pool) - 1)) + count) >> bits);
        for n in 0..passed {
            let id = std::mem::replace(&mut slots[(head + n) & mask], ChunkId::NONE);
            pool.free(id);
        }
        // Bytes in the ring of slots: at most 2^31, a power of two.
        self.start = (self.start + count) & (((slots.len() as u32) << bits) - 1);
        self.len -= count;
    }

    /// Takes the first chunk out, with the first `count` bytes, which are all that it holds of use.
    pub(super) fn take_front(&mut self, pool: &ChunkPool, count: u32) -> ChunkId {
        let slots = self.slots.as_mut_slice();
        let head = index(self.start >> pool.chunk_bits());
        let id = std::mem::replace(&mut slots[head], ChunkId::NONE);
        // Bytes in the ring of slots: at most 2^31, a power of two.
        self.start = (self.start + count) & (((slots.len() as u32) << pool.chunk_bits()) - 1);
        self.len -= count;
        id
    }

    /// Whether a chunk whose bytes begin at `at` can be linked in at the end: this ring is empty, or both are at a
    /// chunk's edge. The ring must hold no chunk beyond its bytes.
    pub(super) fn takes_chunk(&self, pool: &ChunkPool, at: usize) -> bool {
        self.len == 0 || (at == 0 && self.place(pool, self.len).1 == 0)
    }

    /// Links a chunk in at the end, whose `count` bytes begin at `at`; see [`takes_chunk`](Self::takes_chunk).
    pub(super) fn push_back(&mut self, pool: &mut ChunkPool, id: ChunkId, at: usize, count: u32) {
        if self.len == 0 {
            self.start = at as u32; // cannot fail because a place is below the chunk size
        }
        if self.place(pool, self.len).0.is_none() {
            self.widen(pool, self.len);
        }
        let slot = self.place(pool, self.len).0.expect("cannot fail because the map was widened to reach it");
        debug_assert!(self.slots.as_slice()[slot] == ChunkId::NONE, "a chunk is linked in over another");
        self.slots.as_mut_slice()[slot] = id;
        self.len += count;
    }

    /// Frees the chunks that lie wholly in offsets `keep..end`.
    pub(super) fn free_between(&mut self, pool: &mut ChunkPool, keep: u32, end: u32) {
        let size = chunk_size(pool);
        let (_, at) = self.place(pool, keep);
        // First offset at or after `keep` where a chunk begins.
        let mut offset = keep + (size - at as u32) % size; // cannot fail because a place is below the chunk size
        while offset < end {
            if let (Some(slot), _) = self.place(pool, offset) {
                let id = std::mem::replace(&mut self.slots.as_mut_slice()[slot], ChunkId::NONE);
                if id != ChunkId::NONE {
                    pool.free(id);
                }
            }
            offset += size;
        }
    }

    /// For a ring that holds no bytes: gives back the chunk that the last ones lay in, if any, and the map.
    #[inline]
    pub(super) fn settle_empty(&mut self, pool: &mut ChunkPool) {
        debug_assert!(self.len == 0, "a fifo that holds bytes is not empty");
        let head = index(self.start >> pool.chunk_bits());
        let id = std::mem::replace(&mut self.slots.as_mut_slice()[head], ChunkId::NONE);
        if id != ChunkId::NONE {
            pool.free(id);
        }
        self.start = 0;
        if let Slots::Boxed(_) = self.slots {
            self.give_map(pool);
        }
    }

    #[inline(never)]
    fn give_map(&mut self, pool: &mut ChunkPool) {
        if let Slots::Boxed(slots) = std::mem::replace(&mut self.slots, Slots::EMPTY) {
            pool.give_ring(slots);
        }
    }

    /// Drops everything and gives all chunks back.
    pub(super) fn release(&mut self, pool: &mut ChunkPool) {
        for slot in self.slots.as_mut_slice() {
            let id = std::mem::replace(slot, ChunkId::NONE);
            if id != ChunkId::NONE {
                pool.free(id);
            }
        }
        self.give_map(pool);
        (self.start, self.len) = (0, 0);
    }

    /// Chunks held.
    pub(super) fn chunks(&self) -> usize {
        self.slots.as_slice().iter().filter(|id| **id != ChunkId::NONE).count()
    }

    /// Asserts that a chunk is held wherever `is_held` says that one of its bytes is, and nowhere else but at
    /// `allowed`. `is_held` is asked for ranges of offsets.
    pub(super) fn check(&self, pool: &ChunkPool, is_held: impl Fn(u32, u32) -> bool, allowed: Option<u32>) {
        let (size, slots) = (chunk_size(pool), self.slots.as_slice());
        assert!(self.len <= super::BYTES_MAX, "a fifo holds more than its maximum");
        assert!(slots.len().is_power_of_two(), "a chunk map's size is not a power of two");
        assert!(index(self.start >> pool.chunk_bits()) < slots.len(), "the front lies outside of the ring");
        let at = self.start & (size - 1);
        let mut ids: Vec<ChunkId> = Vec::new();
        for n in 0..super::length(slots.len()) {
            let (from, to) = ((n * size).saturating_sub(at), (n + 1) * size - at);
            let id = slots[(index(self.start >> pool.chunk_bits()) + index(n)) & (slots.len() - 1)];
            let is_allowed = allowed.is_some_and(|offset| (from..to).contains(&offset));
            assert!(id != ChunkId::NONE || !is_held(from, to), "bytes {from}..{to} have no chunk");
            assert!(
                id == ChunkId::NONE || is_held(from, to) || is_allowed,
                "a chunk without bytes at {from}..{to}"
            );
            if id != ChunkId::NONE {
                ids.push(id);
            }
        }
        let held = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() == held, "one chunk is in a fifo twice");
    }
}

/// The bytes of a fifo as contiguous slices, in order.
pub struct Slices<'a> {
    ring: &'a ByteRing,
    pool: &'a ChunkPool,
    offset: u32,
    left: u32,
}

impl<'a> Iterator for Slices<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let piece = self.ring.piece(self.pool, self.offset);
        let piece = &piece[..piece.len().min(index(self.left))];
        let count = super::length(piece.len());
        self.offset += count;
        self.left -= count;
        Some(piece)
    }
}

impl FusedIterator for Slices<'_> {}
