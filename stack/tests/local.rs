//! Cut-through beyond what all transports share (`transports.rs`): at once or later, memory that runs out, names.

mod common;

use common::*;
use hoststack::app::*;
use hoststack::{SessionLimits, SingleThreaded, StackConfig};

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

/// A server at `local://server`, that accepts on the connector's worker or on worker 1.
fn serve_local(stack: &mut SingleThreaded, probe: Probe, elsewhere: bool) -> hoststack::Attached {
    let server = attach(stack, "server", probe);
    let worker = elsewhere.then_some(WorkerId(1));
    let options = ListenOptions { worker, ..ListenOptions::on(address("local://server")) };
    stack.listen(server.app_workers[0], options).expect("listening");
    server
}

fn to_server() -> ConnectOptions {
    ConnectOptions { worker: Some(WorkerId(0)), ..ConnectOptions::to(address("local://server")) }
}

// covers: F11, H26
#[test]
fn a_connect_on_one_worker_is_up_in_the_step_that_takes_it_and_between_workers_later() {
    for elsewhere in [false, true] {
        let mut stack = stack(2);
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve_local(&mut stack, Probe::idle(&server_log), elsewhere);
        let client = attach(&mut stack, "client", Probe::idle(&log));
        stack.connect(client.app_workers[0], to_server()).unwrap();
        // Main takes the request, worker 0 what main says: in one round of steps.
        let _ = stack.step();
        assert_eq!((log.up(), server_log.accepted()), if elsewhere { (0, 1) } else { (1, 1) });
        until(&mut stack, Duration::from_secs(1), || log.up() == 1 && server_log.accepted() == 1);
        let workers = server_log.sessions().iter().map(|session| session.worker()).collect::<Vec<_>>();
        assert_eq!(workers, [WorkerId(u8::from(elsewhere))]);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

// covers: E12
#[test]
fn memory_that_runs_out_delays_bytes_and_loses_none() {
    const TOTAL: u64 = 200_000;
    for elsewhere in [false, true] {
        let sessions = SessionLimits { chunk_bytes: 1024, chunks: 64, ..SessionLimits::default() };
        let mut stack =
            stack_of(StackConfig { sessions, ..config(2) }, hoststack::net::MemoryWireConfig::default());
        let (log, server_log, streams) = (Log::default(), Log::default(), Streams::default());
        let writes = streams.clone();
        let client = Probe::new(&log, move |ctx, event| match *event {
            Event::Connected(_, _, Ok(session)) | Event::Writable(session) => {
                if writes.send(ctx, session, TOTAL) {
                    ctx.half_close(session);
                }
            }
            _ => close_with_peer(ctx, event),
        });
        let reads = streams.clone();
        // Slow readers: the fifos of all together want more than there is.
        let server = Probe::new(&server_log, move |ctx, event| match *event {
            Event::Accepted(session) => ctx.set_timer(session.as_u64(), Duration::from_millis(3)),
            Event::Timer(token) => {
                let session = SessionHandle::from_u64(token);
                if reads.receive(ctx, session, 9_000) == TOTAL {
                    ctx.close(session);
                } else {
                    ctx.set_timer(token, Duration::from_millis(3));
                }
            }
            _ => {}
        });
        let server = serve_local(&mut stack, server, elsewhere);
        let client = attach(&mut stack, "client", client);
        for _ in 0..4 {
            stack.connect(client.app_workers[0], to_server()).unwrap();
        }
        until(&mut stack, Duration::from_secs(60), || log.closed() == 4 && server_log.closed() == 4);
        assert_eq!(streams.all().iter().map(|stream| stream.got).sum::<u64>(), 4 * TOTAL);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

// covers: E08, F39
#[test]
fn bytes_for_an_app_that_has_closed_reset_their_sender() {
    for elsewhere in [false, true] {
        let mut stack = stack(2);
        let (log, server_log) = (Log::default(), Log::default());
        let server = Probe::new(&server_log, |ctx, event| {
            if let Event::Accepted(session) = *event {
                ctx.close(session);
            }
        });
        // Goes on writing after the peer's end.
        let client = Probe::new(&log, |ctx, event| {
            if let Event::PeerClosed(session) = *event {
                assert_eq!(ctx.write(session, b"too late"), 8);
            }
        });
        let server = serve_local(&mut stack, server, elsewhere);
        let client = attach(&mut stack, "client", client);
        stack.connect(client.app_workers[0], to_server()).unwrap();
        until(&mut stack, Duration::from_secs(1), || log.closed() == 1 && server_log.closed() == 1);
        assert_eq!(
            (log.ends(), server_log.ends()),
            (vec![CloseReason::PeerReset], vec![CloseReason::Finished])
        );
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

// covers: H15
#[test]
fn an_app_connects_to_itself_and_to_a_name_of_its_own_domain_only() {
    let mut stack = stack(2);
    let log = Log::default();
    let app = attach(&mut stack, "app", Probe::echo(&log));
    let listen = ListenOptions { domain: SERVER, ..ListenOptions::on(address("local://self")) };
    stack.listen(app.app_workers[0], listen).unwrap();
    let to = |domain| ConnectOptions { domain, ..ConnectOptions::to(address("local://self")) };
    stack.connect(app.app_workers[0], to(CLIENT)).unwrap();
    stack.connect(app.app_workers[0], to(SERVER)).unwrap();
    until(&mut stack, Duration::from_secs(1), || log.cleaned() == 2);
    assert_eq!(log.outcomes(), [(0, Err(ConnectFailure::Refused)), (0, Ok(()))]);
    assert_eq!(log.accepted(), 1);
    finish(stack, &[&app], &[&log]);
}

// covers: E05, E06, E13
#[test]
fn a_full_session_pool_at_either_end_is_an_outcome() {
    for elsewhere in [false, true] {
        let sessions = SessionLimits { sessions: 5, ..SessionLimits::default() };
        let mut stack =
            stack_of(StackConfig { sessions, ..config(2) }, hoststack::net::MemoryWireConfig::default());
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve_local(&mut stack, Probe::idle(&server_log), elsewhere);
        let client = attach(&mut stack, "client", Probe::idle(&log));
        for _ in 0..8 {
            stack.connect(client.app_workers[0], to_server()).unwrap();
        }
        until(&mut stack, Duration::from_secs(1), || log.cleaned() == 8);
        // On one worker a connection takes two of its five sessions.
        let up = if elsewhere { 5 } else { 2 };
        assert_eq!((log.up(), server_log.accepted()), (up, up));
        for (_, outcome) in log.outcomes() {
            assert!(
                matches!(outcome, Ok(()) | Err(ConnectFailure::NoRoom | ConnectFailure::Refused)),
                "{outcome:?}"
            );
        }
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}
