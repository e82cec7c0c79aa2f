//! The messages of neighbour resolution on a worker: ARP (RFC 826) and neighbour discovery (RFC 4861 §7.2).
//!
//! Questions for our addresses are answered here; what was heard goes to main as [`NetEvent::NeighborSeen`], and main
//! decides what to believe.

use std::net::{IpAddr, Ipv6Addr};

use hoststack_wire::ethernet::{EtherType, multicast_mac};
use hoststack_wire::icmpv6::Message;
use hoststack_wire::{IpProtocol, MacAddr, arp, ipv6, solicited_node_multicast};

use crate::drop_reason::DropReason;
use crate::fib::{ALL_NODES, Interface};
use crate::interface::InterfaceId;
use crate::ip_input::Frame;
use crate::ip_path::IpPath;
use crate::neighbor::hop;
use crate::neighbor::replica::Link;
use crate::packet::PacketPool;
use crate::update::{NetEvent, Sighting};

impl IpPath {
    /// Asks for a neighbour: ARP request or neighbour solicitation, to its Ethernet address if we know one, else to all
    /// (IPv6: to its solicited-node group).
    ///
    /// # Errors
    /// The reason why it was not sent; it was counted.
    pub fn probe(
        &mut self,
        interface: InterfaceId,
        target: IpAddr,
        pool: &mut PacketPool,
    ) -> Result<(), DropReason> {
        let sent = self.try_probe(interface, target, pool);
        match sent {
            Ok(()) => self.counters.probes += 1,
            Err(reason) => self.drops.count(reason),
        }
        sent
    }

