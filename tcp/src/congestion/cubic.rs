//! CUBIC (RFC 9438): after a loss the window returns along a cubic curve of time, slowly near the size at which the
//! loss came (W_max), fast far from it; and never slower than Reno would.
//!
//! Windows are in bytes, time in microseconds, arithmetic in integers; what a division leaves is kept for the next
//! acknowledgment, so that small windows grow as they should.

use alloc::boxed::Box;

use hoststack_transport::Instant;

use super::window::{Ratio, Stage, WINDOW_MAX, Window};
use super::{AckInfo, CongestionControl, CongestionKind};

/// β_cubic (RFC 9438 §4.6).
const BETA: Ratio = Ratio(7, 10);
/// `(1 + β_cubic) / 2`: what fast convergence leaves of the window as W_max (RFC 9438 §4.7).
const FAST_CONVERGENCE: Ratio = Ratio(17, 20);
/// α_cubic, `3 * (1 - β_cubic) / (1 + β_cubic)` (RFC 9438 §4.3).
const ALPHA: Ratio = Ratio(9, 17);
/// C is 0.4 segments per cubed second (RFC 9438 §5): 2 of them in [`C_DENOMINATOR`] cubed microseconds.
const C_NUMERATOR: i128 = 2;
const C_DENOMINATOR: i128 = 5_000_000_000_000_000_000;
/// Further from K than this, in microseconds, the curve is beyond any window.
const AGE_MAX_US: i64 = 1 << 33;

/// RFC 9438.
#[derive(Clone, Debug)]
pub struct Cubic {
    window: Window,
    /// Nothing before there is congestion, or its avoidance.
    state: Option<Box<State>>,
}

#[derive(Clone, Debug)]
struct State {
    epoch: Epoch,
    /// cwnd, ssthresh and the epoch before the latest congestion event or timeout (RFC 9438 §4.9.2).
    undo: Option<(u32, u32, Epoch)>,
}

/// The stage of congestion avoidance between two congestion events: RFC 9438 §4.1.2.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    /// t_epoch, later by the time in which the window was not used; [`Instant::FAR`] until the stage begins.
    began: Instant,
    /// The latest acknowledgment that grew the window.
    grew: Instant,
    /// The window was not used since.
    is_paused: bool,
    /// W_max; 0 when undefined.
    w_max: u32,
    /// cwnd_prior; 0 before the first congestion event.
    cwnd_prior: u32,
    /// K, in microseconds.
    k_us: u32,
    /// W_est.
    w_est: u32,
    /// What W_est's growth left over, in 1/(17*cwnd) of a byte.
    w_est_rest: u64,
    /// What cwnd's growth left over, in 1/cwnd of a byte.
    rest: u64,
}

impl Epoch {
    const NONE: Epoch = Epoch {
        began: Instant::FAR,
        grew: Instant::ZERO,
        is_paused: false,
        w_max: 0,
        cwnd_prior: 0,
        k_us: 0,
        w_est: 0,
        w_est_rest: 0,
        rest: 0,
    };

    fn has_begun(&self) -> bool {
        self.began != Instant::FAR
    }

    /// Congestion avoidance begins with a window of `cwnd` (cwnd_epoch).
    fn begin(&mut self, now: Instant, cwnd: u32, smss: u32) {
        self.began = now;
        self.is_paused = false;
        self.w_est = cwnd;
        self.w_est_rest = 0;
        self.rest = 0;
        if self.w_max > cwnd {
            // RFC 9438 §4.2, figure 2: K = cbrt((W_max - cwnd_epoch) / C).
            let cubed = u128::from(self.w_max - cwnd) * C_DENOMINATOR as u128
                / (C_NUMERATOR as u128 * u128::from(smss));
            // Cannot fail: with the largest window and segments of one byte it is 1.4e9.
            self.k_us = u32::try_from(cube_root(cubed)).unwrap_or(u32::MAX);
        } else {
            // RFC 9438 §4.8, §4.10: W_max is undefined after a timeout and after a slow start without loss. A slow
            // start that passed it, or a window at its lower limit, says as much.
            self.k_us = 0;
            self.w_max = cwnd;
        }
    }

