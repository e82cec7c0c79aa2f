//! The HTTP server through a whole stack on virtual time: clients of every sort, and a responder that answers when the test
//! says so.

mod common;

use std::any::Any;
use std::sync::{Arc, Mutex};

use common::*;
use crossbeam_channel::{Receiver, Sender, unbounded};
use hoststack::app::*;
use hoststack::{Attached, SingleThreaded};
use hoststack_builtin::http::{Reply, Request, Responder, Response};
use hoststack_builtin::{HttpOptions, HttpServer};

const PEER: &str = "10.0.0.2:80";
const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// What a client does, after so many milliseconds.
#[derive(Clone)]
enum Act {
    Send(Vec<u8>),
    HalfClose,
    /// From now on all.
    Read,
    /// So many bytes, once.
    Sip(usize),
    Reset,
}

fn send(text: &str) -> Vec<(u64, Act)> {
    vec![(0, Act::Send(text.as_bytes().to_vec()))]
}

/// What a client saw.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    peer_closed_at: Option<Instant>,
    ended: Option<(Instant, CloseReason)>,
}

#[derive(Clone)]
struct Client {
    remote: Address,
    script: Vec<(u64, Act)>,
    reads: bool,
    /// Closes when the server has; otherwise it stays, half open.
    closes: bool,
    seen: Arc<Mutex<Seen>>,
}

impl Client {
    fn new(script: Vec<(u64, Act)>) -> Client {
        Client { remote: endpoint(PEER).into(), script, reads: true, closes: true, seen: Arc::default() }
    }

    fn text(&self) -> String {
        String::from_utf8(self.seen.lock().unwrap().bytes.clone()).unwrap()
    }

    fn ended(&self) -> Option<CloseReason> {
        self.seen.lock().unwrap().ended.map(|(_, reason)| reason)
    }
}

impl Application for Client {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ClientWorker { client: self.clone(), session: None, next: 0, unsent: Vec::new() })
    }

    fn attached(&mut self, ctx: &mut MainContext<'_>) {
        let options = ConnectOptions { domain: CLIENT, ..ConnectOptions::to(self.remote.clone()) };
        ctx.connect(ctx.app_workers()[0], options).unwrap();
    }
}

struct ClientWorker {
    client: Client,
    session: Option<SessionHandle>,
    next: usize,
    unsent: Vec<u8>,
}

impl ClientWorker {
    fn schedule(&self, ctx: &mut Context<'_>) {
        if let Some((after, _)) = self.client.script.get(self.next) {
            ctx.set_timer(0, Duration::from_millis(*after));
        }
    }

    fn read(&self, ctx: &mut Context<'_>, session: SessionHandle) {
        while self.client.reads && ctx.rx_len(session) > 0 {
            let mut bytes = vec![0; ctx.rx_len(session)];
            ctx.read(session, &mut bytes);
            self.client.seen.lock().unwrap().bytes.extend(bytes);
        }
    }

    fn write(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let count = ctx.write(session, &self.unsent);
        self.unsent.drain(..count);
    }
}

impl AppWorker for ClientWorker {
    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        _opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        self.session = Some(outcome.unwrap());
        self.schedule(ctx);
    }

    fn timer(&mut self, ctx: &mut Context<'_>, _token: u64) {
        let Some(session) = self.session else { return };
        let (_, act) = self.client.script[self.next].clone();
        self.next += 1;
        match act {
            Act::Send(bytes) => {
                self.unsent.extend(bytes);
                self.write(ctx, session);
            }
            Act::HalfClose => ctx.half_close(session),
            Act::Read => {
                self.client.reads = true;
                self.read(ctx, session);
            }
            Act::Sip(most) => {
                let mut bytes = vec![0; most.min(ctx.rx_len(session))];
                ctx.read(session, &mut bytes);
                self.client.seen.lock().unwrap().bytes.extend(bytes);
            }
            Act::Reset => ctx.reset(session),
        }
        self.schedule(ctx);
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.read(ctx, session);
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.write(ctx, session);
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.read(ctx, session);
        self.client.seen.lock().unwrap().peer_closed_at = Some(ctx.now());
        if self.client.closes {
            ctx.close(session);
        }
    }

    fn closed(&mut self, ctx: &mut Context<'_>, _session: SessionHandle, _opaque: u64, reason: CloseReason) {
        self.session = None;
        self.client.seen.lock().unwrap().ended = Some((ctx.now(), reason));
    }
}

