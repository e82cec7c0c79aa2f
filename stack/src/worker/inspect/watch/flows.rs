//! What is remembered of flows whose packets are watched: to tell what is sent again, and whose it is when the connection is
//! gone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hoststack_transport::{FlowKey, SessionHandle};
use hoststack_wire::{Flags, SegmentHeader, SeqNum};

/// Flows of which is remembered what was sent; beyond, all is forgotten.
const FLOWS_MAX: usize = 4096;

/// Domain, our end, the peer's end.
type FlowEnds = (u16, IpAddr, u16, IpAddr, u16);

/// What is remembered of a flow whose packets are watched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlowMemory {
    pub(super) session: Option<SessionHandle>,
    /// ISS, IRS.
    pub(super) isns: Option<(SeqNum, SeqNum)>,
    /// Of the last SYN seen leaving.
    pub(super) syn: Option<SeqNum>,
    /// One past the last sequence number seen leaving.
    pub(super) sent_to: Option<SeqNum>,
}

impl FlowMemory {
    /// A segment of the flow leaves: whether what it carries was sent before.
    pub(super) fn sends(&mut self, header: &SegmentHeader, payload_len: usize, known: FlowKnown) -> bool {
        let is_syn = header.flags.has(Flags::SYN);
        // Cannot cut: a segment fits a packet.
        let len = payload_len as u32 + u32::from(is_syn) + u32::from(header.flags.has(Flags::FIN));
        let end = header.seq + len;
        if is_syn {
            let is_again = self.syn.replace(header.seq) == Some(header.seq);
            if !is_again {
                self.sent_to = Some(end);
                self.session = known.session;
                if known.isns.is_none() {
                    // No record of the flow is left, or none was made (a SYN cookie).
                    let has_ack = header.flags.has(Flags::ACK);
                    self.isns = Some((header.seq, if has_ack { header.ack - 1 } else { SeqNum(0) }));
                }
            }
            return is_again;
        }
        // An acknowledgment repeats nothing, nor does a probe of the peer's life (RFC 9293 §3.8.4).
        if len == 0 {
            return false;
        }
        match self.sent_to {
            Some(sent_to) if end.at_or_before(sent_to) => true,
            Some(_) => {
                self.sent_to = Some(end);
                false
            }
            None => {
                // The first that is seen of the flow.
                self.sent_to = Some(end);
                known.retransmits == Some(header.seq)
            }
        }
    }
}

/// What TCP knows of a packet's flow.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct FlowKnown {
    pub(in crate::worker) session: Option<SessionHandle>,
    /// ISS, IRS.
    pub(in crate::worker) isns: Option<(SeqNum, SeqNum)>,
    /// Its retransmission timer has fired since the last progress, and the oldest byte not acknowledged.
    pub(in crate::worker) retransmits: Option<SeqNum>,
}

/// Flows, as far as they are remembered.
#[derive(Debug, Default)]
pub(super) struct Flows(BTreeMap<FlowEnds, FlowMemory>);

impl Flows {
    pub(super) fn get(&self, flow: &FlowKey) -> Option<&FlowMemory> {
        self.0.get(&ends(flow))
    }

    /// A flow's memory, with what is known now.
    pub(super) fn remember(&mut self, flow: &FlowKey, known: FlowKnown) -> &mut FlowMemory {
        let ends = ends(flow);
        if self.0.len() >= FLOWS_MAX && !self.0.contains_key(&ends) {
            self.0.clear();
        }
        let memory = self.0.entry(ends).or_default();
        memory.session = known.session.or(memory.session);
        memory.isns = known.isns.or(memory.isns);
        memory
    }
}

fn ends(flow: &FlowKey) -> FlowEnds {
    (flow.domain.0, flow.local.addr, flow.local.port, flow.remote.addr, flow.remote.port)
}
