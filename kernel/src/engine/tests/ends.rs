//! How connections end: exactly once, and after what was said before.

use super::*;

#[test]
fn bytes_come_before_the_end() {
    let mut w = World::new();
    let (session, wire) = w.up();
    wire.sends("last words");
    wire.ends();
    assert_eq!(w.told(&wire, ENDED), [received(session), peer_closed(session)]);
    // We may go on.
    w.layer.write(session, b"answer");
    assert_eq!(w.transmits(), [acknowledged(session)]);
    assert_eq!(w.told(&wire, ENDED), [], "told once");
}

#[test]
fn bytes_come_before_the_error() {
    for (error, reason) in [
        (Errno::CONNRESET, CloseReason::PeerReset),
        (Errno::PIPE, CloseReason::PeerReset),
        (Errno::TIMEDOUT, CloseReason::TimedOut),
        (Errno::HOSTUNREACH, CloseReason::Unreachable),
        (Errno::NETUNREACH, CloseReason::Unreachable),
        (Errno::NOMEM, CloseReason::NoRoom),
    ] {
        let mut w = World::new();
        let (session, wire) = w.up();
        wire.sends("last words");
        wire.script().reads.push_back(Err(error));
        // An error alone is enough to be looked at.
        let failed = Readiness { error: true, readable: false, ..READABLE };
        assert_eq!(w.told(&wire, failed), [received(session), closed(session, reason)]);
        assert_eq!(w.layer.of(session).rx, b"last words");
        w.is_over(session, &wire);
    }
}

#[test]
fn bytes_that_there_is_no_room_for_come_before_the_error_too() {
    let mut w = World::new();
    w.layer.rx_capacity = 4;
    let (session, wire) = w.up();
    wire.sends("last words");
    wire.script().reads.push_back(Err(Errno::CONNRESET));
    assert_eq!(w.told(&wire, FAILED), [received(session)]);
    w.layer.read(session);
    assert_eq!(w.transmits(), [received(session)]);
    w.layer.read(session);
    assert_eq!(w.transmits(), [received(session), closed(session, CloseReason::PeerReset)]);
    assert_eq!(w.layer.of(session).rx, b"last words");
    w.is_over(session, &wire);
}

#[test]
fn an_error_does_not_wait_for_ever_for_an_app_that_does_not_read() {
    let mut w = World::new();
    w.layer.rx_capacity = 4;
    let (session, wire) = w.up();
    wire.sends("last words");
    wire.script().error = Some(Errno::TIMEDOUT);
    assert_eq!(w.told(&wire, FAILED), [received(session)]);
    w.now = w.engine.next_deadline().expect("the end is bounded");
    assert!(w.poll());
    assert_eq!(w.taken(), [closed(session, CloseReason::TimedOut)]);
    w.is_over(session, &wire);

    // Unless it was none: also if the app finds that out.
    let mut w = World::new();
    w.layer.rx_capacity = 4;
    let (session, wire) = w.up();
    wire.sends("words");
    assert_eq!(w.told(&wire, FAILED), [received(session)]);
    w.layer.read(session);
    assert_eq!(w.transmits(), [received(session)]);
    assert_eq!((w.engine.connections(), w.engine.armed_timers()), (1, 0));

    let mut w = World::new();
    w.layer.rx_capacity = 4;
    let (session, wire) = w.up();
    wire.sends("more words");
    assert_eq!(w.told(&wire, FAILED), [received(session)]);
    w.now = w.engine.next_deadline().unwrap();
    w.poll();
    assert_eq!((w.taken(), w.engine.connections()), (vec![], 1));
    assert_eq!(w.engine.armed_timers(), 0);
}

#[test]
fn a_failed_write_is_told_after_what_can_be_read() {
    let mut w = World::new();
    let (session, wire) = w.up();
    w.layer.write(session, b"into the void");
    wire.script().writes.push_back(Err(Errno::CONNRESET));
    wire.sends("last words");
    // The write took the error away: what follows looks like an end.
    wire.ends();
    assert_eq!(w.transmits(), [received(session), closed(session, CloseReason::PeerReset)]);
    w.is_over(session, &wire);
}

#[test]
fn a_failed_write_is_told_at_once_if_nothing_is_left_to_read() {
    for is_eof in [false, true] {
        let mut w = World::new();
        let (session, wire) = w.up();
        if is_eof {
            wire.ends();
            assert_eq!(w.told(&wire, ENDED), [peer_closed(session)]);
        }
        w.layer.write(session, b"into the void");
        wire.script().writes.push_back(Err(Errno::PIPE));
        assert_eq!(w.transmits(), [closed(session, CloseReason::PeerReset)]);
        w.is_over(session, &wire);
    }
}

