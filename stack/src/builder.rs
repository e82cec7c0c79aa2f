//! Building a stack: interfaces and limits in, main and workers out.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::unbounded;
use hoststack_app::{DetachPolicy, DetachReport};
use hoststack_kernel::host::Host;
use hoststack_net::pcap::LinkType;
use hoststack_net::{
    DeviceQueue, InterfaceConfig, InterfaceId, IpLimits, IpPath, NeighborConfig, NetUpdate, PacketPool,
    Route, Router,
};
use hoststack_tcp::{Engine, HalfOpens, Secrets};
use hoststack_transport::{Rng, TupleAllocator, WorkerId};
use hoststack_wire::FlowHasher;

use crate::channel::{Bound, Inbox, Outbox, channel};
use crate::clock::Clock;
use crate::config::{BuildError, InterfaceSpec, StackConfig};
use crate::directory::Directory;
use crate::handle::{Shared, StackHandle};
use crate::inspect::Query;
use crate::main_thread::MainSeed;
use crate::messages::{Command, Report, Request};
use crate::record::{Actor, Recorder, Recording, Tape};
use crate::single::SingleThreaded;
use crate::stepped::Stepped;
use crate::threads::{self, Placement};
use crate::wake::Wake;
use crate::worker::{Port, Transports, WorkerSeed, WorkerStats};

/// Headroom and link header that a packet buffer has besides its MTU.
const PACKET_EXTRA: usize = 256;
/// Free packet buffers that a worker keeps.
const PACKETS_KEPT: usize = 8192;

/// Builds a stack.
#[derive(Debug, Default)]
pub struct Builder {
    config: StackConfig,
    interfaces: Vec<InterfaceSpec>,
    recorder: Option<Arc<Recorder>>,
    host: Option<Arc<dyn Host>>,
}

