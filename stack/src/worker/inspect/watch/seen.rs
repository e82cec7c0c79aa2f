//! A packet that is watched, and what is found out about it.

use hoststack_net::packet_filter::SessionName;
use hoststack_net::pcap::{Direction, LinkType};
use hoststack_net::{DropReason, InterfaceId, IpCounters, IpPath, PacketView};
use hoststack_transport::SessionHandle;
use hoststack_wire::SeqNum;

use crate::inspect::TraceStage;

/// A packet that is watched.
#[derive(Debug)]
pub(in crate::worker) struct Seen {
    /// Which traces' filters it has passed so far, a bit each.
    pub(super) traces: u8,
    pub(super) is_captured: bool,
    /// Another worker has it, and knows what becomes of it.
    pub(super) is_elsewhere: bool,
    pub(super) direction: Direction,
    pub(super) interface: InterfaceId,
    pub(super) interface_name: String,
    pub(super) view: PacketView,
    /// Where the frame is, of one that is captured.
    pub(super) frame: (usize, usize),
    pub(super) len: usize,
    pub(super) packet: u32,
    /// Worked out while the frame is there; of the inbound it is worked out again when the flow is known.
    pub(super) summary: String,
    pub(super) session: Option<SessionHandle>,
    pub(super) dropped: Option<&'static str>,
    pub(super) is_retransmission: bool,
    /// What a capture's comment says besides.
    pub(super) remark: &'static str,
    pub(super) stages: Vec<TraceStage>,
}

impl Seen {
    /// What a stage decided; `text` is asked for when someone traces.
    pub(in crate::worker) fn stage(&mut self, stage: &'static str, text: impl FnOnce() -> String) {
        if self.traces != 0 {
            self.stages.push(TraceStage { stage, text: text() });
        }
    }

    pub(in crate::worker) fn dropped(&mut self, stage: &'static str, name: &'static str, help: &str) {
        self.dropped.get_or_insert(name);
        self.stage(stage, || format!("dropped: {name}: {help}"));
    }

    pub(in crate::worker) fn remark(&mut self, remark: &'static str) {
        self.remark = remark;
    }
}

/// What the IP path counted before a packet.
#[derive(Debug)]
pub(in crate::worker) struct IpBefore {
    pub(super) drops: hoststack_net::DropCounters,
    pub(super) counters: IpCounters,
    pub(super) waiting: Vec<usize>,
}

impl IpBefore {
    pub(in crate::worker) fn of(path: &IpPath) -> IpBefore {
        IpBefore {
            drops: path.drops().clone(),
            counters: *path.counters(),
            waiting: path.waiting_packets().map(|(_, waiting)| waiting.len()).collect(),
        }
    }

    /// Why packets were dropped since.
    pub(in crate::worker) fn dropped<'p>(
        &'p self,
        path: &'p IpPath,
    ) -> impl Iterator<Item = DropReason> + 'p {
        path.drops()
            .iter()
            .filter(|(reason, count)| *count > self.drops.of(*reason))
            .map(|(reason, _)| reason)
    }

    /// Says which packets were sent since, each as a stage of the packet that caused them.
    pub(in crate::worker) fn sent(&self, path: &IpPath, seen: &mut Seen, isns: Option<(SeqNum, SeqNum)>) {
        if seen.traces == 0 {
            return;
        }
        for (interface, waiting) in path.waiting_packets() {
            let before = self.waiting.get(usize::from(interface.0)).copied().unwrap_or(0);
            let Some(config) = path.interface(interface) else { continue };
            for packet in waiting.get(before..).unwrap_or_default() {
                let view = PacketView::parse(link_type(path, interface), packet.data());
                let summary = view.summary(packet.data(), isns);
                seen.stage("ip-output", || format!("{} {summary}", config.name));
            }
        }
        let waits = path.counters().neighbor_waits - self.counters.neighbor_waits;
        if waits > 0 {
            seen.stage("ip-output", || format!("{waits} sent, waits for its neighbour's address"));
        }
    }
}
pub(super) fn link_type(path: &IpPath, interface: InterfaceId) -> LinkType {
    match path.interface(interface) {
        Some(config) if config.mac.is_some() => LinkType::Ethernet,
        _ => LinkType::RawIp,
    }
}

pub(super) fn session_name(session: SessionHandle) -> SessionName {
    let key = session.session().0;
    SessionName { worker: session.worker().0, slot: key.slot, generation: key.generation }
}

/// What a capture says of a packet.
pub(super) fn comment(seen: &Seen, worker: u8) -> String {
    let mut text = String::new();
    if let Some(session) = seen.session {
        text = format!("session {session}; ");
    }
    if let Some(reason) = seen.dropped {
        text += &format!("dropped: {reason}; ");
    }
    if seen.is_retransmission {
        text += "sent again; ";
    }
    if !seen.remark.is_empty() {
        text += seen.remark;
        text += "; ";
    }
    text + &format!("worker {worker}")
}

/// FNV-1a over the packet, folded to 32 bits: the same on every worker, without anything being carried along.
pub(super) fn fingerprint(packet: &[u8]) -> u32 {
    let hash = packet.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Folds; loses no more than it should.
    (hash ^ hash >> 32) as u32
}
