//! The life of sessions, from announcement to `closed`: who closes first, cut-offs, panics, timers, messages.
// A guard that sends would hide what the arm does.
#![allow(clippy::collapsible_match)]

mod common;

use std::sync::Arc;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, LinkState};
use hoststack::tcp::TcpConfig;
use hoststack::{Attached, EndHow, Query, SingleThreaded, StackConfig};
use parking_lot::Mutex;

const LONG: Duration = Duration::from_secs(600);

/// A client and a server of one session each test, made and ended by closures.
struct Pair {
    stack: SingleThreaded,
    client: Attached,
    server: Attached,
    client_log: Log,
    server_log: Log,
}

impl Pair {
    fn on(
        mut stack: SingleThreaded,
        client: impl Fn(&mut Context<'_>, &Event) + Send + Sync + 'static,
        server: impl Fn(&mut Context<'_>, &Event) + Send + Sync + 'static,
    ) -> Pair {
        let (client_log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::new(&server_log, server), 80);
        let client = attach(&mut stack, "client", Probe::new(&client_log, client));
        Pair { stack, client, server, client_log, server_log }
    }

    fn connect(&mut self, options: ConnectOptions) -> ConnectId {
        self.stack.connect(self.client.app_workers[0], options).unwrap()
    }

    #[track_caller]
    fn until(&mut self, done: impl Fn(&Log, &Log) -> bool) {
        let (client, server) = (self.client_log.clone(), self.server_log.clone());
        until(&mut self.stack, LONG, || done(&client, &server));
    }

    /// Waits until `count` sessions have ended at both ends.
    #[track_caller]
    fn until_closed(&mut self, count: usize) {
        self.until(|client, server| client.closed() == count && server.closed() == count);
    }

    #[track_caller]
    fn finish(self) {
        finish(self.stack, &[&self.client, &self.server], &[&self.client_log, &self.server_log]);
    }
}

fn to_server() -> ConnectOptions {
    ConnectOptions::to(Family::V4.server(80))
}

// ---- Connecting and closing inside callbacks ----

// covers: H45
#[test]
fn an_app_connects_inside_every_kind_of_callback() {
    let done = Counter::default();
    let count = done.clone();
    let again = move |ctx: &mut Context<'_>, event: &Event| {
        let next = match *event {
            Event::Attached | Event::Timer(_) | Event::Notified(_) | Event::Closed(..) => true,
            Event::Connected(_, _, outcome) => {
                let session = outcome.unwrap();
                ctx.write(session, b"x");
                count.value() < 3
            }
            Event::Readable(session) => {
                drain(ctx, session);
                ctx.close(session);
                false
            }
            _ => false,
        };
        if next && count.add(1) < 20 {
            ctx.connect(to_server()).unwrap();
        }
    };
    let mut pair = Pair::on(stack(2), again, echo);
    pair.stack.notify(pair.client.app_workers[0], WorkerId(0), Box::new(1u64)).unwrap();
    pair.until_closed(20);
    assert_eq!(pair.client_log.up(), 20);
    pair.finish();
}

#[test]
fn an_application_connects_and_listens_in_callbacks_on_main() {
    let mut stack = stack(2);
    let (server_log, log) = (Log::default(), Log::default());
    let probe = Probe::echo(&server_log).on_main(|ctx, event| {
        if *event == Event::AppAttached {
            let unit = ctx.app_workers()[0];
            ctx.listen(unit, ListenOptions { opaque: 4, ..listen_on(Family::V4, 80) }).unwrap();
            ctx.listen(unit, ListenOptions { opaque: 5, ..listen_on(Family::V4, 80) }).unwrap();
            ctx.listen(unit, ListenOptions { opaque: 6, ..listen_on(Family::V6, 80) }).unwrap();
        }
    });
    let server = attach(&mut stack, "server", probe);
    let is_listening = |event: &Event| matches!(event, Event::Listening(..));
    until(&mut stack, LONG, || server_log.count(is_listening) == 3);
    assert_eq!(server_log.count(|event| *event == Event::Listening(5, Err(ListenError::InUse))), 1);
    let left = Counter::default();
    let probe = Probe::new(&log, |ctx, event| {
        if let Event::Connected(_, _, Ok(session)) = *event {
            ctx.close(session);
        }
    })
    .on_main(move |ctx, event| {
        // One connect after the other, each when the half-open of the last was cleaned.
        if matches!(event, Event::AppAttached | Event::Cleaned(..)) && left.add(1) < 5 {
            ctx.connect(ctx.app_workers()[0], to_server()).unwrap();
        }
    });
    let client = attach(&mut stack, "client", probe);
    until(&mut stack, LONG, || log.closed() == 5 && log.cleaned() == 5 && server_log.closed() == 5);
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

// covers: N06
#[test]
fn a_session_closed_in_its_first_callback_ends_gracefully_at_both_ends() {
    for workers in [1, 3] {
        let client = |ctx: &mut Context<'_>, event: &Event| {
            if let Event::Connected(_, _, Ok(session)) = *event {
                ctx.close(session);
                ctx.close(session);
                ctx.half_close(session);
            }
        };
        let mut pair = Pair::on(stack(workers), client, close_with_peer);
        for _ in 0..10 {
            pair.connect(to_server());
        }
        pair.until_closed(10);
        assert_eq!(pair.client_log.ends(), [CloseReason::Finished; 10]);
        assert_eq!(pair.server_log.ends(), [CloseReason::Finished; 10]);
        assert_eq!(
            pair.client_log.count(|event| matches!(event, Event::PeerClosed(_))),
            0,
            "nothing but closed"
        );
        pair.finish();
    }
}

// covers: N01
#[test]
fn a_session_reset_in_accepted_is_rejected() {
    let reject = |ctx: &mut Context<'_>, event: &Event| {
        if let Event::Accepted(session) = *event {
            ctx.reset(session);
        }
    };
    let mut pair = Pair::on(stack(2), close_with_peer, reject);
    pair.connect(to_server());
    pair.until_closed(1);
    assert_eq!(pair.server_log.ends(), [CloseReason::LocalReset]);
    assert_eq!(pair.client_log.ends(), [CloseReason::PeerReset]);
    assert_eq!(pair.client_log.count(|event| matches!(event, Event::Reset(_, CloseReason::PeerReset))), 1);
    assert_eq!(pair.server_log.count(|event| matches!(event, Event::Reset(..))), 0, "it was its own doing");
    pair.finish();
}

