//! What must hold of every connect, session and object, checked as callbacks come in.
//!
//! Each connect has a number, its opaque value, which is the index of its [`Ticket`] in one table. A callback touches
//! its ticket and the books of its own object, both in constant time; what threads share are single words of that
//! table, so the oracle puts no two workers in line.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use hoststack::app::{
    ConnectFailure, ConnectId, Context, HalfOpenCounters, SessionHandle, WorkerDetachReport, WorkerId,
};

use super::report::{self, Outcomes};

/// Violations that are kept: the first ones say what happened, the rest follows from them.
const VIOLATIONS_MAX: usize = 20;
/// Most app workers in a slice, detached ones included.
const UNITS_MAX: usize = 1 << 14;
/// Connects that one app may make before it asks for more numbers.
const STOCK: usize = 32;

// What a ticket's word says: three steps of its life, its outcome, its app worker.
const REQUESTED: u32 = 1;
const TOLD: u32 = 2;
const CLEANED: u32 = 4;
const OUTCOME_SHIFT: u32 = 4;
const UNIT_SHIFT: u32 = 8;

/// A connect.
#[derive(Default)]
struct Ticket {
    word: AtomicU32,
    /// Its [`ConnectId`]; 0 while nobody has said.
    connect: AtomicU64,
}

/// An app worker, from its attach to its detach.
#[derive(Default)]
pub(super) struct Unit {
    /// Outcomes that it waits for. What its app keeps the number of connects level by.
    pub(super) in_flight: AtomicI64,
    /// Objects that live.
    objects: AtomicU32,
    /// A callback of it has panicked on purpose.
    injected: AtomicBool,
    /// `worker_detached` was told.
    is_gone: AtomicBool,
    /// Connects cleaned; written on main only.
    cleaned: AtomicU64,
}

/// A counter that shares its cache line with no other.
#[derive(Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// The oracle of a slice.
pub(super) struct Oracle {
    tickets: Vec<Ticket>,
    /// The first number that was never given out.
    next: AtomicUsize,
    /// Numbers that came back unused.
    spare: Mutex<Vec<u32>>,
    units: Vec<Unit>,
    units_made: AtomicUsize,
    reports: Mutex<Vec<(u32, WorkerDetachReport)>>,
    /// Callbacks, by thread: main (and what the conductor did), then the workers.
    callbacks: Vec<Padded>,
    is_violated: AtomicBool,
    violations: Mutex<Vec<String>>,
}

