//! Devices, IP and TCP: receive, input, timers, transmit, flush.

use hoststack_app::AppRequest;
use hoststack_net::{IpPath, OutFlow, PacketPool, RxSegment};
use hoststack_session::{CloseAction, EndedBy, Ending};
use hoststack_tcp::{Disposition, Output};
use hoststack_transport::border::Transmitted;
use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    ConnectFailure, ConnectionId, DomainId, Duration, Endpoint, FlowKey, HalfOpenId, Protocol, SessionLayer,
    TransportEvent,
};
use hoststack_wire::{IpFields, Segment, SegmentHeader};

use super::Worker;
use super::inspect::Watch;
use super::transports::Ask;
use crate::messages::Report;
use crate::record::flush;

/// What every IPv4 host can take (RFC 1122 §3.3.2).
const MTU_DEFAULT: usize = 576;

/// How long a device may take no packet before what waits for it is dropped.
const STUCK_MAX: Duration = Duration::from_millis(200);

/// TCP's way out: the IP path and the packet pool of this worker, lent for a call.
pub(super) struct Out<'a> {
    pub(super) now_us: u64,
    /// Hears of what the path does not take.
    pub(super) watch: &'a mut Option<Box<Watch>>,
    pub(super) path: &'a mut IpPath,
    pub(super) pool: &'a mut PacketPool,
}

impl Output for Out<'_> {
    #[inline]
    fn room(&self) -> usize {
        self.path.room()
    }

    fn path_mtu(&mut self, flow: &FlowKey) -> u16 {
        // No way there: what is sent will be dropped, so any size does; RFC 9293's default is the careful one.
        let mtu = self.path.path_mtu(self.now_us, flow.domain.0, flow.remote.addr).unwrap_or(MTU_DEFAULT);
        u16::try_from(mtu).unwrap_or(u16::MAX)
    }

    #[inline]
    fn send(
        &mut self,
        flow: &FlowKey,
        header: &SegmentHeader,
        ip: IpFields,
        payload_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let out = OutFlow { domain: flow.domain.0, src: flow.local.addr, dst: flow.remote.addr, ip };
        // A drop is counted by the path; to TCP it is a loss like any other.
        if let Err(reason) = self.path.tcp(self.now_us, self.pool, out, header, payload_len, fill)
            && let Some(watch) = self.watch
            && watch.is_active()
        {
            watch.unsent(self.path, flow, header, payload_len, reason);
        }
    }
}

/// Borrows the fields that make up TCP's way out, leaving the others free.
macro_rules! out {
    ($worker:expr) => {
        super::packets::Out {
            now_us: $worker.now.as_micros(),
            watch: &mut $worker.watch,
            path: &mut $worker.path,
            pool: &mut $worker.pool,
        }
    };
}
pub(super) use out;

