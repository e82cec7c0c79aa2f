//! The apps of a world: they do anything, anywhere, as often as their temper says, and tell the oracle all of it.

use std::any::Any;

use hoststack::app::*;

use super::coverage::{Action, Callback, Row};
use super::hub::{Hub, State};
use super::options::{connect_options, detach_policy, listen_options};
use super::oracle::{At, Stage};
use super::packets::FlowId;
use super::talk;

pub(crate) use super::talk::Talk;

/// The payload of a simulated panic: the hook keeps quiet about it.
#[derive(Debug)]
pub(crate) struct SimPanic;

/// A message to an object: what it shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Whatever comes to mind.
    Wake,
    /// Finish every session.
    CalmDown,
}

/// How wild the apps of a world are: one in so many chances does the thing, 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Temper {
    /// One in so many callbacks does more than its work.
    pub(crate) act: u64,
    pub(crate) connect: u64,
    pub(crate) cancel: u64,
    pub(crate) close: u64,
    pub(crate) reset: u64,
    pub(crate) detach: u64,
    pub(crate) panic: u64,
    pub(crate) main_panic: u64,
    /// One in so many announced sessions is rejected at once.
    pub(crate) reject: u64,
    /// Connects made in callbacks, at most.
    pub(crate) connects_max: u64,
    /// Bytes that a session writes, at most.
    pub(crate) bytes_max: u64,
    /// Deadlines of connects, in microseconds, at most.
    pub(crate) timeout_us_max: u64,
    /// Ends of app workers linger this long at most, in microseconds.
    pub(crate) linger_us_max: u64,
}

/// An application on main.
pub(crate) struct SimApp {
    pub(crate) hub: Hub,
    pub(crate) app: usize,
    pub(crate) host: u8,
}

/// An app worker's object on one worker.
struct SimWorker {
    hub: Hub,
    at: At,
    host: u8,
}

impl Application for SimApp {
    fn app_worker(&mut self, unit: u32, worker: WorkerId) -> Box<dyn AppWorker> {
        let mut s = self.hub.lock();
        s.oracle.object_made(self.app, unit, worker);
        Box::new(SimWorker { hub: self.hub.clone(), at: At { app: self.app, unit, worker }, host: self.host })
    }

    fn attached(&mut self, ctx: &mut MainContext<'_>) {
        self.on_main(ctx, Callback::MainAttached, "attached on main", |s, app, ctx| {
            let record = &mut s.oracle.apps[app];
            record.id = Some(ctx.app());
            for (unit, id) in record.units.iter_mut().zip(ctx.app_workers()) {
                unit.id = Some(*id);
            }
        });
    }

    fn listening(
        &mut self,
        ctx: &mut MainContext<'_>,
        _opaque: u64,
        result: Result<(ListenerId, Address), ListenError>,
    ) {
        self.on_main(ctx, Callback::MainListening, "listening", |s, _, _| {
            if let Ok((listener, _)) = result {
                s.listeners.push(listener);
            }
        });
    }

    fn half_open_cleaned(&mut self, ctx: &mut MainContext<'_>, connect: ConnectId, opaque: u64) {
        self.on_main(ctx, Callback::MainCleaned, "half_open_cleaned", |s, app, _| {
            s.note(connect.as_u64());
            s.oracle.cleaned(app, connect, opaque);
        });
    }

    fn worker_detached(&mut self, ctx: &mut MainContext<'_>, report: &WorkerDetachReport) {
        let host = usize::from(self.host);
        self.on_main(ctx, Callback::MainWorkerDetached, "worker_detached", |s, app, _| {
            s.oracle.worker_detached(app, report);
            if !report.stuck.is_empty() {
                s.transit(host, Row::DetachStuck);
            } else if report.panicked {
                s.transit(host, Row::DetachPanic);
            } else if report.sessions_reset == 0 && report.sessions > 0 {
                s.transit(host, Row::DetachLinger);
            } else if report.sessions_reset > 0 {
                s.transit(host, Row::DetachReset);
            }
            if report.outcomes.late_segments > 0 {
                s.transit(host, Row::Late);
            }
            if report.outcomes.undelivered > 0 {
                s.transit(host, Row::Undelivered);
            }
        });
    }

    fn detached(&mut self, report: &DetachReport) {
        let mut s = self.hub.lock();
        s.trace(|| format!("host {} app {} detached", self.host, self.app));
        s.oracle.app_detached(self.app, report);
    }
}

