//! Figures of a running stack: histograms, congestion, transports, counts of sessions, load, and where steps spend their
//! time.

mod common;

use common::*;
use hoststack::app::*;
use hoststack::inspect::{HistogramInfo, TransportInfo, WorkerInfo};
use hoststack::net::{Impairments, MemoryWireConfig, memory_wire};
use hoststack::{Answer, Bursts, Query, SingleThreaded, Stack, StackConfig};

const LONG: Duration = Duration::from_secs(3600);

fn to(port: u16) -> ConnectOptions {
    ConnectOptions::to(Family::V4.server(port))
}

fn delayed(delay_us: u64) -> Impairments {
    Impairments { seed: 3, delay_us, ..Impairments::default() }
}

fn ask(stack: &mut SingleThreaded, what: Query) -> Answer {
    stack.inspect(what).expect("running")
}

/// A histogram by its name, of a worker or of all.
fn histogram(answer: &Answer, name: &str, worker: Option<u8>) -> HistogramInfo {
    let found = answer.histograms.iter().find(|info| info.name == name && info.worker == worker);
    found.unwrap_or_else(|| panic!("no histogram {name} of {worker:?}")).clone()
}

fn sum(answer: &Answer, what: impl Fn(&WorkerInfo) -> u64) -> u64 {
    answer.workers.iter().map(what).sum()
}

fn transport(answer: &Answer, name: &str) -> TransportInfo {
    answer.transports.iter().find(|info| info.transport == name).expect("each transport is listed").clone()
}

/// Connects that send `bytes` and close when they have them back.
fn echo_client(log: &Log, bytes: u64) -> Probe {
    let streams = Streams::default();
    Probe::new(log, move |ctx, event| match *event {
        Event::Connected(_, _, Ok(session)) | Event::Writable(session) => {
            streams.send(ctx, session, bytes);
        }
        Event::Readable(session) if streams.receive(ctx, session, usize::MAX) == bytes => ctx.close(session),
        _ => {}
    })
}

#[test]
fn connect_latency_and_round_trips_are_those_of_the_link() {
    let (mut stack, _) = impaired_stack(config(2), delayed(20_000), delayed(20_000));
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::echo(&server_log), 80);
    let client = attach(&mut stack, "client", echo_client(&log, 1000));
    let first = ask(&mut stack, Query::Histograms);
    assert_eq!(histogram(&first, "connect-latency", None).count, 0);
    for _ in 0..20 {
        stack.connect(client.app_workers[0], to(80)).unwrap();
    }
    until(&mut stack, LONG, || log.closed() == 20);
    let answer = ask(&mut stack, Query::Histograms);
    let latency = histogram(&answer, "connect-latency", None);
    assert_eq!((latency.count, latency.unit), (20, "us"));
    // A round trip of the link.
    assert!(latency.p50 >= 40_000 && latency.max <= 45_000, "{latency:?}");
    assert!((20 * 40_000..=20 * 45_000).contains(&latency.sum), "{latency:?}");
    let below = |bound| latency.buckets.iter().find(|bucket| bucket.below == bound).unwrap().count;
    assert_eq!((below(1 << 15), below(1 << 17)), (0, 20));
    let of_workers: u64 =
        (0..2).map(|worker| histogram(&answer, "connect-latency", Some(worker)).count).sum();
    assert_eq!(of_workers, 20);
    // Both ends measured: the handshake, and what was echoed.
    let rtt = histogram(&answer, "rtt", None);
    assert!(rtt.count >= 40, "{rtt:?}");
    // 40 ms, at most 1/32 too high, and what acknowledgments were delayed by.
    assert!((40_000..=41_250).contains(&rtt.p50), "{rtt:?}");
    assert_eq!(histogram(&answer, "connect-failure", None).count, 0);
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn failures_are_counted_apart_with_the_time_that_they_took() {
    let mut stack = stack(1);
    let log = Log::default();
    let client = attach(&mut stack, "client", Probe::idle(&log));
    let timeout = Duration::from_secs(7);
    for options in [to(81), ConnectOptions { timeout, ..ConnectOptions::to(Family::V4.nobody()) }] {
        stack.connect(client.app_workers[0], options).unwrap();
    }
    until(&mut stack, LONG, || log.outcomes().len() == 2);
    let answer = ask(&mut stack, Query::Histograms);
    let failure = histogram(&answer, "connect-failure", None);
    assert_eq!((failure.count, answer.workers[0].connect_failures), (2, 2));
    assert!(failure.max > 0 && failure.max <= 7_100_000, "{failure:?}");
    assert_eq!((histogram(&answer, "connect-latency", None).count, answer.workers[0].connects), (0, 0));
    finish(stack, &[&client], &[&log]);
}

