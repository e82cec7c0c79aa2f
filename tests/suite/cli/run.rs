//! `hoststack run` and `hoststack ctl`: a long-running stack, and what it is asked.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hoststack_tests::process::Signal;
use hoststack_tests::{Finished, Process, hoststack, wait};
use serde_json::Value;
use tempfile::TempDir;

use crate::LIMIT;

/// A stack that needs no privileges, with an app of two app workers and one of one.
pub(crate) const STACK: &str = r#"workers = 2

[[device]]
name = "loopback"
addresses = ["127.0.0.1/8", "::1/128"]

[[app]]
name = "echo"
kind = "echo"
listen = ["0.0.0.0:7", "[::]:7"]
app_workers = 2

[[app]]
name = "sink"
kind = "discard"
listen = ["127.0.0.1:9"]
"#;

/// A directory with a configuration and a place for a socket.
pub(crate) struct Desk {
    dir: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Desk {
        Desk { dir: TempDir::new().unwrap() }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("ctl.sock")
    }

    /// Writes `text`, with our socket as its `[cli]` section.
    fn configuration(&self, text: &str) -> PathBuf {
        let file = self.dir.path().join("run.toml");
        std::fs::write(&file, format!("{text}\n[cli]\nsocket = \"{}\"\n", self.socket().display())).unwrap();
        file
    }

    pub(crate) fn start(&self) -> Process {
        self.start_with(STACK)
    }

    pub(crate) fn start_with(&self, configuration: &str) -> Process {
        let file = self.configuration(configuration);
        let mut process = crate::start(&["run", "-c", text(&file)]);
        process.wait_for_output("ready:", wait::READY);
        process
    }

    pub(crate) fn ctl(&self, options: &[&str], command: &str) -> Finished {
        let socket = self.socket();
        let mut arguments = vec!["ctl", "--socket", text(&socket)];
        arguments.extend(options);
        arguments.extend(command.split(' '));
        crate::run(&arguments)
    }

    #[track_caller]
    pub(crate) fn show(&self, command: &str) -> String {
        self.ctl(&[], command).success().stdout
    }

