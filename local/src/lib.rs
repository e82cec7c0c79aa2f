//! Cut-through: two apps of one stack talk to each other, fifo to fifo, without a protocol between them.
//!
//! A connection is two ends, each with its session. On one worker the bytes go from one session's fifo straight into the
//! other's, and a connect is up at once. On two workers the ends send each other [`Message`]s; what one may send is what the
//! other has granted, so that no more waits in a channel than the receiver has room for.
//!
//! It behaves like TCP where an app could tell the difference: bytes come before the close that follows them, a close with
//! bytes unread resets, and so does what is sent to an end that was closed.
#![forbid(unsafe_code)]

mod engine;
mod message;

pub use engine::{Counters, Engine, Full};
pub use message::{Message, Place};
