//! What an echo run was: as text, as JSON, and whether it was as it should be.

use std::sync::Arc;

use hoststack::app::{DetachReport, HalfOpenCounters, WorkerDetachReport};
use hoststack::inspect::SessionSummary;
use hoststack::net::ImpairmentCounters;
use hoststack::{Answer, Leaks};
use hoststack_builtin::{EchoClientTotals, HistogramSummary};
use serde::Serialize;

use super::EchoArgs;
use crate::ctl::format;
use crate::ctl::show::errors::Errors;
use crate::table::{bytes, grouped, pairs, span_us};

/// What the client did.
pub(super) struct Outcome {
    pub(super) totals: EchoClientTotals,
    /// How the detach under way (`--detach-at`) ended.
    pub(super) detach: Option<WorkerDetachReport>,
    pub(super) latency: HistogramSummary,
    /// How the detach at the end went.
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
    transport: &'static str,
    sessions_requested: u64,
    connected: u64,
    refused: u64,
    timed_out: u64,
    unreachable: u64,
    cancelled: u64,
    /// Cancels that were asked for (`--cancel`), those that came too late among them.
    cancels: u64,
    detached: u64,
    /// No free port, no such address, no room, or never asked for.
    failed: u64,
    undelivered: u64,
    /// Sessions that ended as both ends wanted, after every byte had come back.
    closed: u64,
    /// Sessions that were cut off, or ended before every byte had come back, but not by the detach under way.
    broken: u64,
    /// Connects without an outcome, and sessions, that the detach under way (`--detach-at`) found.
    half_opens_at_detach: usize,
    sessions_at_detach: usize,
    /// Of those sessions, the ones that the client had been told of and now was told of their end.
    reset_by_detach: u64,
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
    /// For the verdict: sessions that the detach at the end had to reset.
    #[serde(skip)]
    sessions_reset: usize,
    /// For the text: the connect behind which the detach under way came.
    #[serde(skip)]
    detach_at: Option<u32>,
}

impl Outcome {
    /// The connect outcomes of every app worker that the client has had.
    fn outcomes(&self) -> HalfOpenCounters {
        let mut all = self.report.outcomes();
        let knows = |detach: &&WorkerDetachReport| {
            self.report.app_workers.iter().any(|report| report.app_worker == detach.app_worker)
        };
        // An interrupt may have begun the detach of the app while that of the app worker was under way.
        if let Some(detach) = self.detach.as_ref().filter(|detach| !knows(detach)) {
            all.merge(&detach.outcomes);
        }
        all
    }
}

impl Summary {
    pub(super) fn new(
        args: &EchoArgs,
        outcome: &Outcome,
        end: &Answer,
        wires: &[Arc<ImpairmentCounters>],
        addresses: usize,
    ) -> Summary {
        let Outcome { totals, detach, latency, report, held, seconds, cpu_seconds, interrupted: _ } = outcome;
        let outcomes = outcome.outcomes();
        let per_second = |count: f64| if *seconds > 0.0 { count / seconds } else { 0.0 };
        let sum = |read: fn(&ImpairmentCounters) -> u64| wires.iter().map(|wire| read(wire)).sum::<u64>();
        // Over a device the wire's other direction is the peer's: what arrived of it was counted by the workers.
        let received =
            if args.device.is_some() { end.workers.iter().map(|worker| worker.rx_packets).sum() } else { 0 };
        Summary {
            transport: args.transport.name(),
            sessions_requested: u64::from(args.sessions),
            connected: totals.connected,
            refused: totals.refused,
            timed_out: totals.timed_out,
            unreachable: totals.unreachable,
            cancelled: totals.cancelled,
            cancels: totals.cancels,
            detached: totals.detached,
            failed: totals.failed,
            undelivered: outcomes.undelivered,
            closed: totals.closed_ok,
            broken: totals.closed_short + totals.reset - totals.reset_by_detach,
            half_opens_at_detach: detach.as_ref().map_or(0, |report| report.half_opens),
            sessions_at_detach: detach.as_ref().map_or(0, |report| report.sessions),
            reset_by_detach: totals.reset_by_detach,
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
            detach_at: args.detach_at().filter(|_| detach.is_some()),
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
            false => format!("{}\n", Errors::of(&end.workers, true).text()),
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
            ("reset by the detach", self.reset_by_detach),
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
        if self.cancels > 0 {
            let cancels = format!(
                "{} asked for, {} of them before another outcome",
                grouped(self.cancels),
                grouped(self.cancelled)
            );
            lines.push(("cancels", cancels));
        }
        if let Some(connect) = self.detach_at {
            let detach = format!(
                "behind connect {}, with {} half-opens pending and {} sessions",
                grouped(u64::from(connect)),
                grouped(self.half_opens_at_detach as u64),
                grouped(self.sessions_at_detach as u64)
            );
            lines.push(("detach", detach));
        }
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
        // Each connect has one outcome: it came up, or what was asked for kept it from that.
        let cancelled = if args.cancel > 0.0 { self.cancelled } else { 0 };
        let detached = if args.detach_at.is_some() { self.detached } else { 0 };
        let wanted = sessions.saturating_sub(cancelled).saturating_sub(detached);
        let cut = if args.detach_at.is_some() { self.reset_by_detach } else { 0 };
        let lived = self.connected.saturating_sub(cut);
        // Held sessions are closed by the detach, after the client has counted.
        let ended = self.held.map_or(self.closed, |held| held.sessions);
        // Of a session that was cut off, any number of bytes may have come back.
        let bytes = lived.saturating_mul(args.bytes)..=self.connected.saturating_mul(args.bytes);
        let wrongs = [
            (self.connected != wanted, format!("{} of {wanted} sessions connected", self.connected)),
            (ended != lived, format!("{ended} of {lived} sessions ended as they should")),
            (self.broken > 0, format!("{} sessions were cut off or ended early", self.broken)),
            (self.sessions_reset > 0, format!("{} sessions were reset by the detach", self.sessions_reset)),
            (
                !bytes.contains(&self.bytes_echoed)
                    || !bytes.contains(&self.bytes_sent)
                    || self.bytes_echoed > self.bytes_sent,
                format!("{} of {} bytes came back", self.bytes_echoed, bytes.start()),
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
