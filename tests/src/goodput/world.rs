//! Engines joined through one bottleneck, on virtual time: each flow has a sender and a receiver of its own.
//!
//! sender -> bottleneck -> half the RTT -> receiver -> half the RTT -> sender. All delays are constant, so every hop is a
//! queue in order of arrival, and the next event is the earliest of the heads and of the engines' deadlines. Nothing is
//! drawn but losses (and jitter, where two flows meet): a world is the same run each time.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

use hoststack::tcp::{
    ConnectionInfo, Counters, Disposition, Engine, HalfOpenAction, HalfOpens, Output, Secrets, TcpConfig,
};
use hoststack_transport::{
    Algorithm, AppWorkerId, DomainId, Duration, EarlyData, Endpoint, FlowKey, Instant, Key, ListenerId,
    Protocol, Rng, SocketOptions, Transmitted, Transport, TransportEvent,
};
use hoststack_wire::{FlowHasher, IpFields, Segment, SegmentHeader};

use super::link::{Bottleneck, Fate, Link, Tally};
use super::streams::{SESSION, Streams};

/// Bytes of a full IP packet on every path.
pub const MTU: u16 = 1500;
/// Bytes of an IPv4 header.
const IP_HEADER: u32 = 20;
/// What payloads are made of.
static ZEROS: [u8; MTU as usize] = [0; MTU as usize];
/// Segments that one call may send: that it is called again costs nothing here.
const BURST: usize = 64;
/// Calls of the transmit stage in one step, at most: a sender that wants more never stops.
const CALLS_MAX: usize = 1 << 20;

const fn key(slot: u32) -> Key {
    Key { slot, generation: 0 }
}

/// A segment on its way. Its payload is zeros: what is in a stream is others' business.
#[derive(Clone, Copy)]
struct Packet {
    header: SegmentHeader,
    payload_len: u16,
}

impl Packet {
    /// Bytes of the IP packet.
    fn wire_len(&self) -> u32 {
        // Cannot cut: 60 at most.
        IP_HEADER + self.header.header_len() as u32 + u32::from(self.payload_len)
    }
}

/// Where an engine sends to.
#[derive(Default)]
struct Port {
    sent: Vec<Packet>,
}

impl Output for Port {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn path_mtu(&mut self, _flow: &FlowKey) -> u16 {
        MTU
    }

    fn send(
        &mut self,
        _flow: &FlowKey,
        header: &SegmentHeader,
        _ip: IpFields,
        payload_len: usize,
        _fill: impl FnOnce(&mut [u8]),
    ) {
        let payload_len = u16::try_from(payload_len).expect("a segment fits the MTU");
        self.sent.push(Packet { header: *header, payload_len });
    }
}

/// One end of a flow.
struct End {
    engine: Engine,
    half_opens: HalfOpens,
    streams: Streams,
    port: Port,
    flow: FlowKey,
    hash: u64,
    /// When it has to be polled.
    deadline: Instant,
    events: Vec<TransportEvent>,
    actions: Vec<HalfOpenAction>,
}

impl End {
    fn new(flow: FlowKey, options: SocketOptions, [tx_len, tx_len_max]: [u32; 2], rng: &mut Rng) -> End {
        let mut streams = Streams::new(options.rx_window, tx_len);
        streams.tx_len_max = tx_len_max;
        let config = TcpConfig { flows_reserved: 8, ..TcpConfig::default() };
        let secrets = Secrets::new(rng);
        let engine = Engine::new(config, secrets.clone(), FlowHasher::new([rng.u64(), rng.u64()]));
        End {
            hash: engine.flow_hash(&flow),
            engine,
            half_opens: HalfOpens::new(config, secrets),
            streams,
            port: Port::default(),
            flow,
            deadline: Instant::FAR,
            events: Vec::new(),
            actions: Vec::new(),
        }
    }

    fn connect(&mut self, now: Instant, options: SocketOptions) {
        let user = hoststack_transport::HalfOpenUser { app_worker: AppWorkerId(key(0)), half_open: key(0) };
        let deadline = now + Duration::from_secs(3600);
        self.half_opens
            .open(now, self.flow, user, options, EarlyData::NONE, MTU, deadline, &mut self.actions)
            .expect("the pool is empty");
        self.step(now);
    }