impl Worker {
    /// Devices and other workers -> IP input.
    pub(super) fn receive(&mut self) -> bool {
        let now_us = self.now.as_micros();
        let mut worked = false;
        for inbox in &mut self.handover_in {
            for _ in 0..self.tape.find_waiting("batches of packets", || inbox.available()) {
                let Some(mut batch) = inbox.take() else { break };
                worked = true;
                match self.watch.as_deref_mut().filter(|watch| watch.is_active()) {
                    None => {
                        self.path.input_handed_over(now_us, &mut batch, &mut self.pool, &mut self.received)
                    }
                    Some(watch) => watch.input_handed_over(
                        now_us,
                        &mut self.path,
                        &mut batch,
                        &mut self.pool,
                        &mut self.received,
                    ),
                }
                inbox.recycle(batch);
            }
        }
        for port in &mut self.ports {
            let count = self.tape.find(|| {
                port.queue.receive(now_us, &mut self.pool, &mut self.rx_packets, self.config.rx_burst_max)
            });
            if self.tape.is_replaying() {
                self.rx_packets.extend((0..count).filter_map(|_| {
                    let data = self.tape.next_packet()?;
                    let mut packet = self.pool.take();
                    packet.extend(&data);
                    Some(packet)
                }));
            }
            if count == 0 {
                continue;
            }
            worked = true;
            self.figures.rx_packets += count as u64;
            self.measured.rx_vectors.record(count as u64);
            self.tape.note_packets(self.rx_packets.iter().map(hoststack_net::Packet::data));
            if let Some(digest) = &mut self.digest {
                digest.packets(now_us, self.rx_packets.iter().map(hoststack_net::Packet::data));
            }
            let (interface, packets) = (port.interface, &mut self.rx_packets);
            match self.watch.as_deref_mut().filter(|watch| watch.is_active()) {
                None => self.path.input(now_us, interface, packets, &mut self.pool, &mut self.received),
                Some(watch) => watch.input(
                    now_us,
                    interface,
                    &mut self.path,
                    packets,
                    &mut self.pool,
                    &mut self.received,
                ),
            }
        }
        for (place, handover) in self.received.handovers.drain(..).enumerate() {
            let target = handover.worker as usize;
            match self.handover_out.get_mut(target).and_then(Option::as_mut) {
                Some(outbox) if outbox.waiting() < self.config.rx_burst_max * 4 => {
                    self.figures.handed_over += 1;
                    outbox.push(handover);
                }
                // The one packet drop that a full ring causes.
                _ => {
                    self.figures.handover_dropped += 1;
                    if let Some(times) = self.warnings.admit("hand-over ring", self.now) {
                        tracing::warn!(limit = "hand-over ring", worker = %self.id, times, "a limit was hit");
                    }
                    if let Some(watch) = &mut self.watch {
                        watch.handover_lost(place);
                    }
                    self.pool.give(handover.packet);
                }
            }
        }
        self.path.take_events(&mut self.net_events);
        for event in self.net_events.drain(..) {
            self.reports.push(Report::Net(event));
        }
        worked
    }

    /// TCP segments -> connections, half-opens, listeners.
    pub(super) fn tcp_input(&mut self) -> bool {
        if self.received.segments.is_empty() && self.received.icmp_errors.is_empty() {
            return false;
        }
        let mut segments = std::mem::take(&mut self.received.segments);
        if self.watch.is_some() {
            self.watched_segments(&mut segments);
        }
        for segment in segments.drain(..) {
            self.input_one(segment);
        }
        self.received.segments = segments;
        let mut errors = std::mem::take(&mut self.received.icmp_errors);
        for (place, error) in errors.drain(..).enumerate() {
            self.watched_error(place, &error);
        }
        self.received.icmp_errors = errors;
        self.after_transport();
        true
    }

    pub(super) fn input_one(&mut self, rx: RxSegment) {
        let flow = FlowKey {
            local: Endpoint::new(rx.dst, rx.dst_port),
            remote: Endpoint::new(rx.src, rx.src_port),
            domain: DomainId(rx.domain),
            protocol: Protocol::Tcp,
        };
        let disposition = match Segment::parse(rx.tcp_bytes()) {
            Ok(segment) => self.transports.tcp.input(
                self.now,
                flow,
                rx.hash,
                &Segment { ecn: rx.ecn, ..segment },
                &mut self.sessions,
                &mut out!(self),
                &mut self.events,
                &mut self.half_open_segments,
            ),
            Err(_) => {
                self.transports.tcp.count_malformed();
                Disposition::Done
            }
        };
        match disposition {
            Disposition::Done => self.pool.give(rx.packet),
            Disposition::Park(half_open) if self.parked.len() < self.config.parked_max => {
                self.figures.parked += 1;
                self.parked.push((half_open, rx));
            }
            Disposition::Park(_) => {
                self.figures.parked_dropped += 1;
                self.warn_limit("parked_max");
                self.pool.give(rx.packet);
            }
        }
    }

