//! What happens per second: differences of the counters of two looks, divided by the stack's own time between them.

use std::collections::{BTreeMap, VecDeque};

use super::data::{AppWorker, Figures, Snapshot, Worker};

/// What is drawn over time, in the order of the screen.
pub(super) const RATES: [&str; 7] =
    ["connects/s", "accepts/s", "ends/s", "in B/s", "out B/s", "retransmits/s", "drops/s"];
/// Looks that the small plots go back.
const HISTORY: usize = 600;

/// Rates between two looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    /// The stack's time between the looks.
    pub(super) span_us: f64,
    /// As [`RATES`]; `None`: not told, or its counter was cleared.
    pub(super) totals: [Option<f64>; RATES.len()],
    /// One per worker, in order.
    pub(super) workers: Vec<WorkerRates>,
    /// Main's, which has no packets; its number means nothing.
    pub(super) main: WorkerRates,
    /// Drops by reason.
    pub(super) drops: BTreeMap<String, f64>,
    /// Connects that came up, by app worker.
    pub(super) established: BTreeMap<String, f64>,
}

/// A worker's rates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct WorkerRates {
    /// Its number.
    pub(super) number: u64,
    /// Share of its time (or, where that is not told, of its steps) that found something to do: 0 to 1.
    pub(super) load: Option<f64>,
    /// Steps per second.
    pub(super) steps: Option<f64>,
    /// Packets received at a time (or, where that is not told, per step that found something to do).
    pub(super) vectors: Option<f64>,
    /// Packets received per second.
    pub(super) rx: Option<f64>,
    /// Packets sent per second.
    pub(super) tx: Option<f64>,
    /// Sleeps per second.
    pub(super) sleeps: Option<f64>,
}

/// What lies between two looks.
#[derive(Clone, Debug)]
pub(super) enum Between {
    /// The stack went on.
    Rates(Box<Rates>),
    /// Another stack, or the same started anew: its time or its workers went back.
    Restarted,
    /// No time has passed.
    Nothing,
}

/// Compares two looks at a stack.
pub(super) fn between(before: &Snapshot, after: &Snapshot) -> Between {
    let span_us = match (before.at_us, after.at_us) {
        (Some(before), Some(after)) => after - before,
        _ => after.looked_us - before.looked_us,
    };
    if span_us < 0.0 || restarted(before, after) {
        return Between::Restarted;
    }
    if span_us == 0.0 {
        return Between::Nothing;
    }
    let per_second =
        |before: Option<f64>, after: Option<f64>| rise(before, after).map(|rise| rise * 1e6 / span_us);
    let (was, is) = (totals(before), totals(after));
    let totals = std::array::from_fn(|index| per_second(was[index], is[index]));
    let mut rates = Rates { span_us, totals, ..Rates::default() };
    rates.workers = before
        .workers
        .iter()
        .zip(&after.workers)
        .map(|(before, after)| thread(after.number, &before.figures, &after.figures, span_us))
        .collect();
    rates.main = thread(0, &before.main, &after.main, span_us);
    let (dropped_before, dropped) = (drops(before), drops(after));
    for (reason, count) in dropped {
        let was = dropped_before.get(&reason).copied().unwrap_or(0.0);
        rates.drops.extend(per_second(Some(was), Some(count)).map(|rate| (reason, rate)));
    }
    for app in &after.apps {
        let was = before.apps.iter().find(|other| other.name() == app.name());
        let count = |app: &AppWorker| app.figures.get("outcomes.established");
        let rate = per_second(was.and_then(count), count(app));
        rates.established.extend(rate.map(|rate| (app.name(), rate)));
    }
    Between::Rates(Box::new(rates))
}

/// Whether the second look is at another stack. A counter alone may go back: someone cleared it.
fn restarted(before: &Snapshot, after: &Snapshot) -> bool {
    let is_timed = before.at_us.is_some() && after.at_us.is_some();
    let steps = |worker: &Worker| worker.figures.get("steps").unwrap_or(0.0);
    let mut pairs = before.workers.iter().zip(&after.workers);
    before.workers.len() != after.workers.len()
        || before.version != after.version
        || (!is_timed && pairs.any(|(before, after)| steps(after) < steps(before)))
}

/// By how much a counter has grown; nothing when it was not told or went back.
fn rise(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    let rise = after? - before?;
    (rise >= 0.0).then_some(rise)
}

