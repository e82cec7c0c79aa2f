//! What a thread measures of its own steps: how long they take, what share of the time it works, and where in a step the
//! time goes. Nothing here changes what a step does.

use hoststack_transport::{Histogram, Instant};

/// A clock for parts of a step, in nanoseconds from any moment on. Stacks that are stepped have none.
pub(crate) trait StageClock {
    fn nanos(&self) -> u64;
}

/// One in so many steps that do something is measured stage by stage: reading the clock a dozen times costs as much as
/// some packets.
const SAMPLED: u64 = 64;

/// Where the time of a step goes. Of the `N` stages of a step each calls [`Stages::passed`] at its end.
pub(crate) struct Stages<const N: usize> {
    clock: Option<Box<dyn StageClock>>,
    /// Steps so far that did something: which of them are measured is counted, not drawn.
    busy_steps: u64,
    is_sampling: bool,
    /// When the last stage ended.
    last_ns: u64,
    /// Of the step under way; counted if it does something.
    step_ns: [u64; N],
    total_ns: [u64; N],
    sampled: u64,
}

impl<const N: usize> Stages<N> {
    const fn new() -> Stages<N> {
        Stages {
            clock: None,
            busy_steps: 0,
            is_sampling: false,
            last_ns: 0,
            step_ns: [0; N],
            total_ns: [0; N],
            sampled: 0,
        }
    }

    /// From now on some steps are measured.
    pub(crate) fn measure_with(&mut self, clock: Box<dyn StageClock>) {
        self.clock = Some(clock);
    }

    /// A step begins.
    #[inline]
    pub(crate) fn begin(&mut self) {
        if let Some(clock) = &self.clock
            && self.busy_steps.is_multiple_of(SAMPLED)
        {
            self.is_sampling = true;
            self.step_ns = [0; N];
            self.last_ns = clock.nanos();
        }
    }

    /// A stage of the step has ended.
    #[inline]
    pub(crate) fn passed(&mut self, stage: usize) {
        if self.is_sampling {
            self.note(stage);
        }
    }

    #[cold]
    fn note(&mut self, stage: usize) {
        let Some(clock) = &self.clock else { return };
        let now = clock.nanos();
        if let Some(ns) = self.step_ns.get_mut(stage) {
            *ns += now.saturating_sub(self.last_ns);
        }
        self.last_ns = now;
    }

    /// The step has ended.
    #[inline]
    pub(crate) fn end(&mut self, worked: bool) {
        self.busy_steps += u64::from(worked);
        if self.is_sampling {
            self.is_sampling = false;
            if worked {
                self.sampled += 1;
                for (total, ns) in self.total_ns.iter_mut().zip(self.step_ns) {
                    *total += ns;
                }
            }
        }
    }

    /// Steps that did something.
    pub(crate) fn busy_steps(&self) -> u64 {
        self.busy_steps
    }

    /// Steps that were measured.
    pub(crate) fn sampled(&self) -> u64 {
        self.sampled
    }

    /// How long the stages of all measured steps took together, in nanoseconds.
    pub(crate) fn total_ns(&self) -> &[u64; N] {
        &self.total_ns
    }
}

/// The share of the time that a thread works. In millionths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    busy_us: u64,
    window_start: Instant,
    in_window_us: u64,
    /// Of whole windows, the newest for a quarter.
    recent: u64,
    has_recent: bool,
}

impl Load {
    const WINDOW_US: u64 = 1_000_000;

    /// `busy_us` of work ended at `now`.
    #[inline]
    fn add(&mut self, now: Instant, busy_us: u64) {
        if now.micros_since(self.window_start) >= Load::WINDOW_US {
            self.roll(now);
        }
        self.busy_us += busy_us;
        self.in_window_us += busy_us;
    }

    /// Windows have ended.
    fn roll(&mut self, now: Instant) {
        let windows = now.micros_since(self.window_start) / Load::WINDOW_US;
        if windows == 0 {
            return;
        }
        // A window is a million microseconds: what was worked in it is the share. A step that began before it counts here.
        let share = self.in_window_us.min(Load::WINDOW_US);
        self.recent = if self.has_recent { (self.recent * 3 + share) / 4 } else { share };
        self.has_recent = true;
        // After so many idle windows nothing is left of it.
        for _ in 1..windows.min(64) {
            self.recent = self.recent * 3 / 4;
        }
        self.in_window_us = 0;
        self.window_start = self.window_start.plus_micros(windows * Load::WINDOW_US);
    }

    /// Microseconds of work since the start.
    pub(crate) fn busy_us(&self) -> u64 {
        self.busy_us
    }

    /// Thousandths of the time since the stack's epoch.
    pub(crate) fn per_mille(&self, now: Instant) -> u32 {
        let share = u128::from(self.busy_us) * 1000 / u128::from(now.as_micros().max(1));
        share.min(1000) as u32 // fits
    }

