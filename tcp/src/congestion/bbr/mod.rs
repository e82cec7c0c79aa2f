//! BBR version 3 (draft-ietf-ccwg-bbr-06): a model of the path, of its bandwidth and its least round trip, says how
//! fast to send and how much may be in flight.
//!
//! Section numbers in this folder are of the draft, and its function names stand in the comments. This file has the
//! state and the order of the steps (§5.2); `startup` leaves Startup and Drain (§5.3.1, §5.3.2), `probe_bw` and
//! `probe_rtt` are those states (§5.3.3, §5.3.4), `loss` answers losses and takes answers back (§5.5.10, §5.5.11),
//! `bandwidth` has the filters (§5.5.3, §5.5.9), `control` computes rate and window (§5.6), `params` has the constants.
//!
//! What the draft calls C.inflight is [`AckInfo::flight_after`], and its RS is [`AckInfo::rate`]; an acknowledgment
//! without one delivered nothing and teaches nothing.

mod bandwidth;
mod control;
mod loss;
mod params;
mod probe_bw;
mod probe_rtt;
mod startup;
#[cfg(test)]
mod tests;

use hoststack_transport::Instant;

use super::{AckInfo, CongestionControl, CongestionKind, initial_window};
use crate::rate::{LostRange, RateSample};
use bandwidth::{ExtraAcked, MaxBw};
use loss::Undo;
use params::*;
use probe_bw::AckPhase;
use probe_rtt::ProbeRtt;
use startup::FullBw;

/// BBR.state (§5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Doubles the rate each round until the pipe is full.
    Startup,
    /// Drains the queue that Startup made.
    Drain,
    /// ProbeBW_DOWN: drains what the probe queued, leaves headroom to others.
    Down,
    /// ProbeBW_CRUISE: sends as fast as the path delivers.
    Cruise,
    /// ProbeBW_REFILL: fills the pipe for a round, before the probe.
    Refill,
    /// ProbeBW_UP: probes for more bandwidth.
    Up,
    /// Holds little in flight, to see the least round trip.
    ProbeRtt,
}

impl State {
    /// IsInAProbeBWState (§5.3.3.9).
    fn is_probe_bw(self) -> bool {
        matches!(self, State::Down | State::Cruise | State::Refill | State::Up)
    }

    /// IsProbingBW (§5.3.3.9): it accelerates.
    fn is_probing(self) -> bool {
        matches!(self, State::Startup | State::Refill | State::Up)
    }

    /// BBR.pacing_gain, in per cent (§5.6.1).
    fn pacing_gain(self) -> u64 {
        match self {
            State::Startup => STARTUP_PACING_GAIN,
            State::Drain => DRAIN_PACING_GAIN,
            State::Down => DOWN_PACING_GAIN,
            State::Cruise | State::Refill | State::ProbeRtt => CRUISE_PACING_GAIN,
            State::Up => UP_PACING_GAIN,
        }
    }

    /// BBR.cwnd_gain, in per cent (§5.6.1).
    fn cwnd_gain(self) -> u64 {
        match self {
            State::Up => UP_CWND_GAIN,
            State::ProbeRtt => PROBE_RTT_CWND_GAIN,
            _ => DEFAULT_CWND_GAIN,
        }
    }
}

/// Which recovery the sender is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovery {
    None,
    Fast,
    /// After a timeout, until this many bytes more are acknowledged: all that was outstanding then.
    Timeout(u32),
}

/// BBR version 3. See the module.
#[derive(Clone, Debug)]
pub struct Bbr {
    state: State,
    /// SMSS.
    mss: u16,
    /// C.cwnd.
    cwnd: u32,
    /// C.pacing_rate, in bytes per second.
    pacing_rate: u64,
    /// C.delivered.
    delivered: u64,
    /// C.inflight.
    in_flight: u32,
    /// The same before the acknowledgment at hand.
    flight_before: u32,
    /// The window held the sender back since the last acknowledgment.
    is_cwnd_limited: bool,
    /// C.has_selective_acks.
    has_sack: bool,
    /// The first event came: times that begin with the connection are set.
    is_begun: bool,
    /// The pacing rate rests on a round trip, not on [`NOMINAL_RTT_US`].
    has_rtt: bool,
    recovery: Recovery,
    /// What the random choices come from.
    random: u64,

    /// BBR.round_count, BBR.next_round_delivered, BBR.round_start (§5.5.1).
    round_count: u32,
    next_round_delivered: u64,
    is_round_start: bool,

