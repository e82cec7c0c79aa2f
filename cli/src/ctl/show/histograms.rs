//! `show histogram [NAME]`.

use hoststack::inspect::{HistogramInfo, HistogramKind};
use serde::Serialize;

use crate::table::{Column, Table, grouped, span_us};

/// The widest bar.
const BAR: u64 = 40;

/// Whose round trips they are.
const OF_THIS_TCP: &str = "(of this stack's own TCP: sockets of the host do not tell theirs)\n";

/// `show histogram`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Histograms {
    /// Of each kind that of all workers, then each worker's.
    pub(crate) histograms: Vec<HistogramInfo>,
}

impl Histograms {
    /// Those of one kind, by its name; `None`: all.
    pub(crate) fn of(mut histograms: Vec<HistogramInfo>, name: Option<&str>) -> Histograms {
        histograms.retain(|histogram| name.is_none_or(|name| histogram.name == name));
        // Workers answer in any order.
        let kinds: Vec<&str> = histograms.iter().map(|histogram| histogram.name).collect();
        let place = |name: &str| kinds.iter().position(|kind| *kind == name);
        histograms.sort_by_key(|histogram| (place(histogram.name), histogram.worker));
        Histograms { histograms }
    }

    /// A row for each histogram; if all are of one kind, how its values are spread besides.
    pub(crate) fn text(&self) -> String {
        let Some(first) = self.histograms.first() else { return "no histogram\n".to_owned() };
        let mut table = Table::new(&[
            Column::Left("histogram"),
            Column::Left("worker"),
            Column::Right("count"),
            Column::Right("mean"),
            Column::Right("p50"),
            Column::Right("p90"),
            Column::Right("p99"),
            Column::Right("p99.9"),
            Column::Right("max"),
        ]);
        for histogram in &self.histograms {
            let whose = match histogram.worker {
                Some(worker) => worker.to_string(),
                None if histogram.name.starts_with("main") => "main".to_owned(),
                None => "all".to_owned(),
            };
            let values = [
                histogram.mean(),
                histogram.p50,
                histogram.p90,
                histogram.p99,
                histogram.p999,
                histogram.max,
            ];
            let values = values.map(|value| match histogram.count {
                0 => "-".to_owned(),
                _ => in_unit(histogram, value),
            });
            let head = [histogram.name.to_owned(), whose, grouped(histogram.count)];
            table.row(head.into_iter().chain(values));
        }
        let one_kind = self.histograms.iter().all(|histogram| histogram.name == first.name);
        let spread = if one_kind && first.count > 0 { spread(first) } else { String::new() };
        let between = if spread.is_empty() { "" } else { "\n" };
        let whose = if one_kind && first.name == HistogramKind::Rtt.name() { OF_THIS_TCP } else { "" };
        format!("{table}{between}{spread}{whose}")
    }
}

fn in_unit(histogram: &HistogramInfo, value: u64) -> String {
    if histogram.unit == "us" { span_us(value) } else { grouped(value) }
}

/// The buckets between the first and the last that have values, with a bar each.
fn spread(histogram: &HistogramInfo) -> String {
    let bounds = histogram.buckets.iter().map(|bucket| Some((bucket.below, bucket.count)));
    let (mut rows, mut before, mut from) = (Vec::new(), 0, 0);
    for bound in bounds.chain([None]) {
        let (below, count) = bound.unwrap_or((u64::MAX, histogram.count));
        rows.push((from, bound.map(|(below, _)| below), count.saturating_sub(before)));
        (before, from) = (count, below);
    }
    let has_values = |&(_, _, count): &(u64, Option<u64>, u64)| count > 0;
    let first = rows.iter().position(has_values).unwrap_or(0);
    let end = rows.iter().rposition(has_values).map_or(0, |last| last + 1);
    let most = rows.iter().map(|(_, _, count)| *count).max().unwrap_or(0);
    let mut table = Table::new(&[
        Column::Right("from"),
        Column::Right("below"),
        Column::Right("count"),
        Column::Right("share"),
        Column::Left(""),
    ]);
    for &(from, below, count) in rows.get(first..end).unwrap_or_default() {
        let share = format!("{:.1}%", count as f64 * 100.0 / histogram.count as f64);
        let bar = (u128::from(count) * u128::from(BAR)).div_ceil(u128::from(most.max(1)));
        table.row([
            in_unit(histogram, from),
            below.map_or("-".to_owned(), |below| in_unit(histogram, below)),
            grouped(count),
            share,
            // At most `BAR`.
            "#".repeat(usize::try_from(bar).unwrap_or(0)),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack::inspect::BucketInfo;

    fn histogram(name: &'static str, worker: Option<u8>, unit: &'static str) -> HistogramInfo {
        let bucket = |below, count| BucketInfo { below, count };
        HistogramInfo {
            name,
            worker,
            unit,
            count: 100,
            sum: 250_000,
            max: 40_000,
            p50: 1100,
            p90: 1900,
            p99: 39_000,
            p999: 40_000,
            buckets: vec![bucket(1024, 0), bucket(2048, 80), bucket(4096, 80), bucket(8192, 96)],
        }
    }

    #[test]
    fn one_kind_is_shown_with_its_spread() {
        let all = vec![
            histogram("rtt", Some(1), "us"),
            histogram("rtt", None, "us"),
            histogram("rtt", Some(0), "us"),
            histogram("rx-vector", None, "packets"),
        ];
        let text = Histograms::of(all, Some("rtt")).text();
        let expected = "\
histogram  worker  count    mean     p50     p90      p99    p99.9      max
rtt        all       100  2.5 ms  1.1 ms  1.9 ms  39.0 ms  40.0 ms  40.0 ms
rtt        0         100  2.5 ms  1.1 ms  1.9 ms  39.0 ms  40.0 ms  40.0 ms
rtt        1         100  2.5 ms  1.1 ms  1.9 ms  39.0 ms  40.0 ms  40.0 ms

  from   below  count  share
1.0 ms  2.0 ms     80  80.0%  ########################################
2.0 ms  4.1 ms      0   0.0%
4.1 ms  8.2 ms     16  16.0%  ########
8.2 ms       -      4   4.0%  ##
(of this stack's own TCP: sockets of the host do not tell theirs)
";
        assert_eq!(text, expected);
    }

    #[test]
    fn several_kinds_are_a_table_and_empty_ones_have_no_values() {
        let empty = HistogramInfo { count: 0, ..histogram("main-step", None, "us") };
        let shown = Histograms::of(vec![histogram("tx-vector", None, "packets"), empty], None);
        let text = shown.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].ends_with("1 100  1 900  39 000  40 000  40 000"), "{text}");
        assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>()[..4], ["main-step", "main", "0", "-"]);
        assert_eq!(Histograms::of(Vec::new(), Some("x")).text(), "no histogram\n");
    }
}
