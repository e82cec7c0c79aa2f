//! One established session, and the worker's table of them.
//!
//! [`Sessions`] is a worker's session layer. Entry points mutate, then end in `Sessions::settle`, which alone
//! announces; what the app must be told is a set of bits per session ([`Pending`]), delivered in one fixed order, so a
//! session is queued at most once and data always comes before the close that follows it.

mod app_calls;
mod establishing;
mod layer;
mod liveness;
mod pump;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, VecDeque};

use hoststack_transport::border::{SessionLayer, TransportEvent};
use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    AllocationPoint, AppWorkerId, CloseReason, ConnectFailure, ConnectTicket, ConnectionId, FlowKey, Full,
    Instant, Pool, Protocol, SessionHandle, SessionId, WorkerId,
};
use slab::Slab;

use crate::establish::proxy::Declared;
use crate::events::Pending;
use crate::fifo::{ChunkPool, RxFifo, TxFifo};
use crate::layer::{Ending, Layered, Scratch};
use crate::life::{EndedBy, Life};
use crate::lookup::{AppWorkerRecords, ListenerRecords};
use crate::state::{AppSide, SessionState, SessionStates, TransportSide};

use establishing::Establishing;
pub use view::{FifoView, LayerView, SessionView};

/// Sizes of a session's fifos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Most bytes received and not yet taken by the app; what the receive window offers. 1 to 2^30.
    pub rx_capacity: u32,
    /// Most bytes written and not yet acknowledged. 1 to 2^30.
    pub tx_capacity: u32,
    /// How far `tx_capacity` may grow, to 2^30 at most: to twice the congestion window as that grows, so that an app that
    /// writes whenever there is room keeps a long path full and queues little for a slow one. Default 0: it does not grow.
    pub tx_capacity_max: u32,
}

impl Default for SessionOptions {
    /// 64 KiB each way: a window that needs no scaling, chunks are taken only as bytes are queued.
    fn default() -> SessionOptions {
        SessionOptions { rx_capacity: 65_535, tx_capacity: 65_536, tx_capacity_max: 0 }
    }
}

/// Limits of a worker's session layer.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Most sessions on the worker.
    pub sessions: usize,
    /// Bytes per fifo chunk, a power of two.
    pub chunk_bytes: usize,
    /// Most fifo chunks on the worker.
    pub chunks: usize,
}

impl Default for SessionLimits {
    /// A million sessions; 4 KiB chunks, of which 1 GiB.
    fn default() -> SessionLimits {
        SessionLimits { sessions: 1 << 20, chunk_bytes: 4096, chunks: 1 << 18 }
    }
}

/// Index of nothing in [`Sessions::establishing`].
const NOT_ESTABLISHING: u32 = u32::MAX;

/// An established session: owned by one worker from birth to death.
pub struct Session {
    /// The app's fifos; the transport's as well, unless a layer lies between.
    rx: RxFifo,
    tx: TxFifo,
    layered: Option<Box<Layered>>,
    rx_capacity: u32,
    tx_capacity: u32,
    tx_capacity_max: u32,
    /// Bytes to read until the end of what the peer called urgent; more than there are, if not all of it has come.
    rx_urgent: u32,
    /// Bytes from tx offset 0 to the end of what the app called urgent.
    tx_urgent: u32,
    connection: Option<ConnectionId>,
    app: AppSide,
    transport: TransportSide,
    pending: Pending,
    /// In [`Sessions::ready`].
    queued: bool,
    /// In [`Sessions::tx_programmed`].
    tx_programmed: bool,
    /// The app found less room than it wanted since `writable` was last called.
    wants_room: bool,
    /// In [`Sessions::chunk_waiters`].
    waits_for_chunks: bool,
    establishing: u32,
    app_worker: AppWorkerId,
    opaque: u64,
    flow: FlowKey,
    /// When it was allocated; for the CLI.
    born: Instant,
    life: Life,
}

const _: () = assert!(size_of::<Session>() <= 208, "a million idle sessions are 208 MB");