/// A lock whose holder panicked still guards plain data.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Oracle {
    pub(super) fn new(connects: usize, workers: usize) -> Arc<Oracle> {
        Arc::new(Oracle {
            tickets: (0..connects).map(|_| Ticket::default()).collect(),
            next: AtomicUsize::new(0),
            spare: Mutex::new(Vec::new()),
            units: (0..UNITS_MAX).map(|_| Unit::default()).collect(),
            units_made: AtomicUsize::new(0),
            reports: Mutex::new(Vec::new()),
            callbacks: (0..=workers).map(|_| Padded::default()).collect(),
            is_violated: AtomicBool::new(false),
            violations: Mutex::new(Vec::new()),
        })
    }

    /// Something that must not be.
    pub(super) fn violation(&self, what: String) {
        self.is_violated.store(true, Relaxed);
        let mut violations = lock(&self.violations);
        if violations.len() < VIOLATIONS_MAX {
            violations.push(what);
        }
    }

    pub(super) fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violation(what());
        }
    }

    pub(super) fn is_violated(&self) -> bool {
        self.is_violated.load(Relaxed)
    }

    pub(super) fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    /// A number that stands still when connects neither begin nor end. Callbacks on workers do not count: apps' timers
    /// go on for ever.
    pub(super) fn progress(&self) -> u64 {
        self.callbacks[0].0.load(Relaxed) + self.given() as u64
    }

    /// Connects whose numbers were given out.
    pub(super) fn given(&self) -> usize {
        self.next.load(Relaxed).min(self.tickets.len())
    }

    /// Whether all numbers were given out. Some may come back, and go out again.
    pub(super) fn is_spent(&self) -> bool {
        self.given() == self.tickets.len()
    }

    /// Something went on besides connects.
    pub(super) fn went_on(&self) {
        self.called_on_main();
    }

    fn called_on_main(&self) {
        self.callbacks[0].0.fetch_add(1, Relaxed);
    }

    // ---- App workers ----

    /// A new app worker's number here.
    pub(super) fn new_unit(&self) -> u32 {
        let unit = self.units_made.fetch_add(1, Relaxed);
        assert!(unit < self.units.len(), "a slice attaches fewer than {UNITS_MAX} app workers");
        unit as u32 // cannot fail because of the assertion
    }

    pub(super) fn unit(&self, unit: u32) -> &Unit {
        &self.units[unit as usize]
    }

    // ---- Connects ----

    fn refill(&self, stock: &mut Vec<u32>) {
        let first = self.next.fetch_add(STOCK, Relaxed);
        let end = (first + STOCK).min(self.tickets.len());
        if first < end {
            // Cannot fail because a slice has fewer than 2^32 connects.
            stock.extend((first as u32..end as u32).rev());
        } else if let Some(number) = lock(&self.spare).pop() {
            stock.push(number);
        }
    }

    fn requested(&self, number: u32, unit: u32) {
        let ticket = &self.tickets[number as usize];
        ticket.connect.store(0, Relaxed);
        let was = ticket.word.swap(REQUESTED | unit << UNIT_SHIFT, Relaxed);
        self.check(was == 0, || format!("the oracle gave connect {number} out twice ({was:#x})"));
        self.unit(unit).in_flight.fetch_add(1, Relaxed);
    }

    /// `connect` was refused: nothing may follow.
    fn denied(&self, number: u32, unit: u32) {
        let was = self.tickets[number as usize].word.swap(0, Relaxed);
        self.check(was & (TOLD | CLEANED) == 0, || {
            format!("connect {number} was refused at once, and yet had an outcome ({was:#x})")
        });
        self.unit(unit).in_flight.fetch_sub(1, Relaxed);
    }

    /// The connect's id, from whoever knows it.
    fn named(&self, number: u32, connect: ConnectId) {
        let named = &self.tickets[number as usize].connect;
        if let Err(other) = named.compare_exchange(0, connect.as_u64(), Relaxed, Relaxed)
            && other != connect.as_u64()
        {
            let other = ConnectId::from_u64(other);
            self.violation(format!("connect {number} is {connect} here and {other} there"));
        }
    }

    fn ticket(&self, connect: ConnectId, opaque: u64, what: &str) -> Option<(u32, &Ticket)> {
        let number = u32::try_from(opaque).unwrap_or(u32::MAX);
        let ticket = self.tickets.get(number as usize);
        self.check(ticket.is_some(), || format!("{what} of {connect} with the unknown value {opaque}"));
        let ticket = ticket?;
        self.named(number, connect);
        Some((number, ticket))
    }

    /// An outcome was told to `unit`.
    fn told(&self, unit: u32, connect: ConnectId, opaque: u64, outcome: Result<(), ConnectFailure>) {
        let Some((number, ticket)) = self.ticket(connect, opaque, "an outcome") else { return };
        let was = ticket.word.fetch_or(TOLD | Outcomes::index(outcome) << OUTCOME_SHIFT, Relaxed);
        self.check(was & REQUESTED != 0, || format!("{connect} ({number}): an outcome, never asked for"));
        self.check(was & TOLD == 0, || format!("{connect} ({number}): a second outcome, {outcome:?}"));
        self.check(was & CLEANED == 0, || format!("{connect} ({number}): an outcome after it was cleaned"));
        self.check(was >> UNIT_SHIFT == unit, || {
            format!("{connect} ({number}): asked for by app worker {}, told to {unit}", was >> UNIT_SHIFT)
        });
        self.unit(unit).in_flight.fetch_sub(1, Relaxed);
    }

    /// A connect's half-open was cleaned. On main. Returns the app worker.
    pub(super) fn cleaned(&self, connect: ConnectId, opaque: u64) -> Option<u32> {
        self.called_on_main();
        let (number, ticket) = self.ticket(connect, opaque, "the end")?;
        let was = ticket.word.fetch_or(CLEANED, Relaxed);
        let unit = was >> UNIT_SHIFT;
        self.check(was & REQUESTED != 0, || format!("{connect} ({number}): cleaned, never asked for"));
        self.check(was & CLEANED == 0, || format!("{connect} ({number}): cleaned twice"));
        let owner = self.unit(unit);
        self.check(was & TOLD != 0 || owner.injected.load(Acquire), || {
            format!("{connect} ({number}): cleaned before its outcome was told, and no callback had panicked")
        });
        self.check(!owner.is_gone.load(Relaxed), || {
            format!("{connect} ({number}): cleaned after its app worker was detached")
        });
        owner.cleaned.fetch_add(1, Relaxed);
        if was & TOLD == 0 {
            owner.in_flight.fetch_sub(1, Relaxed);
        }
        Some(unit)
    }

    // ---- Detach ----

    /// `worker_detached`, on main.
    pub(super) fn worker_detached(&self, unit: u32, report: &WorkerDetachReport) {
        self.called_on_main();
        let (owner, name) = (self.unit(unit), report.app_worker);
        let was_gone = owner.is_gone.swap(true, Relaxed);
        self.check(!was_gone, || format!("{name} was detached twice"));
        let objects = owner.objects.load(Acquire);
        self.check(objects == 0, || format!("{name} was detached while {objects} of its objects live"));
        self.check(report.stuck.is_empty(), || {
            format!("{name}: {:?} stuck, and no callback hangs", report.stuck)
        });
        let injected = owner.injected.load(Acquire);
        self.check(report.panicked == injected, || {
            format!("{name}: the report says panicked: {}, but it was: {injected}", report.panicked)
        });
        let HalfOpenCounters { requested, cleaned, undelivered, .. } = report.outcomes;
        let outcomes: u64 = report::merged(&report.outcomes).iter().sum();
        self.check(requested == outcomes && requested == cleaned, || {
            format!("{name}: {requested} connects, {outcomes} outcomes, {cleaned} cleaned")
        });
        self.check(undelivered == 0 || injected, || {
            format!("{name}: {undelivered} outcomes not told, and no callback had panicked")
        });
        let heard = owner.cleaned.load(Relaxed);
        self.check(heard == cleaned, || format!("{name}: {cleaned} cleaned by its report, {heard} told"));
        lock(&self.reports).push((unit, report.clone()));
    }

    /// When all is over: every connect against the reports. `orphaned` is what main says.
    pub(super) fn settle(&self, orphaned: u64) -> Settlement {
        let made = self.units_made.load(Relaxed);
        let mut heard = vec![(0u64, Outcomes::default()); made];
        let mut all = Settlement::default();
        for (number, ticket) in self.tickets.iter().enumerate() {
            let word = ticket.word.load(Relaxed);
            if word & REQUESTED == 0 {
                continue;
            }
            all.requested += 1;
            let (requested, outcomes) = &mut heard[(word >> UNIT_SHIFT) as usize];
            let connect = ConnectId::from_u64(ticket.connect.load(Relaxed));
            match (word & TOLD != 0, word & CLEANED != 0) {
                (true, true) => {
                    *requested += 1;
                    outcomes.add(word >> OUTCOME_SHIFT & 0xf);
                    all.outcomes.add(word >> OUTCOME_SHIFT & 0xf);
                }
                (false, true) => {
                    *requested += 1;
                    all.undelivered += 1;
                }
                (true, false) => self.violation(format!("{connect} ({number}) was never cleaned")),
                (false, false) => {
                    all.orphaned += 1;
                    self.check(connect.origin() > 255, || {
                        format!("{connect} ({number}) has no outcome, and no stack handle made it")
                    });
                }
            }
        }
        self.check(all.orphaned == orphaned, || {
            format!("{} connects have no outcome; main knows of {orphaned} orphans", all.orphaned)
        });
        let reports = std::mem::take(&mut *lock(&self.reports));
        self.check(reports.len() == made, || {
            format!("{made} app workers were attached, {} have reported", reports.len())
        });
        for (unit, report) in &reports {
            let (requested, told) = &heard[*unit as usize];
            let said = report::merged(&report.outcomes);
            let (name, undelivered) = (report.app_worker, report.outcomes.undelivered);
            self.check(report.outcomes.requested == *requested, || {
                format!(
                    "{name}: {} connects by its report, {requested} by its callbacks",
                    report.outcomes.requested
                )
            });
            // What could not be told makes up the difference, kind by kind.
            let differences = said.iter().zip(told.merged()).map(|(said, told)| said.checked_sub(told));
            self.check(differences.sum::<Option<u64>>() == Some(undelivered), || {
                format!("{name}: told {told:?}, reported {said:?} and {undelivered} undelivered")
            });
            all.undelivered_reported += undelivered;
            all.panicked += u64::from(report.panicked);
            all.sessions_at_detach += report.sessions as u64;
            all.half_opens_at_detach += report.half_opens as u64;
        }
        all.detached_units = reports.len() as u64;
        self.check(all.undelivered == all.undelivered_reported, || {
            format!("{} outcomes not told, {} by the reports", all.undelivered, all.undelivered_reported)
        });
        all.callbacks = self.callbacks.iter().map(|count| count.0.load(Relaxed)).sum();
        all
    }
}

