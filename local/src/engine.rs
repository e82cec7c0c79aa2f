//! The ends that a worker owns.

use std::collections::VecDeque;

use hoststack_transport::border::{SessionLayer, Transmitted, Transport, TransportEvent};
pub use hoststack_transport::pool::Full;
use hoststack_transport::{
    CloseReason, ConnectionId, ConnectionStats, DomainId, Duration, EndStats, Endpoint, FlowKey, Instant,
    ListenerId, Measures, Pool, Protocol, SessionId, SocketOption, WorkerId,
};

use crate::message::{Message, Place};

/// Bytes moved at a time.
const PIECE: usize = 16 * 1024;
/// Pieces moved for one end in one call, whatever the burst.
const PIECES_MAX: usize = 16;
/// When bytes for which there was no memory are tried again.
const RETRY: Duration = Duration::from_millis(1);

/// One end of a connection.
#[derive(Debug)]
struct End {
    session: SessionId,
    /// The other end, once it is known.
    peer: Option<Place>,
    /// Bytes that the peer, on another worker, has room for.
    may_send: u32,
    /// Bytes that the peer, on another worker, was told it may send and has not sent.
    granted: u32,
    /// Bytes that came and found no memory, from the peer on another worker.
    held: Vec<u8>,
    /// The app sends no more; said to the peer once all is sent.
    closing: bool,
    /// The peer was told.
    finished: bool,
    /// The peer sends no more.
    peer_finished: bool,
    /// The app wants no more of it: it ends when all is sent.
    closed: bool,
    /// In [`Engine::retries`].
    is_retrying: bool,
    /// Bytes that came, and bytes that went.
    bytes_in: u64,
    bytes_out: u64,
}

/// What the engine did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connects that came up.
    pub opened: u64,
    /// Connects that the listener's side would not have.
    pub refused: u64,
    /// Bytes that reached their receiver's fifo.
    pub bytes: u64,
    /// Connects that were accepted.
    pub accepted: u64,
    /// Ends that ended, whatever the reason.
    pub closed: u64,
    /// Of these, because the other end reset the connection.
    pub failed: u64,
    /// Bytes that left their sender's fifo.
    pub bytes_out: u64,
}

/// A worker's ends.
pub struct Engine {
    worker: WorkerId,
    ends: Pool<End>,
    /// Messages for other workers, to be sent by the caller.
    out: Vec<(WorkerId, Message)>,
    /// Ends whose bytes found no memory.
    retries: VecDeque<ConnectionId>,
    retry_at: Option<Instant>,
    scratch: Vec<u8>,
    counters: Counters,
}

/// The flow of a session over this transport: it has no addresses.
const fn flow(domain: DomainId) -> FlowKey {
    FlowKey { local: Endpoint::UNSPECIFIED, remote: Endpoint::UNSPECIFIED, domain, protocol: Protocol::Local }
}

