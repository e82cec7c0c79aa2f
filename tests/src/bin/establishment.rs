//! The enumeration of establishment: `cargo run --release -p hoststack-tests --bin establishment -- --help`.

use std::process::ExitCode;

use clap::Parser;
use hoststack_tests::establishment::table::trace;
use hoststack_tests::establishment::{Cell, Choice, Run, Table};
use hoststack_tests::wait::Stopwatch;

/// Runs every cell of establishment with every action at every boundary.
#[derive(Debug, Parser)]
struct Args {
    /// Runs this one only, and prints everything that happens: `17`, or `17/cancel@5` with an action at a boundary.
    #[arg(long)]
    cell: Option<String>,
    /// Every so many of the cells.
    #[arg(long, default_value_t = 1)]
    every: usize,
    /// Of those, every so many meets actions at every boundary; 0: none does.
    #[arg(long, default_value_t = 1)]
    acted: usize,
    /// Threads; default: one for each core.
    #[arg(long)]
    threads: Option<usize>,
    /// Ends when so many runs broke.
    #[arg(long, default_value_t = 1000)]
    broken_max: usize,
    /// Prints the table of outcomes.
    #[arg(long)]
    table: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(name) = &args.cell {
        let Some(run) = Run::parse(name, &Cell::all()) else {
            eprintln!("no run is called {name}");
            return ExitCode::FAILURE;
        };
        let (result, log) = trace(&run);
        println!("{run}\n{}", log.join("\n"));
        return match result {
            Ok(ran) => {
                println!("{}: {} boundaries\n{}", ran.outcome, ran.boundaries, ran.trace);
                ExitCode::SUCCESS
            }
            Err(broken) => {
                println!("{}", broken.0);
                ExitCode::FAILURE
            }
        };
    }
    // Panics are findings: they are told with the others.
    std::panic::set_hook(Box::new(|_| {}));
    let watch = Stopwatch::start();
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
    let choice = Choice { every: args.every.max(1), acted: args.acted, broken_max: args.broken_max };
    let table = Table::of(threads, choice);
    if args.table {
        println!("{}", table.text());
    }
    println!(
        "{} runs of {} cells in {:.1} s; {} cells of the product are the same run as one of these, or impossible",
        table.runs,
        table.cells,
        watch.elapsed().as_secs_f64(),
        table.pruned
    );
    if table.broken.is_empty() {
        println!("all is as it should be");
        return ExitCode::SUCCESS;
    }
    println!("{}", table.findings());
    ExitCode::FAILURE
}
