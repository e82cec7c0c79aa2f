//! Questions to the whole stack: asked of every worker, put together here, formatted elsewhere.

mod trace;

use std::collections::BTreeMap;

use hoststack_session::{HalfOpenSession, HalfOpenState};
use hoststack_transport::{Address, AppWorkerId, Protocol};

use super::Main;
use crate::handle::Stopped;
use crate::inspect::{
    Answer, AppInfo, AppWorkerInfo, HalfOpenInfo, Leaks, MainInfo, Outcomes, Query, WorkerAnswer,
};
use crate::messages::{Command, Reply};

/// A question whose answer is being gathered.
pub(super) struct Inspection {
    what: Query,
    answer: Answer,
    waiting: usize,
    reply: Reply<Result<Answer, Stopped>>,
}

impl Main {
    pub(super) fn begin_inspection(&mut self, what: Query, reply: Reply<Result<Answer, Stopped>>) {
        let query = self.next_query;
        self.next_query += 1;
        self.inspections.insert(
            query,
            Inspection { what, answer: Answer::default(), waiting: self.config.workers, reply },
        );
        self.broadcast(|| Command::Inspect { query, what });
    }

    /// A slice from a worker; with the last one of the last worker the answer is complete.
    pub(super) fn answer(&mut self, query: u64, part: WorkerAnswer, last: bool) {
        let Some(inspection) = self.inspections.get_mut(&query) else { return };
        inspection.answer.session_summary.merge(&part.summary);
        inspection.answer.sessions.extend(part.sessions);
        inspection.answer.trace.records.extend(part.trace);
        if !last {
            return;
        }
        inspection.answer.workers.push(part.info);
        inspection.answer.trace.total += part.trace_total;
        inspection.waiting -= 1;
        if inspection.waiting > 0 {
            return;
        }
        if let Some(inspection) = self.inspections.remove(&query) {
            let answer = self.complete(inspection.what, inspection.answer);
            // The asker may have left.
            let _ = inspection.reply.send(Ok(answer));
        }
    }

    fn complete(&self, what: Query, mut answer: Answer) -> Answer {
        if let Query::Trace { limit } = what {
            return self.complete_trace(limit, answer.trace);
        }
        answer.workers.sort_by_key(|worker| worker.worker);
        answer.time_wait = answer.workers.iter().map(|worker| worker.time_wait).sum();
        answer.main = self.info();
        answer.apps = self.app_infos();
        answer.leaks = self.leaks(&answer);
        let names = self.app_worker_names();
        if let Query::Sessions { limit, .. } = what {
            answer.sessions.sort_by_key(|session| session.handle);
            answer.sessions.truncate(limit);
            for session in &mut answer.sessions {
                if let Some(name) = session.app_worker_id.and_then(|id| names.get(&id)) {
                    session.app_worker.clone_from(name);
                }
            }
        }
        if let Query::HalfOpens { limit } = what {
            answer.half_opens = self.half_open_infos(limit, &names);
        }
        if let Query::Listeners { limit } = what {
            answer.listeners = self.listener_infos(limit, &names);
        }
        answer
    }

    fn app_worker_names(&self) -> BTreeMap<AppWorkerId, String> {
        self.app_workers
            .iter()
            .map(|(key, record)| {
                let app = self.apps.get(record.app.0).map_or("?", |app| app.name.as_str());
                (AppWorkerId(key), format!("{app}/{}", record.unit))
            })
            .collect()
    }

    fn info(&self) -> MainInfo {
        MainInfo {
            steps: self.steps,
            half_open_sessions: self.connects.len(),
            half_open_connections: self.half_opens.len(),
            tuples: self.tuples.len(),
            listeners: self.listeners.len(),
            messages: self.messages_waiting(),
            tickets_dropped: self.ledger.dropped(),
            connects_orphaned: self.connects_orphaned,
        }
    }

    fn messages_waiting(&self) -> u64 {
        let commands = self.commands.iter().map(|outbox| {
            let counts = outbox.counts();
            counts.sent.saturating_sub(counts.handled) + outbox.waiting() as u64
        });
        let reports = self.reports.iter().map(|inbox| {
            let counts = inbox.counts();
            counts.sent.saturating_sub(counts.handled)
        });
        let taken: usize = self.report_batches.iter().map(Vec::len).sum();
        commands.chain(reports).sum::<u64>() + taken as u64
    }

