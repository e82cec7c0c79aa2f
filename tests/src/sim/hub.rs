//! What everything in a world shares: dice, oracle, streams, strikes, coverage, trace. One lock, never held while a
//! stack steps, so that callbacks and devices may take it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::behave::Temper;
use super::coverage::{Coverage, Row};
use super::dice::{Dice, mix};
use super::faults::{Fault, Strikes};
use super::meddler::End;
use super::oracle::Oracle;
use super::streams::Streams;

/// The shared state.
pub(crate) struct State {
    pub(crate) dice: Dice,
    pub(crate) oracle: Oracle,
    pub(crate) streams: Streams,
    pub(crate) strikes: Strikes,
    pub(crate) coverage: Option<Box<Coverage>>,
    pub(crate) temper: Temper,
    /// Ends of wires that stacks own.
    pub(crate) ends: Vec<End>,
    /// Where hosts can connect to, by host.
    pub(crate) places: Vec<super::world::Places>,
    /// Sessions that were announced, oldest first: for uses of handles at the wrong time or place.
    pub(crate) known: Vec<(u8, u64)>,
    /// Connects that were made, likewise.
    pub(crate) connects: Vec<(u8, u64)>,
    /// Listeners that were told.
    pub(crate) listeners: Vec<hoststack::app::ListenerId>,
    /// Flows, from either end, whose end someone forged: they may end early.
    pub(crate) poisoned: std::collections::BTreeSet<super::packets::FlowId>,
    /// Flows, from either end, whose incarnations share sequence numbers: their bytes may be of either.
    pub(crate) overlaps: std::collections::BTreeSet<super::packets::FlowId>,
    /// Timers of app workers' objects and their moments, in microseconds: application, unit, worker, token.
    pub(crate) timers: std::collections::BTreeMap<(usize, u32, u8, u64), u64>,
    /// The time of the world, in microseconds.
    pub(crate) now_us: u64,
    /// Every listener is gone: no SYN may be answered with one.
    pub(crate) is_deaf: bool,
    /// Apps only finish what they do.
    pub(crate) is_calm: bool,
    /// Connects that apps made in callbacks.
    pub(crate) connects_in_callbacks: u64,
    /// A buffer for bytes on their way.
    pub(crate) scratch: Vec<u8>,
    /// A packet on its way.
    pub(crate) scratch_packet: Vec<u8>,
    pub(crate) is_tracing: bool,
    pub(crate) digest: u64,
    pub(crate) callbacks: u64,
}

impl State {
    /// Folds a number into the digest of all events.
    pub(crate) fn note(&mut self, number: u64) {
        self.digest = mix(self.digest ^ number).wrapping_add(number.rotate_left(17));
    }

    /// Something happened to a host: for the table of transitions and faults.
    pub(crate) fn transit(&mut self, host: usize, row: Row) {
        let struck = self.strikes.on_host(host);
        if let Some(coverage) = &mut self.coverage {
            coverage.transit(row, struck);
        }
    }

    /// A fault struck a host.
    pub(crate) fn strike(&mut self, host: usize, fault: Fault, times: u64) {
        self.strikes.strike(host, fault, times);
    }

    /// Prints a line of the trace.
    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.is_tracing {
            println!("{:>12.6} {}", self.now_us as f64 / 1e6, line());
        }
    }
}

/// The shared state, from anywhere.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Mutex<State>>);

impl Hub {
    /// Shares a state.
    pub(crate) fn new(state: State) -> Hub {
        Hub(Arc::new(Mutex::new(state)))
    }

    /// The state, for a moment.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}