/// The books closed.
#[derive(Clone, Debug, Default)]
pub(super) struct Settlement {
    pub(super) requested: u64,
    pub(super) outcomes: Outcomes,
    pub(super) undelivered: u64,
    pub(super) orphaned: u64,
    undelivered_reported: u64,
    pub(super) detached_units: u64,
    pub(super) panicked: u64,
    pub(super) sessions_at_detach: u64,
    pub(super) half_opens_at_detach: u64,
    pub(super) callbacks: u64,
}

/// Numbers for connects, held by one that makes them. What is left over goes back.
pub(super) struct Stock {
    oracle: Arc<Oracle>,
    numbers: Vec<u32>,
}

impl Stock {
    pub(super) fn new(oracle: &Arc<Oracle>) -> Stock {
        Stock { oracle: oracle.clone(), numbers: Vec::new() }
    }

    /// Makes one connect for `unit` with `connect`, if the slice has one left. Says whether it had, and the id.
    pub(super) fn connect<E>(
        &mut self,
        unit: u32,
        connect: impl FnOnce(u64) -> Result<ConnectId, E>,
    ) -> Option<Result<ConnectId, E>> {
        if self.numbers.is_empty() {
            self.oracle.refill(&mut self.numbers);
        }
        let number = self.numbers.pop()?;
        // Before the call: the outcome may be told before it returns.
        self.oracle.requested(number, unit);
        let result = connect(u64::from(number));
        match &result {
            Ok(connect) => self.oracle.named(number, *connect),
            Err(_) => {
                self.oracle.denied(number, unit);
                self.numbers.push(number);
            }
        }
        Some(result)
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        if !self.numbers.is_empty() {
            lock(&self.oracle.spare).append(&mut self.numbers);
        }
    }
}