impl Session {
    /// The flow it runs over.
    pub fn flow(&self) -> &FlowKey {
        &self.flow
    }

    /// What the app did.
    pub fn app_side(&self) -> AppSide {
        self.app
    }

    /// What the transport did.
    pub fn transport_side(&self) -> TransportSide {
        self.transport
    }

    /// Both, in one word.
    pub fn state(&self) -> SessionState {
        SessionState::of(self.app, self.transport)
    }

    fn advance_app(&mut self, to: AppSide, states: &mut SessionStates) -> bool {
        let from = self.state();
        let has_moved = self.app.advance(to);
        states.moved(from, self.state());
        has_moved
    }

    fn advance_transport(&mut self, to: TransportSide, states: &mut SessionStates) {
        let from = self.state();
        self.transport.advance(to);
        states.moved(from, self.state());
    }

    /// Whose session it is.
    pub fn app_worker(&self) -> AppWorkerId {
        self.app_worker
    }

    /// The transport connection; `None` before it is bound and once the transport has deleted it.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    /// The app's value: the connect's opaque value until the app sets another.
    pub fn opaque(&self) -> u64 {
        self.opaque
    }

    /// Bytes the app may read.
    pub fn rx_len(&self) -> usize {
        self.rx.len()
    }

    /// Bytes queued for sending, unacknowledged ones included.
    pub fn tx_len(&self) -> usize {
        self.tx.len()
    }

    /// Bytes that the app may have queued, unacknowledged ones included.
    pub fn tx_capacity(&self) -> usize {
        self.tx_capacity as usize
    }

    /// Bytes to read until the end of what the peer called urgent (RFC 9293 §3.8.5, MUST-33), those included that have not
    /// come yet; 0 if nothing unread is urgent.
    pub fn urgent_left(&self) -> usize {
        self.rx_urgent as usize
    }

    /// When the session was allocated.
    pub fn born(&self) -> Instant {
        self.born
    }

    /// When its life took its turns, and who ended it.
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// Whether the app may still write.
    fn is_writable(&self) -> bool {
        self.app == AppSide::Open && self.transport.is_open()
    }
}

/// What the app must be told first of a session.
#[derive(Debug)]
#[must_use = "an outcome that is not told is lost"]
pub enum Announcement {
    /// An inbound session.
    Accepted,
    /// An outbound session came up.
    Connected(ConnectTicket),
    /// An outbound session failed after hand-over; the session is gone, or will be when its transport's connection is:
    /// that is to be reset if it is named.
    Failed(ConnectTicket, ConnectFailure, Option<ConnectionId>),
    /// As [`Announcement::Failed`], but main may make another attempt: nobody is told.
    Retry(ConnectTicket, ConnectFailure, Option<ConnectionId>),
    /// An inbound session failed before it was accepted; as for an outbound one.
    NotAccepted(FlowKey, ConnectFailure, Option<ConnectionId>),
}

/// What became of an app's request to close a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum CloseAction {
    /// Ask the transport.
    Ask(ConnectionId),
    /// Nothing to ask: it was done before, or the transport is done.
    Nothing,
}

/// Counts of what a worker's session layer holds. All zero at quiescence with no session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Sessions.
    pub sessions: usize,
    /// Of them, not announced: outbound ones, and inbound ones with stages.
    pub establishing: usize,
    /// Fifo chunks in use.
    pub fifo_chunks: usize,
}