    pub(super) fn input_error(&mut self, error: &hoststack_net::RxIcmpError) {
        let flow = FlowKey {
            local: Endpoint::new(error.local, error.local_port),
            remote: Endpoint::new(error.remote, error.remote_port),
            domain: DomainId(error.domain),
            protocol: Protocol::Tcp,
        };
        let said = icmp_error(error);
        let is_ours = self.transports.tcp.on_icmp_error(
            self.now,
            flow,
            error.hash,
            error.seq,
            said,
            &mut self.sessions,
            &mut out!(self),
            &mut self.events,
            &mut self.half_open_errors,
        );
        // Only what TCP believes teaches a path MTU (RFC 5927 §7): later connections to the same host start with it.
        if is_ours && matches!(said, hoststack_tcp::IcmpError::PacketTooBig { .. }) {
            self.path.learn_path_mtu(self.now.as_micros(), error.domain, error.remote, error.mtu);
        }
    }

    /// Gives the segments that waited for a hand-over to TCP again, in order of arrival.
    pub(super) fn unpark(&mut self, half_open: HalfOpenId) {
        if self.parked.is_empty() {
            return;
        }
        let mut kept = Vec::with_capacity(self.parked.len());
        for (id, rx) in std::mem::take(&mut self.parked) {
            if id != half_open {
                kept.push((id, rx));
                continue;
            }
            if canary::has(Bug::SegmentLostInHandOver) {
                continue;
            }
            self.figures.unparked += 1;
            self.watched_unpark(rx);
        }
        // A segment may have been parked again for another half-open of the same flow: keep it behind.
        kept.append(&mut self.parked);
        self.parked = kept;
        self.after_transport();
    }

