//! The matrix of races, exhaustively; see `hoststack_tests::matrix`.

use std::fmt::Write;

use hoststack_tests::binary::workspace_root;
use hoststack_tests::matrix::lifecycle;
use hoststack_tests::matrix::table::{KnownBug, differences};
use hoststack_tests::matrix::{Case, Table};
use hoststack_tests::tidy::assert_clean;

/// Faults of the product that are known: an entry goes when no case shows it any more.
const KNOWN: &[KnownBug] = &[];

/// `MATRIX_CASE="connect 2 cancel@3 syn-ack@5"` runs that case alone and prints what happens in it;
/// `MATRIX_PAIRS=cancel,syn-ack` runs the pairs of these and prints their outcomes.
#[test]
fn every_ordered_pair_of_events_at_every_boundary_ends_as_it_should() {
    if let Ok(name) = std::env::var("MATRIX_CASE") {
        let case = Case::parse(&name).unwrap_or_else(|| panic!("no case is called {name:?}"));
        panic!("{case}\n{}", case.trace().join("\n"));
    }
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let only = std::env::var("MATRIX_PAIRS").ok();
    let table = Table::of(threads, KNOWN, |_, a, b| {
        only.as_ref().is_none_or(|only| only.split(',').all(|name| name == a.name() || name == b.name()))
    });
    let total: u64 = table.cases.iter().sum();
    println!("{total} cases");
    if let Some((case, words)) = table.broken.first() {
        let mut report = format!(
            "{} of {total} cases broke. The first:\nMATRIX_CASE=\"{case}\"\n{words}\n",
            table.broken.len()
        );
        let _ = writeln!(report, "{}\nothers:", case.trace().join("\n"));
        for (case, words) in table.broken.iter().skip(1).take(40) {
            let _ = writeln!(report, "  {case}: {}", words.chars().take(200).collect::<String>());
        }
        panic!("{report}");
    }
    if only.is_some() {
        panic!("{}", table.text());
    }
    for bug in KNOWN {
        assert!(table.shown.contains_key(bug.name), "no case shows {} any more: strike it off", bug.name);
    }
    let path = workspace_root().join("tests/snapshots/matrix.txt");
    let text = table.text();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("the folder can be made");
        std::fs::write(&path, &text).expect("the snapshot can be written");
        return;
    }
    let was = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == was, "outcomes differ from {}:\n{}", path.display(), differences(&text, &was));
}

#[test]
fn the_lifecycle_tables_tell_what_apps_see_and_leave_nothing_out() {
    let read = |path: &str| {
        std::fs::read_to_string(workspace_root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let seen = lifecycle::seen(&read("tests/snapshots/matrix.txt"));
    let rows = lifecycle::rows(&read("docs/LIFECYCLE.md"));
    assert!(rows.len() > 30 && seen.len() > 1000, "{} rows, {} pairs", rows.len(), seen.len());
    assert_clean("docs/LIFECYCLE.md", &lifecycle::complaints(&rows, &seen));
}
