//! The chunk pool: fixed-size pieces of memory, made in slabs, never moved, given out last-freed first.

use std::fmt;

use super::reassembly::OooRanges;
use super::{copy_bytes, index};

/// Slabs start at a multiple of this many bytes, and every page of this size is touched once when a slab is made.
const PAGE: usize = 4096;
/// Bytes made at a time: large enough to be rare, small enough to be quick (about 0.2 ms of page faults).
const SLAB_BYTES: u32 = 1 << 20;
/// Bytes of emptied chunk maps kept for the next fifo that grows.
const SPARE_RING_BYTES_MAX: usize = 256 << 10;
/// Emptied range lists kept for the next fifo with a hole.
const SPARE_RANGES_MAX: usize = 64;

/// Names a chunk of its [`ChunkPool`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(u32);

impl ChunkId {
    /// No chunk: what an unused place in a chunk map holds. A pool's limit keeps it from naming one.
    pub(super) const NONE: ChunkId = ChunkId(u32::MAX);
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == ChunkId::NONE { f.write_str("-") } else { write!(f, "#{}", self.0) }
    }
}

/// Memory of several chunks. The heap block is longer than needed by a page, so that `base` can be page-aligned.
struct Slab {
    memory: Box<[u8]>,
    base: usize,
}

/// A worker's chunks: equal power-of-two sizes, aligned to at least 64 bytes, at most `limit` of them.
///
/// Grows by slabs of 1 MiB whose pages are touched when made, so that giving out a chunk never faults; never shrinks.
/// What a chunk held before stays in it: whoever gets one reads only what it wrote.
pub struct ChunkPool {
    slabs: Vec<Slab>,
    free: Vec<ChunkId>,
    /// log2 of the bytes in a chunk.
    chunk_bits: u32,
    /// log2 of the chunks in a slab.
    slab_bits: u32,
    /// Chunks made so far, in all slabs.
    made: u32,
    limit: u32,
    high_water: u32,
    heap_allocations: u64,
    spare_rings: Vec<Vec<Box<[ChunkId]>>>,
    spare_ring_bytes: usize,
    #[allow(clippy::vec_box)] // Fifos hold them boxed: they are kept as they come.
    spare_ranges: Vec<Box<OooRanges>>,
    refusing: bool,
    /// Which chunks are given out, to catch a double free.
    #[cfg(debug_assertions)]
    given: Vec<bool>,
}

impl ChunkPool {
    /// The chunk size to use unless there is a reason: one page, two full segments.
    pub const CHUNK_SIZE_DEFAULT: usize = 4096;

    /// An empty pool of at most `limit` chunks (2^32 - 2 at most) of `chunk_size` bytes. No memory is taken yet; see
    /// [`preallocate`](Self::preallocate).
    ///
    /// # Panics
    /// When `chunk_size` is not a power of two from 64 to 2^20.
    pub fn new(chunk_size: usize, limit: usize) -> Self {
        assert!(
            chunk_size.is_power_of_two() && (64..=1 << 20).contains(&chunk_size),
            "a chunk is a power of two from 64 B to 1 MiB"
        );
        let chunk_bits = chunk_size.trailing_zeros();
        ChunkPool {
            slabs: Vec::new(),
            free: Vec::new(),
            chunk_bits,
            slab_bits: (SLAB_BYTES >> chunk_bits).trailing_zeros(),
            made: 0,
            limit: super::length(limit).min(u32::MAX - 1),
            high_water: 0,
            heap_allocations: 0,
            spare_rings: Vec::new(),
            spare_ring_bytes: 0,
            spare_ranges: Vec::new(),
            refusing: false,
            #[cfg(debug_assertions)]
            given: Vec::new(),
        }
    }

    /// Makes memory for `chunks` chunks (or up to the limit) now rather than when first used.
    pub fn preallocate(&mut self, chunks: usize) {
        let wanted = super::length(chunks).min(self.limit);
        while self.made < wanted {
            self.grow();
        }
    }

    /// From now on no chunk is given out, or again some are: for simulated faults.
    pub fn set_refusing(&mut self, refusing: bool) {
        self.refusing = refusing;
    }

