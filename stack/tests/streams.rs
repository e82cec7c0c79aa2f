//! Bytes between two apps of a stack: large transfers over good and bad links, windows that close, relays, and a chunk
//! pool that runs out.
// A guard that sends would hide what the arm does.
#![allow(clippy::collapsible_match)]

mod common;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, MemoryWireConfig};
use hoststack::{SessionLimits, SingleThreaded, StackConfig};

const LONG: Duration = Duration::from_secs(3600);

fn to(family: Family, port: u16) -> ConnectOptions {
    ConnectOptions::to(family.server(port))
}

/// Sends `total` bytes of the pattern, reads the peer's, half-closes when it has sent all, closes when the peer has.
fn both_ways(streams: &Streams, total: u64) -> impl Fn(&mut Context<'_>, &Event) + Send + Sync + 'static {
    let streams = streams.clone();
    move |ctx, event| match *event {
        Event::Connected(_, _, Ok(session)) | Event::Accepted(session) | Event::Writable(session) => {
            if streams.send(ctx, session, total) {
                ctx.half_close(session);
            }
        }
        Event::Readable(session) => {
            streams.receive(ctx, session, usize::MAX);
        }
        Event::PeerClosed(session) => {
            assert_eq!(streams.receive(ctx, session, usize::MAX), total);
            // Half-closed only when all is queued; else `Writable` is still to come.
            ctx.set_opaque(session, 1);
            if streams.send(ctx, session, total) {
                ctx.close(session);
            }
        }
        _ => {}
    }
}

fn transfer(mut stack: SingleThreaded, sessions: usize, total: u64, fifos: SessionOptions, family: Family) {
    let (log, server_log) = (Log::default(), Log::default());
    let (ours, theirs) = (Streams::default(), Streams::default());
    let server = attach(&mut stack, "server", Probe::new(&server_log, both_ways(&theirs, total)));
    stack.listen(server.app_workers[0], ListenOptions { fifos, ..listen_on(family, 80) }).unwrap();
    let client = attach(&mut stack, "client", Probe::new(&log, both_ways(&ours, total)));
    for _ in 0..sessions {
        let options = ConnectOptions { fifos, timeout: Duration::from_secs(300), ..to(family, 80) };
        stack.connect(client.app_workers[0], options).unwrap();
    }
    until(&mut stack, LONG, || log.closed() == sessions && server_log.closed() == sessions);
    for stream in ours.all().iter().chain(&theirs.all()) {
        assert_eq!((stream.sent, stream.got), (total, total));
    }
    for log in [&log, &server_log] {
        assert!(log.ends().iter().all(|end| *end == CloseReason::Finished), "{:?}", log.ends());
    }
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn four_megabytes_both_ways_arrive_unharmed() {
    for family in FAMILIES {
        for workers in [1, 2] {
            transfer(stack(workers), 1, 4 << 20, SessionOptions::default(), family);
        }
    }
}

#[test]
fn many_sessions_over_a_lossy_reordering_duplicating_link() {
    for (seed, family) in (1..).zip(FAMILIES) {
        let bad = |seed| Impairments {
            seed,
            loss: 0.02,
            duplicate: 0.01,
            reorder: 0.02,
            delay_us: 2_000,
            jitter_us: 1_000,
            ..Impairments::default()
        };
        let (stack, counters) = impaired_stack(config(2), bad(seed), bad(seed + 100));
        transfer(stack, 20, 200_000, SessionOptions::default(), family);
        assert!(counters.iter().all(|c| c.dropped() > 0 && c.duplicated() > 0 && c.reordered() > 0));
    }
}

#[test]
fn a_corrupting_link_is_seen_through() {
    let bad = Impairments { seed: 5, corrupt: 0.02, delay_us: 500, ..Impairments::default() };
    let (stack, counters) = impaired_stack(config(1), bad, bad);
    transfer(stack, 5, 200_000, SessionOptions::default(), Family::V4);
    assert!(counters.iter().all(|c| c.corrupted() > 0));
}

#[test]
fn a_slow_link_with_a_short_queue_is_filled_and_not_more() {
    let slow = Impairments {
        rate_bits_per_second: Some(10_000_000),
        queue_bytes: 20_000,
        delay_us: 10_000,
        ..Impairments::default()
    };
    let (stack, counters) = impaired_stack(config(2), slow, slow);
    transfer(stack, 4, 500_000, SessionOptions::default(), Family::V6);
    assert!(counters[0].queue_dropped() > 0);
}

#[test]
fn windows_from_a_byte_to_a_megabyte_work() {
    for capacity in [1, 10, 1460, 5000, 65_535, 65_536, 1 << 20] {
        let fifos =
            SessionOptions { rx_capacity: capacity, tx_capacity: capacity, ..SessionOptions::default() };
        let total = if capacity < 1000 { 300 } else { 1_000_000 };
        transfer(stack(1), 2, total, fifos, Family::V4);
    }
}

#[test]
fn a_small_mtu_and_a_large_one_work() {
    for mtu in [1280, 9000] {
        let wire = MemoryWireConfig { mtu, ..MemoryWireConfig::default() };
        transfer(stack_of(config(2), wire), 2, 300_000, SessionOptions::default(), Family::V4);
    }
}

#[test]
fn a_tiny_ring_is_back_pressure_not_failure() {
    let wire = MemoryWireConfig { ring_packets: 4, ..MemoryWireConfig::default() };
    transfer(stack_of(config(2), wire), 5, 300_000, SessionOptions::default(), Family::V4);
}

/// The consumer reads 1000 bytes a tick: the window closes, and reopens by updates and probes.
#[test]
fn a_slow_consumer_closes_the_window_and_gets_everything() {
    for tick in [Duration::from_millis(1), Duration::from_secs(2)] {
        let total = 200_000;
        let mut stack = stack(2);
        let (log, server_log) = (Log::default(), Log::default());
        let (ours, theirs) = (Streams::default(), Streams::default());
        let consumer = theirs.clone();
        let probe = Probe::new(&server_log, move |ctx, event| match *event {
            Event::Accepted(session) => ctx.set_timer(session.as_u64(), tick),
            Event::Timer(token) => {
                let session = SessionHandle::from_u64(token);
                if consumer.receive(ctx, session, 5000) < total {
                    ctx.set_timer(token, tick);
                } else {
                    ctx.close(session);
                }
            }
            _ => {}
        });
        let server = attach(&mut stack, "server", probe);
        let fifos = SessionOptions { rx_capacity: 20_000, tx_capacity: 20_000, ..SessionOptions::default() };
        stack.listen(server.app_workers[0], ListenOptions { fifos, ..listen_on(Family::V4, 80) }).unwrap();
        let producer = ours.clone();
        let probe = Probe::new(&log, move |ctx, event| match *event {
            Event::Connected(_, _, Ok(session)) | Event::Writable(session) => {
                producer.send(ctx, session, total);
            }
            Event::PeerClosed(session) => ctx.close(session),
            _ => {}
        });
        let client = attach(&mut stack, "client", probe);
        stack.connect(client.app_workers[0], ConnectOptions { fifos, ..to(Family::V4, 80) }).unwrap();
        until(&mut stack, LONG, || log.closed() == 1 && server_log.closed() == 1);
        assert_eq!((ours.all()[0].sent, theirs.all()[0].got), (total, total));
        assert!(log.count(|event| matches!(event, Event::Writable(_))) >= 5, "it wrote in several parts");
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

// covers: N03
#[test]
fn a_server_that_speaks_first_is_heard_after_the_announcement() {
    // With loss in the other direction, so that data comes before and after a retransmitted ACK.
    for (seed, workers) in (0..20).zip([1, 2, 4].into_iter().cycle()) {
        let bad = Impairments { seed, loss: 0.2, delay_us: 100, ..Impairments::default() };
        let (mut stack, _) = impaired_stack(config(workers), bad, Impairments::default());
        let (log, server_log) = (Log::default(), Log::default());
        let (ours, theirs) = (Streams::default(), Streams::default());
        let speaker = theirs.clone();
        let server = serve(
            &mut stack,
            Probe::new(&server_log, move |ctx, event| {
                if let Event::Accepted(session) = *event {
                    assert!(speaker.send(ctx, session, 5000));
                    ctx.close(session);
                }
            }),
            80,
        );
        let listener = ours.clone();
        let probe = Probe::new(&log, move |ctx, event| match *event {
            Event::Readable(session) => {
                listener.receive(ctx, session, usize::MAX);
            }
            Event::PeerClosed(session) => {
                assert_eq!(listener.receive(ctx, session, usize::MAX), 5000);
                ctx.close(session);
            }
            _ => {}
        });
        let client = attach(&mut stack, "client", probe);
        for _ in 0..5 {
            stack.connect(client.app_workers[0], to(Family::V4, 80)).unwrap();
        }
        until(&mut stack, LONG, || log.closed() == 5 && server_log.closed() == 5);
        log.check(true);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

/// A relay: what comes from the client goes out on a session that the relay opened, and back.
// covers: G02, M07
#[test]
fn a_relay_between_two_sessions_passes_both_streams_unharmed() {
    let bad = |seed| Impairments { seed, loss: 0.01, delay_us: 300, ..Impairments::default() };
    let (mut stack, _) = impaired_stack(config(1), bad(1), bad(2));
    let total = 500_000;
    let (log, relay_log, server_log) = (Log::default(), Log::default(), Log::default());
    let (ours, theirs) = (Streams::default(), Streams::default());
    let server = attach(&mut stack, "origin", Probe::new(&server_log, both_ways(&theirs, total)));
    stack
        .listen(
            server.app_workers[0],
            ListenOptions {
                domain: CLIENT,
                ..ListenOptions::on(std::net::SocketAddr::new(Family::V4.client_addr(), 80))
            },
        )
        .unwrap();

    // Each session's opaque value is its partner's handle.
    let ended = parking_lot::Mutex::new(std::collections::BTreeSet::new());
    let probe = Probe::new(&relay_log, move |ctx, event| {
        // Moves what can be moved; passes the end on once the last bytes were (`closed` waits for them).
        let pump = |ctx: &mut Context<'_>, from: SessionHandle| {
            let to = SessionHandle::from_u64(ctx.opaque(from));
            while ctx.splice(from, to) > 0 {}
            if ctx.rx_len(from) == 0 && ended.lock().contains(&from) {
                ctx.half_close(to);
            }
        };
        match *event {
            Event::Accepted(session) => {
                let remote = std::net::SocketAddr::new(Family::V4.client_addr(), 80);
                let options =
                    ConnectOptions { opaque: session.as_u64(), domain: SERVER, ..ConnectOptions::to(remote) };
                ctx.connect(options).unwrap();
            }
            Event::Connected(_, partner, Ok(session)) => {
                ctx.set_opaque(SessionHandle::from_u64(partner), session.as_u64());
                pump(ctx, SessionHandle::from_u64(partner));
            }
            Event::Readable(session) => pump(ctx, session),
            Event::Writable(session) => {
                // Room on `session`: its partner's bytes move on.
                let partner = SessionHandle::from_u64(ctx.opaque(session));
                pump(ctx, partner);
            }
            Event::PeerClosed(session) => {
                ended.lock().insert(session);
                pump(ctx, session);
            }
            _ => {}
        }
    });
    let relay = serve(&mut stack, probe, 80);
    let client = attach(&mut stack, "client", Probe::new(&log, both_ways(&ours, total)));
    for _ in 0..3 {
        stack.connect(client.app_workers[0], to(Family::V4, 80)).unwrap();
    }
    until(&mut stack, LONG, || log.closed() == 3 && server_log.closed() == 3 && relay_log.closed() == 6);
    for stream in ours.all().iter().chain(&theirs.all()) {
        assert_eq!((stream.sent, stream.got), (total, total));
    }
    assert!(relay_log.ends().iter().all(|end| *end == CloseReason::Finished), "{:?}", relay_log.ends());
    finish(stack, &[&client, &relay, &server], &[&log, &relay_log, &server_log]);
}

#[test]
fn writing_in_place_and_reading_in_place_are_the_same_stream() {
    let mut stack = stack(1);
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::echo(&server_log), 80);
    let (sent, got) = (Counter::default(), Counter::default());
    let total = 100_000;
    let counted = got.clone();
    let probe = Probe::new(&log, move |ctx, event| match *event {
        Event::Connected(_, _, Ok(session)) | Event::Writable(session) => {
            while sent.value() < total {
                let want = (total - sent.value()).min(777) as usize;
                let room = ctx.reserve(session, want);
                let count = room.len();
                if count == 0 {
                    break;
                }
                for (byte, position) in room.iter_mut().zip(sent.value()..) {
                    *byte = pattern(position);
                }
                // Now and then nothing, or only a part.
                let used = if sent.value().is_multiple_of(5) { count / 2 } else { count };
                ctx.commit(session, used.max(1));
                ctx.reserve(session, 10);
                ctx.commit(session, 0);
                sent.add(used.max(1) as u64);
            }
        }
        Event::Readable(session) => {
            loop {
                let piece = ctx.peek(session);
                if piece.is_empty() {
                    break;
                }
                let count = piece.len().min(999);
                for (byte, position) in piece[..count].iter().zip(counted.value()..) {
                    assert_eq!(*byte, pattern(position));
                }
                assert_eq!(ctx.consume(session, count), count);
                counted.add(count as u64);
            }
            if counted.value() == total {
                ctx.close(session);
            }
        }
        _ => {}
    });
    let client = attach(&mut stack, "client", probe);
    stack.connect(client.app_workers[0], to(Family::V6, 80)).unwrap();
    until(&mut stack, LONG, || log.closed() == 1 && server_log.closed() == 1);
    assert_eq!(got.value(), total);
    assert_eq!(log.ends(), [CloseReason::Finished]);
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

/// A pool that holds a fraction of what all sessions want: everyone gets on, nobody waits for ever.
#[test]
fn a_chunk_pool_that_runs_out_stalls_nobody_for_ever() {
    for (chunks, echoes) in [(12, false), (40, false), (100, false), (40, true), (100, true)] {
        for seed in 1..=3 {
            let sessions = SessionLimits { chunk_bytes: 1024, chunks, ..SessionLimits::default() };
            let mut stack = stack_of(
                StackConfig { sessions, seed: Some(seed), ..config(1) },
                MemoryWireConfig::default(),
            );
            let (log, server_log) = (Log::default(), Log::default());
            let (ours, theirs) = (Streams::default(), Streams::default());
            let total = 30_000;
            let probe = if echoes {
                Probe::echo(&server_log)
            } else {
                Probe::new(&server_log, both_ways(&theirs, total))
            };
            let server = serve(&mut stack, probe, 80);
            let client = attach(&mut stack, "client", Probe::new(&log, both_ways(&ours, total)));
            for _ in 0..20 {
                stack.connect(client.app_workers[0], to(Family::V4, 80)).unwrap();
            }
            let reached = stack.run_until(LONG, |stack| {
                stack.check_consistency();
                log.closed() == 20 && server_log.closed() == 20
            });
            assert!(reached, "{chunks} chunks, echo {echoes}: {:?} and {:?}", log.ends(), server_log.ends());
            assert!(ours.all().iter().all(|stream| (stream.sent, stream.got) == (total, total)));
            finish(stack, &[&client, &server], &[&log, &server_log]);
        }
    }
}

/// How long 20 MB take over 100 Mbit/s and a round trip of 100 ms, in ms: 1.6 s at least.
fn long_path_ms(fifos: SessionOptions, rx_window_initial: u32) -> u128 {
    let link = Impairments {
        rate_bits_per_second: Some(100_000_000),
        queue_bytes: 1_250_000,
        delay_us: 50_000,
        ..Impairments::default()
    };
    let (mut stack, _) = impaired_stack(config(1), link, link);
    let total = 20_000_000;
    let (log, server_log) = (Log::default(), Log::default());
    let socket = SocketOptions { rx_window_initial, ..SocketOptions::DEFAULT };
    let server = attach(&mut stack, "server", Probe::sink(&server_log));
    let listen = ListenOptions { fifos, socket, ..listen_on(Family::V4, 80) };
    stack.listen(server.app_workers[0], listen).unwrap();
    let streams = Streams::default();
    let client = attach(
        &mut stack,
        "client",
        Probe::new(&log, move |ctx, event| {
            if let Event::Connected(_, _, Ok(session)) | Event::Writable(session) = *event
                && streams.send(ctx, session, total)
            {
                ctx.half_close(session);
            }
            close_with_peer(ctx, event);
        }),
    );
    let options = ConnectOptions { fifos, socket, ..to(Family::V4, 80) };
    stack.connect(client.app_workers[0], options).unwrap();
    let from = stack.now();
    until(&mut stack, LONG, || log.closed() == 1 && server_log.closed() == 1);
    let took = stack.now().since(from).as_millis();
    finish(stack, &[&client, &server], &[&log, &server_log]);
    took
}

#[test]
fn buffers_that_grow_fill_a_long_path_as_large_ones_do() {
    let (small, large) = (1 << 16, 1 << 23);
    let fifos = |tx, tx_max| SessionOptions { rx_capacity: large, tx_capacity: tx, tx_capacity_max: tx_max };
    let whole = long_path_ms(fifos(large, 0), u32::MAX);
    let grown = long_path_ms(fifos(small, large), small);
    let (fixed_tx, fixed_rx) = (
        long_path_ms(fifos(small, 0), u32::MAX),
        long_path_ms(SessionOptions { rx_capacity: small, ..fifos(large, 0) }, u32::MAX),
    );
    assert!(whole < 4000 && grown * 10 <= whole * 11, "{grown} ms, {whole} ms with large ones");
    // What a buffer of one size costs: 64 KiB in a round trip.
    assert!(fixed_tx > 20_000 && fixed_rx > 20_000, "{fixed_tx} ms, {fixed_rx} ms with small ones");
}
