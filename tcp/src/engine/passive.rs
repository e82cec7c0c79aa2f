//! Passive opens: LISTEN and SYN-RECEIVED (RFC 9293 §3.10.7.2, §3.10.7.4), Fast Open's short cut from the one to the app
//! (RFC 7413 §4.2.2), and what a listener does when there is no room (RFC 4987).
//!
//! A fast open is a connection in ESTABLISHED, which its app reads and writes, and beside it the SYN-RECEIVED record of
//! its handshake: the flow stays the record's, which repeats the SYN-ACK and judges what comes, until the ACK of our SYN
//! makes the flow the connection's.

use super::*;
use crate::config::SynCookies;
use crate::fast_open::CookieVerdict;
use crate::syn_cookies::{self, CookieJar};
use crate::syn_received::{Acceptable, GivesCookie};

/// How long a fast open that was reset counts against its listener's limit: whoever can make a victim reset our SYN-ACKs
/// must not get around the limit that way (RFC 7413 §5.1). About as long as its SYN-ACKs would have been repeated.
const RESET_COUNTS_FOR: hoststack_transport::Duration = hoststack_transport::Duration::from_secs(60);
/// SYN-ACK retransmissions when a backlog is half full: room is made sooner for those who answer at once.
const RETRIES_UNDER_PRESSURE: u8 = 2;
/// So many handshakes are no pressure, however small the backlog: as in Linux.
const SYN_RECEIVED_UNPRESSED: u32 = 4;

/// What passive opens share, besides their records.
pub(super) struct Passive {
    pub(super) keys: CookieKeys,
    jar: CookieJar,
    /// No SYN cookie that is still good was sent after that: acknowledgments for listeners are not looked at as such.
    cookies_until: Instant,
    /// Fast opens that wait for their ACK.
    pub(super) fast_opens: usize,
    /// Listeners of fast opens that were reset, and until when these count.
    resets: VecDeque<(Instant, Key)>,
}

impl Passive {
    pub(super) fn new(config: &TcpConfig, secrets: &Secrets) -> Passive {
        Passive {
            keys: CookieKeys::new(config, secrets),
            jar: CookieJar::new(secrets),
            cookies_until: Instant::ZERO,
            fast_opens: 0,
            resets: VecDeque::new(),
        }
    }
}

