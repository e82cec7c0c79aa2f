//! SYN-RECEIVED of passive opens: compact records, for they are what a SYN flood fills. They become connections when
//! the acceptable ACK comes.

use hoststack_transport::{FlowKey, Instant, Key, SocketOptions};
use hoststack_wire::{Flags, Options, SackBlocks, SegmentHeader, SeqNum, Timestamps};

use crate::config::rx_scale;
use crate::drop_reason::DropReason;
use crate::isn::{Secrets, timestamp_clock};
use crate::timers::WheelEntry;

/// A handshake that a listener answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SynReceived {
    pub(crate) flow: FlowKey,
    /// The listener's entry on this worker.
    pub(crate) listener: Key,
    pub(crate) iss: SeqNum,
    pub(crate) irs: SeqNum,
    pub(crate) ts_recent: u32,
    /// What is added to our clock, if timestamps are used.
    pub(crate) ts_offset: u32,
    /// SEG.WND of the SYN, never scaled.
    pub(crate) peer_wnd: u16,
    pub(crate) peer_mss: Option<u16>,
    /// The MSS that our SYN-ACK announces.
    pub(crate) local_mss: u16,
    /// The window that our SYN-ACK announces.
    pub(crate) wnd: u16,
    /// (peer's shift, ours), when both offered.
    pub(crate) scales: Option<(u8, u8)>,
    pub(crate) sack: bool,
    pub(crate) timestamps: bool,
    pub(crate) retransmits: u8,
    /// One SYN-ACK was sent, so that its answer is a sample of the round trip (Karn).
    pub(crate) is_sample: bool,
    /// When the first SYN-ACK was sent.
    pub(crate) sent: Instant,
    /// When the next is.
    pub(crate) retransmit_at: Instant,
    pub(crate) wheel: WheelEntry,
}

const _: () = assert!(size_of::<SynReceived>() <= 128);

/// What SYN-RECEIVED makes of a segment (RFC 9293 §3.10.7.4, RFC 5961).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SynReceivedVerdict {
    /// Our SYN is acknowledged: ESTABLISHED.
    Establish,
    /// The peer's SYN once more: our SYN-ACK once more.
    SynAckAgain,
    /// Answer with an ACK.
    Ack(DropReason),
    /// Drop it.
    Drop(DropReason),
    /// Answer with <SEQ=SEG.ACK><CTL=RST>.
    Reset(DropReason),
    /// The connection is gone; the listener listens on.
    BackToListen(DropReason),
}

/// Deviates: RFC 9293 §3.10.7.4 answers a segment that takes no sequence number, too. Its sender may be in
/// SYN-RECEIVED as well (someone sent each end a SYN in the other's name), and would answer ours, for ever. The SYN-ACK
/// that is sent again tells the peer as much.
fn unacceptable(len: u32, reason: DropReason) -> SynReceivedVerdict {
    if len == 0 { SynReceivedVerdict::Drop(reason) } else { SynReceivedVerdict::Ack(reason) }
}

impl SynReceived {
    /// Judges a segment of SEG.LEN `len`, in the RFC's order.
    pub(crate) fn judge(&self, header: &SegmentHeader, len: u32) -> SynReceivedVerdict {
        use SynReceivedVerdict::*;
        let flags = header.flags;
        if flags.has(Flags::SYN) && !flags.has_any(Flags::ACK | Flags::RST) && header.seq == self.irs {
            // Deviates: RFC 9293 §3.10.7.4 answers a duplicate of the SYN with an ACK, which a peer in SYN-SENT could not use.
            return SynAckAgain;
        }
        if self.timestamps && !flags.has_any(Flags::RST | Flags::SYN) {
            match header.options.timestamps {
                // RFC 7323 §5.3 (R1): a signed distance on the circle.
                Some(ts) if (ts.val.wrapping_sub(self.ts_recent) as i32) < 0 => {
                    return unacceptable(len, DropReason::Paws);
                }
                Some(_) => {}
                None => return Drop(DropReason::TimestampMissing),
            }
        }
        // First, the sequence number.
        let (nxt, wnd) = (self.rcv_nxt(), u32::from(self.wnd));
        let last = header.seq + len.saturating_sub(1);
        // Of a reset its own number counts, not where its text ends (RFC 5961 §3.2).
        let reaches_in = len > 0 && !flags.has(Flags::RST) && last.is_within(nxt, wnd);
        let is_acceptable = header.seq.is_within(nxt, wnd.max(1)) || reaches_in;
        if !is_acceptable {
            return if flags.has(Flags::RST) {
                Drop(DropReason::ResetOutOfWindow)
            } else {
                unacceptable(len, DropReason::OutOfWindow)
            };
        }
        // Second, RST (MUST-11): this record is a passive open's, a `Connection` in SYN-RECEIVED an active one's.
        if flags.has(Flags::RST) {
            return if header.seq == nxt {
                BackToListen(DropReason::SynReceivedReset)
            } else {
                Ack(DropReason::ResetChallenged)
            };
        }
        // Fourth, SYN (MUST-11): "If the connection was initiated with a passive OPEN, then return this connection to the
        // LISTEN state and return." Not for the sake of an old SYN whose text reaches into the window.
        if flags.has(Flags::SYN) {
            if header.seq.before(nxt) {
                return Ack(DropReason::OutOfWindow);
            }
            return BackToListen(DropReason::SynReceivedSyn);
        }
        // Fifth, ACK.
        if !flags.has(Flags::ACK) {
            return Drop(DropReason::NoAck);
        }
        // Deviates: RFC 5961 §5 has an ACK far out of range answered with an ACK, before RFC 9293's rule for this state. A
        // reset is what a peer needs that never opened this connection.
        if header.ack != self.iss + 1 {
            return Reset(DropReason::SynReceivedBadAck);
        }
        Establish
    }

