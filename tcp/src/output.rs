//! What may be sent now (RFC 9293 §3.8): segment sizes, windows, Nagle, silly windows, retransmission, probes, FIN.

use core::net::IpAddr;

use hoststack_transport::{CloseReason, FlowKey, Instant, Key, SessionLayer, Transmitted};
use hoststack_wire::{Flags, Options, SackBlocks, SegmentHeader, SeqNum, Timestamps};

use crate::congestion::CongestionControl;
use crate::connection::{Connection, Fate};
use crate::engine::{Output, Shared};
use crate::isn::timestamp_clock;
use crate::pmtud::ProbeStep;
use crate::recovery::Mode;
use crate::recovery::flight::Sent;
use crate::recovery::tlp::{TailProbe, probe_timeout_us};
use crate::seed::Syn;
use crate::state::{State, StateEvent};
use crate::timers::Purpose;

/// No segment is made smaller than this for a limit's sake, whatever a peer or a router says: with one byte a segment, a
/// peer could have a megabyte cost a million packets and as many scoreboard entries (CVE-2019-11479).
pub(crate) const MSS_LEAST: u16 = 64;
/// What the timestamps option takes, padded (RFC 7323 appendix A).
pub(crate) const TIMESTAMPS_LEN: u16 = 12;

/// The MSS to announce on a path of `mtu`: without IP and TCP options (RFC 6691 §2, RFC 9293 §3.7.1: MUST-67). Nothing
/// is reassembled here, so that MMS_R is the MTU's.
pub(crate) fn local_mss(flow: &FlowKey, mtu: u16, max: Option<u16>) -> u16 {
    let fixed = match flow.remote.addr {
        IpAddr::V4(_) => 40,
        IpAddr::V6(_) => 60,
    };
    let mss = mtu.saturating_sub(fixed).max(MSS_LEAST);
    max.map_or(mss, |max| mss.min(max.max(MSS_LEAST)))
}

/// Eff.snd.MSS (RFC 9293 §3.7.1, MUST-16): payload bytes of a full segment.
pub(crate) fn send_mss(flow: &FlowKey, mtu: u16, max: u16, peer: Option<u16>, timestamps: bool) -> u16 {
    let options = if timestamps { TIMESTAMPS_LEN } else { 0 };
    local_mss(flow, mtu, Some(max)).min(peer_mss(flow, peer)).saturating_sub(options).max(MSS_LEAST)
}

/// The peer's MSS as announced, or what stands for it.
pub(crate) fn peer_mss(flow: &FlowKey, announced: Option<u16>) -> u16 {
    // RFC 9293 §3.7.1 (MUST-15): without the option, 536 over IPv4 and 1220 over IPv6.
    let peer = announced.unwrap_or(match flow.remote.addr {
        IpAddr::V4(_) => 536,
        IpAddr::V6(_) => 1220,
    });
    peer.max(MSS_LEAST)
}

/// <SEQ=SEG.ACK><CTL=RST>, or <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK> (RFC 9293 §3.10.7.1).
pub(crate) fn reset_for(header: &SegmentHeader, len: u32) -> SegmentHeader {
    let (seq, ack, flags) = if header.flags.has(Flags::ACK) {
        (header.ack, SeqNum(0), Flags::RST)
    } else {
        (SeqNum(0), header.seq + len, Flags::RST | Flags::ACK)
    };
    SegmentHeader {
        src_port: header.dst_port,
        dst_port: header.src_port,
        seq,
        ack,
        flags,
        wnd: 0,
        urgent: 0,
        options: Options::default(),
    }
}

/// Sends a segment without payload.
pub(crate) fn send_bare<O: Output>(shared: &mut Shared, flow: &FlowKey, header: &SegmentHeader, out: &mut O) {
    shared.counters.segments_out += 1;
    if header.flags.has(Flags::RST) {
        shared.counters.resets_out += 1;
    } else if !header.flags.has_any(Flags::SYN | Flags::FIN) {
        shared.counters.pure_acks_out += 1;
    }
    out.send(flow, header, 0, |_| ());
}

/// Sends a half-open's SYN, with its data if it has any (RFC 7413 §4.2.1).
pub(crate) fn send_syn<O: Output>(shared: &mut Shared, syn: &Syn, out: &mut O) {
    let payload = syn.payload();
    shared.counters.segments_out += 1;
    shared.counters.bytes_out += payload.len() as u64;
    shared.counters.fast_opens_out += u64::from(!payload.is_empty());
    out.send(&syn.flow, &syn.header, payload.len(), |into| into.copy_from_slice(payload));
}