/// Drops by reason, all workers'.
pub(super) fn drops(snapshot: &Snapshot) -> BTreeMap<String, f64> {
    let mut drops = BTreeMap::new();
    for drop in snapshot.workers.iter().flat_map(|worker| &worker.drops) {
        *drops.entry(drop.reason.clone()).or_insert(0.0) += drop.count;
    }
    drops
}

/// The counters whose rises are [`RATES`].
fn totals(snapshot: &Snapshot) -> [Option<f64>; RATES.len()] {
    let sum = |figure: &dyn Fn(&Worker) -> Option<f64>| {
        let figures = snapshot.workers.iter().map(figure);
        figures.reduce(|sum, figure| Some(sum? + figure?)).flatten()
    };
    [
        sum(&|worker| worker.figure_or_tcp("connects", "established_active")),
        sum(&|worker| worker.figure_or_tcp("accepts", "established_passive")),
        sum(&|worker| worker.figure_or_tcp("ends", "closed")),
        sum(&|worker| worker.figure_or_tcp("bytes_in", "bytes_in")),
        sum(&|worker| worker.figure_or_tcp("bytes_out", "bytes_out")),
        sum(&|worker| worker.tcp("retransmitted_segments")),
        sum(&|worker| Some(worker.drops.iter().map(|drop| drop.count).sum())),
    ]
}

fn thread(number: u64, before: &Figures, after: &Figures, span_us: f64) -> WorkerRates {
    let risen = |name: &str| rise(before.get(name), after.get(name));
    let per_second = |name: &str| risen(name).map(|rise| rise * 1e6 / span_us);
    let share = |part: Option<f64>, whole: Option<f64>| match (part?, whole?) {
        (_, 0.0) => Some(0.0),
        (part, whole) => Some(part / whole),
    };
    let busy = risen("busy_steps");
    WorkerRates {
        number,
        load: risen("pace.busy_us")
            .map(|busy_us| (busy_us / span_us).min(1.0))
            .or_else(|| share(busy, risen("steps"))),
        steps: per_second("steps"),
        // Of no packets there is no vector.
        vectors: share(risen("rx_packets"), risen("rx_vectors").or(busy)).filter(|vectors| *vectors > 0.0),
        rx: per_second("rx_packets"),
        tx: per_second("tx_packets"),
        sleeps: per_second("sleeps"),
    }
}

/// Rates over time, for the small plots.
#[derive(Clone, Debug, Default)]
pub(super) struct History(VecDeque<(f64, [Option<f64>; RATES.len()])>);

impl History {
    /// Adds the newest.
    pub(super) fn push(&mut self, rates: &Rates) {
        self.add(rates.span_us, rates.totals);
    }

    /// A hole: the stack was away.
    pub(super) fn push_gap(&mut self) {
        self.add(0.0, [None; RATES.len()]);
    }

