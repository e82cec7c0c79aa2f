//! Measured work beside a peer: `conn`, `rr`, `bulk`, `memory`. The library behind `hoststack bench`.
//!
//! Figures drift between runs and machines, so every figure is taken beside a peer's *in the same run*: rounds
//! alternate ([`measure::alternate`]), medians and paired ratios are reported ([`report`]), wall and CPU seconds both.
//! The peer at hand everywhere is smoltcp 0.14 ([`peer`]), two interfaces joined in memory on one thread.
//!
//! Read in this order: [`work`] (what one measured run hands back), [`measure`] (clocks, memory, rounds),
//! [`histogram`], [`report`] (goals, rows, table), [`peer`], [`ours`] (the same work by a whole stack), [`suite`] (both in
//! turn).
//!
//! This crate may read clocks (in [`measure`] alone) and knows nothing of how a stack works inside.

pub mod histogram;
pub mod measure;
pub mod ours;
pub mod peer;
pub mod report;
pub mod suite;
pub mod work;

pub use histogram::LatencyHistogram;
pub use measure::{Meter, Paired, PairedFigure, Spread, alternate};
pub use report::{Report, Row};
pub use suite::{Suite, SuiteOptions};
pub use work::Work;
