//! The timers of what was sent: retransmission (RFC 6298), reordering and tail loss probes (RFC 8985), and the probes of
//! a closed window (RFC 9293 §3.8.6.1).

use hoststack_transport::{CloseReason, Instant, Key, SessionLayer, Transmitted};

use crate::congestion::CongestionControl;
use crate::connection::{Connection, Fate};
use crate::engine::{Output, Shared};
use crate::output::distance;
use crate::recovery::Mode;
use crate::recovery::tlp::{TailProbe, probe_timeout_us};
use crate::state::{State, StateEvent};
use crate::timers::Purpose;

/// R1 of RFC 9293 §3.8.3 (SHLD-10: 3 retransmissions at least): from then on the app may see that its data does not
/// arrive.
pub(crate) const R1: u8 = 3;

impl Connection {
    /// After sending, or failing to: the timer for what is in flight, or for the window that must open.
    pub(crate) fn start_timer(
        &mut self,
        now: Instant,
        is_window_closed: bool,
        has_sent_new: bool,
        shared: &Shared,
    ) {
        if self.is_probing {
            if self.purpose != Purpose::Persist {
                self.purpose = Purpose::Persist;
                self.restart_timer(now, shared);
            }
            // RFC 9293 §3.8.6.1 (SHLD-29): the first probe after one timeout.
        } else if self.flight_size() > 0 {
            // RFC 6298 (5.1): started if it is not running. RFC 8985 §7.2: a probe is for the newest data.
            if !matches!(self.purpose, Purpose::Retransmit | Purpose::Reordering | Purpose::TailProbe)
                || (self.purpose == Purpose::TailProbe && has_sent_new)
            {
                self.purpose = Purpose::None;
                self.set_retransmit_timer(now, None, true, shared);
            }
        } else if is_window_closed {
            if self.purpose != Purpose::Persist {
                self.purpose = Purpose::Persist;
                self.note_stalled(now);
                self.restart_timer(now, shared);
            }
        } else if !matches!(self.purpose, Purpose::FinWait2) {
            // Anything else has nothing to wait for.
            self.stop_timer();
        }
    }

    /// The timer for what is in flight: the reordering timer if more may be lost in `wait_us` (RFC 8985 §6.2), else a
    /// tail loss probe if one may be sent (§7.2), else the retransmission timer. `has_progressed` starts them anew.
    pub(crate) fn set_retransmit_timer(
        &mut self,
        now: Instant,
        wait_us: Option<u64>,
        has_progressed: bool,
        shared: &Shared,
    ) {
        if self.is_probing || self.flight_size() == 0 {
            return;
        }
        let rto_us = u64::from(self.rtt.rto_us(&shared.rto));
        let was = self.purpose;
        let rto_at = match was {
            _ if has_progressed => now.plus_micros(rto_us),
            Purpose::Retransmit => self.retransmit_at,
            _ => {
                let first = self.recovery.as_ref().and_then(|recovery| recovery.first_sent_at());
                first.unwrap_or(self.flight_at).plus_micros(rto_us).max(now)
            }
        };
        if let Some(wait_us) = wait_us {
            self.purpose = Purpose::Reordering;
            self.retransmit_at = now.plus_micros(wait_us.max(1));
        } else if self.may_probe_tail(shared) {
            if has_progressed || was != Purpose::TailProbe {
                let is_single = self.flight_size() <= u32::from(self.mss);
                let left_us = rto_at.micros_since(now);
                self.purpose = Purpose::TailProbe;
                self.retransmit_at =
                    now.plus_micros(probe_timeout_us(self.rtt.srtt_us(), is_single, left_us));
            }
        } else {
            self.purpose = Purpose::Retransmit;
            self.retransmit_at = rto_at;
        }
        self.limit_by_user_timeout();
    }

    /// RFC 8985 §7.2: nothing is amiss, and no probe is out.
    fn may_probe_tail(&self, shared: &Shared) -> bool {
        self.has_sack
            && shared.config.tail_loss_probe
            && self.rtt.back_offs() == 0
            && self.may_send()
            && self.recovery.as_ref().is_none_or(|recovery| {
                recovery.mode == Mode::Open && recovery.probe.is_none() && recovery.flight.sacked() == 0
            })
    }

    pub(crate) fn restart_timer(&mut self, now: Instant, shared: &Shared) {
        let timeout = hoststack_transport::Duration::from_micros(self.rtt.rto_us(&shared.rto).into());
        let is_persisting = self.purpose == Purpose::Persist;
        let least =
            if is_persisting { shared.config.persist_min } else { hoststack_transport::Duration::ZERO };
        self.retransmit_at = now + timeout.max(least);
        self.limit_by_user_timeout();
    }

    /// Nothing that was sent, or must be, needs a timer.
    pub(crate) fn stop_timer(&mut self) {
        self.purpose = Purpose::None;
        self.retransmit_at = Instant::FAR;
        self.start_keepalive_timer();
    }

