//! Handshakes that must fail: each end is told once, why, and nothing is left.

use hoststack_transport::CloseReason;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, date_time_ymd};

use super::*;

/// What a failed handshake came to at an end.
fn outcome(pair: &Pair, n: usize) -> StageCause {
    match pair.ends[n].told[..] {
        [Told::Failed(ConnectFailure::Stage(StageFailure { stage: NAME, cause }))] => cause,
        ref told => panic!("{n} was told {told:?}"),
    }
}

/// What both ends were told, the client's first.
fn both_fail(options: &(ClientOptions, ServerOptions)) -> [StageCause; 2] {
    let mut pair = pair_of(options);
    pair.run();
    assert_closed(&pair);
    [CLIENT, SERVER].map(|n| outcome(&pair, n))
}

#[test]
fn a_certificate_that_is_not_good_fails_the_client_and_the_server_hears_the_alert() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let identity = |change: fn(&mut CertificateParams)| issuer.identity_with(NAME_A, change);
    let cases = [
        (
            identity(|params| params.not_after = date_time_ymd(2026, 1, 1)),
            "its certificate has expired",
            "certificate_expired",
        ),
        (
            identity(|params| params.not_before = date_time_ymd(2028, 1, 1)),
            "its certificate is not valid yet",
            "certificate_expired",
        ),
        (other.identity(NAME_A), "its certificate's issuer is unknown", "unknown_ca"),
        (issuer.identity("b.example.org"), "its certificate is for another name", "bad_certificate"),
        (
            identity(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
            "its certificate is for another purpose",
            "unsupported_certificate",
        ),
    ];
    for (identity, why, alert) in cases {
        for versions in VERSIONS {
            let mut options = options(&issuer);
            options.0.versions = versions;
            options.1.identities = vec![identity.clone()];
            let told = both_fail(&options);
            assert_eq!(told, [StageCause::Untrusted(why), StageCause::Refused(alert)], "{versions:?}");
            // Only who says so loudly takes it all the same.
            options.0.danger_no_verification = true;
            connected(&options);
        }
    }
}

#[test]
fn a_revoked_certificate_is_found_on_a_list() {
    let issuer = Issuer::new();
    let list = |serial: u64| {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2029, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&issuer.0).unwrap().pem().unwrap().into_bytes()
    };
    let mut options = options(&issuer);
    options.0.revocation_lists = list(77);
    let told = both_fail(&options);
    assert_eq!(told[0], StageCause::Untrusted("its certificate is revoked"));
    assert_eq!(told[1], StageCause::Refused("certificate_revoked"));
    options.0.revocation_lists = list(78);
    connected(&options);
}

#[test]
fn a_client_without_a_good_certificate_is_not_accepted_where_one_is_required() {
    let (issuer, clients) = (Issuer::new(), Issuer::new());
    for (identity, why, alert) in [
        (None, "it has no certificate", "certificate_required"),
        (Some(issuer.identity("me")), "its certificate's issuer is unknown", "unknown_ca"),
    ] {
        for versions in VERSIONS {
            let mut options = options(&issuer);
            options.0.versions = versions;
            options.0.identity = identity.clone();
            options.1.client_auth = ClientAuth::Required(clients.pem());
            let mut pair = pair_of(&options);
            pair.run();
            assert_eq!(outcome(&pair, SERVER), StageCause::Untrusted(why), "{versions:?}");
            if versions == Versions::Tls12 {
                let alert = if identity.is_none() { "handshake_failure" } else { alert };
                assert!(
                    matches!(outcome(&pair, CLIENT), StageCause::Refused(said) if said == alert || said == "certificate_required"),
                    "{:?}",
                    outcome(&pair, CLIENT)
                );
            } else {
                assert_eq!(pair.ends[CLIENT].told.last(), Some(&Told::Closed(CloseReason::PeerReset)));
            }
            assert_closed(&pair);
        }
    }
}

// covers: F15
#[test]
fn ends_that_have_nothing_in_common_say_what() {
    let issuer = Issuer::new();
    let mut alpn = options(&issuer);
    (alpn.0.alpn, alpn.1.alpn) = (vec!["h2".to_owned()], vec!["http/1.1".to_owned()]);
    let told =
        [StageCause::Refused("no_application_protocol"), StageCause::NothingInCommon("application protocol")];
    assert_eq!(both_fail(&alpn), told);

    for (client, server) in [(Versions::Tls13, Versions::Tls12), (Versions::Tls12, Versions::Tls13)] {
        let mut versions = options(&issuer);
        (versions.0.versions, versions.1.versions) = (client, server);
        let told = [StageCause::Refused("protocol_version"), StageCause::NothingInCommon("version of TLS")];
        assert_eq!(both_fail(&versions), told, "{client:?}");
    }

    // A server that is silent about protocols, and a client that insists, and the other way round.
    let mut required = options(&issuer);
    (required.0.alpn, required.0.requires_alpn) = (vec!["h2".to_owned()], true);
    let mut pair = pair_of(&required);
    pair.run();
    assert_eq!(outcome(&pair, CLIENT), StageCause::NothingInCommon("application protocol"));
    assert_closed(&pair);
    let mut required = options(&issuer);
    (required.1.alpn, required.1.requires_alpn) = (vec!["h2".to_owned()], true);
    let mut pair = pair_of(&required);
    pair.run();
    assert_eq!(outcome(&pair, SERVER), StageCause::NothingInCommon("application protocol"));
    assert_closed(&pair);
}

/// A TLS end at `n` and one without, which writes `bytes`.
fn against_plain(n: usize, bytes: &[u8], half_closes: bool) -> Pair {
    let (client, server) = plans(&options(&Issuer::new()));
    let (client, server) = if n == CLIENT { (client, StagePlans::NONE) } else { (StagePlans::NONE, server) };
    let mut pair = Pair::new(&client, &server, SessionOptions::default());
    pair.ends[1 - n].writes = bytes.to_vec();
    pair.ends[1 - n].half_closes = half_closes;
    pair
}

