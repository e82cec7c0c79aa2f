//! Fetch through a whole stack, from a scripted HTTP server on the other end of the wire.

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, LinkState};
use hoststack::{Attached, SingleThreaded};
use hoststack_builtin::{
    Fetch, FetchError, FetchHandle, FetchOptions, FetchOutcome, FetchRequest, FetchSink, FetchState, Fetched,
    HeadError, Pattern, parse_url,
};

const PEER: &str = "10.0.0.2:80";

/// A body of `len` bytes.
fn body(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Pattern::new(1, 2).fill(0, &mut bytes);
    bytes
}

/// What the server does when it has written its answer.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Close,
    Reset,
    /// Keeps the connection open and says no more.
    Wait,
}

/// The answer to a path.
fn answer(path: &str) -> (Vec<u8>, Then) {
    let with = |head: &str, body: &[u8]| [format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), body].concat();
    let name = path.trim_start_matches('/').split('?').next().unwrap();
    let (kind, len) = name.split_once('-').unwrap_or((name, "1000"));
    let body = body(len.parse().unwrap());
    let length = format!("200 OK\r\nContent-Length: {}", body.len());
    match kind {
        "length" => (with(&length, &body), Then::Close),
        "kept" => (with(&length, &body), Then::Wait),
        "close" => (with("200 OK", &body), Then::Close),
        "chunked" => {
            let mut coded: Vec<u8> = Vec::new();
            for chunk in body.chunks(777) {
                coded.extend(format!("{:X};x=y\r\n", chunk.len()).bytes());
                coded.extend(chunk);
                coded.extend(b"\r\n");
            }
            coded.extend(b"0\r\nTrailer: yes\r\n\r\n");
            (with("200 OK\r\nTransfer-Encoding: chunked", &coded), Then::Close)
        }
        "empty" => (with("204 No Content", b""), Then::Close),
        "missing" => (with("404 Not Found\r\nContent-Length: 5", b"sorry"), Then::Close),
        "moved" => (with("302 Found\r\nLocation: /there\r\nContent-Length: 0", b""), Then::Close),
        "short" => (with(&length, &body[..body.len() / 2]), Then::Close),
        "reset" => (with(&length, &body[..body.len() / 2]), Then::Reset),
        "stall" => (with(&length, &body[..body.len() / 2]), Then::Wait),
        "silent" => (vec![], Then::Close),
        "mute" => (vec![], Then::Wait),
        "noise" => (b"220 mail.example.org ESMTP\r\n\r\n".to_vec(), Then::Close),
        "longhead" => (with(&format!("200 OK\r\nX: {}", "y".repeat(70_000)), b""), Then::Close),
        other => panic!("no answer to {other}"),
    }
}

#[derive(Clone, Default)]
struct HttpServer {
    open: Arc<AtomicUsize>,
    most_open: Arc<AtomicUsize>,
}

impl Application for HttpServer {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(HttpWorker { server: self.clone(), talks: Vec::new() })
    }

    fn attached(&mut self, ctx: &mut MainContext<'_>) {
        ctx.listen(ctx.app_workers()[0], on(PEER)).unwrap();
        ctx.listen(ctx.app_workers()[0], on("[fd00::2]:80")).unwrap();
    }
}

struct Talk {
    session: SessionHandle,
    request: Vec<u8>,
    answer: Option<(Vec<u8>, Then)>,
}

struct HttpWorker {
    server: HttpServer,
    talks: Vec<Talk>,
}

impl HttpWorker {
    fn write(ctx: &mut Context<'_>, talk: &mut Talk) {
        let Some((answer, then)) = &mut talk.answer else { return };
        loop {
            let count = ctx.write(talk.session, answer);
            if count == 0 {
                break;
            }
            answer.drain(..count);
        }
        match (answer.is_empty(), then) {
            (true, Then::Close) => ctx.close(talk.session),
            (true, Then::Reset) => ctx.set_timer(talk.session.as_u64(), Duration::from_secs(1)),
            _ => {}
        }
    }
}

