//! The console of `hoststack run`: lines of several commands, levels, completion, and what its sockets bear.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hoststack_tests::process::Signal;
use hoststack_tests::{Process, hoststack, wait};
use rustix::pipe::PipeFlags;
use serde_json::Value;

use super::run::{Desk, STACK, ends_clean, text};

/// A conversation in the protocol itself, as `docs/cli.md` has it.
struct Raw(BufReader<UnixStream>);

impl Raw {
    fn open(socket: &Path) -> Raw {
        let stream = UnixStream::connect(socket).expect("a stack answers");
        stream.set_read_timeout(Some(wait::READY)).expect("a time-out");
        Raw(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).expect("the server reads");
    }

    /// A frame's head and text; `None`: the server hung up.
    fn frame(&mut self) -> Option<(String, String)> {
        let mut head = String::new();
        if self.0.read_line(&mut head).expect("a line") == 0 {
            return None;
        }
        let length = head.split_whitespace().nth(1).and_then(|length| length.parse().ok()).expect(&head);
        let mut text = vec![0; length];
        self.0.read_exact(&mut text).expect("as many bytes as were promised");
        Some((head.trim_end().to_owned(), String::from_utf8(text).expect("text")))
    }

    /// A whole reply: its last head, and all its text.
    fn reply(&mut self) -> (String, String) {
        let mut all = String::new();
        loop {
            let (head, text) = self.frame().expect("a reply has an end");
            all.push_str(&text);
            if !head.starts_with("part ") {
                return (head, all);
            }
        }
    }

    fn ask(&mut self, line: &str) -> (String, String) {
        self.send(format!("{line}\n"));
        self.reply()
    }
}

fn threads(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).expect("Linux says so");
    line.trim().parse().expect("a number")
}

fn descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).expect("it runs").count()
}

#[test]
fn commands_of_a_line_are_answered_in_order() {
    let desk = Desk::new();
    let _stack = desk.start();
    let both = desk.show("show leaks; show app");
    let at = |part: &str| both.find(part).unwrap_or_else(|| panic!("no {part} in\n{both}"));
    assert!(at("fifo chunks") < at("sink"));
    let json = desk.ctl(&["--json"], "show leaks; show app").success().stdout;
    let values: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("NDJSON")).collect();
    assert_eq!((&values[0]["clean"], &values[1]["apps"][1]["name"]), (&true.into(), &"sink".into()));
    let one = desk.ctl(&[], "show app --json").success().json();
    assert_eq!(one["apps"][0]["name"], "echo");
}

#[test]
fn a_line_is_understood_whole_before_any_of_it_is_done() {
    let desk = Desk::new();
    let _stack = desk.start();
    let done = desk.ctl(&[], "app detach sink; show sesion").failure();
    assert_eq!(done.status.code(), Some(2), "{}", done.transcript());
    assert!(done.stderr.contains("did you mean `show session"), "{}", done.transcript());
    assert!(desk.show("show app").contains("sink"), "it was not detached");
    // One that fails is no reason to leave out the next.
    let done = desk.ctl(&[], "app detach nobody; show app").failure();
    assert_eq!(done.status.code(), Some(1), "{}", done.transcript());
    assert!(
        done.stderr.contains("command 1 of 2") && done.stderr.contains("`nobody`"),
        "{}",
        done.transcript()
    );
    assert!(done.stdout.contains("sink"), "{}", done.transcript());
}

#[test]
fn lines_are_chosen_by_text_or_regular_expression() {
    let desk = Desk::new();
    let _stack = desk.start();
    let lines = |command: &str| desk.show(command).lines().map(str::to_owned).collect::<Vec<_>>();
    let sink = lines("show app | include sink");
    assert!(sink.len() == 2 && sink[0].starts_with("app") && sink[1].contains("sink"), "{sink:?}");
    let not = lines("show listener | exclude 0.0.0.0 | include [::]:7");
    assert!(not.len() == 3 && not[2].contains("tcp://[::]:7"), "the headings and one line: {not:?}");
    let either = desk.ctl(&[], "show leaks | include 'fi.o|flows'").success().stdout;
    assert_eq!(either.lines().count(), 3, "{either}");
    let done = desk.ctl(&[], "show app | grep x").failure();
    assert!(
        done.status.code() == Some(2) && done.stderr.contains("include PATTERN"),
        "{}",
        done.transcript()
    );
}

