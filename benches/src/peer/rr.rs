//! `rr`: small requests answered by equally small responses, one outstanding on each of many connections.

use smoltcp::iface::SocketHandle;

use super::establish::establish;
use super::pair::Pair;
use crate::histogram::LatencyHistogram;
use crate::measure::{Clock, Meter};
use crate::work::Work;

/// The first of the server's ports.
const PORT: u16 = 7000;
/// The longest message.
const MESSAGE_MAX: usize = 1024;

/// What to set up.
#[derive(Clone, Copy, Debug)]
pub struct RrOptions {
    /// Connections, each with one request outstanding: 1 and 1000 in the report.
    pub connections: usize,
    /// Bytes of a request and of its response, 8 to 1024.
    pub message_bytes: usize,
    /// Each socket's buffers, bytes each way; at least a message.
    pub buffer_bytes: usize,
    /// Time that opening the connections may take, seconds.
    pub setup_limit_seconds: f64,
}

impl Default for RrOptions {
    fn default() -> Self {
        RrOptions { connections: 1, message_bytes: 64, buffer_bytes: 4096, setup_limit_seconds: 60.0 }
    }
}

/// The workload, set up; [`RrPeer::run`] may be called any number of times.
pub struct RrPeer {
    pair: Pair,
    clients: Vec<SocketHandle>,
    servers: Vec<SocketHandle>,
    /// The number that each connection's outstanding request carries and when it was sent (ns); `None`: none is out.
    outstanding: Vec<Option<Request>>,
    message_bytes: usize,
    next_number: u64,
}

#[derive(Clone, Copy)]
struct Request {
    number: u64,
    sent_ns: u64,
}

/// One run's account.
struct Run<'a> {
    to_send: u64,
    answered: u64,
    in_flight: usize,
    latency: Option<(Clock, &'a mut LatencyHistogram)>,
}

impl RrPeer {
    /// Opens the connections.
    ///
    /// # Panics
    /// When `message_bytes` is not within 8..=1024.
    pub fn new(options: &RrOptions) -> Self {
        let RrOptions { connections, message_bytes, buffer_bytes, setup_limit_seconds } = *options;
        assert!((8..=MESSAGE_MAX).contains(&message_bytes), "a message has 8 to {MESSAGE_MAX} bytes");
        let connections = connections.max(1);
        let mut pair = Pair::new(connections);
        let all =
            establish(&mut pair, connections, buffer_bytes.max(message_bytes), PORT, setup_limit_seconds);
        let outstanding = vec![None; all.client.len()];
        RrPeer { pair, clients: all.client, servers: all.server, outstanding, message_bytes, next_number: 1 }
    }

    /// Connections that are really open.
    pub fn connections(&self) -> usize {
        self.clients.len()
    }

    /// Exchanges `exchanges` requests and responses, or as many as `limit_seconds` allow; an operation is one
    /// request answered, bytes are the responses'. With a histogram, the clock is read twice per exchange on top.
    pub fn run(
        &mut self,
        exchanges: u64,
        limit_seconds: f64,
        latency: Option<&mut LatencyHistogram>,
    ) -> Work {
        let meter = Meter::start();
        let latency = latency.map(|histogram| (Clock::start(), histogram));
        let mut run = Run { to_send: exchanges, answered: 0, in_flight: 0, latency };
        self.send_first(&mut run);
        while run.in_flight > 0 {
            if meter.wall_seconds() >= limit_seconds {
                run.to_send = 0;
            }
            let before = run.answered;
            self.pair.poll_client();
            self.client_app(&mut run);
            self.pair.poll_server();
            let served = self.server_app();
            self.pair.end_turn(served > 0 || run.answered > before);
        }
        meter.work(run.answered, run.answered * self.message_bytes as u64)
    }

    fn send_first(&mut self, run: &mut Run<'_>) {
        for index in 0..self.clients.len() {
            self.send_request(index, run);
        }
    }

    fn send_request(&mut self, index: usize, run: &mut Run<'_>) {
        if run.to_send == 0 {
            return;
        }
        run.to_send -= 1;
        run.in_flight += 1;
        let number = self.next_number;
        self.next_number += 1;
        let mut message = [0x5a; MESSAGE_MAX];
        message[..8].copy_from_slice(&number.to_le_bytes());
        let sent_ns = run.latency.as_ref().map_or(0, |(clock, _)| clock.nanos());
        let sent = self.pair.client.socket(self.clients[index]).send_slice(&message[..self.message_bytes]);
        assert_eq!(sent, Ok(self.message_bytes), "an idle connection has room for a request");
        self.outstanding[index] = Some(Request { number, sent_ns });
    }

    fn client_app(&mut self, run: &mut Run<'_>) {
        for index in 0..self.clients.len() {
            let Some(request) = self.outstanding[index] else { continue };
            let socket = self.pair.client.socket(self.clients[index]);
            if socket.recv_queue() < self.message_bytes {
                continue;
            }
            let mut message = [0; MESSAGE_MAX];
            let received = socket.recv_slice(&mut message[..self.message_bytes]);
            assert_eq!(received, Ok(self.message_bytes), "a whole response was waiting");
            assert_eq!(
                message[..8],
                request.number.to_le_bytes(),
                "the response is to the request that was sent"
            );
            if let Some((clock, histogram)) = &mut run.latency {
                histogram.record(clock.nanos() - request.sent_ns);
            }
            self.outstanding[index] = None;
            run.answered += 1;
            run.in_flight -= 1;
            self.send_request(index, run);
        }
    }

    /// Answers every whole request with its own bytes; tells how many.
    fn server_app(&mut self) -> u64 {
        let mut served = 0;
        for &handle in &self.servers {
            let socket = self.pair.server.socket(handle);
            if socket.recv_queue() < self.message_bytes {
                continue;
            }
            let mut message = [0; MESSAGE_MAX];
            let received = socket.recv_slice(&mut message[..self.message_bytes]);
            assert_eq!(received, Ok(self.message_bytes), "a whole request was waiting");
            let sent = socket.send_slice(&message[..self.message_bytes]);
            assert_eq!(sent, Ok(self.message_bytes), "an idle connection has room for a response");
            served += 1;
        }
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_answered_on_one_and_on_many_connections() {
        for connections in [1, 5] {
            let mut peer = RrPeer::new(&RrOptions { connections, ..RrOptions::default() });
            assert_eq!(peer.connections(), connections);
            let work = peer.run(103, 60.0, None);
            assert_eq!((work.operations, work.bytes), (103, 103 * 64));
            assert_eq!(peer.run(2, 60.0, None).operations, 2, "fewer requests than connections");
        }
    }

    #[test]
    fn every_exchange_is_timed_when_asked() {
        let mut peer = RrPeer::new(&RrOptions::default());
        let mut latency = LatencyHistogram::new();
        peer.run(50, 60.0, Some(&mut latency));
        assert_eq!(latency.count(), 50);
        assert!(latency.p50() > 0 && latency.p50() <= latency.p99() && latency.p99() <= latency.max());
    }

    #[test]
    fn no_time_at_all_answers_only_what_was_sent_at_once() {
        let mut peer = RrPeer::new(&RrOptions { connections: 3, ..RrOptions::default() });
        assert_eq!(peer.run(1_000_000, 0.0, None).operations, 3);
        assert_eq!(peer.run(10, 60.0, None).operations, 10);
    }
}
