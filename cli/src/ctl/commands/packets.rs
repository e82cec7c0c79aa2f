//! Commands about single packets: traces, captures, ping.

use std::net::IpAddr;
use std::time::Duration;

use hoststack::Query;
use hoststack::app::DomainId;
use hoststack::inspect::{
    CaptureReport, CaptureSpec, CaptureState, TraceAnswer, TraceRecord, TraceSpec, TraceStage,
};
use hoststack::ping::{PingOptions, PingOutcome, PingResult};
use serde_json::{Value, json};

use super::{LIMIT, Shown, Spec, shown, to_value};
use crate::ctl::console::{CommandError, Console, Level, Output, Show, Wait};
use crate::ctl::grammar::Matched;
use crate::ctl::show::{ping as lines, trace};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "trace add [PACKETS...]",
        help: "follow packets through the stack: what each stage decided about them, for `show trace`",
        details: "The first 50 packets of each worker unless `count N` says otherwise, 10000 at most; with `last` the last ones, until \
                  `trace clear`. There may be 8 traces at a time. Packets that are traced pass one at a time: add no trace of \
                  all packets to a stack that is busy.",
        options: &[(
            "PACKETS...",
            "which: each word must hold; without a word all; also `count N` and `last`",
        )],
        level: Level::Operator,
        run: |console, matched| {
            let spec: TraceSpec =
                matched.text("PACKETS").unwrap_or_default().parse().map_err(CommandError::failed)?;
            let text = spec.to_string();
            console.stack.trace_add(spec).map_err(CommandError::failed)?;
            Output::one(added(text))
        },
        sample: || Box::new(added("tcp syn port 80 count 50".to_owned())),
    },
    Spec {
        pattern: "show trace [limit N]",
        help: "the traces, and packet by packet what each stage decided; the newest 100 of each worker unless said otherwise",
        options: &[("limit N", "so many of each worker")],
        run: |console, matched| {
            let limit = matched.count("limit").unwrap_or(LIMIT);
            Output::one(traced(console.ask(Query::Trace { limit })?.trace))
        },
        sample: || Box::new(traced(sample_trace())),
        ..Spec::BASE
    },
    Spec {
        pattern: "trace clear",
        help: "end all traces, and forget what they recorded",
        level: Level::Operator,
        run: |console, _| {
            console.stack.trace_clear().map_err(CommandError::failed)?;
            Output::one(cleared())
        },
        sample: || Box::new(cleared()),
        ..Spec::BASE
    },
    Spec {
        pattern: "pcap start FILE [PACKETS...]",
        help: "capture packets into a pcapng file, each with its session, drop reason and whether it was sent again as comment",
        details: "The program that runs the stack writes the file, as its own user and in its own folder unless the path begins \
                  with `/`; an old file of that name is replaced. It ends at 64 MiB unless `size N` says otherwise (`512k`, `1G`). \
                  A disk that is too slow costs packets of the capture, never of the stack.",
        options: &[("PACKETS...", "which: each word must hold; without a word all; also `size N`")],
        level: Level::Operator,
        run: |console, matched| {
            // Said back whole: whoever asks may be in another folder.
            let file = std::path::absolute(matched.text("FILE").unwrap_or_default());
            let spec = CaptureSpec::new(file.map_err(CommandError::failed)?);
            let words = matched.text("PACKETS").unwrap_or_default();
            let spec = spec.with_words(words).map_err(CommandError::failed)?;
            console.stack.pcap_start(spec).map_err(CommandError::failed)?;
            Output::one(capture(console.stack.pcap()))
        },
        sample: || Box::new(capture(Some(sample_capture(CaptureState::Running)))),
    },
    Spec {
        pattern: "pcap stop",
        help: "end the capture; the answer comes when all of it is in the file",
        level: Level::Operator,
        run: |console, _| {
            let report = console.stack.pcap_stop().map_err(CommandError::failed)?;
            Output::one(capture(Some(report)))
        },
        sample: || Box::new(capture(Some(sample_capture(CaptureState::Stopped)))),
        ..Spec::BASE
    },
    Spec {
        pattern: "show pcap",
        help: "the capture under way, how much it wrote and what it missed; `capture` is null if there is none",
        run: |console, _| Output::one(capture(console.stack.pcap())),
        sample: || Box::new(capture(Some(sample_capture(CaptureState::Running)))),
        ..Spec::BASE
    },
    Spec {
        pattern: "ping ADDRESS [count N] [interval SPAN] [size BYTES] [timeout SPAN] [domain DOMAIN]",
        help: "send echo requests from the stack's own address, and tell what came back, a line each, then a summary",
        details: "An address of the stack's own answers from inside: no packet leaves. Without any reply the command fails. Ctrl-C ends it. In JSON each line has a `result`, the last one the `summary`; \
                  which fields a result has besides `seq` is by its `outcome`: `reply`, `error`, `not-sent` or `timed-out`.",
        options: &[
            ("count N", "so many requests, 4 unless said otherwise"),
            ("interval SPAN", "the time between two, 1 s unless said otherwise"),
            ("size BYTES", "bytes of data in each, 56 unless said otherwise"),
            ("timeout SPAN", "how long each is waited for, 4 s unless said otherwise"),
            ("domain DOMAIN", "the routing domain, 0 unless said otherwise"),
        ],
        level: Level::Operator,
        run: ping,
        sample: || Box::new(SamplePing),
    },
];

fn added(spec: String) -> Shown<String> {
    Shown {
        value: spec,
        text: |spec| format!("tracing {spec}: `show trace` shows what passed\n"),
        json: |spec| json!({ "trace": spec }),
        headings: 0,
    }
}

