//! A synchronized connection (and the SYN-RECEIVED of a simultaneous open): its variables, and how it begins and ends.
//! What a segment does to it is in `input`, what it sends in `output`.

use alloc::boxed::Box;

use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    Algorithm, ConnectionId, ConnectionStats, EndStats, FlowKey, Instant, Key, Known, SessionId,
    SessionLayer, SocketOptions,
};
use hoststack_wire::{IpFields, SegmentHeader, SeqNum};

use crate::config::syn_window;
use crate::congestion::{Congestion, CongestionControl};
use crate::describe::ConnectionInfo;
use crate::drop_reason::DropReason;
use crate::ecn::Ecn;
use crate::engine::Shared;
use crate::extras::{Counts, Extras};
use crate::isn::{echoed_round_trip_us, timestamp_clock};
use crate::output::{MSS_LEAST, TIMESTAMPS_LEN, ip_fields, peer_mss, send_mss};
use crate::recovery::flight::Sent;
use crate::recovery::{Mode, Recovery};
use crate::retransmission::R1;
use crate::rtt::RttEstimator;
use crate::seed::{ConnectionSeed, IcmpError, SeedState};
use crate::state::{State, StateEvent};
use crate::syn_received::SynReceived;
use crate::timers::{Purpose, TimerOwner, WheelEntry};

/// The send sequence space (RFC 9293 §3.3.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Send {
    /// SND.UNA.
    pub(crate) una: SeqNum,
    /// SND.NXT: one past the highest sequence number ever sent.
    pub(crate) nxt: SeqNum,
    /// SND.WND in bytes.
    pub(crate) wnd: u32,
    /// SND.WL1.
    pub(crate) wl1: SeqNum,
    /// SND.WL2.
    pub(crate) wl2: SeqNum,
    /// MAX.SND.WND (RFC 5961 §5; Max(SND.WND) of RFC 9293 §3.8.6.2.1).
    pub(crate) wnd_max: u32,
}

/// The receive sequence space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receive {
    /// RCV.NXT.
    pub(crate) nxt: SeqNum,
    /// RCV.NXT + RCV.WND: the right edge as it was announced. It never moves back.
    pub(crate) edge: SeqNum,
    /// Last.ACK.sent (RFC 7323 §4.3).
    pub(crate) last_ack_sent: SeqNum,
    /// Sequence number of the peer's FIN, if `has_fin`.
    pub(crate) fin: SeqNum,
}

/// Timestamps (RFC 7323).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamps {
    /// TS.Recent.
    pub(crate) recent: u32,
    /// When it was set, in ms since the epoch modulo 2^32.
    pub(crate) recent_at_ms: u32,
    /// What is added to the clock to make TSval.
    pub(crate) offset: u32,
}

