use super::super::grammar::parse;
use super::*;
use hoststack::inspect::SessionSummary;

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

fn shown(command: &str, format: Format) -> String {
    answer(&parse(command).unwrap(), &two_sessions(), format)
}

#[test]
fn sessions_are_summed_up_and_a_list_that_is_cut_short_says_so() {
    assert_eq!(
        shown("show session", Format::Text),
        "2 sessions: 1 open, 0 peer closed, 0 half closed, 1 closing, 0 ended, 0 not announced; 7 in TIME-WAIT\n"
    );
    assert!(shown("show session limit 5", Format::Text).ends_with("(0 of 2: `limit N` lists more)\n"));
    let json: Value = serde_json::from_str(&shown("show session", Format::Json)).unwrap();
    assert_eq!(json["summary"]["open"], 1);
    assert_eq!(json["sessions"], json!([]));
}

#[test]
fn workers_stand_beside_each_other_with_the_counters_of_all() {
    let text = shown("show worker", Format::Text);
    let line =
        |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().split_whitespace().last();
    assert_eq!(line("number"), Some("1"));
    assert_eq!(line("tcp segments_in"), Some("11"));
    assert!(text.contains("1 234 567"));
    let json: Value = serde_json::from_str(&shown("show worker", Format::Json)).unwrap();
    assert_eq!(json["workers"][1]["worker"], 1);
    assert_eq!(json["main"]["tuples"], 0);
}

#[test]
fn errors_have_their_reason_and_meaning() {
    let text = shown("show errors", Format::Text);
    assert_eq!(text.lines().nth(1), Some("     0      3  no-flow  no one listens"));
    let json: Value = serde_json::from_str(&shown("show errors", Format::Json)).unwrap();
    assert_eq!(
        json["errors"][1],
        json!({ "worker": 1, "reason": "no-flow", "count": 3, "help": "no one listens" })
    );
    assert_eq!(answer(&Command::ShowErrors, &Answer::default(), Format::Text), "nothing was dropped\n");
}

#[test]
fn leaks_say_whether_there_are_any() {
    assert!(leaks(&Leaks::default(), 3).starts_with("nothing is held\n"));
    let held = leaks(&Leaks { timers: 2, ..Leaks::default() }, 0);
    assert!(held.starts_with("held") && held.contains("timers           2\n"), "{held}");
    let json: Value = serde_json::from_str(&shown("show leaks", Format::Json)).unwrap();
    assert_eq!(
        (&json["clean"], &json["time_wait"], &json["leaks"]["flows"]),
        (&json!(true), &json!(7), &json!(0))
    );
}

#[test]
fn an_empty_stack_says_so_in_words() {
    assert_eq!(answer(&Command::ShowApp, &Answer::default(), Format::Text), "no application is attached\n");
    assert_eq!(
        answer(&Command::ShowHalfOpen { limit: 100 }, &Answer::default(), Format::Text),
        "0 half-open sessions, 0 half-open connections\n"
    );
}
