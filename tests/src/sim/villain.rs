//! A peer that keeps no rule: a raw end of a wire, driven by the simulator. It answers SYNs with anything, opens
//! connections of its own, goes silent, resets or ends at any point. What it sends as data is still verifiable.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hoststack::net::{DeviceQueue, Packet, PacketPool};
use hoststack_wire::{Flags, Options, SegmentHeader, SeqNum, Timestamps};

use super::dice::Dice;
use super::faults::Fault;
use super::hub::{Hub, State};
use super::packets::{FlowId, IcmpKind, Parsed, icmp_error, parse, segment};
use super::streams::{Reader, fill};

/// What a villain does with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// Nothing.
    Silence,
    /// Resets the SYN as it should.
    Refuse,
    /// Resets without acknowledging: that names nothing.
    RefuseWrongly,
    /// Says that there is no way.
    Unreachable,
    /// Answers with an acknowledgment of something else first.
    WrongAck,
    /// Answers twice.
    Twice,
    /// Answers with a SYN alone.
    Simultaneous,
    /// Does what a good peer does.
    Serve,
    /// Data and FIN at once when the handshake is over.
    Glued,
    /// FIN on the SYN-ACK.
    FinOnSyn,
    /// Silent after the handshake's answer.
    SilentThen,
    /// Resets at the first segment after it.
    ResetThen,
}

const PLANS: [Plan; 15] = [
    Plan::Silence,
    Plan::Refuse,
    Plan::RefuseWrongly,
    Plan::Unreachable,
    Plan::WrongAck,
    Plan::Twice,
    Plan::Simultaneous,
    Plan::Simultaneous,
    Plan::Serve,
    Plan::Serve,
    Plan::Serve,
    Plan::Glued,
    Plan::FinOnSyn,
    Plan::SilentThen,
    Plan::ResetThen,
];

/// A flow of a villain.
#[derive(Debug)]
struct Peer {
    own: (IpAddr, u16),
    other: (IpAddr, u16),
    plan: Plan,
    iss: u32,
    snd_nxt: u32,
    /// What it expects; known with the other's SYN.
    rcv_nxt: Option<u32>,
    other_iss: u32,
    reader: Reader,
    stream: u64,
    sent: u64,
    total: u64,
    ends: bool,
    fin_sent: bool,
    timestamps: bool,
    last_val: u32,
    answered: u32,
    /// Segments until it falls silent, or resets.
    patience: u64,
}

/// A villain.
pub(crate) struct Villain {
    /// The end of the stack that it plagues.
    pub(crate) host: usize,
    hub: Hub,
    queue: Box<dyn DeviceQueue>,
    pool: PacketPool,
    packets: Vec<Packet>,
    woken: Arc<AtomicBool>,
    due: Vec<(u64, Vec<u8>)>,
    peers: BTreeMap<FlowId, Peer>,
    own: [IpAddr; 2],
    victim: [IpAddr; 2],
    dice: Dice,
    /// It answers everything with a reset now.
    is_calm: bool,
    opened: u16,
}

impl Villain {
    /// A villain behind this queue.
    pub(crate) fn new(
        hub: Hub,
        host: usize,
        mut queue: Box<dyn DeviceQueue>,
        mtu: usize,
        own: [IpAddr; 2],
        victim: [IpAddr; 2],
        dice: Dice,
    ) -> Villain {
        let woken = Arc::new(AtomicBool::new(false));
        let flag = woken.clone();
        queue.set_notify(Arc::new(move || flag.store(true, Ordering::Relaxed)));
        Villain {
            host,
            hub,
            queue,
            pool: PacketPool::new(mtu + 256, 64),
            packets: Vec::new(),
            woken,
            due: Vec::new(),
            peers: BTreeMap::new(),
            own,
            victim,
            dice,
            is_calm: false,
            opened: 0,
        }
    }

    /// Whether it has something to do at once.
    pub(crate) fn is_awake(&self) -> bool {
        self.woken.load(Ordering::Relaxed) || !self.packets.is_empty()
    }

    /// When it has something to do by itself.
    pub(crate) fn deadline_us(&self) -> Option<u64> {
        self.due.iter().map(|(at, _)| *at).min()
    }

    /// It becomes what a host without the connection is.
    pub(crate) fn calm(&mut self) {
        self.is_calm = true;
        self.due.clear();
        self.peers.clear();
    }

