//! The debug CLI: `hoststack ctl` and the socket in `hoststack run` that it talks to.
//!
//! [`grammar`] what may be typed, [`wire`] how it travels, [`server`] and [`client`] the two ends, [`mod@format`] answers as
//! text and as JSON. Nothing here reads a worker's memory: main gathers answers by message.

pub(crate) mod client;
pub(crate) mod format;
pub(crate) mod grammar;
pub(crate) mod server;
pub(crate) mod show;
pub(crate) mod wire;
