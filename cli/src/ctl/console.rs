//! What a command is given, and what it gives back.
//!
//! A command answers with a value that can be shown ([`Show`]), or with any number of them, each handed over as it is ready
//! ([`Console::part`]): a walk over a million sessions is never gathered in memory, and what follows the stack goes on
//! until the client has had enough ([`Console::wait`]).

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hoststack::{Answer, Query, StackHandle};
use serde_json::Value;

use super::commands::options::Runtime;
use super::format;
use super::line::Filter;
use super::server::SocketState;
use super::wire::Format;
use crate::clock::Stopwatch;
use crate::log::LogControl;
use crate::plain;

/// What a socket's clients may do.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Read.
    User,
    /// Act, too.
    #[default]
    Operator,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::User => "user",
            Level::Operator => "operator",
        })
    }
}

/// An answer: aligned text for people, JSON for programs.
pub(crate) trait Show {
    /// Lines, each ended by a line feed.
    fn text(&self) -> String;

    /// The same, and often more; fields are added and never taken away.
    fn json(&self) -> Value;

    /// Lines at the beginning of the text that filters let pass: headings.
    fn headings(&self) -> usize {
        1
    }
}

/// What a command gave back.
pub(crate) enum Output {
    /// Its answer.
    One(Box<dyn Show>),
    /// All was handed over with [`Console::part`].
    Streamed,
}

impl Output {
    /// An answer.
    pub(crate) fn one(show: impl Show + 'static) -> Result<Output, CommandError> {
        Ok(Output::One(Box::new(show)))
    }
}

/// Why a command was not done.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// It could not be; says what to do.
    Failed(String),
    /// The client has gone or does not read: nobody is there to be told.
    Gone(io::Error),
}

impl CommandError {
    /// It could not be done; the text says what to do.
    pub(crate) fn failed(text: impl fmt::Display) -> CommandError {
        CommandError::Failed(text.to_string())
    }
}

/// A setting of the running program, for `show config`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Setting {
    /// Its key, as `app[0].name`.
    pub(crate) key: String,
    /// Its value, as the configuration file would have it.
    pub(crate) value: String,
    /// `file` or `default`.
    pub(crate) source: &'static str,
}

/// What `hoststack run` does for commands besides its stack. What is `None` it does not.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// The configuration in force.
    pub(crate) config: Vec<Setting>,
    /// Since when the program runs.
    pub(crate) started: Option<Stopwatch>,
    /// What changes the log.
    pub(crate) log: Option<Arc<LogControl>>,
    /// What can be changed besides.
    pub(crate) runtime: Runtime,
    /// Certificates, in PEM, that connects over TLS believe instead of those of the host.
    pub(crate) trusted: Option<Vec<u8>>,
}

/// Where parts of an answer go.
pub(crate) trait Sink {
    /// Sends a part.
    ///
    /// # Errors
    /// The client has gone, or did not read in time.
    fn part(&mut self, text: &str) -> io::Result<()>;

    /// Waits for so long, or until the client has had enough.
    ///
    /// # Errors
    /// The client has gone.
    fn wait(&mut self, span: Duration) -> io::Result<Wait>;
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Wait {
    /// The time is over.
    Elapsed,
    /// The client sent a line: it has had enough.
    Enough,
}

/// What a command is given.
pub(crate) struct Console<'c> {
    /// The stack.
    pub(crate) stack: &'c StackHandle,
    /// What the client may do.
    pub(crate) level: Level,
    /// What else there is.
    pub(crate) services: &'c Services,
    /// Every control socket of the program.
    pub(crate) sockets: &'c [std::sync::Arc<SocketState>],
    pub(super) sink: &'c mut dyn Sink,
    pub(super) format: Format,
    pub(super) filters: Vec<Filter>,
    /// How long the client has heard nothing.
    pub(super) silent: Duration,
}

/// How long a client hears nothing while it follows something.
const HEARTBEAT: Duration = Duration::from_secs(10);

