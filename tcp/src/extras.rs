//! What only some connections want or meet. Want, and may change while they are up: keep-alive (RFC 9293 §3.8.4: MAY-5), user
//! timeout (RFC 5482, RFC 9293 §3.9.1.8), lingering close, cork, pacing, a receive window that grows, urgent data. Meet:
//! duplicates, gaps, losses, marks, challenges. A connection with defaults on a quiet path holds none of it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use hoststack_transport::{
    Algorithm, CloseReason, Duration, Instant, Keepalive, Key, SessionLayer, SocketOption, SocketOptions,
};
use hoststack_wire::{Flags, SegmentHeader, SeqNum};

use crate::congestion::{Congestion, CongestionControl};
use crate::connection::{Connection, Fate};
use crate::engine::{Output, Shared};
use crate::output::MSS_LEAST;
use crate::pacing::Pacer;
use crate::pmtud::Pmtud;
use crate::receive_window::ReceiveWindow;
use crate::recovery::rack::Reordering;
use crate::state::{State, StateEvent};
use crate::timers::Purpose;

/// Ends of records that a connection remembers.
const RECORDS_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Extras {
    keepalive: Option<Keepalive>,
    /// Unanswered keep-alive probes.
    pub(crate) probes: u8,
    /// When the peer was heard last; `ZERO` if not since there is this.
    heard_at: Instant,
    user_timeout_ms: u32,
    /// Since when what was sent, or waits for the peer's window, has made no progress; `FAR` if nothing waits.
    stalled_at: Instant,
    linger_ms: Option<u32>,
    /// When a close that lingers turns into a reset.
    linger_at: Instant,
    is_corked: bool,
    /// When what the cork holds back goes out all the same; `FAR` if it holds nothing.
    cork_at: Instant,
    /// What it knows of the path's MTU beyond the number.
    pub(crate) pmtud: Option<Box<Pmtud>>,
    /// The receive window as far as it has grown; `None` if it is all of the fifo's room.
    pub(crate) receive_window: Option<Box<ReceiveWindow>>,
    /// SND.UP: the octet after what the app called urgent, until that is acknowledged.
    pub(crate) urgent_end: Option<SeqNum>,
    /// Where records end that are not acknowledged, in order.
    records: VecDeque<SeqNum>,
    pub(crate) pacer: Option<Pacer>,
    pub(crate) gaps: Gaps,
    pub(crate) reordering: Reordering,
    pub(crate) counts: Counts,
    /// Echoes of marks are answered once until SND.UNA is here: once per window (RFC 3168 §6.1.2).
    pub(crate) ecn_point: Option<SeqNum>,
    /// The second (modulo 2^32) that `challenges` counts in.
    pub(crate) challenge_second: u32,
    pub(crate) challenges: u8,
}

/// What came, but not in order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gaps {
    /// Where the latest out-of-order data began, and before it the latest in other ranges: SACK reports them first.
    pub(crate) recent: [SeqNum; 4],
    /// What came twice and was not reported yet (D-SACK, RFC 2883).
    pub(crate) duplicate: Option<(SeqNum, SeqNum)>,
}

/// What is counted over a connection's life and seldom happens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Segments sent again.
    pub(crate) retransmitted_segments: u32,
    /// Duplicates that the peer reported (D-SACK).
    pub(crate) dsacks: u32,
    /// Responses to congestion that were undone.
    pub(crate) undone: u32,
    /// Acknowledgments that echoed a mark.
    pub(crate) ecn_echoes: u32,
}

impl Extras {
    fn new() -> Extras {
        Extras {
            keepalive: None,
            probes: 0,
            heard_at: Instant::ZERO,
            user_timeout_ms: 0,
            stalled_at: Instant::FAR,
            linger_ms: None,
            linger_at: Instant::FAR,
            is_corked: false,
            cork_at: Instant::FAR,
            pmtud: None,
            receive_window: None,
            urgent_end: None,
            pacer: None,
            gaps: Gaps::default(),
            reordering: Reordering::NONE,
            counts: Counts::default(),
            ecn_point: None,
            challenge_second: 0,
            challenges: 0,
            records: VecDeque::new(),
        }
    }