    fn later(&mut self, now_us: u64, packet: Vec<u8>) {
        let delay_us = match self.dice.below(10) {
            0..=5 => 0,
            6..=8 => self.dice.below(2_000),
            _ => self.dice.below(300_000),
        };
        self.due.push((now_us + delay_us, packet));
    }

    /// One turn: takes what came, sends what is due.
    pub(crate) fn step(&mut self, now_us: u64) {
        self.woken.store(false, Ordering::Relaxed);
        let hub = self.hub.clone();
        let s = &mut *hub.lock();
        let mut packets = Vec::new();
        self.queue.receive(now_us, &mut self.pool, &mut packets, 64);
        if packets.len() == 64 {
            self.woken.store(true, Ordering::Relaxed);
        }
        for packet in packets {
            if let Some(parsed) = parse(packet.data(), false) {
                self.on_segment(s, now_us, &parsed, packet.data());
            }
            self.pool.give(packet);
        }
        let mut index = 0;
        while index < self.due.len() {
            if self.due[index].0 <= now_us {
                let (_, bytes) = self.due.remove(index);
                let mut packet = self.pool.take();
                packet.extend(&bytes);
                self.packets.push(packet);
            } else {
                index += 1;
            }
        }
        if !self.packets.is_empty() {
            self.queue.transmit(now_us, &mut self.pool, &mut self.packets);
            // What the wire does not take is lost: a villain has no patience.
            self.pool.give_all(&mut self.packets);
        }
    }

    fn on_segment(&mut self, s: &mut State, now_us: u64, seg: &Parsed<'_>, packet: &[u8]) {
        let flow = seg.flow().turned();
        let flags = seg.header.flags;
        if flags.has(Flags::RST) {
            self.peers.remove(&flow);
            return;
        }
        s.strike(self.host, Fault::Villain, 1);
        if self.is_calm {
            let reset = reset_of(seg);
            self.due.push((now_us, reset));
            return;
        }
        let is_new = self.peers.get(&flow).is_none_or(|peer| {
            flags.has(Flags::SYN) && peer.rcv_nxt.is_some() && peer.other_iss != seg.header.seq.0
        });
        if is_new {
            if !flags.has(Flags::SYN) {
                if self.dice.one_of(2) {
                    let reset = reset_of(seg);
                    self.later(now_us, reset);
                }
                return;
            }
            let peer = self.new_peer(s, (seg.dst, seg.header.dst_port), (seg.src, seg.header.src_port));
            self.peers.insert(flow, peer);
        }
        let Some(mut peer) = self.peers.remove(&flow) else { return };
        if flags.has(Flags::SYN) {
            if peer.rcv_nxt.is_none() {
                peer.other_iss = seg.header.seq.0;
                peer.rcv_nxt = Some(seg.header.seq.0.wrapping_add(1));
                peer.timestamps &= seg.header.options.timestamps.is_some();
            }
            if let Some(timestamps) = seg.header.options.timestamps {
                peer.last_val = timestamps.val;
            }
            self.on_syn(now_us, &mut peer, seg, packet);
        } else {
            if let Some(timestamps) = seg.header.options.timestamps {
                peer.last_val = timestamps.val;
            }
            if !self.on_rest(s, now_us, &mut peer, seg) {
                return;
            }
        }
        self.peers.insert(flow, peer);
    }

    fn new_peer(&mut self, s: &mut State, own: (IpAddr, u16), other: (IpAddr, u16)) -> Peer {
        let total = self.dice.pick(&[0, 10, 100, 900, 3000]);
        let stream = s.streams.open(&mut self.dice, true);
        if let Some(stream) = s.streams.get_mut(stream) {
            stream.written = total;
        }
        let iss = self.dice.u64() as u32; // 32 bits of it are wanted
        Peer {
            own,
            other,
            plan: self.dice.pick(&PLANS),
            iss,
            snd_nxt: iss.wrapping_add(1),
            rcv_nxt: None,
            other_iss: 0,
            reader: Reader::default(),
            stream,
            sent: 0,
            total,
            ends: self.dice.one_of(2),
            fin_sent: false,
            timestamps: self.dice.one_of(2),
            last_val: 0,
            answered: 0,
            patience: self.dice.pick(&[1, 3, 1000, 1000]),
        }
    }

