//! Tail loss probes (RFC 8985 §7): when nothing is heard of the last segments for two round trips, one more segment
//! is sent, so that its acknowledgment tells of a loss long before the retransmission timer would.

use hoststack_wire::SeqNum;

/// TLP.max_ack_delay: what a delayed acknowledgment may take when a single segment is in flight (§7.2). Linux takes
/// its least RTO.
const MAX_ACK_DELAY_US: u64 = 200_000;
/// The probe's time-out before a round trip was measured (§7.2).
const UNMEASURED_US: u64 = 1_000_000;
/// Not sooner, however short the round trip: acknowledgments are sent at the end of steps.
const LEAST_US: u64 = 2_000;

/// A probe that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailProbe {
    /// TLP.end_seq: SND.NXT when it was sent.
    pub(crate) end: SeqNum,
    /// TLP.is_retrans: it sent the last segment again, and was no new data.
    pub(crate) is_repeated: bool,
}

/// What an acknowledgment makes of the probe that is out (§7.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeVerdict {
    /// Not yet known.
    Open,
    /// It is over; nothing was lost as far as the probe knows.
    Over,
    /// It repaired a loss, to which congestion control must respond.
    Repaired,
}

impl TailProbe {
    /// TLP_process_ack: `is_duplicate` for an acknowledgment of nothing new at all, `is_dsack` if it reports the probe
    /// as received twice.
    pub(crate) fn on_ack(self, ack: SeqNum, is_duplicate: bool, is_dsack: bool) -> ProbeVerdict {
        if ack.before(self.end) {
            return ProbeVerdict::Open;
        }
        if !self.is_repeated || is_dsack {
            ProbeVerdict::Over
        } else if ack.after(self.end) {
            ProbeVerdict::Repaired
        } else if is_duplicate {
            // Both copies arrived: the second made this duplicate.
            ProbeVerdict::Over
        } else {
            ProbeVerdict::Open
        }
    }
}

/// TLP_calc_PTO (§7.2), in us; `rto_left_us`: until the retransmission timer would fire.
pub(crate) fn probe_timeout_us(srtt_us: Option<u32>, is_single_segment: bool, rto_left_us: u64) -> u64 {
    let timeout = match srtt_us {
        None => UNMEASURED_US,
        Some(srtt) if is_single_segment => 2 * u64::from(srtt) + MAX_ACK_DELAY_US,
        Some(srtt) => 2 * u64::from(srtt) + LEAST_US,
    };
    timeout.min(rto_left_us)
}
