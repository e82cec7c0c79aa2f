//! The authoritative tables, owned by main: interfaces, routes, local addresses, neighbours.
//!
//! Main asks it at connect time (is there a way, from which address, is the next hop known) and forwards what it says
//! to the workers, whose [`crate::IpPath`]s keep replicas and do all packet work.

use std::net::IpAddr;
use std::sync::Arc;

use hoststack_wire::MacAddr;

use crate::fib::Fib;
use crate::interface::{Cidr, InterfaceConfig, InterfaceError, InterfaceId, is_link_local};
use crate::neighbor::{Neighbor, NeighborConfig, NeighborState, NeighborTable, hop};
use crate::route::{NextHop, Route, RouteError, SourceError};
use crate::update::{NetEvent, NetUpdate, RouterAction};

/// Interfaces, routes, local addresses and neighbours of all domains.
#[derive(Debug)]
pub struct Router {
    fib: Fib,
    neighbors: NeighborTable,
}

/// Why a static neighbour was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighborError {
    /// There is no such interface, or it carries no Ethernet.
    NoEthernet,
    /// The Ethernet address is a group's, or zero.
    MacNotUnicast,
    /// The address is not one that the interface's link can have, or is our own.
    NotOnLink,
    /// The table is full of neighbours in use.
    TableFull,
}

impl std::fmt::Display for NeighborError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NeighborError::NoEthernet => "only Ethernet interfaces have neighbours: name one",
            NeighborError::MacNotUnicast => "the Ethernet address is not one station's",
            NeighborError::NotOnLink => "the address is not another host's on the interface's link",
            NeighborError::TableFull => "the neighbour table is full of neighbours in use: raise its limit",
        })
    }
}

impl std::error::Error for NeighborError {}

impl Router {
    /// Without interfaces.
    pub fn new(config: NeighborConfig) -> Router {
        Router { fib: Fib::default(), neighbors: NeighborTable::new(config) }
    }

    /// Adds an interface. Its addresses imply connected routes; an Ethernet interface gets its IPv6 link-local address.
    /// The result goes to every worker.
    ///
    /// # Errors
    /// [`InterfaceError`]; nothing was added then.
    pub fn add_interface(&mut self, mut config: InterfaceConfig) -> Result<NetUpdate, InterfaceError> {
        config.check()?;
        if self.fib.interface(config.id).is_some() {
            return Err(InterfaceError::IdInUse { id: config.id });
        }
        if self.fib.interfaces().any(|other| other.config.name == config.name) {
            return Err(InterfaceError::NameInUse { name: config.name });
        }
        config.add_link_local();
        // A link-local address is unique on its link only, and links share a domain.
        let taken = config
            .addresses
            .iter()
            .map(Cidr::addr)
            .find(|addr| !is_link_local(*addr) && self.fib.is_local(config.domain, *addr));
        if let Some(addr) = taken {
            return Err(InterfaceError::AddressInUse { addr });
        }
        self.fib.add_interface(config.clone());
        tracing::info!(interface = %config.name, id = config.id.0, domain = config.domain, "interface added");
        Ok(NetUpdate::InterfaceAdded(Arc::new(config)))
    }

    /// An interface, with all its addresses.
    pub fn interface(&self, id: InterfaceId) -> Option<&InterfaceConfig> {
        self.fib.interface(id).map(|interface| &interface.config)
    }

    /// All interfaces, by number.
    pub fn interfaces(&self) -> impl Iterator<Item = &InterfaceConfig> {
        self.fib.interfaces().map(|interface| &interface.config)
    }