// covers: N01, T03
#[test]
fn a_session_reset_in_connected_is_dropped_at_both_ends() {
    let reject = |ctx: &mut Context<'_>, event: &Event| {
        if let Event::Connected(_, _, Ok(session)) = *event {
            ctx.write(session, b"never read");
            ctx.reset(session);
        }
    };
    let mut pair = Pair::on(stack(2), reject, close_with_peer);
    pair.connect(to_server());
    pair.until(|client, _| client.closed() == 1);
    pass(&mut pair.stack, Duration::from_secs(1));
    assert_eq!(pair.client_log.ends(), [CloseReason::LocalReset]);
    // The server may have been in SYN-RECEIVED still: then its app never heard of it.
    assert!(pair.server_log.ends().iter().all(|end| *end == CloseReason::PeerReset));
    assert_eq!(pair.server_log.closed(), pair.server_log.accepted());
    assert_eq!(summary(&mut pair.stack).leaks.sessions, 0);
    pair.finish();
}

// ---- Who closes first ----

#[test]
fn the_peer_closes_first_and_all_it_sent_was_read_before() {
    let streams = Streams::default();
    let (s, c) = (streams.clone(), Streams::default());
    let server = move |ctx: &mut Context<'_>, event: &Event| {
        if let Event::Accepted(session) | Event::Writable(session) = *event
            && s.send(ctx, session, 300_000)
        {
            ctx.close(session);
        }
    };
    let got = c.clone();
    let client = move |ctx: &mut Context<'_>, event: &Event| match *event {
        Event::Readable(session) => {
            c.receive(ctx, session, usize::MAX);
        }
        Event::PeerClosed(session) => {
            assert_eq!(c.receive(ctx, session, usize::MAX), 300_000);
            ctx.close(session);
        }
        _ => {}
    };
    let mut pair = Pair::on(stack(2), client, server);
    pair.connect(to_server());
    pair.until_closed(1);
    assert_eq!(got.all()[0].got, 300_000);
    assert_eq!(
        (pair.client_log.ends(), pair.server_log.ends()),
        (vec![CloseReason::Finished], vec![CloseReason::Finished])
    );
    pair.finish();
}

