//! The PROXY protocol and TLS beside the programs that people use: HAProxy, nginx, curl, openssl and socat, each in the
//! role that we do not play.
//!
//! Every case runs over all our ways to a program of the host ([`world::Via`]): its TCP sockets of both families, its
//! Unix sockets, and our own TCP over a TAP, in a network namespace of the test's. [`headers_to_us`] and
//! [`headers_from_us`] have the two roles, [`refusals`] what is no header, [`program`] the same with the program
//! `hoststack` itself; [`tls`] has TLS, with the [`certificates`] that it needs.

mod certificates;
mod headers_from_us;
mod headers_to_us;
mod program;
mod refusals;
mod tls;
mod world;
