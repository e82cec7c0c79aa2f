//! Detach: in its order, by its policy, at any moment, and nothing left behind.
// A guard that sends would hide what the arm does.
#![allow(clippy::collapsible_match)]

mod common;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, LinkState};
use hoststack::{Attached, Query, SessionLimits, SingleThreaded, StackConfig};

const LONG: Duration = Duration::from_secs(600);

fn to(port: u16, opaque: u64) -> ConnectOptions {
    ConnectOptions { opaque, ..ConnectOptions::to(Family::V4.server(port)) }
}

/// A client application with `units` app workers.
fn units(stack: &mut SingleThreaded, probe: Probe, units: u32) -> Attached {
    stack.attach(probe, AttachOptions { app_workers: units, ..AttachOptions::named("client") }).unwrap()
}

#[test]
fn one_app_worker_of_several_goes_and_the_others_do_not_notice() {
    for workers in [1, 4] {
        let (mut stack, links) =
            impaired_stack(config(workers), Impairments::default(), Impairments::default());
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let client = units(&mut stack, Probe::idle(&log), 3);
        for opaque in 0..60 {
            stack.connect(client.app_workers[opaque as usize % 3], to(80, opaque)).unwrap();
        }
        until(&mut stack, LONG, || log.cleaned() == 60 && server_log.accepted() == 60);
        for (port, &unit) in (1000..).zip(&client.app_workers) {
            stack.listen(unit, listen_on(Family::V4, port)).unwrap();
            stack.listen(unit, listen_on(Family::V6, port)).unwrap();
        }
        links[0].set_link(LinkState::Cut);
        for opaque in 60..90 {
            stack.connect(client.app_workers[opaque as usize % 3], to(80, opaque)).unwrap();
        }
        pass(&mut stack, Duration::from_millis(500));
        links[0].set_link(LinkState::Impaired);

        let report = stack.detach_worker(client.app_workers[1], DetachPolicy::Reset).unwrap();
        assert_eq!(report.app_worker, client.app_workers[1]);
        assert_eq!((report.unit, report.half_opens, report.sessions, report.sessions_reset), (1, 10, 20, 20));
        assert_eq!((report.listeners, report.panicked, report.stuck.len()), (2, false, 0));
        assert_eq!((report.outcomes.requested, report.outcomes.cleaned), (30, 30));
        assert_eq!(
            (report.outcomes.established, report.outcomes.detached, report.outcomes.undelivered),
            (20, 10, 0)
        );
        // All that was its own was told on its objects, which are gone.
        log.check(false);
        let of_unit = |unit: u32, wanted: fn(&Event) -> bool| {
            let lines = log.lines();
            lines.iter().filter(|line| line.at.is_some_and(|(u, _)| u == unit) && wanted(&line.event)).count()
        };
        assert_eq!(of_unit(1, |event| matches!(event, Event::Dropped)), workers);
        assert_eq!(of_unit(1, |event| matches!(event, Event::Detaching)), workers);
        assert_eq!(of_unit(1, |event| matches!(event, Event::Closed(..))), 20);
        assert_eq!(
            of_unit(1, |event| matches!(event, Event::Connected(_, _, Err(ConnectFailure::Detached)))),
            10
        );
        assert_eq!(log.count(|event| *event == Event::WorkerDetached(1)), 1);
        for unit in [0, 2] {
            assert_eq!(
                of_unit(unit, |event| matches!(event, Event::Closed(..) | Event::Dropped | Event::Detaching)),
                0
            );
        }
        // Its listeners are gone, and the endpoints free.
        assert_eq!(summary(&mut stack).main.listeners, 2 + 4);
        stack.listen(client.app_workers[0], listen_on(Family::V4, 1001)).unwrap();
        // The others' connects come up, now that the link is whole.
        until(&mut stack, LONG, || log.cleaned() == 90);
        let up = log.outcomes().iter().filter(|(opaque, outcome)| *opaque >= 60 && outcome.is_ok()).count();
        assert_eq!(up, 20);
        // Its name finds nothing.
        assert_eq!(stack.connect(client.app_workers[1], to(80, 0)), Err(ConnectError::Detached));
        // Another one takes a new number.
        let new = stack.attach_worker(client.app).unwrap();
        stack.connect(new, to(80, 100)).unwrap();
        until(&mut stack, LONG, || log.cleaned() == 91);
        assert_eq!(log.outcomes().last(), Some(&(100, Ok(()))));
        let report = stack.detach(client.app, DetachPolicy::Reset).unwrap();
        assert_eq!(report.app_workers.iter().map(|report| report.unit).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(report.name, "client");
        finish(stack, &[&server], &[&log, &server_log]);
    }
}

#[test]
fn close_with_linger_delivers_what_is_queued() {
    let slow =
        Impairments { rate_bits_per_second: Some(20_000_000), delay_us: 5_000, ..Impairments::default() };
    let (mut stack, _) = impaired_stack(config(2), slow, slow);
    let (log, server_log) = (Log::default(), Log::default());
    let (ours, theirs) = (Streams::default(), Streams::default());
    let reader = theirs.clone();
    let server = serve(
        &mut stack,
        Probe::new(&server_log, move |ctx, event| {
            if let Event::Readable(session) = *event {
                reader.receive(ctx, session, usize::MAX);
            }
            close_with_peer(ctx, event);
        }),
        80,
    );
    let writer = ours.clone();
    let client = attach(
        &mut stack,
        "client",
        Probe::new(&log, move |ctx, event| {
            if let Event::Connected(_, _, Ok(session)) = *event {
                assert!(writer.send(ctx, session, 60_000));
            }
        }),
    );
    for opaque in 0..10 {
        stack.connect(client.app_workers[0], to(80, opaque)).unwrap();
    }
    until(&mut stack, LONG, || log.up() == 10);
    let report = stack.detach(client.app, DetachPolicy::Close { linger: Duration::from_secs(60) }).unwrap();
    let report = &report.app_workers[0];
    assert_eq!((report.sessions, report.sessions_reset), (10, 0));
    assert!(
        report.took > Duration::from_millis(100) && report.took < Duration::from_secs(10),
        "{:?}",
        report.took
    );
    assert_eq!(log.ends(), [CloseReason::Finished; 10]);
    until(&mut stack, LONG, || server_log.closed() == 10);
    assert!(theirs.all().iter().all(|stream| stream.got == 60_000));
    assert_eq!(server_log.ends(), [CloseReason::Finished; 10]);
    finish(stack, &[&server], &[&log, &server_log]);
}

#[test]
fn peers_that_do_not_close_are_reset_at_the_end_of_the_linger() {
    let mut stack = stack(3);
    let (log, server_log) = (Log::default(), Log::default());
    // Never closes.
    let server = serve(&mut stack, Probe::new(&server_log, |_, _| {}), 80);
    let client = attach(&mut stack, "client", Probe::new(&log, |_, _| {}));
    for opaque in 0..30 {
        stack.connect(client.app_workers[0], to(80, opaque)).unwrap();
    }
    until(&mut stack, LONG, || log.up() == 30 && server_log.accepted() == 30);
    let report = stack.detach(client.app, DetachPolicy::Close { linger: Duration::from_secs(3) }).unwrap();
    let report = &report.app_workers[0];
    assert_eq!((report.sessions, report.sessions_reset), (30, 30));
    assert!(
        report.took >= Duration::from_secs(3) && report.took < Duration::from_millis(3100),
        "{:?}",
        report.took
    );
    assert_eq!(log.ends(), [CloseReason::LocalReset; 30]);
    until(&mut stack, LONG, || server_log.closed() == 30);
    assert_eq!(server_log.ends(), [CloseReason::PeerReset; 30]);
    finish(stack, &[&server], &[&log, &server_log]);
}

#[test]
fn a_detach_over_a_cut_wire_ends_at_the_linger() {
    let (mut stack, links) = impaired_stack(config(2), Impairments::default(), Impairments::default());
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::idle(&server_log), 80);
    let client = attach(
        &mut stack,
        "client",
        Probe::new(&log, |ctx, event| {
            if let Event::Notified(session) = *event {
                ctx.write(SessionHandle::from_u64(session), b"lost");
            }
        }),
    );
    stack.connect(client.app_workers[0], to(80, 1)).unwrap();
    until(&mut stack, LONG, || log.cleaned() == 1 && server_log.accepted() == 1);
    links.iter().for_each(|link| link.set_link(LinkState::Cut));
    let session = log.sessions()[0];
    stack.notify(client.app_workers[0], session.worker(), Box::new(session.as_u64())).unwrap();
    for opaque in 2..5 {
        stack.connect(client.app_workers[0], to(80, opaque)).unwrap();
    }
    pass(&mut stack, Duration::from_secs(1));
    let report = stack.detach(client.app, DetachPolicy::default()).unwrap();
    let report = &report.app_workers[0];
    assert_eq!((report.half_opens, report.sessions, report.sessions_reset), (3, 1, 1));
    assert!(
        report.took >= Duration::from_secs(5) && report.took < Duration::from_millis(5100),
        "{:?}",
        report.took
    );
    assert_eq!(
        log.outcomes().iter().filter(|(_, outcome)| *outcome == Err(ConnectFailure::Detached)).count(),
        3
    );
    links.iter().for_each(|link| link.set_link(LinkState::Impaired));
    finish(stack, &[&server], &[&log, &server_log]);
}

