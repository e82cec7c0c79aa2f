//! RACK: a segment is lost when one that was sent sufficiently later was delivered (RFC 8985 §6).
//!
//! It replaces the rule of three duplicates (RFC 6675 IsLost): those that SACK reports in a row open the window of
//! reordering to nothing (§6.2.1), which is that rule, and what is lost at the tail or sent again is found as well.

use hoststack_transport::Instant;
use hoststack_wire::SeqNum;

use super::DUP_THRESH;
use super::flight::{Flight, Sent};

/// Recoveries after which a widened window of reordering is forgotten (RFC 8985 §6.2 step 4, RACK.reo_wnd_persist).
const PERSIST: u8 = 16;

/// More is not told (Linux: tcp_max_reordering).
const DEGREE_MAX: u16 = 300;

/// What a connection learnt about reordering on its path: kept while nothing is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reordering {
    /// RACK.reordering_seen.
    pub(crate) is_seen: bool,
    /// The furthest that something arrived behind what was sent after it, in segments; at least 3 (DupThresh).
    pub(crate) degree: u16,
    /// RACK.reo_wnd_mult: quarters of the least round trip.
    mult: u8,
    /// RACK.reo_wnd_persist.
    persist: u8,
}

impl Reordering {
    pub(crate) const NONE: Reordering = Reordering { is_seen: false, degree: 3, mult: 1, persist: PERSIST };

    /// D-SACK: something was sent again that had only been late; once per round trip.
    fn widen(&mut self) {
        self.mult = self.mult.saturating_add(1);
        self.persist = PERSIST;
    }

    /// A recovery ended.
    pub(crate) fn on_recovery_exit(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.mult = 1;
            self.persist = PERSIST;
        }
    }
}

/// The most recent delivery, and what is judged against it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rack {
    /// RACK.xmit_ts: when the most recently sent of what was delivered was sent.
    sent_at: Instant,
    /// RACK.end_seq: its end.
    end: SeqNum,
    /// RACK.rtt: its round trip.
    rtt_us: u32,
    /// RACK.fack: the highest sequence number delivered.
    fack: SeqNum,
    /// RACK.dsack_round: until SND.UNA is here, a D-SACK says nothing new.
    dsack_round: Option<SeqNum>,
}

/// Whether what was sent at `a` up to `a_end` was sent after the other (RACK_sent_after).
fn is_sent_after(a: Instant, a_end: SeqNum, b: Instant, b_end: SeqNum) -> bool {
    a > b || (a == b && a_end.after(b_end))
}

/// What [`Rack::detect_loss`] found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// Bytes newly lost.
    pub(crate) bytes: u32,
    /// In how long, in us, more may be lost: the reordering timer (§6.2 step 5).
    pub(crate) wait_us: Option<u64>,
}

impl Rack {
    /// Nothing was delivered since `una`.
    pub(crate) fn new(una: SeqNum) -> Rack {
        Rack { sent_at: Instant::ZERO, end: una, rtt_us: 0, fack: una, dsack_round: None }
    }

    /// §6.2 steps 1 to 3: a range up to `sent.end` was delivered for the first time. `rtt_min_us` and whether the echoed
    /// timestamp is that of the last transmission or a later one (`None` without timestamps) tell a retransmission's
    /// acknowledgment from the original's.
    pub(crate) fn on_delivered(
        &mut self,
        now: Instant,
        sent: &Sent,
        len: u32,
        mss: u32,
        rtt_min_us: u32,
        echoes_last: Option<bool>,
        reordering: &mut Reordering,
    ) {
        let rtt_us = u32::try_from(now.micros_since(sent.sent_at)).unwrap_or(u32::MAX);
        if sent.end.after(self.fack) {
            self.fack = sent.end;
        } else if sent.end.before(self.fack) && !sent.is_repeated {
            reordering.is_seen = true;
            let segments = self.fack.since(sent.end - len).div_ceil(mss.max(1));
            reordering.degree =
                reordering.degree.max(u16::try_from(segments).unwrap_or(u16::MAX).min(DEGREE_MAX));
        }
        if sent.is_repeated && (echoes_last == Some(false) || rtt_us < rtt_min_us) {
            return;
        }
        if is_sent_after(sent.sent_at, sent.end, self.sent_at, self.end) {
            (self.sent_at, self.end, self.rtt_us) = (sent.sent_at, sent.end, rtt_us);
        }
    }

    /// §6.2 step 4: a D-SACK widens the window of reordering, once per round trip.
    pub(crate) fn on_dsack(&mut self, una: SeqNum, nxt: SeqNum, reordering: &mut Reordering) {
        if self.dsack_round.is_none_or(|round| una.at_or_after(round)) {
            self.dsack_round = Some(nxt);
            reordering.widen();
        }
    }

    /// RACK_update_reo_wnd (§6.2 step 4), in us.
    fn reordering_window_us(
        &self,
        flight: &Flight,
        is_recovering: bool,
        mss: u32,
        rtt_min_us: u32,
        srtt_us: u32,
        reordering: Reordering,
    ) -> u64 {
        let are_three_sacked =
            flight.sacked_ranges() >= DUP_THRESH || flight.sacked() > (DUP_THRESH - 1) * mss;
        if !reordering.is_seen && (is_recovering || are_three_sacked) {
            return 0;
        }
        (u64::from(rtt_min_us) / 4 * u64::from(reordering.mult)).min(srtt_us.into())
    }

    /// The time of what is sent again now: later than that of what was delivered, also if no time passed since. By its
    /// place in the sequence it would count as sent before, be lost again at once, and so for ever on a link without delay.
    pub(crate) fn after_latest(&self, now: Instant) -> Instant {
        if self.sent_at < now { now } else { self.sent_at.plus_micros(1) }
    }

    /// RACK_detect_loss (§6.2 step 5): marks lost what was sent long enough before the most recent delivery.
    pub(crate) fn detect_loss(
        &self,
        now: Instant,
        flight: &mut Flight,
        is_recovering: bool,
        mss: u32,
        rtt_min_us: u32,
        srtt_us: u32,
        reordering: Reordering,
        on_lost: impl FnMut(&Sent, u32),
    ) -> Found {
        let window_us =
            self.reordering_window_us(flight, is_recovering, mss, rtt_min_us, srtt_us, reordering);
        let due_us = u64::from(self.rtt_us) + window_us;
        let (bytes, wait_us) = flight.mark_lost_before((self.sent_at, self.end), now, due_us, on_lost);
        Found { bytes, wait_us }
    }

    /// RACK_mark_losses_on_RTO (§6.3): the first range, and what had time enough to arrive; not what was sent since.
    pub(crate) fn mark_on_rto(
        &self,
        now: Instant,
        flight: &mut Flight,
        mss: u32,
        rtt_min_us: u32,
        srtt_us: u32,
        reordering: Reordering,
        on_lost: impl FnMut(&Sent, u32),
    ) {
        let window_us = self.reordering_window_us(flight, true, mss, rtt_min_us, srtt_us, reordering);
        let rtt_us = self.rtt_us.max(srtt_us);
        let first = flight.una();
        let nxt = flight.nxt();
        let is_lost = |start, sent: &Sent| {
            start == first || now.micros_since(sent.sent_at) >= u64::from(rtt_us) + window_us
        };
        flight.mark_lost(nxt, is_lost, on_lost);
    }
}
