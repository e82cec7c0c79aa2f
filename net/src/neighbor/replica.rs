//! Neighbours as a worker knows them: what main told it, and the packets that wait for the rest.

use std::collections::{BTreeMap, VecDeque};

use hoststack_wire::MacAddr;

use crate::packet::Packet;
use crate::route::NextHop;

/// What a worker may do about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Send to this address.
    Known(MacAddr),
    /// Send to this address, and tell main that it was used.
    Stale(MacAddr),
    /// Wait.
    Unknown,
}

/// A neighbour as a worker knows it, for the CLI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaNeighbor {
    /// Where and who.
    pub next_hop: NextHop,
    /// Its Ethernet address; `None`: not known, packets wait.
    pub mac: Option<MacAddr>,
    /// Main is to be told when it is used.
    pub is_stale: bool,
    /// Packets that wait for it.
    pub waiting: usize,
}

#[derive(Debug)]
enum Entry {
    Known { mac: MacAddr, is_stale: bool },
    Waiting { packets: VecDeque<Packet>, missed_us: Option<u64> },
}

/// Limits of the packets that wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    /// Packets behind one neighbour.
    pub(crate) packets_each_max: usize,
    /// Packets behind all neighbours.
    pub(crate) packets_max: usize,
    /// Neighbours that are waited for.
    pub(crate) neighbors_max: usize,
}

/// What became of a packet that was to wait.
#[derive(Debug)]
#[must_use]
pub(crate) enum Queued {
    /// It waits.
    Waits,
    /// It waits, and this older packet gave it its place.
    Displaced(Packet),
    /// It found no place at all.
    Refused(Packet),
    /// It found no place, as too many neighbours are waited for.
    TableFull(Packet),
}

/// A worker's replica of the neighbour table.
#[derive(Debug)]
pub(crate) struct Replica {
    limits: QueueLimits,
    entries: BTreeMap<NextHop, Entry>,
    /// Packets in all queues.
    packets: usize,
    /// Entries that wait.
    waiting: usize,
}

impl Replica {
    pub(crate) fn new(limits: QueueLimits) -> Replica {
        Replica { limits, entries: BTreeMap::new(), packets: 0, waiting: 0 }
    }

    pub(crate) fn link(&self, hop: NextHop) -> Link {
        match self.entries.get(&hop) {
            Some(Entry::Known { mac, is_stale: false }) => Link::Known(*mac),
            Some(Entry::Known { mac, is_stale: true }) => Link::Stale(*mac),
            Some(Entry::Waiting { .. }) | None => Link::Unknown,
        }
    }

