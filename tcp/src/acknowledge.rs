//! What every segment says of what was received: the acknowledgment, the window, SACK blocks, timestamps; and the
//! segments that say nothing else.

use hoststack_transport::{Instant, Key, SessionLayer};
use hoststack_wire::{Flags, Options, SackBlocks, SegmentHeader, SeqNum, Timestamps};

use crate::connection::Connection;
use crate::engine::{Output, Shared};
use crate::isn::timestamp_clock;
use crate::output::{TIMESTAMPS_LEN, local_mss, send_bare};
use crate::timers::Purpose;

impl Connection {
    /// A header that acknowledges all that was received: nothing else of the kind need be sent.
    pub(crate) fn header<L: SessionLayer>(
        &mut self,
        seq: SeqNum,
        flags: Flags,
        payload_len: u32,
        now: Instant,
        layer: &L,
    ) -> SegmentHeader {
        let offer = self.rx_offer(now, layer);
        let wnd = self.announce_window(offer);
        let (urg, urgent) = self.urgent_field(seq);
        self.is_ack_programmed = false;
        self.ack_at = Instant::FAR;
        self.rcv.last_ack_sent = self.rcv.nxt;
        SegmentHeader {
            src_port: self.flow.local.port,
            dst_port: self.flow.remote.port,
            seq,
            ack: self.rcv.nxt,
            flags: flags | urg,
            wnd,
            urgent,
            options: Options {
                // RFC 9293 §3.2 (MUST-65): no MSS.
                timestamps: self.timestamps(now),
                sack: self.sack_blocks(payload_len, layer),
                ..Options::default()
            },
        }
    }

    pub(crate) fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.has_timestamps
            .then(|| Timestamps { val: timestamp_clock(now, self.ts.offset), ecr: self.ts.recent })
    }

    /// What was received beyond a gap, newest first (RFC 2018 §4), as far as it fits beside the payload.
    /// A duplicate goes before all, and the range it lies in behind it (RFC 2883 §4).
    fn sack_blocks<L: SessionLayer>(&mut self, payload_len: u32, layer: &L) -> SackBlocks {
        let mut blocks = SackBlocks::NONE;
        if !self.has_sack {
            return blocks;
        }
        let ranges = layer.rx_ranges(self.session);
        let Some(extras) = &mut self.extras else {
            debug_assert!(ranges.is_empty(), "what came out of order was noted");
            return blocks;
        };
        let duplicate = extras.gaps.duplicate.take();
        if ranges.is_empty() && duplicate.is_none() {
            return blocks;
        }
        let recent = extras.gaps.recent;
        let rcv_nxt = self.rcv.nxt;
        let space = if self.has_timestamps { 40 - u32::from(TIMESTAMPS_LEN) } else { 40 };
        let room = space.min(u32::from(self.mss).saturating_sub(payload_len).max(if payload_len == 0 {
            space
        } else {
            0
        }));
        let most = (room.saturating_sub(4) / 8).min(4);
        if let Some((start, end)) = duplicate.filter(|_| most > 0) {
            blocks.push(start, end);
        }
        let block_of = |range: &hoststack_transport::OooRange| (rcv_nxt + range.start, rcv_nxt + range.end);
        if let Some((start, _)) = duplicate.filter(|(start, _)| most > 1 && start.after(rcv_nxt)) {
            // Also if it is the same.
            let offset = start.since(rcv_nxt);
            if let Some(range) = ranges.iter().find(|range| range.start <= offset && offset < range.end) {
                let (start, end) = block_of(range);
                blocks.push(start, end);
            }
        }
        let mut push = |range: &hoststack_transport::OooRange| {
            let block = block_of(range);
            if (blocks.as_slice().len() as u32) < most && !blocks.as_slice().contains(&block) {
                blocks.push(block.0, block.1);
            }
        };
        for recent in recent {
            let offset = recent.since(rcv_nxt);
            if let Some(range) = ranges.iter().find(|range| range.start <= offset && offset < range.end) {
                push(range);
            }
        }
        ranges.iter().for_each(&mut push);
        blocks
    }

    /// The window field for `room` bytes of room: the right edge never moves back (RFC 9293 §3.8.6, SHLD-14), forward only
    /// by a worthwhile step (§3.8.6.2.2, MUST-39), and never beyond the room. It may stay zero without end (MAY-8).
    fn announce_window(&mut self, room: u32) -> u16 {
        let held = self.rcv_wnd();
        let scale = u32::from(self.rcv_scale);
        let field = if room >= held.saturating_add(self.window_step()) {
            // A step is a unit of the field at least: this is beyond `held`.
            room >> scale
        } else {
            let up = held.div_ceil(1 << scale);
            // What was promised, or what the peer sent since then, need not be whole units. Rounded up again and again, the
            // edge would follow a peer that sends less than a unit at a time out of the room. Rounded down, the peer sees
            // it back by less than a unit, as RFC 7323 §2.4 foresees: what is beyond is taken all the same, for `edge` stays.
            if up << scale <= room { up } else { held >> scale }
        };
        // More than the field holds is not announced; `held` was announced, so it fits but for a change of scale.
        let field = u16::try_from(field).unwrap_or(u16::MAX);
        self.rcv.edge = self.rcv.edge.max(self.rcv.nxt + (u32::from(field) << scale));
        field
    }

    /// The least step by which the right edge moves: a full segment, and a unit of the field.
    fn window_step(&self) -> u32 {
        (self.rx_buffer() / 2).min(u32::from(self.peer_segment)).max(1 << self.rcv_scale)
    }

    /// Whether the app made so much room that the peer should hear of it without having sent anything: at least as
    /// much again as it knows of.
    pub(crate) fn is_window_update_due<L: SessionLayer>(&mut self, now: Instant, layer: &L) -> bool {
        let (room, held) = (self.rx_offer(now, layer), self.rcv_wnd());
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
        let flags = Flags::ACK | self.ecn_flags(false);
        let header = self.header(seq, flags, 0, now, layer);
        self.send_without_data(shared, &header, out);
    }

    /// Sends a segment of its own that has no payload.
    pub(crate) fn send_without_data<O: Output>(
        &mut self,
        shared: &mut Shared,
        header: &SegmentHeader,
        out: &mut O,
    ) {
        send_bare(shared, &self.flow, header, self.ip_fields(false), out);
    }

    /// A challenge ACK (RFC 5961), at the end of the step, within the connection's limit.
    pub(crate) fn program_challenge_ack(&mut self, id: Key, shared: &mut Shared, now: Instant) {
        let second = (now.as_millis() / 1000) as u32; // modulo 2^32: only compared
        let extras = self.extras_mut();
        if second != extras.challenge_second {
            extras.challenge_second = second;
            extras.challenges = 0;
        }
        if extras.challenges >= shared.config.challenge_acks_per_second {
            shared.drops.count(crate::drop_reason::DropReason::ChallengeLimited);
            return;
        }
        extras.challenges += 1;
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
            self.note_stalled(now);
            self.restart_timer(now, shared);
        }
        send_bare(shared, &self.flow, &header, self.ip_fields(false), out);
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
        send_bare(shared, &self.flow, &header, self.ip_fields(false), out);
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
        self.is_interactive = false;
        shared.counters.delayed_acks += 1;
        if out.room() > 0 {
            self.send_ack(shared, now, layer, out);
        } else {
            self.program_ack(id, shared);
        }
    }
}
