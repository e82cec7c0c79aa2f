//! The app under test: it writes down what it is told, and does in its first callback what an event asked for.

use std::any::Any;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hoststack::app::{
    Address, AppWorker, AppWorkerId, Application, CloseReason, ConnectFailure, ConnectId, Context,
    DetachReport, Duration, Instant, ListenError, ListenerId, MainContext, SessionHandle, WorkerDetachReport,
    WorkerId,
};

use super::events::Inside;

/// What the app writes when its session is up.
pub const HELLO: &[u8] = b"hello";

/// A callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// `connected`.
    Connected(ConnectId, Result<SessionHandle, ConnectFailure>, Instant),
    /// `accepted`.
    Accepted(SessionHandle),
    /// `readable`, with what was read.
    Data(SessionHandle, Vec<u8>),
    /// `peer_closed`.
    PeerClosed(SessionHandle),
    /// `reset`.
    Cut(SessionHandle, CloseReason),
    /// `closed`.
    Closed(SessionHandle, CloseReason),
    /// The app panicked in the callback before.
    Panicked,
    /// `detaching`.
    Detaching,
    /// `half_open_cleaned`.
    Cleaned(ConnectId),
    /// `listening`.
    Listening(bool),
    /// `worker_detached`.
    WorkerDetached(Box<WorkerDetachReport>),
    /// `detached`.
    Detached,
    /// The answer to [`Message::IsLive`].
    Live(SessionHandle, bool),
}

/// What the app's objects share with the case.
#[derive(Debug, Default)]
pub struct Shared {
    told: Mutex<Vec<Told>>,
    inside: AtomicU8,
}

impl Shared {
    /// What was told so far.
    pub fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at what was told so far.
    pub fn look<R>(&self, look: impl FnOnce(&[Told]) -> R) -> R {
        look(&self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the app does in its first callback from now on.
    pub fn set_inside(&self, inside: Inside) {
        self.inside.store(inside as u8, Ordering::Relaxed);
    }

    fn tell(&self, told: Told) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }
}

/// What is sent to the app's object with `notify`.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    /// Do nothing.
    Nothing,
    /// Send main a report in this step and another one in the next.
    Chatter,
    /// Say whether the handle finds a session.
    IsLive(SessionHandle),
}

/// The application.
pub struct Watched(pub Arc<Shared>);

impl Application for Watched {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(Watcher(self.0.clone()))
    }

    fn listening(
        &mut self,
        _ctx: &mut MainContext<'_>,
        _opaque: u64,
        result: Result<(ListenerId, Address), ListenError>,
    ) {
        self.0.tell(Told::Listening(result.is_ok()));
    }

    fn half_open_cleaned(&mut self, _ctx: &mut MainContext<'_>, connect: ConnectId, _opaque: u64) {
        self.0.tell(Told::Cleaned(connect));
    }

    fn worker_detached(&mut self, _ctx: &mut MainContext<'_>, report: &WorkerDetachReport) {
        self.0.tell(Told::WorkerDetached(Box::new(report.clone())));
    }

    fn detached(&mut self, _report: &DetachReport) {
        self.0.tell(Told::Detached);
    }
}

struct Watcher(Arc<Shared>);

/// A connect that never was.
const NO_CONNECT: ConnectId = ConnectId::new(u16::MAX, 7);

impl Watcher {
    fn up(&self, ctx: &mut Context<'_>, session: Option<SessionHandle>) {
        let inside = self.0.inside.load(Ordering::Relaxed);
        if inside == Inside::Panic as u8 {
            self.0.tell(Told::Panicked);
            // As `panic!`, without the hook that would print it.
            resume_unwind(Box::new("an event asked for this"));
        }
        let Some(session) = session else { return };
        if inside == Inside::Reject as u8 {
            ctx.reset(session);
        } else if inside == Inside::Close as u8 {
            ctx.close(session);
        } else {
            self.greet(ctx, session);
        }
    }

    fn greet(&self, ctx: &mut Context<'_>, session: SessionHandle) {
        // All or nothing, so that what is left need not be remembered.
        if ctx.opaque(session) == 0 && ctx.write(session, HELLO) == HELLO.len() {
            ctx.set_opaque(session, 1);
        }
    }
}

impl AppWorker for Watcher {
    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.0.tell(Told::Accepted(session));
        self.up(ctx, Some(session));
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        connect: ConnectId,
        _opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        self.0.tell(Told::Connected(connect, outcome, ctx.now()));
        self.up(ctx, outcome.ok());
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let mut bytes = vec![0; ctx.rx_len(session)];
        let count = ctx.read(session, &mut bytes);
        bytes.truncate(count);
        self.0.tell(Told::Data(session, bytes));
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.greet(ctx, session);
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.0.tell(Told::PeerClosed(session));
        ctx.close(session);
    }

    fn reset(&mut self, _ctx: &mut Context<'_>, session: SessionHandle, reason: CloseReason) {
        self.0.tell(Told::Cut(session, reason));
    }

    fn closed(&mut self, _ctx: &mut Context<'_>, session: SessionHandle, _opaque: u64, reason: CloseReason) {
        self.0.tell(Told::Closed(session, reason));
    }

    fn timer(&mut self, ctx: &mut Context<'_>, _token: u64) {
        ctx.cancel(NO_CONNECT);
    }

    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn Any + Send>) {
        match message.downcast_ref::<Message>() {
            Some(Message::Chatter) => {
                ctx.cancel(NO_CONNECT);
                ctx.set_timer(0, Duration::ZERO);
            }
            Some(&Message::IsLive(session)) => self.0.tell(Told::Live(session, ctx.is_live(session))),
            Some(Message::Nothing) | None => {}
        }
    }

    fn detaching(&mut self, _ctx: &mut Context<'_>, _app_worker: AppWorkerId) {
        self.0.tell(Told::Detaching);
    }
}
