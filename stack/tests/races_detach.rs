//! Detach, unlisten and names that are used again: at any moment, in any state, with packets and requests on their way.
//! `docs/races.md` has the ids.
// A guard that sends would hide what the arm does.
#![allow(clippy::collapsible_match)]

mod common;
mod races_peer;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, LinkState};
use hoststack::{Attached, EndHow, Query, SingleThreaded};
use hoststack_transport::Key;
use hoststack_wire::Flags;
use races_peer::{End, Peer};

const LONG: Duration = Duration::from_secs(600);
const LINGER: Duration = Duration::from_secs(2);

fn to(port: u16, opaque: u64) -> ConnectOptions {
    ConnectOptions { opaque, ..ConnectOptions::to(Family::V4.server(port)) }
}

// ---- Sessions in every state ----

/// How far a session's end has come when the detach begins. `Ours` is our FIN, `Theirs` the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Established,
    FinWait1,
    FinWait2,
    HalfClosedFinWait2,
    Closing,
    TimeWait,
    CloseWait,
    LastAck,
}

/// What the peer sends while the detach is under way, and again when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    Nothing,
    Ack,
    Fin,
    Data,
    Reset,
}

/// A session with a peer, brought to a state through segments; it detaches, closes and half-closes by message.
struct Ending {
    stack: SingleThreaded,
    peer: Peer,
    app: Attached,
    log: Log,
    end: End,
    session: SessionHandle,
}

const CLOSE: u64 = 1;
const HALF_CLOSE: u64 = 2;
const DETACH_RESET: u64 = 3;
const DETACH_CLOSE: u64 = 4;

impl Ending {
    fn new(workers: usize, state: State) -> Ending {
        let (mut stack, peer) = Peer::stack(config(workers));
        let log = Log::default();
        let session = std::sync::Arc::new(parking_lot::Mutex::new(None));
        let probe = Probe::new(&log, move |ctx, event| match *event {
            Event::Connected(_, _, Ok(connected)) => *session.lock() = Some(connected),
            Event::Notified(CLOSE) => ctx.close(session.lock().unwrap()),
            Event::Notified(HALF_CLOSE) => ctx.half_close(session.lock().unwrap()),
            Event::Notified(DETACH_RESET) => ctx.detach(DetachPolicy::Reset),
            Event::Notified(DETACH_CLOSE) => ctx.detach(DetachPolicy::Close { linger: LINGER }),
            _ => {}
        });
        let app = attach(&mut stack, "app", probe);
        let options = ConnectOptions { worker: Some(WorkerId(0)), ..ConnectOptions::to(Peer::at(80)) };
        stack.connect(app.app_workers[0], options).unwrap();
        let end = End::of_syn(&peer.take_syns(&mut stack, 1)[0]);
        peer.give(0, end.syn_ack());
        until(&mut stack, LONG, || log.cleaned() == 1);
        let session = log.sessions()[0];
        let mut ending = Ending { stack, peer, app, log, end, session };
        match state {
            State::Established => {}
            State::FinWait1 => ending.tell(CLOSE),
            State::FinWait2 | State::HalfClosedFinWait2 => {
                ending.tell(if state == State::FinWait2 { CLOSE } else { HALF_CLOSE });
                ending.gets(end.ack(0, 2));
            }
            State::Closing => {
                ending.tell(CLOSE);
                ending.gets(end.fin(0, b""));
            }
            State::TimeWait => {
                ending.tell(CLOSE);
                ending.gets(end.fin_acking(0, b"", 2));
            }
            State::CloseWait => ending.gets(end.fin(0, b"")),
            State::LastAck => {
                ending.gets(end.fin(0, b""));
                ending.tell(CLOSE);
            }
        }
        ending
    }

    fn tell(&mut self, message: u64) {
        self.stack.notify(self.app.app_workers[0], self.session.worker(), Box::new(message)).unwrap();
        self.settle();
    }

    fn gets(&mut self, packet: Vec<u8>) {
        self.peer.give(0, packet);
        self.settle();
    }

    fn settle(&mut self) {
        let _ = self.stack.settle();
        self.stack.check_consistency();
    }

    fn late(&self, state: State, late: Late, worker: usize) {
        // The peer's FIN, if it was sent, counts in its sequence.
        let sent =
            u32::from(matches!(state, State::Closing | State::TimeWait | State::CloseWait | State::LastAck));
        let packet = match late {
            Late::Nothing => return,
            Late::Ack => self.end.ack(sent, 2),
            Late::Fin => self.end.fin_acking(0, b"", 2),
            Late::Data => self.end.data(sent, b"late"),
            Late::Reset => self.end.reset(sent),
        };
        self.peer.give(worker, packet);
    }
}

