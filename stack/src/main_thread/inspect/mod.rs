//! Questions to the whole stack: asked of every worker, put together here, formatted elsewhere.

mod events;
mod figures;
mod half_opens;
mod topics;
mod trace;

pub(super) use figures::{STAGES, Stage};

use std::cmp::Reverse;
use std::mem::take;

use hoststack_transport::{Address, AppWorkerId, WorkerId};

use super::Main;
use crate::handle::Stopped;
use crate::inspect::{
    Answer, AppInfo, AppWorkerInfo, AppWorkerNames, Clear, Filter, HalfOpenCursor, Leaks, MainInfo, Order,
    Outcomes, Query, SLOWEST_MAX, SessionQuery, Since, Topic, WorkerAnswer, events::EventPart,
};
use crate::messages::{Command, Reply};

/// A question whose answer is being gathered: first every worker tells its figures, then what is listed is walked, by one worker
/// after the other, or by main.
pub(super) struct Inspection {
    what: Query,
    answer: Answer,
    events: Vec<(u8, EventPart)>,
    /// Answers that are to come.
    waiting: usize,
    /// Whose turn the walk is; `None` before it began.
    turn: Option<WorkerId>,
    /// Of a walk on main: the next slot, and the last one that is in the list.
    cursor: HalfOpenCursor,
    last_listed: Option<HalfOpenCursor>,
    matched: u64,
    gathered: figures::Gathered,
    /// The workers' parts that are not their figures.
    topics: Vec<(u8, Topic)>,
    reply: Reply<Result<Answer, Stopped>>,
}

impl Main {
    /// From now on these are shown as counted from zero.
    pub(super) fn clear(&mut self, what: Clear) {
        match what {
            Clear::Errors => self.since.errors_us = self.now.as_micros(),
            Clear::Counters => {
                self.since.counters_us = self.now.as_micros();
                self.cleared = self.info();
            }
        }
        self.broadcast(|| Command::Clear(what));
    }

    pub(super) fn begin_inspection(&mut self, mut what: Query, reply: Reply<Result<Answer, Stopped>>) {
        let query = self.next_query;
        self.next_query += 1;
        let mut cursor = HalfOpenCursor::default();
        match &mut what {
            Query::Sessions(what) => {
                self.resolve(&mut what.filter);
                what.after = what.after.filter(|_| what.order == Order::Handle);
            }
            Query::HalfOpens(what) => {
                self.resolve(&mut what.filter);
                if let Some(after) = what.after {
                    cursor = HalfOpenCursor { half_open: after.half_open.saturating_add(1), ..after };
                }
            }
            Query::Events(what) => {
                if let Some(app) = &mut what.app {
                    app.resolve(&self.app_worker_names());
                }
            }
            _ => {}
        }
        // What is listed in turns is asked for when all have told their figures.
        let first = match &what {
            Query::Sessions(what) if what.rows_only => None,
            Query::Sessions(_) => Some(Query::Status),
            other => Some(other.clone()),
        };
        let inspection = Inspection {
            what,
            answer: Answer::default(),
            waiting: if first.is_some() { self.config.workers } else { 0 },
            turn: None,
            gathered: figures::Gathered::default(),
            cursor,
            last_listed: None,
            matched: 0,
            events: Vec::new(),
            topics: Vec::new(),
            reply,
        };
        self.inspections.insert(query, inspection);
        match first {
            Some(first) => self.broadcast(|| Command::Inspect { query, what: first.clone() }),
            None if self.next_turn(query) => {}
            None => self.finish_inspection(query),
        }
    }

    /// Finds the app workers that a filter names.
    fn resolve(&self, filter: &mut Filter) {
        if let Some(app) = &mut filter.app {
            app.resolve(&self.app_worker_names());
        }
    }

    /// A slice from a worker; with the last one of the last worker the answer is complete.
    pub(super) fn answer(&mut self, worker: WorkerId, query: u64, part: WorkerAnswer, last: bool) {
        let Some(inspection) = self.inspections.get_mut(&query) else { return };
        inspection.answer.sessions.extend(part.sessions);
        inspection.gathered.add(worker.0, self.config.workers, part.figures);
        inspection.answer.trace.records.extend(part.trace);
        if !last {
            return;
        }
        inspection.events.push((part.info.worker, part.events));
        inspection.answer.trace.total += part.trace_total;
        inspection.waiting -= 1;
        inspection.matched += part.matched;
        if inspection.turn.is_none() {
            inspection.answer.session_summary.merge(&part.summary);
            inspection.topics.extend(part.topic.map(|topic| (part.info.worker, topic)));
            inspection.answer.workers.push(part.info);
        }
        if inspection.waiting == 0 && !self.next_turn(query) && !self.walks_itself(query) {
            self.finish_inspection(query);
        }
    }

    /// Asks the next worker for the sessions that are still to be listed; `false` if there is none to ask.
    fn next_turn(&mut self, query: u64) -> bool {
        let Some(inspection) = self.inspections.get_mut(&query) else { return false };
        let Query::Sessions(what) = &inspection.what else { return false };
        let begin = what.after.map_or(WorkerId(0), |after| after.worker());
        let next = match inspection.turn {
            None => usize::from(begin.0),
            Some(turn) => turn.index() + 1,
        };
        let wanted = match what.order {
            // One more than is listed: so it is known whether there are more.
            Order::Handle => what.limit.saturating_add(1).saturating_sub(inspection.answer.sessions.len()),
            Order::Slowest => what.limit,
        };
        if next >= self.config.workers || (wanted == 0 && !what.count) || (what.limit == 0 && !what.count) {
            return false;
        }
        let turn = WorkerId(next as u8); // fits: there are 255 workers at most
        inspection.turn = Some(turn);
        inspection.waiting = 1;
        let what = Query::Sessions(Box::new(SessionQuery { limit: wanted, ..SessionQuery::clone(what) }));
        self.send(turn, Command::Inspect { query, what });
        true
    }