impl Console<'_> {
    /// Asks the stack.
    ///
    /// # Errors
    /// It has stopped.
    pub(crate) fn ask(&self, query: Query) -> Result<Answer, CommandError> {
        self.stack.inspect(query).map_err(CommandError::failed)
    }

    /// Hands a part of an answer over: a piece of text, or one JSON value on a line.
    ///
    /// # Errors
    /// The client has gone: the command ends, and tells nobody.
    pub(crate) fn part(&mut self, show: &dyn Show) -> Result<(), CommandError> {
        let text = match self.format {
            Format::Text => filtered(show, &self.filters),
            Format::Json => format::to_json_line(&show.json()),
        };
        if text.is_empty() {
            return Ok(());
        }
        self.silent = Duration::ZERO;
        self.sink.part(&text).map_err(CommandError::Gone)
    }

    /// Waits until there may be more to tell.
    ///
    /// # Errors
    /// The client has gone: the command ends, and tells nobody.
    pub(crate) fn wait(&mut self, mut span: Duration) -> Result<Wait, CommandError> {
        loop {
            let slice = span.min(HEARTBEAT.saturating_sub(self.silent));
            if self.sink.wait(slice).map_err(CommandError::Gone)? == Wait::Enough {
                return Ok(Wait::Enough);
            }
            span -= slice;
            self.silent += slice;
            if self.silent >= HEARTBEAT {
                self.silent = Duration::ZERO;
                self.sink.part("").map_err(CommandError::Gone)?;
            }
            if span.is_zero() {
                return Ok(Wait::Elapsed);
            }
        }
    }

    /// An answer as it is sent when it is the only one.
    pub(super) fn whole(&self, show: &dyn Show) -> String {
        match self.format {
            Format::Text => filtered(show, &self.filters),
            Format::Json => format::to_json(&show.json()),
        }
    }
}

/// The text's headings, and those of its other lines that pass every filter. Names in it are others': none of it is an order
/// to the terminal.
fn filtered(show: &dyn Show, filters: &[Filter]) -> String {
    let text = show.text();
    let text = match plain::lines(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(safe) => safe,
    };
    if filters.is_empty() {
        return text;
    }
    let headings = show.headings();
    let passes =
        |(index, line): &(usize, &str)| *index < headings || filters.iter().all(|one| one.passes(line));
    text.split_inclusive('\n').enumerate().filter(passes).map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::line::statements;

    /// Parts of a number, each with a heading.
    struct Lines(usize);

    impl Show for Lines {
        fn text(&self) -> String {
            format!("heading {0}\nodd {0}\neven {0}\n", self.0)
        }

        fn json(&self) -> Value {
            serde_json::json!({ "part": self.0 })
        }
    }

    /// A client that reads so many parts, and has had enough after so many waits.
    #[derive(Default)]
    struct Client {
        parts: Vec<String>,
        reads: usize,
        waits: usize,
        waited: Duration,
    }

    impl Sink for Client {
        fn part(&mut self, text: &str) -> io::Result<()> {
            if self.parts.len() == self.reads {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.parts.push(text.to_owned());
            Ok(())
        }

        fn wait(&mut self, span: Duration) -> io::Result<Wait> {
            self.waited += span;
            match self.waits.checked_sub(1) {
                None => Ok(Wait::Enough),
                Some(left) => {
                    self.waits = left;
                    Ok(Wait::Elapsed)
                }
            }
        }
    }

    /// A command that goes on until the client has had enough.
    fn follow(client: &mut Client, format: Format, line: &str) -> Result<usize, CommandError> {
        let stack = hoststack::Stack::builder().workers(1).start().expect("a stack without devices");
        let filters = statements(line).expect(line).remove(0).filters;
        let mut console = Console {
            stack: &stack.handle(),
            level: Level::User,
            services: &Services::default(),
            sockets: &[],
            sink: client,
            format,
            filters,
            silent: Duration::ZERO,
        };
        let mut number = 0;
        loop {
            console.part(&Lines(number))?;
            number += 1;
            if console.wait(Duration::from_secs(25))? == Wait::Enough {
                return Ok(number);
            }
        }
    }

    #[test]
    fn what_is_followed_ends_when_the_client_has_had_enough() {
        let mut client = Client { reads: usize::MAX, waits: 5, ..Client::default() };
        let parts = follow(&mut client, Format::Text, "x | include odd").expect("it was read");
        // 25 s are three waits, with a sign of life between them.
        assert_eq!((parts, client.waited), (2, Duration::from_secs(25 + 25)));
        let lines = ["heading 0\nodd 0\n", "", "", "heading 1\nodd 1\n", "", ""];
        assert_eq!(client.parts, lines);
    }

    #[test]
    fn what_is_followed_ends_when_the_client_has_gone() {
        let mut client = Client { reads: 7, waits: usize::MAX, ..Client::default() };
        let ended = follow(&mut client, Format::Json, "x");
        assert!(matches!(ended, Err(CommandError::Gone(_))));
        let lines: Vec<&String> = client.parts.iter().filter(|part| !part.is_empty()).collect();
        assert_eq!(lines, ["{\"part\":0}\n", "{\"part\":1}\n", "{\"part\":2}\n"]);
    }
}
