//! What a transport may ask of a worker's sessions while it handles a segment.

use hoststack_transport::border::{AcceptError, OooRange, RxStored, SessionLayer};
use hoststack_transport::{ConnectionId, EarlyData, FlowKey, Full, ListenerId, Protocol, SessionId};

use super::establishing::Establishing;
use super::{NOT_ESTABLISHING, Session, Sessions};
use crate::establish::Stages;
use crate::events::Pending;
use crate::fifo::{RxFifo, TxFifo};
use crate::life::Life;
use crate::state::TransportSide;

impl Session {
    /// The fifo that the transport fills.
    #[inline]
    fn transport_rx(&self) -> &RxFifo {
        match &self.layered {
            None => &self.rx,
            Some(layered) => &layered.wire_rx,
        }
    }

    #[inline]
    fn transport_rx_mut(&mut self) -> &mut RxFifo {
        match &mut self.layered {
            None => &mut self.rx,
            Some(layered) => &mut layered.wire_rx,
        }
    }

    /// The fifo that the transport empties.
    #[inline]
    fn transport_tx(&self) -> &TxFifo {
        match &self.layered {
            None => &self.tx,
            Some(layered) => &layered.wire_tx,
        }
    }

    #[inline]
    fn transport_tx_mut(&mut self) -> &mut TxFifo {
        match &mut self.layered {
            None => &mut self.tx,
            Some(layered) => &mut layered.wire_tx,
        }
    }
}

impl SessionLayer for Sessions {
    fn accept(
        &mut self,
        listener: ListenerId,
        connection: ConnectionId,
        flow: &FlowKey,
    ) -> Result<SessionId, AcceptError> {
        let record = self.listeners.get(listener).ok_or(AcceptError::NoListener)?;
        if !self.app_workers.takes_sessions(record.app_worker) {
            return Err(AcceptError::NoListener);
        }
        let (app_worker, opaque, options) = (record.app_worker, record.opaque, record.options);
        let stages = (!record.stages.is_empty()).then(|| {
            let deadline = self.now + record.stage_timeout;
            let stages = Stages::new(&record.stages, EarlyData::NONE);
            Establishing {
                ticket: None,
                session: None,
                stages,
                outcome: None,
                verdict: None,
                is_said: false,
                deadline,
                may_retry: false,
                turn: None,
            }
        });
        let id = self
            .new_session(
                *flow,
                app_worker,
                opaque,
                NOT_ESTABLISHING,
                TransportSide::Open,
                options,
                Life::accepted(),
            )
            .map_err(|Full| AcceptError::NoRoom)?;
        self.bind(id, connection);
        if let Some(establishing) = stages
            && let Some(session) = self.pool.get_mut(id.0)
        {
            let slot = self.establishing.insert(Establishing { session: Some(id), ..establishing });
            session.establishing = slot as u32; // fits: there are no more than sessions
        }
        Ok(id)
    }

    #[inline]
    fn rx_room(&self, session: SessionId) -> u32 {
        self.pool.get(session.0).map_or(0, |s| s.transport_rx().room(s.rx_capacity as usize) as u32)
    }

    #[inline]
    fn rx_store(&mut self, session: SessionId, offset: u32, data: &[u8]) -> RxStored {
        match self.pool.get_mut(session.0) {
            Some(s) => {
                let capacity = s.rx_capacity as usize;
                let rx = s.transport_rx_mut();
                let room = rx.room(capacity);
                rx.store(&mut self.chunks, offset, data, room)
            }
            None => RxStored::default(),
        }
    }

    #[inline]
    fn rx_ranges(&self, session: SessionId) -> &[OooRange] {
        self.pool.get(session.0).map_or(&[], |s| s.transport_rx().ranges())
    }

    fn rx_unread(&self, session: SessionId) -> u32 {
        // What a layer has decrypted is the peer's data as well.
        self.pool.get(session.0).map_or(0, |s| {
            let wire = s.layered.as_ref().map_or(0, |layered| layered.wire_rx.len());
            (wire + s.rx.len()) as u32
        })
    }

    fn takes_after_close(&self, session: SessionId) -> bool {
        // A layer's end, and what crosses our last words, are no data for an app that is gone.
        self.pool.get(session.0).is_some_and(|s| s.layered.is_some() || s.pending.has(Pending::SILENT))
    }

    #[inline]
    fn tx_len(&self, session: SessionId) -> u32 {
        self.pool.get(session.0).map_or(0, |s| s.transport_tx().len() as u32)
    }

    #[inline]
    fn tx_copy(&self, session: SessionId, offset: u32, into: &mut [u8]) {
        if let Some(s) = self.pool.get(session.0) {
            s.transport_tx().copy(&self.chunks, offset as usize, into);
        }
    }

    #[inline]
    fn tx_acknowledge(&mut self, session: SessionId, count: u32) {
        if let Some(s) = self.pool.get_mut(session.0) {
            s.transport_tx_mut().acknowledge(&mut self.chunks, count as usize);
            s.tx_urgent = s.tx_urgent.saturating_sub(count);
        }
    }

    fn rx_urgent(&mut self, session: SessionId, end: i32) -> bool {
        let Some(s) = self.pool.get_mut(session.0) else { return false };
        if s.layered.is_some() {
            // A place among encrypted bytes means nothing to the app.
            return false;
        }
        // Negative, if the app has read it all.
        let left = u32::try_from(s.rx.len() as i64 + i64::from(end)).unwrap_or(0);
        // RFC 9293 §3.10.7.4 sixth: "RCV.UP <- max(RCV.UP,SEG.UP)".
        let is_news = left > s.rx_urgent;
        s.rx_urgent = s.rx_urgent.max(left);
        is_news
    }

    #[inline]
    fn tx_urgent(&self, session: SessionId) -> u32 {
        self.pool.get(session.0).map_or(0, |s| s.tx_urgent)
    }

    fn tx_wanted(&mut self, session: SessionId, bytes: u32) {
        if let Some(s) = self.pool.get_mut(session.0) {
            s.tx_capacity = s.tx_capacity.max(bytes.min(s.tx_capacity_max));
        }
    }

    #[inline]
    fn program_tx(&mut self, session: SessionId) {
        if let Some(s) = self.pool.get_mut(session.0)
            && !s.tx_programmed
            && s.connection.is_some()
        {
            s.tx_programmed = true;
            match s.flow.protocol {
                Protocol::Tcp => self.tx_programmed.push_back(session),
                _ => self.other_programmed.push_back(session),
            }
        }
    }
}
