//! Commands about half-opens: lists, one with all that is known, and their end.

use hoststack::app::ConnectId;
use hoststack::inspect::{Filter, HalfOpenInfo, HalfOpenQuery, MainInfo};
use hoststack::{Answer, Query};
use serde_json::{Value, json};

use super::filter::{filter, without};
use super::{LIMIT, PAGE, Spec};
use crate::ctl::console::{CommandError, Console, Level, Output, Show};
use crate::ctl::grammar::Matched;
use crate::ctl::show::sessions as show;

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "show half-open [CONNECT] [FILTER] [limit N] [count] [all]",
        help: "connects without an outcome, 100 of them unless said otherwise, or one with all that is known",
        details: "`ticket` says who decides the outcome, `tries` how many attempts there were over all addresses and ports, `sent` how \
                  many SYNs went out in the one under way. A row that begins with `!` cannot go on by itself, which is a fault of \
                  the stack.",
        options: &[
            ("CONNECT", "this one"),
            ("limit N", "list so many of them"),
            ("count", "count all that fit"),
            ("all", "list all, in pages of a thousand; in JSON each page is a document on a line of its own"),
        ],
        run: show_half_opens,
        sample: || Box::new(Page { answer: sample(), has_more: true }),
        ..Spec::BASE
    },
    Spec {
        pattern: "half-open cancel [CONNECT] [FILTER] [all]",
        help: "cancel connects: their apps are told so, unless another outcome was decided first",
        details: "Which connects must be said: a connect, a filter, or `all`.",
        options: &[("CONNECT", "this one"), ("all", "every half-open of the stack")],
        level: Level::Operator,
        run: cancel,
        sample: || Box::new(Cancelled { cancelled: 1, too_late: 1 }),
    },
];

fn query(filter: Filter, limit: usize, count: bool) -> HalfOpenQuery {
    HalfOpenQuery { filter, limit, count, ..HalfOpenQuery::default() }
}

fn show_half_opens(console: &mut Console<'_>, matched: &Matched) -> Result<Output, CommandError> {
    if let Some(connect) = matched.connect("CONNECT") {
        without(matched, "CONNECT")?;
        return Output::one(One(Box::new(find(console, connect)?)));
    }
    let all = matched.has("all");
    let limit = if all { PAGE } else { matched.count("limit").unwrap_or(LIMIT) };
    let mut query = query(filter(matched), limit, matched.has("count"));
    loop {
        let answer = console.ask(Query::HalfOpens(Box::new(query.clone())))?;
        let next = answer.half_opens_next;
        let is_nothing = answer.half_opens.is_empty() && query.after.is_none() && next.is_none();
        let page = Page { answer, has_more: next.is_some() };
        if !all || is_nothing {
            return Output::one(page);
        }
        console.part(&Streamed(page))?;
        if next.is_none() {
            return Ok(Output::Streamed);
        }
        query = HalfOpenQuery { after: next, count: false, ..query };
    }
}

fn find(console: &Console<'_>, connect: ConnectId) -> Result<HalfOpenInfo, CommandError> {
    let found = console.ask(Query::HalfOpen(connect))?.half_opens.pop();
    found.ok_or_else(|| {
        CommandError::failed(format!(
            "there is no half-open of connect {connect}: its outcome was told, or it never was; `show half-open` lists them"
        ))
    })
}

fn cancel(console: &mut Console<'_>, matched: &Matched) -> Result<Output, CommandError> {
    if let Some(connect) = matched.connect("CONNECT") {
        without(matched, "CONNECT")?;
        find(console, connect)?;
        return match console.stack.cancel(connect) {
            Ok(()) => Output::one(Cancelled { cancelled: 1, too_late: 0 }),
            Err(error) => Err(CommandError::failed(format!("{connect}: {error}"))),
        };
    }
    let filter = filter(matched);
    if filter == Filter::default() && !matched.has("all") {
        return Err(CommandError::failed(
            "say which: `half-open cancel CONNECT`, `half-open cancel remote 192.0.2.1`, ... or `half-open cancel all`",
        ));
    }
    let (mut cancelled, mut too_late) = (0, 0);
    let mut query = query(filter, PAGE, false);
    loop {
        let answer = console.ask(Query::HalfOpens(Box::new(query.clone())))?;
        let ids = answer.half_opens.iter().map(|half_open| ConnectId::from_u64(half_open.connect_id));
        // All are asked for before the first answer is waited for.
        let asked: Vec<_> = ids.map(|id| console.stack.requests().cancel(id)).collect();
        for waiting in asked {
            match waiting.wait() {
                Ok(()) => cancelled += 1,
                // An outcome was decided first.
                Err(_) => too_late += 1,
            }
        }
        match answer.half_opens_next {
            Some(next) => query.after = Some(next),
            None => return Output::one(Cancelled { cancelled, too_late }),
        }
    }
}

