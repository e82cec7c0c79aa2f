//! What an acknowledgment says of what we sent: RFC 9293 §3.10.7.4, fifth, and the loss recovery that follows from it.
//! The parts of recovery are in `recovery`; here is the order in which they are played.

use alloc::vec::Vec;

use hoststack_transport::{Instant, Key, SessionLayer, TransportEvent};
use hoststack_wire::{Flags, Segment, SegmentHeader, SeqNum};

use crate::congestion::{AckInfo, CongestionControl, CongestionKind};
use crate::connection::{Connection, Fate};
use crate::drop_reason::DropReason;
use crate::engine::Shared;
use crate::extras::Extras;
use crate::isn::timestamp_clock;
use crate::rate::Snapshot;
use crate::recovery::flight::{SPLITS_MAX, Sent};
use crate::recovery::prr::Prr;
use crate::recovery::rack::Found;
use crate::recovery::tlp::ProbeVerdict;
use crate::recovery::undo::Undo;
use crate::recovery::{DUP_THRESH, Mode, Recovery};
use crate::state::{State, StateEvent};
use crate::timers::Purpose;

/// What one acknowledgment said, over all ranges that it speaks of.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// How far SND.UNA moved.
    acked: u32,
    /// Bytes delivered: acknowledged or SACKed for the first time.
    delivered: u32,
    /// Of these, SACKed.
    newly_sacked: u32,
    /// What the peer received twice (RFC 2883).
    dsack: Option<(SeqNum, SeqNum)>,
    /// Something that was sent once arrived, of what was outstanding when recovery began.
    has_original: bool,
    /// Something that was sent again was acknowledged: which copy arrived is not known.
    has_repeated: bool,
    /// It is a duplicate in the sense of RFC 5681 §2.
    is_duplicate: bool,
    /// When the first and the last were sent of what was sent once and is acknowledged or, if nothing is, SACKed.
    originals: Option<(Instant, Instant)>,
    /// FlightSize before it.
    flight_before: u32,
    /// The pipe before it.
    pipe_before: u32,
}

impl Heard {
    fn on_range(&mut self, sent: &Sent, len: u32, is_sacked: bool, recovery_point: SeqNum) {
        self.delivered += len;
        if is_sacked {
            self.newly_sacked += len;
        }
        if sent.is_repeated {
            self.has_repeated |= !is_sacked;
        } else {
            self.has_original |= sent.end.at_or_before(recovery_point);
            let (first, last) = self.originals.unwrap_or((sent.sent_at, sent.sent_at));
            self.originals = Some((first.min(sent.sent_at), last.max(sent.sent_at)));
        }
    }
}

impl Connection {
    /// RFC 9293 §3.10.7.4 fifth, with RFC 5961 §5.
    pub(crate) fn on_ack<L: SessionLayer>(
        &mut self,
        id: Key,
        segment: &Segment<'_>,
        shared: &mut Shared,
        now: Instant,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) -> Result<Fate, DropReason> {
        let header = &segment.header;
        let ack = header.ack;
        if ack.after(self.snd.nxt) {
            return Err(DropReason::AckBeyond);
        }
        if ack.before(self.snd.una - self.snd.wnd_max) && shared.config.bounded_acks {
            return Err(DropReason::AckTooOld);
        }
        let wnd_before = self.snd.wnd;
        let (flight_before, pipe_before) = (self.flight_size(), self.pipe());
        let is_window_new = self.update_window(header);
        let mut fate = Fate::Lives;
        if ack.after(self.snd.una) {
            fate = self.on_new_ack(id, header, [flight_before, pipe_before], shared, now, layer, events);
        } else if ((ack == self.snd.una) || (self.has_sack && !header.options.sack.is_empty()))
            && (flight_before > 0 || self.recovery.is_some())
            && !self.is_probing
        {
            let is_plain = segment.payload.is_empty() && !header.flags.has_any(Flags::SYN | Flags::FIN);
            let heard = Heard {
                is_duplicate: is_plain && ack == self.snd.una && self.snd.wnd == wnd_before,
                flight_before,
                pipe_before,
                ..Heard::default()
            };
            self.on_old_ack(header, heard, shared, now);
        }
        if is_window_new {
            self.on_window(wnd_before);
        }
        if self.purpose == Purpose::Persist || self.snd.wnd == 0 {
            // RFC 9293 §3.8.6.1 (MUST-37), §3.8.6 (SHLD-17): as long as the peer answers, the connection stays.
            self.retransmits = 0;
        }
        if fate == Fate::Lives && self.has_to_send(layer.tx_len(self.session)) {
            layer.program_tx(self.session);
        }
        Ok(fate)
    }

