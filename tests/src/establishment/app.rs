//! The app of the enumeration: one object that is a relay, a check or a plain app, as the cell says, and notes every
//! callback.

use std::any::Any;
use std::sync::Arc;

use hoststack::app::{
    AppWorker, Application, CloseReason, ConnectFailure, ConnectId, Context, Instant, MainContext,
    SessionHandle, WorkerId,
};
use parking_lot::{Mutex, MutexGuard};

use super::cell::Consumer;

/// The opaque value of a relay's older session.
pub const FRONT: u64 = 1;
/// The opaque value of the session that is being established.
pub const BACK: u64 = 2;

/// A callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// `connected`, and when.
    Connected(Result<(), ConnectFailure>, Instant),
    /// `readable`, with what was read (by a relay: moved).
    Data(Vec<u8>),
    /// `writable`.
    Writable,
    /// `peer_closed`.
    PeerClosed,
    /// `reset`.
    Reset(CloseReason),
    /// `closed`.
    Closed(CloseReason),
    /// `half_open_cleaned`.
    Cleaned,
}

/// What the app does and was told.
#[derive(Debug)]
pub struct State {
    /// Who it is.
    pub consumer: Consumer,
    /// Whether it reads.
    pub reads: bool,
    /// Whether it asks for room.
    pub wants_room: bool,
    /// What it has still to write.
    pub to_write: Vec<u8>,
    /// Callbacks, with the session's opaque value.
    pub told: Vec<(u64, Told)>,
    /// Bytes that the session took from it (or from the other session of the relay).
    pub accepted: usize,
    front: Option<SessionHandle>,
    back: Option<SessionHandle>,
    /// Handles that must find nothing.
    stale: Vec<SessionHandle>,
    /// A stale handle found something, or a callback came for a session that is gone.
    pub fault: Option<&'static str>,
    closes: Option<Message>,
    /// It closes when all is written.
    is_done: bool,
}

impl Default for State {
    fn default() -> State {
        State {
            consumer: Consumer::App,
            reads: false,
            wants_room: false,
            to_write: Vec::new(),
            told: Vec::new(),
            accepted: 0,
            front: None,
            back: None,
            stale: Vec::new(),
            fault: None,
            closes: None,
            is_done: false,
        }
    }
}

/// What the app is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Close the new session, or do when it is there.
    Close,
    /// Reset the new session, or do when it is there.
    Abort,
    /// Close all there are.
    CloseAll,
    /// Reset all there are.
    AbortAll,
}

/// The app, and what the world sees of it.
#[derive(Clone, Default)]
pub struct Watched(Arc<Mutex<State>>);

impl Watched {
    /// What it does and was told. Not while the stack steps.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    fn tell(&self, opaque: u64, told: Told) {
        self.0.lock().told.push((opaque, told));
    }
}

impl Application for Watched {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(self.clone())
    }

    fn half_open_cleaned(&mut self, _ctx: &mut MainContext<'_>, _connect: ConnectId, opaque: u64) {
        self.tell(opaque, Told::Cleaned);
    }
}

impl State {
    /// Looks at all that must be so in each callback.
    fn enter(&mut self, ctx: &Context<'_>, session: Option<SessionHandle>) {
        if self.stale.iter().any(|&stale| ctx.is_live(stale)) {
            self.fault = Some("a handle finds a session after its `closed`");
        }
        if session.is_some_and(|session| !ctx.is_live(session)) {
            self.fault = Some("a callback for a session that is gone");
        }
    }

    fn write(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        if !self.to_write.is_empty() {
            let count = ctx.write(session, &self.to_write);
            self.to_write.drain(..count);
            self.accepted += count;
        }
        if self.to_write.is_empty() && self.is_done {
            ctx.close(session);
        }
    }

    /// Moves what it can, both ways.
    fn relay(&mut self, ctx: &mut Context<'_>) {
        if let (Some(front), Some(back)) = (self.front, self.back) {
            self.accepted += ctx.splice(front, back);
            ctx.splice(back, front);
        }
    }

    fn end(&mut self, ctx: &mut Context<'_>, session: SessionHandle, how: Message) {
        match how {
            Message::Close | Message::CloseAll => ctx.close(session),
            Message::Abort | Message::AbortAll => ctx.reset(session),
        }
    }
}

impl AppWorker for Watched {
    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        self.tell(opaque, Told::Connected(outcome.map(|_| ()), ctx.now()));
        let mut state = self.0.lock();
        state.enter(ctx, outcome.ok());
        let Ok(session) = outcome else {
            // A relay has nobody to relay to.
            return;
        };
        if opaque == FRONT {
            state.front = Some(session);
            return;
        }
        state.back = Some(session);
        if let Some(how) = state.closes {
            state.end(ctx, session, how);
            return;
        }
        match state.consumer {
            Consumer::Proxy => state.relay(ctx),
            Consumer::Check => {
                state.is_done = true;
                state.write(ctx, session);
            }
            Consumer::App => {
                state.write(ctx, session);
                if state.wants_room {
                    ctx.want_room(session);
                }
            }
        }
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let mut state = self.0.lock();
        state.enter(ctx, Some(session));
        let opaque = ctx.opaque(session);
        let mut bytes = Vec::new();
        if state.consumer == Consumer::Proxy {
            state.relay(ctx);
        } else if state.reads {
            bytes.resize(ctx.rx_len(session), 0);
            let count = ctx.read(session, &mut bytes);
            bytes.truncate(count);
        }
        state.told.push((opaque, Told::Data(bytes)));
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let mut state = self.0.lock();
        state.enter(ctx, Some(session));
        state.told.push((ctx.opaque(session), Told::Writable));
        match state.consumer {
            Consumer::Proxy => state.relay(ctx),
            _ => state.write(ctx, session),
        }
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let mut state = self.0.lock();
        state.enter(ctx, Some(session));
        let opaque = ctx.opaque(session);
        state.told.push((opaque, Told::PeerClosed));
        if state.consumer == Consumer::Proxy {
            state.relay(ctx);
            let other = if opaque == FRONT { state.back } else { state.front };
            if let Some(other) = other {
                ctx.half_close(other);
            }
            return;
        }
        // What is left to write goes first.
        state.is_done = true;
        state.write(ctx, session);
    }

    fn reset(&mut self, ctx: &mut Context<'_>, session: SessionHandle, reason: CloseReason) {
        let mut state = self.0.lock();
        state.enter(ctx, Some(session));
        state.told.push((ctx.opaque(session), Told::Reset(reason)));
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, opaque: u64, reason: CloseReason) {
        let mut state = self.0.lock();
        state.enter(ctx, None);
        state.told.push((opaque, Told::Closed(reason)));
        state.stale.push(session);
        if opaque == FRONT {
            state.front = None;
            return;
        }
        state.back = None;
        if let Some(front) = state.front {
            ctx.close(front);
        }
    }

    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn Any + Send>) {
        let Some(&message) = message.downcast_ref::<Message>() else { return };
        let mut state = self.0.lock();
        state.enter(ctx, None);
        state.closes = state.closes.or(Some(message));
        let front = state.front.filter(|_| matches!(message, Message::CloseAll | Message::AbortAll));
        for session in [state.back, front].into_iter().flatten() {
            state.end(ctx, session, message);
        }
    }
}
