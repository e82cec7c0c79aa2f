//! What follows the addresses of a version 2 header: a list of type, length and value (PROXY §2.2, its end).

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::error::{EmitError, ProxyError, Reason};
use super::ssl::{Ssl, SslTlv};

/// Types that have a meaning (PROXY §2.2).
pub mod kind {
    /// [`Tlv::Alpn`](super::Tlv::Alpn).
    pub const ALPN: u8 = 0x01;
    /// [`Tlv::Authority`](super::Tlv::Authority).
    pub const AUTHORITY: u8 = 0x02;
    /// [`Tlv::Crc32c`](super::Tlv::Crc32c).
    pub const CRC32C: u8 = 0x03;
    /// [`Tlv::Noop`](super::Tlv::Noop).
    pub const NOOP: u8 = 0x04;
    /// [`Tlv::UniqueId`](super::Tlv::UniqueId).
    pub const UNIQUE_ID: u8 = 0x05;
    /// [`Tlv::Ssl`](super::Tlv::Ssl).
    pub const SSL: u8 = 0x20;
    /// [`Tlv::Netns`](super::Tlv::Netns).
    pub const NETNS: u8 = 0x30;
}

/// Types for an application's own data (PROXY §2.2.8).
pub const CUSTOM: RangeInclusive<u8> = 0xe0..=0xef;
/// Types for experiments (PROXY §2.2.8).
pub const EXPERIMENTAL: RangeInclusive<u8> = 0xf0..=0xf7;
/// Types that are reserved (PROXY §2.2.8).
pub const RESERVED: RangeInclusive<u8> = 0xf8..=0xff;

/// Bytes of a unique ID at most (PROXY §2.2.5).
pub const UNIQUE_ID_LEN_MAX: usize = 128;

/// Bytes of type and length.
const HEAD_LEN: usize = 3;

/// One of them. Values are bytes, of any value, also where the specification speaks of text: a zero byte or broken UTF-8
/// is passed on as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tlv<'a> {
    /// The protocol spoken on the connection, as in TLS's ALPN (`h2`).
    Alpn(&'a [u8]),
    /// The host name that the client asked for, in UTF-8; TLS's server name.
    Authority(&'a [u8]),
    /// The checksum of the header. Verified when it was parsed, computed when it is emitted.
    Crc32c(u32),
    /// Padding.
    Noop(&'a [u8]),
    /// Names the connection along a chain of proxies; [`UNIQUE_ID_LEN_MAX`] bytes at most.
    UniqueId(&'a [u8]),
    /// The client's TLS.
    Ssl(Ssl<'a>),
    /// The name of the network namespace, in ASCII.
    Netns(&'a [u8]),
    /// Any other type, those of [`CUSTOM`] among them.
    Other {
        /// The type: none of [`mod@kind`].
        kind: u8,
        /// The value.
        value: &'a [u8],
    },
}

impl<'a> Tlv<'a> {
    fn of(kind: u8, value: &'a [u8]) -> Result<Tlv<'a>, Reason> {
        Ok(match kind {
            kind::ALPN => Tlv::Alpn(value),
            kind::AUTHORITY => Tlv::Authority(value),
            kind::CRC32C => {
                let value = value.try_into().map_err(|_| Reason::BadTlvLength)?;
                Tlv::Crc32c(u32::from_be_bytes(value))
            }
            kind::NOOP => Tlv::Noop(value),
            // PROXY §2.2.5: up to 128 bytes.
            kind::UNIQUE_ID if value.len() > UNIQUE_ID_LEN_MAX => return Err(Reason::BadTlvLength),
            kind::UNIQUE_ID => Tlv::UniqueId(value),
            kind::SSL => Tlv::Ssl(Ssl::parse(value)?),
            kind::NETNS => Tlv::Netns(value),
            _ => Tlv::Other { kind, value },
        })
    }

    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Tlv::Alpn(_) => kind::ALPN,
            Tlv::Authority(_) => kind::AUTHORITY,
            Tlv::Crc32c(_) => kind::CRC32C,
            Tlv::Noop(_) => kind::NOOP,
            Tlv::UniqueId(_) => kind::UNIQUE_ID,
            Tlv::Ssl(_) => kind::SSL,
            Tlv::Netns(_) => kind::NETNS,
            Tlv::Other { kind, .. } => *kind,
        }
    }
}

/// Takes the first type and value off `list`; `None` when it is empty or cut.
pub(super) fn split_first<'a>(list: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[kind, high, low], rest) = list.split_first_chunk::<HEAD_LEN>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    *list = rest;
    Some((kind, value))
}

/// Appends one to `list`.
pub(super) fn append(list: &mut Vec<u8>, kind: u8, value: &[&[u8]]) -> Result<(), EmitError> {
    let len = value.iter().map(|piece| piece.len()).sum::<usize>();
    let len = u16::try_from(len).map_err(|_| EmitError::TooLong)?;
    list.push(kind);
    list.extend_from_slice(&len.to_be_bytes());
    for piece in value {
        list.extend_from_slice(piece);
    }
    Ok(())
}

/// A list of them, known to be well formed; an iterator over it borrows from the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tlvs<'a> {
    bytes: &'a [u8],
}

impl<'a> Tlvs<'a> {
    /// None.
    pub const EMPTY: Tlvs<'static> = Tlvs { bytes: &[] };

    /// Reads a list that fills `bytes`. A checksum in it is not verified: that takes the whole header.
    ///
    /// # Errors
    /// [`Reason::TlvTruncated`], [`Reason::BadTlvLength`], [`Reason::RepeatedChecksum`], at the TLV's first byte.
    pub fn parse(bytes: &'a [u8]) -> Result<Tlvs<'a>, ProxyError> {
        let mut has_checksum = false;
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            let (kind, value) =
                split_first(&mut rest).ok_or(ProxyError { reason: Reason::TlvTruncated, at })?;
            let tlv = Tlv::of(kind, value).map_err(|reason| ProxyError { reason, at })?;
            if matches!(tlv, Tlv::Crc32c(_)) {
                // The specification does not say what a second one would be the checksum of.
                if has_checksum {
                    return Err(ProxyError { reason: Reason::RepeatedChecksum, at });
                }
                has_checksum = true;
            }
        }
        Ok(Tlvs { bytes })
    }

    /// One after the other, as they stand.
    #[must_use]
    pub const fn iter(&self) -> Iter<'a> {
        Iter { rest: self.bytes }
    }

    /// As they are on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Where the four bytes of the checksum stand in the list, if it has one.
    pub(super) fn checksum_at(&self) -> Option<usize> {
        let mut rest = self.bytes;
        loop {
            let at = self.bytes.len() - rest.len() + HEAD_LEN;
            let (kind, _) = split_first(&mut rest)?;
            if kind == kind::CRC32C {
                return Some(at);
            }
        }
    }
}

impl<'a> IntoIterator for Tlvs<'a> {
    type Item = Tlv<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Walks [`Tlvs`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        let (kind, value) = split_first(&mut self.rest)?;
        // Cannot fail before the end: the list was read when it was made.
        Tlv::of(kind, value).ok()
    }
}

impl core::iter::FusedIterator for Iter<'_> {}

/// A list that is being made, for a header that is to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlvBuffer {
    bytes: Vec<u8>,
}

