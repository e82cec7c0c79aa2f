//! Opens the connections that a workload starts from, in small sets, because smoltcp looks at every socket of a set
//! for every packet: a hundred thousand opened in one set would take hours.

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};

use super::pair::{Pair, socket};
use crate::measure::Clock;

/// Connections opened at a time.
const CHUNK: usize = 256;
/// Connections to one port of the server; the next ones go to the next port, so that no 4-tuple repeats.
const PER_PORT: usize = 60_000;

/// Established sockets of both ends. Equal indices are not the two ends of one connection.
#[derive(Default)]
pub(super) struct Established {
    /// The client's.
    pub(super) client: Vec<SocketHandle>,
    /// The server's.
    pub(super) server: Vec<SocketHandle>,
}

/// Adds `count` established connections, with buffers of `buffer_bytes` each way, to the pair's sets. Stops early
/// when `limit_seconds` have passed; the answer tells how many there are.
///
/// They go to the server's ports from `first_port` on, which nothing else may use.
pub(super) fn establish(
    pair: &mut Pair,
    count: usize,
    buffer_bytes: usize,
    first_port: u16,
    limit_seconds: f64,
) -> Established {
    let clock = Clock::start();
    let mut all = Established { client: Vec::with_capacity(count), server: Vec::with_capacity(count) };
    while all.client.len() < count && (all.client.is_empty() || clock.seconds() < limit_seconds) {
        let port = first_port
            + u16::try_from(all.client.len() / PER_PORT)
                .expect("cannot fail because 60,000 x 65,536 do not fit");
        let room = (PER_PORT - all.client.len() % PER_PORT).min(count - all.client.len()).min(CHUNK);
        let held = pair.set_aside(room);
        let chunk = establish_chunk(pair, room, buffer_bytes, port);
        let (from_client, from_server) = pair.put_back(held);
        move_into(from_client, &chunk.client, &mut pair.client.sockets, &mut all.client);
        move_into(from_server, &chunk.server, &mut pair.server.sockets, &mut all.server);
    }
    all
}

fn establish_chunk(pair: &mut Pair, count: usize, buffer_bytes: usize, port: u16) -> Established {
    let mut chunk = Established::default();
    for _ in 0..count {
        let mut listening = socket(buffer_bytes);
        listening.listen(port).expect("cannot fail because the socket is new and the port is not 0");
        chunk.server.push(pair.server.sockets.add(listening));
        let handle = pair.client.sockets.add(socket(buffer_bytes));
        pair.connect(handle, port);
        chunk.client.push(handle);
    }
    let is_open = |set: &SocketSet<'_>, handle: &SocketHandle| {
        set.get::<Socket<'_>>(*handle).state() == State::Established
    };
    loop {
        pair.poll_client();
        pair.poll_server();
        let quiet = pair.end_turn(false);
        let client = chunk.client.iter().all(|handle| is_open(&pair.client.sockets, handle));
        let server = chunk.server.iter().all(|handle| is_open(&pair.server.sockets, handle));
        // Quiet: no packet of theirs is under way when the sets change places.
        if client && server && quiet {
            return chunk;
        }
    }
}

fn move_into(
    mut from: SocketSet<'static>,
    handles: &[SocketHandle],
    to: &mut SocketSet<'static>,
    moved: &mut Vec<SocketHandle>,
) {
    for &handle in handles {
        #[allow(irrefutable_let_patterns, reason = "other kinds exist where another crate enables them")]
        let smoltcp::socket::Socket::Tcp(socket) = from.remove(handle) else {
            unreachable!("only TCP sockets are added")
        };
        moved.push(to.add(socket));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_chunk_is_established_in_the_pairs_own_sets() {
        let mut pair = Pair::new(CHUNK + 10);
        let all = establish(&mut pair, CHUNK + 10, 64, 7000, 60.0);
        assert_eq!((all.client.len(), all.server.len()), (CHUNK + 10, CHUNK + 10));
        assert_eq!(
            (pair.client.sockets.iter().count(), pair.server.sockets.iter().count()),
            (CHUNK + 10, CHUNK + 10)
        );
        assert!(all.client.iter().all(|&handle| pair.client.socket(handle).state() == State::Established));
        assert!(all.server.iter().all(|&handle| pair.server.socket(handle).state() == State::Established));
    }

    #[test]
    fn no_time_at_all_still_gives_one_chunk() {
        let mut pair = Pair::new(CHUNK);
        let all = establish(&mut pair, 10 * CHUNK, 64, 7000, 0.0);
        assert_eq!(all.client.len(), CHUNK);
    }
}