impl SimApp {
    fn on_main(
        &mut self,
        ctx: &mut MainContext<'_>,
        callback: Callback,
        name: &'static str,
        tell: impl FnOnce(&mut State, usize, &mut MainContext<'_>),
    ) {
        let mut s = self.hub.lock();
        s.callbacks += 1;
        s.note(0x100 + callback as u64);
        s.oracle.main_callback(self.app, name);
        s.trace(|| format!("host {} app {} {name}", self.host, self.app));
        tell(&mut s, self.app, ctx);
        let (host, app) = (self.host, self.app);
        if !s.is_calm && act_on_main(&mut s, ctx, callback, host, app) {
            s.trace(|| format!("    app {app} panics on main"));
            s.oracle.apps[app].main_dead = true;
            s.oracle.detach_asked(app, None);
            drop(s);
            std::panic::panic_any(SimPanic);
        }
    }
}

/// Whatever an application does in a callback on main. Says whether it panics.
fn act_on_main(s: &mut State, ctx: &mut MainContext<'_>, callback: Callback, host: u8, app: usize) -> bool {
    let temper = s.temper;
    if !s.dice.one_of(temper.act) {
        return false;
    }
    for _ in 0..1 + s.dice.below(2) {
        let units = ctx.app_workers();
        let unit = if units.is_empty() { None } else { Some(s.dice.pick(units)) };
        let action = match (s.dice.below(12), unit) {
            (0..=3, Some(unit)) if s.connects_in_callbacks < temper.connects_max => {
                let options = connect_options(s, host, ctx.workers());
                let number = s.oracle.apps[app].units.iter().position(|record| record.id == Some(unit));
                // The id of an app worker is known once its first object was heard of, or attach was answered.
                let Some(number) = number else { continue };
                if let Ok(id) = ctx.connect(unit, options.clone()) {
                    s.connects_in_callbacks += 1;
                    made(s, host, (app, number as u32), id, &options);
                }
                Action::Connect
            }
            (4 | 5, _) => {
                let Some(id) = known_connect(s, host) else { continue };
                s.oracle.cancel_asked(host, id);
                ctx.cancel(id);
                Action::Cancel
            }
            (6, Some(unit)) => {
                let options = listen_options(s, host);
                let _ = ctx.listen(unit, options);
                Action::Listen
            }
            (7, Some(unit)) if !s.listeners.is_empty() && s.dice.one_of(4) => {
                let index = s.dice.index(s.listeners.len());
                ctx.unlisten(unit, s.listeners[index]);
                Action::Unlisten
            }
            (8, Some(unit)) if s.dice.one_of(temper.detach) => {
                let number = s.oracle.apps[app].units.iter().position(|record| record.id == Some(unit));
                if let Some(number) = number {
                    s.oracle.detach_asked(app, Some(number as u32));
                    let policy = detach_policy(s);
                    ctx.detach_worker(unit, policy);
                }
                Action::Detach
            }
            (9, _) if temper.detach > 0 && s.dice.one_of(temper.detach * 3) => {
                s.oracle.detach_asked(app, None);
                let policy = detach_policy(s);
                ctx.detach(policy);
                Action::DetachApp
            }
            (10, _) if s.dice.one_of(temper.main_panic) => {
                did(s, callback, Action::Panic);
                return true;
            }
            _ => continue,
        };
        did(s, callback, action);
        s.trace(|| format!("    does {action:?}"));
    }
    false
}

/// A connect was made: the oracle waits for its outcome from now on.
pub(crate) fn made(s: &mut State, host: u8, at: (usize, u32), id: ConnectId, options: &ConnectOptions) {
    let now_us = s.now_us;
    s.oracle.connect_made(at, id, options, now_us);
    s.connects.push((host, id.as_u64()));
    s.trace(|| format!("    connect {id} of host {host} app {} unit {}: {options:?}", at.0, at.1));
}

/// A connect of a host: a late one mostly, at times any.
pub(crate) fn known_connect(s: &mut State, host: u8) -> Option<ConnectId> {
    let len = s.connects.len();
    let window = if s.dice.one_of(4) { len } else { len.min(8) };
    let back = 1 + s.dice.index(window.max(1));
    let (of, id) = *s.connects.get(len.checked_sub(back)?)?;
    (of == host).then(|| ConnectId::from_u64(id))
}

fn did(s: &mut State, callback: Callback, action: Action) {
    if let Some(coverage) = &mut s.coverage {
        coverage.act(callback, action);
    }
}

impl SimWorker {
    /// One callback: the oracle hears of it, then the app does its work, then whatever comes to mind.
    fn told(
        &mut self,
        ctx: &mut Context<'_>,
        callback: Callback,
        name: &'static str,
        session: Option<SessionHandle>,
        tell: impl FnOnce(&mut State, &mut Context<'_>, At, u8),
    ) {
        let mut s = self.hub.lock();
        let at = self.at;
        s.callbacks += 1;
        s.note(
            (callback as u64) << 32 | session.map_or(0, |session| session.as_u64()) ^ u64::from(at.worker.0),
        );
        s.oracle.callback(at, name);
        if ctx.unit() != at.unit || ctx.worker() != at.worker {
            s.oracle
                .fail(|| format!("{name} of {at:?} is called as unit {} on {}", ctx.unit(), ctx.worker()));
        }
        if let Some(unit) = s.oracle.unit(at.app, at.unit) {
            unit.id = Some(ctx.app_worker());
        }
        let session_text = || session.map_or(String::new(), |session| format!(" {session}"));
        s.trace(|| {
            format!(
                "host {} {} app {} unit {} {name}{}",
                self.host,
                at.worker,
                at.app,
                at.unit,
                session_text()
            )
        });
        tell(&mut s, ctx, at, self.host);
        let temper = s.temper;
        let panics = !s.is_calm && {
            act(&mut s, ctx, at, self.host, callback, session);
            s.dice.one_of(temper.panic)
        };
        if panics {
            did(&mut s, callback, Action::Panic);
            let in_outcome = matches!(callback, Callback::ConnectedOk | Callback::ConnectedErr);
            s.oracle.panicked(at, in_outcome);
            s.trace(|| "    panics".to_owned());
            drop(s);
            std::panic::panic_any(SimPanic);
        }
    }

    /// A session is announced.
    fn begins(
        s: &mut State,
        ctx: &mut Context<'_>,
        at: At,
        host: u8,
        session: SessionHandle,
        connect: Option<ConnectId>,
    ) {
        let Ok(key) = ctx.flow(session) else {
            s.oracle.fail(|| format!("session {session} is announced and finds nothing"));
            return;
        };
        let flow = FlowId::new((key.local.addr, key.local.port), (key.remote.addr, key.remote.port));
        let opaque = ctx.opaque(session);
        if let Some(connect) = connect {
            s.oracle.connected_as_asked(host, connect, session, &key, opaque);
        }
        let talk = Talk::draw(s, flow);
        s.oracle.announced(at, session, opaque, talk);
        s.known.push((host, session.as_u64()));
        if !s.is_calm {
            let reject = s.temper.reject;
            if s.dice.one_of(reject) {
                ctx.reset(session);
            }
        }
        talk::serve(s, ctx, host, session);
    }
}

/// What an app does besides its work.
fn act(
    s: &mut State,
    ctx: &mut Context<'_>,
    at: At,
    host: u8,
    callback: Callback,
    current: Option<SessionHandle>,
) {
    let temper = s.temper;
    if !s.dice.one_of(temper.act) {
        return;
    }
    for _ in 0..1 + s.dice.below(3) {
        let session = match current {
            Some(session) if !s.dice.one_of(4) => Some(session),
            _ => some_session(s, host, at),
        };
        let action = match (s.dice.below(20), session) {
            (0..=3, _) if s.dice.one_of(temper.connect) && s.connects_in_callbacks < temper.connects_max => {
                let options = connect_options(s, host, ctx.workers());
                if let Ok(id) = ctx.connect(options.clone()) {
                    s.connects_in_callbacks += 1;
                    made(s, host, (at.app, at.unit), id, &options);
                    if s.dice.one_of(temper.cancel) {
                        s.oracle.cancel_asked(host, id);
                        ctx.cancel(id);
                    }
                }
                Action::Connect
            }
            (4, _) if s.dice.one_of(temper.cancel) => {
                let Some(id) = known_connect(s, host) else { continue };
                s.oracle.cancel_asked(host, id);
                ctx.cancel(id);
                Action::Cancel
            }
            (5, _) if s.dice.one_of(4) => {
                let options = listen_options(s, host);
                let _ = ctx.listen(options);
                Action::Listen
            }
            (6, _) if !s.listeners.is_empty() && s.dice.one_of(8) => {
                let index = s.dice.index(s.listeners.len());
                ctx.unlisten(s.listeners[index]);
                Action::Unlisten
            }
            (7, _) if s.dice.one_of(temper.detach) => {
                s.oracle.detach_asked(at.app, Some(at.unit));
                let policy = detach_policy(s);
                ctx.detach(policy);
                Action::Detach
            }
            (8 | 9, Some(session)) if s.dice.one_of(temper.close) => {
                talk::end(s, ctx, host, session, true);
                Action::Close
            }
            (10, Some(session)) if s.dice.one_of(temper.close) => {
                talk::end(s, ctx, host, session, false);
                Action::HalfClose
            }
            (11, Some(session)) if s.dice.one_of(temper.reset) => {
                ctx.reset(session);
                Action::Reset
            }
            (12, Some(session)) => {
                talk::read_some(s, ctx, host, session);
                Action::Read
            }
            (13, Some(session)) => {
                talk::write_more(s, ctx, host, session);
                Action::Write
            }
            (14, Some(session)) => {
                talk::splice_some(s, ctx, host, session);
                Action::Splice
            }
            (15, _) => {
                let (token, delay) = (s.dice.below(4), s.dice.below(50_000));
                let key = (at.app, at.unit, at.worker.0, token);
                if s.dice.one_of(5) {
                    s.timers.remove(&key);
                    ctx.cancel_timer(token);
                } else {
                    s.timers.insert(key, ctx.now().as_micros() + delay);
                    ctx.set_timer(token, Duration::from_micros(delay));
                }
                Action::Timer
            }
            (16 | 17, _) => {
                talk::probe(s, ctx, host, at, current);
                Action::Stale
            }
            (18, Some(session)) => {
                let opaque = s.dice.below(1000);
                if let Some(record) = s.oracle.sessions.get_mut(&(host, session.as_u64()))
                    && ctx.is_live(session)
                    && callback != Callback::Closed
                {
                    record.opaque = opaque;
                    ctx.set_opaque(session, opaque);
                }
                continue;
            }
            _ => continue,
        };
        did(s, callback, action);
        s.trace(|| format!("    does {action:?} {session:?}"));
    }
}

/// A session of this object that is not over, if a few throws find one.
fn some_session(s: &mut State, host: u8, at: At) -> Option<SessionHandle> {
    for _ in 0..4 {
        let len = s.known.len();
        if len == 0 {
            return None;
        }
        let window = len.min(if s.dice.one_of(3) { len } else { 10 });
        let (of, handle) = s.known[len - 1 - s.dice.index(window)];
        let is_its = |session: &super::oracle::Session| {
            (session.app, session.unit, session.worker) == (at.app, at.unit, at.worker.0)
                && session.stage < Stage::Closed
        };
        if of == host && s.oracle.sessions.get(&(of, handle)).is_some_and(is_its) {
            return Some(SessionHandle::from_u64(handle));
        }
    }
    None
}

impl AppWorker for SimWorker {
    fn attached(&mut self, ctx: &mut Context<'_>) {
        self.told(ctx, Callback::Attached, "attached", None, |_, _, _, _| {});
    }

    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.told(ctx, Callback::Accepted, "accepted", Some(session), |s, ctx, at, host| {
            s.transit(usize::from(host), Row::Accepted);
            SimWorker::begins(s, ctx, at, host, session, None);
        });
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        let callback = if outcome.is_ok() { Callback::ConnectedOk } else { Callback::ConnectedErr };
        self.told(ctx, callback, "connected", outcome.ok(), |s, ctx, at, host| {
            s.note(connect.as_u64());
            s.trace(|| format!("    {connect} {outcome:?}"));
            s.oracle.outcome(at, connect, opaque, outcome);
            s.transit(usize::from(host), outcome_row(outcome.err()));
            if let Ok(session) = outcome {
                SimWorker::begins(s, ctx, at, host, session, Some(connect));
            }
        });
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.told(ctx, Callback::Readable, "readable", Some(session), |s, ctx, at, host| {
            s.oracle.session_event(at, session, Stage::Readable);
            talk::serve(s, ctx, host, session);
        });
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.told(ctx, Callback::Writable, "writable", Some(session), |s, ctx, at, host| {
            s.oracle.session_event(at, session, Stage::Writable);
            talk::serve(s, ctx, host, session);
        });
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.told(ctx, Callback::PeerClosed, "peer_closed", Some(session), |s, ctx, at, host| {
            s.transit(usize::from(host), Row::PeerClosed);
            s.oracle.session_event(at, session, Stage::PeerClosed);
            talk::peer_closed(s, ctx, host, session);
        });
    }

