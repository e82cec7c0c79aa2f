//! The PROXY protocol, versions 1 and 2: what a proxy says about the connection that it relays, before that
//! connection's first byte.
//!
//! Read beside it: "The PROXY protocol, Versions 1 & 2" of 2020/03/05 (sections cited as PROXY §2.1). `v1` is the line of
//! text, `v2` the binary header, [`tlv`] what follows its addresses, [`ssl`] the one of these that nests.
//!
//! [`parse`] takes all the bytes that have come so far and is called again with more. Its answer depends on the header
//! alone: how the bytes were cut, and what follows the header, change nothing. It trusts nobody, but it cannot know who
//! may send a header: that is the caller's to decide (PROXY §5).

pub mod crc32c;
mod error;
pub mod ssl;
pub mod tlv;
mod v1;
mod v2;

use alloc::vec;
use alloc::vec::Vec;
use core::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

pub use error::{EmitError, ProxyError, Reason, Unparsed};
pub use ssl::{ClientFlags, Ssl, SslTlv, SslTlvs};
pub use tlv::{Tlv, TlvBuffer, Tlvs};

/// Bytes that every receiver takes in one segment (PROXY §2). A longer header may come to its receiver in pieces, which
/// some receivers do not stand.
pub const LEN_SAFE: usize = 536;

/// Bytes of the longest header that the format can say.
pub const LEN_MAX: usize = v2::FIXED_LEN + u16::MAX as usize;

/// Which format a header has, or is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text (PROXY §2.1).
    V1,
    /// Binary (PROXY §2.2).
    V2,
}

/// A header. Whatever its fields hold can be written as version 2; [`ProxyHeader::emit`] says what version 1 lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProxyHeader<'a> {
    /// The format.
    pub version: Version,
    /// On whose behalf the connection was made.
    pub command: Command,
    /// More about the connection; empty in version 1. A checksum among them was verified when the header was parsed, and is
    /// computed when it is emitted.
    pub tlvs: Tlvs<'a>,
}

/// On whose behalf a connection was made (PROXY §2.2, the 13th byte).
#[expect(
    clippy::large_enum_variant,
    reason = "one a connection, read and let go; a box would take an allocator"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// The proxy's own, as for a health check: its real endpoints are the ones that count. Version 2 only.
    Local,
    /// Relayed for somebody.
    Proxy(Addresses),
}

/// The ends of the connection that is relayed: `src` is the client's, `dst` the one that the client called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// The proxy cannot say: the real endpoints are to be used. `UNKNOWN` in version 1.
    Unspec,
    /// IPv4.
    Inet {
        /// TCP or UDP.
        transport: Transport,
        /// The client.
        src: SocketAddrV4,
        /// Whom it called.
        dst: SocketAddrV4,
    },
    /// IPv6. Flow label and scope are not in a header: read as 0, and not written.
    Inet6 {
        /// TCP or UDP.
        transport: Transport,
        /// The client.
        src: SocketAddrV6,
        /// Whom it called.
        dst: SocketAddrV6,
    },
    /// Unix sockets. Version 2 only.
    Unix {
        /// Of stream or of datagram type.
        transport: Transport,
        /// The client, most often unnamed.
        src: UnixAddress,
        /// Whom it called.
        dst: UnixAddress,
    },
}

/// The sort of socket that the relayed connection uses (PROXY §2.2, the low half of the 14th byte).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `SOCK_STREAM`, as TCP.
    Stream,
    /// `SOCK_DGRAM`, as UDP. Version 2 only.
    Datagram,
}

/// The address of a Unix socket as `sun_path` holds it: a path ends at its first zero byte, an abstract name begins with
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnixAddress(pub [u8; UnixAddress::LEN]);

impl UnixAddress {
    /// Bytes of it in a header, whatever the system's own `sun_path` has.
    pub const LEN: usize = 108;
    /// Of a socket without a name.
    pub const UNNAMED: UnixAddress = UnixAddress([0; UnixAddress::LEN]);

    /// The address with this path, or abstract name after its zero byte; `None` when it is too long.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<UnixAddress> {
        let mut address = UnixAddress::UNNAMED;
        address.0.get_mut(..name.len())?.copy_from_slice(name);
        Some(address)
    }

    /// The path; or the abstract name with its leading zero byte, less the zeros at its end; empty when there is none.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let len = match self.0[0] {
            0 => self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1),
            _ => self.0.iter().position(|byte| *byte == 0).unwrap_or(UnixAddress::LEN),
        };
        &self.0[..len]
    }
}

impl Addresses {
    /// Of a connection between IP endpoints.
    ///
    /// # Errors
    /// [`EmitError::MixedFamilies`] when one is IPv4 and the other IPv6: no header can say that.
    pub fn of(transport: Transport, src: SocketAddr, dst: SocketAddr) -> Result<Addresses, EmitError> {
        match (src, dst) {
            (SocketAddr::V4(src), SocketAddr::V4(dst)) => Ok(Addresses::Inet { transport, src, dst }),
            (SocketAddr::V6(src), SocketAddr::V6(dst)) => Ok(Addresses::Inet6 { transport, src, dst }),
            _ => Err(EmitError::MixedFamilies),
        }
    }

    /// Source and destination, when they are IP endpoints.
    #[must_use]
    pub fn endpoints(&self) -> Option<(SocketAddr, SocketAddr)> {
        match *self {
            Addresses::Inet { src, dst, .. } => Some((src.into(), dst.into())),
            Addresses::Inet6 { src, dst, .. } => Some((src.into(), dst.into())),
            Addresses::Unspec | Addresses::Unix { .. } => None,
        }
    }
}

/// Which headers are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseOptions {
    /// The versions.
    pub versions: Versions,
    len_max: usize,
}