#[test]
fn a_failed_write_waits_for_the_app_to_read_but_not_for_ever() {
    for reads in [true, false] {
        let mut w = World::new();
        w.layer.rx_capacity = 4;
        let (session, wire) = w.up();
        wire.sends("last words");
        w.told(&wire, READABLE);
        w.layer.write(session, b"into the void");
        wire.script().writes.push_back(Err(Errno::TIMEDOUT));
        assert_eq!(w.transmits(), []);
        assert!(!w.engine.has_work());
        // Nothing more is tried.
        w.layer.write(session, b"again");
        assert_eq!(w.transmits(), []);
        assert_eq!(wire.script().write_calls, 1);
        let end = closed(session, CloseReason::TimedOut);
        if reads {
            w.layer.read(session);
            assert_eq!(w.transmits(), [received(session)]);
            w.layer.read(session);
            assert_eq!(w.transmits(), [received(session), end]);
            assert_eq!(w.layer.of(session).rx, b"last words");
        } else {
            w.now = w.engine.next_deadline().expect("the end is bounded");
            w.poll();
            assert_eq!(w.taken(), [end]);
        }
        w.is_over(session, &wire);
    }
}

#[test]
fn a_reset_after_the_peers_end_is_told() {
    let mut w = World::new();
    let (session, wire) = w.up();
    wire.ends();
    assert_eq!(w.told(&wire, ENDED), [peer_closed(session)]);
    wire.script().error = Some(Errno::CONNRESET);
    assert_eq!(w.told(&wire, FAILED), [closed(session, CloseReason::PeerReset)]);
    w.is_over(session, &wire);
}

// ---- close ----

#[test]
fn a_close_with_nothing_queued_is_over_at_once() {
    let mut w = World::new();
    let (session, wire) = w.up();
    assert_eq!(w.closes(session), [closed(session, CloseReason::Finished)]);
    assert!(!wire.script().is_reset);
    w.is_over(session, &wire);
}

#[test]
fn a_close_sends_what_is_queued_and_drops_what_comes() {
    let mut w = World::new();
    let (session, wire) = w.up();
    w.layer.write(session, b"goodbye");
    wire.script().writes.extend([Ok(4), Err(Errno::AGAIN)]);
    assert_eq!(w.closes(session), [acknowledged(session)]);
    // A peer that writes before it reads is not blocked by us.
    wire.sends(stream(1000));
    assert_eq!(w.told(&wire, READABLE), []);
    assert!(w.layer.of(session).rx.is_empty() && wire.script().reads.is_empty());
    wire.ends();
    assert_eq!(w.told(&wire, ENDED), []);
    assert_eq!(w.told(&wire, WRITABLE), []);
    assert_eq!(w.transmits(), [acknowledged(session), closed(session, CloseReason::Finished)]);
    assert_eq!(wire.script().written, b"goodbye");
    assert_eq!(w.ended.map(|stats| stats.bytes_out), Some(7));
    assert!(!wire.script().is_reset);
    w.is_over(session, &wire);
}

#[test]
fn a_close_with_more_than_a_turn_queued_goes_on_with_the_schedule() {
    let mut w = World::new();
    let (session, wire) = w.up();
    let bytes = stream(2 * TURN_MAX + 1);
    w.layer.write(session, &bytes);
    assert_eq!(w.closes(session), [acknowledged(session)]);
    assert_eq!(w.transmits(), [acknowledged(session)]);
    assert_eq!(w.transmits(), [acknowledged(session), closed(session, CloseReason::Finished)]);
    assert_eq!(wire.script().written, bytes);
    w.is_over(session, &wire);
}

#[test]
fn a_close_whose_peer_is_gone_is_over_with_its_error() {
    for by_write in [true, false] {
        let mut w = World::new();
        let (session, wire) = w.up();
        w.layer.write(session, b"goodbye");
        wire.script().writes.push_back(Err(Errno::AGAIN));
        assert_eq!(w.closes(session), []);
        let told = if by_write {
            wire.script().writes.push_back(Err(Errno::PIPE));
            assert_eq!(w.told(&wire, WRITABLE), []);
            w.transmits()
        } else {
            wire.script().reads.push_back(Err(Errno::CONNRESET));
            w.told(&wire, FAILED)
        };
        assert_eq!(told, [closed(session, CloseReason::PeerReset)]);
        w.is_over(session, &wire);
    }
}

#[test]
fn a_close_lingers_no_longer_than_it_may() {
    let mut w = World::new();
    let (session, wire) = w.up_with(SocketOptions { linger_ms: Some(50), ..SocketOptions::DEFAULT });
    w.layer.write(session, b"goodbye");
    wire.script().writes.push_back(Err(Errno::AGAIN));
    assert_eq!(w.closes(session), []);
    assert_eq!(w.engine.next_deadline(), Some(w.now + Duration::from_millis(50)));
    w.now = ms(50);
    assert!(!w.poll());
    w.now = ms(51);
    assert!(w.poll());
    assert_eq!(w.taken(), [closed(session, CloseReason::LocalReset)]);
    assert!(wire.script().is_reset);
    w.is_over(session, &wire);
}

