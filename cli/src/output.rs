//! Results on standard output.

use std::io::{self, Write};

use crate::error::CliError;

/// Writes to standard output; a reader that has left (`| head`) is no failure.
///
/// # Errors
/// Anything else that writing said.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
