//! All runs, on several threads, their outcomes counted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::cell::{Action, Cell, Connect, Consumer, Peer, Run, STACKS};
use super::oracle::i7_key;
use super::world::{Broken, Ran, World};

/// Which runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Cells, by number: every so many of them.
    pub every: usize,
    /// Of them, how many apart are those that meet actions at every boundary; 0: none does.
    pub acted: usize,
    /// Runs broken before the walk ends.
    pub broken_max: usize,
}

impl Choice {
    /// All of them.
    pub const WHOLE: Choice = Choice { every: 1, acted: 1, broken_max: 1000 };
    /// What fits a minute of two cores: every cell as it is, some with all actions at all boundaries. The step is a prime,
    /// so that it meets every value of every axis.
    pub const SLICE: Choice = Choice { every: 1, acted: 97, broken_max: 1000 };
}

/// The place of a run in the table.
type Place = (Connect, usize, Consumer, Peer);

/// What runs came to.
#[derive(Debug, Default)]
pub struct Table {
    /// By place and outcome: runs without an action, and with one.
    counts: BTreeMap<Place, BTreeMap<String, [u64; 2]>>,
    /// Runs.
    pub runs: u64,
    /// Cells of the product that are another one's run, or impossible.
    pub pruned: u64,
    /// Cells run.
    pub cells: u64,
    /// Most boundaries of a run.
    pub boundaries_max: usize,
    /// Runs that broke, with what they said.
    pub broken: Vec<(Run, String)>,
    /// Cells whose trace was compared with that of one that differs only in when things are done (I7); they are broken if it
    /// is another.
    pub compared: u64,
    /// Of them, those whose trace was another.
    pub differing: u64,
    traces: Vec<(usize, u64)>,
}

/// A run in a world; a panic of the product is a finding, and leaves no world.
pub fn run_in(world: &mut Option<World>, run: &Run, traced: bool) -> Result<Ran, Broken> {
    let result = catch_unwind(AssertUnwindSafe(|| world.get_or_insert_with(|| World::new(traced)).run(run)));
    let result = result.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        Err(Broken(format!("panicked: {}", words.unwrap_or_else(|| "in other words".to_owned()))))
    });
    if result.is_err() && !traced {
        *world = None;
    }
    result
}

/// One run alone: what it came to, and all that happened in it.
pub fn trace(run: &Run) -> (Result<Ran, Broken>, Vec<String>) {
    let mut world = None;
    let result = run_in(&mut world, run, true);
    (result, world.map(|world| world.log()).unwrap_or_default())
}

