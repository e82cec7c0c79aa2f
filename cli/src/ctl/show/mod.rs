//! Answers as text, a file per topic.

pub(crate) mod channels;
pub(crate) mod config;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod ping;
pub(crate) mod ports;