impl Builder {
    /// With this many workers.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Builder {
        self.config.workers = workers;
        self
    }

    /// With this configuration (its number of workers included).
    #[must_use]
    pub fn config(mut self, config: StackConfig) -> Builder {
        self.config = config;
        self
    }

    /// With one more interface.
    #[must_use]
    pub fn interface(mut self, interface: InterfaceSpec) -> Builder {
        self.interfaces.push(interface);
        self
    }

    /// With sockets of this host instead of the one that it runs on: for tests, which put a model there.
    #[must_use]
    pub fn host(mut self, host: Arc<dyn Host>) -> Builder {
        self.host = Some(host);
        self
    }

    /// Starts main and the workers on threads of their own.
    ///
    /// # Errors
    /// [`BuildError`]; nothing runs then.
    pub fn start(self) -> Result<Stack, BuildError> {
        let placement = Placement::choose(self.config.workers, self.config.pin, self.config.spin);
        let recorder = self.recorder.clone();
        let bound = self.bound();
        let parts = self.parts(bound)?;
        let clock = Clock::start();
        let handle = StackHandle::new(parts.shared);
        handle.set_worker_cores(placement.worker_cores());
        let mut stack = Stack { handle, threads: Vec::new(), recorder };
        let wakes = parts.worker_wakes.into_iter();
        for (seed, wake) in parts.workers.into_iter().zip(wakes) {
            let thread =
                threads::start_worker(seed, wake, clock, placement.clone()).map_err(BuildError::System)?;
            stack.threads.push(thread);
        }
        let main =
            threads::start_main(parts.main, parts.main_wake, clock, placement).map_err(BuildError::System)?;
        stack.threads.push(main);
        Ok(stack)
    }

    /// Records every step of the threads: see [`Stack::stop_recorded`]. A recording holds every packet received, so
    /// this is for short runs.
    #[must_use]
    pub fn record(mut self) -> Builder {
        self.recorder = Some(Arc::default());
        self
    }

    fn single_threaded(self, bound: Bound) -> Result<SingleThreaded, BuildError> {
        let (stepped, wake) = self.stepped(bound, true)?;
        SingleThreaded::new(stepped, wake, Clock::start())
    }

    fn bound(&self) -> Bound {
        Bound::Batches(self.config.channel_batches)
    }

    /// The stack, and main's wake-up. `one_thread`: a packet for any worker wakes the one thread, by main's.
    fn stepped(self, bound: Bound, one_thread: bool) -> Result<(Stepped, Arc<Wake>), BuildError> {
        let parts = self.parts(bound)?;
        let handle = StackHandle::new(parts.shared);
        let main_wake = parts.main_wake;
        let wakes: Vec<_> = std::iter::once(main_wake.clone()).chain(parts.worker_wakes).collect();
        let device_wake = one_thread.then_some(&main_wake);
        Ok((Stepped::new(parts.main, parts.workers, handle, wakes, device_wake), main_wake))
    }

    fn parts(self, bound: Bound) -> Result<Parts, BuildError> {
        let Builder { config, interfaces, recorder, host } = self;
        let host = host.unwrap_or_else(|| Arc::new(hoststack_kernel::Native));
        let tape = |actor| match &recorder {
            Some(recorder) => Tape::recording(recorder, actor),
            None => Tape::Off,
        };
        config.validate()?;
        let workers = config.workers;
        let mut rng = match config.seed {
            Some(seed) => Rng::from_seed(seed),
            None => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(|error| BuildError::System(io::Error::other(error)))?;
                Rng::from_secret(secret)
            }
        };
        let hasher = FlowHasher::new([rng.u64(), rng.u64()]);
        let secrets = Secrets::new(&mut rng);
        let tuples = TupleAllocator::new([rng.u64(), rng.u64()]);

        let mut domains: Vec<u16> = interfaces.iter().map(|spec| spec.domain.0).collect();
        domains.sort_unstable();
        domains.dedup();
        let mtu_max = interfaces.iter().map(|spec| spec.device.mtu()).max().unwrap_or(1500);
        let links = Links::open(interfaces, workers)?;

        let wake = || Wake::new().map(Arc::new).map_err(BuildError::System);
        let main_wake = wake()?;
        let worker_wakes = (0..workers).map(|_| wake()).collect::<Result<Vec<_>, _>>()?;
        let mut handovers = Mesh::connect(&worker_wakes, bound);
        let mut locals = Mesh::connect(&worker_wakes, bound);

        let (requests_tx, requests) = unbounded::<Request>();
        let directory = Arc::new(Directory::default());
        let mut commands: Vec<Outbox<Command>> = Vec::with_capacity(workers);
        let mut reports: Vec<Inbox<Report>> = Vec::with_capacity(workers);
        let mut stats = Vec::with_capacity(workers);
        let mut seeds = Vec::with_capacity(workers);
        for (number, ports) in links.ports.into_iter().enumerate() {
            let id = WorkerId(number as u8);
            let (command_out, command_in) = channel(bound, main_wake.clone(), worker_wakes[number].clone());
            let (report_out, report_in) = channel(bound, worker_wakes[number].clone(), main_wake.clone());
            commands.push(command_out);
            reports.push(report_in);
            let worker_stats = Arc::new(WorkerStats::default());
            stats.push(worker_stats.clone());
            let (handover_in, handover_out) = handovers.take(number);
            let (local_in, local_out) = locals.take(number);
            let kernel = hoststack_kernel::Engine::new(host.clone(), config.sessions.sessions);
            seeds.push(WorkerSeed {
                id,
                path: IpPath::new(id.0, workers as u8, hasher, IpLimits::default()),
                pool: PacketPool::new(mtu_max + PACKET_EXTRA, PACKETS_KEPT),
                ports,
                transports: Transports {
                    tcp: Engine::new(config.tcp, secrets.clone(), hasher),
                    kernel: kernel.map_err(|error| BuildError::System(error.into()))?,
                    local: hoststack_local::Engine::new(id, config.sessions.sessions),
                },
                commands: command_in,
                reports: report_out,
                handover_in,
                handover_out,
                local_in,
                local_out,
                stats: worker_stats,
                tape: tape(Actor::Worker(id)),
                config: config.clone(),
            });
        }
        let shared = Arc::new(Shared {
            requests: requests_tx,
            wake: main_wake.clone(),
            directory: directory.clone(),
            workers,
            domains,
            pending_connects_max: config.pending_connects_max,
            interfaces: links.names,
            epoch_us: Clock::unix_us(),
            capture: Default::default(),
            worker_cores: Default::default(),
        });
        let main = MainSeed {
            half_opens: HalfOpens::new(config.tcp, secrets),
            kernel: hoststack_kernel::HalfOpens::new(host.clone(), config.pending_connects_max)
                .map_err(|error| BuildError::System(error.into()))?,
            host,
            router: links.router,
            tuples,
            hasher,
            requests,
            reports,
            commands,
            stats,
            directory,
            updates: links.updates,
            tape: tape(Actor::Main),
            config,
        };
        Ok(Parts { main, workers: seeds, shared, main_wake, worker_wakes })
    }
}

/// What a stack is put together from.
struct Parts {
    main: MainSeed,
    workers: Vec<WorkerSeed>,
    shared: Arc<Shared>,
    main_wake: Arc<Wake>,
    worker_wakes: Vec<Arc<Wake>>,
}

/// Interfaces, their routes, and each worker's queues of their devices.
struct Links {
    router: Router,
    updates: Vec<NetUpdate>,
    ports: Vec<Vec<Port>>,
    /// Names and link types, in the order of the interfaces' numbers.
    names: Vec<(String, LinkType)>,
}

