//! What `hoststack ctl` shows of a stack, and its traces, captures and pings: each as text and as JSON.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use hoststack_tests::{Process, wait};
use serde_json::Value;

use super::run::{Desk, text};
use crate::LIMIT;

/// Two domains with a wire between them, and an echo server on one of them and on a socket of the host.
const WIRE: &str = r#"workers = 2

[[device]]
name = "wire:a"
addresses = ["10.1.0.1/24", "fd01::1/64"]

[[device]]
name = "wire:a"
domain = 1
addresses = ["10.1.0.2/24", "fd01::2/64"]

[[app]]
name = "echo"
kind = "echo"
listen = ["10.1.0.1:7", "kernel+tcp://127.0.0.1:0"]
app_workers = 2
"#;

/// A stack with one session, which has echoed five bytes; the session's handle.
struct Talk {
    desk: Desk,
    stack: Process,
    stream: TcpStream,
    session: String,
}

impl Talk {
    fn begin() -> Talk {
        let desk = Desk::new();
        let stack = desk.start_with(WIRE);
        let listeners = desk.ask("show listener");
        let listeners = listeners["listeners"].as_array().expect("a list");
        let address = |one: &Value| {
            one["address"].as_str().and_then(|at| at.strip_prefix("kernel+tcp://")).map(str::to_owned)
        };
        let at = listeners.iter().find_map(address).expect("a socket of the host");
        let mut stream = TcpStream::connect(at).expect("it listens");
        stream.write_all(b"hello").expect("it reads");
        let mut back = [0; 5];
        stream.read_exact(&mut back).expect("it echoes");
        let sessions = desk.ask("show session limit 1");
        let session = sessions["sessions"][0]["session"].as_str().expect("a handle").to_owned();
        Talk { desk, stack, stream, session }
    }

    fn end(self) {
        drop(self.stream);
        let _ = super::run::ends_clean(self.stack, hoststack_tests::process::Signal::TERM, &self.desk);
    }
}

/// Asserts that a text has all of these.
#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

/// The list at a JSON pointer; it is not empty.
#[track_caller]
fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    let list = value.pointer(pointer).and_then(Value::as_array);
    let list = list.unwrap_or_else(|| panic!("no list {pointer} in {value:#}"));
    assert!(!list.is_empty(), "{pointer} is empty in {value:#}");
    list
}

/// Asserts that all of these pointers lead to something in a value.
#[track_caller]
fn leads(value: &Value, pointers: &[&str]) {
    for pointer in pointers {
        assert!(value.pointer(pointer).is_some(), "no {pointer} in {value:#}");
    }
}

