//! The goodput table: `cargo run --release -p hoststack-tests --bin goodput -- --help`.

use clap::Parser;
use hoststack_tests::goodput::{Cell, Pair, Table};
use hoststack_tests::wait::Stopwatch;
use hoststack_transport::Algorithm;

/// Runs the goodput table, or a part of it, and prints it. Each option keeps the cells that have one of its values.
#[derive(Debug, Parser)]
struct Args {
    /// Rates in Mbit/s.
    #[arg(long, value_delimiter = ',')]
    rate: Vec<u64>,
    /// Round trips in ms.
    #[arg(long, value_delimiter = ',')]
    rtt: Vec<u64>,
    /// Buffers in bandwidth-delay products: 0.1, 1, 4.
    #[arg(long, value_delimiter = ',')]
    buffer: Vec<f64>,
    /// Losses in percent.
    #[arg(long, value_delimiter = ',')]
    loss: Vec<f64>,
    /// No pairs of flows.
    #[arg(long)]
    no_pairs: bool,
    /// Threads, each with a cell of its own.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Instead of the table: the sender's variables as the first such cell runs, with this algorithm.
    #[arg(long, value_name = "ALGORITHM", value_parser = algorithm)]
    trace: Option<Algorithm>,
    /// Between two lines of the trace, in ms.
    #[arg(long, default_value_t = 100, requires = "trace", value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Prints one JSON object instead of text.
    #[arg(long, conflicts_with = "trace")]
    json: bool,
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    Algorithm::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
        format!("one of {}", names.join(", "))
    })
}

impl Args {
    fn wants(&self, cell: &Cell) -> bool {
        // Cannot miss: the products of the axes' values are whole.
        let is_near = |wanted: &[f64], value: f64| {
            wanted.is_empty() || wanted.iter().any(|wanted| (wanted - value).abs() < 1e-9)
        };
        (self.rate.is_empty() || self.rate.contains(&cell.rate))
            && (self.rtt.is_empty() || self.rtt.contains(&cell.rtt))
            && is_near(&self.buffer, cell.buffer as f64 / 10.0)
            && is_near(&self.loss, f64::from(cell.loss_ppm) / 10_000.0)
    }
}

fn main() {
    let args = Args::parse();
    let cells: Vec<Cell> = Cell::all().into_iter().filter(|cell| args.wants(cell)).collect();
    if let (Some(algorithm), Some(cell)) = (args.trace, cells.first()) {
        return trace(cell, algorithm, args.every * 1000);
    }
    let pairs = if args.no_pairs { Vec::new() } else { Pair::all() };
    let watch = Stopwatch::start();
    let table = Table::run(&cells, &pairs, args.threads);
    if args.json {
        println!("{}", json(&table));
    } else {
        print!("{}", table.text());
        eprintln!("{:.1} s", watch.elapsed().as_secs_f64());
    }
}

/// One line for each interval: rates over it, variables at its end.
fn trace(cell: &Cell, algorithm: Algorithm, every_us: u64) {
    println!("{algorithm}, {cell}");
    println!("   time goodput   waits   cwnd  ssthresh  flight  srtt  again  rtos tail-drops lost recovery");
    println!("      s       %      ms segments segments segments    ms      %");
    let mut world = cell.world(algorithm);
    let mut before = world.progress(0);
    while world.now_us() < cell.ends_us() {
        world.run_until(world.now_us() + every_us);
        let (after, tally) = (world.progress(0), world.take_tally());
        let value = hoststack_tests::goodput::Value::new(&before, &after, &tally, cell.rate, every_us);
        let Some(sender) = world.sender(0) else { continue };
        let mss = u32::from(sender.mss).max(1);
        println!(
            "{:7.3} {:7.1} {:7.2} {:8} {:>8} {:8} {:5.1} {:6.2} {:5} {:10} {:4} {}",
            world.now_us() as f64 / 1e6,
            value.goodput,
            value.queue_mean,
            sender.cwnd / mss,
            if sender.ssthresh == u32::MAX { "-".to_owned() } else { (sender.ssthresh / mss).to_string() },
            sender.flight_size / mss,
            sender.srtt.map_or(0.0, |srtt| srtt.as_secs_f64() * 1e3),
            value.retransmitted,
            after.counters.rtos - before.counters.rtos,
            tally.overflowed,
            tally.lost,
            sender.recovery,
        );
        before = after;
    }
}

fn json(table: &Table) -> serde_json::Value {
    let value = |value: &hoststack_tests::goodput::Value| {
        serde_json::json!({
            "goodput_percent": value.goodput,
            "queue_mean_ms": value.queue_mean,
            "queue_max_ms": value.queue_max,
            "retransmitted_percent": value.retransmitted,
        })
    };
    let cells = table.cells.iter().flat_map(|(cell, values)| {
        Algorithm::ALL.iter().zip(values).map(move |(algorithm, measured)| {
            serde_json::json!({
                "algorithm": algorithm.name(),
                "rate_mbit": cell.rate,
                "rtt_ms": cell.rtt,
                "buffer_bdp": cell.buffer as f64 / 10.0,
                "loss_percent": f64::from(cell.loss_ppm) / 10_000.0,
                "value": value(measured),
            })
        })
    });
    let pairs = table.pairs.iter().map(|(pair, share)| {
        serde_json::json!({
            "algorithms": pair.algorithms.map(Algorithm::name),
            "rtt_ms": pair.rtts,
            "buffer_bdp": pair.buffer as f64 / 10.0,
            "first_percent": share.first,
            "jain": share.jain,
            "sum": value(&share.sum),
        })
    });
    serde_json::json!({ "cells": cells.collect::<Vec<_>>(), "pairs": pairs.collect::<Vec<_>>() })
}
