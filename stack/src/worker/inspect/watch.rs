//! Packets that someone watches: a trace of what each stage decided, a capture into a file.
//!
//! No stage knows of it. While nothing is watched a worker asks so once a vector. While something is, packets pass the
//! same stages in the same order one at a time, and what a stage decided is read off what changed: counters of drops,
//! states, events, vectors. So a watched run sends the same packets as one that is not.
//!
//! A packet that is watched is [`Seen`] when it comes in or is about to leave; what becomes of it is added as the step
//! goes on; at the end of the step ([`Watch::settle`]) filters that ask for its fate are tried, and it is recorded.

mod flows;
mod seen;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use hoststack_net::pcap::Direction;
use hoststack_net::{
    DropReason, Handover, InterfaceId, IpPath, Packet, PacketBlocks, PacketPlace, PacketPool, PacketView,
    Received,
};
use hoststack_transport::{DomainId, Endpoint, FlowKey, Protocol};
use hoststack_wire::{SegmentHeader, SeqNum};

pub(in crate::worker) use self::flows::FlowKnown;
use self::flows::{FlowMemory, Flows};
pub(in crate::worker) use self::seen::{IpBefore, Seen};
use self::seen::{comment, fingerprint, link_type, session_name};
use crate::capture::CaptureTap;
use crate::inspect::{TraceRecord, TraceSpec};

/// What main asks of a worker's watch.
#[derive(Clone, Debug)]
pub(crate) enum WatchCommand {
    /// One more trace.
    TraceAdd(Arc<TraceSpec>),
    /// No trace any more, and no record of one.
    TraceClear,
    /// Packets go there; `None`: nowhere any more.
    Capture(Option<Arc<CaptureTap>>),
}

/// A worker's watched packets.
#[derive(Debug)]
pub(in crate::worker) struct Watch {
    worker: u8,
    traces: Vec<Trace>,
    /// By number: each trace has as many of them as it asked for, at most.
    records: BTreeMap<u64, Kept>,
    next_number: u64,
    capture: Option<Arc<CaptureTap>>,
    /// Some trace or capture takes packets.
    is_active: bool,
    // Of this step.
    seen: Vec<Seen>,
    /// The frames of those that are captured.
    frames: Vec<u8>,
    /// Places in `Received::segments`, and what is seen there.
    segments: Vec<(usize, usize)>,
    /// Places in `Received::icmp_errors`, and what is seen there.
    errors: Vec<(usize, usize)>,
    /// Places in `Received::handovers`, and what is seen there.
    handovers: Vec<(usize, usize)>,
    /// Places in the transmit vector that is flushed, and what is seen there.
    leaving: Vec<(usize, usize)>,
    one: Vec<Packet>,
    one_handover: Vec<Handover>,
    flows: Flows,
}

#[derive(Debug)]
struct Trace {
    spec: Arc<TraceSpec>,
    /// How many it still records; of one that keeps the last, all that come.
    left: usize,
    /// The numbers of its records, of one that keeps the last.
    last: VecDeque<u64>,
}

/// A record, and for which traces it is kept, a bit each.
#[derive(Debug)]
struct Kept {
    traces: u8,
    record: TraceRecord,
}

impl Watch {
    pub(in crate::worker) fn new(worker: u8) -> Watch {
        Watch {
            worker,
            traces: Vec::new(),
            records: BTreeMap::new(),
            next_number: 1,
            capture: None,
            is_active: false,
            seen: Vec::new(),
            frames: Vec::new(),
            segments: Vec::new(),
            errors: Vec::new(),
            handovers: Vec::new(),
            leaving: Vec::new(),
            one: Vec::with_capacity(1),
            one_handover: Vec::with_capacity(1),
            flows: Flows::default(),
        }
    }

    /// Does what main asks. Says whether anything is left to watch or to remember.
    pub(in crate::worker) fn command(&mut self, command: WatchCommand) -> bool {
        match command {
            WatchCommand::TraceAdd(spec) => {
                let is_other = |worker: u8| worker != self.worker;
                let is_never = spec.filter.worker.is_some_and(is_other)
                    || spec.filter.session.is_some_and(|session| is_other(session.worker));
                let left = if is_never { 0 } else { spec.count };
                self.traces.push(Trace { spec, left, last: VecDeque::new() });
            }
            WatchCommand::TraceClear => {
                self.traces.clear();
                self.records.clear();
                self.next_number = 1;
            }
            WatchCommand::Capture(capture) => self.capture = capture,
        }
        self.refresh();
        self.capture.is_some() || !self.traces.is_empty() || !self.records.is_empty()
    }

