//! One conformance suite for all transports: a table of cases, each run over each transport and written against what an
//! app sees. `TRANSPORTS` has a line for each; a new transport gets one more.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::*;
use hoststack::app::*;
use hoststack::net::{MemoryWireConfig, memory_wire};
use hoststack::{Attached, SingleThreaded, Stack};
use hoststack_tls::{Client, ClientOptions, Identity, Roots, Server, ServerOptions};
use parking_lot::Mutex;

/// A way from one app to another.
struct Via {
    name: &'static str,
    /// Listens on these addresses in turn, until one is free (they are the host's, where others listen too).
    listen: fn(&Bed) -> ListenOptions,
    /// Where nobody listens.
    nowhere: fn(&Bed) -> Address,
    /// Connects with what belongs to the transport.
    connect: fn(&Bed, Address) -> ConnectOptions,
    /// The host's clock runs: its sockets know no virtual time.
    is_real: bool,
    /// What a reset is to the peer: Unix sockets know none, there it is an end.
    reset: CloseReason,
    /// TLS runs over it.
    tls: bool,
}

/// What a case has to work with.
struct Bed {
    dir: tempfile::TempDir,
    /// Plans for both ends that go together, made once for all cases.
    tls: &'static (Client, Server),
}

const NAME: &str = "server.example.org";

fn tls_plans() -> &'static (Client, Server) {
    static PLANS: std::sync::LazyLock<(Client, Server)> = std::sync::LazyLock::new(|| {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).expect("what was just made");
        let client = ClientOptions { roots: Roots::Given(chain.into_bytes()), ..ClientOptions::default() };
        let server = ServerOptions { identities: vec![identity], ..ServerOptions::default() };
        (Client::new(NAME, &client).expect("options"), Server::new(&server).expect("options"))
    });
    &PLANS
}

fn plain(_: &Bed, to: Address) -> ConnectOptions {
    ConnectOptions::to(to)
}

fn from_worker_0(_: &Bed, to: Address) -> ConnectOptions {
    ConnectOptions { worker: Some(WorkerId(0)), ..ConnectOptions::to(to) }
}

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

fn unix(bed: &Bed, name: &str) -> Address {
    Address::kernel_unix(bed.dir.path().join(name).to_str().expect("UTF-8")).expect("a short path")
}

