//! The two sub-states of a session: what the app did and what the transport did. Neither ever moves backward.

use core::fmt;
use core::ops::Index;

use hoststack_transport::CloseReason;

/// What the app did to its session, in the only order there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AppSide {
    /// The app has not been told of the session yet.
    Unannounced,
    /// The app was told and may read and write.
    Open,
    /// The app has sent all it will; it may still read.
    HalfClosed,
    /// The app wants no more of it: it gets `closed` and nothing else.
    Closed,
}

/// What the transport did, in the only order there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportSide {
    /// Not yet open (an active open that waits for its hand-over to complete).
    Opening,
    /// Open both ways.
    Open,
    /// The peer closed its direction; ours is open.
    PeerClosed,
    /// The transport is done with the connection and has deleted it.
    Closed(CloseReason),
}

impl TransportSide {
    const fn rank(self) -> u8 {
        match self {
            TransportSide::Opening => 0,
            TransportSide::Open => 1,
            TransportSide::PeerClosed => 2,
            TransportSide::Closed(_) => 3,
        }
    }

    /// Moves to `to`.
    ///
    /// # Panics
    /// If that is not forward: a transport reported events out of order.
    pub(crate) fn advance(&mut self, to: TransportSide) {
        assert!(to.rank() > self.rank(), "a transport's side moves forward only: {self} -> {to}");
        *self = to;
    }

    /// Whether the transport carries data for us to send.
    pub const fn is_open(self) -> bool {
        matches!(self, TransportSide::Open | TransportSide::PeerClosed)
    }
}

impl AppSide {
    /// Moves to `to` if that is forward; says whether it was.
    pub(crate) fn advance(&mut self, to: AppSide) -> bool {
        let forward = to > *self;
        if forward {
            *self = to;
        }
        forward
    }
}

/// Both sides in one word, for lists and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// The app has not been told of it.
    Unannounced,
    /// Open both ways.
    Open,
    /// The peer has closed its direction.
    PeerClosed,
    /// The app has closed its direction.
    HalfClosed,
    /// The app has closed it; the transport is finishing.
    Closing,
    /// The transport is done; the app has bytes left to read, or a callback to come.
    Ended,
}

impl SessionState {
    /// All of them, in the order of a session's life.
    pub const ALL: [SessionState; 6] = [
        SessionState::Unannounced,
        SessionState::Open,
        SessionState::PeerClosed,
        SessionState::HalfClosed,
        SessionState::Closing,
        SessionState::Ended,
    ];

    /// What the two sides amount to.
    pub const fn of(app: AppSide, transport: TransportSide) -> SessionState {
        match (app, transport) {
            (_, TransportSide::Closed(_)) => SessionState::Ended,
            (AppSide::Unannounced, _) => SessionState::Unannounced,
            (AppSide::Closed, _) => SessionState::Closing,
            (AppSide::HalfClosed, _) => SessionState::HalfClosed,
            (AppSide::Open, TransportSide::PeerClosed) => SessionState::PeerClosed,
            (AppSide::Open, _) => SessionState::Open,
        }
    }

    /// Its name (stable, kebab case).
    pub const fn name(self) -> &'static str {
        match self {
            SessionState::Unannounced => "unannounced",
            SessionState::Open => "open",
            SessionState::PeerClosed => "peer-closed",
            SessionState::HalfClosed => "half-closed",
            SessionState::Closing => "closing",
            SessionState::Ended => "ended",
        }
    }
}

/// How many sessions are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStates([u32; SessionState::ALL.len()]);

impl SessionStates {
    pub(crate) fn born(&mut self, state: SessionState) {
        self.0[state as usize] += 1;
    }

    pub(crate) fn died(&mut self, state: SessionState) {
        self.0[state as usize] -= 1;
    }

    pub(crate) fn moved(&mut self, from: SessionState, to: SessionState) {
        self.died(from);
        self.born(to);
    }
}

impl Index<SessionState> for SessionStates {
    type Output = u32;
    fn index(&self, state: SessionState) -> &u32 {
        &self.0[state as usize]
    }
}

impl fmt::Display for AppSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AppSide::Unannounced => "unannounced",
            AppSide::Open => "open",
            AppSide::HalfClosed => "half-closed",
            AppSide::Closed => "closed",
        })
    }
}

impl fmt::Display for TransportSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransportSide::Opening => "opening",
            TransportSide::Open => "open",
            TransportSide::PeerClosed => "peer-closed",
            TransportSide::Closed(_) => "closed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // covers: N04
    #[test]
    fn the_app_side_never_moves_backward() {
        let mut side = AppSide::Unannounced;
        assert!(side.advance(AppSide::Closed));
        assert!(!side.advance(AppSide::Open));
        assert_eq!(side, AppSide::Closed);
    }

    // covers: N04
    #[test]
    #[should_panic(expected = "moves forward only")]
    fn a_transport_that_reopens_is_a_bug() {
        let mut side = TransportSide::Closed(CloseReason::Finished);
        side.advance(TransportSide::PeerClosed);
    }
}
