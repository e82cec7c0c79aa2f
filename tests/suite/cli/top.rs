//! `hoststack top` in a terminal: tmux is the terminal, its captured screen is what a person sees.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hoststack_tests::process::{self, Signal, run as run_to_end};
use hoststack_tests::{Process, hoststack, wait};
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A stack that needs no privileges; the host chooses the port.
const STACK: &str = "workers = 2\n\n[[app]]\nname = \"echo\"\nkind = \"echo\"\nlisten = [\"127.0.0.1:0\"]\n";

/// A directory with a configuration, the stack's socket and the terminal's.
struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new() -> Desk {
        Desk { dir: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self) -> Process {
        let file = self.path("run.toml");
        let text = format!("{STACK}\n[cli]\nsocket = \"{}\"\n", self.path("ctl.sock").display());
        std::fs::write(&file, text).unwrap();
        let mut process = crate::start(&["run", "-c", file.to_str().unwrap()]);
        process.wait_for_output("ready:", wait::READY);
        process
    }

    fn ask(&self, command: &str) -> Value {
        let socket = self.path("ctl.sock");
        let mut arguments = vec!["ctl", "--json", "--socket", socket.to_str().unwrap()];
        arguments.extend(command.split(' '));
        crate::run(&arguments).success().json()
    }

    /// Where the echo app listens.
    fn echo(&self) -> SocketAddr {
        let listeners = self.ask("show listener");
        let address = listeners["listeners"][0]["address"].as_str().unwrap();
        address.rsplit_once('/').unwrap().1.parse().unwrap()
    }

    fn top(&self, options: &str) -> String {
        format!("'{}' top --socket '{}' {options}", hoststack().display(), self.path("ctl.sock").display())
    }

    /// The same, which leaves its process id where [`Desk::id`] reads it.
    fn started_with_its_id(&self, options: &str) -> String {
        let file = self.path("pid");
        format!("sh -c 'echo $$ > {}; exec \"$@\"' sh {}", file.display(), self.top(options))
    }

    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id().as_raw_nonzero())).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    fn id(&self) -> Pid {
        let text = std::fs::read_to_string(self.path("pid")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }
}

/// A terminal with a shell in it. It is closed when this is dropped.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    fn open(socket: &Path, width: u16, height: u16) -> Terminal {
        let terminal = Terminal { socket: socket.to_owned() };
        let (width, height) = (width.to_string(), height.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &width, "-y", &height, "env PS1='ready$ ' sh"]);
        terminal.shows(&["ready$"]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        // `-u`: the screen is UTF-8, whatever the locale of the one who runs the tests.
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(&self.socket).args(arguments);
        command.env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null()).env_remove("TMUX").env_remove("RUST_LOG").env_remove("NO_COLOR");
        run_to_end(&format!("tmux {}", arguments.join(" ")), command)
    }

    /// Types a command and Enter.
    fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.tmux(&["send-keys", "Enter"]);
    }

    /// Presses keys, by tmux's names.
    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until all of these stand on the screen.
    #[track_caller]
    fn shows(&self, parts: &[&str]) -> String {
        let mut last = String::new();
        let seen = wait::poll(wait::READY, || {
            last = self.screen();
            parts.iter().all(|part| last.contains(part)).then_some(())
        });
        assert!(seen.is_some(), "never all of {parts:?} on\n{last}");
        last
    }

    /// Waits until this is on the screen no more.
    #[track_caller]
    fn loses(&self, part: &str) -> String {
        let lost = wait::poll(wait::READY, || Some(self.screen()).filter(|screen| !screen.contains(part)));
        lost.unwrap_or_else(|| panic!("{part:?} stays on\n{}", self.screen()))
    }

    /// The shell is back, on a screen and in a mode as before.
    #[track_caller]
    fn is_given_back(&self) {
        self.loses("overview");
        self.types(
            "stty -a | tr ' ;' '\\n\\n' | grep -xE -- '-?(icanon|echo|isig)' | sort | tr '\\n' '+'; echo e''nd",
        );
        let screen = self.shows(&["+end"]);
        assert!(screen.contains("echo+icanon+isig+end"), "the mode is not what it was\n{screen}");
        assert_eq!(self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim(), "0 1");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).arg("kill-server");
        // The terminal may have been closed before, which is all that is wanted.
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// A client of the echo app that was answered once.
fn client(at: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    stream
}

