//! TCP, a watched segment at a time: what it decided is what its records and counters say before and after. And the
//! records of traces as an answer to main's question.

use hoststack_net::{InterfaceId, RxIcmpError, RxSegment};
use hoststack_tcp::{ConnectionInfo, DropCounters, FlowRecord, State};
use hoststack_transport::{
    ConnectionId, DomainId, Endpoint, FlowKey, Instant, Protocol, SessionHandle, TransportEvent, WorkerId,
};
use hoststack_wire::SeqNum;

use super::watch::{FlowKnown, IpBefore, Watch, WatchCommand};
use super::{Run, Worker};
use crate::inspect::WorkerAnswer;
use crate::messages::Report;

/// Records in one part of an answer: their texts are copied, some microseconds each.
const SLICE: usize = 32;

/// What TCP, and what it works with, said before a segment.
struct TcpBefore {
    record: FlowRecord,
    isns: Option<(SeqNum, SeqNum)>,
    state: Option<State>,
    info: Option<ConnectionInfo>,
    drops: DropCounters,
    ip: IpBefore,
    events: usize,
    half_open_segments: usize,
    half_open_errors: usize,
    parked: u64,
    parked_dropped: u64,
}

impl Worker {
    /// Main wants packets watched, or no longer so.
    pub(in crate::worker) fn watch(&mut self, command: WatchCommand) {
        let watch = self.watch.get_or_insert_with(|| Box::new(Watch::new(self.id.0)));
        if !watch.command(command) {
            self.watch = None;
        }
    }

    /// The segments of a step, some of which are watched.
    pub(in crate::worker) fn watched_segments(&mut self, segments: &mut Vec<RxSegment>) {
        for (place, segment) in segments.drain(..).enumerate() {
            match self.watch.as_ref().and_then(|watch| watch.seen_segment(place)) {
                Some(seen) => self.input_seen(seen, segment),
                None => self.input_one(segment),
            }
        }
    }

    /// A segment that waited for main.
    pub(in crate::worker) fn watched_unpark(&mut self, rx: RxSegment) {
        let watch = self.watch.as_deref_mut().filter(|watch| watch.is_active());
        match watch.and_then(|watch| watch.look_again(&self.path, rx.interface, &rx.packet)) {
            Some(seen) => self.input_seen(seen, rx),
            None => self.input_one(rx),
        }
    }

    fn input_seen(&mut self, seen: usize, rx: RxSegment) {
        let flow = FlowKey {
            local: Endpoint::new(rx.dst, rx.dst_port),
            remote: Endpoint::new(rx.src, rx.src_port),
            domain: DomainId(rx.domain),
            protocol: Protocol::Tcp,
        };
        let before = self.tcp_before(&flow);
        self.input_one(rx);
        self.after_tcp(seen, &flow, before, "tcp-input");
    }

    /// An ICMP error that is watched.
    pub(in crate::worker) fn watched_error(&mut self, place: usize, error: &RxIcmpError) {
        let Some(seen) = self.watch.as_ref().and_then(|watch| watch.seen_error(place)) else {
            return self.input_error(error);
        };
        let flow = FlowKey {
            local: Endpoint::new(error.local, error.local_port),
            remote: Endpoint::new(error.remote, error.remote_port),
            domain: DomainId(error.domain),
            protocol: Protocol::Tcp,
        };
        let before = self.tcp_before(&flow);
        self.input_error(error);
        self.after_tcp(seen, &flow, before, "icmp-input");
    }

    fn tcp_before(&self, flow: &FlowKey) -> TcpBefore {
        let tcp = &self.transports.tcp;
        let record = tcp.record_of(flow);
        TcpBefore {
            record,
            isns: tcp.isns_of(flow),
            state: tcp.state_of(flow),
            info: match record {
                FlowRecord::Connection(connection, _) => tcp.connection(self.now, connection),
                _ => None,
            },
            drops: tcp.drop_counters().clone(),
            ip: IpBefore::of(&self.path),
            events: self.events.len(),
            half_open_segments: self.half_open_segments.len(),
            half_open_errors: self.half_open_errors.len(),
            parked: self.figures.parked,
            parked_dropped: self.figures.parked_dropped,
        }
    }

