//! A stack without threads: main and the workers as values, stepped by the caller, on real or virtual time.

use std::any::Any;
use std::io;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use hoststack_app::{
    Application, AttachError, AttachOptions, CancelError, ConnectError, ConnectOptions, DetachError,
    DetachPolicy, DetachReport, ListenError, ListenOptions, WorkerDetachReport,
};
use hoststack_transport::{
    AppId, AppWorkerId, ConnectId, Duration, Instant, ListenerId, SessionHandle, WorkerId,
};

use crate::clock::Clock;
use crate::config::BuildError;
use crate::handle::{FromStopped, StackHandle, Stopped};
use crate::inspect::{Answer, Query};
use crate::main_thread::{Main, MainSeed};
use crate::messages::{Attached, EndHow, Reply, Request};
use crate::record::Recording;
use crate::step::Step;
use crate::wake::{Sleeper, Wake};
use crate::worker::{Worker, WorkerSeed};

/// Where the time comes from.
enum Time {
    Real(Clock),
    Virtual(Instant),
}

/// A stack that its owner steps. Everything a thread would do happens inside [`SingleThreaded::step`].
///
/// Calls that need an answer (attach, listen, detach, inspect) step until it is there.
pub struct SingleThreaded {
    main: Main,
    workers: Vec<Worker>,
    handle: StackHandle,
    wake: Arc<Wake>,
    sleeper: Sleeper,
    time: Time,
    recording: Option<Recording>,
}

/// The most steps that a call waits for its answer while nothing at all happens: on virtual time waiting longer would
/// wait for ever.
const IDLE_STEPS_MAX: u32 = 1000;

impl SingleThreaded {
    pub(crate) fn new(
        main: MainSeed,
        workers: Vec<WorkerSeed>,
        handle: StackHandle,
        wake: Arc<Wake>,
        clock: Clock,
    ) -> Result<SingleThreaded, BuildError> {
        let mut workers: Vec<Worker> = workers.into_iter().map(Worker::new).collect();
        let waker = wake.clone();
        let notify: Arc<dyn Fn() + Send + Sync> = Arc::new(move || waker.notify());
        for worker in &mut workers {
            worker.set_notify(&notify);
        }
        let fds: Vec<_> = workers.iter().flat_map(Worker::wait_fds).collect();
        let sleeper = Sleeper::new(&wake, &fds).map_err(|error: io::Error| BuildError::System(error))?;
        Ok(SingleThreaded {
            main: Main::new(main),
            workers,
            handle,
            wake,
            sleeper,
            time: Time::Real(clock),
            recording: None,
        })
    }

    /// From now on the time is virtual: it stands still until [`SingleThreaded::advance`] or
    /// [`SingleThreaded::advance_to_deadline`] moves it.
    pub fn use_virtual_time(&mut self) {
        let now = self.now();
        self.time = Time::Virtual(now);
    }

    /// Like [`SingleThreaded::use_virtual_time`], from a given moment on.
    pub fn use_virtual_time_from(&mut self, now: Instant) {
        self.time = Time::Virtual(now);
    }

    /// The time.
    pub fn now(&self) -> Instant {
        match &self.time {
            Time::Real(clock) => clock.now(),
            Time::Virtual(now) => *now,
        }
    }

    /// Moves virtual time on. Does nothing on real time, which moves by itself.
    pub fn advance(&mut self, by: Duration) {
        if let Time::Virtual(now) = &mut self.time {
            *now = *now + by;
        }
    }

    /// Steps main and all workers once.
    pub fn step(&mut self) -> Step {
        let now = self.now();
        if let Some(recording) = &mut self.recording {
            recording.steps.push(now);
        }
        let mut step = self.main.step(now);
        for worker in &mut self.workers {
            step = step.and(worker.step(now));
        }
        step
    }

    /// Steps until there is nothing to do at the present time. Returns the last step.
    pub fn settle(&mut self) -> Step {
        loop {
            let step = self.step();
            if !step.worked && !self.has_input() {
                return step;
            }
        }
    }

