//! Bad usage: exit status 2, and words on standard error that name the option and what was expected.

use crate::run;

#[track_caller]
fn refuses(cases: &[(&str, &[&str])]) {
    for (line, parts) in cases {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let done = run(&arguments).failure();
        assert_eq!(done.status.code(), Some(2), "{line}\n{}", done.transcript());
        assert_eq!(done.stdout, "", "standard output is for results");
        for part in *parts {
            assert!(done.stderr.contains(part), "no {part:?} for `{line}`\n{}", done.transcript());
        }
    }
}

#[test]
fn bad_options_of_echo_are_named() {
    refuses(&[
        ("echo --workers x", &["--workers", "'x'"]),
        ("echo --workers 300", &["300 workers", "1 to 255"]),
        ("echo --loss 101", &["--loss", "from 0 to 100"]),
        ("echo --reorder -1", &["-1"]),
        ("echo --duplicate much", &["--duplicate", "per cent"]),
        ("echo --cancel 101", &["--cancel", "from 0 to 100"]),
        ("echo --cancel -1", &["-1"]),
        ("echo --detach-at x", &["--detach-at", "'x'", "per cent"]),
        ("echo --detach-at 100.5%", &["--detach-at", "from 0 to 100"]),
        ("echo --detach-at", &["--detach-at"]),
        ("echo --waves 0", &["--waves", "0 is not in"]),
        ("echo --bytes 1T", &["--bytes", "like 4096, 64k or 1M"]),
        ("echo --delay 5x", &["--delay", "500ms"]),
        ("echo --connect-timeout 0s", &["--connect-timeout", "positive"]),
        ("echo --sessions -1", &["-1"]),
        ("echo --sessions 4000000000", &["too many sessions"]),
        ("echo --sessoins 5", &["--sessoins", "--sessions"]),
        ("echo --seed", &["--seed"]),
    ]);
}

#[test]
fn options_of_echo_that_do_not_fit_together_are_named() {
    refuses(&[
        ("echo --device tap:x", &["--address", "--peer"]),
        ("echo --peer 10.0.0.1:7", &["--device", "--address"]),
        ("echo --device eth0 --address 10.0.0.2/8 --peer 10.0.0.1:7", &["--device", "tap:NAME"]),
        ("echo --device tap:x --address 10.0.0.2/8 --peer 10.0.0.1", &["--peer", "10.9.0.2:7"]),
        ("echo --device tap:x --address fd09::2/64 --peer 10.0.0.1:7", &["--address", "--peer 10.0.0.1:7"]),
        ("echo --ipv6 --device tap:x --address fd09::2/64 --peer [fd09::1]:7", &["--ipv6", "--device"]),
    ]);
}

#[test]
fn bad_options_of_fetch_are_named() {
    let url = "http://10.0.0.1/";
    refuses(&[
        ("fetch", &["<URL>"]),
        (&format!("fetch --device tap:x {url}"), &["--address"]),
        (&format!("fetch --address 10.0.0.2/8 {url}"), &["--device"]),
        (&format!("fetch --transport tcp {url}"), &["--device tap:NAME", "--address"]),
        (&format!("fetch --transport quic {url}"), &["--transport", "tcp, kernel"]),
        (&format!("fetch --unix-socket web.sock {url}"), &["--unix-socket web.sock", "a path from /"]),
        (&format!("fetch --send-proxy v3 {url}"), &["--send-proxy", "v1, v2"]),
        (&format!("fetch --proxy-source 192.0.2.1:5 {url}"), &["--send-proxy"]),
        (
            &format!("fetch --send-proxy v1 --proxy-source [::1]:5 {url}"),
            &["one family", "--proxy-destination"],
        ),
        (&format!("fetch --device tap:x --address 10.0.0.2 {url}"), &["--address", "10.0.0.1/24"]),
        (
            &format!("fetch --device tap:a-name-of-sixteen --address 10.0.0.2/8 {url}"),
            &["--device", "15 bytes"],
        ),
        ("fetch --device tap:x --address 10.0.0.2/8 ftp://10.0.0.1/", &["ftp", "use http or https"]),
        ("fetch --cacert /nonexistent/ca.pem https://10.0.0.1/", &["--cacert /nonexistent/ca.pem", "in PEM"]),
        ("fetch --cacert f --insecure https://10.0.0.1/", &["--cacert", "--insecure"]),
        ("fetch --device tap:x --address 10.0.0.2/8 http://example.com/", &["example.com", "IP address"]),
        ("fetch --device tap:x --address 10.0.0.2/8 ftp:", &["ftp:"]),
        (
            &format!("fetch --device tap:x --address 10.0.0.2/8 --route 0.0.0.0/0=::1 {url}"),
            &["--route", "famil"],
        ),
        (&format!("fetch --device tap:x --address 10.0.0.2/8 --concurrency 0 {url}"), &["--concurrency"]),
        (
            &format!("fetch --device tap:x --address 10.0.0.2/8 -o f {url}a {url}b"),
            &["--output", "--output-dir"],
        ),
        (
            &format!("fetch --device tap:x --address 10.0.0.2/8 -o f --discard {url}"),
            &["--output", "--discard"],
        ),
    ]);
}

#[test]
fn an_unknown_sub_command_is_named() {
    refuses(&[("fetsh", &["fetsh", "fetch"]), ("bench speed", &["speed", "conn", "memory"])]);
}

#[test]
fn help_and_version_go_to_standard_output() {
    let done = run(&["--help"]).success();
    for command in ["echo", "fetch", "run", "bench", "ctl"] {
        assert!(done.stdout.contains(command), "{}", done.transcript());
        assert!(run(&[command, "--help"]).success().stdout.contains("Usage:"));
    }
    assert!(run(&["--version"]).success().stdout.starts_with("hoststack "));
}

#[test]
fn bad_options_of_bench_are_named() {
    refuses(&[
        ("bench rr --transport kernel", &["--transport", "bench conn"]),
        ("bench --transport local", &["--transport", "bench conn"]),
        ("bench conn --transport carrier-pigeon", &["--transport", "kernel+unix"]),
    ]);
}
