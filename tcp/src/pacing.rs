//! Pacing: segments are spread over time at a rate, instead of leaving as fast as the window lets them.

use hoststack_transport::Instant;

use crate::congestion::CongestionControl;
use crate::connection::Connection;

/// What may be sent at once, in time at the rate: as much as Linux sends in one batch.
const QUANTUM_US: u64 = 1000;

impl Connection {
    /// Bytes per second; `None`: not paced.
    pub(crate) fn pacing_rate(&self) -> Option<u64> {
        let rate = match self.cc.pacing_rate() {
            Some(rate) => Some(rate),
            None if self.is_paced => self.window_rate(),
            None => None,
        };
        match (rate, self.pacing_rate_max) {
            (rate, u64::MAX) => rate,
            (rate, most) => Some(rate.map_or(most, |rate| rate.min(most))),
        }
    }

    /// A window in a round trip: twice as fast in slow start, that the window may double, and a fifth faster later, so
    /// that pacing never is what limits the window.
    fn window_rate(&self) -> Option<u64> {
        let srtt_us = self.rtt.srtt_us()?;
        let window = u64::from(self.cc.window());
        let percent = if self.cc.window() < self.cc.ssthresh() / 2 { 200 } else { 120 };
        Some((window * percent * 10_000 / u64::from(srtt_us.max(1))).max(1))
    }

    /// Whether the next segment must wait for `pace_at`.
    #[inline]
    pub(crate) fn is_paced_out(&self, now: Instant) -> bool {
        self.pace_at > now.plus_micros(QUANTUM_US)
    }

    /// `len` bytes were sent.
    #[inline]
    pub(crate) fn pace(&mut self, now: Instant, len: u32) {
        if let Some(rate) = self.pacing_rate() {
            let took_us = u64::from(len) * 1_000_000 / rate.max(1);
            self.pace_at = self.pace_at.max(now).plus_micros(took_us);
        }
    }
}
