//! Interfaces and their addresses, as the configuration names them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use hoststack_wire::MacAddr;

/// The number of an interface in the stack. Small numbers are best: tables are indexed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId(pub u16);

impl InterfaceId {
    /// As an index.
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for InterfaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "if{}", self.0)
    }
}

/// An address with the length of its network's prefix: `10.0.0.1/24`, `2001:db8::1/64`.
///
/// As an interface's address it keeps the host's bits; as a route's prefix only [`Cidr::network`] counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    addr: IpAddr,
    prefix_len: u8,
}

impl Cidr {
    /// An address and a prefix length.
    ///
    /// # Errors
    /// [`CidrError::PrefixTooLong`] above 32 (IPv4) or 128 (IPv6).
    pub const fn new(addr: IpAddr, prefix_len: u8) -> Result<Cidr, CidrError> {
        let max = if addr.is_ipv4() { 32 } else { 128 };
        if prefix_len > max {
            Err(CidrError::PrefixTooLong { prefix_len, max })
        } else {
            Ok(Cidr { addr, prefix_len })
        }
    }

    /// One address: the longest prefix.
    pub const fn host(addr: IpAddr) -> Cidr {
        Cidr { addr, prefix_len: if addr.is_ipv4() { 32 } else { 128 } }
    }

    /// The address, host bits included.
    pub const fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The length of the prefix in bits.
    pub const fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// The same prefix without host bits.
    #[must_use]
    pub fn network(&self) -> Cidr {
        let bits = top_bits(self.addr) & mask(self.prefix_len);
        let addr = match self.addr {
            // Cannot lose bits: top_bits put the 32 bits there.
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        };
        Cidr { addr, prefix_len: self.prefix_len }
    }

    /// Whether `addr` is of this family and has this prefix.
    #[inline]
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4()
            && (top_bits(self.addr) ^ top_bits(addr)) & mask(self.prefix_len) == 0
    }

    /// The directed broadcast address of an IPv4 network; none for /31 and /32 (RFC 3021) and for IPv6.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.addr {
            // Cannot lose bits: the upper 32 of a mask.
            IpAddr::V4(addr) if self.prefix_len < 31 => {
                Some(Ipv4Addr::from_bits(addr.to_bits() | !((mask(self.prefix_len) >> 96) as u32)))
            }
            _ => None,
        }
    }
}

/// An address's bits from the top of a `u128`, so that one mask serves both families.
#[inline]
pub(crate) fn top_bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()) << 96,
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// The topmost `len` bits; `len` is at most 128.
#[inline]
pub(crate) const fn mask(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len as u32) }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let (addr, len) = text.split_once('/').ok_or(CidrError::NoPrefix)?;
        let addr = addr.parse().map_err(|_| CidrError::BadAddress)?;
        if len.is_empty() || len.len() > 3 || !len.bytes().all(|c| c.is_ascii_digit()) {
            return Err(CidrError::BadPrefix);
        }
        Cidr::new(addr, len.parse().map_err(|_| CidrError::BadPrefix)?)
    }
}

/// Why a text, or a pair of numbers, is no [`Cidr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CidrError {
    /// There is no `/`.
    NoPrefix,
    /// What stands before the `/` is no address.
    BadAddress,
    /// What stands behind the `/` is no number from 0 to 128.
    BadPrefix,
    /// The prefix is longer than the address.
    PrefixTooLong {
        /// The length given.
        prefix_len: u8,
        /// The longest for this family.
        max: u8,
    },
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CidrError::NoPrefix => {
                f.write_str("no prefix length: write it like 10.0.0.1/24 or 2001:db8::1/64")
            }
            CidrError::BadAddress => {
                f.write_str("what stands before the / is neither an IPv4 nor an IPv6 address")
            }
            CidrError::BadPrefix => f.write_str("what stands behind the / is not a number from 0 to 128"),
            CidrError::PrefixTooLong { prefix_len, max } => {
                write!(f, "a prefix of {prefix_len} bits is longer than the address, which has {max}")
            }
        }
    }
}

impl std::error::Error for CidrError {}

/// Whether the checksums of received packets are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RxChecksum {
    /// TCP checksums are verified.
    #[default]
    Verify,
    /// The device did it, or the wire is memory: TCP checksums are not looked at.
    Trust,
}

/// An interface, as it is added to a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// Its number, chosen by the caller, unique in the stack.
    pub id: InterfaceId,
    /// Its name, for people; unique in the stack.
    pub name: String,
    /// The routing domain it belongs to.
    pub domain: u16,
    /// Its Ethernet address; `None` when it carries IP packets without a link header (then it has no neighbours).
    pub mac: Option<MacAddr>,
    /// The largest IP packet, in bytes, header included.
    pub mtu: usize,
    /// Its addresses; each implies a connected route. A link-local IPv6 address is added for Ethernet.
    pub addresses: Vec<Cidr>,
    /// Whether received TCP checksums are verified.
    pub rx_checksum: RxChecksum,
}

