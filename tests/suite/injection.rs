//! Establishment over the machine's own sockets, meddled with; see `hoststack_tests::injection`.

use std::time::Duration;

use hoststack_tests::binary::workspace_root;
use hoststack_tests::injection::{Cell, ConnectMode, StreamMode, Table, Via, table};
use hoststack_tests::matrix::table::differences;

/// How long the machine must have nothing to say before a deadline is let pass: in a cell that is right it never is.
const QUIET: Duration = Duration::from_secs(5);

/// `INJECTION_CELL="tcp now eagain-1 proxy-v1 proxy srv1"` runs that cell alone and prints what happens in it.
/// `INJECTION_ALL=1` runs all cells with TLS too, which takes four times as long; the snapshot is of those that are run always.
// covers: F03, F04, F12
#[test]
fn every_cell_over_real_sockets_is_announced_once_and_in_time() {
    if let Ok(name) = std::env::var("INJECTION_CELL") {
        let cell = Cell::parse(&name).unwrap_or_else(|| panic!("no cell is called {name:?}"));
        panic!("{}", table::trace(cell, QUIET));
    }
    let is_all = std::env::var_os("INJECTION_ALL").is_some();
    let table = Table::of(QUIET, usize::MAX, |cell| is_all || cell.is_run_always());
    let text = table.text();
    println!("{text}");
    if let Some((cell, verdict)) = table.broken.first() {
        let others: Vec<String> =
            table.broken.iter().take(40).map(|(cell, verdict)| format!("  {cell}: {verdict:?}")).collect();
        panic!(
            "{} of {} cells broke. The first: {verdict:?}\nINJECTION_CELL=\"{cell}\"\n{}",
            table.broken.len(),
            table.cells,
            others.join("\n")
        );
    }
    // What never struck proves nothing.
    for &via in Via::ALL {
        for mode in ConnectMode::ALL.iter().filter(|mode| **mode != ConnectMode::Plain) {
            assert!(table.connect_strikes[&(via, *mode)] > 0, "{via}: {mode} never struck");
        }
        for mode in StreamMode::ALL.iter().filter(|mode| **mode != StreamMode::Plain) {
            assert!(table.stream_strikes[&(via, *mode)] > 0, "{via}: {mode} never struck");
        }
    }
    let path = workspace_root().join("tests/snapshots/injection.txt");
    if is_all {
        return;
    }
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &text).expect("the snapshot can be written");
        return;
    }
    let was = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == was, "outcomes differ from {}:\n{}", path.display(), differences(&text, &was));
}
