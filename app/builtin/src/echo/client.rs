//! The echo client: many outbound sessions, in waves, each verifying what comes back.
//!
//! Connects are made in callbacks on the workers, never on main: main's work per connect (a 4-tuple, a half-open) is what
//! limits their rate, so main should do nothing else. An object claims connects when it is attached and whenever an
//! outcome arrives or a session ends on it; the workers' shares therefore follow the outcomes, and the object that sees
//! the last end of a wave simply claims from the next one. No timer, no message between workers: see `plan`.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, Sender, bounded};
use hoststack_app::report::WorkerDetachReport;
use hoststack_app::{
    AppWorker, AppWorkerId, Application, ConnectId, ConnectOptions, DetachPolicy, Instant, MainContext,
    WorkerId,
};

use crate::echo::cancels::Draw;
use crate::echo::client_options::{EchoClientError, EchoClientOptions};
use crate::echo::client_stats::EchoClientStats;
use crate::echo::client_worker::EchoClientWorker;
use crate::plan::{Completed, Plan};

/// A message for [`AppWorker::notified`] on each worker: held sessions are closed at once (the flag that
/// [`EchoClientHandle::release`] sets is looked at every 10 ms).
#[derive(Clone, Copy, Debug)]
pub struct Release;

/// What an echo client tells, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoClientEvent {
    /// With `hold`: every session is held, or has ended.
    Held,
    /// With `detach_at`: the app worker has detached itself, [`EchoClientHandle::detach_report`] is there. The rest of
    /// the list waits for another app worker, unless there is one already.
    Detached,
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
pub(super) struct Shared {
    pub(super) options: EchoClientOptions,
    pub(super) plan: Plan,
    pub(super) stats: EchoClientStats,
    pub(super) cancels: Draw,
    /// Sessions that are over.
    ended: AtomicU32,
    pub(super) released: AtomicBool,
    /// The app worker that has detached itself, and how that ended.
    detacher: OnceLock<AppWorkerId>,
    detach_report: OnceLock<WorkerDetachReport>,
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
        let (sender, events) = bounded(3);
        let plan = Plan::new(options.sessions, options.waves, options.pending_max)
            .pausing_at(options.detach_at.unwrap_or(u32::MAX));
        let spared = options.detach_at.map(|number| number - 1);
        let cancels = Draw::new(options.cancel, options.seed, plan.first_share(options.app_workers), spared);
        let shared = Arc::new(Shared {
            options,
            plan,
            stats: EchoClientStats::default(),
            cancels,
            ended: AtomicU32::new(0),
            released: AtomicBool::new(false),
            detacher: OnceLock::new(),
            detach_report: OnceLock::new(),
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

    /// With `detach_at`: what the detach found and how it ended, once it has.
    pub fn detach_report(&self) -> Option<&WorkerDetachReport> {
        self.shared.detach_report.get()
    }

    /// Where the client tells what has come about.
    pub fn events(&self) -> &Receiver<EchoClientEvent> {
        &self.events
    }
}

impl Shared {
    /// Whether `app_worker`, which has just dealt with connect `number`, is to detach itself now.
    pub(super) fn detaches_behind(&self, number: u32, app_worker: AppWorkerId) -> bool {
        self.options.detach_at == Some(number + 1) && self.detacher.set(app_worker).is_ok()
    }

    /// The options of connect `number`, made at `now`.
    pub(super) fn connect_options(&self, number: u32, now: Instant) -> ConnectOptions {
        let remotes = &self.options.remotes;
        let remote = &remotes[number as usize % remotes.len()];
        self.options.connect_options(remote, Tag::new(number, now).0)
    }

    /// A connect has its outcome, or will never have one.
    pub(super) fn on_outcome(&self) {
        self.plan.free();
    }

    /// A session is held or over.
    pub(super) fn on_complete(&self) {
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
    pub(super) fn on_end(&self) {
        if self.ended.fetch_add(1, Ordering::AcqRel) + 1 == self.options.sessions {
            self.tell(EchoClientEvent::Done);
        }
    }

    fn tell(&self, event: EchoClientEvent) {
        // There is room for each event once, and each is told once.
        let _ = self.events.try_send(event);
    }

    pub(super) fn holds(&self) -> bool {
        self.options.hold && !self.released.load(Ordering::Acquire)
    }
}

/// A connect's opaque value: its number, and when it was made, so that neither needs a table. Microseconds in 32 bits
/// wrap after 71 minutes, longer than any connect takes to end.
#[derive(Clone, Copy)]
pub(super) struct Tag(pub(super) u64);

impl Tag {
    fn new(number: u32, now: Instant) -> Tag {
        Tag((u64::from(number) << 32) | (now.as_micros() & u64::from(u32::MAX)))
    }

    pub(super) fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Microseconds since the connect was made; 0 if this thread's clock is a step behind.
    pub(super) fn age_us(self, now: Instant) -> u64 {
        let age = (now.as_micros() as u32).wrapping_sub(self.0 as u32);
        if age > u32::MAX - 1_000_000 { 0 } else { u64::from(age) }
    }
}

impl Application for EchoClient {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(EchoClientWorker::new(self.shared.clone()))
    }

    fn half_open_cleaned(&mut self, _ctx: &mut MainContext<'_>, _connect: ConnectId, _opaque: u64) {
        self.shared.stats.main.half_opens_cleaned.add(1);
    }

    /// The sessions that the detached app worker would have opened are opened by another one: from here, as the others
    /// may have nothing under way any more that would make them claim.
    fn worker_detached(&mut self, ctx: &mut MainContext<'_>, report: &WorkerDetachReport) {
        let shared = &*self.shared;
        shared.plan.resume();
        let is_planned = shared.detacher.get() == Some(&report.app_worker);
        if is_planned && shared.detach_report.set(report.clone()).is_ok() {
            shared.tell(EchoClientEvent::Detached);
        }
        let other = ctx.app_workers().iter().copied().find(|app_worker| *app_worker != report.app_worker);
        let Some(app_worker) = other else { return };
        let issuer = &shared.stats.main.issuer;
        while let Some(number) = shared.plan.claim() {
            match ctx.connect(app_worker, shared.connect_options(number, ctx.now())) {
                Ok(connect) => {
                    issuer.requested.add(1);
                    if shared.cancels.moment(number).is_some() {
                        // There are no ticks on main: every cancel is at once.
                        issuer.cancels.add(1);
                        ctx.cancel(connect);
                    }
                }
                Err(_) => {
                    issuer.not_issued.add(1);
                    shared.on_outcome();
                    shared.on_complete();
                    shared.on_end();
                }
            }
            if shared.detaches_behind(number, app_worker) {
                ctx.detach_worker(app_worker, DetachPolicy::Reset);
            }
        }
    }
}