    /// BBR.max_bw.
    max_bw: MaxBw,
    /// BBR.bw: the least of max_bw and bw_shortterm.
    bw: u64,
    /// BBR.bw_shortterm.
    bw_shortterm: u64,
    /// BBR.inflight_shortterm.
    inflight_shortterm: u32,
    /// BBR.inflight_longterm.
    inflight_longterm: u32,
    /// BBR.bw_latest, BBR.inflight_latest (§5.5.10.3).
    bw_latest: u64,
    inflight_latest: u32,
    /// BBR.loss_round_delivered, BBR.loss_round_start, BBR.is_loss_in_round.
    loss_round_delivered: u64,
    is_loss_round_start: bool,
    is_loss_in_round: bool,
    /// Bytes found lost in this round that count for the short-term bounds.
    lost_in_round: u32,
    /// What was delivered when the latest acceleration ended: what was sent with less behind it belongs to that.
    probe_end_delivered: u64,
    /// A congestion mark was echoed in this round.
    is_mark_in_round: bool,
    /// Something was found lost since the last acknowledgment.
    has_new_loss: bool,
    /// Acknowledgments in this round that found something lost.
    loss_events_in_round: u8,
    /// BBR.extra_acked.
    extra_acked: ExtraAcked,
    /// BBR.full_bw and its kin.
    full_bw: FullBw,
    /// BBR.drain_start_round.
    drain_start_round: u32,

    /// BBR.ack_phase.
    ack_phase: AckPhase,
    /// BBR.is_bw_probe_sample.
    is_bw_probe_sample: bool,
    /// BBR.bw_probe_up_acked, BBR.probe_up_acked_per_inc, BBR.bw_probe_up_rounds.
    probe_up_acked: u32,
    probe_up_acked_per_increase: u32,
    probe_up_rounds: u32,
    /// BBR.rounds_since_probe_up.
    rounds_since_probe_up: u32,
    /// BBR.bw_probe_wait, in microseconds.
    probe_wait_us: u64,
    /// BBR.cycle_stamp.
    cycle_stamp: Instant,
    /// BBR.prev_probe_too_high, BBR.prev_probe_precautionary.
    was_probe_too_high: bool,
    was_probe_precautionary: bool,

    /// BBR.min_rtt in microseconds (`u32::MAX`: none yet), BBR.min_rtt_stamp.
    min_rtt_us: u32,
    min_rtt_stamp: Instant,
    probe_rtt: ProbeRtt,
    /// BBR.idle_restart.
    is_idle_restart: bool,

    /// BBR.prior_cwnd.
    prior_cwnd: u32,
    undo: Undo,
}

impl Bbr {
    /// OnInit (§5.2.1), at the start of a connection; `mss` is SMSS, options excluded. The random choices follow from
    /// `seed`: connections that share a bottleneck should have different ones.
    pub fn new(mss: u16, seed: u64) -> Bbr {
        let mss = mss.max(1);
        let mut bbr = Bbr {
            state: State::Startup,
            mss,
            cwnd: initial_window(mss),
            pacing_rate: 0,
            delivered: 0,
            in_flight: 0,
            flight_before: 0,
            is_cwnd_limited: false,
            has_sack: false,
            is_begun: false,
            has_rtt: false,
            recovery: Recovery::None,
            random: seed,
            round_count: 0,
            next_round_delivered: 0,
            is_round_start: false,
            max_bw: MaxBw::default(),
            bw: 0,
            bw_shortterm: NO_RATE_BOUND,
            inflight_shortterm: NO_BOUND,
            inflight_longterm: NO_BOUND,
            bw_latest: 0,
            inflight_latest: 0,
            loss_round_delivered: 0,
            is_loss_round_start: false,
            is_loss_in_round: false,
            lost_in_round: 0,
            probe_end_delivered: 0,
            is_mark_in_round: false,
            has_new_loss: false,
            loss_events_in_round: 0,
            extra_acked: ExtraAcked::default(),
            full_bw: FullBw::default(),
            drain_start_round: 0,
            ack_phase: AckPhase::Init,
            is_bw_probe_sample: false,
            probe_up_acked: 0,
            probe_up_acked_per_increase: NO_BOUND,
            probe_up_rounds: 0,
            rounds_since_probe_up: 0,
            probe_wait_us: 0,
            cycle_stamp: Instant::ZERO,
            was_probe_too_high: false,
            was_probe_precautionary: false,
            min_rtt_us: u32::MAX,
            min_rtt_stamp: Instant::ZERO,
            probe_rtt: ProbeRtt::default(),
            is_idle_restart: false,
            prior_cwnd: 0,
            undo: Undo::default(),
        };
        bbr.init_pacing_rate(NOMINAL_RTT_US);
        bbr
    }

    fn smss(&self) -> u32 {
        u32::from(self.mss)
    }

    /// A random number below `bound` (splitmix64; the bias of the remainder does not matter here).
    fn random_below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// The times of §5.2.1 that begin with the connection.
    fn begin(&mut self, now: Instant) {
        if !self.is_begun {
            self.is_begun = true;
            self.min_rtt_stamp = now;
            self.probe_rtt.min_stamp = now;
            self.extra_acked.restart(now);
        }
    }

    /// UpdateRound (§5.5.1).
    fn update_round(&mut self, sample: &RateSample) {
        self.is_round_start = sample.prior_delivered >= self.next_round_delivered;
        if self.is_round_start {
            self.start_round();
            self.round_count = self.round_count.wrapping_add(1);
            self.rounds_since_probe_up = self.rounds_since_probe_up.saturating_add(1);
        }
    }

    /// StartRound (§5.5.1).
    fn start_round(&mut self) {
        self.next_round_delivered = self.delivered;
    }

