//! The comparison: the same transfer by the kernel and by us, in turn, in each cell; medians of the rounds.

use std::fmt::Write as _;
use std::time::Duration;

use hoststack::app::Algorithm;
use serde_json::{Value, json};

use super::bulk::{Sender, Transfer, transfer};
use super::link::Shape;
use super::path::{Near, Path};
use super::pump::Pumped;

/// What a link is like: both ways the same, but for the loss, which strikes data only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Bits in a second.
    pub rate_bits_per_second: u64,
    /// The round trip without a queue.
    pub rtt_ms: u32,
    /// The share of frames towards the receiver that are lost.
    pub loss: f64,
}

impl Cell {
    /// Rate times round trip, in bytes: the buffer before the link.
    #[must_use]
    pub fn bdp(&self) -> u64 {
        self.rate_bits_per_second / 8 * u64::from(self.rtt_ms) / 1000
    }

    /// The two directions.
    #[must_use]
    pub fn shapes(&self, seed: u64) -> [Shape; 2] {
        let there = Shape {
            rate_bits_per_second: self.rate_bits_per_second,
            delay_ns: u64::from(self.rtt_ms) * 500_000,
            buffer_bytes: self.bdp(),
            loss: self.loss,
            seed,
        };
        [there, Shape { loss: 0.0, ..there }]
    }

    /// The cell of `RTT/LOSS`, in milliseconds and percent, at 100 Mbit/s.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Cell, String> {
        let bad = || format!("{text:?} is no cell: give RTT/LOSS in ms and percent, as 10/0.1");
        let (rtt, loss) = text.split_once('/').ok_or_else(bad)?;
        let (rtt_ms, percent) =
            (rtt.parse::<u32>().map_err(|_| bad())?, loss.parse::<f64>().map_err(|_| bad())?);
        if rtt_ms == 0 || !(0.0..100.0).contains(&percent) {
            return Err(bad());
        }
        Ok(Cell { rate_bits_per_second: 100_000_000, rtt_ms, loss: percent / 100.0 })
    }

    /// All that are compared by default.
    #[must_use]
    pub fn all() -> Vec<Cell> {
        ["10/0", "10/0.1", "10/1", "50/0", "50/0.1", "50/1"]
            .iter()
            .filter_map(|text| Cell::parse(text).ok())
            .collect()
    }
}

/// A congestion control that both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rivals {
    /// Ours.
    pub ours: Algorithm,
    /// The kernel's name of it.
    pub kernel: &'static str,
    /// What ours must reach.
    pub bar: Bar,
}

/// What ours must reach in each cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// Nothing in particular.
    None,
    /// This share of the kernel's goodput.
    OfKernel(f64),
    /// Bits in a second.
    Rate(f64),
}

// The shares are not NaN.
impl Eq for Bar {}

/// The pair for one of our algorithms, by its name. A name that we do not know, or that the kernel has no like of, gives none.
#[must_use]
pub fn rivals(name: &str) -> Option<Rivals> {
    let ours = Algorithm::from_name(name)?;
    let (kernel, bar) = match name {
        "cubic" => ("cubic", Bar::OfKernel(0.9)),
        "bbr" => ("bbr", Bar::Rate(90e6)),
        "newreno" => ("reno", Bar::None),
        _ => return None,
    };
    Some(Rivals { ours, kernel, bar })
}

/// A run of one sender.
#[derive(Clone, Debug)]
pub struct Run {
    /// What came over.
    pub transfer: Transfer,
    /// What the link did.
    pub pumped: Pumped,
    /// Frames that queues outside the link dropped: 0 in a valid run.
    pub tap_drops: u64,
}

