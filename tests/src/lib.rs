//! The test house: what suites that need a whole stack stand on.
//!
//! Two halves. The *kernel peer* harness puts the `hoststack` binary on one end of a TAP device and the Linux kernel
//! on the other, inside a network namespace of its own: read [`netns`] first, then [`tap`], [`peers`] and
//! [`process`]. [`tidy`] holds the rules of the house itself (who may depend on whom, where `unsafe` may stand) as
//! functions over text, so that each rule is tested on small input before it is applied to the workspace.
//!
//! Nothing here sleeps for a fixed time: [`wait`] polls a condition up to a deadline and is the only reader of a
//! clock. A test that needs privileges begins with [`skip_unless_net_admin!`].
#![forbid(unsafe_code)]

pub mod announced;
pub mod binary;
#[cfg(feature = "canary")]
pub mod canary;
pub mod capture;
pub mod conformance;
pub mod content;
pub mod differential;
pub mod establishment;
pub mod goodput;
pub mod injection;
pub mod matrix;
pub mod netns;
pub mod peers;
pub mod process;
pub mod relay;
pub mod scripts;
pub mod sim;
pub mod stress;
pub mod tap;
pub mod tidy;
pub mod wait;

pub use binary::hoststack;
pub use netns::Namespace;
pub use process::{Finished, Process};
pub use tap::{Queues, Tap};

// The example uses a builtin app.
#[cfg(doctest)]
use hoststack_builtin as _;

/// README's embedding example, compiled and run as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
