//! Two hosts and the link between them.
//!
//! The far host is a kernel in a namespace of its own, with a TAP. The near host is another kernel, or `hoststack`: then the
//! near namespace is but an Ethernet bridge between `hoststack`'s TAP and the link's. TAPs are opened without
//! `IFF_VNET_HDR`, so no kernel leaves segmentation or checksums to them: what passes are frames as on a wire.
//!
//! Nothing survives the value: the pump ends, the namespaces go and the TAPs with them. What a killed process leaves
//! behind is swept by the next (see [`crate::netns`]).

use std::net::{IpAddr, Ipv4Addr};

use hoststack::InterfaceSpec;
use hoststack::net::{Cidr, Tap as OpenTap, TapConfig};

use super::link::Shape;
use super::pump::{Pump, Pumped};
use crate::netns::Namespace;
use crate::tap::{Queues, Tap};

/// The near kernel's address.
pub const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// The far kernel's address.
pub const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
/// `hoststack`'s address.
pub const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 3));

/// The link's TAP in either namespace.
const LINK: &str = "link0";
/// `hoststack`'s TAP.
const STACK: &str = "hs0";

/// Frames that a TAP may hold for its reader: no queue before the link's own may overflow.
const TAP_FRAMES: &str = "20000";

/// Most bytes of a kernel's socket buffers: several times what 100 Mbit/s, 50 ms and as long a queue hold.
const BUFFERS: &str = "4096 4194304 67108864";

/// Who the near host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// The kernel.
    Kernel,
    /// `hoststack`.
    Stack,
}

/// Two hosts with a link between them.
#[derive(Debug)]
pub struct Path {
    pump: Option<Pump>,
    /// The near host's.
    pub near: Namespace,
    /// The far host's.
    pub far: Namespace,
}

impl Path {
    /// Makes both hosts and starts the link; `shapes` are those from near to far, and back.
    ///
    /// # Panics
    /// When the machine does not allow it.
    #[must_use]
    pub fn new(near_is: Near, shapes: [Shape; 2]) -> Path {
        let (near, far) = (host(), host());
        let link = |namespace| Tap::create(namespace, LINK, Queues::Single);
        let (near_tap, far_tap) = (link(&near), link(&far));
        let far_tap = far_tap.with_address(&format!("{FAR}/24"));
        match near_is {
            Near::Kernel => drop(near_tap.with_address(&format!("{NEAR}/24"))),
            Near::Stack => {
                let stack_tap = Tap::create(&near, STACK, Queues::Single);
                near.run("ip", &["link", "add", "bridge0", "type", "bridge"]);
                for tap in [&near_tap, &stack_tap] {
                    near.run("ip", &["link", "set", tap.name(), "master", "bridge0"]);
                    near.run("ip", &["link", "set", tap.name(), "txqueuelen", TAP_FRAMES]);
                }
                near.run("ip", &["link", "set", "bridge0", "up"]);
            }
        }
        for namespace in [&near, &far] {
            namespace.run("ip", &["link", "set", LINK, "txqueuelen", TAP_FRAMES]);
        }
        let pump = Pump::start(open(&near, LINK), open(&far, LINK), shapes);
        far_tap.wait_attached();
        Path { pump: Some(pump), near, far }
    }

    /// The interface with which `hoststack` is the near host.
    ///
    /// # Panics
    /// When the path was not made for it.
    #[must_use]
    pub fn interface(&self) -> InterfaceSpec {
        let address = Cidr::new(OURS, 24).expect("24 bits are fewer than an address has");
        InterfaceSpec::new(open(&self.near, STACK)).address(address)
    }

    /// Ends the link, and tells what it did. The namespaces live on until this is dropped.
    ///
    /// # Panics
    /// When called twice.
    #[must_use]
    pub fn stop(&mut self) -> Pumped {
        self.pump.take().expect("it is stopped once").stop()
    }

    /// Frames that the queues before the link's TAPs dropped, which a valid run has none of.
    #[must_use]
    pub fn tap_drops(&self) -> u64 {
        [&self.near, &self.far]
            .map(|namespace| tx_drops(&namespace.run("cat", &["/proc/net/dev"])))
            .iter()
            .sum()
    }
}

/// A namespace whose kernel has large buffers and remembers nothing of earlier connections.
fn host() -> Namespace {
    let namespace = Namespace::new();
    for (key, value) in [
        ("ipv4/tcp_no_metrics_save", "1"),
        ("ipv4/tcp_rmem", BUFFERS),
        ("ipv4/tcp_wmem", BUFFERS),
        // No frame of router solicitations on the link.
        ("ipv6/conf/all/disable_ipv6", "1"),
        ("ipv6/conf/default/disable_ipv6", "1"),
    ] {
        namespace.sysctl(key, value);
    }
    namespace
}

fn open(namespace: &Namespace, name: &str) -> OpenTap {
    let config = TapConfig { name: name.to_owned(), ..TapConfig::default() };
    namespace.enter(|| OpenTap::open(&config)).unwrap_or_else(|error| panic!("{error}"))
}

/// The column "drop" of "Transmit" of the link's TAP in `/proc/net/dev`.
fn tx_drops(table: &str) -> u64 {
    let of_link = table.lines().find_map(|line| line.trim().strip_prefix(LINK)?.strip_prefix(':'));
    of_link.and_then(|counters| counters.split_whitespace().nth(11)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_those_of_the_transmitting_side() {
        let table = "Inter-|   Receive                            |  Transmit\n \
                     face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n    \
                     lo:       1       2    3    4    5     6          7         8        9      10   11   12    0     0       0          0\n \
                     link0:    0       0    0    99    0     0          0         0        0       0    0    5    0     0       0          0\n";
        assert_eq!(tx_drops(table), 5);
    }
}
