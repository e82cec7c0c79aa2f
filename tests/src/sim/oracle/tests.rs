//! Wrong sequences, each of which the oracle must find, and a right one, in which it must find nothing.

use hoststack::app::{Duration, HalfOpenCounters};
use hoststack_transport::{Key, SessionId};

use super::*;

const AT: At = At { app: 0, unit: 0, worker: WorkerId(0) };
const OPAQUE: u64 = 5;

fn connect_id(number: u64) -> ConnectId {
    ConnectId::new(0, number)
}

fn handle(slot: u32) -> SessionHandle {
    SessionHandle::new(WorkerId(0), SessionId(Key { slot, generation: 0 }))
}

fn options() -> ConnectOptions {
    let remote = std::net::SocketAddr::from(([10, 0, 0, 2], 80));
    ConnectOptions { opaque: OPAQUE, timeout: Duration::from_secs(1), ..ConnectOptions::to(remote) }
}

/// An oracle that knows one application with one app worker on one worker, which is attached.
fn attached() -> Oracle {
    let mut oracle = Oracle::default();
    assert_eq!(oracle.new_app(0), 0);
    oracle.object_made(0, 0, WorkerId(0));
    oracle.callback(AT, "attached");
    oracle
}

/// The same, with a connect made at 1 ms that has a second.
fn connecting() -> Oracle {
    let mut oracle = attached();
    oracle.connect_made((0, 0), connect_id(1), &options(), 1_000);
    oracle
}

/// The same, with the connect established.
fn connected() -> Oracle {
    let mut oracle = connecting();
    oracle.outcome(AT, connect_id(1), OPAQUE, Ok(handle(1)));
    oracle.announced(AT, handle(1), OPAQUE, Talk::for_tests());
    oracle
}

fn report() -> WorkerDetachReport {
    WorkerDetachReport {
        app_worker: AppWorkerId(Key { slot: 0, generation: 0 }),
        unit: 0,
        half_opens: 0,
        sessions: 0,
        sessions_reset: 0,
        listeners: 0,
        took: Duration::ZERO,
        stuck: Vec::new(),
        unresolved: 0,
        outcomes: HalfOpenCounters {
            requested: 1,
            established: 1,
            cleaned: 1,
            ..HalfOpenCounters::default()
        },
        panicked: false,
    }
}

#[track_caller]
fn finds(mut oracle: Oracle, words: &str) {
    let what = oracle.take_violation().expect("this is wrong");
    assert!(what.contains(words), "{what:?} does not say {words:?}");
}

#[test]
fn a_life_in_order_is_right() {
    let mut oracle = connected();
    for stage in [Stage::Writable, Stage::Readable, Stage::Writable, Stage::PeerClosed, Stage::Writable] {
        oracle.session_event(AT, handle(1), stage);
    }
    oracle.session_event(AT, handle(1), Stage::Reset);
    oracle.closed(AT, handle(1), OPAQUE, CloseReason::PeerReset);
    oracle.cleaned(0, connect_id(1), OPAQUE);
    oracle.overdue(100_000_000, 0, 0);
    oracle.detach_asked(0, Some(0));
    oracle.dropped(AT);
    oracle.worker_detached(0, &report());
    oracle.detach_asked(0, None);
    let app = AppId(Key { slot: 0, generation: 0 });
    oracle.app_detached(0, &DetachReport { app, name: "a".to_owned(), app_workers: vec![report()] });
    oracle.check_end();
    assert_eq!(oracle.take_violation(), None);
}

#[test]
fn a_second_outcome_is_found() {
    let mut oracle = connected();
    oracle.outcome(AT, connect_id(1), OPAQUE, Err(ConnectFailure::TimedOut));
    finds(oracle, "a second outcome");
}

#[test]
fn an_outcome_of_nothing_is_found() {
    let mut oracle = attached();
    oracle.outcome(AT, connect_id(9), OPAQUE, Err(ConnectFailure::TimedOut));
    finds(oracle, "nobody asked for");
}