    fn reset(&mut self, ctx: &mut Context<'_>, session: SessionHandle, reason: CloseReason) {
        self.told(ctx, Callback::Reset, "reset", Some(session), |s, _, at, _| {
            s.trace(|| format!("    {reason}"));
            s.oracle.session_event(at, session, Stage::Reset);
        });
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, opaque: u64, reason: CloseReason) {
        self.told(ctx, Callback::Closed, "closed", Some(session), |s, _, at, host| {
            s.trace(|| format!("    {reason}"));
            s.oracle.closed(at, session, opaque, reason);
            s.transit(usize::from(host), close_row(reason));
        });
    }

    fn timer(&mut self, ctx: &mut Context<'_>, token: u64) {
        self.told(ctx, Callback::Timer, "timer", None, |s, ctx, at, host| {
            let now_us = ctx.now().as_micros();
            if s.timers.remove(&(at.app, at.unit, at.worker.0, token)).is_none_or(|due_us| due_us > now_us) {
                s.oracle.fail(|| format!("timer {token} goes off unasked or early: {at:?}"));
            }
            if let Some(session) = some_session(s, host, at) {
                talk::serve(s, ctx, host, session);
            }
        });
    }

    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn Any + Send>) {
        let message = message.downcast_ref::<Message>().copied();
        self.told(ctx, Callback::Notified, "notified", None, |s, ctx, at, host| match message {
            Some(Message::CalmDown) => {
                let its: Vec<u64> = s
                    .oracle
                    .sessions
                    .range((host, 0)..=(host, u64::MAX))
                    .filter(|(_, session)| {
                        (session.app, session.unit, session.worker) == (at.app, at.unit, at.worker.0)
                            && session.stage < Stage::Closed
                    })
                    .map(|(&(_, handle), _)| handle)
                    .collect();
                for handle in its {
                    talk::serve(s, ctx, host, SessionHandle::from_u64(handle));
                }
            }
            Some(Message::Wake) => {}
            None => s.oracle.fail(|| format!("a message arrives as something else: {at:?}")),
        });
    }

