//! Every answer of a connect, by script; and the host's own.

use hoststack_transport::Protocol;

use super::*;
use crate::host::Native;
use crate::testing::{FAILED, HUNG_UP, ModelHost, READABLE, WRITABLE, Wire, endpoint, ms, user, wait};

const BURST: usize = 16;
const FAR_OFF: u64 = 30_000;

struct World {
    host: ModelHost,
    half_opens: HalfOpens,
    actions: Vec<HalfOpenAction>,
}

impl World {
    fn new() -> World {
        let host = ModelHost::default();
        let half_opens = HalfOpens::new(host.as_host(), 8).unwrap();
        World { host, half_opens, actions: Vec::new() }
    }

    fn tcp() -> Address {
        Address::KernelTcp(endpoint(80))
    }

    fn unix() -> Address {
        Address::kernel_unix("/run/app.sock").unwrap()
    }

    /// Starts a connect whose first answer is this.
    fn open(&mut self, to: &Address, answer: Result<(), Errno>) -> (HalfOpenId, Wire) {
        let wire = self.host.next_socket();
        wire.script().connects.push_back(answer);
        (self.open_on(to, None), wire)
    }

    fn open_on(&mut self, to: &Address, local: Option<Endpoint>) -> HalfOpenId {
        let options = Arc::new(SocketOptions::DEFAULT);
        let deadline = ms(FAR_OFF);
        let id =
            self.half_opens.open(ms(0), to, local, user(), options, deadline, &mut self.actions).unwrap();
        self.half_opens.check_consistency();
        id
    }

    fn poll(&mut self, now: u64) -> bool {
        let worked = self.half_opens.poll(ms(now), BURST, &mut self.actions);
        self.half_opens.check_consistency();
        worked
    }

    fn tell(&mut self, wire: &Wire, readiness: Readiness, now: u64) {
        self.host.tell(wire, readiness);
        assert!(self.poll(now));
    }

    /// The only action since the last time is a failure.
    fn failure(&mut self) -> ConnectFailure {
        match self.actions.drain(..).collect::<Vec<_>>().as_slice() {
            [HalfOpenAction::Failed { failure, user: whose, .. }] if *whose == user() => *failure,
            other => panic!("no failure: {other:?}"),
        }
    }

    fn seed(&mut self) -> Box<Seed> {
        let mut actions: Vec<_> = self.actions.drain(..).collect();
        match (actions.pop(), actions.is_empty()) {
            (Some(HalfOpenAction::Establish { seed, .. }), true) => seed,
            other => panic!("not established: {other:?}"),
        }
    }

    fn state(&self, id: HalfOpenId) -> HalfOpenState {
        self.half_opens.describe(id).unwrap().state
    }

    fn is_settled(&mut self, id: HalfOpenId) {
        self.half_opens.settled(id, &mut self.actions);
        assert!(
            matches!(self.actions.as_slice(), [HalfOpenAction::Deleted { half_open, .. }] if *half_open == id)
        );
        self.half_opens.settled(id, &mut self.actions);
        assert_eq!(self.actions.len(), 1, "deleted once");
        assert!(self.half_opens.is_empty());
    }
}

// covers: F11
#[test]
fn a_connect_that_is_up_at_once_is_handed_over_at_once() {
    let mut w = World::new();
    let (id, wire) = w.open(&World::tcp(), Ok(()));
    let seed = w.seed();
    assert_eq!(seed.half_open, id);
    assert_eq!(seed.flow.remote, endpoint(80));
    assert_eq!(seed.flow.local, endpoint(wire.script().port));
    assert_eq!(seed.flow.protocol, Protocol::KernelTcp);
    assert_eq!(w.host.watch_of(&wire), None);
    assert_eq!(w.state(id), HalfOpenState::HandedOver);
    assert_eq!(w.half_opens.armed_timers(), 0);
    assert_eq!(w.half_opens.counters().immediate, 1);
    w.is_settled(id);
    assert!(!wire.is_closed(), "the worker has it");
}

