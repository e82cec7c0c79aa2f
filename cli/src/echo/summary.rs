//! What an echo run was: as text, as JSON, and whether it was as it should be.

use std::sync::Arc;

use hoststack::app::DetachReport;
use hoststack::inspect::SessionSummary;
use hoststack::net::ImpairmentCounters;
use hoststack::{Answer, Leaks};
use hoststack_builtin::{EchoClientTotals, HistogramSummary};
use serde::Serialize;

use super::EchoArgs;
use crate::ctl::format;
use crate::table::{bytes, grouped, pairs, span_us};

/// What the client did.
pub(super) struct Outcome {
    pub(super) totals: EchoClientTotals,
    pub(super) latency: HistogramSummary,
    pub(super) report: DetachReport,
    pub(super) held: Option<Held>,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) interrupted: bool,
}

/// What was seen while all sessions were open (`--hold`).
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Held {
    /// The client's sessions that were open, all bytes echoed.
    pub(super) sessions: u64,
    /// How long `show session` took.
    pub(super) show_session_seconds: f64,
    /// And what it showed: both ends' sessions.
    pub(super) session_summary: SessionSummary,
}

/// What packets went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Wire {
    /// Packets given to the wire, in both directions.
    segments: u64,
    dropped: u64,
    reordered: u64,
    duplicated: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Latency {
    p50: u64,
    p99: u64,
    max: u64,
}

/// The JSON object of `hoststack echo --json`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    sessions_requested: u64,
    connected: u64,
    refused: u64,
    timed_out: u64,
    unreachable: u64,
    cancelled: u64,
    detached: u64,
    /// No free port, no such address, no room, or never asked for.
    failed: u64,
    undelivered: u64,
    /// Sessions that ended as both ends wanted, after every byte had come back.
    closed: u64,
    /// Sessions that were cut off, or ended before every byte had come back.
    broken: u64,
    bytes_sent: u64,
    bytes_echoed: u64,
    bytes_mismatched: u64,
    retransmitted_segments: u64,
    wire: Wire,
    seconds: f64,
    cpu_seconds: f64,
    connects_per_second: f64,
    echo_gbits_per_second: f64,
    connect_latency_us: Latency,
    half_opens_cleaned: u64,
    addresses: usize,
    time_wait: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Held>,
    leaks: Leaks,
    /// For the verdict: sessions that the detach had to reset.
    #[serde(skip)]
    sessions_reset: usize,
}

impl Summary {
    pub(super) fn new(
        args: &EchoArgs,
        outcome: &Outcome,
        end: &Answer,
        wires: &[Arc<ImpairmentCounters>],
        addresses: usize,
    ) -> Summary {
        let Outcome { totals, latency, report, held, seconds, cpu_seconds, interrupted: _ } = outcome;
        let outcomes = report.outcomes();
        let per_second = |count: f64| if *seconds > 0.0 { count / seconds } else { 0.0 };
        let sum = |read: fn(&ImpairmentCounters) -> u64| wires.iter().map(|wire| read(wire)).sum::<u64>();
        // Over a device the wire's other direction is the peer's: what arrived of it was counted by the workers.
        let received =
            if args.device.is_some() { end.workers.iter().map(|worker| worker.rx_packets).sum() } else { 0 };
        Summary {
            sessions_requested: u64::from(args.sessions),
            connected: totals.connected,
            refused: totals.refused,
            timed_out: totals.timed_out,
            unreachable: totals.unreachable,
            cancelled: totals.cancelled,
            detached: totals.detached,
            failed: totals.failed,
            undelivered: outcomes.undelivered,
            closed: totals.closed_ok,
            broken: totals.closed_short + totals.reset,
            bytes_sent: totals.bytes_sent,
            bytes_echoed: totals.bytes_echoed,
            bytes_mismatched: totals.bytes_mismatched,
            retransmitted_segments: end
                .workers
                .iter()
                .map(|worker| format::counter(worker, "retransmitted_segments"))
                .sum(),
            wire: Wire {
                segments: sum(ImpairmentCounters::segments) + received,
                dropped: sum(ImpairmentCounters::dropped) + sum(ImpairmentCounters::queue_dropped),
                reordered: sum(ImpairmentCounters::reordered),
                duplicated: sum(ImpairmentCounters::duplicated),
            },
            seconds: *seconds,
            cpu_seconds: *cpu_seconds,
            connects_per_second: per_second(totals.connected as f64),
            echo_gbits_per_second: per_second(totals.bytes_echoed as f64 * 8e-9),
            connect_latency_us: Latency { p50: latency.p50, p99: latency.p99, max: latency.max },
            half_opens_cleaned: outcomes.cleaned,
            addresses,
            time_wait: end.time_wait,
            held: *held,
            leaks: end.leaks,
            sessions_reset: report.app_workers.iter().map(|report| report.sessions_reset).sum(),
        }
    }

