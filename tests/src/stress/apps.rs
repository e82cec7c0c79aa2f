//! What the client and server applications share: the books of an application on main, the counters, the sweeps.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use hoststack::app::{
    ConnectId, Context, DetachReport, Duration, Instant, SessionHandle, WorkerDetachReport, WorkerId,
};

use super::oracle::{Books, Oracle, lock};
use super::world::Temper;

/// What the objects of a slice count together; each adds its own figures when it is dropped.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) denied: AtomicU64,
    pub(super) cancels: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) echoed: AtomicU64,
}

/// What every app of a slice knows.
pub(super) struct Shared {
    pub(super) oracle: Arc<Oracle>,
    pub(super) temper: Temper,
    pub(super) in_flight: i64,
    pub(super) tally: Tally,
    pub(super) seed: AtomicU64,
}

impl Shared {
    /// A seed that no other object has.
    pub(super) fn next_seed(&self) -> u64 {
        self.seed.fetch_add(1, Relaxed)
    }
}

/// The oracle's numbers of an application's app workers, by their numbers in the application.
pub(super) type Units = Arc<Mutex<Vec<u32>>>;

/// The books of an application on main.
pub(super) struct AppBooks {
    oracle: Arc<Oracle>,
    units: Units,
    gone: Vec<u32>,
    is_detached: bool,
}

impl AppBooks {
    pub(super) fn new(oracle: &Arc<Oracle>, units: &Units) -> AppBooks {
        AppBooks { oracle: oracle.clone(), units: units.clone(), gone: Vec::new(), is_detached: false }
    }

    /// The books of an object of app worker `number`.
    pub(super) fn object(&mut self, number: u32, worker: WorkerId) -> Books {
        let mut units = lock(&self.units);
        self.oracle.check(!self.is_detached, || "an object was asked for after `detached`".to_owned());
        if units.len() == number as usize {
            units.push(self.oracle.new_unit());
        }
        let unit = units.get(number as usize).copied().unwrap_or_default();
        self.oracle
            .check(number as usize + 1 == units.len(), || format!("app worker number {number} comes late"));
        Books::new(&self.oracle, unit, number, worker)
    }

    pub(super) fn cleaned(&self, connect: ConnectId, opaque: u64) {
        self.oracle.check(!self.is_detached, || format!("{connect} was cleaned after `detached`"));
        if let Some(unit) = self.oracle.cleaned(connect, opaque) {
            self.oracle.check(lock(&self.units).contains(&unit), || {
                format!("{connect} was cleaned at an application that did not make it")
            });
        }
    }

    pub(super) fn worker_detached(&mut self, report: &WorkerDetachReport) {
        self.oracle.check(!self.is_detached, || format!("{} after `detached`", report.app_worker));
        let unit = lock(&self.units).get(report.unit as usize).copied();
        match unit {
            Some(unit) => self.oracle.worker_detached(unit, report),
            None => self.oracle.violation(format!("app worker {} was never attached", report.unit)),
        }
        self.gone.push(report.unit);
    }

    pub(super) fn detached(&mut self, report: &DetachReport) {
        self.oracle.went_on();
        self.oracle.check(!self.is_detached, || format!("{} was detached twice", report.name));
        self.is_detached = true;
        let (made, gone) = (lock(&self.units).len(), self.gone.len());
        self.oracle.check(made == gone, || {
            format!("{} was detached with {gone} of its {made} app workers gone", report.name)
        });
        for unit in &report.app_workers {
            self.oracle.check(self.gone.contains(&unit.unit), || {
                format!("{} reports app worker {}, which never ended", report.name, unit.unit)
            });
        }
    }
}

impl Drop for AppBooks {
    fn drop(&mut self) {
        let made = lock(&self.units).len();
        self.oracle
            .check(self.is_detached || made == 0, || "an application ended without `detached`".to_owned());
    }
}

/// The timer of every object.
pub(super) const TICK: u64 = 1;
/// How often it goes off.
pub(super) const TICK_EVERY: Duration = Duration::from_millis(4);
/// When a session that shall be held shortly is reset.
const SOON: Duration = Duration::from_millis(5);
/// When a session that should have ended by itself is.
const LATE: Duration = Duration::from_millis(700);

/// Sessions to be reset, each queue in order of time.
#[derive(Default)]
pub(super) struct Sweeps {
    soon: VecDeque<(Instant, SessionHandle)>,
    late: VecDeque<(Instant, SessionHandle)>,
}

impl Sweeps {
    pub(super) fn soon(&mut self, now: Instant, session: SessionHandle) {
        self.soon.push_back((now + SOON, session));
    }

    pub(super) fn late(&mut self, now: Instant, session: SessionHandle) {
        self.late.push_back((now + LATE, session));
    }

    /// Resets those whose time has come. Most have ended: a stale handle does nothing.
    pub(super) fn sweep(&mut self, ctx: &mut Context<'_>) {
        for queue in [&mut self.soon, &mut self.late] {
            while let Some((_, session)) = queue.pop_front_if(|(at, _)| *at <= ctx.now()) {
                ctx.reset(session);
            }
        }
    }
}
