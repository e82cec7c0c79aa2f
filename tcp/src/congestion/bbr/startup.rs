//! Startup and Drain (§5.3.1, §5.3.2), and the estimator of a full pipe, which ProbeBW_UP uses too.

use hoststack_transport::Instant;

use super::loss::ProbingState;
use super::params::*;
use super::{Bbr, Recovery, State};
use crate::rate::RateSample;

/// The estimator of a full pipe (§5.3.1.2).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FullBw {
    /// BBR.full_bw: the rate that growth is measured from.
    pub(super) baseline: u64,
    /// BBR.full_bw_count.
    rounds: u8,
    /// BBR.full_bw_now.
    pub(super) is_now: bool,
    /// BBR.full_bw_reached.
    pub(super) is_reached: bool,
}

impl FullBw {
    /// ResetFullBW, with a rate to measure growth from.
    pub(super) fn reset(&mut self, baseline: u64) {
        *self = FullBw { baseline, is_reached: self.is_reached, ..FullBw::default() };
    }
}

impl Bbr {
    /// CheckFullBWReached (§5.3.1.2).
    pub(super) fn check_full_bw_reached(&mut self, sample: &RateSample) {
        let full = &mut self.full_bw;
        if full.is_now || !self.is_round_start || sample.is_app_limited {
            return;
        }
        let rate = sample.delivery_rate.unwrap_or(0);
        if rate != 0 && rate >= part(full.baseline, 125) {
            full.reset(rate);
            return;
        }
        full.rounds += 1;
        if full.rounds >= FULL_BW_ROUNDS {
            full.is_now = true;
            full.is_reached = true;
        }
    }

    /// CheckStartupDone (§5.3.1.1).
    pub(super) fn check_startup_done(&mut self, sample: &RateSample) {
        self.check_startup_high_loss(sample);
        if self.state == State::Startup && self.full_bw.is_reached {
            // EnterDrain (§5.3.2)
            self.end_acceleration();
            self.state = State::Drain;
            self.drain_start_round = self.round_count;
        }
    }

    /// CheckStartupHighLoss (§5.3.1.3).
    fn check_startup_high_loss(&mut self, sample: &RateSample) {
        if self.full_bw.is_reached {
            return;
        }
        // Deviates: counted are not the separate ranges lost but the acknowledgments that found some; an
        // acknowledgment that finds several counts for less than the draft says.
        self.loss_events_in_round = self.loss_events_in_round.saturating_add(u8::from(self.has_new_loss));
        self.has_new_loss = false;
        let is_high = if self.has_sack {
            self.is_loss_round_start
                && self.recovery == Recovery::Fast
                && self.loss_events_in_round >= STARTUP_FULL_LOSS_COUNT
                && self.is_inflight_too_high(sample.lost, sample.tx_in_flight)
        } else {
            self.recovery == Recovery::Fast && self.loss_events_in_round > 0
        };
        if is_high {
            self.leave_startup_on_congestion();
        } else if self.is_loss_round_start {
            self.loss_events_in_round = 0;
        }
    }

    /// The steps of §5.3.1.3 once the loss is too high; the next acknowledgment enters Drain, if this one does not.
    pub(super) fn leave_startup_on_congestion(&mut self) {
        self.undo.state = Some(ProbingState::Startup);
        self.full_bw.is_reached = true;
        self.inflight_longterm = self.bdp_multiple(self.max_bw.value(), 100).max(self.inflight_latest);
    }

    /// CheckDrainDone (§5.3.2).
    pub(super) fn check_drain_done(&mut self, now: Instant) {
        if self.state == State::Drain
            && (self.in_flight <= self.inflight(self.bw, 100)
                || self.round_count.wrapping_sub(self.drain_start_round) > DRAIN_ROUNDS_MAX)
        {
            self.start_down(now);
        }
    }

    /// EnterStartup (§5.3.1.1).
    pub(super) fn enter_startup(&mut self) {
        self.state = State::Startup;
        self.loss_events_in_round = 0;
        self.has_new_loss = false;
    }
}
