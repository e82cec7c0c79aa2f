//! Models of what two threads share: loom runs them in every order that the memory model allows.
//!
//! The code is the production's: `threads::run`, `wake`, `channel`, `directory`. Only what loom cannot run has a
//! stand-in (`sync/model.rs`). A thread that sleeps for ever is a deadlock, which loom reports. Each file says which
//! breakages of the protocol its models were seen to find.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p hoststack --lib --target-dir target/loom loom_`

mod channel;
mod directory;
mod statistics;
mod wake;

use std::sync::Arc;

use hoststack_transport::{Duration, Instant};
use loom::thread::JoinHandle;

use crate::clock::Clock;
use crate::step::Step;
use crate::threads::{Stepper, run};
use crate::wake::{Sleeper, Wake};

/// Runs a model; `preemptions` bounds how often a thread is interrupted (none: every order is tried).
fn check(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Runs a stepper as its own thread does: step, look again, sleep.
fn run_thread(stepper: impl Stepper, wake: &Arc<Wake>) {
    let sleeper = Sleeper::new(wake, &[]).unwrap();
    run(stepper, wake, sleeper, Clock::start(), Duration::ZERO);
}

fn spawn(stepper: impl Stepper + 'static, wake: &Arc<Wake>) -> JoinHandle<()> {
    let wake = wake.clone();
    loom::thread::spawn(move || run_thread(stepper, &wake))
}

fn wake() -> Arc<Wake> {
    Arc::new(Wake::new().unwrap())
}

/// The result of a model's step.
fn step(worked: bool, stopped: bool) -> Step {
    Step { worked, lingers: worked, stopped, ..Step::IDLE }
}

/// A stepper from two closures: what it does, and its second look.
struct Actor<S, D, L> {
    state: S,
    does: D,
    looks: L,
}

impl<S, D: FnMut(&mut S) -> Step, L: Fn(&S) -> bool> Stepper for Actor<S, D, L> {
    fn step(&mut self, _now: Instant) -> Step {
        (self.does)(&mut self.state)
    }

    fn has_input(&self) -> bool {
        (self.looks)(&self.state)
    }

    fn hand_in(&mut self) {}
}
