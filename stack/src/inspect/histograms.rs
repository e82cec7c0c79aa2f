//! Histograms: how long connects, round trips and steps take, and how many packets come and go at a time.

use hoststack_transport::Histogram;
use serde::Serialize;

/// What is counted in histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HistogramKind {
    /// From a connect request to its success being told.
    ConnectLatency,
    /// From a connect request to its failure being told, whatever the failure.
    ConnectFailure,
    /// Round trips that the stack's own TCP measured (RFC 6298): each sample of each connection. Sockets of the host do not
    /// tell theirs.
    Rtt,
    /// Steps of workers that did something. Empty in stacks that are stepped by their owner.
    Step,
    /// Steps of main that did something.
    MainStep,
    /// Packets that a device handed over at a time.
    RxVector,
    /// Packets that a device took at a time.
    TxVector,
}

impl HistogramKind {
    /// All, in the order in which they are shown.
    pub const ALL: [HistogramKind; 7] = [
        HistogramKind::ConnectLatency,
        HistogramKind::ConnectFailure,
        HistogramKind::Rtt,
        HistogramKind::Step,
        HistogramKind::MainStep,
        HistogramKind::RxVector,
        HistogramKind::TxVector,
    ];

    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            HistogramKind::ConnectLatency => "connect-latency",
            HistogramKind::ConnectFailure => "connect-failure",
            HistogramKind::Rtt => "rtt",
            HistogramKind::Step => "step",
            HistogramKind::MainStep => "main-step",
            HistogramKind::RxVector => "rx-vector",
            HistogramKind::TxVector => "tx-vector",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<HistogramKind> {
        HistogramKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What its values count: `us` or `packets`.
    pub const fn unit(self) -> &'static str {
        match self {
            HistogramKind::RxVector | HistogramKind::TxVector => "packets",
            _ => "us",
        }
    }

    /// What it counts, in a sentence.
    pub const fn help(self) -> &'static str {
        match self {
            HistogramKind::ConnectLatency => "From a connect request to its success being told.",
            HistogramKind::ConnectFailure => "From a connect request to its failure being told.",
            HistogramKind::Rtt => "Round trips that TCP measured.",
            HistogramKind::Step => "Steps of workers that did something.",
            HistogramKind::MainStep => "Steps of main that did something.",
            HistogramKind::RxVector => "Packets that a device handed over at a time.",
            HistogramKind::TxVector => "Packets that a device took at a time.",
        }
    }

    /// The powers of two that bound its exported buckets: the same for all stacks, so that they can be added up.
    const fn powers(self) -> core::ops::RangeInclusive<u32> {
        match self {
            HistogramKind::RxVector | HistogramKind::TxVector => 1..=9,
            // 8 us to 67 s.
            _ => 3..=26,
        }
    }
}

/// A histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HistogramInfo {
    /// Its kind, by its stable name.
    pub name: &'static str,
    /// The worker that it is of; `None`: all workers together (`main-step`: main).
    pub worker: Option<u8>,
    /// What its values count: `us` or `packets`.
    pub unit: &'static str,
    /// Values counted.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The largest.
    pub max: u64,
    /// The value that half of them do not exceed: like all percentiles at most 1/32 too high, and never too low.
    pub p50: u64,
    /// The value that nine in ten do not exceed.
    pub p90: u64,
    /// The value that 99 in 100 do not exceed.
    pub p99: u64,
    /// The value that 999 in 1000 do not exceed.
    pub p999: u64,
    /// For export: fixed bounds, ascending, the same in every answer. A last bucket, of all values, is left out: that is
    /// `count`.
    pub buckets: Vec<BucketInfo>,
}

/// A bucket of a histogram, for export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BucketInfo {
    /// Its bound, a power of two, in the histogram's unit.
    pub below: u64,
    /// Values that are below it, those of the buckets before included. Exact.
    pub count: u64,
}

impl HistogramInfo {
    /// What is told of a histogram.
    pub fn of(kind: HistogramKind, worker: Option<u8>, histogram: &Histogram) -> HistogramInfo {
        let buckets = histogram.below_powers(kind.powers());
        HistogramInfo {
            name: kind.name(),
            worker,
            unit: kind.unit(),
            count: histogram.count(),
            sum: histogram.sum(),
            max: histogram.max(),
            p50: histogram.percentile(500),
            p90: histogram.percentile(900),
            p99: histogram.percentile(990),
            p999: histogram.percentile(999),
            buckets: buckets.map(|(below, count)| BucketInfo { below, count }).collect(),
        }
    }

    /// The mean; 0 if nothing was counted.
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }

    /// For each kind the histogram of all workers, then those of each worker.
    pub(crate) fn all(of_workers: &[(u8, HistogramKind, Histogram)]) -> Vec<HistogramInfo> {
        let mut infos = Vec::new();
        for kind in HistogramKind::ALL {
            let mut of_kind = of_workers.iter().filter(|(_, other, _)| *other == kind);
            let Some((_, _, first)) = of_kind.clone().next() else { continue };
            let mut merged = first.clone();
            of_kind.clone().skip(1).for_each(|(_, _, histogram)| merged.merge(histogram));
            infos.push(HistogramInfo::of(kind, None, &merged));
            infos.extend(
                of_kind
                    .by_ref()
                    .map(|(worker, _, histogram)| HistogramInfo::of(kind, Some(*worker), histogram)),
            );
        }
        infos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::below(1 << 26);
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in HistogramKind::ALL {
            assert_eq!(HistogramKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(HistogramKind::from_name("rtts"), None);
    }

    #[test]
    fn workers_are_merged_and_stand_behind_their_sum() {
        let kind = HistogramKind::Rtt;
        let parts = [
            (0, kind, histogram(&[10, 20])),
            (1, HistogramKind::Step, histogram(&[1])),
            (1, kind, histogram(&[30, 5_000_000])),
        ];
        let infos = HistogramInfo::all(&parts);
        let heads: Vec<_> = infos.iter().map(|info| (info.name, info.worker, info.count, info.sum)).collect();
        let expected = [
            ("rtt", None, 4, 5_000_060),
            ("rtt", Some(0), 2, 30),
            ("rtt", Some(1), 2, 5_000_030),
            ("step", None, 1, 1),
            ("step", Some(1), 1, 1),
        ];
        assert_eq!(heads, expected);
        assert_eq!((infos[0].p50, infos[0].max, infos[0].mean()), (20, 5_000_000, 1_250_015));
        let bounds: Vec<u64> = infos[0].buckets.iter().map(|bucket| bucket.below).collect();
        assert_eq!((bounds[0], bounds[bounds.len() - 1]), (8, 1 << 26));
        let count_below = |bound| infos[0].buckets.iter().find(|bucket| bucket.below == bound).unwrap().count;
        assert_eq!([8, 16, 32, 1 << 22, 1 << 23].map(count_below), [0, 1, 3, 3, 4]);
    }
}
