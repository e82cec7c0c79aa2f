//! What keys of an app do to its connections, as a client in the same stack sees it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hoststack::app::{
    AppWorker, Application, ConnectFailure, ConnectId, ConnectOptions, ConnectionStats, Context, EcnMode,
    SessionHandle, SocketOptions, WorkerId,
};

use super::*;
use crate::ctl::show::errors::Errors;

/// Opens a session, writes `bytes` and reads nothing; tells what the connection was like at first, and when all is written.
#[derive(Clone)]
struct Client {
    bytes: usize,
    told: Sender<ConnectionStats>,
}

struct Writer {
    client: Client,
    written: usize,
}

impl Application for Client {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(Writer { client: self.clone(), written: 0 })
    }
}

impl Writer {
    fn write(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.written += ctx.write(session, &vec![7; self.client.bytes - self.written]);
        if self.written == self.client.bytes {
            self.tell(ctx, session);
        }
    }

    fn tell(&self, ctx: &Context<'_>, session: SessionHandle) {
        // Nobody may listen any more.
        let _ = self.client.told.send(ctx.stats(session).expect("the session lives"));
    }
}

impl AppWorker for Writer {
    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        _opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        let session = outcome.expect("the app of the file listens");
        self.tell(ctx, session);
        self.write(ctx, session);
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.write(ctx, session);
    }
}

/// A stack whose only app, an echo server, has the keys of `keys`, and a client that writes so much.
fn meets(keys: &str, bytes: usize) -> (Running, Receiver<ConnectionStats>) {
    let text = format!(
        "[[device]]\nname = \"wire:a\"\naddresses = [\"10.1.0.1/24\"]\n\
         [[device]]\nname = \"wire:a\"\ndomain = 1\naddresses = [\"10.1.0.2/24\"]\n\
         [[app]]\nname = \"echo\"\nkind = \"echo\"\nlisten = [\"10.1.0.1:7\"]\n{keys}"
    );
    let running = start(&config::parse(&text).expect(&text)).expect("a stack without privileges");
    let handle = running.stack.handle();
    let (told, hears) = channel();
    let client = handle.attach(Client { bytes, told }, AttachOptions::named("client")).expect("one more app");
    let peer: std::net::SocketAddr = "10.1.0.1:7".parse().expect("an endpoint");
    let options = ConnectOptions {
        domain: DomainId(1),
        socket: SocketOptions { ecn: EcnMode::Request, ..SocketOptions::DEFAULT },
        ..ConnectOptions::to(peer)
    };
    handle.connect(client.app_workers[0], options).expect("the client is attached");
    (running, hears)
}

/// So long that a machine that is busy gets there all the same.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn ecn_is_agreed_on_unless_it_is_off() {
    for (keys, ecn) in [("", true), ("ecn = \"accept\"", true), ("ecn = \"off\"", false)] {
        let (_running, hears) = meets(keys, 1);
        assert_eq!(hears.recv_timeout(LONG).expect("it connects").ecn, ecn, "{keys:?}");
    }
}

#[test]
fn the_first_window_is_as_the_file_says() {
    for (keys, window) in [("", 65_535), ("rx_window_initial = 5000", 5000)] {
        let (_running, hears) = meets(keys, 1);
        assert_eq!(hears.recv_timeout(LONG).expect("it connects").snd_wnd, window, "{keys:?}");
    }
}

#[test]
fn a_send_fifo_that_may_grow_holds_more_for_a_peer_that_does_not_read() {
    // What comes back fills the client's fifo and the server's for sending, then the server's for receiving and the client's
    // for sending. The initial congestion window alone makes the second larger by 12 KB.
    let fixed = 65_535 + 16_384 + 16_384 + 65_536;
    let (_running, hears) = meets("fifo = 16384\ntx_capacity_max = 4000000", fixed + 10_000);
    hears.recv_timeout(LONG).expect("it connects");
    hears.recv_timeout(LONG).expect("all is written");
}

// ---- Sockets of the host, and headers ----

