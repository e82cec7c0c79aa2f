//! A latency histogram: log-linear buckets, fixed memory, recording without allocation.

/// Sub-buckets per power of two, as a power of two: 32, so a value is known to within 1/32 (3.1 %).
const SUB_BITS: u32 = 5;
const SUB: usize = 1 << SUB_BITS;
/// Values below `SUB` have a bucket each; every further power of two up to 2^63 has `SUB` of them.
const BUCKETS: usize = SUB + (64 - SUB_BITS as usize) * SUB;

/// Counts of durations in nanoseconds, each known to within 3.1 %; the maximum and the sum are exact.
#[derive(Clone, Debug)]
pub struct LatencyHistogram {
    counts: Box<[u64]>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl LatencyHistogram {
    /// An empty histogram; the only allocation it makes (15 KiB).
    pub fn new() -> Self {
        LatencyHistogram { counts: vec![0; BUCKETS].into_boxed_slice(), count: 0, sum: 0, max: 0 }
    }

    /// Counts one duration.
    pub fn record(&mut self, nanos: u64) {
        self.counts[bucket_of(nanos)] += 1;
        self.count += 1;
        self.sum += u128::from(nanos);
        self.max = self.max.max(nanos);
    }

    /// Adds everything that `other` counted.
    pub fn merge(&mut self, other: &LatencyHistogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// Durations counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The smallest recorded value that at least `fraction` (0 to 1) of the durations do not exceed, rounded up to
    /// its bucket's end and never above the maximum; 0 when empty.
    pub fn quantile(&self, fraction: f64) -> u64 {
        if self.count == 0 {
            return 0;
        }
        // The cast saturates, and the clamp keeps the rank within what was counted.
        let rank = ((fraction * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut seen = 0;
        for (index, &count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return bucket_end(index).min(self.max);
            }
        }
        self.max
    }

    /// The median, nanoseconds.
    pub fn p50(&self) -> u64 {
        self.quantile(0.50)
    }

    /// The 99th percentile, nanoseconds.
    pub fn p99(&self) -> u64 {
        self.quantile(0.99)
    }

    /// The longest duration, nanoseconds, exact.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The mean, nanoseconds; 0 when empty.
    pub fn mean(&self) -> f64 {
        crate::work::per(self.sum as f64, self.count as f64)
    }
}

/// The bucket that holds `value`.
fn bucket_of(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize; // below SUB, so it fits
    }
    let exponent = 63 - value.leading_zeros(); // >= SUB_BITS here
    let shift = exponent - SUB_BITS;
    let sub = ((value >> shift) as usize) & (SUB - 1); // the SUB_BITS bits below the leading one
    SUB + shift as usize * SUB + sub
}

/// The largest value that falls into bucket `index`.
fn bucket_end(index: usize) -> u64 {
    if index < SUB {
        return index as u64;
    }
    let shift = (index - SUB) / SUB;
    let sub = (index - SUB) % SUB;
    let first = ((SUB + sub) as u64) << shift;
    first + ((1u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_each_ends_where_the_next_begins() {
        for index in 0..BUCKETS - 1 {
            assert_eq!(bucket_of(bucket_end(index)), index);
            assert_eq!(bucket_of(bucket_end(index) + 1), index + 1);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_end(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn quantiles_are_within_a_thirty_second_of_the_sorted_values() {
        let mut histogram = LatencyHistogram::new();
        let mut values: Vec<u64> = (0..10_000u64).map(|i| (i * 7_919) % 1_000_003).collect();
        values.iter().for_each(|&value| histogram.record(value));
        values.sort_unstable();
        for fraction in [0.01, 0.5, 0.9, 0.99, 0.999] {
            let exact = values[((fraction * values.len() as f64).ceil() as usize) - 1];
            let told = histogram.quantile(fraction);
            assert!(told >= exact && told <= exact + exact / 32 + 1, "{fraction}: {told} for {exact}");
        }
        assert_eq!(histogram.max(), *values.last().unwrap());
        assert_eq!(histogram.quantile(1.0), histogram.max());
        let mean = values.iter().sum::<u64>() as f64 / values.len() as f64;
        assert!((histogram.mean() - mean).abs() < 1e-6);
    }

    #[test]
    fn merged_histograms_equal_one_that_saw_both() {
        let (mut left, mut right, mut both) =
            (LatencyHistogram::new(), LatencyHistogram::new(), LatencyHistogram::new());
        for value in 1..1_000u64 {
            if value % 3 == 0 {
                left.record(value)
            } else {
                right.record(value * 10)
            }
            both.record(if value % 3 == 0 { value } else { value * 10 });
        }
        left.merge(&right);
        assert_eq!(left.counts, both.counts);
        assert_eq!(
            (left.count(), left.p50(), left.p99(), left.max()),
            (999, both.p50(), both.p99(), both.max())
        );
    }

    #[test]
    fn empty_histogram_answers_zero() {
        let histogram = LatencyHistogram::new();
        assert_eq!((histogram.count(), histogram.p50(), histogram.p99(), histogram.max()), (0, 0, 0, 0));
        assert_eq!(histogram.mean(), 0.0);
    }
}