    /// What transports recorded -> session layer and main.
    pub(super) fn after_transport(&mut self) {
        for segment in self.half_open_segments.drain(..) {
            self.reports.push(Report::HalfOpenSegment(segment));
        }
        for error in self.half_open_errors.drain(..) {
            self.reports.push(Report::HalfOpenError(error));
        }
        // None of what follows records another.
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            if let TransportEvent::FlowGone { flow } = event {
                self.reports.push(Report::FlowGone(flow));
            } else {
                self.on_transport_event(&event);
                if let TransportEvent::Accepted { session } = event
                    && let Some(deadline) = self.sessions.connect_deadline(session)
                {
                    // It has stages to go through.
                    self.connect_timers.insert(deadline, session);
                }
            }
        }
        self.events = events;
        self.note_stage_turns();
    }

    /// Sockets of the host that are ready.
    pub(super) fn poll_kernel(&mut self) -> bool {
        let burst = self.config.rx_burst_max;
        let worked = self.transports.kernel.poll(self.now, burst, &mut self.sessions, &mut self.events);
        if worked {
            self.after_transport();
        }
        worked
    }

    /// What other workers' apps send to apps here, without a protocol.
    pub(super) fn local_input(&mut self) -> bool {
        let mut worked = false;
        for inbox in &mut self.local_in {
            for _ in 0..self.tape.find_waiting("batches of local messages", || inbox.available()) {
                let Some(mut batch) = inbox.take() else { break };
                worked = true;
                for message in batch.drain(..) {
                    self.transports.local.on_message(self.now, message, &mut self.sessions, &mut self.events);
                }
                inbox.recycle(batch);
            }
        }
        worked |= self.transports.local.poll(self.now, &mut self.sessions, &mut self.events);
        if worked {
            self.after_transport();
        }
        worked
    }

    /// TCP's timers, apps' timers, deadlines of connects whose ticket is here.
    pub(super) fn poll_timers(&mut self) -> bool {
        let mut worked = false;
        if self.transports.tcp.next_deadline().is_some_and(|deadline| deadline <= self.now) {
            self.transports.tcp.poll(self.now, &mut self.sessions, &mut out!(self), &mut self.events);
            self.after_transport();
            worked = true;
        }
        if self.connect_timers.next_deadline().is_some_and(|deadline| deadline <= self.now) {
            let mut fired = std::mem::take(&mut self.fired_connects);
            self.connect_timers.advance(self.now, &mut fired);
            for (_, session) in fired.drain(..) {
                if self.sessions.connect_deadline(session).is_some_and(|deadline| deadline <= self.now) {
                    self.fail_establishing(session, ConnectFailure::TimedOut);
                    worked = true;
                }
            }
            self.fired_connects = fired;
        }
        worked | self.fire_app_timers()
    }

    /// Decides that an unannounced outbound session failed, and drops its connection.
    pub(super) fn fail_establishing(
        &mut self,
        session: hoststack_transport::SessionId,
        failure: ConnectFailure,
    ) {
        if let Some(connection) = self.sessions.fail_establishing(session, failure) {
            self.ask(session, connection, Ask::Reset);
        }
    }

    /// Asks the transport that carries a session for something.
    pub(super) fn ask(
        &mut self,
        session: hoststack_transport::SessionId,
        connection: hoststack_transport::ConnectionId,
        ask: Ask,
    ) {
        let Some(protocol) = self.sessions.get(session).map(|session| session.flow().protocol) else {
            return;
        };
        self.transports.ask(
            self.now,
            (protocol, connection),
            ask,
            &mut self.sessions,
            &mut out!(self),
            &mut self.events,
        );
        self.after_transport();
    }

    /// Sessions that have something to send -> segments.
    pub(super) fn transmit(&mut self) -> bool {
        /// Packets that sessions may send in a step however many answers wait before them.
        const GRANTED: usize = 16;
        let mut worked = false;
        for _ in 0..self.sessions.other_programmed_len() {
            let Some((id, connection)) = self.sessions.next_programmed(false) else { break };
            worked = true;
            if self.transmit_for(connection) == Transmitted::More {
                self.sessions.program_tx(id);
            }
        }
        self.path.grant_room(GRANTED);
        // Only those that wait now, and only while the devices take more: the rest keeps its place for the next step.
        for _ in 0..self.sessions.programmed_len() {
            if self.path.room() == 0 {
                break;
            }
            let Some((id, connection)) = self.sessions.next_programmed(true) else { break };
            worked = true;
            let done = self.transmit_for(connection);
            if done == Transmitted::More {
                self.sessions.program_tx(id);
            }
        }
        self.path.grant_room(0);
        if !self.events.is_empty() {
            self.after_transport();
        }
        self.transports.tcp.flush_acks(self.now, &mut self.sessions, &mut out!(self));
        worked
    }

    fn transmit_for(&mut self, connection: (Protocol, ConnectionId)) -> Transmitted {
        self.transports.transmit(
            self.now,
            connection,
            self.config.tx_burst_max,
            &mut self.sessions,
            &mut out!(self),
            &mut self.events,
        )
    }

    /// Packets -> devices, messages -> channels.
    pub(super) fn flush(&mut self) -> bool {
        let now_us = self.now.as_micros();
        let mut worked = false;
        for number in 0..self.ports.len() {
            let port = &mut self.ports[number];
            let interface = port.interface;
            if let Some(watch) = self.watch.as_deref_mut().filter(|watch| watch.is_active()) {
                watch.offered(&self.path, interface);
            }
            let tx = self.path.tx(port.interface);
            if tx.is_empty() {
                continue;
            }
            if let Some(digest) = &mut self.digest {
                digest.packets(now_us, tx.iter().map(hoststack_net::Packet::data));
            }
            let sent = self.tape.find(|| port.queue.transmit(now_us, &mut self.pool, tx));
            if self.tape.is_replaying() {
                tx.drain(..sent.min(tx.len())).for_each(|packet| self.pool.give(packet));
            }
            self.figures.tx_packets += sent as u64;
            worked |= sent > 0;
            if sent > 0 {
                self.measured.tx_vectors.record(sent as u64);
            }
            let mut is_stuck = false;
            if tx.is_empty() || sent > 0 {
                port.stuck_since = None;
            } else if self.now.since(*port.stuck_since.get_or_insert(self.now)) >= STUCK_MAX {
                // A device that takes nothing must not hold up the others: what waits for it is lost, as on a dead link.
                self.figures.device_stuck += tx.len() as u64;
                tracing::warn!(interface = %port.interface, packets = tx.len(), "a device takes nothing: its packets are dropped");
                self.pool.give_all(tx);
                port.stuck_since = None;
                is_stuck = true;
            }
            if self.watch.is_some() {
                self.watch_left(interface, sent, is_stuck);
            }
        }
        if let Some(watch) = &mut self.watch {
            watch.settle(now_us);
        }
        for outbox in self.handover_out.iter_mut().flatten() {
            flush(&mut self.tape, outbox);
        }
        for (worker, message) in self.transports.local.take_messages() {
            if let Some(outbox) = self.local_out.get_mut(worker.index()).and_then(Option::as_mut) {
                outbox.push(message);
            }
        }
        for outbox in self.local_out.iter_mut().flatten() {
            flush(&mut self.tape, outbox);
        }
        flush(&mut self.tape, &mut self.reports);
        // Main's thread has ended without saying so.
        self.stopped |= self.reports.is_cut();
        worked
    }

    /// Asks the transport to end connections because of what sessions' stages and layers found.
    pub(super) fn end_due_connections(&mut self) -> bool {
        let mut worked = false;
        while let Some((session, connection, ending)) = self.sessions.next_due_ending() {
            worked = true;
            match ending {
                Ending::HalfClose => self.ask(session, connection, Ask::HalfClose),
                Ending::Close => self.ask(session, connection, Ask::Close),
                Ending::Reset => self.ask(session, connection, Ask::Reset),
                Ending::SendThenReset => {
                    // What does not go out at once does not go out.
                    if let Some(protocol) = self.sessions.get(session).map(|session| session.flow().protocol)
                    {
                        let _ = self.transmit_for((protocol, connection));
                    }
                    self.ask(session, connection, Ask::Reset);
                }
            }
        }
        worked
    }

    /// Asks the transport for what an app asked for.
    pub(super) fn ask_transport(&mut self, request: &AppRequest, by: EndedBy) {
        let app_side = |worker: &Worker, id| worker.sessions.get(id).map(|session| session.app_side());
        let before = match *request {
            AppRequest::Close(id) | AppRequest::HalfClose(id) | AppRequest::Reset(id) => app_side(self, id),
            _ => None,
        };
        let (session, action, ask) = match *request {
            AppRequest::Close(session) => (session, self.sessions.app_closes(session), Ask::Close),
            AppRequest::HalfClose(session) => {
                (session, self.sessions.app_half_closes(session), Ask::HalfClose)
            }
            AppRequest::Reset(session) => (session, self.sessions.app_resets(session), Ask::Reset),
            AppRequest::Set(session, option) => {
                let connection = self.sessions.get(session).and_then(|session| session.connection());
                (session, connection.map_or(CloseAction::Nothing, CloseAction::Ask), Ask::Set(option))
            }
            _ => unreachable!("only session requests are asked of a transport"),
        };
        if let Some(before) = before {
            self.note_asked(session, before, by, matches!(ask, Ask::Reset));
        }
        if let CloseAction::Ask(connection) = action {
            self.ask(session, connection, ask);
        }
    }
}

/// What an ICMP error means to TCP.
fn icmp_error(error: &hoststack_net::RxIcmpError) -> hoststack_tcp::IcmpError {
    use hoststack_net::IcmpErrorKind as Net;
    use hoststack_tcp::IcmpError as Tcp;
    match error.kind {
        Net::NetUnreachable | Net::HostUnreachable | Net::TimeExceeded | Net::ParameterProblem => {
            Tcp::Unreachable
        }
        Net::PortUnreachable | Net::ProtocolUnreachable => Tcp::PortUnreachable,
        Net::Prohibited => Tcp::Prohibited,
        Net::PacketTooBig => {
            // RFC 1191 §5: an old router does not say; the IPv4 minimum that everyone forwards is always right.
            let mtu = error.mtu.unwrap_or(MTU_DEFAULT);
            Tcp::PacketTooBig { mtu: u16::try_from(mtu).unwrap_or(u16::MAX) }
        }
    }
}
