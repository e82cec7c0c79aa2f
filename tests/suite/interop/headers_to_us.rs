//! Headers that others send, to an app of ours.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use hoststack::app::proxy::{ReceiveProxy, Tlv, Version, Versions};
use hoststack::app::{AttachOptions, Endpoint, ListenOptions, StagePlans};
use hoststack_builtin::EchoServer;
use hoststack_tests::peers::{self, Daemon, require};
use hoststack_tests::{skip_unless_net_admin, wait};

use crate::world::{LIMIT, Note, Via, World, curl};

/// The fronts of a proxy, a port for each case.
const FRONT: u16 = 8000;
/// Our listeners, a port for each case.
const BACK: u16 = 7000;

/// How long our listeners wait: longer than any peer needs.
const PATIENT: Duration = LIMIT;

fn fronts(port: u16) -> [SocketAddr; 2] {
    ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().expect("an address"), port))
}

/// Checks both sides of what curl sees through a front of each family, and what our app was told: the transport's
/// addresses, which are the proxy's, and the declared ones, which are curl's.
#[track_caller]
fn each_client_is_declared(world: &World, via: Via, case: u16, version: Version) {
    for front in fronts(FRONT + case) {
        let got = curl(world, &[&format!("http://{front}/")]);
        let expected = format!("{}->{front}", got.from);
        assert_eq!(got.body, expected, "{via:?}, case {case}");
        let (flow, declared) = world.wait_for(&expected, |note| match note {
            Note::Accepted { flow, declared, .. } if declared.to_string() == expected => {
                Some((*flow, (**declared).clone()))
            }
            _ => None,
        });
        assert_eq!((declared.endpoints(), declared.version()), (Some((got.from, front)), version));
        assert_eq!(flow.protocol, via.protocol());
        if let (Some(ours), Some(theirs)) = (via.our_ip(), via.their_ip()) {
            assert_eq!((flow.local.addr, flow.local.port), (ours, BACK + case));
            assert_eq!(flow.remote.addr, theirs);
            assert_ne!(flow.remote.port, got.from.port(), "that is the proxy's own connection");
        }
    }
}

#[test]
fn haproxy_declares_its_clients() {
    skip_unless_net_admin!();
    let world = World::new();
    let options = [
        ("send-proxy", Version::V1),
        ("send-proxy-v2", Version::V2),
        ("send-proxy-v2 proxy-v2-options crc32c,unique-id", Version::V2),
    ];
    let mut sections = String::new();
    let mut cases = Vec::new();
    for via in Via::ALL {
        for (words, version) in options {
            let case = u16::try_from(cases.len()).expect("few");
            let back = world.ours(via, BACK + case);
            world.listen(&back, case.into(), Versions::Only(version), PATIENT);
            let front = FRONT + case;
            let server = back.written("unix@");
            let _ = writeln!(
                sections,
                "listen p{case}\n    bind 127.0.0.1:{front}\n    bind [::1]:{front}\n    \
                 unique-id-format id-of-%[src_port]\n    server s {server} {words}"
            );
            cases.push((via, case, version, words.contains("crc32c")));
        }
    }
    let _haproxy = Daemon::haproxy(&world.namespace, &sections, FRONT);
    for (via, case, version, has_tlvs) in cases {
        each_client_is_declared(&world, via, case, version);
        let (_, declared) = world.accepted(case.into());
        let tlvs: Vec<Tlv<'_>> = declared.tlvs().iter().collect();
        if has_tlvs {
            let port = declared.endpoints().expect("a client").0.port();
            let id = format!("id-of-{port}");
            assert!(tlvs.iter().any(|tlv| matches!(tlv, Tlv::Crc32c(_))), "{tlvs:?}");
            assert!(tlvs.contains(&Tlv::UniqueId(id.as_bytes())), "{tlvs:?}");
        } else {
            assert!(tlvs.is_empty(), "{tlvs:?}");
        }
    }
    world.finish();
}

#[test]
fn haproxy_passes_on_what_tls_said_to_it() {
    skip_unless_net_admin!();
    require("openssl", "openssl");
    let world = World::new();
    let pem = certificate(&world);
    let mut sections = String::new();
    for (case, via) in (0..).zip(Via::ALL) {
        let back = world.ours(via, BACK + case);
        world.listen(&back, case.into(), Versions::Only(Version::V2), PATIENT);
        let _ = writeln!(
            sections,
            "listen p{case}\n    bind 127.0.0.1:{} ssl crt {pem}\n    \
             server s {} send-proxy-v2 proxy-v2-options ssl,authority,crc32c",
            FRONT + case,
            back.written("unix@")
        );
    }
    let _haproxy = Daemon::haproxy(&world.namespace, &sections, FRONT);
    for (case, via) in (0..).zip(Via::ALL) {
        let front = FRONT + case;
        let client = format!(
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -connect 127.0.0.1:{front} \
             -servername proxy.example"
        );
        let said = world.run("sh", &["-c", &client]).success().stdout;
        let (flow, declared) = world.accepted(case.into());
        let (client, called) = declared.endpoints().expect("a client");
        assert_eq!((flow.protocol, called), (via.protocol(), fronts(front)[0]));
        assert!(said.ends_with(&format!("{client}->{called}")), "{said}");
        let tlvs: Vec<Tlv<'_>> = declared.tlvs().iter().collect();
        assert!(tlvs.contains(&Tlv::Authority(b"proxy.example")), "{via:?}: {tlvs:?}");
        let has_tls = |tlv: &Tlv<'_>| matches!(tlv, Tlv::Ssl(ssl) if ssl.tlvs.iter().count() > 0);
        assert!(tlvs.iter().any(has_tls), "{via:?}: {tlvs:?}");
    }
    world.finish();
}

