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
    /// It held something back, and since then has not caught up with its rate.
    is_behind: bool,
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
        Pacer {
            at: Instant::ZERO,
            until: Instant::FAR,
            is_behind: false,
            rate_max: u64::MAX,
            is_asked_for: false,
        }
    }

    /// Whether the next segment must wait, and the time to look at it again with it.
    fn holds_back(&mut self, now: Instant) -> bool {
        if self.at <= now.plus_micros(QUANTUM_US) {
            return false;
        }
        self.until = self.at;
        self.is_behind = true;
        true
    }

    /// What takes `took_us` at the rate was sent.
    fn on_sent(&mut self, now: Instant, took_us: u64) {
        if self.is_behind && self.at < now {
            // The timer was late, as it is each time on a busy machine: what should have gone meanwhile goes now, or the
            // rate would never be reached. No more than a quantum: who is so late loses the rest.
            let late_us = now.micros_since(self.at).min(QUANTUM_US);
            self.at = Instant::from_micros(now.as_micros() - late_us).plus_micros(took_us);
        } else {
            self.at = self.at.max(now).plus_micros(took_us);
            self.is_behind = false;
        }
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
        pacer.holds_back(now)
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

    /// What may be sent was; `is_paced` if pacing holds more back. If something else does, no timer is waited for.
    #[inline]
    pub(crate) fn note_unpaced(&mut self, is_paced: bool) {
        if let Some(pacer) = self.extras.as_mut().and_then(|extras| extras.pacer.as_mut()) {
            pacer.is_behind &= is_paced;
        }
    }

    /// `len` bytes were sent.
    #[inline]
    pub(crate) fn pace(&mut self, now: Instant, len: u32) {
        if let Some(rate) = self.pacing_rate() {
            let took_us = u64::from(len) * 1_000_000 / rate.max(1);
            self.pacer().on_sent(now, took_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many segments of 100 us go in 100 ms if the timer is `late_us` late each time.
    fn sent_with_a_timer_late_by(late_us: u64) -> u64 {
        let (mut pacer, mut now, mut sent) = (Pacer::new(), Instant::from_millis(1000), 0);
        while now < Instant::from_millis(1100) {
            while !pacer.holds_back(now) {
                pacer.on_sent(now, 100);
                sent += 1;
            }
            now = pacer.until.plus_micros(late_us);
        }
        sent
    }

    #[test]
    fn a_timer_that_is_always_late_does_not_lower_the_rate() {
        for late_us in [0, 1, 250, 999] {
            let sent = sent_with_a_timer_late_by(late_us);
            // A quantum more or less, at the beginning and at the end.
            assert!((990..=1020).contains(&sent), "{sent} with {late_us} us");
        }
        // Beyond a quantum what was missed is lost: 2 ms are sent in 3.
        assert!(sent_with_a_timer_late_by(2000) < 700);
    }
}
