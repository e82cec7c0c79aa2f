//! The IPv6 header (RFC 8200) and the extension headers that a host must walk to reach what it carries.

use core::net::Ipv6Addr;

use crate::bytes::{field, put, split, u16_at, u32_at};
use crate::error::ParseError;
use crate::ip::IpProtocol;

/// Extension headers walked in one packet at most; a packet with more is [`ParseError::Unsupported`]. Real ones have
/// one or two, and a bound keeps a hostile one from costing thousands of turns.
const EXTENSIONS_MAX: usize = 8;

/// An IPv6 header, and where its payload lies behind the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// What the payload is: the next header after hop-by-hop, destination, routing and fragment headers.
    pub next_header: IpProtocol,
    /// Hops left.
    pub hop_limit: u8,
    /// DSCP (upper 6 bits) and ECN (lower 2).
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// The fragment header, when there is one. In a fragment that is not the first the payload starts in the middle of
    /// an upper-layer packet.
    pub fragment: Option<Fragment>,
    /// Where the payload starts, from the first byte of the IPv6 header. Written headers have 40, whatever this says.
    pub payload_offset: u16,
    /// Bytes of payload, extension headers not counted.
    pub payload_len: u16,
}

/// A fragment header (RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification, for reassembly.
    pub id: u32,
    /// Where the payload goes in the fragmentable part, in bytes; a multiple of 8.
    pub offset: u16,
    /// Not the last fragment.
    pub more: bool,
}

impl Header {
    /// Bytes of a header without extensions: what [`Header::emit`] writes.
    pub const LEN: usize = 40;

    /// A header with hop limit 64.
    ///
    /// # Panics
    /// When `payload_len` is more than 65535.
    pub const fn new(src: Ipv6Addr, dst: Ipv6Addr, next_header: IpProtocol, payload_len: usize) -> Header {
        assert!(
            payload_len <= u16::MAX as usize,
            "an IPv6 payload without the jumbo option is at most 65535 bytes"
        );
        Header {
            src,
            dst,
            next_header,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            fragment: None,
            payload_offset: Header::LEN as u16,
            payload_len: payload_len as u16,
        }
    }

