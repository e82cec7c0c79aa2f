//! The IPv4 header (RFC 791).

use core::net::Ipv4Addr;

use crate::bytes::{field, put, split, u16_at};
use crate::checksum::{Sum, checksum};
use crate::error::ParseError;
use crate::ip::IpProtocol;

/// An IPv4 header. Options are skipped when parsing and never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// What the payload is.
    pub protocol: IpProtocol,
    /// Time to live, hops.
    pub ttl: u8,
    /// DSCP (upper 6 bits, RFC 2474) and ECN (lower 2, RFC 3168).
    pub dscp_ecn: u8,
    /// Identification, for reassembly.
    pub id: u16,
    /// Routers must not fragment it.
    pub dont_fragment: bool,
    /// Not the last fragment.
    pub more_fragments: bool,
    /// Where the payload goes in the datagram, in bytes; a multiple of 8, at most 65528.
    pub fragment_offset: u16,
    /// Bytes of header on the wire, options included: 20 to 60. Written headers have 20, whatever this says.
    pub header_len: u8,
    /// Bytes of header and payload.
    pub total_len: u16,
}

impl Header {
    /// Bytes of a header without options: what [`Header::emit`] writes.
    pub const LEN: usize = 20;

    /// A header for an unfragmented packet: TTL 64, DF set, identification 0 (an atomic datagram, RFC 6864 §4.1).
    ///
    /// # Panics
    /// When `payload_len` is more than 65515.
    pub const fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: IpProtocol, payload_len: usize) -> Header {
        assert!(
            payload_len <= u16::MAX as usize - Header::LEN,
            "an IPv4 payload fits beside its header in 65535 bytes"
        );
        Header {
            src,
            dst,
            protocol,
            ttl: 64,
            dscp_ecn: 0,
            id: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            header_len: Header::LEN as u8,
            total_len: (Header::LEN + payload_len) as u16,
        }
    }

    /// Whether the packet is only a part of its datagram.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    /// The header and its payload, cut to the total length. Verifies the header checksum and the lengths.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::BadVersion`], [`ParseError::BadLength`], [`ParseError::BadChecksum`].
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<(Header, &[u8]), ParseError> {
        let (header, payload) = Header::parse_unchecked(packet)?;
        let header_len = usize::from(header.header_len);
        // Cannot fail because parse_unchecked found the header whole.
        if checksum(&packet[..header_len]) != 0 {
            return Err(ParseError::BadChecksum);
        }
        let payload_len =
            usize::from(header.total_len).checked_sub(header_len).ok_or(ParseError::BadLength)?;
        // RFC 791 §3.2: no datagram is longer than 65535 bytes, reassembled ones included.
        if usize::from(header.fragment_offset) + payload_len > usize::from(u16::MAX) {
            return Err(ParseError::BadLength);
        }
        Ok((header, payload.get(..payload_len).ok_or(ParseError::Truncated)?))
    }

    /// The header of a packet that may be cut short and whose checksum may have been left alone (one quoted in an ICMP
    /// error), and all bytes that follow it.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::BadVersion`], [`ParseError::BadLength`].
    #[inline]
    pub(crate) fn parse_unchecked(packet: &[u8]) -> Result<(Header, &[u8]), ParseError> {
        let (head, _) = split::<{ Header::LEN }>(packet)?;
        if head[0] >> 4 != 4 {
            return Err(ParseError::BadVersion);
        }
        let header_len = (head[0] & 0xf) * 4;
        if usize::from(header_len) < Header::LEN {
            return Err(ParseError::BadLength);
        }
        let payload = packet.get(usize::from(header_len)..).ok_or(ParseError::Truncated)?;
        let fragment = u16_at::<6, _>(head);
        let header = Header {
            src: Ipv4Addr::from(field::<12, 4, _>(head)),
            dst: Ipv4Addr::from(field::<16, 4, _>(head)),
            protocol: IpProtocol(head[9]),
            ttl: head[8],
            dscp_ecn: head[1],
            id: u16_at::<4, _>(head),
            dont_fragment: fragment & 0x4000 != 0,
            more_fragments: fragment & 0x2000 != 0,
            fragment_offset: (fragment & 0x1fff) * 8,
            header_len,
            total_len: u16_at::<2, _>(head),
        };
        Ok((header, payload))
    }

    /// Writes a 20-byte header with its checksum and returns its length. `header_len` is not looked at.
    ///
    /// # Panics
    /// When `into` is shorter than [`Header::LEN`].
    #[inline]
    pub fn emit(&self, into: &mut [u8]) -> usize {
        let fragment = (u16::from(self.dont_fragment) << 14)
            | (u16::from(self.more_fragments) << 13)
            | (self.fragment_offset / 8);
        let mut head = [0; Header::LEN];
        head[0] = 0x45;
        head[1] = self.dscp_ecn;
        put(&mut head, 2, &self.total_len.to_be_bytes());
        put(&mut head, 4, &self.id.to_be_bytes());
        put(&mut head, 6, &fragment.to_be_bytes());
        head[8] = self.ttl;
        head[9] = self.protocol.0;
        put(&mut head, 12, &self.src.octets());
        put(&mut head, 16, &self.dst.octets());
        let mut sum = Sum::ZERO;
        sum.add_bytes(&head);
        put(&mut head, 10, &sum.finish().to_be_bytes());
        put(into, 0, &head)
    }
}