/// A connection. The fields that every segment touches come first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Connection {
    pub(crate) snd: Send,
    pub(crate) rcv: Receive,
    pub(crate) ts: Stamps,
    pub(crate) session: SessionId,
    pub(crate) state: State,
    pub(crate) has_timestamps: bool,
    pub(crate) has_sack: bool,
    pub(crate) ecn: Ecn,
    /// An acknowledgment is to be sent at the end of this step at the latest.
    pub(crate) is_ack_programmed: bool,
    /// Its key is in the engine's list of programmed acknowledgments.
    pub(crate) is_ack_listed: bool,
    /// The app has closed its direction: a FIN follows the last byte.
    pub(crate) is_fin_wanted: bool,
    /// The FIN has been sent: SND.NXT includes it.
    pub(crate) is_fin_sent: bool,
    /// Acknowledgments are never delayed.
    pub(crate) is_quick_ack: bool,
    /// The app closed both ways: nothing received has a reader.
    pub(crate) is_app_closed: bool,
    /// The peer's FIN was seen, at `rcv.fin`; RCV.NXT may not have reached it.
    pub(crate) has_fin: bool,
    /// No Nagle algorithm.
    pub(crate) is_nodelay: bool,
    /// Nagle holds a small segment back for any data in flight, not only for an earlier small segment.
    pub(crate) is_nagle_plain: bool,
    /// What the first duplicates speak for lets new data out (RFC 3042).
    pub(crate) has_limited_transmit: bool,
    /// Fast recovery is by PRR.
    pub(crate) has_prr: bool,
    /// What is received is answered with data: acknowledgments wait for it (`TcpConfig::interactive_acks`).
    pub(crate) is_interactive: bool,
    /// The last time it stopped sending, the congestion window was the reason.
    pub(crate) is_cwnd_limited: bool,
    /// What is in flight was sent more than once; with `recovery`, its ranges say so.
    pub(crate) is_flight_repeated: bool,
    /// What is in flight is a probe into a closed window.
    pub(crate) is_probing: bool,
    /// What the retransmission timer is for.
    pub(crate) purpose: Purpose,
    /// The peer's window shift.
    pub(crate) snd_scale: u8,
    /// Our window shift.
    pub(crate) rcv_scale: u8,
    /// Retransmissions or probes since the last progress.
    pub(crate) retransmits: u8,
    /// Duplicate ACKs in a row.
    pub(crate) dup_acks: u8,
    /// Acknowledgments still sent without delay.
    pub(crate) quick_acks: u8,
    /// Payload bytes of a full segment of ours: options excluded.
    pub(crate) mss: u16,
    /// The largest payload seen from the peer: its full segment.
    pub(crate) peer_segment: u16,
    /// The longest segment of which it is known that it arrived.
    pub(crate) len_acked: u16,
    /// Deadline of the retransmission timer.
    pub(crate) retransmit_at: Instant,
    /// Deadline of a delayed acknowledgment.
    pub(crate) ack_at: Instant,
    /// When data was last sent.
    pub(crate) last_sent: Instant,
    /// When what is in flight was sent last, all at one time; with `recovery`, its ranges say so.
    pub(crate) flight_at: Instant,
    /// Capacity of the receive fifo.
    pub(crate) rx_capacity: u32,
    /// Where the segment ends that `len_sampled` is about.
    pub(crate) sample_end: SeqNum,
    pub(crate) cc: Congestion,
    pub(crate) rtt: RttEstimator,
    pub(crate) recovery: Option<Box<Recovery>>,
    /// Bytes delivered over its life: acknowledged or SACKed.
    pub(crate) delivered: u64,
    /// Bytes received in order over its life.
    pub(crate) bytes_received: u64,
    pub(crate) flow: FlowKey,
    // Cold.
    pub(crate) wheel: WheelEntry,
    pub(crate) iss: SeqNum,
    pub(crate) irs: SeqNum,
    /// The network said that the peer cannot be reached.
    pub(crate) is_unreachable: bool,
    /// Both ends offered window scaling.
    pub(crate) has_scaling: bool,
    /// Main chose its 4-tuple and is told when the flow is gone.
    pub(crate) is_active_open: bool,
    /// One past the last segment that was sent less than full (Minshall's SND.SML).
    pub(crate) small_end: SeqNum,
    /// Sequence numbers that the last new segment took.
    pub(crate) last_len: u16,
    /// What its packets' IP headers say, ECN apart.
    pub(crate) ip: IpFields,
    /// When the path MTU was asked for last (`pmtud`).
    pub(crate) mtu_tick: u8,
    /// A segment longer than `len_acked` whose arrival will be known; 0 if there is none.
    pub(crate) len_sampled: u16,
    /// What only some want or meet.
    pub(crate) extras: Option<Box<Extras>>,
    /// Data of the SYN goes again, for the peer did not take it: no small segment in Minshall's sense.
    pub(crate) sends_syn_data_again: bool,
    /// Data in the SYN was taken by its receiver, all of it.
    pub(crate) has_syn_data: bool,
    /// MSS limit that options set.
    pub(crate) mss_max: u16,
    /// MSS that the peer announced, or what stands for it.
    pub(crate) peer_mss: u16,
    /// The path MTU that `mss` is made for: it may be less, because of `mss_max` or `peer_mss`.
    pub(crate) path_mtu: u16,
}

/// What is left to be done with a connection after something happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Fate {
    /// Nothing.
    Lives,
    /// It is over; old duplicates are waited for.
    TimeWait,
    /// It is over.
    Closed(hoststack_transport::CloseReason),
}

