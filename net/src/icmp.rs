//! ICMP: echo answered, errors steered to the flow they quote, port unreachable for UDP.
//!
//! Redirects, router advertisements, timestamps and address masks are ignored: routes come from the configuration.

use std::net::{IpAddr, Ipv6Addr};

use hoststack_wire::{IpProtocol, ParseError, Quoted, Sum, checksum, ethernet, icmpv4, icmpv6, ipv4, ipv6};

use crate::drop_reason::DropReason;
use crate::echo::EchoNews;
use crate::fib::{ALL_NODES, Interface};
use crate::ip_input::{Found, Frame, IcmpErrorKind, Ip, RxIcmpError};
use crate::ip_path::IpPath;
use crate::packet::{Packet, PacketPool};

/// Bytes of the largest headers in front of a reply: Ethernet and IPv6.
const REPLY_HEADROOM: usize = ethernet::Header::LEN + ipv6::Header::LEN;

/// An ICMP error, without what it quotes.
struct Error {
    from: IpAddr,
    kind: IcmpErrorKind,
    code: u8,
    mtu: Option<usize>,
}

impl IpPath {
    pub(crate) fn read_icmp_v4(
        &self,
        now_us: u64,
        domain: u16,
        ip: &Ip,
        payload: &[u8],
    ) -> Result<Found, DropReason> {
        let message = icmpv4::Message::parse(payload).map_err(DropReason::of_icmp)?;
        let (kind, mtu) = match message {
            icmpv4::Message::EchoRequest(_) => return Ok(Found::Echo(*ip)),
            icmpv4::Message::Unreachable { code, mtu, .. } => match code {
                icmpv4::unreachable::PROTOCOL => (IcmpErrorKind::ProtocolUnreachable, 0),
                icmpv4::unreachable::PORT => (IcmpErrorKind::PortUnreachable, 0),
                icmpv4::unreachable::FRAGMENTATION_NEEDED => (IcmpErrorKind::PacketTooBig, usize::from(mtu)),
                // RFC 1122 §3.2.2.1: networks and hosts, unknown or unreachable for the type of service.
                icmpv4::unreachable::NET | 6 | 8 | 11 => (IcmpErrorKind::NetUnreachable, 0),
                icmpv4::unreachable::HOST | icmpv4::unreachable::SOURCE_ROUTE | 7 | 12 => {
                    (IcmpErrorKind::HostUnreachable, 0)
                }
                9 | 10 | icmpv4::unreachable::PROHIBITED | 14 | 15 => (IcmpErrorKind::Prohibited, 0),
                _ => return Err(DropReason::IcmpIgnored),
            },
            icmpv4::Message::TimeExceeded { .. } => (IcmpErrorKind::TimeExceeded, 0),
            icmpv4::Message::ParameterProblem { .. } => (IcmpErrorKind::ParameterProblem, 0),
            icmpv4::Message::EchoReply(reply) => return self.read_echo_reply(now_us, domain, ip, &reply),
            // RFC 9293 §3.9.2.2 (MUST-55): Source Quench is among these.
            icmpv4::Message::Other { .. } => return Err(DropReason::IcmpIgnored),
        };
        let error = Error { from: ip.src, kind, code: payload[1], mtu: (mtu != 0).then_some(mtu) };
        self.read_error(now_us, domain, error, message.quoted())
    }

