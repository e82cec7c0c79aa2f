//! `hoststack ctl` in a script: exit statuses, who reads what, and names that a peer or a file chose.

use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use hoststack_tests::process::Signal;
use hoststack_tests::{Process, hoststack, wait};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use super::run::{Desk, STACK, ends_clean, text};

/// A program run by a shell, with `hoststack` in `$HS` and the socket in `$SOCKET`.
fn shell(desk: &Desk, script: &str) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("HS", hoststack()).env("SOCKET", desk.socket()).stdin(Stdio::null());
    Process::spawn(script, command)
}

#[test]
fn a_line_in_quotes_may_have_more_behind_it() {
    let desk = Desk::new();
    let _stack = desk.start();
    let socket = desk.socket();
    let ctl = |words: &[&str]| crate::run(&[&["ctl", "--socket", text(&socket)][..], words].concat());
    assert_eq!(ctl(&["show app", "--json"]).success().json()["apps"][1]["name"], "sink");
    let sink = ctl(&["show app", "| include sink"]).success().stdout;
    assert_eq!(sink.lines().count(), 2, "{sink}");
    let watched = ctl(&["watch", "1", "count", "1", "show version; show leaks"]).success().stdout;
    assert!(watched.contains("your level") && watched.contains("fifo chunks"), "{watched}");
}

#[test]
fn what_is_watched_and_fails_is_said_on_standard_error_and_ends_in_failure() {
    let desk = Desk::new();
    let _stack = desk.start();
    let done = desk.ctl(&["--json"], "watch 10ms count 2 show app nobody; show version").failure();
    assert_eq!(done.status.code(), Some(1), "{}", done.transcript());
    assert_eq!(done.stderr.matches("`nobody`").count(), 2, "{}", done.transcript());
    for line in done.stdout.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(value["level"], "operator");
    }
    assert_eq!(done.stdout.lines().count(), 2, "{}", done.transcript());
}

#[test]
fn one_that_is_named_and_a_filter_besides_are_refused() {
    let desk = Desk::new();
    let _stack = desk.start();
    for line in ["session reset 0:1.1 app echo", "session close 0:1.1 all", "half-open cancel 0#1 port 80"] {
        let done = desk.ctl(&[], line).failure();
        assert!(done.stderr.contains("one or the other"), "{}", done.transcript());
    }
}

#[test]
fn help_without_a_stack_heeds_json_and_knows_what_there_is_not() {
    let desk = Desk::new();
    let help = desk.ctl(&[], "help show app --json").success().json();
    assert_eq!(help["commands"][0]["level"], "user");
    let none = desk.ctl(&[], "help xyzzy").failure();
    assert!(none.stderr.contains("no command begins like `xyzzy`"), "{}", none.transcript());
}

#[test]
fn commands_from_a_pipe_end_when_nobody_reads_the_answers() {
    let desk = Desk::new();
    let _stack = desk.start();
    let endless = shell(&desk, "yes 'show version' | \"$HS\" ctl --socket \"$SOCKET\" | head -n 1");
    let done = endless.wait(crate::LIMIT).success();
    assert!(done.stdout.starts_with("hoststack "), "{}", done.transcript());
}

#[test]
fn a_complaint_that_nobody_reads_keeps_its_exit_status() {
    let (reads, writes) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    drop(reads);
    let mut command = Command::new(hoststack());
    command.args(["ctl", "--socket", "/nonexistent/ctl.sock", "shwo app"]);
    let status = command.stdin(Stdio::null()).stderr(Stdio::from(writes)).status().expect("it runs");
    assert_eq!(status.code(), Some(2));
}

#[test]
fn names_from_elsewhere_give_a_terminal_no_orders() {
    let desk = Desk::new();
    let bell = format!("@hs-{}-\\u001b]0;x\\u0007\\u009b2J\\u202e", std::process::id());
    let raw = bell.replace("\\u001b", "\u{1b}").replace("\\u0007", "\u{7}");
    let raw = raw.replace("\\u009b", "\u{9b}").replace("\\u202e", "\u{202e}");
    let app = format!(
        "{STACK}\n[[app]]\nname = \"bell\"\nkind = \"echo\"\nlisten = [\"kernel+unix://{bell}\", \"local://two\\nlines\"]\n"
    );
    let _stack = desk.start_with(&app);
    let text = desk.show("show listener");
    assert!(text.contains(r"-\u{1b}]0;x\u{7}\u{9b}2J\u{202e}") && text.contains(r"two\u{a}lines"), "{text}");
    let is_order = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(!text.contains(is_order), "{text:?}");
    let json = desk.ctl(&["--json"], "show listener").success();
    assert!(!json.stdout.contains(is_order), "{:?}", json.stdout);
    let value = json.json();
    let addresses = value["listeners"].as_array().expect("a list").iter().map(|one| &one["address"]);
    let expected = Value::from(format!("kernel+unix://{raw}"));
    assert!(addresses.into_iter().any(|address| *address == expected), "{value}");
}

#[test]
fn a_stack_out_of_descriptors_answers_again_when_there_are_some() {
    let desk = Desk::new();
    let stack = desk.start();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", stack.id())).expect("it runs").count();
    let limit = descriptors() as u64 + 4;
    let pid = Pid::from_raw(stack.id().cast_signed());
    let ours = rustix::process::getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(limit), ..ours };
    let old = prlimit(pid, Resource::Nofile, few).expect("our own process");
    let clients: Vec<UnixStream> =
        (0..16).map(|_| UnixStream::connect(desk.socket()).expect("room to wait")).collect();
    wait::until("the descriptors to run out", wait::READY, || (descriptors() as u64 >= limit).then_some(()));
    drop(clients);
    assert!(desk.show("show version").contains("your level"));
    let _ = prlimit(pid, Resource::Nofile, old).expect("as it was");
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[test]
fn a_line_with_a_control_character_is_told_and_the_next_is_done() {
    let desk = Desk::new();
    let _stack = desk.start();
    let lines = "printf 'show app a\\033b\\nshow version\\n' | \"$HS\" ctl --socket \"$SOCKET\"";
    let done = shell(&desk, lines).wait(crate::LIMIT).failure();
    assert!(done.stderr.contains("control character"), "{}", done.transcript());
    assert!(done.stdout.contains("your level"), "{}", done.transcript());
}
