//! ICMP for IPv6 (RFC 4443) with neighbour discovery (RFC 4861).
//!
//! Neighbour discovery is valid only in packets with hop limit 255 (RFC 4861 §3.1): the caller checks
//! [`Message::is_neighbour_discovery`] against the IPv6 header.

use core::net::Ipv6Addr;

use crate::bytes::{field, put, split, u16_at, u32_at};
use crate::checksum::Sum;
use crate::error::ParseError;
use crate::ethernet::MacAddr;
pub use crate::icmp::{Echo, Quoted};
use crate::ip::IpProtocol;
use crate::ipv6::solicited_node_multicast;

/// Bytes of the fixed part of every message.
const HEADER_LEN: usize = 8;
/// Bytes of a link-layer address option for Ethernet.
const LINK_OPTION_LEN: usize = 8;
/// Source link-layer address option.
const SOURCE_LINK: u8 = 1;
/// Target link-layer address option.
const TARGET_LINK: u8 = 2;

/// Bytes quoted in an error at most: RFC 4443 §2.4(c) wants the whole error, its IP header too, within 1280 bytes.
pub const QUOTE_MAX: usize = 1280 - 40 - HEADER_LEN;

/// Codes of [`Message::Unreachable`].
pub mod unreachable {
    /// No route to the destination.
    pub const NO_ROUTE: u8 = 0;
    /// A filter says no.
    pub const PROHIBITED: u8 = 1;
    /// Beyond the scope of the source address.
    pub const BEYOND_SCOPE: u8 = 2;
    /// The last router cannot reach the host.
    pub const ADDRESS: u8 = 3;
    /// Nothing has the port.
    pub const PORT: u8 = 4;
    /// The source address failed a policy.
    pub const SOURCE_POLICY: u8 = 5;
    /// The route says to reject.
    pub const REJECT_ROUTE: u8 = 6;
}

/// Codes of [`Message::ParameterProblem`].
pub mod parameter {
    /// A header field is wrong.
    pub const FIELD: u8 = 0;
    /// The next header is not known.
    pub const NEXT_HEADER: u8 = 1;
    /// An option is not known.
    pub const OPTION: u8 = 2;
}

