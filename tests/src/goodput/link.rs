//! The bottleneck: a rate, a drop-tail buffer, random loss. Event-driven: a packet's fate is known when it is offered.
//!
//! Packets wait in the buffer, in order, until the link is free; the one on the link takes none of the buffer. A packet
//! that the buffer has no room for is dropped whole. Random loss strikes at the far end of the link: what is lost has
//! used the link's time, as on a radio link, so that with a loss of p no sender gets more than 1 - p of the link.

use std::collections::VecDeque;

use hoststack_transport::Rng;

/// What a bottleneck is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Bits in a second.
    pub rate: u64,
    /// Bytes that may wait for the link. A full packet always may.
    pub buffer: u64,
    /// How many of a million data packets are lost at random.
    pub loss_ppm: u32,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its last bit leaves the link then, in ns.
    Leaves(u64),
    /// The buffer had no room for it.
    Overflows,
    /// It used the link and was lost.
    Lost,
}

/// What happened since the last [`Bottleneck::take_tally`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tally {
    /// Packets that the buffer or the link took.
    pub taken: u64,
    /// The sum of the times that they waited for the link, in ns.
    pub waited_ns: u64,
    /// The longest of these, in ns.
    pub waited_ns_max: u64,
    /// Packets for which the buffer had no room.
    pub overflowed: u64,
    /// Packets lost at random.
    pub lost: u64,
}

/// A bottleneck at work.
#[derive(Clone)]
pub struct Bottleneck {
    link: Link,
    rng: Rng,
    /// When the link has sent all it was given, in ns.
    free_at: u64,
    /// Packets that wait: when each begins to be sent, in ns, and its length.
    waiting: VecDeque<(u64, u32)>,
    /// The sum of their lengths.
    waiting_bytes: u64,
    tally: Tally,
}

impl Bottleneck {
    /// An idle one at time 0; `rng` says what is lost.
    ///
    /// # Panics
    /// When the rate is 0.
    pub fn new(link: Link, rng: Rng) -> Bottleneck {
        assert!(link.rate > 0, "a link without a rate never sends");
        Bottleneck {
            link,
            rng,
            free_at: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            tally: Tally::default(),
        }
    }

    /// Takes a packet of `len` bytes at `now`, in ns, which never goes back. Only data is lost at random, so that all
    /// runs begin alike.
    pub fn offer(&mut self, now: u64, len: u32, is_data: bool) -> Fate {
        while let Some(&(starts, bytes)) = self.waiting.front()
            && starts <= now
        {
            self.waiting.pop_front();
            self.waiting_bytes -= u64::from(bytes);
        }
        let starts = self.free_at.max(now);
        if starts > now {
            let waiting = self.waiting_bytes + u64::from(len);
            if waiting > self.link.buffer && !self.waiting.is_empty() {
                self.tally.overflowed += 1;
                return Fate::Overflows;
            }
            self.waiting_bytes = waiting;
            self.waiting.push_back((starts, len));
        }
        self.free_at = starts + u64::from(len) * 8_000_000_000 / self.link.rate;
        self.tally.taken += 1;
        self.tally.waited_ns += starts - now;
        self.tally.waited_ns_max = self.tally.waited_ns_max.max(starts - now);
        if is_data && self.link.loss_ppm > 0 && self.rng.below(1_000_000) < self.link.loss_ppm {
            self.tally.lost += 1;
            return Fate::Lost;
        }
        Fate::Leaves(self.free_at)
    }

    /// Bytes that wait for the link at `now`, in ns; not the packet that it sends.
    pub fn waiting_bytes(&self, now: u64) -> u64 {
        let begun: u64 =
            self.waiting.iter().take_while(|waits| waits.0 <= now).map(|waits| u64::from(waits.1)).sum();
        self.waiting_bytes - begun
    }

    /// What happened since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000 bytes take 1 ms.
    fn slow(buffer: u64, loss_ppm: u32) -> Bottleneck {
        Bottleneck::new(Link { rate: 8_000_000, buffer, loss_ppm }, Rng::from_seed(1))
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn packets_leave_one_after_the_other_each_by_its_length() {
        let mut link = slow(10_000, 0);
        assert_eq!(link.offer(0, 1000, true), Fate::Leaves(MS));
        // Behind the first: 1 ms + 500 bytes.
        assert_eq!(link.offer(0, 500, true), Fate::Leaves(MS + MS / 2));
        assert_eq!(link.offer(MS / 4, 40, false), Fate::Leaves(MS + MS / 2 + 40_000));
        // After a pause the link is free.
        assert_eq!(link.offer(10 * MS, 1000, true), Fate::Leaves(11 * MS));
        let tally = link.take_tally();
        // 0, 1 ms, 1.25 ms, 0.
        assert_eq!((tally.taken, tally.waited_ns, tally.waited_ns_max), (4, 2_250_000, 1_250_000));
        assert_eq!(link.take_tally(), Tally::default());
    }

    #[test]
    fn at_a_gigabit_a_full_packet_takes_12_microseconds() {
        let link = Link { rate: 1_000_000_000, buffer: 1 << 20, loss_ppm: 0 };
        let mut link = Bottleneck::new(link, Rng::from_seed(1));
        assert_eq!(link.offer(5_000, 1500, true), Fate::Leaves(17_000));
        assert_eq!(link.offer(5_000, 1500, true), Fate::Leaves(29_000));
    }

    #[test]
    fn a_full_buffer_drops_the_tail_until_the_link_takes_the_head() {
        let mut link = slow(2000, 0);
        assert_eq!(link.offer(0, 1000, true), Fate::Leaves(MS)); // on the link
        assert_eq!(link.offer(0, 1000, true), Fate::Leaves(2 * MS));
        assert_eq!(link.offer(0, 1000, true), Fate::Leaves(3 * MS));
        assert_eq!(link.waiting_bytes(0), 2000);
        assert_eq!(link.offer(0, 1000, true), Fate::Overflows);
        // A byte too many all the same, and just before the first that waits is sent.
        assert_eq!(link.offer(MS - 1, 1, true), Fate::Overflows);
        assert_eq!(link.waiting_bytes(MS), 1000);
        assert_eq!(link.offer(MS, 1000, true), Fate::Leaves(4 * MS));
        assert_eq!(link.take_tally().overflowed, 2);
    }

    #[test]
    fn the_smallest_buffer_holds_one_packet() {
        let mut link = slow(0, 0);
        assert_eq!(link.offer(0, 1000, true), Fate::Leaves(MS));
        assert_eq!(link.offer(0, 1000, true), Fate::Leaves(2 * MS));
        assert_eq!(link.offer(0, 1000, true), Fate::Overflows);
    }

    #[test]
    fn what_is_lost_uses_the_link_and_is_as_often_lost_as_was_asked_for() {
        let mut link = slow(10_000, 50_000);
        let mut lost = 0;
        for n in 0..100_000 {
            match link.offer(n * MS, 1000, true) {
                Fate::Lost => lost += 1,
                fate => assert_eq!(fate, Fate::Leaves((n + 1) * MS)),
            }
        }
        // 5000 are expected, the standard deviation is 69.
        assert!((4700..5300).contains(&lost), "{lost}");
        let mut link = slow(10_000, 1_000_000);
        assert_eq!(link.offer(0, 1000, true), Fate::Lost);
        assert_eq!(link.offer(0, 1000, false), Fate::Leaves(2 * MS));
    }
}
