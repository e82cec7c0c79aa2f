//! A misuse of each public call gives a typed error, or an outcome, that says what to do; and leaks nothing.

mod common;

use common::*;
use hoststack::app::*;
use hoststack::net::{MemoryWireConfig, memory_wire};
use hoststack::tcp::TcpConfig;
use hoststack::{
    Attached, BuildError, Bursts, EndHow, InterfaceSpec, SessionLimits, SingleThreaded, Stack, StackConfig,
};

const LONG: Duration = Duration::from_secs(300);
const SERVER_END: &str = "10.0.0.2:80";

fn to_server() -> ConnectOptions {
    ConnectOptions::to(Family::V4.server(80))
}

fn one_app() -> (SingleThreaded, Attached, Log) {
    let mut stack = stack(2);
    let log = Log::default();
    let app = attach(&mut stack, "app", Probe::idle(&log));
    (stack, app, log)
}

/// Connects that any thread can see to be wrong, each with the error.
fn bad_connects() -> Vec<(ConnectOptions, ConnectError)> {
    let good = to_server();
    let fifos = |rx_capacity, tx_capacity| ConnectOptions {
        fifos: SessionOptions { rx_capacity, tx_capacity, ..SessionOptions::default() },
        ..to_server()
    };
    let remote = |text: &str| ConnectOptions::to(text.parse::<std::net::SocketAddr>().unwrap());
    vec![
        (remote("10.0.0.2:0"), ConnectError::BadEndpoint),
        (remote("0.0.0.0:80"), ConnectError::BadEndpoint),
        (remote("224.0.0.1:80"), ConnectError::BadEndpoint),
        (remote("255.255.255.255:80"), ConnectError::BadEndpoint),
        (remote("[::]:80"), ConnectError::BadEndpoint),
        (remote("[ff02::1]:80"), ConnectError::BadEndpoint),
        (
            ConnectOptions { local_addr: Some("fd00::1".parse().unwrap()), ..good.clone() },
            ConnectError::FamilyMismatch,
        ),
        (fifos(0, 100), ConnectError::BadFifo),
        (fifos(100, 0), ConnectError::BadFifo),
        (fifos((1 << 30) + 1, 100), ConnectError::BadFifo),
        (fifos(100, u32::MAX), ConnectError::BadFifo),
        (ConnectOptions { timeout: Duration::ZERO, ..good.clone() }, ConnectError::BadDeadline),
        (ConnectOptions { worker: Some(WorkerId(2)), ..good.clone() }, ConnectError::NoWorker),
        (ConnectOptions { worker: Some(WorkerId(255)), ..good.clone() }, ConnectError::NoWorker),
    ]
}

fn bad_listens() -> Vec<(ListenOptions, ListenError)> {
    let good = listen_on(Family::V4, 80);
    let on = |text: &str| ListenOptions {
        domain: SERVER,
        ..ListenOptions::on(text.parse::<std::net::SocketAddr>().unwrap())
    };
    vec![
        (on("10.0.0.2:0"), ListenError::BadEndpoint),
        (ListenOptions { backlog: 0, ..good.clone() }, ListenError::BadBacklog),
        (
            ListenOptions {
                fifos: SessionOptions { rx_capacity: 0, tx_capacity: 1, ..good.fifos },
                ..good.clone()
            },
            ListenError::BadFifo,
        ),
        (
            ListenOptions {
                fifos: SessionOptions { rx_capacity: 1, tx_capacity: 0, ..good.fifos },
                ..good.clone()
            },
            ListenError::BadFifo,
        ),
    ]
}

/// Listens that only main can see to be wrong.
fn wrong_listens() -> Vec<(ListenOptions, ListenError)> {
    let good = listen_on(Family::V4, 80);
    vec![
        (ListenOptions { domain: DomainId(9), ..good.clone() }, ListenError::NoDomain),
        (ListenOptions { domain: CLIENT, ..good.clone() }, ListenError::AddressNotAvailable),
        (
            ListenOptions { domain: SERVER, ..ListenOptions::on(Family::V4.nobody()) },
            ListenError::AddressNotAvailable,
        ),
    ]
}

