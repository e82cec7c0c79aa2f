//! A worker's IP path: replicas of main's tables, and all packet work between devices and TCP.
//!
//! ```text
//!   device --> input --> segments, ICMP errors (to TCP)      tcp --> destination cache --> tx vector --> device
//!                   \--> handovers (to other workers)                     \--> waits behind a neighbour
//! ```
//!
//! What comes in is in `ip_input`, what goes out in `ip_output`, ICMP in `icmp`, the questions and answers about
//! neighbours in `resolve`. Nothing is allocated per packet: vectors are lent or kept.

use std::net::IpAddr;

use hoststack_wire::{FlowHasher, MacAddr};

use crate::drop_reason::{DropCounters, DropReason};
use crate::echo::ExpectedEcho;
use crate::fib::Fib;
use crate::interface::{InterfaceConfig, InterfaceId};
use crate::ip_output::{DestinationCache, ether_type_of};
use crate::neighbor::hop;
use crate::neighbor::replica::{QueueLimits, Replica, ReplicaNeighbor};
use crate::packet::{Packet, PacketPool};
use crate::pmtu::PathMtuTable;
use crate::route::NextHop;
use crate::update::{NetEvent, NetUpdate};

/// Limits of one worker's IP path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpLimits {
    /// Packets that wait behind one unresolved neighbour: a burst of connects to a fresh router.
    pub neighbor_queue_max: usize,
    /// Packets that wait behind all unresolved neighbours: 8 MiB of buffers.
    pub neighbor_queues_max: usize,
    /// Neighbours that packets wait for: as many as main resolves at once.
    pub neighbors_max: usize,
    /// Packets in one interface's transmit vector before TCP is told to stop. Default 256: what is still in the cache when
    /// the other end takes it (1024 cost a quarter of the throughput of many streams).
    pub tx_max: usize,
    /// Packets in one interface's transmit vector before any more are dropped: what a step's input calls for (ACKs,
    /// SYN-ACKs, resets) cannot wait as data can.
    pub tx_hard_max: usize,
    /// Path MTUs remembered.
    pub path_mtus_max: usize,
    /// Entries of the destination cache, rounded up to a power of two.
    pub destinations: usize,
    /// Events for main that are kept until taken: what floods of ARP may cost main in one step.
    pub events_max: usize,
    /// Port unreachable messages per second (RFC 1812 §4.3.2.8, RFC 4443 §2.4(f)).
    pub unreachables_per_second: u32,
    /// Port unreachable messages in one burst.
    pub unreachables_burst: u32,
    /// Time between two [`NetEvent::NeighborMiss`] for one neighbour.
    pub neighbor_miss_interval_us: u64,
}

impl Default for IpLimits {
    fn default() -> IpLimits {
        IpLimits {
            neighbor_queue_max: 64,
            neighbor_queues_max: 4096,
            neighbors_max: 4096,
            tx_max: 256,
            tx_hard_max: 8192,
            path_mtus_max: 1024,
            destinations: 1024,
            events_max: 1024,
            unreachables_per_second: 100,
            unreachables_burst: 10,
            neighbor_miss_interval_us: 1_000_000,
        }
    }
}

/// What a worker's IP path did, besides dropping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpCounters {
    /// Packets from devices.
    pub received: u64,
    /// Packets from other workers.
    pub received_handovers: u64,
    /// TCP segments for this worker.
    pub segments: u64,
    /// Packets that another worker's device queue should have got.
    pub handovers: u64,
    /// ICMP errors about a flow of this worker.
    pub icmp_errors: u64,
    /// Echo requests answered.
    pub echo_replies: u64,
    /// ARP requests and neighbour solicitations answered.
    pub neighbor_replies: u64,
    /// Other ARP and neighbour discovery messages heeded.
    pub neighbor_news: u64,
    /// Port unreachable messages.
    pub unreachables: u64,
    /// Questions for neighbours.
    pub probes: u64,
    /// TCP segments given to an interface's transmit vector or a neighbour's queue.
    pub segments_sent: u64,
    /// Packets that had to wait for a neighbour.
    pub neighbor_waits: u64,
    /// Times that the destination cache did not know.
    pub destination_misses: u64,
}

