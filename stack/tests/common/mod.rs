//! What the tests of whole stacks share: an app that logs every callback and does what a closure says, a world of
//! two routing domains joined by a wire, and the checks that hold for every log (invariants 1 and 2 of the design).
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod peer;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hoststack::app::*;
use hoststack::net::{Device, ImpairmentCounters, Impairments, MemoryWireConfig, impair, memory_wire};
use hoststack::{Answer, Attached, InterfaceSpec, Query, SingleThreaded, Stack, StackConfig};
use parking_lot::Mutex;

pub const CLIENT: DomainId = DomainId(0);
pub const SERVER: DomainId = DomainId(1);

/// What an app was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The object arrived on its worker.
    Attached,
    Accepted(SessionHandle),
    NotAccepted(ConnectFailure),
    Connected(ConnectId, u64, Result<SessionHandle, ConnectFailure>),
    Urgent(SessionHandle),
    Readable(SessionHandle),
    Writable(SessionHandle),
    PeerClosed(SessionHandle),
    Reset(SessionHandle, CloseReason),
    Closed(SessionHandle, u64, CloseReason),
    Timer(u64),
    /// A `u64` sent with `notify`.
    Notified(u64),
    Detaching,
    /// The object was dropped.
    Dropped,
    // On main.
    AppAttached,
    Listening(u64, Result<ListenerId, ListenError>),
    Cleaned(ConnectId, u64),
    WorkerDetached(u32),
    AppDetached,
}

/// An event, and which object was told: unit and worker; main has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub at: Option<(u32, WorkerId)>,
    pub event: Event,
}

/// What all objects of an app were told, in order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Line>>>);

impl Log {
    fn push(&self, at: Option<(u32, WorkerId)>, event: Event) {
        self.0.lock().push(Line { at, event });
    }

    pub fn events(&self) -> Vec<Event> {
        self.0.lock().iter().map(|line| line.event.clone()).collect()
    }

    pub fn lines(&self) -> Vec<Line> {
        self.0.lock().clone()
    }

