//! The fetch application: a list of requests, so many of them at a time, over all workers.
//!
//! A body that goes to a file is written inside the callbacks, on the worker: simple, and the page cache takes it at the
//! speed of a copy; but a slow disk holds up everything else on that worker. Give fetch a stack of its own if that
//! matters.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use hoststack_app::report::{DetachReport, WorkerDetachReport};
use hoststack_app::{
    AppWorker, AppWorkerId, Application, CloseReason, ConnectFailure, ConnectId, ConnectOptions, Context,
    Duration, MainContext, SessionHandle, WorkerId,
};

use crate::fetch::outcome::{FetchError, FetchOutcome, FetchState, FetchStats};
use crate::fetch::transfer::{Progress, Transfer};
use crate::fetch::url::Url;
use crate::plan::Plan;

/// What to get, and where to put it.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// Where to connect to, and how. Its `opaque` value is replaced by fetch's own.
    pub remote: ConnectOptions,
    /// The `Host` header.
    pub host: String,
    /// The request target: path and query, beginning with a slash.
    pub path: String,
    /// Where the body goes.
    pub sink: FetchSink,
}

/// Where a body goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchSink {
    /// To this file, which is replaced if it exists; written as `FILE.part` until it is complete.
    File(PathBuf),
    /// Into the outcome, up to [`FetchOptions::memory_max`] bytes.
    Memory,
    /// Nowhere; it is counted.
    Discard,
}

impl FetchRequest {
    /// What `url` says, with default connect options: for `https` the caller must add a stage that speaks
    /// TLS to `remote.stages`, this app knows none.
    pub fn new(url: &Url, sink: FetchSink) -> FetchRequest {
        FetchRequest {
            remote: ConnectOptions::to(url.endpoint),
            host: url.host.clone(),
            path: url.path.clone(),
            sink,
        }
    }

    /// Nothing in it can end a line or a word of the request (RFC 9112 §3.2).
    fn is_sendable(&self) -> bool {
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_word(&self.host) && is_word(&self.path) && self.path.starts_with('/')
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // `Connection: close`: the server closes first and keeps the TIME-WAIT.
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: hoststack/{}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\
             Connection: close\r\n\r\n",
            self.path,
            self.host,
            env!("CARGO_PKG_VERSION"),
        )
        .into_bytes()
    }
}

/// How to fetch.
#[derive(Clone, Copy, Debug)]
pub struct FetchOptions {
    /// Most requests under way at a time, over all workers. Default 64; 0 counts as 1.
    pub concurrency: u32,
    /// A request fails that nothing was heard of for so long once it is connected. Default 30 s.
    pub idle_timeout: Duration,
    /// Most bytes of a body that goes to memory. Default 64 MiB.
    pub memory_max: usize,
    /// The number of app workers that fetch will be attached with, so that each gets a share. Default 1.
    pub app_workers: u32,
}

impl Default for FetchOptions {
    fn default() -> FetchOptions {
        FetchOptions {
            concurrency: 64,
            idle_timeout: Duration::from_secs(30),
            memory_max: 64 << 20,
            app_workers: 1,
        }
    }
}

/// Downloads a list of files, once, when it is attached.
#[derive(Debug)]
pub struct Fetch {
    shared: Arc<Shared>,
    outcomes: Receiver<FetchOutcome>,
}

/// What to keep of a [`Fetch`] that was attached. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct FetchHandle {
    shared: Arc<Shared>,
    outcomes: Receiver<FetchOutcome>,
}

impl FetchHandle {
    /// Figures while it runs, and after.
    pub fn stats(&self) -> &FetchStats {
        &self.shared.stats
    }

    /// Where outcomes arrive: one per request, in the order in which they end.
    pub fn outcomes(&self) -> &Receiver<FetchOutcome> {
        &self.outcomes
    }

    /// Whether every request has ended.
    pub fn is_done(&self) -> bool {
        self.shared.plan.is_complete()
    }
}

#[derive(Debug)]
struct Shared {
    requests: Vec<FetchRequest>,
    options: FetchOptions,
    plan: Plan,
    stats: FetchStats,
    /// Requests whose file another request before them writes to.
    same_file: BTreeSet<u32>,
    /// Requests whose outcome was told.
    told: Box<[AtomicBool]>,
    sender: Sender<FetchOutcome>,
}

