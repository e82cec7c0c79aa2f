//! Echo and discard through a whole stack: every byte crosses TCP segments on a wire.

mod common;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, LinkState};
use hoststack::{Leaks, Query};
use hoststack_builtin::{
    Discard, EchoClient, EchoClientError, EchoClientEvent, EchoClientHandle, EchoClientOptions, EchoServer,
    Release,
};

const PEER: &str = "10.0.0.2:7";

fn echo_options(sessions: u32, bytes: u64) -> EchoClientOptions {
    EchoClientOptions { sessions, bytes, ..EchoClientOptions::to(vec![to(PEER)]) }
}

fn client(options: EchoClientOptions) -> (EchoClient, EchoClientHandle) {
    let client = EchoClient::new(options).unwrap();
    let handle = client.handle();
    (client, handle)
}

#[test]
fn every_session_gets_its_bytes_back_on_one_worker_and_on_three() {
    for workers in [1, 3] {
        let mut stack = stack(workers);
        let server = EchoServer::new(vec![on(PEER)]);
        let served = server.stats();
        let server = stack.attach(server, named("server")).unwrap();
        let (client, handle) = client(EchoClientOptions { waves: 4, ..echo_options(200, 10_000) });
        let client = stack.attach(client, named("client")).unwrap();
        run(&mut stack, Duration::from_secs(30), || handle.is_done());
        let reports = end(stack, &[&client, &server]);

        let totals = handle.stats().totals();
        assert!(totals.is_clean(200), "{workers} workers: {totals:?}");
        assert_eq!((totals.bytes_echoed, totals.half_opens_cleaned), (2_000_000, 200));
        assert_eq!(handle.stats().connect_latency_us().count, 200);
        assert_eq!(handle.events().try_iter().collect::<Vec<_>>(), [EchoClientEvent::Done]);
        let served = served.totals();
        assert_eq!((served.accepted, served.bytes, served.closed, served.reset), (200, 2_000_000, 200, 0));
        assert_eq!(reports[0].outcomes().undelivered, 0);
    }
}

#[test]
fn sessions_larger_than_the_fifos_and_of_odd_sizes_come_back_whole() {
    for bytes in [1, 65_537, 1_000_003] {
        let mut stack = stack(2);
        let fifos = SessionOptions { rx_capacity: 10_000, tx_capacity: 7_000, ..SessionOptions::default() };
        let server = EchoServer::new(vec![ListenOptions { fifos, ..on(PEER) }]);
        let server = stack.attach(server, named("server")).unwrap();
        let (client, handle) = client(echo_options(3, bytes));
        let client = stack.attach(client, named("client")).unwrap();
        run(&mut stack, Duration::from_secs(60), || handle.is_done());
        end(stack, &[&client, &server]);
        assert!(handle.stats().totals().is_clean(3), "{bytes} bytes: {:?}", handle.stats().totals());
    }
}

#[test]
fn bytes_come_back_whole_over_a_wire_that_loses_reorders_and_duplicates() {
    let faults = Impairments {
        seed: 11,
        loss: 0.02,
        reorder: 0.02,
        duplicate: 0.01,
        delay_us: 500,
        ..Default::default()
    };
    let (mut stack, wire) = stack_over(2, faults);
    let server = stack.attach(EchoServer::new(vec![on(PEER)]), named("server")).unwrap();
    let (client, handle) = client(EchoClientOptions { waves: 2, ..echo_options(60, 20_000) });
    let client = stack.attach(client, named("client")).unwrap();
    run(&mut stack, Duration::from_secs(600), || handle.is_done());
    wire.set_link(LinkState::Healed);
    end(stack, &[&client, &server]);
    assert!(handle.stats().totals().is_clean(60), "{:?}", handle.stats().totals());
    assert!(wire.dropped() > 0 && wire.reordered() > 0 && wire.duplicated() > 0);
}

#[test]
fn echo_of_no_bytes_over_ipv6_and_ipv4_by_turns() {
    let mut stack = stack(2);
    let server = EchoServer::new(vec![on(PEER), on("[fd00::2]:7")]);
    let (stats, listening) = (server.stats(), server.listening());
    let server = stack.attach(server, named("server")).unwrap();
    let options = EchoClientOptions { remotes: vec![to(PEER), to("[fd00::2]:7")], ..echo_options(40, 0) };
    let (client, handle) = client(options);
    let client = stack.attach(client, named("client")).unwrap();
    run(&mut stack, Duration::from_secs(30), || handle.is_done());
    end(stack, &[&client, &server]);
    assert!(handle.stats().totals().is_clean(40));
    let told = listening.try_recv().unwrap();
    assert!(told.all_up());
    assert_eq!(told.up.len(), 2);
    assert_eq!(stats.listening(), Some(told));
}

