//! TLS 1.3 (RFC 8446) and 1.2 (RFC 5246) for any stream transport of the stack.
//!
//! [`Client`] and [`Server`] are plans of an establishment stage, given to a connect or a listener. The stage does the
//! handshake; when that is done it stays as the session's layer and encrypts what passes. The app reads and writes its
//! session as any other, and may ask [`info`] what was agreed.
//!
//! The protocol itself is rustls, through its unbuffered interface: bytes are here in fifos and nowhere else. Read [`client`]
//! and [`server`] for options and their defaults; `machine.rs` moves the bytes; `cause.rs` says what errors mean to an app.
#![forbid(unsafe_code)]

mod cause;
pub mod client;
mod config;
mod info;
mod machine;
pub mod server;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientOptions, Roots};
pub use config::{ConfigError, Identity, Time, Versions};
pub use info::{Info, info};
pub use server::{ClientAuth, Server, ServerOptions};

/// What the stage and the layer are called.
pub const NAME: &str = "TLS";