// covers: F31
#[test]
fn a_connect_that_is_up_later_is_handed_over_then_and_no_longer_watched() {
    let mut w = World::new();
    let (id, wire) = w.open(&World::unix(), Err(Errno::INPROGRESS));
    assert!(w.actions.is_empty());
    assert_eq!(w.host.watch_of(&wire).unwrap().1, Interest::Connect);
    assert_eq!(w.half_opens.next_deadline(), Some(ms(1000)), "it is looked at in between");
    wire.script().is_connected = true;
    w.tell(&wire, WRITABLE, 5);
    let seed = w.seed();
    assert_eq!((seed.flow.local, seed.flow.remote), (Endpoint::UNSPECIFIED, Endpoint::UNSPECIFIED));
    assert_eq!(seed.flow.protocol, Protocol::KernelUnix);
    assert_eq!(w.host.watch_of(&wire), None);
    assert_eq!(wire.script().connect_calls, 1);
    w.is_settled(id);
}

#[test]
fn a_connect_over_loopback_that_is_up_when_the_call_returns_needs_no_poller() {
    let loopback: core::net::SocketAddr = "127.0.0.1:80".parse().unwrap();
    // To the address, up already: watched?
    for (to, is_up, is_watched) in [
        (Address::KernelTcp(loopback.into()), true, false),
        (Address::KernelTcp(loopback.into()), false, true),
        // Elsewhere it is not asked, for it cannot be up.
        (World::tcp(), true, true),
    ] {
        let mut w = World::new();
        let wire = w.host.next_socket();
        wire.script().is_connected = is_up;
        w.open_on(&to, None);
        assert_eq!(w.host.watch_of(&wire).is_some(), is_watched, "{to} {is_up}");
        assert_eq!(w.actions.is_empty(), is_watched, "{to} {is_up}");
        assert_eq!(w.half_opens.counters().immediate, u64::from(!is_watched), "{to} {is_up}");
        assert_eq!(wire.script().connect_calls, 1, "{to} {is_up}");
    }
}

const FAILURES: &[(Errno, ConnectFailure)] = &[
    (Errno::CONNREFUSED, ConnectFailure::Refused),
    (Errno::NOENT, ConnectFailure::Refused),
    (Errno::CONNRESET, ConnectFailure::Refused),
    (Errno::TIMEDOUT, ConnectFailure::TimedOut),
    (Errno::HOSTUNREACH, ConnectFailure::Unreachable),
    (Errno::NETUNREACH, ConnectFailure::Unreachable),
    (Errno::NETDOWN, ConnectFailure::Unreachable),
    (Errno::HOSTDOWN, ConnectFailure::Unreachable),
    (Errno::AGAIN, ConnectFailure::AddressInUse),
    (Errno::ADDRINUSE, ConnectFailure::AddressInUse),
    (Errno::ADDRNOTAVAIL, ConnectFailure::AddressInUse),
    (Errno::MFILE, ConnectFailure::NoRoom),
    (Errno::NFILE, ConnectFailure::NoRoom),
    (Errno::NOBUFS, ConnectFailure::NoRoom),
    (Errno::NOMEM, ConnectFailure::NoRoom),
    (Errno::ACCESS, ConnectFailure::System(Errno::ACCESS.raw_os_error())),
];

// covers: F14, F32
#[test]
fn an_error_at_once_and_an_error_later_are_the_same_failure() {
    for &(error, failure) in FAILURES {
        let mut w = World::new();
        let (id, wire) = w.open(&World::tcp(), Err(error));
        assert_eq!(w.failure(), failure, "{error} at once");
        assert!(wire.is_closed());
        assert_eq!(w.state(id), HalfOpenState::Failed(failure));
        w.is_settled(id);

        let mut w = World::new();
        let (id, wire) = w.open(&World::tcp(), Err(Errno::INPROGRESS));
        wire.script().error = Some(error);
        w.tell(&wire, FAILED, 5);
        assert_eq!(w.failure(), failure, "{error} later");
        assert!(wire.is_closed());
        assert!(!w.poll(FAR_OFF + 1), "what the wheel still has does nothing");
        assert_eq!(w.half_opens.next_deadline(), None);
        w.is_settled(id);
    }
}

#[test]
fn a_socket_or_a_local_endpoint_that_cannot_be_had_is_an_outcome() {
    let mut w = World::new();
    w.host.next_socket_fails(Errno::MFILE);
    w.open_on(&World::tcp(), None);
    assert_eq!(w.failure(), ConnectFailure::NoRoom);
    for (error, failure) in [
        (Errno::ADDRNOTAVAIL, ConnectFailure::AddressNotAvailable),
        (Errno::ADDRINUSE, ConnectFailure::AddressInUse),
        (Errno::INVAL, ConnectFailure::System(Errno::INVAL.raw_os_error())),
    ] {
        let wire = w.host.next_socket();
        wire.script().bind = Some(error);
        w.open_on(&World::tcp(), Some(endpoint(7)));
        assert_eq!(w.failure(), failure);
        assert_eq!(wire.script().bound, [(Address::KernelTcp(endpoint(7)), false)]);
        assert!(wire.is_closed());
        assert_eq!(wire.script().connect_calls, 0);
    }
}

