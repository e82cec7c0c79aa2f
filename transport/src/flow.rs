//! Endpoints and flow keys.

use core::fmt;
pub use core::net::IpAddr;

use crate::handle::DomainId;

/// An address and a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// IPv4 or IPv6 address.
    pub addr: IpAddr,
    /// Port in host order; 0 where none is meant.
    pub port: u16,
}

impl Endpoint {
    /// No address and no port: of a flow over a transport that has none.
    pub const UNSPECIFIED: Endpoint =
        Endpoint { addr: IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), port: 0 };

    /// The endpoint `addr`, `port`.
    pub const fn new(addr: IpAddr, port: u16) -> Endpoint {
        Endpoint { addr, port }
    }
}

impl From<core::net::SocketAddr> for Endpoint {
    fn from(from: core::net::SocketAddr) -> Endpoint {
        Endpoint { addr: from.ip(), port: from.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            IpAddr::V4(addr) => write!(f, "{addr}:{}", self.port),
            IpAddr::V6(addr) => write!(f, "[{addr}]:{}", self.port),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which transport carries a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Protocol {
    /// This stack's TCP (RFC 9293), by its IANA number.
    Tcp = 6,
    /// A TCP socket of the host.
    KernelTcp = 0x80,
    /// A Unix stream socket of the host; its flow's addresses are unspecified.
    KernelUnix,
    /// Another app of this stack, fifo to fifo; its flow's addresses are unspecified.
    Local,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 4] =
        [Protocol::Tcp, Protocol::KernelTcp, Protocol::KernelUnix, Protocol::Local];

    /// The scheme of its addresses.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::KernelTcp => "kernel+tcp",
            Protocol::KernelUnix => "kernel+unix",
            Protocol::Local => "local",
        }
    }
}

/// What identifies a flow inside a stack. A flow has one worker for life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Our end.
    pub local: Endpoint,
    /// The peer's end.
    pub remote: Endpoint,
    /// The routing domain of the interface the flow runs over.
    pub domain: DomainId,
    /// The transport protocol.
    pub protocol: Protocol,
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => write!(f, "{} {}->{}", self.domain, self.local, self.remote),
            Protocol::KernelTcp => write!(f, "kernel+tcp {}->{}", self.local, self.remote),
            Protocol::KernelUnix | Protocol::Local => f.write_str(self.protocol.name()),
        }
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
