//! Packet I/O: devices, IP input and output, routing domains, neighbours, steering, pcap, faults.
//!
//! Devices first: [`packet`] (buffers and the per-worker pool), [`device`] (what a device and a queue of it are), then
//! the devices [`mod@memory_wire`], [`loopback`], [`mod@raw_ip`], [`tap`] and the wrappers [`impaired`] (faults), [`pcap`] (capture);
//! [`packet_filter`] says which packets are worth a capture or a trace.
//!
//! Then the IP path: `interface`, `route` and `neighbor` are tables; [`Router`] has the authoritative ones, on main, and
//! [`IpPath`] a replica and all packet work, one per worker (`ip_input`, `ip_output`, `icmp`, `resolve`, `pmtu`). They
//! tell each other [`NetUpdate`]s and [`NetEvent`]s. [`steer`] says whose a flow is.
#![deny(unsafe_code)]

// Devices.
pub mod device;
pub mod impaired;
pub mod loopback;
pub mod memory_wire;
pub mod packet;
pub mod packet_filter;
pub mod pcap;
pub mod raw_ip;
pub mod tap;
pub use device::{Capabilities, Device, DeviceCounters, DeviceQueue};
pub use impaired::{Impaired, ImpairedDevice, ImpairmentCounters, Impairments, LinkState, impair};
pub use loopback::Loopback;
pub use memory_wire::{MemoryWire, MemoryWireConfig, memory_wire};
pub use packet::{Packet, PacketPool};
pub use packet_filter::{FilterError, PacketFilter, PacketKind, PacketPlace, PacketView};
pub use pcap::{Capture, Captured, CapturedDevice, PacketBlocks, PcapOptions, PcapWriter, capture};
pub use raw_ip::{RawIp, RawIpEnd, raw_ip};
pub use tap::{Tap, TapConfig, TapError};

// The IP path.
mod drop_reason;
mod echo;
mod fib;
mod icmp;
mod interface;
mod ip_input;
mod ip_output;
mod ip_path;
#[cfg(test)]
mod ip_testing;
mod neighbor;
mod pmtu;
mod resolve;
mod route;
mod router;
pub mod steer;
mod update;
pub use drop_reason::{DropCounters, DropReason, Severity};
pub use echo::{EchoNews, EchoRequest, HeardEcho};
pub use interface::{Cidr, CidrError, InterfaceConfig, InterfaceError, InterfaceId, RxChecksum, link_local};
pub use ip_input::{Handover, IcmpErrorKind, Received, RxIcmpError, RxSegment};
pub use ip_output::OutFlow;
pub use ip_path::{IpCounters, IpLimits, IpPath};
pub use neighbor::replica::ReplicaNeighbor;
pub use neighbor::{Neighbor, NeighborConfig, NeighborState};
pub use pmtu::{PATH_MTU_LIFETIME_US, PATH_MTU_MIN_V4, PATH_MTU_MIN_V6};
pub use route::{NextHop, Route, RouteError, SourceError};
pub use router::{NeighborError, Router};
pub use update::{NetEvent, NetUpdate, RouterAction, Sighting};