impl IpCounters {
    /// The counters by their names for the CLI.
    pub const fn named(&self) -> [(&'static str, u64); 13] {
        [
            ("received", self.received),
            ("received-handovers", self.received_handovers),
            ("segments", self.segments),
            ("handovers", self.handovers),
            ("icmp-errors", self.icmp_errors),
            ("echo-replies", self.echo_replies),
            ("neighbor-replies", self.neighbor_replies),
            ("neighbor-news", self.neighbor_news),
            ("unreachables", self.unreachables),
            ("probes", self.probes),
            ("segments-sent", self.segments_sent),
            ("neighbor-waits", self.neighbor_waits),
            ("destination-misses", self.destination_misses),
        ]
    }

    /// Adds another worker's counts.
    pub fn merge(&mut self, other: &IpCounters) {
        let IpCounters {
            received,
            received_handovers,
            segments,
            handovers,
            icmp_errors,
            echo_replies,
            neighbor_replies,
            neighbor_news,
            unreachables,
            probes,
            segments_sent,
            neighbor_waits,
            destination_misses,
        } = *other;
        self.received += received;
        self.received_handovers += received_handovers;
        self.segments += segments;
        self.handovers += handovers;
        self.icmp_errors += icmp_errors;
        self.echo_replies += echo_replies;
        self.neighbor_replies += neighbor_replies;
        self.neighbor_news += neighbor_news;
        self.unreachables += unreachables;
        self.probes += probes;
        self.segments_sent += segments_sent;
        self.neighbor_waits += neighbor_waits;
        self.destination_misses += destination_misses;
    }
}

/// The IP path of one worker.
#[derive(Debug)]
pub struct IpPath {
    pub(crate) worker: u8,
    pub(crate) workers: u8,
    pub(crate) hasher: FlowHasher,
    pub(crate) limits: IpLimits,
    pub(crate) fib: Fib,
    pub(crate) neighbors: Replica,
    pub(crate) destinations: DestinationCache,
    pub(crate) paths: PathMtuTable,
    /// Packets to send, by interface number.
    pub(crate) tx: Vec<Vec<Packet>>,
    /// Packets beyond `tx_max` for which there is room at present.
    extra: usize,
    pub(crate) events: Vec<NetEvent>,
    /// Pings under way.
    pub(crate) echoes: Vec<ExpectedEcho>,
    pub(crate) drops: DropCounters,
    pub(crate) counters: IpCounters,
    pub(crate) unreachables: TokenBucket,
}

impl IpPath {
    /// For worker number `worker` of `workers`; `hasher` has the same key on all of them. It knows nothing until
    /// [`IpPath::apply`] tells it.
    ///
    /// # Panics
    /// When `worker` is not less than `workers`.
    pub fn new(worker: u8, workers: u8, hasher: FlowHasher, limits: IpLimits) -> IpPath {
        assert!(worker < workers, "workers are numbered from 0 to {workers} - 1");
        IpPath {
            worker,
            workers,
            hasher,
            limits,
            fib: Fib::default(),
            neighbors: Replica::new(QueueLimits {
                packets_each_max: limits.neighbor_queue_max,
                packets_max: limits.neighbor_queues_max,
                neighbors_max: limits.neighbors_max,
            }),
            destinations: DestinationCache::new(limits.destinations),
            paths: PathMtuTable::new(limits.path_mtus_max),
            tx: Vec::new(),
            extra: 0,
            events: Vec::new(),
            echoes: Vec::new(),
            drops: DropCounters::default(),
            counters: IpCounters::default(),
            unreachables: TokenBucket::new(limits.unreachables_per_second, limits.unreachables_burst),
        }
    }