impl InterfaceConfig {
    /// The smallest MTU of an interface with IPv4 addresses only: what every IPv4 host must take (RFC 1122 §3.3.2).
    pub const MTU_MIN_V4: usize = 576;
    /// The smallest MTU of an interface with IPv6 addresses (RFC 8200 §5).
    pub const MTU_MIN_V6: usize = 1280;
    /// The largest MTU: what the IP length fields can say.
    pub const MTU_MAX: usize = 65535;

    /// A raw IP interface in domain 0 with an MTU of 1500 and no address; change what differs.
    pub fn new(id: InterfaceId, name: impl Into<String>) -> InterfaceConfig {
        InterfaceConfig {
            id,
            name: name.into(),
            domain: 0,
            mac: None,
            mtu: 1500,
            addresses: Vec::new(),
            rx_checksum: RxChecksum::Verify,
        }
    }

    /// What is wrong with it in itself, if anything.
    pub(crate) fn check(&self) -> Result<(), InterfaceError> {
        let min = if self.addresses.iter().any(|cidr| cidr.addr.is_ipv6()) {
            InterfaceConfig::MTU_MIN_V6
        } else {
            InterfaceConfig::MTU_MIN_V4
        };
        if self.mtu < min || self.mtu > InterfaceConfig::MTU_MAX {
            return Err(InterfaceError::Mtu { mtu: self.mtu, min });
        }
        if let Some(mac) = self.mac.filter(|mac| !mac.is_unicast()) {
            return Err(InterfaceError::MacNotUnicast { mac });
        }
        for (place, cidr) in self.addresses.iter().enumerate() {
            if !is_host_address(cidr) {
                return Err(InterfaceError::AddressNotUnicast { addr: cidr.addr });
            }
            if self.addresses[..place].iter().any(|other| other.addr == cidr.addr) {
                return Err(InterfaceError::AddressInUse { addr: cidr.addr });
            }
        }
        Ok(())
    }

    /// Adds the IPv6 link-local address that follows from the Ethernet address, unless one was given or the MTU is too
    /// small for IPv6.
    pub(crate) fn add_link_local(&mut self) {
        let Some(mac) = self.mac else { return };
        let has_one = self.addresses.iter().any(|cidr| is_link_local(cidr.addr));
        if !has_one && self.mtu >= InterfaceConfig::MTU_MIN_V6 {
            self.addresses.push(Cidr { addr: IpAddr::V6(link_local(mac)), prefix_len: 64 });
        }
    }
}

/// Whether it can be the address of one host in its network.
fn is_host_address(cidr: &Cidr) -> bool {
    match cidr.addr {
        IpAddr::V4(addr) => {
            !addr.is_unspecified()
                && !addr.is_multicast()
                && addr.octets()[0] < 224
                && cidr.broadcast() != Some(addr)
                && (cidr.prefix_len >= 31 || cidr.network().addr != cidr.addr)
        }
        IpAddr::V6(addr) => !addr.is_unspecified() && !addr.is_multicast() && addr.to_ipv4_mapped().is_none(),
    }
}

/// Whether it is an IPv6 link-local unicast address.
pub(crate) fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

/// The link-local address of an interface: fe80::/64 and the modified EUI-64 of its MAC (RFC 2464 §4, §5).
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f])
}

/// Why an interface was not added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceError {
    /// The number is taken.
    IdInUse {
        /// The number.
        id: InterfaceId,
    },
    /// The name is taken.
    NameInUse {
        /// The name.
        name: String,
    },
    /// The MTU is out of range.
    Mtu {
        /// The MTU given.
        mtu: usize,
        /// The smallest for the interface's addresses.
        min: usize,
    },
    /// The Ethernet address is a group's, or zero.
    MacNotUnicast {
        /// The address given.
        mac: MacAddr,
    },
    /// The address cannot be one host's in its network.
    AddressNotUnicast {
        /// The address.
        addr: IpAddr,
    },
    /// The address is already one of the domain's.
    AddressInUse {
        /// The address.
        addr: IpAddr,
    },
}

impl fmt::Display for InterfaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InterfaceError::IdInUse { id } => write!(f, "interface number {} is taken: choose another", id.0),
            InterfaceError::NameInUse { name } => write!(f, "the name {name} is taken: choose another"),
            InterfaceError::Mtu { mtu, min } => {
                write!(
                    f,
                    "an MTU of {mtu} will not do: with these addresses it may be {min} to {}",
                    InterfaceConfig::MTU_MAX
                )
            }
            InterfaceError::MacNotUnicast { mac } => {
                write!(f, "{mac} is not one station's address: the lowest bit of its first byte must be 0")
            }
            InterfaceError::AddressNotUnicast { addr } => {
                write!(f, "{addr} cannot be a host's address: it names a network, a group or nothing")
            }
            InterfaceError::AddressInUse { addr } => write!(f, "{addr} is already an address of this domain"),
        }
    }
}

