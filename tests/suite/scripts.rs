//! The scripts of `tests/scripts`; see `hoststack_tests::scripts` and `docs/scripts.md`.

use std::fmt::Write;

use hoststack_tests::binary::workspace_root;
use hoststack_tests::scripts::{run_file, scripts_in};

#[test]
fn every_script_passes() {
    let folder = workspace_root().join("tests/scripts");
    let paths = scripts_in(&folder).expect("the folder of scripts");
    assert!(paths.len() >= 80, "only {} scripts in {}", paths.len(), folder.display());
    let mut report = String::new();
    let mut failed = 0;
    for path in &paths {
        if let Err(failure) = run_file(path) {
            failed += 1;
            let _ = write!(report, "{}:{failure}", path.display());
        }
    }
    assert!(failed == 0, "{failed} of {} scripts fail:\n{report}", paths.len());
}

/// What the stack does wrong and is known: each such script says in its first line why, and goes to the others as soon as
/// it passes.
#[test]
fn every_known_fault_is_explained_and_still_there() {
    let paths = scripts_in(&workspace_root().join("tests/scripts/known")).unwrap_or_default();
    for path in &paths {
        let text = std::fs::read_to_string(path).expect("a script that was listed can be read");
        assert!(text.starts_with("# Known fault: "), "{}: says nothing of the fault", path.display());
        let failure = run_file(path).err().unwrap_or_else(|| panic!("{} passes: move it", path.display()));
        // A script that cannot be read or never gets to its point shows nothing.
        assert!(!failure.log.is_empty(), "{}:{failure}", path.display());
    }
}