impl Run {
    fn json(&self) -> Value {
        let Run { transfer, pumped, tap_drops } = self;
        let Pumped { forward, late_ns_max, late_bursts, cpu_ns, ran_ns, .. } = pumped;
        json!({
            "goodput": transfer.goodput, "goodput_whole": transfer.goodput_whole,
            "sender_cpu": transfer.sender_cpu, "process_cpu": transfer.process_cpu,
            "relay_cpu": *cpu_ns as f64 / *ran_ns as f64,
            "lost": forward.lost, "overflowed": forward.overflowed, "arrived": forward.arrived,
            "queue_bytes_max": forward.waiting_max, "tap_drops": tap_drops,
            "late_ms_max": *late_ns_max as f64 / 1e6, "late_bursts": late_bursts,
            "sender_says": transfer.sender_says,
        })
    }
}

/// Runs one sender over a link of its own.
///
/// # Errors
/// A sentence: what went wrong.
pub fn run(
    cell: Cell,
    sender: Sender,
    seed: u64,
    length: Duration,
    warm_up: Duration,
) -> Result<Run, String> {
    let near = if matches!(sender, Sender::Kernel(_)) { Near::Kernel } else { Near::Stack };
    let mut path = Path::new(near, cell.shapes(seed));
    let transfer = transfer(&path, sender, length, warm_up)?;
    let pumped = path.stop();
    Ok(Run { transfer, pumped, tap_drops: path.tap_drops() })
}

/// All rounds of one pair in one cell.
#[derive(Clone, Debug)]
pub struct Row {
    /// The cell.
    pub cell: Cell,
    /// The pair.
    pub rivals: Rivals,
    /// Ours.
    pub ours: Vec<Run>,
    /// The kernel's.
    pub kernel: Vec<Run>,
}

impl Row {
    /// Runs `rounds` rounds, ours and the kernel's in turn; each pair meets the same seed. `said` hears of each run.
    ///
    /// # Errors
    /// A sentence: what went wrong.
    pub fn measure(
        cell: Cell,
        rivals: Rivals,
        rounds: u32,
        seed: u64,
        length: Duration,
        warm_up: Duration,
        mut said: impl FnMut(&str, &Run),
    ) -> Result<Row, String> {
        let mut row = Row { cell, rivals, ours: Vec::new(), kernel: Vec::new() };
        for round in 0..rounds {
            let mut go = |sender, who: &str| {
                let run = run(cell, sender, seed + u64::from(round), length, warm_up)
                    .map_err(|error| format!("{who} {}: {error}", rivals.ours))?;
                said(who, &run);
                Ok::<_, String>(run)
            };
            // Who goes first changes, so that a drift of the machine hits both.
            if round % 2 == 0 {
                row.ours.push(go(Sender::Ours(rivals.ours), "ours")?);
                row.kernel.push(go(Sender::Kernel(rivals.kernel), "kernel")?);
            } else {
                row.kernel.push(go(Sender::Kernel(rivals.kernel), "kernel")?);
                row.ours.push(go(Sender::Ours(rivals.ours), "ours")?);
            }
        }
        Ok(row)
    }

    /// Medians of the goodput after the warm-up: ours and the kernel's.
    #[must_use]
    pub fn goodputs(&self) -> (f64, f64) {
        let of = |runs: &[Run]| median(runs.iter().map(|run| run.transfer.goodput).collect());
        (of(&self.ours), of(&self.kernel))
    }

    /// Whether the bar is reached; `None` without one.
    #[must_use]
    pub fn reaches_bar(&self) -> Option<bool> {
        let (ours, kernel) = self.goodputs();
        match self.rivals.bar {
            Bar::None => None,
            Bar::OfKernel(share) => Some(ours >= share * kernel),
            Bar::Rate(rate) => Some(ours >= rate),
        }
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let (ours, kernel) = self.goodputs();
        let runs = |runs: &[Run]| runs.iter().map(Run::json).collect::<Vec<_>>();
        json!({
            "rtt_ms": self.cell.rtt_ms, "loss": self.cell.loss, "buffer_bytes": self.cell.bdp(),
            "rate_bits_per_second": self.cell.rate_bits_per_second,
            "algorithm": self.rivals.ours.name(), "kernel_algorithm": self.rivals.kernel,
            "ours": ours, "kernel": kernel, "ratio": ours / kernel, "reaches_bar": self.reaches_bar(),
            "runs": { "ours": runs(&self.ours), "kernel": runs(&self.kernel) },
        })
    }
}