    fn deliver(&mut self, now: Instant, packet: &Packet) {
        let segment =
            Segment { header: packet.header, payload: &ZEROS[..usize::from(packet.payload_len)], ecn: 0 };
        let mut told = Vec::new();
        let disposition = self.engine.input(
            now,
            self.flow,
            self.hash,
            &segment,
            &mut self.streams,
            &mut self.port,
            &mut self.events,
            &mut told,
        );
        for segment in told {
            self.half_opens.on_segment(&segment, &mut self.actions);
        }
        // The hand-over is done before the next segment comes.
        self.act(now);
        assert!(disposition == Disposition::Done || self.streams.connection.is_some(), "a segment is parked");
    }

    /// What main would do for a half-open.
    fn act(&mut self, now: Instant) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    HalfOpenAction::SendSyn { half_open, syn } => {
                        if syn.first {
                            self.engine.open(now, &syn, half_open).expect("the flow is new");
                        }
                        self.engine.send_syn(now, &syn, half_open, &mut self.port);
                    }
                    HalfOpenAction::Establish { half_open, seed, .. } => {
                        let connection = self
                            .engine
                            .establish(
                                now,
                                seed,
                                SESSION,
                                &mut self.streams,
                                &mut self.port,
                                &mut self.events,
                            )
                            .expect("the flow is waiting");
                        self.streams.connection = Some(connection);
                        self.half_opens.settled(half_open, &mut self.actions);
                    }
                    HalfOpenAction::Failed { failure, .. } => panic!("the connect failed: {failure}"),
                    HalfOpenAction::Late { .. } | HalfOpenAction::Deleted { .. } => {}
                }
            }
        }
    }

    /// Timers, the transmit stage, acknowledgments.
    fn step(&mut self, now: Instant) {
        self.act(now);
        if self.deadline <= now {
            self.half_opens.poll(now, &mut self.actions);
            self.act(now);
            self.engine.poll(now, &mut self.streams, &mut self.port, &mut self.events);
        }
        for event in self.events.drain(..) {
            assert!(!matches!(event, TransportEvent::Closed { .. }), "the connection died: {event:?}");
        }
        let mut calls = 0;
        while std::mem::take(&mut self.streams.is_programmed) {
            let Some(connection) = self.streams.connection else { break };
            let result = self.engine.transmit(
                now,
                connection,
                BURST,
                &mut self.streams,
                &mut self.port,
                &mut Vec::new(),
            );
            self.streams.is_programmed |= result == Transmitted::More;
            calls += 1;
            assert!(calls < CALLS_MAX, "the transmit stage has no end");
        }
        self.engine.flush_acks(now, &mut self.streams, &mut self.port);
        let deadline =
            [self.engine.next_deadline(), self.half_opens.next_deadline()].into_iter().flatten().min();
        // Time passes: what is due at once, after it was polled, is due in a microsecond.
        self.deadline = deadline.map_or(Instant::FAR, |deadline| deadline.max(now.plus_micros(1)));
    }
}

/// What a flow is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSpec {
    /// The sender's congestion control.
    pub algorithm: Algorithm,
    /// The round trip without waiting, half of it each way, in us.
    pub rtt_us: u64,
    /// When it connects, in us.
    pub starts_us: u64,
}

struct Flow {
    spec: FlowSpec,
    sender: End,
    receiver: End,
    options: SocketOptions,
    has_started: bool,
    /// What left the bottleneck: arrival at the receiver in us.
    data: VecDeque<(u64, Packet)>,
    /// What the receiver sent: arrival at the sender in us.
    acks: VecDeque<(u64, Packet)>,
    sleepy: Option<Sleepy>,
}

/// A sender whose thread sleeps, and is woken late.
struct Sleepy {
    rng: Rng,
    /// Late by less than this most times, in us.
    often_us: u32,
    /// And by less than this the other times.
    seldom_us: u32,
    /// When it wakes; `None`: nothing is due yet.
    wakes_us: Option<u64>,
}

/// What a flow did so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that the receiver's app read.
    pub received: u64,
    /// What the sender's engine counted.
    pub counters: Counters,
}

/// A bottleneck and the flows that share it.
pub struct World {
    now_us: u64,
    link: Bottleneck,
    flows: Vec<Flow>,
    /// Chance for jitter, and its bound in us, exclusive.
    jitter: Option<(Rng, u32)>,
}

impl World {
    /// At time 0, before anyone has connected. `fifo` is the capacity of all fifos: the window cannot be larger.
    ///
    /// With more than one flow, ACKs are late by up to the time that a packet takes on the link: in a world without any
    /// chance, drop-tail queues would drop whose packets fall into the same phase, always the same flow's.
    pub fn new(seed: u64, link: Link, fifo: u32, flows: &[FlowSpec]) -> World {
        World::tuned(seed, link, [fifo; 2], flows)
    }

