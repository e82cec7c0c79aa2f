//! Plain values that cross between main and workers: they are `Send`, hold no reference and name no pool's insides.

use alloc::boxed::Box;

use hoststack_transport::{EarlyData, FlowKey, HalfOpenId, HalfOpenUser, Instant, SocketOptions};
use hoststack_wire::{
    FastOpenCookie, Flags, IpFields, OptionProfile, Options, SegmentHeader, SeqNum, Timestamps,
};

/// A SYN that a worker is to send for main: what its header is made of, in half of a header's size, for every connect
/// sends one through a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syn {
    /// The flow.
    pub flow: FlowKey,
    /// ISS: what the worker judges answers against.
    pub iss: SeqNum,
    pub(crate) flags: Flags,
    /// SEG.WND, never scaled (RFC 7323 §2.2).
    pub(crate) wnd: u16,
    pub(crate) mss: u16,
    pub(crate) window_scale: Option<u8>,
    pub(crate) has_sack: bool,
    pub(crate) tsval: Option<u32>,
    pub(crate) fast_open: Option<Box<FastOpenCookie>>,
    pub(crate) profile: OptionProfile,
    /// Not a retransmission: the worker inserts the flow (`Engine::open`) before it sends it.
    pub first: bool,
    /// The connect's early data, if some of it goes with this SYN (RFC 7413 §4.2.1).
    pub data: EarlyData,
    /// How many bytes of it: what fits into one segment.
    pub data_len: u16,
    /// What its packet's IP header says.
    pub ip: IpFields,
}

impl Syn {
    /// The header as it is to be sent.
    pub fn header(&self) -> SegmentHeader {
        SegmentHeader {
            src_port: self.flow.local.port,
            dst_port: self.flow.remote.port,
            seq: self.iss,
            ack: SeqNum(0),
            flags: self.flags,
            wnd: self.wnd,
            urgent: 0,
            options: Options {
                // RFC 9293 §3.7.1 (MUST-14, SHLD-5, MAY-3): in every SYN.
                mss: Some(self.mss),
                window_scale: self.window_scale,
                sack_permitted: self.has_sack,
                timestamps: self.tsval.map(|val| Timestamps { val, ecr: 0 }),
                fast_open: self.fast_open.as_deref().copied(),
                profile: self.profile,
                ..Options::default()
            },
        }
    }

    /// The data that it carries.
    pub fn payload(&self) -> &[u8] {
        self.data.as_slice().get(..usize::from(self.data_len)).unwrap_or(&[])
    }
}

/// A segment that is acceptable in SYN-SENT, from the worker to main. It carries no payload: the peer sends that again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpenSegment {
    /// Whose.
    pub half_open: HalfOpenId,
    /// When the worker saw it.
    pub received: Instant,
    /// What it says.
    pub header: SegmentHeader,
}

/// An ICMP error that quotes a SYN of a half-open, from the worker to main.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpenError {
    /// Whose.
    pub half_open: HalfOpenId,
    /// What the network said.
    pub error: IcmpError,
}

/// An ICMP error about a TCP segment of ours, of either IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IcmpError {
    /// No route to the network or host, time exceeded: soft errors (RFC 9293 §3.9.2.2).
    Unreachable,
    /// The host has no such protocol or port.
    PortUnreachable,
    /// A filter forbids it.
    Prohibited,
    /// A segment did not fit the path: its MTU as an IP packet size (RFC 1191, RFC 8201).
    PacketTooBig {
        /// MTU of the next hop in bytes.
        mtu: u16,
    },
}

/// In which state the worker begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedState {
    /// The SYN-ACK came.
    Established,
    /// A bare SYN came: both ends opened at once (RFC 9293 §3.5, figure 7).
    SynReceived,
}

/// Timestamps as negotiated in SYN-SENT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeedTimestamps {
    /// The peer's TSval: TS.Recent.
    pub(crate) recent: u32,
    /// The last TSval that main had sent: the worker's clock may lag a step behind, its TSvals may not.
    pub(crate) last_sent: u32,
    /// What is added to the clock.
    pub(crate) offset: u32,
}

/// All that SYN-SENT learnt: what a connection is made of on the worker that owns its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct ConnectionSeed {
    /// The flow.
    pub flow: FlowKey,
    /// The half-open it was.
    pub half_open: HalfOpenId,
    /// Whose it is.
    pub user: HalfOpenUser,
    /// Where it begins.
    pub state: SeedState,
    /// What was asked for it.
    pub options: SocketOptions,
    pub(crate) iss: SeqNum,
    pub(crate) irs: SeqNum,
    /// SEG.WND of the peer's SYN, never scaled (RFC 7323 §2.2).
    pub(crate) peer_wnd: u16,
    /// The peer's MSS option.
    pub(crate) peer_mss: Option<u16>,
    /// The MSS we announced.
    pub(crate) local_mss: u16,
    /// (peer's shift, ours), when both offered.
    pub(crate) scales: Option<(u8, u8)>,
    pub(crate) sack: bool,
    /// Both ends do ECN.
    pub(crate) ecn: bool,
    pub(crate) timestamps: Option<SeedTimestamps>,
    /// Time from SYN to SYN-ACK, unless the SYN was sent more than once (Karn).
    pub(crate) rtt_us: Option<u32>,
    /// The SYN was retransmitted: RFC 6298 §5.7, RFC 5681 §3.1.
    pub(crate) syn_retransmitted: bool,
    /// Bytes of early data that a SYN carried.
    pub(crate) syn_data_sent: u16,
    /// Of these, the first that the SYN-ACK acknowledged.
    pub(crate) syn_data_acked: u16,
}
