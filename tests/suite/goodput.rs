//! The goodput table in CI: a slice of it, compared with the snapshot. See `hoststack_tests::goodput`.

use hoststack_tests::binary::workspace_root;
use hoststack_tests::goodput::table::{SNAPSHOT, parse};
use hoststack_tests::goodput::{Cell, Pair, Table};
use hoststack_transport::Algorithm;

/// What CI runs: one round trip at the lower rate, and one cell at the higher.
fn is_in_slice(cell: &Cell) -> bool {
    (cell.rate == 100 && cell.rtt == 10) || *cell == Cell { rate: 1000, rtt: 1, buffer: 10, loss_ppm: 0 }
}

/// And of the pairs, those with that round trip and one buffer.
fn is_pair_in_slice(pair: &Pair) -> bool {
    pair.rtts == [10, 10] && pair.buffer == 10
}

/// `UPDATE_SNAPSHOTS=1` runs the whole table and rewrites the snapshot: use `--release`.
#[test]
fn the_snapshot_is_whole_and_a_slice_of_it_is_still_so() {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let path = workspace_root().join(SNAPSHOT);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        let text = Table::run(&Cell::all(), &Pair::all(), threads).text();
        std::fs::write(&path, text).expect("the snapshot can be written");
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (algorithms, rows) = parse(&text);
    let names: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
    assert_eq!(algorithms, names, "{SNAPSHOT} has other algorithms: run this with UPDATE_SNAPSHOTS=1");
    let mut labels: Vec<String> = Cell::all().iter().map(Cell::to_string).collect();
    labels.extend(Pair::all().iter().map(Pair::to_string));
    labels.sort();
    assert_eq!(rows.keys().cloned().collect::<Vec<_>>(), labels, "the rows of {SNAPSHOT}");

    let cells: Vec<Cell> = Cell::all().into_iter().filter(is_in_slice).collect();
    let pairs: Vec<Pair> = Pair::all().into_iter().filter(is_pair_in_slice).collect();
    let mut differences = String::new();
    for (label, is) in Table::run(&cells, &pairs, threads).rows() {
        let was = &rows[&label];
        if is != *was {
            differences += &format!("{label}\n  was {was}\n  is  {is}\n");
        }
    }
    assert!(differences.is_empty(), "values differ from {SNAPSHOT}:\n{differences}");
}
