//! A link in real time between two kernels, or between `hoststack` and a kernel, and what was measured over it.
//!
//! - [`link`] is the link as a value: rate, delay, drop-tail buffer, random loss. Time comes in as an argument.
//! - [`pump`] is the thread that carries frames between two TAPs through two such links, precise to some microseconds.
//! - [`path`] makes the namespaces, the TAPs and the pump, and tears all of it down.
//! - [`bulk`] are the two senders, the kernel's and ours, and the receiver, which is the kernel's for both.
//! - [`compare`] runs them in turn and compares medians; [`validate`] measures the link itself, kernel to kernel.
//!
//! The clock is read in [`pump::nanos`] alone.

pub mod bulk;
pub mod compare;
pub mod link;
pub mod path;
pub mod pump;
pub mod validate;

pub use link::{Link, Shape};
pub use path::{Near, Path};
