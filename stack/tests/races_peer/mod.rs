//! A peer that the test plays, segment by segment: it sees every packet that the stack sends, and gives packets to
//! whichever worker it likes, so that two of them can meet in one step.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use hoststack::net::{Device, DeviceCounters, DeviceQueue, Packet, PacketPool};
use hoststack::{SingleThreaded, StackConfig};
use hoststack_wire::icmpv4::{self, unreachable};
use hoststack_wire::tcp::set_checksum;
use hoststack_wire::{Flags, IpProtocol, MacAddr, Options, Segment, SegmentHeader, SeqNum, ipv4};
use parking_lot::Mutex;

use super::common::*;

/// The stack's address.
pub const STACK: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The peer's address.
pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The peer's first sequence number.
const ISS: SeqNum = SeqNum(70_000);
/// The window that the peer offers.
const WINDOW: u16 = 60_000;

/// What lies on the wire.
#[derive(Default)]
struct Wire {
    to_stack: Vec<VecDeque<Vec<u8>>>,
    from_stack: Vec<Vec<u8>>,
}

/// The peer.
#[derive(Clone, Default)]
pub struct Peer(Arc<Mutex<Wire>>);

/// A segment that the stack sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub packet: Vec<u8>,
    pub header: SegmentHeader,
    pub payload: Vec<u8>,
}

impl Sent {
    pub fn is(&self, flags: Flags) -> bool {
        self.header.flags.has(flags)
    }

    pub fn is_syn(&self) -> bool {
        self.is(Flags::SYN) && !self.is(Flags::ACK)
    }
}

impl Peer {
    /// A stack of so many workers whose only neighbour is a peer.
    pub fn stack(config: StackConfig) -> (SingleThreaded, Peer) {
        let peer = Peer::default();
        peer.0.lock().to_stack.resize(config.workers, VecDeque::new());
        let device = PeerDevice(peer.clone());
        (virtual_stack(config, [interface(device, CLIENT, 1)]), peer)
    }

    /// An endpoint of the peer.
    pub fn at(port: u16) -> SocketAddr {
        SocketAddrV4::new(PEER, port).into()
    }

    /// An endpoint of the stack.
    pub fn stack_at(port: u16) -> SocketAddr {
        SocketAddrV4::new(STACK, port).into()
    }

    /// Gives a packet to a worker in its next step.
    pub fn give(&self, worker: usize, packet: Vec<u8>) {
        let mut wire = self.0.lock();
        let worker = worker % wire.to_stack.len();
        wire.to_stack[worker].push_back(packet);
    }

    /// Takes what the stack has sent since the last call.
    pub fn take(&self) -> Vec<Sent> {
        let packets = std::mem::take(&mut self.0.lock().from_stack);
        packets
            .into_iter()
            .map(|packet| {
                let (_, segment) = ipv4::Header::parse(&packet).expect("the stack sends good packets");
                let Segment { header, payload, .. } =
                    Segment::parse(segment).expect("the stack sends segments");
                Sent { header, payload: payload.to_vec(), packet: packet.clone() }
            })
            .collect()
    }

    /// Steps until the stack has sent its SYNs, at most a few times, and takes them.
    pub fn take_syns(&self, stack: &mut SingleThreaded, count: usize) -> Vec<Sent> {
        let mut syns = Vec::new();
        for _ in 0..20 {
            let _ = stack.step();
            syns.extend(self.take().into_iter().filter(Sent::is_syn));
            if syns.len() == count {
                return syns;
            }
        }
        panic!("{} of {count} SYNs", syns.len());
    }
}

/// One connection as the peer sees it; sequence numbers are relative to both ends' first ones.
#[derive(Clone, Copy, Debug)]
pub struct End {
    stack_port: u16,
    peer_port: u16,
    /// The stack's first sequence number.
    irs: SeqNum,
}

impl End {
    /// The connection that the stack opens with this SYN.
    pub fn of_syn(syn: &Sent) -> End {
        End { stack_port: syn.header.src_port, peer_port: syn.header.dst_port, irs: syn.header.seq }
    }

    /// A connection that the peer opens: its SYN.
    pub fn syn_to(stack_port: u16, peer_port: u16) -> Vec<u8> {
        End { stack_port, peer_port, irs: SeqNum(0) }.syn()
    }

    /// The peer's SYN.
    pub fn syn(&self) -> Vec<u8> {
        self.segment(Flags::SYN, 0, None, b"")
    }

    /// The connection whose SYN was answered with this SYN-ACK.
    pub fn of_syn_ack(syn_ack: &Sent) -> End {
        assert!(syn_ack.is(Flags::SYN) && syn_ack.is(Flags::ACK), "{syn_ack:?}");
        End {
            stack_port: syn_ack.header.src_port,
            peer_port: syn_ack.header.dst_port,
            irs: syn_ack.header.seq,
        }
    }

