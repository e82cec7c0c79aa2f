//! The thread that owns the stack and its clock, and answers calls in the order in which they come.
//!
//! One thread, because a stack must not change hands; so packetdrill's two threads need no lock, and one that waits
//! really sleeps. The clock moves only in [`Call::Clock`], [`Call::Sleep`] and [`Call::NetReceive`].

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder as ThreadBuilder, JoinHandle};

use hoststack::app::{
    Address, AppId, AppWorker, AppWorkerId, Application, AttachOptions, CloseReason, ConnectFailure,
    ConnectId, Context, DetachPolicy, Instant, ListenError, ListenerId, MainContext, SessionHandle, WorkerId,
};
use hoststack::net::Cidr;
use hoststack::tcp::TcpConfig;
use hoststack::{EndHow, InterfaceSpec, Query, SessionLimits, SingleThreaded, Stack, StackConfig};
use hoststack_wire::{ipv4, ipv6};
use parking_lot::Mutex;

use crate::call::{Answer, Call, Out};
use crate::device::FarEnd;
use crate::flags::Flags;
use crate::settings::Settings;
use crate::shell::{self, Row, World};
use crate::sockets::{Attempt, Sockets};
use crate::watch::Ends;

/// The clock at the start: not zero, so that "before" exists.
const EPOCH_US: u64 = 1_000_000;
/// After the script the clock runs this far for what ends by itself (TIME-WAIT, FIN-WAIT-2).
const END_US: u64 = 130_000_000;

/// A call, on its way to the stack's thread.
struct Request {
    call: Call,
    answer: Sender<Answer>,
    /// Nobody else moves the clock while this call waits.
    is_alone: bool,
}

/// A running stack, from any thread.
#[derive(Clone)]
pub struct Handle {
    requests: Sender<Request>,
}

impl Handle {
    /// Makes a call and sleeps until it is answered.
    ///
    /// # Panics
    /// When the stack's thread has ended: after [`Call::Free`], or because it panicked.
    pub fn call(&self, call: Call) -> Answer {
        self.ask(call, false)
    }

    /// The same for the thread that runs the script: nobody else moves the clock, so a call that must wait runs it until
    /// it is answered; at the cap it is interrupted.
    ///
    /// # Panics
    /// As [`Handle::call`].
    pub fn call_alone(&self, call: Call) -> Answer {
        self.ask(call, true)
    }

    fn ask(&self, call: Call, is_alone: bool) -> Answer {
        let (answer, wait) = channel();
        self.requests.send(Request { call, answer, is_alone }).expect("the stack runs until it is freed");
        wait.recv().expect("the stack answers every call unless it panics")
    }
}