/// An ICMPv6 message. `quote` is the start of the packet that an error is about: see [`Message::quoted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Type 1.
    Unreachable {
        /// Which of [`mod@unreachable`], or another.
        code: u8,
        /// The packet.
        quote: &'a [u8],
    },
    /// Type 2.
    PacketTooBig {
        /// The next link's MTU in bytes.
        mtu: u32,
        /// The packet.
        quote: &'a [u8],
    },
    /// Type 3.
    TimeExceeded {
        /// 0 in transit, 1 in reassembly.
        code: u8,
        /// The packet.
        quote: &'a [u8],
    },
    /// Type 4.
    ParameterProblem {
        /// Which of [`parameter`], or another.
        code: u8,
        /// The byte at fault.
        pointer: u32,
        /// The packet.
        quote: &'a [u8],
    },
    /// Type 128.
    EchoRequest(Echo<'a>),
    /// Type 129.
    EchoReply(Echo<'a>),
    /// Type 133.
    RouterSolicitation {
        /// The asker's Ethernet address.
        source_mac: Option<MacAddr>,
    },
    /// Type 134. Prefixes and the MTU option are not read.
    RouterAdvertisement {
        /// Hop limit for hosts; 0: unspecified.
        hop_limit: u8,
        /// Seconds the router may serve as a default router; 0: not at all.
        lifetime_secs: u16,
        /// The router's Ethernet address.
        source_mac: Option<MacAddr>,
    },
    /// Type 135: who has `target`?
    NeighbourSolicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// The asker's Ethernet address; absent in duplicate address detection.
        source_mac: Option<MacAddr>,
    },
    /// Type 136.
    NeighbourAdvertisement {
        /// The address that the sender has.
        target: Ipv6Addr,
        /// It is a router.
        is_router: bool,
        /// It answers a solicitation.
        is_solicited: bool,
        /// It replaces what was known.
        is_override: bool,
        /// Its Ethernet address.
        target_mac: Option<MacAddr>,
    },
    /// Any other: this stack does not act on it.
    Other {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
}

impl<'a> Message<'a> {
    /// Reads a message that came from `src` to `dst` and verifies its checksum. Neighbour discovery messages are
    /// validated as RFC 4861 §7.1 says, hop limit excepted.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::BadChecksum`], [`ParseError::BadOption`], [`ParseError::BadField`].
    pub fn parse(src: Ipv6Addr, dst: Ipv6Addr, bytes: &'a [u8]) -> Result<Message<'a>, ParseError> {
        let (head, rest) = split::<HEADER_LEN>(bytes)?;
        let mut sum = pseudo(src, dst, bytes.len());
        sum.add_bytes(bytes);
        if !sum.is_valid() {
            return Err(ParseError::BadChecksum);
        }
        let [kind, code, ..] = *head;
        // RFC 4861 §6.1, §7.1: the ICMP code is 0.
        if matches!(kind, 133..=136) && code != 0 {
            return Err(ParseError::BadField);
        }
        let echo = Echo { id: u16_at::<4, _>(head), seq: u16_at::<6, _>(head), data: rest };
        Ok(match (kind, code) {
            (1, _) => Message::Unreachable { code, quote: rest },
            (2, _) => Message::PacketTooBig { mtu: u32_at::<4, _>(head), quote: rest },
            (3, _) => Message::TimeExceeded { code, quote: rest },
            (4, _) => Message::ParameterProblem { code, pointer: u32_at::<4, _>(head), quote: rest },
            (128, 0) => Message::EchoRequest(echo),
            (129, 0) => Message::EchoReply(echo),
            (133, _) => {
                let source_mac = link_option(rest, SOURCE_LINK)?;
                // RFC 4861 §6.1.1.
                if src.is_unspecified() && source_mac.is_some() {
                    return Err(ParseError::BadField);
                }
                Message::RouterSolicitation { source_mac }
            }
            (134, _) => {
                let (_timers, options) = split::<8>(rest)?;
                // RFC 4861 §6.1.2.
                if !src.is_unicast_link_local() {
                    return Err(ParseError::BadField);
                }
                Message::RouterAdvertisement {
                    hop_limit: head[4],
                    lifetime_secs: u16_at::<6, _>(head),
                    source_mac: link_option(options, SOURCE_LINK)?,
                }
            }
            (135, _) => parse_solicitation(src, dst, rest)?,
            (136, _) => parse_advertisement(dst, head[4], rest)?,
            _ => Message::Other { kind, code },
        })
    }

    /// Whether this belongs to neighbour discovery: valid only with hop limit 255.
    pub const fn is_neighbour_discovery(&self) -> bool {
        matches!(
            self,
            Message::RouterSolicitation { .. }
                | Message::RouterAdvertisement { .. }
                | Message::NeighbourSolicitation { .. }
                | Message::NeighbourAdvertisement { .. }
                | Message::Other { kind: 137, .. }
        )
    }

    /// The packet that an error is about; `None` for other messages and for quotes that do not tell.
    pub fn quoted(&self) -> Option<Quoted> {
        match self {
            Message::Unreachable { quote, .. }
            | Message::PacketTooBig { quote, .. }
            | Message::TimeExceeded { quote, .. }
            | Message::ParameterProblem { quote, .. } => Quoted::parse_v6(quote).ok(),
            _ => None,
        }
    }

    /// Bytes on the wire; quotes count up to [`QUOTE_MAX`].
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        let option_len = |mac: Option<MacAddr>| if mac.is_some() { LINK_OPTION_LEN } else { 0 };
        HEADER_LEN
            + match *self {
                Message::RouterSolicitation { source_mac } => option_len(source_mac),
                Message::RouterAdvertisement { source_mac, .. } => 8 + option_len(source_mac),
                Message::NeighbourSolicitation { source_mac: mac, .. }
                | Message::NeighbourAdvertisement { target_mac: mac, .. } => 16 + option_len(mac),
                _ => self.body().len(),
            }
    }

    /// What follows the fixed part of an echo or an error.
    fn body(&self) -> &'a [u8] {
        match *self {
            Message::EchoRequest(echo) | Message::EchoReply(echo) => echo.data,
            Message::Unreachable { quote, .. }
            | Message::PacketTooBig { quote, .. }
            | Message::TimeExceeded { quote, .. }
            | Message::ParameterProblem { quote, .. } => &quote[..quote.len().min(QUOTE_MAX)],
            _ => &[],
        }
    }

    /// Writes the message with its checksum and returns its length. [`Message::Other`] is written as a bare header.
    ///
    /// # Panics
    /// When `into` is shorter than [`Message::len`].
    pub fn emit(&self, src: Ipv6Addr, dst: Ipv6Addr, into: &mut [u8]) -> usize {
        let into = &mut into[..self.len()];
        let (kind, code, word) = match *self {
            Message::Unreachable { code, .. } => (1, code, 0),
            Message::PacketTooBig { mtu, .. } => (2, 0, mtu),
            Message::TimeExceeded { code, .. } => (3, code, 0),
            Message::ParameterProblem { code, pointer, .. } => (4, code, pointer),
            Message::EchoRequest(Echo { id, seq, .. }) => (128, 0, u32::from(id) << 16 | u32::from(seq)),
            Message::EchoReply(Echo { id, seq, .. }) => (129, 0, u32::from(id) << 16 | u32::from(seq)),
            Message::RouterSolicitation { .. } => (133, 0, 0),
            Message::RouterAdvertisement { hop_limit, lifetime_secs, .. } => {
                (134, 0, u32::from(hop_limit) << 24 | u32::from(lifetime_secs))
            }
            Message::NeighbourSolicitation { .. } => (135, 0, 0),
            Message::NeighbourAdvertisement { is_router, is_solicited, is_override, .. } => {
                let flags =
                    u32::from(is_router) << 31 | u32::from(is_solicited) << 30 | u32::from(is_override) << 29;
                (136, 0, flags)
            }
            Message::Other { kind, code } => (kind, code, 0),
        };
        put(into, 0, &[kind, code, 0, 0]);
        put(into, 4, &word.to_be_bytes());
        match *self {
            Message::RouterSolicitation { source_mac } => put_link(into, HEADER_LEN, SOURCE_LINK, source_mac),
            Message::RouterAdvertisement { source_mac, .. } => {
                put(into, HEADER_LEN, &[0; 8]);
                put_link(into, HEADER_LEN + 8, SOURCE_LINK, source_mac);
            }
            Message::NeighbourSolicitation { target, source_mac } => {
                put(into, HEADER_LEN, &target.octets());
                put_link(into, HEADER_LEN + 16, SOURCE_LINK, source_mac);
            }
            Message::NeighbourAdvertisement { target, target_mac, .. } => {
                put(into, HEADER_LEN, &target.octets());
                put_link(into, HEADER_LEN + 16, TARGET_LINK, target_mac);
            }
            _ => {
                put(into, HEADER_LEN, self.body());
            }
        }
        let mut sum = pseudo(src, dst, into.len());
        sum.add_bytes(into);
        put(into, 2, &sum.finish().to_be_bytes());
        into.len()
    }
}