/// Each state, each policy, each thing the peer may send before, in and after the detach's steps.
// covers: D01, D03, D07, N11, T01, T02, T03
#[test]
fn a_detach_in_any_state_of_a_session_ends_it_by_the_linger_whatever_the_peer_sends() {
    use State::{CloseWait, Closing, Established, FinWait1, FinWait2, HalfClosedFinWait2, LastAck, TimeWait};
    let states = [Established, FinWait1, FinWait2, HalfClosedFinWait2, Closing, TimeWait, CloseWait, LastAck];
    let lates = [Late::Nothing, Late::Ack, Late::Fin, Late::Data, Late::Reset];
    for (workers, state) in [1, 2].into_iter().flat_map(|workers| states.map(|state| (workers, state))) {
        for (late, policy) in
            lates.into_iter().flat_map(|late| [DETACH_RESET, DETACH_CLOSE].map(|p| (late, p)))
        {
            for gap in 0..4 {
                let mut ending = Ending::new(workers, state);
                let unit = ending.app.app_workers[0];
                let began = ending.stack.now();
                let worker = WorkerId((workers - 1) as u8);
                ending.stack.notify(unit, worker, Box::new(policy)).unwrap();
                for _ in 0..gap {
                    let _ = ending.stack.step();
                }
                ending.late(state, late, workers - 1);
                let log = ending.log.clone();
                until(&mut ending.stack, LONG, || log.count(|event| *event == Event::WorkerDetached(0)) == 1);
                let took = ending.stack.now() - began;
                let at = format!("{state:?}, {late:?} {gap} steps later, policy {policy}, {workers} workers");
                assert!(took <= LINGER + Duration::from_millis(10), "{at}: {took:?}");
                assert!(policy == DETACH_CLOSE || took.is_zero(), "{at}: {took:?}");
                let told = log.events().len();
                // It is over: what comes now is nobody's.
                ending.late(state, late, 0);
                ending.stack.end_session(ending.session, EndHow::Reset).unwrap();
                ending.stack.notify(unit, worker, Box::new(CLOSE)).unwrap();
                pass(&mut ending.stack, Duration::from_secs(1));
                assert_eq!(log.events().len(), told, "{at}: told after the detach");
                assert_eq!((log.closed(), summary(&mut ending.stack).leaks.sessions), (1, 0), "{at}");
                finish(ending.stack, &[&ending.app], &[&log]);
            }
        }
    }
}

// ---- Names that are used again ----

/// The names of an application that was detached.
struct Gone {
    app: Attached,
    connects: [ConnectId; 2],
    session: SessionHandle,
    listener: ListenerId,
    /// One that was up, one that was not.
    flows: [End; 2],
}

