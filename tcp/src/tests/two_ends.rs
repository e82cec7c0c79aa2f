//! Two engines joined by a link that loses, reorders and duplicates, on virtual time: streams arrive whole, both ends
//! end, nothing is left.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use hoststack_transport::{
    AppWorkerId, CloseReason, ConnectFailure, DomainId, Duration, EarlyData, Endpoint, FlowKey, Instant, Key,
    ListenerId, Protocol, Rng, SessionId, Transmitted, Transport, TransportEvent,
};
use hoststack_wire::{FlowHasher, Segment};
use proptest::prelude::*;

use crate::config::{SynCookies, TcpConfig};
use crate::describe::EngineCounts;
use crate::engine::{Disposition, Engine};
use crate::fast_open::CookieKeys;
use crate::half_opens::{HalfOpenAction, HalfOpens};
use crate::isn::Secrets;
use crate::seed::HalfOpenUser;
use crate::testing::{FakeLayer, FakeOutput, Sent, pattern};
use hoststack_transport::{Algorithm, SocketOptions};

/// How bad the link is, and what the two apps do.
#[derive(Clone, Debug)]
struct World {
    seed: u64,
    loss: f64,
    duplicate: f64,
    reorder: f64,
    delay_us: u64,
    mtu: u16,
    /// Larger packets vanish: then both probe.
    takes: Option<u16>,
    /// Bytes that each end writes.
    bytes: [u32; 2],
    options: [SocketOptions; 2],
    /// Bytes that a connect is given along; those who connect know the other's Fast Open cookie.
    early: u32,
    syn_cookies: SynCookies,
    /// Both ends connect at once.
    is_simultaneous: bool,
    /// Each end closes when it has written all (half-close first if odd), or waits for the peer's close.
    closes_first: [bool; 2],
    half_closes: [bool; 2],
    /// Share of steps in which the app reads.
    reads: f64,
}

struct End {
    engine: Engine,
    half_opens: HalfOpens,
    layer: FakeLayer,
    out: FakeOutput,
    events: Vec<TransportEvent>,
    actions: Vec<HalfOpenAction>,
    parked: Vec<Sent>,
    flow: FlowKey,
    options: SocketOptions,
    session: Option<SessionId>,
    early: u32,
    to_write: u32,
    expects: u32,
    closes_first: bool,
    half_closes: bool,
    has_closed: bool,
    peer_closed: bool,
    closed: Option<CloseReason>,
    failure: Option<ConnectFailure>,
    deleted: usize,
    flows_gone: usize,
}

fn key(slot: u32) -> Key {
    Key { slot, generation: 0 }
}

impl End {
    fn connect(&mut self, now: Instant) {
        let user = HalfOpenUser { app_worker: AppWorkerId(key(0)), half_open: key(0) };
        let deadline = now + Duration::from_secs(100_000);
        let (flow, options, mtu) = (self.flow, self.options, self.out.mtu);
        self.early = self.early.min(self.to_write);
        self.to_write -= self.early;
        let early: Vec<u8> = (0..self.early).map(pattern).collect();
        self.half_opens
            .open(now, flow, user, options, EarlyData::new(&early), mtu, deadline, &mut self.actions)
            .unwrap();
    }

    fn deliver(&mut self, now: Instant, sent: &Sent) {
        let segment = Segment { header: sent.header, payload: &sent.payload, ecn: sent.tos & 3 };
        let hash = self.engine.flow_hash(&self.flow);
        let mut told = Vec::new();
        let disposition = self.engine.input(
            now,
            self.flow,
            hash,
            &segment,
            &mut self.layer,
            &mut self.out,
            &mut self.events,
            &mut told,
        );
        if let Disposition::Park(_) = disposition {
            self.parked.push(sent.clone());
        }
        for segment in told {
            self.half_opens.on_segment(&segment, &mut self.actions);
        }
    }

    fn main_acts(&mut self, now: Instant) {
        while !self.actions.is_empty() {
            for action in core::mem::take(&mut self.actions) {
                match action {
                    HalfOpenAction::SendSyn { half_open, syn } => {
                        if syn.first {
                            self.engine.open(now, &syn, half_open).unwrap();
                        }
                        self.engine.send_syn(now, &syn, half_open, &mut self.out);
                    }
                    HalfOpenAction::Establish { half_open, seed, .. } => {
                        let session = self.layer.open();
                        self.layer.write(session, self.early as usize);
                        let connection = self
                            .engine
                            .establish(now, seed, session, &mut self.layer, &mut self.out, &mut self.events)
                            .unwrap();
                        self.layer.bind(session, connection);
                        self.half_opens.settled(half_open, &mut self.actions);
                        for sent in core::mem::take(&mut self.parked) {
                            self.deliver(now, &sent);
                        }
                    }
                    HalfOpenAction::Failed { half_open, failure, .. } => {
                        self.failure = Some(failure);
                        self.engine.forget_half_open(&self.flow, half_open, &mut self.events);
                        self.half_opens.settled(half_open, &mut self.actions);
                    }
                    HalfOpenAction::Deleted { .. } => self.deleted += 1,
                    HalfOpenAction::Late { .. } => {}
                }
            }
        }
    }