/// The detach falls on each step of the life of connects: whatever moment it is, the figures add up.
// covers: D01, D07, H64
#[test]
fn a_detach_at_any_step_leaves_nothing_behind() {
    for policy in
        [DetachPolicy::Reset, DetachPolicy::Close { linger: Duration::from_secs(1) }, DetachPolicy::default()]
    {
        for steps in 0..14 {
            let mut stack = stack(2);
            let (log, server_log) = (Log::default(), Log::default());
            let server = serve(&mut stack, Probe::echo(&server_log), 80);
            let client = attach(
                &mut stack,
                "client",
                Probe::new(&log, |ctx, event| match *event {
                    Event::Connected(_, _, Ok(session)) => {
                        ctx.write(session, b"hello");
                        // One more from within.
                        let _ = ctx.connect(to(80, 99));
                    }
                    Event::Readable(session) => ctx.close(session),
                    _ => {}
                }),
            );
            for opaque in 0..10 {
                stack.connect(client.app_workers[0], to(if opaque < 8 { 80 } else { 81 }, opaque)).unwrap();
            }
            for _ in 0..steps {
                let _ = stack.step();
                stack.check_consistency();
            }
            let report = stack.detach(client.app, policy).unwrap();
            let outcomes = report.outcomes();
            assert_eq!(outcomes.requested, outcomes.cleaned, "after {steps} steps");
            assert_eq!(outcomes.undelivered, 0);
            assert_eq!(log.outcomes().len() as u64, outcomes.requested);
            pass(&mut stack, Duration::from_secs(1));
            finish(stack, &[&server], &[&log, &server_log]);
        }
    }
}

