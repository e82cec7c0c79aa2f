//! Many worlds, on two threads: worlds know nothing of each other.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Coverage, Options, Violation, run};

/// A seed that nobody has run, most probably, with room for many more behind it.
///
/// # Panics
/// When the system has no random numbers.
#[must_use]
pub fn fresh_seed() -> u64 {
    let seed = getrandom::u64().expect("the system has random numbers");
    seed >> 1
}

/// What happened in many worlds.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Worlds that ran to their end.
    pub worlds: u64,
    /// Steps of mains and workers.
    pub steps: u64,
    /// Connects made.
    pub connects: u64,
    /// Of them, those that came up.
    pub established: u64,
    /// Sessions announced.
    pub sessions: u64,
    /// How often each kind of fault struck.
    pub faults: std::collections::BTreeMap<&'static str, u64>,
    /// What was violated, by seed.
    pub violations: Vec<Violation>,
    /// The tables, if they were asked for.
    pub coverage: Coverage,
}

/// Runs the worlds of `seeds` on `threads` threads until `stop` says so; `told` hears of every violation at once.
///
/// # Panics
/// When a world panics: that is a bug of the simulator.
pub fn run_range(
    seeds: Range<u64>,
    options: &Options,
    threads: usize,
    stop: impl Fn(&Totals) -> bool + Sync,
    told: impl Fn(&Violation) + Sync,
) -> Totals {
    let next = AtomicU64::new(seeds.start);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let result = run(seed, options);
                    let mut all = totals.lock().expect("no world panics while it holds this");
                    match result {
                        Ok(summary) => {
                            all.worlds += 1;
                            all.steps += summary.steps;
                            all.connects += summary.connects;
                            all.established += summary.established;
                            all.sessions += summary.sessions;
                            for (name, count) in summary.faults {
                                *all.faults.entry(name).or_default() += count;
                            }
                            if let Some(coverage) = summary.coverage {
                                all.coverage.add(&coverage);
                            }
                        }
                        Err(violation) => {
                            told(&violation);
                            all.violations.push(violation);
                        }
                    }
                    if stop(&all) {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    totals.into_inner().expect("no world panics while it holds this")
}