struct Page {
    answer: Answer,
    has_more: bool,
}

impl Show for Page {
    fn text(&self) -> String {
        let Answer { main, half_opens, matched, .. } = &self.answer;
        let mut text = show::half_open_summary(main.half_open_sessions, main.half_open_connections);
        text.push_str(&show::half_open_rows(half_opens));
        match (half_opens.len(), matched) {
            (listed, Some(_)) => text.push_str(&show::more(listed, *matched, None)),
            (0, None) if main.half_open_sessions > 0 && !self.has_more => text.push_str("none of them fits\n"),
            (listed, None) if self.has_more => text.push_str(&format!(
                "({listed} listed, and there are more: `limit N` lists more, `all` lists all, `count` counts)\n"
            )),
            (_, None) => {}
        }
        text
    }

    fn json(&self) -> Value {
        let Answer { main, half_opens, matched, .. } = &self.answer;
        json!({
            "total": main.half_open_sessions,
            "half_opens": half_opens,
            "matched": matched,
            "has_more": self.has_more,
        })
    }

    fn headings(&self) -> usize {
        2
    }
}

struct Streamed(Page);

impl Show for Streamed {
    fn text(&self) -> String {
        show::half_open_rows(&self.0.answer.half_opens)
    }

    fn json(&self) -> Value {
        self.0.json()
    }
}

struct One(Box<HalfOpenInfo>);

impl Show for One {
    fn text(&self) -> String {
        show::one_half_open(&self.0)
    }

    fn json(&self) -> Value {
        json!({ "half_opens": [*self.0] })
    }

    fn headings(&self) -> usize {
        0
    }
}

struct Cancelled {
    cancelled: usize,
    too_late: usize,
}

impl Show for Cancelled {
    fn text(&self) -> String {
        let late = match self.too_late {
            0 => String::new(),
            count => format!("; {count} had an outcome already"),
        };
        let connects = if self.cancelled == 1 { "connect is" } else { "connects are" };
        format!("{} {connects} cancelled{late}\n", self.cancelled)
    }

    fn json(&self) -> Value {
        json!({ "cancelled": self.cancelled, "too_late": self.too_late })
    }
}

/// A half-open, all fields set.
fn sample() -> Answer {
    let half_open = HalfOpenInfo {
        connect: "257#12".to_owned(),
        connect_id: 257 << 48 | 12,
        app_worker: "load/0".to_owned(),
        protocol: "tcp",
        domain: 0,
        local: "10.9.0.2:49152".to_owned(),
        remote: "10.9.0.1:80".to_owned(),
        state: "connecting".to_owned(),
        worker: 0,
        attempts: 2,
        age_us: 1_500_000,
        deadline_in_us: 28_500_000,
        next_retransmission_in_us: Some(1_500_000),
        holder: "main".to_owned(),
        tries: 1,
        alternatives_left: 1,
        rounds_left: 0,
        is_waiting: false,
        soft_error: Some("unreachable".to_owned()),
        stages: vec!["PROXY header to send"],
        early_bytes: 12,
        opaque: 7,
        fault: Some("its outcome is not told, beyond its deadline"),
    };
    Answer {
        half_opens: vec![half_open],
        matched: Some(1),
        main: MainInfo { half_open_sessions: 1, half_open_connections: 1, ..MainInfo::default() },
        ..Answer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_open_says_who_decides_and_when_it_is_tried_again() {
        let answer = sample();
        let rows = show::half_open_rows(&answer.half_opens);
        let cells: Vec<&str> = rows.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert!(cells.starts_with(&["!", "257#12", "load/0"]) && cells.contains(&"main"), "{rows}");
        let one = show::one_half_open(&answer.half_opens[0]);
        assert!(one.contains("last soft error") && one.contains("unreachable"), "{one}");
        assert!(one.contains("NO: its outcome is not told"), "{one}");
        assert!(Page { answer, has_more: true }.text().ends_with("(1 of 1 that fit)\n"));
        let none =
            Page { answer: Answer { half_opens: Vec::new(), matched: None, ..sample() }, has_more: false };
        assert!(none.text().ends_with("connections\nnone of them fits\n"), "{}", none.text());
        let more = Page { answer: Answer { matched: None, ..sample() }, has_more: true };
        assert!(more.text().contains("`limit N` lists more"), "{}", more.text());
    }
}
