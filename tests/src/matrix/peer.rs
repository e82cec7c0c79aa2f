//! The host's peer: a raw end of a memory wire and as much TCP as a good peer needs. It parses what comes out of the
//! host, answers by RFC 9293, and sends what events ask for on the queue that they ask for.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use hoststack::net::{Device, DeviceQueue, MemoryWire, Packet, PacketPool};
use hoststack_transport::Instant;
use hoststack_wire::ipv4::Header;
use hoststack_wire::{Flags, IpProtocol, Options, Segment, SegmentHeader, SeqNum, Timestamps, icmpv4, tcp};

use super::events::Burst;

/// The host.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The peer.
pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The peer's port that answers; the others are silent.
pub const PEER_PORT: u16 = 80;
/// The port that the host listens on.
pub const HOST_PORT: u16 = 7;

const ISS: SeqNum = SeqNum(1_000_000);
const WINDOW: u16 = 60_000;
/// The peer's retransmission timeout, without back-off.
const RTO_US: u64 = 1_000_000;
const RETRIES_MAX: u32 = 5;
/// What the peer says to `hello`.
pub const REPLY: &[u8] = b"welcome";
/// What the peer sends with its handshake, if asked.
pub const EARLY: &[u8] = b"early";

/// What the peer believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Belief {
    /// Nothing was ever sent or heard.
    Nothing,
    /// It heard a SYN and said nothing.
    Heard,
    /// It sent a SYN.
    SynSent,
    /// It sent a SYN-ACK, or a SYN across the host's.
    SynReceived,
    /// The connection is up.
    Open,
    /// Both ends have closed.
    Done,
    /// The host reset it.
    Reset,
    /// It has reset the host.
    Aborted,
    /// The host answered nothing for too long.
    GaveUp,
}

impl Belief {
    /// As the snapshot has it.
    pub fn name(self) -> &'static str {
        match self {
            Belief::Nothing => "heard nothing",
            Belief::Heard => "said nothing",
            Belief::SynSent => "waits for a SYN-ACK",
            Belief::SynReceived => "waits for an ACK",
            Belief::Open => "open",
            Belief::Done => "done",
            Belief::Reset => "was reset",
            Belief::Aborted => "has reset",
            Belief::GaveUp => "gave up",
        }
    }

    /// Whether it believes in a connection, or in one to come.
    pub fn believes(self) -> bool {
        matches!(self, Belief::SynSent | Belief::SynReceived | Belief::Open)
    }
}

struct Sent {
    seq: SeqNum,
    flags: Flags,
    payload: Vec<u8>,
}

impl Sent {
    fn end(&self) -> SeqNum {
        let bits = u32::from(self.flags.has(Flags::SYN)) + u32::from(self.flags.has(Flags::FIN));
        // Cannot cut because payloads are a few bytes.
        self.seq + self.payload.len() as u32 + bits
    }
}

struct Heard {
    header: SegmentHeader,
    payload: Vec<u8>,
    queue: usize,
}

/// The peer.
pub struct Peer {
    queues: Vec<Box<dyn DeviceQueue>>,
    pool: PacketPool,
    now_us: u64,
    inbox: VecDeque<Heard>,
    /// Whether it answers a SYN (or a SYN-ACK) by itself.
    pub answers: bool,
    /// Its port, and the host's: 0 until known.
    port: u16,
    host_port: u16,
    /// The host's SYN as it was sent, for ICMP errors to quote.
    syn: Vec<u8>,
    belief: Belief,
    snd_nxt: SeqNum,
    rcv_nxt: SeqNum,
    unacked: VecDeque<Sent>,
    sent_at_us: u64,
    retries: u32,
    fin_sent: bool,
    fin_heard: bool,
    replied: bool,
    /// The host's clock as it was heard last: segments carry timestamps once both ends have offered them.
    host_clock: Option<u32>,
    /// Bytes of its stream, in order.
    pub stream: Vec<u8>,
    /// Bytes heard, in order.
    pub heard: Vec<u8>,
    /// Queue on which a segment of the host came last.
    pub last_queue: Option<usize>,
    /// What passed, in both directions, if it is wanted.
    pub trace: Option<Vec<String>>,
}