#[test]
fn what_is_not_tls_is_told_apart_at_its_first_bytes_and_gets_an_alert() {
    for n in [CLIENT, SERVER] {
        for text in
            [&b"GET / HTTP/1.1\r\nHost: a.example.org\r\n\r\n"[..], b"SSH-2.0-x\r\n", b"HTTP/1.1 400 Bad\r\n"]
        {
            let mut pair = against_plain(n, text, false);
            pair.run();
            assert_eq!(outcome(&pair, n), StageCause::Malformed("not TLS"));
            let got = &pair.ends[1 - n].got;
            // The end of what the plain app got is an alert (21), fatal (2).
            assert_eq!((got[got.len() - 7], got[got.len() - 2]), (21, 2), "{got:?}");
            // It is closed, not reset, so that the alert arrives.
            assert_eq!(pair.ends[1 - n].told.last(), Some(&Told::PeerClosed));
            pair.ends[1 - n].writes.extend(b"and it goes on");
            pair.run();
            pair.close(1 - n);
            pair.run();
            assert_eq!(pair.ends[1 - n].told.last(), Some(&Told::Closed(CloseReason::Finished)));
            assert_closed(&pair);
        }
    }
}

// covers: F02
#[test]
fn a_peer_that_says_nothing_or_half_a_hello_is_out_of_time_or_gone() {
    for n in [CLIENT, SERVER] {
        for bytes in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x01\x00\x01\x00"] {
            let mut pair = against_plain(n, bytes, false);
            pair.run();
            assert!(pair.ends[n].told.is_empty());
            pair.deadline(n);
            pair.run();
            assert_eq!(outcome(&pair, n), StageCause::TimedOut);
            assert_eq!(pair.ends[1 - n].told.last(), Some(&Told::Closed(CloseReason::PeerReset)));
            assert_closed(&pair);

            let mut pair = against_plain(n, bytes, true);
            pair.run();
            assert_eq!(outcome(&pair, n), StageCause::PeerClosed);
            assert_closed(&pair);
        }
    }
}

#[test]
fn records_and_messages_beyond_all_limits_are_refused() {
    // A handshake message of 16 MiB, announced; a record of 60 KiB, announced.
    let message = b"\x16\x03\x01\x00\x04\x01\xff\xff\xff";
    let record = b"\x16\x03\x01\xf0\x00";
    for bytes in [&message[..], record] {
        let mut pair = against_plain(SERVER, bytes, false);
        pair.run();
        assert_eq!(outcome(&pair, SERVER), StageCause::TooLong);
        pair.close(CLIENT);
        pair.run();
        assert_closed(&pair);
    }
    // A record that is none of a handshake's.
    let mut pair = against_plain(SERVER, b"\x17\x03\x03\x00\x01x", false);
    pair.run();
    assert_eq!(outcome(&pair, SERVER), StageCause::Malformed("a message out of turn"));
}

#[test]
fn every_byte_of_a_hello_may_be_wrong_and_no_end_is_told_twice_or_left() {
    let issuer = Issuer::new();
    let options = options(&issuer);
    let (client, server) = plans(&options);
    for n in [CLIENT, SERVER] {
        for at in (0..1_000).step_by(if n == CLIENT { 3 } else { 7 }) {
            let mut pair = Pair::new(&client, &server, SessionOptions::default());
            pair.flips[n] = Some(at);
            pair.run();
            for n in [CLIENT, SERVER] {
                if pair.ends[n].told.is_empty() {
                    // It waits for more of a record whose length was changed.
                    pair.deadline(n);
                    pair.run();
                }
            }
            for n in [CLIENT, SERVER] {
                let decided = |told: &&Told| matches!(told, Told::Up | Told::Failed(_));
                assert_eq!(
                    pair.ends[n].told.iter().filter(decided).count(),
                    1,
                    "bit {at}: {:?}",
                    pair.ends[n].told
                );
                if pair.ends[n].is_live() {
                    pair.close(n);
                    pair.run();
                }
            }
            pair.run();
            for n in [CLIENT, SERVER] {
                if pair.ends[n].is_live() {
                    pair.ask(n, hoststack_session::Ending::Reset);
                    pair.run();
                }
            }
            assert_closed(&pair);
        }
    }
}

#[test]
fn plans_that_make_no_sense_are_refused_when_they_are_made() {
    let issuer = Issuer::new();
    let (client, server) = options(&issuer);
    assert_eq!(Client::new("not a name", &client).err(), Some(ConfigError::BadName));
    let no_roots = ClientOptions { roots: Roots::Given(b"nothing".to_vec()), ..client.clone() };
    assert_eq!(Client::new(NAME_A, &no_roots).err(), Some(ConfigError::NoCertificate));
    let no_identity = ServerOptions { identities: Vec::new(), ..server };
    assert_eq!(Server::new(&no_identity).err(), Some(ConfigError::NoIdentity));
    let other = KeyPair::generate().unwrap();
    let mismatch = Identity::from_pem(&issuer.pem(), other.serialize_pem().as_bytes());
    assert_eq!(mismatch.err(), Some(ConfigError::KeyMismatch));
    assert!(matches!(Identity::from_pem(&issuer.pem(), b"").err(), Some(ConfigError::Unreadable(_))));
    // The default trusts what browsers trust, which is not this issuer.
    let default = ClientOptions { time: Time::At(NOW), ..ClientOptions::default() };
    let told = both_fail(&(default, options(&issuer).1));
    assert_eq!(told[0], StageCause::Untrusted("its certificate's issuer is unknown"));
}