    /// All that are known or waited for, by interface and address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ReplicaNeighbor> + '_ {
        self.entries.iter().map(|(next_hop, entry)| match entry {
            Entry::Known { mac, is_stale } => {
                ReplicaNeighbor { next_hop: *next_hop, mac: Some(*mac), is_stale: *is_stale, waiting: 0 }
            }
            Entry::Waiting { packets, .. } => {
                let waiting = packets.len();
                ReplicaNeighbor { next_hop: *next_hop, mac: None, is_stale: false, waiting }
            }
        })
    }

    /// Whether packets wait for it.
    pub(crate) fn is_waited_for(&self, hop: NextHop) -> bool {
        matches!(self.entries.get(&hop), Some(Entry::Waiting { .. }))
    }

    /// Packets that wait, behind all neighbours.
    pub(crate) fn packets(&self) -> usize {
        self.packets
    }

    /// Puts a packet behind a neighbour that is not known. Within a full queue the oldest goes: its sender has the
    /// most reason to have sent it again.
    pub(crate) fn wait(&mut self, hop: NextHop, packet: Packet) -> Queued {
        if !self.entries.contains_key(&hop) {
            if self.waiting >= self.limits.neighbors_max {
                return Queued::TableFull(packet);
            }
            self.waiting += 1;
            self.entries.insert(hop, Entry::Waiting { packets: VecDeque::new(), missed_us: None });
        }
        let Some(Entry::Waiting { packets, .. }) = self.entries.get_mut(&hop) else {
            unreachable!("only packets for neighbours that are not known are made to wait")
        };
        if packets.len() < self.limits.packets_each_max && self.packets < self.limits.packets_max {
            packets.push_back(packet);
            self.packets += 1;
            return Queued::Waits;
        }
        match packets.pop_front() {
            Some(oldest) => {
                packets.push_back(packet);
                Queued::Displaced(oldest)
            }
            None => Queued::Refused(packet),
        }
    }

    /// Whether main should be told (again) that packets wait for `hop`.
    pub(crate) fn is_miss_due(&self, now_us: u64, hop: NextHop, interval_us: u64) -> bool {
        match self.entries.get(&hop) {
            Some(Entry::Waiting { missed_us, .. }) => {
                missed_us.is_none_or(|last_us| now_us.saturating_sub(last_us) >= interval_us)
            }
            Some(Entry::Known { .. }) | None => false,
        }
    }

    /// Main was told so.
    pub(crate) fn note_miss(&mut self, now_us: u64, hop: NextHop) {
        if let Some(Entry::Waiting { missed_us, .. }) = self.entries.get_mut(&hop) {
            *missed_us = Some(now_us);
        }
    }

    /// The neighbour is known; returns the packets that waited for it, oldest first.
    pub(crate) fn set(&mut self, hop: NextHop, mac: MacAddr) -> VecDeque<Packet> {
        self.forget_into(hop, Some(Entry::Known { mac, is_stale: false }))
    }

    /// Marks a known neighbour stale, or not.
    pub(crate) fn mark_stale(&mut self, hop: NextHop, stale: bool) {
        if let Some(Entry::Known { is_stale, .. }) = self.entries.get_mut(&hop) {
            *is_stale = stale;
        }
    }

    /// Nothing is known of the neighbour any more; returns the packets that waited for it.
    pub(crate) fn forget(&mut self, hop: NextHop) -> VecDeque<Packet> {
        self.forget_into(hop, None)
    }

    fn forget_into(&mut self, hop: NextHop, next: Option<Entry>) -> VecDeque<Packet> {
        let last = match next {
            Some(entry) => self.entries.insert(hop, entry),
            None => self.entries.remove(&hop),
        };
        match last {
            Some(Entry::Waiting { packets, .. }) => {
                self.waiting -= 1;
                self.packets -= packets.len();
                packets
            }
            Some(Entry::Known { .. }) | None => VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::InterfaceId;

    fn hop(last: u8) -> NextHop {
        NextHop { interface: InterfaceId(1), addr: [10, 0, 0, last].into() }
    }

    fn replica() -> Replica {
        Replica::new(QueueLimits { packets_each_max: 2, packets_max: 3, neighbors_max: 2 })
    }

    #[test]
    fn queues_are_bounded_each_and_in_all_and_drop_the_oldest() {
        let mut replica = replica();
        let packet = |n: u8| Packet::copy_of(&[n]);
        assert!(matches!(replica.wait(hop(1), packet(1)), Queued::Waits));
        assert!(matches!(replica.wait(hop(1), packet(2)), Queued::Waits));
        assert!(matches!(replica.wait(hop(1), packet(3)), Queued::Displaced(old) if old.data() == [1]));
        assert!(matches!(replica.wait(hop(2), packet(4)), Queued::Waits));
        assert!(matches!(replica.wait(hop(2), packet(5)), Queued::Displaced(old) if old.data() == [4]));
        assert!(matches!(replica.wait(hop(3), packet(6)), Queued::TableFull(new) if new.data() == [6]));
        assert_eq!(replica.packets(), 3);
        let waiting: Vec<_> = replica.iter().map(|neighbor| (neighbor.mac, neighbor.waiting)).collect();
        assert_eq!(waiting, [(None, 2), (None, 1)]);
        let sent: Vec<_> =
            replica.set(hop(1), MacAddr([2; 6])).iter().map(|packet| packet.data()[0]).collect();
        assert_eq!(sent, [2, 3]);
        assert_eq!((replica.packets(), replica.link(hop(1))), (1, Link::Known(MacAddr([2; 6]))));
        assert!(matches!(replica.wait(hop(3), packet(7)), Queued::Waits));
        assert_eq!(replica.forget(hop(2)).len() + replica.forget(hop(3)).len(), 2);
        assert_eq!((replica.packets(), replica.waiting), (0, 0));
    }

    #[test]
    fn packet_finds_no_place_when_others_hold_all_of_them() {
        let mut replica = Replica::new(QueueLimits { packets_each_max: 2, packets_max: 2, neighbors_max: 9 });
        for _ in 0..2 {
            assert!(matches!(replica.wait(hop(1), Packet::copy_of(&[1])), Queued::Waits));
        }
        assert!(matches!(replica.wait(hop(2), Packet::copy_of(&[2])), Queued::Refused(_)));
        assert!(replica.is_waited_for(hop(2)));
    }

    #[test]
    fn a_miss_is_told_once_per_interval() {
        let mut replica = replica();
        assert!(!replica.is_miss_due(0, hop(1), 100));
        let _ = replica.wait(hop(1), Packet::copy_of(&[1]));
        assert!(replica.is_miss_due(7, hop(1), 100));
        replica.note_miss(7, hop(1));
        assert!(!replica.is_miss_due(106, hop(1), 100) && replica.is_miss_due(107, hop(1), 100));
        replica.set(hop(1), MacAddr([2; 6]));
        assert!(!replica.is_miss_due(1000, hop(1), 100));
        replica.mark_stale(hop(1), true);
        assert_eq!(replica.link(hop(1)), Link::Stale(MacAddr([2; 6])));
    }
}
