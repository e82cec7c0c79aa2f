//! One host, stepped actor by actor, and its peer.

use std::sync::Arc;

use hoststack::app::{
    AppId, AppWorkerId, AttachOptions, CancelError, ConnectError, ConnectId, ConnectOptions, DetachError,
    DetachPolicy, DetachReport, Duration, Instant, ListenError, ListenOptions, ListenerId, SessionHandle,
    WorkerDetachReport, WorkerId,
};
use hoststack::net::{Cidr, MemoryWireConfig, memory_wire};
use hoststack::tcp::TcpConfig;
use hoststack::{
    Actor, Answer, EndHow, InterfaceSpec, Query, SessionLimits, Stack, StackConfig, Stepped, Waiting,
};
use hoststack_transport::{AllocationPoint, Key, SessionId};

use super::app::{Message, Shared, Told, Watched};
use super::events::{Burst, Event, Side};
use super::peer::{HOST, HOST_PORT, PEER, PEER_PORT, Peer};

/// Every connect's deadline.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// A port of the peer that is silent.
const SILENT_PORT: u16 = 81;
/// Steps that a case may take: some hundred are usual.
const STEPS_MAX: usize = 5_000;
/// Jumps of time that a case may take.
const JUMPS_MAX: usize = 500;
/// A session handle that names nothing.
const NO_SESSION: SessionHandle = SessionHandle::new(WorkerId(0), SessionId(Key { slot: 0, generation: 77 }));

/// Something that must hold does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// Fails a case.
macro_rules! broken {
    ($($words:tt)*) => { return Err($crate::matrix::world::Broken(format!($($words)*))) };
}
pub(super) use broken;

/// A connect that was made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Its id.
    pub connect: ConnectId,
    /// When it must have ended; `None` until main has taken the request.
    pub deadline: Option<Instant>,
}

/// The world of a case.
pub struct World {
    /// Which side it shows.
    pub side: Side,
    workers: usize,
    stepped: Stepped,
    /// The peer.
    pub peer: Peer,
    /// What the app was told.
    pub app: Arc<Shared>,
    now: Instant,
    /// Whose turn is next: main, the flow's owner, the other workers, the peer.
    turn: usize,
    /// Main's first.
    deadlines: Vec<Option<Instant>>,
    app_id: Option<AppId>,
    app_worker: Option<AppWorkerId>,
    listener: Option<ListenerId>,
    listening: Option<Waiting<Result<ListenerId, ListenError>>>,
    /// The connect of the case.
    pub own: Option<Made>,
    /// Why it could not even be asked for.
    pub own_error: Option<ConnectError>,
    /// Other connects.
    pub rivals: Vec<Made>,
    /// Refused allocations.
    refused: Vec<AllocationPoint>,
    /// Answers that nobody has looked at.
    cancels: Vec<Waiting<Result<(), CancelError>>>,
    unlistens: Vec<Waiting<Result<(), ListenError>>>,
    worker_detaches: Vec<Waiting<Result<WorkerDetachReport, DetachError>>>,
    app_detaches: Vec<Waiting<Result<DetachReport, DetachError>>>,
    steps: usize,
    jumps: usize,
}

fn config(workers: usize, channel_batches: usize) -> StackConfig {
    StackConfig {
        workers,
        seed: Some(7),
        tcp: TcpConfig {
            connections_max: 4,
            half_opens_max: 4,
            syn_received_max: 4,
            time_wait_max: 4,
            listeners_max: 4,
            flows_reserved: 16,
            ..TcpConfig::default()
        },
        sessions: SessionLimits { sessions: 4, chunk_bytes: 64, chunks: 64 },
        apps_max: 2,
        app_workers_max: 2,
        listeners_max: 4,
        rx_burst_max: 16,
        parked_max: 16,
        channel_batches,
        // Time jumps past connects' deadlines here: no worker shall be called stuck for it.
        detach_grace: Duration::from_secs(60),
        ..StackConfig::default()
    }
}