    #[track_caller]
    pub(crate) fn ask(&self, command: &str) -> Value {
        self.ctl(&["--json"], command).success().json()
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs with a configuration that is bad; what it says on standard error.
#[track_caller]
fn complaint(configuration: &str) -> String {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, configuration).unwrap();
    let done = crate::run(&["run", "-c", text(&file)]).failure();
    assert_eq!((done.status.code(), done.stdout.as_str()), (Some(2), ""), "{}", done.transcript());
    let checked = crate::run(&["run", "--check", "-c", text(&file)]).failure();
    assert_eq!((checked.status.code(), &checked.stderr), (Some(2), &done.stderr));
    done.stderr
}

#[test]
fn a_bad_file_names_the_line_the_key_and_what_was_expected() {
    for (from, to, parts) in [
        (
            "workers = 2\n\n[[device]]",
            "workers = \"two\"\n\n[[device]]",
            &["bad.toml:1:", "workers", "\"two\"", "expected a number"][..],
        ),
        (
            "workers = 2\n\n[[device]]",
            "wrokers = 2\n\n[[device]]",
            &["bad.toml:1:", "wrokers", "expected one of `workers`"],
        ),
        ("\"loopback\"", "\"eth0\"", &["bad.toml:4:", "device[0].name", "expected tap:NAME", "\"eth0\""]),
        ("127.0.0.1/8", "127.0.0.1", &["bad.toml:5:", "device[0].addresses[0]", "10.0.0.1/24"]),
        (
            "kind = \"echo\"",
            "kind = \"ehco\"",
            &["bad.toml:9:", "app[0].kind", "expected `echo` or `discard`"],
        ),
        ("[::]:7", "[::]", &["bad.toml:10:", "app[0].listen[1]", "expected an address and a port"]),
        (
            "app_workers = 2",
            "app_workers = 0",
            &["bad.toml:11:", "app[0].app_workers", "expected a positive number"],
        ),
        ("name = \"sink\"", "name = \"echo\"", &["bad.toml:14:", "app[1].name", "expected another name"]),
        (
            "127.0.0.1:9",
            "10.0.0.1:9",
            &["bad.toml:16:", "app[1].listen[0]", "expected one of its devices' `addresses`"],
        ),
        ("kind = \"discard\"", "kind discard", &["bad.toml:15:", "expected"]),
        ("kind = \"discard\"\n", "", &["bad.toml:13:", "app[1]", "missing field `kind`"]),
    ] {
        assert_eq!(STACK.matches(from).count(), 1, "{from:?} must stand there once");
        let told = complaint(&STACK.replace(from, to));
        assert_eq!(told.lines().count(), 1, "one line: {told}");
        for part in parts {
            assert!(told.contains(part), "no {part:?} for {to:?}: {told}");
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let done = crate::run(&["run", "-c", "/nonexistent/run.toml"]).failure();
    assert_eq!(done.status.code(), Some(2));
    assert!(done.stderr.contains("/nonexistent/run.toml"), "{}", done.transcript());
}

#[test]
fn a_good_file_is_checked_without_running() {
    let desk = Desk::new();
    let file = desk.configuration(STACK);
    assert!(crate::run(&["run", "--check", "-c", text(&file)]).success().stdout.contains("good"));
    assert!(!desk.socket().exists());
}

#[test]
fn the_sample_configuration_is_good() {
    let sample = hoststack_tests::binary::workspace_root().join("docs/hoststack.toml");
    let _ = crate::run(&["run", "--check", "-c", text(&sample)]).success();
}

#[test]
fn each_command_shows_what_there_is() {
    let desk = Desk::new();
    let mut stack = desk.start();
    let session = desk.show("show session");
    assert!(session.starts_with("0 sessions: 0 open"), "{session}");
    assert!(desk.show("show half-open").starts_with("0 half-open sessions"));
    let app = desk.show("show app");
    for part in ["echo", "sink", "0.0.0.0:7", "[::]:7", "127.0.0.1:9"] {
        assert!(app.contains(part), "no {part} in\n{app}");
    }
    let worker = desk.show("show worker");
    for part in ["steps", "packets handed over", "TIME-WAIT", "half-open connections"] {
        assert!(worker.contains(part), "no {part} in\n{worker}");
    }
    assert!(desk.show("show errors").contains("nothing was dropped"));
    let leaks = desk.show("show leaks");
    for part in [
        "sessions",
        "half-opens",
        "timers",
        "fifo chunks",
        "flows",
        "messages",
        "parked segments",
        "listeners",
        "TIME-WAIT",
    ] {
        assert!(leaks.contains(part), "no {part} in\n{leaks}");
    }
    let listener = desk.show("show listener");
    assert!(listener.starts_with("3 listeners\n"), "{listener}");
    for part in ["tcp://0.0.0.0:7 ", "tcp://[::]:7 ", "tcp://127.0.0.1:9 ", "echo/1", "sink/0"] {
        assert!(listener.contains(part), "no {part} in\n{listener}");
    }
    assert!(desk.show("help").contains("app detach NAME"));
    assert!(stack.is_running());
}

#[test]
fn each_command_answers_in_json() {
    let desk = Desk::new();
    let _stack = desk.start();
    assert_eq!(desk.ask("show session")["summary"]["total"], 0);
    assert_eq!(desk.ask("show session verbose")["sessions"], Value::Array(Vec::new()));
    assert_eq!(desk.ask("show half-open")["total"], 0);
    let apps = desk.ask("show app");
    assert_eq!((&apps["apps"][0]["name"], &apps["apps"][1]["name"]), (&"echo".into(), &"sink".into()));
    assert_eq!(apps["apps"][0]["app_workers"].as_array().map(Vec::len), Some(2));
    assert_eq!(desk.ask("show worker")["workers"].as_array().map(Vec::len), Some(2));
    assert_eq!(desk.ask("show errors")["errors"], Value::Array(Vec::new()));
    let leaks = desk.ask("show leaks");
    assert_eq!((&leaks["clean"], &leaks["time_wait"]), (&true.into(), &0.into()));
    assert!(
        leaks["leaks"].as_object().is_some_and(|leaks| leaks.len() == 8 && leaks.values().all(|n| *n == 0))
    );
}

/// A proxy listener that needs neither privileges nor a device, as README has it.
#[test]
fn a_proxy_listener_over_sockets_of_the_host_shows_whom_a_header_declared() {
    let desk = Desk::new();
    let unix = desk.dir.path().join("echo.sock");
    let stack = desk.start_with(&format!(
        "[[app]]\nname = \"echo\"\nkind = \"echo\"\nlisten = [\"127.0.0.1:0\", \"kernel+unix://{}\"]\n\
         accept_proxy = \"any\"\n",
        unix.display()
    ));
    let listeners = desk.ask("show listener");
    let addresses: Vec<&str> = listeners["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|listener| listener["address"].as_str().unwrap())
        .collect();
    let at = addresses.iter().find_map(|address| address.strip_prefix("kernel+tcp://")).unwrap();
    assert!(!at.ends_with(":0") && addresses.len() == 2, "{addresses:?}");

    let mut tcp = std::net::TcpStream::connect(at).unwrap();
    let mut local = UnixStream::connect(&unix).unwrap();
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\nhello";
    for stream in [&mut tcp as &mut dyn Talk, &mut local] {
        stream.write_all(header).unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello");
    }
    let silent = std::net::TcpStream::connect(at).unwrap();
    let waits = "not announced: waits in the stage \"PROXY header to receive\"";
    let text = wait::until("the silent one", wait::READY, || {
        Some(desk.show("show session limit 10")).filter(|text| text.contains(waits))
    });
    let own = [tcp.local_addr().unwrap().to_string(), silent.local_addr().unwrap().to_string()];
    let line = |parts: &[&str]| {
        let mut lines = text.lines();
        assert!(lines.any(|line| parts.iter().all(|part| line.contains(part))), "no {parts:?} in\n{text}");
    };
    let declared = "192.0.2.7:1234->198.51.100.1:443";
    line(&["kernel+tcp ", at, &own[0], declared, "open"]);
    line(&["kernel+unix ", " - ", declared, "open"]);
    line(&["kernel+tcp ", at, &own[1], " - ", "unannounced"]);
    drop(silent);
    let reason = "PROXY header to receive: the peer closed in the middle of it";
    wait::until(reason, wait::READY, || desk.show("show errors").contains(reason).then_some(()));
    drop((tcp, local));
    let _ = ends_clean(stack, Signal::TERM, &desk);
    assert!(!unix.exists());
}

/// Both ways of a stream.
trait Talk: Read + Write {}
impl<T: Read + Write> Talk for T {}

#[test]
fn an_app_worker_is_detached_alone_and_an_app_whole() {
    let desk = Desk::new();
    let stack = desk.start();
    let report = desk.ask("app detach echo app-worker 1");
    assert_eq!((&report["app"], &report["detached"][0]["app_worker"]), (&"echo".into(), &1.into()));
    let apps = desk.ask("show app");
    assert_eq!(apps["apps"][0]["app_workers"].as_array().map(Vec::len), Some(1), "{apps:#}");
    let gone = desk.ctl(&[], "app detach echo app-worker 1").failure();
    assert!(gone.stderr.contains("app worker 1") && gone.stderr.contains("`0`"), "{}", gone.transcript());

    assert!(desk.show("app detach sink").contains("sink"));
    let apps = desk.ask("show app");
    assert_eq!(apps["apps"].as_array().map(Vec::len), Some(1), "{apps:#}");
    let gone = desk.ctl(&[], "app detach sink").failure();
    assert_eq!(gone.status.code(), Some(1));
    assert!(gone.stderr.contains("`sink`") && gone.stderr.contains("`echo`"), "{}", gone.transcript());

    assert!(desk.show("app detach echo reset").contains("echo"));
    assert_eq!(desk.ask("show app")["apps"], Value::Array(Vec::new()));
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[track_caller]
pub(crate) fn ends_clean(mut stack: Process, signal: Signal, desk: &Desk) -> Finished {
    assert!(stack.is_running(), "it ended by itself\n{}", stack.transcript());
    stack.signal(signal);
    let done = stack.wait(LIMIT).success();
    assert!(done.stdout.contains("nothing is held"), "{}", done.transcript());
    assert!(!desk.socket().exists(), "its socket is still there");
    done
}

#[test]
fn a_signal_detaches_every_app_and_ends_clean() {
    for signal in [Signal::TERM, Signal::INT] {
        let desk = Desk::new();
        let done = ends_clean(desk.start(), signal, &desk);
        for app in ["echo", "sink"] {
            assert!(done.stdout.lines().any(|line| line.starts_with(app)), "no {app}\n{}", done.transcript());
        }
    }
}

#[test]
fn a_mistyped_command_is_answered_with_its_neighbour() {
    let desk = Desk::new();
    // Without a stack: it is known to be wrong before one is asked.
    let done = desk.ctl(&[], "show sesion").failure();
    assert_eq!(done.status.code(), Some(2));
    assert!(
        done.stderr.contains("`show sesion`") && done.stderr.contains("`show session"),
        "{}",
        done.transcript()
    );
    let done = desk.ctl(&[], "show session verbsoe").failure();
    assert!(done.stderr.contains("did you mean `verbose`"), "{}", done.transcript());
    let done = desk.ctl(&[], "app detach").failure();
    assert!(done.stderr.contains("app detach NAME"), "{}", done.transcript());
}

#[test]
fn commands_may_come_from_standard_input() {
    let desk = Desk::new();
    let _stack = desk.start();
    let converse = |commands: &str| {
        let input = desk.dir.path().join("commands");
        std::fs::write(&input, commands).unwrap();
        let mut command = Command::new(hoststack());
        command
            .args(["ctl", "--socket"])
            .arg(desk.socket())
            .stdin(Stdio::from(std::fs::File::open(input).unwrap()));
        Process::spawn("hoststack ctl < commands", command).wait(LIMIT)
    };
    let done = converse("show leaks\n\nshow app\n").success();
    assert!(done.stdout.contains("fifo chunks") && done.stdout.contains("sink"), "{}", done.transcript());
    let done = converse("show sesion\nshow app\n").failure();
    assert!(done.stderr.contains("`show session"), "{}", done.transcript());
    assert!(done.stdout.contains("sink"), "the next command is answered all the same\n{}", done.transcript());
}

#[test]
fn without_a_stack_ctl_says_where_it_looked() {
    let desk = Desk::new();
    let done = desk.ctl(&[], "show app").failure();
    assert_eq!(done.status.code(), Some(1));
    assert!(done.stderr.contains(text(&desk.socket())), "{}", done.transcript());
    assert!(done.stderr.contains("hoststack run"), "{}", done.transcript());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let desk = Desk::new();
    drop(UnixListener::bind(desk.socket()).unwrap());
    assert!(
        desk.socket().exists() && UnixStream::connect(desk.socket()).is_err(),
        "a socket nobody listens on"
    );
    let stack = desk.start();
    assert!(desk.show("show app").contains("sink"));

    let second = crate::run(&["run", "-c", text(&desk.dir.path().join("run.toml"))]).failure();
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stderr.contains(text(&desk.socket())), "{}", second.transcript());
    assert!(desk.show("show app").contains("sink"), "the first is unharmed");
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[test]
fn a_file_in_the_sockets_place_is_left_alone() {
    let desk = Desk::new();
    std::fs::write(desk.socket(), "precious").unwrap();
    let file = desk.configuration(STACK);
    let done = crate::run(&["run", "-c", text(&file)]).failure();
    assert!(done.stderr.contains("no socket"), "{}", done.transcript());
    assert_eq!(std::fs::read_to_string(desk.socket()).unwrap(), "precious");
}

#[test]
fn a_client_that_talks_nonsense_or_leaves_harms_nobody() {
    let desk = Desk::new();
    let stack = desk.start();
    let mut clients: Vec<UnixStream> = (0..8).map(|_| UnixStream::connect(desk.socket()).unwrap()).collect();
    for (client, nonsense) in
        clients.iter_mut().zip([&b"\xff\xfe\x00"[..], b"\n\n\n", b"text ", b"json show app\n"])
    {
        // Whether the server hangs up first is its affair.
        let _ = client.write_all(nonsense);
    }
    drop(clients.split_off(4));
    assert!(desk.show("show app").contains("sink"));
    drop(clients);
    let _ = ends_clean(stack, Signal::TERM, &desk);
}
