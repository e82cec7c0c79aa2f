//! ProbeBW (§5.3.3): DOWN, CRUISE, REFILL, UP, and around again; and the long-term bound that the probes leave.

use hoststack_transport::Instant;

use super::params::*;
use super::{Bbr, State};
use crate::rate::RateSample;

/// BBR.ack_phase (§2.14): what the acknowledgments that come now say of the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckPhase {
    /// Nothing: no probe, and no feedback of one.
    Init,
    /// The pipe is filling.
    Refilling,
    /// The probe began; what is acknowledged was sent before.
    ProbeStarting,
    /// What is acknowledged was sent in the probe.
    ProbeFeedback,
    /// The probe ended; what is acknowledged was sent in it.
    ProbeStopping,
}

impl Bbr {
    /// StartProbeBW_DOWN (§5.3.3.9).
    pub(super) fn start_down(&mut self, now: Instant) {
        self.reset_congestion_signals();
        self.probe_up_acked_per_increase = NO_BOUND;
        // PickProbeWait (§5.3.3.8.3)
        self.rounds_since_probe_up = u32::from(self.random_below(2) != 0);
        self.probe_wait_us = PROBE_WAIT_US + self.random_below(PROBE_WAIT_SPREAD_US);
        self.cycle_stamp = now;
        self.ack_phase = AckPhase::ProbeStopping;
        self.start_round();
        self.end_acceleration();
        self.state = State::Down;
    }

    /// StartProbeBW_CRUISE.
    pub(super) fn start_cruise(&mut self) {
        self.state = State::Cruise;
    }

    /// StartProbeBW_REFILL.
    pub(super) fn start_refill(&mut self) {
        self.reset_short_term_model();
        self.probe_up_rounds = 0;
        self.probe_up_acked = 0;
        self.was_probe_precautionary = false;
        self.ack_phase = AckPhase::Refilling;
        self.start_round();
        self.state = State::Refill;
    }

    /// StartProbeBW_UP.
    fn start_up(&mut self, sample: &RateSample) {
        self.ack_phase = AckPhase::ProbeStarting;
        self.start_round();
        self.full_bw.reset(sample.delivery_rate.unwrap_or(0));
        self.state = State::Up;
        self.raise_inflight_longterm_slope();
    }

    /// UpdateProbeBWCyclePhase (§5.3.3.9).
    pub(super) fn update_probe_bw_cycle_phase(&mut self, now: Instant, sample: &RateSample) {
        if !self.full_bw.is_reached || self.adapt_long_term_model(sample) {
            return;
        }
        let state = self.state;
        match state {
            State::Down => {
                if self.is_time_to_probe(now) {
                    self.start_refill();
                } else if self.is_time_to_cruise() {
                    self.start_cruise();
                }
            }
            State::Cruise if self.is_time_to_probe(now) => self.start_refill(),
            State::Refill if self.is_round_start => {
                self.is_bw_probe_sample = true;
                self.start_up(sample);
            }
            State::Up if self.is_time_to_go_down(sample) => {
                self.was_probe_too_high = false;
                self.start_down(now);
            }
            _ => {}
        }
    }

    /// IsTimeToProbeBW (§5.3.3.8.3): a few seconds passed, or the rounds after which Reno would have grown as much.
    fn is_time_to_probe(&self, now: Instant) -> bool {
        let reno_rounds = (self.target_inflight() / self.smss()).min(PROBE_WAIT_ROUNDS_MAX);
        now > self.cycle_stamp.plus_micros(self.probe_wait_us) || self.rounds_since_probe_up >= reno_rounds
    }

    /// IsTimeToCruise (§5.3.3.9).
    fn is_time_to_cruise(&self) -> bool {
        self.in_flight <= self.inflight_with_headroom()
            && self.in_flight <= self.inflight(self.max_bw.value(), 100)
    }

    /// IsTimeToGoDown (§5.3.3.9).
    fn is_time_to_go_down(&mut self, sample: &RateSample) -> bool {
        // §5.3.3.6, deceleration: the last probe went too high, and this one is there again. Counted is the flight that
        // the acknowledgment met, as the window held it; the bound is reached when no segment fits below it.
        if self.was_probe_too_high && self.flight_before.saturating_add(self.smss()) > self.inflight_longterm
        {
            self.was_probe_precautionary = true;
            return true;
        }
        if self.is_cwnd_limited && self.cwnd >= self.inflight_longterm {
            // What limits the rate is the bound, not the path.
            self.full_bw.reset(sample.delivery_rate.unwrap_or(0));
            return false;
        }
        self.full_bw.is_now
    }

    /// TargetInflight (§5.3.3.8.3).
    pub(super) fn target_inflight(&self) -> u32 {
        self.bdp_multiple(self.bw, 100).min(self.cwnd)
    }

    /// InflightWithHeadroom (§5.3.3.9).
    pub(super) fn inflight_with_headroom(&self) -> u32 {
        if self.inflight_longterm == NO_BOUND {
            return NO_BOUND;
        }
        let headroom = part_of_window(self.inflight_longterm, HEADROOM).max(self.smss());
        self.inflight_longterm.saturating_sub(headroom).max(self.min_pipe_cwnd())
    }

    /// RaiseInflightLongtermSlope (§5.3.3.9).
    fn raise_inflight_longterm_slope(&mut self) {
        let growth_this_round = 1 << self.probe_up_rounds;
        self.probe_up_rounds = (self.probe_up_rounds + 1).min(PROBE_UP_ROUNDS_MAX);
        self.probe_up_acked_per_increase = (self.cwnd / growth_this_round).max(self.smss());
    }

    /// ProbeInflightLongtermUpward (§5.3.3.9).
    fn probe_inflight_longterm_upward(&mut self, sample: &RateSample) {
        if !self.is_cwnd_limited || self.cwnd < self.inflight_longterm {
            return;
        }
        self.probe_up_acked = self.probe_up_acked.saturating_add(sample.newly_acked);
        let increases = self.probe_up_acked / self.probe_up_acked_per_increase;
        self.probe_up_acked %= self.probe_up_acked_per_increase;
        let raised = u64::from(self.inflight_longterm) + u64::from(increases) * u64::from(self.smss());
        self.inflight_longterm = window_from(raised);
        if self.is_round_start {
            self.raise_inflight_longterm_slope();
        }
    }

    /// AdaptLongTermModel (§5.3.3.9): says whether it changed the state.
    fn adapt_long_term_model(&mut self, sample: &RateSample) -> bool {
        if self.ack_phase == AckPhase::ProbeStarting && self.is_round_start {
            self.ack_phase = AckPhase::ProbeFeedback;
        }
        if self.ack_phase == AckPhase::ProbeStopping && self.is_round_start {
            self.is_bw_probe_sample = false;
            self.ack_phase = AckPhase::Init;
            if self.state.is_probe_bw() {
                if !sample.is_app_limited {
                    self.max_bw.advance();
                }
                // §5.3.3.6, acceleration: a cautious probe did no harm, so a whole one follows at once.
                if self.was_probe_precautionary && !self.was_probe_too_high {
                    self.start_refill();
                    return true;
                }
            }
        }
        if self.inflight_longterm != NO_BOUND && !self.is_inflight_too_high(sample.lost, sample.tx_in_flight)
        {
            self.inflight_longterm = self.inflight_longterm.max(sample.tx_in_flight.min(WINDOW_MAX));
            if self.state == State::Up {
                self.probe_inflight_longterm_upward(sample);
            }
        }
        false
    }
}
