//! `hoststack echo`: README's first command, and its options.

use std::collections::BTreeSet;

use hoststack_tests::capture::Frames;
use hoststack_tests::process::Signal;
use serde_json::Value;

use crate::{LIMIT, run, start};

/// Fields of the JSON object that scripts may rely on.
const FIELDS: [&str; 29] = [
    "sessions_requested",
    "connected",
    "refused",
    "timed_out",
    "unreachable",
    "cancelled",
    "cancels",
    "detached",
    "failed",
    "undelivered",
    "closed",
    "broken",
    "half_opens_at_detach",
    "sessions_at_detach",
    "reset_by_detach",
    "bytes_sent",
    "bytes_echoed",
    "bytes_mismatched",
    "retransmitted_segments",
    "wire",
    "seconds",
    "cpu_seconds",
    "connects_per_second",
    "echo_gbits_per_second",
    "connect_latency_us",
    "half_opens_cleaned",
    "addresses",
    "time_wait",
    "leaks",
];

#[track_caller]
fn number(report: &Value, pointer: &str) -> u64 {
    let value = report.pointer(pointer).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("no number {pointer} in {report:#}"))
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// Runs `echo --json` with these options: it must succeed, and its figures must add up.
#[track_caller]
fn echo(sessions: u64, bytes: u64, options: &[&str]) -> Value {
    let (count, size) = (sessions.to_string(), bytes.to_string());
    let mut arguments = vec!["echo", "--json", "--sessions", &count, "--bytes", &size];
    arguments.extend(options);
    let done = run(&arguments).success();
    assert_eq!(done.stdout.lines().count(), 1, "standard output is one object\n{}", done.transcript());
    let report = done.json();
    assert_adds_up(&report, sessions, bytes);
    report
}

#[track_caller]
fn assert_adds_up(report: &Value, sessions: u64, bytes: u64) {
    assert_complete(report);
    for (name, expected) in [
        ("sessions_requested", sessions),
        ("connected", sessions),
        ("refused", 0),
        ("timed_out", 0),
        ("unreachable", 0),
        ("cancelled", 0),
        ("cancels", 0),
        ("detached", 0),
        ("failed", 0),
        ("undelivered", 0),
        ("broken", 0),
        ("half_opens_at_detach", 0),
        ("sessions_at_detach", 0),
        ("reset_by_detach", 0),
        ("bytes_sent", sessions * bytes),
        ("bytes_echoed", sessions * bytes),
        ("bytes_mismatched", 0),
        ("half_opens_cleaned", sessions),
    ] {
        assert_eq!(number(report, &format!("/{name}")), expected, "{name} in {report:#}");
    }
    // The client closes first and keeps each TIME-WAIT; the shortest echo is three packets of handshake and four to close.
    assert_eq!(number(report, "/time_wait"), sessions);
    assert!(number(report, "/wire/segments") >= 5 * sessions, "{report:#}");
}

/// Every field is there, nothing leaked, and figures that hang together do.
#[track_caller]
fn assert_complete(report: &Value) {
    let has = keys(report);
    let missing: Vec<_> = FIELDS.iter().filter(|field| !has.contains(*field)).collect();
    assert!(missing.is_empty(), "no {missing:?} in {report:#}");
    assert_eq!(keys(&report["wire"]), BTreeSet::from(["segments", "dropped", "reordered", "duplicated"]));
    assert_eq!(keys(&report["connect_latency_us"]), BTreeSet::from(["p50", "p99", "max"]));
    let leaks = BTreeSet::from([
        "sessions",
        "half_opens",
        "timers",
        "fifo_chunks",
        "flows",
        "messages",
        "parked",
        "listeners",
    ]);
    assert_eq!(keys(&report["leaks"]), leaks);
    assert!(leaks.iter().all(|name| number(report, &format!("/leaks/{name}")) == 0), "leaked: {report:#}");
    let [p50, p99, max] =
        ["p50", "p99", "max"].map(|name| number(report, &format!("/connect_latency_us/{name}")));
    assert!(p50 <= p99 && p99 <= max, "{p50} {p99} {max}");
    for name in ["seconds", "cpu_seconds", "connects_per_second", "echo_gbits_per_second"] {
        assert!(report[name].as_f64().is_some_and(|figure| figure >= 0.0), "{name} in {report:#}");
    }
    assert!(number(report, "/addresses") >= 1);
}

#[test]
fn readmes_first_command_does_ten_thousand_sessions_and_says_what_came_of_them() {
    let done = run(&["echo"]).success();
    for part in ["10 000 requested, 10 000 connected", "connect latency", "10 000 cleaned", "nothing is held"]
    {
        assert!(done.stdout.contains(part), "no {part:?}\n{}", done.transcript());
    }
}

