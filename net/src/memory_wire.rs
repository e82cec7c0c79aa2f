//! A wire in memory: two ends, in one process, on the same thread or on two.
//!
//! Whole vectors of packets move over bounded crossbeam channels, so the cost is per batch. Nothing is allocated in
//! steady state: emptied vectors travel home in bundles, together with as many spare buffers as the receiver's pool
//! can miss, so that a one-way flow does not drain one pool and flood the other.
//!
//! The wake-up protocol is one counter per ring, `queued`. The sender pushes a batch and then adds to it; the
//! receiver pops only while it is positive, and subtracts after each pop. The addition that finds it at zero (or
//! below, when two senders share a ring) is the one that notifies. So a receiver that saw zero may sleep.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use hoststack_wire::MacAddr;

use crate::device::{Capabilities, Device, DeviceCounters, DeviceQueue, ETHERNET_HEADER_LEN};
use crate::packet::{Packet, PacketPool};

/// Emptied vectors that the receiver collects before it sends them home.
const VECTORS_HOME: usize = 16;
/// Buffers owed to the sender before they are sent home.
const BUFFERS_HOME: usize = 64;
/// How long a sender that found the ring full waits before it tries again, unless the receiver wakes it before.
const FULL_RETRY_US: u64 = 100;

/// What a wire is like.
#[derive(Clone, Debug)]
pub struct MemoryWireConfig {
    /// The interface names of the two ends.
    pub names: [String; 2],
    /// The largest IP packet, in bytes (default 1500).
    pub mtu: usize,
    /// Packets that one queue holds in one direction before it is full (default 1024; at least 1). Pools that keep
    /// fewer free buffers than this allocate and free under a ring's swings.
    pub ring_packets: usize,
    /// The Ethernet addresses of the two ends; `None` (the default): packets are bare IP.
    pub macs: Option<[MacAddr; 2]>,
}

impl Default for MemoryWireConfig {
    fn default() -> MemoryWireConfig {
        MemoryWireConfig {
            names: ["wire0".to_owned(), "wire1".to_owned()],
            mtu: 1500,
            ring_packets: 1024,
            macs: None,
        }
    }
}

/// The two ends of a wire.
pub fn memory_wire(config: MemoryWireConfig) -> (MemoryWire, MemoryWire) {
    let MemoryWireConfig { names: [name_a, name_b], mtu, ring_packets, macs } = config;
    let waiting = Arc::new(Mutex::new(None));
    let end = |name, mac| MemoryWire {
        name,
        mtu,
        ring_packets: ring_packets.max(1),
        mac,
        waiting: Arc::clone(&waiting),
    };
    (end(name_a, macs.map(|m| m[0])), end(name_b, macs.map(|m| m[1])))
}

/// One end of a wire, before it is split.
///
/// Queue `i` of one end talks to queue `i` of the other. When the ends are split differently, the shorter end's
/// queues receive from several, and the longer end's surplus queues (those past the shorter end's count) only
/// transmit: queue `j` then sends to queue `j` modulo the other end's count.
pub struct MemoryWire {
    name: String,
    mtu: usize,
    ring_packets: usize,
    mac: Option<MacAddr>,
    /// What the end that is split first leaves for the other.
    waiting: Arc<Mutex<Option<Vec<Half>>>>,
}

impl MemoryWire {
    fn frame_max(&self) -> usize {
        self.mtu + if self.mac.is_some() { ETHERNET_HEADER_LEN } else { 0 }
    }

    fn queue(&self, sender: RingSender, receivers: Vec<RingReceiver>) -> Box<dyn DeviceQueue> {
        Box::new(MemoryWireQueue {
            sender,
            receivers,
            next_receiver: 0,
            frame_max: self.frame_max(),
            ring_packets: self.ring_packets,
            full_at_us: None,
            counters: DeviceCounters::default(),
        })
    }
}

