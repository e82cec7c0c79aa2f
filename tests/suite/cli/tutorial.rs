//! `docs/tutorial.md`, done: its commands are typed as they stand there, and answer what it shows.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use hoststack_tests::binary::workspace_root;
use hoststack_tests::process::Signal;
use hoststack_tests::{Process, hoststack, wait};
use tempfile::TempDir;

use crate::LIMIT;

/// A command of the page, and the lines that it shows for an answer.
#[derive(Debug)]
struct Step {
    command: String,
    shown: Vec<String>,
}

/// The commands of all `console` blocks of a page.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_console = false;
    for line in page.lines() {
        match (line.strip_prefix("```"), line.strip_prefix("$ ")) {
            (Some(language), _) => is_console = language == "console",
            (None, Some(command)) if is_console => {
                steps.push(Step { command: command.to_owned(), shown: Vec::new() });
            }
            (None, None) if is_console => {
                steps.last_mut().expect("a block begins with a command").shown.push(line.to_owned());
            }
            _ => {}
        }
    }
    steps
}

/// What the page calls connects and sessions, and what they are called here.
#[derive(Clone, Debug, Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    /// A text of the page with our names.
    fn translated(&self, text: &str) -> String {
        let word = |word: &str| self.0.get(word).cloned().unwrap_or_else(|| word.to_owned());
        text.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    /// Whether the answer's word may stand where the page has its own.
    fn fits(&mut self, shown: &str, word: &str) -> bool {
        if is_handle(shown) && is_handle(word) {
            return self.0.entry(shown.to_owned()).or_insert_with(|| word.to_owned()) == word;
        }
        shown == word
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `259#1`, or `0:17.1`.
fn is_handle(word: &str) -> bool {
    let of = |pair: Option<(&str, &str)>| pair.is_some_and(|(a, b)| is_digits(a) && is_digits(b));
    of(word.split_once('#'))
        || word.split_once(':').is_some_and(|(worker, rest)| is_digits(worker) && of(rest.split_once('.')))
}

/// The words of a line, those that differ from run to run made the same: spans of time, our ports, numbers of connects,
/// and whatever is counted in the row of one connect or session.
fn words(line: &str) -> Vec<String> {
    let all: Vec<&str> = line.split_whitespace().collect();
    let is_row = all.first().is_some_and(|word| is_handle(word));
    let is_number = |word: &str| is_digits(&word.replacen('.', "", 1));
    let mut words = Vec::new();
    let mut index = 0;
    while let Some(word) = all.get(index) {
        index += 1;
        let minutes = word.strip_suffix('s').and_then(|word| word.split_once('m'));
        let inside = word.trim_start_matches('(').trim_end_matches(')');
        words.push(match () {
            () if is_number(word) && matches!(all.get(index), Some(&("us" | "ms" | "s"))) => {
                index += 1;
                "SPAN".to_owned()
            }
            () if minutes.is_some_and(|(m, s)| is_digits(m) && is_digits(s)) => "SPAN".to_owned(),
            () if word.strip_prefix("10.0.0.1:").is_some_and(is_digits) => "10.0.0.1:PORT".to_owned(),
            () if inside.len() > 9 && is_digits(inside) => "NUMBER".to_owned(),
            () if is_row && is_digits(word) => "COUNT".to_owned(),
            () => (*word).to_owned(),
        });
    }
    words
}

/// Whether an answer is what the page shows: `...` alone stands for any lines, at a line's end for its rest. The names that
/// it brings; `None`: it is not.
fn matches(shown: &[String], answer: &[&str], names: &Names) -> Option<Names> {
    let Some((first, rest)) = shown.split_first() else { return answer.is_empty().then(|| names.clone()) };
    if first == "..." {
        return (0..=answer.len()).find_map(|skipped| matches(rest, &answer[skipped..], names));
    }
    let (line, left) = answer.split_first()?;
    let (mut expected, mut found) = (words(first), words(line));
    if expected.last().is_some_and(|word| word == "...") {
        expected.pop();
        found.truncate(expected.len());
    }
    let mut names = names.clone();
    let same = expected.len() == found.len() && expected.iter().zip(&found).all(|(a, b)| names.fits(a, b));
    if same { matches(rest, left, &names) } else { None }
}

/// A shell's command that finds the program by its name.
fn shell(command: &str, runtime: &TempDir) -> Command {
    let program = hoststack().parent().expect("it lies in a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([program].into_iter().chain(std::env::split_paths(&path)));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .current_dir(workspace_root())
        .stdin(Stdio::null())
        .env("PATH", path.expect("folders without colons"))
        // Where the control socket is: not that of a person who follows the page on this machine.
        .env("XDG_RUNTIME_DIR", runtime.path())
        .env_remove("RUST_LOG");
    shell
}

#[test]
fn the_tutorial_is_what_happens() {
    let page = std::fs::read_to_string(workspace_root().join("docs/tutorial.md")).expect("the page");
    let steps = steps(&page);
    let runtime = TempDir::new().unwrap();
    let mut stack: Option<Process> = None;
    let mut told = String::new();
    let mut names = Names::default();
    for Step { command, shown } in &steps {
        let mut asked = 0;
        let mut last = String::new();
        let found = wait::poll(wait::READY, || {
            last = match (command.strip_suffix(" &"), command.as_str()) {
                (Some(command), _) => {
                    let stack = stack.get_or_insert_with(|| {
                        Process::spawn(command, shell(&format!("exec {command}"), &runtime))
                    });
                    stack.wait_for_output("ready:", wait::READY);
                    told = stack.stdout();
                    told.clone()
                }
                (None, "kill %1") => {
                    if let Some(mut stack) = stack.take() {
                        stack.signal(Signal::TERM);
                        let all = stack.wait(LIMIT).success().stdout;
                        all[told.len()..].clone_into(&mut told);
                    }
                    told.clone()
                }
                (None, command) => {
                    // What only shows is asked again: the stack may need a moment. What acts is done once.
                    assert!(asked == 0 || command.contains(" ctl show "), "{command}: {last}");
                    let command = names.translated(command);
                    let done = Process::spawn(&command, shell(&command, &runtime)).wait(LIMIT);
                    format!("{}{}", done.stdout, done.stderr)
                }
            };
            asked += 1;
            let lines: Vec<&str> = last.lines().collect();
            let found = matches(shown, &lines, &names);
            assert!(
                found.is_some() || command.contains(" ctl show "),
                "`{command}` shows\n{}\nand said\n{last}",
                shown.join("\n")
            );
            found
        });
        names = found.unwrap_or_else(|| panic!("`{command}` shows\n{}\nand said\n{last}", shown.join("\n")));
    }
    assert!(stack.is_none() && steps.len() > 12, "the page ends what it starts");
}

#[test]
fn an_answer_fits_but_for_what_differs_from_run_to_run() {
    let fits = |shown: &str, answer: &str| {
        let shown: Vec<String> = shown.lines().map(str::to_owned).collect();
        matches(&shown, &answer.lines().collect::<Vec<_>>(), &Names::default()).is_some()
    };
    assert!(fits("a  1 b", "a 1  b") && !fits("a 1 b", "a 2 b") && !fits("a", "a\nb") && !fits("a\nb", "a"));
    assert!(
        fits("took 1.5 ms", "took 30 us") && fits("in 9m59s", "in 1m00s") && !fits("took 1 ms", "took 1")
    );
    assert!(fits("259#2 sent 1", "7#1 sent 3") && !fits("one 259#2 of 1", "one 259#2 of 2"));
    assert!(fits("259#2 x\n259#2 y", "1#1 x\n1#1 y") && !fits("259#2 x\n259#2 y", "1#1 x\n1#2 y"));
    assert!(fits("...\nb\n...", "b") && fits("...\nb", "a\na\nb") && !fits("...\nb", "a"));
    assert!(fits("ready: ...", "ready: now and then") && !fits("ready: ...", "not ready"));
    assert!(fits("10.0.0.1:5 x", "10.0.0.1:6 x") && !fits("10.0.0.2:5 x", "10.0.0.2:6 x"));
}
