//! The border: two traits and one enum.
//!
//! [`Transport`] is what the session layer may ask of a transport on a worker, [`SessionLayer`] is what a transport
//! may ask of the session layer while it handles a segment, [`TransportEvent`] is what happened, in order. Events are
//! recorded while a transport works and handled after it returned, so nothing frees a session beneath its caller.
//!
//! Bytes are *offsets* here: rx offset 0 is the next byte the transport expects (RCV.NXT), tx offset 0 is the oldest
//! byte the peer has not acknowledged (SND.UNA). Sequence numbers stay in the transport, bytes in the session layer.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::flow::{FlowKey, Protocol};
use crate::handle::{AppWorkerId, ConnectionId, ListenerId, SessionId};
use crate::options::{ConnectionStats, SocketOption};
use crate::pool::Key;
use crate::time::Instant;

/// What a transport may ask of the session layer, on the worker that owns the session. None of these calls back.
///
/// A call with a [`SessionId`] that is gone does nothing and returns zero.
pub trait SessionLayer {
    /// A passive open completed on `listener`: allocates its session.
    ///
    /// # Errors
    /// [`AcceptError`] when there is no one or no room for it; the transport then resets the connection.
    fn accept(
        &mut self,
        listener: ListenerId,
        connection: ConnectionId,
        flow: &FlowKey,
    ) -> Result<SessionId, AcceptError>;

    /// Bytes that may be stored from rx offset 0 on: what the receive window may offer.
    fn rx_room(&self, session: SessionId) -> u32;

    /// Stores `data` at rx offset `offset`; out-of-order data is kept until the gap fills.
    fn rx_store(&mut self, session: SessionId, offset: u32, data: &[u8]) -> RxStored;

    /// Out-of-order data held, as offsets from the current rx offset 0, ascending and disjoint.
    fn rx_ranges(&self, session: SessionId) -> &[OooRange];

    /// In-order bytes that the app has not read: a close that would lose them resets instead (RFC 2525 §2.17).
    fn rx_unread(&self, session: SessionId) -> u32 {
        let _ = session;
        0
    }

    /// Whether bytes that come after [`Transport::close`] are taken like others, instead of answered with a reset (RFC 9293
    /// §3.6.1): they need not be data for the app that is gone, but the end of what runs over the transport (TLS).
    fn takes_after_close(&self, session: SessionId) -> bool {
        let _ = session;
        false
    }

    /// Bytes queued for sending, from tx offset 0 (unacknowledged ones included).
    fn tx_len(&self, session: SessionId) -> u32;

    /// The peer calls data urgent that ends at rx offset `end`, which is negative if all of it was received before. Says
    /// whether that is news: some of it is unread, and it ends beyond what was called urgent so far.
    fn rx_urgent(&mut self, session: SessionId, end: i32) -> bool {
        let _ = (session, end);
        false
    }

    /// Bytes from tx offset 0 to the end of what the app called urgent; 0 if there is nothing.
    fn tx_urgent(&self, session: SessionId) -> u32 {
        let _ = session;
        0
    }

    /// The path takes so many bytes at a time that the app should be let queue `bytes`: twice the congestion window. Said
    /// with each acknowledgment of something new; what was wanted before stays granted.
    fn tx_wanted(&mut self, session: SessionId, bytes: u32) {
        let _ = (session, bytes);
    }

    /// Copies the bytes at tx offset `offset` into all of `into`; they must be there.
    fn tx_copy(&self, session: SessionId, offset: u32, into: &mut [u8]);

    /// The oldest `count` bytes were acknowledged: tx offset 0 moves past them.
    fn tx_acknowledge(&mut self, session: SessionId, count: u32);

    /// Asks that [`Transport::transmit`] be called for this session in the transmit stage of this step.
    fn program_tx(&mut self, session: SessionId);
}

/// What [`SessionLayer::rx_store`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RxStored {
    /// How far rx offset 0 moved: new in-order bytes, including out-of-order data that they joined.
    pub advanced: u32,
    /// Bytes of `data` that were new and could not be kept (no room, or too many ranges).
    pub refused: u32,
}

/// A run of out-of-order data: offsets `start..end` from rx offset 0, `0 < start < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OooRange {
    /// First offset held.
    pub start: u32,
    /// One past the last offset held.
    pub end: u32,
}

/// What the session layer may ask of a transport on the worker that owns the connection.
///
/// `Layer` is the session layer it works with, `Out` what it sends through; both are lent for one call.
pub trait Transport<Layer: SessionLayer, Out> {
    /// The app wants no more of this connection: send what is queued, then close both ways; received data is dropped.
    fn close(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        layer: &mut Layer,
        out: &mut Out,
        events: &mut Vec<TransportEvent>,
    );

