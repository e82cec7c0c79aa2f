//! Sessions without a transport: what apps are told, and when, while the chunk pool is exhausted.

use std::net::{IpAddr, Ipv4Addr};

use hoststack_transport::border::{SessionLayer, TransportEvent};
use hoststack_transport::{DomainId, EndStats, Endpoint, Key, ListenerId, Protocol};

use super::*;
use crate::StagePlans;
use crate::lookup::ListenerRecord;

const KEY: Key = Key { slot: 0, generation: 1 };
const CHUNK: usize = 64;

/// A worker's sessions with `chunks` chunks of 64 bytes, one app worker and its listener.
fn sessions(chunks: usize) -> Sessions {
    let limits = SessionLimits { sessions: 8, chunk_bytes: CHUNK, chunks };
    let mut sessions = Sessions::new(WorkerId(0), &limits);
    sessions.app_workers().attach(AppWorkerId(KEY));
    sessions.listeners().add(ListenerRecord {
        id: ListenerId(KEY),
        app_worker: AppWorkerId(KEY),
        opaque: 0,
        options: SessionOptions { rx_capacity: 1000, tx_capacity: 1000, tx_capacity_max: 3000 },
        stages: StagePlans::NONE,
        stage_timeout: hoststack_transport::Duration::from_secs(1),
    });
    sessions
}

/// A session that was accepted and announced.
fn accepted(sessions: &mut Sessions, number: u16) -> SessionId {
    let end = |port| Endpoint::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let flow = FlowKey { local: end(1), remote: end(number), domain: DomainId(0), protocol: Protocol::Tcp };
    let connection = ConnectionId(Key { slot: u32::from(number), generation: 1 });
    let id = sessions.accept(ListenerId(KEY), connection, &flow).unwrap();
    sessions.on_event(&TransportEvent::Accepted { session: id });
    assert_eq!(sessions.next_ready().map(|(id, _)| id), Some(id));
    assert_eq!(sessions.take_pending(id, None), Some(Pending::ANNOUNCE));
    assert!(matches!(sessions.announce(id), Some(Announcement::Accepted)));
    id
}

/// What the next visit tells, of which session.
fn visit(sessions: &mut Sessions) -> Option<(SessionId, Vec<Pending>)> {
    let (id, _) = sessions.next_ready()?;
    let mut told = Vec::new();
    while let Some(next) = sessions.take_pending(id, told.last().copied()) {
        told.push(next);
    }
    Some((id, told))
}

// covers: E12
#[test]
fn an_empty_fifo_that_found_no_chunk_becomes_writable_when_one_is_freed() {
    let mut sessions = sessions(2);
    let (full, empty) = (accepted(&mut sessions, 1), accepted(&mut sessions, 2));
    assert_eq!(sessions.write(full, &[1; 2 * CHUNK]), 2 * CHUNK);
    assert_eq!(sessions.write(empty, &[2; 10]), 0);
    sessions.serve_chunk_waiters();
    assert!(!sessions.has_chunks_to_give() && visit(&mut sessions).is_none());

    sessions.tx_acknowledge(full, CHUNK as u32);
    assert!(sessions.has_chunks_to_give());
    sessions.serve_chunk_waiters();
    assert_eq!(visit(&mut sessions), Some((empty, vec![Pending::WRITABLE])));
    assert_eq!(sessions.write(empty, &[2; 10]), 10);
    assert!(!sessions.has_chunks_to_give());
    sessions.check_consistency();
}

