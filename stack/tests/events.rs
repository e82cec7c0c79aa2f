//! The ring of events: whole lives of connects, sessions, listeners and apps, in order, over two domains on virtual time.
#![allow(clippy::collapsible_match, reason = "a guard that sends would hide what the arm does")]

mod common;

use common::*;
use hoststack::app::proxy::{ParseOptions, ReceiveProxy};
use hoststack::app::*;
use hoststack::inspect::{EVENTS_PER_ANSWER, EventCursor, EventInfo, EventsAnswer, EventsQuery};
use hoststack::net::MemoryWireConfig;
use hoststack::{Attached, EndHow, Query, SingleThreaded, StackConfig};

const LONG: Duration = Duration::from_secs(600);

fn events(stack: &mut SingleThreaded, query: EventsQuery) -> EventsAnswer {
    stack.inspect(Query::Events(Box::new(query))).unwrap().events.expect("events were asked for")
}

/// All events from the beginning, page by page.
fn all(stack: &mut SingleThreaded, query: &EventsQuery) -> Vec<EventInfo> {
    let (mut cursor, mut told) = (EventCursor::default(), Vec::new());
    loop {
        let query = EventsQuery { after: Some(cursor), limit: 7, ..query.clone() };
        let answer = events(stack, query);
        assert_eq!(answer.lost, 0);
        if answer.events.is_empty() {
            return told;
        }
        told.extend(answer.events);
        cursor = answer.next;
    }
}

/// What happened, in order, with detail and cause.
fn words(events: &[EventInfo]) -> Vec<String> {
    let word = |event: &EventInfo| {
        let more = [event.detail.as_deref(), event.cause.as_deref()];
        more.into_iter().flatten().fold(event.event.to_owned(), |word, more| format!("{word} {more}"))
    };
    events.iter().map(word).collect()
}

fn of_connect(stack: &mut SingleThreaded, connect: ConnectId) -> Vec<String> {
    words(&all(stack, &EventsQuery { connect: Some(connect), ..EventsQuery::default() }))
}

fn of_session(stack: &mut SingleThreaded, session: SessionHandle) -> Vec<String> {
    words(&all(stack, &EventsQuery { session: Some(session), ..EventsQuery::default() }))
}

/// A client that says a word, half-closes when it comes back, and closes when the peer has.
fn talker(log: &Log) -> Probe {
    Probe::new(log, |ctx, event| {
        if let Event::Connected(_, _, Ok(session)) = *event {
            ctx.write(session, b"word");
        }
        if let Event::Readable(session) = *event {
            drain(ctx, session);
            ctx.half_close(session);
        }
        close_with_peer(ctx, event);
    })
}

struct World {
    stack: SingleThreaded,
    client: Attached,
    server: Attached,
    logs: [Log; 2],
}

impl World {
    fn new(workers: usize) -> World {
        World::of(stack(workers))
    }

    fn of(mut stack: SingleThreaded) -> World {
        let logs = [Log::default(), Log::default()];
        let server = serve(&mut stack, Probe::echo(&logs[1]), 80);
        let client = attach(&mut stack, "client", talker(&logs[0]));
        World { stack, client, server, logs }
    }

    fn connect(&mut self, options: ConnectOptions) -> ConnectId {
        self.stack.connect(self.client.app_workers[0], options).unwrap()
    }

    #[track_caller]
    fn until(&mut self, done: impl Fn(&Log, &Log) -> bool) {
        let [client, server] = self.logs.clone();
        until(&mut self.stack, LONG, || done(&client, &server));
    }

    /// Until so many connects were cleaned and all sessions closed.
    #[track_caller]
    fn until_over(&mut self, connects: usize) {
        self.until(|client, server| {
            client.cleaned() == connects
                && client.closed() == client.up()
                && server.closed() == server.accepted()
        });
    }

    #[track_caller]
    fn finish(self) {
        finish(self.stack, &[&self.client, &self.server], &[&self.logs[0], &self.logs[1]]);
    }
}

fn to_server() -> ConnectOptions {
    ConnectOptions::to(Family::V4.server(80))
}

#[test]
fn the_whole_life_of_a_connect_and_of_both_its_sessions_is_told_in_order() {
    for workers in [1, 3] {
        let mut world = World::new(workers);
        let connect = world.connect(to_server());
        world.until_over(1);
        let ours = world.logs[0].sessions()[0];
        let life = [
            "requested",
            "attempt 1",
            "handed-over",
            "born",
            "connected",
            "announced",
            "settled",
            "half-closed",
            "peer-closed",
            "closed finished",
            "app-closed",
        ];
        // Where nothing but the clock tells, a settled connect may stand behind what its session did at once.
        let without = |words: Vec<String>| -> Vec<String> {
            words.into_iter().filter(|word| word != "settled").collect()
        };
        let expected: Vec<String> = without(life.iter().map(|&word| word.to_owned()).collect());
        for told in [of_connect(&mut world.stack, connect), of_session(&mut world.stack, ours)] {
            assert_eq!(told.iter().filter(|word| *word == "settled").count(), 1, "{told:?}");
            assert_eq!(without(told), expected);
        }
        let theirs = world.logs[1].sessions()[0];
        assert_eq!(
            of_session(&mut world.stack, theirs),
            ["accepted", "announced", "peer-closed", "app-closed", "closed finished"]
        );
        let told = all(&mut world.stack, &EventsQuery { session: Some(ours), ..EventsQuery::default() });
        assert!(told.iter().all(|event| event.app_worker.as_deref() == Some("client/0")), "{told:?}");
        assert!(told.is_sorted_by_key(|event| event.at_us));
        world.finish();
    }
}