    /// SND.WND, unless the segment is older than the one that set it.
    fn update_window(&mut self, header: &SegmentHeader) -> bool {
        // Deviates: RFC 9293 §3.10.7.4 goes by SEG.SEQ first. A segment that was sent again with a newer ACK moves SND.UNA,
        // and the old window counted from there would reach beyond what was offered.
        let is_newer = self.snd.wl2.before(header.ack)
            || self.snd.wl1.before(header.seq)
            || (self.snd.wl1 == header.seq && self.snd.wl2 == header.ack);
        if header.ack.before(self.snd.una) || !is_newer {
            return false;
        }
        if !header.flags.has(Flags::SYN) {
            self.snd.wnd = self.scaled_wnd(header);
        }
        self.snd.wl1 = header.seq;
        self.snd.wl2 = header.ack;
        self.snd.wnd_max = self.snd.wnd_max.max(self.snd.wnd);
        true
    }

    /// The window moved: what waited for it may go.
    fn on_window(&mut self, before: u32) {
        if self.is_probing && self.snd.wnd > 0 && self.flight_size() == 1 {
            // The probe's byte was refused: the peer says that it expects it next, and has room for it now.
            self.take_back_probe();
        }
        if self.purpose == Purpose::Persist && !self.is_probing && self.snd.wnd > before {
            self.retransmits = 0;
            self.rtt.reset_back_off();
            self.stop_timer();
        }
    }

    /// SND.UNA < SEG.ACK =< SND.NXT.
    fn on_new_ack<L: SessionLayer>(
        &mut self,
        id: Key,
        header: &SegmentHeader,
        [flight_before, pipe_before]: [u32; 2],
        shared: &mut Shared,
        now: Instant,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) -> Fate {
        let acked = header.ack.since(self.snd.una);
        let has_acked_fin = self.is_fin_sent && header.ack == self.snd.nxt;
        let bytes = acked - u32::from(has_acked_fin);
        self.snd.una = header.ack;
        let mut heard = Heard { acked, flight_before, pipe_before, ..Heard::default() };
        self.hear(header, &mut heard, shared, now);
        let rtt_us = self.measure(header, &heard, shared, now);
        self.retransmits = 0;
        self.is_probing = false;
        self.is_unreachable = false;
        self.dup_acks = 0;
        // RFC 6298 §5: the back-off ends when something new is acknowledged that was sent once. Timestamps or a timed
        // segment tell; without them progress must do, or the timer would stay long for ever.
        self.rtt.reset_back_off();
        if bytes > 0 {
            layer.tx_acknowledge(self.session, bytes);
            match events.last() {
                Some(TransportEvent::Acknowledged { session }) if *session == self.session => {}
                _ => events.push(TransportEvent::Acknowledged { session: self.session }),
            }
        }
        let wait_us = self.recover(header, &heard, rtt_us, shared, now);
        self.on_ecn_echo(header, flight_before, shared, now);
        self.on_len_acked(now, shared);
        self.tell_wanted(layer);
        // RFC 6298 (5.2), (5.3).
        self.note_progress((self.flight_size() > 0).then_some(now));
        if let Some(extras) = &mut self.extras {
            extras.forget_records(header.ack);
        }
        if self.flight_size() == 0 {
            self.stop_timer();
        } else {
            self.set_retransmit_timer(now, wait_us, true, shared);
        }
        self.release_recovery(shared);
        if has_acked_fin { self.on_ack_of_fin(id, shared, now) } else { Fate::Lives }
    }

    fn on_ack_of_fin(&mut self, id: Key, shared: &Shared, now: Instant) -> Fate {
        self.enter(id, StateEvent::RcvAckOfFin);
        match self.state {
            State::FinWait2 => {
                self.start_fin_wait_2_timer(now, shared);
                Fate::Lives
            }
            State::TimeWait => Fate::TimeWait,
            _ => Fate::Closed(hoststack_transport::CloseReason::Finished),
        }
    }

