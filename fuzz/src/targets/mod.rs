//! The targets, from the outside of a packet inwards. `run` is the target; what it asserts stands beside it.

pub mod fifo;
pub mod flight;
pub mod link;
pub mod notation;
pub mod peer;
pub mod proxy;
pub mod wire;