#[test]
fn a_stack_is_watched_view_by_view() {
    let desk = Desk::new();
    let _stack = desk.start();
    let at = desk.echo();
    let (one, other) = (client(at), client(at));
    let ends = [&one, &other].map(|stream| stream.local_addr().unwrap().to_string());
    let terminal = Terminal::open(&desk.path("tmux.sock"), 100, 30);
    terminal.types(&desk.top("--interval 200ms"));

    let screen =
        terminal.shows(&["1 overview", "worker", "connects/s", "sessions 2", "connect latency", "%"]);
    assert!(screen.lines().filter(|line| line.contains('%')).count() == 3, "two workers and main\n{screen}");
    assert!(screen.lines().last().is_some_and(|line| line.contains("q quit")), "{screen}");

    terminal.press(&["2"]);
    terminal.shows(&["2 sessions", &ends[0], &ends[1], "rtt▼", "echo/"]);
    // Sorted by another column, the other way round.
    terminal.press(&["s"]);
    terminal.shows(&["age▼"]);
    terminal.press(&["r"]);
    terminal.shows(&["age▲"]);
    // What is typed narrows at once, and Enter keeps it.
    terminal.press(&["/"]);
    terminal.tmux(&["send-keys", "-l", &ends[1]]);
    terminal.shows(&[&format!("filter: {}", ends[1]), "1 of 2 sessions"]);
    terminal.loses(&ends[0]);
    terminal.press(&["Enter"]);
    terminal.shows(&["q quit"]);
    terminal.press(&["Enter"]);
    let screen = terminal.shows(&["─ session ", "Esc back", "remote", &ends[1], "age_us"]);
    assert!(!screen.contains(&ends[0]), "{screen}");
    // It ends while it is looked at: its last figures stay, and it is said.
    drop(other);
    terminal.shows(&["it is gone", &ends[1]]);
    terminal.press(&["Escape"]);
    terminal.shows(&["none that the filter lets through"]);
    terminal.press(&["Escape"]);
    terminal.shows(&[&ends[0]]);

    // The stack's own filter, which knows all sessions; what it does not take it says.
    let (_, port) = ends[0].rsplit_once(':').unwrap();
    for (filter, told) in [
        (format!("remote-port {port}"), "1 session"),
        ("app nobody".to_owned(), "none that the filter lets through"),
        ("remote 10.0.0.0/99".to_owned(), "the stack says: "),
    ] {
        terminal.press(&["/"]);
        terminal.tmux(&["send-keys", "-l", &filter]);
        terminal.press(&["Enter"]);
        terminal.shows(&[&format!("filter: {filter}"), told]);
        terminal.press(&["Escape"]);
        terminal.shows(&["1 session", &ends[0], "q quit"]);
    }
    // Every layer of a session.
    terminal.press(&["Enter"]);
    terminal.shows(&["─ session ", "detail", "rx_fifo", "capacity", "transport"]);
    terminal.press(&["Escape"]);

    terminal.press(&["3"]);
    terminal.shows(&["1 app worker", "echo/0", "established", &at.to_string()]);
    terminal.press(&["Tab"]);
    terminal.shows(&["reasons for drops"]);
    terminal.press(&["?"]);
    terminal.shows(&["keys: any closes this", "all about the line under the cursor"]);
    terminal.press(&["x"]);
    terminal.loses("keys: any closes this");
    terminal.press(&["p"]);
    terminal.shows(&["paused"]);
    terminal.press(&["p", "+"]);
    terminal.loses("paused");
    terminal.shows(&[" 500 ms"]);

    terminal.tmux(&["resize-window", "-x", "70", "-y", "20"]);
    terminal.shows(&["this terminal is 70x20"]);
    terminal.tmux(&["resize-window", "-x", "140", "-y", "50"]);
    terminal.press(&["1"]);
    terminal.shows(&["slowest sessions", &ends[0]]);
    terminal.press(&["q"]);
    terminal.is_given_back();
}

#[test]
fn a_stack_that_goes_away_is_waited_for() {
    let desk = Desk::new();
    let mut stack = desk.start();
    let terminal = Terminal::open(&desk.path("tmux.sock"), 80, 24);
    terminal.types(&desk.top("--interval 100ms"));
    terminal.shows(&["q quit", "%"]);
    stack.terminate();
    let _ = stack.wait(crate::LIMIT).success();
    terminal.shows(&["the stack is away since", "trying again"]);
    // Keys are obeyed meanwhile.
    terminal.press(&["3"]);
    terminal.shows(&["1 app worker"]);
    let _stack = desk.start();
    terminal.shows(&["the stack was started anew"]);
    terminal.press(&["1"]);
    terminal.shows(&["connects/s", "%"]);
    terminal.press(&["C-c"]);
    terminal.is_given_back();
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let desk = Desk::new();
    let _stack = desk.start();
    let terminal = Terminal::open(&desk.path("tmux.sock"), 80, 24);
    for signal in [Signal::TERM, Signal::INT] {
        terminal.types(&desk.started_with_its_id(""));
        terminal.shows(&["q quit"]);
        kill_process(desk.id(), signal).unwrap();
        terminal.is_given_back();
        terminal.types("clear");
        terminal.loses("isig");
    }
}

