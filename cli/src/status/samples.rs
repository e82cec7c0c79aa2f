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
    /// The share of the last seconds that the busiest worker worked, in thousandths.
    pub(super) busiest_permille: u64,
    /// The same of main.
    pub(super) main_permille: u64,
    /// Sessions announced as connected, so far.
    pub(super) connected: u64,
    /// Connects whose failure was told, so far.
    pub(super) failed: u64,
    /// Sessions announced as accepted, so far.
    pub(super) accepted: u64,
    /// Announced sessions that ended, so far.
    pub(super) ended: u64,
    /// Packets from devices, so far.
    pub(super) rx_packets: u64,
    /// Packets to devices, so far.
    pub(super) tx_packets: u64,
    /// Bytes that came for apps, over all transports, so far.
    pub(super) rx_bytes: u64,
    /// Bytes of apps that went, over all transports, so far.
    pub(super) tx_bytes: u64,
    /// Segments sent again, so far.
    pub(super) retransmitted: u64,
    /// Packets and segments dropped, so far.
    pub(super) dropped: u64,
}

impl Sample {
    /// What `answer` says, taken at `at`.
    pub(super) fn of(answer: &Answer, at: f64) -> Sample {
        let mut sample = Sample {
            at,
            half_opens: answer.main.half_open_sessions as u64,
            main_permille: answer.main.pace.load_recent_permille.into(),
            ..Sample::default()
        };
        for worker in &answer.workers {
            sample.sessions += worker.sessions as u64;
            sample.busiest_permille = sample.busiest_permille.max(worker.pace.load_recent_permille.into());
            sample.connected += worker.connects;
            sample.failed += worker.connect_failures;
            sample.accepted += worker.accepts;
            sample.ended += worker.ends;
            sample.rx_packets += worker.rx_packets;
            sample.tx_packets += worker.tx_packets;
            sample.rx_bytes += worker.bytes_in;
            sample.tx_bytes += worker.bytes_out;
            sample.dropped += worker.drops.iter().map(|drop| drop.count).sum::<u64>();
            let retransmitted = worker.tcp.iter().find(|(name, _)| name == "retransmitted_segments");
            sample.retransmitted += retransmitted.map_or(0, |(_, count)| *count);
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

    /// What a counter grew by per second, oldest first; one point less than there are samples. Counters that were cleared
    /// meanwhile are a gap, and no rate.
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
    use hoststack::inspect::{PaceInfo, WorkerInfo};

    fn sample(at: f64, connected: u64) -> Option<Sample> {
        Some(Sample { at, connected, ..Sample::default() })
    }

    #[test]
    fn rates_are_per_second_and_a_second_without_an_answer_is_a_gap() {
        let mut samples = Samples::default();
        for second in
            [sample(0.0, 10), sample(1.0, 30), sample(3.0, 40), None, sample(5.0, 50), sample(6.0, 5)]
        {
            samples.push(second);
        }
        assert_eq!(samples.rate(|s| s.connected), [Some(20.0), Some(5.0), None, None, None]);
        assert_eq!(samples.gauge(|s| s.connected)[..4], [Some(10.0), Some(30.0), Some(40.0), None]);
    }

    #[test]
    fn a_sample_is_all_workers_together_and_the_busiest_of_them() {
        let worker = |load_recent_permille, accepts| WorkerInfo {
            pace: PaceInfo { load_recent_permille, ..PaceInfo::default() },
            accepts,
            bytes_in: 10,
            tcp: vec![("retransmitted_segments".to_owned(), 2)],
            ..WorkerInfo::default()
        };
        let mut answer = Answer { workers: vec![worker(800, 3), worker(20, 4)], ..Answer::default() };
        answer.main.pace.load_recent_permille = 7;
        let expected = Sample {
            at: 1.0,
            busiest_permille: 800,
            main_permille: 7,
            accepted: 7,
            rx_bytes: 20,
            retransmitted: 4,
            ..Sample::default()
        };
        assert_eq!(Sample::of(&answer, 1.0), expected);
    }

    #[test]
    fn five_minutes_are_kept() {
        let mut samples = Samples::default();
        (0..KEPT as u64 + 10).for_each(|second| samples.push(sample(second as f64, second)));
        let kept = samples.gauge(|s| s.connected);
        assert_eq!((kept.len(), kept[0], kept[KEPT - 1]), (KEPT, Some(10.0), Some(KEPT as f64 + 9.0)));
    }
}
