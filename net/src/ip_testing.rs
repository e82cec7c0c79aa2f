//! A router and a worker's IP path wired together, and packets as a peer would build them, for the tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hoststack_wire::ethernet::{self, EtherType};
use hoststack_wire::{
    Flags, FlowHasher, IpFields, IpProtocol, MacAddr, SegmentHeader, SeqNum, icmpv4, icmpv6, ipv4, ipv6, tcp,
};

use crate::{
    Cidr, DropReason, InterfaceConfig, InterfaceId, IpLimits, IpPath, NetEvent, NetUpdate, OutFlow, Packet,
    PacketPool, Received, Route, Router, RouterAction,
};

pub(crate) const RAW: InterfaceId = InterfaceId(1);
pub(crate) const ETH: InterfaceId = InterfaceId(2);
pub(crate) const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(crate) const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
pub(crate) const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub(crate) fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub(crate) fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

pub(crate) fn raw_interface() -> InterfaceConfig {
    InterfaceConfig {
        addresses: ["10.0.0.1/24", "2001:db8::1/64"].map(cidr).to_vec(),
        ..InterfaceConfig::new(RAW, "raw")
    }
}

pub(crate) fn ethernet_interface() -> InterfaceConfig {
    InterfaceConfig {
        mac: Some(OURS),
        addresses: ["192.168.1.1/24", "2001:db8:2::1/64"].map(cidr).to_vec(),
        ..InterfaceConfig::new(ETH, "eth")
    }
}

pub(crate) fn hasher() -> FlowHasher {
    FlowHasher::new([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211])
}

/// One router, one worker: a raw IP and an Ethernet interface, default routes through the latter.
pub(crate) struct Bench {
    pub(crate) now_us: u64,
    pub(crate) router: Router,
    pub(crate) path: IpPath,
    pub(crate) pool: PacketPool,
    pub(crate) out: Received,
    /// What main was told to do besides updates.
    pub(crate) actions: Vec<RouterAction>,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench::with(IpLimits::default(), 0, 1)
    }

    pub(crate) fn with(limits: IpLimits, worker: u8, workers: u8) -> Bench {
        let mut bench = Bench {
            now_us: 1_000_000,
            router: Router::default(),
            path: IpPath::new(worker, workers, hasher(), limits),
            pool: PacketPool::default(),
            out: Received::default(),
            actions: Vec::new(),
        };
        for config in [raw_interface(), ethernet_interface()] {
            let update = bench.router.add_interface(config).unwrap();
            bench.apply(&update);
        }
        for (prefix, via) in [("0.0.0.0/0", "192.168.1.254"), ("::/0", "fe80::fe")] {
            let route = Route { domain: 0, prefix: cidr(prefix), via: Some(ip(via)), interface: ETH };
            let update = bench.router.add_route(route).unwrap();
            bench.apply(&update);
        }
        bench
    }

    pub(crate) fn apply(&mut self, update: &NetUpdate) {
        self.path.apply(self.now_us, update, &mut self.pool);
    }

    /// Puts one packet in at an interface.
    pub(crate) fn gets(&mut self, interface: InterfaceId, bytes: &[u8]) {
        let mut packets = vec![Packet::copy_of(bytes)];
        self.path.input(self.now_us, interface, &mut packets, &mut self.pool, &mut self.out);
        assert!(packets.is_empty());
    }

    /// Puts one packet in and returns why it was dropped; nothing may have come of it.
    pub(crate) fn drops(&mut self, interface: InterfaceId, bytes: &[u8]) -> Option<DropReason> {
        let before = self.path.drops().clone();
        self.gets(interface, bytes);
        let mut counted = self.path.drops().iter().filter(|(reason, count)| *count != before.of(*reason));
        let found = counted.next().map(|(reason, _)| reason);
        assert!(counted.next().is_none(), "one packet is dropped for one reason");
        if found.is_some() {
            assert!(
                self.out.segments.is_empty()
                    && self.out.icmp_errors.is_empty()
                    && self.out.handovers.is_empty()
            );
        }
        found
    }

    /// Takes the packets to send at an interface.
    pub(crate) fn sent(&mut self, interface: InterfaceId) -> Vec<Vec<u8>> {
        self.path.tx(interface).drain(..).map(|packet| packet.data().to_vec()).collect()
    }

    pub(crate) fn events(&mut self) -> Vec<NetEvent> {
        let mut events = Vec::new();
        self.path.take_events(&mut events);
        events
    }

    /// Lets main handle the worker's events and what is due, and the worker do what main says.
    pub(crate) fn settle(&mut self) {
        let mut actions = Vec::new();
        for event in self.events() {
            self.router.on_event(self.now_us, event, &mut actions);
        }
        self.router.poll(self.now_us, &mut actions);
        for action in actions {
            match &action {
                RouterAction::Update(update) => self.apply(&update.clone()),
                RouterAction::Probe { interface, target } => {
                    self.path.probe(*interface, *target, &mut self.pool).unwrap();
                    self.actions.push(action);
                }
                RouterAction::Failed { .. } => self.actions.push(action),
            }
        }
    }

    /// Sends a segment with `payload`.
    pub(crate) fn sends(&mut self, src: &str, dst: &str, payload: &[u8]) -> Result<(), DropReason> {
        let flow = OutFlow { domain: 0, src: ip(src), dst: ip(dst), ip: IpFields::DEFAULT };
        let header = segment_header(4000, 80);
        self.path.tcp(self.now_us, &mut self.pool, flow, &header, payload.len(), |into| {
            into.copy_from_slice(payload)
        })
    }

    /// Makes the worker know a neighbour.
    pub(crate) fn knows(&mut self, addr: &str, mac: MacAddr) {
        self.apply(&NetUpdate::NeighborSet { interface: ETH, addr: ip(addr), mac });
    }
}

