//! What an embedder writes against.
//!
//! An app is two plain Rust values. [`Application`] (one, on main) hears of listeners, cleaned half-opens and detach.
//! [`AppWorker`] (one per app worker and worker thread) hears of sessions, on the thread that owns them, and works with
//! them through the [`Context`] that each callback is lent.
//!
//! Read [`app`] for the callbacks (thread, order, what may be called inside), [`context`] for what they can do,
//! [`options`] for limits and defaults, [`error`] for what a caller can get wrong.
#![forbid(unsafe_code)]

pub mod app;
pub mod context;
pub mod error;
pub mod options;
pub mod report;

pub use app::{AppWorker, Application};
pub use context::{AppRequest, ConnectMint, Context, MainContext, MainRequest};
pub use error::{AttachError, CancelError, ConnectError, DetachError, ListenError, SessionError};
pub use hoststack_session::establish::proxy;
pub use hoststack_session::{
    Answer, HalfOpenCounters, Layer, SessionOptions, Stage, StageIo, StagePlan, StagePlans, Want,
};
/// Buckets and percentiles of histograms.
pub use hoststack_transport::histogram;
pub use hoststack_transport::{
    Address, AddressError, Algorithm, AppId, AppWorkerId, CloseReason, ConnectFailure, ConnectId,
    ConnectionStats, DomainId, Duration, EARLY_DATA_MAX, EcnMode, Endpoint, FlowKey, Instant, Keepalive, Key,
    Known, ListenerId, Protocol, SessionHandle, SocketOption, SocketOptions, StageCause, StageFailure, Uri,
    WorkerId,
};
pub use options::{AttachOptions, ConnectOptions, DetachPolicy, ListenOptions};
pub use report::{DetachReport, WorkerDetachReport};