impl Device for MemoryWire {
    fn name(&self) -> &str {
        &self.name
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn mac(&self) -> Option<MacAddr> {
        self.mac
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn into_queues(self: Box<Self>, count: usize) -> io::Result<Vec<Box<dyn DeviceQueue>>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(halves) = waiting.take() else {
            // The first end: it decides how many rings there are.
            let mut queues = Vec::with_capacity(count);
            let mut others = Vec::with_capacity(count);
            for _ in 0..count {
                let (to_other, other_from) = ring(self.ring_packets);
                let (other_to, from_other) = ring(self.ring_packets);
                queues.push(self.queue(to_other, vec![from_other]));
                others.push(Half { sender: other_to, receiver: other_from });
            }
            *waiting = Some(others);
            return Ok(queues);
        };
        // The second end: rings are dealt out to its queues, and surplus queues share senders.
        let mut receivers: Vec<Vec<RingReceiver>> = (0..count).map(|_| Vec::new()).collect();
        let mut senders = Vec::with_capacity(halves.len());
        for (index, Half { sender, receiver }) in halves.into_iter().enumerate() {
            receivers[index % count].push(receiver);
            senders.push(sender);
        }
        Ok(receivers
            .into_iter()
            .enumerate()
            .map(|(index, receivers)| self.queue(senders[index % senders.len()].share(), receivers))
            .collect())
    }
}

/// The other end's halves of a ring pair.
struct Half {
    sender: RingSender,
    receiver: RingReceiver,
}

/// What travels: a vector of packets, and the emptied bundle that its sender was sent earlier.
struct Batch {
    packets: Vec<Packet>,
    husk: Option<Box<Bundle>>,
}

/// What goes home: emptied vectors and spare buffers.
#[derive(Default)]
struct Bundle {
    vectors: Vec<Vec<Packet>>,
    buffers: Vec<Packet>,
}

/// What both ends of a ring see. On cache lines of its own: both threads write it.
#[repr(align(128))]
struct Shared {
    /// Packets pushed less packets popped. See the module's comment for the order of things.
    queued: AtomicIsize,
    /// The sender found the ring full and wants to be told when there is room.
    sender_waits: AtomicBool,
    notify_receiver: OnceLock<Arc<dyn Fn() + Send + Sync>>,
    notify_sender: OnceLock<Arc<dyn Fn() + Send + Sync>>,
}

impl Shared {
    /// Packets in the ring; a moment's negative value (two senders) counts as none.
    fn queued(&self) -> usize {
        usize::try_from(self.queued.load(Ordering::SeqCst)).unwrap_or(0)
    }
}

/// A ring of its own for one direction: the end that sends, the end that receives.
fn ring(packets: usize) -> (RingSender, RingReceiver) {
    // A batch has at least one packet, so a ring of `packets` batches is never the limit with one sender.
    let (forward, arrivals) = bounded(packets);
    let (home, returns) = bounded(packets.div_ceil(VECTORS_HOME).max(packets.div_ceil(BUFFERS_HOME)) + 2);
    let shared = Arc::new(Shared {
        queued: AtomicIsize::new(0),
        sender_waits: AtomicBool::new(false),
        notify_receiver: OnceLock::new(),
        notify_sender: OnceLock::new(),
    });
    (
        RingSender { forward, returns, shared: Arc::clone(&shared), vectors: Vec::new(), husks: Vec::new() },
        RingReceiver {
            arrivals,
            home,
            shared,
            partial: Vec::new(),
            bundle: None,
            husks: Vec::new(),
            owed: 0,
        },
    )
}

/// The sending end of a ring.
struct RingSender {
    forward: Sender<Batch>,
    returns: Receiver<Box<Bundle>>,
    shared: Arc<Shared>,
    /// Emptied vectors to send in.
    vectors: Vec<Vec<Packet>>,
    /// Emptied bundles to send back with the next batches.
    #[allow(clippy::vec_box, reason = "a bundle travels as one pointer, so that a ring's slots stay small")]
    husks: Vec<Box<Bundle>>,
}

/// What became of a batch.
enum Sent {
    /// All of it is in the ring.
    All,
    /// The ring has no place for another batch (several senders share it): here it is again.
    Full(Vec<Packet>),
    /// Nobody will ever receive it: here it is again.
    NoPeer(Vec<Packet>),
}

impl RingSender {
    /// Another sender to the same ring.
    fn share(&self) -> RingSender {
        RingSender {
            forward: self.forward.clone(),
            returns: self.returns.clone(),
            shared: Arc::clone(&self.shared),
            vectors: Vec::new(),
            husks: Vec::new(),
        }
    }