// covers: D08
#[test]
fn an_application_comes_back_under_its_name() {
    let mut stack = stack(2);
    let server_log = Log::default();
    let server = serve(&mut stack, Probe::idle(&server_log), 80);
    let mut names = std::collections::BTreeSet::new();
    for round in 0..20 {
        let log = Log::default();
        let client = attach(&mut stack, "client", Probe::idle(&log));
        assert!(names.insert((client.app, client.app_workers[0])), "an old id is not used again");
        stack.connect(client.app_workers[0], to(80, round)).unwrap();
        until(&mut stack, LONG, || log.up() == 1);
        stack.detach(client.app, DetachPolicy::Reset).unwrap();
        log.check(true);
    }
    for (app, app_worker) in names {
        assert_eq!(stack.detach(app, DetachPolicy::Reset), Err(DetachError::NotAttached));
        assert_eq!(stack.detach_worker(app_worker, DetachPolicy::Reset), Err(DetachError::NotAttached));
        assert_eq!(stack.connect(app_worker, to(80, 0)), Err(ConnectError::Detached));
    }
    finish(stack, &[&server], &[&server_log]);
}

#[test]
fn an_app_worker_detaches_itself_in_a_callback() {
    let mut stack = stack(2);
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::idle(&server_log), 80);
    let client = units(
        &mut stack,
        Probe::new(&log, |ctx, event| match event {
            Event::Connected(_, opaque, Ok(_)) if *opaque == 7 => {
                ctx.detach(DetachPolicy::Reset);
                // Twice, and requests behind it.
                ctx.detach(DetachPolicy::default());
                ctx.connect(to(80, 8)).unwrap();
                ctx.listen(listen_on(Family::V4, 90)).unwrap();
            }
            Event::Detaching => {
                let _ = ctx.connect(to(80, 9));
            }
            // What comes after `detaching` finds it closed.
            Event::Closed(..) => {
                assert_eq!(ctx.connect(to(80, 10)), Err(ConnectError::Detached));
                assert_eq!(ctx.listen(listen_on(Family::V4, 91)), Err(ListenError::Detached));
            }
            _ => {}
        }),
        2,
    );
    for opaque in [1, 2, 7] {
        stack.connect(client.app_workers[0], to(80, opaque)).unwrap();
    }
    until(&mut stack, LONG, || log.count(|event| *event == Event::WorkerDetached(0)) == 1);
    let outcomes = log.outcomes();
    assert!(
        outcomes.iter().all(|(opaque, outcome)| *opaque < 8 || *outcome == Err(ConnectFailure::Detached))
    );
    assert_eq!(outcomes.len(), 3 + 1 + 2, "{outcomes:?}");
    log.check(false);
    assert_eq!(log.closed(), 3);
    // A listen that could not be had was told, one way or the other.
    assert_eq!(log.count(|event| matches!(event, Event::Listening(..))), 1);
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

