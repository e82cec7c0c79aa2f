//! What is typed, in order: first what only looks, then what acts.

use super::normal::{Norm, Numbers};

/// Which forms of an answer are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forms {
    /// Text, then JSON.
    Both,
    /// Text only: it acts, and would find nothing to do the second time.
    Text,
    /// JSON only.
    Json,
}

/// A line that is typed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The command's heading on the page; `errors` for lines that are no command.
    pub(super) key: &'static str,
    /// What is typed; `{name}` stands for one of the stage's names.
    pub(super) typed: &'static str,
    pub(super) forms: Forms,
    pub(super) norm: Norm,
}

impl Step {
    const fn text(self) -> Step {
        Step { forms: Forms::Text, ..self }
    }

    const fn json(self) -> Step {
        Step { forms: Forms::Json, ..self }
    }

    /// Numbers stay in lines that begin so only.
    const fn kept(self, kept: &'static [&'static str]) -> Step {
        Step { norm: Norm { numbers: Numbers::KeptIn(kept), ..self.norm }, ..self }
    }

    /// Only lines with such a word.
    const fn only(self, only: &'static [&'static str]) -> Step {
        Step { norm: Norm { only, ..self.norm }, ..self }
    }

    const fn sorted_by(self, column: usize) -> Step {
        Step { norm: Norm { sorted_by: Some(column), ..self.norm }, ..self }
    }
}

const fn step(key: &'static str, typed: &'static str) -> Step {
    Step { key, typed, forms: Forms::Both, norm: Norm::PLAIN }
}

const SESSION: &str = "show session";
const HALF_OPEN: &str = "show half-open";

/// What of a worker, or of main, is the state of the stack; the rest counts steps and packets.
const HELD: &[&str] = &[
    "number",
    "accepts",
    "connects",
    "sessions",
    "establishing",
    "fifo chunks",
    "connections",
    "half-open",
    "SYN-RECEIVED",
    "TIME-WAIT",
    "flows",
    "listeners",
    "4-tuples",
    "tickets",
    "1 ",
    "7 ",
    "2 ",
];

/// Counters that count in each run; others depend on what the machine does to threads.
const COUNTED: &[&str] = &[
    "counter ",
    "active_opens",
    "established_",
    "passive_opens",
    "pure_acks_out",
    "retransmitted_segments",
    "segments",
    "destination-misses",
    "received",
];

/// What a session's page says that is the same in each run.
const PAGE: &[&str] = &[
    "session ",
    "app worker",
    "transport ",
    "local",
    "remote",
    "declared",
    "state (",
    "opaque",
    "stages",
    "connect ",
    "rx fifo",
    "tx fifo",
    "tls ",
    "0:",
    "1:",
    "! ",
    "(",
    "7 sessions",
];