/// What a handshake agreed on, whichever side began.
struct Agreed<'a> {
    options: &'a SocketOptions,
    state: State,
    is_active_open: bool,
    /// SND.UNA and SND.NXT.
    sent: (SeqNum, SeqNum),
    /// RCV.NXT + RCV.WND, as the SYN announced it.
    rcv_edge: SeqNum,
    /// Data in the SYN was taken by its receiver, all of it; and not all, so that it goes again.
    has_syn_data: bool,
    sends_syn_data_again: bool,
    iss: SeqNum,
    irs: SeqNum,
    /// SND.WND, scaled.
    wnd: u32,
    scales: Option<(u8, u8)>,
    sack: bool,
    ecn: bool,
    /// TS.Recent, the offset of our clock, and the TSval that must not be undercut.
    timestamps: Option<(u32, u32, Option<u32>)>,
    peer_mss: Option<u16>,
    rtt_us: Option<u32>,
    syn_retransmitted: bool,
}

impl Connection {
    /// A connection that main hands over.
    pub(crate) fn from_seed(
        seed: &ConnectionSeed,
        session: SessionId,
        now: Instant,
        path_mtu: u16,
        shared: &Shared,
    ) -> Connection {
        let begin = seed.iss + 1;
        let sent = match seed.state {
            SeedState::Established => {
                (begin + u32::from(seed.syn_data_acked), begin + u32::from(seed.syn_data_acked))
            }
            SeedState::SynReceived => (seed.iss, begin + u32::from(seed.syn_data_sent)),
        };
        let agreed = Agreed {
            options: &seed.options,
            state: State::SynSent.after(match seed.state {
                SeedState::Established => StateEvent::RcvSynAck,
                SeedState::SynReceived => StateEvent::RcvSyn,
            }),
            is_active_open: true,
            sent,
            rcv_edge: seed.irs + 1 + u32::from(syn_window(&seed.options)),
            has_syn_data: seed.syn_data_sent > 0 && seed.syn_data_acked == seed.syn_data_sent,
            sends_syn_data_again: seed.syn_data_sent > seed.syn_data_acked,
            iss: seed.iss,
            irs: seed.irs,
            wnd: u32::from(seed.peer_wnd),
            scales: seed.scales,
            sack: seed.sack,
            ecn: seed.ecn,
            timestamps: seed.timestamps.map(|ts| {
                let backward = if canary::has(Bug::TimestampRunsBackward) { 100 } else { 0 };
                (ts.recent, ts.offset.wrapping_sub(backward), Some(ts.last_sent.wrapping_sub(backward)))
            }),
            peer_mss: seed.peer_mss,
            rtt_us: seed.rtt_us,
            syn_retransmitted: seed.syn_retransmitted,
        };
        Connection::new(seed.flow, session, now, path_mtu, &agreed, shared)
    }

    /// A connection whose handshake a listener's peer completed. Its window comes with the segment that did.
    pub(crate) fn from_syn_received(
        record: &SynReceived,
        options: &SocketOptions,
        session: SessionId,
        now: Instant,
        path_mtu: u16,
        shared: &Shared,
    ) -> Connection {
        let agreed = Agreed {
            options,
            state: State::SynReceived.after(StateEvent::RcvAckOfSyn),
            is_active_open: false,
            sent: (record.iss + 1, record.iss + 1),
            rcv_edge: record.edge(),
            has_syn_data: false,
            sends_syn_data_again: false,
            iss: record.iss,
            irs: record.irs,
            wnd: u32::from(record.peer_wnd),
            scales: record.scales,
            sack: record.sack,
            ecn: record.ecn,
            timestamps: record.timestamps.then_some((record.ts_recent, record.ts_offset, None)),
            peer_mss: record.peer_mss,
            rtt_us: record
                .is_sample
                .then(|| u32::try_from(now.micros_since(record.sent)).unwrap_or(u32::MAX)),
            syn_retransmitted: record.retransmits > 0,
        };
        Connection::new(record.flow, session, now, path_mtu, &agreed, shared)
    }