    fn step(&mut self, now: Instant, rng: &mut Rng, reads: f64) {
        self.out.now = now;
        self.main_acts(now);
        self.half_opens.poll(now, &mut self.actions);
        self.main_acts(now);
        self.engine.poll(now, &mut self.layer, &mut self.out, &mut self.events);
        self.app(now, rng, reads);
        while let Some(session) = self.layer.programmed.pop() {
            let Some(connection) = self.layer.connection_of(session) else { continue };
            let burst = 1 + rng.below(20) as usize;
            if self.engine.transmit(now, connection, burst, &mut self.layer, &mut self.out)
                == Transmitted::More
            {
                self.layer.programmed.push(session);
            }
        }
        self.engine.flush_acks(now, &mut self.layer, &mut self.out);
        self.engine.check_consistency();
        self.half_opens.check_consistency();
    }

    /// Whether the app would act without anything happening.
    fn has_something_to_do(&self) -> bool {
        let Some(session) = self.session.and_then(|session| self.layer.get(session)) else { return false };
        self.closed.is_none()
            && (self.to_write > 0
                || session.read < session.received
                || (!self.has_closed
                    && (self.closes_first || self.peer_closed)
                    && session.read == self.expects))
    }

    fn app(&mut self, now: Instant, rng: &mut Rng, reads: f64) {
        for event in core::mem::take(&mut self.events) {
            match event {
                TransportEvent::Connected { session } | TransportEvent::Accepted { session } => {
                    assert!(self.session.is_none(), "one session");
                    self.session = Some(session);
                }
                TransportEvent::PeerClosed { .. } => self.peer_closed = true,
                TransportEvent::Closed { reason, .. } => {
                    assert!(self.closed.is_none(), "closed once");
                    self.closed = Some(reason);
                }
                TransportEvent::FlowGone { .. } => self.flows_gone += 1,
                TransportEvent::Received { .. }
                | TransportEvent::Urgent { .. }
                | TransportEvent::Acknowledged { .. } => {}
            }
        }
        let Some(session) = self.session else { return };
        if self.to_write > 0 && rng.chance(0.7) {
            let count = (1 + rng.below(20_000)).min(self.to_write);
            self.to_write -= count;
            self.layer.write(session, count as usize);
            self.layer.programmed.push(session);
        }
        if rng.chance(reads) && self.layer.read(session, 1 + rng.below(100_000) as usize) > 0 {
            self.layer.programmed.push(session);
        }
        let Some(connection) = self.layer.connection_of(session) else { return };
        let has_all = self.layer.get(session).is_some_and(|s| s.read == self.expects);
        let mut events = Vec::new();
        if !self.has_closed && self.to_write == 0 && (self.closes_first || self.peer_closed) {
            if self.half_closes && !(self.peer_closed && has_all) {
                self.has_closed = true;
                self.engine.half_close(now, connection, &mut self.layer, &mut self.out, &mut events);
            } else if has_all {
                self.has_closed = true;
                self.engine.close(now, connection, &mut self.layer, &mut self.out, &mut events);
            }
        }
        self.events.append(&mut events);
    }
}

