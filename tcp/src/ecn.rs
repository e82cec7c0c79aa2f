//! Explicit congestion notification (RFC 3168 §6.1; RFC 9293 §3.8.2, SHLD-8): routers mark packets instead of dropping them, the receiver echoes
//! the mark until the sender says that it has answered.

use hoststack_transport::{EcnMode, Instant, Key, SocketOptions};
use hoststack_wire::{Flags, IpFields, SegmentHeader};

use crate::congestion::{CongestionControl, CongestionKind};
use crate::connection::Connection;
use crate::engine::Shared;
use crate::recovery::Mode;

/// ECT(0): the packet may be marked (RFC 3168 §5).
pub(crate) const ECT_0: u8 = 2;
/// The packet was marked.
pub(crate) const CE: u8 = 3;
/// Both flags on a SYN: an ECN-setup SYN (RFC 3168 §6.1.1).
pub(crate) const SETUP: Flags = Flags::ECE.union(Flags::CWR);

/// ECN of a connection that agreed on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ecn {
    /// Both ends do it.
    pub(crate) is_on: bool,
    /// A mark came, and the peer has not said that it answered: acknowledgments echo it (ECE).
    pub(crate) echoes: bool,
    /// We answered an echo: the next new data says so (CWR).
    says_reduced: bool,
}

impl Ecn {
    pub(crate) const fn new(is_on: bool) -> Ecn {
        Ecn { is_on, echoes: false, says_reduced: false }
    }
}

/// The flags of our SYN besides SYN: an ECN-setup SYN if asked for, but not when it is sent again, in case they were why
/// the first was lost (RFC 3168 §6.1.1.1).
pub(crate) fn syn_flags(options: &SocketOptions, is_first: bool) -> Flags {
    if options.ecn == EcnMode::Request && is_first { Flags::SYN | SETUP } else { Flags::SYN }
}

/// Whether a peer's SYN asks for it and the listener wants it.
pub(crate) fn is_setup_syn(options: &SocketOptions, syn: &SegmentHeader) -> bool {
    options.ecn != EcnMode::Off && syn.flags.has(SETUP)
}

/// Whether a SYN-ACK agrees to what our SYN asked for (RFC 3168 §6.1.1: ECE without CWR).
pub(crate) fn is_setup_syn_ack(options: &SocketOptions, syn_ack: &SegmentHeader) -> bool {
    options.ecn == EcnMode::Request && syn_ack.flags.has(Flags::ECE) && !syn_ack.flags.has(Flags::CWR)
}

impl Connection {
    /// A segment with data came, in the window: `ecn` are its IP header's bits (RFC 3168 §6.1.3).
    pub(crate) fn on_ecn_data(&mut self, id: Key, header: &SegmentHeader, ecn: u8, shared: &mut Shared) {
        if !self.ecn.is_on {
            return;
        }
        let echoed = self.ecn.echoes;
        if header.flags.has(Flags::CWR) {
            self.ecn.echoes = false;
        }
        if ecn == CE {
            self.ecn.echoes = true;
            shared.counters.ce_in += 1;
        }
        if self.ecn.echoes != echoed {
            // The sender shall hear of it at once.
            self.program_ack(id, shared);
        }
    }

    /// An acceptable acknowledgment came: congestion, if it echoes a mark, once per window of data. SND.UNA moved already.
    pub(crate) fn on_ecn_echo(
        &mut self,
        header: &SegmentHeader,
        flight: u32,
        shared: &mut Shared,
        now: Instant,
    ) {
        if !self.has_ecn_echo(header) {
            return;
        }
        shared.counters.ecn_echoes_in += 1;
        let counts = &mut self.extras_mut().counts;
        counts.ecn_echoes = counts.ecn_echoes.saturating_add(1);
        if self.mode() == Mode::Open && !self.is_ecn_reducing() {
            self.cc.on_congestion_event(now, self.used_window(flight), CongestionKind::Ecn);
            self.cc.on_recovery_exit(now);
            self.extras_mut().ecn_point = Some(self.snd.nxt);
            self.ecn.says_reduced = true;
        }
    }

    /// Whether an echo was answered and the window that it concerns is not yet acknowledged: Linux's state CWR.
    pub(crate) fn is_ecn_reducing(&self) -> bool {
        let point = self.extras.as_ref().and_then(|extras| extras.ecn_point);
        point.is_some_and(|point| point.after(self.snd.una))
    }

    /// Whether a segment echoes a mark.
    pub(crate) fn has_ecn_echo(&self, header: &SegmentHeader) -> bool {
        self.ecn.is_on && header.flags.has(Flags::ECE) && !header.flags.has(Flags::SYN)
    }

    /// Flags of a segment that is sent: the echo on every acknowledgment (§6.1.3), the answer on the first new data after
    /// it was given (§6.1.2).
    pub(crate) fn ecn_flags(&mut self, is_new_data: bool) -> Flags {
        let mut flags = Flags::NONE;
        if self.ecn.echoes {
            flags = flags | Flags::ECE;
        }
        if is_new_data && core::mem::take(&mut self.ecn.says_reduced) {
            flags = flags | Flags::CWR;
        }
        flags
    }

    /// Fields of a packet's IP header: only new data may be marked (§6.1.4: no pure acknowledgment, §6.1.5: nothing that is
    /// sent again, §6.1.6: no window probe).
    pub(crate) fn ip_fields(&self, is_new_data: bool) -> IpFields {
        let ect = if is_new_data && self.ecn.is_on { ECT_0 } else { 0 };
        IpFields { tos: self.ip.tos | ect, ..self.ip }
    }
}
