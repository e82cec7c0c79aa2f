//! The seeded simulator: `cargo run --release -p hoststack-tests --bin sim -- --help`.

use std::process::ExitCode;

use clap::Parser;
use hoststack_tests::sim::{Options, fresh_seed, run, run_range};
use hoststack_tests::wait::Stopwatch;

/// Runs worlds of stacks, wires, faults and wild apps, and says what must not be.
#[derive(Debug, Parser)]
struct Args {
    /// One world, by its seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Many worlds: `from..to`, or `fresh+count` for some that nobody has run.
    #[arg(long, value_parser = range, default_value = "0..1000")]
    seeds: std::ops::Range<u64>,
    /// Steps after which a world's first phase ends, whatever has happened.
    #[arg(long, default_value_t = 100_000)]
    steps: u64,
    /// Begins no world after so many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Stops at so many violations.
    #[arg(long, default_value_t = 20)]
    violations: usize,
    /// Threads, each with a world of its own.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Prints every step, segment, callback and action; with --seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Prints the coverage tables; a cell that is empty and not known to be impossible is an error.
    #[arg(long)]
    coverage: bool,
    /// Prints one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("{text} is not a number"));
    if let Some(count) = text.strip_prefix("fresh+") {
        let from = fresh_seed();
        return Ok(from..from.saturating_add(number(count)?));
    }
    let (from, to) = text.split_once("..").ok_or("write from..to or fresh+count")?;
    Ok(number(from)?..number(to)?)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options { steps: args.steps, trace: args.trace, coverage: args.coverage };
    if let (Some(seed), true) = (args.seed, args.trace) {
        return match run(seed, &options) {
            Ok(summary) => {
                println!("{summary:?}");
                ExitCode::SUCCESS
            }
            Err(violation) => {
                println!("{violation}");
                ExitCode::FAILURE
            }
        };
    }
    let seeds = args.seed.map_or(args.seeds, |seed| seed..seed.saturating_add(1));
    let watch = Stopwatch::start();
    let is_late = || args.minutes.is_some_and(|minutes| watch.elapsed().as_secs_f64() > minutes * 60.0);
    let totals = run_range(
        seeds,
        &options,
        args.threads,
        |totals| totals.violations.len() >= args.violations || is_late(),
        |violation| {
            if !args.json {
                println!("{violation}");
            }
        },
    );
    let seconds = watch.elapsed().as_secs_f64();
    let gaps = if args.coverage { totals.coverage.gaps() } else { Vec::new() };
    if args.json {
        let json = serde_json::json!({
            "worlds": totals.worlds,
            "steps": totals.steps,
            "connects": totals.connects,
            "established": totals.established,
            "sessions": totals.sessions,
            "faults": totals.faults,
            "seconds": seconds,
            "violations": totals.violations.iter().map(|v| serde_json::json!({
                "seed": v.seed, "step": v.step, "time_us": v.time_us, "what": v.what, "world": v.draw,
            })).collect::<Vec<_>>(),
            "gaps": gaps,
        });
        println!("{json}");
    } else {
        if args.coverage {
            println!("{}", totals.coverage.tables());
            gaps.iter().for_each(|gap| println!("never seen: {gap}"));
        }
        println!(
            "{} worlds, {} steps, {} connects ({} established), {} sessions, {} violations, {seconds:.1} s",
            totals.worlds,
            totals.steps,
            totals.connects,
            totals.established,
            totals.sessions,
            totals.violations.len()
        );
        let faults: Vec<String> =
            totals.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("faults that struck: {}", faults.join(", "));
    }
    if totals.violations.is_empty() && gaps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
