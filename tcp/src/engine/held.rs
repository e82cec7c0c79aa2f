//! What an engine holds, for the CLI: memory by pool, and the flows whose 4-tuples main gave out.

use core::ops::Range;

use hoststack_transport::Usage;

use super::*;

/// What holds a 4-tuple that main gave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A flow that waits for main's decision: SYN-SENT.
    HalfOpen,
    /// A connection.
    Connection,
    /// TIME-WAIT.
    TimeWait,
}

impl Engine {
    /// Tells `each` of the flows that this stack opened, of those in these slots: for walks in slices up to
    /// [`Engine::flow_slot_end`].
    pub fn own_flows_in(&self, slots: Range<u32>, mut each: impl FnMut(&FlowKey, Holder)) {
        for slot in slots {
            if let Some((_, half_open)) = self.half_opens.at_slot(slot) {
                each(&half_open.flow, Holder::HalfOpen);
            }
            if let Some((_, connection)) = self.connections.at_slot(slot)
                && connection.is_active_open
            {
                each(&connection.flow, Holder::Connection);
            }
            if let Some((_, record)) = self.time_waits.at_slot(slot)
                && record.is_active_open()
            {
                each(&record.flow, Holder::TimeWait);
            }
        }
    }

    /// One past the highest slot that may hold a flow of our own.
    pub fn flow_slot_end(&self) -> u32 {
        let pools = [self.half_opens.slot_end(), self.connections.slot_end(), self.time_waits.slot_end()];
        pools.into_iter().max().unwrap_or(0)
    }

    /// Its pools by name.
    pub fn usage(&self) -> [(&'static str, Usage); 7] {
        let timers = self.shared.wheel.usage();
        let time_waits = self.time_waits.usage();
        [
            ("connections", self.connections.usage()),
            ("half-open-flows", self.half_opens.usage()),
            ("syn-received", self.syn_received.usage()),
            ("time-wait", time_waits),
            ("listeners", self.listeners.usage()),
            ("flow-table", self.flows.usage()),
            ("tcp-timers", timers),
        ]
    }
}
