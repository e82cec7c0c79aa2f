//! Loss recovery: what is lost, what is still in the network, what to send again. How much may be in flight is
//! `congestion`'s to say.
//!
//! [`sack`] has the scoreboard of RFC 6675. Without SACK, [`DuplicateAcks`] keeps the little that duplicate ACKs tell;
//! [`Scoreboard::mark_lost`] then says what to send.

pub mod sack;

pub use sack::{NextSeg, SackUpdate, Scoreboard};

/// Duplicate ACKs, or discontiguous ranges above, that make a segment lost (RFC 5681 §3.2, RFC 6675 §2).
pub const DUP_THRESH: u32 = 3;

/// What duplicate ACKs say without SACK: how many bytes left the network.
///
/// RFC 5681 §3.2 and RFC 6582 §3.2 add these bytes to cwnd ("inflate") while recovery lasts. Taking them off the bytes
/// in flight instead lets the same segments out, and compares to cwnd as RFC 6675's pipe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DuplicateAcks {
    delivered: u32,
}

impl DuplicateAcks {
    /// None seen.
    pub const fn new() -> DuplicateAcks {
        DuplicateAcks { delivered: 0 }
    }

    /// A duplicate ACK came while `flight` bytes were outstanding: one segment of `smss` bytes was delivered.
    ///
    /// However many come, they never speak for more than what is outstanding.
    pub fn on_duplicate(&mut self, flight: u32, smss: u32) {
        self.delivered = self.delivered.saturating_add(smss).min(flight);
    }

    /// An ACK of `acked` new bytes that does not end recovery (RFC 6582 §3.2 step 3, partial acknowledgment): what it
    /// covers was delivered and is outstanding no more, but the segment that was lost never was among the duplicates.
    pub fn on_partial_ack(&mut self, acked: u32, smss: u32) {
        let counted = if acked >= smss { acked - smss } else { acked };
        self.delivered = self.delivered.saturating_sub(counted);
    }

    /// Recovery ended, or the timer expired.
    pub fn clear(&mut self) {
        self.delivered = 0;
    }

    /// Bytes in the network, of `flight` outstanding.
    pub fn pipe(&self, flight: u32) -> u32 {
        flight.saturating_sub(self.delivered)
    }

    /// Bytes that duplicates said were delivered.
    pub fn delivered(&self) -> u32 {
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
