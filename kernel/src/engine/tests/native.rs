//! Both ends over the host's own sockets: 127.0.0.1, `::1`, a Unix path, an abstract name. Nothing sleeps: what waits, waits
//! for the poller.

use std::sync::atomic::{AtomicUsize, Ordering};

use hoststack_transport::{ConnectFailure, Endpoint};

use super::*;
use crate::host::{ModelSocket, Native, Socket};
use crate::testing::{has_ipv6, pattern, user, wait};
use crate::{HalfOpenAction, HalfOpens, Listening};

const L: ListenerId = ListenerId(Key { slot: 0, generation: 0 });

/// Main and a worker in one, with both ends of every connection.
struct Loop {
    half_opens: HalfOpens,
    engine: Engine,
    layer: FakeLayer,
    events: Vec<TransportEvent>,
    now: Instant,
    listening: Listening,
    _directory: tempfile::TempDir,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    session: SessionId,
    connection: ConnectionId,
}

fn ip(text: &str) -> Address {
    let addr: core::net::SocketAddr = text.parse().unwrap();
    Address::KernelTcp(Endpoint::from(addr))
}

impl Loop {
    fn new(address: impl FnOnce(&std::path::Path) -> Address) -> Loop {
        Loop::on(Arc::new(Native), address)
    }

    fn on(host: Arc<dyn Host>, address: impl FnOnce(&std::path::Path) -> Address) -> Loop {
        let directory = tempfile::tempdir().unwrap();
        let at = address(directory.path());
        let mut listening = crate::listen(&*host, &at, 4096, &SocketOptions::DEFAULT, 1).unwrap();
        let mut engine = Engine::new(host.clone(), 100_000).unwrap();
        let socket = listening.sockets.pop().unwrap();
        engine.listen(L, listening.address.clone(), socket, SocketOptions::DEFAULT).unwrap();
        Loop {
            half_opens: HalfOpens::new(host, 100_000).unwrap(),
            engine,
            layer: FakeLayer::new(),
            events: Vec::new(),
            now: ms(1),
            listening,
            _directory: directory,
        }
    }

    /// One of each kind of address.
    fn all() -> Vec<Loop> {
        let mut all = vec![
            Loop::new(|_| ip("127.0.0.1:0")),
            Loop::new(|directory| Address::kernel_unix(directory.join("s").to_str().unwrap()).unwrap()),
            Loop::new(|directory| {
                let unique = directory.file_name().unwrap().to_str().unwrap();
                Address::kernel_unix(&format!("@hoststack-{unique}")).unwrap()
            }),
        ];
        if has_ipv6() {
            all.push(Loop::new(|_| ip("[::1]:0")));
        }
        all
    }

    fn is_tcp(&self) -> bool {
        self.listening.address.endpoint().is_some()
    }

