//! How a sub-command fails: one line for standard error, and the exit status that goes with it.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// A failure of the program: what to say and how to exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CliError {
    /// The caller erred (arguments, configuration): exit status 2.
    Usage(String),
    /// Something went wrong: exit status 1.
    Failed(String),
    /// All was said already: exit status 1.
    Silent,
}

impl CliError {
    /// A mistake of the caller's; the text says what to do.
    pub(crate) fn usage(text: impl fmt::Display) -> CliError {
        CliError::Usage(text.to_string())
    }

    /// A failure; the text says what to do.
    pub(crate) fn failed(text: impl fmt::Display) -> CliError {
        CliError::Failed(text.to_string())
    }

    /// What is to be said; nothing if all was said already.
    pub(crate) fn text(&self) -> &str {
        match self {
            CliError::Usage(text) | CliError::Failed(text) => text,
            CliError::Silent => "",
        }
    }

    /// Prints what is to be said to standard error, and gives the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            CliError::Usage(text) => {
                complain(text);
                ExitCode::from(2)
            }
            CliError::Failed(text) => {
                complain(text);
                ExitCode::FAILURE
            }
            CliError::Silent => ExitCode::FAILURE,
        }
    }
}

/// A line on standard error. Nobody may read that any more (`2>&1 | head`): then the exit status has to do.
pub(crate) fn complain(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "hoststack: {text}");
}