    fn new(
        flow: FlowKey,
        session: SessionId,
        now: Instant,
        path_mtu: u16,
        agreed: &Agreed<'_>,
        shared: &Shared,
    ) -> Connection {
        let (snd_scale, rcv_scale) = agreed.scales.unwrap_or((0, 0));
        let has_timestamps = agreed.timestamps.is_some();
        let mss_max = agreed.options.mss_max.unwrap_or(u16::MAX);
        let peer_mss = peer_mss(&flow, agreed.peer_mss);
        let mss = send_mss(&flow, path_mtu, mss_max, Some(peer_mss), has_timestamps);
        let mut cc = Congestion::new(agreed.options.congestion, mss, u64::from(agreed.iss.0));
        cc.set_initial_window(shared.config.initial_window);
        let mut rtt = RttEstimator::new();
        if agreed.syn_retransmitted {
            rtt.begin_after_syn_timeout();
        }
        if let Some(rtt_us) = agreed.rtt_us {
            rtt.sample(rtt_us);
            cc.on_handshake(rtt_us);
        }
        let mut offset = agreed.timestamps.map_or(0, |(_, offset, _)| offset);
        if let Some((_, _, Some(floor))) = agreed.timestamps {
            // Main's clock may be a step ahead of ours; what it sent must not be undercut.
            let behind = floor.wrapping_sub(timestamp_clock(now, offset));
            if (behind as i32) > 0 {
                offset = offset.wrapping_add(behind);
            }
        }
        let rcv_nxt = agreed.irs + 1;
        let (una, nxt) = agreed.sent;
        let mut connection = Connection {
            snd: Send { una, nxt, wnd: agreed.wnd, wl1: agreed.irs, wl2: una, wnd_max: agreed.wnd },
            rcv: Receive { nxt: rcv_nxt, edge: agreed.rcv_edge, last_ack_sent: rcv_nxt, fin: rcv_nxt },
            ts: Stamps {
                recent: agreed.timestamps.map_or(0, |(recent, ..)| recent),
                recent_at_ms: millis(now),
                offset,
            },
            session,
            state: agreed.state,
            has_timestamps,
            has_sack: agreed.sack,
            ecn: Ecn::new(agreed.ecn),
            is_ack_programmed: false,
            is_ack_listed: false,
            is_fin_wanted: false,
            is_fin_sent: false,
            is_quick_ack: agreed.options.quick_ack,
            is_app_closed: false,
            has_fin: false,
            is_nodelay: agreed.options.nodelay,
            is_nagle_plain: !shared.config.minshall,
            has_limited_transmit: shared.config.limited_transmit,
            has_prr: shared.config.prr,
            is_interactive: false,
            is_cwnd_limited: false,
            is_flight_repeated: false,
            is_probing: false,
            purpose: Purpose::None,
            snd_scale,
            rcv_scale,
            retransmits: 0,
            dup_acks: 0,
            quick_acks: shared.config.quick_acks,
            mss,
            peer_segment: 536,
            len_acked: 0,
            retransmit_at: Instant::FAR,
            ack_at: Instant::FAR,
            last_sent: now,
            flight_at: now,
            extras: Extras::of(agreed.options, &cc, now),
            rx_capacity: agreed.options.rx_window,
            sample_end: nxt,
            cc,
            rtt,
            recovery: None,
            delivered: 0,
            bytes_received: 0,
            flow,
            wheel: WheelEntry::NONE,
            iss: agreed.iss,
            irs: agreed.irs,
            is_unreachable: false,
            has_scaling: agreed.scales.is_some(),
            is_active_open: agreed.is_active_open,
            small_end: agreed.iss,
            last_len: 0,
            ip: ip_fields(agreed.options),
            mtu_tick: Connection::mtu_tick(now),
            len_sampled: 0,
            sends_syn_data_again: agreed.sends_syn_data_again,
            has_syn_data: agreed.has_syn_data,
            mss_max,
            peer_mss,
            path_mtu,
        };
        connection.start_receive_window(agreed.options, agreed.rtt_us, now);
        if agreed.options.mtu_probing {
            connection.start_mtu_probing();
        }
        connection
    }

    /// FlightSize (RFC 5681 §2): sent and not acknowledged.
    #[inline]
    pub(crate) fn flight_size(&self) -> u32 {
        self.snd.nxt.since(self.snd.una)
    }

    /// RCV.WND as announced.
    #[inline]
    pub(crate) fn rcv_wnd(&self) -> u32 {
        self.rcv.edge.since(self.rcv.nxt)
    }

