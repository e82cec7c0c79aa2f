//! Results on standard output.

use std::io::{self, Write};

use crate::error::CliError;

/// Writes to standard output; a reader that has left (`| head`) is no failure.
///
/// # Errors
/// Anything else that writing said.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    print_on(text).map(|_| ())
}

/// As [`print()`]; whether somebody still reads, for what goes on and on.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_on(text: &str) -> Result<bool, CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::failed(format!("cannot write to standard output: {error}"))),
    }
}
