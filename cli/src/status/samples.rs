//! Five minutes of the stack's figures, a sample a second: what the plots draw and rates are made of.

use std::collections::VecDeque;

use hoststack::Answer;

/// Samples that are kept.
pub(super) const KEPT: usize = 300;

/// What a sample has: gauges and counters of the whole stack, under stable names.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Seconds since the server began.
    pub(super) at: f64,
    /// Sessions there are.
    pub(super) sessions: u64,
    /// Half-open sessions there are.
    pub(super) half_opens: u64,
    /// Connects asked for, so far.
    pub(super) requested: u64,
    /// Connects that came up, so far.
    pub(super) established: u64,
    /// Connects that did not, so far.
    pub(super) failed: u64,
    /// TCP connections accepted, so far.
    pub(super) accepted: u64,
    /// Packets from devices, so far.
    pub(super) rx_packets: u64,
    /// Packets to devices, so far.
    pub(super) tx_packets: u64,
    /// Bytes that TCP received in order, so far.
    pub(super) rx_bytes: u64,
    /// Bytes that TCP sent for the first time, so far.
    pub(super) tx_bytes: u64,
    /// Segments sent again, so far.
    pub(super) retransmitted: u64,
    /// Packets and segments dropped, so far.
    pub(super) dropped: u64,
    /// Callbacks made, so far.
    pub(super) callbacks: u64,
}

impl Sample {
    /// What `answer` says, taken at `at`.
    pub(super) fn of(answer: &Answer, at: f64) -> Sample {
        let mut sample =
            Sample { at, half_opens: answer.main.half_open_sessions as u64, ..Sample::default() };
        for worker in &answer.workers {
            sample.sessions += worker.sessions as u64;
            sample.rx_packets += worker.rx_packets;
            sample.tx_packets += worker.tx_packets;
            sample.callbacks += worker.callbacks;
            sample.dropped += worker.drops.iter().map(|drop| drop.count).sum::<u64>();
            for (name, count) in &worker.tcp {
                match name.as_str() {
                    "established_passive" => sample.accepted += count,
                    "bytes_in" => sample.rx_bytes += count,
                    "bytes_out" => sample.tx_bytes += count,
                    "retransmitted_segments" => sample.retransmitted += count,
                    _ => {}
                }
            }
        }
        for outcomes in answer.apps.iter().flat_map(|app| &app.app_workers).map(|worker| &worker.outcomes) {
            sample.requested += outcomes.requested;
            sample.established += outcomes.established;
            sample.failed += outcomes.refused
                + outcomes.timed_out
                + outcomes.unreachable
                + outcomes.cancelled
                + outcomes.detached
                + outcomes.failed;
        }
        sample
    }
}

/// The last samples, one a second; a second in which the stack did not answer is a gap.
#[derive(Debug, Default)]
pub(super) struct Samples {
    ring: VecDeque<Option<Sample>>,
}

impl Samples {
    /// Adds a second.
    pub(super) fn push(&mut self, sample: Option<Sample>) {
        if self.ring.len() == KEPT {
            self.ring.pop_front();
        }
        self.ring.push_back(sample);
    }

    /// A gauge, oldest first.
    pub(super) fn gauge(&self, value: impl Fn(&Sample) -> u64) -> Vec<Option<f64>> {
        self.ring.iter().map(|sample| sample.as_ref().map(|sample| value(sample) as f64)).collect()
    }

    /// What a counter grew by per second, oldest first; one point less than there are samples. An app that is gone takes its
    /// counters along: that is a gap, and no rate.
    pub(super) fn rate(&self, value: impl Fn(&Sample) -> u64) -> Vec<Option<f64>> {
        let rate = |before: &Option<Sample>, after: &Option<Sample>| {
            let (before, after) = (before.as_ref()?, after.as_ref()?);
            let seconds = after.at - before.at;
            let grown = value(after).checked_sub(value(before))?;
            (seconds > 0.0).then(|| grown as f64 / seconds)
        };
        self.ring.iter().zip(self.ring.iter().skip(1)).map(|(before, after)| rate(before, after)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: f64, requested: u64) -> Option<Sample> {
        Some(Sample { at, requested, ..Sample::default() })
    }

    #[test]
    fn rates_are_per_second_and_a_second_without_an_answer_is_a_gap() {
        let mut samples = Samples::default();
        for second in
            [sample(0.0, 10), sample(1.0, 30), sample(3.0, 40), None, sample(5.0, 50), sample(6.0, 5)]
        {
            samples.push(second);
        }
        assert_eq!(samples.rate(|s| s.requested), [Some(20.0), Some(5.0), None, None, None]);
        assert_eq!(samples.gauge(|s| s.requested)[..4], [Some(10.0), Some(30.0), Some(40.0), None]);
    }

    #[test]
    fn five_minutes_are_kept() {
        let mut samples = Samples::default();
        (0..KEPT as u64 + 10).for_each(|second| samples.push(sample(second as f64, second)));
        let kept = samples.gauge(|s| s.requested);
        assert_eq!((kept.len(), kept[0], kept[KEPT - 1]), (KEPT, Some(10.0), Some(KEPT as f64 + 9.0)));
    }
}
