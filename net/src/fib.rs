//! The forwarding information of all domains: interfaces, local addresses, routes.
//!
//! Main has the one that counts, inside [`crate::Router`], which checks changes; every worker has a replica inside
//! [`crate::IpPath`], to which the same changes are applied in the same order.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hashbrown::HashMap;
use hoststack_wire::MacAddr;
use hoststack_wire::ethernet::multicast_mac;
use hoststack_wire::ipv6::solicited_node_multicast;

use crate::interface::{Cidr, InterfaceConfig, InterfaceId, is_link_local, top_bits};
use crate::route::{NextHop, PrefixMap, Route, SourceError};

/// An interface with what follows from its configuration.
#[derive(Debug)]
pub(crate) struct Interface {
    /// As it was configured, with the link-local address.
    pub(crate) config: InterfaceConfig,
    /// Ethernet groups that we listen to, sorted.
    groups: Vec<MacAddr>,
    /// Directed broadcast addresses of its IPv4 networks, sorted.
    broadcasts: Vec<Ipv4Addr>,
}

impl Interface {
    fn new(config: InterfaceConfig) -> Interface {
        let mut groups = Vec::new();
        let mut broadcasts = Vec::new();
        for cidr in &config.addresses {
            broadcasts.extend(cidr.broadcast());
            if let IpAddr::V6(addr) = cidr.addr() {
                groups.push(multicast_mac(solicited_node_multicast(addr)));
                groups.push(multicast_mac(ALL_NODES));
            }
        }
        groups.sort_unstable();
        groups.dedup();
        broadcasts.sort_unstable();
        broadcasts.dedup();
        Interface { config, groups, broadcasts }
    }

    /// Whether frames to this group are for us.
    pub(crate) fn has_joined(&self, group: MacAddr) -> bool {
        self.groups.binary_search(&group).is_ok()
    }

    /// Whether it is the broadcast address of one of its networks.
    #[inline]
    pub(crate) fn is_directed_broadcast(&self, addr: Ipv4Addr) -> bool {
        self.broadcasts.contains(&addr)
    }

    /// One of its own addresses of a family, for asking neighbours: one in the network of `target` if possible.
    pub(crate) fn source_for(&self, target: IpAddr) -> Option<IpAddr> {
        let mut found = None;
        for cidr in &self.config.addresses {
            if cidr.addr().is_ipv4() != target.is_ipv4() {
                continue;
            }
            if cidr.contains(target) {
                return Some(cidr.addr());
            }
            found = found.or(Some(cidr.addr()));
        }
        found
    }
}

/// All nodes of the link (RFC 4291 §2.7.1).
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Interfaces, local addresses and routes of all domains.
#[derive(Debug, Default)]
pub(crate) struct Fib {
    /// By number.
    interfaces: Vec<Option<Arc<Interface>>>,
    /// The interface that each local address was configured on.
    locals: HashMap<LocalKey, InterfaceId, FixedState>,
    routes: BTreeMap<u16, PrefixMap<Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    route: Route,
    connected: bool,
}

impl Fib {
    /// Adds an interface that was checked, its addresses and their connected routes. Of two interfaces on one network
    /// the first added gets the route.
    pub(crate) fn add_interface(&mut self, config: InterfaceConfig) {
        let (id, domain) = (config.id, config.domain);
        let interface = Arc::new(Interface::new(config));
        if self.interfaces.len() <= id.index() {
            self.interfaces.resize_with(id.index() + 1, || None);
        }
        let routes = self.routes.entry(domain).or_default();
        for cidr in &interface.config.addresses {
            self.locals.entry(LocalKey { domain, addr: cidr.addr() }).or_insert(id);
            if routes.exact(*cidr).is_none() {
                let route = Route { domain, prefix: cidr.network(), via: None, interface: id };
                routes.insert(*cidr, Entry { route, connected: true });
            }
        }
        self.interfaces[id.index()] = Some(interface);
    }

    /// The interface with this number.
    #[inline]
    pub(crate) fn interface(&self, id: InterfaceId) -> Option<&Arc<Interface>> {
        self.interfaces.get(id.index())?.as_ref()
    }