#[test]
fn both_close_at_once() {
    // A delay, so that the FINs cross.
    let slow = Impairments { delay_us: 10_000, ..Impairments::default() };
    let (stack, _) = impaired_stack(config(2), slow, slow);
    let closer = |ctx: &mut Context<'_>, event: &Event| {
        if let Event::Notified(_) = *event {
            for session in SESSIONS.lock().iter() {
                ctx.close(*session);
            }
        } else if let Event::Connected(_, _, Ok(session)) | Event::Accepted(session) = *event {
            SESSIONS.lock().push(session);
        }
    };
    static SESSIONS: Mutex<Vec<SessionHandle>> = Mutex::new(Vec::new());
    let mut pair = Pair::on(stack, closer, closer);
    for _ in 0..4 {
        pair.connect(to_server());
    }
    pair.until(|client, server| client.up() == 4 && server.accepted() == 4);
    for app_worker in [pair.client.app_workers[0], pair.server.app_workers[0]] {
        for worker in 0..2 {
            pair.stack.notify(app_worker, WorkerId(worker), Box::new(0u64)).unwrap();
        }
    }
    pair.until_closed(4);
    assert!(
        pair.client_log.ends().iter().chain(&pair.server_log.ends()).all(|end| *end == CloseReason::Finished)
    );
    pair.finish();
}

/// The client sends, half-closes and still gets everything that the server sends afterwards; and the other way round.
// covers: N10
#[test]
fn a_half_close_leaves_the_other_direction_open() {
    for client_first in [true, false] {
        let (a, b) = (Streams::default(), Streams::default());
        let (first, second) = (a.clone(), b.clone());
        // Sends 100 000 bytes, half-closes, closes when the peer is done.
        let first = move |ctx: &mut Context<'_>, event: &Event| match *event {
            Event::Connected(_, _, Ok(session)) | Event::Accepted(session) | Event::Writable(session) => {
                if first.send(ctx, session, 100_000) {
                    ctx.half_close(session);
                }
            }
            Event::Readable(session) => {
                first.receive(ctx, session, usize::MAX);
            }
            Event::PeerClosed(session) => ctx.close(session),
            _ => {}
        };
        // Reads; begins to send when the peer is done; then closes.
        let second = move |ctx: &mut Context<'_>, event: &Event| match *event {
            Event::Readable(session) => {
                second.receive(ctx, session, usize::MAX);
            }
            Event::PeerClosed(session) | Event::Writable(session) => {
                if second.send(ctx, session, 200_000) {
                    ctx.close(session);
                }
            }
            _ => {}
        };
        let mut pair =
            if client_first { Pair::on(stack(2), first, second) } else { Pair::on(stack(2), second, first) };
        pair.connect(to_server());
        pair.until_closed(1);
        assert_eq!((a.all()[0].sent, a.all()[0].got), (100_000, 200_000));
        assert_eq!((b.all()[0].sent, b.all()[0].got), (200_000, 100_000));
        assert_eq!(pair.client_log.ends(), [CloseReason::Finished]);
        assert_eq!(pair.server_log.ends(), [CloseReason::Finished]);
        pair.finish();
    }
}

