//! TLS on the command line, with openssl on the other side: `fetch https://`, and `run` with a `tls+` listener.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hoststack_tests::process::Signal;
use hoststack_tests::{Process, wait};
use serde_json::Value;
use tempfile::TempDir;

use crate::LIMIT;

/// What openssl makes a certificate from that is no issuer's, for two addresses and a name.
const REQUEST: &str = "[req]\ndistinguished_name = name\nx509_extensions = extensions\nprompt = no\n\
    [name]\nCN = hoststack\n[extensions]\nsubjectAltName = IP:127.0.0.1,IP:10.0.0.2,DNS:echo.test\n";

/// A directory with a certificate for those, its key, and another that has nothing to do with it.
struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk { dir: TempDir::new().unwrap() };
        std::fs::write(desk.path("request"), REQUEST).unwrap();
        for name in ["a", "other"] {
            let mut openssl = desk.openssl();
            openssl
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                    "-days",
                    "2",
                ])
                .args([
                    "-config",
                    "request",
                    "-keyout",
                    &format!("{name}.key"),
                    "-out",
                    &format!("{name}.pem"),
                ]);
            let _ = Process::spawn("openssl req", openssl).wait(LIMIT).success();
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The rest of the first line of `output` that has `before` in it.
fn after<'a>(output: &'a str, before: &str) -> &'a str {
    let line = output.lines().find_map(|line| line.split_once(before));
    line.unwrap_or_else(|| panic!("no {before:?} in\n{output}")).1.trim()
}

#[test]
fn fetch_over_https_verifies_the_server_unless_told_not_to() {
    let desk = Desk::new();
    let body = "the very file\n".repeat(10_000);
    std::fs::write(desk.path("file.txt"), &body).unwrap();
    let mut openssl = desk.openssl();
    openssl.args(["s_server", "-accept", "127.0.0.1:0", "-cert", "a.pem", "-key", "a.key", "-WWW"]);
    let mut server = Process::spawn("openssl s_server", openssl);
    server.wait_for_output("ACCEPT 127.0.0.1:", wait::READY);
    let address = after(&server.stdout(), "ACCEPT ").to_owned();
    let url = format!("https://{address}/file.txt");
    let (ca, other, out) = (desk.path("a.pem"), desk.path("other.pem"), desk.path("out.txt"));
    let fetch = |options: &[&str]| {
        let _ = std::fs::remove_file(&out);
        crate::run(&[&["fetch", "--json", "-o", text(&out)], options, &[&*url]].concat())
    };

    for options in [&["--cacert", text(&ca)][..], &["--insecure"]] {
        let done = fetch(options).success();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), body);
        assert_eq!(done.json()["fetches"][0]["status"], 200);
        assert_eq!(done.stderr.contains("WARNING: --insecure"), options == ["--insecure"], "{}", done.stderr);
    }
    // Neither what browsers trust nor another one's certificate will do.
    for options in [&[][..], &["--cacert", text(&other)]] {
        let done = fetch(options).failure();
        let entry = &done.json()["fetches"][0];
        let error = entry["error"].as_str().unwrap();
        assert!(error.contains("TLS") && error.contains("the peer is not trusted"), "{}", done.transcript());
        assert!(!out.exists());
    }
}

#[test]
fn run_listens_with_tls_and_shows_what_was_agreed() {
    let desk = Desk::new();
    let socket = desk.path("ctl.sock");
    let file = desk.path("run.toml");
    let dir = desk.dir.path().display();
    let configuration = format!(
        "[[app]]\nname = \"echo\"\nkind = \"echo\"\nlisten = [\"tls+kernel+tcp://127.0.0.1:0\"]\n\
         tls_certificate = \"{dir}/a.pem\"\ntls_key = \"{dir}/a.key\"\ntls_alpn = [\"echo\"]\n\
         [cli]\nsocket = \"{}\"\n",
        socket.display()
    );
    std::fs::write(&file, configuration).unwrap();
    let mut stack = crate::start(&["run", "-c", text(&file)]);
    stack.wait_for_output("ready:", wait::READY);
    let show = |what: &str| {
        let command = ["ctl", "--socket", text(&socket), "show"].into_iter().chain(what.split(' '));
        crate::run(&command.collect::<Vec<_>>()).success().stdout
    };
    let listeners = show("listener");
    assert!(listeners.contains("TLS (within 10.00 s)"), "{listeners}");
    let port = after(&listeners, "kernel+tcp://127.0.0.1:").split(' ').next().unwrap();

    let (read, mut write) = std::io::pipe().unwrap();
    let mut openssl = desk.openssl();
    openssl
        .args([
            "s_client",
            "-connect",
            &format!("127.0.0.1:{port}"),
            "-CAfile",
            "a.pem",
            "-verify_ip",
            "127.0.0.1",
        ])
        .args(["-verify_return_error", "-alpn", "echo", "-quiet", "-no_ign_eof"])
        .stdin(read);
    let mut client = Process::spawn("openssl s_client", openssl);
    write.write_all(b"hello, echo\n").unwrap();
    client.wait_for_output("hello, echo", wait::READY);
    let sessions = show("session verbose 2");
    for part in ["tls=1.3", "cipher=TLS13_", "alpn=echo"] {
        assert!(sessions.contains(part), "no {part} in\n{sessions}");
    }
    drop(write);
    let _ = client.wait(LIMIT).success();

    // One that speaks no TLS, and one that does not trust us, are not accepted.
    let url = format!("http://127.0.0.1:{port}/");
    let _ = crate::run(&["fetch", "--discard", &url]).failure();
    let done = crate::run(&["fetch", "--discard", &url.replace("http:", "https:")]).failure();
    assert!(done.stdout.contains("TLS"), "{}", done.transcript());
    wait::until("the failures", wait::READY, || show("errors nonzero").contains("TLS: ").then_some(()));

    stack.signal(Signal::TERM);
    let done = stack.wait(LIMIT).success();
    assert!(done.stdout.contains("nothing is held"), "{}", done.transcript());
}