/// A detached app worker's slot, session slot and half-open slot serve others; its ids and packets find nothing.
// covers: D03, D08, D10, E08, H53, H54, H55, H65, H66, H69
#[test]
fn ids_and_packets_of_the_detached_do_not_reach_who_has_their_slots() {
    for workers in [1, 3] {
        let (mut stack, peer) = Peer::stack(config(workers));
        let on_zero =
            |opaque| ConnectOptions { worker: Some(WorkerId(0)), opaque, ..ConnectOptions::to(Peer::at(80)) };
        let mut gone: Vec<Gone> = Vec::new();
        for round in 0..4u64 {
            let log = Log::default();
            let probe = Probe::new(&log, |ctx, event| {
                if let Event::Notified(message) = *event {
                    // Someone else's ids, from inside a callback.
                    let session = SessionHandle::from_u64(message);
                    assert!(!ctx.is_live(session));
                    ctx.close(session);
                    ctx.reset(session);
                    ctx.cancel(ConnectId::from_u64(message));
                }
            });
            let app = attach(&mut stack, "app", probe);
            let unit = app.app_workers[0];
            let listener = stack.listen(unit, ListenOptions::on(Peer::stack_at(90))).unwrap();
            let up = stack.connect(unit, on_zero(1)).unwrap();
            let first = End::of_syn(&peer.take_syns(&mut stack, 1)[0]);
            peer.give(0, first.syn_ack());
            until(&mut stack, LONG, || log.up() == 1);
            let pending = stack.connect(unit, on_zero(2)).unwrap();
            let second = End::of_syn(&peer.take_syns(&mut stack, 1)[0]);
            let session = log.sessions()[0];
            let _ = stack.settle();
            peer.take();
            // All that is left of those before: their slots are ours, their ids are not.
            for old in &gone {
                let old_unit = old.app.app_workers[0];
                assert_eq!(old_unit.0.slot, unit.0.slot, "the slot is used again");
                assert_eq!(old.session.session().0.slot, session.session().0.slot);
                assert_eq!(old.listener.0.slot, listener.0.slot);
                assert_eq!(stack.connect(old_unit, on_zero(9)), Err(ConnectError::Detached));
                assert_eq!(
                    stack.listen(old_unit, ListenOptions::on(Peer::stack_at(91))),
                    Err(ListenError::Detached)
                );
                assert_eq!(stack.unlisten(old_unit, old.listener), Err(ListenError::NoListener));
                assert_eq!(stack.unlisten(unit, old.listener), Err(ListenError::NoListener));
                for connect in old.connects {
                    assert_eq!(stack.cancel(connect), Err(CancelError::NotPending));
                    stack.notify(unit, session.worker(), Box::new(connect.as_u64())).unwrap();
                }
                assert_eq!(stack.detach_worker(old_unit, DetachPolicy::Reset), Err(DetachError::NotAttached));
                assert_eq!(stack.detach(old.app.app, DetachPolicy::Reset), Err(DetachError::NotAttached));
                assert_eq!(stack.attach_worker(old.app.app), Err(AttachError::NoApplication));
                stack.end_session(old.session, EndHow::Reset).unwrap();
                stack.notify(old_unit, session.worker(), Box::new(0u64)).unwrap();
                stack.notify(unit, session.worker(), Box::new(old.session.as_u64())).unwrap();
                // Packets of its flows, late.
                peer.give(workers - 1, old.flows[1].syn_ack());
                peer.give(0, old.flows[1].refusal());
                peer.give(0, old.flows[0].data(0, b"late"));
                peer.give(0, old.flows[0].reset(0));
                peer.give(0, old.flows[0].fin(0, b""));
            }
            pass(&mut stack, Duration::from_millis(100));
            let told = log.outcomes();
            assert_eq!(told, [(1, Ok(()))], "round {round}");
            assert_eq!((log.closed(), log.count(|event| matches!(event, Event::Readable(_)))), (0, 0));
            assert_eq!(summary(&mut stack).main.half_open_sessions, 1);
            let report = stack.detach(app.app, DetachPolicy::Reset).unwrap();
            assert_eq!((report.outcomes().detached, report.outcomes().undelivered), (1, 0));
            log.check(true);
            gone.push(Gone { app, connects: [up, pending], session, listener, flows: [first, second] });
        }
        assert_clean(&mut stack);
    }
}

/// Numbers that were never anybody's, in every place that takes one.
// covers: H68, H69, N12
#[test]
fn made_up_ids_find_nothing_and_harm_nobody() {
    let mut stack = stack(2);
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::idle(&server_log), 80);
    let client = attach(&mut stack, "client", Probe::idle(&log));
    stack.connect(client.app_workers[0], to(80, 1)).unwrap();
    until(&mut stack, LONG, || log.cleaned() == 1 && server_log.accepted() == 1);
    let last = (1 << 28) - 1;
    for (slot, generation) in
        [(0, 99), (0, last), (1, 77), (7, 1), (last, last), (u32::MAX, u32::MAX), (last, 0)]
    {
        let key = Key { slot, generation };
        let (unit, app) = (AppWorkerId(key), AppId(key));
        assert_eq!(stack.connect(unit, to(80, 0)), Err(ConnectError::Detached));
        assert_eq!(stack.listen(unit, listen_on(Family::V4, 99)), Err(ListenError::Detached));
        assert_eq!(stack.unlisten(unit, ListenerId(key)), Err(ListenError::NoListener));
        assert_eq!(stack.unlisten(client.app_workers[0], ListenerId(key)), Err(ListenError::NoListener));
        assert_eq!(stack.attach_worker(app), Err(AttachError::NoApplication));
        assert_eq!(stack.detach(app, DetachPolicy::Reset), Err(DetachError::NotAttached));
        assert_eq!(stack.detach_worker(unit, DetachPolicy::Reset), Err(DetachError::NotAttached));
        for worker in [0, 1, 2, 255] {
            stack.notify(unit, WorkerId(worker), Box::new(0u64)).unwrap();
            let number =
                (u64::from(worker) << 56) | (u64::from(slot & last) << 28) | u64::from(generation & last);
            let is_real = log.sessions().iter().chain(&server_log.sessions()).any(|s| s.as_u64() == number);
            if !is_real {
                stack.end_session(SessionHandle::from_u64(number), EndHow::Reset).unwrap();
            }
            assert_eq!(stack.cancel(ConnectId::from_u64(number)), Err(CancelError::NotPending));
        }
    }
    pass(&mut stack, Duration::from_secs(1));
    assert_eq!((log.closed(), server_log.closed(), log.outcomes().len()), (0, 0, 1));
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

