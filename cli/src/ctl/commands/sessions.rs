//! Commands about sessions and half-opens.

use hoststack::inspect::{HalfOpenInfo, MainInfo, SessionInfo, SessionSummary};
use hoststack::{Answer, Query};
use serde_json::{Value, json};

use super::{LIMIT, Spec};
use crate::ctl::console::{Output, Show};
use crate::ctl::format;

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "show session [verbose] [limit N]",
        help: "sessions by state; listed with `limit N`, with the transport's variables with `verbose`",
        options: &[
            ("verbose", "list 100 of them, unless `limit` says otherwise, with the transport's variables"),
            ("limit N", "list so many of them"),
        ],
        run: |console, matched| {
            let verbose = matched.has("verbose");
            let limit = matched.count("limit").unwrap_or(if verbose { LIMIT } else { 0 });
            Output::one(Sessions { answer: console.ask(Query::Sessions { limit, verbose })?, verbose, limit })
        },
        sample: || Box::new(Sessions { answer: sample(), verbose: true, limit: LIMIT }),
        ..Spec::BASE
    },
    Spec {
        pattern: "show half-open [limit N]",
        help: "connects without an outcome, 100 of them unless said otherwise",
        options: &[("limit N", "list so many of them")],
        run: |console, matched| {
            let limit = matched.count("limit").unwrap_or(LIMIT);
            Output::one(HalfOpens(console.ask(Query::HalfOpens { limit })?))
        },
        sample: || Box::new(HalfOpens(sample())),
        ..Spec::BASE
    },
];

struct Sessions {
    answer: Answer,
    verbose: bool,
    limit: usize,
}

impl Show for Sessions {
    fn text(&self) -> String {
        format::sessions(&self.answer, self.verbose, self.limit)
    }

    fn json(&self) -> Value {
        json!({ "summary": self.answer.session_summary, "sessions": self.answer.sessions })
    }

    fn headings(&self) -> usize {
        2
    }
}

struct HalfOpens(Answer);

impl Show for HalfOpens {
    fn text(&self) -> String {
        format::half_opens(&self.0)
    }

    fn json(&self) -> Value {
        json!({ "total": self.0.main.half_open_sessions, "half_opens": self.0.half_opens })
    }

    fn headings(&self) -> usize {
        2
    }
}

/// A session and a half-open, all fields set.
fn sample() -> Answer {
    let mut session = SessionInfo::default();
    session.session = "0:17.1".to_owned();
    session.handle = 17 << 28 | 1;
    session.app_worker = "echo/0".to_owned();
    session.protocol = "tcp";
    session.local = "10.9.0.2:7".to_owned();
    session.remote = "10.9.0.1:40312".to_owned();
    session.declared = "192.0.2.7:1234->198.51.100.1:443".to_owned();
    session.stage = Some("PROXY header to receive");
    session.state = "open/open".to_owned();
    session.rx_bytes = 512;
    session.tx_bytes = 1024;
    session.age_us = 2_500_000;
    session.transport = "ESTABLISHED una 1 nxt 1025 wnd 65535".to_owned();
    let half_open = HalfOpenInfo {
        connect: "257#12".to_owned(),
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
    };
    Answer {
        session_summary: SessionSummary { total: 1, unannounced: 1, ..SessionSummary::default() },
        sessions: vec![session],
        half_opens: vec![half_open],
        main: MainInfo { half_open_sessions: 1, half_open_connections: 1, ..MainInfo::default() },
        ..Answer::default()
    }
}
