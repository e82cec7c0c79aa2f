//! A stress of connect lifecycles on real threads.
//!
//! A *slice* is one threaded stack for some hundred thousand connects: two routing domains joined by a wire, a server
//! application, several client applications of several app workers. Connects are made in callbacks on workers and by
//! two foreign threads; they are cancelled, given deadlines too short, sent where nobody is; sessions are echoed on,
//! closed and reset from both ends; callbacks panic; app workers and applications are detached and attached again,
//! listeners taken down and put up. Links, limits and tempers come from the seed. What the threads make of it does not
//! repeat: a seed repeats the conditions, not the run.
//!
//! `oracle` says what must hold (read it first), `apps`, `client` and `server` are the applications, `world`
//! draws the conditions, `conductor` does what comes from outside. [`run_slice`] runs one, and watches that it moves.

mod apps;
mod client;
mod conductor;
pub mod detach_latency;
mod oracle;
mod report;
mod server;
mod world;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use hoststack::{Query, StackHandle};
use hoststack_transport::Rng;
use rustix::time::{ClockId, clock_gettime};

pub use report::{Outcomes, Totals};

use crate::wait::Stopwatch;
use apps::{Shared, Tally};
use conductor::Conductor;
use oracle::Oracle;
use world::Plan;

/// How long a slice may stand still before it has failed. A machine may be busy; it is not busy for this long.
const STALLED: Duration = Duration::from_secs(180);
/// How long a stack that has stalled has to say how it is.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// A slice to run.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Where its conditions come from.
    pub seed: u64,
    /// Workers of its stack.
    pub workers: usize,
    /// Connects to make.
    pub connects: usize,
}

/// What was violated.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The slice.
    pub slice: Slice,
    /// Its conditions.
    pub conditions: String,
    /// What must not have been.
    pub violations: Vec<String>,
    /// What the stack said of itself when it had stalled.
    pub inspection: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Slice { seed, workers, connects } = self.slice;
        writeln!(f, "seed {seed}, {workers} workers, {connects} connects: {}", self.conditions)?;
        for violation in &self.violations {
            writeln!(f, "  violated: {violation}")?;
        }
        self.inspection.as_ref().map_or(Ok(()), |inspection| writeln!(f, "{inspection}"))
    }
}

impl std::error::Error for Failure {}

impl Slice {
    fn plan(&self) -> (Plan, Rng) {
        let mut rng = Rng::from_seed(self.seed);
        (Plan::draw(&mut rng, self.workers, self.connects), rng)
    }

    /// Its conditions in a line.
    #[must_use]
    pub fn conditions(&self) -> String {
        self.plan().0.sentence()
    }

    fn failure(&self, violations: Vec<String>, inspection: Option<String>) -> Failure {
        Failure { slice: *self, conditions: self.conditions(), violations, inspection }
    }
}

/// Runs a slice.
///
/// # Errors
/// Something that must hold did not, or nothing moved for minutes: then the slice's threads are left behind.
pub fn run_slice(slice: Slice) -> Result<Totals, Failure> {
    let (plan, mut rng) = slice.plan();
    let fail = |what: String| slice.failure(vec![what], None);
    let watch = Stopwatch::start();
    let cpu = cpu_seconds();
    let stack = plan.start().map_err(|error| fail(error.to_string()))?;
    let oracle = Oracle::new(slice.connects, slice.workers);
    let shared = Arc::new(Shared {
        oracle: oracle.clone(),
        temper: plan.temper,
        in_flight: plan.in_flight,
        tally: Tally::default(),
        seed: AtomicU64::new(rng.u64()),
    });
    let handle = stack.handle();
    let (done, end) = channel();
    let conducted = handle.clone();
    thread::Builder::new()
        .name("stress".to_owned())
        .spawn(move || {
            let result =
                Conductor::begin(conducted, plan, shared, rng).and_then(|conductor| conductor.run(stack));
            // Whoever waited has given up otherwise.
            let _ = done.send(result);
        })
        .map_err(|error| fail(error.to_string()))?;
    let mut last = (oracle.progress(), Stopwatch::start());
    let result = loop {
        match end.recv_timeout(Duration::from_millis(100)) {
            Ok(result) => break result,
            Err(RecvTimeoutError::Disconnected) => break Err("the conductor panicked".to_owned()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let progress = oracle.progress();
        if progress != last.0 {
            last = (progress, Stopwatch::start());
        } else if last.1.elapsed() > STALLED {
            let mut violations = oracle.violations();
            violations.push(format!("nothing has moved for {STALLED:?}"));
            return Err(slice.failure(violations, Some(last_words(handle))));
        }
    };
    let mut violations = oracle.violations();
    match result {
        Ok(mut totals) if violations.is_empty() => {
            totals.seconds = watch.elapsed().as_secs_f64();
            totals.cpu_seconds = cpu_seconds() - cpu;
            Ok(totals)
        }
        Ok(_) => Err(slice.failure(violations, None)),
        Err(error) => {
            violations.push(error);
            Err(slice.failure(violations, None))
        }
    }
}

/// What a stack that does not move says of itself, if it can.
fn last_words(handle: StackHandle) -> String {
    let (tell, told) = channel();
    let asking = thread::Builder::new().spawn(move || {
        let _ = tell.send(handle.inspect(Query::half_opens(10)));
    });
    match (asking, told.recv_timeout(LAST_WORDS)) {
        (Ok(_), Ok(answer)) => format!("{answer:#?}"),
        _ => format!("the stack does not answer within {LAST_WORDS:?}"),
    }
}

/// CPU seconds of the process so far.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