    /// Whether the segment is of this connection.
    pub fn has(&self, sent: &Sent) -> bool {
        (sent.header.src_port, sent.header.dst_port) == (self.stack_port, self.peer_port)
    }

    /// The stack's port.
    pub fn stack_port(&self) -> u16 {
        self.stack_port
    }

    pub fn syn_ack(&self) -> Vec<u8> {
        self.segment(Flags::SYN.with(Flags::ACK), 0, Some(1), b"")
    }

    /// The reset that refuses a SYN.
    pub fn refusal(&self) -> Vec<u8> {
        self.segment(Flags::RST.with(Flags::ACK), 0, Some(1), b"")
    }

    /// A reset in mid-connection, after `sent` bytes.
    pub fn reset(&self, sent: u32) -> Vec<u8> {
        self.segment(Flags::RST, 1 + sent, None, b"")
    }

    /// An acknowledgment of all up to `ack`, after `sent` bytes.
    pub fn ack(&self, sent: u32, ack: u32) -> Vec<u8> {
        self.segment(Flags::ACK, 1 + sent, Some(ack), b"")
    }

    /// Data after `sent` bytes.
    pub fn data(&self, sent: u32, bytes: &[u8]) -> Vec<u8> {
        self.segment(Flags::ACK.with(Flags::PSH), 1 + sent, Some(1), bytes)
    }

    /// Data and a FIN after `sent` bytes.
    pub fn fin(&self, sent: u32, bytes: &[u8]) -> Vec<u8> {
        self.fin_acking(sent, bytes, 1)
    }

    /// Data and a FIN after `sent` bytes, acknowledging `ack`.
    pub fn fin_acking(&self, sent: u32, bytes: &[u8], ack: u32) -> Vec<u8> {
        self.segment(Flags::ACK.with(Flags::FIN), 1 + sent, Some(ack), bytes)
    }

    /// What a router says about the stack's SYN.
    pub fn unreachable(&self, syn: &Sent) -> Vec<u8> {
        let message = icmpv4::Message::Unreachable { code: unreachable::HOST, mtu: 0, quote: &syn.packet };
        let mut packet = vec![0; ipv4::Header::LEN + message.len()];
        let (ip, icmp) = packet.split_at_mut(ipv4::Header::LEN);
        ipv4::Header::new(PEER, STACK, IpProtocol::ICMPV4, icmp.len()).emit(ip);
        message.emit(icmp);
        packet
    }

    fn segment(&self, flags: Flags, seq: u32, ack: Option<u32>, payload: &[u8]) -> Vec<u8> {
        let header = SegmentHeader {
            src_port: self.peer_port,
            dst_port: self.stack_port,
            seq: ISS + seq,
            ack: ack.map_or(SeqNum(0), |ack| self.irs + ack),
            flags,
            wnd: WINDOW,
            urgent: 0,
            options: Options::default(),
        };
        let head = header.header_len();
        let mut packet = vec![0; ipv4::Header::LEN + head + payload.len()];
        let (ip, segment) = packet.split_at_mut(ipv4::Header::LEN);
        ipv4::Header::new(PEER, STACK, IpProtocol::TCP, segment.len()).emit(ip);
        header.emit(segment);
        segment[head..].copy_from_slice(payload);
        set_checksum(IpAddr::V4(PEER), IpAddr::V4(STACK), segment);
        packet
    }
}

struct PeerDevice(Peer);

impl Device for PeerDevice {
    fn name(&self) -> &str {
        "peer"
    }
    fn mtu(&self) -> usize {
        1500
    }
    fn mac(&self) -> Option<MacAddr> {
        None
    }
    fn into_queues(self: Box<Self>, count: usize) -> std::io::Result<Vec<Box<dyn DeviceQueue>>> {
        let queue = |worker| Box::new(PeerQueue { peer: self.0.clone(), worker }) as Box<dyn DeviceQueue>;
        Ok((0..count).map(queue).collect())
    }
}

struct PeerQueue {
    peer: Peer,
    worker: usize,
}

impl DeviceQueue for PeerQueue {
    fn receive(&mut self, _now_us: u64, _pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        let mut wire = self.peer.0.lock();
        let waiting = &mut wire.to_stack[self.worker];
        let count = waiting.len().min(max);
        into.extend(waiting.drain(..count).map(|bytes| Packet::copy_of(&bytes)));
        count
    }
    fn transmit(&mut self, _now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        let count = packets.len();
        self.peer.0.lock().from_stack.extend(packets.iter().map(|packet| packet.data().to_vec()));
        pool.give_all(packets);
        count
    }
    fn next_deadline_us(&self) -> Option<u64> {
        (!self.peer.0.lock().to_stack[self.worker].is_empty()).then_some(0)
    }
    fn counters(&self) -> DeviceCounters {
        DeviceCounters::default()
    }
}