/// Starts a stack.
///
/// # Errors
/// Why there can be none, in words.
pub fn start(flags: Flags) -> Result<(Handle, JoinHandle<()>), String> {
    let (requests, inbox) = channel();
    let (ready, is_ready) = channel();
    let thread = ThreadBuilder::new()
        .name("hoststack".into())
        .spawn(move || match Driver::new(flags) {
            Ok(driver) => {
                let _ = ready.send(Ok(()));
                driver.run(&inbox);
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        })
        .map_err(|error| format!("a thread: {error}"))?;
    is_ready.recv().map_err(|_| "the stack panicked at its start".to_owned())??;
    Ok((Handle { requests }, thread))
}

/// A call that waits.
struct Waiting {
    call: Call,
    since: Instant,
    until: Option<Instant>,
    answer: Sender<Answer>,
}

/// What a worker is told to do with the sockets.
enum Task {
    /// Try a call.
    Try { call: Call, expired: bool, result: Sender<(Call, Attempt)> },
    /// The congestion windows of connections.
    Windows(Sender<Vec<(Ends, u32)>>),
    /// List the sockets that are open.
    Rows(Sender<Vec<(Row, Option<SessionHandle>)>>),
}

/// The stack, once something needs it: only then the settings of the script's init command are known.
struct Running {
    stack: SingleThreaded,
    app: AppId,
    app_worker: AppWorkerId,
}

struct Driver {
    flags: Flags,
    /// The time while there is no stack.
    before: Instant,
    running: Option<Running>,
    far_end: FarEnd,
    sockets: Arc<Mutex<Sockets>>,
    settings: Settings,
    waiting: Vec<Waiting>,
}

impl Driver {
    fn new(flags: Flags) -> Result<Driver, String> {
        let far_end = FarEnd::default();
        {
            let mut watch = far_end.watch.lock();
            watch.moves_push = !flags.keeps_push();
            // Headers of IPv4 and TCP; cannot cut: an MTU is at most 65535.
            watch.mss_v4 = (flags.mtu - 40) as u32;
        }
        let sockets = Arc::new(Mutex::new(Sockets::new(flags.clone(), far_end.watch.clone())));
        let settings = Settings::new(flags.profile);
        let mut driver = Driver {
            before: Instant::from_micros(EPOCH_US),
            running: None,
            far_end,
            sockets,
            settings,
            waiting: Vec::new(),
            flags,
        };
        // What cannot be built is to be known before the script runs: with its first settings it is thrown away.
        driver.build()?;
        driver.running = None;
        Ok(driver)
    }

    /// Builds the stack with the settings as they are now.
    fn build(&mut self) -> Result<(), String> {
        let ours = self.sockets.lock().ours.clone();
        let interface = interface(&self.far_end, self.flags.mtu, &ours)?;
        let builder = Stack::builder().config(config(&self.flags, &self.settings)).interface(interface);
        let mut stack = Stack::single_threaded(builder).map_err(|error| error.to_string())?;
        stack.use_virtual_time_from(self.before);
        let app = SocketApp { sockets: self.sockets.clone() };
        let attached = stack
            .attach(app, AttachOptions::named("sockets"))
            .map_err(|error| format!("attaching the sockets: {error}"))?;
        let app_worker = attached.app_workers[0];
        self.running = Some(Running { stack, app: attached.app, app_worker });
        Ok(())
    }

    /// Has the stack work by the settings, and the listeners' options, as they are now.
    fn reconfigure(&mut self) {
        let keys = self.sockets.lock().fast_open_keys();
        if let Some(running) = &mut self.running {
            let tcp = self.settings.tcp();
            running.stack.set_tcp_config(match keys {
                [None, _] => tcp,
                [key, previous] => TcpConfig {
                    fast_open_key: key.map(Into::into),
                    fast_open_key_previous: previous.map(Into::into),
                    ..tcp
                },
            });
        }
    }

    fn running(&mut self) -> &mut Running {
        if self.running.is_none() {
            self.build().expect("cannot fail because it was built once before");
        }
        self.running.as_mut().expect("cannot fail because it was just built")
    }

    fn now(&self) -> Instant {
        self.running.as_ref().map_or(self.before, |running| running.stack.now())
    }

    fn run(mut self, inbox: &Receiver<Request>) {
        while let Ok(Request { call, answer, is_alone }) = inbox.recv() {
            self.end_burst();
            match call {
                Call::Free => {
                    let _ = answer.send(self.free());
                    return;
                }
                Call::Clock => {
                    // 1 us a call: packetdrill spins on this until its moment has come.
                    self.run_to(self.now().plus_micros(1));
                    let _ = answer.send(Answer::with(0, Out::Time(self.now().as_micros())));
                }
                Call::Sleep(us) => {
                    self.run_to(self.now().plus_micros(us));
                    let _ = answer.send(Answer::number(0));
                }
                Call::NetSend(packet) => {
                    self.learn(&packet);
                    self.running();
                    self.far_end.send(packet, self.now().as_micros());
                    self.settle();
                    let _ = answer.send(Answer::number(0));
                }
                Call::NetReceive => {
                    let received = self.receive();
                    let _ = answer.send(received);
                }
                Call::System(text) => {
                    let (status, output) = shell::run(&mut self, &text);
                    self.sockets.lock().settings = self.settings.clone();
                    self.reconfigure();
                    self.far_end.watch.lock().group_min = self.settings.group_min();
                    self.settle();
                    let _ = answer.send(Answer::with(status.into(), Out::Text(output)));
                }
                Call::Await(us) => {
                    self.await_waiting(us);
                    let _ = answer.send(Answer::number(0));
                }
                call => {
                    if let Call::Bind(_, addr) = &call {
                        self.learn_local(Some(addr.ip().to_canonical()));
                    }
                    let is_early = self.running.is_none();
                    let early = if is_early { self.sockets.lock().without_stack(&call) } else { None };
                    match early {
                        Some(done) => _ = answer.send(done),
                        None => {
                            let may_change_keys =
                                matches!(call, Call::SetOption(..) | Call::Close(_) | Call::Listen(..));
                            self.begin(call, answer);
                            if may_change_keys {
                                self.reconfigure();
                            }
                            self.settle();
                            if is_alone && !self.waiting.is_empty() {
                                self.interrupt_at_cap();
                            }
                        }
                    }
                }
            }
        }
        // packetdrill ends without freeing when a script fails; the process goes with it.
    }

    /// Before there is a stack, a script's first packet tells our address, which `--so_flags` may not.
    fn learn(&mut self, packet: &[u8]) {
        let local: Option<IpAddr> = match packet.first().map(|byte| byte >> 4) {
            Some(4) => ipv4::Header::parse(packet).ok().map(|(header, _)| header.dst.into()),
            Some(6) => ipv6::Header::parse(packet).ok().map(|(header, _)| header.dst.into()),
            _ => None,
        };
        self.learn_local(local);
    }

    /// An address that a script binds to before there is a stack is ours.
    fn learn_local(&mut self, local: Option<IpAddr>) {
        let mut sockets = self.sockets.lock();
        if self.running.is_none()
            && let Some(local) = local
            && !local.is_unspecified()
            && !sockets.ours.contains(&local)
        {
            // Instead of the one that was assumed, which may even be the peer's.
            let assumed = [self.flags.local_v4.into(), self.flags.local_v6.into()];
            sockets.ours.retain(|addr| addr.is_ipv4() != local.is_ipv4() || !assumed.contains(addr));
            sockets.ours.push(local);
        }
    }

    // ---- Time ----

    /// Lets everything happen that can happen now: the stack's work, and calls that can be answered by it. Returns
    /// the next deadline of either.
    fn settle(&mut self) -> Option<Instant> {
        let Some(running) = &mut self.running else { return None };
        let _ = running.stack.settle();
        // Room in a send buffer is announced by nobody: calls that wait are looked at once in any case.
        self.retry();
        loop {
            let step = self.running().stack.settle();
            if !self.sockets.lock().take_changed() && !self.is_any_expired() {
                let waiting = self.waiting.iter().filter_map(|waiting| waiting.until);
                return step.next_deadline.into_iter().chain(waiting).min();
            }
            self.retry();
        }
    }

    fn is_any_expired(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.until.is_some_and(|until| until <= self.now()))
    }

    /// Moves the clock on, from deadline to deadline.
    fn run_to(&mut self, target: Instant) {
        while self.hop(target) {}
    }

    /// Moves the clock to the next deadline, or to `target` if that is earlier, and lets happen what is due then.
    /// Whether there is anything left to do until `target`.
    fn hop(&mut self, target: Instant) -> bool {
        let now = self.now();
        // A deadline that has passed and is still there would hold the clock for ever.
        let deadline = self.settle();
        self.end_burst();
        let next = deadline.map_or(target, |deadline| deadline.max(now.plus_micros(1))).min(target);
        match &mut self.running {
            Some(running) => running.stack.advance(next.since(now)),
            None => self.before = next.max(now),
        }
        self.settle();
        next < target
    }

    fn receive(&mut self) -> Answer {
        let cap = self.now().plus_micros(self.flags.cap_us);
        loop {
            let deadline = self.settle();
            if let Some(error) = self.far_end.wrong() {
                return Answer { result: -1, out: Out::Text(error), ..Answer::default() };
            }
            self.end_burst();
            if let Some(sent) = self.far_end.take() {
                return Answer::with(0, Out::Packet(sent.packet, sent.at_us));
            }
            if deadline.is_none_or(|deadline| deadline > cap) || self.now() >= cap {
                return Answer::with(0, Out::Packet(Vec::new(), self.now().as_micros()));
            }
            self.hop(cap);
        }
    }

    /// Runs the clock until the call that was made last is answered; gives it up at the cap.
    fn interrupt_at_cap(&mut self) {
        let cap = self.now().plus_micros(self.flags.cap_us);
        let count = self.waiting.len();
        while self.waiting.len() == count && self.now() < cap {
            if self.settle().is_none() {
                break;
            }
            self.hop(cap);
        }
        if self.waiting.len() == count
            && let Some(last) = self.waiting.pop()
        {
            let _ = last.answer.send(Answer::error(libc::EINTR));
        }
    }

    /// Runs the clock until one of the calls that wait is answered.
    fn await_waiting(&mut self, us: u64) {
        let count = self.waiting.len();
        let until = self.now().plus_micros(us);
        while count > 0 && self.waiting.len() == count && self.now() < until {
            self.hop(until);
        }
    }

    // ---- Calls on sockets ----

    /// Tries a call for the first time; what must wait is kept.
    fn begin(&mut self, call: Call, answer: Sender<Answer>) {
        match self.attempt(call, false) {
            (_, Attempt::Done(done)) => _ = answer.send(done),
            (call, Attempt::Wait(timeout)) => {
                let until = timeout.map(|timeout| self.now() + timeout);
                self.waiting.push(Waiting { call, since: self.now(), until, answer });
            }
        }
    }

    /// Tries the calls that wait again, in the order in which they were made.
    fn retry(&mut self) {
        for Waiting { call, since, until, answer } in std::mem::take(&mut self.waiting) {
            let now = self.now();
            match self.attempt(call, until.is_some_and(|until| until <= now)) {
                (_, Attempt::Done(done)) => {
                    // What waited for no time at all did not sleep, as far as packetdrill can tell.
                    let woken_at_us = (now > since).then_some(now.as_micros());
                    let _ = answer.send(Answer { woken_at_us, ..done });
                }
                (call, Attempt::Wait(_)) => self.waiting.push(Waiting { call, since, until, answer }),
            }
        }
    }

    /// Has the app worker try a call: only inside a callback are there sessions to work on.
    fn attempt(&mut self, call: Call, expired: bool) -> (Call, Attempt) {
        let (result, tried) = channel();
        self.inside(Task::Try { call, expired, result }, &tried)
    }

    /// Has the app worker do something, and waits for what comes of it.
    fn inside<T>(&mut self, task: Task, result: &Receiver<T>) -> T {
        self.far_end.look();
        let Running { stack, app_worker, .. } = self.running();
        stack
            .notify(*app_worker, WorkerId(0), Box::new(task))
            .expect("cannot fail because the stack is stopped by nobody but free()");
        loop {
            let step = stack.step();
            if let Ok(result) = result.try_recv() {
                return result;
            }
            assert!(step.worked, "a message for the sockets is delivered while there is something to do");
        }
    }

    /// What was sent until now was sent at once.
    fn end_burst(&mut self) {
        if self.running.is_some() && self.far_end.has_burst() {
            let (result, windows) = channel();
            let windows = self.inside(Task::Windows(result), &windows);
            let mut watch = self.far_end.watch.lock();
            for (ends, cwnd) in windows {
                watch.flow_mut(ends).cwnd = cwnd;
            }
        }
        self.far_end.end_burst();
    }

    fn rows_with_sessions(&mut self) -> Vec<(Row, Option<SessionHandle>)> {
        if self.running.is_none() {
            return Vec::new();
        }
        let (result, rows) = channel();
        self.inside(Task::Rows(result), &rows)
    }

    // ---- The end ----

    /// Ends everything, as a process that exits; says what the stack still holds then.
    fn free(&mut self) -> Answer {
        self.waiting.clear();
        self.settle();
        let failed = |why: String| Answer { result: -1, out: Out::Text(why), ..Answer::default() };
        if let Some(error) = self.far_end.wrong() {
            return failed(error);
        }
        let unseen = self.far_end.left();
        if self.flags.reports_left && !unseen.is_empty() {
            return failed(format!("{} packets were sent that the script does not name", unseen.len()));
        }
        let Some(Running { stack, app, .. }) = &mut self.running else {
            self.sockets.lock().forget_descriptors();
            return Answer::number(0);
        };
        let detached = stack.detach(*app, DetachPolicy::Reset);
        self.sockets.lock().forget_descriptors();
        self.run_to(self.now().plus_micros(END_US));
        let left = match (detached, self.running().stack.inspect(Query::Summary)) {
            (Ok(_), Ok(answer)) if answer.leaks.is_clean() && answer.time_wait == 0 => {
                return Answer::number(0);
            }
            (Ok(_), Ok(answer)) => format!("{:?}, {} in TIME-WAIT", answer.leaks, answer.time_wait),
            (detached, inspected) => format!("{:?} {:?}", detached.err(), inspected.err()),
        };
        failed(format!("the stack holds something at the end: {left}"))
    }
}

