//! A worker's engine: pools, demultiplexing, and the [`Transport`] that the session layer asks.

mod demux;
mod ends;
mod flows;
mod held;
mod inspect;
mod passive;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use hoststack_transport::{
    AcceptError, AllocationPoint, CloseReason, ConnectionId, ConnectionStats, DomainId, Endpoint, FlowKey,
    HalfOpenId, Histogram, Instant, Key, ListenerId, Measures, Pool, SessionId, SessionLayer, SocketOption,
    SocketOptions, TimerWheel, Transmitted, Transport, TransportEvent, WordTable,
};
use hoststack_wire::{Flags, FlowHasher, IpFields, Segment, SegmentHeader, SeqNum};

use self::flows::{FlowTarget, HalfOpenFlow};
pub use self::held::Holder;
pub use self::inspect::FlowRecord;
use self::passive::Passive;
use crate::config::TcpConfig;
use crate::connection::{Connection, Fate};
use crate::describe::{ConnectionInfo, Counters, EngineCounts};
use crate::drop_reason::{DropCounters, DropReason};
use crate::fast_open::CookieKeys;
use crate::isn::Secrets;
use crate::listener::{Listener, Listeners};
use crate::output::{local_mss, reset_for, send_bare, send_syn};
use crate::recovery::Recovery;
use crate::rtt::RtoLimits;
use crate::seed::{ConnectionSeed, HalfOpenError, HalfOpenSegment, IcmpError, SeedState, Syn};
use crate::state::{State, StateEvent};
use crate::syn_received::{SynReceived, SynReceivedVerdict};
use crate::time_wait::{TimeWait, TimeWaitVerdict, TimeWaits};
use crate::timers::{Purpose, TimerKey, TimerOwner};

/// Where an engine's segments go: the IP path of the worker, lent for one call.
pub trait Output {
    /// Segments it takes in this step; what is sent beyond may be lost.
    fn room(&self) -> usize;

    /// MTU of the path (IP packet size).
    fn path_mtu(&mut self, flow: &FlowKey) -> u16;

    /// Sends a segment in a packet with these fields; `fill` writes all `payload_len` bytes of its payload in place.
    fn send(
        &mut self,
        flow: &FlowKey,
        header: &SegmentHeader,
        ip: IpFields,
        payload_len: usize,
        fill: impl FnOnce(&mut [u8]),
    );
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Disposition {
    /// It was used or dropped.
    Done,
    /// Its flow is being handed over by main: keep the packet (bounded) and give it to [`Engine::input`] again, in
    /// order, after [`Engine::establish`] or [`Engine::forget_half_open`].
    Park(HalfOpenId),
}

/// The flow is in use on this worker: choose another local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTaken;

/// Why a seed did not become a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EstablishError {
    /// The connection pool is full: the peer was reset, the flow is gone. Settle `NoRoom`.
    Full,
    /// The flow has no entry for this half-open: it was forgotten before. Nothing was done.
    NoFlow,
}

/// Why a listener was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenError {
    /// Something listens on this domain, address and port.
    InUse,
    /// The limit of listeners is reached.
    Full,
}

/// What all connections of an engine share: lent to them beside their own variables.
pub(crate) struct Shared {
    pub(crate) config: TcpConfig,
    pub(crate) rto: RtoLimits,
    pub(crate) secrets: Secrets,
    pub(crate) counters: Counters,
    pub(crate) drops: DropCounters,
    /// Round trips of all connections, in microseconds: each sample of theirs.
    pub(crate) rtts: Histogram,
    pub(crate) wheel: TimerWheel<TimerKey>,
    /// Connections with a programmed acknowledgment.
    pub(crate) acks: Vec<Key>,
    /// Recovery states that were given back: never more than its capacity.
    #[allow(clippy::vec_box)] // they go from here into connections without being copied
    pub(crate) spare: Vec<Box<Recovery>>,
    /// Resets for segments of no flow that this step may still send, and the step.
    resets: (Instant, u32),
}

impl Shared {
    /// Whether one more reset for no flow may be sent in this step.
    fn may_reset(&mut self, now: Instant) -> bool {
        if self.resets.0 != now {
            self.resets = (now, self.config.resets_per_step);
        }
        let may = self.resets.1 > 0;
        self.resets.1 = self.resets.1.saturating_sub(1);
        may
    }

    /// Counts what the handshake of a new connection measured.
    fn count_handshake_rtt(&mut self, connection: &Connection) {
        if let Some(rtt_us) = connection.rtt.latest_us() {
            self.rtts.record(rtt_us.into());
        }
    }
}

