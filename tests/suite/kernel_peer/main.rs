//! The Linux kernel on the other end of a TAP, in a network namespace for each test, over IPv4 and IPv6.
//!
//! The program `hoststack` is the black box: [`world`] has what the tests share, then a file per topic.

mod closing;
mod control;
mod failures;
mod path_mtu;
mod queues;
mod resets;
mod transfer;
mod world;