    /// Applies a change that main made. Packets that waited for a neighbour go out, or are dropped into `pool`.
    pub fn apply(&mut self, now_us: u64, update: &NetUpdate, pool: &mut PacketPool) {
        self.destinations.forget_all();
        match update {
            NetUpdate::InterfaceAdded(config) => {
                self.fib.add_interface(InterfaceConfig::clone(config));
                self.tx_slot(config.id);
            }
            NetUpdate::RouteAdded(route) => self.fib.add_route(*route),
            NetUpdate::RouteRemoved { domain, prefix } => self.fib.remove_route(*domain, *prefix),
            NetUpdate::NeighborSet { interface, addr, mac } => {
                self.on_resolved(now_us, hop(*interface, *addr), *mac)
            }
            NetUpdate::NeighborStale { interface, addr } => {
                self.neighbors.mark_stale(hop(*interface, *addr), true)
            }
            NetUpdate::NeighborForgotten { interface, addr } => {
                self.on_unresolved(hop(*interface, *addr), DropReason::NeighborForgotten, pool);
            }
            NetUpdate::NeighborFailed { interface, addr } => {
                self.on_unresolved(hop(*interface, *addr), DropReason::NeighborFailed, pool);
            }
        }
    }

    fn on_resolved(&mut self, now_us: u64, hop: NextHop, mac: MacAddr) {
        let waited = self.neighbors.set(hop, mac);
        if waited.is_empty() {
            return;
        }
        tracing::trace!(neighbor = %hop, packets = waited.len(), now_us, "neighbor resolved");
        // They may exceed the vector's bound: they were counted against a bound of their own, and dropping the SYNs that
        // waited the longest would be perverse.
        for packet in waited {
            self.send_ethernet(hop.interface, mac, ether_type_of(hop.addr), packet);
        }
    }

    fn on_unresolved(&mut self, hop: NextHop, reason: DropReason, pool: &mut PacketPool) {
        for packet in self.neighbors.forget(hop) {
            self.drops.count(reason);
            pool.give(packet);
        }
    }

    /// The packets to hand to the interface's device queue; those it does not take stay for the next step. Empty for an
    /// interface that was not added.
    pub fn tx(&mut self, interface: InterfaceId) -> &mut Vec<Packet> {
        self.tx_slot(interface)
    }

    /// Packets that wait for the interface's device queue.
    pub fn tx_len(&self, interface: InterfaceId) -> usize {
        self.tx.get(interface.index()).map_or(0, Vec::len)
    }

    pub(crate) fn tx_slot(&mut self, interface: InterfaceId) -> &mut Vec<Packet> {
        if self.tx.len() <= interface.index() {
            self.tx.resize_with(interface.index() + 1, Vec::new);
        }
        &mut self.tx[interface.index()]
    }

    /// The packets that wait for each interface's device queue.
    pub fn waiting_packets(&self) -> impl Iterator<Item = (InterfaceId, &[Packet])> {
        // Cannot cut: an interface's number made the place.
        self.tx.iter().enumerate().map(|(number, waiting)| (InterfaceId(number as u16), waiting.as_slice()))
    }

    /// How many more packets the interface's transmit vector takes.
    #[inline]
    pub fn tx_room(&self, interface: InterfaceId) -> usize {
        let waiting = self.tx.get(interface.index()).map_or(0, Vec::len);
        self.limits.tx_max.saturating_sub(waiting)
    }

    /// Whether the interface's transmit vector takes nothing any more.
    #[inline]
    pub(crate) fn is_tx_full(&self, interface: InterfaceId) -> bool {
        self.tx.get(interface.index()).map_or(0, Vec::len) >= self.limits.tx_hard_max
    }

    /// How many more packets may be sent whatever interface they leave through: the least room of all.
    #[inline]
    pub fn room(&self) -> usize {
        (self.limits.tx_max + self.extra).saturating_sub(self.waiting())
    }

