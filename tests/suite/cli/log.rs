//! The log of `hoststack run`: its forms, and the line of each session at its end.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;

use hoststack_tests::process::Signal;
use hoststack_tests::{Finished, Process, wait};
use serde_json::Value;
use tempfile::TempDir;

use crate::LIMIT;

/// An echo server on a socket of the host, with a control socket, and this section for the log.
struct Server {
    dir: TempDir,
    process: Process,
}

impl Server {
    fn start(log: &str) -> Server {
        let dir = TempDir::new().unwrap();
        let (file, socket) = (dir.path().join("run.toml"), dir.path().join("ctl.sock"));
        let configuration = format!(
            "[[app]]\nname = \"echo\"\nkind = \"echo\"\nlisten = [\"kernel+tcp://127.0.0.1:0\"]\n\
             {log}\n[cli]\nsocket = \"{}\"\n",
            socket.display()
        );
        std::fs::write(&file, configuration).unwrap();
        let mut process = crate::start(&["run", "-c", text(&file)]);
        process.wait_for_output("ready:", wait::READY);
        Server { dir, process }
    }

    fn address(&self) -> SocketAddr {
        let socket = self.dir.path().join("ctl.sock");
        let answer =
            crate::run(&["ctl", "--socket", text(&socket), "--json", "show", "listener"]).success().json();
        let address = answer["listeners"][0]["address"].as_str().unwrap();
        address.strip_prefix("kernel+tcp://").unwrap().parse().unwrap()
    }

    /// Sends `bytes`, takes them back, and closes first; says from where.
    fn echo(&self, bytes: &[u8]) -> SocketAddr {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.write_all(bytes).unwrap();
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, bytes);
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut back).unwrap(), 0);
        stream.local_addr().unwrap()
    }

    /// Ends it; its log is complete then.
    fn end(mut self) -> (Finished, TempDir) {
        self.process.signal(Signal::TERM);
        (self.process.wait(LIMIT).success(), self.dir)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Lines of JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn ends(log: &[Value]) -> Vec<&Value> {
    log.iter().filter(|line| line["target"] == "hoststack::session").collect()
}

#[test]
fn each_session_has_one_line_of_json_at_its_end() {
    let server = Server::start("[log]\nfilter = \"info\"\nformat = \"json\"\nsessions = true");
    let at = server.address();
    let peers = [server.echo(b"one"), server.echo(&[7; 5000])];
    let (done, _) = server.end();
    let log = lines(&done.stderr);
    let ends = ends(&log);
    assert_eq!(ends.len(), 2, "{}", done.transcript());
    for ((end, peer), bytes) in ends.into_iter().zip(peers).zip([3, 5000]) {
        for (field, value) in [
            ("level", Value::from("INFO")),
            ("message", "session ended".into()),
            ("app", "echo/0".into()),
            ("protocol", "kernel+tcp".into()),
            ("local", at.to_string().into()),
            ("remote", peer.to_string().into()),
            ("opened_by", "peer".into()),
            ("bytes_in", bytes.into()),
            ("bytes_out", bytes.into()),
            ("retransmitted", 0.into()),
            ("ended", "finished".into()),
            ("ended_by", "peer".into()),
        ] {
            assert_eq!(end[field], value, "{field}: {end}");
        }
        let micros = |field: &str| end[field].as_u64().unwrap_or_else(|| panic!("no {field}: {end}"));
        assert!(micros("total_us") >= micros("stages_us") + micros("first_byte_us"), "{end}");
        assert!(end["session"].as_str().is_some_and(|session| session.starts_with("0:")), "{end}");
        assert_eq!((end.get("connect_us"), end.get("declared")), (None, None));
    }
    let messages: Vec<&str> = log.iter().filter_map(|line| line["message"].as_str()).collect();
    for life in ["attached", "listening", "detaching", "application detached"] {
        assert!(messages.contains(&life), "no {life:?}: {messages:?}");
    }
}

#[test]
fn a_log_for_people_goes_to_a_file_that_is_added_to() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("log");
    for count in 1..3 {
        let section = format!("[log]\nfilter = \"warn\"\nfile = \"{}\"\nsessions = true", file.display());
        let server = Server::start(&section);
        let peer = server.echo(b"one");
        let (done, _) = server.end();
        assert_eq!(done.stderr, "");
        let log = std::fs::read_to_string(&file).unwrap();
        assert_eq!(log.lines().count(), count, "{log}");
        let line = log.lines().last().unwrap();
        for part in
            [" INFO hoststack::session: session ended ", "app=\"echo/0\"", "ended=finished", "bytes_in=3"]
        {
            assert!(line.contains(part), "no {part:?}: {line}");
        }
        assert!(line.contains(&peer.to_string()), "{line}");
        assert!(!line.contains('\x1b'), "no colours in a file: {line}");
    }
}

