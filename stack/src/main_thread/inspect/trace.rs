//! Traces: main knows which there are; workers do them.

use std::sync::Arc;

use super::Main;
use crate::inspect::{Answer, TRACES_MAX, TraceAnswer, TraceError, TraceSpec};
use crate::messages::Command;
use crate::worker::WatchCommand;

impl Main {
    pub(in crate::main_thread) fn add_trace(&mut self, spec: Arc<TraceSpec>) -> Result<(), TraceError> {
        if self.traces.len() >= TRACES_MAX {
            return Err(TraceError::TooMany);
        }
        self.traces.push(Arc::clone(&spec));
        self.broadcast(|| Command::Watch(WatchCommand::TraceAdd(Arc::clone(&spec))));
        Ok(())
    }

    pub(in crate::main_thread) fn clear_traces(&mut self) {
        self.traces.clear();
        self.broadcast(|| Command::Watch(WatchCommand::TraceClear));
    }

    /// Workers' records in the order of time, the newest `limit` of them.
    pub(super) fn complete_trace(&self, limit: usize, mut trace: TraceAnswer) -> Answer {
        trace.traces = self.traces.iter().map(ToString::to_string).collect();
        trace.records.sort_by_key(|record| (record.at_us, record.worker, record.number));
        let surplus = trace.records.len().saturating_sub(limit);
        trace.records.drain(..surplus);
        Answer { trace, ..Answer::default() }
    }
}
