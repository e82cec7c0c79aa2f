use super::*;
use hoststack::app::{AppId, AppWorkerId, HalfOpenCounters, Key, ListenerId};
use hoststack::inspect::{AppWorkerInfo, ListenerInfo};

#[test]
fn leaks_say_whether_there_are_any() {
    assert!(leaks(&Leaks::default(), 3).starts_with("nothing is held\n"));
    let held = leaks(&Leaks { timers: 2, ..Leaks::default() }, 0);
    assert!(held.starts_with("held") && held.contains("timers           2\n"), "{held}");
}

#[test]
fn an_empty_stack_says_so_in_words() {
    assert_eq!(apps(&[]), "no application is attached\n");
}

#[test]
fn an_app_shows_how_each_of_its_connects_ended() {
    let key = Key { slot: 0, generation: 0 };
    let app_worker = AppWorkerInfo {
        unit: 0,
        state: "attached".into(),
        half_opens: 0,
        sessions: vec![1],
        listeners: Vec::new(),
        outcomes: Outcomes(HalfOpenCounters {
            requested: 28,
            established: 1,
            detached: 7,
            cancelled: 20,
            ..HalfOpenCounters::default()
        }),
        id: AppWorkerId(key),
    };
    let app = AppInfo {
        app: "app0.0".into(),
        name: "load".into(),
        detaching: false,
        app_workers: vec![app_worker],
        id: AppId(key),
    };
    let text = apps(&[app]);
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let cell = |name: &str| lines[1][lines[0].iter().position(|heading| *heading == name).expect(name)];
    let cells = ["requested", "established", "cancelled", "detached", "failed", "listeners"].map(cell);
    assert_eq!(cells, ["28", "1", "20", "7", "0", "-"], "{text}");
}

#[test]
fn listeners_are_shown_as_uris_with_what_they_wait_for() {
    let listener = |address: &str, stages: Vec<&'static str>, worker| ListenerInfo {
        address: address.into(),
        app_worker: "echo/0".into(),
        domain: 0,
        worker,
        is_up: true,
        stages,
        stage_timeout_us: 10_000_000,
        id: ListenerId(Key { slot: 0, generation: 0 }),
        app_worker_id: AppWorkerId(Key { slot: 0, generation: 0 }),
    };
    let mut shown = Answer {
        listeners: vec![
            listener("kernel+tcp://127.0.0.1:80", vec!["PROXY header to receive"], None),
            listener("local://echo", vec![], Some(1)),
        ],
        ..Answer::default()
    };
    shown.main.listeners = 3;
    let text = listeners(&shown);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "3 listeners");
    assert!(lines[2].starts_with("kernel+tcp://127.0.0.1:80  echo/0"), "{text}");
    assert!(
        lines[2].ends_with(&format!("PROXY header to receive (within {})", span_us(10_000_000))),
        "{text}"
    );
    let last: Vec<&str> = lines[3].split_whitespace().collect();
    assert_eq!(last, ["local://echo", "echo/0", "0", "1", "up", "-"]);
    assert_eq!(lines[4], "(2 of 3: `limit N` lists more)");
}
