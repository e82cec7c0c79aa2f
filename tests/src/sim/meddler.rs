//! The device wrapper: sees every packet that a stack sends or receives, checks what it sends ([`super::wire_oracle`]),
//! and forges packets towards it: resets, SYNs, FINs, data of nobody, ICMP errors, old packets. It can swallow a flow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use hoststack::net::{Capabilities, Device, DeviceCounters, DeviceQueue, Packet, PacketPool};
use hoststack_wire::{EtherType, Flags, MacAddr, Options, SegmentHeader, SeqNum, Timestamps, ethernet};

use super::faults::Fault;
use super::hub::{Hub, State};
use super::packets::{FlowId, IcmpKind, Parsed, icmp_error, parse, segment};
use super::wire_oracle::{Track, observe};

/// Old packets kept for a replay.
const OLD_MAX: usize = 12;
/// Further than any window.
const FAR: u32 = 1 << 30;

/// How often the meddler does what: one in so many packets, 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meddling {
    pub(crate) rst: u64,
    pub(crate) syn: u64,
    pub(crate) fin: u64,
    pub(crate) junk: u64,
    pub(crate) icmp: u64,
    pub(crate) replay: u64,
    pub(crate) silence: u64,
}

/// Wakes the worker of a queue.
type Notify = Arc<dyn Fn() + Send + Sync>;

/// Packets on their way to a queue, besides those of the wire.
#[derive(Default)]
struct Inject {
    /// When, and what; in order of time for the most part.
    packets: VecDeque<(u64, Vec<u8>)>,
    notify: Option<Notify>,
}

/// An end of a wire that a stack owns.
pub(crate) struct End {
    pub(crate) host: usize,
    /// Its and its peer's Ethernet addresses, if packets are framed.
    pub(crate) macs: Option<[MacAddr; 2]>,
    pub(crate) meddling: Meddling,
    pub(crate) tracks: BTreeMap<FlowId, Track>,
    /// Flows, ours first, whose packets are swallowed.
    silenced: BTreeSet<FlowId>,
    old: Vec<Vec<u8>>,
    inject: Vec<Inject>,
}

impl End {
    /// An end of `host`.
    pub(crate) fn new(host: usize, macs: Option<[MacAddr; 2]>, meddling: Meddling) -> End {
        End {
            host,
            macs,
            meddling,
            tracks: BTreeMap::new(),
            silenced: BTreeSet::new(),
            old: Vec::new(),
            inject: Vec::new(),
        }
    }

    /// What goes in front of a packet towards the stack.
    fn link(&self, addr: IpAddr) -> Vec<u8> {
        let Some([own, peer]) = self.macs else { return Vec::new() };
        let ether_type = if addr.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let mut link = vec![0; ethernet::Header::LEN];
        ethernet::Header { dst: own, src: peer, ether_type }.emit(&mut link);
        link
    }

    /// The faults of this end are over: nothing is swallowed or forged any more.
    pub(crate) fn calm(&mut self) {
        self.meddling = Meddling::default();
        self.silenced.clear();
    }
}

/// Puts a packet on its way to a queue of an end.
fn inject(s: &mut State, end: usize, delay_us: u64, packet: Vec<u8>) {
    let at = if delay_us == 0 { 0 } else { s.now_us + delay_us };
    let queue = s.dice.index(s.ends[end].inject.len());
    let queue = &mut s.ends[end].inject[queue];
    queue.packets.push_back((at, packet));
    if let Some(notify) = &queue.notify {
        notify();
    }
}

/// A forgery about a flow that the stack spoke on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgery {
    Rst,
    Syn,
    Fin,
    Junk,
    Replay,
    Silence,
}

