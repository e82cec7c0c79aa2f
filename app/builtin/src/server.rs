//! What the servers share: their listeners, and what they count.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use hoststack_app::{Address, CloseReason, ListenError, ListenOptions, ListenerId, MainContext};
use parking_lot::Mutex;

use crate::counters::Counter;

/// Marks the opaque values of a server's own listen requests, in case the embedder adds listeners of its own.
const OPAQUE_TAG: u64 = 0x6c69_7374 << 32;

/// How a server's listen requests ended: told once, when the last one has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// Endpoints that are up.
    pub up: Vec<(ListenerId, Address)>,
    /// Endpoints that are not, and why.
    pub failed: Vec<(Address, ListenError)>,
}

impl Listening {
    /// Whether every endpoint is up.
    pub fn all_up(&self) -> bool {
        self.failed.is_empty()
    }
}

/// What a server did, over all its workers. Any thread may read it while the server runs.
#[derive(Debug, Default)]
pub struct ServerStats {
    cells: Mutex<Vec<Arc<ServerCell>>>,
    listening: Mutex<Option<Listening>>,
}

/// Totals of [`ServerStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerTotals {
    /// Sessions accepted.
    pub accepted: u64,
    /// Bytes echoed, discarded or answered.
    pub bytes: u64,
    /// Sessions that ended as both ends wanted.
    pub closed: u64,
    /// Sessions that were cut off.
    pub reset: u64,
    /// Endpoints that could not be listened on.
    pub listen_errors: u64,
}

impl ServerStats {
    /// The totals as of now.
    pub fn totals(&self) -> ServerTotals {
        let mut totals = ServerTotals::default();
        for cell in self.cells.lock().iter() {
            totals.accepted += cell.accepted.value();
            totals.bytes += cell.bytes.value();
            totals.closed += cell.closed.value();
            totals.reset += cell.reset.value();
        }
        totals.listen_errors = self.listening.lock().as_ref().map_or(0, |told| told.failed.len() as u64);
        totals
    }

    /// How the listen requests ended; `None` while one is under way.
    pub fn listening(&self) -> Option<Listening> {
        self.listening.lock().clone()
    }

    /// Counters for one more object.
    pub(crate) fn new_cell(&self) -> Arc<ServerCell> {
        let cell = Arc::<ServerCell>::default();
        self.cells.lock().push(cell.clone());
        cell
    }
}

/// Counters of a server's object on one worker; aligned so that two workers never write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ServerCell {
    pub(crate) accepted: Counter,
    pub(crate) bytes: Counter,
    closed: Counter,
    reset: Counter,
}

impl ServerCell {
    /// Counts the end of a session.
    pub(crate) fn on_closed(&self, reason: CloseReason) {
        if reason.is_graceful() { self.closed.add(1) } else { self.reset.add(1) }
    }
}

/// What an embedder asks of a server that has `listeners: Listeners`: methods of it.
macro_rules! tells_listening {
    () => {
        /// What the server does, while and after it runs.
        pub fn stats(&self) -> ::std::sync::Arc<$crate::ServerStats> {
            self.listeners.stats().clone()
        }

        /// Hears once, when every endpoint is up or has failed.
        pub fn listening(&self) -> ::crossbeam_channel::Receiver<$crate::Listening> {
            self.listeners.receiver()
        }
    };
}

/// What such a server does when it is attached: methods of its `Application`.
macro_rules! listens_when_attached {
    () => {
        fn attached(&mut self, ctx: &mut ::hoststack_app::MainContext<'_>) {
            self.listeners.attached(ctx);
        }

        fn listening(
            &mut self,
            _ctx: &mut ::hoststack_app::MainContext<'_>,
            opaque: u64,
            result: Result<
                (::hoststack_app::ListenerId, ::hoststack_app::Address),
                ::hoststack_app::ListenError,
            >,
        ) {
            self.listeners.listening(opaque, result);
        }
    };
}

pub(crate) use {listens_when_attached, tells_listening};

/// A server's listen requests, on main.
#[derive(Debug)]
pub(crate) struct Listeners {
    options: Vec<ListenOptions>,
    told: Vec<bool>,
    report: Listening,
    stats: Arc<ServerStats>,
    sender: Sender<Listening>,
    receiver: Receiver<Listening>,
}

impl Listeners {
    pub(crate) fn new(options: Vec<ListenOptions>) -> Listeners {
        let (sender, receiver) = bounded(1);
        let told = vec![false; options.len()];
        Listeners { options, told, report: Listening::default(), stats: Arc::default(), sender, receiver }
    }

    pub(crate) fn stats(&self) -> &Arc<ServerStats> {
        &self.stats
    }

    pub(crate) fn receiver(&self) -> Receiver<Listening> {
        self.receiver.clone()
    }

    /// Asks for all of them, for the application's app worker 0.
    pub(crate) fn attached(&mut self, ctx: &mut MainContext<'_>) {
        let app_worker = ctx.app_workers().first().copied();
        for index in 0..self.options.len() {
            let options = ListenOptions { opaque: OPAQUE_TAG | index as u64, ..self.options[index].clone() };
            let asked = match app_worker {
                Some(app_worker) => ctx.listen(app_worker, options),
                None => Err(ListenError::Detached),
            };
            if let Err(error) = asked {
                self.tell(index, Err(error));
            }
        }
        self.report_if_all_told();
    }

    /// Hears how one of them ended.
    pub(crate) fn listening(&mut self, opaque: u64, result: Result<(ListenerId, Address), ListenError>) {
        if opaque & !u64::from(u32::MAX) != OPAQUE_TAG {
            return;
        }
        // The low half was made from an index.
        let index = opaque as u32 as usize;
        if self.told.get(index) == Some(&false) {
            self.tell(index, result);
            self.report_if_all_told();
        }
    }

    fn tell(&mut self, index: usize, result: Result<(ListenerId, Address), ListenError>) {
        self.told[index] = true;
        match result {
            Ok(up) => self.report.up.push(up),
            Err(error) => self.report.failed.push((self.options[index].local.clone(), error)),
        }
    }

    fn report_if_all_told(&mut self) {
        if self.told.iter().all(|told| *told) {
            *self.stats.listening.lock() = Some(self.report.clone());
            // There is room for the one report there is; a second one (attached again) is in the statistics.
            let _ = self.sender.try_send(self.report.clone());
        }
    }
}
