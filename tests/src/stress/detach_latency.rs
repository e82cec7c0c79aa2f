//! What the detach of one app costs the others: their echo round trips before it and while it runs.
//!
//! App `a` holds sessions to a server in the other routing domain and has connects pending in a third, whose wire has
//! no other end. App `b` sends small messages over a few sessions on each worker, one at a time on each, and writes
//! down when each began and how long it took. Then `a` is detached.
//!
//! A stall of the stack is one slow round trip of each session however long it lasts, so a plain quantile hardly sees
//! it. The *weighted* one does: each round trip counts by its length, so it answers how long the round trip takes that
//! is under way at a random moment.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use hoststack::app::{
    AppWorker, AppWorkerId, Application, AttachOptions, ConnectFailure, ConnectId, ConnectOptions, Context,
    DetachPolicy, DetachReport, DomainId, Duration, ListenOptions, SessionHandle, SocketOptions, WorkerId,
};
use hoststack::net::{Cidr, Device, MemoryWireConfig, memory_wire};
use hoststack::tcp::TcpConfig;
use hoststack::{Answer, InterfaceSpec, Query, Stack, StackConfig, StackHandle};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::oracle::lock;
use crate::wait;

const CLIENT: DomainId = DomainId(0);
const SERVER: DomainId = DomainId(1);
const BLACK_HOLE: DomainId = DomainId(2);
const PORT: u16 = 7;
/// Addresses at each end: 100 000 connections need more ports than one address has.
const ADDRESSES: u8 = 4;
/// A round trip's message.
const MESSAGE: [u8; 32] = [7; 32];
/// The round trips that one object keeps: the latest.
const SAMPLES_MAX: usize = 1 << 20;
/// The longest that setting up may take.
const SET_UP: Duration = Duration::from_secs(180);

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct DetachLatency {
    /// Workers.
    pub workers: usize,
    /// Connects pending when the app is detached.
    pub pending: u64,
    /// Sessions it has.
    pub sessions: u64,
    /// Sessions of the other app, on each worker.
    pub probes: u32,
    /// How the app is detached.
    pub policy: DetachPolicy,
    /// How long everything rests before the detach: the window that it is compared with.
    pub before: Duration,
}

/// A window's round trips, in microseconds of wall time and of the worker's CPU time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// By the clock.
    pub wall: Lengths,
    /// By the worker's CPU time.
    pub cpu: Lengths,
}

/// How long round trips took, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lengths {
    /// How many.
    pub count: usize,
    /// Quantiles of the round trips.
    pub p50_us: f64,
    /// See above.
    pub p99_us: f64,
    /// The 99th percentile where each counts by its length.
    pub weighted_p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// What a round found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Before the detach.
    pub before: Window,
    /// While it ran.
    pub during: Window,
    /// How long it took, for its caller.
    pub took_ms: f64,
    /// What its report says: connects pending.
    pub half_opens: usize,
    /// Sessions that lived.
    pub sessions: usize,
    /// Sessions that were reset.
    pub sessions_reset: usize,
    /// Connects told as detached.
    pub detached: u64,
}

impl Round {
    /// During over before, of a window's figure; 0 where there was nothing before.
    pub fn ratio(&self, of: impl Fn(&Window) -> f64) -> f64 {
        let before = of(&self.before);
        if before > 0.0 { of(&self.during) / before } else { 0.0 }
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let lengths = |lengths: &Lengths| {
            let Lengths { count, p50_us, p99_us, weighted_p99_us, max_us } = *lengths;
            json!({
                "count": count, "p50_us": p50_us, "p99_us": p99_us, "weighted_p99_us": weighted_p99_us,
                "max_us": max_us,
            })
        };
        let window = |window: &Window| json!({ "wall": lengths(&window.wall), "cpu": lengths(&window.cpu) });
        json!({
            "before": window(&self.before), "during": window(&self.during),
            "took_ms": self.took_ms, "half_opens": self.half_opens, "sessions": self.sessions,
            "sessions_reset": self.sessions_reset, "detached": self.detached,
        })
    }
}