#[test]
fn a_command_is_watched_so_many_times() {
    let desk = Desk::new();
    let _stack = desk.start();
    let shown = desk.show("watch 10ms count 3 show version; show leaks | include flows");
    let count = |part: &str| shown.lines().filter(|line| line.starts_with(part)).count();
    assert_eq!((count("hoststack "), count("flows"), count("timers")), (3, 3, 0), "{shown}");
    let done = desk.ctl(&[], "watch never show app").failure();
    assert!(done.status.code() == Some(2) && done.stderr.contains("INTERVAL"), "{}", done.transcript());
}

#[test]
fn a_user_reads_and_an_operator_acts() {
    let desk = Desk::new();
    let view = desk.socket().with_extension("view");
    let file = desk.directory().join("run.toml");
    let sockets = format!(
        "{STACK}\n[[cli]]\nsocket = \"{}\"\n[[cli]]\nsocket = \"{}\"\nlevel = \"user\"\n",
        text(&desk.socket()),
        text(&view)
    );
    std::fs::write(&file, sockets).expect("a file");
    let mut stack = crate::start(&["run", "-c", text(&file)]);
    stack.wait_for_output("ready:", wait::READY);
    for socket in [&desk.socket(), &view] {
        let mode = std::fs::metadata(socket).expect("a socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", socket.display());
    }
    let user = |command: &[&str]| crate::run(&[&["ctl", "--socket", text(&view)][..], command].concat());
    assert!(user(&["show", "app"]).success().stdout.contains("sink"));
    assert_eq!(user(&["--json", "show", "version"]).success().json()["level"], "user");
    let refused = user(&["show app; app detach sink"]).failure();
    assert_eq!((refused.status.code(), refused.stdout.as_str()), (Some(2), ""), "{}", refused.transcript());
    for part in ["`app detach NAME", "level user", text(&desk.socket())] {
        assert!(refused.stderr.contains(part), "no {part}\n{}", refused.transcript());
    }
    let sockets = desk.ask("show cli");
    let levels: Vec<&Value> =
        sockets["sockets"].as_array().expect("a list").iter().map(|one| &one["level"]).collect();
    assert_eq!(levels, ["operator", "user"]);
    let _ = desk.show("app detach sink");
    let _ = ends_clean(stack, Signal::TERM, &desk);
    assert!(!view.exists());
}

#[test]
fn the_server_completes_words_names_and_workers() {
    let desk = Desk::new();
    let _stack = desk.start();
    let mut raw = Raw::open(&desk.socket());
    assert_eq!(raw.ask("complete show ses"), ("ok 8".to_owned(), "session\n".to_owned()));
    assert_eq!(raw.ask("complete app detach ").1, "echo\nsink\n");
    assert_eq!(raw.ask("complete app detach e").1, "echo\n");
    assert_eq!(raw.ask("complete xyzzy "), ("ok 0".to_owned(), String::new()));
    let (_, json) = raw.ask("json complete show app; app det");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["start"], &json["candidates"][0]), (&14.into(), &"detach".into()));
    // The conversation goes on as before.
    assert!(raw.ask("show version").1.contains("hoststack"));
}

