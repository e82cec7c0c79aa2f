//! Rules for Rust source.

use std::collections::BTreeSet;

use super::SourceFile;
use super::source::{has_word, layers};

/// A file of this many lines is asking to be split.
pub const LINES_WARN: usize = 800;
/// A file of more lines than this fails.
pub const LINES_FAIL: usize = 1000;

/// A place that a rule leaves alone, and why. A path that ends in `/` is a folder.
pub type Place = (&'static str, &'static str);

/// Where `unsafe` may stand.
pub const UNSAFE: &[Place] = &[
    ("net/src/tap.rs", "the ioctls of a TAP device, which no safe wrapper offers"),
    ("net/src/tap/tests.rs", "its tests enter a network namespace, drop privileges, and poll descriptors"),
    ("stack/src/wake.rs", "waits on file descriptors that others own"),
    ("benches/src/measure.rs", "a measuring instrument: CPU time and resident memory from the system"),
    ("benches/tests/allocations.rs", "a global allocator that counts"),
    ("tests/packetdrill/src/ffi/", "the C border: packetdrill calls through a table of C functions"),
    ("tests/packetdrill/tests/c_side/mod.rs", "plays the C side of that table"),
];

/// Where a rule of `clippy.toml` (clocks, threads, sleeps, random hash maps) may be lifted.
pub const LIFTED: &[Place] = &[
    ("stack/src/", "the assembly owns the clock and the threads"),
    ("benches/src/measure.rs", "a measuring instrument reads the clock"),
    ("tests/src/bin/console_cost.rs", "a measuring instrument reads the clock"),
    ("tests/src/wait.rs", "kernel peers live in real time"),
];

/// Lines of a file, as warnings (over [`LINES_WARN`]) and failures (over [`LINES_FAIL`]).
#[must_use]
pub fn lengths(files: &[SourceFile]) -> (Vec<String>, Vec<String>) {
    let (mut warnings, mut failures) = (Vec::new(), Vec::new());
    for file in files.iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        let sentence = format!("{} has {lines} lines: split it along the path of the data", file.path);
        if lines > LINES_FAIL {
            failures.push(sentence);
        } else if lines > LINES_WARN {
            warnings.push(sentence);
        }
    }
    (warnings, failures)
}

/// Whether a line of code says `unsafe`.
#[must_use]
pub fn is_unsafe(line: &str) -> bool {
    has_word(line, "unsafe")
}

/// Whether a line of code lifts a ban of `clippy.toml`.
#[must_use]
pub fn is_lift(line: &str) -> bool {
    line.contains("clippy::disallowed_")
}

/// Lines of code that `is_hit` outside `places`, and places where nothing is hit or no reason is given.
#[must_use]
pub fn strays(files: &[SourceFile], places: &[Place], is_hit: fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut hit_places = BTreeSet::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let covers =
            |place: &str| file.path == place || (place.ends_with('/') && file.path.starts_with(place));
        let place = places.iter().map(|(place, _)| *place).find(|place| covers(place));
        for (number, line) in layers(&file.text).code.lines().enumerate().filter(|(_, line)| is_hit(line)) {
            match place {
                Some(place) => _ = hit_places.insert(place),
                None => complaints.push(format!("{}:{}: {}", file.path, number + 1, line.trim())),
            }
        }
    }
    let is_stale = |(place, reason): &&Place| reason.is_empty() || !hit_places.contains(place);
    let stale = places.iter().filter(is_stale);
    complaints
        .extend(stale.map(|(place, _)| format!("{place} is in the table for nothing, or without a reason")));
    complaints
}

/// Words by which a test says that it did not run, written so that the test runner swallows them when it passes.
#[must_use]
pub fn swallowed_skips(files: &[SourceFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let is_print =
            |line: &str| line.contains(concat!("print", "ln!(")) && line.contains(concat!("skip", "ped:"));
        let hits = file.text.lines().enumerate().filter(|(_, line)| is_print(line));
        complaints.extend(hits.map(|(number, _)| {
            format!("{}:{}: write this to `std::io::stderr()`, `println!` is captured", file.path, number + 1)
        }));
    }
    complaints
}

/// Crate roots among `roots` (paths) that are not `#![no_std]`.
#[must_use]
pub fn missing_no_std(files: &[SourceFile], roots: &[String]) -> Vec<String> {
    roots
        .iter()
        .filter(|root| {
            let file = files.iter().find(|file| file.path == **root);
            !file.is_some_and(|file| layers(&file.text).code.contains("#![no_std]"))
        })
        .map(|root| format!("{root}: `#![no_std]` is missing"))
        .collect()
}

/// Notes of work to be done that name no issue: `TODO(#12)` or `TODO: ... issue 12` name one.
#[must_use]
pub fn nameless_todos(files: &[SourceFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let is_script = file.path.ends_with(".toml") || file.path.starts_with(".ci/");
        let notes = match (file.is_rust(), is_script) {
            (true, _) => layers(&file.text).comments,
            (false, true) => file.text.clone(),
            (false, false) => continue,
        };
        let open = notes.lines().enumerate().filter(|(_, line)| has_word(line, "TODO") && !names_issue(line));
        complaints
            .extend(open.map(|(number, _)| format!("{}:{}: TODO names no issue", file.path, number + 1)));
    }
    complaints
}