impl TlvBuffer {
    /// Empty.
    #[must_use]
    pub const fn new() -> TlvBuffer {
        TlvBuffer { bytes: Vec::new() }
    }

    /// Appends one. The value of a [`Tlv::Crc32c`] does not matter.
    ///
    /// # Errors
    /// [`EmitError::TooLong`], [`EmitError::BadTlvLength`], [`EmitError::NotOther`], [`EmitError::RepeatedChecksum`];
    /// then nothing was appended.
    pub fn push(&mut self, tlv: Tlv<'_>) -> Result<(), EmitError> {
        match tlv {
            Tlv::Crc32c(value) => {
                if self.as_tlvs().checksum_at().is_some() {
                    return Err(EmitError::RepeatedChecksum);
                }
                self.append(kind::CRC32C, &[&value.to_be_bytes()])
            }
            Tlv::UniqueId(value) if value.len() > UNIQUE_ID_LEN_MAX => Err(EmitError::BadTlvLength),
            Tlv::Ssl(ssl) => {
                self.append(kind::SSL, &[&[ssl.client.0], &ssl.verify.to_be_bytes(), ssl.tlvs.as_bytes()])
            }
            Tlv::Other { kind, value } => match Tlv::of(kind, value) {
                Ok(Tlv::Other { .. }) => self.append(kind, &[value]),
                _ => Err(EmitError::NotOther { kind }),
            },
            Tlv::Alpn(value)
            | Tlv::Authority(value)
            | Tlv::Noop(value)
            | Tlv::UniqueId(value)
            | Tlv::Netns(value) => self.append(tlv.kind(), &[value]),
        }
    }

    /// Appends a [`Tlv::Ssl`] made of its parts; `verify` is 0 when a client's certificate was verified.
    ///
    /// # Errors
    /// [`EmitError::TooLong`], [`EmitError::NotOther`]; then nothing was appended.
    pub fn push_ssl<'b>(
        &mut self,
        client: super::ClientFlags,
        verify: u32,
        parts: impl IntoIterator<Item = SslTlv<'b>>,
    ) -> Result<(), EmitError> {
        let mut list = Vec::new();
        for part in parts {
            part.append(&mut list)?;
        }
        self.append(kind::SSL, &[&[client.0], &verify.to_be_bytes(), &list])
    }

    /// The list so far.
    #[must_use]
    pub fn as_tlvs(&self) -> Tlvs<'_> {
        Tlvs { bytes: &self.bytes }
    }

    fn append(&mut self, kind: u8, value: &[&[u8]]) -> Result<(), EmitError> {
        append(&mut self.bytes, kind, value)
    }
}
