//! The server: a session reads a head, waits for its answer, writes it, and reads the next.
//!
//! One request of a session is under way at a time; what is pipelined behind it waits in the session's fifo, so that a client
//! that sends and does not read is not read from (RFC 9112 §9.3.2 asks for answers in order). What ends a connection after an
//! answer ends it in two steps (RFC 9112 §9.6): our direction first, so that the answer is not lost to a reset, and the whole
//! when the client has closed, or has had time to.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hoststack_app::{
    AppWorker, AppWorkerId, Application, CloseReason, Context, Duration, Instant, ListenOptions,
    SessionHandle, WorkerId,
};

use super::reply::{Answered, Post, Reply, Responder};
use super::request::{self, HEAD_MAX, Method};
use super::response::Response;
use crate::server::{Listeners, ServerCell, listens_when_attached, tells_listening};

/// Limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct HttpOptions {
    /// A session ends on which nothing happened for so long: no complete request came, no byte of an answer was taken, or
    /// nobody answered. Default 30 s.
    pub idle_timeout: Duration,
    /// How long a client may take for a whole answer, however steadily it sips. Default 5 min.
    pub answer_timeout: Duration,
    /// How long a client may take to close after the last answer. Default 2 s.
    pub linger: Duration,
    /// Most sessions per worker; one more is reset. Default 256.
    pub sessions_max: usize,
}

impl Default for HttpOptions {
    fn default() -> HttpOptions {
        HttpOptions {
            idle_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(300),
            linger: Duration::from_secs(2),
            sessions_max: 256,
        }
    }
}

/// Answers GET and HEAD with what its [`Responder`] says.
pub struct HttpServer {
    listeners: Listeners,
    options: HttpOptions,
    responder: Arc<dyn Responder>,
    post: Arc<dyn Post>,
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer")
            .field("listeners", &self.listeners)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl HttpServer {
    /// A server for these endpoints, whose `opaque` values are replaced by the server's own. `post` brings the answers of
    /// `responder` back to the workers.
    pub fn new(
        endpoints: Vec<ListenOptions>,
        options: HttpOptions,
        responder: impl Responder + 'static,
        post: impl Post + 'static,
    ) -> HttpServer {
        let (responder, post) = (Arc::new(responder), Arc::new(post));
        HttpServer { listeners: Listeners::new(endpoints), options, responder, post }
    }

    tells_listening!();
}

impl Application for HttpServer {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(HttpWorker {
            options: self.options,
            responder: Arc::clone(&self.responder),
            post: Arc::clone(&self.post),
            cell: self.listeners.stats().new_cell(),
            talks: BTreeMap::new(),
            watch_at: None,
        })
    }

    listens_when_attached!();
}

/// Where a session is.
#[derive(Debug)]
enum State {
    /// A head is being read.
    Reading,
    /// The responder has the request.
    Waiting { is_head: bool, keeps_open: bool },
    /// The answer is being written; by then it must have been taken.
    Writing { answer: Answer, keeps_open: bool, until: Instant },
    /// All is said; what still comes is dropped until the client closes.
    Lingering,
    /// Closed by us; the transport is finishing.
    Closing,
}

/// An answer, and how much of it was written.
#[derive(Debug)]
struct Answer {
    head: Vec<u8>,
    body: Arc<[u8]>,
    written: usize,
}

impl Answer {
    fn new(response: Response, is_head: bool, keeps_open: bool) -> Answer {
        let head = response.head(keeps_open);
        // RFC 9110 §9.3.2: a HEAD has the fields of the GET, and no body.
        let body = if is_head { Arc::default() } else { response.body };
        Answer { head, body, written: 0 }
    }

