//! `conn`: open a connection, both apps are told, close it; many in flight.
//!
//! The client closes as soon as it is told `connected`; the server closes on `peer_closed`. An operation ends when
//! both apps were told `closed`. The client's ends go through TIME-WAIT, and [`Conn::run`] pays for their expiry too
//! where it steps the stack itself: time jumps past them at the end of the run, inside the measurement.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use hoststack_app::{
    Address, AppWorker, Application, CloseReason, ConnectFailure, ConnectId, ConnectOptions, Context,
    ListenError, ListenerId, MainContext, SessionHandle, SessionOptions, SocketOptions, WorkerId,
};

use super::host::{CLIENT, Host, HostOptions, Threads, Via, client_address, server_address};
use super::progress::Progress;
use crate::measure::Meter;
use crate::peer::epoll::loopback;
use crate::work::Work;

/// Past every TIME-WAIT (60 s).
const TIME_WAIT_SECONDS: u64 = 61;
/// The server's ports: with them and the client's addresses no tuple is used twice within a TIME-WAIT.
const PORTS: u16 = 16;
const ADDRESSES: u16 = 16;

/// What to set up.
#[derive(Clone, Copy, Debug)]
pub struct ConnOptions {
    /// Over which transport.
    pub via: Via,
    /// Which threads the stack runs on.
    pub threads: Threads,
    /// Connections opened before the first is closed.
    pub in_flight: usize,
    /// Idle established sessions held beside, opened outbound.
    pub idle: usize,
    /// The stack's limit of sessions, and of TIME-WAIT records: at least two for each idle one and what a run opens.
    pub room: usize,
}

impl Default for ConnOptions {
    fn default() -> Self {
        ConnOptions { via: Via::Tcp, threads: Threads::None, in_flight: 64, idle: 0, room: 1 << 21 }
    }
}

/// The workload, set up; [`Conn::run`] may be called any number of times.
pub struct Conn {
    host: Host,
    progress: Arc<Progress>,
    /// Where the server listens; over TCP on all its ports.
    at: Address,
    via: Via,
    threads: Threads,
    in_flight: usize,
}

/// What the client app is told to do.
struct Go {
    at: Address,
    connections: u64,
    in_flight: u64,
    hold: bool,
}

impl Conn {
    /// Builds the stack and opens the idle sessions.
    ///
    /// # Panics
    /// When an idle session could not be opened: `room` is too small.
    pub fn new(options: &ConnOptions) -> Self {
        let progress = Arc::new(Progress::default());
        let host_options = HostOptions {
            via: options.via,
            threads: options.threads,
            client_addresses: ADDRESSES,
            server_ports: PORTS,
            fifos: SessionOptions::default(),
            room: options.room,
        };
        let client = Client { progress: progress.clone() };
        let at = Arc::new(OnceLock::new());
        let server = Server { progress: progress.clone(), at: at.clone() };
        let mut host = Host::new(&host_options, client, server);
        host.finish(|| at.get().is_some());
        let mut conn = Conn {
            host,
            progress,
            at: at.get().cloned().expect("cannot fail because it was waited for"),
            via: options.via,
            threads: options.threads,
            in_flight: options.in_flight.max(1),
        };
        if options.idle > 0 {
            conn.go(options.idle as u64, 1024, true, 600.0);
            conn.host.pass_idle(1);
            assert_eq!(conn.sessions(), 2 * options.idle, "every idle session is held at both ends");
        }
        conn
    }

    /// Sessions that the stack holds now, both ends.
    pub fn sessions(&mut self) -> usize {
        self.host.inspect().workers.iter().map(|worker| worker.sessions).sum()
    }

    /// Packets that both ends sent so far.
    pub fn packets(&mut self) -> u64 {
        self.host.inspect().workers.iter().map(|worker| worker.tx_packets).sum()
    }

    /// Opens and closes `connections`, or as many as `limit_seconds` allow; an operation is one of them, at both ends.
    ///
    /// # Panics
    /// When a connection failed.
    pub fn run(&mut self, connections: u64, limit_seconds: f64) -> Work {
        let before = (self.progress.finished.value(), self.progress.served.value());
        let meter = Meter::start();
        self.go(connections, self.in_flight as u64, false, limit_seconds);
        self.host.pass_idle(TIME_WAIT_SECONDS);
        if self.via != Via::Tcp {
            let (progress, finished) = (&self.progress, self.progress.finished.value());
            self.host.finish(|| progress.served.value() - before.1 >= finished - before.0);
        }
        let finished = self.progress.finished.value() - before.0;
        let work = meter.work(finished, 0);
        assert_eq!(self.progress.failed.value(), 0, "every connection opened and closed in order");
        if self.threads != Threads::Own {
            assert_eq!(self.progress.served.value() - before.1, finished, "both ends saw every connection");
        }
        work
    }

    fn go(&mut self, connections: u64, in_flight: u64, hold: bool, limit_seconds: f64) {
        let go = Go { at: self.at.clone(), connections, in_flight, hold };
        self.progress.begin();
        self.host.tell_client(Box::new(go));
        self.host.drive(&self.progress, limit_seconds);
    }
}

struct Client {
    progress: Arc<Progress>,
}

impl Application for Client {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ClientWorker {
            progress: self.progress.clone(),
            at: None,
            to_open: 0,
            in_flight: 0,
            hold: false,
            next: 0,
        })
    }
}

