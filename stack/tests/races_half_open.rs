//! Half-opens and connects: any two things that can happen to a connect, in any order and on any workers, give it one
//! outcome; nothing overtakes, nothing is lost, nothing starves, nothing stays behind. `docs/races.md` has the ids.
// A guard that sends would hide what the arm does.
#![allow(clippy::collapsible_match)]

mod common;
mod races_peer;

use std::collections::BTreeMap;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, LinkState, MemoryWireConfig};
use hoststack::{Attached, Query, SingleThreaded, StackConfig};
use hoststack_transport::Rng;
use hoststack_wire::Flags;
use races_peer::{End, Peer, Sent};

const LONG: Duration = Duration::from_secs(600);

fn to(port: u16, opaque: u64) -> ConnectOptions {
    ConnectOptions { opaque, ..ConnectOptions::to(Family::V4.server(port)) }
}

/// What a message tells the app of these tests to do: cancel a connect, or one of these.
const DETACH_RESET: u64 = u64::MAX;
const DETACH_CLOSE: u64 = u64::MAX - 1;

fn on_message(ctx: &mut Context<'_>, event: &Event) {
    match *event {
        Event::Notified(DETACH_RESET) => ctx.detach(DetachPolicy::Reset),
        Event::Notified(DETACH_CLOSE) => ctx.detach(DetachPolicy::Close { linger: Duration::from_secs(2) }),
        Event::Notified(connect) => ctx.cancel(ConnectId::from_u64(connect)),
        _ => {}
    }
}

/// What may happen to a connect. Packets arrive on the worker of the flow (0) or on another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// The peer opens as well: the ticket goes to the worker while the outcome is open.
    Syn(usize),
    SynAck(usize),
    /// The SYN-ACK, bytes and a FIN, in one step.
    SynAckAndAll(usize),
    Refusal(usize),
    /// A reset of what the SYN-ACK made.
    Reset(usize),
    Unreachable(usize),
    /// The app asks on this worker.
    Cancel(u8),
    DetachReset(u8),
    DetachClose(u8),
    /// The SYN is due again.
    Second,
    Deadline,
}

const ACTS: [Act; 17] = [
    Act::Syn(0),
    Act::Syn(1),
    Act::SynAck(0),
    Act::SynAck(1),
    Act::SynAckAndAll(0),
    Act::SynAckAndAll(1),
    Act::Refusal(0),
    Act::Refusal(1),
    Act::Reset(0),
    Act::Reset(1),
    Act::Unreachable(1),
    Act::Cancel(0),
    Act::Cancel(1),
    Act::DetachReset(1),
    Act::DetachClose(0),
    Act::Second,
    Act::Deadline,
];

/// A connect whose SYN has left.
struct Attempt {
    stack: SingleThreaded,
    peer: Peer,
    client: Attached,
    connect: ConnectId,
    syn: Sent,
    end: End,
}

impl Attempt {
    fn new(workers: usize, probe: Probe) -> Attempt {
        Attempt::on(config(workers), probe)
    }

    fn on(config: StackConfig, probe: Probe) -> Attempt {
        let (mut stack, peer) = Peer::stack(config);
        let client = attach(&mut stack, "client", probe);
        let options = ConnectOptions { worker: Some(WorkerId(0)), ..to(80, 7) };
        let connect = stack.connect(client.app_workers[0], options).unwrap();
        let syn = peer.take_syns(&mut stack, 1).remove(0);
        Attempt { stack, peer, client, connect, end: End::of_syn(&syn), syn }
    }