/// Hands every request to the test.
struct Asked(Sender<(Request, Reply)>);

impl Responder for Asked {
    fn respond(&self, request: Request, reply: Reply) {
        self.0.send((request, reply)).unwrap();
    }
}

/// A stack with a server.
struct House {
    stack: SingleThreaded,
    server: Attached,
    asked: Receiver<(Request, Reply)>,
    clients: Vec<Attached>,
    stats: Arc<hoststack_builtin::ServerStats>,
}

impl House {
    fn new(options: HttpOptions) -> House {
        let mut stack = stack(1);
        let handle = stack.handle();
        let post = move |app_worker, worker, message: Box<dyn Any + Send>| {
            let _ = handle.notify(app_worker, worker, message);
        };
        let (sender, asked) = unbounded();
        let local = ListenOptions { domain: CLIENT, ..ListenOptions::on(Address::local("page").unwrap()) };
        let server = HttpServer::new(vec![on(PEER), local], options, Asked(sender), post);
        let (stats, listening) = (server.stats(), server.listening());
        let server = stack.attach(server, named("http")).unwrap();
        run(&mut stack, Duration::from_secs(1), || !listening.is_empty());
        assert!(listening.try_recv().unwrap().all_up());
        House { stack, server, asked, clients: Vec::new(), stats }
    }

    fn client(&mut self, client: &Client) {
        let name = format!("client-{}", self.clients.len());
        self.clients.push(self.stack.attach(client.clone(), named(&name)).unwrap());
    }

    /// Runs until `done`, with every request answered by `answer`.
    #[track_caller]
    fn serve(&mut self, mut answer: impl FnMut(Request, Reply), mut done: impl FnMut() -> bool) {
        let asked = &self.asked;
        let ended = self.stack.run_until(Duration::from_secs(200), |stack| {
            stack.check_consistency();
            asked.try_iter().for_each(|(request, reply)| answer(request, reply));
            done()
        });
        assert!(ended, "not done");
    }

    fn end(self) {
        let House { stack, server, clients, asked, .. } = self;
        drop(asked);
        let _ = end(stack, &clients.iter().chain([&server]).collect::<Vec<_>>());
    }
}

/// Answers with the request's path.
fn path(request: Request, reply: Reply) {
    reply.send(Response::plain(200, &request.path));
}

/// Serves one client until it has ended; what it got.
#[track_caller]
fn exchange(client: &Client) -> String {
    let mut house = House::new(HttpOptions::default());
    house.client(client);
    house.serve(path, || client.ended().is_some());
    assert!(client.ended().unwrap().is_graceful(), "{:?}", client.ended());
    house.end();
    client.text()
}

fn answer(body: &str, close: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{close}\r\n{body}",
        body.len()
    )
}

#[test]
fn requests_of_a_connection_are_answered_in_order_however_they_are_cut() {
    let requests = "GET /one HTTP/1.1\r\nHost: x\r\n\r\nHEAD /three HTTP/1.1\r\nHost: x\r\n\r\n\
                    GET /two HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\n";
    let head = answer("/three", "");
    let expected = format!(
        "{}{}{}",
        answer("/one", ""),
        head.strip_suffix("/three").unwrap(),
        answer("/two", "Connection: close\r\n")
    );
    assert_eq!(exchange(&Client::new(send(requests))), expected);
    let bytes = requests.as_bytes().chunks(7).map(|piece| (3, Act::Send(piece.to_vec()))).collect();
    assert_eq!(exchange(&Client::new(bytes)), expected);
    let local = Client { remote: Address::local("page").unwrap(), ..Client::new(send(requests)) };
    assert_eq!(exchange(&local), expected);
}

