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
#[allow(dead_code, reason = "wired into the grammar by its table")]
mod show;
mod watch;
pub(crate) mod wire;