/// Forges something about a flow of an end; says whether it could.
pub(crate) fn forge(s: &mut State, end: usize, flow: FlowId, what: Forgery) -> bool {
    let host = s.ends[end].host;
    let Some(track) = s.ends[end].tracks.get(&flow).cloned() else { return false };
    let delay_us = if s.dice.one_of(2) { 0 } else { s.dice.below(3000) };
    let fault = match what {
        Forgery::Silence => {
            s.ends[end].silenced.insert(flow);
            s.trace(|| format!("meddler silences a flow of host {host}"));
            Fault::Silence
        }
        Forgery::Replay => {
            if s.ends[end].old.is_empty() {
                return false;
            }
            let index = s.dice.index(s.ends[end].old.len());
            let packet = s.ends[end].old[index].clone();
            inject(s, end, delay_us, packet);
            Fault::Replay
        }
        _ => {
            let (header, payload, fault) = forged(s, &track, flow, what);
            s.trace(|| format!("meddler sends {what:?} to host {host}: {header:?}"));
            let link = s.ends[end].link(track.local.0);
            let packet = segment(&link, track.remote.0, track.local.0, &header, &payload);
            inject(s, end, delay_us, packet);
            fault
        }
    };
    s.strike(host, fault, 1);
    true
}

/// A forged segment from the peer of a flow.
fn forged(s: &mut State, track: &Track, flow: FlowId, what: Forgery) -> (SegmentHeader, Vec<u8>, Fault) {
    let window = track.window.max(1);
    // Where it lies: at the edge, in the window, behind it, before it.
    let near = match s.dice.below(6) {
        0 | 1 => 0,
        2 | 3 => s.dice.below(u64::from(window)) as u32,
        4 => window.wrapping_add(s.dice.below(1000) as u32),
        _ => 0u32.wrapping_sub(1 + s.dice.below(1000) as u32),
    };
    let near = if s.dice.one_of(5) { FAR } else { near };
    let expected = track.rcv_nxt.unwrap_or(0);
    let una_or_next = track.iss.wrapping_add(track.snd_max);
    let timestamps =
        track.timestamps.map(|(val, ecr)| Timestamps { val: ecr, ecr: val }).filter(|_| !s.dice.one_of(4));
    let mut header = SegmentHeader {
        src_port: track.remote.1,
        dst_port: track.local.1,
        seq: SeqNum(expected.wrapping_add(near)),
        ack: SeqNum(una_or_next),
        flags: Flags::ACK,
        wnd: 1000,
        urgent: 0,
        options: Options { timestamps, ..Options::default() },
    };
    // An acknowledgment of what was never sent: nothing that carries it may be believed.
    let unacceptable = SeqNum(una_or_next.wrapping_add((1 << 21) + s.dice.below(1 << 20) as u32));
    let mut payload = Vec::new();
    let fault = match what {
        Forgery::Rst => {
            header.flags = if s.dice.one_of(3) { Flags::RST } else { Flags::RST | Flags::ACK };
            if track.rcv_nxt.is_none() && s.dice.one_of(2) {
                header.ack = unacceptable;
            }
            Fault::InjectedRst
        }
        Forgery::Syn => {
            header.flags = Flags::SYN;
            if s.dice.one_of(2) {
                header.flags = Flags::SYN | Flags::ACK;
                header.ack = unacceptable;
            }
            header.options.mss = Some(1000);
            Fault::InjectedSyn
        }
        Forgery::Fin => {
            header.flags = Flags::FIN | Flags::ACK;
            if s.dice.one_of(2) {
                header.ack = unacceptable;
            } else {
                // It is believed where it fits: both ends' streams may end early now.
                s.poisoned.insert(flow);
                s.poisoned.insert(flow.turned());
            }
            Fault::InjectedFin
        }
        Forgery::Junk | Forgery::Replay | Forgery::Silence => {
            payload = vec![0xee; 1 + s.dice.index(100)];
            header.flags = Flags::ACK | Flags::PSH;
            // Before the peer has answered any sequence number may be believed.
            if track.rcv_nxt.is_some() && s.dice.one_of(4) {
                header.seq = SeqNum(expected.wrapping_add(FAR));
            } else {
                header.ack = unacceptable;
            }
            Fault::Junk
        }
    };
    (header, payload, fault)
}