#[test]
fn a_client_that_has_closed_its_direction_is_answered_and_half_a_request_is_not() {
    let mut script = send(GET);
    script.push((0, Act::HalfClose));
    assert_eq!(exchange(&Client::new(script)), answer("/", ""));
    let script = vec![(0, Act::Send(b"GET / HT".to_vec())), (0, Act::HalfClose)];
    assert_eq!(exchange(&Client::new(script)), "");
}

#[test]
fn wrong_input_is_told_so_and_nothing_behind_it_is_read() {
    for (request, status) in [
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), "400 Bad Request"),
        (format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{GET}"), "405 Method Not Allowed"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{GET}"), "413 Content Too Large"),
        // More than a fifo holds: it is dropped, so that the answer is not lost behind it.
        (format!("GET /{}", "x".repeat(300_000)), "431 Request Header Fields Too Large"),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n".to_owned(), "505 HTTP Version Not Supported"),
    ] {
        let text = exchange(&Client::new(send(&request)));
        assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{status}: {text}");
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
        assert_eq!(text.matches("Content-Length").count(), 1, "one answer: {text}");
    }
}

#[test]
fn a_slow_reader_gets_all_and_one_that_never_reads_is_cut_off() {
    let body = "0123456789abcdef".repeat(100_000);
    let big = |_: Request, reply: Reply| reply.send(Response::plain(200, &body));
    let mut house = House::new(HttpOptions::default());
    let mut script = send(&GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    script.push((20_000, Act::Read));
    let slow = Client { reads: false, ..Client::new(script) };
    let never = Client { reads: false, ..Client::new(send(GET)) };
    house.client(&slow);
    house.client(&never);
    // The reset of a connection whose window is closed may not reach the client: the server has let go of it.
    let stats = Arc::clone(&house.stats);
    house.serve(big, || slow.ended().is_some() && stats.totals().reset == 1);
    assert_eq!(slow.text(), answer(&body, "Connection: close\r\n"));
    assert!(slow.ended().unwrap().is_graceful());
    assert_eq!((stats.totals().closed, never.text()), (1, String::new()));
    house.end();
}

#[test]
fn one_that_sips_is_cut_off_in_the_end() {
    let body = "0123456789abcdef".repeat(1_000_000);
    let big = |_: Request, reply: Reply| reply.send(Response::plain(200, &body));
    let options = HttpOptions { answer_timeout: Duration::from_secs(60), ..HttpOptions::default() };
    let mut house = House::new(options);
    let mut script = send(GET);
    script.extend((0..100).map(|_| (10_000, Act::Sip(20_000))));
    let sips = Client { reads: false, ..Client::new(script) };
    house.client(&sips);
    let (stats, start) = (Arc::clone(&house.stats), house.stack.now());
    house.serve(big, || stats.totals().reset == 1);
    let took = house.stack.now().since(start);
    assert!((Duration::from_secs(60)..Duration::from_secs(62)).contains(&took), "{took:?}");
    assert!(sips.text().len() >= 80_000, "it was never idle: {}", sips.text().len());
    house.serve(big, || sips.ended().is_some());
    house.end();
}

#[test]
fn silence_and_a_head_that_drips_end_at_the_idle_timeout() {
    let mut house = House::new(HttpOptions::default());
    let silent = Client::new(Vec::new());
    let drips = GET.bytes().map(|byte| (5_000, Act::Send(vec![byte]))).collect();
    let drips = Client::new(drips);
    house.client(&silent);
    house.client(&drips);
    let start = house.stack.now();
    house.serve(path, || silent.ended().is_some() && drips.ended().is_some());
    for client in [&silent, &drips] {
        let seen = client.seen.lock().unwrap();
        let took = seen.peer_closed_at.expect("it was closed, not cut off").since(start);
        assert!((Duration::from_secs(30)..Duration::from_secs(31)).contains(&took), "{took:?}");
        assert!(seen.bytes.is_empty());
    }
    house.end();
}

#[test]
fn a_client_that_does_not_close_after_the_last_answer_is_not_waited_for() {
    let mut house = House::new(HttpOptions::default());
    let stays = Client { closes: false, ..Client::new(send("GET / HTTP/1.0\r\n\r\n")) };
    house.client(&stays);
    let start = house.stack.now();
    let stats = Arc::clone(&house.stats);
    house.serve(path, || stats.totals().closed + stats.totals().reset == 1);
    let took = house.stack.now().since(start);
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(120), "{took:?}");
    assert_eq!(stays.text(), answer("/", "Connection: close\r\n"));
    house.end();
}

