//! Routes and the longest-prefix match.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::interface::{Cidr, InterfaceId, mask, top_bits};

/// A route of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The routing domain.
    pub domain: u16,
    /// Destinations it is for; host bits do not count.
    pub prefix: Cidr,
    /// The router to send to; `None`: the destinations are on the interface's link.
    pub via: Option<IpAddr>,
    /// The interface to send through, one of the domain's.
    pub interface: InterfaceId,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prefix.network())?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " dev {}", self.interface)
    }
}

/// Where a packet goes next: a neighbour on an interface's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    /// The interface.
    pub interface: InterfaceId,
    /// The router, or the destination itself when it is on the link.
    pub addr: IpAddr,
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.addr, self.interface)
    }
}

/// Why a route was not added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// There is no such interface.
    NoInterface {
        /// The number given.
        interface: InterfaceId,
    },
    /// The interface belongs to another domain.
    OtherDomain {
        /// The interface's domain.
        domain: u16,
    },
    /// The domain has a route for exactly this prefix.
    Exists,
    /// The router is not of the prefix's address family.
    FamilyMismatch,
    /// The router is not on the interface's link.
    ViaNotOnLink {
        /// The router given.
        via: IpAddr,
    },
    /// The router's address is one of our own.
    ViaOurs {
        /// The router given.
        via: IpAddr,
    },
    /// The prefix is one of groups, which this stack does not send to.
    Multicast,
    /// The domain has no route for exactly this prefix.
    NotFound,
    /// The route follows from an interface's address.
    Connected,
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteError::NoInterface { interface } => {
                write!(f, "there is no interface {}: add it first", interface.0)
            }
            RouteError::OtherDomain { domain } => write!(f, "the interface belongs to domain {domain}"),
            RouteError::Exists => f.write_str("there is a route for this prefix: remove it first"),
            RouteError::FamilyMismatch => {
                f.write_str("the router and the prefix are not of one address family")
            }
            RouteError::ViaNotOnLink { via } => {
                write!(f, "the router {via} is not on the interface's link: name one within its networks")
            }
            RouteError::ViaOurs { via } => write!(f, "the router {via} is ourselves"),
            RouteError::Multicast => {
                f.write_str("a route to multicast addresses is of no use: TCP is unicast")
            }
            RouteError::NotFound => f.write_str("there is no route for exactly this prefix"),
            RouteError::Connected => {
                f.write_str("the route follows from an interface's address and stays with it")
            }
        }
    }
}

impl std::error::Error for RouteError {}

/// Why no source address was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// No route leads to the destination.
    NoRoute,
    /// The address wanted is none of the domain's.
    NotOurs,
    /// The address wanted is not of the destination's address family.
    FamilyMismatch,
    /// The domain has no address of the destination's family (and scope).
    NoAddress,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SourceError::NoRoute => "no route leads to the destination: add one",
            SourceError::NotOurs => "the source address is none of the domain's: add it to an interface",
            SourceError::FamilyMismatch => "the source address is not of the destination's address family",
            SourceError::NoAddress => {
                "the domain has no address of the destination's family: add one to an interface"
            }
        })
    }
}

impl std::error::Error for SourceError {}

/// Values by prefix, found by the longest prefix that matches.
///
/// One ordered map per prefix length that occurs, longest first: a look-up costs one search per length in use. It is
/// asked when a destination is new to a cache, not for every packet.
#[derive(Clone, Debug)]
pub(crate) struct PrefixMap<V> {
    v4: Vec<Level<V>>,
    v6: Vec<Level<V>>,
}

#[derive(Clone, Debug)]
struct Level<V> {
    len: u8,
    entries: BTreeMap<u128, V>,
}