    /// Writes what there is room for; how many bytes that were.
    fn write(&mut self, ctx: &mut Context<'_>, session: SessionHandle) -> usize {
        let before = self.written;
        loop {
            let rest = match self.head.get(self.written..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => &self.body[self.written - self.head.len()..],
            };
            match ctx.write(session, rest) {
                0 => return self.written - before,
                count => self.written += count,
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.written == self.head.len() + self.body.len()
    }
}

/// A session.
#[derive(Debug)]
struct Talk {
    state: State,
    /// Bytes of a head, at most [`HEAD_MAX`]; the rest of what came waits in the session's fifo.
    bytes: Vec<u8>,
    peer_closed: bool,
    /// When it ends unless something happens.
    deadline: Instant,
}

struct HttpWorker {
    options: HttpOptions,
    responder: Arc<dyn Responder>,
    post: Arc<dyn Post>,
    cell: Arc<ServerCell>,
    talks: BTreeMap<u64, Talk>,
    /// When the timer goes off, which is no later than any deadline.
    watch_at: Option<Instant>,
}

/// The one timer: the earliest deadline.
const WATCH: u64 = 0;

impl HttpWorker {
    /// Goes on with a session as far as it can.
    fn go_on(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let Some(mut talk) = self.talks.remove(&session.as_u64()) else { return };
        let (now, options) = (ctx.now(), self.options);
        loop {
            match &mut talk.state {
                State::Reading => {
                    fill(ctx, session, &mut talk.bytes);
                    let protocol = match ctx.flow(session) {
                        Ok(flow) => flow.protocol,
                        Err(_) => break,
                    };
                    match request::read(&talk.bytes, protocol) {
                        Ok(Some((taken, head))) => {
                            talk.bytes.drain(..taken);
                            talk.deadline = now + options.idle_timeout;
                            let is_head = head.request.method == Method::Head;
                            talk.state = State::Waiting { is_head, keeps_open: head.keeps_open };
                            let reply =
                                Reply::new(session, ctx.app_worker(), ctx.worker(), Arc::clone(&self.post));
                            self.responder.respond(head.request, reply);
                        }
                        // What comes behind a half of a head never does.
                        Ok(None) if talk.peer_closed => self.close(ctx, session, &mut talk),
                        Ok(None) => break,
                        Err(refusal) => {
                            talk.bytes = Vec::new();
                            talk.deadline = now + options.idle_timeout;
                            let response = Response::plain(refusal.status, refusal.why);
                            let answer = Answer::new(response, false, false);
                            let until = now + options.answer_timeout;
                            talk.state = State::Writing { answer, keeps_open: false, until };
                        }
                    }
                }
                State::Waiting { .. } => break,
                State::Writing { answer, keeps_open, until } => {
                    let written = answer.write(ctx, session);
                    if written > 0 {
                        self.cell.bytes.add(written as u64);
                        talk.deadline = (now + options.idle_timeout).min(*until);
                    }
                    if !answer.is_complete() {
                        break;
                    }
                    if *keeps_open {
                        talk.state = State::Reading;
                        talk.deadline = now + options.idle_timeout;
                    } else {
                        ctx.half_close(session);
                        talk.state = State::Lingering;
                        talk.deadline = now + options.linger;
                    }
                }
                State::Lingering => {
                    ctx.consume(session, usize::MAX);
                    if !talk.peer_closed {
                        break;
                    }
                    self.close(ctx, session, &mut talk);
                }
                State::Closing => break,
            }
        }
        let deadline = talk.deadline;
        self.talks.insert(session.as_u64(), talk);
        self.watch(ctx, deadline);
    }

    fn close(&self, ctx: &mut Context<'_>, session: SessionHandle, talk: &mut Talk) {
        ctx.close(session);
        talk.state = State::Closing;
        talk.deadline = ctx.now() + self.options.idle_timeout;
    }

    /// Has the timer go off at `deadline` or before.
    fn watch(&mut self, ctx: &mut Context<'_>, deadline: Instant) {
        if self.watch_at.is_none_or(|at| deadline < at) {
            self.watch_at = Some(deadline);
            ctx.set_timer(WATCH, deadline.since(ctx.now()));
        }
    }
}

/// Takes received bytes as long as they may be part of a head.
fn fill(ctx: &mut Context<'_>, session: SessionHandle, bytes: &mut Vec<u8>) {
    while bytes.len() < HEAD_MAX {
        let input = ctx.peek(session);
        let count = input.len().min(HEAD_MAX - bytes.len());
        if count == 0 {
            return;
        }
        bytes.extend_from_slice(&input[..count]);
        ctx.consume(session, count);
    }
}

impl AppWorker for HttpWorker {
    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        if self.talks.len() >= self.options.sessions_max {
            ctx.reset(session);
            return;
        }
        self.cell.accepted.add(1);
        let deadline = ctx.now() + self.options.idle_timeout;
        let talk = Talk { state: State::Reading, bytes: Vec::new(), peer_closed: false, deadline };
        self.talks.insert(session.as_u64(), talk);
        self.watch(ctx, deadline);
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.go_on(ctx, session);
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.go_on(ctx, session);
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        // A client that has sent all it will still hears its answers.
        match self.talks.get_mut(&session.as_u64()) {
            Some(talk) => talk.peer_closed = true,
            None => ctx.close(session),
        }
        self.go_on(ctx, session);
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, _opaque: u64, reason: CloseReason) {
        if self.talks.remove(&session.as_u64()).is_some() {
            self.cell.on_closed(reason);
        }
        if self.talks.is_empty() && self.watch_at.take().is_some() {
            ctx.cancel_timer(WATCH);
        }
    }

    fn timer(&mut self, ctx: &mut Context<'_>, _token: u64) {
        self.watch_at = None;
        let now = ctx.now();
        for (number, talk) in &mut self.talks {
            if talk.deadline > now {
                continue;
            }
            let session = SessionHandle::from_u64(*number);
            talk.deadline = now + self.options.idle_timeout;
            match talk.state {
                State::Reading | State::Lingering => ctx.close(session),
                // Cut off, for it would wait behind what the client does not take.
                State::Waiting { .. } | State::Writing { .. } | State::Closing => ctx.reset(session),
            }
            talk.state = State::Closing;
        }
        if let Some(earliest) = self.talks.values().map(|talk| talk.deadline).min() {
            self.watch(ctx, earliest);
        }
    }

    fn notified(&mut self, ctx: &mut Context<'_>, message: Box<dyn Any + Send>) {
        let Ok(answered) = message.downcast::<Answered>() else { return };
        let Answered { session, response } = *answered;
        let Some(talk) = self.talks.get_mut(&session.as_u64()) else { return };
        if let State::Waiting { is_head, keeps_open } = talk.state {
            let answer = Answer::new(response, is_head, keeps_open);
            let now = ctx.now();
            talk.state = State::Writing { answer, keeps_open, until: now + self.options.answer_timeout };
            talk.deadline = now + self.options.idle_timeout;
            self.go_on(ctx, session);
        }
    }

    fn detaching(&mut self, ctx: &mut Context<'_>, _app_worker: AppWorkerId) {
        // Nobody waits for the next request of a connection that is kept open.
        for (number, talk) in &mut self.talks {
            if matches!(talk.state, State::Reading) {
                ctx.close(SessionHandle::from_u64(*number));
                talk.state = State::Closing;
            }
        }
    }
}
