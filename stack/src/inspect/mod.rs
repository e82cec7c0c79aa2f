//! What can be asked of a running stack, and the answers: plain values, gathered by message, formatted elsewhere.
//!
//! Workers answer in bounded slices, a slice a step, so that a walk over a million sessions stalls nobody.

mod capture;
pub(crate) mod channels;
pub(crate) mod config;
mod congestion;
pub(crate) mod events;
mod figures;
mod filter;
mod half_opens;
mod histograms;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod ports;
mod sessions;
mod trace;
mod transports;

pub use channels::ChannelInfo;
pub use config::ConfigItem;
pub use congestion::CongestionInfo;
pub(crate) use congestion::CongestionTallies;
pub(crate) use figures::WorkerFigures;
pub use figures::{PaceInfo, StageInfo};
pub use histograms::{BucketInfo, HistogramInfo, HistogramKind};
pub use memory::{MemoryInfo, PoolInfo};
pub use network::{
    InterfaceInfo, IpInfo, NeighborInfo, NetworkInfo, PathMtuInfo, QueueInfo, RouteInfo, WaitingInfo,
};
pub use ports::{Held, LocalPorts, PortsInfo, RemotePorts};
pub use transports::TransportInfo;

pub use crate::worker::drop_reasons;
pub use capture::{
    CAPTURE_BYTES_DEFAULT, CAPTURE_BYTES_MIN, CaptureError, CaptureReport, CaptureSpec, CaptureState,
};
pub(crate) use trace::check_filter;
pub use trace::{
    TRACE_COUNT_DEFAULT, TRACE_COUNT_MAX, TRACES_MAX, TraceAnswer, TraceError, TraceRecord, TraceSpec,
    TraceStage,
};

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use hoststack_app::HalfOpenCounters;
use hoststack_transport::{AppId, AppWorkerId, ConnectId, ListenerId, SessionHandle};
use serde::{Serialize, Serializer};

pub use events::{EVENTS_PER_ANSWER, EventCursor, EventInfo, EventsAnswer, EventsQuery};
pub use filter::{AppName, Filter};
pub use half_opens::{HalfOpenCursor, HalfOpenInfo, HalfOpenQuery};
pub use hoststack_session::{AppSide, SessionState, TransportSide};
pub use hoststack_tcp::State as TcpState;
pub(crate) use sessions::end;
pub use sessions::{
    Detail, FifoInfo, LayerInfo, Order, SLOWEST_MAX, SessionDetail, SessionInfo, SessionQuery,
    SessionSummary, TransportState, Variables,
};

/// A question. Nearly every answer carries the workers' figures; the lists are filled for the question that asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Workers' and main's figures, applications, leaks. Timers are counted one by one, in slices.
    Summary,
    /// The same, leaks aside: nothing is walked, so it costs the same whatever the stack holds.
    Status,
    /// A page of the list of sessions.
    Sessions(Box<SessionQuery>),
    /// One session with all its layers; none, if the handle is stale.
    Session(SessionHandle),
    /// A page of the list of half-opens.
    HalfOpens(Box<HalfOpenQuery>),
    /// One half-open; none, if its transport is gone and its outcome was told.
    HalfOpen(ConnectId),
    /// Listeners, at most `limit` of them listed.
    Listeners {
        /// The most that are listed.
        limit: usize,
    },
    /// Histograms of latencies, steps and vectors.
    Histograms,
    /// The same, and what counts events counts them since the stack began, whatever was cleared meanwhile: for who keeps
    /// books on it.
    Totals,
    /// How TCP's connections stand with congestion.
    Congestion,
    /// What each transport holds and did.
    Transports,
    /// Interfaces, and of routes, neighbours and path MTUs at most `limit` each, and 1024.
    Network {
        /// The most that are listed.
        limit: usize,
    },
    /// 4-tuples, by who holds them.
    Ports {
        /// The most remotes that are listed.
        limit: usize,
    },
    /// The channels between threads.
    Channels,
    /// Pools and what they hold.
    Memory,
    /// What the stack was built with.
    Config,
    /// State changes. The answer has no figures of the workers, for who follows them asks often.
    Events(Box<EventsQuery>),
    /// What traces recorded, and nothing else; see [`StackHandle::trace_add`](crate::StackHandle::trace_add).
    Trace {
        /// The most records that are listed, of each worker the newest.
        limit: usize,
    },
}

