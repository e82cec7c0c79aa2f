//! A log-linear histogram of small size, shared as atomics.
//!
//! Values below 32 have a bucket each; above, every power of two is divided in 32, so a percentile is at most 1/32
//! too high and never too low. Values of 2^40 and more share the last bucket.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets per power of two.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 5;
/// Values from here on share the last bucket: 2^40 us are twelve days.
const LIMIT: u64 = 1 << 40;
const BUCKETS: usize = bucket_of(LIMIT - 1) + 1;

/// The bucket of a value below [`LIMIT`].
const fn bucket_of(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = value.ilog2() - STEP_BITS;
    // The top STEP_BITS + 1 bits of the value lie in STEPS..2 * STEPS; one STEPS-wide run per shift.
    ((shift as u64) * STEPS + (value >> shift)) as usize
}

/// The highest value of a bucket.
const fn highest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let top = bucket - shift * STEPS;
    ((top + 1) << shift) - 1
}

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

    /// The value that `share` (0 to 1) of all values do not exceed, at most 1/32 too high; 0 if none was counted.
    pub fn percentile(&self, share: f64) -> u64 {
        let count = self.count();
        if count == 0 {
            return 0;
        }
        // The product is between 0 and `count`, so the conversion cannot be out of range.
        let rank = ((share.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, counted) in self.buckets.iter().enumerate() {
            seen += counted.load(Ordering::Relaxed);
            if seen >= rank {
                // The last bucket has no upper end.
                return if bucket + 1 == BUCKETS { self.max() } else { highest_of(bucket).min(self.max()) };
            }
        }
        self.max()
    }

    /// The figures that are usually printed.
    pub fn summary(&self) -> HistogramSummary {
        HistogramSummary {
            count: self.count(),
            p50: self.percentile(0.50),
            p99: self.percentile(0.99),
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
    use proptest::prelude::*;

    #[test]
    fn buckets_are_contiguous_and_hold_their_highest_value() {
        for bucket in 0..BUCKETS {
            let highest = highest_of(bucket);
            assert_eq!(bucket_of(highest), bucket);
            if bucket + 1 < BUCKETS {
                assert_eq!(bucket_of(highest + 1), bucket + 1);
            }
        }
        assert_eq!(highest_of(BUCKETS - 1), LIMIT - 1);
    }

    #[test]
    fn an_empty_histogram_says_zero() {
        assert_eq!(Histogram::new().summary(), HistogramSummary::default());
    }

    #[test]
    fn a_value_beyond_the_limit_is_reported_as_the_maximum() {
        let histogram = Histogram::new();
        histogram.record(LIMIT * 8);
        assert_eq!(histogram.percentile(0.5), LIMIT * 8);
    }

    #[test]
    fn merge_adds_counts_and_keeps_the_larger_maximum() {
        let (a, b) = (Histogram::new(), Histogram::new());
        a.record(10);
        b.record(1000);
        a.merge(&b);
        assert_eq!(a.summary(), HistogramSummary { count: 2, p50: 10, p99: 1000, max: 1000 });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn percentiles_are_at_most_a_thirty_second_too_high(
            mut values in prop::collection::vec(0u64..10_000_000, 1..500),
            share in 0.0f64..=1.0,
        ) {
            let histogram = Histogram::new();
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            let rank = ((share * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let told = histogram.percentile(share);
            prop_assert!(told >= exact, "{told} < {exact}");
            prop_assert!(told <= exact + exact / 32, "{told} > {exact} + 1/32");
            prop_assert_eq!(histogram.max(), *values.last().unwrap());
        }
    }
}