#[test]
fn every_error_is_a_sentence_that_says_what_to_do() {
    // The enums have no list of their variants: those that the tests below meet are looked at here.
    let mut texts: Vec<String> = Vec::new();
    texts.extend(bad_connects().iter().map(|(_, error)| error.to_string()));
    texts.extend(bad_listens().iter().map(|(_, error)| error.to_string()));
    texts.extend(wrong_listens().iter().map(|(_, error)| error.to_string()));
    texts.extend(
        [ConnectError::Detached, ConnectError::NoDomain, ConnectError::TooManyPending].map(|e| e.to_string()),
    );
    texts.extend(
        [ListenError::InUse, ListenError::Detached, ListenError::NoRoom, ListenError::NoListener]
            .map(|e| e.to_string()),
    );
    texts.extend(
        [AttachError::NameInUse, AttachError::BadName, AttachError::BadWorkers, AttachError::BadLimit]
            .map(|e| e.to_string()),
    );
    texts.extend([DetachError::NotAttached, DetachError::Detaching].map(|e| e.to_string()));
    texts.push(CancelError::NotPending.to_string());
    for text in texts {
        assert!(text.contains(": "), "what is wrong, then what to do: {text}");
    }
}

// covers: MUST-46
#[test]
fn a_bad_connect_is_refused_on_the_spot() {
    let (mut stack, app, log) = one_app();
    for (options, error) in bad_connects() {
        assert_eq!(stack.connect(app.app_workers[0], options.clone()), Err(error), "{options:?}");
        assert_eq!(stack.handle().connect(app.app_workers[0], options), Err(error));
    }
    let options = ConnectOptions { domain: DomainId(9), ..to_server() };
    assert_eq!(stack.connect(app.app_workers[0], options), Err(ConnectError::NoDomain));
    pass(&mut stack, Duration::from_secs(1));
    assert_eq!(log.outcomes(), []);
    finish(stack, &[&app], &[&log]);
}

#[test]
fn a_bad_connect_in_a_callback_is_refused_on_the_spot() {
    let mut stack = stack(2);
    let (log, met) = (Log::default(), Counter::default());
    let counter = met.clone();
    let on_main = met.clone();
    let probe = Probe::new(&log, move |ctx, event| {
        if *event == Event::Attached {
            for (options, error) in bad_connects() {
                assert_eq!(ctx.connect(options.clone()), Err(error), "{options:?}");
                counter.add(1);
            }
            for (options, error) in bad_listens() {
                assert_eq!(ctx.listen(options), Err(error));
                counter.add(1);
            }
        }
    })
    .on_main(move |ctx, event| {
        if *event == Event::AppAttached {
            let unit = ctx.app_workers()[0];
            for (options, error) in bad_connects() {
                assert_eq!(ctx.connect(unit, options.clone()), Err(error), "{options:?}");
                on_main.add(1);
            }
            for (options, error) in bad_listens() {
                assert_eq!(ctx.listen(unit, options), Err(error));
                on_main.add(1);
            }
            // Another application's app worker, or none at all.
            let stranger = AppWorkerId(hoststack_transport::Key { slot: 77, generation: 1 });
            assert_eq!(ctx.connect(stranger, to_server()), Err(ConnectError::Detached));
            assert_eq!(ctx.listen(stranger, listen_on(Family::V4, 80)), Err(ListenError::Detached));
            ctx.unlisten(stranger, ListenerId(stranger.0));
            ctx.detach_worker(stranger, DetachPolicy::Reset);
            ctx.cancel(ConnectId::new(5, 5));
        }
    });
    let app = attach(&mut stack, "app", probe);
    pass(&mut stack, Duration::from_secs(1));
    assert_eq!(met.value(), 3 * (14 + 4), "on main and on two workers");
    assert_eq!(log.outcomes(), []);
    finish(stack, &[&app], &[&log]);
}

#[test]
fn a_connect_in_a_callback_to_a_domain_of_nobody_is_unreachable() {
    let mut stack = stack(1);
    let log = Log::default();
    let probe = Probe::new(&log, |ctx, event| {
        if *event == Event::Attached {
            ctx.connect(ConnectOptions { domain: DomainId(9), ..to_server() }).unwrap();
        }
    });
    let app = attach(&mut stack, "app", probe);
    until(&mut stack, LONG, || log.cleaned() == 1);
    assert_eq!(log.outcomes(), [(0, Err(ConnectFailure::Unreachable))]);
    finish(stack, &[&app], &[&log]);
}