#[test]
fn nothing_can_be_written_after_a_half_close() {
    let client = |ctx: &mut Context<'_>, event: &Event| match *event {
        Event::Connected(_, _, Ok(session)) => ctx.half_close(session),
        Event::Readable(session) => {
            assert_eq!(ctx.write(session, b"late"), 0);
            assert_eq!((ctx.tx_room(session), ctx.reserve(session, 10).len()), (0, 0));
            assert_eq!(ctx.splice(session, session), 0);
            drain(ctx, session);
            ctx.close(session);
        }
        _ => {}
    };
    let server = |ctx: &mut Context<'_>, event: &Event| {
        if let Event::PeerClosed(session) = *event {
            ctx.write(session, b"answer");
            ctx.close(session);
        }
    };
    let mut pair = Pair::on(stack(1), client, server);
    pair.connect(to_server());
    pair.until_closed(1);
    pair.finish();
}

// covers: E03, SHLD-3
#[test]
fn a_close_with_unread_bytes_resets_the_peer() {
    let client = |ctx: &mut Context<'_>, event: &Event| {
        if let Event::Readable(session) = *event {
            ctx.close(session);
        }
    };
    let server = |ctx: &mut Context<'_>, event: &Event| {
        if let Event::Accepted(session) = *event {
            ctx.write(session, b"unread");
        }
        close_with_peer(ctx, event);
    };
    let mut pair = Pair::on(stack(2), client, server);
    pair.connect(to_server());
    pair.until_closed(1);
    // RFC 2525 §2.17: the peer must hear that its data was lost.
    assert_eq!(pair.server_log.ends(), [CloseReason::PeerReset]);
    assert_eq!(pair.client_log.ends(), [CloseReason::LocalReset]);
    pair.finish();
}

#[test]
fn closed_waits_for_unread_data_after_a_graceful_end() {
    // The client half-closes, gets the answer and the FIN, and reads only when told to, long after the connection
    // has left TIME-WAIT's owner.
    let client = |ctx: &mut Context<'_>, event: &Event| match *event {
        Event::Connected(_, _, Ok(session)) => {
            ctx.half_close(session);
            ctx.set_opaque(session, session.as_u64());
        }
        Event::Notified(handle) => {
            let session = SessionHandle::from_u64(handle);
            assert!(ctx.is_live(session));
            let mut answer = [0; 16];
            assert_eq!(ctx.read(session, &mut answer), 10);
            assert_eq!(&answer[..10], b"the answer");
        }
        _ => {}
    };
    let server = |ctx: &mut Context<'_>, event: &Event| {
        if let Event::PeerClosed(session) = *event {
            ctx.write(session, b"the answer");
            ctx.close(session);
        }
    };
    let mut pair = Pair::on(stack(2), client, server);
    pair.connect(to_server());
    pair.until(|client, server| {
        server.closed() == 1 && client.count(|e| matches!(e, Event::PeerClosed(_))) == 1
    });
    pass(&mut pair.stack, Duration::from_secs(100));
    assert_eq!(pair.client_log.closed(), 0, "bytes are unread");
    let session = pair.client_log.sessions()[0];
    pair.stack.notify(pair.client.app_workers[0], session.worker(), Box::new(session.as_u64())).unwrap();
    pair.until_closed(1);
    assert_eq!(
        pair.client_log.events().iter().rev().find_map(|event| match event {
            Event::Closed(_, opaque, reason) => Some((*opaque, *reason)),
            _ => None,
        }),
        Some((session.as_u64(), CloseReason::Finished))
    );
    pair.finish();
}

// ---- Cut-offs ----

#[test]
fn a_reset_in_mid_transfer_cuts_the_other_end_off() {
    let streams = Streams::default();
    let (a, b) = (streams.clone(), Streams::default());
    let client = move |ctx: &mut Context<'_>, event: &Event| {
        if let Event::Connected(_, _, Ok(session)) | Event::Writable(session) = *event {
            a.send(ctx, session, u64::MAX);
        }
    };
    let server = move |ctx: &mut Context<'_>, event: &Event| {
        if let Event::Readable(session) = *event
            && b.receive(ctx, session, usize::MAX) > 1_000_000
        {
            ctx.reset(session);
        }
    };
    let mut pair = Pair::on(stack(2), client, server);
    pair.connect(to_server());
    pair.until_closed(1);
    assert_eq!(pair.client_log.ends(), [CloseReason::PeerReset]);
    assert_eq!(pair.server_log.ends(), [CloseReason::LocalReset]);
    assert!(streams.all()[0].sent > 1_000_000);
    pair.finish();
}