#[test]
fn any_number_of_workers_does_the_same_work() {
    for workers in ["0", "1", "2", "4"] {
        for family in [&[][..], &["--ipv6"]] {
            let mut options = vec!["--workers", workers];
            options.extend(family);
            let report = echo(1000, 3000, &options);
            assert_eq!(number(&report, "/wire/dropped"), 0);
        }
    }
}

#[test]
fn a_bad_wire_delays_but_loses_nothing() {
    for workers in ["0", "2"] {
        let impairments =
            ["--workers", workers, "--waves", "3", "--loss", "2", "--reorder", "2", "--duplicate", "1"];
        let report = echo(500, 20_000, &impairments);
        for name in ["/wire/dropped", "/wire/reordered", "/wire/duplicated", "/retransmitted_segments"] {
            assert!(number(&report, name) > 0, "{name} in {report:#}");
        }
        // Some 40 segments each: the two ends do not answer each other's answers.
        assert!(number(&report, "/wire/segments") < 500 * 200, "{report:#}");
    }
}

#[test]
fn a_bad_wire_under_ipv6_delays_but_loses_nothing() {
    let report =
        echo(200, 20_000, &["--ipv6", "--loss", "5%", "--reorder", "5", "--duplicate", "5", "--seed", "7"]);
    assert!(number(&report, "/wire/dropped") > 0, "{report:#}");
}

#[test]
fn a_connect_takes_both_delays() {
    let report = echo(20, 100, &["--waves", "1", "--delay", "20ms"]);
    assert!(number(&report, "/connect_latency_us/p50") >= 40_000, "{report:#}");
}

#[test]
fn sessions_without_bytes_and_sessions_with_many_come_to_an_end() {
    echo(50, 0, &[]);
    echo(3, 5_000_000, &["--waves", "1"]);
    echo(1, 1, &["--waves", "1"]);
}

#[test]
fn no_sessions_are_no_work() {
    let report = echo(0, 10, &[]);
    assert_eq!(number(&report, "/wire/segments"), 0);
}

#[test]
fn a_hundred_thousand_sessions_are_held_listed_and_detached() {
    let report = echo(100_000, 64, &["--hold"]);
    assert_eq!(number(&report, "/held/sessions"), 100_000);
    // Both ends of each are in this stack.
    assert_eq!(number(&report, "/held/session_summary/total"), 200_000);
    assert_eq!(number(&report, "/held/session_summary/open"), 200_000);
    assert!(number(&report, "/addresses") > 1, "more than one address has ports for");
    let took = report["held"]["show_session_seconds"].as_f64().unwrap();
    assert!(took < 1.0, "`show session` took {took} s");
}

#[test]
fn held_sessions_without_threads_are_detached_too() {
    let report = echo(5000, 64, &["--hold", "--workers", "0"]);
    assert_eq!(number(&report, "/held/session_summary/open"), 10_000);
}

/// Runs `echo --json` with some connects cancelled or detached, which must succeed: one outcome for each connect, and
/// of what lived every byte.
#[track_caller]
fn echo_cut_off(sessions: u64, bytes: u64, options: &[&str]) -> Value {
    let (count, size) = (sessions.to_string(), bytes.to_string());
    let mut arguments = vec!["echo", "--json", "--sessions", &count, "--bytes", &size];
    arguments.extend(options);
    let report = run(&arguments).success().json();
    assert_complete(&report);
    let number = |name: &str| number(&report, &format!("/{name}"));
    let outcomes =
        ["connected", "refused", "timed_out", "unreachable", "cancelled", "detached", "failed"].map(number);
    assert_eq!(outcomes.iter().sum::<u64>(), sessions, "{report:#}");
    assert_eq!((number("sessions_requested"), number("half_opens_cleaned")), (sessions, sessions));
    for name in ["refused", "timed_out", "unreachable", "failed", "undelivered", "broken", "bytes_mismatched"]
    {
        assert_eq!(number(name), 0, "{name} in {report:#}");
    }
    let (connected, lived) = (number("connected"), number("connected") - number("reset_by_detach"));
    if options.contains(&"--hold") {
        assert_eq!(number("held/sessions"), lived, "{report:#}");
    } else {
        assert_eq!((number("closed"), number("time_wait")), (lived, lived), "{report:#}");
    }
    let (sent, echoed) = (number("bytes_sent"), number("bytes_echoed"));
    assert!(lived * bytes <= echoed && echoed <= sent && sent <= connected * bytes, "{report:#}");
    assert!(number("cancelled") <= number("cancels"), "{report:#}");
    assert!(number("detached") <= number("half_opens_at_detach"), "{report:#}");
    assert!(number("reset_by_detach") <= number("sessions_at_detach"), "{report:#}");
    report
}