#[test]
fn a_socket_that_nobody_watches_is_a_failure() {
    let mut w = World::new();
    w.host.refuse_to_watch(Some(Errno::NOMEM));
    let (_, wire) = w.open(&World::tcp(), Err(Errno::INPROGRESS));
    assert_eq!(w.failure(), ConnectFailure::NoRoom);
    assert!(wire.is_closed());
}

#[test]
fn a_connect_that_a_signal_interrupted_goes_on() {
    let mut w = World::new();
    let (_, wire) = w.open(&World::tcp(), Err(Errno::INTR));
    assert!(w.actions.is_empty());
    wire.script().is_connected = true;
    w.tell(&wire, WRITABLE, 5);
    let _ = w.seed();
}

// covers: F29
#[test]
fn a_hang_up_without_an_error_is_no_failure_if_the_connect_is_up() {
    for readiness in [HUNG_UP, FAILED] {
        let mut w = World::new();
        let (_, wire) = w.open(&World::tcp(), Err(Errno::INPROGRESS));
        wire.script().is_connected = true;
        w.tell(&wire, readiness, 5);
        let _ = w.seed();
    }
}

// covers: F09, F28, I06
#[test]
fn an_event_that_means_nothing_is_waited_out_and_never_spun_on() {
    for readiness in [FAILED, HUNG_UP, WRITABLE, READABLE, Readiness { readable: false, ..READABLE }] {
        let mut w = World::new();
        let (id, wire) = w.open(&World::tcp(), Err(Errno::INPROGRESS));
        w.tell(&wire, readiness, 5);
        assert_eq!(w.host.watch_of(&wire).unwrap().2, 1, "armed again at once");
        assert_eq!(w.state(id), HalfOpenState::Connecting);
        // At once again: from now on it is looked at less and less often.
        let mut now = 5;
        for (n, wait) in [2, 4, 8, 16, 32, 64, 100, 100].into_iter().enumerate() {
            w.tell(&wire, readiness, now);
            assert_eq!(w.state(id), HalfOpenState::Waiting);
            assert_eq!(w.host.watch_of(&wire).unwrap().2, n + 1, "not armed");
            assert_eq!(w.half_opens.next_deadline(), Some(ms(now + wait)));
            assert!(!w.poll(now + wait - 1));
            now += wait;
            assert!(w.poll(now));
            assert_eq!(w.state(id), HalfOpenState::Connecting);
            assert_eq!(w.host.watch_of(&wire).unwrap().2, n + 2, "armed again");
        }
        assert!(w.actions.is_empty());
        wire.script().is_connected = true;
        w.tell(&wire, readiness, now);
        let _ = w.seed();
    }
}

// covers: F09
#[test]
fn a_connect_that_comes_up_while_it_waits_is_found_by_the_timer() {
    let mut w = World::new();
    let (_, wire) = w.open(&World::tcp(), Err(Errno::INPROGRESS));
    w.tell(&wire, FAILED, 5);
    w.tell(&wire, FAILED, 5);
    wire.script().is_connected = true;
    assert!(w.poll(7));
    let _ = w.seed();
}

#[test]
fn a_connect_to_itself_is_refused() {
    let mut w = World::new();
    let wire = w.host.next_socket();
    wire.script().connects.push_back(Ok(()));
    let itself = Address::KernelTcp(endpoint(wire.script().port));
    let id = w.open_on(&itself, None);
    assert_eq!(w.failure(), ConnectFailure::Refused);
    assert!(wire.is_closed() && wire.script().is_reset);
    w.is_settled(id);
}

// covers: F28, F32
#[test]
fn a_probe_finds_the_error_that_another_took_away() {
    let mut w = World::new();
    let (_, wire) = w.open(&World::tcp(), Err(Errno::INPROGRESS));
    wire.script().connects.push_back(Err(Errno::CONNREFUSED));
    w.tell(&wire, FAILED, 5);
    assert_eq!(w.failure(), ConnectFailure::Refused);
}