fn ends(world: &World, rng: &mut Rng) -> [End; 2] {
    let address = |n: u8| Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)), 1000 + u16::from(n));
    [0, 1].map(|n: usize| {
        let secrets = Secrets::new(rng);
        // Nobody gives up, and nobody forgets before the other's last FIN came: TIME-WAIT outlasts many RTOs.
        let config = TcpConfig {
            retransmits_max: 200,
            syn_retries: 200,
            syn_ack_retries: 200,
            rto_max: Duration::from_secs(10),
            time_wait: Duration::from_secs(3600),
            fin_wait_2: Duration::from_secs(3600),
            fast_open_key: Some([1; 16]),
            syn_cookies: world.syn_cookies,
            ..TcpConfig::default()
        };
        let flow = FlowKey {
            local: address(n as u8),
            remote: address(1 - n as u8),
            domain: DomainId(0),
            protocol: Protocol::Tcp,
        };
        let mut half_opens = HalfOpens::new(config, secrets.clone());
        // As an earlier connection would have learnt it.
        let seen_there = FlowKey { local: flow.remote, remote: flow.local, ..flow };
        half_opens.remember(&flow, CookieKeys::new(&config, &secrets).cookie(&seen_there), 1000);
        let mut layer = FakeLayer::new();
        layer.rx_capacity = world.options[n].rx_window;
        let mut engine = Engine::new(config, secrets.clone(), FlowHasher::new([rng.u64(), rng.u64()]));
        if n == 1 && !world.is_simultaneous {
            engine.listen(ListenerId(key(0)), DomainId(0), address(1), 4, world.options[1]).unwrap();
        }
        End {
            engine,
            half_opens,
            layer,
            out: FakeOutput {
                now: Instant::ZERO,
                mtu: world.mtu,
                room: usize::MAX,
                sent: Default::default(),
            },
            events: Vec::new(),
            actions: Vec::new(),
            parked: Vec::new(),
            flow,
            options: world.options[n],
            session: None,
            early: world.early,
            to_write: world.bytes[n],
            expects: world.bytes[1 - n],
            closes_first: world.closes_first[n],
            half_closes: world.half_closes[n],
            has_closed: false,
            peer_closed: false,
            closed: None,
            failure: None,
            deleted: 0,
            flows_gone: 0,
        }
    })
}

/// Runs a world to its end; returns the virtual time that it took.
fn run(world: &World) -> Duration {
    let mut rng = Rng::from_seed(world.seed);
    let mut ends = ends(world, &mut rng);
    let start = Instant::from_millis(u64::from(rng.below(5_000_000)));
    let mut now = start;
    // In flight: (arrival, number) -> (to, segment).
    let mut link: BTreeMap<(Instant, u64), (usize, Sent)> = BTreeMap::new();
    let mut count = 0u64;
    ends[0].connect(now);
    if world.is_simultaneous {
        ends[1].connect(now);
    }
    let mut finished_at = None;
    for step in 0.. {
        assert!(
            step < 200_000,
            "no end in sight at {now}: {:#?}",
            ends.each_ref().map(|e| (
                e.closed,
                e.to_write,
                e.has_closed,
                e.peer_closed,
                e.expects,
                e.session.and_then(|s| e.layer.get(s)),
                e.engine.connection_at_slot(now, 0).map(|i| i.to_string()),
                e.engine.counts()
            ))
        );
        while let Some(entry) = link.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let (to, sent) = entry.remove();
            ends[to].out.now = now;
            ends[to].deliver(now, &sent);
        }
        for n in [0, 1] {
            ends[n].step(now, &mut rng, world.reads);
            for sent in ends[n].out.sent.drain(..).collect::<Vec<_>>() {
                for _ in 0..=usize::from(rng.chance(world.duplicate)) {
                    let options = if sent.header.options.timestamps.is_some() { 12 } else { 0 };
                    let is_too_large = world.takes.is_some_and(|takes| {
                        !sent.payload.is_empty() && sent.payload.len() + 40 + options > usize::from(takes)
                    });
                    if is_too_large || rng.chance(world.loss) {
                        continue;
                    }
                    let extra = if rng.chance(world.reorder) {
                        u64::from(rng.below(5 * world.delay_us as u32))
                    } else {
                        0
                    };
                    count += 1;
                    link.insert((now.plus_micros(world.delay_us + extra), count), (1 - n, sent.clone()));
                }
            }
        }
        let is_done = ends.iter().all(|e| e.closed.is_some());
        if is_done && finished_at.is_none() {
            finished_at = Some(now);
        }
        let is_empty = ends.iter().all(|e| {
            e.engine.counts() == EngineCounts { listeners: e.engine.counts().listeners, ..Default::default() }
        });
        if is_done && is_empty && link.is_empty() {
            break;
        }
        // The apps act at their own pace while there is something left to do.
        let pace = ends
            .iter()
            .any(End::has_something_to_do)
            .then(|| now.plus_micros(1 + u64::from(rng.below(3000))));
        let next = link.keys().next().map(|&(at, _)| at);
        let timers = ends.iter().flat_map(|e| [e.engine.next_deadline(), e.half_opens.next_deadline()]);
        now = timers.chain([next, pace]).flatten().min().expect("something is due").max(now);
    }
    for (n, end) in ends.iter().enumerate() {
        assert_eq!(end.closed, Some(CloseReason::Finished), "end {n}");
        assert_eq!(end.failure, None);
        let session = end.layer.get(end.session.expect("a session")).expect("it exists");
        assert!(!session.is_corrupt, "end {n}: bytes differ");
        assert_eq!((session.received, session.acknowledged), (end.expects, session.written), "end {n}");
        let was_active = n == 0 || world.is_simultaneous;
        assert_eq!(
            (end.deleted, end.flows_gone),
            (usize::from(was_active), usize::from(was_active)),
            "end {n}"
        );
        assert!(end.half_opens.is_empty());
    }
    finished_at.expect("it finished") - start
}