    /// What `options` ask for besides the defaults.
    pub(crate) fn of(options: &SocketOptions, cc: &Congestion, now: Instant) -> Option<Box<Extras>> {
        let SocketOptions { keepalive, user_timeout_ms, linger_ms, cork, .. } = *options;
        let pacer = Pacer::of(options, cc);
        let are_default = keepalive.is_none() && user_timeout_ms == 0 && linger_ms.is_none() && !cork;
        (!are_default || pacer.is_some()).then(|| {
            let extras = Extras::new();
            let heard_at = now;
            Box::new(Extras {
                keepalive,
                heard_at,
                user_timeout_ms,
                linger_ms,
                is_corked: cork,
                pacer,
                ..extras
            })
        })
    }

    /// Those of a connection, from now on if it has none; for the borrow checker not a method of the connection.
    pub(crate) fn of_connection(place: &mut Option<Box<Extras>>) -> &mut Extras {
        place.get_or_insert_with(|| Box::new(Extras::new()))
    }

    /// The earliest of its own deadlines.
    pub(crate) fn timer(&self) -> Instant {
        let timer = self.linger_at.min(self.cork_at);
        self.pacer.as_ref().map_or(timer, |pacer| timer.min(pacer.until))
    }

    /// The peer was heard.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.probes = 0;
    }

    /// When the next keep-alive probe is due: the app says how long an idle peer is left alone (MUST-27).
    fn keepalive_at(&self) -> Option<Instant> {
        let keepalive = self.keepalive?;
        let wait_ms =
            u64::from(keepalive.idle_ms) + u64::from(self.probes) * u64::from(keepalive.interval_ms);
        Some(self.heard_at + Duration::from_millis(wait_ms))
    }

    /// Something was acknowledged.
    pub(crate) fn forget_records(&mut self, una: SeqNum) {
        while self.records.front().is_some_and(|end| end.at_or_before(una)) {
            self.records.pop_front();
        }
    }

    fn note_record(&mut self, end: SeqNum) {
        if self.records.len() >= RECORDS_MAX {
            self.records.pop_back();
        }
        if self.records.back().is_none_or(|last| end.after(*last)) {
            self.records.push_back(end);
        }
    }

    /// When the user timeout ends what waits.
    fn gives_up_at(&self) -> Instant {
        if self.user_timeout_ms == 0 || self.stalled_at == Instant::FAR {
            return Instant::FAR;
        }
        self.stalled_at + Duration::from_millis(self.user_timeout_ms.into())
    }
}

impl Connection {
    pub(crate) fn extras_mut(&mut self) -> &mut Extras {
        Extras::of_connection(&mut self.extras)
    }

    /// What was learnt about reordering on its path.
    pub(crate) fn reordering(&self) -> Reordering {
        self.extras.as_ref().map_or(Reordering::NONE, |extras| extras.reordering)
    }

