//! What a detach costs others: `cargo run --release -p hoststack-tests --bin detach_latency -- --help`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hoststack::app::DetachPolicy;
use hoststack_tests::stress::detach_latency::{DetachLatency, Lengths, Round, Window, measure, median};
use serde_json::json;

/// Measures echo round trips of one app before and during the detach of another with many connects and sessions.
#[derive(Debug, Parser)]
struct Args {
    /// Connects pending when the app is detached.
    #[arg(long, default_value_t = 100_000)]
    pending: u64,
    /// Sessions that it has.
    #[arg(long, default_value_t = 100_000)]
    sessions: u64,
    /// Workers.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=255))]
    workers: u16,
    /// Sessions of the other app, on each worker.
    #[arg(long, default_value_t = 4)]
    probes: u32,
    /// Rounds, each with a stack of its own.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Resets the sessions instead of closing them.
    #[arg(long)]
    reset: bool,
    /// Prints one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let linger = Duration::from_secs(5);
    let options = DetachLatency {
        workers: usize::from(args.workers),
        pending: args.pending,
        sessions: args.sessions,
        probes: args.probes,
        before: Duration::from_secs(2),
        policy: if args.reset { DetachPolicy::Reset } else { DetachPolicy::Close { linger } },
    };
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        match measure(&options) {
            Ok(round) => {
                if !args.json {
                    print(number, &round);
                }
                rounds.push(round);
            }
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    let took_ms = median(&rounds, |round| round.took_ms);
    let wall = ratios(&rounds, |window| window.wall);
    let cpu = ratios(&rounds, |window| window.cpu);
    if args.json {
        let all: Vec<_> = rounds.iter().map(Round::json).collect();
        let ratios = |(p99, weighted)| json!({ "p99": p99, "weighted_p99": weighted });
        println!(
            "{}",
            json!({ "rounds": all, "took_ms": took_ms, "wall_ratios": ratios(wall), "cpu_ratios": ratios(cpu) })
        );
    } else {
        for (name, (p99, weighted)) in [("wall", wall), ("CPU", cpu)] {
            println!("medians, {name} time: p99 x {p99:.2}, weighted p99 x {weighted:.2}");
        }
        println!("median of the detach: {took_ms:.1} ms");
    }
    ExitCode::SUCCESS
}

fn print(number: u32, round: &Round) {
    println!(
        "round {number}: took {:.1} ms; {} connects pending, {} told detached, {} sessions, {} reset",
        round.took_ms, round.half_opens, round.detached, round.sessions, round.sessions_reset
    );
    for (name, window) in [("before", round.before), ("during", round.during)] {
        for (clock, lengths) in [("wall", window.wall), ("CPU", window.cpu)] {
            let Lengths { count, p50_us, p99_us, weighted_p99_us, max_us } = lengths;
            println!(
                "  {name}, {clock}: {count} round trips, p50 {p50_us:.1} us, p99 {p99_us:.1}, \
                 weighted p99 {weighted_p99_us:.1}, max {max_us:.1}"
            );
        }
    }
}

/// By how much the p99 and the weighted p99 grew.
fn ratios(rounds: &[Round], of: fn(&Window) -> Lengths) -> (f64, f64) {
    (
        median(rounds, |round| round.ratio(|window| of(window).p99_us)),
        median(rounds, |round| round.ratio(|window| of(window).weighted_p99_us)),
    )
}