    fn detaching(&mut self, ctx: &mut Context<'_>, app_worker: AppWorkerId) {
        self.told(ctx, Callback::Detaching, "detaching", None, |s, ctx, at, _| {
            if app_worker != ctx.app_worker() {
                s.oracle.fail(|| format!("detaching names another app worker: {at:?}"));
            }
            if s.oracle.unit(at.app, at.unit).is_some_and(|unit| !unit.detaching) {
                s.oracle.fail(|| format!("detaching though nobody asked for it: {at:?}"));
            }
        });
    }
}

impl Drop for SimWorker {
    fn drop(&mut self) {
        self.hub.lock().oracle.dropped(self.at);
    }
}

/// The row of a connect's outcome.
fn outcome_row(failure: Option<ConnectFailure>) -> Row {
    match failure {
        None => Row::Established,
        Some(ConnectFailure::Refused) => Row::Refused,
        Some(ConnectFailure::TimedOut) => Row::TimedOut,
        Some(ConnectFailure::Unreachable) => Row::Unreachable,
        Some(ConnectFailure::Cancelled) => Row::Cancelled,
        Some(ConnectFailure::Detached) => Row::Detached,
        Some(ConnectFailure::AddressInUse) => Row::AddressInUse,
        Some(ConnectFailure::AddressNotAvailable) => Row::AddressNotAvailable,
        Some(ConnectFailure::NoRoom) => Row::NoRoom,
        Some(ConnectFailure::Stage(_) | ConnectFailure::System(_)) => {
            unreachable!("no connect here has stages or goes to the host's kernel")
        }
    }
}

/// The row of a session's end.
fn close_row(reason: CloseReason) -> Row {
    match reason {
        CloseReason::Finished => Row::Finished,
        CloseReason::PeerReset => Row::PeerReset,
        CloseReason::LocalReset => Row::LocalReset,
        CloseReason::TimedOut => Row::EndTimedOut,
        CloseReason::Unreachable => Row::EndUnreachable,
        CloseReason::NoRoom => Row::EndNoRoom,
        CloseReason::Truncated | CloseReason::Corrupt => unreachable!("no TLS here"),
    }
}
