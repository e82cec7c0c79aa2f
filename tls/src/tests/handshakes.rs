//! What is agreed, and that bytes go through.

use hoststack_session::establish::proxy::{ParseOptions, ReceiveProxy, SendProxy, Version};
use hoststack_transport::CloseReason;

use super::*;

/// Both ends have `bytes` for each other and then close.
fn exchange(pair: &mut Pair, bytes: usize) {
    for n in [CLIENT, SERVER] {
        pair.ends[n].writes = pattern(bytes, n);
        (pair.ends[n].half_closes, pair.ends[n].closes) = (true, true);
    }
    pair.run();
    for n in [CLIENT, SERVER] {
        assert!(pair.ends[n].got == pattern(bytes, 1 - n), "{n} got {} bytes", pair.ends[n].got.len());
        assert_eq!((pair.ends[n].count(Told::Up), pair.ends[n].count(Told::PeerClosed)), (1, 1));
        assert_eq!(pair.ends[n].told.last(), Some(&Told::Closed(CloseReason::Finished)));
        assert_eq!(pair.ends[n].stray, 0, "the other's end is no data after the close");
    }
    assert_closed(pair);
}

#[test]
fn bytes_go_both_ways_and_both_ends_close_in_every_version() {
    let issuer = Issuer::new();
    for versions in VERSIONS {
        let mut options = options(&issuer);
        options.0.versions = versions;
        let mut pair = connected(&options);
        let expected = if versions == Versions::Tls13 { "1.3" } else { "1.2" };
        for n in [CLIENT, SERVER] {
            assert_eq!((info_of(&pair, n).version, info_of(&pair, n).is_resumed), (expected, false));
            assert_eq!(info_of(&pair, n).server_name, Some(NAME_A));
            assert!(info_of(&pair, n).cipher.starts_with("TLS"), "{}", info_of(&pair, n).cipher);
        }
        assert_eq!(info_of(&pair, CLIENT).peer_certificates.len(), 1);
        assert_eq!(info_of(&pair, SERVER).peer_certificates.len(), 0);
        exchange(&mut pair, 100_000);
    }
}

#[test]
fn nothing_of_the_app_is_readable_on_the_wire_and_small_writes_become_one_record() {
    let mut pair = connected(&options(&Issuer::new()));
    let before = pair.ends[CLIENT].wire.len();
    let (id, sessions) = (pair.ends[CLIENT].id, &mut pair.ends[CLIENT].sessions);
    for _ in 0..10 {
        assert_eq!(sessions.write(id, b"attack at dawn"), 14);
    }
    pair.run();
    assert_eq!(pair.ends[SERVER].got, b"attack at dawn".repeat(10));
    let record = &pair.ends[CLIENT].wire[before..];
    assert_eq!(record.len(), 5 + 140 + 1 + 16, "header, bytes, content type, tag");
    assert!(!record.windows(6).any(|window| window == b"attack"));
    let layer = pair.ends[CLIENT].sessions.get(id).unwrap().layer().unwrap();
    assert!(layer.describe().starts_with("tls=1.3 cipher=TLS13_"), "{}", layer.describe());
}

#[test]
fn a_byte_at_a_time_is_as_good_as_any_other_way() {
    let issuer = Issuer::new();
    for versions in VERSIONS {
        for mtu in [1, 2, 3, 5, 7] {
            let mut options = options(&issuer);
            options.0.versions = versions;
            let mut pair = pair_of(&options);
            pair.mtu = mtu;
            exchange(&mut pair, 3_000);
        }
    }
}

#[test]
fn ten_megabytes_go_both_ways_through_small_fifos() {
    let (client, server) = plans(&options(&Issuer::new()));
    for capacity in [4_000, 60_000] {
        let fifos = SessionOptions { rx_capacity: capacity, tx_capacity: capacity, tx_capacity_max: 0 };
        let mut pair = Pair::new(&client, &server, fifos);
        pair.mtu = 1460;
        // What is read a little at a time must be told of again.
        pair.ends[SERVER].reads = usize::MAX;
        exchange(&mut pair, 10_000_000);
    }
}

#[test]
fn a_handshake_fits_through_fifos_that_are_smaller_than_its_messages() {
    let issuer = Issuer::new();
    let mut options = options(&issuer);
    // A certificate of some kilobytes.
    let names: Vec<String> = (0..200).map(|n| format!("host-{n}.example.org")).collect();
    options.1.identities = vec![issuer.identity_with(NAME_A, |params| {
        params
            .subject_alt_names
            .extend(names.iter().map(|n| rcgen::SanType::DnsName(n.as_str().try_into().unwrap())));
    })];
    for versions in VERSIONS {
        options.0.versions = versions;
        let (client, server) = plans(&options);
        let fifos = SessionOptions { rx_capacity: 100, tx_capacity: 64, tx_capacity_max: 0 };
        let mut pair = Pair::new(&client, &server, fifos);
        exchange(&mut pair, 20_000);
        assert!(pair.ends[SERVER].wire.len() > 24_000);
    }
}