    /// Changes an option. What waits because of the old value is looked at again in the transmit stage of this step.
    pub(crate) fn set_option<L: SessionLayer>(
        &mut self,
        id: Key,
        option: SocketOption,
        shared: &mut Shared,
        now: Instant,
        layer: &mut L,
    ) {
        match option {
            SocketOption::NoDelay(on) => self.is_nodelay = on,
            SocketOption::Cork(on) => {
                let extras = self.extras_mut();
                extras.is_corked = on;
                extras.cork_at = Instant::FAR;
            }
            SocketOption::QuickAck(on) => {
                self.is_quick_ack = on;
                if on && self.ack_at != Instant::FAR {
                    self.program_ack(id, shared);
                }
            }
            // RFC 9293 §3.8.4 (MUST-24): on, off, and anew.
            SocketOption::Keepalive(keepalive) => {
                let extras = self.extras_mut();
                extras.keepalive = keepalive;
                extras.probes = 0;
                if extras.heard_at == Instant::ZERO {
                    extras.heard_at = now;
                }
                if matches!(self.purpose, Purpose::None | Purpose::Keepalive) {
                    self.stop_timer();
                }
            }
            SocketOption::UserTimeout(ms) => {
                let is_waiting = self.flight_size() > 0 || self.purpose == Purpose::Persist;
                let extras = self.extras_mut();
                extras.user_timeout_ms = ms;
                if is_waiting && extras.stalled_at == Instant::FAR {
                    extras.stalled_at = now;
                }
                self.limit_by_user_timeout();
            }
            SocketOption::Linger(ms) => self.extras_mut().linger_ms = ms,
            SocketOption::MssMax(max) => {
                self.mss_max = self.mss_max.min(max.max(MSS_LEAST));
                let options = self.option_space();
                let mss = max.saturating_sub(options).max(MSS_LEAST);
                self.set_mss(mss.min(self.mss));
            }
            SocketOption::PacingRateMax(rate) => self.set_pacing_rate_max(rate),
            SocketOption::Congestion(algorithm) => self.change_congestion(algorithm),
            // RFC 9293 §3.9.1.9 (SHLD-21).
            SocketOption::Dscp(dscp) => self.ip.tos = dscp << 2,
            SocketOption::Ttl(ttl) => self.ip.ttl = ttl.max(1),
            SocketOption::RecordEnd(offset) => {
                let end = self.snd.una + offset.min(layer.tx_len(self.session));
                if end.after(self.snd.nxt) {
                    self.extras_mut().note_record(end);
                }
            }
        }
        self.arm(id, shared);
        layer.program_tx(self.session);
    }

    /// Another algorithm takes over where this one stands.
    fn change_congestion(&mut self, algorithm: Algorithm) {
        if algorithm.name() == self.cc.name() {
            return;
        }
        let (window, ssthresh) = (self.cc.window(), self.cc.ssthresh());
        self.cc = Congestion::new(algorithm, self.mss, self.iss.0.into());
        self.cc.take_over(window, ssthresh);
        self.follow_congestion();
    }

    /// Where the record ends that begins, or goes on, at `seq`; `None`: where all ends.
    pub(crate) fn record_end(&self, seq: SeqNum) -> Option<SeqNum> {
        self.extras.as_ref()?.records.iter().copied().find(|end| end.after(seq))
    }

