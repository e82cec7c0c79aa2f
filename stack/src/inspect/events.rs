//! Events: which are asked for, how those of all threads become one list, and what is told of each.
//!
//! Each thread counts its own events, so a place among all of them is a number per thread: an [`EventCursor`]. An answer
//! says where it ended, and asking again from there goes on without gaps and repeats; what a ring overwrote meanwhile is
//! counted.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use hoststack_session::EndedBy;
use hoststack_transport::{AppId, AppWorkerId, ConnectId, ListenerId, SessionHandle};
use serde::Serialize;

use super::{AppName, AppWorkerNames};
use crate::events::{Event, Ring, What};

/// Most events in an answer, whatever was asked for.
pub const EVENTS_PER_ANSWER: usize = 1024;

/// A place among the events of all threads: per worker and, last, for main, the number of the event that comes next.
/// A thread that is not named begins with its oldest, so the default is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventCursor(pub Vec<u64>);

/// Which events are asked for. Those of a connect are also those of the sessions that were made for it, and those of a
/// session also those of its connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// From where on, the first ones; `None`: the last ones there are.
    pub after: Option<EventCursor>,
    /// Of this session only.
    pub session: Option<SessionHandle>,
    /// Of this connect request only.
    pub connect: Option<ConnectId>,
    /// Of this app worker only.
    pub app_worker: Option<AppWorkerId>,
    /// Of the app workers of this application only.
    pub app: Option<AppName>,
    /// The most that are told; at most [`EVENTS_PER_ANSWER`].
    pub limit: usize,
}

/// Events, in the order of their times. Threads look at the clock once a step, so two that are a step apart and on two
/// threads may stand the wrong way round; those of one thread never do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventsAnswer {
    /// The events.
    pub events: Vec<EventInfo>,
    /// Where to go on.
    pub next: EventCursor,
    /// Events since `after` that were overwritten before they could be told, of whatever kind.
    pub lost: u64,
}

/// A state change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventInfo {
    /// Its number on its thread.
    pub number: u64,
    /// The thread: `main`, or a worker as `w0`.
    pub thread: String,
    /// When, since the stack's epoch.
    pub at_us: u64,
    /// What happened: a stable name.
    pub event: &'static str,
    /// The session, `worker:slot.generation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The connect request, `origin#count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<String>,
    /// The app worker, `application/unit`; its id, if it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_worker: Option<String>,
    /// More, by event: the application, the listener, the stage, the attempt's number, who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Why something failed or ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// The names of things that events are about.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) app_workers: AppWorkerNames,
    pub(crate) apps: BTreeMap<AppId, String>,
    pub(crate) listeners: BTreeMap<ListenerId, String>,
}

/// A walk through one ring, in slices.
#[derive(Debug)]
pub(crate) struct Walk {
    query: EventsQuery,
    /// The first that is told.
    from: u64,
    /// The next to look at; earlier than `from` while it learns which sessions and connects belong together.
    position: Option<u64>,
    /// Where it ends; later events are another walk's.
    end: u64,
    sessions: Vec<SessionHandle>,
    connects: Vec<ConnectId>,
    found: Vec<Event>,
    lost: u64,
}

/// Events of one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventPart {
    found: Vec<Event>,
    next: u64,
    lost: u64,
    /// The connects of the session that was asked for.
    connects: Vec<ConnectId>,
}

impl Walk {
    /// A walk through the ring of thread `thread`, for an answer to `query`.
    pub(crate) fn new(query: &EventsQuery, thread: usize, ring: &Ring) -> Walk {
        let from = match &query.after {
            // One of a stack that ran before this one is nowhere: all are new.
            Some(after) => after.0.get(thread).copied().filter(|from| *from <= ring.end()).unwrap_or(0),
            None => ring.oldest(),
        };
        Walk {
            query: query.clone(),
            from,
            position: None,
            end: ring.end(),
            sessions: query.session.into_iter().collect(),
            connects: query.connect.into_iter().collect(),
            found: Vec::new(),
            lost: 0,
        }
    }

    /// Also the events of these connects.
    pub(crate) fn with_connects(mut self, connects: &[ConnectId]) -> Walk {
        if self.query.session.is_some() {
            self.connects.extend_from_slice(connects);
        }
        self
    }

    fn limit(&self) -> usize {
        self.query.limit.min(EVENTS_PER_ANSWER)
    }

    /// Looks at `count` more. Says whether there is nothing left to look at.
    pub(crate) fn go_on(&mut self, ring: &Ring, count: usize) -> bool {
        let has_names = self.query.session.is_some() || self.query.connect.is_some();
        let first = if has_names { ring.oldest() } else { self.from };
        let mut position = self.position.unwrap_or(first).max(ring.oldest());
        let seen = self.position.map_or(self.from, |seen| seen.max(self.from));
        // Between what was seen and what is still there.
        self.lost += ring.oldest().min(self.end).saturating_sub(seen);
        let stop = self.end.min(position.saturating_add(count as u64));
        while position < stop {
            if position >= self.from && self.query.after.is_some() && self.found.len() >= self.limit() {
                self.end = position;
                break;
            }
            if let Some(event) = ring.event(position)
                && self.takes(&event)
                && position >= self.from
            {
                self.found.push(event);
            }
            position += 1;
        }
        // Of the last ones, those before are not needed; not one by one.
        if self.query.after.is_none() && self.found.len() >= 2 * self.limit().max(1) {
            self.keep_last();
        }
        self.position = Some(position);
        position >= self.end
    }

