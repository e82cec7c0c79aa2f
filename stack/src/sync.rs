//! What threads share is built from what is named here, so that the same code runs in production and in models.
//!
//! Normally these are the standard library's atomics and crossbeam's channels. Under `cfg(loom)` they are loom's, and
//! `model` stands in for what loom cannot run: channels, eventfds, parking_lot's locks. Loom then runs the code in every
//! order of its steps that the memory model allows (`docs/TESTING.md`, Models).

#[cfg(loom)]
pub(crate) mod model;

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

/// Queues between threads: FIFO, never blocking.
pub(crate) mod queue {
    #[cfg(not(loom))]
    pub(crate) use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded, unbounded};

    #[cfg(loom)]
    pub(crate) use super::model::{Receiver, Sender, bounded, unbounded};
    #[cfg(loom)]
    pub(crate) use crossbeam_channel::{TryRecvError, TrySendError};
}
