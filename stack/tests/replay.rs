//! A run is determined by its seed, its configuration and what its steps find (invariant 7 of the design).

mod common;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, MemoryWireConfig, impair, memory_wire};
use hoststack::{Attached, Builder, Query, Recording, SingleThreaded, Stack, StackConfig, StackHandle};

/// A stack with a bad link.
fn builder(seed: u64, workers: usize) -> Builder {
    let bad = |seed| Impairments {
        seed,
        loss: 0.05,
        reorder: 0.05,
        delay_us: 700,
        jitter_us: 300,
        ..Impairments::default()
    };
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let (a, b) = (impair(Box::new(a), bad(seed)), impair(Box::new(b), bad(seed + 1)));
    // Small channels, so that batches wait in outboxes.
    let config = StackConfig { seed: Some(seed), channel_batches: 2, ..config(workers) };
    Stack::builder().config(config).interface(interface(a, CLIENT, 1)).interface(interface(b, SERVER, 2))
}

/// Connects of the client on each worker.
const CONNECTS: usize = 50;

/// Whether a client on `workers` workers has done all it will.
fn is_done(log: &Log, workers: usize) -> bool {
    log.outcomes().len() == CONNECTS * workers && log.closed() == log.up()
}

/// A client whose sessions open, echo, and open others, some of which are cancelled.
fn client(log: &Log) -> Probe {
    // Each worker counts its own: what an app does must follow from what its worker tells it.
    let started: [Counter; 4] = Default::default();
    Probe::new(log, move |ctx, event| {
        let again = match *event {
            Event::Attached | Event::Closed(..) | Event::Connected(_, _, Err(_)) => true,
            Event::Connected(_, opaque, Ok(session)) => {
                ctx.write(session, &[opaque as u8; 3000]);
                opaque % 2 == 0
            }
            Event::Readable(session) => {
                // The thousands count what came back.
                let got = ctx.opaque(session) + 1000 * drain(ctx, session) as u64;
                ctx.set_opaque(session, got);
                if ctx.opaque(session) >= 3_000_000 {
                    ctx.close(session);
                }
                false
            }
            _ => false,
        };
        let started = &started[ctx.worker().index()];
        if again && started.add(1) < CONNECTS as u64 {
            let opaque = ctx.now().as_micros() % 1000;
            let worker = Some(ctx.worker());
            let options = ConnectOptions { opaque, worker, ..ConnectOptions::to(Family::V4.server(80)) };
            let connect = ctx.connect(options).unwrap();
            if opaque % 5 == 0 {
                ctx.cancel(connect);
            }
        }
    })
}

fn serve_options() -> ListenOptions {
    ListenOptions { domain: SERVER, ..ListenOptions::on(Family::V4.server(80)) }
}

/// A stack without threads, on virtual time or in a replay, with a server and a client.
fn world(mut stack: SingleThreaded) -> (SingleThreaded, Log) {
    let (log, server_log) = (Log::default(), Log::default());
    let server = stack.attach(Probe::echo(&server_log), AttachOptions::named("server")).unwrap();
    stack.listen(server.app_workers[0], serve_options()).unwrap();
    stack.attach(client(&log), AttachOptions::named("client")).unwrap();
    (stack, log)
}

fn run(seed: u64, workers: usize) -> (Recording, Vec<Line>) {
    let mut stack = Stack::single_threaded(builder(seed, workers)).unwrap();
    stack.use_virtual_time_from(Instant::from_micros(1));
    stack.record();
    let (mut stack, log) = world(stack);
    until(&mut stack, Duration::from_secs(600), || is_done(&log, workers));
    (stack.take_recording(), log.lines())
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    for workers in [1, 3] {
        let first = run(11, workers);
        let second = run(11, workers);
        assert!(first == second, "all steps, all packets, all callbacks");
        assert_ne!(first.0.digest, run(12, workers).0.digest);
        assert_ne!(first.0.digest, 0);
    }
}

