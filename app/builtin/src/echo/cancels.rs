//! Which connects the client cancels itself, and when.
//!
//! Both are drawn from the seed and the connect's number, so that they do not depend on which worker makes it. When is
//! counted in ticks of the object that made it: each of its callbacks, and a millisecond in which there is none. Delays
//! are spread evenly over their orders of magnitude: whatever a connect takes, some cancels come before its outcome,
//! some after.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hoststack_app::ConnectId;

use crate::echo::stream::scatter;

/// When a connect is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Right behind its request.
    AtOnce,
    /// So many ticks later, at least 1.
    After(u64),
}

/// What is drawn of a run's cancels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    share: f64,
    seed: u64,
    /// Delays are of less than 2 to this power ticks.
    delay_bits: u64,
    /// The connect that is spared.
    spared: Option<u32>,
}

/// Sets what is drawn for cancels apart from the sessions' bytes.
const SHARE_SALT: u64 = 0x6361_6e63_656c_0001;
const MOMENT_SALT: u64 = 0x6361_6e63_656c_0002;

impl Draw {
    /// Cancels `share` of the connects, never `spared`. An object has about `pending` of them without an outcome: its
    /// callbacks until one of them has its outcome are a few times as many.
    pub(super) fn new(share: f64, seed: u64, pending: u32, spared: Option<u32>) -> Draw {
        Draw { share, seed, delay_bits: u64::from(pending.max(1).ilog2()) + 4, spared }
    }

    /// When connect `number` is cancelled; `None`: never.
    pub(super) fn moment(&self, number: u32) -> Option<Moment> {
        if self.share <= 0.0 || self.spared == Some(number) {
            return None;
        }
        let drawn = (scatter(self.seed ^ SHARE_SALT, number) >> 11) as f64 / (1u64 << 53) as f64;
        if drawn >= self.share {
            return None;
        }
        let drawn = scatter(self.seed ^ MOMENT_SALT, number);
        if drawn & 1 == 0 {
            return Some(Moment::AtOnce);
        }
        let order = 1 << ((drawn >> 1) % self.delay_bits);
        Some(Moment::After(order + (drawn >> 32) % order))
    }
}

/// The connects that an object is yet to cancel. Which of them are over it does not know: cancelling one of those does
/// nothing.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    tick: u64,
    due: BinaryHeap<Reverse<(u64, ConnectId)>>,
}

impl Cancels {
    /// Puts a connect down for `ticks` from now.
    pub(super) fn add(&mut self, connect: ConnectId, ticks: u64) {
        self.due.push(Reverse((self.tick + ticks, connect)));
    }

    /// A tick has passed.
    pub(super) fn tick(&mut self) {
        self.tick += 1;
    }

    /// One whose time has come.
    pub(super) fn next_due(&mut self) -> Option<ConnectId> {
        let &Reverse((due, connect)) = self.due.peek()?;
        (due <= self.tick).then(|| {
            self.due.pop();
            connect
        })
    }

    /// Whether none is put down.
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTS: u32 = 20_000;

    fn moments(share: f64, seed: u64) -> Vec<Option<Moment>> {
        let draw = Draw::new(share, seed, 1024, None);
        (0..CONNECTS).map(|number| draw.moment(number)).collect()
    }

    #[test]
    fn the_share_is_met_and_half_of_it_is_at_once() {
        let drawn = moments(0.2, 7);
        let cancelled = drawn.iter().flatten().count();
        let at_once = drawn.iter().flatten().filter(|moment| **moment == Moment::AtOnce).count();
        assert!((3800..4200).contains(&cancelled), "{cancelled} of {CONNECTS}");
        assert!((1800..2200).contains(&at_once), "{at_once} of {cancelled}");
        assert_eq!(moments(0.0, 7).iter().flatten().count(), 0);
        assert_eq!(moments(1.0, 7).iter().flatten().count(), CONNECTS as usize);
    }

    #[test]
    fn each_order_of_magnitude_has_its_part_of_the_delays() {
        let mut orders = [0; 14];
        for moment in moments(1.0, 7).into_iter().flatten() {
            if let Moment::After(ticks) = moment {
                orders[ticks.ilog2() as usize] += 1;
            }
        }
        // 10 000 over 14 orders.
        assert!(orders.iter().all(|count| (600..850).contains(count)), "{orders:?}");
    }

    #[test]
    fn the_draw_repeats_and_another_seed_draws_otherwise() {
        assert_eq!(moments(0.5, 1), moments(0.5, 1));
        assert_ne!(moments(0.5, 1), moments(0.5, 2));
    }

    #[test]
    fn the_spared_connect_is_never_cancelled() {
        let draw = Draw::new(1.0, 3, 1, Some(5));
        assert_eq!((0..10).filter(|number| draw.moment(*number).is_none()).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn a_cancel_is_due_after_its_ticks_and_once() {
        let mut cancels = Cancels::default();
        let [soon, later] = [1, 2].map(|count| ConnectId::new(0, count));
        cancels.add(later, 2);
        cancels.add(soon, 1);
        assert_eq!(cancels.next_due(), None);
        cancels.tick();
        assert_eq!((cancels.next_due(), cancels.next_due()), (Some(soon), None));
        assert!(!cancels.is_empty());
        cancels.tick();
        assert_eq!((cancels.next_due(), cancels.next_due()), (Some(later), None));
        assert!(cancels.is_empty());
    }
}
