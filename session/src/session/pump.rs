//! Sessions with a layer: when it is pumped, and what follows from how it stands.
//!
//! `Sessions::pump` moves bytes and nothing else happens there; `Sessions::heed_layer`, a part of `settle`, looks at how layer,
//! app and transport stand and does what that asks for, once. So whichever of them moved last, nothing is left waiting.
//!
//! Towards the peer the app's bytes are taken when the transport is about to transmit ([`Sessions::next_programmed`]), so that
//! many small writes become one record; towards the app whenever there are bytes and room.

use hoststack_transport::border::SessionLayer;
use hoststack_transport::{CloseReason, ConnectionId, SessionId};

use super::{Session, Sessions, has_worthwhile_room};
use crate::events::Pending;
use crate::layer::{Did, Ending, Layer, LayerIo, Layered, PeerStream, wire_reserve};
use crate::state::{AppSide, TransportSide};

impl Session {
    /// What lies between the transport's bytes and the app's, if there is something.
    pub fn layer(&self) -> Option<&dyn Layer> {
        self.layered.as_ref().map(|layered| &*layered.layer)
    }

    /// Whether the app has bytes to read, now or when it has made room.
    pub(super) fn has_unread(&self) -> bool {
        !self.rx.is_empty() || self.layered.as_ref().is_some_and(|layered| layered.has_undelivered())
    }

    /// Whether the app has been told of the session, or is about to be.
    fn is_up(&self) -> bool {
        self.app != AppSide::Unannounced || self.pending.has(Pending::ANNOUNCE)
    }
}

impl Sessions {
    /// Lets a session's layer move what it can. The caller settles afterwards.
    #[inline]
    pub(super) fn pump(&mut self, id: SessionId) {
        if self.pool.get(id.0).is_some_and(|session| session.layered.is_some()) {
            self.pump_layer(id);
        }
    }

    #[cold]
    fn pump_layer(&mut self, id: SessionId) {
        let Some(session) = self.pool.get_mut(id.0) else { return };
        let Some(layered) = session.layered.as_deref_mut() else { return };
        if layered.is_broken() || layered.reason.is_some() || session.pending.has(Pending::SILENT) {
            return;
        }
        let mut io = LayerIo {
            wire_rx: &mut layered.wire_rx,
            wire_tx: &mut layered.wire_tx,
            rx: &mut session.rx,
            tx: &mut session.tx,
            chunks: &mut self.chunks,
            rx_capacity: session.rx_capacity as usize,
            wire_tx_capacity: Layered::wire_tx_capacity(session.tx_capacity as usize),
            is_wire_closed: matches!(
                session.transport,
                TransportSide::PeerClosed | TransportSide::Closed(CloseReason::Finished)
            ),
            is_app_done: session.app >= AppSide::HalfClosed,
            can_send: session.transport.is_open(),
            scratch: &mut self.scratch,
            did: Did::default(),
        };
        layered.standing = layered.layer.pump(&mut io);
        let did = io.did;
        if did.lack_chunks && !std::mem::replace(&mut layered.waits_for_chunks, true) {
            self.layer_waiters.push_back(id);
        }
        if did.deliver && session.app != AppSide::Closed {
            session.life.on_bytes(session.born, self.now);
            session.pending.add(Pending::READABLE);
        }
        if did.take && session.wants_room && session.is_writable() && has_worthwhile_room(session) {
            session.pending.add(Pending::WRITABLE);
        }
        if did.send || did.receive {
            // Something to send, or a window that may have opened.
            self.program_tx(id);
        }
    }

    /// Whether layers wait for chunks and there are enough for one to get on with: two, for one may be taken up by what is not
    /// the app's.
    pub(super) fn has_chunks_for_layers(&self) -> bool {
        !self.layer_waiters.is_empty() && self.chunks.available() >= wire_reserve(&self.chunks) + 2
    }

    /// Pumps layers that wait for chunks, each once, while there are some.
    pub(super) fn serve_layers(&mut self) {
        for _ in 0..self.layer_waiters.len() {
            if !self.has_chunks_for_layers() {
                return;
            }
            let Some(id) = self.layer_waiters.pop_front() else { return };
            if let Some(layered) = self.pool.get_mut(id.0).and_then(|session| session.layered.as_deref_mut())
            {
                layered.waits_for_chunks = false;
            }
            self.pump(id);
            self.settle(id);
        }
    }

