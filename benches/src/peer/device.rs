//! The wire between the two interfaces: queues of reused buffers, handed over between steps.

use std::collections::VecDeque;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// IP packets of up to this many bytes; what both ends announce as their MTU.
pub(super) const MTU: usize = 1500;
/// Room in a buffer: the MTU, rounded up to whole cache lines.
const BUFFER_BYTES: usize = 1536;
/// Packets that may wait in one direction; output beyond it waits in the sockets, as at a real device.
const QUEUE_MAX: usize = 4096;

/// One packet in a buffer that is used again.
pub(super) struct Packet {
    bytes: Box<[u8; BUFFER_BYTES]>,
    len: usize,
}

/// One end's device. [`QueueDevice::hand_over`] moves what it sent to the other end's.
#[derive(Default)]
pub(super) struct QueueDevice {
    rx: VecDeque<Packet>,
    tx: VecDeque<Packet>,
    /// Buffers to send with.
    spare: Vec<Packet>,
    /// Buffers whose packets were taken in; they become spare ones.
    used: Vec<Packet>,
}

impl QueueDevice {
    /// Moves everything sent here to `to`'s receive queue, lends it the buffers too, and tells how many moved.
    pub(super) fn hand_over(&mut self, to: &mut QueueDevice) -> usize {
        let moved = self.tx.len();
        if to.rx.is_empty() {
            std::mem::swap(&mut self.tx, &mut to.rx);
        } else {
            to.rx.append(&mut self.tx);
        }
        // The end that sends bulk uses buffers up and the other collects them: both draw from one stock, which
        // travels with the turn.
        self.spare.append(&mut self.used);
        std::mem::swap(&mut self.spare, &mut to.spare);
        moved
    }

    fn refill(&mut self) {
        if self.spare.is_empty() {
            std::mem::swap(&mut self.spare, &mut self.used);
        }
    }
}

impl Device for QueueDevice {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        let packet = self.rx.pop_front()?;
        self.refill();
        let QueueDevice { rx: _, tx, spare, used } = self;
        Some((Received { packet, used }, Sending { spare, tx }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sending<'_>> {
        if self.tx.len() >= QUEUE_MAX {
            return None;
        }
        self.refill();
        Some(Sending { spare: &mut self.spare, tx: &mut self.tx })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // The default of `checksum` is to compute and verify all of them.
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// A packet being taken in.
pub(super) struct Received<'a> {
    packet: Packet,
    used: &'a mut Vec<Packet>,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        let result = take(&self.packet.bytes[..self.packet.len]);
        self.used.push(self.packet);
        result
    }
}

/// Leave to send one packet.
pub(super) struct Sending<'a> {
    spare: &'a mut Vec<Packet>,
    tx: &'a mut VecDeque<Packet>,
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut packet =
            self.spare.pop().unwrap_or_else(|| Packet { bytes: Box::new([0; BUFFER_BYTES]), len: 0 });
        packet.len = len;
        let result = fill(&mut packet.bytes[..len]);
        self.tx.push_back(packet);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(device: &mut QueueDevice, byte: u8) {
        device.transmit(Instant::ZERO).unwrap().consume(3, |bytes| bytes.fill(byte));
    }

    fn receive(device: &mut QueueDevice) -> Vec<u8> {
        device.receive(Instant::ZERO).unwrap().0.consume(<[u8]>::to_vec)
    }

    #[test]
    fn packets_arrive_in_order_and_their_buffers_come_back() {
        let (mut left, mut right) = (QueueDevice::default(), QueueDevice::default());
        for round in 0..100 {
            send(&mut left, round);
            send(&mut left, round + 1);
            assert_eq!(left.hand_over(&mut right), 2);
            assert_eq!(receive(&mut right), [round; 3]);
            assert_eq!(receive(&mut right), [round + 1; 3]);
            assert!(right.receive(Instant::ZERO).is_none());
            assert_eq!(right.hand_over(&mut left), 0);
        }
        let held = |device: &QueueDevice| device.spare.len() + device.used.len();
        assert_eq!(held(&left) + held(&right), 2);
    }

    #[test]
    fn what_was_not_taken_yet_stays_ahead_of_what_comes() {
        let (mut left, mut right) = (QueueDevice::default(), QueueDevice::default());
        for byte in [1, 2] {
            send(&mut left, byte);
            left.hand_over(&mut right);
        }
        assert_eq!((receive(&mut right), receive(&mut right)), (vec![1; 3], vec![2; 3]));
    }

    #[test]
    fn a_full_queue_gives_no_leave_to_send() {
        let mut device = QueueDevice::default();
        for _ in 0..QUEUE_MAX {
            send(&mut device, 0);
        }
        assert!(device.transmit(Instant::ZERO).is_none());
        device.hand_over(&mut QueueDevice::default());
        assert!(device.transmit(Instant::ZERO).is_some());
    }
}
