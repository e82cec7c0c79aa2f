//! Differential runs: `hoststack` at one end of a bad wire, the Linux kernel at the other, and what either found wrong.
//!
//! A world is drawn from a seed: link, MTU, family, and a dozen connections whose two ends do what [`plan`] says, both
//! ends with the same code ([`actor`]), over our sessions ([`ours`]) and over kernel sockets ([`kernel`]). [`wire`] makes
//! the TAP a bad link both ways. Every byte is checked where it is read; in the end [`verdict`] judges how each
//! connection ended, what the kernel counted, and why we dropped what we dropped; nothing may be left at either end.
//!
//! Real time and a real kernel do not repeat: a seed repeats the world and the plans, not the order of events.

pub mod actor;
pub mod kernel;
pub mod ours;
pub mod plan;
pub mod verdict;
pub mod wire;
pub mod world;

pub use plan::WorldPlan;
pub use world::{Report, run};