const TRANSPORTS: &[Via] = &[
    Via {
        name: "tcp",
        listen: |_| listen_on(Family::V4, 80),
        nowhere: |_| Family::V4.server(81).into(),
        connect: plain,
        is_real: false,
        reset: CloseReason::PeerReset,
        tls: false,
    },
    Via {
        name: "tcp v6",
        listen: |_| listen_on(Family::V6, 80),
        nowhere: |_| Family::V6.server(81).into(),
        connect: plain,
        is_real: false,
        reset: CloseReason::PeerReset,
        tls: false,
    },
    Via {
        name: "local",
        listen: |_| ListenOptions::on(address("local://server")),
        nowhere: |_| address("local://nobody"),
        connect: plain,
        is_real: false,
        reset: CloseReason::PeerReset,
        tls: false,
    },
    Via {
        name: "local between workers",
        listen: |_| ListenOptions {
            worker: Some(WorkerId(1)),
            ..ListenOptions::on(address("local://server"))
        },
        nowhere: |_| address("local://nobody"),
        connect: from_worker_0,
        is_real: false,
        reset: CloseReason::PeerReset,
        tls: false,
    },
    Via {
        name: "kernel tcp",
        listen: |_| ListenOptions::on(address("kernel+tcp://127.0.0.1:0")),
        nowhere: |_| address("kernel+tcp://127.0.0.1:1"),
        connect: plain,
        is_real: true,
        reset: CloseReason::PeerReset,
        tls: false,
    },
    Via {
        name: "kernel tcp v6",
        listen: |_| ListenOptions::on(address("kernel+tcp://[::1]:0")),
        nowhere: |_| address("kernel+tcp://[::1]:1"),
        connect: plain,
        is_real: true,
        reset: CloseReason::PeerReset,
        tls: false,
    },
    Via {
        name: "kernel unix",
        listen: |bed| ListenOptions::on(unix(bed, "socket")),
        nowhere: |bed| unix(bed, "nothing"),
        connect: plain,
        is_real: true,
        reset: CloseReason::Finished,
        tls: false,
    },
    Via {
        name: "kernel unix, abstract",
        listen: |bed| ListenOptions::on(address(&format!("kernel+unix://@{}", bed.dir.path().display()))),
        nowhere: |bed| address(&format!("kernel+unix://@{}/nothing", bed.dir.path().display())),
        connect: plain,
        is_real: true,
        reset: CloseReason::Finished,
        tls: false,
    },
    Via {
        name: "tls over tcp",
        listen: |_| listen_on(Family::V4, 80),
        nowhere: |_| Family::V4.server(81).into(),
        connect: plain,
        is_real: false,
        reset: CloseReason::PeerReset,
        tls: true,
    },
    Via {
        name: "tls over local",
        listen: |_| ListenOptions::on(address("local://server")),
        nowhere: |_| address("local://nobody"),
        connect: plain,
        is_real: false,
        reset: CloseReason::PeerReset,
        tls: true,
    },
    Via {
        name: "tls over local between workers",
        listen: |_| ListenOptions {
            worker: Some(WorkerId(1)),
            ..ListenOptions::on(address("local://server"))
        },
        nowhere: |_| address("local://nobody"),
        connect: from_worker_0,
        is_real: false,
        reset: CloseReason::PeerReset,
        tls: true,
    },
    Via {
        name: "tls over kernel tcp",
        listen: |_| ListenOptions::on(address("kernel+tcp://127.0.0.1:0")),
        nowhere: |_| address("kernel+tcp://127.0.0.1:1"),
        connect: plain,
        is_real: true,
        reset: CloseReason::PeerReset,
        tls: true,
    },
    Via {
        name: "tls over kernel unix",
        listen: |bed| ListenOptions::on(unix(bed, "socket")),
        nowhere: |bed| unix(bed, "nothing"),
        connect: plain,
        is_real: true,
        // An end without a word is a cut.
        reset: CloseReason::Truncated,
        tls: true,
    },
];

const LIMIT: Duration = Duration::from_secs(20);

/// A stack with a server and a client, and what both were told.
struct World {
    stack: SingleThreaded,
    bed: Bed,
    tls: bool,
    server: Attached,
    client: Attached,
    server_log: Log,
    client_log: Log,
    at: Address,
    listener: ListenerId,
}

impl Via {
    fn world(&self, server: Probe, client: Probe) -> World {
        self.world_with(server, client, |listen| listen)
    }

    fn world_with(
        &self,
        mut server: Probe,
        client: Probe,
        change: impl Fn(ListenOptions) -> ListenOptions,
    ) -> World {
        let (a, b) = memory_wire(MemoryWireConfig::default());
        let builder = Stack::builder()
            .config(config(2))
            .interface(interface(a, CLIENT, 1))
            .interface(interface(b, SERVER, 2));
        let mut stack = Stack::single_threaded(builder).expect("a good configuration");
        if !self.is_real {
            stack.use_virtual_time_from(Instant::ZERO);
        }
        let bed = Bed { dir: tempfile::tempdir().expect("a directory"), tls: tls_plans() };
        let (server_log, client_log) = (server.log.clone(), client.log.clone());
        let up = std::sync::Arc::new(Mutex::new(None));
        let told = up.clone();
        server.told_address = std::sync::Arc::new(move |at| *told.lock() = Some(at));
        let server = attach(&mut stack, "server", server);
        let client = attach(&mut stack, "client", client);
        let mut options = change((self.listen)(&bed));
        if self.tls {
            options.stages = options.stages.then(bed.tls.1.clone());
        }
        if !matches!(options.local, Address::Tcp(_)) {
            options.domain = CLIENT;
        }
        let listener = stack.listen(server.app_workers[0], options).expect("listening");
        let at = up.lock().clone().expect("listening told where");
        World { stack, bed, tls: self.tls, server, client, server_log, client_log, at, listener }
    }
}

impl World {
    fn options(&self, via: &Via) -> ConnectOptions {
        (via.connect)(&self.bed, self.at.clone())
    }

    fn connect(&mut self, options: ConnectOptions) -> ConnectId {
        self.connect_with(options, b"")
    }

