//! Questions about sessions: counts by state, pages of a list, one with all its layers.

use hoststack_session::{SessionState, SessionStates};
use hoststack_transport::{AppWorkerId, SessionHandle};
use serde::{Serialize, Serializer};

use super::Filter;

/// A page of the list of sessions. They are listed in the order of their handles: worker by worker, slot by slot. Sessions that
/// come and go meanwhile are in a later page or not; none is listed twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionQuery {
    /// Which.
    pub filter: Filter,
    /// Only those that come after this one, whether it still lives or not: the last of the page before.
    pub after: Option<SessionHandle>,
    /// The most that are listed.
    pub limit: usize,
    /// How much of each.
    pub detail: Detail,
    /// Count all that fit, beyond the page, too.
    pub count: bool,
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

/// A session.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SessionInfo {
    /// Its handle, `worker:slot.generation`.
    pub session: String,
    /// The handle as a number.
    pub handle: u64,
    /// Its app worker, `application/unit`.
    pub app_worker: String,
    /// The transport, by its scheme: `tcp`, `kernel+tcp`, `kernel+unix`, `local`.
    pub protocol: &'static str,
    /// Routing domain.
    pub domain: u16,
    /// Our end; `-` where the transport's ends have no address.
    pub local: String,
    /// The peer's end; `-` where it has no address.
    pub remote: String,
    /// Whom a proxy said that the connection is between, `source->destination`, when one said so; `local` when it speaks
    /// for itself, `unknown` when it does not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub declared: String,
    /// The establishment stage whose turn it is, before the app is told of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<&'static str>,
    /// What the app did and what the transport did.
    pub state: String,
    /// Bytes the app may read.
    pub rx_bytes: usize,
    /// Bytes not acknowledged or not sent.
    pub tx_bytes: usize,
    /// Since it was allocated.
    pub age_us: u64,
    /// Why it cannot go on by itself: a fault of the stack, which should be reported. `None`: it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'static str>,
    /// The transport's variables, when asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub transport: String,
    /// Every layer, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<SessionDetail>>,
    /// For main, which knows the names.
    #[serde(skip)]
    pub(crate) app_worker_id: Option<AppWorkerId>,
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
    /// Where it is queued: `ready` (for its app), `transmit`; and what it waits for: `room`, `memory`.
    pub queues: Vec<&'static str>,
    /// What the app has not read.
    pub rx_fifo: FifoInfo,
    /// What the app wrote and the peer has not acknowledged.
    pub tx_fifo: FifoInfo,
    /// What lies between the transport's bytes and the app's, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerInfo>,
    /// The transport's variables, by the RFCs' names.
    pub transport: Variables,
    /// What the transport measured and counted: of sockets of the host bytes alone, of `local` nothing.
    pub measured: Variables,
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
}

impl Serialize for Variables {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
