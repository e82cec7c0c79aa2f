//! Exchanges of segments as tests: an engine on virtual time, a peer that the test speaks for, an app that it plays.
//!
//! Segments are written in the notation of `wire::notation`, relative to the two initial sequence numbers. A fixture
//! for each state is reached through segments, never by setting fields.
//!
//! ```
//! use hoststack_tcp::testing::Exchange;
//! let mut x = Exchange::established().mss(1000);
//! x.app_writes(2500).sends(["1:1001(1000)", "1001:2001(1000)"]);
//! x.gets([". ack 2001"]).sends(["P. 2001:2501(500)"]).sends_nothing_for(199);
//! ```

mod end;
mod expect;
mod fixture;
mod layer;

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use hoststack_transport::{
    Algorithm, AppWorkerId, ConnectFailure, ConnectionId, DomainId, Duration, EarlyData, Endpoint, FlowKey,
    HalfOpenId, HalfOpenUser, Instant, Key, ListenerId, Protocol, Rng, SessionId, SessionLayer as _,
    SocketOption, SocketOptions, Transmitted, Transport, TransportEvent,
};
use hoststack_wire::{
    Flags, FlowHasher, IpFields, NotedSegment, Options, Segment, SegmentHeader, SeqNum, Timestamps,
    parse_notation,
};

pub use crate::recovery::flight::model::{FlightStep, check_flight};
pub use end::{Act, End, patient};
pub use layer::{FakeLayer, FakeSession, pattern};

use crate::config::TcpConfig;
use crate::describe::{ConnectionInfo, EngineCounts};
use crate::drop_reason::DropReason;
use crate::engine::{Disposition, Engine, Output};
use crate::half_opens::{HalfOpenAction, HalfOpens};
use crate::isn::Secrets;
use crate::seed::{HalfOpenError, IcmpError};
use crate::state::State;
use fixture::Setup;

/// A segment that an engine sent, and when.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When.
    pub at: Instant,
    /// On which flow, as the sender names it.
    pub flow: FlowKey,
    /// What it says.
    pub header: SegmentHeader,
    /// What its packet's IP header says.
    pub ip: IpFields,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// An [`Output`] that keeps what is sent.
#[derive(Debug)]
pub struct FakeOutput {
    /// Now, for the record.
    pub now: Instant,
    /// MTU of all paths.
    pub mtu: u16,
    /// Room for more segments in this step.
    pub room: usize,
    /// What was sent and not looked at.
    pub sent: VecDeque<Sent>,
}

impl Output for FakeOutput {
    fn room(&self) -> usize {
        self.room
    }

    fn path_mtu(&mut self, _flow: &FlowKey) -> u16 {
        self.mtu
    }

    fn send(
        &mut self,
        flow: &FlowKey,
        header: &SegmentHeader,
        ip: IpFields,
        payload_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let mut payload = alloc::vec![0; payload_len];
        fill(&mut payload);
        self.room = self.room.saturating_sub(1);
        self.sent.push_back(Sent { at: self.now, flow: *flow, header: *header, ip, payload });
    }
}

/// An engine, its app and its peer.
pub struct Exchange {
    setup: Setup,
    /// Now.
    pub now: Instant,
    start: Instant,
    /// The engine under test.
    pub engine: Engine,
    /// Main's engine.
    pub half_opens: HalfOpens,
    /// The session layer.
    pub layer: FakeLayer,
    /// What it sent.
    pub out: FakeOutput,
    /// What happened and was not looked at.
    pub events: Vec<TransportEvent>,
    /// Outcomes of connects: success, or why not.
    pub outcomes: Vec<Result<(), ConnectFailure>>,
    /// Half-opens that were deleted.
    pub deleted: usize,
    flow: FlowKey,
    iss: SeqNum,
    session: Option<SessionId>,
    half_open: Option<HalfOpenId>,
    /// Bytes of early data of the latest connect.
    early: usize,
    /// TSval that the peer uses next, if not noted, and the last it got.
    peer_ts: u32,
    last_tsval: u32,
    /// The ECN bits of what the peer sends.
    pub peer_ecn: u8,
    /// Main does not answer: what it is to be told waits.
    pub is_main_slow: bool,
    told: Vec<crate::seed::HalfOpenSegment>,
    parked: Vec<(SegmentHeader, Vec<u8>)>,
    actions: Vec<HalfOpenAction>,
}

