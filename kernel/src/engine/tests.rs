//! What an engine does with sockets that follow a script. What it does with the host's is in `native.rs`.

use hoststack_transport::Protocol;

use super::*;
use crate::connection::TURN_MAX;
use crate::testing::{FAILED, FakeLayer, HUNG_UP, ModelHost, READABLE, WRITABLE, Wire, endpoint, ms, stream};

mod accept;
mod ends;
mod native;

const BURST: usize = 16;
const ENDED: Readiness = Readiness { peer_closed: true, ..READABLE };

struct World {
    host: ModelHost,
    engine: Engine,
    layer: FakeLayer,
    events: Vec<TransportEvent>,
    now: Instant,
    /// What the connection that ended last did; the events that tests compare leave it out.
    ended: Option<EndStats>,
}

impl World {
    fn new() -> World {
        World::holding(8)
    }

    fn holding(connections_max: usize) -> World {
        let host = ModelHost::default();
        let engine = Engine::new(host.as_host(), connections_max).unwrap();
        World { host, engine, layer: FakeLayer::new(), events: Vec::new(), now: ms(1), ended: None }
    }

    fn seed(wire: &Wire, options: SocketOptions) -> Box<Seed> {
        let flow = flow(&Address::KernelTcp(endpoint(80)), endpoint(wire.script().port), endpoint(80));
        let half_open = hoststack_transport::HalfOpenId(Key { slot: 0, generation: 0 });
        Box::new(Seed { half_open, flow, socket: wire.socket(), options })
    }

    /// A connection that is up.
    fn up(&mut self) -> (SessionId, Wire) {
        self.up_with(SocketOptions::DEFAULT)
    }

    fn up_with(&mut self, options: SocketOptions) -> (SessionId, Wire) {
        let (session, wire) = (self.layer.open(), Wire::new());
        let seed = World::seed(&wire, options);
        let connection =
            self.engine.establish(self.now, seed, session, &mut self.layer, &mut self.events).unwrap();
        self.layer.of(session).connection = Some(connection);
        assert_eq!(self.taken(), [TransportEvent::Connected { session }]);
        (session, wire)
    }

    fn connection(&mut self, session: SessionId) -> ConnectionId {
        self.layer.of(session).connection.unwrap()
    }

    fn taken(&mut self) -> Vec<TransportEvent> {
        self.engine.check_consistency();
        let mut taken = std::mem::take(&mut self.events);
        for event in &mut taken {
            if let TransportEvent::Closed { stats, .. } = event {
                self.ended = Some(std::mem::take(stats));
            }
        }
        taken
    }

    fn poll(&mut self) -> bool {
        let worked = self.engine.poll(self.now, BURST, &mut self.layer, &mut self.events);
        self.engine.check_consistency();
        worked
    }

    /// Polls once, and returns what happened.
    fn told(&mut self, wire: &Wire, readiness: Readiness) -> Vec<TransportEvent> {
        self.host.tell(wire, readiness);
        assert!(self.poll());
        self.taken()
    }

    /// The transmit stage of a step, and what happened in it.
    fn transmits(&mut self) -> Vec<TransportEvent> {
        for _ in 0..self.layer.programmed.len() {
            let session = self.layer.programmed.pop_front().unwrap();
            let connection = self.connection(session);
            if self.engine.transmit(self.now, connection, BURST, &mut self.layer, &mut (), &mut self.events)
                == Transmitted::More
            {
                self.layer.program_tx(session);
            }
            self.engine.check_consistency();
        }
        if self.engine.has_work() {
            assert_eq!(self.engine.next_deadline(), Some(Instant::ZERO));
            assert!(self.poll());
        }
        self.taken()
    }

    fn closes(&mut self, session: SessionId) -> Vec<TransportEvent> {
        let connection = self.connection(session);
        self.engine.close(self.now, connection, &mut self.layer, &mut (), &mut self.events);
        self.taken()
    }

    fn half_closes(&mut self, session: SessionId) -> Vec<TransportEvent> {
        let connection = self.connection(session);
        self.engine.half_close(self.now, connection, &mut self.layer, &mut (), &mut self.events);
        self.taken()
    }

