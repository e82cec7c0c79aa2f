//! Interfaces, routes, neighbours, path MTUs: the answer to [`Query::Network`](super::Query::Network).

use std::collections::BTreeMap;

use hoststack_net::{DeviceCounters, InterfaceId, ReplicaNeighbor};
use serde::Serialize;

use super::DropInfo;

/// Of each kind, what is listed at most: a thread does so in one step.
pub(crate) const LISTED_MAX: usize = 1024;

/// The network as main and the workers know it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NetworkInfo {
    /// Interfaces, by number.
    pub interfaces: Vec<InterfaceInfo>,
    /// Routes, by domain and prefix, as many as the question allows.
    pub routes: Vec<RouteInfo>,
    /// Routes in all.
    pub routes_total: usize,
    /// Neighbours, by interface and address, as many as the question allows.
    pub neighbors: Vec<NeighborInfo>,
    /// Neighbours in all.
    pub neighbors_total: usize,
    /// Path MTUs that workers learnt and believe now, as many as the question allows.
    pub path_mtus: Vec<PathMtuInfo>,
    /// What the workers' IP paths did besides dropping; zero counts left out.
    pub ip: Vec<IpInfo>,
    /// Pings under way.
    pub pings: usize,
}

/// An interface.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InterfaceInfo {
    /// Its number.
    pub interface: u16,
    /// Its name.
    pub name: String,
    /// Its routing domain.
    pub domain: u16,
    /// `ethernet` or `raw-ip`.
    pub link: &'static str,
    /// Its Ethernet address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The largest IP packet, bytes.
    pub mtu: usize,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<String>,
    /// Its device's queues, one per worker.
    pub queues: Vec<QueueInfo>,
}

impl InterfaceInfo {
    /// The sum of what the queues did.
    pub fn total(&self) -> QueueInfo {
        let mut total = QueueInfo::default();
        for queue in &self.queues {
            total.rx_packets += queue.rx_packets;
            total.rx_bytes += queue.rx_bytes;
            total.tx_packets += queue.tx_packets;
            total.tx_bytes += queue.tx_bytes;
            total.tx_full += queue.tx_full;
            total.tx_waiting += queue.tx_waiting;
            for drop in &queue.drops {
                match total.drops.iter_mut().find(|other| other.reason == drop.reason) {
                    Some(other) => other.count += drop.count,
                    None => total.drops.push(drop.clone()),
                }
            }
        }
        total
    }
}

/// A worker's queue of an interface's device. Bytes count link headers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct QueueInfo {
    /// Whose it is.
    pub worker: u8,
    /// Packets received.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Times that the device was full and packets stayed with the worker.
    pub tx_full: u64,
    /// Packets that wait for the device now.
    pub tx_waiting: usize,
    /// What the device dropped, by reason; zero ones left out.
    pub drops: Vec<DropInfo>,
}

impl QueueInfo {
    pub(crate) fn new(worker: u8, counters: &DeviceCounters, tx_waiting: usize) -> QueueInfo {
        let drops = counters.drops().into_iter().filter(|(_, count)| *count > 0);
        QueueInfo {
            worker,
            rx_packets: counters.rx_packets,
            rx_bytes: counters.rx_bytes,
            tx_packets: counters.tx_packets,
            tx_bytes: counters.tx_bytes,
            tx_full: counters.tx_full,
            tx_waiting,
            drops: drops
                .map(|(name, count)| DropInfo {
                    reason: format!("device-{name}"),
                    count,
                    help: "A device or its wire dropped the packet.".into(),
                })
                .collect(),
        }
    }
}

/// A route.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RouteInfo {
    /// Its routing domain.
    pub domain: u16,
    /// Where it leads.
    pub prefix: String,
    /// Through which router; none: the destinations are on the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// The interface's number.
    pub interface: u16,
    /// The interface's name.
    pub interface_name: String,
    /// It follows from an address of the interface.
    pub is_connected: bool,
    /// The source address of packets to the first address of the prefix; none: we have none of the family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A neighbour.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NeighborInfo {
    /// The routing domain of its interface.
    pub domain: u16,
    /// The interface's number.
    pub interface: u16,
    /// The interface's name.
    pub interface_name: String,
    /// Its address.
    pub address: String,
    /// Its Ethernet address, if it was ever known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// `static`, `incomplete`, `reachable`, `stale`, `probe`, `failed`.
    pub state: String,
    /// Since it was last heard of or asked for.
    pub age_us: u64,
    /// Packets that wait for it, by worker; workers where none does are left out.
    pub waiting: Vec<WaitingInfo>,
    /// Workers that know another Ethernet address than main does, or none. An update under way does that, for a step.
    pub disagreeing: Vec<u8>,
}

/// Packets of a worker that wait for a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WaitingInfo {
    /// Whose they are.
    pub worker: u8,
    /// How many.
    pub packets: usize,
}

