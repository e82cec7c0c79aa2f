//! Urgent data between two apps (RFC 9293 §3.8.5): where it ends, told ahead, and all of it read in line.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use hoststack::app::*;

const URGENT: u64 = 20_000;
const TOTAL: u64 = 50_000;

fn bytes(from: u64, to: u64) -> Vec<u8> {
    (from..to).map(pattern).collect()
}

// covers: MUST-30, MUST-31, MUST-32, MUST-33
#[test]
fn urgent_data_of_any_length_is_told_and_counted_down_while_it_is_read() {
    for family in FAMILIES {
        let mut stack = stack(2);
        let (log, server_log) = (Log::default(), Log::default());
        let streams = Streams::default();
        let (reads, most_left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (got, counted, most) = (streams.clone(), Arc::clone(&reads), Arc::clone(&most_left));
        let server = serve(
            &mut stack,
            Probe::new(&server_log, move |ctx, event| match *event {
                Event::Urgent(session) => {
                    let left = ctx.urgent_left(session);
                    assert!(left > 0 && left <= URGENT as usize);
                    most.fetch_max(left, Ordering::Relaxed);
                }
                Event::Readable(session) => {
                    let before = ctx.urgent_left(session);
                    let at = got.receive(ctx, session, 0);
                    let count = got.receive(ctx, session, 500) - at;
                    assert_eq!(ctx.urgent_left(session), before.saturating_sub(count as usize));
                    assert!(
                        before == 0 || at + before as u64 <= URGENT,
                        "what is urgent ends where the peer said"
                    );
                    counted.fetch_add(1, Ordering::Relaxed);
                    got.receive(ctx, session, usize::MAX);
                }
                Event::PeerClosed(session) => {
                    assert_eq!((got.receive(ctx, session, usize::MAX), ctx.urgent_left(session)), (TOTAL, 0));
                    ctx.close(session);
                }
                _ => {}
            }),
            80,
        );
        let client = attach(
            &mut stack,
            "client",
            Probe::new(&log, move |ctx, event| match *event {
                Event::Connected(_, _, Ok(session)) | Event::Writable(session) => {
                    // The opaque value is how much was written.
                    let from = ctx.opaque(session);
                    let count = if from < URGENT {
                        ctx.write_urgent(session, &bytes(from, URGENT))
                    } else {
                        ctx.write(session, &bytes(from, TOTAL))
                    };
                    ctx.set_opaque(session, from + count as u64);
                    if from + count as u64 == TOTAL {
                        ctx.half_close(session);
                    } else {
                        ctx.want_room(session);
                    }
                }
                _ => close_with_peer(ctx, event),
            }),
        );
        let fifos = SessionOptions { tx_capacity: 7000, ..SessionOptions::default() };
        stack
            .connect(client.app_workers[0], ConnectOptions { fifos, ..ConnectOptions::to(family.server(80)) })
            .unwrap();
        until(&mut stack, Duration::from_secs(60), || log.closed() == 1 && server_log.closed() == 1);
        // Told once for each write at the most, and before the first byte was readable.
        let events = server_log.events();
        let urgent = events.iter().filter(|event| matches!(event, Event::Urgent(_))).count();
        assert!((2..=6).contains(&urgent), "{events:?}");
        let first = |matches: fn(&Event) -> bool| events.iter().position(matches);
        assert!(first(|e| matches!(e, Event::Urgent(_))) < first(|e| matches!(e, Event::Readable(_))));
        assert!(most_left.load(Ordering::Relaxed) >= 6000 && reads.load(Ordering::Relaxed) > 1);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}
