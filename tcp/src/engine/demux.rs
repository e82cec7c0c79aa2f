//! A segment finds its flow, and each kind of flow its rules: RFC 9293 §3.10.7 by state, up to the synchronized ones,
//! which are `input`'s.

use super::*;
use crate::config::Blackhole;

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
            let HalfOpenFlow { id, iss, data_len, is_handing_over, .. } =
                record.unwrap_or_else(|| unreachable!("the flow table names a half-open that is gone"));
            if is_handing_over {
                return Disposition::Park(id);
            }
            self.shared.counters.segments_in += 1;
            if self.input_half_open(now, &flow, iss, data_len, segment, out) {
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
            Some(FlowTarget::TimeWait(key)) => {
                self.input_time_wait(now, &flow, key, segment, layer, out, events)
            }
            Some(FlowTarget::HalfOpen(_)) | None => {
                self.input_no_flow(now, &flow, segment, layer, out, events);
            }
        }
        Disposition::Done
    }

    pub(super) fn input_connection<L: SessionLayer, O: Output>(
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
        data_len: u16,
        segment: &Segment<'_>,
        out: &mut O,
    ) -> bool {
        let header = &segment.header;
        let flags = header.flags;
        // First, the ACK bit. SND.NXT is ISS+1 and what data the SYN carried; a SYN-ACK may acknowledge all of it, a
        // part, or none (RFC 7413 §4.2.1).
        let has_ack = flags.has(Flags::ACK);
        let snd_nxt = iss + 1 + u32::from(data_len);
        if has_ack && !(header.ack.after(iss) && header.ack.at_or_before(snd_nxt)) {
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

    fn input_time_wait<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        key: Key,
        segment: &Segment<'_>,
        layer: &mut L,
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
                return self.input_listener(now, flow, segment, Some(record.snd_nxt), layer, out, events);
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
        send_bare(&mut self.shared, flow, &header, IpFields::DEFAULT, out);
    }

    fn input_no_flow<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        segment: &Segment<'_>,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        if self.listeners.lookup(flow.domain, flow.local).is_some() {
            return self.input_listener(now, flow, segment, None, layer, out, events);
        }
        // CLOSED (RFC 9293 §3.10.7.1).
        if segment.header.flags.has(Flags::RST) {
            self.shared.drops.count(DropReason::NoFlowReset);
        } else {
            self.shared.drops.count(DropReason::NoFlow);
            let is_silent = match self.shared.config.blackhole {
                Blackhole::Off => false,
                Blackhole::Syns => segment.header.flags.has(Flags::SYN),
                Blackhole::All => true,
            };
            if !is_silent {
                self.send_reset_for(now, flow, segment, out);
            }
        }
    }

    /// A reset for a segment that has no connection here, within the step's limit.
    pub(super) fn send_reset_for<O: Output>(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        segment: &Segment<'_>,
        out: &mut O,
    ) {
        if self.shared.may_reset(now) {
            let header = reset_for(&segment.header, segment.len());
            send_bare(&mut self.shared, flow, &header, IpFields::DEFAULT, out);
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
        let _ = &out;
        let hash = mix(hash, flow.domain);
        let target = self.find_flow(hash, &flow).map(|(_, target)| target);
        // RFC 9293 §3.9.2.2 (MUST-54): to the connection that it is about.
        let verdict = match target {
            Some(FlowTarget::HalfOpen(key)) => {
                let Some(&HalfOpenFlow { id, iss, .. }) = self.half_opens.get(key) else { return false };
                if seq == iss {
                    half_open_errors.push(HalfOpenError { half_open: id, error });
                }
                if seq == iss { Ok(()) } else { Err(DropReason::IcmpOutOfWindow) }
            }
            Some(target @ (FlowTarget::Connection(_) | FlowTarget::SynReceived(_))) => {
                let opened = match target {
                    // Of a fast open, what the app sent meanwhile may be in flight.
                    FlowTarget::SynReceived(key) => self.syn_received.get(key).and_then(|r| r.connection),
                    FlowTarget::Connection(key) => Some(key),
                    FlowTarget::HalfOpen(_) | FlowTarget::TimeWait(_) => None,
                };
                if let FlowTarget::SynReceived(record) = target
                    && self.aborts_on_icmp(record, seq, error)
                {
                    match opened {
                        Some(opened) => self.close_connection(opened, CloseReason::Unreachable, events),
                        None => _ = self.remove_syn_received(record),
                    }
                    return true;
                }
                // Nothing else of a record is worth acting upon, and nothing was checked.
                let Some(key) = opened else { return false };
                let Some(connection) = self.connections.get_mut(key) else { return false };
                let verdict = connection.on_icmp_error(now, seq, error, layer, &mut self.shared);
                connection.arm(key, &mut self.shared);
                verdict
            }
            // Nor is anything of TIME-WAIT.
            Some(FlowTarget::TimeWait(_)) => return false,
            None => {
                self.shared.drops.count(DropReason::IcmpNoFlow);
                return false;
            }
        };
        if let Err(reason) = verdict {
            self.shared.drops.count(reason);
        }
        verdict.is_ok()
    }

    /// Whether an ICMP error that quotes our SYN-ACK ends the handshake: RFC 9293 §3.9.2.2 (MUST-56) would not have it, but
    /// the listener's options may.
    fn aborts_on_icmp(&self, record: Key, seq: SeqNum, error: IcmpError) -> bool {
        let Some(record) = self.syn_received.get(record) else { return false };
        let listener = self.listeners.get(record.listener);
        listener.is_some_and(|listener| listener.options.abort_on_icmp)
            && seq == record.iss
            && !matches!(error, IcmpError::PacketTooBig { .. })
    }
}