#[test]
fn a_close_that_would_lose_data_or_may_not_linger_resets() {
    for has_unread in [true, false] {
        let mut w = World::new();
        let linger_ms = if has_unread { None } else { Some(0) };
        let (session, wire) = w.up_with(SocketOptions { linger_ms, ..SocketOptions::DEFAULT });
        if has_unread {
            wire.sends("unread");
            w.told(&wire, READABLE);
        }
        w.layer.write(session, b"goodbye");
        assert_eq!(w.closes(session), [closed(session, CloseReason::LocalReset)]);
        assert!(wire.script().is_reset && wire.script().written.is_empty());
        w.is_over(session, &wire);
    }
}

#[test]
fn a_close_that_would_lose_what_there_was_no_memory_for_resets() {
    let mut w = World::new();
    w.layer.memory = 0;
    let (session, wire) = w.up();
    wire.sends("unread");
    assert_eq!(w.told(&wire, READABLE), []);
    assert_eq!(w.closes(session), [closed(session, CloseReason::LocalReset)]);
    assert!(wire.script().is_reset);
}

#[test]
fn a_close_of_one_that_failed_is_over() {
    let mut w = World::new();
    w.layer.rx_capacity = 4;
    let (session, wire) = w.up();
    wire.sends("last words");
    w.told(&wire, READABLE);
    w.layer.write(session, b"into the void");
    wire.script().writes.push_back(Err(Errno::PIPE));
    assert_eq!(w.transmits(), []);
    w.layer.read(session);
    w.layer.programmed.clear();
    assert_eq!(w.closes(session), [closed(session, CloseReason::PeerReset)]);
    w.is_over(session, &wire);
}

// ---- half_close ----

#[test]
fn a_half_close_follows_what_is_queued_and_both_ends_are_the_end() {
    let mut w = World::new();
    let (session, wire) = w.up();
    w.layer.write(session, b"question");
    wire.script().writes.extend([Ok(4), Err(Errno::AGAIN)]);
    assert_eq!(w.half_closes(session), [acknowledged(session)]);
    assert!(!wire.script().is_finished);
    assert_eq!(w.told(&wire, WRITABLE), []);
    assert_eq!(w.transmits(), [acknowledged(session)]);
    assert!(wire.script().is_finished);
    assert_eq!(wire.script().written, b"question");
    wire.sends("answer");
    wire.ends();
    assert_eq!(
        w.told(&wire, ENDED),
        [received(session), peer_closed(session), closed(session, CloseReason::Finished)]
    );
    w.is_over(session, &wire);
}

#[test]
fn a_half_close_after_the_peers_is_the_end() {
    let mut w = World::new();
    let (session, wire) = w.up();
    wire.ends();
    assert_eq!(w.told(&wire, ENDED), [peer_closed(session)]);
    assert_eq!(w.half_closes(session), [closed(session, CloseReason::Finished)]);
    assert!(wire.script().is_finished);
    w.is_over(session, &wire);
}

#[test]
fn a_half_close_that_finds_the_peer_gone_fails() {
    let mut w = World::new();
    let (session, wire) = w.up();
    wire.script().finish = Some(Errno::NOTCONN);
    wire.script().error = Some(Errno::TIMEDOUT);
    assert_eq!(w.half_closes(session), []);
    wire.ends();
    assert!(w.poll());
    assert_eq!(w.taken(), [closed(session, CloseReason::TimedOut)]);
    w.is_over(session, &wire);
}

#[test]
fn a_close_after_a_half_close_is_over_at_once() {
    let mut w = World::new();
    let (session, wire) = w.up();
    assert_eq!(w.half_closes(session), []);
    assert_eq!(w.closes(session), [closed(session, CloseReason::Finished)]);
    w.is_over(session, &wire);
}

// ---- reset ----

#[test]
fn a_reset_comes_after_what_had_happened() {
    let mut w = World::new();
    let (session, wire) = w.up();
    w.layer.write(session, b"data");
    let connection = w.connection(session);
    let done = w.engine.transmit(w.now, connection, BURST, &mut w.layer, &mut (), &mut w.events);
    assert_eq!(done, Transmitted::Idle);
    assert_eq!(w.resets(session), [acknowledged(session), closed(session, CloseReason::LocalReset)]);
    assert!(wire.script().is_reset);
    assert_eq!(w.engine.counters().local_resets, 1);
    w.is_over(session, &wire);
}
