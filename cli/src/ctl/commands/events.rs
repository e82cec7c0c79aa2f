//! `show events`: what changed, and what changes now.

use std::time::Duration;

use hoststack::Query;
use hoststack::inspect::{AppName, EVENTS_PER_ANSWER, EventCursor, EventInfo, EventsAnswer, EventsQuery};
use serde_json::Value;

use super::{LIMIT, Spec, to_value};
use crate::ctl::console::{CommandError, Console, Output, Show, Wait};
use crate::ctl::grammar::Matched;
use crate::ctl::show::events as show;

/// How often who follows looks again.
const LOOK: Duration = Duration::from_millis(200);

pub(super) const COMMANDS: &[Spec] = &[Spec {
    pattern: "show events [session HANDLE] [connect CONNECT] [app NAME] [limit N] [follow]",
    help: "the last state changes of sessions, connects, listeners and applications, 100 unless said otherwise",
    details: "Each thread keeps its last changes in a ring, so that old ones are overwritten. A connect's are also those of the \
              session that came of it, and the other way round. With `follow` (or `--follow`) later ones are shown as they come, \
              until Ctrl-C; in JSON each answer is then a document on a line of its own, and `next` is a place to go on from.",
    options: &[
        ("session HANDLE", "of this session, also when it has ended"),
        ("connect CONNECT", "of this connect"),
        ("app NAME", "of the application's app workers, or of one of them: `echo/0`"),
        ("limit N", "so many of the last ones; 1024 at most"),
        ("follow", "and go on with what happens from now on"),
    ],
    run: show_events,
    sample: || Box::new(Events { answer: sample(), is_first: true, is_all: true }),
    ..Spec::BASE
}];

fn show_events(console: &mut Console<'_>, matched: &Matched) -> Result<Output, CommandError> {
    let mut query = EventsQuery {
        session: matched.session("session"),
        connect: matched.connect("connect"),
        app: matched.text("app").map(AppName::from),
        limit: matched.count("limit").unwrap_or(LIMIT),
        ..EventsQuery::default()
    };
    let is_all = !matched.has("follow");
    let mut shown = Events { answer: ask(console, query.clone())?, is_first: true, is_all };
    if is_all {
        return Output::one(shown);
    }
    query.limit = EVENTS_PER_ANSWER;
    loop {
        console.part(&shown)?;
        let is_all = shown.answer.events.len() < EVENTS_PER_ANSWER;
        let mut after = shown.answer.next;
        loop {
            // A full answer may have left some out.
            if is_all && console.wait(LOOK)? == Wait::Enough {
                return Ok(Output::Streamed);
            }
            let answer = ask(console, EventsQuery { after: Some(after), ..query.clone() })?;
            if answer.lost > 0 || !answer.events.is_empty() {
                shown = Events { answer, is_first: false, is_all: false };
                break;
            }
            after = answer.next;
        }
    }
}

fn ask(console: &Console<'_>, query: EventsQuery) -> Result<EventsAnswer, CommandError> {
    let events = console.ask(Query::Events(Box::new(query)))?.events;
    events.ok_or_else(|| CommandError::failed("the stack gave no answer, which is a bug: please report it"))
}

/// The last events of a session, its connect's among them.
pub(super) fn of_session(
    console: &Console<'_>,
    session: hoststack::app::SessionHandle,
) -> Result<EventsAnswer, CommandError> {
    ask(console, EventsQuery { session: Some(session), limit: LAST, ..EventsQuery::default() })
}

/// Events that are shown with a session.
const LAST: usize = 20;

struct Events {
    answer: EventsAnswer,
    is_first: bool,
    /// Whether nothing follows.
    is_all: bool,
}

impl Show for Events {
    fn text(&self) -> String {
        let heading = if self.is_first { show::heading() } else { String::new() };
        let none = self.is_all && self.answer.events.is_empty() && self.answer.lost == 0;
        heading + if none { "no such event is remembered\n" } else { "" } + &show::text(&self.answer)
    }

    fn json(&self) -> Value {
        to_value(&self.answer)
    }

    fn headings(&self) -> usize {
        usize::from(self.is_first)
    }
}

/// An event, all fields set.
pub(super) fn sample() -> EventsAnswer {
    let event = EventInfo {
        number: 9,
        thread: "w0".to_owned(),
        at_us: 75_000_001,
        event: "closed",
        session: Some("0:17.1".to_owned()),
        connect: Some("257#12".to_owned()),
        app_worker: Some("load/0".to_owned()),
        detail: Some("2".to_owned()),
        cause: Some("reset by the peer".to_owned()),
    };
    EventsAnswer { events: vec![event], next: EventCursor(vec![10, 4]), lost: 0 }
}
