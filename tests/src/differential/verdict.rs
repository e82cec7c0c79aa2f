//! What is right: how connections may end, what the kernel may count, why we may drop.
//!
//! Lossy, slow or repeating links explain much, and so does a machine that stalls; so only what no link and no delay can
//! cause is wrong. In a world without ends that cut off, no reset at all.

use std::collections::BTreeMap;

use hoststack::app::CloseReason;
use hoststack::net::DropReason as IpDropReason;
use hoststack::net::Severity;

use super::actor::{Actor, Ended};
use super::kernel::KernelEnd;
use super::ours::OurEnd;
use super::plan::Connection;

/// The kernel's TCP counters of a namespace, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters(BTreeMap<String, i64>);

impl KernelCounters {
    /// Reads `/proc/net/snmp` (its `Tcp` lines) and `/proc/net/netstat` (its `TcpExt` lines).
    #[must_use]
    pub fn parse(snmp: &str, netstat: &str) -> KernelCounters {
        let mut counters = BTreeMap::new();
        for (text, prefix) in [(snmp, "Tcp:"), (netstat, "TcpExt:")] {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
            if let (Some(names), Some(values)) = (lines.next(), lines.next()) {
                let values = values.split_whitespace().map(|value| value.parse().unwrap_or(0));
                counters.extend(names.split_whitespace().map(str::to_owned).zip(values));
            }
        }
        KernelCounters(counters)
    }

    /// A counter; 0 for one that this kernel does not have.
    #[must_use]
    pub fn of(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Whether anything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that are not zero, in a line.
    #[must_use]
    pub fn text(&self) -> String {
        let set = self.0.iter().filter(|(_, count)| **count != 0);
        set.map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(" ")
    }
}

/// What a world gives to explain things with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grounds {
    /// Connections in which an end may cut the other off.
    pub aborts: usize,
    /// Segments may have come twice, or after their connection was over.
    pub is_repeated: bool,
    /// Window probes that we sent: a byte each, beyond a window that is closed (RFC 9293 §3.8.6.1).
    pub probes: u64,
}

/// What a kernel counts only when its peer breaks a rule, or a limit of its own is hit that no world reaches.
const NEVER: &[&str] = &[
    "InCsumErrors",
    "OutOfWindowIcmps",
    "PAWSActive",
    "TSEcrRejected",
    "ListenOverflows",
    "ListenDrops",
    "TCPSACKReneging",
    "TCPAbortOnMemory",
    "TCPAbortOnTimeout",
    "TCPAbortOnLinger",
    "TCPAbortFailed",
    "TCPBacklogDrop",
    "TCPReqQFullDrop",
    "TCPMD5Unexpected",
    "TCPAOBad",
];

/// What it counts besides only when an end cuts off, for each at most once.
const ABORTS_ONLY: &[&str] =
    &["EstabResets", "EmbryonicRsts", "AttemptFails", "TCPAbortOnData", "TCPAbortOnClose"];

/// What the kernel counted that it should not have.
#[must_use]
pub fn judge_kernel(counters: &KernelCounters, grounds: Grounds) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut at_most = |name: &str, most: i64| {
        let count = counters.of(name);
        if count > most {
            wrong.push(format!("the kernel counted {name} {count} times, {most} can be explained"));
        }
    };
    NEVER.iter().for_each(|name| at_most(name, 0));
    let aborts = i64::try_from(grounds.aborts).unwrap_or(i64::MAX);
    ABORTS_ONLY.iter().for_each(|name| at_most(name, aborts));
    // An acknowledgment that comes behind a later one, which moved SND.UNA into its blocks.
    at_most("TCPSACKDiscard", if grounds.is_repeated { i64::MAX } else { 0 });
    // What comes once more for a connection that is over is answered with a reset.
    let may_reset = aborts > 0 || grounds.is_repeated;
    at_most("OutRsts", if may_reset { i64::MAX } else { 0 });
    // A receive buffer that overflowed takes the window back: what was on its way then lies beyond it.
    let probes =
        i64::try_from(grounds.probes).unwrap_or(i64::MAX / 2) * if grounds.is_repeated { 2 } else { 1 };
    at_most("BeyondWindow", if counters.of("PruneCalled") > 0 { i64::MAX } else { probes });
    // RFC 5961 §4: a SYN-ACK that comes again is challenged, which Linux counts as an error too.
    let challenged_syns = counters.of("TCPSYNChallenge");
    at_most("TCPSYNChallenge", if grounds.is_repeated { i64::MAX } else { 0 });
    at_most("InErrs", challenged_syns);
    // Nothing else is, without a reset.
    at_most("TCPChallengeACK", if aborts > 0 { i64::MAX } else { challenged_syns });
    wrong
}

