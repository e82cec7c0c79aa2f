//! Commands about workers and main: what they did and hold, what they counted.

use hoststack::inspect::{Clear, DropInfo, MainInfo, PaceInfo, StageInfo, WorkerInfo};
use hoststack::{Answer, Query};
use serde_json::{Value, json};

use super::network::sample as network;
use super::{Shown, Spec};
use crate::ctl::console::{Console, Level, Output};
use crate::ctl::show::workers::{Counters, MainThread, Workers};
use crate::table::span_us;

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "show worker",
        help: "what each worker did and holds, how busy it is, and where the time of its steps goes",
        details: "A step that did something is busy; load is the share of the time that busy steps took. `packets at a time` are the \
                  mean of what a device gave or took at once. `establishing` are sessions that their apps were not told of yet, `parked \
                  segments` wait for the hand-over of their flow. What is held now, from `sessions` on, is no count, and `clear counters` \
                  leaves it alone.",
        run: |console, _| Output::one(workers(console.ask(Query::Summary)?)),
        sample: || Box::new(workers(sample())),
        ..Spec::BASE
    },
    Spec {
        pattern: "show main",
        help: "what main did and holds, how busy it is, and where the time of its steps goes",
        details: "`messages waiting` are those between threads that nobody has handled. `connects orphaned` found their app worker gone when \
                  they reached main. `tickets dropped` are connects that got no outcome, which is a fault of the stack: please report it.",
        run: |console, _| Output::one(main(console.ask(Query::Status)?)),
        sample: || Box::new(main(sample())),
        ..Spec::BASE
    },
    Spec {
        pattern: "show counters",
        help: "what TCP and the IP paths of the workers counted, by name; what is zero is left out",
        run: |console, _| Output::one(counters(console.ask(Query::Network { limit: 0 })?)),
        sample: || Box::new(counters(Answer { network: Some(Box::new(network())), ..sample() })),
        ..Spec::BASE
    },
    Spec {
        pattern: "clear errors|counters",
        help: "count anew from now on: drop reasons, or steps, packets, callbacks, TCP, IP and interfaces",
        details: "Only what is shown changes. What is held now stays, and so do the outcomes of connects, histograms and \
                  transports' counts, which account for each connection.",
        level: Level::Operator,
        run: |console, matched| clear(console, if matched.has("errors") { "errors" } else { "counters" }),
        sample: || Box::new(cleared("errors")),
        ..Spec::BASE
    },
];

/// Since when is counted what `clear` had counted anew; nothing if it never did.
pub(super) fn since(answer: &Answer, what: Clear) -> String {
    let (from_us, name) = match what {
        Clear::Errors => (answer.since.errors_us, "errors"),
        Clear::Counters => (answer.since.counters_us, "counters"),
    };
    match from_us {
        0 => String::new(),
        from_us => {
            format!(
                "counted since `clear {name}`, {} ago\n",
                span_us(answer.since.now_us.saturating_sub(from_us))
            )
        }
    }
}

fn workers(answer: Answer) -> Shown<Answer> {
    Shown {
        value: answer,
        text: |answer| Workers { workers: answer.workers.clone() }.text() + &since(answer, Clear::Counters),
        json: |answer| json!({ "workers": answer.workers, "main": answer.main, "since": answer.since }),
        headings: 2,
    }
}

fn main(answer: Answer) -> Shown<Answer> {
    Shown {
        value: answer,
        text: |answer| MainThread { main: answer.main.clone() }.text() + &since(answer, Clear::Counters),
        json: |answer| json!({ "main": answer.main, "since": answer.since }),
        headings: 0,
    }
}

fn counters(answer: Answer) -> Shown<Answer> {
    let of = |answer: &Answer| {
        let ip = answer.network.as_ref().map_or(&[][..], |network| &network.ip);
        Counters::of(&answer.workers, ip)
    };
    let headings = if of(&answer).text().lines().count() > 1 { 2 } else { 0 };
    Shown {
        value: answer,
        text: |answer| {
            let ip = answer.network.as_ref().map_or(&[][..], |network| &network.ip);
            Counters::of(&answer.workers, ip).text() + &since(answer, Clear::Counters)
        },
        json: |answer| {
            let ip = answer.network.as_ref().map_or(&[][..], |network| &network.ip);
            let Counters { counters, ip } = Counters::of(&answer.workers, ip);
            json!({ "counters": counters, "ip": ip, "since": answer.since })
        },
        headings,
    }
}

fn clear(console: &Console<'_>, what: &'static str) -> Result<Output, super::CommandError> {
    let clear = if what == "errors" { Clear::Errors } else { Clear::Counters };
    console.stack.clear(clear).map_err(super::CommandError::failed)?;
    Output::one(cleared(what))
}

fn cleared(what: &'static str) -> Shown<&'static str> {
    Shown {
        value: what,
        text: |what| format!("{what} are counted from now on\n"),
        json: |what| -> Value { json!({ "cleared": what }) },
        headings: 0,
    }
}

/// A worker with a counter, a drop and a measured stage; main.
pub(super) fn sample() -> Answer {
    let stage = StageInfo { stage: "receive", total_ns: 30_000, share_permille: 750 };
    let pace = PaceInfo {
        busy_us: 2_500_000,
        load_permille: 125,
        load_recent_permille: 98,
        sampled_steps: 10,
        stages: vec![stage],
    };
    let worker = WorkerInfo {
        worker: 0,
        steps: 1_234_567,
        busy_steps: 4321,
        sleeps: 99,
        rx_packets: 2000,
        rx_vectors: 800,
        tx_packets: 1900,
        tx_vectors: 790,
        pace: pace.clone(),
        tcp: vec![("segments_in".to_owned(), 1900)],
        drops: vec![DropInfo {
            reason: "no-listener".to_owned(),
            count: 3,
            help: "a SYN for a port that no one listens on".to_owned(),
        }],
        ..WorkerInfo::default()
    };
    let main = MainInfo { steps: 5000, busy_steps: 40, sleeps: 12, pace, ..MainInfo::default() };
    let mut answer = Answer { workers: vec![worker], main, ..Answer::default() };
    answer.since.now_us = 75_000_000;
    answer.since.counters_us = 12_000_000;
    answer.since.errors_us = 12_000_000;
    answer
}
