//! `memory`: what an idle session and a half-open cost, everything counted that resident memory shows.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hoststack_app::{
    Address, AppWorker, Application, ConnectFailure, ConnectId, ConnectOptions, Context, Duration,
    SessionHandle, SessionOptions, WorkerId,
};

use super::host::{BLACK_HOLE, CLIENT, Host, HostOptions, Threads, Via, client_address, server_address};
use super::progress::Progress;
use crate::measure::{MemoryMeter, Meter};
use crate::work::Work;

/// Sessions or half-opens there are before the measurement, so that what the first ones cost is not counted.
const WARM_UP: u64 = 256;
const ADDRESSES: u16 = 16;

/// What to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Established sessions: an operation is one end, so there are two for each connection.
    Sessions,
    /// Connects to an address that never answers.
    HalfOpens,
}

/// Opens `count` connections, or half-opens, and tells by how much resident memory grew.
///
/// # Errors
/// When `/proc/self/statm` cannot be read.
///
/// # Panics
/// When a connection failed.
pub fn memory(held: Held, count: usize) -> io::Result<Work> {
    let progress = Arc::new(Progress::default());
    let host_options = HostOptions {
        via: Via::Tcp,
        threads: Threads::None,
        client_addresses: ADDRESSES,
        server_ports: 4,
        fifos: SessionOptions::default(),
        room: 2 * count + 4096,
    };
    let mut host = Host::new(&host_options, Client { progress: progress.clone() }, Server);
    let mut open = |connections: u64| {
        progress.begin();
        host.tell_client(Box::new(Go { held, connections }));
        host.drive(&progress, 600.0);
        host.pass_idle(0);
        assert_eq!(progress.failed.value(), 0, "every connection opened");
    };
    open(WARM_UP);
    let memory = MemoryMeter::start()?;
    let meter = Meter::start();
    open(count as u64);
    let growth = memory.growth_bytes()?;
    let answer = host.inspect();
    let sessions: usize = answer.workers.iter().map(|worker| worker.sessions).sum();
    let all = count + WARM_UP as usize;
    match held {
        Held::Sessions => assert_eq!(sessions, 2 * all, "every session is held at both ends"),
        Held::HalfOpens => assert_eq!(answer.leaks.half_opens, all, "every half-open is held"),
    }
    let ends = if held == Held::Sessions { 2 } else { 1 };
    Ok(meter.work(ends * count as u64, growth))
}

/// What the client app is told to do.
struct Go {
    held: Held,
    connections: u64,
}

struct Client {
    progress: Arc<Progress>,
}

impl Application for Client {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ClientWorker { progress: self.progress.clone(), to_open: 0, pending: 0, number: 0 })
    }
}

struct ClientWorker {
    progress: Arc<Progress>,
    to_open: u64,
    pending: u64,
    number: u32,
}

/// Connects under way while sessions are opened.
const OPENING_MAX: u64 = 1024;
/// Half-opens begun before the app waits a moment of the stack's time.
const BATCH: u64 = 256;

impl ClientWorker {
    fn connect(
        &mut self,
        ctx: &mut Context<'_>,
        remote: impl Into<Address>,
        local: Option<std::net::IpAddr>,
    ) {
        let options = ConnectOptions {
            domain: CLIENT,
            local_addr: local,
            timeout: Duration::from_secs(3600),
            ..ConnectOptions::to(remote)
        };
        self.to_open -= 1;
        self.number = self.number.wrapping_add(1);
        let asked = ctx.connect(options);
        asked.expect("cannot fail because the options are valid and fewer than 2^20 are pending");
    }

    fn open(&mut self, ctx: &mut Context<'_>) {
        if self.to_open > 0 {
            let number = self.number;
            self.pending += 1;
            // Cannot truncate because both remainders are below a u16's range.
            let local = client_address((number % u32::from(ADDRESSES)) as u16);
            let port = (number / u32::from(ADDRESSES) % 4) as u16;
            self.connect(ctx, server_address(port), Some(local));
        } else if self.pending == 0 {
            self.progress.finish();
        }
    }

    fn half_open(&mut self, ctx: &mut Context<'_>) {
        for _ in 0..self.to_open.min(BATCH) {
            // 50,000 to each port, which is below what a tuple allocator has.
            let port = 1 + (self.number / 50_000) as u16;
            self.connect(ctx, SocketAddr::new(BLACK_HOLE.into(), port), None);
        }
        ctx.set_timer(0, Duration::from_micros(100));
    }
}

impl AppWorker for ClientWorker {
    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn Any + Send>) {
        let go = message.downcast::<Go>().expect("cannot fail because the driver sends nothing else");
        self.to_open = go.connections;
        match go.held {
            Held::Sessions => (0..OPENING_MAX.min(go.connections)).for_each(|_| self.open(ctx)),
            Held::HalfOpens => self.half_open(ctx),
        }
    }

    fn timer(&mut self, ctx: &mut Context<'_>, _token: u64) {
        if self.to_open > 0 {
            self.half_open(ctx);
        } else {
            self.progress.finish();
        }
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        _opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        self.progress.failed.add(u64::from(outcome.is_err()));
        self.pending = self.pending.saturating_sub(1);
        self.open(ctx);
    }
}

struct Server;

impl Application for Server {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(Quiet)
    }
}

/// Accepts and does nothing.
struct Quiet;

impl AppWorker for Quiet {}
