//! What a worker counts for people besides its packets, and what it tells of it.

use hoststack_transport::{Histogram, Protocol};

use super::super::Worker;
use crate::inspect::{DropInfo, HistogramKind, PaceInfo, Query, TransportInfo, WorkerFigures, WorkerInfo};
use crate::measure::Pace;

/// The stages of a worker's step.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) enum Stage {
    Commands,
    Receive,
    TcpInput,
    Kernel,
    Local,
    Timers,
    AppEvents,
    Requests,
    Detach,
    Endings,
    Transmit,
    Inspect,
    Flush,
}

/// Their names, in order.
const STAGES: [&str; 13] = [
    "commands",
    "receive",
    "tcp-input",
    "kernel",
    "local",
    "timers",
    "app-events",
    "requests",
    "detach",
    "endings",
    "transmit",
    "inspect",
    "flush",
];

/// What a worker measures. Recording allocates nothing.
pub(in crate::worker) struct Measured {
    pub(in crate::worker) pace: Pace<{ STAGES.len() }>,
    /// From connect requests to their successes, in microseconds.
    pub(in crate::worker) connect_latency: Histogram,
    /// From connect requests to their failures, in microseconds.
    pub(in crate::worker) connect_failure: Histogram,
    /// Packets of each receive of a device that had some.
    pub(in crate::worker) rx_vectors: Histogram,
    /// Packets of each transmit that a device took some of.
    pub(in crate::worker) tx_vectors: Histogram,
    /// Sessions announced as accepted.
    pub(in crate::worker) accepts: u64,
    /// Sessions announced as connected.
    pub(in crate::worker) connects: u64,
    /// Connects whose failure was told.
    pub(in crate::worker) connect_failures: u64,
    /// Announced sessions that ended.
    pub(in crate::worker) ends: u64,
}

impl Measured {
    pub(in crate::worker) fn new() -> Measured {
        // A minute of connecting, 1024 packets: what is longer shares a bucket. 20 KiB, that of steps included.
        Measured {
            pace: Pace::new(),
            connect_latency: Histogram::below(1 << 26),
            connect_failure: Histogram::below(1 << 26),
            rx_vectors: Histogram::below(1 << 10),
            tx_vectors: Histogram::below(1 << 10),
            accepts: 0,
            connects: 0,
            connect_failures: 0,
            ends: 0,
        }
    }
}

/// Drop reasons that are the worker's own: name and meaning.
const OWN_DROPS: [(&str, &str); 3] = [
    ("handover-ring-full", "A packet for another worker found its ring full."),
    (
        "handover-parked-full",
        "A segment of a flow that main is handing over found the worker's waiting room full; the peer sends it again.",
    ),
    ("device-stuck", "A device took no packet for too long; what waited for it was dropped."),
];

/// Every drop reason that has a name of its own, with a count of zero: what [`WorkerInfo::drops`] leaves out. Devices
/// (`device-...`) and `not-accepted` have more.
pub fn drop_reasons() -> Vec<DropInfo> {
    let path = hoststack_net::DropCounters::default();
    let tcp = hoststack_tcp::DropCounters::default();
    let of = |reason: &str, help: &str| DropInfo { reason: reason.into(), count: 0, help: help.into() };
    let path = path.iter().map(|(reason, _)| of(reason.name(), reason.help()));
    let tcp = tcp.iter().map(|(reason, _)| of(reason.name(), reason.help()));
    path.chain(tcp).chain(OWN_DROPS.map(|(reason, help)| of(reason, help))).collect()
}

impl Worker {
    /// One stage of a step, and how long it took, in steps that are measured.
    #[inline]
    pub(in crate::worker) fn stage(&mut self, stage: Stage, run: impl FnOnce(&mut Worker) -> bool) -> bool {
        let worked = run(self);
        self.measured.pace.stages.passed(stage as usize);
        worked
    }

    /// What was dropped, by reason; what never was is left out.
    pub(super) fn drops(&self) -> Vec<DropInfo> {
        let mut drops: Vec<DropInfo> = Vec::new();
        let mut add = |reason: &str, count: u64, help: &str| {
            if count > 0 {
                drops.push(DropInfo { reason: reason.into(), count, help: help.into() });
            }
        };
        for (reason, count) in self.path.drops().iter() {
            add(reason.name(), count, reason.help());
        }
        for (reason, count) in self.transports.tcp.drop_counters().iter() {
            add(reason.name(), count, reason.help());
        }
        let own = [self.figures.handover_dropped, self.figures.parked_dropped, self.figures.device_stuck];
        for ((reason, help), count) in OWN_DROPS.into_iter().zip(own) {
            add(reason, count, help);
        }
        for (failure, count) in &self.not_accepted {
            add("not-accepted", *count, &failure.to_string());
        }
        for port in &self.ports {
            for (name, count) in port.queue.counters().drops() {
                add(&format!("device-{name}"), count, "A device or its wire dropped the packet.");
            }
        }
        drops
    }

