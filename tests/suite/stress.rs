//! Connect lifecycles on real threads, a small slice: `--bin stress` runs them by the million.

use hoststack_tests::stress::{Slice, Totals, run_slice};

/// On one worker, two and four; the last one has more threads than most machines that run this have cores.
#[test]
fn connects_on_real_threads_each_have_one_outcome_and_leave_nothing_behind() {
    let mut all = Totals::default();
    for (seed, workers) in [(1, 1), (2, 2), (3, 4), (4, 2)] {
        let slice = Slice { seed, workers, connects: 25_000 };
        let totals = run_slice(slice).unwrap_or_else(|failure| panic!("{failure}"));
        // All but what apps that were dropped last had in stock.
        assert!(totals.connects > 20_000 && totals.outcomes.of("established") > 0, "{totals}");
        all.merge(&totals);
    }
    // They did what they are for.
    for kind in ["established", "refused", "timed_out", "unreachable", "cancelled", "detached"] {
        assert!(all.outcomes.of(kind) > 0, "no connect was {kind}: {all}");
    }
    assert!(all.accepted > 0 && all.echoed > 0 && all.app_detaches > 0 && all.unit_detaches > 20, "{all}");
}
