//! What became of sessions, connects, listeners and apps: a ring of state changes on each worker and one on main.
//!
//! A record is written when a state changes, never per packet: one store into memory that the thread owns. The ring
//! overwrites the oldest, and a reader that comes too late is told how many it missed. Nothing of it is in a digest.

use hoststack_session::EndedBy;
use hoststack_transport::{
    AppId, AppWorkerId, CloseReason, ConnectFailure, ConnectId, Instant, Key, ListenerId, SessionHandle,
};

/// Most records that a ring may have: main looks through its own in one step.
pub(crate) const EVENTS_MAX: usize = 1 << 16;

/// No session: no worker has this number.
const NO_SESSION: SessionHandle = SessionHandle::from_u64(u64::MAX);
/// No connect: nobody mints as many.
const NO_CONNECT: ConnectId = ConnectId::from_u64(u64::MAX);
const NO_APP_WORKER: AppWorkerId = AppWorkerId(Key { slot: u32::MAX, generation: u32::MAX });

/// What a state change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    session: SessionHandle,
    connect: ConnectId,
    app_worker: AppWorkerId,
}

impl Subject {
    /// The stack, or what the event itself names.
    pub(crate) const NOTHING: Subject =
        Subject { session: NO_SESSION, connect: NO_CONNECT, app_worker: NO_APP_WORKER };

    pub(crate) fn app_worker(app_worker: AppWorkerId) -> Subject {
        Subject { app_worker, ..Subject::NOTHING }
    }

    pub(crate) fn session(self, session: SessionHandle) -> Subject {
        Subject { session, ..self }
    }

    pub(crate) fn connect(self, connect: ConnectId) -> Subject {
        Subject { connect, ..self }
    }

    pub(crate) fn session_id(&self) -> Option<SessionHandle> {
        (self.session != NO_SESSION).then_some(self.session)
    }

    pub(crate) fn connect_id(&self) -> Option<ConnectId> {
        (self.connect != NO_CONNECT).then_some(self.connect)
    }

    pub(crate) fn app_worker_id(&self) -> Option<AppWorkerId> {
        (self.app_worker != NO_APP_WORKER).then_some(self.app_worker)
    }
}

/// What happened. Where clocks cannot tell, [`What::rank`] decides which of two threads' events comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    // ---- On main ----
    AppAttached(AppId),
    WorkerAttached,
    ListenerUp(ListenerId),
    ListenerFailed(ListenerId),
    Requested,
    /// Its number, from 1.
    Attempt(u16),
    AttemptFailed,
    CancelAsked,
    HandedOver,
    // ---- On a worker ----
    /// The session of an outbound connection.
    Born,
    Connected,
    /// The session of an inbound connection, which is up.
    Accepted,
    StageBegun,
    /// It failed, and another attempt follows.
    Retry,
    Announced,
    Failed,
    NotAccepted,
    PeerClosed,
    HalfClosed,
    AppClosed(EndedBy),
    AppReset(EndedBy),
    Closed(CloseReason),
    // ---- On main ----
    Settled,
    DetachBegun,
    ListenerGone(ListenerId),
    DetachEnded,
    AppDetached(AppId),
}

impl What {
    /// A stable name, for people and scripts.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            What::AppAttached(_) => "app-attached",
            What::WorkerAttached => "app-worker-attached",
            What::ListenerUp(_) => "listener-up",
            What::ListenerFailed(_) => "listener-failed",
            What::Requested => "requested",
            What::Attempt(_) => "attempt",
            What::AttemptFailed => "attempt-failed",
            What::CancelAsked => "cancel-asked",
            What::HandedOver => "handed-over",
            What::Born => "born",
            What::Connected => "connected",
            What::Accepted => "accepted",
            What::StageBegun => "stage-begun",
            What::Retry => "retry",
            What::Announced => "announced",
            What::Failed => "connect-failed",
            What::NotAccepted => "not-accepted",
            What::PeerClosed => "peer-closed",
            What::HalfClosed => "half-closed",
            What::AppClosed(_) => "app-closed",
            What::AppReset(_) => "app-reset",
            What::Closed(_) => "closed",
            What::Settled => "settled",
            What::DetachBegun => "detach-begun",
            What::ListenerGone(_) => "listener-gone",
            What::DetachEnded => "detach-ended",
            What::AppDetached(_) => "app-detached",
        }
    }

    /// Its place in a life.
    pub(crate) const fn rank(&self) -> u8 {
        match self {
            What::AppAttached(_) => 0,
            What::WorkerAttached => 1,
            What::ListenerUp(_) | What::ListenerFailed(_) => 2,
            What::Requested => 3,
            What::Attempt(_) => 4,
            What::AttemptFailed | What::CancelAsked => 5,
            What::HandedOver => 6,
            What::Born => 7,
            What::Accepted => 8,
            What::Connected => 9,
            What::StageBegun => 10,
            What::Retry => 3,
            What::Announced | What::Failed | What::NotAccepted => 11,
            What::Settled => 12,
            What::PeerClosed => 13,
            What::HalfClosed => 14,
            What::AppClosed(_) | What::AppReset(_) => 15,
            What::Closed(_) => 16,
            What::DetachBegun => 17,
            What::ListenerGone(_) => 18,
            What::DetachEnded => 19,
            What::AppDetached(_) => 20,
        }
    }
}

/// An event as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its number in its ring, from 0.
    pub(crate) number: u64,
    pub(crate) at: Instant,
    pub(crate) about: Subject,
    pub(crate) what: What,
    /// Of those that have one.
    pub(crate) failure: Option<ConnectFailure>,
    /// Of [`What::StageBegun`].
    pub(crate) stage: Option<&'static str>,
}