/// How far a session's callbacks have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Closed,
    Announced,
    PeerClosed,
    Reset,
}

/// A callback of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Readable,
    Writable,
    PeerClosed,
    Reset,
    Closed,
}

/// The books of one object on one worker: which sessions it was told of, how far each has come.
pub(super) struct Books {
    oracle: Arc<Oracle>,
    pub(super) unit: u32,
    /// The app worker's number in its application.
    number: u32,
    worker: WorkerId,
    thread: Option<ThreadId>,
    /// By slot of the worker's session pool: the generation last announced here, and its stage.
    sessions: Vec<(u32, Stage)>,
    live: usize,
    has_attached: bool,
    has_panicked: bool,
}

impl Books {
    pub(super) fn new(oracle: &Arc<Oracle>, unit: u32, number: u32, worker: WorkerId) -> Books {
        oracle.unit(unit).objects.fetch_add(1, Relaxed);
        Books {
            oracle: oracle.clone(),
            unit,
            number,
            worker,
            thread: None,
            sessions: Vec::new(),
            live: 0,
            has_attached: false,
            has_panicked: false,
        }
    }

    /// Every callback begins here.
    pub(super) fn enter(&mut self, ctx: &Context<'_>, is_attached: bool) {
        let (unit, number) = (self.unit, self.number);
        self.oracle.callbacks[self.worker.index() + 1].0.fetch_add(1, Relaxed);
        let here = std::thread::current().id();
        let thread = *self.thread.get_or_insert(here);
        let is_home = thread == here && ctx.worker() == self.worker && ctx.unit() == number;
        self.oracle.check(is_home, || format!("app worker {unit}: a callback away from home"));
        self.oracle.check(self.has_attached != is_attached, || {
            format!("app worker {unit}: `attached` is not its first callback, or came twice")
        });
        self.has_attached = true;
        self.oracle.check(!self.oracle.unit(unit).is_gone.load(Relaxed), || {
            format!("app worker {unit}: a callback after it was detached")
        });
        self.oracle.check(!self.has_panicked, || format!("app worker {unit}: a callback after a panic"));
    }

