//! Questions about the network, ports, channels, memory and configuration; counters that are cleared.

mod common;

use common::*;
use hoststack::app::*;
use hoststack::inspect::*;
use hoststack::net::{Cidr, MemoryWireConfig, memory_wire, raw_ip};
use hoststack::{Answer, Query, SessionLimits, SingleThreaded, StackConfig};
use hoststack_wire::{IpProtocol, MacAddr, icmpv4, ipv4};

const LONG: Duration = Duration::from_secs(600);
const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];

fn cidr(text: &str) -> Cidr {
    text.parse().expect("cannot fail because it is a prefix")
}

fn ethernet_stack(config: StackConfig) -> SingleThreaded {
    let (a, b) = memory_wire(MemoryWireConfig { macs: Some(MACS), ..MemoryWireConfig::default() });
    let client = interface(a, CLIENT, 1)
        .route(cidr("192.0.2.0/24"), Some("10.0.0.254".parse().expect("an address")))
        .route(cidr("198.51.100.0/24"), Some("10.0.0.2".parse().expect("an address")));
    virtual_stack(config, [client, interface(b, SERVER, 2)])
}

fn ask(stack: &mut SingleThreaded, what: Query) -> Answer {
    stack.inspect(what).expect("running")
}

fn network(stack: &mut SingleThreaded) -> NetworkInfo {
    *ask(stack, Query::Network { limit: 100 }).network.expect("it was asked for")
}

fn ports(stack: &mut SingleThreaded) -> PortsInfo {
    *ask(stack, Query::Ports { limit: 100 }).ports.expect("it was asked for")
}

fn memory(stack: &mut SingleThreaded) -> MemoryInfo {
    *ask(stack, Query::Memory).memory.expect("it was asked for")
}

fn pool<'a>(memory: &'a MemoryInfo, owner: &str, name: &str) -> &'a PoolInfo {
    let found = memory.pools.iter().find(|pool| pool.owner == owner && pool.pool == name);
    found.unwrap_or_else(|| panic!("{owner} {name}: {memory:?}"))
}

/// A client with `count` connects to the server's port 80, all up.
fn connected(stack: &mut SingleThreaded, count: usize) -> (Attached, Attached, Log, Log) {
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(stack, Probe::idle(&server_log), 80);
    let client = attach(stack, "client", Probe::idle(&log));
    for _ in 0..count {
        stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).expect("a connect");
    }
    until(stack, LONG, || log.up() == count && server_log.accepted() == count);
    (client, server, log, server_log)
}

use hoststack::Attached;

