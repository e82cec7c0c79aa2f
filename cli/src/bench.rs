//! `hoststack bench`: measured work beside a peer in the same run, with goal and alarm beside each figure.
//! `bench conn --transport ...` is its own run: what a connection costs over each transport, side by side.

use std::io::Write;

use clap::{Args, ValueEnum};
use hoststack_benches::ours::Via;
use hoststack_benches::{Report, Suite, SuiteOptions, suite};

use crate::error::CliError;

/// Measure the stack beside smoltcp in the same process: connections, requests, streams, memory.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// What to measure [default: all, memory first].
    #[arg(value_enum)]
    work: Vec<WorkName>,
    /// What a connection costs over these transports instead, each beside its peer, all in one run (with `conn` alone):
    /// the host's sockets beside a bare epoll loop, fifo to fifo beside the stack's own TCP, that beside smoltcp.
    #[arg(long, value_enum, value_delimiter = ',')]
    transport: Vec<TransportName>,
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
enum TransportName {
    /// The stack's own TCP, through an in-memory wire.
    Tcp,
    /// TCP sockets of the host, over its loopback interface.
    Kernel,
    /// Unix stream sockets of the host.
    #[value(name = "kernel+unix")]
    KernelUnix,
    /// Fifo to fifo in the stack.
    Local,
}

impl TransportName {
    fn via(self) -> Via {
        match self {
            TransportName::Tcp => Via::Tcp,
            TransportName::Kernel => Via::KernelTcp,
            TransportName::KernelUnix => Via::KernelUnix,
            TransportName::Local => Via::Local,
        }
    }
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
    if !args.transport.is_empty() && args.work != [WorkName::Conn] {
        return Err(CliError::usage(
            "--transport says how connections are opened: hoststack bench conn --transport ...",
        ));
    }
    let options = SuiteOptions { rounds: usize::from(args.rounds), quick: args.quick };
    let mut report = Report::new(options.rounds);
    if !report.machine.optimized {
        eprintln!(
            "hoststack bench: this is a debug build, its figures mean nothing: use cargo run --release"
        );
    }
    let vias = vias(args);
    if !vias.is_empty() {
        suite::transports(&vias, &options, &mut report)
            .map_err(|error| CliError::failed(error.to_string()))?;
        return print(args, &report);
    }
    for work in WorkName::ALL.into_iter().filter(|work| args.work.is_empty() || args.work.contains(work)) {
        suite::run(work.suite(), &options, &mut report)
            .map_err(|error| CliError::failed(error.to_string()))?;
    }
    print(args, &report)
}

/// The transports asked for, each once.
fn vias(args: &BenchArgs) -> Vec<Via> {
    let mut vias: Vec<Via> = Vec::new();
    for via in args.transport.iter().map(|name| name.via()) {
        if !vias.contains(&via) {
            vias.push(via);
        }
    }
    vias
}

fn print(args: &BenchArgs, report: &Report) -> Result<(), CliError> {
    let text = if args.json { report.to_json() + "\n" } else { report.to_string() };
    // A reader that has gone away (`| head`) is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
