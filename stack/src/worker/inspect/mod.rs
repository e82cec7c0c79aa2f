//! Answers to main's questions, a bounded slice of the session pool a step.

mod baseline;
mod events;
mod figures;
mod sessions;
mod slowest;
mod topics;
mod trace;
mod watch;

pub(super) use baseline::Baseline;
pub use figures::drop_reasons;
pub(super) use figures::{Measured, Stage};
pub(super) use watch::Watch;
pub(crate) use watch::WatchCommand;

use super::Worker;
use crate::inspect::ports::PortCounts;
use crate::inspect::{Query, SessionSummary, WorkerAnswer, WorkerInfo};
use crate::messages::Report;

/// A question that is being answered.
pub(super) struct Run {
    query: u64,
    what: Query,
    /// The next slot of its walk.
    cursor: u32,
    listed: usize,
    slowest: slowest::Slowest,
    /// Sessions that fit so far.
    matched: u64,
    /// Armed timers of the slots so far.
    timers: usize,
    /// Flows of the slots so far.
    ports: PortCounts,
    walk: Option<Box<crate::inspect::events::Walk>>,
    /// The number of the first record of a trace that was not sent yet; 0 before the first slice.
    first_record: u64,
}

impl Run {
    pub(super) fn new(query: u64, what: Query) -> Run {
        Run {
            query,
            what,
            cursor: 0,
            listed: 0,
            slowest: slowest::Slowest::default(),
            matched: 0,
            timers: 0,
            ports: PortCounts::default(),
            walk: None,
            first_record: 0,
        }
    }
}

impl Worker {
    /// One slice of the next question: they take turns, so that a long walk keeps no short one waiting.
    pub(super) fn answer_inspections(&mut self) -> bool {
        let Some(mut run) = self.inspections.pop_front() else { return false };
        if let Query::Trace { limit } = run.what {
            self.answer_trace(run, limit);
            return true;
        }
        if let Query::Events(query) = &run.what {
            let query = query.clone();
            if !self.answer_events(&mut run, &query) {
                self.inspections.push_back(run);
            }
            return true;
        }
        let mut part = WorkerAnswer::default();
        let last = match &run.what {
            Query::Summary => self.count_timers(&mut run),
            Query::Sessions(_) => self.list_sessions(&mut run, &mut part),
            Query::Session(handle) => {
                let found = self.sessions.find(*handle);
                part.sessions.extend(found.map(|(id, session)| self.describe_fully(id, session)));
                true
            }
            Query::Congestion => {
                let (slots, last) = self.timer_slots(&mut run);
                self.congestion_slice(slots, &mut part.figures);
                last
            }
            Query::Events(_)
            | Query::Trace { .. }
            | Query::Status
            | Query::HalfOpens(_)
            | Query::HalfOpen(_)
            | Query::Listeners { .. }
            | Query::Histograms
            | Query::Totals
            | Query::Transports
            | Query::Network { .. }
            | Query::Channels
            | Query::Memory
            | Query::Config => true,
            Query::Ports { .. } => self.count_flows(&mut run),
        };
        if last {
            let info = self.info(run.timers);
            part.info = if run.what == Query::Totals { info } else { self.baseline.shown(info) };
            part.topic = self.topic(&mut run);
            part.summary = SessionSummary::from(self.sessions.states());
            part.matched = run.matched;
            self.last_figures(&run.what, &mut part.figures);
        }
        if last || !part.sessions.is_empty() || run.what == Query::Congestion {
            self.reports.push(Report::Answer { query: run.query, part: Box::new(part), last });
        }
        if !last {
            self.inspections.push_back(run);
        }
        true
    }

    /// A slice of TCP's pools; says whether it was the last.
    fn count_timers(&self, run: &mut Run) -> bool {
        let (slots, last) = self.timer_slots(run);
        run.timers += self.transports.tcp.armed_timers_in(slots);
        last
    }

    /// A slice of TCP's flows; says whether it was the last.
    fn count_flows(&self, run: &mut Run) -> bool {
        let end = self.transports.tcp.flow_slot_end();
        let slots = run.cursor..end.min(run.cursor.saturating_add(self.config.bursts.inspect_slots));
        run.cursor = slots.end;
        let last = slots.end >= end;
        let ports = &mut run.ports;
        self.transports.tcp.own_flows_in(slots, |flow, holder| ports.add(flow, holder));
        last
    }

    /// The next slice of TCP's pools, and whether it is the last.
    fn timer_slots(&self, run: &mut Run) -> (core::ops::Range<u32>, bool) {
        let end = self.transports.tcp.timer_slot_end();
        let slots = run.cursor..end.min(run.cursor.saturating_add(self.config.bursts.inspect_slots));
        run.cursor = slots.end;
        let last = slots.end >= end;
        (slots, last)
    }

    /// The worker's figures now.
    fn info(&self, tcp_timers: usize) -> WorkerInfo {
        let sessions = self.sessions.counts();
        let tcp = self.transports.tcp.counts();
        let app_timers: usize = self.apps.iter().flatten().map(|slot| slot.state.timers.len()).sum();
        let mut info = WorkerInfo {
            worker: self.id.0,
            steps: self.figures.steps,
            busy_steps: self.measured.pace.stages.busy_steps(),
            sleeps: self.measured.pace.sleeps,
            rx_packets: self.figures.rx_packets,
            tx_packets: self.figures.tx_packets,
            handed_over: self.figures.handed_over,
            callbacks: self.figures.callbacks,
            sessions: sessions.sessions,
            establishing: sessions.establishing,
            fifo_chunks: sessions.fifo_chunks,
            connections: tcp.connections + self.transports.kernel.connections() + self.transports.local.len(),
            half_open_entries: tcp.half_open_entries,
            syn_received: tcp.syn_received,
            time_wait: tcp.time_wait,
            timers: tcp_timers + app_timers,
            flows: tcp.flows,
            parked: self.parked.len(),
            listeners: tcp.listeners,
            tcp: self
                .transports
                .tcp
                .counters()
                .iter()
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| (name.to_string(), count))
                .collect(),
            drops: self.drops(),
            ..WorkerInfo::default()
        };
        self.measured_info(&mut info);
        info
    }
}