/// Two hosts in one stack; on the other one a server with the certificate that the console's connects believe, and one
/// with another.
const HOSTS: &str = r#"
[[device]]
name = "wire:cable"
addresses = ["10.0.0.1/24"]

[[device]]
name = "wire:cable"
domain = 1
addresses = ["10.0.0.2/24"]

[[app]]
name = "echo"
kind = "echo"
domain = 1
listen = ["tls+tcp://10.0.0.2:443", "tls+local://echo"]
tls_certificate = "DIR/a.pem"
tls_key = "DIR/a.key"
tls_alpn = ["echo"]

[[app]]
name = "stranger"
kind = "echo"
domain = 1
listen = ["tls+tcp://10.0.0.2:444"]
tls_certificate = "DIR/other.pem"
tls_key = "DIR/other.key"

[tls]
ca = "DIR/a.pem"
"#;

#[test]
fn connects_of_the_console_believe_whom_the_configuration_names() {
    let certificates = Desk::new();
    let desk = super::run::Desk::new();
    let stack = desk.start_with(&HOSTS.replace("DIR", text(certificates.dir.path())));
    let ours = |filter: &str| {
        let shown = desk.ask(&format!("show session app console {filter}"));
        shown["sessions"][0]["session"].as_str().map(str::to_owned)
    };
    let taken = desk.ask("connect tls+tcp://10.0.0.2:443 alpn echo");
    assert_eq!((&taken["taken"], &taken["refused"]), (&1.into(), &Value::Null));
    let handle = wait::until("the handshake", wait::READY, || ours("state open remote-port 443"));
    let text = desk.show(&format!("show session {handle}"));
    for part in ["layer TLS", "tls 1.3", "cipher TLS13_", "alpn echo", "srtt_us"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    let session = desk.ask(&format!("show session {handle}"));
    let detail = &session["sessions"][0]["detail"];
    assert_eq!(
        (&detail["layer"]["name"], &detail["layer"]["state"]["alpn"]),
        (&"TLS".into(), &"echo".into())
    );
    // The handshake's bytes went both ways, the certificate in one.
    for (name, least) in [("bytes_acked", 100), ("bytes_received", 300)] {
        let bytes = detail["measured"][name].as_str().and_then(|bytes| bytes.parse::<u64>().ok());
        assert!(bytes.is_some_and(|bytes| bytes > least), "{name}: {detail:#}");
    }

    // By a name, which the server is told; and where there is no address.
    let _ = desk.ask("connect tls+local://echo domain 1 server-name echo.test app stranger");
    wait::until("both ends", wait::READY, || {
        let shown = desk.show("show session app echo transport local verbose 2");
        shown.contains("sni=echo.test").then_some(())
    });

    // A certificate of somebody else, and one for another name.
    for (command, cause) in [
        ("connect tls+tcp://10.0.0.2:444", "the peer is not trusted"),
        ("connect tls+tcp://10.0.0.2:443 server-name nobody.test", "its certificate is for another name"),
    ] {
        let taken = desk.ask(command);
        let id = taken["first"].as_str().expect("an id");
        wait::until(command, wait::READY, || {
            let events = desk.ask(&format!("show events connect {id}"));
            let events = events["events"].as_array().expect("a list");
            let failed = events.iter().find(|event| event["event"] == "connect-failed")?;
            let said = failed["cause"].as_str().unwrap_or_default();
            assert!(said.contains("TLS") && said.contains(cause), "{said}");
            Some(())
        });
    }
    let app = desk.ask("show app console");
    let outcomes = &app["apps"][0]["app_workers"][0]["outcomes"];
    assert_eq!(
        (&outcomes["requested"], &outcomes["established"], &outcomes["failed"]),
        (&3.into(), &1.into(), &2.into())
    );
    let errors = desk.show("show errors nonzero");
    assert!(errors.contains("TLS: "), "{errors}");
    let _ = super::run::ends_clean(stack, Signal::TERM, &desk);
}
