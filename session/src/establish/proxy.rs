//! The PROXY protocol as stages.

use std::net::SocketAddr;

/// Whom a connection is said to be between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Who opened it.
    pub source: Option<SocketAddr>,
}
