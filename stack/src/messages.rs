//! What threads say to each other. Types over channels, FIFO between any two threads.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::Sender;
use hoststack_app::{
    AppWorker, Application, AttachError, AttachOptions, CancelError, ConnectOptions, DetachError,
    DetachPolicy, DetachReport, ListenError, ListenOptions, WorkerDetachReport,
};
use hoststack_net::{InterfaceId, NetEvent, NetUpdate};
use hoststack_session::{ListenerRecord, SessionOptions, StagePlans};
use hoststack_tcp::{ConnectionSeed, HalfOpenError, HalfOpenSegment, Syn, TcpConfig};
use hoststack_transport::{
    Address, AppId, AppWorkerId, ConnectFailure, ConnectId, ConnectTicket, DomainId, EarlyData, Endpoint,
    FlowKey, HalfOpenId, Instant, ListenerId, SessionHandle, SocketOptions, WorkerId,
};

use crate::capture::CaptureTap;
use crate::handle::Stopped;
use crate::inspect::{Clear, Query, TraceError, TraceSpec, WorkerAnswer};
use crate::ping::{PingCommand, PingError, PingOptions, PingSent, Pinging};
use crate::worker::WatchCommand;

/// What a connection is made of, whatever its transport: the only place where a hand-over names protocols.
#[derive(Debug)]
pub(crate) enum Seed {
    /// RFC 9293.
    Tcp(Box<ConnectionSeed>),
    /// A socket of the host.
    Kernel(Box<hoststack_kernel::Seed>),
    /// Another app of this stack.
    Local {
        /// Who accepts.
        listener: ListenerId,
        /// Where.
        worker: WorkerId,
        /// The domain of both.
        domain: DomainId,
    },
}

impl Seed {
    /// The flow of the session to come.
    pub(crate) fn flow(&self) -> FlowKey {
        match self {
            Seed::Tcp(seed) => seed.flow,
            Seed::Kernel(seed) => seed.flow,
            Seed::Local { domain, .. } => hoststack_local::Engine::flow(*domain),
        }
    }
}

/// What a worker listens on.
pub(crate) enum ListenOn {
    /// An endpoint of a domain, by this stack's TCP.
    Tcp { domain: DomainId, local: Endpoint, backlog: u32, socket: Box<SocketOptions> },
    /// A socket of the host that listens; `None` on workers that do not accept.
    Kernel { address: Address, socket: Option<hoststack_kernel::host::Socket>, options: Box<SocketOptions> },
    /// A name in this stack.
    Local,
}

/// How a session is to be ended from outside its app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndHow {
    /// Queued data is sent first.
    Close,
    /// At once.
    Reset,
}

/// Main to one worker.
pub(crate) enum Command {
    /// Routes, neighbours, interfaces.
    Net(NetUpdate),
    /// Ask the link who has an address.
    Probe { interface: InterfaceId, target: std::net::IpAddr },
    /// An app worker's object arrives.
    Attach {
        app_worker: AppWorkerId,
        unit: u32,
        /// `application/unit`.
        name: Arc<str>,
        pending_connects_max: usize,
        object: Box<dyn AppWorker>,
        abandoned: Arc<AtomicBool>,
    },
    /// No more connects or listens of it; answered by `Report::DetachBegun`.
    DetachBegin { app_worker: AppWorkerId },
    /// Nothing more will come for it: end its sessions and drop its object; answered by `Report::Detached`.
    DetachEnd { app_worker: AppWorkerId, policy: DetachPolicy },
    /// Answered by `Report::Listening`.
    Listen { record: Box<ListenerRecord>, on: ListenOn },
    /// Not answered: what follows in this channel finds it gone.
    Unlisten { listener: ListenerId },
    /// A flow becomes a half-open's, and its SYN goes out.
    Open { half_open: HalfOpenId, syn: Syn },
    /// A SYN goes out again.
    SendSyn { half_open: HalfOpenId, syn: Syn },
    /// A half-open's flow becomes a connection, and the ticket moves.
    Establish {
        ticket: ConnectTicket,
        seed: Seed,
        deadline: Instant,
        options: SessionOptions,
        early_data: EarlyData,
        stages: StagePlans,
        /// A failure that another attempt may mend is not told: the ticket goes back.
        may_retry: bool,
    },
    /// An attempt failed, and another one follows: its flow is let go.
    Forget { half_open: HalfOpenId, flow: FlowKey },
    /// A connect failed; the ticket moves. The attempt's flow, if it had one, is let go.
    Outcome { ticket: ConnectTicket, failure: ConnectFailure, attempt: Option<(HalfOpenId, FlowKey)> },
    /// A connect whose ticket is here shall fail, unless it was announced first.
    FailConnect { connect: ConnectId, failure: ConnectFailure },
    /// Outcomes of so many connects made here were told elsewhere.
    ConnectsSettled { app_worker: AppWorkerId, count: usize },
    /// A message for an app worker's object.
    Notify { app_worker: AppWorkerId, message: Box<dyn Any + Send> },
    /// End a session.
    EndSession { session: SessionHandle, how: EndHow },
    /// From now on TCP works by this, limits of pools aside.
    SetTcpConfig(Box<TcpConfig>),
    /// Answered by `Report::Answer`, in slices.
    Inspect { query: u64, what: Query },
    /// Counters are shown as counted from now on.
    Clear(Clear),
    /// Echo requests.
    Ping(PingCommand),
    /// Whether sessions' ends are logged.
    SetSessionLog(bool),
    /// Packets are to be watched, or no longer so.
    Watch(WatchCommand),
    /// Leave.
    Stop,
}