/// A worker's session layer.
pub struct Sessions {
    worker: WorkerId,
    pool: Pool<Session>,
    states: SessionStates,
    chunks: ChunkPool,
    establishing: Slab<Establishing>,
    /// Whom connections are said to be between, where a stage was told.
    declared: BTreeMap<SessionId, Box<Declared>>,
    app_workers: AppWorkerRecords,
    listeners: ListenerRecords,
    /// Sessions with something pending for their app, each once.
    ready: VecDeque<SessionId>,
    /// Sessions to transmit for, each once, in the order they asked.
    tx_programmed: VecDeque<SessionId>,
    /// As `tx_programmed`, of sessions whose transport sends no packets of ours: no device holds them up.
    other_programmed: VecDeque<SessionId>,
    /// Sessions whose app found room in its fifo but no chunk in the pool, each once, longest waiting first. No
    /// acknowledgment need ever come for them, so freed chunks make them writable again.
    chunk_waiters: VecDeque<SessionId>,
    /// Sessions whose layer found room in a fifo but no chunk in the pool, each once.
    layer_waiters: VecDeque<SessionId>,
    /// Connections to be ended because of what layers and stages found, in order.
    due: VecDeque<(SessionId, ConnectionId, Ending)>,
    /// Stages whose turn came.
    stage_turns: Vec<(SessionId, &'static str)>,
    /// Lent to layers.
    scratch: Scratch,
    now: Instant,
}

impl Sessions {
    /// An empty session layer.
    pub fn new(worker: WorkerId, limits: &SessionLimits) -> Sessions {
        Sessions {
            worker,
            pool: Pool::new(limits.sessions),
            states: SessionStates::default(),
            chunks: ChunkPool::new(limits.chunk_bytes, limits.chunks),
            establishing: Slab::new(),
            declared: BTreeMap::new(),
            app_workers: AppWorkerRecords::default(),
            listeners: ListenerRecords::default(),
            ready: VecDeque::new(),
            tx_programmed: VecDeque::new(),
            other_programmed: VecDeque::new(),
            chunk_waiters: VecDeque::new(),
            layer_waiters: VecDeque::new(),
            due: VecDeque::new(),
            stage_turns: Vec::new(),
            scratch: Scratch::default(),
            now: Instant::ZERO,
        }
    }

    /// From now on allocations at `point` are refused, or no longer so: for simulated faults. Points of others do
    /// nothing here.
    pub fn set_refusing(&mut self, point: AllocationPoint, refusing: bool) {
        match point {
            AllocationPoint::Session => self.pool.set_refusing(refusing),
            AllocationPoint::FifoChunk => self.chunks.set_refusing(refusing),
            _ => {}
        }
    }

    /// Tells the time of this step.
    pub fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// The worker whose layer this is.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Whose sessions there are, and who may get more.
    pub fn app_workers(&mut self) -> &mut AppWorkerRecords {
        &mut self.app_workers
    }

    /// Sessions of an app worker on this worker.
    pub fn app_worker_sessions(&self, id: AppWorkerId) -> usize {
        self.app_workers.sessions(id)
    }

    /// Who accepts what.
    pub fn listeners(&mut self) -> &mut ListenerRecords {
        &mut self.listeners
    }

    /// The session, if it lives.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.pool.get(id.0)
    }

    /// The session with this handle, if it lives here.
    pub fn find(&self, handle: SessionHandle) -> Option<(SessionId, &Session)> {
        if handle.worker() != self.worker {
            return None;
        }
        if canary::has(Bug::StaleHandleResolves) {
            return self.at_slot(handle.session().0.slot);
        }
        Some((handle.session(), self.pool.get(handle.session().0)?))
    }

    /// The handle of a session of this worker.
    pub fn handle(&self, id: SessionId) -> SessionHandle {
        SessionHandle::new(self.worker, id)
    }

    /// One past the highest slot: the end of a walk with [`Sessions::at_slot`].
    pub fn slot_end(&self) -> u32 {
        self.pool.slot_end()
    }

    /// The session in `slot`, for walks in bounded slices.
    pub fn at_slot(&self, slot: u32) -> Option<(SessionId, &Session)> {
        self.pool.at_slot(slot).map(|(key, session)| (SessionId(key), session))
    }

    /// Sessions by their state.
    pub fn states(&self) -> SessionStates {
        self.states
    }

    /// What the layer holds.
    pub fn counts(&self) -> SessionCounts {
        SessionCounts {
            sessions: self.pool.len(),
            establishing: self.establishing.len(),
            fifo_chunks: self.chunks.in_use(),
        }
    }

