//! What is told of the lives of a worker's sessions: the ring of events, a line of the log for each transition, and one for
//! each session at its end.

use hoststack_session::{AppSide, EndedBy, TransportSide};
use hoststack_transport::{
    AppWorkerId, CloseReason, ConnectFailure, ConnectId, EndStats, FlowKey, Protocol, SessionId,
    TransportEvent,
};

use super::Worker;
use crate::events::{Subject, What};

impl Worker {
    /// What a transport recorded -> session layer, and into the ring if it changes the session's state.
    #[inline]
    pub(super) fn on_transport_event(&mut self, event: &TransportEvent) {
        match *event {
            TransportEvent::Received { .. }
            | TransportEvent::Acknowledged { .. }
            | TransportEvent::Urgent { .. } => self.sessions.on_event(event),
            TransportEvent::Connected { session } => self.on_transition(event, session, What::Connected),
            TransportEvent::Accepted { session } => self.on_transition(event, session, What::Accepted),
            TransportEvent::PeerClosed { session } => self.on_transition(event, session, What::PeerClosed),
            TransportEvent::Closed { session, reason, stats } => {
                self.on_transition(event, session, What::Closed(reason));
                if self.config.session_log && self.sessions.is_for_app(session) {
                    self.log_end(session, &stats);
                }
            }
            TransportEvent::FlowGone { .. } => {}
        }
    }

    fn on_transition(&mut self, event: &TransportEvent, id: SessionId, what: What) {
        let Some(session) = self.sessions.get(id) else { return self.sessions.on_event(event) };
        let (app_worker, from) = (session.app_worker(), session.transport_side());
        let sh = self.sessions.handle(id);
        self.events_ring.push(self.now, Subject::app_worker(app_worker).session(sh), what);
        self.sessions.on_event(event);
        if tracing::enabled!(tracing::Level::DEBUG) {
            self.trace_transition(id, what, from);
        }
    }

    #[cold]
    fn trace_transition(&self, id: SessionId, what: What, from: TransportSide) {
        let Some(session) = self.sessions.get(id) else { return };
        let (sh, to) = (self.sessions.handle(id), session.transport_side());
        match what {
            What::Closed(cause) => tracing::debug!(%sh, %from, %to, %cause, "session"),
            What::Accepted => {
                tracing::debug!(%sh, from = "listening", %to, flow = %session.flow(), cause = "accepted", "session");
            }
            _ => tracing::debug!(%sh, %from, %to, cause = what.name(), "session"),
        }
    }

    /// The session of an outbound connection was made.
    pub(super) fn note_born(&mut self, id: SessionId, app_worker: AppWorkerId, connect: ConnectId) {
        let sh = self.sessions.handle(id);
        let about = Subject::app_worker(app_worker).session(sh).connect(connect);
        self.events_ring.push(self.now, about, What::Born);
        tracing::debug!(%sh, from = "none", to = "opening", %connect, cause = "handed over", "session");
    }

    /// Stages whose turn came. Asked for each vector and each session that is told something.
    #[inline]
    pub(super) fn note_stage_turns(&mut self) {
        if self.sessions.has_stage_turns() {
            self.push_stage_turns();
        }
    }

    #[cold]
    fn push_stage_turns(&mut self) {
        let turns: Vec<_> = self.sessions.take_stage_turns().collect();
        for (id, stage) in turns {
            let Some(app_worker) = self.sessions.get(id).map(|session| session.app_worker()) else {
                continue;
            };
            let sh = self.sessions.handle(id);
            self.events_ring.push_stage(self.now, Subject::app_worker(app_worker).session(sh), stage);
            tracing::debug!(%sh, stage, "stage");
        }
    }

    /// The app is told of a session.
    pub(super) fn note_announced(
        &mut self,
        id: SessionId,
        app_worker: AppWorkerId,
        connect: Option<ConnectId>,
    ) {
        let sh = self.sessions.handle(id);
        let about = Subject::app_worker(app_worker).session(sh);
        let about = connect.map_or(about, |connect| about.connect(connect));
        self.events_ring.push(self.now, about, What::Announced);
        tracing::debug!(%sh, from = %AppSide::Unannounced, to = %AppSide::Open, cause = "announced", "session");
    }

    /// An outbound session, or a connect that never had one, failed; another attempt follows or the app is told.
    pub(super) fn note_failed(
        &mut self,
        id: Option<SessionId>,
        app_worker: AppWorkerId,
        connect: ConnectId,
        what: What,
        cause: ConnectFailure,
    ) {
        let about = Subject::app_worker(app_worker).connect(connect);
        let about = id.map_or(about, |id| about.session(self.sessions.handle(id)));
        self.events_ring.push_failure(self.now, about, what, cause);
        match id.map(|id| self.sessions.handle(id)) {
            Some(sh) => {
                tracing::debug!(%sh, %connect, from = %AppSide::Unannounced, to = what.name(), %cause, "session");
            }
            None => tracing::debug!(%connect, to = what.name(), %cause, "connect"),
        }
    }

    /// An inbound session failed before it was accepted.
    pub(super) fn note_not_accepted(
        &mut self,
        id: SessionId,
        app_worker: AppWorkerId,
        flow: &FlowKey,
        cause: ConnectFailure,
    ) {
        let sh = self.sessions.handle(id);
        let about = Subject::app_worker(app_worker).session(sh);
        self.events_ring.push_failure(self.now, about, What::NotAccepted, cause);
        tracing::debug!(%sh, %flow, from = %AppSide::Unannounced, to = "not-accepted", %cause, "session");
        if self.config.session_log {
            let (protocol, local, remote) = ends(flow);
            tracing::info!(
                target: "hoststack::session",
                session = %sh,
                app = self.app_name(app_worker),
                protocol,
                domain = flow.domain.0,
                local,
                remote,
                opened_by = "peer",
                ended = %cause,
                "not accepted"
            );
        }
    }

