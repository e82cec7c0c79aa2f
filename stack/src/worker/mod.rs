//! A worker: owns everything established. [`Worker::step`] is the life of a segment, one line per stage.
//!
//! [`commands`] what main asks, [`packets`] devices and TCP, [`apps`] callbacks, requests and detach, [`life`] what is told of sessions, [`inspect`]
//! answers in slices. A worker never blocks and takes no lock; it reads no clock.

mod apps;
mod commands;
mod inspect;
mod life;
mod packets;
mod pings;
mod transports;

pub(crate) use inspect::WatchCommand;
pub use inspect::drop_reasons;
pub(crate) use transports::Transports;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hoststack_app::context::AppWorkerState;
use hoststack_app::{AppRequest, AppWorker, ConnectMint};
use hoststack_net::{
    DeviceQueue, Handover, InterfaceId, IpPath, NetEvent, Packet, PacketPool, Received, RxSegment,
};
use hoststack_session::Sessions;
use hoststack_tcp::{HalfOpenError, HalfOpenSegment};
use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    AllocationPoint, AppWorkerId, ConnectFailure, ConnectTicket, HalfOpenId, Instant, SessionId, TimerWheel,
    TransportEvent, WorkerId,
};

use self::inspect::{Measured, Stage};
use crate::channel::{Inbox, Outbox};
use crate::config::StackConfig;
use crate::measure::StageClock;
use crate::messages::{Command, Report};
use crate::rate_limit::RateLimits;
use crate::record::{Digest, Tape};
use crate::step::Step;
use crate::sync::{AtomicUsize, Ordering};

/// What other threads may see of a worker: statistics, never state.
#[derive(Debug, Default)]
pub(crate) struct WorkerStats {
    /// Sessions, as of the last step.
    pub(crate) sessions: AtomicUsize,
}

/// All that a worker is made of; the only thing of it that crosses into its thread.
pub(crate) struct WorkerSeed {
    pub(crate) id: WorkerId,
    pub(crate) config: StackConfig,
    pub(crate) path: IpPath,
    pub(crate) pool: PacketPool,
    pub(crate) ports: Vec<Port>,
    pub(crate) transports: Transports,
    pub(crate) commands: Inbox<Command>,
    pub(crate) reports: Outbox<Report>,
    pub(crate) handover_in: Vec<Inbox<Handover>>,
    pub(crate) handover_out: Vec<Option<Outbox<Handover>>>,
    pub(crate) local_in: Vec<Inbox<hoststack_local::Message>>,
    pub(crate) local_out: Vec<Option<Outbox<hoststack_local::Message>>>,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) tape: Tape,
}

/// A queue of an interface's device, owned by this worker.
pub(crate) struct Port {
    pub(crate) interface: InterfaceId,
    pub(crate) queue: Box<dyn DeviceQueue>,
    /// Since when the device has taken nothing of what waits for it.
    pub(crate) stuck_since: Option<Instant>,
}

/// An app worker's place on this worker.
struct AppSlot {
    id: AppWorkerId,
    unit: u32,
    /// `application/unit`, for the log.
    name: Arc<str>,
    /// `None` after a panic, and while a callback of it runs.
    object: Option<Box<dyn AppWorker>>,
    state: AppWorkerState,
    detach: Option<apps::DetachRun>,
    /// Main told the end of its detach without waiting for this worker: no callback begins any more.
    abandoned: Arc<AtomicBool>,
}

/// What a worker did, for the CLI.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    steps: u64,
    rx_packets: u64,
    tx_packets: u64,
    handed_over: u64,
    handover_dropped: u64,
    /// Segments that waited for a hand-over, and those of them that were given to TCP again.
    parked: u64,
    unparked: u64,
    parked_dropped: u64,
    device_stuck: u64,
    callbacks: u64,
}