    pub(crate) fn read_icmp_v6(
        &mut self,
        now_us: u64,
        interface: &Interface,
        ip: &Ip,
        (src, dst): (Ipv6Addr, Ipv6Addr),
        payload: &[u8],
        frame: Frame,
        pool: &mut PacketPool,
    ) -> Result<Found, DropReason> {
        let message = match icmpv6::Message::parse(src, dst, payload) {
            Ok(message) => message,
            // Types 133 to 137 have rules of their own, so their faults have a name of their own.
            Err(ParseError::BadOption | ParseError::BadField) => return Err(DropReason::NdpMalformed),
            Err(error) => return Err(DropReason::of_icmp(error)),
        };
        if message.is_neighbour_discovery() {
            // RFC 4861 §7.1.1, §7.1.2: a hop limit of 255 proves that no router forwarded it.
            if ip.hop_limit != 255 {
                return Err(DropReason::NdpBadHopLimit);
            }
            return self
                .on_neighbor_discovery(now_us, interface, src, message, frame, pool)
                .map(|()| Found::Heeded);
        }
        if src.is_unspecified() {
            return Err(DropReason::SourceUnspecified);
        }
        let (kind, mtu) = match message {
            // RFC 4443 §4.2: requests to groups may be answered; those to all nodes find out who is there.
            icmpv6::Message::EchoRequest(_) if !dst.is_multicast() || dst == ALL_NODES => {
                return Ok(Found::Echo(*ip));
            }
            icmpv6::Message::EchoRequest(_) => return Err(DropReason::DestinationGroup),
            icmpv6::Message::EchoReply(reply) if !dst.is_multicast() => {
                return self.read_echo_reply(now_us, interface.config.domain, ip, &reply);
            }
            icmpv6::Message::Unreachable { code, .. } => match code {
                icmpv6::unreachable::NO_ROUTE => (IcmpErrorKind::NetUnreachable, None),
                icmpv6::unreachable::BEYOND_SCOPE | icmpv6::unreachable::ADDRESS => {
                    (IcmpErrorKind::HostUnreachable, None)
                }
                icmpv6::unreachable::PORT => (IcmpErrorKind::PortUnreachable, None),
                icmpv6::unreachable::PROHIBITED
                | icmpv6::unreachable::SOURCE_POLICY
                | icmpv6::unreachable::REJECT_ROUTE => (IcmpErrorKind::Prohibited, None),
                _ => return Err(DropReason::IcmpIgnored),
            },
            icmpv6::Message::PacketTooBig { mtu, .. } => {
                (IcmpErrorKind::PacketTooBig, Some(usize::try_from(mtu).unwrap_or(usize::MAX)))
            }
            icmpv6::Message::TimeExceeded { .. } => (IcmpErrorKind::TimeExceeded, None),
            // RFC 4443 §3.4: an upper layer must be told; next header TCP not known is a protocol unreachable.
            icmpv6::Message::ParameterProblem { code: icmpv6::parameter::NEXT_HEADER, .. } => {
                (IcmpErrorKind::ProtocolUnreachable, None)
            }
            icmpv6::Message::ParameterProblem { .. } => (IcmpErrorKind::ParameterProblem, None),
            _ => return Err(DropReason::IcmpIgnored),
        };
        if dst.is_multicast() {
            return Err(DropReason::DestinationGroup);
        }
        let error = Error { from: ip.src, kind, code: payload[1], mtu };
        self.read_error(now_us, interface.config.domain, error, message.quoted())
    }

    /// An error is about a flow when it quotes a segment that we can have sent (RFC 9293 §3.9.2.2, MUST-54), and about a
    /// ping when it quotes its request.
    fn read_error(
        &self,
        now_us: u64,
        domain: u16,
        error: Error,
        quoted: Option<Quoted>,
    ) -> Result<Found, DropReason> {
        let Error { from, kind, code, mtu } = error;
        if let Some(quoted) = quoted
            && let Some(echo) = quoted.echo
        {
            let news = EchoNews::Error { kind, code, mtu };
            return self.read_echo_error(now_us, domain, from, news, &quoted, echo);
        }
        let quoted = quoted
            .filter(|quoted| quoted.protocol == IpProtocol::TCP && self.fib.is_local(domain, quoted.src));
        let (Some(quoted), Some(seq)) = (quoted, quoted.and_then(|quoted| quoted.seq)) else {
            return Err(DropReason::IcmpQuoteForeign);
        };
        let hash = self.hasher.hash(quoted.src, quoted.src_port, quoted.dst, quoted.dst_port);
        Ok(Found::IcmpError(RxIcmpError {
            domain,
            local: quoted.src,
            local_port: quoted.src_port,
            remote: quoted.dst,
            remote_port: quoted.dst_port,
            hash,
            kind,
            seq,
            mtu,
        }))
    }

