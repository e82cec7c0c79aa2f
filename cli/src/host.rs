//! A stack with threads or without (`--workers 0`), behind one face.

use std::time::Duration;

use hoststack::app::{
    AppId, AppWorkerId, Application, AttachError, AttachOptions, DetachError, DetachPolicy, DetachReport,
};
use hoststack::{Answer, Attached, BuildError, Builder, Query, SingleThreaded, Stack, StackHandle, Stopped};

use crate::error::CliError;

/// How often a condition is looked at while other threads work: what a person does not notice.
const LOOK: Duration = Duration::from_millis(20);

/// How long a stack whose apps are gone may take until nothing is held: what is under way between its threads, and
/// last acknowledgments that were lost on the way.
const SETTLE: Duration = Duration::from_secs(10);

/// A running stack.
pub(crate) enum Host {
    /// Main and workers on threads.
    Threads {
        /// Kept for its threads: they end when it is dropped.
        _stack: Stack,
        /// How they are asked.
        handle: StackHandle,
    },
    /// Stepped here.
    Single(Box<SingleThreaded>),
}

/// Forwards a call to whichever there is.
macro_rules! forward {
    ($self:ident, $stack:ident => $call:expr) => {
        match $self {
            Host::Threads { handle: $stack, .. } => $call,
            Host::Single($stack) => $call,
        }
    };
}

impl Host {
    /// Starts a stack of `workers` worker threads; 0: none, the calling thread steps it.
    ///
    /// # Errors
    /// What the builder says.
    pub(crate) fn start(builder: Builder, workers: usize) -> Result<Host, BuildError> {
        if workers == 0 {
            return Stack::single_threaded(builder.workers(1)).map(|stack| Host::Single(Box::new(stack)));
        }
        builder.workers(workers).start().map(Host::threads)
    }

    /// A stack that runs already.
    pub(crate) fn threads(stack: Stack) -> Host {
        let handle = stack.handle();
        Host::Threads { _stack: stack, handle }
    }

    /// See [`StackHandle::attach`].
    pub(crate) fn attach(
        &mut self,
        app: impl Application + 'static,
        options: AttachOptions,
    ) -> Result<Attached, AttachError> {
        forward!(self, stack => stack.attach(app, options))
    }

    /// See [`StackHandle::attach_worker`].
    pub(crate) fn attach_worker(&mut self, app: AppId) -> Result<AppWorkerId, AttachError> {
        forward!(self, stack => stack.attach_worker(app))
    }

    /// See [`StackHandle::detach`].
    pub(crate) fn detach(&mut self, app: AppId, policy: DetachPolicy) -> Result<DetachReport, DetachError> {
        forward!(self, stack => stack.detach(app, policy))
    }

    /// See [`StackHandle::inspect`].
    pub(crate) fn inspect(&mut self, query: Query) -> Result<Answer, Stopped> {
        forward!(self, stack => stack.inspect(query))
    }

    /// Works until `done` says so; it is asked every so often. `wake` is a channel whose message ends a wait early.
    pub(crate) fn run_until<T>(
        &mut self,
        wake: &crossbeam_channel::Receiver<T>,
        mut done: impl FnMut() -> bool,
    ) {
        while !done() {
            match self {
                Host::Threads { .. } => wait(wake, LOOK),
                Host::Single(stack) => {
                    // A burst of steps between two looks, which are not free. Only a stack that did nothing at all
                    // since the last look may sleep.
                    if !stack.step().worked {
                        stack.idle_wait(LOOK);
                    }
                    for _ in 0..64 {
                        if !stack.step().worked {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// What the stack holds once nothing is under way any more: asks until nothing is held, for a few seconds at most.
    ///
    /// # Errors
    /// The stack has stopped.
    pub(crate) fn quiescent(&mut self) -> Result<Answer, Stopped> {
        let nobody = crossbeam_channel::never::<()>();
        for _ in 0..SETTLE.as_millis() / LOOK.as_millis() {
            let answer = self.inspect(Query::Summary)?;
            if answer.leaks.is_clean() {
                return Ok(answer);
            }
            let mut looks = 0;
            self.run_until(&nobody, || {
                looks += 1;
                looks > 1
            });
        }
        self.inspect(Query::Summary)
    }
}

/// Whose fault it is that there is no stack.
pub(crate) fn not_built(error: BuildError) -> CliError {
    match error {
        BuildError::BadWorkers(_)
        | BuildError::ZeroLimit(_)
        | BuildError::BadChunk(_)
        | BuildError::TooManyEvents(_)
        | BuildError::Route(_) => CliError::usage(error),
        BuildError::Device { .. } | BuildError::System(_) => CliError::failed(error),
    }
}

/// Sleeps until a message waits in `wake`, or for `limit`. The message stays: whoever wants it takes it.
fn wait<T>(wake: &crossbeam_channel::Receiver<T>, limit: Duration) {
    let mut select = crossbeam_channel::Select::new();
    select.recv(wake);
    let _ = select.ready_timeout(limit);
}