/// A round trip, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// When it began.
    began: u64,
    wall: u64,
    cpu: u64,
}

fn nanos_by(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Cannot fail because both clocks count up from 0, and not for 500 years.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn nanos() -> u64 {
    nanos_by(ClockId::Monotonic)
}

/// Wall time, and CPU time of this thread.
fn both() -> (u64, u64) {
    (nanos(), nanos_by(ClockId::ThreadCPUTime))
}

fn address(domain: DomainId, last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, if domain == BLACK_HOLE { 1 } else { 0 }, 0, last))
}

fn server(n: u64) -> SocketAddr {
    SocketAddr::new(address(SERVER, 101 + (n % u64::from(ADDRESSES)) as u8), PORT)
}

fn start(options: &DetachLatency) -> Result<Stack, String> {
    let wire = |names: [&str; 2]| {
        memory_wire(MemoryWireConfig {
            names: names.map(str::to_owned),
            ring_packets: 4096,
            ..MemoryWireConfig::default()
        })
    };
    let interface = |device: Box<dyn Device>, domain, first| {
        let addresses =
            (0..ADDRESSES).map(|n| Cidr::new(address(domain, first + n), 24)).collect::<Result<_, _>>();
        addresses
            .map(|addresses| InterfaceSpec { domain, device, addresses, routes: Vec::new() })
            .map_err(|error| error.to_string())
    };
    let ((client, servers), (hole, _no_end)) = (wire(["client", "server"]), wire(["hole", "nothing"]));
    let config = StackConfig {
        workers: options.workers,
        seed: Some(1),
        // No SYN is sent again while we look: that would be load of its own.
        tcp: TcpConfig { rto_initial: Duration::from_secs(600), ..TcpConfig::default() },
        ..StackConfig::default()
    };
    Stack::builder()
        .config(config)
        .interface(interface(Box::new(client), CLIENT, 1)?)
        .interface(interface(Box::new(servers), SERVER, 101)?)
        .interface(interface(Box::new(hole), BLACK_HOLE, 1)?)
        .start()
        .map_err(|error| error.to_string())
}

/// Runs a round.
///
/// # Errors
/// A sentence: something could not be set up, or the detach left something behind.
pub fn measure(options: &DetachLatency) -> Result<Round, String> {
    let stack = start(options)?;
    let handle = stack.handle();
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let up = Arc::new(AtomicU64::new(0));
    let samples = Arc::new(Mutex::new(Vec::new()));

    let server = handle.attach(Echo, AttachOptions::named("server")).map_err(|e| text(&e))?;
    for n in 0..u64::from(ADDRESSES) {
        let on = ListenOptions {
            domain: SERVER,
            socket: SocketOptions::NODELAY,
            ..ListenOptions::on(self::server(n))
        };
        handle.listen(server.app_workers[0], on).map_err(|e| text(&e))?;
    }
    let holder = handle.attach(Holder { up: up.clone() }, AttachOptions::named("a")).map_err(|e| text(&e))?;
    let unit = holder.app_workers[0];
    connect_all(&handle, unit, options, &up)?;
    let prober = Prober { probes: options.probes, samples: samples.clone() };
    let prober = handle.attach(prober, AttachOptions::named("b")).map_err(|e| text(&e))?;

    // This thread sleeps by waiting for nothing.
    wait::poll(options.before, || None::<()>);
    let began = nanos();
    let report = handle.detach(holder.app, options.policy).map_err(|e| text(&e))?;
    let ended = nanos();
    handle.detach(prober.app, DetachPolicy::Reset).map_err(|e| text(&e))?;
    handle.detach(server.app, DetachPolicy::Reset).map_err(|e| text(&e))?;
    until("all that is held to be given back", &handle, |answer| answer.leaks.is_clean())?;
    drop(stack);
    let samples = std::mem::take(&mut *lock(&samples));
    let since = began.saturating_sub(nanos_of(options.before));
    Ok(round(&samples, (since, began, ended), &report))
}

fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn until(what: &str, handle: &StackHandle, wanted: impl Fn(&Answer) -> bool) -> Result<(), String> {
    let looked = wait::poll(SET_UP, || match handle.inspect(Query::Summary) {
        Err(error) => Some(Err(error.to_string())),
        Ok(answer) => wanted(&answer).then_some(Ok(())),
    });
    looked.unwrap_or_else(|| Err(format!("waited {SET_UP:?} in vain for {what}")))
}

/// Opens the sessions of `a`, then leaves the connects pending.
fn connect_all(
    handle: &StackHandle,
    unit: AppWorkerId,
    options: &DetachLatency,
    up: &AtomicU64,
) -> Result<(), String> {
    let timeout = Duration::from_secs(3600);
    let local =
        |domain, n: u64| Some(address(domain, 1 + (n / u64::from(ADDRESSES) % u64::from(ADDRESSES)) as u8));
    for n in 0..options.sessions {
        let to = ConnectOptions {
            domain: CLIENT,
            local_addr: local(CLIENT, n),
            timeout,
            ..ConnectOptions::to(server(n))
        };
        handle.connect(unit, to).map_err(|error| error.to_string())?;
        if n % 1000 == 999 {
            // In waves, so that no SYN is lost: none is sent again for a long time.
            until("sessions", handle, |_| up.load(Relaxed) > n)?;
        }
    }
    until("all sessions", handle, |answer| {
        up.load(Relaxed) == options.sessions && answer.main.half_open_sessions == 0
    })?;
    for n in 0..options.pending {
        let last = 101 + (n % u64::from(ADDRESSES)) as u8;
        let to = ConnectOptions {
            domain: BLACK_HOLE,
            local_addr: local(BLACK_HOLE, n),
            timeout,
            ..ConnectOptions::to(SocketAddr::new(address(BLACK_HOLE, last), PORT))
        };
        handle.connect(unit, to).map_err(|error| error.to_string())?;
    }
    let pending = usize::try_from(options.pending).unwrap_or(usize::MAX);
    until("pending connects", handle, |answer| {
        let entries: usize = answer.workers.iter().map(|worker| worker.half_open_entries).sum();
        answer.main.half_open_sessions == pending && entries == pending
    })
}

fn round(samples: &[Sample], (since, began, ended): (u64, u64, u64), report: &DetachReport) -> Round {
    let of = |from: u64, to: u64| {
        // All that were under way at any moment of it.
        let within = samples.iter().filter(|sample| sample.began < to && sample.began + sample.wall > from);
        let (wall, cpu) = within.map(|sample| (sample.wall, sample.cpu)).unzip();
        Window { wall: lengths(wall), cpu: lengths(cpu) }
    };
    Round {
        before: of(since, began),
        during: of(began, ended),
        took_ms: (ended - began) as f64 / 1e6,
        half_opens: report.app_workers.iter().map(|unit| unit.half_opens).sum(),
        sessions: report.app_workers.iter().map(|unit| unit.sessions).sum(),
        sessions_reset: report.app_workers.iter().map(|unit| unit.sessions_reset).sum(),
        detached: report.outcomes().detached,
    }
}

fn lengths(mut took: Vec<u64>) -> Lengths {
    took.sort_unstable();
    let Some(&max) = took.last() else { return Lengths::default() };
    let us = |nanos: u64| nanos as f64 / 1e3;
    let rank = |share: f64| us(took[((took.len() as f64 * share) as usize).min(took.len() - 1)]);
    // The length such that those no longer make up 99 % of the time.
    let limit = took.iter().sum::<u64>() as f64 * 0.99;
    let mut sum = 0.0;
    let weighted = took.iter().find(|took| {
        sum += **took as f64;
        sum >= limit
    });
    Lengths {
        count: took.len(),
        p50_us: rank(0.5),
        p99_us: rank(0.99),
        weighted_p99_us: us(*weighted.unwrap_or(&max)),
        max_us: us(max),
    }
}

