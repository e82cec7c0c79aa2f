//! A device behind a link that is bad both ways: [`impair`] spoils what a device sends, this also what it receives.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use hoststack::net::{
    Capabilities, Device, DeviceCounters, DeviceQueue, Impaired, ImpairmentCounters, Impairments, Packet,
    PacketPool, impair,
};
use hoststack_wire::MacAddr;

/// A device whose two directions are impaired.
pub struct TwoWay {
    device: Box<dyn Device>,
    links: [Impairments; 2],
    counters: Arc<ImpairmentCounters>,
}

impl TwoWay {
    /// `links`: what is sent, what is received.
    pub fn new(device: impl Device + 'static, links: [Impairments; 2]) -> TwoWay {
        TwoWay { device: Box::new(device), links, counters: Arc::default() }
    }
}

impl Device for TwoWay {
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
        let TwoWay { device, links: [out, back], counters } = *self;
        let queues = Box::new(impair(device, out)).into_queues(count)?;
        let wrap = |(stream, queue): (u64, Box<dyn DeviceQueue>)| -> Box<dyn DeviceQueue> {
            let back = Impaired::new(Basket::default(), back, stream, counters.clone());
            Box::new(TwoWayQueue { queue, back, fresh: Vec::new() })
        };
        Ok((0..).zip(queues).map(wrap).collect())
    }
}

struct TwoWayQueue {
    queue: Box<dyn DeviceQueue>,
    /// What is received passes through here.
    back: Impaired<Basket>,
    /// Received, and not yet on the link.
    fresh: Vec<Packet>,
}

impl DeviceQueue for TwoWayQueue {
    fn receive(&mut self, now_us: u64, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        let _ = self.queue.receive(now_us, pool, &mut self.fresh, max);
        let _ = self.back.transmit(now_us, pool, &mut self.fresh);
        self.back.receive(now_us, pool, into, max)
    }

    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        self.queue.transmit(now_us, pool, packets)
    }

    fn next_deadline_us(&self) -> Option<u64> {
        [self.queue.next_deadline_us(), self.back.next_deadline_us()].into_iter().flatten().min()
    }

    fn wait_fd(&self) -> Option<RawFd> {
        self.queue.wait_fd()
    }

    fn counters(&self) -> DeviceCounters {
        self.queue.counters()
    }
}

/// The far end of the link for what is received: what arrives waits here to be taken.
#[derive(Default)]
struct Basket(Vec<Packet>);

impl DeviceQueue for Basket {
    fn receive(&mut self, _: u64, _: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        let count = self.0.len().min(max);
        into.extend(self.0.drain(..count));
        count
    }

    fn transmit(&mut self, _: u64, _: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        let count = packets.len();
        self.0.append(packets);
        count
    }

    fn next_deadline_us(&self) -> Option<u64> {
        (!self.0.is_empty()).then_some(0)
    }

    fn counters(&self) -> DeviceCounters {
        DeviceCounters::default()
    }
}

#[cfg(test)]
mod tests {
    use hoststack::net::{MemoryWireConfig, memory_wire};

    use super::*;

    #[test]
    fn both_directions_are_delayed() {
        let (near, far) = memory_wire(MemoryWireConfig::default());
        let delay = |delay_us| Impairments { delay_us, ..Impairments::default() };
        let near = TwoWay::new(near, [delay(100), delay(250)]);
        let mut pool = PacketPool::default();
        let queues = |device: Box<dyn Device>| device.into_queues(1).unwrap().remove(0);
        let (mut near, mut far) = (queues(Box::new(near)), queues(Box::new(far)));
        let mut arrived = Vec::new();

        let mut packets = vec![Packet::copy_of(&[1; 60])];
        assert_eq!(near.transmit(0, &mut pool, &mut packets), 1);
        let _ = near.receive(99, &mut pool, &mut arrived, 8);
        assert_eq!(far.receive(99, &mut pool, &mut arrived, 8), 0);
        let _ = near.receive(100, &mut pool, &mut arrived, 8);
        assert_eq!(far.receive(100, &mut pool, &mut arrived, 8), 1);

        let mut packets = vec![Packet::copy_of(&[2; 60])];
        assert_eq!(far.transmit(100, &mut pool, &mut packets), 1);
        assert_eq!(near.receive(100, &mut pool, &mut arrived, 8), 0);
        assert_eq!(near.next_deadline_us(), Some(350));
        assert_eq!(near.receive(349, &mut pool, &mut arrived, 8), 0);
        assert_eq!(near.receive(350, &mut pool, &mut arrived, 8), 1);
        assert_eq!(arrived[1].data(), [2; 60]);
    }
}
