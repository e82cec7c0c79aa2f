//! Stacks on real threads, used from other threads. Waits have generous limits; nothing depends on speed.

mod common;

use std::time::Duration;

use common::*;
use crossbeam_channel::{Receiver, Sender, unbounded};
use hoststack::app::*;
use hoststack::net::{MemoryWireConfig, memory_wire};
use hoststack::{Answer, EndHow, Query, Stack, StackConfig, StackHandle, Stopped};

/// How long anything may take before it is taken to hang.
const LIMIT: Duration = Duration::from_secs(60);

fn start(config: StackConfig) -> Stack {
    let (a, b) = memory_wire(MemoryWireConfig::default());
    Stack::builder()
        .config(config)
        .interface(interface(a, CLIENT, 1))
        .interface(interface(b, SERVER, 2))
        .start()
        .unwrap()
}

fn to(port: u16, opaque: u64) -> ConnectOptions {
    ConnectOptions { opaque, ..ConnectOptions::to(Family::V4.server(port)) }
}

fn serve_on(handle: &StackHandle, probe: Probe) -> hoststack::Attached {
    let server = handle.attach(probe, AttachOptions::named("server")).unwrap();
    for family in FAMILIES {
        handle.listen(server.app_workers[0], listen_on(family, 80)).unwrap();
    }
    server
}

/// An app that also sends what it is told to the test.
fn telling(
    log: &Log,
    does: impl Fn(&mut Context<'_>, &Event) + Send + Sync + 'static,
) -> (Probe, Receiver<Event>) {
    let (tell, told): (Sender<Event>, _) = unbounded();
    let on_main = tell.clone();
    let probe = Probe::new(log, move |ctx, event| {
        does(ctx, event);
        let _ = tell.send(event.clone());
    })
    .on_main(move |_, event| {
        let _ = on_main.send(event.clone());
    });
    (probe, told)
}

/// Waits for `count` events that match.
#[track_caller]
fn wait(told: &Receiver<Event>, count: usize, matches: impl Fn(&Event) -> bool) {
    let mut seen = 0;
    while seen < count {
        match told.recv_timeout(LIMIT) {
            Ok(event) => seen += usize::from(matches(&event)),
            Err(_) => panic!("{seen} of {count} within {LIMIT:?}"),
        }
    }
}

/// Lets real time pass.
fn idle(time: Duration) {
    let (_keep, never) = unbounded::<()>();
    assert!(never.recv_timeout(time).is_err());
}

/// Asks until the answer is as wanted: what threads say to each other needs a moment to be handled.
#[track_caller]
fn ask_until(handle: &StackHandle, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let mut answer = handle.inspect(Query::Summary).unwrap();
    for _ in 0..2000 {
        if wanted(&answer) {
            return answer;
        }
        idle(Duration::from_millis(5));
        answer = handle.inspect(Query::Summary).unwrap();
    }
    panic!("{:?}, {:?}", answer.leaks, answer.main);
}

#[track_caller]
fn assert_no_leaks(handle: &StackHandle) {
    let answer = ask_until(handle, |answer| answer.leaks.is_clean());
    assert!(answer.apps.is_empty());
    assert_eq!(answer.main.tickets_dropped, 0);
}

/// The client's part of an echo of `bytes` bytes.
fn echo_client(bytes: u64) -> impl Fn(&mut Context<'_>, &Event) + Send + Sync + 'static {
    let streams = Streams::default();
    move |ctx, event| match *event {
        Event::Connected(_, _, Ok(session)) | Event::Writable(session) => {
            streams.send(ctx, session, bytes);
        }
        Event::Readable(session) if streams.receive(ctx, session, usize::MAX) == bytes => ctx.close(session),
        _ => {}
    }
}

// covers: H35, H41, H72
#[test]
fn sessions_that_several_threads_open_echo_and_close() {
    for workers in [1, 2, 4] {
        let stack = start(config(workers));
        let handle = stack.handle();
        assert_eq!(handle.workers(), workers);
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve_on(&handle, Probe::echo(&server_log));
        let (probe, told) = telling(&log, echo_client(20_000));
        let client = handle.attach(probe, AttachOptions::named("client")).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let handle = handle.clone();
                let unit = client.app_workers[0];
                scope.spawn(move || {
                    for number in 0..50 {
                        let family = FAMILIES[number as usize % 2];
                        let options = ConnectOptions {
                            opaque: thread * 100 + number,
                            ..ConnectOptions::to(family.server(80))
                        };
                        handle.connect(unit, options).unwrap();
                    }
                });
            }
        });
        wait(&told, 400, |event| matches!(event, Event::Closed(..) | Event::Cleaned(..)));
        assert!(log.ends().iter().all(|end| *end == CloseReason::Finished), "{:?}", log.ends());
        let mut opaques: Vec<u64> = log.outcomes().iter().map(|(opaque, _)| *opaque).collect();
        opaques.sort_unstable();
        let wanted: Vec<u64> = (0..4).flat_map(|thread| thread * 100..thread * 100 + 50).collect();
        assert_eq!(opaques, wanted);
        // From other threads at once.
        std::thread::scope(|scope| {
            for app in [client.app, server.app] {
                let handle = handle.clone();
                scope.spawn(move || handle.detach(app, DetachPolicy::default()).unwrap());
            }
        });
        log.check(true);
        server_log.check(true);
        assert_no_leaks(&handle);
    }
}