#[test]
fn a_stop_gives_the_terminal_to_the_shell_until_it_goes_on() {
    let desk = Desk::new();
    let _stack = desk.start();
    let terminal = Terminal::open(&desk.path("tmux.sock"), 80, 24);
    // By its key, and by the signal.
    for signal in [None, Some(Signal::TSTP)] {
        terminal.types(&desk.started_with_its_id(""));
        terminal.shows(&["1 overview", "q quit"]);
        match signal {
            None => terminal.press(&["C-z"]),
            Some(signal) => kill_process(desk.id(), signal).unwrap(),
        }
        terminal.shows(&["Stopped"]);
        terminal.is_given_back();
        wait::until("the stop", wait::READY, || desk.is_stopped().then_some(()));
        terminal.types("fg");
        let screen = terminal.shows(&["1 overview", "q quit"]);
        assert!(!screen.contains("Stopped"), "all is drawn anew\n{screen}");
        terminal.press(&["2"]);
        terminal.shows(&["0 sessions"]);
        terminal.press(&["q"]);
        terminal.is_given_back();
        terminal.types("clear");
        terminal.loses("isig");
    }
}

#[test]
fn where_the_locale_is_not_utf_8_all_is_ascii() {
    let desk = Desk::new();
    let _stack = desk.start();
    let terminal = Terminal::open(&desk.path("tmux.sock"), 80, 24);
    terminal.types(&format!("LC_ALL=C {}", desk.top("--interval 200ms")));
    let screen = terminal.shows(&["1 overview", "- sessions 0 ---", "q quit", "%"]);
    assert!(screen.is_ascii(), "{screen}");
    terminal.press(&["q"]);
    terminal.is_given_back();
}

#[test]
fn a_terminal_that_is_closed_ends_it() {
    let desk = Desk::new();
    let _stack = desk.start();
    let terminal = Terminal::open(&desk.path("tmux.sock"), 80, 24);
    terminal.types(&desk.started_with_its_id(""));
    terminal.shows(&["q quit"]);
    let id = desk.id().as_raw_nonzero().get().unsigned_abs();
    drop(terminal);
    wait::until("its end", wait::READY, || (!process::exists(id)).then_some(()));
}

#[test]
fn one_look_is_printed_as_text() {
    let desk = Desk::new();
    let _stack = desk.start();
    let client = client(desk.echo());
    let socket = desk.path("ctl.sock");
    let once = |options: &[&str]| {
        let fixed = ["top", "--once", "--interval", "100ms", "--socket", socket.to_str().unwrap()];
        crate::run(&[&fixed, options].concat()).success().stdout
    };
    let overview = once(&[]);
    for part in ["1 overview", "connects/s", "sessions 1", "TIME-WAIT", "%"] {
        assert!(overview.contains(part), "no {part} in\n{overview}");
    }
    assert!(!overview.contains('\u{1b}') && !overview.contains("q quit"), "{overview}");
    let remote = client.local_addr().unwrap().to_string();
    assert!(once(&["--view", "sessions"]).contains(&remote));
    let none = once(&["--view", "sessions", "--filter", "nothing-like-this"]);
    assert!(none.contains("0 of 1 sessions, filter: nothing-like-this") && !none.contains(&remote), "{none}");
}

#[test]
fn without_a_terminal_or_a_stack_it_says_what_to_do() {
    let desk = Desk::new();
    let socket = desk.path("ctl.sock");
    let socket = socket.to_str().unwrap();
    let done = crate::run(&["top", "--socket", socket]).failure();
    assert_eq!(done.status.code(), Some(2));
    assert!(done.stderr.contains("`hoststack top --once`"), "{}", done.transcript());
    let done = crate::run(&["top", "--once", "--socket", socket]).failure();
    assert_eq!(done.status.code(), Some(1));
    assert!(done.stderr.contains(socket) && done.stderr.contains("hoststack run"), "{}", done.transcript());
    for (bad, told) in [(["--interval", "1ms"], "100ms"), (["--filter", "x"], "--view")] {
        let done = crate::run(&["top", "--once", "--socket", socket, bad[0], bad[1]]).failure();
        assert!(done.status.code() == Some(2) && done.stderr.contains(told), "{}", done.transcript());
    }
}
