//! Known bugs, each planted, each found: the simulator's oracle can fail.
//!
//! Run by a step of its own in `.ci/run`, in a build of its own. docs/TESTING.md ("The canary") says what finds each.

use hoststack_tests::announced::{Route, Slice};
use hoststack_tests::canary::{announce, enumerate, hunt, inject, name};
use hoststack_tests::establishment::Choice;
use hoststack_tests::injection::Cell;
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
        Bug::StaleHandleResolves | Bug::SegmentLostInHandOver | Bug::ChunksKept => 30,
        // Not measured since answers became fewer messages: 30 had been enough.
        Bug::AsleepBesideOutbox => 300,
        Bug::CloseOvertakesData | Bug::DeadlineIgnored => 70,
        Bug::RequestsOrphaned => 500,
        // The enumeration finds these.
        Bug::AnnouncedOnChange
        | Bug::SettledBeforeStages
        | Bug::ReadinessStored
        | Bug::DeadlineIsSuccess
        | Bug::StagesDroppedOnRetry => 0,
        // The cells over the host's sockets find these.
        Bug::ConnectNowForgotten
        | Bug::ConnectNotWatchedAgain
        | Bug::HangUpIsFailure
        | Bug::RoomForgotten
        | Bug::ShortWriteIsWhole => 0,
    }
}

#[test]
fn every_planted_bug_is_found() {
    let missed: Vec<String> = Bug::ALL
        .iter()
        .filter(|bug| !bug.is_of_establishment() && !bug.is_of_host_sockets())
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

#[test]
fn every_planted_bug_of_establishment_is_found_by_its_enumeration() {
    // Every seventh cell as it is: a bug that needs an action to be seen would be seen by few.
    let choice = Choice { every: 7, acted: 0, broken_max: 1 };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    for &bug in Bug::ALL.iter().filter(|bug| bug.is_of_establishment()) {
        let (table, first) = enumerate(Some(bug), threads, choice);
        assert!(first.is_some(), "{} is not found in {} runs", bug.name(), table.runs);
    }
    let (table, first) = enumerate(None, threads, choice);
    assert_eq!((first, table.cells > 10_000), (None, true));
}

#[test]
fn every_planted_bug_of_host_sockets_and_of_establishment_is_found_by_a_cell_over_real_sockets() {
    let wanted = |cell: &Cell| cell.is_for_planted_bugs();
    // Without a stage of a connect that can stand still no deadline passes in it: that is left to the enumeration.
    let is_ours =
        |bug: &Bug| bug.is_of_host_sockets() || bug.is_of_establishment() && *bug != Bug::DeadlineIsSuccess;
    for bug in Bug::ALL.iter().copied().filter(is_ours) {
        let table = inject(Some(bug), 1, wanted);
        assert!(!table.broken.is_empty(), "{} is not found in {} cells", bug.name(), table.cells);
    }
    let table = inject(None, 1, wanted);
    assert_eq!((table.broken, table.cells > 2_000), (Vec::new(), true));
}

#[test]
fn announcing_on_change_strikes_the_first_silent_clients() {
    let stage_timeout = hoststack::app::Duration::from_millis(300);
    for route in [Route::KernelTcp, Route::KernelUnix] {
        let slice = Slice { stage_timeout, ..Slice::new(route, 0, 100) };
        let failure = announce(Some(Bug::AnnouncedOnChange), slice).expect_err("none may be told");
        assert!(failure.violations.iter().any(|words| words.contains("never [Accepted, ")), "{failure}");
        assert_eq!(
            announce(None, slice).map(|totals| totals.greeted).map_err(|failure| failure.to_string()),
            Ok(100)
        );
    }
}
