//! Sessions that are not announced: outbound ones from their hand-over on, and all that have stages.

use hoststack_transport::border::SessionLayer;
use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    CloseReason, ConnectFailure, ConnectId, ConnectTicket, ConnectionId, EarlyData, FlowKey, Full, Instant,
    SessionId, StageCause, StageFailure,
};

use super::{NOT_ESTABLISHING, SessionOptions, Sessions};
use crate::establish::{Ran, StageIo, StagePlans, Stages, Want};
use crate::events::Pending;
use crate::layer::{Layered, PeerStream};
use crate::life::Life;
use crate::state::{AppSide, TransportSide};

/// A session that has not been announced and waits for something: outbound ones hold the connect ticket, inbound ones
/// are here if they have stages.
///
/// Readiness is a function of the transport's side and the stages, never stored; `outcome` is set once, by `settle`.
pub(super) struct Establishing {
    pub(super) ticket: Option<ConnectTicket>,
    pub(super) session: Option<SessionId>,
    pub(super) stages: Stages,
    pub(super) outcome: Option<Result<(), ConnectFailure>>,
    /// A failure that someone else decided (cancel, deadline, detach), or a stage, for `settle` to find.
    pub(super) verdict: Option<ConnectFailure>,
    /// The stage that failed has queued what tells the peer: the connection is closed behind it, not reset.
    pub(super) is_said: bool,
    pub(super) deadline: Instant,
    /// A failure that another attempt may mend is not told: the ticket goes back to main.
    pub(super) may_retry: bool,
    /// The stage whose turn was noted last.
    pub(super) turn: Option<&'static str>,
}

impl Establishing {
    /// Notes the stage whose turn it is, if that is news.
    fn note_turn(&mut self, id: SessionId, turns: &mut Vec<(SessionId, &'static str)>) {
        let stage = self.stages.current();
        if stage != self.turn {
            self.turn = stage;
            turns.extend(stage.map(|stage| (id, stage)));
        }
    }
}

impl Sessions {
    /// Allocates the session of an outbound connection that is being handed over. With `stages` the early data goes out
    /// behind what they write; without, the caller queues it ([`Sessions::queue_early`]).
    ///
    /// # Errors
    /// The ticket comes back when the pool is full or the app worker takes no more: the caller settles it.
    pub fn open_outbound(
        &mut self,
        flow: FlowKey,
        ticket: ConnectTicket,
        deadline: Instant,
        options: SessionOptions,
        stages: &StagePlans,
        early_data: &EarlyData,
    ) -> Result<SessionId, (ConnectTicket, ConnectFailure)> {
        let app_worker = ticket.app_worker();
        if !self.app_workers.takes_sessions(app_worker) {
            return Err((ticket, ConnectFailure::Detached));
        }
        if self.pool.is_full() {
            return Err((ticket, ConnectFailure::NoRoom));
        }
        let opaque = ticket.opaque();
        let life = Life::outbound(self.now.micros_since(ticket.made()));
        let early_data = if stages.is_empty() { EarlyData::NONE } else { early_data.clone() };
        let slot = self.establishing.insert(Establishing {
            ticket: Some(ticket),
            session: None,
            stages: Stages::new(stages, early_data),
            outcome: None,
            verdict: None,
            is_said: false,
            deadline,
            may_retry: false,
            turn: None,
        });
        let session =
            self.new_session(flow, app_worker, opaque, slot as u32, TransportSide::Opening, options, life);
        match session {
            Ok(id) => {
                self.establishing[slot].session = Some(id);
                Ok(id)
            }
            Err(Full) => {
                let ticket = self.establishing.remove(slot).ticket;
                let ticket = ticket.unwrap_or_else(|| unreachable!("it was put in above"));
                Err((ticket, ConnectFailure::NoRoom))
            }
        }
    }

    /// Queues the first bytes of an outbound session's stream, before its app can write any: all or, when there is no
    /// room for them, none. Says whether they are queued.
    #[must_use]
    pub fn queue_early(&mut self, id: SessionId, bytes: &[u8]) -> bool {
        let Some(session) = self.pool.get_mut(id.0) else { return false };
        debug_assert!(session.app == AppSide::Unannounced && session.tx.is_empty());
        let (chunks, capacity) = (self.chunks.available(), session.tx_capacity as usize);
        if session.tx.fits(&self.chunks, bytes.len(), chunks) < bytes.len() {
            return false;
        }
        let count = session.tx.write(&mut self.chunks, bytes, capacity);
        debug_assert_eq!(count, bytes.len(), "a connect's early data fits its fifo");
        count == bytes.len()
    }

    /// Gives the session its transport connection.
    pub fn bind(&mut self, id: SessionId, connection: ConnectionId) {
        if let Some(session) = self.pool.get_mut(id.0) {
            session.connection = Some(connection);
        }
    }

    /// Says that main makes another attempt if this outbound session fails.
    pub fn may_retry(&mut self, id: SessionId) {
        let slot = self.pool.get(id.0).map_or(NOT_ESTABLISHING, |session| session.establishing);
        if let Some(establishing) = self.establishing.get_mut(slot as usize) {
            establishing.may_retry = true;
        }
    }

