//! Sleep and wake: a message made visible at any moment is not slept through.
//!
//! Seen to fail: the fence of `notify` or of `prepare_sleep` left out or weakened to `AcqRel`; the second look left out,
//! or taken before the flag is set; the event drained before the wait instead of after it.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};

use super::{Actor, check, run_thread, step, wake};

/// Counts that others raise without any ordering of their own: only the protocol's fences make them be seen in time.
fn count() -> Arc<AtomicUsize> {
    Arc::new(AtomicUsize::new(0))
}

#[test]
fn loom_messages_of_one_thread_are_not_slept_through() {
    check(Some(3), || {
        let (wake, messages) = (wake(), count());
        let sender = loom::thread::spawn({
            let (wake, messages) = (wake.clone(), messages.clone());
            move || {
                for n in 1..=2 {
                    messages.store(n, Ordering::Relaxed);
                    wake.notify();
                }
            }
        });
        let sleeper = Actor {
            state: 0,
            does: |seen: &mut usize| {
                let before = std::mem::replace(seen, messages.load(Ordering::Relaxed));
                step(*seen > before, *seen == 2)
            },
            looks: |&seen: &usize| messages.load(Ordering::Relaxed) > seen,
        };
        run_thread(sleeper, &wake);
        sender.join().unwrap();
    });
}

#[test]
fn loom_messages_of_two_threads_are_not_slept_through() {
    check(Some(3), || {
        let (wake, messages) = (wake(), [count(), count()]);
        let senders = messages.clone().map(|message| {
            let wake = wake.clone();
            loom::thread::spawn(move || {
                message.store(1, Ordering::Relaxed);
                wake.notify();
            })
        });
        let read = || messages.iter().map(|message| message.load(Ordering::Relaxed)).sum::<usize>();
        let sleeper = Actor {
            state: 0,
            does: |seen: &mut usize| {
                let before = std::mem::replace(seen, read());
                step(*seen > before, *seen == 2)
            },
            looks: |&seen: &usize| read() > seen,
        };
        run_thread(sleeper, &wake);
        for sender in senders {
            sender.join().unwrap();
        }
    });
}