    /// What TCP made of a segment, or of an ICMP error.
    fn after_tcp(&mut self, seen: usize, flow: &FlowKey, before: TcpBefore, stage: &'static str) {
        let Some(watch) = self.watch.as_deref_mut() else { return };
        let tcp = &self.transports.tcp;
        let worker = self.id;
        let after = tcp.record_of(flow);
        let session = session_of(worker, before.record).or(session_of(worker, after));
        let isns = before.isns.or(tcp.isns_of(flow));
        watch.flow_known(seen, flow, FlowKnown { session, isns, retransmits: None });
        let seen = watch.seen(seen);
        seen.stage("tcp-lookup", || found(worker, before.record));
        // Reasons first: they say why nothing else happened.
        for (reason, count) in tcp.drop_counters().iter() {
            if count > before.drops.of(reason) {
                seen.dropped(stage, reason.name(), reason.help());
            }
        }
        let connection = match after {
            FlowRecord::Connection(connection, _) => tcp.connection(self.now, connection),
            _ => None,
        };
        let state = tcp.state_of(flow);
        if before.state.is_some() || state.is_some() {
            let name = |state: Option<State>| state.map_or("CLOSED", State::name);
            let (was, is) = (name(before.state), name(state));
            let moved = moved(before.info.as_ref(), connection.as_ref(), isns);
            seen.stage(stage, || {
                if was == is { format!("{is}{moved}") } else { format!("{was} -> {is}{moved}") }
            });
        }
        if self.figures.parked > before.parked {
            seen.remark("waits for main to hand its flow over");
            seen.stage("park", || "waits here until main has handed its flow over".to_owned());
        }
        if self.figures.parked_dropped > before.parked_dropped {
            seen.dropped(
                "park",
                "handover-parked-full",
                "too many segments wait for main to hand their flows over.",
            );
        }
        for segment in self.half_open_segments.get(before.half_open_segments..).unwrap_or_default() {
            seen.stage("main", || format!("the answer for half-open {} goes to main", segment.half_open));
        }
        for error in self.half_open_errors.get(before.half_open_errors..).unwrap_or_default() {
            seen.stage("main", || format!("the error for half-open {} goes to main", error.half_open));
        }
        for event in self.events.get(before.events..).unwrap_or_default() {
            seen.stage("session", || happened(worker, event));
        }
        for reason in before.ip.dropped(&self.path) {
            seen.stage("ip-output", || {
                format!("the answer is dropped: {}: {}", reason.name(), reason.help())
            });
        }
        before.ip.sent(&self.path, seen, isns);
    }

    /// What an interface's device queue took of what it was offered; see [`Watch::left`].
    pub(in crate::worker) fn watch_left(&mut self, interface: InterfaceId, sent: usize, is_stuck: bool) {
        let Some(watch) = self.watch.as_deref_mut() else { return };
        let (tcp, now, worker) = (&self.transports.tcp, self.now, self.id);
        watch.left(&self.path, interface, sent, is_stuck, |flow| {
            let record = tcp.record_of(flow);
            let retransmits = match record {
                FlowRecord::Connection(connection, _) => repairs(tcp, now, connection),
                _ => None,
            };
            FlowKnown { session: session_of(worker, record), isns: tcp.isns_of(flow), retransmits }
        });
    }

