//! The echo client's cancels and its detach under way: every connect has one outcome, what lives is verified.

mod common;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, LinkState};
use hoststack::{Attached, Leaks, Query, SingleThreaded};
use hoststack_builtin::{
    EchoClient, EchoClientError, EchoClientEvent, EchoClientHandle, EchoClientOptions, EchoClientTotals,
    EchoServer,
};

const PEER: &str = "10.0.0.2:7";
const LONG: Duration = Duration::from_secs(30);

fn echo_options(sessions: u32, bytes: u64) -> EchoClientOptions {
    EchoClientOptions { sessions, bytes, ..EchoClientOptions::to(vec![to(PEER)]) }
}

/// A stack with an echo server and this client.
fn world(workers: usize, options: EchoClientOptions) -> (SingleThreaded, [Attached; 2], EchoClientHandle) {
    let mut stack = stack(workers);
    let server = stack.attach(EchoServer::new(vec![on(PEER)]), named("server")).unwrap();
    let app_workers = options.app_workers;
    let client = EchoClient::new(options).unwrap();
    let handle = client.handle();
    let client = stack.attach(client, AttachOptions { app_workers, ..named("client") }).unwrap();
    (stack, [client, server], handle)
}

/// Runs a client that nothing stands in the way of to its end.
fn run_to_end(workers: usize, options: EchoClientOptions) -> EchoClientTotals {
    let (sessions, bytes) = (u64::from(options.sessions), options.bytes);
    let (mut stack, [client, server], handle) = world(workers, options);
    run(&mut stack, LONG, || handle.is_done());
    // Longer than any cancel waits.
    run_for(&mut stack, LONG);
    let reports = end(stack, &[&client, &server]);
    assert_eq!(reports[0].outcomes().undelivered, 0);
    let totals = handle.stats().totals();
    assert_adds_up(&totals, sessions, bytes);
    totals
}

/// One outcome for each connect; whatever came up ended as it should unless a detach cut it off.
#[track_caller]
fn assert_adds_up(totals: &EchoClientTotals, sessions: u64, bytes: u64) {
    assert_eq!((totals.requested, totals.half_opens_cleaned, totals.ended()), (sessions, sessions, sessions));
    assert_eq!(totals.connected + totals.cancelled + totals.detached, sessions, "{totals:?}");
    assert_eq!(totals.connected, totals.closed_ok + totals.reset_by_detach, "{totals:?}");
    assert_eq!((totals.reset, totals.closed_short), (totals.reset_by_detach, 0), "{totals:?}");
    assert_eq!(totals.bytes_mismatched, 0);
    let most = totals.connected * bytes;
    assert!(totals.closed_ok * bytes <= totals.bytes_echoed && totals.bytes_echoed <= totals.bytes_sent);
    assert!(totals.bytes_sent <= most, "{totals:?}");
    if totals.reset_by_detach == 0 {
        assert_eq!(totals.bytes_echoed, most);
    }
}

// ---- Cancels ----

#[test]
fn a_cancelled_connect_has_one_outcome_and_some_cancels_come_too_late() {
    for workers in [1, 3] {
        let options = EchoClientOptions { waves: 4, pending_max: 64, cancel: 0.2, ..echo_options(2000, 100) };
        let totals = run_to_end(workers, options);
        assert!((320..480).contains(&totals.cancels), "a fifth of them: {totals:?}");
        // Half of them are at once, and none of those is too late.
        assert!(totals.cancelled > 150 && totals.cancelled < totals.cancels, "{totals:?}");
    }
}

#[test]
fn every_connect_is_cancelled_if_that_is_the_share_and_none_if_it_is_0() {
    let totals = run_to_end(2, EchoClientOptions { cancel: 1.0, ..echo_options(300, 10) });
    assert_eq!(totals.cancels, 300);
    assert!(totals.cancelled > 100 && totals.connected > 0, "{totals:?}");
    let totals = run_to_end(2, echo_options(300, 10));
    assert_eq!((totals.cancels, totals.closed_ok), (0, 300));
}

#[test]
fn connects_that_nothing_answers_are_cancelled_by_the_clock() {
    let (mut stack, wire) = stack_over(2, Impairments::default());
    wire.set_link(LinkState::Cut);
    let options = EchoClientOptions { cancel: 1.0, timeout: Some(LONG), ..echo_options(50, 10) };
    let client = EchoClient::new(options).unwrap();
    let handle = client.handle();
    let client = stack.attach(client, named("client")).unwrap();
    // Ticks of a millisecond, some hundreds at most: no neighbour is given up by then.
    run(&mut stack, Duration::from_secs(1), || handle.is_done());
    end(stack, &[&client]);
    let totals = handle.stats().totals();
    assert_eq!((totals.cancelled, totals.cancels, totals.half_opens_cleaned), (50, 50, 50));
}

