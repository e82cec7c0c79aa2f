//! Who takes part in a cell: a server; whoever asks, an app or a health check; a proxy between a client and the server.
//!
//! They write what they are told into one book, `Told`, from which the verdict is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use hoststack::app::{
    Address, AppWorker, Application, CloseReason, ConnectFailure, ConnectId, ConnectOptions, Context,
    DetachReport, Duration, FlowKey, Instant, ListenError, ListenerId, MainContext, SessionHandle, WorkerId,
};
use parking_lot::Mutex;

use super::cell::{ANSWER, ATTEMPT, Cell, Consumer, GREETING, REQUEST, RETRY, SILENCE, Workload, origin};

/// The opaque value of the connect that a cell is about; the client of a proxy makes one besides.
const TESTED: u64 = 1;
/// Timer: the client speaks.
const SPEAK: u64 = 1;
/// Timer: the check's time is up.
const UP: u64 = 2;

/// What was told in a cell.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) cell: Cell,
    /// Where the server listens.
    pub(super) back: Address,
    /// Where the proxy does.
    pub(super) front: Address,
    /// The outcomes of the connect that the cell is about.
    pub(super) outcomes: Vec<(Instant, Result<SessionHandle, ConnectFailure>)>,
    /// Half-opens of it that were cleaned.
    pub(super) cleaned: usize,
    /// Connections that the server accepted, and whether what their header says is right.
    pub(super) accepted: Vec<bool>,
    /// Connections that ended before.
    pub(super) not_accepted: Vec<ConnectFailure>,
    /// What the server heard.
    pub(super) asked: Vec<u8>,
    /// What the client heard.
    pub(super) answered: Vec<u8>,
    /// When the client had all it wanted.
    pub(super) got_at: Option<Instant>,
    /// What the check says, and when.
    pub(super) check: Option<(Instant, bool)>,
    /// Sessions that were announced and are not closed.
    pub(super) open: i64,
    /// All of that, in order, for people.
    pub(super) trace: Vec<String>,
}

impl Told {
    pub(super) fn new(cell: Cell, back: Address, front: Address) -> Told {
        Told {
            cell,
            back,
            front,
            outcomes: Vec::new(),
            cleaned: 0,
            accepted: Vec::new(),
            not_accepted: Vec::new(),
            asked: Vec::new(),
            answered: Vec::new(),
            got_at: None,
            check: None,
            open: 0,
            trace: Vec::new(),
        }
    }

    /// Whether nothing more is to come.
    pub(super) fn is_over(&self) -> bool {
        let is_seen = match self.outcomes.first() {
            None => false,
            Some((_, Ok(_))) => !self.accepted.is_empty() || !self.not_accepted.is_empty(),
            Some((_, Err(_))) => true,
        };
        is_seen && self.cleaned == self.outcomes.len() && self.open == 0
    }

    fn note(&mut self, now: Instant, who: &str, what: String) {
        self.trace.push(format!("{:>9} us  {who:<6}  {what}", now.as_micros()));
    }

    /// The connect that the cell is about: its options, and the first bytes if they are there already.
    fn tested(&self, worker: WorkerId) -> ConnectOptions {
        ConnectOptions {
            opaque: TESTED,
            worker: Some(worker),
            stages: self.cell.stack.sending(),
            rounds: 2,
            attempt_timeout: Some(ATTEMPT),
            retry_delay: RETRY,
            timeout: ATTEMPT.saturating_mul(4),
            ..ConnectOptions::to(self.back.clone())
        }
    }
}

pub(super) type Book = Arc<Mutex<Option<Told>>>;
/// Where listeners listen, by the opaque value of their listen.
pub(super) type Places = Arc<Mutex<BTreeMap<u64, Address>>>;

/// The part that an application plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Server,
    Proxy,
    Asker,
}

impl Part {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Part::Server => "server",
            Part::Proxy => "proxy",
            Part::Asker => "asker",
        }
    }
}

/// An application that plays one.
pub(super) struct Actor {
    pub(super) part: Part,
    pub(super) book: Book,
    pub(super) places: Places,
}

impl Application for Actor {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(Object { part: self.part, book: self.book.clone(), ends: BTreeMap::new() })
    }

    fn listening(
        &mut self,
        _ctx: &mut MainContext<'_>,
        opaque: u64,
        result: Result<(ListenerId, Address), ListenError>,
    ) {
        if let Ok((_, at)) = result {
            self.places.lock().insert(opaque, at);
        }
    }

    fn half_open_cleaned(&mut self, ctx: &mut MainContext<'_>, _connect: ConnectId, opaque: u64) {
        if let Some(told) = &mut *self.book.lock()
            && opaque == TESTED
        {
            told.cleaned += 1;
            told.note(ctx.now(), self.part.name(), "cleaned".to_owned());
        }
    }

    fn detached(&mut self, _report: &DetachReport) {}
}

