//! Two engines, and a link that the input drives: each segment's byte says whether it is lost, doubled, late or
//! broken. Segments cross as bytes, written and parsed by `wire`. Where the input ends the link heals; then both streams
//! must arrive whole, both ends close as they wanted, and nothing is left.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use hoststack_tcp::seed::HalfOpenUser;
use hoststack_tcp::testing::{FakeLayer, FakeOutput, Sent, pattern};
use hoststack_tcp::{Disposition, Engine, EngineCounts, HalfOpenAction, HalfOpens, Secrets, TcpConfig};
use hoststack_transport::{
    Algorithm, AppWorkerId, CloseReason, DomainId, Duration, EarlyData, Endpoint, FlowKey, Instant, Key,
    ListenerId, Protocol, Rng, SessionId, SocketOptions, Transmitted, Transport, TransportEvent,
};
use hoststack_wire::{FastOpenCookie, Flags, FlowHasher, Options, Segment, SegmentHeader, SeqNum, tcp};

use crate::input::Input;

/// Turns of the world after which a run counts as stuck. The input's byte for a segment ends long before.
const TURNS_MAX: usize = 100_000;
/// Segments that are lost or broken at most: fewer than a connect tries again.
const LOST_MAX: u32 = 100;
/// Most bytes that an end writes.
const BYTES_MAX: u32 = 30_000;

/// 16 bytes of conditions, then one for each segment and each act of an app.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new(&mut input);
    let mut turns = 0;
    while !world.is_over() {
        turns += 1;
        assert!(
            turns < TURNS_MAX,
            "no end in sight at {}: {:#?}",
            world.now,
            world.ends.each_ref().map(End::look)
        );
        world.turn(&mut input);
    }
    world.finish();
}

fn address(n: u8) -> Endpoint {
    Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)), 1000 + u16::from(n))
}

fn key(slot: u32) -> Key {
    Key { slot, generation: 0 }
}

struct World {
    ends: [End; 2],
    now: Instant,
    /// In flight: (arrival, number) -> (to, segment as bytes).
    link: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sent: u64,
    delay_us: u64,
    is_simultaneous: bool,
    /// Segments lost and broken.
    lost: u32,
    /// SYNs have data.
    is_early: bool,
}

impl World {
    fn new(input: &mut Input<'_>) -> World {
        let shape = input.u8();
        let delay_us = 100 + u64::from(input.u16());
        let mtu = 300 + input.u16() % 1300;
        let is_simultaneous = shape & 0xe0 == 0xe0;
        let bytes = [input.below(BYTES_MAX), input.below(BYTES_MAX)];
        let options = [options(input), options(input)];
        let now = Instant::from_millis(1000);
        let mut rng = Rng::from_seed(7);
        let mut ends = [0, 1].map(|n: usize| {
            let is_listener = n == 1 && !is_simultaneous;
            // Someone must begin to close.
            let closes_first = shape >> n & 1 == 1 || n == 0 && shape & 3 == 0;
            End {
                to_write: bytes[n],
                expects: bytes[1 - n],
                closes_first,
                half_closes: shape >> (2 + n) & 1 == 1,
                ..End::new(n, mtu, options[n], is_listener, &mut rng)
            }
        });
        let early = if options[0].fast_open { u32::from(input.u16() % 3000) } else { 0 };
        if early > 0 {
            for n in [0, 1] {
                let cookie = ends[1 - n].cookie_for(&ends[n], &mut rng);
                let flow = ends[n].flow;
                ends[n].half_opens.remember(&flow, cookie, 1000);
            }
        }
        ends[0].connect(now, early);
        if is_simultaneous {
            ends[1].connect(now, early);
        }
        World {
            ends,
            now,
            link: BTreeMap::new(),
            sent: 0,
            delay_us,
            is_simultaneous,
            is_early: early > 0,
            lost: 0,
        }
    }