impl Engine {
    /// A worker's engine with room for so many ends.
    pub fn new(worker: WorkerId, ends_max: usize) -> Engine {
        Engine {
            worker,
            ends: Pool::new(ends_max),
            out: Vec::new(),
            retries: VecDeque::new(),
            retry_at: None,
            scratch: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// The flow of a connect in `domain`.
    pub const fn flow(domain: DomainId) -> FlowKey {
        flow(domain)
    }

    /// From now on no end is made, or again: for simulated faults.
    pub fn set_refusing(&mut self, refusing: bool) {
        self.ends.set_refusing(refusing);
    }

    /// Ends that live.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// What the pool of ends holds of its limit.
    pub fn usage(&self) -> hoststack_transport::Usage {
        self.ends.usage()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// What it did so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Messages for other workers, in order.
    pub fn take_messages(&mut self) -> impl Iterator<Item = (WorkerId, Message)> + '_ {
        self.out.drain(..)
    }

    /// When it has something to do by itself.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Connects `session` to `listener`, which accepts on `worker`: up at once if that is this one, later if not. On
    /// this worker a listener that does not accept is told at once as well: the connection ends with a reset.
    ///
    /// # Errors
    /// No room for the end.
    pub fn connect<L: SessionLayer>(
        &mut self,
        listener: ListenerId,
        worker: WorkerId,
        domain: DomainId,
        session: SessionId,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) -> Result<ConnectionId, Full> {
        let connection = ConnectionId(self.ends.insert(End::new(session))?);
        let from = Place { worker: self.worker, connection };
        if worker != self.worker {
            let granted = self.grant_first(connection, layer);
            self.out.push((worker, Message::Open { listener, domain, from, granted }));
            return Ok(connection);
        }
        match self.accept(listener, domain, from, layer, events) {
            Some(peer) => self.opened(connection, peer, 0, events),
            None => self.refused(connection, events),
        }
        Ok(connection)
    }

    /// Makes the accepting end.
    fn accept<L: SessionLayer>(
        &mut self,
        listener: ListenerId,
        domain: DomainId,
        from: Place,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) -> Option<Place> {
        // The end's session is known once the layer has accepted, which needs the end's name.
        let unknown = SessionId(from.connection.0);
        let connection = ConnectionId(self.ends.insert(End::new(unknown)).ok()?);
        match layer.accept(listener, connection, &flow(domain)) {
            Ok(session) => {
                let end = self.ends.get_mut(connection.0)?;
                end.session = session;
                end.peer = Some(from);
                self.counters.accepted += 1;
                events.push(TransportEvent::Accepted { session });
                Some(Place { worker: self.worker, connection })
            }
            Err(_) => {
                self.ends.remove(connection.0);
                None
            }
        }
    }

    fn opened(
        &mut self,
        connection: ConnectionId,
        peer: Place,
        granted: u32,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(end) = self.ends.get_mut(connection.0) else { return };
        end.peer = Some(peer);
        end.may_send = granted;
        self.counters.opened += 1;
        events.push(TransportEvent::Connected { session: end.session });
    }

    fn refused(&mut self, connection: ConnectionId, events: &mut Vec<TransportEvent>) {
        self.counters.refused += 1;
        self.remove(connection, CloseReason::PeerReset, events);
    }

    /// Frees an end, with its delete notification.
    fn remove(&mut self, connection: ConnectionId, reason: CloseReason, events: &mut Vec<TransportEvent>) {
        if let Some(end) = self.ends.remove(connection.0) {
            self.counters.closed += 1;
            self.counters.failed += u64::from(reason == CloseReason::PeerReset);
            let stats = EndStats { bytes_in: end.bytes_in, bytes_out: end.bytes_out, ..EndStats::default() };
            events.push(TransportEvent::Closed { session: end.session, reason, stats });
        }
    }

    /// What another worker's end says.
    pub fn on_message<L: SessionLayer>(
        &mut self,
        now: Instant,
        message: Message,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) {
        match message {
            Message::Open { listener, domain, from, granted } => {
                let answer = match self.accept(listener, domain, from, layer, events) {
                    Some(place) => {
                        if let Some(end) = self.ends.get_mut(place.connection.0) {
                            end.may_send = granted;
                        }
                        let granted = self.grant_first(place.connection, layer);
                        Message::Opened { to: from.connection, from: place, granted }
                    }
                    None => Message::Refused { to: from.connection },
                };
                self.out.push((from.worker, answer));
            }
            Message::Opened { to, from, granted } => {
                if self.ends.get(to.0).is_some() {
                    self.opened(to, from, granted, events);
                    self.say_rest(to, layer);
                } else {
                    // It was given up meanwhile.
                    self.out.push((from.worker, Message::Reset { to: from.connection }));
                }
            }
            Message::Refused { to } => self.refused(to, events),
            Message::Data { to, from, bytes } => {
                if self.ends.get(to.0).is_some() {
                    self.data(now, to, bytes, layer, events);
                } else {
                    self.out.push((from.worker, Message::Reset { to: from.connection }));
                }
            }
            Message::Grant { to, bytes } => {
                if let Some(end) = self.ends.get_mut(to.0) {
                    end.may_send = end.may_send.saturating_add(bytes);
                    layer.program_tx(end.session);
                }
            }
            Message::Finish { to } => {
                let Some(end) = self.ends.get_mut(to.0) else { return };
                end.peer_finished = true;
                if end.held.is_empty() {
                    self.peer_finished(to, events);
                }
            }
            Message::Reset { to } => self.remove(to, CloseReason::PeerReset, events),
        }
    }

    /// The first grant to an end on another worker: all the room there is.
    fn grant_first<L: SessionLayer>(&mut self, connection: ConnectionId, layer: &mut L) -> u32 {
        let Some(end) = self.ends.get_mut(connection.0) else { return 0 };
        end.granted = layer.rx_room(end.session);
        end.granted
    }

    /// Bytes from another worker's end.
    fn data<L: SessionLayer>(
        &mut self,
        now: Instant,
        to: ConnectionId,
        bytes: Vec<u8>,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(end) = self.ends.get_mut(to.0) else { return };
        end.granted = end.granted.saturating_sub(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        if end.closed {
            // As TCP: what comes for an app that has closed is answered by a reset.
            return self.reset_both(to, CloseReason::LocalReset, events);
        }
        let before = end.held.len();
        end.held.extend_from_slice(&bytes);
        if before == 0 {
            self.store_held(now, to, layer, events);
        }
    }

    /// Stores what came and is not stored yet.
    fn store_held<L: SessionLayer>(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(end) = self.ends.get_mut(connection.0) else { return };
        if end.held.is_empty() {
            return;
        }
        let room = layer.rx_room(end.session) as usize;
        let fits = end.held.len().min(room);
        let stored = layer.rx_store(end.session, 0, &end.held[..fits]).advanced as usize;
        end.held.drain(..stored);
        if stored > 0 {
            self.counters.bytes += stored as u64;
            end.bytes_in += stored as u64;
            events.push(TransportEvent::Received { session: end.session });
        }
        if !end.held.is_empty() {
            self.retry(now, connection);
        } else if end.peer_finished {
            self.peer_finished(connection, events);
        }
    }

    /// There was no memory: tries again soon.
    fn retry(&mut self, now: Instant, connection: ConnectionId) {
        let Some(end) = self.ends.get_mut(connection.0) else { return };
        if !end.is_retrying {
            end.is_retrying = true;
            self.retries.push_back(connection);
        }
        self.retry_at.get_or_insert(now + RETRY);
    }

    /// Tries what found no memory again.
    pub fn poll<L: SessionLayer>(
        &mut self,
        now: Instant,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) -> bool {
        if self.retry_at.is_none_or(|at| at > now) {
            return false;
        }
        self.retry_at = None;
        for _ in 0..self.retries.len() {
            let Some(connection) = self.retries.pop_front() else { break };
            let Some(end) = self.ends.get_mut(connection.0) else { continue };
            end.is_retrying = false;
            // What is left to send goes on in the transmit stage.
            layer.program_tx(end.session);
            self.store_held(now, connection, layer, events);
        }
        true
    }

    /// The peer has said its last, and all of it was stored.
    fn peer_finished(&mut self, connection: ConnectionId, events: &mut Vec<TransportEvent>) {
        let Some(end) = self.ends.get_mut(connection.0) else { return };
        end.peer_finished = true;
        events.push(TransportEvent::PeerClosed { session: end.session });
        if end.finished {
            self.remove(connection, CloseReason::Finished, events);
        }
    }

    /// Ends the connection both here and at the peer.
    fn reset_both(
        &mut self,
        connection: ConnectionId,
        reason: CloseReason,
        events: &mut Vec<TransportEvent>,
    ) {
        let peer = self.ends.get(connection.0).and_then(|end| end.peer);
        self.remove(connection, reason, events);
        match peer {
            Some(peer) if peer.worker == self.worker => {
                self.remove(peer.connection, CloseReason::PeerReset, events);
            }
            Some(peer) => self.out.push((peer.worker, Message::Reset { to: peer.connection })),
            // Not open yet: the answer will find nothing here.
            None => {}
        }
    }

    /// Once the other end is known, what waited for it goes out.
    fn say_rest<L: SessionLayer>(&mut self, connection: ConnectionId, layer: &mut L) {
        if let Some(end) = self.ends.get(connection.0) {
            layer.program_tx(end.session);
        }
    }

    /// Moves what is queued at `connection` towards its peer, then what was asked for behind it.
    fn send<L: SessionLayer>(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        pieces: usize,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) -> Transmitted {
        let Some(end) = self.ends.get(connection.0) else { return Transmitted::Idle };
        let (session, Some(peer)) = (end.session, end.peer) else { return Transmitted::Idle };
        let is_here = peer.worker == self.worker;
        let target =
            is_here.then(|| self.ends.get(peer.connection.0).map(|end| (end.session, end.closed))).flatten();
        if is_here && target.is_none() {
            // The peer has ended: nobody takes what is queued.
            if layer.tx_len(session) > 0 {
                self.remove(connection, CloseReason::PeerReset, events);
                return Transmitted::Idle;
            }
        }
        let mut moved = 0u32;
        let mut answer = Transmitted::Idle;
        for piece in 0..=pieces.min(PIECES_MAX) {
            let queued = layer.tx_len(session);
            let room = match target {
                Some((peer_session, _)) => layer.rx_room(peer_session),
                None => self.ends.get(connection.0).map_or(0, |end| end.may_send),
            };
            let count = (queued.min(room) as usize).min(PIECE);
            if let Some((_, true)) = target
                && queued > 0
            {
                self.reset_both(connection, CloseReason::PeerReset, events);
                return Transmitted::Idle;
            }
            if count == 0 {
                break;
            }
            if piece == pieces.min(PIECES_MAX) {
                answer = Transmitted::More;
                break;
            }
            let taken = match target {
                Some((peer_session, _)) => {
                    self.scratch.resize(PIECE, 0);
                    let bytes = &mut self.scratch[..count];
                    layer.tx_copy(session, 0, bytes);
                    let stored = layer.rx_store(peer_session, 0, bytes).advanced;
                    self.counters.bytes += u64::from(stored);
                    stored
                }
                None => {
                    let mut bytes = vec![0; count];
                    layer.tx_copy(session, 0, &mut bytes);
                    if let Some(end) = self.ends.get_mut(connection.0) {
                        end.may_send -= count as u32; // fits: a piece
                    }
                    let from = Place { worker: self.worker, connection };
                    self.out.push((peer.worker, Message::Data { to: peer.connection, from, bytes }));
                    count as u32 // fits: a piece
                }
            };
            layer.tx_acknowledge(session, taken);
            self.counters.bytes_out += u64::from(taken);
            moved += taken;
            if (taken as usize) < count {
                self.retry(now, connection);
                break;
            }
        }
        if moved > 0 {
            if let Some(end) = self.ends.get_mut(connection.0) {
                end.bytes_out += u64::from(moved);
            }
            if let Some((peer_session, _)) = target {
                if let Some(end) = self.ends.get_mut(peer.connection.0) {
                    end.bytes_in += u64::from(moved);
                }
                events.push(TransportEvent::Received { session: peer_session });
            }
            events.push(TransportEvent::Acknowledged { session });
        }
        self.finish_if_done(connection, layer, events);
        answer
    }

    /// Says that nothing more follows once all is sent, and ends what has ended both ways.
    fn finish_if_done<L: SessionLayer>(
        &mut self,
        connection: ConnectionId,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(end) = self.ends.get_mut(connection.0) else { return };
        let Some(peer) = end.peer else { return };
        if !end.closing || end.finished || layer.tx_len(end.session) > 0 {
            return;
        }
        end.finished = true;
        let (closed, peer_finished) = (end.closed, end.peer_finished);
        if peer.worker == self.worker {
            self.peer_finished(peer.connection, events);
        } else {
            self.out.push((peer.worker, Message::Finish { to: peer.connection }));
        }
        if closed || peer_finished {
            self.remove(connection, CloseReason::Finished, events);
        }
    }

    /// The app has read: the peer may send more.
    fn pull<L: SessionLayer>(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(end) = self.ends.get_mut(connection.0) else { return };
        let Some(peer) = end.peer else { return };
        if peer.worker == self.worker {
            let waits = self.ends.get(peer.connection.0).is_some_and(|end| layer.tx_len(end.session) > 0);
            if waits
                && self.send(now, peer.connection, PIECES_MAX, layer, events) == Transmitted::More
                && let Some(end) = self.ends.get(peer.connection.0)
            {
                layer.program_tx(end.session);
            }
            return;
        }
        let held = end.held.len() as u32; // fits: never more than was granted
        let more = layer.rx_room(end.session).saturating_sub(end.granted + held);
        // Not for every byte that is read: half of what the peer may have under way.
        if more > 0 && more >= end.granted {
            end.granted += more;
            self.out.push((peer.worker, Message::Grant { to: peer.connection, bytes: more }));
        }
    }

    /// Asserts what must hold between steps.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn check_consistency(&self) {
        for (key, end) in self.ends.iter() {
            assert!(!end.finished || end.closing, "c{key} finished without being asked to");
            let Some(peer) = end.peer.filter(|peer| peer.worker == self.worker) else { continue };
            let Some(other) = self.ends.get(peer.connection.0) else { continue };
            assert_eq!(other.peer.map(|place| place.connection.0), Some(key), "the ends name each other");
        }
    }
}

impl End {
    fn new(session: SessionId) -> End {
        End {
            session,
            peer: None,
            may_send: 0,
            granted: 0,
            held: Vec::new(),
            closing: false,
            finished: false,
            peer_finished: false,
            closed: false,
            is_retrying: false,
            bytes_in: 0,
            bytes_out: 0,
        }
    }
}

impl<L: SessionLayer> Transport<L, ()> for Engine {
    fn close(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        layer: &mut L,
        out: &mut (),
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(end) = self.ends.get_mut(connection.0) else { return };
        if layer.rx_unread(end.session) > 0 || !end.held.is_empty() {
            // RFC 2525 §2.17: bytes that the app will not read must not look as if it had.
            return self.reset_both(connection, CloseReason::LocalReset, events);
        }
        end.closed = true;
        if end.finished {
            return self.remove(connection, CloseReason::Finished, events);
        }
        self.half_close(now, connection, layer, out, events);
    }

    fn half_close(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        layer: &mut L,
        _: &mut (),
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(end) = self.ends.get_mut(connection.0) else { return };
        end.closing = true;
        let session = end.session;
        if self.send(now, connection, PIECES_MAX, layer, events) == Transmitted::More {
            layer.program_tx(session);
        }
    }

    fn reset(
        &mut self,
        _: Instant,
        connection: ConnectionId,
        _: &mut L,
        _: &mut (),
        events: &mut Vec<TransportEvent>,
    ) {
        self.reset_both(connection, CloseReason::LocalReset, events);
    }

    fn transmit(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        burst: usize,
        layer: &mut L,
        _: &mut (),
        events: &mut Vec<TransportEvent>,
    ) -> Transmitted {
        let answer = self.send(now, connection, burst, layer, events);
        self.pull(now, connection, layer, events);
        answer
    }

    fn set_option(&mut self, _: Instant, _: ConnectionId, _: SocketOption, _: &mut L, _: &mut ()) {}

    fn describe(&self, _: Instant, connection: ConnectionId) -> Option<String> {
        let end = self.ends.get(connection.0)?;
        let peer = match end.peer {
            Some(peer) => format!("w{} {}", peer.worker.0, peer.connection),
            None => "none".into(),
        };
        Some(format!(
            "peer={} may_send={} granted={} held={} finished={} peer_finished={} closed={}",
            peer.replace(' ', "/"),
            end.may_send,
            end.granted,
            end.held.len(),
            end.finished,
            end.peer_finished,
            end.closed
        ))
    }
}

impl Measures for Engine {
    fn stats(&self, _: Protocol, connection: ConnectionId) -> Option<ConnectionStats> {
        self.ends.get(connection.0).map(|_| ConnectionStats::default())
    }
}
