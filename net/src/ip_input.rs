//! What comes in: from frames to segments, in one pass over a vector of packets.
//!
//! The checks come in the order of the headers. A packet that fails one is dropped with its [`DropReason`]; nothing
//! here is ever an error upward.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hoststack_wire::ethernet::{self, EtherType};
use hoststack_wire::tcp::verify_checksum;
use hoststack_wire::{IpProtocol, MacAddr, SeqNum, ipv4, ipv6};

use crate::drop_reason::DropReason;
use crate::echo::HeardEcho;
use crate::fib::Interface;
use crate::interface::{InterfaceId, RxChecksum};
use crate::ip_path::IpPath;
use crate::packet::{Packet, PacketPool};
use crate::steer::worker_of;

/// Bytes of a TCP header without options.
const TCP_HEADER_LEN: usize = 20;

/// A TCP segment for this worker, its checksum verified, where it lies in its packet.
#[derive(Debug)]
pub struct RxSegment {
    /// The packet, with all its headers.
    pub packet: Packet,
    /// Where it came in.
    pub interface: InterfaceId,
    /// The interface's routing domain.
    pub domain: u16,
    /// Where the TCP header starts in the packet's data.
    pub l4_offset: u16,
    /// Bytes of TCP header and payload, at least 20.
    pub l4_len: u16,
    /// Source address: the peer.
    pub src: IpAddr,
    /// Destination address: ours.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// The flow's hash, for the flow table.
    pub hash: u64,
    /// The ECN bits of the IP header (RFC 3168 §5): 0 not ECT, 1 ECT(1), 2 ECT(0), 3 CE.
    pub ecn: u8,
}

impl RxSegment {
    /// TCP header and payload, without padding.
    #[inline]
    pub fn tcp_bytes(&self) -> &[u8] {
        let start = usize::from(self.l4_offset);
        &self.packet.data()[start..start + usize::from(self.l4_len)]
    }
}

/// What an ICMP error says about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IcmpErrorKind {
    /// No route to the destination's network.
    NetUnreachable,
    /// The destination does not answer on its link.
    HostUnreachable,
    /// The destination does not speak TCP, or something in its header.
    ProtocolUnreachable,
    /// Nothing has the port.
    PortUnreachable,
    /// A filter on the way says no.
    Prohibited,
    /// The packet does not fit a link on the way; see [`RxIcmpError::mtu`].
    PacketTooBig,
    /// The hops ran out, or reassembly took too long.
    TimeExceeded,
    /// Something in the IP header was not understood.
    ParameterProblem,
}

impl IcmpErrorKind {
    /// A stable name, for the CLI.
    pub const fn name(self) -> &'static str {
        match self {
            IcmpErrorKind::NetUnreachable => "net-unreachable",
            IcmpErrorKind::HostUnreachable => "host-unreachable",
            IcmpErrorKind::ProtocolUnreachable => "protocol-unreachable",
            IcmpErrorKind::PortUnreachable => "port-unreachable",
            IcmpErrorKind::Prohibited => "prohibited",
            IcmpErrorKind::PacketTooBig => "packet-too-big",
            IcmpErrorKind::TimeExceeded => "time-exceeded",
            IcmpErrorKind::ParameterProblem => "parameter-problem",
        }
    }

    /// Whether RFC 1122 §4.2.3.9 calls it hard: the connection should be aborted. RFC 5461 tells why not to do so when
    /// it is synchronized.
    pub const fn is_hard(self) -> bool {
        matches!(self, IcmpErrorKind::ProtocolUnreachable | IcmpErrorKind::PortUnreachable)
    }
}

/// An ICMP error about a packet that we sent on a flow of this worker. Anyone can forge one: TCP checks the sequence
/// number (RFC 5927 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxIcmpError {
    /// The routing domain.
    pub domain: u16,
    /// Our address.
    pub local: IpAddr,
    /// Our port.
    pub local_port: u16,
    /// The peer's address.
    pub remote: IpAddr,
    /// The peer's port.
    pub remote_port: u16,
    /// The flow's hash, for the flow table.
    pub hash: u64,
    /// What it says.
    pub kind: IcmpErrorKind,
    /// The sequence number of the segment that it is about.
    pub seq: SeqNum,
    /// With [`IcmpErrorKind::PacketTooBig`]: the MTU of the link, bytes, if the router said.
    pub mtu: Option<usize>,
}

/// A packet whose flow is another worker's.
#[derive(Debug)]
pub struct Handover {
    /// Whose it is.
    pub worker: u8,
    /// Where it came in.
    pub interface: InterfaceId,
    /// The packet, with all its headers; the TCP checksum was verified.
    pub packet: Packet,
    /// The flow's hash.
    pub hash: u64,
}

