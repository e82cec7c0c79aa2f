//! The seeded simulator: worlds of stacks, wires, faults and wild apps, drawn from a number and replayed by it.
//!
//! Main and the workers of every stack are stepped one by one, in an order and at times that the seed picks, and only
//! when the threads' own protocol of sleeping and waking lets them, so that a wake-up that is lost shows. In phase one
//! things break; in phase two they heal, everything must end, and nothing may be left.
//!
//! Read `world` (what is drawn), `schedule` (the loop and the phases), `pokes` (what happens from outside),
//! `behave` and `talk` (the apps), `oracle` and `wire_oracle` (what must be true), `meddler` and `villain`
//! (who breaks things), `coverage` (what has happened). `docs/TESTING.md` says how to run it.

mod behave;
mod coverage;
pub(crate) mod dice;
mod faults;
mod hub;
mod meddler;
mod options;
mod oracle;
mod packets;
mod pokes;
mod range;
mod schedule;
mod streams;
mod talk;
mod villain;
mod wire_oracle;
mod world;

use std::fmt;
use std::sync::Once;

pub use coverage::Coverage;
pub use range::{Totals, fresh_seed, run_range};

/// How to run a world.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Steps after which phase one ends, whatever has happened.
    pub steps: u64,
    /// Prints every step, segment, callback and action.
    pub trace: bool,
    /// Counts transitions and actions for the coverage tables.
    pub coverage: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { steps: 100_000, trace: false, coverage: false }
    }
}

/// What happened in a world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its seed.
    pub seed: u64,
    /// Steps of mains and workers.
    pub steps: u64,
    /// Virtual time, in microseconds.
    pub time_us: u64,
    /// Callbacks made.
    pub callbacks: u64,
    /// Connects made.
    pub connects: u64,
    /// Of them, those that came up.
    pub established: u64,
    /// Sessions announced.
    pub sessions: u64,
    /// How often each kind of fault struck, by name.
    pub faults: Vec<(&'static str, u64)>,
    /// Of all events in their order.
    pub digest: u64,
    /// The tables, if they were asked for.
    pub coverage: Option<Box<Coverage>>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The world.
    pub seed: u64,
    /// The step of it.
    pub step: u64,
    /// Virtual time, in microseconds.
    pub time_us: u64,
    /// What is wrong, in words.
    pub what: String,
    /// What was drawn.
    pub draw: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { seed, step, time_us, what, draw } = self;
        writeln!(f, "seed {seed}, step {step}, {time_us} us: {what}")?;
        writeln!(f, "the world: {draw}")?;
        write!(f, "replay: cargo run --release -p hoststack-tests --bin sim -- --seed {seed} --trace")
    }
}

/// Keeps the panic hook quiet about simulated panics. All others are printed as before.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<behave::SimPanic>() {
                before(info);
            }
        }));
    });
}

/// Runs the world of a seed. The same seed gives the same run.
///
/// In a rare world its limits leave too little to happen: it is run all the same, and then another of that seed.
///
/// # Errors
/// The first thing that must not be.
pub fn run(seed: u64, options: &Options) -> Result<Summary, Violation> {
    /// Far more than is ever needed: one world in some thousand is too quiet.
    const WORLDS_MAX: u64 = 16;
    quiet_panics();
    let mut summary = run_world(seed, 0, options)?;
    for number in 1..WORLDS_MAX {
        if summary.connects >= schedule::CONNECTS_MIN && summary.faults.len() >= schedule::FAULTS_MIN {
            break;
        }
        summary = run_world(seed, number, options)?;
    }
    Ok(summary)
}

/// Runs a world of a seed, of which only the first is used but for quiet ones.
fn run_world(seed: u64, number: u64, options: &Options) -> Result<Summary, Violation> {
    let mut world = world::World::build(seed ^ (number << 48), options.trace, options.coverage);
    if options.trace {
        println!("seed {seed}\nthe world: {}", world.draw);
    }
    let result = world.run(options.steps);
    let mut s = world.hub.lock();
    s.oracle.is_over = true;
    let names = faults::Fault::NAMES.into_iter().zip(s.strikes.counts().iter().copied());
    let summary = Summary {
        seed,
        steps: world.steps,
        time_us: world.now_us,
        callbacks: s.callbacks,
        connects: s.oracle.requested,
        established: s.oracle.told[0],
        sessions: s.oracle.sessions.len() as u64,
        faults: names.filter(|(_, count)| *count > 0).collect(),
        digest: s.digest,
        coverage: s.coverage.take(),
    };
    drop(s);
    match result {
        Ok(()) => Ok(summary),
        Err(what) => Err(Violation {
            seed,
            step: world.steps,
            time_us: world.now_us,
            what,
            draw: std::mem::take(&mut world.draw),
        }),
    }
}
