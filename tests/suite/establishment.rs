//! Establishment, enumerated; see `hoststack_tests::establishment`.

use std::sync::LazyLock;

use hoststack_tests::binary::workspace_root;
use hoststack_tests::establishment::{Choice, Table};
use hoststack_tests::matrix::table::differences;

/// Made once for all tests.
static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    Table::of(threads, Choice::SLICE)
});

/// Every cell as it is, and a part of them with every action at every boundary: `Choice::SLICE`. The whole is
/// `cargo run --release -p hoststack-tests --bin establishment`, which runs single cells as well.
// covers: F01, F04, F05, F13, F22, F23, F27, F29, F30, F35, I01
#[test]
fn every_cell_has_its_outcome_once_and_in_time() {
    let table = &*TABLE;
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

/// The metamorphic rule: a connect or a stage that is done at once, after an event, or in pieces leaves one and the same trace, for the
/// app and on the wire.
// covers: I07
#[test]
fn what_is_done_at_once_and_what_is_done_later_leave_the_same_trace() {
    println!("{} cells compared", TABLE.compared);
    assert!(TABLE.compared > 10_000, "only {} cells have another to compare with", TABLE.compared);
    assert_eq!(TABLE.differing, 0, "{}", TABLE.findings());
}