    fn connect_with(&mut self, mut options: ConnectOptions, early_data: &[u8]) -> ConnectId {
        if self.tls {
            options.stages = options.stages.then(self.bed.tls.0.clone());
        }
        self.stack.connect_with(self.client.app_workers[0], options, early_data).expect("taken")
    }

    /// Runs until the logs satisfy `done`.
    #[track_caller]
    fn until(&mut self, mut done: impl FnMut(&Log, &Log) -> bool) {
        let (client, server) = (self.client_log.clone(), self.server_log.clone());
        let reached = self.stack.run_until(LIMIT, |stack| {
            stack.check_consistency();
            done(&client, &server)
        });
        assert!(reached, "client {:?}\nserver {:?}", client.events(), server.events());
    }

    /// Detaches both and asserts that nothing is left.
    #[track_caller]
    fn finish(mut self) {
        for app in [&self.client, &self.server] {
            self.stack.detach(app.app, DetachPolicy::Reset).expect("attached");
        }
        self.client_log.check(true);
        self.server_log.check(true);
        let answer = summary(&mut self.stack);
        assert!(answer.leaks.is_clean(), "{:?}", answer.leaks);
        assert_eq!(answer.main.listeners, 0);
    }
}

fn greeting(log: &Log) -> Probe {
    Probe::new(log, |ctx, event| {
        if let Event::Accepted(session) = *event {
            assert_eq!(ctx.write(session, b"welcome"), 7);
        }
        close_with_peer(ctx, event);
    })
}

/// Writes `total` bytes, reads and checks as many, then closes.
fn streaming(log: &Log, streams: &Streams, total: u64, closes: bool) -> Probe {
    let streams = streams.clone();
    Probe::new(log, move |ctx, event| match *event {
        Event::Connected(_, _, Ok(session)) | Event::Accepted(session) | Event::Writable(session) => {
            streams.send(ctx, session, total);
        }
        Event::Readable(session) => {
            let got = streams.receive(ctx, session, usize::MAX);
            assert!(got <= total);
            if got == total && closes {
                ctx.close(session);
            }
        }
        _ => close_with_peer(ctx, event),
    })
}

// ---- The cases ----

fn a_silent_client_and_a_silent_server_are_told_once(via: &Via) {
    let (log, server_log) = (Log::default(), Log::default());
    let mut w = via.world(Probe::idle(&server_log), Probe::idle(&log));
    w.connect(w.options(via));
    w.until(|client, server| client.up() == 1 && server.accepted() == 1);
    assert_eq!(log.outcomes(), [(0, Ok(()))]);
    w.finish();
}

// covers: I08
fn the_server_speaks_first_to_a_client_that_never_does(via: &Via) {
    let (log, server_log) = (Log::default(), Log::default());
    let heard = Counter::default();
    let hears = heard.clone();
    let client = Probe::new(&log, move |ctx, event| {
        if let Event::Readable(session) = *event {
            hears.add(drain(ctx, session) as u64);
            ctx.half_close(session);
        }
        close_with_peer(ctx, event);
    });
    let mut w = via.world(greeting(&server_log), client);
    w.connect(w.options(via));
    w.until(|client, server| client.closed() == 1 && server.closed() == 1);
    assert_eq!(heard.value(), 7);
    assert_eq!((log.ends(), server_log.ends()), (vec![CloseReason::Finished], vec![CloseReason::Finished]));
    w.finish();
}

// covers: E05, F14
fn nobody_listens_is_refused(via: &Via) {
    let (log, server_log) = (Log::default(), Log::default());
    let mut w = via.world(Probe::idle(&server_log), Probe::idle(&log));
    let options = (via.connect)(&w.bed, (via.nowhere)(&w.bed));
    w.connect(ConnectOptions { opaque: 7, ..options });
    w.until(|client, _| client.cleaned() == 1);
    assert_eq!(log.outcomes(), [(7, Err(ConnectFailure::Refused))]);
    w.finish();
}

