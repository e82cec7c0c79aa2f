//! The line of each session at its end, and of each connect that failed, on virtual time.
#![allow(clippy::collapsible_match, reason = "a guard that sends would hide what the arm does")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use common::*;
use hoststack::app::*;
use hoststack::net::Impairments;
use hoststack::{SingleThreaded, StackConfig};
use parking_lot::Mutex;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

const LONG: Duration = Duration::from_secs(600);
const LATENCY_US: u64 = 10_000;

type Line = BTreeMap<&'static str, String>;

/// Keeps the fields of the lines of sessions.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

struct Fields<'a>(&'a mut Line);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: LayerContext<'_, S>) {
        if event.metadata().target() == "hoststack::session" {
            let mut line = Line::new();
            event.record(&mut Fields(&mut line));
            self.0.lock().push(line);
        }
    }
}

impl Lines {
    fn take(&self) -> Vec<Line> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[track_caller]
fn expect(line: &Line, fields: &[(&'static str, &str)]) {
    for (name, value) in fields {
        assert_eq!(line.get(name).map(String::as_str), Some(*value), "{name}: {line:?}");
    }
}

fn logging(session_log: bool) -> SingleThreaded {
    let slow = Impairments { delay_us: LATENCY_US, ..Impairments::default() };
    impaired_stack(StackConfig { session_log, ..config(2) }, slow, slow).0
}

/// Says a word, and closes when it came back.
fn talker(log: &Log) -> Probe {
    Probe::new(log, |ctx, event| {
        if let Event::Connected(_, _, Ok(session)) = *event {
            ctx.write(session, b"word");
        }
        if let Event::Readable(session) = *event {
            drain(ctx, session);
            ctx.close(session);
        }
    })
}

#[test]
fn both_ends_of_a_session_say_how_it_went() {
    let lines = Lines::default();
    let _guard = tracing_subscriber::registry().with(lines.clone()).set_default();
    let mut stack = logging(true);
    let (client_log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::echo(&server_log), 80);
    let client = attach(&mut stack, "client", talker(&client_log));
    stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
    until(&mut stack, LONG, || client_log.closed() == 1 && server_log.closed() == 1);
    let told = lines.take();
    assert_eq!(told.len(), 2, "{told:?}");
    let (ours, theirs): (Vec<_>, Vec<_>) = told.into_iter().partition(|line| line["opened_by"] == "us");
    expect(
        &ours[0],
        &[
            ("app", "client/0"),
            ("protocol", "tcp"),
            ("remote", "10.0.0.2:80"),
            ("stages_us", "0"),
            ("bytes_in", "4"),
            ("bytes_out", "4"),
            ("retransmitted", "0"),
            ("ended", "finished"),
            ("ended_by", "app"),
        ],
    );
    expect(
        &theirs[0],
        &[
            ("app", "server/0"),
            ("local", "10.0.0.2:80"),
            ("domain", "1"),
            ("bytes_in", "4"),
            ("ended_by", "peer"),
        ],
    );
    assert_eq!(theirs[0].get("connect_us"), None);
    let micros = |name: &str| ours[0][name].parse::<u64>().unwrap();
    // A round trip for the handshake and one for the word; the neighbour is asked for before.
    assert!(micros("connect_us") >= 2 * LATENCY_US, "{ours:?}");
    assert!((2 * LATENCY_US..3 * LATENCY_US).contains(&micros("first_byte_us")), "{ours:?}");
    assert!((2 * LATENCY_US..3 * LATENCY_US).contains(&micros("srtt_us")), "{ours:?}");
    assert!(micros("total_us") >= micros("connect_us") + micros("first_byte_us") + LATENCY_US, "{ours:?}");
    assert_eq!(ours[0]["session"], client_log.sessions()[0].to_string());
    finish(stack, &[&client, &server], &[&client_log, &server_log]);
}

#[test]
fn connects_that_failed_say_why_and_how_often_they_tried() {
    let lines = Lines::default();
    let _guard = tracing_subscriber::registry().with(lines.clone()).set_default();
    let mut stack = logging(true);
    let log = Log::default();
    let client = attach(&mut stack, "client", talker(&log));
    let options = ConnectOptions {
        alternatives: vec![Address::Tcp(Family::V4.server(82).into())],
        ..ConnectOptions::to(Family::V4.server(81))
    };
    let connect = stack.connect(client.app_workers[0], options).unwrap();
    until(&mut stack, LONG, || log.cleaned() == 1);
    let told = lines.take();
    assert_eq!(told.len(), 1, "{told:?}");
    expect(
        &told[0],
        &[
            ("message", "connect failed"),
            ("connect", &connect.to_string()),
            ("app", "client/0"),
            ("remote", "10.0.0.2:82"),
            ("attempts", "2"),
            ("cause", "refused"),
        ],
    );
    assert!(told[0]["total_us"].parse::<u64>().unwrap() >= 4 * LATENCY_US);
    finish(stack, &[&client], &[&log]);
}

#[test]
fn a_detach_is_named_and_what_is_switched_off_is_silent() {
    let lines = Lines::default();
    let _guard = tracing_subscriber::registry().with(lines.clone()).set_default();
    let mut stack = logging(false);
    let (client_log, server_log) = (Log::default(), Log::default());
    let server = serve(&mut stack, Probe::echo(&server_log), 80);
    let client = attach(&mut stack, "client", talker(&client_log));
    let connect = |stack: &mut SingleThreaded| {
        stack.connect(client.app_workers[0], ConnectOptions::to(Family::V6.server(80))).unwrap();
    };
    connect(&mut stack);
    until(&mut stack, LONG, || client_log.closed() == 1 && server_log.closed() == 1);
    assert!(lines.take().is_empty());
    stack.handle().set_session_log(true).unwrap();
    connect(&mut stack);
    until(&mut stack, LONG, || client_log.up() == 2 && server_log.accepted() == 2);
    stack.detach(client.app, DetachPolicy::Reset).unwrap();
    until(&mut stack, LONG, || server_log.closed() == 2);
    let told = lines.take();
    let by: Vec<(&str, &str, &str)> = told
        .iter()
        .map(|line| (line["opened_by"].as_str(), line["ended"].as_str(), line["ended_by"].as_str()))
        .collect();
    assert_eq!(by, [("us", "reset by us", "detach"), ("peer", "reset by the peer", "peer")]);
    stack.handle().set_session_log(false).unwrap();
    finish(stack, &[&server], &[&client_log, &server_log]);
    assert!(lines.take().is_empty());
}

#[test]
fn bytes_without_a_protocol_are_counted_on_one_worker_and_between_two() {
    let lines = Lines::default();
    let _guard = tracing_subscriber::registry().with(lines.clone()).set_default();
    for elsewhere in [false, true] {
        let mut stack = logging(true);
        let (client_log, server_log) = (Log::default(), Log::default());
        let address: Address = "local://server".parse().unwrap();
        let server = attach(&mut stack, "server", Probe::echo(&server_log));
        let listen =
            ListenOptions { worker: elsewhere.then_some(WorkerId(1)), ..ListenOptions::on(address.clone()) };
        stack.listen(server.app_workers[0], listen).unwrap();
        let client = attach(&mut stack, "client", talker(&client_log));
        let options = ConnectOptions { worker: Some(WorkerId(0)), ..ConnectOptions::to(address) };
        stack.connect(client.app_workers[0], options).unwrap();
        until(&mut stack, LONG, || client_log.closed() == 1 && server_log.closed() == 1);
        let told = lines.take();
        assert_eq!(told.len(), 2, "{told:?}");
        for line in &told {
            expect(
                line,
                &[
                    ("protocol", "local"),
                    ("local", "-"),
                    ("remote", "-"),
                    ("bytes_in", "4"),
                    ("bytes_out", "4"),
                ],
            );
        }
        finish(stack, &[&client, &server], &[&client_log, &server_log]);
    }
}
