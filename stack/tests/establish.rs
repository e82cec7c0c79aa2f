//! Establishment at its edges: SYN-ACKs that meet a cancel, both ends that open at once, 4-tuples in TIME-WAIT.

mod common;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, LinkState, MemoryWireConfig};
use hoststack::{Attached, Bursts, SingleThreaded, StackConfig};

const LONG: Duration = Duration::from_secs(600);

fn to(port: u16, opaque: u64) -> ConnectOptions {
    ConnectOptions { opaque, ..ConnectOptions::to(Family::V4.server(port)) }
}

fn delayed(delay_us: u64) -> Impairments {
    Impairments { delay_us, ..Impairments::default() }
}

// covers: H50
#[test]
fn a_syn_ack_that_comes_after_the_cancel_is_reset() {
    for worker_count in [1, 2] {
        let (mut stack, _) = impaired_stack(config(worker_count), delayed(10_000), delayed(10_000));
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let client = attach(&mut stack, "client", Probe::idle(&log));
        let connects: Vec<ConnectId> =
            (0..10).map(|opaque| stack.connect(client.app_workers[0], to(80, opaque)).unwrap()).collect();
        // The SYN has arrived, the SYN-ACK is on its way.
        pass(&mut stack, Duration::from_millis(15));
        for connect in connects {
            stack.cancel(connect).unwrap();
        }
        until(&mut stack, LONG, || log.cleaned() == 10);
        assert!(log.outcomes().iter().all(|(_, outcome)| *outcome == Err(ConnectFailure::Cancelled)));
        pass(&mut stack, Duration::from_millis(100));
        // The server heard: no record waits, and nobody was told of a session.
        assert_eq!(summary(&mut stack).workers.iter().map(|worker| worker.syn_received).sum::<usize>(), 0);
        assert_eq!(server_log.accepted(), 0);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn a_deadline_that_comes_before_the_syn_ack_is_a_time_out() {
    let (mut stack, _) = impaired_stack(config(2), delayed(10_000), delayed(10_000));
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::idle(&server_log), 80);
    let client = attach(&mut stack, "client", Probe::idle(&log));
    for (opaque, millis) in [(0, 19), (1, 30)] {
        let options = ConnectOptions { timeout: Duration::from_millis(millis), ..to(80, opaque) };
        stack.connect(client.app_workers[0], options).unwrap();
    }
    until(&mut stack, LONG, || log.cleaned() == 2);
    assert_eq!(log.outcomes(), [(0, Err(ConnectFailure::TimedOut)), (1, Ok(()))]);
    pass(&mut stack, Duration::from_secs(1));
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

/// Two apps that connect to each other's fixed port at the same time: one connection, two outbound sessions.
fn open_both(
    stack: &mut SingleThreaded,
    logs: &[Log; 2],
    timeout: Duration,
) -> ([Attached; 2], [ConnectId; 2]) {
    let apps = [0, 1].map(|end| attach(stack, ["a", "b"][end], Probe::echo(&logs[end])));
    let ends = [std::net::SocketAddr::new(Family::V4.client_addr(), 5000), Family::V4.server(6000)];
    let connects = [0, 1].map(|end: usize| {
        let options = ConnectOptions {
            domain: [CLIENT, SERVER][end],
            local_port: ends[end].port(),
            timeout,
            opaque: end as u64,
            ..ConnectOptions::to(ends[1 - end])
        };
        stack.connect(apps[end].app_workers[0], options).unwrap()
    });
    (apps, connects)
}

// covers: MUST-10
#[test]
fn both_ends_open_at_once_and_both_are_connected() {
    for workers in [1, 2, 4] {
        for loss in [0.0, 0.2] {
            for seed in 0..5 {
                let bad = |seed| Impairments { seed, loss, ..delayed(5_000) };
                let (mut stack, _) = impaired_stack(config(workers), bad(seed), bad(seed + 50));
                let logs = [Log::default(), Log::default()];
                let (apps, _) = open_both(&mut stack, &logs, Duration::from_secs(120));
                until(&mut stack, LONG, || logs.iter().all(|log| log.cleaned() == 1));
                for (log, opaque) in logs.iter().zip(0..) {
                    assert_eq!(log.outcomes(), [(opaque, Ok(()))]);
                }
                finish(stack, &[&apps[0], &apps[1]], &[&logs[0], &logs[1]]);
            }
        }
    }
}

/// One SYN each way passes, then nothing: both tickets are on workers, in SYN-RECEIVED. What ends them there?
fn both_in_syn_received() -> (SingleThreaded, [Log; 2], [Attached; 2], [ConnectId; 2]) {
    let (mut stack, links) = impaired_stack(config(2), delayed(5_000), delayed(5_000));
    let logs = [Log::default(), Log::default()];
    let (apps, connects) = open_both(&mut stack, &logs, Duration::from_secs(20));
    // What was sent is on its way; what comes afterwards is lost.
    pass(&mut stack, Duration::from_millis(1));
    links.iter().for_each(|link| link.set_link(LinkState::Cut));
    pass(&mut stack, Duration::from_millis(100));
    let answer = summary(&mut stack);
    assert_eq!(
        answer.workers.iter().map(|worker| worker.establishing).sum::<usize>(),
        2,
        "handed over, not up"
    );
    assert!(logs.iter().all(|log| log.outcomes().is_empty()));
    (stack, logs, apps, connects)
}

#[test]
fn a_deadline_ends_a_connect_that_a_worker_holds() {
    let (mut stack, logs, apps, _) = both_in_syn_received();
    until(&mut stack, LONG, || logs.iter().all(|log| !log.outcomes().is_empty()));
    let late = stack.now() - Instant::ZERO;
    assert!(late >= Duration::from_secs(20) && late < Duration::from_millis(20_100), "{late:?}");
    for (log, opaque) in logs.iter().zip(0..) {
        assert_eq!(log.outcomes(), [(opaque, Err(ConnectFailure::TimedOut))]);
    }
    finish(stack, &[&apps[0], &apps[1]], &[&logs[0], &logs[1]]);
}

// covers: H02
#[test]
fn a_cancel_ends_a_connect_that_a_worker_holds() {
    let (mut stack, logs, apps, connects) = both_in_syn_received();
    for connect in connects {
        stack.cancel(connect).unwrap();
        // Both are requests to the worker; the second finds nothing left to do.
        let _ = stack.cancel(connect);
    }
    until(&mut stack, LONG, || logs.iter().all(|log| log.cleaned() == 1));
    for (log, opaque) in logs.iter().zip(0..) {
        assert_eq!(log.outcomes(), [(opaque, Err(ConnectFailure::Cancelled))]);
    }
    finish(stack, &[&apps[0], &apps[1]], &[&logs[0], &logs[1]]);
}

// covers: H44
#[test]
fn a_detach_ends_a_connect_that_a_worker_holds() {
    for policy in [DetachPolicy::Reset, DetachPolicy::default()] {
        let (mut stack, logs, apps, _) = both_in_syn_received();
        for (app, log) in apps.iter().zip(&logs) {
            let report = stack.detach(app.app, policy).unwrap();
            assert_eq!(report.outcomes().detached, 1);
            assert_eq!(log.outcomes().len(), 1);
            assert!(report.app_workers[0].took < Duration::from_secs(1), "{:?}", report.app_workers[0].took);
        }
        finish(stack, &[], &[&logs[0], &logs[1]]);
    }
}

/// A fixed local port again and again, while the last flow is in TIME-WAIT at the one end or the other.
// covers: H56, T07
#[test]
fn a_fixed_port_is_used_again_out_of_time_wait() {
    for we_close_first in [true, false] {
        let mut stack = stack(2);
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(
            &mut stack,
            Probe::new(&server_log, move |ctx, event| match *event {
                Event::Accepted(session) if !we_close_first => ctx.close(session),
                _ => close_with_peer(ctx, event),
            }),
            80,
        );
        let client = attach(
            &mut stack,
            "client",
            Probe::new(&log, move |ctx, event| match *event {
                Event::Connected(_, _, Ok(session)) if we_close_first => ctx.close(session),
                _ => close_with_peer(ctx, event),
            }),
        );
        for round in 0..10 {
            let options = ConnectOptions { local_port: 7777, ..to(80, round) };
            stack.connect(client.app_workers[0], options).unwrap();
            until(&mut stack, LONG, || log.outcomes().len() as u64 == round + 1);
            assert_eq!(log.outcomes()[round as usize], (round, Ok(())), "we close first: {we_close_first}");
            until(&mut stack, LONG, || {
                log.closed() as u64 == round + 1 && server_log.closed() as u64 == round + 1
            });
            let answer = summary(&mut stack);
            assert_eq!(answer.time_wait, 1);
            // Longer than a tick of the timestamp clock, shorter than TIME-WAIT.
            pass(&mut stack, Duration::from_secs(2));
        }
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn connects_over_a_very_bad_link_have_one_outcome_each() {
    for seed in 0..6 {
        let bad = |seed| Impairments {
            seed,
            loss: 0.4,
            duplicate: 0.3,
            reorder: 0.3,
            delay_us: 20_000,
            jitter_us: 20_000,
            ..Impairments::default()
        };
        let (mut stack, links) = impaired_stack(config(1 + seed as usize % 3), bad(seed), bad(seed + 99));
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let client = attach(&mut stack, "client", Probe::idle(&log));
        for opaque in 0..300 {
            let timeout = Duration::from_millis(50 + 37 * opaque % 9000);
            let port = if opaque % 7 == 0 { 81 } else { 80 };
            let connect =
                stack.connect(client.app_workers[0], ConnectOptions { timeout, ..to(port, opaque) }).unwrap();
            if opaque % 10 == 0 {
                pass(&mut stack, Duration::from_millis(opaque));
                let _ = stack.cancel(connect);
            }
        }
        until(&mut stack, LONG, || log.cleaned() == 300);
        let outcomes =
            summary(&mut stack).apps.iter().find(|app| app.name == "client").unwrap().app_workers[0].outcomes;
        assert!(outcomes.established > 50 && outcomes.refused > 5 && outcomes.timed_out > 5, "{outcomes:?}");
        links.iter().for_each(|link| link.set_link(LinkState::Healed));
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

/// The peer's answer comes to main after it has decided, while the decision still waits to reach the worker.
#[test]
fn an_answer_that_comes_after_a_cancel_is_counted_as_late_and_does_nothing() {
    // One command a step, and some before the outcome: the worker goes on as if nothing had been decided.
    let bursts = Bursts { commands: 1, ..Bursts::default() };
    let mut stack = stack_of(StackConfig { bursts, ..config(1) }, MemoryWireConfig::default());
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::idle(&server_log), 80);
    let client = attach(&mut stack, "client", Probe::idle(&log));
    let _ = stack.settle();
    let connect = stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
    for number in 0..10u64 {
        stack.notify(client.app_workers[0], WorkerId(0), Box::new(number)).unwrap();
    }
    stack.cancel(connect).unwrap();
    let _ = stack.settle();
    assert_eq!(log.outcomes(), [(0, Err(ConnectFailure::Cancelled))]);
    assert_eq!(log.cleaned(), 1);
    let outcomes = stack.detach(client.app, DetachPolicy::Reset).unwrap().outcomes();
    assert_eq!((outcomes.cancelled, outcomes.late_segments, outcomes.alive()), (1, 1, 0));
    finish(stack, &[&server], &[&log, &server_log]);
}