/// Longer round trips share a bucket of their histogram: 2^26 us are a minute, and it takes 5 KiB.
const RTT_LIMIT_US: u64 = 1 << 26;
/// Spare recovery states kept.
const SPARES_MAX: usize = 64;

/// A worker's TCP: listeners, SYN-RECEIVED, connections, TIME-WAIT and the flows of main's half-opens.
///
/// It is driven by calls that all take `now`; nothing calls back. What happened is appended to `events`, in order.
/// Sessions that it passes to `SessionLayer::program_tx` need a [`Transport::transmit`] in the same step, also after
/// [`Transport::close`], until their `Closed` event.
pub struct Engine {
    shared: Shared,
    hasher: FlowHasher,
    flows: WordTable,
    half_opens: Pool<HalfOpenFlow>,
    connections: Pool<Connection>,
    syn_received: Pool<SynReceived>,
    time_waits: TimeWaits,
    listeners: Listeners,
    passive: Passive,
    /// The first time-outs of SYN-RECEIVED, which are equally long and so in order: nearly all handshakes are complete
    /// before theirs, and a queue costs less than the wheel.
    syn_acks: VecDeque<(Instant, Key)>,
    fired: Vec<(Instant, TimerKey)>,
    flushing: Vec<Key>,
}

impl Engine {
    /// An empty engine. `secrets` and `hasher` are the same on main and all workers.
    pub fn new(config: TcpConfig, secrets: Secrets, hasher: FlowHasher) -> Engine {
        Engine {
            hasher,
            flows: WordTable::with_capacity(config.flows_reserved),
            half_opens: Pool::new(config.half_opens_max),
            connections: Pool::new(config.connections_max),
            syn_received: Pool::new(config.syn_received_max),
            time_waits: TimeWaits::new(&config),
            listeners: Listeners::new(config.listeners_max, hasher),
            passive: Passive::new(&config, &secrets),
            syn_acks: VecDeque::new(),
            fired: Vec::new(),
            flushing: Vec::new(),
            shared: Shared {
                rto: RtoLimits::of(&config),
                config,
                secrets,
                counters: Counters::default(),
                drops: DropCounters::default(),
                rtts: Histogram::below(RTT_LIMIT_US),
                wheel: TimerWheel::new(Instant::ZERO),
                acks: Vec::new(),
                spare: Vec::with_capacity(SPARES_MAX),
                resets: (Instant::ZERO, config.resets_per_step),
            },
        }
    }

    /// From now on it works by `config`, but for the limits of pools, which stay as they were made. What is up keeps what it
    /// took from the configuration at its start; timers that run keep their deadlines.
    pub fn set_config(&mut self, config: TcpConfig) {
        self.shared.config = config;
        self.shared.rto = RtoLimits::of(&config);
        self.passive.keys = CookieKeys::new(&config, &self.shared.secrets);
    }

    /// From now on allocations at `point` are refused, or no longer so: for simulated faults. Points of others do
    /// nothing here.
    pub fn set_refusing(&mut self, point: AllocationPoint, refusing: bool) {
        match point {
            AllocationPoint::HalfOpenFlow => self.half_opens.set_refusing(refusing),
            AllocationPoint::SynReceived => self.syn_received.set_refusing(refusing),
            AllocationPoint::Connection => self.connections.set_refusing(refusing),
            _ => {}
        }
    }

    /// The hash of a flow, as net computes it from a packet: what [`Engine::input`] wants.
    pub fn flow_hash(&self, flow: &FlowKey) -> u64 {
        self.hasher.hash(flow.local.addr, flow.local.port, flow.remote.addr, flow.remote.port)
    }

    // ---- half-opens of main ----