impl Peer {
    /// On one end of a wire, with as many queues as the host has workers. `port` is its port.
    pub fn new(wire: MemoryWire, workers: usize, port: u16, host_port: u16) -> Peer {
        let queues = Box::new(wire).into_queues(workers).expect("cannot fail because it is memory");
        Peer {
            queues,
            pool: PacketPool::new(2048, 16),
            now_us: 0,
            inbox: VecDeque::new(),
            answers: true,
            port,
            host_port,
            syn: Vec::new(),
            belief: Belief::Nothing,
            snd_nxt: ISS,
            rcv_nxt: SeqNum(0),
            unacked: VecDeque::new(),
            sent_at_us: 0,
            retries: 0,
            fin_sent: false,
            fin_heard: false,
            replied: false,
            host_clock: None,
            stream: Vec::new(),
            heard: Vec::new(),
            last_queue: None,
            trace: None,
        }
    }

    /// What it believes.
    pub fn belief(&self) -> Belief {
        self.belief
    }

    /// Whether it has sent a FIN.
    pub fn has_closed(&self) -> bool {
        self.fin_sent
    }

    /// When it retransmits.
    pub fn deadline(&self) -> Option<Instant> {
        (self.belief.believes() && !self.unacked.is_empty())
            .then(|| Instant::from_micros(self.sent_at_us + RTO_US))
    }

