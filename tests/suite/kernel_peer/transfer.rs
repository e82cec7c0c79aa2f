//! Bytes through both directions: downloads from nginx, files through the echo server, echo requests.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;

use hoststack_tests::peers::{HTTP_PORT, Nginx, Pinged, Socat, SocketState, count, ping};
use hoststack_tests::{Process, Tap, content, wait};

use crate::world::{
    DEVICE, ECHO, ECHO_PORT, Family, LIMIT, World, assert_no_leaks, family_tests, number, only_fetch,
    seconds, url,
};

family_tests! {
    fetch_brings_200_mb_from_nginx_unharmed
    fetch_without_threads_brings_a_file_unharmed
    sixty_four_fetches_at_once_bring_2_mb_each_unharmed
    two_thousand_small_files_are_fetched
    a_fetch_of_nothing_makes_an_empty_file
    a_missing_file_is_a_failure_with_its_status
    socat_sends_100_mb_through_the_echo_server_and_back
    the_echo_client_verifies_what_the_kernel_echoes
    what_is_lost_on_the_way_to_the_kernel_is_sent_again
    pings_are_answered
}

const MB: u64 = 1_000_000;

fn fetch_brings_200_mb_from_nginx_unharmed(family: Family) {
    let world = World::new();
    let nginx = Nginx::start(&world.namespace, "");
    let sum = nginx.add_file("file", 200 * MB, 1);
    let at = SocketAddr::new(family.kernel(), HTTP_PORT);
    let file = world.path("file");
    let done = world.fetch(&["-o", file.to_str().unwrap(), &url(at, "file")]).wait(LIMIT).success();
    let report = done.json();
    let entry = only_fetch(&report);
    assert_eq!((entry["outcome"].as_str(), number(&entry, "/bytes")), (Some("ok"), 200 * MB), "{entry}");
    assert_eq!(number(&entry, "/status"), 200);
    assert_eq!(entry["file"].as_str(), file.to_str());
    assert_eq!(content::sha256(&file), sum);
    let seconds = seconds(&report);
    // A figure for the reader of the log; no test depends on the machine's speed.
    let figure = 200.0 * 8.0 / 1000.0 / seconds;
    let _ = writeln!(std::io::stderr(), "fetch of 200 MB, {family:?}: {seconds:.3} s, {figure:.2} Gbit/s");
}

fn fetch_without_threads_brings_a_file_unharmed(family: Family) {
    let world = World::new();
    let nginx = Nginx::start(&world.namespace, "");
    let sum = nginx.add_file("file", 20 * MB, 2);
    let at = SocketAddr::new(family.kernel(), HTTP_PORT);
    let file = world.path("file");
    let done = world
        .fetch(&["--workers", "0", "-o", file.to_str().unwrap(), &url(at, "file")])
        .wait(LIMIT)
        .success();
    assert_eq!(only_fetch(&done.json())["outcome"].as_str(), Some("ok"));
    assert_eq!(content::sha256(&file), sum);
}

fn sixty_four_fetches_at_once_bring_2_mb_each_unharmed(family: Family) {
    let world = World::new();
    // Slow enough that all are under way at once; the kernel gives each 500 kB/s after the first 64 kB.
    let nginx = Nginx::start(&world.namespace, "limit_rate 1m; limit_rate_after 64k;");
    let at = SocketAddr::new(family.kernel(), HTTP_PORT);
    let names: Vec<String> = (0..64).map(|number| format!("file{number}")).collect();
    let sums: Vec<String> =
        (0..).zip(&names).map(|(seed, name)| nginx.add_file(name, 2 * MB, seed)).collect();
    let urls: Vec<String> = names.iter().map(|name| url(at, name)).collect();
    let dir = world.path("files");
    let mut arguments = vec!["--concurrency", "64", "--output-dir", dir.to_str().unwrap()];
    arguments.extend(urls.iter().map(String::as_str));
    let process = world.fetch(&arguments);
    wait::until("64 connections at once", LIMIT, || {
        (count(&world.namespace, HTTP_PORT, SocketState::Established) == 64).then_some(())
    });
    let report = process.wait(LIMIT).success().json();
    assert_no_leaks(&report);
    let fetches = report["fetches"].as_array().unwrap();
    assert_eq!(fetches.len(), 64);
    assert!(fetches.iter().all(|entry| entry["outcome"] == "ok" && entry["bytes"] == 2 * MB), "{report:#}");
    for (name, sum) in names.iter().zip(&sums) {
        assert_eq!(content::sha256(&dir.join(name)), *sum, "{name}");
    }
    assert_eq!(sums.iter().collect::<BTreeSet<_>>().len(), 64);
}

