//! The thread loops: step, spin shortly, then sleep until a message, a packet or a deadline. The only place where
//! threads are started and pinned.
#![allow(clippy::disallowed_methods)]

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use hoststack_transport::{Duration, Instant};
use rustix::thread::CpuSet;

use crate::clock::Clock;
use crate::main_thread::{Main, MainSeed};
use crate::step::Step;
use crate::wake::{Sleeper, Wake};
use crate::worker::{Worker, WorkerSeed};

/// Where threads run and how long they look before they sleep.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// Cores for main and the workers, in that order; empty: not pinned.
    cores: Vec<core_affinity::CoreId>,
    spin: Duration,
}

impl Placement {
    /// Pinned and spinning if there is a core for each thread; else neither, said once.
    pub(crate) fn choose(workers: usize, pin: bool, spin: Duration) -> Placement {
        let threads = workers + 1;
        let mut cores = core_affinity::get_core_ids().unwrap_or_default();
        if cores.len() < threads {
            tracing::info!(
                threads,
                cores = cores.len(),
                "fewer cores than threads: nothing is pinned, nothing spins"
            );
            return Placement { cores: Vec::new(), spin: Duration::ZERO };
        }
        cores.truncate(threads);
        Placement { cores: if pin { cores } else { Vec::new() }, spin }
    }

    /// The cores that workers are pinned to.
    pub(crate) fn worker_cores(&self) -> Vec<usize> {
        self.cores.iter().skip(1).map(|core| core.id).collect()
    }

    fn enter(&self, thread: usize) {
        if let Some(&core) = self.cores.get(thread)
            && !core_affinity::set_for_current(core)
        {
            tracing::warn!(thread, core = core.id, "the thread could not be pinned");
        }
    }
}

/// Keeps the calling thread off these cores; `false`: there are no others for it, or the system refuses.
pub(crate) fn keep_off(cores: &[usize]) -> bool {
    let Ok(mut allowed) = rustix::thread::sched_getaffinity(None) else { return false };
    cores.iter().filter(|&&core| core < CpuSet::MAX_CPU).for_each(|&core| allowed.unset(core));
    !cores.is_empty() && allowed.count() > 0 && rustix::thread::sched_setaffinity(None, &allowed).is_ok()
}

/// Starts a thread beside the stack's own, which the stack never waits for while it runs.
pub(crate) fn start_helper<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(work)
}

/// What the loop runs: main or a worker.
pub(crate) trait Stepper {
    fn step(&mut self, now: Instant) -> Step;
    fn has_input(&self) -> bool;
    fn note_sleep(&mut self) {}
    /// A step that did something ended at `now` after so many microseconds.
    fn note_step(&mut self, _now: Instant, _took_us: u64) {}
    /// The thread ends: what was recorded is handed in.
    fn hand_in(&mut self);
}

impl Stepper for Main {
    fn step(&mut self, now: Instant) -> Step {
        Main::step(self, now)
    }
    fn has_input(&self) -> bool {
        Main::has_input(self)
    }
    fn note_sleep(&mut self) {
        Main::note_sleep(self);
    }
    fn note_step(&mut self, now: Instant, took_us: u64) {
        Main::note_step(self, now, took_us);
    }
    fn hand_in(&mut self) {
        self.tape().hand_in(0);
    }
}

impl Stepper for Worker {
    fn step(&mut self, now: Instant) -> Step {
        Worker::step(self, now)
    }
    fn has_input(&self) -> bool {
        Worker::has_input(self)
    }
    fn note_sleep(&mut self) {
        Worker::note_sleep(self);
    }
    fn note_step(&mut self, now: Instant, took_us: u64) {
        Worker::note_step(self, now, took_us);
    }
    fn hand_in(&mut self) {
        Worker::hand_in(self);
    }
}