#[test]
fn a_reservation_and_a_relay_that_find_no_chunk_wait_for_one_too() {
    let mut sessions = sessions(3);
    let (full, reserving, relaying) =
        (accepted(&mut sessions, 1), accepted(&mut sessions, 2), accepted(&mut sessions, 3));
    // The relay's source begins in the middle of its chunk and its target's end is at a chunk's edge, so that the
    // bytes must be copied.
    assert_eq!(sessions.write(full, &[1; CHUNK]), CHUNK);
    assert_eq!(sessions.write(relaying, &[1; CHUNK]), CHUNK);
    assert_eq!(sessions.rx_store(full, 0, &[3; 20]).advanced, 20);
    assert_eq!(sessions.consume(full, 5), 5);
    assert!(sessions.reserve(reserving, 10).is_empty());
    assert_eq!(sessions.splice(full, relaying), 0);

    sessions.tx_acknowledge(full, CHUNK as u32);
    // One chunk is free, so one session is told: the one that waited longer.
    sessions.serve_chunk_waiters();
    assert_eq!(visit(&mut sessions), Some((reserving, vec![Pending::WRITABLE])));
    assert_eq!(sessions.reserve(reserving, 10).len(), 10);
    sessions.commit(reserving, 0);
    sessions.serve_chunk_waiters();
    assert_eq!(visit(&mut sessions), Some((relaying, vec![Pending::WRITABLE])));
    assert_eq!(sessions.splice(full, relaying), 15);
}

#[test]
fn a_session_that_ended_while_it_waited_does_not_use_up_a_turn() {
    let mut sessions = sessions(1);
    let (full, ended, waiting) =
        (accepted(&mut sessions, 1), accepted(&mut sessions, 2), accepted(&mut sessions, 3));
    assert_eq!(sessions.write(full, &[1; CHUNK]), CHUNK);
    assert_eq!((sessions.write(ended, &[2; 1]), sessions.write(waiting, &[3; 1])), (0, 0));
    sessions.on_event(&TransportEvent::Closed {
        session: ended,
        reason: CloseReason::PeerReset,
        stats: EndStats::default(),
    });
    assert_eq!(visit(&mut sessions), Some((ended, vec![Pending::RESET, Pending::CLOSED])));
    sessions.free(ended);
    sessions.tx_acknowledge(full, CHUNK as u32);
    sessions.serve_chunk_waiters();
    assert_eq!(visit(&mut sessions), Some((waiting, vec![Pending::WRITABLE])));
}

#[test]
fn an_idle_session_holds_no_chunk_whatever_was_committed_of_a_reservation() {
    let mut sessions = sessions(4);
    let id = accepted(&mut sessions, 1);
    assert_eq!(sessions.reserve(id, 40).len(), 40);
    sessions.commit(id, 0);
    assert_eq!(sessions.counts().fifo_chunks, 0);
    assert_eq!(sessions.reserve(id, 40).len(), 40);
    sessions.commit(id, 7);
    assert_eq!(sessions.counts().fifo_chunks, 1);
    sessions.tx_acknowledge(id, 7);
    assert_eq!(sessions.counts().fifo_chunks, 0);
}

// covers: H12
#[test]
fn an_app_that_asks_for_room_in_every_writable_is_visited_once_a_step() {
    let mut sessions = sessions(4);
    let id = accepted(&mut sessions, 1);
    sessions.want_room(id);
    let (ready, _) = sessions.next_ready().unwrap();
    assert_eq!(sessions.take_pending(ready, None), Some(Pending::WRITABLE));
    sessions.want_room(id);
    assert_eq!(sessions.take_pending(ready, Some(Pending::WRITABLE)), None);
    assert_eq!(sessions.ready_len(), 1, "it is told in the next step");
    sessions.check_consistency();
}

// covers: E01
#[test]
fn closed_after_a_graceful_end_waits_until_all_bytes_are_taken() {
    let mut sessions = sessions(4);
    let id = accepted(&mut sessions, 1);
    assert_eq!(sessions.rx_store(id, 0, b"the rest").advanced, 8);
    sessions.on_event(&TransportEvent::Received { session: id });
    sessions.on_event(&TransportEvent::PeerClosed { session: id });
    sessions.on_event(&TransportEvent::Closed {
        session: id,
        reason: CloseReason::Finished,
        stats: EndStats::default(),
    });
    assert_eq!(visit(&mut sessions), Some((id, vec![Pending::READABLE, Pending::PEER_CLOSED])));
    assert_eq!(sessions.read(id, &mut [0; 7]), 7);
    assert!(visit(&mut sessions).is_none());
    assert_eq!(sessions.read(id, &mut [0; 7]), 1);
    assert_eq!(visit(&mut sessions), Some((id, vec![Pending::CLOSED])));
}

