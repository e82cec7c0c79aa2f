//! What the CLI and tests may see of an engine, and what must hold in it.

use super::*;
use crate::congestion::CongestionControl;
use crate::describe::{CongestionState, RecoveryPhase};
use crate::recovery::Mode;

/// What takes a segment of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowRecord {
    /// SYN-SENT: main decides.
    HalfOpen(HalfOpenId),
    /// The handshake that this listener answered.
    SynReceived(ListenerId),
    /// A synchronized connection, and its session.
    Connection(ConnectionId, SessionId),
    /// TIME-WAIT.
    TimeWait,
    /// No flow, but something listens there.
    Listener(ListenerId),
    /// Neither.
    Nothing,
}

impl Engine {
    /// What it holds now.
    pub fn counts(&self) -> EngineCounts {
        EngineCounts {
            connections: self.connections.len(),
            half_open_entries: self.half_opens.len(),
            // The handshake of a fast open counts as its connection.
            syn_received: self.syn_received.len() - self.passive.fast_opens,
            time_wait: self.time_waits.len(),
            listeners: self.listeners.len(),
            flows: self.flows.len(),
        }
    }

    /// Connections and SYN-RECEIVED records whose timer is armed, of those in these slots: for walks in slices up to
    /// [`Engine::timer_slot_end`].
    pub fn armed_timers_in(&self, slots: core::ops::Range<u32>) -> usize {
        let armed = |deadline: Instant| deadline != Instant::FAR;
        slots
            .map(|slot| {
                let connection = self.connections.at_slot(slot);
                let record = self.syn_received.at_slot(slot);
                usize::from(connection.is_some_and(|(_, connection)| armed(connection.timer())))
                    + usize::from(record.is_some_and(|(_, record)| armed(record.retransmit_at)))
            })
            .sum()
    }

    /// One past the highest slot that may have a timer.
    pub fn timer_slot_end(&self) -> u32 {
        self.connections.slot_end().max(self.syn_received.slot_end())
    }

    /// All armed timers: a walk over everything.
    pub fn armed_timers(&self) -> usize {
        self.armed_timers_in(0..self.timer_slot_end())
    }

    /// Connections now: a measure of load that costs nothing.
    pub fn connections_len(&self) -> usize {
        self.connections.len()
    }

    /// What it did so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// What it dropped so far, by reason.
    pub fn drop_counters(&self) -> &DropCounters {
        &self.shared.drops
    }

    /// Round trips that its connections measured so far, in microseconds.
    pub fn round_trips(&self) -> &Histogram {
        &self.shared.rtts
    }

    /// How the connection in a slot stands with congestion, for walks in slices up to [`Engine::connection_slot_end`].
    pub fn congestion_at_slot(&self, slot: u32) -> Option<CongestionState> {
        let (_, connection) = self.connections.at_slot(slot)?;
        Some(CongestionState {
            algorithm: connection.cc.name(),
            cwnd: connection.window(),
            is_slow_start: connection.mode() == Mode::Open && connection.cc.is_slow_start(),
            recovery: match connection.mode() {
                Mode::Open => RecoveryPhase::Open,
                Mode::Fast => RecoveryPhase::Fast,
                Mode::Loss => RecoveryPhase::Loss,
            },
            flight: connection.flight_size(),
            pacing_rate: connection.pacing_rate(),
            srtt_us: connection.rtt.srtt_us(),
        })
    }

    /// A connection's smoothed round-trip time in microseconds, once measured.
    pub fn srtt_us(&self, id: ConnectionId) -> Option<u32> {
        self.connections.get(id.0)?.rtt.srtt_us()
    }

    /// A connection's variables.
    pub fn connection(&self, now: Instant, id: ConnectionId) -> Option<ConnectionInfo> {
        let connection = self.connections.get(id.0)?;
        Some(self.with_handshake(connection.info(id.0, now, &self.shared)))
    }

    /// The connection in a slot, for walks in slices up to [`Engine::connection_slot_end`].
    pub fn connection_at_slot(&self, now: Instant, slot: u32) -> Option<ConnectionInfo> {
        let (key, connection) = self.connections.at_slot(slot)?;
        Some(self.with_handshake(connection.info(key, now, &self.shared)))
    }