#[test]
fn cancels_repeat_with_the_seed() {
    let cancelled = |seed| {
        let options = EchoClientOptions { cancel: 0.5, pending_max: 32, seed, ..echo_options(500, 50) };
        let totals = run_to_end(2, options);
        (totals.cancels, totals.cancelled)
    };
    assert_eq!(cancelled(1), cancelled(1));
    assert_ne!(cancelled(1), cancelled(2));
}

// ---- Detach under way ----

/// Runs a client of `detach_at` through its detach, attaches another app worker and runs to the end.
fn run_through_detach(workers: usize, options: EchoClientOptions) -> (EchoClientTotals, WorkerDetachReport) {
    let (sessions, bytes) = (options.sessions, options.bytes);
    let detach_at = u64::from(options.detach_at.unwrap());
    let (mut stack, [client, server], handle) = world(workers, options);
    run(&mut stack, LONG, || handle.detach_report().is_some());
    assert_eq!(handle.stats().totals().requested, detach_at, "the rest waits for another app worker");
    run_for(&mut stack, LONG);
    assert_eq!(handle.stats().totals().requested, detach_at, "the rest waits for another app worker");
    assert_eq!(
        stack.detach_worker(client.app_workers[0], DetachPolicy::Reset),
        Err(DetachError::NotAttached)
    );

    stack.attach_worker(client.app).unwrap();
    run(&mut stack, LONG, || handle.is_done());
    let reports = end(stack, &[&client, &server]);
    let told: Vec<_> = handle.events().try_iter().collect();
    if detach_at < u64::from(sessions) {
        assert_eq!(told, [EchoClientEvent::Detached, EchoClientEvent::Done]);
    }
    let (totals, report) = (handle.stats().totals(), handle.detach_report().unwrap().clone());
    assert_adds_up(&totals, u64::from(sessions), bytes);
    let (before, after) = (report.outcomes, reports[0].outcomes());
    assert_eq!((before.requested, after.requested), (detach_at, u64::from(sessions) - detach_at));
    assert_eq!((before.detached, after.detached), (totals.detached, 0));
    assert_eq!(before.cleaned + after.cleaned, u64::from(sessions));
    assert_eq!((before.undelivered, after.undelivered), (0, 0));
    assert!(report.half_opens as u64 >= totals.detached && totals.detached >= 1, "{report:?}");
    assert!(report.sessions as u64 >= totals.reset_by_detach, "{report:?}");
    (totals, report)
}

#[test]
fn connects_pending_at_the_detach_end_as_detached_and_another_app_worker_goes_on() {
    for workers in [1, 3] {
        let options =
            EchoClientOptions { waves: 3, pending_max: 64, detach_at: Some(500), ..echo_options(1200, 1000) };
        let (totals, report) = run_through_detach(workers, options);
        assert!(totals.detached >= 10, "a wave is under way: {totals:?}");
        assert_eq!(report.outcomes.established + totals.detached, 500);
        assert!(totals.closed_ok >= 700, "{totals:?}");
    }
}

#[test]
fn sessions_open_at_the_detach_are_reset() {
    // Sessions too large to end before the next connects are made.
    let options = EchoClientOptions { pending_max: 8, detach_at: Some(60), ..echo_options(80, 300_000) };
    let (totals, report) = run_through_detach(2, options);
    assert!(totals.reset_by_detach > 0 && report.sessions_reset > 0, "{totals:?} {report:?}");
}

#[test]
fn a_detach_comes_behind_any_connect() {
    for detach_at in [1, 2, 9, 10, 11, 19, 20] {
        for (workers, pending_max) in [(1, 1024), (2, 3), (3, 1)] {
            let detach_at = Some(detach_at);
            let options = EchoClientOptions { waves: 2, pending_max, detach_at, ..echo_options(20, 10) };
            run_through_detach(workers, options);
        }
    }
}

#[test]
fn the_connect_before_the_detach_is_pending_even_if_all_others_are_cancelled() {
    for seed in 0..20 {
        let options =
            EchoClientOptions { waves: 2, cancel: 1.0, detach_at: Some(16), seed, ..echo_options(30, 100) };
        let (totals, _) = run_through_detach(2, options);
        assert!(totals.cancelled > 0, "{totals:?}");
    }
}