impl World for Driver {
    fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    fn rows(&mut self) -> Vec<Row> {
        self.rows_with_sessions().into_iter().map(|(row, _)| row).collect()
    }

    fn counters(&mut self) -> Vec<(String, u64)> {
        let Some(running) = &mut self.running else { return Vec::new() };
        let workers = running.stack.inspect(Query::Summary).map(|answer| answer.workers).unwrap_or_default();
        let tcp = workers.iter().flat_map(|worker| worker.tcp.iter().cloned());
        let drops = workers.iter().flat_map(|worker| worker.drops.iter());
        let all = tcp.chain(drops.map(|drop| (drop.reason.clone(), drop.count)));
        all.map(|(name, count)| (linux_name(&name).map_or(name, str::to_owned), count)).collect()
    }

    fn drop_connections(&mut self, test: &dyn Fn(&Row) -> bool) -> usize {
        let sessions: Vec<SessionHandle> = self
            .rows_with_sessions()
            .into_iter()
            .filter(|(row, _)| test(row))
            .filter_map(|(_, session)| session)
            .collect();
        for session in &sessions {
            self.sockets.lock().on_dropped(*session);
            let _ = self.running().stack.end_session(*session, EndHow::Reset);
        }
        sessions.len()
    }

    fn flush_metrics(&mut self) {
        self.far_end.watch.lock().forget_cookies();
        if let Some(running) = &mut self.running {
            running.stack.forget_servers();
        }
    }
}

