//! Log-linear histograms: what latencies are counted in.
//!
//! Values below 32 have a bucket each; above, every power of two is divided in 32, so a percentile is at most 1/32
//! too high and never too low. [`Histogram`] has one owner; whoever needs one that threads share keeps counts of its own
//! in the same buckets ([`bucket_of`], [`highest_of`], [`percentile_in`]).

use alloc::boxed::Box;
use alloc::vec;

/// Buckets per power of two.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 5;

/// The bucket of a value.
#[inline]
#[must_use]
pub const fn bucket_of(value: u64) -> usize {
    if value < STEPS {
        return value as usize; // below 32
    }
    let shift = value.ilog2() - STEP_BITS;
    // The top STEP_BITS + 1 bits of the value lie in STEPS..2 * STEPS; one STEPS-wide run per shift. Below 60 * 32.
    ((shift as u64) * STEPS + (value >> shift)) as usize
}

/// The highest value of a bucket.
#[must_use]
pub const fn highest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let top = bucket - shift * STEPS;
    // In this order it fits also for the last bucket of all.
    (top << shift) + ((1 << shift) - 1)
}

/// How many buckets values below `limit` need.
#[must_use]
pub const fn buckets_below(limit: u64) -> usize {
    if limit == 0 { 1 } else { bucket_of(limit - 1) + 1 }
}

/// The value that `per_mille` thousandths of all counted values do not exceed, at most 1/32 too high; 0 if none was
/// counted. The last bucket of `counts` has no upper end: there it is `max`, the largest value.
#[must_use]
pub fn percentile_in(counts: impl ExactSizeIterator<Item = u64> + Clone, max: u64, per_mille: u32) -> u64 {
    let count: u64 = counts.clone().sum();
    if count == 0 {
        return 0;
    }
    // At most `count`, so it fits.
    let rank = (u128::from(count) * u128::from(per_mille.min(1000))).div_ceil(1000).max(1) as u64;
    let last = counts.len() - 1;
    let mut seen = 0;
    for (bucket, counted) in counts.enumerate() {
        seen += counted;
        if seen >= rank {
            return if bucket == last { max } else { highest_of(bucket).min(max) };
        }
    }
    max
}

/// Counts of values, of one owner. Recording allocates nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64]>,
    sum: u64,
    max: u64,
}

impl Histogram {
    /// An empty histogram that tells values below `limit` apart; larger ones share one more bucket, the last. It takes 256
    /// bytes per power of two above 32.
    #[must_use]
    pub fn below(limit: u64) -> Histogram {
        Histogram { counts: vec![0; buckets_below(limit) + 1].into_boxed_slice(), sum: 0, max: 0 }
    }

    /// Counts `value`.
    #[inline]
    pub fn record(&mut self, value: u64) {
        let last = self.counts.len() - 1;
        self.counts[bucket_of(value).min(last)] += 1;
        self.sum = self.sum.wrapping_add(value);
        self.max = self.max.max(value);
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Histogram) {
        let last = self.counts.len() - 1;
        for (bucket, count) in other.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.counts[bucket.min(last)] += count;
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// Values counted. Walks all buckets.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values counted, modulo 2^64.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest value counted, exactly; 0 if none was.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// See [`percentile_in`].
    #[must_use]
    pub fn percentile(&self, per_mille: u32) -> u64 {
        percentile_in(self.counts.iter().copied(), self.max, per_mille)
    }

    /// For each bound 2^k with k in `powers`, 2^63 at most, how many values are below it: exact up to the limit that the
    /// histogram was made with, for such bounds lie between buckets. Beyond it, values above the limit are left out until
    /// the bound is above all of them.
    pub fn below_powers(
        &self,
        powers: core::ops::RangeInclusive<u32>,
    ) -> impl Iterator<Item = (u64, u64)> + '_ {
        let (mut bucket, mut seen) = (0, 0);
        powers.map(move |power| {
            let bound = 1u64 << power.min(63);
            let all = self.counts.len();
            let end = if bound > self.max { all } else { buckets_below(bound).min(all - 1) };
            seen += self.counts[bucket.min(end)..end].iter().sum::<u64>();
            bucket = end;
            (bound, seen)
        })
    }
}

impl core::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50", &self.percentile(500))
            .field("p99", &self.percentile(990))
            .field("max", &self.max)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn buckets_are_contiguous_and_hold_their_highest_value() {
        let last = bucket_of(u64::MAX);
        for bucket in 0..=last {
            let highest = highest_of(bucket);
            assert_eq!(bucket_of(highest), bucket);
            if bucket < last {
                assert_eq!(bucket_of(highest + 1), bucket + 1);
            }
        }
        assert_eq!(highest_of(last), u64::MAX);
    }

    #[test]
    fn an_empty_histogram_says_zero() {
        let histogram = Histogram::below(1 << 20);
        assert_eq!((histogram.count(), histogram.sum(), histogram.max()), (0, 0, 0));
        assert_eq!((histogram.percentile(500), histogram.percentile(1000)), (0, 0));
    }

    #[test]
    fn a_value_beyond_the_limit_is_reported_as_the_maximum() {
        let mut histogram = Histogram::below(100);
        histogram.record(1_000_000);
        assert_eq!((histogram.percentile(500), histogram.sum()), (1_000_000, 1_000_000));
    }

    #[test]
    fn merge_adds_counts_of_histograms_of_different_limits() {
        let (mut small, mut large) = (Histogram::below(100), Histogram::below(1 << 30));
        small.record(10);
        large.record(12);
        large.record(70_000);
        small.merge(&large);
        assert_eq!((small.count(), small.sum(), small.max()), (3, 70_022, 70_000));
        assert_eq!((small.percentile(333), small.percentile(666), small.percentile(1000)), (10, 12, 70_000));
    }

    #[test]
    fn bounds_count_what_is_below_them() {
        let mut histogram = Histogram::below(1 << 10);
        [0, 1, 2, 3, 4, 255, 256, 1023, 5000].iter().for_each(|&value| histogram.record(value));
        let bounds: Vec<_> = histogram.below_powers(0..=13).collect();
        let counts: Vec<u64> = bounds.iter().map(|(_, count)| *count).collect();
        assert_eq!((bounds[0].0, bounds[11].0), (1, 2048));
        assert_eq!(counts, [1, 2, 4, 5, 5, 5, 5, 5, 6, 7, 8, 8, 8, 9]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn percentiles_are_at_most_a_thirty_second_too_high(
            mut values in prop::collection::vec(0u64..10_000_000, 1..500),
            per_mille in 0u32..=1000,
        ) {
            let mut histogram = Histogram::below(1 << 24);
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            let rank = (values.len() * per_mille as usize).div_ceil(1000).max(1);
            let exact = values[rank - 1];
            let told = histogram.percentile(per_mille);
            prop_assert!(told >= exact, "{told} < {exact}");
            prop_assert!(told <= exact + exact / 32, "{told} > {exact} + 1/32");
            prop_assert_eq!(histogram.max(), *values.last().unwrap());
            prop_assert_eq!(histogram.count(), values.len() as u64);
            for (bound, below) in histogram.below_powers(0..=25) {
                prop_assert_eq!(below, values.iter().filter(|value| **value < bound).count() as u64);
            }
        }
    }
}