#[test]
fn a_bad_listen_is_refused_and_nobody_has_it() {
    let (mut stack, app, log) = one_app();
    for (options, error) in bad_listens().into_iter().chain(wrong_listens()) {
        assert_eq!(stack.listen(app.app_workers[0], options.clone()), Err(error), "{options:?}");
    }
    assert_eq!(summary(&mut stack).main.listeners, 0);
    finish(stack, &[&app], &[&log]);
}

// covers: MUST-41
#[test]
fn a_listen_twice_on_an_endpoint_is_in_use_until_it_is_unlistened() {
    let (mut stack, app, log) = one_app();
    let (unit, other_log) = (app.app_workers[0], Log::default());
    let other = attach(&mut stack, "other", Probe::idle(&other_log));
    let first = stack.listen(unit, listen_on(Family::V4, 80)).unwrap();
    assert_eq!(stack.listen(unit, listen_on(Family::V4, 80)), Err(ListenError::InUse));
    assert_eq!(stack.listen(other.app_workers[0], listen_on(Family::V4, 80)), Err(ListenError::InUse));
    // Another port, another family, the unspecified address: other endpoints.
    stack.listen(unit, listen_on(Family::V4, 81)).unwrap();
    stack.listen(unit, listen_on(Family::V6, 80)).unwrap();
    let any = ListenOptions {
        domain: SERVER,
        ..ListenOptions::on("0.0.0.0:80".parse::<std::net::SocketAddr>().unwrap())
    };
    stack.listen(other.app_workers[0], any).unwrap();
    // Another's listener, no listener, twice.
    assert_eq!(stack.unlisten(other.app_workers[0], first), Err(ListenError::NoListener));
    assert_eq!(stack.unlisten(unit, first), Ok(()));
    assert_eq!(stack.unlisten(unit, first), Err(ListenError::NoListener));
    let again = stack.listen(other.app_workers[0], listen_on(Family::V4, 80)).unwrap();
    assert_ne!(again, first, "a stale name finds nothing");
    assert_eq!(stack.unlisten(unit, first), Err(ListenError::NoListener));
    // The more particular listener gets the session.
    let client_log = Log::default();
    let client = attach(&mut stack, "client", Probe::idle(&client_log));
    stack.connect(client.app_workers[0], to_server()).unwrap();
    until(&mut stack, LONG, || other_log.accepted() == 1);
    assert_eq!(stack.unlisten(other.app_workers[0], again), Ok(()));
    stack.connect(client.app_workers[0], to_server()).unwrap();
    until(&mut stack, LONG, || other_log.accepted() == 2);
    finish(stack, &[&app, &other, &client], &[&log, &other_log, &client_log]);
}

#[test]
fn listens_of_or_for_the_gone_are_refused() {
    let (mut stack, app, log) = one_app();
    let unit = app.app_workers[0];
    let listener = stack.listen(unit, listen_on(Family::V4, 80)).unwrap();
    stack.detach(app.app, DetachPolicy::Reset).unwrap();
    assert_eq!(stack.listen(unit, listen_on(Family::V4, 80)), Err(ListenError::Detached));
    assert_eq!(stack.unlisten(unit, listener), Err(ListenError::NoListener));
    finish(stack, &[], &[&log]);
}

// covers: D13
#[test]
fn listeners_above_the_limit_have_no_room() {
    // The stack's limit, then a worker's.
    for (listeners_max, tcp_max) in [(2, 100), (100, 2)] {
        let tcp = TcpConfig { listeners_max: tcp_max, ..TcpConfig::default() };
        let mut stack =
            stack_of(StackConfig { listeners_max, tcp, ..config(2) }, MemoryWireConfig::default());
        let log = Log::default();
        let app = attach(&mut stack, "app", Probe::idle(&log));
        let unit = app.app_workers[0];
        let first = stack.listen(unit, listen_on(Family::V4, 80)).unwrap();
        stack.listen(unit, listen_on(Family::V4, 81)).unwrap();
        for _ in 0..3 {
            assert_eq!(stack.listen(unit, listen_on(Family::V4, 82)), Err(ListenError::NoRoom));
        }
        stack.unlisten(unit, first).unwrap();
        stack.listen(unit, listen_on(Family::V4, 82)).unwrap();
        finish(stack, &[&app], &[&log]);
    }
}