    fn refresh(&mut self) {
        self.is_active = self.traces.iter().any(|trace| trace.left > 0)
            || self.capture.as_ref().is_some_and(|capture| !capture.is_over());
    }

    /// Whether packets are watched now.
    pub(in crate::worker) fn is_active(&self) -> bool {
        self.is_active
    }

    /// How many records there are.
    pub(in crate::worker) fn records_len(&self) -> usize {
        self.records.len()
    }

    /// The number of the first of the newest `count` records.
    pub(in crate::worker) fn first_of_newest(&self, count: usize) -> u64 {
        let Some(older) = count.checked_sub(1) else { return self.next_number };
        self.records.keys().rev().nth(older).copied().unwrap_or(1)
    }

    /// Records of numbers from `first` on, at most `count`.
    pub(in crate::worker) fn records_from(
        &self,
        first: u64,
        count: usize,
    ) -> impl Iterator<Item = &TraceRecord> {
        self.records.range(first..).take(count).map(|(_, kept)| &kept.record)
    }

    /// Looks at a packet: whether anyone may want it, and if so where it is in `seen`.
    fn look(
        &mut self,
        path: &IpPath,
        interface: InterfaceId,
        direction: Direction,
        frame: &[u8],
    ) -> Option<usize> {
        let link = link_type(path, interface);
        let view = PacketView::parse(link, frame);
        let name = path.interface(interface).map_or("", |config| config.name.as_str());
        let place = PacketPlace { direction, worker: self.worker, interface: name };
        let mut traces = 0;
        for (bit, trace) in self.traces.iter().enumerate() {
            if trace.left > 0 && trace.spec.filter.matches(&view, place) {
                traces |= 1 << bit;
            }
        }
        let is_captured = match &self.capture {
            // The worker that owns its flow decides, which may be another.
            Some(capture) if !capture.is_over() => {
                let filter = &capture.spec.filter;
                let worker =
                    filter.worker.or(filter.session.map(|session| session.worker)).unwrap_or(self.worker);
                filter.matches(&view, PacketPlace { worker, ..place })
            }
            _ => false,
        };
        if traces == 0 && !is_captured {
            return None;
        }
        let start = self.frames.len();
        // The frame is gone, or changed, when its fate is known.
        self.frames.extend_from_slice(frame);
        self.seen.push(Seen {
            traces,
            is_captured,
            is_elsewhere: false,
            direction,
            interface,
            interface_name: name.to_owned(),
            view,
            frame: (start, self.frames.len()),
            len: frame.len(),
            packet: fingerprint(view.ip_packet(frame)),
            summary: String::new(),
            session: None,
            dropped: None,
            is_retransmission: false,
            remark: "",
            stages: Vec::new(),
        });
        Some(self.seen.len() - 1)
    }

    // ---- what comes in ----

    /// [`IpPath::input`], one packet at a time.
    pub(in crate::worker) fn input(
        &mut self,
        now_us: u64,
        interface: InterfaceId,
        path: &mut IpPath,
        packets: &mut Vec<Packet>,
        pool: &mut PacketPool,
        received: &mut Received,
    ) {
        for packet in packets.drain(..) {
            let seen = self.look(path, interface, Direction::Inbound, packet.data());
            let before = seen.map(|seen| (seen, IpBefore::of(path), Lens::of(received)));
            self.one.push(packet);
            path.input(now_us, interface, &mut self.one, pool, received);
            if let Some((seen, ip, lens)) = before {
                let device = &mut self.seen[seen];
                let len = device.len;
                let name = device.interface_name.clone();
                device.stage("device-input", || format!("{name} len {len}"));
                self.after_ip(seen, &ip, lens, path, received);
            }
        }
    }

