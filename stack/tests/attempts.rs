//! A connect with several endpoints or rounds: each attempt is a generation of its own, the app hears one outcome.

mod common;

use std::sync::Arc;

use common::*;
use hoststack::app::proxy::{Origin, ParseOptions, ReceiveProxy, SendProxy, Version};
use hoststack::app::*;
use hoststack::{Attached, SingleThreaded};
use parking_lot::Mutex;

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

/// Listens on `at` for `app`; TCP addresses are the server's domain's.
fn listen(stack: &mut SingleThreaded, app: &Attached, options: ListenOptions) {
    let domain = if matches!(options.local, Address::Tcp(_)) { SERVER } else { CLIENT };
    stack.listen(app.app_workers[0], ListenOptions { domain, ..options }).expect("listening");
}

fn timed_out(stage: &'static str) -> ConnectFailure {
    ConnectFailure::Stage(StageFailure { stage, cause: StageCause::TimedOut })
}

const LIMIT: Duration = Duration::from_secs(100);

// covers: F36
#[test]
fn an_endpoint_that_does_not_answer_costs_its_time_and_the_next_one_is_tried() {
    for family in FAMILIES {
        let mut stack = stack(2);
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::idle(&server_log), 80);
        let client = attach(&mut stack, "client", Probe::idle(&log));
        // Nobody has that address, nothing leads there, nobody listens; then the server.
        let options = ConnectOptions {
            alternatives: vec![family.nowhere().into(), family.server(81).into(), family.server(80).into()],
            attempt_timeout: Some(Duration::from_secs(2)),
            ..ConnectOptions::to(family.nobody())
        };
        stack.connect(client.app_workers[0], options).unwrap();
        until(&mut stack, LIMIT, || log.cleaned() == 1 && server_log.accepted() == 1);
        assert_eq!(log.outcomes(), [(0, Ok(()))]);
        assert!(stack.now() < Instant::ZERO + Duration::from_secs(5), "one attempt had to time out");
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

// covers: F35, I12
#[test]
fn the_deadline_of_the_connect_bounds_all_attempts() {
    let mut stack = stack(1);
    let log = Log::default();
    let client = attach(&mut stack, "client", Probe::idle(&log));
    let options = ConnectOptions {
        rounds: 200,
        attempt_timeout: Some(Duration::from_millis(300)),
        retry_delay: Duration::from_millis(200),
        timeout: Duration::from_millis(1700),
        ..ConnectOptions::to(Family::V4.nobody())
    };
    stack.connect(client.app_workers[0], options).unwrap();
    until(&mut stack, LIMIT, || log.cleaned() == 1);
    assert_eq!(log.outcomes(), [(0, Err(ConnectFailure::TimedOut))]);
    assert!(stack.now() >= Instant::ZERO + Duration::from_millis(1700));
    assert!(stack.now() < Instant::ZERO + Duration::from_millis(1800), "{:?}", stack.now());
    finish(stack, &[&client], &[&log]);
}

/// I13: a stage that was done on the first attempt is done again, from its first byte, on the second.
// covers: F06, F16, F19, F33, I13
#[test]
fn every_attempt_sends_its_own_header_and_early_data_reaches_the_one_that_comes_up() {
    let said = ("192.0.2.7:1234".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    let mut stack = stack(2);
    let (log, silent_log, server_log) = (Log::default(), Log::default(), Log::default());
    // One that takes the connection and never sends the header that the client waits for.
    let silent = attach(&mut stack, "silent", Probe::idle(&silent_log));
    listen(&mut stack, &silent, ListenOptions::on(address("local://silent")));
    listen(&mut stack, &silent, ListenOptions::on(Family::V4.server(81)));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    // One that wants a header, and says one first.
    let server = attach(
        &mut stack,
        "server",
        Probe::new(&server_log, move |ctx, event| {
            if let Event::Accepted(session) = *event {
                assert_eq!(ctx.declared(session).unwrap().endpoints(), Some(said));
            }
            if let Event::Readable(session) = *event {
                let mut buffer = [0; 64];
                let count = ctx.read(session, &mut buffer);
                hears.lock().extend_from_slice(&buffer[..count]);
            }
            close_with_peer(ctx, event);
        }),
    );
    let plan = || SendProxy { origin: Origin::Of(said.0, said.1), ..SendProxy::new(Version::V2) };
    for at in [Address::from(Family::V4.server(80)), address("local://server")] {
        let stages = StagePlans::new(vec![
            Arc::new(plan()),
            Arc::new(ReceiveProxy { options: ParseOptions::DEFAULT }),
        ]);
        listen(&mut stack, &server, ListenOptions { stages, ..ListenOptions::on(at) });
    }
    let client = attach(&mut stack, "client", Probe::idle(&log));
    for (n, (first, second)) in [
        (Address::from(Family::V4.server(81)), Address::from(Family::V4.server(80))),
        (address("local://silent"), address("local://server")),
        (address("local://silent"), Address::from(Family::V4.server(80))),
        (Address::from(Family::V4.server(81)), address("local://server")),
    ]
    .into_iter()
    .enumerate()
    {
        heard.lock().clear();
        let stages = StagePlans::new(vec![
            Arc::new(plan()),
            Arc::new(ReceiveProxy { options: ParseOptions::DEFAULT }),
        ]);
        let options = ConnectOptions {
            alternatives: vec![second],
            attempt_timeout: Some(Duration::from_millis(400)),
            stages,
            ..ConnectOptions::to(first)
        };
        stack.connect_with(client.app_workers[0], options, b"early").unwrap();
        until(&mut stack, LIMIT, || log.cleaned() == n + 1 && server_log.accepted() == n + 1);
        assert_eq!(log.outcomes()[n], (0, Ok(())));
        until(&mut stack, LIMIT, || heard.lock().len() == 5);
        assert_eq!(*heard.lock(), b"early", "once, on the attempt that came up");
    }
    // And if the last one fails as well, that is the outcome.
    let stages = StagePlans::one(ReceiveProxy { options: ParseOptions::DEFAULT });
    let options = ConnectOptions {
        rounds: 2,
        retry_delay: Duration::from_millis(100),
        attempt_timeout: Some(Duration::from_millis(400)),
        stages,
        ..ConnectOptions::to(address("local://silent"))
    };
    stack.connect(client.app_workers[0], options).unwrap();
    until(&mut stack, LIMIT, || log.cleaned() == 5);
    assert_eq!(log.outcomes()[4], (0, Err(timed_out("PROXY header to receive"))));
    finish(stack, &[&client, &silent, &server], &[&log, &silent_log, &server_log]);
}

// covers: F36, F46
#[test]
fn as_many_attempts_are_made_as_were_asked_for() {
    for (others, rounds) in [(0, 1), (0, 2), (2, 1), (2, 3), (0, 255)] {
        let mut stack = stack(1);
        let (log, silent_log) = (Log::default(), Log::default());
        let silent = attach(&mut stack, "silent", Probe::idle(&silent_log));
        listen(&mut stack, &silent, ListenOptions::on(address("local://silent")));
        let client = attach(&mut stack, "client", Probe::idle(&log));
        let options = ConnectOptions {
            alternatives: vec![address("local://silent"); others],
            rounds,
            retry_delay: Duration::from_micros(10),
            attempt_timeout: Some(Duration::from_millis(1)),
            stages: StagePlans::one(ReceiveProxy { options: ParseOptions::DEFAULT }),
            ..ConnectOptions::to(address("local://silent"))
        };
        stack.connect(client.app_workers[0], options).unwrap();
        let asked = (1 + others) * usize::from(rounds);
        until(&mut stack, LIMIT, || log.cleaned() == 1 && silent_log.closed() == asked);
        assert_eq!(silent_log.accepted(), asked, "{others} more, {rounds} rounds");
        assert_eq!(log.outcomes(), [(0, Err(timed_out("PROXY header to receive")))]);
        finish(stack, &[&client, &silent], &[&log, &silent_log]);
    }
}

/// A cancel, or a detach, at any step of a connect that goes from one attempt to the next: one outcome, nothing left.
#[test]
fn a_cancel_or_a_detach_may_cross_with_a_ticket_that_comes_back() {
    for detaches in [false, true] {
        for steps in 0..60 {
            let mut stack = stack(2);
            let (log, silent_log) = (Log::default(), Log::default());
            let silent = attach(&mut stack, "silent", Probe::idle(&silent_log));
            for at in ["local://one", "local://two"] {
                // It never sends the header; and on another worker, so that the connect comes up later.
                let options = ListenOptions { worker: Some(WorkerId(1)), ..ListenOptions::on(address(at)) };
                listen(&mut stack, &silent, options);
            }
            let client = attach(&mut stack, "client", Probe::idle(&log));
            let options = ConnectOptions {
                alternatives: vec![address("local://two"), address("local://nobody")],
                worker: Some(WorkerId(0)),
                attempt_timeout: Some(Duration::from_millis(1)),
                stages: StagePlans::one(ReceiveProxy { options: ParseOptions::DEFAULT }),
                ..ConnectOptions::to(address("local://one"))
            };
            let connect = stack.connect(client.app_workers[0], options).unwrap();
            for _ in 0..steps {
                let _ = stack.step();
                stack.advance(Duration::from_micros(100));
                stack.check_consistency();
            }
            if detaches {
                stack.detach(client.app, DetachPolicy::Reset).unwrap();
                let told = log.outcomes();
                // An attempt that fails while the detach is under way has no successor: its failure is the outcome.
                let last =
                    [ConnectFailure::Detached, ConnectFailure::Refused, timed_out("PROXY header to receive")];
                assert!(
                    matches!(told[..], [(0, Err(failure))] if last.contains(&failure)),
                    "after {steps} steps: {told:?}"
                );
                finish(stack, &[&silent], &[&log, &silent_log]);
                continue;
            }
            let cancelled = stack.cancel(connect);
            until(&mut stack, LIMIT, || log.cleaned() == 1);
            let told = log.outcomes();
            match cancelled {
                Ok(()) => assert_eq!(told, [(0, Err(ConnectFailure::Cancelled))], "after {steps} steps"),
                Err(_) => assert_eq!(told, [(0, Err(ConnectFailure::Refused))], "after {steps} steps"),
            }
            finish(stack, &[&client, &silent], &[&log, &silent_log]);
        }
    }
}

#[test]
fn options_that_make_no_sense_say_so() {
    let good = ConnectOptions::to(Family::V4.server(80));
    let cases = [
        (ConnectOptions { rounds: 0, ..good.clone() }, ConnectError::BadRounds),
        (ConnectOptions { attempt_timeout: Some(Duration::ZERO), ..good.clone() }, ConnectError::BadDeadline),
        (
            ConnectOptions { alternatives: vec![Endpoint::UNSPECIFIED.into()], ..good.clone() },
            ConnectError::BadEndpoint,
        ),
    ];
    for (options, error) in cases {
        assert_eq!(options.validate(), Err(error));
    }
    let mut stack = stack(2);
    let log = Log::default();
    let app = attach(&mut stack, "app", Probe::idle(&log));
    let on = |at: Address| ListenOptions { worker: Some(WorkerId(9)), ..ListenOptions::on(at) };
    assert_eq!(stack.listen(app.app_workers[0], on(address("local://x"))), Err(ListenError::BadWorker));
    assert_eq!(
        stack.listen(app.app_workers[0], on(Family::V4.server(80).into())),
        Err(ListenError::BadWorker),
        "this stack's TCP has no choice"
    );
    finish(stack, &[&app], &[&log]);
}
