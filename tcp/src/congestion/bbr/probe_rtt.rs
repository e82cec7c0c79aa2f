//! ProbeRTT (§5.3.4): the least round trip, and the time with little in flight in which it shows.

use hoststack_transport::Instant;

use super::params::*;
use super::probe_bw::AckPhase;
use super::{Bbr, State};
use crate::rate::RateSample;

/// When ProbeRTT is due, and how far it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProbeRtt {
    /// BBR.probe_rtt_min_delay, in microseconds.
    min_delay_us: u32,
    /// BBR.probe_rtt_min_stamp.
    pub(super) min_stamp: Instant,
    /// BBR.probe_rtt_expired.
    is_expired: bool,
    /// BBR.probe_rtt_done_stamp; `None` until little enough is in flight.
    done_stamp: Option<Instant>,
    /// BBR.probe_rtt_round_done.
    is_round_done: bool,
    /// What was sent while this much was delivered, from the first to the last, went out slowly on purpose.
    slow: (u64, u64),
}

impl Default for ProbeRtt {
    fn default() -> ProbeRtt {
        ProbeRtt {
            min_delay_us: u32::MAX,
            min_stamp: Instant::ZERO,
            is_expired: false,
            done_stamp: None,
            is_round_done: false,
            slow: (u64::MAX, 0),
        }
    }
}

impl Bbr {
    /// UpdateMinRTT (§5.3.4.3).
    pub(super) fn update_min_rtt(&mut self, now: Instant, rtt_us: Option<u32>) {
        let probe = &mut self.probe_rtt;
        probe.is_expired = now > probe.min_stamp.plus_micros(PROBE_RTT_INTERVAL_US);
        if let Some(rtt_us) = rtt_us {
            if rtt_us < probe.min_delay_us || probe.is_expired {
                probe.min_delay_us = rtt_us;
                probe.min_stamp = now;
            } else if rtt_us - probe.min_delay_us <= probe.min_delay_us / MIN_RTT_NOISE {
                // Deviates: §5.3.4.3 wants a sample below the least. To the microsecond, one that was lucky by a few of them is
                // never met again, though the queue was empty many times, and there is nothing for ProbeRTT to find.
                probe.min_stamp = now;
            }
        }
        let is_min_rtt_expired = now > self.min_rtt_stamp.plus_micros(MIN_RTT_FILTER_US);
        if probe.min_delay_us < self.min_rtt_us || is_min_rtt_expired {
            self.min_rtt_us = probe.min_delay_us;
            self.min_rtt_stamp = probe.min_stamp;
        }
    }

    /// CheckProbeRTT (§5.3.4.3).
    pub(super) fn check_probe_rtt(&mut self, now: Instant, sample: &RateSample) {
        if self.state != State::ProbeRtt && self.probe_rtt.is_expired && !self.is_idle_restart {
            // The window is saved while the state is still the old one: in ProbeRTT it would only be raised.
            self.save_cwnd();
            self.end_acceleration();
            self.state = State::ProbeRtt;
            self.probe_rtt.done_stamp = None;
            self.probe_rtt.slow.0 = self.delivered;
            self.ack_phase = AckPhase::ProbeStopping;
            self.start_round();
        }
        if self.state == State::ProbeRtt {
            self.handle_probe_rtt(now);
        }
        if sample.delivered > 0 {
            self.is_idle_restart = false;
        }
    }

    /// HandleProbeRTT (§5.3.4.3).
    fn handle_probe_rtt(&mut self, now: Instant) {
        // MarkConnectionAppLimited
        self.probe_rtt.slow.1 = self.delivered + u64::from(self.in_flight);
        match self.probe_rtt.done_stamp {
            None if self.in_flight <= self.probe_rtt_cwnd() => {
                self.probe_rtt.done_stamp = Some(now.plus_micros(PROBE_RTT_DURATION_US));
                self.probe_rtt.is_round_done = false;
                self.start_round();
            }
            None => {}
            Some(_) => {
                self.probe_rtt.is_round_done |= self.is_round_start;
                if self.probe_rtt.is_round_done {
                    self.check_probe_rtt_done(now);
                }
            }
        }
    }

    /// CheckProbeRTTDone (§5.3.4.3).
    pub(super) fn check_probe_rtt_done(&mut self, now: Instant) {
        if self.probe_rtt.done_stamp.is_some_and(|done| now > done) {
            self.probe_rtt.min_stamp = now;
            self.restore_cwnd();
            self.exit_probe_rtt(now);
        }
    }

    /// ExitProbeRTT (§5.3.4.4).
    fn exit_probe_rtt(&mut self, now: Instant) {
        self.reset_short_term_model();
        if self.full_bw.is_reached {
            self.start_down(now);
            self.start_cruise();
        } else {
            self.enter_startup();
        }
    }

    /// The sample, app-limited if what it measures was sent in ProbeRTT or soon after: what MarkConnectionAppLimited
    /// does, without reaching into the estimator.
    pub(super) fn without_probe_rtt(&self, mut sample: RateSample) -> RateSample {
        let (first, last) = self.probe_rtt.slow;
        sample.is_app_limited |= (first..=last).contains(&sample.prior_delivered);
        sample
    }

    /// ProbeRTTCwnd (§5.6.4.5).
    pub(super) fn probe_rtt_cwnd(&self) -> u32 {
        self.bdp_multiple(self.bw, PROBE_RTT_CWND_GAIN).max(self.min_pipe_cwnd())
    }
}
