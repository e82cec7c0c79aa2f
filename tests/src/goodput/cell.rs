//! One cell: a link, a round trip, one flow, and what it got.

use std::fmt;

use hoststack_transport::Algorithm;

use super::link::{Link, Tally};
use super::world::{FlowSpec, Progress, World};

/// The rates, in Mbit/s.
pub const RATES: [u64; 2] = [100, 1000];
/// The round trips without waiting, in ms.
pub const RTTS: [u64; 4] = [1, 10, 50, 200];
/// The buffers, in tenths of the bandwidth-delay product.
pub const BUFFERS: [u64; 3] = [1, 10, 40];
/// The random losses, in packets of a million.
pub const LOSSES: [u32; 5] = [0, 100, 1000, 10_000, 50_000];

/// A place in the table, the algorithm apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// Mbit/s.
    pub rate: u64,
    /// ms.
    pub rtt: u64,
    /// Tenths of the bandwidth-delay product.
    pub buffer: u64,
    /// Packets of a million.
    pub loss_ppm: u32,
}

/// What a flow got, over the measured time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// Bytes that the app read, in percent of what the link carries: 96.5 is the most (1448 of 1500 bytes).
    pub goodput: f64,
    /// How long packets waited for the link, in ms: the mean.
    pub queue_mean: f64,
    /// The longest wait, in ms.
    pub queue_max: f64,
    /// Payload bytes that were sent again, in percent of those sent.
    pub retransmitted: f64,
}

/// Bytes that a link of `rate` Mbit/s carries in `rtt` ms.
pub const fn bdp(rate: u64, rtt: u64) -> u64 {
    rate * 1_000_000 / 8 * rtt / 1000
}

/// Fifos that never limit: twice what the path and the buffer hold.
pub fn fifo(bdp: u64, buffer: u64) -> u32 {
    // Cannot cut: 250 MB at most for the axes above.
    u32::try_from(2 * (bdp + buffer)).unwrap_or(u32::MAX).clamp(1 << 18, 1 << 30)
}

impl Cell {
    /// All, in the table's order.
    pub fn all() -> Vec<Cell> {
        let mut cells = Vec::new();
        for rate in RATES {
            for rtt in RTTS {
                for buffer in BUFFERS {
                    cells.extend(LOSSES.map(|loss_ppm| Cell { rate, rtt, buffer, loss_ppm }));
                }
            }
        }
        cells
    }

    /// Its link.
    pub fn link(&self) -> Link {
        Link {
            rate: self.rate * 1_000_000,
            buffer: bdp(self.rate, self.rtt) * self.buffer / 10,
            loss_ppm: self.loss_ppm,
        }
    }

    /// How long it runs, in us: 60 s at 100 Mbit/s, 20 s at a gigabit, 200 round trips at least.
    pub fn ends_us(&self) -> u64 {
        let least = if self.rate > 100 { 20_000 } else { 60_000 };
        1000 * (200 * self.rtt).max(least)
    }

    /// When measuring begins, in us: after a quarter.
    pub fn measured_from_us(&self) -> u64 {
        self.ends_us() / 4
    }

    /// Its world at time 0. The cell is the seed.
    pub fn world(&self, algorithm: Algorithm) -> World {
        let link = self.link();
        let seed = [self.rate, self.rtt, self.buffer, u64::from(self.loss_ppm)]
            .iter()
            .fold(1, |seed: u64, part| (seed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
        let flow = FlowSpec { algorithm, rtt_us: self.rtt * 1000, starts_us: 0 };
        World::new(seed, link, fifo(bdp(self.rate, self.rtt), link.buffer), &[flow])
    }

    /// Runs it.
    pub fn run(&self, algorithm: Algorithm) -> Value {
        let mut world = self.world(algorithm);
        world.run_until(self.measured_from_us());
        world.take_tally();
        let before = world.progress(0);
        world.run_until(self.ends_us());
        world.check_consistency();
        let measured_us = self.ends_us() - self.measured_from_us();
        Value::new(&before, &world.progress(0), &world.take_tally(), self.rate, measured_us)
    }
}

impl Value {
    /// From what was so before and after `measured_us` on a link of `rate` Mbit/s, and what happened there meanwhile.
    pub fn new(before: &Progress, after: &Progress, tally: &Tally, rate: u64, measured_us: u64) -> Value {
        let (new, again) = (
            after.counters.bytes_out - before.counters.bytes_out,
            after.counters.retransmitted_bytes - before.counters.retransmitted_bytes,
        );
        // Mbit/s are bits in a us.
        let carried = (rate * measured_us) as f64 / 8.0;
        Value {
            goodput: 100.0 * (after.received - before.received) as f64 / carried,
            queue_mean: tally.waited_ns as f64 / tally.taken.max(1) as f64 / 1e6,
            queue_max: tally.waited_ns_max as f64 / 1e6,
            retransmitted: 100.0 * again as f64 / (new + again).max(1) as f64,
        }
    }

    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Value> {
        let mut numbers = text.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        let value =
            Value { goodput: next()?, queue_mean: next()?, queue_max: next()?, retransmitted: next()? };
        numbers.next().is_none().then_some(value)
    }
}

/// Four columns: goodput, queue, retransmitted.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value { goodput, queue_mean, queue_max, retransmitted } = *self;
        let places = |number: f64| if number < 9.995 { 2 } else { 1 };
        write!(
            f,
            "{goodput:5.*} {queue_mean:6.*} {queue_max:6.*} {retransmitted:5.2}",
            places(goodput),
            places(queue_mean),
            places(queue_max)
        )
    }
}

