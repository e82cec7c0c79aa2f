//! Was a response to congestion called for? If every retransmission turns out to have been needless, by D-SACK
//! (RFC 3708) or by the timestamp that an acknowledgment echoes (Eifel, RFC 3522 and 4015), or if what was never sent
//! again is acknowledged after a timeout (F-RTO, RFC 5682), what congestion control did is undone.

use hoststack_wire::SeqNum;

/// What is known about the retransmissions of one recovery, fast or after a timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Undo {
    /// SND.UNA when it began; `None` when there is nothing to undo.
    marker: Option<SeqNum>,
    /// Segments that were sent again and not yet reported as received twice.
    unproven: u32,
    /// Segments that were sent again.
    repeated: u32,
    /// TSval of the first of them.
    first_tsval: u32,
    /// Recovery ended: a D-SACK is waited for until SND.UNA is here.
    until: Option<SeqNum>,
}

impl Undo {
    /// Recovery begins. Of what an earlier one sent again, `pending` ranges may be under way still, the first sent with
    /// TSval `first_tsval`: their acknowledgments must not be taken for those of originals.
    pub(crate) fn begin(una: SeqNum, pending: u32, first_tsval: u32) -> Undo {
        Undo { marker: Some(una), unproven: pending, repeated: pending, first_tsval, until: None }
    }

    /// Something was sent again, with this TSval.
    pub(crate) fn on_retransmitted(&mut self, tsval: u32) {
        if self.marker.is_some() {
            if self.repeated == 0 {
                self.first_tsval = tsval;
            }
            self.repeated += 1;
            self.unproven += 1;
        }
    }

    /// The peer reports `start..end` as received twice (RFC 2883).
    pub(crate) fn on_dsack(&mut self, end: SeqNum) {
        if self.marker.is_some_and(|marker| end.after(marker)) {
            self.unproven = self.unproven.saturating_sub(1);
        }
    }

    /// Whether all retransmissions were needless, as the peer reported.
    pub(crate) fn is_refuted_by_dsack(&self) -> bool {
        self.marker.is_some() && self.repeated > 0 && self.unproven == 0
    }

    /// Whether an acknowledgment of new data that echoes `ecr` was caused by an original: it was sent before the first
    /// retransmission was (RFC 3522 §3.2, step 4).
    pub(crate) fn is_refuted_by_echo(&self, ecr: u32) -> bool {
        self.marker.is_some() && self.repeated > 0 && (ecr.wrapping_sub(self.first_tsval) as i32) < 0 // signed distance on the circle
    }

    /// Recovery ended with SND.NXT at `nxt`: within a round trip a D-SACK may still come.
    pub(crate) fn on_recovery_exit(&mut self, nxt: SeqNum) {
        self.until = Some(nxt);
    }

    /// SND.UNA moved: what was not refuted by now was right.
    pub(crate) fn on_progress(&mut self, una: SeqNum) {
        if self.until.is_some_and(|until| una.at_or_after(until)) {
            *self = Undo::default();
        }
    }

    /// Whether something may still be undone.
    pub(crate) fn is_open(&self) -> bool {
        self.marker.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_when_each_retransmission_was_reported_twice_was_all_needless() {
        let mut undo = Undo::begin(SeqNum(100), 0, 0);
        assert!(!undo.is_refuted_by_dsack());
        undo.on_retransmitted(7);
        undo.on_retransmitted(8);
        undo.on_dsack(SeqNum(200));
        // An older duplicate does not count.
        undo.on_dsack(SeqNum(100));
        assert!(!undo.is_refuted_by_dsack());
        undo.on_dsack(SeqNum(300));
        assert!(undo.is_refuted_by_dsack());
        assert!(!Undo::default().is_refuted_by_dsack());
    }

    #[test]
    fn an_echo_from_before_the_first_retransmission_refutes_it_and_a_later_one_does_not() {
        let mut undo = Undo::begin(SeqNum(1), 0, 0);
        assert!(!undo.is_refuted_by_echo(0));
        undo.on_retransmitted(2);
        undo.on_retransmitted(9);
        assert!(undo.is_refuted_by_echo(1) && undo.is_refuted_by_echo(u32::MAX));
        assert!(!undo.is_refuted_by_echo(2) && !undo.is_refuted_by_echo(3));
    }

    #[test]
    fn what_an_earlier_recovery_sent_again_is_no_original() {
        let mut undo = Undo::begin(SeqNum(100), 1, 5);
        undo.on_retransmitted(9);
        assert!(!undo.is_refuted_by_echo(5), "the acknowledgment of the earlier retransmission");
        assert!(undo.is_refuted_by_echo(4));
        undo.on_dsack(SeqNum(200));
        assert!(!undo.is_refuted_by_dsack(), "only one of the two is refuted");
    }
}
