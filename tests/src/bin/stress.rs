//! Connect lifecycles on real threads, by the million: `cargo run --release -p hoststack-tests --bin stress -- --help`.

use std::process::ExitCode;

use clap::Parser;
use hoststack_tests::stress::{Slice, Totals, run_slice};
use hoststack_tests::wait::Stopwatch;

/// Opens connections from every side while everything that can happen to them happens, and says what was violated.
#[derive(Debug, Parser)]
struct Args {
    /// Connects to make in all.
    #[arg(long, default_value_t = 1_000_000)]
    connects: u64,
    /// Workers; without it slices take 1, 2 and 4 in turn.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=255))]
    workers: Option<u16>,
    /// The first slice's seed; the others count up from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connects of a slice.
    #[arg(long, default_value_t = 250_000)]
    slice: usize,
    /// Begins no slice after so many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Prints one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let watch = Stopwatch::start();
    let mut all = Totals::default();
    let mut number = 0;
    while all.connects < args.connects {
        if args.minutes.is_some_and(|minutes| watch.elapsed().as_secs_f64() > minutes * 60.0) {
            break;
        }
        let slice = Slice {
            seed: args.seed.wrapping_add(number),
            workers: args.workers.map_or([1, 2, 4][number as usize % 3], usize::from),
            connects: args
                .slice
                .max(1)
                .min(usize::try_from(args.connects - all.connects).unwrap_or(usize::MAX)),
        };
        number += 1;
        match run_slice(slice) {
            Ok(totals) => {
                if !args.json {
                    println!(
                        "seed {}: {} connects in {:.1} s; {}",
                        slice.seed,
                        totals.connects,
                        totals.seconds,
                        slice.conditions()
                    );
                }
                all.merge(&totals);
            }
            Err(failure) => {
                eprintln!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    if args.json {
        println!("{}", all.json())
    } else {
        println!("{all}")
    }
    ExitCode::SUCCESS
}