    /// Its pools by name.
    pub fn usage(&self) -> [(&'static str, hoststack_transport::Usage); 2] {
        [("sessions", self.pool.usage()), ("fifo-chunks", self.chunks.usage())]
    }

    fn new_session(
        &mut self,
        flow: FlowKey,
        app_worker: AppWorkerId,
        opaque: u64,
        establishing: u32,
        transport: TransportSide,
        options: SessionOptions,
        life: Life,
    ) -> Result<SessionId, Full> {
        let key = self.pool.insert(Session {
            rx: RxFifo::default(),
            tx: TxFifo::default(),
            layered: None,
            rx_capacity: options.rx_capacity,
            tx_capacity: options.tx_capacity,
            tx_capacity_max: options.tx_capacity_max,
            rx_urgent: 0,
            tx_urgent: 0,
            connection: None,
            app: AppSide::Unannounced,
            transport,
            pending: Pending::NONE,
            queued: false,
            tx_programmed: false,
            wants_room: false,
            waits_for_chunks: false,
            establishing,
            app_worker,
            opaque,
            flow,
            born: self.now,
            life,
        })?;
        self.states.born(SessionState::of(AppSide::Unannounced, transport));
        self.app_workers.session_born(app_worker);
        Ok(SessionId(key))
    }

    // ---- What the transport did ----

    /// Handles what a transport recorded. Events of a session that is gone do nothing.
    pub fn on_event(&mut self, event: &TransportEvent) {
        let id = match *event {
            TransportEvent::Connected { session } => {
                if let Some(s) = self.pool.get_mut(session.0) {
                    s.advance_transport(TransportSide::Open, &mut self.states);
                    s.life.on_up(s.born, self.now);
                    if canary::has(Bug::ReadinessStored)
                        && let Some(establishing) = self.establishing.get_mut(s.establishing as usize)
                    {
                        establishing.stages.freeze();
                    }
                }
                session
            }
            TransportEvent::Accepted { session } => session,
            TransportEvent::Received { session } => {
                if let Some(s) = self.pool.get_mut(session.0) {
                    if s.app == AppSide::Closed {
                        self.drop_if_silent(session);
                    } else if s.layered.is_none() {
                        s.life.on_bytes(s.born, self.now);
                        s.pending.add(Pending::READABLE);
                    }
                }
                session
            }
            TransportEvent::Urgent { session } => {
                if let Some(s) = self.pool.get_mut(session.0)
                    && s.app != AppSide::Closed
                {
                    s.pending.add(Pending::URGENT);
                }
                session
            }
            TransportEvent::Acknowledged { session } => {
                if let Some(s) = self.pool.get_mut(session.0)
                    && s.wants_room
                    && s.is_writable()
                    && has_worthwhile_room(s)
                {
                    s.pending.add(Pending::WRITABLE);
                }
                session
            }
            TransportEvent::PeerClosed { session } => {
                if let Some(s) = self.pool.get_mut(session.0) {
                    s.advance_transport(TransportSide::PeerClosed, &mut self.states);
                    s.life.on_end(EndedBy::Peer);
                    // "a TCP receiver should be robust to invalid urgent pointer values": nothing comes any more.
                    s.rx_urgent = s.rx_urgent.min(s.rx.len() as u32); // fits: a fifo is 2^30 at most
                    if s.layered.is_none() && s.app != AppSide::Closed {
                        s.pending.add(Pending::PEER_CLOSED);
                    }
                }
                session
            }
            TransportEvent::Closed { session, reason, stats: _ } => {
                let reason = self.reason_with_layer(session, reason);
                if let Some(s) = self.pool.get_mut(session.0) {
                    s.advance_transport(TransportSide::Closed(reason), &mut self.states);
                    s.connection = None;
                    // Nothing can be sent any more; what was received stays readable.
                    s.tx.release(&mut self.chunks);
                    s.pending.remove(Pending::WRITABLE);
                    if !reason.is_graceful() && s.app != AppSide::Closed {
                        s.pending.add(Pending::RESET);
                    }
                    s.pending.add(Pending::CLOSED);
                }
                session
            }
            TransportEvent::FlowGone { .. } => return,
        };
        if canary::has(Bug::AnnouncedOnChange)
            && matches!(event, TransportEvent::Received { .. } | TransportEvent::Acknowledged { .. })
            && self.pool.get(id.0).is_some_and(|session| session.app == AppSide::Unannounced)
        {
            self.run_stages(id);
            return;
        }
        self.settle_all(id, true);
    }

    /// The end of every entry point, and the only code that announces: a session that is ready (transport open, no
    /// stage left) or failed, and has not been announced, is announced; whatever is pending is queued.
    fn settle(&mut self, id: SessionId) {
        self.settle_all(id, false);
    }

    /// The same; first, if `pumps`, a layer moves what it can.
    #[inline]
    fn settle_all(&mut self, id: SessionId, pumps: bool) {
        let Some(session) = self.pool.get_mut(id.0) else { return };
        let is_told = session.app != AppSide::Unannounced || session.pending.has(Pending::ANNOUNCE);
        let has_stages = !is_told && session.establishing != NOT_ESTABLISHING;
        if pumps && session.layered.is_some() {
            self.pump(id);
        }
        if has_stages && !canary::has(Bug::SettledBeforeStages) {
            self.run_stages(id);
        }
        let Some(session) = self.pool.get_mut(id.0) else { return };
        if !is_told {
            match self.establishing.get_mut(session.establishing as usize) {
                Some(establishing) => {
                    debug_assert!(establishing.outcome.is_none(), "an outcome leaves `Pending` once");
                    establishing.outcome = match (establishing.verdict, session.transport) {
                        (Some(failure), _) => Some(Err(failure)),
                        (None, TransportSide::Opening) => None,
                        (None, TransportSide::Open | TransportSide::PeerClosed) => {
                            establishing.stages.is_empty().then_some(Ok(()))
                        }
                        (None, TransportSide::Closed(reason)) => Some(Err(failure_of(reason))),
                    };
                    if establishing.outcome.is_some() {
                        session.pending.add(Pending::ANNOUNCE);
                    }
                }
                None => session.pending.add(Pending::ANNOUNCE),
            }
        }
        if session.layered.is_some() {
            self.heed_layer(id);
            if let Some(session) = self.pool.get_mut(id.0) {
                Self::queue_if_visible(&mut self.ready, id, session);
            }
        } else {
            Self::queue_if_visible(&mut self.ready, id, session);
        }
        if has_stages && canary::has(Bug::SettledBeforeStages) {
            self.run_stages(id);
        }
    }

    #[inline]
    fn queue_if_visible(ready: &mut VecDeque<SessionId>, id: SessionId, session: &mut Session) {
        // Before the announcement nothing else is told, so nothing else makes it worth a visit.
        let visible = session.app != AppSide::Unannounced || session.pending.has(Pending::ANNOUNCE);
        if visible && !session.pending.is_empty() && !session.queued {
            session.queued = true;
            ready.push_back(id);
        }
    }

    /// The establishment stage whose turn it is; `None` if there is none left.
    pub fn stage(&self, id: SessionId) -> Option<&'static str> {
        let slot = self.pool.get(id.0)?.establishing;
        self.establishing.get(slot as usize)?.stages.current()
    }

