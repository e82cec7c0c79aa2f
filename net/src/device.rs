//! What a device is to the stack: before it is split ([`Device`]) and one queue of it, owned by one worker
//! ([`DeviceQueue`]).
//!
//! A queue moves vectors of packets; it never blocks. Packets are frames with an Ethernet header when
//! [`Device::mac`] is `Some`, and bare IP packets when it is `None`.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use hoststack_wire::MacAddr;

use crate::packet::{Packet, PacketPool};

/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER_LEN: usize = 14;

/// A device before it is split over workers.
pub trait Device: Send {
    /// The interface's name, as the CLI shows it.
    fn name(&self) -> &str;

    /// The largest IP packet it carries, in bytes, link header not included.
    fn mtu(&self) -> usize;

    /// Our link-layer address; `None`: packets have no link header.
    fn mac(&self) -> Option<MacAddr>;

    /// What the device can do for us.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// Splits the device into `count` queues, one per worker, queue 0 first.
    ///
    /// A device with fewer hardware queues than `count` still returns `count`: the first ones receive, the others
    /// never do, and all of them can transmit. Each implementation says which.
    ///
    /// # Errors
    /// What the operating system said when it opened a queue.
    fn into_queues(self: Box<Self>, count: usize) -> io::Result<Vec<Box<dyn DeviceQueue>>>;
}

/// What a device can do for us. All off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How many queues receive; 0: as many as asked for.
    pub receive_queues: usize,
    /// Received packets' TCP checksums were verified by the device.
    pub receive_checksum: bool,
    /// The device fills in TCP checksums of sent packets.
    pub transmit_checksum: bool,
    /// The largest TCP segment that the device cuts to the MTU itself, in bytes; 0: it cuts none.
    pub segmentation_max: usize,
}

/// One queue of a device, owned by one worker. Dispatched once per vector of packets.
pub trait DeviceQueue: Send {
    /// Adds up to `max` received packets to `into`, without waiting; buffers come from `pool`. Tells how many.
    ///
    /// Fewer than `max` means that the queue was found empty.
    fn receive(&mut self, now_us: u64, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize;

    /// Takes packets from the front of `packets` for sending, as many as there is room for, and tells how many.
    ///
    /// What stays in `packets` is back-pressure: offer it again in a later step, or drop it. Packets that cannot be
    /// sent at all (too long, device gone) are taken and counted as dropped. Buffers go back to `pool` when they
    /// are done with.
    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize;

    /// When to call again though nothing new happened: packets held for a while are due, a ring that was full is
    /// worth another try, or (0) packets wait to be received now. `receive` at that time serves the deadline, so that
    /// it does not stand still in the past. `None`: nothing until a notification, the file descriptor, or a packet to
    /// send.
    fn next_deadline_us(&self) -> Option<u64> {
        None
    }

    /// A file descriptor that is readable (epoll, level) when packets wait to be received.
    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    /// Sets what the peer's thread calls after it put packets into this queue's empty ring. Call it once, before the
    /// queue is in use, and poll `receive` once afterwards. A queue without such a peer ignores it.
    fn set_notify(&mut self, notify: Arc<dyn Fn() + Send + Sync>) {
        drop(notify);
    }

    /// What this queue did so far.
    fn counters(&self) -> DeviceCounters;
}

impl<D: DeviceQueue + ?Sized> DeviceQueue for Box<D> {
    fn receive(&mut self, now_us: u64, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        (**self).receive(now_us, pool, into, max)
    }

    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        (**self).transmit(now_us, pool, packets)
    }

    fn next_deadline_us(&self) -> Option<u64> {
        (**self).next_deadline_us()
    }

    fn wait_fd(&self) -> Option<RawFd> {
        (**self).wait_fd()
    }

    fn set_notify(&mut self, notify: Arc<dyn Fn() + Send + Sync>) {
        (**self).set_notify(notify);
    }

    fn counters(&self) -> DeviceCounters {
        (**self).counters()
    }
}

