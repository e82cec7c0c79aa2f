//! The callbacks: which thread, in what order, what may be called inside.
//!
//! | callback | thread | order and number |
//! |---|---|---|
//! | [`Application::app_worker`] | main | once per app worker and worker, before its object's `attached` |
//! | [`Application::attached`] | main | first of the application's, once |
//! | [`Application::listening`] | main | once per listen request |
//! | [`Application::half_open_cleaned`] | main | once per connect request, after its `connected` returned |
//! | [`Application::worker_detached`] | main | once per app worker, after everything else of it |
//! | [`Application::detached`] | main | last, once; the value is dropped |
//! | [`AppWorker::attached`] | its worker | first of the object's, once |
//! | [`AppWorker::connected`] | the worker that owns the flow | once per connect request, whoever made it, wherever |
//! | [`AppWorker::accepted`] | the worker that owns the flow | once per inbound session |
//! | [`AppWorker::readable`], [`AppWorker::writable`] | the session's | after the session's announcement, any number |
//! | [`AppWorker::urgent`] | the session's | as those; of one step, before `readable` |
//! | [`AppWorker::peer_closed`] | the session's | at most once, after the last `readable` |
//! | [`AppWorker::reset`] | the session's | at most once; `closed` follows at once |
//! | [`AppWorker::closed`] | the session's | last of the session, once if it was announced |
//! | [`AppWorker::timer`], [`AppWorker::notified`] | its worker | any number |
//! | [`AppWorker::detaching`] | its worker | once; requests are refused from its return on |
//!
//! Inside any of them: whatever the context lends, in any number. Nothing called there runs another callback before this
//! one has returned, and after [`Context::close`] or [`Context::reset`] of a session only its `closed` follows. On main,
//! connects and listens name an app worker that is attached: one whose detach has begun is refused. What must not be done
//! inside is to wait: the calls of a stack handle that wait for an answer wait for the very thread that they are made on.
//!
//! A connect's outcome is decided once, by whoever holds its ticket: the transport, the deadline
//! ([`crate::ConnectOptions::timeout`]), a cancel, or a detach. A cancel either yields the one outcome `Cancelled` or loses to
//! the one that was decided before it.

use std::any::Any;

use hoststack_transport::{
    Address, AppWorkerId, CloseReason, ConnectFailure, ConnectId, FlowKey, ListenerId, SessionHandle,
    WorkerId,
};

use crate::context::{Context, MainContext};
use crate::error::ListenError;
use crate::report::{DetachReport, WorkerDetachReport};

/// An application: one value, owned by main. All its callbacks run on the main thread, none inside another.
pub trait Application: Send {
    /// Makes the object of app worker `unit` (numbered from 0 in this application) for `worker`. Called on main when
    /// the application or the app worker is attached, once per worker; the object then moves to that worker.
    fn app_worker(&mut self, unit: u32, worker: WorkerId) -> Box<dyn AppWorker>;

    /// The application is attached: its app workers exist on every worker, or will before anything reaches them.
    fn attached(&mut self, _ctx: &mut MainContext<'_>) {}

    /// A listen request ended: every worker has the listener, or none has.
    fn listening(
        &mut self,
        _ctx: &mut MainContext<'_>,
        _opaque: u64,
        _result: Result<(ListenerId, Address), ListenError>,
    ) {
    }

    /// The half-open of a connect request is gone: its transport deleted it. Exactly once per request, after the
    /// request's outcome was told (or could not be told because the app worker was gone).
    fn half_open_cleaned(&mut self, _ctx: &mut MainContext<'_>, _connect: ConnectId, _opaque: u64) {}

    /// An app worker was detached; nothing of it is left. No callback for it follows.
    fn worker_detached(&mut self, _ctx: &mut MainContext<'_>, _report: &WorkerDetachReport) {}

    /// The application was detached; nothing of it is left. No callback follows.
    fn detached(&mut self, _report: &DetachReport) {}
}

/// An app worker's object on one worker. All its callbacks run on that worker's thread, none inside another, and
/// each may call anything that [`Context`] offers.
///
/// Order, per session: `accepted` or `connected` first; then `urgent`, `readable`, `writable` in any order and number;
/// `peer_closed` after the last `readable`; `reset` at most once; `closed` last, exactly once. Per connect request:
/// one `connected`.
///
/// A panic in a callback detaches this app worker and nothing else.
pub trait AppWorker: Send {
    /// The object has arrived on its worker. Before any other callback.
    fn attached(&mut self, _ctx: &mut Context<'_>) {}

    /// An inbound session is up. To refuse it, [`Context::reset`] it here.
    fn accepted(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle) {}

    /// A connection came to one of its listeners and ended before it was accepted: a stage failed, was not done in time,
    /// or the peer left. There is no session.
    fn not_accepted(&mut self, _ctx: &mut Context<'_>, _flow: &FlowKey, _failure: ConnectFailure) {}

    /// The outcome of a connect request, exactly once, on the worker that owns the session.
    fn connected(
        &mut self,
        _ctx: &mut Context<'_>,
        _connect: ConnectId,
        _opaque: u64,
        _outcome: Result<SessionHandle, ConnectFailure>,
    ) {
    }

    /// Bytes arrived since the last call that were not taken. At most once per session and step. An app that leaves
    /// bytes behind is called again when more arrive, or reads them when it likes.
    fn readable(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle) {}

    /// The peer calls data urgent, some of which is unread, that was not urgent before (RFC 9293 §3.8.5, MUST-32).
    /// [`Context::urgent_left`] says how much; it is read in line like all other. At most once per session and step.
    fn urgent(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle) {}

    /// There is room to write again (a quarter of the fifo at least), after a write found less than it wanted.
    fn writable(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle) {}

    /// The peer will send no more; all it sent was announced by `readable` before. Our direction is open: an app that
    /// is done closes.
    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        ctx.close(session);
    }

    /// The session was cut off (reset by the peer, timed out, unreachable): `closed` follows at once.
    fn reset(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle, _reason: CloseReason) {}

    /// The session is over; its handle finds nothing after this call. `opaque` is the value the session carried.
    fn closed(
        &mut self,
        _ctx: &mut Context<'_>,
        _session: SessionHandle,
        _opaque: u64,
        _reason: CloseReason,
    ) {
    }

    /// A timer set with [`Context::set_timer`] went off.
    fn timer(&mut self, _ctx: &mut Context<'_>, _token: u64) {}

    /// A message from another thread, sent with the stack handle's `notify`.
    fn notified(&mut self, _ctx: &mut Context<'_>, _message: Box<dyn Any + Send>) {}

    /// The app worker is being detached: the last callback in which requests are taken. What is queued for sessions
    /// is still delivered after it, connects and listens are not accepted any more.
    fn detaching(&mut self, _ctx: &mut Context<'_>, _app_worker: AppWorkerId) {}
}
