//! What may be sent now (RFC 9293 §3.8): segment sizes, windows, Nagle, silly windows, retransmission, probes, FIN.

use core::net::IpAddr;

use hoststack_transport::{FlowKey, Instant, Key, SessionLayer, SocketOptions, Transmitted};
use hoststack_wire::{Flags, IpFields, Options, SegmentHeader, SeqNum};

use crate::congestion::CongestionControl;
use crate::connection::Connection;
use crate::engine::{Output, Shared};
use crate::isn::timestamp_clock;
use crate::pmtud::ProbeStep;
use crate::recovery::Mode;
use crate::recovery::flight::Sent;
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

/// What the app wants of its packets' IP headers: RFC 9293 §3.9.1.9 (MUST-48; SHLD-22: the DSCP as it is), §3.9.2
/// (MUST-49: the TTL).
pub(crate) fn ip_fields(options: &SocketOptions) -> IpFields {
    IpFields { tos: options.dscp << 2, ttl: options.ttl.max(1) }
}

/// Sends a segment without payload.
pub(crate) fn send_bare<O: Output>(
    shared: &mut Shared,
    flow: &FlowKey,
    header: &SegmentHeader,
    ip: IpFields,
    out: &mut O,
) {
    shared.counters.segments_out += 1;
    if header.flags.has(Flags::RST) {
        shared.counters.resets_out += 1;
    } else if !header.flags.has_any(Flags::SYN | Flags::FIN) {
        shared.counters.pure_acks_out += 1;
    }
    out.send(flow, header, ip, 0, |_| ());
}

/// Sends a half-open's SYN, with its data if it has any (RFC 7413 §4.2.1).
pub(crate) fn send_syn<O: Output>(shared: &mut Shared, syn: &Syn, out: &mut O) {
    let payload = syn.payload();
    shared.counters.segments_out += 1;
    shared.counters.bytes_out += payload.len() as u64;
    shared.counters.fast_opens_out += u64::from(!payload.is_empty());
    out.send(&syn.flow, &syn.header(), syn.ip, payload.len(), |into| into.copy_from_slice(payload));
}