/// What a device queue did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Packets handed to the stack.
    pub rx_packets: u64,
    /// Their bytes, link headers included.
    pub rx_bytes: u64,
    /// Packets sent. A wrapper that loses packets tells so in counters of its own.
    pub tx_packets: u64,
    /// Their bytes, link headers included.
    pub tx_bytes: u64,
    /// Times that a ring or the kernel's queue was full and packets stayed with the sender.
    pub tx_full: u64,
    /// Received packets dropped: longer than the MTU or the buffer.
    pub rx_dropped_too_long: u64,
    /// Reads that failed.
    pub rx_errors: u64,
    /// Packets to send dropped: longer than the MTU.
    pub tx_dropped_too_long: u64,
    /// Packets to send dropped: the other end is gone.
    pub tx_dropped_no_peer: u64,
    /// Packets to send dropped: the write failed (the interface is down, or gone).
    pub tx_dropped_error: u64,
}

impl DeviceCounters {
    /// Drops and errors by cause, as the CLI names them.
    pub fn drops(&self) -> [(&'static str, u64); 5] {
        [
            ("rx-too-long", self.rx_dropped_too_long),
            ("rx-error", self.rx_errors),
            ("tx-too-long", self.tx_dropped_too_long),
            ("tx-no-peer", self.tx_dropped_no_peer),
            ("tx-error", self.tx_dropped_error),
        ]
    }

    /// What was counted since these were `then`.
    #[must_use]
    pub fn since(&self, then: &DeviceCounters) -> DeviceCounters {
        let DeviceCounters {
            rx_packets,
            rx_bytes,
            tx_packets,
            tx_bytes,
            tx_full,
            rx_dropped_too_long,
            rx_errors,
            tx_dropped_too_long,
            tx_dropped_no_peer,
            tx_dropped_error,
        } = *self;
        DeviceCounters {
            rx_packets: rx_packets.saturating_sub(then.rx_packets),
            rx_bytes: rx_bytes.saturating_sub(then.rx_bytes),
            tx_packets: tx_packets.saturating_sub(then.tx_packets),
            tx_bytes: tx_bytes.saturating_sub(then.tx_bytes),
            tx_full: tx_full.saturating_sub(then.tx_full),
            rx_dropped_too_long: rx_dropped_too_long.saturating_sub(then.rx_dropped_too_long),
            rx_errors: rx_errors.saturating_sub(then.rx_errors),
            tx_dropped_too_long: tx_dropped_too_long.saturating_sub(then.tx_dropped_too_long),
            tx_dropped_no_peer: tx_dropped_no_peer.saturating_sub(then.tx_dropped_no_peer),
            tx_dropped_error: tx_dropped_error.saturating_sub(then.tx_dropped_error),
        }
    }

    /// Adds another queue's counters to these.
    pub fn add(&mut self, other: &DeviceCounters) {
        let DeviceCounters {
            rx_packets,
            rx_bytes,
            tx_packets,
            tx_bytes,
            tx_full,
            rx_dropped_too_long,
            rx_errors,
            tx_dropped_too_long,
            tx_dropped_no_peer,
            tx_dropped_error,
        } = *other;
        self.rx_packets += rx_packets;
        self.rx_bytes += rx_bytes;
        self.tx_packets += tx_packets;
        self.tx_bytes += tx_bytes;
        self.tx_full += tx_full;
        self.rx_dropped_too_long += rx_dropped_too_long;
        self.rx_errors += rx_errors;
        self.tx_dropped_too_long += tx_dropped_too_long;
        self.tx_dropped_no_peer += tx_dropped_no_peer;
        self.tx_dropped_error += tx_dropped_error;
    }
}

/// The earlier of two optional deadlines.
pub(crate) fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_field_by_field() {
        let one =
            DeviceCounters { rx_packets: 1, tx_bytes: 2, tx_dropped_error: 3, ..DeviceCounters::default() };
        let mut sum = one;
        sum.add(&one);
        assert_eq!((sum.rx_packets, sum.tx_bytes, sum.tx_dropped_error), (2, 4, 6));
        assert_eq!(sum.drops()[4], ("tx-error", 6));
        assert_eq!(sum.since(&one), one);
    }

    #[test]
    fn earlier_takes_the_one_that_is_set() {
        assert_eq!(earlier(None, Some(3)), Some(3));
        assert_eq!(earlier(Some(2), Some(3)), Some(2));
        assert_eq!(earlier(None, None), None);
    }
}