    /// The app has sent all it will: send what is queued, then close our direction.
    fn half_close(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        layer: &mut Layer,
        out: &mut Out,
        events: &mut Vec<TransportEvent>,
    );

    /// Drop the connection at once and tell the peer so. Ends in [`TransportEvent::Closed`].
    fn reset(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        layer: &mut Layer,
        out: &mut Out,
        events: &mut Vec<TransportEvent>,
    );

    /// Send what may be sent now, at most `burst` segments: new data, a window update, a FIN. A transport that learns at
    /// once that bytes were taken records it.
    fn transmit(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        burst: usize,
        layer: &mut Layer,
        out: &mut Out,
        events: &mut Vec<TransportEvent>,
    ) -> Transmitted;

    /// Changes an option of a connection that is up; one that this transport does not know is ignored.
    fn set_option(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        option: SocketOption,
        layer: &mut Layer,
        out: &mut Out,
    );

    /// The connection's state in words, for the CLI: `name=value` pairs separated by spaces.
    fn describe(&self, now: Instant, connection: ConnectionId) -> Option<String>;
}

/// What callbacks may ask of the transports of a worker: nothing that changes them.
pub trait Measures {
    /// What a connection measured and counted; `None` if it is gone.
    fn stats(&self, protocol: Protocol, connection: ConnectionId) -> Option<ConnectionStats>;
}

/// Whose a half-open transport connection is: what its transport says of it names the half-open session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpenUser {
    /// The app worker whose pool it is in.
    pub app_worker: AppWorkerId,
    /// The half-open session in that pool.
    pub half_open: Key,
}

/// Whether [`Transport::transmit`] wants to be called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Transmitted {
    /// Nothing more may be sent until something happens.
    Idle,
    /// The burst or the output was exhausted: call again in the next step.
    More,
}

/// What happened on a transport, in order. All name sessions of the worker that records them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportEvent {
    /// An active open is up: the transport is open, stages may run, the session may be announced.
    Connected {
        /// Its session.
        session: SessionId,
    },
    /// A passive open is up; its session was allocated by [`SessionLayer::accept`].
    Accepted {
        /// Its session.
        session: SessionId,
    },
    /// In-order bytes were stored.
    Received {
        /// Its session.
        session: SessionId,
    },
    /// The peer calls data urgent that was not urgent before ([`SessionLayer::rx_urgent`]).
    Urgent {
        /// Its session.
        session: SessionId,
    },
    /// Sent bytes were acknowledged: there is new room to write.
    Acknowledged {
        /// Its session.
        session: SessionId,
    },
    /// The peer closed its direction; all its bytes were stored before.
    PeerClosed {
        /// Its session.
        session: SessionId,
    },
    /// The transport's delete notification for a connection: the session is the session layer's alone now.
    Closed {
        /// Its session.
        session: SessionId,
        /// How it ended.
        reason: CloseReason,
        /// What it did in its life.
        stats: EndStats,
    },
    /// The flow is no longer in use here (after TIME-WAIT): its 4-tuple may be given out again.
    FlowGone {
        /// The flow.
        flow: FlowKey,
    },
}

/// What a connection did, told with its end: of its bytes as the transport carries them, a layer's included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EndStats {
    /// Bytes received in order.
    pub bytes_in: u64,
    /// Bytes that the peer has acknowledged, or the host has taken where it does not say.
    pub bytes_out: u64,
    /// Segments sent again; 0 where the transport does not know.
    pub retransmitted: u32,
    /// Smoothed round-trip time in microseconds; 0 before the first measurement, and where the transport does not know.
    pub srtt_us: u32,
}

/// How a synchronized connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// Both directions were closed and acknowledged.
    Finished,
    /// The peer sent a reset.
    PeerReset,
    /// We reset it: the app asked, or it had closed and data still came.
    LocalReset,
    /// Retransmissions or probes went unanswered for too long.
    TimedOut,
    /// An ICMP error said that the peer cannot be reached.
    Unreachable,
    /// It was refused for want of room (session pool, fifo memory).
    NoRoom,
    /// The peer closed the transport in the middle of the stream: TLS without a `close_notify` (RFC 8446 §6.1). What was
    /// received may be cut.
    Truncated,
    /// What the peer sent cannot be decrypted or breaks the rules of what runs over the transport (TLS).
    Corrupt,
}

impl CloseReason {
    /// Whether the stream ended as both ends wanted.
    pub const fn is_graceful(self) -> bool {
        matches!(self, CloseReason::Finished)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::Finished => "finished",
            CloseReason::PeerReset => "reset by the peer",
            CloseReason::LocalReset => "reset by us",
            CloseReason::TimedOut => "timed out",
            CloseReason::Unreachable => "unreachable",
            CloseReason::NoRoom => "no room",
            CloseReason::Truncated => "cut short: the peer closed without ending its stream",
            CloseReason::Corrupt => "what the peer sent could not be decrypted",
        })
    }
}

