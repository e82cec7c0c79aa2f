//! The client application: keeps connects under way, and does to each whatever the dice say.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hoststack::app::{
    AppWorker, AppWorkerId, Application, CloseReason, ConnectFailure, ConnectId, ConnectOptions, Context,
    DetachPolicy, DetachReport, Duration, MainContext, SessionHandle, SocketOptions, WorkerDetachReport,
    WorkerId,
};
use hoststack_transport::Rng;

use super::apps::{AppBooks, Shared, Sweeps, TICK, TICK_EVERY, Units};
use super::oracle::{Books, Heard, Stock};
use super::world::{CLIENT, Temper, target};

/// Most connects made in one callback: the step of a worker shall end.
const BURST: usize = 16;

/// The application.
pub(super) struct Client {
    shared: Arc<Shared>,
    books: AppBooks,
}

impl Client {
    pub(super) fn new(shared: &Arc<Shared>, units: &Units) -> Client {
        Client { shared: shared.clone(), books: AppBooks::new(&shared.oracle, units) }
    }
}

impl Application for Client {
    fn app_worker(&mut self, unit: u32, worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ClientWorker {
            shared: self.shared.clone(),
            books: self.books.object(unit, worker),
            stock: Stock::new(&self.shared.oracle),
            rng: Rng::from_seed(self.shared.next_seed()),
            sweeps: Sweeps::default(),
            cancels: VecDeque::new(),
            figures: Figures::default(),
        })
    }

    fn half_open_cleaned(&mut self, _ctx: &mut MainContext<'_>, connect: ConnectId, opaque: u64) {
        self.books.cleaned(connect, opaque);
    }

    fn worker_detached(&mut self, _ctx: &mut MainContext<'_>, report: &WorkerDetachReport) {
        self.books.worker_detached(report);
    }

    fn detached(&mut self, report: &DetachReport) {
        self.books.detached(report);
    }
}

#[derive(Default)]
struct Figures {
    denied: u64,
    cancels: u64,
    echoed: u64,
}

struct ClientWorker {
    shared: Arc<Shared>,
    books: Books,
    stock: Stock,
    rng: Rng,
    sweeps: Sweeps,
    /// Connects to be cancelled at the next tick.
    cancels: VecDeque<ConnectId>,
    figures: Figures,
}

/// How to connect next.
pub(super) fn connect_options(rng: &mut Rng, temper: &Temper, workers: u32) -> ConnectOptions {
    let target = target(rng, temper);
    ConnectOptions {
        domain: CLIENT,
        local_addr: target.local_addr,
        local_port: target.local_port,
        timeout: target.timeout,
        // A number below 256 because a stack has 255 workers at most.
        worker: (rng.below(20) == 0).then(|| WorkerId(rng.below(workers) as u8)),
        socket: SocketOptions::NODELAY,
        ..ConnectOptions::to(target.remote)
    }
}

impl ClientWorker {
    fn one_in(&mut self, count: u32) -> bool {
        count > 0 && self.rng.below(count) == 0
    }

    /// What may happen in any callback.
    fn whims(&mut self, ctx: &mut Context<'_>) {
        if self.one_in(self.shared.temper.panic) {
            self.books.panic();
        }
        if self.one_in(self.shared.temper.detach_self) {
            ctx.detach(if self.one_in(2) {
                DetachPolicy::Reset
            } else {
                DetachPolicy::Close { linger: Duration::from_millis(20) }
            });
        }
    }

    /// Brings the app worker's connects back to their number, as far as one callback may.
    fn pump(&mut self, ctx: &mut Context<'_>) {
        let unit = self.books.unit;
        for _ in 0..BURST {
            if self.shared.oracle.unit(unit).in_flight.load(Relaxed) >= self.shared.in_flight {
                return;
            }
            let mut options = connect_options(&mut self.rng, &self.shared.temper, u32::from(ctx.workers()));
            let made = self.stock.connect(unit, |opaque| {
                options.opaque = opaque;
                ctx.connect(options)
            });
            match made {
                None => return,
                Some(Err(_)) => {
                    // Detaching, or too many pending: the next tick tries again.
                    self.figures.denied += 1;
                    return;
                }
                Some(Ok(connect)) if self.one_in(self.shared.temper.cancel) => {
                    self.figures.cancels += 1;
                    if self.one_in(2) {
                        ctx.cancel(connect);
                    } else {
                        self.cancels.push_back(connect);
                    }
                }
                Some(Ok(_)) => {}
            }
        }
    }