/// Where [`IpPath::input`] puts what it finds. The vectors are the caller's, to be used again; `input` only adds.
#[derive(Debug, Default)]
pub struct Received {
    /// TCP segments for this worker, in order.
    pub segments: Vec<RxSegment>,
    /// ICMP errors about flows of this worker, in order.
    pub icmp_errors: Vec<RxIcmpError>,
    /// Packets for other workers, in order.
    pub handovers: Vec<Handover>,
}

/// Who looked at the packet before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Device,
    /// Checksums were verified and the flow is ours: it was steered here.
    Worker,
}

/// What a packet turned out to be.
pub(crate) enum Found {
    /// A segment.
    Segment(Segment),
    /// An error about a flow.
    IcmpError(RxIcmpError),
    /// An echo request, to be turned into its reply in place.
    Echo(Ip),
    /// The answer to an echo request of ours.
    Heard(HeardEcho),
    /// A datagram for a port that nobody has.
    Udp(Ip),
    /// It was heeded; nothing is left to do with it.
    Heeded,
}

/// An [`RxSegment`] that still lies in its packet.
pub(crate) struct Segment {
    domain: u16,
    l4_offset: u16,
    l4_len: u16,
    src: IpAddr,
    dst: IpAddr,
    src_port: u16,
    dst_port: u16,
    ecn: u8,
}

/// What is known of an IP packet once its header was checked.
#[derive(Clone, Copy)]
pub(crate) struct Ip {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// Where the IP header starts in the packet's data.
    pub(crate) l3_offset: usize,
    /// Where the payload starts in the packet's data.
    pub(crate) l4_offset: usize,
    /// Bytes of payload.
    pub(crate) l4_len: usize,
    /// IPv4's time to live, IPv6's hop limit.
    pub(crate) hop_limit: u8,
    ecn: u8,
}

/// The link header of a packet, if it has one.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    /// The sender; `None`: raw IP.
    pub(crate) src: Option<MacAddr>,
    /// It was for a group of stations.
    pub(crate) is_group: bool,
}

impl IpPath {
    /// Takes in packets that `interface`'s device queue received. What concerns TCP goes to `out`; ARP, neighbour
    /// discovery and echo requests are answered at once; the buffers of all else go to `pool`. `packets` is empty
    /// afterwards.
    pub fn input(
        &mut self,
        now_us: u64,
        interface: InterfaceId,
        packets: &mut Vec<Packet>,
        pool: &mut PacketPool,
        out: &mut Received,
    ) {
        self.counters.received += packets.len() as u64;
        let Some(interface) = self.fib.interface(interface).map(Arc::clone) else {
            for packet in packets.drain(..) {
                self.drops.count(DropReason::InterfaceUnknown);
                pool.give(packet);
            }
            return;
        };
        for packet in packets.drain(..) {
            self.take_in(now_us, &interface, packet, Origin::Device, pool, out);
        }
    }

    /// Takes in packets that other workers handed over. Addresses and lengths are checked again, TCP checksums are not.
    pub fn input_handed_over(
        &mut self,
        now_us: u64,
        handovers: &mut Vec<Handover>,
        pool: &mut PacketPool,
        out: &mut Received,
    ) {
        self.counters.received_handovers += handovers.len() as u64;
        for Handover { worker, interface, packet, hash: _ } in handovers.drain(..) {
            debug_assert_eq!(worker, self.worker, "a packet is handed over to its worker");
            match self.fib.interface(interface).map(Arc::clone) {
                Some(interface) => self.take_in(now_us, &interface, packet, Origin::Worker, pool, out),
                None => {
                    self.drops.count(DropReason::InterfaceUnknown);
                    pool.give(packet);
                }
            }
        }
    }

    #[inline]
    fn take_in(
        &mut self,
        now_us: u64,
        interface: &Interface,
        packet: Packet,
        origin: Origin,
        pool: &mut PacketPool,
        out: &mut Received,
    ) {
        let id = interface.config.id;
        match self.read(now_us, interface, &packet, origin, pool) {
            Ok(Found::Segment(segment)) => {
                let Segment { domain, l4_offset, l4_len, src, dst, src_port, dst_port, ecn } = segment;
                let hash = self.hasher.hash(src, src_port, dst, dst_port);
                let worker = worker_of(hash, self.workers);
                if worker != self.worker && origin == Origin::Device {
                    self.counters.handovers += 1;
                    out.handovers.push(Handover { worker, interface: id, packet, hash });
                    return;
                }
                self.counters.segments += 1;
                out.segments.push(RxSegment {
                    packet,
                    interface: id,
                    domain,
                    l4_offset,
                    l4_len,
                    src,
                    dst,
                    src_port,
                    dst_port,
                    hash,
                    ecn,
                });
            }
            Ok(Found::IcmpError(error)) => {
                let worker = worker_of(error.hash, self.workers);
                if worker != self.worker && origin == Origin::Device {
                    self.counters.handovers += 1;
                    out.handovers.push(Handover { worker, interface: id, packet, hash: error.hash });
                    return;
                }
                self.counters.icmp_errors += 1;
                out.icmp_errors.push(error);
                pool.give(packet);
            }
            Ok(Found::Echo(ip)) => self.answer_echo(now_us, interface, &ip, packet, pool),
            Ok(Found::Heard(heard)) => {
                self.on_heard_echo(heard);
                pool.give(packet);
            }
            Ok(Found::Udp(ip)) => self.answer_udp(now_us, interface, &ip, packet, pool),
            Ok(Found::Heeded) => pool.give(packet),
            Err(reason) => {
                tracing::trace!(%reason, interface = %id, len = packet.len(), "dropped");
                self.drops.count(reason);
                pool.give(packet);
            }
        }
    }

