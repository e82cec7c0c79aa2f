//! Walks through rings of hand-made events, and the list made of several.

use hoststack_transport::{CloseReason, ConnectFailure, Instant, Key, SessionId, WorkerId};

use super::*;
use crate::events::Subject;

fn connect(number: u64) -> ConnectId {
    ConnectId::new(1, number)
}

fn session(slot: u32) -> SessionHandle {
    SessionHandle::new(WorkerId(0), SessionId(Key { slot, generation: 1 }))
}

fn owner(slot: u32) -> AppWorkerId {
    AppWorkerId(Key { slot, generation: 1 })
}

/// A ring of `limit`, with an event at each of these times.
fn ring(limit: usize, times: impl IntoIterator<Item = u64>) -> Ring {
    let mut ring = Ring::new(limit);
    for at in times {
        ring.push(Instant::from_micros(at), Subject::NOTHING, What::Announced);
    }
    ring
}

/// What one answer says of these rings, walked in slices of `slice`; the last is main's.
fn ask(query: &EventsQuery, rings: &[Ring], slice: usize) -> EventsAnswer {
    let mut parts: Vec<EventPart> = Vec::new();
    for (thread, ring) in rings.iter().enumerate() {
        let connects: Vec<ConnectId> =
            parts.iter().flat_map(|part| part.connects().iter().copied()).collect();
        let mut walk = Walk::new(query, thread, ring);
        if thread + 1 == rings.len() {
            walk = walk.with_connects(&connects);
        }
        while !walk.go_on(ring, slice) {}
        parts.push(walk.part());
    }
    merge(query, parts, &Names::default())
}

fn times(answer: &EventsAnswer) -> Vec<u64> {
    answer.events.iter().map(|event| event.at_us).collect()
}

fn after(cursor: &[u64], limit: usize) -> EventsQuery {
    EventsQuery { after: Some(EventCursor(cursor.to_vec())), limit, ..EventsQuery::default() }
}

#[test]
fn the_last_ones_of_all_threads_come_in_order_and_the_cursor_is_behind_them() {
    let rings = [ring(10, [1, 4, 6, 9]), ring(10, [2, 3, 8])];
    for slice in 1..5 {
        let answer = ask(&EventsQuery { limit: 4, ..EventsQuery::default() }, &rings, slice);
        assert_eq!(times(&answer), [4, 6, 8, 9]);
        assert_eq!((answer.next, answer.lost), (EventCursor(vec![4, 3]), 0));
    }
    let threads: Vec<String> = ask(&EventsQuery { limit: 2, ..EventsQuery::default() }, &rings, 9)
        .events
        .into_iter()
        .map(|event| event.thread)
        .collect();
    assert_eq!(threads, ["main", "w0"]);
}

#[test]
fn page_after_page_tells_each_event_once() {
    let rings = [ring(100, (0..50).map(|n| n * 3)), ring(100, (0..80).map(|n| n * 2)), ring(100, [])];
    for (limit, slice) in [(1, 1), (7, 3), (20, 100), (64, 2)] {
        let (mut cursor, mut told) = (EventCursor::default(), Vec::new());
        loop {
            let answer = ask(&after(&cursor.0, limit), &rings, slice);
            assert!(answer.events.len() <= limit && answer.lost == 0);
            if answer.events.is_empty() {
                assert_eq!(answer.next, EventCursor(vec![50, 80, 0]));
                break;
            }
            told.extend(answer.events.iter().map(|event| (event.thread.clone(), event.number)));
            cursor = answer.next;
        }
        let mut sorted = told.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!((told.len(), sorted.len()), (130, 130), "limit {limit} slice {slice}");
    }
}

#[test]
fn what_the_ring_overwrote_is_counted_once() {
    let mut rings = [ring(4, 0..6), ring(4, [])];
    let answer = ask(&after(&[1, 0], 10), &rings, 2);
    assert_eq!((times(&answer), answer.lost, &answer.next), (vec![2, 3, 4, 5], 1, &EventCursor(vec![6, 0])));
    for at in 6..20 {
        rings[0].push(Instant::from_micros(at), Subject::NOTHING, What::Announced);
    }
    let answer = ask(&after(&answer.next.0, 10), &rings, 1);
    assert_eq!((times(&answer), answer.lost), (vec![16, 17, 18, 19], 10));
    assert_eq!(ask(&EventsQuery { limit: 9, ..EventsQuery::default() }, &rings, 1).lost, 0);
}