impl Fetch {
    /// An app that makes these requests; at most 2^32 - 1 of them.
    pub fn new(requests: Vec<FetchRequest>, options: FetchOptions) -> Fetch {
        // Room for every outcome, so that a callback never waits for who reads them.
        let (sender, outcomes) = bounded(requests.len());
        let (mut files, mut same_file) = (BTreeSet::new(), BTreeSet::new());
        for (index, request) in (0..).zip(&requests) {
            if let FetchSink::File(path) = &request.sink
                && !files.insert(path)
            {
                same_file.insert(index);
            }
        }
        let total = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        let shared = Arc::new(Shared {
            plan: Plan::new(total, 1, options.concurrency),
            stats: FetchStats::new(requests.len()),
            same_file,
            told: requests.iter().map(|_| AtomicBool::new(false)).collect(),
            requests,
            options,
            sender,
        });
        Fetch { shared, outcomes }
    }

    /// A handle to watch it with.
    pub fn handle(&self) -> FetchHandle {
        FetchHandle { shared: self.shared.clone(), outcomes: self.outcomes.clone() }
    }
}

impl Shared {
    /// A claimed request has ended; another one may be claimed.
    fn end(&self, outcome: FetchOutcome) {
        self.plan.free();
        self.tell(outcome);
    }

    /// Tells how a request ended, once.
    fn tell(&self, outcome: FetchOutcome) {
        if self.told[outcome.index].swap(true, Ordering::AcqRel) {
            return;
        }
        let state = if outcome.result.is_ok() { FetchState::Done } else { FetchState::Failed };
        // `Fetch::new` numbers requests with 32 bits.
        self.stats.cell(outcome.index as u32).set_state(state);
        // There is room for one outcome per request.
        let _ = self.sender.try_send(outcome);
        let _ = self.plan.complete();
    }

    fn end_failed(&self, index: u32, error: FetchError) {
        self.end(FetchOutcome::failed(index, error));
    }

    /// The connect of a claimed request, if it can be made.
    fn connect_options(&self, index: u32) -> Result<ConnectOptions, FetchError> {
        let request = &self.requests[index as usize];
        if !request.is_sendable() {
            return Err(FetchError::BadRequest);
        }
        if let FetchSink::File(path) = &request.sink
            && self.same_file.contains(&index)
        {
            return Err(FetchError::SameFile(path.clone()));
        }
        Ok(ConnectOptions { opaque: u64::from(index), ..request.remote.clone() })
    }
}

impl Application for Fetch {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(FetchWorker {
            shared: self.shared.clone(),
            transfers: Vec::new(),
            count: 0,
            is_watching: false,
            is_detaching: false,
        })
    }

    /// The requests that the detached app worker would have made are made by another one.
    fn worker_detached(&mut self, ctx: &mut MainContext<'_>, report: &WorkerDetachReport) {
        let other = ctx.app_workers().iter().copied().find(|app_worker| *app_worker != report.app_worker);
        let Some(app_worker) = other else { return };
        while let Some(index) = self.shared.plan.claim() {
            self.shared.stats.cell(index).set_state(FetchState::Connecting);
            let made = self
                .shared
                .connect_options(index)
                .and_then(|options| ctx.connect(app_worker, options).map_err(FetchError::NotTaken));
            if let Err(error) = made {
                self.shared.end_failed(index, error);
            }
        }
    }

    /// Whatever has not ended by now, claimed or not, never will.
    fn detached(&mut self, _report: &DetachReport) {
        for (index, told) in (0..).zip(&self.shared.told) {
            if !told.load(Ordering::Acquire) {
                self.shared.tell(FetchOutcome::failed(index, FetchError::Detached));
            }
        }
    }
}

/// Timer: look for transfers that stand still.
const TIMER_WATCH: u64 = 0;
/// How often, at most.
const WATCH_EVERY: Duration = Duration::from_secs(1);

struct FetchWorker {
    shared: Arc<Shared>,
    /// By session slot.
    transfers: Vec<Option<Box<Transfer>>>,
    /// Of them, how many there are.
    count: usize,
    is_watching: bool,
    is_detaching: bool,
}

impl FetchWorker {
    /// Makes requests as far as the plan allows, at most `limit`. One that fails at once does not count: nothing would
    /// come of it that makes the list go on.
    fn pump(&mut self, ctx: &mut Context<'_>, mut limit: u32) {
        while limit > 0 && !self.is_detaching {
            let Some(index) = self.shared.plan.claim() else { return };
            self.shared.stats.cell(index).set_state(FetchState::Connecting);
            let made = self
                .shared
                .connect_options(index)
                .and_then(|options| ctx.connect(options).map_err(FetchError::NotTaken));
            match made {
                Ok(_) => limit -= 1,
                Err(error) => self.shared.end_failed(index, error),
            }
        }
    }