    /// [`IpPath::input_handed_over`], one packet at a time.
    pub(in crate::worker) fn input_handed_over(
        &mut self,
        now_us: u64,
        path: &mut IpPath,
        handovers: &mut Vec<Handover>,
        pool: &mut PacketPool,
        received: &mut Received,
    ) {
        for handover in handovers.drain(..) {
            let interface = handover.interface;
            let seen = self.look(path, interface, Direction::Inbound, handover.packet.data());
            let before = seen.map(|seen| (seen, IpBefore::of(path), Lens::of(received)));
            self.one_handover.push(handover);
            path.input_handed_over(now_us, &mut self.one_handover, pool, received);
            if let Some((seen, ip, lens)) = before {
                let handed = &mut self.seen[seen];
                handed.remark("handed over by another worker");
                let len = handed.len;
                let name = handed.interface_name.clone();
                handed.stage("handover-input", || {
                    format!("{name} len {len}, from the worker that received it")
                });
                self.after_ip(seen, &ip, lens, path, received);
            }
        }
    }

    /// What the IP path made of a packet.
    fn after_ip(&mut self, index: usize, before: &IpBefore, lens: Lens, path: &IpPath, received: &Received) {
        self.summarize(index, None);
        let seen = &mut self.seen[index];
        let stage = match seen.view.kind {
            Some(hoststack_net::PacketKind::Arp) => "arp-input",
            _ => "ip-input",
        };
        if let (Some((src, dst)), "ip-input") = (seen.view.addresses, stage) {
            let ttl = seen.view.hop_limit.unwrap_or_default();
            let kind = seen.view.kind.map_or("other", hoststack_net::PacketKind::name);
            seen.stage(stage, || format!("{src} -> {dst} {kind} ttl {ttl}"));
        }
        for reason in before.dropped(path) {
            seen.dropped(stage, reason.name(), reason.help());
        }
        let now = path.counters();
        let was = &before.counters;
        for (did, text) in [
            (now.echo_replies > was.echo_replies, "an echo request: answered"),
            (now.neighbor_replies > was.neighbor_replies, "asks for an address of ours: answered"),
            (now.neighbor_news > was.neighbor_news, "tells of a neighbour: heeded"),
            (now.unreachables > was.unreachables, "nothing has the port: answered with port unreachable"),
        ] {
            if did {
                seen.stage(stage, || text.to_owned());
            }
        }
        before.sent(path, seen, None);
        let worker = self.worker;
        if received.segments.len() > lens.segments {
            seen.stage("steer", || format!("worker {worker}: here"));
            self.segments.push((lens.segments, index));
        } else if received.icmp_errors.len() > lens.errors {
            seen.stage("steer", || format!("worker {worker}: here"));
            self.errors.push((lens.errors, index));
        } else if let Some(handover) = received.handovers.get(lens.handovers) {
            seen.stage("steer", || format!("worker {}: handed over", handover.worker));
            seen.is_elsewhere = true;
            self.handovers.push((lens.handovers, index));
        }
    }

    /// The ring to the worker of a packet that was to be handed over is full.
    pub(in crate::worker) fn handover_lost(&mut self, place: usize) {
        let Some(index) = find(&self.handovers, place) else { return };
        let seen = &mut self.seen[index];
        seen.is_elsewhere = false;
        seen.dropped("steer", "handover-ring-full", "the ring to that worker is full.");
    }

    /// Which segment of `Received` is seen.
    pub(in crate::worker) fn seen_segment(&self, place: usize) -> Option<usize> {
        find(&self.segments, place)
    }

    /// Which ICMP error of `Received` is seen.
    pub(in crate::worker) fn seen_error(&self, place: usize) -> Option<usize> {
        find(&self.errors, place)
    }

    /// A segment that waited for main is given to TCP again.
    pub(in crate::worker) fn look_again(
        &mut self,
        path: &IpPath,
        interface: InterfaceId,
        packet: &Packet,
    ) -> Option<usize> {
        let index = self.look(path, interface, Direction::Inbound, packet.data())?;
        let seen = &mut self.seen[index];
        // It was captured when it came.
        seen.is_captured = false;
        seen.stage("unpark", || "main has handed its flow over, or let it go".to_owned());
        self.summarize(index, None);
        Some(index)
    }

    /// A packet that is seen.
    pub(in crate::worker) fn seen(&mut self, index: usize) -> &mut Seen {
        &mut self.seen[index]
    }

    /// What is known of a packet's flow, now that TCP has had it: for its summary, and later ones of the flow.
    pub(in crate::worker) fn flow_known(&mut self, index: usize, flow: &FlowKey, known: FlowKnown) {
        let memory = self.flows.remember(flow, known);
        // A segment that finds no connection is not of the one that was there before, nor is its answer.
        memory.session = known.session;
        let isns = memory.isns;
        self.seen[index].session = known.session;
        // The peer is the sender: its initial sequence number is IRS.
        self.summarize(index, isns.map(|(iss, irs)| (irs, iss)));
    }

