//! Main: owns the directories, the 4-tuples, and every half-open.
//!
//! [`connects`] the life of a connect request, [`attempts`] its attempts over the transports, [`apps`] attach and callbacks, [`detach`], [`listeners`], [`inspect`]
//! answers put together. Main never calls a session callback, never sends a packet, never blocks.

mod apps;
mod attempts;
mod connects;
mod detach;
mod inspect;
mod life;
mod listeners;
mod pings;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use hashbrown::HashMap;
use hoststack_app::{ConnectMint, MainRequest};
use hoststack_net::{InterfaceId, NetEvent, NetUpdate, NextHop, Router, RouterAction};
use hoststack_tcp::{HalfOpenAction, HalfOpens};
use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    AllocationPoint, AppId, AppWorkerId, ConnectId, Instant, Key, Pool, TicketLedger, TimerWheel,
    TupleAllocator, WorkerId,
};
use hoststack_wire::FlowHasher;

use self::inspect::Stage;
use crate::channel::{Inbox, Outbox};
use crate::config::StackConfig;
use crate::directory::Directory;
use crate::hash::IdHasher;
use crate::inspect::TraceSpec;
use crate::measure::{Pace, StageClock};
use crate::messages::{Command, Report, Request};
use crate::rate_limit::RateLimits;
use crate::record::{Tape, flush};
use crate::step::Step;
use crate::worker::{WatchCommand, WorkerStats};

/// The origin of connects made on main; stack handles come above it.
pub(crate) const MAIN_ORIGIN: u16 = 256;

/// All that main is made of.
pub(crate) struct MainSeed {
    pub(crate) config: StackConfig,
    pub(crate) router: Router,
    pub(crate) half_opens: HalfOpens,
    pub(crate) kernel: hoststack_kernel::HalfOpens,
    pub(crate) host: Arc<dyn hoststack_kernel::host::Host>,
    pub(crate) tuples: TupleAllocator,
    pub(crate) hasher: FlowHasher,
    pub(crate) requests: Receiver<Request>,
    pub(crate) reports: Vec<Inbox<Report>>,
    pub(crate) commands: Vec<Outbox<Command>>,
    pub(crate) stats: Vec<Arc<WorkerStats>>,
    pub(crate) directory: Arc<Directory<AppWorkerId>>,
    pub(crate) updates: Vec<NetUpdate>,
    pub(crate) tape: Tape,
}

/// Main. See the module.
pub(crate) struct Main {
    config: StackConfig,
    now: Instant,
    router: Router,
    half_opens: HalfOpens,
    kernel: hoststack_kernel::HalfOpens,
    kernel_actions: Vec<hoststack_kernel::HalfOpenAction>,
    host: Arc<dyn hoststack_kernel::host::Host>,
    tuples: TupleAllocator,
    hasher: FlowHasher,
    ledger: Arc<TicketLedger>,
    tape: Tape,
    requests: Receiver<Request>,
    /// Requests taken so far.
    requests_taken: u64,
    /// Whether a message of this step was more than a question or its answer; see [`Step::lingers`].
    lingers: bool,
    reports: Vec<Inbox<Report>>,
    /// Per worker, the batch being worked off, its first report at the end.
    report_batches: Vec<Vec<Report>>,
    commands: Vec<Outbox<Command>>,
    stats: Vec<Arc<WorkerStats>>,
    directory: Arc<Directory<AppWorkerId>>,
    apps: Pool<apps::App>,
    names: BTreeMap<String, AppId>,
    app_workers: Pool<apps::AppWorkerRecord>,
    /// App workers that are being detached.
    detaching: Vec<AppWorkerId>,
    listeners: Pool<listeners::Listener>,
    places: BTreeMap<listeners::Place, hoststack_transport::ListenerId>,
    connects: HashMap<ConnectId, (AppWorkerId, Key), IdHasher>,
    socket_options: connects::SharedOptions,
    /// Connects under way per worker: its load, together with its sessions.
    in_flight: Vec<usize>,
    /// Requests that wait for a neighbour before their first attempt, and their deadlines.
    waiting: BTreeMap<(InterfaceId, IpAddr), Vec<attempts::Waiter>>,
    wait_timers: TimerWheel<attempts::Waiter>,
    /// Outcomes told on another worker than the one that counts the connect.
    settled_elsewhere: BTreeMap<(WorkerId, AppWorkerId), usize>,
    inspections: BTreeMap<u64, inspect::Inspection>,
    next_query: u64,
    /// The question whose walk on main had the last turn.
    last_walk: u64,
    pings: pings::Pings,
    events_ring: crate::events::Ring,
    warnings: RateLimits,
    /// Traces that were added and not cleared.
    traces: Vec<Arc<TraceSpec>>,
    mint: ConnectMint,
    main_requests: Vec<MainRequest>,
    actions: Vec<HalfOpenAction>,
    router_actions: Vec<RouterAction>,
    connects_orphaned: u64,
    steps: u64,
    pace: Pace<{ inspect::STAGES.len() }>,
    /// Figures as of the last clearing of counters, and when that was.
    cleared: crate::inspect::MainInfo,
    since: crate::inspect::Since,
    stopped: bool,
}

