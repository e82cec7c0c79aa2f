//! What a detach found and how it ended.

use hoststack_session::HalfOpenCounters;
use hoststack_transport::{AppId, AppWorkerId, Duration, WorkerId};

/// How the detach of an app worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerDetachReport {
    /// The app worker; its name finds nothing any more.
    pub app_worker: AppWorkerId,
    /// Its number in its application.
    pub unit: u32,
    /// Connect requests that were pending when it began, and those made before every worker had heard of it.
    pub half_opens: usize,
    /// Sessions that lived when it began.
    pub sessions: usize,
    /// Of them, how many were reset at the deadline or by policy.
    pub sessions_reset: usize,
    /// Listeners that were closed.
    pub listeners: usize,
    /// How long it took.
    pub took: Duration,
    /// Workers that did not answer by the deadline (a callback that hangs). If one still has not, what is left of the
    /// app worker there ends without a callback once it does, and its slot stays taken until then.
    pub stuck: Vec<WorkerId>,
    /// Connect requests whose half-open could not be freed by the deadline because of a stuck worker; 0 without one.
    pub unresolved: usize,
    /// How its connect requests ended, over its life.
    pub outcomes: HalfOpenCounters,
    /// Whether a panic in a callback began it.
    pub panicked: bool,
}

/// How the detach of an application ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachReport {
    /// The application; its name finds nothing any more.
    pub app: AppId,
    /// Its name.
    pub name: String,
    /// One report per app worker that was attached when the detach began.
    pub app_workers: Vec<WorkerDetachReport>,
}

impl DetachReport {
    /// All app workers' connect outcomes together.
    pub fn outcomes(&self) -> HalfOpenCounters {
        let mut all = HalfOpenCounters::default();
        self.app_workers.iter().for_each(|report| all.merge(&report.outcomes));
        all
    }
}