#[test]
fn an_outcome_told_to_another_or_with_another_value_is_found() {
    let mut oracle = connecting();
    oracle.outcome(AT, connect_id(1), OPAQUE + 1, Err(ConnectFailure::Refused));
    finds(oracle, "it was given 5");
    let mut oracle = connecting();
    oracle.object_made(0, 1, WorkerId(0));
    oracle.outcome(At { unit: 1, ..AT }, connect_id(1), OPAQUE, Err(ConnectFailure::Refused));
    finds(oracle, "told to another");
}

#[test]
fn cancelled_and_detached_unasked_are_found() {
    let mut oracle = connecting();
    oracle.outcome(AT, connect_id(1), OPAQUE, Err(ConnectFailure::Cancelled));
    finds(oracle, "cancelled, nobody asked");
    let mut oracle = connecting();
    oracle.outcome(AT, connect_id(1), OPAQUE, Err(ConnectFailure::Detached));
    finds(oracle, "ended by a detach, nobody asked");
    let mut oracle = connecting();
    oracle.cancel_asked(0, connect_id(1));
    oracle.outcome(AT, connect_id(1), OPAQUE, Err(ConnectFailure::Cancelled));
    assert_eq!(oracle.take_violation(), None);
}

#[test]
fn cleaned_before_its_outcome_twice_or_followed_by_it_is_found() {
    let mut oracle = connecting();
    oracle.cleaned(0, connect_id(1), OPAQUE);
    finds(oracle, "before its outcome");
    let mut oracle = connected();
    oracle.cleaned(0, connect_id(1), OPAQUE);
    oracle.cleaned(0, connect_id(1), OPAQUE);
    finds(oracle, "twice");
    let mut oracle = connecting();
    oracle.panicked(AT, false);
    oracle.cleaned(0, connect_id(1), OPAQUE);
    assert_eq!(oracle.take_violation(), None, "nobody was there to be told");
    oracle.outcome(AT, connect_id(1), OPAQUE, Err(ConnectFailure::Refused));
    finds(oracle, "after its half-open was cleaned");
}

#[test]
fn an_outcome_that_does_not_come_is_found_at_its_deadline_and_at_the_end() {
    let mut oracle = connecting();
    oracle.overdue(1_001_500, 500, 0);
    assert_eq!(oracle.take_violation(), None);
    oracle.overdue(1_001_501, 500, 0);
    finds(oracle, "has no outcome at");
    let mut oracle = connecting();
    oracle.overdue(1_100_500, 500, 100_000);
    assert_eq!(oracle.take_violation(), None, "main may have taken the request at 100 ms only");
    oracle.overdue(1_100_501, 500, 100_000);
    finds(oracle, "has no outcome at");
    let mut oracle = connecting();
    oracle.check_end();
    finds(oracle, "has no outcome");
    let mut oracle = connected();
    oracle.check_end();
    finds(oracle, "was never cleaned");
}

#[test]
fn a_session_that_is_not_what_was_asked_for_is_found() {
    let mut oracle = connecting();
    let options = options();
    let flow = FlowKey {
        local: options.remote.endpoint().unwrap(),
        remote: hoststack::app::Endpoint::new(options.remote.endpoint().unwrap().addr, 81),
        domain: options.domain,
        protocol: hoststack_transport::Protocol::Tcp,
    };
    oracle.connected_as_asked(0, connect_id(1), handle(1), &flow, OPAQUE);
    finds(oracle, "asked was");
}

#[test]
fn events_out_of_order_are_found() {
    let wrong = [
        (Stage::PeerClosed, Stage::Readable),
        (Stage::PeerClosed, Stage::PeerClosed),
        (Stage::Reset, Stage::Writable),
        (Stage::Reset, Stage::Reset),
        (Stage::Closed, Stage::Readable),
        (Stage::Closed, Stage::Closed),
    ];
    for (first, second) in wrong {
        let mut oracle = connected();
        oracle.session_event(AT, handle(1), first);
        assert_eq!(oracle.take_violation(), None);
        oracle.session_event(AT, handle(1), second);
        finds(oracle, "after");
    }
}

