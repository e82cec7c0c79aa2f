//! Packet buffers: one owned allocation with room in front for headers, and the per-worker pool they come from.
//!
//! A buffer is zeroed once, when it is allocated, and never again: what [`Packet::prepend`] and [`Packet::append`]
//! hand out holds whatever was there before, and the caller writes all of it.

use core::fmt;

/// Bytes left free in front of an empty packet: link, IP and TCP headers with all their options fit, and what
/// follows them starts on a 16-byte boundary.
pub const HEADROOM: usize = 128;

/// Default size of a pool's buffers: headroom, an Ethernet header and a 1500-byte packet, with some to spare.
pub const BUFFER_SIZE: usize = 2048;

/// Default number of free buffers that a pool keeps: 16 MiB of default buffers.
pub const FREE_MAX: usize = 8192;

/// An owned packet: `data` somewhere inside a buffer, so that headers are put in front without a copy.
pub struct Packet {
    buffer: Box<[u8]>,
    head: u32,
    len: u32,
}

impl Packet {
    /// An empty packet in a buffer of its own of `size` bytes, `headroom` of them in front.
    ///
    /// # Panics
    /// When `headroom` exceeds `size` or `size` exceeds 4 GiB.
    pub fn with_size(size: usize, headroom: usize) -> Packet {
        assert!(headroom <= size, "the headroom is part of the buffer");
        let head = u32::try_from(headroom).expect("a packet buffer is smaller than 4 GiB");
        assert!(u32::try_from(size).is_ok(), "a packet buffer is smaller than 4 GiB");
        Packet { buffer: vec![0; size].into_boxed_slice(), head, len: 0 }
    }

    /// A packet with a copy of `data`, in a buffer of its own: for tests and slow paths.
    pub fn copy_of(data: &[u8]) -> Packet {
        let mut packet = Packet::with_size(BUFFER_SIZE.max(HEADROOM + data.len()), HEADROOM);
        packet.extend(data);
        packet
    }

    /// The bytes of the packet.
    #[inline]
    pub fn data(&self) -> &[u8] {
        &self.buffer[self.head as usize..(self.head + self.len) as usize]
    }

    /// The bytes of the packet, to change in place.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.head as usize..(self.head + self.len) as usize]
    }

    /// Bytes in the packet.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the packet has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that [`prepend`](Packet::prepend) can still add in front.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.head as usize
    }

    /// Bytes that [`append`](Packet::append) can still add behind.
    #[inline]
    pub fn room(&self) -> usize {
        self.buffer.len() - (self.head + self.len) as usize
    }

    /// Size of the whole buffer: headroom, data and room.
    #[inline]
    pub fn buffer_size(&self) -> usize {
        self.buffer.len()
    }

    /// Adds `count` bytes in front and lends them, for a header. They hold old bytes: write all of them.
    ///
    /// # Panics
    /// When `count` exceeds [`headroom`](Packet::headroom).
    #[inline]
    pub fn prepend(&mut self, count: usize) -> &mut [u8] {
        assert!(count <= self.headroom(), "no headroom for the header");
        let head = self.head as usize;
        // Cannot truncate because: count <= head, a u32.
        self.head -= count as u32;
        self.len += count as u32;
        &mut self.buffer[head - count..head]
    }

    /// Adds `count` bytes behind and lends them. They hold old bytes: write all of them.
    ///
    /// # Panics
    /// When `count` exceeds [`room`](Packet::room).
    #[inline]
    pub fn append(&mut self, count: usize) -> &mut [u8] {
        assert!(count <= self.room(), "no room behind the packet's data");
        let tail = (self.head + self.len) as usize;
        // Cannot truncate because: count <= room, which fits the buffer's u32 size.
        self.len += count as u32;
        &mut self.buffer[tail..tail + count]
    }

    /// Adds a copy of `data` behind.
    ///
    /// # Panics
    /// When it exceeds [`room`](Packet::room).
    #[inline]
    pub fn extend(&mut self, data: &[u8]) {
        self.append(data.len()).copy_from_slice(data);
    }

    /// Takes `count` bytes off the front (a header that was read); they become headroom.
    ///
    /// # Panics
    /// When the packet is shorter.
    #[inline]
    pub fn trim_front(&mut self, count: usize) {
        assert!(count <= self.len(), "cannot trim more than there is");
        // Cannot truncate because: count <= len, a u32.
        self.head += count as u32;
        self.len -= count as u32;
    }

    /// Shortens the packet to `len` bytes; longer than it is does nothing.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        // Cannot truncate the number because: the minimum is at most self.len, a u32.
        self.len = self.len().min(len) as u32;
    }

    /// Empties the packet and leaves `headroom` bytes in front.
    ///
    /// # Panics
    /// When the buffer is smaller than `headroom`.
    #[inline]
    pub fn reset(&mut self, headroom: usize) {
        assert!(headroom <= self.buffer.len(), "the headroom is part of the buffer");
        // Cannot truncate because: the buffer's size fits a u32, checked when it was made.
        self.head = headroom as u32;
        self.len = 0;
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("headroom", &self.headroom())
            .field("len", &self.len())
            .field("room", &self.room())
            .finish()
    }
}

