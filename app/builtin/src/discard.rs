//! The discard server: takes what it gets and drops it.

use std::sync::Arc;

use hoststack_app::{AppWorker, Application, CloseReason, Context, ListenOptions, SessionHandle, WorkerId};

use crate::server::{Listeners, ServerCell, listens_when_attached, tells_listening};

/// Accepts, reads and drops; closes when the peer has closed.
#[derive(Debug)]
pub struct Discard {
    listeners: Listeners,
}

impl Discard {
    /// A server for these endpoints. Their `opaque` values are replaced by the server's own.
    pub fn new(endpoints: Vec<ListenOptions>) -> Discard {
        Discard { listeners: Listeners::new(endpoints) }
    }

    tells_listening!();
}

impl Application for Discard {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(DiscardWorker { cell: self.listeners.stats().new_cell() })
    }

    listens_when_attached!();
}

struct DiscardWorker {
    cell: Arc<ServerCell>,
}

impl AppWorker for DiscardWorker {
    fn accepted(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle) {
        self.cell.accepted.add(1);
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let taken = ctx.consume(session, ctx.rx_len(session));
        self.cell.bytes.add(taken as u64);
    }

    fn closed(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle, _opaque: u64, reason: CloseReason) {
        self.cell.on_closed(reason);
    }
}
