//! A stack in a fixed state: two wires, servers with and without TLS and with PROXY headers, a socket of the host, connects
//! into a black hole.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use hoststack_tests::{Finished, Process, hoststack, wait};
use serde_json::Value;

use crate::run::{Desk, text};

const HOSTS: &str = r#"workers = 2

[limits]
pending_connects = 100

[[device]]
name = "wire:cable"
addresses = ["10.0.0.1/24", "fd00::1/64"]
routes = [{ to = "203.0.113.0/24", via = "10.0.0.2" }]

[[device]]
name = "wire:cable"
domain = 1
addresses = ["10.0.0.2/24", "fd00::2/64"]

[[device]]
name = "wire:spare"
domain = 2
addresses = ["10.0.2.1/24"]

[[device]]
name = "wire:spare"
domain = 3
addresses = ["10.0.2.2/24"]

[[app]]
name = "echo"
kind = "echo"
domain = 1
listen = ["tcp://10.0.0.2:7"]
app_workers = 2

[[app]]
name = "secure"
kind = "echo"
domain = 1
listen = ["tls+tcp://10.0.0.2:443"]
tls_certificate = "DIR/cert.pem"
tls_key = "DIR/key.pem"
tls_alpn = ["echo"]

[[app]]
name = "proxied"
kind = "discard"
domain = 1
listen = ["tcp://10.0.0.2:8"]
accept_proxy = "v2"
stage_timeout = "10m"

[[app]]
name = "host"
kind = "echo"
listen = ["kernel+unix://DIR/host.sock"]

[[cli]]
socket = "DIR/ctl.sock"

[[cli]]
socket = "DIR/view.sock"
level = "user"
"#;

/// The stack, and who talks to it.
pub(super) struct Stage {
    pub(super) desk: Desk,
    pub(super) stack: Process,
    /// What stands for what, in commands (`{name}`) and, those that are not the same in each run, in answers.
    pub(super) names: Vec<(&'static str, String)>,
    _stream: TcpStream,
}

impl Stage {
    /// Starts the stack and brings it to its state.
    pub(super) fn set() -> Stage {
        let desk = Desk::new();
        let dir = text(desk.directory()).to_owned();
        let keys = rcgen::generate_simple_self_signed(["10.0.0.2".to_owned()]).expect("a certificate");
        let certificate = desk.directory().join("cert.pem");
        std::fs::write(&certificate, keys.cert.pem()).expect("a file");
        std::fs::write(desk.directory().join("key.pem"), keys.signing_key.serialize_pem()).expect("a file");
        let file = desk.directory().join("run.toml");
        std::fs::write(&file, HOSTS.replace("DIR", &dir)).expect("a file");

        let mut command = Command::new(hoststack());
        command.args(["run", "-c", text(&file)]).stdin(Stdio::null()).env_remove("RUST_LOG");
        // The console's connects trust what the host trusts.
        command.env("SSL_CERT_FILE", &certificate).env_remove("SSL_CERT_DIR");
        let mut stack = Process::spawn("hoststack run", command);
        stack.wait_for_output("ready:", wait::READY);

        let sessions = |total: u64| {
            wait::until(&format!("{total} sessions"), wait::READY, || {
                let summary = desk.ask("show session")["summary"].clone();
                // From the fifth on one waits, and is not open.
                let open = summary["open"].as_u64()? + u64::from(total > 4);
                (summary["total"] == total && open == total).then_some(())
            });
        };
        // One after the other, so that each has the slots that it has in every run.
        let _ = desk.show("connect tcp://10.0.0.2:7 worker 0");
        sessions(2);
        let _ = desk.show("connect tls+tcp://10.0.0.2:443 worker 0");
        sessions(4);
        // The console's connect says nothing: the server waits for its header.
        let _ = desk.show("connect tcp://10.0.0.2:8 worker 0");
        wait::until("the one that waits", wait::READY, || {
            let summary = desk.ask("show session")["summary"].clone();
            (summary["total"] == 6 && summary["unannounced"] == 1).then_some(())
        });
        let host = desk.ask("listen kernel+tcp://127.0.0.1:0 app host worker 1");
        let host = host["address"].as_str().expect("an address").to_owned();
        let at = host.strip_prefix("kernel+tcp://").expect("its scheme");
        let mut stream = TcpStream::connect(at).expect("it listens");
        stream.write_all(b"hello").expect("it reads");
        let mut back = [0; 5];
        stream.read_exact(&mut back).expect("it echoes");
        sessions(7);
        let _ = desk.show("connect tcp://203.0.113.1:80 count 2 timeout 10m worker 1");
        wait::until("the SYNs", wait::READY, || {
            let all = desk.ask("show half-open");
            let all = all["half_opens"].as_array()?;
            // Sent again, too: that is counted.
            all.iter().all(|one| one["attempts"].as_u64() > Some(1)).then_some(())
        });
        wait::until("a measured step of each thread", wait::READY, || {
            let shown = desk.ask("show worker");
            let threads = shown["workers"].as_array()?.iter().chain([&shown["main"]]);
            threads.into_iter().all(|one| one["pace"]["sampled_steps"].as_u64() > Some(0)).then_some(())
        });

        let find = |filter: &str| {
            let found = desk.ask(&format!("show session {filter} limit 2"));
            assert_eq!(found["sessions"].as_array().map(Vec::len), Some(1), "{filter}: {found:#}");
            found["sessions"][0]["session"].as_str().expect("a handle").to_owned()
        };
        let first =
            desk.ask("show half-open")["half_opens"][0]["connect"].as_str().expect("an id").to_owned();
        let names = vec![
            ("client", find("app console remote-port 7")),
            ("server", find("app echo")),
            ("tls-client", find("app console remote-port 443")),
            ("tls-server", find("app secure")),
            ("waiting", find("app proxied")),
            ("kernel", find("app host")),
            ("half-open", first),
            ("host", host),
            ("dir", dir),
        ];
        Stage { desk, stack, names, _stream: stream }
    }

    /// A command with its names filled in.
    pub(super) fn filled(&self, typed: &str) -> String {
        self.names.iter().fold(typed.to_owned(), |line, (name, is)| line.replace(&format!("{{{name}}}"), is))
    }

    /// Does a command by the socket of operators, or of users.
    pub(super) fn ctl(&self, socket: &str, options: &[&str], typed: &str) -> Finished {
        let socket: PathBuf = self.desk.directory().join(socket);
        let line = self.filled(typed);
        crate::run(&[&["ctl", "--socket", text(&socket)], options, &[&*line]].concat())
    }

    /// What answers have that is not the same in each run, longest first, and what stands for it.
    pub(super) fn aliases(&self) -> Vec<(String, String)> {
        let unsteady = ["host", "dir"];
        let named = self.names.iter().filter(|(name, _)| unsteady.contains(name));
        named.map(|(name, is)| (is.clone(), name.to_uppercase())).collect()
    }

    /// The whole answer in JSON: one value, or several.
    pub(super) fn documents(done: &Finished) -> Vec<Value> {
        let documents = serde_json::Deserializer::from_str(&done.stdout).into_iter();
        documents
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("no JSON ({error})\n{}", done.transcript()))
    }
}