impl Main {
    pub(crate) fn new(seed: MainSeed) -> Main {
        let workers = seed.config.workers;
        let mut main = Main {
            now: Instant::ZERO,
            router: seed.router,
            half_opens: seed.half_opens,
            kernel: seed.kernel,
            kernel_actions: Vec::new(),
            host: seed.host,
            tuples: seed.tuples,
            hasher: seed.hasher,
            ledger: TicketLedger::new(),
            tape: seed.tape,
            requests: seed.requests,
            requests_taken: 0,
            lingers: false,
            report_batches: seed.reports.iter().map(|_| Vec::new()).collect(),
            reports: seed.reports,
            commands: seed.commands,
            stats: seed.stats,
            directory: seed.directory,
            apps: Pool::new(seed.config.apps_max),
            names: BTreeMap::new(),
            app_workers: Pool::new(seed.config.app_workers_max),
            detaching: Vec::new(),
            listeners: Pool::new(seed.config.listeners_max),
            places: BTreeMap::new(),
            connects: HashMap::with_hasher(IdHasher::default()),
            socket_options: connects::SharedOptions::default(),
            in_flight: vec![0; workers],
            waiting: BTreeMap::new(),
            wait_timers: TimerWheel::new(Instant::ZERO),
            settled_elsewhere: BTreeMap::new(),
            inspections: BTreeMap::new(),
            next_query: 0,
            last_walk: 0,
            pings: pings::Pings::default(),
            events_ring: crate::events::Ring::new(seed.config.events_max),
            warnings: RateLimits::default(),
            traces: Vec::new(),
            mint: ConnectMint::new(MAIN_ORIGIN),
            main_requests: Vec::new(),
            actions: Vec::new(),
            router_actions: Vec::new(),
            connects_orphaned: 0,
            steps: 0,
            pace: Pace::new(),
            cleared: crate::inspect::MainInfo::default(),
            since: crate::inspect::Since::default(),
            stopped: false,
            config: seed.config,
        };
        for update in seed.updates {
            main.broadcast(|| Command::Net(update.clone()));
        }
        main
    }

    /// One step: what workers and other threads said, timers, what apps on main asked for, messages out.
    pub(crate) fn step(&mut self, now: Instant) -> Step {
        self.now = self.now.max(now);
        self.steps += 1;
        self.tape.begin(now);
        self.pace.stages.begin();
        self.lingers = false;
        // Counted before anything is answered: an answer may cause the next request while this step still runs.
        let requests = self.requests_waiting();
        let mut asked = self.stage(Stage::Reports, Main::take_reports);
        asked |= self.stage(Stage::Requests, |main| main.take_requests(requests));
        let mut worked = false;
        worked |= self.stage(Stage::Timers, Main::poll_timers);
        worked |= self.stage(Stage::AppRequests, Main::handle_main_requests);
        worked |= self.stage(Stage::Detach, Main::run_detaches);
        let lingers = worked | self.lingers;
        worked |= asked;
        worked |= self.stage(Stage::Inspect, Main::continue_inspections);
        self.tape.stamp();
        self.flush();
        self.tape.end(worked);
        self.pace.stages.passed(Stage::Flush as usize);
        self.pace.stages.end(worked);
        // `Stop` itself may still wait for room in a channel.
        let told = self.commands.iter().all(|outbox| outbox.waiting() == 0);
        Step { worked, lingers, next_deadline: self.next_deadline(), stopped: self.stopped && told }
    }

