//! Counters with one writer: cheaper than a locked add, readable from any thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that one thread writes and any thread reads.
///
/// An app worker's object owns one set per worker, so that counting costs no more than a plain add.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`. Only ever called on the counter's one writing thread: two writers would lose counts.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Takes `amount` away, as [`Counter::add`] adds it.
    #[inline]
    pub(crate) fn sub(&self, amount: u64) {
        self.add(amount.wrapping_neg());
    }

    /// What was counted so far.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