    /// Whether the packet is only a part of its datagram. An atomic fragment (RFC 6946) is a whole.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        matches!(self.fragment, Some(Fragment { more, offset, .. }) if more || offset != 0)
    }

    /// The header and its payload, cut to the payload length, behind all extension headers.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::BadVersion`], [`ParseError::BadLength`]; [`ParseError::BadOption`] for
    /// an option that runs past its header; [`ParseError::Unsupported`] for a routing header with segments left, an
    /// option that forbids skipping it (RFC 8200 §4.2), a misplaced hop-by-hop header, too many extension headers.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<(Header, &[u8]), ParseError> {
        let (mut header, rest) = Header::parse_fixed(packet)?;
        let payload = rest.get(..usize::from(header.payload_len)).ok_or(ParseError::Truncated)?;
        if matches!(header.next_header, IpProtocol::TCP | IpProtocol::ICMPV6 | IpProtocol::UDP) {
            return Ok((header, payload));
        }
        let payload = header.walk(payload, true)?;
        Ok((header, payload))
    }

    /// The header of a packet that may be cut short (one quoted in an ICMP error), and all bytes of its payload that
    /// are there. `payload_len` is as far as the packet goes, not as the header claims.
    pub(crate) fn parse_quoted(packet: &[u8]) -> Result<(Header, &[u8]), ParseError> {
        let (mut header, rest) = Header::parse_fixed(packet)?;
        let payload = &rest[..rest.len().min(usize::from(header.payload_len))];
        let payload = header.walk(payload, false)?;
        Ok((header, payload))
    }

    #[inline]
    fn parse_fixed(packet: &[u8]) -> Result<(Header, &[u8]), ParseError> {
        let (head, rest) = split::<{ Header::LEN }>(packet)?;
        let first = u32_at::<0, _>(head);
        if first >> 28 != 6 {
            return Err(ParseError::BadVersion);
        }
        let header = Header {
            src: Ipv6Addr::from(field::<8, 16, _>(head)),
            dst: Ipv6Addr::from(field::<24, 16, _>(head)),
            next_header: IpProtocol(head[6]),
            hop_limit: head[7],
            traffic_class: (first >> 20 & 0xff) as u8,
            flow_label: first & 0xf_ffff,
            fragment: None,
            payload_offset: Header::LEN as u16,
            payload_len: u16_at::<4, _>(head),
        };
        Ok((header, rest))
    }

    /// Skips extension headers at the start of `rest` and returns what is behind them.
    fn walk<'a>(&mut self, mut rest: &'a [u8], is_strict: bool) -> Result<&'a [u8], ParseError> {
        let whole = rest.len();
        for turn in 0..=EXTENSIONS_MAX {
            let next = self.next_header;
            let behind = match next {
                // RFC 8200 §4.1: hop-by-hop options are restricted to appear immediately after the IPv6 header only.
                IpProtocol::HOP_BY_HOP if turn != 0 => return Err(ParseError::Unsupported),
                IpProtocol::HOP_BY_HOP | IpProtocol::DESTINATION_OPTIONS | IpProtocol::ROUTING => {
                    let (head, _) = split::<4>(rest)?;
                    let len = (usize::from(head[1]) + 1) * 8;
                    let (extension, behind) = rest.split_at_checked(len).ok_or(ParseError::Truncated)?;
                    if next != IpProtocol::ROUTING {
                        if is_strict {
                            check_options(&extension[2..])?;
                        }
                    } else if head[3] != 0 && is_strict {
                        // RFC 8200 §4.4: with segments left, an unrecognized routing type ends in a discard; so does
                        // type 0 (RFC 5095 §3), and this is no router for the others.
                        return Err(ParseError::Unsupported);
                    }
                    self.next_header = IpProtocol(head[0]);
                    behind
                }
                IpProtocol::FRAGMENT if self.fragment.is_none() => {
                    let (head, behind) = split::<8>(rest)?;
                    let place = u16_at::<2, _>(head);
                    let fragment =
                        Fragment { id: u32_at::<4, _>(head), offset: place & !7, more: place & 1 != 0 };
                    // RFC 8200 §4.5: fragments but the last are multiples of 8 bytes, and none reaches past 65535.
                    if is_strict
                        && (fragment.more && behind.len() % 8 != 0
                            || usize::from(fragment.offset) + behind.len() > usize::from(u16::MAX))
                    {
                        return Err(ParseError::BadLength);
                    }
                    self.fragment = Some(fragment);
                    self.next_header = IpProtocol(head[0]);
                    behind
                }
                // A second fragment header (RFC 7112 leaves it to the receiver) is of no use to anyone honest.
                IpProtocol::FRAGMENT => return Err(ParseError::Unsupported),
                _ => return Ok(self.end_walk(whole, rest)),
            };
            rest = behind;
            // What follows in a later fragment is not a header.
            if self.fragment.is_some_and(|fragment| fragment.offset != 0) {
                return Ok(self.end_walk(whole, rest));
            }
        }
        Err(ParseError::Unsupported)
    }

    fn end_walk<'a>(&mut self, whole: usize, rest: &'a [u8]) -> &'a [u8] {
        // Neither `as` can cut: the payload was bounded by a u16, and at most 8 headers of 2048 bytes were skipped.
        self.payload_offset = (Header::LEN + whole - rest.len()) as u16;
        self.payload_len = rest.len() as u16;
        rest
    }

    /// Writes a 40-byte header without extensions and returns its length. `payload_offset` and `fragment` are not
    /// looked at.
    ///
    /// # Panics
    /// When `into` is shorter than [`Header::LEN`].
    #[inline]
    pub fn emit(&self, into: &mut [u8]) -> usize {
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0xf_ffff;
        let mut head = [0; Header::LEN];
        put(&mut head, 0, &first.to_be_bytes());
        put(&mut head, 4, &self.payload_len.to_be_bytes());
        head[6] = self.next_header.0;
        head[7] = self.hop_limit;
        put(&mut head, 8, &self.src.octets());
        put(&mut head, 24, &self.dst.octets());
        put(into, 0, &head)
    }
}

/// Checks the options of a hop-by-hop or destination header: whole, and none that forbids skipping it.
fn check_options(mut options: &[u8]) -> Result<(), ParseError> {
    while let Some((&kind, rest)) = options.split_first() {
        // Pad1 has no length.
        if kind == 0 {
            options = rest;
            continue;
        }
        let (&len, rest) = rest.split_first().ok_or(ParseError::BadOption)?;
        options = rest.get(usize::from(len)..).ok_or(ParseError::BadOption)?;
        // RFC 8200 §4.2: the two high bits say what to do with an unrecognized option: 00 skip, all others discard.
        if kind >> 6 != 0 {
            return Err(ParseError::Unsupported);
        }
    }
    Ok(())
}

/// The solicited-node multicast address of a unicast address (RFC 4291 §2.7.1): ff02::1:ffXX:XXXX.
pub fn solicited_node_multicast(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    Ipv6Addr::from([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}