    /// <SEQ=SND.NXT><CTL=RST> (RFC 9293 §3.10.5).
    pub(crate) fn reset(&self) -> SegmentHeader {
        SegmentHeader {
            src_port: self.flow.local.port,
            dst_port: self.flow.remote.port,
            seq: self.iss + 1,
            ack: self.rcv_nxt(),
            flags: Flags::RST | Flags::ACK,
            wnd: 0,
            urgent: 0,
            options: Options::default(),
        }
    }

    /// What LISTEN makes of a SYN (RFC 9293 §3.10.7.2, third).
    pub(crate) fn new(
        now: Instant,
        flow: FlowKey,
        syn: &SegmentHeader,
        listener: Key,
        options: &SocketOptions,
        iss: SeqNum,
        local_mss: u16,
        secrets: &Secrets,
    ) -> SynReceived {
        let theirs = &syn.options;
        let timestamps = theirs.timestamps.is_some() && options.timestamps;
        SynReceived {
            // RFC 9293 §3.9.1.1 (MUST-45): the local address that the SYN came to, whatever address is listened on.
            flow,
            listener,
            iss,
            irs: syn.seq,
            ts_recent: theirs.timestamps.map_or(0, |ts| ts.val),
            ts_offset: if timestamps { secrets.timestamp_offset(&flow) } else { 0 },
            peer_wnd: syn.wnd,
            peer_mss: theirs.mss,
            local_mss,
            wnd: u16::try_from(options.rx_window).unwrap_or(u16::MAX),
            scales: theirs
                .window_scale
                .filter(|_| options.window_scale)
                .map(|peer| (peer.min(14), rx_scale(options))),
            sack: theirs.sack_permitted && options.sack,
            timestamps,
            retransmits: 0,
            is_sample: true,
            sent: now,
            retransmit_at: Instant::FAR,
            wheel: WheelEntry::NONE,
        }
    }

    /// RCV.NXT.
    pub(crate) fn rcv_nxt(&self) -> SeqNum {
        self.irs + 1
    }

    /// RCV.NXT + RCV.WND.
    pub(crate) fn edge(&self) -> SeqNum {
        self.rcv_nxt() + u32::from(self.wnd)
    }

    /// <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>, with the options that both know.
    pub(crate) fn syn_ack(&self, now: Instant) -> SegmentHeader {
        SegmentHeader {
            src_port: self.flow.local.port,
            dst_port: self.flow.remote.port,
            seq: self.iss,
            ack: self.rcv_nxt(),
            flags: Flags::SYN | Flags::ACK,
            wnd: self.wnd,
            urgent: 0,
            options: Options {
                // RFC 9293 §3.7.1 (MUST-14, SHLD-5, MAY-3): in every SYN.
                mss: Some(self.local_mss),
                window_scale: self.scales.map(|(_, ours)| ours),
                sack_permitted: self.sack,
                timestamps: self.timestamps(now),
                sack: SackBlocks::NONE,
            },
        }
    }

    /// <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>.
    pub(crate) fn ack(&self, now: Instant) -> SegmentHeader {
        SegmentHeader {
            seq: self.iss + 1,
            flags: Flags::ACK,
            wnd: self.wnd >> self.scales.map_or(0, |(_, ours)| ours),
            options: Options { timestamps: self.timestamps(now), ..Options::default() },
            ..self.syn_ack(now)
        }
    }

    fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.timestamps.then(|| Timestamps { val: timestamp_clock(now, self.ts_offset), ecr: self.ts_recent })
    }
}
