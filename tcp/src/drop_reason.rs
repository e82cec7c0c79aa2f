//! Why a segment, or a part of one, was dropped: the peer's or the network's fault, never an error upward.

use core::fmt;

macro_rules! drop_reasons {
    ($($variant:ident, $name:literal, $help:literal;)*) => {
        /// Why a segment was dropped. The names are stable: logs, the CLI and tests use them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $help] $variant,)*
        }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)*];

            /// Stable name.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// What it means, in a sentence.
            pub const fn help(self) -> &'static str {
                match self { $(DropReason::$variant => $help,)* }
            }
        }
    };
}

drop_reasons! {
    Malformed, "malformed", "Its header or options are not those of a TCP segment.";
    NoFlow, "no-flow", "It belongs to no flow and no listener; answered with a reset unless it was one.";
    NoFlowReset, "no-flow-reset", "A reset that belongs to no flow and no listener.";
    ResetLimited, "reset-limited", "It deserved a reset, but this step had sent as many resets as it may.";
    ListenReset, "listen-reset", "A reset for a listener.";
    ListenAck, "listen-ack", "An acknowledgment for a listener that never sent anything; answered with a reset.";
    ListenNoSyn, "listen-no-syn", "Neither SYN, ACK nor RST, for a listener.";
    BacklogFull, "backlog-full", "A SYN for a listener whose backlog of SYN-RECEIVED connections is full.";
    SynReceivedFull, "syn-received-full", "A SYN while this worker's SYN-RECEIVED pool was full.";
    SynCookieBad, "syn-cookie-bad", "An acknowledgment for a listener that proves no SYN cookie, while some were out; what does may be on its way.";
    SynCookieSpent, "syn-cookie-spent", "It proves a SYN cookie that made a connection before: an old duplicate.";
    SynCookieImpossible, "syn-cookie-impossible", "A SYN that found no room, and whose MSS is too small for a cookie to say.";
    SynSentBadAck, "syn-sent-bad-ack", "In SYN-SENT, an acknowledgment of something never sent; answered with a reset.";
    SynSentReset, "syn-sent-reset", "In SYN-SENT, a reset whose acknowledgment is not of our SYN.";
    SynSentNoSyn, "syn-sent-no-syn", "In SYN-SENT, a segment with neither SYN nor RST.";
    SynReceivedBadAck, "syn-received-bad-ack", "In SYN-RECEIVED, an ACK that is not of our SYN; answered with a reset.";
    SynReceivedDuplicate, "syn-received-duplicate", "The peer's SYN again; answered with the SYN-ACK again.";
    SynReceivedSyn, "syn-received-syn", "A SYN in the window of SYN-RECEIVED: the connection went back to LISTEN.";
    SynReceivedReset, "syn-received-reset", "The peer reset a connection that was in SYN-RECEIVED.";
    AcceptNoListener, "accept-no-listener", "The handshake completed, but the listener's app was gone; answered with a reset.";
    AcceptNoRoom, "accept-no-room", "The handshake completed, but a pool was full; answered with a reset.";
    Paws, "paws", "Its timestamp is older than one already seen (RFC 7323 PAWS); answered with an ACK.";
    TimestampMissing, "timestamp-missing", "It lacks the timestamps option that both ends had agreed on.";
    OutOfWindow, "out-of-window", "It lies outside the receive window, mostly an old duplicate; answered with an ACK.";
    ResetOutOfWindow, "reset-out-of-window", "A reset outside the receive window.";
    ResetChallenged, "reset-challenged", "A reset inside the window but not at its left edge; answered with a challenge ACK.";
    SynFin, "syn-fin", "SYN and FIN in one segment (`TcpConfig::drop_syn_fin`).";
    SynChallenged, "syn-challenged", "A SYN on a synchronized connection; answered with a challenge ACK.";
    NoAck, "no-ack", "No ACK bit on a synchronized connection.";
    AckTooOld, "ack-too-old", "It acknowledges what lies more than a window back; answered with a challenge ACK.";
    AckBeyond, "ack-beyond", "It acknowledges what was never sent; answered with an ACK.";
    ChallengeLimited, "challenge-limited", "It deserved a challenge ACK, but the connection had sent as many as it may.";
    DuplicateData, "duplicate-data", "Bytes that had been received before, in a segment that also brought something new.";
    BeyondWindow, "beyond-window", "Bytes beyond the right edge of the receive window.";
    ReceiveFull, "receive-full", "Bytes inside the window for which the session had no memory; the peer sends them again.";
    DataAfterClose, "data-after-close", "Data for an app that had closed; the connection was reset.";
    DataAfterFin, "data-after-fin", "Data or a FIN after the peer's FIN.";
    TimeWaitDuplicate, "time-wait-duplicate", "An old duplicate for a flow in TIME-WAIT.";
    TimeWaitReset, "time-wait-reset", "A reset for a flow in TIME-WAIT: ignored (RFC 1337).";
    TimeWaitOverflow, "time-wait-overflow", "A TIME-WAIT record that ended early because the pool was at its limit.";
    IcmpOutOfWindow, "icmp-out-of-window", "An ICMP error that quotes nothing that is in flight (RFC 5927).";
    IcmpMtuLarger, "icmp-mtu-larger", "An ICMP error that names a path MTU which nothing that is in flight exceeds (RFC 5927 §7.2).";
    IcmpMtuUnproven, "icmp-mtu-unproven", "An ICMP error that names a path MTU below what has arrived: it counts when a timeout bears it out (RFC 5927 §7.2).";
    IcmpNoFlow, "icmp-no-flow", "An ICMP error about no flow of ours.";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How often each [`DropReason`] applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> DropCounters {
        DropCounters([0; DropReason::ALL.len()])
    }
}

impl DropCounters {
    /// One more.
    #[inline]
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// How often so far.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// All reasons with their counts, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.iter().copied().zip(self.0)
    }

    /// Adds another worker's.
    pub fn merge(&mut self, other: &DropCounters) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Their sum.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_kebab_case_and_unique_and_count_where_they_should() {
        let names: BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        assert!(
            names
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
        );
        assert!(DropReason::ALL.iter().all(|reason| reason.help().ends_with('.')));
        let mut counters = DropCounters::default();
        for (n, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, n);
            counters.count(reason);
        }
        let copy = counters.clone();
        counters.merge(&copy);
        assert!(counters.iter().all(|(reason, count)| count == 2 && counters.of(reason) == 2));
        assert_eq!(counters.total(), 2 * DropReason::ALL.len() as u64);
    }
}
