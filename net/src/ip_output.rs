//! What goes out: segments of TCP, and the packets that this stack answers by itself.
//!
//! One look-up in the destination cache gives the interface and the whole Ethernet header; the payload is written in
//! place, and headers go in front of it.

use std::net::IpAddr;

use hoststack_wire::ethernet::{self, EtherType};
use hoststack_wire::tcp::finish_checksum;
use hoststack_wire::{IpFields, IpProtocol, MacAddr, SegmentHeader, Sum, ipv4, ipv6};

use crate::drop_reason::DropReason;
use crate::fib::mix;
use crate::interface::{InterfaceId, is_link_local};
use crate::ip_path::IpPath;
use crate::neighbor::replica::{Link, Queued};
use crate::packet::{Packet, PacketPool};
use crate::route::NextHop;
use crate::update::NetEvent;

/// Whose segment is sent, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutFlow {
    /// The routing domain.
    pub domain: u16,
    /// Source address, one of the domain's.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// What its sender chose of the IP header.
    pub ip: IpFields,
}

/// What the path knows of a destination.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination {
    pub(crate) interface: InterfaceId,
    /// Of the interface.
    pub(crate) mtu: usize,
    /// Of the path: at most that of the interface.
    pub(crate) path_mtu: usize,
    /// When `path_mtu` ends.
    expires_us: u64,
    way: Way,
}

/// How a packet leaves.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// As it is.
    Raw,
    /// Behind this header.
    Ethernet([u8; ethernet::Header::LEN]),
    /// When this neighbour is known.
    Unresolved(NextHop),
}

impl IpPath {
    /// Sends a segment: `fill` writes the `payload_len` bytes of payload in place, and the headers go in front: TCP with
    /// its checksum, IP (IPv4 with DF set, IPv6 with a flow label), Ethernet.
    ///
    /// A segment whose neighbour is not known yet waits for it; that counts as sent. The path MTU is the caller's
    /// business ([`IpPath::path_mtu`]): only what the interface cannot carry is refused.
    ///
    /// A destination that is one of the domain's own addresses is refused: packets never turn round inside the path.
    /// Apps that talk to each other in one stack do so over a memory wire between two domains, or a loopback device.
    ///
    /// # Errors
    /// The reason why it was dropped; it was counted. [`DropReason::TxFull`] comes long after
    /// [`IpPath::room`] has said 0: data asks it first.
    #[inline]
    pub fn tcp(
        &mut self,
        now_us: u64,
        pool: &mut PacketPool,
        flow: OutFlow,
        header: &SegmentHeader,
        payload_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        let sent = self.try_tcp(now_us, pool, flow, header, payload_len, fill);
        match sent {
            Ok(()) => self.counters.segments_sent += 1,
            Err(reason) => self.drops.count(reason),
        }
        sent
    }

