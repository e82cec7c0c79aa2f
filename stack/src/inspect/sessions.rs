//! Questions about sessions: counts by state, pages of a list, one with all its layers.

use std::fmt;
use std::sync::Arc;

use hoststack_session::{AppSide, SessionState, SessionStates, TransportSide};
use hoststack_tcp::ConnectionInfo;
use hoststack_transport::{AppWorkerId, ConnectionStats, Endpoint, FlowKey, Protocol, SessionHandle};
use serde::{Serialize, Serializer};

use super::Filter;

/// A page of the list of sessions. They are listed in the order of their handles, unless said otherwise: worker by worker, slot by
/// slot. Sessions that come and go meanwhile are in a later page or not; none is listed twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionQuery {
    /// Which.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// Only those that come after this one, whether it still lives or not: the last of the page before. The slowest have no
    /// pages.
    pub after: Option<SessionHandle>,
    /// The most that are listed; of the slowest no more than [`SLOWEST_MAX`].
    pub limit: usize,
    /// How much of each.
    pub detail: Detail,
    /// Count all that fit, beyond the page, too.
    pub count: bool,
    /// The list alone, for who goes on with one: no figures and no counts by state, and workers that have none of its
    /// sessions are not asked.
    pub rows_only: bool,
}

/// The most of the slowest sessions that are told.
pub const SLOWEST_MAX: usize = 100;

/// In which order sessions are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Of their handles.
    #[default]
    Handle,
    /// Of their smoothed round-trip times, the greatest first; those whose transport measured none come last. All that fit are
    /// looked at.
    Slowest,
}

/// How much is told of each session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// A row.
    #[default]
    Row,
    /// With the transport's variables.
    Transport,
    /// Every layer.
    Full,
}

/// Sessions by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SessionSummary {
    /// All.
    pub total: usize,
    /// Not announced yet.
    pub unannounced: usize,
    /// Open both ways.
    pub open: usize,
    /// The peer has closed its direction.
    pub peer_closed: usize,
    /// The app has closed its direction.
    pub half_closed: usize,
    /// The app has closed it; the transport is finishing.
    pub closing: usize,
    /// The transport is done; the app has bytes left to read, or a callback to come.
    pub ended: usize,
}

impl SessionSummary {
    /// Adds another worker's.
    pub fn merge(&mut self, other: &SessionSummary) {
        let SessionSummary { total, unannounced, open, peer_closed, half_closed, closing, ended } = *other;
        self.total += total;
        self.unannounced += unannounced;
        self.open += open;
        self.peer_closed += peer_closed;
        self.half_closed += half_closed;
        self.closing += closing;
        self.ended += ended;
    }
}

impl From<SessionStates> for SessionSummary {
    fn from(states: SessionStates) -> SessionSummary {
        let count = |state| states[state] as usize;
        SessionSummary {
            total: SessionState::ALL.into_iter().map(count).sum(),
            unannounced: count(SessionState::Unannounced),
            open: count(SessionState::Open),
            peer_closed: count(SessionState::PeerClosed),
            half_closed: count(SessionState::HalfClosed),
            closing: count(SessionState::Closing),
            ended: count(SessionState::Ended),
        }
    }
}

/// A session: plain values, which cost the worker that hands them over little. The text is made where it is read, and so is
/// the JSON.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Its handle, `worker:slot.generation` as text.
    pub session: SessionHandle,
    /// Its app worker.
    pub app_worker_id: AppWorkerId,
    /// Its app worker's name, `application/unit`; its id, if it was gone when the answer was put together.
    pub app_worker: Arc<str>,
    /// Transport, routing domain and both ends.
    pub flow: FlowKey,
    /// Whom a proxy said that the connection is between, `source->destination`, when one said so; `local` when it speaks
    /// for itself, `unknown` when it does not say.
    pub declared: String,
    /// The establishment stage whose turn it is, before the app is told of the session.
    pub stage: Option<&'static str>,
    /// What the app did.
    pub app_side: AppSide,
    /// What the transport did.
    pub transport_side: TransportSide,
    /// Bytes the app may read.
    pub rx_bytes: usize,
    /// Bytes not acknowledged or not sent.
    pub tx_bytes: usize,
    /// Since it was allocated.
    pub age_us: u64,
    /// Smoothed round-trip time, once its transport measured it. Sockets of the host do not tell theirs.
    pub srtt_us: Option<u32>,
    /// Why it cannot go on by itself: a fault of the stack, which should be reported. `None`: it can.
    pub fault: Option<&'static str>,
    /// The transport's variables, when asked for.
    pub transport: TransportState,
    /// What its layer says of itself, when asked for.
    pub layer: String,
    /// Every layer, when asked for.
    pub detail: Option<Box<SessionDetail>>,
}

impl SessionInfo {
    /// Our end; `-` where the transport's ends have no address.
    pub fn local(&self) -> String {
        end(self.flow.protocol, self.flow.local)
    }

    /// The peer's end; `-` where it has no address.
    pub fn remote(&self) -> String {
        end(self.flow.protocol, self.flow.remote)
    }

    /// What the app did and what the transport did.
    pub fn state(&self) -> String {
        format!("{}/{}", self.app_side, self.transport_side)
    }

    /// The variables of the transport and of the layer above it, in a line; empty when they were not asked for.
    pub fn variables(&self) -> String {
        let transport = self.transport.to_string();
        if self.layer.is_empty() { transport } else { format!("{transport} {}", self.layer) }
    }
}

/// One end of a session, if it has an address.
pub(crate) fn end(protocol: Protocol, endpoint: Endpoint) -> String {
    match protocol {
        Protocol::Tcp | Protocol::KernelTcp => endpoint.to_string(),
        Protocol::KernelUnix | Protocol::Local => "-".into(),
    }
}

