//! hoststack: a multi-core TCP/IP host stack with a session layer, in user space.
//!
//! A program embeds a [`Stack`], attaches *builtin apps* to it (plain values, see [`app`]) and opens, accepts, inspects
//! and closes connections by the million. The map, for readers of this crate, is `docs/ARCHITECTURE.md`.
//!
//! - [`Stack::builder`] -> [`Builder`]: interfaces, workers, limits; [`Builder::start`] runs main and workers on threads.
//! - [`StackHandle`]: what other threads use: attach, connect, listen, detach, inspect. `Send + Clone`.
//! - [`Stack::single_threaded`] -> [`SingleThreaded`]: no threads; the caller steps, on real or virtual time.
//! - [`Stack::stepped`] -> [`Stepped`]: main and workers stepped one by one, for simulators.
//!
//! Here: `main_thread` (owner of directories and half-opens), `worker` (owner of everything established), `messages`
//! (what they say to each other), `channel`, `wake` and `sync` (how), `threads` (the loops), `clock` (the only clock), `measure`
//! (what a thread knows of its own steps).

mod builder;
mod capture;
mod channel;
mod clock;
pub mod config;
mod directory;
mod events;
mod handle;
mod hash;
pub mod inspect;
#[cfg(all(test, loom))]
mod loom_models;
mod main_thread;
mod measure;
mod messages;
pub mod ping;
mod rate_limit;
mod record;
mod single;
mod step;
mod stepped;
mod sync;
mod threads;
mod wake;
mod worker;

/// Devices, addresses, impairments, capture: the crate `hoststack-net`.
pub use hoststack_net as net;

/// What an app is written against: the crate `hoststack-app`.
pub use hoststack_app as app;

/// TCP's configuration: the crate `hoststack-tcp`.
pub use hoststack_tcp as tcp;

pub use builder::{Builder, Stack};
pub use config::{BuildError, Bursts, InterfaceSpec, StackConfig};
pub use handle::{Requests, StackHandle, Stopped, Waiting};
pub use hoststack_session::SessionLimits;
pub use inspect::{Answer, CaptureError, CaptureSpec, Leaks, Query, TraceError, TraceSpec};
pub use messages::{Attached, EndHow};
pub use record::{Actor, RecordedStep, Recording};
pub use single::SingleThreaded;
pub use step::Step;
pub use stepped::Stepped;