    fn on_syn(&mut self, now_us: u64, peer: &mut Peer, seg: &Parsed<'_>, packet: &[u8]) {
        peer.answered += 1;
        let is_answer = seg.header.flags.has(Flags::ACK);
        let syn_ack = Flags::SYN | Flags::ACK;
        match peer.plan {
            Plan::Silence => {}
            Plan::Refuse => {
                let reset = reset_of(seg);
                self.later(now_us, reset);
            }
            Plan::RefuseWrongly => {
                let packet = make(peer, now_us, Flags::RST, peer.iss, 0, &[]);
                self.later(now_us, packet);
                // A second thought, at a retransmission.
                peer.plan = Plan::Serve;
            }
            Plan::Unreachable => {
                let kind = self.dice.pick(&[IcmpKind::Host, IcmpKind::Port, IcmpKind::Prohibited]);
                let error = icmp_error(&[], seg.dst, seg.src, kind, packet);
                self.later(now_us, error);
                if peer.answered > 1 && self.dice.one_of(2) {
                    peer.plan = Plan::Serve;
                }
            }
            Plan::WrongAck => {
                let wrong = peer.other_iss.wrapping_add(self.dice.pick(&[0, 2, 1000, 1 << 31]));
                let packet = make(peer, now_us, syn_ack, peer.iss, wrong, &[]);
                self.later(now_us, packet);
                peer.plan = Plan::Serve;
            }
            Plan::Simultaneous if !is_answer => {
                let packet = make(peer, now_us, Flags::SYN, peer.iss, 0, &[]);
                self.later(now_us, packet);
            }
            Plan::Simultaneous => {
                let ack = peer.rcv_nxt.unwrap_or(0);
                let flags = if self.dice.one_of(2) { syn_ack } else { Flags::ACK };
                let seq = if flags == syn_ack { peer.iss } else { peer.snd_nxt };
                let packet = make(peer, now_us, flags, seq, ack, &[]);
                self.later(now_us, packet);
                self.talk(now_us, peer);
            }
            // We opened it and this is the answer.
            _ if is_answer && peer.answered == 1 && seg.header.ack.0 == peer.snd_nxt => {
                let ack = peer.rcv_nxt.unwrap_or(0);
                match peer.plan {
                    Plan::SilentThen => {}
                    Plan::ResetThen => {
                        let packet = make(peer, now_us, Flags::RST, peer.snd_nxt, 0, &[]);
                        self.later(now_us, packet);
                    }
                    _ => {
                        let packet = make(peer, now_us, Flags::ACK, peer.snd_nxt, ack, &[]);
                        self.later(now_us, packet);
                        self.talk(now_us, peer);
                    }
                }
            }
            plan => {
                let ack = peer.rcv_nxt.unwrap_or(0);
                let flags = if plan == Plan::FinOnSyn { syn_ack | Flags::FIN } else { syn_ack };
                let packet = make(peer, now_us, flags, peer.iss, ack, &[]);
                if plan == Plan::Twice {
                    self.later(now_us, packet.clone());
                }
                self.later(now_us, packet);
                if plan == Plan::FinOnSyn {
                    peer.fin_sent = true;
                    peer.snd_nxt = peer.iss.wrapping_add(2);
                }
                if plan == Plan::Glued {
                    // Before the handshake's last segment came.
                    self.talk(now_us, peer);
                }
            }
        }
    }