/// The median of `of` over rounds; 0 without any.
#[must_use]
pub fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

// ---- The apps ----

/// Sends back what it gets.
struct Echo;

impl Application for Echo {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(Echo)
    }
}

impl AppWorker for Echo {
    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        ctx.splice(session, session);
    }
}

/// `a`: holds what comes up.
struct Holder {
    up: Arc<AtomicU64>,
}

impl Application for Holder {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(Holder { up: self.up.clone() })
    }
}

impl AppWorker for Holder {
    fn connected(
        &mut self,
        _ctx: &mut Context<'_>,
        _connect: ConnectId,
        _opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        if outcome.is_ok() {
            self.up.fetch_add(1, Relaxed);
        }
    }
}

/// `b`.
struct Prober {
    probes: u32,
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl Application for Prober {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ProberWorker {
            probes: self.probes,
            all: self.samples.clone(),
            samples: VecDeque::with_capacity(SAMPLES_MAX),
            begun: vec![(0, 0); self.probes as usize],
        })
    }
}

struct ProberWorker {
    probes: u32,
    all: Arc<Mutex<Vec<Sample>>>,
    samples: VecDeque<Sample>,
    /// When the round trip of each session began, by its opaque value.
    begun: Vec<(u64, u64)>,
}

impl ProberWorker {
    /// Begins a round trip.
    fn send(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        if let Some(begun) = self.begun.get_mut(ctx.opaque(session) as usize) {
            *begun = both();
        }
        ctx.write(session, &MESSAGE);
    }
}

impl AppWorker for ProberWorker {
    fn attached(&mut self, ctx: &mut Context<'_>) {
        for n in 0..u64::from(self.probes) {
            let to = ConnectOptions {
                worker: Some(ctx.worker()),
                socket: SocketOptions::NODELAY,
                opaque: n,
                ..ConnectOptions::to(server(n))
            };
            // Should one be refused, its round trips are missing from the count.
            let _ = ctx.connect(to);
        }
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        _opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        if let Ok(session) = outcome {
            self.send(ctx, session);
        }
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        if ctx.rx_len(session) < MESSAGE.len() {
            return;
        }
        ctx.consume(session, MESSAGE.len());
        let (wall, cpu) = both();
        // Cannot fail because the opaque value is the number of a probe.
        let (began, cpu_began) = self.begun.get(ctx.opaque(session) as usize).copied().unwrap_or_default();
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            began,
            wall: wall.saturating_sub(began),
            cpu: cpu.saturating_sub(cpu_began),
        });
        self.send(ctx, session);
    }
}

impl Drop for ProberWorker {
    fn drop(&mut self) {
        lock(&self.all).extend(self.samples.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_shows_in_the_weighted_quantile() {
        let mut took = vec![10_000; 9_999];
        assert_eq!(lengths(took.clone()).weighted_p99_us, 10.0);
        took.push(50_000_000);
        let lengths = lengths(took);
        assert_eq!((lengths.p50_us, lengths.p99_us), (10.0, 10.0));
        assert_eq!((lengths.weighted_p99_us, lengths.max_us), (50_000.0, 50_000.0));
    }

    #[test]
    fn a_detach_beside_traffic_is_measured() {
        let policy = DetachPolicy::Close { linger: Duration::from_secs(5) };
        let options = DetachLatency {
            workers: 1,
            pending: 200,
            sessions: 100,
            probes: 2,
            policy,
            before: Duration::from_millis(20),
        };
        let round = measure(&options).unwrap();
        assert_eq!((round.half_opens, round.sessions, round.detached), (200, 100, 200), "{round:?}");
        assert!(
            round.before.wall.count > 0 && round.before.cpu.p99_us > 0.0 && round.took_ms > 0.0,
            "{round:?}"
        );
    }
}
