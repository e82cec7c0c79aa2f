//! Every target on its corpus, on its regressions and on some thousand seeded mutations of both: the same inputs each
//! time.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use hoststack_fuzz::{TARGETS, Target, files, mutation, target};
use hoststack_transport::Rng;

/// Runs one input. A find says which, in hexadecimal, before the test fails.
fn run(target: &Target, name: &str, bytes: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("a find of {}: {name}\n  {hex}\n  (xxd -r -p makes a file of it)", target.name);
        resume_unwind(panic);
    }
}

fn smoke(name: &str) {
    let target = target(name).expect("a target of that name");
    let mut corpus = Vec::new();
    for kind in ["corpus", "regressions"] {
        for (path, bytes) in files::inputs(kind, name) {
            run(target, &path.display().to_string(), &bytes);
            corpus.push(bytes);
        }
    }
    assert!(corpus.len() >= 8, "{name} has a corpus: {} files found", corpus.len());
    let mut rng = Rng::from_seed(0x5eed);
    for number in 0..target.smoke_runs {
        let bytes = mutation::mutate(&corpus, target.len_max, &mut rng);
        run(target, &format!("mutation {number}"), &bytes);
    }
}

macro_rules! smoke_tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            smoke(stringify!($name));
        })*

        #[test]
        fn every_target_has_its_test() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), tested);
        }
    };
}

smoke_tests!(wire notation proxy flight fifo peer link);

/// Else the tests above would pass whatever the targets do.
#[test]
#[should_panic(expected = "planted")]
fn a_find_fails_its_test() {
    let planted = Target {
        name: "planted",
        run: |bytes| assert!(!bytes.contains(&7), "planted"),
        len_max: 8,
        smoke_runs: 0,
    };
    run(&planted, "by hand", &[1, 2]);
    run(&planted, "by hand", &[1, 7]);
}
