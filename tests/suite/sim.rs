//! The simulator in CI: fixed worlds, a handful that nobody has run before, and the promise that a seed is a run.
//!
//! More of them: `cargo run --release -p hoststack-tests --bin sim -- --help`.

use hoststack_tests::sim::{Options, fresh_seed, run, run_range};

#[track_caller]
fn assert_right(seeds: std::ops::Range<u64>) {
    let count = seeds.end - seeds.start;
    let totals = run_range(seeds, &Options::default(), 2, |totals| totals.violations.len() > 2, |_| {});
    let violations: Vec<String> = totals.violations.iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    assert_eq!(totals.worlds, count);
    assert!(totals.established > 0 && totals.sessions > 0, "{totals:?}");
}

#[test]
fn fixed_worlds_break_nothing() {
    assert_right(0..300);
}

#[test]
fn fresh_worlds_break_nothing() {
    let fresh = fresh_seed();
    println!("seeds {fresh}..{}", fresh + 20);
    assert_right(fresh..fresh + 20);
}

#[test]
fn a_seed_is_a_run() {
    for seed in [1, 2, 3, 77, 1234, u64::MAX] {
        let first = run(seed, &Options::default());
        let second = run(seed, &Options::default());
        assert_eq!(first, second);
        let covering = run(seed, &Options { coverage: true, ..Options::default() });
        assert_eq!(first.map(|run| run.digest), covering.map(|run| run.digest), "looking changes nothing");
    }
}

#[test]
fn every_world_has_connects_and_faults() {
    for seed in 0..100 {
        let summary = run(seed, &Options::default()).unwrap_or_else(|violation| panic!("{violation}"));
        assert!(summary.connects >= 50 && summary.faults.len() >= 2, "{summary:?}");
    }
}
