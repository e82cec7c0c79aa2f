//! Half-open sessions: connect requests whose outcome has not been told, in a pool per app worker, on main.
//!
//! A half-open is allocated with its request and freed in one place, when its transport notifies its deletion (or,
//! if it never had a transport, when its outcome was told).

use std::net::IpAddr;
use std::sync::Arc;

use hoststack_transport::{
    Address, ConnectFailure, ConnectId, ConnectTicket, Duration, EarlyData, FlowKey, HalfOpenId, Instant,
    SocketOptions, WorkerId,
};

use crate::establish::StagePlans;
use crate::session::SessionOptions;

/// Where a connect request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfOpenState {
    /// Main holds the ticket; the transport tries.
    Connecting,
    /// The ticket left with the hand-over; the worker decides.
    HandedOver,
    /// The ticket left with a failure; the worker tells it.
    Failed(ConnectFailure),
    /// The outcome was told; the transport's delete notification frees this.
    Settled,
}

/// What a connect request still has to try: for those with alternatives or rounds, or to a name.
#[derive(Debug)]
pub struct Remotes {
    /// Where to, in the order of trying.
    pub list: Vec<Address>,
    /// The place in the list of the attempt under way.
    pub current: usize,
    /// Times that the list is gone through after this one.
    pub rounds_left: u8,
    /// How long one attempt may take.
    pub attempt_timeout: Option<Duration>,
    /// How long to wait before the list is tried again.
    pub retry_delay: Duration,
    /// When the attempt under way has failed.
    pub deadline: Instant,
    /// The list was gone through: it is tried again after a while.
    pub is_pausing: bool,
}

impl Remotes {
    /// Whether another attempt can follow this one.
    pub fn has_more(&self) -> bool {
        self.current + 1 < self.list.len() || self.rounds_left > 0
    }

    /// On to the next attempt, which there is; how long to wait before it if the list begins anew.
    pub fn advance(&mut self) -> Option<Duration> {
        if self.current + 1 < self.list.len() {
            self.current += 1;
            return None;
        }
        self.current = 0;
        self.rounds_left = self.rounds_left.saturating_sub(1);
        self.is_pausing = true;
        Some(self.retry_delay)
    }
}

/// A half-open session.
#[derive(Debug)]
pub struct HalfOpenSession {
    /// The request.
    pub connect: ConnectId,
    /// The right to decide, while main holds it.
    pub ticket: Option<ConnectTicket>,
    /// Where it stands.
    pub state: HalfOpenState,
    /// Its half-open transport connection, from the first attempt until the delete notification.
    pub transport: Option<HalfOpenId>,
    /// The flow of the current attempt; port 0 while none was allocated.
    pub flow: FlowKey,
    /// The worker that owns the flow and tells the outcome.
    pub worker: WorkerId,
    /// Attempts under this ticket so far (another local port after a collision is another attempt).
    pub attempts: u16,
    /// Local ports of the current attempt that turned out to be taken.
    pub collisions: u8,
    /// What a worker that holds the ticket was asked to tell, should the ticket come back.
    pub verdict: Option<ConnectFailure>,
    /// What is tried, one after the other; `None`: the flow's remote end by TCP, once.
    pub remotes: Option<Box<Remotes>>,
    /// The caller's value.
    pub opaque: u64,
    /// When the outcome must be known.
    pub deadline: Instant,
    /// When the request was made.
    pub born: Instant,
    /// Fifos of the session to come.
    pub options: SessionOptions,
    /// The local address asked for.
    pub local_addr: Option<IpAddr>,
    /// The local port asked for, so that another may not be tried; 0 if none was.
    pub local_port: u16,
    /// Whether this request took its 4-tuple. It did not if the tuple was held by an earlier flow that may be in
    /// TIME-WAIT, which the flow's worker decides.
    pub owns_tuple: bool,
    /// How the connection shall behave; shared, for most connects of an app ask for the same.
    pub socket: Arc<SocketOptions>,
    /// What happens between the transport's connection and the app.
    pub stages: StagePlans,
    /// The first bytes of the stream, until they leave with the hand-over.
    pub early_data: EarlyData,
}