/// A worker. It never leaves its thread.
pub(crate) struct Worker {
    id: WorkerId,
    config: StackConfig,
    now: Instant,
    // Siblings, lent to each other for a call, never owned by one another.
    path: IpPath,
    pool: PacketPool,
    ports: Vec<Port>,
    transports: Transports,
    sessions: Sessions,
    apps: Vec<Option<AppSlot>>,
    // Messages.
    commands: Inbox<Command>,
    /// The batch being worked off, its first command at the end.
    command_batch: Vec<Command>,
    /// The last step left commands waiting so that sessions could send: in the next one they may take all room.
    commands_may_fill: bool,
    reports: Outbox<Report>,
    handover_in: Vec<Inbox<Handover>>,
    handover_out: Vec<Option<Outbox<Handover>>>,
    local_in: Vec<Inbox<hoststack_local::Message>>,
    local_out: Vec<Option<Outbox<hoststack_local::Message>>>,
    // Vectors that live as long as the worker, so that nothing is allocated per packet.
    rx_packets: Vec<Packet>,
    received: Received,
    net_events: Vec<NetEvent>,
    events: Vec<TransportEvent>,
    half_open_segments: Vec<HalfOpenSegment>,
    half_open_errors: Vec<HalfOpenError>,
    requests: Vec<AppRequest>,
    armed: Vec<(Instant, AppWorkerId, u64)>,
    fired_timers: Vec<(Instant, (AppWorkerId, u64))>,
    fired_connects: Vec<(Instant, SessionId)>,
    // What waits for a later step or stage.
    /// Segments of flows that main is handing over, in order of arrival.
    parked: Vec<(HalfOpenId, RxSegment)>,
    /// Failed connects to tell.
    outcomes: VecDeque<(ConnectTicket, ConnectFailure)>,
    /// Messages to tell.
    notices: VecDeque<(AppWorkerId, Box<dyn std::any::Any + Send>)>,
    app_timers: TimerWheel<(AppWorkerId, u64)>,
    connect_timers: TimerWheel<SessionId>,
    inspections: VecDeque<inspect::Run>,
    events_ring: crate::events::Ring,
    warnings: RateLimits,
    /// Packets that someone watches. `None`, as nearly always: nobody does, and nothing else asks.
    watch: Option<Box<inspect::Watch>>,
    mint: ConnectMint,
    stats: Arc<WorkerStats>,
    figures: Figures,
    measured: Measured,
    baseline: inspect::Baseline,
    /// How connections ended before they were accepted, and how many did.
    not_accepted: Vec<(ConnectFailure, u64)>,
    tape: Tape,
    /// Whether a command of this step was more than a question; see [`Step::lingers`].
    lingers: bool,
    digest: Option<Digest>,
    stopped: bool,
    _not_send: PhantomData<*mut ()>,
}

impl Worker {
    pub(crate) fn new(seed: WorkerSeed) -> Worker {
        let sessions = Sessions::new(seed.id, &seed.config.sessions);
        Worker {
            id: seed.id,
            now: Instant::ZERO,
            path: seed.path,
            pool: seed.pool,
            ports: seed.ports,
            transports: seed.transports,
            sessions,
            apps: Vec::new(),
            commands: seed.commands,
            command_batch: Vec::new(),
            commands_may_fill: false,
            reports: seed.reports,
            handover_in: seed.handover_in,
            handover_out: seed.handover_out,
            local_in: seed.local_in,
            local_out: seed.local_out,
            rx_packets: Vec::with_capacity(seed.config.rx_burst_max),
            received: Received::default(),
            net_events: Vec::new(),
            events: Vec::new(),
            half_open_segments: Vec::new(),
            half_open_errors: Vec::new(),
            requests: Vec::new(),
            armed: Vec::new(),
            fired_timers: Vec::new(),
            fired_connects: Vec::new(),
            parked: Vec::new(),
            outcomes: VecDeque::new(),
            notices: VecDeque::new(),
            app_timers: TimerWheel::new(Instant::ZERO),
            connect_timers: TimerWheel::new(Instant::ZERO),
            inspections: VecDeque::new(),
            events_ring: crate::events::Ring::new(seed.config.events_max),
            warnings: RateLimits::default(),
            watch: None,
            mint: ConnectMint::new(u16::from(seed.id.0)),
            stats: seed.stats,
            figures: Figures::default(),
            measured: Measured::new(),
            baseline: inspect::Baseline::default(),
            not_accepted: Vec::new(),
            lingers: false,
            digest: match seed.tape {
                Tape::Off => None,
                _ => Some(Digest::new()),
            },
            tape: seed.tape,
            stopped: false,
            config: seed.config,
            _not_send: PhantomData,
        }
    }

    /// One step: all that waits is taken in, acted upon, and all output is sent, each stage bounded by a burst.
    pub(crate) fn step(&mut self, now: Instant) -> Step {
        self.now = self.now.max(now);
        self.sessions.set_now(self.now);
        self.tape.begin(now);
        self.measured.pace.stages.begin();
        self.lingers = false;
        let asked = self.stage(Stage::Commands, Worker::take_commands);
        let mut worked = false;
        worked |= self.stage(Stage::Receive, Worker::receive);
        worked |= self.stage(Stage::TcpInput, Worker::tcp_input);
        worked |= self.stage(Stage::Kernel, Worker::poll_kernel);
        worked |= self.stage(Stage::Local, Worker::local_input);
        worked |= self.stage(Stage::Timers, Worker::poll_timers);
        if canary::has(Bug::DetachOvertakesOutcomes) {
            worked |= self.run_detaches();
        }
        worked |= self.stage(Stage::AppEvents, Worker::deliver_app_events);
        worked |= self.stage(Stage::Requests, Worker::handle_requests);
        worked |= self.stage(Stage::Detach, Worker::run_detaches);
        worked |= self.stage(Stage::Endings, Worker::end_due_connections);
        worked |= self.stage(Stage::Transmit, Worker::transmit);
        let lingers = worked | self.lingers;
        worked |= asked;
        self.transports.kernel.flush();
        worked |= self.stage(Stage::Inspect, Worker::answer_inspections);
        // Before main hears of sessions it sees their number.
        self.stats.sessions.store(self.sessions.counts().sessions, Ordering::Relaxed);
        self.tape.stamp();
        worked |= self.stage(Stage::Flush, Worker::flush);
        self.tape.end(worked);
        self.figures.steps += 1;
        self.measured.pace.stages.end(worked);
        Step { worked, lingers, next_deadline: self.next_deadline(), stopped: self.stopped }
    }