/// The pseudo header's sum.
fn pseudo(src: Ipv6Addr, dst: Ipv6Addr, len: usize) -> Sum {
    // Cannot cut in practice: messages lie in one IPv6 packet, below 2^16 bytes.
    Sum::pseudo_v6(src, dst, IpProtocol::ICMPV6, len as u32)
}

/// RFC 4861 §7.1.1.
fn parse_solicitation<'a>(src: Ipv6Addr, dst: Ipv6Addr, rest: &[u8]) -> Result<Message<'a>, ParseError> {
    let (target, options) = split::<16>(rest)?;
    let target = Ipv6Addr::from(field::<0, 16, _>(target));
    let source_mac = link_option(options, SOURCE_LINK)?;
    if target.is_multicast() {
        return Err(ParseError::BadField);
    }
    // Duplicate address detection goes to the solicited-node address, and tells no address of its own.
    if src.is_unspecified() && (source_mac.is_some() || dst != solicited_node_multicast(target)) {
        return Err(ParseError::BadField);
    }
    Ok(Message::NeighbourSolicitation { target, source_mac })
}

/// RFC 4861 §7.1.2.
fn parse_advertisement<'a>(dst: Ipv6Addr, flags: u8, rest: &[u8]) -> Result<Message<'a>, ParseError> {
    let (target, options) = split::<16>(rest)?;
    let target = Ipv6Addr::from(field::<0, 16, _>(target));
    let target_mac = link_option(options, TARGET_LINK)?;
    let is_solicited = flags & 0x40 != 0;
    if target.is_multicast() || dst.is_multicast() && is_solicited {
        return Err(ParseError::BadField);
    }
    Ok(Message::NeighbourAdvertisement {
        target,
        is_router: flags & 0x80 != 0,
        is_solicited,
        is_override: flags & 0x20 != 0,
        target_mac,
    })
}

/// The Ethernet address in the first option of `kind`. All options are checked to be whole.
fn link_option(mut options: &[u8], kind: u8) -> Result<Option<MacAddr>, ParseError> {
    let mut found = None;
    while let Some((&option_kind, rest)) = options.split_first() {
        // RFC 4861 §4.6: lengths are in units of 8 bytes, and 0 must be discarded.
        let &units = rest.first().filter(|&&units| units != 0).ok_or(ParseError::BadOption)?;
        let (option, rest) = options.split_at_checked(usize::from(units) * 8).ok_or(ParseError::BadOption)?;
        if option_kind == kind && found.is_none() {
            // Another length is another kind of link layer.
            let option: &[u8; LINK_OPTION_LEN] = option.try_into().map_err(|_| ParseError::BadOption)?;
            found = Some(MacAddr(field::<2, 6, _>(option)));
        }
        options = rest;
    }
    Ok(found)
}

fn put_link(into: &mut [u8], at: usize, kind: u8, mac: Option<MacAddr>) {
    if let Some(mac) = mac {
        put(into, at, &[kind, 1]);
        put(into, at + 2, &mac.0);
    }
}