    fn does(&mut self, act: Act) {
        let Attempt { stack, peer, client, connect, syn, end } = self;
        let workers = stack.handle().workers() as u8;
        let mut tell = |worker: u8, message: u64| {
            let worker = WorkerId(worker % workers);
            stack.notify(client.app_workers[0], worker, Box::new(message)).unwrap();
        };
        match act {
            Act::Syn(worker) => peer.give(worker, end.syn()),
            Act::SynAck(worker) => peer.give(worker, end.syn_ack()),
            Act::SynAckAndAll(worker) => {
                peer.give(worker, end.syn_ack());
                peer.give(worker, end.data(0, b"hello"));
                peer.give(worker, end.fin(5, b""));
            }
            Act::Refusal(worker) => peer.give(worker, end.refusal()),
            Act::Reset(worker) => peer.give(worker, end.reset(0)),
            Act::Unreachable(worker) => peer.give(worker, end.unreachable(syn)),
            Act::Cancel(worker) => tell(worker, connect.as_u64()),
            Act::DetachReset(worker) => tell(worker, DETACH_RESET),
            Act::DetachClose(worker) => tell(worker, DETACH_CLOSE),
            Act::Second => stack.advance(Duration::from_secs(1)),
            Act::Deadline => stack.advance(Duration::from_secs(30)),
        }
    }
}

