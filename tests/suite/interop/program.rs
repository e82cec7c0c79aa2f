//! The program `hoststack` beside the same peers: `run` behind HAProxy, looked into with `ctl`, and `fetch`.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use hoststack_tests::peers::{self, Daemon};
use hoststack_tests::{Finished, Namespace, Process, hoststack, skip_unless_net_admin, wait};
use serde_json::Value;
use tempfile::TempDir;

use crate::world::{DEVICE, LIMIT, Via, namespace};

/// `hoststack run`, and where it is asked.
struct Program {
    process: Process,
    socket: String,
}

impl Program {
    fn start(namespace: &Namespace, dir: &TempDir, sections: &str) -> Program {
        let path = |name: &str| dir.path().join(name).to_str().expect("a path of text").to_owned();
        let (file, socket) = (path("run.toml"), path("ctl.sock"));
        fs::write(&file, format!("{sections}\n[cli]\nsocket = \"{socket}\"\n")).expect("room for it");
        let mut process = namespace.spawn(hoststack(), &["run", "-c", &file]);
        process.wait_for_output("ready:", wait::READY);
        Program { process, socket }
    }

    #[track_caller]
    fn ctl(&self, options: &[&str], command: &str) -> Finished {
        let mut process = Command::new(hoststack());
        process.args(["ctl", "--socket", &self.socket]).args(options).args(command.split(' '));
        Process::spawn(&format!("ctl {command}"), process).wait(LIMIT).success()
    }

    #[track_caller]
    fn show(&self, command: &str) -> String {
        self.ctl(&[], command).stdout
    }

    #[track_caller]
    fn ask(&self, command: &str) -> Value {
        self.ctl(&["--json"], command).json()
    }

    #[track_caller]
    fn end(mut self) {
        self.process.terminate();
        let done = self.process.wait(LIMIT).success();
        assert!(done.stdout.contains("nothing is held"), "{}", done.transcript());
    }
}

#[test]
fn a_configured_listener_shows_both_addresses_of_each_session() {
    skip_unless_net_admin!();
    let (namespace, dir) = (namespace(), TempDir::new().expect("a directory"));
    let unix = dir.path().join("echo.sock");
    let places = Via::ALL.map(|via| match (via, via.our_ip()) {
        (_, None) => (via, format!("kernel+unix://{}", unix.display()), format!("unix@{}", unix.display())),
        (_, Some(ip)) => {
            let at = std::net::SocketAddr::new(ip, 7000);
            (via, format!("{}://{at}", via.protocol().name()), at.to_string())
        }
    });
    let uris: Vec<String> = places.iter().map(|(_, uri, _)| format!("\"{uri}\"")).collect();
    let program = Program::start(
        &namespace,
        &dir,
        &format!(
            "[[device]]\nname = \"tap:{DEVICE}\"\naddresses = [\"10.9.0.2/24\", \"fd09::2/64\"]\n\
             [[app]]\nname = \"echo\"\nkind = \"echo\"\nlisten = [{}]\naccept_proxy = \"v2\"\n\
             stage_timeout = \"2m\"\n",
            uris.join(", ")
        ),
    );
    let mut sections = String::new();
    for (n, (_, _, server)) in places.iter().enumerate() {
        let front = 8000 + n;
        let _ = writeln!(
            sections,
            "listen p{n}\n    bind 127.0.0.1:{front}\n    server s {server} send-proxy-v2"
        );
    }
    let _haproxy = Daemon::haproxy(&namespace, &sections, 8000);

    let listeners = program.show("show listener");
    for (_, uri, _) in &places {
        let line = listeners.lines().find(|line| line.starts_with(&format!("{uri} ")));
        let is_shown = line.is_some_and(|line| line.contains("PROXY header to receive (within "));
        assert!(is_shown, "{uri} in\n{listeners}");
    }

    let mut streams = Vec::new();
    for (n, (via, uri, _)) in (0..).zip(&places) {
        let front = std::net::SocketAddr::from(([127, 0, 0, 1], 8000 + n));
        let mut stream = peers::connect(&namespace, front).expect("HAProxy listens");
        stream.write_all(b"hello").expect("it is open");
        let mut back = [0; 5];
        stream.read_exact(&mut back).expect("it is echoed");
        assert_eq!(&back, b"hello");
        let declared = format!("{}->{front}", stream.local_addr().expect("it is connected"));
        let sessions = program.ask("show session limit 100");
        let list = sessions["sessions"].as_array().expect("a list");
        let session = list.iter().find(|session| session["declared"] == declared.as_str());
        let session = session.unwrap_or_else(|| panic!("no {declared} in {sessions:#}"));
        assert_eq!(session["protocol"], via.protocol().name());
        let local =
            via.our_ip().map_or("-".to_owned(), |_| uri.split_once("://").expect("a URI").1.to_owned());
        assert_eq!(session["local"], local.as_str());
        let remote = session["remote"].as_str().expect("text");
        let theirs = via.their_ip().map_or("-".to_owned(), |ip| ip.to_string());
        assert!(remote.contains(&theirs) && !declared.starts_with(remote), "{session:#}");
        let text = program.show("show session verbose");
        let line = text.lines().find(|line| line.contains(&declared)).expect("a line of it");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            (words[2], words[4], words[5], words[6]),
            (via.protocol().name(), local.as_str(), remote, declared.as_str())
        );
        streams.push(stream);
    }

    // One that sends no header: it is seen waiting, and in the end why it was not accepted.
    let silent =
        peers::connect(&namespace, "127.0.0.1:7000".parse().expect("an endpoint")).expect("it listens");
    let waits = "waits in the stage \"PROXY header to receive\"";
    wait::until(waits, LIMIT, || program.show("show session limit 100").contains(waits).then_some(()));
    drop(silent);
    let reason = "PROXY header to receive: the peer closed in the middle of it";
    wait::until(reason, LIMIT, || program.show("show errors nonzero").contains(reason).then_some(()));
    let errors = program.ask("show errors nonzero");
    let is_told = |error: &Value| error["reason"] == "not-accepted" && error["help"] == reason;
    assert!(errors["errors"].as_array().expect("a list").iter().any(is_told), "{errors:#}");
    drop(streams);
    program.end();
}

