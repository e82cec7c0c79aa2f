//! `bulk`: streams one way, from the client's app to the server's.

use std::any::Any;
use std::sync::Arc;

use hoststack_app::{
    AppWorker, Application, CloseReason, ConnectFailure, ConnectId, ConnectOptions, Context, SessionHandle,
    SessionOptions, WorkerId,
};

use super::host::{CLIENT, Host, HostOptions, Threads, Via, client_address, server_address};
use super::progress::Progress;
use crate::measure::Meter;
use crate::work::Work;

/// The app's own buffers at both ends; the pattern of the stream repeats with it.
const APP_BYTES: usize = 64 << 10;
/// Addresses of the client, which its connections go out from in turn.
const ADDRESSES: u16 = 4;

/// How the apps handle the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkMode {
    /// The sender copies in (`write`), the receiver copies out (`read`).
    Copies,
    /// Both work in the fifos (`reserve`/`commit`, `peek`/`consume`): the sender writes, and the receiver looks at,
    /// eight bytes of each piece. The rest is sent as it lies there.
    InPlace,
}

/// What to set up.
#[derive(Clone, Copy, Debug)]
pub struct BulkOptions {
    /// Which threads the stack runs on.
    pub threads: Threads,
    /// Streams at once.
    pub flows: usize,
    /// Each session's fifos, bytes each way. The window is as large.
    pub fifo_bytes: u32,
    /// How the apps handle the bytes.
    pub mode: BulkMode,
    /// Compare every byte received with what was sent (for tests of `Copies`: it costs time).
    pub verify: bool,
}

impl Default for BulkOptions {
    fn default() -> Self {
        BulkOptions {
            threads: Threads::None,
            flows: 1,
            fifo_bytes: 256 << 10,
            mode: BulkMode::Copies,
            verify: false,
        }
    }
}

/// The workload, set up; [`Bulk::run`] may be called any number of times.
pub struct Bulk {
    host: Host,
    progress: Arc<Progress>,
}

/// What the client app is told to do.
enum Go {
    Open,
    /// Send so many bytes, over all flows.
    Send(u64),
}

impl Bulk {
    /// Builds the stack and opens the connections.
    ///
    /// # Panics
    /// When a connection failed.
    pub fn new(options: &BulkOptions) -> Self {
        let BulkOptions { threads, flows, fifo_bytes, mode, verify } = *options;
        let flows = flows.max(1);
        let progress = Arc::new(Progress::default());
        let fifos =
            SessionOptions { rx_capacity: fifo_bytes, tx_capacity: fifo_bytes, ..SessionOptions::default() };
        let room = 2 * flows + 1024;
        let host_options =
            HostOptions { via: Via::Tcp, threads, client_addresses: ADDRESSES, server_ports: 1, fifos, room };
        let client = Client { progress: progress.clone(), flows, fifos, mode };
        let server = Server { progress: progress.clone(), mode, verify };
        let mut host = Host::new(&host_options, client, server);
        progress.begin();
        host.tell_client(Box::new(Go::Open));
        host.drive(&progress, 600.0);
        assert_eq!(progress.failed.value(), 0, "every connection opened");
        // Past every timer that a connect leaves behind.
        host.pass_idle(60);
        Bulk { host, progress }
    }

    /// The stack's own figures.
    pub fn inspect(&mut self) -> hoststack::Answer {
        self.host.inspect()
    }

    /// Packets that both ends sent so far.
    pub fn packets(&mut self) -> u64 {
        self.host.inspect().workers.iter().map(|worker| worker.tx_packets).sum()
    }

    /// Moves `bytes`, or as many as `limit_seconds` allow, from app to app; an operation is a packet, either way.
    ///
    /// # Panics
    /// When a connection was cut off.
    pub fn run(&mut self, bytes: u64, limit_seconds: f64) -> Work {
        let packets = self.packets();
        let work = self.move_bytes(bytes, limit_seconds);
        Work { operations: self.packets() - packets, ..work }
    }

