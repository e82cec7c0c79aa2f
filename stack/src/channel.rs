//! Batched channels between two threads that never lose a control message and never block.
//!
//! A sender stages messages and flushes them once per step as one vector; emptied vectors come back to be used again.
//! When the channel is full the staged vector simply stays and grows: it is the outbox. It is bounded because each
//! half-open, session and listener has at most one message of a kind outstanding.
//!
//! A sender that sleeps while its outbox is not empty is woken by the receiver that makes room. The protocol is that of
//! `wake`, the other way round: the sender says that it sleeps, says that it waits for room, fences, and looks for room;
//! the receiver makes room, fences, and looks whether the sender waits. That the sender waits is said only then, never
//! when a flush fails: the receiver would answer while the sender is still awake, and it answers once.

use std::cell::Cell;
use std::sync::Arc;

use hoststack_transport::canary::{self, Bug};

use crate::sync::queue::{Receiver, Sender, TryRecvError, TrySendError, bounded, unbounded};
use crate::sync::{AtomicBool, AtomicU64, Ordering, fence};
use crate::wake::Wake;

/// What both ends know of a channel.
#[derive(Debug, Default)]
struct Shared {
    /// The sender is about to sleep and wants to be woken when there is room.
    blocked: AtomicBool,
    sent: AtomicU64,
    handled: AtomicU64,
}

/// The sending end.
pub(crate) struct Outbox<T> {
    staged: Vec<T>,
    batches: Sender<Vec<T>>,
    spent: Receiver<Vec<T>>,
    receiver: Arc<Wake>,
    shared: Arc<Shared>,
    is_cut: bool,
    /// The most messages that ever waited here after a flush.
    staged_max: usize,
}

/// The receiving end.
pub(crate) struct Inbox<T> {
    batches: Receiver<Vec<T>>,
    spent: Sender<Vec<T>>,
    /// After `batches`: fields are dropped in this order.
    sender: Knell,
    shared: Arc<Shared>,
    /// The most batches that were ever found waiting.
    batches_max: Cell<usize>,
}

/// Wakes the sender when the receiver's thread ends, so that it does not sleep for room that nobody makes.
struct Knell(Arc<Wake>);

impl Drop for Knell {
    fn drop(&mut self) {
        // A model that has failed takes no further steps.
        if cfg!(loom) && std::thread::panicking() {
            return;
        }
        self.0.notify();
    }
}

/// Messages of one channel: sent = handled + waiting (invariant 4 of the design).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChannelCounts {
    pub(crate) sent: u64,
    pub(crate) handled: u64,
}

/// How many vectors may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// At most so many; the rest waits with the sender.
    Batches(usize),
    /// No bound: a replay sends and takes exactly what was recorded.
    Replay,
}

/// A channel from the thread that `sender` wakes to the one `receiver` wakes.
pub(crate) fn channel<T>(bound: Bound, sender: Arc<Wake>, receiver: Arc<Wake>) -> (Outbox<T>, Inbox<T>) {
    /// Emptied vectors that are kept where there is no bound.
    const SPENT_REPLAY: usize = 64;
    let ((batches_tx, batches_rx), spent) = match bound {
        Bound::Batches(batches) => (bounded(batches), batches),
        Bound::Replay => (unbounded(), SPENT_REPLAY),
    };
    let (spent_tx, spent_rx) = bounded(spent);
    let shared = Arc::new(Shared::default());
    (
        Outbox {
            staged: Vec::new(),
            batches: batches_tx,
            spent: spent_rx,
            receiver,
            shared: shared.clone(),
            is_cut: false,
            staged_max: 0,
        },
        Inbox {
            batches: batches_rx,
            spent: spent_tx,
            sender: Knell(sender),
            shared,
            batches_max: Cell::new(0),
        },
    )
}

impl<T> Outbox<T> {
    /// Stages a message; [`Outbox::flush`] sends it.
    pub(crate) fn push(&mut self, message: T) {
        self.staged.push(message);
    }

    /// Messages that wait here: not zero after a flush means that the channel is full.
    pub(crate) fn waiting(&self) -> usize {
        self.staged.len()
    }

    /// The most messages that ever waited here because the channel was full.
    pub(crate) fn waiting_max(&self) -> usize {
        self.staged_max
    }

    /// Sends what is staged as one batch and wakes the receiver. Says whether it did: when the channel is full all stays
    /// staged, to be tried again in the next step; see [`Outbox::can_flush`] for when to sleep.
    pub(crate) fn flush(&mut self) -> bool {
        if self.staged.is_empty() {
            return false;
        }
        let empty = self.spent.try_recv().unwrap_or_default();
        let batch = std::mem::replace(&mut self.staged, empty);
        let count = batch.len() as u64;
        // Counted before it is visible, so that handled never exceeds sent.
        self.shared.sent.fetch_add(count, Ordering::Relaxed);
        match self.batches.try_send(batch) {
            Ok(()) => {
                self.receiver.notify();
                true
            }
            Err(TrySendError::Full(batch)) => {
                self.shared.sent.fetch_sub(count, Ordering::Relaxed);
                if canary::has(Bug::DroppedWhenFull) {
                    return false;
                }
                self.staged = batch;
                self.staged_max = self.staged_max.max(self.staged.len());
                false
            }
            Err(TrySendError::Disconnected(_)) => {
                self.shared.sent.fetch_sub(count, Ordering::Relaxed);
                self.is_cut = true;
                false
            }
        }
    }

