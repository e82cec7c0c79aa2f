//! The client's plan: whom it trusts, what it offers.

use std::path::PathBuf;
use std::sync::Arc;

use hoststack_session::{Stage, StagePlan};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::{self, ConfigError, Identity, KeyLogFile, Time, Versions};
use crate::machine::{Handshake, Machine};

/// Sessions to resume that a plan remembers, all its connections together.
const RESUMABLE_MAX: usize = 256;

/// Whose certificates a client takes.
#[derive(Clone, Debug, Default)]
pub enum Roots {
    /// Those that browsers trust, as compiled in.
    #[default]
    Webpki,
    /// Those of the system that it runs on, read when the plan is made.
    Platform,
    /// These, in PEM.
    Given(Vec<u8>),
}

impl Roots {
    fn store(&self) -> Result<RootCertStore, ConfigError> {
        match self {
            Roots::Webpki => Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }),
            Roots::Platform => {
                let found = rustls_native_certs::load_native_certs();
                let mut store = RootCertStore::empty();
                // A store may hold certificates that no one can read; the others are good.
                let (added, _) = store.add_parsable_certificates(found.certs);
                if added == 0 {
                    let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
                    return Err(ConfigError::NoRoots(format!(
                        "the system has no certificate store (SSL_CERT_FILE and SSL_CERT_DIR name one) {}",
                        why.join("; ")
                    )));
                }
                Ok(store)
            }
            Roots::Given(pem) => config::roots(pem),
        }
    }
}

/// How a client behaves. The default verifies the server against what browsers trust and offers no application protocol.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Whom it trusts.
    pub roots: Roots,
    /// Revocation lists in PEM. With any, every certificate of a chain must be covered by one and not be on it.
    pub revocation_lists: Vec<u8>,
    /// Application protocols (RFC 7301), most wanted first.
    pub alpn: Vec<String>,
    /// Fails if the server does not choose one of `alpn`.
    pub requires_alpn: bool,
    /// Shown when the server asks for a certificate.
    pub identity: Option<Identity>,
    /// Versions offered.
    pub versions: Versions,
    /// Never resumes a session, so that each handshake is a whole one.
    pub no_resumption: bool,
    /// Where secrets are written for a packet analyser (the format of `SSLKEYLOGFILE`). Whoever reads it reads the traffic.
    pub key_log: Option<PathBuf>,
    /// What time certificates are judged at.
    pub time: Time,
    /// DANGER: takes any certificate of anyone. Who sits on the path reads and changes everything.
    pub danger_no_verification: bool,
}

/// TLS for a connect: give it to `ConnectOptions::stages`.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    requires_alpn: bool,
}

impl Client {
    /// A plan for connects to `name`, a DNS name or an address, which the server's certificate must be for. Its connections
    /// share what can be resumed.
    ///
    /// # Errors
    /// What is wrong with name or options.
    pub fn new(name: &str, options: &ClientOptions) -> Result<Client, ConfigError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| ConfigError::BadName)?;
        let provider = config::provider();
        let unsupported = |error: Error| ConfigError::Unsupported(error.to_string());
        let builder = ClientConfig::builder_with_details(provider.clone(), options.time.provider())
            .with_protocol_versions(options.versions.list())
            .map_err(unsupported)?;
        let builder = if options.danger_no_verification {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        } else {
            let lists: Result<Vec<_>, _> =
                CertificateRevocationListDer::pem_slice_iter(&options.revocation_lists).collect();
            let lists =
                lists.map_err(|error| ConfigError::Unreadable(format!("revocation list: {error}")))?;
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(options.roots.store()?), provider)
                    .with_crls(lists)
                    .build()
                    .map_err(|error| ConfigError::Unreadable(error.to_string()))?;
            builder.with_webpki_verifier(verifier)
        };
        let mut config = match &options.identity {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.0.clone())))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = config::alpn(&options.alpn);
        config.resumption = if options.no_resumption {
            Resumption::disabled()
        } else {
            Resumption::in_memory_sessions(RESUMABLE_MAX)
        };
        if let Some(path) = &options.key_log {
            config.key_log = KeyLogFile::open(path)?;
        }
        Ok(Client { config: Arc::new(config), name, requires_alpn: options.requires_alpn })
    }

    /// The same plan for connects to another name: they share what can be resumed, and the options.
    ///
    /// # Errors
    /// [`ConfigError::BadName`].
    pub fn to(&self, name: &str) -> Result<Client, ConfigError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| ConfigError::BadName)?;
        Ok(Client { name, ..self.clone() })
    }
}

impl StagePlan for Client {
    fn stage(&self) -> Box<dyn Stage> {
        let machine = Machine::client(self.config.clone(), self.name.clone());
        Box::new(Handshake::new(machine, self.requires_alpn))
    }
}

/// Takes any certificate; whoever shows it must have its key all the same.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
