//! Packets as the simulator reads and makes them: whole ones, bare IP or in a frame.

use std::net::IpAddr;

use hoststack_wire::{Flags, IpProtocol, Segment, SegmentHeader, icmpv4, icmpv6, ipv4, ipv6, tcp};

/// A flow by both ends, one of them first. Addresses of a world differ in their last four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlowId(u128);

fn tail(addr: IpAddr) -> (u128, u128) {
    match addr {
        IpAddr::V4(addr) => (0, u128::from(u32::from(addr))),
        IpAddr::V6(addr) => (1, u128::from(addr) & 0xffff_ffff),
    }
}

impl FlowId {
    /// The flow from here to there.
    pub(crate) fn new(from: (IpAddr, u16), to: (IpAddr, u16)) -> FlowId {
        let ((family, a), (_, b)) = (tail(from.0), tail(to.0));
        FlowId((family << 96) | (a << 64) | (b << 32) | (u128::from(from.1) << 16) | u128::from(to.1))
    }

    /// The same flow seen from its other end.
    pub(crate) fn turned(self) -> FlowId {
        let part = |shift: u32, mask: u128| (self.0 >> shift) & mask;
        let (a, b) = (part(64, 0xffff_ffff), part(32, 0xffff_ffff));
        let (from, to) = (part(16, 0xffff), part(0, 0xffff));
        FlowId((part(96, 1) << 96) | (b << 64) | (a << 32) | (to << 16) | from)
    }
}

/// A TCP segment in its packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parsed<'p> {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) header: SegmentHeader,
    pub(crate) payload: &'p [u8],
    /// Bytes of link header in front of the packet.
    pub(crate) link: usize,
}

impl Parsed<'_> {
    /// The flow, its sender first.
    pub(crate) fn flow(&self) -> FlowId {
        FlowId::new((self.src, self.header.src_port), (self.dst, self.header.dst_port))
    }

    /// SEG.LEN.
    pub(crate) fn len(&self) -> u32 {
        let bits = |flag| u32::from(self.header.flags.has(flag));
        self.payload.len() as u32 + bits(Flags::SYN) + bits(Flags::FIN)
    }
}

/// The TCP segment of a packet, if it is one and whole. `is_framed`: behind an Ethernet header.
pub(crate) fn parse(packet: &[u8], is_framed: bool) -> Option<Parsed<'_>> {
    let link = if is_framed { 14 } else { 0 };
    let bytes = packet.get(link..)?;
    let (src, dst, payload) = match bytes.first()? >> 4 {
        4 => {
            let (ip, payload) = ipv4::Header::parse(bytes).ok()?;
            if ip.protocol != IpProtocol::TCP || ip.is_fragment() {
                return None;
            }
            (IpAddr::V4(ip.src), IpAddr::V4(ip.dst), payload)
        }
        6 => {
            let (ip, payload) = ipv6::Header::parse(bytes).ok()?;
            if ip.next_header != IpProtocol::TCP || ip.is_fragment() {
                return None;
            }
            (IpAddr::V6(ip.src), IpAddr::V6(ip.dst), payload)
        }
        _ => return None,
    };
    if !tcp::verify_checksum(src, dst, payload) {
        return None;
    }
    let segment = Segment::parse(payload).ok()?;
    Some(Parsed { src, dst, header: segment.header, payload: segment.payload, link })
}

/// A whole packet with this segment; `link` is put in front.
pub(crate) fn segment(
    link: &[u8],
    src: IpAddr,
    dst: IpAddr,
    header: &SegmentHeader,
    payload: &[u8],
) -> Vec<u8> {
    let len = header.header_len() + payload.len();
    let mut packet = with_ip(link, src, dst, IpProtocol::TCP, len);
    let at = packet.len() - len;
    let used = header.emit(&mut packet[at..]);
    packet[at + used..].copy_from_slice(payload);
    tcp::set_checksum(src, dst, &mut packet[at..]);
    packet
}