    /// Turns an echo request into its reply, in its buffer (RFC 1122 §3.2.2.6, RFC 4443 §4.2).
    pub(crate) fn answer_echo(
        &mut self,
        now_us: u64,
        interface: &Interface,
        ip: &Ip,
        mut packet: Packet,
        pool: &mut PacketPool,
    ) {
        packet.trim_front(ip.l4_offset);
        packet.truncate(ip.l4_len);
        if packet.headroom() < REPLY_HEADROOM {
            let roomy = pool.copy(&packet);
            pool.give(std::mem::replace(&mut packet, roomy));
        }
        let src = match ip.dst {
            IpAddr::V6(dst) if dst.is_multicast() => interface.source_for(ip.src),
            dst => Some(dst),
        };
        match (src, ip.src) {
            (Some(IpAddr::V4(src)), IpAddr::V4(dst)) => {
                let reply = packet.data_mut();
                // Echo reply, type 0; the checksum is worked out over a zero field.
                reply[0] = 0;
                reply[2..4].fill(0);
                let sum = checksum(reply);
                reply[2..4].copy_from_slice(&sum.to_be_bytes());
                ipv4::Header::new(src, dst, IpProtocol::ICMPV4, ip.l4_len)
                    .emit(packet.prepend(ipv4::Header::LEN));
            }
            (Some(IpAddr::V6(src)), IpAddr::V6(dst)) => {
                let reply = packet.data_mut();
                reply[0] = 129;
                reply[2..4].fill(0);
                // Cannot cut because the message came in one IPv6 packet.
                let mut sum = Sum::pseudo_v6(src, dst, IpProtocol::ICMPV6, ip.l4_len as u32);
                sum.add_bytes(reply);
                reply[2..4].copy_from_slice(&sum.finish().to_be_bytes());
                ipv6::Header::new(src, dst, IpProtocol::ICMPV6, ip.l4_len)
                    .emit(packet.prepend(ipv6::Header::LEN));
            }
            _ => {
                self.drops.count(DropReason::NoSource);
                pool.give(packet);
                return;
            }
        }
        match self.reply(now_us, pool, interface.config.id, ip.src, packet) {
            Ok(()) => self.counters.echo_replies += 1,
            Err(reason) => self.drops.count(reason),
        }
    }

    /// Tells the sender of a datagram that nobody has the port (RFC 1122 §4.1.3.1), within the rate limit.
    pub(crate) fn answer_udp(
        &mut self,
        now_us: u64,
        interface: &Interface,
        ip: &Ip,
        packet: Packet,
        pool: &mut PacketPool,
    ) {
        if !self.unreachables.take(now_us) {
            self.drops.count(DropReason::UnreachableLimited);
            pool.give(packet);
            return;
        }
        self.drops.count(DropReason::UdpClosed);
        let quote = &packet.data()[ip.l3_offset..ip.l4_offset + ip.l4_len];
        let mut reply = pool.take();
        let is_built = match (ip.dst, ip.src) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let message = icmpv4::Message::Unreachable { code: icmpv4::unreachable::PORT, mtu: 0, quote };
                let fits = message.len() <= reply.room();
                if fits {
                    message.emit(reply.append(message.len()));
                    ipv4::Header::new(src, dst, IpProtocol::ICMPV4, message.len())
                        .emit(reply.prepend(ipv4::Header::LEN));
                }
                fits
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let message = icmpv6::Message::Unreachable { code: icmpv6::unreachable::PORT, quote };
                let fits = message.len() <= reply.room();
                if fits {
                    message.emit(src, dst, reply.append(message.len()));
                    ipv6::Header::new(src, dst, IpProtocol::ICMPV6, message.len())
                        .emit(reply.prepend(ipv6::Header::LEN));
                }
                fits
            }
            _ => unreachable!("both addresses come from one IP header"),
        };
        pool.give(packet);
        if !is_built {
            self.drops.count(DropReason::ExceedsMtu);
            pool.give(reply);
            return;
        }
        match self.reply(now_us, pool, interface.config.id, ip.src, reply) {
            Ok(()) => self.counters.unreachables += 1,
            Err(reason) => self.drops.count(reason),
        }
    }
}