#[test]
fn a_request_that_nobody_answers_is_answered_with_a_500() {
    let mut house = House::new(HttpOptions::default());
    let client = Client::new(send("GET / HTTP/1.0\r\n\r\n"));
    house.client(&client);
    house.serve(|_, reply| drop(reply), || client.ended().is_some());
    assert!(client.text().starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{}", client.text());
    house.end();
}

#[test]
fn an_answer_that_comes_late_goes_to_nobody_else() {
    let mut house = House::new(HttpOptions::default());
    let mut script = send("GET /gone HTTP/1.1\r\nHost: x\r\n\r\n");
    script.push((1_000, Act::Reset));
    let gone = Client::new(script);
    house.client(&gone);
    let mut held = Vec::new();
    house.serve(|_, reply| held.push(reply), || gone.ended().is_some());
    // In the same place of the server, which is free now.
    let next = Client::new(send("GET /next HTTP/1.0\r\n\r\n"));
    house.client(&next);
    let mut late = held;
    house.serve(
        |request, reply| {
            late.drain(..).for_each(|reply| reply.send(Response::plain(200, "another's")));
            path(request, reply);
        },
        || next.ended().is_some(),
    );
    assert_eq!(next.text(), answer("/next", "Connection: close\r\n"));
    house.end();
}

#[test]
fn a_responder_that_sleeps_costs_its_clients_their_connections_only() {
    let mut house = House::new(HttpOptions::default());
    let client = Client::new(send(GET));
    house.client(&client);
    let mut held = Vec::new();
    house.serve(|_, reply| held.push(reply), || client.ended().is_some());
    assert!(!client.ended().unwrap().is_graceful() && client.text().is_empty());
    drop(held);
    house.end();
}

#[test]
fn one_session_too_many_is_refused_and_a_place_that_is_free_is_taken() {
    let mut house = House::new(HttpOptions { sessions_max: 1, ..HttpOptions::default() });
    let first = Client::new(Vec::new());
    house.client(&first);
    run_for(&mut house.stack, Duration::from_secs(1));
    let second = Client::new(send(GET));
    house.client(&second);
    house.serve(path, || second.ended().is_some());
    assert!(!second.ended().unwrap().is_graceful());
    house.serve(path, || first.ended().is_some());
    let third = Client::new(send("GET /third HTTP/1.0\r\n\r\n"));
    house.client(&third);
    house.serve(path, || third.ended().is_some());
    assert_eq!(third.text(), answer("/third", "Connection: close\r\n"));
    house.end();
}

#[test]
fn a_detach_ends_idle_connections_and_lets_an_answer_be_read() {
    let mut house = House::new(HttpOptions::default());
    let (idle, reader) = (Client::new(Vec::new()), Client::new(send(GET)));
    house.client(&idle);
    house.client(&reader);
    house.serve(path, || reader.text().ends_with('/'));
    let report = house.stack.detach(house.server.app, DetachPolicy::default()).unwrap();
    assert_eq!((report.app_workers[0].sessions, report.app_workers[0].sessions_reset), (2, 0));
    assert!(idle.ended().is_some() && reader.ended().is_some());
    let House { stack, clients, .. } = house;
    let _ = end(stack, &clients.iter().collect::<Vec<_>>());
}
