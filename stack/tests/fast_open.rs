//! Early data and Fast Open (RFC 7413) between two apps of a stack, and SYN cookies: what the apps see of them.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, LinkState, MemoryWireConfig};
use hoststack::tcp::{SynCookies, TcpConfig};
use hoststack::{Attached, SessionLimits, SingleThreaded, StackConfig};
use parking_lot::Mutex;

const LONG: Duration = Duration::from_secs(600);
const FAST: SocketOptions = SocketOptions { fast_open: true, nodelay: true, ..SocketOptions::DEFAULT };

/// What a session of a client got back, and when the first of it came.
#[derive(Clone)]
struct Echo {
    bytes: Vec<u8>,
    began: Instant,
}

#[derive(Clone, Default)]
struct Echoes(Arc<Mutex<BTreeMap<SessionHandle, Echo>>>);

impl Echoes {
    fn all(&self) -> Vec<Echo> {
        self.0.lock().values().cloned().collect()
    }
}

fn stream(len: usize) -> Vec<u8> {
    (0..len as u64).map(pattern).collect()
}

/// A client that writes what follows the first `early` bytes of a stream of `total`, and closes when all has come back.
fn client(stack: &mut SingleThreaded, early: usize, total: usize) -> (Attached, Log, Echoes) {
    let (log, echoes) = (Log::default(), Echoes::default());
    let seen = echoes.clone();
    let probe = Probe::new(&log, move |ctx, event| match *event {
        Event::Connected(_, _, Ok(session)) => {
            let rest = &stream(total)[early..];
            assert_eq!(ctx.write(session, rest), rest.len());
        }
        Event::Readable(session) => {
            let began = ctx.now();
            let mut echoes = seen.0.lock();
            let Echo { bytes, .. } = echoes.entry(session).or_insert(Echo { bytes: Vec::new(), began });
            while ctx.rx_len(session) > 0 {
                bytes.extend_from_slice(ctx.peek(session));
                let count = ctx.peek(session).len();
                ctx.consume(session, count);
            }
            if bytes.len() >= total {
                ctx.close(session);
            }
        }
        _ => {}
    });
    (attach(stack, "client", probe), log, echoes)
}

fn echo_server(stack: &mut SingleThreaded, socket: SocketOptions) -> (Attached, Log) {
    let log = Log::default();
    let server = attach(stack, "server", Probe::echo(&log));
    for family in FAMILIES {
        let options = ListenOptions { socket, ..listen_on(family, 80) };
        stack.listen(server.app_workers[0], options).expect("listening");
    }
    (server, log)
}

fn to(family: Family, socket: SocketOptions) -> ConnectOptions {
    ConnectOptions { socket, timeout: Duration::from_secs(200), ..ConnectOptions::to(family.server(80)) }
}

fn slow(delay_us: u64) -> Impairments {
    Impairments { delay_us, ..Impairments::default() }
}

