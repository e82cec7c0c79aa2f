//! Who closes first. Whoever does keeps the TIME-WAIT (RFC 9293 §3.6), so its place tells who it was.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use hoststack_tests::peers::{self, SocketState};
use hoststack_tests::{Namespace, wait};

use crate::world::{
    ECHO, ECHO_PORT, Family, LIMIT, World, assert_no_leaks, family_tests, number, only_fetch, url,
};

family_tests! {
    the_kernel_connects_and_closes_first
    the_kernel_connects_and_we_close_first
    we_connect_and_the_kernel_closes_first
    we_connect_and_close_first
    both_close_at_once
    what_was_sent_before_a_close_arrives_before_it
}

/// Bytes that fill many segments.
fn bytes() -> Vec<u8> {
    (0..300_000_u32).map(|number| (number % 251) as u8).collect()
}

fn kernel_time_waits(namespace: &Namespace, port: u16) -> usize {
    peers::count(namespace, port, SocketState::TimeWait)
}

/// Waits until none of the kernel's sockets with this port is anything but closed, listening or in TIME-WAIT.
fn wait_for_kernel(namespace: &Namespace, port: u16) {
    wait::until("the kernel's last connection to end", LIMIT, || {
        let states = [SocketState::Established, SocketState::Closing, SocketState::Other];
        states.iter().all(|state| peers::count(namespace, port, *state) == 0).then_some(())
    });
}

/// Reads an HTTP request to the end of its head.
pub(crate) fn read_request(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
}

fn the_kernel_connects_and_closes_first(family: Family) {
    let world = World::new();
    let server = world.run(1, "", ECHO);
    let stream = peers::connect(&world.namespace, SocketAddr::new(family.ours(), ECHO_PORT)).unwrap();
    assert!(peers::exchange(&stream, &bytes()).unwrap() == bytes());
    drop(stream);
    server.wait_for_sessions(0);
    wait_for_kernel(&world.namespace, ECHO_PORT);
    assert_eq!((kernel_time_waits(&world.namespace, ECHO_PORT), server.time_wait()), (1, 0));
    let _ = server.end();
}

fn the_kernel_connects_and_we_close_first(family: Family) {
    let world = World::new();
    let server = world.run(1, "", ECHO);
    let mut stream = peers::connect(&world.namespace, SocketAddr::new(family.ours(), ECHO_PORT)).unwrap();
    let mut back = [0; 5];
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    // A detach closes the sessions that are open, and waits for the peer to close too.
    let detach = server.ctl("app detach echo");
    assert_eq!(stream.read(&mut back).unwrap(), 0);
    drop(stream);
    let report = detach.wait(LIMIT).success().json();
    assert_eq!(number(&report, "/detached/0/sessions_reset"), 0, "{report:#}");
    wait_for_kernel(&world.namespace, ECHO_PORT);
    assert_eq!((kernel_time_waits(&world.namespace, ECHO_PORT), server.time_wait()), (0, 1));
    assert_no_leaks(&server.ask("show leaks"));
    let _ = server.end();
}

fn we_connect_and_the_kernel_closes_first(family: Family) {
    let world = World::new();
    let at = SocketAddr::new(family.kernel(), 8080);
    let listener = peers::listen(&world.namespace, at);
    let file = world.path("file");
    let fetch = world.fetch(&["-o", file.to_str().unwrap(), &url(at, "file")]);
    let mut stream = peers::accept(&listener);
    read_request(&mut stream);
    // No length: the body ends where the connection does.
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
    stream.write_all(&bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    drop(stream);
    let entry = only_fetch(&fetch.wait(LIMIT).success().json());
    assert_eq!(entry["outcome"], "ok", "{entry}");
    assert!(std::fs::read(&file).unwrap() == bytes());
    wait_for_kernel(&world.namespace, 8080);
    assert_eq!(kernel_time_waits(&world.namespace, 8080), 1);
}

/// Accepts a connection and gives `count` bytes back.
fn echo(listener: &std::net::TcpListener, count: usize) -> TcpStream {
    let mut stream = peers::accept(listener);
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
    stream
}

fn we_connect_and_close_first(family: Family) {
    let world = World::new();
    let at = SocketAddr::new(family.kernel(), 8080);
    let listener = peers::listen(&world.namespace, at);
    let client = world.echo_client(family, at, &["--sessions", "1", "--waves", "1", "--bytes", "100000"]);
    let mut stream = echo(&listener, 100_000);
    // The client has what it wanted, and closes.
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    drop(stream);
    let report = client.wait(LIMIT).success().json();
    assert_no_leaks(&report);
    wait_for_kernel(&world.namespace, 8080);
    assert_eq!((kernel_time_waits(&world.namespace, 8080), number(&report, "/time_wait")), (0, 1));
}

fn both_close_at_once(family: Family) {
    // What we send arrives late. So our FIN, sent when the echo has come back, and the kernel's, sent a little later,
    // pass each other, and both ends go through CLOSING. A machine that stops for a while at the wrong moment may spoil
    // it: then again. Each time the end must be clean.
    for _ in 0..10 {
        let world = World::new();
        let at = SocketAddr::new(family.kernel(), 8080);
        let listener = peers::listen(&world.namespace, at);
        let arguments = ["--sessions", "1", "--waves", "1", "--bytes", "1000", "--delay", "300ms"];
        let client = world.echo_client(family, at, &arguments);
        let stream = echo(&listener, 1000);
        let _: Option<()> = wait::poll(Duration::from_millis(100), || None);
        drop(stream);
        let is_closing = wait::until("CLOSING, or TIME-WAIT, or nothing", LIMIT, || {
            let count = |state| peers::count(&world.namespace, 8080, state);
            let is_over = || count(SocketState::Other) == 0;
            if count(SocketState::Closing) == 1 { Some(true) } else { is_over().then_some(false) }
        });
        let report = client.wait(LIMIT).success().json();
        assert_no_leaks(&report);
        assert_eq!(number(&report, "/bytes_echoed"), 1000);
        if is_closing {
            assert_eq!(number(&report, "/time_wait"), 1);
            return;
        }
    }
    panic!("never were both ends in CLOSING");
}

fn what_was_sent_before_a_close_arrives_before_it(family: Family) {
    let world = World::new();
    let server = world.run(1, "", ECHO);
    let at = SocketAddr::new(family.ours(), ECHO_PORT);
    // Read nothing until our direction is closed: all of it is on its way, or waits, when the FIN comes.
    for _ in 0..20 {
        let mut stream = peers::connect(&world.namespace, at).unwrap();
        stream.write_all(&bytes()[..50_000]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == bytes()[..50_000], "{} bytes", back.len());
    }
    server.wait_for_sessions(0);
    let _ = server.end();
}
