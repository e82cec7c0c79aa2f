//! RFC 9293 as a value: no thread, no clock, no bytes of its own.
//!
//! Two engines. [`HalfOpens`] lives on main and holds every connection in SYN-SENT; it never sends, it says what is
//! to be done ([`HalfOpenAction`]). [`Engine`] lives on a worker and holds listeners, SYN-RECEIVED, the synchronized
//! connections and TIME-WAIT; it sends through an [`Output`] and asks a `SessionLayer` for bytes and room.
//! A [`ConnectionSeed`] carries a connection from the first to the second.
//!
//! The files follow a segment: [`engine`] (demultiplexing, the `Transport` impl), `input` (RFC 9293 §3.10.7),
//! `ack` (what it says of what we sent), `output` (§3.8: what may be sent), `acknowledge` (what every segment says of what
//! was received), `retransmission` (its timers), `half_opens`, `listener`, `syn_received` (with `fast_open` and
//! `syn_cookies`), `connection`, `time_wait`; `state` has the one transition table, `timers` what fires when, `pmtud` how
//! large a packet may be, `ecn`, `pacing` and `extras` what only some do. `rtt`, `rate`, `isn`, `congestion`,
//! `recovery` are the algorithms.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(any(test, feature = "testing"))]
extern crate std;

mod ack;
mod acknowledge;
pub mod config;
pub mod congestion;
mod connection;
pub mod describe;
pub mod drop_reason;
mod ecn;
pub mod engine;
mod extras;
mod fast_open;
pub mod half_opens;
mod input;
pub mod isn;
mod listener;
mod liveness;
mod output;
mod pacing;
mod pmtud;
pub mod rate;
mod receive_window;
mod recovery;
mod retransmission;
pub mod rtt;
pub mod seed;
mod send_buffer;
pub mod state;
mod syn_cookies;
mod syn_received;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod time_wait;
mod timers;
mod urgent;

pub use config::{Blackhole, FastOpenKey, SynCookies, TcpConfig};
pub use describe::{CongestionState, ConnectionInfo, Counters, EngineCounts, HalfOpenInfo, RecoveryPhase};
pub use drop_reason::{DropCounters, DropReason};
pub use engine::{Disposition, Engine, EstablishError, FlowRecord, FlowTaken, Holder, ListenError, Output};
pub use half_opens::{HalfOpenAction, HalfOpens};
pub use isn::Secrets;
pub use seed::{ConnectionSeed, HalfOpenError, HalfOpenSegment, IcmpError, SeedState, Syn};
pub use state::{State, StateEvent};
