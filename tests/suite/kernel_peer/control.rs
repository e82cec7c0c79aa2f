//! `hoststack ctl` beside live sessions: what it lists is what the kernel sees.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;

use hoststack_tests::peers;
use hoststack_tests::wait;

use crate::world::{ECHO, ECHO_PORT, Family, LIMIT, World, assert_no_leaks, family_tests, number};

family_tests! {
    sessions_are_listed_with_their_endpoints
    drops_are_told_by_reason
    a_syn_is_traced_and_captured
    a_detach_of_one_app_worker_leaves_the_sessions_of_the_other
}

fn sessions_are_listed_with_their_endpoints(family: Family) {
    let world = World::new();
    let server = world.run(2, "", ECHO);
    let at = SocketAddr::new(family.ours(), ECHO_PORT);
    let streams: Vec<_> = (0..5).map(|_| peers::connect(&world.namespace, at).unwrap()).collect();
    server.wait_for_sessions(5);
    let answer = server.ask("show session verbose 2");
    assert_eq!((number(&answer, "/summary/open"), number(&answer, "/summary/total")), (5, 5));
    let sessions = answer["sessions"].as_array().unwrap();
    let listed: BTreeSet<_> =
        sessions.iter().map(|session| session["remote"].as_str().unwrap().to_owned()).collect();
    let expected: BTreeSet<_> =
        streams.iter().map(|stream| stream.local_addr().unwrap().to_string()).collect();
    assert_eq!(listed, expected);
    for session in sessions {
        assert_eq!(session["local"].as_str(), Some(at.to_string().as_str()), "{session:#}");
        assert!(session["transport"].as_str().is_some_and(|text| text.contains('=')), "{session:#}");
    }
    assert_eq!(server.ask("show session verbose limit 2")["sessions"].as_array().map(Vec::len), Some(2));
    let held = server.ask("show leaks");
    assert_eq!((&held["clean"], number(&held, "/leaks/sessions")), (&false.into(), 5), "{held:#}");
    drop(streams);
    server.wait_for_sessions(0);
    let _ = server.end();
}

fn drops_are_told_by_reason(family: Family) {
    let world = World::new();
    let server = world.run(1, "", ECHO);
    let refused = peers::connect(&world.namespace, SocketAddr::new(family.ours(), 9)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let errors = server.ask("show errors nonzero");
    let errors = errors["errors"].as_array().unwrap();
    let is_told = |error: &serde_json::Value| {
        let has = |name: &str| error[name].as_str().is_some_and(|text| !text.is_empty());
        has("reason") && has("help") && number(error, "/count") > 0
    };
    assert!(!errors.is_empty() && errors.iter().all(is_told), "{errors:#?}");
    let _ = server.end();
}

fn a_syn_is_traced_and_captured(family: Family) {
    let world = World::new();
    let server = world.run(1, "", ECHO);
    let at = SocketAddr::new(family.ours(), ECHO_PORT);
    let file = world.path("syn.pcapng");
    let _ = server.ask(&format!("trace add tcp syn local-port {ECHO_PORT} count 2"));
    let _ = server.ask(&format!("pcap start {} tcp syn port {ECHO_PORT}", file.display()));
    let stream = peers::connect(&world.namespace, at).unwrap();
    server.wait_for_sessions(1);
    let answer = server.ask("show trace");
    let records = answer["records"].as_array().unwrap();
    let directions: Vec<_> = records.iter().map(|record| record["direction"].as_str().unwrap()).collect();
    assert_eq!(directions, ["in", "out"], "{answer:#}");
    assert!(records.iter().all(|record| !record["stages"].as_array().unwrap().is_empty()), "{answer:#}");
    let report = server.ask("pcap stop");
    assert_eq!(number(&report, "/capture/packets"), 2, "{report:#}");
    let mut tshark = std::process::Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(&file).args(["-T", "fields", "-e", "tcp.flags.ack", "-e", "tcp.dstport"]);
    let read = hoststack_tests::Process::spawn("tshark", tshark).wait(LIMIT).success().stdout;
    let local = stream.local_addr().unwrap().port();
    let lines: Vec<&str> = read.lines().collect();
    let flag = |line: &str| line.starts_with('1') || line.starts_with("True");
    assert_eq!(lines.iter().map(|line| flag(line)).collect::<Vec<_>>(), [false, true], "{read}");
    assert!(
        lines[0].ends_with(&format!("\t{ECHO_PORT}")) && lines[1].ends_with(&format!("\t{local}")),
        "{read}"
    );
    drop(stream);
    server.wait_for_sessions(0);
    let _ = server.end();
}

fn a_detach_of_one_app_worker_leaves_the_sessions_of_the_other(family: Family) {
    let world = World::new();
    let host = if family == Family::V4 { "0.0.0.0" } else { "[::]" };
    let app = format!(
        "[[app]]\nname = \"echo\"\nkind = \"echo\"\nlisten = [\"{host}:7\", \"{host}:8\"]\napp_workers = 2\n"
    );
    let server = world.run(1, "", &app);
    // Endpoints are dealt out in turn: port 7 is app worker 0's, port 8 is app worker 1's.
    let [mut kept, mut gone] =
        [7, 8].map(|port| peers::connect(&world.namespace, SocketAddr::new(family.ours(), port)).unwrap());
    server.wait_for_sessions(2);
    let detach = server.ctl("app detach echo app-worker 1");
    assert_eq!(gone.read(&mut [0; 8]).unwrap(), 0);
    drop(gone);
    assert_eq!(number(&detach.wait(LIMIT).success().json(), "/detached/0/app_worker"), 1);
    let mut back = [0; 5];
    kept.write_all(b"still").unwrap();
    kept.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still");
    let refused = peers::connect(&world.namespace, SocketAddr::new(family.ours(), 8)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    drop(kept);
    wait::until("the last session to end", LIMIT, || {
        let leaks = server.ask("show leaks");
        (leaks["clean"] == true).then(|| assert_no_leaks(&leaks))
    });
    let _ = server.end();
}