#[test]
fn sessions_ends_are_not_logged_unless_asked_for() {
    for (section, says_more) in
        [("", false), ("[log]", true), ("[log]\nfilter = \"debug\"\nformat = \"json\"", true)]
    {
        let server = Server::start(section);
        server.echo(b"one");
        let (done, _) = server.end();
        assert!(!done.stderr.contains("session ended"), "{}", done.transcript());
        assert_eq!(!done.stderr.is_empty(), says_more, "{}", done.transcript());
        if section.contains("debug") {
            let log = lines(&done.stderr);
            let steps: Vec<_> = log
                .iter()
                .filter(|line| line.get("sh").is_some() && line.get("from").is_some())
                .map(|line| (line["from"].as_str().unwrap(), line["to"].as_str().unwrap()))
                .collect();
            for step in [("listening", "open"), ("unannounced", "open"), ("open", "peer-closed")] {
                assert!(steps.contains(&step), "no {step:?}: {steps:?}");
            }
        }
    }
}

#[test]
fn a_bad_log_section_is_told_with_what_to_type() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("bad.toml");
    for (section, parts) in [
        (
            "filter = \"debgu\"",
            &["bad.toml:2: log.filter:", "\"debgu\" is no level", "expected a level (off, error"][..],
        ),
        ("format = \"xml\"", &["bad.toml:2: log.format:", "expected `human` or `json`"]),
        (
            "path = \"x\"",
            &["bad.toml:2: log.path:", "expected one of `filter`, `format`, `file`, `sessions`"],
        ),
    ] {
        std::fs::write(&file, format!("[log]\n{section}\n")).unwrap();
        let done = crate::run(&["run", "-c", text(&file)]).failure();
        assert_eq!((done.status.code(), done.stderr.lines().count()), (Some(2), 1), "{}", done.transcript());
        for part in parts {
            assert!(done.stderr.contains(part), "no {part:?}: {}", done.stderr);
        }
    }
    std::fs::write(&file, "[log]\nfile = \"/nonexistent/dir/log\"\n").unwrap();
    let done = crate::run(&["run", "-c", text(&file)]).failure();
    assert_eq!(done.status.code(), Some(1));
    assert!(done.stderr.contains("/nonexistent/dir/log"), "{}", done.stderr);
}

#[test]
fn a_hangup_opens_the_file_anew_and_ends_nothing() {
    let dir = TempDir::new().unwrap();
    let (file, old) = (dir.path().join("log"), dir.path().join("log.1"));
    let section = "[log]\nfilter = \"info\"\nformat = \"json\"\nsessions = true\nfile = ";
    let mut server = Server::start(&format!("{section}\"{}\"", text(&file)));
    let first = server.echo(b"one").to_string();
    let read = |file: &Path| lines(&std::fs::read_to_string(file).unwrap_or_default());
    let is_told = |file: &Path, peer: &str| read(file).iter().any(|line| line.to_string().contains(peer));
    wait::until("the first line", wait::READY, || is_told(&file, &first).then_some(()));
    // As logrotate does.
    std::fs::rename(&file, &old).unwrap();
    server.process.signal(Signal::HUP);
    wait::until("another file", wait::READY, || file.exists().then_some(()));
    let second = server.echo(b"two").to_string();
    let (_, _kept) = server.end();
    assert!(is_told(&old, &first) && !is_told(&old, &second), "{:?}", read(&old));
    assert!(is_told(&file, &second) && !is_told(&file, &first), "{:?}", read(&file));
}
