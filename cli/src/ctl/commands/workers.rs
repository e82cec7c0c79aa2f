//! Commands about workers and main.

use hoststack::Query;
use hoststack::inspect::{DropInfo, MainInfo, WorkerInfo};
use serde_json::{Value, json};

use super::Spec;
use crate::ctl::console::{Output, Show};
use crate::ctl::format;

pub(super) const COMMANDS: &[Spec] = &[Spec {
    pattern: "show worker",
    help: "what each worker and main holds and did, TCP's counters",
    run: |console, _| {
        let answer = console.ask(Query::Summary)?;
        Output::one(Workers { workers: answer.workers, main: answer.main })
    },
    sample: || Box::new(Workers { workers: vec![sample()], main: MainInfo::default() }),
    ..Spec::BASE
}];

struct Workers {
    workers: Vec<WorkerInfo>,
    main: MainInfo,
}

impl Show for Workers {
    fn text(&self) -> String {
        format::workers(&self.workers, &self.main)
    }

    fn json(&self) -> Value {
        json!({ "workers": self.workers, "main": self.main })
    }
}

/// A worker with a counter and a drop.
pub(super) fn sample() -> WorkerInfo {
    WorkerInfo {
        worker: 0,
        steps: 1_234_567,
        busy_steps: 4321,
        sleeps: 99,
        rx_packets: 2000,
        tx_packets: 1900,
        tcp: vec![("segments_in".to_owned(), 1900)],
        drops: vec![DropInfo {
            reason: "no-listener".to_owned(),
            count: 3,
            help: "a SYN for a port that no one listens on".to_owned(),
        }],
        ..WorkerInfo::default()
    }
}