#[test]
fn a_wave_begins_when_the_one_before_has_ended() {
    for (workers, pending_max) in [(1, 1024), (3, 1024), (3, 4)] {
        let mut stack = stack(workers);
        let server = stack.attach(EchoServer::new(vec![on(PEER)]), named("server")).unwrap();
        let options = EchoClientOptions { waves: 5, pending_max, ..echo_options(100, 100) };
        let (client, handle) = client(options);
        let client = stack.attach(client, named("client")).unwrap();
        let mut most = 0;
        run(&mut stack, Duration::from_secs(30), || {
            let totals = handle.stats().totals();
            // Numbers are claimed in order: no connect of a wave may have been made before all of the last had ended.
            let (made, ended) = (totals.requested, totals.ended());
            assert!(made <= (ended / 20 + 1) * 20, "{made} made when {ended} had ended");
            let pending = made - totals.connected;
            assert!(pending <= u64::from(pending_max), "{pending} pending");
            most = most.max(made - ended);
            handle.is_done()
        });
        assert!(most > 1, "waves are opened together");
        end(stack, &[&client, &server]);
        assert!(handle.stats().totals().is_clean(100));
    }
}

#[test]
fn held_sessions_stay_until_they_are_released() {
    for by_message in [false, true] {
        let mut stack = stack(2);
        let server = stack.attach(EchoServer::new(vec![on(PEER)]), named("server")).unwrap();
        let (client, handle) = client(EchoClientOptions { hold: true, waves: 3, ..echo_options(1500, 10) });
        let client = stack.attach(client, named("client")).unwrap();
        run(&mut stack, Duration::from_secs(30), || handle.is_complete());
        run_for(&mut stack, Duration::from_secs(5));
        assert_eq!(handle.events().try_recv(), Ok(EchoClientEvent::Held));
        let totals = handle.stats().totals();
        assert_eq!((totals.held, totals.ended(), totals.bytes_echoed), (1500, 0, 15_000));
        assert_eq!(stack.inspect(Query::Status).unwrap().session_summary.total, 3000);

        if by_message {
            for worker in 0..2 {
                stack.notify(client.app_workers[0], WorkerId(worker), Box::new(Release)).unwrap();
            }
        } else {
            handle.release();
        }
        run(&mut stack, Duration::from_secs(30), || handle.is_done());
        assert_eq!(handle.events().try_recv(), Ok(EchoClientEvent::Done));
        end(stack, &[&client, &server]);
        let totals = handle.stats().totals();
        assert!(totals.is_clean(1500) && totals.held == 0, "{totals:?}");
    }
}

#[test]
fn held_sessions_are_ended_by_a_detach() {
    let mut stack = stack(2);
    let server = stack.attach(EchoServer::new(vec![on(PEER)]), named("server")).unwrap();
    let (client, handle) = client(EchoClientOptions { hold: true, ..echo_options(300, 0) });
    let client = stack.attach(client, named("client")).unwrap();
    run(&mut stack, Duration::from_secs(30), || handle.is_complete());
    end(stack, &[&client, &server]);
    assert!(handle.is_done());
    assert_eq!(handle.stats().totals().ended(), 300);
}

#[test]
fn refused_connects_are_counted_and_the_list_goes_on() {
    let mut stack = stack(2);
    let options = EchoClientOptions { waves: 3, pending_max: 7, ..echo_options(100, 10) };
    let (client, handle) = client(options);
    let client = stack.attach(client, named("client")).unwrap();
    run(&mut stack, Duration::from_secs(30), || handle.is_done());
    end(stack, &[&client]);
    let totals = handle.stats().totals();
    assert_eq!(
        (totals.requested, totals.refused, totals.connected, totals.half_opens_cleaned),
        (100, 100, 0, 100)
    );
    assert!(!totals.is_clean(100));
}

#[test]
fn unanswered_connects_time_out_at_the_clients_timeout() {
    let (mut stack, wire) = stack_over(1, Impairments::default());
    wire.set_link(LinkState::Cut);
    let options = EchoClientOptions { timeout: Some(Duration::from_secs(2)), ..echo_options(20, 10) };
    let (client, handle) = client(options);
    let client = stack.attach(client, named("client")).unwrap();
    let start = stack.now();
    run(&mut stack, Duration::from_secs(30), || handle.is_done());
    let took = stack.now().since(start);
    assert!(took >= Duration::from_secs(2) && took < Duration::from_millis(2100), "{took:?}");
    end(stack, &[&client]);
    assert_eq!(handle.stats().totals().timed_out, 20);
}

