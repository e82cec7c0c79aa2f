//! The echo server.

use std::sync::Arc;

use hoststack_app::{AppWorker, Application, CloseReason, Context, ListenOptions, SessionHandle, WorkerId};

use crate::server::{Listeners, ServerCell, listens_when_attached, tells_listening};

/// Sends back what it gets; closes when the peer has closed and everything was sent back.
///
/// It holds at most a receive fifo per session: a peer that does not read stops being read from.
#[derive(Debug)]
pub struct EchoServer {
    listeners: Listeners,
}

impl EchoServer {
    /// A server for these endpoints. Their `opaque` values are replaced by the server's own.
    pub fn new(endpoints: Vec<ListenOptions>) -> EchoServer {
        EchoServer { listeners: Listeners::new(endpoints) }
    }

    tells_listening!();
}

impl Application for EchoServer {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(EchoServerWorker { cell: self.listeners.stats().new_cell() })
    }

    listens_when_attached!();
}

/// The session's opaque value: the peer may still send.
const PEER_OPEN: u64 = 0;
/// The session's opaque value: the peer has closed, the session is closed once everything was sent back.
const PEER_CLOSED: u64 = 1;

struct EchoServerWorker {
    cell: Arc<ServerCell>,
}

impl EchoServerWorker {
    fn echo(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let moved = ctx.splice(session, session);
        self.cell.bytes.add(moved as u64);
    }
}

impl AppWorker for EchoServerWorker {
    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        ctx.set_opaque(session, PEER_OPEN);
        self.cell.accepted.add(1);
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.echo(ctx, session);
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.echo(ctx, session);
        if ctx.opaque(session) == PEER_CLOSED && ctx.rx_len(session) == 0 {
            ctx.close(session);
        }
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.echo(ctx, session);
        if ctx.rx_len(session) == 0 {
            ctx.close(session);
        } else {
            ctx.set_opaque(session, PEER_CLOSED);
        }
    }

    fn closed(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle, _opaque: u64, reason: CloseReason) {
        self.cell.on_closed(reason);
    }
}
