//! Our side: the same work as [`crate::peer`], done by a whole stack with apps attached, through the in-memory wire.
//!
//! Two interfaces of one stack in two routing domains, joined by the wire, so that every packet is built, checksummed,
//! parsed and verified as on a network (IPv4, MTU 1500). Defaults everywhere: timestamps, SACK and window scaling on,
//! TIME-WAIT 60 s. Everything an embedder's program pays for is in: main, messages, connect tickets, callbacks.
//!
//! [`Threads::None`] steps everything on the calling thread, which compares with the peer. [`Threads::Virtual`] does
//! so on virtual time, for tests that must not depend on the machine. [`Threads::Own`] runs main
//! and one worker on threads of their own.
//!
//! `host` builds and drives the stack, `progress` is what apps and driver share; then one file a workload: [`conn`],
//! [`rr`], [`bulk`], [`mod@memory`], [`latency`].

pub mod bulk;
pub mod conn;
mod host;
pub mod latency;
pub mod memory;
mod progress;
pub mod rr;

pub use bulk::{Bulk, BulkMode, BulkOptions};
pub use conn::{Conn, ConnOptions};
pub use host::{STEP_US, Threads, Via};
pub use latency::connect_latency;
pub use memory::{Held, memory};
pub use rr::{Rr, RrOptions};
