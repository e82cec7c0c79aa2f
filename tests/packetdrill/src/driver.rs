//! The thread that owns the stack and its clock, and answers calls in the order in which they come.
//!
//! One thread, because a stack must not change hands; so packetdrill's two threads need no lock, and one that waits
//! really sleeps. The clock moves only in [`Call::Clock`], [`Call::Sleep`] and [`Call::NetReceive`].

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder as ThreadBuilder, JoinHandle};

use hoststack::app::{
    AppId, AppWorker, AppWorkerId, Application, AttachOptions, CloseReason, ConnectFailure, ConnectId,
    Context, DetachPolicy, Duration, Endpoint, Instant, ListenError, ListenerId, MainContext, SessionHandle,
    WorkerId,
};
use hoststack::net::Cidr;
use hoststack::tcp::TcpConfig;
use hoststack::{InterfaceSpec, Query, SessionLimits, SingleThreaded, Stack, StackConfig};
use parking_lot::Mutex;

use crate::call::{Answer, Call, Out};
use crate::device::{FarEnd, verify};
use crate::flags::{Flags, Profile};
use crate::sockets::{Attempt, Sockets};
use crate::tcp_info::encode;

/// The clock at the start: not zero, so that "before" exists.
const EPOCH_US: u64 = 1_000_000;
/// After the script the clock runs this far for what ends by itself (TIME-WAIT, FIN-WAIT-2).
const END_US: u64 = 130_000_000;

/// A call and where its answer goes.
type Request = (Call, Sender<Answer>);

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
        let (answer, wait) = channel();
        self.requests.send((call, answer)).expect("the stack runs until it is freed");
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
struct Try {
    call: Call,
    expired: bool,
    result: Sender<(Call, Attempt)>,
}

struct Driver {
    flags: Flags,
    stack: SingleThreaded,
    app: AppId,
    app_worker: AppWorkerId,
    far_end: FarEnd,
    sockets: Arc<Mutex<Sockets>>,
    waiting: Vec<Waiting>,
}

impl Driver {
    fn new(flags: Flags) -> Result<Driver, String> {
        let far_end = FarEnd::default();
        let interface = interface(&flags, &far_end)?;
        let builder = Stack::builder().config(config(&flags)).interface(interface);
        let mut stack = Stack::single_threaded(builder).map_err(|error| error.to_string())?;
        stack.use_virtual_time_from(Instant::from_micros(EPOCH_US));
        let sockets = Arc::new(Mutex::new(Sockets::new(flags.clone())));
        let app = SocketApp { sockets: sockets.clone() };
        let attached = stack
            .attach(app, AttachOptions::named("sockets"))
            .map_err(|error| format!("attaching the sockets: {error}"))?;
        let app_worker = attached.app_workers[0];
        Ok(Driver { flags, stack, app: attached.app, app_worker, far_end, sockets, waiting: Vec::new() })
    }

    fn run(mut self, inbox: &Receiver<Request>) {
        while let Ok((call, answer)) = inbox.recv() {
            match call {
                Call::Free => {
                    let _ = answer.send(self.free());
                    return;
                }
                Call::Clock => {
                    // 1 us a call: packetdrill spins on this until its moment has come.
                    self.run_to(self.stack.now().plus_micros(1));
                    let now = self.stack.now().as_micros();
                    let _ = answer.send(Answer::with(0, Out::Time(now)));
                }
                Call::Sleep(us) => {
                    self.run_to(self.stack.now().plus_micros(us));
                    let _ = answer.send(Answer::number(0));
                }
                Call::NetSend(packet) => {
                    self.far_end.send(packet);
                    self.settle();
                    let _ = answer.send(Answer::number(0));
                }
                Call::NetReceive => {
                    let received = self.receive();
                    let _ = answer.send(received);
                }
                Call::TcpInfo(fd, room) => {
                    let _ = answer.send(self.tcp_info(fd, room));
                }
                call => {
                    self.begin(call, answer);
                    self.settle();
                }
            }
        }
        // packetdrill ends without freeing when a script fails; the process goes with it.
    }

    // ---- Time ----

    /// Lets everything happen that can happen now: the stack's work, and calls that can be answered by it. Returns
    /// the next deadline of either.
    fn settle(&mut self) -> Option<Instant> {
        let _ = self.stack.settle();
        // Room in a send buffer is announced by nobody: calls that wait are looked at once in any case.
        self.retry();
        loop {
            let step = self.stack.settle();
            if !self.sockets.lock().take_changed() && !self.is_any_expired() {
                let waiting = self.waiting.iter().filter_map(|waiting| waiting.until);
                return step.next_deadline.into_iter().chain(waiting).min();
            }
            self.retry();
        }
    }

