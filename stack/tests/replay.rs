//! A run is determined by its seed, its configuration and the times of its steps (invariant 7 of the design).

mod common;

use common::*;
use hoststack::app::*;
use hoststack::net::Impairments;
use hoststack::{Recording, SingleThreaded, StackConfig};

/// A stack with a bad link, an echo server and a client whose sessions open, echo, and open others.
fn world(seed: u64, workers: usize) -> (SingleThreaded, Log) {
    let bad = |seed| Impairments {
        seed,
        loss: 0.05,
        reorder: 0.05,
        delay_us: 700,
        jitter_us: 300,
        ..Impairments::default()
    };
    let config = StackConfig { seed: Some(seed), ..config(workers) };
    let (mut stack, _) = impaired_stack(config, bad(seed), bad(seed + 1));
    stack.record();
    let (log, server_log) = (Log::default(), Log::default());
    serve(&mut stack, Probe::echo(&server_log), 80);
    let started = Counter::default();
    let probe = Probe::new(&log, move |ctx, event| {
        let again = match *event {
            Event::Attached | Event::Closed(..) => true,
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
        if again {
            let opaque = started.add(1);
            if opaque < 100 {
                ctx.connect(ConnectOptions { opaque, ..ConnectOptions::to(Family::V4.server(80)) }).unwrap();
            }
        }
    });
    attach(&mut stack, "client", probe);
    (stack, log)
}

fn run(seed: u64, workers: usize) -> (Recording, u64, Vec<Line>) {
    let (mut stack, log) = world(seed, workers);
    until(&mut stack, Duration::from_secs(600), || log.closed() == 100);
    let (recording, digest) = stack.recorded();
    (recording, digest, log.lines())
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    for workers in [1, 3] {
        let first = run(11, workers);
        let second = run(11, workers);
        assert_eq!(first.1, second.1, "the digests of all packets and their times");
        assert!(first.0 == second.0, "the times of all steps");
        assert!(first.2 == second.2, "all callbacks");
        assert_ne!(first.1, run(12, workers).1);
        assert_ne!(first.1, 0);
    }
}

#[test]
fn a_recorded_run_replays_to_the_same_digest_and_the_same_callbacks() {
    for workers in [1, 2] {
        let (recording, digest, lines) = run(21, workers);
        // The steps that made the world are in the recording: the replay makes its own and goes on from there.
        let (mut stack, log) = world(21, workers);
        let made = stack.recorded().0.steps.len();
        assert_eq!(recording.steps[..made], stack.recorded().0.steps[..]);
        stack.replay(&Recording { steps: recording.steps[made..].to_vec() });
        assert_eq!(stack.recorded().1, digest);
        assert!(stack.recorded().0 == recording);
        assert!(log.lines() == lines);
    }
}

#[test]
fn other_times_give_another_digest() {
    let (recording, digest, _) = run(31, 1);
    let (mut stack, _) = world(31, 1);
    let made = stack.recorded().0.steps.len();
    let mut steps = recording.steps[made..].to_vec();
    let late = steps.len() / 2;
    for step in &mut steps[late..] {
        *step = *step + Duration::from_millis(3);
    }
    stack.replay(&Recording { steps });
    assert_ne!(stack.recorded().1, digest);
}
