//! The PROXY protocol between two apps: who is told what, whoever speaks first, whatever the header is.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::*;
use hoststack::SingleThreaded;
use hoststack::app::proxy::{
    Declared, Origin, ParseOptions, ReceiveProxy, SendProxy, Tlv, TlvBuffer, Version,
};
use hoststack::app::*;
use parking_lot::Mutex;

/// Attaches a server whose listeners on port 80 require a header.
fn require(stack: &mut SingleThreaded, probe: Probe) -> hoststack::Attached {
    let server = attach(stack, "server", probe);
    for family in FAMILIES {
        let stages = StagePlans::one(ReceiveProxy { options: ParseOptions::DEFAULT });
        let listen = ListenOptions { stages, stage_timeout: Duration::from_secs(2), ..listen_on(family, 80) };
        stack.listen(server.app_workers[0], listen).unwrap();
    }
    server
}

/// A server that greets, and notes what was declared and the first bytes of each session.
#[derive(Clone, Default)]
struct Notes {
    declared: Arc<Mutex<Vec<Declared>>>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Notes {
    fn server(&self, log: &Log) -> Probe {
        let notes = self.clone();
        Probe::new(log, move |ctx, event| {
            if let Event::Accepted(session) = *event {
                notes.declared.lock().push(ctx.declared(session).expect("a header came").clone());
                assert_eq!(ctx.write(session, b"welcome"), 7);
            }
            if let Event::Readable(session) = *event {
                let mut buffer = [0; 100];
                let count = ctx.read(session, &mut buffer);
                notes.bytes.lock().extend(&buffer[..count]);
            }
            close_with_peer(ctx, event);
        })
    }
}

/// A client that says nothing by itself and half-closes once it was greeted.
fn silent(log: &Log) -> Probe {
    Probe::new(log, |ctx, event| {
        if let Event::Readable(session) = *event {
            assert_eq!(drain(ctx, session), 7);
            ctx.half_close(session);
        }
        close_with_peer(ctx, event);
    })
}

fn plans() -> Vec<(SendProxy, Option<(SocketAddr, SocketAddr)>)> {
    let (src, dst): (SocketAddr, SocketAddr) =
        ("192.0.2.7:1234".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    let mut tlvs = TlvBuffer::new();
    tlvs.push(Tlv::Authority(b"example.org")).unwrap();
    tlvs.push(Tlv::Crc32c(0)).unwrap();
    let of = |version| SendProxy { origin: Origin::Of(src, dst), ..SendProxy::new(version) };
    vec![
        (of(Version::V1), Some((src, dst))),
        (SendProxy { tlvs, ..of(Version::V2) }, Some((src, dst))),
        (SendProxy { origin: Origin::Local, ..SendProxy::new(Version::V1) }, None),
        (SendProxy { origin: Origin::Local, ..SendProxy::new(Version::V2) }, None),
    ]
}

// covers: F49
#[test]
fn a_header_goes_first_and_both_apps_are_told_once_whoever_speaks_first() {
    for family in FAMILIES {
        for early in [&b""[..], b"early bytes"] {
            let mut stack = stack(2);
            let (log, server_log, notes) = (Log::default(), Log::default(), Notes::default());
            let server = require(&mut stack, notes.server(&server_log));
            let client = attach(&mut stack, "client", silent(&log));
            let own = [Version::V1, Version::V2].map(|version| (SendProxy::new(version), None));
            let all: Vec<_> = own.into_iter().chain(plans()).collect();
            for (n, (plan, said)) in all.iter().enumerate() {
                let options = ConnectOptions {
                    stages: StagePlans::one(plan.clone()),
                    ..ConnectOptions::to(family.server(80))
                };
                stack.connect_with(client.app_workers[0], options, early).unwrap();
                until(&mut stack, Duration::from_secs(10), || {
                    log.closed() == n + 1 && server_log.closed() == n + 1
                });
                let declared = notes.declared.lock()[n].clone();
                assert_eq!(declared.version(), plan.version);
                match (plan.origin.clone(), said) {
                    (Origin::Own, _) => {
                        let (src, dst) = declared.endpoints().expect("its own addresses");
                        assert_eq!((src.ip(), dst), (family.client_addr(), family.server(80)));
                    }
                    (_, said) => assert_eq!(declared.endpoints(), *said),
                }
                let authority = declared.tlvs().iter().any(|tlv| tlv == Tlv::Authority(b"example.org"));
                assert_eq!(authority, !plan.tlvs.as_tlvs().as_bytes().is_empty());
            }
            assert_eq!((log.up(), server_log.accepted()), (all.len(), all.len()));
            assert_eq!(
                *notes.bytes.lock(),
                early.repeat(all.len()),
                "the early data comes behind the header"
            );
            finish(stack, &[&client, &server], &[&log, &server_log]);
        }
    }
}

/// A client without stages that writes `first` at once and `rest` 50 ms later; then it `closes` its direction, or not.
fn writes(log: &Log, first: &[u8], rest: &[u8], closes: bool) -> Probe {
    let (first, rest) = (first.to_vec(), rest.to_vec());
    let session_of = Mutex::new(None);
    Probe::new(log, move |ctx, event| match *event {
        Event::Connected(_, _, Ok(session)) => {
            assert_eq!(ctx.write(session, &first), first.len());
            *session_of.lock() = Some(session);
            ctx.set_timer(1, Duration::from_millis(50));
        }
        Event::Timer(1) => {
            let session = session_of.lock().expect("it connected");
            ctx.write(session, &rest);
            if closes {
                ctx.half_close(session);
            }
        }
        Event::Readable(session) => {
            drain(ctx, session);
        }
        _ => close_with_peer(ctx, event),
    })
}

#[test]
fn a_header_cut_anywhere_is_a_header_and_no_byte_behind_it_is_lost() {
    let v2 =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[192, 0, 2, 7, 10, 0, 0, 2, 4, 210, 0, 80]].concat();
    for header in [b"PROXY TCP4 192.0.2.7 10.0.0.2 1234 80\r\n".to_vec(), v2] {
        for cut in 0..=header.len() {
            let mut stack = stack(1);
            let (log, server_log, notes) = (Log::default(), Log::default(), Notes::default());
            let server = require(&mut stack, notes.server(&server_log));
            let rest = [&header[cut..], b"x"].concat();
            let client = attach(&mut stack, "client", writes(&log, &header[..cut], &rest, true));
            stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
            until(&mut stack, Duration::from_secs(5), || log.closed() == 1 && server_log.closed() == 1);
            assert_eq!((server_log.accepted(), &notes.bytes.lock()[..]), (1, &b"x"[..]), "cut at {cut}");
            let said = notes.declared.lock()[0].endpoints().map(|(src, _)| src);
            assert_eq!(said, Some("192.0.2.7:1234".parse().unwrap()));
            finish(stack, &[&client, &server], &[&log, &server_log]);
        }
    }
}

#[test]
fn what_is_no_header_is_one_typed_failure_in_time_and_a_reset() {
    let line = b"PROXY TCP4 192.0.2.7 10.0.0.2 1234 80\r\n";
    let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 120]].concat();
    let cases: [(&[u8], bool, StageCause); 6] = [
        (b"GET / HTTP/1.1\r\n", false, StageCause::Malformed("no-header")),
        (b"PROXY TCP4 192.0.2.7 10.0.0.2 1234 99999\r\n", false, StageCause::Malformed("bad-port")),
        (&long, false, StageCause::TooLong),
        (&line[..20], true, StageCause::PeerClosed),
        (&line[..20], false, StageCause::TimedOut),
        (b"", false, StageCause::TimedOut),
    ];
    for (bytes, closes, cause) in cases {
        let mut stack = stack(1);
        let (log, server_log, notes) = (Log::default(), Log::default(), Notes::default());
        let server = require(&mut stack, notes.server(&server_log));
        let client = attach(&mut stack, "client", writes(&log, bytes, b"", closes));
        stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
        until(&mut stack, Duration::from_millis(2100), || log.closed() == 1);
        let failures = |log: &Log| log.count(|event| matches!(event, Event::NotAccepted(_)));
        let expected = Event::NotAccepted(ConnectFailure::Stage(StageFailure {
            stage: "PROXY header to receive",
            cause,
        }));
        assert_eq!(server_log.count(|event| *event == expected), 1, "{cause:?}: {:?}", server_log.events());
        assert_eq!((failures(&server_log), server_log.accepted()), (1, 0));
        assert_eq!(log.ends(), [CloseReason::PeerReset]);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn what_cannot_be_said_fails_the_connect_and_a_detach_ends_what_waits() {
    let mut stack = stack(1);
    let (log, server_log, notes) = (Log::default(), Log::default(), Notes::default());
    let server = require(&mut stack, notes.server(&server_log));
    let client = attach(&mut stack, "client", Probe::idle(&log));
    let mixed = Origin::Of("192.0.2.7:1".parse().unwrap(), "[2001:db8::1]:2".parse().unwrap());
    let plan = SendProxy { origin: mixed, ..SendProxy::new(Version::V2) };
    let options =
        ConnectOptions { stages: StagePlans::one(plan), ..ConnectOptions::to(Family::V4.server(80)) };
    stack.connect(client.app_workers[0], options).unwrap();
    until(&mut stack, Duration::from_secs(1), || log.cleaned() == 1);
    let cause = StageCause::Unsayable("addresses of two families");
    let failure = ConnectFailure::Stage(StageFailure { stage: "PROXY header to send", cause });
    assert_eq!(log.outcomes(), [(0, Err(failure))]);
    // Nor can what is longer than the fifo.
    let fifos = SessionOptions { tx_capacity: 20, ..SessionOptions::default() };
    let stages = StagePlans::one(SendProxy::new(Version::V1));
    let options = ConnectOptions { stages, fifos, ..ConnectOptions::to(Family::V4.server(80)) };
    stack.connect(client.app_workers[0], options).unwrap();
    until(&mut stack, Duration::from_secs(1), || log.cleaned() == 2);
    let cause = StageCause::Unsayable("it is longer than the send fifo");
    let failure = ConnectFailure::Stage(StageFailure { stage: "PROXY header to send", cause });
    assert_eq!(log.outcomes().last(), Some(&(0, Err(failure))));
    // One without a header waits when its server is detached.
    stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
    until(&mut stack, Duration::from_secs(1), || log.up() == 1);
    finish(stack, &[&server, &client], &[&log, &server_log]);
    assert_eq!(server_log.accepted(), 0);
}

#[test]
fn a_connection_whose_ends_have_no_address_declares_none() {
    for (version, told) in [(Version::V1, "unknown"), (Version::V2, "local")] {
        let mut stack = stack(1);
        let (log, server_log, notes) = (Log::default(), Log::default(), Notes::default());
        let server = attach(&mut stack, "server", notes.server(&server_log));
        let at: Address = "local://server".parse().unwrap();
        let stages = StagePlans::one(ReceiveProxy::default());
        let listen = ListenOptions { stages, ..ListenOptions::on(at.clone()) };
        stack.listen(server.app_workers[0], listen).unwrap();
        let client = attach(&mut stack, "client", silent(&log));
        let stages = StagePlans::one(SendProxy::new(version));
        stack.connect(client.app_workers[0], ConnectOptions { stages, ..ConnectOptions::to(at) }).unwrap();
        until(&mut stack, Duration::from_secs(5), || log.closed() == 1 && server_log.closed() == 1);
        assert_eq!(notes.declared.lock()[0].to_string(), told);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

#[test]
fn what_is_not_accepted_is_counted_by_its_reason_and_a_listener_says_what_it_waits_for() {
    let mut stack = stack(2);
    let (log, server_log, notes) = (Log::default(), Log::default(), Notes::default());
    let server = require(&mut stack, notes.server(&server_log));
    let answer = stack.inspect(hoststack::Query::Listeners { limit: 1 }).unwrap();
    assert_eq!((answer.main.listeners, answer.listeners.len()), (2, 1));
    let listener = &answer.listeners[0];
    assert!(listener.address.starts_with("tcp://") && listener.is_up, "{listener:?}");
    assert_eq!((listener.app_worker.as_str(), listener.domain), ("server/0", SERVER.0));
    assert_eq!(
        (&listener.stages[..], listener.stage_timeout_us),
        (&["PROXY header to receive"][..], 2_000_000)
    );
    let client = attach(&mut stack, "client", writes(&log, b"GET / HTTP/1.1\r\n", b"", false));
    for n in 0..3 {
        stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
        until(&mut stack, Duration::from_secs(1), || log.closed() == n + 1);
    }
    let workers = stack.inspect(hoststack::Query::Summary).unwrap().workers;
    let drops = workers.iter().flat_map(|worker| &worker.drops).filter(|drop| drop.reason == "not-accepted");
    let (count, help): (Vec<u64>, Vec<&str>) = drops.map(|drop| (drop.count, drop.help.as_str())).unzip();
    assert_eq!(count.iter().sum::<u64>(), 3);
    assert!(help.iter().all(|help| help.ends_with("the peer sent something else: no-header")), "{help:?}");
    finish(stack, &[&client, &server], &[&log, &server_log]);
}
