//! The echo client's object on a worker: makes connects, cancels some, sends, verifies.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hoststack_app::{
    AppWorker, AppWorkerId, CloseReason, ConnectError, ConnectFailure, ConnectId, Context, DetachPolicy,
    Duration, SessionHandle,
};

use crate::echo::cancels::{Cancels, Moment};
use crate::echo::client::{Release, Shared, Tag};
use crate::echo::client_stats::ClientCell;
use crate::echo::stream::Pattern;

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
/// Timer: a tick for the cancels that are put down.
const TIMER_TICK: u64 = 2;
/// How long a tick takes when there are no callbacks.
const TICK: Duration = Duration::from_millis(1);
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

pub(super) struct EchoClientWorker {
    shared: Arc<Shared>,
    cell: Arc<ClientCell>,
    /// By session slot.
    flows: Vec<Flow>,
    held: Vec<SessionHandle>,
    /// Released sessions that have not ended, since the last burst.
    releasing: usize,
    /// Numbers claimed whose connect was not taken because too many were pending on this thread.
    deferred: Vec<u32>,
    cancels: Cancels,
    is_ticking: bool,
    is_polling: bool,
    is_detaching: bool,
}

impl EchoClientWorker {
    pub(super) fn new(shared: Arc<Shared>) -> EchoClientWorker {
        EchoClientWorker {
            cell: shared.stats.new_cell(),
            shared,
            flows: Vec::new(),
            held: Vec::new(),
            releasing: 0,
            deferred: Vec::new(),
            cancels: Cancels::default(),
            is_ticking: false,
            is_polling: false,
            is_detaching: false,
        }
    }

    // ---- Connects ----

    /// Makes connects as far as the plan allows, at most `limit`. One that is not taken does not count: nothing would
    /// come of it that makes the list go on.
    fn pump(&mut self, ctx: &mut Context<'_>, mut limit: u32) {
        while limit > 0 && !self.is_detaching {
            let Some(number) = self.deferred.pop().or_else(|| self.shared.plan.claim()) else { return };
            match ctx.connect(self.shared.connect_options(number, ctx.now())) {
                Ok(connect) => {
                    self.cell.issuer.requested.add(1);
                    limit -= 1;
                    self.cancel_in_time(ctx, connect, number);
                }
                Err(ConnectError::TooManyPending) => {
                    self.deferred.push(number);
                    self.poll(ctx, POLL_DEFERRED);
                    return;
                }
                Err(_) => self.give_up(),
            }
            if self.shared.detaches_behind(number, ctx.app_worker()) {
                // Main hears of it right behind the connect: that one cannot have an outcome by then.
                ctx.detach(DetachPolicy::Reset);
            }
        }
    }

    /// Cancels a connect that was just made, if it is one of those: now, or when its time comes.
    fn cancel_in_time(&mut self, ctx: &mut Context<'_>, connect: ConnectId, number: u32) {
        match self.shared.cancels.moment(number) {
            None => {}
            Some(Moment::AtOnce) => self.cancel(ctx, connect),
            Some(Moment::After(ticks)) => {
                self.cancels.add(connect, ticks);
                self.set_tick(ctx);
            }
        }
    }

    fn cancel(&mut self, ctx: &mut Context<'_>, connect: ConnectId) {
        ctx.cancel(connect);
        self.cell.issuer.cancels.add(1);
    }

    /// A callback that gives the cancels a chance.
    fn tick(&mut self, ctx: &mut Context<'_>) {
        self.cancels.tick();
        while let Some(connect) = self.cancels.next_due() {
            self.cancel(ctx, connect);
        }
    }

    fn set_tick(&mut self, ctx: &mut Context<'_>) {
        if !self.is_ticking && !self.cancels.is_empty() {
            self.is_ticking = true;
            ctx.set_timer(TIMER_TICK, TICK);
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
        self.tick(ctx);
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
        self.tick(ctx);
        self.read(ctx, session);
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.tick(ctx);
        self.write(ctx, session);
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, _opaque: u64, reason: CloseReason) {
        self.tick(ctx);
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
        if self.is_detaching && reason == CloseReason::LocalReset {
            self.cell.reset_by_detach.add(1);
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
        self.tick(ctx);
        if token == TIMER_TICK {
            self.is_ticking = false;
            self.set_tick(ctx);
            return;
        }
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