    fn keep_last(&mut self) {
        self.found.drain(..self.found.len().saturating_sub(self.limit()));
    }

    /// Whether an event is asked for; learns from it what else is.
    fn takes(&mut self, event: &Event) -> bool {
        let about = &event.about;
        if self.query.app_worker.is_some_and(|wanted| about.app_worker_id() != Some(wanted)) {
            return false;
        }
        let is_of = |app: &AppName| about.app_worker_id().is_some_and(|id| app.has(id));
        if !self.query.app.as_ref().is_none_or(is_of) {
            return false;
        }
        if self.query.session.is_none() && self.query.connect.is_none() {
            return true;
        }
        let (session, connect) = (about.session_id(), about.connect_id());
        let has_session = session.is_some_and(|session| self.sessions.contains(&session));
        let has_connect = connect.is_some_and(|connect| self.connects.contains(&connect));
        match (session, connect) {
            (Some(_), Some(connect)) if has_session && !has_connect => self.connects.push(connect),
            // The sessions of its other attempts are not the one that was asked for.
            (Some(session), Some(_)) if has_connect && !has_session && self.query.session.is_none() => {
                self.sessions.push(session);
            }
            _ => {}
        }
        has_session || (has_connect && (self.query.session.is_none() || session.is_none()))
    }

    /// What was found.
    pub(crate) fn part(mut self) -> EventPart {
        if self.query.after.is_none() {
            self.keep_last();
        }
        EventPart {
            found: self.found,
            next: self.end,
            lost: if self.query.after.is_some() { self.lost } else { 0 },
            connects: self.connects,
        }
    }
}

impl EventPart {
    /// The connects that the events of the wanted session named.
    pub(crate) fn connects(&self) -> &[ConnectId] {
        &self.connects
    }
}

/// One list of what the threads found, theirs in the order of their numbers, main's last.
pub(crate) fn merge(query: &EventsQuery, parts: Vec<EventPart>, names: &Names) -> EventsAnswer {
    let main = parts.len().saturating_sub(1);
    let limit = query.limit.min(EVENTS_PER_ANSWER);
    let mut next: Vec<u64> = parts.iter().map(|part| part.next).collect();
    let lost = parts.iter().map(|part| part.lost).sum();
    let total: usize = parts.iter().map(|part| part.found.len()).sum();
    let mut heads: Vec<Peekable<IntoIter<Event>>> =
        parts.into_iter().map(|part| part.found.into_iter().peekable()).collect();
    // The last ones of all threads are among the last ones of each.
    let skipped = if query.after.is_none() { total.saturating_sub(limit) } else { 0 };
    let mut events = Vec::with_capacity(limit.min(total));
    for count in 0..total {
        let key = |thread: usize, event: &Event| (event.at, event.what.rank(), thread);
        let first = heads
            .iter_mut()
            .enumerate()
            .filter_map(|(thread, head)| head.peek().map(|event| key(thread, event)))
            .min();
        let Some((_, _, thread)) = first else { break };
        if events.len() == limit {
            // From here on the next answer tells.
            for (next, head) in next.iter_mut().zip(&mut heads) {
                *next = head.peek().map_or(*next, |event| event.number);
            }
            break;
        }
        if let Some(event) = heads[thread].next()
            && count >= skipped
        {
            events.push(info(&event, thread, thread == main, names));
        }
    }
    EventsAnswer { events, next: EventCursor(next), lost }
}

fn info(event: &Event, thread: usize, is_main: bool, names: &Names) -> EventInfo {
    let Event { number, at, about, what, failure, stage } = event;
    let by = |by: &EndedBy| (*by != EndedBy::App).then(|| by.to_string());
    let detail = match what {
        What::AppAttached(app) | What::AppDetached(app) => {
            Some(names.apps.get(app).cloned().unwrap_or_else(|| app.to_string()))
        }
        What::ListenerUp(listener) | What::ListenerFailed(listener) | What::ListenerGone(listener) => {
            Some(names.listeners.get(listener).cloned().unwrap_or_else(|| listener.to_string()))
        }
        What::Attempt(number) => Some(number.to_string()),
        What::StageBegun => stage.map(str::to_owned),
        What::AppClosed(who) | What::AppReset(who) => by(who),
        _ => None,
    };
    let cause = match what {
        What::Closed(reason) => Some(reason.to_string()),
        What::Settled if failure.is_none() => None,
        _ => failure.map(|failure| failure.to_string()),
    };
    EventInfo {
        number: *number,
        thread: if is_main { "main".into() } else { format!("w{thread}") },
        at_us: at.as_micros(),
        event: what.name(),
        session: about.session_id().map(|session| session.to_string()),
        connect: about.connect_id().map(|connect| connect.to_string()),
        app_worker: about
            .app_worker_id()
            .map(|id| names.app_workers.get(&id).map_or_else(|| id.to_string(), ToString::to_string)),
        detail,
        cause,
    }
}

#[cfg(test)]
mod tests;