    fn opens(&mut self) {
        let (options, deadline) = (Arc::new(SocketOptions::DEFAULT), Instant::FAR);
        let mut actions = Vec::new();
        let to = self.listening.address.clone();
        self.half_opens.open(self.now, &to, None, user(), options, deadline, &mut actions).unwrap();
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<HalfOpenAction>) {
        let mut deleted = Vec::new();
        for action in actions {
            match action {
                HalfOpenAction::Establish { half_open, seed, .. } => {
                    let session = self.layer.open();
                    let connection = self
                        .engine
                        .establish(self.now, seed, session, &mut self.layer, &mut self.events)
                        .unwrap();
                    self.layer.of(session).connection = Some(connection);
                    self.half_opens.settled(half_open, &mut deleted);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Whether it did anything.
    fn step(&mut self) -> bool {
        let mut actions = Vec::new();
        let mut worked = self.half_opens.poll(self.now, 64, &mut actions);
        self.act(actions);
        worked |= self.engine.poll(self.now, 64, &mut self.layer, &mut self.events);
        for _ in 0..self.layer.programmed.len() {
            let session = self.layer.programmed.pop_front().unwrap();
            let connection = self.layer.of(session).connection.unwrap();
            let done =
                self.engine.transmit(self.now, connection, 64, &mut self.layer, &mut (), &mut self.events);
            if done == Transmitted::More {
                self.layer.program_tx(session);
            }
            worked = true;
        }
        self.half_opens.check_consistency();
        self.engine.check_consistency();
        worked
    }

    /// Goes on until it is so; between steps it sleeps as a thread would.
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Loop) -> bool) {
        let mut idle = 0;
        while !is_so(self) {
            if self.step() || self.engine.has_work() || !self.layer.programmed.is_empty() {
                idle = 0;
                continue;
            }
            let timer = Instant::earliest([self.half_opens.next_deadline(), self.engine.next_deadline()]);
            // A timer is due as soon as nothing comes: time is ours.
            let most = Duration::from_millis(if timer.is_some() { 1 } else { 10_000 });
            if !wait(&[self.half_opens.poller(), &self.engine.poller], most) {
                self.now = timer.unwrap_or_else(|| panic!("the host says nothing: {what}"));
            }
            idle += 1;
            assert!(idle < 1000, "woken without end: {what}");
        }
    }

    /// A connection: the end that opened it, the end that accepted it.
    fn pair(&mut self) -> (End, End) {
        let before = self.layer.sessions.len();
        self.opens();
        self.until("both ends are up", |l| l.layer.sessions.len() == before + 2);
        let end = |l: &mut Loop, slot: usize| {
            let session = SessionId(Key { slot: slot as u32, generation: 0 });
            End { session, connection: l.layer.of(session).connection.unwrap() }
        };
        let (one, other) = (end(self, before), end(self, before + 1));
        let is_connected = self.events.contains(&TransportEvent::Connected { session: one.session });
        if is_connected { (one, other) } else { (other, one) }
    }

    fn has(&self, event: TransportEvent) -> bool {
        self.events.contains(&event)
    }

    fn reason(&self, end: End) -> Option<CloseReason> {
        let mut reasons = self.events.iter().filter_map(|event| match event {
            TransportEvent::Closed { session, reason, .. } if *session == end.session => Some(*reason),
            _ => None,
        });
        let reason = reasons.next();
        assert_eq!(reasons.next(), None, "closed once");
        reason
    }

    fn close(&mut self, end: End) {
        self.engine.close(self.now, end.connection, &mut self.layer, &mut (), &mut self.events);
    }

    fn half_close(&mut self, end: End) {
        self.engine.half_close(self.now, end.connection, &mut self.layer, &mut (), &mut self.events);
    }

    fn reset(&mut self, end: End) {
        self.engine.reset(self.now, end.connection, &mut self.layer, &mut (), &mut self.events);
    }

    fn is_empty(&mut self) {
        assert_eq!((self.half_opens.len(), self.engine.connections()), (0, 0));
        assert_eq!(self.engine.armed_timers() + self.half_opens.armed_timers(), 0);
    }
}

/// A megabyte from the client to the server and back.
fn echo(l: &mut Loop) {
    const LEN: usize = 1 << 20;
    let at = l.listening.address.clone();
    let (client, server) = l.pair();
    let bytes = stream(LEN);
    l.layer.write(client.session, &bytes);
    let mut echoed = 0;
    l.until(&format!("{at}: the echo is whole"), |l| {
        // The server gives back what it reads, the client reads what comes.
        let count = l.layer.read(server.session);
        let chunk = l.layer.of(server.session).rx[echoed..echoed + count].to_vec();
        echoed += count;
        if count > 0 {
            l.layer.write(server.session, &chunk);
        }
        l.layer.read(client.session);
        l.layer.of(client.session).rx.len() == LEN
    });
    assert!(l.layer.of(client.session).rx == bytes, "{at}: the bytes are the same");
    assert_eq!(l.engine.counters().bytes_in, 2 * LEN as u64);
    let flow = l.layer.accepted[0].1;
    assert_eq!(flow.protocol, at.protocol());
    assert_eq!(flow.local, at.endpoint().unwrap_or(Endpoint::UNSPECIFIED));
    l.close(client);
    l.until(&format!("{at}: the server hears the end"), |l| l.has(peer_closed(server.session)));
    l.close(server);
    let finished = Some(CloseReason::Finished);
    assert_eq!((l.reason(client), l.reason(server)), (finished, finished));
    l.is_empty();
}

#[test]
fn a_megabyte_goes_there_and_back() {
    for mut l in Loop::all() {
        echo(&mut l);
    }
}

#[test]
fn a_megabyte_goes_through_a_host_whose_calls_are_short_and_interrupted() {
    for path in [false, true] {
        let mut l = Loop::on(Arc::new(Meddling), |directory| match path {
            true => Address::kernel_unix(directory.join("s").to_str().unwrap()).unwrap(),
            false => ip("127.0.0.1:0"),
        });
        echo(&mut l);
    }
}

/// The host's own sockets and pollers, but for reads and writes, which are short, or interrupted by signals. As the poller
/// tells of a change only once, a short call that was taken for the last would be the last.
#[derive(Debug)]
struct Meddling;

impl Host for Meddling {
    fn socket(&self, like: &Address, options: &SocketOptions) -> Result<Socket, Errno> {
        Native.socket(like, options).map(Meddled::socket_of)
    }

    fn poller(&self) -> Result<Poller, Errno> {
        Native.poller()
    }
}

#[derive(Debug)]
struct Meddled {
    socket: Socket,
    calls: AtomicUsize,
}

impl Meddled {
    fn socket_of(socket: Socket) -> Socket {
        Socket::Model(Box::new(Meddled { socket, calls: AtomicUsize::new(0) }))
    }

    /// How much of `len` this call does.
    fn less(&self, len: usize) -> Result<usize, Errno> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match pattern(call) {
            0..40 => Err(Errno::INTR),
            byte => Ok(len.min(usize::from(byte) * 30)),
        }
    }
}

impl ModelSocket for Meddled {
    fn connect(&self, to: &Address) -> Result<(), Errno> {
        self.socket.connect(to)
    }
    fn bind(&self, to: &Address, shared: bool) -> Result<(), Errno> {
        self.socket.bind(to, shared)
    }
    fn listen(&self, backlog: u32) -> Result<(), Errno> {
        self.socket.listen(backlog)
    }
    fn accept(&self) -> Result<(Socket, Endpoint), Errno> {
        let (socket, remote) = self.socket.accept()?;
        Ok((Meddled::socket_of(socket), remote))
    }
    fn try_clone(&self) -> Result<Socket, Errno> {
        self.socket.try_clone().map(Meddled::socket_of)
    }
    fn local(&self) -> Result<Endpoint, Errno> {
        self.socket.local()
    }
    fn is_connected(&self) -> bool {
        self.socket.is_connected()
    }
    fn take_error(&self) -> Option<Errno> {
        self.socket.take_error()
    }
    fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        let len = self.less(into.len())?;
        self.socket.read(&mut into[..len])
    }
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let len = self.less(bytes.len())?;
        self.socket.write(&bytes[..len])
    }
    fn finish(&self) -> Result<(), Errno> {
        self.socket.finish()
    }
    fn reset_on_close(&self) -> Result<(), Errno> {
        self.socket.reset_on_close()
    }
    fn set_option(&self, option: SocketOption) {
        self.socket.set_option(option);
    }
    fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.socket.as_fd()
    }
}

