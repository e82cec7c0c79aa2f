//! cwnd and ssthresh, and what every algorithm that answers to loss does with them: slow start (RFC 5681 §3.1, RFC
//! 3465, first HyStart++), the restart after idle, and validation. What differs, the reduction and the growth in
//! congestion avoidance, is the algorithm's.

use alloc::boxed::Box;

use super::hystart::HyStart;
use super::validation::Validation;
use super::{AckInfo, CongestionKind, initial_window_of};

/// No window passes this (RFC 7323 §2.3: the largest window there is).
pub(super) const WINDOW_MAX: u32 = 1 << 30;

/// Numerator and denominator of a part of a window: less than one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio(pub(super) u32, pub(super) u32);

impl Ratio {
    /// As much of `bytes`.
    pub(super) fn of(self, bytes: u32) -> u32 {
        // Cannot lose bits: a part of a u32 is one.
        (u64::from(bytes) * u64::from(self.0) / u64::from(self.1)) as u32
    }
}

/// cwnd, ssthresh, and how they came about.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// cwnd.
    pub(super) size: u32,
    /// ssthresh; `u32::MAX` before the first congestion.
    pub(super) ssthresh: u32,
    /// Nothing until a good part of the window was in flight: most connections never use theirs.
    measured: Option<Box<Measured>>,
    /// SMSS.
    mss: u16,
    /// Segments of the initial window.
    initial_segments: u8,
    /// The timer expired and nothing new was acknowledged since.
    is_timed_out: bool,
    /// In the slow start that follows a timeout.
    is_restarting: bool,
    /// Reduced, and the recovery that began with it neither over nor undone.
    is_recovering: bool,
}

/// What is measured in rounds, apart from what every transmission reads.
#[derive(Clone, Debug)]
struct Measured {
    validation: Validation,
    /// HyStart++, during the initial slow start.
    initial: Option<HyStart>,
    /// The most that was in flight in this round, before an acknowledgment.
    flight_max: u32,
}

impl Measured {
    fn new(is_initial: bool) -> Measured {
        Measured { validation: Validation::new(), initial: is_initial.then(HyStart::new), flight_max: 0 }
    }

    fn note_flight(&mut self, flight: u32, is_round_end: bool) {
        self.flight_max = if is_round_end { flight } else { self.flight_max.max(flight) };
    }
}

/// What an acknowledgment did to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Stage {
    /// Nothing, for it acknowledged nothing new, or recovery lasts.
    Standing,
    /// Nothing, for the window is not used.
    Unused,
    /// Slow start was, or is, at work.
    SlowStart,
    /// Nothing: congestion avoidance is the algorithm's.
    Avoidance,
}

/// What a congestion event asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reduction {
    /// The window, or as much of it as was in use if it was not validated.
    pub(super) used: u32,
    /// The reduced window, before any lower limit.
    pub(super) target: u32,
}

impl Window {
    /// At the start of a connection; `mss` is SMSS, options excluded.
    pub(super) fn new(mss: u16) -> Window {
        let mss = mss.max(1);
        Window {
            size: initial_window_of(10, mss),
            ssthresh: u32::MAX,
            measured: None,
            mss,
            initial_segments: 10,
            is_timed_out: false,
            is_restarting: false,
            is_recovering: false,
        }
    }

    /// SMSS.
    pub(super) fn smss(&self) -> u32 {
        u32::from(self.mss)
    }

    fn initial(&self) -> u32 {
        initial_window_of(self.initial_segments, self.mss)
    }

    /// At the start of a connection: its initial window has so many segments.
    pub(super) fn set_initial(&mut self, segments: u8) {
        self.initial_segments = segments;
        self.size = self.initial();
    }

    /// An acknowledgment came. Slow start grows the window here.
    #[inline]
    pub(super) fn on_ack(&mut self, ack: &AckInfo) -> Stage {
        if self.measured.is_none() && ack.flight_before < self.size / 2 {
            if ack.bytes_acked > 0 {
                self.is_timed_out = false;
            }
            return Stage::Unused;
        }
        let is_initial = self.ssthresh == u32::MAX;
        let initial = self.initial();
        let measured = self.measured.get_or_insert_with(|| Box::new(Measured::new(is_initial)));
        let is_round_end = measured.validation.on_ack(ack, self.size);
        if ack.bytes_acked == 0 || ack.in_recovery {
            return Stage::Standing;
        }
        self.is_timed_out = false;
        if is_round_end && measured.validation.take_expired(ack.now) {
            // RFC 7661 §4.4.3. It grows to where it was by slow start.
            self.ssthresh = self.ssthresh.max(self.size / 4 * 3);
            self.size = self.size.min((self.size / 2).max(initial));
        }
        // The most of the round that this acknowledgment ends counts for it.
        let flight_max = measured.flight_max.max(ack.flight_before);
        measured.note_flight(ack.flight_before, is_round_end);
        // Before the first round is over the most that was in flight in it speaks for what it will have brought.
        let may_grow =
            measured.validation.may_grow(&AckInfo { flight_before: flight_max, ..*ack }, self.size);
        // RFC 9293 §3.8.2 (MUST-19): slow start, or congestion avoidance.
        if self.size >= self.ssthresh {
            self.is_restarting = false;
            // RFC 9438 §5.8: never "if the flow is currently limited by the application". In slow start half a window
            // in use is enough.
            return if may_grow && !ack.is_app_limited { Stage::Avoidance } else { Stage::Unused };
        }
        // As Linux: a window of which half was never in flight in this round is not opened.
        if may_grow && self.size < flight_max.saturating_mul(2) {
            let growth = match &measured.initial {
                Some(initial) => initial.growth(ack.bytes_acked),
                // RFC 3465 §2.2, §2.3: L is 2*SMSS, but 1*SMSS in the slow start after a timeout.
                None if self.is_restarting => ack.bytes_acked.min(self.mss.into()),
                None => ack.bytes_acked.min(2 * u32::from(self.mss)),
            };
            // Up to ssthresh only: what is above counts as congestion avoidance.
            self.size = (self.size + growth.min(self.ssthresh - self.size)).min(WINDOW_MAX);
        }
        // A round trip says something about this connection's queue only if it fills one.
        let rtt_us = if may_grow { ack.rtt_us } else { None };
        if let Some(initial) = &mut measured.initial
            && initial.on_ack(rtt_us, is_round_end)
        {
            self.ssthresh = self.size;
            measured.initial = None;
        }
        Stage::SlowStart
    }