    /// SEG.ACK = SND.UNA with something in flight: a duplicate, perhaps.
    fn on_old_ack(&mut self, header: &SegmentHeader, mut heard: Heard, shared: &mut Shared, now: Instant) {
        if !self.has_sack {
            if !heard.is_duplicate {
                return;
            }
            let (mss, flight) = (u32::from(self.mss), heard.flight_before);
            if self.mode() != Mode::Loss {
                self.recovery_mut(shared).duplicates.on_duplicate(flight, mss);
            }
            self.dup_acks = self.dup_acks.saturating_add(1);
            shared.counters.duplicate_acks_in += 1;
        } else {
            if header.options.sack.is_empty() && self.recovery.is_none() {
                return;
            }
            self.hear(header, &mut heard, shared, now);
            if heard.newly_sacked > 0 {
                self.dup_acks = self.dup_acks.saturating_add(1);
                shared.counters.duplicate_acks_in += 1;
            }
        }
        let rtt_us = self.measure(header, &heard, shared, now);
        let wait_us = self.recover(header, &heard, rtt_us, shared, now);
        self.set_retransmit_timer(now, wait_us, false, shared);
        self.release_recovery(shared);
    }

    /// Plays SND.UNA (which moved already) and the SACK blocks on what is in flight.
    fn hear(&mut self, header: &SegmentHeader, heard: &mut Heard, shared: &mut Shared, now: Instant) {
        let (una, nxt) = (self.snd.una, self.snd.nxt);
        let has_blocks = self.has_sack && !header.options.sack.is_empty();
        if self.recovery.is_none() {
            if !has_blocks {
                // All in flight was sent at one time.
                let mut sent = Sent::new(una, self.flight_at, Snapshot::default());
                sent.is_repeated = self.is_flight_repeated;
                heard.on_range(&sent, heard.acked, false, nxt);
                self.delivered += u64::from(heard.acked);
                return;
            }
            self.begin_ranges(una - heard.acked, shared);
        }
        let rtt_min_us = self.rtt.min_us().unwrap_or(0);
        let echo = header.options.timestamps.filter(|_| self.has_timestamps).map(|ts| ts.ecr);
        let offset = self.ts.offset;
        let mss = u32::from(self.mss);
        let Some(recovery) = &mut self.recovery else { return };
        let Recovery { flight, rack, rate, recovery_point, .. } = &mut **recovery;
        let recovery_point = *recovery_point;
        let reordering = &mut Extras::of_connection(&mut self.extras).reordering;
        let mut dsack = None;
        let mut on_delivered = |sent: &Sent, len: u32, is_sacked: bool| {
            heard.on_range(sent, len, is_sacked, recovery_point);
            rate.on_delivered(now, sent.sent_at, &sent.snapshot, len);
            let echoes_last = echo.map(|ecr| {
                let sent_val = timestamp_clock(sent.sent_at, offset);
                (ecr.wrapping_sub(sent_val) as i32) >= 0 // signed distance on the circle
            });
            rack.on_delivered(now, sent, len, mss, rtt_min_us, echoes_last, reordering);
        };
        flight.acknowledge(una, |sent, len| {
            if !sent.is_sacked {
                on_delivered(sent, len, false);
            }
        });
        if has_blocks {
            let ranges_max = (SPLITS_MAX + 2 * (nxt.since(una) / mss) as usize).max(flight.len());
            let mut blocks = [(una, una); 4];
            for (n, &(start, end)) in header.options.sack.as_slice().iter().enumerate() {
                if !start.before(end) || end.after(nxt) || end.since(start) > 1 << 30 {
                    continue;
                }
                if n == 0 && is_dsack((start, end), header.options.sack.as_slice().get(1), header.ack) {
                    dsack = Some((start, end));
                    if end.at_or_before(una) {
                        continue;
                    }
                }
                if let Some(block) = blocks.get_mut(n) {
                    *block = (start.max(una), end);
                }
            }
            // RFC 8985 §6.2 (step 3) compares what is told with what was told before. The newest block comes first (RFC 2018
            // §4), but an acknowledgment that reports several new ones says nothing of the order in which they came.
            blocks.sort_unstable_by_key(|&(start, _)| start.since(una));
            for (start, end) in blocks {
                if start.before(end) {
                    flight.sack(start, end, ranges_max, |sent, len| on_delivered(sent, len, true));
                }
            }
        }
        heard.dsack = dsack;
        self.delivered += u64::from(heard.delivered);
    }

