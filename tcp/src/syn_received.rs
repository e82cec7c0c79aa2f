//! SYN-RECEIVED of passive opens: compact records, for they are what a SYN flood fills. They become connections when
//! the acceptable ACK comes.

use hoststack_transport::{FlowKey, Instant, Key, SocketOptions};
use hoststack_wire::{FastOpenCookie, Flags, IpFields, Options, SegmentHeader, SeqNum, Timestamps};

use crate::config::{TcpConfig, rx_scale, syn_window};
use crate::drop_reason::DropReason;
use crate::ecn;
use crate::fast_open::CookieKeys;
use crate::isn::{Secrets, timestamp_clock};
use crate::output::ip_fields;
use crate::syn_cookies::{Offer, Proof};
use crate::timers::WheelEntry;

/// Whether the SYN-ACK gives a Fast Open cookie out, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivesCookie {
    No,
    Yes,
    /// With the option's experimental number, as it was asked for.
    Experimental,
}

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
    /// Both ends do ECN.
    pub(crate) ecn: bool,
    /// What its packets' IP headers say.
    pub(crate) ip: IpFields,
    pub(crate) timestamps: bool,
    pub(crate) gives_cookie: GivesCookie,
    pub(crate) retransmits: u8,
    /// Retransmissions before it is given up.
    pub(crate) retries: u8,
    /// Bytes of the SYN's data that were taken (RFC 7413 §4.2.2): RCV.NXT is beyond them.
    pub(crate) syn_data: u16,
    /// The connection that the app has already: a fast open, for whose ACK this waits.
    pub(crate) connection: Option<Key>,
    /// One SYN-ACK was sent, so that its answer is a sample of the round trip (Karn).
    pub(crate) is_sample: bool,
    /// When the first SYN-ACK was sent.
    pub(crate) sent: Instant,
    /// When the next is.
    pub(crate) retransmit_at: Instant,
    pub(crate) wheel: WheelEntry,
}

const _: () = assert!(size_of::<SynReceived>() <= 152);

