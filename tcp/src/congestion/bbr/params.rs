//! The constants of draft-ietf-ccwg-bbr-06 §2, under the draft's names. Gains are in per cent.

/// BBR.StartupPacingGain (§2.5): 4 ln 2, the least that doubles the rate each round.
pub(super) const STARTUP_PACING_GAIN: u64 = 277;
/// BBR.DrainPacingGain (§2.5).
pub(super) const DRAIN_PACING_GAIN: u64 = 50;
/// §5.3.3.1.
pub(super) const DOWN_PACING_GAIN: u64 = 90;
/// §5.3.3.2, §5.3.3.3, §5.3.4.3.
pub(super) const CRUISE_PACING_GAIN: u64 = 100;
/// §5.3.3.5.
pub(super) const UP_PACING_GAIN: u64 = 125;
/// What is paced, of the rate that was computed: 100 less BBR.PacingMarginPercent (§2.5).
pub(super) const PACING_MARGIN: u64 = 99;
/// BBR.DefaultCwndGain (§2.6).
pub(super) const DEFAULT_CWND_GAIN: u64 = 200;
/// §5.3.3.5.
pub(super) const UP_CWND_GAIN: u64 = 225;
/// BBR.ProbeRTTCwndGain (§2.16.2).
pub(super) const PROBE_RTT_CWND_GAIN: u64 = 50;

/// BBR.LossThresh (§2.8), in per cent.
pub(super) const LOSS_THRESH: u64 = 2;
/// And this many segments more, for chance.
pub(super) const LOSS_SLACK_SEGMENTS: u64 = 3;
/// BBR.Beta (§2.8), in per cent.
pub(super) const BETA: u64 = 70;
/// BBR.Headroom (§2.8), in per cent.
pub(super) const HEADROOM: u64 = 15;
/// BBR.MinPipeCwnd (§2.8), in segments.
pub(super) const MIN_PIPE_SEGMENTS: u32 = 4;

/// BBRStartupFullLossCnt (§5.3.1.3).
pub(super) const STARTUP_FULL_LOSS_COUNT: u8 = 6;
/// Rounds without growth after which the pipe counts as full (§5.3.1.2).
pub(super) const FULL_BW_ROUNDS: u8 = 3;
/// Rounds that Drain lasts at most (§5.3.2).
pub(super) const DRAIN_ROUNDS_MAX: u32 = 3;
/// BBR.ExtraAckedFilterLen (§2.12), in rounds.
pub(super) const EXTRA_ACKED_FILTER_ROUNDS: u32 = 10;

/// The wait between probes for bandwidth (§5.3.3.8.2, T_bbr): at least this, and at most as much again ..
pub(super) const PROBE_WAIT_US: u64 = 2_000_000;
/// .. as this.
pub(super) const PROBE_WAIT_SPREAD_US: u64 = 1_000_000;
/// Rounds between probes for bandwidth at most (§5.3.3.8.2, T_reno_bound).
pub(super) const PROBE_WAIT_ROUNDS_MAX: u32 = 63;
/// Doublings of the growth of inflight_longterm at most (§5.3.3.9).
pub(super) const PROBE_UP_ROUNDS_MAX: u32 = 30;

/// BBR.MinRTTFilterLen (§2.16.1), in microseconds.
pub(super) const MIN_RTT_FILTER_US: u64 = 10_000_000;
/// A round trip that is above the least by no more than this part of it tells of no queue.
pub(super) const MIN_RTT_NOISE: u32 = 32;
/// BBR.ProbeRTTInterval (§2.16.2), in microseconds.
pub(super) const PROBE_RTT_INTERVAL_US: u64 = 5_000_000;
/// BBR.ProbeRTTDuration (§2.16.2), in microseconds.
pub(super) const PROBE_RTT_DURATION_US: u64 = 200_000;

/// C.send_quantum at most (§5.6.3), in bytes.
pub(super) const SEND_QUANTUM_MAX: u64 = 64 * 1024;
/// The round trip that the first pacing rate assumes before one is known (§5.6.2), in microseconds.
pub(super) const NOMINAL_RTT_US: u32 = 1000;
/// No window passes this (RFC 7323 §2.3: the largest window there is).
pub(super) const WINDOW_MAX: u32 = 1 << 30;

/// The draft's Infinity, for a volume of data.
pub(super) const NO_BOUND: u32 = u32::MAX;
/// The draft's Infinity, for a rate.
pub(super) const NO_RATE_BOUND: u64 = u64::MAX;

/// `percent` of `value`.
pub(super) const fn part(value: u64, percent: u64) -> u64 {
    value.saturating_mul(percent) / 100
}

/// `percent` of a volume of data, held to [`WINDOW_MAX`].
pub(super) fn part_of_window(bytes: u32, percent: u64) -> u32 {
    window_from(part(u64::from(bytes), percent))
}

/// A volume of data held to [`WINDOW_MAX`].
pub(super) fn window_from(bytes: u64) -> u32 {
    u32::try_from(bytes).map_or(WINDOW_MAX, |bytes| bytes.min(WINDOW_MAX))
}
