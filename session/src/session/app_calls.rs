//! What apps do with their sessions: read, write, relay, close. All of it takes effect at once.

use std::collections::VecDeque;

use hoststack_transport::SessionId;
use hoststack_transport::border::SessionLayer;

use super::{CloseAction, Session, Sessions, has_worthwhile_room};
use crate::events::Pending;
use crate::fifo::{ChunkPool, relay};
use crate::state::AppSide;

impl Session {
    /// The pool, not the fifo, cut a write short: the app is told when chunks were freed.
    fn wait_for_chunks(&mut self, id: SessionId, waiters: &mut VecDeque<SessionId>) {
        self.wants_room = true;
        if !self.waits_for_chunks {
            self.waits_for_chunks = true;
            waiters.push_back(id);
        }
    }
}

/// Chunks that apps' writes leave alone: an eighth of the pool. What the peers send must find room even if all apps
/// write as much as they can, or two stacks that fill their pools with bytes for each other would both stand still.
fn rx_reserve(chunks: &ChunkPool) -> usize {
    chunks.limit() >> 3
}

impl Sessions {
    /// Sets the app's value.
    pub fn set_opaque(&mut self, id: SessionId, opaque: u64) {
        if let Some(session) = self.pool.get_mut(id.0) {
            session.opaque = opaque;
        }
    }

    /// The received bytes that lie together; the app takes them with [`Sessions::consume`].
    pub fn peek(&self, id: SessionId) -> &[u8] {
        self.pool.get(id.0).map_or(&[], |session| session.rx.peek(&self.chunks))
    }

    /// Takes `count` received bytes away, at most what is there; says how many.
    pub fn consume(&mut self, id: SessionId, count: usize) -> usize {
        let Some(session) = self.pool.get_mut(id.0) else { return 0 };
        let count = count.min(session.rx.len());
        session.rx.consume(&mut self.chunks, count);
        self.after_read(id, count);
        count
    }

    /// Copies received bytes into `into` and takes them away; says how many.
    pub fn read(&mut self, id: SessionId, into: &mut [u8]) -> usize {
        let Some(session) = self.pool.get_mut(id.0) else { return 0 };
        let count = session.rx.read(&mut self.chunks, into);
        self.after_read(id, count);
        count
    }

    fn after_read(&mut self, id: SessionId, count: usize) {
        let Some(session) = self.pool.get_mut(id.0) else { return };
        if count == 0 {
            return;
        }
        // Cannot cut: a fifo holds 2^30 at most.
        session.rx_urgent = session.rx_urgent.saturating_sub(count as u32);
        if session.rx.is_empty() {
            // Nothing is left of what `readable` would have been about.
            session.pending.remove(Pending::READABLE);
        }
        if session.layered.is_some() {
            // There is room for more that is on the wire, and an end may have waited for it.
            self.pump(id);
            self.settle(id);
        } else if session.connection.is_some() {
            // The window may have opened: the transport decides whether that is worth a segment.
            self.program_tx(id);
        } else if session.rx.is_empty() {
            // `closed` may have waited for this.
            self.settle(id);
        }
    }

    /// Queues bytes for sending, as many as there is room for; says how many. After a short write `writable` follows.
    pub fn write(&mut self, id: SessionId, bytes: &[u8]) -> usize {
        let Some(session) = self.pool.get_mut(id.0) else { return 0 };
        if !session.is_writable() {
            return 0;
        }
        let wanted = bytes.len().min(session.tx.room(session.tx_capacity as usize));
        let chunks = self.chunks.available().saturating_sub(rx_reserve(&self.chunks));
        let count = if wanted < chunks * self.chunks.chunk_size() {
            wanted
        } else {
            session.tx.fits(&self.chunks, wanted, chunks)
        };
        let count = session.tx.write(&mut self.chunks, &bytes[..count], session.tx_capacity as usize);
        session.wants_room |= count < bytes.len();
        if count < wanted {
            session.wait_for_chunks(id, &mut self.chunk_waiters);
        }
        if count > 0 {
            self.program_tx(id);
        }
        count
    }

    /// [`Sessions::write`] of bytes that are urgent, and with them all that was queued before (RFC 9293 §3.8.5): the peer is
    /// told where those that were taken end. Urgent data of any length comes from any number of calls (MUST-31).
    pub fn write_urgent(&mut self, id: SessionId, bytes: &[u8]) -> usize {
        let count = self.write(id, bytes);
        if count > 0
            && let Some(session) = self.pool.get_mut(id.0)
            && session.layered.is_none()
        {
            // "To send an urgent indication, the user must also send at least one data octet."
            session.tx_urgent = session.tx.len() as u32; // fits: a fifo is 2^30 at most
        }
        count
    }

    /// Room to write in place: at most `want` bytes that lie together, none if there is no room (then `writable`
    /// follows). [`Sessions::commit`] queues them; it ends the reservation.
    pub fn reserve(&mut self, id: SessionId, want: usize) -> &mut [u8] {
        let Some(session) = self.pool.get_mut(id.0).filter(|session| session.is_writable()) else {
            return &mut [];
        };
        let room = session.tx.room(session.tx_capacity as usize);
        session.wants_room |= room < want;
        let want = want.min(room);
        let chunks = self.chunks.available().saturating_sub(rx_reserve(&self.chunks));
        if want > 0 && chunks == 0 && session.tx.fits(&self.chunks, 1, 0) == 0 {
            session.wait_for_chunks(id, &mut self.chunk_waiters);
            return &mut [];
        }
        session.tx.reserve(&mut self.chunks, want)
    }