    fn try_probe(
        &mut self,
        id: InterfaceId,
        target: IpAddr,
        pool: &mut PacketPool,
    ) -> Result<(), DropReason> {
        let interface = self.fib.interface(id).ok_or(DropReason::InterfaceUnknown)?;
        let ours = interface.config.mac.ok_or(DropReason::InterfaceUnknown)?;
        let source = interface.source_for(target).ok_or(DropReason::NoSource)?;
        if self.tx_room(id) == 0 {
            return Err(DropReason::TxFull);
        }
        let known = match self.neighbors.link(hop(id, target)) {
            Link::Known(mac) | Link::Stale(mac) => Some(mac),
            Link::Unknown => None,
        };
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let request = arp::Packet::request(ours, source, target);
                // RFC 1122 §2.3.2.1: a known neighbour is polled by unicast.
                self.send_arp(id, known.unwrap_or(MacAddr::BROADCAST), &request, pool);
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let group = solicited_node_multicast(target);
                let dst = if known.is_some() { target } else { group };
                let message = Message::NeighbourSolicitation { target, source_mac: Some(ours) };
                self.send_discovery(id, (source, dst), known.unwrap_or(multicast_mac(group)), &message, pool);
            }
            _ => unreachable!("the source was chosen in the target's family"),
        }
        Ok(())
    }

    fn send_arp(
        &mut self,
        interface: InterfaceId,
        to: MacAddr,
        message: &arp::Packet,
        pool: &mut PacketPool,
    ) {
        let mut packet = pool.take();
        message.emit(packet.append(arp::Packet::LEN));
        self.send_ethernet(interface, to, EtherType::ARP, packet);
    }

    fn send_discovery(
        &mut self,
        interface: InterfaceId,
        (src, dst): (Ipv6Addr, Ipv6Addr),
        to: MacAddr,
        message: &Message<'_>,
        pool: &mut PacketPool,
    ) {
        let mut packet = pool.take();
        message.emit(src, dst, packet.append(message.len()));
        // RFC 4861 §7.1: hop limit 255.
        ipv6::Header { hop_limit: 255, ..ipv6::Header::new(src, dst, IpProtocol::ICMPV6, message.len()) }
            .emit(packet.prepend(ipv6::Header::LEN));
        self.send_ethernet(interface, to, EtherType::IPV6, packet);
    }

    /// An ARP packet came in (RFC 826, "Packet Reception").
    pub(crate) fn on_arp(
        &mut self,
        interface: &Interface,
        body: &[u8],
        is_group: bool,
        ours: MacAddr,
        pool: &mut PacketPool,
    ) -> Result<(), DropReason> {
        let message = arp::Packet::parse(body).map_err(|_| DropReason::ArpMalformed)?;
        let config = &interface.config;
        let (sender, target) = (IpAddr::V4(message.sender_ip), IpAddr::V4(message.target_ip));
        if !message.sender_mac.is_unicast() {
            return Err(DropReason::ArpBadSender);
        }
        if message.sender_mac == ours {
            return Err(DropReason::SourceOurs);
        }
        if self.fib.is_local(config.domain, sender) {
            tracing::warn!(addr = %sender, mac = %message.sender_mac, interface = %config.id, "address conflict");
            return Err(DropReason::AddressConflict);
        }
        // RFC 5227 §1.1: a probe has no sender address yet; it is answered, and there is nothing to learn.
        let is_probe = message.sender_ip.is_unspecified();
        if !is_probe && !self.can_be_neighbor(interface, sender) {
            return Err(DropReason::ArpBadSender);
        }
        let is_for_us = self.fib.has_address(config, target);
        match message.operation {
            arp::Operation::Request if is_for_us => {
                if self.tx_room(config.id) == 0 {
                    return Err(DropReason::TxFull);
                }
                self.send_arp(config.id, message.sender_mac, &message.reply(ours), pool);
                self.counters.neighbor_replies += 1;
                if !is_probe {
                    self.on_heard(config.id, sender, message.sender_mac, Sighting::Question);
                }
                Ok(())
            }
            arp::Operation::Reply if is_probe => Err(DropReason::ArpBadSender),
            arp::Operation::Reply if is_for_us && !is_group => {
                self.on_heard(config.id, sender, message.sender_mac, Sighting::Answer);
                Ok(())
            }
            // RFC 5227 §3: an announcement names itself twice.
            arp::Operation::Request | arp::Operation::Reply if !is_probe && sender == target => {
                self.on_announcement(config.id, sender, message.sender_mac).ok_or(DropReason::ArpNotForUs)
            }
            arp::Operation::Request | arp::Operation::Reply => Err(DropReason::ArpNotForUs),
        }
    }

    /// A neighbour discovery message with hop limit 255 came in.
    pub(crate) fn on_neighbor_discovery(
        &mut self,
        now_us: u64,
        interface: &Interface,
        src: Ipv6Addr,
        message: Message<'_>,
        frame: Frame,
        pool: &mut PacketPool,
    ) -> Result<(), DropReason> {
        let id = interface.config.id;
        let (Some(ours), Some(link_src)) = (interface.config.mac, frame.src) else {
            return Err(DropReason::IcmpIgnored);
        };
        match message {
            Message::NeighbourSolicitation { target, source_mac } => {
                if !self.fib.has_address(&interface.config, target.into()) {
                    return Err(DropReason::NdpNotForUs);
                }
                if !src.is_unspecified() && !self.can_be_neighbor(interface, src.into()) {
                    return Err(DropReason::NdpNotForUs);
                }
                let to = source_mac.unwrap_or(link_src);
                if !to.is_unicast() {
                    return Err(DropReason::NdpMalformed);
                }
                if self.tx_room(id) == 0 {
                    return Err(DropReason::TxFull);
                }
                let is_solicited = !src.is_unspecified();
                let answer = Message::NeighbourAdvertisement {
                    target,
                    is_router: false,
                    is_solicited,
                    is_override: true,
                    target_mac: Some(ours),
                };
                // RFC 4861 §7.2.4: to all nodes when the asker has no address yet (duplicate address detection).
                let (dst, to) = if is_solicited { (src, to) } else { (ALL_NODES, multicast_mac(ALL_NODES)) };
                self.send_discovery(id, (target, dst), to, &answer, pool);
                self.counters.neighbor_replies += 1;
                if let Some(mac) = source_mac.filter(|_| is_solicited) {
                    self.on_heard(id, src.into(), mac, Sighting::Question);
                }
                Ok(())
            }
            Message::NeighbourAdvertisement { target, is_solicited, is_override, target_mac, .. } => {
                if self.fib.has_address(&interface.config, target.into()) {
                    tracing::warn!(addr = %target, mac = %link_src, interface = %id, now_us, "address conflict");
                    return Err(DropReason::AddressConflict);
                }
                if !self.can_be_neighbor(interface, target.into()) {
                    return Err(DropReason::NdpNotForUs);
                }
                let known = match self.neighbors.link(hop(id, target.into())) {
                    Link::Known(mac) | Link::Stale(mac) => Some(mac),
                    Link::Unknown => None,
                };
                // RFC 4861 §4.4: the option may be left out of the answer to a unicast question.
                let mac = target_mac.or(known.filter(|_| is_solicited)).ok_or(DropReason::NdpNotForUs)?;
                if !mac.is_unicast() {
                    return Err(DropReason::NdpMalformed);
                }
                // RFC 4861 §7.2.5: without the override flag it does not replace another address.
                if !is_override && known.is_some_and(|known| known != mac) {
                    return Err(DropReason::NdpNotForUs);
                }
                if is_solicited {
                    self.on_heard(id, target.into(), mac, Sighting::Answer);
                    return Ok(());
                }
                self.on_announcement(id, target.into(), mac).ok_or(DropReason::NdpNotForUs)
            }
            _ => Err(DropReason::IcmpIgnored),
        }
    }

    /// Whether `addr` can be another host of the interface's link.
    fn can_be_neighbor(&self, interface: &Interface, addr: IpAddr) -> bool {
        let is_one_host = match addr {
            IpAddr::V4(addr) => {
                !addr.is_unspecified()
                    && !addr.is_loopback()
                    && addr.octets()[0] < 224
                    && !interface.is_directed_broadcast(addr)
            }
            IpAddr::V6(addr) => !addr.is_unspecified() && !addr.is_multicast() && !addr.is_loopback(),
        };
        is_one_host && self.fib.is_on_link(&interface.config, addr)
    }

    /// Tells main, unless it would learn nothing: a known neighbour's question says nothing new.
    fn on_heard(&mut self, interface: InterfaceId, addr: IpAddr, mac: MacAddr, how: Sighting) {
        let is_old_news = how == Sighting::Question
            && matches!(self.neighbors.link(hop(interface, addr)), Link::Known(known) | Link::Stale(known) if known == mac);
        if !is_old_news && self.push_event(NetEvent::NeighborSeen { interface, addr, mac, how }) {
            self.counters.neighbor_news += 1;
        }
    }

    /// A neighbour told unasked where it is: of interest only when it is in use and was elsewhere, or is waited for.
    fn on_announcement(&mut self, interface: InterfaceId, addr: IpAddr, mac: MacAddr) -> Option<()> {
        let key = hop(interface, addr);
        let is_news = match self.neighbors.link(key) {
            Link::Known(known) | Link::Stale(known) => known != mac,
            Link::Unknown => self.neighbors.is_waited_for(key),
        };
        if !is_news {
            return None;
        }
        self.on_heard(interface, addr, mac, Sighting::Announcement);
        Some(())
    }
}