// covers: H11
#[test]
fn sleeping_threads_wake_up_for_a_connect() {
    let stack = start(config(2));
    let handle = stack.handle();
    let (log, server_log) = (Log::default(), Log::default());
    serve_on(&handle, Probe::echo(&server_log));
    let (probe, told) = telling(&log, echo_client(100));
    let client = handle.attach(probe, AttachOptions::named("client")).unwrap();
    for opaque in 0..10 {
        idle(Duration::from_millis(50));
        handle.connect(client.app_workers[0], to(80, opaque)).unwrap();
        wait(&told, 1, |event| matches!(event, Event::Closed(..)));
    }
    let answer = handle.inspect(Query::Summary).unwrap();
    assert!(answer.workers.iter().all(|worker| worker.sleeps >= 1), "they sleep when there is nothing to do");
    for report in stack.shutdown(DetachPolicy::Reset) {
        assert!(report.app_workers.iter().all(|unit| unit.stuck.is_empty()));
    }
    log.check(true);
    server_log.check(true);
}

#[test]
fn an_idle_stack_sleeps() {
    let stack = start(config(2));
    let handle = stack.handle();
    let steps = || {
        handle.inspect(Query::Summary).unwrap().workers.iter().map(|worker| worker.steps).collect::<Vec<_>>()
    };
    idle(Duration::from_millis(100));
    let before = steps();
    idle(Duration::from_millis(300));
    for (before, after) in before.into_iter().zip(steps()) {
        // Spinning, it would be some 100 000.
        assert!(after - before < 2000, "{} steps while nothing happened", after - before);
    }
}

