//! Echo: a server that sends back what it gets, and a client that opens many sessions and verifies every byte.
//!
//! [`server`] is the smallest complete app. [`client`] opens connects from callbacks on all workers, in waves; what it
//! sends and expects is [`stream`], what it counts is [`client_stats`].

pub mod client;
pub mod client_stats;
pub mod server;
pub mod stream;