#[test]
fn a_half_close_lets_the_answer_through() {
    for mut l in Loop::all() {
        let at = l.listening.address.clone();
        let (client, server) = l.pair();
        l.layer.write(client.session, &stream(100_000));
        l.half_close(client);
        l.until(&format!("{at}: the question is whole"), |l| {
            l.layer.read(server.session);
            l.has(peer_closed(server.session))
        });
        assert_eq!(l.layer.of(server.session).rx.len(), 100_000);
        assert_eq!(l.reason(client), None);
        l.layer.write(server.session, b"answer");
        l.half_close(server);
        l.until(&format!("{at}: both ends are over"), |l| {
            l.reason(client).is_some() && l.reason(server).is_some()
        });
        assert_eq!(l.layer.of(client.session).rx, b"answer");
        assert_eq!(
            (l.reason(client), l.reason(server)),
            (Some(CloseReason::Finished), Some(CloseReason::Finished))
        );
        l.is_empty();
    }
}

#[test]
fn a_reset_is_a_reset_at_the_other_end() {
    for mut l in Loop::all() {
        let at = l.listening.address.clone();
        let (client, server) = l.pair();
        l.reset(server);
        assert_eq!(l.reason(server), Some(CloseReason::LocalReset));
        if l.is_tcp() {
            l.until(&format!("{at}: the client hears of it"), |l| l.reason(client).is_some());
            assert_eq!(l.reason(client), Some(CloseReason::PeerReset));
            assert!(!l.has(peer_closed(client.session)));
        } else {
            // A Unix socket knows no reset.
            l.until(&format!("{at}: the client hears of it"), |l| l.has(peer_closed(client.session)));
            l.layer.write(client.session, b"anyone?");
            l.until(&format!("{at}: nobody"), |l| l.reason(client).is_some());
            assert_eq!(l.reason(client), Some(CloseReason::PeerReset));
        }
        l.is_empty();
    }
}