    /// Gives out a chunk, the one freed last when there is one. `None` at the limit.
    #[inline]
    pub fn alloc(&mut self) -> Option<ChunkId> {
        if self.refusing {
            return None;
        }
        let id = match self.free.pop() {
            Some(id) => id,
            None => self.alloc_new()?,
        };
        self.high_water = self.high_water.max(self.given_out());
        #[cfg(debug_assertions)]
        {
            self.given[index(id.0)] = true;
        }
        Some(id)
    }

    #[cold]
    fn alloc_new(&mut self) -> Option<ChunkId> {
        if self.made == self.limit {
            return None;
        }
        self.grow();
        self.free.pop()
    }

    /// Takes a chunk back.
    ///
    /// # Panics
    /// In debug builds, when it was not given out.
    #[inline]
    pub fn free(&mut self, id: ChunkId) {
        debug_assert!(id.0 < self.made, "freed a chunk that this pool never made");
        #[cfg(debug_assertions)]
        {
            assert!(std::mem::replace(&mut self.given[index(id.0)], false), "freed chunk {id:?} twice");
        }
        self.free.push(id);
    }

    /// The bytes of a chunk.
    #[inline]
    pub fn bytes(&self, id: ChunkId) -> &[u8] {
        let (slab, at) = self.place(id);
        let slab = &self.slabs[slab];
        &slab.memory[slab.base + at..][..1 << self.chunk_bits]
    }

    /// The bytes of a chunk, to write.
    #[inline]
    pub fn bytes_mut(&mut self, id: ChunkId) -> &mut [u8] {
        let (slab, at) = self.place(id);
        let slab = &mut self.slabs[slab];
        &mut slab.memory[slab.base + at..][..1 << self.chunk_bits]
    }

    /// Copies `count` bytes from one chunk to another one.
    ///
    /// # Panics
    /// When the two are the same chunk or the bytes do not lie inside them.
    pub(super) fn copy_between(&mut self, from: (ChunkId, usize), into: (ChunkId, usize), count: usize) {
        assert!(from.0 != into.0, "copy inside one chunk");
        let size = 1 << self.chunk_bits;
        let ((from_slab, from_at), (into_slab, into_at)) = (self.place(from.0), self.place(into.0));
        let (from_bytes, into_bytes) = if from_slab == into_slab {
            let slab = &mut self.slabs[from_slab];
            let memory = &mut slab.memory[slab.base..];
            let (low, high) = memory.split_at_mut(from_at.max(into_at));
            if from_at < into_at { (&low[from_at..], high) } else { (&*high, &mut low[into_at..]) }
        } else {
            let [a, b] = self
                .slabs
                .get_disjoint_mut([from_slab, into_slab])
                .expect("cannot fail because both are given out and they differ");
            (&a.memory[a.base + from_at..], &mut b.memory[b.base + into_at..])
        };
        copy_bytes(&mut into_bytes[..size][into.1..][..count], &from_bytes[..size][from.1..][..count]);
    }

    /// Slab of a chunk, and the chunk's byte offset from that slab's base.
    #[inline]
    fn place(&self, id: ChunkId) -> (usize, usize) {
        let in_slab = id.0 & ((1 << self.slab_bits) - 1);
        (index(id.0 >> self.slab_bits), index(in_slab) << self.chunk_bits)
    }

    /// Bytes in a chunk.
    #[inline]
    pub fn chunk_size(&self) -> usize {
        1 << self.chunk_bits
    }

    /// log2 of the bytes in a chunk.
    #[inline]
    pub(super) fn chunk_bits(&self) -> u32 {
        self.chunk_bits
    }

    /// Chunks given out.
    #[inline]
    pub fn in_use(&self) -> usize {
        index(self.given_out())
    }

    #[inline]
    fn given_out(&self) -> u32 {
        self.made - super::length(self.free.len())
    }

    /// The most chunks that may be given out.
    pub fn limit(&self) -> usize {
        index(self.limit)
    }

    /// Chunks that may still be given out.
    pub fn available(&self) -> usize {
        if self.refusing {
            return 0;
        }
        index(self.limit - self.given_out())
    }

    /// The most chunks that were ever given out at once.
    pub fn high_water(&self) -> usize {
        index(self.high_water)
    }

    /// What it holds of its limit, and in how much memory.
    pub fn usage(&self) -> hoststack_transport::Usage {
        hoststack_transport::Usage {
            used: self.in_use(),
            high_water: Some(self.high_water()),
            limit: Some(self.limit()),
            element_bytes: self.chunk_size(),
            held_bytes: self.slabs.iter().map(|slab| slab.memory.len()).sum(),
        }
    }

