use super::*;
use clap::Parser;
use hoststack::app::SessionHandle;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    echo: EchoArgs,
}

fn args(text: &str) -> EchoArgs {
    Cli::try_parse_from(["echo"].into_iter().chain(text.split_whitespace())).unwrap().echo
}

fn outcome(connected: u64) -> Outcome {
    let totals = EchoClientTotals {
        requested: 10,
        connected,
        refused: 10 - connected,
        closed_ok: connected,
        bytes_sent: connected * 100,
        bytes_echoed: connected * 100,
        ..EchoClientTotals::default()
    };
    let mut report = DetachReport {
        app: hoststack::app::AppId(SessionHandle::from_u64(1).session().0),
        name: "echo-client".to_owned(),
        app_workers: vec![worker_report()],
    };
    report.app_workers[0].outcomes.requested = 10;
    report.app_workers[0].outcomes.cleaned = 10;
    let latency = HistogramSummary { count: connected, p50: 100, p99: 2000, max: 3_000_000 };
    Outcome { totals, latency, report, held: None, seconds: 2.0, cpu_seconds: 1.0, interrupted: false }
}

fn worker_report() -> hoststack::app::WorkerDetachReport {
    hoststack::app::WorkerDetachReport {
        app_worker: hoststack::app::AppWorkerId(SessionHandle::from_u64(1).session().0),
        unit: 0,
        half_opens: 0,
        sessions: 0,
        sessions_reset: 0,
        listeners: 0,
        took: std::time::Duration::ZERO,
        stuck: Vec::new(),
        outcomes: hoststack::app::HalfOpenCounters::default(),
        panicked: false,
    }
}

fn summary(connected: u64, end: &Answer) -> Summary {
    Summary::new(
        &args("--sessions 10 --bytes 100"),
        &outcome(connected),
        end,
        &[Arc::default(), Arc::default()],
        1,
    )
}

#[test]
fn json_has_every_field_that_scripts_rely_on() {
    let json = serde_json::to_value(summary(10, &Answer::default())).unwrap();
    let numbers = [
        "sessions_requested",
        "connected",
        "refused",
        "timed_out",
        "unreachable",
        "cancelled",
        "detached",
        "undelivered",
        "bytes_sent",
        "bytes_echoed",
        "bytes_mismatched",
        "retransmitted_segments",
        "seconds",
        "cpu_seconds",
        "connects_per_second",
        "echo_gbits_per_second",
        "half_opens_cleaned",
        "addresses",
        "time_wait",
    ];
    assert!(numbers.iter().all(|name| json[name].is_number()), "{json}");
    let objects: [(&str, &[&str]); 3] = [
        ("wire", &["segments", "dropped", "reordered", "duplicated"]),
        ("connect_latency_us", &["p50", "p99", "max"]),
        ("leaks", &["sessions", "half_opens", "timers", "fifo_chunks", "flows", "messages"]),
    ];
    for (name, fields) in objects {
        assert!(fields.iter().all(|field| json[name][field].is_number()), "{name}: {json}");
        assert_eq!(json[name].as_object().unwrap().len(), fields.len(), "{name}");
    }
    assert_eq!(json["connects_per_second"], 5.0);
}

#[test]
fn a_run_is_good_only_if_every_session_ended_as_it_should_and_nothing_leaked() {
    let good = args("--sessions 10 --bytes 100");
    assert_eq!(summary(10, &Answer::default()).verdict(&good), Ok(()));
    let refused = summary(9, &Answer::default()).verdict(&good).unwrap_err();
    assert!(refused.contains("9 of 10 sessions connected"), "{refused}");
    let leaking = Answer { leaks: Leaks { flows: 1, ..Leaks::default() }, ..Answer::default() };
    assert_eq!(summary(10, &leaking).verdict(&good), Err("something leaked".to_owned()));
    let wrong = Summary { bytes_mismatched: 3, ..summary(10, &Answer::default()) };
    assert_eq!(wrong.verdict(&good), Err("3 bytes came back wrong".to_owned()));
    let undelivered = Summary { undelivered: 1, ..summary(10, &Answer::default()) };
    assert!(undelivered.verdict(&good).is_err());
    let not_cleaned = Summary { half_opens_cleaned: 9, ..summary(10, &Answer::default()) };
    assert!(not_cleaned.verdict(&good).is_err());
}

#[test]
fn text_names_only_failures_that_there_were() {
    let text = summary(9, &Answer::default()).text();
    assert!(text.contains("10 requested, 9 connected, 9 closed, 1 refused\n"), "{text}");
    assert!(text.contains("p50 100 us, p99 2.0 ms, max 3.00 s"), "{text}");
    assert!(!summary(10, &Answer::default()).text().contains("refused"));
}

#[test]
fn arguments_that_do_not_fit_together_are_refused() {
    let refused =
        |text: &str| Cli::try_parse_from(["echo"].into_iter().chain(text.split_whitespace())).is_err();
    assert!(refused("--device tap:a"));
    assert!(refused("--device tap:a --address 10.0.0.1/24"));
    assert!(refused("--device loopback --address 10.0.0.1/24 --peer 10.0.0.2:7"));
    assert!(refused("--peer 10.0.0.2:7"));
    assert!(refused("--loss 101"));
    assert!(refused("--waves 0"));
    assert!(!refused("--device tap:a --address 10.0.0.1/24 --address fd00::1/64 --peer 10.0.0.2:7"));
}
