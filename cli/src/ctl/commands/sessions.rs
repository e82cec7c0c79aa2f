//! Commands about sessions: lists, one with every layer, and their end.

use hoststack::app::{ConnectionStats, Known, SessionHandle};
use hoststack::inspect::{
    AppSide, Detail, EventsAnswer, FifoInfo, LayerInfo, Order, SLOWEST_MAX, SessionDetail, SessionInfo,
    SessionQuery, SessionSummary, TransportState, Variables,
};
use hoststack::{Answer, EndHow, Query};
use serde_json::{Value, json};

use super::filter::{filter, without};
use super::{LIMIT, PAGE, PAUSE, Spec, WALK, events};
use crate::clock::rest_for;
use crate::ctl::console::{CommandError, Console, Level, Output, Show};
use crate::ctl::grammar::Matched;
use crate::ctl::show::{events as show_events, sessions as show};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "show session [HANDLE] [FILTER] [slowest] [verbose [1|2|3]] [limit N] [after HANDLE] [count] [all]",
        help: "sessions by state; a list of those that fit; or one with every layer",
        details: "Alone it counts sessions by state. With a filter, `slowest`, `verbose`, `limit` or `after` it lists those that fit, in the \
                  order of their handles, 100 of them unless said otherwise; `all` lists all, page by page. A row that begins \
                  with `!` is of a session that cannot go on by itself, which is a fault of the stack: please report it with \
                  `show session HANDLE`.",
        options: &[
            (
                "HANDLE",
                "this one, with every layer: session, fifos, what runs over it, all variables of its transport, its last events",
            ),
            (
                "slowest",
                "in the order of their smoothed round-trip times, the longest first; 100 at most, without pages",
            ),
            ("verbose [1|2|3]", "rows; with 2 also the transport's variables; with 3 every layer"),
            ("limit N", "list so many of them"),
            ("after HANDLE", "only those that come after this one in the list"),
            ("count", "count all that fit"),
            ("all", "list all, in pages of a thousand; in JSON each page is a document on a line of its own"),
        ],
        run: show_sessions,
        sample: || {
            let answer = sample();
            let session = Box::new(answer.sessions[0].clone());
            let page = Page { answer, lists: true, next: Some("0:17.1".to_owned()) };
            Box::new(Sample(page, One { session, events: events::sample() }))
        },
        ..Spec::BASE
    },
    Spec {
        pattern: "session close|reset [HANDLE] [FILTER] [all]",
        help: "close sessions once what they have queued is sent, or reset them at once",
        details: "Their apps are told as if the transport had ended them; sessions that no app was told of yet are left. Which sessions must \
                  be said: a handle, a filter, or `all`.",
        options: &[("HANDLE", "this one"), ("all", "every session of the stack")],
        level: Level::Operator,
        run: end_sessions,
        sample: || Box::new(Ended { how: "reset", sessions: 1, unannounced: 2 }),
    },
];

fn show_sessions(console: &mut Console<'_>, matched: &Matched) -> Result<Output, CommandError> {
    if let Some(handle) = matched.session("HANDLE") {
        without(matched, "HANDLE")?;
        let session = Box::new(find(console, handle)?);
        return Output::one(One { session, events: events::of_session(console, handle)? });
    }
    let detail = match matched.text("verbose") {
        Some("2") => Detail::Transport,
        Some("3") => Detail::Full,
        _ => Detail::Row,
    };
    let filter = filter(matched);
    let (count, all, slowest) = (matched.has("count"), matched.has("all"), matched.has("slowest"));
    let limit = matched.count("limit");
    let after = matched.session("after");
    if slowest && (all || after.is_some() || limit.is_some_and(|limit| limit > SLOWEST_MAX)) {
        return Err(CommandError::failed(format!(
            "of the slowest {SLOWEST_MAX} at most are listed, without pages: `limit N` with no more, and neither `all` nor `after`"
        )));
    }
    let order = if slowest { Order::Slowest } else { Order::Handle };
    let has_filter = filter != hoststack::inspect::Filter::default();
    let lists = has_filter || slowest || matched.has("verbose") || limit.is_some() || after.is_some() || all;
    let limit = if all { WALK } else { limit.unwrap_or(if lists { LIMIT } else { 0 }) };
    let mut query = SessionQuery { filter, order, after, limit, detail, count, rows_only: false };
    loop {
        let mut answer = console.ask(Query::Sessions(Box::new(query.clone())))?;
        // Counted once.
        query = SessionQuery { count: false, ..query };
        if all {
            fill(console, &mut answer, &query)?;
        }
        let next = answer.sessions_next;
        let page = Page { answer, lists, next: next.map(|next| next.to_string()) };
        if !all {
            return Output::one(page);
        }
        console.part(&Streamed(page))?;
        if next.is_none() {
            return Ok(Output::Streamed);
        }
        query.after = next;
    }
}