/// Asks an end for a connection, from its peer's address: for the time when nobody listens.
pub(crate) fn knock(s: &mut State, end: usize, place: &super::world::Place, port: u16) {
    for family in 0..2 {
        let (src, dst) = (place.remote[family], place.local[family]);
        let header = SegmentHeader {
            src_port: 60_999,
            dst_port: port,
            seq: SeqNum(s.dice.u64() as u32), // 32 bits of it are wanted
            ack: SeqNum(0),
            flags: Flags::SYN,
            wnd: 1000,
            urgent: 0,
            options: Options { mss: Some(1000), ..Options::default() },
        };
        let packet = segment(&s.ends[end].link(dst), src, dst, &header, &[]);
        inject(s, end, 0, packet);
    }
}

/// An ICMP error about a packet that the stack sent.
fn forge_icmp(s: &mut State, end: usize, parsed: &Parsed<'_>, packet: &[u8]) {
    let host = s.ends[end].host;
    let kind = match s.dice.below(6) {
        0 | 1 => IcmpKind::Host,
        2 => IcmpKind::Port,
        3 => IcmpKind::Prohibited,
        4 => IcmpKind::Expired,
        _ => IcmpKind::TooBig(s.dice.pick(&[0, 68, 600, 1280, 1400])),
    };
    let link = s.ends[end].link(parsed.src);
    let packet = icmp_error(&link, parsed.dst, parsed.src, kind, &packet[parsed.link..]);
    s.trace(|| format!("meddler sends {kind:?} to host {host}"));
    inject(s, end, 0, packet);
    s.strike(host, Fault::Icmp, 1);
}

/// A device behind the meddler.
pub(crate) struct Meddler {
    pub(crate) hub: Hub,
    pub(crate) end: usize,
    pub(crate) device: Box<dyn Device>,
}

impl Device for Meddler {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn mtu(&self) -> usize {
        self.device.mtu()
    }

    fn mac(&self) -> Option<MacAddr> {
        self.device.mac()
    }

    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn into_queues(self: Box<Self>, count: usize) -> io::Result<Vec<Box<dyn DeviceQueue>>> {
        let Meddler { hub, end, device } = *self;
        let is_framed = device.mac().is_some();
        hub.lock().ends[end].inject.resize_with(count, Inject::default);
        let queues = device.into_queues(count)?.into_iter().enumerate();
        Ok(queues
            .map(|(number, queue)| {
                let hub = hub.clone();
                Box::new(MeddlerQueue { hub, end, number, is_framed, queue, one: Vec::new() })
                    as Box<dyn DeviceQueue>
            })
            .collect())
    }
}

/// A queue behind the meddler.
struct MeddlerQueue {
    hub: Hub,
    end: usize,
    number: usize,
    is_framed: bool,
    queue: Box<dyn DeviceQueue>,
    one: Vec<Packet>,
}

impl MeddlerQueue {
    /// A packet that the device took, or that was swallowed: what the oracle and the meddler make of it.
    fn sent(s: &mut State, end: usize, packet: &[u8], is_framed: bool) {
        let Some(parsed) = parse(packet, is_framed) else { return };
        let flow = parsed.flow();
        let meddling = s.ends[end].meddling;
        observe(s, end, &parsed);
        let rates = [
            (meddling.rst, Forgery::Rst),
            (meddling.syn, Forgery::Syn),
            (meddling.fin, Forgery::Fin),
            (meddling.junk, Forgery::Junk),
            (meddling.replay, Forgery::Replay),
            (meddling.silence, Forgery::Silence),
        ];
        for (rate, what) in rates {
            if s.dice.one_of(rate) {
                forge(s, end, flow, what);
            }
        }
        if s.dice.one_of(meddling.icmp) {
            forge_icmp(s, end, &parsed, packet);
        }
    }
}

