//! TLS between two apps over the whole stack, on virtual time: what apps see of it is what they see of TCP.

mod common;

use std::sync::Arc;

use common::*;
use hoststack::app::proxy::{ParseOptions, ReceiveProxy, SendProxy, Version};
use hoststack::app::*;
use hoststack::net::Impairments;
use hoststack::{Query, SingleThreaded};
use hoststack_tls::{Client, ClientOptions, Identity, Roots, Server, ServerOptions, Time, Versions, info};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

const NAME: &str = "server.example.org";
/// Certificates of these tests are valid then: in 2027.
const NOW: u64 = 1_800_000_000;

/// Options for both ends that go together.
fn options() -> (ClientOptions, ServerOptions) {
    options_of("an issuer")
}

fn options_of(issuer: &str) -> (ClientOptions, ServerOptions) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, issuer);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let identity = Identity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let client = ClientOptions {
        roots: Roots::Given(issuer.pem().into_bytes()),
        time: Time::At(NOW),
        alpn: vec!["echo".to_owned()],
        ..ClientOptions::default()
    };
    let server = ServerOptions {
        identities: vec![identity],
        time: Time::At(NOW),
        alpn: vec!["echo".to_owned()],
        ..ServerOptions::default()
    };
    (client, server)
}

/// Attaches a server with these stages on port 443.
fn serve_with(stack: &mut SingleThreaded, probe: Probe, stages: &StagePlans) -> hoststack::Attached {
    let server = attach(stack, "server", probe);
    for family in FAMILIES {
        let stage_timeout = Duration::from_secs(2);
        let listen = ListenOptions { stages: stages.clone(), stage_timeout, ..listen_on(family, 443) };
        stack.listen(server.app_workers[0], listen).unwrap();
    }
    server
}

fn connect_with(stages: &StagePlans, family: Family) -> ConnectOptions {
    ConnectOptions { stages: stages.clone(), ..ConnectOptions::to(family.server(443)) }
}

/// Sends `total` bytes of the pattern and half-closes; has got them all back when it is told that the peer closed.
fn sender(log: &Log, streams: &Streams, total: u64) -> Probe {
    let streams = streams.clone();
    Probe::new(log, move |ctx, event| match *event {
        Event::Connected(_, _, Ok(session)) | Event::Writable(session)
            if streams.send(ctx, session, total) =>
        {
            ctx.half_close(session);
        }
        Event::Readable(session) => {
            streams.receive(ctx, session, usize::MAX);
        }
        Event::PeerClosed(session) => {
            streams.receive(ctx, session, usize::MAX);
            ctx.close(session);
        }
        _ => {}
    })
}

// covers: I10
#[test]
fn echoes_go_through_tls_with_and_without_a_header_before_it_and_the_second_one_resumes() {
    let options = options();
    for versions in [Versions::Tls13, Versions::Tls12] {
        let client = ClientOptions { versions, ..options.0.clone() };
        let tls: [Arc<dyn StagePlan>; 2] =
            [Arc::new(Client::new(NAME, &client).unwrap()), Arc::new(Server::new(&options.1).unwrap())];
        for has_header in [false, true] {
            let plans = |tls: &Arc<dyn StagePlan>, header: Arc<dyn StagePlan>| {
                StagePlans::new(if has_header { vec![header, tls.clone()] } else { vec![tls.clone()] })
            };
            let client_stages = plans(&tls[0], Arc::new(SendProxy::new(Version::V2)));
            let receive = ReceiveProxy { options: ParseOptions::DEFAULT };
            let server_stages = plans(&tls[1], Arc::new(receive));
            for family in FAMILIES {
                let mut stack = stack(2);
                let (log, server_log, streams) = (Log::default(), Log::default(), Streams::default());
                let agreed: Arc<Mutex<Vec<String>>> = Arc::default();
                let noted = agreed.clone();
                let server = Probe::new(&server_log, move |ctx, event| {
                    if let Event::Accepted(session) = *event {
                        let tls = info(ctx.layer(session).expect("a layer")).expect("it is TLS");
                        let alpn = tls.alpn.unwrap().escape_ascii();
                        let name = tls.server_name.unwrap();
                        noted.lock().push(format!("{} {alpn} {name} {}", tls.version, tls.is_resumed));
                        assert_eq!(ctx.declared(session).is_some(), has_header);
                    }
                    echo(ctx, event);
                });
                let server = serve_with(&mut stack, server, &server_stages);
                let client = attach(&mut stack, "client", sender(&log, &streams, 300_000));
                // The second one after the first has ended, so that it resumes it.
                for n in 1..=2 {
                    stack.connect(client.app_workers[0], connect_with(&client_stages, family)).unwrap();
                    until(&mut stack, Duration::from_secs(20), || {
                        log.closed() == n && server_log.closed() == n
                    });
                }
                for stream in streams.all() {
                    assert_eq!((stream.sent, stream.got), (300_000, 300_000));
                }
                let version = if versions == Versions::Tls13 { "1.3" } else { "1.2" };
                let agreed = agreed.lock().clone();
                // The plans are shared by both families: the first connection of all is the one that cannot resume.
                let is_first = family == FAMILIES[0] && !has_header;
                assert_eq!(agreed[0], format!("{version} echo {NAME} {}", !is_first));
                assert_eq!(agreed[1], format!("{version} echo {NAME} true"));
                assert_eq!((agreed.len(), streams.all().len()), (2, 2));
                for log in [&log, &server_log] {
                    assert_eq!(log.ends(), [CloseReason::Finished; 2]);
                }
                finish(stack, &[&client, &server], &[&log, &server_log]);
            }
        }
    }
}