/// A path MTU that a worker learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathMtuInfo {
    /// Who learnt it.
    pub worker: u8,
    /// The routing domain.
    pub domain: u16,
    /// The destination.
    pub destination: String,
    /// The largest IP packet, bytes.
    pub mtu: usize,
}

/// What a worker's IP path did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IpInfo {
    /// Which.
    pub worker: u8,
    /// By stable name; zero ones left out.
    pub counters: Vec<(&'static str, u64)>,
}

/// A worker's part.
#[derive(Clone, Debug)]
pub(crate) struct WorkerNetwork {
    pub(crate) queues: Vec<(InterfaceId, QueueInfo)>,
    pub(crate) neighbors: Vec<ReplicaNeighbor>,
    /// There are more neighbours, behind these.
    pub(crate) has_more_neighbors: bool,
    pub(crate) path_mtus: Vec<PathMtuInfo>,
    pub(crate) ip: IpInfo,
}

/// What a worker's replica says of a neighbour of main's.
pub(crate) struct Replicas<'a> {
    /// By worker: the neighbours told, and the last one's key if there are more.
    workers: Vec<(u8, BTreeMap<hoststack_net::NextHop, &'a ReplicaNeighbor>, Option<hoststack_net::NextHop>)>,
}

impl<'a> Replicas<'a> {
    pub(crate) fn new(parts: impl Iterator<Item = (u8, &'a WorkerNetwork)>) -> Replicas<'a> {
        let workers = parts.map(|(worker, part)| {
            let last = part.neighbors.last().filter(|_| part.has_more_neighbors);
            let known = part.neighbors.iter().map(|neighbor| (neighbor.next_hop, neighbor)).collect();
            (worker, known, last.map(|neighbor| neighbor.next_hop))
        });
        Replicas { workers: workers.collect() }
    }

    /// Where packets wait for it, and which workers do not know what main told them.
    pub(crate) fn look(&self, neighbor: &hoststack_net::Neighbor) -> (Vec<WaitingInfo>, Vec<u8>) {
        use hoststack_net::NeighborState::{Failed, Incomplete};
        let told = neighbor.mac.filter(|_| !matches!(neighbor.state, Incomplete | Failed));
        let (mut waiting, mut disagreeing) = (Vec::new(), Vec::new());
        for (worker, known, end) in &self.workers {
            if end.is_some_and(|end| neighbor.next_hop > end) {
                continue;
            }
            let here = known.get(&neighbor.next_hop);
            let packets = here.map_or(0, |here| here.waiting);
            if packets > 0 {
                waiting.push(WaitingInfo { worker: *worker, packets });
            }
            if here.and_then(|here| here.mac) != told {
                disagreeing.push(*worker);
            }
        }
        (waiting, disagreeing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack_net::{Neighbor, NeighborState, NextHop};
    use hoststack_wire::MacAddr;

    fn hop(last: u8) -> NextHop {
        NextHop { interface: InterfaceId(0), addr: [10, 0, 0, last].into() }
    }

    fn part(neighbors: Vec<ReplicaNeighbor>, has_more_neighbors: bool) -> WorkerNetwork {
        let ip = IpInfo { worker: 0, counters: Vec::new() };
        WorkerNetwork { queues: Vec::new(), neighbors, has_more_neighbors, path_mtus: Vec::new(), ip }
    }

    #[test]
    fn a_worker_that_knows_something_else_than_main_is_named() {
        let known = |last, mac| ReplicaNeighbor {
            next_hop: hop(last),
            mac: Some(MacAddr([mac; 6])),
            is_stale: false,
            waiting: 0,
        };
        let waiting = ReplicaNeighbor { next_hop: hop(1), mac: None, is_stale: false, waiting: 3 };
        let parts = [
            part(vec![known(1, 2)], false),
            part(vec![known(1, 4)], false),
            part(vec![waiting], false),
            part(Vec::new(), false),
            // It told a part of what it knows: of the rest nothing can be said.
            part(vec![known(0, 2)], true),
        ];
        let replicas = Replicas::new(parts.iter().enumerate().map(|(worker, part)| (worker as u8, part)));
        let main = |state, mac| Neighbor { next_hop: hop(1), mac, state, updated_us: 0 };
        let (packets, disagreeing) = replicas.look(&main(NeighborState::Stale, Some(MacAddr([2; 6]))));
        assert_eq!(packets, [WaitingInfo { worker: 2, packets: 3 }]);
        assert_eq!(disagreeing, [1, 2, 3]);
        // Main was told of an address once, but told the workers to forget it.
        let (_, disagreeing) = replicas.look(&main(NeighborState::Failed, Some(MacAddr([2; 6]))));
        assert_eq!(disagreeing, [0, 1]);
    }
}