#[test]
fn what_is_no_command_has_a_clear_answer() {
    let desk = Desk::new();
    let stack = desk.start();
    let long = format!("show app {}\n", "x".repeat(5000));
    for (bytes, part) in [
        (long.as_bytes(), "longer than 4096 bytes"),
        (b"\xff\xfe\n", "UTF-8"),
        (b"show\0app\n", "control character"),
        (b"app detach sin", "no end"),
    ] {
        let mut raw = Raw::open(&desk.socket());
        raw.send(bytes);
        raw.0.get_ref().shutdown(Shutdown::Write).expect("half closed");
        let (head, told) = raw.reply();
        assert!(head.ends_with(" usage") && told.contains(part), "{head} {told}");
    }
    let mut raw = Raw::open(&desk.socket());
    for (line, part) in [
        ("", "`help`"),
        ("shwo app", "did you mean `show app"),
        ("app detach 'echo", "quote"),
        ("app detach echo app-worker x", "found `x`"),
        ("app detach echo linger 5", "`linger` wants to be a span of time"),
        ("show app |", "include PATTERN"),
        ("watch 1 show app", "hoststack ctl"),
    ] {
        let (head, told) = raw.ask(line);
        assert!(head.starts_with("error ") && told.contains(part), "{line}: {head} {told}");
    }
    assert!(raw.ask("show app").1.contains("sink"), "none of it was done");
    drop(raw);
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[test]
fn two_hundred_clients_at_once_are_answered_and_leave_nothing() {
    let desk = Desk::new();
    let stack = desk.start();
    let pid = stack.id();
    let (threads_before, descriptors_before) = (threads(pid), descriptors(pid));
    let mut clients: Vec<Raw> = (0..200).map(|_| Raw::open(&desk.socket())).collect();
    clients.iter_mut().for_each(|client| client.send("show app\n"));
    for client in &mut clients {
        assert!(client.reply().1.contains("sink"));
    }
    assert_eq!(desk.ask("show cli")["sockets"][0]["clients"], 201);
    // Some leave with an answer under way, some without a word.
    clients.iter_mut().step_by(2).for_each(|client| client.send("show worker\n"));
    drop(clients);
    wait::until("the clients' threads to end", wait::READY, || {
        (threads(pid) <= threads_before && descriptors(pid) <= descriptors_before).then_some(())
    });
    assert_eq!(desk.ask("show cli")["sockets"][0]["clients"], 1);
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[test]
fn a_client_beyond_the_limit_is_told_so() {
    let desk = Desk::new();
    let _stack = desk.start();
    let clients: Vec<Raw> = (0..256).map(|_| Raw::open(&desk.socket())).collect();
    let mut late = Raw::open(&desk.socket());
    let (head, told) = late.reply();
    assert!(head.starts_with("error ") && told.contains("too many clients"), "{head} {told}");
    assert_eq!(late.frame(), None, "and hung up on");
    let refused = desk.ctl(&[], "show app").failure();
    assert!(refused.stderr.contains("too many clients"), "{}", refused.transcript());
    drop(clients);
    wait::until("room for another", wait::READY, || desk.ctl(&[], "show app").status.success().then_some(()));
}

#[test]
fn a_client_that_never_reads_holds_nobody_up_and_is_forgotten_when_killed() {
    let desk = Desk::new();
    let stack = desk.start();
    let pid = stack.id();
    let before = threads(pid);
    let mut deaf: Vec<UnixStream> =
        (0..8).map(|_| UnixStream::connect(desk.socket()).expect("room")).collect();
    for stream in &mut deaf {
        stream.set_nonblocking(true).expect("a socket");
        // Until both directions are full: the server waits to write, and reads no more.
        let lines = b"show worker\n".repeat(64);
        let full = wait::poll(Duration::from_secs(60), || stream.write(&lines).is_err().then_some(()));
        assert!(full.is_some(), "the server reads without an end");
    }
    assert!(desk.show("show app").contains("sink"), "others are answered");
    drop(deaf);
    wait::until("the threads of those who left", wait::READY, || (threads(pid) <= before).then_some(()));
    assert_eq!(desk.ask("show cli")["sockets"][0]["clients"], 1);
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[test]
fn a_stack_ends_while_clients_hang_on() {
    let desk = Desk::new();
    let stack = desk.start();
    let mut clients: Vec<Raw> = (0..3).map(|_| Raw::open(&desk.socket())).collect();
    assert!(clients[0].ask("show app").1.contains("sink"));
    let _ = ends_clean(stack, Signal::TERM, &desk);
    clients.iter_mut().for_each(|client| assert_eq!(client.frame(), None));
}

#[test]
fn version_and_configuration_are_shown() {
    let desk = Desk::new();
    let stack = desk.start();
    let version = desk.ask("show version");
    assert_eq!((&version["pid"], &version["workers"]), (&stack.id().into(), &2.into()));
    let config = desk.show("show config");
    for line in ["workers = 2", "app[1].kind = \"discard\"", "device[0].name = \"loopback\""] {
        assert!(config.lines().any(|shown| shown == line), "no {line} in\n{config}");
    }
    assert!(config.lines().any(|line| line.starts_with("limits.sessions = ") && line.ends_with("# default")));
}

#[test]
fn help_says_all_about_a_command_with_and_without_a_stack() {
    let desk = Desk::new();
    let alone = desk.ctl(&[], "help app detach").success().stdout;
    assert!(alone.contains("linger SPAN") && alone.contains("operator"), "{alone}");
    let _stack = desk.start();
    assert_eq!(desk.show("help app detach"), alone);
    let json = desk.ask("help app");
    assert_eq!(json["commands"][0]["level"], "operator");
    let none = desk.ctl(&[], "help xyzzy").failure();
    assert!(none.stderr.contains("`xyzzy`"), "{}", none.transcript());
}

/// `hoststack ctl` on a terminal that `script` makes, and what is typed there.
struct Terminal {
    process: Process,
    keys: std::fs::File,
}

impl Terminal {
    fn open(desk: &Desk) -> Terminal {
        let (reads, writes) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        // `exec`: a shell that waits for it would die of the Ctrl-C that is meant for it.
        let command = format!("exec {} ctl --socket {}", hoststack().display(), text(&desk.socket()));
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
            .stdin(Stdio::from(reads));
        script
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .env("XDG_STATE_HOME", desk.directory().join("state"));
        Terminal { process: Process::spawn("script hoststack ctl", script), keys: writes.into() }
    }

    /// Types, and waits until the screen has shown `text`, so often.
    fn types(&mut self, keys: &str, text: &str, times: usize) {
        self.keys.write_all(keys.as_bytes()).expect("it reads");
        wait::until(text, wait::READY, || {
            let shown = self.process.stdout();
            assert!(shown.matches(text).count() >= times || self.process.is_running(), "it ended\n{shown}");
            (shown.matches(text).count() >= times).then_some(())
        });
    }
}

#[test]
fn the_prompt_completes_remembers_and_survives_mistakes() {
    let desk = Desk::new();
    let stack = desk.start();
    let mut terminal = Terminal::open(&desk);
    terminal.types("", "hoststack> ", 1);
    // A word by its beginning, and the name of an application, each with one key.
    terminal.types("show ver\t\r", "your level", 1);
    terminal.types("shwo app\r", "did you mean `show app", 1);
    terminal.types("app detach si\t\r", "took", 1);
    // Upwards, past the detach and the mistake.
    terminal.types("\u{1b}[A\u{1b}[A\u{1b}[A\r", "your level", 2);
    terminal.types("watch 10ms show leaks\r", "fifo chunks", 3);
    // Ctrl-C ends the watch and not the conversation.
    terminal.types("\u{3}show version\r", "your level", 3);
    terminal.keys.write_all(b"quit\r").expect("it reads");
    let done = terminal.process.wait(crate::LIMIT).success();
    assert!(!done.stdout.contains("panicked"), "{}", done.transcript());
    assert!(!desk.show("show app").contains("sink"));
    let history = desk.directory().join("state/hoststack/ctl_history");
    let mode = std::fs::metadata(&history).expect("a history").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let remembered = std::fs::read_to_string(history).expect("a history");
    assert!(remembered.lines().any(|line| line == "app detach sink"), "{remembered}");
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[test]
fn a_prompt_finds_a_stack_that_was_started_again() {
    let desk = Desk::new();
    let stack = desk.start();
    let mut terminal = Terminal::open(&desk);
    terminal.types("show version\r", "your level", 1);
    let _ = ends_clean(stack, Signal::TERM, &desk);
    terminal.types("show app\r", "no stack answers", 1);
    let _stack = desk.start();
    terminal.types("show version\r", "your level", 2);
    // Ctrl-D.
    terminal.keys.write_all(b"\x04").expect("it reads");
    let _ = terminal.process.wait(crate::LIMIT).success();
}
