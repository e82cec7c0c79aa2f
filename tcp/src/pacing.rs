//! Pacing: segments are spread over time at a rate, instead of leaving as fast as the window lets them.

use hoststack_transport::{Instant, SocketOptions};

use crate::congestion::{Congestion, CongestionControl};
use crate::connection::Connection;

/// What may be sent at once, in time at the rate: as much as Linux sends in one batch.
const QUANTUM_US: u64 = 1000;

/// The pacing of a connection; one that sends as fast as its window lets it has none.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Before this nothing is sent.
    at: Instant,
    /// When what it held back is looked at again; `FAR` if it holds nothing.
    pub(crate) until: Instant,
    /// No faster than this, in bytes per second.
    rate_max: u64,
    /// Paced though its congestion control does not ask for it.
    is_asked_for: bool,
}

impl Pacer {
    /// What `options` and the congestion control ask for.
    pub(crate) fn of(options: &SocketOptions, cc: &Congestion) -> Option<Pacer> {
        let SocketOptions { pacing, pacing_rate_max, .. } = *options;
        (pacing || pacing_rate_max != u64::MAX || cc.pacing_rate().is_some()).then(|| Pacer {
            is_asked_for: pacing,
            rate_max: pacing_rate_max.max(1),
            ..Pacer::new()
        })
    }

    const fn new() -> Pacer {
        Pacer { at: Instant::ZERO, until: Instant::FAR, rate_max: u64::MAX, is_asked_for: false }
    }
}

impl Connection {
    fn pacer(&mut self) -> &mut Pacer {
        self.extras_mut().pacer.get_or_insert_with(Pacer::new)
    }

    /// From now on no faster than this, in bytes per second.
    pub(crate) fn set_pacing_rate_max(&mut self, rate: u64) {
        self.pacer().rate_max = rate.max(1);
    }

    /// The congestion control changed.
    pub(crate) fn follow_congestion(&mut self) {
        if self.cc.pacing_rate().is_some() {
            self.pacer();
        }
    }

    /// Bytes per second; `None`: not paced.
    pub(crate) fn pacing_rate(&self) -> Option<u64> {
        let pacer = self.extras.as_ref()?.pacer.as_ref()?;
        let rate = match self.cc.pacing_rate() {
            Some(rate) => Some(rate),
            None if pacer.is_asked_for => self.window_rate(),
            None => None,
        };
        match (rate, pacer.rate_max) {
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

    /// Whether the next segment must wait; if so, it is looked at again when it need not.
    #[inline]
    pub(crate) fn is_paced_out(&mut self, now: Instant) -> bool {
        let Some(pacer) = self.extras.as_mut().and_then(|extras| extras.pacer.as_mut()) else { return false };
        if pacer.at <= now.plus_micros(QUANTUM_US) {
            return false;
        }
        pacer.until = pacer.at;
        true
    }

    /// Whether what pacing held back is due now.
    pub(crate) fn take_paced(&mut self, now: Instant) -> bool {
        match self.extras.as_mut().and_then(|extras| extras.pacer.as_mut()) {
            Some(pacer) if pacer.until <= now => {
                pacer.until = Instant::FAR;
                true
            }
            _ => false,
        }
    }

    /// `len` bytes were sent.
    #[inline]
    pub(crate) fn pace(&mut self, now: Instant, len: u32) {
        if let Some(rate) = self.pacing_rate() {
            let took_us = u64::from(len) * 1_000_000 / rate.max(1);
            let pacer = self.pacer();
            pacer.at = pacer.at.max(now).plus_micros(took_us);
        }
    }
}
