//! Connects among everything else: while they are looked at, beside listens and detaches, on a port that others use,
//! through channels that are full. `docs/races.md` has the ids.
// A guard that sends would hide what the arm does.
#![allow(clippy::collapsible_match)]

mod common;

use std::collections::BTreeSet;

use common::*;
use hoststack::app::*;
use hoststack::inspect::HalfOpenQuery;
use hoststack::net::{Impairments, LinkState, MemoryWireConfig};
use hoststack::tcp::TcpConfig;
use hoststack::{EndHow, Query, StackConfig};

const LONG: Duration = Duration::from_secs(600);

fn to(port: u16, opaque: u64) -> ConnectOptions {
    ConnectOptions { opaque, ..ConnectOptions::to(Family::V4.server(port)) }
}

fn delayed(delay_us: u64) -> Impairments {
    Impairments { delay_us, ..Impairments::default() }
}

/// Every question in every step, while connects come up, fail, wait for neighbours, are cancelled and detached.
// covers: H21, H29, H73
#[test]
fn half_opens_and_sessions_are_looked_at_in_every_step_of_their_life() {
    for workers in [1, 3] {
        let mac = |last| hoststack_wire::MacAddr([2, 0, 0, 0, 0, last]);
        let wire = MemoryWireConfig { macs: Some([mac(1), mac(2)]), ..MemoryWireConfig::default() };
        let mut stack = stack_of(config(workers), wire);
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let probe = Probe::new(&log, |ctx, event| {
            if let Event::Connected(_, opaque, Ok(session)) = *event
                && opaque % 2 == 0
            {
                ctx.close(session);
            }
        });
        let options = AttachOptions { app_workers: 2, ..AttachOptions::named("client") };
        let client = stack.attach(probe, options).unwrap();
        let mut connects = Vec::new();
        let mut states = BTreeSet::new();
        for round in 0..60u64 {
            let unit = client.app_workers[(round % 2) as usize];
            let remote = match round % 4 {
                0 => Family::V6.nobody(),
                1 => Family::V4.server(81),
                _ => FAMILIES[(round % 2) as usize].server(80),
            };
            if round < 40 {
                let options = ConnectOptions { opaque: round, ..ConnectOptions::to(remote) };
                connects.push(stack.connect(unit, options).unwrap());
            }
            if round % 7 == 3 {
                let _ = stack.cancel(connects[round as usize / 2]);
            }
            if round == 50 {
                stack.detach_worker(client.app_workers[1], DetachPolicy::Reset).unwrap();
            }
            let query = HalfOpenQuery { limit: 100, count: true, ..HalfOpenQuery::default() };
            let answer = stack.inspect(Query::HalfOpens(Box::new(query))).unwrap();
            assert_eq!(answer.half_opens.len() as u64, answer.matched.unwrap());
            for info in &answer.half_opens {
                assert!(info.app_worker.starts_with("client/") && info.worker < workers as u8, "{info:?}");
                assert!(!info.remote.is_empty() && info.deadline_in_us <= 30_000_000, "{info:?}");
                states.insert(info.state.clone());
            }
            let answer = stack.inspect(Query::sessions(100, true)).unwrap();
            assert!(answer.sessions_next.is_none(), "there are never more than a hundred");
            if round % 5 == 4 {
                pass(&mut stack, Duration::from_millis(400));
            }
        }
        until(&mut stack, LONG, || log.cleaned() == 40);
        assert!(states.contains("connecting"), "{states:?}");
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

/// The session of a simultaneous open exists before it is announced. Who guesses its handle can do nothing with it.
// covers: E07, H30, H31, M03
#[test]
fn a_session_that_is_not_announced_cannot_be_used() {
    let (mut stack, links) = impaired_stack(config(2), delayed(5_000), delayed(5_000));
    let logs: [Log; 2] = Default::default();
    let used = Counter::default();
    let count = used.clone();
    let probe = |log: &Log| {
        let count = count.clone();
        Probe::new(log, move |ctx, event| {
            if let Event::Notified(handle) = *event {
                let session = SessionHandle::from_u64(handle);
                assert_eq!(
                    (ctx.write(session, b"early"), ctx.tx_room(session), ctx.rx_len(session)),
                    (0, 0, 0)
                );
                assert_eq!((ctx.reserve(session, 9).len(), ctx.splice(session, session)), (0, 0));
                ctx.want_room(session);
                ctx.half_close(session);
                ctx.close(session);
                ctx.reset(session);
                count.add(1);
            }
        })
    };
    let apps = [attach(&mut stack, "a", probe(&logs[0])), attach(&mut stack, "b", probe(&logs[1]))];
    let ends = [std::net::SocketAddr::new(Family::V4.client_addr(), 5000), Family::V4.server(6000)];
    for end in 0..2 {
        let options = ConnectOptions {
            domain: [CLIENT, SERVER][end],
            local_port: ends[end].port(),
            ..ConnectOptions::to(ends[1 - end])
        };
        stack.connect(apps[end].app_workers[0], options).unwrap();
    }
    // The SYNs cross; what they cause is lost for a while.
    pass(&mut stack, Duration::from_millis(1));
    links.iter().for_each(|link| link.set_link(LinkState::Cut));
    pass(&mut stack, Duration::from_millis(100));
    let answer = stack.inspect(Query::sessions(9, true)).unwrap();
    assert_eq!((answer.session_summary.unannounced, answer.sessions.len()), (2, 2));
    for info in &answer.sessions {
        let session = info.session;
        for app in &apps {
            stack.notify(app.app_workers[0], session.worker(), Box::new(session.as_u64())).unwrap();
        }
        stack.end_session(session, EndHow::Close).unwrap();
        stack.end_session(session, EndHow::Reset).unwrap();
    }
    until(&mut stack, LONG, || used.value() == 4);
    pass(&mut stack, Duration::from_millis(100));
    assert!(logs.iter().all(|log| log.outcomes().is_empty() && log.closed() == 0));
    links.iter().for_each(|link| link.set_link(LinkState::Healed));
    until(&mut stack, LONG, || logs.iter().all(|log| log.cleaned() == 1));
    assert!(logs.iter().all(|log| log.outcomes() == [(0, Ok(()))]));
    pass(&mut stack, Duration::from_secs(1));
    assert!(logs.iter().all(|log| log.closed() == 0), "nothing of what was asked before has effect now");
    finish(stack, &[&apps[0], &apps[1]], &[&logs[0], &logs[1]]);
}

/// A server opens from the port it listens on, to the very port from which its client opens, that many steps later.
// covers: H46, T05
#[test]
fn an_active_and_a_passive_open_of_one_flow_at_any_distance_make_one_connection() {
    let mut seen = BTreeSet::new();
    for workers in [1, 2, 4] {
        for (delay, pause) in
            [0, 5_000].into_iter().flat_map(|delay| (0..12).map(move |pause| (delay, pause)))
        {
            let (mut stack, _) = impaired_stack(config(workers), delayed(delay), delayed(delay));
            let (log, server_log) = (Log::default(), Log::default());
            let server = serve(&mut stack, Probe::new(&server_log, |_, _| {}), 80);
            let client = attach(&mut stack, "client", Probe::new(&log, |_, _| {}));
            let ours = ConnectOptions { local_port: 5000, ..to(80, 1) };
            stack.connect(client.app_workers[0], ours).unwrap();
            for _ in 0..pause {
                let _ = stack.step();
            }
            let theirs = ConnectOptions {
                domain: SERVER,
                local_port: 80,
                opaque: 2,
                ..ConnectOptions::to(std::net::SocketAddr::new(Family::V4.client_addr(), 5000))
            };
            stack.connect(server.app_workers[0], theirs).unwrap();
            until(&mut stack, LONG, || log.cleaned() == 1 && server_log.cleaned() == 1);
            pass(&mut stack, Duration::from_secs(3));
            assert_eq!(log.outcomes(), [(1, Ok(()))], "{workers} workers, {delay} us, {pause} steps");
            // One connection: opened by both, or accepted by the server, which then has the tuple.
            let outcome = server_log.outcomes()[0].1;
            let wanted = if server_log.accepted() == 0 { Ok(()) } else { Err(ConnectFailure::AddressInUse) };
            assert_eq!(outcome, wanted, "{workers} workers, {delay} us, {pause} steps");
            seen.insert(outcome);
            // Another flow from the listener's port is nobody's business, and the listener still listens.
            let elsewhere = ConnectOptions {
                domain: SERVER,
                local_port: 80,
                opaque: 3,
                ..ConnectOptions::to(std::net::SocketAddr::new(Family::V4.client_addr(), 5001))
            };
            stack.connect(server.app_workers[0], elsewhere).unwrap();
            let accepted = server_log.accepted();
            stack.connect(client.app_workers[0], to(80, 4)).unwrap();
            until(&mut stack, LONG, || log.cleaned() == 2 && server_log.cleaned() == 2);
            assert_eq!(server_log.outcomes()[1], (3, Err(ConnectFailure::Refused)));
            until(&mut stack, LONG, || server_log.accepted() == accepted + 1);
            finish(stack, &[&client, &server], &[&log, &server_log]);
        }
    }
    assert_eq!(seen.len(), 2, "both came to pass: {seen:?}");
}

/// A domain does not talk to itself; who tries hears so at once, and again and again.
// covers: H15
#[test]
fn a_connect_to_an_address_of_our_own_is_unreachable_at_once() {
    for family in FAMILIES {
        let mut stack = stack(2);
        let log = Log::default();
        let own = std::net::SocketAddr::new(family.client_addr(), 80);
        let probe = Probe::new(&log, move |ctx, event| {
            if let Event::Connected(_, opaque, Err(_)) = *event
                && opaque < 20
            {
                ctx.connect(ConnectOptions { opaque: opaque + 1, ..ConnectOptions::to(own) }).unwrap();
            }
        });
        let app = attach(&mut stack, "app", probe);
        stack.listen(app.app_workers[0], ListenOptions::on(own)).unwrap();
        let began = stack.now();
        stack.connect(app.app_workers[0], ConnectOptions::to(own)).unwrap();
        until(&mut stack, LONG, || log.cleaned() == 21);
        assert!(log.outcomes().iter().all(|(_, outcome)| *outcome == Err(ConnectFailure::Unreachable)));
        assert_eq!((stack.now(), log.accepted()), (began, 0));
        finish(stack, &[&app], &[&log]);
    }
}

/// Listens, connects, unlistens and detaches in one heap: every one is done, in so many steps.
// covers: H12, H24, H60
#[test]
fn connects_queued_behind_listens_and_detaches_do_not_wait_for_each_other() {
    for workers in [1, 4] {
        // Time stands still here: as many refusals as there are connects.
        let tcp = TcpConfig { resets_per_step: 10_000, ..TcpConfig::default() };
        let mut stack = stack_of(StackConfig { tcp, ..config(workers) }, MemoryWireConfig::default());
        let log = Log::default();
        let probe = Probe::new(&log, |ctx, event| {
            if let Event::Notified(_) = *event {
                for number in 0..50u16 {
                    let unit = ctx.unit() as u16 + 1;
                    ctx.listen(listen_on(Family::V4, 1000 * unit + number)).unwrap();
                    ctx.connect(to(1000 * unit + number, 0)).unwrap();
                    ctx.connect(to(7, 0)).unwrap();
                }
                if ctx.unit() == 1 {
                    ctx.detach(DetachPolicy::Reset);
                }
            }
        })
        .on_main(|ctx, event| {
            if let Event::Listening(_, Ok(listener)) = *event {
                for &unit in ctx.app_workers().to_vec().iter() {
                    ctx.unlisten(unit, listener);
                }
                let unit = ctx.app_workers()[0];
                ctx.connect(unit, to(9, 1)).unwrap();
            }
        });
        let options = AttachOptions { app_workers: 3, ..AttachOptions::named("app") };
        let app = stack.attach(probe, options).unwrap();
        let _ = stack.settle();
        for &unit in &app.app_workers {
            stack.notify(unit, WorkerId(0), Box::new(0u64)).unwrap();
        }
        // Behind all that, from outside.
        for opaque in 100..200 {
            stack.connect(app.app_workers[2], to(9, opaque)).unwrap();
        }
        let is_gone = |event: &Event| *event == Event::WorkerDetached(1);
        let mut steps = 0;
        while log.count(is_gone) == 0 || summary(&mut stack).main.half_open_sessions > 0 {
            let _ = stack.step();
            steps += 1;
            assert!(steps < 60, "{} told after {steps} steps", log.outcomes().len());
        }
        assert!(log.outcomes().len() >= 3 * 100 + 100, "{}", log.outcomes().len());
        finish(stack, &[&app], &[&log]);
    }
}

/// Channels of one batch, a device ring of a few packets: messages wait with their sender, none is lost.
// covers: D06, H22, H61
#[test]
fn nothing_is_lost_when_all_channels_and_rings_are_full() {
    const CONNECTS: u64 = 1500;
    for workers in [1, 2] {
        let wire = MemoryWireConfig { ring_packets: 8, ..MemoryWireConfig::default() };
        let mut stack = stack_of(StackConfig { channel_batches: 1, ..config(workers) }, wire);
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::echo(&server_log), 80);
        let probe = Probe::new(&log, |ctx, event| match *event {
            Event::Connected(_, opaque, Ok(session)) => {
                ctx.write(session, b"to and fro");
                if opaque < CONNECTS {
                    ctx.connect(to(81, CONNECTS)).unwrap();
                }
            }
            Event::Readable(session) if ctx.rx_len(session) == 10 => {
                drain(ctx, session);
                ctx.close(session);
            }
            _ => {}
        });
        let client = attach(&mut stack, "client", probe);
        let before = summary(&mut stack).main.steps;
        for opaque in 0..CONNECTS {
            let port = if opaque % 5 == 0 { 81 } else { 80 };
            stack.connect(client.app_workers[0], to(port, opaque)).unwrap();
        }
        // The question is a message as well, behind all others.
        let waited = summary(&mut stack).main.steps - before;
        assert!(waited > 50, "messages did wait, {waited} steps");
        until(&mut stack, LONG, || log.closed() == log.up() && log.cleaned() == CONNECTS as usize + log.up());
        assert!(log.up() > 1000, "{}", log.up());
        let unlike: Vec<CloseReason> =
            log.ends().into_iter().filter(|end| *end != CloseReason::Finished).collect();
        assert!(unlike.is_empty(), "{unlike:?}");
        assert_eq!(summary(&mut stack).main.messages, 0);
        let report = stack.detach(client.app, DetachPolicy::default()).unwrap();
        assert_eq!(report.outcomes().requested, report.outcomes().cleaned);
        assert_eq!(report.outcomes().requested, CONNECTS + log.up() as u64);
        finish(stack, &[&server], &[&log, &server_log]);
    }
}