/// Everything that is typed.
pub(super) const STEPS: &[Step] = &[
    step("help", "help"),
    step("help", "help show half-open"),
    step("help", "help trace add").text(),
    step("help", "help nonsense").text(),
    step("watch INTERVAL COMMAND...", "watch 20ms count 2 show log"),
    step(SESSION, "show session"),
    step(SESSION, "show session limit 2"),
    step(SESSION, "show session all"),
    step(SESSION, "show session app console count"),
    step(SESSION, "show session remote 10.0.0.2 port 443").text(),
    step(SESSION, "show session app nobody"),
    step(SESSION, "show session stuck"),
    step(SESSION, "show session slowest app secure"),
    step(SESSION, "show session slowest all").text(),
    step(SESSION, "show session app proxied verbose 2").kept(PAGE),
    step(SESSION, "show session transport kernel+tcp verbose 3").kept(PAGE),
    step(SESSION, "show session {client}").kept(PAGE),
    step(SESSION, "show session {tls-server}").kept(PAGE),
    step(SESSION, "show session {waiting}").kept(PAGE),
    step(SESSION, "show session {kernel}").kept(PAGE),
    step(SESSION, "show session 0:77.1").text(),
    step(SESSION, "show session 0-77").text(),
    step(SESSION, "show session state opne").text(),
    step(SESSION, "show session remote 10.0.0.0/33").text(),
    step(HALF_OPEN, "show half-open"),
    step(HALF_OPEN, "show half-open limit 1"),
    step(HALF_OPEN, "show half-open {half-open}"),
    step(HALF_OPEN, "show half-open app nobody"),
    step(HALF_OPEN, "show half-open 0#77").text(),
    step(HALF_OPEN, "show half-open 0:77.1").text(),
    step("show status", "show status").kept(HELD),
    step("show app", "show app"),
    step("show app", "show app echo"),
    step("show app", "show app ehco").text(),
    step("show app-worker", "show app-worker"),
    step("show app-worker", "show app-worker console").text(),
    step("show app-worker", "show app-worker nobody").text(),
    step("show listener", "show listener"),
    step("show listener", "show listener limit 1").text(),
    step("show worker", "show worker").kept(HELD),
    step("show main", "show main").kept(HELD),
    step("show counters", "show counters").kept(&[]).only(COUNTED),
    step("show histogram", "show histogram").kept(&["connect-failure"]),
    step("show histogram", "show histogram step").kept(&[]),
    step("show histogram", "show histogram connect-failure"),
    step("show histogram", "show histogram stpe").text(),
    step("show congestion", "show congestion").kept(&[]),
    step("show transport", "show transport").kept(&[]),
    step("show errors", "show errors").kept(&[]).sorted_by(3),
    step("show errors", "show errors nonzero").kept(&[]).only(&["reason", "not-ours"]),
    step("show leaks", "show leaks").kept(&[
        "sessions",
        "half-opens",
        "fifo chunks",
        "flows",
        "listeners",
        "TIME-WAIT",
    ]),
    step("show events", "show events").kept(&[]).sorted_by(1),
    step("show events", "show events session {server}").kept(&[]),
    step("show events", "show events app nobody"),
    step("show interface", "show interface").kept(&[]),
    step("show interface", "show interface verbose").kept(&[]),
    step("show route", "show route"),
    step("show route", "show route limit 1").text(),
    step("show neighbor", "show neighbor"),
    step("show ports", "show ports"),
    step("show channel", "show channel").kept(&[]),
    step("show memory", "show memory").kept(&[]),
    step("show memory", "show memory all").kept(&[]).text(),
    step("show version", "show version").kept(&["hoststack", "Rust", "workers"]),
    step("show config", "show config"),
    step("show config", "show config all").text(),
    step("show cli", "show cli").kept(&[]),
    step("show option", "show option"),
    step("show option", "show option time-wait").text(),
    step("show option", "show option time-wiat").text(),
    step("show log", "show log"),
    step("show trace", "show trace"),
    step("show pcap", "show pcap"),
    // What acts.
    step("ping ADDRESS", "ping 10.0.0.2 count 2 interval 1ms"),
    step("ping ADDRESS", "ping 10.0.0.1 count 1").text(),
    step("ping ADDRESS", "ping 10.0.0.2 domain 7").text(),
    step("trace add", "trace add icmp count 2").text(),
    step("trace add", "trace add port 7 count 1").json(),
    step("trace add", "trace add prot 7").text(),
    step("ping ADDRESS", "ping 10.0.0.2 count 1").json(),
    step("show trace", "show trace").kept(&["trace"]),
    step("trace clear", "trace clear"),
    step("pcap start FILE", "pcap start {dir}/a.pcapng icmp out size 64k").text(),
    step("pcap start FILE", "pcap start {dir}/b.pcapng").text(),
    step("show pcap", "show pcap"),
    step("pcap stop", "pcap stop").text(),
    step("pcap stop", "pcap stop").text(),
    step("pcap start FILE", "pcap start {dir}/b.pcapng").json(),
    step("pcap stop", "pcap stop").json(),
    step("set option OPTION VALUE", "set option time-wait 20s"),
    step("set option OPTION VALUE", "set option time-wait 20").text(),
    step("set option OPTION VALUE", "set option time-wiat 20s").text(),
    step("show option", "show option").text(),
    step("set log LEVELS", "set log warn,hoststack_tcp=error"),
    step("set log LEVELS", "set log loud").text(),
    step("app attach echo|discard NAME", "app attach discard sink app-workers 2").text(),
    step("app attach echo|discard NAME", "app attach echo sink").text(),
    step("app attach echo|discard NAME", "app attach echo more").json(),
    step("listen URI app NAME", "listen tcp://10.0.0.2:9 app sink domain 1").text(),
    step("listen URI app NAME", "listen tcp://10.0.0.2:9 app sink domain 1").text(),
    step("listen URI app NAME", "listen tcp://10.0.0.2:10 app more domain 1").json(),
    step("listen URI app NAME", "listen 10.0.0.2:9 app sink").text(),
    step("connect URI", "connect tcp://203.0.113.1:81 count 2 timeout 10m").text(),
    step("connect URI", "connect tcp://203.0.113.1:82 timeout 10m").json(),
    step("connect URI", "connect tcp://203.0.113.1:83 domain 9").text(),
    step("connect URI", "connect 203.0.113.1:83").text(),
    step("unlisten URI", "unlisten tcp://10.0.0.2:9").text(),
    step("unlisten URI", "unlisten tcp://10.0.0.2:9").text(),
    step("unlisten URI", "unlisten tcp://10.0.0.2:10").json(),
    step("half-open cancel", "half-open cancel {half-open}").text(),
    step("half-open cancel", "half-open cancel {half-open}").text(),
    step("half-open cancel", "half-open cancel").text(),
    step("half-open cancel", "half-open cancel all").json(),
    // Nobody sends SYNs now.
    step("clear errors|counters", "clear errors").text(),
    step("clear errors|counters", "clear counters").json(),
    step("clear errors|counters", "clear everything").text(),
    step("show errors", "show errors nonzero").kept(&["counted"]).text(),
    step("show half-open", "show half-open").text(),
    step("session close|reset", "session close {kernel}").text(),
    step("session close|reset", "session close 0:77.1").text(),
    step("session close|reset", "session close").text(),
    step("session close|reset", "session reset app nobody").text(),
    step("session close|reset", "session reset app proxied").text(),
    step("session close|reset", "session reset {client}").json(),
    step("app detach NAME", "app detach sink").text(),
    step("app detach NAME", "app detach sink").text(),
    step("app detach NAME", "app detach more").json(),
    step("app detach NAME", "app detach echo app-worker 7").text(),
    // What is no command.
    step("errors", "show sesion").text(),
    step("errors", "shwo app").text(),
    step("errors", "show").text(),
    step("errors", "show app; show ap").text(),
    step("errors", "show app echo extra").text(),
    step("errors", "show app | grep echo").text(),
    step("errors", "show app | include (").text(),
    step("errors", "show app 'echo").text(),
    step("errors", "show log; show app nobody; show log").text(),
];
