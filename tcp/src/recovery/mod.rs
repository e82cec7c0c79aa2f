//! Loss recovery: what is lost, what is still in the network, what to send again. How much may be in flight is
//! `congestion`'s to say.
//!
//! [`flight`] is what is in flight (RFC 6675's scoreboard). [`rack`] finds what is lost (RFC 8985), [`tlp`] probes the
//! tail, [`prr`] says how much goes out while the window comes down (RFC 6937bis), [`undo`] finds out that all was a
//! mistake (RFC 3708, 4015, 5682). Without SACK, [`DuplicateAcks`] keeps the little that duplicate ACKs tell
//! (RFC 5681, 6582). `ack.rs` plays them for each acknowledgment.

pub(crate) mod flight;
pub(crate) mod prr;
pub(crate) mod rack;
pub(crate) mod tlp;
pub(crate) mod undo;

use hoststack_transport::Instant;
use hoststack_wire::SeqNum;

use self::flight::Flight;
use self::prr::Prr;
use self::rack::Rack;
use self::tlp::TailProbe;
use self::undo::Undo;
use crate::rate::RateEstimator;

/// Duplicate ACKs, or discontiguous ranges above, that make a segment lost (RFC 5681 §3.2, RFC 6675 §2).
pub(crate) const DUP_THRESH: u32 = 3;

/// Where loss recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing is lost as far as we know.
    Open,
    /// Fast recovery (RFC 6675, or RFC 6582 without SACK).
    Fast,
    /// After a timeout, until all that was outstanding then is acknowledged.
    Loss,
}

/// What a connection needs while more is in flight than was sent at one time, or something is amiss: taken from the
/// engine's spares, and given back when all is acknowledged.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) flight: Flight,
    pub(crate) mode: Mode,
    /// RecoveryPoint: SND.NXT when recovery began; it ends when SND.UNA reaches it. In `Open`, below SND.UNA, or at it
    /// when what is outstanding was sent in the recovery that ended.
    pub(crate) recovery_point: SeqNum,
    /// The next retransmission goes out whatever the window.
    pub(crate) must_retransmit: bool,
    /// After a timeout, nothing but the first segment was sent again yet: F-RTO (RFC 5682).
    pub(crate) is_frto: bool,
    pub(crate) probe: Option<TailProbe>,
    pub(crate) rack: Rack,
    pub(crate) prr: Prr,
    pub(crate) undo: Undo,
    pub(crate) duplicates: DuplicateAcks,
    pub(crate) rate: RateEstimator,
    /// The latest delivery rate, in bytes per second; 0 before one.
    pub(crate) latest_rate: u64,
}

impl Recovery {
    /// With nothing in flight from `una` on.
    pub(crate) fn new(una: SeqNum) -> Recovery {
        Recovery {
            flight: Flight::new(),
            mode: Mode::Open,
            recovery_point: una - 1,
            must_retransmit: false,
            is_frto: false,
            probe: None,
            rack: Rack::new(una),
            prr: Prr::default(),
            undo: Undo::default(),
            duplicates: DuplicateAcks::new(),
            rate: RateEstimator::new(),
            latest_rate: 0,
        }
    }

    /// Begins anew for another connection, or another flight; keeps a little memory.
    pub(crate) fn reset(&mut self, una: SeqNum) {
        let mut flight = core::mem::replace(&mut self.flight, Flight::new());
        flight.reset(una);
        *self = Recovery { flight, ..Recovery::new(una) };
    }

    /// Whether nothing in it is worth keeping.
    pub(crate) fn is_idle(&self) -> bool {
        self.mode == Mode::Open && self.flight.is_empty() && self.probe.is_none() && !self.undo.is_open()
    }

    /// The first range in flight was sent last at this time: the retransmission timer counts from there.
    pub(crate) fn first_sent_at(&self) -> Option<Instant> {
        self.flight.first().map(|sent| sent.sent_at)
    }
}

/// What duplicate ACKs say without SACK: how many bytes left the network.
///
/// RFC 5681 §3.2 and RFC 6582 §3.2 add these bytes to cwnd ("inflate") while recovery lasts. Taking them off the bytes
/// in flight instead lets the same segments out, and compares to cwnd as RFC 6675's pipe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct DuplicateAcks {
    delivered: u32,
}

impl DuplicateAcks {
    /// None seen.
    pub(crate) const fn new() -> DuplicateAcks {
        DuplicateAcks { delivered: 0 }
    }

    /// A duplicate ACK came while `flight` bytes were outstanding: one segment of `smss` bytes was delivered.
    ///
    /// However many come, they never speak for more than what is outstanding.
    pub(crate) fn on_duplicate(&mut self, flight: u32, smss: u32) {
        self.delivered = self.delivered.saturating_add(smss).min(flight);
    }

    /// An ACK of `acked` new bytes that does not end recovery (RFC 6582 §3.2 step 3, partial acknowledgment): what it
    /// covers was delivered and is outstanding no more, but the segment that was lost never was among the duplicates.
    pub(crate) fn on_partial_ack(&mut self, acked: u32, smss: u32) {
        let counted = if acked >= smss { acked - smss } else { acked };
        self.delivered = self.delivered.saturating_sub(counted);
    }

    /// Recovery ended, or the timer expired.
    pub(crate) fn clear(&mut self) {
        self.delivered = 0;
    }

    /// Bytes in the network, of `flight` outstanding.
    pub(crate) fn pipe(&self, flight: u32) -> u32 {
        flight.saturating_sub(self.delivered)
    }

    /// Bytes that duplicates said were delivered.
    #[cfg(test)]
    pub(crate) fn delivered(&self) -> u32 {
        self.delivered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_let_out_what_the_inflated_window_of_rfc_6582_would() {
        // 10 segments of 1000 out, ssthresh 5000. RFC: cwnd = ssthresh + 3*SMSS, + SMSS per further duplicate.
        let (mut acks, mut flight, ssthresh) = (DuplicateAcks::new(), 10_000, 5_000);
        let mut inflated = ssthresh;
        for _ in 0..9 {
            acks.on_duplicate(flight, 1000);
            inflated += 1000;
            assert_eq!(acks.pipe(flight) < ssthresh, flight < inflated);
            if acks.pipe(flight) < ssthresh {
                flight += 1000;
            }
        }
        assert_eq!((flight, inflated), (14_000, 14_000));
        // A partial ACK of 4 segments: deflate by them, add one SMSS.
        flight -= 4000;
        inflated = inflated - 4000 + 1000;
        acks.on_partial_ack(4000, 1000);
        assert_eq!(ssthresh as i64 - acks.pipe(flight) as i64, inflated as i64 - flight as i64);
        assert_eq!(acks.pipe(flight), 4000);
    }

    #[test]
    fn a_flood_of_duplicates_speaks_for_no_more_than_what_is_outstanding() {
        let mut acks = DuplicateAcks::new();
        (0..100).for_each(|_| acks.on_duplicate(3000, 1000));
        assert_eq!((acks.pipe(3000), acks.delivered()), (0, 3000));
        acks.on_partial_ack(500, 1000);
        assert_eq!(acks.delivered(), 2500);
        acks.clear();
        assert_eq!(acks.pipe(3000), 3000);
    }
}
