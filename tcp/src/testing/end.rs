//! One end of two: the engines of a stack, a session layer, and an app that writes a stream, reads one and closes. What
//! lies between the two ends, and how its app goes about it, is the test's.

use alloc::format;

use hoststack_transport::{CloseReason, SocketOptions};

use super::*;
use crate::fast_open::CookieKeys;

/// How long a connect may take: longer than any link is bad.
const CONNECT_WITHIN: Duration = Duration::from_secs(1_000_000);

/// Nobody gives up, and nobody forgets before the other's last FIN came: TIME-WAIT outlasts many retransmission
/// timeouts. Both ends' Fast Open cookies have one key.
pub fn patient() -> TcpConfig {
    TcpConfig {
        retransmits_max: 200,
        syn_retries: 200,
        syn_ack_retries: 200,
        rto_max: Duration::from_secs(10),
        time_wait: Duration::from_secs(36_000),
        fin_wait_2: Duration::from_secs(36_000),
        fast_open_key: Some([1; 16].into()),
        ..TcpConfig::default()
    }
}

/// One end of a connection, and what its app does.
pub struct End {
    /// The worker's engine.
    pub engine: Engine,
    /// Main's engine.
    pub half_opens: HalfOpens,
    /// The session layer.
    pub layer: FakeLayer,
    /// What it sends.
    pub out: FakeOutput,
    /// The flow, as this end names it.
    pub flow: FlowKey,
    /// Bytes that its app has still to write.
    pub to_write: u32,
    /// Bytes that come from the other.
    pub expects: u32,
    /// Its app closes when it has written all; otherwise when the peer has closed, too.
    pub closes_first: bool,
    /// It closes its own direction first, if the peer's is not at its end.
    pub half_closes: bool,
    /// How the connection ended.
    pub closed: Option<CloseReason>,
    /// Why the connect failed.
    pub failure: Option<ConnectFailure>,
    config: TcpConfig,
    options: SocketOptions,
    events: Vec<TransportEvent>,
    actions: Vec<HalfOpenAction>,
    parked: Vec<(SegmentHeader, Vec<u8>, u8)>,
    session: Option<SessionId>,
    /// Bytes that went with the connect.
    early: u32,
    has_closed: bool,
    peer_closed: bool,
    deleted: usize,
    flows_gone: usize,
}

/// What an app does in a step, at most: bytes to write, bytes to read.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// Bytes to write.
    pub write: u32,
    /// Bytes to read.
    pub read: usize,
}

fn address(n: u8) -> Endpoint {
    Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)), 1000 + u16::from(n))
}

impl End {
    /// The two ends of a flow. The second one listens, unless both are to connect.
    pub fn pair(
        config: TcpConfig,
        options: [SocketOptions; 2],
        mtu: u16,
        is_simultaneous: bool,
        rng: &mut Rng,
    ) -> [End; 2] {
        let flow = |n| FlowKey {
            local: address(n),
            remote: address(1 - n),
            domain: DomainId(0),
            protocol: Protocol::Tcp,
        };
        let [first, second] = options;
        let client = End::new(config, first, mtu, flow(0), rng);
        let mut server = End::new(config, second, mtu, flow(1), rng);
        if !is_simultaneous {
            let (engine, local) = (&mut server.engine, server.flow.local);
            engine.listen(listener(), DomainId(0), local, 4, second).expect("nothing listens yet");
        }
        [client, server]
    }

    fn new(config: TcpConfig, options: SocketOptions, mtu: u16, flow: FlowKey, rng: &mut Rng) -> End {
        let secrets = Secrets::new(rng);
        let mut layer = FakeLayer::new();
        layer.rx_capacity = options.rx_window;
        End {
            engine: Engine::new(config, secrets.clone(), FlowHasher::new([rng.u64(), rng.u64()])),
            half_opens: HalfOpens::new(config, secrets),
            layer,
            out: FakeOutput { now: Instant::ZERO, mtu, room: usize::MAX, sent: VecDeque::new() },
            flow,
            to_write: 0,
            expects: 0,
            closes_first: false,
            half_closes: false,
            closed: None,
            failure: None,
            config,
            options,
            events: Vec::new(),
            actions: Vec::new(),
            parked: Vec::new(),
            session: None,
            early: 0,
            has_closed: false,
            peer_closed: false,
            deleted: 0,
            flows_gone: 0,
        }
    }

    /// It knows the Fast Open cookie that the other end gives it, as an earlier connection would have learnt it. Both
    /// have the same key.
    pub fn knows_cookie(&mut self) {
        let seen_there = FlowKey { local: self.flow.remote, remote: self.flow.local, ..self.flow };
        // With a key from outside, secrets are of no account.
        let keys = CookieKeys::new(&self.config, &Secrets::new(&mut Rng::from_seed(0)));
        self.half_opens.remember(&self.flow, keys.cookie(&seen_there), 1000);
    }

    /// Its app connects, and gives the first bytes of its stream along, up to `early` of them.
    pub fn connect(&mut self, now: Instant, early: u32) {
        let user = HalfOpenUser { app_worker: AppWorkerId(key(0)), half_open: key(0) };
        let (flow, options, mtu, deadline) = (self.flow, self.options, self.out.mtu, now + CONNECT_WITHIN);
        self.early = early.min(self.to_write);
        self.to_write -= self.early;
        let data: Vec<u8> = (0..self.early).map(pattern).collect();
        let (data, actions) = (EarlyData::new(&data), &mut self.actions);
        let opened = self.half_opens.open(now, flow, user, options, data, mtu, deadline, actions);
        opened.expect("there is room for one");
    }