/// The matrix: one thing, then another so many steps later (0: in the same step), and what the app does about it.
// covers: E10, H01, H02, H04, H07, H27, H39, H41, H42, H50, H62, H64, H66
#[test]
fn any_two_things_that_happen_to_a_connect_give_it_one_outcome() {
    let behaviours: [fn(&mut Context<'_>, SessionHandle); 3] =
        [|_, _| {}, |ctx, session| ctx.close(session), |ctx, session| ctx.reset(session)];
    let mut seen = BTreeMap::new();
    for workers in [1, 3] {
        for (first, second) in ACTS.into_iter().flat_map(|first| ACTS.map(|second| (first, second))) {
            for (gap, behaviour) in (0..4).flat_map(|gap| behaviours.map(|behaviour| (gap, behaviour))) {
                let log = Log::default();
                let probe = Probe::new(&log, move |ctx, event| {
                    on_message(ctx, event);
                    if let Event::Connected(_, _, Ok(session)) = *event {
                        behaviour(ctx, session);
                    }
                });
                let mut attempt = Attempt::new(workers, probe);
                attempt.does(first);
                for _ in 0..gap {
                    let _ = attempt.stack.step();
                    attempt.stack.check_consistency();
                }
                attempt.does(second);
                let Attempt { mut stack, client, .. } = attempt;
                pass(&mut stack, Duration::from_secs(40));
                let at = format!("{first:?}, {second:?} {gap} steps later, {workers} workers");
                let outcomes = log.outcomes();
                assert_eq!(outcomes.len(), 1, "{at}: {:?}", log.events());
                assert_eq!(log.cleaned(), 1, "{at}");
                *seen.entry(outcomes[0].1).or_insert(0) += 1;
                finish(stack, &[&client], &[&log]);
            }
        }
    }
    use ConnectFailure::{Cancelled, Detached, Refused, TimedOut, Unreachable};
    let wanted = [Ok(()), Err(Refused), Err(TimedOut), Err(Unreachable), Err(Cancelled), Err(Detached)];
    assert!(wanted.iter().all(|outcome| seen.contains_key(outcome)), "{seen:?}");
}

/// Longer stories, drawn from a seed: up to eight things, a few steps apart, to three connects at once.
// covers: H39, H50, H62, H66
#[test]
fn any_handful_of_things_that_happen_to_connects_gives_each_one_outcome() {
    for seed in 0..1500 {
        let mut rng = Rng::from_seed(seed);
        let mut below = |end: u64| rng.u64() % end;
        let config = StackConfig {
            parked_max: [0, 1, 4096][below(3) as usize],
            channel_batches: [1, 64][below(2) as usize],
            rx_burst_max: [1, 256][below(2) as usize],
            // Time jumps here without a step: no worker hangs because of that.
            detach_grace: Duration::from_secs(3600),
            ..config(1 + below(3) as usize)
        };
        let log = Log::default();
        let end = below(4);
        let probe = Probe::new(&log, move |ctx, event| {
            on_message(ctx, event);
            match *event {
                Event::Connected(_, _, Ok(session)) if end == 0 => ctx.close(session),
                Event::Connected(_, _, Ok(session)) if end == 1 => ctx.reset(session),
                Event::Connected(_, _, Ok(session)) if end == 2 => _ = ctx.write(session, b"hello"),
                Event::PeerClosed(session) => ctx.close(session),
                _ => {}
            }
        });
        let mut attempt = Attempt::on(config, probe);
        let mut ids = vec![(attempt.connect, attempt.syn.clone(), attempt.end)];
        for _ in 0..2 {
            let connect = attempt.stack.connect(attempt.client.app_workers[0], to(80, 7)).unwrap();
            let syn = attempt.peer.take_syns(&mut attempt.stack, 1).remove(0);
            ids.push((connect, syn.clone(), End::of_syn(&syn)));
        }
        for _ in 0..2 + below(7) {
            (attempt.connect, attempt.syn, attempt.end) = ids[below(3) as usize].clone();
            attempt.does(ACTS[below(ACTS.len() as u64) as usize]);
            for _ in 0..below(4) {
                let _ = attempt.stack.step();
                attempt.stack.check_consistency();
            }
        }
        let Attempt { mut stack, client, .. } = attempt;
        pass(&mut stack, Duration::from_secs(40));
        assert_eq!((log.outcomes().len(), log.cleaned()), (3, 3), "seed {seed}: {:?}", log.events());
        finish(stack, &[&client], &[&log]);
    }
}

// covers: H01, H62
#[test]
fn a_syn_ack_that_two_workers_get_in_one_step_makes_one_session() {
    for workers in [2, 4] {
        for (first, second) in (0..workers).flat_map(|a| (0..workers).map(move |b| (a, b))) {
            let log = Log::default();
            let mut attempt = Attempt::new(workers, Probe::new(&log, on_message));
            for worker in [first, second, first] {
                attempt.does(Act::SynAck(worker));
            }
            let Attempt { mut stack, client, .. } = attempt;
            until(&mut stack, LONG, || log.cleaned() == 1);
            assert_eq!(log.outcomes(), [(7, Ok(()))]);
            assert_eq!(log.sessions()[0].worker(), WorkerId(0), "whoever got the answer");
            pass(&mut stack, Duration::from_secs(5));
            let answer = summary(&mut stack);
            assert_eq!((answer.leaks.sessions, answer.leaks.half_opens, answer.main.tuples), (1, 0, 1));
            finish(stack, &[&client], &[&log]);
        }
    }
}

/// The half-open goes with its outcome, not with the timer of its SYN.
// covers: H71
#[test]
fn a_half_open_is_gone_some_steps_after_its_answer() {
    for (workers, answer) in [(1, Act::SynAck(0)), (3, Act::SynAck(1)), (3, Act::Refusal(2))] {
        let log = Log::default();
        let mut attempt = Attempt::new(workers, Probe::new(&log, on_message));
        let began = attempt.stack.now();
        attempt.does(answer);
        let mut steps = 0;
        while log.cleaned() == 0 {
            let _ = attempt.stack.step();
            steps += 1;
            assert!(steps < 10, "{steps} steps");
        }
        assert_eq!(attempt.stack.now(), began);
        let main = summary(&mut attempt.stack).main;
        assert_eq!((main.half_open_sessions, main.half_open_connections), (0, 0));
        finish(attempt.stack, &[&attempt.client], &[&log]);
    }
}

/// RFC 9293 §3.10.5: an abort in SYN-SENT sends nothing. What answers the SYN afterwards finds no flow.
// covers: H02, H27, H50
#[test]
fn a_cancel_in_syn_sent_sends_nothing_and_leaves_the_baseline_at_once() {
    for workers in [1, 3] {
        let log = Log::default();
        let mut attempt = Attempt::new(workers, Probe::new(&log, on_message));
        attempt.does(Act::Cancel(1));
        let Attempt { mut stack, peer, client, connect, end, .. } = attempt;
        until(&mut stack, LONG, || log.cleaned() == 1);
        assert_eq!(log.outcomes(), [(7, Err(ConnectFailure::Cancelled))]);
        let answer = summary(&mut stack);
        assert!(answer.leaks.is_clean(), "{:?}", answer.leaks);
        assert_eq!(answer.main.tuples, 0);
        assert_eq!(peer.take().len(), 0, "no reset, no SYN");
        // The answer is late: another flow of the same slot must not get it.
        let next =
            stack.connect(client.app_workers[0], ConnectOptions { worker: Some(WorkerId(0)), ..to(80, 8) });
        let syn = peer.take_syns(&mut stack, 1).remove(0);
        peer.give(1, end.syn_ack());
        pass(&mut stack, Duration::from_millis(900));
        let sent = peer.take();
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert!(sent[0].is(Flags::RST) && end.has(&sent[0]), "{sent:?}");
        assert_eq!(log.outcomes().len(), 1);
        assert_eq!(stack.cancel(connect), Err(CancelError::NotPending));
        peer.give(0, End::of_syn(&syn).syn_ack());
        until(&mut stack, LONG, || log.cleaned() == 2);
        assert_eq!(log.outcomes()[1], (8, Ok(())), "{next:?} is another request");
        finish(stack, &[&client], &[&log]);
    }
}

// covers: H02
#[test]
fn a_connect_that_waits_for_a_neighbour_is_cancelled_to_the_baseline() {
    for family in FAMILIES {
        let mac = |last| hoststack_wire::MacAddr([2, 0, 0, 0, 0, last]);
        let wire = MemoryWireConfig { macs: Some([mac(1), mac(2)]), ..MemoryWireConfig::default() };
        let mut stack = stack_of(config(2), wire);
        let log = Log::default();
        let client = attach(&mut stack, "client", Probe::new(&log, on_message));
        let options = ConnectOptions::to(family.nobody());
        let connects: Vec<ConnectId> =
            (0..5).map(|_| stack.connect(client.app_workers[0], options.clone()).unwrap()).collect();
        pass(&mut stack, Duration::from_millis(500));
        let main = summary(&mut stack).main;
        assert_eq!((main.half_open_sessions, main.half_open_connections), (5, 0), "not a SYN yet");
        for &connect in &connects[..4] {
            stack.cancel(connect).unwrap();
        }
        until(&mut stack, LONG, || log.cleaned() == 4);
        assert!(log.outcomes().iter().all(|(_, outcome)| *outcome == Err(ConnectFailure::Cancelled)));
        let report = stack.detach(client.app, DetachPolicy::Reset).unwrap();
        assert_eq!((report.outcomes().detached, report.app_workers[0].half_opens), (1, 1));
        let answer = summary(&mut stack);
        assert!(answer.leaks.is_clean(), "{:?}", answer.leaks);
        // The neighbour's answer, or its silence, finds nobody who waits.
        pass(&mut stack, Duration::from_secs(5));
        finish(stack, &[], &[&log]);
    }
}

/// Each number of half-opens, each with a port of its own: all go, and all ports come back at once.
// covers: H05, H07, H63, H67
#[test]
fn a_detach_with_any_number_of_half_opens_frees_them_all_and_their_ports() {
    for count in 0..12u16 {
        let (mut stack, links) = impaired_stack(config(3), Impairments::default(), Impairments::default());
        links[0].set_link(LinkState::Cut);
        let (log, other_log) = (Log::default(), Log::default());
        let options = AttachOptions { app_workers: 2, ..AttachOptions::named("client") };
        let client = stack.attach(Probe::new(&log, on_message), options).unwrap();
        let other = attach(&mut stack, "other", Probe::new(&other_log, on_message));
        let with_port = |port| ConnectOptions { local_port: port, ..to(80, u64::from(port)) };
        for number in 0..count {
            stack.connect(client.app_workers[0], with_port(4000 + number)).unwrap();
            stack.connect(client.app_workers[1], with_port(6000 + number)).unwrap();
        }
        pass(&mut stack, Duration::from_millis(10));
        let k = usize::from(count);
        assert_eq!(summary(&mut stack).main.tuples, 2 * k);
        let report = stack.detach_worker(client.app_workers[0], DetachPolicy::Reset).unwrap();
        assert_eq!(
            (report.half_opens, report.outcomes.detached, report.outcomes.cleaned as usize),
            (k, k as u64, k)
        );
        let answer = summary(&mut stack);
        assert_eq!((answer.leaks.half_opens, answer.leaks.timers, answer.main.tuples), (k, k, k));
        assert_eq!(answer.workers.iter().map(|worker| worker.half_open_entries).sum::<usize>(), k);
        // The ports serve another at once; those of the other app worker are taken.
        links[0].set_link(LinkState::Healed);
        for number in 0..count {
            stack.connect(other.app_workers[0], with_port(4000 + number)).unwrap();
            stack.connect(other.app_workers[0], with_port(6000 + number)).unwrap();
        }
        until(&mut stack, LONG, || other_log.cleaned() == 2 * k && log.cleaned() == 2 * k);
        for (port, outcome) in other_log.outcomes() {
            let wanted = if port < 6000 { ConnectFailure::Refused } else { ConnectFailure::AddressInUse };
            assert_eq!(outcome, Err(wanted), "port {port}");
        }
        finish(stack, &[&client, &other], &[&log, &other_log]);
    }
}

// covers: H11
#[test]
fn a_connect_takes_a_handful_of_steps() {
    for workers in [1, 2, 4] {
        for family in FAMILIES {
            let mut stack = stack(workers);
            let (log, server_log) = (Log::default(), Log::default());
            let server = serve(&mut stack, Probe::idle(&server_log), 80);
            let client = attach(&mut stack, "client", Probe::new(&log, on_message));
            let _ = stack.settle();
            stack.connect(client.app_workers[0], ConnectOptions::to(family.server(80))).unwrap();
            let mut steps = 0;
            while log.up() == 0 {
                let _ = stack.step();
                steps += 1;
                assert!(steps <= 5, "request, SYN, SYN-ACK, hand-over: {steps} steps");
            }
            finish(stack, &[&client, &server], &[&log, &server_log]);
        }
    }
}

/// A crowd of 100 000 connects at once, on a stack of two workers.
struct Crowd {
    stack: SingleThreaded,
    apps: Vec<Attached>,
    logs: Vec<Log>,
    settled: Counter,
    up: Counter,
}

impl Crowd {
    const SIZE: u64 = 100_000;

    fn new() -> Crowd {
        let wire = MemoryWireConfig { ring_packets: 4096, ..MemoryWireConfig::default() };
        let mut stack = stack_of(config(2), wire);
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::new(&server_log, echo), 80);
        // Four ports for the crowd, which has more connects under way than there are ports for one; deep backlogs, so
        // that no SYN waits for its retransmission.
        for port in 90..94 {
            let options = ListenOptions { backlog: 1 << 16, ..listen_on(Family::V4, port) };
            stack.listen(server.app_workers[0], options).unwrap();
        }
        let (settled, up) = (Counter::default(), Counter::default());
        let (done, met) = (settled.clone(), up.clone());
        let probe = Probe::new(&log, move |ctx, event| {
            if let Event::Connected(_, _, outcome) = *event {
                done.add(1);
                if let Ok(session) = outcome {
                    met.add(1);
                    ctx.reset(session);
                }
            }
        });
        let crowd = attach(&mut stack, "crowd", probe);
        Crowd { stack, apps: vec![crowd, server], logs: vec![log, server_log], settled, up }
    }

    fn attach(
        &mut self,
        name: &str,
        does: impl Fn(&mut Context<'_>, &Event) + Send + Sync + 'static,
    ) -> AppWorkerId {
        let log = Log::default();
        let app = attach(&mut self.stack, name, Probe::new(&log, does));
        self.logs.push(log);
        self.apps.push(app);
        self.apps[self.apps.len() - 1].app_workers[0]
    }

    fn storms(&mut self) {
        for opaque in 0..Crowd::SIZE {
            let options = to(90 + (opaque % 4) as u16, opaque);
            self.stack.connect(self.apps[0].app_workers[0], options).unwrap();
        }
    }

    /// Steps until all are settled; says in how many steps, and the most steps that `progress` stood still.
    fn settles(&mut self, progress: &Counter) -> (u64, u64) {
        let (mut steps, mut longest, mut last) = (0, 0, (0, progress.value()));
        while self.settled.value() < Crowd::SIZE {
            let _ = self.stack.step();
            steps += 1;
            if progress.value() > last.1 {
                last = (steps, progress.value());
            }
            longest = longest.max(steps - last.0);
            assert!(steps < 1000, "{} of {} after {steps} steps", self.settled.value(), Crowd::SIZE);
        }
        (steps, longest)
    }

    fn finish(self) {
        let apps: Vec<&Attached> = self.apps.iter().collect();
        finish(self.stack, &apps, &self.logs.iter().collect::<Vec<_>>());
    }
}

/// Requests are served in their order, so one in the middle of a storm waits for those before it, and not longer.
// covers: H11, H23
#[test]
fn a_hundred_thousand_connects_come_up_and_one_among_them_is_not_forgotten() {
    let mut crowd = Crowd::new();
    let others = Counter::default();
    let count = others.clone();
    // Connects, ends the session, connects again: on a worker, not through the crowd's queue of requests.
    let other = crowd.attach("other", move |ctx, event| match *event {
        Event::Notified(_) => _ = ctx.connect(to(80, 0)).unwrap(),
        Event::Connected(_, _, Ok(session)) => ctx.reset(session),
        Event::Closed(..) => {
            count.add(1);
            let _ = ctx.connect(to(80, 0));
        }
        _ => {}
    });
    crowd.stack.notify(other, WorkerId(1), Box::new(0u64)).unwrap();
    while others.value() < 3 {
        let _ = crowd.stack.step();
    }
    let (began, before) = (crowd.stack.now(), others.value());
    crowd.storms();
    let (steps, longest) = crowd.settles(&others);
    assert_eq!((crowd.up.value(), crowd.stack.now()), (Crowd::SIZE, began), "no retransmission was needed");
    assert!(
        others.value() > before && longest < steps,
        "{longest} of {steps} steps without a connect of the other's"
    );
    crowd.finish();
}

// covers: H11
#[test]
fn sessions_go_on_while_a_hundred_thousand_connects_are_made() {
    let mut crowd = Crowd::new();
    let rounds = Counter::default();
    let count = rounds.clone();
    // One byte to and fro.
    let echoing = crowd.attach("echoing", move |ctx, event| match *event {
        Event::Notified(_) => _ = ctx.connect(to(80, 0)).unwrap(),
        Event::Connected(_, _, Ok(session)) => _ = ctx.write(session, b"x"),
        Event::Readable(session) => {
            drain(ctx, session);
            count.add(1);
            ctx.write(session, b"x");
        }
        _ => {}
    });
    crowd.stack.notify(echoing, WorkerId(1), Box::new(0u64)).unwrap();
    while rounds.value() < 3 {
        let _ = crowd.stack.step();
    }
    crowd.storms();
    let (steps, longest) = crowd.settles(&rounds);
    // A ring of 4096 packets that others filled takes 16 steps of 256 to empty, to and fro.
    assert!(longest <= 40, "{longest} of {steps} steps without an echo");
    crowd.finish();
}

/// An app that connects again whenever a connect fails, at once and for ever: a step ends all the same, others go on,
/// and it can be detached.
// covers: H03, H12, H32, H33, H42, H48
#[test]
fn an_app_that_connects_in_every_failure_keeps_nobody_in_a_step() {
    for on_main in [false, true] {
        let mut stack = stack(2);
        let (log, other_log, server_log) = (Log::default(), Log::default(), Log::default());
        let server = serve(&mut stack, Probe::echo(&server_log), 80);
        let other = attach(&mut stack, "other", Probe::new(&other_log, on_message));
        let _ = stack.settle();
        let nowhere = || ConnectOptions::to(Family::V4.nowhere());
        let failed = Counter::default();
        let count = failed.clone();
        let probe = Probe::new(&log, move |ctx, event| match *event {
            Event::Attached => _ = ctx.connect(nowhere()).unwrap(),
            Event::Connected(connect, _, outcome) => {
                let reason = outcome.unwrap_err();
                assert!(
                    matches!(reason, ConnectFailure::Unreachable | ConnectFailure::Detached),
                    "{reason:?}"
                );
                count.add(1);
                // Its own request, in its own failing callback.
                ctx.cancel(connect);
                if !on_main {
                    let taken = ctx.connect(nowhere());
                    assert!(matches!(taken, Ok(_) | Err(ConnectError::Detached)), "{taken:?}");
                }
            }
            _ => {}
        })
        .on_main(move |ctx, event| {
            if let Event::Cleaned(connect, _) = *event {
                ctx.cancel(connect);
                // Not one that is being detached.
                if let Some(&unit) = ctx.app_workers().first().filter(|_| on_main) {
                    ctx.connect(unit, nowhere()).unwrap();
                }
            }
        });
        let options = AttachOptions { app_workers: 2, ..AttachOptions::named("restless") };
        let restless = stack.attach(probe, options).unwrap();
        stack.connect(other.app_workers[0], to(80, 1)).unwrap();
        let mut before = failed.value();
        for _ in 0..200 {
            let _ = stack.step();
            let told = failed.value() - before;
            assert!(
                told <= 4,
                "{told} connects failed in one step: two app workers on two workers made four"
            );
            before = failed.value();
        }
        assert!(before > 100, "it goes on: {before}");
        assert_eq!(other_log.up(), 1);
        assert!(log.outcomes().iter().all(|(_, outcome)| *outcome == Err(ConnectFailure::Unreachable)));
        // One app worker at a time: the other one goes on while the first is detached.
        for &unit in &restless.app_workers {
            if !on_main {
                let report = stack.detach_worker(unit, DetachPolicy::Reset).unwrap();
                assert_eq!(
                    (report.outcomes.requested, report.outcomes.undelivered),
                    (report.outcomes.cleaned, 0)
                );
            }
        }
        finish(stack, &[&restless, &other, &server], &[&log, &other_log, &server_log]);
    }
}

/// Listen, connect: the connect finds the listener. Unlisten, connect: it does not. From a worker and from main.
// covers: H17, H24
#[test]
fn a_connect_overtakes_no_listen_and_no_unlisten() {
    for workers in [1, 2, 4] {
        let mut stack = stack(workers);
        let log = Log::default();
        let last = std::sync::Arc::new(parking_lot::Mutex::new(None));
        let (on_worker, on_main) = (last.clone(), last.clone());
        let probe = Probe::new(&log, move |ctx, event| match *event {
            Event::Notified(0) => {
                ctx.listen(ListenOptions { opaque: 1, ..listen_on(Family::V4, 90) }).unwrap();
                ctx.connect(to(90, 0)).unwrap();
            }
            Event::Notified(1) => {
                let listener: ListenerId = on_worker.lock().take().unwrap();
                ctx.unlisten(listener);
                ctx.connect(to(90, 1)).unwrap();
            }
            Event::Connected(_, _, Ok(session)) => ctx.reset(session),
            _ => {}
        })
        .on_main(move |ctx, event| match *event {
            Event::Listening(_, result) => *on_main.lock() = Some(result.unwrap()),
            // The same from here.
            Event::Cleaned(_, 1) => {
                ctx.listen(ctx.app_workers()[0], ListenOptions { opaque: 2, ..listen_on(Family::V4, 91) })
                    .unwrap();
                ctx.connect(ctx.app_workers()[0], to(91, 2)).unwrap();
            }
            Event::Cleaned(_, 2) => {
                let listener = on_main.lock().take().unwrap();
                ctx.unlisten(ctx.app_workers()[0], listener);
                ctx.connect(ctx.app_workers()[0], to(91, 3)).unwrap();
            }
            _ => {}
        });
        let app = attach(&mut stack, "app", probe);
        for round in 0..10u64 {
            for message in [0u64, 1] {
                let worker = WorkerId((round % workers as u64) as u8);
                stack.notify(app.app_workers[0], worker, Box::new(message)).unwrap();
                let wanted = 4 * round as usize + if message == 0 { 1 } else { 4 };
                until(&mut stack, LONG, || log.cleaned() == wanted);
            }
        }
        let outcomes = log.outcomes();
        for (opaque, outcome) in &outcomes {
            let wanted = if opaque % 2 == 0 { Ok(()) } else { Err(ConnectFailure::Refused) };
            assert_eq!(*outcome, wanted, "{outcomes:?}");
        }
        assert_eq!(summary(&mut stack).main.listeners, 0);
        finish(stack, &[&app], &[&log]);
    }
}

/// The port of a connect, chosen or fixed, serves the next one as soon as its app is told that it is free.
// covers: H25, H28, H47, H67
#[test]
fn a_port_is_used_again_the_moment_its_half_open_is_cleaned() {
    for workers in [1, 3] {
        let (mut stack, links) =
            impaired_stack(config(workers), Impairments::default(), Impairments::default());
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        // Twenty times to port 81, which refuses; then ten to port 80, reset at once.
        fn fixed(opaque: u64) -> ConnectOptions {
            ConnectOptions { local_port: 5555, ..to(if opaque < 20 { 81 } else { 80 }, opaque) }
        }
        let probe = Probe::new(&log, move |ctx, event| match *event {
            Event::Connected(_, _, Ok(session)) => ctx.reset(session),
            Event::Closed(_, opaque, _) if opaque < 29 => _ = ctx.connect(fixed(opaque + 1)).unwrap(),
            _ => {}
        })
        .on_main(move |ctx, event| match *event {
            Event::Cleaned(_, opaque) if opaque < 20 => {
                ctx.connect(ctx.app_workers()[0], fixed(opaque + 1)).unwrap();
            }
            _ => {}
        });
        let client = attach(&mut stack, "client", probe);
        stack.connect(client.app_workers[0], fixed(0)).unwrap();
        until(&mut stack, LONG, || log.cleaned() == 30 && log.closed() == 10);
        for (opaque, outcome) in log.outcomes() {
            let wanted = if opaque < 20 { Err(ConnectFailure::Refused) } else { Ok(()) };
            assert_eq!(outcome, wanted, "{opaque}");
        }
        // A port that was chosen: asked for by name once its connect was cancelled.
        links[0].set_link(LinkState::Cut);
        let chosen = stack.connect(client.app_workers[0], to(80, 5000)).unwrap();
        pass(&mut stack, Duration::from_millis(10));
        let half_opens = stack.inspect(Query::half_opens(9)).unwrap().half_opens;
        let local = half_opens.iter().find(|info| info.connect == chosen.to_string()).expect("it is listed");
        let port = local.local.rsplit_once(':').unwrap().1.parse().unwrap();
        stack.cancel(chosen).unwrap();
        until(&mut stack, LONG, || log.count(|event| matches!(event, Event::Cleaned(_, 5000))) == 1);
        links[0].set_link(LinkState::Healed);
        stack.connect(client.app_workers[0], ConnectOptions { local_port: port, ..to(80, 6000) }).unwrap();
        until(&mut stack, LONG, || log.count(|event| matches!(event, Event::Cleaned(_, 6000))) == 1);
        assert!(log.outcomes().contains(&(6000, Ok(()))), "{:?}", log.outcomes());
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}