/// A worker's free packet buffers, all of one size. Takes and gives are a push and a pop.
#[derive(Debug)]
pub struct PacketPool {
    free: Vec<Packet>,
    buffer_size: usize,
    headroom: usize,
    free_max: usize,
    reserve: usize,
    allocated: u64,
    released: u64,
}

impl PacketPool {
    /// A pool of buffers of `buffer_size` bytes ([`HEADROOM`] of them in front) that keeps at most `free_max`.
    ///
    /// The size must cover the headroom, the link header and the largest MTU of the worker's devices.
    ///
    /// # Panics
    /// When `buffer_size` is not larger than [`HEADROOM`].
    pub fn new(buffer_size: usize, free_max: usize) -> PacketPool {
        assert!(buffer_size > HEADROOM, "a packet buffer must hold more than its headroom");
        PacketPool {
            free: Vec::new(),
            buffer_size,
            headroom: HEADROOM,
            free_max,
            reserve: (free_max / 2).min(256),
            allocated: 0,
            released: 0,
        }
    }

    /// An empty packet with its headroom reserved. Allocates when no buffer is free, and counts that.
    #[inline]
    pub fn take(&mut self) -> Packet {
        match self.free.pop() {
            Some(packet) => packet,
            None => self.allocate(),
        }
    }

    #[cold]
    fn allocate(&mut self) -> Packet {
        self.allocated += 1;
        Packet::with_size(self.buffer_size, self.headroom)
    }

    /// Takes back a packet that is done with. Frees it when it is of another size or enough are kept.
    #[inline]
    pub fn give(&mut self, mut packet: Packet) {
        if packet.buffer_size() == self.buffer_size && self.free.len() < self.free_max {
            packet.reset(self.headroom);
            self.free.push(packet);
        } else {
            self.released += 1;
        }
    }

    /// Takes back all of `packets`.
    pub fn give_all(&mut self, packets: &mut Vec<Packet>) {
        for packet in packets.drain(..) {
            self.give(packet);
        }
    }

    /// A copy of `packet`, in a buffer of this pool when it fits.
    pub fn copy(&mut self, packet: &Packet) -> Packet {
        let data = packet.data();
        if data.len() <= self.buffer_size - self.headroom {
            let mut copy = self.take();
            copy.extend(data);
            copy
        } else {
            self.allocated += 1;
            let mut copy =
                Packet::with_size(packet.buffer_size().max(self.headroom + data.len()), self.headroom);
            copy.extend(data);
            copy
        }
    }

    /// Moves up to `count` free buffers beyond the pool's reserve into `into`, for a device that carries buffers to
    /// the other end to send them home; tells how many.
    pub fn take_surplus(&mut self, count: usize, into: &mut Vec<Packet>) -> usize {
        let count = count.min(self.free.len().saturating_sub(self.reserve));
        into.extend(self.free.drain(self.free.len() - count..));
        count
    }

    /// Allocates until `count` buffers are free (at most the pool's limit).
    pub fn fill(&mut self, count: usize) {
        while self.free.len() < count.min(self.free_max) {
            let packet = self.allocate();
            self.free.push(packet);
        }
    }

    /// Free buffers now.
    pub fn free_len(&self) -> usize {
        self.free.len()
    }

    /// The most free buffers that it keeps.
    pub fn free_max(&self) -> usize {
        self.free_max
    }

    /// Size of this pool's buffers.
    pub fn buffer_size(&self) -> usize {
        self.buffer_size
    }

    /// The most bytes that a packet of this pool can hold behind its headroom.
    pub fn data_max(&self) -> usize {
        self.buffer_size - self.headroom
    }