fn a_listener_that_is_gone_refuses(via: &Via) {
    let (log, server_log) = (Log::default(), Log::default());
    let mut w = via.world(Probe::idle(&server_log), Probe::idle(&log));
    w.stack.unlisten(w.server.app_workers[0], w.listener).expect("it listens");
    let _ = w.stack.settle();
    w.connect(w.options(via));
    w.until(|client, _| client.cleaned() == 1);
    assert_eq!(log.outcomes(), [(0, Err(ConnectFailure::Refused))]);
    w.finish();
}

fn a_place_where_somebody_listens_is_in_use(via: &Via) {
    let (log, server_log) = (Log::default(), Log::default());
    let mut w = via.world(Probe::idle(&server_log), Probe::idle(&log));
    let options = ListenOptions { local: w.at.clone(), ..(via.listen)(&w.bed) };
    let domain = if matches!(w.at, Address::Tcp(_)) { SERVER } else { CLIENT };
    let again = w.stack.listen(w.server.app_workers[0], ListenOptions { domain, ..options.clone() });
    assert_eq!(again, Err(ListenError::InUse));
    // What listens goes on, and its place is free once it is gone.
    w.connect(w.options(via));
    w.until(|client, _| client.up() == 1);
    w.stack.unlisten(w.server.app_workers[0], w.listener).expect("it listens");
    let _ = w.stack.settle();
    w.stack.listen(w.server.app_workers[0], ListenOptions { domain, ..options }).expect("it is free");
    w.finish();
}

fn megabytes_both_ways_at_once_arrive_whole(via: &Via) {
    const TOTAL: u64 = 3 << 20;
    let (log, server_log, streams) = (Log::default(), Log::default(), Streams::default());
    // Neither closes before both have all.
    let client = streaming(&log, &streams, TOTAL, false);
    let server = streaming(&server_log, &streams, TOTAL, false);
    let mut w = via.world(server, client);
    w.connect(w.options(via));
    let all = streams.clone();
    w.until(|_, _| all.all().len() == 2 && all.all().iter().all(|stream| stream.got == TOTAL));
    w.finish();
}

// covers: F26
fn a_reader_that_waits_holds_the_writer_up_and_loses_nothing(via: &Via) {
    const TOTAL: u64 = 1 << 20;
    let (log, server_log, streams) = (Log::default(), Log::default(), Streams::default());
    let reads = streams.clone();
    let server = Probe::new(&server_log, move |ctx, event| match *event {
        // Read a little, ten times in a second; each time what lies there must be what follows.
        Event::Accepted(session) => {
            ctx.set_opaque(session, 1);
            ctx.set_timer(session.as_u64(), Duration::from_millis(5));
        }
        Event::Timer(token) => {
            let session = SessionHandle::from_u64(token);
            if reads.receive(ctx, session, 40_000) == TOTAL {
                ctx.close(session);
            } else {
                ctx.set_timer(token, Duration::from_millis(5));
            }
        }
        _ => {}
    });
    let client = streaming(&log, &streams, TOTAL, false);
    let mut w = via.world(server, client);
    let fifos = SessionOptions { tx_capacity: 20_000, ..SessionOptions::default() };
    w.connect(ConnectOptions { fifos, ..w.options(via) });
    w.until(|client, server| client.closed() == 1 && server.closed() == 1);
    w.finish();
}

// covers: E04, F10, F38
fn a_half_close_lets_the_other_half_finish(via: &Via) {
    const TOTAL: u64 = 300_000;
    let (log, server_log, streams) = (Log::default(), Log::default(), Streams::default());
    let (ours, theirs) = (streams.clone(), streams.clone());
    let client = Probe::new(&log, move |ctx, event| match *event {
        Event::Connected(_, _, Ok(session)) => {
            assert_eq!(ctx.write(session, b"question"), 8);
            ctx.half_close(session);
        }
        Event::Readable(session) => {
            ours.receive(ctx, session, usize::MAX);
        }
        _ => close_with_peer(ctx, event),
    });
    let server = Probe::new(&server_log, move |ctx, event| match *event {
        Event::PeerClosed(session) => {
            assert_eq!(drain(ctx, session), 8, "bytes come before the close");
            if theirs.send(ctx, session, TOTAL) {
                ctx.close(session);
            }
        }
        Event::Writable(session) if theirs.send(ctx, session, TOTAL) => ctx.close(session),
        _ => {}
    });
    let mut w = via.world(server, client);
    w.connect(w.options(via));
    w.until(|client, server| client.closed() == 1 && server.closed() == 1);
    assert_eq!(streams.all().iter().map(|stream| stream.got).max(), Some(TOTAL));
    assert_eq!((log.ends(), server_log.ends()), (vec![CloseReason::Finished], vec![CloseReason::Finished]));
    w.finish();
}

