//! The program's log: which events, in which form, to where, and how that is changed while it runs.
//!
//! What is logged by the stack comes from its threads, which may not wait: in [`start`]'s log a thread of its own writes the
//! lines, and those that it cannot keep up with are lost and counted. Commands that end by themselves have
//! [`start_plain`], which writes at once.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::error::CliError;

/// Lines that wait to be written: some hundred kilobytes, a second's worth of a busy server.
const LINES_MAX: usize = 8192;
/// How long the end of the program waits for lines that were not written yet.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// The target of what the log says of itself.
const NOTES: &str = "hoststack::log";
/// The target of the lines of sessions' ends.
const SESSIONS: &str = "hoststack::session";

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// A line for people.
    #[default]
    Human,
    /// An object a line: `timestamp`, `level`, `target`, `message`, and the event's fields beside them.
    Json,
}

/// What a log is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogSetup {
    /// Which events, see [`filter`].
    pub(crate) filter: String,
    /// In which form.
    pub(crate) format: LogFormat,
    /// The file that lines are added to; `None`: standard error.
    pub(crate) file: Option<PathBuf>,
    /// With the lines of sessions' ends, whatever the filter says of others.
    pub(crate) sessions: bool,
}

/// The filter in the environment variable RUST_LOG, or `default`.
pub(crate) fn from_environment(default: &str) -> String {
    std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty()).unwrap_or(default.to_owned())
}

/// Reads a filter: levels, or targets with levels, with commas between.
///
/// # Errors
/// What is wrong, and what to type instead.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, String> {
    let expected = "expected a level (off, error, warn, info, debug, trace), or TARGET=LEVEL, or several with commas \
                    between, as in info,hoststack_tcp=debug";
    let bad = |why: &str| Err(format!("{text:?} is no log filter: {why}: {expected}"));
    if text.trim().is_empty() {
        return bad("it is empty");
    }
    for directive in text.split(',').map(str::trim) {
        if directive.is_empty() {
            return bad("something is missing beside a comma");
        }
        // To the parser a mistyped level is a target's name, for which nothing is ever logged.
        let is_bare = !directive.contains(['=', '[', ':', '_']) && !directive.starts_with("hoststack");
        if is_bare && directive.parse::<LevelFilter>().is_err() {
            return bad(&format!("{directive:?} is no level"));
        }
    }
    EnvFilter::builder().parse(text).or_else(|error| bad(&error.to_string()))
}

/// Changes what is logged, from any thread.
#[derive(Debug)]
pub(crate) struct LogControl {
    handle: reload::Handle<EnvFilter, Registry>,
    now: Mutex<Now>,
}

/// What is logged now.
#[derive(Clone, Debug)]
struct Now {
    filter: String,
    sessions: bool,
}

impl LogControl {
    /// From now on the events that `filter` lets through are logged.
    ///
    /// # Errors
    /// What is wrong with it, and what to type; what was logged so far goes on being logged.
    pub(crate) fn set_filter(&self, filter: &str) -> Result<(), String> {
        self.change(|now| filter.clone_into(&mut now.filter))
    }

    /// From now on the lines of sessions' ends are logged whatever the filter says of others, or no longer so.
    ///
    /// # Errors
    /// The log has ended.
    pub(crate) fn set_sessions(&self, sessions: bool) -> Result<(), String> {
        self.change(|now| now.sessions = sessions)
    }

    fn change(&self, change: impl FnOnce(&mut Now)) -> Result<(), String> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = now.clone();
        change(&mut new);
        let filter = with_sessions(&new.filter, new.sessions)?;
        self.handle.reload(filter).map_err(|error| format!("the log cannot be changed any more: {error}"))?;
        *now = new;
        Ok(())
    }

    /// The filter as it was given last.
    pub(crate) fn filter(&self) -> String {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).filter.clone()
    }
}

/// A filter that lets the lines of sessions' ends through as well, unless it says something of them itself.
fn with_sessions(text: &str, sessions: bool) -> Result<EnvFilter, String> {
    let read = filter(text)?;
    if !sessions || text.contains(SESSIONS) {
        return Ok(read);
    }
    filter(&format!("{text},{SESSIONS}=info"))
}

/// The log of a command that ends by itself: warnings, or what RUST_LOG says, on standard error.
pub(crate) fn start_plain() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    let ansi = is_coloured();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(ansi).init();
}

/// Whether lines on standard error may have colours: on a terminal whose user has not set NO_COLOR.
fn is_coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A log that was started; dropped, it waits until what was logged is written.
pub(crate) struct Log {
    control: Arc<LogControl>,
    lines: Sender<Line>,
}

impl Log {
    /// What changes it while it runs.
    pub(crate) fn control(&self) -> Arc<LogControl> {
        Arc::clone(&self.control)
    }

    /// Has the file opened anew, by its name: what was moved away by then is written no more. Lines that came before are
    /// still written to the old one. One that cannot be opened is told in the old one, which stays.
    pub(crate) fn reopen(&self) {
        // The thread ends with the last sender, which is not this one.
        let _ = self.lines.send(Line::Reopen);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (done, wait) = bounded(1);
        if self.lines.send_timeout(Line::Flush(done), FLUSH_MAX).is_ok() {
            // A writer that hangs has had its time.
            let _ = wait.recv_timeout(FLUSH_MAX);
        }
    }
}