/// What is acceptable now: RCV.NXT, RCV.WND and SND.NXT, which a fast open's connection may have moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acceptable {
    pub(crate) rcv_nxt: SeqNum,
    pub(crate) rcv_wnd: u32,
    pub(crate) snd_nxt: SeqNum,
}

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
    /// What is acceptable while nothing but our SYN-ACK was sent.
    pub(crate) fn acceptable(&self) -> Acceptable {
        Acceptable { rcv_nxt: self.rcv_nxt(), rcv_wnd: self.wnd.into(), snd_nxt: self.iss + 1 }
    }

    /// Judges a segment of SEG.LEN `len`, in the RFC's order.
    pub(crate) fn judge(
        &self,
        header: &SegmentHeader,
        len: u32,
        acceptable: &Acceptable,
        config: &TcpConfig,
    ) -> SynReceivedVerdict {
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
                None if config.tolerate_missing_timestamps => {}
                None => return Drop(DropReason::TimestampMissing),
            }
        }
        // First, the sequence number.
        let (nxt, wnd) = (acceptable.rcv_nxt, acceptable.rcv_wnd);
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
            return if header.seq == nxt || !config.exact_resets {
                BackToListen(DropReason::SynReceivedReset)
            } else {
                Ack(DropReason::ResetChallenged)
            };
        }
        // Fourth, SYN (MUST-11): "If the connection was initiated with a passive OPEN, then return this connection to the
        // LISTEN state and return." Not for the sake of an old SYN whose text reaches into the window. What the app has
        // is not taken away for it (RFC 5961 §4).
        if flags.has(Flags::SYN) {
            return match self.connection {
                None if header.seq.before(nxt) => Ack(DropReason::OutOfWindow),
                None => BackToListen(DropReason::SynReceivedSyn),
                Some(_) => Ack(DropReason::SynChallenged),
            };
        }
        // Fifth, ACK.
        if !flags.has(Flags::ACK) {
            return Drop(DropReason::NoAck);
        }
        // Deviates: RFC 5961 §5 has an ACK far out of range answered with an ACK, before RFC 9293's rule for this state. A
        // reset is what a peer needs that never opened this connection.
        if !(header.ack.after(self.iss) && header.ack.at_or_before(acceptable.snd_nxt)) {
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
        config: &TcpConfig,
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
            wnd: syn_window(options),
            scales: theirs
                .window_scale
                .filter(|_| options.window_scale)
                .map(|peer| (peer.min(14), rx_scale(options))),
            sack: theirs.sack_permitted && options.sack,
            ecn: ecn::is_setup_syn(options, syn),
            ip: ip_fields(options),
            timestamps,
            gives_cookie: GivesCookie::No,
            retransmits: 0,
            retries: options.syn_retries.unwrap_or(config.syn_ack_retries),
            syn_data: 0,
            connection: None,
            is_sample: true,
            sent: now,
            retransmit_at: Instant::FAR,
            wheel: WheelEntry::NONE,
        }
    }

    /// What a cookie kept of a SYN, once `ack` has proven it: as if a record had been there all the while.
    pub(crate) fn from_cookie(
        now: Instant,
        flow: FlowKey,
        ack: &SegmentHeader,
        proof: &Proof,
        listener: Key,
        options: &SocketOptions,
        secrets: &Secrets,
        config: &TcpConfig,
    ) -> SynReceived {
        let asked = if proof.offer.is_some_and(|offer| offer.ecn) { ecn::SETUP } else { Flags::NONE };
        let syn = SegmentHeader {
            seq: ack.seq - 1,
            flags: Flags::SYN | asked,
            options: Options {
                mss: Some(proof.mss),
                window_scale: proof.offer.and_then(|offer| offer.scale),
                sack_permitted: proof.offer.is_some_and(|offer| offer.sack),
                timestamps: ack.options.timestamps.filter(|_| proof.offer.is_some()),
                ..Options::default()
            },
            ..*ack
        };
        let iss = ack.ack - 1;
        let record = SynReceived::new(now, flow, &syn, listener, options, iss, 0, secrets, config);
        // Nobody knows when the SYN-ACK was sent.
        SynReceived { is_sample: false, ..record }
    }

    /// What of the SYN's offers the timestamp of a SYN cookie says; without timestamps nothing can say them.
    pub(crate) fn offer(&self) -> Option<Offer> {
        let scale = self.scales.map(|(theirs, _)| theirs);
        self.timestamps.then_some(Offer { scale, sack: self.sack, ecn: self.ecn })
    }

    /// The SYN-ACK that is all there is of it: the cookie is its ISS, and its timestamp says the rest.
    pub(crate) fn cookie_syn_ack(
        &self,
        now: Instant,
        keys: &CookieKeys,
        config: &TcpConfig,
    ) -> SegmentHeader {
        let mut header = self.syn_ack(now, keys, config);
        match (self.offer(), &mut header.options.timestamps) {
            (Some(offer), Some(timestamps)) => timestamps.val = offer.timestamp(timestamps.val),
            _ => {
                header.options.window_scale = None;
                header.options.sack_permitted = false;
            }
        }
        header
    }

    /// RCV.NXT.
    pub(crate) fn rcv_nxt(&self) -> SeqNum {
        self.irs + 1 + u32::from(self.syn_data)
    }

    /// RCV.NXT + RCV.WND.
    pub(crate) fn edge(&self) -> SeqNum {
        self.rcv_nxt() + u32::from(self.wnd)
    }

    /// <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>, with the options that both know.
    pub(crate) fn syn_ack(&self, now: Instant, keys: &CookieKeys, config: &TcpConfig) -> SegmentHeader {
        let cookie = |is_experimental| keys.cookie(&self.flow).experimental(is_experimental);
        let fast_open: Option<FastOpenCookie> = match self.gives_cookie {
            GivesCookie::No => None,
            GivesCookie::Yes => Some(cookie(false)),
            GivesCookie::Experimental => Some(cookie(true)),
        };
        SegmentHeader {
            src_port: self.flow.local.port,
            dst_port: self.flow.remote.port,
            seq: self.iss,
            ack: self.rcv_nxt(),
            flags: Flags::SYN | Flags::ACK | if self.ecn { Flags::ECE } else { Flags::NONE },
            wnd: self.wnd,
            urgent: 0,
            options: Options {
                // RFC 9293 §3.7.1 (MUST-14, SHLD-5, MAY-3): in every SYN.
                mss: Some(self.local_mss),
                window_scale: self.scales.map(|(_, ours)| ours),
                sack_permitted: self.sack,
                timestamps: self.timestamps(now),
                fast_open,
                profile: config.option_profile,
                ..Options::default()
            },
        }
    }

    /// <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>.
    pub(crate) fn ack(&self, now: Instant) -> SegmentHeader {
        SegmentHeader {
            src_port: self.flow.local.port,
            dst_port: self.flow.remote.port,
            seq: self.iss + 1,
            ack: self.rcv_nxt(),
            flags: Flags::ACK,
            wnd: self.wnd >> self.scales.map_or(0, |(_, ours)| ours),
            urgent: 0,
            options: Options { timestamps: self.timestamps(now), ..Options::default() },
        }
    }

    fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.timestamps.then(|| Timestamps { val: timestamp_clock(now, self.ts_offset), ecr: self.ts_recent })
    }
}
