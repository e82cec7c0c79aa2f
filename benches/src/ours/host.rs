//! A stack with a client and a server app, joined by the in-memory wire; and what makes it go.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use hoststack::net::{Cidr, MemoryWireConfig, memory_wire};
use hoststack::{Answer, Builder, InterfaceSpec, Query, SingleThreaded, Stack, StackConfig};
use hoststack_app::{
    Address, AppWorkerId, Application, AttachOptions, DomainId, Duration, Endpoint, Instant, ListenOptions,
    SessionOptions, SocketOptions, WorkerId,
};

use super::progress::Progress;
use crate::measure::Clock;

/// The client's routing domain.
pub(super) const CLIENT: DomainId = DomainId(0);
/// The server's.
const SERVER: DomainId = DomainId(1);
/// Where packets are lost.
const NOWHERE: DomainId = DomainId(2);
/// An address on a link of the client's from which nothing ever comes back.
pub(super) const BLACK_HOLE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Connections that the host keeps for a listener until they are accepted.
const KERNEL_BACKLOG: u32 = 4096;
/// The longest wait for the host at a time: the time limit is looked at between two.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// A step on virtual time, microseconds.
pub const STEP_US: u64 = 100;
/// Steps between two looks at the wall clock for the time limit.
const STEPS_PER_LOOK: u32 = 256;
/// Jumps in a row after which nothing will ever happen again: as many as there can be timers in a round.
const JUMPS_MAX: u32 = 10_000;

/// Which threads the stack runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// None of its own: the caller's steps everything (`Stack::single_threaded`).
    None,
    /// As `None`, and a step takes [`STEP_US`] of the stack's time whatever the clock says: every run is the same.
    Virtual,
    /// Main and one worker, each its own.
    Own,
}

/// The transport between the client and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The stack's own TCP, through the in-memory wire.
    Tcp,
    /// TCP sockets of the host, over its loopback interface.
    KernelTcp,
    /// Unix sockets of the host.
    KernelUnix,
    /// Fifo to fifo in the stack.
    Local,
}

impl Via {
    /// Whether the host's sockets carry it: then the host's time is all there is.
    pub const fn is_kernel(self) -> bool {
        matches!(self, Via::KernelTcp | Via::KernelUnix)
    }

    /// Where the server listens: over the host's TCP at a port that the host chooses.
    fn listen_address(self) -> Address {
        /// Servers of this process so far, each with a name of its own.
        static SERVERS: AtomicU32 = AtomicU32::new(0);
        let name = |scheme: &str| {
            let (process, number) = (std::process::id(), SERVERS.fetch_add(1, Relaxed));
            let text = format!("{scheme}hoststack-bench-{process}-{number}");
            text.parse().expect("cannot fail because the name is short and has no zero byte")
        };
        match self {
            Via::Tcp => server_address(0).into(),
            Via::KernelTcp => Address::KernelTcp(Endpoint::new(Ipv4Addr::UNSPECIFIED.into(), 0)),
            Via::KernelUnix => name("kernel+unix://@"),
            Via::Local => name("local://"),
        }
    }
}

/// What to build.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostOptions {
    pub(super) via: Via,
    pub(super) threads: Threads,
    /// Addresses of the client's interface: connections go out from them in turn.
    pub(super) client_addresses: u16,
    /// Ports that the server listens on.
    pub(super) server_ports: u16,
    /// Fifos of both ends.
    pub(super) fifos: SessionOptions,
    /// Sessions, connections and TIME-WAIT records for which there is room.
    pub(super) room: usize,
}

/// The server's address.
pub(super) fn server_address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)), FIRST_PORT + port)
}

/// The first of the server's ports.
const FIRST_PORT: u16 = 7000;

