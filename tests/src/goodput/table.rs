//! All cells and pairs, the snapshot that reviewers read, and what it comes to.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use hoststack_transport::Algorithm;

use super::cell::{Cell, Value};
use super::fairness::{Pair, Share};

/// Where the snapshot lies, from the workspace's root.
pub const SNAPSHOT: &str = "tests/snapshots/goodput.txt";

/// What was measured.
#[derive(Debug, Default)]
pub struct Table {
    /// Cells with the values of all of [`Algorithm::ALL`], in its order.
    pub cells: Vec<(Cell, Vec<Value>)>,
    /// Pairs of flows.
    pub pairs: Vec<(Pair, Share)>,
}

/// A table's rows as text: label and values.
pub type Rows = BTreeMap<String, String>;

/// What an algorithm's column comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its name.
    pub algorithm: String,
    /// Cells.
    pub cells: usize,
    /// The median goodput, in percent of the link.
    pub median: f64,
    /// The least, and where.
    pub worst: f64,
    /// See `worst`.
    pub worst_cell: String,
    /// The median of the mean waits, in ms.
    pub queue_median: f64,
}

impl Table {
    /// Runs these cells with every algorithm, and these pairs, on `threads` threads.
    pub fn run(cells: &[Cell], pairs: &[Pair], threads: usize) -> Table {
        let mut jobs: Vec<(Cell, Algorithm)> = cells
            .iter()
            .flat_map(|cell| Algorithm::ALL.iter().map(|&algorithm| (*cell, algorithm)))
            .collect();
        // The longest first, so that no thread is left alone with one in the end.
        jobs.sort_by_key(|(cell, _)| std::cmp::Reverse(cell.rate * cell.ends_us()));
        let values = parallel(&jobs, threads, |(cell, algorithm)| cell.run(*algorithm));
        let value = |cell: &Cell, algorithm: Algorithm| {
            let place = jobs.iter().position(|job| *job == (*cell, algorithm));
            values[place.expect("it was run")]
        };
        Table {
            cells: cells
                .iter()
                .map(|cell| (*cell, Algorithm::ALL.iter().map(|&a| value(cell, a)).collect()))
                .collect(),
            pairs: pairs.iter().copied().zip(parallel(pairs, threads, Pair::run)).collect(),
        }
    }

    /// The cells' rows.
    pub fn rows(&self) -> Rows {
        let words = |values: &[Value]| {
            let words: Vec<String> = values.iter().map(Value::to_string).collect();
            words.join(" | ")
        };
        let cells = self.cells.iter().map(|(cell, values)| row(cell, &words(values)));
        cells.chain(self.pairs.iter().map(|(pair, share)| row(pair, &share.to_string()))).collect()
    }

    /// The snapshot's text.
    pub fn text(&self) -> String {
        let mut text = String::from(HEAD);
        let names: Vec<String> = Algorithm::ALL.iter().map(|algorithm| format!("{algorithm:<26}")).collect();
        let _ = writeln!(text, "{COLUMNS:33} | {}", names.join("| ").trim_end());
        let mut last = None;
        let rows = self.rows();
        for (cell, _) in &self.cells {
            if last.replace((cell.rate, cell.rtt, cell.buffer)) != Some((cell.rate, cell.rtt, cell.buffer)) {
                text.push('\n');
            }
            write_row(&mut text, &rows, cell);
        }
        let _ = write!(text, "\n{PAIRS_HEAD}");
        let mut last = None;
        for (pair, _) in &self.pairs {
            if last.replace((pair.algorithms, pair.rtts)) != Some((pair.algorithms, pair.rtts)) {
                text.push('\n');
            }
            write_row(&mut text, &rows, pair);
        }
        text
    }
}

fn row(label: &impl Display, values: &str) -> (String, String) {
    (label.to_string(), values.to_owned())
}

fn write_row(text: &mut String, rows: &Rows, label: &impl Display) {
    let label = label.to_string();
    let _ = writeln!(text, "{label} | {}", rows[&label]);
}

/// What a snapshot says: the names of the columns, and the rows.
pub fn parse(text: &str) -> (Vec<String>, Rows) {
    let mut algorithms = Vec::new();
    let mut rows = Rows::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((label, values)) = line.split_once(" | ") else { continue };
        if label.trim_end() == COLUMNS {
            algorithms = values.split('|').map(|name| name.trim().to_owned()).collect();
        } else {
            rows.insert(label.to_owned(), values.to_owned());
        }
    }
    (algorithms, rows)
}