    fn add(&mut self, span_us: f64, totals: [Option<f64>; RATES.len()]) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back((span_us, totals));
    }

    /// The newest `count` values of the rate at `index` in [`RATES`], oldest first.
    pub(super) fn last(&self, index: usize, count: usize) -> Vec<Option<f64>> {
        self.newest(count).map(|(_, totals)| totals[index]).collect()
    }

    /// How long the newest `count` looks go back.
    pub(super) fn span_us(&self, count: usize) -> f64 {
        self.newest(count).map(|(span_us, _)| span_us).sum()
    }

    fn newest(&self, count: usize) -> impl Iterator<Item = &(f64, [Option<f64>; RATES.len()])> {
        self.0.iter().skip(self.0.len().saturating_sub(count))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn look(at_us: u64, worker: Value) -> Snapshot {
        Snapshot::read(&json!({ "at_us": at_us, "workers": [worker] }))
    }

    #[track_caller]
    fn rates(before: &Snapshot, after: &Snapshot) -> Rates {
        match between(before, after) {
            Between::Rates(rates) => *rates,
            other => panic!("no rates: {other:?}"),
        }
    }

    #[test]
    fn a_rate_is_the_rise_per_second_of_the_stacks_own_time() {
        let before = look(
            1_000_000,
            json!({
                "steps": 100, "busy_steps": 10, "rx_packets": 5, "sleeps": 1,
                "tcp": [["established_active", 4], ["bytes_in", 100]],
                "drops": [{ "reason": "checksum", "count": 1 }],
            }),
        );
        let after = look(
            3_000_000,
            json!({
                "steps": 300, "busy_steps": 60, "rx_packets": 205, "sleeps": 5,
                "tcp": [["established_active", 10], ["bytes_in", 100], ["closed", 3]],
                "drops": [{ "reason": "checksum", "count": 3 }, { "reason": "bad-ack", "count": 8 }],
            }),
        );
        let rates = rates(&before, &after);
        assert_eq!(
            rates.totals,
            [Some(3.0), Some(0.0), Some(1.5), Some(0.0), Some(0.0), Some(0.0), Some(5.0)]
        );
        let worker = rates.workers[0];
        assert_eq!((worker.steps, worker.rx, worker.sleeps), (Some(100.0), Some(100.0), Some(2.0)));
        assert_eq!((worker.load, worker.vectors), (Some(0.25), Some(4.0)));
        assert_eq!(worker.tx, None, "it was not told");
        assert_eq!(rates.drops["checksum"], 1.0);
        assert_eq!(rates.drops["bad-ack"], 4.0);
    }

    #[test]
    fn load_is_busy_time_where_it_is_told() {
        let before = look(0, json!({ "pace": { "busy_us": 0 }, "steps": 0, "busy_steps": 0 }));
        let after = look(1_000_000, json!({ "pace": { "busy_us": 400_000 }, "steps": 9, "busy_steps": 9 }));
        assert_eq!(rates(&before, &after).workers[0].load, Some(0.4));
    }

    #[test]
    fn main_is_a_thread_like_the_workers() {
        let look = |at_us: u64| {
            let main =
                json!({ "steps": at_us / 1000, "sleeps": at_us / 10_000, "pace": { "busy_us": at_us / 2 } });
            Snapshot::read(&json!({ "at_us": at_us, "workers": [], "main": main }))
        };
        let main = rates(&look(1_000_000), &look(2_000_000)).main;
        assert_eq!((main.load, main.steps, main.sleeps), (Some(0.5), Some(1000.0), Some(100.0)));
        assert_eq!((main.rx, main.vectors), (None, None));
    }

    #[test]
    fn a_stack_whose_time_goes_back_was_started_anew() {
        let (early, late) = (look(1, json!({ "steps": 5 })), look(9, json!({ "steps": 2 })));
        assert!(matches!(between(&late, &early), Between::Restarted));
        let two = Snapshot::read(&json!({ "at_us": 20, "workers": [{}, {}] }));
        assert!(matches!(between(&late, &two), Between::Restarted), "a worker more");
        assert!(matches!(between(&late, &late), Between::Nothing));
    }

    #[test]
    fn a_counter_that_was_cleared_has_no_rate_and_the_others_do() {
        let before = look(0, json!({ "steps": 50, "rx_packets": 7 }));
        let after = look(1_000_000, json!({ "steps": 3, "rx_packets": 9 }));
        let worker = rates(&before, &after).workers[0];
        assert_eq!((worker.steps, worker.rx), (None, Some(2.0)));
    }

    #[test]
    fn without_the_stacks_time_ours_counts_and_steps_tell_a_restart() {
        let look = |looked_us, steps: u64| {
            let snapshot = Snapshot::read(&json!({ "workers": [{ "steps": steps }] }));
            Snapshot { looked_us, ..snapshot }
        };
        assert_eq!(rates(&look(0.0, 1), &look(500_000.0, 2)).workers[0].steps, Some(2.0));
        assert!(matches!(between(&look(0.0, 2), &look(500_000.0, 1)), Between::Restarted));
    }

    #[test]
    fn history_keeps_the_newest_and_its_holes() {
        let mut history = History::default();
        for rate in 0..=HISTORY {
            let rates = Rates { span_us: 10.0, ..Rates::default() };
            // Cannot lose anything: a few hundred.
            history.push(&Rates { totals: [Some(rate as f64); RATES.len()], ..rates });
        }
        history.push_gap();
        assert_eq!(history.last(0, 2), [Some(HISTORY as f64), None]);
        assert_eq!(history.last(0, 2 * HISTORY).len(), HISTORY);
        assert_eq!(history.span_us(3), 20.0);
    }
}