/// The name that `nstat` has for a counter or a drop reason of the stack.
fn linux_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "segments_in" => "TcpInSegs",
        "segments_out" => "TcpOutSegs",
        "retransmitted_segments" => "TcpRetransSegs",
        "resets_out" => "TcpOutRsts",
        "resets_in" => "TcpEstabResets",
        "active_opens" => "TcpActiveOpens",
        "passive_opens" => "TcpPassiveOpens",
        "rtos" => "TcpExtTCPTimeouts",
        "tail_probes" => "TcpExtTCPLossProbes",
        "dsacks_in" => "TcpExtTCPDSACKRecv",
        "challenge_acks_out" => "TcpExtTCPChallengeACK",
        "delayed_acks" => "TcpExtDelayedACKs",
        "fast_opens_in" => "TcpExtTCPFastOpenPassive",
        "fast_opens_out" => "TcpExtTCPFastOpenActive",
        "icmp-out-of-window" => "TcpExtOutOfWindowIcmps",
        "paws" => "TcpExtPAWSEstab",
        _ => return None,
    })
}

/// The stack's limits and habits.
fn config(flags: &Flags, settings: &Settings) -> StackConfig {
    // A script is small: limits of its size are taken in no time.
    let sessions = SessionLimits { sessions: 4096, chunks: 1 << 16, ..SessionLimits::default() };
    let tcp = settings.tcp();
    StackConfig { workers: 1, tcp, sessions, pin: false, seed: Some(flags.seed), ..StackConfig::default() }
}

