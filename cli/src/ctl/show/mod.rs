//! Answers as people read them: aligned text, a file per topic. Values come from `hoststack::inspect`.

pub(crate) mod sessions;
