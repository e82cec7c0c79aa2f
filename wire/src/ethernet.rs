//! Ethernet II frames: addresses, types, the 14-byte header.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use crate::bytes::{field, put, split, u16_at};
use crate::error::ParseError;

/// A 48-bit Ethernet address. It prints as `02:00:00:00:00:01` and parses from that (or with `-` between the bytes).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// To all stations.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);
    /// No address: ARP's unknown target.
    pub const ZERO: MacAddr = MacAddr([0; 6]);

    /// Whether it names a group (the broadcast address included).
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether it names every station.
    #[inline]
    pub const fn is_broadcast(self) -> bool {
        matches!(self.0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
    }

    /// Whether it can name one station: not a group, not zero.
    #[inline]
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an Ethernet address: write six two-digit hexadecimal bytes with `:` between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddrError;

impl fmt::Display for MacAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an Ethernet address: write it like 02:00:00:00:00:01")
    }
}

impl core::error::Error for MacAddrError {}

impl FromStr for MacAddr {
    type Err = MacAddrError;

    fn from_str(text: &str) -> Result<MacAddr, MacAddrError> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().ok_or(MacAddrError)?;
            if part.len() != 2 || !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(MacAddrError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacAddrError)?;
        }
        if parts.next().is_some() { Err(MacAddrError) } else { Ok(MacAddr(bytes)) }
    }
}

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: EtherType = EtherType(0x0800);
    /// ARP.
    pub const ARP: EtherType = EtherType(0x0806);
    /// An 802.1Q tag follows.
    pub const VLAN: EtherType = EtherType(0x8100);
    /// IPv6.
    pub const IPV6: EtherType = EtherType(0x86dd);
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            EtherType::IPV4 => f.write_str("ipv4"),
            EtherType::ARP => f.write_str("arp"),
            EtherType::VLAN => f.write_str("vlan"),
            EtherType::IPV6 => f.write_str("ipv6"),
            EtherType(number) => write!(f, "ethertype {number:#06x}"),
        }
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Ethernet II header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// To whom.
    pub dst: MacAddr,
    /// From whom.
    pub src: MacAddr,
    /// What the frame carries. Values below 0x600 are 802.3 lengths; callers drop them.
    pub ether_type: EtherType,
}

impl Header {
    /// Bytes on the wire.
    pub const LEN: usize = 14;

    /// The header and what follows it (padding of short frames included).
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<(Header, &[u8]), ParseError> {
        let (head, payload) = split::<{ Header::LEN }>(frame)?;
        let header = Header {
            dst: MacAddr(field::<0, 6, _>(head)),
            src: MacAddr(field::<6, 6, _>(head)),
            ether_type: EtherType(u16_at::<12, _>(head)),
        };
        Ok((header, payload))
    }

    /// Writes the header and returns its length.
    ///
    /// # Panics
    /// When `into` is shorter than [`Header::LEN`].
    #[inline]
    pub fn emit(&self, into: &mut [u8]) -> usize {
        put(into, 0, &self.dst.0);
        put(into, 6, &self.src.0);
        put(into, 12, &self.ether_type.0.to_be_bytes())
    }
}

/// The group address that carries an IP multicast address: RFC 1112 §6.4 (IPv4), RFC 2464 §7 (IPv6).
///
/// Meaningful for multicast addresses only; the IPv4 limited broadcast address gives [`MacAddr::BROADCAST`].
#[inline]
pub fn multicast_mac(addr: impl Into<IpAddr>) -> MacAddr {
    match addr.into() {
        IpAddr::V4(addr) if addr.is_broadcast() => MacAddr::BROADCAST,
        IpAddr::V4(addr) => {
            let [_, b, c, d] = addr.octets();
            MacAddr([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(addr) => {
            let [.., a, b, c, d] = addr.octets();
            MacAddr([0x33, 0x33, a, b, c, d])
        }
    }
}
