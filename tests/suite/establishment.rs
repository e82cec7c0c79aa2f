//! Establishment, enumerated; see `hoststack_tests::establishment`.

use hoststack_tests::binary::workspace_root;
use hoststack_tests::establishment::{Choice, Table};
use hoststack_tests::matrix::table::differences;

/// Every cell as it is, and a part of them with every action at every boundary: `Choice::SLICE`. The whole is
/// `cargo run --release -p hoststack-tests --bin establishment`, which runs single cells as well.
#[test]
fn every_cell_has_its_outcome_once_and_in_time() {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let table = Table::of(threads, Choice::SLICE);
    println!("{} runs of {} cells", table.runs, table.cells);
    assert!(table.broken.is_empty(), "{}", table.findings());
    let path = workspace_root().join("tests/snapshots/establishment.txt");
    let text = table.text();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &text).expect("the snapshot can be written");
        return;
    }
    let was = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == was, "outcomes differ from {}:\n{}", path.display(), differences(&text, &was));
}