    pub fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().iter().filter(|line| matches(&line.event)).count()
    }

    pub fn closed(&self) -> usize {
        self.count(|event| matches!(event, Event::Closed(..)))
    }

    pub fn cleaned(&self) -> usize {
        self.count(|event| matches!(event, Event::Cleaned(..)))
    }

    pub fn accepted(&self) -> usize {
        self.count(|event| matches!(event, Event::Accepted(..)))
    }

    pub fn up(&self) -> usize {
        self.count(|event| matches!(event, Event::Connected(_, _, Ok(_))))
    }

    /// The outcomes of connects, with their opaque values, in order.
    pub fn outcomes(&self) -> Vec<(u64, Result<(), ConnectFailure>)> {
        let of = |event: &Event| match *event {
            Event::Connected(_, opaque, outcome) => Some((opaque, outcome.map(|_| ()))),
            _ => None,
        };
        self.0.lock().iter().filter_map(|line| of(&line.event)).collect()
    }

    /// How sessions ended, in order.
    pub fn ends(&self) -> Vec<CloseReason> {
        let of = |event: &Event| match *event {
            Event::Closed(_, _, reason) => Some(reason),
            _ => None,
        };
        self.0.lock().iter().filter_map(|line| of(&line.event)).collect()
    }

    /// Sessions that were announced.
    pub fn sessions(&self) -> Vec<SessionHandle> {
        let of = |event: &Event| match *event {
            Event::Accepted(session) | Event::Connected(_, _, Ok(session)) => Some(session),
            _ => None,
        };
        self.0.lock().iter().filter_map(|line| of(&line.event)).collect()
    }

    /// Asserts what holds for any app at any time: one outcome per connect, told before its half-open is cleaned,
    /// cleaned at most once; per session, an announcement first, `closed` last and once, nothing twice that comes
    /// once; nothing of an app worker after its end.
    ///
    /// With `all`, nothing is under way any more: all was cleaned and closed.
    pub fn check(&self, all: bool) {
        let (mut told, mut cleaned) = (BTreeSet::new(), BTreeSet::new());
        // Session handles are unique per worker and generation, so one map does for all workers.
        let mut live: BTreeMap<SessionHandle, u8> = BTreeMap::new();
        let (mut dead, mut gone) = (BTreeSet::new(), BTreeSet::new());
        let mut detached = false;
        for Line { at, event } in self.lines() {
            assert!(!detached, "{event:?} after the application was detached");
            if let Some((unit, worker)) = at {
                assert!(!gone.contains(&(unit, worker)), "{event:?} for an object that was dropped");
            }
            let at_end = |live: &BTreeMap<SessionHandle, u8>, session| live.get(&session) == Some(&2);
            // `writable` may come after the peer closed, `readable` may not.
            let late = matches!(event, Event::Writable(session) if at_end(&live, session));
            let mut stage = |session: SessionHandle, stage: u8, repeats: bool| {
                assert!(!dead.contains(&session), "{event:?} after closed");
                let last =
                    live.get_mut(&session).unwrap_or_else(|| panic!("{event:?} before its announcement"));
                assert!(
                    *last < stage || *last == stage && repeats,
                    "{event:?} out of order, after stage {last}"
                );
                *last = stage;
            };
            match event {
                Event::Accepted(session) => {
                    assert!(!dead.contains(&session), "{event:?} again");
                    assert_eq!(live.insert(session, 0), None, "{event:?} again");
                }
                Event::Connected(connect, _, outcome) => {
                    assert!(told.insert(connect), "{event:?}: a second outcome");
                    assert!(!cleaned.contains(&connect), "{event:?} after its half-open was cleaned");
                    if let Ok(session) = outcome {
                        assert_eq!(live.insert(session, 0), None, "{event:?} again");
                    }
                }
                Event::Urgent(session) | Event::Readable(session) | Event::Writable(session) => {
                    stage(session, if late { 2 } else { 1 }, true);
                }
                Event::PeerClosed(session) => stage(session, 2, false),
                Event::Reset(session, _) => stage(session, 3, false),
                Event::Closed(session, _, _) => {
                    stage(session, 4, false);
                    live.remove(&session);
                    dead.insert(session);
                }
                Event::Cleaned(connect, _) => {
                    assert!(cleaned.insert(connect), "{event:?} twice");
                }
                Event::Dropped => {
                    gone.insert(at.expect("objects are on workers"));
                }
                Event::AppDetached => detached = true,
                _ => {}
            }
        }
        if all {
            assert_eq!(told.difference(&cleaned).count(), 0, "every connect that was told was cleaned");
            assert!(live.is_empty(), "every session that was announced was closed: {live:?}");
        }
    }
}

