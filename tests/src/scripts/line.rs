//! The wire between the stack and the script: bare IP packets in two queues, each sent one with its time.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use hoststack::net::{Device, DeviceCounters, DeviceQueue, Packet, PacketPool};
use hoststack_wire::MacAddr;
use parking_lot::Mutex;

#[derive(Default)]
struct Ends {
    to_stack: VecDeque<Vec<u8>>,
    /// With the microsecond of the stack's clock.
    from_stack: VecDeque<(u64, Vec<u8>)>,
    notify: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The script's end of the wire.
#[derive(Clone, Default)]
pub struct Line(Arc<Mutex<Ends>>);

impl Line {
    /// Gives the stack a packet.
    pub fn send(&self, packet: Vec<u8>) {
        let notify = {
            let mut ends = self.0.lock();
            ends.to_stack.push_back(packet);
            ends.notify.clone()
        };
        // Outside the lock: it may look at the queue.
        if let Some(notify) = notify {
            notify();
        }
    }

    /// The next packet that the stack sent, and when.
    pub fn take(&self) -> Option<(u64, Vec<u8>)> {
        self.0.lock().from_stack.pop_front()
    }

    /// The stack's end.
    pub fn device(&self, mtu: usize) -> impl Device + use<> {
        RawIp { line: self.clone(), mtu }
    }
}

struct RawIp {
    line: Line,
    mtu: usize,
}

impl Device for RawIp {
    fn name(&self) -> &str {
        "script"
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn mac(&self) -> Option<MacAddr> {
        None
    }

    fn into_queues(self: Box<Self>, count: usize) -> io::Result<Vec<Box<dyn DeviceQueue>>> {
        let queue = || Queue { line: self.line.clone(), counters: DeviceCounters::default() };
        Ok((0..count).map(|_| Box::new(queue()) as Box<dyn DeviceQueue>).collect())
    }
}

struct Queue {
    line: Line,
    counters: DeviceCounters,
}

impl DeviceQueue for Queue {
    fn receive(&mut self, _now_us: u64, _pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        let mut ends = self.line.0.lock();
        let count = max.min(ends.to_stack.len());
        for bytes in ends.to_stack.drain(..count) {
            self.counters.rx_packets += 1;
            self.counters.rx_bytes += bytes.len() as u64;
            into.push(Packet::copy_of(&bytes));
        }
        count
    }

    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        let count = packets.len();
        let mut ends = self.line.0.lock();
        for packet in packets.iter() {
            self.counters.tx_packets += 1;
            self.counters.tx_bytes += packet.len() as u64;
            ends.from_stack.push_back((now_us, packet.data().to_vec()));
        }
        drop(ends);
        pool.give_all(packets);
        count
    }

    fn next_deadline_us(&self) -> Option<u64> {
        (!self.line.0.lock().to_stack.is_empty()).then_some(0)
    }

    fn set_notify(&mut self, notify: Arc<dyn Fn() + Send + Sync>) {
        self.line.0.lock().notify = Some(notify);
    }

    fn counters(&self) -> DeviceCounters {
        self.counters
    }
}