/// Why nothing (more) is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
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
            self.note_urgent(layer.tx_urgent(self.session), shared);
            self.restart_after_idle(now, data_end, shared);
            let is_corked = self.is_corked(now);
            let limit = loop {
                let next = self.next(data_end, is_corked);
                let next = self.with_mtu_probe(next, data_end, now);
                if let Next::Wait(limit) = next {
                    break Some(limit);
                }
                if self.is_paced_out(now) {
                    break Some(Limit::Pace);
                }
                if sent == burst || out.room() == 0 {
                    result = Transmitted::More;
                    break None;
                }
                self.send_next(id, next, data_end, shared, now, layer, out);
                sent += 1;
                if self.snd.nxt == data_end && !self.is_fin_wanted && self.mode() == Mode::Open {
                    // All is sent that there was, and nothing is to go again.
                    break Some(Limit::Nothing);
                }
            };
            if let Some(limit) = limit {
                self.note_corked(now, limit == Limit::Cork, shared);
                if limit != Limit::Pace {
                    self.note_unpaced();
                }
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
        if sent == 0 && self.state.can_receive() && self.is_window_update_due(now, layer) {
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
    pub(crate) fn may_send(&self) -> bool {
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
        if shared.config.idle_restart
            && self.flight_size() == 0
            && data_end.after(self.snd.nxt)
            // Never less: mostly this is all there is to compute.
            && idle_us > u64::from(shared.rto.min_us.min(shared.rto.max_us))
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
            Some(recovery) if recovery.mode == Mode::Open && !self.has_limited_transmit => self.flight_size(),
            Some(recovery) if self.has_sack => recovery.flight.pipe(),
            Some(recovery) => recovery.duplicates.pipe(recovery.flight.pipe()),
        }
    }

    /// cwnd: congestion control's, or in fast recovery that of RFC 6937.
    pub(crate) fn window(&self) -> u32 {
        match &self.recovery {
            Some(recovery)
                if recovery.mode == Mode::Fast && self.has_sack && self.has_prr && self.cc.uses_prr() =>
            {
                recovery.prr.window()
            }
            _ => self.cc.window(),
        }
    }

    /// What to send next. What was SACKed has left the network and so lets new data out before anything counts as
    /// lost, as the first duplicates do without SACK: that is limited transmit (RFC 3042).
    fn next(&mut self, data_end: SeqNum, is_corked: bool) -> Next {
        let new = self.next_new(data_end, is_corked);
        let mss = u32::from(self.mss);
        let (pipe, cwnd) = (self.pipe(), self.window());
        if let Some(recovery) = &mut self.recovery
            && recovery.mode != Mode::Open
            && let Some((seq, len)) = recovery.flight.next_lost(mss)
        {
            let (must, is_frto, point) =
                (recovery.must_retransmit, recovery.is_frto, recovery.recovery_point);
            let len = self.record_end(seq).map_or(len, |end| len.min(distance(seq, end)));
            if must {
                // RFC 6675 §5 (4.3), RFC 6582 §3.2, RFC 6298 (5.4): the first segment goes whatever the window.
                return Next::Again { seq, len };
            }
            if is_frto {
                // RFC 5682 §2.1 step 2: new data tells whether the timeout was spurious, if there is any.
                let has_sent_new = self.snd.nxt.after(point);
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
        if self.record_end(self.snd.nxt).is_some() {
            // A probe would reach into the next record.
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
    pub(crate) fn next_new(&self, data_end: SeqNum, is_corked: bool) -> Result<(u32, bool), Limit> {
        if self.is_fin_sent {
            return Err(Limit::Nothing);
        }
        let unsent = distance(self.snd.nxt, data_end);
        // RFC 9293 §3.8.6 (SHLD-15): none, if the window shrank below what was sent.
        let usable = distance(self.snd.nxt, self.snd.una + self.snd.wnd);
        let record =
            self.record_end(self.snd.nxt).map_or(unsent, |end| distance(self.snd.nxt, end).min(unsent));
        let len = record.min(usable).min(u32::from(self.mss));
        if len == 0 {
            return match (unsent, self.is_fin_wanted) {
                (0, false) => Err(Limit::Nothing),
                (0, true) if usable > 0 => Ok((0, true)),
                _ => Err(Limit::Window),
            };
        }
        let is_rest = len == unsent;
        if len == record && !is_rest {
            // Nothing can join it: waiting would make it no longer.
            return Ok((len, false));
        }
        // What is urgent waits for nothing that the peer did not ask for.
        let is_urgent = self.is_urgent(self.snd.nxt);
        if is_rest && is_corked && !is_urgent && len < u32::from(self.mss) && !self.is_fin_wanted {
            return Err(Limit::Cork);
        }
        let fin = is_rest && self.is_fin_wanted && usable > len;
        // RFC 9293 §3.7.4 (MUST-17): the app may switch Nagle off.
        // Deviates: RFC 9293 §3.7.4 (SHLD-7) has a small segment wait for any data in flight; Minshall's modification
        // for an earlier small one (`TcpConfig::minshall`).
        let is_held = if self.is_nagle_plain {
            self.snd.nxt != self.snd.una
        } else {
            self.small_end.after(self.snd.una)
        };
        let is_quiet = self.is_nodelay || is_urgent || !is_held;
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
    pub(crate) fn send_new<L: SessionLayer, O: Output>(
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
        // What the SYN carried already answers nothing.
        self.is_interactive |= shared.config.interactive_acks
            && len > 0
            && !self.sends_syn_data_again
            && (self.is_ack_programmed || self.ack_at != Instant::FAR);
        self.note_len_sent(seq, len, shared);
        self.note_sent_new(len + u32::from(fin), shared, now);
        if len > 0 && len < u32::from(self.mss) && !core::mem::take(&mut self.sends_syn_data_again) {
            self.small_end = self.snd.nxt;
        }
        // Cannot cut but for the largest of segments with a FIN.
        self.last_len = u16::try_from(len + u32::from(fin)).unwrap_or(u16::MAX);
        if fin {
            self.is_fin_sent = true;
            self.enter(id, StateEvent::SendFin);
        }
        shared.counters.bytes_out += u64::from(len);
        self.send_range(seq, len, fin, len > 0 && !self.is_probing, data_end, shared, now, layer, out);
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
    pub(crate) fn send_again<L: SessionLayer, O: Output>(
        &mut self,
        seq: SeqNum,
        len: u32,
        data_end: SeqNum,
        shared: &mut Shared,
        now: Instant,
        layer: &L,
        out: &mut O,
    ) {
        let data = distance(seq, self.record_end(seq).unwrap_or(data_end)).min(len);
        let fin = self.is_fin_sent && seq + data == data_end;
        let len = data + u32::from(fin);
        self.note_len_lost(seq, now);
        let pipe = self.pipe();
        let tsval = timestamp_clock(now, self.ts.offset);
        match &mut self.recovery {
            Some(recovery) => {
                let snapshot = recovery.rate.on_sent(now, pipe, len);
                let sent_at = recovery.rack.after_latest(now);
                recovery.flight.on_retransmitted(seq, len, sent_at, snapshot);
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
        let counts = &mut self.extras_mut().counts;
        counts.retransmitted_segments = counts.retransmitted_segments.saturating_add(1);
        shared.counters.retransmitted_segments += 1;
        shared.counters.retransmitted_bytes += u64::from(data);
        self.send_range(seq, data, fin, false, data_end, shared, now, layer, out);
    }

    fn send_range<L: SessionLayer, O: Output>(
        &mut self,
        seq: SeqNum,
        len: u32,
        fin: bool,
        is_new: bool,
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
        if len > 0 && (seq + len == data_end || self.is_record_end(seq + len)) {
            // RFC 9293 §3.9.1.2 (MUST-61, SHLD-27): the last segment of what the app queued is pushed, and no other.
            flags = flags | Flags::PSH;
        }
        let flags = flags | self.ecn_flags(is_new);
        let header = self.header(seq, flags, len, now, layer);
        shared.counters.segments_out += 1;
        self.last_sent = now;
        self.cc.on_sent(now, len, self.flight_size());
        self.pace(now, len);
        let (session, offset) = (self.session, seq.since(self.snd.una));
        let ip = self.ip_fields(is_new);
        out.send(&self.flow, &header, ip, len as usize, |into| layer.tx_copy(session, offset, into));
    }
}

/// From `from` to `to`; zero if `to` is not after it: a usable window may be negative (RFC 9293 §3.8.6, MUST-34).
#[inline]
pub(crate) fn distance(from: SeqNum, to: SeqNum) -> u32 {
    if to.after(from) { to.since(from) } else { 0 }
}
