//! The worker's small tables: which app workers may get sessions and how many they have, which listener is whose.

use hoststack_transport::{AppWorkerId, Duration, ListenerId};

use crate::establish::StagePlans;
use crate::session::SessionOptions;

/// What a worker knows of one app worker.
#[derive(Clone, Copy, Debug)]
struct AppWorkerRecord {
    id: AppWorkerId,
    sessions: usize,
    detaching: bool,
}

/// App workers that have a place on this worker.
#[derive(Default)]
pub struct AppWorkerRecords {
    by_slot: Vec<Option<AppWorkerRecord>>,
}

impl AppWorkerRecords {
    /// An app worker was attached.
    pub fn attach(&mut self, id: AppWorkerId) {
        let slot = id.0.slot as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, None);
        }
        debug_assert!(self.by_slot[slot].is_none(), "main frees a slot after all workers reported");
        self.by_slot[slot] = Some(AppWorkerRecord { id, sessions: 0, detaching: false });
    }

    /// No more sessions for it from now on.
    pub fn begin_detach(&mut self, id: AppWorkerId) {
        if let Some(record) = self.get_mut(id) {
            record.detaching = true;
        }
    }

    /// It is gone.
    pub fn remove(&mut self, id: AppWorkerId) {
        if self.get_mut(id).is_some() {
            self.by_slot[id.0.slot as usize] = None;
        }
    }

    /// Whether it may be given a session.
    pub fn takes_sessions(&self, id: AppWorkerId) -> bool {
        self.get(id).is_some_and(|record| !record.detaching)
    }

    /// Sessions it has on this worker.
    pub fn sessions(&self, id: AppWorkerId) -> usize {
        self.get(id).map_or(0, |record| record.sessions)
    }

    pub(crate) fn session_born(&mut self, id: AppWorkerId) {
        if let Some(record) = self.get_mut(id) {
            record.sessions += 1;
        }
    }

    pub(crate) fn session_died(&mut self, id: AppWorkerId) {
        if let Some(record) = self.get_mut(id) {
            record.sessions -= 1;
        }
    }

    fn get(&self, id: AppWorkerId) -> Option<&AppWorkerRecord> {
        self.by_slot.get(id.0.slot as usize)?.as_ref().filter(|record| record.id == id)
    }

    fn get_mut(&mut self, id: AppWorkerId) -> Option<&mut AppWorkerRecord> {
        self.by_slot.get_mut(id.0.slot as usize)?.as_mut().filter(|record| record.id == id)
    }
}

/// Whose a listener is, and what its sessions are like.
#[derive(Clone, Debug)]
pub struct ListenerRecord {
    /// Its name.
    pub id: ListenerId,
    /// Who is told of accepted sessions.
    pub app_worker: AppWorkerId,
    /// The opaque value that accepted sessions start with.
    pub opaque: u64,
    /// Their fifos.
    pub options: SessionOptions,
    /// What must happen before they are accepted.
    pub stages: StagePlans,
    /// How long that may take.
    pub stage_timeout: Duration,
}

/// Listeners known on this worker.
#[derive(Default)]
pub struct ListenerRecords {
    by_slot: Vec<Option<ListenerRecord>>,
}

impl ListenerRecords {
    /// Adds a listener.
    pub fn add(&mut self, record: ListenerRecord) {
        let slot = record.id.0.slot as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, None);
        }
        self.by_slot[slot] = Some(record);
    }

    /// Removes a listener.
    pub fn remove(&mut self, id: ListenerId) {
        if self.get(id).is_some() {
            self.by_slot[id.0.slot as usize] = None;
        }
    }

    /// The listener, if it is still there.
    pub fn get(&self, id: ListenerId) -> Option<&ListenerRecord> {
        self.by_slot.get(id.0.slot as usize)?.as_ref().filter(|record| record.id == id)
    }
}