/// A client's address, by number.
pub(super) fn client_address(number: u16) -> IpAddr {
    let [high, low] = (number + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}

/// The stack and its two apps.
pub(super) struct Host {
    kind: Kind,
    client: AppWorkerId,
}

enum Kind {
    Single(Box<Single>),
    Threaded(Stack),
}

/// Time is real, except that it jumps when nothing can happen before a timer goes off: as the peer's does.
struct Single {
    stack: SingleThreaded,
    /// The host has a part in what happens: time does not jump, and having nothing to do is to wait for the host.
    waits: bool,
    /// `None`: virtual time.
    clock: Option<Clock>,
    /// Added to the clock, or the virtual time.
    skipped_us: u64,
}

impl Host {
    /// Builds the stack and attaches both apps.
    pub(super) fn new(
        options: &HostOptions,
        client: impl Application + 'static,
        server: impl Application + 'static,
    ) -> Host {
        let mut config = StackConfig { workers: 1, seed: Some(1), ..StackConfig::default() };
        config.tcp.connections_max = options.room;
        config.tcp.time_wait_max = options.room;
        config.sessions.sessions = options.room;
        let mut builder = Stack::builder().config(config);
        if options.via == Via::Tcp {
            builder = wired(options, builder);
        }
        let listens: Vec<ListenOptions> = match options.via {
            Via::Tcp => (0..options.server_ports)
                .map(|port| ListenOptions { domain: SERVER, ..ListenOptions::on(server_address(port)) })
                .collect(),
            via => vec![ListenOptions::on(via.listen_address())],
        };
        let listens = listens.into_iter().map(|listen| ListenOptions {
            backlog: if options.via.is_kernel() { KERNEL_BACKLOG } else { 1 << 20 },
            fifos: options.fifos,
            socket: SocketOptions::NODELAY,
            ..listen
        });
        const WHY: &str = "cannot fail because the stack is new and its options are valid";
        match options.threads {
            Threads::None | Threads::Virtual => {
                let mut stack = Stack::single_threaded(builder).expect(WHY);
                let server = stack.attach(server, AttachOptions::named("server")).expect(WHY);
                for listen in listens {
                    stack.listen(server.app_workers[0], listen).expect(WHY);
                }
                let client = stack.attach(client, AttachOptions::named("client")).expect(WHY).app_workers[0];
                let clock = (options.threads == Threads::None).then(Clock::start);
                let waits = options.via.is_kernel();
                let mut single = Box::new(Single { stack, waits, clock, skipped_us: 0 });
                single.skipped_us = single.stack.now().as_micros();
                Host { kind: Kind::Single(single), client }
            }
            Threads::Own => {
                let stack = builder.start().expect(WHY);
                let handle = stack.handle();
                let server = handle.attach(server, AttachOptions::named("server")).expect(WHY);
                for listen in listens {
                    handle.listen(server.app_workers[0], listen).expect(WHY);
                }
                let client = handle.attach(client, AttachOptions::named("client")).expect(WHY).app_workers[0];
                Host { kind: Kind::Threaded(stack), client }
            }
        }
    }

    /// Tells the client app what to do.
    pub(super) fn tell_client(&mut self, what: Box<dyn Any + Send>) {
        let handle = match &self.kind {
            Kind::Single(single) => single.stack.handle(),
            Kind::Threaded(stack) => stack.handle(),
        };
        handle.notify(self.client, WorkerId(0), what).expect("cannot fail because the stack runs");
    }

    /// Goes on until the apps say that they are done. After `limit_seconds` they are told to begin nothing more.
    pub(super) fn drive(&mut self, progress: &Progress, limit_seconds: f64) {
        match &mut self.kind {
            Kind::Single(single) => single.drive(progress, limit_seconds),
            Kind::Threaded(_) => {
                if !progress.wait(limit_seconds) {
                    progress.stop.store(true, std::sync::atomic::Ordering::Relaxed);
                    assert!(
                        progress.wait(60.0),
                        "the apps wait for what cannot come: their workload is at fault"
                    );
                }
            }
        }
    }

    /// Lets `seconds` of the stack's time pass with nothing to do: by a jump, or (threads) not at all.
    pub(super) fn pass_idle(&mut self, seconds: u64) {
        if let Kind::Single(single) = &mut self.kind
            && !single.waits
        {
            single.settle();
            single.skipped_us += seconds * 1_000_000;
            single.settle();
        }
    }

    /// Goes on until `done` says so: for what the apps do not tell of.
    ///
    /// # Panics
    /// When it does not within ten seconds of the host's time, or what is stepped here has nothing to do before.
    pub(super) fn finish(&mut self, done: impl Fn() -> bool) {
        let clock = Clock::start();
        while !done() {
            assert!(clock.seconds() < 10.0, "the apps wait for what cannot come: their workload is at fault");
            match &mut self.kind {
                Kind::Single(single) if single.waits => single.stack.idle_wait(WAIT_MAX),
                Kind::Single(single) => single.settle(),
                Kind::Threaded(_) => std::thread::yield_now(),
            }
        }
    }

    /// The stack's own figures.
    pub(super) fn inspect(&mut self) -> Answer {
        let answer = match &mut self.kind {
            Kind::Single(single) => single.stack.inspect(Query::Summary),
            Kind::Threaded(stack) => stack.handle().inspect(Query::Summary),
        };
        answer.expect("cannot fail because the stack runs")
    }

    /// The client's app worker.
    pub(super) fn client(&self) -> AppWorkerId {
        self.client
    }

    /// A handle of the running stack.
    pub(super) fn handle(&self) -> hoststack::StackHandle {
        match &self.kind {
            Kind::Single(single) => single.stack.handle(),
            Kind::Threaded(stack) => stack.handle(),
        }
    }
}

/// Two interfaces of the stack in two routing domains, joined by the wire, and one that leads nowhere.
fn wired(options: &HostOptions, builder: Builder) -> Builder {
    let (to_server, to_client) = memory_wire(MemoryWireConfig::default());
    let prefix = |address: IpAddr, bits: u8| -> Cidr {
        format!("{address}/{bits}").parse().expect("cannot fail because both parts are valid")
    };
    let mut near = InterfaceSpec::new(to_server)
        .domain(CLIENT)
        .route(prefix(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 0)), 16), None);
    for number in 0..options.client_addresses {
        near = near.address(prefix(client_address(number), 16));
    }
    let far = InterfaceSpec::new(to_client)
        .domain(SERVER)
        .address(prefix(server_address(0).ip(), 16))
        .route(prefix(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 16), None);
    // A link whose other end has no address, so that whatever arrives there is dropped.
    let names = ["nowhere0".to_owned(), "nowhere1".to_owned()];
    let (to_nowhere, nowhere) = memory_wire(MemoryWireConfig { names, ..MemoryWireConfig::default() });
    let lost = InterfaceSpec::new(to_nowhere)
        .domain(CLIENT)
        .address(prefix(IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2)), 24));
    let hole = InterfaceSpec::new(nowhere).domain(NOWHERE);
    builder.interface(near).interface(far).interface(lost).interface(hole)
}

