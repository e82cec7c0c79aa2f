//! Listeners.

use hoststack_transport::{AcceptError, Endpoint};

use super::*;

const L: ListenerId = ListenerId(Key { slot: 5, generation: 2 });

fn listening(w: &mut World, address: &Address) -> Wire {
    let wire = Wire::new();
    w.engine.listen(L, address.clone(), wire.socket(), SocketOptions::DEFAULT).unwrap();
    assert_eq!(w.host.watch_of(&wire).unwrap().1, Interest::Accept);
    wire
}

fn tcp() -> Address {
    Address::KernelTcp(endpoint(80))
}

/// A connection that waits to be accepted.
fn knocks(listener: &Wire) -> Wire {
    let wire = Wire::new();
    listener.script().accepts.push_back(Ok(wire.0.clone()));
    wire
}

fn accepted(events: &[TransportEvent]) -> Vec<SessionId> {
    let sessions = events.iter().map(|event| match event {
        TransportEvent::Accepted { session } => *session,
        other => panic!("{other:?}"),
    });
    sessions.collect()
}

#[test]
fn an_accepted_connection_has_a_session_and_talks() {
    let mut w = World::new();
    let listener = listening(&mut w, &tcp());
    let wire = knocks(&listener);
    let told = w.told(&listener, READABLE);
    let session = accepted(&told)[0];
    let (by, flow) = w.layer.accepted[0];
    // The socket need not be asked what the listener's address says.
    assert_eq!((by, Some(flow.local), flow.remote), (L, tcp().endpoint(), endpoint(9)));
    assert_eq!(flow.protocol, Protocol::KernelTcp);
    wire.sends("hello");
    assert_eq!(w.told(&wire, READABLE), [received(session)]);
    assert_eq!(w.closes(session), [closed(session, CloseReason::LocalReset)], "unread");
    w.is_over(session, &wire);
}

#[test]
fn where_a_listener_has_any_address_the_socket_says_which_one_was_called() {
    let mut w = World::new();
    let any = Address::KernelTcp(Endpoint { port: 80, ..Endpoint::UNSPECIFIED });
    let listener = listening(&mut w, &any);
    let wire = knocks(&listener);
    accepted(&w.told(&listener, READABLE));
    assert_eq!(w.layer.accepted[0].1.local, endpoint(wire.script().port));
}

#[test]
fn over_unix_a_flow_has_no_endpoints() {
    let mut w = World::new();
    let listener = listening(&mut w, &Address::kernel_unix("/run/app.sock").unwrap());
    knocks(&listener);
    accepted(&w.told(&listener, READABLE));
    let flow = w.layer.accepted[0].1;
    assert_eq!((flow.local, flow.remote), (Endpoint::UNSPECIFIED, Endpoint::UNSPECIFIED));
    assert_eq!(flow.protocol, Protocol::KernelUnix);
}

#[test]
fn what_nobody_takes_is_reset() {
    for case in 0..4 {
        let mut w = World::holding(1);
        let listener = listening(&mut w, &tcp());
        let wire = knocks(&listener);
        match case {
            0 => w.layer.refuses = Some(AcceptError::NoListener),
            1 => w.layer.refuses = Some(AcceptError::NoRoom),
            2 => w.host.refuse_to_watch(Some(Errno::NOSPC)),
            _ => w.engine.set_refusing(true),
        }
        assert_eq!(w.told(&listener, READABLE), []);
        assert!(wire.is_closed() && wire.script().is_reset);
        assert_eq!((w.engine.connections(), w.engine.counters().refused), (0, 1));
    }
}

#[test]
fn one_poll_accepts_no_more_than_its_burst() {
    let mut w = World::holding(64);
    let listener = listening(&mut w, &tcp());
    for _ in 0..BURST + 3 {
        knocks(&listener);
    }
    assert_eq!(accepted(&w.told(&listener, READABLE)).len(), BURST);
    assert!(w.engine.has_work());
    assert_eq!(accepted(&w.told(&listener, READABLE)).len(), 3);
    assert!(!w.engine.has_work());
}

#[test]
fn a_connection_that_is_gone_before_it_is_accepted_does_not_stop_the_next() {
    let mut w = World::new();
    let listener = listening(&mut w, &tcp());
    for error in [Errno::CONNABORTED, Errno::INTR, Errno::PROTO, Errno::HOSTUNREACH, Errno::PERM] {
        listener.script().accepts.push_back(Err(error));
    }
    knocks(&listener);
    assert_eq!(accepted(&w.told(&listener, READABLE)).len(), 1);
    assert_eq!(w.engine.counters().accept_errors, 4);
}

#[test]
fn a_listener_without_descriptors_pauses_and_comes_back() {
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
        let mut w = World::new();
        let listener = listening(&mut w, &tcp());
        let token = w.host.watch_of(&listener).unwrap().0;
        listener.script().accepts.push_back(Err(error));
        knocks(&listener);
        assert_eq!(w.told(&listener, READABLE), []);
        assert_eq!(w.host.watch_of(&listener), None, "no spinning on what cannot be accepted");
        assert_eq!(w.engine.next_deadline(), Some(w.now + PAUSE));
        assert_eq!(w.engine.describe_listeners().next().unwrap().paused_until, Some(w.now + PAUSE));
        // What was told before does nothing.
        w.host.tell_token(token, READABLE);
        w.poll();
        assert_eq!(w.taken(), []);
        // In vain, then with success.
        w.host.refuse_to_watch(Some(Errno::NOMEM));
        w.now = w.now + PAUSE;
        w.poll();
        assert_eq!(w.engine.next_deadline(), Some(w.now + PAUSE));
        w.host.refuse_to_watch(None);
        w.now = w.now + PAUSE;
        assert!(w.poll());
        assert_eq!(accepted(&w.told(&listener, READABLE)).len(), 1);
        assert_eq!((w.engine.counters().accept_pauses, w.engine.armed_timers()), (1, 0));
    }
}

#[test]
fn a_listener_that_is_given_up_is_closed_and_its_connections_stay() {
    for is_paused in [false, true] {
        let mut w = World::new();
        let listener = listening(&mut w, &tcp());
        let wire = knocks(&listener);
        let session = accepted(&w.told(&listener, READABLE))[0];
        if is_paused {
            listener.script().accepts.push_back(Err(Errno::MFILE));
            w.told(&listener, READABLE);
        }
        w.engine.unlisten(L);
        w.engine.unlisten(L);
        assert!(listener.is_closed());
        assert_eq!(w.host.watch_of(&listener), None);
        assert_eq!((w.engine.listeners(), w.engine.connections()), (0, 1));
        w.now = w.now + PAUSE;
        w.poll();
        wire.sends("hello");
        assert_eq!(w.told(&wire, READABLE), [received(session)]);
    }
}