fn interface(far_end: &FarEnd, mtu: usize, ours: &[IpAddr]) -> Result<InterfaceSpec, String> {
    let cidr = |addr: IpAddr, prefix: u8| -> Result<Cidr, String> {
        format!("{addr}/{prefix}").parse().map_err(|error| format!("{addr}/{prefix}: {error}"))
    };
    let mut spec = InterfaceSpec::new(far_end.device(mtu));
    for addr in ours {
        spec = spec.address(cidr(*addr, if addr.is_ipv4() { 16 } else { 64 })?);
    }
    // Whoever a script talks to is at the other end of the device.
    for everybody in ["0.0.0.0/0", "::/0"] {
        let route: Cidr = everybody.parse().map_err(|error| format!("{everybody}: {error}"))?;
        spec = spec.route(route, None);
    }
    Ok(spec)
}

/// The builtin app behind the sockets: it notes what it is told; calls do the rest.
struct SocketApp {
    sockets: Arc<Mutex<Sockets>>,
}

impl Application for SocketApp {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(SocketWorker { sockets: self.sockets.clone() })
    }

    fn listening(
        &mut self,
        _ctx: &mut MainContext<'_>,
        opaque: u64,
        result: Result<(ListenerId, Address), ListenError>,
    ) {
        self.sockets.lock().on_listening(opaque, result.map(|(listener, _)| listener));
    }
}

