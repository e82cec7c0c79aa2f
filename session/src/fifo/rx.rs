//! The receive fifo: in-order bytes to be read, and the out-of-order ones kept until the holes before them fill.

use hoststack_transport::{OooRange, RxStored};

use super::chunk::{ChunkId, ChunkPool};
use super::reassembly::OooRanges;
use super::ring::{ByteRing, Slices};
use super::{BYTES_MAX, CAPACITY_MAX, copy_bytes, index, length};

/// Out-of-order data may not take the last 1/16 of a pool: in-order and outgoing data must go on.
const OOO_RESERVE_SHIFT: u32 = 4;

/// A session's received bytes. Must be [released](Self::release) before it is dropped, or its chunks stay taken.
pub struct RxFifo {
    ring: ByteRing,
    /// `None` when all data is in order.
    ooo: Option<Box<OooRanges>>,
}

const _: () = assert!(size_of::<RxFifo>() <= 32, "an idle fifo is at most 32 bytes");

impl Default for RxFifo {
    fn default() -> Self {
        Self::new()
    }
}

impl RxFifo {
    /// An empty fifo; holds no chunk.
    pub const fn new() -> Self {
        RxFifo { ring: ByteRing::new(), ooo: None }
    }

    /// In-order bytes that may be read.
    #[inline]
    pub fn len(&self) -> usize {
        index(self.ring.len())
    }

