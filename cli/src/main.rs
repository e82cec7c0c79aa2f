//! The binary `hoststack`: the stack's apps, its benchmarks and its debug CLI, from a shell.
//!
//! A file per sub-command: [`echo`], [`fetch`], [`run`], [`mod@bench`], [`ctl`], [`top`];
//! [`status`] is the page of a stack that [`run`] started. What they share: [`host`] (a stack with or
//! without threads), [`devices`], [`parse`] (values), [`mod@log`], [`table`], [`plain`] (text from elsewhere), [`progress`] and [`output`] (what is shown), [`interrupt`] (signals).
//!
//! Exit status: 0 all went well, 1 something failed, 2 bad usage or configuration. Standard output carries results
//! only; everything else goes to standard error.
#![forbid(unsafe_code)]

mod bench;
mod clock;
mod ctl;
mod devices;
mod echo;
mod error;
mod fetch;
mod host;
mod interrupt;
mod log;
mod output;
mod parse;
mod plain;
mod progress;
mod run;
mod status;
mod table;
mod top;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A multi-core TCP/IP host stack with a session layer, in user space.
///
/// Logs go to standard error; the environment variable RUST_LOG says which (default: warn). `run` has a
/// section for them in its configuration.
#[derive(Debug, Parser)]
#[command(name = "hoststack", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Echo(echo::EchoArgs),
    Fetch(fetch::FetchArgs),
    Run(run::RunArgs),
    Bench(bench::BenchArgs),
    Ctl(ctl::client::CtlArgs),
    Top(top::TopArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // `run` starts the log that its configuration asks for.
    if !matches!(cli.command, Command::Run(_)) {
        log::start_plain();
    }
    let result = match &cli.command {
        Command::Echo(args) => echo::echo(args),
        Command::Fetch(args) => fetch::fetch(args),
        Command::Run(args) => run::run(args),
        Command::Bench(args) => bench::bench(args),
        Command::Ctl(args) => ctl::client::ctl(args),
        Command::Top(args) => top::top(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