/// Why nothing (more) is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// There is nothing to send.
    Nothing,
    /// cwnd.
    Congestion,
    /// The peer's window, or silly window avoidance.
    Window,
    /// Nagle: a small segment waits for the acknowledgment of what is in flight.
    Nagle,
    /// The app corked it: only full segments go.
    Cork,
    /// Pacing: not yet.
    Pace,
}

/// What to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// `len` new bytes, and the FIN after them.
    New { len: u32, fin: bool },
    /// `len` sequence numbers from `seq` again.
    Again { seq: SeqNum, len: u32 },
    /// Nothing.
    Wait(Limit),
}

impl Connection {
    /// Sends what may be sent, at most `burst` segments.
    pub(crate) fn transmit<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        burst: usize,
        layer: &L,
        out: &mut O,
    ) -> Transmitted {
        let mut sent = 0;
        let nxt_before = self.snd.nxt;
        let mut result = Transmitted::Idle;
        if self.may_send() {
            self.follow_path_mtu(now, out);
            let data_end = self.snd.una + layer.tx_len(self.session);
            self.restart_after_idle(now, data_end, shared);
            let is_corked = self.is_corked(now);
            let limit = loop {
                let next = self.next(data_end, is_corked);
                let next = self.with_mtu_probe(next, data_end, now);
                if let Next::Wait(limit) = next {
                    break Some(limit);
                }
                if self.is_paced_out(now) {
                    self.paced_until = self.pace_at;
                    break Some(Limit::Pace);
                }
                if sent == burst || out.room() == 0 {
                    result = Transmitted::More;
                    break None;
                }
                self.send_next(id, next, data_end, shared, now, layer, out);
                sent += 1;
            };
            if let Some(limit) = limit {
                self.note_corked(now, limit == Limit::Cork);
                self.is_cwnd_limited = matches!(limit, Limit::Congestion | Limit::Pace);
                if matches!(limit, Limit::Nothing | Limit::Nagle | Limit::Cork)
                    && let Some(recovery) = &mut self.recovery
                {
                    // All that was lost was sent again, and cwnd has room: the app is the limit.
                    recovery.rate.mark_app_limited(recovery.flight.pipe());
                }
            }
            self.start_timer(now, limit == Some(Limit::Window), self.snd.nxt != nxt_before, shared);
        }
        if sent == 0 && self.state.can_receive() && self.is_window_update_due(layer.rx_room(self.session)) {
            if out.room() > 0 {
                self.send_ack(shared, now, layer, out);
            } else {
                self.program_ack(id, shared);
            }
        }
        self.arm(id, shared);
        result
    }

    /// Whether the state allows data or a FIN to go out, new or again.
    fn may_send(&self) -> bool {
        matches!(
            self.state,
            State::Established | State::CloseWait | State::FinWait1 | State::Closing | State::LastAck
        )
    }

    /// Whether something waits that [`Connection::transmit`] might send.
    pub(crate) fn has_to_send(&self, tx_len: u32) -> bool {
        self.may_send()
            && (self.mode() != Mode::Open
                || (!self.is_fin_sent && (self.is_fin_wanted || tx_len > self.flight_size())))
    }

    fn restart_after_idle(&mut self, now: Instant, data_end: SeqNum, shared: &Shared) {
        let idle_us = now.micros_since(self.last_sent);
        if self.flight_size() == 0
            && data_end.after(self.snd.nxt)
            && idle_us > u64::from(self.rtt.rto_us(&shared.rto))
        {
            self.cc.on_idle_restart(now);
            self.last_sent = now;
        }
    }

    /// Bytes in the network: RFC 6675's pipe; without SACK, less what duplicate ACKs speak for.
    pub(crate) fn pipe(&self) -> u32 {
        match &self.recovery {
            None => self.flight_size(),
            Some(recovery) if self.has_sack => recovery.flight.pipe(),
            Some(recovery) => recovery.duplicates.pipe(recovery.flight.pipe()),
        }
    }

    /// cwnd: congestion control's, or in fast recovery that of RFC 6937.
    pub(crate) fn window(&self) -> u32 {
        match &self.recovery {
            Some(recovery) if recovery.mode == Mode::Fast && self.has_sack && self.cc.uses_prr() => {
                recovery.prr.window()
            }
            _ => self.cc.window(),
        }
    }

    /// What to send next. What was SACKed has left the network and so lets new data out before anything counts as
    /// lost, as the first duplicates do without SACK: that is limited transmit (RFC 3042).
    fn next(&self, data_end: SeqNum, is_corked: bool) -> Next {
        let new = self.next_new(data_end, is_corked);
        let mss = u32::from(self.mss);
        let (pipe, cwnd) = (self.pipe(), self.window());
        if let Some(recovery) = &self.recovery
            && recovery.mode != Mode::Open
            && let Some((seq, len)) = recovery.flight.next_lost(mss)
        {
            if recovery.must_retransmit {
                // RFC 6675 §5 (4.3), RFC 6582 §3.2, RFC 6298 (5.4): the first segment goes whatever the window.
                return Next::Again { seq, len };
            }
            if recovery.is_frto {
                // RFC 5682 §2.1 step 2: new data tells whether the timeout was spurious, if there is any.
                let has_sent_new = self.snd.nxt.after(recovery.recovery_point);
                match new {
                    Ok((len, fin)) if self.fits(pipe, len, cwnd) => return Next::New { len, fin },
                    _ if has_sent_new => return Next::Wait(Limit::Congestion),
                    _ => {}
                }
            }
            if pipe == 0 || pipe + len <= cwnd {
                return Next::Again { seq, len };
            }
            return Next::Wait(Limit::Congestion);
        }
        match new {
            Err(limit) => Next::Wait(limit),
            Ok((len, fin)) if self.fits(pipe, len, cwnd) => Next::New { len, fin },
            Ok(_) => Next::Wait(Limit::Congestion),
        }
    }

    /// A full segment of new data may go as a larger one (`pmtud`).
    #[inline]
    fn with_mtu_probe(&mut self, next: Next, data_end: SeqNum, now: Instant) -> Next {
        if !matches!(next, Next::New { len, .. } if len == u32::from(self.mss)) || self.extras.is_none() {
            return next;
        }
        match self.mtu_probe_step(data_end, now) {
            ProbeStep::None => next,
            ProbeStep::Send { len } => Next::New { len, fin: false },
            ProbeStep::AwaitCongestionWindow => Next::Wait(Limit::Congestion),
            ProbeStep::AwaitWindow => Next::Wait(Limit::Window),
        }
    }

    /// Whether `len` more bytes fit into cwnd. A small rest does not go alone because cwnd is nearly full.
    fn fits(&self, pipe: u32, len: u32, cwnd: u32) -> bool {
        pipe == 0 || len == 0 || pipe.saturating_add(len) <= cwnd
    }

    /// The new data that the peer's window, silly window avoidance and Nagle allow: length, and whether the FIN ends
    /// it (RFC 9293 §3.7.4, SHLD-7; §3.8.6.2.1, MUST-38).
    fn next_new(&self, data_end: SeqNum, is_corked: bool) -> Result<(u32, bool), Limit> {
        if self.is_fin_sent {
            return Err(Limit::Nothing);
        }
        let unsent = distance(self.snd.nxt, data_end);
        // RFC 9293 §3.8.6 (SHLD-15): none, if the window shrank below what was sent.
        let usable = distance(self.snd.nxt, self.snd.una + self.snd.wnd);
        let len = unsent.min(usable).min(u32::from(self.mss));
        if len == 0 {
            return match (unsent, self.is_fin_wanted) {
                (0, false) => Err(Limit::Nothing),
                (0, true) if usable > 0 => Ok((0, true)),
                _ => Err(Limit::Window),
            };
        }
        let is_rest = len == unsent;
        if is_rest && is_corked && len < u32::from(self.mss) && !self.is_fin_wanted {
            return Err(Limit::Cork);
        }
        let fin = is_rest && self.is_fin_wanted && usable > len;
        // RFC 9293 §3.7.4 (MUST-17): the app may switch Nagle off.
        let is_quiet = self.is_nodelay || self.snd.nxt == self.snd.una;
        // (1) A full segment (SHLD-28); (2) all there is, which we always push, if Nagle agrees; a FIN makes it worth sending.
        if len == u32::from(self.mss) || (is_rest && (is_quiet || self.is_fin_wanted)) {
            return Ok((len, fin));
        }
        if is_rest {
            // MAY-16; not for ever (§3.9.1.2, MUST-60): until what is in flight is acknowledged.
            return Err(Limit::Nagle);
        }
        // (3) The window is small but at least half of the largest one seen. Otherwise the persist timer overrides.
        if is_quiet && len >= self.snd.wnd_max / 2 { Ok((len, false)) } else { Err(Limit::Window) }
    }

    fn send_next<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        next: Next,
        data_end: SeqNum,
        shared: &mut Shared,
        now: Instant,
        layer: &L,
        out: &mut O,
    ) {
        match next {
            Next::New { len, fin } => self.send_new(id, len, fin, data_end, shared, now, layer, out),
            Next::Again { seq, len } => {
                self.send_again(seq, len, data_end, shared, now, layer, out);
            }
            Next::Wait(_) => {}
        }
    }

    /// Sends `len` bytes from SND.NXT on, then the FIN if asked.
    fn send_new<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        len: u32,
        fin: bool,
        data_end: SeqNum,
        shared: &mut Shared,
        now: Instant,
        layer: &L,
        out: &mut O,
    ) {
        let seq = self.snd.nxt;
        self.note_len_sent(seq, len, shared);
        self.note_sent_new(len + u32::from(fin), shared, now);
        if fin {
            self.is_fin_sent = true;
            self.enter(id, StateEvent::SendFin);
        }
        shared.counters.bytes_out += u64::from(len);
        self.send_range(seq, len, fin, data_end, shared, now, layer, out);
    }

    /// SND.NXT moves by `len`.
    fn note_sent_new(&mut self, len: u32, shared: &mut Shared, now: Instant) {
        if self.recovery.is_none() {
            if self.flight_size() == 0 {
                self.flight_at = now;
                self.is_flight_repeated = false;
            }
            let is_one_range = self.flight_at == now && !self.is_flight_repeated;
            if self.cc.needs_rate() || !is_one_range {
                self.begin_ranges(self.snd.una, shared);
            }
        }
        self.note_stalled(now);
        let pipe = self.pipe();
        self.snd.nxt += len;
        if let Some(recovery) = &mut self.recovery {
            let snapshot = recovery.rate.on_sent(now, pipe, len);
            recovery.flight.push(Sent::new(self.snd.nxt, now, snapshot));
            recovery.prr.on_sent(len);
        }
    }

    /// A probe's byte, refused by the peer, counts as not sent.
    pub(crate) fn take_back_probe(&mut self) {
        self.snd.nxt = self.snd.una;
        self.is_probing = false;
        if let Some(recovery) = &mut self.recovery {
            recovery.flight.retract(1);
        }
    }

    /// Sends up to `len` sequence numbers from `seq` again, the FIN included if they reach it.
    fn send_again<L: SessionLayer, O: Output>(
        &mut self,
        seq: SeqNum,
        len: u32,
        data_end: SeqNum,
        shared: &mut Shared,
        now: Instant,
        layer: &L,
        out: &mut O,
    ) {
        let data = distance(seq, data_end).min(len);
        let fin = self.is_fin_sent && seq + data == data_end;
        let len = data + u32::from(fin);
        self.note_len_lost(seq, now);
        let pipe = self.pipe();
        let tsval = timestamp_clock(now, self.ts.offset);
        match &mut self.recovery {
            Some(recovery) => {
                let snapshot = recovery.rate.on_sent(now, pipe, len);
                recovery.flight.on_retransmitted(seq, len, now, snapshot);
                recovery.prr.on_sent(len);
                recovery.undo.on_retransmitted(tsval);
                if !recovery.must_retransmit {
                    recovery.is_frto = false;
                }
                recovery.must_retransmit = false;
            }
            None => {
                self.flight_at = now;
                self.is_flight_repeated = true;
            }
        }
        if seq == self.snd.una && self.purpose == Purpose::Retransmit {
            // The timer is that of the first segment: it was sent just now.
            self.restart_timer(now, shared);
        }
        self.retransmitted_segments = self.retransmitted_segments.saturating_add(1);
        shared.counters.retransmitted_segments += 1;
        shared.counters.retransmitted_bytes += u64::from(data);
        self.send_range(seq, data, fin, data_end, shared, now, layer, out);
    }

    fn send_range<L: SessionLayer, O: Output>(
        &mut self,
        seq: SeqNum,
        len: u32,
        fin: bool,
        data_end: SeqNum,
        shared: &mut Shared,
        now: Instant,
        layer: &L,
        out: &mut O,
    ) {
        let mut flags = Flags::ACK;
        if fin {
            flags = flags | Flags::FIN;
        }
        if len > 0 && seq + len == data_end {
            // RFC 9293 §3.9.1.2 (MUST-61, SHLD-27): the last segment of what the app queued is pushed, and no other.
            flags = flags | Flags::PSH;
        }
        let header = self.header(seq, flags, len, now, layer);
        shared.counters.segments_out += 1;
        self.last_sent = now;
        self.cc.on_sent(now, len, self.flight_size());
        self.pace(now, len);
        let (session, offset) = (self.session, seq.since(self.snd.una));
        out.send(&self.flow, &header, len as usize, |into| layer.tx_copy(session, offset, into));
    }

    /// A header that acknowledges all that was received: nothing else of the kind need be sent.
    pub(crate) fn header<L: SessionLayer>(
        &mut self,
        seq: SeqNum,
        flags: Flags,
        payload_len: u32,
        now: Instant,
        layer: &L,
    ) -> SegmentHeader {
        let wnd = self.announce_window(layer.rx_room(self.session));
        self.is_ack_programmed = false;
        self.ack_at = Instant::FAR;
        self.rcv.last_ack_sent = self.rcv.nxt;
        SegmentHeader {
            src_port: self.flow.local.port,
            dst_port: self.flow.remote.port,
            seq,
            ack: self.rcv.nxt,
            flags,
            wnd,
            urgent: 0,
            options: Options {
                // RFC 9293 §3.2 (MUST-65): no MSS.
                timestamps: self.timestamps(now),
                sack: self.sack_blocks(payload_len, layer),
                ..Options::default()
            },
        }
    }

    fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.has_timestamps
            .then(|| Timestamps { val: timestamp_clock(now, self.ts.offset), ecr: self.ts.recent })
    }

    /// What was received beyond a gap, newest first (RFC 2018 §4), as far as it fits beside the payload.
    fn sack_blocks<L: SessionLayer>(&self, payload_len: u32, layer: &L) -> SackBlocks {
        let mut blocks = SackBlocks::NONE;
        if !self.has_sack {
            return blocks;
        }
        let ranges = layer.rx_ranges(self.session);
        if ranges.is_empty() {
            return blocks;
        }
        let space = if self.has_timestamps { 40 - u32::from(TIMESTAMPS_LEN) } else { 40 };
        let room = space.min(u32::from(self.mss).saturating_sub(payload_len).max(if payload_len == 0 {
            space
        } else {
            0
        }));
        let most = (room.saturating_sub(4) / 8).min(4);
        let mut push = |range: &hoststack_transport::OooRange| {
            let block = (self.rcv.nxt + range.start, self.rcv.nxt + range.end);
            if (blocks.as_slice().len() as u32) < most && !blocks.as_slice().contains(&block) {
                blocks.push(block.0, block.1);
            }
        };
        for recent in self.rcv.recent {
            let offset = recent.since(self.rcv.nxt);
            if let Some(range) = ranges.iter().find(|range| range.start <= offset && offset < range.end) {
                push(range);
            }
        }
        ranges.iter().for_each(&mut push);
        blocks
    }

    /// The window field for `room` bytes of room: the right edge never moves back (RFC 9293 §3.8.6, SHLD-14), and forward
    /// only by a worthwhile step (§3.8.6.2.2, MUST-39). It may stay zero without end (MAY-8).
    fn announce_window(&mut self, room: u32) -> u16 {
        let held = self.rcv_wnd();
        let wnd = if room < held.saturating_add(self.window_step()) { held } else { room };
        let scale = u32::from(self.rcv_scale);
        let mut field = wnd >> scale;
        if field << scale < held {
            // Rounding down would take back what was promised.
            field += 1;
        }
        // More than the field holds is not announced; `held` was announced, so it fits but for a change of scale.
        let field = u16::try_from(field).unwrap_or(u16::MAX);
        self.rcv.edge = self.rcv.edge.max(self.rcv.nxt + (u32::from(field) << scale));
        field
    }

    /// The least step by which the right edge moves.
    fn window_step(&self) -> u32 {
        (self.rx_capacity / 2).min(u32::from(self.peer_segment)).max(1)
    }

    /// Whether the app made so much room that the peer should hear of it without having sent anything: at least as
    /// much again as it knows of.
    fn is_window_update_due(&self, room: u32) -> bool {
        let held = self.rcv_wnd();
        // What the field cannot say is no reason to say it.
        let room = room.min(u32::from(u16::MAX) << self.rcv_scale);
        room >= held.saturating_add(self.window_step()) && room >= held.saturating_mul(2)
    }

    /// Asks for an acknowledgment at the end of the step, unless a segment carries it before.
    #[inline]
    pub(crate) fn program_ack(&mut self, id: Key, shared: &mut Shared) {
        self.is_ack_programmed = true;
        if !self.is_ack_listed {
            self.is_ack_listed = true;
            shared.acks.push(id);
        }
    }

    /// <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>, now.
    pub(crate) fn send_ack<L: SessionLayer, O: Output>(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        layer: &L,
        out: &mut O,
    ) {
        // A probe's byte is taken back in thought: the peer expects it next.
        let seq = if self.is_probing { self.snd.una } else { self.snd.nxt };
        let header = self.header(seq, Flags::ACK, 0, now, layer);
        self.send_without_data(shared, &header, out);
    }

    /// Sends a segment of its own that has no payload.
    pub(crate) fn send_without_data<O: Output>(
        &mut self,
        shared: &mut Shared,
        header: &SegmentHeader,
        out: &mut O,
    ) {
        send_bare(shared, &self.flow, header, out);
    }

    /// A challenge ACK (RFC 5961), at the end of the step, within the connection's limit.
    pub(crate) fn program_challenge_ack(&mut self, id: Key, shared: &mut Shared, now: Instant) {
        let second = (now.as_millis() / 1000) as u32; // modulo 2^32: only compared
        if second != self.challenge_second {
            self.challenge_second = second;
            self.challenges = 0;
        }
        if self.challenges >= shared.config.challenge_acks_per_second {
            shared.drops.count(crate::drop_reason::DropReason::ChallengeLimited);
            return;
        }
        self.challenges += 1;
        shared.counters.challenge_acks_out += 1;
        self.program_ack(id, shared);
    }

    /// Both SYNs crossed: <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK> (RFC 9293 §3.10.7.3, fourth).
    pub(crate) fn send_syn_ack<O: Output>(&mut self, shared: &mut Shared, now: Instant, out: &mut O) {
        let local_mss = local_mss(&self.flow, out.path_mtu(&self.flow), Some(self.mss_max));
        let header = SegmentHeader {
            src_port: self.flow.local.port,
            dst_port: self.flow.remote.port,
            seq: self.iss,
            ack: self.rcv.nxt,
            flags: Flags::SYN | Flags::ACK,
            wnd: u16::try_from(self.rcv_wnd()).unwrap_or(u16::MAX),
            urgent: 0,
            options: Options {
                // RFC 9293 §3.7.1 (MUST-14, SHLD-5, MAY-3): in every SYN.
                mss: Some(local_mss),
                window_scale: self.has_scaling.then_some(self.rcv_scale),
                sack_permitted: self.has_sack,
                timestamps: self.timestamps(now),
                profile: shared.config.option_profile,
                ..Options::default()
            },
        };
        if self.purpose == Purpose::None {
            self.purpose = Purpose::Retransmit;
            self.retransmit_at = now.plus_micros(self.rtt.rto_us(&shared.rto).into());
        }
        send_bare(shared, &self.flow, &header, out);
    }

    /// <SEQ=SND.NXT><ACK=RCV.NXT><CTL=RST,ACK>.
    pub(crate) fn send_reset<O: Output>(&mut self, shared: &mut Shared, now: Instant, out: &mut O) {
        let header = SegmentHeader {
            src_port: self.flow.local.port,
            dst_port: self.flow.remote.port,
            seq: self.snd.nxt,
            ack: self.rcv.nxt,
            flags: Flags::RST | Flags::ACK,
            wnd: 0,
            urgent: 0,
            options: Options { timestamps: self.timestamps(now), ..Options::default() },
        };
        send_bare(shared, &self.flow, &header, out);
    }

    /// After sending, or failing to: the timer for what is in flight, or for the window that must open.
    fn start_timer(&mut self, now: Instant, is_window_closed: bool, has_sent_new: bool, shared: &Shared) {
        if self.is_probing {
            if self.purpose != Purpose::Persist {
                self.purpose = Purpose::Persist;
                self.restart_timer(now, shared);
            }
            // RFC 9293 §3.8.6.1 (SHLD-29): the first probe after one timeout.
        } else if self.flight_size() > 0 {
            // RFC 6298 (5.1): started if it is not running. RFC 8985 §7.2: a probe is for the newest data.
            if !matches!(self.purpose, Purpose::Retransmit | Purpose::Reordering | Purpose::TailProbe)
                || (self.purpose == Purpose::TailProbe && has_sent_new)
            {
                self.purpose = Purpose::None;
                self.set_retransmit_timer(now, None, true, shared);
            }
        } else if is_window_closed {
            if self.purpose != Purpose::Persist {
                self.purpose = Purpose::Persist;
                self.note_stalled(now);
                self.restart_timer(now, shared);
            }
        } else if !matches!(self.purpose, Purpose::FinWait2) {
            // Anything else has nothing to wait for.
            self.stop_timer();
        }
    }

    /// The timer for what is in flight: the reordering timer if more may be lost in `wait_us` (RFC 8985 §6.2), else a
    /// tail loss probe if one may be sent (§7.2), else the retransmission timer. `has_progressed` starts them anew.
    pub(crate) fn set_retransmit_timer(
        &mut self,
        now: Instant,
        wait_us: Option<u64>,
        has_progressed: bool,
        shared: &Shared,
    ) {
        if self.is_probing || self.flight_size() == 0 {
            return;
        }
        let rto_us = u64::from(self.rtt.rto_us(&shared.rto));
        let was = self.purpose;
        let rto_at = match was {
            _ if has_progressed => now.plus_micros(rto_us),
            Purpose::Retransmit => self.retransmit_at,
            _ => {
                let first = self.recovery.as_ref().and_then(|recovery| recovery.first_sent_at());
                first.unwrap_or(self.flight_at).plus_micros(rto_us).max(now)
            }
        };
        if let Some(wait_us) = wait_us {
            self.purpose = Purpose::Reordering;
            self.retransmit_at = now.plus_micros(wait_us.max(1));
        } else if self.may_probe_tail(shared) {
            if has_progressed || was != Purpose::TailProbe {
                let is_single = self.flight_size() <= u32::from(self.mss);
                let left_us = rto_at.micros_since(now);
                self.purpose = Purpose::TailProbe;
                self.retransmit_at =
                    now.plus_micros(probe_timeout_us(self.rtt.srtt_us(), is_single, left_us));
            }
        } else {
            self.purpose = Purpose::Retransmit;
            self.retransmit_at = rto_at;
        }
        self.limit_by_user_timeout();
    }

    /// RFC 8985 §7.2: nothing is amiss, and no probe is out.
    fn may_probe_tail(&self, shared: &Shared) -> bool {
        self.has_sack
            && shared.config.tail_loss_probe
            && self.rtt.back_offs() == 0
            && self.may_send()
            && self.recovery.as_ref().is_none_or(|recovery| {
                recovery.mode == Mode::Open && recovery.probe.is_none() && recovery.flight.sacked() == 0
            })
    }

    pub(crate) fn restart_timer(&mut self, now: Instant, shared: &Shared) {
        self.retransmit_at = now.plus_micros(self.rtt.rto_us(&shared.rto).into());
        self.limit_by_user_timeout();
    }

    /// Nothing that was sent, or must be, needs a timer.
    pub(crate) fn stop_timer(&mut self) {
        self.purpose = Purpose::None;
        self.retransmit_at = Instant::FAR;
        self.start_keepalive_timer();
    }

    /// In FIN-WAIT-2 with no app, the peer's FIN is not waited for without end.
    pub(crate) fn start_fin_wait_2_timer(&mut self, now: Instant, shared: &Shared) {
        if self.state == State::FinWait2
            && self.is_app_closed
            && matches!(self.purpose, Purpose::None | Purpose::Keepalive)
        {
            self.purpose = Purpose::FinWait2;
            self.retransmit_at = now + shared.config.fin_wait_2;
        }
    }

    /// The retransmission timer expired.
    pub(crate) fn on_retransmit_timer<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        layer: &mut L,
        out: &mut O,
    ) -> Fate {
        let purpose = self.purpose;
        let is_exhausted = self.is_given_up(now).unwrap_or(self.retransmits >= shared.config.retransmits_max);
        match purpose {
            Purpose::None => return Fate::Lives,
            Purpose::FinWait2 => {
                self.enter(id, StateEvent::Expire);
                return Fate::Closed(CloseReason::TimedOut);
            }
            // RFC 9293 §3.8.3 (MUST-20): R2 is reached.
            Purpose::Retransmit | Purpose::Persist | Purpose::TailProbe | Purpose::Reordering
                if is_exhausted =>
            {
                self.enter(id, StateEvent::Expire);
                return Fate::Closed(if self.is_unreachable {
                    CloseReason::Unreachable
                } else {
                    CloseReason::TimedOut
                });
            }
            Purpose::Keepalive => return self.on_keepalive_timer(id, shared, now, layer, out),
            Purpose::Reordering => {
                self.on_reordering_timer(shared, now);
                layer.program_tx(self.session);
                return Fate::Lives;
            }
            Purpose::TailProbe => {
                self.send_tail_probe(id, shared, now, layer, out);
                return Fate::Lives;
            }
            Purpose::Retransmit | Purpose::Persist => {}
        }
        self.retransmits += 1;
        // RFC 6298 (5.5); of probes RFC 9293 §3.8.6.1 (SHLD-30).
        self.rtt.back_off();
        if self.state == State::SynReceived {
            shared.counters.rtos += 1;
            shared.counters.retransmitted_segments += 1;
            self.send_syn_ack(shared, now, out);
        } else if purpose == Purpose::Persist {
            self.probe(id, shared, now, layer, out);
        } else {
            shared.counters.rtos += 1;
            self.cc.on_rto(now, self.used_window(self.flight_size()));
            self.on_pmtud_timeout(now);
            self.enter_loss(true, shared, now);
            if self.transmit(id, shared, now, 1, layer, out) == Transmitted::More {
                layer.program_tx(self.session);
            }
        }
        if self.purpose != Purpose::None {
            self.restart_timer(now, shared);
        }
        Fate::Lives
    }

    /// RFC 8985 §7.3: one more segment, new if the peer's window lets it, else the last once more.
    fn send_tail_probe<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        layer: &mut L,
        out: &mut O,
    ) {
        let data_end = self.snd.una + layer.tx_len(self.session);
        let mss = u32::from(self.mss);
        self.purpose = Purpose::None;
        let new = self.next_new(data_end, false);
        let last = self.recovery_mut(shared).flight.last_unsacked(mss);
        match (new, last) {
            (Ok((len, fin)), _) => self.send_new(id, len, fin, data_end, shared, now, layer, out),
            (Err(_), Some((seq, len))) => self.send_again(seq, len, data_end, shared, now, layer, out),
            (Err(_), None) => {}
        }
        let probe = TailProbe { end: self.snd.nxt, is_repeated: new.is_err() };
        self.recovery_mut(shared).probe = Some(probe);
        shared.counters.tail_probes += 1;
        self.set_retransmit_timer(now, None, false, shared);
    }

    /// Something waits for the peer's window, which is closed or silly: send what little may be sent, one byte or the
    /// FIN at least (RFC 9293 §3.8.6, MUST-35; §3.8.6.1, MUST-36).
    fn probe<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        layer: &L,
        out: &mut O,
    ) {
        let data_end = self.snd.una + layer.tx_len(self.session);
        shared.counters.probes_out += 1;
        if self.is_probing {
            self.send_again(self.snd.una, 1, data_end, shared, now, layer, out);
            return;
        }
        let unsent = distance(self.snd.nxt, data_end);
        let usable = distance(self.snd.nxt, self.snd.una + self.snd.wnd);
        if unsent > 0 {
            let len = unsent.min(usable.max(1)).min(u32::from(self.mss));
            self.is_probing = usable == 0;
            self.send_new(id, len, false, data_end, shared, now, layer, out);
        } else if self.is_fin_wanted && !self.is_fin_sent {
            self.send_new(id, 0, true, data_end, shared, now, layer, out);
        } else {
            self.stop_timer();
            return;
        }
        if !self.is_probing {
            self.purpose = Purpose::Retransmit;
        }
    }

    /// The delayed acknowledgment is due.
    pub(crate) fn on_ack_timer<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        layer: &L,
        out: &mut O,
    ) {
        self.ack_at = Instant::FAR;
        shared.counters.delayed_acks += 1;
        if out.room() > 0 {
            self.send_ack(shared, now, layer, out);
        } else {
            self.program_ack(id, shared);
        }
    }
}

/// From `from` to `to`; zero if `to` is not after it: a usable window may be negative (RFC 9293 §3.8.6, MUST-34).
#[inline]
pub(crate) fn distance(from: SeqNum, to: SeqNum) -> u32 {
    if to.after(from) { to.since(from) } else { 0 }
}
