//! Runs scripts: `cargo run -p hoststack-tests --bin script -- [--trace] FILE...`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hoststack_tests::scripts::run_file;

/// Runs scripts (docs/scripts.md), each in a stack of its own on virtual time.
#[derive(Debug, Parser)]
struct Args {
    /// Prints what happened also when a script passes.
    #[arg(long)]
    trace: bool,
    /// The scripts.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut failed = 0;
    for path in &args.files {
        let file = path.display();
        match run_file(path) {
            Ok(log) => {
                println!("{file}: passes");
                if args.trace {
                    log.iter().for_each(|line| println!("    {line}"));
                }
            }
            Err(failure) => {
                failed += 1;
                print!("{file}:{failure}");
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