    /// The longest transmit vector.
    fn waiting(&self) -> usize {
        self.tx.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Makes room for `count` packets at least, so that what answers others' packets does not keep our own from being
    /// sent: until it is taken back with 0, and unless a device has taken nothing for long (half of the hard limit).
    pub fn grant_room(&mut self, count: usize) {
        let waiting = self.waiting();
        let wanted = if waiting < self.limits.tx_hard_max / 2 { waiting + count } else { 0 };
        self.extra = if count == 0 { 0 } else { wanted.saturating_sub(self.limits.tx_max) };
    }

    /// The room when nothing waits for a device.
    pub fn room_max(&self) -> usize {
        self.limits.tx_max
    }

    /// Moves the news for main to the end of `into`. To be called in every step.
    pub fn take_events(&mut self, into: &mut Vec<NetEvent>) {
        into.append(&mut self.events);
    }

    /// Keeps an event for main; false (and counted) when too many were not taken.
    pub(crate) fn push_event(&mut self, event: NetEvent) -> bool {
        if self.events.len() >= self.limits.events_max {
            self.drops.count(DropReason::EventsFull);
            return false;
        }
        self.events.push(event);
        true
    }

    /// The largest IP packet that is known to reach `dst`: the path's MTU or that of the interface; `None` when there is
    /// no way to `dst`.
    pub fn path_mtu(&mut self, now_us: u64, domain: u16, dst: IpAddr) -> Option<usize> {
        self.destination(now_us, domain, dst).ok().map(|destination| destination.path_mtu)
    }

    /// TCP believes an ICMP error that said that packets to `dst` are too big: `told` is the MTU it named, if it did.
    /// True when the path MTU became smaller; it holds for ten minutes.
    pub fn learn_path_mtu(&mut self, now_us: u64, domain: u16, dst: IpAddr, told: Option<usize>) -> bool {
        let Ok(destination) = self.destination(now_us, domain, dst) else { return false };
        let is_smaller = self.paths.learn(now_us, domain, dst, told, destination.mtu);
        if is_smaller {
            self.destinations.forget_all();
        }
        is_smaller
    }

    /// The path MTUs that are believed now: domain, destination, bytes.
    pub fn path_mtus(&self, now_us: u64) -> impl Iterator<Item = (u16, IpAddr, usize)> + '_ {
        self.paths.iter(now_us)
    }

    /// The neighbours as they are known here, by interface and address.
    pub fn neighbors(&self) -> impl Iterator<Item = ReplicaNeighbor> + '_ {
        self.neighbors.iter()
    }

    /// Packets that wait for a neighbour.
    pub fn waiting_len(&self) -> usize {
        self.neighbors.packets()
    }

    /// An interface that was added.
    pub fn interface(&self, interface: InterfaceId) -> Option<&InterfaceConfig> {
        self.fib.interface(interface).map(|found| &found.config)
    }

    /// The worker that owns a flow.
    #[inline]
    pub fn worker_of(&self, src: IpAddr, src_port: u16, dst: IpAddr, dst_port: u16) -> u8 {
        crate::steer::worker_of(self.hasher.hash(src, src_port, dst, dst_port), self.workers)
    }

    /// What was dropped, and why.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// What was done.
    pub fn counters(&self) -> &IpCounters {
        &self.counters
    }
}

/// So many per second, with bursts up to a bound.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    per_second: u64,
    /// In millionths, as the levels.
    level_max: u64,
    level: u64,
    updated_us: u64,
}

impl TokenBucket {
    fn new(per_second: u32, burst: u32) -> TokenBucket {
        let level_max = u64::from(burst) * 1_000_000;
        TokenBucket { per_second: u64::from(per_second), level_max, level: level_max, updated_us: 0 }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now_us: u64) -> bool {
        let passed_us = now_us.saturating_sub(self.updated_us);
        self.updated_us = self.updated_us.max(now_us);
        let earned = passed_us.saturating_mul(self.per_second);
        self.level = self.level.saturating_add(earned).min(self.level_max);
        let has_one = self.level >= 1_000_000;
        if has_one {
            self.level -= 1_000_000;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_bucket_gives_a_burst_and_then_the_rate() {
        let mut bucket = TokenBucket::new(100, 3);
        assert_eq!((0..9).filter(|_| bucket.take(50)).count(), 3);
        assert!(!bucket.take(10_049) && bucket.take(10_050) && !bucket.take(10_050));
        assert_eq!((0..9).filter(|_| bucket.take(60_000_000)).count(), 3);
        assert!(!bucket.take(0));
        assert!(!TokenBucket::new(100, 0).take(1 << 60));
    }

    #[test]
    fn counters_merge_field_by_field() {
        let mut sum = IpCounters { received: 1, destination_misses: 2, ..IpCounters::default() };
        sum.merge(&sum.clone());
        assert_eq!((sum.received, sum.destination_misses), (2, 4));
        assert_eq!(sum.named().iter().map(|(_, n)| n).sum::<u64>(), 6);
    }
}
