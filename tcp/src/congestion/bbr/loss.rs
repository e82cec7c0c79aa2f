//! What losses and congestion marks do to the model (§5.5.10), and how that is taken back when they were none
//! (§5.5.11).

use hoststack_transport::Instant;

use super::params::*;
use super::{Bbr, Recovery, State};
use crate::rate::{LostRange, RateSample};

/// A state that a loss ended (BBR.undo_state).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbingState {
    Startup,
    Up,
}

/// What to go back to when a loss was none (§2.15).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Undo {
    /// BBR.undo_state.
    pub(super) state: Option<ProbingState>,
    bw_shortterm: u64,
    inflight_shortterm: u32,
    inflight_longterm: u32,
    /// It holds what was before the episode at hand.
    is_of_episode: bool,
    /// It holds something.
    can_undo: bool,
}

impl Bbr {
    /// IsInflightTooHigh (§5.5.10.2).
    pub(super) fn is_inflight_too_high(&self, lost: u32, tx_in_flight: u32) -> bool {
        // Deviates: §5.5.10.2 has no slack. On a short path 2 % are a packet or two, which chance alone loses now and then
        // where one in a hundred is lost, so that a flow never found out what the path takes.
        u64::from(lost) * 100 > u64::from(tx_in_flight) * LOSS_THRESH + 100 * self.loss_slack()
            || (lost > 0 && !self.has_sack)
    }

    fn loss_slack(&self) -> u64 {
        LOSS_SLACK_SEGMENTS * u64::from(self.mss)
    }

    /// HandleLostPacket (§5.5.10.2).
    pub(super) fn handle_lost(&mut self, now: Instant, lost: &LostRange) {
        self.delivered = self.delivered.max(lost.delivered);
        self.note_loss();
        // Deviates: §5.5.10.2 counts all losses alike, so that what a probe lost lowers inflight_longterm, and, because
        // most of it is found after the probe, the short-term bounds too: the flow stayed below what the path takes until
        // the probe after. Here these are for what was lost at the rate that they shall hold down.
        if lost.prior_delivered >= self.probe_end_delivered {
            self.lost_in_round = self.lost_in_round.saturating_add(lost.bytes);
        }
        if self.is_bw_probe_sample && self.is_inflight_too_high(lost.lost_since_sent, lost.tx_in_flight) {
            self.handle_inflight_too_high(
                now,
                inflight_at_loss(lost, self.loss_slack()),
                lost.is_app_limited,
            );
        }
    }

    /// An echo of a congestion mark (RFC 3168 §6.1), at most one per window.
    // Deviates: from RFC 3168 §6.1.2, as RFC 8311 §4.1 lets experiments do. The draft (§3.7) wants a mark treated as
    // congestion and does not say how: here it ends a probe as loss above the threshold does, and otherwise lowers the
    // short-term bounds as a round with loss does.
    pub(super) fn handle_mark(&mut self, now: Instant) {
        self.note_loss();
        self.is_mark_in_round = true;
        if self.state == State::Startup {
            self.leave_startup_on_congestion();
        } else if self.is_bw_probe_sample {
            self.handle_inflight_too_high(now, self.in_flight, false);
        }
    }

    /// NoteLoss (§5.5.10.2).
    fn note_loss(&mut self) {
        if !self.is_loss_in_round {
            self.loss_round_delivered = self.delivered;
            self.save_state_upon_loss();
        }
        self.is_loss_in_round = true;
        self.has_new_loss = true;
    }

    /// HandleInflightTooHigh (§5.5.10.2).
    fn handle_inflight_too_high(&mut self, now: Instant, tx_in_flight: u32, is_app_limited: bool) {
        self.was_probe_too_high = true;
        self.is_bw_probe_sample = false;
        if !is_app_limited {
            self.inflight_longterm =
                part_of_window(self.target_inflight(), BETA).max(tx_in_flight.min(WINDOW_MAX));
        }
        if self.state == State::Up {
            self.undo.state = Some(ProbingState::Up);
            self.start_down(now);
        }
    }

    /// UpdateLatestDeliverySignals (§5.5.10.3).
    pub(super) fn update_latest_delivery_signals(&mut self, sample: &RateSample) {
        self.bw_latest = self.bw_latest.max(sample.delivery_rate.unwrap_or(0));
        self.inflight_latest = self.inflight_latest.max(window_from(sample.delivered));
        self.is_loss_round_start = sample.prior_delivered >= self.loss_round_delivered;
        if self.is_loss_round_start {
            self.loss_round_delivered = self.delivered;
        }
    }

    /// AdvanceLatestDeliverySignals (§5.5.10.3).
    pub(super) fn advance_latest_delivery_signals(&mut self, sample: &RateSample) {
        if self.is_loss_round_start {
            self.bw_latest = sample.delivery_rate.unwrap_or(0);
            self.inflight_latest = window_from(sample.delivered);
        }
    }

    /// UpdateCongestionSignals (§5.5.10.3), with UpdateMaxBw (§5.5.5).
    pub(super) fn update_congestion_signals(&mut self, sample: &RateSample) {
        self.update_round(sample);
        if let Some(rate) = sample.delivery_rate {
            self.max_bw.update(rate, sample.is_app_limited);
        }
        if self.is_loss_round_start {
            // AdaptLowerBoundsFromCongestion
            // Deviates: §5.5.10.3 lowers the bounds for any loss in the round. Here a round counts that lost more than the
            // threshold that ends a probe: below it loss is the path's, and on short round trips the draft's rule keeps a
            // flow at three quarters of a link that loses one packet in a hundred.
            let is_too_much = self.is_inflight_too_high(self.lost_in_round, sample.tx_in_flight);
            if (self.is_mark_in_round || is_too_much) && !self.state.is_probing() {
                self.lower_bounds();
            }
            self.end_loss_round();
        }
    }