impl Engine {
    pub(super) fn input_syn_received<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        key: Key,
        segment: &Segment<'_>,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let record = self
            .syn_received
            .get_mut(key)
            .unwrap_or_else(|| unreachable!("the flow table names a record that is gone"));
        let shared = &mut self.shared;
        let opened = record.connection;
        let connection = opened.and_then(|opened| self.connections.get_mut(opened));
        let acceptable = match &connection {
            None => record.acceptable(),
            Some(connection) => Acceptable {
                rcv_nxt: connection.rcv.nxt,
                rcv_wnd: connection.rcv_wnd(),
                snd_nxt: connection.snd.nxt,
            },
        };
        match (record.judge(&segment.header, segment.len(), &acceptable, &shared.config), opened) {
            (SynReceivedVerdict::Establish, None) => {
                let record = *record;
                self.accept(now, record, Some(key), segment, layer, out, events);
            }
            (SynReceivedVerdict::Establish, Some(opened)) => {
                self.complete_fast_open(now, key, opened, segment, layer, out, events);
            }
            (SynReceivedVerdict::SynAckAgain, _) => {
                shared.drops.count(DropReason::SynReceivedDuplicate);
                shared.counters.retransmitted_segments += 1;
                // The peer may not have seen the first: no sample of this handshake (Karn).
                record.is_sample = false;
                let header = record.syn_ack(now, &self.passive.keys, &shared.config);
                send_bare(shared, &record.flow, &header, record.ip, out);
            }
            (SynReceivedVerdict::Ack(reason), opened) => {
                shared.drops.count(reason);
                if let (Some(connection), Some(opened)) = (connection, opened) {
                    connection.program_ack(opened, shared);
                } else {
                    let header = record.ack(now);
                    send_bare(shared, &record.flow, &header, record.ip, out);
                }
            }
            (SynReceivedVerdict::Drop(reason), _) => shared.drops.count(reason),
            (SynReceivedVerdict::Reset(reason), opened) => {
                let flow = record.flow;
                if opened.is_none()
                    && let Ok(record) = self.take_cookie(now, &flow, &segment.header)
                {
                    // The same SYN had found no room before: the peer took that answer, and the record is of no use.
                    return self.accept(now, record, Some(key), segment, layer, out, events);
                }
                self.shared.drops.count(reason);
                self.send_reset_for(now, &flow, segment, out);
            }
            (SynReceivedVerdict::BackToListen(reason), None) => {
                debug_assert_eq!(State::SynReceived.after(StateEvent::RcvRst), State::Closed);
                shared.drops.count(reason);
                self.remove_syn_received(key);
            }
            (SynReceivedVerdict::BackToListen(reason), Some(opened)) => {
                shared.drops.count(reason);
                shared.counters.resets_in += 1;
                let listener = record.listener;
                if let Some(listener) = self.listeners.get_mut(listener) {
                    listener.fast_opens += 1;
                }
                self.passive.resets.push_back((now + RESET_COUNTS_FOR, listener));
                self.close_connection(opened, CloseReason::PeerReset, events);
            }
        }
    }

    /// The handshake of a passive open is complete: the record becomes a connection, if the session layer wants it.
    /// `key` is that of the flow's record, if it has one: what a SYN cookie kept needs none.
    fn accept<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        record: SynReceived,
        key: Option<Key>,
        segment: &Segment<'_>,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let hash = self.table_hash(&record.flow);
        match self.open_accepted(now, &record, layer, out, events) {
            Ok(new) => {
                let word = FlowTarget::Connection(new).word(hash);
                match key {
                    Some(key) => {
                        self.drop_syn_received(key);
                        self.flows.replace(FlowTarget::SynReceived(key).word(hash), word);
                    }
                    None => self.flows.insert(word),
                }
                if let Some(connection) = self.connections.get_mut(new) {
                    connection.set_first_window(&segment.header);
                    if !record.is_sample && record.timestamps {
                        // Its time-out is that of a handshake in trouble until the echo tells better.
                        connection.measure_handshake(now, record.sent, &segment.header, &mut self.shared);
                    }
                    connection.start_keepalive_timer();
                }
                // The rest of the segment: text and FIN (RFC 9293 §3.10.7.4, fifth: "continue processing").
                self.input_connection(now, new, segment, layer, out, events);
            }
            Err(reason) => {
                self.shared.drops.count(reason);
                if let Some(key) = key {
                    self.remove_syn_received(key);
                }
                self.send_reset_for(now, &record.flow, segment, out);
            }
        }
    }

    /// Makes a record a connection, and has the session layer accept it. The flow is the caller's.
    fn open_accepted<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        record: &SynReceived,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) -> Result<Key, DropReason> {
        let Some(listener) = self.listeners.get(record.listener) else {
            unreachable!("unlisten removes the records of a listener with it")
        };
        let path_mtu = out.path_mtu(&record.flow);
        let no_session = SessionId(Key { slot: 0, generation: u32::MAX });
        let (options, shared) = (&listener.options, &self.shared);
        let make = |_| Connection::from_syn_received(record, options, no_session, now, path_mtu, shared);
        let new = self.connections.insert_with(make).map_err(|_| DropReason::AcceptNoRoom)?;
        match layer.accept(listener.id, ConnectionId(new), &record.flow) {
            Ok(session) => {
                if let Some(connection) = self.connections.get_mut(new) {
                    connection.session = session;
                    self.shared.count_handshake_rtt(connection);
                }
                self.shared.counters.established_passive += 1;
                events.push(TransportEvent::Accepted { session });
                Ok(new)
            }
            Err(error) => {
                self.connections.discard(new);
                Err(match error {
                    AcceptError::NoListener => DropReason::AcceptNoListener,
                    AcceptError::NoRoom => DropReason::AcceptNoRoom,
                })
            }
        }
    }

    /// LISTEN (RFC 9293 §3.10.7.2). `iss_after`: what the flow's previous incarnation had sent last.
    pub(super) fn input_listener<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        segment: &Segment<'_>,
        iss_after: Option<SeqNum>,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let header = &segment.header;
        let flags = header.flags;
        // First, RST; second, ACK; third, SYN.
        if flags.has(Flags::RST) {
            return self.shared.drops.count(DropReason::ListenReset);
        }
        if flags.has(Flags::ACK) {
            return self.input_listener_ack(now, flow, segment, layer, out, events);
        }
        if !flags.has(Flags::SYN) {
            return self.shared.drops.count(DropReason::ListenNoSyn);
        }
        if flags.has(Flags::FIN) && self.shared.config.drop_syn_fin {
            return self.shared.drops.count(DropReason::SynFin);
        }
        let Some(key) = self.listeners.lookup(flow.domain, flow.local) else { return };
        self.forget_old_resets(now);
        let Some(listener) = self.listeners.get_mut(key) else { return };
        let Shared { config, secrets, counters, .. } = &mut self.shared;
        let mut iss = secrets.isn(now, flow);
        if let Some(last) = iss_after
            && !iss.after(last)
        {
            // RFC 9293 §3.6.1 (MAY-2): larger than the largest sequence number of the previous incarnation.
            iss = last + 65_537;
        }
        let local_mss = local_mss(flow, out.path_mtu(flow), listener.options.mss_max);
        let mut record =
            SynReceived::new(now, *flow, header, key, &listener.options, iss, local_mss, secrets, config);
        record.retransmit_at = now + config.rto_initial;
        let mut is_fast_open = false;
        let needs_cookie = !listener.options.fast_open_no_cookie;
        if listener.options.fast_open && !needs_cookie {
            // Linux's TFO_SERVER_COOKIE_NOT_REQD: whatever the option says.
            is_fast_open = (!segment.payload.is_empty() || header.options.fast_open.is_some())
                && listener.fast_opens < config.fast_open_pending_max;
        } else if listener.options.fast_open
            && let Some(cookie) = &header.options.fast_open
        {
            let gives = if cookie.is_experimental() { GivesCookie::Experimental } else { GivesCookie::Yes };
            let verdict =
                if cookie.is_request() { None } else { Some(self.passive.keys.judge(flow, cookie)) };
            // RFC 7413 §4.1.2: whoever has no good cookie is given one.
            record.gives_cookie = if verdict == Some(CookieVerdict::Valid) { GivesCookie::No } else { gives };
            match verdict {
                None => {}
                Some(CookieVerdict::Invalid) => counters.fast_open_cookies_bad += 1,
                // RFC 7413 §4.2.2 (2): "... PendingFastOpenRequests ... fall back to a regular 3WHS".
                Some(_) if listener.fast_opens >= config.fast_open_pending_max => {
                    counters.fast_opens_put_off += 1;
                }
                Some(_) => is_fast_open = true,
            }
        }
        if config.syn_cookies == SynCookies::Always || listener.syn_received >= listener.backlog {
            return self.answer_statelessly(now, record, DropReason::BacklogFull, out);
        }
        let Ok(new) = self.syn_received.insert(record) else {
            return self.answer_statelessly(now, record, DropReason::SynReceivedFull, out);
        };
        listener.syn_received += 1;
        let hash = self.table_hash(flow);
        self.flows.insert(FlowTarget::SynReceived(new).word(hash));
        self.shared.counters.passive_opens += 1;
        self.shared.counters.fast_open_cookies_out += u64::from(record.gives_cookie != GivesCookie::No);
        if is_fast_open {
            self.open_fast(now, new, segment.payload, layer, out, events);
        }
        if let Some(record) = self.syn_received.get_mut(new) {
            if self.syn_acks.back().is_none_or(|last| last.0 <= record.retransmit_at) {
                record.wheel.note_queued(record.retransmit_at);
                self.syn_acks.push_back((record.retransmit_at, new));
            } else {
                record.wheel.arm(record.retransmit_at, TimerOwner::SynReceived(new), &mut self.shared.wheel);
            }
            let header = record.syn_ack(now, &self.passive.keys, &self.shared.config);
            let ip = record.ip;
            send_bare(&mut self.shared, flow, &header, ip, out);
        }
    }

    /// A SYN came with a good cookie: the app gets the connection now, and the SYN's data with it (RFC 7413 §4.2.2 (3)).
    /// If it cannot, the handshake goes on as if there had been no data.
    fn open_fast<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        key: Key,
        data: &[u8],
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(record) = self.syn_received.get(key).copied() else { return };
        // The round trip is measured when the ACK comes.
        let unmeasured = SynReceived { is_sample: false, ..record };
        let new = match self.open_accepted(now, &unmeasured, layer, out, events) {
            Ok(new) => new,
            Err(reason) => return self.shared.drops.count(reason),
        };
        let (Some(record), Some(connection)) =
            (self.syn_received.get_mut(key), self.connections.get_mut(new))
        else {
            return;
        };
        record.connection = Some(new);
        self.passive.fast_opens += 1;
        if let Some(listener) = self.listeners.get_mut(record.listener) {
            listener.fast_opens += 1;
        }
        self.shared.counters.fast_opens_in += 1;
        let session = connection.session;
        let inside = &data[..data.len().min(usize::from(record.wnd))];
        let stored = layer.rx_store(session, 0, inside);
        if stored.refused > 0 {
            self.shared.drops.count(DropReason::ReceiveFull);
        }
        // Cannot cut: it lies inside the SYN-ACK's window.
        record.syn_data = stored.advanced as u16;
        record.wnd = record.wnd.min(u16::try_from(layer.rx_room(session)).unwrap_or(u16::MAX));
        connection.take_syn_data(record, data.len());
        if stored.advanced > 0 {
            self.shared.counters.bytes_in += u64::from(stored.advanced);
            events.push(TransportEvent::Received { session });
        }
    }

    /// The ACK of our SYN came for a connection that the app has already: the flow is the connection's now.
    fn complete_fast_open<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        key: Key,
        opened: Key,
        segment: &Segment<'_>,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(record) = self.drop_syn_received(key) else { return };
        let hash = self.table_hash(&record.flow);
        self.flows
            .replace(FlowTarget::SynReceived(key).word(hash), FlowTarget::Connection(opened).word(hash));
        if let Some(connection) = self.connections.get_mut(opened) {
            connection.set_first_window(&segment.header);
            connection.start_keepalive_timer();
            if record.is_sample {
                let rtt_us = u32::try_from(now.micros_since(record.sent)).unwrap_or(u32::MAX);
                connection.rtt.sample(rtt_us);
                self.shared.rtts.record(rtt_us.into());
            }
        }
        self.input_connection(now, opened, segment, layer, out, events);
    }

    /// There is no room for a SYN: it is answered with a SYN cookie, or dropped for `reason`. The record goes no further.
    fn answer_statelessly<O: Output>(
        &mut self,
        now: Instant,
        mut record: SynReceived,
        reason: DropReason,
        out: &mut O,
    ) {
        let Shared { config, counters, drops, .. } = &mut self.shared;
        if config.syn_cookies == SynCookies::Never {
            return drops.count(reason);
        }
        // RFC 9293 §3.7.1 (MUST-15).
        let mss = record.peer_mss.unwrap_or(if record.flow.remote.addr.is_ipv4() { 536 } else { 1220 });
        let Some(cookie) = self.passive.jar.cookie(now, &record.flow, record.irs, mss, record.offer()) else {
            return drops.count(DropReason::SynCookieImpossible);
        };
        self.passive.cookies_until = now.plus_micros(syn_cookies::VALID_US);
        counters.syn_cookies_out += 1;
        counters.fast_open_cookies_out += u64::from(record.gives_cookie != GivesCookie::No);
        // Deviates: RFC 9293 §3.6.1 (MAY-2) has the ISS above what a previous incarnation sent; a cookie is what it is.
        record.iss = cookie;
        // What the timestamp cannot say is not agreed on.
        record.ecn &= record.timestamps;
        let header = record.cookie_syn_ack(now, &self.passive.keys, config);
        let (flow, ip) = (record.flow, record.ip);
        send_bare(&mut self.shared, &flow, &header, ip, out);
    }

    /// An acknowledgment for a listener: of a SYN cookie, perhaps.
    fn input_listener_ack<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        segment: &Segment<'_>,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        match self.take_cookie(now, flow, &segment.header) {
            Ok(record) => {
                self.shared.counters.passive_opens += 1;
                self.accept(now, record, None, segment, layer, out, events);
            }
            Err(DropReason::ListenAck) => {
                self.shared.drops.count(DropReason::ListenAck);
                self.send_reset_for(now, flow, segment, out);
            }
            // Deviates: RFC 9293 §3.10.7.2 answers with a reset, but this may be of a peer whose ACK and first data were
            // lost or overtaken: they come again, and prove the cookie.
            Err(reason) => self.shared.drops.count(reason),
        }
    }

    /// What was known of a SYN, if `ack` brings its cookie, for the first time; [`DropReason::ListenAck`] if it cannot.
    fn take_cookie(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        ack: &SegmentHeader,
    ) -> Result<SynReceived, DropReason> {
        let found = self.listeners.lookup(flow.domain, flow.local);
        let listener = found.and_then(|key| Some((key, self.listeners.get(key)?.options)));
        let Some((key, options)) = listener else { return Err(DropReason::ListenAck) };
        if now >= self.passive.cookies_until || ack.flags.has(Flags::SYN) {
            return Err(DropReason::ListenAck);
        }
        let echo = ack.options.timestamps.filter(|_| options.timestamps).map(|ts| ts.ecr);
        let (iss, irs) = (ack.ack - 1, ack.seq - 1);
        let proof = self.passive.jar.check(now, flow, iss, irs, echo).ok_or(DropReason::SynCookieBad)?;
        if !self.passive.jar.spend(flow, iss, irs) {
            return Err(DropReason::SynCookieSpent);
        }
        let Shared { secrets, config, counters, .. } = &mut self.shared;
        counters.syn_cookies_in += 1;
        Ok(SynReceived::from_cookie(now, *flow, ack, &proof, key, &options, secrets, config))
    }

    fn forget_old_resets(&mut self, now: Instant) {
        while let Some(&(until, listener)) = self.passive.resets.front()
            && until <= now
        {
            self.passive.resets.pop_front();
            if let Some(listener) = self.listeners.get_mut(listener) {
                listener.fast_opens -= 1;
            }
        }
    }

    pub(super) fn on_syn_received_timer<O: Output>(
        &mut self,
        now: Instant,
        at: Instant,
        key: Key,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(record) = self.syn_received.get_mut(key) else { return };
        if !record.wheel.fired(at) {
            return;
        }
        let shared = &mut self.shared;
        if record.retransmit_at <= now {
            let listener = self.listeners.get(record.listener);
            let is_pressed =
                listener.is_some_and(|l| l.syn_received > (l.backlog / 2).max(SYN_RECEIVED_UNPRESSED));
            let retries =
                if is_pressed { record.retries.min(RETRIES_UNDER_PRESSURE) } else { record.retries };
            if record.retransmits >= retries {
                match record.connection {
                    Some(opened) => self.close_connection(opened, CloseReason::TimedOut, events),
                    None => {
                        self.remove_syn_received(key);
                    }
                }
                return;
            }
            record.retransmits += 1;
            record.is_sample = false;
            let back_off = shared.config.rto_initial * (1 << record.retransmits.min(16));
            record.retransmit_at = now + back_off.min(shared.config.rto_max);
            shared.counters.rtos += 1;
            shared.counters.retransmitted_segments += 1;
            let header = record.syn_ack(now, &self.passive.keys, &shared.config);
            send_bare(shared, &record.flow, &header, record.ip, out);
        }
        record.wheel.arm(record.retransmit_at, TimerOwner::SynReceived(key), &mut shared.wheel);
    }
}