    /// A round trip, if this ACK measured one: Karn's algorithm, and timestamps (RFC 9293 §3.8.1, MUST-18).
    fn measure(
        &mut self,
        header: &SegmentHeader,
        heard: &Heard,
        shared: &mut Shared,
        now: Instant,
    ) -> Option<u32> {
        let since = |at: Instant| u32::try_from(now.micros_since(at)).unwrap_or(u32::MAX);
        let rtt_us = match heard.originals {
            Some((first, last)) if !heard.has_repeated && !self.is_probing => {
                self.rtt.note_least(since(last));
                since(first)
            }
            _ if self.has_timestamps && heard.acked > 0 => {
                // RFC 7323 §4.1: an echo tells the retransmission from the original, in milliseconds. An older echo
                // proves nothing: if the first acknowledgment was lost, the next one echoes the original all the same.
                let ts = header.options.timestamps?;
                let clock = timestamp_clock(now, self.ts.offset);
                let elapsed = clock.wrapping_sub(ts.ecr);
                if elapsed > clock.wrapping_sub(timestamp_clock(self.last_sent, self.ts.offset)) {
                    return None;
                }
                elapsed.max(1).saturating_mul(1000)
            }
            _ => return None,
        };
        self.rtt.sample(rtt_us);
        shared.rtts.record(rtt_us.into());
        Some(rtt_us)
    }

    /// Loss recovery and congestion control for one acknowledgment. Returns in how long, in us, more may be found lost.
    fn recover(
        &mut self,
        header: &SegmentHeader,
        heard: &Heard,
        rtt_us: Option<u32>,
        shared: &mut Shared,
        now: Instant,
    ) -> Option<u64> {
        let mss = u32::from(self.mss);
        let (una, nxt, has_sack) = (self.snd.una, self.snd.nxt, self.has_sack);
        let mode = self.mode();
        let mut info = AckInfo {
            now,
            bytes_acked: heard.acked,
            bytes_delivered: heard.delivered,
            rtt_us,
            srtt_us: self.rtt.srtt_us(),
            rtt_min_us: self.rtt.min_us(),
            flight_before: heard.pipe_before,
            is_app_limited: !self.is_cwnd_limited,
            is_cwnd_limited: self.is_cwnd_limited,
            has_sack,
            has_ecn_echo: self.has_ecn_echo(header),
            delivered: self.delivered,
            delivered_at_send: self.delivered - u64::from(heard.delivered),
            ..AckInfo::default()
        };
        let Some(recovery) = &mut self.recovery else {
            self.cc.on_ack(&info);
            return None;
        };
        let is_past = una.at_or_after(recovery.recovery_point);
        info.in_recovery = mode == Mode::Fast && !is_past;
        if heard.dsack.is_some() {
            shared.counters.dsacks_in += 1;
            let counts = &mut Extras::of_connection(&mut self.extras).counts;
            counts.dsacks = counts.dsacks.saturating_add(1);
        }
        // RFC 8985 §7.4: what became of the tail loss probe.
        let mut is_repaired = false;
        let mut is_probe_dsack = false;
        if let Some(probe) = recovery.probe {
            is_probe_dsack = heard.dsack.is_some_and(|(_, end)| end == probe.end) && probe.is_repeated;
            let is_nothing_new = heard.acked == 0 && heard.newly_sacked == 0;
            match probe.on_ack(header.ack, heard.is_duplicate && is_nothing_new, is_probe_dsack) {
                ProbeVerdict::Open => {}
                verdict => {
                    recovery.probe = None;
                    is_repaired = verdict == ProbeVerdict::Repaired && mode == Mode::Open;
                }
            }
        }
        if let Some((_, end)) = heard.dsack
            && !is_probe_dsack
        {
            recovery.undo.on_dsack(end);
            let reordering = &mut Extras::of_connection(&mut self.extras).reordering;
            recovery.rack.on_dsack(una, nxt, reordering);
        }
        // RFC 8985 §6.2: what is lost.
        let mut found = Found::default();
        if has_sack {
            found = self.detect_loss(mode, now);
            info.bytes_lost = found.bytes;
        }
        if let Some(recovery) = &mut self.recovery
            && let Some(sample) = recovery.rate.sample(now, self.rtt.min_us().unwrap_or(0))
        {
            info.delivered_at_send = self.delivered - sample.delivered.min(self.delivered);
            info.rate = Some(sample);
            recovery.latest_rate = sample.delivery_rate.unwrap_or(recovery.latest_rate);
        }
        self.cc.on_ack(&info);
        self.change_mode(header, heard, &found, is_past, is_repaired, shared, now);
        // RFC 6937bis.
        if let Some(recovery) = &mut self.recovery
            && recovery.mode == Mode::Fast
        {
            let pipe = recovery.flight.pipe();
            let is_safe = heard.acked > 0 && found.bytes == 0;
            recovery.prr.on_ack(heard.delivered, pipe, self.cc.ssthresh(), mss, is_safe);
        }
        found.wait_us
    }

