//! Two flows that share a bottleneck: who gets how much.

use std::fmt;

use hoststack_transport::Algorithm;

use super::cell::{Value, bdp, fifo};
use super::link::Link;
use super::world::{FlowSpec, World};

/// The rate, in Mbit/s.
const RATE: u64 = 100;
/// The round trips of the two flows, in ms: equal ones, and unequal ones.
const RTTS: [[u64; 2]; 3] = [[10, 10], [50, 50], [10, 50]];
/// Round trips when the algorithms differ.
const RTT_BETWEEN: u64 = 50;
/// The buffers, in tenths of the bandwidth-delay product of the longer round trip.
const BUFFERS: [u64; 3] = [1, 10, 40];
/// When the second flow starts, in us: the first has filled the link.
const SECOND_STARTS_US: u64 = 5_000_000;
/// When measuring begins, in us.
const MEASURED_FROM_US: u64 = 30_000_000;
/// When the run ends, in us.
const ENDS_US: u64 = 120_000_000;

/// Two flows on a link of 100 Mbit/s without random loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The algorithms; the first flow starts first.
    pub algorithms: [Algorithm; 2],
    /// The round trips, in ms.
    pub rtts: [u64; 2],
    /// Tenths of the bandwidth-delay product of the longer one.
    pub buffer: u64,
}

/// How they shared it, over the measured time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The first flow's part of what both got, in percent.
    pub first: f64,
    /// Jain's index: 1 when both got the same, 0.5 when one got all.
    pub jain: f64,
    /// Goodput of both, queue, and the retransmissions of both.
    pub sum: Value,
}

impl Pair {
    /// All: each algorithm with itself, then each two that differ.
    pub fn all() -> Vec<Pair> {
        let mut pairs = Vec::new();
        for &algorithm in Algorithm::ALL {
            for rtts in RTTS {
                pairs.extend(BUFFERS.map(|buffer| Pair { algorithms: [algorithm; 2], rtts, buffer }));
            }
        }
        for (n, &first) in Algorithm::ALL.iter().enumerate() {
            for &second in &Algorithm::ALL[n + 1..] {
                let rtts = [RTT_BETWEEN; 2];
                pairs.extend(BUFFERS.map(|buffer| Pair { algorithms: [first, second], rtts, buffer }));
            }
        }
        pairs
    }

    /// Runs it.
    pub fn run(&self) -> Share {
        let bdp = bdp(RATE, self.rtts[0].max(self.rtts[1]));
        let link = Link { rate: RATE * 1_000_000, buffer: bdp * self.buffer / 10, loss_ppm: 0 };
        let flow = |n: usize| FlowSpec {
            algorithm: self.algorithms[n],
            rtt_us: self.rtts[n] * 1000,
            starts_us: n as u64 * SECOND_STARTS_US,
        };
        let mut world = World::new(1, link, fifo(bdp, link.buffer), &[flow(0), flow(1)]);
        world.run_until(MEASURED_FROM_US);
        world.take_tally();
        let before = [0, 1].map(|n| world.progress(n));
        world.run_until(ENDS_US);
        world.check_consistency();
        let after = [0, 1].map(|n| world.progress(n));
        let got = [0, 1].map(|n: usize| (after[n].received - before[n].received) as f64);
        let both = |[mut sum, other]: [super::world::Progress; 2]| {
            sum.received += other.received;
            sum.counters.merge(&other.counters);
            sum
        };
        let sum =
            Value::new(&both(before), &both(after), &world.take_tally(), RATE, ENDS_US - MEASURED_FROM_US);
        Share { first: 100.0 * got[0] / (got[0] + got[1]).max(1.0), jain: jain(&got), sum }
    }
}

/// Jain's fairness index: (sum x)^2 / (n * sum x^2). 1 when there is nothing to share.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares): (f64, f64) = (shares.iter().sum(), shares.iter().map(|share| share * share).sum());
    if squares == 0.0 { 1.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

/// `newreno 10 ms + newreno 10 ms, 1.0 BDP`, in columns.
impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pair { algorithms: [first, second], rtts, buffer } = *self;
        let buffer = buffer as f64 / 10.0;
        write!(f, "{first:>8} {:2} ms + {second:>8} {:2} ms, {buffer:3.1} BDP", rtts[0], rtts[1])
    }
}

/// Share of the first, Jain's index, and the columns of [`Value`].
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5.1} {:5.3} {}", self.first, self.jain, self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_is_one_for_equals_and_one_of_n_for_a_winner() {
        assert_eq!(jain(&[3.0, 3.0]), 1.0);
        assert_eq!(jain(&[3.0, 0.0]), 0.5);
        assert_eq!(jain(&[1.0, 2.0]), 0.9);
        assert_eq!(jain(&[0.0, 0.0]), 1.0);
    }

    #[test]
    fn two_flows_fill_the_link_together() {
        for &algorithm in Algorithm::ALL {
            let pair = Pair { algorithms: [algorithm; 2], rtts: [10, 10], buffer: 10 };
            let share = pair.run();
            assert!(share.sum.goodput > 85.0 && share.sum.goodput <= 96.6, "{pair}: {share}");
            assert!(share.first > 0.0 && share.first < 100.0, "{pair}: {share}");
            assert_eq!(share, pair.run(), "{pair}");
        }
    }
}