impl Links {
    fn open(interfaces: Vec<InterfaceSpec>, workers: usize) -> Result<Links, BuildError> {
        let mut router = Router::new(NeighborConfig::default());
        let mut updates = Vec::new();
        let mut names = Vec::new();
        let mut ports: Vec<Vec<Port>> = (0..workers).map(|_| Vec::new()).collect();
        for (number, spec) in interfaces.into_iter().enumerate() {
            let InterfaceSpec { domain, device, addresses, routes } = spec;
            let name = device.name().to_string();
            let route_error =
                |error: &dyn std::fmt::Display| BuildError::Route(format!("interface {name}: {error}"));
            let id =
                InterfaceId(u16::try_from(number).map_err(|_| route_error(&"more than 65536 interfaces"))?);
            let mut config = InterfaceConfig::new(id, name.clone());
            config.domain = domain.0;
            config.mac = device.mac();
            let link = if config.mac.is_some() { LinkType::Ethernet } else { LinkType::RawIp };
            names.push((name.clone(), link));
            config.mtu = device.mtu();
            config.addresses = addresses;
            updates.push(router.add_interface(config).map_err(|error| route_error(&error))?);
            for (prefix, via) in routes {
                let route = Route { domain: domain.0, prefix, via, interface: id };
                updates.push(router.add_route(route).map_err(|error| route_error(&error))?);
            }
            let queues: Vec<Box<dyn DeviceQueue>> = device
                .into_queues(workers)
                .map_err(|error| BuildError::Device { name: name.clone(), error })?;
            for (worker, queue) in queues.into_iter().enumerate() {
                ports[worker].push(Port { interface: id, queue, stuck_since: None });
            }
        }
        Ok(Links { router, updates, ports, names })
    }
}

/// Channels between workers: one for each ordered pair.
struct Mesh<T> {
    into: Vec<Vec<Inbox<T>>>,
    out: Vec<Vec<Option<Outbox<T>>>>,
}

impl<T> Mesh<T> {
    fn connect(wakes: &[Arc<Wake>], bound: Bound) -> Mesh<T> {
        let workers = wakes.len();
        let mut into: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        let mut out: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        for from in 0..workers {
            for to in 0..workers {
                if from == to {
                    out[from].push(None);
                    continue;
                }
                let (sender, receiver) = channel(bound, wakes[from].clone(), wakes[to].clone());
                out[from].push(Some(sender));
                into[to].push(receiver);
            }
        }
        Mesh { into, out }
    }

    #[allow(clippy::type_complexity)]
    fn take(&mut self, worker: usize) -> (Vec<Inbox<T>>, Vec<Option<Outbox<T>>>) {
        (std::mem::take(&mut self.into[worker]), std::mem::take(&mut self.out[worker]))
    }
}

/// A stack whose main and workers run on threads. Dropping it stops them without detaching apps; [`Stack::shutdown`]
/// detaches first.
#[derive(Debug)]
pub struct Stack {
    handle: StackHandle,
    threads: Vec<JoinHandle<()>>,
    recorder: Option<Arc<Recorder>>,
}

impl Stack {
    /// Begins a stack with defaults: one worker, no interface.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A stack without threads: the caller steps it.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn single_threaded(builder: Builder) -> Result<SingleThreaded, BuildError> {
        let bound = builder.bound();
        builder.single_threaded(bound)
    }

    /// A stack without threads whose steps are those of `recording`, which was recorded from its first step by a like
    /// stack (same seed and configuration), on threads or not. The caller attaches the same apps and makes the same
    /// requests in the same order; each call takes recorded steps until its answer is there. What devices handed over
    /// comes from the recording, so they need no peers. See [`SingleThreaded::finish_replay`].
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn replay(builder: Builder, recording: &Recording) -> Result<SingleThreaded, BuildError> {
        let mut stack = builder.single_threaded(Bound::Replay)?;
        stack.start_replay(recording);
        Ok(stack)
    }

    /// A stack whose main and workers the caller steps one by one, in any order: for simulators.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn stepped(builder: Builder) -> Result<Stepped, BuildError> {
        let bound = builder.bound();
        builder.stepped(bound, false).map(|(stepped, _)| stepped)
    }

    /// What any thread may use.
    pub fn handle(&self) -> StackHandle {
        self.handle.clone()
    }

    /// Detaches every application, then stops. Returns how each detach ended.
    pub fn shutdown(self, policy: DetachPolicy) -> Vec<DetachReport> {
        let Ok(answer) = self.handle.inspect(Query::Summary) else { return Vec::new() };
        // All are told before any is waited for.
        let waiting: Vec<_> =
            answer.apps.iter().map(|app| self.handle.requests().detach(app.id, policy)).collect();
        waiting.into_iter().filter_map(|report| report.wait().ok()).collect()
    }

    /// Stops, and returns what was recorded since the start if [`Builder::record`] asked for it.
    pub fn stop_recorded(mut self) -> Option<Recording> {
        self.stop();
        self.recorder.take().map(|recorder| recorder.recording())
    }

    fn stop(&mut self) {
        // Main passes it on to the workers; a stack that is gone already needs no telling.
        let _ = self.handle.send(Request::Stop);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the stack panicked");
            }
        }
        // A capture that nobody stopped is written to its end.
        if let Ok(capture) = self.handle.begin_pcap_stop() {
            capture.finish();
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.stop();
    }
}
