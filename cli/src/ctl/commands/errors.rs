//! Commands about what was dropped and what is held.

use hoststack::inspect::Clear;
use hoststack::{Answer, Leaks, Query};
use serde_json::{Value, json};

use super::{Spec, workers};
use crate::ctl::console::{Output, Show};
use crate::ctl::format;
use crate::ctl::show::errors::Errors;

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "show errors [nonzero]",
        help: "why packets, segments and connections were dropped, by reason, with what each reason means",
        options: &[("nonzero", "only the reasons that struck")],
        run: |console, matched| {
            let answer = console.ask(Query::Status)?;
            Output::one(Dropped { errors: Errors::of(&answer.workers, matched.has("nonzero")), answer })
        },
        sample: || {
            let answer = workers::sample();
            Box::new(Dropped { errors: Errors::of(&answer.workers, true), answer })
        },
        ..Spec::BASE
    },
    Spec {
        pattern: "show leaks",
        help: "what is held now: all zero when no app is attached; TIME-WAIT apart",
        details: "`flows` are flow table entries and 4-tuples, `messages` those between threads that nobody has handled, `parked segments` \
                  wait for the hand-over of their flow, `listeners` are on workers though main has given them up.",
        run: |console, _| {
            let answer = console.ask(Query::Summary)?;
            Output::one(Held { leaks: answer.leaks, time_wait: answer.time_wait })
        },
        sample: || Box::new(Held { leaks: Leaks::default(), time_wait: 7 }),
        ..Spec::BASE
    },
];

struct Dropped {
    errors: Errors,
    answer: Answer,
}

impl Show for Dropped {
    fn text(&self) -> String {
        self.errors.text() + &workers::since(&self.answer, Clear::Errors)
    }

    fn json(&self) -> Value {
        json!({ "errors": self.errors.errors, "since": self.answer.since })
    }

    fn headings(&self) -> usize {
        match &self.errors.errors[..] {
            [] => 0,
            // The workers' numbers.
            [first, ..] if first.workers.len() > 1 => 2,
            _ => 1,
        }
    }
}

struct Held {
    leaks: Leaks,
    time_wait: usize,
}

impl Show for Held {
    fn text(&self) -> String {
        format::leaks(&self.leaks, self.time_wait)
    }

    fn json(&self) -> Value {
        json!({ "leaks": self.leaks, "clean": self.leaks.is_clean(), "time_wait": self.time_wait })
    }
}
