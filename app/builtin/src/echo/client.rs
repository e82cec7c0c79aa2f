//! The echo client: many outbound sessions, in waves, each verifying what comes back.
//!
//! Connects are made in callbacks on the workers, never on main: main's work per connect (a 4-tuple, a half-open) is what
//! limits their rate, so main should do nothing else. An object claims connects when it is attached and whenever an
//! outcome arrives or a session ends on it; the workers' shares therefore follow the outcomes, and the object that sees
//! the last end of a wave simply claims from the next one. No timer, no message between workers: see `plan`.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use hoststack_app::report::WorkerDetachReport;
use hoststack_app::{
    AppWorker, AppWorkerId, Application, CloseReason, ConnectError, ConnectFailure, ConnectId,
    ConnectOptions, Context, Duration, Instant, MainContext, SessionHandle, WorkerId,
};

use crate::echo::client_stats::{ClientCell, EchoClientStats};
use crate::echo::stream::Pattern;
use crate::plan::{Completed, Plan};

/// What an echo client does. [`EchoClientOptions::to`] and change what differs.
#[derive(Clone, Debug)]
pub struct EchoClientOptions {
    /// Sessions to open, over all workers. Default 1.
    pub sessions: u32,
    /// Bytes that each sends and expects back; 0 = connect and close. Default 0.
    pub bytes: u64,
    /// The sessions are opened in so many waves; a wave begins when every session of the one before has ended (with
    /// `hold`: is held or has ended). At least 1, the default.
    pub waves: u32,
    /// Where to and from, one connect after the other, round and round. Their `opaque` values are replaced by the
    /// client's own.
    pub remotes: Vec<ConnectOptions>,
    /// Keep sessions open when their bytes have come back, until [`EchoClientHandle::release`] or a [`Release`]
    /// message. Default false.
    pub hold: bool,
    /// Every connect's timeout; `None` (default) = as in `remotes`.
    pub timeout: Option<Duration>,
    /// Most connects without an outcome at a time, over all workers: keeps a wave's SYNs below a listener's backlog and
    /// its data in the caches. Default 1024.
    pub pending_max: u32,
    /// The number of app workers that the client will be attached with, so that each gets a share. Default 1.
    pub app_workers: u32,
    /// Makes the bytes of two runs different. Default 0.
    pub seed: u64,
}

/// Most sessions of one client: numbers are 32 bits wide, and one of them means none.
pub const SESSIONS_MAX: u32 = u32::MAX - 1;

impl EchoClientOptions {
    /// One session of no bytes, to one of `remotes`.
    pub fn to(remotes: Vec<ConnectOptions>) -> EchoClientOptions {
        EchoClientOptions {
            sessions: 1,
            bytes: 0,
            waves: 1,
            remotes,
            hold: false,
            timeout: None,
            pending_max: 1024,
            app_workers: 1,
            seed: 0,
        }
    }

    fn validate(&self) -> Result<(), EchoClientError> {
        if self.remotes.is_empty() {
            return Err(EchoClientError::NoRemote);
        }
        if self.waves == 0 {
            return Err(EchoClientError::NoWaves);
        }
        if self.pending_max == 0 {
            return Err(EchoClientError::NoPending);
        }
        if self.sessions > SESSIONS_MAX {
            return Err(EchoClientError::TooManySessions);
        }
        for remote in &self.remotes {
            self.connect_options(remote, 0).validate().map_err(EchoClientError::BadRemote)?;
        }
        Ok(())
    }

    fn connect_options(&self, remote: &ConnectOptions, opaque: u64) -> ConnectOptions {
        ConnectOptions { opaque, timeout: self.timeout.unwrap_or(remote.timeout), ..*remote }
    }
}

/// Options that no echo client can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoClientError {
    /// No remote.
    NoRemote,
    /// No waves.
    NoWaves,
    /// No connect could ever be made.
    NoPending,
    /// More than [`SESSIONS_MAX`].
    TooManySessions,
    /// A remote cannot be connected to.
    BadRemote(ConnectError),
}