/// Goes on with a list, question by question, until a page is full.
fn fill(console: &Console<'_>, answer: &mut Answer, query: &SessionQuery) -> Result<(), CommandError> {
    while let Some(last) = answer.sessions_next
        && answer.sessions.len() < PAGE
    {
        // Workers, main and this thread have nothing to do now; who else wants their cores gets them at once.
        rest_for(PAUSE);
        let limit = WALK.min(PAGE - answer.sessions.len());
        let next = SessionQuery { after: Some(last), limit, rows_only: true, ..query.clone() };
        let rest = console.ask(Query::Sessions(Box::new(next)))?;
        answer.sessions.extend(rest.sessions);
        answer.sessions_next = rest.sessions_next;
    }
    Ok(())
}

/// The session of that handle, with every layer.
fn find(console: &Console<'_>, handle: SessionHandle) -> Result<SessionInfo, CommandError> {
    let found = console.ask(Query::Session(handle))?.sessions.pop();
    found.ok_or_else(|| {
        CommandError::failed(format!(
            "there is no session {handle}: it has ended, or never was; `show session limit 10` lists some"
        ))
    })
}

fn end_sessions(console: &mut Console<'_>, matched: &Matched) -> Result<Output, CommandError> {
    let (how, word) = if matched.has("close") { (EndHow::Close, "close") } else { (EndHow::Reset, "reset") };
    let end = |handle: SessionHandle| console.stack.end_session(handle, how).map_err(CommandError::failed);
    if let Some(handle) = matched.session("HANDLE") {
        without(matched, "HANDLE")?;
        if find(console, handle)?.app_side == AppSide::Unannounced {
            return Err(CommandError::failed(format!(
                "{handle} is not announced to its app yet: `half-open cancel CONNECT` ends a connect, and what came in ends when \
                 its listener's stage timeout is over"
            )));
        }
        end(handle)?;
        return Output::one(Ended { how: word, sessions: 1, unannounced: 0 });
    }
    let filter = filter(matched);
    if filter == hoststack::inspect::Filter::default() && !matched.has("all") {
        return Err(CommandError::failed(format!(
            "say which: `session {word} HANDLE`, `session {word} app NAME`, ... or `session {word} all`"
        )));
    }
    let (mut sessions, mut unannounced) = (0, 0);
    let mut query = SessionQuery { filter, limit: PAGE, ..SessionQuery::default() };
    loop {
        let answer = console.ask(Query::Sessions(Box::new(query.clone())))?;
        for session in &answer.sessions {
            if session.app_side == AppSide::Unannounced {
                unannounced += 1;
                continue;
            }
            end(session.session)?;
            sessions += 1;
        }
        match answer.sessions_next {
            Some(next) => query.after = Some(next),
            None => return Output::one(Ended { how: word, sessions, unannounced }),
        }
    }
}

/// A page of a list, under the counts by state.
struct Page {
    answer: Answer,
    lists: bool,
    next: Option<String>,
}

impl Show for Page {
    fn text(&self) -> String {
        let Answer { session_summary, time_wait, sessions, matched, .. } = &self.answer;
        let mut text = show::summary(session_summary, *time_wait);
        text.push_str(&show::rows(sessions));
        if self.lists || matched.is_some() {
            let next = self.next.as_ref().map(|next| format!("after {next}"));
            text.push_str(&show::more(sessions.len(), *matched, next.as_deref()));
        }
        text
    }

    fn json(&self) -> Value {
        let Answer { session_summary, time_wait, sessions, matched, .. } = &self.answer;
        json!({
            "summary": session_summary,
            "time_wait": time_wait,
            "sessions": sessions,
            "matched": matched,
            "next": self.next,
        })
    }

    fn headings(&self) -> usize {
        2
    }
}

/// A page of a walk over all: rows alone.
struct Streamed(Page);

impl Show for Streamed {
    fn text(&self) -> String {
        show::rows(&self.0.answer.sessions)
    }

    fn json(&self) -> Value {
        self.0.json()
    }
}

struct One {
    session: Box<SessionInfo>,
    events: EventsAnswer,
}

