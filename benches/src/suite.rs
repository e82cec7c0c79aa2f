//! The workloads as `hoststack bench` runs them: ours and the peer's in turn, and the rows of the report.

mod transports;

use std::io;

pub use transports::transports;

use crate::measure::{Paired, alternate};
use crate::ours::{self, BulkMode, Threads};
use crate::peer;
use crate::report::{Report, Row, Unit};
use crate::work::Work;

/// A group of workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Open and close.
    Conn,
    /// Request and response, and how long a connect takes.
    Rr,
    /// Streams.
    Bulk,
    /// Memory of idle sessions and of half-opens. To be run in a process that has done nothing before.
    Memory,
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct SuiteOptions {
    /// Rounds of each pair; at least one.
    pub rounds: usize,
    /// A tenth of the work, for a look: figures of a cold start.
    pub quick: bool,
}

impl Default for SuiteOptions {
    fn default() -> Self {
        SuiteOptions { rounds: 5, quick: false }
    }
}

impl SuiteOptions {
    fn scaled(&self, count: u64) -> u64 {
        if self.quick { count / 10 } else { count }
    }
}

/// Seconds that one side's run in a round may take.
const RUN_SECONDS: f64 = 5.0;
/// Our side runs on threads of its own; the peer has none.
const THREADED: &str = "main and one worker on threads; the peer on one";
/// Ours pays for the expiry of its TIME-WAITs, the peer has none.
const TIME_WAIT: &str = "ours with TIME-WAIT and its expiry";

/// Runs a suite and adds its rows.
///
/// # Errors
/// When `/proc/self/statm` cannot be read (memory alone).
pub fn run(suite: Suite, options: &SuiteOptions, report: &mut Report) -> io::Result<()> {
    match suite {
        Suite::Conn => conn(options, report),
        Suite::Rr => rr(options, report),
        Suite::Bulk => bulk(options, report),
        Suite::Memory => memory(options, report)?,
    }
    Ok(())
}

fn conn(options: &SuiteOptions, report: &mut Report) {
    let variants = [
        ("64 in flight", Threads::None, 64, 0),
        ("1024 in flight", Threads::None, 1024, 0),
        ("100k idle", Threads::None, 64, 100_000),
        ("64, threaded", Threads::Own, 64, 0),
        ("1024, threaded", Threads::Own, 1024, 0),
    ];
    for (variant, threads, in_flight, idle) in variants {
        let count = options.scaled(200_000);
        // On threads time cannot jump past TIME-WAIT: all rounds' records and the warm-up's are held.
        let runs = if threads == Threads::Own { options.rounds as u64 + 2 } else { 1 };
        let room = (2 * idle + 2 * 1024) + (count * runs) as usize + 100_000;
        let mut ours =
            ours::Conn::new(&ours::ConnOptions { via: ours::Via::Tcp, threads, in_flight, idle, room });
        let mut peer =
            peer::ConnPeer::new(&peer::ConnOptions { in_flight, idle, ..peer::ConnOptions::default() });
        ours.run(count / 2, RUN_SECONDS);
        peer.run(count / 2, RUN_SECONDS / 5.0);
        let paired =
            alternate(options.rounds, || ours.run(count, RUN_SECONDS), || peer.run(count, RUN_SECONDS));
        let notes: &[&str] = if threads == Threads::Own { &[THREADED] } else { &[TIME_WAIT] };
        rates(report, "conn", variant, &paired, notes);
    }
}

