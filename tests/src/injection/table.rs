//! All cells, run and counted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::cell::{Cell, Consumer, Stack, Verdict, Via, Workload};
use super::host::Strikes;
use super::script::{ConnectMode, StreamMode};
use super::world::{Run, World};

/// How the cells of a matrix came out.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Every cell that is not ok, with its words.
    pub broken: Vec<(Cell, Verdict)>,
    /// Cells run.
    pub cells: usize,
    /// What the meddlers did, by transport and mode.
    pub connect_strikes: BTreeMap<(Via, ConnectMode), u32>,
    /// The same of what is up.
    pub stream_strikes: BTreeMap<(Via, StreamMode), u32>,
    words: BTreeMap<Row, BTreeMap<&'static str, usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Connect(ConnectMode),
    Stream(StreamMode),
}

/// Transport, meddling, stages, column.
type Row = (Mode, Via, Stack, (Consumer, Workload));

/// Runs `cell` in `world`, or in a new one. A panic is a wrong thing too.
fn run(world: &mut Option<World>, cell: Cell, quiet: Duration) -> Run {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut here = match world.take() {
            Some(here) => here,
            None => World::new(cell.via, quiet).unwrap_or_else(|error| panic!("no world: {error}")),
        };
        let run = here.run(cell);
        if run.verdict == Verdict::Ok {
            *world = Some(here);
        }
        run
    }));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Run {
            verdict: Verdict::Wrong(format!("panic: {}", text.unwrap_or_default())),
            trace: Vec::new(),
            strikes: Strikes::default(),
        }
    })
}

impl Table {
    /// Runs all cells that `wanted` picks, a thread for each transport, which ends when `broken_max` of its cells broke.
    /// `quiet`: see [`World::new`].
    pub fn of(quiet: Duration, broken_max: usize, wanted: impl Fn(&Cell) -> bool + Sync) -> Table {
        let parts: Vec<Table> = std::thread::scope(|scope| {
            let wanted = &wanted;
            let threads = Via::ALL
                .iter()
                .map(|&via| scope.spawn(move || Table::of_one(via, quiet, broken_max, wanted)));
            let threads: Vec<_> = threads.collect();
            // Cannot fail: what panics in a cell is caught there.
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let mut table = Table::default();
        for part in parts {
            table.broken.extend(part.broken);
            table.cells += part.cells;
            table.connect_strikes.extend(part.connect_strikes);
            table.stream_strikes.extend(part.stream_strikes);
            table.words.extend(part.words);
        }
        table
    }

    fn of_one(
        via: Via,
        quiet: Duration,
        broken_max: usize,
        wanted: &(impl Fn(&Cell) -> bool + Sync),
    ) -> Table {
        let mut table = Table::default();
        let mut world = None;
        for cell in Cell::all(via).filter(|cell| wanted(cell)) {
            let run = run(&mut world, cell, quiet);
            table.add(cell, run);
            if table.broken.len() >= broken_max {
                break;
            }
        }
        table
    }

    fn add(&mut self, cell: Cell, run: Run) {
        let Cell { via, script, stack, workload, consumer } = cell;
        self.cells += 1;
        *self.connect_strikes.entry((via, script.connect)).or_default() += run.strikes.connect;
        *self.stream_strikes.entry((via, script.stream)).or_default() += run.strikes.stream;
        for mode in [Mode::Connect(script.connect), Mode::Stream(script.stream)] {
            let row = (mode, via, stack, (consumer, workload));
            *self.words.entry(row).or_default().entry(run.verdict.name()).or_default() += 1;
        }
        if run.verdict != Verdict::Ok {
            self.broken.push((cell, run.verdict));
        }
    }

    /// As text: a row for each transport, mode and stack, a column for each consumer and workload, in it how the cells of
    /// all modes of the other kind came out.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{HEAD}cells: {}\n", self.cells);
        self.part(
            &mut text,
            "connect",
            &ConnectMode::ALL.iter().map(|m| Mode::Connect(*m)).collect::<Vec<_>>(),
        );
        self.part(
            &mut text,
            "reads and writes",
            &StreamMode::ALL.iter().map(|m| Mode::Stream(*m)).collect::<Vec<_>>(),
        );
        text
    }

    fn part(&self, text: &mut String, title: &str, modes: &[Mode]) {
        let columns = Cell::columns();
        let width = |word: &str| word.len().max(10);
        let heads: Vec<String> = columns.iter().map(|(c, w)| format!("{c} {w}")).collect();
        let _ = write!(text, "\n{title:<18}{:<6}{:<10}", "via", "stages");
        for head in &heads {
            let _ = write!(text, "  {head:<10}");
        }
        trim_end(text);
        for &mode in modes {
            for &via in Via::ALL {
                for &stack in Stack::ALL {
                    let of = |column| self.words.get(&(mode, via, stack, column));
                    if columns.iter().all(|column| of(*column).is_none()) {
                        continue;
                    }
                    let name = match mode {
                        Mode::Connect(mode) => mode.name(),
                        Mode::Stream(mode) => mode.name(),
                    };
                    let _ = write!(text, "{name:<18}{via:<6}{stack:<10}");
                    for (column, head) in columns.iter().zip(&heads) {
                        let words: Vec<String> = of(*column)
                            .into_iter()
                            .flatten()
                            .map(|(word, count)| format!("{count} {word}"))
                            .collect();
                        let _ = write!(text, "  {:<1$}", words.join(", "), width(head));
                    }
                    trim_end(text);
                }
            }
        }
    }
}

/// Ends a line without blanks before its end.
fn trim_end(text: &mut String) {
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

const HEAD: &str = "\
# Establishment over this machine's sockets, with a meddler between: how each cell came out.
# Written by `UPDATE_SNAPSHOTS=1 cargo test -p hoststack-tests --test injection`; read docs/TESTING.md first.
#
# First by how the connect comes up (each column: all ways to read and write together), then by how reads, writes and
# events are meddled with (all ways to connect together). ok: one outcome, bytes right, nothing left; LATE: only after the
# deadline of the first attempt; HANG: the client got nothing; FALSE-OK, TOUT: a check said yes, or no, when its time was
# up; WRONG: never right.
#
";

/// Runs one cell and tells all that happened.
///
/// # Panics
/// When there can be no world.
#[must_use]
pub fn trace(cell: Cell, quiet: Duration) -> String {
    let Run { verdict, trace, strikes } = run(&mut None, cell, quiet);
    format!("{cell}: {verdict:?}\n{}\n{strikes:?}", trace.join("\n"))
}
