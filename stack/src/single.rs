//! A stack without threads: main and the workers as values, stepped by the caller, on real or virtual time.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use hoststack_app::{
    Application, AttachError, AttachOptions, CancelError, ConnectError, ConnectOptions, DetachError,
    DetachPolicy, DetachReport, ListenError, ListenOptions, WorkerDetachReport,
};
use hoststack_transport::{
    AppId, AppWorkerId, ConnectId, Duration, Instant, ListenerId, SessionHandle, WorkerId,
};

use crate::clock::Clock;
use crate::config::BuildError;
use crate::handle::{FromStopped, Requests, StackHandle, Stopped, Waiting};
use crate::inspect::{Answer, CaptureError, CaptureReport, CaptureSpec, Clear, Query, TraceError, TraceSpec};
use crate::messages::{Attached, EndHow, Request};
use crate::ping::{PingError, PingOptions, Pinging};
use crate::record::{RecordedStep, Recording};
use crate::step::Step;
use crate::stepped::Stepped;
use crate::wake::{Sleeper, Wake};

/// Where the time comes from.
enum Time {
    Real(Clock),
    Virtual(Instant),
}

/// A stack that its owner steps. Everything a thread would do happens inside [`SingleThreaded::step`].
///
/// Calls that need an answer (attach, listen, detach, inspect) step until it is there.
pub struct SingleThreaded {
    stepped: Stepped,
    /// Woken by other threads and by devices.
    wake: Arc<Wake>,
    sleeper: Sleeper,
    time: Time,
    /// Recorded steps to take instead of steps of its own.
    replay: Option<VecDeque<RecordedStep>>,
}

/// The most steps that a call waits for its answer while nothing at all happens: on virtual time waiting longer would
/// wait for ever.
const IDLE_STEPS_MAX: u32 = 1000;