/// The peer's TSval at the start of an exchange; it counts milliseconds from there.
pub const PEER_TSVAL: u32 = 1000;

impl Exchange {
    fn new(setup: Setup) -> Exchange {
        let mut rng = Rng::from_seed(7);
        let secrets = Secrets::new(&mut rng);
        let hasher = FlowHasher::new([rng.u64(), rng.u64()]);
        let flow = FlowKey {
            local: Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80),
            remote: Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 4000),
            domain: DomainId(0),
            protocol: Protocol::Tcp,
        };
        // An ISS is the hash of the flow plus a clock of 4 us.
        let wait = setup.iss.map_or(0, |iss| u64::from(iss.since(secrets.isn(Instant::ZERO, &flow))) * 4);
        let now = Instant::from_millis(1000).plus_micros(wait.saturating_sub(1_000_000));
        let mut exchange = Exchange {
            now,
            start: now,
            engine: Engine::new(setup.config, secrets.clone(), hasher),
            half_opens: HalfOpens::new(setup.config, secrets),
            layer: FakeLayer::new(),
            out: FakeOutput { now, mtu: setup.mtu, room: usize::MAX, sent: VecDeque::new() },
            events: Vec::new(),
            outcomes: Vec::new(),
            deleted: 0,
            flow,
            iss: SeqNum(0),
            session: None,
            half_open: None,
            early: 0,
            peer_ts: PEER_TSVAL,
            last_tsval: 0,
            peer_ecn: 0,
            is_main_slow: false,
            told: Vec::new(),
            parked: Vec::new(),
            actions: Vec::new(),
            setup,
        };
        exchange.reach();
        exchange
    }

    fn peer_tsval(&self) -> u32 {
        self.peer_ts.wrapping_add(self.now.since(self.start).as_millis() as u32)
    }

    /// Another peer speaks from now on, from this port.
    pub fn peer_is_at(&mut self, port: u16) -> &mut Exchange {
        self.flow.remote.port = port;
        self.session = None;
        self
    }

    /// The peer's clock jumps: TSvals go on from there.
    pub fn peer_clock_jumps(&mut self, by_ms: i32) -> &mut Exchange {
        self.peer_ts = self.peer_ts.wrapping_add_signed(by_ms);
        self
    }

    // ---- the peer ----

    /// The peer's segments arrive in one burst. Timestamps are added if they were negotiated and none are noted; the
    /// window is 65535 if none is noted. Payload is the peer's stream ([`pattern`]).
    #[track_caller]
    pub fn gets<const N: usize>(&mut self, segments: [&str; N]) -> &mut Exchange {
        for text in segments {
            let noted = parse_notation(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            let (header, payload) = self.segment_of(&noted);
            self.deliver(&header, &payload);
        }
        self.settle();
        self
    }

    fn segment_of(&self, noted: &NotedSegment) -> (SegmentHeader, Vec<u8>) {
        let mut header = noted.to_header(
            self.flow.remote.port,
            self.flow.local.port,
            self.setup.peer_isn,
            self.iss,
            self.setup.peer_wnd,
        );
        if self.setup.timestamps && header.options.timestamps.is_none() && !header.flags.has(Flags::RST) {
            header.options.timestamps = Some(Timestamps { val: self.peer_tsval(), ecr: self.last_tsval });
        }
        // A SYN's payload comes behind it.
        let first = noted.seq.wrapping_sub(u32::from(!noted.flags.has(Flags::SYN)));
        let payload = (0..noted.payload_len()).map(|n| pattern(first.wrapping_add(n))).collect();
        (header, payload)
    }

    fn deliver(&mut self, header: &SegmentHeader, payload: &[u8]) {
        let hash = self.engine.flow_hash(&self.flow);
        let segment = Segment { header: *header, payload, ecn: self.peer_ecn };
        let mut told = core::mem::take(&mut self.told);
        let disposition = self.engine.input(
            self.now,
            self.flow,
            hash,
            &segment,
            &mut self.layer,
            &mut self.out,
            &mut self.events,
            &mut told,
        );
        self.told = told;
        if let Disposition::Park(_) = disposition {
            self.parked.push((*header, payload.to_vec()));
        }
    }

    /// The network says something about our segment at the relative sequence number `seq`.
    pub fn gets_icmp(&mut self, seq: u32, error: IcmpError) -> &mut Exchange {
        let hash = self.engine.flow_hash(&self.flow);
        let mut errors: Vec<HalfOpenError> = Vec::new();
        self.engine.on_icmp_error(
            self.now,
            self.flow,
            hash,
            self.iss + seq,
            error,
            &mut self.layer,
            &mut self.out,
            &mut self.events,
            &mut errors,
        );
        for error in errors {
            self.half_opens.on_icmp_error(self.now, &error, &mut self.actions);
        }
        self.settle();
        self
    }

    // ---- the app ----

    /// The app connects.
    pub fn app_connects(&mut self, within: Duration) -> &mut Exchange {
        self.app_connects_with(within, 0)
    }

    /// The app connects, and gives the first `early` bytes of its stream along.
    pub fn app_connects_with(&mut self, within: Duration, early: usize) -> &mut Exchange {
        let user = HalfOpenUser { app_worker: AppWorkerId(key(1)), half_open: key(2) };
        let deadline = self.now + within;
        let (flow, options, mtu) = (self.flow, self.setup.options, self.setup.mtu);
        let bytes: Vec<u8> = (0..early as u32).map(pattern).collect();
        let data = EarlyData::new(&bytes);
        self.early = early;
        let id = self.half_opens.open(self.now, flow, user, options, data, mtu, deadline, &mut self.actions);
        self.half_open = id.ok();
        self.settle();
        self
    }

    /// The app writes `count` bytes of its stream ([`pattern`]).
    pub fn app_writes(&mut self, count: usize) -> &mut Exchange {
        let session = self.session();
        self.layer.write(session, count);
        self.layer.programmed.push(session);
        self.settle();
        self
    }

    /// The app writes `count` bytes of its stream and calls them urgent.
    pub fn app_writes_urgent(&mut self, count: usize) -> &mut Exchange {
        let session = self.session();
        self.layer.write(session, count);
        self.layer.mark_urgent(session);
        self.layer.programmed.push(session);
        self.settle();
        self
    }

    /// The app writes records of these lengths, all before anything is sent.
    pub fn app_writes_records(&mut self, lens: &[usize]) -> &mut Exchange {
        let session = self.session();
        self.with_connection(|x, connection| {
            for &len in lens {
                x.layer.write(session, len);
                let end = SocketOption::RecordEnd(x.layer.tx_len(session));
                x.engine.set_option(x.now, connection, end, &mut x.layer, &mut x.out);
            }
        })
    }

    /// The app reads up to `count` bytes; they must be the peer's stream.
    #[track_caller]
    pub fn app_reads(&mut self, count: usize) -> &mut Exchange {
        let session = self.session();
        assert_eq!(self.layer.read(session, count), count, "bytes that the app could read");
        self.layer.programmed.push(session);
        self.settle();
        self
    }

    /// The app closes both ways.
    pub fn app_closes(&mut self) -> &mut Exchange {
        self.with_connection(|x, connection| {
            x.engine.close(x.now, connection, &mut x.layer, &mut x.out, &mut x.events);
        })
    }

    /// The app closes its direction.
    pub fn app_half_closes(&mut self) -> &mut Exchange {
        self.with_connection(|x, connection| {
            x.engine.half_close(x.now, connection, &mut x.layer, &mut x.out, &mut x.events);
        })
    }

    /// The app changes an option of the connection.
    pub fn app_sets(&mut self, option: SocketOption) -> &mut Exchange {
        self.with_connection(|x, connection| {
            x.engine.set_option(x.now, connection, option, &mut x.layer, &mut x.out);
        })
    }

    /// The app resets.
    pub fn app_resets(&mut self) -> &mut Exchange {
        self.with_connection(|x, connection| {
            x.engine.reset(x.now, connection, &mut x.layer, &mut x.out, &mut x.events);
        })
    }

    /// The app stops listening.
    pub fn app_unlistens(&mut self) -> &mut Exchange {
        self.engine.unlisten(self.now, listener(), &mut self.out, &mut self.events);
        self.settle();
        self
    }

    fn with_connection(&mut self, act: impl FnOnce(&mut Exchange, ConnectionId)) -> &mut Exchange {
        if let Some(connection) = self.engine.connection_of(&self.flow) {
            act(self, connection);
        }
        self.settle();
        self
    }

    fn session(&self) -> SessionId {
        self.session.or(self.layer.newest()).expect("a session exists")
    }

    // ---- time ----

    /// The worker's clock turns out to be `ms` milliseconds behind main's. Does nothing else.
    pub fn clock_back(&mut self, ms: u64) -> &mut Exchange {
        self.now = Instant::from_micros(self.now.as_micros() - ms * 1000);
        self
    }

    /// Time passes.
    pub fn after(&mut self, ms: u64) -> &mut Exchange {
        self.until(self.now.plus_micros(ms * 1000))
    }

    /// Time passes until `ms` after the fixture was made.
    pub fn at_ms(&mut self, ms: u64) -> &mut Exchange {
        self.until(self.start.plus_micros(ms * 1000))
    }

    fn until(&mut self, end: Instant) -> &mut Exchange {
        loop {
            let deadlines = [self.engine.next_deadline(), self.half_opens.next_deadline()];
            let next = deadlines.into_iter().flatten().min().filter(|&next| next <= end);
            self.now = next.unwrap_or(end).max(self.now);
            self.out.now = self.now;
            self.half_opens.poll(self.now, &mut self.actions);
            self.engine.poll(self.now, &mut self.layer, &mut self.out, &mut self.events);
            self.settle();
            if next.is_none() {
                return self;
            }
        }
    }

    /// The rest of a step: main's decisions, the transmit stage, the acknowledgments.
    fn settle(&mut self) {
        self.main_acts();
        self.transmit();
        self.engine.flush_acks(self.now, &mut self.layer, &mut self.out);
        self.engine.check_consistency();
        self.half_opens.check_consistency();
        if let Some(ts) = self.out.sent.iter().rev().find_map(|sent| sent.header.options.timestamps) {
            self.last_tsval = ts.val;
        }
    }

    /// Lets a slow main act.
    pub fn main_catches_up(&mut self) -> &mut Exchange {
        self.is_main_slow = false;
        self.settle();
        self
    }

    fn main_acts(&mut self) {
        if self.is_main_slow {
            return;
        }
        for segment in core::mem::take(&mut self.told) {
            self.half_opens.on_segment(&segment, &mut self.actions);
        }
        let mut actions = core::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            self.main_does(action);
        }
        self.actions = actions;
    }

    fn main_does(&mut self, action: HalfOpenAction) {
        let mut more = Vec::new();
        match action {
            HalfOpenAction::SendSyn { half_open, syn } => {
                if syn.first && self.engine.open(self.now, &syn, half_open).is_err() {
                    self.half_opens.fail(half_open, ConnectFailure::AddressInUse, &mut more);
                } else {
                    self.engine.send_syn(self.now, &syn, half_open, &mut self.out);
                }
            }
            HalfOpenAction::Establish { half_open, seed, .. } => {
                let session = self.layer.open();
                self.session = Some(session);
                self.layer.write(session, self.early);
                let result = self.engine.establish(
                    self.now,
                    seed,
                    session,
                    &mut self.layer,
                    &mut self.out,
                    &mut self.events,
                );
                if let Ok(connection) = result {
                    self.layer.bind(session, connection);
                }
                self.outcomes.push(result.map(|_| ()).map_err(|_| ConnectFailure::NoRoom));
                self.half_opens.settled(half_open, &mut more);
                self.unpark();
            }
            HalfOpenAction::Failed { half_open, failure, .. } => {
                self.outcomes.push(Err(failure));
                self.engine.forget_half_open(&self.flow, half_open, &mut self.events);
                self.half_opens.settled(half_open, &mut more);
                self.unpark();
            }
            HalfOpenAction::Deleted { .. } => self.deleted += 1,
            HalfOpenAction::Late { .. } => {}
        }
        for action in more {
            self.main_does(action);
        }
    }

    fn unpark(&mut self) {
        for (header, payload) in core::mem::take(&mut self.parked) {
            self.deliver(&header, &payload);
        }
    }

    fn transmit(&mut self) {
        // Twice the longest list that one input can leave; `More` asks again.
        while let Some(session) = self.layer.programmed.pop() {
            let Some(connection) = self.layer.connection_of(session) else { continue };
            let done = self.engine.transmit(
                self.now,
                connection,
                64,
                &mut self.layer,
                &mut self.out,
                &mut Vec::new(),
            );
            if done == Transmitted::More && self.out.room > 0 {
                self.layer.programmed.push(session);
            }
        }
    }
}

fn key(slot: u32) -> Key {
    Key { slot, generation: 0 }
}

/// The listener of an exchange.
pub fn listener() -> ListenerId {
    ListenerId(key(9))
}