#[test]
fn a_close_with_something_unread_resets() {
    for mut l in Loop::all() {
        let at = l.listening.address.clone();
        let (client, server) = l.pair();
        // More than the server's fifo holds: some is the engine's, some the host's.
        l.layer.rx_capacity = 1000;
        l.layer.write(client.session, &stream(2000));
        l.until(&format!("{at}: the fifo is full"), |l| l.layer.of(server.session).rx.len() == 1000);
        l.close(server);
        assert_eq!(l.reason(server), Some(CloseReason::LocalReset));
        l.until(&format!("{at}: the client hears of it"), |l| l.reason(client).is_some());
        assert_eq!(l.reason(client), Some(CloseReason::PeerReset));
        l.is_empty();
    }
}

#[test]
fn what_a_peer_said_before_it_was_gone_is_delivered() {
    for mut l in Loop::all() {
        let at = l.listening.address.clone();
        let (client, server) = l.pair();
        l.layer.rx_capacity = 1000;
        let bytes = stream(100_000);
        l.layer.write(server.session, &bytes);
        l.close(server);
        l.until(&format!("{at}: the server is over"), |l| l.reason(server).is_some());
        // The client finds the peer gone when it writes, twice: the first write provokes the reset.
        let mut reads = false;
        l.until(&format!("{at}: the client has all"), |l| {
            if !reads {
                l.layer.write(client.session, b"hello?");
                reads = true;
            }
            l.layer.read(client.session);
            l.reason(client).is_some() || l.has(peer_closed(client.session))
        });
        if l.is_tcp() {
            // The host drops what it had received when a reset comes, or does not: what is delivered is a beginning.
            let rx = &l.layer.of(client.session).rx;
            assert!(rx.iter().enumerate().all(|(n, &byte)| byte == pattern(n)));
        } else {
            assert!(l.layer.of(client.session).rx == bytes, "{at}: all of it");
        }
    }
}

#[test]
fn what_came_with_the_end_is_delivered_to_a_connect_that_was_not_looked_at() {
    // As of `establishment.md` 29: hang-up, with data, before the connect was seen to be up.
    for mut l in Loop::all() {
        let at = l.listening.address.clone();
        l.opens();
        // Only the listener's side goes on.
        let mut events = Vec::new();
        while l.layer.accepted.is_empty() {
            assert!(wait(&[&l.engine.poller], Duration::from_secs(10)), "{at}: nobody comes");
            l.engine.poll(l.now, 1, &mut l.layer, &mut events);
        }
        let server = (0..l.layer.sessions.len() as u32)
            .map(|slot| SessionId(Key { slot, generation: 0 }))
            .find(|&session| events.contains(&TransportEvent::Accepted { session }))
            .unwrap();
        let connection = l.layer.of(server).connection.unwrap();
        l.layer.write(server, b"bye");
        l.layer.programmed.retain(|&session| session != server);
        l.engine.close(l.now, connection, &mut l.layer, &mut (), &mut events);
        let is_its_end = |event: &TransportEvent| {
            let TransportEvent::Closed { session, reason, stats } = *event else { return false };
            session == server && reason == CloseReason::Finished && stats.bytes_out == 3
        };
        assert!(events.iter().any(is_its_end));
        l.events.append(&mut events);
        l.until(&format!("{at}: the client has it all"), |l| {
            l.events.iter().any(|event| matches!(event, TransportEvent::PeerClosed { .. }))
        });
        let client = l.events.iter().find_map(|event| match event {
            TransportEvent::Connected { session } => Some(*session),
            _ => None,
        });
        let client = client.expect("it was connected");
        assert_eq!(l.layer.of(client).rx, b"bye", "{at}");
        let of_client: Vec<_> =
            l.events.iter().filter(|event| format!("{event:?}").contains(&format!("{client:?}"))).collect();
        assert_eq!(
            of_client,
            [&TransportEvent::Connected { session: client }, &received(client), &peer_closed(client)]
        );
    }
}

