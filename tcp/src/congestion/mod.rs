//! Congestion control: how much may be in flight, and how fast. What is lost, and what to send again, is `recovery`'s.
//!
//! [`CongestionControl`] is told what happened and answers with a window; it never sees a segment. [`Congestion`] is
//! one of the algorithms, chosen per connection (RFC 9293 §3.8.2, MAY-18), without a virtual call.

mod bbr;
mod cubic;
mod hystart;
mod newreno;
mod validation;
mod window;

pub use bbr::Bbr;
pub use cubic::Cubic;
pub use newreno::NewReno;

use alloc::boxed::Box;

use hoststack_transport::{Algorithm, Instant};

use crate::rate::{LostRange, RateSample};

/// What one acknowledgment said: all that any of the algorithms wants to know.
///
/// Byte counts include what this acknowledgment brought and nothing else, unless they say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AckInfo {
    /// When it came.
    pub now: Instant,
    /// How far SND.UNA moved; 0 for a duplicate.
    pub bytes_acked: u32,
    /// Bytes delivered: newly acknowledged or newly SACKed, each counted once in its life.
    pub bytes_delivered: u32,
    /// Bytes newly found lost.
    pub bytes_lost: u32,
    /// The round trip that it measured, by Karn's rule.
    pub rtt_us: Option<u32>,
    /// Smoothed round trip, once known (SRTT, RFC 6298).
    pub srtt_us: Option<u32>,
    /// Least round trip of the connection, once known.
    pub rtt_min_us: Option<u32>,
    /// Bytes in flight before it: the pipe.
    pub flight_before: u32,
    /// Bytes delivered over the connection's life, this acknowledgment included.
    pub delivered: u64,
    /// [`AckInfo::delivered`] when the newest segment it acknowledges was sent: rounds are counted with it.
    pub delivered_at_send: u64,
    /// The sender did not use the window when what is acknowledged here was sent: it had no data, or the peer's
    /// window was smaller.
    pub is_app_limited: bool,
    /// Between the start of a fast recovery and its recovery point, this acknowledgment included unless it reaches it.
    pub in_recovery: bool,
    /// It carried ECN-Echo (RFC 3168 §6.1).
    pub has_ecn_echo: bool,
    /// The delivery rate sample; `None` if it delivered nothing.
    pub rate: Option<RateSample>,
    /// The window, and nothing else, held the sender back since the acknowledgment before.
    pub is_cwnd_limited: bool,
    /// SACK was agreed upon: more than one loss can be seen in a round trip.
    pub has_sack: bool,
}

impl AckInfo {
    /// Bytes in flight after it.
    pub fn flight_after(&self) -> u32 {
        self.flight_before.saturating_sub(self.bytes_delivered.saturating_add(self.bytes_lost))
    }
}

/// What shows congestion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CongestionKind {
    /// A segment was lost and fast recovery begins.
    Loss,
    /// The peer echoed a congestion mark; told at most once per window of data (RFC 3168 §6.1.2).
    Ecn,
}

/// A congestion control algorithm for one connection. Windows are in bytes.
///
/// Calls come in this order: for an acknowledgment, `on_lost` for each range, `on_ack`, then at most one of
/// `on_congestion_event` (recovery begins with it), `on_recovery_exit` (it reached the recovery point) and
/// `on_spurious`.
pub trait CongestionControl {
    /// An acknowledgment came: new data, or a duplicate.
    fn on_ack(&mut self, ack: &AckInfo);

    /// A range was found lost, by an acknowledgment or a timer: told for each range that was sent at once.
    fn on_lost(&mut self, _now: Instant, _lost: &LostRange) {}

    /// Congestion, once per window: `flight` is FlightSize, without what limited transmit sent (RFC 5681 §3.2).
    fn on_congestion_event(&mut self, now: Instant, flight: u32, kind: CongestionKind);

    /// All that was outstanding when recovery began is acknowledged.
    fn on_recovery_exit(&mut self, now: Instant);