    /// Main opened a half-open: inserts its flow, so that answers are judged. Call it before the first
    /// [`Engine::send_syn`].
    ///
    /// # Errors
    /// [`FlowTaken`] when the flow is in use here, by a connection or by a TIME-WAIT that must not be reused
    /// (RFC 6191 §4).
    pub fn open(&mut self, now: Instant, syn: &Syn, half_open: HalfOpenId) -> Result<(), FlowTaken> {
        let _ = now;
        let hash = self.table_hash(&syn.flow);
        let found = self.find_flow(hash, &syn.flow);
        if let Some((_, target)) = found {
            let FlowTarget::TimeWait(key) = target else { return Err(FlowTaken) };
            let Shared { config, secrets, .. } = &self.shared;
            let may = |record: &TimeWait| record.may_be_opened(&syn.header(), config.time_wait, secrets);
            if !self.time_waits.get(key).is_some_and(may) {
                return Err(FlowTaken);
            }
        }
        let half_open = HalfOpenFlow {
            flow: syn.flow,
            id: half_open,
            iss: syn.iss,
            data_len: syn.data_len,
            is_handing_over: false,
        };
        // Main has no more half-opens than the pool has room for.
        let target = FlowTarget::HalfOpen(self.half_opens.insert(half_open).map_err(|_| FlowTaken)?);
        match found {
            Some((word, FlowTarget::TimeWait(key))) => {
                self.flows.replace(word, target.word(hash));
                self.time_waits.remove(key);
                self.shared.counters.time_wait_reused_out += 1;
            }
            _ => self.flows.insert(target.word(hash)),
        }
        self.shared.counters.active_opens += 1;
        Ok(())
    }

    /// [`Engine::open`] and the first SYN in one, without looking the flow up again.
    ///
    /// # Errors
    /// Those of [`Engine::open`]; nothing is sent then.
    pub fn open_and_send<O: Output>(
        &mut self,
        now: Instant,
        syn: &Syn,
        half_open: HalfOpenId,
        out: &mut O,
    ) -> Result<(), FlowTaken> {
        self.open(now, syn, half_open)?;
        send_syn(&mut self.shared, syn, out);
        Ok(())
    }

    /// Sends a SYN of a half-open, the first or a later one, unless an acceptable answer came meanwhile or the flow is
    /// not that half-open's any more.
    pub fn send_syn<O: Output>(&mut self, now: Instant, syn: &Syn, half_open: HalfOpenId, out: &mut O) {
        let _ = now;
        let hash = self.table_hash(&syn.flow);
        let Some((_, FlowTarget::HalfOpen(key))) = self.find_flow(hash, &syn.flow) else { return };
        let is_waiting = |entry: &HalfOpenFlow| entry.id == half_open && !entry.is_handing_over;
        if self.half_opens.get(key).is_some_and(is_waiting) {
            self.shared.counters.retransmitted_segments += u64::from(!syn.first);
            send_syn(&mut self.shared, syn, out);
        }
    }

    /// A half-open ended without a connection: removes its flow and says [`TransportEvent::FlowGone`]. Returns whether
    /// there was such an entry.
    pub fn forget_half_open(
        &mut self,
        flow: &FlowKey,
        half_open: HalfOpenId,
        events: &mut Vec<TransportEvent>,
    ) -> bool {
        let Some((word, key)) = self.find_half_open(flow, half_open) else { return false };
        self.flows.remove(word);
        self.half_opens.remove(key);
        events.push(TransportEvent::FlowGone { flow: *flow });
        true
    }

    /// Bytes that are no TCP segment came with a good checksum.
    pub fn count_malformed(&mut self) {
        self.shared.drops.count(DropReason::Malformed);
    }