impl fmt::Display for EchoClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EchoClientError::NoRemote => f.write_str("there is no remote to connect to: give at least one"),
            EchoClientError::NoWaves => f.write_str("the number of waves is 0: give at least 1"),
            EchoClientError::NoPending => {
                f.write_str("pending_max is 0, so no connect could ever be made: give at least 1")
            }
            EchoClientError::TooManySessions => write!(f, "too many sessions: give at most {SESSIONS_MAX}"),
            EchoClientError::BadRemote(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EchoClientError {}

/// A message for [`AppWorker::notified`] on each worker: held sessions are closed at once (the flag that
/// [`EchoClientHandle::release`] sets is looked at every 10 ms).
#[derive(Clone, Copy, Debug)]
pub struct Release;

/// What an echo client tells, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoClientEvent {
    /// With `hold`: every session is held, or has ended.
    Held,
    /// Every session has ended.
    Done,
}

/// Opens sessions and verifies their echo.
#[derive(Debug)]
pub struct EchoClient {
    shared: Arc<Shared>,
    events: Receiver<EchoClientEvent>,
}

/// What to keep of an [`EchoClient`] that was attached. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct EchoClientHandle {
    shared: Arc<Shared>,
    events: Receiver<EchoClientEvent>,
}

/// What the client's objects and handles share.
#[derive(Debug)]
struct Shared {
    options: EchoClientOptions,
    plan: Plan,
    stats: EchoClientStats,
    /// Sessions that are over.
    ended: AtomicU32,
    released: AtomicBool,
    events: Sender<EchoClientEvent>,
}

impl EchoClient {
    /// A client that does this once, when it is attached.
    ///
    /// # Errors
    /// [`EchoClientError`] if nothing could come of the options.
    pub fn new(options: EchoClientOptions) -> Result<EchoClient, EchoClientError> {
        options.validate()?;
        // Room for each event once.
        let (sender, events) = bounded(2);
        let plan = Plan::new(options.sessions, options.waves, options.pending_max);
        let shared = Arc::new(Shared {
            options,
            plan,
            stats: EchoClientStats::default(),
            ended: AtomicU32::new(0),
            released: AtomicBool::new(false),
            events: sender,
        });
        if shared.options.sessions == 0 {
            shared.tell_complete();
            shared.tell(EchoClientEvent::Done);
        }
        Ok(EchoClient { shared, events })
    }

    /// A handle to watch it with.
    pub fn handle(&self) -> EchoClientHandle {
        EchoClientHandle { shared: self.shared.clone(), events: self.events.clone() }
    }
}

impl EchoClientHandle {
    /// What the client does, while and after it runs.
    pub fn stats(&self) -> &EchoClientStats {
        &self.shared.stats
    }

    /// Lets held sessions go, within 10 ms; sessions that complete later are not held any more.
    pub fn release(&self) {
        self.shared.released.store(true, Ordering::Release);
    }

    /// Whether every session is held or has ended.
    pub fn is_complete(&self) -> bool {
        self.shared.plan.is_complete()
    }

    /// Whether every session has ended.
    pub fn is_done(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire) == self.shared.options.sessions
    }

    /// Sessions that have ended, of those asked for.
    pub fn progress(&self) -> (u32, u32) {
        (self.shared.ended.load(Ordering::Acquire), self.shared.options.sessions)
    }

    /// Where the client tells that it holds all, and that it is done.
    pub fn events(&self) -> &Receiver<EchoClientEvent> {
        &self.events
    }
}

impl Shared {
    /// The options of connect `number`, made at `now`.
    fn connect_options(&self, number: u32, now: Instant) -> ConnectOptions {
        let remotes = &self.options.remotes;
        let remote = &remotes[number as usize % remotes.len()];
        self.options.connect_options(remote, Tag::new(number, now).0)
    }

