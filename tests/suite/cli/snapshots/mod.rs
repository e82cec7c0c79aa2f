//! Every command of the console, whole: the real binary's answers on a stack in a fixed state, as text and as JSON, held
//! against `tests/snapshots/console/`.
//!
//! The list of commands is the binary's own: one without a line in [`steps`] fails. What differs from run to run has a
//! placeholder ([`normal`]); that columns are straight is checked before ([`align`]); the JSON is held against the page
//! that the binary prints ([`schema`]).

mod align;
mod normal;
mod schema;
mod stage;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use hoststack_tests::Finished;
use hoststack_tests::binary::workspace_root;
use hoststack_tests::process::Signal;

use self::schema::Paths;
use self::stage::Stage;
use self::steps::{Forms, STEPS, Step};

/// Columns whose numbers name something.
const NAMES: &[&str] = &["dom", "worker", "sessions", "workers that disagree", "value", "default", "detail"];

/// The file of a command: its words without arguments.
fn file(key: &str) -> PathBuf {
    let is_word = |word: &&str| !word.chars().any(char::is_uppercase);
    let words: Vec<&str> = key.split([' ', '|']).filter(is_word).collect();
    workspace_root().join("tests/snapshots/console").join(words.join("-") + ".txt")
}

/// The page's headings with their patterns.
fn patterns(page: &str) -> BTreeMap<String, String> {
    let mut patterns = BTreeMap::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(key) = line.strip_prefix("### ") {
            let pattern = lines.find_map(|line| line.strip_prefix("    ")).unwrap_or_default();
            patterns.insert(key.to_owned(), pattern.to_owned());
        }
    }
    patterns
}

/// Text as it is kept: status, what it printed, what it complained of.
fn answer(stage: &Stage, step: &Step, done: &Finished) -> String {
    let normal = |text: &str| normal::normal(text, &stage.aliases(), step.norm);
    let mut text = format!("$ {}\n{}", step.typed, normal(&done.stdout));
    if !done.stderr.is_empty() {
        write!(text, "complains:\n{}", normal(&done.stderr)).expect("to a string");
    }
    match done.status.code() {
        Some(0) => {}
        code => writeln!(text, "exit {}", code.expect("it ended by itself")).expect("to a string"),
    }
    text
}

/// What the JSON of a command had, and what the page says of it that was in no answer.
fn json(seen: &Paths, promised: &BTreeMap<String, String>) -> String {
    let mut text = "JSON:\n".to_owned();
    for (path, kinds) in seen {
        let kinds: Vec<&str> = kinds.iter().copied().collect();
        writeln!(text, "  {path} {}", kinds.join(" or ")).expect("to a string");
    }
    for path in schema::unseen(promised, seen) {
        writeln!(text, "  left out here: {path}").expect("to a string");
    }
    text
}

#[test]
fn every_command_answers_as_it_did() {
    let stage = Stage::set();
    let page = crate::run(&["ctl", "--page"]).success().stdout;
    let (patterns, promised) = (patterns(&page), schema::promised(&page));
    let mut wrong: Vec<String> = Vec::new();

    // The binary's own list of commands, and ours.
    let help = stage.desk.ask("help");
    let commands: BTreeSet<&str> =
        help["commands"].as_array().expect("a list").iter().filter_map(|it| it["pattern"].as_str()).collect();
    let known: BTreeSet<&str> =
        STEPS.iter().filter_map(|step| patterns.get(step.key)).map(String::as_str).collect();
    assert_eq!(commands, known, "`steps.rs` has a line for each command, and for nothing else");

    let mut texts: BTreeMap<&str, String> = BTreeMap::new();
    let mut seen: BTreeMap<&str, Paths> = BTreeMap::new();
    // Before anything acts, users are refused: nothing that they type may change what follows.
    for (key, pattern) in &patterns {
        let Some(step) = STEPS.iter().find(|step| step.key == key) else { continue };
        let level = help["commands"].as_array().expect("a list").iter().find(|it| it["pattern"] == **pattern);
        if level.expect("it is listed")["level"] == "operator" {
            let done = stage.ctl("view.sock", &[], step.typed);
            let text = answer(&stage, step, &done).replacen("$ ", "$ (as user) ", 1);
            assert_eq!(done.status.code(), Some(2), "{}", done.transcript());
            texts.entry(step.key).or_default().push_str(&(text + "\n"));
        }
    }
    for step in STEPS {
        let text = texts.entry(step.key).or_default();
        if step.forms != Forms::Json {
            let done = stage.ctl("ctl.sock", &[], step.typed);
            let crooked = align::crooked(&done.stdout, NAMES);
            wrong
                .extend(crooked.into_iter().map(|fault| format!("{}: {fault}\n{}", step.typed, done.stdout)));
            text.push_str(&(answer(&stage, step, &done) + "\n"));
        }
        if step.forms != Forms::Text {
            let done = stage.ctl("ctl.sock", &["--json"], step.typed).success();
            let paths = seen.entry(step.key).or_default();
            Stage::documents(&done).iter().for_each(|value| schema::descend(value, "", paths));
        }
    }
    for (key, paths) in &seen {
        let promised = &promised[&patterns[*key]];
        // What is watched answers, as it is described in its own place.
        if !key.starts_with("watch") {
            wrong.extend(schema::broken(promised, paths).into_iter().map(|fault| format!("{key}: {fault}")));
        }
        texts.entry(key).or_default().push_str(&json(paths, promised));
    }
    let _ = crate::run::ends_clean(stage.stack, Signal::TERM, &stage.desk);

    let mut files = BTreeSet::new();
    for (key, text) in &texts {
        let path = file(key);
        assert!(files.insert(path.clone()), "{} is the file of two commands", path.display());
        let head = "# Written by `UPDATE_SNAPSHOTS=1 cargo test -p hoststack-tests --test cli snapshots`; what differs from run to run\n\
                    # has a placeholder, runs of blanks are two.\n\n";
        let text = format!("{head}{}\n", text.trim_end());
        let was = std::fs::read_to_string(&path).unwrap_or_default();
        if text == was {
            continue;
        }
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            std::fs::write(&path, text).expect("the snapshot can be written");
        } else {
            wrong.push(format!(
                "{} is another (UPDATE_SNAPSHOTS=1 writes it anew):\n{}",
                path.display(),
                difference(&was, &text)
            ));
        }
    }
    let folder = file("errors").parent().expect("it has one").to_owned();
    for entry in std::fs::read_dir(folder).expect("it was written") {
        let path = entry.expect("it can be read").path();
        if !files.contains(&path) {
            wrong.push(format!("{} is of no command: take it away", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The lines that one text has and the other has not, with a few words of where.
fn difference(was: &str, is: &str) -> String {
    let mut text = String::new();
    let (was, is): (Vec<&str>, Vec<&str>) = (was.lines().collect(), is.lines().collect());
    let same = was.iter().zip(&is).take_while(|(a, b)| a == b).count();
    let mut tail = was.iter().rev().zip(is.iter().rev()).take_while(|(a, b)| a == b).count();
    tail = tail.min(was.len().min(is.len()) - same);
    for line in &was[same..was.len() - tail] {
        let _ = writeln!(text, "- {line}");
    }
    for line in &is[same..is.len() - tail] {
        let _ = writeln!(text, "+ {line}");
    }
    text
}