/// The versions that a receiver takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// Either.
    Any,
    /// This one alone.
    Only(Version),
}

impl ParseOptions {
    /// Bytes of a header at most, when nothing else is said: room for a client's certificate, and no more memory than
    /// that for a sender who never ends.
    pub const LEN_MAX_DEFAULT: usize = 4096;

    /// Either version, up to [`LEN_MAX_DEFAULT`](Self::LEN_MAX_DEFAULT) bytes.
    pub const DEFAULT: ParseOptions =
        ParseOptions { versions: Versions::Any, len_max: ParseOptions::LEN_MAX_DEFAULT };

    /// With these versions.
    #[must_use]
    pub const fn with_versions(mut self, versions: Versions) -> ParseOptions {
        self.versions = versions;
        self
    }

    /// With headers of `len_max` bytes at most. Less than [`LEN_SAFE`] is taken for that: every receiver takes so much
    /// (PROXY §2).
    #[must_use]
    pub const fn with_len_max(mut self, len_max: usize) -> ParseOptions {
        self.len_max = if len_max < LEN_SAFE { LEN_SAFE } else { len_max };
        self
    }

    /// Bytes of a header at most. A buffer of so many is enough.
    #[must_use]
    pub const fn len_max(&self) -> usize {
        self.len_max
    }

    fn takes(&self, version: Version) -> bool {
        match self.versions {
            Versions::Any => true,
            Versions::Only(only) => only == version,
        }
    }
}

impl Default for ParseOptions {
    fn default() -> ParseOptions {
        ParseOptions::DEFAULT
    }
}

/// A header that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// What it says.
    pub header: ProxyHeader<'a>,
    /// Its bytes. What stands behind them belongs to the next layer.
    pub len: usize,
}

/// Reads the header at the front of `bytes`, which are all that have come so far.
///
/// What cannot become a header is refused at the byte that shows it: at once for the fixed parts, at its end for a
/// field of version 1, once the header is whole for the body of version 2.
///
/// # Errors
/// [`Unparsed::NeedMore`] when all is well so far: call again with these bytes and more. [`Unparsed::Invalid`] when no
/// more bytes can help.
pub fn parse<'a>(bytes: &'a [u8], options: &ParseOptions) -> Result<Parsed<'a>, Unparsed> {
    // The first byte tells the versions apart (PROXY §2.2, the end).
    let version = match bytes.first() {
        None => {
            let at_least = if options.takes(Version::V1) { v1::LEN_MIN } else { v2::FIXED_LEN };
            return Err(Unparsed::NeedMore { at_least });
        }
        Some(&v1::FIRST_BYTE) => Version::V1,
        Some(&v2::FIRST_BYTE) => Version::V2,
        Some(_) => return Err(ProxyError { reason: Reason::NoHeader, at: 0 }.into()),
    };
    if !options.takes(version) {
        return Err(ProxyError { reason: Reason::OtherVersion, at: 0 }.into());
    }
    match version {
        Version::V1 => v1::parse(bytes),
        Version::V2 => v2::parse(bytes, options.len_max),
    }
}

impl<'a> ProxyHeader<'a> {
    /// The proxy's own connection: nothing but the command, in version 2.
    pub const LOCAL: ProxyHeader<'static> =
        ProxyHeader { version: Version::V2, command: Command::Local, tlvs: Tlvs::EMPTY };

    /// A relayed connection's, without TLVs.
    #[must_use]
    pub const fn proxy(version: Version, addresses: Addresses) -> ProxyHeader<'static> {
        ProxyHeader { version, command: Command::Proxy(addresses), tlvs: Tlvs::EMPTY }
    }

    /// The same with these TLVs.
    #[must_use]
    pub const fn with_tlvs<'b>(self, tlvs: Tlvs<'b>) -> ProxyHeader<'b> {
        ProxyHeader { version: self.version, command: self.command, tlvs }
    }

    /// The ends of the relayed connection; `None` when the real endpoints are to be used instead.
    #[must_use]
    pub fn addresses(&self) -> Option<Addresses> {
        match self.command {
            Command::Local | Command::Proxy(Addresses::Unspec) => None,
            Command::Proxy(addresses) => Some(addresses),
        }
    }

    /// Writes the header to the front of `into` and returns its bytes. It is to be sent at once (PROXY §2).
    ///
    /// A [`Tlv::Crc32c`] among the TLVs is written with the checksum of this header, whatever value it has.
    ///
    /// # Errors
    /// See [`EmitError`]: it cannot be said in version 1, it is longer than a header may be, `into` has no room.
    pub fn emit(&self, into: &mut [u8]) -> Result<usize, EmitError> {
        match self.version {
            Version::V1 => {
                let line = v1::Line::of(self)?;
                let line = line.as_bytes();
                let needed = line.len();
                into.get_mut(..needed).ok_or(EmitError::NoRoom { needed })?.copy_from_slice(line);
                Ok(needed)
            }
            Version::V2 => v2::emit(self, into),
        }
    }

    /// Bytes that [`emit`](Self::emit) writes.
    ///
    /// # Errors
    /// Those of `emit`.
    pub fn emit_len(&self) -> Result<usize, EmitError> {
        match self.version {
            Version::V1 => Ok(v1::Line::of(self)?.as_bytes().len()),
            Version::V2 => v2::emit_len(self),
        }
    }

    /// The header in a vector of its own.
    ///
    /// # Errors
    /// Those of [`emit`](Self::emit), but for the room.
    pub fn to_vec(&self) -> Result<Vec<u8>, EmitError> {
        let mut bytes = vec![0; self.emit_len()?];
        self.emit(&mut bytes)?;
        Ok(bytes)
    }
}