impl AppWorker for HttpWorker {
    fn accepted(&mut self, _ctx: &mut Context<'_>, session: SessionHandle) {
        let open = self.server.open.fetch_add(1, Relaxed) + 1;
        self.server.most_open.fetch_max(open, Relaxed);
        self.talks.push(Talk { session, request: Vec::new(), answer: None });
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let talk = self.talks.iter_mut().find(|talk| talk.session == session).unwrap();
        let mut bytes = vec![0; ctx.rx_len(session)];
        ctx.read(session, &mut bytes);
        talk.request.extend(bytes);
        if talk.request.ends_with(b"\r\n\r\n") {
            let request = String::from_utf8(talk.request.clone()).unwrap();
            let mut words = request.lines().next().unwrap().split(' ');
            assert_eq!(words.next(), Some("GET"));
            assert!(
                request.contains("\r\nHost: 10.0.0.2\r\n") || request.contains("\r\nHost: [fd00::2]\r\n")
            );
            talk.answer = Some(answer(words.next().unwrap()));
            HttpWorker::write(ctx, talk);
        }
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let talk = self.talks.iter_mut().find(|talk| talk.session == session).unwrap();
        HttpWorker::write(ctx, talk);
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, _opaque: u64, _reason: CloseReason) {
        ctx.cancel_timer(session.as_u64());
        self.talks.retain(|talk| talk.session != session);
        self.server.open.fetch_sub(1, Relaxed);
    }

    /// By now everything written has arrived.
    fn timer(&mut self, ctx: &mut Context<'_>, token: u64) {
        ctx.reset(SessionHandle::from_u64(token));
    }
}

struct World {
    stack: SingleThreaded,
    http: HttpServer,
    server: Attached,
}

impl World {
    fn new(workers: usize, impairments: Impairments) -> World {
        let (mut stack, _) = stack_over(workers, impairments);
        let http = HttpServer::default();
        let server = stack.attach(http.clone(), named("http")).unwrap();
        World { stack, http, server }
    }

    /// Makes the requests, waits for all outcomes, detaches; outcomes in the order of the requests.
    fn fetch(
        &mut self,
        requests: Vec<FetchRequest>,
        options: FetchOptions,
    ) -> (Vec<FetchOutcome>, FetchHandle) {
        let fetch = Fetch::new(requests, options);
        let handle = fetch.handle();
        let fetch = self.stack.attach(fetch, named("fetch")).unwrap();
        run(&mut self.stack, Duration::from_secs(300), || handle.is_done());
        self.stack.detach(fetch.app, DetachPolicy::default()).unwrap();
        let mut outcomes: Vec<FetchOutcome> = handle.outcomes().try_iter().collect();
        outcomes.sort_by_key(|outcome| outcome.index);
        (outcomes, handle)
    }

    fn end(self) {
        end(self.stack, &[&self.server]);
    }
}

fn request(url: &str, sink: FetchSink) -> FetchRequest {
    FetchRequest::new(&parse_url(url).unwrap(), sink)
}

fn get(path: &str, sink: FetchSink) -> FetchRequest {
    request(&format!("http://{PEER}/{path}"), sink)
}

/// The result of one request to memory.
fn result_of(path: &str, options: FetchOptions) -> (Option<u16>, u64, Result<Fetched, FetchError>) {
    let mut world = World::new(1, Impairments::default());
    let (mut outcomes, handle) = world.fetch(vec![get(path, FetchSink::Memory)], options);
    world.end();
    let outcome = outcomes.pop().unwrap();
    assert!(outcomes.is_empty());
    let state = if outcome.result.is_ok() { FetchState::Done } else { FetchState::Failed };
    assert_eq!(handle.stats().request(0).unwrap().0, state);
    (outcome.status, outcome.bytes, outcome.result)
}

fn error_of(path: &str) -> FetchError {
    result_of(path, FetchOptions::default()).2.unwrap_err()
}

#[test]
fn every_framing_gives_the_same_body_over_both_families_and_several_workers() {
    let mut world = World::new(3, Impairments::default());
    let paths = ["length-300000", "kept-300000", "close-300000", "chunked-300000"];
    let requests = paths.iter().flat_map(|path| {
        [PEER, "[fd00::2]"].map(|peer| request(&format!("http://{peer}/{path}"), FetchSink::Memory))
    });
    let (outcomes, handle) = world.fetch(requests.collect(), FetchOptions::default());
    world.end();
    assert_eq!(outcomes.len(), 8);
    for outcome in outcomes {
        assert_eq!((outcome.status, outcome.bytes), (Some(200), 300_000), "{}", outcome.index);
        assert!(outcome.result == Ok(Fetched::Memory(body(300_000))), "{}", outcome.index);
    }
    let totals = handle.stats().totals();
    assert_eq!((totals.done, totals.failed, totals.active, totals.bytes), (8, 0, 0, 2_400_000));
    assert_eq!((totals.bytes_expected, totals.unknown_lengths), (1_200_000, 4));
}