    /// Lowers ssthresh to `beta` of FlightSize, 2*SMSS at least (RFC 5681 (4), RFC 9438 §4.6). The algorithm lowers the
    /// window.
    pub(super) fn on_congestion(&mut self, flight: u32, kind: CongestionKind, beta: Ratio) -> Reduction {
        // RFC 9406 §4.3: HyStart++ is for the initial slow start only.
        self.is_restarting = false;
        self.is_recovering = true;
        let measured = self.measured.get_or_insert_with(|| Box::new(Measured::new(false)));
        measured.initial = None;
        let reduction = match measured.validation.on_congestion(flight, kind == CongestionKind::Loss) {
            // RFC 7661 §4.4.1: half of it, whatever the algorithm. The window was kept on trust.
            Some(used) => Reduction { used, target: used / 2 },
            None => Reduction { used: self.size, target: beta.of(flight) },
        };
        self.ssthresh = reduction.target.max(2 * self.smss()).min(WINDOW_MAX);
        reduction
    }

    /// Recovery is over.
    pub(super) fn on_recovery_exit(&mut self) {
        if !core::mem::take(&mut self.is_recovering) {
            // Undone.
            return;
        }
        // RFC 6582 §3.2 step 3, option 2; the sender's burst limit stands in for option 1.
        self.size = self.size.min(self.ssthresh);
        if let Some(measured) = &mut self.measured
            && let Some(window) = measured.validation.on_recovery_exit()
        {
            // RFC 7661 §4.4.1: and "ssthresh a value equal to cwnd at the end of the loss recovery".
            self.size = window.max(2 * self.smss()).min(self.size);
            self.ssthresh = self.size;
        }
    }

    /// Whether a timeout would be the first of its segment.
    pub(super) fn is_first_timeout(&self) -> bool {
        !self.is_timed_out
    }

    /// The retransmission timer expired: one segment, and ssthresh is `beta` of FlightSize.
    pub(super) fn on_rto(&mut self, flight: u32, beta: Ratio) {
        // RFC 5681 §3.1: when the same segment times out again, ssthresh stays as it is.
        if !self.is_timed_out {
            self.ssthresh = beta.of(flight).max(2 * self.smss()).min(WINDOW_MAX);
        }
        self.size = self.smss();
        self.is_timed_out = true;
        self.is_restarting = true;
        self.is_recovering = false;
        self.forget(false);
    }

    /// Back to what was before a congestion event that was none.
    pub(super) fn restore(&mut self, size: u32, ssthresh: u32) {
        self.size = size;
        self.ssthresh = ssthresh;
        self.is_timed_out = false;
        self.is_restarting = false;
        self.is_recovering = false;
        // If nothing was learnt of the path, the initial slow start goes on.
        self.forget(ssthresh == u32::MAX);
    }

    /// Data is to be sent after an idle time.
    pub(super) fn on_idle_restart(&mut self) {
        // RFC 5681 §4.1: RW = min(IW, cwnd). RFC 7661 would keep cwnd, but wants its burst paced.
        let restart = self.size.min(self.initial());
        if restart < self.size {
            // As RFC 7661 §4.4.3 does: slow start may grow to what was known to fit.
            self.ssthresh = self.ssthresh.max(self.size / 4 * 3);
            self.size = restart;
        }
        if let Some(measured) = &mut self.measured {
            measured.validation.reset();
        }
    }

    /// What was measured says nothing any more; `is_initial` begins the initial slow start anew.
    fn forget(&mut self, is_initial: bool) {
        if let Some(measured) = &mut self.measured {
            measured.initial = is_initial.then(HyStart::new);
            measured.validation.reset();
        }
    }

    /// As another algorithm leaves it.
    pub(super) fn take_over(&mut self, window: u32, ssthresh: u32) {
        self.size = window.clamp(self.smss(), WINDOW_MAX);
        self.ssthresh = ssthresh.max(2 * self.smss());
        self.forget(self.ssthresh == u32::MAX);
    }

    /// The path takes segments of another size now.
    pub(super) fn on_mss_change(&mut self, mss: u16) {
        // The window is in bytes and describes the path, not the segments; it only must hold one.
        self.mss = mss.max(1);
        self.size = self.size.max(self.smss());
    }
}