impl<V> Default for PrefixMap<V> {
    fn default() -> PrefixMap<V> {
        PrefixMap { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<V> PrefixMap<V> {
    fn levels(&self, addr: IpAddr) -> &Vec<Level<V>> {
        if addr.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    fn levels_mut(&mut self, addr: IpAddr) -> &mut Vec<Level<V>> {
        if addr.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    /// Sets the value of a prefix and returns the one it had.
    pub(crate) fn insert(&mut self, prefix: Cidr, value: V) -> Option<V> {
        let len = prefix.prefix_len();
        let levels = self.levels_mut(prefix.addr());
        let place = levels.partition_point(|level| level.len > len);
        if levels.get(place).is_none_or(|level| level.len != len) {
            levels.insert(place, Level { len, entries: BTreeMap::new() });
        }
        levels[place].entries.insert(top_bits(prefix.addr()) & mask(len), value)
    }

    /// Removes a prefix and returns its value.
    pub(crate) fn remove(&mut self, prefix: Cidr) -> Option<V> {
        let len = prefix.prefix_len();
        let levels = self.levels_mut(prefix.addr());
        let place = levels.iter().position(|level| level.len == len)?;
        let value = levels[place].entries.remove(&(top_bits(prefix.addr()) & mask(len)));
        if levels[place].entries.is_empty() {
            levels.remove(place);
        }
        value
    }

    /// The value of exactly this prefix.
    pub(crate) fn exact(&self, prefix: Cidr) -> Option<&V> {
        let len = prefix.prefix_len();
        let level = self.levels(prefix.addr()).iter().find(|level| level.len == len)?;
        level.entries.get(&(top_bits(prefix.addr()) & mask(len)))
    }

    /// The value of the longest prefix that `addr` has.
    pub(crate) fn lookup(&self, addr: IpAddr) -> Option<&V> {
        let bits = top_bits(addr);
        self.levels(addr).iter().find_map(|level| level.entries.get(&(bits & mask(level.len))))
    }

    /// All values, IPv4 first, longest prefixes first, then by address.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.v4.iter().chain(&self.v6).flat_map(|level| level.entries.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// Addresses that share few high bits, so that prefixes nest and collide.
    fn addr() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..16, 0u32..16, any::<bool>()).prop_map(|(high, low, top)| {
                IpAddr::V4(Ipv4Addr::from_bits(high << 24 | u32::from(top) << 31 | low))
            }),
            (0u128..16, 0u128..16).prop_map(|(high, low)| IpAddr::V6(Ipv6Addr::from_bits(high << 120 | low))),
        ]
    }

    fn prefix() -> impl Strategy<Value = Cidr> {
        (
            addr(),
            prop_oneof![
                Just(0u8),
                Just(8),
                Just(28),
                Just(30),
                Just(31),
                Just(32),
                Just(126),
                Just(128),
                0u8..=128
            ],
        )
            .prop_map(|(addr, len)| Cidr::new(addr, len.min(if addr.is_ipv4() { 32 } else { 128 })).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn longest_prefix_match_agrees_with_a_scan(
            changes in prop::collection::vec((prefix(), any::<bool>()), 0..60),
            asked in prop::collection::vec(addr(), 1..40),
        ) {
            let mut map = PrefixMap::default();
            let mut model: Vec<(Cidr, usize)> = Vec::new();
            for (value, (prefix, remove)) in changes.into_iter().enumerate() {
                let prefix = prefix.network();
                let old = model.iter().position(|(other, _)| *other == prefix).map(|at| model.remove(at).1);
                prop_assert_eq!(map.exact(prefix).copied(), old);
                if remove {
                    prop_assert_eq!(map.remove(prefix), old);
                } else {
                    prop_assert_eq!(map.insert(prefix, value), old);
                    model.push((prefix, value));
                }
            }
            prop_assert_eq!(map.values().count(), model.len());
            for addr in asked {
                let best = model.iter().filter(|(prefix, _)| prefix.contains(addr)).max_by_key(|(prefix, _)| prefix.prefix_len());
                prop_assert_eq!(map.lookup(addr), best.map(|(_, value)| value), "{}", addr);
            }
        }
    }
}