fn options() -> impl Strategy<Value = SocketOptions> {
    (
        1000u32..400_000,
        prop::sample::select(Algorithm::ALL),
        any::<[bool; 4]>(),
        prop_oneof![Just(None), (100u16..1500).prop_map(Some)],
    )
        .prop_map(|(rx_window, congestion, [nodelay, window_scale, timestamps, sack], mss_max)| {
            SocketOptions {
                rx_window,
                congestion,
                nodelay,
                mss_max,
                window_scale,
                timestamps,
                sack,
                abort_on_icmp: false,
                ..SocketOptions::DEFAULT
            }
        })
}

fn world() -> impl Strategy<Value = World> {
    (
        (any::<u64>(), 0.0..0.25f64, 0.0..0.1f64, 0.0..0.3f64, 50u64..50_000, 576u16..3000),
        prop_oneof![Just([0, 0]), [0u32..2000, 0u32..2000], [0u32..400_000, 0u32..400_000]],
        [options(), options()],
        prop::bool::weighted(0.2),
        any::<[bool; 2]>(),
        any::<[bool; 2]>(),
        0.05..1.0f64,
        (prop_oneof![Just(0), 1..5000u32], any::<[bool; 2]>()),
        prop::option::weighted(0.3, 552u16..1500),
    )
        .prop_map(
            |(
                (seed, loss, duplicate, reorder, delay_us, mtu),
                bytes,
                options,
                sim,
                first,
                half_closes,
                reads,
                (early, [is_fast, is_stateless]),
                takes,
            )| World {
                seed,
                loss,
                // What is taken from a SYN may be taken twice (RFC 7413 §2.1).
                duplicate: if early > 0 && is_fast { 0.0 } else { duplicate },
                reorder: if early > 0 && is_fast { 0.0 } else { reorder },
                early,
                syn_cookies: if is_stateless { SynCookies::Always } else { SynCookies::UnderPressure },
                delay_us,
                mtu,
                takes,
                // What a tiny window or a terrible link takes weeks for teaches no more.
                bytes: [0, 1].map(|n: usize| {
                    let most = options[1 - n].rx_window.saturating_mul(if loss > 0.1 { 5 } else { 20 });
                    // If the ACK of a cookie is lost, the server knows of nothing until the client speaks.
                    bytes[n].min(most).max(u32::from(n == 0 && is_stateless))
                }),
                options: options.map(|options| SocketOptions {
                    fast_open: is_fast,
                    mtu_probing: takes.is_some(),
                    ..options
                }),
                is_simultaneous: sim,
                // Someone must begin.
                closes_first: if first == [false; 2] { [true, false] } else { first },
                half_closes,
                reads,
            },
        )
}

/// A world without faults.
fn calm() -> World {
    World {
        seed: 1,
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        delay_us: 1000,
        mtu: 1500,
        takes: None,
        bytes: [300_000, 300_000],
        options: [SocketOptions::default(); 2],
        early: 0,
        syn_cookies: SynCookies::UnderPressure,
        is_simultaneous: false,
        closes_first: [true, false],
        half_closes: [true, false],
        reads: 1.0,
    }
}

#[test]
fn over_a_good_link_streams_arrive_fast() {
    let took = run(&calm());
    assert!(took < Duration::from_millis(500), "{took:?}");
}

// covers: MUST-10
#[test]
fn syns_that_cross_make_one_connection() {
    run(&World { is_simultaneous: true, ..calm() });
}

#[test]
fn early_data_arrives_once_and_first_with_fast_open_and_without() {
    for (fast_open, is_simultaneous) in [(false, false), (true, false), (true, true)] {
        let options = SocketOptions { fast_open, ..SocketOptions::default() };
        run(&World { early: 5000, options: [options; 2], is_simultaneous, ..calm() });
    }
}

#[test]
fn a_lossy_link_costs_time_but_no_bytes() {
    let took = run(&World { loss: 0.02, ..calm() });
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_link_that_swallows_large_packets_is_found_out() {
    for takes in [600, 1000, 1300, 1492] {
        let options = SocketOptions { mtu_probing: true, ..SocketOptions::default() };
        let took = run(&World { takes: Some(takes), options: [options; 2], ..calm() });
        assert!(took < Duration::from_secs(15), "{takes}: {took:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_link_does_streams_arrive_whole_and_nothing_is_left(world in world()) {
        run(&world);
    }
}