impl Show for One {
    fn text(&self) -> String {
        let mut text = show::one(&self.session) + "last events\n";
        for line in (show_events::heading() + &show_events::text(&self.events)).lines() {
            text.push_str(&format!("  {line}\n"));
        }
        text
    }

    fn json(&self) -> Value {
        json!({ "sessions": [*self.session], "events": self.events.events })
    }

    fn headings(&self) -> usize {
        0
    }
}

/// A list, and one session below: what the page says of both.
struct Sample(Page, One);

impl Show for Sample {
    fn text(&self) -> String {
        format!("{}\n{}", self.0.text(), self.1.text())
    }

    fn json(&self) -> Value {
        let mut json = self.0.json();
        json["events"] = json!(self.1.events.events);
        json
    }
}

struct Ended {
    how: &'static str,
    sessions: usize,
    /// Left as they are.
    unannounced: usize,
}

impl Show for Ended {
    fn text(&self) -> String {
        let done = if self.how == "close" { "being closed" } else { "reset" };
        let are = if self.sessions == 1 { "is" } else { "are" };
        let left = match self.unannounced {
            0 => String::new(),
            left => {
                format!("; {left} that no app was told of yet {} left", if left == 1 { "is" } else { "are" })
            }
        };
        format!("{} session{} {are} {done}{left}\n", self.sessions, show::plural(self.sessions))
    }

    fn json(&self) -> Value {
        json!({ "how": self.how, "sessions": self.sessions, "unannounced": self.unannounced })
    }
}

/// A session, all fields set.
pub(super) fn sample() -> Answer {
    let variables =
        |pairs: &[(&str, &str)]| Variables(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect());
    let fifo = FifoInfo { bytes: 512, capacity: 65_535, chunks: 1, ..FifoInfo::default() };
    let state = variables(&[("tls", "1.3")]);
    let detail = SessionDetail {
        opaque: 7,
        connect: Some("257#12".to_owned()),
        deadline_in_us: Some(4_000_000),
        stages: vec!["PROXY header to receive"],
        pending: vec!["readable"],
        queues: vec!["ready"],
        rx_fifo: fifo,
        tx_fifo: fifo,
        layer: Some(LayerInfo { name: "TLS", state, wire_rx: fifo, wire_tx: fifo }),
        transport: TransportState::Other("state=ESTABLISHED snd.una=1".to_owned()),
        measured: Some(ConnectionStats { known: Known::All, srtt_us: 850, ..ConnectionStats::default() }),
    };
    let mut session = show::a_session(17);
    session.declared = "192.0.2.7:1234->198.51.100.1:443".to_owned();
    session.stage = Some("PROXY header to receive");
    session.rx_bytes = 512;
    session.tx_bytes = 1024;
    session.age_us = 2_500_000;
    session.srtt_us = Some(850);
    session.fault = Some("its timer is overdue");
    session.transport = TransportState::Other("state=ESTABLISHED snd.una=1".to_owned());
    session.detail = Some(Box::new(detail));
    Answer {
        session_summary: SessionSummary { total: 1, unannounced: 1, ..SessionSummary::default() },
        sessions: vec![session],
        matched: Some(1),
        ..Answer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_a_session_that_cannot_go_on_is_marked_and_says_why() {
        let answer = sample();
        let text = show::rows(&answer.sessions);
        let lines: Vec<&str> = text.lines().collect();
        let cells: Vec<&str> = lines[1].split_whitespace().take(3).collect();
        assert_eq!(cells, ["!", "0:17.1", "echo/0"]);
        assert_eq!(lines[2], "    ! its timer is overdue");
        assert!(lines[3].contains("waits in the stage"));
        assert!(text.contains("    session layer\n") && text.contains("layer TLS"), "{text}");
        let one = show::one(&answer.sessions[0]);
        assert!(one.contains("can go on") && one.contains("NO: its timer is overdue"), "{one}");
        assert!(one.contains("  state ESTABLISHED") && one.contains("512 of 65535 bytes"), "{one}");
    }

    #[test]
    fn the_end_of_a_page_says_what_to_type() {
        let page = Page { answer: sample(), lists: true, next: Some("0:17.1".to_owned()) };
        assert!(page.text().ends_with("(1 of 1 that fit)\n"));
        let answer = Answer { matched: None, ..sample() };
        let page = Page { answer, lists: true, next: Some("0:17.1".to_owned()) };
        assert!(page.text().contains("`after 0:17.1` goes on, `all` lists all"), "{}", page.text());
    }
}
