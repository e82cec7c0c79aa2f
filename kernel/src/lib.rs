//! Kernel sockets as a transport: TCP and Unix stream sockets of the host, so that hoststack serves a user without
//! root, TAP or a network card.
//!
//! The connecting socket is main's ([`half_opens`]), the established one the owning worker's ([`engine`]); [`host`] is what
//! both need of the host, for tests to stand in.
#![forbid(unsafe_code)]

pub mod host;