#[test]
fn a_full_backlog_is_tried_again_until_there_is_room() {
    let mut w = World::new();
    let (id, wire) = w.open(&World::unix(), Err(Errno::AGAIN));
    let mut now = 0;
    for wait in [1, 2, 4, 8, 16, 32, 64, 100, 100] {
        assert_eq!(w.state(id), HalfOpenState::Backlogged);
        assert_eq!(w.half_opens.next_deadline(), Some(ms(now + wait)));
        assert_eq!(w.host.watch_of(&wire), None);
        now += wait;
        wire.script().connects.push_back(Err(Errno::AGAIN));
        assert!(w.poll(now));
    }
    assert!(w.actions.is_empty());
    wire.script().connects.push_back(Ok(()));
    assert!(w.poll(now + 100));
    let _ = w.seed();
    assert_eq!(w.half_opens.describe(id).unwrap().attempts, 11);
    w.is_settled(id);
}

#[test]
fn a_full_backlog_lasts_no_longer_than_the_deadline() {
    let mut w = World::new();
    let (_, wire) = w.open(&World::unix(), Err(Errno::AGAIN));
    wire.script().connects.extend([Err(Errno::AGAIN); 1000]);
    let mut polls = 0;
    while w.actions.is_empty() {
        let next = w.half_opens.next_deadline().expect("it has a deadline");
        w.half_opens.poll(next, BURST, &mut w.actions);
        polls += 1;
    }
    assert_eq!(w.failure(), ConnectFailure::TimedOut);
    assert!((300..320).contains(&polls), "{polls}");
    assert!(wire.is_closed());
}

#[test]
fn the_deadline_ends_a_connect_and_nothing_comes_after_it() {
    let mut w = World::new();
    let (id, wire) = w.open(&World::tcp(), Err(Errno::INPROGRESS));
    let token = w.host.watch_of(&wire).unwrap().0;
    for n in 0..30 {
        assert_eq!(w.half_opens.next_deadline(), Some(ms(n * 1000 + 1000)));
        assert!(!w.poll(n * 1000 + 999));
        assert!(w.actions.is_empty());
        assert_eq!(w.poll(n * 1000 + 1000), n == 29);
    }
    assert_eq!(w.failure(), ConnectFailure::TimedOut);
    assert!(wire.is_closed());
    wire.script().is_connected = true;
    w.host.tell_token(token, WRITABLE);
    assert!(w.poll(FAR_OFF + 1));
    assert!(w.actions.is_empty());
    assert_eq!(w.half_opens.counters().stale, 1);
    w.is_settled(id);
}

#[test]
fn a_connect_that_is_up_when_its_deadline_passes_is_no_failure() {
    let mut w = World::new();
    let (_, wire) = w.open(&World::tcp(), Err(Errno::INPROGRESS));
    wire.script().is_connected = true;
    w.tell(&wire, WRITABLE, FAR_OFF);
    let _ = w.seed();

    // Nor if nobody said so.
    let mut w = World::new();
    let (_, wire) = w.open(&World::tcp(), Err(Errno::INPROGRESS));
    wire.script().is_connected = true;
    assert!(w.poll(FAR_OFF));
    let _ = w.seed();

    // And one that failed has its own cause.
    let mut w = World::new();
    let (_, wire) = w.open(&World::tcp(), Err(Errno::INPROGRESS));
    wire.script().error = Some(Errno::CONNREFUSED);
    assert!(w.poll(FAR_OFF));
    assert_eq!(w.failure(), ConnectFailure::Refused);
}

// covers: F37
#[test]
fn cleanup_closes_the_socket_now_and_frees_nothing() {
    for answer in [Err(Errno::INPROGRESS), Err(Errno::AGAIN)] {
        let mut w = World::new();
        let (id, wire) = w.open(&World::unix(), answer);
        w.half_opens.cleanup(id);
        w.half_opens.check_consistency();
        assert!(wire.is_closed());
        assert_eq!((w.half_opens.len(), w.half_opens.armed_timers()), (1, 0));
        assert_eq!(w.state(id), HalfOpenState::Cleaned);
        assert!(!w.poll(FAR_OFF + 1));
        assert!(w.actions.is_empty());
        w.half_opens.cleanup(id);
        assert_eq!(w.half_opens.counters().cleaned, 1);
        w.is_settled(id);
    }
}