pub(crate) fn segment_header(src_port: u16, dst_port: u16) -> SegmentHeader {
    SegmentHeader {
        src_port,
        dst_port,
        seq: SeqNum(1000),
        ack: SeqNum(2000),
        flags: Flags::ACK,
        wnd: 65535,
        urgent: 0,
        options: hoststack_wire::Options::default(),
    }
}

/// A TCP segment in an IP packet of its addresses' family.
pub(crate) fn tcp_packet(src: &str, src_port: u16, dst: &str, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let header = segment_header(src_port, dst_port);
    let mut segment = vec![0; header.header_len() + payload.len()];
    let len = header.emit(&mut segment);
    segment[len..].copy_from_slice(payload);
    tcp::set_checksum(ip(src), ip(dst), &mut segment);
    ip_packet(src, dst, IpProtocol::TCP, &segment)
}

/// Anything in an IP packet of its addresses' family.
pub(crate) fn ip_packet(src: &str, dst: &str, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    match (ip(src), ip(dst)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            v4_packet(ipv4::Header::new(src, dst, protocol, payload.len()), payload)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            v6_packet(ipv6::Header::new(src, dst, protocol, payload.len()), payload)
        }
        _ => panic!("two families"),
    }
}

pub(crate) fn v4_packet(header: ipv4::Header, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ipv4::Header::LEN];
    header.emit(&mut packet);
    packet.extend(payload);
    packet
}

pub(crate) fn v6_packet(header: ipv6::Header, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ipv6::Header::LEN];
    header.emit(&mut packet);
    packet.extend(payload);
    packet
}

pub(crate) fn icmp_v4(src: &str, dst: &str, message: &icmpv4::Message<'_>) -> Vec<u8> {
    let mut body = vec![0; message.len()];
    message.emit(&mut body);
    ip_packet(src, dst, IpProtocol::ICMPV4, &body)
}

pub(crate) fn icmp_v6(src: &str, dst: &str, hop_limit: u8, message: &icmpv6::Message<'_>) -> Vec<u8> {
    let mut body = vec![0; message.len()];
    message.emit(v6(src), v6(dst), &mut body);
    let header =
        ipv6::Header { hop_limit, ..ipv6::Header::new(v6(src), v6(dst), IpProtocol::ICMPV6, body.len()) };
    v6_packet(header, &body)
}

pub(crate) fn frame(dst: MacAddr, src: MacAddr, ether_type: EtherType, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; ethernet::Header::LEN];
    ethernet::Header { dst, src, ether_type }.emit(&mut frame);
    frame.extend(body);
    frame
}

pub(crate) fn arp_frame(dst: MacAddr, packet: &hoststack_wire::arp::Packet) -> Vec<u8> {
    let mut body = [0; hoststack_wire::arp::Packet::LEN];
    packet.emit(&mut body);
    frame(dst, packet.sender_mac, EtherType::ARP, &body)
}
