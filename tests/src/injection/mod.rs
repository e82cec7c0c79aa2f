//! Establishment over the sockets of this machine, with a meddler between them and the transport: the matrix that other
//! proxies were measured by, extended.
//!
//! A *cell* ([`cell`]) is one connection: over TCP or Unix, with a connect that comes up in one of several ways and reads,
//! writes and events that are meddled with ([`script`], [`host`]); with or without a PROXY header; whoever speaks first;
//! asked for by an app, a proxy or a health check ([`apps`]). Each comes out as a word: ok, LATE, HANG, FALSE-OK, TOUT.
//!
//! The sockets are real, the time is not ([`world`]): it is moved by the test, past a deadline only when the machine has
//! had nothing to say for seconds. So LATE says that nothing but the deadline helped, on a slow machine as on a fast one.
//! [`table`] runs the cells and counts.

pub mod apps;
pub mod cell;
pub mod host;
pub mod script;
pub mod table;
pub mod world;

pub use cell::{Cell, Consumer, Stack, Verdict, Via, Workload};
pub use host::Injecting;
pub use script::{ConnectMode, Script, StreamMode};
pub use table::Table;
pub use world::World;
