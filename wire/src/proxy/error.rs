//! Why a header was not read, and why one cannot be written.

use core::fmt;

/// Why [`parse`](super::parse) has no header yet, or never will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// All is well so far, but the header goes on.
    NeedMore {
        /// So many bytes are missing at least: 1 or more, and never one that is beyond the header.
        at_least: usize,
    },
    /// This is no header: the connection is to be aborted, soon (PROXY §2.1).
    Invalid(ProxyError),
}

impl From<ProxyError> for Unparsed {
    fn from(error: ProxyError) -> Unparsed {
        Unparsed::Invalid(error)
    }
}

/// What is wrong with received bytes, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProxyError {
    /// What.
    pub reason: Reason,
    /// Where: an offset from the header's first byte (of the TLVs' first, from [`Tlvs::parse`](super::Tlvs::parse)).
    pub at: usize,
}

/// What can be wrong with received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The bytes begin as no header does: the sender speaks another protocol.
    NoHeader,
    /// The first byte is that of the version that is not taken here.
    OtherVersion,
    /// Version 1: neither `TCP4` nor `TCP6` nor `UNKNOWN`.
    BadProtocol,
    /// Version 1: a byte that cannot stand there: a second space, a line that does not end with CR and LF.
    UnexpectedByte,
    /// Version 1: no address of the announced family.
    BadAddress,
    /// Version 1: no port, or one with leading zeros.
    BadPort,
    /// Version 1: no CR and LF within 107 bytes.
    LineTooLong,
    /// Version 2: the binary signature, but another version.
    BadVersion,
    /// Version 2: neither LOCAL nor PROXY.
    BadCommand,
    /// Version 2: an address family that is not assigned.
    BadFamily,
    /// Version 2: a transport protocol that is not assigned.
    BadTransport,
    /// Version 2: longer than the receiver allows.
    TooLong,
    /// Version 2: the length has no room for the addresses.
    AddressesTruncated,
    /// Version 2: a TLV runs past the end of what holds it.
    TlvTruncated,
    /// Version 2: a TLV of a length that its type does not have.
    BadTlvLength,
    /// Version 2: a second checksum.
    RepeatedChecksum,
    /// Version 2: the checksum is not that of the header.
    BadChecksum,
}

impl Reason {
    /// All of them, for tables of counters.
    pub const ALL: [Reason; 17] = [
        Reason::NoHeader,
        Reason::OtherVersion,
        Reason::BadProtocol,
        Reason::UnexpectedByte,
        Reason::BadAddress,
        Reason::BadPort,
        Reason::LineTooLong,
        Reason::BadVersion,
        Reason::BadCommand,
        Reason::BadFamily,
        Reason::BadTransport,
        Reason::TooLong,
        Reason::AddressesTruncated,
        Reason::TlvTruncated,
        Reason::BadTlvLength,
        Reason::RepeatedChecksum,
        Reason::BadChecksum,
    ];

    /// A stable name, for counters and the CLI.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Reason::NoHeader => "no-header",
            Reason::OtherVersion => "other-version",
            Reason::BadProtocol => "bad-protocol",
            Reason::UnexpectedByte => "unexpected-byte",
            Reason::BadAddress => "bad-address",
            Reason::BadPort => "bad-port",
            Reason::LineTooLong => "line-too-long",
            Reason::BadVersion => "bad-version",
            Reason::BadCommand => "bad-command",
            Reason::BadFamily => "bad-family",
            Reason::BadTransport => "bad-transport",
            Reason::TooLong => "too-long",
            Reason::AddressesTruncated => "addresses-truncated",
            Reason::TlvTruncated => "tlv-truncated",
            Reason::BadTlvLength => "bad-tlv-length",
            Reason::RepeatedChecksum => "repeated-checksum",
            Reason::BadChecksum => "bad-checksum",
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.reason {
            Reason::NoHeader => "not how a header begins",
            Reason::OtherVersion => "it begins as the version does that is not taken here",
            Reason::BadProtocol => "neither TCP4 nor TCP6 nor UNKNOWN",
            Reason::UnexpectedByte => "a byte that cannot stand there",
            Reason::BadAddress => "no address of the announced family",
            Reason::BadPort => "no port from 0 to 65535 without leading zeros",
            Reason::LineTooLong => "the line has no CR and LF within its limit",
            Reason::BadVersion => "a binary header of a version other than 2",
            Reason::BadCommand => "a command other than LOCAL and PROXY",
            Reason::BadFamily => "an address family that is not assigned",
            Reason::BadTransport => "a transport protocol that is not assigned",
            Reason::TooLong => "longer than is allowed here",
            Reason::AddressesTruncated => "a length without room for the addresses",
            Reason::TlvTruncated => "a TLV that runs past the end",
            Reason::BadTlvLength => "a TLV of a length that its type does not have",
            Reason::RepeatedChecksum => "a second checksum",
            Reason::BadChecksum => "a checksum that is not that of the header",
        };
        write!(f, "no PROXY header: {what}, at byte {}", self.at)
    }
}

impl core::error::Error for ProxyError {}

/// Why a header, or a TLV, cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EmitError {
    /// One address is IPv4 and the other IPv6: send [`Addresses::Unspec`](super::Addresses::Unspec), or map one.
    MixedFamilies,
    /// Version 1 has TCP over IPv4, TCP over IPv6, and UNKNOWN, and no TLVs: send version 2, or
    /// [`Addresses::Unspec`](super::Addresses::Unspec) without TLVs.
    NotInVersion1,
    /// Longer than a length field can say: leave out TLVs.
    TooLong,
    /// The buffer is too short: bring one of `needed` bytes.
    NoRoom {
        /// Bytes of the header.
        needed: usize,
    },
    /// The value has a length that the TLV's type does not have: a unique ID of more than 128 bytes.
    BadTlvLength,
    /// The type of an `Other` TLV is one that has its own variant: use that.
    NotOther {
        /// The type.
        kind: u8,
    },
    /// There is a checksum already.
    RepeatedChecksum,
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EmitError::MixedFamilies => f.write_str("a PROXY header cannot hold addresses of two families"),
            EmitError::NotInVersion1 => f.write_str("version 1 of the PROXY header cannot say this"),
            EmitError::TooLong => f.write_str("longer than a PROXY header can be"),
            EmitError::NoRoom { needed } => write!(f, "the PROXY header needs a buffer of {needed} bytes"),
            EmitError::BadTlvLength => f.write_str("a TLV of a length that its type does not have"),
            EmitError::NotOther { kind } => write!(f, "TLV type {kind:#04x} has a variant of its own"),
            EmitError::RepeatedChecksum => f.write_str("a second checksum"),
        }
    }
}

impl core::error::Error for EmitError {}
