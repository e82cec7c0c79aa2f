//! A worker's part of the answers about the network, ports, channels and memory.

use hoststack_transport::Usage;

use super::Worker;
use crate::channel::{Inbox, Outbox};
use crate::inspect::channels::{ChannelEnd, EndFigures, Thread};
use crate::inspect::memory::PoolInfo;
use crate::inspect::network::{IpInfo, LISTED_MAX, PathMtuInfo, QueueInfo, WorkerNetwork};
use crate::inspect::{Query, Topic};

impl Worker {
    /// What is told besides the figures; what it takes a walk to find was found by [`super::Run`].
    pub(super) fn topic(&self, run: &mut super::Run) -> Option<Topic> {
        match run.what {
            Query::Network { limit } => Some(Topic::Network(self.network(limit.min(LISTED_MAX)))),
            Query::Ports { .. } => Some(Topic::Ports(std::mem::take(&mut run.ports))),
            Query::Channels => Some(Topic::Channels(self.channels())),
            Query::Memory => Some(Topic::Memory(self.memory())),
            _ => None,
        }
    }

    fn network(&self, limit: usize) -> WorkerNetwork {
        let queues = self.ports.iter().enumerate().map(|(number, port)| {
            let counters = port.queue.counters().since(&self.baseline.queue(number));
            let waiting = self.path.tx_len(port.interface);
            (port.interface, QueueInfo::new(self.id.0, &counters, waiting))
        });
        let mut neighbors: Vec<_> = self.path.neighbors().take(limit + 1).collect();
        let has_more_neighbors = neighbors.len() > limit;
        neighbors.truncate(limit);
        let path_mtus = self.path.path_mtus(self.now.as_micros()).take(limit);
        let path_mtus = path_mtus.map(|(domain, destination, mtu)| PathMtuInfo {
            worker: self.id.0,
            domain,
            destination: destination.to_string(),
            mtu,
        });
        let counters = self.path.counters().named().into_iter().zip(self.baseline.ip());
        let counters = counters
            .map(|((name, count), then)| (name, count.saturating_sub(then)))
            .filter(|(_, count)| *count > 0);
        WorkerNetwork {
            queues: queues.collect(),
            neighbors,
            has_more_neighbors,
            path_mtus: path_mtus.collect(),
            ip: IpInfo { worker: self.id.0, counters: counters.collect() },
        }
    }

    fn channels(&self) -> Vec<ChannelEnd> {
        let here = Thread::Worker(self.id.0);
        let mut ends = vec![
            taker("commands", Thread::Main, here, &self.commands),
            sender("reports", here, Thread::Main, &self.reports),
        ];
        // The mesh has no channel from a worker to itself: inboxes are in the order of the others.
        let others = (0u8..).filter(|other| *other != self.id.0).map(Thread::Worker);
        ends.extend(
            self.handover_in
                .iter()
                .zip(others.clone())
                .map(|(inbox, from)| taker("handover", from, here, inbox)),
        );
        ends.extend(self.local_in.iter().zip(others).map(|(inbox, from)| taker("local", from, here, inbox)));
        for (to, outbox) in (0u8..).zip(&self.handover_out) {
            ends.extend(outbox.as_ref().map(|outbox| sender("handover", here, Thread::Worker(to), outbox)));
        }
        for (to, outbox) in (0u8..).zip(&self.local_out) {
            ends.extend(outbox.as_ref().map(|outbox| sender("local", here, Thread::Worker(to), outbox)));
        }
        ends
    }

    fn memory(&self) -> Vec<PoolInfo> {
        let owner = Thread::Worker(self.id.0).to_string();
        let free = self.pool.free_len();
        let buffer_bytes = self.pool.buffer_size();
        let free_buffers = Usage {
            used: free,
            high_water: None,
            limit: Some(self.pool.free_max()),
            element_bytes: buffer_bytes,
            held_bytes: free * buffer_bytes,
        };
        let waiting = self.path.waiting_len() + self.parked.len();
        let waiting = Usage {
            used: waiting,
            element_bytes: buffer_bytes,
            held_bytes: waiting * buffer_bytes,
            ..Usage::default()
        };
        let pools = self.sessions.usage().into_iter().chain(self.transports.tcp.usage()).chain([
            ("kernel-connections", self.transports.kernel.usage()),
            ("local-ends", self.transports.local.usage()),
            ("app-timers", self.app_timers.usage()),
            ("connect-timers", self.connect_timers.usage()),
            ("packet-buffers-free", free_buffers),
            ("packet-buffers-waiting", waiting),
        ]);
        pools.map(|(pool, usage)| PoolInfo::new(&owner, pool, usage)).collect()
    }
}

fn sender<T>(kind: &'static str, from: Thread, to: Thread, outbox: &Outbox<T>) -> ChannelEnd {
    ChannelEnd { kind, from, to, figures: EndFigures::of_sender(outbox) }
}

fn taker<T>(kind: &'static str, from: Thread, to: Thread, inbox: &Inbox<T>) -> ChannelEnd {
    ChannelEnd { kind, from, to, figures: EndFigures::of_taker(inbox) }
}
