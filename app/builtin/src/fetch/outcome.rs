//! What fetch tells: one outcome per request, and figures while it runs.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use hoststack_app::{CloseReason, ConnectError, ConnectFailure};

use crate::counters::Counter;
pub use crate::fetch::head::HeadError;

/// How a request ended. Each request has exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOutcome {
    /// Which request, by its place in the list that [`crate::Fetch::new`] was given.
    pub index: usize,
    /// The status code, if a head was read.
    pub status: Option<u16>,
    /// Bytes of the body received, whatever became of them.
    pub bytes: u64,
    /// What came of it.
    pub result: Result<Fetched, FetchError>,
}

impl FetchOutcome {
    /// A request that failed before anything was received.
    pub(crate) fn failed(index: u32, error: FetchError) -> FetchOutcome {
        FetchOutcome { index: index as usize, status: None, bytes: 0, result: Err(error) }
    }
}

/// Where the body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// In this file.
    File(PathBuf),
    /// Here.
    Memory(Vec<u8>),
    /// Nowhere.
    Discarded,
}

/// Why a request failed. No file is left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The host or path is empty or has a space, a control character or one beyond ASCII in it.
    BadRequest,
    /// Another request of the list writes to the same file.
    SameFile(PathBuf),
    /// The connect was not taken.
    NotTaken(ConnectError),
    /// The connect failed.
    Connect(ConnectFailure),
    /// The status is not 2xx. The body was not kept.
    Status {
        /// The status code.
        status: u16,
        /// For a redirect: where to. Redirects are not followed.
        location: Option<String>,
    },
    /// The head is not a response's, or is not understood.
    BadHead(HeadError),
    /// The chunked coding of the body is broken.
    BadChunks,
    /// The peer closed before it sent anything.
    NoResponse,
    /// The peer closed before the end.
    Truncated {
        /// Bytes of the body that came.
        received: u64,
        /// Bytes that the head promised; `None` if it was chunked, or the head itself was cut.
        expected: Option<u64>,
    },
    /// The connection was cut off.
    CutOff(CloseReason),
    /// Nothing came for as long as [`crate::FetchOptions::idle_timeout`].
    Stalled,
    /// The body is larger than [`crate::FetchOptions::memory_max`].
    TooLarge,
    /// A file could not be written.
    Io {
        /// Which.
        path: PathBuf,
        /// What kind of error.
        kind: io::ErrorKind,
        /// What the system said.
        message: String,
    },
    /// The app was detached before the request was done.
    Detached,
}

impl FetchError {
    /// A stable name in snake case, for scripts. A failed connect has the failure's name.
    pub fn name(&self) -> &'static str {
        match self {
            FetchError::BadRequest => "bad_request",
            FetchError::SameFile(_) => "same_file",
            FetchError::NotTaken(_) => "not_taken",
            FetchError::Connect(failure) => failure.name(),
            FetchError::Status { status: 300..400, .. } => "redirect",
            FetchError::Status { .. } => "status",
            FetchError::BadHead(_) => "bad_head",
            FetchError::BadChunks => "bad_chunks",
            FetchError::NoResponse => "no_response",
            FetchError::Truncated { .. } => "truncated",
            FetchError::CutOff(CloseReason::PeerReset) => "reset",
            FetchError::CutOff(_) => "cut_off",
            FetchError::Stalled => "stalled",
            FetchError::TooLarge => "too_large",
            FetchError::Io { .. } => "io",
            FetchError::Detached => "detached",
        }
    }

    pub(crate) fn io(path: PathBuf, error: &io::Error) -> FetchError {
        FetchError::Io { path, kind: error.kind(), message: error.to_string() }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::BadRequest => f.write_str(
                "the host or path is empty or has a character that cannot be sent: write it as %XX",
            ),
            FetchError::SameFile(path) => {
                write!(f, "another request writes to {}: give each its own file", path.display())
            }
            FetchError::NotTaken(error) => error.fmt(f),
            FetchError::Connect(failure) => failure.fmt(f),
            FetchError::Status { status, location: Some(location) } => {
                write!(f, "status {status}, moved to {location} (not followed: fetch that)")
            }
            FetchError::Status { status, location: None } => write!(f, "status {status}"),
            FetchError::BadHead(error) => write!(f, "the answer is not understood: {error}"),
            FetchError::BadChunks => {
                f.write_str("the answer is not understood: its chunked coding is broken")
            }
            FetchError::NoResponse => f.write_str("the server closed without an answer"),
            FetchError::Truncated { received, expected: Some(expected) } => {
                write!(f, "the server closed early: {received} of {expected} bytes came")
            }
            FetchError::Truncated { received, expected: None } => {
                write!(f, "the server closed early, after {received} bytes of the body")
            }
            FetchError::CutOff(reason) => write!(f, "the connection was cut off: {reason}"),
            FetchError::Stalled => {
                f.write_str("the server sent nothing for too long: raise the idle timeout")
            }
            FetchError::TooLarge => f.write_str("the body is too large for memory: fetch it to a file"),
            FetchError::Io { path, message, .. } => write!(f, "{}: {message}", path.display()),
            FetchError::Detached => f.write_str("the app was detached before it was done"),
        }
    }
}

