//! Scripts: what one TCP connection of a whole stack does, segment by segment and microsecond by microsecond.
//!
//! A script (`tests/scripts/*.pkt`, language in `docs/scripts.md`) plays the peer, the app and the clock. It sends
//! segments, calls the app's functions, and says which segments, callbacks, states and figures must follow, and when. Each
//! runs in a world of its own on virtual time, and ends with a look at what the stack still holds.
//!
//! Read [`grammar`] for the language, [`settings`] for what a script may set, [`mod@run`] for what each statement means;
//! [`world`] is the stack with its app and its wire.

pub mod app;
pub mod grammar;
pub mod run;
pub mod settings;
pub mod world;

use std::fmt;
use std::path::{Path, PathBuf};

pub use grammar::Script;
pub use run::run;

/// Why a script failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Line of the script, from 1; 0: after its end.
    pub line: usize,
    /// What was expected and what came.
    pub words: String,
    /// What had happened so far.
    pub log: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.line, self.words)?;
        self.log.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// Runs the script in a file; the log of what happened.
///
/// # Errors
/// The failure, also when the file cannot be read.
pub fn run_file(path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure {
        line: 0,
        words: format!("cannot be read: {error}"),
        log: Vec::new(),
    })?;
    run(&Script::parse(&text)?)
}

/// The scripts in a folder, by name.
///
/// # Errors
/// When the folder cannot be read.
pub fn scripts_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pkt"));
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
