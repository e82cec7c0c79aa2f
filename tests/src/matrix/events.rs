//! The events, by name, and the sides that have them.

use std::fmt;

use hoststack_transport::AllocationPoint;

/// Who opens the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Our app connects.
    Connect,
    /// The peer connects to our app's listener.
    Accept,
}

impl Side {
    /// Its name in the snapshot.
    pub fn name(self) -> &'static str {
        match self {
            Side::Connect => "connect",
            Side::Accept => "accept",
        }
    }

    /// The events of its matrix.
    pub fn events(self) -> &'static [Event] {
        match self {
            Side::Connect => CONNECT,
            Side::Accept => ACCEPT,
        }
    }
}

/// What the peer sends in one burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Burst {
    /// The SYN-ACK.
    SynAck,
    /// The SYN-ACK, twice.
    SynAckTwice,
    /// The SYN-ACK, on the queue of a worker that does not own the flow.
    SynAckElsewhere,
    /// The SYN-ACK, then data.
    SynAckData,
    /// The SYN-ACK, then a FIN.
    SynAckFin,
    /// The SYN-ACK, then a reset.
    SynAckRst,
    /// A SYN of its own that crosses ours.
    CrossingSyn,
    /// A reset that is acceptable in the state that the peer knows of.
    Rst,
    /// ICMP host unreachable, quoting the SYN.
    Icmp,
    /// Its SYN.
    Syn,
    /// Its SYN, twice.
    SynTwice,
    /// Its SYN, on the queue of a worker that does not own the flow.
    SynElsewhere,
    /// The ACK that completes the handshake.
    Ack,
    /// The same, on the queue of a worker that does not own the flow.
    AckElsewhere,
    /// The same, with data.
    AckData,
    /// The same, with a FIN.
    AckFin,
}

/// What the app does in `connected` or `accepted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Inside {
    /// Writes a few bytes.
    Write = 0,
    /// Resets the session.
    Reject = 1,
    /// Closes it.
    Close = 2,
    /// Panics.
    Panic = 3,
}

/// Something that happens at a step boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The peer, or a router, sends something.
    Peer(Burst),
    /// Time jumps past the next SYN (or SYN-ACK) retransmission.
    SynTimer,
    /// Time jumps past the connect's deadline.
    Deadline,
    /// The connect is cancelled through a handle.
    Cancel,
    /// The session is closed through a handle; before there is one, a handle that names nothing is.
    Close,
    /// The same, reset.
    Reset,
    /// The app worker is detached; its sessions are closed, with a linger.
    DetachWorker,
    /// The application is detached; its sessions are reset.
    DetachApp,
    /// The app's listener is closed.
    Unlisten,
    /// Another connect of the app worker, whose half-open pool has room for one.
    PoolFull,
    /// Main's channel to the flow's worker is full, and its outbox waits.
    CommandsFull,
    /// The channel of the flow's worker to main is full, and its outbox waits.
    ReportsFull,
    /// From now on an allocation is refused, until the world is quiet.
    Refuse(AllocationPoint),
    /// From now on the app does this in its first callback.
    App(Inside),
}

use Event::{
    App, Cancel, Close, CommandsFull, Deadline, DetachApp, DetachWorker, Peer, PoolFull, Refuse, ReportsFull,
    Reset, SynTimer, Unlisten,
};

const CONNECT: &[Event] = &[
    Peer(Burst::SynAck),
    Peer(Burst::SynAckTwice),
    Peer(Burst::SynAckElsewhere),
    Peer(Burst::SynAckData),
    Peer(Burst::SynAckFin),
    Peer(Burst::SynAckRst),
    Peer(Burst::CrossingSyn),
    Peer(Burst::Rst),
    Peer(Burst::Icmp),
    SynTimer,
    Deadline,
    Cancel,
    Close,
    Reset,
    DetachWorker,
    DetachApp,
    Unlisten,
    PoolFull,
    CommandsFull,
    ReportsFull,
    Refuse(AllocationPoint::HalfOpenSession),
    Refuse(AllocationPoint::HalfOpen),
    Refuse(AllocationPoint::Tuple),
    Refuse(AllocationPoint::HalfOpenFlow),
    Refuse(AllocationPoint::Connection),
    Refuse(AllocationPoint::Session),
    Refuse(AllocationPoint::FifoChunk),
    App(Inside::Reject),
    App(Inside::Close),
    App(Inside::Panic),
];

