//! A whole stack over the model host, on virtual time, stepped actor by actor; one serves many runs.
//!
//! A *boundary* is a gap between two happenings: a step that did something, or something that the peer or the network
//! did. The peer acts only when the stack has nothing left to do, time moves only when the peer has not either.

use std::fmt::Write;
use std::sync::Arc;

use hoststack::app::{
    AppWorkerId, AttachOptions, CancelError, ConnectId, ConnectOptions, Duration, Endpoint, Instant,
    SessionOptions, WorkerId,
};
use hoststack::tcp::TcpConfig;
use hoststack::{Actor, Query, SessionLimits, Stack, StackConfig, Stepped, Waiting};
use hoststack_transport::Address;

use super::app::{BACK, FRONT, Message, Told, Watched};
use super::cell::{Action, Before, Consumer, FIFO, Interest, OPPOSITE, PeerPlan, REMOTE, Run};
use super::host::{Ended, ModelHost, PeerStep, Script, SocketNumber, State};
use super::oracle;

/// Every connect's deadline.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// The time of an attempt, where it has one.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(300);
/// Before an address is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// Steps that a run may take: some tens are usual.
const STEPS_MAX: usize = 1_000;
/// Jumps of time that a run may take.
const JUMPS_MAX: usize = 100;

/// Something that must hold does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// Fails a run.
macro_rules! broken {
    ($($words:tt)*) => { return Err($crate::establishment::world::Broken(format!($($words)*))) };
}
pub(super) use broken;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The last boundary.
    pub boundaries: usize,
    /// What the app was told and the wire carried, without times: what is the same however things are split in time.
    pub trace: String,
    /// The outcome in a word.
    pub outcome: String,
}

/// The facts of a run so far.
pub struct Facts {
    /// The run.
    pub run: Run,
    /// What the peer does.
    pub plan: PeerPlan,
    /// What the peer of the attempt before does; its socket is the one before.
    pub plan_before: Option<PeerPlan>,
    /// The connect.
    pub connect: ConnectId,
    /// The socket of the last attempt.
    pub back: SocketNumber,
    /// When the connect must have ended, or its last attempt; `None` until main has taken the request.
    pub deadline: Option<Instant>,
    /// The last attempt has begun, if attempts have a time of their own.
    pub has_begun: bool,
    /// All that may be written, in order.
    pub stream: Vec<u8>,
    /// The action was done; whether the outcome was told before, and whether all was there to succeed.
    pub acted: Option<Acted>,
    /// The answer to a cancel.
    pub cancelled: Option<Result<(), CancelError>>,
    /// The end was asked for by the world, after all that the cell is about.
    pub is_ending: bool,
}

impl Facts {
    /// The socket of the attempt under way, or of the last one.
    pub fn current(&self, host: &State) -> Option<SocketNumber> {
        let first = self.back - usize::from(self.plan_before.is_some());
        (first..=self.back).rev().find(|number| host.sock(*number).is_some())
    }
}

/// How things stood when the action was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acted {
    /// The outcome had been told.
    pub told: bool,
    /// The host and the peer had done all that success needs.
    pub ready: bool,
}

/// A stack, its app and its host.
pub struct World {
    host: ModelHost,
    stepped: Stepped,
    app: Watched,
    app_worker: AppWorkerId,
    now: Instant,
    turn: usize,
    /// Main's first step since the connect, in which it takes it.
    taken: Option<Instant>,
    /// Main's and the worker's.
    deadlines: [Option<Instant>; 2],
    steps: usize,
    jumps: usize,
    /// Steps in a row that said they worked and changed nothing that can be seen.
    barren: usize,
    seen: (u64, usize),
    /// Of `told`, what the oracle has looked at.
    looked: usize,
    traced: bool,
    cancels: Vec<Waiting<Result<(), CancelError>>>,
}

fn config() -> StackConfig {
    StackConfig {
        workers: 1,
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
        ..StackConfig::default()
    }
}

