//! What can be asked of a running stack, and the answers: plain values, gathered by message, formatted elsewhere.
//!
//! Workers answer in bounded slices, a slice a step, so that a walk over a million sessions stalls nobody.

mod capture;
mod trace;

pub use capture::{
    CAPTURE_BYTES_DEFAULT, CAPTURE_BYTES_MIN, CaptureError, CaptureReport, CaptureSpec, CaptureState,
};
pub(crate) use trace::check_filter;
pub use trace::{
    TRACE_COUNT_DEFAULT, TRACE_COUNT_MAX, TRACES_MAX, TraceAnswer, TraceError, TraceRecord, TraceSpec,
    TraceStage,
};

use hoststack_app::HalfOpenCounters;
use hoststack_transport::{AppId, AppWorkerId};
use serde::Serialize;

/// A question. Nearly every answer carries the workers' figures; the lists are filled for the question that asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// Workers' and main's figures, applications, leaks.
    Summary,
    /// Sessions, at most `limit` of them listed; all are counted by state.
    Sessions {
        /// The most that are listed.
        limit: usize,
        /// With the transport's variables.
        verbose: bool,
    },
    /// Half-opens, at most `limit` of them listed.
    HalfOpens {
        /// The most that are listed.
        limit: usize,
    },
    /// Listeners, at most `limit` of them listed.
    Listeners {
        /// The most that are listed.
        limit: usize,
    },
    /// What traces recorded, and nothing else; see [`StackHandle::trace_add`](crate::StackHandle::trace_add).
    Trace {
        /// The most records that are listed, of each worker the newest.
        limit: usize,
    },
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
    /// Half-opens listed.
    pub half_opens: Vec<HalfOpenInfo>,
    /// Listeners listed.
    pub listeners: Vec<ListenerInfo>,
    /// What is held; see [`Leaks`].
    pub leaks: Leaks,
    /// TIME-WAIT records, all workers'.
    pub time_wait: usize,
    /// What traces recorded.
    pub trace: TraceAnswer,
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
    /// Packets handed to other workers.
    pub handed_over: u64,
    /// Callbacks made.
    pub callbacks: u64,
    /// Sessions.
    pub sessions: usize,
    /// Outbound sessions not announced.
    pub establishing: usize,
    /// Fifo chunks in use.
    pub fifo_chunks: usize,
    /// Synchronized TCP connections.
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
    /// Listeners, as `domain endpoint`.
    pub listeners: Vec<String>,
    /// How its connects ended.
    pub outcomes: Outcomes,
    /// For programs: the id.
    #[serde(skip)]
    pub id: AppWorkerId,
}

/// [`HalfOpenCounters`] for readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// Connect requests.
    pub requested: u64,
    /// Came up.
    pub established: u64,
    /// Refused.
    pub refused: u64,
    /// No answer in time.
    pub timed_out: u64,
    /// No way there.
    pub unreachable: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Ended by detach.
    pub detached: u64,
    /// No port, address or room.
    pub failed: u64,
    /// Not told: the object was gone.
    pub undelivered: u64,
    /// Half-opens freed.
    pub cleaned: u64,
    /// Half-opens not freed yet.
    pub alive: u64,
    /// Acceptable answers of the peer that came after the outcome was decided.
    pub late_segments: u64,
}

impl From<&HalfOpenCounters> for Outcomes {
    fn from(from: &HalfOpenCounters) -> Outcomes {
        Outcomes {
            requested: from.requested,
            established: from.established,
            refused: from.refused,
            timed_out: from.timed_out,
            unreachable: from.unreachable,
            cancelled: from.cancelled,
            detached: from.detached,
            failed: from.failed,
            undelivered: from.undelivered,
            cleaned: from.cleaned,
            alive: from.alive(),
            late_segments: from.late_segments,
        }
    }
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
    /// The transport's variables, when asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub transport: String,
    /// For main, which knows the names.
    #[serde(skip)]
    pub(crate) app_worker_id: Option<AppWorkerId>,
}

/// A half-open session.
#[derive(Clone, Debug, Serialize)]
pub struct HalfOpenInfo {
    /// The connect request, `origin#count`.
    pub connect: String,
    /// Its app worker, `application/unit`.
    pub app_worker: String,
    /// The transport of the attempt under way, by its scheme.
    pub protocol: &'static str,
    /// Routing domain.
    pub domain: u16,
    /// Our end.
    pub local: String,
    /// The peer's end, or name.
    pub remote: String,
    /// `connecting`, `handed-over`, `failed`, `settled`.
    pub state: String,
    /// The worker that owns the flow.
    pub worker: u8,
    /// SYNs sent; with another transport, times that the host was asked to connect.
    pub attempts: u32,
    /// Since the request.
    pub age_us: u64,
    /// Until its deadline.
    pub deadline_in_us: u64,
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
}

/// A slice of one worker's answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerAnswer {
    pub(crate) info: WorkerInfo,
    pub(crate) summary: SessionSummary,
    pub(crate) sessions: Vec<SessionInfo>,
    /// Records of traces.
    pub(crate) trace: Vec<TraceRecord>,
    /// How many the worker has.
    pub(crate) trace_total: usize,
}