const ACCEPT: &[Event] = &[
    Peer(Burst::Syn),
    Peer(Burst::SynTwice),
    Peer(Burst::SynElsewhere),
    Peer(Burst::Ack),
    Peer(Burst::AckElsewhere),
    Peer(Burst::AckData),
    Peer(Burst::AckFin),
    Peer(Burst::Rst),
    SynTimer,
    Close,
    Reset,
    DetachWorker,
    DetachApp,
    Unlisten,
    CommandsFull,
    ReportsFull,
    Refuse(AllocationPoint::SynReceived),
    Refuse(AllocationPoint::Connection),
    Refuse(AllocationPoint::Session),
    Refuse(AllocationPoint::FifoChunk),
    App(Inside::Reject),
    App(Inside::Close),
    App(Inside::Panic),
];

impl Event {
    /// Whether it answers our SYN (or our SYN-ACK): then the peer answers by events only.
    pub fn is_answer(self) -> bool {
        match self {
            Peer(burst) => !matches!(burst, Burst::Syn | Burst::SynTwice | Burst::SynElsewhere),
            _ => false,
        }
    }

    /// Whether it opens the peer's connection: then the peer opens by events only, unless it comes after an answer.
    pub fn is_syn(self) -> bool {
        matches!(self, Peer(Burst::Syn | Burst::SynTwice | Burst::SynElsewhere))
    }

    /// Whether it needs a second worker.
    pub fn needs_other_worker(self) -> bool {
        matches!(self, Peer(Burst::SynAckElsewhere | Burst::SynElsewhere | Burst::AckElsewhere))
    }

    /// Its name, without spaces.
    pub fn name(self) -> &'static str {
        match self {
            Peer(Burst::SynAck) => "syn-ack",
            Peer(Burst::SynAckTwice) => "syn-ack-twice",
            Peer(Burst::SynAckElsewhere) => "syn-ack-elsewhere",
            Peer(Burst::SynAckData) => "syn-ack+data",
            Peer(Burst::SynAckFin) => "syn-ack+fin",
            Peer(Burst::SynAckRst) => "syn-ack+rst",
            Peer(Burst::CrossingSyn) => "crossing-syn",
            Peer(Burst::Rst) => "rst",
            Peer(Burst::Icmp) => "icmp",
            Peer(Burst::Syn) => "syn",
            Peer(Burst::SynTwice) => "syn-twice",
            Peer(Burst::SynElsewhere) => "syn-elsewhere",
            Peer(Burst::Ack) => "ack",
            Peer(Burst::AckElsewhere) => "ack-elsewhere",
            Peer(Burst::AckData) => "ack+data",
            Peer(Burst::AckFin) => "ack+fin",
            SynTimer => "syn-timer",
            Deadline => "deadline",
            Cancel => "cancel",
            Close => "close",
            Reset => "reset",
            DetachWorker => "detach-worker",
            DetachApp => "detach-app",
            Unlisten => "unlisten",
            PoolFull => "pool-full",
            CommandsFull => "commands-full",
            ReportsFull => "reports-full",
            Refuse(AllocationPoint::HalfOpenSession) => "no-half-open-session",
            Refuse(AllocationPoint::HalfOpen) => "no-half-open",
            Refuse(AllocationPoint::Tuple) => "no-tuple",
            Refuse(AllocationPoint::Listener) => "no-listener",
            Refuse(AllocationPoint::HalfOpenFlow) => "no-half-open-flow",
            Refuse(AllocationPoint::SynReceived) => "no-syn-received",
            Refuse(AllocationPoint::Connection) => "no-connection",
            Refuse(AllocationPoint::Session) => "no-session",
            Refuse(AllocationPoint::FifoChunk) => "no-fifo-chunk",
            App(Inside::Write) => "write-inside",
            App(Inside::Reject) => "reject-inside",
            App(Inside::Close) => "close-inside",
            App(Inside::Panic) => "panic-inside",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
