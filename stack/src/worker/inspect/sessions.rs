//! Walks over the session pool in bounded slices, and what is told of each session.

use hoststack_session::{FifoView, LayerView, Session, SessionView};
use hoststack_tcp::State;
use hoststack_transport::{Endpoint, Measures, Protocol, SessionId};

use super::Run;
use crate::inspect::{
    Detail, FifoInfo, LayerInfo, Query, SessionDetail, SessionInfo, Variables, WorkerAnswer,
};
use crate::worker::Worker;

/// What it costs to tell of a session, in slots that are only looked at.
const fn cost(detail: Detail) -> u32 {
    match detail {
        Detail::Row => 32,
        Detail::Transport => 96,
        Detail::Full => 192,
    }
}

impl Worker {
    /// A slice of the pool; says whether it was the last.
    pub(super) fn list_sessions(&self, run: &mut Run, part: &mut WorkerAnswer) -> bool {
        let Query::Sessions(what) = &run.what else { return true };
        let filter = &what.filter;
        if filter.worker.is_some_and(|worker| worker != self.id) {
            return true;
        }
        if let Some(after) = what.after.filter(|after| after.worker() == self.id) {
            run.cursor = run.cursor.max(after.session().0.slot.saturating_add(1));
        }
        let end = self.sessions.slot_end();
        let mut budget = self.config.bursts.inspect_slots;
        while run.cursor < end && budget > 0 {
            let slot = run.cursor;
            run.cursor += 1;
            budget -= 1;
            let Some((id, session)) = self.sessions.at_slot(slot) else { continue };
            if !filter.fits_session(self.now, session) {
                continue;
            }
            if filter.tcp_state.is_some_and(|state| self.tcp_state(session) != Some(state)) {
                continue;
            }
            if filter.stuck && self.fault(id, session).is_none() {
                continue;
            }
            run.matched += 1;
            if run.listed < what.limit {
                run.listed += 1;
                budget = budget.saturating_sub(cost(what.detail));
                part.sessions.push(match what.detail {
                    Detail::Row => self.describe(id, session),
                    Detail::Transport => self.describe_with_transport(id, session),
                    Detail::Full => self.describe_fully(id),
                });
            }
            if run.listed == what.limit && !what.count {
                return true;
            }
        }
        run.cursor >= end
    }

    /// The state of a session's connection, if it is one of the stack's own TCP.
    fn tcp_state(&self, session: &Session) -> Option<State> {
        let connection = session.connection().filter(|_| session.flow().protocol == Protocol::Tcp)?;
        self.transports.tcp.connection_state(connection)
    }

    /// Why a session cannot go on by itself.
    fn fault(&self, id: SessionId, session: &Session) -> Option<&'static str> {
        self.sessions.fault(id).or_else(|| {
            let connection = session.connection()?;
            let unprogrammed = self.sessions.unprogrammed_tx(id);
            self.transports.fault(self.now, (session.flow().protocol, connection), unprogrammed)
        })
    }

    /// Asserts that every session can go on.
    pub(in crate::worker) fn check_sessions(&self) {
        for slot in 0..self.sessions.slot_end() {
            if let Some((id, session)) = self.sessions.at_slot(slot)
                && let Some(fault) = self.fault(id, session)
            {
                panic!("{id} on {}: {fault}: {}", self.id, self.transport_of(session));
            }
        }
    }

    /// A row.
    fn describe(&self, id: SessionId, session: &Session) -> SessionInfo {
        let flow = session.flow();
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
            fault: self.fault(id, session),
            transport: String::new(),
            detail: None,
            app_worker_id: Some(session.app_worker()),
        }
    }

    fn describe_with_transport(&self, id: SessionId, session: &Session) -> SessionInfo {
        let mut transport = self.transport_of(session);
        if let Some(layer) = session.layer() {
            transport = format!("{transport} {}", layer.describe());
        }
        SessionInfo { transport, ..self.describe(id, session) }
    }

    fn transport_of(&self, session: &Session) -> String {
        let describe = |connection| self.transports.describe(self.now, (session.flow().protocol, connection));
        session.connection().and_then(describe).unwrap_or_default()
    }

    /// Every layer of a session that lives.
    pub(super) fn describe_fully(&self, id: SessionId) -> SessionInfo {
        let (Some(session), Some(view)) = (self.sessions.get(id), self.sessions.view(id)) else {
            return SessionInfo::default();
        };
        let SessionView { connect, deadline, stages, pending, queues, rx, tx, layer } = view;
        let stats = session.connection().and_then(|it| self.transports.stats(session.flow().protocol, it));
        let measured = stats.map_or(Variables::default(), |stats| {
            let value = |figure: Option<u64>| figure.map_or("none".to_owned(), |figure| figure.to_string());
            let named = stats.named().map(|(name, figure)| (name.to_owned(), value(figure)));
            Variables(named.collect())
        });
        let detail = SessionDetail {
            opaque: session.opaque(),
            connect: connect.map(|connect| connect.to_string()),
            deadline_in_us: deadline.map(|deadline| deadline.micros_since(self.now)),
            stages,
            pending,
            queues,
            rx_fifo: fifo(rx),
            tx_fifo: fifo(tx),
            layer: layer.map(|LayerView { name, state, wire_rx, wire_tx }| LayerInfo {
                name,
                state: Variables::parse(&state),
                wire_rx: fifo(wire_rx),
                wire_tx: fifo(wire_tx),
            }),
            transport: Variables::parse(&self.transport_of(session)),
            measured,
        };
        SessionInfo { detail: Some(Box::new(detail)), ..self.describe(id, session) }
    }
}

fn fifo(view: FifoView) -> FifoInfo {
    let FifoView { bytes, capacity, capacity_max, chunks, ooo_ranges, ooo_bytes, urgent } = view;
    FifoInfo { bytes, capacity, capacity_max, chunks, ooo_ranges, ooo_bytes, urgent }
}

/// One end of a session, if it has an address.
pub(in crate::worker) fn end(protocol: Protocol, endpoint: Endpoint) -> String {
    match protocol {
        Protocol::Tcp | Protocol::KernelTcp => endpoint.to_string(),
        Protocol::KernelUnix | Protocol::Local => "-".into(),
    }
}