impl Query {
    /// The first `limit` sessions; with the transport's variables if `verbose`.
    pub fn sessions(limit: usize, verbose: bool) -> Query {
        let detail = if verbose { Detail::Transport } else { Detail::Row };
        Query::Sessions(Box::new(SessionQuery { limit, detail, ..SessionQuery::default() }))
    }

    /// The `limit` slowest sessions, [`SLOWEST_MAX`] at most.
    pub fn slowest(limit: usize) -> Query {
        Query::Sessions(Box::new(SessionQuery { limit, order: Order::Slowest, ..SessionQuery::default() }))
    }

    /// The first `limit` half-opens.
    pub fn half_opens(limit: usize) -> Query {
        Query::HalfOpens(Box::new(HalfOpenQuery { limit, ..HalfOpenQuery::default() }))
    }
}

/// An answer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Answer {
    /// One per worker, in order.
    pub workers: Vec<WorkerInfo>,
    /// Main's figures.
    pub main: MainInfo,
    /// Applications attached.
    pub apps: Vec<AppInfo>,
    /// Sessions by state, all workers'.
    pub session_summary: SessionSummary,
    /// Sessions listed.
    pub sessions: Vec<SessionInfo>,
    /// There are more sessions after those listed: ask for what comes after this one.
    #[serde(skip)]
    pub sessions_next: Option<SessionHandle>,
    /// Half-opens listed.
    pub half_opens: Vec<HalfOpenInfo>,
    /// There are more half-opens after those listed.
    #[serde(skip)]
    pub half_opens_next: Option<HalfOpenCursor>,
    /// How many fit, when a query asked for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched: Option<u64>,
    /// Listeners listed.
    pub listeners: Vec<ListenerInfo>,
    /// What is held; see [`Leaks`]. Only with [`Query::Summary`].
    pub leaks: Leaks,
    /// TIME-WAIT records, all workers'.
    pub time_wait: usize,
    /// Histograms: of each kind that of all workers, then each worker's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub histograms: Vec<HistogramInfo>,
    /// Congestion, by algorithm.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub congestion: Vec<CongestionInfo>,
    /// Transports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transports: Vec<TransportInfo>,
    /// Since when what is counted is counted.
    pub since: Since,
    /// Interfaces, routes, neighbours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Box<NetworkInfo>>,
    /// 4-tuples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Box<PortsInfo>>,
    /// Channels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<ChannelInfo>,
    /// Pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Box<MemoryInfo>>,
    /// Settings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<ConfigItem>,
    /// State changes, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<EventsAnswer>,
    /// What traces recorded.
    pub trace: TraceAnswer,
}

/// What [`crate::StackHandle::clear`] clears. Nothing is forgotten that anything but the eye needs: it is shown as counted
/// since then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clear {
    /// Drop reasons.
    Errors,
    /// Steps, packets, callbacks, TCP's counters, those of interfaces and IP. What is held now is no counter, nor are the
    /// outcomes of connects, which account for each of them.
    Counters,
}

/// Since when counters that are shown count: microseconds of the stack's time, 0 if they were never cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Since {
    /// The stack's time when the answer was put together.
    pub now_us: u64,
    /// Drop reasons.
    pub errors_us: u64,
    /// All else.
    pub counters_us: u64,
}