    fn resets(&mut self, session: SessionId) -> Vec<TransportEvent> {
        let connection = self.connection(session);
        self.engine.reset(self.now, connection, &mut self.layer, &mut (), &mut self.events);
        self.taken()
    }

    /// Nothing is left of any connection, and what may still come for one does nothing.
    fn is_over(&mut self, session: SessionId, wire: &Wire) {
        assert!(wire.is_closed());
        assert_eq!((self.engine.connections(), self.engine.armed_timers()), (0, 0));
        assert_eq!(self.closes(session), []);
        assert_eq!(self.half_closes(session), []);
        assert_eq!(self.resets(session), []);
        let connection = self.connection(session);
        let idle =
            self.engine.transmit(self.now, connection, BURST, &mut self.layer, &mut (), &mut self.events);
        assert_eq!(idle, Transmitted::Idle);
        let token = self.host.watch_of(wire).map(|watch| watch.0).unwrap();
        let stale = self.engine.counters().stale;
        self.host.tell_token(token, FAILED);
        self.poll();
        assert_eq!(self.engine.counters().stale, stale + 1);
        assert_eq!(self.taken(), []);
        assert!(self.engine.describe_of(connection).is_none());
        assert!(self.engine.stats(Protocol::KernelTcp, connection).is_none());
        assert!(!self.engine.has_work());
    }
}

impl Engine {
    fn describe_of(&self, connection: ConnectionId) -> Option<String> {
        <Engine as Transport<FakeLayer, ()>>::describe(self, Instant::ZERO, connection)
    }
}

fn received(session: SessionId) -> TransportEvent {
    TransportEvent::Received { session }
}

fn acknowledged(session: SessionId) -> TransportEvent {
    TransportEvent::Acknowledged { session }
}

fn peer_closed(session: SessionId) -> TransportEvent {
    TransportEvent::PeerClosed { session }
}

fn closed(session: SessionId, reason: CloseReason) -> TransportEvent {
    TransportEvent::Closed { session, reason, stats: EndStats::default() }
}

#[test]
fn what_is_taken_over_is_neither_read_nor_written_at_once() {
    let mut w = World::new();
    let session = w.layer.open();
    w.layer.of(session).tx.extend(b"early");
    let wire = Wire::new();
    wire.sends("hello");
    let seed = World::seed(&wire, SocketOptions::DEFAULT);
    let connection = w.engine.establish(w.now, seed, session, &mut w.layer, &mut w.events).unwrap();
    w.layer.of(session).connection = Some(connection);
    assert_eq!(w.taken(), [TransportEvent::Connected { session }]);
    assert_eq!(wire.script().read_calls, 0);
    assert_eq!(wire.script().write_calls, 0);
    assert_eq!(w.host.watch_of(&wire).unwrap().1, Interest::Stream);
    // What was queued before goes out without waiting for the poller.
    assert_eq!(w.transmits(), [acknowledged(session)]);
    assert_eq!(wire.script().written, b"early");
    assert_eq!(w.told(&wire, READABLE), [received(session)]);
    assert_eq!(w.layer.of(session).rx, b"hello");
}

#[test]
fn a_pool_that_is_full_and_a_poller_that_refuses_reset_the_connection() {
    let mut w = World::holding(1);
    w.up();
    let (session, wire) = (w.layer.open(), Wire::new());
    let seed = World::seed(&wire, SocketOptions::DEFAULT);
    let full = w.engine.establish(w.now, seed, session, &mut w.layer, &mut w.events);
    assert_eq!(full, Err(EstablishError::Full));
    assert!(wire.is_closed() && wire.script().is_reset);

    let mut w = World::new();
    w.host.refuse_to_watch(Some(Errno::NOSPC));
    let (session, wire) = (w.layer.open(), Wire::new());
    let seed = World::seed(&wire, SocketOptions::DEFAULT);
    let refused = w.engine.establish(w.now, seed, session, &mut w.layer, &mut w.events);
    assert_eq!(refused, Err(EstablishError::System(Errno::NOSPC)));
    assert!(wire.is_closed() && wire.script().is_reset);
    assert_eq!((w.engine.connections(), w.taken()), (0, vec![]));
}

// ---- Writing ----