#[test]
fn connects_that_fail_are_told_with_their_cause() {
    let mut world = World::new(2);
    let refused = world.connect(ConnectOptions::to(Family::V4.server(81)));
    let lost = world.connect(ConnectOptions::to(Family::V6.nowhere()));
    let silent = ConnectOptions::to(Family::V4.nobody());
    let late = world.connect(ConnectOptions { timeout: Duration::from_millis(300), ..silent.clone() });
    let cancelled = world.connect(silent);
    world.stack.cancel(cancelled).unwrap();
    world.until_over(4);
    let cause = |failure: ConnectFailure| format!("connect-failed {failure}");
    let settled = |failure: ConnectFailure| format!("settled {failure}");
    let told = |failure| ["requested".into(), "attempt 1".into(), cause(failure), settled(failure)];
    assert_eq!(of_connect(&mut world.stack, refused), told(ConnectFailure::Refused));
    assert_eq!(of_connect(&mut world.stack, lost), told(ConnectFailure::Unreachable));
    assert_eq!(of_connect(&mut world.stack, late), told(ConnectFailure::TimedOut));
    let mut expected = told(ConnectFailure::Cancelled).to_vec();
    expected.insert(2, "cancel-asked".into());
    assert_eq!(of_connect(&mut world.stack, cancelled), expected);
    world.finish();
}

#[test]
fn attempts_are_told_one_by_one() {
    let mut world = World::new(1);
    let options = ConnectOptions {
        alternatives: vec![Address::Tcp(Family::V4.server(80).into())],
        ..ConnectOptions::to(Family::V4.server(81))
    };
    let connect = world.connect(options);
    world.until_over(1);
    let told = of_connect(&mut world.stack, connect);
    assert_eq!(
        told[..6],
        [
            "requested".to_owned(),
            "attempt 1".into(),
            format!("attempt-failed {}", ConnectFailure::Refused),
            "attempt 2".into(),
            "handed-over".into(),
            "born".into(),
        ]
    );
    world.finish();
}

#[test]
fn stages_are_told_when_their_turn_comes_and_when_they_fail() {
    let mut stack = stack(1);
    let logs = [Log::default(), Log::default()];
    let server = attach(&mut stack, "server", Probe::echo(&logs[1]));
    let listen = ListenOptions {
        stages: StagePlans::one(ReceiveProxy { options: ParseOptions::DEFAULT }),
        ..listen_on(Family::V4, 80)
    };
    let listener = stack.listen(server.app_workers[0], listen).unwrap();
    let client = attach(&mut stack, "client", talker(&logs[0]));
    stack.connect(client.app_workers[0], to_server()).unwrap();
    let not_accepted = |event: &Event| matches!(event, Event::NotAccepted(_));
    until(&mut stack, LONG, || logs[1].count(not_accepted) == 1 && logs[0].closed() == 1);
    let query = EventsQuery { app_worker: Some(server.app_workers[0]), ..EventsQuery::default() };
    let told = words(&all(&mut stack, &query));
    assert_eq!(
        told[..2],
        [
            "app-worker-attached".to_owned(),
            format!("listener-up {}", Address::Tcp(Family::V4.server(80).into()))
        ]
    );
    assert_eq!((told[2].as_str(), told[3].starts_with("stage-begun ")), ("accepted", true), "{told:?}");
    let failed = told.iter().find(|word| word.starts_with("not-accepted ")).expect("it is no header");
    assert!(failed.contains("the peer sent something else"), "{failed}");
    stack.unlisten(server.app_workers[0], listener).unwrap();
    let told = words(&all(&mut stack, &query));
    assert_eq!(told.last().unwrap(), &format!("listener-gone {listener}"));
    finish(stack, &[&client, &server], &[&logs[0], &logs[1]]);
}