#[test]
fn a_bad_attach_is_refused() {
    let (mut stack, app, log) = one_app();
    let named = |name: &str| AttachOptions::named(name);
    let cases = [
        (named("app"), AttachError::NameInUse),
        (named(""), AttachError::BadName),
        (named(&"x".repeat(65)), AttachError::BadName),
        (AttachOptions { app_workers: 0, ..named("b") }, AttachError::BadWorkers),
        (AttachOptions { app_workers: 5000, ..named("b") }, AttachError::BadWorkers),
        (AttachOptions { half_opens_max: 0, ..named("b") }, AttachError::BadLimit),
        (AttachOptions { pending_connects_max: 0, ..named("b") }, AttachError::BadLimit),
    ];
    for (options, error) in cases {
        let refused = Log::default();
        assert_eq!(stack.attach(Probe::idle(&refused), options), Err(error));
        assert_eq!(refused.events(), [], "it was told nothing");
    }
    let longest = Log::default();
    let other = stack.attach(Probe::idle(&longest), named(&"x".repeat(64))).unwrap();
    assert_eq!(
        stack.attach_worker(AppId(hoststack_transport::Key { slot: 9, generation: 9 })),
        Err(AttachError::NoApplication)
    );
    stack.detach(other.app, DetachPolicy::Reset).unwrap();
    assert_eq!(stack.attach_worker(other.app), Err(AttachError::NoApplication));
    finish(stack, &[&app], &[&log, &longest]);
}

#[test]
fn attaches_above_the_limits_have_no_room_and_leave_nothing() {
    let config = StackConfig { apps_max: 2, app_workers_max: 3, ..config(2) };
    let mut stack = stack_of(config, MemoryWireConfig::default());
    let logs = [Log::default(), Log::default(), Log::default()];
    let first = attach(&mut stack, "a", Probe::idle(&logs[0]));
    let options = |name, app_workers| AttachOptions { app_workers, ..AttachOptions::named(name) };
    assert_eq!(stack.attach(Probe::idle(&logs[2]), options("b", 3)), Err(AttachError::NoRoom));
    let second = stack.attach(Probe::idle(&logs[1]), options("b", 2)).unwrap();
    assert_eq!(stack.attach(Probe::idle(&logs[2]), options("c", 1)), Err(AttachError::NoRoom));
    assert_eq!(stack.attach_worker(second.app), Err(AttachError::NoRoom));
    stack.detach_worker(second.app_workers[0], DetachPolicy::Reset).unwrap();
    // Room for an app worker, none for an application.
    assert_eq!(stack.attach(Probe::idle(&logs[2]), options("c", 1)), Err(AttachError::NoRoom));
    stack.attach_worker(second.app).unwrap();
    assert_eq!(summary(&mut stack).apps.len(), 2);
    assert_eq!(logs[2].events(), []);
    finish(stack, &[&first, &second], &[&logs[0], &logs[1]]);
}

#[test]
fn an_application_that_panics_while_making_its_objects_is_not_attached() {
    struct Panics(bool);
    impl Application for Panics {
        fn app_worker(&mut self, unit: u32, worker: WorkerId) -> Box<dyn AppWorker> {
            assert!(!self.0 && (unit, worker) != (1, WorkerId(1)), "this one was to panic");
            struct Nothing;
            impl AppWorker for Nothing {}
            Box::new(Nothing)
        }
    }
    for at_once in [true, false] {
        let mut stack = stack(2);
        let options = AttachOptions { app_workers: 2, ..AttachOptions::named("panics") };
        assert!(stack.attach(Panics(at_once), options).is_err());
        pass(&mut stack, Duration::from_secs(1));
        let log = Log::default();
        let app = attach(&mut stack, "panics", Probe::idle(&log));
        finish(stack, &[&app], &[&log]);
    }
}