// covers: T06
#[test]
fn a_cut_wire_times_a_session_with_queued_data_out() {
    let tcp = TcpConfig { retransmits_max: 4, ..TcpConfig::default() };
    let (stack, links) =
        impaired_stack(StackConfig { tcp, ..config(2) }, Impairments::default(), Impairments::default());
    let client = |ctx: &mut Context<'_>, event: &Event| {
        if let Event::Notified(session) = *event {
            ctx.write(SessionHandle::from_u64(session), b"nobody hears this");
        }
    };
    let mut pair = Pair::on(stack, client, close_with_peer);
    pair.connect(to_server());
    pair.until(|client, server| client.up() == 1 && server.accepted() == 1);
    links[0].set_link(LinkState::Cut);
    let session = pair.client_log.sessions()[0];
    pair.stack.notify(pair.client.app_workers[0], session.worker(), Box::new(session.as_u64())).unwrap();
    pair.until(|client, _| client.closed() == 1);
    assert_eq!(pair.client_log.ends(), [CloseReason::TimedOut]);
    assert_eq!(pair.client_log.count(|event| matches!(event, Event::Reset(_, CloseReason::TimedOut))), 1);
    pair.finish();
}

#[test]
fn a_session_is_closed_and_reset_from_outside() {
    let mut pair = Pair::on(stack(2), close_with_peer, close_with_peer);
    pair.connect(to_server());
    pair.connect(to_server());
    pair.until(|client, server| client.cleaned() == 2 && server.accepted() == 2);
    let sessions = pair.client_log.sessions();
    pair.stack.end_session(sessions[0], EndHow::Close).unwrap();
    pair.stack.end_session(sessions[1], EndHow::Reset).unwrap();
    pair.until_closed(2);
    let mut ends = pair.server_log.ends();
    ends.sort_by_key(|end| *end == CloseReason::PeerReset);
    assert_eq!(ends, [CloseReason::Finished, CloseReason::PeerReset]);
    // They are gone: nothing happens.
    pair.stack.end_session(sessions[0], EndHow::Reset).unwrap();
    pair.stack.end_session(SessionHandle::from_u64(u64::MAX), EndHow::Close).unwrap();
    pass(&mut pair.stack, Duration::from_secs(1));
    pair.finish();
}

// ---- Panics ----

