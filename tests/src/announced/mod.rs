//! Connects by the million to a silent client, the server speaking first, a PROXY header pending: the very case in which
//! another proxy lost one connection in about 19 000, for what it announced depended on what had changed meanwhile.
//!
//! A *slice* is a stack on threads with a server and a client application. The client keeps a number of connects under
//! way and says nothing. Each connect sends a header, of version 1 and 2 in turn, that carries its number; the server
//! requires one, checks it, and greets with the number; the client checks that and resets. `ledger` has a mark for
//! everything that must happen once. One attempt is made: an announcement that is lost can only end as a failure.
//!
//! [`run_slice`] runs one and watches that it moves; `--bin announced` runs as many as asked for.

mod apps;
mod ledger;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clap::ValueEnum;
use hoststack::app::proxy::ReceiveProxy;
use hoststack::app::{Address, AttachOptions, DetachPolicy, ListenOptions, StagePlans, WorkerId};
use hoststack::{Query, Stack, StackConfig, StackHandle};
use serde_json::{Value, json};

use crate::wait::{Stopwatch, poll};
use apps::{Client, Server, Shared};
use ledger::Ledger;

/// Workers of a slice's stack.
pub const WORKERS: usize = 2;
/// Addresses of the loopback network that listen: ports of one do not wait for those of another.
const ADDRESSES: u8 = 8;
/// How long a slice may stand still before it has failed. A machine may be busy; it is not busy for this long.
const STALLED: Duration = Duration::from_secs(120);

/// What the connects go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Route {
    /// TCP sockets of the host.
    KernelTcp,
    /// A Unix socket of the host.
    KernelUnix,
    /// Cut-through: both ends on the same worker.
    Local,
    /// Cut-through from one worker to another.
    LocalBetween,
}

impl Route {
    /// All of them.
    pub const ALL: [Route; 4] = [Route::KernelTcp, Route::KernelUnix, Route::Local, Route::LocalBetween];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Route::KernelTcp => "kernel-tcp",
            Route::KernelUnix => "kernel-unix",
            Route::Local => "local",
            Route::LocalBetween => "local-between",
        }
    }

    fn listens(self, dir: &std::path::Path) -> Vec<String> {
        match self {
            Route::KernelTcp => {
                (2..2 + ADDRESSES).map(|last| format!("kernel+tcp://127.0.0.{last}:0")).collect()
            }
            Route::KernelUnix => vec![format!("kernel+unix://{}", dir.join("socket").display())],
            Route::Local | Route::LocalBetween => vec!["local://server".to_owned()],
        }
    }

    /// The worker that accepts, if it is not any.
    fn accepts(self) -> Option<WorkerId> {
        (self == Route::LocalBetween).then_some(WorkerId(1))
    }

    /// Whether the client's object on this worker connects.
    fn connects(self, worker: WorkerId) -> bool {
        self != Route::LocalBetween || worker == WorkerId(0)
    }
}

/// A slice to run.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// What it goes over.
    pub route: Route,
    /// The number of its first connect, below 2^40.
    pub from: u64,
    /// Connects to make.
    pub connects: usize,
    /// Connects that each worker keeps under way.
    pub in_flight: usize,
    /// How long the server waits for a header.
    pub stage_timeout: hoststack::app::Duration,
}

impl Slice {
    /// One of so many connects, with defaults.
    #[must_use]
    pub fn new(route: Route, from: u64, connects: usize) -> Slice {
        Slice { route, from, connects, in_flight: 64, stage_timeout: hoststack::app::options::STAGE_TIMEOUT }
    }
}

/// What a slice did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Connects made.
    pub connects: u64,
    /// Announced to the client, each once.
    pub connected: u64,
    /// Announced to the server, each once, with the header that was sent.
    pub accepted: u64,
    /// Of them, with a header of version 1.
    pub version_1: u64,
    /// Greeted: the client read its own number.
    pub greeted: u64,
    /// Half-opens cleaned.
    pub cleaned: u64,
    /// The longest from connect to announcement, in microseconds.
    pub longest_us: u64,
    /// Wall time in seconds.
    pub seconds: f64,
}

