//! What clients and servers are configured with alike: certificates, versions, time, the key log.

use core::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{KeyLog, RootCertStore, SupportedProtocolVersion};

/// Why a plan cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The name to verify is neither a DNS name nor an address.
    BadName,
    /// There is no certificate in the PEM text.
    NoCertificate,
    /// PEM text, a certificate, a key or a revocation list cannot be read.
    Unreadable(String),
    /// The key is not the certificate's.
    KeyMismatch,
    /// No root certificate to verify against was found; the text says where it was looked for.
    NoRoots(String),
    /// A server needs at least one identity.
    NoIdentity,
    /// The key log cannot be opened.
    KeyLog(String),
    /// The combination of options makes no sense to TLS.
    Unsupported(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::BadName => f.write_str("neither a DNS name nor an address: it cannot be verified"),
            ConfigError::NoCertificate => f.write_str("there is no certificate in the PEM text"),
            ConfigError::Unreadable(what) => write!(f, "cannot be read: {what}"),
            ConfigError::KeyMismatch => f.write_str("the key is not the certificate's"),
            ConfigError::NoRoots(what) => write!(f, "no root certificates: {what}"),
            ConfigError::NoIdentity => f.write_str("a server needs a certificate and its key"),
            ConfigError::KeyLog(what) => write!(f, "the key log cannot be opened: {what}"),
            ConfigError::Unsupported(what) => write!(f, "not supported: {what}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A certificate chain with its key.
#[derive(Clone)]
pub struct Identity(pub(crate) Arc<CertifiedKey>);

impl Identity {
    /// The chain, the end's own certificate first, and the key (PKCS#8, SEC1 or PKCS#1), both in PEM; they may be the same
    /// text.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or the two do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Identity, ConfigError> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| ConfigError::Unreadable(format!("private key: {error}")))?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => ConfigError::KeyMismatch,
            error => ConfigError::Unreadable(error.to_string()),
        })?;
        Ok(Identity(Arc::new(key)))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.0.cert.len())
    }
}

/// Which versions are offered or taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Versions {
    /// 1.3, and 1.2 with those that know no better.
    #[default]
    Both,
    /// 1.3 only.
    Tls13,
    /// 1.2 only.
    Tls12,
}

impl Versions {
    pub(crate) fn list(self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
        match self {
            Versions::Both => &BOTH,
            Versions::Tls13 => &BOTH[..1],
            Versions::Tls12 => &BOTH[1..],
        }
    }
}

/// What time certificates are judged at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Time {
    /// The system's.
    #[default]
    System,
    /// Always this one, in seconds since 1970: for tests and simulations.
    At(u64),
}

impl Time {
    pub(crate) fn provider(self) -> Arc<dyn TimeProvider> {
        match self {
            Time::System => Arc::new(DefaultTimeProvider),
            Time::At(seconds) => Arc::new(Fixed(seconds)),
        }
    }
}

#[derive(Debug)]
struct Fixed(u64);

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

/// The cryptography: ring, always.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates in a PEM text: at least one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let list = list.map_err(|error| ConfigError::Unreadable(format!("certificate: {error}")))?;
    if list.is_empty() { Err(ConfigError::NoCertificate) } else { Ok(list) }
}

/// Root certificates out of a PEM text: at least one.
pub(crate) fn roots(pem: &[u8]) -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate).map_err(|error| ConfigError::Unreadable(error.to_string()))?;
    }
    Ok(store)
}

/// Protocol names as rustls wants them.
pub(crate) fn alpn(names: &[String]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Secrets for a packet analyser, appended to a file in the format that browsers write (`SSLKEYLOGFILE`).
pub(crate) struct KeyLogFile(File);

impl KeyLogFile {
    pub(crate) fn open(path: &Path) -> Result<Arc<KeyLogFile>, ConfigError> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.map(|file| Arc::new(KeyLogFile(file))).map_err(|error| ConfigError::KeyLog(error.to_string()))
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        // One write, so that lines of several workers do not mix. Who asked for the log sees that it is short.
        let _ = (&self.0).write_all(line.as_bytes());
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLogFile")
    }
}
