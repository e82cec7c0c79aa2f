//! Each bound of a step (`StackConfig::bursts`) does what it says: the rest waits for a later step, and comes.

mod common;

use common::*;
use hoststack::app::*;
use hoststack::net::{MemoryWireConfig, memory_wire};
use hoststack::{Actor, Attached, Bursts, SingleThreaded, Stack, StackConfig, Stepped};

const COUNT: usize = 20;

fn stack_with(bursts: Bursts) -> SingleThreaded {
    stack_of(StackConfig { bursts, ..config(1) }, MemoryWireConfig::default())
}

/// Steps until `count` says that all is done; returns the most that one step did.
fn most_in_a_step(stack: &mut SingleThreaded, count: impl Fn() -> usize) -> usize {
    let (mut most, mut before) = (0, count());
    for _ in 0..100 * COUNT {
        let _ = stack.step();
        most = most.max(count() - before);
        before = count();
    }
    assert_eq!(before, COUNT, "what waits comes in a later step");
    most
}

/// Connects that fail at once; the most that a step told, and the most that a step cleaned.
fn failures(bursts: Bursts) -> (usize, usize) {
    let run = |count: fn(&Log) -> usize| {
        let mut stack = stack_with(bursts);
        let log = Log::default();
        let client = attach(&mut stack, "client", Probe::idle(&log));
        for _ in 0..COUNT {
            stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.nowhere())).unwrap();
        }
        most_in_a_step(&mut stack, || count(&log))
    };
    (run(|log| log.outcomes().len()), run(Log::cleaned))
}

#[test]
fn requests_commands_callbacks_and_reports_of_a_step_are_bounded() {
    let all = Bursts::default();
    assert_eq!(failures(all), (COUNT, COUNT));
    assert_eq!(failures(Bursts { requests: 1, ..all }), (1, 1));
    assert_eq!(failures(Bursts { callbacks: 1, ..all }), (1, 1));
    // An outcome counts for 32 commands.
    assert_eq!(failures(Bursts { commands: 1, ..all }).0, 1);
    assert_eq!(failures(Bursts { commands: 64, ..all }).0, 2);
    assert_eq!(failures(Bursts { reports: 1, ..all }), (COUNT, 1));
}

/// Sessions that are up when their app is detached: the most that a step closed.
fn closed_by_detach(bursts: Bursts) -> usize {
    let mut stack = stack_with(bursts);
    let (log, server_log) = (Log::default(), Log::default());
    serve(&mut stack, Probe::idle(&server_log), 80);
    let client = attach(&mut stack, "client", Probe::idle(&log));
    for _ in 0..COUNT {
        stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
    }
    until(&mut stack, Duration::from_secs(1), || log.up() == COUNT);
    // Answered in a later step; nobody waits for it.
    let _ = stack.handle().requests().detach(client.app, DetachPolicy::Reset);
    most_in_a_step(&mut stack, || log.closed())
}

#[test]
fn a_detach_ends_a_bounded_number_of_sessions_in_a_step() {
    let all = Bursts::default();
    assert_eq!(closed_by_detach(all), all.detach_ended);
    assert_eq!(closed_by_detach(Bursts { detach_ended: 3, ..all }), 3);
    assert!(closed_by_detach(Bursts { detach_slots: 1, ..all }) <= 2, "both ends' sessions lie in the slots");
}

#[test]
fn an_answer_looks_at_a_bounded_number_of_slots_in_a_step() {
    let steps = |inspect_slots| {
        let mut stack = stack_with(Bursts { inspect_slots, ..Bursts::default() });
        let (log, server_log) = (Log::default(), Log::default());
        serve(&mut stack, Probe::idle(&server_log), 80);
        let client = attach(&mut stack, "client", Probe::idle(&log));
        stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
        until(&mut stack, Duration::from_secs(1), || log.up() == 1);
        let before = summary(&mut stack).workers[0].steps;
        let answer = summary(&mut stack);
        answer.workers[0].steps - before
    };
    assert!(steps(512) < 20);
    assert!(steps(8) > 20, "a pool's chunk has more slots than eight times twenty");
}