// covers: D08
#[test]
fn a_detach_of_nothing_or_twice_is_refused() {
    let (mut stack, app, log) = one_app();
    let nothing = hoststack_transport::Key { slot: 3, generation: 3 };
    assert_eq!(stack.detach(AppId(nothing), DetachPolicy::Reset), Err(DetachError::NotAttached));
    assert_eq!(stack.detach_worker(AppWorkerId(nothing), DetachPolicy::Reset), Err(DetachError::NotAttached));
    stack.detach_worker(app.app_workers[0], DetachPolicy::Reset).unwrap();
    assert_eq!(stack.detach_worker(app.app_workers[0], DetachPolicy::Reset), Err(DetachError::NotAttached));
    // The application is there without an app worker.
    assert_eq!(stack.connect(app.app_workers[0], to_server()), Err(ConnectError::Detached));
    let unit = stack.attach_worker(app.app).unwrap();
    assert_ne!(unit, app.app_workers[0]);
    let report = stack.detach(app.app, DetachPolicy::Reset).unwrap();
    assert_eq!(report.app_workers.len(), 1);
    assert_eq!(stack.detach(app.app, DetachPolicy::Reset), Err(DetachError::NotAttached));
    finish(stack, &[], &[&log]);
}

#[test]
fn what_is_asked_during_a_detach_says_so() {
    let mut stack = stack(2);
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::new(&server_log, |_, _| {}), 80);
    let app = attach(&mut stack, "app", Probe::new(&log, |_, _| {}));
    let unit = app.app_workers[0];
    stack.connect(unit, to_server()).unwrap();
    until(&mut stack, LONG, || log.up() == 1);
    // The peer does not close: the detach takes its whole linger.
    let handle = stack.handle();
    std::thread::scope(|scope| {
        let app = app.app;
        let detach =
            scope.spawn(move || handle.detach(app, DetachPolicy::Close { linger: Duration::from_secs(20) }));
        while log.count(|event| *event == Event::Detaching) < 2 {
            let _ = stack.step();
        }
        pass(&mut stack, Duration::from_secs(1));
        assert_eq!(stack.detach(app, DetachPolicy::Reset), Err(DetachError::Detaching));
        assert_eq!(stack.detach_worker(unit, DetachPolicy::Reset), Err(DetachError::Detaching));
        assert_eq!(stack.attach_worker(app), Err(AttachError::NoApplication));
        assert_eq!(stack.attach(Probe::idle(&log), AttachOptions::named("app")), Err(AttachError::NameInUse));
        assert_eq!(stack.connect(unit, to_server()), Err(ConnectError::Detached));
        assert_eq!(stack.listen(unit, listen_on(Family::V4, 99)), Err(ListenError::Detached));
        let info = &summary(&mut stack).apps[0];
        assert!(info.detaching && info.app_workers[0].state == "detaching");
        pass(&mut stack, Duration::from_secs(20));
        assert_eq!(detach.join().unwrap().unwrap().app_workers[0].sessions_reset, 1);
    });
    finish(stack, &[&server], &[&log, &server_log]);
}

// covers: H69
#[test]
fn cancels_of_the_unknown_and_the_settled_find_nothing() {
    let (mut stack, app, log) = one_app();
    assert_eq!(stack.cancel(ConnectId::new(0, 0)), Err(CancelError::NotPending));
    assert_eq!(stack.cancel(ConnectId::from_u64(u64::MAX)), Err(CancelError::NotPending));
    let id = stack.connect(app.app_workers[0], to_server()).unwrap();
    until(&mut stack, LONG, || log.cleaned() == 1);
    assert_eq!(log.outcomes(), [(0, Err(ConnectFailure::Refused))]);
    assert_eq!(stack.cancel(id), Err(CancelError::NotPending));
    finish(stack, &[&app], &[&log]);
}

// covers: H69
#[test]
fn a_message_for_the_gone_is_dropped() {
    let (mut stack, app, log) = one_app();
    let unit = app.app_workers[0];
    stack.notify(unit, WorkerId(200), Box::new(1u64)).unwrap();
    stack.detach(app.app, DetachPolicy::Reset).unwrap();
    stack.notify(unit, WorkerId(0), Box::new(2u64)).unwrap();
    stack
        .notify(
            AppWorkerId(hoststack_transport::Key { slot: 900, generation: 1 }),
            WorkerId(1),
            Box::new(3u64),
        )
        .unwrap();
    pass(&mut stack, Duration::from_secs(1));
    assert_eq!(log.count(|event| matches!(event, Event::Notified(_))), 0);
    finish(stack, &[], &[&log]);
}