    /// What workers said, a bounded number from each, so that one that says much keeps nobody waiting.
    fn take_reports(&mut self) -> bool {
        let mut worked = false;
        for worker in 0..self.reports.len() {
            let mut batches =
                self.tape.find_waiting("batches of reports", || self.reports[worker].available());
            let mut left = self.config.bursts.reports;
            while left > 0 {
                if let Some(report) = self.report_batches[worker].pop() {
                    left -= 1;
                    worked = true;
                    self.lingers |= !matches!(report, Report::Answer { .. });
                    self.report(WorkerId(worker as u8), report);
                } else if batches > 0
                    && let Some(mut batch) = self.reports[worker].take()
                {
                    batches -= 1;
                    // Taken from the end: the first report last.
                    batch.reverse();
                    let spent = std::mem::replace(&mut self.report_batches[worker], batch);
                    self.reports[worker].recycle(spent);
                } else {
                    break;
                }
            }
        }
        worked
    }

    fn report(&mut self, worker: WorkerId, report: Report) {
        match report {
            Report::Net(NetEvent::EchoHeard(heard)) => self.echo_heard(heard),
            Report::Ping(sent) => self.ping_sent(&sent),
            Report::Net(event) => {
                self.router.on_event(self.now.as_micros(), event, &mut self.router_actions);
                self.router_acts(worker);
            }
            Report::HalfOpenSegment(segment) => {
                self.half_opens.on_segment(&segment, &mut self.actions);
                self.half_opens_act();
            }
            Report::HalfOpenError(error) => {
                self.half_opens.on_icmp_error(self.now, &error, &mut self.actions);
                self.half_opens_act();
            }
            Report::OpenRefused { half_open } => self.open_refused(half_open),
            Report::Connect { app_worker, connect, options, early_data, made } => {
                self.connect(app_worker, connect, &options, early_data, made);
            }
            Report::NextAttempt { ticket, failure } => self.next_attempt(ticket, failure),
            Report::Cancel { connect } => {
                // Losing to another outcome is no error for an app: it is told that outcome.
                let _ = self.cancel(connect);
            }
            Report::Listen { app_worker, options } => self.listen(app_worker, &options, None),
            Report::Unlisten { app_worker, listener } => {
                // An app that unlistens twice finds nothing the second time.
                let _ = self.unlisten(app_worker, listener);
            }
            Report::Detach { app_worker, policy } => {
                // An app worker that is being detached already goes on being detached.
                let _ = self.begin_detach(app_worker, policy, false);
            }
            Report::Settled(settled) => self.settled(worker, settled),
            Report::Listening { listener, result } => self.worker_listens(listener, result),
            Report::DetachBegun { app_worker, sessions } => {
                self.worker_began_detach(worker, app_worker, sessions)
            }
            Report::Detached { app_worker, sessions_reset } => {
                self.worker_detached(worker, app_worker, sessions_reset);
            }
            Report::Panicked { app_worker } => {
                let _ = self.begin_detach(app_worker, hoststack_app::DetachPolicy::Reset, true);
            }
            Report::FlowGone(flow) => {
                if canary::has(Bug::PortKeptOnDetach) && !self.detaching.is_empty() {
                    return;
                }
                // A flow that a peer opened was never main's.
                self.tuples.release(&flow);
            }
            Report::Answer { query, part, last } => self.answer(worker, query, *part, last),
        }
    }

    fn requests_waiting(&mut self) -> usize {
        self.tape.find_waiting("requests", || {
            if self.requests.is_empty() { 0 } else { self.requests.len().min(self.config.bursts.requests) }
        })
    }

    fn take_requests(&mut self, count: usize) -> bool {
        let mut worked = false;
        for _ in 0..count {
            let Ok(request) = self.requests.try_recv() else { break };
            worked = true;
            self.requests_taken += 1;
            self.lingers |= !matches!(request, Request::Inspect { .. });
            self.request(request);
        }
        worked
    }