#[test]
fn a_shutdown_detaches_what_is_attached_and_every_later_call_says_stopped() {
    for policy in [DetachPolicy::Reset, DetachPolicy::default()] {
        let stack = start(config(2));
        let handle = stack.handle();
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve_on(&handle, Probe::idle(&server_log));
        let (probe, told) = telling(&log, close_with_peer);
        let client =
            handle.attach(probe, AttachOptions { app_workers: 2, ..AttachOptions::named("client") }).unwrap();
        let unit = client.app_workers[1];
        let mut connect = None;
        for opaque in 0..50 {
            connect = Some(handle.connect(unit, to(80, opaque)).unwrap());
        }
        wait(&told, 50, |event| matches!(event, Event::Connected(_, _, Ok(_))));
        let listener = handle.listen(unit, listen_on(Family::V4, 99)).unwrap();
        let mut names: Vec<_> = stack.shutdown(policy).into_iter().map(|report| report.name).collect();
        names.sort();
        assert_eq!(names, ["client", "server"]);
        for log in [&log, &server_log] {
            log.check(true);
            assert_eq!(log.count(|event| *event == Event::AppDetached), 1);
        }
        // The stack is gone.
        let session = log.sessions()[0];
        assert!(matches!(
            handle.connect(unit, to(80, 1)),
            Err(ConnectError::Stopped | ConnectError::Detached)
        ));
        assert_eq!(handle.cancel(connect.unwrap()), Err(CancelError::Stopped));
        assert_eq!(handle.listen(unit, listen_on(Family::V4, 98)), Err(ListenError::Stopped));
        assert_eq!(handle.unlisten(unit, listener), Err(ListenError::Stopped));
        assert_eq!(handle.attach(Probe::idle(&log), AttachOptions::named("late")), Err(AttachError::Stopped));
        assert_eq!(handle.attach_worker(client.app), Err(AttachError::Stopped));
        assert_eq!(handle.detach(server.app, policy), Err(DetachError::Stopped));
        assert_eq!(handle.detach_worker(unit, policy), Err(DetachError::Stopped));
        assert_eq!(handle.notify(unit, WorkerId(0), Box::new(1u64)), Err(Stopped));
        assert_eq!(handle.end_session(session, EndHow::Reset), Err(Stopped));
        assert_eq!(handle.inspect(Query::Summary).err(), Some(Stopped));
    }
}

#[test]
fn a_stack_that_is_dropped_stops_its_threads_and_drops_its_apps() {
    let stack = start(config(3));
    let handle = stack.handle();
    let log = Log::default();
    let client = handle.attach(Probe::idle(&log), AttachOptions::named("client")).unwrap();
    drop(stack);
    assert_eq!(log.count(|event| *event == Event::Dropped), 3);
    assert_eq!(handle.connect(client.app_workers[0], to(80, 1)), Err(ConnectError::Stopped));
}

// covers: H35, H51, H72
#[test]
fn connects_and_cancels_and_detaches_race_and_every_connect_has_its_outcome() {
    for workers in [1, 3] {
        let stack = start(config(workers));
        let handle = stack.handle();
        let (log, server_log) = (Log::default(), Log::default());
        serve_on(&handle, Probe::idle(&server_log));
        let options = AttachOptions { app_workers: 4, ..AttachOptions::named("client") };
        let client = handle.attach(Probe::idle(&log), options).unwrap();
        let (taken, units) = (Counter::default(), &client.app_workers);
        std::thread::scope(|scope| {
            for thread in 0..3usize {
                let (handle, taken) = (handle.clone(), taken.clone());
                scope.spawn(move || {
                    for number in 0..300usize {
                        let unit = units[(thread + number) % 4];
                        // A port that refuses, one that does not, a way to nowhere.
                        let options = match number % 5 {
                            0 => to(81, 0),
                            1 => ConnectOptions::to(Family::V6.nowhere()),
                            _ => to(80, 0),
                        };
                        match handle.connect(unit, options) {
                            Ok(connect) => {
                                taken.add(1);
                                if number % 3 == 0 {
                                    let _ = handle.cancel(connect);
                                }
                            }
                            Err(error) => assert_eq!(error, ConnectError::Detached),
                        }
                    }
                });
            }
            let handle = handle.clone();
            scope.spawn(move || {
                for (number, &unit) in units[..3].iter().enumerate() {
                    idle(Duration::from_millis(3));
                    let policy = if number == 0 { DetachPolicy::default() } else { DetachPolicy::Reset };
                    let report = handle.detach_worker(unit, policy).unwrap();
                    assert_eq!(report.outcomes.requested, report.outcomes.cleaned);
                }
            });
        });
        let answer = ask_until(&handle, |answer| answer.main.half_open_sessions == 0);
        assert_eq!(answer.main.connects_orphaned, 0);
        let reports = stack.shutdown(DetachPolicy::Reset);
        assert_eq!(reports.len(), 2);
        log.check(true);
        server_log.check(true);
        assert_eq!(
            log.outcomes().len() as u64,
            taken.value(),
            "every connect that was taken has its outcome"
        );
    }
}