    /// A connect has its outcome, or will never have one.
    fn on_outcome(&self) {
        self.plan.free();
    }

    /// A session is held or over.
    fn on_complete(&self) {
        if self.plan.complete() == Completed::All {
            self.tell_complete();
        }
    }

    fn tell_complete(&self) {
        if self.options.hold {
            self.tell(EchoClientEvent::Held);
        }
    }

    /// A session is over.
    fn on_end(&self) {
        if self.ended.fetch_add(1, Ordering::AcqRel) + 1 == self.options.sessions {
            self.tell(EchoClientEvent::Done);
        }
    }

    fn tell(&self, event: EchoClientEvent) {
        // There is room for each event once, and each is told once.
        let _ = self.events.try_send(event);
    }

    fn holds(&self) -> bool {
        self.options.hold && !self.released.load(Ordering::Acquire)
    }
}

/// A connect's opaque value: its number, and when it was made, so that neither needs a table. Microseconds in 32 bits
/// wrap after 71 minutes, longer than any connect takes to end.
#[derive(Clone, Copy)]
struct Tag(u64);

impl Tag {
    fn new(number: u32, now: Instant) -> Tag {
        Tag((u64::from(number) << 32) | (now.as_micros() & u64::from(u32::MAX)))
    }

    fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Microseconds since the connect was made; 0 if this thread's clock is a step behind.
    fn age_us(self, now: Instant) -> u64 {
        let age = (now.as_micros() as u32).wrapping_sub(self.0 as u32);
        if age > u32::MAX - 1_000_000 { 0 } else { u64::from(age) }
    }
}

impl Application for EchoClient {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(EchoClientWorker {
            cell: self.shared.stats.new_cell(),
            shared: self.shared.clone(),
            flows: Vec::new(),
            held: Vec::new(),
            releasing: 0,
            deferred: Vec::new(),
            is_polling: false,
            is_detaching: false,
        })
    }

    fn half_open_cleaned(&mut self, _ctx: &mut MainContext<'_>, _connect: ConnectId, _opaque: u64) {
        self.shared.stats.main.half_opens_cleaned.add(1);
    }

    /// The sessions that the detached app worker would have opened are opened by another one.
    fn worker_detached(&mut self, ctx: &mut MainContext<'_>, report: &WorkerDetachReport) {
        let other = ctx.app_workers().iter().copied().find(|app_worker| *app_worker != report.app_worker);
        let Some(app_worker) = other else { return };
        let issuer = &self.shared.stats.main.issuer;
        while let Some(number) = self.shared.plan.claim() {
            match ctx.connect(app_worker, self.shared.connect_options(number, ctx.now())) {
                Ok(_) => issuer.requested.add(1),
                Err(_) => {
                    issuer.not_issued.add(1);
                    self.shared.on_outcome();
                    self.shared.on_complete();
                    self.shared.on_end();
                }
            }
        }
    }
}

/// A session of the client. Found by the session's slot: no lookup, nothing allocated per session.
#[derive(Clone, Copy)]
struct Flow {
    /// Bytes queued for sending.
    sent: u64,
    /// Bytes that came back.
    echoed: u64,
    /// The connect's number; [`NOBODY`] if the slot has no session of ours.
    number: u32,
    /// It was held, so its wave does not wait for its end.
    was_held: bool,
}

const NOBODY: u32 = u32::MAX;
const NO_FLOW: Flow = Flow { sent: 0, echoed: 0, number: NOBODY, was_held: false };