    /// The same; the receive window and what the sender may queue begin with the first and grow to the second of `fifos`.
    pub fn tuned(seed: u64, link: Link, fifos: [u32; 2], flows: &[FlowSpec]) -> World {
        let mut rng = Rng::from_seed(seed);
        let bottleneck = Bottleneck::new(link, rng.fork());
        let packet_us = u64::from(MTU) * 8_000_000 / link.rate;
        let jitter = (flows.len() > 1)
            .then(|| (rng.fork(), u32::try_from(packet_us).expect("a link of some speed") + 1));
        let flows = flows.iter().zip(0..).map(|(spec, n)| Flow::new(*spec, n, fifos, &mut rng)).collect();
        World { now_us: 0, link: bottleneck, flows, jitter }
    }

    /// From now on the senders' threads sleep while nothing is due, and are woken late: by `often_us` at most, but once in
    /// sixteen times by `seldom_us`. What comes while they sleep waits for them.
    pub fn senders_wake_late(&mut self, seed: u64, often_us: u32, seldom_us: u32) {
        let mut rng = Rng::from_seed(seed);
        for flow in &mut self.flows {
            flow.sleepy = Some(Sleepy { rng: rng.fork(), often_us, seldom_us, wakes_us: None });
        }
    }

    /// Now, in us.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// What the flow did so far.
    pub fn progress(&self, flow: usize) -> Progress {
        let flow = &self.flows[flow];
        Progress { received: flow.receiver.streams.received, counters: *flow.sender.engine.counters() }
    }

    /// The variables of the flow's sender, once it is connected.
    pub fn sender(&self, flow: usize) -> Option<ConnectionInfo> {
        let sender = &self.flows[flow].sender;
        sender.engine.connection(Instant::from_micros(self.now_us), sender.streams.connection?)
    }

    /// What the flow's ends use of their fifos: the receiver's window as announced, and what the sender may queue.
    pub fn buffers(&self, flow: usize) -> [u32; 2] {
        let Flow { sender, receiver, .. } = &self.flows[flow];
        let window = receiver.streams.connection.and_then(|connection| {
            Some(receiver.engine.connection(Instant::from_micros(self.now_us), connection)?.rcv_wnd)
        });
        [window.unwrap_or(0), sender.streams.tx_len]
    }

    /// Bytes that wait for the link.
    pub fn waiting_bytes(&self) -> u64 {
        self.link.waiting_bytes(self.now_us * 1000)
    }

    /// What happened at the link since the last call.
    pub fn take_tally(&mut self) -> Tally {
        self.link.take_tally()
    }

    /// Lets all happen that happens until `until_us`, inclusive.
    pub fn run_until(&mut self, until_us: u64) {
        while let Some(next) = self.flows.iter().map(Flow::next_us).min()
            && next <= until_us
        {
            debug_assert!(next >= self.now_us, "time goes back");
            self.now_us = next;
            for flow in &mut self.flows {
                flow.turn(next, &mut self.link, &mut self.jitter);
            }
        }
        self.now_us = until_us;
    }

    /// Checks what must hold of all engines between events.
    ///
    /// # Panics
    /// When it does not.
    pub fn check_consistency(&self) {
        for flow in &self.flows {
            flow.sender.engine.check_consistency();
            flow.receiver.engine.check_consistency();
            let (sent, got) = (flow.sender.streams.acknowledged, flow.receiver.streams.received);
            assert!(sent <= got, "{sent} bytes are acknowledged, {got} were received");
        }
    }
}

