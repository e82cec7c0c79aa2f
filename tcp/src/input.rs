//! What a segment does to a connection: RFC 9293 §3.10.7.4, the checks in the RFC's order, with those of RFC 7323
//! (PAWS) before and of RFC 5961 within.

use alloc::vec::Vec;

use hoststack_transport::{CloseReason, Instant, Key, SessionLayer, TransportEvent};
use hoststack_wire::{Flags, Segment, SegmentHeader, SeqNum};

use crate::connection::{Connection, Fate, millis};
use crate::drop_reason::DropReason;
use crate::engine::{Output, Shared};
use crate::output::{reset_for, send_bare};
use crate::state::{State, StateEvent};

/// After this long without a segment, TS.Recent says nothing (RFC 7323 §5.5): 24 days.
const PAWS_AGE_MS: u32 = 24 * 24 * 3600 * 1000;

/// Whether a check lets a segment on.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
enum Verdict {
    Goes,
    Dropped,
}

/// What is left of a segment's text after the window test.
struct Text<'a> {
    seq: SeqNum,
    data: &'a [u8],
    /// The FIN is inside the window.
    fin: bool,
    /// Something was outside the window: the peer must hear where it is.
    is_cut: bool,
}

impl Connection {
    /// Takes a segment in.
    pub(crate) fn on_segment<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        segment: &Segment<'_>,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) -> Fate {
        let header = &segment.header;
        if shared.config.drop_syn_fin && header.flags.has(Flags::SYN | Flags::FIN) {
            shared.drops.count(DropReason::SynFin);
            return Fate::Lives;
        }
        if let Some(extras) = &mut self.extras {
            extras.on_heard(now);
        }
        if self.check_timestamps(id, shared, now, segment) == Verdict::Dropped {
            return Fate::Lives;
        }
        // First, the sequence number.
        let Some(text) = self.check_sequence(id, shared, now, segment) else { return Fate::Lives };
        // Second, RST.
        if header.flags.has(Flags::RST) {
            return self.on_reset(id, header, shared, now);
        }
        // (Third, security: not used.) Fourth, SYN.
        if header.flags.has(Flags::SYN) && !self.is_crossing_syn_ack(header) {
            if !shared.config.challenge_syns && header.seq.is_within(self.rcv.nxt, self.rcv_wnd()) {
                // Deviates: RFC 9293 §3.10.7.4, as RFC 793 had it, if it is asked for.
                shared.counters.resets_in += 1;
                self.send_reset(shared, now, out);
                self.enter(id, StateEvent::Abort);
                return Fate::Closed(CloseReason::PeerReset);
            }
            // RFC 5961 §4, RFC 9293 §3.10.7.4: in a synchronized state, whatever its sequence number.
            shared.drops.count(DropReason::SynChallenged);
            self.program_challenge_ack(id, shared, now);
            return Fate::Lives;
        }
        // Fifth, ACK.
        if !header.flags.has(Flags::ACK) {
            shared.drops.count(DropReason::NoAck);
            return Fate::Lives;
        }
        if self.state == State::SynReceived
            && self.on_ack_of_syn(id, header, shared, now, layer, out, events) == Verdict::Dropped
        {
            return Fate::Lives;
        }
        match self.on_ack(id, segment, shared, now, layer, events) {
            Ok(Fate::Lives) => {}
            Ok(fate) => return fate,
            Err(dropped) => {
                shared.drops.count(dropped);
                self.program_challenge_ack(id, shared, now);
                return Fate::Lives;
            }
        }
        // Not before: RFC 7323 §4.3 (2) has it in the sequence check, but then a segment forged into the window could move
        // TS.Recent, and PAWS would drop all that the peer sends. Its ACK must be acceptable as well (RFC 5961 §5).
        self.update_ts_recent(header, now);
        if !segment.payload.is_empty() {
            self.measure_receive_rtt(header, now);
        }
        // Sixth, URG.
        if header.flags.has(Flags::URG) {
            self.on_urgent(header, shared, layer, events);
        }
        // Seventh, the text; eighth, the FIN.
        self.on_text(id, segment, &text, shared, now, layer, out, events)
    }

    /// RFC 7323 §5.3 (R1), before everything else; a reset is not tested, and a SYN gets its challenge.
    fn check_timestamps(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        segment: &Segment<'_>,
    ) -> Verdict {
        let header = &segment.header;
        if !self.has_timestamps || header.flags.has_any(Flags::RST | Flags::SYN) {
            return Verdict::Goes;
        }
        let Some(ts) = header.options.timestamps else {
            if shared.config.tolerate_missing_timestamps {
                return Verdict::Goes;
            }
            // RFC 7323 §3.2: once agreed on, a segment without it SHOULD be dropped.
            shared.drops.count(DropReason::TimestampMissing);
            return Verdict::Dropped;
        };
        let is_old = (ts.val.wrapping_sub(self.ts.recent) as i32) < 0; // signed distance on the circle
        if is_old && millis(now).wrapping_sub(self.ts.recent_at_ms) < PAWS_AGE_MS {
            shared.drops.count(DropReason::Paws);
            self.program_unacceptable_ack(id, segment, shared, now);
            return Verdict::Dropped;
        }
        Verdict::Goes
    }

    /// The acceptability test (RFC 9293 §3.10.7.4, table 6), and what of the text is in the window. A reset may carry data
    /// (§3.5.3, SHLD-2).
    fn check_sequence<'a>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        segment: &Segment<'a>,
    ) -> Option<Text<'a>> {
        let header = &segment.header;
        let (mut seq, mut data) = (header.seq, segment.payload);
        let mut fin = header.flags.has(Flags::FIN);
        if header.flags.has(Flags::RST) {
            return self.check_bare_sequence(id, shared, now, segment);
        }
        if header.flags.has(Flags::SYN) {
            // A SYN takes a sequence number. That of the peer's crossing SYN-ACK was received with its SYN.
            if !self.is_crossing_syn_ack(header) {
                return self.check_bare_sequence(id, shared, now, segment);
            }
            seq += 1;
        }
        let wnd = self.rcv_wnd();
        if seq == self.rcv.nxt && wnd > 0 && data.len() as u32 <= wnd {
            // The common case: in order and inside. A FIN may be one beyond: nothing need be stored for it.
            return Some(Text { seq, data, fin, is_cut: false });
        }
        let len = data.len() as u32 + u32::from(fin);
        if len == 0 || wnd == 0 {
            // RFC 9293 §3.4 (MUST-66): into a closed window "special allowance should be made to accept valid ACKs" and
            // resets; the text is refused.
            // Deviates: RFC 9293 §3.10.7.4 (table 6) takes no FIN into a closed window, and no empty segment at the right edge
            // of an open one. A peer that filled the window stands at the edge: its ACK counts. A FIN needs no room.
            let is_at_edge = seq == self.rcv.edge;
            if seq.is_within(self.rcv.nxt, wnd) || is_at_edge || seq == self.rcv.nxt {
                let is_cut = !data.is_empty();
                if is_cut {
                    shared.drops.count(DropReason::BeyondWindow);
                    fin = false;
                }
                return Some(Text { seq, data: &[], fin, is_cut });
            }
            self.on_unacceptable(id, segment, shared, now);
            return None;
        }
        let last = seq + (len - 1);
        if !seq.is_within(self.rcv.nxt, wnd) && !last.is_within(self.rcv.nxt, wnd) {
            // Both ends outside: all old or all beyond, or a window inside a larger segment, which overlaps.
            if !(seq.before(self.rcv.nxt) && last.at_or_after(self.rcv.edge)) {
                self.on_unacceptable(id, segment, shared, now);
                return None;
            }
        }
        // "tailor the segment to the window"
        let mut is_cut = false;
        if seq.before(self.rcv.nxt) {
            let old = self.rcv.nxt.since(seq);
            self.note_duplicate(seq, seq + old.min(data.len() as u32), shared);
            shared.drops.count(DropReason::DuplicateData);
            data = data.get(old as usize..).unwrap_or(&[]);
            seq = self.rcv.nxt;
            is_cut = true;
        }
        let room = self.rcv.edge.since(seq) as usize;
        if data.len() > room {
            shared.drops.count(DropReason::BeyondWindow);
            data = &data[..room];
            fin = false;
            is_cut = true;
        }
        Some(Text { seq, data, fin, is_cut })
    }

    /// The test of a SYN on a synchronized connection, which RFC 5961 §4 answers wherever it stands, and of a reset, of which
    /// its own number counts, not where its text ends (RFC 5961 §3.2).
    fn check_bare_sequence<'a>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        segment: &Segment<'a>,
    ) -> Option<Text<'a>> {
        if segment.header.flags.has(Flags::RST)
            && !segment.header.seq.is_within(self.rcv.nxt, self.rcv_wnd().max(1))
        {
            self.on_unacceptable(id, segment, shared, now);
            return None;
        }
        Some(Text { seq: segment.header.seq, data: &[], fin: false, is_cut: false })
    }

    /// "If an incoming segment is not acceptable, an acknowledgment should be sent in reply (unless the RST bit is
    /// set)."
    fn on_unacceptable(&mut self, id: Key, segment: &Segment<'_>, shared: &mut Shared, now: Instant) {
        if segment.header.flags.has(Flags::RST) {
            shared.drops.count(DropReason::ResetOutOfWindow);
        } else {
            // Deviates: RFC 7323 §5.3 (R3) records no timestamp of such a segment. Of a retransmission whose first
            // acknowledgment was lost it must, or the echo makes the sender measure its own time-out.
            self.update_ts_recent(&segment.header, now);
            shared.drops.count(DropReason::OutOfWindow);
            let end = segment.header.seq + segment.payload.len() as u32;
            if end.at_or_before(self.rcv.nxt) {
                self.note_duplicate(segment.header.seq, end, shared);
            }
            self.program_unacceptable_ack(id, segment, shared, now);
        }
    }

    /// Data is always acknowledged; what carries none is limited, so that two ends that disagree do not answer each
    /// other for ever.
    fn program_unacceptable_ack(
        &mut self,
        id: Key,
        segment: &Segment<'_>,
        shared: &mut Shared,
        now: Instant,
    ) {
        if segment.payload.is_empty() && !segment.header.flags.has(Flags::FIN) {
            self.program_challenge_ack(id, shared, now);
        } else {
            self.program_ack(id, shared);
        }
    }

    /// The peer's SYN-ACK in a simultaneous open: its SYN came before, its ACK is what is new (RFC 9293 §3.5, figure 7).
    fn is_crossing_syn_ack(&self, header: &SegmentHeader) -> bool {
        self.state == State::SynReceived
            && header.flags.has(Flags::SYN | Flags::ACK)
            && header.seq == self.irs
            && header.ack.after(self.snd.una)
            && header.ack.at_or_before(self.snd.nxt)
    }

    /// RFC 7323 §4.3 (2): only a segment that spans Last.ACK.sent moves TS.Recent.
    #[inline]
    fn update_ts_recent(&mut self, header: &SegmentHeader, now: Instant) {
        if self.has_timestamps
            && let Some(ts) = header.options.timestamps
            && header.seq.at_or_before(self.rcv.last_ack_sent)
            && !header.flags.has_any(Flags::RST | Flags::SYN)
        {
            // check_timestamps saw that it is not older, or that TS.Recent is too old to tell.
            self.ts.recent = ts.val;
            self.ts.recent_at_ms = millis(now);
        }
    }

    /// RFC 9293 §3.10.7.4 second, RFC 5961 §3.2: the segment is in the window.
    fn on_reset(&mut self, id: Key, header: &SegmentHeader, shared: &mut Shared, now: Instant) -> Fate {
        // Deviates: RFC 9293 §3.10.7.4 (second), as RFC 793 had it, if it is asked for.
        if header.seq != self.rcv.nxt && shared.config.exact_resets {
            shared.drops.count(DropReason::ResetChallenged);
            self.program_challenge_ack(id, shared, now);
            return Fate::Lives;
        }
        shared.counters.resets_in += 1;
        self.enter(id, StateEvent::RcvRst);
        Fate::Closed(CloseReason::PeerReset)
    }

    /// SYN-RECEIVED of a simultaneous open: is our SYN acknowledged?
    fn on_ack_of_syn<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        header: &SegmentHeader,
        shared: &mut Shared,
        now: Instant,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) -> Verdict {
        if !(header.ack.after(self.snd.una) && header.ack.at_or_before(self.snd.nxt)) {
            shared.drops.count(DropReason::SynReceivedBadAck);
            send_bare(shared, &self.flow, &reset_for(header, 0), self.ip_fields(false), out);
            return Verdict::Dropped;
        }
        // What our SYN carried and this does not acknowledge is sent again as the usual data (RFC 7413 §4.2.1).
        layer.tx_acknowledge(self.session, header.ack.since(self.snd.una + 1));
        self.snd.una = header.ack;
        self.snd.nxt = header.ack;
        // The window of a SYN is never scaled; this one may carry the SYN bit again.
        self.snd.wnd =
            if header.flags.has(Flags::SYN) { u32::from(header.wnd) } else { self.scaled_wnd(header) };
        self.snd.wnd_max = self.snd.wnd;
        self.snd.wl1 = header.seq;
        self.snd.wl2 = header.ack;
        if self.retransmits > 0 {
            self.rtt.begin_after_syn_timeout();
            self.retransmits = 0;
        } else {
            let rtt_us = u32::try_from(now.micros_since(self.last_sent)).unwrap_or(u32::MAX);
            self.rtt.sample(rtt_us);
            shared.rtts.record(rtt_us.into());
        }
        self.note_progress(None);
        self.stop_timer();
        self.enter(id, StateEvent::RcvAckOfSyn);
        if header.flags.has(Flags::SYN) {
            self.program_ack(id, shared);
        }
        events.push(TransportEvent::Connected { session: self.session });
        Verdict::Goes
    }

    /// Seventh and eighth: the text and the FIN.
    fn on_text<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        segment: &Segment<'_>,
        text: &Text<'_>,
        shared: &mut Shared,
        now: Instant,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) -> Fate {
        if text.is_cut {
            self.program_ack(id, shared);
        }
        if text.data.is_empty() && !text.fin {
            // RFC 5961 §5 (RFC 9293 §3.10.7.4, MAY-12).
            return Fate::Lives;
        }
        if !self.state.can_receive() {
            // "This should not occur since a FIN has been received from the remote side. Ignore the segment text."
            shared.drops.count(DropReason::DataAfterFin);
            self.program_ack(id, shared);
            return Fate::Lives;
        }
        if text.fin {
            let fin = text.seq + text.data.len() as u32;
            if self.has_fin && fin != self.rcv.fin {
                shared.drops.count(DropReason::DataAfterFin);
            } else {
                self.has_fin = true;
                self.rcv.fin = fin;
            }
            if fin != self.rcv.nxt {
                self.program_ack(id, shared);
            }
        }
        if !text.data.is_empty() {
            self.on_ecn_data(id, &segment.header, segment.ecn, shared);
            if self.is_app_closed && !layer.takes_after_close(self.session) {
                // RFC 9293 §3.6.1 (MAY-1, SHLD-3): data for an app that cannot read any more is answered with a reset.
                // At SEG.ACK, which is where the peer expects it: SND.NXT may be beyond, and would be challenged (RFC 5961 §3.2).
                shared.drops.count(DropReason::DataAfterClose);
                send_bare(
                    shared,
                    &self.flow,
                    &reset_for(&segment.header, segment.len()),
                    self.ip_fields(false),
                    out,
                );
                self.enter(id, StateEvent::Abort);
                return Fate::Closed(CloseReason::LocalReset);
            }
            self.on_data(id, text, shared, now, layer, out, events);
        }
        if self.has_fin && self.rcv.nxt == self.rcv.fin {
            self.on_fin(id, shared, events)
        } else {
            Fate::Lives
        }
    }

    fn on_data<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        text: &Text<'_>,
        shared: &mut Shared,
        now: Instant,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let offset = text.seq.since(self.rcv.nxt);
        let mut data = text.data;
        if self.has_fin {
            let most = if self.rcv.fin.after(text.seq) { self.rcv.fin.since(text.seq) as usize } else { 0 };
            if data.len() > most {
                shared.drops.count(DropReason::DataAfterFin);
                data = &data[..most];
            }
        }
        self.peer_segment = self.peer_segment.max(u16::try_from(data.len()).unwrap_or(u16::MAX));
        // RFC 9293 §3.10.7.4 (SHLD-31): what is beyond a gap is kept.
        if offset > 0 {
            let end = offset + data.len() as u32;
            let held = layer.rx_ranges(self.session).iter().find(|r| r.start < end && offset < r.end);
            if let Some(held) = held {
                let (from, until) = (held.start.max(offset), held.end.min(end));
                self.note_duplicate(self.rcv.nxt + from, self.rcv.nxt + until, shared);
            }
        }
        let stored = layer.rx_store(self.session, offset, data);
        if stored.refused > 0 {
            shared.drops.count(DropReason::ReceiveFull);
        }
        self.note_arrived((data.len() as u32).saturating_sub(stored.refused));
        if stored.advanced > 0 {
            self.rcv.nxt += stored.advanced;
            // What the session layer could store lay inside the window, but for room that it kept beyond it.
            self.rcv.edge = self.rcv.edge.max(self.rcv.nxt);
            shared.counters.bytes_in += u64::from(stored.advanced);
            self.bytes_received += u64::from(stored.advanced);
            match events.last() {
                Some(TransportEvent::Received { session }) if *session == self.session => {}
                _ => events.push(TransportEvent::Received { session: self.session }),
            }
        }
        if offset > 0 {
            // RFC 5681 §4.2, RFC 9293 §3.10.7.4 (MAY-13): out-of-order data SHOULD be acknowledged immediately.
            // Deviates: RFC 9293 §3.10.7.4 (MUST-59) sends no ACK before all queued segments are processed. What is beyond a
            // gap is acknowledged one for one, for the sender counts duplicates.
            self.note_out_of_order(text.seq, layer);
            if out.room() > 0 {
                self.send_ack(shared, now, layer, out);
            } else {
                self.program_ack(id, shared);
            }
        } else if stored.refused > 0
            || stored.advanced as usize != data.len()
            || !layer.rx_ranges(self.session).is_empty()
        {
            // It filled a gap, or part of one (RFC 5681 §4.2), or was refused.
            self.program_ack(id, shared);
        } else if (self.quick_acks > 0 && !self.is_interactive) || self.is_quick_ack {
            self.quick_acks = self.quick_acks.saturating_sub(1);
            self.program_ack(id, shared);
        } else if self.rcv.nxt.since(self.rcv.last_ack_sent) > u32::from(self.peer_segment) {
            // RFC 9293 §3.8.6.3 (SHLD-19): every second full segment at least.
            self.program_ack(id, shared);
        } else if self.ack_at == Instant::FAR {
            // RFC 9293 §3.8.6.3 (SHLD-18, MUST-40).
            self.ack_at = now + shared.config.ack_delay;
        }
    }

    /// `start..end` came twice: the next acknowledgment says so.
    fn note_duplicate(&mut self, start: SeqNum, end: SeqNum, shared: &mut Shared) {
        if self.has_sack && shared.config.dsack && start.before(end) {
            self.extras_mut().gaps.duplicate = Some((start, end));
            shared.counters.dsacks_out += 1;
        }
    }

    fn note_out_of_order<L: SessionLayer>(&mut self, seq: SeqNum, layer: &L) {
        let rcv_nxt = self.rcv.nxt;
        let offset = seq.since(rcv_nxt);
        let range = layer.rx_ranges(self.session).iter().find(|r| r.start <= offset && offset < r.end);
        let recent = &mut self.extras_mut().gaps.recent;
        let previous = recent[0].since(rcv_nxt);
        let is_same = range.is_some_and(|r| r.start <= previous && previous < r.end);
        if !is_same {
            recent.copy_within(..3, 1);
        }
        recent[0] = seq;
    }

    /// All before the FIN is received.
    fn on_fin(&mut self, id: Key, shared: &mut Shared, events: &mut Vec<TransportEvent>) -> Fate {
        self.rcv.nxt += 1;
        self.rcv.edge = self.rcv.edge.max(self.rcv.nxt);
        self.program_ack(id, shared);
        events.push(TransportEvent::PeerClosed { session: self.session });
        self.enter(id, StateEvent::RcvFin);
        if self.state == State::TimeWait { Fate::TimeWait } else { Fate::Lives }
    }
}
