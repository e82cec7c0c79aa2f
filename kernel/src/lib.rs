//! Kernel sockets as a transport: TCP and Unix stream sockets of the host, so that hoststack serves a user without
//! root, TAP or a network card.
//!
//! The connecting socket is main's ([`half_opens`]), the established one the owning worker's ([`engine`]); [`host`] is what
//! both need of the host, for tests to stand in.
#![forbid(unsafe_code)]

mod connection;
pub mod engine;
mod error;
pub mod half_opens;
pub mod host;
pub mod listen;
mod native;
#[cfg(test)]
mod testing;
mod token;

pub use engine::{Engine, EngineCounters, EstablishError, ListenerInfo, SocketCounters};
pub use half_opens::{HalfOpenAction, HalfOpenCounters, HalfOpenInfo, HalfOpenState, HalfOpens, Seed};
pub use host::Native;
pub use listen::{ListenError, Listening, SocketFile, listen};

/// What main and the workers own crosses into their threads.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<HalfOpens>();
    is_send::<Engine>();
    is_send::<Seed>();
    is_send::<Listening>();
};