#[test]
fn a_share_of_the_connects_is_cancelled_and_the_others_are_as_ever() {
    for workers in ["0", "1", "4"] {
        let report = echo_cut_off(2000, 300, &["--workers", workers, "--cancel", "20"]);
        let cancels = number(&report, "/cancels");
        assert!((300..500).contains(&cancels), "{cancels} is no fifth of 2000");
        // Those right behind their request, half of them, always win.
        assert!(number(&report, "/cancelled") >= cancels / 3, "{report:#}");
        assert_eq!((number(&report, "/detached"), number(&report, "/half_opens_at_detach")), (0, 0));
    }
}

#[test]
fn connects_over_a_slow_wire_are_cancelled_while_their_syns_are_under_way() {
    let report = echo_cut_off(200, 100, &["--cancel", "100", "--waves", "1", "--delay", "20ms"]);
    assert!(number(&report, "/cancelled") > 80, "{report:#}");
}

#[test]
fn the_app_worker_is_detached_under_way_with_connects_pending() {
    for workers in ["0", "1", "4"] {
        for sessions in [200, 5000] {
            let options = ["--workers", workers, "--detach-at", "50%"];
            let report = echo_cut_off(sessions, 1000, &options);
            // At least a wave of a tenth was asked for in one go, or the most that may be pending.
            assert!(number(&report, "/detached") > 0, "{report:#}");
            assert!(
                number(&report, "/connected") >= sessions / 2,
                "the second half is not touched: {report:#}"
            );
            assert_eq!((number(&report, "/cancels"), number(&report, "/cancelled")), (0, 0));
        }
    }
}

#[test]
fn connects_are_cancelled_and_the_app_worker_is_detached_in_one_run() {
    for workers in ["0", "1", "4"] {
        for options in [&[][..], &["--ipv6"], &["--hold"], &["--waves", "1", "--loss", "2", "--reorder", "2"]]
        {
            let mut all = vec!["--workers", workers, "--cancel", "20", "--detach-at", "50"];
            all.extend(options);
            let report = echo_cut_off(1000, 2000, &all);
            assert!(number(&report, "/detached") > 0 && number(&report, "/cancelled") > 0, "{report:#}");
        }
    }
}

#[test]
fn a_detach_behind_the_first_connect_or_the_last_is_one_too() {
    for share in ["0", "0.1%", "100%"] {
        let report = echo_cut_off(300, 100, &["--detach-at", share, "--waves", "3"]);
        assert!(number(&report, "/detached") > 0, "{report:#}");
    }
    let nothing = echo(0, 100, &["--detach-at", "50%", "--cancel", "50"]);
    assert_eq!(number(&nothing, "/detached"), 0);
}

#[test]
fn two_hundred_thousand_sessions_are_cancelled_and_detached_with_nothing_left() {
    let report = echo_cut_off(200_000, 64, &["--cancel", "20", "--detach-at", "50%"]);
    assert!(number(&report, "/detached") > 0 && number(&report, "/cancelled") > 20_000, "{report:#}");
    assert!(number(&report, "/connected") > 150_000, "{report:#}");
}

#[test]
fn the_text_tells_of_cancels_and_of_the_detach() {
    let done = run(&["echo", "--sessions", "500", "--cancel", "20%", "--detach-at", "50"]).success();
    for part in
        [" cancelled", " detached", "cancels", "asked for", "behind connect 250", "half-opens pending"]
    {
        assert!(done.stdout.contains(part), "no {part:?}\n{}", done.transcript());
    }
}

#[test]
fn a_capture_has_every_packet_of_the_wire() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("echo.pcapng");
    let report = echo(20, 100, &["--pcap", file.to_str().unwrap()]);
    let frames = Frames::read(&file);
    // Besides TCP there are neighbours to ask for.
    assert!(
        frames.count() as u64 >= number(&report, "/wire/segments"),
        "{} frames, {report:#}",
        frames.count()
    );
    assert_eq!(frames.syns("198.19.0.1".parse().unwrap()), 20);
}

#[test]
fn an_interrupt_detaches_and_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        // Each wave takes four seconds at least, so the end is far away.
        let mut process = start(&["echo", "--json", "--sessions", "1000", "--waves", "100", "--delay", "1s"]);
        hoststack_tests::wait::until("its signal handlers", LIMIT, || {
            catches(process.id(), signal).then_some(())
        });
        process.signal(signal);
        let done = process.wait(LIMIT);
        let report = done.json();
        assert_eq!(done.clone().failure().status.code(), Some(1));
        assert!(done.stderr.contains("interrupted"), "{}", done.transcript());
        assert!(report["leaks"].as_object().unwrap().values().all(|count| *count == 0), "{report:#}");
        assert!(number(&report, "/connected") < 1000);
    }
}

/// Whether the process has a handler for `signal`.
fn catches(id: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal.as_raw() - 1)) != 0
}
