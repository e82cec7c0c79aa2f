//! Silent clients, greeted and told, by the million: `cargo run --release -p hoststack-tests --bin announced -- --help`.

use std::process::ExitCode;

use clap::Parser;
use hoststack_tests::announced::{Route, Slice, Totals, run_slice};
use hoststack_tests::wait::Stopwatch;

/// Connects with a PROXY header pending and a client that says nothing, and says which was not announced.
#[derive(Debug, Parser)]
struct Args {
    /// What they go over; repeat it for several. Without it: each in turn.
    #[arg(long = "transport", value_enum)]
    routes: Vec<Route>,
    /// Connects over each.
    #[arg(long, default_value_t = 100_000)]
    connects: u64,
    /// The number of the first.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..1 << 39))]
    from: u64,
    /// Connects of a slice, each of which is a stack of its own.
    #[arg(long, default_value_t = 250_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    slice: u64,
    /// Connects that each worker keeps under way.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Begins no slice after so many minutes.
    #[arg(long)]
    minutes: Option<f64>,
}

/// A JSON object for each transport on the standard output, the slices on the other.
fn main() -> ExitCode {
    let args = Args::parse();
    let watch = Stopwatch::start();
    let is_late = || args.minutes.is_some_and(|minutes| watch.elapsed().as_secs_f64() > minutes * 60.0);
    let routes = if args.routes.is_empty() { Route::ALL.to_vec() } else { args.routes.clone() };
    for route in routes {
        let mut all = Totals::default();
        while all.connects < args.connects && !is_late() {
            let count = args.slice.min(args.connects - all.connects);
            let slice = Slice {
                in_flight: args.in_flight.max(1),
                // Cannot cut: a slice is ten million at most.
                ..Slice::new(route, args.from + all.connects, count as usize)
            };
            match run_slice(slice) {
                Ok(totals) => {
                    eprintln!("{}", totals.json(route, slice.from));
                    all.merge(&totals);
                }
                Err(failure) => {
                    eprintln!("{failure}");
                    return ExitCode::FAILURE;
                }
            }
        }
        println!("{}", all.json(route, args.from));
    }
    ExitCode::SUCCESS
}
