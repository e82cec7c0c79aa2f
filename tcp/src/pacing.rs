//! Pacing: segments are spread over time at a rate, instead of leaving as fast as the window lets them.

use hoststack_transport::{Instant, SocketOptions};

use crate::congestion::{Congestion, CongestionControl};
use crate::connection::Connection;

/// What may be sent at once, in time at the rate: as much as Linux sends in one batch.
const QUANTUM_US: u64 = 1000;

/// What was due while the sender was late is made up for, up to this, in time at the rate: a thread may be woken that late
/// on a busy machine. No more than the part of the round trip that [`LATE_SHARE`] says, which the path's queue has room for.
const LATE_US_MAX: u64 = 20_000;
/// See [`LATE_US_MAX`].
const LATE_SHARE: u64 = 2;

/// The pacing of a connection; one that sends as fast as its window lets it has none.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Before this nothing is sent.
    at: Instant,
    /// Of the microsecond after `at`, what is taken: in bytes per second, a part of the rate.
    rest: u64,
    /// When what it held back is looked at again; `FAR` if it holds nothing.
    pub(crate) until: Instant,
    /// Since it held something back, nothing else did: what is late now is late because nobody came to send it.
    is_limit: bool,
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
            rest: 0,
            until: Instant::FAR,
            is_limit: false,
            rate_max: u64::MAX,
            is_asked_for: false,
        }
    }

    /// Time that passed unused is gone, unless pacing alone was the limit: then what is due is late, and goes at once.
    /// Otherwise each wake-up that comes late would lower the rate: at 1 ms a quantum, 0.1 ms late costs a tenth.
    #[inline]
    fn forgive(&mut self, now: Instant, rtt_min_us: u32) {
        let late_us = if self.is_limit {
            (u64::from(rtt_min_us) / LATE_SHARE).clamp(QUANTUM_US, LATE_US_MAX)
        } else {
            0
        };
        if self.at.plus_micros(late_us) < now {
            self.at = Instant::from_micros(now.as_micros() - late_us);
            self.rest = 0;
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
        pacer.forgive(now, self.rtt.min_us().unwrap_or(0));
        if pacer.at <= now.plus_micros(QUANTUM_US) {
            return false;
        }
        pacer.until = pacer.at;
        pacer.is_limit = true;
        true
    }

    /// Something else than pacing holds back what comes next, or there is nothing.
    pub(crate) fn note_unpaced(&mut self) {
        if let Some(pacer) = self.extras.as_mut().and_then(|extras| extras.pacer.as_mut()) {
            pacer.is_limit = false;
        }
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
            let rate = rate.max(1);
            let rtt_min_us = self.rtt.min_us().unwrap_or(0);
            let pacer = self.pacer();
            pacer.forgive(now, rtt_min_us);
            let took = u64::from(len) * 1_000_000 + pacer.rest.min(rate - 1);
            pacer.at = pacer.at.plus_micros(took / rate);
            pacer.rest = took % rate;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_is_made_up_for_if_pacing_was_the_limit() {
        let ms = Instant::from_millis;
        let pacer = |is_limit| Pacer { at: ms(100), is_limit, rest: 7, ..Pacer::new() };
        let at = |is_limit, now, rtt_min_us| {
            let mut pacer = pacer(is_limit);
            pacer.forgive(now, rtt_min_us);
            (pacer.at, pacer.rest)
        };
        assert_eq!(at(true, ms(99), 10_000), (ms(100), 7), "early");
        assert_eq!(at(true, ms(105), 10_000), (ms(100), 7), "half a round trip late");
        assert_eq!(at(true, ms(106), 10_000), (ms(101), 0), "later than that");
        assert_eq!(at(false, ms(101), 10_000), (ms(101), 0), "there was nothing to send");
        assert_eq!(at(true, ms(200), 1_000_000), (ms(180), 0), "no more than 20 ms on a long path");
        assert_eq!(at(true, ms(200), 10), (ms(199), 0), "a quantum on a short one");
    }
}