    fn with_handshake(&self, info: ConnectionInfo) -> ConnectionInfo {
        ConnectionInfo { state: self.told_state(info.state, &info.flow), ..info }
    }

    /// The state of a connection alone: what [`Engine::connection`] says of it, without the rest.
    pub fn connection_state(&self, id: ConnectionId) -> Option<State> {
        let connection = self.connections.get(id.0)?;
        Some(self.told_state(connection.state, &connection.flow))
    }

    /// A fast open is in SYN-RECEIVED as long as its flow is its handshake's.
    fn told_state(&self, state: State, flow: &FlowKey) -> State {
        let is_handshaking = !self.syn_received.is_empty()
            && state == State::Established
            && matches!(self.target_of(flow), Some(FlowTarget::SynReceived(_)));
        if is_handshaking { State::SynReceived } else { state }
    }

    /// One past the highest slot ever used.
    pub fn connection_slot_end(&self) -> u32 {
        self.connections.slot_end()
    }

    /// The connection of a flow.
    pub fn connection_of(&self, flow: &FlowKey) -> Option<ConnectionId> {
        match self.target_of(flow)? {
            FlowTarget::Connection(key) => Some(ConnectionId(key)),
            FlowTarget::SynReceived(key) => self.syn_received.get(key)?.connection.map(ConnectionId),
            _ => None,
        }
    }

    /// The state of a flow, whichever record holds it.
    pub fn state_of(&self, flow: &FlowKey) -> Option<State> {
        match self.target_of(flow)? {
            FlowTarget::HalfOpen(_) => Some(State::SynSent),
            FlowTarget::SynReceived(_) => Some(State::SynReceived),
            FlowTarget::Connection(key) => self.connections.get(key).map(|connection| connection.state),
            FlowTarget::TimeWait(_) => Some(State::TimeWait),
        }
    }

    /// What takes a segment of this flow now.
    pub fn record_of(&self, flow: &FlowKey) -> FlowRecord {
        match self.target_of(flow) {
            Some(FlowTarget::HalfOpen(key)) => match self.half_opens.get(key) {
                Some(half_open) => FlowRecord::HalfOpen(half_open.id),
                None => FlowRecord::Nothing,
            },
            Some(FlowTarget::SynReceived(key)) => {
                let record = self.syn_received.get(key);
                match record.and_then(|record| self.listeners.get(record.listener)) {
                    Some(listener) => FlowRecord::SynReceived(listener.id),
                    None => FlowRecord::Nothing,
                }
            }
            Some(FlowTarget::Connection(key)) => match self.connections.get(key) {
                Some(connection) => FlowRecord::Connection(ConnectionId(key), connection.session),
                None => FlowRecord::Nothing,
            },
            Some(FlowTarget::TimeWait(_)) => FlowRecord::TimeWait,
            None => {
                let listener = self.listeners.lookup(flow.domain, flow.local);
                match listener.and_then(|key| self.listeners.get(key)) {
                    Some(listener) => FlowRecord::Listener(listener.id),
                    None => FlowRecord::Nothing,
                }
            }
        }
    }

    /// ISS and IRS of a flow: what its sequence numbers are counted from. The peer's is 0 as long as it is not known.
    pub fn isns_of(&self, flow: &FlowKey) -> Option<(SeqNum, SeqNum)> {
        match self.target_of(flow)? {
            FlowTarget::HalfOpen(key) => self.half_opens.get(key).map(|record| (record.iss, SeqNum(0))),
            FlowTarget::SynReceived(key) => self.syn_received.get(key).map(|record| (record.iss, record.irs)),
            FlowTarget::Connection(key) => {
                let connection = self.connections.get(key)?;
                Some((connection.iss, connection.irs))
            }
            FlowTarget::TimeWait(_) => None,
        }
    }

    fn target_of(&self, flow: &FlowKey) -> Option<FlowTarget> {
        self.find_flow(self.table_hash(flow), flow).map(|(_, target)| target)
    }

