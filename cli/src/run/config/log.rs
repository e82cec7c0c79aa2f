//! `[log]`: what the program logs, in which form, to where.

use std::path::PathBuf;

use toml::Spanned;

use super::{Mistake, mistake};
use crate::log::{self, LogFormat, LogSetup};

/// `[log]`. Without this section warnings are logged, or what RUST_LOG says, to standard error.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogConfig {
    /// Which events: levels, or targets with levels, with commas between. Default: what RUST_LOG says, or `info`.
    filter: Option<Spanned<String>>,
    /// `human` or `json`. Default `human`.
    #[serde(default)]
    format: LogFormat,
    /// The file that lines are added to. Default: standard error.
    file: Option<PathBuf>,
    /// A line for each session at its end, and for each connect that failed. Default false.
    #[serde(default)]
    sessions: bool,
}

impl LogConfig {
    /// Whether it can be done.
    ///
    /// # Errors
    /// A filter that is none.
    pub(super) fn check(&self) -> Result<(), Mistake> {
        match &self.filter {
            Some(text) => log::filter(text.get_ref()).map(|_| ()).or_else(|error| mistake(text, error)),
            None => Ok(()),
        }
    }
}

/// What the log is to be, with or without the section.
pub(crate) fn setup(section: Option<&LogConfig>) -> LogSetup {
    let Some(LogConfig { filter, format, file, sessions }) = section else {
        return LogSetup {
            filter: log::from_environment("warn"),
            format: LogFormat::Human,
            file: None,
            sessions: false,
        };
    };
    LogSetup {
        filter: filter
            .as_ref()
            .map_or_else(|| log::from_environment("info"), |filter| filter.get_ref().clone()),
        format: *format,
        file: file.clone(),
        sessions: *sessions,
    }
}
