//! Figures of the whole stack: put together of what workers told, and what only main knows.

use std::collections::BTreeMap;

use hoststack_transport::{Address, AppWorkerId, Histogram, Protocol};

use super::super::Main;
use crate::inspect::{Answer, HistogramInfo, HistogramKind, PaceInfo, Query, TransportInfo, WorkerFigures};

/// The stages of main's step.
#[derive(Clone, Copy, Debug)]
pub(in crate::main_thread) enum Stage {
    Reports,
    Requests,
    Timers,
    AppRequests,
    Detach,
    Inspect,
    Flush,
}

/// Their names, in order.
pub(in crate::main_thread) const STAGES: [&str; 7] =
    ["reports", "requests", "timers", "app-requests", "detach", "inspect", "flush"];

/// What workers told so far.
#[derive(Default)]
pub(super) struct Gathered {
    histograms: Vec<(u8, HistogramKind, Histogram)>,
    congestion: crate::inspect::CongestionTallies,
    transports: Vec<TransportInfo>,
    /// Sessions by app worker and worker.
    app_sessions: BTreeMap<AppWorkerId, Vec<usize>>,
}

impl Gathered {
    /// A slice from a worker; of `workers`.
    pub(super) fn add(&mut self, worker: u8, workers: usize, part: WorkerFigures) {
        let WorkerFigures { histograms, congestion, transports, app_sessions } = part;
        self.histograms.extend(histograms.into_iter().map(|(kind, histogram)| (worker, kind, histogram)));
        self.congestion.merge(&congestion);
        for transport in transports {
            match self.transports.iter_mut().find(|other| other.transport == transport.transport) {
                Some(sum) => sum.add_worker(&transport),
                None => self.transports.push(transport),
            }
        }
        for (app_worker, count) in app_sessions {
            let counts = self.app_sessions.entry(app_worker).or_insert_with(|| vec![0; workers]);
            if let Some(of_worker) = counts.get_mut(usize::from(worker)) {
                *of_worker = count;
            }
        }
    }
}

impl Main {
    /// One stage of a step, and how long it took, in steps that are measured.
    #[inline]
    pub(in crate::main_thread) fn stage(
        &mut self,
        stage: Stage,
        run: impl FnOnce(&mut Main) -> bool,
    ) -> bool {
        let worked = run(self);
        self.pace.stages.passed(stage as usize);
        worked
    }

    pub(super) fn pace_info(&self) -> PaceInfo {
        PaceInfo::of(&self.pace, self.now, &STAGES)
    }

    /// Fills in what the question asked for, and every app worker's sessions.
    pub(super) fn complete_figures(&self, what: &Query, gathered: Gathered, answer: &mut Answer) {
        for app_worker in answer.apps.iter_mut().flat_map(|app| &mut app.app_workers) {
            app_worker.sessions = match gathered.app_sessions.get(&app_worker.id) {
                Some(counts) => counts.clone(),
                None => vec![0; self.config.workers],
            };
        }
        match what {
            Query::Histograms | Query::Totals => {
                let mut infos = HistogramInfo::all(&gathered.histograms);
                infos.push(HistogramInfo::of(HistogramKind::MainStep, None, &self.pace.steps));
                // Of each kind that of all workers comes first, whichever worker answered first.
                infos.sort_by_key(|info| (HistogramKind::from_name(info.name), info.worker));
                answer.histograms = infos;
            }
            Query::Congestion => answer.congestion = gathered.congestion.into_infos(),
            Query::Transports => answer.transports = self.transport_infos(gathered.transports),
            _ => {}
        }
    }

    /// Adds what main knows of transports: half-opens, listeners, limits.
    fn transport_infos(&self, mut transports: Vec<TransportInfo>) -> Vec<TransportInfo> {
        let unix = self.kernel.unix_len();
        for transport in &mut transports {
            let name = transport.transport;
            let Some(protocol) = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name) else {
                continue;
            };
            let of = |local: &Address| local.protocol() == protocol;
            let per_worker = match protocol {
                Protocol::Tcp => self.config.tcp.connections_max,
                Protocol::KernelTcp | Protocol::KernelUnix | Protocol::Local => self.config.sessions.sessions,
            };
            let (half_opens, half_opens_max) = match protocol {
                Protocol::Tcp => (self.half_opens.len(), Some(self.config.tcp.half_opens_max)),
                Protocol::KernelTcp => (self.kernel.len() - unix, Some(self.config.pending_connects_max)),
                Protocol::KernelUnix => (unix, Some(self.config.pending_connects_max)),
                Protocol::Local => (0, None),
            };
            // All widen.
            transport.connections_max = (per_worker as u64).saturating_mul(self.config.workers as u64);
            transport.half_opens = half_opens as u64;
            transport.half_opens_max = half_opens_max.map(|max| max as u64);
            transport.listeners =
                self.listeners.iter().filter(|(_, listener)| of(&listener.local)).count() as u64;
            transport.listeners_max = self.config.listeners_max as u64;
        }
        transports
    }
}