    /// Buffers allocated since the pool was made: steady state leaves it alone.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Buffers given back and freed rather than kept (foreign size, or enough were free).
    pub fn released(&self) -> u64 {
        self.released
    }
}

impl Default for PacketPool {
    fn default() -> PacketPool {
        PacketPool::new(BUFFER_SIZE, FREE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_go_in_front_without_moving_the_data() {
        let mut packet = PacketPool::default().take();
        packet.extend(b"payload");
        let at = packet.data().as_ptr();
        assert_eq!(at.align_offset(16), 0);
        packet.prepend(3).copy_from_slice(b"tcp");
        packet.prepend(2).copy_from_slice(b"ip");
        assert_eq!(packet.data(), b"iptcppayload");
        assert_eq!(packet.headroom(), HEADROOM - 5);
        packet.trim_front(5);
        assert_eq!((packet.data(), packet.data().as_ptr()), (&b"payload"[..], at));
        packet.truncate(3);
        assert_eq!(packet.data(), b"pay");
        packet.truncate(30);
        assert_eq!(packet.len(), 3);
    }

    #[test]
    fn pool_reuses_buffers_and_counts_what_it_allocates() {
        let mut pool = PacketPool::new(512, 2);
        let (a, b, c) = (pool.take(), pool.take(), pool.take());
        assert_eq!(pool.allocated(), 3);
        let at = b.buffer.as_ptr();
        pool.give(a);
        pool.give(b);
        pool.give(c);
        assert_eq!((pool.free_len(), pool.released()), (2, 1));
        assert_eq!(pool.take().buffer.as_ptr(), at);
        assert_eq!(pool.allocated(), 3);
    }

    #[test]
    fn pool_frees_a_buffer_of_another_size() {
        let mut pool = PacketPool::default();
        pool.give(Packet::with_size(4096, HEADROOM));
        assert_eq!((pool.free_len(), pool.released()), (0, 1));
    }

    #[test]
    fn given_packet_comes_back_empty_with_full_headroom() {
        let mut pool = PacketPool::default();
        let mut packet = pool.take();
        packet.extend(&[1; 100]);
        packet.trim_front(60);
        pool.give(packet);
        let packet = pool.take();
        assert_eq!((packet.len(), packet.headroom()), (0, HEADROOM));
    }

    #[test]
    fn copy_of_a_jumbo_packet_gets_a_buffer_of_its_own() {
        let mut pool = PacketPool::default();
        let jumbo = Packet::copy_of(&[7; 9000]);
        assert_eq!(pool.copy(&jumbo).data(), jumbo.data());
        assert_eq!(pool.copy(&Packet::copy_of(b"small")).buffer_size(), BUFFER_SIZE);
    }

    #[test]
    fn surplus_leaves_the_reserve() {
        let mut pool = PacketPool::new(512, 100);
        pool.fill(80);
        let mut home = Vec::new();
        assert_eq!(pool.take_surplus(1000, &mut home), 30);
        assert_eq!((pool.free_len(), home.len()), (50, 30));
        assert_eq!(pool.take_surplus(1, &mut home), 0);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Prepend(Vec<u8>),
        Append(Vec<u8>),
        TrimFront(usize),
        Truncate(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Op::Prepend),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Op::Append),
            (0usize..50).prop_map(Op::TrimFront),
            (0usize..300).prop_map(Op::Truncate),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn packet_matches_a_vector(ops in prop::collection::vec(op(), 0..40)) {
            let mut packet = Packet::with_size(256, 64);
            let mut model: Vec<u8> = Vec::new();
            for op in ops {
                match op {
                    Op::Prepend(bytes) if bytes.len() <= packet.headroom() => {
                        packet.prepend(bytes.len()).copy_from_slice(&bytes);
                        model.splice(0..0, bytes);
                    }
                    Op::Append(bytes) if bytes.len() <= packet.room() => {
                        packet.extend(&bytes);
                        model.extend(bytes);
                    }
                    Op::TrimFront(n) if n <= model.len() => {
                        packet.trim_front(n);
                        model.drain(..n);
                    }
                    Op::Truncate(n) => {
                        packet.truncate(n);
                        model.truncate(n);
                    }
                    _ => {}
                }
                prop_assert_eq!(packet.data(), &model[..]);
                prop_assert_eq!(packet.headroom() + packet.len() + packet.room(), 256);
            }
        }
    }
}
