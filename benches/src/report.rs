//! What a bench run prints: rows with goal and alarm beside each figure, as JSON and as an aligned table.
//!
//! [`goals`] is the table of goals, [`machine`] says where the figures were taken.

pub mod goals;
pub mod machine;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use goals::{GOALS, Goal, goal_for};
pub use machine::Machine;

use crate::measure::{PairedFigure, Spread};
use crate::work::per;

/// The unit of a row's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Operations per second of wall time.
    #[serde(rename = "1/s")]
    PerSecond,
    /// Operations per second of CPU time.
    #[serde(rename = "1/cpu-s")]
    PerCpuSecond,
    /// 10^9 payload bits per second of wall time.
    #[serde(rename = "Gbit/s")]
    GbitPerSecond,
    /// 10^9 payload bits per second of CPU time.
    #[serde(rename = "Gbit/cpu-s")]
    GbitPerCpuSecond,
    /// Nanoseconds; less is better.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Nanoseconds of CPU time, of all threads; less is better.
    #[serde(rename = "cpu-ns")]
    CpuNanoseconds,
    /// Bytes; less is better.
    #[serde(rename = "B")]
    Bytes,
    /// A share of another figure of ours, 1.0 being all of it.
    #[serde(rename = "share")]
    Share,
}

impl Unit {
    /// Whether the smaller figure is the better one.
    pub const fn less_is_better(self) -> bool {
        matches!(self, Unit::Nanoseconds | Unit::CpuNanoseconds | Unit::Bytes)
    }

    /// `value` in this unit, for people: three significant digits, a prefix, the unit.
    pub fn text(self, value: f64) -> String {
        match self {
            Unit::PerSecond => scaled(value, "/s"),
            Unit::PerCpuSecond => scaled(value, "/cpu-s"),
            Unit::GbitPerSecond => format!("{} Gbit/s", digits(value)),
            Unit::GbitPerCpuSecond => format!("{} Gbit/cpu-s", digits(value)),
            Unit::Nanoseconds if value >= 1e6 => format!("{} ms", digits(value / 1e6)),
            Unit::Nanoseconds if value >= 1e3 => format!("{} us", digits(value / 1e3)),
            Unit::Nanoseconds => format!("{} ns", digits(value)),
            Unit::CpuNanoseconds => Unit::Nanoseconds.text(value) + " cpu",
            Unit::Bytes => scaled(value, "B"),
            Unit::Share => format!("{} %", digits(value * 100.0)),
        }
    }
}

fn scaled(value: f64, unit: &str) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{} M{unit}", digits(value / 1e6)),
        size if size >= 1e3 => format!("{} k{unit}", digits(value / 1e3)),
        _ => format!("{} {unit}", digits(value)),
    }
}

/// Three significant digits without an exponent; whole above 100.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// One figure: ours, the peer's, and what it ought to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The workload: `conn`, `rr`, `bulk`, `memory`, `latency`, ...
    pub work: String,
    /// Which form of it; together with `work` the key into [`GOALS`].
    pub variant: String,
    /// Our median, if our side was run.
    pub ours: Option<f64>,
    /// The peer's median, if it was run.
    pub peer: Option<f64>,
    /// How many times better ours is: above 1 we win, whatever the unit. The median of the rounds' own ratios.
    pub ratio: Option<f64>,
    /// Smallest and largest of the rounds' ratios.
    pub ratio_spread: Option<[f64; 2]>,
    /// What ours should reach; where it was set by the peer, in this run.
    pub goal: Option<f64>,
    /// Where something is wrong, if the peer does better too.
    pub alarm: Option<f64>,
    /// The unit of `ours`, `peer`, `goal` and `alarm`.
    pub unit: Unit,
    /// What a reader must know to take the figure right; empty if nothing.
    pub note: String,
}

/// How a row's figure of ours compares with its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Nothing of ours to judge, or no goal for it.
    None,
    /// As good as the goal or better.
    Met,
    /// Short of the goal.
    Short,
    /// Past the alarm figure, and no better than the peer (or without one to compare with).
    Alarm,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::None => "-",
            Verdict::Met => "met",
            Verdict::Short => "short",
            Verdict::Alarm => "ALARM",
        })
    }
}

impl Row {
    /// A row for alternated rounds.
    pub fn paired(work: &str, variant: &str, unit: Unit, figure: &PairedFigure) -> Self {
        let ratio = better_ratio(unit, &figure.ratio);
        Row {
            ours: Some(figure.ours.median),
            peer: Some(figure.peer.median),
            ratio: Some(ratio.median),
            ratio_spread: Some([ratio.min, ratio.max]),
            ..Row::empty(work, variant, unit)
        }
    }

