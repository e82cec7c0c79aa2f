//! Certificates that are made for a test.

use hoststack_tls::Identity;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// Somebody who signs certificates.
pub(crate) struct Issuer(CertifiedIssuer<'static, KeyPair>);

impl Issuer {
    /// One of this name, with a certificate that signs itself.
    pub(crate) fn new(name: &str) -> Issuer {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("randomness");
        Issuer(CertifiedIssuer::self_signed(params, key).expect("sound parameters"))
    }

    /// Its own certificate in PEM.
    pub(crate) fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate for `name`; an expired one ended in 2020.
    pub(crate) fn issue(&self, name: &str, is_expired: bool) -> Certificate {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        if is_expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().expect("randomness");
        let chain = params.signed_by(&key, &self.0).expect("sound parameters");
        Certificate { chain: chain.pem(), key: key.serialize_pem() }
    }
}

/// A certificate and its key, both in PEM.
pub(crate) struct Certificate {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Certificate {
    /// For a plan of ours.
    pub(crate) fn identity(&self) -> Identity {
        Identity::from_pem(self.chain.as_bytes(), self.key.as_bytes()).expect("what was just made")
    }
}