/// A panic in each callback that an object has ends its app worker, and nothing else.
// covers: D05
#[test]
fn a_panic_in_any_callback_is_contained_to_its_app_worker() {
    type Picks = fn(&Event) -> bool;
    let kinds: [(&str, Picks); 10] = [
        ("accepted", |event| matches!(event, Event::Accepted(_))),
        ("connected", |event| matches!(event, Event::Connected(_, _, Ok(_)))),
        ("failed", |event| matches!(event, Event::Connected(_, _, Err(_)))),
        ("readable", |event| matches!(event, Event::Readable(_))),
        ("writable", |event| matches!(event, Event::Writable(_))),
        ("peer closed", |event| matches!(event, Event::PeerClosed(_))),
        ("reset", |event| matches!(event, Event::Reset(..))),
        ("closed", |event| matches!(event, Event::Closed(..))),
        ("timer", |event| matches!(event, Event::Timer(_))),
        ("notified", |event| matches!(event, Event::Notified(_))),
    ];
    for (name, panics) in kinds {
        let mut stack = stack(2);
        let (log, other_log, server_log) = (Log::default(), Log::default(), Log::default());
        // Cuts every other session off, closes the rest.
        let server = serve(
            &mut stack,
            Probe::new(&server_log, |ctx, event| {
                if let Event::Readable(session) = *event {
                    drain(ctx, session);
                    if ctx.flow(session).unwrap().remote.port % 2 == 0 {
                        ctx.reset(session)
                    } else {
                        ctx.close(session)
                    }
                }
            }),
            80,
        );
        let busy = |panics: fn(&Event) -> bool| {
            move |ctx: &mut Context<'_>, event: &Event| {
                match *event {
                    Event::Attached => {
                        ctx.listen(ListenOptions {
                            domain: SERVER,
                            ..ListenOptions::on(Family::V4.server(1000 + ctx.unit() as u16))
                        })
                        .ok();
                        ctx.set_timer(1, Duration::from_millis(5));
                    }
                    Event::Timer(_) => {
                        for port in [80, 81, 1000 + ctx.unit() as u16] {
                            ctx.connect(ConnectOptions::to(Family::V4.server(port))).unwrap();
                        }
                        ctx.set_timer(1, Duration::from_millis(50));
                    }
                    Event::Connected(_, _, Ok(session)) | Event::Writable(session) => {
                        if ctx.write(session, &[1; 4096]) > 0 {
                            ctx.want_room(session);
                        }
                    }
                    Event::PeerClosed(session) => ctx.close(session),
                    _ => {}
                }
                assert!(!panics(event) || ctx.unit() != 0, "this one was to panic");
            }
        };
        let app = stack
            .attach(
                Probe::new(&log, busy(panics)),
                AttachOptions { app_workers: 2, ..AttachOptions::named("panics") },
            )
            .unwrap();
        let other = attach(&mut stack, "other", Probe::new(&other_log, close_with_peer));
        if name == "notified" {
            stack.notify(app.app_workers[0], WorkerId(0), Box::new(1u64)).unwrap();
        }
        let gone = stack.run_until(Duration::from_secs(20), |stack| {
            stack.check_consistency();
            log.count(|event| *event == Event::WorkerDetached(0)) == 1
        });
        assert!(gone, "{name}: it was detached");
        assert!(
            log.lines().iter().any(|line| line.at.is_some_and(|(unit, _)| unit == 0) && panics(&line.event)),
            "{name}"
        );
        log.check(false);
        // The others go on: the application's other app worker, and other applications.
        let answer = summary(&mut stack);
        let infos = &answer.apps.iter().find(|info| info.name == "panics").unwrap().app_workers;
        assert_eq!(
            infos.iter().map(|info| (info.unit, info.state.as_str())).collect::<Vec<_>>(),
            [(1, "attached")]
        );
        let up = log.up();
        until(&mut stack, LONG, || log.up() > up);
        stack.connect(other.app_workers[0], to_server()).unwrap();
        until(&mut stack, LONG, || other_log.up() == 1);
        let report = stack.detach(app.app, DetachPolicy::Reset).unwrap();
        let outcomes = report.outcomes();
        assert_eq!(outcomes.requested, outcomes.cleaned, "{name}");
        for app in [&other, &server] {
            stack.detach(app.app, DetachPolicy::Reset).unwrap();
        }
        other_log.check(true);
        server_log.check(true);
        assert_clean(&mut stack);
    }
}

/// Panics where nothing can be told any more: on arrival, in the last callback, and while being dropped.
// covers: E09
#[test]
fn a_panic_on_arrival_at_the_end_and_in_a_destructor_is_contained() {
    struct Fragile(u8);
    impl Application for Fragile {
        fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
            Box::new(FragileWorker(self.0))
        }
        fn worker_detached(&mut self, _ctx: &mut MainContext<'_>, report: &WorkerDetachReport) {
            assert_eq!(report.outcomes.requested, report.outcomes.cleaned);
            assert_ne!(self.0, 3, "this one was to panic");
        }
        fn detached(&mut self, _report: &DetachReport) {
            assert_ne!(self.0, 4, "this one was to panic");
        }
    }
    struct FragileWorker(u8);
    impl AppWorker for FragileWorker {
        fn attached(&mut self, ctx: &mut Context<'_>) {
            ctx.connect(to_server()).unwrap();
            assert_ne!(self.0, 0, "this one was to panic");
        }
        fn detaching(&mut self, _ctx: &mut Context<'_>, _app_worker: AppWorkerId) {
            assert_ne!(self.0, 1, "this one was to panic");
        }
    }
    impl Drop for FragileWorker {
        fn drop(&mut self) {
            assert_ne!(self.0, 2, "this one was to panic");
        }
    }
    for place in 0..5 {
        let mut stack = stack(2);
        let server_log = Log::default();
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let options = AttachOptions { app_workers: 2, ..AttachOptions::named("fragile") };
        let fragile = stack.attach(Fragile(place), options).unwrap();
        pass(&mut stack, Duration::from_secs(1));
        let attached =
            summary(&mut stack).apps.iter().find(|app| app.name == "fragile").unwrap().app_workers.len();
        assert_eq!(attached, if place == 0 { 0 } else { 2 });
        let report = stack.detach(fragile.app, DetachPolicy::Reset).unwrap();
        assert_eq!(report.app_workers.len(), attached);
        assert!(report.app_workers.iter().all(|unit| unit.panicked == (place == 1)), "{report:?}");
        finish(stack, &[&server], &[&server_log]);
    }
}