    #[inline]
    fn read(
        &mut self,
        now_us: u64,
        interface: &Interface,
        packet: &Packet,
        origin: Origin,
        pool: &mut PacketPool,
    ) -> Result<Found, DropReason> {
        let data = packet.data();
        let Some(ours) = interface.config.mac else {
            let frame = Frame { src: None, is_group: false };
            return match data.first().map(|byte| byte >> 4) {
                Some(4) => self.read_v4(now_us, interface, data, 0, frame, origin),
                Some(6) => self.read_v6(now_us, interface, data, 0, frame, origin, pool),
                Some(_) => Err(DropReason::IpBadVersion),
                None => Err(DropReason::IpTruncated),
            };
        };
        let (header, body) = ethernet::Header::parse(data).map_err(|_| DropReason::FrameTruncated)?;
        let is_group = header.dst != ours;
        if is_group && !header.dst.is_broadcast() && !interface.has_joined(header.dst) {
            return Err(DropReason::FrameNotForUs);
        }
        let frame = Frame { src: Some(header.src), is_group };
        match header.ether_type {
            EtherType::IPV4 => self.read_v4(now_us, interface, data, ethernet::Header::LEN, frame, origin),
            EtherType::IPV6 => {
                self.read_v6(now_us, interface, data, ethernet::Header::LEN, frame, origin, pool)
            }
            EtherType::ARP => self.on_arp(interface, body, is_group, ours, pool).map(|()| Found::Heeded),
            _ => Err(DropReason::EtherTypeUnknown),
        }
    }

    #[inline]
    fn read_v4(
        &mut self,
        now_us: u64,
        interface: &Interface,
        data: &[u8],
        l3_offset: usize,
        frame: Frame,
        origin: Origin,
    ) -> Result<Found, DropReason> {
        let (header, payload) = ipv4::Header::parse(&data[l3_offset..]).map_err(DropReason::of_ip)?;
        let domain = interface.config.domain;
        check_source_v4(interface, header.src)?;
        if !self.fib.is_local(domain, header.dst.into()) {
            // RFC 9293 §3.9.2.3 (MUST-57): to broadcast and multicast addresses, too, and without a word.
            return Err(self.misaddressed_v4(interface, header.dst));
        }
        if self.fib.is_local(domain, header.src.into()) {
            return Err(DropReason::SourceOurs);
        }
        // RFC 1122 §3.3.6: a datagram in a link broadcast that is not for a group is silently discarded.
        if frame.is_group {
            return Err(DropReason::DestinationGroup);
        }
        if header.is_fragment() {
            return Err(DropReason::IpFragment);
        }
        let ip = Ip {
            src: header.src.into(),
            dst: header.dst.into(),
            l3_offset,
            // RFC 9293 §3.9.2 (MUST-50): behind the options, which nobody reads.
            l4_offset: l3_offset + usize::from(header.header_len),
            l4_len: payload.len(),
            hop_limit: header.ttl,
            ecn: header.dscp_ecn & 3,
        };
        match header.protocol {
            IpProtocol::TCP => read_tcp(interface, &ip, payload, origin),
            IpProtocol::ICMPV4 => self.read_icmp_v4(now_us, domain, &ip, payload),
            IpProtocol::UDP => Ok(Found::Udp(ip)),
            _ => Err(DropReason::ProtocolUnknown),
        }
    }