/// Timer: look whether held sessions were released, or a connect can be made that could not.
const TIMER_POLL: u64 = 0;
/// Timer: close more of the released sessions although those before have not ended.
const TIMER_RELEASE: u64 = 1;
/// How often a release is looked for.
const POLL_HELD: Duration = Duration::from_millis(10);
/// How soon a connect is tried again that found too many pending.
const POLL_DEFERRED: Duration = Duration::from_millis(1);
/// Released sessions that are closing at a time: bounds the step, and the burst of FINs.
const RELEASE_BURST: usize = 512;
/// When so much time has passed without them closing, more are released all the same: a peer may never close its end.
const RELEASE_EVERY: Duration = Duration::from_millis(100);
/// Bytes written in place at a time.
const WRITE_RUN: u64 = 1 << 16;

struct EchoClientWorker {
    shared: Arc<Shared>,
    cell: Arc<ClientCell>,
    /// By session slot.
    flows: Vec<Flow>,
    held: Vec<SessionHandle>,
    /// Released sessions that have not ended, since the last burst.
    releasing: usize,
    /// Numbers claimed whose connect was not taken because too many were pending on this thread.
    deferred: Vec<u32>,
    is_polling: bool,
    is_detaching: bool,
}

impl EchoClientWorker {
    // ---- Connects ----

    /// Makes connects as far as the plan allows, at most `limit`. One that is not taken does not count: nothing would
    /// come of it that makes the list go on.
    fn pump(&mut self, ctx: &mut Context<'_>, mut limit: u32) {
        while limit > 0 && !self.is_detaching {
            let Some(number) = self.deferred.pop().or_else(|| self.shared.plan.claim()) else { return };
            match ctx.connect(self.shared.connect_options(number, ctx.now())) {
                Ok(_) => {
                    self.cell.issuer.requested.add(1);
                    limit -= 1;
                }
                Err(ConnectError::TooManyPending) => {
                    self.deferred.push(number);
                    self.poll(ctx, POLL_DEFERRED);
                    return;
                }
                Err(_) => self.give_up(),
            }
        }
    }

    /// A number that was claimed has no connect and never will.
    fn give_up(&mut self) {
        self.cell.issuer.not_issued.add(1);
        self.shared.on_outcome();
        self.shared.on_complete();
        self.shared.on_end();
    }

    // ---- Sessions ----

    fn flow_mut(&mut self, session: SessionHandle) -> &mut Flow {
        let slot = session.session().0.slot as usize;
        if self.flows.len() <= slot {
            self.flows.resize(slot + 1, NO_FLOW);
        }
        &mut self.flows[slot]
    }

    fn write(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let (seed, bytes) = (self.shared.options.seed, self.shared.options.bytes);
        let flow = self.flow_mut(session);
        let (pattern, before) = (Pattern::new(seed, flow.number), flow.sent);
        while flow.sent < bytes {
            // At most WRITE_RUN, so it fits.
            let room = ctx.reserve(session, (bytes - flow.sent).min(WRITE_RUN) as usize);
            let count = room.len();
            if count == 0 {
                break;
            }
            pattern.fill(flow.sent, room);
            ctx.commit(session, count);
            flow.sent += count as u64;
        }
        let sent = flow.sent - before;
        self.cell.bytes_sent.add(sent);
    }

    fn read(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let (seed, bytes) = (self.shared.options.seed, self.shared.options.bytes);
        let flow = self.flow_mut(session);
        let (pattern, before) = (Pattern::new(seed, flow.number), flow.echoed);
        let mut mismatched = 0;
        loop {
            let run = ctx.peek(session);
            if run.is_empty() {
                break;
            }
            let count = run.len();
            // Bytes beyond the end were never sent: all of them are wrong.
            let expected = (bytes - flow.echoed.min(bytes)).min(count as u64) as usize;
            mismatched += pattern.count_mismatches(flow.echoed, &run[..expected]) + (count - expected) as u64;
            ctx.consume(session, count);
            flow.echoed += count as u64;
        }
        let (echoed, was_complete, is_complete) =
            (flow.echoed - before, before >= bytes, flow.echoed >= bytes);
        self.cell.bytes_echoed.add(echoed);
        self.cell.bytes_mismatched.add(mismatched);
        if is_complete && !was_complete {
            self.complete(ctx, session);
        }
    }