    /// The retransmission timer expired; `flight` is FlightSize. Ends a recovery without `on_recovery_exit`.
    fn on_rto(&mut self, now: Instant, flight: u32);

    /// The latest congestion event or timeout was no loss (D-SACK, Eifel): what it changed is undone.
    fn on_spurious(&mut self, now: Instant);

    /// Data is to be sent after nothing was for longer than the timeout (RFC 5681 §4.1).
    fn on_idle_restart(&mut self, now: Instant);

    /// `bytes` were sent, new or again; `flight` includes them.
    #[inline]
    fn on_sent(&mut self, _now: Instant, _bytes: u32, _flight: u32) {}

    /// The path takes segments of another size now (SMSS, options excluded).
    fn on_mss_change(&mut self, mss: u16);

    /// cwnd: the most bytes in flight. At least one segment.
    fn window(&self) -> u32;

    /// ssthresh; `u32::MAX` before the first congestion.
    fn ssthresh(&self) -> u32;

    /// Whether it has not met the path's limit since it began, or since a timeout: slow start, or what takes its place.
    fn is_slow_start(&self) -> bool {
        self.window() < self.ssthresh()
    }

    /// How fast to send, in bytes per second; `None` when the window alone decides.
    #[inline]
    fn pacing_rate(&self) -> Option<u64> {
        None
    }

    /// Begins with a window of so many segments, and goes back to it after idle times ([`initial_window_of`]).
    fn set_initial_window(&mut self, _segments: u8) {}

    /// The handshake measured the round trip.
    fn on_handshake(&mut self, _rtt_us: u32) {}

    /// Begins with the window and ssthresh of the algorithm that it takes over from.
    fn take_over(&mut self, window: u32, ssthresh: u32);

    /// Whether it wants a delivery rate for everything that is sent.
    fn needs_rate(&self) -> bool {
        false
    }

    /// Whether the window in fast recovery is that of proportional rate reduction (RFC 6937), and not its own.
    fn uses_prr(&self) -> bool {
        true
    }

    /// The most bytes to send back to back when paced; `u32::MAX` when the algorithm does not care.
    fn send_quantum(&self) -> u32 {
        u32::MAX
    }

    /// The name that configuration and CLI use.
    fn name(&self) -> &'static str;
}

/// One of the algorithms with its state. An algorithm whose state is large keeps it in a box.
#[derive(Clone, Debug)]
pub enum Congestion {
    /// RFC 9438.
    Cubic(Cubic),
    /// RFC 5681 and 6582.
    NewReno(Box<NewReno>),
    /// draft-ietf-ccwg-bbr.
    Bbr(Box<Bbr>),
}

impl Congestion {
    /// A connection's state at its start; `mss` is SMSS, options excluded. Random choices follow from `seed`, which
    /// should differ between connections.
    pub fn new(algorithm: Algorithm, mss: u16, seed: u64) -> Congestion {
        match algorithm {
            Algorithm::Cubic => Congestion::Cubic(Cubic::new(mss)),
            Algorithm::NewReno => Congestion::NewReno(Box::new(NewReno::new(mss))),
            Algorithm::Bbr => Congestion::Bbr(Box::new(Bbr::new(mss, seed))),
        }
    }
}

/// Calls the same method of whichever algorithm it is.
macro_rules! of_each {
    ($congestion:expr, $algorithm:ident => $call:expr) => {
        match $congestion {
            Congestion::Cubic($algorithm) => $call,
            Congestion::NewReno($algorithm) => $call,
            Congestion::Bbr($algorithm) => $call,
        }
    };
}

impl CongestionControl for Congestion {
    #[inline]
    fn on_ack(&mut self, ack: &AckInfo) {
        of_each!(self, algorithm => algorithm.on_ack(ack));
    }

    fn on_lost(&mut self, now: Instant, lost: &LostRange) {
        of_each!(self, algorithm => algorithm.on_lost(now, lost));
    }