    /// Whether the app has been told of the session or will be, and so of its end; not if what it is told is that it failed.
    pub fn is_for_app(&self, id: SessionId) -> bool {
        let Some(session) = self.pool.get(id.0) else { return false };
        let establishing = self.establishing.get(session.establishing as usize);
        !session.pending.has(Pending::SILENT)
            && establishing.is_none_or(|establishing| establishing.outcome == Some(Ok(())))
    }

    /// Somebody other than the transport ends the session, by a reset or otherwise: for [`Session::life`].
    pub fn note_end(&mut self, id: SessionId, by: EndedBy, is_reset: bool) {
        if let Some(session) = self.pool.get_mut(id.0) {
            if is_reset { session.life.on_reset(by) } else { session.life.on_end(by) }
        }
    }

    /// The establishment stages whose turn came since this was asked last, in order. Those that were done at once when
    /// their turn came are not all among them.
    pub fn take_stage_turns(&mut self) -> impl Iterator<Item = (SessionId, &'static str)> {
        self.stage_turns.drain(..)
    }

    /// Whether [`Sessions::take_stage_turns`] has something to tell.
    #[inline]
    pub fn has_stage_turns(&self) -> bool {
        !self.stage_turns.is_empty()
    }

    /// Whom a session's connection is said to be between, if a stage was told.
    pub fn declared(&self, id: SessionId) -> Option<&Declared> {
        self.declared.get(&id).map(|declared| &**declared)
    }