struct SocketWorker {
    sockets: Arc<Mutex<Sockets>>,
}

impl AppWorker for SocketWorker {
    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.sockets.lock().on_accepted(ctx, session);
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        self.sockets.lock().on_connected(ctx, opaque, outcome);
    }

    fn readable(&mut self, _ctx: &mut Context<'_>, session: SessionHandle) {
        self.sockets.lock().on_activity(session);
    }

    fn writable(&mut self, _ctx: &mut Context<'_>, session: SessionHandle) {
        self.sockets.lock().on_activity(session);
    }

    fn peer_closed(&mut self, _ctx: &mut Context<'_>, session: SessionHandle) {
        self.sockets.lock().on_peer_closed(session);
    }

    fn reset(&mut self, _ctx: &mut Context<'_>, session: SessionHandle, reason: CloseReason) {
        self.sockets.lock().on_reset(session, reason);
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, _opaque: u64, reason: CloseReason) {
        self.sockets.lock().on_closed(ctx, session, reason);
    }

    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn std::any::Any + Send>) {
        let Ok(message) = message.downcast::<Task>() else { return };
        // The driver waits for the result, unless it ended.
        match *message {
            Task::Try { mut call, expired, result } => {
                let attempt = self.sockets.lock().attempt(ctx, &mut call, expired);
                let _ = result.send((call, attempt));
            }
            Task::Windows(result) => _ = result.send(self.sockets.lock().windows(ctx)),
            Task::Rows(result) => _ = result.send(self.sockets.lock().rows(ctx)),
        }
    }
}
