//! What the two ends of a connection say to each other when different workers own them.

use hoststack_transport::{ConnectionId, DomainId, ListenerId, WorkerId};

/// An end: its worker and its connection there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The worker.
    pub worker: WorkerId,
    /// The connection.
    pub connection: ConnectionId,
}

/// From one worker to another, in order. One for a connection that is gone does nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Someone connects.
    Open {
        /// To this listener.
        listener: ListenerId,
        /// The domain both are in.
        domain: DomainId,
        /// The connecting end.
        from: Place,
        /// Bytes it has room for.
        granted: u32,
    },
    /// The connect is accepted.
    Opened {
        /// The connecting end.
        to: ConnectionId,
        /// The accepting end.
        from: Place,
        /// Bytes it has room for.
        granted: u32,
    },
    /// The connect is not accepted.
    Refused {
        /// The connecting end.
        to: ConnectionId,
    },
    /// Bytes, no more than were granted.
    Data {
        /// The receiving end.
        to: ConnectionId,
        /// The sending one, to be told if there is no receiver any more.
        from: Place,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// So many more bytes may be sent.
    Grant {
        /// The sending end.
        to: ConnectionId,
        /// How many more.
        bytes: u32,
    },
    /// Nothing more follows.
    Finish {
        /// The receiving end.
        to: ConnectionId,
    },
    /// The other end is gone: what it had not read is lost, and what is sent to it.
    Reset {
        /// The receiving end.
        to: ConnectionId,
    },
}