    /// Unwinds out of a callback, on purpose. No panic hook runs, so nothing is printed.
    pub(super) fn panic(&mut self) -> ! {
        self.has_panicked = true;
        self.oracle.unit(self.unit).injected.store(true, Release);
        std::panic::resume_unwind(Box::new("a panic of the stress test"))
    }

    pub(super) fn outcome(
        &mut self,
        connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        self.oracle.told(self.unit, connect, opaque, outcome.map(|_| ()));
        if let Ok(session) = outcome {
            self.announced(session);
        }
    }

    /// `accepted`, or `connected` with a session.
    pub(super) fn announced(&mut self, session: SessionHandle) {
        let key = session.session().0;
        let slot = key.slot as usize;
        if self.sessions.len() <= slot {
            self.sessions.resize(slot + 1, (0, Stage::Closed));
        }
        let (generation, stage) = self.sessions[slot];
        self.oracle
            .check(stage == Stage::Closed, || format!("{session} was announced before {generation} closed"));
        self.oracle.check(session.worker() == self.worker, || format!("{session} on worker {}", self.worker));
        self.sessions[slot] = (key.generation, Stage::Announced);
        self.live += 1;
    }

    /// Any other callback of a session.
    pub(super) fn heard(&mut self, session: SessionHandle, what: Heard) {
        let key = session.session().0;
        let entry = self.sessions.get_mut(key.slot as usize);
        let Some((_, stage)) = entry.filter(|(g, stage)| *g == key.generation && *stage != Stage::Closed)
        else {
            self.oracle
                .violation(format!("{what:?} of {session}, which was not announced here, or was closed"));
            return;
        };
        let last = *stage;
        let (holds, next) = match what {
            Heard::Readable => (last == Stage::Announced, last),
            Heard::Writable => (last <= Stage::PeerClosed, last),
            Heard::PeerClosed => (last == Stage::Announced, Stage::PeerClosed),
            Heard::Reset => (last <= Stage::PeerClosed, Stage::Reset),
            Heard::Closed => (true, Stage::Closed),
        };
        *stage = next;
        self.live -= usize::from(next == Stage::Closed);
        self.oracle.check(holds, || format!("{what:?} of {session} after {last:?}"));
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        let owner = self.oracle.unit(self.unit);
        let (unit, live) = (self.unit, self.live);
        self.oracle.check(live == 0 || self.has_panicked, || {
            format!("app worker {unit}: its object was dropped with {live} sessions that were not closed")
        });
        self.oracle.check(!owner.is_gone.load(Relaxed), || {
            format!("app worker {unit}: an object lived longer than its detach")
        });
        owner.objects.fetch_sub(1, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oracle() -> Arc<Oracle> {
        Oracle::new(10, 1)
    }

    /// One connect that was taken, by a handle; its number is 0.
    fn pending(oracle: &Arc<Oracle>) -> ConnectId {
        let connect = ConnectId::new(300, 1);
        let unit = oracle.new_unit();
        let mut stock = Stock::new(oracle);
        assert_eq!(
            stock.connect(unit, |number| {
                assert_eq!(number, 0);
                Ok::<_, ()>(connect)
            }),
            Some(Ok(connect))
        );
        connect
    }

    #[track_caller]
    fn complains(oracle: &Oracle, of: &str) {
        let violations = oracle.violations();
        assert!(violations.iter().any(|violation| violation.contains(of)), "{violations:?}");
    }

    #[test]
    fn a_connect_that_is_told_and_cleaned_is_fine() {
        let oracle = oracle();
        let connect = pending(&oracle);
        oracle.told(0, connect, 0, Err(ConnectFailure::Refused));
        assert_eq!(oracle.cleaned(connect, 0), Some(0));
        assert!(!oracle.is_violated());
    }

    #[test]
    fn outcomes_out_of_order_twice_or_to_another_are_violations() {
        let (first, second, third) = (oracle(), oracle(), oracle());
        let connect = pending(&first);
        first.told(0, connect, 0, Ok(()));
        first.told(0, connect, 0, Ok(()));
        complains(&first, "a second outcome");
        let connect = pending(&second);
        second.cleaned(connect, 0);
        complains(&second, "cleaned before its outcome");
        second.told(0, connect, 0, Ok(()));
        complains(&second, "after it was cleaned");
        second.cleaned(connect, 0);
        complains(&second, "cleaned twice");
        pending(&third);
        let other = third.new_unit();
        third.told(other, ConnectId::new(300, 2), 0, Ok(()));
        complains(&third, "told to 1");
        complains(&third, "300#1 there");
        third.told(other, ConnectId::new(300, 2), 99, Ok(()));
        complains(&third, "unknown value 99");
    }

    #[test]
    fn connects_without_an_outcome_must_be_orphans_that_main_knows() {
        let oracle = oracle();
        pending(&oracle);
        let settlement = oracle.settle(0);
        assert_eq!((settlement.requested, settlement.orphaned), (1, 1));
        complains(&oracle, "main knows of 0 orphans");
        complains(&oracle, "1 app workers were attached, 0 have reported");
    }

    #[test]
    fn callbacks_of_sessions_that_are_closed_or_unknown_are_violations() {
        let oracle = oracle();
        let unit = oracle.new_unit();
        let mut books = Books::new(&oracle, unit, 0, WorkerId(0));
        let session = SessionHandle::from_u64(5 << 28 | 3);
        books.announced(session);
        books.heard(session, Heard::Readable);
        books.heard(session, Heard::PeerClosed);
        books.heard(session, Heard::Writable);
        books.heard(session, Heard::Closed);
        assert!(!oracle.is_violated());
        books.heard(session, Heard::Readable);
        complains(&oracle, "Readable of 0:5.3");
        let later = SessionHandle::from_u64(5 << 28 | 4);
        books.announced(later);
        books.heard(later, Heard::PeerClosed);
        books.heard(later, Heard::Readable);
        complains(&oracle, "Readable of 0:5.4 after PeerClosed");
        drop(books);
        complains(&oracle, "dropped with 1 sessions");
    }

    #[test]
    fn numbers_that_are_not_used_come_back() {
        let oracle = oracle();
        let unit = oracle.new_unit();
        let mut stock = Stock::new(&oracle);
        assert_eq!(stock.connect(unit, |_| Err::<ConnectId, _>(7)), Some(Err(7)));
        assert!(oracle.is_spent() && oracle.unit(unit).in_flight.load(Relaxed) == 0);
        drop(stock);
        let mut again = Stock::new(&oracle);
        for count in 1..=10 {
            assert!(again.connect(unit, |_| Ok::<_, ()>(ConnectId::new(300, count))).is_some());
        }
        assert!(oracle.is_spent());
        assert!(again.connect(unit, |_| Err(())).is_none());
        assert!(!oracle.is_violated());
    }
}
