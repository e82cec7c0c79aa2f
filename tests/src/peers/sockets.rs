//! Plain kernel sockets, for exchanges that no program offers: who closes first, and how.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::netns::Namespace;
use crate::wait;

/// How long one read or write of these sockets may take before it fails: generous, a test must not hang.
const STALL: Duration = Duration::from_secs(30);

/// A listener inside `namespace`, usable from the calling thread.
///
/// # Panics
/// When the address cannot be bound.
#[must_use]
pub fn listen(namespace: &Namespace, at: SocketAddr) -> TcpListener {
    namespace.enter(|| TcpListener::bind(at)).unwrap_or_else(|error| panic!("cannot listen on {at}: {error}"))
}

/// The next connection of a listener, blocking with a time limit on reads and writes.
///
/// # Panics
/// When none comes in time.
#[must_use]
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("our own listener");
    let stream = wait::until("a connection", wait::READY, || match listener.accept() {
        Ok((stream, _)) => Some(stream),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("accept: {error}"),
    });
    stream.set_nonblocking(false).expect("our own socket");
    limited(stream)
}

/// Connects from inside `namespace`; reads and writes have a time limit.
///
/// # Errors
/// What the kernel says.
pub fn connect(namespace: &Namespace, to: SocketAddr) -> io::Result<TcpStream> {
    namespace.enter(|| TcpStream::connect_timeout(&to, wait::READY)).map(limited)
}

fn limited(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(STALL)).expect("not zero");
    stream.set_write_timeout(Some(STALL)).expect("not zero");
    stream
}

/// Sends `bytes`, closes that direction, and returns all that comes back until the peer closes, reading all the while.
///
/// # Errors
/// What the kernel says.
pub fn exchange(stream: &TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut half = stream;
            half.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write))
        });
        let mut back = Vec::with_capacity(bytes.len());
        let mut half = stream;
        let read = half.read_to_end(&mut back);
        writer.join().expect("it does not panic")?;
        read.map(|_| back)
    })
}

/// Ends a connection with a RST, whatever is queued.
///
/// # Panics
/// When the socket option is refused.
pub fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("a TCP socket lingers");
}

/// A state of the kernel's TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// ESTABLISHED.
    Established,
    /// TIME-WAIT.
    TimeWait,
    /// CLOSING: both ends sent a FIN before they had the other's.
    Closing,
    /// LISTEN.
    Listen,
    /// Any other.
    Other,
}

/// How many of the namespace's TCP sockets with the port `port` (at either end) are in `state`, both families.
///
/// # Panics
/// When the kernel's table is not to be had.
#[must_use]
pub fn count(namespace: &Namespace, port: u16, state: SocketState) -> usize {
    namespace.enter(|| {
        let table =
            |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).expect("a kernel with TCP");
        let tables = table("tcp") + &table("tcp6");
        tables
            .lines()
            .filter_map(parse)
            .filter(|line| line.ports.contains(&port) && line.state == state)
            .count()
    })
}

struct Line {
    ports: [u16; 2],
    state: SocketState,
}

/// `0: 0100007F:1F90 00000000:0000 0A ...`; `None` for the heading.
fn parse(line: &str) -> Option<Line> {
    let mut words = line.split_whitespace().skip(1);
    let mut port = || u16::from_str_radix(words.next()?.split_once(':')?.1, 16).ok();
    let ports = [port()?, port()?];
    let state = match words.next()? {
        "01" => SocketState::Established,
        "06" => SocketState::TimeWait,
        "0A" => SocketState::Listen,
        "0B" => SocketState::Closing,
        _ => SocketState::Other,
    };
    Some(Line { ports, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_table_is_read() {
        assert!(parse("  sl  local_address rem_address   st tx_queue rx_queue").is_none());
        let line = parse("   0: 0100007F:1F90 0200007F:0007 06 00000000:00000000 03:00000F9B").unwrap();
        assert_eq!((line.ports, line.state), ([8080, 7], SocketState::TimeWait));
        let line = parse("   1: 000000000000000000000000:0050 000000000000000000000000:0000 0A 0").unwrap();
        assert_eq!((line.ports, line.state), ([80, 0], SocketState::Listen));
    }

    #[test]
    fn an_exchange_with_an_echo_brings_the_bytes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let stream = accept(&listener);
                io::copy(&mut &stream, &mut &stream).unwrap();
            });
            let stream = limited(TcpStream::connect(at).unwrap());
            let bytes = vec![7; 3_000_000];
            assert!(exchange(&stream, &bytes).unwrap() == bytes);
        });
    }
}