impl Totals {
    /// Adds another's.
    pub fn merge(&mut self, other: &Totals) {
        let Totals { connects, connected, accepted, version_1, greeted, cleaned, longest_us, seconds } =
            *other;
        self.connects += connects;
        self.connected += connected;
        self.accepted += accepted;
        self.version_1 += version_1;
        self.greeted += greeted;
        self.cleaned += cleaned;
        self.longest_us = self.longest_us.max(longest_us);
        self.seconds += seconds;
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self, route: Route, from: u64) -> Value {
        let Totals { connects, connected, accepted, version_1, greeted, cleaned, longest_us, seconds } =
            *self;
        json!({
            "transport": route.name(), "from": from, "connects": connects, "connected": connected,
            "accepted": accepted, "version_1": version_1, "greeted": greeted, "cleaned": cleaned,
            "longest_us": longest_us, "seconds": seconds,
        })
    }
}

/// What was violated.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The slice.
    pub slice: Slice,
    /// What must not have been; not all of it, if it is much.
    pub violations: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Slice { route, from, connects, .. } = self.slice;
        writeln!(f, "--transport {} --from {from} --connects {connects}", route.name())?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "  violated: {violation}"))
    }
}

impl std::error::Error for Failure {}

/// Runs a slice.
///
/// # Errors
/// Something that must hold did not, or nothing moved for minutes.
pub fn run_slice(slice: Slice) -> Result<Totals, Failure> {
    let ledger = Arc::new(Ledger::new(slice.from, slice.connects));
    let watch = Stopwatch::start();
    let done = run(slice, &ledger);
    let mut violations = ledger.violations();
    violations.extend(done.err());
    violations.extend(ledger.unfinished());
    if violations.is_empty() {
        Ok(Totals { seconds: watch.elapsed().as_secs_f64(), ..ledger.totals() })
    } else {
        Err(Failure { slice, violations })
    }
}

fn words(error: impl fmt::Display) -> String {
    error.to_string()
}

fn run(slice: Slice, ledger: &Arc<Ledger>) -> Result<(), String> {
    let stack = Stack::builder().config(StackConfig { workers: WORKERS, ..StackConfig::default() });
    let stack = stack.start().map_err(words)?;
    let handle = stack.handle();
    let dir = tempfile::tempdir().map_err(words)?;
    let shared = Arc::new(Shared::new(slice, ledger));
    let server = handle.attach(Server::new(&shared), AttachOptions::named("server")).map_err(words)?;
    for local in slice.route.listens(dir.path()) {
        let options = ListenOptions {
            stages: StagePlans::one(ReceiveProxy::default()),
            stage_timeout: slice.stage_timeout,
            worker: slice.route.accepts(),
            ..ListenOptions::on(local.parse::<Address>().map_err(words)?)
        };
        handle.listen(server.app_workers[0], options).map_err(words)?;
    }
    // It begins as soon as it is attached.
    let client = handle.attach(Client::new(&shared), AttachOptions::named("client")).map_err(words)?;
    wait(ledger)?;
    for app in [client.app, server.app] {
        handle.detach(app, DetachPolicy::Reset).map_err(words)?;
    }
    clean(&handle)
}

/// Waits until all has happened that will.
fn wait(ledger: &Ledger) -> Result<(), String> {
    loop {
        let before = ledger.progress();
        let moved = poll(STALLED, || (ledger.is_over() || ledger.progress() != before).then_some(()));
        if ledger.is_over() {
            return Ok(());
        }
        if moved.is_none() {
            return Err(format!("nothing has moved for {STALLED:?}"));
        }
    }
}

/// Waits until nothing is held.
fn clean(handle: &StackHandle) -> Result<(), String> {
    let mut last = None;
    let found = poll(STALLED, || {
        let answer = handle.inspect(Query::Summary).ok()?;
        let is_clean = answer.leaks.is_clean() && answer.apps.is_empty() && answer.main.listeners == 0;
        last = Some(answer.leaks);
        is_clean.then_some(())
    });
    found.ok_or_else(|| format!("left: {last:?}"))
}

impl Shared {
    /// The number of the next connect, if one is left.
    fn next(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Relaxed);
        (number < self.slice.from + self.slice.connects as u64).then_some(number) // widens
    }
}