fn names_issue(line: &str) -> bool {
    ["#", "issue "].iter().any(|mark| {
        line.match_indices(mark)
            .any(|(at, _)| line[at + mark.len()..].starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// Crates of `named` (as in a manifest) that no code below `folder` mentions. `nested` are member folders inside it.
#[must_use]
pub fn unused_crates(
    files: &[SourceFile],
    folder: &str,
    nested: &[String],
    named: &BTreeSet<String>,
) -> Vec<String> {
    let is_own = |path: &str| path.starts_with(folder) && !nested.iter().any(|inner| path.starts_with(inner));
    let code: Vec<String> = files
        .iter()
        .filter(|file| file.is_rust() && is_own(&file.path))
        .map(|file| layers(&file.text).code)
        .collect();
    named
        .iter()
        .filter(|name| {
            let identifier = name.replace('-', "_");
            !code.iter().any(|code| has_word(code, &identifier))
        })
        .map(|name| format!("{folder}Cargo.toml names {name}, which no code there uses"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(path: &str, text: &str) -> Vec<SourceFile> {
        vec![SourceFile::new(path, text)]
    }

    #[test]
    fn long_files_are_warned_of_and_longer_ones_fail() {
        let of = |lines: usize| lengths(&rust("a.rs", &"x\n".repeat(lines)));
        assert_eq!(of(LINES_WARN), (vec![], vec![]));
        assert_eq!(of(LINES_WARN + 1).0.len(), 1);
        assert_eq!(of(LINES_FAIL).1.len(), 0);
        assert_eq!(of(LINES_FAIL + 1).1.len(), 1);
    }

    #[test]
    fn unsafe_is_found_in_code_only_and_not_in_its_places() {
        let text = "// unsafe\n#![forbid(unsafe_code)]\nlet x = \"unsafe\";\nunsafe { y() }\n";
        let of = |places| strays(&rust("a/b.rs", text), places, is_unsafe);
        assert_eq!(of(&[]), ["a/b.rs:4: unsafe { y() }"]);
        assert_eq!(of(&[("a/", "why")]), [""; 0]);
        assert_eq!(of(&[("a/b.rs", "why")]), [""; 0]);
        // No folder, so it covers nothing.
        assert_eq!(of(&[("a/b", "why")]).len(), 2);
    }

    #[test]
    fn lifts_are_found_outside_their_places() {
        let text = "#![expect(\n    clippy::disallowed_methods,\n    reason = \"x\")]\n";
        assert_eq!(strays(&rust("tcp/src/a.rs", text), &[], is_lift).len(), 1);
        assert_eq!(strays(&rust("stack/src/a.rs", text), &[("stack/src/", "why")], is_lift).len(), 0);
        assert_eq!(strays(&rust("tcp/src/a.rs", "// clippy::disallowed_methods"), &[], is_lift).len(), 0);
    }

    #[test]
    fn places_must_be_needed_and_have_a_reason() {
        let files = rust("a/b.rs", "unsafe fn x() {}");
        assert_eq!(strays(&files, &[("a/b.rs", "why")], is_unsafe).len(), 0);
        assert_eq!(strays(&files, &[("a/b.rs", "")], is_unsafe).len(), 1);
        assert_eq!(strays(&files, &[("a/b.rs", "why"), ("a/c.rs", "why")], is_unsafe).len(), 1);
    }

    #[test]
    fn skips_must_not_be_captured() {
        let text = format!("{}!(\"{} needs x\");\n", "println", concat!("skip", "ped:"));
        assert_eq!(swallowed_skips(&rust("a.rs", &text)).len(), 1);
        assert_eq!(swallowed_skips(&rust("a.rs", &text.replace("println!(", "writeln!(err, "))).len(), 0);
    }

    #[test]
    fn no_std_is_an_attribute_not_a_comment() {
        let roots = ["a.rs".to_owned()];
        assert_eq!(missing_no_std(&rust("a.rs", "//! x\n#![no_std]\n"), &roots), [""; 0]);
        assert_eq!(missing_no_std(&rust("a.rs", "// #![no_std]\n"), &roots).len(), 1);
        assert_eq!(missing_no_std(&rust("b.rs", "#![no_std]\n"), &roots).len(), 1);
    }

    #[test]
    fn todos_name_their_issue() {
        let count = |text| nameless_todos(&rust("a.rs", text)).len();
        assert_eq!(count("// TODO: later\n"), 1);
        assert_eq!(count("// TODO(#12): later\n// TODO: with issue 3\n"), 0);
        assert_eq!(count("let x = \"TODO\";\n"), 0);
        assert_eq!(nameless_todos(&[SourceFile::new("a/Cargo.toml", "# TODO\n")]).len(), 1);
    }

    #[test]
    fn crates_that_only_a_nested_member_uses_are_unused() {
        let files = [
            SourceFile::new("app/src/lib.rs", "use smallvec::SmallVec; // http_parse"),
            SourceFile::new("app/builtin/src/lib.rs", "use http_parse::X;"),
        ];
        let named = ["smallvec", "http-parse"].map(str::to_owned).into_iter().collect();
        let nested = ["app/builtin/".to_owned()];
        let found = unused_crates(&files, "app/", &nested, &named);
        assert_eq!(found, ["app/Cargo.toml names http-parse, which no code there uses"]);
        assert_eq!(unused_crates(&files, "app/", &[], &named), [""; 0]);
    }
}