#[test]
fn from_the_second_connect_on_the_answer_comes_a_round_trip_sooner() {
    for family in FAMILIES {
        let (mut stack, _) = impaired_stack(config(2), slow(50_000), slow(50_000));
        let (server, server_log) = echo_server(&mut stack, FAST);
        let (client, log, echoes) = client(&mut stack, 500, 500);
        // The neighbours get to know each other.
        stack.connect_with(client.app_workers[0], to(family, FAST), &stream(500)).unwrap();
        until(&mut stack, LONG, || log.closed() == 1);
        let mut took = Vec::new();
        for (n, fast) in [(2, true), (3, true), (4, false)] {
            let socket = SocketOptions { fast_open: fast, ..FAST };
            let began = stack.now();
            stack.connect_with(client.app_workers[0], to(family, socket), &stream(500)).unwrap();
            until(&mut stack, LONG, || log.closed() == n);
            let last = echoes.all().iter().map(|echo| echo.began).max().expect("one came back");
            took.push(last.since(began).as_millis());
        }
        assert!(took[0] < 110 && took[1] < 110, "one round trip of 100 ms: {took:?}");
        assert!(took[2] >= 200, "two without: {took:?}");
        assert!(echoes.all().iter().all(|echo| echo.bytes == stream(500)));
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn early_data_comes_first_and_once_whatever_the_two_ends_can_do() {
    for family in FAMILIES {
        for workers in [1, 2] {
            for (ours, theirs) in [(true, true), (true, false), (false, true), (false, false)] {
                let mut stack = stack(workers);
                let with = |fast_open| SocketOptions { fast_open, ..SocketOptions::DEFAULT };
                let (server, server_log) = echo_server(&mut stack, with(theirs));
                let (client, log, echoes) = client(&mut stack, 5000, 20_000);
                for n in 1..=5 {
                    let options = to(family, with(ours));
                    stack.connect_with(client.app_workers[0], options, &stream(5000)).unwrap();
                    until(&mut stack, LONG, || log.closed() == n);
                }
                assert_eq!(echoes.all().len(), 5);
                assert!(echoes.all().iter().all(|echo| echo.bytes == stream(20_000)));
                finish(stack, &[&client, &server], &[&log, &server_log]);
            }
        }
    }
}

#[test]
fn on_a_link_that_loses_packets_every_stream_is_whole() {
    for seed in 1..=5 {
        let bad = |seed| Impairments { seed, loss: 0.15, delay_us: 2_000, ..Impairments::default() };
        let (mut stack, counters) = impaired_stack(config(2), bad(seed), bad(seed + 50));
        let (server, server_log) = echo_server(&mut stack, FAST);
        let (client, log, echoes) = client(&mut stack, 1000, 9000);
        for n in 1..=20 {
            for _ in 0..3 {
                stack.connect_with(client.app_workers[0], to(Family::V4, FAST), &stream(1000)).unwrap();
            }
            until(&mut stack, LONG, || log.closed() == 3 * n);
        }
        assert!(counters.iter().all(|c| c.dropped() > 0));
        assert!(echoes.all().iter().all(|echo| echo.bytes == stream(9000)));
        assert_eq!((log.up(), echoes.all().len()), (60, 60));
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn connects_with_early_data_are_cancelled_detached_and_time_out_like_others() {
    let (mut stack, links) = impaired_stack(config(2), Impairments::default(), Impairments::default());
    let (server, server_log) = echo_server(&mut stack, FAST);
    let (client, log, _) = client(&mut stack, 3000, 3000);
    let connect = |stack: &mut SingleThreaded, opaque, timeout| {
        let options = ConnectOptions { opaque, timeout, ..to(Family::V4, FAST) };
        stack.connect_with(client.app_workers[0], options, &stream(3000)).unwrap()
    };
    // So that its cookie is known and the next SYNs carry data.
    connect(&mut stack, 0, LONG);
    until(&mut stack, LONG, || log.closed() == 1);
    links[0].set_link(LinkState::Cut);
    connect(&mut stack, 1, Duration::from_secs(3));
    let second = connect(&mut stack, 2, LONG);
    connect(&mut stack, 3, LONG);
    pass(&mut stack, Duration::from_secs(4));
    stack.cancel(second).unwrap();
    until(&mut stack, LONG, || log.cleaned() == 3);
    finish(stack, &[&client, &server], &[&log, &server_log]);
    let failures = [ConnectFailure::TimedOut, ConnectFailure::Cancelled, ConnectFailure::Detached].map(Err);
    let expected: Vec<_> = (0..).zip([Ok(())].into_iter().chain(failures)).collect();
    assert_eq!(log.outcomes(), expected);
}

#[test]
fn early_data_that_finds_no_memory_fails_the_connect_and_leaves_nothing() {
    let sessions = SessionLimits { chunks: 1, chunk_bytes: 256, ..SessionLimits::default() };
    let mut stack = stack_of(StackConfig { sessions, ..config(1) }, MemoryWireConfig::default());
    let (server, server_log) = echo_server(&mut stack, SocketOptions::DEFAULT);
    let (client, log, _) = client(&mut stack, 500, 500);
    stack.connect_with(client.app_workers[0], to(Family::V4, SocketOptions::DEFAULT), &stream(500)).unwrap();
    until(&mut stack, LONG, || log.cleaned() == 1);
    assert_eq!(log.outcomes(), [(0, Err(ConnectFailure::NoRoom))]);
    until(&mut stack, LONG, || server_log.closed() == server_log.accepted());
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn too_much_early_data_is_refused_at_once() {
    let mut stack = stack(1);
    let log = Log::default();
    let client = attach(&mut stack, "client", Probe::idle(&log));
    let too_long = stream(EARLY_DATA_MAX + 1);
    let app_worker = client.app_workers[0];
    let refused = |stack: &mut SingleThreaded, options, data: &[u8]| {
        assert_eq!(stack.connect_with(app_worker, options, data), Err(ConnectError::BadEarlyData));
    };
    refused(&mut stack, to(Family::V4, FAST), &too_long);
    let mut small = to(Family::V4, FAST);
    small.fifos.tx_capacity = 100;
    refused(&mut stack, small, &too_long[..101]);
    assert!(log.outcomes().is_empty());
    finish(stack, &[&client], &[&log]);
}

#[test]
fn apps_connect_with_early_data_in_callbacks_on_workers_and_on_main() {
    let mut stack = stack(2);
    let (server, server_log) = echo_server(&mut stack, FAST);
    let (log, got) = (Log::default(), Counter::default());
    let counter = got.clone();
    let connect = |options: ConnectOptions| (options, stream(700));
    let probe = Probe::new(&log, move |ctx, event| match *event {
        Event::Attached if ctx.worker() == WorkerId(0) => {
            let (options, data) = connect(to(Family::V4, FAST));
            ctx.connect_with(options, &data).unwrap();
        }
        Event::Readable(session) => {
            let count = drain(ctx, session);
            if counter.add(count as u64) + count as u64 >= 1400 || ctx.opaque(session) == 0 {
                ctx.close(session);
            }
        }
        _ => {}
    })
    .on_main(move |ctx, event| {
        if *event == Event::AppAttached {
            let app_worker = ctx.app_workers()[0];
            let (options, data) = connect(to(Family::V6, FAST));
            ctx.connect_with(app_worker, options, &data).unwrap();
        }
    });
    let client = attach(&mut stack, "client", probe);
    until(&mut stack, LONG, || log.closed() == 2);
    assert_eq!(got.value(), 1400);
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn with_syn_cookies_alone_connections_come_up_and_carry_all() {
    for family in FAMILIES {
        let tcp = TcpConfig { syn_cookies: SynCookies::Always, ..TcpConfig::default() };
        let mut stack = stack_of(StackConfig { tcp, ..config(2) }, MemoryWireConfig::default());
        let (server, server_log) = echo_server(&mut stack, FAST);
        let (client, log, echoes) = client(&mut stack, 1000, 60_000);
        for _ in 0..20 {
            stack.connect_with(client.app_workers[0], to(family, FAST), &stream(1000)).unwrap();
        }
        until(&mut stack, LONG, || log.closed() == 20);
        assert!(echoes.all().iter().all(|echo| echo.bytes == stream(60_000)));
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn a_wave_above_the_backlog_comes_up_without_a_retransmission() {
    let (mut stack, _) = impaired_stack(config(1), slow(10_000), slow(10_000));
    let log = Log::default();
    let server_log = Log::default();
    let server = attach(&mut stack, "server", Probe::idle(&server_log));
    let options = ListenOptions { backlog: 8, ..listen_on(Family::V4, 80) };
    stack.listen(server.app_workers[0], options).unwrap();
    let client = attach(&mut stack, "client", Probe::idle(&log));
    for _ in 0..200 {
        stack.connect(client.app_workers[0], to(Family::V4, SocketOptions::DEFAULT)).unwrap();
    }
    let began = stack.now();
    until(&mut stack, LONG, || log.up() == 200 && server_log.accepted() == 200);
    assert!(stack.now().since(began) < Duration::from_millis(500));
    finish(stack, &[&client, &server], &[&log, &server_log]);
}