/// The JSON documents of a command that answers in parts.
#[track_caller]
fn documents(desk: &Desk, command: &str) -> Vec<Value> {
    let text = desk.ctl(&["--json"], command).success().stdout;
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn threads_and_their_figures_are_shown() {
    let talk = Talk::begin();
    let desk = &talk.desk;
    has(&desk.show("show worker"), &["load, last seconds", "packets at a time", "bytes in", "SYN-RECEIVED"]);
    let workers = desk.ask("show worker");
    assert_eq!(list(&workers, "/workers").len(), 2);
    leads(&workers, &["/workers/0/pace/busy_us", "/workers/1/rx_vectors", "/main/tuples", "/since/now_us"]);
    let sessions: u64 = list(&workers, "/workers").iter().filter_map(|one| one["sessions"].as_u64()).sum();
    assert_eq!(sessions, 1);
    has(&desk.show("show main"), &["load, since start", "half-open connections", "tickets dropped"]);
    leads(&desk.ask("show main"), &["/main/steps", "/main/pace/load_permille", "/since/counters_us"]);

    has(&desk.show("show histogram"), &["connect-latency", "rx-vector", "p99.9"]);
    let step = desk.show("show histogram step");
    has(&step, &["step       all", "share", "###"]);
    assert!(!step.contains("rtt"), "{step}");
    let rtt = desk.show("show histogram rtt");
    assert!(rtt.ends_with("(of this stack's own TCP: sockets of the host do not tell theirs)\n"), "{rtt}");
    let step = desk.ask("show histogram step");
    assert!(list(&step, "/histograms").iter().all(|one| one["name"] == "step" && one["unit"] == "us"));
    leads(&step, &["/histograms/0/p999", "/histograms/0/buckets/0/below"]);

    let transports = desk.show("show transport");
    has(&transports, &["kernel+tcp", "kernel+unix", "retransmitted"]);
    let transports = desk.ask("show transport");
    let kernel = list(&transports, "/transports").iter().find(|one| one["transport"] == "kernel+tcp");
    let kernel = kernel.expect("a row of its own");
    assert_eq!(
        (&kernel["connections"], &kernel["accepted"], &kernel["bytes_in"]),
        (&1.into(), &1.into(), &5.into())
    );
    assert_eq!(desk.show("show congestion"), "no TCP connection\n");
    assert_eq!(desk.ask("show congestion")["congestion"], Value::Array(Vec::new()));

    has(&desk.show("show channel"), &["requests  handles", "handover", "worker 1", "outbox"]);
    leads(&desk.ask("show channel"), &["/channels/0/sent", "/channels/0/outbox_max"]);
    let memory = desk.show("show memory");
    has(&memory, &["sessions", "held in all"]);
    let all = desk.show("show memory all");
    assert!(
        all.lines().count() > memory.lines().count() && all.contains("parked") | all.contains("local-ends"),
        "{all}"
    );
    leads(&desk.ask("show memory"), &["/held_bytes", "/pools/0/owner", "/pools/0/element_bytes"]);
    talk.end();
}

#[test]
fn the_network_is_shown() {
    let talk = Talk::begin();
    let desk = &talk.desk;
    let _ = desk.show("ping 10.1.0.2 count 1");
    let interfaces = desk.show("show interface");
    has(&interfaces, &["a.0", "a.1", "10.1.0.1/24", "tx waiting"]);
    assert!(!interfaces.contains("worker 1"), "{interfaces}");
    has(&desk.show("show interface verbose"), &["  worker 0", "  worker 1"]);
    let interfaces = desk.ask("show interface");
    assert_eq!(list(&interfaces, "/interfaces").len(), 2);
    leads(&interfaces, &["/interfaces/0/queues/1/rx_packets", "/interfaces/1/mtu", "/since/counters_us"]);
    has(&desk.show("show route"), &["10.1.0.0/24", "connected", "fd01::/64"]);
    let routes = desk.ask("show route limit 1");
    assert_eq!((list(&routes, "/routes").len(), &routes["total"]), (1, &4.into()));
    leads(&routes, &["/routes/0/interface_name", "/path_mtus"]);
    let neighbors = desk.ask("show neighbor");
    let total = neighbors["total"].as_u64().expect("a number");
    assert_eq!(neighbors["neighbors"].as_array().map(|all| all.len() as u64), Some(total));
    let shown = desk.show("show neighbor");
    has(&shown, &[if total == 0 { "no neighbors are known" } else { "ethernet address" }]);
    has(&desk.show("show ports"), &["ephemeral ports  1024 to 65535", "TIME-WAIT"]);
    leads(&desk.ask("show ports"), &["/first", "/held/time_wait", "/under_way", "/remotes"]);
    talk.end();
}

#[test]
fn errors_and_counters_are_shown_and_begin_anew() {
    let talk = Talk::begin();
    let desk = &talk.desk;
    let count = |reason: &str| {
        let errors = desk.ask("show errors");
        let all = list(&errors, "/errors");
        let one = all.iter().find(|one| one["reason"] == reason).expect("each reason is listed");
        assert_eq!(one["workers"].as_array().map(Vec::len), Some(2));
        one["count"].as_u64().expect("a number")
    };
    assert_eq!(desk.show("show errors nonzero"), "nothing was dropped\n");
    assert_eq!(count("destination-not-unicast"), 0);
    has(
        &desk.ctl(&[], "ping 10.1.0.255 count 2 interval 1ms").failure().stderr,
        &["10.1.0.255 did not answer"],
    );
    assert_eq!(count("destination-not-unicast"), 2);
    has(&desk.show("show errors nonzero"), &["destination-not-unicast"]);
    has(&desk.show("show counters"), &["ip counter", "total"]);
    leads(&desk.ask("show counters"), &["/counters", "/ip/0/total", "/ip/0/workers/1"]);

    assert_eq!(desk.show("clear errors"), "errors are counted from now on\n");
    assert_eq!(count("destination-not-unicast"), 0);
    let nothing = desk.show("show errors nonzero");
    has(&nothing, &["nothing was dropped\ncounted since `clear errors`, "]);
    assert_eq!(desk.ask("clear counters")["cleared"], "counters");
    has(&desk.show("show counters"), &["nothing was counted\ncounted since `clear counters`, "]);
    assert!(desk.ask("show worker")["since"]["counters_us"].as_u64().is_some_and(|at| at > 0));
    let wrong = desk.ctl(&[], "clear everything").failure();
    assert_eq!(wrong.status.code(), Some(2), "{}", wrong.transcript());
    talk.end();
}

#[test]
fn what_the_stack_was_built_with_is_shown() {
    let desk = Desk::new();
    let _stack = desk.start_with(WIRE);
    let shown = desk.show("show config");
    has(&shown, &["device[1].domain = 1", "*  workers"]);
    let all = desk.show("show config all");
    assert!(all.lines().count() > shown.lines().count() + 10, "{all}");
    let json = desk.ask("show config");
    let workers = list(&json, "/stack").iter().find(|item| item["name"] == "workers").expect("a setting");
    assert_eq!((&workers["value"], &workers["is_default"]), (&"2".into(), &false.into()));
    assert!(!list(&json, "/settings").is_empty());
}

#[test]
fn of_a_socket_of_the_host_only_what_is_known_is_shown() {
    let talk = Talk::begin();
    let desk = &talk.desk;
    let _ = desk.show("listen local://x app echo");
    let _ = desk.show("connect local://x");
    wait::until("both ends", wait::READY, || {
        (desk.ask("show session transport local count")["matched"] == 2).then_some(())
    });
    let one = desk.show(&format!("show session {}", talk.session));
    has(&one, &["\nmeasured\n  bytes_acked 5     bytes_received 5\n"]);
    let one = desk.ask(&format!("show session {}", talk.session));
    let measured = one["sessions"][0]["detail"]["measured"].clone();
    assert_eq!(measured, serde_json::json!({ "bytes_acked": "5", "bytes_received": "5" }));
    let local = desk.ask("show session transport local limit 1");
    let local = local["sessions"][0]["session"].as_str().expect("a handle").to_owned();
    has(
        &desk.show(&format!("show session {local}")),
        &["measured\n  nothing: this transport has no figures"],
    );
    // No state of the stack's own TCP either.
    assert_eq!(desk.ask("show session tcp-state ESTABLISHED count")["matched"], 0);
    talk.end();
}

#[test]
fn events_are_shown_by_session_app_and_as_they_come() {
    let talk = Talk::begin();
    let desk = &talk.desk;
    let handle = &talk.session;
    has(&desk.show("show events"), &["app-attached", "listener-up", "accepted", handle]);
    let last = desk.ask("show events limit 1");
    assert_eq!(list(&last, "/events").len(), 1);
    leads(&last, &["/next/2", "/lost", "/events/0/at_us"]);
    let own = desk.ask(&format!("show events session {handle}"));
    let own = list(&own, "/events");
    assert!(
        own[0]["event"] == "accepted" && own.iter().all(|event| event["session"] == **handle),
        "{own:#?}"
    );
    let of_app = desk.ask("show events app echo");
    let workers: Vec<_> = list(&of_app, "/events").iter().map(|event| &event["app_worker"]).collect();
    assert!(workers.iter().all(|name| **name == "echo/0" || **name == "echo/1"), "{workers:?}");
    assert_eq!(desk.ask("show events app nobody")["events"], Value::Array(Vec::new()));

    // The page of a session ends with them.
    let one = desk.show(&format!("show session {handle}"));
    let events = one.split("last events\n").nth(1).unwrap_or_else(|| panic!("no last events in\n{one}"));
    has(events, &["time", "accepted", "announced"]);
    let one = desk.ask(&format!("show session {handle}"));
    assert_eq!(
        (&list(&one, "/sessions")[0]["session"], &list(&one, "/events")[0]["event"]),
        (&(**handle).into(), &"accepted".into())
    );

    // Who follows is told of what happens later.
    let socket = desk.socket();
    let mut follower =
        crate::start(&["ctl", "--socket", text(&socket), "show", "events", "--follow", "limit", "2"]);
    follower.wait_for_output("announced", wait::READY);
    assert!(!follower.stdout().contains("closed"), "{}", follower.transcript());
    let Talk { desk, stack, stream, session } = talk;
    drop(stream);
    follower.wait_for_output("closed", wait::READY);
    let shown = follower.stdout();
    assert_eq!(shown.lines().filter(|line| line.contains("app-worker")).count(), 1, "one heading\n{shown}");
    assert!(shown.lines().last().is_some_and(|line| line.contains(&session)), "{shown}");
    follower.terminate();
    drop(follower);
    // It is forgotten with its client.
    wait::until("the follower to be gone", wait::READY, || {
        (desk.ask("show cli")["sockets"][0]["clients"] == 1).then_some(())
    });
    let _ = super::run::ends_clean(stack, hoststack_tests::process::Signal::TERM, &desk);
}

#[test]
fn a_ping_is_told_line_by_line() {
    let desk = Desk::new();
    let _stack = desk.start_with(WIRE);
    for to in ["10.1.0.2", "fd01::2"] {
        let shown = desk.show(&format!("ping {to} count 3 interval 1ms size 100"));
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 4, "{shown}");
        for (seq, line) in (1..).zip(&lines[..3]) {
            assert!(line.starts_with(&format!("{seq}: reply of 100 bytes from {to}: ttl 64, ")), "{shown}");
        }
        assert!(lines[3].starts_with("3 requests, 3 replies, 0% lost; round trip "), "{shown}");
    }
    // The way back, from the other domain.
    has(&desk.show("ping 10.1.0.1 count 1 domain 1"), &["1: reply of 56 bytes from 10.1.0.1"]);
    let parts = documents(&desk, "ping 10.1.0.2 count 2 interval 1ms");
    assert_eq!(
        (parts.len(), &parts[1]["result"]["seq"], &parts[1]["result"]["outcome"]),
        (3, &2.into(), &"reply".into())
    );
    leads(&parts[2], &["/summary/rtt_median_us", "/summary/lost_percent"]);

    // One's own address answers too.
    has(&desk.show("ping 10.1.0.1 count 1"), &["1: reply of 56 bytes from 10.1.0.1", "0% lost"]);
    let nobody = desk.ctl(&[], "ping 10.1.0.255 count 1").failure();
    assert!(
        nobody.status.code() == Some(1) && nobody.stdout.contains("not sent: destination-not-unicast"),
        "{}",
        nobody.transcript()
    );
    for (command, code, part) in [
        ("ping 10.1.0.2 count 0", 1, "count of 1 or more"),
        ("ping 10.1.0.2 count 70000", 1, "1 to 65535"),
        ("ping 10.1.0.2 domain 7", 1, "no interface is in that domain"),
        ("ping nowhere", 2, "IPv4 or IPv6 address"),
    ] {
        let done = desk.ctl(&[], command).failure();
        assert!(done.status.code() == Some(code) && done.stderr.contains(part), "{}", done.transcript());
    }
    // A ping ends with its client.
    let socket = desk.socket();
    let mut long = crate::start(&[
        "ctl",
        "--socket",
        text(&socket),
        "ping",
        "10.1.0.2",
        "count",
        "60000",
        "interval",
        "10ms",
    ]);
    long.wait_for_output("2: reply", wait::READY);
    long.terminate();
    drop(long);
    wait::until("the ping to end", wait::READY, || {
        (desk.ask("show cli")["sockets"][0]["clients"] == 1).then_some(())
    });
}

