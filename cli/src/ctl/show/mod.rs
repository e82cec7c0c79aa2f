//! What the console shows, by topic: text of the answers that a stack gives.

#[cfg_attr(not(test), allow(dead_code, reason = "until the console's table has the command"))]
pub(crate) mod events;