#[test]
fn a_ring_that_wraps_during_a_walk_loses_what_the_walk_had_not_reached() {
    let mut ring = ring(8, 0..8);
    let mut walk = Walk::new(&after(&[0], 100), 0, &ring);
    assert!(!walk.go_on(&ring, 3));
    for at in 8..14 {
        ring.push(Instant::from_micros(at), Subject::NOTHING, What::Announced);
    }
    while !walk.go_on(&ring, 3) {}
    let part = walk.part();
    let found: Vec<u64> = part.found.iter().map(|event| event.number).collect();
    assert_eq!((found, part.lost, part.next), (vec![0, 1, 2, 6, 7], 3, 8));
}

#[test]
fn a_cursor_of_another_stack_begins_anew() {
    assert_eq!(times(&ask(&after(&[77, 0], 10), &[ring(4, [5]), ring(4, [])], 9)), [5]);
}

#[test]
fn a_session_and_its_connect_are_found_by_either() {
    let mut worker = Ring::new(100);
    let mut main = Ring::new(100);
    let now = Instant::from_micros(1);
    let of = |slot| Subject::app_worker(owner(1)).session(session(slot));
    main.push(now, Subject::app_worker(owner(1)).connect(connect(7)), What::Requested);
    main.push(now, Subject::app_worker(owner(1)).connect(connect(8)), What::Requested);
    // Two attempts of one, and another's.
    worker.push(now, of(1).connect(connect(7)), What::Born);
    worker.push_failure(now, of(1).connect(connect(7)), What::Retry, ConnectFailure::Refused);
    worker.push(now, of(2).connect(connect(8)), What::Born);
    worker.push(now, of(3).connect(connect(7)), What::Born);
    worker.push(now, of(3), What::Closed(CloseReason::Finished));
    worker.push(now, of(2), What::PeerClosed);
    let rings = [worker, main];
    let names = |query: &EventsQuery| -> Vec<String> {
        let answer = ask(query, &rings, 2);
        answer.events.iter().map(|e| format!("{} {}", e.event, e.session.as_deref().unwrap_or("-"))).collect()
    };
    let all = EventsQuery { limit: 99, ..EventsQuery::default() };
    assert_eq!(
        names(&EventsQuery { connect: Some(connect(7)), ..all.clone() }),
        ["requested -", "born 0:1.1", "retry 0:1.1", "born 0:3.1", "closed 0:3.1"]
    );
    let one = EventsQuery { session: Some(session(3)), ..all.clone() };
    assert_eq!(names(&one), ["requested -", "born 0:3.1", "closed 0:3.1"]);
    // Behind the event that names the connect, too.
    let rest = EventsQuery { after: Some(EventCursor(vec![4, 0])), ..one };
    assert_eq!(names(&rest), ["requested -", "closed 0:3.1"]);
    assert!(names(&EventsQuery { app_worker: Some(owner(2)), ..all.clone() }).is_empty());
    assert_eq!(names(&EventsQuery { app_worker: Some(owner(1)), ..all.clone() }).len(), 8);
    let app = |name: &str| {
        let mut app = AppName::from(name);
        app.resolve(&BTreeMap::from([(owner(1), "load/0".into()), (owner(2), "echo/0".into())]));
        names(&EventsQuery { app: Some(app), ..all.clone() }).len()
    };
    assert_eq!([app("load"), app("load/0"), app("echo"), app("nobody")], [8, 8, 0, 0]);
}

#[test]
fn causes_details_and_names_are_told() {
    let mut ring = Ring::new(9);
    let about = Subject::app_worker(owner(4));
    ring.push_stage(Instant::ZERO, about, "tls");
    ring.push_failure(Instant::ZERO, about, What::Failed, ConnectFailure::TimedOut);
    ring.push(Instant::ZERO, about, What::Closed(CloseReason::PeerReset));
    ring.push(Instant::ZERO, about, What::AppReset(EndedBy::Operator));
    let mut walk = Walk::new(&after(&[], 9), 0, &ring);
    while !walk.go_on(&ring, 9) {}
    let app_workers = BTreeMap::from([(owner(4), "echo/0".into())]);
    let names = Names { app_workers, ..Names::default() };
    let answer = merge(&after(&[], 9), vec![walk.part()], &names);
    let told: Vec<_> = answer
        .events
        .iter()
        .map(|e| (e.event, e.detail.as_deref().unwrap_or(""), e.cause.as_deref().unwrap_or("")))
        .collect();
    assert_eq!(
        told,
        [
            ("stage-begun", "tls", ""),
            ("connect-failed", "", "timed out: nothing answered before the deadline"),
            ("closed", "", "reset by the peer"),
            ("app-reset", "operator", ""),
        ]
    );
    assert!(answer.events.iter().all(|event| event.app_worker.as_deref() == Some("echo/0")));
}