    /// Every byte has come back.
    fn complete(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        if !self.shared.holds() {
            ctx.close(session);
            return;
        }
        self.flow_mut(session).was_held = true;
        self.held.push(session);
        self.cell.held.add(1);
        self.poll(ctx, POLL_HELD);
        self.shared.on_complete();
        self.pump(ctx, u32::MAX);
    }

    fn poll(&mut self, ctx: &mut Context<'_>, delay: Duration) {
        if !self.is_polling {
            self.is_polling = true;
            ctx.set_timer(TIMER_POLL, delay);
        }
    }

    /// Closes held sessions, as many as may be closing at a time.
    fn release(&mut self, ctx: &mut Context<'_>) {
        let count = (RELEASE_BURST - self.releasing).min(self.held.len());
        if count == 0 {
            return;
        }
        for session in self.held.drain(self.held.len() - count..) {
            // One that has ended meanwhile is not found, and does not count.
            if ctx.is_live(session) {
                ctx.close(session);
                self.releasing += 1;
            }
        }
        if self.held.is_empty() {
            ctx.cancel_timer(TIMER_RELEASE);
        } else {
            ctx.set_timer(TIMER_RELEASE, RELEASE_EVERY);
        }
    }
}

impl AppWorker for EchoClientWorker {
    fn attached(&mut self, ctx: &mut Context<'_>) {
        let objects = u32::from(ctx.workers()).saturating_mul(self.shared.options.app_workers.max(1));
        self.pump(ctx, self.shared.plan.first_share(objects));
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        let tag = Tag(opaque);
        self.shared.on_outcome();
        match outcome {
            Ok(session) => {
                self.cell.connected.add(1);
                self.cell.latency_us.record(tag.age_us(ctx.now()));
                *self.flow_mut(session) = Flow { number: tag.number(), ..NO_FLOW };
                if self.shared.options.bytes == 0 {
                    self.complete(ctx, session);
                } else {
                    self.write(ctx, session);
                }
            }
            Err(failure) => {
                self.cell.on_failure(failure);
                self.shared.on_complete();
                self.shared.on_end();
            }
        }
        self.pump(ctx, u32::MAX);
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.read(ctx, session);
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.write(ctx, session);
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, _opaque: u64, reason: CloseReason) {
        let bytes = self.shared.options.bytes;
        let flow = std::mem::replace(self.flow_mut(session), NO_FLOW);
        if flow.number == NOBODY {
            // Not ours: someone gave this app worker a listener.
            return;
        }
        match reason.is_graceful() {
            true if flow.echoed == bytes => self.cell.closed_ok.add(1),
            true => self.cell.closed_short.add(1),
            false => self.cell.reset.add(1),
        }
        if flow.was_held {
            self.cell.held.sub(1);
            if !self.shared.holds() {
                self.releasing = self.releasing.saturating_sub(1);
                self.release(ctx);
            }
        } else {
            self.shared.on_complete();
        }
        self.shared.on_end();
        self.pump(ctx, u32::MAX);
    }

    fn timer(&mut self, ctx: &mut Context<'_>, token: u64) {
        if token == TIMER_RELEASE {
            self.releasing = 0;
            self.release(ctx);
            return;
        }
        self.is_polling = false;
        self.pump(ctx, u32::MAX);
        if self.shared.holds() {
            if !self.held.is_empty() {
                self.poll(ctx, POLL_HELD);
            }
        } else {
            self.release(ctx);
        }
    }

    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn Any + Send>) {
        if message.is::<Release>() {
            self.shared.released.store(true, Ordering::Release);
            self.release(ctx);
        }
    }

    fn detaching(&mut self, _ctx: &mut Context<'_>, _app_worker: AppWorkerId) {
        self.is_detaching = true;
        for _ in std::mem::take(&mut self.deferred) {
            self.give_up();
        }
    }
}
