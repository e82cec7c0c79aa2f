//! What slices did, in figures: the proof that they did what they were to do.

use std::fmt;

use hoststack::app::{ConnectFailure, HalfOpenCounters};
use serde_json::{Value, json};

/// Outcomes told, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes([u64; 9]);

/// The kinds, in the order of [`Outcomes`].
const KINDS: [&str; 9] = [
    "established",
    "refused",
    "timed_out",
    "unreachable",
    "cancelled",
    "detached",
    "address_in_use",
    "address_not_available",
    "no_room",
];

/// Kinds that a detach report keeps apart; it has one figure for the last three.
const MERGED: usize = 7;

impl Outcomes {
    pub(super) fn index(outcome: Result<(), ConnectFailure>) -> u32 {
        match outcome {
            Ok(()) => 0,
            Err(ConnectFailure::Refused) => 1,
            Err(ConnectFailure::TimedOut) => 2,
            Err(ConnectFailure::Unreachable) => 3,
            Err(ConnectFailure::Cancelled) => 4,
            Err(ConnectFailure::Detached) => 5,
            Err(ConnectFailure::AddressInUse) => 6,
            Err(ConnectFailure::AddressNotAvailable) => 7,
            Err(ConnectFailure::NoRoom) => 8,
            Err(ConnectFailure::Stage(_) | ConnectFailure::System(_)) => {
                unreachable!("no connect here has stages or goes to the host's kernel")
            }
        }
    }

    /// Counts one of a kind.
    pub(super) fn add(&mut self, index: u32) {
        if let Some(count) = self.0.get_mut(index as usize) {
            *count += 1;
        }
    }

    pub(super) fn merged(&self) -> [u64; MERGED] {
        let [a, b, c, d, e, f, failures @ ..] = self.0;
        [a, b, c, d, e, f, failures.iter().sum()]
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Outcomes) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, its)| *mine += its);
    }

    /// How many of a kind: `established`, `refused`, ...; 0 for a name that is none.
    #[must_use]
    pub fn of(&self, kind: &str) -> u64 {
        KINDS.iter().zip(self.0).find(|(name, _)| **name == kind).map_or(0, |(_, count)| count)
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        KINDS.into_iter().zip(self.0)
    }
}

/// The outcomes of a detach report, in the order of [`Outcomes::merged`].
pub(super) fn merged(counters: &HalfOpenCounters) -> [u64; MERGED] {
    let HalfOpenCounters {
        requested: _,
        established,
        refused,
        timed_out,
        unreachable,
        cancelled,
        detached,
        failed,
        undelivered: _,
        cleaned: _,
        ..
    } = *counters;
    [established, refused, timed_out, unreachable, cancelled, detached, failed]
}

/// What a slice, or many, did.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Slices.
    pub slices: u64,
    /// Connects that were taken.
    pub connects: u64,
    /// Outcomes told.
    pub outcomes: Outcomes,
    /// Outcomes that a panic left nobody to tell.
    pub undelivered: u64,
    /// Connects through a handle whose app worker was freed before main saw them.
    pub orphaned: u64,
    /// Connects refused at once.
    pub denied: u64,
    /// Cancels asked for.
    pub cancels: u64,
    /// Sessions accepted.
    pub accepted: u64,
    /// Echoes that came back whole.
    pub echoed: u64,
    /// Applications detached and attached again under their names, the end of the slice left out.
    pub app_detaches: u64,
    /// App workers detached, those of their applications included.
    pub unit_detaches: u64,
    /// Of them, after a panic.
    pub panics: u64,
    /// Listeners taken down and put up again.
    pub unlistens: u64,
    /// Sessions that lived when their app worker was detached.
    pub sessions_at_detach: u64,
    /// Connects that were pending when their app worker was detached.
    pub half_opens_at_detach: u64,
    /// Callbacks.
    pub callbacks: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// CPU time of the process in seconds.
    pub cpu_seconds: f64,
}

impl Totals {
    /// Adds another's.
    pub fn merge(&mut self, other: &Totals) {
        let mut theirs = other.figures();
        for (_, mine) in self.figures_mut() {
            if let Some((_, its)) = theirs.next() {
                *mine += its;
            }
        }
        self.outcomes.merge(&other.outcomes);
        self.seconds += other.seconds;
        self.cpu_seconds += other.cpu_seconds;
    }

    fn figures_mut(&mut self) -> [(&'static str, &mut u64); 15] {
        [
            ("slices", &mut self.slices),
            ("connects", &mut self.connects),
            ("undelivered", &mut self.undelivered),
            ("orphaned", &mut self.orphaned),
            ("denied", &mut self.denied),
            ("cancels", &mut self.cancels),
            ("accepted", &mut self.accepted),
            ("echoed", &mut self.echoed),
            ("app_detaches", &mut self.app_detaches),
            ("unit_detaches", &mut self.unit_detaches),
            ("panics", &mut self.panics),
            ("unlistens", &mut self.unlistens),
            ("sessions_at_detach", &mut self.sessions_at_detach),
            ("half_opens_at_detach", &mut self.half_opens_at_detach),
            ("callbacks", &mut self.callbacks),
        ]
    }

    fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        self.clone().figures_mut().map(|(name, figure)| (name, *figure)).into_iter()
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut object = json!({ "seconds": self.seconds, "cpu_seconds": self.cpu_seconds });
        for (name, figure) in self.figures() {
            object[name] = figure.into();
        }
        object["outcomes"] =
            self.outcomes.named().map(|(name, count)| (name.to_owned(), Value::from(count))).collect();
        object
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, figure) in self.figures().chain(self.outcomes.named()) {
            if figure > 0 {
                writeln!(f, "  {name:<24} {figure:>12}")?;
            }
        }
        write!(f, "  {:.1} s, {:.1} CPU s", self.seconds, self.cpu_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up() {
        let mut outcomes = Outcomes::default();
        outcomes.add(Outcomes::index(Err(ConnectFailure::NoRoom)));
        outcomes.add(Outcomes::index(Err(ConnectFailure::AddressInUse)));
        outcomes.add(Outcomes::index(Ok(())));
        assert_eq!(outcomes.merged(), [1, 0, 0, 0, 0, 0, 2]);
        let one =
            Totals { slices: 1, connects: 3, outcomes, callbacks: 9, seconds: 0.5, ..Totals::default() };
        let mut all = one.clone();
        all.merge(&one);
        assert_eq!((all.slices, all.connects, all.callbacks), (2, 6, 18));
        assert_eq!((all.outcomes.of("no_room"), all.outcomes.of("nothing")), (2, 0));
        assert_eq!(all.json()["outcomes"]["established"], 2);
        assert!(all.to_string().contains("1.0 s"));
    }
}
