//! `show errors [nonzero]`: what was dropped, by reason.

use std::collections::BTreeMap;

use hoststack::inspect::{WorkerInfo, drop_reasons};
use serde::Serialize;

use crate::table::{Column, Table, grouped};

/// `show errors`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Errors {
    /// Reasons, those that struck most often first.
    pub(crate) errors: Vec<ErrorInfo>,
}

/// A drop reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ErrorInfo {
    /// Its stable name.
    pub(crate) reason: String,
    /// How often it struck, on all workers.
    pub(crate) count: u64,
    /// How often on each worker, in order.
    pub(crate) workers: Vec<u64>,
    /// What it means.
    pub(crate) help: String,
}

impl Errors {
    /// What these workers dropped. Unless `nonzero`, with all the reasons that did not strike.
    pub(crate) fn of(workers: &[WorkerInfo], nonzero: bool) -> Errors {
        // One name may have several meanings: `not-accepted` has.
        let mut counts: BTreeMap<(String, String), Vec<u64>> = BTreeMap::new();
        let none = || vec![0; workers.len()];
        if !nonzero {
            counts.extend(drop_reasons().into_iter().map(|drop| ((drop.reason, drop.help), none())));
        }
        for (index, worker) in workers.iter().enumerate() {
            for drop in &worker.drops {
                let counts = counts.entry((drop.reason.clone(), drop.help.clone())).or_insert_with(none);
                counts[index] += drop.count;
            }
        }
        let mut errors: Vec<_> = counts
            .into_iter()
            .map(|((reason, help), workers)| ErrorInfo { reason, count: workers.iter().sum(), workers, help })
            .collect();
        errors.sort_by_key(|error| std::cmp::Reverse(error.count));
        Errors { errors }
    }

    /// A row for each reason; a column for each worker if there are several.
    pub(crate) fn text(&self) -> String {
        let Some(first) = self.errors.first() else { return "nothing was dropped\n".to_owned() };
        let workers = if first.workers.len() > 1 { first.workers.len() } else { 0 };
        let mut columns = vec![Column::Right("count")];
        columns.extend((0..workers).map(|_| Column::Right("worker")));
        columns.extend([Column::Left("reason"), Column::Left("meaning")]);
        let mut table = Table::new(&columns);
        if workers > 0 {
            table.row([String::new()].into_iter().chain((0..workers).map(|worker| worker.to_string())));
        }
        for error in &self.errors {
            let of_workers = error.workers.iter().take(workers).map(|count| grouped(*count));
            let head = [grouped(error.count)].into_iter().chain(of_workers);
            table.row(head.chain([error.reason.clone(), error.help.clone()]));
        }
        table.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack::inspect::DropInfo;

    fn worker(number: u8, drops: &[(&str, u64)]) -> WorkerInfo {
        let drop = |&(reason, count): &(&str, u64)| {
            let known = drop_reasons().into_iter().find(|drop| drop.reason == reason);
            DropInfo { count, ..known.expect("a reason of the table") }
        };
        WorkerInfo { worker: number, drops: drops.iter().map(drop).collect(), ..WorkerInfo::default() }
    }

    #[test]
    fn reasons_have_the_sum_of_the_workers_and_the_most_frequent_stands_first() {
        let all = drop_reasons();
        let (a, b) = (all[0].reason.as_str(), all[1].reason.as_str());
        let shown = Errors::of(&[worker(0, &[(a, 3)]), worker(1, &[(a, 1000), (b, 5000)])], true);
        let heads: Vec<_> = shown
            .errors
            .iter()
            .map(|error| (error.reason.as_str(), error.count, &error.workers[..]))
            .collect();
        assert_eq!(heads, [(b, 5000, &[0, 5000][..]), (a, 1003, &[3, 1000][..])]);
        let text = shown.text();
        assert_eq!(text.lines().next().unwrap().split_whitespace().count(), 5);
        assert!(text.contains("5 000") && text.contains(&all[1].help), "{text}");
    }

    #[test]
    fn without_nonzero_every_reason_is_listed_once() {
        let shown = Errors::of(&[worker(0, &[("handover-ring-full", 2)])], false);
        assert_eq!(shown.errors.len(), drop_reasons().len());
        assert_eq!((shown.errors[0].reason.as_str(), shown.errors[0].count), ("handover-ring-full", 2));
        assert!(shown.errors[1..].iter().all(|error| error.count == 0 && !error.help.is_empty()));
        assert_eq!(Errors::of(&[worker(0, &[])], true).text(), "nothing was dropped\n");
    }
}
