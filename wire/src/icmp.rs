//! What both versions of ICMP share: the packet that an error quotes.

use core::net::IpAddr;

use crate::error::ParseError;
use crate::ip::IpProtocol;
use crate::seq::SeqNum;
use crate::{ipv4, ipv6};

/// The packet that caused an ICMP error, as far as the error quotes it: enough to find the flow and to check that the
/// sequence number is one that was sent (RFC 5927 §4).
///
/// Addresses and ports are as *we* sent them: `src` is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Protocol of the payload.
    pub protocol: IpProtocol,
    /// Source port; 0 for protocols other than TCP and UDP.
    pub src_port: u16,
    /// Destination port; 0 for protocols other than TCP and UDP.
    pub dst_port: u16,
    /// TCP's sequence number, when the quote reaches that far (RFC 792 promises 8 bytes).
    pub seq: Option<SeqNum>,
    /// Identifier and sequence number of an echo request, when it is one and the quote reaches that far.
    pub echo: Option<(u16, u16)>,
}

impl Quoted {
    /// Reads the start of a quoted IPv4 packet. Its checksum and total length are not looked at: routers change the
    /// one and cut the other.
    ///
    /// # Errors
    /// [`ParseError::Truncated`] when the ports are not there, [`ParseError::BadVersion`], [`ParseError::BadLength`];
    /// [`ParseError::Unsupported`] for a fragment that is not the first, which has no ports.
    pub fn parse_v4(quote: &[u8]) -> Result<Quoted, ParseError> {
        let (header, payload) = ipv4::Header::parse_unchecked(quote)?;
        if header.fragment_offset != 0 {
            return Err(ParseError::Unsupported);
        }
        Quoted::with_ports(header.src.into(), header.dst.into(), header.protocol, payload)
    }

    /// Reads the start of a quoted IPv6 packet, its extension headers skipped.
    ///
    /// # Errors
    /// As [`Quoted::parse_v4`].
    pub fn parse_v6(quote: &[u8]) -> Result<Quoted, ParseError> {
        let (header, payload) = ipv6::Header::parse_quoted(quote)?;
        if header.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Err(ParseError::Unsupported);
        }
        Quoted::with_ports(header.src.into(), header.dst.into(), header.next_header, payload)
    }

    fn with_ports(
        src: IpAddr,
        dst: IpAddr,
        protocol: IpProtocol,
        payload: &[u8],
    ) -> Result<Quoted, ParseError> {
        let mut quoted = Quoted { src, dst, protocol, src_port: 0, dst_port: 0, seq: None, echo: None };
        if matches!(protocol, IpProtocol::TCP | IpProtocol::UDP) {
            let Some((&[a, b, c, d], rest)) = payload.split_first_chunk() else {
                return Err(ParseError::Truncated);
            };
            quoted.src_port = u16::from_be_bytes([a, b]);
            quoted.dst_port = u16::from_be_bytes([c, d]);
            if protocol == IpProtocol::TCP {
                quoted.seq = rest.first_chunk().map(|seq| SeqNum(u32::from_be_bytes(*seq)));
            }
        }
        let request = match protocol {
            IpProtocol::ICMPV4 => Some(8),
            IpProtocol::ICMPV6 => Some(128),
            _ => None,
        };
        // RFC 792, RFC 4443 §4.1: type, code, checksum, identifier, sequence number.
        if let Some((&[kind, 0, _, _, id_high, id_low, seq_high, seq_low], _)) = payload.split_first_chunk()
            && Some(kind) == request
        {
            quoted.echo =
                Some((u16::from_be_bytes([id_high, id_low]), u16::from_be_bytes([seq_high, seq_low])));
        }
        Ok(quoted)
    }
}

/// An echo request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Which pinger.
    pub id: u16,
    /// Which of its pings.
    pub seq: u16,
    /// What a reply must bring back.
    pub data: &'a [u8],
}
