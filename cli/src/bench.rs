//! `hoststack bench`: measured work beside a peer in the same run, with goal and alarm beside each figure.

use std::io::Write;

use clap::{Args, ValueEnum};
use hoststack_benches::{Report, Suite, SuiteOptions, suite};

use crate::error::CliError;

/// Measure the stack beside smoltcp in the same process: connections, requests, streams, memory.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// What to measure [default: all, memory first].
    #[arg(value_enum)]
    work: Vec<WorkName>,
    /// Rounds of each pair; medians are reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// A tenth of the work: a look, not a measurement.
    #[arg(long)]
    quick: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WorkName {
    /// Open and close connections, alone and beside 100,000 idle ones.
    Conn,
    /// 64-byte requests and responses on 1 and 1000 connections; how long a connect takes.
    Rr,
    /// Streams: copied, in place, on 1000 connections.
    Bulk,
    /// Bytes that an idle session and a half-open take.
    Memory,
}

impl WorkName {
    /// Memory first: what other workloads freed would be used again and not be counted.
    const ALL: [WorkName; 4] = [WorkName::Memory, WorkName::Conn, WorkName::Rr, WorkName::Bulk];

    fn suite(self) -> Suite {
        match self {
            WorkName::Conn => Suite::Conn,
            WorkName::Rr => Suite::Rr,
            WorkName::Bulk => Suite::Bulk,
            WorkName::Memory => Suite::Memory,
        }
    }
}

/// Runs the workloads asked for and prints the report.
pub(crate) fn bench(args: &BenchArgs) -> Result<(), CliError> {
    let options = SuiteOptions { rounds: usize::from(args.rounds), quick: args.quick };
    let mut report = Report::new(options.rounds);
    if !report.machine.optimized {
        eprintln!(
            "hoststack bench: this is a debug build, its figures mean nothing: use cargo run --release"
        );
    }
    for work in WorkName::ALL.into_iter().filter(|work| args.work.is_empty() || args.work.contains(work)) {
        suite::run(work.suite(), &options, &mut report)
            .map_err(|error| CliError::failed(error.to_string()))?;
    }
    let text = if args.json { report.to_json() + "\n" } else { report.to_string() };
    // A reader that has gone away (`| head`) is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
