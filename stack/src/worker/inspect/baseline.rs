//! Counters as they were when someone cleared them. Nothing is set to zero: what is shown is what was counted since.

use hoststack_net::DeviceCounters;

use super::Worker;
use crate::inspect::{Clear, WorkerInfo};

/// What is taken off the counters that are shown.
#[derive(Debug, Default)]
pub(in crate::worker) struct Baseline {
    /// As of the last clearing of counters.
    info: WorkerInfo,
    queues: Vec<DeviceCounters>,
    ip: Vec<u64>,
    /// The drops as of the last clearing of errors.
    errors: WorkerInfo,
}

impl Baseline {
    pub(super) fn queue(&self, number: usize) -> DeviceCounters {
        self.queues.get(number).copied().unwrap_or_default()
    }

    /// One for each counter of the IP path.
    pub(super) fn ip(&self) -> impl Iterator<Item = u64> {
        self.ip.iter().copied().chain(std::iter::repeat(0))
    }

    /// The figures as they are shown: what counts events counts them since, what is held now is as it is.
    pub(super) fn shown(&self, mut info: WorkerInfo) -> WorkerInfo {
        let then = &self.info;
        for (count, then) in [
            (&mut info.steps, then.steps),
            (&mut info.busy_steps, then.busy_steps),
            (&mut info.sleeps, then.sleeps),
            (&mut info.rx_packets, then.rx_packets),
            (&mut info.tx_packets, then.tx_packets),
            (&mut info.handed_over, then.handed_over),
            (&mut info.callbacks, then.callbacks),
            (&mut info.rx_vectors, then.rx_vectors),
            (&mut info.tx_vectors, then.tx_vectors),
            (&mut info.accepts, then.accepts),
            (&mut info.connects, then.connects),
            (&mut info.connect_failures, then.connect_failures),
            (&mut info.ends, then.ends),
            (&mut info.bytes_in, then.bytes_in),
            (&mut info.bytes_out, then.bytes_out),
        ] {
            *count = count.saturating_sub(then);
        }
        for (name, count) in &mut info.tcp {
            let then = then.tcp.iter().find(|(other, _)| other == name);
            *count = count.saturating_sub(then.map_or(0, |(_, count)| *count));
        }
        info.tcp.retain(|(_, count)| *count > 0);
        for drop in &mut info.drops {
            // `not-accepted` is there once for each sentence.
            let is_same = |other: &&crate::inspect::DropInfo| {
                (&other.reason, &other.help) == (&drop.reason, &drop.help)
            };
            let then = self.errors.drops.iter().find(is_same);
            drop.count = drop.count.saturating_sub(then.map_or(0, |then| then.count));
        }
        info.drops.retain(|drop| drop.count > 0);
        info
    }
}

impl Worker {
    /// From now on these are counted from zero, as far as anyone sees.
    pub(in crate::worker) fn clear(&mut self, what: Clear) {
        // Timers are no counters: none need be looked for.
        let info = self.info(0);
        match what {
            Clear::Errors => self.baseline.errors = info,
            Clear::Counters => {
                self.baseline.info = info;
                self.baseline.queues = self.ports.iter().map(|port| port.queue.counters()).collect();
                self.baseline.ip = self.path.counters().named().iter().map(|(_, count)| *count).collect();
            }
        }
    }
}
