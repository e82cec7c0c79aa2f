//! Our end of the connections: an app whose sessions are actors' carriers.

use std::sync::Arc;

use hoststack::app::{
    AppWorker, Application, CloseReason, ConnectFailure, ConnectId, Context, Duration, Keepalive,
    SessionHandle, SessionOptions, SocketOptions, WorkerId,
};
use parking_lot::Mutex;

use super::actor::{Actor, Carrier, Got};
use super::plan::Connection;

/// Our end of one connection.
pub struct OurEnd {
    /// What it does.
    pub actor: Actor,
    /// Its session, while there is one.
    pub session: Option<SessionHandle>,
    /// Whether the peer has ended its stream.
    has_peer_closed: bool,
    /// How the session ended.
    pub closed: Option<CloseReason>,
    /// How many sessions it was given: more than one is wrong.
    pub sessions: u32,
}

impl OurEnd {
    /// One that waits for its session.
    #[must_use]
    pub fn new(actor: Actor) -> OurEnd {
        OurEnd { actor, session: None, has_peer_closed: false, closed: None, sessions: 0 }
    }
}

/// Our ends by number, shared with whoever judges them.
pub type Ends = Arc<Mutex<Vec<OurEnd>>>;

/// The fifos of our end.
#[must_use]
pub fn fifos(connection: &Connection) -> SessionOptions {
    let default = SessionOptions::default();
    let side = &connection.ours;
    SessionOptions {
        rx_capacity: side.rx_buffer.unwrap_or(default.rx_capacity),
        tx_capacity: side.tx_buffer.unwrap_or(default.tx_capacity),
        ..default
    }
}

/// The transport's options of our end.
#[must_use]
pub fn socket(connection: &Connection) -> SocketOptions {
    SocketOptions {
        nodelay: connection.ours.nodelay,
        mss_max: connection.mss_max,
        // A reset may be lost: whoever waits for more asks now and then.
        keepalive: Some(Keepalive { idle_ms: 1_000, interval_ms: 1_000, probes: 100 }),
        ..SocketOptions::default()
    }
}

/// The application; its sessions carry the numbers of their ends.
pub struct OurApp {
    /// All ends.
    pub ends: Ends,
}

impl Application for OurApp {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(OurWorker { ends: self.ends.clone() })
    }
}

struct OurWorker {
    ends: Ends,
}

impl OurWorker {
    fn up(&mut self, ctx: &mut Context<'_>, number: u64, session: SessionHandle) {
        {
            let mut ends = self.ends.lock();
            let end = &mut ends[index(number)];
            end.session = Some(session);
            end.sessions += 1;
        }
        self.act(ctx, number);
    }

    fn act(&mut self, ctx: &mut Context<'_>, number: u64) {
        let mut ends = self.ends.lock();
        let end = &mut ends[index(number)];
        let Some(session) = end.session else { return };
        let now_us = ctx.now().as_micros();
        let mut carrier = Session { ctx, session, has_peer_closed: end.has_peer_closed };
        if let Some(at_us) = end.actor.act(now_us, &mut carrier) {
            ctx.set_timer(number, Duration::from_micros(at_us - now_us));
        }
    }

    fn act_on(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let number = ctx.opaque(session);
        self.act(ctx, number);
    }
}

impl AppWorker for OurWorker {
    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let number = ctx.opaque(session);
        self.up(ctx, number, session);
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        match outcome {
            Ok(session) => self.up(ctx, opaque, session),
            Err(failure) => self.ends.lock()[index(opaque)].actor.broke(format!("connect: {failure}")),
        }
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.act_on(ctx, session);
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.act_on(ctx, session);
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.ends.lock()[index(ctx.opaque(session))].has_peer_closed = true;
        self.act_on(ctx, session);
    }

    fn timer(&mut self, ctx: &mut Context<'_>, token: u64) {
        self.act(ctx, token);
    }

    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn std::any::Any + Send>) {
        // The number of an end whose peer is gone.
        let Ok(number) = message.downcast::<u64>() else { return };
        let mut ends = self.ends.lock();
        let end = &mut ends[index(*number)];
        if let Some(session) = end.session {
            end.actor.orphan(&mut Session { ctx, session, has_peer_closed: end.has_peer_closed });
        }
    }

    fn closed(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle, opaque: u64, reason: CloseReason) {
        let mut ends = self.ends.lock();
        let end = &mut ends[index(opaque)];
        end.session = None;
        end.closed = Some(reason);
        match reason {
            CloseReason::Finished => end.actor.finished(),
            _ => end.actor.broke(reason.to_string()),
        }
    }
}

/// The place of an end.
fn index(number: u64) -> usize {
    usize::try_from(number).expect("a world has a dozen ends")
}

/// A session as an actor sees it.
struct Session<'c, 'a> {
    ctx: &'c mut Context<'a>,
    session: SessionHandle,
    has_peer_closed: bool,
}

impl Carrier for Session<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, String> {
        // A session that broke says so by `closed`.
        Ok(self.ctx.write(self.session, bytes))
    }

    fn write_urgent(&mut self, byte: u8) -> Result<bool, String> {
        Ok(self.ctx.write_urgent(self.session, &[byte]) == 1)
    }

    fn read(&mut self, into: &mut [u8]) -> Got {
        match self.ctx.read(self.session, into) {
            0 if self.has_peer_closed => Got::End,
            0 => Got::Nothing,
            count => Got::Bytes(count),
        }
    }

    fn half_close(&mut self) {
        self.ctx.half_close(self.session);
    }

    fn close(&mut self) {
        self.ctx.close(self.session);
    }

    fn reset(&mut self) {
        self.ctx.reset(self.session);
    }
}