/// The last ACK of a handshake meets another app's listener in the place of the one that sent the SYN-ACK.
// covers: H53, N07
#[test]
fn a_handshake_of_a_listener_that_is_gone_is_not_finished_by_the_next_one() {
    for workers in [1, 3] {
        let (mut stack, peer) = Peer::stack(config(workers));
        let logs: [Log; 2] = Default::default();
        let apps = [0, 1].map(|n: usize| attach(&mut stack, ["a", "b"][n], Probe::idle(&logs[n])));
        let here = ListenOptions::on(Peer::stack_at(80));
        let old = stack.listen(apps[0].app_workers[0], here.clone()).unwrap();
        peer.give(0, End::syn_to(80, 5000));
        let _ = stack.settle();
        let end = End::of_syn_ack(&peer.take()[0]);
        stack.unlisten(apps[0].app_workers[0], old).unwrap();
        let new = stack.listen(apps[1].app_workers[0], here).unwrap();
        assert!(old != new && old.0.slot == new.0.slot, "the slot is used again");
        peer.give(workers - 1, end.ack(0, 1));
        peer.give(0, end.data(0, b"hello"));
        pass(&mut stack, Duration::from_secs(10));
        assert!(logs.iter().all(|log| log.accepted() == 0), "it was the other's handshake");
        assert!(peer.take().iter().all(|sent| sent.is(Flags::RST)), "the peer was told");
        finish(stack, &[&apps[0], &apps[1]], &[&logs[0], &logs[1]]);
    }
}

// ---- Listeners ----

/// Sessions outlive their listener and end with their app worker.
// covers: D02, H56, N07
#[test]
fn an_unlisten_at_any_step_leaves_sessions_whole_and_handshakes_reset() {
    let mut seen = (0, 0);
    for (workers, steps) in [1, 3].into_iter().flat_map(|workers| (0..10).map(move |steps| (workers, steps)))
    {
        let mut stack = stack(workers);
        let (log, server_log) = (Log::default(), Log::default());
        let server = attach(&mut stack, "server", Probe::echo(&server_log));
        let listener = stack.listen(server.app_workers[0], listen_on(Family::V4, 80)).unwrap();
        let streams = Streams::default();
        let ours = streams.clone();
        let client = attach(
            &mut stack,
            "client",
            Probe::new(&log, move |ctx, event| match *event {
                Event::Connected(_, _, Ok(session)) => _ = ours.send(ctx, session, 5000),
                Event::Readable(session) => _ = ours.receive(ctx, session, usize::MAX),
                _ => {}
            }),
        );
        for opaque in 0..10 {
            stack.connect(client.app_workers[0], to(80, opaque)).unwrap();
        }
        for _ in 0..steps {
            let _ = stack.step();
        }
        stack.unlisten(server.app_workers[0], listener).unwrap();
        until(&mut stack, LONG, || log.cleaned() == 10);
        pass(&mut stack, Duration::from_secs(5));
        // Told once each; those that were accepted have their echo, the others were cut off.
        server_log.check(false);
        log.check(false);
        let accepted = server_log.accepted();
        assert_eq!(log.up() - log.closed(), accepted, "after {steps} steps");
        assert_eq!(streams.all().iter().filter(|stream| stream.got == 5000).count(), accepted);
        assert_eq!(server_log.closed(), 0);
        seen.0 += accepted;
        seen.1 += 10 - accepted;
        let report = stack.detach(server.app, DetachPolicy::Reset).unwrap();
        assert_eq!((report.app_workers[0].sessions, report.app_workers[0].listeners), (accepted, 0));
        finish(stack, &[&client], &[&log, &server_log]);
    }
    assert!(seen.0 > 0 && seen.1 > 0, "both came to pass: {seen:?}");
}

/// What may happen to a handshake that the peer began; packets arrive on this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Ack(usize),
    AckAndAll(usize),
    Reset(usize),
    SynAgain(usize),
    Unlisten(u8),
    DetachReset(u8),
    DetachClose(u8),
    /// The SYN-ACK is due again.
    Second,
    /// It is given up.
    Minutes,
}