// covers: E01, E11, F10
fn a_close_sends_what_is_queued(via: &Via) {
    const TOTAL: u64 = 60_000;
    let (log, server_log, streams) = (Log::default(), Log::default(), Streams::default());
    let (writes, reads) = (streams.clone(), streams.clone());
    let client = Probe::new(&log, move |ctx, event| {
        if let Event::Connected(_, _, Ok(session)) = *event {
            assert!(writes.send(ctx, session, TOTAL), "the fifo takes it");
            ctx.close(session);
        }
    });
    let server = Probe::new(&server_log, move |ctx, event| {
        if let Event::Readable(session) | Event::PeerClosed(session) = *event {
            reads.receive(ctx, session, usize::MAX);
        }
        close_with_peer(ctx, event);
    });
    let mut w = via.world(server, client);
    w.connect(w.options(via));
    w.until(|client, server| client.closed() == 1 && server.closed() == 1);
    assert_eq!(streams.all().iter().map(|stream| stream.got).max(), Some(TOTAL));
    w.finish();
}

// covers: F39
fn a_reset_tells_the_peer(via: &Via) {
    let (log, server_log) = (Log::default(), Log::default());
    let client = Probe::new(&log, |ctx, event| {
        if let Event::Readable(session) = *event {
            ctx.reset(session);
        }
    });
    let mut w = via.world(greeting(&server_log), client);
    w.connect(w.options(via));
    w.until(|client, server| client.closed() == 1 && server.closed() == 1);
    assert_eq!(log.ends(), [CloseReason::LocalReset]);
    assert_eq!(server_log.ends(), [via.reset]);
    w.finish();
}

// covers: E03, F38
fn a_close_with_bytes_unread_resets(via: &Via) {
    let (log, server_log) = (Log::default(), Log::default());
    let client = Probe::new(&log, |ctx, event| {
        if let Event::Readable(session) = *event {
            // RFC 2525 §2.17.
            ctx.close(session);
        }
    });
    let mut w = via.world(greeting(&server_log), client);
    w.connect(w.options(via));
    w.until(|client, server| client.closed() == 1 && server.closed() == 1);
    assert_eq!(server_log.ends(), [via.reset]);
    w.finish();
}

// covers: F17
fn early_data_comes_first_and_once(via: &Via) {
    let (log, server_log) = (Log::default(), Log::default());
    let heard = std::sync::Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let server = Probe::new(&server_log, move |ctx, event| {
        if let Event::Readable(session) = *event {
            let mut buffer = [0; 64];
            let count = ctx.read(session, &mut buffer);
            hears.lock().extend_from_slice(&buffer[..count]);
        }
        close_with_peer(ctx, event);
    });
    let client = Probe::new(&log, |ctx, event| {
        if let Event::Connected(_, _, Ok(session)) = *event {
            assert_eq!(ctx.write(session, b" then late"), 10);
            ctx.half_close(session);
        }
        close_with_peer(ctx, event);
    });
    let mut w = via.world(server, client);
    w.connect_with(w.options(via), b"early");
    w.until(|client, server| client.closed() == 1 && server.closed() == 1);
    assert_eq!(*heard.lock(), b"early then late");
    w.finish();
}

