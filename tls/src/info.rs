//! What was agreed in a session's handshake.

use core::any::Any;

use hoststack_session::Layer;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;

use crate::machine::Machine;

/// What was agreed.
#[derive(Clone, Copy, Debug)]
pub struct Info<'a> {
    /// `"1.3"` or `"1.2"`.
    pub version: &'static str,
    /// The cipher suite by its IANA name.
    pub cipher: &'static str,
    /// The application protocol (RFC 7301), if one was agreed.
    pub alpn: Option<&'a [u8]>,
    /// The name that the client asked for (RFC 6066 §3).
    pub server_name: Option<&'a str>,
    /// The peer's certificates in DER, its own first; none if it showed none.
    pub peer_certificates: &'a [CertificateDer<'static>],
    /// Whether an earlier session was resumed.
    pub is_resumed: bool,
}

/// What was agreed for a session, by its layer; `None` if that is not TLS.
pub fn info(layer: &dyn Layer) -> Option<Info<'_>> {
    let layer: &dyn Any = layer;
    layer.downcast_ref::<Machine>().map(Machine::info)
}

impl Machine {
    pub(crate) fn info(&self) -> Info<'_> {
        let common = self.common();
        Info {
            version: match common.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
                _ => "1.2",
            },
            cipher: common
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or("unknown"),
            alpn: common.alpn_protocol(),
            server_name: self.server_name(),
            peer_certificates: common.peer_certificates().unwrap_or(&[]),
            is_resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}
