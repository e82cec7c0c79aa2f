//! What the host's errors mean.

use hoststack_transport::{CloseReason, ConnectFailure};

use crate::host::Errno;

/// Why a connect failed. `AGAIN` of a Unix socket is none.
pub(crate) fn connect_failure(error: Errno) -> ConnectFailure {
    match error {
        // A Unix socket whose file is not there, a peer that resets what it just accepted.
        Errno::CONNREFUSED | Errno::NOENT | Errno::CONNRESET => ConnectFailure::Refused,
        Errno::TIMEDOUT => ConnectFailure::TimedOut,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN | Errno::HOSTDOWN => {
            ConnectFailure::Unreachable
        }
        // All ports, or the one that was bound, are in use towards that peer.
        Errno::AGAIN | Errno::ADDRINUSE | Errno::ADDRNOTAVAIL => ConnectFailure::AddressInUse,
        error if is_no_room(error) => ConnectFailure::NoRoom,
        error => ConnectFailure::System(error.raw_os_error()),
    }
}

/// Why the local endpoint that was asked for cannot be had.
pub(crate) fn bind_failure(error: Errno) -> ConnectFailure {
    match error {
        Errno::ADDRNOTAVAIL => ConnectFailure::AddressNotAvailable,
        error => connect_failure(error),
    }
}

/// How a connection ended.
pub(crate) fn close_reason(error: Errno) -> CloseReason {
    match error {
        Errno::TIMEDOUT => CloseReason::TimedOut,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN | Errno::HOSTDOWN => CloseReason::Unreachable,
        error if is_no_room(error) => CloseReason::NoRoom,
        _ => CloseReason::PeerReset,
    }
}

/// Descriptors or memory are out.
pub(crate) fn is_no_room(error: Errno) -> bool {
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
}
