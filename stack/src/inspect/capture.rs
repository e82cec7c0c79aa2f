//! Captures into files while the stack runs: what to capture, and what was.

use std::fmt;
use std::path::PathBuf;

use hoststack_net::{FilterError, PacketFilter};
use serde::Serialize;

/// Bytes of a capture's file that does not say how many.
pub const CAPTURE_BYTES_DEFAULT: u64 = 64 << 20;
/// The fewest bytes that a capture's file may be limited to: its headers and some packets fit.
pub const CAPTURE_BYTES_MIN: u64 = 4096;

/// What to capture, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureSpec {
    /// The file, in pcapng's format; an old one of that name is replaced.
    pub file: PathBuf,
    /// Which packets.
    pub filter: PacketFilter,
    /// Bytes of file after which the capture ends; at least [`CAPTURE_BYTES_MIN`].
    pub bytes_max: u64,
    /// Bytes kept of each packet.
    pub snap_len: u32,
    /// The time of the stack's start in microseconds since 1970; `None`: as the host's clock had it.
    pub epoch_us: Option<u64>,
}

impl CaptureSpec {
    /// Every packet, whole, until the file has [`CAPTURE_BYTES_DEFAULT`].
    pub fn new(file: impl Into<PathBuf>) -> CaptureSpec {
        CaptureSpec {
            file: file.into(),
            filter: PacketFilter::default(),
            bytes_max: CAPTURE_BYTES_DEFAULT,
            snap_len: 262_144,
            epoch_us: None,
        }
    }

    /// With what is said in words behind the file's name: a filter, and `size N` with a letter `k`, `M` or `G` (1024, its
    /// square, its cube).
    ///
    /// # Errors
    /// [`CaptureError::Filter`], [`CaptureError::Size`].
    pub fn with_words(mut self, words: &str) -> Result<CaptureSpec, CaptureError> {
        let mut filter = String::new();
        let mut words = words.split_whitespace();
        while let Some(word) = words.next() {
            if word == "size" {
                self.bytes_max = words.next().and_then(size).ok_or(CaptureError::Size)?;
            } else {
                filter.push_str(word);
                filter.push(' ');
            }
        }
        self.filter = filter.parse().map_err(CaptureError::Filter)?;
        if self.bytes_max < CAPTURE_BYTES_MIN { Err(CaptureError::Size) } else { Ok(self) }
    }
}

/// `4096`, `512k`, `64M`, `1G`.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = is_number.then(|| digits.parse().ok()).flatten()?;
    number.checked_mul(1 << shift)
}

/// Why a capture did not start or stop.
#[derive(Debug)]
pub enum CaptureError {
    /// The filter cannot be read.
    Filter(FilterError),
    /// The size is none, or too small.
    Size,
    /// Nothing can ever pass; the text says why.
    Nothing(String),
    /// The file cannot be written. What was captured before goes on.
    File {
        /// Its name.
        file: PathBuf,
        /// What the host said.
        error: std::io::Error,
    },
    /// A capture into this file was started and not stopped.
    Running(PathBuf),
    /// No capture was started.
    NotRunning,
    /// The stack has stopped.
    Stopped,
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaptureError::Filter(error) => error.fmt(f),
            CaptureError::Size => write!(
                f,
                "how large may the file grow? write `size N` with N from {CAPTURE_BYTES_MIN}, or like 512k, 64M, 1G"
            ),
            CaptureError::Nothing(why) => f.write_str(why),
            CaptureError::File { file, error } => write!(f, "cannot write {}: {error}", file.display()),
            CaptureError::Running(file) => {
                write!(f, "a capture into {} was started before: `pcap stop` it first", file.display())
            }
            CaptureError::NotRunning => f.write_str("no capture was started: `pcap start FILE` does"),
            CaptureError::Stopped => f.write_str("the stack has stopped"),
        }
    }
}

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CaptureError::File { error, .. } => Some(error),
            CaptureError::Filter(error) => Some(error),
            _ => None,
        }
    }
}

/// Whether a capture takes packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureState {
    /// It does.
    Running,
    /// The file is as large as it may grow.
    Full,
    /// A write failed.
    Failed,
    /// It was stopped.
    Stopped,
}

impl fmt::Display for CaptureState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CaptureState::Running => "running",
            CaptureState::Full => "full",
            CaptureState::Failed => "failed",
            CaptureState::Stopped => "stopped",
        })
    }
}

/// What a capture wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaptureReport {
    /// The file.
    pub file: String,
    /// Which packets, as one types it.
    pub filter: String,
    /// Whether it takes packets.
    pub state: CaptureState,
    /// Packets written.
    pub packets: u64,
    /// Bytes of file written.
    pub bytes: u64,
    /// Bytes of file after which it ends.
    pub bytes_max: u64,
    /// Packets that passed the filter and were not written: the disk was too slow, or the file was full.
    pub missed: u64,
    /// What the first failed write said.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_behind_the_file_are_a_filter_and_a_size() {
        let with = |words| CaptureSpec::new("x").with_words(words);
        let spec = with("tcp size 2M port 80").unwrap();
        assert_eq!((spec.filter.to_string().as_str(), spec.bytes_max), ("tcp port 80", 2 << 20));
        assert_eq!(with("").unwrap(), CaptureSpec::new("x"));
        assert_eq!(with("size 4096").unwrap().bytes_max, 4096);
        assert_eq!(with("size 1G").unwrap().bytes_max, 1 << 30);
        for words in
            ["size", "size 4095", "size M", "size 1T", "size -1", "size 99999999999999999G", "size 1é"]
        {
            assert!(with(words).unwrap_err().to_string().contains("`size N`"), "{words}");
        }
        assert!(with("prot 80").unwrap_err().to_string().contains("no filter word `prot`"));
    }
}