    /// What was lost so far is answered.
    fn end_loss_round(&mut self) {
        self.is_loss_in_round = false;
        self.is_mark_in_round = false;
        self.lost_in_round = 0;
    }

    /// Acceleration ends: what was sent until now, and the losses of it, belong to it.
    pub(super) fn end_acceleration(&mut self) {
        if self.state.is_probing() {
            self.probe_end_delivered = self.delivered;
            self.lost_in_round = 0;
        }
    }

    /// InitLowerBounds and LossLowerBounds (§5.5.10.3).
    fn lower_bounds(&mut self) {
        if self.bw_shortterm == NO_RATE_BOUND {
            self.bw_shortterm = self.max_bw.value();
        }
        if self.inflight_shortterm == NO_BOUND {
            self.inflight_shortterm = self.cwnd;
        }
        self.bw_shortterm = self.bw_latest.max(part(self.bw_shortterm, BETA));
        self.inflight_shortterm = self.inflight_latest.max(part_of_window(self.inflight_shortterm, BETA));
    }

    /// ResetCongestionSignals (§5.5.10.3).
    pub(super) fn reset_congestion_signals(&mut self) {
        self.end_loss_round();
        self.bw_latest = 0;
        self.inflight_latest = 0;
    }

    /// ResetShortTermModel (§5.5.10.3).
    pub(super) fn reset_short_term_model(&mut self) {
        self.bw_shortterm = NO_RATE_BOUND;
        self.inflight_shortterm = NO_BOUND;
    }

    /// BoundBWForModel (§5.5.10.3).
    pub(super) fn bound_bw_for_model(&mut self) {
        self.bw = self.max_bw.value().min(self.bw_shortterm);
    }

    /// SaveStateUponLoss (§5.5.11.1).
    // Deviates: once an episode, not in each of its rounds, and not again when fast recovery begins after a loss was
    // noted: what is saved is what was before all of it.
    pub(super) fn save_state_upon_loss(&mut self) {
        if self.undo.is_of_episode {
            return;
        }
        self.save_cwnd();
        self.undo = Undo {
            state: None,
            bw_shortterm: self.bw_shortterm,
            inflight_shortterm: self.inflight_shortterm,
            inflight_longterm: self.inflight_longterm,
            is_of_episode: true,
            can_undo: true,
        };
    }

    /// SaveCwnd (§5.6.4.4).
    pub(super) fn save_cwnd(&mut self) {
        self.prior_cwnd = if self.recovery == Recovery::None && self.state != State::ProbeRtt {
            self.cwnd
        } else {
            self.prior_cwnd.max(self.cwnd)
        };
    }

    /// RestoreCwnd (§5.6.4.4).
    pub(super) fn restore_cwnd(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
    }

    /// The end of a recovery, repaired or taken back (§5.6.4.4).
    pub(super) fn leave_recovery(&mut self) {
        self.recovery = Recovery::None;
        self.undo.is_of_episode = false;
        self.restore_cwnd();
    }

    /// HandleSpuriousLossDetection (§5.5.11.2).
    pub(super) fn handle_spurious_loss_detection(&mut self) {
        if !self.undo.can_undo {
            return;
        }
        let undo = core::mem::take(&mut self.undo);
        self.leave_recovery();
        self.is_loss_in_round = false;
        self.lost_in_round = 0;
        self.full_bw.reset(0);
        self.bw_shortterm = self.bw_shortterm.max(undo.bw_shortterm);
        self.inflight_shortterm = self.inflight_shortterm.max(undo.inflight_shortterm);
        self.inflight_longterm = self.inflight_longterm.max(undo.inflight_longterm);
        match undo.state {
            Some(ProbingState::Startup) if self.state != State::Startup => {
                self.full_bw.is_reached = false;
                if self.state != State::ProbeRtt {
                    self.enter_startup();
                }
            }
            Some(ProbingState::Up) if !matches!(self.state, State::Up | State::ProbeRtt) => {
                self.start_refill()
            }
            _ => {}
        }
        self.bound_bw_for_model();
        self.bound_cwnd();
    }
}

/// InflightAtLoss (§5.5.10.2): how much was in flight when the loss passed the threshold, within this range.
fn inflight_at_loss(lost: &LostRange, slack: u64) -> u32 {
    let in_flight_before = lost.tx_in_flight.saturating_sub(lost.bytes);
    let lost_before = lost.lost_since_sent.saturating_sub(lost.bytes);
    let budget = u64::from(in_flight_before) * LOSS_THRESH + slack * 100;
    let lost_prefix = budget.saturating_sub(u64::from(lost_before) * 100) / (100 - LOSS_THRESH);
    in_flight_before.saturating_add(window_from(lost_prefix).min(lost.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flight_at_loss_is_where_the_threshold_was_passed() {
        let lost = |tx_in_flight, bytes, lost_since_sent| {
            inflight_at_loss(&LostRange { tx_in_flight, bytes, lost_since_sent, ..LostRange::default() }, 0)
        };
        // 90,000 before a burst of 10,000 of which all is lost, 820 were lost before: (1800 - 820) / 0.98 = 1000.
        assert_eq!(lost(100_000, 10_000, 10_820), 91_000);
        assert_eq!(lost(100_000, 10_000, 30_000), 90_000, "too much was lost before");
        assert_eq!(lost(1000, 1000, 1000), 0);
        assert_eq!(lost(100_000, 1000, 1000), 100_000, "not passed even with all of it");
    }
}