/// The table of all rows, in Mbit/s and CPU shares.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<9}{:>7}{:>8}{:>9}{:>9}{:>9}{:>7}{:>11}{:>11}  {}\n",
        "", "RTT ms", "loss %", "buffer B", "ours", "kernel", "ratio", "whole ours", "kernel", "bar"
    );
    for row in rows {
        let (ours, kernel) = row.goodputs();
        let whole = |runs: &[Run]| median(runs.iter().map(|run| run.transfer.goodput_whole).collect()) / 1e6;
        let bar = match row.reaches_bar() {
            None => "",
            Some(true) => "reached",
            Some(false) => "MISSED",
        };
        // Cannot fail because it is a String.
        let _ = writeln!(
            text,
            "{:<9}{:>7}{:>8.2}{:>9}{:>9.2}{:>9.2}{:>7.3}{:>11.2}{:>11.2}  {bar}",
            row.rivals.ours.name(),
            row.cell.rtt_ms,
            row.cell.loss * 100.0,
            row.cell.bdp(),
            ours / 1e6,
            kernel / 1e6,
            ours / kernel,
            whole(&row.ours),
            whole(&row.kernel),
        );
    }
    text
}

/// The middle one, or the mean of the two; 0 of none.
fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    let middle = of.len() / 2;
    match of.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => of[middle],
        _ => f64::midpoint(of[middle - 1], of[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, ours: &[f64], kernel: &[f64]) -> Row {
        let run = |goodput: &f64| Run {
            transfer: Transfer { goodput: *goodput, goodput_whole: *goodput, ..Transfer::default() },
            pumped: Pumped { ran_ns: 1, ..Pumped::default() },
            tap_drops: 0,
        };
        Row {
            cell: Cell::parse("50/0.1").unwrap(),
            rivals: rivals(name).unwrap(),
            ours: ours.iter().map(run).collect(),
            kernel: kernel.iter().map(run).collect(),
        }
    }

    #[test]
    fn cell_is_read_and_its_buffer_is_one_bandwidth_delay_product() {
        let cell = Cell::parse("50/0.1").unwrap();
        assert_eq!((cell.rtt_ms, cell.bdp()), (50, 625_000));
        assert!((cell.loss - 0.001).abs() < 1e-9);
        let [there, back] = cell.shapes(3);
        assert_eq!((there.delay_ns, there.buffer_bytes, there.seed), (25_000_000, 625_000, 3));
        assert_eq!((back.loss, back.delay_ns), (0.0, 25_000_000));
        for bad in ["", "10", "0/1", "10/100", "10/-1", "x/1"] {
            assert!(Cell::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Cell::all().len(), 6);
    }

    #[test]
    fn medians_are_compared_and_the_bar_is_of_the_algorithm() {
        let reno = row("newreno", &[80e6, 10e6, 90e6], &[100e6, 100e6]);
        assert_eq!(reno.goodputs(), (80e6, 100e6));
        assert_eq!(reno.reaches_bar(), None);
        let cubic = Row { rivals: Rivals { bar: Bar::OfKernel(0.9), ..reno.rivals }, ..reno.clone() };
        assert_eq!(cubic.reaches_bar(), Some(false));
        let bbr = Row { rivals: Rivals { bar: Bar::Rate(79e6), ..reno.rivals }, ..reno };
        assert_eq!(bbr.reaches_bar(), Some(true));
        assert!(table(&[bbr]).contains("reached"));
    }

    #[test]
    fn only_algorithms_that_both_have_are_compared() {
        assert!(rivals("vegas").is_none());
        for algorithm in Algorithm::ALL {
            assert_eq!(rivals(algorithm.name()).map(|rivals| rivals.ours), Some(*algorithm));
        }
    }
}
