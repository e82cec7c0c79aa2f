//! Events of all threads, put together.

use super::Main;
use crate::inspect::events::{EventPart, Names, Walk, merge};
use crate::inspect::{Answer, EventsQuery};

impl Main {
    /// What the workers found, with what main finds in its own ring.
    pub(super) fn events_answer(&self, query: &EventsQuery, mut parts: Vec<(u8, EventPart)>) -> Answer {
        parts.sort_by_key(|(worker, _)| *worker);
        let mut parts: Vec<EventPart> = parts.into_iter().map(|(_, part)| part).collect();
        let connects: Vec<_> = parts.iter().flat_map(|part| part.connects().iter().copied()).collect();
        let ring = &self.events_ring;
        let mut walk = Walk::new(query, parts.len(), ring).with_connects(&connects);
        // At once: the ring's limit bounds it.
        while !walk.go_on(ring, crate::events::EVENTS_MAX) {}
        parts.push(walk.part());
        let names = Names {
            app_workers: self.app_worker_names(),
            apps: self.names.iter().map(|(name, &app)| (app, name.clone())).collect(),
            listeners: self.listener_names(),
        };
        Answer { events: Some(merge(query, parts, &names)), ..Answer::default() }
    }
}