// covers: D13
#[test]
fn a_listen_is_told_its_end_whenever_the_detach_comes() {
    let mut seen = (0, 0);
    for steps in 0..10 {
        let mut stack = stack(3);
        let log = Log::default();
        let probe = Probe::new(&log, |_, _| {}).on_main(|ctx, event| {
            if *event == Event::AppAttached {
                ctx.listen(ctx.app_workers()[0], listen_on(Family::V4, 90)).unwrap();
            }
        });
        let handle = stack.handle();
        let attached = std::thread::scope(|scope| {
            let attach = scope.spawn(|| handle.attach(probe, AttachOptions::named("app")));
            while !attach.is_finished() {
                let _ = stack.step();
            }
            attach.join().unwrap().unwrap()
        });
        for _ in 0..steps {
            let _ = stack.step();
        }
        stack.detach(attached.app, DetachPolicy::Reset).unwrap();
        let told = log.count(|event| matches!(event, Event::Listening(..)));
        assert_eq!(told, 1, "after {steps} steps");
        match log.count(|event| matches!(event, Event::Listening(_, Ok(_)))) {
            0 => seen.0 += 1,
            _ => seen.1 += 1,
        }
        finish(stack, &[], &[&log]);
    }
    assert!(seen.1 > 0, "{seen:?}");
}

#[test]
fn an_application_detaches_itself_in_a_callback_on_main() {
    let mut stack = stack(2);
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::idle(&server_log), 80);
    let probe = Probe::new(&log, |_, _| {}).on_main(|ctx, event| match *event {
        Event::Cleaned(_, 0) => ctx.detach_worker(ctx.app_workers()[0], DetachPolicy::Reset),
        Event::WorkerDetached(0) => {
            ctx.connect(ctx.app_workers()[0], to(80, 1)).unwrap();
        }
        Event::Cleaned(_, 1) => ctx.detach(DetachPolicy::Reset),
        _ => {}
    });
    let client = units(&mut stack, probe, 2);
    stack.connect(client.app_workers[0], to(80, 0)).unwrap();
    until(&mut stack, LONG, || log.count(|event| *event == Event::AppDetached) == 1);
    assert_eq!(log.outcomes(), [(0, Ok(())), (1, Ok(()))]);
    finish(stack, &[&server], &[&log, &server_log]);
}