const ACTS: [Act; 13] = [
    Act::Ack(0),
    Act::Ack(1),
    Act::AckAndAll(0),
    Act::AckAndAll(1),
    Act::Reset(0),
    Act::Reset(1),
    Act::SynAgain(1),
    Act::Unlisten(0),
    Act::Unlisten(1),
    Act::DetachReset(1),
    Act::DetachClose(0),
    Act::Second,
    Act::Minutes,
];

const UNLISTEN: u64 = 5;

/// The matrix of the other side: one thing, then another so many steps later, and what the app does about a session.
// covers: D02, D07, H56, N07
#[test]
fn any_two_things_that_happen_to_a_handshake_are_told_once_or_never() {
    let behaviours: [fn(&mut Context<'_>, SessionHandle); 3] =
        [|_, _| {}, |ctx, session| ctx.close(session), |ctx, session| ctx.reset(session)];
    let (mut up, mut never) = (0, 0);
    for workers in [1, 3] {
        for (first, second) in ACTS.into_iter().flat_map(|first| ACTS.map(|second| (first, second))) {
            for (gap, behaviour) in (0..3).flat_map(|gap| behaviours.map(|behaviour| (gap, behaviour))) {
                let (mut stack, peer) = Peer::stack(config(workers));
                let log = Log::default();
                let listener = std::sync::Arc::new(parking_lot::Mutex::new(None));
                let ours = listener.clone();
                let probe = Probe::new(&log, move |ctx, event| match *event {
                    Event::Accepted(session) => behaviour(ctx, session),
                    Event::Notified(UNLISTEN) => ctx.unlisten(ours.lock().unwrap()),
                    Event::Notified(DETACH_RESET) => ctx.detach(DetachPolicy::Reset),
                    Event::Notified(DETACH_CLOSE) => ctx.detach(DetachPolicy::Close { linger: LINGER }),
                    _ => {}
                });
                let app = attach(&mut stack, "app", probe);
                let unit = app.app_workers[0];
                *listener.lock() = Some(stack.listen(unit, ListenOptions::on(Peer::stack_at(80))).unwrap());
                peer.give(0, End::syn_to(80, 5000));
                let _ = stack.settle();
                let end = End::of_syn_ack(&peer.take()[0]);
                let does = |stack: &mut SingleThreaded, act: Act| {
                    let tell = |stack: &mut SingleThreaded, worker: u8, message: u64| {
                        stack.notify(unit, WorkerId(worker % workers as u8), Box::new(message)).unwrap();
                    };
                    match act {
                        Act::Ack(worker) => peer.give(worker, end.ack(0, 1)),
                        Act::AckAndAll(worker) => {
                            peer.give(worker, end.ack(0, 1));
                            peer.give(worker, end.data(0, b"hello"));
                            peer.give(worker, end.fin(5, b""));
                        }
                        Act::Reset(worker) => peer.give(worker, end.reset(0)),
                        Act::SynAgain(worker) => peer.give(worker, end.syn()),
                        Act::Unlisten(worker) => tell(stack, worker, UNLISTEN),
                        Act::DetachReset(worker) => tell(stack, worker, DETACH_RESET),
                        Act::DetachClose(worker) => tell(stack, worker, DETACH_CLOSE),
                        Act::Second => stack.advance(Duration::from_secs(1)),
                        Act::Minutes => stack.advance(Duration::from_secs(100)),
                    }
                };
                does(&mut stack, first);
                for _ in 0..gap {
                    let _ = stack.step();
                    stack.check_consistency();
                }
                does(&mut stack, second);
                pass(&mut stack, Duration::from_secs(40));
                let at = format!("{first:?}, {second:?} {gap} steps later, {workers} workers");
                assert!(log.accepted() <= 1, "{at}: {:?}", log.events());
                up += log.accepted();
                never += 1 - log.accepted();
                finish(stack, &[&app], &[&log]);
            }
        }
    }
    assert!(up > 100 && never > 100, "both came to pass: {up} and {never}");
}

// ---- Detach before and behind other requests ----

/// Detached in the callback that says it is attached: no worker has heard of it.
// covers: D04
#[test]
fn an_application_is_detached_before_its_workers_know_it() {
    for (workers, one_by_one) in [(1, false), (3, false), (1, true), (3, true)] {
        let mut stack = stack(workers);
        let log = Log::default();
        let probe = Probe::new(&log, |ctx, event| {
            if *event == Event::Attached {
                let _ = ctx.connect(to(80, 0));
                let _ = ctx.listen(listen_on(Family::V4, 99));
            }
        })
        .on_main(move |ctx, event| {
            if *event == Event::AppAttached {
                ctx.connect(ctx.app_workers()[0], to(80, 1)).unwrap();
                ctx.listen(ctx.app_workers()[1], listen_on(Family::V4, 98)).unwrap();
                if one_by_one {
                    ctx.detach_worker(ctx.app_workers()[1], DetachPolicy::default());
                    ctx.detach_worker(ctx.app_workers()[0], DetachPolicy::Reset);
                }
                ctx.detach(DetachPolicy::Reset);
            }
        });
        let options = AttachOptions { app_workers: 2, ..AttachOptions::named("brief") };
        let app = stack.attach(probe, options).unwrap();
        until(&mut stack, LONG, || log.count(|event| *event == Event::AppDetached) == 1);
        assert_eq!(log.count(|event| *event == Event::Attached), 2 * workers);
        assert_eq!(log.count(|event| *event == Event::Dropped), 2 * workers);
        assert!(
            log.outcomes().iter().all(|(_, outcome)| *outcome == Err(ConnectFailure::Detached)),
            "{:?}",
            log.outcomes()
        );
        assert_eq!(stack.detach(app.app, DetachPolicy::Reset), Err(DetachError::NotAttached));
        finish(stack, &[], &[&log]);
    }
}

/// Main's callbacks during a detach ask for more: what is taken gets its outcome, what cannot is refused.
// covers: D08, H51
#[test]
fn a_connect_on_main_for_an_app_worker_that_is_being_detached_is_refused_or_told() {
    for workers in [1, 2] {
        let (mut stack, links) =
            impaired_stack(config(workers), Impairments::default(), Impairments::default());
        links[0].set_link(LinkState::Cut);
        let (log, taken) = (Log::default(), Counter::default());
        let count = taken.clone();
        let probe = Probe::new(&log, |_, _| {}).on_main(move |ctx, event| {
            if let Event::Cleaned(_, opaque) = *event
                && opaque < 5
                && let Some(&unit) = ctx.app_workers().first()
                && ctx.connect(unit, to(80, opaque + 1)).is_ok()
            {
                count.add(1);
            }
        });
        let client = attach(&mut stack, "client", probe);
        stack.connect(client.app_workers[0], to(80, 0)).unwrap();
        pass(&mut stack, Duration::from_millis(10));
        let report = stack.detach(client.app, DetachPolicy::Reset).unwrap();
        assert_eq!(report.outcomes().undelivered, 0);
        assert_eq!(log.outcomes().len() as u64, 1 + taken.value());
        finish(stack, &[], &[&log]);
    }
}

/// Requests of a worker behind its own detach, in one callback; and an app worker that another one detaches.
// covers: H51, H60
#[test]
fn requests_behind_a_detach_have_their_end_too() {
    for policy in [DetachPolicy::Reset, DetachPolicy::Close { linger: LINGER }] {
        for workers in [1, 3] {
            let mut stack = stack(workers);
            let log = Log::default();
            let probe = Probe::new(&log, move |ctx, event| {
                if let Event::Notified(_) = *event {
                    ctx.detach(policy);
                    for opaque in 0..20 {
                        let connect = ctx.connect(to(81, opaque)).unwrap();
                        if opaque % 3 == 0 {
                            ctx.cancel(connect);
                        }
                    }
                    ctx.listen(listen_on(Family::V4, 90)).unwrap();
                    ctx.detach(policy);
                }
            });
            let app = attach(&mut stack, "app", probe);
            let worker = WorkerId((workers - 1) as u8);
            stack.notify(app.app_workers[0], worker, Box::new(0u64)).unwrap();
            until(&mut stack, LONG, || log.count(|event| *event == Event::WorkerDetached(0)) == 1);
            let outcomes = log.outcomes();
            assert_eq!(outcomes.len(), 20);
            assert!(
                outcomes.iter().all(|(_, outcome)| *outcome == Err(ConnectFailure::Detached)),
                "{outcomes:?}"
            );
            assert_eq!(log.count(|event| matches!(event, Event::Listening(_, Err(_)))), 1);
            let half_opens = stack.inspect(Query::half_opens(9)).unwrap();
            assert_eq!((half_opens.half_opens.len(), half_opens.main.tickets_dropped), (0, 0));
            finish(stack, &[&app], &[&log]);
        }
    }
}
