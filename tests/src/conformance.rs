//! What the bin `conformance` prints: the counts of `docs/rfc9293.md`, the scripts, the goodput table summed up.
//!
//! It reads what the suites keep current and measures nothing; a part that is not there is named.

use std::fmt::{self, Write};
use std::path::Path;

use crate::goodput::table::{Summary, summaries};

/// The page of requirements, from the workspace's root.
pub const RFC_PAGE: &str = "docs/rfc9293.md";
/// The folder of scripts, from the workspace's root.
pub const SCRIPTS: &str = "tests/scripts";

/// The kinds of requirements, in the order in which they are shown.
const KINDS: [&str; 4] = ["MUST", "SHLD", "MAY", "REC"];

/// The requirements of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Requirements {
    /// All.
    pub total: usize,
    /// Those with a test.
    pub tested: usize,
    /// Those without one that have code.
    pub coded: usize,
    /// Those with neither, and a reason.
    pub left_out: usize,
    /// Those that are to come.
    pub to_come: usize,
    /// Those of which the page says nothing.
    pub silent: usize,
}

/// The whole summary.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conformance {
    /// By kind; empty when there is no page.
    pub requirements: Vec<(&'static str, Requirements)>,
    /// Deviations that the page lists.
    pub deviations: usize,
    /// Scripts that lie in their folder.
    pub scripts: usize,
    /// The goodput table, by algorithm; empty when there is no snapshot.
    pub goodput: Vec<Summary>,
}

impl Conformance {
    /// From the text of the page and of the goodput snapshot, empty if they are not there, and the number of scripts.
    pub fn new(page: &str, goodput: &str, scripts: usize) -> Conformance {
        let (requirements, deviations) = read_page(page);
        Conformance { requirements, deviations, scripts, goodput: summaries(goodput) }
    }

    /// Whether every MUST has code, a test or a reason, and no part is missing.
    pub fn is_whole(&self) -> bool {
        let is_must_silent =
            |&(kind, counts): &(&str, Requirements)| kind == "MUST" && counts.silent + counts.to_come > 0;
        !self.requirements.is_empty()
            && !self.requirements.iter().any(is_must_silent)
            && !self.goodput.is_empty()
    }

    /// As one JSON object.
    pub fn json(&self) -> serde_json::Value {
        let requirements = self.requirements.iter().map(|(kind, counts)| {
            let Requirements { total, tested, coded, left_out, to_come, silent } = counts;
            let counts = serde_json::json!({
                "total": total, "tested": tested, "coded": coded, "left_out": left_out, "to_come": to_come,
                "silent": silent,
            });
            ((*kind).to_owned(), counts)
        });
        let goodput = self.goodput.iter().map(|summary| {
            serde_json::json!({
                "algorithm": summary.algorithm,
                "cells": summary.cells,
                "median_percent": summary.median,
                "worst_percent": summary.worst,
                "worst_cell": summary.worst_cell,
                "queue_median_ms": summary.queue_median,
            })
        });
        serde_json::json!({
            "rfc9293": requirements.collect::<serde_json::Map<_, _>>(),
            "deviations": self.deviations,
            "scripts": self.scripts,
            "goodput": goodput.collect::<Vec<_>>(),
            "whole": self.is_whole(),
        })
    }
}

impl fmt::Display for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            writeln!(f, "RFC 9293: {RFC_PAGE} is not there")?;
        } else {
            writeln!(
                f,
                "RFC 9293, requirements in all, with a test, with code alone, left out, to come, silent:"
            )?;
        }
        for (kind, counts) in &self.requirements {
            let Requirements { total, tested, coded, left_out, to_come, silent } = counts;
            writeln!(f, "  {kind:4} {total:3} {tested:4} {coded:4} {left_out:4} {to_come:4} {silent:4}")?;
        }
        writeln!(f, "deviations from RFCs, each with its reason: {}", self.deviations)?;
        writeln!(f, "scripts in {SCRIPTS}: {}", self.scripts)?;
        if self.goodput.is_empty() {
            writeln!(f, "goodput: {} is not there", crate::goodput::table::SNAPSHOT)?;
        } else {
            writeln!(
                f,
                "goodput in % of the link, by algorithm: cells, median, median of the mean waits in ms, worst:"
            )?;
        }
        for summary in &self.goodput {
            let Summary { algorithm, cells, median, worst, worst_cell, queue_median } = summary;
            writeln!(
                f,
                "  {algorithm:8} {cells:3} {median:5.1} {queue_median:7.2}   {worst:.2} at {worst_cell}"
            )?;
        }
        Ok(())
    }
}