    /// W_cubic(t): `C * (t - K)^3 + W_max` (RFC 9438 §4.2, figure 1), in bytes.
    fn w_cubic(&self, t_us: u64, smss: u32) -> u32 {
        let age = i64::try_from(t_us).unwrap_or(i64::MAX).saturating_sub(i64::from(self.k_us));
        let age = i128::from(age.clamp(-AGE_MAX_US, AGE_MAX_US));
        let rise = C_NUMERATOR * i128::from(smss) * age * age * age / C_DENOMINATOR;
        // Cannot lose bits: clamped.
        (i128::from(self.w_max) + rise).clamp(0, i128::from(WINDOW_MAX)) as u32
    }

    /// The window after an acknowledgment in congestion avoidance. Before it, it was `cwnd`.
    fn grow(&mut self, ack: &AckInfo, cwnd: u32, smss: u32) -> u32 {
        if !self.has_begun() {
            self.begin(ack.now, cwnd, smss);
        } else if self.is_paused {
            // RFC 9438 §5.8: t does not include the time in which the application limited the flow.
            self.began = self.began.plus_micros(ack.now.micros_since(self.grew));
            self.is_paused = false;
        }
        self.grew = ack.now;
        let acked = ack.bytes_acked.min(cwnd);
        self.grow_w_est(acked, cwnd, smss);
        let t_us = ack.now.micros_since(self.began);
        if self.w_cubic(t_us, smss) < self.w_est {
            // RFC 9438 §4.3: the Reno-friendly region.
            self.rest = 0;
            return cwnd.max(self.w_est);
        }
        // RFC 9438 §4.2: the target is W_cubic one round trip ahead, between cwnd and 1.5 * cwnd.
        let rtt_us = u64::from(ack.srtt_us.or(ack.rtt_us).unwrap_or(0));
        let target = self.w_cubic(t_us + rtt_us, smss).clamp(cwnd, cwnd + cwnd / 2);
        // RFC 9438 §4.4, §4.5: by (target - cwnd) / cwnd for each segment acknowledged.
        let growth = u64::from(target - cwnd) * u64::from(acked) + self.rest;
        self.rest = growth % u64::from(cwnd);
        // Cannot lose bits: `acked` is at most cwnd, so this is at most half of it and a byte.
        cwnd + (growth / u64::from(cwnd)) as u32
    }

    /// W_est grows by `α_cubic * segments_acked / cwnd` (RFC 9438 §4.3, figure 4).
    fn grow_w_est(&mut self, acked: u32, cwnd: u32, smss: u32) {
        // "Once W_est has grown to reach the cwnd at the time of most recently setting ssthresh", as fast as Reno.
        let numerator = if self.w_est >= self.cwnd_prior { ALPHA.1 } else { ALPHA.0 };
        let growth = u64::from(numerator) * u64::from(smss) * u64::from(acked) + self.w_est_rest;
        let divisor = u64::from(ALPHA.1) * u64::from(cwnd);
        self.w_est_rest = growth % divisor;
        // Cannot lose bits: at most one segment, and a byte.
        self.w_est = (self.w_est + (growth / divisor) as u32).min(WINDOW_MAX);
    }

    /// Congestion ends the stage: `used` is cwnd before its reduction.
    fn end(&mut self, used: u32) {
        // RFC 9438 §4.7: a flow that lost sooner than the last time leaves room for others.
        self.w_max = if used < self.w_max { FAST_CONVERGENCE.of(used) } else { used };
        self.cwnd_prior = used;
        self.began = Instant::FAR;
    }
}

impl Cubic {
    /// At the start of a connection; `mss` is SMSS, options excluded.
    pub fn new(mss: u16) -> Cubic {
        Cubic { window: Window::new(mss), state: None }
    }

    fn state(&mut self) -> &mut State {
        self.state.get_or_insert_with(|| Box::new(State { epoch: Epoch::NONE, undo: None }))
    }