#[test]
fn two_callers_of_a_detach_are_both_told() {
    let mut stack = stack(2);
    let log = Log::default();
    let client = attach(&mut stack, "client", Probe::new(&log, |_, _| {}));
    let handle = stack.handle();
    // The second one finds it being detached, the third one gone.
    let report = std::thread::scope(|scope| {
        let app = client.app;
        let second = scope.spawn(move || handle.detach(app, DetachPolicy::default()));
        while !second.is_finished() {
            let _ = stack.step();
        }
        second.join().unwrap()
    });
    assert!(report.is_ok());
    assert_eq!(stack.detach(client.app, DetachPolicy::Reset), Err(DetachError::NotAttached));
    finish(stack, &[], &[&log]);
}

// covers: H56
#[test]
fn a_listener_in_use_by_half_done_handshakes_goes_with_its_app_worker() {
    // The client's ACK is lost: SYN-RECEIVED records are left when the server goes.
    let (mut stack, links) = impaired_stack(config(2), Impairments::default(), Impairments::default());
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::idle(&server_log), 80);
    let client = attach(&mut stack, "client", Probe::idle(&log));
    for opaque in 0..10 {
        stack.connect(client.app_workers[0], to(80, opaque)).unwrap();
    }
    let cut = links[0].clone();
    let mut seen = 0;
    stack.run_until(Duration::from_secs(1), |stack| {
        stack.check_consistency();
        // As soon as SYNs have passed.
        if cut.segments() > 0 {
            cut.set_link(LinkState::Cut);
            seen += 1;
        }
        seen > 3
    });
    assert_eq!(server_log.accepted(), 0);
    let waiting: usize = summary(&mut stack).workers.iter().map(|worker| worker.syn_received).sum();
    assert!(waiting > 0);
    let report = stack.detach(server.app, DetachPolicy::default()).unwrap();
    assert_eq!(report.app_workers[0].listeners, 2);
    assert_eq!(server_log.accepted(), 0);
    let waiting: usize = summary(&mut stack).workers.iter().map(|worker| worker.syn_received).sum();
    assert_eq!(waiting, 0);
    cut.set_link(LinkState::Impaired);
    finish(stack, &[&client], &[&log, &server_log]);
}

/// More sessions than a worker looks at in a step, on both ends.
#[test]
fn ten_thousand_sessions_are_detached_in_slices() {
    for policy in [DetachPolicy::Reset, DetachPolicy::default()] {
        let sessions = SessionLimits { sessions: 30_000, ..SessionLimits::default() };
        let mut stack =
            stack_of(StackConfig { sessions, ..config(2) }, hoststack::net::MemoryWireConfig::default());
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let client = units(&mut stack, Probe::idle(&log), 2);
        for opaque in 0..10_000 {
            stack.connect(client.app_workers[opaque as usize % 2], to(80, opaque)).unwrap();
        }
        let reached = stack.run_until(LONG, |_| log.cleaned() == 10_000 && server_log.accepted() == 10_000);
        assert!(reached, "{} up", log.up());
        assert_eq!(log.up(), 10_000);
        let answer = stack.inspect(Query::sessions(5, false)).unwrap();
        assert_eq!((answer.session_summary.open, answer.sessions.len()), (20_000, 5));
        let report = stack.detach(client.app, policy).unwrap();
        assert_eq!(report.app_workers.iter().map(|unit| unit.sessions).sum::<usize>(), 10_000);
        let reset: usize = report.app_workers.iter().map(|unit| unit.sessions_reset).sum();
        assert_eq!(reset, if policy == DetachPolicy::Reset { 10_000 } else { 0 });
        stack.detach(server.app, policy).unwrap();
        log.check(true);
        server_log.check(true);
        assert_clean(&mut stack);
    }
}
