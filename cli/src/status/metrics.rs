//! The stack's figures as OpenMetrics text, for Prometheus.
//!
//! Names begin with `hoststack_` and end in their unit; counters end in `_total`; everything of a worker has the label
//! `worker`, everything of an app worker `app` and `app_worker`. A counter that the stack has is there from the beginning, 0
//! if nothing happened, so that its first increase is seen. A new figure of the stack is one more line in [`Snapshot::encode`].

use std::collections::BTreeMap;
use std::fmt;

use hoststack::Answer;
use hoststack::inspect::WorkerInfo;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::overview::session_states;

/// The media type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text.
pub(super) fn openmetrics(answer: &Answer) -> String {
    let mut registry = Registry::with_prefix("hoststack");
    registry.register_collector(Box::new(Snapshot { answer: answer.clone() }));
    let mut encoded = String::new();
    text::encode(&mut encoded, &registry)
        .expect("cannot fail because writing to a string cannot, and no metric refuses to be written");
    encoded
}

#[derive(Debug)]
struct Snapshot {
    answer: Answer,
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out { encoder };
        self.build(&mut out)?;
        self.main(&mut out)?;
        self.sessions(&mut out)?;
        self.workers(&mut out)?;
        self.tcp(&mut out)?;
        self.drops(&mut out)?;
        self.apps(&mut out)
        // Histograms have their place here: `MetricType::Histogram`, written with `encode_histogram`.
    }
}

impl Snapshot {
    fn build(&self, out: &mut Out<'_>) -> fmt::Result {
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        out.gauges("build", "The program", None, [(version, 1)])
    }

    fn main(&self, out: &mut Out<'_>) -> fmt::Result {
        let main = &self.answer.main;
        out.counters("main_steps", "Steps of main", None, [(none(), main.steps)])?;
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

    fn family<M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&str>,
        metric_type: MetricType,
        rows: impl IntoIterator<Item = (Vec<(&'static str, String)>, u64)>,
        metric: impl Fn(u64) -> M,
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

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack::inspect::DropInfo;

    fn sample() -> Answer {
        let drop = |count| DropInfo { reason: "not-accepted".into(), count, help: "a \"cause\"".into() };
        let worker = |number| WorkerInfo {
            worker: number,
            steps: 7,
            tcp: vec![("bytes_in".into(), 9), ("retransmitted_bytes".into(), 3)],
            drops: vec![drop(1), drop(2)],
            ..WorkerInfo::default()
        };
        let mut answer = Answer { workers: vec![worker(0), worker(1)], ..Answer::default() };
        answer.session_summary.open = 5;
        answer
    }

    #[test]
    fn families_have_their_units_and_labels_and_the_text_its_end() {
        let text = openmetrics(&sample());
        for line in [
            "hoststack_build{version=\"0.1.0\"} 1",
            "# TYPE hoststack_worker_steps counter",
            "hoststack_worker_steps_total{worker=\"1\"} 7",
            "# UNIT hoststack_tcp_received_bytes bytes",
            "hoststack_tcp_received_bytes_total{worker=\"0\"} 9",
            "hoststack_tcp_retransmitted_bytes_total{worker=\"0\"} 3",
            "hoststack_tcp_segments_in_total{worker=\"0\"} 0",
            "hoststack_drops_total{worker=\"1\",reason=\"not-accepted\"} 3",
            "hoststack_sessions{state=\"open\"} 5",
            "hoststack_main_steps_total 0",
        ] {
            assert!(text.lines().any(|has| has == line), "no {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn no_series_is_there_twice() {
        let text = openmetrics(&sample());
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
