//! Events from a worker's ring, a bounded slice of it a step.

use super::{Run, Worker};
use crate::inspect::events::Walk;
use crate::inspect::{EventsQuery, WorkerAnswer};
use crate::messages::Report;

/// Records looked at for one slot of another question's slice: they lie side by side.
const RECORDS_PER_SLOT: usize = 4;

impl Worker {
    /// A slice of an answer to `query`. Says whether it was the last.
    pub(super) fn answer_events(&mut self, run: &mut Run, query: &EventsQuery) -> bool {
        let (thread, ring) = (self.id.index(), &self.events_ring);
        let mut walk = run.walk.take().unwrap_or_else(|| Box::new(Walk::new(query, thread, ring)));
        let slots = self.config.bursts.inspect_slots as usize;
        let last = walk.go_on(ring, slots.saturating_mul(RECORDS_PER_SLOT));
        let mut part = WorkerAnswer::default();
        if last {
            part.info.worker = self.id.0;
            part.events = walk.part();
        } else {
            run.walk = Some(walk);
        }
        self.reports.push(Report::Answer { query: run.query, part: Box::new(part), last });
        last
    }
}