// covers: D05
#[test]
fn a_callback_that_hangs_is_named_by_the_detach() {
    let stack = start(StackConfig { detach_grace: Duration::from_millis(100), ..config(2) });
    let handle = stack.handle();
    let log = Log::default();
    let (release, released) = unbounded::<()>();
    let (probe, told) = telling(&log, |_, _| {});
    let hangs = Probe::new(&log, move |ctx, event| {
        (probe.does)(ctx, event);
        if let Event::Notified(_) = event {
            let _ = released.recv_timeout(LIMIT);
        }
    });
    let client = handle.attach(hangs, AttachOptions::named("client")).unwrap();
    handle.notify(client.app_workers[0], WorkerId(1), Box::new(1u64)).unwrap();
    wait(&told, 1, |event| matches!(event, Event::Notified(_)));
    // More for it to do when it comes back, none of which may reach the app.
    handle.notify(client.app_workers[0], WorkerId(1), Box::new(2u64)).unwrap();
    handle.connect(client.app_workers[0], ConnectOptions { worker: Some(WorkerId(1)), ..to(80, 1) }).unwrap();
    let report = handle.detach(client.app, DetachPolicy::Reset).unwrap();
    assert_eq!(report.app_workers[0].stuck, [WorkerId(1)]);
    assert_eq!((report.app_workers[0].half_opens, report.app_workers[0].unresolved), (1, 1));
    assert!(report.app_workers[0].took >= Duration::from_millis(200), "a grace for each of its two answers");
    // The name is free, the slot is not.
    let again = handle.attach(Probe::idle(&Log::default()), AttachOptions::named("client")).unwrap();
    assert_ne!(again.app_workers[0], client.app_workers[0]);
    assert_eq!(
        handle.detach_worker(client.app_workers[0], DetachPolicy::Reset),
        Err(DetachError::NotAttached)
    );
    release.send(()).unwrap();
    let left = || log.count(|event| *event == Event::Dropped) == 2;
    while !left() {
        idle(Duration::from_millis(1));
    }
    stack.shutdown(DetachPolicy::Reset);
    let events = log.events();
    let end = events.iter().position(|event| *event == Event::AppDetached).unwrap();
    assert_eq!(events[end + 1..], [Event::Dropped], "it lets go without a callback");
}

#[test]
fn timers_and_messages_work_on_real_time() {
    let stack = start(config(2));
    let handle = stack.handle();
    let log = Log::default();
    let (probe, told) = telling(&log, |ctx, event| {
        if let Event::Notified(_) = event {
            ctx.set_timer(3, Duration::from_millis(20));
            ctx.set_timer(4, Duration::from_secs(3600));
        }
    });
    let client = handle.attach(probe, AttachOptions::named("client")).unwrap();
    for worker in 0..2 {
        handle.notify(client.app_workers[0], WorkerId(worker), Box::new(1u64)).unwrap();
    }
    wait(&told, 2, |event| *event == Event::Timer(3));
    let report = handle.detach(client.app, DetachPolicy::default()).unwrap();
    assert_eq!(report.app_workers.len(), 1);
    log.check(true);
    assert_no_leaks(&handle);
}