    /// As [`Bulk::run`], and counts no packets (asking the stack for them allocates).
    ///
    /// # Panics
    /// When a connection was cut off.
    pub fn move_bytes(&mut self, bytes: u64, limit_seconds: f64) -> Work {
        let first = self.progress.bytes.value();
        let meter = Meter::start();
        self.progress.begin();
        self.host.tell_client(Box::new(Go::Send(bytes)));
        self.host.drive(&self.progress, limit_seconds);
        let work = meter.work(0, self.progress.bytes.value() - first);
        assert_eq!(self.progress.failed.value(), 0, "no connection was cut off");
        work
    }
}

struct Client {
    progress: Arc<Progress>,
    flows: usize,
    fifos: SessionOptions,
    mode: BulkMode,
}

impl Application for Client {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ClientWorker {
            progress: self.progress.clone(),
            flows: self.flows,
            fifos: self.fifos,
            mode: self.mode,
            source: pattern(),
            streams: Vec::with_capacity(self.flows),
            opened: 0,
            to_send: 0,
        })
    }
}

/// A pattern whose period does not divide any power of two shows bytes that went astray.
fn pattern() -> Vec<u8> {
    (0..APP_BYTES).map(|index| (index % 251) as u8).collect()
}

struct ClientWorker {
    progress: Arc<Progress>,
    flows: usize,
    fifos: SessionOptions,
    mode: BulkMode,
    source: Vec<u8>,
    /// A session's opaque value is its index here; the bytes it was given so far.
    streams: Vec<(SessionHandle, u64)>,
    opened: usize,
    to_send: u64,
}

/// Connects under way while the connections are opened.
const OPENING_MAX: usize = 256;

impl ClientWorker {
    fn open(&mut self, ctx: &mut Context<'_>) {
        if self.opened == self.flows {
            return;
        }
        let options = ConnectOptions {
            domain: CLIENT,
            // Cannot truncate because the remainder is below a u16's range.
            local_addr: Some(client_address((self.opened % usize::from(ADDRESSES)) as u16)),
            fifos: self.fifos,
            ..ConnectOptions::to(server_address(0))
        };
        self.opened += 1;
        let asked = ctx.connect(options);
        asked.expect("cannot fail because the options are valid and few connects are pending");
    }

    /// Hands bytes over until the fifo is full or the work is done.
    fn send(&mut self, ctx: &mut Context<'_>, index: usize) {
        if self.progress.is_stopping() {
            self.to_send = 0;
        }
        let (session, offset) = &mut self.streams[index];
        while self.to_send > 0 {
            let at = position(*offset);
            // At most APP_BYTES.
            let want = self.to_send.min((APP_BYTES - at) as u64) as usize;
            let count = match self.mode {
                BulkMode::Copies => ctx.write(*session, &self.source[at..at + want]),
                BulkMode::InPlace => {
                    let piece = ctx.reserve(*session, want);
                    let count = piece.len();
                    let head = count.min(8);
                    piece[..head].copy_from_slice(&offset.to_le_bytes()[..head]);
                    ctx.commit(*session, count);
                    count
                }
            };
            if count == 0 {
                return;
            }
            *offset += count as u64;
            self.to_send -= count as u64;
            self.progress.finished.add(count as u64);
        }
    }
}

/// Where in the app's buffer the stream's offset `offset` lies.
fn position(offset: u64) -> usize {
    (offset % APP_BYTES as u64) as usize // below APP_BYTES
}