    /// A segment after the SYN. Says whether the flow goes on.
    fn on_rest(&mut self, s: &mut State, now_us: u64, peer: &mut Peer, seg: &Parsed<'_>) -> bool {
        if matches!(peer.plan, Plan::Silence | Plan::SilentThen | Plan::Refuse | Plan::Unreachable) {
            return true;
        }
        peer.patience = peer.patience.saturating_sub(1);
        if peer.plan == Plan::ResetThen || peer.patience == 0 {
            if peer.plan == Plan::ResetThen || self.dice.one_of(2) {
                let packet =
                    make(peer, now_us, Flags::RST | Flags::ACK, peer.snd_nxt, peer.rcv_nxt.unwrap_or(0), &[]);
                self.later(now_us, packet);
                return false;
            }
            peer.plan = Plan::SilentThen;
            return true;
        }
        let Some(expected) = peer.rcv_nxt else { return true };
        if seg.len() > 0 {
            if seg.header.seq.0 == expected {
                let at = u64::from(expected.wrapping_sub(peer.other_iss).wrapping_sub(1));
                if !seg.payload.is_empty()
                    && !s.overlaps.contains(&seg.flow())
                    && let Err(what) = s.streams.check(&mut peer.reader, at, seg.payload)
                {
                    s.oracle.fail(|| format!("a villain reads: {what}"));
                }
                peer.rcv_nxt = Some(expected.wrapping_add(seg.len()));
            }
            let ack = peer.rcv_nxt.unwrap_or(0);
            let packet = make(peer, now_us, Flags::ACK, peer.snd_nxt, ack, &[]);
            self.later(now_us, packet);
        }
        self.talk(now_us, peer);
        if seg.header.flags.has(Flags::FIN) && !peer.fin_sent && self.dice.one_of(2) {
            peer.ends = true;
            self.talk(now_us, peer);
        }
        true
    }

    /// Sends what is left to say: a segment of data, the FIN behind the last.
    fn talk(&mut self, now_us: u64, peer: &mut Peer) {
        if peer.fin_sent {
            return;
        }
        let len = (peer.total - peer.sent).min(900) as usize; // cannot cut because it is 900 at most
        let mut bytes = [0; 900];
        fill(peer.stream, peer.sent, &mut bytes[..len]);
        peer.sent += len as u64;
        let fin = peer.ends && peer.sent == peer.total;
        if len == 0 && !fin {
            return;
        }
        let flags = if fin { Flags::ACK | Flags::FIN } else { Flags::ACK | Flags::PSH };
        let packet = make(peer, now_us, flags, peer.snd_nxt, peer.rcv_nxt.unwrap_or(0), &bytes[..len]);
        peer.snd_nxt = peer.snd_nxt.wrapping_add(len as u32 + u32::from(fin));
        peer.fin_sent = fin;
        // In order: data that is overtaken is never sent again.
        self.due.push((now_us, packet));
    }

    /// Opens a connection to a port of the victim.
    pub(crate) fn attack(&mut self, now_us: u64, port: u16) {
        if self.is_calm {
            return;
        }
        let hub = self.hub.clone();
        let s = &mut *hub.lock();
        let family = self.dice.index(2);
        self.opened = self.opened.wrapping_add(1);
        let own_port = if self.dice.one_of(4) { 7000 } else { 10_000 + self.opened };
        let (own, other) = ((self.own[family], own_port), (self.victim[family], port));
        let peer = self.new_peer(s, own, other);
        let packet = make(&peer, now_us, Flags::SYN, peer.iss, 0, &[]);
        self.peers.insert(FlowId::new(own, other), peer);
        self.later(now_us, packet);
        s.strike(self.host, Fault::Villain, 1);
    }
}

/// A segment of a flow.
fn make(peer: &Peer, now_us: u64, flags: Flags, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let is_syn = flags.has(Flags::SYN);
    let timestamps = peer
        .timestamps
        .then(|| Timestamps { val: 0x5555_0000u32.wrapping_add((now_us / 1000) as u32), ecr: peer.last_val })
        .filter(|_| !flags.has(Flags::RST));
    let header = SegmentHeader {
        src_port: peer.own.1,
        dst_port: peer.other.1,
        seq: SeqNum(seq),
        ack: SeqNum(ack),
        flags,
        wnd: 20_000,
        urgent: 0,
        options: Options { mss: is_syn.then_some(900), timestamps, ..Options::default() },
    };
    segment(&[], peer.own.0, peer.other.0, &header, payload)
}

/// The reset that a host sends for a segment of no connection (RFC 9293 §3.10.7.1).
fn reset_of(seg: &Parsed<'_>) -> Vec<u8> {
    let acks = seg.header.flags.has(Flags::ACK);
    let header = SegmentHeader {
        src_port: seg.header.dst_port,
        dst_port: seg.header.src_port,
        seq: if acks { seg.header.ack } else { SeqNum(0) },
        ack: if acks { SeqNum(0) } else { seg.header.seq + seg.len() },
        flags: if acks { Flags::RST } else { Flags::RST | Flags::ACK },
        wnd: 0,
        urgent: 0,
        options: Options::default(),
    };
    segment(&[], seg.dst, seg.src, &header, &[])
}
