//! One direction of a link: a sender of fixed rate with a drop-tail buffer before it, then a delay.
//!
//! As `netem` with `rate`, `delay`, `loss` and `limit` does it: random loss comes first and takes no rate; a frame that does
//! not fit the buffer is dropped; then it waits for the frames before it, takes its own time on the wire, and arrives
//! after the delay. The buffer is virtual: what waits follows from when the wire will be free, so nothing is scanned.

use std::collections::VecDeque;

use hoststack::net::{Packet, PacketPool};

use crate::sim::dice::Dice;

const NANOS: u64 = 1_000_000_000;

/// What a direction of a link is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Bits in a second, link headers included (no preamble, no checksum); 0: no limit.
    pub rate_bits_per_second: u64,
    /// From the last bit sent to the arrival, in nanoseconds.
    pub delay_ns: u64,
    /// Bytes that may wait for the wire, the frame being sent included; used with a rate only.
    pub buffer_bytes: u64,
    /// The share of frames lost, each by itself: 0 to 1.
    pub loss: f64,
    /// Where chance begins.
    pub seed: u64,
}

impl Shape {
    /// A link that is only long.
    #[must_use]
    pub fn delay(delay_ns: u64) -> Shape {
        Shape { rate_bits_per_second: 0, delay_ns, buffer_bytes: 0, loss: 0.0, seed: 0 }
    }

    /// How long a frame of `bytes` takes to send.
    fn wire_ns(&self, bytes: u64) -> u64 {
        // Cannot overflow because a frame has less than 2^17 bytes.
        (bytes * 8 * NANOS).checked_div(self.rate_bits_per_second).unwrap_or(0)
    }

    /// How many bytes the wire sends in a time.
    fn bytes_in(&self, ns: u64) -> u64 {
        // Cannot truncate because the buffer bounds what waits.
        (u128::from(ns) * u128::from(self.rate_bits_per_second) / u128::from(8 * NANOS)) as u64
    }
}

/// What happened on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Frames that arrived.
    pub arrived: u64,
    /// Their bytes.
    pub arrived_bytes: u64,
    /// Frames lost by chance.
    pub lost: u64,
    /// Frames that did not fit the buffer.
    pub overflowed: u64,
    /// The most bytes that waited.
    pub waiting_max: u64,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    shape: Shape,
    dice: Dice,
    /// When the wire will have sent all that was accepted.
    free_at_ns: u64,
    /// What is on its way, by time of arrival.
    line: VecDeque<Arriving>,
    counters: LinkCounters,
}

/// A share as a part of 2^32.
fn share_of_2_32(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * (1u64 << 32) as f64) as u64
}

#[derive(Debug)]
struct Arriving {
    at_ns: u64,
    packet: Packet,
}

impl Link {
    /// An idle link with room for `frames` on their way before it allocates.
    #[must_use]
    pub fn new(shape: Shape, frames: usize) -> Link {
        Link {
            shape,
            dice: Dice::new(shape.seed),
            free_at_ns: 0,
            line: VecDeque::with_capacity(frames),
            counters: LinkCounters::default(),
        }
    }

    /// A frame comes to the link. One that is lost or does not fit goes back to the pool.
    pub fn offer(&mut self, now_ns: u64, packet: Packet, pool: &mut PacketPool) {
        let bytes = packet.len() as u64;
        if self.dice.below(1 << 32) < share_of_2_32(self.shape.loss) {
            self.counters.lost += 1;
            return pool.give(packet);
        }
        let waiting = self.shape.bytes_in(self.free_at_ns.saturating_sub(now_ns)) + bytes;
        if self.shape.rate_bits_per_second > 0 {
            if waiting > self.shape.buffer_bytes {
                self.counters.overflowed += 1;
                return pool.give(packet);
            }
            self.counters.waiting_max = self.counters.waiting_max.max(waiting);
        }
        self.free_at_ns = self.free_at_ns.max(now_ns) + self.shape.wire_ns(bytes);
        self.line.push_back(Arriving { at_ns: self.free_at_ns + self.shape.delay_ns, packet });
    }

    /// When the next frame arrives.
    #[must_use]
    pub fn next_ns(&self) -> Option<u64> {
        self.line.front().map(|next| next.at_ns)
    }