/// Why we may drop in any world: probes, and what fills a window twice.
const DROPS: &[&str] = &["out-of-window", "duplicate-data", "paws", "ack-too-old"];

/// Why we may drop besides where segments come twice.
const DROPS_OF_REPEATS: &[&str] = &[
    "syn-challenged",
    "syn-received-duplicate",
    "time-wait-duplicate",
    "challenge-limited",
    "no-flow",
    "no-flow-reset",
    "listen-ack",
    "listen-reset",
    "time-wait-reset",
    "data-after-fin",
];

/// Why we may drop besides where an end cuts off.
const DROPS_OF_ABORTS: &[&str] = &[
    "no-flow",
    "no-flow-reset",
    "reset-out-of-window",
    "reset-challenged",
    "reset-limited",
    "syn-received-reset",
    "syn-received-bad-ack",
    "data-after-close",
    "listen-reset",
    "listen-ack",
    "time-wait-reset",
];

/// What we dropped that we should not have.
#[must_use]
pub fn judge_drops<'d>(drops: impl Iterator<Item = (&'d str, u64)>, grounds: Grounds) -> Vec<String> {
    let is_routine =
        |name: &str| IpDropReason::ALL.iter().any(|r| r.name() == name && r.severity() == Severity::Routine);
    let may = |name: &str| {
        DROPS.contains(&name)
            || grounds.is_repeated && DROPS_OF_REPEATS.contains(&name)
            || grounds.aborts > 0 && DROPS_OF_ABORTS.contains(&name)
            || is_routine(name)
    };
    drops
        .filter(|(name, _)| !may(name))
        .map(|(name, count)| format!("we dropped {count} segments: {name}"))
        .collect()
}

/// What is wrong with how a connection ended.
#[must_use]
pub fn judge_connection(plan: &Connection, ours: &OurEnd, kernel: &KernelEnd, is_lossy: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (who, actor) in [("we read", &ours.actor), ("the kernel read", &kernel.actor)] {
        wrong.extend(actor.wrong().map(|what| format!("{who}: {what}")));
    }
    if ours.sessions > 1 {
        wrong.push(format!("{} sessions of one connection", ours.sessions));
    }
    let sides =
        [("our end", &ours.actor, plan.ours.total), ("the kernel's end", &kernel.actor, plan.kernel.total)];
    for (who, actor, total) in sides {
        wrong.extend(judge_end(plan, actor, total, is_lossy).map(|what| format!("{who} {what}")));
    }
    let reasons: &[CloseReason] = match (plan.is_abortive(), ours.actor.ended()) {
        (false, _) => &[CloseReason::Finished],
        (true, Some(Ended::Broken(_))) => &[CloseReason::PeerReset],
        // A close that leaves data unread, or meets more of it, is a reset.
        (true, _) => &[CloseReason::Finished, CloseReason::LocalReset, CloseReason::PeerReset],
    };
    if ours.sessions > 0 && !ours.closed.is_some_and(|reason| reasons.contains(&reason)) {
        wrong.push(format!("our session ended as {:?}, not as one of {reasons:?}", ours.closed));
    }
    wrong
}