/// What an app does in its callbacks, after they were logged.
pub type Does = Arc<dyn Fn(&mut Context<'_>, &Event) + Send + Sync>;
/// What an app does in its callbacks on main.
pub type MainDoes = Arc<dyn Fn(&mut MainContext<'_>, &Event) + Send + Sync>;

/// An app that logs and does.
#[derive(Clone)]
pub struct Probe {
    pub log: Log,
    pub does: Does,
    pub main_does: MainDoes,
    /// Hears where a listener listens.
    pub told_address: Arc<dyn Fn(Address) + Send + Sync>,
}

impl Probe {
    pub fn new(log: &Log, does: impl Fn(&mut Context<'_>, &Event) + Send + Sync + 'static) -> Probe {
        Probe {
            log: log.clone(),
            does: Arc::new(does),
            main_does: Arc::new(|_, _| {}),
            told_address: Arc::new(|_| {}),
        }
    }

    pub fn on_main(mut self, does: impl Fn(&mut MainContext<'_>, &Event) + Send + Sync + 'static) -> Probe {
        self.main_does = Arc::new(does);
        self
    }

    /// Logs, closes when the peer does.
    pub fn idle(log: &Log) -> Probe {
        Probe::new(log, close_with_peer)
    }

    /// Sends back what it gets, closes when the peer does and all is sent back.
    pub fn echo(log: &Log) -> Probe {
        Probe::new(log, echo)
    }

    /// Reads all and drops it.
    pub fn sink(log: &Log) -> Probe {
        Probe::new(log, |ctx, event| {
            if let Event::Readable(session) = *event {
                drain(ctx, session);
            }
            close_with_peer(ctx, event);
        })
    }

    fn main(&self, ctx: &mut MainContext<'_>, event: Event) {
        self.log.push(None, event.clone());
        (self.main_does)(ctx, &event);
    }
}

pub fn close_with_peer(ctx: &mut Context<'_>, event: &Event) {
    if let Event::PeerClosed(session) = *event {
        ctx.close(session);
    }
}

pub fn echo(ctx: &mut Context<'_>, event: &Event) {
    if let Event::Readable(session) | Event::Writable(session) | Event::PeerClosed(session) = *event {
        while ctx.splice(session, session) > 0 {}
        // The opaque value remembers that the peer is done.
        if matches!(event, Event::PeerClosed(_)) {
            ctx.set_opaque(session, 1);
        }
        if ctx.opaque(session) == 1 && ctx.rx_len(session) == 0 {
            ctx.close(session);
        }
    }
}

pub fn drain(ctx: &mut Context<'_>, session: SessionHandle) -> usize {
    let mut all = 0;
    while ctx.rx_len(session) > 0 {
        let count = ctx.peek(session).len();
        all += ctx.consume(session, count);
    }
    all
}

/// The object of a [`Probe`] on one worker.
struct ProbeWorker {
    probe: Probe,
    at: (u32, WorkerId),
}

impl ProbeWorker {
    fn told(&mut self, ctx: &mut Context<'_>, event: Event) {
        assert_eq!((ctx.unit(), ctx.worker()), self.at);
        self.probe.log.push(Some(self.at), event.clone());
        (self.probe.does)(ctx, &event);
    }
}

impl Drop for ProbeWorker {
    fn drop(&mut self) {
        self.probe.log.push(Some(self.at), Event::Dropped);
    }
}

impl Application for Probe {
    fn app_worker(&mut self, unit: u32, worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ProbeWorker { probe: self.clone(), at: (unit, worker) })
    }
    fn attached(&mut self, ctx: &mut MainContext<'_>) {
        self.main(ctx, Event::AppAttached);
    }
    fn listening(
        &mut self,
        ctx: &mut MainContext<'_>,
        opaque: u64,
        result: Result<(ListenerId, Address), ListenError>,
    ) {
        if let Ok((_, at)) = &result {
            (self.told_address)(at.clone());
        }
        self.main(ctx, Event::Listening(opaque, result.map(|(listener, _)| listener)));
    }
    fn half_open_cleaned(&mut self, ctx: &mut MainContext<'_>, connect: ConnectId, opaque: u64) {
        self.main(ctx, Event::Cleaned(connect, opaque));
    }
    fn worker_detached(&mut self, ctx: &mut MainContext<'_>, report: &WorkerDetachReport) {
        self.main(ctx, Event::WorkerDetached(report.unit));
    }
    fn detached(&mut self, _report: &DetachReport) {
        self.log.push(None, Event::AppDetached);
    }
}

impl AppWorker for ProbeWorker {
    fn attached(&mut self, ctx: &mut Context<'_>) {
        self.told(ctx, Event::Attached);
    }
    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.told(ctx, Event::Accepted(session));
    }
    fn not_accepted(&mut self, ctx: &mut Context<'_>, _flow: &FlowKey, failure: ConnectFailure) {
        self.told(ctx, Event::NotAccepted(failure));
    }
    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        self.told(ctx, Event::Connected(connect, opaque, outcome));
    }
    fn urgent(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.told(ctx, Event::Urgent(session));
    }
    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.told(ctx, Event::Readable(session));
    }
    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.told(ctx, Event::Writable(session));
    }
    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.told(ctx, Event::PeerClosed(session));
    }
    fn reset(&mut self, ctx: &mut Context<'_>, session: SessionHandle, reason: CloseReason) {
        self.told(ctx, Event::Reset(session, reason));
    }
    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, opaque: u64, reason: CloseReason) {
        self.told(ctx, Event::Closed(session, opaque, reason));
    }
    fn timer(&mut self, ctx: &mut Context<'_>, token: u64) {
        self.told(ctx, Event::Timer(token));
    }
    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn std::any::Any + Send>) {
        let number = *message.downcast::<u64>().expect("tests send numbers");
        self.told(ctx, Event::Notified(number));
    }
    fn detaching(&mut self, ctx: &mut Context<'_>, app_worker: AppWorkerId) {
        assert_eq!(app_worker, ctx.app_worker());
        self.told(ctx, Event::Detaching);
    }
}