    /// An empty vector to send in. What came home is unpacked at once: buffers that wait in the ring go cold, and the
    /// pool would make others in their place.
    fn vector(&mut self, pool: &mut PacketPool) -> Vec<Packet> {
        while let Ok(mut bundle) = self.returns.try_recv() {
            self.vectors.append(&mut bundle.vectors);
            pool.give_all(&mut bundle.buffers);
            self.husks.push(bundle);
        }
        self.vectors.pop().unwrap_or_default()
    }

    fn send(&mut self, packets: Vec<Packet>) -> Sent {
        // Cannot wrap because: a batch has at most ring_packets packets.
        let count = packets.len() as isize;
        match self.forward.try_send(Batch { packets, husk: self.husks.pop() }) {
            Ok(()) => {
                if self.shared.queued.fetch_add(count, Ordering::SeqCst) <= 0
                    && let Some(notify) = self.shared.notify_receiver.get()
                {
                    notify();
                }
                Sent::All
            }
            Err(TrySendError::Full(batch)) => {
                self.husks.extend(batch.husk);
                Sent::Full(batch.packets)
            }
            Err(TrySendError::Disconnected(batch)) => Sent::NoPeer(batch.packets),
        }
    }

    /// Packets for which there is room; at none, asks the receiver for a call.
    fn room(&self, ring_packets: usize) -> usize {
        let room = ring_packets.saturating_sub(self.shared.queued());
        if room > 0 {
            return room;
        }
        self.shared.sender_waits.store(true, Ordering::SeqCst);
        // Look again: the receiver may have drained the ring before it could see that we wait.
        ring_packets.saturating_sub(self.shared.queued())
    }
}

/// The receiving end of a ring.
struct RingReceiver {
    arrivals: Receiver<Batch>,
    home: Sender<Box<Bundle>>,
    shared: Arc<Shared>,
    /// What a burst's limit left of a batch, in order.
    partial: Vec<Packet>,
    /// What will go home next.
    bundle: Option<Box<Bundle>>,
    /// Emptied bundles to fill.
    #[allow(clippy::vec_box, reason = "a bundle travels as one pointer, so that a ring's slots stay small")]
    husks: Vec<Box<Bundle>>,
    /// Buffers received and not sent home.
    owed: usize,
}

impl RingReceiver {
    fn has_packets(&self) -> bool {
        !self.partial.is_empty() || self.shared.queued() > 0
    }

    /// Moves up to `max` packets to `into`.
    fn receive(&mut self, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        let mut count = 0;
        if !self.partial.is_empty() {
            count = self.partial.len().min(max);
            into.extend(self.partial.drain(..count));
        }
        while count < max && self.shared.queued() > 0 {
            // The counter was raised after the push, so the batch is here; only the sender's end of time is not.
            let Ok(Batch { mut packets, husk }) = self.arrivals.try_recv() else { break };
            self.husks.extend(husk);
            let len = packets.len();
            // Cannot wrap because: a batch has at most ring_packets packets.
            self.shared.queued.fetch_sub(len as isize, Ordering::SeqCst);
            self.owed += len;
            if len > max - count {
                into.extend(packets.drain(..max - count));
                count = max;
                mem::swap(&mut self.partial, &mut packets);
            } else if into.is_empty() {
                count += len;
                mem::swap(into, &mut packets);
            } else {
                count += len;
                into.append(&mut packets);
            }
            self.send_home(pool, packets);
        }
        if count > 0 && self.shared.sender_waits.load(Ordering::SeqCst) {
            self.shared.sender_waits.store(false, Ordering::SeqCst);
            if let Some(notify) = self.shared.notify_sender.get() {
                notify();
            }
        }
        count
    }

