use super::*;
use hoststack::app::{AppWorkerId, Key, ListenerId};
use hoststack::inspect::ListenerInfo;

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