    /// A part of the answer to a question for traces' records.
    pub(in crate::worker) fn answer_trace(&mut self, mut run: Run, limit: usize) {
        let mut part = WorkerAnswer::default();
        let left = limit.saturating_sub(run.listed);
        if let Some(watch) = &self.watch {
            part.trace_total = watch.records_len();
            if run.first_record == 0 {
                run.first_record = watch.first_of_newest(limit);
            }
            part.trace.extend(watch.records_from(run.first_record, SLICE.min(left)).cloned());
        }
        run.listed += part.trace.len();
        let is_last = part.trace.len() < SLICE.min(left) || run.listed >= limit;
        if let Some(newest) = part.trace.last() {
            run.first_record = newest.number + 1;
        }
        if is_last {
            part.info.worker = self.id.0;
        }
        self.reports.push(Report::Answer { query: run.query, part: Box::new(part), last: is_last });
        if !is_last {
            self.inspections.push_back(run);
        }
    }
}

/// The oldest byte not acknowledged of a connection that retransmits.
fn repairs(tcp: &hoststack_tcp::Engine, now: Instant, connection: ConnectionId) -> Option<SeqNum> {
    tcp.connection(now, connection).filter(|info| info.retransmits > 0).map(|info| info.snd_una)
}

fn session_of(worker: WorkerId, record: FlowRecord) -> Option<SessionHandle> {
    match record {
        FlowRecord::Connection(_, session) => Some(SessionHandle::new(worker, session)),
        _ => None,
    }
}

/// What the look-up found, in words.
fn found(worker: WorkerId, record: FlowRecord) -> String {
    match record {
        FlowRecord::HalfOpen(half_open) => format!("half-open {half_open}"),
        FlowRecord::SynReceived(listener) => format!("handshake of listener {listener}"),
        FlowRecord::Connection(_, session) => format!("session {}", SessionHandle::new(worker, session)),
        FlowRecord::TimeWait => "TIME-WAIT".into(),
        FlowRecord::Listener(listener) => format!("listener {listener}"),
        FlowRecord::Nothing => "no flow, no listener".into(),
    }
}

/// Which of a connection's variables changed, counted from its initial sequence numbers.
fn moved(
    before: Option<&ConnectionInfo>,
    after: Option<&ConnectionInfo>,
    isns: Option<(SeqNum, SeqNum)>,
) -> String {
    let (Some(before), Some(after)) = (before, after) else { return String::new() };
    let (iss, irs) = isns.unwrap_or((SeqNum(0), SeqNum(0)));
    let mut text = String::new();
    let mut add = |name: &str, was: u32, is: u32| {
        if was != is {
            text += &format!(", {name} {was} -> {is}");
        }
    };
    add("rcv.nxt", before.rcv_nxt.since(irs), after.rcv_nxt.since(irs));
    add("snd.una", before.snd_una.since(iss), after.snd_una.since(iss));
    add("snd.nxt", before.snd_nxt.since(iss), after.snd_nxt.since(iss));
    add("snd.wnd", before.snd_wnd, after.snd_wnd);
    add("cwnd", before.cwnd, after.cwnd);
    add("ssthresh", before.ssthresh, after.ssthresh);
    if before.recovery != after.recovery {
        text += &format!(", recovery {} -> {}", before.recovery, after.recovery);
    }
    text
}

/// An event of the transport, in words.
fn happened(worker: WorkerId, event: &TransportEvent) -> String {
    let (session, what) = match *event {
        TransportEvent::Connected { session } => (session, "connected".to_owned()),
        TransportEvent::Accepted { session } => (session, "accepted".to_owned()),
        TransportEvent::Received { session } => (session, "readable".to_owned()),
        TransportEvent::Urgent { session } => (session, "urgent data".to_owned()),
        TransportEvent::Acknowledged { session } => (session, "room to write".to_owned()),
        TransportEvent::PeerClosed { session } => (session, "peer closed".to_owned()),
        TransportEvent::Closed { session, reason, .. } => (session, format!("closed: {reason}")),
        TransportEvent::FlowGone { flow } => return format!("the flow of {} is free", flow.local),
    };
    format!("{} {what}", SessionHandle::new(worker, session))
}
