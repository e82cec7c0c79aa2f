//! The line between the stack and packetdrill: bare IP packets, looked at on their way.

use std::collections::VecDeque;
use std::sync::Arc;

use hoststack::net::{Device, RawIpEnd};
use hoststack_wire::{IpProtocol, checksum, icmpv6, ipv4, ipv6, tcp};
use parking_lot::Mutex;

use crate::watch::{Data, Watch, set_push};

/// A packet that the stack sent.
#[derive(Debug)]
pub(crate) struct Sent {
    /// When, in microseconds of the stack's clock.
    pub(crate) at_us: u64,
    /// From the IP header on.
    pub(crate) packet: Vec<u8>,
    /// What it carries, until it is known whether that has PSH.
    data: Option<Data>,
}

/// packetdrill's end.
#[derive(Default)]
pub(crate) struct FarEnd {
    end: RawIpEnd,
    /// What the stack sent, looked at and not yet taken.
    sent: VecDeque<Sent>,
    /// A packet whose lengths or checksums were wrong.
    wrong: Option<String>,
    /// What is learnt of connections from their packets.
    pub(crate) watch: Arc<Mutex<Watch>>,
}

impl FarEnd {
    /// Gives the stack a packet.
    pub(crate) fn send(&mut self, packet: Vec<u8>, now_us: u64) {
        self.look();
        self.watch.lock().on_receive(&packet, now_us);
        self.end.send(packet);
    }

    /// Looks at what the stack has sent: before anything else happens, so that the watch sees it in its order.
    pub(crate) fn look(&mut self) {
        while let Some((at_us, packet)) = self.end.take() {
            // As the stack made it: only then it is changed.
            if let Err(error) = verify(&packet) {
                self.wrong.get_or_insert(error);
            }
            let data = self.watch.lock().on_send(&packet, at_us);
            self.sent.push_back(Sent { at_us, packet, data });
        }
    }

    /// Whether several segments with data were sent since bursts were ended last, and it matters.
    pub(crate) fn has_burst(&mut self) -> bool {
        self.look();
        self.watch.lock().moves_push && self.sent.iter().filter(|sent| sent.data.is_some()).count() > 1
    }

    /// What was sent until now was sent at once: tells which of it has PSH.
    pub(crate) fn end_burst(&mut self) {
        self.look();
        let mut watch = self.watch.lock();
        if !watch.moves_push {
            return;
        }
        let mut burst: Vec<&mut Sent> = self.sent.iter_mut().filter(|sent| sent.data.is_some()).collect();
        let data: Vec<Data> = burst.iter_mut().filter_map(|sent| sent.data.take()).collect();
        for (sent, is_push) in burst.into_iter().zip(watch.push(&data)) {
            set_push(&mut sent.packet, is_push);
        }
    }

    /// The next packet that the stack sent.
    pub(crate) fn take(&mut self) -> Option<Sent> {
        self.look();
        self.sent.pop_front()
    }

    /// What was wrong with a packet that the stack sent, whether it is taken or not.
    pub(crate) fn wrong(&mut self) -> Option<String> {
        self.look();
        self.wrong.clone()
    }

    /// Packets that nobody took.
    pub(crate) fn left(&mut self) -> Vec<Vec<u8>> {
        self.look();
        self.sent.drain(..).map(|sent| sent.packet).collect()
    }

    /// The stack's end.
    pub(crate) fn device(&self, mtu: usize) -> impl Device + use<> {
        self.end.device("packetdrill", mtu)
    }
}

/// Whether the lengths and checksums of a packet that the stack sent are right: packetdrill does not look at TCP's.
///
/// # Errors
/// What is wrong, in words.
pub fn verify(packet: &[u8]) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what} of a sent packet is wrong"));
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let Ok((header, payload)) = ipv4::Header::parse(packet) else { return wrong("the IPv4 header") };
            if usize::from(header.total_len) != packet.len() {
                return wrong("the IPv4 total length");
            }
            let is_right = match header.protocol {
                IpProtocol::TCP => tcp::verify_checksum(header.src.into(), header.dst.into(), payload),
                // The stack sends nothing else over IPv4.
                _ => checksum(payload) == 0,
            };
            if is_right { Ok(()) } else { wrong("the checksum") }
        }
        Some(6) => {
            let Ok((header, payload)) = ipv6::Header::parse(packet) else { return wrong("the IPv6 header") };
            if usize::from(header.payload_offset) + payload.len() != packet.len() {
                return wrong("the IPv6 payload length");
            }
            let is_right = match header.next_header {
                IpProtocol::TCP => tcp::verify_checksum(header.src.into(), header.dst.into(), payload),
                // The stack sends nothing else over IPv6, and the parser verifies the checksum.
                _ => icmpv6::Message::parse(header.src, header.dst, payload).is_ok(),
            };
            if is_right { Ok(()) } else { wrong("the checksum") }
        }
        _ => wrong("the IP version"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use hoststack_wire::{Flags, SegmentHeader, SeqNum};

    use super::*;

    /// A reset with a good checksum, over either version.
    fn packets() -> [Vec<u8>; 2] {
        let header = SegmentHeader {
            src_port: 1,
            dst_port: 2,
            seq: SeqNum(3),
            ack: SeqNum(0),
            flags: Flags::RST,
            wnd: 0,
            urgent: 0,
            options: hoststack_wire::Options::default(),
        };
        let (v4, v6) = ([Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST], [Ipv6Addr::LOCALHOST; 2]);
        let mut segment = [0; 20];
        header.emit(&mut segment);
        tcp::set_checksum(v4[0].into(), v4[1].into(), &mut segment);
        let mut first = vec![0; 20];
        ipv4::Header::new(v4[0], v4[1], IpProtocol::TCP, 20).emit(&mut first);
        first.extend(segment);
        tcp::set_checksum(v6[0].into(), v6[1].into(), &mut segment);
        let mut second = vec![0; 40];
        ipv6::Header::new(v6[0], v6[1], IpProtocol::TCP, 20).emit(&mut second);
        second.extend(segment);
        [first, second]
    }

    #[test]
    fn a_flipped_bit_of_the_segment_is_found() {
        for good in packets() {
            assert_eq!(verify(&good), Ok(()));
            for at in good.len() - 20..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1;
                assert!(verify(&bad).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn bytes_behind_the_packet_and_other_versions_are_found() {
        for good in packets() {
            assert!(verify(&[&good[..], &[0]].concat()).is_err());
            assert!(verify(&good[..good.len() - 1]).is_err());
        }
        assert!(verify(&[]).is_err());
        assert!(verify(&[0x50; 40]).is_err());
    }
}