    fn leaks(&self, answer: &Answer) -> Leaks {
        let sum =
            |what: fn(&crate::inspect::WorkerInfo) -> usize| answer.workers.iter().map(what).sum::<usize>();
        let live_flows = sum(|worker| worker.flows - worker.time_wait);
        // A flow in TIME-WAIT keeps its 4-tuple: those are owed, not leaked.
        let held_tuples = self.tuples.len().saturating_sub(answer.time_wait).saturating_sub(live_flows);
        Leaks {
            sessions: sum(|worker| worker.sessions),
            half_opens: self.connects.len().max(self.half_opens.len()),
            timers: sum(|worker| worker.timers) + self.half_opens.armed_timers(),
            fifo_chunks: sum(|worker| worker.fifo_chunks),
            flows: live_flows + held_tuples,
            messages: self.messages_waiting() + self.ledger.dropped(),
            parked: sum(|worker| worker.parked),
            listeners: sum(|worker| worker.listeners)
                .saturating_sub(self.listeners.len() * self.config.workers),
        }
    }

    fn app_infos(&self) -> Vec<AppInfo> {
        let mut apps = Vec::with_capacity(self.apps.len());
        for (name, &id) in &self.names {
            let Some(app) = self.apps.get(id.0) else { continue };
            let app_workers = app
                .app_workers
                .iter()
                .chain(&app.ending)
                .filter_map(|&id| Some((id, self.app_workers.get(id.0)?)))
                .map(|(id, record)| AppWorkerInfo {
                    unit: record.unit,
                    state: if record.is_detaching() { "detaching" } else { "attached" }.into(),
                    half_opens: record.half_opens.len(),
                    listeners: record
                        .listeners
                        .iter()
                        .filter_map(|listener| self.listeners.get(listener.0))
                        .map(|listener| match &listener.local {
                            Address::Tcp(local) => format!("d{} {local}", listener.domain),
                            local => local.to_string(),
                        })
                        .collect(),
                    outcomes: Outcomes::from(&record.counters),
                    id,
                })
                .collect();
            apps.push(AppInfo {
                app: id.to_string(),
                name: name.clone(),
                detaching: app.detach.is_some(),
                app_workers,
                id,
            });
        }
        apps
    }

    fn half_open_infos(&self, limit: usize, names: &BTreeMap<AppWorkerId, String>) -> Vec<HalfOpenInfo> {
        let all = self.app_workers.iter().flat_map(|(key, record)| {
            let name = names.get(&AppWorkerId(key)).cloned().unwrap_or_default();
            record.half_opens.iter().map(move |(_, session)| (name.clone(), session))
        });
        all.take(limit)
            .map(|(app_worker, session)| HalfOpenInfo {
                connect: session.connect.to_string(),
                app_worker,
                domain: session.flow.domain.0,
                protocol: session.flow.protocol.name(),
                local: session.flow.local.to_string(),
                remote: session.remote_name(),
                state: match session.state {
                    HalfOpenState::Connecting => "connecting",
                    HalfOpenState::HandedOver => "handed-over",
                    HalfOpenState::Failed(_) => "failed",
                    HalfOpenState::Settled => "settled",
                }
                .into(),
                worker: session.worker.0,
                attempts: self.attempts_of(session),
                age_us: self.now.micros_since(session.born),
                deadline_in_us: session.deadline.micros_since(self.now),
            })
            .collect()
    }

    /// SYNs sent for a half-open, or times that the host was asked.
    fn attempts_of(&self, session: &HalfOpenSession) -> u32 {
        let Some(half_open) = session.transport else { return 0 };
        match session.flow.protocol {
            Protocol::Tcp => self.half_opens.describe(half_open).map_or(0, |info| u32::from(info.attempts)),
            Protocol::KernelTcp | Protocol::KernelUnix => {
                self.kernel.describe(half_open).map_or(0, |info| info.attempts)
            }
            Protocol::Local => 0,
        }
    }
}
