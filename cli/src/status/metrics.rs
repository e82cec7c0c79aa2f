//! The stack's figures as OpenMetrics text, for Prometheus.
//!
//! Names begin with `hoststack_` and end in their unit; counters end in `_total`; everything of a worker has the label
//! `worker`, everything of an app worker `app` and `app_worker`. A counter that the stack has is there from the beginning, 0
//! if nothing happened, so that its first increase is seen. Histograms are the stack's own, with its buckets: nothing is observed
//! here. A new figure of the stack is one more line in [`Snapshot::encode`].

use std::collections::BTreeMap;
use std::fmt;

use hoststack::Answer;
use hoststack::inspect::{ChannelInfo, HistogramInfo, HistogramKind, PaceInfo, WorkerInfo};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::overview::session_states;

/// In which form the text is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own text format, for scrapers that know no other, and for people: a browser shows it.
    Text,
}

impl Format {
    /// What a client that accepts this gets: OpenMetrics, unless it names only other text.
    pub(super) fn accepted(accept: &str) -> Format {
        let names = |media: &str| accept.contains(media);
        let is_text = !names("application/openmetrics-text") && (names("text/plain") || names("text/html"));
        if is_text { Format::Text } else { Format::OpenMetrics }
    }

    /// The media type.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// OpenMetrics in Prometheus' own text format: there a family has the name of its samples, and no unit, and the text no end.
pub(super) fn in_text_format(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = "";
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            // Its name is known with the type, which is the next line.
            (Some("#"), Some("HELP"), Some(_), words) => help = words.unwrap_or_default(),
            (Some("#"), Some("TYPE"), Some(name), Some(of_type)) => {
                let (suffix, of_type) = match of_type {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    of_type => ("", of_type),
                };
                text.push_str(&format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {of_type}\n"));
            }
            (Some("#"), ..) => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

/// The text of an answer with histograms, and of the channels.
pub(super) fn openmetrics(answer: Answer, channels: Vec<ChannelInfo>) -> String {
    let mut registry = Registry::with_prefix("hoststack");
    registry.register_collector(Box::new(Snapshot { answer, channels }));
    let mut encoded = String::new();
    text::encode(&mut encoded, &registry)
        .expect("cannot fail because writing to a string cannot, and no metric refuses to be written");
    encoded
}

#[derive(Debug)]
struct Snapshot {
    answer: Answer,
    channels: Vec<ChannelInfo>,
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out { encoder };
        self.build(&mut out)?;
        self.main(&mut out)?;
        self.sessions(&mut out)?;
        self.workers(&mut out)?;
        self.paces(&mut out)?;
        self.channels(&mut out)?;
        self.tcp(&mut out)?;
        self.drops(&mut out)?;
        self.apps(&mut out)?;
        self.histograms(&mut out)
    }
}

impl Snapshot {
    fn build(&self, out: &mut Out<'_>) -> fmt::Result {
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        let family = out.encoder.encode_descriptor("build", "The program", None, MetricType::Info)?;
        Info::new(version).encode(family)?;
        let up = self.answer.since.now_us as f64 / 1e6;
        let help = "The stack's time since it began";
        out.family("uptime", help, Some("seconds"), MetricType::Gauge, [(none(), up)], ConstGauge::new)
    }

    fn main(&self, out: &mut Out<'_>) -> fmt::Result {
        let main = &self.answer.main;
        out.counters("main_steps", "Steps of main", None, [(none(), main.steps)])?;
        let busy = "Steps of main that found something to do";
        out.counters("main_busy_steps", busy, None, [(none(), main.busy_steps)])?;
        out.counters("main_sleeps", "Times that main went to sleep", None, [(none(), main.sleeps)])?;
        out.counters(
            "connect_tickets_dropped",
            "Connect tickets dropped without an outcome: a bug",
            None,
            [(none(), main.tickets_dropped)],
        )?;
        out.counters(
            "connects_orphaned",
            "Connects whose app worker was gone when they reached main",
            None,
            [(none(), main.connects_orphaned)],
        )?;
        for (name, help, value) in [
            ("half_open_sessions", "Half-open sessions", main.half_open_sessions as u64),
            ("half_open_connections", "Half-open transport connections", main.half_open_connections as u64),
            ("tuples", "4-tuples in use, those of TIME-WAIT included", main.tuples as u64),
            ("listeners", "Listeners", main.listeners as u64),
            ("messages_waiting", "Messages between main and workers that are not handled yet", main.messages),
        ] {
            out.gauges(name, help, None, [(none(), value)])?;
        }
        Ok(())
    }

    fn sessions(&self, out: &mut Out<'_>) -> fmt::Result {
        let states = session_states(&self.answer);
        let rows = states.map(|(state, count)| (vec![("state", state.to_owned())], count as u64));
        out.gauges("sessions", "Sessions by state", None, rows)
    }

    fn workers(&self, out: &mut Out<'_>) -> fmt::Result {
        let workers = &self.answer.workers;
        let rows = |value: fn(&WorkerInfo) -> u64| workers.iter().map(move |one| (worker(one), value(one)));
        let packets = Some("packets");
        out.counters("worker_steps", "Steps taken", None, rows(|one| one.steps))?;
        out.counters(
            "worker_busy_steps",
            "Steps that found something to do",
            None,
            rows(|one| one.busy_steps),
        )?;
        out.counters("worker_sleeps", "Times that it went to sleep", None, rows(|one| one.sleeps))?;
        out.counters("worker_callbacks", "Callbacks made", None, rows(|one| one.callbacks))?;
        out.counters("worker_accepts", "Sessions announced as accepted", None, rows(|one| one.accepts))?;
        out.counters("worker_connects", "Sessions announced as connected", None, rows(|one| one.connects))?;
        let failures = "Connects whose failure was told";
        out.counters("worker_connect_failures", failures, None, rows(|one| one.connect_failures))?;
        out.counters("worker_ends", "Announced sessions that ended", None, rows(|one| one.ends))?;
        let bytes = Some("bytes");
        let received = "Bytes that came for apps, over all transports";
        out.counters("worker_app_received", received, bytes, rows(|one| one.bytes_in))?;
        let sent = "Bytes of apps that went, over all transports";
        out.counters("worker_app_sent", sent, bytes, rows(|one| one.bytes_out))?;
        out.counters("worker_received", "Packets from devices", packets, rows(|one| one.rx_packets))?;
        out.counters("worker_sent", "Packets to devices", packets, rows(|one| one.tx_packets))?;
        out.counters(
            "worker_handed_over",
            "Packets handed to other workers",
            packets,
            rows(|one| one.handed_over),
        )?;
        let mut gauge = |name: &str, help: &str, value: fn(&WorkerInfo) -> usize| {
            out.gauges(name, help, None, workers.iter().map(|one| (worker(one), value(one) as u64)))
        };
        gauge("worker_sessions", "Sessions", |one| one.sessions)?;
        gauge("worker_sessions_establishing", "Outbound sessions that are not announced yet", |one| {
            one.establishing
        })?;
        gauge("worker_connections", "Connections of all transports", |one| one.connections)?;
        gauge("worker_half_open_entries", "Flows that wait for main's decision", |one| {
            one.half_open_entries
        })?;
        gauge("worker_syn_received", "TCP connections in SYN-RECEIVED", |one| one.syn_received)?;
        gauge("worker_time_wait", "TCP connections in TIME-WAIT", |one| one.time_wait)?;
        gauge("worker_timers", "Armed timers", |one| one.timers)?;
        gauge("worker_flows", "Entries of the flow table", |one| one.flows)?;
        gauge("worker_parked", "Segments that wait for the hand-over of their flow", |one| one.parked)?;
        gauge("worker_listeners", "Listeners", |one| one.listeners)?;
        gauge("worker_fifo_chunks", "Chunks of fifos in use", |one| one.fifo_chunks)
    }

    /// How the threads work: how long they were busy, and with what.
    fn paces(&self, out: &mut Out<'_>) -> fmt::Result {
        let threads = || {
            let workers = self.answer.workers.iter().map(|one| (thread(one.worker), &one.pace));
            workers.chain([(vec![("thread", "main".to_owned())], &self.answer.main.pace)])
        };
        let busy = threads().map(|(labels, pace)| (labels, pace.busy_us as f64 / 1e6));
        out.seconds("thread_busy", "Time that it worked, not slept or looked in vain", busy)?;
        let stages = threads().flat_map(|(labels, PaceInfo { stages, .. })| {
            stages.iter().map(move |stage| {
                let mut labels = labels.clone();
                labels.push(("stage", stage.stage.to_owned()));
                (labels, stage.total_ns as f64 / 1e9)
            })
        });
        out.seconds("thread_stage", "Time of the steps that were measured, one in 64, by stage", stages)
    }

    fn channels(&self, out: &mut Out<'_>) -> fmt::Result {
        let rows = |value: fn(&ChannelInfo) -> u64| {
            self.channels.iter().map(move |channel| {
                let labels = vec![
                    ("channel", channel.kind.to_owned()),
                    ("from", channel.from.clone()),
                    ("to", channel.to.clone()),
                ];
                (labels, value(channel))
            })
        };
        out.counters("channel_sent", "Messages sent", None, rows(|channel| channel.sent))?;
        let waiting = "Messages that were sent and not taken";
        out.gauges("channel_waiting", waiting, None, rows(|channel| channel.waiting))?;
        let outbox = "Messages that wait with their sender, because the channel is full";
        out.gauges("channel_outbox", outbox, None, rows(|channel| channel.outbox as u64))
    }

    fn histograms(&self, out: &mut Out<'_>) -> fmt::Result {
        for kind in HistogramKind::ALL {
            let of_kind = || self.answer.histograms.iter().filter(|one| one.name == kind.name());
            // Those of workers add up to that of all, which is left out; main has the one.
            let has_workers = of_kind().any(|one| one.worker.is_some());
            let each = of_kind().filter(|one| one.worker.is_some() == has_workers);
            let (name, help) = match kind {
                HistogramKind::ConnectLatency => {
                    ("connect_latency", "From a connect request to its success being told")
                }
                HistogramKind::ConnectFailure => {
                    ("connect_failure", "From a connect request to its failure being told")
                }
                HistogramKind::Rtt => ("tcp_rtt", "Round trips that TCP measured"),
                HistogramKind::Step => ("worker_step", "Steps of workers that did something"),
                HistogramKind::MainStep => ("main_step", "Steps of main that did something"),
                HistogramKind::RxVector => {
                    ("worker_rx_vector", "Packets that a device handed over at a time")
                }
                HistogramKind::TxVector => ("worker_tx_vector", "Packets that a device took at a time"),
            };
            out.histograms(name, help, each)?;
        }
        Ok(())
    }

    fn tcp(&self, out: &mut Out<'_>) -> fmt::Result {
        let known = hoststack::tcp::Counters::default();
        for (name, _) in known.iter() {
            let count = |one: &WorkerInfo| {
                one.tcp.iter().find(|(counter, _)| counter == name).map_or(0, |(_, count)| *count)
            };
            let rows = self.answer.workers.iter().map(|one| (worker(one), count(one)));
            let help = format!("TCP: {}", name.replace('_', " "));
            match name {
                "bytes_in" => out.counters("tcp_received", "Payload stored in order", Some("bytes"), rows)?,
                "bytes_out" => {
                    out.counters("tcp_sent", "Payload sent for the first time", Some("bytes"), rows)?
                }
                name => match name.strip_suffix("_bytes") {
                    Some(stem) => out.counters(&format!("tcp_{stem}"), &help, Some("bytes"), rows)?,
                    None => out.counters(&format!("tcp_{name}"), &help, None, rows)?,
                },
            }
        }
        Ok(())
    }

    fn drops(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut rows = Vec::new();
        for one in &self.answer.workers {
            // One reason may be there several times: once per cause.
            let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
            for drop in &one.drops {
                *reasons.entry(&drop.reason).or_default() += drop.count;
            }
            for (reason, count) in reasons {
                let mut labels = worker(one);
                labels.push(("reason", reason.to_owned()));
                rows.push((labels, count));
            }
        }
        out.counters(
            "drops",
            "Packets and segments dropped, and connections not accepted, by reason",
            None,
            rows,
        )
    }

    fn apps(&self, out: &mut Out<'_>) -> fmt::Result {
        let app_workers = || {
            self.answer
                .apps
                .iter()
                .flat_map(|app| app.app_workers.iter().map(|one| (app_worker(&app.name, one.unit), one)))
        };
        let half_opens = app_workers().map(|(labels, one)| (labels, one.half_opens as u64));
        out.gauges("app_half_opens", "Connects that have no outcome or are not cleaned", None, half_opens)?;
        let sessions = app_workers().flat_map(|(labels, one)| {
            one.sessions.iter().enumerate().map(move |(worker, count)| {
                let mut labels = labels.clone();
                labels.push(("worker", worker.to_string()));
                (labels, *count as u64)
            })
        });
        out.gauges("app_sessions", "Sessions", None, sessions)?;
        let listeners = app_workers().map(|(labels, one)| (labels, one.listeners.len() as u64));
        out.gauges("app_listeners", "Listeners", None, listeners)?;
        let requested = app_workers().map(|(labels, one)| (labels, one.outcomes.requested));
        out.counters("app_connects_requested", "Connects asked for", None, requested)?;
        let cleaned = app_workers().map(|(labels, one)| (labels, one.outcomes.cleaned));
        out.counters("app_half_opens_cleaned", "Half-opens freed", None, cleaned)?;
        let late = app_workers().map(|(labels, one)| (labels, one.outcomes.late_segments));
        out.counters(
            "app_late_segments",
            "Answers of peers that came after the outcome was decided",
            None,
            late,
        )?;
        let mut outcomes = Vec::new();
        for (labels, one) in app_workers() {
            let ended = &one.outcomes;
            for (outcome, count) in [
                ("established", ended.established),
                ("refused", ended.refused),
                ("timed-out", ended.timed_out),
                ("unreachable", ended.unreachable),
                ("cancelled", ended.cancelled),
                ("detached", ended.detached),
                ("failed", ended.failed),
                ("undelivered", ended.undelivered),
            ] {
                let mut labels = labels.clone();
                labels.push(("outcome", outcome.to_owned()));
                outcomes.push((labels, count));
            }
        }
        out.counters("app_connects", "How connects ended", None, outcomes)
    }
}

fn none() -> Vec<(&'static str, String)> {
    Vec::new()
}

fn thread(worker: u8) -> Vec<(&'static str, String)> {
    vec![("thread", format!("worker {worker}"))]
}

fn worker(worker: &WorkerInfo) -> Vec<(&'static str, String)> {
    vec![("worker", worker.worker.to_string())]
}

fn app_worker(app: &str, unit: u32) -> Vec<(&'static str, String)> {
    vec![("app", label_value(app)), ("app_worker", unit.to_string())]
}

/// A label's value as it stands between quotes (OpenMetrics 1.0, "Escaping"): the encoder writes what it is given.
fn label_value(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Writes families.
struct Out<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Out<'_> {
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&str>,
        rows: impl IntoIterator<Item = (Vec<(&'static str, String)>, u64)>,
    ) -> fmt::Result {
        self.family(name, help, unit, MetricType::Counter, rows, ConstCounter::new)
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&str>,
        rows: impl IntoIterator<Item = (Vec<(&'static str, String)>, u64)>,
    ) -> fmt::Result {
        // Cannot wrap because: nothing is there 2^63 times.
        self.family(name, help, unit, MetricType::Gauge, rows, |value| ConstGauge::new(value as i64))
    }

    /// Counters of time.
    fn seconds(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Vec<(&'static str, String)>, f64)>,
    ) -> fmt::Result {
        self.family(name, help, Some("seconds"), MetricType::Counter, rows, ConstCounter::new)
    }

    /// Histograms of one kind.
    fn histograms<'h>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = &'h HistogramInfo>,
    ) -> fmt::Result {
        let mut rows = rows.peekable();
        let Some(first) = rows.peek() else { return Ok(()) };
        let is_time = first.unit == "us";
        let unit = Unit::Other(if is_time { "seconds" } else { "packets" }.to_owned());
        let kind = MetricType::Histogram;
        let mut family = self.encoder.encode_descriptor(name, help, Some(&unit), kind)?;
        for histogram in rows {
            let sum = histogram.sum as f64 / if is_time { 1e6 } else { 1.0 };
            let buckets = buckets(histogram, is_time);
            match histogram.worker {
                Some(number) => {
                    let labels = vec![("worker", number.to_string())];
                    let mut one = family.encode_family(&labels)?;
                    one.encode_histogram::<NoLabelSet>(sum, histogram.count, &buckets, None)?;
                }
                None => {
                    family.encode_histogram::<NoLabelSet>(sum, histogram.count, &buckets, None)?;
                }
            }
        }
        Ok(())
    }

    fn family<V, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&str>,
        metric_type: MetricType,
        rows: impl IntoIterator<Item = (Vec<(&'static str, String)>, V)>,
        metric: impl Fn(V) -> M,
    ) -> fmt::Result {
        let unit = unit.map(|unit| Unit::Other(unit.to_owned()));
        let mut family = self.encoder.encode_descriptor(name, help, unit.as_ref(), metric_type)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                return metric(value).encode(family);
            }
            metric(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Bounds and counts as the encoder wants them: those of each bucket alone, the last without a bound. Ours are cumulative, and
/// their bounds are exclusive: of whole packets the largest below it is the bound; whole microseconds were cut off, so the time
/// itself is below the bound as well.
fn buckets(histogram: &HistogramInfo, is_time: bool) -> Vec<(f64, u64)> {
    let mut buckets = Vec::with_capacity(histogram.buckets.len() + 1);
    let mut before = 0;
    for bucket in &histogram.buckets {
        let bound = if is_time { bucket.below as f64 / 1e6 } else { bucket.below.saturating_sub(1) as f64 };
        buckets.push((bound, bucket.count.saturating_sub(before)));
        before = bucket.count;
    }
    buckets.push((f64::MAX, histogram.count.saturating_sub(before)));
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack::app::{AppId, AppWorkerId, Key};
    use hoststack::inspect::{AppInfo, AppWorkerInfo, BucketInfo, DropInfo, Outcomes, StageInfo};

    fn sample() -> Answer {
        let drop = |count| DropInfo { reason: "not-accepted".into(), count, help: "a \"cause\"".into() };
        let worker = |number| WorkerInfo {
            worker: number,
            steps: 7,
            tcp: vec![("bytes_in".into(), 9), ("retransmitted_bytes".into(), 3)],
            drops: vec![drop(1), drop(2)],
            ..WorkerInfo::default()
        };
        let bucket = |below, count| BucketInfo { below, count };
        let histogram = |name, worker, unit, buckets| HistogramInfo {
            name,
            worker,
            unit,
            count: 10,
            sum: 2_500_000,
            buckets,
            ..HistogramInfo::default()
        };
        let histograms = vec![
            histogram("connect-latency", None, "us", vec![bucket(8, 99)]),
            histogram("connect-latency", Some(1), "us", vec![bucket(1 << 10, 4), bucket(1 << 11, 9)]),
            histogram("main-step", None, "us", vec![bucket(8, 10)]),
            histogram("rx-vector", Some(0), "packets", vec![bucket(2, 3)]),
        ];
        let mut answer = Answer { workers: vec![worker(0), worker(1)], histograms, ..Answer::default() };
        answer.session_summary.open = 5;
        answer.since.now_us = 90_500_000;
        answer.workers[1].pace.busy_us = 1_500_000;
        answer.workers[1].pace.stages = vec![StageInfo { stage: "timers", total_ns: 250, share_permille: 9 }];
        let key = Key { slot: 0, generation: 0 };
        let app_worker = AppWorkerInfo {
            unit: 2,
            state: "attached".into(),
            half_opens: 0,
            sessions: vec![3, 4],
            listeners: Vec::new(),
            outcomes: Outcomes::default(),
            id: AppWorkerId(key),
        };
        let name = "a\"b".to_owned();
        let (app, id) = (name.clone(), AppId(key));
        answer.apps = vec![AppInfo { app, name, detaching: false, app_workers: vec![app_worker], id }];
        answer
    }

    fn sample_text() -> String {
        let channel = ChannelInfo {
            kind: "commands",
            from: "main".into(),
            to: "worker 0".into(),
            waiting: 5,
            ..ChannelInfo::default()
        };
        openmetrics(sample(), vec![channel])
    }

    #[test]
    fn families_have_their_units_and_labels_and_the_text_its_end() {
        let text = sample_text();
        for line in [
            "hoststack_build_info{version=\"0.1.0\"} 1",
            "# TYPE hoststack_build info",
            "hoststack_uptime_seconds 90.5",
            "# TYPE hoststack_worker_steps counter",
            "hoststack_worker_steps_total{worker=\"1\"} 7",
            "# UNIT hoststack_tcp_received_bytes bytes",
            "hoststack_tcp_received_bytes_total{worker=\"0\"} 9",
            "hoststack_tcp_retransmitted_bytes_total{worker=\"0\"} 3",
            "hoststack_tcp_segments_in_total{worker=\"0\"} 0",
            "hoststack_drops_total{worker=\"1\",reason=\"not-accepted\"} 3",
            "hoststack_sessions{state=\"open\"} 5",
            "hoststack_main_steps_total 0",
            "hoststack_channel_waiting{channel=\"commands\",from=\"main\",to=\"worker 0\"} 5",
            "hoststack_app_sessions{app=\"a\\\"b\",app_worker=\"2\",worker=\"1\"} 4",
            "# UNIT hoststack_thread_busy_seconds seconds",
            "hoststack_thread_busy_seconds_total{thread=\"worker 1\"} 1.5",
            "hoststack_thread_stage_seconds_total{thread=\"worker 1\",stage=\"timers\"} 2.5e-7",
        ] {
            assert!(text.lines().any(|has| has == line), "no {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn histograms_have_the_stacks_buckets_in_seconds_or_packets() {
        let text = sample_text();
        for line in [
            "# TYPE hoststack_connect_latency_seconds histogram",
            "# UNIT hoststack_connect_latency_seconds seconds",
            "hoststack_connect_latency_seconds_bucket{le=\"0.001024\",worker=\"1\"} 4",
            "hoststack_connect_latency_seconds_bucket{le=\"0.002048\",worker=\"1\"} 9",
            "hoststack_connect_latency_seconds_bucket{le=\"+Inf\",worker=\"1\"} 10",
            "hoststack_connect_latency_seconds_sum{worker=\"1\"} 2.5",
            "hoststack_connect_latency_seconds_count{worker=\"1\"} 10",
            "hoststack_main_step_seconds_count 10",
            "hoststack_worker_rx_vector_packets_bucket{le=\"1.0\",worker=\"0\"} 3",
        ] {
            assert!(text.lines().any(|has| has == line), "no {line} in\n{text}");
        }
        assert!(!text.contains("} 99"), "the sum of all workers is no series of its own\n{text}");
    }

    #[test]
    fn who_knows_no_openmetrics_gets_the_older_format() {
        for (accept, format) in [
            ("", Format::OpenMetrics),
            ("*/*", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
                Format::OpenMetrics,
            ),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
        let openmetrics = sample_text();
        let text = in_text_format(&openmetrics);
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples(&text), samples(&openmetrics));
        for line in [
            "# HELP hoststack_worker_steps_total Steps taken",
            "# TYPE hoststack_worker_steps_total counter",
            "hoststack_worker_steps_total{worker=\"1\"} 7",
            "# TYPE hoststack_tcp_received_bytes_total counter",
            "# TYPE hoststack_build_info gauge",
            "# TYPE hoststack_sessions gauge",
            "# TYPE hoststack_connect_latency_seconds histogram",
        ] {
            assert!(text.lines().any(|has| has == line), "no {line} in\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    }

    #[test]
    fn no_series_is_there_twice() {
        let text = sample_text();
        let mut series: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, _)| series)
            .collect();
        let count = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), count);
    }

    #[test]
    fn a_name_with_quotes_ends_no_label() {
        assert_eq!(label_value("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
        let labels = app_worker("a\"b", 2);
        assert_eq!(labels, [("app", "a\\\"b".to_owned()), ("app_worker", "2".to_owned())]);
    }
}