#[test]
fn a_single_threaded_stack_on_real_time_is_woken_by_another_thread() {
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let builder = Stack::builder()
        .config(config(2))
        .interface(interface(a, CLIENT, 1))
        .interface(interface(b, SERVER, 2));
    let mut stack = Stack::single_threaded(builder).unwrap();
    let (log, server_log) = (Log::default(), Log::default());
    serve(&mut stack, Probe::echo(&server_log), 80);
    let client = attach(&mut stack, "client", Probe::new(&log, echo_client(5000)));
    let handle = stack.handle();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for opaque in 0..5 {
                idle(Duration::from_millis(30));
                handle.connect(client.app_workers[0], to(80, opaque)).unwrap();
            }
        });
        assert!(stack.run_until(LIMIT, |_| log.closed() == 5 && server_log.closed() == 5));
    });
    stack.shutdown(DetachPolicy::default());
    log.check(true);
    server_log.check(true);
}

#[test]
fn a_detach_report_counts_connects_that_end_before_the_slowest_worker_has_heard_of_it() {
    const CONNECTS: usize = 20;
    let stack = start(config(2));
    let handle = stack.handle();
    let log = Log::default();
    let (open, gate) = unbounded();
    let made = parking_lot::Mutex::new(Vec::new());
    let does = move |ctx: &mut Context<'_>, event: &Event| match event {
        Event::Attached if ctx.worker() == WorkerId(0) => {
            // Nobody has the address: they are pending for seconds.
            let options =
                ConnectOptions { worker: Some(WorkerId(0)), ..ConnectOptions::to(Family::V4.nobody()) };
            *made.lock() = (0..CONNECTS).map(|_| ctx.connect(options.clone()).unwrap()).collect();
        }
        Event::Detaching if ctx.worker() == WorkerId(0) => made.lock().iter().for_each(|id| ctx.cancel(*id)),
        // The other worker says nothing before all of them are over.
        Event::Detaching => drop(gate.recv_timeout(LIMIT)),
        _ => {}
    };
    let cleaned = log.clone();
    let probe = Probe::new(&log, does).on_main(move |_, _| {
        if cleaned.cleaned() == CONNECTS {
            let _ = open.send(());
        }
    });
    let client = handle.attach(probe, AttachOptions::named("client")).unwrap();
    ask_until(&handle, |answer| answer.leaks.half_opens == CONNECTS);
    let report = handle.detach_worker(client.app_workers[0], DetachPolicy::Reset).unwrap();
    assert_eq!((report.half_opens, report.outcomes.cancelled), (CONNECTS, CONNECTS as u64));
}

#[test]
fn a_thread_that_computes_leaves_the_workers_their_cores() {
    let allowed = |thread: &str| {
        let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).ok()?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        Some(list.trim().to_owned())
    };
    let own =
        || std::fs::read_link("/proc/thread-self").unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let stack = Stack::builder().workers(1).start().unwrap();
    let handle = stack.handle();
    // Another test's worker may be among them, which is pinned to the same core.
    let workers: Vec<String> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.to_owned()))
        .filter(|task| {
            let name = std::fs::read_to_string(format!("/proc/self/task/{task}/comm"));
            name.is_ok_and(|name| name.trim() == "hoststack-w0")
        })
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let before = allowed(&own());
            if !handle.keep_off_workers() {
                assert_eq!(allowed(&own()), before);
                return;
            }
            let after = allowed(&own());
            assert_ne!(after, before);
            std::thread::scope(|scope| {
                scope.spawn(|| assert_eq!(allowed(&own()), after, "those that it starts, too"));
            });
            let after = after.expect("it runs");
            // Those of other tests may end meanwhile.
            let has = |core: u32| {
                after.split(',').any(|part| {
                    let (first, last) = part.split_once('-').unwrap_or((part, part));
                    (first.parse().unwrap()..=last.parse().unwrap()).contains(&core)
                })
            };
            let cores: Vec<String> = workers.iter().filter_map(|worker| allowed(worker)).collect();
            assert!(
                cores.iter().filter_map(|core| core.parse().ok()).all(|core| !has(core)),
                "{cores:?} {after}"
            );
        });
    });
    drop(stack);
}