impl Flow {
    fn new(spec: FlowSpec, n: u16, fifos: [u32; 2], rng: &mut Rng) -> Flow {
        let endpoint = |host: u8| Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), 1000 + n);
        let flow = |local, remote| FlowKey {
            local: endpoint(local),
            remote: endpoint(remote),
            domain: DomainId(0),
            protocol: Protocol::Tcp,
        };
        let options = SocketOptions {
            rx_window: fifos[1],
            rx_window_initial: fifos[0],
            congestion: spec.algorithm,
            ..SocketOptions::DEFAULT
        };
        let sender = End::new(flow(1, 2), options, fifos, rng);
        let mut receiver = End::new(flow(2, 1), options, [0; 2], rng);
        receiver
            .engine
            .listen(ListenerId(key(0)), DomainId(0), endpoint(2), 1, options)
            .expect("nothing listens yet");
        Flow {
            spec,
            sender,
            receiver,
            options,
            has_started: false,
            data: VecDeque::new(),
            acks: VecDeque::new(),
            sleepy: None,
        }
    }

    /// When something happens next, in us.
    fn next_us(&self) -> u64 {
        if !self.has_started {
            return self.spec.starts_us;
        }
        let wakes_us = self.sleepy.as_ref().and_then(|sleepy| sleepy.wakes_us);
        let sender_us = wakes_us.unwrap_or_else(|| self.sender_due_us());
        head_us(&self.data).min(self.receiver.deadline.as_micros()).min(sender_us)
    }

    /// When the sender has something to do next, in us.
    fn sender_due_us(&self) -> u64 {
        head_us(&self.acks).min(self.sender.deadline.as_micros())
    }

    /// Whether the sender has something to do at `now_us`, and is awake.
    fn is_sender_up(&mut self, now_us: u64) -> bool {
        if self.sender_due_us() > now_us {
            return false;
        }
        let Some(Sleepy { rng, often_us, seldom_us, wakes_us }) = &mut self.sleepy else { return true };
        let wakes = *wakes_us.get_or_insert_with(|| {
            let bound = if rng.below(16) == 0 { *seldom_us } else { *often_us };
            now_us + u64::from(rng.below(bound))
        });
        let is_up = wakes <= now_us;
        if is_up {
            *wakes_us = None;
        }
        is_up
    }

    /// All that is due at `now_us`.
    fn turn(&mut self, now_us: u64, link: &mut Bottleneck, jitter: &mut Option<(Rng, u32)>) {
        let now = Instant::from_micros(now_us);
        let delay = self.spec.rtt_us / 2;
        if !self.has_started && self.spec.starts_us <= now_us {
            self.has_started = true;
            self.sender.connect(now, self.options);
        }
        if deliver_due(&mut self.data, &mut self.receiver, now) || self.receiver.deadline <= now {
            self.receiver.step(now);
            for packet in self.receiver.port.sent.drain(..) {
                let late = jitter.as_mut().map_or(0, |(rng, bound)| u64::from(rng.below(*bound)));
                let at = self.acks.back().map_or(0, |&(at, _)| at).max(now_us + delay + late);
                self.acks.push_back((at, packet));
            }
        }
        if self.is_sender_up(now_us) {
            deliver_due(&mut self.acks, &mut self.sender, now);
            self.sender.step(now);
        }
        for packet in self.sender.port.sent.drain(..) {
            if let Fate::Leaves(at_ns) = link.offer(now_us * 1000, packet.wire_len(), packet.payload_len > 0)
            {
                self.data.push_back((at_ns.div_ceil(1000) + delay, packet));
            }
        }
    }
}

/// When the first of them arrives, in us.
fn head_us(queue: &VecDeque<(u64, Packet)>) -> u64 {
    queue.front().map_or(u64::MAX, |&(at, _)| at)
}