    /// A connect is up: most are ended at once.
    fn up(&mut self, ctx: &mut Context<'_>, session: SessionHandle, opaque: u64) {
        match self.rng.below(100) {
            0..55 => return ctx.reset(session),
            55..62 => return ctx.close(session),
            62..66 => self.sweeps.soon(ctx.now(), session),
            66..69 => ctx.half_close(session),
            // A server that echoes sends it back; without room for it there is nothing to wait for.
            69..97 if ctx.write(session, &opaque.to_le_bytes()) < 8 => return ctx.reset(session),
            // Written to, or left alone.
            _ => {}
        }
        self.sweeps.late(ctx.now(), session);
    }
}

impl AppWorker for ClientWorker {
    fn attached(&mut self, ctx: &mut Context<'_>) {
        self.books.enter(ctx, true);
        ctx.set_timer(TICK, TICK_EVERY);
        self.pump(ctx);
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        self.books.enter(ctx, false);
        // Before it counts as told: the stack calls an outcome whose callback panics undelivered.
        self.whims(ctx);
        self.books.outcome(connect, opaque, outcome);
        if let Ok(session) = outcome {
            self.up(ctx, session, opaque);
        }
        // While the server is away the next tick is soon enough: refusals are quick, and would use up the slice.
        if outcome != Err(ConnectFailure::Refused) {
            self.pump(ctx);
        }
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.books.enter(ctx, false);
        self.books.heard(session, Heard::Readable);
        self.whims(ctx);
        if ctx.rx_len(session) < 8 {
            return;
        }
        let mut bytes = [0; 8];
        ctx.read(session, &mut bytes);
        let (sent, came) = (ctx.opaque(session), u64::from_le_bytes(bytes));
        self.shared.oracle.check(sent == came, || format!("{session}: sent {sent}, {came} came back"));
        self.figures.echoed += 1;
        if self.one_in(4) {
            ctx.close(session);
        } else {
            ctx.reset(session);
        }
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.books.enter(ctx, false);
        self.books.heard(session, Heard::Writable);
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.books.enter(ctx, false);
        self.books.heard(session, Heard::PeerClosed);
        self.whims(ctx);
        ctx.close(session);
    }

    fn reset(&mut self, ctx: &mut Context<'_>, session: SessionHandle, _reason: CloseReason) {
        self.books.enter(ctx, false);
        self.books.heard(session, Heard::Reset);
        self.whims(ctx);
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, _opaque: u64, _reason: CloseReason) {
        self.books.enter(ctx, false);
        self.books.heard(session, Heard::Closed);
        self.whims(ctx);
    }

    fn timer(&mut self, ctx: &mut Context<'_>, _token: u64) {
        self.books.enter(ctx, false);
        ctx.set_timer(TICK, TICK_EVERY);
        for connect in self.cancels.drain(..) {
            ctx.cancel(connect);
        }
        self.sweeps.sweep(ctx);
        self.pump(ctx);
    }

    fn notified(&mut self, ctx: &mut Context<'_>, _message: Box<dyn Any + Send>) {
        self.books.enter(ctx, false);
        self.whims(ctx);
    }

    fn detaching(&mut self, ctx: &mut Context<'_>, _app_worker: AppWorkerId) {
        self.books.enter(ctx, false);
        self.whims(ctx);
        // The last callback in which connects are taken.
        self.pump(ctx);
    }
}

impl Drop for ClientWorker {
    fn drop(&mut self) {
        let tally = &self.shared.tally;
        tally.denied.fetch_add(self.figures.denied, Relaxed);
        tally.cancels.fetch_add(self.figures.cancels, Relaxed);
        tally.echoed.fetch_add(self.figures.echoed, Relaxed);
    }
}
