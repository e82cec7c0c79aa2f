//! Commands about how long things take, and how transports and their congestion stand.

use hoststack::Query;
use hoststack::inspect::{BucketInfo, CongestionInfo, HistogramInfo, HistogramKind, TransportInfo};

use super::{Shown, Spec, shown};
use crate::ctl::console::Output;
use crate::ctl::show::congestion::Congestion;
use crate::ctl::show::histograms::Histograms;
use crate::ctl::show::transports::Transports;

/// The names of [`HistogramKind::ALL`], as a pattern has them: a test holds that.
const KINDS: &str = "connect-latency|connect-failure|rtt|step|main-step|rx-vector|tx-vector";

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "show histogram [connect-latency|connect-failure|rtt|step|main-step|rx-vector|tx-vector]",
        help: "how long connects, round trips and steps take, how many packets pass at a time; of one, its spread too",
        details: "`rtt` is of this stack's own TCP: sockets of the host do not tell theirs. Percentiles are at most 1/32 too high. `buckets` in JSON have the same bounds in every answer, so that those of \
                  several stacks can be added up: `count` is how many values are below `below`.",
        options: &[(KINDS, "only this one, with how its values are spread")],
        run: |console, matched| {
            let kind = HistogramKind::ALL.into_iter().find(|kind| matched.has(kind.name()));
            let histograms = console.ask(Query::Histograms)?.histograms;
            Output::one(histogram(Histograms::of(histograms, kind.map(HistogramKind::name))))
        },
        sample: || Box::new(histogram(Histograms { histograms: vec![sample_histogram()] })),
        ..Spec::BASE
    },
    Spec {
        pattern: "show congestion",
        help: "how TCP's connections stand with congestion, by algorithm",
        details: "`slow start`, `avoidance`, `recovery` and `loss` count connections by what they are in, `paced` those that are paced, \
                  at `mean rate`. `in flight` are the bytes of all that are not acknowledged.",
        run: |console, _| {
            Output::one(congestion(Congestion { congestion: console.ask(Query::Congestion)?.congestion }))
        },
        sample: || {
            let cubic = CongestionInfo {
                algorithm: "cubic",
                connections: 1200,
                slow_start: 1150,
                avoidance: 48,
                fast_recovery: 2,
                cwnd_mean: 14_480,
                cwnd_max: 65_160,
                flight: 120_000,
                measured: 1198,
                srtt_mean_us: 850,
                srtt_max_us: 21_000,
                ..CongestionInfo::default()
            };
            Box::new(congestion(Congestion { congestion: vec![cubic] }))
        },
        ..Spec::BASE
    },
    Spec {
        pattern: "show transport",
        help: "what each transport holds, with its limits, and did so far",
        details: "`limit` is the most of what stands before it; `-`, or null in JSON: the transport knows none. `retransmitted` and \
                  `segments` are what was sent again, `drops` the segments that were received and dropped.",
        run: |console, _| {
            Output::one(transport(Transports { transports: console.ask(Query::Transports)?.transports }))
        },
        sample: || {
            let tcp = TransportInfo {
                transport: "tcp",
                connections: 1200,
                connections_max: 1 << 20,
                half_opens_max: Some(1 << 20),
                connected: 1300,
                closed: 100,
                bytes_in: 1_500_000,
                bytes_out: 2_000_000,
                retransmitted_segments: 7,
                retransmitted_bytes: 9000,
                ..TransportInfo::default()
            };
            Box::new(transport(Transports { transports: vec![tcp] }))
        },
        ..Spec::BASE
    },
];

fn histogram(histograms: Histograms) -> Shown<Histograms> {
    shown(histograms, Histograms::text)
}

fn congestion(congestion: Congestion) -> Shown<Congestion> {
    shown(congestion, Congestion::text)
}

fn transport(transports: Transports) -> Shown<Transports> {
    shown(transports, Transports::text)
}

/// A histogram with a few buckets.
pub(super) fn sample_histogram() -> HistogramInfo {
    let bucket = |below, count| BucketInfo { below, count };
    HistogramInfo {
        name: "rtt",
        worker: Some(0),
        unit: "us",
        count: 100,
        sum: 250_000,
        max: 40_000,
        p50: 1100,
        p90: 1900,
        p99: 39_000,
        p999: 40_000,
        buckets: vec![bucket(1024, 0), bucket(2048, 80), bucket(4096, 96)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_histogram_can_be_named() {
        let names: Vec<&str> = HistogramKind::ALL.into_iter().map(HistogramKind::name).collect();
        assert_eq!(KINDS.split('|').collect::<Vec<_>>(), names);
        assert!(COMMANDS[0].pattern.ends_with(&format!("[{KINDS}]")));
    }
}