#[test]
fn a_panic_on_main_detaches_the_application() {
    for which in 0..3 {
        let mut stack = stack(2);
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let probe = Probe::new(&log, close_with_peer).on_main(move |_, event| {
            let panics = match which {
                0 => *event == Event::AppAttached,
                1 => matches!(event, Event::Cleaned(..)),
                _ => matches!(event, Event::Listening(..)),
            };
            assert!(!panics, "this one was to panic");
        });
        let client = attach(&mut stack, "client", probe);
        let _ = stack.connect(client.app_workers[0], to_server());
        let _ = stack.listen(client.app_workers[0], listen_on(Family::V4, 99));
        let mut apps = 2;
        for _ in 0..100 {
            pass(&mut stack, Duration::from_millis(100));
            apps = summary(&mut stack).apps.len();
            if apps == 1 {
                break;
            }
        }
        assert_eq!(apps, 1, "the client is gone, the server is not");
        assert_eq!(stack.connect(client.app_workers[0], to_server()), Err(ConnectError::Detached));
        assert_eq!(log.count(|event| *event == Event::Dropped), 2);
        finish(stack, &[&server], &[&server_log]);
    }
}

#[test]
fn an_app_that_commits_more_than_it_reserved_is_detached_and_nothing_else() {
    let client = |ctx: &mut Context<'_>, event: &Event| {
        if let Event::Connected(_, _, Ok(session)) = *event {
            let lent = ctx.reserve(session, 100).len();
            ctx.commit(session, lent + 1);
        }
    };
    let mut pair = Pair::on(stack(1), client, close_with_peer);
    pair.connect(to_server());
    pair.until(|client, _| client.count(|event| *event == Event::WorkerDetached(0)) == 1);
    pair.server_log.check(true);
    pair.stack.detach(pair.client.app, DetachPolicy::Reset).unwrap();
    pair.stack.detach(pair.server.app, DetachPolicy::Reset).unwrap();
    assert_clean(&mut pair.stack);
}

// ---- Timers and messages ----

#[test]
fn a_timer_goes_off_once_at_its_time_the_last_one_set() {
    let log = Log::default();
    let at = Arc::new(Mutex::new(Vec::new()));
    let times = at.clone();
    let mut stack = stack(1);
    let probe = Probe::new(&log, move |ctx, event| match *event {
        Event::Notified(_) => {
            ctx.set_timer(1, Duration::from_millis(30));
            ctx.set_timer(2, Duration::from_millis(10));
            ctx.set_timer(3, Duration::from_millis(20));
            ctx.set_timer(4, Duration::from_secs(3600));
            ctx.cancel_timer(3);
            // Later, then earlier.
            ctx.set_timer(1, Duration::from_millis(50));
            ctx.set_timer(2, Duration::from_millis(70));
            ctx.set_timer(2, Duration::from_millis(5));
            ctx.cancel_timer(99);
            ctx.set_timer(5, Duration::ZERO);
        }
        Event::Timer(token) => times.lock().push((token, ctx.now())),
        _ => {}
    });
    let app = attach(&mut stack, "app", probe);
    let began = stack.now();
    stack.notify(app.app_workers[0], WorkerId(0), Box::new(0u64)).unwrap();
    pass(&mut stack, Duration::from_secs(1));
    let fired = at.lock().clone();
    assert_eq!(fired.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [5, 2, 1]);
    for ((_, at), wanted) in fired.iter().zip([0, 5, 50]) {
        let took = *at - began;
        assert!(
            took >= Duration::from_millis(wanted) && took <= Duration::from_millis(wanted + 2),
            "{fired:?}"
        );
    }
    assert_eq!(summary(&mut stack).leaks.timers, 1);
    pass(&mut stack, Duration::from_secs(3600));
    assert_eq!(at.lock().len(), 4);
    finish(stack, &[&app], &[&log]);
}