    /// UpdateModelAndState (§5.2.3), in the draft's order.
    fn update_model_and_state(&mut self, now: Instant, sample: &RateSample, rtt_us: Option<u32>) {
        self.update_latest_delivery_signals(sample);
        self.update_congestion_signals(sample);
        self.extra_acked.update(
            now,
            sample.newly_acked,
            self.bw,
            self.cwnd,
            self.round_count,
            self.full_bw.is_reached,
        );
        self.check_full_bw_reached(sample);
        self.check_startup_done(sample);
        self.check_drain_done(now);
        self.update_probe_bw_cycle_phase(now, sample);
        self.update_min_rtt(now, rtt_us);
        self.check_probe_rtt(now, sample);
        self.advance_latest_delivery_signals(sample);
        self.bound_bw_for_model();
    }
}

impl CongestionControl for Bbr {
    /// UpdateOnACK (§5.2.3).
    fn on_ack(&mut self, ack: &AckInfo) {
        self.begin(ack.now);
        self.flight_before = ack.flight_before;
        self.in_flight = ack.flight_after();
        self.is_cwnd_limited = ack.is_cwnd_limited;
        self.has_sack = ack.has_sack;
        if let Recovery::Timeout(left) = self.recovery {
            if ack.bytes_acked >= left {
                self.leave_recovery();
            } else {
                self.recovery = Recovery::Timeout(left - ack.bytes_acked);
            }
        }
        let Some(sample) = &ack.rate else { return };
        self.delivered = sample.prior_delivered + sample.delivered;
        let sample = self.without_probe_rtt(*sample);
        self.update_model_and_state(ack.now, &sample, ack.rtt_us);
        self.update_control_parameters(ack, &sample);
    }

    fn on_lost(&mut self, now: Instant, lost: &LostRange) {
        self.begin(now);
        self.handle_lost(now, lost);
    }

    fn on_congestion_event(&mut self, now: Instant, _flight: u32, kind: CongestionKind) {
        self.begin(now);
        match kind {
            // OnEnterFastRecovery (§5.6.4.4)
            CongestionKind::Loss => {
                self.save_state_upon_loss();
                self.recovery = Recovery::Fast;
            }
            CongestionKind::Ecn => self.handle_mark(now),
        }
    }

    fn on_recovery_exit(&mut self, _now: Instant) {
        self.leave_recovery();
        self.bound_cwnd();
    }

    /// OnEnterRTO (§5.6.4.4).
    fn on_rto(&mut self, now: Instant, flight: u32) {
        self.begin(now);
        self.save_state_upon_loss();
        self.save_cwnd();
        self.recovery = Recovery::Timeout(flight);
        // "to a value that will allow 1 C.SMSS to be transmitted": nothing counts as in flight after a timeout.
        self.cwnd = self.smss();
    }

    fn on_spurious(&mut self, now: Instant) {
        self.begin(now);
        self.handle_spurious_loss_detection();
    }

    /// HandleRestartFromIdle (§5.4.1).
    // Deviates: told only after an idleness longer than the timeout. After a shorter one the least round trip is not
    // due for long, and the interval of extra_acked begins again by itself.
    fn on_idle_restart(&mut self, now: Instant) {
        self.begin(now);
        self.in_flight = 0;
        self.is_idle_restart = true;
        self.extra_acked.restart(now);
        if self.state.is_probe_bw() {
            self.set_pacing_rate(CRUISE_PACING_GAIN);
        } else if self.state == State::ProbeRtt {
            self.check_probe_rtt_done(now);
        }
    }

    #[inline]
    fn on_sent(&mut self, now: Instant, _bytes: u32, _flight: u32) {
        self.begin(now);
    }

    fn on_handshake(&mut self, rtt_us: u32) {
        self.init_pacing_rate(rtt_us.max(1));
    }

    /// Startup goes on from the window that another algorithm found.
    fn take_over(&mut self, window: u32, _ssthresh: u32) {
        self.cwnd = window.max(self.min_pipe_cwnd());
    }

    fn needs_rate(&self) -> bool {
        true
    }

    fn uses_prr(&self) -> bool {
        false
    }

    fn on_mss_change(&mut self, mss: u16) {
        self.mss = mss.max(1);
        self.cwnd = self.cwnd.max(self.min_pipe_cwnd());
    }

    #[inline]
    fn window(&self) -> u32 {
        self.cwnd
    }

    /// BBR has none.
    fn ssthresh(&self) -> u32 {
        u32::MAX
    }

    fn is_slow_start(&self) -> bool {
        self.state == State::Startup
    }

    #[inline]
    fn pacing_rate(&self) -> Option<u64> {
        Some(self.pacing_rate)
    }

    /// SetSendQuantum (§5.6.3).
    fn send_quantum(&self) -> u32 {
        // Cannot fail: it is SEND_QUANTUM_MAX at most, or two segments.
        let quantum = (self.pacing_rate / 1000).min(SEND_QUANTUM_MAX) as u32;
        quantum.max(2 * self.smss())
    }

    fn name(&self) -> &'static str {
        "bbr"
    }
}