/// No tuple comes again within a TIME-WAIT.
fn to(at: &Address, number: u32) -> ConnectOptions {
    match at {
        Address::Tcp(_) => {
            // Cannot truncate because both remainders are below a u16's range.
            let address = client_address((number % u32::from(ADDRESSES)) as u16);
            let port = (number / u32::from(ADDRESSES) % u32::from(PORTS)) as u16;
            ConnectOptions {
                domain: CLIENT,
                local_addr: Some(address),
                ..ConnectOptions::to(server_address(port))
            }
        }
        Address::KernelTcp(at) => ConnectOptions::to(Address::KernelTcp(loopback(number, at.port).into())),
        name => ConnectOptions::to(name.clone()),
    }
}

struct ClientWorker {
    progress: Arc<Progress>,
    /// Where to; not before it is told to go.
    at: Option<Address>,
    to_open: u64,
    in_flight: u64,
    hold: bool,
    next: u32,
}

impl ClientWorker {
    fn open(&mut self, ctx: &mut Context<'_>) {
        if self.progress.is_stopping() {
            self.to_open = 0;
        }
        if self.to_open == 0 {
            if self.in_flight == 0 {
                self.progress.finish();
            }
            return;
        }
        let Some(at) = &self.at else { return };
        self.to_open -= 1;
        self.in_flight += 1;
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let options = ConnectOptions { socket: SocketOptions::NODELAY, ..to(at, number) };
        let asked = ctx.connect(options);
        asked.expect("cannot fail because the options are valid and fewer than 2^20 are pending");
    }

    fn ended(&mut self, ctx: &mut Context<'_>) {
        self.in_flight -= 1;
        self.open(ctx);
    }
}

impl AppWorker for ClientWorker {
    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn Any + Send>) {
        let go = message.downcast::<Go>().expect("cannot fail because the driver sends nothing else");
        (self.to_open, self.hold, self.at) = (go.connections, go.hold, Some(go.at));
        for _ in 0..go.in_flight.min(go.connections).max(1) {
            self.open(ctx);
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
            Ok(_) if self.hold => self.ended(ctx),
            Ok(session) => ctx.close(session),
            Err(_) => {
                self.progress.failed.add(1);
                self.ended(ctx);
            }
        }
    }

    fn closed(&mut self, ctx: &mut Context<'_>, _session: SessionHandle, _opaque: u64, reason: CloseReason) {
        if reason.is_graceful() {
            self.progress.finished.add(1);
        } else {
            self.progress.failed.add(1);
        }
        self.ended(ctx);
    }
}

struct Server {
    progress: Arc<Progress>,
    at: Arc<OnceLock<Address>>,
}

impl Application for Server {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ServerWorker { progress: self.progress.clone() })
    }

    fn listening(
        &mut self,
        _ctx: &mut MainContext<'_>,
        _opaque: u64,
        result: Result<(ListenerId, Address), ListenError>,
    ) {
        let (_, at) = result.expect("cannot fail because nobody else has that address");
        // The first port is as good as the others.
        let _ = self.at.set(at);
    }
}

struct ServerWorker {
    progress: Arc<Progress>,
}

impl AppWorker for ServerWorker {
    fn closed(
        &mut self,
        _ctx: &mut Context<'_>,
        _session: SessionHandle,
        _opaque: u64,
        _reason: CloseReason,
    ) {
        self.progress.served.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_asked_for_is_opened_and_closed_and_again_in_a_second_run() {
        for threads in [Threads::None, Threads::Own] {
            let mut ours =
                Conn::new(&ConnOptions { threads, in_flight: 7, room: 1 << 12, ..ConnOptions::default() });
            assert_eq!(ours.run(100, 60.0).operations, 100);
            assert_eq!(ours.run(3, 60.0).operations, 3);
        }
    }

    #[test]
    fn every_transport_opens_and_closes_what_it_is_asked_for() {
        for via in [Via::KernelTcp, Via::KernelUnix, Via::Local] {
            for threads in [Threads::None, Threads::Own] {
                let options =
                    ConnOptions { via, threads, in_flight: 7, room: 1 << 12, ..ConnOptions::default() };
                let mut ours = Conn::new(&options);
                assert_eq!(ours.run(100, 60.0).operations, 100, "{via:?} {threads:?}");
                assert_eq!(ours.run(3, 60.0).operations, 3, "{via:?} {threads:?}");
            }
        }
    }

    #[test]
    fn a_connection_costs_seven_packets_at_most() {
        let mut ours = Conn::new(&ConnOptions { in_flight: 1, room: 1 << 12, ..ConnOptions::default() });
        let before = ours.packets();
        ours.run(10, 60.0);
        // SYN, SYN-ACK, ACK with FIN (or apart), ACK with FIN (or apart), ACK.
        let packets = ours.packets() - before;
        assert!((50..=70).contains(&packets), "{packets}");
    }

    #[test]
    fn idle_sessions_stay_beside_the_busy_ones() {
        let mut ours =
            Conn::new(&ConnOptions { in_flight: 4, idle: 300, room: 1 << 12, ..ConnOptions::default() });
        assert_eq!(ours.sessions(), 600);
        assert_eq!(ours.run(50, 60.0).operations, 50);
        assert_eq!(ours.sessions(), 600);
    }

    #[test]
    fn no_time_at_all_ends_early() {
        let mut ours = Conn::new(&ConnOptions { room: 1 << 12, ..ConnOptions::default() });
        assert!(ours.run(1_000_000, 0.0).operations <= 64);
    }
}
