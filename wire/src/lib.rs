//! Bytes to typed headers and back: TCP with all its options, IPv4, IPv6, ICMPv4, ICMPv6, ARP, Ethernet, checksums, PROXY.
//!
//! Parsing never panics and never reads past its bytes; what it returns cannot be malformed. Nothing here knows a
//! connection, a device or a clock.
//!
//! Read [`tcp`] first; [`notation`] is how a segment is written in logs, tests and scripts. Then, from the outside of a
//! packet to its inside: [`ethernet`], [`arp`], [`ipv4`], [`ipv6`], [`icmpv4`], [`icmpv6`] (both quote a packet:
//! [`icmp`]). All parsers of packets fail with the one [`ParseError`].
//!
//! [`proxy`] stands apart: the PROXY protocol's header comes at the front of a stream, in pieces.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod arp;
mod bytes;
pub mod checksum;
pub mod error;
pub mod ethernet;
pub mod hash;
pub mod icmp;
pub mod icmpv4;
pub mod icmpv6;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod notation;
pub mod proxy;
pub mod seq;
pub mod tcp;

pub use checksum::{Sum, checksum, copy_and_sum};
pub use error::ParseError;
pub use ethernet::{EtherType, MacAddr, multicast_mac};
pub use hash::FlowHasher;
pub use icmp::Quoted;
pub use ip::{IpFields, IpProtocol};
pub use ipv6::solicited_node_multicast;
pub use notation::{NotationError, NotedSegment, parse_notation};
pub use proxy::{ProxyError, ProxyHeader};
pub use seq::SeqNum;
pub use tcp::{
    FastOpenCookie, Flags, OptionProfile, Options, SackBlocks, Segment, SegmentHeader, Timestamps,
};
