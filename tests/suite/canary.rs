//! Known bugs, each planted, each found: the simulator's oracle can fail.
//!
//! Run by a step of its own in `.ci/run`, in a build of its own. docs/TESTING.md ("The canary") says what finds each.

use hoststack_tests::canary::{hunt, name};
use hoststack_transport::canary::Bug;

/// Seeds within which a bug must be found. Some seven times what it takes in the mean (measured over 1000 seeds), so
/// that of a thousand changes to the simulator's draw one fails for bad luck.
const fn seeds_max(bug: Bug) -> u64 {
    match bug {
        Bug::OutcomeToldTwice
        | Bug::FreedBeforeOutcome
        | Bug::PortKeptOnDetach
        | Bug::TimestampRunsBackward
        | Bug::DoubleEstablish
        | Bug::ListenerLeft => 10,
        Bug::DroppedWhenFull | Bug::DetachOvertakesOutcomes | Bug::DetachForgetsHalfOpens => 20,
        Bug::StaleHandleResolves | Bug::SegmentLostInHandOver | Bug::AsleepBesideOutbox | Bug::ChunksKept => {
            30
        }
        Bug::CloseOvertakesData | Bug::DeadlineIgnored => 70,
        Bug::ParkedEventsForgotten => 200,
        Bug::RequestsOrphaned => 500,
    }
}

#[test]
fn every_planted_bug_is_found() {
    let missed: Vec<String> = Bug::ALL
        .iter()
        .map(|bug| hunt(Some(*bug), seeds_max(*bug), false))
        .filter(|hunt| hunt.first.is_none())
        .map(|hunt| format!("{} in {} seeds", name(hunt.bug), hunt.worlds))
        .collect();
    assert!(missed.is_empty(), "not found: {}", missed.join(", "));
}

#[test]
fn with_nothing_planted_the_same_seeds_find_nothing() {
    let most = Bug::ALL.iter().map(|bug| seeds_max(*bug)).max().expect("there are bugs");
    let hunt = hunt(None, most, false);
    assert_eq!(hunt.first, None);
    assert_eq!(hunt.worlds, most);
}
