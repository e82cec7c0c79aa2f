//! Everything at a glance, for views that look again and again.

use hoststack::inspect::{HistogramInfo, SessionInfo};
use hoststack::{Answer, Query};
use serde_json::{Value, json};

use super::{Spec, apps, figures, sessions, workers};
use crate::ctl::console::{Output, Show};
use crate::ctl::show::sessions as show;
use crate::ctl::show::workers::{MainThread, Workers};
use crate::ctl::wire::Format;
use crate::table::span_us;

/// Sessions that are told besides.
const SLOWEST: usize = 20;

pub(super) const COMMANDS: &[Spec] = &[Spec {
    pattern: "show status",
    help: "everything at a glance: workers, main, applications, sessions by state, latencies",
    details: "What `hoststack top` is made of. In JSON also the sessions with the longest round-trip times, for which all are \
              looked at, in slices.",
    run: |console, _| {
        let answer = console.ask(Query::Histograms)?;
        let slowest = match console.format {
            Format::Text => Vec::new(),
            Format::Json => console.ask(Query::slowest(SLOWEST))?.sessions,
        };
        Output::one(Status { answer, slowest })
    },
    sample: || Box::new(sample()),
    ..Spec::BASE
}];

/// Everything that is told, with one of each kind.
fn sample() -> Status {
    let mut slowest = sessions::sample().sessions;
    slowest.iter_mut().for_each(|session| session.detail = None);
    let histograms = vec![figures::sample_histogram()];
    Status { answer: Answer { apps: vec![apps::sample_app()], histograms, ..workers::sample() }, slowest }
}

struct Status {
    answer: Answer,
    slowest: Vec<SessionInfo>,
}

impl Show for Status {
    fn text(&self) -> String {
        let Answer { workers: all, main, session_summary, time_wait, histograms, .. } = &self.answer;
        let mut text = show::summary(session_summary, *time_wait);
        text.push_str(&show::half_open_summary(main.half_open_sessions, main.half_open_connections));
        let whole =
            |histogram: &&HistogramInfo| histogram.worker.is_none() && histogram.name == "connect-latency";
        if let Some(latency) = histograms.iter().find(whole).filter(|latency| latency.count > 0) {
            text.push_str(&format!(
                "{} connects came up: half of them within {}, 99 of 100 within {}\n",
                latency.count,
                span_us(latency.p50),
                span_us(latency.p99)
            ));
        }
        text.push_str(&Workers { workers: all.clone() }.text());
        text.push_str("\nmain\n");
        text.push_str(&MainThread { main: main.clone() }.text());
        text
    }

    fn json(&self) -> Value {
        let Answer { workers, main, apps, session_summary, time_wait, since, histograms, .. } = &self.answer;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "at_us": since.now_us,
            "workers": workers,
            "main": main,
            "apps": apps,
            "sessions": session_summary,
            "time_wait": time_wait,
            "histograms": histograms,
            "slowest": self.slowest,
        })
    }
}
