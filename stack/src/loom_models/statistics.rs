//! What main reads of a worker's statistics: values that were stored, never going back, at most one step old when a
//! report of that worker is taken.
//!
//! Seen to fail: the same claim without the step of age (a step's statistics are stored after its report is sent).

use std::sync::Arc;

use super::{check, wake};
use crate::channel::{Bound, channel};
use crate::sync::Ordering;
use crate::worker::WorkerStats;

#[test]
fn loom_statistics_do_not_go_back_and_are_at_most_a_step_older_than_a_report() {
    check(None, || {
        let stats = Arc::new(WorkerStats::default());
        let (mut reports, mut inbox) = channel::<usize>(Bound::Replay, wake(), wake());
        let worker = loom::thread::spawn({
            let stats = stats.clone();
            move || {
                for sessions in 1..=3 {
                    // As a step ends.
                    reports.push(sessions);
                    reports.flush();
                    stats.sessions.store(sessions, Ordering::Relaxed);
                }
            }
        });
        let mut last = 0;
        for _ in 0..2 {
            let reported = inbox.take().map_or(0, |batch| batch[0]);
            let sessions = stats.sessions.load(Ordering::Relaxed);
            assert!(sessions >= last, "from {last} back to {sessions}");
            assert!(sessions + 1 >= reported, "{sessions} with report {reported}");
            last = sessions;
        }
        worker.join().unwrap();
        assert_eq!(stats.sessions.load(Ordering::Relaxed), 3);
    });
}