/// One end of what a proxy relays.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    other: Option<SessionHandle>,
    /// Its peer has closed.
    is_ended: bool,
    /// Its peer was told that the other's has.
    is_finished: bool,
}

struct Object {
    part: Part,
    book: Book,
    /// The proxy's sessions.
    ends: BTreeMap<SessionHandle, End>,
}

impl Object {
    fn told<T>(&self, ctx: &Context<'_>, what: String, work: impl FnOnce(&mut Told) -> T) -> Option<T> {
        let mut book = self.book.lock();
        let told = book.as_mut()?;
        told.note(ctx.now(), self.part.name(), what);
        Some(work(told))
    }

    fn cell(&self) -> Option<Cell> {
        self.book.lock().as_ref().map(|told| told.cell)
    }

    // ---- Who asks ----

    fn ask(&mut self, ctx: &mut Context<'_>) {
        let worker = ctx.worker();
        let Some((cell, options)) = self.told(ctx, "begins".to_owned(), |told| {
            let options = match told.cell.consumer {
                Consumer::Proxy => {
                    ConnectOptions { worker: Some(worker), ..ConnectOptions::to(told.front.clone()) }
                }
                Consumer::App | Consumer::Check => told.tested(worker),
            };
            (told.cell, options)
        }) else {
            return;
        };
        if cell.consumer == Consumer::Check {
            ctx.set_timer(UP, ATTEMPT);
        }
        let early = if cell.workload == Workload::Buffered { REQUEST } else { b"" };
        if let Err(error) = ctx.connect_with(options, early) {
            self.told(ctx, format!("connect: {error}"), |_| ());
        }
    }

    fn asker_connected(&mut self, ctx: &mut Context<'_>, session: SessionHandle, cell: Cell) {
        match cell.workload {
            Workload::Buffered | Workload::ServerFirst => {}
            Workload::Late => ctx.set_timer(SPEAK, SILENCE),
            Workload::Script => {
                ctx.write(session, REQUEST);
            }
            Workload::ConnectOnly => {
                self.check_says(ctx, true);
                ctx.close(session);
            }
        }
        self.ends.insert(session, End::default());
    }

    fn asker_hears(&mut self, ctx: &mut Context<'_>, session: SessionHandle, cell: Cell) {
        let bytes = take(ctx, session);
        let now = ctx.now();
        let has_all = self.told(ctx, format!("hears {} bytes", bytes.len()), |told| {
            told.answered.extend_from_slice(&bytes);
            let has_all = told.answered == cell.workload.answered();
            if has_all {
                told.got_at.get_or_insert(now);
            }
            has_all
        });
        if has_all == Some(true) {
            if cell.consumer == Consumer::Check {
                self.check_says(ctx, true);
                ctx.reset(session);
            } else {
                ctx.close(session);
            }
        }
    }

    /// What the check finds, once.
    fn check_says(&mut self, ctx: &mut Context<'_>, is_up: bool) {
        let now = ctx.now();
        self.told(ctx, format!("check: {}", if is_up { "up" } else { "down" }), |told| {
            told.check.get_or_insert((now, is_up));
        });
        ctx.cancel_timer(UP);
    }

    // ---- The proxy ----

    fn proxy_connects(&mut self, ctx: &mut Context<'_>, front: SessionHandle, early: &[u8]) {
        let worker = ctx.worker();
        let Some(options) = self.told(ctx, "connects".to_owned(), |told| told.tested(worker)) else { return };
        self.ends.insert(front, End::default());
        if let Err(error) = ctx.connect_with(options, early) {
            self.told(ctx, format!("connect: {error}"), |_| ());
        }
    }

    /// Links the two, and forwards what has come meanwhile.
    fn proxy_connected(&mut self, ctx: &mut Context<'_>, back: SessionHandle) {
        // One client at a time.
        let front = self.ends.iter().find(|(_, end)| end.other.is_none()).map(|(front, _)| *front);
        let Some(front) = front else { return ctx.reset(back) };
        self.ends.insert(back, End { other: Some(front), ..End::default() });
        if let Some(end) = self.ends.get_mut(&front) {
            end.other = Some(back);
        }
        self.forward(ctx, front);
        self.forward(ctx, back);
    }

    fn forward(&mut self, ctx: &mut Context<'_>, from: SessionHandle) {
        let Some(&End { other: Some(to), is_ended, .. }) = self.ends.get(&from) else { return };
        while ctx.splice(from, to) > 0 {}
        if !is_ended || ctx.rx_len(from) > 0 {
            return;
        }
        let Some(other) = self.ends.get_mut(&to) else { return };
        if !std::mem::replace(&mut other.is_finished, true) {
            ctx.half_close(to);
        }
        if other.is_ended && ctx.rx_len(to) == 0 {
            ctx.close(from);
            ctx.close(to);
        }
    }