    /// Heap allocations made for this pool and its fifos: does not move in steady state.
    pub fn heap_allocations(&self) -> u64 {
        self.heap_allocations
    }

    /// Makes one slab, or as much of it as the limit allows, touches its pages and frees its chunks.
    fn grow(&mut self) {
        let chunks = (1 << self.slab_bits).min(self.limit - self.made);
        let bytes = index(chunks) << self.chunk_bits;
        let mut memory = vec![0; bytes + PAGE - 1].into_boxed_slice();
        let base = memory.as_ptr().addr().wrapping_neg() % PAGE;
        for page in memory[base..].iter_mut().step_by(PAGE) {
            *page = 0xfa; // Not zero: a compiler may drop the store of a zero to memory that it knows to be zero.
        }
        self.slabs.push(Slab { memory, base });
        let first = self.made;
        self.made += chunks;
        // Room for every chunk made, so that `free` never allocates.
        self.free.reserve(index(self.made) - self.free.len());
        self.free.extend((first..self.made).rev().map(ChunkId));
        self.heap_allocations += 2;
        #[cfg(debug_assertions)]
        self.given.resize(index(self.made), false);
    }

    /// A chunk map of `slots` places (a power of two), all empty.
    pub(super) fn take_ring(&mut self, slots: usize) -> Box<[ChunkId]> {
        let class = index(slots.trailing_zeros());
        if let Some(ring) = self.spare_rings.get_mut(class).and_then(Vec::pop) {
            self.spare_ring_bytes -= size_of_val(&*ring);
            return ring;
        }
        self.heap_allocations += 1;
        vec![ChunkId::NONE; slots].into_boxed_slice()
    }

    /// Keeps an empty chunk map for the next [`take_ring`](Self::take_ring).
    pub(super) fn give_ring(&mut self, ring: Box<[ChunkId]>) {
        debug_assert!(ring.iter().all(|id| *id == ChunkId::NONE), "gave back a chunk map that is not empty");
        let (class, bytes) = (index(ring.len().trailing_zeros()), size_of_val(&*ring));
        if self.spare_ring_bytes + bytes > SPARE_RING_BYTES_MAX {
            return;
        }
        if self.spare_rings.len() <= class {
            self.heap_allocations += 1;
            self.spare_rings.resize_with(class + 1, Vec::new);
        }
        let spares = &mut self.spare_rings[class];
        self.heap_allocations += u64::from(spares.len() == spares.capacity());
        self.spare_ring_bytes += bytes;
        spares.push(ring);
    }

    /// An empty range list.
    pub(super) fn take_ranges(&mut self) -> Box<OooRanges> {
        if let Some(ranges) = self.spare_ranges.pop() {
            return ranges;
        }
        self.heap_allocations += 1;
        Box::new(OooRanges::new())
    }

    /// Keeps an empty range list for the next [`take_ranges`](Self::take_ranges).
    pub(super) fn give_ranges(&mut self, ranges: Box<OooRanges>) {
        debug_assert!(ranges.as_slice().is_empty(), "gave back a range list that is not empty");
        if self.spare_ranges.len() < SPARE_RANGES_MAX {
            self.heap_allocations += u64::from(self.spare_ranges.len() == self.spare_ranges.capacity());
            self.spare_ranges.push(ranges);
        }
    }

    /// Asserts the pool's invariants: every chunk is either given out or free once, within the limit.
    pub fn check_consistency(&self) {
        assert!(self.made <= self.limit, "more chunks than the limit");
        assert!(
            self.high_water <= self.limit && self.high_water >= self.given_out(),
            "high water out of range"
        );
        let mut seen = vec![false; index(self.made)];
        for id in &self.free {
            assert!(!std::mem::replace(&mut seen[index(id.0)], true), "chunk {id:?} is free twice");
        }
        #[cfg(debug_assertions)]
        for (free, given) in seen.iter().zip(&self.given) {
            assert!(free != given, "a chunk is neither free nor given out, or both");
        }
    }
}

impl fmt::Debug for ChunkPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkPool")
            .field("chunk_size", &self.chunk_size())
            .field("in_use", &self.in_use())
            .field("limit", &self.limit)
            .field("high_water", &self.high_water)
            .finish()
    }
}
