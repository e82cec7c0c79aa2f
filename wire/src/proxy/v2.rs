//! Version 2: binary (PROXY §2.2).

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use super::error::{EmitError, ProxyError, Reason, Unparsed};
use super::{Addresses, Command, Parsed, ProxyHeader, Tlvs, Transport, UnixAddress, Version, crc32c};
use crate::bytes::put;

/// How it begins. No other version begins with the first byte.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
pub(super) const FIRST_BYTE: u8 = SIGNATURE[0];

/// Bytes before the addresses: the signature and the fields below.
pub(super) const FIXED_LEN: usize = 16;

// Where the fields stand.
const VERSION_COMMAND_AT: usize = 12;
const FAMILY_AT: usize = 13;
const LEN_AT: usize = 14;

const VERSION: u8 = 2;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;

/// What the high half of the 14th byte says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Unspec,
    Inet,
    Inet6,
    Unix,
}

impl Family {
    const fn of(byte: u8) -> Option<Family> {
        match byte >> 4 {
            0 => Some(Family::Unspec),
            1 => Some(Family::Inet),
            2 => Some(Family::Inet6),
            3 => Some(Family::Unix),
            _ => None,
        }
    }

    /// Bytes of its addresses.
    const fn len(self) -> usize {
        match self {
            Family::Unspec => 0,
            Family::Inet => 12,
            Family::Inet6 => 36,
            Family::Unix => 2 * UnixAddress::LEN,
        }
    }
}

/// What the fixed part says about the rest.
#[derive(Clone, Copy)]
enum Body {
    /// The command is LOCAL: ignored.
    Local(Option<Family>),
    /// Family or transport is UNSPEC: ignored.
    Unspec(Family),
    /// Addresses, then TLVs.
    Addresses(Family, Transport),
}

/// Reads a header, of whose bytes the first was looked at.
pub(super) fn parse(bytes: &[u8], len_max: usize) -> Result<Parsed<'_>, Unparsed> {
    let (body, len) = fixed_part(bytes, len_max)?;
    let Some(header) = bytes.get(..len) else {
        return Err(Unparsed::NeedMore { at_least: len - bytes.len() });
    };
    let (command, (tlvs_at, tlvs)) = match body {
        Body::Local(family) => (Command::Local, ignored(header, family)),
        Body::Unspec(family) => (Command::Proxy(Addresses::Unspec), ignored(header, Some(family))),
        Body::Addresses(family, transport) => {
            let at = FIXED_LEN + family.len();
            let addresses = addresses(family, transport, &header[FIXED_LEN..at]);
            let tlvs = Tlvs::parse(&header[at..])
                .map_err(|error| ProxyError { reason: error.reason, at: at + error.at })?;
            (Command::Proxy(addresses), (at, tlvs))
        }
    };
    if let Some(at) = tlvs.checksum_at() {
        let at = tlvs_at + at;
        // Cannot fail: a checksum in the list has four bytes.
        if header[at..at + 4] != crc32c::of_header(header, at).to_be_bytes() {
            // PROXY §2.2.3: "the receiver MUST treat the TCP connection providing the header as invalid".
            return Err(ProxyError { reason: Reason::BadChecksum, at }.into());
        }
    }
    Ok(Parsed { header: ProxyHeader { version: Version::V2, command, tlvs }, len })
}

/// What the sender put there is its own affair, as long as it is skipped. Yet senders put TLVs behind a LOCAL or UNSPEC
/// too: what reads as TLVs to the last byte, behind such addresses as the family has, is taken as such. Returns where.
fn ignored(header: &[u8], family: Option<Family>) -> (usize, Tlvs<'_>) {
    let at = family.map_or(header.len(), |family| FIXED_LEN + family.len());
    (at, header.get(at..).and_then(|list| Tlvs::parse(list).ok()).unwrap_or_default())
}

/// What is to come, and the length of it all. Each byte is judged when it is there.
fn fixed_part(bytes: &[u8], len_max: usize) -> Result<(Body, usize), Unparsed> {
    let error = |reason, at| Unparsed::from(ProxyError { reason, at });
    let byte = |at: usize| {
        let at_least = FIXED_LEN.saturating_sub(bytes.len());
        bytes.get(at).copied().ok_or(Unparsed::NeedMore { at_least })
    };
    for (at, want) in SIGNATURE.into_iter().enumerate() {
        if byte(at)? != want {
            return Err(error(Reason::NoHeader, at));
        }
    }
    let version_command = byte(VERSION_COMMAND_AT)?;
    if version_command >> 4 != VERSION {
        return Err(error(Reason::BadVersion, VERSION_COMMAND_AT));
    }
    let is_local = match version_command & 0xf {
        LOCAL => true,
        PROXY => false,
        // "Receivers must drop connections presenting unexpected values here."
        _ => return Err(error(Reason::BadCommand, VERSION_COMMAND_AT)),
    };
    let family_transport = byte(FAMILY_AT)?;
    let family = Family::of(family_transport);
    let body = if is_local {
        // "Discard the protocol block including the family which is ignored."
        Body::Local(family)
    } else {
        // "Other values ... must be rejected as invalid by receivers."
        let family = family.ok_or(error(Reason::BadFamily, FAMILY_AT))?;
        let transport = match family_transport & 0xf {
            0 => None,
            1 => Some(Transport::Stream),
            2 => Some(Transport::Datagram),
            _ => return Err(error(Reason::BadTransport, FAMILY_AT)),
        };
        match (family, transport) {
            // "The receiver should ignore address information."
            (Family::Unspec, _) | (_, None) => Body::Unspec(family),
            (family, Some(transport)) => Body::Addresses(family, transport),
        }
    };
    let high = byte(LEN_AT)?;
    if FIXED_LEN + usize::from(u16::from_be_bytes([high, 0])) > len_max {
        return Err(error(Reason::TooLong, LEN_AT));
    }
    let body_len = usize::from(u16::from_be_bytes([high, byte(LEN_AT + 1)?]));
    if FIXED_LEN + body_len > len_max {
        return Err(error(Reason::TooLong, LEN_AT));
    }
    if matches!(body, Body::Addresses(family, _) if body_len < family.len()) {
        return Err(error(Reason::AddressesTruncated, LEN_AT));
    }
    Ok((body, FIXED_LEN + body_len))
}

