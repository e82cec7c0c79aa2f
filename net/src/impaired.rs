//! Faults: a wrapper that loses, duplicates, corrupts, delays, reorders and rate-limits what leaves a device.
//!
//! The path of a packet: link state, loss, corruption, duplication, then the queue of the rate limit (tail drop), the
//! delay line (in order: jitter stretches it, it does not reorder), the reordering stage, and the device below.
//! Everything follows from the seed and the inputs (packets offered, `now_us` of each call).

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use hoststack_wire::MacAddr;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng};

use crate::device::{Capabilities, Device, DeviceCounters, DeviceQueue, earlier};
use crate::packet::{Packet, PacketPool};

/// How long to wait before the device below, found full, is tried again.
const FULL_RETRY_US: u64 = 50;

/// What a link does to packets. The default does nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairments {
    /// Where chance starts. Queue `i` of a device uses a stream of its own.
    pub seed: u64,
    /// Share of packets lost, 0 to 1.
    pub loss: f64,
    /// Longer frames are lost, and nobody says so: a black hole of path MTU discovery (default: none are).
    pub frame_bytes_max: usize,
    /// Share of packets sent twice, 0 to 1.
    pub duplicate: f64,
    /// Share of packets held back behind the next 1 to 3 packets, 0 to 1.
    pub reorder: f64,
    /// The longest that a packet is held back for reordering (default 1000).
    pub reorder_hold_us: u64,
    /// Share of packets with one bit flipped somewhere, 0 to 1.
    pub corrupt: f64,
    /// Delay of every packet, in microseconds.
    pub delay_us: u64,
    /// A further delay of 0 to this, drawn for each packet. Packets stay in order.
    pub jitter_us: u64,
    /// The link's rate; `None`: no limit.
    pub rate_bits_per_second: Option<u64>,
    /// Bytes that may wait for the link; a packet that does not fit is dropped (default 64 KiB; with a rate only).
    pub queue_bytes: u64,
    /// Packets that may be delayed at a time; beyond it `transmit` takes no more (default 65536).
    pub held_packets_max: usize,
}

impl Default for Impairments {
    fn default() -> Impairments {
        Impairments {
            seed: 0,
            loss: 0.0,
            frame_bytes_max: usize::MAX,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_hold_us: 1000,
            corrupt: 0.0,
            delay_us: 0,
            jitter_us: 0,
            rate_bits_per_second: None,
            queue_bytes: 64 * 1024,
            held_packets_max: 65_536,
        }
    }
}

/// Whether the link is as configured. Tests change it while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LinkState {
    /// As the [`Impairments`] say.
    Impaired = 0,
    /// Every packet passes unharmed and at once (what was held before leaves at its time).
    Healed = 1,
    /// Every packet is lost.
    Cut = 2,
}

/// What a link did to packets, in all its queues, and its state. Shared with whoever asserts.
#[derive(Debug, Default)]
pub struct ImpairmentCounters {
    segments: AtomicU64,
    dropped: AtomicU64,
    queue_dropped: AtomicU64,
    duplicated: AtomicU64,
    corrupted: AtomicU64,
    reordered: AtomicU64,
    delayed: AtomicU64,
    released: AtomicU64,
    link: AtomicU8,
}

macro_rules! read {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])*
        pub fn $name(&self) -> u64 {
            self.$name.load(Ordering::Relaxed)
        })*
    };
}

impl ImpairmentCounters {
    read! {
        /// Packets that the link was given.
        segments,
        /// Packets lost by chance, for their length, or to a cut link.
        dropped,
        /// Packets that did not fit the rate limit's queue.
        queue_dropped,
        /// Copies made.
        duplicated,
        /// Packets with a flipped bit.
        corrupted,
        /// Packets that at least one later packet overtook.
        reordered,
        /// Packets that did not leave at once, for delay, jitter or rate.
        delayed,
        /// Packets that the device below accepted. `segments + duplicated = dropped + queue_dropped + released` and
        /// what is held.
        released,
    }

    /// Packets inside the link now.
    pub fn held(&self) -> u64 {
        (self.segments() + self.duplicated())
            .saturating_sub(self.dropped() + self.queue_dropped() + self.released())
    }

    /// Heals, cuts, or impairs again.
    pub fn set_link(&self, state: LinkState) {
        self.link.store(state as u8, Ordering::Relaxed);
    }

    /// The link's state.
    pub fn link(&self) -> LinkState {
        match self.link.load(Ordering::Relaxed) {
            1 => LinkState::Healed,
            2 => LinkState::Cut,
            _ => LinkState::Impaired,
        }
    }
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// Wraps `device` so that what leaves it is impaired; the counters are also [`ImpairedDevice::impairment_counters`].
pub fn impair(device: Box<dyn Device>, impairments: Impairments) -> ImpairedDevice {
    ImpairedDevice { device, impairments, counters: Arc::default() }
}

/// A device behind a bad link.
pub struct ImpairedDevice {
    device: Box<dyn Device>,
    impairments: Impairments,
    counters: Arc<ImpairmentCounters>,
}

impl ImpairedDevice {
    /// The counters of all its queues, and the switch that heals or cuts the link.
    pub fn impairment_counters(&self) -> Arc<ImpairmentCounters> {
        Arc::clone(&self.counters)
    }
}

impl Device for ImpairedDevice {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn mtu(&self) -> usize {
        self.device.mtu()
    }

