//! What a stack is made of: limits and interfaces, each with a default and a reason.

use std::fmt;
use std::net::IpAddr;

use hoststack_net::{Cidr, Device};
use hoststack_session::SessionLimits;
use hoststack_tcp::TcpConfig;
use hoststack_transport::{DomainId, Duration};

/// Most workers: a session handle has 8 bits for its worker.
pub const WORKERS_MAX: usize = 255;

/// Limits and bursts of a stack.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// Worker threads, 1 to [`WORKERS_MAX`]. Default 1.
    pub workers: usize,
    /// TCP's limits and timers.
    pub tcp: TcpConfig,
    /// Each worker's limits of sessions and fifo memory.
    pub sessions: SessionLimits,
    /// Most applications. Default 1024.
    pub apps_max: usize,
    /// Most app workers, over all applications. Default 4096.
    pub app_workers_max: usize,
    /// Most listeners. Default 65536.
    pub listeners_max: usize,
    /// Most connects made through stack handles that have no outcome. Default 2^20.
    pub pending_connects_max: usize,
    /// Most packets taken from one device queue in a step: bounds a step's length. Default 256.
    pub rx_burst_max: usize,
    /// Most segments sent for one session in a step: fairness between sessions. Default 64.
    pub tx_burst_max: usize,
    /// Most messages batches under way between two threads before they wait in the sender's outbox. Default 64.
    pub channel_batches: usize,
    /// Most packets that wait for a segment's half-open to be handed over, per worker. Default 4096.
    pub parked_max: usize,
    /// Most state changes that each thread remembers for [`Query::Events`](crate::Query::Events), 48 bytes each. Default
    /// 8192; 0 remembers none, and there may be 65536 at most.
    pub events_max: usize,
    /// A line of the log for each session at its end and each connect that failed: a `tracing` event, target
    /// `hoststack::session`, level info. It is written by the worker, so what takes the events must not block. Default no.
    pub session_log: bool,
    /// Other bounds of a step.
    pub bursts: Bursts,
    /// How long a thread that finds nothing looks again before it sleeps. Default 50 us: less than it costs to wake.
    pub spin: Duration,
    /// Whether workers and main are pinned to cores when there are enough. Default true.
    pub pin: bool,
    /// Extra time after a detach's linger before workers that have not answered are named as stuck. Default 5 s.
    pub detach_grace: Duration,
    /// The seed of all chance; `None` (default) takes it from the operating system.
    pub seed: Option<u64>,
}

impl Default for StackConfig {
    fn default() -> StackConfig {
        StackConfig {
            workers: 1,
            tcp: TcpConfig::default(),
            sessions: SessionLimits::default(),
            apps_max: 1024,
            app_workers_max: 4096,
            listeners_max: 1 << 16,
            pending_connects_max: 1 << 20,
            rx_burst_max: 256,
            tx_burst_max: 64,
            channel_batches: 64,
            parked_max: 4096,
            events_max: 8192,
            session_log: false,
            bursts: Bursts::default(),
            spin: Duration::from_micros(50),
            pin: true,
            detach_grace: Duration::from_secs(5),
            seed: None,
        }
    }
}

/// How much of each thing a step does at most, so that none keeps the others waiting; the rest waits for the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bursts {
    /// Commands of main that a worker works off. An outcome counts for 32: it lets a flow go, and costs a callback and a
    /// report besides. Default 1024.
    pub commands: usize,
    /// Callbacks of one kind (outcomes, messages, sessions) on a worker. Default 1024: some hundred microseconds.
    pub callbacks: usize,
    /// Reports of one worker that main takes. Default 2048.
    pub reports: usize,
    /// Requests of stack handles that main takes. Default 1024.
    pub requests: usize,
    /// Connects that a detach settles on main. Default 256.
    pub settled: usize,
    /// Connects that a detach has settled and that were not told yet: other apps' commands wait behind them. Default 512.
    pub settling: usize,
    /// Slots of the session pool that a detach looks at on a worker: a cache miss or two each. Default 512.
    pub detach_slots: u32,
    /// Sessions that a detach ends on a worker. Each sends a segment or two and is answered by the peer: ended faster than
    /// a step's receive burst takes the answers in, they would fill rings and schedules that others' packets wait in.
    /// Default 16.
    pub detach_ended: usize,
    /// Slots of the pools that the answer to a question looks at. Default 512.
    pub inspect_slots: u32,
}

impl Default for Bursts {
    fn default() -> Bursts {
        Bursts {
            commands: 1024,
            callbacks: 1024,
            reports: 2048,
            requests: 1024,
            settled: 256,
            settling: 512,
            detach_slots: 512,
            detach_ended: 16,
            inspect_slots: 512,
        }
    }
}