#[test]
fn a_session_unannounced_announced_twice_or_anothers_is_found() {
    let mut oracle = attached();
    oracle.session_event(AT, handle(1), Stage::Readable);
    finds(oracle, "was not announced");
    let mut oracle = connected();
    oracle.announced(AT, handle(1), OPAQUE, Talk::for_tests());
    finds(oracle, "announced twice");
    let mut oracle = connected();
    oracle.object_made(0, 1, WorkerId(0));
    oracle.session_event(At { unit: 1, ..AT }, handle(1), Stage::Readable);
    finds(oracle, "told to another");
    let mut oracle = connected();
    oracle.closed(AT, handle(1), OPAQUE + 1, CloseReason::Finished);
    finds(oracle, "ends with the value");
}

#[test]
fn callbacks_before_attached_and_after_the_end_are_found() {
    let mut oracle = attached();
    oracle.callback(AT, "attached");
    finds(oracle, "attached twice");
    let mut oracle = attached();
    oracle.object_made(0, 1, WorkerId(0));
    oracle.callback(At { unit: 1, ..AT }, "timer");
    finds(oracle, "before attached");
    let mut oracle = attached();
    oracle.panicked(AT, false);
    oracle.callback(AT, "timer");
    finds(oracle, "an object that is gone");
    let mut oracle = connected();
    oracle.detach_asked(0, Some(0));
    oracle.session_event(AT, handle(1), Stage::Closed);
    oracle.cleaned(0, connect_id(1), OPAQUE);
    oracle.dropped(AT);
    oracle.worker_detached(0, &report());
    assert_eq!(oracle.take_violation(), None);
    oracle.callback(AT, "timer");
    finds(oracle, "after the end of the app worker");
}

#[test]
fn an_object_dropped_unasked_is_found() {
    let mut oracle = attached();
    oracle.dropped(AT);
    finds(oracle, "nobody detached it");
}

#[test]
fn a_report_that_does_not_add_up_is_found() {
    let ended = || {
        let mut oracle = connected();
        oracle.detach_asked(0, Some(0));
        oracle.session_event(AT, handle(1), Stage::Closed);
        oracle.cleaned(0, connect_id(1), OPAQUE);
        oracle.dropped(AT);
        oracle
    };
    let outcomes = |change: fn(&mut HalfOpenCounters)| {
        let mut report = report();
        change(&mut report.outcomes);
        report
    };
    let wrong = [
        (outcomes(|outcomes| outcomes.requested = 2), "made 1 connects"),
        (outcomes(|outcomes| outcomes.cleaned = 0), "made 1 connects"),
        (
            outcomes(|outcomes| {
                outcomes.established = 0;
                outcomes.refused = 1;
            }),
            "was told",
        ),
        (outcomes(|outcomes| outcomes.undelivered = 1), "were not told"),
        (WorkerDetachReport { stuck: vec![WorkerId(0)], ..report() }, "none was paused"),
        (WorkerDetachReport { panicked: true, ..report() }, "it has not"),
        (WorkerDetachReport { unresolved: 1, ..report() }, "nobody is stuck"),
    ];
    for (report, words) in wrong {
        let mut oracle = ended();
        oracle.worker_detached(0, &report);
        finds(oracle, words);
    }
}

#[test]
fn an_end_with_something_left_is_found() {
    let mut oracle = connected();
    oracle.detach_asked(0, Some(0));
    oracle.cleaned(0, connect_id(1), OPAQUE);
    oracle.dropped(AT);
    oracle.worker_detached(0, &report());
    finds(oracle, "was never closed");
    let mut oracle = connected();
    oracle.detach_asked(0, Some(0));
    oracle.session_event(AT, handle(1), Stage::Closed);
    oracle.dropped(AT);
    oracle.worker_detached(0, &report());
    finds(oracle, "was not cleaned");
    let mut oracle = attached();
    oracle.detach_asked(0, Some(0));
    oracle.worker_detached(0, &WorkerDetachReport { outcomes: HalfOpenCounters::default(), ..report() });
    finds(oracle, "its object on worker 0 lives");
}

#[test]
fn nothing_is_told_after_detached() {
    let mut oracle = attached();
    oracle.apps[0].units.clear();
    let app = AppId(Key { slot: 0, generation: 0 });
    oracle.app_detached(0, &DetachReport { app, name: "a".to_owned(), app_workers: Vec::new() });
    oracle.main_callback(0, "listening");
    finds(oracle, "listening after detached");
}
