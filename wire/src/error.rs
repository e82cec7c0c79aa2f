//! What can be wrong with received bytes: one small enum for every parser of this crate.

use core::fmt;

/// Why bytes were not understood. The packet is the peer's or the network's fault: the caller drops and counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParseError {
    /// Fewer bytes than the header, or a length field in it, calls for.
    Truncated,
    /// The IP version is not the one expected.
    BadVersion,
    /// A length field contradicts the header it is in.
    BadLength,
    /// The checksum does not match.
    BadChecksum,
    /// An option has an illegal length, or runs past the end of its list.
    BadOption,
    /// A field holds a value that its RFC forbids.
    BadField,
    /// Well formed, but of a kind this stack does not take (an address family, a live routing header).
    Unsupported,
}

impl ParseError {
    /// All of them, for tables of counters.
    pub const ALL: [ParseError; 7] = [
        ParseError::Truncated,
        ParseError::BadVersion,
        ParseError::BadLength,
        ParseError::BadChecksum,
        ParseError::BadOption,
        ParseError::BadField,
        ParseError::Unsupported,
    ];

    /// A stable name, for counters and the CLI.
    pub const fn name(self) -> &'static str {
        match self {
            ParseError::Truncated => "truncated",
            ParseError::BadVersion => "bad-version",
            ParseError::BadLength => "bad-length",
            ParseError::BadChecksum => "bad-checksum",
            ParseError::BadOption => "bad-option",
            ParseError::BadField => "bad-field",
            ParseError::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParseError::Truncated => "fewer bytes than the header calls for",
            ParseError::BadVersion => "not the IP version expected",
            ParseError::BadLength => "a length field contradicts its header",
            ParseError::BadChecksum => "the checksum does not match",
            ParseError::BadOption => "an option has an illegal length",
            ParseError::BadField => "a field holds a forbidden value",
            ParseError::Unsupported => "of a kind this stack does not take",
        })
    }
}

impl core::error::Error for ParseError {}
