//! `conn`: open a connection, both ends see it established, close it; many in flight, sockets reused.
//!
//! The client closes first, as soon as it sees the connection established; the server closes on seeing that. The
//! client's socket is opened again from TIME-WAIT, so the peer is not charged for it: no timer, no memory.

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use super::establish::establish;
use super::pair::{Pair, socket};
use crate::measure::Meter;
use crate::work::Work;

/// The server's port for the connections that are measured.
const PORT: u16 = 80;
/// The first of the server's ports for idle ones.
const IDLE_PORT: u16 = 7000;

/// What to set up.
#[derive(Clone, Copy, Debug)]
pub struct ConnOptions {
    /// Connections opened before the first is closed: 64 and 1024 in the report.
    pub in_flight: usize,
    /// Idle established connections held beside the ones that are measured.
    pub idle: usize,
    /// Where in the set the idle ones lie.
    pub idle_place: IdlePlace,
    /// Each socket's buffers, bytes each way. Nothing is sent, so the size matters to the cache only.
    pub buffer_bytes: usize,
    /// Time that opening the idle ones may take, seconds; fewer are held when it runs out.
    pub setup_limit_seconds: f64,
}

/// Where smoltcp finds idle sockets when it looks for a packet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdlePlace {
    /// Before the busy ones: they are older, and sockets are added to the first free slot.
    Before,
    /// After the busy ones: input finds those at once, output still looks at all. The peer's best case.
    After,
}

impl Default for ConnOptions {
    fn default() -> Self {
        ConnOptions {
            in_flight: 64,
            idle: 0,
            idle_place: IdlePlace::Before,
            buffer_bytes: 64,
            setup_limit_seconds: 60.0,
        }
    }
}

/// The workload, set up; [`ConnPeer::run`] may be called any number of times.
pub struct ConnPeer {
    pair: Pair,
    clients: Vec<SocketHandle>,
    servers: Vec<SocketHandle>,
    phases: Vec<Phase>,
    idle_held: usize,
}

/// What a client socket is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Resting,
    Opening,
    Closing,
}

/// Counts of one run.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    opened: u64,
    accepted: u64,
    finished: u64,
    in_flight: usize,
    worked: bool,
}

impl ConnPeer {
    /// Opens the idle connections and adds the sockets to work with.
    pub fn new(options: &ConnOptions) -> Self {
        let ConnOptions { in_flight, idle, idle_place, buffer_bytes, setup_limit_seconds } = *options;
        let in_flight = in_flight.max(1);
        let mut peer = ConnPeer {
            pair: Pair::new(in_flight + idle),
            clients: Vec::with_capacity(in_flight),
            servers: Vec::with_capacity(in_flight),
            phases: vec![Phase::Resting; in_flight],
            idle_held: 0,
        };
        if idle_place == IdlePlace::After {
            peer.add_busy(in_flight, buffer_bytes);
        }
        if idle > 0 {
            peer.idle_held =
                establish(&mut peer.pair, idle, buffer_bytes, IDLE_PORT, setup_limit_seconds).client.len();
        }
        if idle_place == IdlePlace::Before {
            peer.add_busy(in_flight, buffer_bytes);
        }
        peer
    }

    /// Idle connections that are really held: fewer than asked for when setting up took too long.
    pub fn idle_held(&self) -> usize {
        self.idle_held
    }

    /// Opens and closes `connections`, or as many as `limit_seconds` allow; an operation is one of them, opened on
    /// both ends and closed.
    pub fn run(&mut self, connections: u64, limit_seconds: f64) -> Work {
        let meter = Meter::start();
        let mut progress = Progress::default();
        let mut to_open = connections;
        loop {
            progress.worked = false;
            if meter.wall_seconds() >= limit_seconds {
                to_open = 0;
            }
            to_open -= self.open_more(to_open, &mut progress);
            self.pair.poll_client();
            self.client_app(&mut progress);
            self.pair.poll_server();
            let servers_rest = self.server_app(&mut progress);
            self.pair.end_turn(progress.worked);
            if to_open == 0 && progress.in_flight == 0 && servers_rest {
                break;
            }
        }
        assert_eq!(progress.opened, progress.finished, "every connection opened was closed");
        assert_eq!(progress.accepted, progress.finished, "both ends saw every connection");
        meter.work(progress.finished, 0)
    }

