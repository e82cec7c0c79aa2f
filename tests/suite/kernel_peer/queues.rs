//! Two workers on a TAP of one queue, whose packets must be handed over, and on one of several.

use std::net::SocketAddr;

use hoststack_tests::peers::{self, HTTP_PORT, Nginx};
use hoststack_tests::{Queues, content};
use serde_json::Value;

use crate::world::{ECHO, ECHO_PORT, Family, LIMIT, World, assert_no_leaks, family_tests, url};

family_tests! {
    two_workers_share_one_queue
    two_workers_have_a_queue_each
    fetches_spread_over_two_workers_on_one_queue
}

/// Connections at once: enough that steering gives each worker some.
const CONNECTIONS: u64 = 32;

/// Echoes over many connections at once; what `show worker` says while they are open.
fn echo_over_many(world: &World, family: Family, settings: &str) -> Vec<Value> {
    let server = world.run(2, settings, ECHO);
    let at = SocketAddr::new(family.ours(), ECHO_PORT);
    let streams: Vec<_> = (0..CONNECTIONS).map(|_| peers::connect(&world.namespace, at).unwrap()).collect();
    server.wait_for_sessions(CONNECTIONS);
    let held = workers(&server.ask("show worker"));
    let sessions: Vec<u64> = held.iter().map(|worker| worker["sessions"].as_u64().unwrap()).collect();
    assert_eq!((sessions.len(), sessions.iter().sum::<u64>()), (2, CONNECTIONS));
    assert!(sessions.iter().all(|count| *count > 0), "all on one worker: {sessions:?}");
    std::thread::scope(|scope| {
        for (seed, stream) in (0_u8..).zip(&streams) {
            scope.spawn(move || {
                let bytes: Vec<u8> = (0..500_000_u32).map(|n| (n % 241) as u8 ^ seed).collect();
                assert!(peers::exchange(stream, &bytes).unwrap() == bytes);
            });
        }
    });
    drop(streams);
    server.wait_for_sessions(0);
    let workers = workers(&server.ask("show worker"));
    let _ = server.end();
    workers
}

fn workers(answer: &Value) -> Vec<Value> {
    answer["workers"].as_array().unwrap_or_else(|| panic!("no workers in {answer:#}")).clone()
}

fn figures(workers: &[Value], name: &str) -> Vec<u64> {
    workers
        .iter()
        .map(|worker| worker[name].as_u64().unwrap_or_else(|| panic!("no {name} in {worker:#}")))
        .collect()
}

fn two_workers_share_one_queue(family: Family) {
    let workers = echo_over_many(&World::new(), family, "");
    assert!(figures(&workers, "handed_over").iter().sum::<u64>() > 0, "{workers:#?}");
    assert!(figures(&workers, "tx_packets").iter().all(|count| *count > 0), "{workers:#?}");
}

fn two_workers_have_a_queue_each(family: Family) {
    let workers = echo_over_many(&World::with_queues(Queues::Multi), family, "multi_queue = true");
    assert!(figures(&workers, "rx_packets").iter().all(|count| *count > 0), "{workers:#?}");
    assert!(figures(&workers, "tx_packets").iter().all(|count| *count > 0), "{workers:#?}");
}

fn fetches_spread_over_two_workers_on_one_queue(family: Family) {
    let world = World::new();
    let nginx = Nginx::start(&world.namespace, "");
    let sum = nginx.add_file("file", 2_000_000, 1);
    let at = SocketAddr::new(family.kernel(), HTTP_PORT);
    let dir = world.path("files");
    let url = url(at, "file");
    let mut arguments = vec!["--workers", "2", "--output-dir", dir.to_str().unwrap()];
    arguments.extend([url.as_str(); 32]);
    let report = world.fetch(&arguments).wait(LIMIT).success().json();
    assert_no_leaks(&report);
    let files: Vec<_> =
        report["fetches"].as_array().unwrap().iter().map(|entry| entry["file"].clone()).collect();
    assert_eq!(files.len(), 32);
    for file in files {
        assert_eq!(content::sha256(file.as_str().unwrap().as_ref()), sum);
    }
}
