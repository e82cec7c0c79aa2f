//! The server application: accepts, and echoes, closes or resets as the dice say.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hoststack::app::{
    AppWorker, AppWorkerId, Application, CloseReason, ConnectId, Context, DetachReport, MainContext,
    SessionHandle, WorkerDetachReport, WorkerId,
};
use hoststack_transport::Rng;

use super::apps::{AppBooks, Shared, Sweeps, TICK, TICK_EVERY, Units};
use super::oracle::{Books, Heard};

/// The application.
pub(super) struct Server {
    shared: Arc<Shared>,
    books: AppBooks,
}

impl Server {
    pub(super) fn new(shared: &Arc<Shared>, units: &Units) -> Server {
        Server { shared: shared.clone(), books: AppBooks::new(&shared.oracle, units) }
    }
}

impl Application for Server {
    fn app_worker(&mut self, unit: u32, worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ServerWorker {
            shared: self.shared.clone(),
            books: self.books.object(unit, worker),
            rng: Rng::from_seed(self.shared.next_seed()),
            sweeps: Sweeps::default(),
            accepted: 0,
        })
    }

    fn half_open_cleaned(&mut self, _ctx: &mut MainContext<'_>, connect: ConnectId, opaque: u64) {
        // It makes none: the books will say so.
        self.books.cleaned(connect, opaque);
    }

    fn worker_detached(&mut self, _ctx: &mut MainContext<'_>, report: &WorkerDetachReport) {
        self.books.worker_detached(report);
    }

    fn detached(&mut self, report: &DetachReport) {
        self.books.detached(report);
    }
}

struct ServerWorker {
    shared: Arc<Shared>,
    books: Books,
    rng: Rng,
    sweeps: Sweeps,
    accepted: u64,
}

impl ServerWorker {
    fn whims(&mut self) {
        // A server has more callbacks to lose by a panic than a client.
        let panic = self.shared.temper.panic * 4;
        if panic > 0 && self.rng.below(panic) == 0 {
            self.books.panic();
        }
    }

    fn echo(ctx: &mut Context<'_>, session: SessionHandle) {
        while ctx.splice(session, session) > 0 {}
    }
}

impl AppWorker for ServerWorker {
    fn attached(&mut self, ctx: &mut Context<'_>) {
        self.books.enter(ctx, true);
        ctx.set_timer(TICK, TICK_EVERY);
    }

    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.books.enter(ctx, false);
        self.whims();
        self.books.announced(session);
        self.accepted += 1;
        match self.rng.below(100) {
            0..8 => return ctx.reset(session),
            8..11 => return ctx.close(session),
            11..16 => self.sweeps.soon(ctx.now(), session),
            _ => {}
        }
        self.sweeps.late(ctx.now(), session);
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.books.enter(ctx, false);
        self.books.heard(session, Heard::Readable);
        self.whims();
        ServerWorker::echo(ctx, session);
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.books.enter(ctx, false);
        self.books.heard(session, Heard::Writable);
        ServerWorker::echo(ctx, session);
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.books.enter(ctx, false);
        self.books.heard(session, Heard::PeerClosed);
        self.whims();
        ctx.close(session);
    }

    fn reset(&mut self, ctx: &mut Context<'_>, session: SessionHandle, _reason: CloseReason) {
        self.books.enter(ctx, false);
        self.books.heard(session, Heard::Reset);
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, _opaque: u64, _reason: CloseReason) {
        self.books.enter(ctx, false);
        self.books.heard(session, Heard::Closed);
        self.whims();
    }

    fn timer(&mut self, ctx: &mut Context<'_>, _token: u64) {
        self.books.enter(ctx, false);
        ctx.set_timer(TICK, TICK_EVERY);
        self.sweeps.sweep(ctx);
    }

    fn detaching(&mut self, ctx: &mut Context<'_>, _app_worker: AppWorkerId) {
        self.books.enter(ctx, false);
        self.whims();
    }
}

impl Drop for ServerWorker {
    fn drop(&mut self) {
        self.shared.tally.accepted.fetch_add(self.accepted, Relaxed);
    }
}