    fn place(&mut self, session: SessionHandle) -> &mut Option<Box<Transfer>> {
        let slot = session.session().0.slot as usize;
        if self.transfers.len() <= slot {
            self.transfers.resize_with(slot + 1, || None);
        }
        &mut self.transfers[slot]
    }

    /// The transfer of a session is over.
    fn finish(&mut self, ctx: &mut Context<'_>, session: SessionHandle, result: Result<(), FetchError>) {
        let Some(transfer) = self.place(session).take() else { return };
        self.count -= 1;
        // A session that failed may have much left that nobody wants; after `closed` neither call does anything.
        if result.is_ok() {
            ctx.close(session)
        } else {
            ctx.reset(session)
        }
        let result = result.map_err(|error| if self.is_detaching { FetchError::Detached } else { error });
        self.shared.end(transfer.finish(result));
        self.pump(ctx, u32::MAX);
    }

    fn receive(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let shared = self.shared.clone();
        let Some(transfer) = self.place(session) else { return };
        let request = &shared.requests[transfer.index as usize];
        match transfer.receive(ctx, request, &shared.options, shared.stats.cell(transfer.index)) {
            Ok(Progress::More) => {}
            Ok(Progress::Complete) => self.finish(ctx, session, Ok(())),
            Err(error) => self.finish(ctx, session, Err(error)),
        }
    }

    fn watch(&mut self, ctx: &mut Context<'_>) {
        if self.count > 0 && !self.is_watching {
            self.is_watching = true;
            ctx.set_timer(TIMER_WATCH, self.shared.options.idle_timeout.min(WATCH_EVERY));
        }
    }
}

impl AppWorker for FetchWorker {
    fn attached(&mut self, ctx: &mut Context<'_>) {
        let objects = u32::from(ctx.workers()).saturating_mul(self.shared.options.app_workers.max(1));
        self.pump(ctx, self.shared.plan.first_share(objects));
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        // Our own connects carry a request's number; others (made through a stack handle) are not ours to use.
        let index = u32::try_from(opaque).ok().filter(|index| (*index as usize) < self.shared.requests.len());
        match (outcome, index) {
            (Ok(session), Some(index)) => {
                let request = &self.shared.requests[index as usize];
                self.shared.stats.cell(index).set_state(FetchState::Receiving);
                let mut transfer = Box::new(Transfer::new(index, session, request, ctx.now()));
                transfer.send(ctx);
                *self.place(session) = Some(transfer);
                self.count += 1;
                self.watch(ctx);
            }
            (Ok(session), None) => ctx.reset(session),
            (Err(failure), Some(index)) => {
                self.shared.end_failed(index, FetchError::Connect(failure));
                self.pump(ctx, u32::MAX);
            }
            (Err(_), None) => {}
        }
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.receive(ctx, session);
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        if let Some(transfer) = self.place(session) {
            transfer.send(ctx);
        }
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.receive(ctx, session);
        match self.place(session) {
            Some(transfer) => {
                let result = transfer.at_close();
                self.finish(ctx, session, result);
            }
            None => ctx.close(session),
        }
    }

    fn reset(&mut self, ctx: &mut Context<'_>, session: SessionHandle, reason: CloseReason) {
        self.finish(ctx, session, Err(FetchError::CutOff(reason)));
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, _opaque: u64, reason: CloseReason) {
        // Only for a session that something else than this app closed; every other transfer is over by now.
        self.finish(ctx, session, Err(FetchError::CutOff(reason)));
    }

    fn timer(&mut self, ctx: &mut Context<'_>, _token: u64) {
        self.is_watching = false;
        let (now, limit) = (ctx.now(), self.shared.options.idle_timeout);
        for slot in 0..self.transfers.len() {
            let stalled = self.transfers[slot].as_ref().filter(|transfer| now.since(transfer.moved) >= limit);
            if let Some(session) = stalled.map(|transfer| transfer.session) {
                self.finish(ctx, session, Err(FetchError::Stalled));
            }
        }
        self.watch(ctx);
    }

    fn detaching(&mut self, _ctx: &mut Context<'_>, _app_worker: AppWorkerId) {
        self.is_detaching = true;
    }
}
