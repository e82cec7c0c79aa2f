//! Answers to main's questions, a bounded slice of the session pool a step.

mod trace;
mod watch;

pub(super) use watch::Watch;
pub(crate) use watch::WatchCommand;

use hoststack_session::{AppSide, Session, TransportSide};
use hoststack_transport::{Endpoint, Protocol, SessionId};

use super::Worker;
use crate::inspect::{DropInfo, Query, SessionInfo, SessionSummary, WorkerAnswer, WorkerInfo};
use crate::messages::Report;

/// A question that is being answered.
pub(super) struct Run {
    query: u64,
    what: Query,
    cursor: u32,
    listed: usize,
    /// Armed timers of the slots so far.
    timers: usize,
    /// The number of the first record of a trace that was not sent yet.
    first_record: u64,
}

impl Run {
    pub(super) fn new(query: u64, what: Query) -> Run {
        Run { query, what, cursor: 0, listed: 0, timers: 0, first_record: 0 }
    }
}

impl Worker {
    /// One slice of the oldest question.
    pub(super) fn answer_inspections(&mut self) -> bool {
        let Some(mut run) = self.inspections.pop_front() else { return false };
        if let Query::Trace { limit } = run.what {
            self.answer_trace(run, limit);
            return true;
        }
        let mut part = WorkerAnswer::default();
        let lists_sessions = matches!(run.what, Query::Sessions { .. });
        let sessions_end = if lists_sessions { self.sessions.slot_end() } else { 0 };
        let end = sessions_end.max(self.transports.tcp.timer_slot_end());
        let slots = run.cursor..end.min(run.cursor.saturating_add(self.config.bursts.inspect_slots));
        run.timers += self.transports.tcp.armed_timers_in(slots.clone());
        if let Query::Sessions { limit, verbose } = run.what {
            for slot in slots.clone() {
                let Some((id, session)) = self.sessions.at_slot(slot) else { continue };
                count(&mut part.summary, session);
                if run.listed < limit {
                    run.listed += 1;
                    part.sessions.push(self.describe(id, session, verbose));
                }
            }
        }
        run.cursor = slots.end;
        let last = slots.end >= end;
        if last {
            part.info = self.info(run.timers);
        }
        self.reports.push(Report::Answer { query: run.query, part: Box::new(part), last });
        if !last {
            self.inspections.push_front(run);
        }
        true
    }

    fn describe(&self, id: SessionId, session: &Session, verbose: bool) -> SessionInfo {
        let flow = session.flow();
        let transport = if verbose {
            let transport = session
                .connection()
                .and_then(|connection| self.transports.describe(self.now, (flow.protocol, connection)))
                .unwrap_or_default();
            match session.layer() {
                Some(layer) => format!("{transport} {}", layer.describe()),
                None => transport,
            }
        } else {
            String::new()
        };
        let handle = self.sessions.handle(id);
        SessionInfo {
            session: handle.to_string(),
            handle: handle.as_u64(),
            app_worker: String::new(),
            protocol: flow.protocol.name(),
            declared: self.sessions.declared(id).map_or(String::new(), ToString::to_string),
            stage: self.sessions.stage(id),
            domain: flow.domain.0,
            local: end(flow.protocol, flow.local),
            remote: end(flow.protocol, flow.remote),
            state: format!("{}/{}", session.app_side(), session.transport_side()),
            rx_bytes: session.rx_len(),
            tx_bytes: session.tx_len(),
            age_us: self.now.micros_since(session.born()),
            transport,
            app_worker_id: Some(session.app_worker()),
        }
    }

    /// The worker's figures now.
    fn info(&self, tcp_timers: usize) -> WorkerInfo {
        let sessions = self.sessions.counts();
        let tcp = self.transports.tcp.counts();
        let app_timers: usize = self.apps.iter().flatten().map(|slot| slot.state.timers.len()).sum();
        let mut drops: Vec<DropInfo> = Vec::new();
        let mut add = |reason: &str, count: u64, help: &str| {
            if count > 0 {
                drops.push(DropInfo { reason: reason.into(), count, help: help.into() });
            }
        };
        for (reason, count) in self.path.drops().iter() {
            add(reason.name(), count, reason.help());
        }
        for (reason, count) in self.transports.tcp.drop_counters().iter() {
            add(reason.name(), count, reason.help());
        }
        add(
            "handover-ring-full",
            self.figures.handover_dropped,
            "A packet for another worker found its ring full.",
        );
        add(
            "handover-parked-full",
            self.figures.parked_dropped,
            "A segment of a flow that main is handing over found the worker's waiting room full; the peer sends it again.",
        );
        add(
            "device-stuck",
            self.figures.device_stuck,
            "A device took no packet for too long; what waited for it was dropped.",
        );
        for (failure, count) in &self.not_accepted {
            add("not-accepted", *count, &failure.to_string());
        }
        for port in &self.ports {
            for (name, count) in port.queue.counters().drops() {
                add(&format!("device-{name}"), count, "A device or its wire dropped the packet.");
            }
        }
        WorkerInfo {
            worker: self.id.0,
            steps: self.figures.steps,
            busy_steps: self.figures.busy_steps,
            sleeps: self.figures.sleeps,
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
            drops,
        }
    }
}

/// One end of a session, if it has an address.
fn end(protocol: Protocol, endpoint: Endpoint) -> String {
    match protocol {
        Protocol::Tcp | Protocol::KernelTcp => endpoint.to_string(),
        Protocol::KernelUnix | Protocol::Local => "-".into(),
    }
}

fn count(summary: &mut SessionSummary, session: &Session) {
    summary.total += 1;
    *match (session.app_side(), session.transport_side()) {
        (_, TransportSide::Closed(_)) => &mut summary.ended,
        (AppSide::Unannounced, _) => &mut summary.unannounced,
        (AppSide::Closed, _) => &mut summary.closing,
        (AppSide::HalfClosed, _) => &mut summary.half_closed,
        (AppSide::Open, TransportSide::PeerClosed) => &mut summary.peer_closed,
        (AppSide::Open, _) => &mut summary.open,
    } += 1;
}
