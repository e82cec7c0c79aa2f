//! How many objects on many workers divide one list of connects.
//!
//! Connects are numbered. Any object may [`Plan::claim`] the next number, and does so when it is attached and when
//! something ends on it; so the list advances wherever outcomes arrive, and no object ever has to tell another one
//! anything. Two limits hold: numbers below the end of the wave only, and at most `pending_max` under way.
//!
//! Both limits are decided by one atomic word, so nobody takes a place for a moment and gives it back: whoever frees a
//! place sees it free, or someone else has taken it for good. Without that a claim could fail on a place that nobody
//! uses, and the list would stand still.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A list of `total` numbered connects, taken in waves.
#[derive(Debug)]
pub(crate) struct Plan {
    total: u32,
    wave_size: u32,
    pending_max: u32,
    /// High half: numbers claimed. Low half: claims that were freed. The difference is under way.
    taken: AtomicU64,
    /// Numbers below it may be claimed. Only moved by the one who completes the wave.
    wave_end: AtomicU32,
    /// Numbers from it on may not be claimed for now. Only ever moved to the end.
    pause_at: AtomicU32,
    /// Numbers that are done for their wave.
    done: AtomicU32,
}

/// What [`Plan::complete`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Completed {
    /// Others of the wave are under way.
    One,
    /// The wave was completed; the next one may be claimed from.
    Wave,
    /// Every number is done.
    All,
}

impl Plan {
    /// `total` numbers in `waves` waves of about equal size, at most `pending_max` under way. Both at least 1.
    pub(crate) fn new(total: u32, waves: u32, pending_max: u32) -> Plan {
        let wave_size = total.div_ceil(waves.max(1)).max(1);
        Plan {
            total,
            wave_size,
            pending_max: pending_max.max(1),
            taken: AtomicU64::new(0),
            wave_end: AtomicU32::new(wave_size.min(total)),
            pause_at: AtomicU32::new(u32::MAX),
            done: AtomicU32::new(0),
        }
    }

    /// With numbers from `pause_at` on kept back until [`Plan::resume`].
    pub(crate) fn pausing_at(self, pause_at: u32) -> Plan {
        Plan { pause_at: AtomicU32::new(pause_at), ..self }
    }

    /// Ends the pause, if it was reached. Whoever calls this goes on to claim, or attaches someone who does.
    pub(crate) fn resume(&self) {
        let claimed = halves(self.taken.load(Ordering::Acquire)).0;
        if claimed >= self.pause_at.load(Ordering::Acquire) {
            self.pause_at.store(u32::MAX, Ordering::Release);
        }
    }

    /// The next number, if there is one in this wave and before the pause, and not too many are under way.
    pub(crate) fn claim(&self) -> Option<u32> {
        let end = self.wave_end.load(Ordering::Acquire).min(self.pause_at.load(Ordering::Acquire));
        let claim = |taken: u64| {
            let (claimed, freed) = halves(taken);
            (claimed < end && claimed - freed < self.pending_max).then_some(taken + (1 << 32))
        };
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, claim).ok().map(|taken| halves(taken).0)
    }

    /// A claimed number is under way no more.
    pub(crate) fn free(&self) {
        // Never overflows into the high half: each number is freed once, after it was claimed.
        self.taken.fetch_add(1, Ordering::AcqRel);
    }

    /// A freed number is done for its wave. Whoever completes a wave goes on to claim from the next.
    pub(crate) fn complete(&self) -> Completed {
        let done = self.done.fetch_add(1, Ordering::AcqRel) + 1;
        let wave_end = self.wave_end.load(Ordering::Acquire);
        if done == self.total {
            Completed::All
        } else if done == wave_end {
            self.wave_end.store(wave_end.saturating_add(self.wave_size).min(self.total), Ordering::Release);
            Completed::Wave
        } else {
            Completed::One
        }
    }

    /// How many numbers one of `objects` objects claims at first, so that all of them take part.
    pub(crate) fn first_share(&self, objects: u32) -> u32 {
        self.wave_size.min(self.pending_max).div_ceil(objects.max(1))
    }

    /// Whether every number is done.
    pub(crate) fn is_complete(&self) -> bool {
        self.done.load(Ordering::Acquire) == self.total
    }
}