/// Starts the log of a command that runs on.
///
/// # Errors
/// A bad filter, a file that cannot be written.
pub(crate) fn start(setup: &LogSetup) -> Result<Log, CliError> {
    let (layer, log) = build(setup)?;
    tracing_subscriber::registry().with(layer.filter).with(layer.lines).init();
    Ok(log)
}

/// The layers of a log.
struct Layers {
    filter: reload::Layer<EnvFilter, Registry>,
    lines: Box<dyn Layer<Filtered> + Send + Sync>,
}

type Filtered = tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;

fn build(setup: &LogSetup) -> Result<(Layers, Log), CliError> {
    let LogSetup { filter, format, file, sessions } = setup;
    let read = with_sessions(filter, *sessions).map_err(CliError::usage)?;
    let sink: Box<dyn Write + Send> = match file {
        Some(file) => Box::new(append(file)?),
        None => Box::new(io::stderr()),
    };
    let ansi = file.is_none() && is_coloured();
    let (lines, waiting) = bounded(LINES_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    let writer = Writer { waiting, sink, file: file.clone(), lost: Arc::clone(&lost), format: *format };
    thread::Builder::new()
        .name("log".into())
        .spawn(move || writer.run())
        .map_err(|error| CliError::failed(format!("no thread for the log: {error}")))?;
    let (filter_layer, handle) = reload::Layer::new(read);
    let to = Lines { lines: lines.clone(), lost };
    let layer: Box<dyn Layer<Filtered> + Send + Sync> = match format {
        LogFormat::Human => Box::new(fmt::layer().with_ansi(ansi).with_writer(to)),
        LogFormat::Json => Box::new(fmt::layer().json().flatten_event(true).with_writer(to)),
    };
    let control =
        Arc::new(LogControl { handle, now: Mutex::new(Now { filter: filter.clone(), sessions: *sessions }) });
    Ok((Layers { filter: filter_layer, lines: layer }, Log { control, lines }))
}

fn append(file: &Path) -> Result<File, CliError> {
    let open = OpenOptions::new().create(true).append(true).open(file);
    open.map_err(|error| CliError::failed(format!("cannot write the log {}: {error}", file.display())))
}

enum Line {
    Text(Vec<u8>),
    /// Answered when all that came before is written.
    Flush(Sender<()>),
    /// The file was moved away.
    Reopen,
}

/// Where the events of all threads go: to the thread that writes.
#[derive(Clone)]
struct Lines {
    lines: Sender<Line>,
    lost: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = OneLine<'a>;

    fn make_writer(&'a self) -> OneLine<'a> {
        OneLine { to: self, text: Vec::with_capacity(256) }
    }
}

/// One event under way.
struct OneLine<'a> {
    to: &'a Lines,
    text: Vec<u8>,
}

impl Write for OneLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OneLine<'_> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if let Err(TrySendError::Full(_)) = self.to.lines.try_send(Line::Text(text)) {
            self.to.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The thread that writes.
struct Writer {
    waiting: Receiver<Line>,
    sink: Box<dyn Write + Send>,
    file: Option<PathBuf>,
    lost: Arc<AtomicU64>,
    format: LogFormat,
}

impl Writer {
    fn run(mut self) {
        // Ends with the last sender.
        while let Ok(line) = self.waiting.recv() {
            match line {
                Line::Text(text) => self.write(&text),
                Line::Flush(done) => {
                    let _ = self.sink.flush();
                    let _ = done.send(());
                }
                Line::Reopen => self.reopen(),
            }
        }
    }

    fn write(&mut self, text: &[u8]) {
        if self.sink.write_all(text).is_err() {
            // A full disk: nobody else is to be told.
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let told = "lines of the log were lost: they could not be written in time";
        if lost > 0 && self.note(told, ("lost", lost.into())).is_err() {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    fn reopen(&mut self) {
        let Some(file) = &self.file else { return };
        match append(file) {
            Ok(file) => self.sink = Box::new(file),
            Err(error) => {
                // A full disk as well: nobody else is to be told.
                let _ = self.note("the log goes on in its old file", ("error", error.text().into()));
            }
        }
    }

    /// A line of the log's own, in the form of all others.
    fn note(&mut self, message: &str, (name, value): (&str, serde_json::Value)) -> io::Result<()> {
        let mut timestamp = String::new();
        // Without the time, should it not be told, there is still the message.
        let _ = fmt::time::SystemTime.format_time(&mut fmt::format::Writer::new(&mut timestamp));
        let line = match self.format {
            LogFormat::Human => format!("{timestamp}  WARN {NOTES}: {message} {name}={value}\n"),
            LogFormat::Json => {
                let mut line = serde_json::json!({
                    "timestamp": timestamp, "level": "WARN", "target": NOTES, "message": message,
                });
                line[name] = value;
                format!("{line}\n")
            }
        };
        self.sink.write_all(line.as_bytes())
    }
}

#[cfg(test)]
mod tests;