/// What the stack holds now. With no app attached and nothing under way all are zero; what is not has leaked.
/// TIME-WAIT is not among them: it is owed to the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Leaks {
    /// Sessions.
    pub sessions: usize,
    /// Half-open sessions and half-open transport connections.
    pub half_opens: usize,
    /// Armed timers of connections, half-opens and apps.
    pub timers: usize,
    /// Fifo chunks.
    pub fifo_chunks: usize,
    /// Flow table entries and 4-tuples, TIME-WAIT's left out.
    pub flows: usize,
    /// Messages sent and not handled, and connect tickets dropped without an outcome.
    pub messages: u64,
    /// Segments that wait for the hand-over of their flow.
    pub parked: usize,
    /// Listeners on workers that main has given up.
    pub listeners: usize,
}

impl Leaks {
    /// Whether nothing is held.
    pub fn is_clean(&self) -> bool {
        *self == Leaks::default()
    }
}

/// A worker's figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WorkerInfo {
    /// Its number.
    pub worker: u8,
    /// Steps taken.
    pub steps: u64,
    /// Of them, steps that found something to do.
    pub busy_steps: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Packets received from devices.
    pub rx_packets: u64,
    /// Packets sent to devices.
    pub tx_packets: u64,
    /// Times that a device handed over packets: `rx_packets` over this is the mean vector.
    pub rx_vectors: u64,
    /// Times that a device took packets.
    pub tx_vectors: u64,
    /// Packets handed to other workers.
    pub handed_over: u64,
    /// Callbacks made.
    pub callbacks: u64,
    /// Sessions announced to apps as accepted, so far.
    pub accepts: u64,
    /// Sessions announced to apps as connected, so far.
    pub connects: u64,
    /// Connects whose failure was told to apps, so far.
    pub connect_failures: u64,
    /// Announced sessions that ended, so far.
    pub ends: u64,
    /// Bytes of apps that came, over all transports, so far.
    pub bytes_in: u64,
    /// Bytes of apps that went, over all transports, so far.
    pub bytes_out: u64,
    /// How it works.
    pub pace: PaceInfo,
    /// Sessions.
    pub sessions: usize,
    /// Sessions that are not announced and wait: outbound ones, and inbound ones with stages.
    pub establishing: usize,
    /// Fifo chunks in use.
    pub fifo_chunks: usize,
    /// Connections of all transports, TCP's synchronized ones.
    pub connections: usize,
    /// Flows waiting for main's decision.
    pub half_open_entries: usize,
    /// SYN-RECEIVED records.
    pub syn_received: usize,
    /// TIME-WAIT records.
    pub time_wait: usize,
    /// Armed timers, apps' included.
    pub timers: usize,
    /// Flow table entries.
    pub flows: usize,
    /// Segments that wait for the hand-over of their flow.
    pub parked: usize,
    /// Listeners.
    pub listeners: usize,
    /// TCP counters by name, zero ones left out.
    pub tcp: Vec<(String, u64)>,
    /// Drop reasons by stable name, zero ones left out, with what they mean. `not-accepted` is there once for each way in
    /// which connections ended before they were accepted.
    pub drops: Vec<DropInfo>,
}

/// A drop reason that struck.
#[derive(Clone, Debug, Serialize)]
pub struct DropInfo {
    /// Stable name.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// What it means.
    pub help: String,
}

/// Main's figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MainInfo {
    /// Steps taken.
    pub steps: u64,
    /// Of them, steps that found something to do.
    pub busy_steps: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// How it works.
    pub pace: PaceInfo,
    /// Half-open sessions.
    pub half_open_sessions: usize,
    /// Half-open transport connections.
    pub half_open_connections: usize,
    /// 4-tuples in use, TIME-WAIT's included.
    pub tuples: usize,
    /// Listeners.
    pub listeners: usize,
    /// Messages sent and not handled, both ways, and waiting in outboxes.
    pub messages: u64,
    /// Connect tickets dropped without an outcome.
    pub tickets_dropped: u64,
    /// Connects whose app worker was gone when they reached main.
    pub connects_orphaned: u64,
}