    /// All interfaces, by number.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = &Arc<Interface>> {
        self.interfaces.iter().flatten()
    }

    /// Adds or replaces a route that was checked.
    pub(crate) fn add_route(&mut self, route: Route) {
        self.routes.entry(route.domain).or_default().insert(route.prefix, Entry { route, connected: false });
    }

    /// Removes the route for exactly this prefix.
    pub(crate) fn remove_route(&mut self, domain: u16, prefix: Cidr) {
        if let Some(routes) = self.routes.get_mut(&domain) {
            routes.remove(prefix);
        }
    }

    /// The route for exactly this prefix, and whether it follows from an interface's address.
    pub(crate) fn route(&self, domain: u16, prefix: Cidr) -> Option<(Route, bool)> {
        self.routes.get(&domain)?.exact(prefix).map(|entry| (entry.route, entry.connected))
    }

    /// All routes by domain, and whether each follows from an interface's address.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (Route, bool)> {
        self.routes.values().flat_map(PrefixMap::values).map(|entry| (entry.route, entry.connected))
    }

    /// Where a packet to `dst` goes next, by the longest prefix.
    pub(crate) fn lookup(&self, domain: u16, dst: IpAddr) -> Option<NextHop> {
        let entry = self.routes.get(&domain)?.lookup(dst)?;
        Some(NextHop { interface: entry.route.interface, addr: entry.route.via.unwrap_or(dst) })
    }

    /// Whether `addr` is one of the domain's own addresses.
    #[inline]
    pub(crate) fn is_local(&self, domain: u16, addr: IpAddr) -> bool {
        self.locals.contains_key(&LocalKey { domain, addr })
    }

    /// Whether `addr` is the broadcast address of a network of the domain.
    pub(crate) fn is_directed_broadcast(&self, domain: u16, addr: IpAddr) -> bool {
        let IpAddr::V4(addr) = addr else { return false };
        let mut interfaces = self.interfaces().filter(|interface| interface.config.domain == domain);
        interfaces.any(|interface| interface.is_directed_broadcast(addr))
    }

    /// Whether `addr` is one of this interface's addresses, which it answers for on its link.
    pub(crate) fn has_address(&self, interface: &InterfaceConfig, addr: IpAddr) -> bool {
        // Several interfaces may have one link-local address: the table knows the first only.
        self.locals.get(&LocalKey { domain: interface.domain, addr }).is_some_and(|id| {
            *id == interface.id || interface.addresses.iter().any(|cidr| cidr.addr() == addr)
        })
    }

    /// Whether `addr` is a neighbour that `interface` may have: packets to it leave there without a router.
    pub(crate) fn is_on_link(&self, interface: &InterfaceConfig, addr: IpAddr) -> bool {
        if is_link_local(addr) || interface.addresses.iter().any(|cidr| cidr.contains(addr)) {
            return true;
        }
        self.lookup(interface.domain, addr) == Some(NextHop { interface: interface.id, addr })
    }

    /// The source address for packets to `dst` (after RFC 6724 §5, rules 2, 5 and 8, and RFC 1122 §3.3.4.3): the one wanted
    /// (RFC 9293 §3.9.1.1, MUST-43), or the best (MUST-44).
    pub(crate) fn select_source(
        &self,
        domain: u16,
        dst: IpAddr,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr, SourceError> {
        if let Some(wanted) = wanted {
            if wanted.is_ipv4() != dst.is_ipv4() {
                return Err(SourceError::FamilyMismatch);
            }
            if !self.is_local(domain, wanted) {
                return Err(SourceError::NotOurs);
            }
        }
        let hop = self.lookup(domain, dst).ok_or(SourceError::NoRoute)?;
        if let Some(wanted) = wanted {
            return Ok(wanted);
        }
        let best_of = |interface: &Interface| {
            let candidates = interface.config.addresses.iter().map(Cidr::addr);
            candidates
                .filter(|addr| addr.is_ipv4() == dst.is_ipv4() && is_link_local(*addr) == is_link_local(dst))
                // The first of those that share the most bits, not the last.
                .rev()
                .max_by_key(|addr| (top_bits(*addr) ^ top_bits(dst)).leading_zeros())
        };
        let Some(out) = self.interface(hop.interface) else { return Err(SourceError::NoRoute) };
        // An address whose network holds the next hop is the one that its replies know the way to.
        let in_network = out.config.addresses.iter().find(|cidr| {
            cidr.contains(hop.addr)
                && cidr.prefix_len() > 0
                && is_link_local(cidr.addr()) == is_link_local(dst)
        });
        if let (Some(cidr), IpAddr::V4(_)) = (in_network, dst) {
            return Ok(cidr.addr());
        }
        best_of(out)
            .or_else(|| {
                self.interfaces()
                    .filter(|other| other.config.domain == domain)
                    .find_map(|other| best_of(other))
            })
            .ok_or(SourceError::NoAddress)
    }
}