/// All calls on a session, with a handle that is another app worker's, stale, or nonsense: nothing happens.
// covers: G04, H54, N12
#[test]
fn sessions_of_others_and_of_the_past_cannot_be_touched() {
    fn touch(ctx: &mut Context<'_>, session: SessionHandle) {
        assert!(!ctx.is_live(session));
        assert_eq!(ctx.flow(session), Err(SessionError::NotFound));
        ctx.set_opaque(session, 42);
        assert_eq!((ctx.opaque(session), ctx.rx_len(session), ctx.tx_room(session)), (0, 0, 0));
        assert_eq!(
            (ctx.read(session, &mut [0; 8]), ctx.peek(session).len(), ctx.consume(session, 8)),
            (0, 0, 0)
        );
        assert_eq!(
            (ctx.write(session, b"x"), ctx.reserve(session, 8).len(), ctx.splice(session, session)),
            (0, 0, 0)
        );
        ctx.commit(session, 0);
        ctx.commit(session, 9);
        ctx.want_room(session);
        ctx.half_close(session);
        ctx.close(session);
        ctx.reset(session);
    }
    let mut stack = stack(2);
    let (log, server_log, touched) = (Log::default(), Log::default(), Counter::default());
    let server = serve(&mut stack, Probe::idle(&server_log), 80);
    let counter = touched.clone();
    let probe = Probe::new(&log, move |ctx, event| {
        if let Event::Notified(session) = *event {
            touch(ctx, SessionHandle::from_u64(session));
            counter.add(1);
        }
    });
    let options = AttachOptions { app_workers: 2, ..AttachOptions::named("client") };
    let client = stack.attach(probe, options).unwrap();
    for &unit in &client.app_workers {
        for worker in 0..2 {
            stack.connect(unit, ConnectOptions { worker: Some(WorkerId(worker)), ..to_server() }).unwrap();
        }
    }
    until(&mut stack, LONG, || log.up() == 4 && server_log.accepted() == 4);
    let first: Vec<SessionHandle> = log
        .lines()
        .iter()
        .filter_map(|line| match line.event {
            Event::Connected(_, _, Ok(session)) if line.at.is_some_and(|(unit, _)| unit == 0) => {
                Some(session)
            }
            _ => None,
        })
        .collect();
    let ask = |stack: &mut SingleThreaded, unit: usize, worker: WorkerId, session: SessionHandle| {
        let before = touched.value();
        stack.notify(client.app_workers[unit], worker, Box::new(session.as_u64())).unwrap();
        until(stack, LONG, || touched.value() > before);
    };
    // Another app worker's, and one's own from the wrong worker.
    for &session in &first {
        ask(&mut stack, 1, session.worker(), session);
        ask(&mut stack, 0, WorkerId(1 - session.worker().0), session);
    }
    for session in server_log.sessions() {
        ask(&mut stack, 0, session.worker(), session);
    }
    for number in [u64::MAX, 1 << 55, 0xdead_beef_dead_beef] {
        ask(&mut stack, 0, WorkerId(0), SessionHandle::from_u64(number));
    }
    pass(&mut stack, Duration::from_secs(1));
    assert_eq!(log.closed() + server_log.closed(), 0, "none of them was touched");
    // Stale: closed, and its slot used again by another session.
    stack.end_session(first[0], EndHow::Reset).unwrap();
    until(&mut stack, LONG, || log.closed() == 1);
    stack
        .connect(client.app_workers[0], ConnectOptions { worker: Some(first[0].worker()), ..to_server() })
        .unwrap();
    until(&mut stack, LONG, || log.up() == 5);
    ask(&mut stack, 0, first[0].worker(), first[0]);
    stack.end_session(first[0], EndHow::Reset).unwrap();
    stack.end_session(SessionHandle::from_u64(u64::MAX), EndHow::Reset).unwrap();
    pass(&mut stack, Duration::from_secs(1));
    assert_eq!(log.closed(), 1);
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn bad_stacks_are_not_built() {
    let build = |config: StackConfig| match Stack::single_threaded(Stack::builder().config(config)) {
        Ok(_) => panic!("it was built"),
        Err(error) => error,
    };
    for workers in [0, 256, 1000] {
        let error = build(StackConfig { workers, ..StackConfig::default() });
        assert!(matches!(error, BuildError::BadWorkers(given) if given == workers), "{error}");
        assert!(Stack::builder().workers(workers).start().is_err());
    }
    let zeros = [
        StackConfig { apps_max: 0, ..StackConfig::default() },
        StackConfig { app_workers_max: 0, ..StackConfig::default() },
        StackConfig { listeners_max: 0, ..StackConfig::default() },
        StackConfig { pending_connects_max: 0, ..StackConfig::default() },
        StackConfig { rx_burst_max: 0, ..StackConfig::default() },
        StackConfig { tx_burst_max: 0, ..StackConfig::default() },
        StackConfig { channel_batches: 0, ..StackConfig::default() },
        StackConfig { bursts: Bursts { commands: 0, ..Bursts::default() }, ..StackConfig::default() },
        StackConfig { bursts: Bursts { inspect_slots: 0, ..Bursts::default() }, ..StackConfig::default() },
        StackConfig {
            sessions: SessionLimits { sessions: 0, ..SessionLimits::default() },
            ..StackConfig::default()
        },
        StackConfig {
            sessions: SessionLimits { chunks: 0, ..SessionLimits::default() },
            ..StackConfig::default()
        },
    ];
    for config in zeros {
        let error = build(config);
        assert!(matches!(error, BuildError::ZeroLimit(_)), "{error}");
    }
    for chunk_bytes in [0, 32, 100, 4095] {
        let error = build(StackConfig {
            sessions: SessionLimits { chunk_bytes, ..SessionLimits::default() },
            ..StackConfig::default()
        });
        assert!(matches!(error, BuildError::BadChunk(given) if given == chunk_bytes), "{error}");
    }
}

#[test]
fn bad_interfaces_are_not_built() {
    let build = |change: fn(InterfaceSpec) -> InterfaceSpec| {
        let (a, b) = memory_wire(MemoryWireConfig::default());
        let spec = change(InterfaceSpec::new(a).address("10.0.0.1/24".parse().unwrap()));
        let other = InterfaceSpec::new(b).address("10.0.1.1/24".parse().unwrap());
        match Stack::single_threaded(Stack::builder().interface(other).interface(spec)) {
            Ok(_) => panic!("it was built"),
            Err(error) => error,
        }
    };
    let errors = [
        // A router of the other family, a router that is ourselves, a route that exists, another interface's address.
        build(|spec| spec.route("0.0.0.0/0".parse().unwrap(), Some("fd00::2".parse().unwrap()))),
        build(|spec| spec.route("0.0.0.0/0".parse().unwrap(), Some("10.0.0.1".parse().unwrap()))),
        build(|spec| {
            spec.route("10.9.0.0/16".parse().unwrap(), None).route("10.9.0.0/16".parse().unwrap(), None)
        }),
        build(|spec| spec.address("10.0.1.1/24".parse().unwrap())),
    ];
    for error in errors {
        assert!(matches!(error, BuildError::Route(_)), "{error}");
        assert!(error.to_string().contains("wire0"), "it names the interface: {error}");
    }
    // Two interfaces of one name.
    let (a, _) = memory_wire(MemoryWireConfig::default());
    let (b, _) = memory_wire(MemoryWireConfig::default());
    let twice = Stack::builder().interface(InterfaceSpec::new(a)).interface(InterfaceSpec::new(b));
    assert!(matches!(Stack::single_threaded(twice), Err(BuildError::Route(_))));
}

#[test]
fn a_stack_without_interfaces_says_so_at_connect() {
    let mut stack = Stack::single_threaded(Stack::builder()).unwrap();
    stack.use_virtual_time();
    let log = Log::default();
    let app = attach(&mut stack, "app", Probe::idle(&log));
    let server: std::net::SocketAddr = SERVER_END.parse().unwrap();
    assert_eq!(stack.connect(app.app_workers[0], ConnectOptions::to(server)), Err(ConnectError::NoDomain));
    assert_eq!(stack.listen(app.app_workers[0], ListenOptions::on(server)), Err(ListenError::NoDomain));
    finish(stack, &[&app], &[&log]);
}
