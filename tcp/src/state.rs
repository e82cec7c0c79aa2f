//! The transition table: every change of a connection's state, whichever type holds it, is a line here.

use core::fmt;

/// The states of RFC 9293 §3.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// No connection.
    Closed,
    /// Waiting for any peer: a listener.
    Listen,
    /// Our SYN is out: a half-open, on main.
    SynSent,
    /// Both SYNs were seen, ours is not acknowledged.
    SynReceived,
    /// Open both ways.
    Established,
    /// Our FIN is out.
    FinWait1,
    /// Our FIN was acknowledged; the peer may still send.
    FinWait2,
    /// The peer's FIN came; we may still send.
    CloseWait,
    /// Both FINs are out, ours is not acknowledged.
    Closing,
    /// The peer's FIN came first and ours is out.
    LastAck,
    /// Both FINs are acknowledged; old duplicates are dying.
    TimeWait,
}

/// What moves a connection from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateEvent {
    /// The app listens.
    PassiveOpen,
    /// The app connects: a SYN is sent.
    ActiveOpen,
    /// A SYN without an acceptable ACK came.
    RcvSyn,
    /// A SYN with an acceptable ACK came.
    RcvSynAck,
    /// Our SYN was acknowledged.
    RcvAckOfSyn,
    /// Our FIN was sent for the first time.
    SendFin,
    /// The peer's FIN is next in order.
    RcvFin,
    /// Our FIN was acknowledged.
    RcvAckOfFin,
    /// An acceptable RST came.
    RcvRst,
    /// We drop it: the app's wish, no room, or data for nobody.
    Abort,
    /// A timer gave up or ran out.
    Expire,
}

impl State {
    /// All states.
    pub const ALL: [State; 11] = [
        State::Closed,
        State::Listen,
        State::SynSent,
        State::SynReceived,
        State::Established,
        State::FinWait1,
        State::FinWait2,
        State::CloseWait,
        State::Closing,
        State::LastAck,
        State::TimeWait,
    ];

    /// The table. `None` where the event cannot happen in the state.
    ///
    /// Where the RFC leaves a state upon the CLOSE call, this leaves it when the FIN goes out: until then the call is
    /// only remembered (RFC 9293 §3.10.4: "queue this until all preceding SENDs have been segmentized").
    pub const fn next(self, event: StateEvent) -> Option<State> {
        use State::*;
        use StateEvent::*;
        Some(match (self, event) {
            (Closed, PassiveOpen) => Listen,
            (Closed, ActiveOpen) => SynSent,
            (Listen, RcvSyn) => SynReceived,
            (Listen, Abort) => Closed,
            (SynSent, RcvSyn) => SynReceived,
            (SynSent, RcvSynAck) => Established,
            (SynReceived, RcvAckOfSyn) => Established,
            (Established, SendFin) => FinWait1,
            (Established, RcvFin) => CloseWait,
            (FinWait1, RcvAckOfFin) => FinWait2,
            (FinWait1, RcvFin) => Closing,
            (FinWait2, RcvFin) => TimeWait,
            (CloseWait, SendFin) => LastAck,
            (Closing, RcvAckOfFin) => TimeWait,
            (LastAck, RcvAckOfFin) => Closed,
            (
                SynSent | SynReceived | Established | FinWait1 | FinWait2 | CloseWait | Closing | LastAck
                | TimeWait,
                RcvRst | Abort | Expire,
            ) => Closed,
            _ => return None,
        })
    }

    /// The state after `event`.
    ///
    /// # Panics
    /// When the table has no such line: the engine took a step that TCP does not have.
    #[track_caller]
    pub(crate) const fn after(self, event: StateEvent) -> State {
        match self.next(event) {
            Some(next) => next,
            None => panic!("a state change that is not in the table"),
        }
    }

    /// Stable name, as the RFC writes it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Closed => "CLOSED",
            State::Listen => "LISTEN",
            State::SynSent => "SYN-SENT",
            State::SynReceived => "SYN-RECEIVED",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::CloseWait => "CLOSE-WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST-ACK",
            State::TimeWait => "TIME-WAIT",
        }
    }

    /// Whether the peer may still send us data.
    pub(crate) const fn can_receive(self) -> bool {
        matches!(self, State::Established | State::FinWait1 | State::FinWait2)
    }
}

impl StateEvent {
    /// All events.
    pub const ALL: [StateEvent; 11] = [
        StateEvent::PassiveOpen,
        StateEvent::ActiveOpen,
        StateEvent::RcvSyn,
        StateEvent::RcvSynAck,
        StateEvent::RcvAckOfSyn,
        StateEvent::SendFin,
        StateEvent::RcvFin,
        StateEvent::RcvAckOfFin,
        StateEvent::RcvRst,
        StateEvent::Abort,
        StateEvent::Expire,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::string::String;

    const TABLE: &str = "\
CLOSED + PassiveOpen -> LISTEN
CLOSED + ActiveOpen -> SYN-SENT
LISTEN + RcvSyn -> SYN-RECEIVED
LISTEN + Abort -> CLOSED
SYN-SENT + RcvSyn -> SYN-RECEIVED
SYN-SENT + RcvSynAck -> ESTABLISHED
SYN-SENT + RcvRst -> CLOSED
SYN-SENT + Abort -> CLOSED
SYN-SENT + Expire -> CLOSED
SYN-RECEIVED + RcvAckOfSyn -> ESTABLISHED
SYN-RECEIVED + RcvRst -> CLOSED
SYN-RECEIVED + Abort -> CLOSED
SYN-RECEIVED + Expire -> CLOSED
ESTABLISHED + SendFin -> FIN-WAIT-1
ESTABLISHED + RcvFin -> CLOSE-WAIT
ESTABLISHED + RcvRst -> CLOSED
ESTABLISHED + Abort -> CLOSED
ESTABLISHED + Expire -> CLOSED
FIN-WAIT-1 + RcvFin -> CLOSING
FIN-WAIT-1 + RcvAckOfFin -> FIN-WAIT-2
FIN-WAIT-1 + RcvRst -> CLOSED
FIN-WAIT-1 + Abort -> CLOSED
FIN-WAIT-1 + Expire -> CLOSED
FIN-WAIT-2 + RcvFin -> TIME-WAIT
FIN-WAIT-2 + RcvRst -> CLOSED
FIN-WAIT-2 + Abort -> CLOSED
FIN-WAIT-2 + Expire -> CLOSED
CLOSE-WAIT + SendFin -> LAST-ACK
CLOSE-WAIT + RcvRst -> CLOSED
CLOSE-WAIT + Abort -> CLOSED
CLOSE-WAIT + Expire -> CLOSED
CLOSING + RcvAckOfFin -> TIME-WAIT
CLOSING + RcvRst -> CLOSED
CLOSING + Abort -> CLOSED
CLOSING + Expire -> CLOSED
LAST-ACK + RcvAckOfFin -> CLOSED
LAST-ACK + RcvRst -> CLOSED
LAST-ACK + Abort -> CLOSED
LAST-ACK + Expire -> CLOSED
TIME-WAIT + RcvRst -> CLOSED
TIME-WAIT + Abort -> CLOSED
TIME-WAIT + Expire -> CLOSED
";

    #[test]
    fn the_table_is_this_one() {
        let mut table = String::new();
        for state in State::ALL {
            for event in StateEvent::ALL {
                if let Some(next) = state.next(event) {
                    writeln!(table, "{state} + {event:?} -> {next}").unwrap();
                }
            }
        }
        assert_eq!(table, TABLE);
    }
}