fn two_thousand_small_files_are_fetched(family: Family) {
    let world = World::new();
    let nginx = Nginx::start(&world.namespace, "");
    nginx.add_file("small", 1000, 5);
    let url = url(SocketAddr::new(family.kernel(), HTTP_PORT), "small");
    let mut arguments = vec!["--discard", "--concurrency", "500"];
    arguments.extend([url.as_str(); 2000]);
    let report = world.fetch(&arguments).wait(LIMIT).success().json();
    assert_no_leaks(&report);
    let fetches = report["fetches"].as_array().unwrap();
    assert_eq!(fetches.len(), 2000);
    assert!(fetches.iter().all(|entry| entry["outcome"] == "ok" && entry["bytes"] == 1000), "{report:#}");
}

fn a_fetch_of_nothing_makes_an_empty_file(family: Family) {
    let world = World::new();
    let nginx = Nginx::start(&world.namespace, "");
    nginx.add_file("empty", 0, 1);
    let at = SocketAddr::new(family.kernel(), HTTP_PORT);
    let file = world.path("empty");
    let done = world.fetch(&["-o", file.to_str().unwrap(), &url(at, "empty")]).wait(LIMIT).success();
    let entry = only_fetch(&done.json());
    assert_eq!((entry["outcome"].as_str(), number(&entry, "/bytes")), (Some("ok"), 0));
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 0);
}

fn a_missing_file_is_a_failure_with_its_status(family: Family) {
    let world = World::new();
    let _nginx = Nginx::start(&world.namespace, "");
    let at = SocketAddr::new(family.kernel(), HTTP_PORT);
    let file = world.path("none");
    let done = world.fetch(&["-o", file.to_str().unwrap(), &url(at, "none")]).wait(LIMIT).failure();
    let entry = only_fetch(&done.json());
    assert_eq!((entry["outcome"].as_str(), number(&entry, "/status")), (Some("status"), 404));
    assert!(!file.exists(), "an error page is not the file that was asked for");
}

fn socat_sends_100_mb_through_the_echo_server_and_back(family: Family) {
    let world = World::new();
    let server = world.run(1, "", ECHO);
    let (sent, back) = (world.path("sent"), world.path("back"));
    let sum = content::write_file(&sent, 100 * MB, 3);
    let at = SocketAddr::new(family.ours(), ECHO_PORT);
    let _ = Socat::exchange(&world.namespace, at, &sent, &back).wait(LIMIT).success();
    assert_eq!(std::fs::metadata(&back).unwrap().len(), 100 * MB);
    assert_eq!(content::sha256(&back), sum);
    server.wait_for_sessions(0);
    let _ = server.end();
}

/// Starts a kernel echo server on port 7 and waits until it listens.
fn kernel_echo(world: &World, family: Family) -> (Process, SocketAddr) {
    let at = SocketAddr::new(family.kernel(), 7);
    let server = Socat::echo_server(&world.namespace, at);
    wait::until("socat to listen", wait::READY, || {
        (count(&world.namespace, 7, SocketState::Listen) == 1).then_some(())
    });
    (server, at)
}

fn the_echo_client_verifies_what_the_kernel_echoes(family: Family) {
    let world = World::new();
    let (_server, at) = kernel_echo(&world, family);
    let arguments = ["--sessions", "50", "--waves", "2", "--bytes", "100k"];
    let report = world.echo_client(family, at, &arguments).wait(LIMIT).success().json();
    assert_no_leaks(&report);
    assert_eq!(number(&report, "/connected"), 50);
    assert_eq!(number(&report, "/bytes_echoed"), 50 * 102_400);
    assert_eq!(number(&report, "/bytes_mismatched"), 0);
    assert_eq!(number(&report, "/half_opens_cleaned"), 50);
}

fn what_is_lost_on_the_way_to_the_kernel_is_sent_again(family: Family) {
    let world = World::new();
    let (_server, at) = kernel_echo(&world, family);
    // The kernel reports what it has with SACK, and what came twice.
    let arguments = [
        "--sessions",
        "20",
        "--waves",
        "1",
        "--bytes",
        "500k",
        "--loss",
        "2",
        "--reorder",
        "2",
        "--duplicate",
        "2",
    ];
    let report = world.echo_client(family, at, &arguments).wait(LIMIT).success().json();
    assert_no_leaks(&report);
    assert_eq!((number(&report, "/connected"), number(&report, "/bytes_mismatched")), (20, 0));
    assert_eq!(number(&report, "/bytes_echoed"), 20 * 512_000);
    for name in ["/wire/dropped", "/wire/reordered", "/wire/duplicated", "/retransmitted_segments"] {
        assert!(number(&report, name) > 0, "{name} in {report:#}");
    }
}

fn pings_are_answered(family: Family) {
    let world = World::without_device();
    // This once `hoststack` makes the device.
    let stack = world.run(1, "", "");
    let _ = Tap::adopt(&world.namespace, DEVICE).with_address("10.9.0.1/24").with_address("fd09::1/64");
    assert_eq!(ping(&world.namespace, family.ours(), 20), Pinged { sent: 20, received: 20 });
    assert_eq!(ping(&world.namespace, family.host(3), 1).received, 0, "that is not our address");
    let _ = stack.end();
}