// covers: F06, F42
#[test]
fn an_event_for_the_slots_last_owner_does_nothing_to_the_next() {
    let mut w = World::new();
    let (id, wire) = w.open(&World::tcp(), Err(Errno::INPROGRESS));
    let token = w.host.watch_of(&wire).unwrap().0;
    w.half_opens.cleanup(id);
    w.is_settled(id);
    w.actions.clear();
    let (next, wire) = w.open(&World::tcp(), Err(Errno::INPROGRESS));
    assert_eq!(next.0.slot, id.0.slot);
    wire.script().is_connected = true;
    w.host.tell_token(token, WRITABLE);
    w.poll(1);
    assert!(w.actions.is_empty());
    assert_eq!(w.half_opens.counters().stale, 1);
}

#[test]
fn the_limit_refuses_before_a_socket_is_made() {
    let mut w = World::new();
    for _ in 0..8 {
        w.open(&World::tcp(), Err(Errno::INPROGRESS));
    }
    let made = w.host.made();
    let (options, deadline) = (Arc::new(SocketOptions::DEFAULT), ms(FAR_OFF));
    let result = w.half_opens.open(ms(0), &World::tcp(), None, user(), options, deadline, &mut w.actions);
    assert_eq!(result, Err(Full));
    assert_eq!(w.host.made(), made);
    assert!(w.actions.is_empty());
}

// ---- Over the host ----

#[test]
fn over_the_host_a_connect_is_up_refused_or_without_a_local_address() {
    let listening = crate::listen(
        &Native,
        &Address::KernelTcp("127.0.0.1:0".parse::<core::net::SocketAddr>().unwrap().into()),
        8,
        &SocketOptions::DEFAULT,
        1,
    )
    .unwrap();
    let mut half_opens = HalfOpens::new(Arc::new(Native), 8).unwrap();
    let mut actions = Vec::new();
    let options = Arc::new(SocketOptions { ttl: 7, nodelay: true, ..SocketOptions::DEFAULT });
    let mut open = |half_opens: &mut HalfOpens, to: &Address, local| {
        let (options, deadline) = (options.clone(), Instant::FAR);
        half_opens.open(Instant::ZERO, to, local, user(), options, deadline, &mut actions).unwrap();
        while actions.is_empty() {
            assert!(wait(&[&half_opens.poller], Duration::from_secs(10)), "the host says nothing");
            half_opens.poll(Instant::ZERO, BURST, &mut actions);
        }
        half_opens.check_consistency();
        actions.pop().unwrap()
    };

    let HalfOpenAction::Establish { seed, .. } = open(&mut half_opens, &listening.address, None) else {
        panic!("not up");
    };
    assert_eq!(Some(seed.flow.remote), listening.address.endpoint());
    assert_ne!(seed.flow.local.port, 0);
    let fd = seed.socket.as_fd().unwrap();
    assert_eq!(rustix::net::sockopt::ip_ttl(fd), Ok(7), "options take effect");
    assert_eq!(rustix::net::sockopt::tcp_nodelay(fd), Ok(true));

    // As a mapped address it looks like any other, so that the host's poller tells that it is up.
    let port = seed.flow.remote.port;
    let mapped: core::net::SocketAddr = format!("[::ffff:127.0.0.1]:{port}").parse().unwrap();
    let up = open(&mut half_opens, &Address::KernelTcp(mapped.into()), None);
    assert!(matches!(up, HalfOpenAction::Establish { .. }), "{up:?}");
    assert_eq!(half_opens.counters().immediate, 1, "only the first was up at once");
    assert_eq!(half_opens.watched, 0, "and the poller has let it go");

    drop(listening.sockets);
    let failed = open(&mut half_opens, &listening.address, None);
    assert!(matches!(failed, HalfOpenAction::Failed { failure: ConnectFailure::Refused, .. }), "{failed:?}");
    // RFC 5737: of nobody's host.
    let failed = open(&mut half_opens, &listening.address, Some(endpoint(0)));
    assert!(
        matches!(failed, HalfOpenAction::Failed { failure: ConnectFailure::AddressNotAvailable, .. }),
        "{failed:?}"
    );
    let failed = open(&mut half_opens, &Address::kernel_unix("/nonexistent/socket").unwrap(), None);
    assert!(matches!(failed, HalfOpenAction::Failed { failure: ConnectFailure::Refused, .. }), "{failed:?}");
}
