//! Urgent data (RFC 9293 §3.8.5; RFC 6093 on what others make of it): a place in the stream up to which the app should
//! read soon. The bytes are in line, here as there; what the app reads tells where it stands, so that RCV.UP lives with
//! the session layer, as bytes left to read. Nothing is urgent unless an app says so.

use alloc::vec::Vec;

use hoststack_transport::{SessionLayer, TransportEvent};
use hoststack_wire::{Flags, SegmentHeader, SeqNum};

use crate::connection::Connection;
use crate::engine::Shared;

impl Connection {
    /// "Sixth, check the URG bit" (RFC 9293 §3.10.7.4): into a closed window, too (§3.4, MUST-66), and of a segment beyond a
    /// gap, for the pointer may be known before the data.
    pub(crate) fn on_urgent<L: SessionLayer>(
        &mut self,
        header: &SegmentHeader,
        shared: &mut Shared,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) {
        // "CLOSE-WAIT STATE ...: This should not occur since a FIN has been received from the remote side. Ignore the URG."
        if header.flags.has(Flags::SYN) || !self.state.can_receive() || self.is_app_closed {
            return;
        }
        // §3.8.5 (MUST-62): SEG.UP is the octet after the urgent data. It may be old: a distance on the circle.
        let end = (header.seq + u32::from(header.urgent)).since(self.rcv.nxt) as i32;
        // (MUST-32): told whenever the pointer advances; what it says of data that was read is no news.
        if layer.rx_urgent(self.session, end) {
            shared.counters.urgent_in += 1;
            events.push(TransportEvent::Urgent { session: self.session });
        }
    }

    /// The app has called `len` bytes from SND.UNA on urgent, or nothing (RFC 9293 §3.10.2; §3.8.5, MUST-30).
    #[inline]
    pub(crate) fn note_urgent(&mut self, len: u32, shared: &mut Shared) {
        let end = (len > 0).then_some(self.snd.una + len);
        if self.urgent_end() == end {
            return;
        }
        self.extras_mut().urgent_end = end;
        shared.counters.urgent_out += u64::from(end.is_some());
    }

    /// SND.UP.
    #[inline]
    fn urgent_end(&self) -> Option<SeqNum> {
        self.extras.as_ref()?.urgent_end
    }

    /// Whether what lies at `seq` is urgent: SND.UNA =< SEG.SEQ < SND.UP.
    #[inline]
    pub(crate) fn is_urgent(&self, seq: SeqNum) -> bool {
        self.urgent_end().is_some_and(|end| end.after(self.snd.una) && end.after(seq))
    }

    /// The flag and the field for a segment that begins at `seq`. Farther than the field reaches, it says as far as it
    /// reaches, and the pointer moves on with each segment: urgent data may have any length (§3.8.5, MUST-31).
    #[inline]
    pub(crate) fn urgent_field(&self, seq: SeqNum) -> (Flags, u16) {
        match self.urgent_end().filter(|_| self.is_urgent(seq)) {
            Some(end) => (Flags::URG, u16::try_from(end.since(seq)).unwrap_or(u16::MAX)),
            None => (Flags::NONE, 0),
        }
    }
}