    /// Somebody asked for the end of a session whose app's side was `before`.
    pub(super) fn note_asked(&mut self, id: SessionId, before: AppSide, by: EndedBy, is_reset: bool) {
        let Some(session) = self.sessions.get(id) else { return };
        let (app_worker, to) = (session.app_worker(), session.app_side());
        // What an operator began the app ends in his name.
        let is_operators = by == EndedBy::App && session.life().ended_by() == EndedBy::Operator;
        let by = if is_operators { EndedBy::Operator } else { by };
        // One that its app closed before may still be reset.
        let is_cut_off = is_reset && to == AppSide::Closed && session.connection().is_some();
        if before == to && !is_cut_off {
            return;
        }
        let what = match to {
            _ if is_reset => What::AppReset(by),
            AppSide::HalfClosed => What::HalfClosed,
            _ => What::AppClosed(by),
        };
        self.sessions.note_end(id, by, is_reset);
        let sh = self.sessions.handle(id);
        self.events_ring.push(self.now, Subject::app_worker(app_worker).session(sh), what);
        tracing::debug!(%sh, from = %before, %to, cause = what.name(), %by, "session");
    }

    /// A limit was hit: said once a second at most, with how often since.
    pub(super) fn warn_limit(&mut self, limit: &'static str) {
        if let Some(times) = self.warnings.admit(limit, self.now) {
            tracing::warn!(limit, worker = %self.id, times, "a limit was hit");
        }
    }

    fn app_name(&self, app_worker: AppWorkerId) -> &str {
        let slot = self.apps.get(app_worker.0.slot as usize).and_then(Option::as_ref);
        slot.filter(|slot| slot.id == app_worker).map_or("-", |slot| &*slot.name)
    }

    /// The line of a session whose transport is done with it.
    #[cold]
    fn log_end(&self, id: SessionId, stats: &EndStats) {
        let Some(session) = self.sessions.get(id) else { return };
        let TransportSide::Closed(reason) = session.transport_side() else { return };
        let (flow, life) = (session.flow(), session.life());
        let (protocol, local, remote) = ends(flow);
        let EndStats { bytes_in, bytes_out, retransmitted, srtt_us } = *stats;
        let declared = self.sessions.declared(id);
        tracing::info!(
            target: "hoststack::session",
            session = %self.sessions.handle(id),
            app = self.app_name(session.app_worker()),
            protocol,
            domain = flow.domain.0,
            local,
            remote,
            declared = declared.map(tracing::field::display),
            opened_by = if life.is_outbound() { "us" } else { "peer" },
            connect_us = life.connect_us(),
            stages_us = life.stages_us(),
            first_byte_us = life.first_byte_us(),
            total_us = life.requested_us() + self.now.micros_since(session.born()),
            bytes_in,
            bytes_out,
            retransmitted,
            srtt_us = (srtt_us > 0).then_some(srtt_us),
            ended = %reason,
            ended_by = ended_by(reason, life.ended_by()),
            "session ended"
        );
    }
}

/// Scheme and ends of a flow, where they have addresses.
fn ends(flow: &FlowKey) -> (&'static str, String, String) {
    let end = |endpoint| crate::inspect::end(flow.protocol, endpoint);
    (Protocol::name(flow.protocol), end(flow.local), end(flow.remote))
}

/// By whom a session ended that ended so, when `first` was the first to act.
fn ended_by(reason: CloseReason, first: EndedBy) -> &'static str {
    match (reason, first) {
        (CloseReason::Finished | CloseReason::LocalReset, EndedBy::Detach) => "detach",
        (CloseReason::Finished | CloseReason::LocalReset, EndedBy::Operator) => "operator",
        (CloseReason::Finished, EndedBy::Peer) => "peer",
        (CloseReason::Finished, EndedBy::App) => "app",
        // A close that would lose bytes resets: the app did that, whoever closed first.
        (CloseReason::LocalReset, EndedBy::App | EndedBy::Peer) => "app",
        (CloseReason::Finished | CloseReason::LocalReset, EndedBy::Nobody) => "stack",
        (CloseReason::PeerReset | CloseReason::Truncated | CloseReason::Corrupt, _) => "peer",
        (CloseReason::TimedOut, _) => "timeout",
        (CloseReason::Unreachable, _) => "network",
        (CloseReason::NoRoom, _) => "stack",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ended_a_session_is_who_closed_first_or_who_cut_it_off() {
        use CloseReason as R;
        use EndedBy as E;
        let table = [
            (R::Finished, E::App, "app"),
            (R::Finished, E::Peer, "peer"),
            (R::Finished, E::Detach, "detach"),
            (R::LocalReset, E::Operator, "operator"),
            (R::LocalReset, E::Peer, "app"),
            (R::LocalReset, E::Nobody, "stack"),
            (R::PeerReset, E::App, "peer"),
            (R::TimedOut, E::App, "timeout"),
            (R::Unreachable, E::Nobody, "network"),
        ];
        for (reason, first, expected) in table {
            assert_eq!(ended_by(reason, first), expected, "{reason} {first}");
        }
    }
}