#[test]
fn sessions_that_share_few_chunks_get_on_with_it() {
    let (client, server) = plans(&options(&Issuer::new()));
    for chunks in [16, 20, 40] {
        let mut pair = Pair::with(&client, &server, SessionOptions::default(), b"", chunks);
        exchange(&mut pair, 300_000);
    }
}

#[test]
fn an_idle_session_holds_no_chunk() {
    let mut pair = connected(&options(&Issuer::new()));
    pair.ends[CLIENT].writes = pattern(50_000, 0);
    pair.run();
    assert_eq!(pair.ends[SERVER].got.len(), 50_000);
    for end in &pair.ends {
        assert_eq!(end.sessions.counts().fifo_chunks, 0);
    }
}

#[test]
fn the_application_protocol_is_the_servers_first_choice_of_the_clients() {
    let issuer = Issuer::new();
    let agreed = |client: &[&str], server: &[&str]| {
        let mut options = options(&issuer);
        options.0.alpn = client.iter().map(|&name| name.to_owned()).collect();
        options.1.alpn = server.iter().map(|&name| name.to_owned()).collect();
        let pair = connected(&options);
        let both = [CLIENT, SERVER].map(|n| info_of(&pair, n).alpn.map(<[u8]>::to_vec));
        assert_eq!(both[0], both[1]);
        both[0].clone().map(|name| String::from_utf8(name).unwrap())
    };
    assert_eq!(agreed(&["http/1.1", "h2"], &["h2", "http/1.1"]).as_deref(), Some("h2"));
    assert_eq!(agreed(&["http/1.1"], &["h2", "http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(agreed(&["h2"], &[]), None);
    assert_eq!(agreed(&[], &["h2"]), None);
}

#[test]
fn the_name_that_is_asked_for_chooses_the_certificate() {
    let issuer = Issuer::new();
    let mut options = options(&issuer);
    let names = [NAME_A, "b.example.org", "*.wild.example.org", "192.0.2.1"];
    options.1.identities = names.iter().map(|name| issuer.identity(name)).collect();
    let leaves: Vec<_> = options.1.identities.iter().map(|identity| identity.0.cert[0].clone()).collect();
    let server = StagePlans::one(Server::new(&options.1).unwrap());
    let client = Client::new(NAME_A, &options.0).unwrap();
    for (name, leaf) in [(NAME_A, 0), ("b.example.org", 1), ("x.wild.example.org", 2)] {
        let client = StagePlans::one(client.to(name).unwrap());
        let mut pair = Pair::new(&client, &server, SessionOptions::default());
        pair.run();
        assert_eq!(info_of(&pair, CLIENT).peer_certificates, &leaves[leaf..=leaf], "{name}");
        assert_eq!(info_of(&pair, SERVER).server_name, Some(name));
    }
    // An address is not asked for, so the client is shown the first certificate.
    options.1.identities.rotate_right(1);
    let server = StagePlans::one(Server::new(&options.1).unwrap());
    let client = StagePlans::one(client.to("192.0.2.1").unwrap());
    let mut pair = Pair::new(&client, &server, SessionOptions::default());
    pair.run();
    assert_eq!(info_of(&pair, SERVER).server_name, None);
    assert_eq!(info_of(&pair, CLIENT).peer_certificates, &leaves[3..]);
}

#[test]
fn a_client_that_shows_a_certificate_is_known_to_the_server() {
    let (issuer, clients) = (Issuer::new(), Issuer::new());
    for versions in VERSIONS {
        let auths: [fn(Vec<u8>) -> ClientAuth; 2] = [ClientAuth::Required, ClientAuth::Optional];
        for auth in auths {
            for shows in [true, false] {
                let mut options = options(&issuer);
                options.0.versions = versions;
                options.1.client_auth = auth(clients.pem());
                options.0.identity = shows.then(|| clients.identity("client.example.org"));
                if !shows && matches!(options.1.client_auth, ClientAuth::Required(_)) {
                    continue;
                }
                let shown: Vec<_> = options.0.identity.iter().map(|one| one.0.cert[0].clone()).collect();
                let mut pair = connected(&options);
                assert_eq!(info_of(&pair, SERVER).peer_certificates, shown);
                exchange(&mut pair, 10);
            }
        }
    }
}

#[test]
fn a_second_connection_resumes_the_first_unless_one_end_will_not() {
    let issuer = Issuer::new();
    for versions in VERSIONS {
        for (client_will, server_will) in [(true, true), (false, true), (true, false)] {
            let mut options = options(&issuer);
            options.0.versions = versions;
            (options.0.no_resumption, options.1.no_resumption) = (!client_will, !server_will);
            let (client, server) = plans(&options);
            for expected in [false, client_will && server_will] {
                let mut pair = Pair::new(&client, &server, SessionOptions::default());
                pair.run();
                for n in [CLIENT, SERVER] {
                    assert_eq!(info_of(&pair, n).is_resumed, expected, "{versions:?}");
                    assert_eq!(info_of(&pair, n).server_name, Some(NAME_A));
                }
                // Who the server is, is known all the same.
                assert_eq!(info_of(&pair, CLIENT).peer_certificates.len(), 1);
                exchange(&mut pair, 10);
            }
        }
    }
}

#[test]
fn secrets_are_logged_where_asked_and_nowhere_else() {
    let issuer = Issuer::new();
    let folder = tempfile::tempdir().unwrap();
    let paths = ["client", "server"].map(|name| folder.path().join(name));
    let mut options = options(&issuer);
    options.0.key_log = Some(paths[0].clone());
    options.1.key_log = Some(paths[1].clone());
    for _ in 0..2 {
        connected(&options);
    }
    let logs = paths.map(|path| std::fs::read_to_string(path).unwrap());
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&logs[0]), sorted(&logs[1]), "both ends know the same secrets");
    let count = |label: &str| logs[0].lines().filter(|line| line.starts_with(label)).count();
    for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET ", "SERVER_TRAFFIC_SECRET_0 "] {
        assert_eq!(count(label), 2, "once a connection");
    }
    assert!(logs[0].lines().all(|line| line.split(' ').nth(1).is_some_and(|random| random.len() == 64)));
    let missing = ClientOptions { key_log: Some(folder.path().join("no/such")), ..options.0 };
    assert!(matches!(Client::new(NAME_A, &missing), Err(ConfigError::KeyLog(_))));
}

