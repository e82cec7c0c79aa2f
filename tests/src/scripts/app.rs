//! The app of a script: it notes what it is told, and does what the script says.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use hoststack::app::{
    Address, AppWorker, Application, CloseReason, ConnectFailure, ConnectId, Context, ListenError,
    ListenerId, MainContext, SessionHandle, WorkerId,
};
use parking_lot::Mutex;

/// A callback that a script must announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A passive open came up.
    Accepted,
    /// An active open came up.
    Connected,
    /// An active open did not.
    Failed(ConnectFailure),
    /// The peer calls more urgent than before.
    Urgent,
    /// The peer will send no more.
    PeerClosed,
    /// The connection was cut off.
    WasReset(CloseReason),
    /// The session is over.
    Closed(CloseReason),
}

const CLOSE_REASONS: [(&str, CloseReason); 6] = [
    ("finished", CloseReason::Finished),
    ("peer-reset", CloseReason::PeerReset),
    ("local-reset", CloseReason::LocalReset),
    ("timed-out", CloseReason::TimedOut),
    ("unreachable", CloseReason::Unreachable),
    ("no-room", CloseReason::NoRoom),
];
const FAILURES: [(&str, ConnectFailure); 8] = [
    ("refused", ConnectFailure::Refused),
    ("timed-out", ConnectFailure::TimedOut),
    ("unreachable", ConnectFailure::Unreachable),
    ("cancelled", ConnectFailure::Cancelled),
    ("detached", ConnectFailure::Detached),
    ("address-in-use", ConnectFailure::AddressInUse),
    ("address-not-available", ConnectFailure::AddressNotAvailable),
    ("no-room", ConnectFailure::NoRoom),
];

fn value<T: Copy>(table: &[(&str, T)], name: Option<&str>) -> Option<T> {
    table.iter().find(|(known, _)| Some(*known) == name).map(|&(_, value)| value)
}

fn name<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, known)| known == value).map_or("?", |(name, _)| name)
}

impl Event {
    /// The event of a statement's words, if it is one.
    pub fn parse(words: &[&str]) -> Option<Event> {
        let reason = words.get(1).copied();
        match (*words.first()?, words.len()) {
            ("accepted", 1) => Some(Event::Accepted),
            ("connected", 1) => Some(Event::Connected),
            ("urgent", 1) => Some(Event::Urgent),
            ("peer_closed", 1) => Some(Event::PeerClosed),
            ("failed", 2) => value(&FAILURES, reason).map(Event::Failed),
            ("was_reset", 2) => value(&CLOSE_REASONS, reason).map(Event::WasReset),
            ("closed", 2) => value(&CLOSE_REASONS, reason).map(Event::Closed),
            _ => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Accepted => f.write_str("accepted"),
            Event::Connected => f.write_str("connected"),
            Event::Urgent => f.write_str("urgent"),
            Event::PeerClosed => f.write_str("peer_closed"),
            Event::Failed(failure) => write!(f, "failed {}", name(&FAILURES, failure)),
            Event::WasReset(reason) => write!(f, "was_reset {}", name(&CLOSE_REASONS, reason)),
            Event::Closed(reason) => write!(f, "closed {}", name(&CLOSE_REASONS, reason)),
        }
    }
}

/// What the app and the script share.
#[derive(Default)]
pub struct Notes {
    /// Callbacks that no statement has taken, with their microsecond.
    pub events: VecDeque<(u64, Event)>,
    /// The session that came up last, until it is closed.
    pub session: Option<SessionHandle>,
    /// The listener, once it is up.
    pub listener: Option<ListenerId>,
    /// Why there is none.
    pub listen_error: Option<ListenError>,
}

/// Something to be done inside a callback, where sessions can be worked on.
pub struct Call(pub Box<dyn FnOnce(&mut Context<'_>) + Send>);

/// The app.
#[derive(Clone, Default)]
pub struct ScriptApp(pub Arc<Mutex<Notes>>);

impl ScriptApp {
    fn note(&self, ctx: &Context<'_>, event: Event) {
        self.0.lock().events.push_back((ctx.now().as_micros(), event));
    }
}

impl Application for ScriptApp {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(self.clone())
    }

    fn listening(
        &mut self,
        _ctx: &mut MainContext<'_>,
        _opaque: u64,
        result: Result<(ListenerId, Address), ListenError>,
    ) {
        let mut notes = self.0.lock();
        match result {
            Ok((listener, _)) => notes.listener = Some(listener),
            Err(error) => notes.listen_error = Some(error),
        }
    }
}

impl AppWorker for ScriptApp {
    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.0.lock().session = Some(session);
        self.note(ctx, Event::Accepted);
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        _opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        match outcome {
            Ok(session) => {
                self.0.lock().session = Some(session);
                self.note(ctx, Event::Connected);
            }
            Err(failure) => self.note(ctx, Event::Failed(failure)),
        }
    }

    fn urgent(&mut self, ctx: &mut Context<'_>, _session: SessionHandle) {
        self.note(ctx, Event::Urgent);
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, _session: SessionHandle) {
        self.note(ctx, Event::PeerClosed);
    }

    fn reset(&mut self, ctx: &mut Context<'_>, _session: SessionHandle, reason: CloseReason) {
        self.note(ctx, Event::WasReset(reason));
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, _opaque: u64, reason: CloseReason) {
        {
            let mut notes = self.0.lock();
            if notes.session == Some(session) {
                notes.session = None;
            }
        }
        self.note(ctx, Event::Closed(reason));
    }

    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn Any + Send>) {
        if let Ok(call) = message.downcast::<Call>() {
            (call.0)(ctx);
        }
    }
}
