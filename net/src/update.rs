//! What main's [`crate::Router`] and the workers' [`crate::IpPath`]s tell each other. The stack carries these values over
//! its channels; order matters within one channel only.

use std::net::IpAddr;
use std::sync::Arc;

use hoststack_wire::MacAddr;

use crate::echo::HeardEcho;
use crate::interface::{Cidr, InterfaceConfig, InterfaceId};
use crate::route::{NextHop, Route};

/// Main to every worker: a change of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetUpdate {
    /// An interface was added, with its addresses and connected routes.
    InterfaceAdded(Arc<InterfaceConfig>),
    /// A route was added.
    RouteAdded(Route),
    /// A route was removed.
    RouteRemoved {
        /// Its domain.
        domain: u16,
        /// Its prefix.
        prefix: Cidr,
    },
    /// A neighbour is at this Ethernet address: packets that wait for it go out.
    NeighborSet {
        /// The interface of the link.
        interface: InterfaceId,
        /// The neighbour.
        addr: IpAddr,
        /// Where it is.
        mac: MacAddr,
    },
    /// The neighbour has not been heard of for a while: the first use is to be told ([`NetEvent::NeighborUsed`]), so
    /// that main probes it. Packets go on to flow.
    NeighborStale {
        /// The interface of the link.
        interface: InterfaceId,
        /// The neighbour.
        addr: IpAddr,
    },
    /// The neighbour was removed: the next packet starts over.
    NeighborForgotten {
        /// The interface of the link.
        interface: InterfaceId,
        /// The neighbour.
        addr: IpAddr,
    },
    /// The neighbour does not answer: packets that wait for it are dropped, the next one starts over.
    NeighborFailed {
        /// The interface of the link.
        interface: InterfaceId,
        /// The neighbour.
        addr: IpAddr,
    },
}

/// How a neighbour made itself known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sighting {
    /// It answered a question of ours: an ARP reply to us, a solicited advertisement.
    Answer,
    /// It asked for one of our addresses and told its own on the way (RFC 826, RFC 4861 §7.2.3).
    Question,
    /// It told unasked that it moved: gratuitous ARP, an unsolicited advertisement. Only known neighbours are updated.
    Announcement,
}

/// A worker to main: what happened on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// A packet waits for a neighbour that is not known. At most one per neighbour and second from each worker.
    NeighborMiss {
        /// The interface of the link.
        interface: InterfaceId,
        /// The neighbour.
        addr: IpAddr,
    },
    /// A neighbour was heard.
    NeighborSeen {
        /// The interface of the link.
        interface: InterfaceId,
        /// The neighbour.
        addr: IpAddr,
        /// Where it is.
        mac: MacAddr,
        /// In what way it was heard.
        how: Sighting,
    },
    /// A packet went to a neighbour that is stale. Once per [`NetUpdate::NeighborStale`] from each worker.
    NeighborUsed {
        /// The interface of the link.
        interface: InterfaceId,
        /// The neighbour.
        addr: IpAddr,
    },
    /// A ping was answered. The router has no use for it.
    EchoHeard(HeardEcho),
}

/// What main has to do after it asked or told its [`crate::Router`] something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum RouterAction {
    /// Send this to every worker.
    Update(NetUpdate),
    /// Have one worker (any that can send on the interface) ask for the neighbour: [`crate::IpPath::probe`].
    Probe {
        /// The interface of the link.
        interface: InterfaceId,
        /// The neighbour.
        target: IpAddr,
    },
    /// The neighbour does not answer: the half-opens whose packets go there are unreachable. The update for the workers
    /// comes separately.
    Failed {
        /// The neighbour.
        next_hop: NextHop,
    },
}
