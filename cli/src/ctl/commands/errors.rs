//! Commands about what was dropped and what is held.

use hoststack::inspect::WorkerInfo;
use hoststack::{Leaks, Query};
use serde_json::{Value, json};

use super::{Spec, workers};
use crate::ctl::console::{Output, Show};
use crate::ctl::format;

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "show errors",
        help: "why packets and segments were dropped, by reason",
        run: |console, _| Output::one(Errors(console.ask(Query::Summary)?.workers)),
        sample: || Box::new(Errors(vec![workers::sample()])),
        ..Spec::BASE
    },
    Spec {
        pattern: "show leaks",
        help: "what is held now: all zero when no app is attached; TIME-WAIT apart",
        run: |console, _| {
            let answer = console.ask(Query::Summary)?;
            Output::one(Held { leaks: answer.leaks, time_wait: answer.time_wait })
        },
        sample: || Box::new(Held { leaks: Leaks::default(), time_wait: 7 }),
        ..Spec::BASE
    },
];

struct Errors(Vec<WorkerInfo>);

impl Show for Errors {
    fn text(&self) -> String {
        format::errors(&self.0)
    }

    fn json(&self) -> Value {
        format::errors_json(&self.0)
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