impl SingleThreaded {
    /// `wake` is main's, which devices wake as well.
    pub(crate) fn new(stepped: Stepped, wake: Arc<Wake>, clock: Clock) -> Result<SingleThreaded, BuildError> {
        let sleeper =
            Sleeper::new(&wake, &stepped.wait_fds()).map_err(|error: io::Error| BuildError::System(error))?;
        Ok(SingleThreaded { stepped, wake, sleeper, time: Time::Real(clock), replay: None })
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

    /// Steps main and all workers once. In a replay: takes the next recorded step.
    pub fn step(&mut self) -> Step {
        if let Some(steps) = &mut self.replay {
            let Some(step) = steps.pop_front() else {
                return Step { stopped: true, ..Step::IDLE };
            };
            self.time = Time::Virtual(step.now);
            // The recording says what comes next, so there is always something to do.
            return Step { worked: true, ..self.stepped.replay(step) };
        }
        let now = self.now();
        let actors = self.stepped.actors();
        actors.map(|actor| self.stepped.step_awake(actor, now)).reduce(Step::and).unwrap_or(Step::IDLE)
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
        self.stepped.has_any_input()
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
        self.stepped.handle().clone()
    }

    /// Asserts what must hold between steps.
    ///
    /// # Panics
    /// With the broken invariant in words.
    pub fn check_consistency(&self) {
        self.stepped.check_consistency();
    }

    /// From now on TCP works by `config`, but for the limits of pools, which stay as the stack was built. Connections that
    /// are up keep what they took from it at their start; timers that run keep their deadlines. No step is recorded for it:
    /// a recording that spans a change does not replay.
    pub fn set_tcp_config(&mut self, config: hoststack_tcp::TcpConfig) {
        self.stepped.set_tcp_config(config);
    }

    /// Forgets what servers taught about Fast Open (RFC 7413 §4.1.3): the next connect asks for a cookie again.
    pub fn forget_servers(&mut self) {
        self.stepped.forget_servers();
    }

    // ---- Recording ----

    /// Starts recording: what each step finds, and a digest of every packet.
    pub fn record(&mut self) {
        self.stepped.record();
    }

    /// What was recorded since [`SingleThreaded::record`]; recording begins anew.
    pub fn take_recording(&mut self) -> Recording {
        self.stepped.take_recording()
    }

    /// From now on the steps are those of `recording`.
    pub(crate) fn start_replay(&mut self, recording: &Recording) {
        self.stepped.start_replay();
        self.replay = Some(recording.steps.iter().cloned().collect());
    }

    /// Takes what is left of the recorded steps, and returns the digest of all packets.
    pub fn finish_replay(&mut self) -> u64 {
        // A recording of threads ends with it; any other does not look for it.
        let _ = self.stepped.handle().send(Request::Stop);
        while self.replay.as_ref().is_some_and(|steps| !steps.is_empty()) {
            let _ = self.step();
        }
        self.stepped.digest()
    }

    // ---- What a stack handle offers, on this thread ----

    fn call<T: FromStopped>(&mut self, request: impl FnOnce(Requests<'_>) -> Waiting<T>) -> T {
        let waiting = request(self.stepped.handle().requests());
        self.wait(waiting).unwrap_or_else(T::stopped)
    }

    fn wait<T: FromStopped>(&mut self, mut answer: Waiting<T>) -> Option<T> {
        let mut idle = 0;
        loop {
            let step = self.step();
            if let Some(answer) = answer.try_take() {
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
        self.call(|requests| requests.attach(app, options))
    }

    /// See [`StackHandle::attach_worker`].
    ///
    /// # Errors
    /// No such application, no room.
    pub fn attach_worker(&mut self, app: AppId) -> Result<AppWorkerId, AttachError> {
        self.call(|requests| requests.attach_worker(app))
    }

    /// See [`StackHandle::detach`].
    ///
    /// # Errors
    /// It is not attached, or is being detached already.
    pub fn detach(&mut self, app: AppId, policy: DetachPolicy) -> Result<DetachReport, DetachError> {
        self.call(|requests| requests.detach(app, policy))
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
        self.call(|requests| requests.detach_worker(app_worker, policy))
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
        self.stepped.handle().connect(app_worker, options)
    }

    /// See [`StackHandle::connect_with`].
    ///
    /// # Errors
    /// What is known at once to be wrong; nothing follows then.
    pub fn connect_with(
        &mut self,
        app_worker: AppWorkerId,
        options: ConnectOptions,
        early_data: &[u8],
    ) -> Result<ConnectId, ConnectError> {
        self.stepped.handle().connect_with(app_worker, options, early_data)
    }

    /// See [`StackHandle::cancel`].
    ///
    /// # Errors
    /// It is not pending.
    pub fn cancel(&mut self, connect: ConnectId) -> Result<(), CancelError> {
        self.call(|requests| requests.cancel(connect))
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
        self.call(|requests| requests.listen(app_worker, options))
    }

    /// See [`StackHandle::unlisten`].
    ///
    /// # Errors
    /// It is no listener of that app worker.
    pub fn unlisten(&mut self, app_worker: AppWorkerId, listener: ListenerId) -> Result<(), ListenError> {
        self.call(|requests| requests.unlisten(app_worker, listener))
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
        self.stepped.handle().notify(app_worker, worker, message)
    }

    /// See [`StackHandle::end_session`].
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn end_session(&mut self, session: SessionHandle, how: EndHow) -> Result<(), Stopped> {
        self.stepped.handle().end_session(session, how)
    }

    /// See [`StackHandle::inspect`].
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn inspect(&mut self, what: Query) -> Result<Answer, Stopped> {
        self.call(|requests| requests.inspect(what))
    }

    /// See [`StackHandle::clear`].
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn clear(&mut self, what: Clear) -> Result<(), Stopped> {
        self.stepped.handle().clear(what)
    }

    /// See [`StackHandle::ping`]. Results come as the stack is stepped.
    ///
    /// # Errors
    /// What is wrong with the options, or as many pings are under way as may be.
    pub fn ping(&mut self, options: PingOptions) -> Result<Pinging, PingError> {
        self.call(|requests| requests.ping(options))
    }

    /// See [`StackHandle::trace_add`].
    ///
    /// # Errors
    /// A bad specification, too many traces.
    pub fn trace_add(&mut self, spec: TraceSpec) -> Result<(), TraceError> {
        let waiting = self.stepped.handle().requests().trace_add(spec)?;
        self.wait(waiting).unwrap_or(Err(TraceError::Stopped))
    }

    /// See [`StackHandle::trace_clear`].
    ///
    /// # Errors
    /// The stack has stopped.
    pub fn trace_clear(&mut self) -> Result<(), Stopped> {
        self.stepped.handle().trace_clear()
    }

    /// See [`StackHandle::pcap_start`].
    ///
    /// # Errors
    /// A file that cannot be created, a filter that nothing can pass, a capture that was not stopped.
    pub fn pcap_start(&mut self, spec: CaptureSpec) -> Result<(), CaptureError> {
        self.stepped.handle().pcap_start(spec)
    }

    /// See [`StackHandle::pcap_stop`].
    ///
    /// # Errors
    /// None runs.
    pub fn pcap_stop(&mut self) -> Result<CaptureReport, CaptureError> {
        let ending = self.stepped.handle().begin_pcap_stop()?;
        // With the answer every worker has heard that it is over.
        let _ = self.inspect(Query::Trace { limit: 0 });
        Ok(ending.finish())
    }

    /// See [`StackHandle::pcap`].
    pub fn pcap(&self) -> Option<CaptureReport> {
        self.stepped.handle().pcap()
    }

    /// Detaches every application. See [`crate::Stack::shutdown`].
    pub fn shutdown(mut self, policy: DetachPolicy) -> Vec<DetachReport> {
        let apps = self.inspect(Query::Summary).map(|answer| answer.apps).unwrap_or_default();
        apps.iter().filter_map(|app| self.detach(app.id, policy).ok()).collect()
    }
}