    fn is_any_expired(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.until.is_some_and(|until| until <= self.stack.now()))
    }

    /// Moves the clock on, from deadline to deadline.
    fn run_to(&mut self, target: Instant) {
        while self.hop(target) {}
    }

    /// Moves the clock to the next deadline, or to `target` if that is earlier, and lets happen what is due then.
    /// Whether there is anything left to do until `target`.
    fn hop(&mut self, target: Instant) -> bool {
        let now = self.stack.now();
        // A deadline that has passed and is still there would hold the clock for ever.
        let next = self.settle().map_or(target, |deadline| deadline.max(now.plus_micros(1))).min(target);
        self.stack.advance(next.since(now));
        self.settle();
        next < target
    }

    fn receive(&mut self) -> Answer {
        let cap = self.stack.now().plus_micros(self.flags.cap_us);
        loop {
            let deadline = self.settle();
            if let Some(sent) = self.far_end.take() {
                return match verify(&sent.packet) {
                    Ok(()) => Answer::with(0, Out::Packet(sent.packet, sent.at_us)),
                    Err(error) => Answer { result: -1, out: Out::Text(error), ..Answer::default() },
                };
            }
            if deadline.is_none_or(|deadline| deadline > cap) || self.stack.now() >= cap {
                return Answer::with(0, Out::Packet(Vec::new(), self.stack.now().as_micros()));
            }
            self.hop(cap);
        }
    }

    // ---- Calls on sockets ----

    /// Tries a call for the first time; what must wait is kept.
    fn begin(&mut self, call: Call, answer: Sender<Answer>) {
        match self.attempt(call, false) {
            (_, Attempt::Done(done)) => _ = answer.send(done),
            (call, Attempt::Wait(timeout)) => {
                let until = timeout.map(|timeout| self.stack.now() + timeout);
                self.waiting.push(Waiting { call, since: self.stack.now(), until, answer });
            }
        }
    }

    /// Tries the calls that wait again, in the order in which they were made.
    fn retry(&mut self) {
        for Waiting { call, since, until, answer } in std::mem::take(&mut self.waiting) {
            let now = self.stack.now();
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
        let message = Box::new(Try { call, expired, result });
        self.stack
            .notify(self.app_worker, WorkerId(0), message)
            .expect("cannot fail because the stack is stopped by nobody but free()");
        loop {
            let step = self.stack.step();
            if let Ok(tried) = tried.try_recv() {
                return tried;
            }
            assert!(step.worked, "a message for the sockets is delivered while there is something to do");
        }
    }

    fn tcp_info(&mut self, fd: i32, room: usize) -> Answer {
        let session = match self.sockets.lock().session(fd) {
            Ok(session) => session,
            Err(errno) => return Answer::error(errno),
        };
        let asked = self.stack.inspect(Query::Sessions { limit: usize::MAX, verbose: true });
        let sessions = asked.map(|answer| answer.sessions).unwrap_or_default();
        let info =
            sessions.iter().find(|info| session.is_some_and(|session| info.handle == session.as_u64()));
        let variables = info.map_or("", |info| info.transport.as_str());
        Answer::with(0, Out::Bytes(encode(variables, room)))
    }

    // ---- The end ----

    /// Ends everything, as a process that exits; says what the stack still holds then.
    fn free(&mut self) -> Answer {
        self.waiting.clear();
        self.settle();
        let detached = self.stack.detach(self.app, DetachPolicy::Reset);
        self.sockets.lock().forget_descriptors();
        self.run_to(self.stack.now().plus_micros(END_US));
        let left = match (detached, self.stack.inspect(Query::Summary)) {
            (Ok(_), Ok(answer)) if answer.leaks.is_clean() && answer.time_wait == 0 => {
                return Answer::number(0);
            }
            (Ok(_), Ok(answer)) => format!("{:?}, {} in TIME-WAIT", answer.leaks, answer.time_wait),
            (detached, inspected) => format!("{:?} {:?}", detached.err(), inspected.err()),
        };
        Answer {
            result: -1,
            out: Out::Text(format!("the stack holds something at the end: {left}")),
            ..Answer::default()
        }
    }
}

/// The stack's limits and habits.
fn config(flags: &Flags) -> StackConfig {
    let linux = TcpConfig { connections_max: 4096, half_opens_max: 4096, ..TcpConfig::default() };
    let tcp = match flags.profile {
        Profile::Linux => linux,
        Profile::FreeBsd => {
            TcpConfig { rto_min: Duration::from_millis(230), quick_acks: 0, syn_ack_retries: 3, ..linux }
        }
    };
    // A script is small: limits of its size are taken in no time.
    let sessions = SessionLimits { sessions: 4096, chunks: 1 << 16, ..SessionLimits::default() };
    StackConfig { workers: 1, tcp, sessions, pin: false, seed: Some(flags.seed), ..StackConfig::default() }
}

fn interface(flags: &Flags, far_end: &FarEnd) -> Result<InterfaceSpec, String> {
    let cidr = |addr: IpAddr, prefix: u8| -> Result<Cidr, String> {
        format!("{addr}/{prefix}").parse().map_err(|error| format!("{addr}/{prefix}: {error}"))
    };
    Ok(InterfaceSpec::new(far_end.device(flags.mtu))
        .address(cidr(flags.local_v4.into(), 16)?)
        .address(cidr(flags.local_v6.into(), 64)?)
        .route(network(flags.remote_v4.into())?, None)
        .route(network(flags.remote_v6.into())?, None))
}

/// The /24 or /64 of an address.
fn network(addr: IpAddr) -> Result<Cidr, String> {
    let (network, prefix): (IpAddr, u8) = match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, _] = addr.octets();
            (IpAddr::from([a, b, c, 0]), 24)
        }
        IpAddr::V6(addr) => {
            let [a, b, c, d, ..] = addr.segments();
            (IpAddr::from([a, b, c, d, 0, 0, 0, 0]), 64)
        }
    };
    format!("{network}/{prefix}").parse().map_err(|error| format!("{network}/{prefix}: {error}"))
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
        result: Result<(ListenerId, Endpoint), ListenError>,
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
        let Ok(message) = message.downcast::<Try>() else { return };
        let Try { mut call, expired, result } = *message;
        let attempt = self.sockets.lock().attempt(ctx, &mut call, expired);
        // The driver waits for it, unless it ended.
        let _ = result.send((call, attempt));
    }
}