/// TLS for both ends.
fn tls((client, server): &(ClientOptions, ServerOptions)) -> [StagePlans; 2] {
    [StagePlans::one(Client::new(NAME, client).unwrap()), StagePlans::one(Server::new(server).unwrap())]
}

#[test]
fn early_data_comes_first_and_once_behind_the_handshake() {
    for workers in [1, 3] {
        let [client_stages, server_stages] = tls(&options());
        let mut stack = stack(workers);
        let (log, server_log) = (Log::default(), Log::default());
        let got: Arc<Mutex<Vec<u8>>> = Arc::default();
        let heard = got.clone();
        let server = Probe::new(&server_log, move |ctx, event| {
            if let Event::Readable(session) = *event {
                let mut buffer = [0; 100];
                let count = ctx.read(session, &mut buffer);
                heard.lock().extend(&buffer[..count]);
            }
            close_with_peer(ctx, event);
        });
        let server = serve_with(&mut stack, server, &server_stages);
        let client = Probe::new(&log, |ctx, event| {
            if let Event::Connected(_, _, Ok(session)) = *event {
                assert_eq!(ctx.write(session, b" then the rest"), 14);
                ctx.half_close(session);
            }
            close_with_peer(ctx, event);
        });
        let client = attach(&mut stack, "client", client);
        let to = connect_with(&client_stages, Family::V4);
        stack.connect_with(client.app_workers[0], to, b"early").unwrap();
        until(&mut stack, Duration::from_secs(5), || log.closed() == 1 && server_log.closed() == 1);
        assert_eq!(*got.lock(), b"early then the rest");
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn a_close_ends_in_order_though_the_peers_last_record_comes_after_it() {
    for versions in [Versions::Tls13, Versions::Tls12] {
        let both = options();
        let [client_stages, server_stages] = tls(&(ClientOptions { versions, ..both.0 }, both.1));
        for bytes in [0, 10, 60_000] {
            let delay = Impairments { delay_us: 10_000, ..Impairments::default() };
            let (mut stack, _) = impaired_stack(config(1), delay, delay);
            let (log, server_log, got) = (Log::default(), Log::default(), Counter::default());
            let counted = got.clone();
            let server = Probe::new(&server_log, move |ctx, event| {
                if let Event::Readable(session) = *event {
                    counted.add(drain(ctx, session) as u64);
                }
                close_with_peer(ctx, event);
            });
            let server = serve_with(&mut stack, server, &server_stages);
            let client = Probe::new(&log, move |ctx, event| {
                if let Event::Connected(_, _, Ok(session)) = *event {
                    assert_eq!(ctx.write(session, &vec![7; bytes]), bytes);
                    ctx.close(session);
                }
            });
            let client = attach(&mut stack, "client", client);
            stack.connect(client.app_workers[0], connect_with(&client_stages, Family::V4)).unwrap();
            until(&mut stack, Duration::from_secs(5), || log.closed() == 1 && server_log.closed() == 1);
            // The server's `close_notify` is no data for an app that is gone, and is not answered with a reset.
            assert_eq!(
                (log.ends(), server_log.ends()),
                (vec![CloseReason::Finished], vec![CloseReason::Finished])
            );
            assert_eq!(got.value(), bytes as u64);
            finish(stack, &[&client, &server], &[&log, &server_log]);
        }
    }
}

#[test]
fn the_command_line_sees_what_was_agreed() {
    let [client_stages, server_stages] = tls(&options());
    let mut stack = stack(1);
    let (log, server_log) = (Log::default(), Log::default());
    let server = serve_with(&mut stack, Probe::idle(&server_log), &server_stages);
    let client = attach(&mut stack, "client", Probe::idle(&log));
    stack.connect(client.app_workers[0], connect_with(&client_stages, Family::V4)).unwrap();
    until(&mut stack, Duration::from_secs(5), || log.up() == 1 && server_log.accepted() == 1);
    pass(&mut stack, Duration::from_millis(100));
    let answer = stack.inspect(Query::sessions(10, true)).unwrap();
    assert_eq!(answer.sessions.len(), 2);
    for session in &answer.sessions {
        let variables = session.variables();
        assert!(variables.contains(" tls=1.3 cipher=TLS13_"), "{variables}");
        assert!(variables.ends_with(&format!("alpn=echo sni={NAME}")), "{variables}");
    }
    assert_eq!(answer.workers[0].fifo_chunks, 0, "idle sessions hold none");
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

#[test]
fn loss_and_reordering_below_are_not_seen_above() {
    let [client_stages, server_stages] = tls(&options());
    let faults = |seed| Impairments {
        seed,
        loss: 0.03,
        reorder: 0.05,
        duplicate: 0.02,
        delay_us: 5_000,
        ..Impairments::default()
    };
    for seed in 1..=3 {
        let (mut stack, counters) = impaired_stack(config(2), faults(seed), faults(seed + 100));
        let (log, server_log, streams) = (Log::default(), Log::default(), Streams::default());
        let server = serve_with(&mut stack, Probe::echo(&server_log), &server_stages);
        let client = attach(&mut stack, "client", sender(&log, &streams, 200_000));
        for _ in 0..4 {
            stack.connect(client.app_workers[0], connect_with(&client_stages, Family::V4)).unwrap();
        }
        until(&mut stack, Duration::from_secs(300), || log.closed() == 4 && server_log.closed() == 4);
        assert!(streams.all().iter().all(|stream| stream.got == 200_000), "{:?}", streams.all());
        assert!(counters[0].dropped() > 0, "the faults were there");
        assert_eq!(log.ends(), [CloseReason::Finished; 4]);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

// covers: F02, I11
#[test]
fn a_failed_handshake_is_told_at_both_ends_with_its_cause() {
    let good = options();
    let stranger = options_of("a stranger");
    let version = |versions| ClientOptions { versions, ..good.0.clone() };
    let alpn = ClientOptions { alpn: vec!["other".to_owned()], ..good.0.clone() };
    let cases: [(ClientOptions, ServerOptions, StageCause, StageCause); 3] = [
        (
            good.0.clone(),
            stranger.1.clone(),
            StageCause::Untrusted("its certificate's issuer is unknown"),
            StageCause::Refused("unknown_ca"),
        ),
        (
            version(Versions::Tls12),
            ServerOptions { versions: Versions::Tls13, ..good.1.clone() },
            StageCause::Refused("protocol_version"),
            StageCause::NothingInCommon("version of TLS"),
        ),
        (
            alpn,
            good.1.clone(),
            StageCause::Refused("no_application_protocol"),
            StageCause::NothingInCommon("application protocol"),
        ),
    ];
    for (client_options, server_options, at_client, at_server) in cases {
        let [client_stages, server_stages] = tls(&(client_options, server_options));
        let mut stack = stack(2);
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve_with(&mut stack, Probe::idle(&server_log), &server_stages);
        let client = attach(&mut stack, "client", Probe::idle(&log));
        stack.connect(client.app_workers[0], connect_with(&client_stages, Family::V6)).unwrap();
        let failure = |cause| ConnectFailure::Stage(StageFailure { stage: "TLS", cause });
        let not_accepted = |log: &Log| log.count(|event| matches!(event, Event::NotAccepted(_)));
        until(&mut stack, Duration::from_secs(1), || log.cleaned() == 1 && not_accepted(&server_log) == 1);
        assert_eq!(log.outcomes(), [(0, Err(failure(at_client)))]);
        let expected = Event::NotAccepted(failure(at_server));
        assert_eq!(server_log.count(|event| *event == expected), 1, "{:?}", server_log.events());
        // The connections end by themselves and in order: the alert was not cut off by a reset.
        pass(&mut stack, Duration::from_secs(1));
        assert_eq!(summary(&mut stack).leaks.sessions, 0);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn who_does_not_speak_tls_is_told_apart_from_who_says_nothing() {
    let cases: [(&'static [u8], StageCause); 3] = [
        (b"GET / HTTP/1.1\r\n\r\n", StageCause::Malformed("not TLS")),
        (b"", StageCause::TimedOut),
        (b"\x16\x03\x01\x02", StageCause::TimedOut),
    ];
    for (bytes, cause) in cases {
        let [_, server_stages] = tls(&options());
        let mut stack = stack(1);
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve_with(&mut stack, Probe::idle(&server_log), &server_stages);
        let client = Probe::new(&log, move |ctx, event| {
            if let Event::Connected(_, _, Ok(session)) = *event {
                ctx.write(session, bytes);
            }
            if let Event::Readable(session) = *event {
                let mut alert = [0; 7];
                assert_eq!(ctx.read(session, &mut alert), 7);
                assert_eq!((alert[0], alert[5]), (21, 2), "a fatal alert");
            }
            close_with_peer(ctx, event);
        });
        let client = attach(&mut stack, "client", client);
        stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(443))).unwrap();
        until(&mut stack, Duration::from_millis(2_500), || log.closed() == 1);
        let expected = Event::NotAccepted(ConnectFailure::Stage(StageFailure { stage: "TLS", cause }));
        assert_eq!(server_log.count(|event| *event == expected), 1, "{:?}", server_log.events());
        let is_silent = cause == StageCause::TimedOut;
        let end = if is_silent { CloseReason::PeerReset } else { CloseReason::Finished };
        assert_eq!(log.ends(), [end]);
        assert_eq!(log.count(|event| matches!(event, Event::Readable(_))), usize::from(!is_silent));
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn a_client_that_calls_a_plain_port_fails_by_the_answer_or_by_its_deadline() {
    let [client_stages, _] = tls(&options());
    for (greets, cause) in [(true, StageCause::Malformed("not TLS")), (false, StageCause::TimedOut)] {
        let mut stack = stack(1);
        let (log, server_log) = (Log::default(), Log::default());
        let server = Probe::new(&server_log, move |ctx, event| {
            if let Event::Accepted(session) = *event
                && greets
            {
                ctx.write(session, b"220 mail.example.org ESMTP\r\n");
            }
            close_with_peer(ctx, event);
        });
        let server = serve_with(&mut stack, server, &StagePlans::NONE);
        let client = attach(&mut stack, "client", Probe::idle(&log));
        let timeout = Duration::from_secs(3);
        let to = ConnectOptions { timeout, ..connect_with(&client_stages, Family::V4) };
        stack.connect(client.app_workers[0], to).unwrap();
        until(&mut stack, Duration::from_millis(3_500), || log.cleaned() == 1);
        let failure = ConnectFailure::Stage(StageFailure { stage: "TLS", cause });
        assert_eq!(log.outcomes(), [(0, Err(failure))]);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn a_detach_or_a_cancel_at_any_step_of_a_handshake_leaves_nothing() {
    let [client_stages, server_stages] = tls(&options());
    for steps in 0..40 {
        for cancels in [false, true] {
            let mut stack = stack(1);
            let (log, server_log) = (Log::default(), Log::default());
            let server = serve_with(&mut stack, Probe::idle(&server_log), &server_stages);
            let client = attach(&mut stack, "client", Probe::idle(&log));
            let connect =
                stack.connect(client.app_workers[0], connect_with(&client_stages, Family::V4)).unwrap();
            let mut taken = 0;
            stack.run_until(Duration::from_secs(1), |stack| {
                stack.check_consistency();
                taken += 1;
                taken > steps
            });
            if cancels {
                // Unless it is too late for that.
                assert_eq!(stack.cancel(connect).is_err(), log.cleaned() == 1);
                pass(&mut stack, Duration::from_millis(50));
                assert_eq!(log.outcomes().len(), 1);
            }
            finish(stack, &[&client, &server], &[&log, &server_log]);
        }
    }
}