// covers: F04, F24
fn a_header_is_sent_before_a_silent_client_and_a_listener_reads_it(via: &Via) {
    use hoststack::app::proxy::{Origin, ParseOptions, ReceiveProxy, SendProxy, Version};
    let said = ("192.0.2.7:1234".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    for version in [Version::V1, Version::V2] {
        let (log, server_log) = (Log::default(), Log::default());
        let server = Probe::new(&server_log, move |ctx, event| {
            if let Event::Accepted(session) = *event {
                let declared = ctx.declared(session).expect("a header came");
                assert_eq!(declared.endpoints(), Some(said));
                assert_eq!(ctx.write(session, b"welcome"), 7);
            }
            close_with_peer(ctx, event);
        });
        let client = Probe::new(&log, |ctx, event| {
            if let Event::Readable(session) = *event {
                assert_eq!(drain(ctx, session), 7);
                ctx.close(session);
            }
        });
        let mut w = via.world_with(server, client, |listen| ListenOptions {
            stages: StagePlans::one(ReceiveProxy { options: ParseOptions::DEFAULT }),
            ..listen
        });
        let plan = SendProxy { origin: Origin::Of(said.0, said.1), ..SendProxy::new(version) };
        w.connect(ConnectOptions { stages: StagePlans::one(plan), ..w.options(via) });
        w.until(|client, server| client.closed() == 1 && server.closed() == 1);
        assert_eq!((log.up(), server_log.accepted()), (1, 1));
        w.finish();
    }
}

// covers: I11
fn a_header_that_never_comes_ends_on_time_and_both_hear_why(via: &Via) {
    use hoststack::app::proxy::{ParseOptions, ReceiveProxy};
    let (log, server_log) = (Log::default(), Log::default());
    let mut w = via.world_with(Probe::idle(&server_log), Probe::idle(&log), |listen| ListenOptions {
        stages: StagePlans::one(ReceiveProxy { options: ParseOptions::DEFAULT }),
        stage_timeout: Duration::from_millis(200),
        ..listen
    });
    // A client that says nothing at all, TLS neither.
    w.tls = false;
    w.connect(w.options(via));
    w.until(|client, server| {
        client.closed() == 1 && server.count(|event| matches!(event, Event::NotAccepted(_))) == 1
    });
    let stage = StageFailure { stage: "PROXY header to receive", cause: StageCause::TimedOut };
    assert!(server_log.events().contains(&Event::NotAccepted(ConnectFailure::Stage(stage))));
    // To a client without TLS it is no cut.
    let reset = if via.reset == CloseReason::Truncated { CloseReason::Finished } else { via.reset };
    assert_eq!(log.ends(), [reset]);
    w.finish();
}

// covers: E07, H09, I17
fn a_cancel_and_the_connection_that_comes_up_agree_on_one_outcome(via: &Via) {
    for steps in 0..12 {
        let (log, server_log) = (Log::default(), Log::default());
        let mut w = via.world(Probe::idle(&server_log), Probe::idle(&log));
        let connect = w.connect(w.options(via));
        for _ in 0..steps {
            let _ = w.stack.step();
        }
        let cancelled = w.stack.cancel(connect);
        w.until(|client, _| client.cleaned() == 1);
        let outcomes = log.outcomes();
        match cancelled {
            Ok(()) => assert!(
                matches!(outcomes[..], [(0, Err(ConnectFailure::Cancelled) | Ok(()))]),
                "{outcomes:?}"
            ),
            Err(_) => assert_eq!(outcomes, [(0, Ok(()))]),
        }
        w.finish();
    }
}

// covers: E02, E10, E14, F47, H09, I15
fn a_detach_at_any_moment_leaves_nothing(via: &Via) {
    for steps in 0..12 {
        let (log, server_log) = (Log::default(), Log::default());
        let mut w = via.world(greeting(&server_log), Probe::idle(&log));
        for _ in 0..3 {
            w.connect(w.options(via));
        }
        for _ in 0..steps {
            let _ = w.stack.step();
        }
        w.finish();
    }
}

fn hundreds_of_connections_come_and_go(via: &Via) {
    const COUNT: u64 = 400;
    let (log, server_log) = (Log::default(), Log::default());
    let client = Probe::new(&log, |ctx, event| match *event {
        Event::Connected(_, opaque, Ok(session)) => {
            assert_eq!(ctx.write(session, &opaque.to_be_bytes()), 8);
        }
        Event::Readable(session) if ctx.rx_len(session) == 8 => {
            let mut echoed = [0; 8];
            assert_eq!(ctx.read(session, &mut echoed), 8);
            assert_eq!(u64::from_be_bytes(echoed), ctx.opaque(session), "each gets its own bytes back");
            ctx.close(session);
        }
        _ => {}
    });
    let mut w = via.world(Probe::echo(&server_log), client);
    for opaque in 0..COUNT {
        // The echo server uses the opaque value of its own sessions only.
        w.connect(ConnectOptions { opaque, ..w.options(via) });
    }
    w.until(|client, server| {
        client.closed() as u64 == COUNT && server.closed() as u64 == COUNT && client.cleaned() as u64 == COUNT
    });
    w.finish();
}

// covers: F34, F37
fn the_next_endpoint_is_tried_and_one_outcome_is_told(via: &Via) {
    let (log, server_log) = (Log::default(), Log::default());
    let mut w = via.world(greeting(&server_log), Probe::idle(&log));
    let nowhere = (via.nowhere)(&w.bed);
    let options = ConnectOptions {
        alternatives: vec![nowhere.clone(), w.at.clone()],
        opaque: 5,
        ..(via.connect)(&w.bed, nowhere.clone())
    };
    w.connect(options);
    w.until(|client, server| client.cleaned() == 1 && server.accepted() == 1);
    assert_eq!(log.outcomes(), [(5, Ok(()))]);
    // And if none of them is there, after all rounds, the last failure.
    let options = ConnectOptions {
        alternatives: vec![nowhere.clone()],
        rounds: 3,
        retry_delay: Duration::from_millis(20),
        opaque: 6,
        ..(via.connect)(&w.bed, nowhere)
    };
    let start = w.stack.now();
    w.connect(options);
    w.until(|client, _| client.cleaned() == 2);
    assert!(w.stack.now() - start >= Duration::from_millis(40), "it waits before each further round");
    assert_eq!(log.outcomes()[1], (6, Err(ConnectFailure::Refused)));
    w.finish();
}

/// A case with its name.
macro_rules! cases {
    ($($case:ident,)*) => {
        const CASES: &[(&str, fn(&Via))] = &[$((stringify!($case), $case),)*];
    };
}

cases! {
    a_silent_client_and_a_silent_server_are_told_once,
    the_server_speaks_first_to_a_client_that_never_does,
    nobody_listens_is_refused,
    a_listener_that_is_gone_refuses,
    a_place_where_somebody_listens_is_in_use,
    megabytes_both_ways_at_once_arrive_whole,
    a_reader_that_waits_holds_the_writer_up_and_loses_nothing,
    a_half_close_lets_the_other_half_finish,
    a_close_sends_what_is_queued,
    a_reset_tells_the_peer,
    a_close_with_bytes_unread_resets,
    early_data_comes_first_and_once,
    a_header_is_sent_before_a_silent_client_and_a_listener_reads_it,
    a_header_that_never_comes_ends_on_time_and_both_hear_why,
    a_cancel_and_the_connection_that_comes_up_agree_on_one_outcome,
    a_detach_at_any_moment_leaves_nothing,
    hundreds_of_connections_come_and_go,
    the_next_endpoint_is_tried_and_one_outcome_is_told,
}

/// Every case over the transport of this name; what failed is named, the others run all the same.
fn conform(name: &str) {
    let via = TRANSPORTS.iter().find(|via| via.name == name).expect("a transport of the table");
    let mut failed = Vec::new();
    for (case, run) in CASES {
        if catch_unwind(AssertUnwindSafe(|| run(via))).is_err() {
            failed.push(*case);
        }
    }
    assert!(failed.is_empty(), "{name}: {} of {} cases failed: {failed:?}", failed.len(), CASES.len());
}

macro_rules! transports {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            conform($name);
        })*

        #[test]
        fn every_transport_of_the_table_is_run() {
            let names: Vec<_> = TRANSPORTS.iter().map(|via| via.name).collect();
            assert_eq!(names, [$($name,)*]);
        }
    };
}

transports! {
    tcp: "tcp",
    tcp_v6: "tcp v6",
    local: "local",
    local_between_workers: "local between workers",
    kernel_tcp: "kernel tcp",
    kernel_tcp_v6: "kernel tcp v6",
    kernel_unix: "kernel unix",
    kernel_unix_abstract: "kernel unix, abstract",
    tls_over_tcp: "tls over tcp",
    tls_over_local: "tls over local",
    tls_over_local_between_workers: "tls over local between workers",
    tls_over_kernel_tcp: "tls over kernel tcp",
    tls_over_kernel_unix: "tls over kernel unix",
}
