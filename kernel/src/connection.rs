//! One established connection: how bytes pass between its socket and its session, and how it ends.
//!
//! The socket is read and written until the host says `EAGAIN`, never only until a call is short: a read may be short
//! with more behind it (urgent data, control messages of Unix sockets), and the poller tells of a change only once.

use core::fmt::Write as _;

use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    Address, CloseReason, Duration, Endpoint, FlowKey, Instant, RxStored, SessionId, SessionLayer,
    SocketOption, TransportEvent,
};

use crate::error::close_reason;
use crate::host::{Errno, Readiness, Socket};

/// Bytes that a connection may read, or write, before it is another's turn.
pub(crate) const TURN_MAX: usize = 256 * 1024;
/// When bytes that the session layer had no memory for are offered again.
const RETRY: Duration = Duration::from_millis(5);
/// How long an app may take to read what came before an error, if there is more than its fifo holds.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// What is next for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Fate {
    /// Nothing, until something happens.
    Waits,
    /// Another turn: it could go on.
    GoesOn,
    /// It has ended.
    Over(CloseReason),
}

/// Where its bytes pass through, the engine's.
pub(crate) type Scratch = [u8];

pub(crate) struct Connection {
    pub(crate) session: SessionId,
    pub(crate) flow: FlowKey,
    pub(crate) socket: Socket,
    /// What the poller told, until the host says `EAGAIN`.
    readable: bool,
    writable: bool,
    /// The poller told of an error that no call has returned yet.
    has_error: bool,
    /// The peer has closed its direction, and the session was told.
    is_eof: bool,
    /// The app has sent all it will.
    is_fin_wanted: bool,
    /// So was the peer told.
    is_fin_sent: bool,
    /// The app wants no more of it.
    is_closing: bool,
    /// Waits for a turn, in the engine's list.
    pub(crate) is_listed: bool,
    /// A write failed: nothing is sent any more, and what can be read comes before the end.
    error: Option<Errno>,
    /// Received, and refused by the session layer for want of memory.
    refused: Vec<u8>,
    linger_ms: Option<u32>,
    linger_at: Instant,
    retry_at: Instant,
    drain_at: Instant,
    /// Deadline of the wheel's entry for this; an entry with another one is stale.
    pub(crate) wheel_at: Instant,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Connection {
    /// One that is up. That it can be written to is assumed, for the poller need not be asked first.
    pub(crate) fn new(
        session: SessionId,
        flow: FlowKey,
        socket: Socket,
        linger_ms: Option<u32>,
    ) -> Connection {
        Connection {
            session,
            flow,
            socket,
            readable: false,
            writable: true,
            has_error: false,
            is_eof: false,
            is_fin_wanted: false,
            is_fin_sent: false,
            is_closing: false,
            is_listed: false,
            error: None,
            refused: Vec::new(),
            linger_ms,
            linger_at: Instant::FAR,
            retry_at: Instant::FAR,
            drain_at: Instant::FAR,
            wheel_at: Instant::FAR,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    pub(crate) fn timer(&self) -> Instant {
        self.linger_at.min(self.retry_at).min(self.drain_at)
    }

    /// The poller told something of it.
    pub(crate) fn on_ready<L: SessionLayer>(&mut self, readiness: &Readiness, layer: &mut L) {
        let Readiness { token: _, readable, writable, peer_closed, hang_up, error } = *readiness;
        // An end is found by reading up to it, an error by the call that returns it.
        self.readable |= readable || peer_closed || hang_up || error;
        self.writable |= writable || hang_up || error;
        self.has_error |= error;
        if self.writable && self.has_to_send(layer) && !canary::has(Bug::RoomForgotten) {
            layer.program_tx(self.session);
        }
    }

    fn has_to_send<L: SessionLayer>(&self, layer: &L) -> bool {
        let is_fin_due = self.is_closing || self.is_fin_wanted && !self.is_fin_sent;
        self.error.is_none() && (is_fin_due || !self.is_fin_sent && layer.tx_len(self.session) > 0)
    }

    // ---- Socket -> session ----

    /// Reads while there is something and room for it.
    pub(crate) fn receive<L: SessionLayer>(
        &mut self,
        now: Instant,
        scratch: &mut Scratch,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) -> Fate {
        if self.is_eof {
            return self.after_eof();
        }
        let mut left = TURN_MAX;
        let mut is_told = false;
        if !self.refused.is_empty() {
            let refused = core::mem::take(&mut self.refused);
            self.store(now, &refused, &mut is_told, layer, events);
        }
        while self.readable {
            if left == 0 {
                return Fate::GoesOn;
            }
            let room = match self.room(layer) {
                // Nothing is lost: the app's next read asks again, through `transmit`.
                0 => {
                    if self.has_error || self.error.is_some() {
                        self.drain_at = self.drain_at.min(now + DRAIN_MAX);
                    }
                    return Fate::Waits;
                }
                room => room.min(scratch.len()).min(left),
            };
            match self.socket.read(&mut scratch[..room]) {
                Ok(0) => return self.on_eof(events),
                Ok(count) => {
                    let count = count.min(room);
                    left -= count;
                    self.bytes_in += count as u64; // widens
                    if !self.is_closing {
                        self.store(now, &scratch[..count], &mut is_told, layer, events);
                    }
                }
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    if let Some(error) = self.error {
                        return Fate::Over(close_reason(error));
                    }
                    return self.after_error();
                }
                Err(Errno::INTR) => {}
                Err(error) => return Fate::Over(close_reason(self.error.unwrap_or(error))),
            }
        }
        Fate::Waits
    }

    /// How much may be read now.
    fn room<L: SessionLayer>(&self, layer: &L) -> usize {
        if self.is_closing {
            // Dropped: but it is read, or a peer that writes before it reads would wait for ever.
            usize::MAX
        } else if self.refused.is_empty() {
            layer.rx_room(self.session) as usize // widens
        } else {
            0
        }
    }

    /// Hands bytes to the session; keeps what it has no memory for.
    fn store<L: SessionLayer>(
        &mut self,
        now: Instant,
        data: &[u8],
        is_told: &mut bool,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) {
        let RxStored { advanced: _, refused } = layer.rx_store(self.session, 0, data);
        // In order and within the room, so what is refused is the end.
        let stored = data.len().saturating_sub(refused as usize); // widens
        if stored > 0 && !*is_told {
            *is_told = true;
            events.push(TransportEvent::Received { session: self.session });
        }
        self.refused = data[stored..].to_vec();
        self.retry_at = if self.refused.is_empty() { Instant::FAR } else { now + RETRY };
    }

    fn on_eof(&mut self, events: &mut Vec<TransportEvent>) -> Fate {
        self.readable = false;
        self.is_eof = true;
        if let Some(error) = self.error {
            // The failed write took the error away: to the read it looks like an end.
            return Fate::Over(close_reason(error));
        }
        if !self.is_closing {
            events.push(TransportEvent::PeerClosed { session: self.session });
        }
        if self.is_fin_sent { Fate::Over(CloseReason::Finished) } else { self.after_error() }
    }

    /// After the peer's end there is nothing to read, but a reset may come.
    fn after_eof(&mut self) -> Fate {
        self.readable = false;
        match self.error {
            Some(error) => Fate::Over(close_reason(error)),
            None => self.after_error(),
        }
    }

    /// The poller told of an error that no read returned: the socket's own word decides.
    fn after_error(&mut self) -> Fate {
        if !core::mem::take(&mut self.has_error) {
            return Fate::Waits;
        }
        match self.socket.take_error() {
            Some(error) => Fate::Over(close_reason(error)),
            None => {
                self.drain_at = Instant::FAR;
                Fate::Waits
            }
        }
    }

    // ---- Session -> socket ----

    /// Writes what is queued while the host takes it, at most `burst` times; then what is to follow the last byte.
    pub(crate) fn send<L: SessionLayer>(
        &mut self,
        burst: usize,
        scratch: &mut Scratch,
        layer: &mut L,
        events: &mut Vec<TransportEvent>,
    ) -> Fate {
        match self.error {
            Some(error) if self.is_closing => return Fate::Over(close_reason(error)),
            Some(_) => return Fate::Waits,
            None => {}
        }
        let (mut left, mut calls, mut sent) = (TURN_MAX, burst.max(1), 0u32);
        let fate = loop {
            let queued = if self.is_fin_sent { 0 } else { layer.tx_len(self.session) as usize }; // widens
            if queued == 0 {
                break self.finish();
            }
            if !self.writable {
                break Fate::Waits;
            }
            if left == 0 || calls == 0 {
                break Fate::GoesOn;
            }
            calls -= 1;
            let count = queued.min(scratch.len()).min(left);
            layer.tx_copy(self.session, 0, &mut scratch[..count]);
            match self.socket.write(&scratch[..count]) {
                Ok(0) | Err(Errno::AGAIN) => self.writable = false,
                Ok(taken) => {
                    let taken = if canary::has(Bug::ShortWriteIsWhole) { count } else { taken.min(count) };
                    left -= taken;
                    sent += taken as u32; // cannot cut: at most `TURN_MAX`
                    layer.tx_acknowledge(self.session, taken as u32);
                }
                Err(Errno::INTR) => {}
                Err(error) => break self.on_write_error(error),
            }
        };
        if sent > 0 {
            self.bytes_out += u64::from(sent);
            events.push(TransportEvent::Acknowledged { session: self.session });
            // What the host takes at a time is what a congestion window is elsewhere.
            layer.tx_wanted(self.session, sent.saturating_mul(2));
        }
        fate
    }

    /// All that was queued is out.
    fn finish(&mut self) -> Fate {
        if self.is_closing {
            // The host does the rest: it sends what it has and a FIN, or, if something is unread, a RST (RFC 2525 §2.17).
            return Fate::Over(CloseReason::Finished);
        }
        if !self.is_fin_wanted || self.is_fin_sent {
            return Fate::Waits;
        }
        match self.socket.finish() {
            Ok(()) => {
                self.is_fin_sent = true;
                if self.is_eof { Fate::Over(CloseReason::Finished) } else { Fate::Waits }
            }
            Err(error) => self.on_write_error(error),
        }
    }

    /// What came before the error is read first, if the app still wants it.
    fn on_write_error(&mut self, error: Errno) -> Fate {
        // ENOTCONN: the reset was told before.
        self.error = Some(self.socket.take_error().filter(|_| error == Errno::NOTCONN).unwrap_or(error));
        if self.is_closing || self.is_eof {
            return Fate::Over(close_reason(error));
        }
        self.readable = true;
        Fate::GoesOn
    }

    // ---- What the app wants ----

    /// The app wants no more of it. Whether it is to be reset instead of sending what is queued.
    pub(crate) fn close<L: SessionLayer>(&mut self, now: Instant, layer: &L) -> bool {
        // As in this stack's own TCP: RFC 2525 §2.17, RFC 9293 §3.6.1.
        if layer.rx_unread(self.session) > 0 || !self.refused.is_empty() || self.linger_ms == Some(0) {
            return true;
        }
        self.is_closing = true;
        if let Some(ms) = self.linger_ms {
            self.linger_at = now + Duration::from_millis(ms.into());
        }
        false
    }

    /// A write failed: it has only to read.
    pub(crate) fn is_failing(&self) -> bool {
        self.error.is_some()
    }

    pub(crate) fn half_close(&mut self) {
        self.is_fin_wanted = true;
    }

    pub(crate) fn set_option(&mut self, option: SocketOption) {
        match option {
            SocketOption::Linger(ms) => self.linger_ms = ms,
            option => self.socket.set_option(option),
        }
    }

    // ---- Time ----

    /// Its timer is due.
    pub(crate) fn on_timer(&mut self, now: Instant) -> Fate {
        if self.linger_at <= now {
            let _ = self.socket.reset_on_close(); // else it ends with a FIN, too early
            return Fate::Over(CloseReason::LocalReset);
        }
        if self.drain_at <= now {
            self.drain_at = Instant::FAR;
            if let Some(error) = self.error.or_else(|| self.socket.take_error()) {
                return Fate::Over(close_reason(error));
            }
        }
        if self.retry_at <= now {
            self.retry_at = Instant::FAR;
            return Fate::GoesOn;
        }
        Fate::Waits
    }

    // ---- For people ----

    pub(crate) fn describe(&self) -> String {
        let Connection { flow, readable, writable, bytes_in, bytes_out, .. } = self;
        let state = match (self.is_closing, self.is_eof, self.is_fin_wanted) {
            _ if self.error.is_some() => "failed",
            (true, _, _) => "closing",
            (false, true, _) => "peer-closed",
            (false, false, true) if self.is_fin_sent => "fin-sent",
            (false, false, true) => "fin-wanted",
            (false, false, false) => "open",
        };
        let mut text =
            format!("transport={} state={state} in={bytes_in} out={bytes_out}", flow.protocol.name());
        // Writing to a string cannot fail.
        let _ = write!(text, " readable={readable} writable={writable}");
        if !self.refused.is_empty() {
            let _ = write!(text, " refused={}", self.refused.len());
        }
        text
    }

    /// What is wrong with it that it cannot go on by itself.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.wheel_at > self.timer() {
            return Some("it has a timer that no wheel entry will fire");
        }
        if !self.refused.is_empty() && self.retry_at == Instant::FAR && !self.is_listed {
            return Some("it keeps bytes that nobody will offer again");
        }
        (self.is_fin_sent && !self.is_fin_wanted).then_some("it sent a FIN that nobody wanted")
    }

    /// # Panics
    /// When something does not hold that must between any two calls.
    pub(crate) fn check_consistency(&self) {
        if let Some(fault) = self.fault() {
            panic!("{}: {fault}", self.session);
        }
    }
}

/// Between whom a connection to, or from, such an address is.
pub(crate) fn flow(address: &Address, local: Endpoint, remote: Endpoint) -> FlowKey {
    let (local, remote) = match address.endpoint() {
        Some(_) => (local, remote),
        None => (Endpoint::UNSPECIFIED, Endpoint::UNSPECIFIED),
    };
    FlowKey { local, remote, domain: hoststack_transport::DomainId(0), protocol: address.protocol() }
}