/// Both addresses, then both ports. `bytes` has as many as the family needs.
fn addresses(family: Family, transport: Transport, bytes: &[u8]) -> Addresses {
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    match family {
        Family::Unspec => Addresses::Unspec,
        Family::Inet => Addresses::Inet {
            transport,
            src: SocketAddrV4::new(Ipv4Addr::from(array(bytes, 0)), port(8)),
            dst: SocketAddrV4::new(Ipv4Addr::from(array(bytes, 4)), port(10)),
        },
        Family::Inet6 => Addresses::Inet6 {
            transport,
            src: SocketAddrV6::new(Ipv6Addr::from(array::<16>(bytes, 0)), port(32), 0, 0),
            dst: SocketAddrV6::new(Ipv6Addr::from(array::<16>(bytes, 16)), port(34), 0, 0),
        },
        Family::Unix => Addresses::Unix {
            transport,
            src: UnixAddress(array(bytes, 0)),
            dst: UnixAddress(array(bytes, UnixAddress::LEN)),
        },
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// Family and transport as a header has them.
const fn family_of(command: &Command) -> (Family, u8) {
    let (family, transport) = match command {
        // "It should not present any address", and the family is UNSPEC.
        Command::Local | Command::Proxy(Addresses::Unspec) => return (Family::Unspec, 0),
        Command::Proxy(Addresses::Inet { transport, .. }) => (Family::Inet, transport),
        Command::Proxy(Addresses::Inet6 { transport, .. }) => (Family::Inet6, transport),
        Command::Proxy(Addresses::Unix { transport, .. }) => (Family::Unix, transport),
    };
    match transport {
        Transport::Stream => (family, 1),
        Transport::Datagram => (family, 2),
    }
}

/// Bytes of the header when it is written.
pub(super) fn emit_len(header: &ProxyHeader<'_>) -> Result<usize, EmitError> {
    let body_len = family_of(&header.command).0.len() + header.tlvs.as_bytes().len();
    let body_len = u16::try_from(body_len).map_err(|_| EmitError::TooLong)?;
    Ok(FIXED_LEN + usize::from(body_len))
}

/// Writes the header to the front of `into`.
pub(super) fn emit(header: &ProxyHeader<'_>, into: &mut [u8]) -> Result<usize, EmitError> {
    let needed = emit_len(header)?;
    let into = into.get_mut(..needed).ok_or(EmitError::NoRoom { needed })?;
    let command = match header.command {
        Command::Local => LOCAL,
        Command::Proxy(_) => PROXY,
    };
    let (family, transport) = family_of(&header.command);
    // Cannot cut: `emit_len` made it of a `u16`.
    let body_len = (needed - FIXED_LEN) as u16;
    let mut at = put(into, 0, &SIGNATURE);
    at = put(into, at, &[VERSION << 4 | command, (family as u8) << 4 | transport]);
    at = put(into, at, &body_len.to_be_bytes());
    at = match header.command {
        Command::Local | Command::Proxy(Addresses::Unspec) => at,
        Command::Proxy(Addresses::Inet { src, dst, .. }) => {
            at = put(into, at, &src.ip().octets());
            at = put(into, at, &dst.ip().octets());
            at = put(into, at, &src.port().to_be_bytes());
            put(into, at, &dst.port().to_be_bytes())
        }
        Command::Proxy(Addresses::Inet6 { src, dst, .. }) => {
            at = put(into, at, &src.ip().octets());
            at = put(into, at, &dst.ip().octets());
            at = put(into, at, &src.port().to_be_bytes());
            put(into, at, &dst.port().to_be_bytes())
        }
        Command::Proxy(Addresses::Unix { src, dst, .. }) => {
            at = put(into, at, &src.0);
            put(into, at, &dst.0)
        }
    };
    put(into, at, header.tlvs.as_bytes());
    if let Some(field) = header.tlvs.checksum_at() {
        let checksum = crc32c::of_header(into, at + field);
        put(into, at + field, &checksum.to_be_bytes());
    }
    Ok(needed)
}
