//! 4-tuples that main gave out, and who holds them: the answer to [`Query::Ports`](super::Query::Ports).

use std::collections::BTreeMap;
use std::net::IpAddr;

use hoststack_tcp::Holder;
use hoststack_transport::tuple::{PORT_FIRST, PORTS};
use hoststack_transport::{Endpoint, FlowKey};
use serde::Serialize;

/// Pairs of a local address and a remote endpoint that a worker counts apart.
const REMOTES_MAX: usize = 4096;

/// Who holds 4-tuples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Held {
    /// Connects without an answer.
    pub half_opens: usize,
    /// Connections.
    pub connections: usize,
    /// TIME-WAIT.
    pub time_wait: usize,
}

impl Held {
    /// All.
    pub fn total(&self) -> usize {
        self.half_opens + self.connections + self.time_wait
    }

    fn add(&mut self, holder: Holder) {
        *match holder {
            Holder::HalfOpen => &mut self.half_opens,
            Holder::Connection => &mut self.connections,
            Holder::TimeWait => &mut self.time_wait,
        } += 1;
    }

    fn merge(&mut self, other: Held) {
        let Held { half_opens, connections, time_wait } = other;
        self.half_opens += half_opens;
        self.connections += connections;
        self.time_wait += time_wait;
    }
}

/// 4-tuples of connects.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PortsInfo {
    /// The first ephemeral port.
    pub first: u16,
    /// The last one.
    pub last: u16,
    /// 4-tuples given out.
    pub tuples: usize,
    /// Those that workers hold.
    pub held: Held,
    /// The others: on their way between main and a worker. Workers answer one after the other, so that a few of a busy
    /// stack may be missed.
    pub under_way: usize,
    /// By local address.
    pub locals: Vec<LocalPorts>,
    /// By local address and remote endpoint, the busiest first, as many as the question allows.
    pub remotes: Vec<RemotePorts>,
    /// Flows of remotes that were not counted apart: there are too many of them.
    pub elsewhere: Held,
}

/// A local address's 4-tuples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LocalPorts {
    /// The routing domain.
    pub domain: u16,
    /// The address.
    pub local: IpAddr,
    /// Who holds them.
    #[serde(flatten)]
    pub held: Held,
}

/// 4-tuples from a local address to a remote endpoint: each ephemeral port makes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemotePorts {
    /// The routing domain.
    pub domain: u16,
    /// The local address.
    pub local: IpAddr,
    /// The remote endpoint.
    pub remote: String,
    /// Who holds them.
    #[serde(flatten)]
    pub held: Held,
    /// Share of the ephemeral ports in use, in thousandths, rounded up.
    pub full_permille: u32,
}

/// What a worker counts on its walk.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortCounts {
    locals: BTreeMap<(u16, IpAddr), Held>,
    remotes: BTreeMap<(u16, IpAddr, Endpoint), Held>,
    elsewhere: Held,
}

impl PortCounts {
    pub(crate) fn add(&mut self, flow: &FlowKey, holder: Holder) {
        let (domain, local) = (flow.domain.0, flow.local.addr);
        self.locals.entry((domain, local)).or_default().add(holder);
        self.remote((domain, local, flow.remote)).add(holder);
    }

    fn remote(&mut self, key: (u16, IpAddr, Endpoint)) -> &mut Held {
        if self.remotes.len() >= REMOTES_MAX && !self.remotes.contains_key(&key) {
            return &mut self.elsewhere;
        }
        self.remotes.entry(key).or_default()
    }

    pub(crate) fn merge(&mut self, other: PortCounts) {
        for (key, held) in other.locals {
            self.locals.entry(key).or_default().merge(held);
        }
        for (key, held) in other.remotes {
            self.remote(key).merge(held);
        }
        self.elsewhere.merge(other.elsewhere);
    }

    /// The answer, with the `limit` busiest remotes, where main has given out so many 4-tuples.
    pub(crate) fn into_info(self, tuples: usize, limit: usize) -> PortsInfo {
        let mut held = Held::default();
        for local in self.locals.values() {
            held.merge(*local);
        }
        let locals =
            self.locals.into_iter().map(|((domain, local), held)| LocalPorts { domain, local, held });
        let mut remotes: Vec<_> = self.remotes.into_iter().collect();
        // The order of keys decides between equals, so that the answer is the same each time.
        remotes.sort_by_key(|(_, held)| std::cmp::Reverse(held.total()));
        remotes.truncate(limit);
        let remotes = remotes.into_iter().map(|((domain, local, remote), held)| RemotePorts {
            domain,
            local,
            remote: remote.to_string(),
            held,
            // Cannot cut because a remote's ports are 65536 at most.
            full_permille: (held.total() as u64 * 1000).div_ceil(u64::from(PORTS)) as u32,
        });
        PortsInfo {
            first: PORT_FIRST,
            last: u16::MAX,
            tuples,
            held,
            under_way: tuples.saturating_sub(held.total()),
            locals: locals.collect(),
            remotes: remotes.collect(),
            elsewhere: self.elsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack_transport::{DomainId, Protocol};

    fn flow(port: u16, remote: u32) -> FlowKey {
        FlowKey {
            local: Endpoint::new([10, 0, 0, 1].into(), port),
            remote: Endpoint::new(IpAddr::V4(remote.into()), 80),
            domain: DomainId(0),
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn workers_counts_add_up_and_the_busiest_remote_comes_first() {
        let (mut one, mut two) = (PortCounts::default(), PortCounts::default());
        for port in 0..10 {
            one.add(&flow(2000 + port, 1), Holder::Connection);
            two.add(&flow(3000 + port, 2), Holder::TimeWait);
        }
        two.add(&flow(4000, 2), Holder::HalfOpen);
        one.merge(two);
        let info = one.into_info(25, 1);
        assert_eq!(info.held, Held { half_opens: 1, connections: 10, time_wait: 10 });
        assert_eq!((info.tuples, info.under_way, info.locals.len()), (25, 4, 1));
        let [busiest] = &info.remotes[..] else { panic!("one was asked for") };
        assert_eq!((busiest.remote.as_str(), busiest.held.total()), ("0.0.0.2:80", 11));
        assert_eq!(busiest.full_permille, 1, "11 of 64512, rounded up");
    }

    #[test]
    fn remotes_beyond_the_bound_are_counted_together() {
        let mut counts = PortCounts::default();
        for remote in 0..REMOTES_MAX as u32 + 5 {
            counts.add(&flow(2000, remote), Holder::Connection);
        }
        counts.add(&flow(2001, 0), Holder::Connection);
        let info = counts.into_info(0, 1);
        assert_eq!((info.elsewhere.total(), info.remotes[0].held.total()), (5, 2));
        assert_eq!(info.held.total(), REMOTES_MAX + 6);
    }
}
