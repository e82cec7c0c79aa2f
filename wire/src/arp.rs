//! ARP for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;

use crate::bytes::{field, put, split, u16_at};
use crate::error::ParseError;
use crate::ethernet::{EtherType, MacAddr};

/// What an ARP packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has it.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's Ethernet address.
    pub sender_mac: MacAddr,
    /// The sender's IPv4 address; unspecified in a probe (RFC 5227 §1.1).
    pub sender_ip: Ipv4Addr,
    /// The target's Ethernet address; ignored in a request.
    pub target_mac: MacAddr,
    /// The target's IPv4 address.
    pub target_ip: Ipv4Addr,
}

impl Packet {
    /// Bytes on the wire.
    pub const LEN: usize = 28;

    /// A request for `target_ip`.
    pub const fn request(sender_mac: MacAddr, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Packet {
        Packet { operation: Operation::Request, sender_mac, sender_ip, target_mac: MacAddr::ZERO, target_ip }
    }

    /// The answer to this request: the target address is at `mac`.
    #[must_use]
    pub const fn reply(&self, mac: MacAddr) -> Packet {
        Packet {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// Reads the payload of an ARP frame; padding behind the packet is ignored.
    ///
    /// # Errors
    /// [`ParseError::Truncated`]; [`ParseError::BadLength`] when the address lengths are not those of the types;
    /// [`ParseError::Unsupported`] for other hardware, protocols or operations.
    pub fn parse(bytes: &[u8]) -> Result<Packet, ParseError> {
        let (head, _) = split::<{ Packet::LEN }>(bytes)?;
        if u16_at::<0, _>(head) != 1 || u16_at::<2, _>(head) != EtherType::IPV4.0 {
            return Err(ParseError::Unsupported);
        }
        if head[4] != 6 || head[5] != 4 {
            return Err(ParseError::BadLength);
        }
        let operation = match u16_at::<6, _>(head) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(ParseError::Unsupported),
        };
        Ok(Packet {
            operation,
            sender_mac: MacAddr(field::<8, 6, _>(head)),
            sender_ip: Ipv4Addr::from(field::<14, 4, _>(head)),
            target_mac: MacAddr(field::<18, 6, _>(head)),
            target_ip: Ipv4Addr::from(field::<24, 4, _>(head)),
        })
    }

    /// Writes the packet and returns its length.
    ///
    /// # Panics
    /// When `into` is shorter than [`Packet::LEN`].
    pub fn emit(&self, into: &mut [u8]) -> usize {
        let operation: u8 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        put(into, 0, &[0, 1, 0x08, 0x00, 6, 4, 0, operation]);
        put(into, 8, &self.sender_mac.0);
        put(into, 14, &self.sender_ip.octets());
        put(into, 18, &self.target_mac.0);
        put(into, 24, &self.target_ip.octets())
    }
}
