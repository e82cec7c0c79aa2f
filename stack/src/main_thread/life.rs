//! What is told of the lives of connects, listeners and apps: the ring of events, lines of the log, and one for each connect
//! that failed.

use std::collections::BTreeMap;

use hoststack_transport::{AppWorkerId, ConnectFailure, ConnectId, Key, ListenerId};

use super::Main;
use crate::events::{Subject, What};

impl Main {
    /// Something happened to a connect.
    pub(super) fn note_connect(&mut self, app_worker: AppWorkerId, connect: ConnectId, what: What) {
        self.events_ring.push(self.now, Subject::app_worker(app_worker).connect(connect), what);
    }

    /// Something happened to a connect, because of a failure.
    pub(super) fn note_connect_failure(
        &mut self,
        app_worker: AppWorkerId,
        connect: ConnectId,
        what: What,
        failure: ConnectFailure,
    ) {
        let about = Subject::app_worker(app_worker).connect(connect);
        self.events_ring.push_failure(self.now, about, what, failure);
        tracing::debug!(%connect, to = what.name(), cause = %failure, "connect");
    }

    /// Something happened to an app worker, or to a listener of it.
    pub(super) fn note_app_worker(&mut self, app_worker: AppWorkerId, what: What) {
        self.events_ring.push(self.now, Subject::app_worker(app_worker), what);
    }

    /// Something happened to an application.
    pub(super) fn note_app(&mut self, what: What) {
        self.events_ring.push(self.now, Subject::NOTHING, what);
    }

    /// The name of an app worker, `application/unit`.
    pub(super) fn app_worker_name(&self, app_worker: AppWorkerId) -> String {
        let record = self.app_workers.get(app_worker.0);
        let app = record.and_then(|record| self.apps.get(record.app.0));
        match (record, app) {
            (Some(record), Some(app)) => format!("{}/{}", app.name, record.unit),
            _ => app_worker.to_string(),
        }
    }

    /// Where listeners listen.
    pub(super) fn listener_names(&self) -> BTreeMap<ListenerId, String> {
        self.listeners.iter().map(|(key, listener)| (ListenerId(key), listener.local.to_string())).collect()
    }

    /// The line of a connect that failed, while its half-open `key` is still there.
    pub(super) fn log_failed(
        &mut self,
        app_worker: AppWorkerId,
        connect: ConnectId,
        cause: ConnectFailure,
        key: Key,
    ) {
        if !self.config.session_log {
            return;
        }
        let (now, app) = (self.now, self.app_worker_name(app_worker));
        let session = self.half_open(app_worker, key);
        let line = session.map(|session| {
            (
                session.flow.protocol.name(),
                session.flow.domain.0,
                session.flow.local.to_string(),
                session.remote_name(),
                session.attempts,
                now.micros_since(session.born),
            )
        });
        match line {
            Some((protocol, domain, local, remote, attempts, total_us)) => tracing::info!(
                target: "hoststack::session",
                %connect, app, protocol, domain, local, remote,
                opened_by = "us", attempts, total_us, ended = %cause, cause = cause.name(),
                "connect failed"
            ),
            None => tracing::info!(
                target: "hoststack::session",
                %connect, app, opened_by = "us", attempts = 0, ended = %cause, cause = cause.name(),
                "connect failed"
            ),
        }
    }

    /// A limit was hit: said once a second at most, with how often since.
    pub(super) fn warn_limit(&mut self, limit: &'static str, app_worker: AppWorkerId) {
        if let Some(times) = self.warnings.admit(limit, self.now) {
            let app = self.app_worker_name(app_worker);
            tracing::warn!(limit, app, times, "a limit was hit");
        }
    }
}