    /// The addresses of a domain, by interface.
    pub fn addresses(&self, domain: u16) -> impl Iterator<Item = IpAddr> + '_ {
        let interfaces = self.interfaces().filter(move |config| config.domain == domain);
        interfaces.flat_map(|config| config.addresses.iter().map(Cidr::addr))
    }

    /// Adds a route. The result goes to every worker.
    ///
    /// # Errors
    /// [`RouteError`]; nothing was added then.
    pub fn add_route(&mut self, route: Route) -> Result<NetUpdate, RouteError> {
        let id = route.interface;
        let interface = self.fib.interface(id).ok_or(RouteError::NoInterface { interface: id })?;
        if interface.config.domain != route.domain {
            return Err(RouteError::OtherDomain { domain: interface.config.domain });
        }
        if route.prefix.addr().is_multicast() && route.prefix.prefix_len() > 0 {
            return Err(RouteError::Multicast);
        }
        if let Some(via) = route.via {
            if via.is_ipv4() != route.prefix.addr().is_ipv4() {
                return Err(RouteError::FamilyMismatch);
            }
            if self.fib.is_local(route.domain, via) {
                return Err(RouteError::ViaOurs { via });
            }
            // On a link without addresses of its own (raw IP), whatever is sent arrives at the one other end.
            if interface.config.mac.is_some() && !self.fib.is_on_link(&interface.config, via) {
                return Err(RouteError::ViaNotOnLink { via });
            }
        }
        if self.fib.route(route.domain, route.prefix).is_some() {
            return Err(RouteError::Exists);
        }
        let route = Route { prefix: route.prefix.network(), ..route };
        self.fib.add_route(route);
        Ok(NetUpdate::RouteAdded(route))
    }

    /// Removes the route for exactly this prefix. The result goes to every worker.
    ///
    /// # Errors
    /// [`RouteError::NotFound`]; [`RouteError::Connected`] when it follows from an interface's address.
    pub fn remove_route(&mut self, domain: u16, prefix: Cidr) -> Result<NetUpdate, RouteError> {
        match self.fib.route(domain, prefix) {
            None => Err(RouteError::NotFound),
            Some((_, true)) => Err(RouteError::Connected),
            Some((_, false)) => {
                self.fib.remove_route(domain, prefix);
                Ok(NetUpdate::RouteRemoved { domain, prefix: prefix.network() })
            }
        }
    }

    /// All routes, by domain, and whether each follows from an interface's address.
    pub fn routes(&self) -> impl Iterator<Item = (Route, bool)> + '_ {
        self.fib.routes()
    }

    /// Where packets to `dst` go next, by the longest prefix that matches; `None`: unreachable.
    pub fn lookup(&self, domain: u16, dst: IpAddr) -> Option<NextHop> {
        self.fib.lookup(domain, dst)
    }

    /// The source address for packets to `dst`: the one wanted, which must be one of the domain's, or the best one of
    /// the interface they leave through (RFC 6724 §5, simplified).
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn select_source(
        &self,
        domain: u16,
        dst: IpAddr,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr, SourceError> {
        self.fib.select_source(domain, dst, wanted)
    }

    /// The MTU of the next hop's link, bytes; `None` when there is no such interface.
    pub fn mtu(&self, next_hop: NextHop) -> Option<usize> {
        self.interface(next_hop.interface).map(|config| config.mtu)
    }

    /// Whether `addr` is one of the domain's own addresses.
    pub fn is_local(&self, domain: u16, addr: IpAddr) -> bool {
        self.fib.is_local(domain, addr)
    }

    /// Whether `addr` is the broadcast address of one of the domain's own networks.
    pub fn is_directed_broadcast(&self, domain: u16, addr: IpAddr) -> bool {
        self.fib.is_directed_broadcast(domain, addr)
    }

    /// A connection is about to be opened through `next_hop`: an unknown or failed neighbour is asked for, a stale one
    /// checked, both by the next [`Router::poll`], which is due at once. [`NeighborState::Failed`] means that the table
    /// is full of neighbours in use. Interfaces without Ethernet have no neighbours: [`NeighborState::Static`].
    pub fn need(&mut self, now_us: u64, next_hop: NextHop, actions: &mut Vec<RouterAction>) -> NeighborState {
        if !self.has_neighbors(next_hop.interface) {
            return NeighborState::Static;
        }
        self.neighbors.need(now_us, next_hop, actions)
    }

    /// A worker's news. What it calls for is added to `actions`.
    pub fn on_event(&mut self, now_us: u64, event: NetEvent, actions: &mut Vec<RouterAction>) {
        match event {
            NetEvent::NeighborMiss { interface, addr } if self.has_neighbors(interface) => {
                self.neighbors.on_miss(now_us, hop(interface, addr), actions);
                self.neighbors.poll(now_us, actions);
            }
            NetEvent::NeighborSeen { interface, addr, mac, how } if self.has_neighbors(interface) => {
                self.neighbors.on_seen(now_us, hop(interface, addr), mac, how, actions);
            }
            NetEvent::NeighborUsed { interface, addr } if self.has_neighbors(interface) => {
                self.neighbors.on_used(now_us, hop(interface, addr));
                self.neighbors.poll(now_us, actions);
            }
            // An interface that was never added, or has no Ethernet: nothing was to be resolved.
            NetEvent::NeighborMiss { .. } | NetEvent::NeighborSeen { .. } | NetEvent::NeighborUsed { .. } => {
            }
            NetEvent::EchoHeard(_) => {}
        }
    }

    /// Does what is due: questions, failures, ageing. What it calls for is added to `actions`.
    pub fn poll(&mut self, now_us: u64, actions: &mut Vec<RouterAction>) {
        self.neighbors.poll(now_us, actions);
    }

    /// When [`Router::poll`] has something to do, microseconds since the stack's epoch.
    pub fn next_deadline_us(&self) -> Option<u64> {
        self.neighbors.next_deadline_us()
    }

    /// Fixes a neighbour for good; it is never asked for and never changed by what is heard.
    ///
    /// # Errors
    /// [`NeighborError`].
    pub fn set_static_neighbor(
        &mut self,
        now_us: u64,
        next_hop: NextHop,
        mac: MacAddr,
        actions: &mut Vec<RouterAction>,
    ) -> Result<(), NeighborError> {
        let Some(interface) =
            self.fib.interface(next_hop.interface).filter(|found| found.config.mac.is_some())
        else {
            return Err(NeighborError::NoEthernet);
        };
        if !mac.is_unicast() {
            return Err(NeighborError::MacNotUnicast);
        }
        let is_ours = self.fib.is_local(interface.config.domain, next_hop.addr);
        if is_ours || !self.fib.is_on_link(&interface.config, next_hop.addr) {
            return Err(NeighborError::NotOnLink);
        }
        if self.neighbors.set_static(now_us, next_hop, mac, actions) {
            Ok(())
        } else {
            Err(NeighborError::TableFull)
        }
    }

    /// Forgets a neighbour, a static one too; false when it is not known.
    pub fn remove_neighbor(&mut self, next_hop: NextHop, actions: &mut Vec<RouterAction>) -> bool {
        self.neighbors.remove(next_hop, actions)
    }

    /// All neighbours, by interface and address.
    pub fn neighbors(&self) -> impl Iterator<Item = Neighbor> + '_ {
        self.neighbors.iter()
    }

    /// All that a new worker has to be told, in order.
    pub fn snapshot(&self) -> Vec<NetUpdate> {
        let mut updates: Vec<_> = self
            .fib
            .interfaces()
            .map(|interface| NetUpdate::InterfaceAdded(Arc::new(interface.config.clone())))
            .collect();
        updates.extend(
            self.fib
                .routes()
                .filter(|(_, connected)| !connected)
                .map(|(route, _)| NetUpdate::RouteAdded(route)),
        );
        self.neighbors.snapshot(&mut updates);
        updates
    }

    fn has_neighbors(&self, interface: InterfaceId) -> bool {
        self.interface(interface).is_some_and(|config| config.mac.is_some())
    }
}

impl Default for Router {
    fn default() -> Router {
        Router::new(NeighborConfig::default())
    }
}

#[cfg(test)]
mod tests;