    /// A row for figures taken once a side; either may be missing.
    pub fn single(work: &str, variant: &str, unit: Unit, ours: Option<f64>, peer: Option<f64>) -> Self {
        let ratio = ours.zip(peer).map(
            |(ours, peer)| {
                if unit.less_is_better() { per(peer, ours) } else { per(ours, peer) }
            },
        );
        Row { ours, peer, ratio, ..Row::empty(work, variant, unit) }
    }

    /// The same row with a remark; a second one is added to the first.
    #[must_use]
    pub fn with_note(mut self, note: &str) -> Self {
        if !self.note.is_empty() {
            self.note.push_str("; ");
        }
        self.note.push_str(note);
        self
    }

    /// How our figure compares with the goal.
    pub fn verdict(&self) -> Verdict {
        let Some(ours) = self.ours else { return Verdict::None };
        // Both turned so that more is better.
        let sign = if self.unit.less_is_better() { -1.0 } else { 1.0 };
        let past = |limit: Option<f64>| limit.is_some_and(|limit| ours * sign < limit * sign);
        let peer_is_better = self.ratio.is_none_or(|ratio| ratio < 1.0);
        match self.goal {
            _ if past(self.alarm) && peer_is_better => Verdict::Alarm,
            Some(_) if past(self.goal) => Verdict::Short,
            Some(_) => Verdict::Met,
            None => Verdict::None,
        }
    }

    fn empty(work: &str, variant: &str, unit: Unit) -> Self {
        // A goal stated in another unit (per wall second, say) does not hold for this figure.
        let goal = goal_for(work, variant).filter(|goal| goal.unit == unit);
        Row {
            work: work.to_owned(),
            variant: variant.to_owned(),
            ours: None,
            peer: None,
            ratio: None,
            ratio_spread: None,
            goal: goal.and_then(|goal| goal.goal),
            alarm: goal.and_then(|goal| goal.alarm),
            unit,
            note: String::new(),
        }
    }

    fn cells(&self) -> [String; COLUMNS] {
        let figure = |value: Option<f64>| value.map_or("-".to_owned(), |value| self.unit.text(value));
        let ratio = match (self.ratio, self.ratio_spread) {
            (Some(ratio), Some([min, max])) => {
                format!("{} ({}..{})", digits(ratio), digits(min), digits(max))
            }
            (Some(ratio), None) => digits(ratio),
            (None, _) => "-".to_owned(),
        };
        [
            self.work.clone(),
            self.variant.clone(),
            figure(self.ours),
            figure(self.peer),
            ratio,
            figure(self.goal),
            figure(self.alarm),
            self.verdict().to_string(),
            self.note.clone(),
        ]
    }
}

/// Ratios (ours over the peer's) turned so that above 1 is better.
fn better_ratio(unit: Unit, ratio: &Spread) -> Spread {
    if unit.less_is_better() {
        Spread { median: per(1.0, ratio.median), min: per(1.0, ratio.max), max: per(1.0, ratio.min) }
    } else {
        *ratio
    }
}

const COLUMNS: usize = 9;
const HEADINGS: [&str; COLUMNS] =
    ["work", "variant", "ours", "peer", "ratio (min..max)", "goal", "alarm", "verdict", "note"];
/// Columns of figures, set to the right.
const FIGURES: std::ops::Range<usize> = 2..7;

/// All rows of a run, and where they were taken. `Display` is the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where and from what.
    pub machine: Machine,
    /// Rounds that each median is taken over.
    pub rounds: usize,
    /// The figures, in the order they were taken.
    pub rows: Vec<Row>,
}

impl Report {
    /// An empty one, for this machine.
    pub fn new(rounds: usize) -> Self {
        Report { machine: Machine::detect(), rounds, rows: Vec::new() }
    }

    /// The report as indented JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self)
            .expect("cannot fail because every key is a string and no write can fail")
    }

    /// Whether a row is past its alarm.
    pub fn has_alarm(&self) -> bool {
        self.rows.iter().any(|row| row.verdict() == Verdict::Alarm)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, medians of {} rounds", self.machine, self.rounds)?;
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; COLUMNS] = std::array::from_fn(width);
        for line in &lines {
            let mut text = String::new();
            for (column, cell) in line.iter().enumerate() {
                let width = widths[column];
                if FIGURES.contains(&column) {
                    text.push_str(&format!("{cell:>width$}  "));
                } else {
                    text.push_str(&format!("{cell:<width$}  "));
                }
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