impl MainInfo {
    /// Takes off what was counted before `then`. What is held now is as it is, and so is what tells of a bug.
    pub(crate) fn count_since(&mut self, then: &MainInfo) {
        for (count, then) in [
            (&mut self.steps, then.steps),
            (&mut self.busy_steps, then.busy_steps),
            (&mut self.sleeps, then.sleeps),
        ] {
            *count = count.saturating_sub(then);
        }
    }
}

/// An application.
#[derive(Clone, Debug, Serialize)]
pub struct AppInfo {
    /// Its id, as text.
    pub app: String,
    /// Its name.
    pub name: String,
    /// Whether it is being detached.
    pub detaching: bool,
    /// Its app workers.
    pub app_workers: Vec<AppWorkerInfo>,
    /// For programs: the id.
    #[serde(skip)]
    pub id: AppId,
}

/// An app worker.
#[derive(Clone, Debug, Serialize)]
pub struct AppWorkerInfo {
    /// Its number in its application.
    pub unit: u32,
    /// `attached` or `detaching`.
    pub state: String,
    /// Connect requests without an outcome, or not cleaned.
    pub half_opens: usize,
    /// Sessions alive on each worker.
    pub sessions: Vec<usize>,
    /// Listeners, as `domain endpoint`.
    pub listeners: Vec<String>,
    /// How its connects ended.
    pub outcomes: Outcomes,
    /// For programs: the id.
    #[serde(skip)]
    pub id: AppWorkerId,
}

/// How an app worker's connects ended, for readers: as JSON the counters and `alive`, those that are not freed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes(pub HalfOpenCounters);

impl Deref for Outcomes {
    type Target = HalfOpenCounters;

    fn deref(&self) -> &HalfOpenCounters {
        &self.0
    }
}

impl From<&HalfOpenCounters> for Outcomes {
    fn from(from: &HalfOpenCounters) -> Outcomes {
        Outcomes(*from)
    }
}

impl Serialize for Outcomes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.named().into_iter().chain([("alive", self.alive())]))
    }
}

/// A listener.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerInfo {
    /// Where it listens, as a URI; a port that the host chose is the one that it chose.
    pub address: String,
    /// Its app worker, `application/unit`.
    pub app_worker: String,
    /// Routing domain. Sockets of the host know none.
    pub domain: u16,
    /// The one worker that accepts; `None`: each does.
    pub worker: Option<u8>,
    /// Whether every worker has it.
    pub is_up: bool,
    /// What must happen before a connection is accepted, in order.
    pub stages: Vec<&'static str>,
    /// How long that may take.
    pub stage_timeout_us: u64,
    /// For programs: the id.
    #[serde(skip)]
    pub id: ListenerId,
    /// For programs: its app worker's.
    #[serde(skip)]
    pub app_worker_id: AppWorkerId,
}

/// What app workers are called, `application/unit`.
pub(crate) type AppWorkerNames = BTreeMap<AppWorkerId, Arc<str>>;

/// A slice of one worker's answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerAnswer {
    pub(crate) info: WorkerInfo,
    pub(crate) summary: SessionSummary,
    pub(crate) sessions: Vec<SessionInfo>,
    /// Sessions that fit so far, where they are counted.
    pub(crate) matched: u64,
    pub(crate) figures: WorkerFigures,
    /// With the last slice, if the question is about one.
    pub(crate) topic: Option<Topic>,
    pub(crate) events: events::EventPart,
    /// Records of traces.
    pub(crate) trace: Vec<TraceRecord>,
    /// How many the worker has.
    pub(crate) trace_total: usize,
}

/// A worker's part of an answer about something else than its figures and sessions.
#[derive(Clone, Debug)]
pub(crate) enum Topic {
    Network(network::WorkerNetwork),
    Ports(ports::PortCounts),
    Channels(Vec<channels::ChannelEnd>),
    Memory(Vec<PoolInfo>),
}
