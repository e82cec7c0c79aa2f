//! What may be sent now (RFC 9293 §3.8): segment sizes, windows, Nagle, silly windows, retransmission, probes, FIN.

use core::net::IpAddr;

use hoststack_transport::{CloseReason, FlowKey, Instant, Key, SessionLayer, Transmitted};
use hoststack_wire::{Flags, Options, SackBlocks, SegmentHeader, SeqNum, Timestamps};

use crate::congestion::CongestionControl;
use crate::connection::{Connection, Fate, Mode};
use crate::engine::{Output, Shared};
use crate::isn::timestamp_clock;
use crate::recovery::NextSeg;
use crate::seed::Syn;
use crate::state::{State, StateEvent};
use crate::timers::Purpose;

/// No segment is made smaller than this for a limit's sake, whatever a peer or a router says: with one byte a segment, a
/// peer could have a megabyte cost a million packets and as many scoreboard entries (CVE-2019-11479).
pub(crate) const MSS_LEAST: u16 = 64;
/// What the timestamps option takes, padded (RFC 7323 appendix A).
pub(crate) const TIMESTAMPS_LEN: u16 = 12;

/// The MSS to announce on a path of `mtu`: without IP and TCP options (RFC 6691 §2, RFC 9293 §3.7.1).
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
    // RFC 9293 §3.7.1 (MUST-15): without the option, 536 over IPv4 and 1220 over IPv6.
    let peer = peer.unwrap_or(match flow.remote.addr {
        IpAddr::V4(_) => 536,
        IpAddr::V6(_) => 1220,
    });
    let options = if timestamps { TIMESTAMPS_LEN } else { 0 };
    local_mss(flow, mtu, Some(max)).min(peer.max(MSS_LEAST)).saturating_sub(options).max(MSS_LEAST)
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
}

