//! SIGINT and SIGTERM: the first asks for a clean end, a second SIGINT ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
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

/// Signals for a program that waits for them and does nothing else.
pub(crate) struct EndSignals {
    signals: Signals,
    /// Whether the end was asked for.
    asked: Arc<AtomicBool>,
}

impl EndSignals {
    /// Catches SIGINT and SIGTERM from now on; SIGHUP as well if `with_hangup`.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub(crate) fn catch(with_hangup: bool) -> Result<EndSignals, CliError> {
        let asked = Arc::new(AtomicBool::new(false));
        // Not SIGTERM: there are programs that send it twice, to the process and to its group.
        signal_hook::flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&asked)).map_err(failed)?;
        let caught = [SIGINT, SIGTERM].into_iter().chain(with_hangup.then_some(SIGHUP));
        let signals = Signals::new(caught).map_err(failed)?;
        Ok(EndSignals { signals, asked })
    }

    /// Sleeps until the end is asked for, and says by which signal; `on_hangup` is called for each SIGHUP before. From then on
    /// a SIGINT, of whoever does not want to wait for a clean end, ends the process at once.
    pub(crate) fn wait(&mut self, mut on_hangup: impl FnMut()) -> &'static str {
        let end = self.signals.forever().find_map(|signal| match signal {
            SIGHUP => {
                on_hangup();
                None
            }
            SIGINT => Some("SIGINT"),
            _ => Some("SIGTERM"),
        });
        self.asked.store(true, Ordering::Relaxed);
        // Cannot be missing because: nobody closes the signals.
        end.unwrap_or("SIGTERM")
    }
}

fn failed(error: io::Error) -> CliError {
    CliError::failed(format!("cannot catch SIGINT and SIGTERM: {error}"))
}
