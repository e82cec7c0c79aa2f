//! `rr`: small requests answered by equally small responses, one outstanding on each of many connections.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use hoststack_app::{
    AppWorker, Application, ConnectFailure, ConnectId, ConnectOptions, Context, SessionHandle,
    SessionOptions, SocketOptions, WorkerId,
};

use super::host::{CLIENT, Host, HostOptions, Threads, Via, client_address, server_address};
use super::progress::Progress;
use crate::histogram::LatencyHistogram;
use crate::measure::{Clock, Meter};
use crate::work::Work;

/// The longest message.
const MESSAGE_MAX: usize = 1024;
/// Addresses of the client, which its connections go out from in turn.
const ADDRESSES: u16 = 32;

/// What to set up.
#[derive(Clone, Copy, Debug)]
pub struct RrOptions {
    /// Which threads the stack runs on.
    pub threads: Threads,
    /// Connections, each with one request outstanding.
    pub connections: usize,
    /// Bytes of a request and of its response, 8 to 1024.
    pub message_bytes: usize,
    /// Time every exchange: the clock is read twice more for each.
    pub timed: bool,
}

impl Default for RrOptions {
    fn default() -> Self {
        RrOptions { threads: Threads::None, connections: 1, message_bytes: 64, timed: false }
    }
}

/// The workload, set up; [`Rr::run`] may be called any number of times.
pub struct Rr {
    host: Host,
    progress: Arc<Progress>,
    latency: Arc<Mutex<LatencyHistogram>>,
    connections: usize,
    message_bytes: usize,
}

/// What the client app is told to do.
enum Go {
    Open,
    Exchange(u64),
}

impl Rr {
    /// Builds the stack and opens the connections.
    ///
    /// # Panics
    /// When `message_bytes` is not within 8..=1024, or a connection failed.
    pub fn new(options: &RrOptions) -> Self {
        let RrOptions { threads, connections, message_bytes, timed } = *options;
        assert!((8..=MESSAGE_MAX).contains(&message_bytes), "a message has 8 to {MESSAGE_MAX} bytes");
        let connections = connections.max(1);
        let (progress, latency) = (Arc::new(Progress::default()), Arc::default());
        let host_options = HostOptions {
            via: Via::Tcp,
            threads,
            client_addresses: ADDRESSES,
            server_ports: 1,
            fifos: SessionOptions::default(),
            room: 2 * connections + 1024,
        };
        let client = Client {
            progress: progress.clone(),
            latency: Arc::clone(&latency),
            connections,
            message_bytes,
            clock: timed.then(Clock::start),
        };
        let mut host = Host::new(&host_options, client, Server { message_bytes });
        progress.begin();
        host.tell_client(Box::new(Go::Open));
        host.drive(&progress, 600.0);
        assert_eq!(progress.failed.value(), 0, "every connection opened");
        // Past every timer that a connect leaves behind.
        host.pass_idle(60);
        Rr { host, progress, latency, connections, message_bytes }
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Exchanges `exchanges` requests and responses, or as many as `limit_seconds` allow; an operation is one request
    /// answered, bytes are the responses'.
    ///
    /// # Panics
    /// When a connection was cut off.
    pub fn run(&mut self, exchanges: u64, limit_seconds: f64) -> Work {
        let before = self.progress.finished.value();
        let meter = Meter::start();
        self.progress.begin();
        self.host.tell_client(Box::new(Go::Exchange(exchanges)));
        self.host.drive(&self.progress, limit_seconds);
        let answered = self.progress.finished.value() - before;
        let work = meter.work(answered, answered * self.message_bytes as u64);
        assert_eq!(self.progress.failed.value(), 0, "no connection was cut off");
        work
    }

    /// What was timed since the last call, if it was asked for.
    pub fn take_latency(&mut self) -> LatencyHistogram {
        std::mem::take(&mut *self.latency.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Client {
    progress: Arc<Progress>,
    latency: Arc<Mutex<LatencyHistogram>>,
    connections: usize,
    message_bytes: usize,
    clock: Option<Clock>,
}

impl Application for Client {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ClientWorker {
            progress: self.progress.clone(),
            latency: self.latency.clone(),
            histogram: LatencyHistogram::new(),
            connections: self.connections,
            message_bytes: self.message_bytes,
            clock: self.clock,
            sessions: Vec::with_capacity(self.connections),
            opened: 0,
            to_send: 0,
            in_flight: 0,
            next_number: 1,
        })
    }
}

/// A connection and its outstanding request.
struct Conversation {
    session: SessionHandle,
    number: u64,
    sent_ns: u64,
}

struct ClientWorker {
    progress: Arc<Progress>,
    latency: Arc<Mutex<LatencyHistogram>>,
    histogram: LatencyHistogram,
    connections: usize,
    message_bytes: usize,
    clock: Option<Clock>,
    /// A session's opaque value is its index here.
    sessions: Vec<Conversation>,
    opened: usize,
    to_send: u64,
    in_flight: u64,
    next_number: u64,
}

/// Connects under way while the connections are opened.
const OPENING_MAX: usize = 1024;

impl ClientWorker {
    fn open(&mut self, ctx: &mut Context<'_>) {
        if self.opened == self.connections {
            return;
        }
        let options = ConnectOptions {
            domain: CLIENT,
            // Cannot truncate because the remainder is below a u16's range.
            local_addr: Some(client_address((self.opened % usize::from(ADDRESSES)) as u16)),
            socket: SocketOptions::NODELAY,
            ..ConnectOptions::to(server_address(0))
        };
        self.opened += 1;
        let asked = ctx.connect(options);
        asked.expect("cannot fail because the options are valid and few connects are pending");
    }

    fn send(&mut self, ctx: &mut Context<'_>, index: usize) {
        if self.to_send == 0 || self.progress.is_stopping() {
            self.to_send = 0;
            if self.in_flight == 0 {
                if self.clock.is_some() {
                    let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
                    latency.merge(&std::mem::take(&mut self.histogram));
                }
                self.progress.finish();
            }
            return;
        }
        self.to_send -= 1;
        self.in_flight += 1;
        let number = self.next_number;
        self.next_number += 1;
        let mut message = [0x5a; MESSAGE_MAX];
        message[..8].copy_from_slice(&number.to_le_bytes());
        let sent_ns = self.clock.as_ref().map_or(0, Clock::nanos);
        let conversation = &mut self.sessions[index];
        (conversation.number, conversation.sent_ns) = (number, sent_ns);
        let sent = ctx.write(conversation.session, &message[..self.message_bytes]);
        assert_eq!(sent, self.message_bytes, "an idle connection has room for a request");
    }
}

impl AppWorker for ClientWorker {
    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn Any + Send>) {
        let go = message.downcast::<Go>().expect("cannot fail because the driver sends nothing else");
        match *go {
            Go::Open => (0..self.connections.min(OPENING_MAX)).for_each(|_| self.open(ctx)),
            Go::Exchange(exchanges) => {
                self.to_send = exchanges;
                // The first always goes out, so that there is one to end the run.
                (0..self.sessions.len()).for_each(|index| {
                    if self.to_send > 0 {
                        self.send(ctx, index);
                    }
                });
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
                ctx.set_opaque(session, self.sessions.len() as u64);
                self.sessions.push(Conversation { session, number: 0, sent_ns: 0 });
            }
            Err(_) => {
                self.progress.failed.add(1);
                self.progress.finish();
            }
        }
        self.open(ctx);
        if self.sessions.len() == self.connections {
            self.progress.finish();
        }
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        if ctx.rx_len(session) < self.message_bytes {
            return;
        }
        // Cannot truncate because it was an index.
        let index = ctx.opaque(session) as usize;
        let mut message = [0; MESSAGE_MAX];
        let received = ctx.read(session, &mut message[..self.message_bytes]);
        assert_eq!(received, self.message_bytes, "a whole response was waiting");
        let conversation = &self.sessions[index];
        assert_eq!(
            message[..8],
            conversation.number.to_le_bytes(),
            "the response is to the request that was sent"
        );
        if let Some(clock) = &self.clock {
            self.histogram.record(clock.nanos() - conversation.sent_ns);
        }
        self.progress.finished.add(1);
        self.in_flight -= 1;
        self.send(ctx, index);
    }

    fn reset(
        &mut self,
        _ctx: &mut Context<'_>,
        _session: SessionHandle,
        _reason: hoststack_app::CloseReason,
    ) {
        self.progress.failed.add(1);
        self.progress.finish();
    }
}

struct Server {
    message_bytes: usize,
}

impl Application for Server {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ServerWorker { message_bytes: self.message_bytes })
    }
}