    #[inline]
    fn read_v6(
        &mut self,
        now_us: u64,
        interface: &Interface,
        data: &[u8],
        l3_offset: usize,
        frame: Frame,
        origin: Origin,
        pool: &mut PacketPool,
    ) -> Result<Found, DropReason> {
        let (header, payload) = ipv6::Header::parse(&data[l3_offset..]).map_err(DropReason::of_ip)?;
        let domain = interface.config.domain;
        check_source_v6(interface, header.src, header.next_header)?;
        // Neighbour discovery and echo may be for groups that we listen to.
        let is_group = header.dst.is_multicast();
        if is_group {
            // RFC 9293 §3.9.2.3 (MUST-57).
            if header.next_header != IpProtocol::ICMPV6 {
                return Err(DropReason::DestinationGroup);
            }
        } else if !self.fib.is_local(domain, header.dst.into()) {
            return Err(DropReason::DestinationNotOurs);
        } else if frame.is_group {
            return Err(DropReason::DestinationGroup);
        }
        if self.fib.is_local(domain, header.src.into()) {
            return Err(DropReason::SourceOurs);
        }
        if header.is_fragment() {
            return Err(DropReason::IpFragment);
        }
        let ip = Ip {
            src: header.src.into(),
            dst: header.dst.into(),
            l3_offset,
            l4_offset: l3_offset + usize::from(header.payload_offset),
            l4_len: payload.len(),
            hop_limit: header.hop_limit,
            ecn: header.traffic_class & 3,
        };
        match header.next_header {
            IpProtocol::TCP => read_tcp(interface, &ip, payload, origin),
            IpProtocol::ICMPV6 => {
                self.read_icmp_v6(now_us, interface, &ip, (header.src, header.dst), payload, frame, pool)
            }
            IpProtocol::UDP => Ok(Found::Udp(ip)),
            _ => Err(DropReason::ProtocolUnknown),
        }
    }

    /// What to call a destination that is none of ours.
    #[cold]
    fn misaddressed_v4(&self, interface: &Interface, dst: Ipv4Addr) -> DropReason {
        if dst.is_multicast() || dst.is_broadcast() || interface.is_directed_broadcast(dst) {
            DropReason::DestinationGroup
        } else {
            DropReason::DestinationNotOurs
        }
    }
}

/// RFC 1122 §3.2.1.3, RFC 9293 §3.9.2.3 (MUST-63): which source addresses must not arrive. Our own ones are the caller's
/// check.
#[inline]
fn check_source_v4(interface: &Interface, src: Ipv4Addr) -> Result<(), DropReason> {
    match src.octets()[0] {
        0 => Err(DropReason::SourceUnspecified),
        127 => Err(DropReason::SourceMartian),
        224..=239 => Err(DropReason::SourceGroup),
        240..=255 => {
            Err(if src.is_broadcast() { DropReason::SourceGroup } else { DropReason::SourceMartian })
        }
        _ if interface.is_directed_broadcast(src) => Err(DropReason::SourceGroup),
        _ => Ok(()),
    }
}

/// RFC 4291 §2.5.2, §2.5.3, §2.7; RFC 4942 §2.2 for mapped addresses; RFC 9293 §3.9.2.3 (MUST-63). The unspecified
/// address may ask for neighbours: duplicate address detection.
#[inline]
fn check_source_v6(interface: &Interface, src: Ipv6Addr, next: IpProtocol) -> Result<(), DropReason> {
    let first = src.segments()[0];
    if first & 0xff00 == 0xff00 {
        return Err(DropReason::SourceGroup);
    }
    if first != 0 {
        return Ok(());
    }
    let may_ask = next == IpProtocol::ICMPV6 && interface.config.mac.is_some();
    match src {
        Ipv6Addr::UNSPECIFIED if may_ask => Ok(()),
        Ipv6Addr::UNSPECIFIED => Err(DropReason::SourceUnspecified),
        Ipv6Addr::LOCALHOST => Err(DropReason::SourceMartian),
        _ if src.to_ipv4_mapped().is_some() => Err(DropReason::SourceMartian),
        _ => Ok(()),
    }
}

#[inline]
fn read_tcp(interface: &Interface, ip: &Ip, segment: &[u8], origin: Origin) -> Result<Found, DropReason> {
    if segment.len() < TCP_HEADER_LEN {
        return Err(DropReason::TcpTruncated);
    }
    let is_trusted = origin == Origin::Worker || interface.config.rx_checksum == RxChecksum::Trust;
    // RFC 9293 §3.1 (MUST-3): the receiver must check the checksum.
    if !is_trusted && !verify_checksum(ip.src, ip.dst, segment) {
        return Err(DropReason::TcpBadChecksum);
    }
    Ok(Found::Segment(Segment {
        domain: interface.config.domain,
        // Neither can cut: an IP packet has at most 65535 bytes behind 40 of header. The offset stays below 14 + 40 + 8
        // extension headers of 2048 bytes.
        l4_offset: ip.l4_offset as u16,
        l4_len: segment.len() as u16,
        src: ip.src,
        dst: ip.dst,
        src_port: u16::from_be_bytes([segment[0], segment[1]]),
        dst_port: u16::from_be_bytes([segment[2], segment[3]]),
        ecn: ip.ecn,
    }))
}

#[cfg(test)]
mod tests;
