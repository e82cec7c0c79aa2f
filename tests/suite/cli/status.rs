//! `[status]` of `hoststack run`: the page, its JSON, metrics and health check, as browsers, scrapers and rude clients see them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hoststack_tests::process::Signal;
use hoststack_tests::{Process, wait};
use serde_json::Value;
use tempfile::TempDir;

use crate::LIMIT;

/// A stack of sockets of the host with an app, and its status page at a port that the host chooses and on a Unix socket.
struct Desk {
    dir: TempDir,
    stack: Process,
    address: String,
    echo: String,
}

impl Desk {
    fn start() -> Desk {
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let configuration = format!(
            "workers = 2\n\n[[device]]\nname = \"loopback\"\naddresses = [\"127.0.0.1/8\"]\n\n\
             [[app]]\nname = '<i>\"echo'\nkind = \"echo\"\nlisten = [\"kernel+tcp://127.0.0.1:0\", \"tcp://127.0.0.1:7\"]\n\n\
             [status]\nlisten = [\"kernel+tcp://127.0.0.1:0\", \"kernel+unix://{}\"]\n\n[cli]\nsocket = \"{}\"\n",
            at("status.sock"),
            at("ctl.sock"),
        );
        let file = at("run.toml");
        std::fs::write(&file, configuration).unwrap();
        let mut stack = crate::start(&["run", "-c", &file]);
        stack.wait_for_output("ready:", wait::READY);
        let mut desk = Desk { dir, stack, address: String::new(), echo: String::new() };
        desk.address = desk.listens("status/0");
        desk.echo = desk.listens("<i>\"echo/0");
        // The ready line says what to type into a browser.
        let page = format!("status page http://{}/", desk.address);
        desk.stack.wait_for_output(&page, wait::READY);
        desk
    }

    /// The port of the host that an app listens on.
    fn listens(&self, app_worker: &str) -> String {
        let socket = self.path("ctl.sock");
        let arguments = ["ctl", "--socket", socket.to_str().unwrap(), "--json", "show", "listener"];
        let listeners = crate::run(&arguments).success().json();
        let mut listeners = listeners["listeners"].as_array().unwrap().iter();
        let found = listeners.find_map(|listener| {
            let address = listener["address"].as_str().unwrap().strip_prefix("kernel+tcp://")?;
            (listener["app_worker"] == *app_worker).then(|| address.to_owned())
        });
        found.unwrap_or_else(|| panic!("{app_worker} listens nowhere"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn get(&self, path: &str) -> Answer {
        let mut stream = limited(TcpStream::connect(&self.address).unwrap());
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).unwrap();
        Answer::read(&mut stream)
    }

    #[track_caller]
    fn view(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).ok()).unwrap()
    }

    /// An echo session with bytes under way; it lives as long as the stream.
    fn session(&self) -> TcpStream {
        let mut stream = limited(TcpStream::connect(&self.echo).unwrap());
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream
    }

    /// Ends the stack, which must have nothing left.
    fn end(self) {
        let Desk { mut stack, dir, .. } = self;
        assert!(stack.is_running(), "it ended by itself\n{}", stack.transcript());
        stack.signal(Signal::TERM);
        let done = stack.wait(LIMIT).success();
        assert!(done.stdout.contains("nothing is held"), "{}", done.transcript());
        assert!(done.stdout.lines().any(|line| line.starts_with("status")), "{}", done.transcript());
        assert!(!dir.path().join("status.sock").exists());
    }
}

fn limited(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(wait::READY)).unwrap();
    stream.set_write_timeout(Some(wait::READY)).unwrap();
    stream
}

/// An answer, read to the end of its connection.
#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn read(stream: &mut impl Read) -> Answer {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
        Answer { head: head.to_owned(), body: body.to_owned() }
    }

    fn status(&self) -> &str {
        &self.head["HTTP/1.1 ".len()..][..3]
    }

    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.status(), "200", "{self:?}");
        self.body
    }
}

/// A table of a view.
#[track_caller]
fn table<'a>(view: &'a Value, id: &str) -> &'a Vec<Value> {
    let mut tables = view["view"]["tables"].as_array().unwrap().iter();
    tables.find(|table| table["id"] == id).unwrap_or_else(|| panic!("no {id} in {view:#}"))["rows"]
        .as_array()
        .unwrap()
}

