//! What can go wrong besides the apps, and whether it did: a fault counts when it struck, not when it was drawn.

/// A kind of fault. Its number is its column in the coverage table, after "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    /// A packet was lost.
    Loss,
    /// A packet was overtaken.
    Reorder,
    /// A packet came twice.
    Duplicate,
    /// A bit of a packet flipped.
    Corrupt,
    /// A packet came late.
    Delay,
    /// A device was full and took no more.
    Clog,
    /// Pools, tables or queues of a few places.
    SmallPools,
    /// An allocation point refused.
    Refusal,
    /// A thread did not step for a while.
    Pause,
    /// All packets of one flow were swallowed.
    Silence,
    /// A reset was injected.
    InjectedRst,
    /// A SYN was injected.
    InjectedSyn,
    /// A FIN was injected.
    InjectedFin,
    /// Data that nobody sent was injected.
    Junk,
    /// An ICMP error was injected.
    Icmp,
    /// An old packet came again.
    Replay,
    /// A link was cut.
    Cut,
    /// A peer that keeps no rule.
    Villain,
}

impl Fault {
    /// Number of kinds.
    pub(crate) const COUNT: usize = 18;

    /// Names, in order.
    pub(crate) const NAMES: [&'static str; Fault::COUNT] = [
        "loss", "reorder", "duplic", "corrupt", "delay", "clog", "small", "refusal", "pause", "silence",
        "rst", "syn", "fin", "junk", "icmp", "replay", "cut", "villain",
    ];
}

/// How often each kind struck, per host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strikes {
    counts: [u64; Fault::COUNT],
    hosts: [u32; super::world::HOSTS_MAX],
}

impl Strikes {
    /// A fault struck a host.
    pub(crate) fn strike(&mut self, host: usize, fault: Fault, times: u64) {
        if times > 0 {
            self.counts[fault as usize] += times;
            self.hosts[host] |= 1 << fault as u8;
        }
    }

    /// What has struck a host, as bits.
    pub(crate) fn on_host(&self, host: usize) -> u32 {
        self.hosts[host]
    }

    /// Kinds that struck anywhere.
    pub(crate) fn kinds(&self) -> usize {
        self.counts.iter().filter(|count| **count > 0).count()
    }

    /// How often each kind struck.
    pub(crate) fn counts(&self) -> &[u64; Fault::COUNT] {
        &self.counts
    }
}
