//! ICMP for IPv4 (RFC 792, RFC 1191, RFC 1122 §3.2.2).

use crate::bytes::{put, split, u16_at};
use crate::checksum::checksum;
use crate::error::ParseError;
pub use crate::icmp::{Echo, Quoted};

/// Bytes of the fixed part of every message.
const HEADER_LEN: usize = 8;

/// Bytes quoted in an error at most: RFC 1812 §4.3.2.3 wants the whole error, its IP header too, within 576 bytes.
pub const QUOTE_MAX: usize = 576 - 20 - HEADER_LEN;

/// Codes of [`Message::Unreachable`].
pub mod unreachable {
    /// No route to the network.
    pub const NET: u8 = 0;
    /// The last router cannot reach the host.
    pub const HOST: u8 = 1;
    /// The host does not speak the protocol.
    pub const PROTOCOL: u8 = 2;
    /// Nothing has the port.
    pub const PORT: u8 = 3;
    /// Too big for the next link, and DF is set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// A source route failed.
    pub const SOURCE_ROUTE: u8 = 5;
    /// A filter says no (RFC 1812 §5.2.7.1).
    pub const PROHIBITED: u8 = 13;
}

/// An ICMP message. `quote` is the start of the packet that an error is about: see [`Message::quoted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Type 8.
    EchoRequest(Echo<'a>),
    /// Type 0.
    EchoReply(Echo<'a>),
    /// Type 3.
    Unreachable {
        /// Which of [`mod@unreachable`], or another.
        code: u8,
        /// The next link's MTU in bytes, with [`unreachable::FRAGMENTATION_NEEDED`]; 0 when the router does not say
        /// (it predates RFC 1191), and with other codes.
        mtu: u16,
        /// The packet.
        quote: &'a [u8],
    },
    /// Type 11.
    TimeExceeded {
        /// 0 in transit, 1 in reassembly.
        code: u8,
        /// The packet.
        quote: &'a [u8],
    },
    /// Type 12.
    ParameterProblem {
        /// 0: `pointer` tells the byte.
        code: u8,
        /// The byte at fault.
        pointer: u8,
        /// The packet.
        quote: &'a [u8],
    },
    /// Any other, redirects included: this stack does not act on it.
    Other {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
}

impl<'a> Message<'a> {
    /// Reads a message and verifies its checksum.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::BadChecksum`].
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, ParseError> {
        let (head, rest) = split::<HEADER_LEN>(bytes)?;
        if checksum(bytes) != 0 {
            return Err(ParseError::BadChecksum);
        }
        let [kind, code, ..] = *head;
        let echo = Echo { id: u16_at::<4, _>(head), seq: u16_at::<6, _>(head), data: rest };
        Ok(match (kind, code) {
            (8, 0) => Message::EchoRequest(echo),
            (0, 0) => Message::EchoReply(echo),
            (3, _) => {
                let mtu = if code == unreachable::FRAGMENTATION_NEEDED { u16_at::<6, _>(head) } else { 0 };
                Message::Unreachable { code, mtu, quote: rest }
            }
            (11, _) => Message::TimeExceeded { code, quote: rest },
            (12, _) => Message::ParameterProblem { code, pointer: head[4], quote: rest },
            _ => Message::Other { kind, code },
        })
    }

    /// The packet that an error is about; `None` for other messages and for quotes that do not tell.
    pub fn quoted(&self) -> Option<Quoted> {
        match self {
            Message::Unreachable { quote, .. }
            | Message::TimeExceeded { quote, .. }
            | Message::ParameterProblem { quote, .. } => Quoted::parse_v4(quote).ok(),
            Message::EchoRequest(_) | Message::EchoReply(_) | Message::Other { .. } => None,
        }
    }

    /// Bytes on the wire; quotes count up to [`QUOTE_MAX`].
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        HEADER_LEN + self.body().len()
    }

    /// What follows the fixed part.
    fn body(&self) -> &'a [u8] {
        match *self {
            Message::EchoRequest(echo) | Message::EchoReply(echo) => echo.data,
            Message::Unreachable { quote, .. }
            | Message::TimeExceeded { quote, .. }
            | Message::ParameterProblem { quote, .. } => &quote[..quote.len().min(QUOTE_MAX)],
            Message::Other { .. } => &[],
        }
    }

    /// Writes the message with its checksum and returns its length. [`Message::Other`] is written as a bare header.
    ///
    /// # Panics
    /// When `into` is shorter than [`Message::len`].
    pub fn emit(&self, into: &mut [u8]) -> usize {
        let into = &mut into[..self.len()];
        let (kind, code, word) = match *self {
            Message::EchoRequest(Echo { id, seq, .. }) => (8, 0, u32::from(id) << 16 | u32::from(seq)),
            Message::EchoReply(Echo { id, seq, .. }) => (0, 0, u32::from(id) << 16 | u32::from(seq)),
            Message::Unreachable { code, mtu, .. } => (3, code, u32::from(mtu)),
            Message::TimeExceeded { code, .. } => (11, code, 0),
            Message::ParameterProblem { code, pointer, .. } => (12, code, u32::from(pointer) << 24),
            Message::Other { kind, code } => (kind, code, 0),
        };
        put(into, 0, &[kind, code, 0, 0]);
        put(into, 4, &word.to_be_bytes());
        put(into, HEADER_LEN, self.body());
        let sum = checksum(into);
        put(into, 2, &sum.to_be_bytes());
        into.len()
    }
}