/// Which address family a test runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    /// The server's address with a port.
    pub fn server(self, port: u16) -> SocketAddr {
        match self {
            Family::V4 => format!("10.0.0.2:{port}"),
            Family::V6 => format!("[fd00::2]:{port}"),
        }
        .parse()
        .expect("cannot fail because these are addresses")
    }

    pub fn client_addr(self) -> std::net::IpAddr {
        match self {
            Family::V4 => "10.0.0.1",
            Family::V6 => "fd00::1",
        }
        .parse()
        .expect("cannot fail because these are addresses")
    }

    /// An address that no route leads to.
    pub fn nowhere(self) -> SocketAddr {
        match self {
            Family::V4 => "192.0.2.1:80",
            Family::V6 => "[2001:db8::1]:80",
        }
        .parse()
        .expect("cannot fail because these are addresses")
    }

    /// An address of the link that is nobody's.
    pub fn nobody(self) -> SocketAddr {
        match self {
            Family::V4 => "10.0.0.77:80",
            Family::V6 => "[fd00::77]:80",
        }
        .parse()
        .expect("cannot fail because these are addresses")
    }
}

/// The interface of one end of the wire, with both families' addresses; `end` is 1 or 2.
pub fn interface(device: impl Device + 'static, domain: DomainId, end: u8) -> InterfaceSpec {
    InterfaceSpec::new(device)
        .domain(domain)
        .address(format!("10.0.0.{end}/24").parse().expect("cannot fail because it is a prefix"))
        .address(format!("fd00::{end}/64").parse().expect("cannot fail because it is a prefix"))
}

/// The configuration of a test's stack: reproducible.
pub fn config(workers: usize) -> StackConfig {
    StackConfig { workers, seed: Some(7), ..StackConfig::default() }
}

/// A stack on virtual time with two domains joined by a wire.
pub fn stack(workers: usize) -> SingleThreaded {
    stack_of(config(workers), MemoryWireConfig::default())
}

pub fn stack_of(config: StackConfig, wire: MemoryWireConfig) -> SingleThreaded {
    let (a, b) = memory_wire(wire);
    virtual_stack(config, [interface(a, CLIENT, 1), interface(b, SERVER, 2)])
}

/// Like [`stack_of`], with faults in both directions; returns the faults' counters, client's end first.
pub fn impaired_stack(
    config: StackConfig,
    to_server: Impairments,
    to_client: Impairments,
) -> (SingleThreaded, [Arc<ImpairmentCounters>; 2]) {
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let (a, b) = (impair(Box::new(a), to_server), impair(Box::new(b), to_client));
    let counters = [a.impairment_counters(), b.impairment_counters()];
    (virtual_stack(config, [interface(a, CLIENT, 1), interface(b, SERVER, 2)]), counters)
}

pub fn virtual_stack(
    config: StackConfig,
    interfaces: impl IntoIterator<Item = InterfaceSpec>,
) -> SingleThreaded {
    let builder =
        interfaces.into_iter().fold(Stack::builder().config(config), |builder, spec| builder.interface(spec));
    let mut stack = Stack::single_threaded(builder).expect("a good configuration");
    // Not from the real time of its start: runs shall be the same.
    stack.use_virtual_time_from(Instant::ZERO);
    stack
}

/// Attaches `probe` under `name`, with one app worker.
pub fn attach(stack: &mut SingleThreaded, name: &str, probe: Probe) -> Attached {
    stack.attach(probe, AttachOptions::named(name)).expect("attached")
}

/// Attaches a server that listens on `port` of both families.
pub fn serve(stack: &mut SingleThreaded, probe: Probe, port: u16) -> Attached {
    let server = attach(stack, "server", probe);
    for family in FAMILIES {
        stack.listen(server.app_workers[0], listen_on(family, port)).expect("listening");
    }
    server
}