    fn request(&mut self, request: Request) {
        // A caller that has gone away is no error: its answer is dropped.
        match request {
            Request::Attach { app, options, reply } => {
                let _ = reply.send(self.attach(app, &options));
            }
            Request::AttachWorker { app, reply } => {
                let _ = reply.send(self.attach_app_worker(app));
            }
            Request::Detach { app, policy, reply } => self.detach_app(app, policy, Some(reply)),
            Request::DetachWorker { app_worker, policy, reply } => {
                match self.begin_detach(app_worker, policy, false) {
                    Ok(()) => self.reply_when_detached(app_worker, reply),
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                }
            }
            Request::Connect { app_worker, connect, options, early_data } => {
                self.connect(app_worker, connect, &options, early_data, self.now);
            }
            Request::Cancel { connect, reply } => {
                let _ = reply.send(self.cancel(connect));
            }
            Request::Listen { app_worker, options, reply } => self.listen(app_worker, &options, Some(reply)),
            Request::Unlisten { app_worker, listener, reply } => {
                let _ = reply.send(self.unlisten(app_worker, listener));
            }
            Request::Notify { app_worker, worker, message } => {
                self.send(worker, Command::Notify { app_worker, message });
            }
            Request::EndSession { session, how } => {
                self.send(session.worker(), Command::EndSession { session, how });
            }
            Request::SetTcpConfig(config) => {
                self.set_tcp_config(*config);
                self.broadcast(|| Command::SetTcpConfig(config.clone()));
            }
            Request::Clear { what } => self.clear(what),
            Request::Ping { options, reply } => self.begin_ping(options, &reply),
            Request::SetSessionLog(is_on) => {
                self.config.session_log = is_on;
                self.broadcast(|| Command::SetSessionLog(is_on));
            }
            Request::Inspect { what, reply } => self.begin_inspection(what, reply),
            Request::TraceAdd { spec, reply } => {
                let _ = reply.send(self.add_trace(spec));
            }
            Request::TraceClear => self.clear_traces(),
            Request::Capture(tap) => {
                self.broadcast(|| Command::Watch(WatchCommand::Capture(tap.clone())));
            }
            Request::Stop => {
                self.broadcast(|| Command::Stop);
                self.stopped = true;
            }
        }
    }

    fn poll_timers(&mut self) -> bool {
        let mut worked = false;
        if self.half_opens.next_deadline().is_some_and(|deadline| deadline <= self.now) {
            self.half_opens.poll(self.now, &mut self.actions);
            self.half_opens_act();
            worked = true;
        }
        if self.kernel.poll(self.now, self.config.bursts.reports, &mut self.kernel_actions) {
            self.kernel_acts();
            worked = true;
        }
        let now_us = self.now.as_micros();
        if self.router.next_deadline_us().is_some_and(|deadline| deadline <= now_us) {
            self.router.poll(now_us, &mut self.router_actions);
            self.router_acts(WorkerId(0));
            worked = true;
        }
        worked |= self.poll_pings();
        worked | self.poll_waiting()
    }

