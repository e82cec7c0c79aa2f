//! Main and the workers as values that are stepped one by one, in any order and at any times: what
//! [`crate::SingleThreaded`] is made of, and what a simulator drives so that every interleaving of messages can occur.

use std::os::fd::RawFd;
use std::sync::Arc;

use hoststack_transport::{AllocationPoint, Instant, WorkerId};

use crate::handle::StackHandle;
use crate::main_thread::{Main, MainSeed};
use crate::record::{Actor, RecordedStep, Recorder, Recording, Tape};
use crate::step::Step;
use crate::wake::Wake;
use crate::worker::{Worker, WorkerSeed};

/// A stack whose actors are stepped one by one.
///
/// After a step that found nothing to do an actor sleeps, by the protocol of the threads: flag, second look. It is awake
/// again when a message or a packet for it wakes it, which [`Stepped::is_asleep`] tells; the caller steps it then, or at
/// the deadline that its step named, or earlier if it likes.
pub struct Stepped {
    main: Main,
    workers: Vec<Worker>,
    handle: StackHandle,
    /// Main's first.
    wakes: Vec<Arc<Wake>>,
    recorder: Option<Arc<Recorder>>,
}

impl Stepped {
    /// `device_wake`: what a packet for any worker wakes; `None`: that worker.
    pub(crate) fn new(
        main: MainSeed,
        workers: Vec<WorkerSeed>,
        handle: StackHandle,
        wakes: Vec<Arc<Wake>>,
        device_wake: Option<&Arc<Wake>>,
    ) -> Stepped {
        let mut workers: Vec<Worker> = workers.into_iter().map(Worker::new).collect();
        for (worker, wake) in workers.iter_mut().zip(&wakes[1..]) {
            let waker = device_wake.unwrap_or(wake).clone();
            let notify: Arc<dyn Fn() + Send + Sync> = Arc::new(move || waker.notify());
            worker.set_notify(&notify);
        }
        Stepped { main: Main::new(main), workers, handle, wakes, recorder: None }
    }

    /// Main, then the workers.
    pub fn actors(&self) -> impl Iterator<Item = Actor> + use<> {
        let workers = (0..self.workers.len()).map(|worker| Actor::Worker(WorkerId(worker as u8)));
        std::iter::once(Actor::Main).chain(workers)
    }

    fn wake(&self, actor: Actor) -> &Wake {
        &self.wakes[match actor {
            Actor::Main => 0,
            Actor::Worker(worker) => worker.index() + 1,
        }]
    }

    /// One step of one actor.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn step(&mut self, actor: Actor, now: Instant) -> Step {
        self.wake(actor).stay_awake();
        let step = self.step_awake(actor, now);
        if !step.worked {
            self.wake(actor).prepare_sleep();
            if self.has_input(actor) {
                self.wake(actor).stay_awake();
            }
        }
        step
    }

    /// One step without going to sleep after it.
    pub(crate) fn step_awake(&mut self, actor: Actor, now: Instant) -> Step {
        match actor {
            Actor::Main => self.main.step(now),
            Actor::Worker(worker) => self.workers[worker.index()].step(now),
        }
    }

    /// Whether the actor sleeps: it has nothing to do until its deadline, as far as it knows.
    pub fn is_asleep(&self, actor: Actor) -> bool {
        self.wake(actor).is_sleeping()
    }

    fn has_input(&self, actor: Actor) -> bool {
        match actor {
            Actor::Main => self.main.has_input(),
            Actor::Worker(worker) => self.workers[worker.index()].has_input(),
        }
    }

    /// Whether anything waits for anyone.
    pub(crate) fn has_any_input(&self) -> bool {
        self.main.has_input() || self.workers.iter().any(Worker::has_input)
    }

    pub(crate) fn wait_fds(&self) -> Vec<RawFd> {
        self.main.wait_fd().into_iter().chain(self.workers.iter().flat_map(Worker::wait_fds)).collect()
    }

    /// For requests. Its calls that wait must not be made on the thread that steps; see [`StackHandle::requests`].
    pub fn handle(&self) -> &StackHandle {
        &self.handle
    }

    /// Asserts what must hold between steps.
    ///
    /// # Panics
    /// With the broken invariant in words.
    pub fn check_consistency(&self) {
        self.main.check_consistency();
        self.workers.iter().for_each(Worker::check_consistency);
    }

    /// A simulated fault: from now on all allocations at `point` are refused, or no longer so. (The pool of half-open
    /// sessions of an app worker that is attached later is not among them.)
    pub fn set_refusing(&mut self, point: AllocationPoint, refusing: bool) {
        self.main.set_refusing(point, refusing);
        self.workers.iter_mut().for_each(|worker| worker.set_refusing(point, refusing));
    }

    pub(crate) fn set_tcp_config(&mut self, config: hoststack_tcp::TcpConfig) {
        self.main.set_tcp_config(config);
        self.workers.iter_mut().for_each(|worker| worker.set_tcp_config(config));
    }

    pub(crate) fn forget_servers(&mut self) {
        self.main.forget_servers();
    }

    // ---- Recording ----

    pub(crate) fn record(&mut self) {
        let recorder = Arc::new(Recorder::default());
        *self.main.tape() = Tape::recording(&recorder, Actor::Main);
        for (number, worker) in self.workers.iter_mut().enumerate() {
            *worker.tape() = Tape::recording(&recorder, Actor::Worker(WorkerId(number as u8)));
            worker.start_digest();
        }
        self.recorder = Some(recorder);
    }

    /// What was recorded so far; recording begins anew.
    pub(crate) fn take_recording(&mut self) -> Recording {
        let Some(recorder) = self.recorder.take() else { return Recording::default() };
        self.main.tape().hand_in(0);
        self.workers.iter_mut().for_each(Worker::hand_in);
        let recording = recorder.recording();
        self.record();
        recording
    }

    pub(crate) fn start_replay(&mut self) {
        self.workers.iter_mut().for_each(Worker::start_digest);
    }

    /// Takes a recorded step again.
    pub(crate) fn replay(&mut self, step: RecordedStep) -> Step {
        let (actor, now) = (step.actor, step.now);
        let tape = match actor {
            Actor::Main => self.main.tape(),
            Actor::Worker(worker) => self.workers[worker.index()].tape(),
        };
        tape.load(step);
        self.step_awake(actor, now)
    }

    pub(crate) fn digest(&self) -> u64 {
        crate::record::combine(self.workers.iter().map(Worker::digest))
    }
}

impl std::fmt::Debug for Stepped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stepped").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}