    #[inline]
    fn try_tcp(
        &mut self,
        now_us: u64,
        pool: &mut PacketPool,
        flow: OutFlow,
        header: &SegmentHeader,
        payload_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        let OutFlow { domain, src, dst, ip: IpFields { tos, ttl } } = flow;
        let ip_header_len = match (src, dst) {
            (IpAddr::V4(_), IpAddr::V4(_)) => ipv4::Header::LEN,
            (IpAddr::V6(_), IpAddr::V6(_)) => ipv6::Header::LEN,
            _ => return Err(DropReason::FamilyMismatch),
        };
        let destination = self.destination(now_us, domain, dst)?;
        let segment_len = header.header_len() + payload_len;
        // An MTU is at most 65535, so that the lengths below fit their fields.
        if ip_header_len + segment_len > destination.mtu {
            return Err(DropReason::ExceedsMtu);
        }
        if self.is_tx_full(destination.interface) {
            return Err(DropReason::TxFull);
        }
        let mut packet = pool.take();
        if payload_len > packet.room() {
            pool.give(packet);
            return Err(DropReason::ExceedsMtu);
        }
        fill(packet.append(payload_len));
        header.emit(packet.prepend(header.header_len()));
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let ip = ipv4::Header {
                    dscp_ecn: tos,
                    ttl,
                    ..ipv4::Header::new(src, dst, IpProtocol::TCP, segment_len)
                };
                // RFC 9293 §3.1 (MUST-2). Cannot cut because the packet fits the MTU.
                let sum = Sum::pseudo_v4(src, dst, IpProtocol::TCP, segment_len as u16);
                finish_checksum(packet.data_mut(), sum);
                ip.emit(packet.prepend(ipv4::Header::LEN));
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let hash = self.hasher.hash(src.into(), header.src_port, dst.into(), header.dst_port);
                let ip = ipv6::Header {
                    traffic_class: tos,
                    hop_limit: ttl,
                    flow_label: flow_label(hash),
                    ..ipv6::Header::new(src, dst, IpProtocol::TCP, segment_len)
                };
                // RFC 9293 §3.1 (MUST-2). Cannot cut because the packet fits the MTU.
                let sum = Sum::pseudo_v6(src, dst, IpProtocol::TCP, segment_len as u32);
                finish_checksum(packet.data_mut(), sum);
                ip.emit(packet.prepend(ipv6::Header::LEN));
            }
            _ => unreachable!("two families were refused above"),
        }
        self.send(now_us, pool, destination, packet)
    }

    /// Sends an IP packet of our own making that answers one from `interface`.
    pub(crate) fn reply(
        &mut self,
        now_us: u64,
        pool: &mut PacketPool,
        interface: InterfaceId,
        dst: IpAddr,
        packet: Packet,
    ) -> Result<(), DropReason> {
        // Link-local addresses mean something on their link only.
        let destination = if is_link_local(dst) {
            self.way_through(now_us, NextHop { interface, addr: dst }, dst)
        } else {
            let domain = self.fib.interface(interface).map(|found| found.config.domain);
            domain
                .ok_or(DropReason::InterfaceUnknown)
                .and_then(|domain| self.destination(now_us, domain, dst))
        };
        let checked = destination.and_then(|destination| {
            if packet.len() > destination.mtu {
                Err(DropReason::ExceedsMtu)
            } else if self.tx_room(destination.interface) == 0 {
                Err(DropReason::TxFull)
            } else {
                Ok(destination)
            }
        });
        match checked {
            Ok(destination) => self.send(now_us, pool, destination, packet),
            Err(reason) => {
                pool.give(packet);
                Err(reason)
            }
        }
    }

    /// The last step: a whole IP packet to its interface, or behind its neighbour.
    #[inline]
    pub(crate) fn send(
        &mut self,
        now_us: u64,
        pool: &mut PacketPool,
        destination: Destination,
        mut packet: Packet,
    ) -> Result<(), DropReason> {
        match destination.way {
            Way::Raw => {}
            Way::Ethernet(header) => packet.prepend(header.len()).copy_from_slice(&header),
            Way::Unresolved(hop) => return self.wait_for(now_us, pool, hop, packet),
        }
        self.tx[destination.interface.index()].push(packet);
        Ok(())
    }

    #[cold]
    fn wait_for(
        &mut self,
        now_us: u64,
        pool: &mut PacketPool,
        hop: NextHop,
        packet: Packet,
    ) -> Result<(), DropReason> {
        let queued = self.neighbors.wait(hop, packet);
        if self.neighbors.is_miss_due(now_us, hop, self.limits.neighbor_miss_interval_us) {
            let NextHop { interface, addr } = hop;
            if self.push_event(NetEvent::NeighborMiss { interface, addr }) {
                self.neighbors.note_miss(now_us, hop);
            }
        }
        match queued {
            Queued::Waits => {
                self.counters.neighbor_waits += 1;
                Ok(())
            }
            Queued::Displaced(oldest) => {
                self.counters.neighbor_waits += 1;
                self.drops.count(DropReason::NeighborQueueFull);
                pool.give(oldest);
                Ok(())
            }
            Queued::Refused(packet) => {
                pool.give(packet);
                Err(DropReason::NeighborQueueFull)
            }
            Queued::TableFull(packet) => {
                pool.give(packet);
                Err(DropReason::NeighborTableFull)
            }
        }
    }

    /// Sends a frame's body to a station, or a group, of the link of an Ethernet interface.
    pub(crate) fn send_ethernet(
        &mut self,
        interface: InterfaceId,
        dst: MacAddr,
        ether_type: EtherType,
        mut packet: Packet,
    ) {
        let Some(src) = self.fib.interface(interface).and_then(|found| found.config.mac) else {
            unreachable!("only Ethernet interfaces have neighbours")
        };
        ethernet::Header { dst, src, ether_type }.emit(packet.prepend(ethernet::Header::LEN));
        self.tx_slot(interface).push(packet);
    }

    /// Where `dst` is: from the cache, or worked out from the tables.
    #[inline]
    pub(crate) fn destination(
        &mut self,
        now_us: u64,
        domain: u16,
        dst: IpAddr,
    ) -> Result<Destination, DropReason> {
        match self.destinations.lookup(now_us, domain, dst) {
            Some(destination) => Ok(destination),
            None => self.find_destination(now_us, domain, dst),
        }
    }

    #[cold]
    fn find_destination(&mut self, now_us: u64, domain: u16, dst: IpAddr) -> Result<Destination, DropReason> {
        self.counters.destination_misses += 1;
        let is_unicast = match dst {
            IpAddr::V4(addr) => !addr.is_multicast() && !addr.is_broadcast() && !addr.is_unspecified(),
            IpAddr::V6(addr) => !addr.is_multicast() && !addr.is_unspecified(),
        };
        if !is_unicast {
            return Err(DropReason::DestinationNotUnicast);
        }
        if self.fib.is_local(domain, dst) {
            return Err(DropReason::DestinationOurs);
        }
        let hop = self.fib.lookup(domain, dst).ok_or(DropReason::NoRoute)?;
        let mut destination = self.way_through(now_us, hop, dst)?;
        if let Some(path) = self.paths.lookup(now_us, domain, dst) {
            destination.path_mtu = destination.mtu.min(path.mtu);
            destination.expires_us = path.expires_us;
        }
        // An unresolved way is short-lived, and each of its packets goes to a queue anyway.
        if !matches!(destination.way, Way::Unresolved(_)) {
            self.destinations.insert(domain, dst, destination);
        }
        Ok(destination)
    }

    /// The way to `dst` through a next hop, not cached.
    fn way_through(&mut self, now_us: u64, hop: NextHop, dst: IpAddr) -> Result<Destination, DropReason> {
        let interface = self.fib.interface(hop.interface).ok_or(DropReason::InterfaceUnknown)?;
        if let IpAddr::V4(addr) = dst
            && interface.is_directed_broadcast(addr)
        {
            return Err(DropReason::DestinationNotUnicast);
        }
        let mtu = interface.config.mtu;
        let way = match interface.config.mac {
            None => Way::Raw,
            Some(src) => {
                let link = self.neighbors.link(hop);
                match link {
                    Link::Known(dst_mac) | Link::Stale(dst_mac) => {
                        if let Link::Stale(_) = link {
                            self.on_stale_use(now_us, hop);
                        }
                        let mut header = [0; ethernet::Header::LEN];
                        ethernet::Header { dst: dst_mac, src, ether_type: ether_type_of(dst) }
                            .emit(&mut header);
                        Way::Ethernet(header)
                    }
                    Link::Unknown => Way::Unresolved(hop),
                }
            }
        };
        Ok(Destination { interface: hop.interface, mtu, path_mtu: mtu, expires_us: u64::MAX, way })
    }

    fn on_stale_use(&mut self, now_us: u64, hop: NextHop) {
        let NextHop { interface, addr } = hop;
        // Not told, it stays stale, and the next miss of the cache tries again.
        if self.push_event(NetEvent::NeighborUsed { interface, addr }) {
            self.neighbors.mark_stale(hop, false);
            tracing::trace!(neighbor = %hop, now_us, "stale neighbor used");
        }
    }
}