impl AppWorker for ClientWorker {
    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn Any + Send>) {
        let go = message.downcast::<Go>().expect("cannot fail because the driver sends nothing else");
        match *go {
            Go::Open => (0..self.flows.min(OPENING_MAX)).for_each(|_| self.open(ctx)),
            Go::Send(bytes) => {
                self.to_send = bytes;
                // What the receiver still misses is part of this run's work.
                self.progress.served.add(bytes);
                (0..self.streams.len()).for_each(|index| self.send(ctx, index));
            }
        }
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        _opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        match outcome {
            Ok(session) => {
                ctx.set_opaque(session, self.streams.len() as u64);
                self.streams.push((session, 0));
            }
            Err(_) => self.progress.failed.add(1),
        }
        self.open(ctx);
        if self.streams.len() == self.flows || self.progress.failed.value() > 0 {
            self.progress.finish();
        }
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        // Cannot truncate because it was an index.
        let index = ctx.opaque(session) as usize;
        self.send(ctx, index);
    }

    fn reset(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle, _reason: CloseReason) {
        self.progress.failed.add(1);
        self.progress.finish();
    }
}

struct Server {
    progress: Arc<Progress>,
    mode: BulkMode,
    verify: bool,
}

impl Application for Server {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ServerWorker {
            progress: self.progress.clone(),
            mode: self.mode,
            source: if self.verify { pattern() } else { Vec::new() },
            sink: vec![0; APP_BYTES],
        })
    }
}

struct ServerWorker {
    progress: Arc<Progress>,
    mode: BulkMode,
    /// What to compare with; empty: nothing is compared.
    source: Vec<u8>,
    sink: Vec<u8>,
}

impl AppWorker for ServerWorker {
    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let mut offset = ctx.opaque(session);
        loop {
            let at = position(offset);
            let count = match self.mode {
                BulkMode::Copies => {
                    let count = ctx.read(session, &mut self.sink[at..]);
                    if !self.source.is_empty() {
                        assert_eq!(
                            self.sink[at..at + count],
                            self.source[at..at + count],
                            "bytes went astray"
                        );
                    }
                    count
                }
                BulkMode::InPlace => {
                    let piece = ctx.peek(session);
                    let count = piece.len();
                    std::hint::black_box(piece.first_chunk::<8>());
                    ctx.consume(session, count)
                }
            };
            if count == 0 {
                break;
            }
            offset += count as u64;
            self.progress.bytes.add(count as u64);
        }
        ctx.set_opaque(session, offset);
        let (all, here) = (self.progress.finished.value(), self.progress.bytes.value());
        if here == all && (all == self.progress.served.value() || self.progress.is_stopping()) {
            self.progress.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_as_sent_through_small_and_large_fifos() {
        for (threads, fifo_bytes) in
            [(Threads::None, 1_000), (Threads::None, 64 << 10), (Threads::Own, 1 << 20)]
        {
            let mut ours =
                Bulk::new(&BulkOptions { threads, fifo_bytes, verify: true, ..BulkOptions::default() });
            assert_eq!(ours.run(300_001, 60.0).bytes, 300_001);
            assert_eq!(ours.run(200_000, 60.0).bytes, 200_000);
        }
    }

    #[test]
    fn many_flows_and_work_in_place_move_all_bytes_too() {
        let mut ours = Bulk::new(&BulkOptions {
            flows: 20,
            fifo_bytes: 64 << 10,
            verify: true,
            ..BulkOptions::default()
        });
        assert_eq!(ours.run(3_000_000, 60.0).bytes, 3_000_000);
        let mut ours = Bulk::new(&BulkOptions { mode: BulkMode::InPlace, ..BulkOptions::default() });
        assert_eq!(ours.run(3_000_000, 60.0).bytes, 3_000_000);
    }

    #[test]
    fn full_segments_are_sent_when_the_window_is_large() {
        let mut ours = Bulk::new(&BulkOptions { fifo_bytes: 1 << 20, ..BulkOptions::default() });
        ours.run(1 << 20, 60.0);
        let work = ours.run(1_448_000, 60.0);
        assert!(work.operations <= 1_600, "{} packets both ways for 1000 segments' worth", work.operations);
    }
}