#[test]
fn the_page_shows_workers_apps_and_sessions_each_with_its_own_page() {
    let desk = Desk::start();
    assert_eq!(desk.get("/healthz").ok(), "ok\n");
    let session = desk.session();
    let peer = session.local_addr().unwrap().to_string();
    let page = desk.get("/");
    for field in ["text/html", "Cache-Control: no-store", "Content-Security-Policy: default-src 'none'"] {
        assert!(page.head.contains(field), "no {field} in {}", page.head);
    }
    let page = page.ok();
    for part in [
        "&lt;i&gt;&quot;echo/0",
        "status/0",
        &peer,
        "<svg",
        "http-equiv=\"refresh\"",
        "Sessions by state",
        "Latencies and vectors",
        "Connect p50 / p99",
        "busiest worker",
    ] {
        assert!(page.contains(part), "no {part} in\n{page}");
    }
    assert!(!page.contains("<i>"), "an app's name is no markup");

    let status = desk.view("/status.json");
    let threads: Vec<&str> =
        table(&status, "workers").iter().map(|row| row[0]["text"].as_str().unwrap()).collect();
    assert_eq!(threads, ["worker 0", "worker 1", "main"]);
    assert!(table(&status, "latencies").iter().any(|row| row[0]["text"] == "step"), "{status:#}");
    let app = table(&status, "apps").iter().find(|row| row[0]["text"] == "<i>\"echo/0").unwrap();
    assert_eq!(app[2]["text"], "1", "its session: {app}");
    assert_eq!(status["answer"]["apps"].as_array().map(Vec::len), Some(2));
    let row = table(&status, "sessions").iter().find(|row| row[4]["text"] == peer).unwrap();
    let own = row[0]["href"].as_str().unwrap();
    let detail = desk.get(own).ok();
    for part in [peer.as_str(), "Session ", "kernel+tcp", "&lt;i&gt;&quot;echo/0"] {
        assert!(detail.contains(part), "no {part} in\n{detail}");
    }
    let detail = desk.view(&format!("{own}.json"));
    assert!(table(&detail, "session").iter().any(|row| row[1]["text"] == peer), "{detail:#}");
    assert_eq!(table(&detail, "fifos").len(), 2, "{detail:#}");
    assert!(table(&detail, "session-layer").iter().any(|row| row[0]["text"] == "queued"), "{detail:#}");
    assert!(!table(&detail, "transport").is_empty(), "{detail:#}");

    let filtered = |filter: &str| desk.get(&format!("/sessions?filter={filter}")).ok();
    let (_, port) = peer.rsplit_once(':').unwrap();
    let list = filtered(&format!("remote+127.0.0.0/8+remote-port+{port}"));
    assert!(list.contains(&peer) && list.contains(">1 session<"), "{list}");
    let none = filtered("app+nobody+state+open");
    assert!(none.contains("no sessions") && !none.contains("class=\"refused\""), "{none}");
    // What the console would not take is told, in its words, and no session is shown.
    for (bad, told) in [
        ("colour+red", "`colour` does not belong there"),
        ("remoet+127.0.0.1", "did you mean `remote`?"),
        ("remote+127.0.0.1/99", "127.0.0.1/99"),
        ("%3Cb%3E", "&lt;b&gt;"),
        ("stuck;+app+detach+status", "no `;`"),
    ] {
        let page = filtered(bad);
        let refused = page.split_once("class=\"refused\">").and_then(|(_, rest)| rest.split_once("</p>"));
        assert!(refused.is_some_and(|(text, _)| text.contains(told)), "no {told}: {refused:?}");
        assert!(!page.contains("<table") && !page.contains(&peer), "{page}");
    }
    let sorted = desk.get("/?sort=-workers.0").ok();
    assert!(sorted.contains("aria-sort=\"descending\""), "{sorted}");
    drop(session);
    wait::until("its end", wait::READY, || (desk.get(own).status() == "404").then_some(()));
    desk.end();
}