/// A worker to main.
pub(crate) enum Report {
    /// Neighbours seen and missed.
    Net(NetEvent),
    /// A segment that is acceptable in SYN-SENT.
    HalfOpenSegment(HalfOpenSegment),
    /// An ICMP error about a SYN.
    HalfOpenError(HalfOpenError),
    /// The flow of an `Open` is taken here.
    OpenRefused { half_open: HalfOpenId },
    /// An app connects; when it said so.
    Connect {
        app_worker: AppWorkerId,
        connect: ConnectId,
        options: Box<ConnectOptions>,
        early_data: EarlyData,
        made: Instant,
    },
    /// An attempt failed here and main may make another: the ticket comes back.
    NextAttempt { ticket: ConnectTicket, failure: ConnectFailure },
    /// An app cancels.
    Cancel { connect: ConnectId },
    /// An app listens.
    Listen { app_worker: AppWorkerId, options: Box<ListenOptions> },
    /// An app unlistens.
    Unlisten { app_worker: AppWorkerId, listener: ListenerId },
    /// An app detaches its app worker.
    Detach { app_worker: AppWorkerId, policy: DetachPolicy },
    /// The outcome of a connect was told (or could not be).
    Settled(Settled),
    /// A worker's answer to `Listen`.
    Listening { listener: ListenerId, result: Result<(), ListenError> },
    /// A worker's answer to `DetachBegin`; sessions it has.
    DetachBegun { app_worker: AppWorkerId, sessions: usize },
    /// A worker's answer to `DetachEnd`: nothing is left here.
    Detached { app_worker: AppWorkerId, sessions_reset: usize },
    /// A callback panicked; its object is gone.
    Panicked { app_worker: AppWorkerId },
    /// A 4-tuple may be given out again.
    FlowGone(FlowKey),
    /// An echo request was sent, or not.
    Ping(PingSent),
    /// A slice of an answer.
    Answer { query: u64, part: Box<WorkerAnswer>, last: bool },
}

/// The end of a connect request on its worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub(crate) connect: ConnectId,
    pub(crate) app_worker: AppWorkerId,
    pub(crate) half_open: hoststack_transport::Key,
    pub(crate) opaque: u64,
    pub(crate) outcome: Result<(), ConnectFailure>,
    /// The app worker's object was gone.
    pub(crate) undelivered: bool,
}

/// The app and its app workers as attach returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The application.
    pub app: AppId,
    /// Its app workers, in the order of their numbers.
    pub app_workers: Vec<AppWorkerId>,
}

/// Where an answer goes; a caller that has left is no error.
pub(crate) type Reply<T> = Sender<T>;

/// Any thread to main.
pub(crate) enum Request {
    Attach {
        app: Box<dyn Application>,
        options: AttachOptions,
        reply: Reply<Result<Attached, AttachError>>,
    },
    AttachWorker {
        app: AppId,
        reply: Reply<Result<AppWorkerId, AttachError>>,
    },
    Detach {
        app: AppId,
        policy: DetachPolicy,
        reply: Reply<Result<DetachReport, DetachError>>,
    },
    DetachWorker {
        app_worker: AppWorkerId,
        policy: DetachPolicy,
        reply: Reply<Result<WorkerDetachReport, DetachError>>,
    },
    Connect {
        app_worker: AppWorkerId,
        connect: ConnectId,
        options: Box<ConnectOptions>,
        early_data: EarlyData,
    },
    Cancel {
        connect: ConnectId,
        reply: Reply<Result<(), CancelError>>,
    },
    Listen {
        app_worker: AppWorkerId,
        options: Box<ListenOptions>,
        reply: Reply<Result<ListenerId, ListenError>>,
    },
    Unlisten {
        app_worker: AppWorkerId,
        listener: ListenerId,
        reply: Reply<Result<(), ListenError>>,
    },
    Notify {
        app_worker: AppWorkerId,
        worker: WorkerId,
        message: Box<dyn Any + Send>,
    },
    EndSession {
        session: SessionHandle,
        how: EndHow,
    },
    SetTcpConfig(Box<TcpConfig>),
    SetSessionLog(bool),
    Inspect {
        what: Query,
        reply: Reply<Result<crate::inspect::Answer, Stopped>>,
    },
    Clear {
        what: Clear,
    },
    Ping {
        options: PingOptions,
        reply: Reply<Result<Pinging, PingError>>,
    },
    TraceAdd {
        spec: Arc<TraceSpec>,
        reply: Reply<Result<(), TraceError>>,
    },
    TraceClear,
    /// To every worker; `None`: no more.
    Capture(Option<Arc<CaptureTap>>),
    Stop,
}