/// A stack without devices whose only app, an echo server, has these lines; and where it listens.
fn listens(lines: &str) -> (Running, Vec<String>) {
    let text = format!("[[app]]\nname = \"echo\"\nkind = \"echo\"\n{lines}");
    let running = start(&config::parse(&text).expect(&text)).expect("a stack without privileges");
    let answer = running.stack.handle().inspect(Query::Listeners { limit: 10 }).expect("it runs");
    (running, answer.listeners.into_iter().map(|listener| listener.address).collect())
}

/// A connection of the host's to a listener at a URI; it waits for bytes as long as a busy machine needs.
fn dial(uri: &str) -> TcpStream {
    let at = uri.strip_prefix("kernel+tcp://").expect("a TCP socket of the host");
    let stream = TcpStream::connect(at).expect("it listens");
    stream.set_read_timeout(Some(LONG)).expect("not zero");
    stream
}

/// Sends `bytes` and this direction's end; what comes back until the other one's, `None` after a reset.
fn exchange(mut stream: TcpStream, bytes: &[u8]) -> Option<Vec<u8>> {
    // The other end may have been reset already.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    read_to_end(stream)
}

fn read_to_end(mut stream: TcpStream) -> Option<Vec<u8>> {
    let mut back = Vec::new();
    match stream.read_to_end(&mut back) {
        Ok(_) => Some(back),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_endpoint_alone_is_a_socket_of_the_host_where_no_device_is() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let (_running, at) = listens(&format!("listen = [\"{listen}\"]"));
        assert_eq!(exchange(dial(&at[0]), b"hello"), Some(b"hello".to_vec()));
    }
}

#[test]
fn an_app_listens_on_a_unix_socket_and_takes_its_file_away() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("echo.sock");
    let (running, at) = listens(&format!("listen = [\"kernel+unix://{}\"]", path.display()));
    assert_eq!(at, [format!("kernel+unix://{}", path.display())]);
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream.set_read_timeout(Some(LONG)).expect("not zero");
    stream.write_all(b"hello").and_then(|()| stream.shutdown(Shutdown::Write)).expect("it is open");
    let mut back = String::new();
    stream.read_to_string(&mut back).expect("it is echoed");
    assert_eq!(back, "hello");
    running.end().expect("a clean end");
    assert!(!path.exists());
}

#[test]
fn a_local_name_is_listened_on() {
    let (_running, at) = listens("listen = [\"local://echo\"]");
    assert_eq!(at, ["local://echo"]);
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x08\x04\xd2\0P";

#[test]
fn accept_proxy_takes_the_headers_of_its_versions_alone() {
    for (word, takes) in [("v1", [true, false]), ("v2", [false, true]), ("any", [true, true])] {
        let (_running, at) = listens(&format!("listen = [\"127.0.0.1:0\"]\naccept_proxy = \"{word}\""));
        for (header, is_taken) in [V1, V2].into_iter().zip(takes) {
            let back = exchange(dial(&at[0]), &[header, b"hello"].concat());
            let expected = is_taken.then(|| b"hello".to_vec());
            // A reset may come as an end to whoever wrote first.
            assert_eq!(back.filter(|back| !back.is_empty()), expected, "{word}: {}", header.escape_ascii());
        }
    }
    // Without the key a header is bytes like any other.
    let (_running, at) = listens("listen = [\"127.0.0.1:0\"]");
    assert_eq!(exchange(dial(&at[0]), V1), Some(V1.to_vec()));
}

#[test]
fn stage_timeout_ends_a_connection_without_a_header_and_show_errors_tells_why() {
    // Less than the default of ten seconds, and so is what this end waits.
    let keys = "accept_proxy = \"any\"\nstage_timeout = \"200ms\"";
    let (running, at) = listens(&format!("listen = [\"127.0.0.1:0\"]\n{keys}"));
    let stream = dial(&at[0]);
    stream.set_read_timeout(Some(Duration::from_secs(9))).expect("not zero");
    assert_eq!(read_to_end(stream).unwrap_or_default(), b"");
    let answer = running.stack.handle().inspect(Query::Summary).expect("it runs");
    let errors = Errors::of(&answer.workers, true).text();
    let told = "1  not-accepted  PROXY header to receive: not done before the deadline";
    assert!(errors.contains(told), "{errors}");
}