/// A local address and its domain, hashed with one multiplication (IPv4) or two: every packet asks twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LocalKey {
    domain: u16,
    addr: IpAddr,
}

impl Hash for LocalKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.addr {
            IpAddr::V4(addr) => state.write_u64(u64::from(self.domain) << 32 | u64::from(addr.to_bits())),
            IpAddr::V6(addr) => {
                let bits = addr.to_bits();
                // Neither `as` loses bits: the two halves.
                state.write_u64((bits >> 64) as u64 ^ u64::from(self.domain) << 48);
                state.write_u64(bits as u64);
            }
        }
    }
}

/// A hasher state that is the same in every run: local addresses come from the configuration, not from a peer, and
/// what is done must replay.
#[derive(Clone, Copy, Debug, Default)]
struct FixedState;

impl BuildHasher for FixedState {
    type Hasher = FixedHasher;
    #[inline]
    fn build_hasher(&self) -> FixedHasher {
        FixedHasher(0x9e37_79b9_7f4a_7c15)
    }
}

/// Multiplies 64-bit words and folds the product.
#[derive(Debug)]
struct FixedHasher(u64);

impl Hasher for FixedHasher {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0, word);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// One step of a hash that is fixed, not keyed: for tables that no peer can fill.
#[inline]
pub(crate) const fn mix(state: u64, word: u64) -> u64 {
    let product = (state ^ word) as u128 * 0xd6e8_feb8_6659_fd93;
    // Neither `as` loses bits: both halves are folded in.
    product as u64 ^ (product >> 64) as u64 ^ state.rotate_left(23)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn interface(id: u16, domain: u16, addresses: &[&str]) -> InterfaceConfig {
        InterfaceConfig {
            domain,
            addresses: addresses.iter().map(|text| cidr(text)).collect(),
            ..InterfaceConfig::new(InterfaceId(id), format!("eth{id}"))
        }
    }

    fn fib() -> Fib {
        let mut fib = Fib::default();
        fib.add_interface(interface(
            1,
            0,
            &["10.0.0.1/24", "10.0.0.9/24", "192.168.7.1/16", "2001:db8::1/64", "fe80::1/64"],
        ));
        fib.add_interface(interface(2, 0, &["172.16.0.1/30", "2001:db8:f::1/64"]));
        fib.add_interface(interface(3, 7, &["10.0.0.1/24"]));
        let via = |prefix: &str, via: &str, interface| Route {
            domain: 0,
            prefix: cidr(prefix),
            via: Some(ip(via)),
            interface: InterfaceId(interface),
        };
        fib.add_route(via("0.0.0.0/0", "172.16.0.2", 2));
        fib.add_route(via("10.9.0.0/16", "10.0.0.254", 1));
        fib.add_route(via("::/0", "fe80::99", 1));
        fib
    }

    #[test]
    fn lookup_takes_the_longest_prefix_of_its_own_domain() {
        let fib = fib();
        let hop = |domain, dst| fib.lookup(domain, ip(dst)).map(|hop| (hop.interface.0, hop.addr));
        assert_eq!(hop(0, "10.0.0.77"), Some((1, ip("10.0.0.77"))));
        assert_eq!(hop(0, "10.9.3.4"), Some((1, ip("10.0.0.254"))));
        assert_eq!(hop(0, "8.8.8.8"), Some((2, ip("172.16.0.2"))));
        assert_eq!(hop(0, "2001:db9::1"), Some((1, ip("fe80::99"))));
        assert_eq!(hop(7, "10.0.0.2"), Some((3, ip("10.0.0.2"))));
        assert_eq!(hop(7, "8.8.8.8"), None);
        assert_eq!(hop(9, "10.0.0.2"), None);
    }

    // covers: MUST-44, MUST-43
    #[test]
    fn source_is_in_the_next_hops_network_of_matching_scope_or_the_one_wanted() {
        let fib = fib();
        let source = |dst: &str, wanted: Option<&str>| fib.select_source(0, ip(dst), wanted.map(ip));
        assert_eq!(source("10.0.0.77", None), Ok(ip("10.0.0.1")));
        assert_eq!(source("10.0.0.77", Some("10.0.0.9")), Ok(ip("10.0.0.9")));
        assert_eq!(source("10.9.1.1", None), Ok(ip("10.0.0.1")));
        assert_eq!(source("192.168.99.1", None), Ok(ip("192.168.7.1")));
        assert_eq!(source("8.8.8.8", None), Ok(ip("172.16.0.1")));
        assert_eq!(source("2001:db9::1", None), Ok(ip("2001:db8::1")));
        assert_eq!(source("2001:db8:f::2", None), Ok(ip("2001:db8:f::1")));
        assert_eq!(source("fe80::5", None), Ok(ip("fe80::1")));
        assert_eq!(source("10.0.0.77", Some("10.0.0.2")), Err(SourceError::NotOurs));
        assert_eq!(source("10.0.0.77", Some("2001:db8::1")), Err(SourceError::FamilyMismatch));
        assert_eq!(fib.select_source(7, ip("8.8.8.8"), None), Err(SourceError::NoRoute));
        assert_eq!(fib.select_source(7, ip("8.8.8.8"), Some(ip("10.0.0.1"))), Err(SourceError::NoRoute));
    }

    #[test]
    fn interface_without_an_address_of_the_family_borrows_one_of_the_domain() {
        let mut fib = fib();
        fib.add_interface(interface(4, 0, &[]));
        fib.add_route(Route {
            domain: 0,
            prefix: cidr("203.0.113.0/24"),
            via: None,
            interface: InterfaceId(4),
        });
        assert_eq!(fib.select_source(0, ip("203.0.113.5"), None), Ok(ip("192.168.7.1")));
        fib.add_interface(interface(5, 8, &[]));
        fib.add_route(Route {
            domain: 8,
            prefix: cidr("203.0.113.0/24"),
            via: None,
            interface: InterfaceId(5),
        });
        assert_eq!(fib.select_source(8, ip("203.0.113.5"), None), Err(SourceError::NoAddress));
    }

    #[test]
    fn local_addresses_belong_to_their_domain() {
        let fib = fib();
        assert!(fib.is_local(0, ip("10.0.0.9")) && fib.is_local(7, ip("10.0.0.1")));
        assert!(!fib.is_local(7, ip("10.0.0.9")) && !fib.is_local(0, ip("10.0.0.2")));
    }

    #[test]
    fn first_interface_on_a_network_keeps_its_connected_route() {
        let mut fib = fib();
        fib.add_interface(interface(6, 0, &["10.0.0.200/24"]));
        assert_eq!(fib.lookup(0, ip("10.0.0.77")).unwrap().interface, InterfaceId(1));
        assert!(fib.is_local(0, ip("10.0.0.200")));
    }

    #[test]
    fn broadcasts_and_groups_follow_from_the_addresses() {
        let fib = fib();
        let one = fib.interface(InterfaceId(1)).unwrap();
        assert!(one.is_directed_broadcast("10.0.0.255".parse().unwrap()));
        assert!(one.is_directed_broadcast("192.168.255.255".parse().unwrap()));
        assert!(!one.is_directed_broadcast("10.0.255.255".parse().unwrap()));
        assert!(one.has_joined("33:33:00:00:00:01".parse().unwrap()));
        assert!(one.has_joined("33:33:ff:00:00:01".parse().unwrap()));
        assert!(!one.has_joined("33:33:ff:00:00:02".parse().unwrap()));
        assert!(!fib.interface(InterfaceId(3)).unwrap().has_joined("33:33:00:00:00:01".parse().unwrap()));
    }
}