/// A certificate that signs itself, with its key, in one file.
fn certificate(world: &World) -> String {
    let (key, cert, pem) = (world.path("key"), world.path("cert"), world.path("pem"));
    let text = |path: &std::path::Path| path.to_str().expect("a path of text").to_owned();
    let subject = ["-subj", "/CN=proxy.example", "-days", "2", "-nodes"];
    let files = ["-keyout", &text(&key), "-out", &text(&cert)].map(str::to_owned);
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    let _ = world.run("openssl", &[&kind[..], &subject, &files].concat()).success();
    let read = |path| fs::read(path).expect("openssl wrote it");
    fs::write(&pem, [read(&cert), read(&key)].concat()).expect("room for it");
    text(&pem)
}

#[test]
fn haproxy_checks_us_with_headers_of_its_own() {
    skip_unless_net_admin!();
    let world = World::new();
    let mut sections = String::new();
    let mut cases = Vec::new();
    for via in Via::ALL {
        for (words, version) in [("send-proxy", Version::V1), ("send-proxy-v2", Version::V2)] {
            let case = u16::try_from(cases.len()).expect("few");
            let back = world.ours(via, BACK + case);
            world.listen(&back, case.into(), Versions::Only(version), PATIENT);
            // The check asks for an echo, so that the server is up only if the header was taken and nothing else was.
            let _ = writeln!(
                sections,
                "listen p{case}\n    bind 127.0.0.1:{}\n    option tcp-check\n    \
                 tcp-check connect send-proxy\n    tcp-check send are-you-there\n    \
                 tcp-check expect string are-you-there\n    \
                 server s {} {words} check inter 100ms rise 2 fall 1",
                FRONT + case,
                back.written("unix@")
            );
            cases.push((via, case, version));
        }
    }
    let mut haproxy = Daemon::haproxy(&world.namespace, &sections, FRONT);
    for (via, case, version) in cases {
        let (flow, declared) = world.accepted(case.into());
        assert_eq!((flow.protocol, declared.version()), (via.protocol(), version));
        assert_eq!(declared.is_local(), version == Version::V2);
        // Version 1 has no such word: there the proxy names itself.
        let own = via.our_ip().filter(|_| version == Version::V1).map(|_| (flow.remote, flow.local));
        assert_eq!(
            declared.endpoints().map(|(from, to)| (Endpoint::from(from), Endpoint::from(to))),
            own,
            "{via:?}"
        );
        let checks = |bytes: &[u8]| bytes == b"are-you-there";
        world.wait_for("a check's bytes, and no others", |note| match note {
            Note::Bytes { case: its, bytes } if *its == u64::from(case) => {
                Some(checks(bytes)).filter(|is| *is)
            }
            _ => None,
        });
    }
    let said = haproxy.process().transcript();
    assert!(!said.contains("is DOWN"), "{said}");
    world.finish();
}

#[test]
fn nginx_declares_its_clients() {
    skip_unless_net_admin!();
    let world = World::new();
    let mut servers = String::new();
    for (case, via) in (0..).zip(Via::ALL) {
        let back = world.ours(via, BACK + case);
        world.listen(&back, case.into(), Versions::Any, PATIENT);
        let front = FRONT + case;
        let _ = writeln!(
            servers,
            "server {{ listen 127.0.0.1:{front}; listen [::1]:{front}; proxy_pass {}; proxy_protocol on; }}",
            back.written("unix:")
        );
    }
    let _nginx = Daemon::nginx(&world.namespace, &format!("stream {{\n{servers}}}"), FRONT);
    for (case, via) in (0..).zip(Via::ALL) {
        each_client_is_declared(&world, via, case, Version::V1);
    }
    world.finish();
}

#[test]
fn curl_declares_itself() {
    skip_unless_net_admin!();
    let world = World::new();
    // From 8.2 on.
    let names_others = world.run("curl", &["--help", "all"]).stdout.contains("--haproxy-clientip");
    for (case, via) in (0..).zip(Via::ALL) {
        let back = world.ours(via, BACK + case);
        world.listen(&back, case.into(), Versions::Any, PATIENT);
        let Some(at) = back.endpoint() else {
            let path = back.path().to_str().expect("a path of text");
            let got = curl(&world, &["--haproxy-protocol", "--unix-socket", path, "http://unix/"]);
            assert_eq!(got.body, "unknown", "a Unix socket has no address that version 1 could say");
            continue;
        };
        let url = format!("http://{at}/");
        let got = curl(&world, &["--haproxy-protocol", &url]);
        assert_eq!(got.body, format!("{}->{at}", got.from));
        let (flow, declared) = world.accepted(case.into());
        assert_eq!(declared.endpoints(), Some((got.from, at)));
        assert_eq!(
            (flow.remote.addr, flow.remote.port),
            (got.from.ip(), got.from.port()),
            "it speaks of itself"
        );
        if names_others && at.is_ipv4() {
            let got = curl(&world, &["--haproxy-clientip", "192.0.2.7", &url]);
            assert!(got.body.starts_with("192.0.2.7:"), "{}", got.body);
        }
    }
    world.finish();
}