    /// A segment arrives.
    pub fn hears(&mut self, now: Instant, segment: &Segment<'_>) {
        self.out.now = now;
        let hash = self.engine.flow_hash(&self.flow);
        let mut told = Vec::new();
        let disposition = self.engine.input(
            now,
            self.flow,
            hash,
            segment,
            &mut self.layer,
            &mut self.out,
            &mut self.events,
            &mut told,
        );
        if let Disposition::Park(_) = disposition {
            self.parked.push((segment.header, segment.payload.to_vec(), segment.ecn));
        }
        for segment in told {
            self.half_opens.on_segment(&segment, &mut self.actions);
        }
    }

    /// A step: main, timers, events, the app, at most `burst` segments at a time of what is to be sent.
    pub fn step(&mut self, now: Instant, burst: usize, app: impl FnOnce(&End) -> Act) {
        self.out.now = now;
        self.main_acts(now);
        self.half_opens.poll(now, &mut self.actions);
        self.main_acts(now);
        self.engine.poll(now, &mut self.layer, &mut self.out, &mut self.events);
        self.take_events();
        if let Some(session) = self.session {
            let act = app(self);
            self.app_acts(now, session, act);
        }
        while let Some(session) = self.layer.programmed.pop() {
            let Some(connection) = self.layer.connection_of(session) else { continue };
            let sent =
                self.engine.transmit(now, connection, burst, &mut self.layer, &mut self.out, &mut Vec::new());
            if sent == Transmitted::More {
                self.layer.programmed.push(session);
            }
        }
        self.engine.flush_acks(now, &mut self.layer, &mut self.out);
        self.engine.check_consistency();
        self.half_opens.check_consistency();
    }

    fn main_acts(&mut self, now: Instant) {
        while !self.actions.is_empty() {
            for action in core::mem::take(&mut self.actions) {
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
                for (header, payload, ecn) in core::mem::take(&mut self.parked) {
                    self.hears(now, &Segment { header, payload: &payload, ecn });
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

    fn take_events(&mut self) {
        for event in core::mem::take(&mut self.events) {
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

    fn app_acts(&mut self, now: Instant, session: SessionId, act: Act) {
        let count = act.write.min(self.to_write);
        if count > 0 {
            self.to_write -= count;
            self.layer.write(session, count as usize);
            self.layer.programmed.push(session);
        }
        if self.layer.read(session, act.read) > 0 {
            self.layer.programmed.push(session);
        }
        let Some(connection) = self.layer.connection_of(session) else { return };
        if self.has_closed || self.to_write > 0 || !(self.closes_first || self.peer_closed) {
            return;
        }
        let has_all = self.layer.get(session).is_some_and(|session| session.read == self.expects);
        if self.half_closes && !(self.peer_closed && has_all) {
            self.has_closed = true;
            self.engine.half_close(now, connection, &mut self.layer, &mut self.out, &mut self.events);
        } else if has_all {
            self.has_closed = true;
            self.engine.close(now, connection, &mut self.layer, &mut self.out, &mut self.events);
        }
    }

    /// Whether the app would act without anything happening.
    pub fn has_something_to_do(&self) -> bool {
        let Some(session) = self.session.and_then(|session| self.layer.get(session)) else { return false };
        let may_close =
            !self.has_closed && (self.closes_first || self.peer_closed) && session.read == self.expects;
        self.closed.is_none() && (self.to_write > 0 || session.read < session.received || may_close)
    }

    /// When it wants to be stepped.
    pub fn next_deadline(&self) -> Option<Instant> {
        [self.engine.next_deadline(), self.half_opens.next_deadline()].into_iter().flatten().min()
    }

    /// The connection has ended, and nothing is left of it.
    pub fn is_over(&self) -> bool {
        let counts = self.engine.counts();
        let nothing = EngineCounts { listeners: counts.listeners, ..EngineCounts::default() };
        self.closed.is_some() && counts == nothing
    }

    /// All went as it should: both streams whole, both directions closed, nothing left. `is_active`: its app connected.
    #[track_caller]
    pub fn check_finished(&self, is_active: bool) {
        let at = self.flow.local;
        assert_eq!((self.closed, self.failure), (Some(CloseReason::Finished), None), "{at}");
        let session = self.session.and_then(|session| self.layer.get(session)).expect("a session");
        assert!(!session.is_corrupt, "{at}: bytes differ");
        assert_eq!((session.received, session.acknowledged), (self.expects, session.written), "{at}");
        let expected = (usize::from(is_active), usize::from(is_active));
        assert_eq!((self.deleted, self.flows_gone), expected, "{at}: half-opens deleted, flows gone");
        assert!(self.half_opens.is_empty(), "{at}");
        assert_eq!(self.engine.armed_timers(), 0, "{at}: a timer of nothing");
    }

    /// For who finds it stuck.
    pub fn look(&self) -> String {
        let session = self.session.and_then(|session| self.layer.get(session));
        let Self { closed, failure, to_write, has_closed, peer_closed, expects, .. } = self;
        format!(
            "closed {closed:?}, failure {failure:?}, to write {to_write}, has closed {has_closed}, peer closed \
             {peer_closed}, expects {expects}, {session:?}, {:?}, {:?}",
            self.engine.connection_at_slot(self.out.now, 0),
            self.engine.counts()
        )
    }
}
