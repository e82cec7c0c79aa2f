//! How far the stack conforms, in one page: `cargo run --release -p hoststack-tests --bin conformance -- --help`.

use std::process::ExitCode;

use clap::Parser;
use hoststack_tests::binary::workspace_root;
use hoststack_tests::conformance::{Conformance, RFC_PAGE, SCRIPTS, count_scripts};
use hoststack_tests::goodput::table::SNAPSHOT;
use hoststack_tests::goodput::{Cell, Pair, Table};

/// Sums up the requirements of RFC 9293, the scripts and the goodput table. The exit code is 1 when a part is not there, or a
/// MUST has neither code nor test nor reason.
#[derive(Debug, Parser)]
struct Args {
    /// Runs the goodput table anew instead of reading its snapshot.
    #[arg(long)]
    measure: bool,
    /// Prints one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A file that is not there is an empty one: the summary says so.
    let read = |path: &str| std::fs::read_to_string(workspace_root().join(path)).unwrap_or_default();
    let goodput = if args.measure {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Table::run(&Cell::all(), &Pair::all(), threads).text()
    } else {
        read(SNAPSHOT)
    };
    let scripts = count_scripts(&workspace_root().join(SCRIPTS));
    let summary = Conformance::new(&read(RFC_PAGE), &goodput, scripts);
    if args.json {
        println!("{}", summary.json());
    } else {
        print!("{summary}");
    }
    if summary.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
