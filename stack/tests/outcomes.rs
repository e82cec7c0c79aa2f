//! Every outcome of a connect: told exactly once, then the half-open is cleaned exactly once, and nothing leaks.

mod common;

use std::net::IpAddr;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, LinkState, MemoryWireConfig};
use hoststack::tcp::TcpConfig;
use hoststack::{Attached, SessionLimits, SingleThreaded, StackConfig};

const LONG: Duration = Duration::from_secs(300);

fn client(stack: &mut SingleThreaded) -> (Attached, Log) {
    let log = Log::default();
    let client = attach(stack, "client", Probe::idle(&log));
    (client, log)
}

fn to(address: std::net::SocketAddr, opaque: u64) -> ConnectOptions {
    ConnectOptions { opaque, ..ConnectOptions::to(address) }
}

/// Waits for `count` connects to be cleaned and asserts that all ended as `failure` says.
#[track_caller]
fn expect(stack: &mut SingleThreaded, log: &Log, count: usize, failure: ConnectFailure) {
    until(stack, LONG, || log.cleaned() == count);
    let outcomes = log.outcomes();
    assert_eq!(outcomes.len(), count);
    assert!(outcomes.iter().all(|(_, outcome)| *outcome == Err(failure)), "{outcomes:?}");
    log.check(true);
}

#[test]
fn a_closed_port_refuses() {
    for family in FAMILIES {
        let mut stack = stack(2);
        let (client, log) = client(&mut stack);
        for opaque in 0..20 {
            stack.connect(client.app_workers[0], to(family.server(81), opaque)).unwrap();
        }
        expect(&mut stack, &log, 20, ConnectFailure::Refused);
        assert_eq!(summary(&mut stack).apps[0].app_workers[0].outcomes.refused, 20);
        finish(stack, &[&client], &[&log]);
    }
}

#[test]
fn a_black_hole_times_out_at_the_deadline_to_within_a_step() {
    for family in FAMILIES {
        for timeout in [Duration::from_millis(700), Duration::from_secs(30), Duration::from_secs(100)] {
            let lost = Impairments { loss: 1.0, ..Impairments::default() };
            let (mut stack, _) = impaired_stack(config(2), lost, lost);
            let (client, log) = client(&mut stack);
            let began = stack.now();
            stack
                .connect(client.app_workers[0], ConnectOptions { timeout, ..to(family.server(80), 3) })
                .unwrap();
            until(&mut stack, LONG, || !log.outcomes().is_empty());
            // Virtual time stands still while there is something to do: at most one timer tick late.
            let took = stack.now() - began;
            assert!(
                took >= timeout && took <= timeout + Duration::from_millis(1),
                "{took:?} instead of {timeout:?}"
            );
            expect(&mut stack, &log, 1, ConnectFailure::TimedOut);
            finish(stack, &[&client], &[&log]);
        }
    }
}

#[test]
fn syn_retransmissions_that_run_out_before_the_deadline_time_out() {
    let lost = Impairments { loss: 1.0, ..Impairments::default() };
    let tcp = TcpConfig { syn_retries: 2, ..TcpConfig::default() };
    let (mut stack, _) = impaired_stack(StackConfig { tcp, ..config(1) }, lost, lost);
    let (client, log) = client(&mut stack);
    let began = stack.now();
    let options = ConnectOptions { timeout: Duration::from_secs(1000), ..to(Family::V4.server(80), 1) };
    stack.connect(client.app_workers[0], options).unwrap();
    expect(&mut stack, &log, 1, ConnectFailure::TimedOut);
    assert!(stack.now() - began < Duration::from_secs(20), "three SYNs, 1 + 2 + 4 s");
    finish(stack, &[&client], &[&log]);
}

// covers: H37
#[test]
fn no_route_is_unreachable() {
    for family in FAMILIES {
        let mut stack = stack(2);
        let (client, log) = client(&mut stack);
        let began = stack.now();
        stack.connect(client.app_workers[0], to(family.nowhere(), 1)).unwrap();
        expect(&mut stack, &log, 1, ConnectFailure::Unreachable);
        assert_eq!(stack.now(), began, "known at once");
        finish(stack, &[&client], &[&log]);
    }
}

