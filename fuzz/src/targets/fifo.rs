//! The byte fifos against the simplest model there is: a received stream as one `Option` a byte, a sent one as a
//! queue. Small chunks, a pool that runs out in the middle, chunks that change hands.

use std::collections::VecDeque;

use hoststack_session::fifo::{ChunkId, ChunkPool, OOO_RANGES_MAX, RxFifo, TxFifo, relay};

use crate::input::Input;

const CHUNK: usize = 64;
const CHUNKS_MAX: usize = 40;
/// Bytes that each stream grows to at most.
const STREAM_MAX: usize = 1 << 16;

/// A byte to set the pool, then operations of a byte each, with their numbers.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let limit = 1 + input.below(CHUNKS_MAX as u32) as usize;
    let mut world = World {
        pool: ChunkPool::new(CHUNK, limit),
        hog: Vec::new(),
        rx: RxFifo::new(),
        capacity: 1000,
        stream: Vec::new(),
        read: 0,
        next: 0,
        tx: TxFifo::new(),
        queue: VecDeque::new(),
        lent: VecDeque::new(),
        clock: 0,
    };
    while !input.is_empty() && world.stream.len().max(world.queue.len()) < STREAM_MAX {
        world.act(&mut input);
        world.check();
    }
    world.finish();
}

struct World {
    pool: ChunkPool,
    /// Chunks that somebody else holds.
    hog: Vec<ChunkId>,
    rx: RxFifo,
    /// What the receive fifo may hold.
    capacity: usize,
    /// The received stream from its beginning; `None` is not there.
    stream: Vec<Option<u8>>,
    /// Positions in it: of the next byte to read, and of rx offset 0.
    read: usize,
    next: usize,
    tx: TxFifo,
    queue: VecDeque<u8>,
    /// What `reserve` lent, and was filled with.
    lent: VecDeque<u8>,
    /// Makes the bytes of each write differ from all others'.
    clock: u8,
}

impl World {
    fn act(&mut self, input: &mut Input<'_>) {
        self.clock = self.clock.wrapping_add(1);
        match input.u8() % 16 {
            0..=2 => {
                let (offset, count) = (input.below(1200), input.below(200));
                self.store(offset, count as usize);
            }
            3 | 4 => {
                let count = input.below(256);
                self.store(0, count as usize);
            }
            5 => {
                let want = input.u8().into();
                self.read(want);
            }
            6 => {
                let count = usize::from(input.u8()).min(self.rx.len());
                self.rx.consume(&mut self.pool, count);
                self.read += count;
            }
            7 => {
                let free = input.below(8) as usize;
                self.leave(free);
            }
            8 => self.leave(usize::MAX),
            9 => self.capacity = input.below(1500) as usize,
            10 => match input.u8() % 4 {
                0 => self.release(),
                1 => self.pool.set_refusing(true),
                2 => self.pool.set_refusing(false),
                _ => {
                    self.rx.discard_ranges(&mut self.pool);
                    assert!(self.rx.ranges().is_empty());
                    self.stream.truncate(self.next);
                }
            },
            11 => {
                let count = input.u8().into();
                self.write(count);
            }
            12 => {
                let count = usize::from(input.u8()).min(self.queue.len());
                self.tx.acknowledge(&mut self.pool, count);
                self.queue.drain(..count);
            }
            13 => {
                let want = input.u8().into();
                self.reserve(want);
            }
            14 => {
                let count = usize::from(input.u8()).min(self.lent.len());
                self.commit(count);
            }
            _ => {
                let want = input.u8().into();
                self.relay(want);
            }
        }
    }

    fn byte(&self, position: usize) -> u8 {
        // The low bits of a position are what matters.
        (position as u8).wrapping_mul(31) ^ self.clock.wrapping_mul(101)
    }

    /// Which positions of the stream are held, from `next` on, as the fifo says.
    fn ranges(&self) -> Vec<(usize, usize)> {
        let place = |range: &hoststack_transport::OooRange| {
            (self.next + range.start as usize, self.next + range.end as usize)
        };
        self.rx.ranges().iter().map(place).collect()
    }

