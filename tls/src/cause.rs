//! What rustls's errors mean to an app, and alerts by their names (RFC 8446 §6, RFC 5246 §7.2).

use hoststack_transport::StageCause;
use rustls::{
    AlertDescription, CertRevocationListError, CertificateError, Error, InvalidMessage, PeerIncompatible,
};

/// Why a handshake failed; `is_first` if not one record of the peer could be read.
pub(crate) fn cause(error: &Error, is_first: bool) -> StageCause {
    match error {
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) if is_first => StageCause::Malformed("not TLS"),
        Error::InvalidMessage(
            InvalidMessage::HandshakePayloadTooLarge
            | InvalidMessage::MessageTooLarge
            | InvalidMessage::CertificatePayloadTooLarge,
        )
        | Error::PeerSentOversizedRecord => StageCause::TooLong,
        Error::InvalidMessage(_) => StageCause::Malformed("a message that cannot be read"),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            StageCause::Malformed("a message out of turn")
        }
        Error::DecryptError => StageCause::Malformed("a record that cannot be decrypted"),
        Error::PeerMisbehaved(_) => StageCause::Malformed("it breaks a rule of TLS"),
        Error::PeerIncompatible(what) => StageCause::NothingInCommon(in_common(what)),
        Error::NoApplicationProtocol => StageCause::NothingInCommon("application protocol"),
        Error::AlertReceived(alert) => StageCause::Refused(alert_name(*alert)),
        Error::NoCertificatesPresented => StageCause::Untrusted("it has no certificate"),
        Error::UnsupportedNameType => StageCause::Untrusted("its name is of an unknown type"),
        Error::InvalidCertificate(what) => StageCause::Untrusted(untrusted(what)),
        Error::InvalidCertRevocationList(CertRevocationListError::BadSignature) => {
            StageCause::Untrusted("a revocation list has a bad signature")
        }
        Error::InvalidCertRevocationList(_) => StageCause::Untrusted("a revocation list cannot be used"),
        Error::FailedToGetCurrentTime => StageCause::Unsayable("the time is not known"),
        Error::FailedToGetRandomBytes => StageCause::Unsayable("the system gave no random bytes"),
        _ => StageCause::Unsayable("TLS cannot go on"),
    }
}

fn in_common(what: &PeerIncompatible) -> &'static str {
    match what {
        PeerIncompatible::NoCipherSuitesInCommon => "cipher suite",
        PeerIncompatible::NoKxGroupsInCommon | PeerIncompatible::NamedGroupsExtensionRequired => {
            "key exchange group"
        }
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired => "signature scheme",
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => "version of TLS",
        _ => "feature of TLS that one of them requires",
    }
}

fn untrusted(what: &CertificateError) -> &'static str {
    match what {
        CertificateError::BadEncoding => "its certificate cannot be read",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet"
        }
        CertificateError::Revoked => "its certificate is revoked",
        CertificateError::UnhandledCriticalExtension => "its certificate has an unknown critical extension",
        CertificateError::UnknownIssuer => "its certificate's issuer is unknown",
        CertificateError::UnknownRevocationStatus => "whether its certificate is revoked is not known",
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "the revocation list has expired"
        }
        CertificateError::BadSignature => "a signature is wrong",
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its certificate is signed with an unsupported algorithm"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is for another purpose"
        }
        CertificateError::ApplicationVerificationFailure => "its certificate is not wanted",
        _ => "its certificate is not valid",
    }
}

/// An alert's name in the RFCs.
pub(crate) fn alert_name(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CloseNotify => "close_notify",
        AlertDescription::UnexpectedMessage => "unexpected_message",
        AlertDescription::BadRecordMac => "bad_record_mac",
        AlertDescription::DecryptionFailed => "decryption_failed",
        AlertDescription::RecordOverflow => "record_overflow",
        AlertDescription::DecompressionFailure => "decompression_failure",
        AlertDescription::HandshakeFailure => "handshake_failure",
        AlertDescription::NoCertificate => "no_certificate",
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::UnsupportedCertificate => "unsupported_certificate",
        AlertDescription::CertificateRevoked => "certificate_revoked",
        AlertDescription::CertificateExpired => "certificate_expired",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::IllegalParameter => "illegal_parameter",
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::AccessDenied => "access_denied",
        AlertDescription::DecodeError => "decode_error",
        AlertDescription::DecryptError => "decrypt_error",
        AlertDescription::ExportRestriction => "export_restriction",
        AlertDescription::ProtocolVersion => "protocol_version",
        AlertDescription::InsufficientSecurity => "insufficient_security",
        AlertDescription::InternalError => "internal_error",
        AlertDescription::InappropriateFallback => "inappropriate_fallback",
        AlertDescription::UserCanceled => "user_canceled",
        AlertDescription::NoRenegotiation => "no_renegotiation",
        AlertDescription::MissingExtension => "missing_extension",
        AlertDescription::UnsupportedExtension => "unsupported_extension",
        AlertDescription::CertificateUnobtainable => "certificate_unobtainable",
        AlertDescription::UnrecognisedName => "unrecognized_name",
        AlertDescription::BadCertificateStatusResponse => "bad_certificate_status_response",
        AlertDescription::BadCertificateHashValue => "bad_certificate_hash_value",
        AlertDescription::UnknownPSKIdentity => "unknown_psk_identity",
        AlertDescription::CertificateRequired => "certificate_required",
        AlertDescription::NoApplicationProtocol => "no_application_protocol",
        AlertDescription::EncryptedClientHelloRequired => "ech_required",
        _ => "an alert without a name",
    }
}