/// RFC 9293 §3.9.1.1. The address of all stations is refused on the spot (`misuse`); a network's own, main knows.
// covers: MUST-46
#[test]
fn the_broadcast_address_of_our_network_is_unreachable() {
    let mut stack = stack(1);
    let (client, log) = client(&mut stack);
    let began = stack.now();
    let all: std::net::SocketAddr = "10.0.0.255:80".parse().unwrap();
    stack.connect(client.app_workers[0], to(all, 1)).unwrap();
    expect(&mut stack, &log, 1, ConnectFailure::Unreachable);
    assert_eq!(stack.now(), began, "known at once");
    finish(stack, &[&client], &[&log]);
}

fn ethernet_stack(workers: usize) -> SingleThreaded {
    let mac = |last| hoststack_wire::MacAddr([2, 0, 0, 0, 0, last]);
    stack_of(
        config(workers),
        MemoryWireConfig { macs: Some([mac(1), mac(2)]), ..MemoryWireConfig::default() },
    )
}

#[test]
fn a_neighbour_that_does_not_answer_three_probes_is_unreachable() {
    for family in FAMILIES {
        let mut stack = ethernet_stack(2);
        let (client, log) = client(&mut stack);
        let began = stack.now();
        for opaque in 0..10 {
            stack.connect(client.app_workers[0], to(family.nobody(), opaque)).unwrap();
        }
        expect(&mut stack, &log, 10, ConnectFailure::Unreachable);
        let took = stack.now() - began;
        assert!(
            took >= Duration::from_secs(3) && took < Duration::from_millis(3500),
            "three probes 1 s apart: {took:?}"
        );
        finish(stack, &[&client], &[&log]);
    }
}