#[test]
fn a_timer_set_in_its_own_callback_goes_off_again() {
    let log = Log::default();
    let mut stack = stack(2);
    let probe = Probe::new(&log, |ctx, event| {
        if matches!(event, Event::Attached | Event::Timer(_)) {
            ctx.set_timer(7, Duration::from_millis(100));
        }
    });
    let app = attach(&mut stack, "app", probe);
    pass(&mut stack, Duration::from_millis(1050));
    let ticks = log.count(|event| *event == Event::Timer(7));
    assert!((18..=20).contains(&ticks), "10 on each of 2 workers, {ticks}");
    finish(stack, &[&app], &[&log]);
}

// covers: G01
#[test]
fn messages_reach_the_object_they_are_for_in_order() {
    let log = Log::default();
    let mut stack = stack(3);
    let options = AttachOptions { app_workers: 2, ..AttachOptions::named("app") };
    let app = stack.attach(Probe::idle(&log), options).unwrap();
    for number in 0..100u64 {
        let (unit, worker) = (app.app_workers[(number % 2) as usize], WorkerId((number % 3) as u8));
        stack.notify(unit, worker, Box::new(number)).unwrap();
    }
    let notified = |event: &Event| matches!(event, Event::Notified(_));
    until(&mut stack, LONG, || log.count(notified) == 100);
    let mut last = std::collections::BTreeMap::new();
    for line in log.lines() {
        if let (Some(at), Event::Notified(number)) = (line.at, line.event) {
            assert_eq!(at, ((number % 2) as u32, WorkerId((number % 3) as u8)));
            assert!(last.insert(at, number) < Some(number), "in order");
        }
    }
    finish(stack, &[&app], &[&log]);
}

// ---- Announcements ----

// covers: H29
#[test]
fn every_session_and_half_open_can_be_looked_at() {
    let (stack, links) = impaired_stack(config(2), Impairments::default(), Impairments::default());
    let mut pair = Pair::on(stack, close_with_peer, close_with_peer);
    for opaque in 0..10 {
        pair.connect(ConnectOptions { opaque, ..to_server() });
    }
    pair.until(|client, server| client.cleaned() == 10 && server.accepted() == 10);
    links[0].set_link(LinkState::Cut);
    for opaque in 0..5 {
        pair.connect(ConnectOptions { opaque, ..to_server() });
    }
    pass(&mut pair.stack, Duration::from_secs(2));
    let answer = pair.stack.inspect(Query::sessions(7, false)).unwrap();
    assert_eq!(
        (answer.session_summary.total, answer.session_summary.open, answer.sessions.len()),
        (20, 20, 7)
    );
    assert!(answer.sessions.iter().all(|session| ["client/0", "server/0"].contains(&&*session.app_worker)));
    let answer = pair.stack.inspect(Query::half_opens(3)).unwrap();
    assert_eq!((answer.main.half_open_sessions, answer.half_opens.len()), (5, 3));
    for half_open in &answer.half_opens {
        assert_eq!((half_open.state.as_str(), half_open.app_worker.as_str()), ("connecting", "client/0"));
        assert_eq!(half_open.attempts, 2, "sent at 0 s and 1 s");
        assert!(half_open.age_us >= 2_000_000 && half_open.deadline_in_us <= 28_000_000);
    }
    pair.finish();
}