pub fn listen_on(family: Family, port: u16) -> ListenOptions {
    ListenOptions { domain: SERVER, ..ListenOptions::on(family.server(port)) }
}

/// Steps until `done`, checking the stack after each step; panics after `limit` of virtual time.
#[track_caller]
pub fn until(stack: &mut SingleThreaded, limit: Duration, mut done: impl FnMut() -> bool) {
    let reached = stack.run_until(limit, |stack| {
        stack.check_consistency();
        done()
    });
    assert!(reached, "not reached within {limit:?} of virtual time");
}

/// Lets `time` of virtual time pass.
pub fn pass(stack: &mut SingleThreaded, time: Duration) {
    stack.run_until(time, |stack| {
        stack.check_consistency();
        false
    });
}

/// Asserts that nothing is held, and that TIME-WAIT ends by itself.
#[track_caller]
pub fn assert_clean(stack: &mut SingleThreaded) {
    let answer = stack.inspect(Query::Summary).expect("running");
    assert!(answer.leaks.is_clean(), "{:?}, {:?}", answer.leaks, answer.main);
    assert!(answer.apps.is_empty());
    assert_eq!(answer.main.listeners, 0);
    stack.check_consistency();
    pass(stack, Duration::from_secs(61));
    let answer = stack.inspect(Query::Summary).expect("running");
    assert!(answer.leaks.is_clean(), "{:?}", answer.leaks);
    assert_eq!((answer.time_wait, answer.main.tuples), (0, 0), "TIME-WAIT has ended");
}

/// Detaches these apps and asserts that nothing is left, in the stack and in their logs.
#[track_caller]
pub fn finish(mut stack: SingleThreaded, apps: &[&Attached], logs: &[&Log]) {
    for app in apps {
        stack.detach(app.app, DetachPolicy::Reset).expect("attached");
    }
    for log in logs {
        log.check(true);
    }
    assert_clean(&mut stack);
    for log in logs {
        log.check(true);
    }
}

/// The answer to `Query::Summary`.
pub fn summary(stack: &mut SingleThreaded) -> Answer {
    stack.inspect(Query::Summary).expect("running")
}

/// A number that callbacks count in.
#[derive(Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn add(&self, by: u64) -> u64 {
        self.0.fetch_add(by, Relaxed)
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The byte of a test stream at a position: no short period.
pub fn pattern(position: u64) -> u8 {
    (position ^ (position >> 8).wrapping_mul(31) ^ (position >> 16).wrapping_mul(17)) as u8
}

/// A state that an app's callbacks and the test share, by session.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<BTreeMap<SessionHandle, Stream>>>);

/// How far a session's two streams are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    pub sent: u64,
    pub got: u64,
}

impl Streams {
    /// Writes the pattern until `total` bytes were written or there is no room; true when all were.
    pub fn send(&self, ctx: &mut Context<'_>, session: SessionHandle, total: u64) -> bool {
        let mut streams = self.0.lock();
        let stream = streams.entry(session).or_default();
        let mut buffer = [0; 4096];
        while stream.sent < total {
            let count = buffer.len().min((total - stream.sent) as usize);
            for (byte, position) in buffer[..count].iter_mut().zip(stream.sent..) {
                *byte = pattern(position);
            }
            let written = ctx.write(session, &buffer[..count]);
            stream.sent += written as u64;
            if written < count {
                return false;
            }
        }
        true
    }

    /// Reads and verifies the pattern, at most `most` bytes; says how many came in all.
    pub fn receive(&self, ctx: &mut Context<'_>, session: SessionHandle, most: usize) -> u64 {
        let mut streams = self.0.lock();
        let stream = streams.entry(session).or_default();
        let mut buffer = [0; 4096];
        let mut left = most;
        while left > 0 {
            let wanted = left.min(buffer.len());
            let count = ctx.read(session, &mut buffer[..wanted]);
            if count == 0 {
                break;
            }
            left -= count;
            for byte in &buffer[..count] {
                assert_eq!(*byte, pattern(stream.got), "byte {} is another's", stream.got);
                stream.got += 1;
            }
        }
        stream.got
    }

    pub fn all(&self) -> Vec<Stream> {
        self.0.lock().values().copied().collect()
    }
}
