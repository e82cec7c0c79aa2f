//! Connects that fail: each with its own outcome, in its time, and nothing left behind.

use std::net::{IpAddr, SocketAddr};

use hoststack_tests::capture::Frames;
use serde_json::Value;

use crate::world::{Family, LIMIT, World, assert_no_leaks, family_tests, number, only_fetch, seconds, url};

family_tests! {
    a_closed_port_refuses
    what_is_dropped_without_a_word_times_out_at_its_deadline
    on_link_without_a_neighbour_is_unreachable_after_three_probes
    what_a_router_rejects_is_unreachable_at_its_deadline
    without_a_route_it_is_unreachable_at_once
    the_echo_client_counts_refusals
    outcomes_of_one_run_do_not_mix
}

/// A prefix that the kernel drops, and a host in it.
fn black_hole(world: &World, family: Family) -> IpAddr {
    let (prefix, host) = match family {
        Family::V4 => ("10.77.0.0/16", "10.77.0.1"),
        Family::V6 => ("fd77::/32", "fd77::1"),
    };
    world.namespace.black_hole(prefix);
    host.parse().unwrap()
}

/// A default route through the kernel, as `--route` takes it.
fn default_route(family: Family) -> String {
    let all = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
    format!("{all}={}", family.kernel())
}

/// Fetches one URL in vain, with a capture: the entry, the seconds it took, the frames.
fn fail(world: &World, at: SocketAddr, arguments: &[&str]) -> (Value, f64, Frames) {
    let capture = world.path("capture.pcapng");
    let url = url(at, "file");
    let mut all = vec!["--discard", "--pcap", capture.to_str().unwrap()];
    all.extend(arguments);
    all.push(&url);
    let report = world.fetch(&all).wait(LIMIT).failure().json();
    let entry = only_fetch(&report);
    assert_eq!((&entry["status"], &entry["bytes"], &entry["file"]), (&Value::Null, &0.into(), &Value::Null));
    assert!(entry["error"].is_string(), "{entry}");
    (entry, seconds(&report), Frames::read(&capture))
}

fn a_closed_port_refuses(family: Family) {
    let world = World::new();
    let to = family.kernel();
    let (entry, seconds, frames) = fail(&world, SocketAddr::new(to, 81), &["--connect-timeout", "60s"]);
    assert_eq!(entry["outcome"], "refused", "{entry}");
    assert!(seconds < 60.0, "the RST ended it, not the deadline: {seconds} s");
    assert!(frames.syns(to) >= 1);
}

fn what_is_dropped_without_a_word_times_out_at_its_deadline(family: Family) {
    let world = World::new();
    let to = black_hole(&world, family);
    let route = default_route(family);
    let arguments = ["--route", &route, "--connect-timeout", "2s"];
    let (entry, seconds, frames) = fail(&world, SocketAddr::new(to, 80), &arguments);
    assert_eq!(entry["outcome"], "timed_out", "{entry}");
    // RFC 6298 §2.1: sent again after 1 s, and 2 s after that, which is behind the deadline.
    assert_eq!(frames.syns(to), 2);
    assert!(seconds >= 2.0, "before its deadline: {seconds} s");
    assert!(seconds < 12.0, "long after its deadline: {seconds} s");
}

fn on_link_without_a_neighbour_is_unreachable_after_three_probes(family: Family) {
    let world = World::new();
    let to = family.host(9);
    let (entry, seconds, frames) = fail(&world, SocketAddr::new(to, 80), &["--connect-timeout", "60s"]);
    assert_eq!(entry["outcome"], "unreachable", "{entry}");
    assert_eq!(frames.probes(to), 3);
    assert_eq!(frames.syns(to), 0, "there is no address to send it to");
    assert!(seconds < 60.0, "the probes ended it, not the deadline: {seconds} s");
}

fn what_a_router_rejects_is_unreachable_at_its_deadline(family: Family) {
    let world = World::new();
    let (prefix, to, option) = match family {
        Family::V4 => ("10.78.0.0/16", "10.78.0.1", "-4"),
        Family::V6 => ("fd78::/32", "fd78::1", "-6"),
    };
    // The kernel is a router, and answers with ICMP: no way to that host.
    let _ = black_hole(&world, family);
    world.namespace.run("ip", &[option, "route", "add", "unreachable", prefix]);
    let to: IpAddr = to.parse().unwrap();
    let route = default_route(family);
    let arguments = ["--route", &route, "--connect-timeout", "2s"];
    let (entry, seconds, frames) = fail(&world, SocketAddr::new(to, 80), &arguments);
    // RFC 9293 §3.9.2.2 (MUST-56): such an error is soft. It ends nothing, but it is the cause that is told.
    assert_eq!(entry["outcome"], "unreachable", "{entry}");
    assert!(seconds >= 2.0, "a soft error ended it: {seconds} s");
    assert_eq!(frames.syns(to), 2, "and it was tried again");
}

fn without_a_route_it_is_unreachable_at_once(family: Family) {
    let world = World::new();
    let to: IpAddr = if family == Family::V4 { "192.0.2.1" } else { "2001:db8::1" }.parse().unwrap();
    let (entry, seconds, frames) = fail(&world, SocketAddr::new(to, 80), &["--connect-timeout", "60s"]);
    assert_eq!(entry["outcome"], "unreachable", "{entry}");
    assert_eq!((frames.syns(to), frames.probes(to)), (0, 0));
    assert!(seconds < 60.0, "{seconds} s");
}

fn the_echo_client_counts_refusals(family: Family) {
    let world = World::new();
    let at = SocketAddr::new(family.kernel(), 7);
    let report = world.echo_client(family, at, &["--sessions", "200"]).wait(LIMIT).failure().json();
    assert_no_leaks(&report);
    assert_eq!((number(&report, "/refused"), number(&report, "/connected")), (200, 0));
    assert_eq!(number(&report, "/half_opens_cleaned"), 200);
    assert_eq!(number(&report, "/time_wait"), 0);
}

fn outcomes_of_one_run_do_not_mix(family: Family) {
    let world = World::new();
    let dropped = black_hole(&world, family);
    let route = default_route(family);
    let ends = [
        (SocketAddr::new(family.kernel(), 81), "refused"),
        (SocketAddr::new(dropped, 80), "timed_out"),
        (SocketAddr::new(family.host(9), 80), "unreachable"),
    ];
    let urls: Vec<String> = ends.iter().cycle().take(30).map(|(at, _)| url(*at, "file")).collect();
    // Later than the third probe, so that each end has its own cause.
    let mut arguments = vec!["--discard", "--route", &route, "--connect-timeout", "8s"];
    arguments.extend(urls.iter().map(String::as_str));
    let report = world.fetch(&arguments).wait(LIMIT).failure().json();
    assert_no_leaks(&report);
    let outcomes: Vec<&str> =
        report["fetches"].as_array().unwrap().iter().filter_map(|entry| entry["outcome"].as_str()).collect();
    let expected: Vec<&str> = ends.iter().cycle().take(30).map(|(_, outcome)| *outcome).collect();
    assert_eq!(outcomes, expected);
}