    /// Moves what has arrived by `now_ns` into `into`; tells by how much the most belated is late.
    pub fn take_arrived(&mut self, now_ns: u64, into: &mut Vec<Packet>) -> u64 {
        let late = self.next_ns().map_or(0, |first| now_ns.saturating_sub(first));
        while self.line.front().is_some_and(|next| next.at_ns <= now_ns) {
            let Some(Arriving { packet, .. }) = self.line.pop_front() else { break };
            self.counters.arrived += 1;
            self.counters.arrived_bytes += packet.len() as u64;
            into.push(packet);
        }
        late
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    struct Bench {
        link: Link,
        pool: PacketPool,
        arrived: Vec<Packet>,
    }

    impl Bench {
        fn new(shape: Shape) -> Bench {
            Bench { link: Link::new(shape, 16), pool: PacketPool::default(), arrived: Vec::new() }
        }

        fn offer(&mut self, now_ns: u64, bytes: usize) {
            let mut packet = self.pool.take();
            let _ = packet.append(bytes);
            self.link.offer(now_ns, packet, &mut self.pool);
        }

        /// How many have arrived by then in all.
        fn arrived(&mut self, now_ns: u64) -> usize {
            let _ = self.link.take_arrived(now_ns, &mut self.arrived);
            self.arrived.len()
        }
    }

    /// 8 Mbit/s: a byte takes a microsecond.
    fn slow(delay_ns: u64, buffer_bytes: u64) -> Shape {
        Shape { rate_bits_per_second: 8_000_000, buffer_bytes, ..Shape::delay(delay_ns) }
    }

    #[test]
    fn frame_arrives_after_its_time_on_the_wire_and_the_delay() {
        let mut bench = Bench::new(slow(5 * MS, 10_000));
        bench.offer(MS, 1000);
        assert_eq!(bench.link.next_ns(), Some(7 * MS));
        assert_eq!((bench.arrived(7 * MS - 1), bench.arrived(7 * MS)), (0, 1));
    }

    #[test]
    fn frames_wait_for_those_before_them_and_the_delay_does_not_hold_the_wire() {
        let mut bench = Bench::new(slow(100 * MS, 10_000));
        for _ in 0..3 {
            bench.offer(0, 1000);
        }
        // The wire was idle in between: what was not used is gone.
        bench.offer(50 * MS, 1000);
        let arrivals: Vec<u64> = bench.link.line.iter().map(|next| next.at_ns / MS).collect();
        assert_eq!(arrivals, [101, 102, 103, 151]);
    }

    #[test]
    fn frame_that_does_not_fit_the_buffer_is_dropped_and_a_sent_one_makes_room() {
        let mut bench = Bench::new(slow(0, 3000));
        for _ in 0..4 {
            bench.offer(0, 1000);
        }
        assert_eq!(bench.link.counters().overflowed, 1);
        bench.offer(MS, 1000);
        bench.offer(MS, 1000);
        assert_eq!(
            bench.link.counters(),
            LinkCounters { overflowed: 2, waiting_max: 3000, ..Default::default() }
        );
        assert_eq!(bench.arrived(4 * MS), 4);
        assert_eq!(bench.link.counters().arrived_bytes, 4000);
    }

    #[test]
    fn rate_is_held_to_the_byte_over_a_long_run() {
        let shape = Shape { rate_bits_per_second: 100_000_000, ..slow(0, 1 << 20) };
        let mut bench = Bench::new(shape);
        let mut now = 0;
        while now < 1000 * MS {
            bench.offer(now, 1514);
            now += 100_000;
        }
        let _ = bench.arrived(1000 * MS);
        let bits = bench.link.counters().arrived_bytes * 8;
        assert!((100_000_000 - 2 * 1514 * 8..=100_000_000).contains(&bits), "{bits} bits in a second");
    }

    #[test]
    fn loss_has_its_share_takes_no_rate_and_repeats_with_its_seed() {
        let lost = |seed| {
            let mut bench = Bench::new(Shape { loss: 0.1, seed, ..slow(0, 1 << 40) });
            for _ in 0..10_000 {
                bench.offer(0, 100);
            }
            let lost = bench.link.counters().lost;
            assert_eq!(bench.link.free_at_ns, (10_000 - lost) * 100_000);
            lost
        };
        // Five standard deviations of 30.
        assert!((850..=1150).contains(&lost(1)), "{} of 10000", lost(1));
        assert_eq!(lost(1), lost(1));
        assert_ne!(lost(1), lost(2));
    }

    #[test]
    fn lateness_is_that_of_the_frame_that_waited_longest() {
        let mut bench = Bench::new(slow(0, 10_000));
        bench.offer(0, 1000);
        bench.offer(0, 1000);
        assert_eq!(bench.link.take_arrived(5 * MS, &mut bench.arrived), 4 * MS);
        assert_eq!(bench.link.take_arrived(9 * MS, &mut bench.arrived), 0);
    }

    #[test]
    fn steady_traffic_takes_its_buffers_from_the_pool() {
        let mut bench = Bench::new(slow(MS, 10_000));
        bench.pool.fill(8);
        let allocated = bench.pool.allocated();
        for step in 0..1000 {
            bench.offer(step * MS, 500);
            let _ = bench.arrived(step * MS);
            let mut arrived = std::mem::take(&mut bench.arrived);
            bench.pool.give_all(&mut arrived);
        }
        assert_eq!((bench.pool.allocated(), bench.link.line.capacity() >= 16), (allocated, true));
    }
}