#[test]
fn many_files_arrive_whole_over_a_bad_wire_a_few_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Impairments {
        seed: 5,
        loss: 0.02,
        reorder: 0.02,
        duplicate: 0.02,
        delay_us: 300,
        ..Default::default()
    };
    let mut world = World::new(2, faults);
    let file = |index: usize| dir.path().join(format!("{index}.bin"));
    let kinds = ["length", "chunked", "close"];
    let requests: Vec<_> = (0..30)
        .map(|index| get(&format!("{}-{}", kinds[index % 3], 20_000 + index), FetchSink::File(file(index))))
        .collect();
    let (outcomes, _) = world.fetch(requests, FetchOptions { concurrency: 4, ..Default::default() });
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.result, Ok(Fetched::File(file(index))));
        assert!(std::fs::read(file(index)).unwrap() == body(20_000 + index), "{index}");
    }
    assert_eq!((outcomes.len(), std::fs::read_dir(&dir).unwrap().count()), (30, 30));
    // The server's end of one that is over may still be closing.
    let most = world.http.most_open.load(Relaxed);
    assert!((2..=8).contains(&most), "{most}");
    world.end();
}

#[test]
fn statuses_are_told_and_redirects_are_not_followed() {
    assert_eq!(result_of("empty", FetchOptions::default()), (Some(204), 0, Ok(Fetched::Memory(vec![]))));
    let (status, bytes, result) = result_of("missing", FetchOptions::default());
    assert_eq!((status, bytes), (Some(404), 0));
    assert_eq!(result, Err(FetchError::Status { status: 404, location: None }));
    assert_eq!(error_of("moved"), FetchError::Status { status: 302, location: Some("/there".into()) });
}

#[test]
fn whatever_ends_a_response_early_is_told() {
    assert_eq!(error_of("short"), FetchError::Truncated { received: 500, expected: Some(1000) });
    assert_eq!(error_of("reset"), FetchError::CutOff(CloseReason::PeerReset));
    assert_eq!(error_of("silent"), FetchError::NoResponse);
    assert!(matches!(error_of("noise"), FetchError::BadHead(HeadError::Syntax(_))));
    assert_eq!(error_of("longhead"), FetchError::BadHead(HeadError::TooLarge));
}

#[test]
fn a_server_that_stands_still_is_left_after_the_idle_timeout() {
    for path in ["stall", "mute"] {
        let mut world = World::new(1, Impairments::default());
        let options = FetchOptions { idle_timeout: Duration::from_secs(7), ..Default::default() };
        let start = world.stack.now();
        let fetch = Fetch::new(vec![get(path, FetchSink::Discard)], options);
        let handle = fetch.handle();
        let fetch = world.stack.attach(fetch, named("fetch")).unwrap();
        run(&mut world.stack, Duration::from_secs(60), || handle.is_done());
        let took = world.stack.now().since(start);
        assert!((7..9).contains(&took.as_secs()), "{took:?}");
        assert_eq!(handle.outcomes().try_recv().unwrap().result, Err(FetchError::Stalled));
        end(world.stack, &[&fetch, &world.server]);
    }
}

#[test]
fn failed_connects_are_told_as_they_failed() {
    let mut world = World::new(2, Impairments::default());
    let nobody = request("http://10.0.0.2:81/x", FetchSink::Memory);
    let (outcomes, _) = world.fetch(vec![nobody], FetchOptions::default());
    assert_eq!(outcomes[0].result, Err(FetchError::Connect(ConnectFailure::Refused)));
    assert_eq!((outcomes[0].status, outcomes[0].bytes), (None, 0));
    world.end();

    let (mut stack, wire) = stack_over(1, Impairments::default());
    wire.set_link(LinkState::Cut);
    let mut silent = request("http://10.0.0.2/x", FetchSink::Memory);
    silent.remote.timeout = Duration::from_secs(3);
    let fetch = Fetch::new(vec![silent], FetchOptions::default());
    let handle = fetch.handle();
    let fetch = stack.attach(fetch, named("fetch")).unwrap();
    run(&mut stack, Duration::from_secs(30), || handle.is_done());
    let outcome = handle.outcomes().try_recv().unwrap();
    assert_eq!(outcome.result, Err(FetchError::Connect(ConnectFailure::TimedOut)));
    end(stack, &[&fetch]);
}