    fn send_home(&mut self, pool: &mut PacketPool, vector: Vec<Packet>) {
        let bundle = self.bundle.get_or_insert_with(|| self.husks.pop().unwrap_or_default());
        bundle.vectors.push(vector);
        if bundle.vectors.len() < VECTORS_HOME && self.owed < BUFFERS_HOME {
            return;
        }
        // What the pool cannot spare now is forgotten: it keeps the buffers, so that it can spare them later.
        pool.take_surplus(self.owed, &mut bundle.buffers);
        self.owed = 0;
        if let Some(bundle) = self.bundle.take()
            && let Err(TrySendError::Full(mut bundle) | TrySendError::Disconnected(mut bundle)) =
                self.home.try_send(bundle)
        {
            bundle.vectors.clear();
            pool.give_all(&mut bundle.buffers);
            self.husks.push(bundle);
        }
    }
}

/// One queue of one end.
struct MemoryWireQueue {
    sender: RingSender,
    receivers: Vec<RingReceiver>,
    /// Which ring is asked first, in turn.
    next_receiver: usize,
    frame_max: usize,
    ring_packets: usize,
    /// When `transmit` found the ring full, if it did the last time.
    full_at_us: Option<u64>,
    counters: DeviceCounters,
}

impl MemoryWireQueue {
    /// Drops packets that the wire cannot carry; tells how many.
    #[cold]
    fn drop_too_long(&mut self, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        let before = packets.len();
        for packet in mem::take(packets) {
            if packet.len() > self.frame_max {
                pool.give(packet);
            } else {
                packets.push(packet);
            }
        }
        let dropped = before - packets.len();
        self.counters.tx_dropped_too_long += dropped as u64;
        dropped
    }
}

impl DeviceQueue for MemoryWireQueue {
    fn receive(&mut self, now_us: u64, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        // The deadline is served: whoever still has packets to send offers them in this step.
        self.full_at_us = self.full_at_us.filter(|at| now_us < at + FULL_RETRY_US);
        let first = into.len();
        let mut count = 0;
        let (later, sooner) = self.receivers.split_at_mut(self.next_receiver);
        for ring in sooner.iter_mut().chain(later).filter(|ring| ring.has_packets()) {
            count += ring.receive(pool, into, max - count);
        }
        self.next_receiver =
            if self.next_receiver + 1 < self.receivers.len() { self.next_receiver + 1 } else { 0 };
        if count > 0 {
            self.counters.rx_packets += count as u64;
            self.counters.rx_bytes += into[first..].iter().map(|packet| packet.len() as u64).sum::<u64>();
        }
        count
    }

    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        self.full_at_us = None;
        let mut taken = 0;
        if packets.iter().any(|packet| packet.len() > self.frame_max) {
            taken = self.drop_too_long(pool, packets);
        }
        if packets.is_empty() {
            return taken;
        }
        let count = packets.len().min(self.sender.room(self.ring_packets));
        if count < packets.len() {
            self.counters.tx_full += 1;
            self.full_at_us = Some(now_us);
            if count == 0 {
                return taken;
            }
        }
        let bytes = packets[..count].iter().map(|packet| packet.len() as u64).sum::<u64>();
        let mut batch = self.sender.vector(pool);
        if count == packets.len() {
            mem::swap(&mut batch, packets);
        } else {
            batch.extend(packets.drain(..count));
        }
        match self.sender.send(batch) {
            Sent::All => {
                self.counters.tx_packets += count as u64;
                self.counters.tx_bytes += bytes;
                taken + count
            }
            Sent::Full(mut batch) => {
                self.counters.tx_full += 1;
                self.full_at_us = Some(now_us);
                batch.append(packets);
                *packets = batch;
                taken
            }
            Sent::NoPeer(mut batch) => {
                self.counters.tx_dropped_no_peer += count as u64;
                pool.give_all(&mut batch);
                self.sender.vectors.push(batch);
                taken + count
            }
        }
    }

    fn next_deadline_us(&self) -> Option<u64> {
        if self.receivers.iter().any(RingReceiver::has_packets) {
            return Some(0);
        }
        self.full_at_us.map(|at| at + FULL_RETRY_US)
    }

    fn set_notify(&mut self, notify: Arc<dyn Fn() + Send + Sync>) {
        for receiver in &self.receivers {
            let set = receiver.shared.notify_receiver.set(Arc::clone(&notify));
            assert!(set.is_ok(), "a queue's notification is set once, before the queue is in use");
        }
        // Another sender of the same ring may have set it: this one then tries again by its deadline.
        let _ = self.sender.shared.notify_sender.set(notify);
    }

    fn counters(&self) -> DeviceCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