/// `100 Mbit/s  10 ms 1.0 BDP 0.01 %`, in columns.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { rate, rtt, buffer, loss_ppm } = *self;
        let (buffer, loss) = (buffer as f64 / 10.0, f64::from(loss_ppm) / 10_000.0);
        write!(f, "{rate:4} Mbit/s {rtt:3} ms {buffer:3.1} BDP {loss:4} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Cell = Cell { rate: 100, rtt: 10, buffer: 10, loss_ppm: 0 };

    #[test]
    fn there_are_120_cells_and_each_has_its_name() {
        let names: std::collections::BTreeSet<String> = Cell::all().iter().map(Cell::to_string).collect();
        assert_eq!(names.len(), 120);
        assert_eq!(CALM.to_string(), " 100 Mbit/s  10 ms 1.0 BDP    0 %");
        let bad = Cell { rate: 1000, rtt: 200, buffer: 1, loss_ppm: 100 };
        assert_eq!(bad.to_string(), "1000 Mbit/s 200 ms 0.1 BDP 0.01 %");
        assert_eq!(bad.link(), Link { rate: 1_000_000_000, buffer: 2_500_000, loss_ppm: 100 });
        assert_eq!((bad.ends_us(), CALM.ends_us()), (40_000_000, 60_000_000));
    }

    #[test]
    fn a_value_is_read_as_it_was_written() {
        let value = Value { goodput: 96.5, queue_mean: 9.99, queue_max: 812.3, retransmitted: 0.07 };
        assert_eq!(value.to_string(), " 96.5   9.99  812.3  0.07");
        assert_eq!(Value::parse(&value.to_string()), Some(value));
        assert_eq!(Value::parse("96.5 9.99 812.3"), None);
        assert_eq!(Value::parse("96.5 9.99 812.3 0.07 1"), None);
    }

    #[test]
    fn a_value_is_counted_by_hand() {
        let mut before = Progress { received: 1000, counters: Default::default() };
        before.counters.bytes_out = 5000;
        let mut after = before;
        after.received += 625_000;
        after.counters.bytes_out += 900_000;
        after.counters.retransmitted_bytes += 100_000;
        let tally = Tally { taken: 4, waited_ns: 10_000_000, waited_ns_max: 7_000_000, ..Tally::default() };
        // 100 Mbit/s carry 1 250 000 bytes in 0.1 s.
        let value = Value::new(&before, &after, &tally, 100, 100_000);
        assert_eq!(value.to_string(), " 50.0   2.50   7.00 10.00");
    }

    #[test]
    fn without_loss_the_link_is_full() {
        for &algorithm in Algorithm::ALL {
            let value = CALM.run(algorithm);
            // One that paces leaves a margin, and drains the queue from time to time.
            let least = if algorithm == Algorithm::NewReno { 95.0 } else { 90.0 };
            assert!(value.goodput >= least && value.goodput <= 96.6, "{algorithm}: {value}");
        }
    }

    #[test]
    fn bbr_fills_the_link_though_its_thread_is_woken_late() {
        for (rtt, loss_ppm) in [(10, 0), (10, 1000), (10, 10_000), (50, 0), (50, 1000), (50, 10_000)] {
            for seed in 1..=3 {
                let cell = Cell { rtt, loss_ppm, ..CALM };
                let flow = FlowSpec { algorithm: Algorithm::Bbr, rtt_us: rtt * 1000, starts_us: 0 };
                let mut world = World::new(seed, cell.link(), 1 << 24, &[flow]);
                world.senders_wake_late(seed, 200, 4000);
                world.run_until(2_000_000);
                let before = world.progress(0);
                world.run_until(12_000_000);
                let value =
                    Value::new(&before, &world.progress(0), &world.take_tally(), cell.rate, 10_000_000);
                assert!(value.goodput >= 92.0, "{cell}, seed {seed}: {value}");
            }
        }
    }

    #[test]
    fn newreno_under_random_loss_gets_what_the_square_root_law_says() {
        // Mathis et al. 1997: MSS / RTT * sqrt(3 / 2p), for a window that grows by one segment in a round trip. Where
        // timeouts are rare and no queue stands: below 1 % and 60 % of the link.
        for (rtt, loss_ppm) in [(10, 1000), (10, 10_000), (50, 1000), (200, 1000)] {
            let cell = Cell { rtt, loss_ppm, ..CALM };
            let bits = 8.0 * 1448.0 / (rtt as f64 / 1e3) * (1.5e6 / f64::from(loss_ppm)).sqrt();
            let (law, is) = (100.0 * bits / 100e6, cell.run(Algorithm::NewReno).goodput);
            assert!((0.7..1.3).contains(&(is / law)), "{cell}: {is:.2} %, the law says {law:.2} %");
        }
    }

    #[test]
    fn two_runs_are_equal() {
        let cell = Cell { loss_ppm: 10_000, ..CALM };
        for &algorithm in Algorithm::ALL {
            assert_eq!(cell.run(algorithm), cell.run(algorithm), "{algorithm}");
        }
    }
}