#[test]
fn a_proxy_header_goes_before_tls_or_inside_it_and_early_data_behind_all() {
    let issuer = Issuer::new();
    let options = options(&issuer);
    for is_inside in [false, true] {
        let client: Arc<dyn StagePlan> = Arc::new(Client::new(NAME_A, &options.0).unwrap());
        let server: Arc<dyn StagePlan> = Arc::new(Server::new(&options.1).unwrap());
        let send: Arc<dyn StagePlan> = Arc::new(SendProxy::new(Version::V2));
        let receive: Arc<dyn StagePlan> = Arc::new(ReceiveProxy { options: ParseOptions::DEFAULT });
        let order = |tls, proxy| StagePlans::new(if is_inside { vec![tls, proxy] } else { vec![proxy, tls] });
        let (client, server) = (order(client, send), order(server, receive));
        for mtu in [1, 1460] {
            let mut pair = Pair::with(&client, &server, SessionOptions::default(), b"early", 4096);
            pair.mtu = mtu;
            pair.run();
            assert_eq!(pair.ends[SERVER].got, b"early");
            let id = pair.ends[SERVER].id;
            let declared = pair.ends[SERVER].sessions.declared(id).expect("a header came");
            assert_eq!(declared.endpoints().unwrap().0.port(), 1000);
            // A hello is a handshake record, type 22; a header begins with CR LF.
            assert_eq!(pair.ends[CLIENT].wire[0], if is_inside { 22 } else { b'\r' });
            let header = b"\r\n\r\n\0\r\nQUIT\n";
            let in_clear = pair.ends[CLIENT].wire.windows(12).filter(|window| window == header).count();
            assert_eq!(in_clear, usize::from(!is_inside));
            exchange_after_early(&mut pair);
        }
    }
}

fn exchange_after_early(pair: &mut Pair) {
    pair.ends[SERVER].got.clear();
    exchange(pair, 20_000);
}

#[test]
fn two_layers_are_one_too_many() {
    let options = options(&Issuer::new());
    let tls = || -> Arc<dyn StagePlan> { Arc::new(Client::new(NAME_A, &options.0).unwrap()) };
    let server = || -> Arc<dyn StagePlan> { Arc::new(Server::new(&options.1).unwrap()) };
    let (client, server) = (StagePlans::new(vec![tls(), tls()]), StagePlans::new(vec![server(), server()]));
    let mut pair = Pair::new(&client, &server, SessionOptions::default());
    pair.run();
    let refused = failed(StageCause::Unsayable("a session has one layer at most"));
    assert!(pair.ends.iter().any(|end| end.told == [refused]), "{:?}", pair.ends[SERVER].told);
    assert_closed(&pair);
}
