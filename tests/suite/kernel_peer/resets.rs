//! RST in mid-transfer, from either end, on connections that either end opened.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use hoststack_tests::peers;
use hoststack_tests::process::Signal;

use crate::closing::read_request;
use crate::world::{
    ECHO, ECHO_PORT, Family, LIMIT, World, assert_no_leaks, family_tests, number, only_fetch, url,
};

family_tests! {
    the_kernel_resets_a_download
    the_kernel_resets_what_it_sends_to_the_echo_server
    we_reset_what_the_kernel_sends
    we_reset_a_download
    the_kernel_dies_between_head_and_body
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
const MB: usize = 1_000_000;

fn the_kernel_resets_a_download(family: Family) {
    let world = World::new();
    let at = SocketAddr::new(family.kernel(), 8080);
    let listener = peers::listen(&world.namespace, at);
    let file = world.path("file");
    let fetch = world.fetch(&["-o", file.to_str().unwrap(), &url(at, "file")]);
    let mut stream = peers::accept(&listener);
    read_request(&mut stream);
    stream.write_all(HEAD).unwrap();
    // More than the buffers between the two hold: part of it has arrived when the last of it is taken.
    stream.write_all(&vec![1; 20 * MB]).unwrap();
    peers::reset(stream);
    let entry = only_fetch(&fetch.wait(LIMIT).failure().json());
    assert_eq!(entry["outcome"], "reset", "{entry}");
    let received = number(&entry, "/bytes");
    assert!((1..=20 * MB as u64).contains(&received), "{received} bytes");
    assert!(!file.exists(), "part of a file is not the file");
}

fn the_kernel_resets_what_it_sends_to_the_echo_server(family: Family) {
    let world = World::new();
    let server = world.run(1, "", ECHO);
    let at = SocketAddr::new(family.ours(), ECHO_PORT);
    for _ in 0..10 {
        let mut stream = peers::connect(&world.namespace, at).unwrap();
        stream.write_all(&[2; 200_000]).unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        peers::reset(stream);
    }
    server.wait_for_sessions(0);
    assert_eq!(server.time_wait(), 0);
    // And it serves on.
    let stream = peers::connect(&world.namespace, at).unwrap();
    assert!(peers::exchange(&stream, &[3; MB]).unwrap() == [3; MB]);
    let _ = server.end();
}

/// Writes until the connection breaks; the cause, and how much was taken.
fn write_until_broken(stream: &mut TcpStream) -> (ErrorKind, usize) {
    let mut taken = 0;
    loop {
        match stream.write(&[4; 65_536]) {
            Ok(count) => taken += count,
            Err(error) => return (error.kind(), taken),
        }
    }
}

fn we_reset_what_the_kernel_sends(family: Family) {
    let world = World::new();
    let server = world.run(1, "", ECHO);
    let mut stream = peers::connect(&world.namespace, SocketAddr::new(family.ours(), ECHO_PORT)).unwrap();
    // Nobody reads what comes back, so that the windows close and stay closed: both directions are full.
    let (cause, report) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until_broken(&mut stream));
        server.wait_for_sessions(1);
        let report = server.ask("app detach echo reset");
        (writer.join().unwrap(), report)
    });
    assert_eq!(cause.0, ErrorKind::ConnectionReset, "after {} bytes", cause.1);
    assert_eq!(number(&report, "/detached/0/sessions_reset"), 1, "{report:#}");
    let leaks = server.ask("show leaks");
    assert_no_leaks(&leaks);
    assert_eq!(number(&leaks, "/time_wait"), 0);
    let _ = server.end();
}

fn we_reset_a_download(family: Family) {
    let world = World::new();
    let at = SocketAddr::new(family.kernel(), 8080);
    let listener = peers::listen(&world.namespace, at);
    let file = world.path("file");
    let mut fetch = world.fetch(&["-o", file.to_str().unwrap(), &url(at, "file")]);
    let mut stream = peers::accept(&listener);
    read_request(&mut stream);
    stream.write_all(HEAD).unwrap();
    stream.write_all(&vec![5; 20 * MB]).unwrap();
    let cause = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until_broken(&mut stream));
        fetch.signal(Signal::INT);
        writer.join().unwrap()
    });
    assert_eq!(cause.0, ErrorKind::ConnectionReset, "after {} more bytes", cause.1);
    let entry = only_fetch(&fetch.wait(LIMIT).failure().json());
    assert_eq!(entry["outcome"], "detached", "{entry}");
    assert!(!file.exists(), "part of a file is not the file");
}

fn the_kernel_dies_between_head_and_body(family: Family) {
    let world = World::new();
    let at = SocketAddr::new(family.kernel(), 8080);
    let listener = peers::listen(&world.namespace, at);
    let fetch = world.fetch(&["--discard", &url(at, "file")]);
    let mut stream = peers::accept(&listener);
    read_request(&mut stream);
    stream.write_all(HEAD).unwrap();
    // A FIN, not a RST: the kernel had nothing unread.
    drop(stream);
    let entry = only_fetch(&fetch.wait(LIMIT).failure().json());
    assert_eq!((entry["outcome"].as_str(), number(&entry, "/bytes")), (Some("truncated"), 0), "{entry}");
}