    // ---- What the app is told ----

    /// Sessions with something to tell their apps.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// The next session with something to tell its app, and to which app worker. The caller asks
    /// [`Sessions::take_pending`] for one thing after the other.
    pub fn next_ready(&mut self) -> Option<(SessionId, AppWorkerId)> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(session) = self.pool.get_mut(id.0) {
                session.queued = false;
                return Some((id, session.app_worker));
            }
        }
        None
    }

    /// The next thing to tell of `id`, in the order announce, urgent, readable, writable, peer closed, reset, closed; `last`
    /// is what this visit told before. What does not come after it was caused by the app during this visit: it waits
    /// for the next one, for which the session is queued, so that no app can keep the worker here.
    ///
    /// `closed` after a graceful end waits until the app has taken all bytes or has closed the session.
    pub fn take_pending(&mut self, id: SessionId, last: Option<Pending>) -> Option<Pending> {
        let session = self.pool.get_mut(id.0)?;
        let next = session.pending.first()?;
        if last.is_some_and(|last| !last.is_before(next)) {
            debug_assert!(session.queued, "what was added during a visit was settled");
            return None;
        }
        if session.app == AppSide::Unannounced && next != Pending::ANNOUNCE {
            return None;
        }
        if next == Pending::CLOSED
            && session.app != AppSide::Closed
            && session.transport == TransportSide::Closed(CloseReason::Finished)
            && session.has_unread()
        {
            return None;
        }
        session.pending.remove(next);
        if next == Pending::WRITABLE {
            session.wants_room = false;
        }
        Some(next)
    }

    /// The announcement of a session whose pending bit was just taken. A failed session is freed here.
    pub fn announce(&mut self, id: SessionId) -> Option<Announcement> {
        let session = self.pool.get_mut(id.0)?;
        let slot = std::mem::replace(&mut session.establishing, NOT_ESTABLISHING);
        let Some(establishing) = self.establishing.try_remove(slot as usize) else {
            session.advance_app(AppSide::Open, &mut self.states);
            session.life.on_announced(session.born, self.now, !session.rx.is_empty());
            return Some(Announcement::Accepted);
        };
        match establishing.outcome {
            Some(Ok(())) => {
                session.advance_app(AppSide::Open, &mut self.states);
                session.life.on_announced(session.born, self.now, !session.rx.is_empty());
                Some(establishing.ticket.map_or(Announcement::Accepted, Announcement::Connected))
            }
            Some(Err(failure)) => {
                let (flow, mut connection) = (session.flow, session.connection);
                let is_final = matches!(failure, ConnectFailure::Cancelled | ConnectFailure::Detached)
                    || !establishing.may_retry
                    || !self.app_workers.takes_sessions(session.app_worker);
                self.free_or_orphan(id);
                if establishing.is_said
                    && let Some(connection) = connection.take()
                {
                    // What it queued must come to the peer: no reset, neither now nor for what the peer still sends.
                    self.drop_if_silent(id);
                    self.due.push_back((id, connection, Ending::Close));
                }
                Some(match establishing.ticket {
                    Some(ticket) if !is_final => Announcement::Retry(ticket, failure, connection),
                    Some(ticket) => Announcement::Failed(ticket, failure, connection),
                    None => Announcement::NotAccepted(flow, failure, connection),
                })
            }
            None => unreachable!("settle pends an announcement only with its outcome"),
        }
    }

    /// A failed session: freed if its transport is done, else closed so that it is freed when the transport is.
    fn free_or_orphan(&mut self, id: SessionId) {
        let Some(session) = self.pool.get_mut(id.0) else { return };
        session.advance_app(AppSide::Closed, &mut self.states);
        session.pending.remove(Pending::ALL_BUT_THE_END);
        if session.connection.is_none() {
            self.free(id);
        } else {
            session.pending.add(Pending::SILENT);
        }
    }

    /// Takes what came for a session whose connect failed: no one will read it.
    fn drop_if_silent(&mut self, id: SessionId) {
        let Some(session) = self.pool.get_mut(id.0).filter(|s| s.pending.has(Pending::SILENT)) else {
            return;
        };
        session.rx.consume(&mut self.chunks, session.rx.len());
        if let Some(layered) = session.layered.as_deref_mut() {
            layered.wire_rx.consume(&mut self.chunks, layered.wire_rx.len());
        }
        self.program_tx(id);
    }

    /// Whether a session's app must not hear of its end (it was told that the connect failed).
    pub fn is_silent(&self, id: SessionId) -> bool {
        self.pool.get(id.0).is_some_and(|session| session.pending.has(Pending::SILENT))
    }

    /// Frees a session whose `closed` was delivered (or whose app cannot be told any more).
    pub fn free(&mut self, id: SessionId) {
        let Some(mut session) = self.pool.remove(id.0) else { return };
        self.states.died(session.state());
        debug_assert!(
            session.connection.is_none() || session.establishing != NOT_ESTABLISHING,
            "a session is freed after its transport deleted the connection"
        );
        if canary::has(Bug::ChunksKept) && session.app == AppSide::Closed && !session.rx.is_empty() {
            self.app_workers.session_died(session.app_worker);
            return;
        }
        session.rx.release(&mut self.chunks);
        session.tx.release(&mut self.chunks);
        if let Some(layered) = &mut session.layered {
            layered.release(&mut self.chunks);
        }
        if !self.declared.is_empty() {
            self.declared.remove(&id);
        }
        self.app_workers.session_died(session.app_worker);
    }

    // ---- The transmit schedule ----

    /// Sessions that wait for the transmit stage and send packets.
    pub fn programmed_len(&self) -> usize {
        self.tx_programmed.len()
    }

    /// Sessions that wait for the transmit stage and send no packets of this stack's.
    pub fn other_programmed_len(&self) -> usize {
        self.other_programmed.len()
    }

    /// The next session to transmit for, in the order they asked, with its connection: of those that send packets, or of the
    /// others.
    pub fn next_programmed(&mut self, sends_packets: bool) -> Option<(SessionId, (Protocol, ConnectionId))> {
        while let Some(id) =
            if sends_packets { self.tx_programmed.pop_front() } else { self.other_programmed.pop_front() }
        {
            let Some(session) = self.pool.get_mut(id.0) else { continue };
            if session.layered.is_some() {
                // While it still counts as programmed: what is sent goes out now.
                self.pump(id);
                self.settle(id);
            }
            let Some(session) = self.pool.get_mut(id.0) else { continue };
            session.tx_programmed = false;
            if let Some(connection) = session.connection {
                return Some((id, (session.flow.protocol, connection)));
            }
        }
        None
    }
}

/// Enough room that being told of it is worth a callback: a quarter of the fifo, or all of it.
fn has_worthwhile_room(session: &Session) -> bool {
    session.tx.room(session.tx_capacity as usize) >= (session.tx_capacity as usize / 4).max(1)
}

fn failure_of(reason: CloseReason) -> ConnectFailure {
    match reason {
        // The last two are ends of what stages left behind, which is never before the announcement.
        CloseReason::PeerReset | CloseReason::Finished | CloseReason::Truncated | CloseReason::Corrupt => {
            ConnectFailure::Refused
        }
        CloseReason::LocalReset => ConnectFailure::Cancelled,
        CloseReason::TimedOut => ConnectFailure::TimedOut,
        CloseReason::Unreachable => ConnectFailure::Unreachable,
        CloseReason::NoRoom => ConnectFailure::NoRoom,
    }
}