    /// On virtual time: moves to the next deadline, if there is one at or before `latest`, else to `latest`. Says
    /// whether it was a deadline.
    pub fn advance_to_deadline(&mut self, latest: Instant) -> bool {
        let deadline = self.settle().next_deadline.filter(|deadline| *deadline <= latest);
        if let Time::Virtual(now) = &mut self.time {
            *now = (*now).max(deadline.unwrap_or(latest));
        }
        deadline.is_some()
    }

    /// Steps, jumping over idle time (virtual) or waiting (real), until `done` says so or `limit` has passed. Says
    /// whether `done` did.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut SingleThreaded) -> bool) -> bool {
        let end = self.now() + limit;
        loop {
            let step = self.step();
            if done(self) {
                return true;
            }
            if self.now() >= end {
                return false;
            }
            if step.worked || self.has_input() {
                continue;
            }
            if matches!(self.time, Time::Virtual(_)) {
                self.advance_to_deadline(end);
            } else {
                self.idle_wait(end - self.now());
            }
        }
    }

    fn has_input(&self) -> bool {
        self.main.has_input() || self.workers.iter().any(Worker::has_input)
    }

    /// On real time: sleeps until a packet, a message from another thread, or a deadline, at most `limit`. Returns at
    /// once if there is something to do.
    pub fn idle_wait(&mut self, limit: Duration) {
        let step = self.step();
        if step.worked {
            return;
        }
        let until = step.next_deadline.map_or(limit, |deadline| deadline.since(self.now()).min(limit));
        self.wake.prepare_sleep();
        if self.has_input() || until.is_zero() {
            self.wake.stay_awake();
        } else {
            self.sleeper.sleep(&self.wake, Some(until));
        }
    }

    /// A handle for other threads (its calls that wait must not be made on the thread that steps).
    pub fn handle(&self) -> StackHandle {
        self.handle.clone()
    }

    /// Asserts what must hold between steps.
    ///
    /// # Panics
    /// With the broken invariant in words.
    pub fn check_consistency(&self) {
        self.main.check_consistency();
        self.workers.iter().for_each(Worker::check_consistency);
    }

    // ---- Recording ----

    /// Starts recording: the time of each step, and a digest of every packet.
    pub fn record(&mut self) {
        self.recording = Some(Recording::default());
        self.workers.iter_mut().for_each(Worker::record);
    }

    /// What was recorded, and the digest.
    pub fn recorded(&mut self) -> (Recording, u64) {
        let digest = self.workers.iter().fold(0u64, |all, worker| all.rotate_left(7) ^ worker.digest());
        (self.recording.clone().unwrap_or_default(), digest)
    }

    /// Steps at the times of a recording of a like stack (same seed, configuration and apps), on virtual time.
    pub fn replay(&mut self, recording: &Recording) {
        for &now in &recording.steps {
            self.use_virtual_time_from(now);
            let _ = self.step();
        }
    }

    // ---- What a stack handle offers, on this thread ----

    fn call<T: FromStopped>(&mut self, request: impl FnOnce(Reply<T>) -> Request) -> T {
        match self.handle.ask(request) {
            Ok(answer) => self.wait(&answer).unwrap_or_else(T::stopped),
            Err(Stopped) => T::stopped(),
        }
    }

    fn wait<T>(&mut self, answer: &Receiver<T>) -> Option<T> {
        let mut idle = 0;
        loop {
            let step = self.step();
            if let Ok(answer) = answer.try_recv() {
                return Some(answer);
            }
            if step.stopped {
                return None;
            }
            if step.worked || self.has_input() {
                idle = 0;
                continue;
            }
            idle += 1;
            if matches!(self.time, Time::Virtual(_)) {
                match step.next_deadline {
                    // A far deadline is none: the answer would never come.
                    Some(deadline) if idle < IDLE_STEPS_MAX => {
                        self.advance_to_deadline(deadline);
                    }
                    _ => return None,
                }
            } else {
                self.idle_wait(Duration::from_millis(10));
            }
        }
    }

    /// See [`StackHandle::attach`].
    ///
    /// # Errors
    /// A taken or bad name, bad numbers, no room.
    pub fn attach(
        &mut self,
        app: impl Application + 'static,
        options: AttachOptions,
    ) -> Result<Attached, AttachError> {
        self.call(|reply| Request::Attach { app: Box::new(app), options, reply })
    }

    /// See [`StackHandle::attach_worker`].
    ///
    /// # Errors
    /// No such application, no room.
    pub fn attach_worker(&mut self, app: AppId) -> Result<AppWorkerId, AttachError> {
        self.call(|reply| Request::AttachWorker { app, reply })
    }

    /// See [`StackHandle::detach`].
    ///
    /// # Errors
    /// It is not attached, or is being detached already.
    pub fn detach(&mut self, app: AppId, policy: DetachPolicy) -> Result<DetachReport, DetachError> {
        self.call(|reply| Request::Detach { app, policy, reply })
    }

    /// See [`StackHandle::detach_worker`].
    ///
    /// # Errors
    /// It is not attached, or is being detached already.
    pub fn detach_worker(
        &mut self,
        app_worker: AppWorkerId,
        policy: DetachPolicy,
    ) -> Result<WorkerDetachReport, DetachError> {
        self.call(|reply| Request::DetachWorker { app_worker, policy, reply })
    }

    /// See [`StackHandle::connect`].
    ///
    /// # Errors
    /// What is known at once to be wrong; nothing follows then.
    pub fn connect(
        &mut self,
        app_worker: AppWorkerId,
        options: ConnectOptions,
    ) -> Result<ConnectId, ConnectError> {
        self.handle.connect(app_worker, options)
    }

    /// See [`StackHandle::cancel`].
    ///
    /// # Errors
    /// It is not pending.
    pub fn cancel(&mut self, connect: ConnectId) -> Result<(), CancelError> {
        self.call(|reply| Request::Cancel { connect, reply })
    }

    /// See [`StackHandle::listen`].
    ///
    /// # Errors
    /// A taken or bad endpoint, no such app worker, no room.
    pub fn listen(
        &mut self,
        app_worker: AppWorkerId,
        options: ListenOptions,
    ) -> Result<ListenerId, ListenError> {
        self.call(|reply| Request::Listen { app_worker, options: Box::new(options), reply })
    }

    /// See [`StackHandle::unlisten`].
    ///
    /// # Errors
    /// It is no listener of that app worker.
    pub fn unlisten(&mut self, app_worker: AppWorkerId, listener: ListenerId) -> Result<(), ListenError> {
        self.call(|reply| Request::Unlisten { app_worker, listener, reply })
    }

    /// See [`StackHandle::notify`].
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn notify(
        &mut self,
        app_worker: AppWorkerId,
        worker: WorkerId,
        message: Box<dyn Any + Send>,
    ) -> Result<(), Stopped> {
        self.handle.notify(app_worker, worker, message)
    }

    /// See [`StackHandle::end_session`].
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn end_session(&mut self, session: SessionHandle, how: EndHow) -> Result<(), Stopped> {
        self.handle.end_session(session, how)
    }

    /// See [`StackHandle::inspect`].
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn inspect(&mut self, what: Query) -> Result<Answer, Stopped> {
        let answer = self.handle.ask(|reply| Request::Inspect { what, reply })?;
        self.wait(&answer).ok_or(Stopped)
    }

    /// Detaches every application. See [`crate::Stack::shutdown`].
    pub fn shutdown(mut self, policy: DetachPolicy) -> Vec<DetachReport> {
        let apps = self.inspect(Query::Summary).map(|answer| answer.apps).unwrap_or_default();
        apps.iter().filter_map(|app| self.detach(app.id, policy).ok()).collect()
    }
}