impl Serialize for SessionInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// As `docs/cli.md` has it.
        #[derive(Serialize)]
        #[serde(rename = "SessionInfo")]
        struct Text<'a> {
            session: String,
            handle: u64,
            app_worker: &'a str,
            protocol: &'static str,
            domain: u16,
            local: String,
            remote: String,
            #[serde(skip_serializing_if = "str::is_empty")]
            declared: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            stage: Option<&'static str>,
            state: String,
            rx_bytes: usize,
            tx_bytes: usize,
            age_us: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            srtt_us: Option<u32>,
            #[serde(skip_serializing_if = "Option::is_none")]
            fault: Option<&'static str>,
            #[serde(skip_serializing_if = "String::is_empty")]
            transport: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a SessionDetail>,
        }
        let text = Text {
            session: self.session.to_string(),
            handle: self.session.as_u64(),
            app_worker: &self.app_worker,
            protocol: self.flow.protocol.name(),
            domain: self.flow.domain.0,
            local: self.local(),
            remote: self.remote(),
            declared: &self.declared,
            stage: self.stage,
            state: self.state(),
            rx_bytes: self.rx_bytes,
            tx_bytes: self.tx_bytes,
            age_us: self.age_us,
            srtt_us: self.srtt_us,
            fault: self.fault,
            transport: self.variables(),
            detail: self.detail.as_deref(),
        };
        text.serialize(serializer)
    }
}

/// What a transport says of a connection, as `name=value` pairs separated by spaces when it is displayed.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "many are handed over in one piece, and TCP's are nearly all")]
pub enum TransportState {
    /// It was not asked for, or the transport is done with it.
    #[default]
    None,
    /// This stack's TCP.
    Tcp(ConnectionInfo),
    /// Another transport, in its words.
    Other(String),
}

impl fmt::Display for TransportState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportState::None => Ok(()),
            TransportState::Tcp(info) => info.fmt(f),
            TransportState::Other(text) => f.write_str(text),
        }
    }
}

/// What each layer knows of a session.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SessionDetail {
    /// The app's value.
    pub opaque: u64,
    /// The connect request, `origin#count`, while its app has not been told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<String>,
    /// In how long it must be up, while it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_in_us: Option<u64>,
    /// Establishment stages that are left, the one whose turn it is first.
    pub stages: Vec<&'static str>,
    /// What the app must still be told, in order.
    pub pending: Vec<&'static str>,
    /// Where it is queued: `ready` (for its app), `transmit`; and what it waits for: `waits for room`, `waits for memory`.
    pub queues: Vec<&'static str>,
    /// What the app has not read.
    pub rx_fifo: FifoInfo,
    /// What the app wrote and the peer has not acknowledged.
    pub tx_fifo: FifoInfo,
    /// What lies between the transport's bytes and the app's, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerInfo>,
    /// The transport's variables, by the RFCs' names.
    #[serde(serialize_with = "as_variables")]
    pub transport: TransportState,
    /// What the transport measured and counted: of sockets of the host bytes alone, of `local` nothing.
    #[serde(serialize_with = "as_measured")]
    pub measured: Option<ConnectionStats>,
}

impl SessionDetail {
    /// The transport's variables, one by one.
    pub fn transport_variables(&self) -> Variables {
        Variables::parse(&self.transport.to_string())
    }

    /// What the transport measured and counted, one by one.
    pub fn measured_variables(&self) -> Variables {
        self.measured.as_ref().map_or_else(Variables::default, Variables::measured)
    }
}

fn as_variables<S: Serializer>(transport: &TransportState, serializer: S) -> Result<S::Ok, S::Error> {
    Variables::parse(&transport.to_string()).serialize(serializer)
}

fn as_measured<S: Serializer>(stats: &Option<ConnectionStats>, serializer: S) -> Result<S::Ok, S::Error> {
    stats.as_ref().map_or_else(Variables::default, Variables::measured).serialize(serializer)
}

/// A fifo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FifoInfo {
    /// Bytes in it, in order.
    pub bytes: usize,
    /// The most there may be.
    pub capacity: usize,
    /// How far the capacity may grow; 0: it does not.
    pub capacity_max: usize,
    /// Memory it holds, in chunks.
    pub chunks: usize,
    /// Runs of bytes beyond a hole.
    pub ooo_ranges: usize,
    /// Bytes in those.
    pub ooo_bytes: usize,
    /// Bytes until the end of what is urgent.
    pub urgent: usize,
}

/// A layer, and the fifos beneath it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LayerInfo {
    /// Its name.
    pub name: &'static str,
    /// Its state.
    pub state: Variables,
    /// Bytes received that it has not taken.
    pub wire_rx: FifoInfo,
    /// Bytes it made that the peer has not acknowledged.
    pub wire_tx: FifoInfo,
}

/// Names and values, in an order that people read them in. An object in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(pub Vec<(String, String)>);

impl Variables {
    /// From `name=value` pairs separated by spaces, as transports and layers describe themselves.
    pub fn parse(text: &str) -> Variables {
        let pair = |word: &str| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        Variables(text.split_whitespace().filter_map(pair).collect())
    }

    /// From what a transport measured and counted.
    pub fn measured(stats: &ConnectionStats) -> Variables {
        let value = |figure: Option<u64>| figure.map_or("none".to_owned(), |figure| figure.to_string());
        let named = stats.named().map(|(name, figure)| (name.to_owned(), value(figure)));
        Variables(named.collect())
    }
}

impl Serialize for Variables {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
