//! What stack handles may look at without asking main.
//!
//! The promise: a connect that a handle made with `Ok` is found by main while the app worker is still there. The
//! protocol: a handle looks the app worker up and sends its request under one read lock; main takes the app worker off
//! the list under the write lock and only then notes how far the queue goes. So whoever found it on the list has sent
//! already, and main frees the app worker's slot only when it has taken as many requests.

use std::collections::BTreeSet;

#[cfg(loom)]
use crate::sync::model::RwLock;
use crate::sync::{AtomicUsize, Ordering};
#[cfg(not(loom))]
use parking_lot::RwLock;

/// Main's lists that handles on other threads may read. A leaf lock: under it a handle only puts its request into a
/// queue that never blocks.
#[derive(Debug)]
pub(crate) struct Directory<K> {
    /// App workers that take requests.
    live: RwLock<BTreeSet<K>>,
    /// Connects made through stack handles without an outcome.
    pending: AtomicUsize,
    /// Origins given to stack handles so far.
    origins: AtomicUsize,
}

/// Why a handle's connect was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused<E> {
    /// As many connects are pending as there may be.
    TooManyPending,
    /// The app worker is not there, or is being detached.
    Detached,
    /// It could not be sent.
    Unsent(E),
}

impl<K> Default for Directory<K> {
    fn default() -> Directory<K> {
        Directory {
            live: RwLock::new(BTreeSet::new()),
            pending: AtomicUsize::new(0),
            origins: AtomicUsize::new(0),
        }
    }
}

impl<K: Ord> Directory<K> {
    /// The number of a new stack handle.
    pub(crate) fn next_origin(&self) -> usize {
        self.origins.fetch_add(1, Ordering::Relaxed)
    }

    /// On main: handles may connect for this app worker from now on.
    pub(crate) fn open(&self, app_worker: K) {
        self.live.write().insert(app_worker);
    }

    /// On main: handles may no longer connect for this app worker. Those that did have sent their requests: they are
    /// among those that `look` finds waiting. Returns what it found.
    pub(crate) fn close<T>(&self, app_worker: &K, look: impl FnOnce() -> T) -> T {
        self.live.write().remove(app_worker);
        look()
    }

    /// On any thread: counts a connect and has `send` put it into main's queue.
    ///
    /// # Errors
    /// See [`Refused`]; nothing was sent or counted then.
    pub(crate) fn admit<T, E>(
        &self,
        app_worker: &K,
        pending_max: usize,
        send: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Refused<E>> {
        self.pending
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pending| {
                (pending < pending_max).then_some(pending + 1)
            })
            .map_err(|_| Refused::TooManyPending)?;
        let live = self.live.read();
        let sent =
            if live.contains(app_worker) { send().map_err(Refused::Unsent) } else { Err(Refused::Detached) };
        drop(live);
        if sent.is_err() {
            self.settle();
        }
        sent
    }

    /// An admitted connect has its outcome.
    pub(crate) fn settle(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connects made through stack handles without an outcome.
    #[cfg(test)]
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_app_worker_is_taken_off_the_list_before_the_queue_is_looked_at() {
        let directory = Directory::default();
        directory.open(1);
        assert_eq!(directory.admit(&1, 10, || Ok::<_, ()>(())), Ok(()));
        let found = directory.close(&1, || directory.admit(&1, 10, || Ok::<_, ()>(())));
        assert_eq!(found, Err(Refused::Detached));
    }

    #[test]
    fn numbers_of_handles_differ() {
        let directory = Directory::<u32>::default();
        assert_ne!(directory.next_origin(), directory.next_origin());
    }

    #[test]
    fn a_refused_connect_is_not_counted() {
        let directory = Directory::default();
        directory.open(1);
        assert_eq!(directory.admit(&2, 1, || Ok::<_, ()>(())), Err(Refused::Detached));
        assert_eq!(directory.admit(&1, 1, || Err::<(), _>("full")), Err(Refused::Unsent("full")));
        assert_eq!(directory.admit(&1, 1, || Ok::<_, ()>(())), Ok(()));
        assert_eq!(directory.admit(&1, 1, || Ok::<_, ()>(())), Err(Refused::TooManyPending));
        assert_eq!(directory.pending(), 1);
        directory.settle();
        assert_eq!(directory.pending(), 0);
    }
}