#[test]
fn packets_are_traced_through_their_stages() {
    let desk = Desk::new();
    let _stack = desk.start_with(WIRE);
    has(&desk.show("show trace"), &["No trace: `trace add"]);
    assert_eq!(desk.ask("trace add icmp host 10.1.0.2 count 4")["trace"], "icmp host 10.1.0.2 count 4");
    let _ = desk.show("ping 10.1.0.2 count 1");
    let shown = wait::until("a packet", wait::READY, || {
        let shown = desk.show("show trace limit 10");
        (shown.matches(" in ").count() >= 2).then_some(shown)
    });
    has(&shown, &["trace icmp host 10.1.0.2 count 4\n", "icmp 10.1.0.1 > 10.1.0.2", "device-input"]);
    let answer = desk.ask("show trace");
    let records = list(&answer, "/records");
    assert_eq!(answer["total"], records.len());
    assert!(
        records.iter().all(|record| !record["stages"].as_array().expect("a list").is_empty()),
        "{answer:#}"
    );
    leads(&answer, &["/records/0/packet", "/records/0/summary", "/records/0/stages/0/text"]);
    assert_eq!(desk.show("trace clear"), "no packet is traced now\n");
    has(&desk.show("show trace"), &["No trace"]);
    for (command, part) in [
        ("trace add tcp prot 80", "no filter word `prot`"),
        ("trace add count 0", "from 1 to 10000"),
        ("trace add interface eth0", "there is no interface `eth0`"),
    ] {
        let done = desk.ctl(&[], command).failure();
        assert!(done.stderr.contains(part), "{}", done.transcript());
    }
    has(&desk.show("help trace add"), &["remote-port", "PORT[-PORT]"]);
}