impl World {
    /// A host with `workers` workers to which an app has just been attached on main, and its peer, at `peer_port` if
    /// that is who connects.
    pub fn new(side: Side, workers: usize, channel_batches: usize, peer_port: u16, traced: bool) -> World {
        let (near, far) = memory_wire(MemoryWireConfig { ring_packets: 32, ..MemoryWireConfig::default() });
        let mut peer = match side {
            Side::Connect => Peer::new(far, workers, PEER_PORT, 0),
            Side::Accept => Peer::new(far, workers, peer_port, HOST_PORT),
        };
        peer.trace = traced.then(Vec::new);
        let address = Cidr::new(HOST.into(), 24).expect("cannot fail because 24 <= 32");
        let builder = Stack::builder()
            .config(config(workers, channel_batches))
            .interface(InterfaceSpec::new(near).address(address));
        let stepped = Stack::stepped(builder).expect("the configuration is good");
        let mut world = World {
            side,
            workers,
            stepped,
            peer,
            app: Arc::default(),
            now: Instant::from_millis(1),
            turn: 0,
            deadlines: vec![None; workers + 1],
            app_id: None,
            app_worker: None,
            listener: None,
            listening: None,
            own: None,
            own_error: None,
            rivals: Vec::new(),
            refused: Vec::new(),
            cancels: Vec::new(),
            unlistens: Vec::new(),
            worker_detaches: Vec::new(),
            app_detaches: Vec::new(),
            steps: 0,
            jumps: 0,
        };
        world.attach();
        if side == Side::Accept {
            // A listener is there before anyone connects to it.
            world.settle().expect("nothing has happened yet");
        }
        world
    }

    fn attach(&mut self) {
        let options = AttachOptions { half_opens_max: 1, ..AttachOptions::named("app") };
        let mut attaching = self.stepped.handle().requests().attach(Watched(self.app.clone()), options);
        self.step(Actor::Main).expect("nothing has happened yet");
        let attached = attaching.try_take().expect("main answers in the step").expect("the options are good");
        self.app_id = Some(attached.app);
        let app_worker = attached.app_workers[0];
        self.app_worker = Some(app_worker);
        let listen = ListenOptions::on(std::net::SocketAddr::new(HOST.into(), HOST_PORT));
        self.listening = Some(self.stepped.handle().requests().listen(app_worker, listen));
        self.turn = 0;
    }

    // ---- Time and turns ----

    /// Now.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Writes into the trace, if there is one.
    pub fn note(&mut self, words: impl FnOnce() -> String) {
        let now_us = self.now.as_micros();
        if let Some(trace) = &mut self.peer.trace {
            trace.push(format!("{now_us:>12} us {}", words()));
        }
    }

    /// The worker that owns the flow: the last one, so that what goes to the first by mistake is seen.
    fn owner(&self) -> WorkerId {
        // Cannot cut because a stack has at most 255 workers.
        WorkerId(self.workers as u8 - 1)
    }

    fn index(actor: Actor) -> usize {
        match actor {
            Actor::Main => 0,
            Actor::Worker(worker) => worker.index() + 1,
        }
    }

    fn is_awake(&self, actor: Actor) -> bool {
        !self.stepped.is_asleep(actor) || self.deadlines[World::index(actor)].is_some_and(|at| at <= self.now)
    }