#[test]
fn the_first_connects_to_a_neighbour_do_not_pay_a_retransmission_time() {
    for family in FAMILIES {
        let mut stack = ethernet_stack(2);
        let server_log = Log::default();
        let server = serve(&mut stack, Probe::echo(&server_log), 80);
        let (client, log) = client(&mut stack);
        let began = stack.now();
        for opaque in 0..200 {
            stack.connect(client.app_workers[0], to(family.server(80), opaque)).unwrap();
        }
        until(&mut stack, LONG, || log.up() == 200);
        assert!(stack.now() - began < Duration::from_millis(100), "{:?}", stack.now() - began);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn a_connect_is_cancelled_before_the_syn_ack() {
    for family in FAMILIES {
        let (mut stack, links) = impaired_stack(config(2), Impairments::default(), Impairments::default());
        links[0].set_link(LinkState::Cut);
        let (client, log) = client(&mut stack);
        let ids: Vec<_> = (0..10)
            .map(|opaque| stack.connect(client.app_workers[0], to(family.server(80), opaque)).unwrap())
            .collect();
        pass(&mut stack, Duration::from_millis(100));
        for &id in &ids {
            stack.cancel(id).unwrap();
            assert_eq!(stack.cancel(id), Err(CancelError::NotPending));
        }
        expect(&mut stack, &log, 10, ConnectFailure::Cancelled);
        for &id in &ids {
            assert_eq!(stack.cancel(id), Err(CancelError::NotPending));
        }
        finish(stack, &[&client], &[&log]);
    }
}

// covers: H08
#[test]
fn a_connect_is_cancelled_in_the_step_it_was_made() {
    let mut stack = stack(2);
    let log = Log::default();
    let probe = Probe::new(&log, |ctx, event| {
        if let Event::Notified(_) = event {
            let connect = ctx.connect(to(Family::V4.server(80), 9)).unwrap();
            ctx.cancel(connect);
            ctx.cancel(connect);
        }
    });
    let server_log = Log::default();
    let server = serve(&mut stack, Probe::echo(&server_log), 80);
    let client = attach(&mut stack, "client", probe);
    stack.notify(client.app_workers[0], WorkerId(1), Box::new(1u64)).unwrap();
    expect(&mut stack, &log, 1, ConnectFailure::Cancelled);
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

/// Cancels after each possible number of steps: before, while and after the SYN-ACK arrives and the ticket moves.
// covers: H02
#[test]
fn a_cancel_at_any_step_gives_one_outcome() {
    let mut seen = (0, 0);
    for steps in 0..12 {
        let mut stack = stack(2);
        let server_log = Log::default();
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let (client, log) = client(&mut stack);
        let id = stack.connect(client.app_workers[0], to(Family::V4.server(80), 1)).unwrap();
        for _ in 0..steps {
            let _ = stack.step();
        }
        let _ = stack.cancel(id);
        let _ = stack.cancel(id);
        until(&mut stack, LONG, || log.cleaned() == 1);
        match log.outcomes()[..] {
            [(1, Ok(()))] => seen.0 += 1,
            [(1, Err(ConnectFailure::Cancelled))] => seen.1 += 1,
            ref other => panic!("{other:?} after {steps} steps"),
        }
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
    assert!(seen.0 > 0 && seen.1 > 0, "both came to pass: {seen:?}");
}

// covers: H04, H13, H40
#[test]
fn a_detach_gives_pending_connects_their_outcome_first() {
    for family in FAMILIES {
        let (mut stack, links) = impaired_stack(config(2), Impairments::default(), Impairments::default());
        links[0].set_link(LinkState::Cut);
        let (client, log) = client(&mut stack);
        for opaque in 0..50 {
            stack.connect(client.app_workers[0], to(family.server(80), opaque)).unwrap();
        }
        pass(&mut stack, Duration::from_secs(1));
        let report = stack.detach(client.app, DetachPolicy::default()).unwrap();
        assert_eq!(report.outcomes().detached, 50);
        assert_eq!(report.app_workers[0].half_opens, 50);
        assert_eq!(log.outcomes().len(), 50);
        assert!(log.outcomes().iter().all(|(_, outcome)| *outcome == Err(ConnectFailure::Detached)));
        finish(stack, &[], &[&log]);
    }
}

#[test]
fn a_fixed_port_that_is_in_use_is_address_in_use() {
    for family in FAMILIES {
        let mut stack = stack(2);
        let server_log = Log::default();
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let (client, log) = client(&mut stack);
        let options = |opaque| ConnectOptions { local_port: 5555, ..to(family.server(80), opaque) };
        stack.connect(client.app_workers[0], options(1)).unwrap();
        // In use by a half-open.
        stack.connect(client.app_workers[0], options(2)).unwrap();
        until(&mut stack, LONG, || log.cleaned() == 2);
        // In use by a connection.
        stack.connect(client.app_workers[0], options(3)).unwrap();
        until(&mut stack, LONG, || log.cleaned() == 3);
        let mut outcomes = log.outcomes();
        outcomes.sort_by_key(|(opaque, _)| *opaque);
        let in_use = Err(ConnectFailure::AddressInUse);
        assert_eq!(outcomes, [(1, Ok(())), (2, in_use), (3, in_use)]);
        // Another remote port is another tuple.
        stack
            .connect(client.app_workers[0], ConnectOptions { local_port: 5555, ..to(family.server(81), 4) })
            .unwrap();
        until(&mut stack, LONG, || log.cleaned() == 4);
        assert_eq!(log.outcomes()[3], (4, Err(ConnectFailure::Refused)));
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

// covers: H28
#[test]
fn a_fixed_port_comes_back_after_refusal_and_after_reset() {
    let mut stack = stack(2);
    let server_log = Log::default();
    let server = serve(&mut stack, Probe::idle(&server_log), 80);
    let log = Log::default();
    let client = attach(
        &mut stack,
        "client",
        Probe::new(&log, |ctx, event| {
            if let Event::Connected(_, _, Ok(session)) = *event {
                ctx.reset(session);
            }
        }),
    );
    for opaque in 0..6 {
        let port = if opaque % 2 == 0 { 80 } else { 81 };
        let options = ConnectOptions { local_port: 5555, ..to(Family::V4.server(port), opaque) };
        stack.connect(client.app_workers[0], options).unwrap();
        until(&mut stack, LONG, || {
            log.cleaned() as u64 == opaque + 1 && log.closed() as u64 == opaque / 2 + 1
        });
        let _ = stack.settle();
    }
    let refused = Err(ConnectFailure::Refused);
    assert_eq!(
        log.outcomes(),
        [(0, Ok(())), (1, refused), (2, Ok(())), (3, refused), (4, Ok(())), (5, refused)]
    );
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn a_local_address_of_nobody_is_address_not_available() {
    for family in FAMILIES {
        let mut stack = stack(2);
        let (client, log) = client(&mut stack);
        let local_addr = Some(family.nobody().ip());
        stack
            .connect(client.app_workers[0], ConnectOptions { local_addr, ..to(family.server(80), 1) })
            .unwrap();
        expect(&mut stack, &log, 1, ConnectFailure::AddressNotAvailable);
        // The server's address is another domain's.
        let local_addr = Some(family.server(80).ip());
        stack
            .connect(client.app_workers[0], ConnectOptions { local_addr, ..to(family.server(80), 2) })
            .unwrap();
        until(&mut stack, LONG, || log.cleaned() == 2);
        finish(stack, &[&client], &[&log]);
    }
}

// covers: MUST-43
#[test]
fn a_local_address_of_ours_is_used() {
    for family in FAMILIES {
        let mut stack = stack(1);
        let server_log = Log::default();
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let (client, log) = client(&mut stack);
        let local_addr: Option<IpAddr> = Some(family.client_addr());
        stack
            .connect(
                client.app_workers[0],
                ConnectOptions { local_addr, local_port: 999, ..to(family.server(80), 1) },
            )
            .unwrap();
        until(&mut stack, LONG, || log.cleaned() == 1 && server_log.accepted() == 1);
        assert_eq!(log.outcomes(), [(1, Ok(()))]);
        let sessions = stack.inspect(hoststack::Query::sessions(10, true)).unwrap().sessions;
        let local = std::net::SocketAddr::new(family.client_addr(), 999).to_string();
        assert!(
            sessions.iter().any(|session| session.flow.domain.0 == 0 && session.local() == local),
            "{sessions:?}"
        );
        assert!(sessions.iter().all(|session| !session.variables().is_empty()));
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn connects_above_half_opens_max_have_no_room() {
    let (mut stack, links) = impaired_stack(config(2), Impairments::default(), Impairments::default());
    links[0].set_link(LinkState::Cut);
    let log = Log::default();
    let options = AttachOptions { half_opens_max: 10, ..AttachOptions::named("client") };
    let client = stack.attach(Probe::idle(&log), options).unwrap();
    for opaque in 0..25 {
        stack.connect(client.app_workers[0], to(Family::V4.server(80), opaque)).unwrap();
    }
    until(&mut stack, LONG, || log.cleaned() == 25);
    let outcomes = log.outcomes();
    let count = |failure| outcomes.iter().filter(|(_, outcome)| *outcome == Err(failure)).count();
    assert_eq!((count(ConnectFailure::NoRoom), count(ConnectFailure::TimedOut)), (15, 10));
    finish(stack, &[&client], &[&log]);
}

#[test]
fn connects_above_the_stacks_half_opens_have_no_room() {
    let tcp = TcpConfig { half_opens_max: 4, ..TcpConfig::default() };
    let (mut stack, links) =
        impaired_stack(StackConfig { tcp, ..config(2) }, Impairments::default(), Impairments::default());
    links[0].set_link(LinkState::Cut);
    let (client, log) = client(&mut stack);
    for opaque in 0..9 {
        stack.connect(client.app_workers[0], to(Family::V6.server(80), opaque)).unwrap();
    }
    until(&mut stack, LONG, || log.cleaned() == 9);
    assert_eq!(
        log.outcomes().iter().filter(|(_, outcome)| *outcome == Err(ConnectFailure::NoRoom)).count(),
        5
    );
    finish(stack, &[&client], &[&log]);
}

/// The client's and the server's sessions share one pool here: a pool of 5 has room for 2 pairs and a half.
// covers: E13, H38
#[test]
fn a_full_session_pool_refuses_and_leaks_nothing() {
    for family in FAMILIES {
        let sessions = SessionLimits { sessions: 5, ..SessionLimits::default() };
        let mut stack = stack_of(StackConfig { sessions, ..config(1) }, MemoryWireConfig::default());
        let server_log = Log::default();
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let (client, log) = client(&mut stack);
        for opaque in 0..20 {
            stack.connect(client.app_workers[0], to(family.server(80), opaque)).unwrap();
        }
        until(&mut stack, LONG, || log.cleaned() == 20);
        pass(&mut stack, Duration::from_secs(1));
        let outcomes = log.outcomes();
        let no_room = outcomes.iter().filter(|(_, outcome)| *outcome == Err(ConnectFailure::NoRoom)).count();
        assert!(no_room >= 15, "{outcomes:?}");
        assert_eq!(summary(&mut stack).main.tickets_dropped, 0);
        // There is room again once the first ones are gone.
        for session in log.sessions() {
            stack.end_session(session, hoststack::EndHow::Reset).unwrap();
        }
        pass(&mut stack, Duration::from_secs(1));
        assert_eq!(log.closed(), log.up());
        stack.connect(client.app_workers[0], to(family.server(80), 100)).unwrap();
        until(&mut stack, LONG, || log.cleaned() == 21);
        assert_eq!(log.outcomes()[20], (100, Ok(())));
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

// covers: H38
#[test]
fn a_full_connection_pool_refuses_and_leaks_nothing() {
    let tcp = TcpConfig { connections_max: 3, ..TcpConfig::default() };
    let mut stack = stack_of(StackConfig { tcp, ..config(1) }, MemoryWireConfig::default());
    let server_log = Log::default();
    let server = serve(&mut stack, Probe::idle(&server_log), 80);
    let (client, log) = client(&mut stack);
    for opaque in 0..20 {
        stack.connect(client.app_workers[0], to(Family::V4.server(80), opaque)).unwrap();
    }
    until(&mut stack, LONG, || log.cleaned() == 20);
    assert!(log.up() <= 3);
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn connects_wait_for_no_one_when_the_limit_of_pending_ones_is_reached() {
    let (mut stack, links) = impaired_stack(
        StackConfig { pending_connects_max: 3, ..config(2) },
        Impairments::default(),
        Impairments::default(),
    );
    links[0].set_link(LinkState::Cut);
    let (client, log) = client(&mut stack);
    for opaque in 0..3 {
        stack.connect(client.app_workers[0], to(Family::V4.server(80), opaque)).unwrap();
    }
    let refused = stack.connect(client.app_workers[0], to(Family::V4.server(80), 3));
    assert_eq!(refused, Err(ConnectError::TooManyPending));
    expect(&mut stack, &log, 3, ConnectFailure::TimedOut);
    // They count no more.
    stack.connect(client.app_workers[0], to(Family::V4.server(80), 4)).unwrap();
    expect(&mut stack, &log, 4, ConnectFailure::TimedOut);
    finish(stack, &[&client], &[&log]);
}

// covers: H45
#[test]
fn the_limit_of_pending_connects_inside_callbacks_counts_outcomes_told_on_other_workers() {
    let mut stack = stack(4);
    let log = Log::default();
    let probe = Probe::new(&log, |ctx, event| {
        if let Event::Notified(_) = event {
            for opaque in 0..8 {
                ctx.connect(to(Family::V4.server(81), opaque)).unwrap();
            }
            assert_eq!(ctx.connect(to(Family::V4.server(81), 8)), Err(ConnectError::TooManyPending));
        }
    });
    let options = AttachOptions { pending_connects_max: 8, ..AttachOptions::named("client") };
    let client = stack.attach(probe, options).unwrap();
    for round in 1..=3 {
        stack.notify(client.app_workers[0], WorkerId(2), Box::new(1u64)).unwrap();
        until(&mut stack, LONG, || log.cleaned() == 8 * round);
        let _ = stack.settle();
    }
    assert!(
        log.lines().iter().any(|line| {
            matches!(line.event, Event::Connected(..))
                && line.at.is_some_and(|(_, worker)| worker != WorkerId(2))
        }),
        "some outcomes were told elsewhere"
    );
    finish(stack, &[&client], &[&log]);
}

#[test]
fn the_worker_that_is_asked_for_owns_the_session() {
    for family in FAMILIES {
        let mut stack = stack(4);
        let server_log = Log::default();
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let (client, log) = client(&mut stack);
        for opaque in 0..40 {
            let worker = Some(WorkerId((opaque % 4) as u8));
            stack
                .connect(client.app_workers[0], ConnectOptions { worker, ..to(family.server(80), opaque) })
                .unwrap();
        }
        until(&mut stack, LONG, || log.cleaned() == 40 && server_log.accepted() == 40);
        for line in log.lines() {
            if let Event::Connected(_, opaque, Ok(session)) = line.event {
                assert_eq!(session.worker(), WorkerId((opaque % 4) as u8));
                assert_eq!(line.at, Some((0, session.worker())));
            }
        }
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn connects_spread_over_workers_by_load() {
    let mut stack = stack(4);
    let server_log = Log::default();
    let server = serve(&mut stack, Probe::idle(&server_log), 80);
    let (client, log) = client(&mut stack);
    for opaque in 0..400 {
        stack.connect(client.app_workers[0], to(Family::V4.server(80), opaque)).unwrap();
    }
    until(&mut stack, LONG, || log.up() == 400);
    for worker in 0..4 {
        let count = log.sessions().iter().filter(|session| session.worker() == WorkerId(worker)).count();
        assert!((90..=110).contains(&count), "worker {worker} has {count} of 400");
    }
    finish(stack, &[&client, &server], &[&log, &server_log]);
}