    /// In FIN-WAIT-2 with no app, the peer's FIN is not waited for without end.
    pub(crate) fn start_fin_wait_2_timer(&mut self, now: Instant, shared: &Shared) {
        if self.state == State::FinWait2
            && self.is_app_closed
            && matches!(self.purpose, Purpose::None | Purpose::Keepalive)
        {
            self.purpose = Purpose::FinWait2;
            self.retransmit_at = now + shared.config.fin_wait_2;
        }
    }

    /// The retransmission timer expired.
    pub(crate) fn on_retransmit_timer<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        layer: &mut L,
        out: &mut O,
    ) -> Fate {
        let purpose = self.purpose;
        let is_exhausted = self.is_given_up(now).unwrap_or(self.retransmits >= shared.config.retransmits_max);
        match purpose {
            Purpose::None => return Fate::Lives,
            Purpose::FinWait2 => {
                self.enter(id, StateEvent::Expire);
                return Fate::Closed(CloseReason::TimedOut);
            }
            // RFC 9293 §3.8.3 (MUST-20): R2 is reached.
            Purpose::Retransmit | Purpose::Persist | Purpose::TailProbe | Purpose::Reordering
                if is_exhausted =>
            {
                self.enter(id, StateEvent::Expire);
                return Fate::Closed(if self.is_unreachable {
                    CloseReason::Unreachable
                } else {
                    CloseReason::TimedOut
                });
            }
            Purpose::Keepalive => return self.on_keepalive_timer(id, shared, now, layer, out),
            Purpose::Reordering => {
                self.on_reordering_timer(shared, now);
                layer.program_tx(self.session);
                return Fate::Lives;
            }
            Purpose::TailProbe => {
                self.send_tail_probe(id, shared, now, layer, out);
                return Fate::Lives;
            }
            Purpose::Retransmit | Purpose::Persist => {}
        }
        // A user timeout, which overrides R2, may be longer than 255 of them.
        self.retransmits = self.retransmits.saturating_add(1);
        // RFC 9293 §3.8.3 (SHLD-9): R1 is reached.
        shared.counters.r1_reached += u64::from(self.retransmits == R1);
        // RFC 6298 (5.5); of probes RFC 9293 §3.8.6.1 (SHLD-30).
        self.rtt.back_off();
        if self.state == State::SynReceived {
            shared.counters.rtos += 1;
            shared.counters.retransmitted_segments += 1;
            self.send_syn_ack(shared, now, out);
        } else if purpose == Purpose::Persist {
            self.probe(id, shared, now, layer, out);
        } else {
            shared.counters.rtos += 1;
            self.cc.on_rto(now, self.used_window(self.flight_size()));
            self.on_pmtud_timeout(now);
            self.enter_loss(true, shared, now);
            if self.transmit(id, shared, now, 1, layer, out) == Transmitted::More {
                layer.program_tx(self.session);
            }
        }
        if self.purpose != Purpose::None {
            self.restart_timer(now, shared);
        }
        Fate::Lives
    }

    /// RFC 8985 §7.3: one more segment, new if the peer's window lets it, else the last once more.
    pub(crate) fn send_tail_probe<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        layer: &mut L,
        out: &mut O,
    ) {
        let data_end = self.snd.una + layer.tx_len(self.session);
        let mss = u32::from(self.mss);
        self.purpose = Purpose::None;
        let new = self.next_new(data_end, false);
        // The last segment as it was sent, but for a smaller MSS since.
        let last_len = u32::from(self.last_len).min(mss + 1);
        let last = self.recovery_mut(shared).flight.last_unsacked(last_len);
        match (new, last) {
            (Ok((len, fin)), _) => self.send_new(id, len, fin, data_end, shared, now, layer, out),
            (Err(_), Some((seq, len))) => self.send_again(seq, len, data_end, shared, now, layer, out),
            (Err(_), None) => {}
        }
        let probe = TailProbe { end: self.snd.nxt, is_repeated: new.is_err() };
        self.recovery_mut(shared).probe = Some(probe);
        shared.counters.tail_probes += 1;
        self.set_retransmit_timer(now, None, false, shared);
    }

    /// Something waits for the peer's window, which is closed or silly: send what little may be sent, one byte or the
    /// FIN at least (RFC 9293 §3.8.6, MUST-35; §3.8.6.1, MUST-36).
    fn probe<L: SessionLayer, O: Output>(
        &mut self,
        id: Key,
        shared: &mut Shared,
        now: Instant,
        layer: &L,
        out: &mut O,
    ) {
        let data_end = self.snd.una + layer.tx_len(self.session);
        shared.counters.probes_out += 1;
        if self.is_probing {
            self.send_again(self.snd.una, 1, data_end, shared, now, layer, out);
            return;
        }
        let unsent = distance(self.snd.nxt, data_end);
        let usable = distance(self.snd.nxt, self.snd.una + self.snd.wnd);
        if unsent > 0 {
            let len = unsent.min(usable.max(1)).min(u32::from(self.mss));
            self.is_probing = usable == 0;
            self.send_new(id, len, false, data_end, shared, now, layer, out);
        } else if self.is_fin_wanted && !self.is_fin_sent {
            self.send_new(id, 0, true, data_end, shared, now, layer, out);
        } else {
            self.stop_timer();
            return;
        }
        if !self.is_probing {
            self.purpose = Purpose::Retransmit;
        }
    }
}