    /// Remembers what a congestion event is about to change.
    fn remember(&mut self) {
        let (size, ssthresh) = (self.window.size, self.window.ssthresh);
        let state = self.state();
        state.undo = Some((size, ssthresh, state.epoch));
    }

    /// The epoch, if one ever began.
    fn epoch(&mut self) -> Option<&mut Epoch> {
        self.state.as_mut().map(|state| &mut state.epoch)
    }
}

impl CongestionControl for Cubic {
    #[inline]
    fn on_ack(&mut self, ack: &AckInfo) {
        match (self.window.on_ack(ack), self.epoch()) {
            (Stage::Standing, _) | (Stage::Unused | Stage::SlowStart, None) => {}
            (Stage::Unused, Some(epoch)) => epoch.is_paused = true,
            // The next congestion avoidance is another stage.
            (Stage::SlowStart, Some(epoch)) => epoch.began = Instant::FAR,
            (Stage::Avoidance, _) => {
                let (size, smss) = (self.window.size, self.window.smss());
                self.window.size = self.state().epoch.grow(ack, size, smss).min(WINDOW_MAX);
            }
        }
    }

    fn on_congestion_event(&mut self, _now: Instant, flight: u32, kind: CongestionKind) {
        self.remember();
        let reduction = self.window.on_congestion(flight, kind, BETA);
        self.state().epoch.end(reduction.used);
        // RFC 9438 §4.6: at least 2 SMSS after a loss, at least 1 SMSS after a mark.
        let least = match kind {
            CongestionKind::Loss => 2 * self.window.smss(),
            CongestionKind::Ecn => self.window.smss(),
        };
        self.window.size = reduction.target.max(least).min(WINDOW_MAX);
    }

    fn on_recovery_exit(&mut self, _now: Instant) {
        let before = self.window.size;
        self.window.on_recovery_exit();
        if self.window.size < before {
            // The acknowledgment that ended recovery began a stage: it begins with the window that recovery leaves.
            self.state().epoch.began = Instant::FAR;
        }
    }

    fn on_rto(&mut self, _now: Instant, flight: u32) {
        if self.window.is_first_timeout() {
            self.remember();
            let size = self.window.size;
            let epoch = &mut self.state().epoch;
            epoch.end(size);
            // RFC 9438 §4.8: W_max will be the window with which the next congestion avoidance begins.
            epoch.w_max = 0;
        }
        self.window.on_rto(flight, BETA);
    }

    fn on_spurious(&mut self, _now: Instant) {
        // RFC 9438 §4.9.2: if it was long ago and the window is larger by now, all stays as it is.
        if let Some(state) = &mut self.state
            && let Some((size, ssthresh, epoch)) = state.undo.take()
            && self.window.size < size
        {
            state.epoch = epoch;
            self.window.restore(size, ssthresh);
        }
    }

    fn on_idle_restart(&mut self, _now: Instant) {
        self.window.on_idle_restart();
        if let Some(epoch) = self.epoch() {
            epoch.is_paused = true;
        }
    }

    fn on_mss_change(&mut self, mss: u16) {
        self.window.on_mss_change(mss);
    }

    fn set_initial_window(&mut self, segments: u8) {
        self.window.set_initial(segments);
    }

    fn take_over(&mut self, window: u32, ssthresh: u32) {
        self.window.take_over(window, ssthresh);
    }

    #[inline]
    fn window(&self) -> u32 {
        self.window.size
    }

    fn ssthresh(&self) -> u32 {
        self.window.ssthresh
    }

    fn name(&self) -> &'static str {
        "cubic"
    }
}

/// The largest integer whose cube is at most `n`, three bits of `n` for each bit of it.
fn cube_root(n: u128) -> u64 {
    let mut rest = n;
    let mut root: u128 = 0;
    for shift in (0..=126).rev().step_by(3).filter(|&shift| n >> shift > 0) {
        root *= 2;
        // (root + 1)^3 - root^3
        let step = 3 * root * (root + 1) + 1;
        if rest >> shift >= step {
            rest -= step << shift;
            root += 1;
        }
    }
    // Cannot lose bits: the root of 128 bits has 43.
    root as u64
}

#[cfg(test)]
mod tests;