/// What each column of a snapshot comes to. Rows of pairs are not counted.
pub fn summaries(text: &str) -> Vec<Summary> {
    let (algorithms, rows) = parse(text);
    let is_cell = |label: &str| label.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let summary = |(column, algorithm): (usize, &String)| {
        let mut values: Vec<(f64, f64, &str)> = rows
            .iter()
            .filter(|(label, _)| is_cell(label))
            .filter_map(|(label, values)| {
                let value = Value::parse(values.split('|').nth(column)?)?;
                Some((value.goodput, value.queue_mean, label.trim()))
            })
            .collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let &(worst, _, worst_cell) = values.first()?;
        let mut waits: Vec<f64> = values.iter().map(|value| value.1).collect();
        waits.sort_by(f64::total_cmp);
        Some(Summary {
            algorithm: algorithm.clone(),
            cells: values.len(),
            median: values[values.len() / 2].0,
            worst,
            worst_cell: worst_cell.split_whitespace().collect::<Vec<_>>().join(" "),
            queue_median: waits[waits.len() / 2],
        })
    };
    algorithms.iter().enumerate().filter_map(summary).collect()
}

/// `work` of each job, in the jobs' order.
fn parallel<Job: Sync, Done: Send>(
    jobs: &[Job],
    threads: usize,
    work: impl Fn(&Job) -> Done + Sync,
) -> Vec<Done> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(place) else { return };
                    let result = work(job);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

const COLUMNS: &str = "       link  rtt  buffer    loss";

const HEAD: &str = "\
# Goodput: what one flow gets out of a bottleneck, by random loss, buffer, round trip and rate.
# Written by `UPDATE_SNAPSHOTS=1 cargo test --release -p hoststack-tests --test goodput`; read docs/conformance.md first.
#
# Columns for each algorithm: goodput in % of the link (payload; 96.5 is the most, less what is lost); mean and longest
# wait for the link in ms; payload sent again in % of payload sent.
# Packets of 1500 bytes, drop-tail buffer, loss of data packets independent at the far end of the link, ACKs unharmed.
# Measured over the last three quarters of 60 s (100 Mbit/s) or of 20 s (1 Gbit/s; 40 s with a round trip of 200 ms), on
# virtual time. That is too short for loss-based algorithms to be steady where a loss heals slowly (1 Gbit/s, 200 ms).
#
";

const PAIRS_HEAD: &str = "\
# Fairness: two flows on 100 Mbit/s without random loss; the second starts 5 s after the first; measured from 30 s to
# 120 s. The buffer is in BDP of the longer round trip. Columns: the first flow's share in %, Jain's index (1 is equal,
# 0.5 is all for one), and as above of both: goodput, mean and longest wait, payload sent again.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_come_back_in_their_order() {
        let jobs: Vec<u64> = (0..100).collect();
        assert_eq!(parallel(&jobs, 3, |job| job * 2), jobs.iter().map(|job| job * 2).collect::<Vec<_>>());
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_written_and_summed_up() {
        let value =
            |goodput| Value { goodput, queue_mean: goodput / 10.0, queue_max: 1.0, retransmitted: 0.0 };
        let cell = |loss_ppm| Cell { rate: 100, rtt: 10, buffer: 10, loss_ppm };
        let columns = Algorithm::ALL.len();
        let table = Table {
            cells: [(0, 96.0), (100, 90.0), (1000, 12.5)]
                .map(|(loss, goodput)| (cell(loss), vec![value(goodput); columns]))
                .to_vec(),
            pairs: vec![(
                Pair { algorithms: [Algorithm::NewReno; 2], rtts: [10, 50], buffer: 10 },
                Share { first: 80.0, jain: 0.75, sum: value(1.0) },
            )],
        };
        let text = table.text();
        let (algorithms, rows) = parse(&text);
        assert_eq!(algorithms, Algorithm::ALL.iter().map(|a| a.name()).collect::<Vec<_>>());
        assert_eq!(rows, table.rows());
        let summaries = summaries(&text);
        assert_eq!(summaries.len(), columns);
        assert_eq!(
            summaries[0],
            Summary {
                algorithm: Algorithm::ALL[0].name().to_owned(),
                cells: 3,
                median: 90.0,
                worst: 12.5,
                worst_cell: "100 Mbit/s 10 ms 1.0 BDP 0.1 %".to_owned(),
                queue_median: 9.0,
            }
        );
    }
}
