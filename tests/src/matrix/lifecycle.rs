//! `docs/LIFECYCLE.md` against the snapshot: its rows name what apps saw in which pairs, and leave nothing out.

use std::collections::{BTreeMap, BTreeSet};

use super::events::Side;

/// What apps saw in each pair of a side, without how the peer ended.
pub type Seen = BTreeMap<(Side, String), BTreeSet<String>>;

/// A row of a table: what the app may see, and in which pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    side: Side,
    line: usize,
    sees: Vec<String>,
    pairs: Vec<String>,
}

/// Reads a snapshot.
#[must_use]
pub fn seen(snapshot: &str) -> Seen {
    let mut seen = Seen::new();
    let mut pair = None;
    for line in snapshot.lines() {
        let heading = [Side::Connect, Side::Accept]
            .into_iter()
            .find_map(|side| Some((side, line.strip_prefix(side.name())?.strip_prefix(": ")?.to_owned())));
        if let Some(heading) = heading {
            pair = Some(heading);
        } else if let Some(pair) = &pair
            && let Some((app, _)) = line.split_once("; peer ")
        {
            let words = app.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit());
            seen.entry(pair.clone()).or_default().insert(words.to_owned());
        }
    }
    seen
}

/// Reads the tables of the document: those below a heading with "come in" are the accepting side's.
#[must_use]
pub fn rows(document: &str) -> Vec<Row> {
    let mut side = Side::Connect;
    let mut rows = Vec::new();
    for (number, line) in document.lines().enumerate() {
        if line.starts_with('#') {
            side = if line.contains("come in") { Side::Accept } else { Side::Connect };
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        if !line.starts_with('|')
            || cells.len() != 5
            || cells[0].contains("---")
            || cells[0] == " what happens "
        {
            continue;
        }
        rows.push(Row { side, line: number + 1, sees: spans(cells[2]), pairs: spans(cells[4]) });
    }
    rows
}

fn spans(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What is wrong with the rows, given what was seen.
#[must_use]
pub fn complaints(rows: &[Row], seen: &Seen) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut named: BTreeSet<(Side, &str)> = BTreeSet::new();
    for Row { side, line, sees, pairs } in rows {
        if sees.is_empty() || pairs.is_empty() {
            complaints.push(format!("line {line}: says nothing that can be checked"));
        }
        let of = |pair: &String| seen.get(&(*side, pair.clone()));
        for pair in pairs {
            match of(pair) {
                None => complaints.push(format!("line {line}: the matrix has no pair {pair}")),
                Some(saw) if !sees.iter().any(|words| saw.contains(words)) => {
                    complaints.push(format!("line {line}: in {pair} apps saw {saw:?}, none of {sees:?}"));
                }
                Some(_) => {}
            }
        }
        for words in sees {
            named.insert((*side, words));
            if !pairs.iter().filter_map(of).any(|saw| saw.contains(words)) {
                complaints.push(format!("line {line}: in none of {pairs:?} did an app see {words}"));
            }
        }
    }
    let all: BTreeSet<(Side, &str)> = seen
        .iter()
        .flat_map(|((side, _), saw)| saw.iter().map(move |words| (*side, words.as_str())))
        .collect();
    for (side, words) in all.difference(&named) {
        let pair = seen.iter().find(|((of, _), saw)| of == side && saw.contains(*words));
        let pair = pair.map_or("", |((_, pair), _)| pair);
        complaints.push(format!("{}: apps see `{words}` (in {pair}), which no row tells", side.name()));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNAPSHOT: &str = "cases: 3\n\nconnect: a, b\n    1    2    2  up data stays; peer open\n    0    1    1  refused; peer has reset\n\naccept: c, c\n    9    9    9  nothing; peer open\n";

    fn complaints_of(document: &str) -> Vec<String> {
        complaints(&rows(document), &seen(SNAPSHOT))
    }

    #[test]
    fn a_document_that_tells_all_is_accepted() {
        let document = "## x\n| what happens | b | c | d | e |\n|---|---|---|---|---|\n| w | m | `refused`, `up data stays` | f | `a, b` |\n## that come in\n| w | m | `nothing` | f | `c, c` |\n";
        assert_eq!(complaints_of(document), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_so_or_is_left_out_is_found() {
        let document = "## x\n| w | m | `cancelled` | f | `a, b`; `z, z` |\n| w | m | x | f | y |\n";
        let found = complaints_of(document).join("\n");
        for words in [
            "in a, b apps saw",
            "no pair z, z",
            "did an app see cancelled",
            "says nothing",
            "connect: apps see `up data stays`",
            "connect: apps see `refused`",
            "accept: apps see `nothing`",
        ] {
            assert!(found.contains(words), "{words}: {found}");
        }
    }
}
