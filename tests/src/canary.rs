//! The hunt for known bugs: proof that the simulator's oracle can fail, that of the enumeration of establishment, and the words
//! for cells of real sockets.
//!
//! A bug is planted for the whole process (`hoststack_transport::canary`), so hunts do not run beside each other. Only
//! in builds with the feature `canary`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hoststack_transport::canary::{Bug, plant};
use parking_lot::Mutex;

use crate::announced::{self, Slice, Totals};
use crate::establishment::{Choice, Table};
use crate::injection;
use crate::sim::{Options, run};

/// What a hunt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunt {
    /// What was planted.
    pub bug: Option<Bug>,
    /// Worlds that were run.
    pub worlds: u64,
    /// Of them, those in which something was wrong.
    pub violated: u64,
    /// The first thing wrong.
    pub first: Option<Find>,
}

/// Something wrong in a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// The world.
    pub seed: u64,
    /// What is wrong, in words.
    pub what: String,
}

impl fmt::Display for Find {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

/// The name of what is planted.
pub fn name(bug: Option<Bug>) -> &'static str {
    bug.map_or("none", Bug::name)
}

/// Takes the bug out again, whatever ends the hunt.
struct Planted;

impl Drop for Planted {
    fn drop(&mut self) {
        plant(None);
    }
}

/// Plants `bug`, or none, and runs the worlds 0.. to the first in which something is wrong, or all of `worlds` of them
/// if `goes_on`.
pub fn hunt(bug: Option<Bug>, worlds: u64, goes_on: bool) -> Hunt {
    let mut hunt = Hunt { bug, worlds: 0, violated: 0, first: None };
    with(bug, || {
        for seed in 0..worlds {
            hunt.worlds += 1;
            let Some(find) = wrong(seed, &Options::default()) else { continue };
            hunt.violated += 1;
            hunt.first.get_or_insert(find);
            if !goes_on {
                break;
            }
        }
    });
    hunt
}

/// Plants `bug`, or none, and runs the cells of establishment that `choice` says: cells that break, and the first.
pub fn enumerate(bug: Option<Bug>, threads: usize, choice: Choice) -> (Table, Option<String>) {
    let mut table = Table::default();
    with(bug, || table = Table::of(threads, choice));
    let first = table.broken.first().map(|(run, words)| format!("{run}: {words}"));
    (table, first)
}

/// Plants `bug`, or none, and runs the cells over the host's sockets that `wanted` picks; stops when `broken_max` of a
/// transport broke.
pub fn inject(
    bug: Option<Bug>,
    broken_max: usize,
    wanted: impl Fn(&injection::Cell) -> bool + Sync,
) -> injection::Table {
    /// Most of what is broken shows when the time moves on only.
    const QUIET: std::time::Duration = std::time::Duration::from_millis(20);
    with(bug, || injection::Table::of(QUIET, broken_max, wanted))
}

/// Plants `bug`, or none, and runs a slice of silent clients.
///
/// # Errors
/// What it violates.
pub fn announce(bug: Option<Bug>, slice: Slice) -> Result<Totals, announced::Failure> {
    with(bug, || announced::run_slice(slice))
}

/// Plants `bug`, or none, and runs the world of one seed, which prints everything it does.
pub fn trace(bug: Option<Bug>, seed: u64) -> Option<Find> {
    with(bug, || wrong(seed, &Options { trace: true, ..Options::default() }))
}

fn with<T>(bug: Option<Bug>, work: impl FnOnce() -> T) -> T {
    /// One hunt at a time: what is planted is planted for all threads.
    static HUNTING: Mutex<()> = Mutex::new(());
    let _one = HUNTING.lock();
    let _planted = Planted;
    plant(bug);
    work()
}

/// What is wrong in a world. A panic is something wrong too.
fn wrong(seed: u64, options: &Options) -> Option<Find> {
    let what = match catch_unwind(AssertUnwindSafe(|| run(seed, options))) {
        Ok(Ok(_)) => return None,
        Ok(Err(violation)) => violation.what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("the world panics: {}", text.unwrap_or("without words"))
        }
    };
    // In one line: an assertion has several.
    Some(Find { seed, what: what.split_whitespace().collect::<Vec<_>>().join(" ") })
}
