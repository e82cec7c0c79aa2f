//! A line, done: its commands understood, all of them before the first is run, and run in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hoststack::StackHandle;

use super::commands::complete;
use super::console::{CommandError, Console, Level, Output, Services, Sink};
use super::grammar::{self, GrammarError, Matched};
use super::line::{self, Filter};
use super::server::SocketState;
use super::wire::{Format, Reply};
use crate::plain;

/// What every client's commands are run with.
pub(crate) struct Context<'c> {
    /// The stack.
    pub(crate) stack: &'c StackHandle,
    /// What else there is.
    pub(crate) services: &'c Services,
    /// Every control socket.
    pub(crate) sockets: &'c [Arc<SocketState>],
    /// The one that the client came by.
    pub(crate) socket: &'c SocketState,
}

/// A command that is ready to be run.
struct Ready {
    matched: Matched,
    json: bool,
    filters: Vec<Filter>,
}

/// Does what a line says; its last answer. What comes before that goes to `sink`.
///
/// # Errors
/// The client has gone.
pub(crate) fn execute(
    context: &Context<'_>,
    format: Format,
    line: &str,
    sink: &mut dyn Sink,
) -> io::Result<Reply> {
    if let Some(line) = line.strip_prefix("complete ") {
        return Ok(Reply::Ok(complete::answer(context.stack, line, format)));
    }
    let ready = match understand(line, context) {
        Ok(ready) => ready,
        Err(text) => return Ok(Reply::Usage(text)),
    };
    let is_one = ready.len() == 1;
    let count = ready.len();
    let mut last = String::new();
    let mut errors = Vec::new();
    for (index, Ready { matched, json, filters }) in ready.into_iter().enumerate() {
        let mut console = Console {
            stack: context.stack,
            level: context.socket.level,
            services: context.services,
            sockets: context.sockets,
            sink,
            format: if json { Format::Json } else { format },
            filters,
            silent: Duration::ZERO,
        };
        match (matched.spec.run)(&mut console, &matched) {
            Ok(Output::Streamed) => {}
            Ok(Output::One(show)) if is_one => last = console.whole(&*show),
            Ok(Output::One(show)) => match console.part(&*show) {
                Ok(()) => {}
                Err(CommandError::Gone(error)) => return Err(error),
                Err(CommandError::Failed(text)) => errors.push(text),
            },
            Err(CommandError::Gone(error)) => return Err(error),
            Err(CommandError::Failed(text)) if is_one => errors.push(text),
            Err(CommandError::Failed(text)) => {
                errors.push(format!("command {} of {count}, `{}`: {text}", index + 1, matched.spec.pattern));
            }
        }
    }
    Ok(if errors.is_empty() {
        Reply::Ok(last)
    } else {
        Reply::Error(plain::lines(&errors.join("\n")).into_owned())
    })
}

/// Understands all commands of a line, and holds them against what the client may do.
fn understand(line: &str, context: &Context<'_>) -> Result<Vec<Ready>, String> {
    let statements = line::statements(line).map_err(|error| error.to_string())?;
    if statements.is_empty() {
        return Err(GrammarError::Empty.to_string());
    }
    let mut ready = Vec::new();
    for statement in statements {
        let matched = grammar::parse(&statement.words).map_err(|error| error.to_string())?;
        if matched.spec.level > context.socket.level {
            return Err(needs_operator(matched.spec.pattern, context));
        }
        ready.push(Ready { matched, json: statement.json, filters: statement.filters });
    }
    Ok(ready)
}

fn needs_operator(pattern: &str, context: &Context<'_>) -> String {
    let other = context.sockets.iter().find(|socket| socket.level == Level::Operator);
    let how = match other {
        Some(socket) => format!("use `--socket {}`", socket.path.display()),
        None => "give the configuration a [[cli]] table with `level = \"operator\"`".to_owned(),
    };
    format!("`{pattern}` acts, and clients of this socket have the level user: {how}")
}

/// Whether a line can be understood at all, as far as this program's own table knows.
///
/// # Errors
/// What to type instead.
pub(crate) fn check(line: &str) -> Result<Vec<Matched>, String> {
    let statements = line::statements(line).map_err(|error| error.to_string())?;
    if statements.is_empty() {
        return Err(GrammarError::Empty.to_string());
    }
    statements
        .iter()
        .map(|statement| grammar::parse(&statement.words).map_err(|error| error.to_string()))
        .collect()
}