#[test]
fn writes_leave_an_eighth_of_the_pool_to_what_is_received() {
    let mut sessions = sessions(16);
    let id = accepted(&mut sessions, 1);
    let other = accepted(&mut sessions, 2);
    assert_eq!(sessions.write(id, &[1; 1000]), 14 * CHUNK);
    assert!(sessions.reserve(other, 1).is_empty());
    assert_eq!(sessions.write(other, &[1; 1]), 0);
    assert_eq!(sessions.rx_store(other, 0, &[2; 1000]).advanced, 2 * CHUNK as u32);
    assert_eq!((sessions.rx_unread(other), sessions.rx_unread(id)), (2 * CHUNK as u32, 0));
    assert_eq!(sessions.consume(other, CHUNK), CHUNK);
    assert!(!sessions.has_chunks_to_give(), "what is read is for what is received");
    sessions.tx_acknowledge(id, 3 * CHUNK as u32);
    assert!(sessions.has_chunks_to_give());
}

// covers: MUST-32, MUST-33
#[test]
fn urgent_data_is_told_once_per_pointer_before_it_is_readable_and_counted_as_it_is_read() {
    let mut sessions = sessions(8);
    let (id, other) = (accepted(&mut sessions, 1), accepted(&mut sessions, 2));
    assert!(sessions.rx_urgent(id, 50));
    sessions.on_event(&TransportEvent::Urgent { session: id });
    assert_eq!(sessions.rx_store(id, 0, &[1; 30]).advanced, 30);
    sessions.on_event(&TransportEvent::Received { session: id });
    assert_eq!(visit(&mut sessions), Some((id, vec![Pending::URGENT, Pending::READABLE])));
    let left = |sessions: &Sessions| sessions.get(id).map(Session::urgent_left);
    assert_eq!((left(&sessions), sessions.consume(id, 10), left(&sessions)), (Some(50), 10, Some(40)));
    // 20 unread: the same place, an earlier one, one that was read, and a later one.
    assert!(!sessions.rx_urgent(id, 20) && !sessions.rx_urgent(id, 19) && !sessions.rx_urgent(id, -20));
    assert!(!sessions.rx_urgent(id, i32::MIN) && sessions.rx_urgent(id, 21));
    assert_eq!(left(&sessions), Some(41));
    // A relay reads, too.
    assert_eq!((sessions.splice(id, other), left(&sessions)), (20, Some(21)));
    // The peer's end comes before the place that it named.
    sessions.rx_store(id, 0, &[1; 5]);
    sessions.on_event(&TransportEvent::PeerClosed { session: id });
    assert_eq!(left(&sessions), Some(5));
}

#[test]
fn an_app_that_closed_hears_of_no_urgent_data() {
    let mut sessions = sessions(8);
    let id = accepted(&mut sessions, 1);
    sessions.on_event(&TransportEvent::Urgent { session: id });
    let _ = sessions.app_closes(id);
    sessions.on_event(&TransportEvent::Urgent { session: id });
    assert!(visit(&mut sessions).is_none_or(|(_, told)| told.is_empty()));
}

// covers: MUST-31
#[test]
fn what_an_app_calls_urgent_ends_where_its_last_such_write_ended() {
    let mut sessions = sessions(64);
    let id = accepted(&mut sessions, 1);
    assert_eq!((sessions.write(id, &[0; 10]), sessions.tx_urgent(id)), (10, 0));
    assert_eq!((sessions.write_urgent(id, &[0; 600]), sessions.write(id, &[0; 100])), (600, 100));
    assert_eq!(sessions.tx_urgent(id), 610);
    // Only what was taken.
    assert_eq!((sessions.write_urgent(id, &[0; 600]), sessions.tx_urgent(id)), (290, 1000));
    assert_eq!((sessions.write_urgent(id, &[0; 1]), sessions.tx_urgent(id)), (0, 1000));
    sessions.tx_acknowledge(id, 999);
    assert_eq!(sessions.tx_urgent(id), 1);
    sessions.write(id, &[0; 10]);
    sessions.tx_acknowledge(id, 5);
    assert_eq!(sessions.tx_urgent(id), 0);
}

