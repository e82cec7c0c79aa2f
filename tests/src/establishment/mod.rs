//! Establishment, enumerated: every outcome of a connect, with every stack of stages, each ending in every way, whatever is
//! sent, whoever speaks first and whoever asks; and an action at every boundary between two steps.
//!
//! A run is one cell of that product. The whole stack runs it, main and one worker, on virtual time over a model host
//! ([`host`]) that does what the cell says ([`cell`]); after every step the invariants of establishment are looked at
//! ([`oracle`]). [`world`] has the stack and what a boundary is, [`app`] who connects, [`stages`] stages of the test's own,
//! [`table`] the walk and its counts. Nothing is drawn at random.

pub mod app;
pub mod cell;
pub mod host;
pub mod oracle;
pub mod stages;
pub mod table;
#[cfg(test)]
mod tests;
pub mod world;

pub use cell::{Cell, Run};
pub use table::{Choice, Table};
