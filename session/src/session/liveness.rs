//! What must hold of a session between steps, so that it can go on: asserted by tests of all sessions, and looked for in a
//! live stack (`show session stuck`).
//!
//! In the words of the design: "ready and unannounced is impossible at the end of any step; non-terminal with neither wake
//! source nor deadline is impossible" (invariant 6).

use hoststack_transport::{Duration, SessionId, SessionLayer};

use super::{NOT_ESTABLISHING, Session, Sessions};
use crate::events::Pending;
use crate::layer::Layered;
use crate::state::{AppSide, TransportSide};

/// How long after its deadline something is late. A worker that steps meets a deadline within one step.
const LATE: Duration = Duration::from_secs(1);

impl Sessions {
    /// What is wrong with a session that it cannot go on by itself; `None` if nothing is. To be asked between steps or at
    /// the end of one: in the middle much is half done.
    pub fn fault(&self, id: SessionId) -> Option<&'static str> {
        let session = self.pool.get(id.0)?;
        let establishing = self.establishing.get(session.establishing as usize);
        if session.app == AppSide::Unannounced && !session.pending.has(Pending::ANNOUNCE) {
            let has_stages = establishing.is_some_and(|establishing| !establishing.stages.is_empty());
            let may_wait =
                session.transport == TransportSide::Opening || (has_stages && session.transport.is_open());
            if !may_wait {
                return Some("it is ready, or has failed, and its app is not told");
            }
            match establishing {
                None => return Some("it is being established and has no deadline"),
                Some(establishing) if establishing.deadline + LATE < self.now => {
                    return Some("it is being established beyond its deadline");
                }
                Some(_) => {}
            }
        }
        if session.app != AppSide::Unannounced && session.establishing != NOT_ESTABLISHING {
            return Some("its app was told, and it still counts as being established");
        }
        let is_visible = session.app != AppSide::Unannounced || session.pending.has(Pending::ANNOUNCE);
        let waits_for_app = session.pending.first() == Some(Pending::CLOSED) && session.has_unread();
        if is_visible && !session.queued && session.pending.first().is_some() && !waits_for_app {
            return Some("its app must be told something, and nobody will");
        }
        if matches!(session.transport, TransportSide::Closed(_)) && !session.pending.has(Pending::CLOSED) {
            // Before the announcement the outcome says it.
            if session.app != AppSide::Unannounced {
                return Some("its transport is done, and its app is not told");
            }
        }
        if session.transport.is_open() && session.connection.is_none() {
            return Some("its transport is open, and has no connection for it");
        }
        self.layer_fault(session)
    }

    /// Whether a session's layer could move bytes that no one will come back for.
    fn layer_fault(&self, session: &Session) -> Option<&'static str> {
        let layered = session.layered.as_deref()?;
        let is_over = layered.reason.is_some()
            || layered.is_broken()
            || session.pending.has(Pending::SILENT)
            || matches!(session.transport, TransportSide::Closed(reason) if !reason.is_graceful());
        if is_over || layered.waits_for_chunks {
            return None;
        }
        if !layered.wire_rx.is_empty() && session.rx.room(session.rx_capacity as usize) > 0 {
            return Some("bytes are on the wire that its layer could take");
        }
        if session.tx_programmed || !session.transport.is_open() {
            return None;
        }
        let capacity = Layered::wire_tx_capacity(session.tx_capacity as usize);
        if !session.tx.is_empty() && layered.wire_tx.room(capacity) >= (capacity / 4).max(session.tx.len()) {
            return Some("its app wrote bytes that its layer could take");
        }
        if session.app >= AppSide::HalfClosed
            && !layered.standing.has_ended
            && session.tx.is_empty()
            && layered.wire_tx.is_empty()
        {
            return Some("its app ended the stream, and its layer could say so");
        }
        None
    }

    /// Bytes that its transport has to send and nothing programmed: the transport must have a reason, or it is stuck.
    pub fn unprogrammed_tx(&self, id: SessionId) -> u32 {
        match self.pool.get(id.0) {
            Some(session) if !session.tx_programmed => self.tx_len(id),
            _ => 0,
        }
    }

    /// Asserts what must hold between steps.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn check_consistency(&self) {
        let mut states = super::SessionStates::default();
        for (key, session) in self.pool.iter() {
            states.born(session.state());
            if let Some(fault) = self.fault(SessionId(key)) {
                panic!(
                    "s{key} ({}/{}, {:?} pending): {fault}",
                    session.app, session.transport, session.pending
                );
            }
        }
        assert_eq!(states, self.states, "sessions are counted by their states");
    }
}