struct ServerWorker {
    message_bytes: usize,
}

impl AppWorker for ServerWorker {
    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        if ctx.rx_len(session) < self.message_bytes {
            return;
        }
        let mut message = [0; MESSAGE_MAX];
        let received = ctx.read(session, &mut message[..self.message_bytes]);
        assert_eq!(received, self.message_bytes, "a whole request was waiting");
        let sent = ctx.write(session, &message[..self.message_bytes]);
        assert_eq!(sent, self.message_bytes, "an idle connection has room for a response");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_answered_on_one_and_on_many_connections() {
        for (threads, connections) in [(Threads::None, 1), (Threads::None, 50), (Threads::Own, 5)] {
            let mut ours = Rr::new(&RrOptions { threads, connections, ..RrOptions::default() });
            assert_eq!(ours.connections(), connections);
            let work = ours.run(103, 60.0);
            assert_eq!((work.operations, work.bytes), (103, 103 * 64));
            assert_eq!(ours.run(2, 60.0).operations, 2, "fewer requests than connections");
        }
    }

    #[test]
    fn every_exchange_is_timed_when_asked() {
        let mut ours = Rr::new(&RrOptions { timed: true, ..RrOptions::default() });
        ours.run(50, 60.0);
        let latency = ours.take_latency();
        assert_eq!(latency.count(), 50);
        assert!(latency.p50() > 0 && latency.p50() <= latency.p99() && latency.p99() <= latency.max());
        assert_eq!(ours.take_latency().count(), 0);
    }

    #[test]
    fn no_time_at_all_answers_only_what_was_sent_at_once() {
        let mut ours = Rr::new(&RrOptions { connections: 3, ..RrOptions::default() });
        assert!(ours.run(1_000_000, 0.0).operations <= 3);
        assert_eq!(ours.run(10, 60.0).operations, 10);
    }
}