    /// Fills in what was measured.
    pub(super) fn measured_info(&self, info: &mut WorkerInfo) {
        info.rx_vectors = self.measured.rx_vectors.count();
        info.tx_vectors = self.measured.tx_vectors.count();
        info.accepts = self.measured.accepts;
        info.connects = self.measured.connects;
        info.connect_failures = self.measured.connect_failures;
        info.ends = self.measured.ends;
        for transport in self.transport_infos() {
            info.bytes_in += transport.bytes_in;
            info.bytes_out += transport.bytes_out;
        }
        info.pace = PaceInfo::of(&self.measured.pace, self.now, &STAGES);
    }

    /// What main puts together for the question, of which this is the last slice.
    pub(super) fn last_figures(&self, what: &Query, figures: &mut WorkerFigures) {
        let sessions =
            self.apps.iter().flatten().map(|slot| (slot.id, self.sessions.app_worker_sessions(slot.id)));
        figures.app_sessions = sessions.filter(|(_, count)| *count > 0).collect();
        match what {
            Query::Histograms | Query::Totals => {
                let of = |kind, histogram: &Histogram| (kind, histogram.clone());
                figures.histograms = vec![
                    of(HistogramKind::ConnectLatency, &self.measured.connect_latency),
                    of(HistogramKind::ConnectFailure, &self.measured.connect_failure),
                    of(HistogramKind::Rtt, self.transports.tcp.round_trips()),
                    of(HistogramKind::Step, &self.measured.pace.steps),
                    of(HistogramKind::RxVector, &self.measured.rx_vectors),
                    of(HistogramKind::TxVector, &self.measured.tx_vectors),
                ];
            }
            Query::Transports => figures.transports = self.transport_infos().into(),
            _ => {}
        }
    }

    /// Counts TCP's connections in some slots by algorithm: a slice of a walk.
    pub(super) fn congestion_slice(&self, slots: core::ops::Range<u32>, figures: &mut WorkerFigures) {
        for state in slots.filter_map(|slot| self.transports.tcp.congestion_at_slot(slot)) {
            figures.congestion.add(&state);
        }
    }

    /// This worker's part of each transport.
    fn transport_infos(&self) -> [TransportInfo; 4] {
        let tcp = self.transports.tcp.counters();
        let of_tcp = TransportInfo {
            transport: Protocol::Tcp.name(),
            connections: self.transports.tcp.connections_len() as u64, // widens, as all below
            connected: tcp.established_active,
            accepted: tcp.established_passive,
            closed: tcp.closed,
            failed: tcp.failed,
            bytes_in: tcp.bytes_in,
            bytes_out: tcp.bytes_out,
            retransmitted_segments: tcp.retransmitted_segments,
            retransmitted_bytes: tcp.retransmitted_bytes,
            drops: self.transports.tcp.drop_counters().iter().map(|(_, count)| count).sum(),
            ..TransportInfo::default()
        };
        let of_sockets = |protocol: Protocol| {
            let sockets = self.transports.kernel.socket_counters(protocol);
            TransportInfo {
                transport: protocol.name(),
                connections: sockets.established + sockets.accepted - sockets.closed,
                connected: sockets.established,
                accepted: sockets.accepted,
                closed: sockets.closed,
                failed: sockets.failed,
                bytes_in: sockets.bytes_in,
                bytes_out: sockets.bytes_out,
                ..TransportInfo::default()
            }
        };
        let local = self.transports.local.counters();
        let of_local = TransportInfo {
            transport: Protocol::Local.name(),
            connections: self.transports.local.len() as u64,
            connected: local.opened,
            accepted: local.accepted,
            closed: local.closed,
            failed: local.failed,
            bytes_in: local.bytes,
            bytes_out: local.bytes_out,
            ..TransportInfo::default()
        };
        [of_tcp, of_sockets(Protocol::KernelTcp), of_sockets(Protocol::KernelUnix), of_local]
    }
}