impl std::error::Error for InterfaceError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn cidr_prints_and_parses_and_says_what_is_wrong() {
        for text in ["10.1.2.3/8", "0.0.0.0/0", "255.255.255.255/32", "::/0", "2001:db8::1/64", "fe80::1/128"]
        {
            assert_eq!(cidr(text).to_string(), text);
        }
        for (text, error) in [
            ("10.0.0.1", CidrError::NoPrefix),
            ("10.0.0/8", CidrError::BadAddress),
            ("/8", CidrError::BadAddress),
            ("10.0.0.1/", CidrError::BadPrefix),
            ("10.0.0.1/+8", CidrError::BadPrefix),
            ("10.0.0.1/999", CidrError::BadPrefix),
            ("10.0.0.1/8/8", CidrError::BadPrefix),
            ("10.0.0.1/33", CidrError::PrefixTooLong { prefix_len: 33, max: 32 }),
            ("::1/129", CidrError::PrefixTooLong { prefix_len: 129, max: 128 }),
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(error), "{text}");
            assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn cidr_knows_its_network_its_members_and_its_broadcast() {
        assert_eq!(cidr("10.1.2.3/8").network(), cidr("10.0.0.0/8"));
        assert_eq!(cidr("10.1.2.3/0").network(), cidr("0.0.0.0/0"));
        assert_eq!(cidr("2001:db8:1:2:3::1/48").network(), cidr("2001:db8:1::/48"));
        assert!(cidr("10.1.2.3/8").contains("10.255.0.1".parse().unwrap()));
        assert!(!cidr("10.1.2.3/8").contains("11.0.0.1".parse().unwrap()));
        assert!(!cidr("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(cidr("::/0").contains("::1".parse().unwrap()));
        assert_eq!(cidr("10.1.2.3/8").broadcast(), Some("10.255.255.255".parse().unwrap()));
        assert_eq!(cidr("10.1.2.3/31").broadcast(), None);
        assert_eq!(cidr("::1/64").broadcast(), None);
    }

    #[test]
    fn link_local_address_is_the_modified_eui64() {
        // RFC 2464 §4's example, as an interface identifier under fe80::/64.
        let mac = MacAddr([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
        assert_eq!(link_local(mac), "fe80::3656:78ff:fe9a:bcde".parse::<Ipv6Addr>().unwrap());
        let mut config = InterfaceConfig { mac: Some(mac), ..InterfaceConfig::new(InterfaceId(1), "a") };
        config.add_link_local();
        config.add_link_local();
        assert_eq!(config.addresses, [cidr("fe80::3656:78ff:fe9a:bcde/64")]);
        let mut small =
            InterfaceConfig { mac: Some(mac), mtu: 1000, ..InterfaceConfig::new(InterfaceId(1), "a") };
        small.add_link_local();
        assert!(small.addresses.is_empty());
    }

    #[test]
    fn bad_configurations_are_refused_with_the_reason() {
        let good = InterfaceConfig {
            addresses: vec![cidr("10.0.0.1/24")],
            ..InterfaceConfig::new(InterfaceId(1), "a")
        };
        assert_eq!(good.check(), Ok(()));
        let with = |change: &dyn Fn(&mut InterfaceConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config.check()
        };
        assert_eq!(with(&|c| c.mtu = 575), Err(InterfaceError::Mtu { mtu: 575, min: 576 }));
        assert_eq!(with(&|c| c.mtu = 65536), Err(InterfaceError::Mtu { mtu: 65536, min: 576 }));
        let small_v6 = with(&|c| {
            c.mtu = 1279;
            c.addresses.push(cidr("2001:db8::1/64"));
        });
        assert_eq!(small_v6, Err(InterfaceError::Mtu { mtu: 1279, min: 1280 }));
        let group = MacAddr([1, 0, 0, 0, 0, 1]);
        assert_eq!(with(&|c| c.mac = Some(group)), Err(InterfaceError::MacNotUnicast { mac: group }));
        for addr in [
            "10.0.0.0/24",
            "10.0.0.255/24",
            "224.0.0.1/24",
            "0.0.0.0/0",
            "::/64",
            "ff02::1/64",
            "::ffff:1.2.3.4/96",
        ] {
            let refused = with(&|c| c.addresses = vec![cidr(addr)]);
            assert_eq!(refused, Err(InterfaceError::AddressNotUnicast { addr: cidr(addr).addr() }), "{addr}");
        }
        let twice = with(&|c| c.addresses.push(cidr("10.0.0.1/16")));
        assert_eq!(twice, Err(InterfaceError::AddressInUse { addr: "10.0.0.1".parse().unwrap() }));
        assert_eq!(with(&|c| c.addresses = vec![cidr("10.0.0.0/31"), cidr("10.0.0.1/32")]), Ok(()));
    }
}