    fn turn(&mut self, input: &mut Input<'_>) {
        while let Some(entry) = self.link.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (to, bytes) = entry.remove();
            self.ends[to].hears(self.now, &bytes);
        }
        for n in [0, 1] {
            self.ends[n].step(self.now, input);
            let sent: Vec<Sent> = self.ends[n].out.sent.drain(..).collect();
            for sent in sent {
                self.carry(1 - n, &sent, input);
            }
        }
        let is_busy = self.ends.iter().any(End::has_something_to_do);
        let pace = is_busy.then(|| self.now.plus_micros(500));
        let timers =
            self.ends.iter().flat_map(|end| [end.engine.next_deadline(), end.half_opens.next_deadline()]);
        let next = timers.chain([pace, self.link.keys().next().map(|&(at, _)| at)]).flatten().min();
        if !self.is_over() {
            self.now = next.expect("someone wakes").max(self.now);
        }
    }

    fn carry(&mut self, to: usize, sent: &Sent, input: &mut Input<'_>) {
        let mut bytes = encode(sent);
        let fate = input.u8();
        let mut delays = vec![0];
        match fate {
            // 0 too, so that a link without input is a good one.
            0..=127 => {}
            128..=175 if self.lost < LOST_MAX => {
                self.lost += 1;
                delays.clear();
            }
            128..=175 => {}
            // What is taken from a SYN may be taken twice, when it comes twice or late (RFC 7413 §2.1).
            176..=235 if self.is_early => {}
            176..=199 => delays.push(u64::from(fate - 175) * self.delay_us / 8),
            200..=235 => delays[0] = u64::from(fate - 199) * self.delay_us / 4,
            _ if self.lost == LOST_MAX => {}
            _ => {
                self.lost += 1;
                // One byte of it becomes another: the checksum always shows that.
                let at = usize::from(input.u16()) % bytes.len();
                bytes[at] ^= input.u8().max(1);
            }
        }
        for delay in delays {
            self.sent += 1;
            let at = self.now.plus_micros(self.delay_us + delay);
            self.link.insert((at, self.sent), (to, bytes.clone()));
        }
    }

    fn is_over(&self) -> bool {
        let is_empty = |end: &End| {
            let counts = end.engine.counts();
            counts == EngineCounts { listeners: counts.listeners, ..EngineCounts::default() }
        };
        self.link.is_empty() && self.ends.iter().all(|end| end.closed.is_some() && is_empty(end))
    }

    fn finish(&self) {
        for (n, end) in self.ends.iter().enumerate() {
            assert_eq!(end.closed, Some(CloseReason::Finished), "end {n}");
            let session = end.layer.get(end.session.expect("a session")).expect("it exists");
            assert!(!session.is_corrupt, "end {n}: bytes differ");
            assert_eq!((session.received, session.acknowledged), (end.expects, session.written), "end {n}");
            let was_active = n == 0 || self.is_simultaneous;
            let expected = (usize::from(was_active), usize::from(was_active));
            assert_eq!((end.deleted, end.flows_gone), expected, "end {n}");
            assert!(end.half_opens.is_empty());
            assert_eq!(end.engine.armed_timers(), 0, "a timer of nothing");
        }
    }
}

fn options(input: &mut Input<'_>) -> SocketOptions {
    let [flags, more] = [input.u8(), input.u8()];
    let bit = |n: u8| flags >> n & 1 == 0;
    SocketOptions {
        rx_window: 2000 + u32::from(input.u16()) * 4,
        congestion: Algorithm::ALL[usize::from(more) % Algorithm::ALL.len()],
        window_scale: bit(0),
        timestamps: bit(1),
        sack: bit(2),
        nodelay: !bit(3),
        pacing: !bit(4),
        mss_max: (!bit(5)).then_some(100 + u16::from(more) * 4),
        quick_ack: !bit(6),
        fast_open: !bit(7),
        ..SocketOptions::DEFAULT
    }
}

/// The segment with its checksum, as it lies behind an IP header.
fn encode(sent: &Sent) -> Vec<u8> {
    let mut bytes = vec![0; sent.header.header_len()];
    sent.header.emit(&mut bytes);
    bytes.extend_from_slice(&sent.payload);
    tcp::set_checksum(sent.flow.local.addr, sent.flow.remote.addr, &mut bytes);
    let read = Segment::parse(&bytes).expect("what was written is read");
    assert_eq!((read.header, read.payload), (sent.header, &sent.payload[..]));
    bytes
}

struct End {
    engine: Engine,
    half_opens: HalfOpens,
    layer: FakeLayer,
    out: FakeOutput,
    events: Vec<TransportEvent>,
    actions: Vec<HalfOpenAction>,
    parked: Vec<Vec<u8>>,
    flow: FlowKey,
    options: SocketOptions,
    session: Option<SessionId>,
    /// Bytes that went with the connect.
    early: u32,
    to_write: u32,
    expects: u32,
    closes_first: bool,
    half_closes: bool,
    has_closed: bool,
    peer_closed: bool,
    closed: Option<CloseReason>,
    deleted: usize,
    flows_gone: usize,
}