impl World {
    /// A stack with the app attached, and nothing under way.
    ///
    /// # Panics
    /// If the stack cannot be built, which is no run's fault.
    pub fn new(traced: bool) -> World {
        let host = ModelHost::default();
        let builder = Stack::builder().config(config()).host(Arc::new(host.clone()));
        let stepped = Stack::stepped(builder).expect("the configuration is good");
        let app = Watched::default();
        let mut attaching = stepped.handle().requests().attach(app.clone(), AttachOptions::named("app"));
        let mut world = World {
            host,
            stepped,
            app,
            app_worker: AppWorkerId(hoststack_transport::Key { slot: 0, generation: 0 }),
            now: Instant::from_millis(1),
            turn: 0,
            taken: None,
            deadlines: [None; 2],
            steps: 0,
            jumps: 0,
            barren: 0,
            seen: (0, 0),
            looked: 0,
            traced,
            cancels: Vec::new(),
        };
        for _ in 0..10 {
            world.step(Actor::Main).expect("nothing has happened yet");
            world.step(Actor::Worker(WorkerId(0))).expect("nothing has happened yet");
        }
        let attached = attaching.try_take().expect("main answers in a step").expect("the options are good");
        world.app_worker = attached.app_workers[0];
        world
    }

    /// Runs one, from a stack that holds nothing to a stack that holds nothing.
    ///
    /// # Errors
    /// What must hold and does not. The world is of no use then.
    pub fn run(&mut self, run: &Run) -> Result<Ran, Broken> {
        self.host.begin();
        if self.traced {
            self.host.state().log = Some(Vec::new());
        }
        *self.app.state() = super::app::State::default();
        (self.steps, self.jumps, self.barren, self.looked, self.seen) = (0, 0, 0, 0, (0, 0));
        let mut facts = self.begin(run)?;
        let boundaries = self.walk(&mut facts)?;
        let outcome = self.finish(&mut facts)?;
        Ok(Ran { boundaries, trace: self.trace(), outcome })
    }

    /// What was noted, if the world was made to.
    pub fn log(&self) -> Vec<String> {
        self.host.state().log.clone().unwrap_or_default()
    }

    /// Names of the host and the app, for the oracle.
    pub fn parts(&self) -> (&ModelHost, &Watched) {
        (&self.host, &self.app)
    }

    /// Now.
    pub fn now(&self) -> Instant {
        self.now
    }

    fn note(&self, words: impl FnOnce() -> String) {
        if self.traced
            && let Some(log) = &mut self.host.state().log
        {
            log.push(format!("{:>10} {}", self.now.as_micros(), words()));
        }
    }

    // ---- Steps ----

