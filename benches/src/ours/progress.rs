//! What the apps on the stack's threads tell the driver: counters, and whether the work is done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Shared by the apps of a workload and its driver.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Operations the client app finished.
    pub(super) finished: Counter,
    /// Operations the server app saw the end of.
    pub(super) served: Counter,
    /// Connects that failed, sessions that were cut off.
    pub(super) failed: Counter,
    /// Payload bytes that reached the receiving app.
    pub(super) bytes: Counter,
    /// The driver's time ran out: begin nothing more.
    pub(super) stop: AtomicBool,
    done: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

/// A counter that one thread writes.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds; only one thread may.
    #[inline]
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed) + count, Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Progress {
    /// Before a run.
    pub(super) fn begin(&self) {
        self.stop.store(false, Relaxed);
        self.done.store(false, Relaxed);
    }

    /// The apps are done; wakes the driver.
    pub(super) fn finish(&self) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.done.store(true, Relaxed);
        drop(guard);
        self.wake.notify_all();
    }

    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Relaxed)
    }

    #[inline]
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Sleeps until done or `limit_seconds` have passed; says which.
    pub(super) fn wait(&self, limit_seconds: f64) -> bool {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = Duration::try_from_secs_f64(limit_seconds).unwrap_or(Duration::MAX);
        let waited = self.wake.wait_timeout_while(guard, limit, |()| !self.is_done());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.is_done()
    }
}
