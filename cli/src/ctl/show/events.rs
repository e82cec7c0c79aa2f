//! `show events`: state changes, a line each. As JSON the answer is [`EventsAnswer`] itself.

use hoststack::inspect::{EventInfo, EventsAnswer};

use crate::plain;

/// Widths of the columns: fixed, so that the pages of a follower stand under each other.
const TIME: usize = 13;
const THREAD: usize = 5;
const EVENT: usize = 20;
const SUBJECT: usize = 16;

/// The heading of the columns.
pub(crate) fn heading() -> String {
    line(["time", "on", "event", "session", "connect", "app-worker", "detail", "cause"].map(str::to_owned))
}

/// The events of an answer, without the heading, and what was lost before them.
pub(crate) fn text(answer: &EventsAnswer) -> String {
    let mut text = match answer.lost {
        0 => String::new(),
        1 => "1 event was overwritten before it could be shown\n".to_owned(),
        lost => format!("{lost} events were overwritten before they could be shown\n"),
    };
    text.extend(answer.events.iter().map(row));
    text
}

fn row(event: &EventInfo) -> String {
    let EventInfo { number: _, thread, at_us, event, session, connect, app_worker, detail, cause } = event;
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    line([
        time(*at_us),
        thread.clone(),
        (*event).to_owned(),
        or_dash(session),
        or_dash(connect),
        or_dash(app_worker),
        or_dash(detail),
        cause.clone().unwrap_or_default(),
    ])
}

/// Columns beside each other; what is too long for its own moves the rest of its line.
fn line(cells: [String; 8]) -> String {
    // Names in it are others': an event stays a line.
    let [time, thread, event, session, connect, app_worker, detail, cause] =
        cells.map(|cell| plain::line(&cell).into_owned());
    let line = format!(
        "{time:>TIME$}  {thread:<THREAD$} {event:<EVENT$} {session:<SUBJECT$} {connect:<SUBJECT$} {app_worker:<SUBJECT$} \
         {detail:<SUBJECT$} {cause}"
    );
    format!("{}\n", line.trim_end())
}

/// Seconds since the stack began, to the microsecond.
fn time(at_us: u64) -> String {
    format!("{}.{:06}", at_us / 1_000_000, at_us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use hoststack::inspect::EventCursor;

    use super::*;

    fn answer() -> EventsAnswer {
        let requested = EventInfo {
            number: 3,
            thread: "main".into(),
            at_us: 1_000_250,
            event: "requested",
            connect: Some("257#1".into()),
            app_worker: Some("load/0".into()),
            ..EventInfo::default()
        };
        let closed = EventInfo {
            number: 9,
            thread: "w1".into(),
            at_us: 75_000_001,
            event: "closed",
            session: Some("1:12.3".into()),
            app_worker: Some("load/0".into()),
            cause: Some("reset by the peer".into()),
            ..EventInfo::default()
        };
        EventsAnswer { events: vec![requested, closed], next: EventCursor(vec![0, 10, 4]), lost: 0 }
    }

    #[test]
    fn an_event_is_a_line_with_its_columns_under_the_heading() {
        let shown = heading() + &text(&answer());
        let expected = "         time  on    event                session          connect          app-worker       detail           cause
     1.000250  main  requested            -                257#1            load/0           -
    75.000001  w1    closed               1:12.3           -                load/0           -                reset by the peer
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_name_with_a_line_feed_begins_no_line() {
        let mut named = answer();
        named.events[0].detail = Some("local://a\nb\u{1b}[2J".into());
        let shown = text(&named);
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(shown.contains(r"local://a\u{a}b\u{1b}[2J"), "{shown}");
    }

    #[test]
    fn what_was_lost_is_said_first() {
        let lost = |lost| text(&EventsAnswer { lost, events: Vec::new(), ..answer() });
        assert_eq!(lost(0), "");
        assert_eq!(lost(1), "1 event was overwritten before it could be shown\n");
        assert!(lost(12).starts_with("12 events were"));
    }

    #[test]
    fn as_json_an_event_leaves_out_what_it_does_not_have() {
        let json = serde_json::to_value(answer()).unwrap();
        assert_eq!(json["next"], serde_json::json!([0, 10, 4]));
        assert_eq!(
            json["events"][1],
            serde_json::json!({
                "number": 9, "thread": "w1", "at_us": 75_000_001, "event": "closed", "session": "1:12.3",
                "app_worker": "load/0", "cause": "reset by the peer",
            })
        );
        assert_eq!(json["events"][0].get("session"), None);
    }
}