    /// Writes the packet's line, if someone traces.
    fn summarize(&mut self, index: usize, isns: Option<(SeqNum, SeqNum)>) {
        let seen = &mut self.seen[index];
        if seen.traces != 0 {
            seen.summary = seen.view.summary(&self.frames[seen.frame.0..seen.frame.1], isns);
        }
    }

    // ---- what goes out ----

    /// TCP sent a segment that the IP path did not take.
    pub(in crate::worker) fn unsent(
        &mut self,
        path: &IpPath,
        flow: &FlowKey,
        header: &SegmentHeader,
        payload_len: usize,
        reason: DropReason,
    ) {
        // There is no packet: its headers tell what would have been one.
        let mut packet = Packet::with_size(2048, 128);
        header.emit(packet.prepend(header.header_len()));
        let len = header.header_len() + payload_len;
        match (flow.local.addr, flow.remote.addr) {
            (IpAddr::V4(src), IpAddr::V4(dst)) if len <= 65_515 => {
                hoststack_wire::ipv4::Header::new(src, dst, hoststack_wire::IpProtocol::TCP, len)
                    .emit(packet.prepend(hoststack_wire::ipv4::Header::LEN));
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) if len <= 65_535 => {
                hoststack_wire::ipv6::Header::new(src, dst, hoststack_wire::IpProtocol::TCP, len)
                    .emit(packet.prepend(hoststack_wire::ipv6::Header::LEN));
            }
            _ => return,
        }
        // No interface has this number, so that it is read as a bare IP packet.
        let Some(index) = self.look(path, InterfaceId(u16::MAX), Direction::Outbound, packet.data()) else {
            return;
        };
        let isns = self.flows.get(flow).and_then(|memory| memory.isns);
        let seen = &mut self.seen[index];
        seen.is_captured = false;
        seen.len = packet.len() + payload_len;
        seen.summary = seen.view.summary(packet.data(), isns);
        seen.session = self.flows.get(flow).and_then(|memory| memory.session);
        seen.stage("tcp-output", || format!("{payload_len} bytes of data"));
        seen.dropped("ip-output", reason.name(), reason.help());
    }

    /// Looks at packets that a device queue is about to be offered.
    pub(in crate::worker) fn offered(&mut self, path: &IpPath, interface: InterfaceId) {
        self.leaving.clear();
        let waiting = path.waiting_packets().find(|(id, _)| *id == interface);
        for (place, packet) in waiting.into_iter().flat_map(|(_, waiting)| waiting.iter().enumerate()) {
            if let Some(index) = self.look(path, interface, Direction::Outbound, packet.data()) {
                self.leaving.push((place, index));
            }
        }
    }

    /// The interface's device queue took the first `sent` of the packets that it was offered; the others wait for the
    /// next step, or are `stuck`. `known`: what TCP knows of a flow.
    pub(in crate::worker) fn left(
        &mut self,
        path: &IpPath,
        interface: InterfaceId,
        sent: usize,
        is_stuck: bool,
        known: impl Fn(&FlowKey) -> FlowKnown,
    ) {
        let domain = DomainId(path.interface(interface).map_or(0, |config| config.domain));
        let first_left = self.leaving.iter().find(|(place, _)| *place >= sent).map(|(_, index)| *index);
        if let Some(first) = first_left
            && !is_stuck
        {
            // They were looked at last, and are looked at again.
            self.frames.truncate(self.seen[first].frame.0);
            self.seen.truncate(first);
        }
        let mut leaving = std::mem::take(&mut self.leaving);
        for (place, index) in leaving.drain(..) {
            if index >= self.seen.len() {
                break;
            }
            self.segment_left(index, domain, &known);
            let seen = &mut self.seen[index];
            if let (Some((src, dst)), Some(ttl)) = (seen.view.addresses, seen.view.hop_limit) {
                seen.stage("ip-output", || format!("{src} -> {dst} ttl {ttl}"));
            }
            let (name, len) = (seen.interface_name.clone(), seen.len);
            if place < sent {
                seen.stage("device-output", || format!("{name} len {len}"));
            } else {
                seen.dropped("device-output", "device-stuck", "the device took no packet for too long.");
            }
        }
        self.leaving = leaving;
    }