    /// SEG.WND of a segment that is no SYN, in bytes: unsigned (RFC 9293 §3.1, MUST-1), and 32 bits wide (REC-1).
    #[inline]
    pub(crate) fn scaled_wnd(&self, header: &SegmentHeader) -> u32 {
        u32::from(header.wnd) << self.snd_scale
    }

    /// Takes a line of the transition table.
    #[track_caller]
    pub(crate) fn enter(&mut self, id: Key, event: StateEvent) {
        let to = self.state.after(event);
        tracing::debug!(conn = %ConnectionId(id), from = %self.state, to = %to, cause = ?event, "connection");
        self.state = to;
    }

    /// The mode of loss recovery.
    #[inline]
    pub(crate) fn mode(&self) -> Mode {
        self.recovery.as_ref().map_or(Mode::Open, |recovery| recovery.mode)
    }

    /// The state of loss recovery, begun if there is none.
    pub(crate) fn recovery_mut(&mut self, shared: &mut Shared) -> &mut Recovery {
        if self.recovery.is_none() {
            self.begin_ranges(self.snd.una, shared);
        }
        self.recovery.as_mut().unwrap_or_else(|| unreachable!("it was begun just now"))
    }

    /// From now on what is in flight, `una` to SND.NXT, is known by ranges.
    pub(crate) fn begin_ranges(&mut self, una: SeqNum, shared: &mut Shared) {
        let mut recovery = shared.spare.pop().unwrap_or_else(|| Box::new(Recovery::new(una)));
        recovery.reset(una);
        if self.snd.nxt != una {
            let snapshot = recovery.rate.on_sent(self.flight_at, 0, self.snd.nxt.since(una));
            let is_repeated = self.is_flight_repeated;
            recovery.flight.push(Sent { is_repeated, ..Sent::new(self.snd.nxt, self.flight_at, snapshot) });
        }
        self.recovery = Some(recovery);
    }

    /// Gives the state of loss recovery back when there is nothing in it.
    pub(crate) fn release_recovery(&mut self, shared: &mut Shared) {
        if self.recovery.as_ref().is_some_and(|recovery| recovery.is_idle())
            && !self.cc.needs_rate()
            && let Some(spare) = self.recovery.take()
            && shared.spare.len() < shared.spare.capacity()
        {
            shared.spare.push(spare);
        }
    }

    /// The earliest of its deadlines.
    #[inline]
    pub(crate) fn timer(&self) -> Instant {
        let timer = self.retransmit_at.min(self.ack_at);
        self.extras.as_ref().map_or(timer, |extras| timer.min(extras.timer()))
    }

    /// Makes the wheel fire for the earliest deadline.
    #[inline]
    pub(crate) fn arm(&mut self, id: Key, shared: &mut Shared) {
        let timer = self.timer();
        self.wheel.arm(timer, TimerOwner::Connection(id), &mut shared.wheel);
    }

    /// A SYN-ACK that was sent again, first at `sent`, is answered: which one, the echoed timestamp tells (RFC 7323 §4.1).
    pub(crate) fn measure_handshake(
        &mut self,
        now: Instant,
        sent: Instant,
        header: &SegmentHeader,
        shared: &mut Shared,
    ) {
        if let Some(ts) = header.options.timestamps
            && let Some(rtt_us) = echoed_round_trip_us(now, sent, self.ts.offset, ts.ecr)
        {
            self.rtt.sample(rtt_us);
            shared.rtts.record(rtt_us.into());
        }
    }

    /// The window of the segment that completed a passive open: the first that is scaled.
    pub(crate) fn set_first_window(&mut self, header: &SegmentHeader) {
        self.snd.wnd = self.scaled_wnd(header);
        self.snd.wnd_max = self.snd.wnd;
        self.snd.wl1 = header.seq;
        self.snd.wl2 = header.ack;
    }

    /// The data of the SYN was stored, `record.syn_data` bytes of `len`: the SYN-ACK acknowledges them, and announces
    /// what room they left.
    pub(crate) fn take_syn_data(&mut self, record: &SynReceived, len: usize) {
        self.rcv.nxt = record.rcv_nxt();
        self.rcv.edge = record.edge();
        self.rcv.last_ack_sent = self.rcv.nxt;
        self.peer_segment = self.peer_segment.max(record.syn_data);
        self.has_syn_data = len > 0 && usize::from(record.syn_data) == len;
    }

