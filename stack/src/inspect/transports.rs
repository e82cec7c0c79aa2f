//! The transports of a stack: what each holds, and did so far.

use serde::Serialize;

/// A transport.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransportInfo {
    /// By its scheme: `tcp`, `kernel+tcp`, `kernel+unix`, `local`.
    pub transport: &'static str,
    /// Connections; of `local`, ends. TIME-WAIT is not among them.
    pub connections: u64,
    /// The most that all workers have room for. The two sorts of sockets of the host share one limit.
    pub connections_max: u64,
    /// Half-open connections: SYN-SENT, or connects that the host has under way.
    pub half_opens: u64,
    /// The most of them. The two sorts of sockets of the host share one limit; `local` knows no half-opens.
    pub half_opens_max: Option<u64>,
    /// Listeners.
    pub listeners: u64,
    /// The most listeners, of all transports together.
    pub listeners_max: u64,
    /// Connections that came up because an app here connected, so far.
    pub connected: u64,
    /// Connections that were accepted, so far.
    pub accepted: u64,
    /// Connections that ended, so far.
    pub closed: u64,
    /// Of these, by a reset of the peer's, a time-out or another error.
    pub failed: u64,
    /// Bytes of apps that came, so far.
    pub bytes_in: u64,
    /// Bytes of apps that went, so far; what was sent again counts once.
    pub bytes_out: u64,
    /// Segments that were sent again, so far. Only `tcp` knows.
    pub retransmitted_segments: u64,
    /// Bytes that were sent again, so far. Only `tcp` knows.
    pub retransmitted_bytes: u64,
    /// Segments that were dropped on input, so far. Only `tcp` knows; `show errors` has the reasons.
    pub drops: u64,
}

impl TransportInfo {
    /// Adds another worker's counts; what only main knows stays.
    pub(crate) fn add_worker(&mut self, other: &TransportInfo) {
        let TransportInfo {
            transport: _,
            connections,
            connections_max: _,
            half_opens: _,
            half_opens_max: _,
            listeners: _,
            listeners_max: _,
            connected,
            accepted,
            closed,
            failed,
            bytes_in,
            bytes_out,
            retransmitted_segments,
            retransmitted_bytes,
            drops,
        } = *other;
        self.connections += connections;
        self.connected += connected;
        self.accepted += accepted;
        self.closed += closed;
        self.failed += failed;
        self.bytes_in += bytes_in;
        self.bytes_out += bytes_out;
        self.retransmitted_segments += retransmitted_segments;
        self.retransmitted_bytes += retransmitted_bytes;
        self.drops += drops;
    }
}
