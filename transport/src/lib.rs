//! The border between the session layer and its transports.
//!
//! Read in this order: [`border`] (two traits and one enum: the whole contract), [`handle`] (names of things and
//! what makes a stale name find nothing), [`address`], [`options`], [`early_data`], [`ticket`] (who may tell the outcome of a connect), then the tools that
//! both sides share: [`pool`], [`table`], [`time`], [`wheel`], [`mod@tuple`], [`rng`], [`histogram`].
//!
//! This crate knows no protocol, reads no clock and owns no thread.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod address;
pub mod border;
pub mod canary;
pub mod early_data;
pub mod flow;
pub mod handle;
pub mod histogram;
pub mod options;
pub mod pool;
pub mod rng;
pub mod table;
pub mod ticket;
pub mod time;
pub mod tuple;
mod usage;
pub mod wheel;

pub use address::{Address, AddressError, Uri};
pub use border::{
    AcceptError, CloseReason, ConnectFailure, EndStats, HalfOpenUser, Measures, OooRange, RxStored,
    SessionLayer, StageCause, StageFailure, Transmitted, Transport, TransportEvent,
};
pub use early_data::{EARLY_DATA_MAX, EarlyData};
pub use flow::{Endpoint, FlowKey, Protocol};
pub use handle::{
    AppId, AppWorkerId, ConnectId, ConnectionId, DomainId, HalfOpenId, ListenerId, SessionHandle, SessionId,
    WorkerId,
};
pub use histogram::Histogram;
pub use options::{Algorithm, ConnectionStats, EcnMode, Keepalive, Known, SocketOption, SocketOptions};
pub use pool::{AllocationPoint, Full, Key, Pool};
pub use rng::Rng;
pub use table::WordTable;
pub use ticket::{ConnectTicket, TicketLedger};
pub use time::{Duration, Instant};
pub use tuple::{TupleAllocator, TupleError};
pub use usage::Usage;
pub use wheel::TimerWheel;
