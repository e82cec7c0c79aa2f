//! Bytes to typed headers and back: TCP with all its options, IPv4, IPv6, ICMPv4, ICMPv6, ARP, Ethernet, checksums.
//!
//! Parsing never panics and never reads past its bytes; what it returns cannot be malformed. Nothing here knows a
//! connection, a device or a clock.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod hash;
pub mod seq;
pub mod tcp;

pub use hash::FlowHasher;
pub use seq::SeqNum;
pub use tcp::{Flags, Options, SackBlocks, Segment, SegmentHeader, Timestamps};
