//! What a thread tells of its steps, and what of a worker's answer is for figures only.

use hoststack_transport::{AppWorkerId, Histogram, Instant};
use serde::Serialize;

use super::congestion::CongestionTallies;
use super::histograms::HistogramKind;
use super::transports::TransportInfo;
use crate::measure::Pace;

/// How a thread works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PaceInfo {
    /// Microseconds that it worked, so far; 0 in stacks that are stepped by their owner.
    pub busy_us: u64,
    /// The share of the time since the stack's start that it worked, in thousandths.
    pub load_permille: u32,
    /// The share of the last seconds that it worked, in thousandths.
    pub load_recent_permille: u32,
    /// Steps whose stages were measured: one in 64 of those that did something.
    pub sampled_steps: u64,
    /// Where the time of those steps went, in the order of the stages.
    pub stages: Vec<StageInfo>,
}

/// A stage of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StageInfo {
    /// Its name.
    pub stage: &'static str,
    /// Nanoseconds in the steps that were measured, so far.
    pub total_ns: u64,
    /// Its share of those steps, in thousandths.
    pub share_permille: u32,
}

impl PaceInfo {
    /// What is told of a thread whose stages have these names.
    pub(crate) fn of<const N: usize>(pace: &Pace<N>, now: Instant, names: &[&'static str; N]) -> PaceInfo {
        let total: u64 = pace.stages.total_ns().iter().sum();
        let share = |ns: u64| u32::try_from((u128::from(ns) * 1000).checked_div(total.into()).unwrap_or(0));
        let stages = names.iter().zip(pace.stages.total_ns()).map(|(&stage, &total_ns)| StageInfo {
            stage,
            total_ns,
            share_permille: share(total_ns).unwrap_or(1000),
        });
        PaceInfo {
            busy_us: pace.load.busy_us(),
            load_permille: pace.load.per_mille(now),
            load_recent_permille: pace.load.recent_per_mille(now),
            sampled_steps: pace.stages.sampled(),
            stages: if total > 0 { stages.collect() } else { Vec::new() },
        }
    }
}

/// Of a worker's answer, what is put together on main. Only what was asked for is filled.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerFigures {
    pub(crate) histograms: Vec<(HistogramKind, Histogram)>,
    pub(crate) congestion: CongestionTallies,
    pub(crate) transports: Vec<TransportInfo>,
    /// Sessions of each app worker that has any.
    pub(crate) app_sessions: Vec<(AppWorkerId, usize)>,
}