#[test]
fn who_ended_a_session_is_told() {
    let mut world = World::of(stack(1));
    // The server never closes by itself: nothing comes.
    world.connect(to_server());
    world.until(|client, server| client.up() == 1 && server.accepted() == 1);
    let ours = world.logs[0].sessions()[0];
    world.stack.end_session(ours, EndHow::Reset).unwrap();
    world.until_over(1);
    let told = of_session(&mut world.stack, ours);
    assert_eq!(told[told.len() - 2..], ["app-reset operator", "closed reset by us"]);
    let theirs = world.logs[1].sessions()[0];
    let told = of_session(&mut world.stack, theirs);
    assert_eq!(told.last().unwrap(), "closed reset by the peer");
    world.finish();
}

#[test]
fn a_detach_is_told_with_what_it_ends() {
    let mut stack = stack(2);
    let logs = [Log::default(), Log::default()];
    let server = serve(&mut stack, Probe::sink(&logs[1]), 80);
    let client = attach(&mut stack, "client", Probe::idle(&logs[0]));
    stack.connect(client.app_workers[0], to_server()).unwrap();
    until(&mut stack, LONG, || logs[0].up() == 1 && logs[1].accepted() == 1);
    let pending = stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.nobody())).unwrap();
    let _ = stack.settle();
    stack.detach(client.app, DetachPolicy::Reset).unwrap();
    let told = words(&all(
        &mut stack,
        &EventsQuery { app_worker: Some(client.app_workers[0]), ..EventsQuery::default() },
    ));
    let place = |word: &str| {
        told.iter().position(|told| told == word).unwrap_or_else(|| panic!("no {word}: {told:?}"))
    };
    assert!(place("detach-begun") < place(&format!("settled {}", ConnectFailure::Detached)));
    assert!(place("app-reset detach") < place("closed reset by us"));
    assert!(place("closed reset by us") < place("detach-ended"));
    assert_eq!(
        of_connect(&mut stack, pending).last().unwrap(),
        &format!("settled {}", ConnectFailure::Detached)
    );
    let apps = words(&all(&mut stack, &EventsQuery::default()));
    let gone: Vec<&String> = apps.iter().filter(|word| word.starts_with("app-detached")).collect();
    assert_eq!(gone, [&format!("app-detached {}", client.app)]);
    finish(stack, &[&server], &logs.each_ref().map(|log| log));
}

#[test]
fn a_follower_sees_each_event_once_while_they_happen() {
    let mut world = World::new(3);
    let mut cursor = events(&mut world.stack, EventsQuery { limit: 1, ..EventsQuery::default() }).next;
    let mut told: Vec<(String, u64)> = Vec::new();
    for round in 0..40 {
        for _ in 0..round % 4 {
            world.connect(to_server());
        }
        for _ in 0..round {
            let _ = world.stack.step();
        }
        let query = EventsQuery { after: Some(cursor), limit: 1 + round % 9, ..EventsQuery::default() };
        let answer = events(&mut world.stack, query);
        assert_eq!(answer.lost, 0);
        told.extend(answer.events.into_iter().map(|event| (event.thread, event.number)));
        cursor = answer.next;
    }
    world.until_over(60);
    loop {
        let query = EventsQuery { after: Some(cursor.clone()), limit: 50, ..EventsQuery::default() };
        let answer = events(&mut world.stack, query);
        told.extend(answer.events.into_iter().map(|event| (event.thread, event.number)));
        if answer.next == cursor {
            break;
        }
        cursor = answer.next;
    }
    // Per thread the numbers go on one by one: no gap, no repeat.
    for thread in ["main", "w0", "w1", "w2"] {
        let numbers: Vec<u64> =
            told.iter().filter(|(of, _)| of == thread).map(|(_, number)| *number).collect();
        assert!(numbers.len() > 20, "{thread} {numbers:?}");
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{thread} {numbers:?}");
    }
    world.finish();
}

#[test]
fn a_small_ring_counts_what_it_overwrote_and_a_ring_of_none_costs_nothing() {
    let config = StackConfig { events_max: 16, ..config(1) };
    let mut world = World::of(stack_of(config.clone(), MemoryWireConfig::default()));
    for _ in 0..20 {
        world.connect(to_server());
    }
    world.until_over(20);
    let query =
        |after| EventsQuery { after: Some(after), limit: EVENTS_PER_ANSWER, ..EventsQuery::default() };
    let answer = events(&mut world.stack, query(EventCursor::default()));
    let total: u64 = answer.next.0.iter().sum();
    assert_eq!((answer.events.len(), answer.lost), (32, total - 32), "16 of the worker, 16 of main");
    // 11 a connect, 5 an accepted session.
    assert!(total > 20 * 16, "{total}");
    let answer = events(&mut world.stack, query(answer.next));
    assert_eq!((answer.events.len(), answer.lost), (0, 0));
    world.finish();

    let mut world = World::of(stack_of(StackConfig { events_max: 0, ..config }, MemoryWireConfig::default()));
    world.connect(to_server());
    world.until_over(1);
    let answer = events(&mut world.stack, query(EventCursor::default()));
    assert_eq!((answer.events.len(), answer.lost, answer.next), (0, 0, EventCursor(vec![0, 0])));
    world.finish();
}