fn judge_end(plan: &Connection, actor: &Actor, total: u64, is_lossy: bool) -> Option<String> {
    let is_reset = |how: &str| how.contains("reset") || how.contains("broken pipe");
    match actor.ended() {
        None => Some("did not end".to_owned()),
        Some(Ended::Orderly) => {
            let (sent, _) = actor.counts();
            (sent != total).then(|| format!("ended with {sent} of {total} bytes sent"))
        }
        Some(other) if !plan.is_abortive() => Some(format!("ended as {other:?}")),
        Some(Ended::Orphaned) if !is_lossy => {
            Some("heard nothing of a reset, and nothing was lost".to_owned())
        }
        Some(Ended::Broken(how)) if !is_reset(how) => Some(format!("broke: {how}")),
        Some(Ended::Aborted | Ended::Broken(_) | Ended::Orphaned) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERLY: Grounds = Grounds { aborts: 0, is_repeated: false, probes: 0 };
    const ABORTIVE: Grounds = Grounds { aborts: 2, is_repeated: false, probes: 0 };
    const REPEATED: Grounds = Grounds { aborts: 0, is_repeated: true, probes: 1 };

    fn counters(name: &str, count: i64) -> KernelCounters {
        KernelCounters::parse(
            "Tcp: InErrs\nTcp: 0\n",
            &format!("TcpExt: A {name}\nTcpExt: 1 {count}\nIpExt: B\n"),
        )
    }

    #[test]
    fn counters_are_read_by_name() {
        let read = counters("TCPAbortOnData", 3);
        assert_eq!((read.of("TCPAbortOnData"), read.of("A"), read.of("none")), (3, 1, 0));
        assert_eq!(read.text(), "A=1 TCPAbortOnData=3");
    }

    #[test]
    fn kernel_that_aborts_or_rejects_is_wrong_unless_it_is_explained() {
        let wrong = |name, count, grounds| judge_kernel(&counters(name, count), grounds).len();
        assert_eq!(wrong("TCPTimeouts", 9, ORDERLY), 0);
        assert_eq!([ORDERLY, REPEATED, ABORTIVE].map(|g| wrong("TCPAbortOnData", 1, g)), [1, 1, 0]);
        assert_eq!(wrong("TCPAbortOnData", 3, ABORTIVE), 1);
        assert_eq!([ORDERLY, REPEATED, ABORTIVE].map(|g| wrong("TCPSYNChallenge", 1, g)), [1, 0, 1]);
        assert_eq!([ORDERLY, REPEATED, ABORTIVE].map(|g| wrong("TCPChallengeACK", 1, g)), [1, 1, 0]);
        assert_eq!([ORDERLY, REPEATED, ABORTIVE].map(|g| wrong("BeyondWindow", 2, g)), [1, 0, 1]);
        assert_eq!([ORDERLY, REPEATED, ABORTIVE].map(|g| wrong("TCPSACKDiscard", 1, g)), [1, 0, 1]);
    }

    #[test]
    fn drops_are_judged_by_their_names_which_exist() {
        let wrong = |name| {
            [ORDERLY, REPEATED, ABORTIVE].map(|grounds| judge_drops([(name, 1)].into_iter(), grounds).len())
        };
        assert_eq!(wrong("malformed"), [1, 1, 1]);
        assert_eq!(wrong("no-flow"), [1, 0, 0]);
        assert_eq!(wrong("syn-challenged"), [1, 0, 1]);
        assert_eq!(wrong("out-of-window"), [0, 0, 0]);
        assert_eq!((wrong("arp-not-for-us"), wrong("tcp-bad-checksum")), ([0; 3], [1; 3]));
        let known: Vec<_> = hoststack::tcp::DropReason::ALL.iter().map(|reason| reason.name()).collect();
        for name in DROPS.iter().chain(DROPS_OF_REPEATS).chain(DROPS_OF_ABORTS) {
            assert!(known.contains(name), "{name}");
        }
    }
}
