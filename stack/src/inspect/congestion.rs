//! How TCP's connections stand with congestion, by algorithm.

use hoststack_tcp::{CongestionState, RecoveryPhase};
use serde::Serialize;

/// All connections of one congestion control algorithm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CongestionInfo {
    /// The algorithm's name.
    pub algorithm: &'static str,
    /// Connections that use it. Each is in slow start, avoidance, fast recovery or loss recovery.
    pub connections: u64,
    /// In slow start, or in BBR's Startup.
    pub slow_start: u64,
    /// In congestion avoidance, or in BBR's other states.
    pub avoidance: u64,
    /// In fast recovery.
    pub fast_recovery: u64,
    /// After a retransmission timeout.
    pub loss_recovery: u64,
    /// Paced, by the algorithm or because the app asked for it.
    pub paced: u64,
    /// Mean congestion window in bytes.
    pub cwnd_mean: u64,
    /// The largest congestion window in bytes.
    pub cwnd_max: u64,
    /// Bytes in flight, together.
    pub flight: u64,
    /// Mean pacing rate of those that are paced, in bytes per second.
    pub pacing_rate_mean: u64,
    /// Connections that have measured a round trip.
    pub measured: u64,
    /// Mean smoothed round-trip time of those, in microseconds.
    pub srtt_mean_us: u64,
    /// The longest smoothed round-trip time in microseconds.
    pub srtt_max_us: u64,
}

/// Sums that become a [`CongestionInfo`], of one slice of one worker or of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct CongestionTally {
    info: CongestionInfo,
    cwnd: u64,
    pacing_rate: u64,
    srtt_us: u64,
}

/// Tallies by algorithm: there are few.
#[derive(Clone, Debug, Default)]
pub(crate) struct CongestionTallies(Vec<CongestionTally>);

impl CongestionTallies {
    fn of(&mut self, algorithm: &'static str) -> &mut CongestionTally {
        let index = self.0.iter().position(|tally| tally.info.algorithm == algorithm);
        let index = index.unwrap_or_else(|| {
            let info = CongestionInfo { algorithm, ..CongestionInfo::default() };
            self.0.push(CongestionTally { info, ..CongestionTally::default() });
            self.0.len() - 1
        });
        &mut self.0[index]
    }

    /// Counts a connection.
    pub(crate) fn add(&mut self, state: &CongestionState) {
        let CongestionState { algorithm, cwnd, is_slow_start, recovery, flight, pacing_rate, srtt_us } =
            *state;
        let tally = self.of(algorithm);
        let info = &mut tally.info;
        info.connections += 1;
        *match recovery {
            RecoveryPhase::Fast => &mut info.fast_recovery,
            RecoveryPhase::Loss => &mut info.loss_recovery,
            RecoveryPhase::Open if is_slow_start => &mut info.slow_start,
            RecoveryPhase::Open => &mut info.avoidance,
        } += 1;
        tally.cwnd += u64::from(cwnd);
        info.cwnd_max = info.cwnd_max.max(cwnd.into());
        info.flight += u64::from(flight);
        if let Some(rate) = pacing_rate {
            info.paced += 1;
            tally.pacing_rate = tally.pacing_rate.saturating_add(rate);
        }
        if let Some(srtt_us) = srtt_us.map(u64::from) {
            info.measured += 1;
            tally.srtt_us += srtt_us;
            info.srtt_max_us = info.srtt_max_us.max(srtt_us);
        }
    }

    /// Adds another slice's.
    pub(crate) fn merge(&mut self, other: &CongestionTallies) {
        for CongestionTally { info: from, cwnd, pacing_rate, srtt_us } in &other.0 {
            let tally = self.of(from.algorithm);
            tally.cwnd += cwnd;
            tally.pacing_rate = tally.pacing_rate.saturating_add(*pacing_rate);
            tally.srtt_us += srtt_us;
            let info = &mut tally.info;
            info.connections += from.connections;
            info.slow_start += from.slow_start;
            info.avoidance += from.avoidance;
            info.fast_recovery += from.fast_recovery;
            info.loss_recovery += from.loss_recovery;
            info.paced += from.paced;
            info.cwnd_max = info.cwnd_max.max(from.cwnd_max);
            info.flight += from.flight;
            info.measured += from.measured;
            info.srtt_max_us = info.srtt_max_us.max(from.srtt_max_us);
        }
    }

    /// What is told of them, by name.
    pub(crate) fn into_infos(self) -> Vec<CongestionInfo> {
        let mean = |sum: u64, count: u64| sum.checked_div(count).unwrap_or(0);
        let mut infos: Vec<_> = self
            .0
            .into_iter()
            .map(|tally| CongestionInfo {
                cwnd_mean: mean(tally.cwnd, tally.info.connections),
                pacing_rate_mean: mean(tally.pacing_rate, tally.info.paced),
                srtt_mean_us: mean(tally.srtt_us, tally.info.measured),
                ..tally.info
            })
            .collect();
        infos.sort_by_key(|info| info.algorithm);
        infos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: CongestionState = CongestionState {
        algorithm: "cubic",
        cwnd: 10_000,
        is_slow_start: true,
        recovery: RecoveryPhase::Open,
        flight: 100,
        pacing_rate: None,
        srtt_us: Some(200),
    };

    #[test]
    fn slices_add_up_to_means_by_algorithm() {
        let (mut one, mut two) = (CongestionTallies::default(), CongestionTallies::default());
        one.add(&STATE);
        one.add(&CongestionState { cwnd: 20_000, is_slow_start: false, srtt_us: Some(600), ..STATE });
        two.add(&CongestionState { recovery: RecoveryPhase::Fast, cwnd: 30_000, srtt_us: None, ..STATE });
        two.add(&CongestionState { recovery: RecoveryPhase::Loss, cwnd: 4_000, srtt_us: None, ..STATE });
        two.add(&CongestionState { algorithm: "bbr", pacing_rate: Some(5_000), ..STATE });
        one.merge(&two);
        let cubic = CongestionInfo {
            algorithm: "cubic",
            connections: 4,
            slow_start: 1,
            avoidance: 1,
            fast_recovery: 1,
            loss_recovery: 1,
            cwnd_mean: 16_000,
            cwnd_max: 30_000,
            flight: 400,
            measured: 2,
            srtt_mean_us: 400,
            srtt_max_us: 600,
            ..CongestionInfo::default()
        };
        let infos = one.into_infos();
        assert_eq!(infos[1], cubic);
        assert_eq!((infos[0].algorithm, infos[0].paced, infos[0].pacing_rate_mean), ("bbr", 1, 5_000));
        assert_eq!(infos.len(), 2);
    }
}
