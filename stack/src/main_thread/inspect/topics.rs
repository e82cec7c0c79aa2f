//! Answers about the network, ports, channels, memory and configuration, put together of main's and the workers' parts.

use super::super::Main;
use crate::inspect::channels::{ChannelEnd, EndFigures, Thread, join};
use crate::inspect::memory::{MemoryInfo, PoolInfo};
use crate::inspect::network::{
    InterfaceInfo, LISTED_MAX, NeighborInfo, NetworkInfo, Replicas, RouteInfo, WorkerNetwork,
};
use crate::inspect::ports::PortCounts;
use crate::inspect::{Answer, Query, Topic, config};

impl Main {
    /// Fills in what the question is about; `parts` are the workers', by number.
    pub(super) fn complete_topics(&self, what: &Query, parts: Vec<(u8, Topic)>, answer: &mut Answer) {
        match what {
            Query::Network { limit } => {
                let parts = parts.into_iter().filter_map(|(worker, topic)| match topic {
                    Topic::Network(part) => Some((worker, part)),
                    _ => None,
                });
                let parts: Vec<(u8, WorkerNetwork)> = parts.collect();
                answer.network = Some(Box::new(self.network((*limit).min(LISTED_MAX), &parts)));
            }
            Query::Ports { limit } => {
                let mut counts = PortCounts::default();
                for (_, topic) in parts {
                    if let Topic::Ports(part) = topic {
                        counts.merge(part);
                    }
                }
                answer.ports = Some(Box::new(counts.into_info(self.tuples.len(), *limit)));
            }
            Query::Channels => {
                let mut ends = self.channel_ends();
                for (_, topic) in parts {
                    if let Topic::Channels(part) = topic {
                        ends.extend(part);
                    }
                }
                answer.channels = join(ends);
            }
            Query::Memory => {
                let mut pools = self.pools();
                for (_, topic) in parts {
                    if let Topic::Memory(part) = topic {
                        pools.extend(part);
                    }
                }
                answer.memory = Some(Box::new(MemoryInfo::new(pools)));
            }
            Query::Config => answer.config = config::items(&self.config),
            _ => {}
        }
    }

    fn network(&self, limit: usize, parts: &[(u8, WorkerNetwork)]) -> NetworkInfo {
        let interfaces = self.router.interfaces().map(|config| {
            let of_interface = |part: &WorkerNetwork| {
                let queues = part.queues.iter().filter(|(id, _)| *id == config.id);
                queues.map(|(_, queue)| queue.clone()).collect::<Vec<_>>()
            };
            InterfaceInfo {
                interface: config.id.0,
                name: config.name.clone(),
                domain: config.domain,
                link: if config.mac.is_some() { "ethernet" } else { "raw-ip" },
                mac: config.mac.map(|mac| mac.to_string()),
                mtu: config.mtu,
                addresses: config.addresses.iter().map(ToString::to_string).collect(),
                queues: parts.iter().flat_map(|(_, part)| of_interface(part)).collect(),
            }
        });
        let name_of = |id| self.router.interface(id).map(|config| (config.domain, config.name.clone()));
        let routes = self.router.routes().take(limit).map(|(route, is_connected)| RouteInfo {
            domain: route.domain,
            prefix: route.prefix.network().to_string(),
            via: route.via.map(|via| via.to_string()),
            interface: route.interface.0,
            interface_name: name_of(route.interface).map_or_else(String::new, |(_, name)| name),
            is_connected,
            source: self
                .router
                .select_source(route.domain, route.prefix.network().addr(), None)
                .ok()
                .map(|source| source.to_string()),
        });
        let replicas = Replicas::new(parts.iter().map(|(worker, part)| (*worker, part)));
        let now_us = self.now.as_micros();
        let neighbors = self.router.neighbors().take(limit).map(|neighbor| {
            let (waiting, disagreeing) = replicas.look(&neighbor);
            let (domain, interface_name) = name_of(neighbor.next_hop.interface).unwrap_or_default();
            NeighborInfo {
                domain,
                interface: neighbor.next_hop.interface.0,
                interface_name,
                address: neighbor.next_hop.addr.to_string(),
                mac: neighbor.mac.map(|mac| mac.to_string()),
                state: neighbor.state.to_string(),
                age_us: now_us.saturating_sub(neighbor.updated_us),
                waiting,
                disagreeing,
            }
        });
        let path_mtus = parts.iter().flat_map(|(_, part)| part.path_mtus.iter().cloned());
        NetworkInfo {
            interfaces: interfaces.collect(),
            routes: routes.collect(),
            routes_total: self.router.routes().count(),
            neighbors: neighbors.collect(),
            neighbors_total: self.router.neighbors().count(),
            path_mtus: path_mtus.take(limit).collect(),
            ip: parts.iter().map(|(_, part)| part.ip.clone()).collect(),
            pings: self.pings.len(),
        }
    }

    fn channel_ends(&self) -> Vec<ChannelEnd> {
        let waiting = self.requests.len();
        let handled = self.requests_taken;
        let requests = ChannelEnd {
            kind: "requests",
            from: Thread::Handles,
            to: Thread::Main,
            // Nothing waits with the handles: the queue has no bound.
            figures: EndFigures::Sender { sent: handled + waiting as u64, handled, outbox: 0, outbox_max: 0 },
        };
        let commands = (0u8..).zip(&self.commands).map(|(worker, outbox)| ChannelEnd {
            kind: "commands",
            from: Thread::Main,
            to: Thread::Worker(worker),
            figures: EndFigures::of_sender(outbox),
        });
        let reports = (0u8..).zip(&self.reports).map(|(worker, inbox)| ChannelEnd {
            kind: "reports",
            from: Thread::Worker(worker),
            to: Thread::Main,
            figures: EndFigures::of_taker(inbox),
        });
        std::iter::once(requests).chain(commands).chain(reports).collect()
    }

    fn pools(&self) -> Vec<PoolInfo> {
        let mut half_open_sessions = hoststack_transport::Usage::default();
        for (_, record) in self.app_workers.iter() {
            let usage = record.half_opens.usage();
            half_open_sessions.used += usage.used;
            half_open_sessions.element_bytes = usage.element_bytes;
            half_open_sessions.held_bytes += usage.held_bytes;
        }
        let pools = [
            ("half-opens", self.half_opens.usage()),
            ("half-open-sessions", half_open_sessions),
            ("kernel-half-opens", self.kernel.usage()),
            ("tuples", self.tuples.usage()),
            ("apps", self.apps.usage()),
            ("app-workers", self.app_workers.usage()),
            ("listeners", self.listeners.usage()),
            ("wait-timers", self.wait_timers.usage()),
        ];
        let owner = Thread::Main.to_string();
        pools.into_iter().map(|(pool, usage)| PoolInfo::new(&owner, pool, usage)).collect()
    }
}
