//! A device whose transmitted packets come back on the same queue: raw IP, for apps of one domain that talk to
//! themselves.

use std::collections::VecDeque;
use std::io;

use hoststack_wire::MacAddr;

use crate::device::{Capabilities, Device, DeviceCounters, DeviceQueue};
use crate::packet::{Packet, PacketPool};

/// A loopback device. Every queue is a loop of its own; steering hands packets over to the worker that owns a flow.
#[derive(Clone, Debug)]
pub struct Loopback {
    /// The interface's name (default `lo`).
    pub name: String,
    /// The largest IP packet, in bytes (default 1500, so that a default pool's buffers do).
    pub mtu: usize,
    /// Packets that one queue holds before it is full (default 1024; at least 1).
    pub ring_packets: usize,
}

impl Default for Loopback {
    fn default() -> Loopback {
        Loopback { name: "lo".to_owned(), mtu: 1500, ring_packets: 1024 }
    }
}

impl Device for Loopback {
    fn name(&self) -> &str {
        &self.name
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn mac(&self) -> Option<MacAddr> {
        None
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn into_queues(self: Box<Self>, count: usize) -> io::Result<Vec<Box<dyn DeviceQueue>>> {
        let queue = || LoopbackQueue {
            ring: VecDeque::new(),
            ring_packets: self.ring_packets.max(1),
            mtu: self.mtu,
            counters: DeviceCounters::default(),
        };
        Ok((0..count).map(|_| Box::new(queue()) as Box<dyn DeviceQueue>).collect())
    }
}

struct LoopbackQueue {
    ring: VecDeque<Packet>,
    ring_packets: usize,
    mtu: usize,
    counters: DeviceCounters,
}

impl DeviceQueue for LoopbackQueue {
    fn receive(&mut self, _now_us: u64, _pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        let count = self.ring.len().min(max);
        for packet in self.ring.drain(..count) {
            self.counters.rx_packets += 1;
            self.counters.rx_bytes += packet.len() as u64;
            into.push(packet);
        }
        count
    }

    fn transmit(&mut self, _now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        let count = packets.len().min(self.ring_packets - self.ring.len());
        if count < packets.len() {
            self.counters.tx_full += 1;
        }
        for packet in packets.drain(..count) {
            if packet.len() > self.mtu {
                self.counters.tx_dropped_too_long += 1;
                pool.give(packet);
                continue;
            }
            self.counters.tx_packets += 1;
            self.counters.tx_bytes += packet.len() as u64;
            self.ring.push_back(packet);
        }
        count
    }

    fn next_deadline_us(&self) -> Option<u64> {
        (!self.ring.is_empty()).then_some(0)
    }

    fn counters(&self) -> DeviceCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_back_on_the_same_queue_in_order() {
        let mut queues =
            Box::new(Loopback { ring_packets: 3, ..Loopback::default() }).into_queues(2).unwrap();
        let mut pool = PacketPool::default();
        let mut out: Vec<Packet> = (0..5u8).map(|n| Packet::copy_of(&[n; 4])).collect();
        out.insert(0, Packet::copy_of(&[9; 1501]));
        assert_eq!(queues[0].transmit(0, &mut pool, &mut out), 3);
        assert_eq!(queues[0].transmit(0, &mut pool, &mut out), 1);
        assert_eq!(out.len(), 2);
        assert_eq!(queues[0].next_deadline_us(), Some(0));
        let mut back = Vec::new();
        assert_eq!(queues[1].receive(0, &mut pool, &mut back, 10), 0);
        assert_eq!(queues[0].receive(0, &mut pool, &mut back, 2), 2);
        assert_eq!(queues[0].receive(0, &mut pool, &mut back, 10), 1);
        assert_eq!(back.iter().map(|p| p.data()[0]).collect::<Vec<_>>(), [0, 1, 2]);
        let counters = queues[0].counters();
        assert_eq!((counters.tx_packets, counters.rx_packets, counters.tx_full), (3, 3, 2));
        assert_eq!((counters.tx_dropped_too_long, counters.rx_bytes), (1, 12));
        assert_eq!(queues[0].next_deadline_us(), None);
    }
}
