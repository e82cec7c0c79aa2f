//! What a proxy says about its client's TLS: flags, the verdict on the certificate, and a list of TLVs inside the TLV
//! (PROXY §2.2.6).

use alloc::vec::Vec;

use super::error::{EmitError, Reason};
use super::tlv;

/// Types inside of it (PROXY §2.2).
pub mod kind {
    /// [`SslTlv::Version`](super::SslTlv::Version).
    pub const VERSION: u8 = 0x21;
    /// [`SslTlv::CommonName`](super::SslTlv::CommonName).
    pub const COMMON_NAME: u8 = 0x22;
    /// [`SslTlv::Cipher`](super::SslTlv::Cipher).
    pub const CIPHER: u8 = 0x23;
    /// [`SslTlv::SignatureAlgorithm`](super::SslTlv::SignatureAlgorithm).
    pub const SIGNATURE_ALGORITHM: u8 = 0x24;
    /// [`SslTlv::KeyAlgorithm`](super::SslTlv::KeyAlgorithm).
    pub const KEY_ALGORITHM: u8 = 0x25;
    /// [`SslTlv::Group`](super::SslTlv::Group).
    pub const GROUP: u8 = 0x26;
    /// [`SslTlv::SignatureScheme`](super::SslTlv::SignatureScheme).
    pub const SIGNATURE_SCHEME: u8 = 0x27;
    /// [`SslTlv::ClientCertificate`](super::SslTlv::ClientCertificate).
    pub const CLIENT_CERTIFICATE: u8 = 0x28;
}

/// Which elements there are: bits of `client`. Bits without a name are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientFlags(pub u8);

impl ClientFlags {
    /// The client came over TLS.
    pub const SSL: ClientFlags = ClientFlags(0x01);
    /// It gave a certificate on this connection.
    pub const CERT_CONN: ClientFlags = ClientFlags(0x02);
    /// It gave one at least once in the TLS session.
    pub const CERT_SESS: ClientFlags = ClientFlags(0x04);

    /// Whether all bits of `flags` are set.
    #[must_use]
    pub const fn has(self, flags: ClientFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, flags: ClientFlags) -> ClientFlags {
        ClientFlags(self.0 | flags.0)
    }
}

/// The client's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ssl<'a> {
    /// Which elements there are.
    pub client: ClientFlags,
    /// 0 when the client gave a certificate and that was verified.
    pub verify: u32,
    /// More about it.
    pub tlvs: SslTlvs<'a>,
}

impl<'a> Ssl<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Result<Ssl<'a>, Reason> {
        let (&[client, v0, v1, v2, v3], list) = value.split_first_chunk().ok_or(Reason::BadTlvLength)?;
        let mut rest = list;
        while !rest.is_empty() {
            tlv::split_first(&mut rest).ok_or(Reason::TlvTruncated)?;
        }
        let verify = u32::from_be_bytes([v0, v1, v2, v3]);
        Ok(Ssl { client: ClientFlags(client), verify, tlvs: SslTlvs { bytes: list } })
    }

    /// Whether the client gave a certificate, now or earlier in its session, that was verified. A zero `verify` alone
    /// does not say so: senders also write it where no certificate was asked for.
    #[must_use]
    pub fn has_verified_certificate(&self) -> bool {
        self.verify == 0 && self.client.0 & (ClientFlags::CERT_CONN.0 | ClientFlags::CERT_SESS.0) != 0
    }
}

/// One element. Names are ASCII or UTF-8 by the specification, and not verified to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SslTlv<'a> {
    /// The version of TLS (`TLSv1.3`).
    Version(&'a [u8]),
    /// The common name in the client's certificate.
    CommonName(&'a [u8]),
    /// The cipher suite.
    Cipher(&'a [u8]),
    /// What the proxy's certificate was signed with (`RSA-SHA256`).
    SignatureAlgorithm(&'a [u8]),
    /// The key of the proxy's certificate (`RSA2048`).
    KeyAlgorithm(&'a [u8]),
    /// The key exchange (`secp256r1`).
    Group(&'a [u8]),
    /// What the proxy signed the handshake with (`rsa_pss_rsae_sha256`).
    SignatureScheme(&'a [u8]),
    /// The client's certificate, X.509 in DER.
    ClientCertificate(&'a [u8]),
    /// Any other type.
    Other {
        /// The type: none of [`mod@kind`].
        kind: u8,
        /// The value.
        value: &'a [u8],
    },
}

impl<'a> SslTlv<'a> {
    const fn of(kind: u8, value: &'a [u8]) -> SslTlv<'a> {
        match kind {
            kind::VERSION => SslTlv::Version(value),
            kind::COMMON_NAME => SslTlv::CommonName(value),
            kind::CIPHER => SslTlv::Cipher(value),
            kind::SIGNATURE_ALGORITHM => SslTlv::SignatureAlgorithm(value),
            kind::KEY_ALGORITHM => SslTlv::KeyAlgorithm(value),
            kind::GROUP => SslTlv::Group(value),
            kind::SIGNATURE_SCHEME => SslTlv::SignatureScheme(value),
            kind::CLIENT_CERTIFICATE => SslTlv::ClientCertificate(value),
            _ => SslTlv::Other { kind, value },
        }
    }

    pub(super) fn append(&self, list: &mut Vec<u8>) -> Result<(), EmitError> {
        let (kind, value) = match *self {
            SslTlv::Version(value) => (kind::VERSION, value),
            SslTlv::CommonName(value) => (kind::COMMON_NAME, value),
            SslTlv::Cipher(value) => (kind::CIPHER, value),
            SslTlv::SignatureAlgorithm(value) => (kind::SIGNATURE_ALGORITHM, value),
            SslTlv::KeyAlgorithm(value) => (kind::KEY_ALGORITHM, value),
            SslTlv::Group(value) => (kind::GROUP, value),
            SslTlv::SignatureScheme(value) => (kind::SIGNATURE_SCHEME, value),
            SslTlv::ClientCertificate(value) => (kind::CLIENT_CERTIFICATE, value),
            SslTlv::Other { kind, value } => match SslTlv::of(kind, value) {
                SslTlv::Other { .. } => (kind, value),
                _ => return Err(EmitError::NotOther { kind }),
            },
        };
        tlv::append(list, kind, &[value])
    }
}

/// The list inside of it, known to be well formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SslTlvs<'a> {
    bytes: &'a [u8],
}

impl<'a> SslTlvs<'a> {
    /// One after the other, as they stand.
    pub fn iter(&self) -> impl Iterator<Item = SslTlv<'a>> + Clone + use<'a> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            let (kind, value) = tlv::split_first(&mut rest)?;
            Some(SslTlv::of(kind, value))
        })
    }

    /// As they are on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}
