//! Answers for people, a file for each topic: functions from a value to aligned text. JSON is the value itself.

pub(crate) mod trace;