    fn add_busy(&mut self, count: usize, buffer_bytes: usize) {
        for _ in 0..count {
            self.clients.push(self.pair.client.sockets.add(socket(buffer_bytes)));
            let mut listening = socket(buffer_bytes);
            listening.listen(PORT).expect("cannot fail because the socket is new and the port is not 0");
            self.servers.push(self.pair.server.sockets.add(listening));
        }
    }

    /// Connects from sockets at rest, at most `to_open` of them; tells how many.
    fn open_more(&mut self, to_open: u64, progress: &mut Progress) -> u64 {
        let mut opened = 0;
        if progress.in_flight == self.clients.len() {
            return 0;
        }
        for (phase, &handle) in self.phases.iter_mut().zip(&self.clients) {
            if opened == to_open {
                break;
            }
            if *phase == Phase::Resting {
                self.pair.connect(handle, PORT);
                *phase = Phase::Opening;
                opened += 1;
                progress.in_flight += 1;
            }
        }
        opened
    }

    fn client_app(&mut self, progress: &mut Progress) {
        for (phase, &handle) in self.phases.iter_mut().zip(&self.clients) {
            let socket = self.pair.client.socket(handle);
            match (*phase, socket.state()) {
                (Phase::Opening, State::Established) => {
                    socket.close();
                    *phase = Phase::Closing;
                    progress.opened += 1;
                    progress.worked = true;
                }
                (Phase::Opening, State::Closed) => {
                    panic!("the peer refused a connection: no socket listened")
                }
                (Phase::Closing, State::TimeWait) => {
                    *phase = Phase::Resting;
                    progress.finished += 1;
                    progress.in_flight -= 1;
                    progress.worked = true;
                }
                _ => {}
            }
        }
    }

    /// Tells whether every server socket listens again.
    fn server_app(&mut self, progress: &mut Progress) -> bool {
        let mut all_rest = true;
        for &handle in &self.servers {
            let socket = self.pair.server.socket(handle);
            match socket.state() {
                State::Listen => continue,
                State::CloseWait => {
                    socket.close();
                    progress.accepted += 1;
                    progress.worked = true;
                }
                State::Closed => {
                    socket
                        .listen(PORT)
                        .expect("cannot fail because the socket is closed and the port is not 0");
                    progress.worked = true;
                    continue;
                }
                _ => {}
            }
            all_rest = false;
        }
        all_rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_asked_for_is_opened_and_closed_and_again_in_a_second_run() {
        let mut peer = ConnPeer::new(&ConnOptions { in_flight: 7, ..ConnOptions::default() });
        assert_eq!(peer.run(100, 60.0).operations, 100);
        assert_eq!(peer.run(3, 60.0).operations, 3);
        assert!(peer.phases.iter().all(|&phase| phase == Phase::Resting));
    }

    #[test]
    fn a_connection_costs_seven_packets_and_no_reset() {
        let mut peer = ConnPeer::new(&ConnOptions { in_flight: 1, ..ConnOptions::default() });
        peer.run(10, 60.0);
        // SYN, ACK, FIN, ACK from the client; SYN-ACK, ACK, FIN from the server.
        assert_eq!((peer.pair.packets_from_client(), peer.pair.packets_from_server()), (40, 30));
    }

    #[test]
    fn idle_connections_stay_established_beside_the_busy_ones_wherever_they_lie() {
        for idle_place in [IdlePlace::Before, IdlePlace::After] {
            let mut peer =
                ConnPeer::new(&ConnOptions { in_flight: 4, idle: 20, idle_place, ..ConnOptions::default() });
            assert_eq!(peer.idle_held(), 20);
            assert_eq!(peer.run(50, 60.0).operations, 50);
            let established = |(_, socket): &(SocketHandle, &smoltcp::socket::Socket<'_>)| matches!(socket, smoltcp::socket::Socket::Tcp(tcp) if tcp.state() == State::Established);
            assert_eq!(peer.pair.client.sockets.iter().filter(established).count(), 20);
            assert_eq!(peer.pair.server.sockets.iter().filter(established).count(), 20);
        }
    }

    #[test]
    fn no_time_at_all_opens_nothing_and_ends() {
        let mut peer = ConnPeer::new(&ConnOptions::default());
        assert_eq!(peer.run(1_000_000, 0.0).operations, 0);
    }
}
