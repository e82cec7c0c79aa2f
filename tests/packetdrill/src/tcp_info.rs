//! `struct tcp_info` of a connection, as Linux 6.x lays it out, from the stack's [`ConnectionStats`] and what was seen of
//! its packets ([`crate::watch`]).
//!
//! Linux counts segments where the stack counts bytes: sizes are divided by the MSS. What neither knows (the receiver's
//! round trip, accurate ECN, the peer's spurious paths) is zero.

use hoststack::app::ConnectionStats;

use crate::watch::Flow;

/// Bytes of the struct with its newest field; a shorter room takes the beginning, a longer one is filled with zeros.
const LEN: usize = 280;
/// Linux's ssthresh before the first loss.
const SSTHRESH_NONE: u32 = 0x7fff_ffff;
/// Linux's delay of an acknowledgment, before it is adapted.
const ATO_US: u32 = 40_000;

/// The states of RFC 9293 as Linux numbers them.
pub(crate) mod state {
    pub(crate) const ESTABLISHED: u8 = 1;
    pub(crate) const SYN_SENT: u8 = 2;
    pub(crate) const SYN_RECEIVED: u8 = 3;
    pub(crate) const FIN_WAIT_1: u8 = 4;
    pub(crate) const FIN_WAIT_2: u8 = 5;
    pub(crate) const CLOSED: u8 = 7;
    pub(crate) const CLOSE_WAIT: u8 = 8;
    pub(crate) const LAST_ACK: u8 = 9;
    pub(crate) const LISTEN: u8 = 10;
    pub(crate) const CLOSING: u8 = 11;
}

/// What is known of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// One of [`state`].
    pub(crate) state: u8,
    pub(crate) now_us: u64,
    pub(crate) stats: Option<ConnectionStats>,
    pub(crate) flow: Option<&'a Flow>,
    /// MSS if nothing is connected.
    pub(crate) mss: u32,
    /// Connections that wait to be accepted, and how many may.
    pub(crate) backlog: Option<(u32, u32)>,
    /// Most bytes in a second.
    pub(crate) pacing_rate_max: u64,
}

struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn add_u32(&mut self, at: usize, more: u32) {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at..at + 4]);
        self.u32(at, u32::from_ne_bytes(bytes).saturating_add(more));
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
}

/// The struct, `room` bytes long.
pub(crate) fn encode(facts: &Facts<'_>, room: usize) -> Vec<u8> {
    let Facts { state, now_us, stats, flow, mss, backlog, pacing_rate_max } = *facts;
    let mut info = Writer(vec![0; LEN.max(room)]);
    info.0[0] = state;
    info.u32(8, 1_000_000);
    info.u32(12, ATO_US);
    info.u32(16, mss);
    info.u32(20, mss.min(536));
    info.u32(76, SSTHRESH_NONE);
    info.u32(80, 10);
    info.u32(88, 3);
    info.u64(104, u64::MAX);
    info.u64(112, pacing_rate_max);
    if let Some(stats) = &stats {
        encode_stats(&mut info, stats);
        // Linux counts segments, however short, and the SYN or the SYN-ACK as well.
        let whole = flow.map_or(stats.delivered, |flow| {
            flow.segments_acked() + stats.sacked.div_ceil(stats.mss.max(1).into())
        });
        info.u32(192, whole + 1);
    }
    if let Some((waiting, most)) = backlog {
        info.u32(24, waiting);
        info.u32(28, most);
    }
    if let Some(flow) = flow {
        encode_flow(&mut info, flow, now_us);
    }
    let mut info = info.0;
    info.truncate(room);
    info
}