    /// Whether nothing may be read. Out-of-order data may be held all the same.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ring.len() == 0
    }

    /// Copies the first in-order bytes, as many as fit into `into`; returns how many. They stay.
    pub fn copy(&self, pool: &ChunkPool, into: &mut [u8]) -> usize {
        let count = into.len().min(self.len());
        self.ring.copy(pool, 0, &mut into[..count]);
        count
    }

    /// Bytes that may be stored from rx offset 0 on when the fifo may hold `capacity`: what the receive window may
    /// offer. Out-of-order data lies inside it, so storing some never shrinks the window (RFC 9293 §3.8.6.2.2).
    #[inline]
    pub fn room(&self, capacity: usize) -> usize {
        capacity.min(CAPACITY_MAX).saturating_sub(self.len())
    }

    /// Out-of-order data held, as offsets from rx offset 0: ascending, disjoint, never adjacent, at most
    /// [`OOO_RANGES_MAX`](super::OOO_RANGES_MAX).
    #[inline]
    pub fn ranges(&self) -> &[OooRange] {
        self.ooo.as_ref().map_or(&[], |ooo| ooo.as_slice())
    }

    /// Stores `data` at rx offset `offset`, up to offset `room` (see [`room`](Self::room)). Bytes already held are
    /// kept as they are: what arrived first wins.
    ///
    /// Bytes are refused beyond `room`, when the pool is at its limit (out-of-order data leaves the last 1/16 of it
    /// alone), and when they would open one range too many. In-order data that finds no chunk at all takes one from
    /// the fifo's own out-of-order data, last range first (RFC 2018 §8 lets a receiver discard it), so that a fifo
    /// with a hole can always go on.
    #[inline]
    pub fn store(&mut self, pool: &mut ChunkPool, offset: u32, data: &[u8], room: usize) -> RxStored {
        let room = room.min(self.room(CAPACITY_MAX));
        if offset == 0 && self.ooo.is_none() && data.len() <= room {
            let advanced = self.ring.append(pool, data);
            return RxStored { advanced, refused: length(data.len()) - advanced };
        }
        self.store_slow(pool, offset, data, length(room))
    }

    /// [`store`](Self::store) for what is out of order, partly held, too long, or fills a hole.
    fn store_slow(&mut self, pool: &mut ChunkPool, offset: u32, data: &[u8], room: u32) -> RxStored {
        if data.is_empty() {
            return RxStored::default();
        }
        // Nothing is held at BYTES_MAX or beyond, so what lies there is new and refused. It also keeps sums small.
        let kept = data.len().min(index(BYTES_MAX.saturating_sub(offset)));
        let mut refused = length(data.len() - kept);
        let end = offset.saturating_add(length(kept));
        let mut ooo = self.ooo.take().unwrap_or_else(|| pool.take_ranges());
        let mut cursor = offset;
        while cursor < end {
            let next = ooo.find(cursor);
            if let Some(range) = next.filter(|range| range.start <= cursor) {
                cursor = range.end;
                continue;
            }
            let hole_end = next.map_or(end, |range| range.start.min(end));
            let stored = self.fill(
                pool,
                &mut ooo,
                cursor,
                &data[index(cursor - offset)..index(hole_end - offset)],
                room,
            );
            refused += (hole_end - cursor) - stored;
            cursor = hole_end;
        }
        let advanced = ooo.take_in_order();
        self.ring.extend(advanced);
        if ooo.as_slice().is_empty() {
            pool.give_ranges(ooo);
            self.settle(pool);
        } else {
            self.ooo = Some(ooo);
        }
        RxStored { advanced, refused }
    }

    /// Stores as much as may be of `data`, none of which is held, at `offset`. Returns how much.
    fn fill(
        &mut self,
        pool: &mut ChunkPool,
        ooo: &mut OooRanges,
        offset: u32,
        data: &[u8],
        room: u32,
    ) -> u32 {
        let wanted = length(data.len()).min(room.saturating_sub(offset));
        if wanted == 0 {
            return 0;
        }
        let at = self.ring.len() + offset;
        // Planned before anything is written, so that nothing is half stored.
        let count = if offset == 0 {
            loop {
                let count = self.ring.writable(pool, at, wanted, pool.available());
                if count > 0 || !self.discard_last(pool, ooo) {
                    break count;
                }
            }
        } else {
            let budget = pool.available().saturating_sub(pool.limit() >> OOO_RESERVE_SHIFT);
            self.ring.writable(pool, at, wanted, budget)
        };
        if count == 0 || !ooo.accepts(offset, offset + count) {
            return 0;
        }
        let written = self.ring.write(pool, at, &data[..index(count)]);
        assert!(written == count, "the pool had fewer chunks than it said");
        ooo.add(offset, offset + count);
        count
    }

    /// Discards the last range of out-of-order data and frees the chunks that only it needed. Whether there was one.
    #[cold]
    fn discard_last(&mut self, pool: &mut ChunkPool, ooo: &mut OooRanges) -> bool {
        let Some(last) = ooo.pop() else { return false };
        let held_end = self.ring.len() + ooo.as_slice().last().map_or(0, |range| range.end);
        self.ring.free_between(pool, held_end, self.ring.len() + last.end);
        true
    }

    /// Discards all out-of-order data, when the pool needs its chunks more (RFC 2018 §8). Returns the bytes dropped.
    pub fn discard_ranges(&mut self, pool: &mut ChunkPool) -> usize {
        let Some(mut ooo) = self.ooo.take() else { return 0 };
        let bytes = ooo.as_slice().iter().map(|range| index(range.end - range.start)).sum();
        while self.discard_last(pool, &mut ooo) {}
        pool.give_ranges(ooo);
        self.settle(pool);
        bytes
    }

    /// The first in-order bytes that lie together: empty only when there are none.
    #[inline]
    pub fn peek<'a>(&self, pool: &'a ChunkPool) -> &'a [u8] {
        if self.is_empty() {
            return &[];
        }
        let piece = self.ring.piece(pool, 0);
        &piece[..piece.len().min(self.len())]
    }

    /// All in-order bytes, as contiguous slices.
    pub fn slices<'a>(&'a self, pool: &'a ChunkPool) -> Slices<'a> {
        self.ring.slices(pool, 0, self.ring.len())
    }

    /// Copies in-order bytes from `offset` bytes past the front into `into`, without taking them. Returns how many.
    pub fn peek_at(&self, pool: &ChunkPool, offset: usize, into: &mut [u8]) -> usize {
        let count = into.len().min(self.len().saturating_sub(offset));
        self.ring.copy(pool, length(offset), &mut into[..count]);
        count
    }

    /// Takes in-order bytes into `into`. Returns how many.
    pub fn read(&mut self, pool: &mut ChunkPool, into: &mut [u8]) -> usize {
        let mut done = 0;
        while done < into.len() && !self.is_empty() {
            let piece = self.peek(pool);
            let count = piece.len().min(into.len() - done);
            copy_bytes(&mut into[done..done + count], &piece[..count]);
            self.consume(pool, count);
            done += count;
        }
        done
    }

    /// Takes `count` in-order bytes that were worked on in place.
    ///
    /// # Panics
    /// When fewer are there: consume at most [`len`](Self::len).
    #[inline]
    pub fn consume(&mut self, pool: &mut ChunkPool, count: usize) {
        self.ring.advance(pool, length(count));
        self.settle(pool);
    }

    /// Gives everything back when nothing is held.
    #[inline]
    fn settle(&mut self, pool: &mut ChunkPool) {
        if self.ring.len() == 0 && self.ooo.is_none() {
            self.ring.settle_empty(pool);
        }
    }

    /// Drops all bytes and gives all chunks back; the fifo is as new.
    pub fn release(&mut self, pool: &mut ChunkPool) {
        self.ring.release(pool);
        if let Some(mut ooo) = self.ooo.take() {
            ooo.clear();
            pool.give_ranges(ooo);
        }
    }

    /// Chunks held.
    pub fn chunks(&self) -> usize {
        self.ring.chunks()
    }

    /// Takes the first chunk with its `count` in-order bytes, for [`relay`](super::relay): when they reach its end, or
    /// are all that the fifo holds.
    pub(super) fn take_chunk(&mut self, pool: &mut ChunkPool, count: usize) -> Option<ChunkId> {
        let (_, at) = self.ring.written(pool, 0);
        let is_last = count == self.len() && self.ooo.is_none();
        if at + count != pool.chunk_size() && !is_last {
            return None;
        }
        let id = self.ring.take_front(pool, length(count));
        self.settle(pool);
        Some(id)
    }

    /// The in-order bytes, for [`relay`](super::relay).
    pub(super) fn ring(&self) -> &ByteRing {
        &self.ring
    }

    /// Asserts the fifo's invariants.
    pub fn check_consistency(&self, pool: &ChunkPool) {
        let len = self.ring.len();
        if let Some(ooo) = &self.ooo {
            ooo.check();
        }
        let is_held = |from: u32, to: u32| {
            from < len && from < to
                || self.ranges().iter().any(|range| from < len + range.end && len + range.start < to)
        };
        // The chunk at the in-order end stays while bytes in it were read and there is data behind it.
        self.ring.check(pool, is_held, self.ooo.as_ref().map(|_| len));
    }
}