    /// A packet is the device's now, or lost with it: if it is a segment, whose it is, and whether it was sent before.
    fn segment_left(&mut self, index: usize, domain: DomainId, known: impl Fn(&FlowKey) -> FlowKnown) {
        let Seen { view, frame: (start, end), .. } = self.seen[index];
        let (Some(segment), Some((local, remote))) = (view.segment(&self.frames[start..end]), view.addresses)
        else {
            return self.summarize(index, None);
        };
        let flow = FlowKey {
            local: Endpoint::new(local, segment.header.src_port),
            remote: Endpoint::new(remote, segment.header.dst_port),
            domain,
            protocol: Protocol::Tcp,
        };
        let known = known(&flow);
        let memory = self.flows.remember(&flow, known);
        let is_again = memory.sends(&segment.header, segment.payload.len(), known);
        let FlowMemory { isns, session, .. } = *memory;
        self.summarize(index, isns);
        let seen = &mut self.seen[index];
        seen.session = session;
        seen.is_retransmission = is_again;
        seen.stage("tcp-output", || {
            let of = session.map_or("no session".to_owned(), |session| format!("session {session}"));
            format!("{of}{}", if is_again { ", sent again" } else { "" })
        });
    }

    /// The step is over: what was seen is recorded where filters accept what became of it.
    pub(in crate::worker) fn settle(&mut self, now_us: u64) {
        self.segments.clear();
        self.errors.clear();
        self.handovers.clear();
        let mut blocks = PacketBlocks::default();
        let mut seen = std::mem::take(&mut self.seen);
        for seen in seen.drain(..) {
            let session = seen.session.map(session_name);
            if let Some(capture) = &self.capture
                && seen.is_captured
                && !seen.is_elsewhere
                && capture.spec.filter.worker.is_none_or(|worker| worker == self.worker)
                && capture.spec.filter.accepts(session, seen.dropped.is_some())
            {
                blocks.add(
                    u32::from(seen.interface.0),
                    capture.epoch_us.saturating_add(now_us),
                    seen.direction,
                    capture.spec.snap_len,
                    &self.frames[seen.frame.0..seen.frame.1],
                    &comment(&seen, self.worker),
                );
            }
            self.record(now_us, seen);
        }
        self.seen = seen;
        self.frames.clear();
        if let Some(capture) = &self.capture
            && !blocks.is_empty()
        {
            capture.put(blocks);
        }
        self.refresh();
    }

    fn record(&mut self, now_us: u64, seen: Seen) {
        let session = seen.session.map(session_name);
        let number = self.next_number;
        let mut traces = 0;
        for (bit, trace) in self.traces.iter_mut().enumerate() {
            let bit = 1 << bit;
            if seen.traces & bit == 0
                || trace.left == 0
                || !trace.spec.filter.accepts(session, seen.dropped.is_some())
            {
                continue;
            }
            traces |= bit;
            if !trace.spec.keeps_last {
                trace.left -= 1;
                continue;
            }
            trace.last.push_back(number);
            if trace.last.len() > trace.spec.count
                && let Some(oldest) = trace.last.pop_front()
                && let Some(kept) = self.records.get_mut(&oldest)
            {
                kept.traces &= !bit;
                if kept.traces == 0 {
                    self.records.remove(&oldest);
                }
            }
        }
        if traces == 0 {
            return;
        }
        let record = TraceRecord {
            worker: self.worker,
            number,
            at_us: now_us,
            packet: format!("{:08x}", seen.packet),
            direction: match seen.direction {
                Direction::Inbound => "in",
                Direction::Outbound => "out",
            },
            interface: seen.interface_name,
            len: seen.len,
            summary: seen.summary,
            session: seen.session.map(|session| session.to_string()),
            dropped: seen.dropped,
            retransmission: seen.is_retransmission,
            stages: seen.stages,
        };
        self.records.insert(number, Kept { traces, record });
        self.next_number += 1;
    }
}

/// How much was received before a packet.
#[derive(Clone, Copy)]
struct Lens {
    segments: usize,
    errors: usize,
    handovers: usize,
}

impl Lens {
    fn of(received: &Received) -> Lens {
        Lens {
            segments: received.segments.len(),
            errors: received.icmp_errors.len(),
            handovers: received.handovers.len(),
        }
    }
}

/// What is seen at a place; places ascend.
fn find(places: &[(usize, usize)], place: usize) -> Option<usize> {
    places.binary_search_by_key(&place, |(at, _)| *at).ok().map(|found| places[found].1)
}