fn traced(answer: TraceAnswer) -> Shown<TraceAnswer> {
    Shown { headings: 0, ..shown(answer, trace::trace) }
}

fn cleared() -> Shown<()> {
    Shown {
        value: (),
        text: |()| "no packet is traced now\n".to_owned(),
        json: |()| json!({ "cleared": "trace" }),
        headings: 0,
    }
}

fn capture(report: Option<CaptureReport>) -> Shown<Option<CaptureReport>> {
    Shown {
        value: report,
        text: |report| trace::capture(report.as_ref()),
        json: |report| json!({ "capture": report }),
        headings: 0,
    }
}

/// How often it is looked whether an answer came.
const LOOK: Duration = Duration::from_millis(20);

fn ping(console: &mut Console<'_>, matched: &Matched) -> Result<Output, CommandError> {
    let to = matched.address("ADDRESS").ok_or_else(|| CommandError::failed("ping whom?"))?;
    let default = PingOptions::to(to);
    let count = match matched.number("count") {
        Some(count) => u16::try_from(count)
            .map_err(|_| CommandError::failed(format!("give a count of 1 to {}", u16::MAX)))?,
        None => default.count,
    };
    // Cannot fail because: the kind of the argument has read it, and its limit is the type's.
    let domain = matched.number("domain").and_then(|domain| u16::try_from(domain).ok());
    let pinging = console.stack.ping(PingOptions {
        count,
        interval: matched.span("interval").unwrap_or(default.interval),
        size: matched.count("size").unwrap_or(default.size),
        timeout: matched.span("timeout").unwrap_or(default.timeout),
        domain: domain.map_or(default.domain, DomainId),
        ..default
    });
    let pinging = pinging.map_err(CommandError::failed)?;
    let mut results = Vec::new();
    let mut is_over = false;
    while !is_over {
        loop {
            match pinging.try_take() {
                Ok(Some(result)) => {
                    console.part(&in_line(result))?;
                    results.push(result);
                }
                Ok(None) => break,
                Err(_) => {
                    is_over = true;
                    break;
                }
            }
        }
        // The rest is not asked any more when this goes.
        if !is_over && console.wait(LOOK)? == Wait::Enough {
            break;
        }
    }
    let summary = in_summary(results);
    console.part(&summary)?;
    let has_reply = summary.value.iter().any(|result| matches!(result.outcome, PingOutcome::Reply { .. }));
    if is_over && !has_reply {
        return Err(CommandError::failed(format!("{to} did not answer")));
    }
    Ok(Output::Streamed)
}

fn in_line(result: PingResult) -> Shown<PingResult> {
    Shown {
        value: result,
        text: |result| lines::line(result) + "\n",
        json: |result| json!({ "result": result }),
        headings: 0,
    }
}

fn in_summary(results: Vec<PingResult>) -> Shown<Vec<PingResult>> {
    Shown {
        value: results,
        text: |results| lines::summary(results),
        json: |results| json!({ "summary": lines::Summary::of(results) }),
        headings: 0,
    }
}

/// A ping with each outcome: what the page says of it.
struct SamplePing;

impl SamplePing {
    fn results() -> Vec<PingResult> {
        let from: IpAddr = [10, 9, 0, 1].into();
        let outcomes = [
            PingOutcome::Reply { from, rtt_us: 250, hop_limit: 64, bytes: 56, is_intact: true },
            PingOutcome::Error { from, rtt_us: 2000, kind: "packet-too-big", code: 4, mtu: Some(1400) },
            PingOutcome::NotSent { reason: "no-route", help: "No route leads to the destination." },
            PingOutcome::TimedOut { after_us: 4_000_000 },
        ];
        (1..).zip(outcomes).map(|(seq, outcome)| PingResult { seq, outcome }).collect()
    }
}

impl Show for SamplePing {
    fn text(&self) -> String {
        let results = SamplePing::results();
        results.iter().map(|result| lines::line(result) + "\n").collect::<String>()
            + &lines::summary(&results)
    }

    fn json(&self) -> Value {
        let results = SamplePing::results();
        let mut fields = serde_json::Map::new();
        for result in &results {
            if let Value::Object(own) = to_value(result) {
                fields.extend(own);
            }
        }
        json!({ "result": fields, "summary": lines::Summary::of(&results) })
    }

    fn headings(&self) -> usize {
        0
    }
}

fn sample_trace() -> TraceAnswer {
    let stage = |stage, text: &str| TraceStage { stage, text: text.to_owned() };
    let record = TraceRecord {
        worker: 0,
        number: 7,
        at_us: 12_000_345,
        packet: "00c0ffee".to_owned(),
        direction: "in",
        interface: "tap0".to_owned(),
        len: 54,
        summary: "tcp 10.9.0.1:4000 > 10.9.0.2:80: . 1:6(5) ack 1 win 65535".to_owned(),
        session: Some("0:17.1".to_owned()),
        dropped: Some("out-of-window"),
        retransmission: true,
        stages: vec![stage("device-input", "tap0 len 54"), stage("tcp-lookup", "session 0:17.1")],
    };
    TraceAnswer { traces: vec!["tcp port 80 count 50".to_owned()], total: 1, records: vec![record] }
}

fn sample_capture(state: CaptureState) -> CaptureReport {
    CaptureReport {
        file: "/tmp/hs.pcapng".to_owned(),
        filter: "tcp port 80".to_owned(),
        state,
        packets: 1200,
        bytes: 180_000,
        bytes_max: 64 << 20,
        missed: 0,
        error: Some("No space left on device (os error 28)".to_owned()),
    }
}
