//! What both versions of IP share: protocol numbers.

use core::fmt;

/// A protocol number: IPv4's protocol field, IPv6's next header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: IpProtocol = IpProtocol(0);
    /// ICMP for IPv4.
    pub const ICMPV4: IpProtocol = IpProtocol(1);
    /// TCP.
    pub const TCP: IpProtocol = IpProtocol(6);
    /// UDP.
    pub const UDP: IpProtocol = IpProtocol(17);
    /// IPv6 routing header.
    pub const ROUTING: IpProtocol = IpProtocol(43);
    /// IPv6 fragment header.
    pub const FRAGMENT: IpProtocol = IpProtocol(44);
    /// ICMP for IPv6.
    pub const ICMPV6: IpProtocol = IpProtocol(58);
    /// IPv6: nothing follows.
    pub const NO_NEXT: IpProtocol = IpProtocol(59);
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: IpProtocol = IpProtocol(60);
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            IpProtocol::ICMPV4 => f.write_str("icmp"),
            IpProtocol::TCP => f.write_str("tcp"),
            IpProtocol::UDP => f.write_str("udp"),
            IpProtocol::ICMPV6 => f.write_str("icmp6"),
            IpProtocol(number) => write!(f, "protocol {number}"),
        }
    }
}

impl fmt::Debug for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the sender of a segment chooses of its packet's IP header (RFC 9293 §3.9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpFields {
    /// DSCP (upper 6 bits, RFC 2474) and ECN (RFC 3168 §5; lower 2: 0 not ECT, 1 ECT(1), 2 ECT(0), 3 CE).
    pub tos: u8,
    /// Time to live, or hop limit, in hops.
    pub ttl: u8,
}

impl IpFields {
    /// No DSCP, not ECT, 64 hops.
    pub const DEFAULT: IpFields = IpFields { tos: 0, ttl: 64 };

    /// The ECN bits.
    pub const fn ecn(self) -> u8 {
        self.tos & 3
    }
}