#[test]
fn nobody_there_is_refused() {
    for mut l in Loop::all() {
        let at = l.listening.address.clone();
        l.engine.unlisten(L);
        let (options, deadline) = (Arc::new(SocketOptions::DEFAULT), Instant::FAR);
        let mut actions = Vec::new();
        l.half_opens.open(l.now, &at, None, user(), options, deadline, &mut actions).unwrap();
        while actions.is_empty() {
            assert!(wait(&[l.half_opens.poller()], Duration::from_secs(10)), "{at}: no answer");
            l.half_opens.poll(l.now, 64, &mut actions);
        }
        assert!(
            matches!(actions[..], [HalfOpenAction::Failed { failure: ConnectFailure::Refused, .. }]),
            "{at}: {actions:?}"
        );
    }
}

#[test]
fn a_unix_backlog_that_is_full_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let at = Address::kernel_unix(directory.path().join("s").to_str().unwrap()).unwrap();
    let mut listening = crate::listen(&Native, &at, 1, &SocketOptions::DEFAULT, 1).unwrap();
    let socket = listening.sockets.pop().unwrap();
    let mut l = Loop::new(|_| ip("127.0.0.1:0"));
    l.listening = listening;
    for _ in 0..8 {
        l.opens();
    }
    assert!(l.half_opens.counters().backlogged > 0, "the host has a longer backlog than it was told");
    assert!(!l.half_opens.is_empty());
    l.engine.listen(ListenerId(Key { slot: 1, generation: 0 }), at, socket, SocketOptions::DEFAULT).unwrap();
    l.until("all are up", |l| l.engine.connections() == 16);
    assert_eq!(l.half_opens.len(), 0);
}

#[test]
fn many_connections_talk_at_once() {
    for mut l in Loop::all() {
        let at = l.listening.address.clone();
        const MANY: usize = 500;
        for _ in 0..MANY {
            l.opens();
            l.step();
        }
        l.until(&format!("{at}: all are up"), |l| l.engine.connections() == 2 * MANY);
        let sessions: Vec<_> =
            (0..2 * MANY as u32).map(|slot| SessionId(Key { slot, generation: 0 })).collect();
        for &session in &sessions {
            let said = format!("I am {session}");
            l.layer.write(session, said.as_bytes());
        }
        l.until(&format!("{at}: all have heard"), |l| {
            sessions.iter().all(|&session| l.layer.of(session).rx.starts_with(b"I am s"))
        });
        for &session in &sessions {
            l.layer.read(session);
            let connection = l.layer.of(session).connection.unwrap();
            let end = End { session, connection };
            l.half_close(end);
        }
        l.until(&format!("{at}: all are over"), |l| l.engine.connections() == 0);
        let finished = l
            .events
            .iter()
            .filter(|event| matches!(event, TransportEvent::Closed { reason: CloseReason::Finished, .. }));
        assert_eq!(finished.count(), 2 * MANY);
        assert_eq!(l.engine.counters().failed, 0);
        l.is_empty();
    }
}

#[test]
fn urgent_data_does_not_hide_what_follows_it() {
    let mut l = Loop::new(|_| ip("127.0.0.1:0"));
    let to = l.listening.address.clone();
    let peer = Native.socket(&to, &SocketOptions::NODELAY).unwrap();
    let _ = peer.connect(&to);
    l.until("it is up", |l| l.engine.connections() == 1);
    let session = SessionId(Key { slot: 0, generation: 0 });
    let Socket::Fd(fd) = &peer else { panic!("one of the host") };
    for (bytes, flags) in [
        (&b"before"[..], rustix::net::SendFlags::empty()),
        (b"!", rustix::net::SendFlags::OOB),
        (b"after", rustix::net::SendFlags::empty()),
    ] {
        assert_eq!(rustix::net::send(fd, bytes, flags), Ok(bytes.len()));
    }
    // A read stops before the urgent byte, which is not in line, with more behind it.
    l.until("all is read", |l| l.layer.of(session).rx == b"beforeafter");
}
