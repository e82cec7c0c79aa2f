//! A mark for each thing that must happen once to each connect.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

use hoststack::app::Instant;
use parking_lot::Mutex;

use super::Totals;

/// Violations that are kept.
const KEPT: usize = 20;

/// What happens to a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Announced to the client.
    Connected = 1,
    /// Announced to the server, with its header.
    Accepted = 2,
    /// The client read the greeting.
    Greeted = 4,
    /// Its half-open was cleaned.
    Cleaned = 8,
    /// Its session at the client was closed.
    ClientClosed = 16,
    /// Its session at the server was closed.
    ServerClosed = 32,
}

const ALL: [Mark; 6] =
    [Mark::Connected, Mark::Accepted, Mark::Greeted, Mark::Cleaned, Mark::ClientClosed, Mark::ServerClosed];
const WHOLE: u8 = 63;

/// The marks of a slice.
pub(super) struct Ledger {
    from: u64,
    marks: Vec<AtomicU8>,
    /// When each was begun, in microseconds.
    begun: Vec<AtomicU64>,
    counts: [AtomicU64; ALL.len()],
    version_1: AtomicU64,
    longest_us: AtomicU64,
    /// Connects that failed: they will have no more marks but the last.
    failed: AtomicU64,
    violated: AtomicU64,
    violations: Mutex<Vec<String>>,
}

impl Ledger {
    pub(super) fn new(from: u64, connects: usize) -> Ledger {
        Ledger {
            from,
            marks: (0..connects).map(|_| AtomicU8::new(0)).collect(),
            begun: (0..connects).map(|_| AtomicU64::new(0)).collect(),
            counts: Default::default(),
            version_1: AtomicU64::new(0),
            longest_us: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            violated: AtomicU64::new(0),
            violations: Mutex::default(),
        }
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.from)?).ok().filter(|index| *index < self.marks.len())
    }

    pub(super) fn violation(&self, words: String) {
        self.violated.fetch_add(1, Relaxed);
        let mut violations = self.violations.lock();
        if violations.len() < KEPT {
            violations.push(words);
        }
    }

    /// A connect is made.
    pub(super) fn begin(&self, number: u64, now: Instant) {
        if let Some(index) = self.index(number) {
            self.begun[index].store(now.as_micros(), Relaxed);
        }
    }

    /// `mark` happened to `number`; twice is a violation.
    pub(super) fn mark(&self, number: u64, mark: Mark) {
        let Some(index) = self.index(number) else {
            return self.violation(format!("{mark:?} of {number}, which was never made"));
        };
        if self.marks[index].fetch_or(mark as u8, Relaxed) & mark as u8 != 0 {
            return self.violation(format!("{number} was {mark:?} twice"));
        }
        self.count(mark).fetch_add(1, Relaxed);
    }

    fn count(&self, mark: Mark) -> &AtomicU64 {
        &self.counts[(mark as u8).trailing_zeros() as usize]
    }

    pub(super) fn connected(&self, number: u64, now: Instant) {
        self.mark(number, Mark::Connected);
        if let Some(index) = self.index(number) {
            let took = now.as_micros().saturating_sub(self.begun[index].load(Relaxed));
            self.longest_us.fetch_max(took, Relaxed);
        }
    }

    pub(super) fn accepted(&self, number: u64, is_version_1: bool) {
        self.mark(number, Mark::Accepted);
        self.version_1.fetch_add(u64::from(is_version_1), Relaxed);
    }

    /// A connect failed, which none may.
    pub(super) fn failed(&self, number: u64, words: String) {
        self.violation(format!("{number} failed: {words}"));
        self.failed.fetch_add(1, Relaxed);
    }

    fn of(&self, mark: Mark) -> u64 {
        self.count(mark).load(Relaxed)
    }

    /// Grows while anything happens.
    pub(super) fn progress(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum::<u64>() + self.violated.load(Relaxed)
    }

    /// Whether all connects have ended, on both sides.
    pub(super) fn is_over(&self) -> bool {
        let connects = self.marks.len() as u64; // widens
        let clients = self.of(Mark::ClientClosed) + self.failed.load(Relaxed);
        clients == connects
            && self.of(Mark::Cleaned) == connects
            && self.of(Mark::ServerClosed) == self.of(Mark::Accepted)
    }

    /// What was violated, and how often if not all is kept.
    pub(super) fn violations(&self) -> Vec<String> {
        let mut violations = self.violations.lock().clone();
        let all = self.violated.load(Relaxed);
        if all > violations.len() as u64 {
            violations.push(format!("and more: {all} in all"));
        }
        violations
    }

    /// Connects that lack a mark, the first few and how many there are.
    pub(super) fn unfinished(&self) -> Vec<String> {
        let lacking = |marks: u8| ALL.into_iter().filter(move |mark| marks & *mark as u8 == 0);
        let unfinished =
            self.marks.iter().enumerate().map(|(index, marks)| (index as u64, marks.load(Relaxed)));
        let unfinished: Vec<(u64, u8)> = unfinished.filter(|(_, marks)| *marks != WHOLE).collect();
        let mut lines: Vec<String> = unfinished
            .iter()
            .take(KEPT)
            .map(|&(index, marks)| {
                format!("{} was never {:?}", self.from + index, lacking(marks).collect::<Vec<_>>())
            })
            .collect();
        if unfinished.len() > lines.len() {
            lines.push(format!("{} lack something in all", unfinished.len()));
        }
        lines
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            connects: self.marks.len() as u64, // widens
            connected: self.of(Mark::Connected),
            accepted: self.of(Mark::Accepted),
            version_1: self.version_1.load(Relaxed),
            greeted: self.of(Mark::Greeted),
            cleaned: self.of(Mark::Cleaned),
            longest_us: self.longest_us.load(Relaxed),
            seconds: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_twice_or_never_is_said() {
        let ledger = Ledger::new(100, 2);
        for number in [100, 101] {
            for mark in ALL {
                if (number, mark) != (101, Mark::Accepted) {
                    ledger.mark(number, mark);
                }
            }
        }
        ledger.mark(100, Mark::Connected);
        ledger.mark(102, Mark::Cleaned);
        assert_eq!(ledger.violations(), ["100 was Connected twice", "Cleaned of 102, which was never made"]);
        assert_eq!(ledger.unfinished(), ["101 was never [Accepted]"]);
        assert!(!ledger.is_over(), "a session was closed that was never accepted");
    }
}