/// A stack whose actors the test steps, with an app that has connects that nobody answers.
fn pending(bursts: Bursts) -> (Stepped, Log, Attached) {
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let config = StackConfig { bursts, ..config(1) };
    let builder =
        Stack::builder().config(config).interface(interface(a, CLIENT, 1)).interface(interface(b, SERVER, 2));
    let mut stack = Stack::stepped(builder).unwrap();
    let log = Log::default();
    let mut attached = stack.handle().requests().attach(Probe::idle(&log), AttachOptions::named("client"));
    turns(&mut stack, 3);
    let client = attached.try_take().unwrap().unwrap();
    for _ in 0..COUNT {
        let options = ConnectOptions::to(Family::V4.nobody());
        stack.handle().connect(client.app_workers[0], options).unwrap();
    }
    turns(&mut stack, 5);
    (stack, log, client)
}

fn turns(stack: &mut Stepped, count: usize) {
    for _ in 0..count {
        main_steps(stack, 1);
        worker_steps(stack);
    }
}

fn main_steps(stack: &mut Stepped, count: usize) {
    for _ in 0..count {
        let _ = stack.step(Actor::Main, Instant::from_micros(1));
    }
}

fn worker_steps(stack: &mut Stepped) {
    let _ = stack.step(Actor::Worker(WorkerId(0)), Instant::from_micros(1));
}

#[test]
fn a_detach_settles_a_bounded_number_of_connects_and_waits_for_them_to_be_told() {
    let told = |bursts| {
        let (mut stack, log, client) = pending(bursts);
        let mut report = stack.handle().requests().detach(client.app, DetachPolicy::Reset);
        // The worker says that it has begun; then main alone goes on.
        turns(&mut stack, 1);
        main_steps(&mut stack, 4);
        worker_steps(&mut stack);
        let told = log.outcomes().len();
        turns(&mut stack, 100);
        assert_eq!(log.outcomes(), vec![(0, Err(ConnectFailure::Detached)); COUNT]);
        assert_eq!(report.try_take().unwrap().unwrap().outcomes().detached, COUNT as u64);
        told
    };
    let all = Bursts::default();
    assert_eq!(told(all), COUNT);
    // Main settles in its second, third and fourth step.
    assert_eq!(told(Bursts { settled: 3, ..all }), 9);
    assert_eq!(told(Bursts { settled: 3, settling: 5, ..all }), 6);
    assert_eq!(told(Bursts { settled: 3, settling: 1, ..all }), 3);
}

/// A connect in a callback has its deadline from the call on, however late main hears of it.
#[test]
fn a_deadline_runs_from_the_call() {
    let (mut stack, log, _) = pending(Bursts::default());
    let probe = Probe::new(&log, |ctx, event| {
        if let Event::Attached = event {
            let timeout = Duration::from_secs(3);
            ctx.connect(ConnectOptions { timeout, opaque: 7, ..ConnectOptions::to(Family::V4.nobody()) })
                .unwrap();
        }
    });
    let _ = stack.handle().requests().attach(probe, AttachOptions::named("other"));
    turns(&mut stack, 1);
    let late = Instant::ZERO + Duration::from_millis(2900);
    let _ = stack.step(Actor::Main, late);
    let _ = stack.step(Actor::Worker(WorkerId(0)), late);
    assert_eq!(log.outcomes(), []);
    let over = Instant::from_micros(1) + Duration::from_secs(3);
    let _ = stack.step(Actor::Main, over);
    let _ = stack.step(Actor::Worker(WorkerId(0)), over);
    assert_eq!(log.outcomes(), [(7, Err(ConnectFailure::TimedOut))]);
}
