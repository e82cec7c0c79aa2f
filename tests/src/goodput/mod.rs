//! The goodput table: what each congestion control gets out of a link, over loss, round trip, buffer and rate; and how
//! two flows share one.
//!
//! Two engines of `hoststack_tcp`, a sender that always has data and a receiver that reads at once, are joined by an
//! emulated bottleneck on virtual time ([`world`], [`link`]). No stack, no IP, no bytes: what is measured is TCP's
//! decisions alone, and a second of a gigabit takes a tenth of one. [`cell`] has the axes and what is measured,
//! [`fairness`] the pairs of flows, [`table`] runs all and writes and reads `tests/snapshots/goodput.txt`. How to read it:
//! `docs/conformance.md`.

pub mod cell;
pub mod fairness;
pub mod link;
pub mod streams;
pub mod table;
pub mod world;

pub use cell::{Cell, Value};
pub use fairness::{Pair, Share};
pub use table::{Summary, Table};