    /// Does what the standing of a session's layer asks for and has not been done.
    pub(super) fn heed_layer(&mut self, id: SessionId) {
        let Some(session) = self.pool.get_mut(id.0) else { return };
        let establishing = self.establishing.get(session.establishing as usize);
        let has_failed =
            establishing.is_some_and(|establishing| matches!(establishing.outcome, Some(Err(_))));
        let is_up = session.is_up() && !has_failed;
        let Some(layered) = session.layered.as_deref_mut() else { return };
        if !is_up || session.pending.has(Pending::SILENT) {
            // What is wrong is a failure of the stages, not an end.
            return;
        }
        let mut ask = None;
        match layered.standing.peer {
            PeerStream::Flows => {}
            PeerStream::Ended => {
                if !std::mem::replace(&mut layered.is_end_told, true) && session.app != AppSide::Closed {
                    session.pending.add(Pending::PEER_CLOSED);
                }
            }
            // RFC 8446 §6.1: data that was cut must not pass for all of it. An app that closed does not read it.
            PeerStream::Cut => {
                if session.app != AppSide::Closed && session.rx.is_empty() && layered.reason.is_none() {
                    layered.reason = Some(CloseReason::Truncated);
                    ask = Some(Ending::Reset);
                }
            }
            PeerStream::Broken(reason) => {
                if layered.reason.is_none() {
                    layered.reason = Some(reason);
                    ask = Some(Ending::SendThenReset);
                }
            }
        }
        if ask.is_none() && session.app == AppSide::Closed && !session.rx.is_empty() {
            // RFC 9293 §3.6.1 (MAY-1): data for an app that cannot read any more.
            ask = Some(Ending::Reset);
        }
        if ask.is_none() && layered.standing.has_ended {
            ask = match session.app {
                AppSide::Closed => Some(Ending::Close),
                AppSide::HalfClosed => Some(Ending::HalfClose),
                AppSide::Unannounced | AppSide::Open => None,
            };
        }
        match (ask, session.connection) {
            (None, _) => {}
            (Some(ask), Some(connection)) => {
                if layered.asked.is_none_or(|asked| asked < ask) {
                    layered.asked = Some(ask);
                    self.due.push_back((id, connection, ask));
                }
            }
            // The transport had ended well, and what came over it turned out not to.
            (Some(_), None) => {
                if let Some(reason) = layered.reason
                    && session.transport == TransportSide::Closed(CloseReason::Finished)
                {
                    session.transport = TransportSide::Closed(reason);
                    if session.app != AppSide::Closed {
                        session.pending.add(Pending::RESET);
                    }
                }
            }
        }
    }

    /// A connection that its transport must be asked to end, and how. The worker asks for all of them in every step, before
    /// it transmits.
    pub fn next_due_ending(&mut self) -> Option<(SessionId, ConnectionId, Ending)> {
        while let Some((id, connection, ending)) = self.due.pop_front() {
            let session = self.pool.get(id.0);
            if session.is_some_and(|session| session.connection == Some(connection)) {
                return Some((id, connection, ending));
            }
        }
        None
    }

    /// For tests' worlds without a worker.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn due_reset(&mut self, id: SessionId, connection: ConnectionId) {
        self.due.push_back((id, connection, Ending::Reset));
    }

    /// Whether [`Sessions::next_due_ending`] may have one.
    pub fn has_due_endings(&self) -> bool {
        !self.due.is_empty()
    }

    /// What a session's transport's end means to its layer: bytes that came before it are delivered, and an end that the
    /// layer saw first, or did not see at all, is how the session ended. Called before the session's side moves.
    pub(super) fn reason_with_layer(&mut self, id: SessionId, reason: CloseReason) -> CloseReason {
        self.pump(id);
        let Some(session) = self.pool.get_mut(id.0) else { return reason };
        let Some(layered) = session.layered.as_deref_mut() else { return reason };
        layered.wire_tx.release(&mut self.chunks);
        let seen = match layered.standing.peer {
            PeerStream::Broken(seen) => Some(seen),
            _ => None,
        };
        let reason = layered.reason.or(seen).unwrap_or(reason);
        if !reason.is_graceful() {
            layered.wire_rx.release(&mut self.chunks);
        }
        reason
    }
}