#[test]
fn short_writes_go_on_until_the_host_takes_no_more_and_again_when_it_does() {
    let mut w = World::new();
    let (session, wire) = w.up();
    let bytes = stream(1000);
    w.layer.write(session, &bytes);
    wire.script().writes.extend([Ok(1), Err(Errno::INTR), Ok(299), Err(Errno::AGAIN)]);
    assert_eq!(w.transmits(), [acknowledged(session)]);
    assert_eq!(w.layer.of(session).tx.len(), 700);
    assert_eq!(wire.script().write_calls, 4);
    // Nobody asks the host before the poller has said so.
    w.layer.program_tx(session);
    assert_eq!(w.transmits(), []);
    assert_eq!(wire.script().write_calls, 4);
    assert_eq!(w.told(&wire, WRITABLE), []);
    assert_eq!(w.layer.programmed, [session]);
    assert_eq!(w.transmits(), [acknowledged(session)]);
    assert_eq!(wire.script().written, bytes);
    assert_eq!(w.engine.counters().bytes_out, 1000);
    let of = |protocol| w.engine.socket_counters(protocol).bytes_out;
    assert_eq!((of(Protocol::KernelTcp), of(Protocol::KernelUnix)), (1000, 0));
    // Nothing is left: being writable is no news.
    assert_eq!(w.told(&wire, WRITABLE), []);
    assert!(w.layer.programmed.is_empty());
}

#[test]
fn one_turn_of_writing_is_bounded_in_bytes_and_in_calls() {
    let mut w = World::new();
    let (session, wire) = w.up();
    let connection = w.connection(session);
    w.layer.write(session, &stream(2 * TURN_MAX));
    let turn = |w: &mut World, burst| {
        w.engine.transmit(w.now, connection, burst, &mut w.layer, &mut (), &mut w.events)
    };
    assert_eq!(turn(&mut w, 1), Transmitted::More);
    assert_eq!(wire.script().written.len(), SCRATCH);
    assert_eq!(turn(&mut w, 100), Transmitted::More);
    assert_eq!(wire.script().written.len(), SCRATCH + TURN_MAX);
    // A write of nothing is no progress, and no reason to try at once.
    wire.script().writes.push_back(Ok(0));
    w.layer.write(session, b"more");
    assert_eq!(turn(&mut w, 100), Transmitted::Idle);
}

// ---- Reading ----

#[test]
fn short_reads_go_on_until_there_is_nothing() {
    let mut w = World::new();
    let (session, wire) = w.up();
    for byte in b"hello" {
        wire.sends([*byte]);
    }
    wire.script().reads.insert(2, Err(Errno::INTR));
    assert_eq!(w.told(&wire, READABLE), [received(session)]);
    assert_eq!(w.layer.of(session).rx, b"hello");
    assert_eq!(wire.script().read_calls, 7);
    assert_eq!(w.engine.counters().bytes_in, 5);
    assert_eq!(w.engine.socket_counters(Protocol::KernelTcp).bytes_in, 5);
}

// covers: F26
#[test]
fn no_more_is_read_than_there_is_room_for_until_the_app_reads() {
    let mut w = World::new();
    w.layer.rx_capacity = 100;
    let (session, wire) = w.up();
    let bytes = stream(250);
    wire.sends(bytes.clone());
    wire.ends();
    assert_eq!(w.told(&wire, ENDED), [received(session)]);
    for have in [100, 200] {
        assert_eq!(w.layer.of(session).rx.len(), have);
        assert!(!w.engine.has_work(), "no spinning on what there is no room for");
        let calls = wire.script().read_calls;
        w.poll();
        assert_eq!(wire.script().read_calls, calls);
        w.layer.read(session);
        let told = w.transmits();
        if have == 100 {
            assert_eq!(told, [received(session)]);
        } else {
            assert_eq!(told, [received(session), peer_closed(session)]);
        }
    }
    assert_eq!(w.layer.of(session).rx, bytes);
}