    fn store(&mut self, offset: u32, count: usize) {
        let at = self.next + offset as usize;
        let data: Vec<u8> = (at..at + count).map(|position| self.byte(position)).collect();
        let room = self.rx.room(self.capacity);
        let (available, had_ranges, chunks) =
            (self.pool.available(), self.rx.ranges().len(), self.rx.chunks());
        let mut before = self.stream.clone();
        let stored = self.rx.store(&mut self.pool, offset, &data, room);
        let old_next = self.next;
        self.next += stored.advanced as usize;

        // What the fifo says that it holds now is either what was held or what was offered.
        let len = before.len().max(at + count).max(self.next);
        before.resize(len, None);
        let mut after = vec![None; len];
        let mut held = vec![(old_next, self.next)];
        held.extend(self.ranges());
        let may_discard = offset == 0;
        for (start, end) in held {
            for position in start..end {
                let offered = position.checked_sub(at).and_then(|n| data.get(n)).copied();
                // What came first stays, unless it was discarded to make room and came again in this segment.
                after[position] = before[position].or(offered);
                assert!(after[position].is_some(), "byte {position} is held, and nobody sent it");
                assert!(
                    position < old_next + room || before[position].is_some(),
                    "a byte beyond the room is held"
                );
            }
        }
        after[..old_next].copy_from_slice(&before[..old_next]);
        let refused = (at..at + count).filter(|&position| after[position].is_none()).count();
        assert_eq!(stored.refused as usize, refused, "refused bytes are miscounted");
        let discarded = before.iter().zip(&after).filter(|(was, is)| was.is_some() && is.is_none()).count();
        assert!(discarded == 0 || may_discard && had_ranges > 0, "data was discarded without need");
        // With room, memory and few holes nothing is refused. 200 bytes cross 5 chunks at most.
        let plenty = available > (offset as usize + count).div_ceil(CHUNK) + 1 + (self.pool.limit() >> 4);
        if offset as usize + count <= room && plenty && had_ranges + 1 < OOO_RANGES_MAX {
            assert_eq!((refused, discarded), (0, 0), "data was refused without a reason");
        }
        if offset == 0 && count > 0 && room > 0 && stored.advanced == 0 {
            assert!(available == 0 && self.rx.ranges().is_empty(), "in-order data is stuck");
        }
        assert!(self.rx.chunks() <= chunks + available, "more chunks than there were");
        // Which of two true bytes stayed after a discard is the fifo's choice: see what it chose.
        if may_discard && had_ranges > 0 && available <= 5 {
            let mut peeked = vec![0; self.next - self.read];
            let count = self.rx.peek_at(&self.pool, 0, &mut peeked);
            assert_eq!(count, peeked.len());
            for (position, &found) in (self.read..self.next).zip(&peeked) {
                let offered = position.checked_sub(at).and_then(|n| data.get(n)).copied();
                assert!(after[position] == Some(found) || offered == Some(found));
                after[position] = Some(found);
            }
        }
        self.stream = after;
    }

    fn read(&mut self, want: usize) {
        let mut into = vec![0; want];
        let count = self.rx.read(&mut self.pool, &mut into);
        assert_eq!(count, want.min(self.next - self.read));
        let expected = self.stream[self.read..self.read + count].iter().copied();
        assert!(into[..count].iter().map(|&byte| Some(byte)).eq(expected), "what is read was not sent");
        self.read += count;
    }

    fn release(&mut self) {
        self.rx.release(&mut self.pool);
        self.stream.truncate(self.next);
        self.read = self.next;
        self.tx.release(&mut self.pool);
        self.queue.clear();
        self.lent.clear();
    }

    fn leave(&mut self, free: usize) {
        while self.pool.available() > free
            && let Some(id) = self.pool.alloc()
        {
            self.hog.push(id);
        }
        while self.pool.available() < free
            && let Some(id) = self.hog.pop()
        {
            self.pool.free(id);
        }
    }

    fn write(&mut self, count: usize) {
        let data: Vec<u8> = (0..count).map(|n| self.byte(n)).collect();
        let (room, available) = (self.tx.room(self.capacity), self.pool.available());
        let done = self.tx.write(&mut self.pool, &data, self.capacity);
        assert!(done <= count.min(room));
        assert!(done == count.min(room) || available < count.div_ceil(CHUNK) + 1, "memory was there");
        self.queue.extend(&data[..done]);
        if count.min(room) > 0 {
            self.lent.clear();
        }
    }

    fn reserve(&mut self, want: usize) {
        let want = want.min(self.tx.room(self.capacity));
        let first = self.clock;
        let lent = self.tx.reserve(&mut self.pool, want);
        assert!(lent.len() <= want);
        for (byte, n) in lent.iter_mut().zip(0u8..=255) {
            *byte = first ^ n;
        }
        if want > 0 {
            self.lent = lent.iter().copied().collect();
        }
    }

    fn commit(&mut self, count: usize) {
        self.tx.commit(count);
        self.queue.extend(self.lent.drain(..count));
        if self.lent.is_empty() || count == 0 {
            self.tx.unreserve(&mut self.pool);
            self.lent.clear();
        }
    }

    fn relay(&mut self, want: usize) {
        let total = want.min(self.rx.len()).min(self.tx.room(self.capacity));
        let available = self.pool.available();
        let done = relay(&mut self.pool, &mut self.rx, &mut self.tx, want, self.capacity);
        assert!(done <= total);
        assert!(done == total || available < total.div_ceil(CHUNK) + 1, "memory was there");
        if total > 0 {
            self.lent.clear();
        }
        for position in self.read..self.read + done {
            self.queue.push_back(self.stream[position].expect("it was in order"));
        }
        self.read += done;
    }

    fn check(&self) {
        self.pool.check_consistency();
        self.rx.check_consistency(&self.pool);
        self.tx.check_consistency(&self.pool);
        assert!(self.rx.ranges().len() <= OOO_RANGES_MAX);
        assert_eq!(self.rx.len(), self.next - self.read);
        assert_eq!(self.tx.len(), self.queue.len());
        let chunks = self.rx.chunks() + self.tx.chunks() + self.hog.len();
        assert_eq!(self.pool.in_use(), chunks, "a chunk is lost");
        let in_order = self.rx.slices(&self.pool).flatten().map(|&byte| Some(byte));
        assert!(in_order.eq(self.stream[self.read..self.next].iter().copied()), "a received byte changed");
        let queued = self.tx.slices(&self.pool, 0, self.tx.len()).flatten();
        assert!(queued.eq(self.queue.iter()), "a byte to send changed");
        if self.rx.is_empty() && self.rx.ranges().is_empty() {
            assert_eq!(self.rx.chunks(), 0, "an idle fifo holds a chunk");
        }
    }

    fn finish(mut self) {
        self.pool.set_refusing(false);
        self.release();
        self.leave(usize::MAX);
        self.pool.check_consistency();
        assert_eq!(self.pool.in_use(), 0, "a chunk is lost");
    }
}
