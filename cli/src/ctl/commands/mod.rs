//! The table of commands, a file per topic. Parser, help, completion and `docs/cli.md` are made from it.
//!
//! A new command is a [`Spec`] in its topic's `COMMANDS`; a new topic is a line of [`TABLES`].

mod apps;
pub(crate) mod complete;
mod connect;
mod errors;
mod events;
mod figures;
pub(crate) mod filter;
mod half_opens;
pub(crate) mod help;
mod listen;
mod network;
pub(crate) mod options;
mod packets;
mod program;
mod sessions;
mod status;
mod workers;

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::console::{CommandError, Console, Level, Output, Show};
use super::grammar::Matched;

/// A command.
#[derive(Debug)]
pub(crate) struct Spec {
    /// What is typed, in the language of [`super::pattern`].
    pub(crate) pattern: &'static str,
    /// What it does, in a line.
    pub(crate) help: &'static str,
    /// More about it, for `help COMMAND` and the page; may be empty.
    pub(crate) details: &'static str,
    /// Each option of the pattern with what it means; groups have their own.
    pub(crate) options: &'static [(&'static str, &'static str)],
    /// Who may.
    pub(crate) level: Level,
    /// Does it.
    pub(crate) run: fn(&mut Console<'_>, &Matched) -> Result<Output, CommandError>,
    /// An answer with every field set: what the page says of its JSON.
    pub(crate) sample: fn() -> Box<dyn Show>,
}

impl Spec {
    /// What most commands are: for users, with no options.
    pub(crate) const BASE: Spec = Spec {
        pattern: "",
        help: "",
        details: "",
        options: &[],
        level: Level::User,
        run: |_, _| Ok(Output::Streamed),
        sample: || Box::new(Text(String::new())),
    };
}

const TABLES: &[&[Spec]] = &[
    help::COMMANDS,
    sessions::COMMANDS,
    half_opens::COMMANDS,
    status::COMMANDS,
    apps::COMMANDS,
    connect::COMMANDS,
    listen::COMMANDS,
    options::COMMANDS,
    workers::COMMANDS,
    figures::COMMANDS,
    errors::COMMANDS,
    events::COMMANDS,
    network::COMMANDS,
    packets::COMMANDS,
    program::COMMANDS,
];

/// Every command.
pub(crate) fn commands() -> impl Iterator<Item = &'static Spec> {
    TABLES.iter().flat_map(|table| table.iter())
}

/// Sessions or half-opens listed when no limit is given.
pub(crate) const LIMIT: usize = 100;

/// Sessions or half-opens that are asked for at a time by what goes over all of them.
pub(crate) const PAGE: usize = 1000;
/// Of a list of all, what one question asks for. Little, so that a worker, and who is to run on its core, is held up for no
/// longer than by its own traffic.
pub(crate) const WALK: usize = 32;
/// How long such a list rests between two questions. Without it p99 of others' round trips was half as much again on a machine
/// of two cores (`console_cost`).
pub(crate) const PAUSE: Duration = Duration::from_micros(100);

/// Of one kind of thing of the network, the most that are listed.
const LISTED_MAX: usize = 1024;

/// An answer by how it is written.
struct Shown<T> {
    value: T,
    text: fn(&T) -> String,
    json: fn(&T) -> Value,
    headings: usize,
}

impl<T> Show for Shown<T> {
    fn text(&self) -> String {
        (self.text)(&self.value)
    }

    fn json(&self) -> Value {
        (self.json)(&self.value)
    }

    fn headings(&self) -> usize {
        self.headings
    }
}

/// An answer whose JSON is serde's.
fn shown<T: Serialize>(value: T, text: fn(&T) -> String) -> Shown<T> {
    Shown { value, text, json: to_value, headings: 1 }
}

fn to_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("cannot fail because every key is a string")
}

/// An answer that is text.
pub(crate) struct Text(pub(crate) String);

impl Show for Text {
    fn text(&self) -> String {
        self.0.clone()
    }

    fn json(&self) -> Value {
        json!({ "text": self.0 })
    }

    fn headings(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_more_than_tell_wants_an_operator() {
        let tells = |spec: &Spec| matches!(spec.pattern.split(' ').next(), Some("show" | "help" | "watch"));
        for spec in commands() {
            assert_eq!(spec.level == Level::User, tells(spec), "{}", spec.pattern);
        }
    }
}
