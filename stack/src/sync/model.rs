//! Stand-ins for what loom cannot run: crossbeam's channels, an eventfd with its epoll, parking_lot's lock.
//!
//! A stand-in promises no more than the original does, or a model would prove too much. The queue orders memory by its
//! two counters alone, one released where a value goes in and one where it comes out, and each may be seen late; its
//! slots lie under a lock that loom does not know and that is never held across a step of the model.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as PlainCount, Ordering as PlainOrdering};
use std::sync::{Mutex as PlainMutex, MutexGuard as PlainGuard};
use std::time::Duration;

use crossbeam_channel::{SendError, TryRecvError, TrySendError};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};

struct Queue<T> {
    capacity: usize,
    pushed: AtomicUsize,
    popped: AtomicUsize,
    slots: PlainMutex<VecDeque<T>>,
    senders: PlainCount,
}

/// The receiver is gone: a bit of `pushed`, as in crossbeam.
const GONE: usize = 1 << (usize::BITS - 1);

impl<T> Queue<T> {
    /// Never contended: no step of the model happens while it is held.
    fn slots(&self) -> PlainGuard<'_, VecDeque<T>> {
        self.slots.try_lock().expect("no other thread of the model runs meanwhile")
    }

    fn len(&self) -> usize {
        let popped = self.popped.load(Ordering::Acquire);
        let pushed = self.pushed.load(Ordering::Acquire);
        // With the receiver, what waited for it is gone.
        if pushed & GONE != 0 { 0 } else { pushed - popped }
    }
}

/// The sending end of a queue.
pub(crate) struct Sender<T>(Arc<Queue<T>>);

/// The receiving end of a queue.
pub(crate) struct Receiver<T>(Arc<Queue<T>>);

/// A queue of at most `capacity` values.
pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let queue = Arc::new(Queue {
        capacity,
        pushed: AtomicUsize::new(0),
        popped: AtomicUsize::new(0),
        slots: PlainMutex::new(VecDeque::new()),
        senders: PlainCount::new(1),
    });
    (Sender(queue.clone()), Receiver(queue))
}

/// A queue without a limit.
pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

impl<T> Sender<T> {
    pub(crate) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let mut pushed = self.0.pushed.load(Ordering::Relaxed);
        loop {
            if pushed & GONE != 0 {
                return Err(TrySendError::Disconnected(value));
            }
            // Ours may be older than another sender's who has seen more popped.
            if pushed.saturating_sub(self.0.popped.load(Ordering::Acquire)) >= self.0.capacity {
                return Err(TrySendError::Full(value));
            }
            match self.0.pushed.compare_exchange(pushed, pushed + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => pushed = now,
            }
        }
        self.0.slots().push_back(value);
        Ok(())
    }

    pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.try_send(value).map_err(|error| SendError(error.into_inner()))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= self.0.capacity
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.senders.fetch_add(1, PlainOrdering::Relaxed);
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.senders.fetch_sub(1, PlainOrdering::Relaxed);
    }
}

impl<T> Receiver<T> {
    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        // Only this end writes it.
        let popped = self.0.popped.load(Ordering::Relaxed);
        if self.0.pushed.load(Ordering::Acquire) == popped {
            let gone = self.0.senders.load(PlainOrdering::Relaxed) == 0;
            return Err(if gone { TryRecvError::Disconnected } else { TryRecvError::Empty });
        }
        self.0.popped.store(popped + 1, Ordering::Release);
        Ok(self.0.slots().pop_front().expect("what was counted in is there"))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // A model that has failed takes no further steps.
        if !std::thread::panicking() {
            self.0.pushed.fetch_or(GONE, Ordering::AcqRel);
        }
    }
}

/// Stands for an eventfd: a count that a write raises and a read takes.
#[derive(Debug)]
pub(crate) struct Event {
    count: Mutex<u64>,
    raised: Condvar,
}

impl Event {
    pub(crate) fn new() -> io::Result<Event> {
        Ok(Event { count: Mutex::new(0), raised: Condvar::new() })
    }

    pub(crate) fn raise(&self) {
        *self.count.lock().expect("loom's locks are not poisoned") += 1;
        self.raised.notify_one();
    }

    pub(crate) fn drain(&self) {
        *self.count.lock().expect("loom's locks are not poisoned") = 0;
    }
}

/// Stands for epoll on one [`Event`], level-triggered, without devices or time-outs.
pub(crate) struct Poller;

impl Poller {
    pub(crate) fn new(_event: &Event, fds: &[RawFd]) -> io::Result<Poller> {
        assert!(fds.is_empty(), "a model has no devices");
        Ok(Poller)
    }

    /// Waits until the event is raised. If nobody ever raises it, loom finds the deadlock.
    pub(crate) fn wait(&self, event: &Event, timeout: Option<Duration>) -> Woken {
        assert!(timeout.is_none(), "a model has no time");
        let mut count = event.count.lock().expect("loom's locks are not poisoned");
        while *count == 0 {
            count = event.raised.wait(count).expect("loom's locks are not poisoned");
        }
        Woken { by_event: true, by_device: false }
    }
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Woken {
    pub(crate) by_event: bool,
    pub(crate) by_device: bool,
}

/// A lock that is taken as parking_lot's is.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> RwLock<T> {
        RwLock(loom::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> loom::sync::RwLockReadGuard<'_, T> {
        self.0.read().expect("loom's locks are not poisoned")
    }

    pub(crate) fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
        self.0.write().expect("loom's locks are not poisoned")
    }
}
