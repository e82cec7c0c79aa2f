//! The program `hoststack` as a black box, without privileges: what it prints, how it exits, what it leaves behind.

mod acts;
mod bench;
mod console;
mod echo;
mod log;
mod run;
mod scripting;
mod shows;
mod snapshots;
mod status;
mod tls;
mod top;
mod tutorial;
mod usage;

use std::process::{Command, Stdio};
use std::time::Duration;

use hoststack_tests::{Finished, Process, hoststack};

/// Time for any one run: generous, a busy machine with a build of assertions is slow.
const LIMIT: Duration = Duration::from_secs(240);

/// Starts `hoststack` with no standard input and no wish for logs.
fn start(arguments: &[&str]) -> Process {
    let mut command = Command::new(hoststack());
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG");
    Process::spawn(&format!("hoststack {}", arguments.join(" ")), command)
}

/// Runs `hoststack` to its end.
fn run(arguments: &[&str]) -> Finished {
    start(arguments).wait(LIMIT)
}