    /// Whether a record ends there.
    pub(crate) fn is_record_end(&self, end: SeqNum) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.records.contains(&end))
    }

    /// Whether the cork holds back less than a segment.
    pub(crate) fn is_corked(&mut self, now: Instant) -> bool {
        let Some(extras) = &mut self.extras else { return false };
        if !extras.is_corked {
            return false;
        }
        if extras.cork_at <= now {
            extras.cork_at = Instant::FAR;
            return false;
        }
        true
    }

    /// The cork held something back, or does not any more.
    pub(crate) fn note_corked(&mut self, now: Instant, holds: bool, shared: &Shared) {
        let timeout_us = self.rtt.base_rto_us(&shared.rto);
        if let Some(extras) = &mut self.extras {
            if !holds {
                extras.cork_at = Instant::FAR;
            } else if extras.cork_at == Instant::FAR {
                extras.cork_at = now.plus_micros(timeout_us.into());
            }
        }
    }

    /// The app closed both ways: from now on it lingers, if it is to.
    pub(crate) fn start_linger(&mut self, now: Instant) {
        if let Some(extras) = &mut self.extras
            && let Some(ms) = extras.linger_ms
        {
            extras.linger_at = now + Duration::from_millis(ms.into());
        }
    }

    /// Whether a close is to reset at once: a linger of zero.
    pub(crate) fn resets_on_close(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.linger_ms == Some(0))
    }

    /// Deadlines of its own are due.
    pub(crate) fn on_extras_timer<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        layer: &mut L,
        out: &mut O,
    ) -> Fate {
        let Some(extras) = &mut self.extras else { return Fate::Lives };
        if extras.linger_at <= now {
            extras.linger_at = Instant::FAR;
            if !matches!(self.state, State::FinWait2) {
                self.send_reset(shared, now, out);
                self.enter(id, StateEvent::Abort);
                return Fate::Closed(CloseReason::LocalReset);
            }
        } else if extras.cork_at <= now {
            layer.program_tx(self.session);
            // `is_corked` finds it due in the transmit stage of this step.
        }
        Fate::Lives
    }

    /// Something waits that must make progress within the user timeout.
    pub(crate) fn note_stalled(&mut self, now: Instant) {
        if let Some(extras) = &mut self.extras
            && extras.stalled_at == Instant::FAR
        {
            extras.stalled_at = now;
        }
    }

    /// Progress: `now` if something still waits, else nothing does.
    pub(crate) fn note_progress(&mut self, still_waits: Option<Instant>) {
        if let Some(extras) = &mut self.extras {
            extras.stalled_at = still_waits.unwrap_or(Instant::FAR);
        }
    }

    /// The retransmission timer fires no later than the user timeout.
    pub(crate) fn limit_by_user_timeout(&mut self) {
        if let Some(extras) = &self.extras
            && self.purpose.is_for_flight()
        {
            self.retransmit_at = self.retransmit_at.min(extras.gives_up_at());
        }
    }

    /// Whether the user timeout is set, and whether it ran out (RFC 9293 §3.9.1.8; it is R2 then: MUST-21).
    pub(crate) fn is_given_up(&self, now: Instant) -> Option<bool> {
        let extras = self.extras.as_ref().filter(|extras| extras.user_timeout_ms > 0)?;
        Some(extras.gives_up_at() <= now)
    }

    /// No timer runs for anything that was sent: the keep-alive's turn (RFC 9293 §3.8.4, MUST-26).
    pub(crate) fn start_keepalive_timer(&mut self) {
        let may = matches!(self.state, State::Established | State::CloseWait)
            || (self.state == State::FinWait2 && !self.is_app_closed);
        if let Some(extras) = &self.extras
            && let Some(at) = extras.keepalive_at()
            && may
        {
            self.purpose = Purpose::Keepalive;
            self.retransmit_at = at;
        }
    }

    /// The keep-alive timer fired: probe, or give up (RFC 9293 §3.8.4, MUST-29: not because one probe went unanswered).
    pub(crate) fn on_keepalive_timer<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        layer: &L,
        out: &mut O,
    ) -> Fate {
        let Some(extras) = &mut self.extras else { return Fate::Lives };
        let (Some(keepalive), Some(at)) = (extras.keepalive, extras.keepalive_at()) else {
            self.stop_timer();
            return Fate::Lives;
        };
        if at > now {
            self.retransmit_at = at;
            return Fate::Lives;
        }
        let is_exhausted = match extras.user_timeout_ms {
            0 => extras.probes >= keepalive.probes,
            ms => extras.probes > 0 && extras.heard_at + Duration::from_millis(ms.into()) <= now,
        };
        if is_exhausted {
            self.send_reset(shared, now, out);
            self.enter(id, StateEvent::Expire);
            return Fate::Closed(CloseReason::TimedOut);
        }
        extras.probes = extras.probes.saturating_add(1);
        shared.counters.probes_out += 1;
        // RFC 9293 §3.8.4: "SEG.SEQ = SND.NXT-1", not acceptable, so that it is answered; without data (SHLD-12).
        let header: SegmentHeader = self.header(self.snd.nxt - 1, Flags::ACK, 0, now, layer);
        self.send_without_data(shared, &header, out);
        self.start_keepalive_timer();
        // Also when the interval is 0, or the probes are more than their count can say.
        let wait_ms = u64::from(keepalive.interval_ms.max(1));
        self.retransmit_at = self.retransmit_at.max(now + Duration::from_millis(wait_ms));
        Fate::Lives
    }
}