#[test]
fn a_send_queue_grows_with_what_the_transport_wants_up_to_its_limit() {
    let mut sessions = sessions(128);
    let id = accepted(&mut sessions, 1);
    assert_eq!(sessions.write(id, &[0; 2000]), 1000);
    // Not less than it is, nor for an app that has all it may; then more, and the app is told.
    sessions.tx_wanted(id, 500);
    sessions.on_event(&TransportEvent::Acknowledged { session: id });
    assert_eq!(visit(&mut sessions), None);
    sessions.tx_wanted(id, 2000);
    sessions.on_event(&TransportEvent::Acknowledged { session: id });
    assert_eq!(visit(&mut sessions), Some((id, vec![Pending::WRITABLE])));
    assert_eq!(sessions.write(id, &[0; 2000]), 1000);
    sessions.tx_wanted(id, u32::MAX);
    assert_eq!((sessions.tx_room(id), sessions.get(id).map(Session::tx_capacity)), (1000, Some(3000)));
}

// ---- What must hold between steps ----

#[test]
fn a_session_that_cannot_go_on_is_named_and_others_are_not() {
    type Break = fn(&mut Session);
    let broken: [(&str, Break); 5] = [
        ("it is ready, or has failed, and its app is not told", |s| s.app = AppSide::Unannounced),
        ("its app must be told something, and nobody will", |s| s.pending.add(Pending::READABLE)),
        ("its transport is done, and its app is not told", |s| {
            s.transport = TransportSide::Closed(CloseReason::Finished);
        }),
        ("its transport is open, and has no connection for it", |s| s.connection = None),
        ("its app was told, and it still counts as being established", |s| s.establishing = 3),
    ];
    for (fault, break_it) in broken {
        let mut sessions = sessions(8);
        let (one, other) = (accepted(&mut sessions, 1), accepted(&mut sessions, 2));
        assert_eq!((sessions.fault(one), sessions.fault(other)), (None, None));
        break_it(sessions.pool.get_mut(one.0).unwrap());
        assert_eq!((sessions.fault(one), sessions.fault(other)), (Some(fault), None));
    }
}

#[test]
fn a_session_with_stages_is_late_when_its_deadline_has_passed() {
    let mut sessions = sessions(8);
    let stages = StagePlans::one(crate::establish::proxy::ReceiveProxy::default());
    let record = sessions.listeners().get(ListenerId(KEY)).unwrap().clone();
    sessions.listeners().remove(ListenerId(KEY));
    sessions.listeners().add(ListenerRecord { stages, ..record });
    let end = |port| Endpoint::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let flow = FlowKey { local: end(1), remote: end(2), domain: DomainId(0), protocol: Protocol::Tcp };
    let id = sessions.accept(ListenerId(KEY), ConnectionId(KEY), &flow).unwrap();
    sessions.on_event(&TransportEvent::Accepted { session: id });
    assert_eq!(sessions.fault(id), None, "it has a second");
    sessions.set_now(Instant::from_millis(1900));
    assert_eq!(sessions.fault(id), None, "a worker may be late by a step");
    sessions.set_now(Instant::from_millis(2100));
    assert_eq!(sessions.fault(id), Some("it is being established beyond its deadline"));
}

#[test]
fn a_view_names_every_part() {
    let mut sessions = sessions(8);
    let id = accepted(&mut sessions, 1);
    assert_eq!(sessions.write(id, &[1; 70]), 70);
    sessions.rx_store(id, 0, &[2; 10]);
    sessions.rx_store(id, 20, &[3; 5]);
    sessions.on_event(&TransportEvent::Received { session: id });
    let view = sessions.view(sessions.get(id).unwrap());
    assert_eq!((view.tx.bytes, view.tx.chunks, view.tx.capacity, view.tx.capacity_max), (70, 2, 1000, 3000));
    assert_eq!((view.rx.bytes, view.rx.ooo_ranges, view.rx.ooo_bytes), (10, 1, 5));
    assert_eq!((view.pending, view.queues), (vec!["readable"], vec!["ready", "transmit"]));
    assert!(view.stages.is_empty() && view.connect.is_none() && view.layer.is_none());
}
