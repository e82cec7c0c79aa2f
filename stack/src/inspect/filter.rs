//! Which sessions and half-opens a question is about.

use std::sync::Arc;

use hoststack_net::Cidr;
use hoststack_session::{HalfOpenSession, HalfOpenState, Session, SessionState};
use hoststack_tcp::State as TcpState;
use hoststack_transport::{AppWorkerId, Endpoint, Instant, Protocol, WorkerId};

use super::AppWorkerNames;

/// Which connections: what is set must all hold. Half-opens have no state and no bytes queued, and every other field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this worker.
    pub worker: Option<WorkerId>,
    /// Of this application, or of one of its app workers.
    pub app: Option<AppName>,
    /// Over this transport.
    pub protocol: Option<Protocol>,
    /// In this state.
    pub state: Option<SessionState>,
    /// Whose connection is in this state of RFC 9293 §3.3.2: of the stack's own TCP only. Half-opens are in SYN-SENT as long
    /// as main has them; what is in LISTEN, TIME-WAIT or CLOSED has no session.
    pub tcp_state: Option<TcpState>,
    /// Of this routing domain.
    pub domain: Option<u16>,
    /// Our address is in this prefix.
    pub local: Option<Cidr>,
    /// The peer's address is in this prefix.
    pub remote: Option<Cidr>,
    /// Our port or the peer's.
    pub port: Option<u16>,
    /// Our port.
    pub local_port: Option<u16>,
    /// The peer's port.
    pub remote_port: Option<u16>,
    /// Allocated so long ago or longer, in microseconds.
    pub older_us: Option<u64>,
    /// Allocated less than so long ago, in microseconds.
    pub younger_us: Option<u64>,
    /// At least so many bytes queued, both ways together.
    pub queued: Option<usize>,
    /// Those alone that cannot go on by themselves, which is a fault of the stack: see [`SessionInfo::fault`].
    ///
    /// [`SessionInfo::fault`]: super::SessionInfo::fault
    pub stuck: bool,
}

/// An application by its name, or one of its app workers: `name` or `name/unit`. One that is not attached has no sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppName {
    name: String,
    /// Its app workers: main fills it in.
    app_workers: Arc<[AppWorkerId]>,
}

impl From<&str> for AppName {
    fn from(name: &str) -> AppName {
        AppName { name: name.to_owned(), app_workers: Arc::default() }
    }
}

impl AppName {
    /// Whether `full`, an app worker's `name/unit`, is meant.
    fn means(&self, full: &str) -> bool {
        full == self.name || full.rsplit_once('/').is_some_and(|(application, _)| application == self.name)
    }

    /// Finds its app workers among all.
    pub(crate) fn resolve(&mut self, all: &AppWorkerNames) {
        let ids = all.iter().filter(|(_, full)| self.means(full)).map(|(id, _)| *id);
        self.app_workers = ids.collect();
    }

    pub(crate) fn has(&self, app_worker: AppWorkerId) -> bool {
        self.app_workers.contains(&app_worker)
    }
}

/// The part of a flow's ends that filters look at.
fn has_ends(filter: &Filter, protocol: Protocol, local: Endpoint, remote: Endpoint) -> bool {
    let Filter { local: our_prefix, remote: their_prefix, port, local_port, remote_port, .. } = filter;
    let asks =
        our_prefix.is_some() || their_prefix.is_some() || port.or(*local_port).or(*remote_port).is_some();
    if !asks {
        return true;
    }
    // The ends of the others have no address.
    matches!(protocol, Protocol::Tcp | Protocol::KernelTcp)
        && our_prefix.is_none_or(|prefix| prefix.contains(local.addr))
        && their_prefix.is_none_or(|prefix| prefix.contains(remote.addr))
        && port.is_none_or(|port| local.port == port || remote.port == port)
        && local_port.is_none_or(|port| local.port == port)
        && remote_port.is_none_or(|port| remote.port == port)
}

impl Filter {
    /// Whether the age fits, and the owner.
    fn has_common(&self, now: Instant, born: Instant, domain: u16, app_worker: AppWorkerId) -> bool {
        let age_us = now.micros_since(born);
        self.older_us.is_none_or(|older_us| age_us >= older_us)
            && self.younger_us.is_none_or(|younger_us| age_us < younger_us)
            && self.domain.is_none_or(|wanted| wanted == domain)
            && self.app.as_ref().is_none_or(|app| app.has(app_worker))
    }

    /// Whether a session fits, `stuck` and `tcp_state` left aside: that costs more to find out.
    pub(crate) fn fits_session(&self, now: Instant, session: &Session) -> bool {
        let flow = session.flow();
        self.state.is_none_or(|state| session.state() == state)
            && self.protocol.is_none_or(|protocol| flow.protocol == protocol)
            && self.has_common(now, session.born(), flow.domain.0, session.app_worker())
            && self.queued.is_none_or(|bytes| session.rx_len() + session.tx_len() >= bytes)
            && has_ends(self, flow.protocol, flow.local, flow.remote)
    }

    /// Whether a half-open fits, `stuck` left aside.
    pub(crate) fn fits_half_open(&self, now: Instant, of: AppWorkerId, session: &HalfOpenSession) -> bool {
        let flow = &session.flow;
        let is_syn_sent = flow.protocol == Protocol::Tcp && session.state == HalfOpenState::Connecting;
        self.state.is_none_or(|state| state == SessionState::Unannounced)
            && self.tcp_state.is_none_or(|state| state == TcpState::SynSent && is_syn_sent)
            && self.worker.is_none_or(|worker| session.worker == worker)
            && self.protocol.is_none_or(|protocol| flow.protocol == protocol)
            && self.has_common(now, session.born, flow.domain.0, of)
            && self.queued.is_none_or(|bytes| session.early_data.as_slice().len() >= bytes)
            && has_ends(self, flow.protocol, flow.local, flow.remote)
    }
}