    /// Thousandths of the last seconds: each whole second counts for a quarter of what those before it left. In the first
    /// second, of the time since the epoch.
    pub(crate) fn recent_per_mille(&self, now: Instant) -> u32 {
        let mut rolled = *self;
        rolled.roll(now);
        if !rolled.has_recent {
            return self.per_mille(now);
        }
        (rolled.recent / 1000) as u32 // a million at most
    }
}

/// All that a thread measures of its steps, of `N` stages each.
pub(crate) struct Pace<const N: usize> {
    /// How long steps took that did something, in microseconds. Empty in stacks that are stepped, whose time stands still
    /// in a step.
    pub(crate) steps: Histogram,
    pub(crate) load: Load,
    pub(crate) stages: Stages<N>,
    /// Times that the thread went to sleep.
    pub(crate) sleeps: u64,
}

impl<const N: usize> Pace<N> {
    pub(crate) fn new() -> Pace<N> {
        // Longer steps than 16 s share a bucket; it takes 5 KiB.
        Pace { steps: Histogram::below(1 << 24), load: Load::default(), stages: Stages::new(), sleeps: 0 }
    }

    /// A step that did something ended at `now`.
    pub(crate) fn note_step(&mut self, now: Instant, took_us: u64) {
        self.steps.record(took_us);
        self.load.add(now, took_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Ticks(Rc<Cell<u64>>);

    impl Ticks {
        fn pass(&self, ns: u64) {
            self.0.set(self.0.get() + ns);
        }
    }

    impl StageClock for Ticks {
        fn nanos(&self) -> u64 {
            self.0.get()
        }
    }

    fn step(stages: &mut Stages<2>, clock: &Ticks, ns: [u64; 2], worked: bool) {
        stages.begin();
        for (stage, ns) in ns.into_iter().enumerate() {
            clock.pass(ns);
            stages.passed(stage);
        }
        stages.end(worked);
    }

    #[test]
    fn one_in_64_busy_steps_is_measured_and_idle_ones_are_not() {
        let clock = Ticks::default();
        let mut stages = Stages::<2>::new();
        stages.measure_with(Box::new(clock.clone()));
        step(&mut stages, &clock, [5, 5], false);
        assert_eq!((stages.sampled(), *stages.total_ns()), (0, [0, 0]));
        step(&mut stages, &clock, [100, 200], true);
        assert_eq!((stages.sampled(), *stages.total_ns()), (1, [100, 200]));
        for _ in 0..63 {
            step(&mut stages, &clock, [7, 7], true);
        }
        step(&mut stages, &clock, [9, 9], false);
        step(&mut stages, &clock, [1, 2], true);
        assert_eq!((stages.sampled(), *stages.total_ns()), (2, [101, 202]));
        assert_eq!(stages.busy_steps(), 65);
    }

    #[test]
    fn without_a_clock_steps_are_counted_only() {
        let clock = Ticks::default();
        let mut stages = Stages::<2>::new();
        step(&mut stages, &clock, [100, 200], true);
        assert_eq!((stages.busy_steps(), stages.sampled(), *stages.total_ns()), (1, 0, [0, 0]));
    }

    #[test]
    fn load_is_the_share_of_all_time_and_of_the_last_seconds() {
        let second = |n: u64| Instant::from_micros(n * 1_000_000);
        let mut load = Load::default();
        load.add(Instant::from_micros(500_000), 250_000);
        // No whole second has passed.
        assert_eq!(load.recent_per_mille(Instant::from_micros(500_000)), 500);
        assert_eq!((load.per_mille(second(1)), load.recent_per_mille(second(1))), (250, 250));
        load.add(Instant::from_micros(1_900_000), 850_000);
        assert_eq!(load.recent_per_mille(second(2)), (250 * 3 + 850) / 4);
        // Idle: it fades, and asking changes nothing.
        assert_eq!(load.recent_per_mille(second(3)), 300);
        assert_eq!(load.recent_per_mille(second(200)), 0);
        assert_eq!((load.per_mille(second(11)), load.busy_us()), (100, 1_100_000));
    }

    #[test]
    fn a_step_longer_than_a_second_is_full_load_and_no_more() {
        let mut load = Load::default();
        load.add(Instant::from_micros(900_000), 5_000_000);
        assert_eq!(load.recent_per_mille(Instant::from_micros(1_000_000)), 1000);
        assert_eq!(load.per_mille(Instant::from_micros(1_000_000)), 1000);
    }

    #[test]
    fn durations_of_steps_are_counted() {
        let mut pace = Pace::<1>::new();
        for (now, took) in [(10, 10), (40, 20), (41, 1)] {
            pace.note_step(Instant::from_micros(now), took);
        }
        assert_eq!((pace.steps.count(), pace.steps.sum(), pace.steps.max()), (3, 31, 20));
        assert_eq!(pace.load.busy_us(), 31);
    }
}
