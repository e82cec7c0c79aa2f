//! A channel with its outbox: nothing lost, order kept, and nobody sleeps while a batch waits that could move.
//!
//! Seen to fail: the fence of `can_flush` or of `take` left out, or `can_flush`'s weakened to `AcqRel`; `can_flush` not
//! saying that the sender waits, or not looking for room; `take` clearing the flag before it makes room, or not waking;
//! `flush` not waking; messages counted as sent after they were; no knell when the receiver ends. And the sender saying
//! that it waits when a flush fails instead of before it sleeps: the receiver, late from the batch before, answers a
//! sender that is still awake, and nobody answers the one that sleeps (needs three preemptions).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Actor, check, run_thread, spawn, step, wake};
use crate::channel::{Bound, Inbox, Outbox, channel};
use crate::threads::Stepper;

/// Sends `sent..end`, one message a step, and flushes once a step, as main and workers do. Stops when all is sent.
fn sender(outbox: Outbox<u32>, sent: u32, end: u32) -> impl Stepper {
    Actor {
        state: (outbox, sent),
        does: move |(outbox, next): &mut (Outbox<u32>, u32)| {
            let worked = *next < end;
            if worked {
                outbox.push(*next);
                *next += 1;
            }
            outbox.flush();
            let is_done = *next == end && outbox.waiting() == 0;
            if is_done {
                let counts = outbox.counts();
                assert!(counts.sent == u64::from(end) && counts.handled <= counts.sent, "{counts:?}");
            }
            step(worked, is_done)
        },
        looks: |(outbox, _): &(Outbox<u32>, u32)| outbox.can_flush(),
    }
}

/// Takes `0..end`, at most `batches_max` batches a step, and stops; tells how many it took.
fn receiver(inbox: Inbox<u32>, end: u32, batches_max: usize, took: Arc<AtomicU64>) -> impl Stepper {
    Actor {
        state: (inbox, 0),
        does: move |(inbox, next): &mut (Inbox<u32>, u32)| {
            let before = *next;
            for _ in 0..batches_max {
                let Some(mut batch) = inbox.take() else { break };
                for message in batch.drain(..) {
                    assert_eq!(message, *next, "in order, none lost, none twice");
                    *next += 1;
                }
                inbox.recycle(batch);
            }
            if *next > before {
                let counts = inbox.counts();
                assert_eq!(counts.handled, u64::from(*next));
                assert!(counts.sent >= counts.handled, "counted before it is seen: {counts:?}");
                took.store(counts.handled, Ordering::Relaxed);
            }
            step(*next > before, *next == end)
        },
        looks: |(inbox, _): &(Inbox<u32>, u32)| !inbox.is_empty(),
    }
}

fn one_way(bound: Bound, end: u32, batches_max: usize) {
    let (sender_wake, receiver_wake) = (wake(), wake());
    let (mut outbox, inbox) = channel(bound, sender_wake.clone(), receiver_wake.clone());
    // One is there from the start, so that preemptions are spent on what is interesting.
    outbox.push(0);
    outbox.flush();
    let took = Arc::new(AtomicU64::new(0));
    let receiving = spawn(receiver(inbox, end, batches_max, took.clone()), &receiver_wake);
    let sending = spawn(sender(outbox, 1, end), &sender_wake);
    sending.join().unwrap();
    receiving.join().unwrap();
    assert_eq!(took.load(Ordering::Relaxed), u64::from(end));
}

#[test]
fn loom_a_full_channel_loses_nothing_and_its_sender_is_woken() {
    check(Some(3), || one_way(Bound::Batches(1), 3, 1));
}

#[test]
fn loom_a_channel_of_two_batches_loses_nothing_and_its_sender_is_woken() {
    check(Some(2), || one_way(Bound::Batches(2), 3, 1));
}

#[test]
fn loom_an_unbounded_channel_loses_nothing() {
    check(Some(2), || one_way(Bound::Replay, 3, 2));
}

/// Both ways at once, each with room for one batch: commands, and a report for each command.
#[test]
fn loom_two_threads_with_full_channels_to_each_other_do_not_both_sleep() {
    const COMMANDS: u32 = 3;
    check(Some(2), || {
        let (main_wake, worker_wake) = (wake(), wake());
        let (commands_out, commands_in) =
            channel::<u32>(Bound::Batches(1), main_wake.clone(), worker_wake.clone());
        let (reports_out, reports_in) =
            channel::<u32>(Bound::Batches(1), worker_wake.clone(), main_wake.clone());
        type Ends = (Inbox<u32>, Outbox<u32>, u32);
        let worker = Actor {
            state: (commands_in, reports_out, 0),
            does: |(inbox, outbox, reported): &mut Ends| {
                let batch = inbox.take();
                let worked = batch.is_some();
                for command in batch.into_iter().flatten() {
                    outbox.push(command);
                    *reported += 1;
                }
                outbox.flush();
                step(worked, *reported == COMMANDS && outbox.waiting() == 0)
            },
            looks: |(inbox, outbox, _): &Ends| !inbox.is_empty() || outbox.can_flush(),
        };
        let main = Actor {
            state: (reports_in, commands_out, (0, 0)),
            does: |(inbox, outbox, (sent, reported)): &mut (Inbox<u32>, Outbox<u32>, (u32, u32))| {
                let batch = inbox.take();
                let mut worked = batch.is_some();
                for report in batch.into_iter().flatten() {
                    assert_eq!(report, *reported);
                    *reported += 1;
                }
                if *sent < COMMANDS {
                    outbox.push(*sent);
                    *sent += 1;
                    worked = true;
                }
                outbox.flush();
                step(worked, *reported == COMMANDS)
            },
            looks: |(inbox, outbox, _): &(Inbox<u32>, Outbox<u32>, (u32, u32))| {
                !inbox.is_empty() || outbox.can_flush()
            },
        };
        let working = spawn(worker, &worker_wake);
        run_thread(main, &main_wake);
        working.join().unwrap();
    });
}

#[test]
fn loom_a_sender_that_waits_for_room_learns_that_the_receiver_has_ended() {
    check(None, || {
        let (sender_wake, receiver_wake) = (wake(), wake());
        let (outbox, inbox) = channel(Bound::Batches(1), sender_wake.clone(), receiver_wake);
        let ending = loom::thread::spawn(move || drop(inbox));
        let sender = Actor {
            state: (outbox, 0),
            does: |(outbox, next): &mut (Outbox<u32>, u32)| {
                let worked = *next < 2;
                if worked {
                    outbox.push(*next);
                    *next += 1;
                }
                outbox.flush();
                step(worked, outbox.is_cut())
            },
            looks: |(outbox, _): &(Outbox<u32>, u32)| outbox.can_flush(),
        };
        run_thread(sender, &sender_wake);
        ending.join().unwrap();
    });
}
