//! Clients and servers joined without a network: handshakes, data, ends, and everything that can be wrong.

mod ends;
mod failures;
mod handshakes;

use std::sync::Arc;

use hoststack_session::testing::{CLIENT, Pair, SERVER, Told};
use hoststack_session::{SessionOptions, StagePlan, StagePlans};
use hoststack_transport::{ConnectFailure, StageCause, StageFailure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SerialNumber,
};

use crate::*;

/// A day on which certificates of these tests are valid: in 2027.
pub(super) const NOW: u64 = 1_800_000_000;
pub(super) const NAME_A: &str = "a.example.org";

/// An issuer of certificates.
pub(super) struct Issuer(pub(super) CertifiedIssuer<'static, KeyPair>);

impl Issuer {
    pub(super) fn new() -> Issuer {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Issuers of one name would be taken for each other until a signature is looked at.
        let name = format!("issuer {:?}", &key.public_key_raw()[..8]);
        params.distinguished_name.push(DnType::CommonName, name);
        Issuer(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(super) fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    pub(super) fn identity(&self, name: &str) -> Identity {
        self.identity_with(name, |_| ())
    }

    pub(super) fn identity_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(77u64));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }
}

/// A client that trusts `issuer` and a server for [`NAME_A`], as options to be changed.
pub(super) fn options(issuer: &Issuer) -> (ClientOptions, ServerOptions) {
    let client =
        ClientOptions { roots: Roots::Given(issuer.pem()), time: Time::At(NOW), ..ClientOptions::default() };
    let server = ServerOptions {
        identities: vec![issuer.identity(NAME_A)],
        time: Time::At(NOW),
        ..ServerOptions::default()
    };
    (client, server)
}

pub(super) fn plans((client, server): &(ClientOptions, ServerOptions)) -> (StagePlans, StagePlans) {
    let client = Client::new(NAME_A, client).unwrap();
    (StagePlans::one(client), StagePlans::one(Server::new(server).unwrap()))
}

pub(super) fn pair_of(options: &(ClientOptions, ServerOptions)) -> Pair {
    let (client, server) = plans(options);
    Pair::new(&client, &server, SessionOptions::default())
}

/// A pair that has shaken hands.
pub(super) fn connected(options: &(ClientOptions, ServerOptions)) -> Pair {
    let mut pair = pair_of(options);
    pair.run();
    assert_eq!(pair.ends.each_ref().map(|end| end.told.clone()), [[Told::Up], [Told::Up]]);
    pair
}

pub(super) fn info_of(pair: &Pair, n: usize) -> Info<'_> {
    let session = pair.ends[n].sessions.get(pair.ends[n].id).unwrap();
    info(session.layer().expect("a layer")).expect("it is TLS")
}

pub(super) fn failed(cause: StageCause) -> Told {
    Told::Failed(ConnectFailure::Stage(StageFailure { stage: NAME, cause }))
}

pub(super) const VERSIONS: [Versions; 2] = [Versions::Tls13, Versions::Tls12];

/// Bytes without a short period.
pub(super) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|n| ((n + seed) ^ (n >> 8).wrapping_mul(31) ^ (n >> 16).wrapping_mul(17)) as u8).collect()
}

pub(super) fn assert_closed(pair: &Pair) {
    for n in [CLIENT, SERVER] {
        assert!(!pair.ends[n].is_live(), "{n}: {:?}", pair.ends[n].told);
        assert_eq!(pair.ends[n].sessions.counts(), Default::default(), "nothing is left");
        assert_eq!(pair.ends[n].dropped_tickets(), 0);
    }
}
