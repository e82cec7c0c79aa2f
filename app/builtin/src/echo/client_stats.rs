//! What the echo client counts.

use std::sync::Arc;

use hoststack_app::ConnectFailure;
use parking_lot::Mutex;

use crate::counters::Counter;
use crate::histogram::{Histogram, HistogramSummary};

/// What an echo client did, over all its workers. Any thread may read it while the client runs.
#[derive(Debug, Default)]
pub struct EchoClientStats {
    cells: Mutex<Vec<Arc<ClientCell>>>,
    /// Written by main.
    pub(crate) main: MainCell,
}

/// Totals of [`EchoClientStats`]. At the end `requested = connected + refused + timed_out + unreachable + cancelled +
/// detached + failed - not_issued` and `connected = closed_ok + closed_short + reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EchoClientTotals {
    /// Connect requests that the stack took.
    pub requested: u64,
    /// Connects that succeeded.
    pub connected: u64,
    /// Connects that the peer refused.
    pub refused: u64,
    /// Connects that nothing answered.
    pub timed_out: u64,
    /// Connects without a route, a neighbour, or hope.
    pub unreachable: u64,
    /// Connects that ended because they were cancelled.
    pub cancelled: u64,
    /// Connects that the client cancelled: before their outcome, or too late.
    pub cancels: u64,
    /// Connects that ended because the app worker was detached.
    pub detached: u64,
    /// Connects that failed otherwise: the sum of the next four.
    pub failed: u64,
    /// No free local port.
    pub address_in_use: u64,
    /// The local address is no interface's.
    pub address_not_available: u64,
    /// A pool was at its limit.
    pub no_room: u64,
    /// Of these, in an establishment stage.
    pub stage_failed: u64,
    /// Connects that the host's kernel refused.
    pub system_failed: u64,
    /// Connects that the stack did not take (a bad option, for example), so that no outcome followed.
    pub not_issued: u64,
    /// Bytes queued for sending.
    pub bytes_sent: u64,
    /// Bytes that came back.
    pub bytes_echoed: u64,
    /// Of them, bytes that were not what was sent at their place.
    pub bytes_mismatched: u64,
    /// Sessions that are held open now.
    pub held: u64,
    /// Sessions that ended as both ends wanted, after every byte had come back.
    pub closed_ok: u64,
    /// Sessions that ended as both ends wanted, but before every byte had come back.
    pub closed_short: u64,
    /// Sessions that were cut off.
    pub reset: u64,
    /// Of them, sessions that the detach of their app worker cut off.
    pub reset_by_detach: u64,
    /// Half-opens that main told of as cleaned: one for each connect requested, in the end.
    pub half_opens_cleaned: u64,
}

impl EchoClientTotals {
    /// Sessions that are over: the connect failed, or the session was closed.
    pub fn ended(&self) -> u64 {
        self.closed_ok
            + self.closed_short
            + self.reset
            + self.refused
            + self.timed_out
            + self.unreachable
            + self.cancelled
            + self.detached
            + self.failed
    }

    /// Whether `sessions` sessions all ended as they should, with every byte right.
    pub fn is_clean(&self, sessions: u64) -> bool {
        self.closed_ok == sessions
            && self.requested == sessions
            && self.bytes_mismatched == 0
            && self.bytes_echoed == self.bytes_sent
    }
}

impl EchoClientStats {
    /// The totals as of now.
    pub fn totals(&self) -> EchoClientTotals {
        let mut totals = EchoClientTotals::default();
        for cell in self.cells.lock().iter() {
            cell.add_to(&mut totals);
        }
        self.main.issuer.add_to(&mut totals);
        totals.half_opens_cleaned = self.main.half_opens_cleaned.value();
        totals.failed = totals.address_in_use
            + totals.address_not_available
            + totals.no_room
            + totals.stage_failed
            + totals.system_failed
            + totals.not_issued;
        totals
    }

    /// Time from connect to a good outcome, in microseconds.
    pub fn connect_latency_us(&self) -> HistogramSummary {
        let all = Histogram::new();
        self.cells.lock().iter().for_each(|cell| all.merge(&cell.latency_us));
        all.summary()
    }

    /// Counters for one more object.
    pub(crate) fn new_cell(&self) -> Arc<ClientCell> {
        let cell = Arc::<ClientCell>::default();
        self.cells.lock().push(cell.clone());
        cell
    }
}

/// What main counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct MainCell {
    pub(crate) half_opens_cleaned: Counter,
    pub(crate) issuer: IssuerCell,
}

/// Connects that a thread issued.
#[derive(Debug, Default)]
pub(crate) struct IssuerCell {
    pub(crate) requested: Counter,
    pub(crate) not_issued: Counter,
    pub(crate) cancels: Counter,
}

impl IssuerCell {
    fn add_to(&self, totals: &mut EchoClientTotals) {
        totals.requested += self.requested.value();
        totals.not_issued += self.not_issued.value();
        totals.cancels += self.cancels.value();
    }
}

/// Counters of a client's object on one worker; aligned so that two workers never write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ClientCell {
    pub(crate) issuer: IssuerCell,
    pub(crate) connected: Counter,
    refused: Counter,
    timed_out: Counter,
    unreachable: Counter,
    cancelled: Counter,
    detached: Counter,
    address_in_use: Counter,
    address_not_available: Counter,
    no_room: Counter,
    stage_failed: Counter,
    system_failed: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) bytes_echoed: Counter,
    pub(crate) bytes_mismatched: Counter,
    pub(crate) held: Counter,
    pub(crate) closed_ok: Counter,
    pub(crate) closed_short: Counter,
    pub(crate) reset: Counter,
    pub(crate) reset_by_detach: Counter,
    pub(crate) latency_us: Histogram,
}

impl ClientCell {
    /// Counts a failed connect.
    pub(crate) fn on_failure(&self, failure: ConnectFailure) {
        let counter = match failure {
            ConnectFailure::Refused => &self.refused,
            ConnectFailure::TimedOut => &self.timed_out,
            ConnectFailure::Unreachable => &self.unreachable,
            ConnectFailure::Cancelled => &self.cancelled,
            ConnectFailure::Detached => &self.detached,
            ConnectFailure::AddressInUse => &self.address_in_use,
            ConnectFailure::AddressNotAvailable => &self.address_not_available,
            ConnectFailure::NoRoom => &self.no_room,
            ConnectFailure::System(_) => &self.system_failed,
            ConnectFailure::Stage(_) => &self.stage_failed,
        };
        counter.add(1);
    }

    fn add_to(&self, totals: &mut EchoClientTotals) {
        self.issuer.add_to(totals);
        totals.connected += self.connected.value();
        totals.refused += self.refused.value();
        totals.timed_out += self.timed_out.value();
        totals.unreachable += self.unreachable.value();
        totals.cancelled += self.cancelled.value();
        totals.detached += self.detached.value();
        totals.address_in_use += self.address_in_use.value();
        totals.address_not_available += self.address_not_available.value();
        totals.no_room += self.no_room.value();
        totals.stage_failed += self.stage_failed.value();
        totals.system_failed += self.system_failed.value();
        totals.bytes_sent += self.bytes_sent.value();
        totals.bytes_echoed += self.bytes_echoed.value();
        totals.bytes_mismatched += self.bytes_mismatched.value();
        totals.held += self.held.value();
        totals.closed_ok += self.closed_ok.value();
        totals.closed_short += self.closed_short.value();
        totals.reset += self.reset.value();
        totals.reset_by_detach += self.reset_by_detach.value();
    }
}
