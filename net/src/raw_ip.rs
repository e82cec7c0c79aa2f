//! A device whose far end is in the program: whole IP packets, without a link header, in two queues. For tests that speak
//! for the peers, and for programs that carry the packets themselves.
//!
//! Nothing is bounded and all queues share one lock: it is made for turning packets over one by one, not for speed.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hoststack_wire::MacAddr;

use crate::{Device, DeviceCounters, DeviceQueue, Packet, PacketPool};

/// What both ends share.
#[derive(Default)]
struct Line {
    to_stack: VecDeque<Vec<u8>>,
    /// With the microsecond of the stack's clock.
    from_stack: VecDeque<(u64, Vec<u8>)>,
    notify: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The program's end.
#[derive(Clone, Default)]
pub struct RawIpEnd(Arc<Mutex<Line>>);

impl RawIpEnd {
    /// Gives the stack a packet, of any length.
    pub fn send(&self, packet: Vec<u8>) {
        let notify = {
            let mut line = self.line();
            line.to_stack.push_back(packet);
            line.notify.clone()
        };
        // Outside the lock: it may look at the queue.
        if let Some(notify) = notify {
            notify();
        }
    }

    /// The next packet that the stack sent, and when: in microseconds of its clock.
    pub fn take(&self) -> Option<(u64, Vec<u8>)> {
        self.line().from_stack.pop_front()
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Two queues are right after every statement: a panic elsewhere spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stack's end. Every queue of it takes from the same packets.
pub struct RawIp {
    name: String,
    mtu: usize,
    end: RawIpEnd,
}

/// A device of that name and MTU, and the program's end of it.
pub fn raw_ip(name: impl Into<String>, mtu: usize) -> (RawIp, RawIpEnd) {
    let end = RawIpEnd::default();
    (end.device(name, mtu), end)
}

impl RawIpEnd {
    /// A device whose far end this is. There may be one after another, with what the first left.
    pub fn device(&self, name: impl Into<String>, mtu: usize) -> RawIp {
        RawIp { name: name.into(), mtu, end: self.clone() }
    }
}

impl Device for RawIp {
    fn name(&self) -> &str {
        &self.name
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn mac(&self) -> Option<MacAddr> {
        None
    }

    fn into_queues(self: Box<Self>, count: usize) -> io::Result<Vec<Box<dyn DeviceQueue>>> {
        let queue = || Queue { end: self.end.clone(), counters: DeviceCounters::default() };
        Ok((0..count).map(|_| Box::new(queue()) as Box<dyn DeviceQueue>).collect())
    }
}

struct Queue {
    end: RawIpEnd,
    counters: DeviceCounters,
}

impl DeviceQueue for Queue {
    fn receive(&mut self, _now_us: u64, _pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        let mut line = self.end.line();
        let count = max.min(line.to_stack.len());
        for bytes in line.to_stack.drain(..count) {
            self.counters.rx_packets += 1;
            self.counters.rx_bytes += bytes.len() as u64;
            // A buffer of its own: it may be far above the MTU.
            into.push(Packet::copy_of(&bytes));
        }
        count
    }

    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        let count = packets.len();
        let mut line = self.end.line();
        for packet in packets.iter() {
            self.counters.tx_packets += 1;
            self.counters.tx_bytes += packet.len() as u64;
            line.from_stack.push_back((now_us, packet.data().to_vec()));
        }
        drop(line);
        pool.give_all(packets);
        count
    }

    fn next_deadline_us(&self) -> Option<u64> {
        (!self.end.line().to_stack.is_empty()).then_some(0)
    }

    fn set_notify(&mut self, notify: Arc<dyn Fn() + Send + Sync>) {
        self.end.line().notify = Some(notify);
    }

    fn counters(&self) -> DeviceCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn packets_pass_both_ways_in_order_with_their_times_and_wake_the_stack() {
        let (device, end) = raw_ip("raw", 1500);
        assert_eq!((device.name(), device.mtu(), device.mac()), ("raw", 1500, None));
        let mut queue = Box::new(device).into_queues(1).unwrap().remove(0);
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        queue.set_notify(Arc::new(move || _ = counter.fetch_add(1, Ordering::Relaxed)));
        assert_eq!(queue.next_deadline_us(), None);
        for len in [20, 40, 60_000] {
            end.send(vec![4; len]);
        }
        assert_eq!((woken.load(Ordering::Relaxed), queue.next_deadline_us()), (3, Some(0)));
        let (mut pool, mut packets) = (PacketPool::default(), Vec::new());
        assert_eq!(queue.receive(0, &mut pool, &mut packets, 2), 2);
        assert_eq!(queue.receive(0, &mut pool, &mut packets, 2), 1);
        assert_eq!(packets.iter().map(Packet::len).collect::<Vec<_>>(), [20, 40, 60_000]);
        assert_eq!((queue.transmit(7, &mut pool, &mut packets), packets.len()), (3, 0));
        let taken: Vec<(u64, usize)> =
            std::iter::from_fn(|| end.take()).map(|(at_us, packet)| (at_us, packet.len())).collect();
        assert_eq!(taken, [(7, 20), (7, 40), (7, 60_000)]);
        let counters = queue.counters();
        assert_eq!((counters.rx_packets, counters.tx_packets, counters.tx_bytes), (3, 3, 60_060));
    }
}