impl DeviceQueue for MeddlerQueue {
    fn receive(&mut self, now_us: u64, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        let first = into.len();
        let mut count = self.queue.receive(now_us, pool, into, max);
        let s = &mut *self.hub.lock();
        let end = self.end;
        let host = s.ends[end].host;
        let mut index = first;
        while index < into.len() {
            let packet = into[index].data();
            let mut swallowed = false;
            if let Some(parsed) = parse(packet, self.is_framed) {
                let flow = parsed.flow().turned();
                if s.is_tracing {
                    let isns = s.ends[end].tracks.get(&flow).map(|track| track.isns()).unwrap_or_default();
                    super::wire_oracle::trace(s, end, &parsed, "<", (isns.1, isns.0));
                }
                swallowed = s.ends[end].silenced.contains(&flow);
                if let Some(track) = s.ends[end].tracks.get_mut(&flow) {
                    if parsed.header.flags.has(Flags::SYN) {
                        track.irs = parsed.header.seq.0;
                    }
                    track.is_over |= parsed.header.flags.has(Flags::RST);
                }
                if s.ends[end].meddling.replay > 0 && s.dice.one_of(4) {
                    let copy = packet.to_vec();
                    if s.ends[end].old.len() < OLD_MAX {
                        s.ends[end].old.push(copy);
                    } else {
                        let index = s.dice.index(OLD_MAX);
                        s.ends[end].old[index] = copy;
                    }
                }
            }
            if swallowed {
                pool.give(into.remove(index));
                count -= 1;
                s.strike(host, Fault::Silence, 1);
            } else {
                index += 1;
            }
        }
        let waiting = &mut s.ends[end].inject[self.number].packets;
        let mut left = waiting.len();
        while left > 0 && count < max {
            left -= 1;
            let Some((at, bytes)) = waiting.pop_front() else { break };
            if at > now_us {
                waiting.push_back((at, bytes));
                continue;
            }
            let mut packet = pool.take();
            if packet.room() < bytes.len() {
                pool.give(packet);
                continue;
            }
            packet.extend(&bytes);
            into.push(packet);
            count += 1;
        }
        count
    }

    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        let s = &mut *self.hub.lock();
        let end = self.end;
        let mut taken = 0;
        let mut rest = std::mem::take(packets).into_iter();
        // One by one, so that each is looked at once, when the device has taken it.
        while let Some(packet) = rest.next() {
            let flow = parse(packet.data(), self.is_framed).map(|parsed| parsed.flow());
            if flow.is_some_and(|flow| s.ends[end].silenced.contains(&flow)) {
                let host = s.ends[end].host;
                s.strike(host, Fault::Silence, 1);
                MeddlerQueue::sent(s, end, packet.data(), self.is_framed);
                if s.dice.one_of(4)
                    && let Some(parsed) = parse(packet.data(), self.is_framed)
                {
                    // Some routers say where a packet went.
                    forge_icmp(s, end, &parsed, packet.data());
                }
                pool.give(packet);
                taken += 1;
                continue;
            }
            let mut copy = std::mem::take(&mut s.scratch_packet);
            copy.clear();
            copy.extend_from_slice(packet.data());
            self.one.push(packet);
            let sent = self.queue.transmit(now_us, pool, &mut self.one);
            if sent > 0 {
                taken += 1;
                MeddlerQueue::sent(s, end, &copy, self.is_framed);
                s.scratch_packet = copy;
            } else {
                s.scratch_packet = copy;
                let host = s.ends[end].host;
                s.strike(host, Fault::Clog, 1);
                packets.append(&mut self.one);
                packets.extend(rest);
                break;
            }
        }
        taken
    }

    fn next_deadline_us(&self) -> Option<u64> {
        let own = self.hub.lock().ends[self.end].inject[self.number].packets.iter().map(|(at, _)| *at).min();
        match (self.queue.next_deadline_us(), own) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn wait_fd(&self) -> Option<std::os::fd::RawFd> {
        self.queue.wait_fd()
    }

    fn set_notify(&mut self, notify: Notify) {
        self.hub.lock().ends[self.end].inject[self.number].notify = Some(notify.clone());
        self.queue.set_notify(notify);
    }

    fn counters(&self) -> DeviceCounters {
        self.queue.counters()
    }
}
