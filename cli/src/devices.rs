//! Devices from their names.

use std::path::Path;
use std::sync::Arc;

use hoststack::net::pcap::FlushPolicy;
use hoststack::net::{Capture, Device, PcapOptions, PcapWriter, Tap, TapConfig, capture};

use crate::clock;
use crate::error::{CliError, complain};

/// Opens the TAP of this name, and sets its kernel end up.
///
/// # Errors
/// What is in the way, and what to do about it.
pub(crate) fn tap(name: &str, multi_queue: bool) -> Result<Tap, CliError> {
    let config = TapConfig { name: name.to_owned(), multi_queue, bring_up: true, ..TapConfig::default() };
    Tap::open(&config).map_err(CliError::failed)
}

/// Lets this process have as many sockets as the host allows without more rights: two for each connection within it.
pub(crate) fn allow_many_sockets() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // What does not go leaves the limit as it is, and connects beyond it say that there is no room.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// A capture into `file` that has begun; wrap devices with [`captured`].
///
/// # Errors
/// The file cannot be written.
pub(crate) fn start_capture(file: &Path) -> Result<Arc<Capture>, CliError> {
    let options = PcapOptions {
        epoch_us: clock::unix_micros(),
        flush: FlushPolicy::EveryBatch,
        ..PcapOptions::default()
    };
    let failed = |error| CliError::failed(format!("cannot write the capture {}: {error}", file.display()));
    let writer = PcapWriter::create(file, options).map_err(failed)?;
    let point = Capture::new();
    point.start(writer).map_err(failed)?;
    Ok(point)
}

/// The device, captured if there is a capture.
pub(crate) fn captured(device: impl Device + 'static, point: Option<&Arc<Capture>>) -> Box<dyn Device> {
    match point {
        Some(point) => Box::new(capture(Box::new(device), point)),
        None => Box::new(device),
    }
}

/// Ends a capture, and says so if packets are missing in it.
pub(crate) fn end_capture(point: Option<&Arc<Capture>>) {
    let Some(summary) = point.and_then(|point| point.stop()) else { return };
    if let Some(error) = summary.error {
        complain(format_args!("the capture is incomplete, {} packets are missing: {error}", summary.missed));
    }
}
