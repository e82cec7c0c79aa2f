//! The goals, and the figures past which something is wrong.
//!
//! They were set from a floor model (two minimal endpoints with real headers, both checksums, a hash table, a timer
//! wheel and free lists, joined in memory on one core) measured on a Zen 3 at about 3 GHz with two virtual cores. They
//! orient: an alarm counts only where the ratio to the peer is bad too.

use super::Unit;

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// The workload.
    pub work: &'static str,
    /// Which form of it.
    pub variant: &'static str,
    /// The unit of the figures.
    pub unit: Unit,
    /// What the floor model reached: the limit.
    pub floor: Option<f64>,
    /// What to reach.
    pub goal: Option<f64>,
    /// Something is wrong past this.
    pub alarm: Option<f64>,
}

/// The line for `variant` of `work`, if there is one.
pub fn goal_for(work: &str, variant: &str) -> Option<&'static Goal> {
    GOALS.iter().find(|goal| goal.work == work && goal.variant == variant)
}

const fn line(
    work: &'static str,
    variant: &'static str,
    unit: Unit,
    floor: Option<f64>,
    goal: Option<f64>,
    alarm: Option<f64>,
) -> Goal {
    Goal { work, variant, unit, floor, goal, alarm }
}

const GBIT: Unit = Unit::GbitPerSecond;
const NS: Unit = Unit::Nanoseconds;
const RATE: Unit = Unit::PerSecond;

/// Every goal.
///
/// - `conn`: open, then a close of six packets in all; `1M held`: closed in random order with that many held; `one
///   end`: the other end is on another core; `10k idle`: the rate kept beside as many idle sessions, as a share of
///   the rate without.
/// - `http`: a GET, its response, a close.
/// - `rr`: 64 bytes each way.
/// - `bulk`: segments of 1448 bytes, checksums on, apps copy in and out (`in place`: they work in the fifos).
/// - `latency`: a round trip's median, polling.
/// - `memory`: all memory counted, one end.
/// - `tap`: 1500-byte packets, as a share of what the TAP alone carries; and a kernel peer with vnet_hdr GSO/GRO.
/// - `af_xdp`: veth, native copy mode, packets end to end.
#[rustfmt::skip]
pub const GOALS: &[Goal] = &[
    line("conn",    "64 in flight",        RATE,        Some(2.17e6), Some(1.0e6),  Some(0.25e6)),
    line("conn",    "1024 in flight",      RATE,        Some(2.17e6), Some(1.0e6),  Some(0.25e6)),
    line("conn",    "1M held",             RATE,        Some(0.82e6), Some(0.5e6),  Some(0.12e6)),
    line("conn",    "one end",             RATE,        Some(5.0e6),  Some(1.5e6),  Some(0.3e6)),
    line("conn",    "10k idle",            Unit::Share, None,         Some(0.9),    None),
    line("http",    "GET + close",         RATE,        Some(1.67e6), Some(0.6e6),  Some(0.15e6)),
    line("rr",      "1 connection",        RATE,        Some(7.6e6),  None,         None),
    line("rr",      "1000 connections",    RATE,        Some(4.8e6),  Some(2.5e6),  Some(0.6e6)),
    line("rr",      "1M connections",      RATE,        Some(1.6e6),  None,         None),
    line("bulk",    "copies",              GBIT,        Some(63.0),   Some(35.0),   Some(12.0)),
    line("bulk",    "in place",            GBIT,        Some(91.0),   Some(45.0),   Some(15.0)),
    line("bulk",    "1000 flows",          GBIT,        Some(28.0),   Some(20.0),   Some(8.0)),
    line("latency", "one core",            NS,          Some(120.0),  Some(400.0),  Some(3_000.0)),
    line("latency", "two cores",           NS,          Some(250.0),  Some(800.0),  Some(3_000.0)),
    line("memory",  "idle session",        Unit::Bytes, Some(192.0),  Some(384.0),  Some(1_500.0)),
    line("memory",  "half-open",           Unit::Bytes, None,         Some(256.0),  Some(1_000.0)),
    line("tap",     "1500 B packets",      Unit::Share, None,         Some(0.8),    Some(0.4)),
    line("tap",     "kernel peer, GSO",    GBIT,        None,         Some(15.0),   Some(6.0)),
    line("af_xdp",  "veth, copy mode",     RATE,        None,         Some(0.55e6), Some(0.25e6)),
];