    /// When the worker has something to do by itself.
    fn next_deadline(&self) -> Option<Instant> {
        let timers = Instant::earliest([
            self.transports.next_deadline(),
            self.app_timers.next_deadline(),
            self.connect_timers.next_deadline(),
            self.detach_deadline(),
        ]);
        self.ports.iter().fold(timers, |earliest, port| {
            Instant::earliest([earliest, port.queue.next_deadline_us().map(Instant::from_micros)])
        })
    }

    /// Whether something waits that another thread put there: the second look before sleeping.
    pub(crate) fn has_input(&self) -> bool {
        !self.commands.is_empty()
            || self.handover_in.iter().any(|inbox| !inbox.is_empty())
            || self.local_in.iter().any(|inbox| !inbox.is_empty())
            || self.local_out.iter().flatten().any(Outbox::can_flush)
            || self.transports.kernel.has_work()
            || self.sessions.ready_len() > 0
            || (self.sessions.programmed_len() > 0 && self.path.room() > 0)
            || self.sessions.other_programmed_len() > 0
            || self.sessions.has_chunks_to_give()
            || self.sessions.has_due_endings()
            || !self.requests.is_empty()
            || !self.outcomes.is_empty()
            || !self.notices.is_empty()
            || !self.inspections.is_empty()
            || (!self.command_batch.is_empty() && self.path.room() > 0)
            || self.reports.can_flush()
            || self.handover_out.iter().flatten().any(Outbox::can_flush)
            || self.ports.iter().any(|port| port.queue.next_deadline_us() == Some(0))
    }

    /// Counted here because only the thread knows.
    pub(crate) fn note_sleep(&mut self) {
        self.measured.pace.sleeps += 1;
    }

    /// A step that did something ended at `now` after so many microseconds: counted here because only the thread knows.
    pub(crate) fn note_step(&mut self, now: Instant, took_us: u64) {
        self.measured.pace.note_step(now, took_us);
    }

    /// From now on some steps are measured stage by stage.
    pub(crate) fn measure_stages(&mut self, clock: impl StageClock + 'static) {
        self.measured.pace.stages.measure_with(Box::new(clock));
    }

    /// File descriptors to sleep on.
    pub(crate) fn wait_fds(&self) -> Vec<std::os::fd::RawFd> {
        let ports = self.ports.iter().filter_map(|port| port.queue.wait_fd());
        ports.chain(self.transports.kernel.wait_fd()).collect()
    }

    /// Has the devices' peers wake this worker.
    pub(crate) fn set_notify(&mut self, notify: &Arc<dyn Fn() + Send + Sync>) {
        for port in &mut self.ports {
            port.queue.set_notify(notify.clone());
        }
    }

    /// The tape of its steps.
    pub(crate) fn tape(&mut self) -> &mut Tape {
        &mut self.tape
    }

    /// Hands in what was recorded.
    pub(crate) fn hand_in(&mut self) {
        let digest = self.digest();
        self.tape.hand_in(digest);
    }

    /// Starts folding every packet in and out, with the time, into a digest.
    pub(crate) fn start_digest(&mut self) {
        self.digest = Some(Digest::new());
    }

    /// From now on allocations at `point` are refused, or no longer so.
    pub(crate) fn set_refusing(&mut self, point: AllocationPoint, refusing: bool) {
        self.transports.tcp.set_refusing(point, refusing);
        if point == AllocationPoint::Connection {
            self.transports.kernel.set_refusing(refusing);
            self.transports.local.set_refusing(refusing);
        }
        self.sessions.set_refusing(point, refusing);
    }

    /// See [`crate::SingleThreaded::set_tcp_config`].
    pub(crate) fn set_tcp_config(&mut self, config: hoststack_tcp::TcpConfig) {
        self.config.tcp = config;
        self.transports.tcp.set_config(config);
    }

    /// The digest so far.
    pub(crate) fn digest(&self) -> u64 {
        self.digest.as_ref().map_or(0, Digest::value)
    }

    /// Asserts what must hold between steps.
    pub(crate) fn check_consistency(&self) {
        self.sessions.check_consistency();
        self.check_sessions();
        self.transports.check_consistency();
        assert!(self.events.is_empty(), "what TCP recorded is handled in the same step: {:?}", self.events);
        let Figures { parked, unparked, .. } = self.figures;
        assert_eq!(
            parked,
            unparked + self.parked.len() as u64,
            "a parked segment is taken in or still parked"
        );
    }

    fn app_slot(&mut self, id: AppWorkerId) -> Option<&mut AppSlot> {
        self.apps.get_mut(id.0.slot as usize)?.as_mut().filter(|slot| slot.id == id)
    }
}