fn rr(options: &SuiteOptions, report: &mut Report) {
    let variants = [
        ("1 connection", Threads::None, 1),
        ("1000 connections", Threads::None, 1000),
        ("1, threaded", Threads::Own, 1),
        ("1000, threaded", Threads::Own, 1000),
    ];
    for (variant, threads, connections) in variants {
        let count = options.scaled(1_000_000);
        let mut ours = ours::Rr::new(&ours::RrOptions { threads, connections, ..ours::RrOptions::default() });
        let mut peer = peer::RrPeer::new(&peer::RrOptions { connections, ..peer::RrOptions::default() });
        ours.run(count / 4, RUN_SECONDS);
        peer.run(count / 4, RUN_SECONDS / 5.0, None);
        let paired =
            alternate(options.rounds, || ours.run(count, RUN_SECONDS), || peer.run(count, RUN_SECONDS, None));
        let notes: &[&str] = if threads == Threads::Own { &[THREADED] } else { &[] };
        rates(report, "rr", variant, &paired, notes);
    }
    let mut timed = ours::Rr::new(&ours::RrOptions { timed: true, ..ours::RrOptions::default() });
    timed.run(options.scaled(200_000), RUN_SECONDS);
    let latency = timed.take_latency();
    let mut row = |variant: &str, nanos: u64, note: &str| {
        report.rows.push(
            Row::single("latency", variant, Unit::Nanoseconds, Some(nanos as f64), None).with_note(note),
        );
    };
    row("one core", latency.p50(), "p50 of a 64-byte round trip, both ends stepped");
    row("one core, p99", latency.p99(), "");
    let connects = ours::connect_latency(options.scaled(2_000).max(100) as u32);
    row("connect, asleep", connects.p50(), "p50 from connect to connected, every thread asleep before");
    row("connect, asleep, p99", connects.p99(), "");
}

fn bulk(options: &SuiteOptions, report: &mut Report) {
    let variants = [
        ("copies", Threads::None, 1, BulkMode::Copies),
        ("in place", Threads::None, 1, BulkMode::InPlace),
        ("1000 flows", Threads::None, 1000, BulkMode::Copies),
        ("copies, threaded", Threads::Own, 1, BulkMode::Copies),
    ];
    for (variant, threads, flows, mode) in variants {
        let bytes = options.scaled(4 << 30);
        let fifo_bytes = if flows == 1 { 256 << 10 } else { 64 << 10 };
        let mut ours =
            ours::Bulk::new(&ours::BulkOptions { threads, flows, fifo_bytes, mode, verify: false });
        // The peer has one flow and copies, whatever ours does: it is the machine's yardstick here.
        let mut peer = peer::BulkPeer::new(&peer::BulkOptions::default());
        ours.run(bytes / 8, RUN_SECONDS);
        peer.run(bytes / 8, RUN_SECONDS);
        let paired =
            alternate(options.rounds, || ours.run(bytes, RUN_SECONDS), || peer.run(bytes, RUN_SECONDS));
        let mut notes = Vec::new();
        if threads == Threads::Own {
            notes.push(THREADED);
        }
        if flows > 1 || mode == BulkMode::InPlace {
            notes.push("the peer: one flow, copies");
        }
        for (unit, figure) in [
            (Unit::GbitPerSecond, Work::gbit_per_wall_second as fn(&Work) -> f64),
            (Unit::GbitPerCpuSecond, Work::gbit_per_cpu_second),
        ] {
            push(report, Row::paired("bulk", variant, unit, &paired.figure(figure)), &notes);
        }
    }
}

fn memory(options: &SuiteOptions, report: &mut Report) -> io::Result<()> {
    // Half-opens first: fewer pages, so that little of them is left for the sessions to reuse.
    let count = options.scaled(400_000) as usize;
    let half_open = ours::memory(ours::Held::HalfOpens, count)?.bytes_per_operation();
    let session = ours::memory(ours::Held::Sessions, count)?.bytes_per_operation();
    let peers = peer::memory(&peer::MemoryOptions {
        connections: count.min(20_000),
        ..peer::MemoryOptions::default()
    })?;
    let peer = peers.work.bytes_per_operation();
    push(
        report,
        Row::single("memory", "idle session", Unit::Bytes, Some(session), Some(peer)),
        &["the peer without buffers"],
    );
    push(report, Row::single("memory", "half-open", Unit::Bytes, Some(half_open), None), &[]);
    Ok(())
}

/// A row per wall second, which goals are stated in, and one per CPU second, which a busy machine changes less.
fn rates(report: &mut Report, work: &str, variant: &str, paired: &Paired, notes: &[&str]) {
    push(report, Row::paired(work, variant, Unit::PerSecond, &paired.figure(Work::rate_wall)), notes);
    push(report, Row::paired(work, variant, Unit::PerCpuSecond, &paired.figure(Work::rate_cpu)), notes);
}

fn push(report: &mut Report, row: Row, notes: &[&str]) {
    report.rows.push(notes.iter().fold(row, |row, note| row.with_note(note)));
}
