//! What a connection costs over each transport, side by side: CPU seconds of the whole process, user and system.
//!
//! All transports asked for and the peer of each take turns in one run, round by round, with as many connections in
//! flight and the same order of closing, so that what slows one slows its neighbours too. A transport over the host's
//! sockets is held against a bare epoll loop over the same sockets, fifo to fifo against the stack's own TCP, and that
//! against smoltcp.

use std::io;

use super::{RUN_SECONDS, SuiteOptions, THREADED, TIME_WAIT, push};
use crate::measure::{Paired, take_turns};
use crate::ours::{self, Threads, Via};
use crate::peer::{self, EpollPeer, EpollSockets};
use crate::report::{Report, Row, Unit};
use crate::work::{Work, per};

/// Connections in flight, on all sides.
const IN_FLIGHT: usize = 64;
/// What a connection over the host's sockets may cost more than in a bare loop.
const KERNEL_GOAL: f64 = 1.15;

/// One side of a comparison, set up.
type Side = Box<dyn FnMut() -> Work>;

/// Names on the command line and in the report.
const fn name(via: Via) -> &'static str {
    match via {
        Via::Tcp => "tcp",
        Via::KernelTcp => "kernel",
        Via::KernelUnix => "kernel+unix",
        Via::Local => "local",
    }
}

const fn threads_name(threads: Threads) -> &'static str {
    match threads {
        Threads::Own => ", threaded",
        Threads::None | Threads::Virtual => "",
    }
}

/// Connections of one run. Those over the host's sockets cost some twenty times more.
fn count(via: Via, options: &SuiteOptions) -> u64 {
    options.scaled(if via.is_kernel() { 20_000 } else { 100_000 })
}

/// Runs `conn` over each of `vias`, each single-threaded and on threads, beside its peer, and adds two rows for each:
/// CPU time per connection, and connections per second.
///
/// # Errors
/// When the host gives a bare loop no sockets.
pub fn transports(vias: &[Via], options: &SuiteOptions, report: &mut Report) -> io::Result<()> {
    let has = |via| vias.contains(&via);
    let mut names: Vec<(Via, Option<Threads>)> = Vec::new();
    let mut sides: Vec<Side> = Vec::new();
    for via in [Via::Tcp, Via::KernelTcp, Via::KernelUnix, Via::Local] {
        // TCP is the peer of fifo to fifo: then it is run for that alone too.
        let is_needed = has(via) || via == Via::Tcp && has(Via::Local);
        if !is_needed {
            continue;
        }
        for threads in [Threads::None, Threads::Own] {
            names.push((via, Some(threads)));
            sides.push(ours(via, threads, options));
        }
        if let Some(peer) = peer(via, options)? {
            names.push((via, None));
            sides.push(peer);
        }
    }
    for side in &mut sides {
        side(); // to warm up
    }
    let works = take_turns(options.rounds, &mut sides);
    let find = |via, threads| {
        let at = names.iter().position(|&name| name == (via, threads));
        at.map(|at| &works[at])
    };
    for &via in vias {
        for threads in [Threads::None, Threads::Own] {
            let peer = match via {
                // Each with as many threads as the other.
                Via::Local => find(Via::Tcp, Some(threads)),
                via => find(via, None),
            };
            let (Some(ours), Some(peer)) = (find(via, Some(threads)), peer) else { continue };
            rows(via, threads, &Paired::of(ours, peer), report);
        }
    }
    Ok(())
}

fn ours(via: Via, threads: Threads, options: &SuiteOptions) -> Side {
    let count = count(via, options);
    // On threads time cannot jump past TIME-WAIT: all rounds' records and the warm-up's are held.
    let runs = if threads == Threads::Own { options.rounds as u64 + 1 } else { 1 };
    let room = (count * runs) as usize + 100_000; // cannot truncate: some millions
    let mut conn = ours::Conn::new(&ours::ConnOptions { via, threads, in_flight: IN_FLIGHT, idle: 0, room });
    Box::new(move || conn.run(count, RUN_SECONDS))
}

fn peer(via: Via, options: &SuiteOptions) -> io::Result<Option<Side>> {
    let count = count(via, options);
    let sockets = match via {
        Via::KernelTcp => EpollSockets::Tcp,
        Via::KernelUnix => EpollSockets::Unix,
        Via::Tcp => {
            let options = peer::ConnOptions { in_flight: IN_FLIGHT, ..peer::ConnOptions::default() };
            let mut peer = peer::ConnPeer::new(&options);
            return Ok(Some(Box::new(move || peer.run(count, RUN_SECONDS))));
        }
        Via::Local => return Ok(None),
    };
    let mut peer = EpollPeer::new(sockets, IN_FLIGHT)?;
    Ok(Some(Box::new(move || peer.run(count, RUN_SECONDS))))
}

fn rows(via: Via, threads: Threads, paired: &Paired, report: &mut Report) {
    let variant = format!("{}{}", name(via), threads_name(threads));
    let cost = paired.figure(Work::cpu_nanos_per_operation);
    let notes = notes(via, threads);
    let mut row = Row::paired("conn", &variant, Unit::CpuNanoseconds, &cost);
    if via.is_kernel() {
        row.goal = Some(cost.peer.median * KERNEL_GOAL);
    }
    // The column's ratio says how many times better ours is.
    let share = format!("costs {:.2} of it", row.ratio.map_or(0.0, |ratio| per(1.0, ratio)));
    push(report, row, &[&notes[..], &[&share]].concat());
    let rate = paired.figure(Work::rate_wall);
    push(report, Row::paired("conn", &variant, Unit::PerSecond, &rate), &notes);
}

fn notes(via: Via, threads: Threads) -> Vec<&'static str> {
    let mut notes = Vec::new();
    if via == Via::Tcp && threads == Threads::None {
        notes.push(TIME_WAIT);
    }
    if threads == Threads::Own && via != Via::Local {
        notes.push(THREADED);
    }
    notes.push(match via {
        Via::Tcp => "the peer: smoltcp",
        Via::KernelTcp | Via::KernelUnix => "the peer: a bare epoll loop",
        Via::Local => "the peer: ours over tcp",
    });
    notes
}