/// Why a connect request failed: the outcome its app is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnectFailure {
    /// The peer answered with a reset: nothing listens there.
    Refused,
    /// Nothing answered before the connect's deadline.
    TimedOut,
    /// No route, no neighbour, or an ICMP error that ends the attempt.
    Unreachable,
    /// The app cancelled it.
    Cancelled,
    /// Its app worker or application was detached.
    Detached,
    /// Every local port (or the one asked for) is in use towards that peer.
    AddressInUse,
    /// The local address asked for is none of the domain's.
    AddressNotAvailable,
    /// A pool or table was at its limit.
    NoRoom,
    /// The host's kernel would not: its error number.
    System(i32),
    /// The transport was open, but what had to happen before the app is told did not.
    Stage(StageFailure),
}

/// Which establishment stage ended a connection, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageFailure {
    /// The stage's name.
    pub stage: &'static str,
    /// Why.
    pub cause: StageCause,
}

/// Why an establishment stage ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StageCause {
    /// It was not done before the deadline.
    TimedOut,
    /// The peer closed in the middle of it.
    PeerClosed,
    /// What the peer sent is not what the stage wants; the text says what is wrong.
    Malformed(&'static str),
    /// The peer sent more than the stage's limit.
    TooLong,
    /// What the stage should say cannot be said; the text says why.
    Unsayable(&'static str),
    /// The peer is not who it should be, or cannot prove it; the text says what is wrong with its certificate.
    Untrusted(&'static str),
    /// The peer ended it, and said why (a TLS alert, by its name in RFC 8446 §6).
    Refused(&'static str),
    /// The two ends have nothing in common; the text says what (TLS: versions, cipher suites, ALPN).
    NothingInCommon(&'static str),
}

impl ConnectFailure {
    /// A stable name in snake case, for scripts.
    pub const fn name(self) -> &'static str {
        match self {
            ConnectFailure::Refused => "refused",
            ConnectFailure::TimedOut => "timed_out",
            ConnectFailure::Unreachable => "unreachable",
            ConnectFailure::Cancelled => "cancelled",
            ConnectFailure::Detached => "detached",
            ConnectFailure::AddressInUse => "address_in_use",
            ConnectFailure::AddressNotAvailable => "address_not_available",
            ConnectFailure::NoRoom => "no_room",
            ConnectFailure::System(_) => "system",
            ConnectFailure::Stage(_) => "stage",
        }
    }
}

impl fmt::Display for StageFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.stage)?;
        match self.cause {
            StageCause::TimedOut => f.write_str("not done before the deadline"),
            StageCause::PeerClosed => f.write_str("the peer closed in the middle of it"),
            StageCause::Malformed(what) => write!(f, "the peer sent something else: {what}"),
            StageCause::TooLong => f.write_str("the peer sent more than the limit"),
            StageCause::Unsayable(what) => write!(f, "it cannot be said: {what}"),
            StageCause::Untrusted(what) => write!(f, "the peer is not trusted: {what}"),
            StageCause::Refused(what) => write!(f, "the peer refused: {what}"),
            StageCause::NothingInCommon(what) => write!(f, "the peer and this end agree on no {what}"),
        }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectFailure::Stage(failure) => return failure.fmt(f),
            ConnectFailure::System(errno) => return write!(f, "the host's kernel refused: error {errno}"),
            _ => {}
        }
        f.write_str(match self {
            ConnectFailure::Refused => "refused: nothing listens at the remote endpoint",
            ConnectFailure::TimedOut => "timed out: nothing answered before the deadline",
            ConnectFailure::Unreachable => "unreachable: no route, no neighbour, or an ICMP error",
            ConnectFailure::Cancelled => "cancelled by the app",
            ConnectFailure::Detached => "its app worker was detached",
            ConnectFailure::AddressInUse => {
                "no free local port: use more local addresses or wait for TIME-WAIT"
            }
            ConnectFailure::AddressNotAvailable => "the local address is not one of the domain's interfaces'",
            ConnectFailure::NoRoom => "a pool is at its limit: raise the limit or close something first",
            ConnectFailure::Stage(_) | ConnectFailure::System(_) => unreachable!("written above"),
        })
    }
}

impl core::error::Error for ConnectFailure {}

/// Why the session layer would not take a passive open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The listener is gone or its app worker is detaching.
    NoListener,
    /// The session pool is at its limit.
    NoRoom,
}
