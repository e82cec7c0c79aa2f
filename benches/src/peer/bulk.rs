//! `bulk`: one flow, one way; the sending app copies in, the receiving app copies out.

use smoltcp::iface::SocketHandle;

use super::establish::establish;
use super::pair::Pair;
use crate::measure::Meter;
use crate::work::Work;

/// The server's port.
const PORT: u16 = 7000;
/// The app's own buffers at both ends; the pattern of the stream repeats with it.
const APP_BYTES: usize = 64 << 10;

/// What to set up.
#[derive(Clone, Copy, Debug)]
pub struct BulkOptions {
    /// Each socket's buffers, bytes each way: 64 KiB to 1 MiB in the report. The window is as large.
    pub buffer_bytes: usize,
    /// Compare every byte received with what was sent (for tests: it costs time).
    pub verify: bool,
}

impl Default for BulkOptions {
    fn default() -> Self {
        BulkOptions { buffer_bytes: 256 << 10, verify: false }
    }
}

/// The workload, set up; [`BulkPeer::run`] may be called any number of times.
pub struct BulkPeer {
    pair: Pair,
    sender: SocketHandle,
    receiver: SocketHandle,
    source: Vec<u8>,
    sink: Vec<u8>,
    /// Bytes sent and received since the connection opened.
    sent: u64,
    received: u64,
    verify: bool,
}

impl BulkPeer {
    /// Opens the connection.
    pub fn new(options: &BulkOptions) -> Self {
        let mut pair = Pair::new(1);
        let one = establish(&mut pair, 1, options.buffer_bytes.max(1), PORT, 60.0);
        // A pattern whose period does not divide any power of two shows bytes that went astray.
        let source = (0..APP_BYTES).map(|index| (index % 251) as u8).collect();
        BulkPeer {
            pair,
            sender: one.client[0],
            receiver: one.server[0],
            source,
            sink: vec![0; APP_BYTES],
            sent: 0,
            received: 0,
            verify: options.verify,
        }
    }

    /// Moves `bytes`, or as many as `limit_seconds` allow, from the client's app to the server's; an operation is a
    /// packet that the client sent.
    pub fn run(&mut self, bytes: u64, limit_seconds: f64) -> Work {
        let meter = Meter::start();
        let (first, packets) = (self.received, self.pair.packets_from_client());
        let mut end = self.sent + bytes;
        while self.received < end {
            if meter.wall_seconds() >= limit_seconds {
                end = self.sent;
            }
            let copied_in = self.client_app(end);
            self.pair.poll_client();
            self.pair.poll_server();
            let copied_out = self.server_app();
            self.pair.end_turn(copied_in + copied_out > 0);
        }
        meter.work(self.pair.packets_from_client() - packets, self.received - first)
    }

    /// Copies in until the send buffer is full or the stream has reached `end`; tells how many bytes.
    fn client_app(&mut self, end: u64) -> u64 {
        let socket = self.pair.client.socket(self.sender);
        let before = self.sent;
        while self.sent < end && socket.can_send() {
            let at = position(self.sent);
            let want = (end - self.sent).min((APP_BYTES - at) as u64) as usize; // at most APP_BYTES
            let copied = socket.send_slice(&self.source[at..at + want]);
            self.sent += copied.expect("cannot fail because the connection is open: can_send said so") as u64;
        }
        self.sent - before
    }

    /// Copies out all that arrived; tells how many bytes.
    fn server_app(&mut self) -> u64 {
        let socket = self.pair.server.socket(self.receiver);
        let before = self.received;
        while socket.can_recv() {
            let at = position(self.received);
            let copied = socket.recv_slice(&mut self.sink[at..]);
            let copied = copied.expect("cannot fail because the connection is open: can_recv said so");
            if self.verify {
                assert_eq!(self.sink[at..at + copied], self.source[at..at + copied], "bytes went astray");
            }
            self.received += copied as u64;
        }
        self.received - before
    }
}

/// Where in the app's buffer the stream's offset `offset` lies.
fn position(offset: u64) -> usize {
    (offset % APP_BYTES as u64) as usize // below APP_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_as_sent_through_small_and_large_buffers() {
        for buffer_bytes in [1_000, 64 << 10, 1 << 20] {
            let mut peer = BulkPeer::new(&BulkOptions { buffer_bytes, verify: true });
            assert_eq!(peer.run(300_001, 60.0).bytes, 300_001);
            assert_eq!(peer.run(200_000, 60.0).bytes, 200_000);
            assert_eq!(peer.sink[..1_000], peer.source[..1_000]);
        }
    }

    #[test]
    fn full_segments_are_sent_when_the_window_is_large() {
        let mut peer = BulkPeer::new(&BulkOptions { buffer_bytes: 1 << 20, verify: true });
        let work = peer.run(1_460_000, 60.0);
        assert!(work.operations <= 1_010, "{} packets for 1000 segments' worth", work.operations);
    }

    #[test]
    fn no_time_at_all_moves_nothing_and_ends() {
        let mut peer = BulkPeer::new(&BulkOptions::default());
        assert_eq!(peer.run(1 << 30, 0.0).bytes, 0);
    }
}