/// What to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// `len` new bytes, and the FIN after them.
    New { len: u32, fin: bool },
    /// `len` sequence numbers from `seq` again.
    Again { seq: SeqNum, len: u32, is_rescue: bool },
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
        let mut result = Transmitted::Idle;
        if self.may_send() {
            let data_end = self.snd.una + layer.tx_len(self.session);
            self.restart_after_idle(now, data_end, shared);
            let limit = loop {
                let next = self.next(data_end);
                if let Next::Wait(limit) = next {
                    break Some(limit);
                }
                if sent == burst || out.room() == 0 {
                    result = Transmitted::More;
                    break None;
                }
                self.send_next(id, next, data_end, shared, now, layer, out);
                sent += 1;
            };
            if let Some(limit) = limit {
                self.is_cwnd_limited = limit == Limit::Congestion;
            }
            self.start_timer(now, limit == Some(Limit::Window), shared);
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

    /// What to send next.
    fn next(&self, data_end: SeqNum) -> Next {
        let new = self.next_new(data_end);
        let mss = u32::from(self.mss);
        let cwnd = self.cc.window();
        let Some(recovery) = &self.recovery else {
            return match new {
                Err(limit) => Next::Wait(limit),
                Ok((len, fin)) if self.fits(self.flight_size(), len, cwnd) => Next::New { len, fin },
                Ok(_) => Next::Wait(Limit::Congestion),
            };
        };
        let board = &recovery.board;
        if recovery.mode == Mode::Open {
            // RFC 3042 limited transmit: with SACK, what was SACKed has left the network; without, each of the first
            // two duplicates lets a segment out.
            let pipe = self.flight_size().saturating_sub(board.sacked_bytes());
            let more = if self.has_sack { 0 } else { u32::from(self.dup_acks.min(2)) * mss };
            return match new {
                Err(limit) => Next::Wait(limit),
                Ok((len, fin)) if self.fits(pipe, len, cwnd.saturating_add(more)) => Next::New { len, fin },
                Ok(_) => Next::Wait(Limit::Congestion),
            };
        }
        if recovery.must_retransmit
            && let Some((seq, end)) = board.next_unsacked(self.snd.una, self.snd.nxt)
        {
            // RFC 6675 §5 (4.3), RFC 6582 §3.2: the first segment goes whatever the window.
            return Next::Again { seq, len: end.since(seq).min(mss), is_rescue: false };
        }
        let pipe = recovery.duplicates.pipe(board.pipe(self.snd.una, self.snd.nxt, mss));
        // RFC 6675 §5 (C): while cwnd - pipe >= 1 SMSS.
        if pipe > 0 && pipe + mss > cwnd {
            return Next::Wait(Limit::Congestion);
        }
        match (board.next_seg(self.snd.una, self.snd.nxt, mss, new.is_ok()), new) {
            (Some(NextSeg::Retransmit { seq, len }), _) => Next::Again { seq, len, is_rescue: false },
            // What was sent again in this recovery already is no rescue.
            (Some(NextSeg::Rescue { seq, len }), _) if seq.at_or_after(board.high_rxt) => {
                Next::Again { seq, len, is_rescue: true }
            }
            (Some(NextSeg::New), Ok((len, fin))) => Next::New { len, fin },
            (_, Err(limit)) => Next::Wait(limit),
            (_, Ok(_)) => Next::Wait(Limit::Congestion),
        }
    }

    /// Whether `len` more bytes fit into cwnd. A small rest does not go alone because cwnd is nearly full.
    fn fits(&self, pipe: u32, len: u32, cwnd: u32) -> bool {
        pipe == 0 || len == 0 || pipe.saturating_add(len) <= cwnd
    }

    /// The new data that the peer's window, silly window avoidance and Nagle allow: length, and whether the FIN ends
    /// it (RFC 9293 §3.7.4, §3.8.6.2.1).
    fn next_new(&self, data_end: SeqNum) -> Result<(u32, bool), Limit> {
        if self.is_fin_sent {
            return Err(Limit::Nothing);
        }
        let unsent = distance(self.snd.nxt, data_end);
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
        let fin = is_rest && self.is_fin_wanted && usable > len;
        let is_quiet = self.is_nodelay || self.snd.nxt == self.snd.una;
        // (1) A full segment; (2) all there is, which we always push, if Nagle agrees; a FIN makes it worth sending.
        if len == u32::from(self.mss) || (is_rest && (is_quiet || self.is_fin_wanted)) {
            return Ok((len, fin));
        }
        if is_rest {
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
            Next::Again { seq, len, is_rescue } => {
                let sent = self.send_again(seq, len, data_end, shared, now, layer, out);
                if let Some(recovery) = &mut self.recovery {
                    recovery.must_retransmit = false;
                    if is_rescue {
                        recovery.board.on_rescued();
                    } else {
                        recovery.board.on_retransmitted(seq, sent.max(len));
                    }
                }
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
        self.snd.nxt += len + u32::from(fin);
        if fin {
            self.is_fin_sent = true;
            self.enter(id, StateEvent::SendFin);
        }
        if self.timed_at == Instant::FAR {
            self.timed_at = now;
            self.timed_end = self.snd.nxt;
        }
        shared.counters.bytes_out += u64::from(len);
        self.send_range(seq, len, fin, data_end, shared, now, layer, out);
    }

    /// Sends up to `len` sequence numbers from `seq` again, the FIN included if they reach it; returns how many.
    fn send_again<L: SessionLayer, O: Output>(
        &mut self,
        seq: SeqNum,
        len: u32,
        data_end: SeqNum,
        shared: &mut Shared,
        now: Instant,
        layer: &L,
        out: &mut O,
    ) -> u32 {
        let data = distance(seq, data_end).min(len);
        let fin = self.is_fin_sent && seq + data == data_end;
        // Karn: what was being timed may be this.
        self.timed_at = Instant::FAR;
        shared.counters.retransmitted_segments += 1;
        shared.counters.retransmitted_bytes += u64::from(data);
        self.send_range(seq, data, fin, data_end, shared, now, layer, out);
        data + u32::from(fin)
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
            // RFC 9293 §3.9.1.2: the last segment of what the app queued is pushed.
            flags = flags | Flags::PSH;
        }
        let header = self.header(seq, flags, len, now, layer);
        shared.counters.segments_out += 1;
        self.last_sent = now;
        self.cc.on_sent(now, len, self.flight_size());
        let (session, offset) = (self.session, seq.since(self.snd.una));
        out.send(&self.flow, &header, len as usize, |into| layer.tx_copy(session, offset, into));
    }

    /// A header that acknowledges all that was received: nothing else of the kind need be sent.
    fn header<L: SessionLayer>(
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

    /// The window field for `room` bytes of room: the right edge never moves back (RFC 9293 SHLD-14), and forward only by
    /// a worthwhile step (§3.8.6.2.2, MUST-39).
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
        send_bare(shared, &self.flow, &header, out);
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
    fn start_timer(&mut self, now: Instant, is_window_closed: bool, shared: &Shared) {
        let wanted = if self.is_probing {
            Purpose::Persist
        } else if self.flight_size() > 0 {
            Purpose::Retransmit
        } else if is_window_closed {
            Purpose::Persist
        } else {
            // Keeps a FIN-WAIT-2 timer; anything else has nothing to wait for.
            if self.purpose != Purpose::FinWait2 {
                self.stop_timer();
            }
            return;
        };
        // RFC 6298 (5.1): started if it is not running.
        if self.purpose != wanted {
            self.purpose = wanted;
            self.restart_timer(now, shared);
        }
    }

    pub(crate) fn restart_timer(&mut self, now: Instant, shared: &Shared) {
        self.retransmit_at = now.plus_micros(self.rtt.rto_us(&shared.rto).into());
    }

    pub(crate) fn stop_timer(&mut self) {
        self.purpose = Purpose::None;
        self.retransmit_at = Instant::FAR;
    }

    /// In FIN-WAIT-2 with no app, the peer's FIN is not waited for without end.
    pub(crate) fn start_fin_wait_2_timer(&mut self, now: Instant, shared: &Shared) {
        if self.state == State::FinWait2 && self.is_app_closed && self.purpose == Purpose::None {
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
        let is_exhausted = self.retransmits >= shared.config.retransmits_max;
        match purpose {
            Purpose::None => return Fate::Lives,
            Purpose::FinWait2 => {
                self.enter(id, StateEvent::Expire);
                return Fate::Closed(CloseReason::TimedOut);
            }
            // RFC 9293 §3.8.3 (MUST-20): R2 is reached.
            Purpose::Retransmit | Purpose::Persist if is_exhausted => {
                self.enter(id, StateEvent::Expire);
                return Fate::Closed(if self.is_unreachable {
                    CloseReason::Unreachable
                } else {
                    CloseReason::TimedOut
                });
            }
            Purpose::Retransmit | Purpose::Persist => {}
        }
        self.retransmits += 1;
        self.rtt.back_off();
        self.timed_at = Instant::FAR;
        if self.state == State::SynReceived {
            shared.counters.rtos += 1;
            shared.counters.retransmitted_segments += 1;
            self.send_syn_ack(shared, now, out);
        } else if purpose == Purpose::Persist {
            self.probe(id, shared, now, layer, out);
        } else {
            shared.counters.rtos += 1;
            self.cc.on_rto(now, self.flight_size());
            self.lose_all(shared);
            if self.transmit(id, shared, now, 1, layer, out) == Transmitted::More {
                layer.program_tx(self.session);
            }
        }
        if self.purpose != Purpose::None {
            self.restart_timer(now, shared);
        }
        Fate::Lives
    }

    /// All that is in flight counts as lost: it is sent again from SND.UNA on, as cwnd allows (RFC 6298 (5.4),
    /// RFC 6675 §5.1).
    pub(crate) fn lose_all(&mut self, shared: &mut Shared) {
        let (una, nxt, is_repeated) = (self.snd.una, self.snd.nxt, self.retransmits > 1);
        self.dup_acks = 0;
        self.timed_at = Instant::FAR;
        let recovery = self.recovery_mut(shared);
        if is_repeated {
            // RFC 2018 §8: what was SACKed may be gone.
            recovery.board.clear();
        }
        recovery.board.on_rto(una, nxt);
        recovery.duplicates.clear();
        recovery.must_retransmit = false;
        recovery.mode = Mode::Loss;
    }

    /// Something waits for the peer's window, which is closed or silly: send what little may be sent, one byte or the
    /// FIN at least (RFC 9293 §3.8.6.1, MUST-35 to 37).
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
        if self.is_probing {
            // The probe is not a sample: the peer may answer when its window opens.
            self.timed_at = Instant::FAR;
        } else {
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

/// From `from` to `to`; zero if `to` is not after it.
#[inline]
fn distance(from: SeqNum, to: SeqNum) -> u32 {
    if to.after(from) { to.since(from) } else { 0 }
}
