//! The transmit fifo: bytes that the app wrote, kept until the peer acknowledged them.

use super::chunk::ChunkPool;
use super::ring::{ByteRing, Slices};
use super::{CAPACITY_MAX, index, length};

/// A session's bytes to send. Must be [released](Self::release) before it is dropped, or its chunks stay taken.
pub struct TxFifo {
    ring: ByteRing,
    /// Bytes lent by `reserve` and not committed yet; their chunk is held.
    reserved: u32,
}

const _: () = assert!(size_of::<TxFifo>() <= 32, "an idle fifo is at most 32 bytes");

impl Default for TxFifo {
    fn default() -> Self {
        Self::new()
    }
}

impl TxFifo {
    /// An empty fifo; holds no chunk.
    pub const fn new() -> Self {
        TxFifo { ring: ByteRing::new(), reserved: 0 }
    }

    /// Bytes queued, from tx offset 0 on: unacknowledged ones included.
    #[inline]
    pub fn len(&self) -> usize {
        index(self.ring.len())
    }

    /// Whether nothing is queued.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ring.len() == 0
    }

    /// Bytes that may be written when the fifo may hold `capacity`. The pool may have fewer.
    #[inline]
    pub fn room(&self, capacity: usize) -> usize {
        capacity.min(CAPACITY_MAX).saturating_sub(self.len())
    }

    /// How many of `want` bytes could be written with at most `chunks` more chunks, if the fifo may hold them.
    pub fn fits(&self, pool: &ChunkPool, want: usize, chunks: usize) -> usize {
        index(self.ring.writable(pool, self.ring.len(), length(want), chunks))
    }

    /// Appends as much of `data` as `capacity` and the pool allow. Returns how much. Ends a reservation.
    #[inline]
    pub fn write(&mut self, pool: &mut ChunkPool, data: &[u8], capacity: usize) -> usize {
        let count = data.len().min(self.room(capacity));
        if count == 0 {
            return 0;
        }
        self.reserved = 0;
        index(self.ring.append(pool, &data[..count]))
    }

    /// Room to write in place: at most `want` bytes (bound it by [`room`](Self::room)) that lie together, fewer when
    /// they would cross into another chunk, none when the pool is exhausted. What it holds before is anything.
    ///
    /// Fill a first part of it and [`commit`](Self::commit) that, or [`unreserve`](Self::unreserve): until then an
    /// empty fifo may hold a chunk.
    pub fn reserve<'a>(&mut self, pool: &'a mut ChunkPool, want: usize) -> &'a mut [u8] {
        let want = want.min(self.room(CAPACITY_MAX));
        if want == 0 {
            return &mut [];
        }
        let tail = self.ring.tail_mut(pool);
        let count = tail.len().min(want);
        self.reserved = length(count);
        &mut tail[..count]
    }

    /// Queues the first `count` bytes of what [`reserve`](Self::reserve) lent last. What is left of it stays reserved
    /// when `count` is not zero, so that a part can be committed at a time.
    ///
    /// # Panics
    /// When it lent fewer bytes.
    pub fn commit(&mut self, count: usize) {
        assert!(
            count <= index(self.reserved),
            "committed more bytes than were reserved: commit at most that"
        );
        let count = length(count);
        self.ring.extend(count);
        self.reserved -= count;
    }

    /// Ends a reservation and gives its chunk back when nothing is in it.
    pub fn unreserve(&mut self, pool: &mut ChunkPool) {
        self.reserved = 0;
        let end = self.ring.len();
        if end == 0 {
            self.ring.settle_empty(pool);
        } else {
            self.ring.free_between(pool, end, end + 1);
        }
    }

    /// Copies the bytes at tx offset `offset` into all of `into`.
    ///
    /// # Panics
    /// When they are not all there.
    #[inline]
    pub fn copy(&self, pool: &ChunkPool, offset: usize, into: &mut [u8]) {
        self.assert_holds(offset, into.len());
        self.ring.copy(pool, length(offset), into);
    }

    /// The `count` bytes at tx offset `offset` as contiguous slices.
    ///
    /// # Panics
    /// When they are not all there.
    pub fn slices<'a>(&'a self, pool: &'a ChunkPool, offset: usize, count: usize) -> Slices<'a> {
        self.assert_holds(offset, count);
        self.ring.slices(pool, length(offset), length(count))
    }

    #[inline]
    fn assert_holds(&self, offset: usize, count: usize) {
        let is_held = offset.checked_add(count).is_some_and(|end| end <= self.len());
        assert!(is_held, "asked for bytes beyond the end of the fifo");
    }

    /// Drops the oldest `count` bytes: tx offset 0 moves past them and the chunks that they filled are freed.
    ///
    /// # Panics
    /// When fewer are queued.
    #[inline]
    pub fn acknowledge(&mut self, pool: &mut ChunkPool, count: usize) {
        self.ring.advance(pool, length(count));
        if self.ring.len() == 0 && self.reserved == 0 {
            self.ring.settle_empty(pool);
        }
    }

    /// Drops all bytes and gives all chunks back; the fifo is as new.
    pub fn release(&mut self, pool: &mut ChunkPool) {
        self.ring.release(pool);
        self.reserved = 0;
    }

    /// Chunks held.
    pub fn chunks(&self) -> usize {
        self.ring.chunks()
    }

    /// The ring to append to, for [`relay`](super::relay), which ends a reservation first.
    pub(super) fn ring_mut(&mut self) -> &mut ByteRing {
        debug_assert!(self.reserved == 0, "bytes are appended behind a reservation");
        &mut self.ring
    }

    /// Bytes that can be written without another chunk.
    #[cfg(test)]
    pub(super) fn tail_room(&self, pool: &ChunkPool) -> usize {
        index(self.ring.writable(pool, self.ring.len(), 1 << 20, 0))
    }

    /// Asserts the fifo's invariants.
    pub fn check_consistency(&self, pool: &ChunkPool) {
        let (len, reserved) = (self.ring.len(), self.reserved);
        // A chunk may be held at the end after `reserve`; it is held while something is reserved.
        self.ring.check(pool, |from, to| from < to && from < len + reserved, Some(len));
    }
}