fn encode_stats(info: &mut Writer, stats: &ConnectionStats) {
    let mss = u32::from(stats.mss.max(1));
    let segments = |bytes: u32| bytes.div_ceil(mss);
    info.0[1] = stats.recovery;
    info.0[2] = stats.retransmits;
    info.0[3] = stats.probes;
    info.0[4] = stats.retransmits.max(stats.probes);
    info.0[5] = u8::from(stats.timestamps)
        | u8::from(stats.sack) << 1
        | u8::from(stats.window_scaling) << 2
        | u8::from(stats.ecn) << 3
        | u8::from(stats.syn_data) << 5;
    info.0[6] = (stats.snd_scale & 15) | stats.rcv_scale << 4;
    info.u32(8, stats.rto_us);
    info.u32(16, mss);
    info.u32(20, u32::from(stats.peer_mss).min(mss.max(536)));
    info.u32(24, segments(stats.flight));
    info.u32(28, segments(stats.sacked));
    info.u32(32, segments(stats.lost));
    info.u32(36, segments(stats.retransmitted));
    info.u32(60, stats.path_mtu.into());
    info.u32(64, stats.rcv_wnd);
    info.u32(68, stats.srtt_us);
    info.u32(72, stats.rtt_var_us);
    info.u32(76, if stats.ssthresh > 1 << 30 { SSTHRESH_NONE } else { stats.ssthresh / mss });
    info.u32(80, stats.cwnd / mss);
    info.u32(88, stats.reordering);
    info.u32(96, stats.rcv_wnd);
    info.u32(100, stats.retransmitted_segments);
    info.u64(104, stats.pacing_rate);
    info.u64(120, stats.bytes_acked);
    info.u64(128, stats.bytes_received);
    info.u32(148, if stats.rtt_min_us == 0 { u32::MAX } else { stats.rtt_min_us });
    info.u64(160, stats.delivery_rate);
    info.u32(196, stats.delivered_ce);
    info.u32(216, stats.dsack_duplicates);
    info.u32(220, u32::from(stats.reordering > 3));
    info.u32(228, stats.snd_wnd);
    info.u32(232, stats.rcv_wnd);
}

fn encode_flow(info: &mut Writer, flow: &Flow, now_us: u64) {
    // Linux gives ages in milliseconds.
    let age = |at_us: u64| u32::try_from(now_us.saturating_sub(at_us) / 1000).unwrap_or(u32::MAX);
    info.u32(44, age(flow.last_data_sent_us));
    info.u32(52, age(flow.last_data_received_us));
    info.u32(56, age(flow.last_ack_received_us));
    // Linux counts what the SYN carried and is sent again as retransmissions; the stack, as the first time.
    // Cannot cut: a SYN's data are a few segments.
    let again = flow.syn_data_again.len() as u32;
    info.add_u32(36, again);
    info.u32(84, flow.our_mss.map_or(536, u32::from));
    info.u32(136, flow.segments_out);
    info.u32(140, flow.segments_in);
    info.u32(144, flow.unsent());
    info.u32(152, flow.data_segments_in);
    info.u32(156, flow.data_segments_out);
    let limits = flow.limits_at(now_us);
    info.u64(168, limits.busy_us);
    info.u64(176, limits.window_us);
    info.u64(184, limits.buffer_us);
    info.u64(200, flow.bytes_sent);
    info.u64(208, flow.bytes_again);
    info.u32(224, flow.out_of_order);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_where_linux_has_them() {
        let stats = ConnectionStats {
            srtt_us: 10_000,
            rto_us: 210_000,
            cwnd: 12_500,
            ssthresh: u32::MAX,
            mss: 1000,
            flight: 2500,
            sacked: 1000,
            lost: 1000,
            retransmits: 2,
            recovery: 3,
            timestamps: true,
            sack: true,
            window_scaling: true,
            snd_scale: 7,
            rcv_scale: 8,
            delivered: 4,
            bytes_acked: 1 << 40,
            ..ConnectionStats::default()
        };
        let mut flow = Flow::at(2500, 1000);
        flow.first_sent.extend([(400, 1), (1000, 2), (2500, 3)]);
        (flow.segments_out, flow.last_data_sent_us) = (9, 1_000_000);
        let facts = Facts {
            state: state::ESTABLISHED,
            now_us: 1_250_000,
            stats: Some(stats),
            flow: Some(&flow),
            mss: 536,
            backlog: None,
            pacing_rate_max: u64::MAX,
        };
        let info = encode(&facts, 248);
        let at = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().unwrap());
        assert_eq!(info.len(), 248);
        assert_eq!((info[0], info[1], info[2], info[5], info[6]), (1, 3, 2, 7, 0x87));
        assert_eq!((at(8), at(16), at(24), at(28), at(32)), (210_000, 1000, 3, 1, 1));
        assert_eq!((at(44), at(68), at(76), at(80)), (250, 10_000, SSTHRESH_NONE, 12));
        assert_eq!((at(136), at(192), at(124)), (9, 4, 1 << 8), "two acknowledged, one sacked, one SYN");
        assert_eq!(encode(&facts, 300).len(), 300);
        assert_eq!(encode(&facts, 1), [1]);
    }

    #[test]
    fn a_listener_tells_its_backlog() {
        let facts = Facts {
            state: state::LISTEN,
            now_us: 0,
            stats: None,
            flow: None,
            mss: 536,
            backlog: Some((2, 16)),
            pacing_rate_max: u64::MAX,
        };
        let info = encode(&facts, LEN);
        assert_eq!((info[0], info[24], info[28]), (10, 2, 16));
    }
}