    fn on_congestion_event(&mut self, now: Instant, flight: u32, kind: CongestionKind) {
        of_each!(self, algorithm => algorithm.on_congestion_event(now, flight, kind));
    }

    fn on_recovery_exit(&mut self, now: Instant) {
        of_each!(self, algorithm => algorithm.on_recovery_exit(now));
    }

    fn on_rto(&mut self, now: Instant, flight: u32) {
        of_each!(self, algorithm => algorithm.on_rto(now, flight));
    }

    fn on_spurious(&mut self, now: Instant) {
        of_each!(self, algorithm => algorithm.on_spurious(now));
    }

    fn on_idle_restart(&mut self, now: Instant) {
        of_each!(self, algorithm => algorithm.on_idle_restart(now));
    }

    #[inline]
    fn on_sent(&mut self, now: Instant, bytes: u32, flight: u32) {
        of_each!(self, algorithm => algorithm.on_sent(now, bytes, flight));
    }

    fn on_mss_change(&mut self, mss: u16) {
        of_each!(self, algorithm => algorithm.on_mss_change(mss));
    }

    #[inline]
    fn window(&self) -> u32 {
        of_each!(self, algorithm => algorithm.window())
    }

    fn ssthresh(&self) -> u32 {
        of_each!(self, algorithm => algorithm.ssthresh())
    }

    fn is_slow_start(&self) -> bool {
        of_each!(self, algorithm => algorithm.is_slow_start())
    }

    #[inline]
    fn pacing_rate(&self) -> Option<u64> {
        of_each!(self, algorithm => algorithm.pacing_rate())
    }

    fn on_handshake(&mut self, rtt_us: u32) {
        of_each!(self, algorithm => algorithm.on_handshake(rtt_us));
    }

    fn set_initial_window(&mut self, segments: u8) {
        of_each!(self, algorithm => algorithm.set_initial_window(segments));
    }

    fn take_over(&mut self, window: u32, ssthresh: u32) {
        of_each!(self, algorithm => algorithm.take_over(window, ssthresh));
    }

    fn needs_rate(&self) -> bool {
        of_each!(self, algorithm => algorithm.needs_rate())
    }

    fn uses_prr(&self) -> bool {
        of_each!(self, algorithm => algorithm.uses_prr())
    }

    fn send_quantum(&self) -> u32 {
        of_each!(self, algorithm => algorithm.send_quantum())
    }

    fn name(&self) -> &'static str {
        of_each!(self, algorithm => algorithm.name())
    }
}

/// The initial window: `min(10*MSS, max(2*MSS, 14600))` (RFC 6928 §2).
pub fn initial_window(mss: u16) -> u32 {
    initial_window_of(10, mss)
}

/// The same with another number of segments than ten, of 1460 bytes at most. 0: that of RFC 3390 §1.
pub fn initial_window_of(segments: u8, mss: u16) -> u32 {
    let (segments, mss) = (u32::from(segments), u32::from(mss));
    if segments == 0 {
        (4 * mss).min((2 * mss).max(4380))
    } else {
        (segments * mss).min((2 * mss).max(segments * 1460))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_window_is_that_of_rfc_6928() {
        assert_eq!(
            [536, 1460, 1461, 7300, 9000].map(initial_window),
            [5_360, 14_600, 14_600, 14_600, 18_000]
        );
        let of = |segments| [536, 1460, 9000].map(|mss| initial_window_of(segments, mss));
        assert_eq!((of(3), of(0)), ([1_608, 4_380, 18_000], [2_144, 4_380, 18_000]));
    }

    #[test]
    fn takes_48_bytes_at_most() {
        assert!(size_of::<Congestion>() <= 48);
    }

    #[test]
    fn each_algorithm_is_found_by_its_name_and_has_it() {
        for &algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
            assert_eq!(Congestion::new(algorithm, 1000, 1).name(), algorithm.name());
        }
        assert_eq!(Algorithm::from_name("reno"), None);
    }
}