impl std::error::Error for FetchError {}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchState {
    /// Not begun.
    Waiting,
    /// The connect was made.
    Connecting,
    /// Connected.
    Receiving,
    /// All of the body is where it should be.
    Done,
    /// It failed.
    Failed,
}

impl FetchState {
    const ALL: [FetchState; 5] = [
        FetchState::Waiting,
        FetchState::Connecting,
        FetchState::Receiving,
        FetchState::Done,
        FetchState::Failed,
    ];
}

/// Figures of every request. Any thread may read them while fetch runs.
#[derive(Debug)]
pub struct FetchStats {
    cells: Box<[FetchCell]>,
}

/// Totals of [`FetchStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchTotals {
    /// Requests.
    pub requests: usize,
    /// Requests that are under way.
    pub active: usize,
    /// Requests that succeeded.
    pub done: usize,
    /// Requests that failed.
    pub failed: usize,
    /// Bytes of bodies received.
    pub bytes: u64,
    /// Bytes of bodies that heads promised.
    pub bytes_expected: u64,
    /// Requests whose body's length is not known (yet).
    pub unknown_lengths: usize,
}

impl FetchStats {
    pub(crate) fn new(requests: usize) -> FetchStats {
        FetchStats { cells: (0..requests).map(|_| FetchCell::default()).collect() }
    }

    pub(crate) fn cell(&self, index: u32) -> &FetchCell {
        &self.cells[index as usize]
    }

    /// Where request `index` stands, its bytes received, and its bytes expected if that is known.
    pub fn request(&self, index: usize) -> Option<(FetchState, u64, Option<u64>)> {
        self.cells.get(index).map(|cell| (cell.state(), cell.bytes.value(), cell.expected()))
    }

    /// The totals as of now.
    pub fn totals(&self) -> FetchTotals {
        let mut totals = FetchTotals { requests: self.cells.len(), ..FetchTotals::default() };
        for cell in &self.cells {
            match cell.state() {
                FetchState::Waiting => {}
                FetchState::Connecting | FetchState::Receiving => totals.active += 1,
                FetchState::Done => totals.done += 1,
                FetchState::Failed => totals.failed += 1,
            }
            totals.bytes += cell.bytes.value();
            match cell.expected() {
                Some(expected) => totals.bytes_expected += expected,
                None => totals.unknown_lengths += 1,
            }
        }
        totals
    }
}

/// Figures of one request, written by whoever has it at the time.
#[derive(Debug, Default)]
pub(crate) struct FetchCell {
    state: AtomicU8,
    pub(crate) bytes: Counter,
    /// One more than the bytes expected; 0 while that is not known.
    expected: AtomicU64,
}

impl FetchCell {
    pub(crate) fn set_state(&self, state: FetchState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    fn state(&self) -> FetchState {
        FetchState::ALL[usize::from(self.state.load(Ordering::Relaxed))]
    }

    pub(crate) fn set_expected(&self, bytes: u64) {
        self.expected.store(bytes.saturating_add(1), Ordering::Relaxed);
    }

    fn expected(&self) -> Option<u64> {
        self.expected.load(Ordering::Relaxed).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_read_back_as_they_were_set() {
        let stats = FetchStats::new(1);
        for state in FetchState::ALL {
            stats.cell(0).set_state(state);
            assert_eq!(stats.request(0).unwrap().0, state);
        }
    }

    #[test]
    fn totals_tell_known_lengths_from_unknown_ones() {
        let stats = FetchStats::new(3);
        stats.cell(0).set_expected(0);
        stats.cell(1).set_expected(10);
        stats.cell(1).bytes.add(4);
        stats.cell(1).set_state(FetchState::Receiving);
        stats.cell(2).set_state(FetchState::Failed);
        let expected = FetchTotals {
            requests: 3,
            active: 1,
            done: 0,
            failed: 1,
            bytes: 4,
            bytes_expected: 10,
            unknown_lengths: 1,
        };
        assert_eq!(stats.totals(), expected);
    }

    // covers: H48
    #[test]
    fn a_failed_connect_is_named_by_its_failure_and_a_redirect_says_where_to() {
        assert_eq!(FetchError::Connect(ConnectFailure::TimedOut).name(), "timed_out");
        let moved = FetchError::Status { status: 302, location: Some("/there".into()) };
        assert_eq!(moved.name(), "redirect");
        assert!(moved.to_string().contains("/there"));
    }
}
