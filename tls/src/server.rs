//! The server's plan: who it is, under which names, and whom it lets in.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use hoststack_session::{Stage, StagePlan};
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;

use crate::config::{self, ConfigError, Identity, KeyLogFile, Time, Versions};
use crate::machine::{Handshake, Machine};

/// Whether clients show a certificate.
#[derive(Clone, Debug, Default)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    Off,
    /// They are asked; those that show one must have it from one of these issuers, in PEM.
    Optional(Vec<u8>),
    /// Only those with a certificate from one of these issuers, in PEM, are accepted.
    Required(Vec<u8>),
}

/// How a server behaves.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Certificates with their keys. A client gets the first one that is for the name it asks for (RFC 6066 §3), or the very
    /// first. The list is walked for each handshake.
    pub identities: Vec<Identity>,
    /// Application protocols (RFC 7301), most wanted first. A client that offers only others is refused; one that offers none
    /// is not.
    pub alpn: Vec<String>,
    /// Fails if none of `alpn` was agreed, also if the client offers none.
    pub requires_alpn: bool,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
    /// Versions taken.
    pub versions: Versions,
    /// Gives out no tickets, so that each handshake is a whole one.
    pub no_resumption: bool,
    /// Where secrets are written for a packet analyser (the format of `SSLKEYLOGFILE`). Whoever reads it reads the traffic.
    pub key_log: Option<PathBuf>,
    /// What time certificates are judged at.
    pub time: Time,
}

/// TLS for a listener: give it to `ListenOptions::stages`.
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    requires_alpn: bool,
}

impl Server {
    /// A plan. Its connections share the keys that tickets are sealed with.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub fn new(options: &ServerOptions) -> Result<Server, ConfigError> {
        if options.identities.is_empty() {
            return Err(ConfigError::NoIdentity);
        }
        let provider = config::provider();
        let unsupported = |error: rustls::Error| ConfigError::Unsupported(error.to_string());
        let builder = ServerConfig::builder_with_details(provider.clone(), options.time.provider())
            .with_protocol_versions(options.versions.list())
            .map_err(unsupported)?;
        let verifier = |pem: &[u8]| {
            Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(config::roots(pem)?), provider.clone()))
        };
        let unreadable =
            |error: rustls::server::VerifierBuilderError| ConfigError::Unreadable(error.to_string());
        let builder = match &options.client_auth {
            ClientAuth::Off => builder.with_no_client_auth(),
            ClientAuth::Optional(pem) => builder.with_client_cert_verifier(
                verifier(pem)?.allow_unauthenticated().build().map_err(unreadable)?,
            ),
            ClientAuth::Required(pem) => {
                builder.with_client_cert_verifier(verifier(pem)?.build().map_err(unreadable)?)
            }
        };
        let keys = options.identities.iter().map(|identity| identity.0.clone()).collect();
        let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
        config.alpn_protocols = config::alpn(&options.alpn);
        if options.no_resumption {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(unsupported)?;
        }
        if let Some(path) = &options.key_log {
            config.key_log = KeyLogFile::open(path)?;
        }
        Ok(Server { config: Arc::new(config), requires_alpn: options.requires_alpn })
    }
}

impl StagePlan for Server {
    fn stage(&self) -> Box<dyn Stage> {
        // rustls tells the name that was asked for to the resolver only, so each connection has its own. What it costs, a
        // copy of the configuration's pointers, goes with the handshake.
        let name = Arc::new(OnceLock::new());
        let mut config = (*self.config).clone();
        config.cert_resolver = Arc::new(Noting { name: name.clone(), resolver: config.cert_resolver });
        let machine = Machine::server(Arc::new(config), name);
        Box::new(Handshake::new(machine, self.requires_alpn))
    }
}

/// Chooses a certificate by the name that the client asks for.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let is_for = |key: &&Arc<CertifiedKey>, name: &ServerName<'_>| {
            let certificate = key.cert.first().and_then(|der| ParsedCertificate::try_from(der).ok());
            certificate.is_some_and(|certificate| verify_server_name(&certificate, name).is_ok())
        };
        let named = name.and_then(|name| self.0.iter().find(|key| is_for(key, &name)));
        named.or(self.0.first()).cloned()
    }
}

/// Notes the name that a connection's client asks for.
#[derive(Debug)]
struct Noting {
    name: Arc<OnceLock<Box<str>>>,
    resolver: Arc<dyn ResolvesServerCert>,
}

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = hello.server_name() {
            // A second hello, after a retry request, asks for the same name.
            let _ = self.name.set(name.into());
        }
        self.resolver.resolve(hello)
    }
}