    /// RFC 8985 §6.2 step 5; congestion control is told range by range.
    fn detect_loss(&mut self, mode: Mode, now: Instant) -> Found {
        let (mtu_probe, reordering) = (self.mtu_probe(), self.reordering());
        let Some(recovery) = &mut self.recovery else { return Found::default() };
        let Recovery { rack, flight, rate, .. } = &mut **recovery;
        let cc = &mut self.cc;
        rack.detect_loss(
            now,
            flight,
            mode != Mode::Open,
            self.mss.into(),
            self.rtt.min_us().unwrap_or(0),
            self.rtt.srtt_us().unwrap_or(0),
            reordering,
            |sent, len| {
                if mtu_probe != Some((sent.end - len, sent.end)) {
                    cc.on_lost(now, &rate.on_lost(&sent.snapshot, len));
                }
            },
        )
    }

    /// Open, fast recovery, loss: from one to the other.
    fn change_mode(
        &mut self,
        header: &SegmentHeader,
        heard: &Heard,
        found: &Found,
        is_past: bool,
        is_repaired: bool,
        shared: &mut Shared,
        now: Instant,
    ) {
        let (una, nxt, mss) = (self.snd.una, self.snd.nxt, u32::from(self.mss));
        let dup_acks = u32::from(self.dup_acks);
        let is_repairing = found.bytes > 0 && self.is_repairing_mtu_probe();
        let ecr = header.options.timestamps.filter(|_| self.has_timestamps).map(|ts| ts.ecr);
        let Some(recovery) = &mut self.recovery else { return };
        let is_refuted = recovery.undo.is_refuted_by_dsack()
            || (heard.acked > 0 && ecr.is_some_and(|ecr| recovery.undo.is_refuted_by_echo(ecr)));
        match recovery.mode {
            Mode::Open => {
                if heard.acked > 0 {
                    recovery.duplicates.clear();
                    recovery.undo.on_progress(una);
                    if una.after(recovery.recovery_point) {
                        recovery.recovery_point = una - 1;
                    }
                }
                // RFC 6582 §3.2 step 2: not for duplicates of what a recovery that just ended had sent.
                let is_third = !self.has_sack && dup_acks >= DUP_THRESH && una.after(recovery.recovery_point);
                if is_refuted {
                    self.undo(shared, now);
                }
                if is_repaired {
                    // RFC 8985 §7.4.2: a loss that the probe repaired is congestion all the same.
                    self.cc.on_congestion_event(
                        now,
                        self.used_window(heard.flight_before),
                        CongestionKind::Loss,
                    );
                    self.cc.on_recovery_exit(now);
                    shared.counters.tail_losses_repaired += 1;
                }
                if (found.bytes > 0 || is_third) && una != nxt {
                    self.enter_fast_recovery(heard, shared, now);
                }
            }
            Mode::Fast if is_refuted => self.undo(shared, now),
            Mode::Fast if heard.acked > 0 && is_past => {
                recovery.mode = Mode::Open;
                recovery.must_retransmit = false;
                recovery.duplicates.clear();
                recovery.undo.on_recovery_exit(nxt);
                Extras::of_connection(&mut self.extras).reordering.on_recovery_exit();
                let is_more_lost = self.has_sack && recovery.flight.has_lost_waiting();
                self.cc.on_recovery_exit(now);
                if is_more_lost {
                    // RFC 6675 §5: what was sent after the recovery began, and lost, is another's matter. Nobody may find it once
                    // more, and it would wait for the timeout.
                    self.enter_fast_recovery(heard, shared, now);
                }
            }
            Mode::Fast if heard.acked > 0 && !self.has_sack => {
                // RFC 6582 §3.2 step 3, partial acknowledgment.
                recovery.duplicates.on_partial_ack(heard.acked, mss);
                recovery.flight.mark_first_lost(mss);
                recovery.must_retransmit = true;
            }
            Mode::Fast => {}
            Mode::Loss if is_repairing => {
                self.enter_fast_recovery(heard, shared, now);
            }
            Mode::Loss => {
                // RFC 5682: what was sent before the timeout and not since is heard of, so the timeout was spurious.
                // Without SACK, the retransmission may have filled a gap beneath it.
                let has_original = heard.has_original && (self.has_sack || !heard.has_repeated);
                if is_refuted || (recovery.is_frto && has_original) {
                    return self.undo(shared, now);
                }
                if recovery.is_frto && (heard.acked > 0 || heard.newly_sacked > 0 || heard.is_duplicate) {
                    self.continue_frto(heard);
                }
                let Some(recovery) = &mut self.recovery else { return };
                if is_past {
                    recovery.mode = Mode::Open;
                    recovery.is_frto = false;
                    recovery.duplicates.clear();
                    recovery.undo.on_recovery_exit(nxt);
                    Extras::of_connection(&mut self.extras).reordering.on_recovery_exit();
                    if self.has_sack && recovery.flight.has_lost_waiting() {
                        // As after a fast recovery.
                        self.enter_fast_recovery(heard, shared, now);
                    }
                }
            }
        }
    }