#[test]
fn interfaces_routes_and_neighbors_are_told() {
    let mut stack = ethernet_stack(config(2));
    let (client, server, log, server_log) = connected(&mut stack, 10);
    let info = network(&mut stack);
    let [one, two] = &info.interfaces[..] else { panic!("two interfaces: {info:?}") };
    assert_eq!((one.interface, one.name.as_str(), one.domain), (0, "wire0", 0));
    assert_eq!((two.interface, two.domain, two.link, two.mtu), (1, 1, "ethernet", 1500));
    assert_eq!(one.mac.as_deref(), Some("02:00:00:00:00:01"));
    // Ethernet interfaces get a link-local address besides.
    assert_eq!(one.addresses[..2], ["10.0.0.1/24", "fd00::1/64"]);
    assert_eq!(one.queues.iter().map(|queue| queue.worker).collect::<Vec<_>>(), [0, 1]);
    let (sent, received) = (one.total(), two.total());
    assert!(sent.tx_packets >= 20 && sent.tx_packets == received.rx_packets);
    assert_eq!(sent.tx_bytes, received.rx_bytes);
    assert!(sent.drops.is_empty() && sent.tx_waiting == 0);

    let route = |prefix: &str| {
        let found = info.routes.iter().find(|route| route.prefix == prefix && route.domain == 0);
        found.unwrap_or_else(|| panic!("{prefix}: {:?}", info.routes))
    };
    let configured = route("192.0.2.0/24");
    assert_eq!((configured.via.as_deref(), configured.is_connected), (Some("10.0.0.254"), false));
    assert_eq!(
        (configured.source.as_deref(), configured.interface_name.as_str()),
        (Some("10.0.0.1"), "wire0")
    );
    let connected = route("fd00::/64");
    assert_eq!((connected.via.as_deref(), connected.is_connected), (None, true));
    assert_eq!(info.routes_total, info.routes.len());

    let neighbor = info.neighbors.iter().find(|neighbor| neighbor.interface == 0).expect("the server");
    assert_eq!((neighbor.address.as_str(), neighbor.state.as_str()), ("10.0.0.2", "reachable"));
    assert_eq!(neighbor.mac.as_deref(), Some("02:00:00:00:00:02"));
    assert!(info.neighbors.iter().all(|neighbor| neighbor.disagreeing.is_empty()), "{:?}", info.neighbors);
    pass(&mut stack, Duration::from_secs(40));
    let later = network(&mut stack);
    let neighbor = later.neighbors.iter().find(|neighbor| neighbor.interface == 0).expect("the server");
    assert_eq!(neighbor.state, "stale");
    assert!(neighbor.age_us < 40_000_000, "since it became stale: {}", neighbor.age_us);

    let first = ask(&mut stack, Query::Network { limit: 1 }).network.expect("it was asked for");
    assert_eq!((first.routes.len(), first.neighbors.len()), (1, 1));
    assert_eq!((first.routes_total, first.neighbors_total), (later.routes_total, later.neighbors_total));
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn packets_that_wait_for_a_neighbor_are_told_by_worker() {
    let mut stack = ethernet_stack(config(2));
    let options = hoststack::ping::PingOptions {
        worker: WorkerId(1),
        count: 1,
        ..hoststack::ping::PingOptions::to(Family::V4.nobody().ip())
    };
    let pinging = stack.ping(options).expect("good options");
    pass(&mut stack, Duration::from_millis(100));
    let info = network(&mut stack);
    assert_eq!(info.pings, 1);
    let [neighbor] = &info.neighbors[..] else { panic!("{:?}", info.neighbors) };
    assert_eq!((neighbor.address.as_str(), neighbor.state.as_str()), ("10.0.0.77", "incomplete"));
    assert_eq!(neighbor.waiting, [WaitingInfo { worker: 1, packets: 1 }]);
    pass(&mut stack, Duration::from_secs(5));
    let info = network(&mut stack);
    let [neighbor] = &info.neighbors[..] else { panic!("{:?}", info.neighbors) };
    assert_eq!((neighbor.state.as_str(), neighbor.waiting.len(), info.pings), ("failed", 0, 0));
    assert!(pinging.try_take().is_ok());
}

#[test]
fn a_path_mtu_that_a_worker_learnt_is_told() {
    let (device, far) = raw_ip("raw0", 1500);
    let mut stack = virtual_stack(config(1), [interface(device, CLIENT, 1)]);
    let log = Log::default();
    let client = attach(&mut stack, "client", Probe::idle(&log));
    stack
        .connect(
            client.app_workers[0],
            ConnectOptions::to("10.0.0.9:80".parse::<std::net::SocketAddr>().expect("one")),
        )
        .expect("a connect");
    // The SYN is too big for a router on the way, by what it says: it is in flight, so it is believed.
    let mut told = false;
    stack.run_until(Duration::from_millis(500), |_| {
        while let Some((_, packet)) = far.take() {
            let message = icmpv4::Message::Unreachable { code: 4, mtu: 1400, quote: &packet[..40] };
            let mut said = vec![0; ipv4::Header::LEN + message.len()];
            let (router, us) = ([10, 0, 0, 254].into(), [10, 0, 0, 1].into());
            ipv4::Header::new(router, us, IpProtocol::ICMPV4, message.len()).emit(&mut said);
            message.emit(&mut said[ipv4::Header::LEN..]);
            far.send(said);
            told = true;
        }
        false
    });
    assert!(told);
    let [path] = &network(&mut stack).path_mtus[..] else { panic!("one was learnt") };
    assert_eq!((path.worker, path.domain, path.mtu, path.destination.as_str()), (0, 0, 1400, "10.0.0.9"));
    finish(stack, &[&client], &[&log]);
}

#[test]
fn ports_are_told_by_who_holds_them() {
    let mut stack = stack(2);
    let empty = ports(&mut stack);
    assert_eq!((empty.first, empty.last, empty.tuples, empty.under_way), (1024, 65535, 0, 0));
    let (client, server, log, server_log) = connected(&mut stack, 30);
    for number in 0..5 {
        let nobody = ConnectOptions { opaque: number, ..ConnectOptions::to(Family::V4.nobody()) };
        stack.connect(client.app_workers[0], nobody).expect("a connect");
    }
    pass(&mut stack, Duration::from_millis(100));
    let info = ports(&mut stack);
    assert_eq!((info.tuples, info.under_way), (35, 0));
    assert_eq!(info.held, Held { half_opens: 5, connections: 30, time_wait: 0 });
    let [busiest, other] = &info.remotes[..] else { panic!("{info:?}") };
    assert_eq!((busiest.remote.as_str(), busiest.held.connections), ("10.0.0.2:80", 30));
    assert_eq!((other.remote.as_str(), other.held.half_opens), ("10.0.0.77:80", 5));
    assert_eq!(busiest.full_permille, 1, "30 of 64512, rounded up");
    let [local] = &info.locals[..] else { panic!("the server's flows are no connects: {info:?}") };
    assert_eq!((local.domain, local.local.to_string().as_str()), (0, "10.0.0.1"));
    assert_eq!(local.held, info.held);

    // The client closes first: its flows are in TIME-WAIT.
    for session in log.sessions() {
        stack.end_session(session, hoststack::EndHow::Close).expect("running");
    }
    until(&mut stack, LONG, || log.closed() == 30);
    let info = ports(&mut stack);
    assert_eq!((info.held.connections, info.held.time_wait), (0, 30));
    pass(&mut stack, Duration::from_secs(61));
    let info = ports(&mut stack);
    assert_eq!((info.tuples, info.held.total()), (0, 0));
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn a_walk_over_flows_in_small_slices_counts_each_once() {
    let mut small = config(1);
    small.bursts.inspect_slots = 3;
    let mut stack = stack_of(small, MemoryWireConfig::default());
    let (client, server, log, server_log) = connected(&mut stack, 50);
    assert_eq!(ports(&mut stack).held, Held { half_opens: 0, connections: 50, time_wait: 0 });
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn every_channel_is_told_once_with_all_its_messages_accounted_for() {
    let workers = 3;
    // So small that outboxes fill.
    let config = StackConfig { channel_batches: 1, ..config(workers) };
    let mut stack = stack_of(config, MemoryWireConfig::default());
    let (client, server, log, server_log) = connected(&mut stack, 100);
    let channels = ask(&mut stack, Query::Channels).channels;
    let of = |kind: &str| channels.iter().filter(|channel| channel.kind == kind).collect::<Vec<_>>();
    let counts = ["requests", "commands", "reports", "handover", "local"].map(|kind| of(kind).len());
    assert_eq!(counts, [1, 3, 3, 6, 6]);
    assert_eq!(channels.len(), 19);
    let mut names: Vec<_> = channels.iter().map(|c| (c.kind, c.from.clone(), c.to.clone())).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), channels.len());
    for channel in &channels {
        assert_ne!(channel.from, channel.to);
        assert_eq!(channel.sent, channel.handled + channel.waiting, "{channel:?}");
        assert!(channel.batches <= channel.batches_max || channel.kind == "requests", "{channel:?}");
    }
    assert!(of("requests")[0].handled >= 100);
    for kind in ["commands", "reports"] {
        assert!(of(kind).iter().all(|channel| channel.sent > 0 && channel.batches_max == 1), "{kind}");
    }
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn memory_is_told_by_pool_and_what_was_the_most_stays() {
    let limits = SessionLimits { sessions: 5000, ..SessionLimits::default() };
    let mut stack = stack_of(StackConfig { sessions: limits, ..config(2) }, MemoryWireConfig::default());
    let before = memory(&mut stack);
    assert_eq!(pool(&before, "worker 0", "sessions").used, 0);
    assert_eq!(pool(&before, "worker 1", "sessions").limit, Some(5000));
    let (client, server, log, server_log) = connected(&mut stack, 40);
    let during = memory(&mut stack);
    let sum = |memory: &MemoryInfo, name: &str, what: fn(&PoolInfo) -> usize| {
        memory.pools.iter().filter(|pool| pool.pool == name).map(what).sum::<usize>()
    };
    // Both ends are here.
    assert_eq!(sum(&during, "sessions", |pool| pool.used), 80);
    assert_eq!(sum(&during, "connections", |pool| pool.used), 80);
    assert_eq!(sum(&during, "tuples", |pool| pool.used), 40);
    assert_eq!(pool(&during, "main", "half-opens").high_water, Some(40));
    assert!(during.held_bytes > before.held_bytes);
    assert_eq!(during.held_bytes, during.pools.iter().map(|pool| pool.held_bytes).sum::<usize>());
    for pool in &during.pools {
        assert!(pool.element_bytes > 0 || pool.used == 0, "{pool:?}");
        // Timers' chunks are counted at their least, and a table's words share cache lines.
        assert!(pool.used * pool.element_bytes <= pool.held_bytes, "{pool:?}");
        assert!(pool.high_water.is_none_or(|most| most >= pool.used), "{pool:?}");
    }
    for session in log.sessions() {
        stack.end_session(session, hoststack::EndHow::Reset).expect("running");
    }
    until(&mut stack, LONG, || log.closed() == 40 && server_log.closed() == 40);
    let after = memory(&mut stack);
    assert_eq!(sum(&after, "sessions", |pool| pool.used), 0);
    assert!(sum(&after, "sessions", |pool| pool.high_water.unwrap_or(0)) >= 80);
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn the_configuration_is_told() {
    let mut stack = stack(3);
    let items = ask(&mut stack, Query::Config).config;
    let of = |name: &str| items.iter().find(|item| item.name == name).map(|item| item.value.as_str());
    assert_eq!((of("workers"), of("seed"), of("tcp.time_wait")), (Some("3"), Some("set"), Some("60s")));
}

#[test]
fn cleared_counters_count_anew_and_what_is_held_stays() {
    let mut stack = stack(2);
    let (client, server, log, server_log) = connected(&mut stack, 10);
    // A route that is not there: a drop on a worker.
    let nowhere = hoststack::ping::PingOptions {
        count: 1,
        ..hoststack::ping::PingOptions::to("10.0.0.255".parse().expect("an address"))
    };
    drop(stack.ping(nowhere).expect("good options"));
    pass(&mut stack, Duration::from_secs(1));
    let before = summary(&mut stack);
    assert_eq!((before.since.errors_us, before.since.counters_us), (0, 0));
    let drops = |answer: &Answer| {
        answer.workers.iter().flat_map(|worker| &worker.drops).map(|drop| drop.count).sum::<u64>()
    };
    let packets = |answer: &Answer| answer.workers.iter().map(|worker| worker.rx_packets).sum::<u64>();
    assert!(drops(&before) > 0 && packets(&before) > 20);
    let totals = ask(&mut stack, Query::Totals);
    assert_eq!((drops(&totals), packets(&totals)), (drops(&before), packets(&before)));

    stack.clear(Clear::Errors).expect("running");
    let after = summary(&mut stack);
    assert_eq!(drops(&after), 0);
    assert_eq!(after.since.errors_us, after.since.now_us);
    assert_eq!((after.since.counters_us, packets(&after)), (0, packets(&before)), "the others go on");

    pass(&mut stack, Duration::from_secs(1));
    stack.clear(Clear::Counters).expect("running");
    let after = summary(&mut stack);
    assert_eq!(packets(&after), 0);
    assert!(after.workers.iter().all(|worker| worker.tcp.is_empty() && worker.callbacks == 0));
    assert!(after.since.counters_us > after.since.errors_us);
    assert!(after.main.busy_steps <= after.main.steps && after.main.steps < before.main.steps);
    let sessions: usize = after.workers.iter().map(|worker| worker.sessions).sum();
    assert_eq!((sessions, after.apps.len()), (20, 2), "what is held is no counter");
    assert_eq!(after.apps[0].app_workers[0].outcomes, before.apps[0].app_workers[0].outcomes);
    let main = &after.main;
    assert!(main.busy_steps <= main.steps && main.steps < before.main.steps, "{main:?}");
    // Those who keep books see nothing of it.
    let after = ask(&mut stack, Query::Totals);
    assert!(drops(&after) >= drops(&totals) && packets(&after) >= packets(&totals));
    assert!(after.main.steps >= totals.main.steps && after.main.busy_steps >= totals.main.busy_steps);
    let tcp = |answer: &Answer| answer.workers.iter().flat_map(|one| &one.tcp).map(|(_, n)| *n).sum::<u64>();
    assert!(tcp(&totals) > 0 && tcp(&after) >= tcp(&totals));
    let info = network(&mut stack);
    assert_eq!(info.interfaces.iter().map(|i| i.total().rx_packets).sum::<u64>(), 0);
    assert!(info.ip.iter().all(|ip| ip.counters.is_empty()), "{:?}", info.ip);

    // Only what comes now is counted: one ping each way, and its drop reason anew.
    drop(stack.ping(nowhere).expect("good options"));
    let one = hoststack::ping::PingOptions {
        count: 1,
        ..hoststack::ping::PingOptions::to("10.0.0.2".parse().expect("an address"))
    };
    drop(stack.ping(one).expect("good options"));
    pass(&mut stack, Duration::from_secs(1));
    let after = summary(&mut stack);
    assert_eq!((packets(&after), drops(&after)), (2, 1));
    let info = network(&mut stack);
    assert_eq!(info.interfaces.iter().map(|i| i.total().rx_packets).sum::<u64>(), 2);
    finish(stack, &[&client, &server], &[&log, &server_log]);
}
