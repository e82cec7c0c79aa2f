//! The debug CLI: `hoststack ctl` and the sockets in `hoststack run` that it talks to.
//!
//! [`commands`] is the table that all is made from, in the language of [`pattern`] and [`kinds`]: [`grammar`] reads lines with
//! it, [`page`] writes `docs/cli.md`. [`mod@line`] cuts what is typed, [`execute`] does it in a [`console`], [`wire`] is how it
//! travels, [`server`] and [`client`] are the two ends, with [`interactive`] for people; [`mod@format`] has answers as text.
//! Nothing here reads a worker's memory: main gathers answers by message.

pub(crate) mod client;
pub(crate) mod commands;
pub(crate) mod console;
mod execute;
pub(crate) mod format;
mod grammar;
mod interactive;
mod kinds;
mod line;
mod page;
mod pattern;
pub(crate) mod server;
pub(crate) mod show;
mod watch;
pub(crate) mod wire;

use hoststack::app::SessionHandle;
use hoststack::inspect::Filter;

/// Reads what a command's `[FILTER]` may say.
///
/// # Errors
/// What to type instead.
pub(crate) fn read_filter(text: &str) -> Result<Filter, String> {
    let matched = execute::check(&format!("show session {text}"))?;
    match &matched[..] {
        [one] => Ok(commands::filter::filter(one)),
        _ => Err("a filter has no `;`: `help show session` lists what it may have".to_owned()),
    }
}

/// Whether a filter may begin with this word.
pub(crate) fn is_filter_word(word: &str) -> bool {
    let names = |pattern: &str| pattern.trim_matches(['[', ']']).split(' ').next() == Some(word);
    commands::filter::GROUP.options.iter().any(|(pattern, _)| names(pattern))
}

/// Reads a session's handle, as it is printed or as a number.
pub(crate) fn read_handle(text: &str) -> Option<SessionHandle> {
    match (kinds::kind("HANDLE")?.parse)(text) {
        Some(kinds::Value::Session(handle)) => Some(handle),
        _ => None,
    }
}
