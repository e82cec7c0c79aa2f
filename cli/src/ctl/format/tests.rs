use super::*;
use hoststack::inspect::{ListenerInfo, SessionInfo, SessionSummary};

fn worker(number: u8) -> WorkerInfo {
    WorkerInfo {
        worker: number,
        steps: 1_234_567,
        tcp: vec![("segments_in".to_owned(), 10 + u64::from(number))],
        drops: vec![DropInfo { reason: "no-flow".to_owned(), count: 3, help: "no one listens".to_owned() }],
        ..WorkerInfo::default()
    }
}

fn two_sessions() -> Answer {
    Answer {
        workers: vec![worker(0), worker(1)],
        session_summary: SessionSummary { total: 2, open: 1, closing: 1, ..SessionSummary::default() },
        time_wait: 7,
        ..Answer::default()
    }
}

#[test]
fn sessions_are_summed_up_and_a_list_that_is_cut_short_says_so() {
    assert_eq!(
        sessions(&two_sessions(), false, 0),
        "2 sessions: 1 open, 0 peer closed, 0 half closed, 1 closing, 0 ended, 0 not announced; 7 in TIME-WAIT\n"
    );
    assert!(sessions(&two_sessions(), false, 5).ends_with("(0 of 2: `limit N` lists more)\n"));
}

#[test]
fn workers_stand_beside_each_other_with_the_counters_of_all() {
    let Answer { workers: all, main, .. } = two_sessions();
    let text = workers(&all, &main);
    let line =
        |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().split_whitespace().last();
    assert_eq!(line("number"), Some("1"));
    assert_eq!(line("tcp segments_in"), Some("11"));
    assert!(text.contains("1 234 567"));
}

#[test]
fn errors_have_their_reason_and_meaning() {
    let text = errors(&two_sessions().workers);
    assert_eq!(text.lines().nth(1), Some("     0      3  no-flow  no one listens"));
    assert_eq!(
        errors_json(&two_sessions().workers)["errors"][1],
        json!({ "worker": 1, "reason": "no-flow", "count": 3, "help": "no one listens" })
    );
    assert_eq!(errors(&[]), "nothing was dropped\n");
}

#[test]
fn leaks_say_whether_there_are_any() {
    assert!(leaks(&Leaks::default(), 3).starts_with("nothing is held\n"));
    let held = leaks(&Leaks { timers: 2, ..Leaks::default() }, 0);
    assert!(held.starts_with("held") && held.contains("timers           2\n"), "{held}");
}

#[test]
fn an_empty_stack_says_so_in_words() {
    assert_eq!(apps(&[]), "no application is attached\n");
    assert_eq!(half_opens(&Answer::default()), "0 half-open sessions, 0 half-open connections\n");
}

fn session(json: Value) -> SessionInfo {
    let mut info = SessionInfo::default();
    info.session = "0:1.1".into();
    info.app_worker = "echo/0".into();
    info.protocol = "kernel+tcp";
    info.local = "127.0.0.1:80".into();
    info.remote = "127.0.0.1:5000".into();
    info.declared = json["declared"].as_str().unwrap_or_default().to_owned();
    info.stage = json["stage"].as_str().map(|_| "PROXY header to receive");
    info.state = "open/open".into();
    info.transport = json["transport"].as_str().unwrap_or_default().to_owned();
    info
}

#[test]
fn a_session_is_shown_with_its_transport_and_whom_its_header_declared() {
    let with = |session: SessionInfo| Answer { sessions: vec![session], ..Answer::default() };
    let declared = with(session(json!({ "declared": "192.0.2.1:5->192.0.2.2:6", "transport": "fd 5" })));
    let text = sessions(&declared, false, 1);
    let lines: Vec<&str> = text.lines().collect();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        words(lines[1]),
        [
            "session",
            "app",
            "worker",
            "transport",
            "dom",
            "local",
            "remote",
            "declared",
            "state",
            "rx",
            "tx",
            "age"
        ]
    );
    assert_eq!(
        words(lines[2])[..8],
        [
            "0:1.1",
            "echo/0",
            "kernel+tcp",
            "0",
            "127.0.0.1:80",
            "127.0.0.1:5000",
            "192.0.2.1:5->192.0.2.2:6",
            "open/open"
        ]
    );
    assert_eq!(lines.len(), 3, "{text}");
    let verbose = sessions(&declared, true, 100);
    assert!(verbose.ends_with("\n    fd 5\n"), "{verbose}");
    // One that waits says for what, without being asked for more.
    let waiting = sessions(&with(session(json!({ "stage": "proxy" }))), false, 1);
    assert!(
        waiting.ends_with("\n    not announced: waits in the stage \"PROXY header to receive\"\n"),
        "{waiting}"
    );
    assert_eq!(words(waiting.lines().nth(2).unwrap())[6], "-");
}

#[test]
fn half_opens_are_shown_with_their_transport() {
    let half_open = HalfOpenInfo {
        connect: "0#1".into(),
        app_worker: "fetch/0".into(),
        protocol: "kernel+unix",
        domain: 0,
        local: "0.0.0.0:0".into(),
        remote: "kernel+unix:///run/a".into(),
        state: "connecting".into(),
        worker: 0,
        attempts: 2,
        age_us: 1000,
        deadline_in_us: 2_000_000,
    };
    let shown = Answer { half_opens: vec![half_open], ..Answer::default() };
    let text = half_opens(&shown);
    assert!(text.lines().nth(1).unwrap().contains("transport"), "{text}");
    assert!(text.contains("kernel+unix  "), "{text}");
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