    /// Main hands a connection over: it takes the place of its half-open's flow entry. The caller has allocated
    /// `session`, and queued the connect's early data in it. [`TransportEvent::Connected`] follows: at once, or when a simultaneous open completes (or `Closed`
    /// instead of it). The acknowledgment of the peer's SYN is programmed, so that data of the app carries it.
    ///
    /// # Errors
    /// [`EstablishError`]; the session is the caller's to free then.
    pub fn establish<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        seed: Box<ConnectionSeed>,
        session: SessionId,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) -> Result<ConnectionId, EstablishError> {
        let flow = seed.flow;
        let Some((word, half_open)) = self.find_half_open(&flow, seed.half_open) else {
            return Err(EstablishError::NoFlow);
        };
        self.half_opens.remove(half_open);
        let (path_mtu, shared) = (out.path_mtu(&flow), &self.shared);
        let make = |_| Connection::from_seed(&seed, session, now, path_mtu, shared);
        let Ok(key) = self.connections.insert_with(make) else {
            self.flows.remove(word);
            let mut connection = Connection::from_seed(&seed, session, now, path_mtu, &self.shared);
            connection.send_reset(&mut self.shared, now, out);
            events.push(TransportEvent::FlowGone { flow });
            return Err(EstablishError::Full);
        };
        self.flows.replace(word, FlowTarget::Connection(key).word(word));
        self.shared.counters.established_active += 1;
        // What the SYN-ACK acknowledged of the early data lies at the head of the session's stream.
        layer.tx_acknowledge(session, seed.syn_data_acked.into());
        let connection =
            self.connections.get_mut(key).unwrap_or_else(|| unreachable!("it was inserted just now"));
        self.shared.count_handshake_rtt(connection);
        match seed.state {
            SeedState::Established => {
                events.push(TransportEvent::Connected { session });
                connection.program_ack(key, &mut self.shared);
            }
            SeedState::SynReceived => connection.send_syn_ack(&mut self.shared, now, out),
        }
        if layer.tx_len(session) > 0 {
            layer.program_tx(session);
        }
        if connection.purpose == Purpose::None {
            connection.start_keepalive_timer();
        }
        connection.arm(key, &mut self.shared);
        Ok(ConnectionId(key))
    }

    /// Main handed a connection over, but its outcome is decided otherwise (cancelled, no room for its session): if the
    /// flow is there it is removed, and the peer reset.
    pub fn refuse<O: Output>(
        &mut self,
        now: Instant,
        seed: &ConnectionSeed,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        if self.forget_half_open(&seed.flow, seed.half_open, events) {
            let no_session = SessionId(Key { slot: 0, generation: u32::MAX });
            let mut connection =
                Connection::from_seed(seed, no_session, now, out.path_mtu(&seed.flow), &self.shared);
            connection.send_reset(&mut self.shared, now, out);
        }
    }

    // ---- listeners ----

    /// Listens on an address and port of a domain; an unspecified address means any of its family (the exact address
    /// goes before it). One listener may have several endpoints. `backlog` bounds its SYN-RECEIVED connections.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen(
        &mut self,
        listener: ListenerId,
        domain: DomainId,
        local: Endpoint,
        backlog: u32,
        options: SocketOptions,
    ) -> Result<(), ListenError> {
        // RFC 9293 §3.9.1.1 (MUST-41, MUST-42): a table of its own; no connection is in the way, and none is changed.
        self.listeners.insert(Listener {
            id: listener,
            domain,
            local,
            backlog,
            syn_received: 0,
            fast_opens: 0,
            options,
        })
    }

    /// Stops listening: its connections in SYN-RECEIVED are reset, established ones stay.
    pub fn unlisten<O: Output>(
        &mut self,
        now: Instant,
        listener: ListenerId,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let _ = (now, events);
        while let Some(gone) = self.listeners.remove(listener) {
            let records: Vec<Key> = self
                .syn_received
                .iter()
                // What its app has already stays, as established connections do.
                .filter(|(_, record)| record.listener == gone && record.connection.is_none())
                .map(|(key, _)| key)
                .collect();
            for key in records {
                if let Some(record) = self.remove_syn_received(key) {
                    send_bare(&mut self.shared, &record.flow, &record.reset(), record.ip, out);
                }
            }
        }
    }

    // ---- time ----

    /// Fires what is due: retransmissions, delayed ACKs, probes, SYN-RECEIVED, FIN-WAIT-2, TIME-WAIT.
    pub fn poll<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let mut fired = core::mem::take(&mut self.fired);
        self.shared.wheel.advance(now, &mut fired);
        for (at, key) in fired.drain(..) {
            match key.owner() {
                TimerOwner::Connection(key) => self.on_connection_timer(now, at, key, layer, out, events),
                TimerOwner::SynReceived(key) => self.on_syn_received_timer(now, at, key, out, events),
            }
        }
        self.fired = fired;
        while let Some(&(at, key)) = self.syn_acks.front()
            && (at <= now || !self.syn_received.contains(key))
        {
            self.syn_acks.pop_front();
            self.on_syn_received_timer(now, at, key, out, events);
        }
        while let Some((key, record)) = self.time_waits.take_expired(now) {
            self.forget_time_wait(key, &record, events);
        }
    }

    fn on_connection_timer<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        at: Instant,
        key: Key,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.wheel.fired(at) {
            return;
        }
        if connection.take_paced(now) {
            layer.program_tx(connection.session);
        }
        if connection.ack_at <= now {
            connection.on_ack_timer(key, &mut self.shared, now, layer, out);
        }
        let mut fate = connection.on_extras_timer(key, &mut self.shared, now, layer, out);
        if fate == Fate::Lives && connection.retransmit_at <= now {
            fate = connection.on_retransmit_timer(key, &mut self.shared, now, layer, out);
        }
        connection.arm(key, &mut self.shared);
        self.dispose(now, key, fate, layer, out, events);
    }

    /// Sends the acknowledgments that nothing carried. Call it at the end of a step, after the transmit stage, so that
    /// an app's immediate answer carries them: one for all segments of a step (RFC 9293 §3.10.7.4: MUST-58, MUST-59).
    pub fn flush_acks<L: SessionLayer, O: Output>(&mut self, now: Instant, layer: &mut L, out: &mut O) {
        if self.shared.acks.is_empty() {
            return;
        }
        let mut flushing = core::mem::take(&mut self.flushing);
        core::mem::swap(&mut flushing, &mut self.shared.acks);
        for key in flushing.drain(..) {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.is_ack_listed = false;
            if !connection.is_ack_programmed {
                continue;
            }
            // Whatever the room: data takes all there is, step after step, and an acknowledgment that waits behind it
            // makes the peer retransmit. There is at most one for each segment that came in.
            connection.send_ack(&mut self.shared, now, layer, out);
        }
        self.flushing = flushing;
    }

    /// Whether acknowledgments are programmed that [`Engine::flush_acks`] has not sent yet.
    pub fn has_acks_to_flush(&self) -> bool {
        !self.shared.acks.is_empty()
    }

    /// When [`Engine::poll`] must be called next at the latest. It may be earlier than anything that happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        Instant::earliest([
            self.time_waits.next_deadline(),
            self.syn_acks.front().map(|first| first.0),
            self.shared.wheel.next_deadline(),
        ])
    }
}