impl End {
    fn new(n: usize, mtu: u16, options: SocketOptions, is_listener: bool, rng: &mut Rng) -> End {
        let secrets = Secrets::new(rng);
        // Nobody gives up, and nobody forgets before the other's last FIN came: TIME-WAIT outlasts many RTOs.
        let config = TcpConfig {
            retransmits_max: 200,
            syn_retries: 200,
            syn_ack_retries: 200,
            rto_max: Duration::from_secs(10),
            time_wait: Duration::from_secs(36_000),
            fin_wait_2: Duration::from_secs(36_000),
            fast_open_key: Some([1; 16]),
            ..TcpConfig::default()
        };
        let mut layer = FakeLayer::new();
        layer.rx_capacity = options.rx_window;
        let mut engine = Engine::new(config, secrets.clone(), FlowHasher::new([rng.u64(), rng.u64()]));
        // Cannot cut: it is 0 or 1.
        let (local, remote) = (address(n as u8), address(1 - n as u8));
        if is_listener {
            engine.listen(ListenerId(key(0)), DomainId(0), local, 4, options).expect("nothing listens yet");
        }
        End {
            engine,
            half_opens: HalfOpens::new(config, secrets),
            layer,
            out: FakeOutput { now: Instant::ZERO, mtu, room: usize::MAX, sent: Default::default() },
            events: Vec::new(),
            actions: Vec::new(),
            parked: Vec::new(),
            flow: FlowKey { local, remote, domain: DomainId(0), protocol: Protocol::Tcp },
            options,
            session: None,
            early: 0,
            to_write: 0,
            expects: 0,
            closes_first: false,
            half_closes: false,
            has_closed: false,
            peer_closed: false,
            closed: None,
            deleted: 0,
            flows_gone: 0,
        }
    }

    /// The Fast Open cookie that this end gives `client`, as an earlier connection would have learnt it.
    fn cookie_for(&self, client: &End, rng: &mut Rng) -> FastOpenCookie {
        let options = SocketOptions { fast_open: true, ..SocketOptions::DEFAULT };
        let mut server =
            End::new(usize::from(self.flow.local.port - address(0).port), 1500, options, true, rng);
        let header = SegmentHeader {
            src_port: client.flow.local.port,
            dst_port: server.flow.local.port,
            seq: SeqNum(0),
            ack: SeqNum(0),
            flags: Flags::SYN,
            wnd: 1000,
            urgent: 0,
            options: Options { fast_open: Some(FastOpenCookie::REQUEST), ..Options::default() },
        };
        let syn = Sent { at: Instant::ZERO, flow: client.flow, header, tos: 0, payload: Vec::new() };
        server.hears(Instant::ZERO, &encode(&syn));
        server
            .out
            .sent
            .pop_front()
            .and_then(|sent| sent.header.options.fast_open)
            .expect("a cookie was asked for")
    }

    /// The first bytes, up to `early` of them, go with the connect.
    fn connect(&mut self, now: Instant, early: u32) {
        let user = HalfOpenUser { app_worker: AppWorkerId(key(0)), half_open: key(0) };
        let deadline = now + Duration::from_secs(1_000_000);
        let (flow, options, mtu) = (self.flow, self.options, self.out.mtu);
        self.early = early.min(self.to_write);
        self.to_write -= self.early;
        let data: Vec<u8> = (0..self.early).map(pattern).collect();
        let (data, actions) = (EarlyData::new(&data), &mut self.actions);
        let opened = self.half_opens.open(now, flow, user, options, data, mtu, deadline, actions);
        opened.expect("there is room for one");
    }

