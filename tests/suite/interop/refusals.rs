//! What is no header, or not the one that is wanted: the connection ends in time, and the CLI knows why.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hoststack::app::proxy::{Version, Versions};
use hoststack_tests::{peers, skip_unless_net_admin, wait};

use crate::world::{LIMIT, Note, Place, Via, World};

/// A connection of the host's.
enum Stream {
    Tcp(std::net::TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(world: &World, to: &Place) -> Stream {
        match to.endpoint() {
            Some(at) => Stream::Tcp(peers::connect(&world.namespace, at).expect("it listens")),
            None => {
                let stream = UnixStream::connect(to.path()).expect("it listens");
                stream.set_read_timeout(Some(STALL)).expect("not zero");
                Stream::Unix(stream)
            }
        }
    }

    /// Sends `bytes`, and perhaps the end of this direction; the peer may be gone already.
    fn send(&mut self, bytes: &[u8], ends: bool) {
        let _ = match self {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        };
        if ends {
            let _ = match self {
                Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
                Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            };
        }
    }

    /// All that comes until the peer's end.
    fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let result = match self {
            Stream::Tcp(stream) => stream.read_to_end(&mut bytes),
            Stream::Unix(stream) => stream.read_to_end(&mut bytes),
        };
        match result {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no end: {error}"),
            _ => bytes,
        }
    }
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x08\x04\xd2\0P";

/// How long a read may take: as with [`peers::connect`], less than the listeners of those that are not silent wait.
const STALL: Duration = Duration::from_secs(30);

/// How long the listeners of the silent ones wait.
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn what_is_no_header_ends_in_time_and_is_counted_by_its_reason() {
    skip_unless_net_admin!();
    let wrong = "PROXY header to receive: the peer sent something else: ";
    let late = "PROXY header to receive: not done before the deadline".to_owned();
    let closed = "PROXY header to receive: the peer closed in the middle of it".to_owned();
    // What is sent to a listener of which version, whether the sender then closes, and the reason.
    let cases: [(&[u8], Versions, bool, String); 8] = [
        (V1, Versions::Only(Version::V2), false, format!("{wrong}other-version")),
        (V2, Versions::Only(Version::V1), false, format!("{wrong}other-version")),
        (b"GET / HTTP/1.1\r\n\r\n", Versions::Any, false, format!("{wrong}no-header")),
        (b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 99999\r\n", Versions::Any, false, format!("{wrong}bad-port")),
        (&V1[..20], Versions::Any, true, closed.clone()),
        (&V2[..20], Versions::Any, true, closed),
        (&V2[..20], Versions::Any, false, late.clone()),
        (b"", Versions::Any, false, late.clone()),
    ];
    let world = World::new();
    let mut expected = std::collections::BTreeMap::new();
    for via in Via::ALL {
        for (case, (bytes, versions, ends, reason)) in (0..).zip(&cases) {
            let back = world.ours(via, 7000 + case);
            let timeout = if *reason == late { SHORT } else { LIMIT };
            world.listen(&back, case.into(), *versions, timeout);
            let before = world.notes().len();
            let watch = wait::Stopwatch::start();
            let mut stream = Stream::connect(&world, &back);
            stream.send(bytes, *ends);
            assert_eq!(stream.read_to_end(), b"", "{via:?}: {reason}");
            // The deadline is never early; without it all others would last longer than a read may.
            assert!(*reason != late || watch.elapsed() >= SHORT, "{via:?}: {reason}");
            wait::until(reason, LIMIT, || (world.notes().len() > before).then_some(()));
            match &world.notes()[before..] {
                [Note::NotAccepted { flow, failure }] => {
                    assert_eq!((flow.protocol, &failure.to_string()), (via.protocol(), reason));
                }
                notes => panic!("one thing is told, {reason}: {notes:?}"),
            }
            *expected.entry(reason.clone()).or_insert(0) += 1;
        }
    }
    let mut counted = std::collections::BTreeMap::new();
    for drop in world.workers().iter().flat_map(|worker| &worker.drops) {
        if drop.reason == "not-accepted" {
            *counted.entry(drop.help.clone()).or_insert(0) += drop.count;
        }
    }
    assert_eq!(counted, expected);
    world.finish();
}