/// Starts main's thread.
///
/// # Errors
/// The system refuses a thread or a file descriptor.
pub(crate) fn start_main(
    seed: MainSeed,
    wake: Arc<Wake>,
    clock: Clock,
    placement: Placement,
) -> io::Result<JoinHandle<()>> {
    let fds: Vec<_> = seed.kernel.wait_fd().into_iter().collect();
    let sleeper = Sleeper::new(&wake, &fds)?;
    Builder::new().name("hoststack-main".into()).spawn(move || {
        placement.enter(0);
        let mut main = Main::new(seed);
        main.measure_stages(clock);
        run(main, &wake, sleeper, clock, placement.spin);
    })
}

/// Starts a worker's thread.
///
/// # Errors
/// The system refuses a thread or a file descriptor.
pub(crate) fn start_worker(
    seed: WorkerSeed,
    wake: Arc<Wake>,
    clock: Clock,
    placement: Placement,
) -> io::Result<JoinHandle<()>> {
    let number = seed.id.index();
    let ports = seed.ports.iter().filter_map(|port| port.queue.wait_fd());
    let fds: Vec<_> = ports.chain(seed.transports.kernel.wait_fd()).collect();
    let sleeper = Sleeper::new(&wake, &fds)?;
    Builder::new().name(format!("hoststack-w{number}")).spawn(move || {
        placement.enter(number + 1);
        let mut worker = Worker::new(seed);
        worker.measure_stages(clock);
        let waker = wake.clone();
        let notify: Arc<dyn Fn() + Send + Sync> = Arc::new(move || waker.notify());
        worker.set_notify(&notify);
        run(worker, &wake, sleeper, clock, placement.spin);
    })
}

pub(crate) fn run(mut stepper: impl Stepper, wake: &Wake, sleeper: Sleeper, clock: Clock, spin: Duration) {
    // When the last step began after which more was likely to follow.
    let mut lingers_since: Option<Instant> = None;
    // When the step before this one began, if it did something.
    let mut worked_since: Option<Instant> = None;
    loop {
        let now = clock.now();
        // The next step follows at once, so what lies between them is how long it took: no clock is read for it.
        if let Some(began) = worked_since.take() {
            stepper.note_step(now, now.micros_since(began));
        }
        let step = stepper.step(now);
        if step.stopped {
            return stepper.hand_in();
        }
        if step.lingers {
            lingers_since = Some(now);
        }
        if step.worked {
            worked_since = Some(now);
            continue;
        }
        if lingers_since.is_some_and(|since| now - since < spin) {
            std::hint::spin_loop();
            continue;
        }
        let timeout = step.next_deadline.map(|deadline| deadline.since(clock.now()));
        if timeout == Some(Duration::ZERO) {
            continue;
        }
        wake.prepare_sleep();
        // The second look: a message that became visible before the flag did would wake nobody.
        if stepper.has_input() {
            wake.stay_awake();
            continue;
        }
        stepper.note_sleep();
        sleeper.sleep(wake, timeout);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Works once, is idle `idle` times, and then ends.
    struct Once<'a> {
        lingers: bool,
        steps: u32,
        idle: u32,
        sleeps: &'a Cell<u32>,
        wake: &'a Wake,
    }

    impl Stepper for Once<'_> {
        fn step(&mut self, _now: Instant) -> Step {
            self.steps += 1;
            let worked = self.steps == 1;
            Step { worked, lingers: worked && self.lingers, stopped: self.steps > self.idle, ..Step::IDLE }
        }
        fn has_input(&self) -> bool {
            false
        }
        fn note_sleep(&mut self) {
            self.sleeps.set(self.sleeps.get() + 1);
            self.idle = 0;
            self.wake.notify();
        }
        fn hand_in(&mut self) {}
    }

    fn sleeps_after_work(lingers: bool) -> u32 {
        let wake = Wake::new().unwrap();
        let sleeper = Sleeper::new(&wake, &[]).unwrap();
        let sleeps = Cell::new(0);
        let stepper = Once { lingers, steps: 0, idle: 1000, sleeps: &sleeps, wake: &wake };
        run(stepper, &wake, sleeper, Clock::start(), Duration::from_secs(3600));
        sleeps.get()
    }

    #[test]
    fn a_thread_looks_for_more_after_traffic_and_sleeps_after_an_answer() {
        assert_eq!(sleeps_after_work(true), 0);
        assert_eq!(sleeps_after_work(false), 1);
    }
}
