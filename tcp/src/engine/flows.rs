//! The flow table: a word a flow, which says in which pool its record is; the record has the flow itself.

use super::*;

/// What a flow is on this worker: the pool of its record, and its key there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowTarget {
    HalfOpen(Key),
    SynReceived(Key),
    Connection(Key),
    TimeWait(Key),
}

/// A half-open of main: what SYN-SENT judges by.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfOpenFlow {
    pub(super) flow: FlowKey,
    pub(super) id: HalfOpenId,
    pub(super) iss: SeqNum,
    /// Bytes of data in its first SYN.
    pub(super) data_len: u16,
    /// Main decides, segments wait.
    pub(super) is_handing_over: bool,
}

/// A word is 32 bits of hash, 4 of kind, 28 of slot.
const SLOT_BITS: u32 = 28;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

impl FlowTarget {
    /// The table's word, given the flow's hash (or a word of the same flow).
    pub(super) fn word(self, hash: u64) -> u64 {
        let (kind, key) = match self {
            FlowTarget::HalfOpen(key) => (1, key),
            FlowTarget::SynReceived(key) => (2, key),
            FlowTarget::Connection(key) => (3, key),
            FlowTarget::TimeWait(key) => (4, key),
        };
        (hash & !u64::from(u32::MAX)) | u64::from(kind << SLOT_BITS | key.slot)
    }
}

impl Engine {
    pub(super) fn table_hash(&self, flow: &FlowKey) -> u64 {
        mix(self.flow_hash(flow), flow.domain)
    }

    /// The table's word for a flow, and what it says.
    #[inline]
    pub(super) fn find_flow(&self, hash: u64, flow: &FlowKey) -> Option<(u64, FlowTarget)> {
        let mut target = None;
        let word = self.flows.find((hash >> 32) as u32, |word| {
            target = self.target_at(word, flow);
            target.is_some()
        })?;
        Some((word, target?))
    }

    /// What a word says, if it is of this flow.
    #[inline]
    fn target_at(&self, word: u64, flow: &FlowKey) -> Option<FlowTarget> {
        let slot = word as u32 & SLOT_MASK;
        match (word as u32) >> SLOT_BITS {
            1 => {
                let (key, record) = self.half_opens.at_slot(slot)?;
                (record.flow == *flow).then_some(FlowTarget::HalfOpen(key))
            }
            2 => {
                let (key, record) = self.syn_received.at_slot(slot)?;
                (record.flow == *flow).then_some(FlowTarget::SynReceived(key))
            }
            3 => {
                let (key, record) = self.connections.at_slot(slot)?;
                (record.flow == *flow).then_some(FlowTarget::Connection(key))
            }
            _ => {
                let (key, record) = self.time_waits.at_slot(slot)?;
                (record.flow == *flow).then_some(FlowTarget::TimeWait(key))
            }
        }
    }

    /// The word and the record of a half-open's flow.
    pub(super) fn find_half_open(&self, flow: &FlowKey, id: HalfOpenId) -> Option<(u64, Key)> {
        let (word, FlowTarget::HalfOpen(key)) = self.find_flow(self.table_hash(flow), flow)? else {
            return None;
        };
        self.half_opens.get(key).filter(|record| record.id == id).map(|_| (word, key))
    }

    /// Takes the flow of a connection that is over out of the table. The ACK of a fast open may not have come: then the
    /// flow is its handshake's, which ends with it.
    pub(super) fn remove_connection_flow(&mut self, flow: &FlowKey, key: Key) {
        let hash = self.table_hash(flow);
        if self.flows.remove(FlowTarget::Connection(key).word(hash)) {
            return;
        }
        let found = self.find_flow(hash, flow);
        debug_assert!(found.is_some(), "{flow}: a record's flow is in the table");
        if let Some((_, FlowTarget::SynReceived(record))) = found {
            self.remove_syn_received(record);
        }
    }

    /// Takes a flow out of the table; its record is still there.
    pub(super) fn remove_flow(&mut self, flow: &FlowKey, target: FlowTarget) {
        let word = target.word(self.table_hash(flow));
        let was_there = self.flows.remove(word);
        debug_assert!(was_there, "{flow}: a record's flow is in the table");
    }
}
