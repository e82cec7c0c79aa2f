//! A link that swallows large packets and tells nobody: connections that probe (RFC 4821) get through it.
// A guard that sends would hide what the arm does.
#![allow(clippy::collapsible_match)]

mod common;

use std::sync::Arc;

use common::*;
use hoststack::app::*;
use hoststack::net::Impairments;
use parking_lot::Mutex;

/// The link takes packets of this; its interfaces say 1500.
const TAKES: usize = 1320;
const PROBING: SocketOptions = SocketOptions { mtu_probing: true, ..SocketOptions::DEFAULT };

/// A client sends `total` bytes to a server: what its connection measured when it wrote last; `None` if
/// they did not arrive `within` that time.
fn upload(family: Family, socket: SocketOptions, total: u64, within: Duration) -> Option<ConnectionStats> {
    let hole = Impairments { frame_bytes_max: TAKES, delay_us: 10_000, ..Impairments::default() };
    let (mut stack, counters) = impaired_stack(config(1), hole, hole);
    let (log, server_log) = (Log::default(), Log::default());
    let (ours, theirs) = (Streams::default(), Streams::default());
    let reads = theirs.clone();
    let sink = Probe::new(&server_log, move |ctx, event| match *event {
        Event::Readable(session) => {
            reads.receive(ctx, session, usize::MAX);
        }
        Event::PeerClosed(session) => {
            reads.receive(ctx, session, usize::MAX);
            ctx.close(session);
        }
        _ => {}
    });
    let server = attach(&mut stack, "server", sink);
    stack.listen(server.app_workers[0], listen_on(family, 80)).expect("listening");
    let measured = Arc::new(Mutex::new(None));
    let (writes, notes) = (ours.clone(), Arc::clone(&measured));
    let source = Probe::new(&log, move |ctx, event| match *event {
        Event::Connected(_, _, Ok(session)) | Event::Writable(session) => {
            *notes.lock() = ctx.stats(session).ok();
            if writes.send(ctx, session, total) {
                ctx.half_close(session);
            }
        }
        Event::PeerClosed(session) => {
            ctx.close(session);
        }
        _ => {}
    });
    let client = attach(&mut stack, "client", source);
    let options = ConnectOptions { socket, ..ConnectOptions::to(family.server(80)) };
    stack.connect(client.app_workers[0], options).expect("a connect");
    let is_done = stack.run_until(within, |_| log.closed() == 1 && server_log.closed() == 1);
    assert!(counters[0].dropped() > 0, "the link took all");
    let stats = *measured.lock();
    if is_done {
        assert_eq!(theirs.all().iter().map(|stream| stream.got).sum::<u64>(), total);
    }
    finish(stack, &[&client, &server], &[&log, &server_log]);
    stats.filter(|_| is_done)
}

#[test]
fn a_black_hole_is_seen_through_with_mtu_probing() {
    for family in FAMILIES {
        let stats = upload(family, PROBING, 30_000_000, Duration::from_secs(120)).expect("it gets through");
        let path_mtu = usize::from(stats.path_mtu);
        assert!(path_mtu <= TAKES && TAKES - path_mtu < 8, "{family:?}: {stats:?}");
        assert!(stats.mss < stats.path_mtu);
    }
}

#[test]
fn without_it_nothing_large_arrives() {
    assert_eq!(upload(Family::V4, SocketOptions::DEFAULT, 100_000, Duration::from_secs(120)), None);
}
