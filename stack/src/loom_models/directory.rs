//! Handles against main: what was admitted is found by main while the app worker is there, and is counted.
//!
//! Seen to fail: the request sent after the read lock is given up; the mark noted before the app worker is taken off the
//! list; a refused connect that stays counted; the limit looked at apart from the counting.

use std::sync::Arc;

use super::{Actor, check, run_thread, step, wake};
use crate::directory::{Directory, Refused};
use crate::sync::queue::{Receiver, unbounded};

const APP_WORKER: u32 = 1;
const PENDING_MAX: usize = 8;

#[test]
fn loom_what_a_handle_admitted_is_taken_before_its_app_worker_is_freed() {
    check(None, || {
        let directory = Arc::new(Directory::default());
        let (sender, requests) = unbounded();
        directory.open(APP_WORKER);
        let handles = [0, 1].map(|_| {
            let (directory, sender) = (directory.clone(), sender.clone());
            loom::thread::spawn(move || {
                let admitted = directory.admit(&APP_WORKER, PENDING_MAX, || sender.send(()));
                assert!(matches!(admitted, Ok(()) | Err(Refused::Detached)), "{admitted:?}");
                usize::from(admitted.is_ok())
            })
        });
        let mut found = usize::from(requests.try_recv().is_ok());
        let end = found + directory.close(&APP_WORKER, || requests.len());
        while found < end {
            requests.try_recv().expect("what was seen to wait is there");
            found += 1;
        }
        // Here main frees the slot: whatever comes now would find it gone.
        let admitted: usize = handles.into_iter().map(|handle| handle.join().unwrap()).sum();
        assert!(requests.is_empty(), "a request came after its app worker was freed");
        assert_eq!(found, admitted);
        for _ in 0..found {
            directory.settle();
        }
        assert_eq!(directory.pending(), 0);
    });
}

#[test]
fn loom_connects_of_handles_wake_main_and_never_exceed_the_limit() {
    const LIMIT: usize = 1;
    check(Some(3), || {
        let directory = Arc::new(Directory::default());
        let (sender, requests) = unbounded();
        let main_wake = wake();
        directory.open(APP_WORKER);
        let handles = [0, 1].map(|_| {
            let (directory, sender, main_wake) = (directory.clone(), sender.clone(), main_wake.clone());
            loom::thread::spawn(move || {
                let sent = directory.admit(&APP_WORKER, LIMIT, || {
                    assert!(directory.pending() <= LIMIT, "it and nobody else");
                    sender.send(true)
                });
                if sent.is_err() {
                    assert_eq!(sent, Err(Refused::TooManyPending));
                    sender.send(false).unwrap();
                }
                main_wake.notify();
            })
        });
        let main = Actor {
            state: (requests, 0),
            does: |(requests, told): &mut (Receiver<bool>, usize)| {
                let before = *told;
                while let Ok(is_connect) = requests.try_recv() {
                    assert!(directory.pending() <= LIMIT);
                    if is_connect {
                        directory.settle();
                    }
                    *told += 1;
                }
                step(*told > before, *told == handles.len())
            },
            looks: |(requests, _): &(Receiver<bool>, usize)| !requests.is_empty(),
        };
        run_thread(main, &main_wake);
        for handle in handles {
            handle.join().unwrap();
        }
        assert_eq!(directory.pending(), 0);
    });
}