#[test]
fn a_thread_at_its_limit_of_pending_connects_tries_again() {
    let mut stack = stack(2);
    let server = stack.attach(EchoServer::new(vec![on(PEER)]), named("server")).unwrap();
    let (client, handle) = client(echo_options(50, 100));
    let client = stack.attach(client, AttachOptions { pending_connects_max: 3, ..named("client") }).unwrap();
    run(&mut stack, Duration::from_secs(30), || handle.is_done());
    end(stack, &[&client, &server]);
    let totals = handle.stats().totals();
    assert!(totals.is_clean(50), "{totals:?}");
}

#[test]
fn connects_that_are_not_taken_are_counted_and_the_list_goes_on() {
    let mut stack = stack(2);
    let server = stack.attach(EchoServer::new(vec![on(PEER)]), named("server")).unwrap();
    // Worker 9 does not exist; only the thread that connects knows.
    let nowhere = ConnectOptions { worker: Some(WorkerId(9)), ..to(PEER) };
    let remotes = vec![nowhere.clone(), nowhere, to(PEER)];
    let options = EchoClientOptions { remotes, waves: 7, pending_max: 1, ..echo_options(30, 100) };
    let (client, handle) = client(options);
    let client = stack.attach(client, named("client")).unwrap();
    run(&mut stack, Duration::from_secs(30), || handle.is_done());
    end(stack, &[&client, &server]);
    let totals = handle.stats().totals();
    assert_eq!((totals.closed_ok, totals.not_issued, totals.failed, totals.requested), (10, 20, 20, 10));
}

#[test]
fn app_workers_share_the_sessions_and_one_goes_on_for_a_detached_other() {
    let mut stack = stack(2);
    let server = stack.attach(EchoServer::new(vec![on(PEER)]), named("server")).unwrap();
    let options = EchoClientOptions { waves: 10, app_workers: 2, ..echo_options(400, 1000) };
    let (client, handle) = client(options);
    let client = stack.attach(client, AttachOptions { app_workers: 2, ..named("client") }).unwrap();
    run(&mut stack, Duration::from_secs(30), || handle.progress().0 >= 60);
    let report = stack.detach_worker(client.app_workers[1], DetachPolicy::Reset).unwrap();
    assert!(report.outcomes.established > 0, "both app workers connect");
    run(&mut stack, Duration::from_secs(30), || handle.is_done());
    end(stack, &[&client, &server]);
    let totals = handle.stats().totals();
    assert_eq!((totals.ended(), totals.bytes_mismatched), (400, 0));
    assert!(totals.closed_ok > 300, "{totals:?}");
}

#[test]
fn a_client_of_no_sessions_is_done_at_once() {
    let (_, handle) = client(EchoClientOptions { hold: true, ..echo_options(0, 10) });
    assert!(handle.is_done() && handle.is_complete());
    let events: Vec<_> = handle.events().try_iter().collect();
    assert_eq!(events, [EchoClientEvent::Held, EchoClientEvent::Done]);
}

#[test]
fn options_that_nothing_can_come_of_are_refused() {
    let error = |options| EchoClient::new(options).unwrap_err();
    assert_eq!(error(EchoClientOptions::to(vec![])), EchoClientError::NoRemote);
    assert_eq!(error(EchoClientOptions { waves: 0, ..echo_options(1, 1) }), EchoClientError::NoWaves);
    assert_eq!(error(EchoClientOptions { pending_max: 0, ..echo_options(1, 1) }), EchoClientError::NoPending);
    assert_eq!(error(echo_options(u32::MAX, 1)), EchoClientError::TooManySessions);
    let zero = Some(Duration::ZERO);
    let bad = error(EchoClientOptions { timeout: zero, ..echo_options(1, 1) });
    assert_eq!(bad, EchoClientError::BadRemote(ConnectError::BadDeadline));
}

#[test]
fn two_servers_on_one_endpoint_tell_that_the_second_is_not_up() {
    let mut stack = stack(2);
    let first = stack.attach(EchoServer::new(vec![on(PEER)]), named("first")).unwrap();
    let second = EchoServer::new(vec![on(PEER), on("10.0.0.2:8"), on("10.0.0.2:0")]);
    let (stats, listening) = (second.stats(), second.listening());
    let second = stack.attach(second, named("second")).unwrap();
    run(&mut stack, Duration::from_secs(1), || stats.listening().is_some());
    let told = listening.try_recv().unwrap();
    let up: Vec<Address> = told.up.iter().map(|(_, address)| address.clone()).collect();
    assert_eq!(up, [Address::from(endpoint("10.0.0.2:8"))]);
    let mut failed = told.failed;
    failed.sort_by_key(|(address, _)| address.clone());
    let bad_port = (endpoint("10.0.0.2:0").into(), ListenError::BadEndpoint);
    assert_eq!(failed, [bad_port, (endpoint(PEER).into(), ListenError::InUse)]);
    assert_eq!(stats.totals().listen_errors, 2);
    end(stack, &[&first, &second]);
}