    /// Whether main has a walk of its own to do before the answer is complete.
    fn walks_itself(&self, query: u64) -> bool {
        self.inspections.get(&query).is_some_and(|inspection| matches!(inspection.what, Query::HalfOpens(_)))
    }

    /// A slice of the next walk on main: they take turns.
    pub(super) fn continue_inspections(&mut self) -> bool {
        if !self.has_walks() {
            return false;
        }
        let last = self.last_walk;
        let next = self.walks().find(|query| *query > last).or_else(|| self.walks().next());
        let Some(query) = next else { return false };
        let Some(mut inspection) = self.inspections.remove(&query) else { return false };
        self.last_walk = query;
        let is_done = self.list_half_opens(&mut inspection);
        self.inspections.insert(query, inspection);
        if is_done {
            self.finish_inspection(query);
        }
        true
    }

    fn walks(&self) -> impl Iterator<Item = u64> {
        let walks = self.inspections.iter().filter(|(_, inspection)| {
            inspection.waiting == 0 && matches!(inspection.what, Query::HalfOpens(_))
        });
        walks.map(|(query, _)| *query)
    }

    /// Whether a walk on main has slices left.
    pub(super) fn has_walks(&self) -> bool {
        !self.inspections.is_empty() && self.walks().next().is_some()
    }

    fn finish_inspection(&mut self, query: u64) {
        if let Some(inspection) = self.inspections.remove(&query) {
            let reply = inspection.reply.clone();
            let answer = match &inspection.what {
                Query::Events(what) => self.events_answer(&what.clone(), inspection.events),
                Query::Trace { limit } => self.complete_trace(*limit, inspection.answer.trace),
                Query::Sessions(what) if what.rows_only => self.complete_list(inspection),
                _ => self.complete(inspection),
            };
            // The asker may have left.
            let _ = reply.send(Ok(answer));
        }
    }

    fn complete(&self, mut inspection: Inspection) -> Answer {
        let (gathered, mut topics) = (take(&mut inspection.gathered), take(&mut inspection.topics));
        let what = inspection.what.clone();
        let mut answer = self.complete_list(inspection);
        topics.sort_by_key(|(worker, _)| *worker);
        answer.workers.sort_by_key(|worker| worker.worker);
        answer.time_wait = answer.workers.iter().map(|worker| worker.time_wait).sum();
        answer.main = self.info();
        if what != Query::Totals {
            answer.main.count_since(&self.cleared);
        }
        answer.since = Since { now_us: self.now.as_micros(), ..self.since };
        answer.apps = self.app_infos();
        answer.leaks = self.leaks(&answer);
        self.complete_figures(&what, gathered, &mut answer);
        self.complete_topics(&what, topics, &mut answer);
        answer
    }

    /// What was listed, with the names that main knows.
    fn complete_list(&self, inspection: Inspection) -> Answer {
        let Inspection { what, mut answer, matched, .. } = inspection;
        match what {
            Query::Sessions(what) => {
                answer.matched = what.count.then_some(matched);
                if what.order == Order::Slowest {
                    answer.sessions.sort_by_key(|session| Reverse(session.srtt_us));
                    answer.sessions.truncate(what.limit.min(SLOWEST_MAX));
                } else if answer.sessions.len() > what.limit {
                    answer.sessions.truncate(what.limit);
                    let last = answer.sessions.last().map(|session| session.session);
                    answer.sessions_next = last;
                }
            }
            Query::HalfOpens(what) => answer.matched = what.count.then_some(matched),
            Query::HalfOpen(connect) => answer.half_opens.extend(self.half_open_named(connect)),
            Query::Listeners { limit } => answer.listeners = self.listener_infos(limit),
            _ => {}
        }
        let mut names = AppWorkerNames::new();
        for session in &mut answer.sessions {
            let id = session.app_worker_id;
            let name = names.entry(id).or_insert_with(|| self.app_worker_name(id).into());
            session.app_worker.clone_from(name);
        }
        answer
    }

    fn app_worker_names(&self) -> AppWorkerNames {
        self.app_workers
            .iter()
            .map(|(key, record)| {
                let app = self.apps.get(record.app.0).map_or("?", |app| app.name.as_str());
                (AppWorkerId(key), format!("{app}/{}", record.unit).into())
            })
            .collect()
    }

    fn info(&self) -> MainInfo {
        MainInfo {
            steps: self.steps,
            busy_steps: self.pace.stages.busy_steps(),
            sleeps: self.pace.sleeps,
            pace: self.pace_info(),
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
        // Workers count TCP's; the others' are their transports' own.
        let tcp_listeners =
            self.listeners.iter().filter(|(_, listener)| matches!(listener.local, Address::Tcp(_))).count();
        Leaks {
            sessions: sum(|worker| worker.sessions),
            half_opens: self.connects.len().max(self.half_opens.len()),
            timers: sum(|worker| worker.timers) + self.half_opens.armed_timers(),
            fifo_chunks: sum(|worker| worker.fifo_chunks),
            flows: live_flows + held_tuples,
            messages: self.messages_waiting() + self.ledger.dropped(),
            parked: sum(|worker| worker.parked),
            listeners: sum(|worker| worker.listeners).saturating_sub(tcp_listeners * self.config.workers),
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
                    sessions: Vec::new(),
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
}
