//! SIGINT and SIGTERM: the first asks for a clean end, a second SIGINT ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::CliError;

/// Whether the user asked for the end.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches both signals from now on. A second one, while the first is being obeyed, ends the process.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub(crate) fn catch() -> Result<Interrupt, CliError> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Registered first, so that it sees whether there was one before this one.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked))
                .map_err(failed)?;
            signal_hook::flag::register(signal, Arc::clone(&asked)).map_err(failed)?;
        }
        Ok(Interrupt(asked))
    }

    /// Whether the end was asked for.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Both signals, for a program that waits for them and does nothing else.
pub(crate) struct EndSignals(Signals);

impl EndSignals {
    /// Catches both signals from now on.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub(crate) fn catch() -> Result<EndSignals, CliError> {
        Signals::new([SIGINT, SIGTERM]).map(EndSignals).map_err(failed)
    }

    /// Sleeps until one arrives; its name.
    pub(crate) fn wait(&mut self) -> &'static str {
        match self.0.forever().next() {
            Some(SIGINT) => "SIGINT",
            _ => "SIGTERM",
        }
    }
}

fn failed(error: io::Error) -> CliError {
    CliError::failed(format!("cannot catch SIGINT and SIGTERM: {error}"))
}