    /// Whether something waits here that can be sent now. The second look before sleeping: if not, the receiver wakes
    /// this thread as soon as there is room.
    pub(crate) fn can_flush(&self) -> bool {
        if self.staged.is_empty() {
            return false;
        }
        self.shared.blocked.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        !self.batches.is_full()
    }

    /// Whether the receiver was found gone: its thread has ended.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Messages sent and handled so far.
    pub(crate) fn counts(&self) -> ChannelCounts {
        self.shared.counts()
    }
}

impl Shared {
    fn counts(&self) -> ChannelCounts {
        let handled = self.handled.load(Ordering::Relaxed);
        ChannelCounts { sent: self.sent.load(Ordering::Relaxed), handled }
    }
}

impl<T> Inbox<T> {
    /// The next batch, if one waits. Give the vector back with [`Inbox::recycle`].
    pub(crate) fn take(&mut self) -> Option<Vec<T>> {
        match self.batches.try_recv() {
            Ok(batch) => {
                self.shared.handled.fetch_add(batch.len() as u64, Ordering::Relaxed);
                // The room is there; now look whether the sender waits for it.
                fence(Ordering::SeqCst);
                if !canary::has(Bug::AsleepBesideOutbox)
                    && self.shared.blocked.load(Ordering::Relaxed)
                    && self.shared.blocked.swap(false, Ordering::AcqRel)
                {
                    self.sender.0.notify();
                }
                Some(batch)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    /// Gives an emptied vector back to the sender.
    pub(crate) fn recycle(&mut self, mut spent: Vec<T>) {
        /// A vector that once held a storm is not kept.
        const KEPT_MAX: usize = 4096;
        spent.clear();
        if spent.capacity() <= KEPT_MAX {
            // A full return channel only means that the vector is freed here.
            let _ = self.spent.try_send(spent);
        }
    }

    /// Messages sent and handled so far.
    pub(crate) fn counts(&self) -> ChannelCounts {
        self.shared.counts()
    }

    /// Batches that wait now, at least; more may arrive meanwhile.
    pub(crate) fn available(&self) -> usize {
        // Mostly nothing does, and that is cheaper to see than how many.
        if self.batches.is_empty() {
            return 0;
        }
        let count = self.batches.len();
        self.batches_max.set(self.batches_max.get().max(count));
        count
    }

    /// The most batches that [`Inbox::available`] ever found.
    pub(crate) fn available_max(&self) -> usize {
        self.batches_max.get()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn pair(batches: usize) -> (Outbox<u32>, Inbox<u32>) {
        channel(Bound::Batches(batches), Arc::new(Wake::new().unwrap()), Arc::new(Wake::new().unwrap()))
    }

    fn drain(inbox: &mut Inbox<u32>) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some(mut batch) = inbox.take() {
            all.append(&mut batch);
            inbox.recycle(batch);
        }
        all
    }

    #[test]
    fn a_full_channel_keeps_messages_in_order_in_the_outbox() {
        let (mut out, mut inbox) = pair(2);
        for n in 0..10 {
            out.push(n);
            out.flush();
        }
        assert_eq!((out.waiting(), out.waiting_max()), (8, 8));
        assert_eq!((inbox.available(), inbox.available_max()), (2, 2));
        assert_eq!(drain(&mut inbox), [0, 1]);
        assert!(out.flush());
        assert_eq!(drain(&mut inbox), (2..10).collect::<Vec<_>>());
        assert_eq!(out.counts(), ChannelCounts { sent: 10, handled: 10 });
    }

    #[test]
    fn a_receiver_that_is_gone_is_noticed() {
        let (mut out, inbox) = pair(1);
        drop(inbox);
        out.push(1);
        assert!(!out.flush());
        assert!(out.is_cut());
        assert_eq!(out.waiting(), 0);
    }

    #[test]
    fn the_receiver_wakes_a_sender_that_sleeps_for_room() {
        let sender = Arc::new(Wake::new().unwrap());
        let (mut out, mut inbox) = channel(Bound::Batches(1), sender.clone(), Arc::new(Wake::new().unwrap()));
        out.push(1);
        out.flush();
        out.push(2);
        assert!(!out.flush());
        sender.prepare_sleep();
        assert!(!out.can_flush(), "it may sleep");
        inbox.take().unwrap();
        assert!(!sender.is_sleeping(), "taking a batch woke the sender");
        assert!(out.can_flush());
    }

    #[test]
    fn a_sender_with_an_empty_outbox_asks_for_no_call() {
        let sender = Arc::new(Wake::new().unwrap());
        let (mut out, mut inbox) = channel(Bound::Batches(1), sender.clone(), Arc::new(Wake::new().unwrap()));
        out.push(1);
        out.flush();
        sender.prepare_sleep();
        assert!(!out.can_flush());
        inbox.take().unwrap();
        assert!(sender.is_sleeping());
    }

    #[test]
    fn a_receiver_that_ends_wakes_a_sender_that_sleeps_for_room() {
        let sender = Arc::new(Wake::new().unwrap());
        let (mut out, inbox) = channel(Bound::Batches(1), sender.clone(), Arc::new(Wake::new().unwrap()));
        out.push(1);
        out.flush();
        out.push(2);
        sender.prepare_sleep();
        assert!(!out.can_flush());
        drop(inbox);
        assert!(!sender.is_sleeping());
        out.flush();
        assert!(out.is_cut());
    }
}