    /// Its turn: what came is answered, what is due is sent again. Says whether there was anything.
    pub fn turn(&mut self, now: Instant) -> bool {
        self.observe(now);
        let mut worked = false;
        while let Some(heard) = self.inbox.pop_front() {
            worked = true;
            self.process(&heard);
        }
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            worked = true;
            self.retries += 1;
            if self.retries > RETRIES_MAX {
                self.belief = Belief::GaveUp;
                self.unacked.clear();
            } else {
                self.send_unacked(self.queues.len() - 1);
            }
        }
        worked
    }

    /// Takes in what came, without answering: events look at it.
    fn observe(&mut self, now: Instant) {
        self.now_us = now.as_micros();
        let mut packets = Vec::new();
        for queue in 0..self.queues.len() {
            self.queues[queue].receive(self.now_us, &mut self.pool, &mut packets, 64);
            for packet in packets.drain(..) {
                self.take(queue, &packet);
                self.pool.give(packet);
            }
        }
    }

    fn take(&mut self, queue: usize, packet: &Packet) {
        let (ip, payload) = Header::parse(packet.data()).expect("the host sends good packets");
        if ip.protocol != IpProtocol::TCP {
            return;
        }
        assert!(
            tcp::verify_checksum(ip.src.into(), ip.dst.into(), payload),
            "the host's checksums are right"
        );
        let segment = Segment::parse(payload).expect("the host sends good segments");
        let header = segment.header;
        self.note("<", queue, &header, segment.payload.len());
        if header.dst_port != self.port {
            return;
        }
        self.last_queue = Some(queue);
        if let Some(timestamps) = header.options.timestamps {
            let last = self.host_clock.replace(timestamps.val).unwrap_or(timestamps.val);
            assert!(!SeqNum(timestamps.val).before(SeqNum(last)), "the host's clock runs backward");
        }
        if header.flags.has(Flags::SYN) && !header.flags.has(Flags::ACK) && self.belief == Belief::Nothing {
            self.belief = Belief::Heard;
            self.host_port = header.src_port;
            self.rcv_nxt = header.seq + 1;
            self.syn = packet.data().to_vec();
        }
        self.inbox.push_back(Heard { header, payload: segment.payload.to_vec(), queue });
    }

    fn note(&mut self, way: &str, queue: usize, header: &SegmentHeader, len: usize) {
        let now_us = self.now_us;
        let Some(trace) = &mut self.trace else { return };
        trace.push(format!(
            "{:>12} us   {way} queue {queue}: {} {}:+{len} ack {} ({} -> {})",
            now_us, header.flags, header.seq.0, header.ack.0, header.src_port, header.dst_port
        ));
    }

    // ---- What the RFC says ----

    fn process(&mut self, heard: &Heard) {
        let (header, flags) = (&heard.header, heard.header.flags);
        if header.src_port != self.host_port {
            return;
        }
        let len =
            heard.payload.len() as u32 + u32::from(flags.has(Flags::SYN)) + u32::from(flags.has(Flags::FIN));
        match self.belief {
            Belief::Nothing => {}
            Belief::Heard => {
                if flags.has(Flags::RST) {
                    return;
                }
                if flags.has(Flags::SYN) && self.answers {
                    self.send_syn_ack(heard.queue);
                }
            }
            Belief::Reset | Belief::Aborted | Belief::GaveUp => {
                if flags.has(Flags::RST) {
                } else if flags.has(Flags::ACK) {
                    self.send_bare(heard.queue, Flags::RST, header.ack, SeqNum(0));
                } else {
                    self.send_bare(heard.queue, Flags::RST | Flags::ACK, SeqNum(0), header.seq + len);
                }
            }
            Belief::SynSent => self.process_syn_sent(heard),
            Belief::SynReceived | Belief::Open | Belief::Done => self.process_synchronized(heard, len),
        }
    }

    fn process_syn_sent(&mut self, heard: &Heard) {
        let (header, flags) = (&heard.header, heard.header.flags);
        if flags.has(Flags::RST) {
            if flags.has(Flags::ACK) && header.ack == self.snd_nxt {
                self.end(Belief::Reset);
            }
        } else if flags.has(Flags::SYN | Flags::ACK) && header.ack == self.snd_nxt {
            self.rcv_nxt = header.seq + 1;
            if self.answers {
                self.acknowledged(header.ack);
                self.belief = Belief::Open;
                self.send_ack(heard.queue);
            }
        }
    }

    fn process_synchronized(&mut self, heard: &Heard, len: u32) {
        let (header, flags) = (&heard.header, heard.header.flags);
        if flags.has(Flags::RST) {
            if self.belief == Belief::Done {
                // There is nothing left to reset.
            } else if header.seq == self.rcv_nxt {
                self.end(Belief::Reset);
            } else if header.seq.is_within(self.rcv_nxt, u32::from(WINDOW)) {
                // RFC 5961 §3.2.
                self.send_ack(heard.queue);
            }
            return;
        }
        if flags.has(Flags::SYN) {
            if !flags.has(Flags::ACK) {
                // The SYN again: our answer to it was lost, or is on its way.
                if self.belief == Belief::SynReceived {
                    self.send_unacked(heard.queue);
                } else {
                    self.send_ack(heard.queue);
                }
                return;
            }
            if header.ack == self.snd_nxt && self.belief == Belief::SynReceived {
                // The SYNs crossed (RFC 9293 figure 8).
                self.acknowledged(header.ack);
                self.belief = Belief::Open;
            }
            self.send_ack(heard.queue);
            return;
        }
        if !flags.has(Flags::ACK) {
            return;
        }
        if self.belief == Belief::SynReceived {
            if header.ack.before(ISS + 1) || header.ack.after(self.snd_nxt) {
                self.send_bare(heard.queue, Flags::RST, header.ack, SeqNum(0));
                return;
            }
            self.belief = Belief::Open;
        }
        self.acknowledged(header.ack);
        if header.seq != self.rcv_nxt {
            if len > 0 {
                self.send_ack(heard.queue);
            }
            return;
        }
        self.heard.extend_from_slice(&heard.payload);
        self.rcv_nxt += heard.payload.len() as u32;
        if flags.has(Flags::FIN) {
            self.fin_heard = true;
            self.rcv_nxt += 1;
        }
        if !heard.payload.is_empty() && !self.replied && !self.fin_sent {
            self.replied = true;
            self.send_data(heard.queue, Flags::ACK | Flags::PSH, REPLY);
        } else if self.fin_heard && !self.fin_sent {
            self.send_fin(heard.queue);
        } else if len > 0 {
            self.send_ack(heard.queue);
        }
        if self.fin_heard && self.fin_sent && self.unacked.is_empty() {
            self.belief = Belief::Done;
        }
    }

    fn acknowledged(&mut self, ack: SeqNum) {
        while self.unacked.front().is_some_and(|sent| sent.end().at_or_before(ack)) {
            self.unacked.pop_front();
            self.retries = 0;
        }
    }

    fn end(&mut self, belief: Belief) {
        self.belief = belief;
        self.unacked.clear();
    }

    // ---- What events ask for ----

    /// Does what an event asks for; says whether that made sense.
    pub fn act(&mut self, now: Instant, burst: Burst) -> bool {
        self.observe(now);
        let (owner, elsewhere) = (self.queues.len() - 1, 0);
        match burst {
            Burst::SynAck => self.may_answer() && self.send_syn_ack(owner),
            Burst::SynAckTwice => self.may_answer() && self.send_syn_ack(owner) && self.send_syn_ack(owner),
            Burst::SynAckElsewhere => self.may_answer() && self.send_syn_ack(elsewhere),
            Burst::SynAckData => self.may_answer() && self.send_syn_ack(owner) && self.send_early(owner),
            Burst::SynAckFin => self.may_answer() && self.send_syn_ack(owner) && self.send_early_fin(owner),
            Burst::SynAckRst => self.may_answer() && self.send_syn_ack(owner) && self.send_reset(owner),
            Burst::CrossingSyn => self.may_answer() && self.send_crossing_syn(owner),
            Burst::Icmp => self.may_answer() && self.send_unreachable(owner),
            Burst::Rst => self.may_reset() && self.send_reset(owner),
            Burst::Syn => self.send_syn(owner),
            Burst::SynTwice => self.send_syn(owner) && self.send_syn(owner),
            Burst::SynElsewhere => self.send_syn(elsewhere),
            Burst::Ack => self.complete(owner),
            Burst::AckElsewhere => self.complete(elsewhere),
            Burst::AckData => self.complete(owner) && self.send_early(owner),
            Burst::AckFin => self.complete(owner) && self.send_early_fin(owner),
        }
    }

    fn may_answer(&self) -> bool {
        !self.syn.is_empty()
    }

    /// For an acceptable reset it must know what the host expects.
    fn may_reset(&self) -> bool {
        !self.syn.is_empty()
            || (self.host_port != 0 && self.rcv_nxt != SeqNum(0))
            || self.belief == Belief::SynSent
    }

    /// Its part of the handshake of a connection that it opens: the SYN-ACK must have come.
    fn complete(&mut self, queue: usize) -> bool {
        let syn_ack = self.inbox.iter().find(|heard| heard.header.flags.has(Flags::SYN | Flags::ACK));
        if let Some(syn_ack) = syn_ack
            && self.belief == Belief::SynSent
            && syn_ack.header.ack == self.snd_nxt
        {
            self.rcv_nxt = syn_ack.header.seq + 1;
        }
        if self.rcv_nxt == SeqNum(0) {
            return false;
        }
        if self.belief == Belief::SynSent {
            self.acknowledged(self.snd_nxt);
            self.belief = Belief::Open;
        }
        self.send_ack(queue)
    }

    /// Its SYN; again with the same numbers, if it was sent before.
    pub fn send_syn(&mut self, queue: usize) -> bool {
        if self.belief == Belief::Nothing {
            self.belief = Belief::SynSent;
            self.push(Flags::SYN, &[]);
        }
        self.send(queue, Flags::SYN, ISS, SeqNum(0), &[]);
        true
    }

    fn send_syn_ack(&mut self, queue: usize) -> bool {
        if matches!(self.belief, Belief::Heard) {
            self.belief = Belief::SynReceived;
            self.push(Flags::SYN | Flags::ACK, &[]);
        }
        let rcv_nxt = self.host_iss() + 1;
        self.send(queue, Flags::SYN | Flags::ACK, ISS, rcv_nxt, &[]);
        true
    }

    fn send_crossing_syn(&mut self, queue: usize) -> bool {
        if matches!(self.belief, Belief::Heard) {
            self.belief = Belief::SynReceived;
            // What is sent again is the SYN-ACK: by then it has seen the host's SYN (RFC 9293 figure 8).
            self.push(Flags::SYN | Flags::ACK, &[]);
        }
        self.send(queue, Flags::SYN, ISS, SeqNum(0), &[]);
        true
    }

    fn send_early(&mut self, queue: usize) -> bool {
        if self.fin_sent || !self.belief.believes() {
            self.send_unacked(queue);
        } else {
            self.send_data(queue, Flags::ACK | Flags::PSH, EARLY);
        }
        true
    }

    fn send_early_fin(&mut self, queue: usize) -> bool {
        if self.fin_sent || !self.belief.believes() {
            self.send_unacked(queue)
        } else {
            self.send_fin(queue)
        }
        true
    }

    fn send_reset(&mut self, queue: usize) -> bool {
        match self.belief {
            Belief::Heard => {
                let ack = self.rcv_nxt;
                self.send_bare(queue, Flags::RST | Flags::ACK, SeqNum(0), ack);
            }
            // It takes its SYN back: all that it can say before it knows the host's number.
            Belief::SynSent if self.rcv_nxt == SeqNum(0) => {
                self.send_bare(queue, Flags::RST, self.snd_nxt, SeqNum(0))
            }
            _ => self.send_bare(queue, Flags::RST | Flags::ACK, self.snd_nxt, self.rcv_nxt),
        }
        if !matches!(self.belief, Belief::Done | Belief::Reset | Belief::GaveUp) {
            self.end(Belief::Aborted);
        }
        true
    }

    fn host_iss(&self) -> SeqNum {
        let (_, payload) = Header::parse(&self.syn).expect("cannot fail because it was parsed when it came");
        Segment::parse(payload).expect("cannot fail because it was parsed when it came").header.seq
    }

    fn send_unreachable(&mut self, queue: usize) -> bool {
        let message = icmpv4::Message::Unreachable {
            code: icmpv4::unreachable::HOST,
            mtu: 0,
            quote: &self.syn[..Header::LEN + 8],
        };
        let mut packet = self.pool.take();
        let ip = Header::new(PEER, HOST, IpProtocol::ICMPV4, message.len());
        ip.emit(packet.append(Header::LEN));
        message.emit(packet.append(message.len()));
        let now_us = self.now_us;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now_us:>12} us   > queue {queue}: ICMP host unreachable"));
        }
        self.put(queue, packet);
        true
    }

    // ---- Sending ----

    /// Remembers a segment until it is acknowledged, and moves on.
    fn push(&mut self, flags: Flags, payload: &[u8]) -> SeqNum {
        let sent = Sent { seq: self.snd_nxt, flags, payload: payload.to_vec() };
        let seq = sent.seq;
        self.snd_nxt = sent.end();
        self.unacked.push_back(sent);
        self.retries = 0;
        seq
    }

    fn send_data(&mut self, queue: usize, flags: Flags, payload: &[u8]) {
        self.stream.extend_from_slice(payload);
        let seq = self.push(flags, payload);
        self.send(queue, flags, seq, self.rcv_nxt, payload);
    }

    fn send_fin(&mut self, queue: usize) {
        self.fin_sent = true;
        let flags = Flags::FIN | Flags::ACK;
        let seq = self.push(flags, &[]);
        self.send(queue, flags, seq, self.rcv_nxt, &[]);
    }

    fn send_unacked(&mut self, queue: usize) {
        for index in 0..self.unacked.len() {
            let Sent { seq, flags, ref payload } = self.unacked[index];
            let payload = payload.clone();
            self.send(queue, flags, seq, self.rcv_nxt, &payload);
        }
    }

    fn send_ack(&mut self, queue: usize) -> bool {
        self.send_bare(queue, Flags::ACK, self.snd_nxt, self.rcv_nxt);
        true
    }

    fn send_bare(&mut self, queue: usize, flags: Flags, seq: SeqNum, ack: SeqNum) {
        self.send(queue, flags, seq, ack, &[]);
    }

    fn send(&mut self, queue: usize, flags: Flags, seq: SeqNum, ack: SeqNum, payload: &[u8]) {
        let header = SegmentHeader {
            src_port: self.port,
            dst_port: self.host_port,
            seq,
            ack: if flags.has(Flags::ACK) { ack } else { SeqNum(0) },
            flags,
            wnd: if flags.has(Flags::RST) { 0 } else { WINDOW },
            urgent: 0,
            options: Options {
                mss: flags.has(Flags::SYN).then_some(1460),
                timestamps: (!flags.has(Flags::RST)).then(|| self.timestamps(flags)),
                ..Options::default()
            },
        };
        let len = header.header_len() + payload.len();
        let mut packet = self.pool.take();
        Header::new(PEER, HOST, IpProtocol::TCP, len).emit(packet.append(Header::LEN));
        let bytes = packet.append(len);
        let at = header.emit(bytes);
        bytes[at..].copy_from_slice(payload);
        tcp::set_checksum(PEER.into(), HOST.into(), bytes);
        self.sent_at_us = self.now_us;
        self.note(">", queue, &header, payload.len());
        self.put(queue, packet);
    }

    /// Its clock in milliseconds, which never stands at 0, and the host's.
    fn timestamps(&self, flags: Flags) -> Timestamps {
        Timestamps {
            // Cannot cut because a case ends after minutes.
            val: (self.now_us / 1000) as u32 + 1,
            ecr: if flags.has(Flags::ACK) { self.host_clock.unwrap_or(0) } else { 0 },
        }
    }

    fn put(&mut self, queue: usize, packet: Packet) {
        let mut packets = vec![packet];
        self.queues[queue].transmit(self.now_us, &mut self.pool, &mut packets);
        assert!(packets.is_empty(), "the wire has room for all that the peer sends");
    }
}