#[test]
fn what_there_is_no_memory_for_is_kept_and_offered_again() {
    let mut w = World::new();
    let (session, wire) = w.up();
    let bytes = stream(500);
    wire.sends(bytes.clone());
    wire.ends();
    w.layer.memory = 120;
    assert_eq!(w.told(&wire, ENDED), [received(session)]);
    assert!(!w.engine.has_work());
    assert_eq!(w.layer.of(session).rx.len(), 120);
    // By the timer, in vain and then with success.
    for memory in [0, 80] {
        let next = w.engine.next_deadline().expect("it is offered again");
        assert_eq!(next, w.now + Duration::from_millis(5));
        w.now = next;
        w.layer.memory = memory;
        w.poll();
        w.poll();
    }
    assert_eq!(w.taken(), [received(session)]);
    // And by the app's next read.
    w.layer.memory = usize::MAX;
    w.layer.read(session);
    assert_eq!(w.transmits(), [received(session), peer_closed(session)]);
    assert_eq!(w.layer.of(session).rx, bytes);
    assert_eq!(w.engine.armed_timers(), 0);
}

#[test]
fn one_that_has_much_to_say_does_not_keep_others_waiting() {
    let mut w = World::new();
    w.layer.rx_capacity = usize::MAX / 2;
    let (loud, loud_wire) = w.up();
    let (quiet, quiet_wire) = w.up();
    loud_wire.sends(stream(3 * TURN_MAX));
    quiet_wire.sends("hi");
    w.host.tell(&loud_wire, READABLE);
    w.host.tell(&quiet_wire, READABLE);
    w.poll();
    assert_eq!(w.layer.of(loud).rx.len(), TURN_MAX);
    assert_eq!(w.layer.of(quiet).rx, b"hi");
    assert!(w.engine.has_work());
    assert_eq!(w.engine.next_deadline(), Some(Instant::ZERO));
    for _ in 0..3 {
        assert!(w.poll());
    }
    assert_eq!(w.layer.of(loud).rx.len(), 3 * TURN_MAX);
    assert!(!w.engine.has_work());
    assert!(!w.poll());
}

#[test]
fn a_poll_takes_no_more_than_its_burst_and_says_that_there_is_more() {
    let mut w = World::holding(64);
    let wires: Vec<_> = (0..BURST + 4).map(|_| w.up().1).collect();
    for wire in &wires {
        wire.sends("x");
        w.host.tell(wire, READABLE);
    }
    assert!(w.poll());
    assert_eq!(w.taken().len(), BURST);
    assert!(w.engine.has_work());
    assert!(w.poll());
    assert_eq!(w.taken().len(), 4);
    assert!(!w.engine.has_work());
}

// covers: F27
#[test]
fn an_event_that_means_nothing_does_nothing() {
    for readiness in [READABLE, WRITABLE, HUNG_UP, FAILED, ENDED] {
        let mut w = World::new();
        let (session, wire) = w.up();
        assert_eq!(w.told(&wire, readiness), [], "{readiness:?}");
        assert_eq!((w.engine.connections(), w.engine.armed_timers()), (1, 0));
        wire.sends("still here");
        assert_eq!(w.told(&wire, READABLE), [received(session)]);
    }
}

#[test]
fn options_reach_the_socket_and_a_linger_the_engine() {
    let mut w = World::new();
    let (session, wire) = w.up();
    let connection = w.connection(session);
    for option in [SocketOption::NoDelay(true), SocketOption::Linger(Some(0))] {
        w.engine.set_option(w.now, connection, option, &mut w.layer, &mut ());
    }
    assert_eq!(wire.script().options, [SocketOption::NoDelay(true)]);
    assert_eq!(w.closes(session), [closed(session, CloseReason::LocalReset)]);
    w.is_over(session, &wire);
}

#[test]
fn a_connection_is_described_and_measured() {
    let mut w = World::new();
    let (session, wire) = w.up();
    wire.sends("hello");
    w.told(&wire, READABLE);
    w.layer.write(session, b"bye");
    w.transmits();
    let connection = w.connection(session);
    let text = w.engine.describe_of(connection).unwrap();
    assert_eq!(text, "transport=kernel+tcp state=open in=5 out=3 readable=false writable=true");
    let stats = w.engine.stats(Protocol::KernelTcp, connection).unwrap();
    assert_eq!((stats.bytes_received, stats.bytes_acked), (5, 3));
}