#[test]
fn requests_that_cannot_be_made_fail_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.bin");
    let split = FetchRequest { path: "/x HTTP/1.1\r\nX: y".into(), ..get("length", FetchSink::Memory) };
    let mut nowhere = get("length", FetchSink::Memory);
    nowhere.remote.remote = Endpoint::UNSPECIFIED.into();
    let requests = vec![
        split,
        nowhere,
        get("length", FetchSink::File(file.clone())),
        get("length", FetchSink::File(file.clone())),
        get("length", FetchSink::File(dir.path().join("no/such/b.bin"))),
        get("length", FetchSink::Discard),
    ];
    let mut world = World::new(1, Impairments::default());
    let (outcomes, _) = world.fetch(requests, FetchOptions { concurrency: 1, ..Default::default() });
    world.end();
    let results: Vec<_> = outcomes.into_iter().map(|outcome| outcome.result).collect();
    assert_eq!(results[0], Err(FetchError::BadRequest));
    assert_eq!(results[1], Err(FetchError::NotTaken(ConnectError::BadEndpoint)));
    assert_eq!(results[2], Ok(Fetched::File(file.clone())));
    assert_eq!(results[3], Err(FetchError::SameFile(file)));
    let named: PathBuf = dir.path().join("no/such/b.bin.part");
    assert!(matches!(&results[4], Err(FetchError::Io { path, .. }) if *path == named));
    assert_eq!(results[5], Ok(Fetched::Discarded));
}

#[test]
fn a_body_too_large_for_memory_is_given_up_whether_its_length_is_said_or_not() {
    for path in ["length-2000", "close-2000", "chunked-2000"] {
        let options = FetchOptions { memory_max: 1999, ..Default::default() };
        assert_eq!(result_of(path, options).2, Err(FetchError::TooLarge), "{path}");
        let options = FetchOptions { memory_max: 2000, ..Default::default() };
        assert_eq!(result_of(path, options).2, Ok(Fetched::Memory(body(2000))), "{path}");
    }
}

#[test]
fn a_detach_ends_every_request_and_leaves_no_part_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(2, Impairments::default());
    let requests = (0..10).map(|index| get("stall", FetchSink::File(dir.path().join(index.to_string()))));
    let fetch = Fetch::new(requests.collect(), FetchOptions { concurrency: 4, ..Default::default() });
    let handle = fetch.handle();
    let fetch = world.stack.attach(fetch, named("fetch")).unwrap();
    run(&mut world.stack, Duration::from_secs(5), || handle.stats().totals().bytes == 4 * 500);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 4);
    end(world.stack, &[&fetch, &world.server]);
    let outcomes: Vec<_> = handle.outcomes().try_iter().collect();
    assert_eq!(outcomes.len(), 10);
    assert!(outcomes.iter().all(|outcome| outcome.result == Err(FetchError::Detached)), "{outcomes:?}");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    assert!(handle.is_done());
}

#[test]
fn another_app_worker_goes_on_for_a_detached_one() {
    let mut world = World::new(2, Impairments::default());
    let requests = (0..12).map(|index| get(if index < 4 { "stall" } else { "length" }, FetchSink::Discard));
    let options = FetchOptions { concurrency: 4, app_workers: 2, ..Default::default() };
    let fetch = Fetch::new(requests.collect(), options);
    let handle = fetch.handle();
    let fetch = world.stack.attach(fetch, AttachOptions { app_workers: 2, ..named("fetch") }).unwrap();
    run(&mut world.stack, Duration::from_secs(5), || handle.stats().totals().bytes == 4 * 500);
    let report = world.stack.detach_worker(fetch.app_workers[1], DetachPolicy::Reset).unwrap();
    assert!(report.sessions > 0);
    run(&mut world.stack, Duration::from_secs(60), || handle.is_done());
    end(world.stack, &[&fetch, &world.server]);
    let totals = handle.stats().totals();
    assert_eq!((totals.done, totals.failed), (8, 4));
    assert_eq!(handle.outcomes().try_iter().count(), 12);
}
