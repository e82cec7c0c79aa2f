//! A hierarchical timer wheel with lazy entries.
/// Placeholder.
pub struct TimerWheel;
