//! `[tls]`, and the `tls_` keys of an app: the files are read when the configuration is checked, and again when the stack
//! starts.

use std::fmt;
use std::path::PathBuf;

use hoststack::app::Uri;
use hoststack_tls::{Client, ClientAuth, ClientOptions, ConfigError, Identity, Roots, Server, ServerOptions};
use toml::Spanned;

use super::{AppConfig, Mistake, mistake};

/// `[tls]`: whom connects of the console believe.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsConfig {
    /// Issuers of servers' certificates, or such certificates themselves, in PEM, and nobody else. Default: those that the
    /// host trusts.
    ca: Spanned<PathBuf>,
}

impl TlsConfig {
    /// The certificates that are trusted, in PEM.
    ///
    /// # Errors
    /// A file that cannot be read or holds none.
    pub(crate) fn trusted(&self) -> Result<Vec<u8>, Mistake> {
        let pem = read(&self.ca, "those that issue the servers' certificates")?;
        let options = ClientOptions { roots: Roots::Given(pem.clone()), ..ClientOptions::default() };
        match Client::new("localhost", &options) {
            Ok(_) => Ok(pem),
            Err(error) => bad(&self.ca, error),
        }
    }
}

/// Whether clients must show a certificate, by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ClientAuthWord {
    /// One that shows none is accepted, too.
    Optional,
    /// One that shows none is not accepted.
    Required,
}

/// A file's bytes.
fn read(file: &Spanned<PathBuf>, what: &str) -> Result<Vec<u8>, Mistake> {
    let path = file.get_ref();
    std::fs::read(path).or_else(|error| {
        mistake(file, format!("cannot read {}: {error}: expected the file of {what}, in PEM", path.display()))
    })
}

/// What is wrong with what `file` holds.
fn bad<T>(file: &Spanned<PathBuf>, error: impl fmt::Display) -> Result<T, Mistake> {
    mistake(file, format!("{}: {error}", file.get_ref().display()))
}

impl AppConfig {
    /// The plan of its `tls+` URIs; `None` without a certificate.
    ///
    /// # Errors
    /// Keys that do not fit together, a file that cannot be read or holds something else.
    pub(crate) fn tls(&self) -> Result<Option<Server>, Mistake> {
        let Some(certificate) = &self.tls_certificate else {
            let needs = "there is no certificate: expected `tls_certificate` besides, a file in PEM";
            return match (&self.tls_key, &self.tls_client_ca, &self.tls_client_auth, &self.tls_alpn) {
                (Some(at), ..) | (None, Some(at), ..) => mistake(at, needs),
                (None, None, Some(at), _) => mistake(at, needs),
                (None, None, None, Some(at)) => mistake(at, needs),
                (None, None, None, None) => Ok(None),
            };
        };
        let Some(key) = &self.tls_key else {
            return mistake(
                certificate,
                "the certificate has no key: expected `tls_key` besides, a file in PEM",
            );
        };
        let chain = read(certificate, "a certificate and its issuers")?;
        let identity = match Identity::from_pem(&chain, &read(key, "the certificate's private key")?) {
            Ok(identity) => identity,
            Err(error @ ConfigError::NoCertificate) => return bad(certificate, error),
            Err(error @ ConfigError::KeyMismatch) => {
                let of = certificate.get_ref().display();
                return bad(key, format!("{error}: expected the key that {of} was made for"));
            }
            Err(error) => return bad(key, format!("with {}: {error}", certificate.get_ref().display())),
        };
        let alpn = self.tls_alpn.as_ref().map_or(&[][..], |names| names.get_ref());
        if let Some(at) = &self.tls_alpn
            && !alpn.iter().all(|name| (1..=255).contains(&name.len()))
        {
            // RFC 7301 §3.1.
            return mistake(at, "expected names of 1 to 255 bytes, like \"http/1.1\"");
        }
        let client_auth = match (&self.tls_client_ca, &self.tls_client_auth) {
            (None, None) => ClientAuth::Off,
            (None, Some(at)) => {
                return mistake(
                    at,
                    "nobody could issue one: expected `tls_client_ca` besides, a file in PEM",
                );
            }
            (Some(issuers), word) => {
                let pem = read(issuers, "those that issue the clients' certificates")?;
                match word.as_ref().map(Spanned::get_ref) {
                    Some(ClientAuthWord::Optional) => ClientAuth::Optional(pem),
                    Some(ClientAuthWord::Required) | None => ClientAuth::Required(pem),
                }
            }
        };
        let options = ServerOptions {
            identities: vec![identity],
            alpn: alpn.to_vec(),
            client_auth,
            ..ServerOptions::default()
        };
        // The certificate is good: what may still be wrong is the list of issuers.
        let at = self.tls_client_ca.as_ref().unwrap_or(certificate);
        Server::new(&options).map(Some).or_else(|error| bad(at, error))
    }

    /// Whether there is a certificate for its `tls+` URIs, and such a URI for its certificate. `uris` are its `listen`.
    ///
    /// # Errors
    /// As [`AppConfig::tls`] besides.
    pub(super) fn check_tls(&self, uris: &[Uri]) -> Result<(), Mistake> {
        let first = self.listen.iter().zip(uris).find_map(|(text, uri)| uri.tls.then_some(text));
        match (self.tls()?, first, &self.tls_certificate) {
            (None, Some(text), _) => mistake(
                text,
                "TLS needs a certificate: expected `tls_certificate` and `tls_key` besides, files in PEM",
            ),
            (Some(_), None, Some(certificate)) => mistake(
                certificate,
                "no place to listen on speaks TLS: expected `tls+` before a URI of `listen`",
            ),
            _ => Ok(()),
        }
    }
}
