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
    Outcome {
        totals,
        detach: None,
        latency,
        report,
        held: None,
        seconds: 2.0,
        cpu_seconds: 1.0,
        interrupted: false,
    }
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
        unresolved: 0,
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
        "cancels",
        "detached",
        "undelivered",
        "half_opens_at_detach",
        "sessions_at_detach",
        "reset_by_detach",
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
        (
            "leaks",
            &["sessions", "half_opens", "timers", "fifo_chunks", "flows", "messages", "parked", "listeners"],
        ),
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

/// Of ten sessions one is cancelled and the detach takes three: a connect, and two sessions, one of them half way.
fn cut_off() -> (EchoArgs, Summary) {
    let args = args("--sessions 10 --bytes 100 --cancel 20 --detach-at 50%");
    let mut outcome = outcome(8);
    outcome.totals = EchoClientTotals {
        refused: 0,
        cancelled: 1,
        cancels: 2,
        detached: 1,
        closed_ok: 6,
        reset: 2,
        reset_by_detach: 2,
        bytes_sent: 750,
        bytes_echoed: 650,
        ..outcome.totals
    };
    outcome.report.app_workers[0].outcomes.cleaned = 5;
    let mut detach = worker_report();
    // Another one than that of the detach at the end.
    detach.app_worker = hoststack::app::AppWorkerId(SessionHandle::from_u64(2).session().0);
    (detach.half_opens, detach.sessions, detach.outcomes.cleaned) = (1, 2, 5);
    outcome.detach = Some(detach);
    let summary = Summary::new(&args, &outcome, &Answer::default(), &[], 1);
    (args, summary)
}

#[test]
fn what_was_cancelled_and_detached_is_no_fault_if_it_was_asked_for() {
    let (asked, summary) = cut_off();
    assert_eq!(summary.verdict(&asked), Ok(()));
    let unasked = summary.verdict(&args("--sessions 10 --bytes 100")).unwrap_err();
    assert!(unasked.contains("8 of 10 sessions connected"), "{unasked}");
    let uncancelled = summary.verdict(&args("--sessions 10 --bytes 100 --detach-at 50%")).unwrap_err();
    assert!(uncancelled.contains("8 of 9 sessions connected"), "{uncancelled}");

    let short = Summary { bytes_echoed: 599, ..summary.clone() };
    assert_eq!(short.verdict(&asked), Err("599 of 600 bytes came back".to_owned()));
    let more = Summary { bytes_echoed: 751, ..summary.clone() };
    assert!(more.verdict(&asked).is_err(), "more than was sent");
    let lost = Summary { closed: 5, ..summary.clone() };
    assert_eq!(lost.verdict(&asked), Err("5 of 6 sessions ended as they should".to_owned()));
    let refused = Summary { connected: 7, refused: 1, ..summary.clone() };
    assert!(refused.verdict(&asked).is_err());
    let not_cleaned = Summary { half_opens_cleaned: 9, ..summary };
    assert!(not_cleaned.verdict(&asked).is_err());
}

#[test]
fn text_tells_of_cancels_and_of_the_detach() {
    let text = cut_off().1.text();
    for part in [
        "10 requested, 8 connected, 6 closed, 1 cancelled, 1 detached, 2 reset by the detach",
        "2 asked for, 1 of them before another outcome",
        "behind connect 5, with 1 half-opens pending and 2 sessions",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let text = summary(10, &Answer::default()).text();
    assert!(!text.contains("cancels") && !text.contains("detach"), "{text}");
}

#[test]
fn the_detach_comes_behind_the_share_of_connects_and_at_least_the_first() {
    let detach_at = |text: &str| args(text).detach_at();
    assert_eq!(detach_at("--sessions 200 --detach-at 50%"), Some(100));
    assert_eq!(detach_at("--sessions 200 --detach-at 50"), Some(100));
    assert_eq!(detach_at("--sessions 7 --detach-at 50"), Some(4));
    assert_eq!(detach_at("--sessions 7 --detach-at 0"), Some(1));
    assert_eq!(detach_at("--sessions 7 --detach-at 100"), Some(7));
    assert_eq!(detach_at("--sessions 0 --detach-at 50"), None);
    assert_eq!(detach_at("--sessions 7"), None);
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
    assert!(refused("--cancel 101"));
    assert!(refused("--detach-at x"));
    assert!(refused("--waves 0"));
    let device = "--device tap:a --address 10.0.0.1/24 --address fd00::1/64 --peer 10.0.0.2:7";
    assert!(!refused(device));
    assert!(!refused(&format!("{device} --cancel 20 --detach-at 50%")));
}