/// The flow label (RFC 6437 §3: uniformly distributed, the same for all packets of a flow, not 0).
const fn flow_label(hash: u64) -> u32 {
    // Cannot lose bits: 20 remain. Not the bits that steering uses, which say something about the worker.
    let label = (hash & 0xf_ffff) as u32;
    if label == 0 { 1 } else { label }
}

/// What a frame with an IP packet of this family says it carries.
pub(crate) const fn ether_type_of(addr: IpAddr) -> EtherType {
    if addr.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 }
}

/// A direct-mapped cache of destinations. Every change of the tables empties it, by a number.
#[derive(Debug)]
pub(crate) struct DestinationCache {
    places: Box<[Place]>,
    /// Entries of other generations are not there. 0 is never current.
    generation: u32,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    generation: u32,
    domain: u16,
    dst: IpAddr,
    destination: Destination,
}

impl DestinationCache {
    fn empty() -> Place {
        let destination =
            Destination { interface: InterfaceId(0), mtu: 0, path_mtu: 0, expires_us: 0, way: Way::Raw };
        Place { generation: 0, domain: 0, dst: IpAddr::from([0, 0, 0, 0]), destination }
    }

    pub(crate) fn new(places: usize) -> DestinationCache {
        let places = places.clamp(1, 1 << 20).next_power_of_two();
        DestinationCache { places: vec![DestinationCache::empty(); places].into_boxed_slice(), generation: 1 }
    }

    #[inline]
    fn place_of(&self, domain: u16, dst: IpAddr) -> usize {
        let hash = match dst {
            IpAddr::V4(addr) => mix(u64::from(domain), u64::from(addr.to_bits())),
            IpAddr::V6(addr) => {
                let bits = addr.to_bits();
                // Neither `as` loses bits: the two halves.
                mix(mix(u64::from(domain), (bits >> 64) as u64), bits as u64)
            }
        };
        // Cannot lose what counts: the mask keeps 20 bits at most.
        hash as usize & (self.places.len() - 1)
    }

    #[inline]
    fn lookup(&self, now_us: u64, domain: u16, dst: IpAddr) -> Option<Destination> {
        let place = &self.places[self.place_of(domain, dst)];
        let is_hit = place.generation == self.generation
            && place.dst == dst
            && place.domain == domain
            && now_us < place.destination.expires_us;
        is_hit.then_some(place.destination)
    }

    fn insert(&mut self, domain: u16, dst: IpAddr, destination: Destination) {
        let generation = self.generation;
        self.places[self.place_of(domain, dst)] = Place { generation, domain, dst, destination };
    }

    /// Nothing in it counts any more.
    pub(crate) fn forget_all(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.places.fill(DestinationCache::empty());
            self.generation = 1;
        }
    }
}

#[cfg(test)]
mod tests;