impl HalfOpenSession {
    /// Where the attempt under way goes, in words.
    pub fn remote_name(&self) -> String {
        match self.remotes.as_ref().and_then(|remotes| remotes.list.get(remotes.current)) {
            Some(Address::KernelUnix(name) | Address::Local(name)) => name.to_string(),
            _ => self.flow.remote.to_string(),
        }
    }

    /// When the attempt under way has failed.
    pub fn attempt_deadline(&self) -> Instant {
        self.remotes.as_ref().map_or(self.deadline, |remotes| remotes.deadline)
    }
}

/// How connect requests of an app worker ended, and how many have not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HalfOpenCounters {
    /// Requests taken.
    pub requested: u64,
    /// Came up.
    pub established: u64,
    /// Refused by the peer.
    pub refused: u64,
    /// No answer before the deadline.
    pub timed_out: u64,
    /// No route, neighbour, or an ICMP error.
    pub unreachable: u64,
    /// Cancelled by the app.
    pub cancelled: u64,
    /// Ended by detach.
    pub detached: u64,
    /// No free tuple, no such local address, no room, a stage that failed.
    pub failed: u64,
    /// Outcomes that could not be told because the app worker's object was gone (a panic).
    pub undelivered: u64,
    /// Half-opens freed.
    pub cleaned: u64,
    /// Acceptable answers of the peer that came after the outcome was decided.
    pub late_segments: u64,
}

impl HalfOpenCounters {
    /// Requests whose half-open is not freed yet.
    pub fn alive(&self) -> u64 {
        self.requested - self.cleaned
    }

    /// All of them by name, for lists and programs.
    pub fn named(&self) -> [(&'static str, u64); 11] {
        let HalfOpenCounters {
            requested,
            established,
            refused,
            timed_out,
            unreachable,
            cancelled,
            detached,
            failed,
            undelivered,
            cleaned,
            late_segments,
        } = *self;
        [
            ("requested", requested),
            ("established", established),
            ("refused", refused),
            ("timed_out", timed_out),
            ("unreachable", unreachable),
            ("cancelled", cancelled),
            ("detached", detached),
            ("failed", failed),
            ("undelivered", undelivered),
            ("cleaned", cleaned),
            ("late_segments", late_segments),
        ]
    }

    /// Requests whose outcome was told, or could not be.
    pub fn settled(&self) -> u64 {
        self.established
            + self.refused
            + self.timed_out
            + self.unreachable
            + self.cancelled
            + self.detached
            + self.failed
    }

    /// Counts an outcome.
    pub fn count(&mut self, outcome: Result<(), ConnectFailure>) {
        *match outcome {
            Ok(()) => &mut self.established,
            Err(ConnectFailure::Refused) => &mut self.refused,
            Err(ConnectFailure::TimedOut) => &mut self.timed_out,
            Err(ConnectFailure::Unreachable) => &mut self.unreachable,
            Err(ConnectFailure::Cancelled) => &mut self.cancelled,
            Err(ConnectFailure::Detached) => &mut self.detached,
            Err(
                ConnectFailure::AddressInUse
                | ConnectFailure::AddressNotAvailable
                | ConnectFailure::NoRoom
                | ConnectFailure::System(_)
                | ConnectFailure::Stage(_),
            ) => &mut self.failed,
        } += 1;
    }

    /// Adds another app worker's.
    pub fn merge(&mut self, other: &HalfOpenCounters) {
        let HalfOpenCounters {
            requested,
            established,
            refused,
            timed_out,
            unreachable,
            cancelled,
            detached,
            failed,
            undelivered,
            cleaned,
            late_segments,
        } = *other;
        self.requested += requested;
        self.established += established;
        self.refused += refused;
        self.timed_out += timed_out;
        self.unreachable += unreachable;
        self.cancelled += cancelled;
        self.detached += detached;
        self.failed += failed;
        self.undelivered += undelivered;
        self.cleaned += cleaned;
        self.late_segments += late_segments;
    }
}
