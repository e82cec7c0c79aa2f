//! A segment finds its flow, and each kind of flow its rules: RFC 9293 §3.10.7 by state, up to the synchronized ones,
//! which are `input`'s.

use super::*;

impl Engine {
    /// Takes a segment of `flow` in; `hash` is [`Engine::flow_hash`] of it, as net computed it.
    pub fn input<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        flow: FlowKey,
        hash: u64,
        segment: &Segment<'_>,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
        half_open_segments: &mut Vec<HalfOpenSegment>,
    ) -> Disposition {
        let hash = mix(hash, flow.domain);
        let target = self.find_flow(hash, &flow).map(|(_, target)| target);
        if let Some(FlowTarget::HalfOpen(key)) = target {
            let record = self.half_opens.get(key).copied();
            let HalfOpenFlow { id, iss, is_handing_over, .. } =
                record.unwrap_or_else(|| unreachable!("the flow table names a half-open that is gone"));
            if is_handing_over {
                return Disposition::Park(id);
            }
            self.shared.counters.segments_in += 1;
            if self.input_half_open(now, &flow, iss, segment, out) {
                if let Some(record) = self.half_opens.get_mut(key) {
                    record.is_handing_over = true;
                }
                half_open_segments.push(HalfOpenSegment {
                    half_open: id,
                    received: now,
                    header: segment.header,
                });
            }
            return Disposition::Done;
        }
        self.shared.counters.segments_in += 1;
        match target {
            Some(FlowTarget::Connection(key)) => self.input_connection(now, key, segment, layer, out, events),
            Some(FlowTarget::SynReceived(key)) => {
                self.input_syn_received(now, key, segment, layer, out, events)
            }
            Some(FlowTarget::TimeWait(key)) => self.input_time_wait(now, &flow, key, segment, out, events),
            Some(FlowTarget::HalfOpen(_)) | None => self.input_no_flow(now, &flow, segment, out),
        }
        Disposition::Done
    }

    fn input_connection<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        key: Key,
        segment: &Segment<'_>,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let connection = self
            .connections
            .get_mut(key)
            .unwrap_or_else(|| unreachable!("the flow table names a connection that is gone"));
        let fate = connection.on_segment(key, &mut self.shared, now, segment, layer, out, events);
        connection.arm(key, &mut self.shared);
        self.dispose(now, key, fate, layer, out, events);
    }

    /// SYN-SENT (RFC 9293 §3.10.7.3): whether main must see the segment.
    fn input_half_open<O: Output>(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        iss: SeqNum,
        segment: &Segment<'_>,
        out: &mut O,
    ) -> bool {
        let header = &segment.header;
        let flags = header.flags;
        // First, the ACK bit. Our SYN carried no data: SND.NXT is ISS+1.
        let has_ack = flags.has(Flags::ACK);
        if has_ack && header.ack != iss + 1 {
            if flags.has(Flags::RST) {
                self.shared.drops.count(DropReason::SynSentReset);
            } else {
                self.shared.drops.count(DropReason::SynSentBadAck);
                self.send_reset_for(now, flow, segment, out);
            }
            return false;
        }
        // Second, RST: "If the ACK was acceptable, then signal to the user 'error: connection reset'".
        if flags.has(Flags::RST) {
            if !has_ack {
                self.shared.drops.count(DropReason::SynSentReset);
            }
            return has_ack;
        }
        // Fourth, SYN.
        // Deviates: RFC 9293 §3.10.7.3 goes on to the text of a SYN-ACK. Only its header goes to main: the text is not
        // acknowledged, and the peer sends it again.
        if !flags.has(Flags::SYN) {
            self.shared.drops.count(DropReason::SynSentNoSyn);
            return false;
        }
        true
    }

    fn input_syn_received<L: SessionLayer, O: Output>(
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
        match record.judge(&segment.header, segment.len()) {
            SynReceivedVerdict::Establish => self.accept(now, key, segment, layer, out, events),
            SynReceivedVerdict::SynAckAgain => {
                shared.drops.count(DropReason::SynReceivedDuplicate);
                shared.counters.retransmitted_segments += 1;
                // The peer may not have seen the first: no sample of this handshake (Karn).
                record.is_sample = false;
                let header = record.syn_ack(now);
                send_bare(shared, &record.flow, &header, out);
            }
            SynReceivedVerdict::Ack(reason) => {
                shared.drops.count(reason);
                let header = record.ack(now);
                send_bare(shared, &record.flow, &header, out);
            }
            SynReceivedVerdict::Drop(reason) => shared.drops.count(reason),
            SynReceivedVerdict::Reset(reason) => {
                shared.drops.count(reason);
                let flow = record.flow;
                self.send_reset_for(now, &flow, segment, out);
            }
            SynReceivedVerdict::BackToListen(reason) => {
                debug_assert_eq!(State::SynReceived.after(StateEvent::RcvRst), State::Closed);
                shared.drops.count(reason);
                self.remove_syn_received(key);
            }
        }
    }

    /// The handshake of a passive open is complete: the record becomes a connection, if the session layer wants it.
    fn accept<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        key: Key,
        segment: &Segment<'_>,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(record) = self.syn_received.get(key).copied() else { return };
        let hash = self.table_hash(&record.flow);
        let listener = self.listeners.get(record.listener).map(|listener| (listener.id, listener.options));
        let Some((listener, options)) = listener else {
            unreachable!("unlisten removes the records of a listener with it")
        };
        let path_mtu = out.path_mtu(&record.flow);
        let no_session = SessionId(Key { slot: 0, generation: u32::MAX });
        let connection =
            Connection::from_syn_received(&record, options, no_session, now, path_mtu, &self.shared);
        let accepted = match self.connections.insert(connection) {
            Err(_) => Err(AcceptError::NoRoom),
            Ok(new) => layer
                .accept(listener, ConnectionId(new), &record.flow)
                .inspect_err(|_| {
                    self.connections.remove(new);
                })
                .map(|session| (new, session)),
        };
        match accepted {
            Ok((new, session)) => {
                self.drop_syn_received(key);
                let old = FlowTarget::SynReceived(key).word(hash);
                self.flows.replace(old, FlowTarget::Connection(new).word(hash));
                self.shared.counters.established_passive += 1;
                events.push(TransportEvent::Accepted { session });
                if let Some(connection) = self.connections.get_mut(new) {
                    connection.session = session;
                    connection.set_first_window(&segment.header);
                    connection.start_keepalive_timer();
                }
                // The rest of the segment: text and FIN (RFC 9293 §3.10.7.4, fifth: "continue processing").
                self.input_connection(now, new, segment, layer, out, events);
            }
            Err(error) => {
                self.shared.drops.count(match error {
                    AcceptError::NoListener => DropReason::AcceptNoListener,
                    AcceptError::NoRoom => DropReason::AcceptNoRoom,
                });
                self.remove_syn_received(key);
                self.send_reset_for(now, &record.flow, segment, out);
            }
        }
    }

    fn input_time_wait<O: Output>(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        key: Key,
        segment: &Segment<'_>,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(record) = self.time_waits.get(key).copied() else {
            unreachable!("the flow table names a TIME-WAIT record that is gone")
        };
        let mut verdict = record.judge(&segment.header, segment.payload.len());
        if verdict == TimeWaitVerdict::Reuse {
            if self.listeners.lookup(flow.domain, flow.local).is_some() {
                // RFC 9293 §3.6.1 (MAY-2), RFC 6191 (SHLD-4).
                // Deviates: RFC 9293 §3.6.1 (2) returns to TIME-WAIT when the SYN turns out to be an old duplicate. What is newer
                // than all that the old incarnation sent, by timestamp or sequence number, is none; its record is gone.
                self.shared.counters.time_wait_reused_in += 1;
                self.time_waits.remove(key);
                self.remove_flow(flow, FlowTarget::TimeWait(key));
                if record.is_active_open() {
                    events.push(TransportEvent::FlowGone { flow: *flow });
                }
                return self.input_listener(now, flow, segment, Some(record.snd_nxt), out);
            }
            verdict = TimeWaitVerdict::Ack;
        }
        match verdict {
            TimeWaitVerdict::AckAndRestart => {
                self.time_waits.restart(key, now + self.shared.config.time_wait)
            }
            TimeWaitVerdict::IgnoreReset => {
                return self.shared.drops.count(DropReason::TimeWaitReset);
            }
            TimeWaitVerdict::Drop => return self.shared.drops.count(DropReason::TimeWaitDuplicate),
            TimeWaitVerdict::Ack | TimeWaitVerdict::Reuse => {
                self.shared.drops.count(DropReason::TimeWaitDuplicate)
            }
        }
        let header = record.ack(now, &self.shared.secrets);
        send_bare(&mut self.shared, flow, &header, out);
    }

    fn input_no_flow<O: Output>(&mut self, now: Instant, flow: &FlowKey, segment: &Segment<'_>, out: &mut O) {
        if self.listeners.lookup(flow.domain, flow.local).is_some() {
            return self.input_listener(now, flow, segment, None, out);
        }
        // CLOSED (RFC 9293 §3.10.7.1).
        if segment.header.flags.has(Flags::RST) {
            self.shared.drops.count(DropReason::NoFlowReset);
        } else {
            self.shared.drops.count(DropReason::NoFlow);
            self.send_reset_for(now, flow, segment, out);
        }
    }

    /// LISTEN (RFC 9293 §3.10.7.2). `iss_after`: what the flow's previous incarnation had sent last.
    fn input_listener<O: Output>(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        segment: &Segment<'_>,
        iss_after: Option<SeqNum>,
        out: &mut O,
    ) {
        let header = &segment.header;
        let flags = header.flags;
        // First, RST; second, ACK; third, SYN.
        if flags.has(Flags::RST) {
            return self.shared.drops.count(DropReason::ListenReset);
        }
        if flags.has(Flags::ACK) {
            self.shared.drops.count(DropReason::ListenAck);
            return self.send_reset_for(now, flow, segment, out);
        }
        if !flags.has(Flags::SYN) {
            return self.shared.drops.count(DropReason::ListenNoSyn);
        }
        let Some(key) = self.listeners.lookup(flow.domain, flow.local) else { return };
        let Some(listener) = self.listeners.get_mut(key) else { return };
        if listener.syn_received >= listener.backlog {
            return self.shared.drops.count(DropReason::BacklogFull);
        }
        let mut iss = self.shared.secrets.isn(now, flow);
        if let Some(last) = iss_after
            && !iss.after(last)
        {
            // RFC 9293 §3.6.1 (MAY-2): larger than the largest sequence number of the previous incarnation.
            iss = last + 65_537;
        }
        let local_mss = local_mss(flow, out.path_mtu(flow), listener.options.mss_max);
        // Deviates: RFC 9293 §3.10.7.2 (third) queues text and FIN that come with a SYN. Here they are neither kept nor
        // acknowledged, so that a SYN costs one record of fixed size: the peer sends them again.
        let mut record = SynReceived::new(
            now,
            *flow,
            header,
            key,
            &listener.options,
            iss,
            local_mss,
            &self.shared.secrets,
        );
        record.retransmit_at = now + self.shared.config.rto_initial;
        let Ok(new) = self.syn_received.insert(record) else {
            return self.shared.drops.count(DropReason::SynReceivedFull);
        };
        listener.syn_received += 1;
        let hash = self.table_hash(flow);
        self.flows.insert(FlowTarget::SynReceived(new).word(hash));
        self.shared.counters.passive_opens += 1;
        if let Some(record) = self.syn_received.get_mut(new) {
            if self.syn_acks.back().is_none_or(|last| last.0 <= record.retransmit_at) {
                record.wheel.note_queued(record.retransmit_at);
                self.syn_acks.push_back((record.retransmit_at, new));
            } else {
                record.wheel.arm(record.retransmit_at, TimerOwner::SynReceived(new), &mut self.shared.wheel);
            }
            let header = record.syn_ack(now);
            send_bare(&mut self.shared, flow, &header, out);
        }
    }

    /// A reset for a segment that has no connection here, within the step's limit.
    fn send_reset_for<O: Output>(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        segment: &Segment<'_>,
        out: &mut O,
    ) {
        if self.shared.may_reset(now) {
            send_bare(&mut self.shared, flow, &reset_for(&segment.header, segment.len()), out);
        } else {
            self.shared.drops.count(DropReason::ResetLimited);
        }
    }

    /// An ICMP error that quotes a segment of `flow` with sequence number `seq`; `hash` as for [`Engine::input`]. Says
    /// whether it quotes something that is in flight, so that it may be believed (RFC 5927 §4.1).
    pub fn on_icmp_error<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        flow: FlowKey,
        hash: u64,
        seq: SeqNum,
        error: IcmpError,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
        half_open_errors: &mut Vec<HalfOpenError>,
    ) -> bool {
        let _ = (&out, &events);
        let hash = mix(hash, flow.domain);
        let target = self.find_flow(hash, &flow).map(|(_, target)| target);
        // RFC 9293 §3.9.2.2 (MUST-54): to the connection that it is about.
        let in_flight = match target {
            Some(FlowTarget::HalfOpen(key)) => {
                let Some(&HalfOpenFlow { id, iss, .. }) = self.half_opens.get(key) else { return false };
                if seq == iss {
                    half_open_errors.push(HalfOpenError { half_open: id, error });
                }
                seq == iss
            }
            Some(FlowTarget::Connection(key)) => {
                let Some(connection) = self.connections.get_mut(key) else { return false };
                let is_ours = connection.on_icmp_error(now, seq, error, layer, &mut self.shared);
                connection.arm(key, &mut self.shared);
                is_ours
            }
            // Nothing of theirs is worth acting upon, and nothing was checked.
            Some(FlowTarget::SynReceived(_) | FlowTarget::TimeWait(_)) => return false,
            None => {
                self.shared.drops.count(DropReason::IcmpNoFlow);
                return false;
            }
        };
        if !in_flight {
            self.shared.drops.count(DropReason::IcmpOutOfWindow);
        }
        in_flight
    }
}