/// Gives `end` what has arrived; whether there was anything.
fn deliver_due(queue: &mut VecDeque<(u64, Packet)>, end: &mut End, now: Instant) -> bool {
    let mut is_any = false;
    while let Some((at, packet)) = queue.front()
        && *at <= now.as_micros()
    {
        end.deliver(now, packet);
        queue.pop_front();
        is_any = true;
    }
    is_any
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(rate: u64, buffer: u64) -> Link {
        Link { rate, buffer, loss_ppm: 0 }
    }

    fn reno(rtt_us: u64) -> FlowSpec {
        FlowSpec { algorithm: Algorithm::NewReno, rtt_us, starts_us: 0 }
    }

    #[test]
    fn the_initial_window_arrives_when_it_can() {
        // 1500 bytes in 1 ms, 20 ms each way; 10 segments of 1448 bytes fit into IW10 = 14600 minus options.
        let mut world = World::new(1, link(12_000_000, 1 << 20), 1 << 20, &[reno(40_000)]);
        // SYN (60 bytes, 40 us) at 20.04 ms, SYN-ACK at 40.04 ms, its ACK (52 bytes, 34.7 us) before the data.
        let first = 40_040 + 1000 + 20_000;
        world.run_until(first - 1);
        assert_eq!(world.progress(0).received, 0);
        // The ACK of the SYN is carried by the data: nothing is before it on the link.
        world.run_until(first);
        assert_eq!(world.progress(0).received, 1448);
        world.run_until(first + 8_999);
        assert_eq!(world.progress(0).received, 9 * 1448);
        world.run_until(first + 9_000);
        assert_eq!(world.progress(0).received, 10 * 1448);
        // The next window needs the first ACK: 20 ms back, and the link and 20 ms again.
        world.run_until(first + 20_000 + 20_999);
        assert_eq!(world.progress(0).received, 10 * 1448);
        world.run_until(first + 20_000 + 21_000);
        assert_eq!(world.progress(0).received, 11 * 1448);
        world.check_consistency();
    }

    #[test]
    fn a_window_smaller_than_the_path_is_sent_once_per_round_trip() {
        // 14480 bytes in 100 ms.
        let mut world = World::new(1, link(1_000_000_000, 1 << 20), 14_480, &[reno(100_000)]);
        world.run_until(1_000_000);
        let before = world.progress(0).received;
        world.run_until(11_000_000);
        let windows = (world.progress(0).received - before) / 14_480;
        assert!((98..=100).contains(&windows), "{windows}");
    }

    /// From 64 KiB both ways to 16 MiB; each round trip of 100 Mbit/s holds 12.5 KB a millisecond.
    fn tuned(rtt_ms: u64, buffer: u64, algorithm: Algorithm) -> World {
        let flow = FlowSpec { algorithm, rtt_us: rtt_ms * 1000, starts_us: 0 };
        World::tuned(1, link(100_000_000, buffer), [1 << 16, 1 << 24], &[flow])
    }

    #[test]
    fn buffers_that_begin_with_64_kib_fill_a_long_fat_path_as_soon_as_whole_ones() {
        for &algorithm in Algorithm::ALL {
            let mut small = tuned(200, 2_500_000, algorithm);
            let flow = FlowSpec { algorithm, rtt_us: 200_000, starts_us: 0 };
            let mut whole = World::new(1, link(100_000_000, 2_500_000), 1 << 24, &[flow]);
            // Slow start, and what comes after: nowhere is it more than a tenth behind.
            for second in 1..=20 {
                small.run_until(second * 1_000_000);
                whole.run_until(second * 1_000_000);
                let (small, whole) = (small.progress(0).received, whole.progress(0).received);
                assert!(
                    small >= whole / 10 * 9,
                    "{algorithm}, {second} s: {small} bytes, {whole} with whole fifos"
                );
            }
            small.check_consistency();
            let before = [&small, &whole].map(|world| world.progress(0).received);
            small.run_until(30_000_000);
            whole.run_until(30_000_000);
            let got = [&small, &whole].map(|world| world.progress(0).received);
            let (small, whole) = (got[0] - before[0], got[1] - before[1]);
            // Of 125 MB that the link carries.
            assert!(
                small >= whole / 100 * 97 && small > 100_000_000,
                "{algorithm}: {small} of {whole} bytes in 10 s"
            );
        }
    }

    #[test]
    fn on_a_short_path_they_stay_small() {
        for &algorithm in Algorithm::ALL {
            // 12.5 KB of path, 50 KB of buffer.
            let mut world = tuned(1, 50_000, algorithm);
            world.run_until(60_000_000);
            world.check_consistency();
            let [window, queue] = world.buffers(0);
            assert!(window <= 1 << 18 && queue <= 1 << 18, "{algorithm}: {window} and {queue} bytes");
            assert!(world.progress(0).received > 670_000_000, "{algorithm}: {}", world.progress(0).received);
        }
    }

    #[test]
    fn a_window_does_not_grow_with_the_queue_that_it_makes() {
        // A buffer of 10 MB, 0.8 s: what fills it is the sender's window.
        let mut world = tuned(10, 10_000_000, Algorithm::NewReno);
        world.run_until(120_000_000);
        let [window, _] = world.buffers(0);
        // 125 KB are a round trip without it.
        assert!(window <= 8 * 125_000, "{window}");
        assert!(world.progress(0).received > 1_380_000_000, "{}", world.progress(0).received);
    }

    #[test]
    fn a_flow_that_starts_later_is_silent_until_then() {
        let flows = [reno(10_000), FlowSpec { starts_us: 500_000, ..reno(10_000) }];
        let mut world = World::new(1, link(10_000_000, 20_000), 1 << 20, &flows);
        world.run_until(510_000);
        assert!(world.progress(0).received > 0);
        assert_eq!(world.progress(1).received, 0);
        world.run_until(600_000);
        assert!(world.progress(1).received > 0);
        world.check_consistency();
    }
}