    /// An ICMP error quotes one of our segments; why it is not believed, if it is not. None ends a connection
    /// (RFC 9293 §3.9.2.2, MUST-56; RFC 5927 §5.2 has hard errors taken as soft ones, too), but the cause of a time-out is
    /// remembered for the app (MUST-47, SHLD-25).
    pub(crate) fn on_icmp_error<L: SessionLayer>(
        &mut self,
        now: Instant,
        seq: SeqNum,
        error: IcmpError,
        layer: &mut L,
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        if !seq.is_within(self.snd.una, self.flight_size()) {
            return Err(DropReason::IcmpOutOfWindow);
        }
        if let IcmpError::PacketTooBig { mtu } = error {
            return self.on_packet_too_big(now, seq, mtu, layer, shared);
        }
        self.is_unreachable = true;
        Ok(())
    }

    /// What options take in every segment.
    pub(crate) fn option_space(&self) -> u16 {
        if self.has_timestamps { TIMESTAMPS_LEN } else { 0 }
    }

    /// Bytes acknowledged over its life; with the FIN, which takes a place among them.
    fn bytes_acked(&self) -> u64 {
        let sacked = self.recovery.as_deref().map_or(0, |recovery| recovery.flight.sacked());
        self.delivered - u64::from(sacked)
    }

    /// What is told of it with its end.
    pub(crate) fn end_stats(&self) -> EndStats {
        let has_acked_fin = self.is_fin_sent && self.snd.una == self.snd.nxt;
        EndStats {
            bytes_in: self.bytes_received,
            bytes_out: self.bytes_acked().saturating_sub(u64::from(has_acked_fin)),
            retransmitted: self.extras.as_ref().map_or(0, |extras| extras.counts.retransmitted_segments),
            srtt_us: self.rtt.srtt_us().unwrap_or(0),
        }
    }

    /// What an app may know of it: `ConnectionStats`.
    pub(crate) fn stats(&self, shared: &Shared) -> ConnectionStats {
        let recovery = self.recovery.as_deref();
        let mode = self.mode();
        let counts = self.extras.as_ref().map_or(Counts::default(), |extras| extras.counts);
        ConnectionStats {
            srtt_us: self.rtt.srtt_us().unwrap_or(0),
            rtt_var_us: self.rtt.var_us(),
            rtt_min_us: self.rtt.min_us().unwrap_or(0),
            rto_us: self.rtt.rto_us(&shared.rto),
            cwnd: self.window(),
            ssthresh: self.cc.ssthresh(),
            mss: self.mss,
            peer_mss: self.peer_segment,
            path_mtu: self.path_mtu,
            snd_wnd: self.snd.wnd,
            rcv_wnd: self.rcv_wnd(),
            flight: self.flight_size(),
            sacked: recovery.map_or(0, |recovery| recovery.flight.sacked()),
            lost: recovery.map_or(0, |recovery| recovery.flight.lost()),
            retransmitted: recovery.map_or(0, |recovery| recovery.flight.out()),
            retransmits: self.retransmits,
            in_trouble: self.retransmits >= R1,
            probes: self.extras.as_ref().map_or(0, |extras| extras.probes),
            bytes_acked: self.bytes_acked(),
            bytes_received: self.bytes_received,
            retransmitted_segments: counts.retransmitted_segments,
            dsack_duplicates: counts.dsacks,
            undone: counts.undone,
            delivered: u32::try_from(self.delivered / u64::from(self.mss)).unwrap_or(u32::MAX),
            delivered_ce: counts.ecn_echoes,
            delivery_rate: recovery.map_or(0, |recovery| recovery.latest_rate),
            pacing_rate: self.pacing_rate().unwrap_or(u64::MAX),
            reordering: self.reordering().degree.into(),
            timestamps: self.has_timestamps,
            sack: self.has_sack,
            window_scaling: self.has_scaling,
            ecn: self.ecn.is_on,
            syn_data: self.has_syn_data,
            snd_scale: self.snd_scale,
            rcv_scale: self.rcv_scale,
            recovery: match mode {
                Mode::Open if self.is_ecn_reducing() => 2,
                Mode::Open if self.dup_acks > 0 || recovery.is_some_and(|r| r.flight.sacked() > 0) => 1,
                Mode::Open => 0,
                Mode::Fast => 3,
                Mode::Loss => 4,
            },
            congestion: Algorithm::from_name(self.cc.name()).unwrap_or_default(),
            known: Known::All,
        }
    }