/// A server that spoils one byte in a thousand, or closes before all is echoed.
struct BadServer {
    spoils: bool,
}

impl Application for BadServer {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(BadServer { spoils: self.spoils })
    }

    fn attached(&mut self, ctx: &mut MainContext<'_>) {
        ctx.listen(ctx.app_workers()[0], on(PEER)).unwrap();
    }
}

impl AppWorker for BadServer {
    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let mut bytes = vec![0; ctx.rx_len(session)];
        ctx.read(session, &mut bytes);
        if self.spoils {
            bytes.iter_mut().step_by(1000).for_each(|byte| *byte ^= 1);
            assert_eq!(ctx.write(session, &bytes), bytes.len());
        } else {
            ctx.write(session, &bytes[..bytes.len() / 2]);
            ctx.close(session);
        }
    }
}

#[test]
fn spoilt_bytes_are_counted() {
    let mut stack = stack(1);
    let server = stack.attach(BadServer { spoils: true }, named("server")).unwrap();
    let (client, handle) = client(echo_options(10, 1000));
    let client = stack.attach(client, named("client")).unwrap();
    run(&mut stack, Duration::from_secs(30), || handle.is_done());
    end(stack, &[&client, &server]);
    let totals = handle.stats().totals();
    assert_eq!((totals.closed_ok, totals.bytes_mismatched, totals.is_clean(10)), (10, 10, false));
}

#[test]
fn a_server_that_closes_early_leaves_short_sessions() {
    let mut stack = stack(1);
    let server = stack.attach(BadServer { spoils: false }, named("server")).unwrap();
    let (client, handle) = client(echo_options(10, 1000));
    let client = stack.attach(client, named("client")).unwrap();
    run(&mut stack, Duration::from_secs(30), || handle.is_done());
    end(stack, &[&client, &server]);
    let totals = handle.stats().totals();
    assert_eq!((totals.closed_short, totals.closed_ok, totals.bytes_mismatched), (10, 0, 0), "{totals:?}");
}

#[test]
fn discard_takes_everything_and_closes_after_the_peer() {
    let mut stack = stack(2);
    let server = Discard::new(vec![on(PEER)]);
    let served = server.stats();
    let server = stack.attach(server, named("server")).unwrap();
    // Nothing comes back, so the sessions last until they are detached.
    let (client, handle) = client(echo_options(5, 200_000));
    let client = stack.attach(client, named("client")).unwrap();
    run(&mut stack, Duration::from_secs(30), || served.totals().bytes == 1_000_000);
    end(stack, &[&client, &server]);
    let (served, totals) = (served.totals(), handle.stats().totals());
    assert_eq!((served.accepted, served.closed, served.reset), (5, 5, 0));
    assert_eq!((totals.bytes_sent, totals.bytes_echoed, totals.closed_short), (1_000_000, 0, 5));
}

#[test]
fn threads_echo_and_hold_and_leave_nothing_behind() {
    let (builder, _) = builder(2, Impairments::default());
    let stack = builder.start().unwrap();
    let (server, listening) = {
        let server = EchoServer::new(vec![on(PEER)]);
        let listening = server.listening();
        (stack.handle().attach(server, named("server")).unwrap(), listening)
    };
    assert!(listening.recv_timeout(Duration::from_secs(10)).unwrap().all_up());
    let (client, handle) = client(EchoClientOptions { waves: 4, hold: true, ..echo_options(2000, 3000) });
    let client = stack.handle().attach(client, named("client")).unwrap();
    let next = || handle.events().recv_timeout(Duration::from_secs(60));
    assert_eq!(next(), Ok(EchoClientEvent::Held), "{:?}", handle.stats().totals());
    handle.release();
    assert_eq!(next(), Ok(EchoClientEvent::Done), "{:?}", handle.stats().totals());
    for app in [client, server] {
        stack.handle().detach(app.app, DetachPolicy::default()).unwrap();
    }
    assert_eq!(stack.handle().inspect(Query::Summary).unwrap().leaks, Leaks::default());
    stack.shutdown(DetachPolicy::default());
    let totals = handle.stats().totals();
    assert!(totals.is_clean(2000), "{totals:?}");
    assert_eq!(totals.half_opens_cleaned, 2000);
}