impl Single {
    fn step(&mut self) -> hoststack::Step {
        if self.waits {
            return self.stack.step();
        }
        let now = match &self.clock {
            Some(clock) => clock.micros() + self.skipped_us,
            None => {
                self.skipped_us += STEP_US;
                self.skipped_us
            }
        };
        let now = Instant::from_micros(now);
        self.stack.use_virtual_time_from(now);
        self.stack.step()
    }

    fn drive(&mut self, progress: &Progress, limit_seconds: f64) {
        let limit = Clock::start();
        let (mut looks, mut jumps) = (0u32, 0);
        while !progress.is_done() {
            looks += 1;
            if looks % STEPS_PER_LOOK == 1 && limit.seconds() >= limit_seconds {
                progress.stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            if self.step().worked {
                jumps = 0;
                continue;
            }
            if self.waits {
                self.stack.idle_wait(WAIT_MAX);
                continue;
            }
            // Once more: the first step without work may have left a message for main.
            let step = self.step();
            if step.worked || progress.is_done() {
                continue;
            }
            jumps += 1;
            assert!(jumps < JUMPS_MAX, "the apps wait for what cannot come: their workload is at fault");
            let now = self.stack.now();
            let deadline = step.next_deadline.unwrap_or(now + Duration::from_millis(1));
            self.skipped_us += deadline.as_micros().saturating_sub(now.as_micros());
        }
    }

    /// Steps until there is nothing to do at the present time.
    fn settle(&mut self) {
        let mut idle = 0;
        while idle < 3 {
            idle = if self.step().worked { 0 } else { idle + 1 };
        }
    }
}