#[test]
fn cancels_race_with_the_detach() {
    for seed in 0..10 {
        let options = EchoClientOptions {
            waves: 3,
            pending_max: 50,
            cancel: 0.3,
            detach_at: Some(300),
            seed,
            ..echo_options(600, 500)
        };
        let (totals, _) = run_through_detach(3, options);
        assert!(totals.cancelled > 50 && totals.closed_ok > 200, "{totals:?}");
    }
}

#[test]
fn held_sessions_are_reset_by_the_detach_and_the_rest_is_held() {
    let options = EchoClientOptions { hold: true, waves: 4, detach_at: Some(150), ..echo_options(400, 10) };
    let (mut stack, [client, server], handle) = world(2, options);
    run(&mut stack, LONG, || handle.detach_report().is_some());
    stack.attach_worker(client.app).unwrap();
    run(&mut stack, LONG, || handle.is_complete());
    let totals = handle.stats().totals();
    assert!(totals.reset_by_detach >= 100, "a wave was held: {totals:?}");
    assert_eq!(totals.held, 400 - totals.detached - totals.reset_by_detach, "{totals:?}");
    handle.release();
    run(&mut stack, LONG, || handle.is_done());
    end(stack, &[&client, &server]);
    assert_adds_up(&handle.stats().totals(), 400, 10);
}

#[test]
fn another_app_worker_that_is_there_goes_on_by_itself() {
    let options = EchoClientOptions {
        waves: 5,
        app_workers: 2,
        cancel: 0.2,
        detach_at: Some(130),
        ..echo_options(400, 100)
    };
    let (mut stack, [client, server], handle) = world(2, options);
    run(&mut stack, LONG, || handle.is_done());
    let reports = end(stack, &[&client, &server]);
    assert_eq!(reports[0].app_workers.len(), 1, "the other one has detached itself");
    assert_adds_up(&handle.stats().totals(), 400, 100);
    assert!(handle.stats().totals().detached >= 1);
}

#[test]
fn threads_cancel_and_detach_and_leave_nothing_behind() {
    for workers in [1, 4] {
        let (builder, _) = builder(workers, Impairments::default());
        let stack = builder.start().unwrap();
        let server = EchoServer::new(vec![on(PEER)]);
        let listening = server.listening();
        let server = stack.handle().attach(server, named("server")).unwrap();
        assert!(listening.recv_timeout(LONG).unwrap().all_up());
        let options =
            EchoClientOptions { waves: 4, cancel: 0.2, detach_at: Some(1700), ..echo_options(3000, 300) };
        let client = EchoClient::new(options).unwrap();
        let handle = client.handle();
        let client = stack.handle().attach(client, named("client")).unwrap();
        let next = || handle.events().recv_timeout(Duration::from_secs(60));
        assert_eq!(next(), Ok(EchoClientEvent::Detached), "{:?}", handle.stats().totals());
        stack.handle().attach_worker(client.app).unwrap();
        assert_eq!(next(), Ok(EchoClientEvent::Done), "{:?}", handle.stats().totals());
        for app in [client, server] {
            stack.handle().detach(app.app, DetachPolicy::default()).unwrap();
        }
        assert_eq!(stack.handle().inspect(Query::Summary).unwrap().leaks, Leaks::default());
        stack.shutdown(DetachPolicy::default());
        let (totals, report) = (handle.stats().totals(), handle.detach_report().unwrap());
        assert_adds_up(&totals, 3000, 300);
        assert!(totals.detached >= 1 && totals.cancelled > 0, "{totals:?}");
        assert_eq!(report.outcomes.requested, 1700);
        assert!(report.half_opens as u64 >= totals.detached, "{report:?}");
    }
}

// ---- Misuse ----

#[test]
fn shares_and_numbers_that_nothing_can_come_of_are_refused() {
    let error = |options| EchoClient::new(options).unwrap_err();
    for cancel in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let bad = error(EchoClientOptions { cancel, ..echo_options(1, 1) });
        assert_eq!(bad, EchoClientError::BadShare);
        assert!(bad.to_string().contains("from 0 to 1"));
    }
    for (sessions, detach_at) in [(10, 0), (10, 11), (0, 1)] {
        let options = EchoClientOptions { detach_at: Some(detach_at), ..echo_options(sessions, 1) };
        assert_eq!(error(options), EchoClientError::BadDetachAt);
    }
}