    /// RFC 5682 §2.1 step 2, §3.1 step 2: after the first acknowledgment that moves SND.UNA new data goes out, which
    /// tells more than sending again would; after a duplicate, or new data's, all is sent again as usual.
    fn continue_frto(&mut self, heard: &Heard) {
        let (una, nxt) = (self.snd.una, self.snd.nxt);
        let Some(recovery) = &mut self.recovery else { return };
        let has_sent_new = nxt.after(recovery.recovery_point);
        if has_sent_new || heard.acked == 0 || una.at_or_after(recovery.recovery_point) {
            recovery.is_frto = false;
        }
    }

    /// FlightSize, as far as the window let it out: around a hole that takes several round trips to fill, what is SACKed
    /// beyond it counts for FlightSize, but was not in the network at one time.
    pub(crate) fn used_window(&self, flight: u32) -> u32 {
        flight.min(self.cc.window())
    }

    fn enter_fast_recovery(&mut self, heard: &Heard, shared: &mut Shared, now: Instant) {
        if self.repair_mtu_probe(shared, now) {
            return;
        }
        let (una, nxt, mss) = (self.snd.una, self.snd.nxt, u32::from(self.mss));
        let Some(recovery) = &mut self.recovery else { return };
        recovery.mode = Mode::Fast;
        recovery.recovery_point = nxt;
        let (pending, first) = recovery.flight.repeated(mss);
        let first_tsval = timestamp_clock(first, self.ts.offset);
        recovery.undo = Undo::begin(una, pending, first_tsval);
        recovery.probe = None;
        if !self.has_sack {
            recovery.flight.mark_first_lost(mss);
            recovery.must_retransmit = true;
        }
        let sacked_before = recovery.flight.sacked() - heard.newly_sacked.min(recovery.flight.sacked());
        recovery.prr = Prr::begin(nxt.since(una), sacked_before, heard.acked);
        self.cc.on_congestion_event(now, self.used_window(heard.flight_before), CongestionKind::Loss);
        shared.counters.fast_retransmits += 1;
    }

    /// Nothing was lost: back to what it was.
    fn undo(&mut self, shared: &mut Shared, now: Instant) {
        let Some(recovery) = &mut self.recovery else { return };
        recovery.mode = Mode::Open;
        recovery.must_retransmit = false;
        recovery.is_frto = false;
        recovery.undo = Undo::default();
        recovery.duplicates.clear();
        recovery.flight.unmark_lost();
        self.cc.on_spurious(now);
        shared.counters.undone += 1;
        let counts = &mut self.extras_mut().counts;
        counts.undone = counts.undone.saturating_add(1);
    }