fn halves(taken: u64) -> (u32, u32) {
    ((taken >> 32) as u32, taken as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wave_is_claimed_only_after_the_one_before_is_done() {
        let plan = Plan::new(5, 2, 100);
        assert_eq!(std::iter::from_fn(|| plan.claim()).collect::<Vec<_>>(), [0, 1, 2]);
        (0..3).for_each(|_| plan.free());
        assert_eq!(plan.claim(), None);
        assert_eq!((plan.complete(), plan.complete()), (Completed::One, Completed::One));
        assert_eq!(plan.complete(), Completed::Wave);
        assert_eq!(std::iter::from_fn(|| plan.claim()).collect::<Vec<_>>(), [3, 4]);
        assert_eq!((plan.complete(), plan.complete()), (Completed::One, Completed::All));
        assert!(plan.is_complete());
    }

    #[test]
    fn no_more_than_the_limit_are_under_way() {
        let plan = Plan::new(10, 1, 2);
        assert_eq!((plan.claim(), plan.claim(), plan.claim()), (Some(0), Some(1), None));
        plan.free();
        assert_eq!((plan.claim(), plan.claim()), (Some(2), None));
    }

    #[test]
    fn numbers_behind_a_pause_wait_for_its_end() {
        let plan = Plan::new(6, 2, 100).pausing_at(2);
        plan.resume();
        assert_eq!((plan.claim(), plan.claim(), plan.claim()), (Some(0), Some(1), None), "not reached yet");
        plan.free();
        assert_eq!(plan.complete(), Completed::One);
        assert_eq!(plan.claim(), None);
        plan.resume();
        assert_eq!((plan.claim(), plan.claim()), (Some(2), None), "the wave's limit holds");
    }

    #[test]
    fn an_empty_plan_is_complete_from_the_start() {
        let plan = Plan::new(0, 3, 1);
        assert!(plan.is_complete());
        assert_eq!(plan.claim(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn every_number_is_claimed_once_in_order_and_the_plan_ends(
            total in 1u32..200, waves in 1u32..20, pending_max in 1u32..50, order in any::<u64>(),
        ) {
            let plan = Plan::new(total, waves, pending_max);
            let mut chance = order;
            let (mut under_way, mut undone, mut next, mut ended) = (0u32, 0u32, 0, false);
            while !ended {
                while let Some(number) = plan.claim() {
                    prop_assert_eq!(number, next);
                    next += 1;
                    under_way += 1;
                    prop_assert!(under_way <= pending_max);
                }
                chance = chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                if under_way > 0 && (undone == 0 || chance >> 63 == 0) {
                    plan.free();
                    under_way -= 1;
                    undone += 1;
                } else {
                    prop_assert!(undone > 0, "the plan stands still at {} of {}", next, total);
                    undone -= 1;
                    ended = plan.complete() == Completed::All;
                }
            }
            prop_assert_eq!(next, total);
            prop_assert!(plan.is_complete());
        }
    }

    #[test]
    fn threads_that_share_a_plan_never_leave_it_standing() {
        let plan = Plan::new(20_000, 7, 1);
        let (sender, receiver) = crossbeam_channel::unbounded::<u32>();
        // A message is a number under way; whoever takes it ends it and claims what it may.
        plan.claim().into_iter().for_each(|number| sender.send(number).unwrap());
        let work = || {
            while let Ok(number) = receiver.recv_timeout(std::time::Duration::from_secs(20)) {
                let claim_all = || {
                    while let Some(number) = plan.claim() {
                        sender.send(number).unwrap();
                    }
                };
                if number == u32::MAX {
                    break;
                }
                plan.free();
                claim_all();
                if plan.complete() == Completed::All {
                    (0..3).for_each(|_| sender.send(u32::MAX).unwrap());
                }
                claim_all();
            }
        };
        std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(work))));
        assert!(plan.is_complete());
    }
}