#[test]
fn vectors_and_cumulative_counts_add_up_over_the_workers() {
    let mut stack = stack(2);
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::echo(&server_log), 80);
    let client = attach(&mut stack, "client", echo_client(&log, 3000));
    for _ in 0..30 {
        stack.connect(client.app_workers[0], to(80)).unwrap();
    }
    until(&mut stack, LONG, || log.up() == 30 && server_log.accepted() == 30);
    let during = ask(&mut stack, Query::Summary);
    let alive = |name: &str| -> usize {
        let app = during.apps.iter().find(|app| app.name == name).unwrap();
        assert_eq!(app.app_workers[0].sessions.len(), 2);
        app.app_workers[0].sessions.iter().sum()
    };
    assert_eq!(alive("client") + alive("server"), sum(&during, |worker| worker.sessions as u64) as usize);
    assert!(alive("server") > 0);
    until(&mut stack, LONG, || log.closed() == 30 && server_log.closed() == 30);
    let answer = ask(&mut stack, Query::Histograms);
    assert_eq!(sum(&answer, |worker| worker.accepts), 30);
    assert_eq!(sum(&answer, |worker| worker.connects), 30);
    assert_eq!(sum(&answer, |worker| worker.ends), 60);
    // There and back, each counted where it came and where it went.
    assert_eq!(sum(&answer, |worker| worker.bytes_in), 2 * 30 * 3000);
    assert_eq!(sum(&answer, |worker| worker.bytes_out), 2 * 30 * 3000);
    for worker in &answer.workers {
        let rx = histogram(&answer, "rx-vector", Some(worker.worker));
        assert_eq!((rx.sum, rx.count, rx.unit), (worker.rx_packets, worker.rx_vectors, "packets"));
        let tx = histogram(&answer, "tx-vector", Some(worker.worker));
        assert_eq!((tx.sum, tx.count), (worker.tx_packets, worker.tx_vectors));
        assert!(worker.rx_vectors > 0 && worker.rx_vectors < worker.rx_packets, "packets come in vectors");
    }
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn a_stack_that_is_stepped_measures_no_time_of_its_steps() {
    let mut stack = stack(1);
    let log = Log::default();
    let server = serve(&mut stack, Probe::echo(&log), 80);
    let answer = ask(&mut stack, Query::Histograms);
    assert!(answer.workers[0].busy_steps > 0 && answer.main.busy_steps > 0);
    for pace in [&answer.workers[0].pace, &answer.main.pace] {
        assert_eq!((pace.busy_us, pace.load_permille, pace.sampled_steps), (0, 0, 0));
        assert!(pace.stages.is_empty());
    }
    assert_eq!(histogram(&answer, "step", None).count + histogram(&answer, "main-step", None).count, 0);
    finish(stack, &[&server], &[&log]);
}