    /// Bytes arrive: those that are not as they were sent are dropped, as `net` does.
    fn hears(&mut self, now: Instant, bytes: &[u8]) {
        if !tcp::verify_checksum(self.flow.remote.addr, self.flow.local.addr, bytes) {
            return;
        }
        let segment = Segment::parse(bytes).expect("it is as it was sent");
        self.out.now = now;
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
            self.parked.push(bytes.to_vec());
        }
        for segment in told {
            self.half_opens.on_segment(&segment, &mut self.actions);
        }
    }

    fn main_acts(&mut self, now: Instant) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.main_does(now, action);
            }
        }
    }

    fn main_does(&mut self, now: Instant, action: HalfOpenAction) {
        match action {
            HalfOpenAction::SendSyn { half_open, syn } => {
                if syn.first {
                    self.engine.open(now, &syn, half_open).expect("the flow is free");
                }
                self.engine.send_syn(now, &syn, half_open, &mut self.out);
            }
            HalfOpenAction::Establish { half_open, seed, .. } => {
                let session = self.layer.open();
                self.layer.write(session, self.early as usize);
                let (layer, out, events) = (&mut self.layer, &mut self.out, &mut self.events);
                let established = self.engine.establish(now, seed, session, layer, out, events);
                let connection = established.expect("there is room for one");
                self.layer.bind(session, connection);
                self.half_opens.settled(half_open, &mut self.actions);
                for bytes in std::mem::take(&mut self.parked) {
                    self.hears(now, &bytes);
                }
            }
            HalfOpenAction::Failed { failure, .. } => panic!("the connect fails: {failure:?}"),
            HalfOpenAction::Deleted { .. } => self.deleted += 1,
            HalfOpenAction::Late { .. } => {}
        }
    }

    fn step(&mut self, now: Instant, input: &mut Input<'_>) {
        self.out.now = now;
        self.main_acts(now);
        self.half_opens.poll(now, &mut self.actions);
        self.main_acts(now);
        self.engine.poll(now, &mut self.layer, &mut self.out, &mut self.events);
        self.take_events();
        self.app(now, input);
        while let Some(session) = self.layer.programmed.pop() {
            let Some(connection) = self.layer.connection_of(session) else { continue };
            let sent = self.engine.transmit(now, connection, 8, &mut self.layer, &mut self.out);
            if sent == Transmitted::More {
                self.layer.programmed.push(session);
            }
        }
        self.engine.flush_acks(now, &mut self.layer, &mut self.out);
        self.engine.check_consistency();
        self.half_opens.check_consistency();
    }

    fn take_events(&mut self) {
        for event in std::mem::take(&mut self.events) {
            match event {
                TransportEvent::Connected { session } | TransportEvent::Accepted { session } => {
                    assert!(self.session.is_none(), "one session");
                    self.session = Some(session);
                }
                TransportEvent::PeerClosed { .. } => {
                    assert!(!self.peer_closed, "the peer closes once");
                    self.peer_closed = true;
                }
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
    }

    /// Whether the app would act without anything happening.
    fn has_something_to_do(&self) -> bool {
        let Some(session) = self.session.and_then(|session| self.layer.get(session)) else { return false };
        let may_close =
            !self.has_closed && (self.closes_first || self.peer_closed) && session.read == self.expects;
        self.closed.is_none() && (self.to_write > 0 || session.read < session.received || may_close)
    }

    fn app(&mut self, now: Instant, input: &mut Input<'_>) {
        let Some(session) = self.session else { return };
        if self.has_something_to_do() {
            // Without input it does all it can.
            let act = input.u8();
            if self.to_write > 0 && act & 0xc0 != 0xc0 {
                let count = if act == 0 { self.to_write } else { u32::from(act) * 30 }.min(self.to_write);
                self.to_write -= count;
                self.layer.write(session, count as usize);
                self.layer.programmed.push(session);
            }
            let count = if act & 0x30 == 0 { usize::MAX } else { usize::from(act & 0xf) * 100 };
            if self.layer.read(session, count.min(1 << 20)) > 0 {
                self.layer.programmed.push(session);
            }
        }
        let has_all = self.layer.get(session).is_some_and(|session| session.read == self.expects);
        if self.has_closed || self.to_write > 0 || !(self.closes_first || self.peer_closed) {
            return;
        }
        let Some(connection) = self.layer.connection_of(session) else { return };
        if self.half_closes && !(self.peer_closed && has_all) {
            self.has_closed = true;
            self.engine.half_close(now, connection, &mut self.layer, &mut self.out, &mut self.events);
        } else if has_all {
            self.has_closed = true;
            self.engine.close(now, connection, &mut self.layer, &mut self.out, &mut self.events);
        }
    }

    /// For who finds the world stuck.
    fn look(&self) -> String {
        let session = self.session.and_then(|session| self.layer.get(session));
        let Self { closed, to_write, has_closed, peer_closed, expects, .. } = self;
        format!(
            "closed {closed:?}, to write {to_write}, has closed {has_closed}, peer closed {peer_closed}, expects \
             {expects}, {session:?}, {:?}, {:?}",
            self.engine.connection_at_slot(self.out.now, 0),
            self.engine.counts()
        )
    }
}