    fn mac(&self) -> Option<MacAddr> {
        self.device.mac()
    }

    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn into_queues(self: Box<Self>, count: usize) -> io::Result<Vec<Box<dyn DeviceQueue>>> {
        let ImpairedDevice { device, impairments, counters } = *self;
        let queues = device.into_queues(count)?;
        Ok((0..)
            .zip(queues)
            .map(|(stream, queue)| {
                Box::new(Impaired::new(queue, impairments, stream, Arc::clone(&counters)))
                    as Box<dyn DeviceQueue>
            })
            .collect())
    }
}

/// A queue behind a bad link: what it transmits is impaired, what it receives is not.
pub struct Impaired<D> {
    queue: D,
    impairments: Impairments,
    rng: ChaCha8Rng,
    counters: Arc<ImpairmentCounters>,
    /// When the rate-limited link has sent all it accepted, in nanoseconds.
    link_free_at_ns: u64,
    /// The latest release time given out: later packets are not released before.
    last_release_us: u64,
    /// Packets on their way, by release time.
    line: VecDeque<Delayed>,
    /// Packets held back until others have overtaken them. A handful.
    held_back: Vec<HeldBack>,
    /// Packets that left the link and that the queue below has not taken.
    outgoing: Vec<Packet>,
    /// When to try the queue below again, if it was full.
    retry_at_us: Option<u64>,
}

struct Delayed {
    release_us: u64,
    /// How many packets shall overtake it; 0: none.
    behind: u8,
    packet: Packet,
}

struct HeldBack {
    until_us: u64,
    behind: u8,
    overtaken: bool,
    packet: Packet,
}

impl<D: DeviceQueue> Impaired<D> {
    /// Puts a bad link behind `queue`. `stream` tells queues with one seed apart.
    pub fn new(
        queue: D,
        impairments: Impairments,
        stream: u64,
        counters: Arc<ImpairmentCounters>,
    ) -> Impaired<D> {
        let mut rng = ChaCha8Rng::seed_from_u64(impairments.seed);
        rng.set_stream(stream);
        Impaired {
            queue,
            impairments,
            rng,
            counters,
            link_free_at_ns: 0,
            last_release_us: 0,
            line: VecDeque::new(),
            held_back: Vec::new(),
            outgoing: Vec::new(),
            retry_at_us: None,
        }
    }

    /// Packets inside the link now.
    pub fn held(&self) -> usize {
        self.line.len() + self.held_back.len() + self.outgoing.len()
    }

    /// Lets out what is due at `now_us`. `receive` and `transmit` do it too.
    pub fn poll(&mut self, now_us: u64, pool: &mut PacketPool) {
        while self.line.front().is_some_and(|delayed| delayed.release_us <= now_us) {
            let Some(Delayed { behind, packet, release_us }) = self.line.pop_front() else { break };
            // The hold counts from when it would have left, so that a late poll does not stretch it.
            self.leave(release_us, behind, packet);
        }
        self.let_go(|held| held.until_us <= now_us);
        self.flush(now_us, pool);
    }

    /// A packet reaches the link's far end: it leaves, or is held back.
    fn leave(&mut self, at_us: u64, behind: u8, packet: Packet) {
        self.let_go(|held| held.until_us <= at_us);
        if behind > 0 {
            let until_us = at_us.saturating_add(self.impairments.reorder_hold_us);
            self.held_back.push(HeldBack { until_us, behind, overtaken: false, packet });
            return;
        }
        self.outgoing.push(packet);
        for held in &mut self.held_back {
            held.behind -= 1;
            if !held.overtaken {
                held.overtaken = true;
                count(&self.counters.reordered, 1);
            }
        }
        self.let_go(|held| held.behind == 0);
    }

    /// Ends the holding back of the packets that `done` picks, oldest first.
    fn let_go(&mut self, mut done: impl FnMut(&HeldBack) -> bool) {
        let mut index = 0;
        while index < self.held_back.len() {
            if done(&self.held_back[index]) {
                self.outgoing.push(self.held_back.remove(index).packet);
            } else {
                index += 1;
            }
        }
    }

    /// Offers what left the link to the queue below.
    fn flush(&mut self, now_us: u64, pool: &mut PacketPool) {
        self.retry_at_us = None;
        if self.outgoing.is_empty() {
            return;
        }
        let taken = self.queue.transmit(now_us, pool, &mut self.outgoing);
        count(&self.counters.released, taken);
        if !self.outgoing.is_empty() {
            self.retry_at_us = Some(now_us + FULL_RETRY_US);
        }
    }

