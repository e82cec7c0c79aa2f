//! `ping`: a line per request, and a summary.

use hoststack::ping::{PingOutcome, PingResult};
use serde::Serialize;

use crate::table::span_us;

/// A request's result.
pub(crate) fn line(result: &PingResult) -> String {
    let seq = result.seq;
    match &result.outcome {
        PingOutcome::Reply { from, rtt_us, hop_limit, bytes, is_intact } => {
            let damage = if *is_intact { "" } else { ", not the data that was sent" };
            format!(
                "{seq}: reply of {bytes} bytes from {from}: ttl {hop_limit}, {}{damage}",
                span_us(*rtt_us)
            )
        }
        PingOutcome::Error { from, rtt_us, kind, code, mtu } => {
            let mtu = mtu.map_or(String::new(), |mtu| format!(", MTU {mtu}"));
            format!("{seq}: {kind} (code {code}{mtu}) from {from}: {}", span_us(*rtt_us))
        }
        PingOutcome::NotSent { reason, help } => format!("{seq}: not sent: {reason}: {help}"),
        PingOutcome::TimedOut { after_us } => format!("{seq}: no answer in {}", span_us(*after_us)),
    }
}

/// What all requests together say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// Requests whose end is known.
    pub(crate) requests: usize,
    /// Replies.
    pub(crate) replies: usize,
    /// Of a hundred requests, those without a reply; rounded down.
    pub(crate) lost_percent: usize,
    /// The shortest round trip; none without a reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_min_us: Option<u64>,
    /// The one that half of them do not exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_median_us: Option<u64>,
    /// The longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_max_us: Option<u64>,
}

impl Summary {
    /// The summary of these.
    pub(crate) fn of(results: &[PingResult]) -> Summary {
        let mut times: Vec<u64> = results
            .iter()
            .filter_map(|result| match result.outcome {
                PingOutcome::Reply { rtt_us, .. } => Some(rtt_us),
                _ => None,
            })
            .collect();
        times.sort_unstable();
        let (requests, replies) = (results.len(), times.len());
        Summary {
            requests,
            replies,
            lost_percent: ((requests - replies) * 100).checked_div(requests).unwrap_or(0),
            rtt_min_us: times.first().copied(),
            rtt_median_us: times.get(replies / 2).copied(),
            rtt_max_us: times.last().copied(),
        }
    }
}

/// The summary in a line.
pub(crate) fn summary(results: &[PingResult]) -> String {
    let Summary { requests, replies, lost_percent, rtt_min_us, rtt_median_us, rtt_max_us } =
        Summary::of(results);
    let requests = if requests == 1 { "1 request".to_owned() } else { format!("{requests} requests") };
    let replies = if replies == 1 { "1 reply".to_owned() } else { format!("{replies} replies") };
    let text = format!("{requests}, {replies}, {lost_percent}% lost");
    match (rtt_min_us, rtt_median_us, rtt_max_us) {
        (Some(min), Some(median), Some(max)) => {
            format!("{text}; round trip {} to {}, median {}\n", span_us(min), span_us(max), span_us(median))
        }
        _ => text + "\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn each_outcome_is_a_line() {
        let from: IpAddr = "10.0.0.2".parse().unwrap();
        let reply = |seq, rtt_us, is_intact| PingResult {
            seq,
            outcome: PingOutcome::Reply { from, rtt_us, hop_limit: 64, bytes: 56, is_intact },
        };
        let error =
            PingOutcome::Error { from, rtt_us: 2000, kind: "packet-too-big", code: 4, mtu: Some(1400) };
        let not_sent =
            PingOutcome::NotSent { reason: "no-route", help: "No route leads to the destination." };
        let results = [
            reply(1, 250, true),
            reply(2, 1250, false),
            PingResult { seq: 3, outcome: error },
            PingResult { seq: 4, outcome: not_sent },
            PingResult { seq: 5, outcome: PingOutcome::TimedOut { after_us: 4_000_000 } },
        ];
        let lines: Vec<String> = results.iter().map(line).collect();
        assert_eq!(
            lines,
            [
                "1: reply of 56 bytes from 10.0.0.2: ttl 64, 250 us",
                "2: reply of 56 bytes from 10.0.0.2: ttl 64, 1.2 ms, not the data that was sent",
                "3: packet-too-big (code 4, MTU 1400) from 10.0.0.2: 2.0 ms",
                "4: not sent: no-route: No route leads to the destination.",
                "5: no answer in 4.00 s",
            ]
        );
        assert_eq!(
            summary(&results),
            "5 requests, 2 replies, 60% lost; round trip 250 us to 1.2 ms, median 1.2 ms\n"
        );
        assert_eq!(summary(&results[4..]), "1 request, 0 replies, 100% lost\n");
        assert_eq!(summary(&[]), "0 requests, 0 replies, 0% lost\n");
    }

    #[test]
    fn a_result_as_json_names_its_outcome() {
        let result = PingResult { seq: 2, outcome: PingOutcome::TimedOut { after_us: 7 } };
        let json = serde_json::to_string(&result).unwrap();
        assert_eq!(json, r#"{"seq":2,"outcome":"timed-out","after_us":7}"#);
    }
}