/// An interface: a device in a routing domain, with addresses.
pub struct InterfaceSpec {
    /// The routing domain. Default 0.
    pub domain: DomainId,
    /// What carries its packets.
    pub device: Box<dyn Device>,
    /// Its addresses with their networks.
    pub addresses: Vec<Cidr>,
    /// Routes over it besides its own networks: where to, through which router (`None`: on the link).
    pub routes: Vec<(Cidr, Option<IpAddr>)>,
}

impl InterfaceSpec {
    /// An interface of domain 0 with no address yet.
    pub fn new(device: impl Device + 'static) -> InterfaceSpec {
        InterfaceSpec {
            domain: DomainId(0),
            device: Box::new(device),
            addresses: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// In another routing domain.
    #[must_use]
    pub fn domain(mut self, domain: DomainId) -> InterfaceSpec {
        self.domain = domain;
        self
    }

    /// With one more address.
    #[must_use]
    pub fn address(mut self, address: Cidr) -> InterfaceSpec {
        self.addresses.push(address);
        self
    }

    /// With one more route.
    #[must_use]
    pub fn route(mut self, to: Cidr, via: Option<IpAddr>) -> InterfaceSpec {
        self.routes.push((to, via));
        self
    }
}

impl fmt::Debug for InterfaceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterfaceSpec")
            .field("domain", &self.domain)
            .field("device", &self.device.name())
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// Why a stack could not be built.
#[derive(Debug)]
pub enum BuildError {
    /// No worker, or more than [`WORKERS_MAX`].
    BadWorkers(usize),
    /// A limit that must be positive is zero.
    ZeroLimit(&'static str),
    /// `events_max` is more than a thread may remember.
    TooManyEvents(usize),
    /// A fifo chunk size that is no power of two, or below 64 bytes.
    BadChunk(usize),
    /// An interface's route or address is wrong.
    Route(String),
    /// A device could not be opened.
    Device {
        /// Its name.
        name: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The operating system refused something (file descriptors, threads, random numbers).
    System(std::io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::BadWorkers(workers) => {
                write!(f, "{workers} workers: give 1 to {WORKERS_MAX}")
            }
            BuildError::ZeroLimit(name) => {
                write!(f, "{name} is 0, so nothing could ever be done: give at least 1")
            }
            BuildError::TooManyEvents(events) => {
                write!(f, "events_max is {events}: give at most {}", crate::events::EVENTS_MAX)
            }
            BuildError::BadChunk(bytes) => {
                write!(f, "sessions.chunk_bytes is {bytes}: give a power of two, 64 or more")
            }
            BuildError::Route(what) => f.write_str(what),
            BuildError::Device { name, error } => write!(f, "device {name}: {error}"),
            BuildError::System(error) => write!(f, "the operating system refused: {error}"),
        }
    }
}

impl std::error::Error for BuildError {}

impl StackConfig {
    /// Whether a stack can be made of this.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn validate(&self) -> Result<(), BuildError> {
        if self.workers == 0 || self.workers > WORKERS_MAX {
            return Err(BuildError::BadWorkers(self.workers));
        }
        let limits = [
            ("apps_max", self.apps_max),
            ("app_workers_max", self.app_workers_max),
            ("listeners_max", self.listeners_max),
            ("pending_connects_max", self.pending_connects_max),
            ("rx_burst_max", self.rx_burst_max),
            ("tx_burst_max", self.tx_burst_max),
            ("channel_batches", self.channel_batches),
            ("bursts.commands", self.bursts.commands),
            ("bursts.callbacks", self.bursts.callbacks),
            ("bursts.reports", self.bursts.reports),
            ("bursts.requests", self.bursts.requests),
            ("bursts.settled", self.bursts.settled),
            ("bursts.settling", self.bursts.settling),
            ("bursts.detach_slots", self.bursts.detach_slots as usize),
            ("bursts.detach_ended", self.bursts.detach_ended),
            ("bursts.inspect_slots", self.bursts.inspect_slots as usize),
            ("sessions.sessions", self.sessions.sessions),
            ("sessions.chunks", self.sessions.chunks),
        ];
        if let Some((name, _)) = limits.iter().find(|(_, limit)| *limit == 0) {
            return Err(BuildError::ZeroLimit(name));
        }
        if self.events_max > crate::events::EVENTS_MAX {
            return Err(BuildError::TooManyEvents(self.events_max));
        }
        if !self.sessions.chunk_bytes.is_power_of_two() || self.sessions.chunk_bytes < 64 {
            return Err(BuildError::BadChunk(self.sessions.chunk_bytes));
        }
        Ok(())
    }
}