    fn proxy_ended(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        if let Some(end) = self.ends.get_mut(&session) {
            end.is_ended = true;
        }
        self.forward(ctx, session);
    }
}

fn take(ctx: &mut Context<'_>, session: SessionHandle) -> Vec<u8> {
    let mut bytes = vec![0; ctx.rx_len(session)];
    let count = ctx.read(session, &mut bytes);
    bytes.truncate(count);
    bytes
}

impl AppWorker for Object {
    fn notified(&mut self, ctx: &mut Context<'_>, _message: Box<dyn std::any::Any + Send>) {
        // What an earlier cell left, if it went wrong.
        self.ends.clear();
        if self.part == Part::Asker {
            self.ask(ctx);
        }
    }

    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let Some(cell) = self.cell() else { return };
        match self.part {
            Part::Server => {
                let said = ctx.declared(session).and_then(|declared| declared.endpoints());
                let is_right = said == cell.stack.has_header().then(origin);
                self.told(ctx, format!("accepted, declared {said:?}"), |told| {
                    told.open += 1;
                    told.accepted.push(is_right);
                });
                if cell.workload == Workload::ServerFirst {
                    ctx.write(session, GREETING);
                }
            }
            Part::Proxy => {
                self.told(ctx, "accepted".to_owned(), |told| told.open += 1);
                if cell.workload != Workload::Buffered {
                    self.proxy_connects(ctx, session, b"");
                }
            }
            Part::Asker => {}
        }
    }

    fn not_accepted(&mut self, ctx: &mut Context<'_>, _flow: &FlowKey, failure: ConnectFailure) {
        self.told(ctx, format!("not accepted: {failure}"), |told| told.not_accepted.push(failure));
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        let Some(cell) = self.cell() else { return };
        let (now, part) = (ctx.now(), self.part);
        self.told(ctx, format!("connected: {outcome:?}"), |told| {
            told.open += i64::from(outcome.is_ok());
            if opaque == TESTED {
                told.outcomes.push((now, outcome));
                if outcome.is_ok() && cell.workload == Workload::ConnectOnly {
                    told.got_at.get_or_insert(now);
                }
            }
        });
        match (part, outcome) {
            (Part::Asker, Ok(session)) => self.asker_connected(ctx, session, cell),
            (Part::Proxy, Ok(session)) => self.proxy_connected(ctx, session),
            (Part::Proxy, Err(_)) => {
                for &front in self.ends.keys() {
                    ctx.reset(front);
                }
            }
            (Part::Asker, Err(_)) if cell.consumer == Consumer::Check => self.check_says(ctx, false),
            (_, _) => {}
        }
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let Some(cell) = self.cell() else { return };
        match self.part {
            Part::Asker => self.asker_hears(ctx, session, cell),
            Part::Server => {
                let bytes = take(ctx, session);
                let has_all = self.told(ctx, format!("hears {} bytes", bytes.len()), |told| {
                    told.asked.extend_from_slice(&bytes);
                    told.asked == REQUEST
                });
                if has_all == Some(true) {
                    ctx.write(session, ANSWER);
                }
            }
            // The first bytes of a client: they go with the connect.
            Part::Proxy if !self.ends.contains_key(&session) => {
                let bytes = take(ctx, session);
                self.proxy_connects(ctx, session, &bytes);
            }
            Part::Proxy => self.forward(ctx, session),
        }
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        if let Some(other) = self.ends.get(&session).and_then(|end| end.other) {
            self.forward(ctx, other);
        }
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.told(ctx, "peer closed".to_owned(), |_| ());
        match self.part {
            Part::Proxy => self.proxy_ended(ctx, session),
            Part::Server | Part::Asker => ctx.close(session),
        }
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, _opaque: u64, reason: CloseReason) {
        self.told(ctx, format!("closed: {reason:?}"), |told| told.open -= 1);
        if let Some(End { other: Some(other), .. }) = self.ends.remove(&session) {
            ctx.close(other);
        }
    }

    fn timer(&mut self, ctx: &mut Context<'_>, token: u64) {
        match token {
            SPEAK => {
                for &session in self.ends.keys() {
                    ctx.write(session, REQUEST);
                }
            }
            _ => {
                self.check_says(ctx, false);
                for &session in self.ends.keys() {
                    ctx.reset(session);
                }
            }
        }
    }
}

/// How long the test may move the time without having heard nothing from the machine for long: enough for whoever speaks
/// late and for all short waits of the transport, and far from the deadline.
pub(super) const FREE: Duration = Duration::from_millis(700);