    /// What the router wants done.
    fn router_acts(&mut self, prober: WorkerId) {
        let mut actions = std::mem::take(&mut self.router_actions);
        let mut resolved = Vec::new();
        for action in actions.drain(..) {
            match action {
                RouterAction::Update(update) => {
                    self.broadcast(|| Command::Net(update.clone()));
                    // After the update, so that the SYNs find the neighbour.
                    if let NetUpdate::NeighborSet { interface, addr, .. } = update {
                        resolved.push(((interface, addr), true));
                    }
                }
                RouterAction::Probe { interface, target } => {
                    self.send(prober, Command::Probe { interface, target });
                }
                RouterAction::Failed { next_hop } => {
                    resolved.push(((next_hop.interface, next_hop.addr), false))
                }
            }
        }
        self.router_actions = actions;
        for (hop, is_known) in resolved {
            self.neighbor_resolved(hop, is_known);
            if !is_known {
                self.ping_neighbor_failed(NextHop { interface: hop.0, addr: hop.1 });
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let router = self.router.next_deadline_us().map(Instant::from_micros);
        Instant::earliest([
            self.half_opens.next_deadline(),
            self.kernel.next_deadline(),
            router,
            self.wait_timers.next_deadline(),
            self.pings.next_deadline(),
            self.detach_deadline(),
        ])
    }

    fn flush(&mut self) {
        for ((worker, app_worker), count) in std::mem::take(&mut self.settled_elsewhere) {
            self.send(worker, Command::ConnectsSettled { app_worker, count });
        }
        let mut dead = None;
        for (worker, outbox) in self.commands.iter_mut().enumerate() {
            flush(&mut self.tape, outbox);
            if outbox.is_cut() {
                dead = Some(worker);
            }
        }
        if let Some(worker) = dead
            && !self.stopped
        {
            // A panic of ours, not of an app: what that worker owned is gone, so the whole stack is.
            tracing::error!(worker, "a worker's thread has ended: the stack stops");
            self.broadcast(|| Command::Stop);
            self.stopped = true;
            self.commands.iter_mut().for_each(|outbox| {
                outbox.flush();
            });
        }
    }

    fn send(&mut self, worker: WorkerId, command: Command) {
        if let Some(outbox) = self.commands.get_mut(worker.index()) {
            outbox.push(command);
        }
    }

    fn broadcast(&mut self, mut command: impl FnMut() -> Command) {
        for outbox in &mut self.commands {
            outbox.push(command());
        }
    }

    fn workers(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..self.config.workers).map(|worker| WorkerId(worker as u8))
    }

    /// The worker that steering gives a flow to.
    fn worker_of(&self, flow: &hoststack_transport::FlowKey) -> WorkerId {
        worker_of(&self.hasher, self.config.workers, flow)
    }

    /// Whether something waits that another thread put there: the second look before sleeping.
    pub(crate) fn has_input(&self) -> bool {
        !self.requests.is_empty()
            || self.reports.iter().any(|inbox| !inbox.is_empty())
            || self.report_batches.iter().any(|batch| !batch.is_empty())
            || self.commands.iter().any(Outbox::can_flush)
            || !self.main_requests.is_empty()
            || self.has_walks()
    }

    /// See [`crate::SingleThreaded::set_tcp_config`].
    pub(crate) fn set_tcp_config(&mut self, config: hoststack_tcp::TcpConfig) {
        self.config.tcp = config;
        self.half_opens.set_config(config);
    }

    /// See [`crate::SingleThreaded::forget_servers`].
    pub(crate) fn forget_servers(&mut self) {
        self.half_opens.forget_servers();
    }

    /// From now on allocations at `point` are refused, or no longer so.
    pub(crate) fn set_refusing(&mut self, point: AllocationPoint, refusing: bool) {
        match point {
            AllocationPoint::HalfOpenSession => {
                let keys: Vec<Key> = self.app_workers.iter().map(|(key, _)| key).collect();
                for key in keys {
                    if let Some(record) = self.app_workers.get_mut(key) {
                        record.half_opens.set_refusing(refusing);
                    }
                }
            }
            AllocationPoint::HalfOpen => {
                self.half_opens.set_refusing(refusing);
                self.kernel.set_refusing(refusing);
            }
            AllocationPoint::Tuple => self.tuples.set_refusing(refusing),
            AllocationPoint::Listener => self.listeners.set_refusing(refusing),
            _ => {}
        }
    }

    /// What to sleep on besides the wake-up.
    pub(crate) fn wait_fd(&self) -> Option<std::os::fd::RawFd> {
        self.kernel.wait_fd()
    }

    /// Counted here because only the thread knows.
    pub(crate) fn note_sleep(&mut self) {
        self.pace.sleeps += 1;
    }

    /// A step that did something ended at `now` after so many microseconds: counted here because only the thread knows.
    pub(crate) fn note_step(&mut self, now: Instant, took_us: u64) {
        self.pace.note_step(now, took_us);
    }

    /// From now on some steps are measured stage by stage.
    pub(crate) fn measure_stages(&mut self, clock: impl StageClock + 'static) {
        self.pace.stages.measure_with(Box::new(clock));
    }

    /// The tape of its steps.
    pub(crate) fn tape(&mut self) -> &mut Tape {
        &mut self.tape
    }

    /// Asserts what must hold between steps.
    pub(crate) fn check_consistency(&self) {
        self.half_opens.check_consistency();
        self.kernel.check_consistency();
        let sessions: usize = self.app_workers.iter().map(|(_, record)| record.half_opens.len()).sum();
        assert_eq!(sessions, self.connects.len(), "every half-open session is found by its connect id");
    }
}

fn worker_of(hasher: &FlowHasher, workers: usize, flow: &hoststack_transport::FlowKey) -> WorkerId {
    let hash = hasher.hash(flow.local.addr, flow.local.port, flow.remote.addr, flow.remote.port);
    WorkerId(hoststack_net::steer::worker_of(hash, workers as u8))
}
