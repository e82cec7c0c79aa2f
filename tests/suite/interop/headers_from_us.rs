//! Headers that we send, to programs that tell whom they were told of.

use std::fmt::Write as _;

use hoststack::app::proxy::{Origin, SendProxy, Tlv, TlvBuffer, Version, Versions};
use hoststack::app::{AttachOptions, ConnectOptions, DetachPolicy, StagePlans};
use hoststack_builtin::{Fetch, FetchOptions, FetchRequest, FetchSink, Fetched};
use hoststack_tests::peers::Daemon;
use hoststack_tests::skip_unless_net_admin;

use crate::world::{LIMIT, Place, Via, World};

/// Where the program listens that reads headers.
const PORT: u16 = 8100;

/// What a program says that was called at `at`, over a connection that began with that header.
fn told(world: &World, at: &Place, send: SendProxy, local_port: u16) -> String {
    let request = FetchRequest {
        remote: ConnectOptions {
            stages: StagePlans::one(send),
            local_port,
            ..ConnectOptions::to(at.address())
        },
        host: "peer".to_owned(),
        path: "/".to_owned(),
        sink: FetchSink::Memory,
    };
    let fetch = Fetch::new(vec![request], FetchOptions::default());
    let handle = fetch.handle();
    let attached = world.handle.attach(fetch, AttachOptions::named("fetch")).expect("the only one");
    let outcome = handle.outcomes().recv_timeout(LIMIT).expect("an outcome in time");
    world.handle.detach(attached.app, DetachPolicy::default()).expect("it is attached");
    match outcome.result {
        Ok(Fetched::Memory(body)) => String::from_utf8(body).expect("text").trim().to_owned(),
        other => panic!("{at:?}: {other:?}"),
    }
}

/// What a header may say, and what a program makes of it. `own` is the connection itself, `nobody` is what stands there
/// without an address.
fn origins(own: Option<&str>, nobody: &str) -> Vec<(Origin, String)> {
    let of = |source: &str, destination: &str| {
        Origin::Of(source.parse().expect("an endpoint"), destination.parse().expect("an endpoint"))
    };
    vec![
        (of("192.0.2.7:1234", "198.51.100.1:443"), "192.0.2.7 1234 198.51.100.1 443".to_owned()),
        (of("[2001:db8::7]:65535", "[2001:db8::1]:1"), "2001:db8::7 65535 2001:db8::1 1".to_owned()),
        (Origin::Own, own.unwrap_or(nobody).to_owned()),
        (Origin::Local, nobody.to_owned()),
    ]
}

/// Goes through all ways, versions and origins. `nobody` says what the program makes of a header without addresses over
/// a connection with these.
fn each_origin_is_told(world: &World, nobody: impl Fn(Option<&str>) -> String) {
    let mut local_port = 41_000;
    for via in Via::ALL {
        let at = world.theirs(via, PORT);
        for version in [Version::V1, Version::V2] {
            for number in 0..origins(None, "").len() {
                local_port += 1;
                let own = at.endpoint().zip(via.our_ip());
                let own = own.map(|(at, from)| format!("{from} {local_port} {} {}", at.ip(), at.port()));
                let (origin, expected) = origins(own.as_deref(), &nobody(own.as_deref())).swap_remove(number);
                let send = SendProxy { origin: origin.clone(), ..SendProxy::new(version) };
                let port = if own.is_some() { local_port } else { 0 };
                let said = told(world, &at, send, port);
                assert_eq!(said, expected.trim(), "{via:?} {version:?} {origin:?}");
            }
        }
    }
}

#[test]
fn haproxy_is_told_whom_we_declare() {
    skip_unless_net_admin!();
    let world = World::new();
    let mut binds = String::new();
    for via in Via::ALL {
        let _ = writeln!(binds, "    bind {} accept-proxy", world.theirs(via, PORT).written("unix@"));
    }
    let sections = format!(
        "frontend f\n    mode http\n    option httplog\n{binds}    \
         http-request return status 200 content-type text/plain lf-string \
         \"%[src] %[src_port] %[dst] %[dst_port]\""
    );
    let _haproxy = Daemon::haproxy(&world.namespace, &sections, PORT);
    // It falls back to the connection's own addresses; over a Unix socket there are none.
    each_origin_is_told(&world, |own| own.unwrap_or_default().to_owned());
    world.finish();
}

#[test]
fn nginx_is_told_whom_we_declare() {
    skip_unless_net_admin!();
    let world = World::new();
    let mut listens = String::new();
    for via in Via::ALL {
        let _ = writeln!(listens, "listen {} proxy_protocol;", world.theirs(via, PORT).written("unix:"));
    }
    let told =
        "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port";
    let sections = format!(
        "http {{ access_log off; client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; \
         fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi; \
         server {{ {listens} default_type text/plain; return 200 \"{told}\\n\"; }} }}"
    );
    let _nginx = Daemon::nginx(&world.namespace, &sections, PORT);
    // Its variables are of the header alone.
    each_origin_is_told(&world, |_| String::new());
    world.finish();
}

#[test]
fn haproxy_passes_on_whom_we_declare() {
    skip_unless_net_admin!();
    let world = World::new();
    // In by one way, out by each.
    let mut sections = String::new();
    for (case, via) in (0..).zip(Via::ALL) {
        let back = world.ours(via, 7000 + case);
        world.listen(&back, case.into(), Versions::Only(Version::V2), LIMIT);
        let (front, server) = (PORT + case, back.written("unix@"));
        let mut binds = String::new();
        for way in Via::ALL {
            let _ = writeln!(binds, "    bind {} accept-proxy", world.theirs(way, front).written("unix@"));
        }
        let _ = writeln!(sections, "listen p{case}\n{binds}    server s {server} send-proxy-v2");
    }
    let _haproxy = Daemon::haproxy(&world.namespace, &sections, PORT);
    for (case, _) in (0..).zip(Via::ALL) {
        for (n, way) in (1..).zip(Via::ALL) {
            let (client, called) = (format!("192.0.2.{n}:1234"), "198.51.100.1:443");
            let mut tlvs = TlvBuffer::new();
            // HAProxy 2.6 reads on and checks the sum.
            tlvs.push(Tlv::Authority(b"proxy.example")).expect("room");
            tlvs.push(Tlv::Crc32c(0)).expect("room");
            let origin =
                Origin::Of(client.parse().expect("an endpoint"), called.parse().expect("an endpoint"));
            let send = SendProxy { origin, tlvs, ..SendProxy::new(Version::V2) };
            let said = told(&world, &world.theirs(way, PORT + case), send, 0);
            assert_eq!(said, format!("{client}->{called}"), "{way:?}, case {case}");
        }
    }
    world.finish();
}