#[test]
fn a_capture_is_read_by_tshark() {
    let desk = Desk::new();
    let _stack = desk.start_with(WIRE);
    let file = desk.directory().join("hs.pcapng");
    has(&desk.show("show pcap"), &["No capture"]);
    let started = desk.ask(&format!("pcap start {} icmp out size 64k", text(&file)));
    assert_eq!(
        (&started["capture"]["state"], &started["capture"]["bytes_max"]),
        (&"running".into(), &65536.into())
    );
    let twice = desk.ctl(&[], &format!("pcap start {}", text(&file))).failure();
    has(&twice.stderr, &["`pcap stop` it first"]);
    let _ = desk.show("ping 10.1.0.2 count 3 interval 1ms");
    has(&desk.show("show pcap"), &["filter", "icmp out", "running"]);
    let report = desk.ask("pcap stop");
    let report = &report["capture"];
    // Three requests of the one domain, three answers of the other.
    assert_eq!(
        (&report["state"], &report["packets"], &report["missed"]),
        (&"stopped".into(), &6.into(), &0.into())
    );
    has(&desk.ctl(&[], "pcap stop").failure().stderr, &["no capture was started"]);

    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r", text(&file), "-T", "fields", "-e", "ip.src", "-e", "icmp.type"]);
    let read = Process::spawn("tshark", tshark).wait(LIMIT).success().stdout;
    let mut lines: Vec<&str> = read.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["10.1.0.1\t8", "10.1.0.1\t8", "10.1.0.1\t8", "10.1.0.2\t0", "10.1.0.2\t0", "10.1.0.2\t0"]
    );
}

#[test]
fn who_may_only_read_neither_traces_nor_pings() {
    let desk = Desk::new();
    let view = desk.socket().with_extension("view");
    let cli = format!("{WIRE}\n[[cli]]\nsocket = \"{}\"\nlevel = \"user\"\n", text(&view));
    let file = desk.directory().join("user.toml");
    std::fs::write(&file, cli).expect("a file");
    let mut stack = crate::start(&["run", "-c", text(&file)]);
    stack.wait_for_output("ready:", wait::READY);
    let ctl = |command: &str| crate::run(&["ctl", "--socket", text(&view), command]);
    for command in
        ["trace add tcp", "trace clear", "pcap start /tmp/x", "pcap stop", "ping 10.1.0.2", "clear errors"]
    {
        let done = ctl(command).failure();
        assert!(done.status.code() == Some(2) && done.stderr.contains("level user"), "{}", done.transcript());
    }
    for command in ["show trace", "show pcap", "show events", "show ports"] {
        let _ = ctl(command).success();
    }
}