    /// One step of one actor. Says whether it did something.
    fn step(&mut self, actor: Actor) -> Result<bool, Broken> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            broken!("{STEPS_MAX} steps and it goes on");
        }
        self.now = self.now.plus_micros(1);
        let told = if self.peer.trace.is_some() { self.app.told().len() } else { 0 };
        if actor == Actor::Main {
            for made in self.own.iter_mut().chain(&mut self.rivals) {
                made.deadline.get_or_insert(self.now + TIMEOUT);
            }
        }
        let step = self.stepped.step(actor, self.now);
        self.deadlines[World::index(actor)] = step.next_deadline;
        self.stepped.check_consistency();
        if self.peer.trace.is_some() {
            self.note(|| format!("step {actor:?}{}", if step.worked { "" } else { " (nothing to do)" }));
            for told in self.app.told().split_off(told) {
                self.note(|| format!("  app: {told:?}"));
            }
        }
        if let Some(listening) = &mut self.listening
            && let Some(answer) = listening.try_take()
        {
            self.listener = answer.ok();
            self.listening = None;
        }
        Ok(step.worked)
    }

    /// The next turn in which something was done. `false`: everyone sleeps.
    pub fn take_turn(&mut self) -> Result<bool, Broken> {
        let mut idle = 0;
        while idle < 4 {
            let worked = match self.turn {
                0 => self.step_if_awake(Actor::Main)?,
                1 => self.step_if_awake(Actor::Worker(self.owner()))?,
                2 => {
                    let mut did = None;
                    for worker in (0..self.owner().0).map(WorkerId) {
                        let stepped = self.step_if_awake(Actor::Worker(worker))?;
                        did = did.max(stepped);
                    }
                    did
                }
                _ => self.peer.turn(self.now).then_some(true),
            };
            self.turn = (self.turn + 1) % 4;
            match worked {
                Some(true) => return Ok(true),
                Some(false) => idle = 0,
                None => idle += 1,
            }
        }
        Ok(false)
    }

    /// `None`: it sleeps; else whether it did something.
    fn step_if_awake(&mut self, actor: Actor) -> Result<Option<bool>, Broken> {
        if !self.is_awake(actor) {
            return Ok(None);
        }
        self.step(actor).map(Some)
    }

    /// Turns until everyone sleeps, at this time.
    pub fn settle(&mut self) -> Result<(), Broken> {
        while self.take_turn()? {}
        for made in self.connects() {
            if made.deadline.is_some_and(|deadline| deadline < self.now) && !self.has_outcome(made.connect) {
                broken!("connect {} has no outcome after its deadline, and everyone sleeps", made.connect);
            }
        }
        Ok(())
    }

    /// Jumps to the next deadline of anyone. `false`: nobody has one.
    fn jump(&mut self) -> Result<bool, Broken> {
        let next = self.deadlines.iter().flatten().copied().chain(self.peer.deadline()).min();
        for made in self.connects() {
            let is_late = |next| made.deadline.is_none_or(|deadline| deadline < next);
            if next.is_none_or(is_late) && !self.has_outcome(made.connect) {
                broken!("nobody wakes for the deadline of connect {}", made.connect);
            }
        }
        let Some(next) = next else { return Ok(false) };
        self.jumps += 1;
        if self.jumps > JUMPS_MAX {
            broken!("{JUMPS_MAX} deadlines and there are more");
        }
        self.now = self.now.max(next);
        Ok(true)
    }

    /// Turns and jumps until `done`, or until nobody has anything to do, ever.
    pub fn run_until(&mut self, mut done: impl FnMut(&World) -> bool) -> Result<(), Broken> {
        loop {
            self.settle()?;
            if done(self) || !self.jump()? {
                return Ok(());
            }
        }
    }

    /// All connects that were made.
    pub fn connects(&self) -> impl Iterator<Item = &Made> {
        self.own.iter().chain(&self.rivals)
    }

    /// Whether the outcome of a connect was told, or cannot be because the app's object is gone.
    pub fn has_outcome(&self, connect: ConnectId) -> bool {
        self.app.look(|told| {
            told.iter().any(|told| match told {
                Told::Connected(id, ..) | Told::Cleaned(id) => *id == connect,
                _ => false,
            })
        })
    }

    // ---- What a case does ----

    /// The peer or the app opens the connection.
    pub fn begin(&mut self, peer_opens: bool) -> Result<(), Broken> {
        match self.side {
            Side::Connect => {
                match self.connect(PEER_PORT)? {
                    Ok(made) => self.own = Some(made),
                    Err(error) => self.own_error = Some(error),
                }
                Ok(())
            }
            Side::Accept => {
                if peer_opens {
                    self.peer.act(self.now, Burst::Syn);
                }
                Ok(())
            }
        }
    }

    fn connect(&mut self, port: u16) -> Result<Result<Made, ConnectError>, Broken> {
        let Some(app_worker) = self.app_worker else { broken!("no app") };
        let remote = std::net::SocketAddr::new(PEER.into(), port);
        let options =
            ConnectOptions { timeout: TIMEOUT, worker: Some(self.owner()), ..ConnectOptions::to(remote) };
        let made = self.stepped.handle().connect(app_worker, options);
        self.note(|| format!("connect to port {port}: {made:?}"));
        Ok(made.map(|connect| Made { connect, deadline: None }))
    }

    /// The case's session, if the app was told of one.
    pub fn session(&self) -> Option<SessionHandle> {
        self.app.look(|told| {
            told.iter().find_map(|told| match told {
                Told::Connected(_, Ok(session), _) | Told::Accepted(session) => Some(*session),
                _ => None,
            })
        })
    }

    /// An event happens. `false`: it makes no sense here.
    pub fn fire(&mut self, event: Event) -> Result<bool, Broken> {
        self.note(|| format!("EVENT {event}"));
        let (now, Some(app), Some(app_worker)) = (self.now, self.app_id, self.app_worker) else {
            broken!("no app")
        };
        match event {
            Event::Peer(burst) => return Ok(self.peer.act(now, burst)),
            // Past the first retransmission after 1 s, and past the second, 2 s later.
            Event::SynTimer => self.now = now + Duration::from_millis(2_100),
            Event::Deadline => {
                let deadline = self.own.and_then(|made| made.deadline).unwrap_or(now + TIMEOUT);
                self.now = now.max(deadline).plus_micros(1);
            }
            Event::Cancel => {
                let Some(Made { connect, .. }) = self.own else { return Ok(false) };
                self.cancels.push(self.stepped.handle().requests().cancel(connect));
            }
            Event::Close | Event::Reset => {
                let how = if event == Event::Close { EndHow::Close } else { EndHow::Reset };
                let session = self.session().unwrap_or(NO_SESSION);
                self.end_session(session, how);
            }
            Event::DetachWorker => {
                let policy = DetachPolicy::Close { linger: Duration::from_secs(5) };
                self.worker_detaches.push(self.stepped.handle().requests().detach_worker(app_worker, policy));
            }
            Event::DetachApp => {
                self.app_detaches.push(self.stepped.handle().requests().detach(app, DetachPolicy::Reset));
            }
            Event::Unlisten => {
                let Some(listener) = self.listener else { return Ok(false) };
                self.unlistens.push(self.stepped.handle().requests().unlisten(app_worker, listener));
            }
            Event::PoolFull => {
                // Nothing follows an error: the app worker is gone.
                let rival = self.connect(SILENT_PORT)?;
                self.rivals.extend(rival);
            }
            Event::CommandsFull => {
                for _ in 0..2 {
                    self.notify(Message::Nothing);
                    self.step(Actor::Main)?;
                }
            }
            Event::ReportsFull => {
                self.notify(Message::Chatter);
                self.step(Actor::Main)?;
                self.step(Actor::Worker(self.owner()))?;
                self.step(Actor::Worker(self.owner()))?;
            }
            Event::Refuse(point) => {
                self.stepped.set_refusing(point, true);
                self.refused.push(point);
            }
            Event::App(inside) => self.app.set_inside(inside),
        }
        Ok(true)
    }

    /// Allocations succeed again; the owner looks for those that wait.
    pub fn lift(&mut self) -> Result<(), Broken> {
        if self.refused.is_empty() {
            return Ok(());
        }
        for point in std::mem::take(&mut self.refused) {
            self.stepped.set_refusing(point, false);
        }
        self.step(Actor::Worker(self.owner()))?;
        self.settle()
    }

    /// Sends the app's object on the owner a message.
    pub fn notify(&self, message: Message) {
        let Some(app_worker) = self.app_worker else { return };
        // A stack that has stopped is noticed by everything else.
        let _ = self.stepped.handle().notify(app_worker, self.owner(), Box::new(message));
    }

    /// Closes or resets a session through the handle.
    pub fn end_session(&self, session: SessionHandle, how: EndHow) {
        // As above.
        let _ = self.stepped.handle().end_session(session, how);
    }

    /// Cancels a connect and settles; the answer.
    pub fn cancel(&mut self, connect: ConnectId) -> Result<Option<Result<(), CancelError>>, Broken> {
        let mut waiting = self.stepped.handle().requests().cancel(connect);
        self.settle()?;
        Ok(waiting.try_take())
    }

    /// Detaches the application, if it is still there, and runs until nothing is left to do.
    pub fn detach(&mut self) -> Result<(), Broken> {
        let Some(app) = self.app_id else { broken!("no app") };
        let policy = DetachPolicy::Close { linger: Duration::from_secs(5) };
        self.app_detaches.push(self.stepped.handle().requests().detach(app, policy));
        self.run_until(|world| world.app.look(|told| told.contains(&Told::Detached)))
    }

    /// Asks the stack for its figures.
    pub fn inspect(&mut self) -> Result<Answer, Broken> {
        let mut waiting = self.stepped.handle().requests().inspect(Query::Summary);
        self.settle()?;
        match waiting.try_take() {
            Some(Ok(answer)) => Ok(answer),
            other => broken!("an inspection was answered with {other:?}"),
        }
    }

    /// Every request got its answer.
    pub fn check_answers(&mut self) -> Result<(), Broken> {
        let unanswered = self.cancels.iter_mut().filter_map(|w| w.try_take().is_none().then_some("cancel"));
        let mut unanswered: Vec<&str> = unanswered.collect();
        unanswered
            .extend(self.unlistens.iter_mut().filter_map(|w| w.try_take().is_none().then_some("unlisten")));
        unanswered.extend(
            self.worker_detaches.iter_mut().filter_map(|w| w.try_take().is_none().then_some("detach_worker")),
        );
        unanswered
            .extend(self.app_detaches.iter_mut().filter_map(|w| w.try_take().is_none().then_some("detach")));
        if unanswered.is_empty() {
            return Ok(());
        }
        broken!("requests were never answered: {unanswered:?}")
    }
}