    pub(crate) fn info(&self, id: Key, now: Instant, shared: &Shared) -> ConnectionInfo {
        use hoststack_transport::Duration;
        let timer = self.timer();
        ConnectionInfo {
            connection: ConnectionId(id),
            session: self.session,
            flow: self.flow,
            state: self.state,
            iss: self.iss,
            irs: self.irs,
            snd_una: self.snd.una,
            snd_nxt: self.snd.nxt,
            snd_wnd: self.snd.wnd,
            snd_wnd_max: self.snd.wnd_max,
            snd_wl1: self.snd.wl1,
            snd_wl2: self.snd.wl2,
            snd_scale: self.snd_scale,
            rcv_nxt: self.rcv.nxt,
            rcv_wnd: self.rcv_wnd(),
            rcv_scale: self.rcv_scale,
            mss: self.mss,
            timestamps: self.has_timestamps,
            sack: self.has_sack,
            ts_recent: self.ts.recent,
            flight_size: self.flight_size(),
            cwnd: self.cc.window(),
            ssthresh: self.cc.ssthresh(),
            congestion: self.cc.name(),
            recovery: match self.mode() {
                Mode::Open => "open",
                Mode::Fast => "recovery",
                Mode::Loss => "loss",
            },
            srtt: self.rtt.srtt_us().map(|us| Duration::from_micros(us.into())),
            rto: Duration::from_micros(self.rtt.rto_us(&shared.rto).into()),
            retransmits: self.retransmits,
            timer: self.purpose.name(),
            timer_in: (timer != Instant::FAR).then(|| timer.since(now)),
            app_closed: self.is_app_closed,
            fin_wanted: self.is_fin_wanted,
        }
    }

    /// Checks what must hold between any two calls.
    pub(crate) fn check_consistency(&self, id: Key) {
        assert!(self.snd.una.at_or_before(self.snd.nxt), "{id}: SND.UNA is beyond SND.NXT");
        assert!(self.rcv.nxt.at_or_before(self.rcv.edge), "{id}: RCV.NXT is beyond the announced window");
        assert!(
            self.rcv.last_ack_sent.at_or_before(self.rcv.nxt),
            "{id}: acknowledged more than was received"
        );
        assert!(!self.is_fin_sent || self.is_fin_wanted, "{id}: sent a FIN that nobody wanted");
        assert_eq!(
            self.purpose == Purpose::None,
            self.retransmit_at == Instant::FAR,
            "{id}: a timer without a purpose"
        );
        assert!(self.wheel.covers(self.timer()), "{id}: a deadline that no wheel entry will fire");
        assert!(
            self.mss >= MSS_LEAST && self.cc.window() >= u32::from(MSS_LEAST),
            "{id}: a window below a segment"
        );
        let flight = self.flight_size();
        assert!(
            flight == 0 || self.purpose.is_for_flight(),
            "{id}: {flight} bytes in flight and no timer for them"
        );
        let fin_states =
            matches!(self.state, State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck);
        assert_eq!(fin_states, self.is_fin_sent, "{id}: state {} does not fit the FIN", self.state);
        assert!(
            !matches!(self.state, State::Closed | State::Listen | State::SynSent | State::TimeWait),
            "{id}: no connection is in {}",
            self.state
        );
        if let Some(recovery) = &self.recovery {
            recovery.flight.check_consistency(self.snd.una, self.snd.nxt);
        }
    }
}

/// Little more than five cache lines, of which an idle connection is all that there is.
const _: () = assert!(size_of::<Connection>() <= 336);

pub(crate) fn millis(at: Instant) -> u32 {
    at.as_millis() as u32 // modulo 2^32 is what the callers compute with
}