#[test]
fn fetch_declares_whom_it_is_told_to() {
    skip_unless_net_admin!();
    let (namespace, dir) = (namespace(), TempDir::new().expect("a directory"));
    let unix = dir.path().join("web.sock");
    let unix = unix.to_str().expect("a path of text");
    let sections = format!(
        "frontend f\n    mode http\n    option httplog\n    bind 0.0.0.0:8100 accept-proxy\n    \
         bind [::]:8100 v6only accept-proxy\n    bind unix@{unix} accept-proxy\n    \
         http-request return status 200 content-type text/plain lf-string \
         \"%[src] %[src_port] %[dst] %[dst_port]\""
    );
    let _haproxy = Daemon::haproxy(&namespace, &sections, 8100);
    let device = format!("tap:{DEVICE}");
    let over_tap = ["--device", &device, "--address", "10.9.0.2/24", "--address", "fd09::2/64"];
    let file = dir.path().join("got");
    let fetch = |arguments: &[&str], url: &str| {
        let output = ["-o", file.to_str().expect("a path of text"), url];
        let all = [&["fetch"][..], arguments, &output].concat();
        let _ = namespace.spawn(hoststack(), &all).wait(LIMIT).success();
        fs::read_to_string(&file).expect("it was fetched").trim().to_owned()
    };
    let ways: [(&[&str], &str, &str); 5] = [
        (&[], "127.0.0.1:8100", "127.0.0.1"),
        (&["--transport", "kernel"], "[::1]:8100", "::1"),
        (&["--unix-socket", unix], "192.0.2.99:80", ""),
        (&over_tap, "10.9.0.1:8100", "10.9.0.2"),
        (&over_tap, "[fd09::1]:8100", "fd09::2"),
    ];
    for (way, at, from) in ways {
        let url = format!("http://{at}/");
        for version in ["v1", "v2"] {
            let named = ["--send-proxy", version, "--proxy-source", "192.0.2.7:1234"];
            let to = ["--proxy-destination", "198.51.100.1:443"];
            let said = fetch(&[way, &named, &to].concat(), &url);
            assert_eq!(said, "192.0.2.7 1234 198.51.100.1 443", "{way:?} {version}");
            let own = fetch(&[way, &["--send-proxy", version]].concat(), &url);
            assert_eq!(own.split(' ').next(), Some(from), "{way:?} {version}: {own}");
        }
        // The default destination is what the URL says.
        if at.starts_with(|c: char| c.is_ascii_digit()) {
            let said =
                fetch(&[way, &["--send-proxy", "v2", "--proxy-source", "192.0.2.7:1234"]].concat(), &url);
            assert_eq!(said, format!("192.0.2.7 1234 {}", at.replace(':', " ")), "{way:?}");
        }
    }
}