    /// Takes back a session that its transport would not have; returns its ticket, to be settled.
    pub fn abandon(&mut self, id: SessionId) -> Option<ConnectTicket> {
        let slot = self.pool.get(id.0)?.establishing;
        self.free(id);
        self.establishing.try_remove(slot as usize)?.ticket
    }

    /// Decides that a session which is not yet announced has failed. Returns its connection, to be reset,
    /// or `None` if there is no such session any more: it was announced first.
    pub fn fail_establishing(&mut self, id: SessionId, failure: ConnectFailure) -> Option<ConnectionId> {
        let session = self.pool.get_mut(id.0)?;
        let establishing = self.establishing.get_mut(session.establishing as usize)?;
        if establishing.outcome.is_some() {
            return None;
        }
        if canary::has(Bug::DeadlineIsSuccess)
            && failure == ConnectFailure::TimedOut
            && session.transport.is_open()
        {
            establishing.stages = Stages::default();
            self.settle(id);
            return None;
        }
        establishing.verdict = Some(match (failure, establishing.stages.current()) {
            (ConnectFailure::TimedOut, Some(stage)) if session.transport.is_open() => {
                ConnectFailure::Stage(StageFailure { stage, cause: StageCause::TimedOut })
            }
            _ => failure,
        });
        let connection = session.connection;
        self.settle(id);
        connection
    }

    /// The unannounced outbound session of a connect request.
    pub fn find_establishing(&self, connect: ConnectId) -> Option<SessionId> {
        // Few are ever between hand-over and announcement; with stages that take time this wants an index.
        let mut establishing = self.establishing.iter().map(|(_, establishing)| establishing);
        let is_its = |ticket: &ConnectTicket| ticket.connect() == connect;
        establishing.find(|establishing| establishing.ticket.as_ref().is_some_and(is_its))?.session
    }

    /// When an unannounced session must be up; `None` once its outcome is decided.
    pub fn connect_deadline(&self, id: SessionId) -> Option<Instant> {
        let establishing = self.establishing.get(self.pool.get(id.0)?.establishing as usize)?;
        establishing.outcome.is_none().then_some(establishing.deadline)
    }

    /// Lets the stages of an unannounced session go on, if its transport is open.
    pub(super) fn run_stages(&mut self, id: SessionId) {
        // Again for each stage that left a layer: the ones behind it have other fifos.
        while self.run_stages_over_these_fifos(id) {
            self.pump(id);
        }
    }

    /// Says whether a stage left a layer.
    fn run_stages_over_these_fifos(&mut self, id: SessionId) -> bool {
        let Some(session) = self.pool.get_mut(id.0) else { return false };
        let Some(establishing) = self.establishing.get_mut(session.establishing as usize) else {
            return false;
        };
        let is_over = establishing.verdict.is_some() || !session.transport.is_open();
        if is_over || establishing.stages.is_empty() {
            return false;
        }
        establishing.note_turn(id, &mut self.stage_turns);
        let layered = session.layered.as_deref();
        if let Some(broken) = layered.filter(|layered| layered.is_broken()) {
            let cause = match broken.standing.peer {
                PeerStream::Broken(CloseReason::PeerReset) => StageCause::PeerClosed,
                _ => StageCause::Malformed("what came cannot be decrypted"),
            };
            let failure = StageFailure { stage: broken.layer.name(), cause };
            establishing.verdict = Some(ConnectFailure::Stage(failure));
            establishing.is_said = true;
            return false;
        }
        let is_peer_closed = match layered {
            Some(layered) => layered.standing.peer != PeerStream::Flows,
            None => session.transport == TransportSide::PeerClosed,
        };
        let has_layer = layered.is_some();
        let mut declared = None;
        let mut io = StageIo {
            rx: &mut session.rx,
            tx: &mut session.tx,
            chunks: &mut self.chunks,
            tx_capacity: session.tx_capacity as usize,
            flow: &session.flow,
            is_peer_closed,
            has_layer,
            declared: &mut declared,
            has_moved: false,
            lacks_chunks: false,
        };
        let result = establishing.stages.run(&mut io);
        let (has_moved, lacks_chunks) = (io.has_moved, io.lacks_chunks);
        let mut has_left = false;
        match result {
            Ran::Waits(Want::Write) if lacks_chunks && !session.waits_for_chunks => {
                // Freed chunks bring room; in a full fifo acknowledgments do.
                session.waits_for_chunks = true;
                self.chunk_waiters.push_back(id);
            }
            Ran::Waits(_) | Ran::AllDone => {}
            Ran::Failed(failure, is_said) => {
                establishing.verdict = Some(ConnectFailure::Stage(failure));
                establishing.is_said = is_said;
            }
            Ran::Left(layer) => {
                let (rx, tx) = (std::mem::take(&mut session.rx), std::mem::take(&mut session.tx));
                session.layered = Some(Box::new(Layered::new(layer, rx, tx)));
                has_left = true;
            }
        }
        if establishing.verdict.is_none() {
            establishing.note_turn(id, &mut self.stage_turns);
        }
        if session.rx.is_empty() {
            // Nothing is left that the app could read.
            session.pending.remove(Pending::READABLE);
        }
        if let Some(declared) = declared {
            self.declared.insert(id, declared);
        }
        if has_moved {
            self.program_tx(id);
            // What a stage above a layer took makes room for more.
            if has_layer {
                self.pump(id);
            }
        }
        has_left
    }
}
