//! A histogram that threads share: the buckets of [`hoststack_app::histogram`], as atomics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use hoststack_app::histogram::{bucket_of, buckets_below, percentile_in};

/// Values from here on share the last bucket: 2^40 us are twelve days.
const LIMIT: u64 = 1 << 40;
const BUCKETS: usize = buckets_below(LIMIT);

/// Counts of values; any thread may record and any may read.
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), max: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Histogram {
        Histogram::default()
    }

    /// Counts `value`.
    pub fn record(&self, value: u64) {
        self.buckets[bucket_of(value.min(LIMIT - 1))].fetch_add(1, Ordering::Relaxed);
        if value > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(value, Ordering::Relaxed);
        }
    }

    /// Adds all that `other` counted.
    pub fn merge(&self, other: &Histogram) {
        for (into, from) in self.buckets.iter().zip(&other.buckets) {
            let count = from.load(Ordering::Relaxed);
            if count > 0 {
                into.fetch_add(count, Ordering::Relaxed);
            }
        }
        self.max.fetch_max(other.max.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The largest value counted, exactly; 0 if none was.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// The value that `per_mille` thousandths of all values do not exceed, at most 1/32 too high; 0 if none was counted.
    pub fn percentile(&self, per_mille: u32) -> u64 {
        // Read once: others may count meanwhile.
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        percentile_in(counts.iter().copied(), self.max(), per_mille)
    }

    /// The figures that are usually printed.
    pub fn summary(&self) -> HistogramSummary {
        HistogramSummary {
            count: self.count(),
            p50: self.percentile(500),
            p99: self.percentile(990),
            max: self.max(),
        }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.summary(), f)
    }
}

/// A histogram in four numbers, in its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramSummary {
    /// Values counted.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest.
    pub max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_histogram_says_zero() {
        assert_eq!(Histogram::new().summary(), HistogramSummary::default());
    }

    #[test]
    fn a_value_beyond_the_limit_is_reported_as_the_maximum() {
        let histogram = Histogram::new();
        histogram.record(LIMIT * 8);
        assert_eq!(histogram.percentile(500), LIMIT * 8);
    }

    #[test]
    fn merge_adds_counts_and_keeps_the_larger_maximum() {
        let (a, b) = (Histogram::new(), Histogram::new());
        a.record(10);
        b.record(1000);
        a.merge(&b);
        assert_eq!(a.summary(), HistogramSummary { count: 2, p50: 10, p99: 1000, max: 1000 });
    }

    #[test]
    fn percentiles_are_those_of_a_histogram_of_one_owner() {
        let (shared, mut owned) = (Histogram::new(), hoststack_app::histogram::Histogram::below(LIMIT));
        for value in (0..10_000u64).map(|n| n * n * 17) {
            shared.record(value);
            owned.record(value);
        }
        for per_mille in [0, 1, 500, 900, 990, 999, 1000] {
            assert_eq!(shared.percentile(per_mille), owned.percentile(per_mille));
        }
        assert_eq!((shared.count(), shared.max()), (owned.count(), owned.max()));
    }
}