    fn step(&mut self, actor: Actor) -> Result<bool, Broken> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            broken!("i6: {STEPS_MAX} steps and it goes on");
        }
        self.now = self.now.plus_micros(1);
        let step = self.stepped.step(actor, self.now);
        self.deadlines[usize::from(actor != Actor::Main)] = step.next_deadline;
        if actor == Actor::Main {
            self.taken.get_or_insert(self.now);
        }
        // Where bugs are planted the oracle of this module stands alone.
        if cfg!(not(feature = "canary")) {
            self.stepped.check_consistency();
        }
        self.note(|| format!("step {actor:?}{}", if step.worked { "" } else { " (nothing to do)" }));
        let seen = (self.host.state().changes, self.app.state().told.len());
        if self.traced {
            for told in &self.app.state().told[self.seen.1..] {
                self.note(|| format!("  app: {told:?}"));
            }
        }
        self.barren = if step.worked && seen == self.seen { self.barren + 1 } else { 0 };
        self.seen = seen;
        oracle::i6_no_spin(self.barren)?;
        Ok(step.worked)
    }

    fn is_awake(&self, actor: Actor) -> bool {
        let deadline = self.deadlines[usize::from(actor != Actor::Main)];
        !self.stepped.is_asleep(actor)
            || deadline.is_some_and(|at| at <= self.now)
            || self.host.state().has_ready()
    }

    /// The next step that does something. `false`: both sleep.
    fn take_turn(&mut self) -> Result<bool, Broken> {
        let mut idle = 0;
        while idle < 2 {
            let actor = if self.turn == 0 { Actor::Main } else { Actor::Worker(WorkerId(0)) };
            self.turn = 1 - self.turn;
            if !self.is_awake(actor) {
                idle += 1;
            } else if self.step(actor)? {
                return Ok(true);
            } else if self.stepped.is_asleep(actor) {
                idle += 1;
            }
            // One that found nothing and does not sleep looks again; steps are bounded.
        }
        Ok(false)
    }

    /// Both sleep, and would whatever woke them: nobody was forgotten (I1).
    fn both_sleep(&mut self) -> Result<(), Broken> {
        let before = self.seen;
        for actor in [Actor::Main, Actor::Worker(WorkerId(0))] {
            let worked = self.step(actor)?;
            oracle::i1_settle_last(worked, self.seen == before)?;
        }
        Ok(())
    }

    /// Steps until both sleep, without boundaries; looks at everything after each step.
    fn settle(&mut self, facts: &mut Facts) -> Result<(), Broken> {
        while self.take_turn()? {
            self.look(facts)?;
        }
        Ok(())
    }

    fn look(&mut self, facts: &mut Facts) -> Result<(), Broken> {
        for waiting in &mut self.cancels {
            facts.cancelled = facts.cancelled.or(waiting.try_take());
        }
        let from = std::mem::replace(&mut self.looked, self.app.state().told.len());
        oracle::after_step(self, facts, from)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.iter().flatten().min().copied()
    }

    /// Jumps to the next deadline. `false`: there is none.
    fn jump(&mut self) -> Result<bool, Broken> {
        let Some(next) = self.next_deadline() else { return Ok(false) };
        self.jumps += 1;
        if self.jumps > JUMPS_MAX {
            broken!("i6: {JUMPS_MAX} deadlines and there are more");
        }
        self.now = self.now.max(next);
        self.note(|| "time passes".to_owned());
        Ok(true)
    }

    // ---- A run ----

    fn begin(&mut self, run: &Run) -> Result<Facts, Broken> {
        let cell = run.cell;
        let is_proxy = cell.consumer == Consumer::Proxy;
        let mut back = usize::from(is_proxy);
        let plan_before = cell.attempt_before().map(|cell| cell.peer_plan(back));
        back += usize::from(plan_before.is_some());
        let plan = cell.peer_plan(back);
        let mut stream = [plan.stage_bytes.clone(), cell.early(), cell.written()].concat();
        if matches!(run.action, Some((Action::Opposite, _))) {
            stream.extend(OPPOSITE);
        }
        {
            let mut app = self.app.state();
            app.consumer = cell.consumer;
            app.reads = matches!(cell.interest, Interest::Read | Interest::Both);
            app.wants_room = matches!(cell.interest, Interest::Write | Interest::Both);
            if !is_proxy {
                app.to_write = cell.written();
            }
        }
        self.cancels.clear();
        let mut facts = Facts {
            run: *run,
            plan,
            plan_before,
            connect: ConnectId::new(0, 0),
            back,
            deadline: None,
            has_begun: false,
            stream,
            acted: None,
            cancelled: None,
            is_ending: false,
        };
        if is_proxy {
            let bytes = cell.written();
            let at_open = if bytes.is_empty() { Vec::new() } else { vec![PeerStep::Bytes(bytes)] };
            self.host.script(Script { at_open, ..Script::plain() });
            self.connect(FRONT, &ConnectOptions::to(remote()), &[])?;
            self.settle(&mut facts)?;
            if !self
                .app
                .state()
                .told
                .iter()
                .any(|(who, told)| *who == FRONT && matches!(told, Told::Connected(Ok(()), _)))
            {
                broken!("the older session of the relay is not up");
            }
        }
        if let Some(plan) = &facts.plan_before {
            self.host.script(plan.script.clone());
        }
        self.host.script(facts.plan.script.clone());
        let mut options = ConnectOptions { stages: cell.plans(), ..ConnectOptions::to(remote()) };
        match cell.before {
            Before::Nothing => {}
            Before::AsyncRefused => {
                (options.rounds, options.retry_delay) = (2, PAUSE);
            }
            before => {
                options.alternatives = vec![remote()];
                options.attempt_timeout = (before == Before::Never).then_some(ATTEMPT_TIMEOUT);
            }
        }
        facts.connect = self.connect(BACK, &options, &cell.early())?;
        self.taken = None;
        Ok(facts)
    }

    fn connect(&mut self, opaque: u64, options: &ConnectOptions, early: &[u8]) -> Result<ConnectId, Broken> {
        let fifos = SessionOptions {
            rx_capacity: FIFO as u32,
            tx_capacity: FIFO as u32,
            ..SessionOptions::default()
        };
        let options = ConnectOptions { opaque, fifos, timeout: TIMEOUT, ..options.clone() };
        let made = self.stepped.handle().connect_with(self.app_worker, options, early);
        self.note(|| format!("connect {opaque}: {made:?}"));
        made.map_err(|error| Broken(format!("the connect is not taken: {error}")))
    }

    /// From the connect until the peer has nothing left to do and the outcome was told; says how many boundaries.
    fn walk(&mut self, facts: &mut Facts) -> Result<usize, Broken> {
        let mut boundary = 0;
        loop {
            if let Some((action, at)) = facts.run.action
                && at == boundary
                && facts.acted.is_none()
            {
                self.act(action, facts)?;
            }
            if self.take_turn()? {
                self.note_deadline(facts);
                self.look(facts)?;
                boundary += 1;
                continue;
            }
            self.both_sleep()?;
            self.look(facts)?;
            if self.peer_acts(facts) {
                boundary += 1;
                continue;
            }
            oracle::at_rest(self, facts, self.next_deadline())?;
            if self.told_outcome() {
                return Ok(boundary);
            }
            oracle::i5_has_wake_source(self, facts, self.next_deadline())?;
            if !self.jump()? {
                broken!("i5: nobody wakes for the deadline");
            }
        }
    }

    /// The connect's deadline, from when main has taken it; the last attempt's, from when that began.
    fn note_deadline(&self, facts: &mut Facts) {
        let deadline = self.taken.map(|taken| taken + TIMEOUT);
        let is_timed = facts.run.cell.before == Before::Never;
        if facts.has_begun || !is_timed || self.host.state().sock(facts.back).is_none() {
            facts.deadline = facts.deadline.or(deadline);
            return;
        }
        facts.has_begun = true;
        facts.deadline = deadline.map(|deadline| deadline.min(self.now + ATTEMPT_TIMEOUT));
    }

    /// Whether the outcome of the connect was told.
    pub fn told_outcome(&self) -> bool {
        let app = self.app.state();
        app.told.iter().any(|(who, told)| *who == BACK && matches!(told, Told::Connected(..)))
    }

    /// The peer or the network does the next thing it has to do. `false`: it has nothing.
    fn peer_acts(&mut self, facts: &mut Facts) -> bool {
        let mut host = self.host.state();
        if let Some(number) = host.socks().iter().position(|sock| sock.can_unblock()) {
            host.unblock(number);
            return true;
        }
        let plans = [
            facts.plan_before.as_mut().map(|plan| (facts.back - 1, plan)),
            Some((facts.back, &mut facts.plan)),
        ];
        for (number, plan) in plans.into_iter().flatten() {
            if let Some(sock) = host.sock(number)
                && sock.ended.is_none()
                && plan.later.first().is_some_and(|(guard, _)| sock.wire.len() >= *guard)
            {
                for step in plan.later.remove(0).1 {
                    host.peer(number, &step);
                }
                return true;
            }
        }
        // A peer that sees the end ends as well.
        let number = host.socks().iter().position(|sock| sock.is_up() && sock.finished && !sock.fin);
        if let Some(number) = number.filter(|number| *number != facts.back || facts.plan.later.is_empty()) {
            host.peer(number, &PeerStep::Fin);
            return true;
        }
        false
    }

    fn act(&mut self, action: Action, facts: &mut Facts) -> Result<(), Broken> {
        self.note(|| format!("ACTION {}", action.name()));
        facts.acted =
            Some(Acted { told: self.told_outcome(), ready: oracle::all_is_there(&self.host.state(), facts) });
        match action {
            Action::AppClose => self.notify(Message::Close),
            Action::AppAbort => self.notify(Message::Abort),
            Action::Cancel => {
                self.cancels.push(self.stepped.handle().requests().cancel(facts.connect));
            }
            Action::Deadline => {
                self.now = self.now.max(facts.deadline.unwrap_or(self.now + TIMEOUT)).plus_micros(1);
            }
            Action::Opposite => {
                let mut host = self.host.state();
                let is_open =
                    |number| host.sock(number).is_none_or(|sock| sock.ended.is_none() && !sock.finished);
                if is_open(0) && is_open(facts.back) && host.sock(0).is_some_and(|sock| !sock.fin) {
                    host.peer(0, &PeerStep::Bytes(OPPOSITE.to_vec()));
                } else {
                    // It comes too late to be sent on.
                    facts.stream.truncate(facts.stream.len() - OPPOSITE.len());
                }
            }
            Action::Spurious => self.host.state().spurious(),
            Action::Again | Action::Short => {
                let mut host = self.host.state();
                if let Some(number) = facts.current(&host) {
                    host.trip(number, action == Action::Short);
                }
            }
        }
        Ok(())
    }

    fn notify(&self, message: Message) {
        // A stack that has stopped is noticed by everything else.
        let _ = self.stepped.handle().notify(self.app_worker, WorkerId(0), Box::new(message));
    }

    /// Everything is ended, as far as it has not by itself, and the stack holds nothing any more.
    fn finish(&mut self, facts: &mut Facts) -> Result<String, Broken> {
        facts.is_ending = true;
        let is_stuck = facts.plan.script.never_opens;
        self.notify(if is_stuck { Message::AbortAll } else { Message::CloseAll });
        loop {
            self.settle(facts)?;
            if self.peer_acts(facts) {
                continue;
            }
            let is_over = self.host.state().socks().iter().all(|sock| sock.ended.is_some());
            if is_over {
                break;
            }
            if !self.jump()? {
                broken!(
                    "i5: a socket stays open though the app has closed everything, and nobody has a deadline"
                );
            }
        }
        // Past the deadline nothing of it is left either.
        self.now = self.now.max(facts.deadline.unwrap_or(self.now)) + Duration::from_millis(1);
        self.settle(facts)?;
        let outcome = oracle::at_end(self, facts)?;
        let mut waiting = self.stepped.handle().requests().inspect(Query::Summary);
        self.settle(facts)?;
        match waiting.try_take() {
            Some(Ok(answer)) if answer.leaks.is_clean() => Ok(outcome),
            Some(Ok(answer)) => broken!("leaks: {:?}", answer.leaks),
            other => broken!("an inspection was answered with {other:?}"),
        }
    }

    /// What the app saw of each session and the peer of each socket, in the order of each.
    fn trace(&self) -> String {
        let mut trace = String::new();
        let app = self.app.state();
        for session in [FRONT, BACK] {
            let mut data: Vec<u8> = Vec::new();
            let _ = write!(trace, "session {session}:");
            for (_, told) in app.told.iter().filter(|(who, _)| *who == session) {
                // How often there is room is a matter of time; cleaning is told on main, while the worker goes on.
                match told {
                    Told::Data(bytes) => data.extend(bytes),
                    Told::Writable | Told::Cleaned => {}
                    other => {
                        let bytes = std::mem::take(&mut data);
                        let _ = write!(trace, " {}", String::from_utf8_lossy(&bytes));
                        let _ = match other {
                            Told::Connected(outcome, _) => write!(trace, " {outcome:?}"),
                            other => write!(trace, " {other:?}"),
                        };
                    }
                }
            }
            trace.push('\n');
        }
        for (number, sock) in self.host.state().socks().iter().enumerate() {
            // How much of it left before it was cut is a matter of time.
            let wire = if sock.ended == Some(Ended::Finished) { &sock.wire[..] } else { b"..." };
            let wire = String::from_utf8_lossy(wire);
            let _ = writeln!(trace, "socket {number}: {wire:?} {:?}", sock.ended);
        }
        trace
    }
}

fn remote() -> Address {
    Address::KernelTcp(Endpoint::from(std::net::SocketAddr::from(REMOTE)))
}
