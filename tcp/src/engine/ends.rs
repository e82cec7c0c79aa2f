//! How flows end, and the table that they are found in.

use super::*;

impl Engine {
    pub(super) fn dispose<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        key: Key,
        fate: Fate,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        match fate {
            Fate::Lives => {}
            Fate::Closed(reason) => self.close_connection(key, reason, events),
            Fate::TimeWait => self.enter_time_wait(now, key, layer, out, events),
        }
    }

    /// The connection is over, without TIME-WAIT.
    pub(super) fn close_connection(
        &mut self,
        key: Key,
        reason: CloseReason,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(connection) = self.connections.get(key) else { return };
        let (flow, stats) = (connection.flow, connection.end_stats());
        let is_failure = !matches!(reason, CloseReason::Finished | CloseReason::LocalReset);
        self.shared.counters.failed += u64::from(is_failure);
        // RFC 9293 §3.6 (MUST-12): the reason tells a reset from a normal end.
        events.push(TransportEvent::Closed { session: connection.session, reason, stats });
        if connection.is_active_open {
            events.push(TransportEvent::FlowGone { flow });
        }
        self.discard_connection(key);
        self.remove_connection_flow(&flow, key);
    }

    pub(super) fn enter_time_wait<L: SessionLayer, O: Output>(
        &mut self,
        now: Instant,
        key: Key,
        layer: &mut L,
        out: &mut O,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.is_ack_programmed {
            // Nothing will carry it any more.
            connection.send_ack(&mut self.shared, now, layer, out);
        }
        let (flow, session, stats) = (connection.flow, connection.session, connection.end_stats());
        let record = TimeWait::of(connection, &self.shared.secrets);
        self.discard_connection(key);
        if self.time_waits.is_full() {
            self.shared.drops.count(DropReason::TimeWaitOverflow);
            if let Some((key, oldest)) = self.time_waits.take_oldest() {
                self.forget_time_wait(key, &oldest, events);
            }
        }
        // RFC 9293 §3.6.1 (MUST-13): for 2 MSL.
        let record = self.time_waits.insert(record, now + self.shared.config.time_wait);
        let hash = self.table_hash(&flow);
        self.flows.replace(FlowTarget::Connection(key).word(hash), FlowTarget::TimeWait(record).word(hash));
        events.push(TransportEvent::Closed { session, reason: CloseReason::Finished, stats });
    }

    /// Drops a connection where it is; its flow entry is the caller's.
    fn discard_connection(&mut self, key: Key) {
        let recovery = self.connections.get_mut(key).and_then(|connection| connection.recovery.take());
        self.shared.counters.closed += u64::from(self.connections.discard(key));
        if let Some(mut recovery) = recovery {
            recovery.reset(SeqNum(0));
            if self.shared.spare.len() < SPARES_MAX {
                self.shared.spare.push(recovery);
            }
        }
    }

    pub(super) fn forget_time_wait(&mut self, key: Key, record: &TimeWait, events: &mut Vec<TransportEvent>) {
        self.remove_flow(&record.flow, FlowTarget::TimeWait(key));
        if record.is_active_open() {
            events.push(TransportEvent::FlowGone { flow: record.flow });
        }
    }

    /// Removes a SYN-RECEIVED record and its flow.
    pub(super) fn remove_syn_received(&mut self, key: Key) -> Option<SynReceived> {
        let record = self.drop_syn_received(key)?;
        self.remove_flow(&record.flow, FlowTarget::SynReceived(key));
        Some(record)
    }

    /// Removes a SYN-RECEIVED record; its flow entry is the caller's.
    pub(super) fn drop_syn_received(&mut self, key: Key) -> Option<SynReceived> {
        let record = self.syn_received.remove(key)?;
        if let Some(listener) = self.listeners.get_mut(record.listener) {
            listener.syn_received -= 1;
            listener.fast_opens -= u32::from(record.connection.is_some());
        }
        self.passive.fast_opens -= usize::from(record.connection.is_some());
        Some(record)
    }
}