impl<L: SessionLayer, O: Output> Transport<L, O> for Engine {
    /// RFC 9293 §3.10.4, and §2.17 of RFC 2525: unread data turns it into a reset.
    fn close(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let key = connection.0;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if layer.rx_unread(connection.session) > 0 || connection.resets_on_close() {
            return self.reset(now, ConnectionId(key), layer, out, events);
        }
        connection.is_app_closed = true;
        connection.is_fin_wanted = true;
        connection.start_linger(now);
        connection.start_fin_wait_2_timer(now, &self.shared);
        connection.arm(key, &mut self.shared);
        layer.program_tx(connection.session);
    }

    fn half_close(
        &mut self,
        _now: Instant,
        connection: ConnectionId,
        layer: &mut L,
        _out: &mut O,
        _events: &mut Vec<TransportEvent>,
    ) {
        if let Some(connection) = self.connections.get_mut(connection.0) {
            connection.is_fin_wanted = true;
            layer.program_tx(connection.session);
        }
    }

    /// RFC 9293 §3.10.5.
    fn reset(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        _layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let key = connection.0;
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.send_reset(&mut self.shared, now, out);
        connection.enter(key, StateEvent::Abort);
        self.close_connection(key, CloseReason::LocalReset, events);
    }

    fn transmit(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        burst: usize,
        layer: &mut L,
        out: &mut O,
        _: &mut Vec<TransportEvent>,
    ) -> Transmitted {
        match self.connections.get_mut(connection.0) {
            Some(found) => found.transmit(connection.0, &mut self.shared, now, burst, layer, out),
            None => Transmitted::Idle,
        }
    }

    fn set_option(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        option: SocketOption,
        layer: &mut L,
        _out: &mut O,
    ) {
        if let Some(found) = self.connections.get_mut(connection.0) {
            found.set_option(connection.0, option, &mut self.shared, now, layer);
        }
    }

    fn describe(&self, now: Instant, connection: ConnectionId) -> Option<String> {
        self.connection(now, connection).map(|info| info.to_string())
    }
}

impl Measures for Engine {
    fn stats(&self, _: hoststack_transport::Protocol, connection: ConnectionId) -> Option<ConnectionStats> {
        Some(self.connections.get(connection.0)?.stats(&self.shared))
    }
}

/// The hash that the flow table uses: two domains may have the same flow.
#[inline]
const fn mix(hash: u64, domain: DomainId) -> u64 {
    spread(hash.wrapping_add((domain.0 as u64).wrapping_mul(0xd6e8_feb8_6659_fd93)))
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ListenError::InUse => "something listens on this address and port already",
            ListenError::Full => {
                "the limit of listeners is reached: raise `listeners_max` or stop listening elsewhere"
            }
        })
    }
}

impl core::error::Error for ListenError {}
/// Spreads a flow hash over all bits: steering fixed its upper ones, and the table takes its tags from there.
pub(crate) const fn spread(hash: u64) -> u64 {
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
