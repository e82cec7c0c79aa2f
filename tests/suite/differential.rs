//! Worlds in which `hoststack` and the Linux kernel talk over a bad link: see `hoststack_tests::differential`. More of them:
//! `cargo run --release -p hoststack-tests --bin differential`.

use std::sync::atomic::{AtomicU64, Ordering};

use hoststack_tests::differential::plan::Connection;
use hoststack_tests::differential::{WorldPlan, run};
use hoststack_tests::skip_unless_net_admin;

/// Worlds at a time: most of their time they wait for the link.
const JOBS: u64 = 6;

/// Runs the worlds of these seeds, some at a time.
fn worlds(seeds: std::ops::Range<u64>) {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut bytes = 0;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return bytes;
            }
            let report = run(&WorldPlan::draw(seed), None)
                .unwrap_or_else(|error| panic!("differential seed {seed}: {error}"));
            assert!(report.wrong.is_empty(), "{report}");
            bytes += report.bytes;
        }
    };
    let bytes: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..JOBS).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause)))
            .sum()
    });
    assert!(bytes > 0, "nothing was said");
}

#[test]
fn worlds_agree_with_the_kernel() {
    skip_unless_net_admin!();
    worlds(0..16);
}

#[test]
fn a_link_that_corrupts_is_seen_by_the_kernels_checksums() {
    skip_unless_net_admin!();
    let mut plan =
        (0..).map(WorldPlan::draw).find(|plan| plan.aborts() == 0 && !plan.repeats()).expect("half are such");
    plan.connections.retain(|connection: &Connection| connection.ours.total > 0);
    plan.connections.truncate(2);
    assert!(!plan.connections.is_empty());
    let report = run(&plan, None).unwrap();
    assert!(report.wrong.is_empty(), "{report}");
    // The same world over a link of a kind that is never drawn: the verdict must hear of it.
    plan.links[0].corrupt = 0.2;
    let report = run(&plan, None).unwrap();
    assert!(report.wrong.iter().any(|wrong| wrong.contains("InCsumErrors")), "{report}");
}
