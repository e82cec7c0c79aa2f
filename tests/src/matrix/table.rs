//! All cases, their outcomes counted, and the snapshot that reviewers read.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::case::{Case, Run};
use super::events::{Event, Side};

/// The numbers of workers, one column of the snapshot each.
pub const WORKERS: [usize; 3] = [1, 2, 4];

/// Boundaries of a case, at most: there are some twenty.
const BOUNDARIES_MAX: usize = 200;

/// A fault of the product that is known and not mended: cases that show it are counted, and one must.
#[derive(Clone, Copy, Debug)]
pub struct KnownBug {
    /// Its name, as the snapshot has it.
    pub name: &'static str,
    /// What a failing case's words contain.
    pub words: &'static str,
    /// Which pairs may show it.
    pub may_show: fn(Side, Event, Event) -> bool,
}

/// The pairs' outcomes and how often each came, per number of workers.
type Counts = BTreeMap<String, [u64; WORKERS.len()]>;

/// What all cases came to.
#[derive(Debug, Default)]
pub struct Table {
    /// By side, a and b, as indices of [`Side::events`].
    pairs: BTreeMap<(Side, usize, usize), Counts>,
    /// Cases run.
    pub cases: [u64; WORKERS.len()],
    /// Cases that broke, with what they said.
    pub broken: Vec<(Case, String)>,
    /// Cases that showed each known bug.
    pub shown: BTreeMap<&'static str, u64>,
}

impl Table {
    /// Runs the cases of the pairs that `wanted` wants, on `threads` threads.
    pub fn of(
        threads: usize,
        known: &[KnownBug],
        wanted: impl Fn(Side, Event, Event) -> bool + Sync,
    ) -> Table {
        let mut jobs = Vec::new();
        for side in [Side::Connect, Side::Accept] {
            let events = side.events();
            for (a, b) in (0..events.len()).flat_map(|a| (0..events.len()).map(move |b| (a, b))) {
                if wanted(side, events[a], events[b]) {
                    jobs.push((side, a, b));
                }
            }
        }
        let next = AtomicUsize::new(0);
        let all = Mutex::new(Table::default());
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    // Freed at once: after that, the allocator keeps what a case frees for the next one instead of
                    // giving it back to the system, which costs more than the case.
                    drop(std::hint::black_box(vec![0_u8; 16 << 20]));
                    let mut table = Table::default();
                    while let Some(&(side, a, b)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        table.run_pair(side, a, b, known);
                    }
                    all.lock().unwrap_or_else(PoisonError::into_inner).merge(table);
                });
            }
        });
        let mut table = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        table.broken.sort_by_key(|(case, _)| case.to_string());
        table
    }

    fn merge(&mut self, other: Table) {
        self.pairs.extend(other.pairs);
        for (sum, more) in self.cases.iter_mut().zip(other.cases) {
            *sum += more;
        }
        self.broken.extend(other.broken);
        for (name, count) in other.shown {
            *self.shown.entry(name).or_default() += count;
        }
    }

    fn run_pair(&mut self, side: Side, a: usize, b: usize, known: &[KnownBug]) {
        let (event_a, event_b) = (side.events()[a], side.events()[b]);
        let mut counts = Counts::new();
        for (column, workers) in WORKERS.into_iter().enumerate() {
            if workers == 1 && (event_a.needs_other_worker() || event_b.needs_other_worker()) {
                continue;
            }
            let mut run = |case: Case, outcome: Run| {
                let words = match outcome {
                    Run::Ended(outcome) => outcome.0,
                    Run::Broken(words) => {
                        let bug = known
                            .iter()
                            .find(|bug| words.contains(bug.words) && (bug.may_show)(side, event_a, event_b));
                        match bug {
                            Some(bug) => {
                                *self.shown.entry(bug.name).or_default() += 1;
                                format!("KNOWN BUG {}", bug.name)
                            }
                            None => {
                                self.broken.push((case, words));
                                "BROKEN".to_owned()
                            }
                        }
                    }
                    Run::NoSense { .. } | Run::Beyond { .. } => return,
                };
                self.cases[column] += 1;
                counts.entry(words).or_default()[column] += 1;
            };
            'first: for i in 0.. {
                for j in i.. {
                    let case = Case { side, workers, a: event_a, i, b: event_b, j };
                    let outcome = case.run();
                    match outcome {
                        Run::Beyond { first: true } => break 'first,
                        Run::Beyond { first: false } | Run::NoSense { first: true } => break,
                        _ => run(case, outcome),
                    }
                    if j == BOUNDARIES_MAX {
                        run(case, Run::Broken(format!("{j} boundaries, and someone still works")));
                        break 'first;
                    }
                }
            }
        }
        self.pairs.insert((side, a, b), counts);
    }

    /// The snapshot's text.
    pub fn text(&self) -> String {
        let mut text = String::from(HEAD);
        let columns = WORKERS.iter().zip(self.cases).map(|(w, cases)| format!("{cases} on {w}"));
        let columns: Vec<String> = columns.collect();
        let _ = writeln!(text, "cases: {}", columns.join(", "));
        for (&(side, a, b), counts) in &self.pairs {
            let events = side.events();
            let _ = writeln!(text, "\n{}: {}, {}", side.name(), events[a], events[b]);
            for (words, columns) in counts {
                for count in columns {
                    let _ = write!(text, "{count:>5}");
                }
                let _ = writeln!(text, "  {words}");
            }
            if counts.is_empty() {
                text.push_str("       never both\n");
            }
        }
        text
    }
}

const HEAD: &str = "\
# Every ordered pair of events (a, b) that a connection can meet, at every pair of step boundaries: what came of it.
# Written by `UPDATE_SNAPSHOTS=1 cargo test -p hoststack-tests --test matrix`; read docs/TESTING.md first.
#
# One line per outcome: the number of cases with 1, 2 and 4 workers; what the app saw, in order; how the peer ended.
# The outcome of a connect comes first (`up` or why not); then `data`, `fin` (peer_closed), `cut` (reset),
# `closed(why)`; `stays`: it is up until the app is detached at the end. `untold`: the app's object was gone.
# With 2 and 4 workers the boundaries are the same; 1 worker has fewer, because no other worker takes its turn.
#
";

/// The first lines that differ between two texts, for a person to read.
pub fn differences(is: &str, was: &str) -> String {
    let mut words = String::new();
    let (is, was): (Vec<&str>, Vec<&str>) = (is.lines().collect(), was.lines().collect());
    let mut pair = "";
    let mut shown = 0;
    for at in 0..is.len().max(was.len()) {
        let (new, old) =
            (is.get(at).copied().unwrap_or("(nothing)"), was.get(at).copied().unwrap_or("(nothing)"));
        if new.contains(": ") && !new.starts_with(' ') {
            pair = new;
        }
        if new != old {
            let _ = writeln!(words, "line {} ({pair}):\n  was {old}\n  is  {new}", at + 1);
            shown += 1;
            if shown == 12 {
                words.push_str("and more\n");
                break;
            }
        }
    }
    words
}
