//! Echo: a server that sends back what it gets, and a client that opens many sessions and verifies every byte.
//!
//! [`server`] is the smallest complete app. [`client`] opens connects from callbacks on all workers, in waves, as
//! [`client_options`] says; `client_worker` is its half on each worker, `cancels` which connects it gives up. What it
//! sends and expects is [`stream`], what it counts is [`client_stats`].

mod cancels;
pub mod client;
pub mod client_options;
pub mod client_stats;
mod client_worker;
pub mod server;
pub mod stream;
