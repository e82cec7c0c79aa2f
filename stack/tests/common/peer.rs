//! The other end of a wire, held by the test: it sends what it likes and sees what comes.

use hoststack::SingleThreaded;
use hoststack::net::{Device, DeviceQueue, MemoryWireConfig, Packet, PacketPool, memory_wire};
use hoststack_wire::{Flags, IpProtocol, Options, Segment, SegmentHeader, SeqNum, ipv4, tcp};

use super::{CLIENT, config, interface, virtual_stack};

/// A host at 10.0.0.2 without a stack.
pub struct Peer {
    queue: Box<dyn DeviceQueue>,
    pool: PacketPool,
}

/// A stack at 10.0.0.1, and a peer on its only wire.
pub fn stack_and_peer(workers: usize) -> (SingleThreaded, Peer) {
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let queue = Box::new(b).into_queues(1).expect("a memory wire").remove(0);
    let stack = virtual_stack(config(workers), [interface(a, CLIENT, 1)]);
    (stack, Peer { queue, pool: PacketPool::default() })
}

impl Peer {
    pub fn sends(&mut self, stack: &mut SingleThreaded, packet: &[u8]) {
        let mut packets = vec![Packet::copy_of(packet)];
        self.queue.transmit(stack.now().as_micros(), &mut self.pool, &mut packets);
        let _ = stack.settle();
    }

    /// Segments that have come, as TCP headers and payload lengths.
    pub fn takes(&mut self, stack: &SingleThreaded) -> Vec<(SegmentHeader, usize)> {
        let mut packets = Vec::new();
        self.queue.receive(stack.now().as_micros(), &mut self.pool, &mut packets, 1000);
        let read = |packet: &Packet| {
            let (_, payload) = ipv4::Header::parse(packet.data()).expect("an IPv4 packet");
            let segment = Segment::parse(payload).expect("a segment");
            (segment.header, segment.payload.len())
        };
        packets.iter().map(read).collect()
    }
}

/// A segment from port 4000 of `src` to a port of the stack.
pub fn segment(src: &str, port: u16, flags: Flags, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let header = SegmentHeader {
        src_port: 4000,
        dst_port: port,
        seq: SeqNum(seq),
        ack: SeqNum(ack),
        flags,
        wnd: 65535,
        urgent: 0,
        options: Options::default(),
    };
    let (src, dst) = (src.parse().expect("an address"), "10.0.0.1".parse().expect("an address"));
    let mut bytes = vec![0; header.header_len()];
    header.emit(&mut bytes);
    bytes.extend(payload);
    tcp::set_checksum(std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst), &mut bytes);
    let mut packet = vec![0; ipv4::Header::LEN];
    ipv4::Header::new(src, dst, IpProtocol::TCP, bytes.len()).emit(&mut packet);
    packet.extend(bytes);
    packet
}