    /// What goes to standard output.
    pub(super) fn output(&self, json: bool, end: &Answer) -> String {
        if json {
            let text = serde_json::to_string(self);
            return text.expect("cannot fail because every key is a string and no write can fail") + "\n";
        }
        let drops = match end.workers.iter().all(|worker| worker.drops.is_empty()) {
            true => String::new(),
            false => format!("{}\n", format::errors(&end.workers)),
        };
        format!("{}\n{drops}{}", self.text(), format::leaks(&end.leaks, end.time_wait))
    }

    fn text(&self) -> String {
        let failures = [
            ("refused", self.refused),
            ("timed out", self.timed_out),
            ("unreachable", self.unreachable),
            ("cancelled", self.cancelled),
            ("detached", self.detached),
            ("failed", self.failed),
            ("undelivered", self.undelivered),
            ("broken off", self.broken),
        ];
        let failures: Vec<String> = failures
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{} {name}", grouped(*count)))
            .collect();
        let mut lines = vec![
            (
                "sessions",
                format!(
                    "{} requested, {} connected, {} closed{}{}",
                    grouped(self.sessions_requested),
                    grouped(self.connected),
                    grouped(self.closed),
                    if failures.is_empty() { "" } else { ", " },
                    failures.join(", ")
                ),
            ),
            (
                "bytes",
                format!(
                    "{} sent, {} echoed, {} wrong",
                    bytes(self.bytes_sent),
                    bytes(self.bytes_echoed),
                    self.bytes_mismatched
                ),
            ),
            (
                "wire",
                format!(
                    "{} segments, {} dropped, {} reordered, {} duplicated",
                    grouped(self.wire.segments),
                    grouped(self.wire.dropped),
                    grouped(self.wire.reordered),
                    grouped(self.wire.duplicated)
                ),
            ),
            ("retransmitted", format!("{} segments", grouped(self.retransmitted_segments))),
            ("time", format!("{:.3} s, {:.3} s of CPU", self.seconds, self.cpu_seconds)),
            (
                "rate",
                format!(
                    "{} connects/s, {:.3} Gbit/s echoed",
                    grouped(self.connects_per_second as u64),
                    self.echo_gbits_per_second
                ),
            ),
            (
                "connect latency",
                format!(
                    "p50 {}, p99 {}, max {}",
                    span_us(self.connect_latency_us.p50),
                    span_us(self.connect_latency_us.p99),
                    span_us(self.connect_latency_us.max)
                ),
            ),
            ("half-opens", format!("{} cleaned", grouped(self.half_opens_cleaned))),
            ("addresses", self.addresses.to_string()),
        ];
        if let Some(held) = self.held {
            let text = format!(
                "{} sessions at once; `show session` saw {} (both ends) in {}",
                grouped(held.sessions),
                grouped(held.session_summary.total as u64),
                span_us((held.show_session_seconds * 1e6) as u64)
            );
            lines.push(("held", text));
        }
        pairs(lines)
    }

    /// Whether every session ended as it should, and nothing leaked.
    ///
    /// # Errors
    /// What was not as it should be, in one line.
    pub(super) fn verdict(&self, args: &EchoArgs) -> Result<(), String> {
        let sessions = u64::from(args.sessions);
        let expected_bytes = sessions.saturating_mul(args.bytes);
        // Held sessions are closed by the detach, after the client has counted.
        let ended = self.held.map_or(self.closed, |held| held.sessions);
        let wrongs = [
            (self.connected != sessions, format!("{} of {sessions} sessions connected", self.connected)),
            (ended != sessions, format!("{ended} of {sessions} sessions ended as they should")),
            (self.broken > 0, format!("{} sessions were cut off or ended early", self.broken)),
            (self.sessions_reset > 0, format!("{} sessions were reset by the detach", self.sessions_reset)),
            (
                self.bytes_echoed != expected_bytes || self.bytes_sent != expected_bytes,
                format!("{} of {expected_bytes} bytes came back", self.bytes_echoed),
            ),
            (self.bytes_mismatched > 0, format!("{} bytes came back wrong", self.bytes_mismatched)),
            (self.undelivered > 0, format!("{} outcomes were not delivered", self.undelivered)),
            (
                self.half_opens_cleaned != sessions,
                format!("{} of {sessions} half-opens were cleaned", self.half_opens_cleaned),
            ),
            (!self.leaks.is_clean(), "something leaked".to_owned()),
        ];
        let wrongs: Vec<String> =
            wrongs.into_iter().filter_map(|(wrong, text)| wrong.then_some(text)).collect();
        if wrongs.is_empty() { Ok(()) } else { Err(wrongs.join("; ")) }
    }
}

#[cfg(test)]
mod tests;
