//! Our congestion control beside the kernel's: `cargo run --release -p hoststack-tests --bin beside_kernel -- --help`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hoststack::app::Algorithm;
use hoststack_tests::netns;
use hoststack_tests::relay::compare::{Cell, Rivals, Row, rivals, table};
use hoststack_tests::relay::validate::validate;
use serde_json::json;

/// Sends in bulk over an emulated link of 100 Mbit/s (buffer: rate times round trip), the kernel and hoststack in turn,
/// to a kernel receiver, and compares the goodput at the receiver. Needs root.
#[derive(Debug, Parser)]
struct Args {
    /// Seconds of each run, the warm-up included.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Milliseconds at the beginning of each run that do not count.
    #[arg(long, default_value_t = 2000)]
    warm_up_ms: u64,
    /// Runs of each sender in each cell.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Cells as RTT/LOSS in ms and percent; default: 10 and 50 ms with 0, 0.1 and 1 %.
    #[arg(long, value_delimiter = ',', value_parser = Cell::parse)]
    cells: Vec<Cell>,
    /// Congestion controls by our names; default: all that hoststack has.
    #[arg(long, value_delimiter = ',', value_parser = known)]
    algorithms: Vec<Rivals>,
    /// Where the links' chance begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Measures only the link itself, kernel to kernel, once for each round trip; fails if it is not what it should be.
    #[arg(long)]
    validate: bool,
    /// Fails when a bar is missed: CUBIC at 90 % of the kernel's, BBR at 90 Mbit/s, in each cell.
    #[arg(long)]
    check: bool,
    /// Prints one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn known(name: &str) -> Result<Rivals, String> {
    let names: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
    rivals(name).ok_or_else(|| format!("{name:?} is none of {}", names.join(", ")))
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    if !netns::is_net_admin() {
        eprintln!("this makes network namespaces and TAP devices: run it as root");
        return ExitCode::FAILURE;
    }
    if args.cells.is_empty() {
        args.cells = Cell::all();
    }
    if args.algorithms.is_empty() {
        args.algorithms = Algorithm::ALL.iter().filter_map(|algorithm| rivals(algorithm.name())).collect();
    }
    let done = if args.validate { validation(&args) } else { comparison(&args) };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the link is good at each round trip.
fn validation(args: &Args) -> Result<bool, String> {
    let mut cells = args.cells.clone();
    cells.dedup_by_key(|cell| cell.rtt_ms);
    let mut found = Vec::new();
    for cell in cells {
        let one = validate(cell, Duration::from_secs(args.seconds))?;
        if !args.json {
            println!(
                "RTT {} ms: ping {:.2} ms ({:.1} % off); rate {:.2} Mbit/s ({:.2} % off); latest frame {:.2} ms late",
                cell.rtt_ms,
                one.ping_ms,
                one.rtt_error() * 100.0,
                one.rate / 1e6,
                one.rate_error() * 100.0,
                one.late_ms_max
            );
        }
        found.push(one);
    }
    if args.json {
        println!("{}", json!({ "validation": found.iter().map(|one| one.json()).collect::<Vec<_>>() }));
    }
    Ok(found.iter().all(|one| one.is_good()))
}

/// Whether every bar that counts is reached.
fn comparison(args: &Args) -> Result<bool, String> {
    let (length, warm_up) = (Duration::from_secs(args.seconds), Duration::from_millis(args.warm_up_ms));
    if warm_up >= length {
        return Err("the warm-up is as long as the run: give more --seconds".to_owned());
    }
    let mut rows = Vec::new();
    for &cell in &args.cells {
        for &rivals in &args.algorithms {
            let row = Row::measure(cell, rivals, args.rounds, args.seed, length, warm_up, |who, run| {
                let (moved, pumped) = (&run.transfer, &run.pumped);
                eprintln!(
                    "{} {}/{}: {who} {:.2} Mbit/s (whole run {:.2}), CPU sender {:.2} all {:.2}; lost {}, overflowed {}, \
                     TAPs dropped {}, latest frame {:.1} ms late",
                    rivals.ours,
                    cell.rtt_ms,
                    cell.loss * 100.0,
                    moved.goodput / 1e6,
                    moved.goodput_whole / 1e6,
                    moved.sender_cpu,
                    moved.process_cpu,
                    pumped.forward.lost,
                    pumped.forward.overflowed,
                    run.tap_drops,
                    pumped.late_ns_max as f64 / 1e6,
                );
            })?;
            rows.push(row);
        }
    }
    if args.json {
        println!("{}", json!({ "rows": rows.iter().map(Row::json).collect::<Vec<_>>() }));
    } else {
        print!("Mbit/s at the receiver, medians of {} rounds\n{}", args.rounds, table(&rows));
    }
    Ok(!args.check || rows.iter().all(|row| row.reaches_bar() != Some(false)))
}