/// What a ring keeps of an event. Its number is its place.
#[derive(Clone, Copy, Debug)]
struct Record {
    at: Instant,
    about: Subject,
    what: What,
    /// The place of its failure, or stage, in the ring's lists; [`NO_NAME`] if it has none.
    name: u8,
}

const _: () = assert!(size_of::<Record>() <= 48, "a state change is one store of less than a cache line");

const NO_NAME: u8 = u8::MAX;

/// The ring of one thread.
#[derive(Debug)]
pub(crate) struct Ring {
    records: Vec<Record>,
    limit: usize,
    /// The number of the next event, and where it goes.
    end: u64,
    place: usize,
    failures: Vec<ConnectFailure>,
    stages: Vec<&'static str>,
}

impl Ring {
    /// A ring of at most `limit` events; with 0 none is kept.
    pub(crate) fn new(limit: usize) -> Ring {
        let records = Vec::with_capacity(limit);
        Ring { records, limit, end: 0, place: 0, failures: Vec::new(), stages: Vec::new() }
    }

    /// Writes an event that has neither failure nor stage.
    pub(crate) fn push(&mut self, at: Instant, about: Subject, what: What) {
        self.write(Record { at, about, what, name: NO_NAME });
    }

    /// Writes an event with a failure.
    pub(crate) fn push_failure(&mut self, at: Instant, about: Subject, what: What, failure: ConnectFailure) {
        let name = place_of(&mut self.failures, failure);
        self.write(Record { at, about, what, name });
    }

    /// Writes [`What::StageBegun`].
    pub(crate) fn push_stage(&mut self, at: Instant, about: Subject, stage: &'static str) {
        let name = place_of(&mut self.stages, stage);
        self.write(Record { at, about, what: What::StageBegun, name });
    }

    fn write(&mut self, record: Record) {
        if self.records.len() < self.limit {
            self.records.push(record);
        } else if let Some(oldest) = self.records.get_mut(self.place) {
            *oldest = record;
        } else {
            return; // none is kept
        }
        self.end += 1;
        self.place += 1;
        if self.place == self.limit {
            self.place = 0;
        }
    }

    /// The number of the next event to be written.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The number of the oldest event that is still there; [`Ring::end`] if there is none.
    pub(crate) fn oldest(&self) -> u64 {
        self.end - self.records.len() as u64
    }

    /// An event that is still there.
    pub(crate) fn event(&self, number: u64) -> Option<Event> {
        if number < self.oldest() || number >= self.end {
            return None;
        }
        let record = self.records.get((number % self.limit as u64) as usize)?; // fits: below the limit
        let Record { at, about, what, name } = *record;
        let (failure, stage) = match what {
            What::StageBegun => (None, self.stages.get(usize::from(name)).copied()),
            _ => (self.failures.get(usize::from(name)).copied(), None),
        };
        Some(Event { number, at, about, what, failure, stage })
    }
}

/// Where `name` is in `list`: few are ever in use. One too many is told without.
fn place_of<T: PartialEq>(list: &mut Vec<T>, name: T) -> u8 {
    let place = list.iter().position(|other| *other == name).unwrap_or_else(|| {
        if list.len() < usize::from(NO_NAME) {
            list.push(name);
            list.len() - 1
        } else {
            usize::from(NO_NAME)
        }
    });
    place as u8 // fits: at most NO_NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(ring: &Ring) -> Vec<u64> {
        (0..ring.end() + 1)
            .filter_map(|number| ring.event(number))
            .map(|event| event.at.as_micros())
            .collect()
    }

    #[test]
    fn a_full_ring_overwrites_its_oldest() {
        let mut ring = Ring::new(3);
        assert_eq!((ring.oldest(), ring.end(), ring.event(0)), (0, 0, None));
        for at in 0..8 {
            ring.push(Instant::from_micros(at), Subject::NOTHING, What::Requested);
        }
        assert_eq!((ring.oldest(), ring.end(), numbers(&ring)), (5, 8, vec![5, 6, 7]));
        assert!(ring.event(4).is_none() && ring.event(8).is_none());
    }

    #[test]
    fn a_ring_of_none_keeps_none() {
        let mut ring = Ring::new(0);
        ring.push(Instant::ZERO, Subject::NOTHING, What::Requested);
        assert_eq!((ring.oldest(), ring.end(), ring.event(0)), (0, 0, None));
    }

    #[test]
    fn failures_and_stages_come_back_as_they_were_until_there_are_too_many() {
        let mut ring = Ring::new(1000);
        let (about, now) = (Subject::NOTHING, Instant::ZERO);
        ring.push_stage(now, about, "tls");
        ring.push_failure(now, about, What::Retry, ConnectFailure::Refused);
        for errno in 0..300 {
            ring.push_failure(now, about, What::Failed, ConnectFailure::System(errno));
        }
        ring.push_failure(now, about, What::Settled, ConnectFailure::Refused);
        let told = |number| ring.event(number).map(|event| (event.failure, event.stage));
        assert_eq!(told(0), Some((None, Some("tls"))));
        assert_eq!(told(1), Some((Some(ConnectFailure::Refused), None)));
        assert_eq!(told(2 + 253), Some((Some(ConnectFailure::System(253)), None)));
        assert_eq!(told(2 + 254), Some((None, None)));
        assert_eq!(told(302), Some((Some(ConnectFailure::Refused), None)));
    }
}