#[test]
fn a_recorded_run_replays_to_the_same_digest_and_the_same_callbacks() {
    for workers in [1, 2] {
        let (recording, lines) = run(21, workers);
        let (mut stack, log) = world(Stack::replay(builder(21, workers), &recording).unwrap());
        assert_eq!(stack.finish_replay(), recording.digest);
        assert!(log.lines() == lines);
    }
}

#[test]
fn other_times_give_another_digest() {
    let (mut recording, _) = run(31, 1);
    let late = recording.steps.len() / 2;
    for step in &mut recording.steps[late..] {
        step.now = step.now + Duration::from_millis(3);
    }
    let (mut stack, _) = world(Stack::replay(builder(31, 1), &recording).unwrap());
    assert_ne!(stack.finish_replay(), recording.digest);
}

/// What a driver does to a stack from outside, on threads or in a replay.
trait Driven {
    fn attach(&mut self, app: Probe, name: &str) -> Attached;
    fn listen(&mut self, app_worker: AppWorkerId);
    fn connect(&mut self, app_worker: AppWorkerId, options: ConnectOptions);
    fn inspect(&mut self);
    fn detach(&mut self, app: AppId) -> DetachReport;
}

macro_rules! driven {
    ($stack:ty) => {
        impl Driven for $stack {
            fn attach(&mut self, app: Probe, name: &str) -> Attached {
                <$stack>::attach(self, app, AttachOptions::named(name)).unwrap()
            }
            fn listen(&mut self, app_worker: AppWorkerId) {
                <$stack>::listen(self, app_worker, serve_options()).unwrap();
            }
            fn connect(&mut self, app_worker: AppWorkerId, options: ConnectOptions) {
                <$stack>::connect(self, app_worker, options).unwrap();
            }
            fn inspect(&mut self) {
                <$stack>::inspect(self, Query::Summary).unwrap();
            }
            fn detach(&mut self, app: AppId) -> DetachReport {
                <$stack>::detach(self, app, DetachPolicy::Reset).unwrap()
            }
        }
    };
}
driven!(StackHandle);
driven!(SingleThreaded);

/// Drives, and asks how things are as long as `again` says. What a driver does must be the same in a replay, and when
/// it sees a log change is chance.
fn drive(stack: &mut impl Driven, mut again: impl FnMut(&Log) -> bool) -> (Log, Vec<DetachReport>) {
    let (log, server_log) = (Log::default(), Log::default());
    let server = stack.attach(Probe::echo(&server_log), "server");
    stack.listen(server.app_workers[0]);
    let client = stack.attach(client(&log), "client");
    // Another client, which is detached while it connects.
    let doomed = stack.attach(Probe::idle(&Log::default()), "doomed");
    for opaque in 0..50 {
        let options = ConnectOptions { opaque, ..ConnectOptions::to(Family::V4.server(80)) };
        stack.connect(doomed.app_workers[0], options);
    }
    let doomed = stack.detach(doomed.app);
    while again(&log) {
        stack.inspect();
    }
    let reports = vec![doomed, stack.detach(client.app), stack.detach(server.app)];
    (log, reports)
}

#[test]
fn a_recorded_run_of_threads_replays_on_one_thread_to_the_same_digest() {
    for workers in [1, 2, 4] {
        let stack = builder(41, workers).record().start().unwrap();
        let mut asked = 0;
        let (log, reports) = drive(&mut stack.handle(), |log| {
            asked += 1;
            !is_done(log, workers)
        });
        let recording = stack.stop_recorded().unwrap();
        assert!(recording.steps.len() > 100);

        let mut replay = Stack::replay(builder(41, workers), &recording).unwrap();
        let (again, reports_again) = drive(&mut replay, |_| {
            asked -= 1;
            asked > 0
        });
        assert_eq!(replay.finish_replay(), recording.digest, "{workers} workers");
        let per_worker = |log: &Log| {
            let mut lines = log.lines();
            // Between threads the log has the order of its lock.
            lines.sort_by_key(|line| line.at);
            lines
        };
        assert!(per_worker(&again) == per_worker(&log));
        let found = |report: &DetachReport| {
            (report.outcomes(), report.app_workers[0].half_opens, report.app_workers[0].took)
        };
        assert!(reports_again.iter().map(found).eq(reports.iter().map(found)));
    }
}