    /// What is wrong with a connection that it cannot go on by itself; `None` if nothing is, or if it is gone. `unprogrammed`
    /// are the bytes of its session that are to be sent while that is not on the transmit schedule. To be asked between steps.
    pub fn fault(&self, now: Instant, connection: ConnectionId, unprogrammed: u32) -> Option<&'static str> {
        self.connections.get(connection.0)?.fault(now, unprogrammed)
    }

    /// Checks what must hold between any two calls. For tests and the simulator: it walks everything.
    ///
    /// # Panics
    /// When an invariant is broken.
    pub fn check_consistency(&self) {
        let EngineCounts { connections, half_open_entries, syn_received, time_wait, flows, .. } =
            self.counts();
        assert_eq!(
            flows,
            connections + half_open_entries + syn_received + time_wait,
            "the flow table and the pools do not agree"
        );
        for (key, connection) in self.connections.iter() {
            let holder = match self.target_of(&connection.flow) {
                Some(FlowTarget::Connection(key)) => Some(key),
                Some(FlowTarget::SynReceived(record)) => {
                    self.syn_received.get(record).and_then(|record| record.connection)
                }
                _ => None,
            };
            assert_eq!(holder, Some(key), "{key}: its flow is not its own");
            assert!(
                !connection.is_ack_programmed || connection.is_ack_listed,
                "{key}: an acknowledgment is programmed and nobody will send it"
            );
            connection.check_consistency(key);
        }
        for (key, record) in self.syn_received.iter() {
            assert_eq!(
                self.target_of(&record.flow),
                Some(FlowTarget::SynReceived(key)),
                "{key}: its flow is not its own"
            );
            assert!(
                record.wheel.covers(record.retransmit_at),
                "{key}: a deadline that no wheel entry will fire"
            );
        }
        for (key, record) in self.time_waits.iter() {
            assert_eq!(
                self.target_of(&record.flow),
                Some(FlowTarget::TimeWait(key)),
                "{key}: its flow is not its own"
            );
        }
        let fast_opens = self.syn_received.iter().filter(|(_, record)| record.connection.is_some()).count();
        assert_eq!(fast_opens, self.passive.fast_opens, "the count of fast opens is wrong");
        let of_listeners: u32 = self.listeners.iter().map(|(_, listener)| listener.syn_received).sum();
        // Those whose app has them outlive their listener.
        let with_listener =
            self.syn_received.iter().filter(|(_, record)| self.listeners.get(record.listener).is_some());
        assert_eq!(
            of_listeners as usize,
            with_listener.count(),
            "the listeners' counts of SYN-RECEIVED do not add up"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack_transport::Duration;

    use crate::testing::Exchange;
    use crate::timers::Purpose;

    fn key_of(x: &Exchange) -> Key {
        x.engine.connections.iter().map(|(key, _)| key).next().expect("one connection")
    }

    // covers: I5
    #[test]
    fn a_connection_that_nothing_will_wake_is_named() {
        let mut x = Exchange::established();
        let key = key_of(&x);
        let fault = |x: &Exchange, unprogrammed| x.engine.fault(x.now, ConnectionId(key), unprogrammed);
        assert_eq!(fault(&x, 0), None);
        assert_eq!(fault(&x, 10), Some("bytes wait to be sent, and nothing will send them"));
        x.app_writes(100).sends(["P. 1:101(100) ack 1"]);
        assert_eq!(fault(&x, 100), None, "in flight, and a timer runs");
        let connection = x.engine.connections.get_mut(key).expect("it lives");
        let (purpose, at) = (connection.purpose, connection.retransmit_at);
        (connection.purpose, connection.retransmit_at) = (Purpose::None, Instant::FAR);
        assert_eq!(fault(&x, 100), Some("bytes are in flight, and no timer looks after them"));
        let connection = x.engine.connections.get_mut(key).expect("it lives");
        (connection.purpose, connection.retransmit_at) = (purpose, at);
        let overdue = at + Duration::from_millis(1_001);
        assert_eq!(x.engine.fault(overdue, ConnectionId(key), 100), Some("its timer is overdue"));
        assert_eq!(x.engine.fault(at + Duration::from_secs(1), ConnectionId(key), 100), None);
    }

    #[test]
    fn a_closed_window_is_no_fault_while_it_is_probed() {
        let mut x = Exchange::established();
        x.gets([". ack 1 win 0"]);
        x.app_writes(100);
        let key = key_of(&x);
        assert_eq!(x.engine.fault(x.now, ConnectionId(key), 100), None);
    }
}
