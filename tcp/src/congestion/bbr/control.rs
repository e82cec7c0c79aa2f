//! From the model to the three controls (§5.6): pacing rate, send quantum (in `mod`), window.

use super::params::*;
use super::{Bbr, State};
use crate::congestion::{AckInfo, initial_window};
use crate::rate::RateSample;

impl Bbr {
    /// UpdateControlParameters (§5.2.3).
    pub(super) fn update_control_parameters(&mut self, ack: &AckInfo, sample: &RateSample) {
        if !self.has_rtt
            && let Some(rtt_us) = ack.rtt_us.or(ack.rtt_min_us)
        {
            self.has_rtt = true;
            self.init_pacing_rate(rtt_us.max(1));
        }
        self.set_pacing_rate(self.state.pacing_gain());
        self.set_cwnd(sample);
    }

    /// InitPacingRate (§5.6.2), again when the first round trip is known.
    pub(super) fn init_pacing_rate(&mut self, rtt_us: u32) {
        let nominal = u64::from(initial_window(self.mss)) * 1_000_000 / u64::from(rtt_us);
        self.pacing_rate = part(nominal, STARTUP_PACING_GAIN).max(self.pacing_rate_min());
    }

    /// SetPacingRateWithGain (§5.6.2); the gain is in per cent.
    pub(super) fn set_pacing_rate(&mut self, gain: u64) {
        // Deviates: no margin while bw_shortterm is the bound. It is what was delivered at a rate that had the margin
        // already, so each round with loss would take off another: §5.3.3.8.3 wants X% less rate for X% loss.
        let margin = if self.bw < self.max_bw.value() { 100 } else { PACING_MARGIN };
        let rate = part(part(self.bw, gain), margin).max(self.pacing_rate_min());
        if self.full_bw.is_reached || rate > self.pacing_rate {
            self.pacing_rate = rate;
        }
    }

    /// The pacing rate at least, in bytes per second.
    // Deviates: the draft has no floor. A segment a second, so that no sample, however low, stops a connection.
    fn pacing_rate_min(&self) -> u64 {
        u64::from(self.mss)
    }

    /// BBR.MinPipeCwnd (§2.8).
    pub(super) fn min_pipe_cwnd(&self) -> u32 {
        MIN_PIPE_SEGMENTS * self.smss()
    }

    /// BDPMultiple (§5.6.4.2) for a bandwidth; the gain is in per cent.
    pub(super) fn bdp_multiple(&self, bw: u64, gain: u64) -> u32 {
        if self.min_rtt_us == u32::MAX {
            return initial_window(self.mss);
        }
        let bdp = bw.saturating_mul(u64::from(self.min_rtt_us)) / 1_000_000;
        window_from(part(bdp, gain))
    }

    /// QuantizationBudget (§5.6.4.2), with UpdateOffloadBudget (§5.5.8.1).
    fn quantization_budget(&self, inflight_cap: u32) -> u32 {
        use crate::congestion::CongestionControl as _;
        let offload_budget = 3 * self.send_quantum();
        let cap = inflight_cap.max(offload_budget).max(self.min_pipe_cwnd());
        if self.state == State::Up { cap.saturating_add(2 * self.smss()) } else { cap }
    }

    /// Inflight (§5.6.4.2); the gain is in per cent.
    pub(super) fn inflight(&self, bw: u64, gain: u64) -> u32 {
        self.quantization_budget(self.bdp_multiple(bw, gain))
    }

    /// UpdateMaxInflight (§5.6.4.2): BBR.max_inflight.
    fn max_inflight(&self) -> u32 {
        let cap = self.bdp_multiple(self.bw, self.state.cwnd_gain());
        self.quantization_budget(cap.saturating_add(self.extra_acked.value()))
    }

    /// SetCwnd (§5.6.4.6).
    fn set_cwnd(&mut self, sample: &RateSample) {
        let grown = self.cwnd.saturating_add(sample.newly_acked).min(WINDOW_MAX);
        // What is above max_inflight when the pipe is full, bound_cwnd cuts.
        if self.full_bw.is_reached
            || self.cwnd < self.max_inflight()
            || self.delivered < u64::from(initial_window(self.mss))
        {
            self.cwnd = grown;
        }
        self.bound_cwnd();
    }

    /// The bounds of SetCwnd: BoundCwndForProbeRTT (§5.6.4.5), BoundCwndForModel (§5.6.4.7).
    pub(super) fn bound_cwnd(&mut self) {
        if self.full_bw.is_reached {
            self.cwnd = self.cwnd.min(self.max_inflight());
        }
        if self.state == State::ProbeRtt {
            self.cwnd = self.cwnd.min(self.probe_rtt_cwnd());
        }
        let cap = match self.state {
            State::Startup => NO_BOUND,
            // §5.6.1: the table bounds Drain too, which the code of §5.6.4.7 leaves out.
            State::Drain | State::Down | State::Refill | State::Up => self.inflight_longterm,
            State::Cruise | State::ProbeRtt => self.inflight_with_headroom(),
        };
        self.cwnd = self.cwnd.min(cap.min(self.inflight_shortterm)).max(self.min_pipe_cwnd());
    }
}