#[test]
fn a_header_that_socat_passes_on_is_taken_and_the_bytes_behind_it_are_echoed() {
    skip_unless_net_admin!();
    require("socat", "socat");
    let world = World::new();
    for (case, via) in (0..).zip(Via::ALL) {
        let back = world.ours(via, BACK + case);
        world.listen(&back, case.into(), Versions::Any, PATIENT);
        let to = match back.endpoint() {
            Some(at) => format!("TCP:{at}"),
            None => format!("UNIX-CONNECT:{}", back.path().display()),
        };
        let header = "PROXY TCP6 2001:db8::7 2001:db8::1 1234 443\\r\\n";
        let talk = format!("printf '{header}hello' | socat -t 50 - {to}");
        let done = world.run("sh", &["-c", &talk]).success();
        assert_eq!(done.stdout, "hello", "{via:?}");
        let (_, declared) = world.accepted(case.into());
        assert_eq!(declared.to_string(), "[2001:db8::7]:1234->[2001:db8::1]:443");
    }
    world.finish();
}

#[test]
fn a_stream_behind_a_header_is_whole() {
    skip_unless_net_admin!();
    let world = World::new();
    let mut sections = String::new();
    let mut listens = Vec::new();
    for (case, via) in (0..).zip(Via::ALL) {
        let back = world.ours(via, BACK + case);
        let stages = StagePlans::one(ReceiveProxy::default());
        listens.push(ListenOptions { stages, ..ListenOptions::on(back.address()) });
        let (front, server) = (FRONT + case, back.written("unix@"));
        let _ = writeln!(
            sections,
            "listen p{case}\n    bind 127.0.0.1:{front}\n    server s {server} send-proxy-v2"
        );
    }
    let echo = EchoServer::new(listens);
    let (listening, stats) = (echo.listening(), echo.stats());
    world.handle.attach(echo, AttachOptions::named("echo")).expect("room for it");
    let listening = listening.recv_timeout(LIMIT).expect("told once");
    assert!(listening.all_up(), "{listening:?}");
    let _haproxy = Daemon::haproxy(&world.namespace, &sections, FRONT);
    let bytes: Vec<u8> = (0_u32..1 << 19).flat_map(u32::to_be_bytes).collect();
    for (case, via) in (0..).zip(Via::ALL) {
        let stream = peers::connect(&world.namespace, fronts(FRONT + case)[0]).expect("HAProxy listens");
        let back = peers::exchange(&stream, &bytes).expect("it is echoed");
        assert!(back == bytes, "{via:?}: {} bytes came back", back.len());
    }
    // Not a byte of a header was echoed.
    assert_eq!(stats.totals().bytes, (bytes.len() * Via::ALL.len()) as u64);
    world.finish();
}

#[test]
fn a_hundred_clients_at_once_are_each_declared_once() {
    skip_unless_net_admin!();
    const CLIENTS: usize = 100;
    let world = World::new();
    let mut sections = String::new();
    for (case, via) in (0..).zip(Via::ALL) {
        let back = world.ours(via, BACK + case);
        world.listen(&back, case.into(), Versions::Only(Version::V2), PATIENT);
        let (front, server) = (FRONT + case, back.written("unix@"));
        let _ = writeln!(
            sections,
            "listen p{case}\n    bind 127.0.0.1:{front}\n    server s {server} send-proxy-v2 \
             proxy-v2-options crc32c"
        );
    }
    let _haproxy = Daemon::haproxy(&world.namespace, &sections, FRONT);
    for (case, via) in (0..).zip(Via::ALL) {
        let front = fronts(FRONT + case)[0];
        // All are open before the first is let go.
        let streams: Vec<_> =
            (0..CLIENTS).map(|_| peers::connect(&world.namespace, front).expect("HAProxy listens")).collect();
        let ours: BTreeSet<SocketAddr> =
            streams.iter().map(|stream| stream.local_addr().expect("it is connected")).collect();
        let declared = || -> Vec<SocketAddr> {
            let notes = world.notes();
            let of_case = notes.iter().filter_map(|note| match note {
                Note::Accepted { case: its, declared, .. } if *its == u64::from(case) => declared.endpoints(),
                _ => None,
            });
            of_case.map(|(client, _)| client).collect()
        };
        wait::until("all of them", LIMIT, || (declared().len() >= CLIENTS).then_some(()));
        let told = declared();
        assert_eq!((told.len(), told.into_iter().collect()), (CLIENTS, ours), "{via:?}");
    }
    world.finish();
}