#[test]
fn congestion_is_told_by_algorithm_in_slices_of_any_size() {
    let bursts = Bursts { inspect_slots: 3, ..Bursts::default() };
    let bad = |seed| Impairments { seed, loss: 0.05, delay_us: 10_000, ..Impairments::default() };
    let (mut stack, _) = impaired_stack(StackConfig { bursts, ..config(2) }, bad(1), bad(2));
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::sink(&server_log), 80);
    let streams = Streams::default();
    let client = attach(
        &mut stack,
        "client",
        Probe::new(&log, move |ctx, event| {
            if let Event::Connected(_, _, Ok(session)) | Event::Writable(session) = *event {
                streams.send(ctx, session, 1 << 30);
            }
        }),
    );
    for congestion in [Algorithm::Bbr, Algorithm::NewReno] {
        for _ in 0..10 {
            let mut options = ConnectOptions { timeout: Duration::from_secs(300), ..to(80) };
            options.socket.congestion = congestion;
            stack.connect(client.app_workers[0], options).unwrap();
        }
    }
    until(&mut stack, LONG, || log.up() == 20 && server_log.accepted() == 20);
    let (mut slow_start, mut avoidance, mut fast, mut loss, mut paced) = (0, 0, 0, 0, 0);
    for _ in 0..200 {
        pass(&mut stack, Duration::from_millis(10));
        let answer = ask(&mut stack, Query::Congestion);
        let counts: Vec<_> =
            answer.congestion.iter().map(|info| (info.algorithm, info.connections)).collect();
        assert_eq!(counts, [("bbr", 10), ("cubic", 20), ("newreno", 10)]);
        for info in &answer.congestion {
            let phases = info.slow_start + info.avoidance + info.fast_recovery + info.loss_recovery;
            assert_eq!(phases, info.connections, "{info:?}");
            assert!(info.cwnd_mean > 0 && info.cwnd_mean <= info.cwnd_max, "{info:?}");
            assert!(info.srtt_mean_us >= 20_000 && info.srtt_mean_us <= info.srtt_max_us, "{info:?}");
        }
        let [bbr, _, newreno] = &answer.congestion[..] else { unreachable!("three, as above") };
        slow_start += newreno.slow_start;
        avoidance += newreno.avoidance;
        fast += newreno.fast_recovery;
        loss += newreno.loss_recovery;
        paced += bbr.paced;
        assert_eq!(newreno.paced, 0);
    }
    assert!(
        slow_start > 0 && avoidance > 0 && fast > 0 && loss > 0,
        "{slow_start} {avoidance} {fast} {loss}"
    );
    assert_eq!(paced, 200 * 10);
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn transports_have_their_counts_and_limits() {
    let mut to_server = delayed(30_000);
    to_server.loss = 0.05;
    let (mut stack, _) = impaired_stack(config(2), to_server, delayed(30_000));
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::echo(&server_log), 80);
    let place: Address = "local://echo".parse().unwrap();
    stack.listen(server.app_workers[0], ListenOptions::on(place.clone())).unwrap();
    let client = attach(&mut stack, "client", echo_client(&log, 50_000));
    for _ in 0..10 {
        stack.connect(client.app_workers[0], ConnectOptions { timeout: LONG, ..to(80) }).unwrap();
    }
    // The SYNs are under way.
    pass(&mut stack, Duration::from_millis(20));
    let answer = ask(&mut stack, Query::Transports);
    let names: Vec<_> = answer.transports.iter().map(|info| info.transport).collect();
    assert_eq!(names, ["tcp", "kernel+tcp", "kernel+unix", "local"]);
    let tcp = transport(&answer, "tcp");
    assert_eq!((tcp.half_opens, tcp.listeners, tcp.connected), (10, 2, 0), "{tcp:?}");
    assert_eq!(tcp.connections_max, 2 << 20);
    assert_eq!(tcp.half_opens_max, Some(1 << 20));
    for _ in 0..3 {
        stack.connect(client.app_workers[0], ConnectOptions::to(place.clone())).unwrap();
    }
    until(&mut stack, LONG, || log.closed() == 13 && server_log.closed() == 13);
    let answer = ask(&mut stack, Query::Transports);
    let (tcp, local) = (transport(&answer, "tcp"), transport(&answer, "local"));
    assert_eq!((tcp.connections, tcp.half_opens, tcp.failed), (0, 0, 0), "{tcp:?}");
    assert_eq!((tcp.connected, tcp.accepted, tcp.closed), (10, 10, 20));
    assert_eq!((tcp.bytes_in, tcp.bytes_out), (2 * 10 * 50_000, 2 * 10 * 50_000));
    assert!(tcp.retransmitted_segments > 0 && tcp.retransmitted_bytes > 0);
    assert_eq!((local.connected, local.accepted, local.closed, local.listeners), (3, 3, 6, 1), "{local:?}");
    assert_eq!((local.bytes_in, local.bytes_out, local.failed), (2 * 3 * 50_000, 2 * 3 * 50_000, 0));
    assert_eq!(transport(&answer, "kernel+tcp").listeners, 0);
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn threads_measure_every_step_that_did_something_and_the_stages_of_one_in_64() {
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let builder = Stack::builder()
        .config(config(2))
        .interface(interface(a, CLIENT, 1))
        .interface(interface(b, SERVER, 2));
    let stack = builder.start().unwrap();
    let handle = stack.handle();
    let (log, server_log) = (Log::default(), Log::default());
    let server = handle.attach(Probe::echo(&server_log), AttachOptions::named("server")).unwrap();
    handle.listen(server.app_workers[0], listen_on(Family::V4, 80)).unwrap();
    let client = handle.attach(echo_client(&log, 1000), AttachOptions::named("client")).unwrap();
    for _ in 0..50 {
        handle.connect(client.app_workers[0], to(80)).unwrap();
    }
    // Each question is a step of every thread that does something.
    let mut answer = handle.inspect(Query::Histograms).unwrap();
    while answer.workers.iter().any(|worker| worker.pace.sampled_steps < 3)
        || answer.main.pace.sampled_steps < 3
    {
        answer = handle.inspect(Query::Histograms).unwrap();
    }
    for worker in &answer.workers {
        let steps = histogram(&answer, "step", Some(worker.worker));
        assert_eq!((steps.count, steps.sum), (worker.busy_steps, worker.pace.busy_us));
        assert_eq!(worker.pace.sampled_steps, worker.busy_steps.div_ceil(64));
        let names: Vec<_> = worker.pace.stages.iter().map(|stage| stage.stage).collect();
        assert_eq!((names.len(), names[0], names[12]), (13, "commands", "flush"));
        assert!(worker.pace.stages.iter().map(|stage| stage.total_ns).sum::<u64>() > 0);
        let shares: u32 = worker.pace.stages.iter().map(|stage| stage.share_permille).sum();
        assert!((987..=1000).contains(&shares), "rounded down, {shares}");
        assert!(worker.pace.load_permille <= 1000);
    }
    let steps = histogram(&answer, "main-step", None);
    assert_eq!((steps.count, steps.sum), (answer.main.busy_steps, answer.main.pace.busy_us));
    assert_eq!(answer.main.pace.sampled_steps, answer.main.busy_steps.div_ceil(64));
    assert_eq!(answer.main.pace.stages.len(), 7);
    stack.shutdown(DetachPolicy::Reset);
    log.check(true);
    server_log.check(true);
}
