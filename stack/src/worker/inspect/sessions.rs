//! Walks over the session pool in bounded slices, and what is told of each session.

use std::sync::Arc;

use hoststack_session::{FifoView, LayerView, Session, SessionView};
use hoststack_tcp::State;
use hoststack_transport::{Measures, Protocol, SessionId};

use super::Run;
use crate::inspect::{
    Detail, FifoInfo, LayerInfo, Order, Query, SLOWEST_MAX, SessionDetail, SessionInfo, TransportState,
    Variables, WorkerAnswer,
};
use crate::worker::Worker;

/// What it costs to tell of a session, in slots that are only looked at.
const fn cost(detail: Detail) -> u32 {
    match detail {
        Detail::Row => 8,
        Detail::Transport => 16,
        Detail::Full => 64,
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
            if what.order == Order::Slowest {
                run.slowest.offer(what.limit.min(SLOWEST_MAX), self.srtt_us(session), id);
                continue;
            }
            if run.listed < what.limit {
                run.listed += 1;
                budget = budget.saturating_sub(cost(what.detail));
                part.sessions.push(self.described(what.detail, id, session));
            }
            if run.listed == what.limit && !what.count {
                return true;
            }
        }
        let is_last = run.cursor >= end;
        if is_last {
            // They may have ended since they were passed.
            let kept = run.slowest.take().filter_map(|id| Some((id, self.sessions.get(id)?)));
            part.sessions.extend(kept.map(|(id, session)| self.described(what.detail, id, session)));
        }
        is_last
    }

    fn described(&self, detail: Detail, id: SessionId, session: &Session) -> SessionInfo {
        match detail {
            Detail::Row => self.describe(id, session),
            Detail::Transport => self.describe_with_transport(id, session),
            Detail::Full => self.describe_fully(id, session),
        }
    }

    fn srtt_us(&self, session: &Session) -> Option<u32> {
        self.transports.srtt_us((session.flow().protocol, session.connection()?))
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
        SessionInfo {
            session: self.sessions.handle(id),
            app_worker_id: session.app_worker(),
            app_worker: Arc::default(),
            flow: *session.flow(),
            declared: self.sessions.declared(id).map_or(String::new(), ToString::to_string),
            stage: self.sessions.stage(id),
            app_side: session.app_side(),
            transport_side: session.transport_side(),
            rx_bytes: session.rx_len(),
            tx_bytes: session.tx_len(),
            age_us: self.now.micros_since(session.born()),
            srtt_us: self.srtt_us(session),
            fault: self.fault(id, session),
            transport: TransportState::None,
            layer: String::new(),
            detail: None,
        }
    }

    fn describe_with_transport(&self, id: SessionId, session: &Session) -> SessionInfo {
        let layer = session.layer().map_or(String::new(), |layer| layer.describe());
        SessionInfo { transport: self.transport_of(session), layer, ..self.describe(id, session) }
    }

    fn transport_of(&self, session: &Session) -> TransportState {
        let Some(connection) = session.connection() else { return TransportState::None };
        match session.flow().protocol {
            Protocol::Tcp => self
                .transports
                .tcp
                .connection(self.now, connection)
                .map_or(TransportState::None, TransportState::Tcp),
            other => self
                .transports
                .describe(self.now, (other, connection))
                .map_or(TransportState::None, TransportState::Other),
        }
    }

    /// Every layer of a session that lives.
    pub(super) fn describe_fully(&self, id: SessionId, session: &Session) -> SessionInfo {
        let SessionView { connect, deadline, stages, pending, queues, rx, tx, layer } =
            self.sessions.view(session);
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
            transport: self.transport_of(session),
            measured: session.connection().and_then(|it| self.transports.stats(session.flow().protocol, it)),
        };
        SessionInfo { detail: Some(Box::new(detail)), ..self.describe(id, session) }
    }
}

fn fifo(view: FifoView) -> FifoInfo {
    let FifoView { bytes, capacity, capacity_max, chunks, ooo_ranges, ooo_bytes, urgent } = view;
    FifoInfo { bytes, capacity, capacity_max, chunks, ooo_ranges, ooo_bytes, urgent }
}