    /// One packet enters the link.
    fn enter(&mut self, now_us: u64, pool: &mut PacketPool, mut packet: Packet) {
        count(&self.counters.segments, 1);
        match self.counters.link() {
            LinkState::Cut => {
                count(&self.counters.dropped, 1);
                pool.give(packet);
                return;
            }
            LinkState::Healed => {
                self.pass(now_us, now_us, 0, packet);
                return;
            }
            LinkState::Impaired => {}
        }
        if packet.len() > self.impairments.frame_bytes_max || self.chance(self.impairments.loss) {
            count(&self.counters.dropped, 1);
            pool.give(packet);
            return;
        }
        if self.chance(self.impairments.corrupt) && !packet.is_empty() {
            // Cannot truncate because: a packet is smaller than 4 GiB.
            let at = self.below(packet.len() as u64) as usize;
            packet.data_mut()[at] ^= 1 << self.below(8);
            count(&self.counters.corrupted, 1);
        }
        if self.chance(self.impairments.duplicate) {
            let copy = pool.copy(&packet);
            count(&self.counters.duplicated, 1);
            self.schedule(now_us, pool, copy);
        }
        self.schedule(now_us, pool, packet);
    }

    /// Rate, delay, jitter; decides whether it will be held back.
    fn schedule(&mut self, now_us: u64, pool: &mut PacketPool, packet: Packet) {
        let mut sent_us = now_us;
        if let Some(rate) = self.impairments.rate_bits_per_second {
            let rate = rate.max(1);
            let now_ns = now_us.saturating_mul(1000);
            let waiting_ns = self.link_free_at_ns.saturating_sub(now_ns);
            let waiting_bytes = u128::from(waiting_ns) * u128::from(rate) / 8_000_000_000;
            if waiting_bytes + packet.len() as u128 > u128::from(self.impairments.queue_bytes) {
                count(&self.counters.queue_dropped, 1);
                pool.give(packet);
                return;
            }
            let takes_ns = packet.len() as u128 * 8_000_000_000 / u128::from(rate);
            self.link_free_at_ns =
                self.link_free_at_ns.max(now_ns).saturating_add(u64::try_from(takes_ns).unwrap_or(u64::MAX));
            sent_us = self.link_free_at_ns.div_ceil(1000);
        }
        let jitter_us = match self.impairments.jitter_us {
            0 => 0,
            jitter => self.below(jitter.saturating_add(1)),
        };
        let release_us = sent_us.saturating_add(self.impairments.delay_us).saturating_add(jitter_us);
        let behind = if self.chance(self.impairments.reorder) { 1 + self.below(3) as u8 } else { 0 };
        self.pass(now_us, release_us, behind, packet);
    }

    /// Into the delay line, or past it when nothing is in the way.
    fn pass(&mut self, now_us: u64, release_us: u64, behind: u8, packet: Packet) {
        let release_us = release_us.max(self.last_release_us);
        self.last_release_us = release_us;
        if release_us > now_us {
            count(&self.counters.delayed, 1);
        } else if self.line.is_empty() {
            self.leave(now_us, behind, packet);
            return;
        }
        self.line.push_back(Delayed { release_us, behind, packet });
    }

    /// True with probability `share`.
    fn chance(&mut self, share: f64) -> bool {
        // 53 bits are what an f64 holds exactly.
        share > 0.0 && (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64) < share
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: u64) -> u64 {
        // Cannot truncate because: the product's upper half is below `end`.
        ((u128::from(self.rng.next_u64()) * u128::from(end)) >> 64) as u64
    }
}

impl<D: DeviceQueue> DeviceQueue for Impaired<D> {
    fn receive(&mut self, now_us: u64, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        self.poll(now_us, pool);
        self.queue.receive(now_us, pool, into, max)
    }

    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        self.poll(now_us, pool);
        if !self.outgoing.is_empty() || packets.is_empty() {
            // The queue below is full: back-pressure reaches the sender.
            return 0;
        }
        // A packet may become two.
        let room = self.impairments.held_packets_max.saturating_sub(self.held()).div_ceil(2);
        let taken = packets.len().min(room);
        for packet in packets.drain(..taken) {
            self.enter(now_us, pool, packet);
        }
        self.flush(now_us, pool);
        taken
    }

    fn next_deadline_us(&self) -> Option<u64> {
        let line = self.line.front().map(|delayed| delayed.release_us);
        let held = self.held_back.iter().map(|held| held.until_us).min();
        earlier(earlier(line, held), earlier(self.retry_at_us, self.queue.next_deadline_us()))
    }

    fn wait_fd(&self) -> Option<RawFd> {
        self.queue.wait_fd()
    }

    fn set_notify(&mut self, notify: Arc<dyn Fn() + Send + Sync>) {
        self.queue.set_notify(notify);
    }

    fn counters(&self) -> DeviceCounters {
        self.queue.counters()
    }
}

#[cfg(test)]
mod tests;