impl Table {
    /// Runs what `choice` says, on `threads` threads.
    pub fn of(threads: usize, choice: Choice) -> Table {
        let cells = Cell::all();
        let (next, broken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let all = Mutex::new(Table::default());
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    let (mut table, mut world) = (Table::default(), None);
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let number = at * choice.every;
                        let Some(&cell) = cells.get(number) else { break };
                        if broken.load(Ordering::Relaxed) >= choice.broken_max {
                            break;
                        }
                        let acts = choice.acted != 0 && at % choice.acted == 0;
                        let found = table.broken.len();
                        table.run_cell(&mut world, number, cell, acts);
                        broken.fetch_add(table.broken.len() - found, Ordering::Relaxed);
                    }
                    all.lock().merge(table);
                });
            }
        });
        let mut table = all.into_inner();
        table.pruned = Cell::product().filter(|(_, is_another)| *is_another).count() as u64;
        table.broken.sort_by_key(|(run, _)| (run.number, run.action.map(|(action, at)| (at, action))));
        table.i7_sync_and_async_are_the_same(&cells);
        table
    }

    fn merge(&mut self, other: Table) {
        for (place, counts) in other.counts {
            let mine = self.counts.entry(place).or_default();
            for (outcome, [plain, acted]) in counts {
                let sum = mine.entry(outcome).or_default();
                sum[0] += plain;
                sum[1] += acted;
            }
        }
        self.runs += other.runs;
        self.cells += other.cells;
        self.boundaries_max = self.boundaries_max.max(other.boundaries_max);
        self.broken.extend(other.broken);
        self.traces.extend(other.traces);
    }

    fn run_cell(&mut self, world: &mut Option<World>, number: usize, cell: Cell, acts: bool) {
        self.cells += 1;
        let Some(ran) = self.run(world, &Run { number, cell, action: None }) else { return };
        let mut hasher = DefaultHasher::new();
        ran.trace.hash(&mut hasher);
        self.traces.push((number, hasher.finish()));
        if !acts {
            return;
        }
        for &action in Action::ALL {
            // There is no opposite side but a relay's.
            if action == Action::Opposite && cell.consumer != Consumer::Proxy {
                continue;
            }
            for at in 0..=ran.boundaries {
                self.run(world, &Run { number, cell, action: Some((action, at)) });
            }
        }
    }

    fn run(&mut self, world: &mut Option<World>, run: &Run) -> Option<Ran> {
        self.runs += 1;
        match run_in(world, run, false) {
            Ok(ran) => {
                let Cell { connect, stack, consumer, peer, .. } = run.cell;
                let counts = self.counts.entry((connect, stack, consumer, peer)).or_default();
                if !counts.contains_key(&ran.outcome) {
                    counts.insert(ran.outcome.clone(), [0; 2]);
                }
                if let Some(count) = counts.get_mut(&ran.outcome) {
                    count[usize::from(run.action.is_some())] += 1;
                }
                self.boundaries_max = self.boundaries_max.max(ran.boundaries);
                Some(ran)
            }
            Err(Broken(words)) => {
                self.broken.push((*run, words));
                None
            }
        }
    }

    /// I7: what differs only in how things are split in time has one trace.
    fn i7_sync_and_async_are_the_same(&mut self, cells: &[Cell]) {
        self.traces.sort_unstable();
        let mut first: BTreeMap<String, (usize, u64)> = BTreeMap::new();
        for &(number, trace) in &self.traces {
            let key = i7_key(&cells[number]).to_string();
            let (other, same) = *first.entry(key).or_insert((number, trace));
            self.compared += u64::from(other != number);
            if same != trace {
                self.differing += 1;
                let run = |number: usize| Run { number, cell: cells[number], action: None };
                let shown = |number| self::trace(&run(number)).0.map(|ran| ran.trace).unwrap_or_default();
                let words = format!("i7: not as {}:\n{}\nbut\n{}", run(other), shown(other), shown(number));
                self.broken.push((run(number), words));
            }
        }
    }

    /// The first broken runs, for a person to read, with all that happened in the first.
    pub fn findings(&self) -> String {
        let mut text = format!("{} of {} runs broke", self.broken.len(), self.runs);
        let Some((run, words)) = self.broken.first() else { return text };
        let _ = write!(text, "; the first:\n{run}\n{words}\n{}\n", trace(run).1.join("\n"));
        let mut kinds: BTreeMap<String, (u64, Run)> = BTreeMap::new();
        for (run, words) in &self.broken {
            let kind: String = words.chars().take(70).filter(|c| !c.is_ascii_digit()).collect();
            kinds.entry(kind).or_insert((0, *run)).0 += 1;
        }
        for (kind, (count, run)) in kinds {
            let _ = writeln!(text, "{count:>7}  {}\n         first {run}", kind.replace('\n', " "));
        }
        text
    }

    /// The table's text: a line for each connect, stack, consumer and peer.
    pub fn text(&self) -> String {
        let mut text = String::from(HEAD);
        let _ = writeln!(
            text,
            "cells: {}; of the product the same run as one of these, or impossible: {}",
            self.cells, self.pruned
        );
        let _ = writeln!(text, "runs: {}, boundaries of a run: {} at most", self.runs, self.boundaries_max);
        let mut last = None;
        for (&(connect, stack, consumer, peer), counts) in &self.counts {
            if last != Some((connect, stack)) {
                let _ = writeln!(text, "\nconnect {}, stages {}", connect.name(), STACKS[stack].0);
                last = Some((connect, stack));
            }
            let _ = write!(text, "  {:<5} {:<9}", consumer.name(), peer.name());
            for (outcome, [plain, acted]) in counts {
                let _ = write!(text, "  {outcome} {plain}+{acted}");
            }
            text.push('\n');
        }
        text
    }
}

const HEAD: &str = "\
# Establishment, enumerated: connect x stages x consumer x peer, and how many runs had which outcome, without an action + with
# one. Summed over what each stage does, what is sent, what the app wants, and when which action comes.
# Written by `UPDATE_SNAPSHOTS=1 cargo test -p hoststack-tests --test establishment`; read docs/TESTING.md first.
#
";