    /// The reordering timer fired (RFC 8985 §6.2 step 5): what is lost now?
    pub(crate) fn on_reordering_timer(&mut self, shared: &mut Shared, now: Instant) {
        let mode = self.mode();
        let mss = u32::from(self.mss);
        let heard = Heard { flight_before: self.flight_size(), ..Heard::default() };
        let pipe_before = self.pipe();
        let found = self.detect_loss(mode, now);
        if found.bytes > 0 {
            let info = AckInfo {
                now,
                bytes_lost: found.bytes,
                flight_before: pipe_before,
                is_cwnd_limited: self.is_cwnd_limited,
                has_sack: true,
                delivered: self.delivered,
                delivered_at_send: self.delivered,
                in_recovery: mode == Mode::Fast,
                ..AckInfo::default()
            };
            self.cc.on_ack(&info);
            if mode == Mode::Open || self.is_repairing_mtu_probe() {
                self.enter_fast_recovery(&heard, shared, now);
            }
            if let Some(recovery) = &mut self.recovery
                && recovery.mode == Mode::Fast
            {
                let pipe = recovery.flight.pipe();
                recovery.prr.on_ack(0, pipe, self.cc.ssthresh(), mss, false);
            }
        }
        self.purpose = Purpose::None;
        self.set_retransmit_timer(now, found.wait_us, false, shared);
    }

    /// The retransmission timer fired, or what is in flight is known to be lost for another reason: it is sent again
    /// from SND.UNA on, as cwnd allows (RFC 6298 (5.4), RFC 8985 §6.3), whether a window that shrank has it or not
    /// (RFC 9293 §3.8.6: SHLD-16, MAY-7).
    pub(crate) fn enter_loss(&mut self, is_timeout: bool, shared: &mut Shared, now: Instant) {
        let (una, nxt, mss, is_repeated) =
            (self.snd.una, self.snd.nxt, u32::from(self.mss), self.retransmits > 1);
        self.dup_acks = 0;
        if self.recovery.is_none() {
            self.begin_ranges(una, shared);
        }
        let was_loss = self.mode() == Mode::Loss;
        let (rtt_min_us, srtt_us) = (self.rtt.min_us().unwrap_or(0), self.rtt.srtt_us().unwrap_or(0));
        let (has_sack, reordering) = (self.has_sack, self.reordering());
        let flight_size = self.flight_size();
        let Some(recovery) = &mut self.recovery else { return };
        let Recovery { flight, rack, rate, .. } = &mut **recovery;
        let cc = &mut self.cc;
        let on_lost = |sent: &Sent, len| cc.on_lost(now, &rate.on_lost(&sent.snapshot, len));
        if flight.has_reneged() || is_repeated {
            // RFC 2018 §8: what was SACKed may be gone.
            flight.forget_sacked();
        }
        if is_timeout && has_sack {
            rack.mark_on_rto(now, flight, mss, rtt_min_us, srtt_us, reordering, on_lost);
        } else {
            flight.mark_lost(nxt, |_, _| true, on_lost);
        }
        recovery.probe = None;
        recovery.must_retransmit = true;
        recovery.duplicates.clear();
        // RFC 5682 §2.1 step 1: not when it times out again, nor after a recovery that had sent more again.
        recovery.is_frto = is_timeout && recovery.mode == Mode::Open && flight_size > mss;
        if !is_timeout {
            // Congestion control did nothing that could be undone.
            recovery.undo = Undo::default();
        } else if !was_loss || una.at_or_after(recovery.recovery_point) {
            let (pending, first) = recovery.flight.repeated(mss);
            let first_tsval = timestamp_clock(first, self.ts.offset);
            recovery.undo = Undo::begin(una, pending, first_tsval);
        }
        recovery.mode = Mode::Loss;
        recovery.recovery_point = nxt;
    }
}

/// Whether the first block reports a duplicate (RFC 2883 §4): it is below the acknowledgment, or inside the second.
fn is_dsack(first: (SeqNum, SeqNum), second: Option<&(SeqNum, SeqNum)>, ack: SeqNum) -> bool {
    first.1.at_or_before(ack)
        || second.is_some_and(|second| second.0.at_or_before(first.0) && second.1.at_or_after(first.1))
}