#[test]
fn answers_come_over_a_unix_socket_and_with_curl() {
    let desk = Desk::start();
    let mut stream = UnixStream::connect(desk.path("status.sock")).unwrap();
    // Whatever it is called there: no browser gets to it.
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: proxied.example\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut stream).ok(), "ok\n");
    let mut command = Command::new("curl");
    let url = |path: &str| format!("http://{}{path}", desk.address);
    command.args(["--silent", "--show-error", "--fail", "--max-time", "60"]);
    command.args([url("/healthz"), url("/page.js"), url("/healthz")]).stdin(Stdio::null());
    let done = Process::spawn("curl", command).wait(LIMIT).success();
    assert!(done.stdout.starts_with("ok\n") && done.stdout.ends_with("ok\n"), "{}", done.transcript());
    desk.end();
}

#[test]
fn rude_and_wrong_clients_are_told_so_and_cost_nothing() {
    let desk = Desk::start();
    for (request, status) in [
        (&b"\x00\xff\x00\xff\r\n\r\n"[..], "400"),
        (b"GET / HTTP/1.1\r\n\r\n", "400"),
        (b"DELETE /session/0:1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", "413"),
        (b"GET / HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n", "421"),
        (b"GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "404"),
        (b"GET /session/9:9.9 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "404"),
        (b"GET /session/%3Cscript%3E HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "404"),
    ] {
        let mut stream = limited(TcpStream::connect(&desk.address).unwrap());
        stream.write_all(request).unwrap();
        assert_eq!(Answer::read(&mut stream).status(), status, "{:?}", String::from_utf8_lossy(request));
    }
    // Half a request, one that is not waited for, many that are not read, one that is half closed.
    let half = limited(TcpStream::connect(&desk.address).unwrap());
    (&half).write_all(b"GET / HT").unwrap();
    let left = limited(TcpStream::connect(&desk.address).unwrap());
    (&left).write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    drop(left);
    let unread = limited(TcpStream::connect(&desk.address).unwrap());
    (&unread).write_all(&b"GET /page.css HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50)).unwrap();
    let mut closed = limited(TcpStream::connect(&desk.address).unwrap());
    closed.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    closed.shutdown(Shutdown::Write).unwrap();
    let head = Answer::read(&mut closed);
    assert_eq!((head.status(), head.body.as_str()), ("200", ""));
    assert!(head.head.contains("Content-Length: 3"), "{head:?}");

    let clients: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = limited(TcpStream::connect(&desk.address).unwrap());
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
            stream
        })
        .collect();
    for mut client in clients {
        assert!(Answer::read(&mut client).ok().ends_with("</html>\n"));
    }
    // `half` and `unread` are still there: a detach waits for neither.
    desk.end();
    drop((half, unread));
}

/// Reads OpenMetrics as its authors do, and says which types of which names there were.
const PARSER: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
families = list(parse(sys.stdin.read()))
assert len({f.name for f in families}) == len(families), 'a family is there twice'
for f in families:
    assert f.name.startswith('hoststack_') and f.documentation, f
    print(f.name, f.type, f.unit, len(f.samples))
";

#[test]
fn a_parser_of_openmetrics_takes_the_metrics() {
    let desk = Desk::start();
    let session = desk.session();
    let answer = desk.get("/metrics");
    assert!(answer.head.contains("application/openmetrics-text; version=1.0.0"), "{}", answer.head);
    let text = answer.ok();
    for part in [
        "hoststack_sessions{state=\"open\"}",
        "hoststack_app_half_opens{app=\"<i>\\\"echo\",app_worker=\"0\"} 0",
        "hoststack_channel_sent_total{channel=\"commands\",from=\"main\",to=\"worker 1\"}",
        "# EOF\n",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    let file = desk.path("metrics");
    std::fs::write(&file, &text).unwrap();
    // The system's, for which the package is installed.
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", PARSER]).stdin(std::fs::File::open(&file).unwrap());
    let done = Process::spawn("prometheus_client's parser", command).wait(LIMIT).success();
    for line in [
        "hoststack_worker_steps counter  2",
        "hoststack_tcp_sent_bytes counter bytes 2",
        "hoststack_sessions gauge  6",
        "hoststack_thread_busy_seconds counter seconds 3",
        // Of each worker 24 buckets and one without a bound, the count and the sum.
        "hoststack_connect_latency_seconds histogram seconds 54",
        "hoststack_main_step_seconds histogram seconds 27",
        "hoststack_worker_rx_vector_packets histogram packets 24",
    ] {
        assert!(done.stdout.lines().any(|has| has == line), "no {line}\n{}", done.transcript());
    }
    drop(session);
    desk.end();
}

/// The sum of the samples of a family by their names.
#[track_caller]
fn sum(text: &str, name: &str) -> f64 {
    let samples = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let values: Vec<f64> = samples.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert!(!values.is_empty(), "no {name} in\n{text}");
    values.iter().sum()
}

#[test]
fn what_a_console_clears_is_not_cleared_in_the_metrics() {
    let desk = Desk::start();
    // A SYN that comes back over the loopback device is dropped, for no host sends from there.
    let socket = desk.path("ctl.sock");
    let ctl = |command: &str| {
        let mut arguments = vec!["ctl", "--socket", socket.to_str().unwrap()];
        arguments.extend(command.split(' '));
        let _ = crate::run(&arguments).success();
    };
    ctl("connect tcp://127.0.0.2:1");
    let names = [
        "hoststack_worker_steps_total",
        "hoststack_worker_sent_packets_total",
        "hoststack_drops_total",
        "hoststack_main_steps_total",
        "hoststack_main_busy_steps_total",
    ];
    let before = wait::until("the drop", wait::READY, || {
        let text = desk.get("/metrics").ok();
        text.contains("hoststack_drops_total{").then_some(text)
    });
    ctl("clear counters");
    ctl("clear errors");
    // Not the answer of a moment ago, which is given again.
    let after = desk.get("/metrics?anew").ok();
    for name in names {
        let (was, is) = (sum(&before, name), sum(&after, name));
        assert!(was > 0.0 && is >= was, "{name} fell from {was} to {is}");
    }
    desk.end();
}

#[test]
fn an_old_scraper_and_a_browser_get_text() {
    let desk = Desk::start();
    let mut stream = limited(TcpStream::connect(&desk.address).unwrap());
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain;version=0.0.4\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let answer = Answer::read(&mut stream);
    assert!(answer.head.contains("Content-Type: text/plain; version=0.0.4"), "{}", answer.head);
    let file = desk.path("metrics");
    std::fs::write(&file, answer.ok()).unwrap();
    let mut command = Command::new("/usr/bin/python3");
    let parser = PARSER.replace("prometheus_client.openmetrics.parser", "prometheus_client.parser");
    command.args(["-c", &parser]).stdin(std::fs::File::open(&file).unwrap());
    let done = Process::spawn("prometheus_client's other parser", command).wait(LIMIT).success();
    for line in
        ["hoststack_worker_steps counter  2", "hoststack_sessions gauge  6", "hoststack_build_info gauge  1"]
    {
        assert!(done.stdout.lines().any(|has| has == line), "no {line}\n{}", done.transcript());
    }
    if Command::new("promtool").arg("--version").output().is_err() {
        // Past the runner's capture: `.ci/run` takes no test that was skipped for one that passed.
        let _ = std::io::stderr().write_all(b"skipped: promtool is not installed\n");
    } else {
        let check = |file: &Path| {
            let mut command = Command::new("promtool");
            command.args(["check", "metrics"]).stdin(std::fs::File::open(file).unwrap());
            Process::spawn("promtool check metrics", command).wait(LIMIT)
        };
        // What Prometheus' own linter has to say of names, units, help and histograms: nothing.
        let done = check(&file).success();
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
        // It does look.
        std::fs::write(&file, "# TYPE steps counter\nsteps 1\n").unwrap();
        let done = check(&file).failure();
        assert!(done.stderr.contains("no help text"), "{}", done.transcript());
    }
    desk.end();
}

/// Headless, without a sandbox: tests run as root in containers.
fn chromium(desk: &Desk, options: &[&str], url: &str) -> hoststack_tests::Finished {
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", desk.path("browser").display()))
        .args(options)
        .arg(url)
        .stdin(Stdio::null());
    Process::spawn(&format!("chromium {url}"), command).wait(LIMIT).success()
}

#[test]
fn a_browser_draws_the_pages_and_keeps_them_fresh() {
    let desk = Desk::start();
    let sessions = [desk.session(), desk.session()];
    let peer = sessions[0].local_addr().unwrap().to_string();
    let url = |path: &str| format!("http://{}{path}", desk.address);
    // Virtual time: four seconds of the page's own clock, so that its script has refreshed it.
    let dom = chromium(&desk, &["--virtual-time-budget=4000", "--dump-dom"], &url("/")).stdout;
    for part in ["&lt;i&gt;\"echo/0", "status/0", &peer, "worker 1", "live, "] {
        assert!(dom.contains(part), "no {part} in\n{dom}");
    }
    assert!(!dom.contains("not refreshed") && !dom.contains("NaN"), "{dom}");
    let status = desk.view("/status.json");
    let row = table(&status, "sessions").iter().find(|row| row[4]["text"] == peer).unwrap();
    let own = row[0]["href"].as_str().unwrap().to_owned();
    let dom = chromium(&desk, &["--virtual-time-budget=3000", "--dump-dom"], &url(&own)).stdout;
    for part in [&peer, "live, ", "to send", "Transport", "Measured", "can go on"] {
        assert!(dom.contains(part), "no {part} in\n{dom}");
    }

    let keep = std::env::var_os("HOSTSTACK_SCREENSHOTS").map(PathBuf::from);
    for (name, path) in [("overview", "/"), ("sessions", "/sessions"), ("session", own.as_str())] {
        let file = keep.as_deref().unwrap_or(desk.dir.path()).join(format!("{name}.png"));
        let shot = format!("--screenshot={}", file.display());
        let _ =
            chromium(&desk, &[&shot, "--window-size=1280,1000", "--virtual-time-budget=2500"], &url(path));
        assert!(is_drawn(&file), "{} is blank", file.display());
    }
    drop(sessions);
    desk.end();
}

/// Whether a PNG shows something: an empty sheet of that size packs to a few kilobytes at most.
fn is_drawn(file: &Path) -> bool {
    let bytes = std::fs::read(file).unwrap();
    bytes.starts_with(b"\x89PNG") && bytes.len() > 15_000
}

#[test]
fn a_place_that_others_can_reach_must_be_called_public() {
    let check = |status: &str| {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("run.toml");
        std::fs::write(&file, format!("[status]\n{status}\n")).unwrap();
        crate::run(&["run", "--check", "-c", file.to_str().unwrap()])
    };
    for good in [
        "listen = [\"127.0.0.1:0\", \"kernel+tcp://[::1]:0\", \"kernel+unix:///tmp/x.sock\", \"local://status\"]",
        "listen = [\"kernel+tcp://0.0.0.0:9900\"]\npublic = true",
    ] {
        let _ = check(good).success();
    }
    for (bad, parts) in [
        (
            "listen = [\"kernel+tcp://0.0.0.0:9900\"]",
            &[":2:", "status.listen[0]", "`public = true` in [status]"][..],
        ),
        (
            "listen = [\"127.0.0.1:1\", \"kernel+tcp://192.0.2.1:1\"]",
            &["status.listen[1]", "kernel+tcp://192.0.2.1:1"],
        ),
        ("listen = [\"tls+kernel+tcp://127.0.0.1:9900\"]", &["status.listen[0]", "without tls+"]),
        ("listen = [\"tcp://127.0.0.1:80\"]", &["status.listen[0]", "no device"]),
        ("listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", &["status.listen[1]", "already listens"]),
        ("listen = []\nport = 1", &["status.port", "unknown field"]),
        ("public = true", &["missing field `listen`"]),
        ("public = true\nlisten = []", &[":3:", "status.listen", "expected a place to listen on"]),
        (
            "listen = [\"127.0.0.1:1\"]\n[[app]]\nname = \"status\"\nkind = \"echo\"\nlisten = []",
            &["app[0].name", "expected another name"],
        ),
    ] {
        let done = check(bad).failure();
        assert_eq!(done.status.code(), Some(2));
        for part in parts {
            assert!(done.stderr.contains(part), "no {part:?}: {}", done.stderr);
        }
    }
}

#[test]
fn a_client_that_reads_slowly_holds_up_nobody() {
    let desk = Desk::start();
    let mut slow = limited(TcpStream::connect(&desk.address).unwrap());
    // Many answers at once, more than sockets and fifos hold.
    let requests = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    slow.write_all(&requests).unwrap();
    slow.shutdown(Shutdown::Write).unwrap();
    assert_eq!(desk.get("/healthz").ok(), "ok\n");
    slow.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut text = String::new();
    slow.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 100);
    desk.end();
}