    /// Queues the first `count` bytes of what [`Sessions::reserve`] returned last, and ends the reservation: what is
    /// not queued is given back, so that an idle session holds no chunk.
    ///
    /// # Panics
    /// If fewer bytes were reserved.
    pub fn commit(&mut self, id: SessionId, count: usize) {
        let Some(session) = self.pool.get_mut(id.0) else { return };
        session.tx.commit(count);
        session.tx.unreserve(&mut self.chunks);
        if count > 0 {
            self.program_tx(id);
        }
    }

    /// Moves received bytes of `from` into the send queue of `to` (which may be the same session), as many as there
    /// is room for; says how many. If some stay, `writable` of `to` follows.
    pub fn splice(&mut self, from: SessionId, to: SessionId) -> usize {
        if !self.pool.get(to.0).is_some_and(Session::is_writable) {
            return 0;
        }
        // Both fifos are borrowed at once with the chunk pool: take the source out for the call.
        let Some(source) = self.pool.get_mut(from.0) else { return 0 };
        let mut rx = std::mem::take(&mut source.rx);
        let want = rx.len();
        let mut moved = 0;
        if let Some(target) = self.pool.get_mut(to.0) {
            let room = target.tx.room(target.tx_capacity as usize);
            moved = relay(&mut self.chunks, &mut rx, &mut target.tx, want, target.tx_capacity as usize);
            target.wants_room |= moved < want;
            if moved < want.min(room) {
                target.wait_for_chunks(to, &mut self.chunk_waiters);
            }
        }
        if let Some(source) = self.pool.get_mut(from.0) {
            source.rx = rx;
        }
        if moved > 0 {
            self.program_tx(to);
            self.after_read(from, moved);
        }
        moved
    }

    /// Bytes that a write would take now.
    pub fn tx_room(&self, id: SessionId) -> usize {
        self.pool
            .get(id.0)
            .filter(|session| session.is_writable())
            .map_or(0, |session| session.tx.room(session.tx_capacity as usize))
    }

    /// Asks for `writable` once there is room again, as a short write does.
    pub fn want_room(&mut self, id: SessionId) {
        if let Some(session) = self.pool.get_mut(id.0).filter(|session| session.is_writable()) {
            session.wants_room = true;
            if has_worthwhile_room(session) {
                session.pending.add(Pending::WRITABLE);
                self.settle(id);
            }
        }
    }

    /// Whether chunks are free that sessions wait for: [`Sessions::serve_chunk_waiters`] has something to do.
    pub fn has_chunks_to_give(&self) -> bool {
        (!self.chunk_waiters.is_empty() && self.chunks.available() > rx_reserve(&self.chunks))
            || self.has_chunks_for_layers()
    }

    /// Makes sessions `writable` that wait for chunks, at most as many as there are free ones, longest waiting first.
    /// Called once a step, so that one that finds the pool exhausted again waits its turn.
    pub fn serve_chunk_waiters(&mut self) {
        self.serve_layers();
        let mut left = self.chunks.available().saturating_sub(rx_reserve(&self.chunks));
        while left > 0
            && let Some(id) = self.chunk_waiters.pop_front()
        {
            // Sessions that ended meanwhile are just taken out.
            let Some(session) = self.pool.get_mut(id.0) else { continue };
            left -= 1;
            session.waits_for_chunks = false;
            if session.app == AppSide::Unannounced {
                // A stage waits.
                self.settle(id);
            } else if session.wants_room && session.is_writable() {
                session.pending.add(Pending::WRITABLE);
                self.settle(id);
            }
        }
    }

    /// The app closes or resets the session: it gets `closed` and nothing else from now on.
    pub fn app_closes(&mut self, id: SessionId) -> CloseAction {
        let Some(session) = self.pool.get_mut(id.0) else { return CloseAction::Nothing };
        if session.app == AppSide::Unannounced || !session.advance_app(AppSide::Closed, &mut self.states) {
            return CloseAction::Nothing;
        }
        session.pending.remove(Pending::ALL_BUT_THE_END);
        let action = session.connection.map_or(CloseAction::Nothing, CloseAction::Ask);
        let action = self.end_layer(id).unwrap_or(action);
        self.settle(id);
        action
    }

    /// The app ends the stream of a session with a layer: that says so to the peer before the transport is asked
    /// ([`Sessions::next_due_ending`]). `None` without one, or if it cannot say anything any more.
    fn end_layer(&mut self, id: SessionId) -> Option<CloseAction> {
        let session = self.pool.get(id.0)?;
        let layered = session.layered.as_deref()?;
        if layered.is_broken() || layered.reason.is_some() || !session.transport.is_open() {
            return None;
        }
        self.pump(id);
        Some(CloseAction::Nothing)
    }

    /// The app asks for a reset of a session that it may have closed before.
    pub fn app_resets(&mut self, id: SessionId) -> CloseAction {
        let _ = self.app_closes(id);
        let connection = self.pool.get(id.0).filter(|s| s.app == AppSide::Closed).and_then(|s| s.connection);
        connection.map_or(CloseAction::Nothing, CloseAction::Ask)
    }

    /// The app has sent all it will.
    pub fn app_half_closes(&mut self, id: SessionId) -> CloseAction {
        let Some(session) = self.pool.get_mut(id.0) else { return CloseAction::Nothing };
        if session.app == AppSide::Unannounced || !session.advance_app(AppSide::HalfClosed, &mut self.states)
        {
            return CloseAction::Nothing;
        }
        session.pending.remove(Pending::WRITABLE);
        let action = session.connection.map_or(CloseAction::Nothing, CloseAction::Ask);
        match self.end_layer(id) {
            Some(action) => {
                self.settle(id);
                action
            }
            None => action,
        }
    }
}
