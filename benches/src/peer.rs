//! The in-run peers: smoltcp 0.14 and, for transports over the host's sockets, a bare [`mod@epoll`] loop.
//!
//! smoltcp: two interfaces joined in memory and stepped in turn on one thread.
//!
//! smoltcp is given its best: no congestion control (its default without features), no timestamps, buffers reused, ACKs
//! coalesced over everything that one poll takes in. It does what our side is asked to do: IPv4, MTU 1500, every
//! checksum computed and verified, the clock read once per step of either end. What it is *not* charged for: TIME-WAIT.
//! Its client sockets are opened again as soon as both FINs were exchanged, which smoltcp allows from TIME-WAIT.
//!
//! smoltcp looks at every socket of a set for each packet and for each pass of output, so its cost grows with the
//! sockets held, idle ones included. Every workload here therefore takes a time limit and tells how far it came.
//!
//! `pair` is the joined interfaces, `device` the queue between them, `establish` opens the connections that a
//! workload starts from; then one file a workload: [`conn`], [`rr`], [`bulk`], [`mod@memory`].

pub mod bulk;
pub mod conn;
mod device;
pub mod epoll;
mod establish;
pub mod memory;
mod pair;
pub mod rr;

pub use bulk::{BulkOptions, BulkPeer};
pub use conn::{ConnOptions, ConnPeer, IdlePlace};
pub use epoll::{EpollPeer, EpollSockets};
pub use memory::{MemoryOptions, MemoryPeer, memory};
pub use rr::{RrOptions, RrPeer};