/// Room for `len` bytes behind an IP header, behind `link`.
fn with_ip(link: &[u8], src: IpAddr, dst: IpAddr, protocol: IpProtocol, len: usize) -> Vec<u8> {
    let ip_len = if src.is_ipv4() { ipv4::Header::LEN } else { ipv6::Header::LEN };
    let mut packet = vec![0; link.len() + ip_len + len];
    packet[..link.len()].copy_from_slice(link);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ipv4::Header::new(src, dst, protocol, len).emit(&mut packet[link.len()..]);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let protocol = if protocol == IpProtocol::ICMPV4 { IpProtocol::ICMPV6 } else { protocol };
            ipv6::Header::new(src, dst, protocol, len).emit(&mut packet[link.len()..]);
        }
        _ => unreachable!("both ends of a packet are of one family"),
    }
    packet
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpKind {
    /// No way to the host.
    Host,
    /// Nobody at the port.
    Port,
    /// A filter.
    Prohibited,
    /// Too many hops.
    Expired,
    /// The next link carries only this much.
    TooBig(u16),
}

/// An ICMP error from `from` about the packet `about`, which is bare IP and was sent by `to`.
pub(crate) fn icmp_error(link: &[u8], from: IpAddr, to: IpAddr, kind: IcmpKind, about: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let quote = &about[..about.len().min(28)];
            let unreachable = |code, mtu| icmpv4::Message::Unreachable { code, mtu, quote };
            let message = match kind {
                IcmpKind::Host => unreachable(icmpv4::unreachable::HOST, 0),
                IcmpKind::Port => unreachable(icmpv4::unreachable::PORT, 0),
                IcmpKind::Prohibited => unreachable(icmpv4::unreachable::PROHIBITED, 0),
                IcmpKind::Expired => icmpv4::Message::TimeExceeded { code: 0, quote },
                IcmpKind::TooBig(mtu) => unreachable(icmpv4::unreachable::FRAGMENTATION_NEEDED, mtu),
            };
            let mut packet = with_ip(link, from, to, IpProtocol::ICMPV4, message.len());
            let at = packet.len() - message.len();
            message.emit(&mut packet[at..]);
            packet
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let quote = &about[..about.len().min(100)];
            let unreachable = |code| icmpv6::Message::Unreachable { code, quote };
            let message = match kind {
                IcmpKind::Host => unreachable(icmpv6::unreachable::ADDRESS),
                IcmpKind::Port => unreachable(icmpv6::unreachable::PORT),
                IcmpKind::Prohibited => unreachable(icmpv6::unreachable::PROHIBITED),
                IcmpKind::Expired => icmpv6::Message::TimeExceeded { code: 0, quote },
                IcmpKind::TooBig(mtu) => icmpv6::Message::PacketTooBig { mtu: u32::from(mtu), quote },
            };
            let mut packet = with_ip(link, from, to, IpProtocol::ICMPV6, message.len());
            let at = packet.len() - message.len();
            message.emit(src, dst, &mut packet[at..]);
            packet
        }
        _ => unreachable!("both ends of a packet are of one family"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack_wire::{Options, SeqNum};

    #[test]
    fn a_segment_made_is_a_segment_parsed() {
        let header = SegmentHeader {
            src_port: 1,
            dst_port: 2,
            seq: SeqNum(3),
            ack: SeqNum(4),
            flags: Flags::ACK,
            wnd: 5,
            urgent: 0,
            options: Options::default(),
        };
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
            for link in [&[0u8; 14][..], &[]] {
                let packet = segment(link, src, dst, &header, b"bytes");
                let parsed = parse(&packet, !link.is_empty()).unwrap();
                assert_eq!(
                    (parsed.src, parsed.dst, parsed.header, parsed.payload),
                    (src, dst, header, &b"bytes"[..])
                );
                assert_eq!(parsed.flow().turned(), FlowId::new((dst, 2), (src, 1)));
                assert_eq!(parsed.flow().turned().turned(), parsed.flow());
                let mut broken = packet.clone();
                *broken.last_mut().unwrap() ^= 1;
                assert!(parse(&broken, !link.is_empty()).is_none());
            }
        }
    }
}