/// Counts the rows of the page's tables, `| MUST-1 | section | words | code or reason | tests |`, and its list of
/// deviations. Rows of other kinds are passed over.
fn read_page(page: &str) -> (Vec<(&'static str, Requirements)>, usize) {
    let mut counts = KINDS.map(|kind| (kind, Requirements::default()));
    for line in page.lines() {
        let cells = cells(line);
        let [id, .., code, tests] = cells.as_slice() else { continue };
        let kind = id
            .split_once('-')
            .filter(|(_, number)| number.parse::<u32>().is_ok())
            .and_then(|(kind, _)| KINDS.iter().position(|known| *known == kind));
        let Some(kind) = kind else { continue };
        let counts = &mut counts[kind].1;
        counts.total += 1;
        let place = if code.contains("**To come.**") {
            &mut counts.to_come
        } else if !tests.is_empty() {
            &mut counts.tested
        } else if code.contains("](") {
            &mut counts.coded
        } else if !code.is_empty() {
            &mut counts.left_out
        } else {
            &mut counts.silent
        };
        *place += 1;
    }
    let deviations = page.split("\n## Deviations").nth(1).unwrap_or_default();
    let deviations = deviations.split("\n## ").next().unwrap_or_default();
    (
        counts.into_iter().filter(|(_, counts)| counts.total > 0).collect(),
        deviations.lines().filter(|line| line.starts_with("- ")).count(),
    )
}

/// The cells of a table's row, trimmed; a `\|` is no border.
fn cells(line: &str) -> Vec<String> {
    let Some(row) = line.trim().strip_prefix('|') else { return Vec::new() };
    let mut cells = vec![String::new()];
    let mut is_escaped = false;
    for letter in row.chars() {
        match letter {
            '|' if !is_escaped => cells.push(String::new()),
            _ => {
                if let Some(cell) = cells.last_mut() {
                    let _ = cell.write_char(letter);
                }
            }
        }
        is_escaped = letter == '\\';
    }
    // What follows the last border is no cell.
    cells.pop();
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

/// How many files `*.pkt` lie below `folder`; 0 when it is not there.
pub fn count_scripts(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |entry: std::fs::DirEntry| {
        let path = entry.path();
        if path.is_dir() {
            count_scripts(&path)
        } else {
            usize::from(path.extension().is_some_and(|e| e == "pkt"))
        }
    };
    entries.filter_map(Result::ok).map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# Title

| | in all | kept |
| --- | --- | --- |
| MUST and MUST NOT | 5 | 4 |

## MUST

| id | § | what it asks | code | tests |
| --- | --- | --- | --- | --- |
| MUST-1 | 3.1 | this \\| that | [`output::x`](../tcp/src/output.rs) | [`t`](../tcp/src/tests/a.rs) |
| MUST-2 | 3.2 | more | [`input::y`](../tcp/src/input.rs) | |
| MUST-3 | 3.3 | no | Not ours. | |
| MUST-4 | 3.4 | later | **To come.** With urgent data. | |
| MAY-1 | 3.5 | what nobody does | | |

## Deviations

- [`z`](../tcp/src/z.rs): because.
- [`y`](../tcp/src/y.rs): because.
";

    #[test]
    fn requirements_are_counted_by_what_the_page_has_of_them() {
        let (requirements, deviations) = read_page(PAGE);
        let must = Requirements { total: 4, tested: 1, coded: 1, left_out: 1, to_come: 1, silent: 0 };
        let may = Requirements { total: 1, silent: 1, ..Requirements::default() };
        assert_eq!(requirements, [("MUST", must), ("MAY", may)]);
        assert_eq!(deviations, 2);
    }

    #[test]
    fn what_is_missing_or_to_come_is_not_whole() {
        let table =
            "       link  rtt  buffer    loss  | newreno\n 100 Mbit/s   1 ms 0.1 BDP    0 % | 1 2 3 4\n";
        let page = PAGE.replace("| MUST-4 | 3.4 | later | **To come.** With urgent data. | |\n", "");
        assert!(Conformance::new(&page, table, 0).is_whole());
        assert!(!Conformance::new(PAGE, table, 0).is_whole());
        assert!(!Conformance::new(&page, "", 0).is_whole());
        assert!(!Conformance::new("", table, 0).is_whole());
        let json = Conformance::new(&page, table, 3).json();
        assert_eq!(json["goodput"][0]["worst_cell"], "100 Mbit/s 1 ms 0.1 BDP 0 %");
        assert_eq!((&json["rfc9293"]["MUST"]["total"], &json["scripts"]), (&3.into(), &3.into()));
    }
}
