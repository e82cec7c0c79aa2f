//! The connect ticket: who holds it decides the outcome of a connect, and it can be spent once.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::handle::{AppWorkerId, ConnectId};
use crate::pool::Key;
use crate::time::Instant;

/// Counts tickets that were dropped without an outcome: always 0 unless the stack has a bug.
#[derive(Debug, Default)]
pub struct TicketLedger {
    dropped: AtomicU64,
}

impl TicketLedger {
    /// A ledger that has seen nothing.
    pub fn new() -> Arc<TicketLedger> {
        Arc::new(TicketLedger::default())
    }

    /// Tickets dropped without an outcome so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The right to tell the outcome of one connect request.
///
/// It cannot be cloned. Main mints it with the request, it moves with the message that hands the connection or its
/// failure over, and [`ConnectTicket::spend`] consumes it in the one function that tells the app. A ticket that is
/// dropped unspent is counted in its ledger: that connect never got its outcome.
#[derive(Debug)]
pub struct ConnectTicket {
    connect: ConnectId,
    half_open: Key,
    app_worker: AppWorkerId,
    opaque: u64,
    made: Instant,
    ledger: Option<Arc<TicketLedger>>,
}

/// What a spent ticket leaves: whom to tell, about what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpentTicket {
    /// The request.
    pub connect: ConnectId,
    /// Its half-open session, in the app worker's pool on main.
    pub half_open: Key,
    /// Whose request it is.
    pub app_worker: AppWorkerId,
    /// The caller's value.
    pub opaque: u64,
}

impl ConnectTicket {
    /// The ticket of a request that was made at `made`. Called by main only, once per request.
    pub fn mint(
        connect: ConnectId,
        half_open: Key,
        app_worker: AppWorkerId,
        opaque: u64,
        made: Instant,
        ledger: Arc<TicketLedger>,
    ) -> ConnectTicket {
        ConnectTicket { connect, half_open, app_worker, opaque, made, ledger: Some(ledger) }
    }

    /// The request.
    pub fn connect(&self) -> ConnectId {
        self.connect
    }

    /// Whose request it is.
    pub fn app_worker(&self) -> AppWorkerId {
        self.app_worker
    }

    /// The caller's value.
    pub fn opaque(&self) -> u64 {
        self.opaque
    }

    /// When the request was made.
    pub fn made(&self) -> Instant {
        self.made
    }

    /// The half-open session, in the app worker's pool on main.
    pub fn half_open(&self) -> Key {
        self.half_open
    }

    /// Settles the request: the outcome is being told now.
    pub fn spend(mut self) -> SpentTicket {
        self.ledger = None;
        SpentTicket {
            connect: self.connect,
            half_open: self.half_open,
            app_worker: self.app_worker,
            opaque: self.opaque,
        }
    }
}

impl Drop for ConnectTicket {
    fn drop(&mut self) {
        if let Some(ledger) = &self.ledger {
            ledger.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_dropped_unspent_is_counted_and_a_spent_one_is_not() {
        let ledger = TicketLedger::new();
        let key = Key { slot: 1, generation: 2 };
        let mint = |n| {
            ConnectTicket::mint(ConnectId::new(0, n), key, AppWorkerId(key), n, Instant::ZERO, ledger.clone())
        };
        assert_eq!(mint(1).spend().opaque, 1);
        assert_eq!(ledger.dropped(), 0);
        drop(mint(2));
        assert_eq!(ledger.dropped(), 1);
    }
}
