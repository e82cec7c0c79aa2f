//! What a slice takes place in, drawn from its seed: addresses, links, limits, tempers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hoststack::app::{DomainId, Duration, ListenOptions};
use hoststack::net::{Cidr, Impairments, MemoryWireConfig, impair, memory_wire};
use hoststack::tcp::TcpConfig;
use hoststack::{BuildError, InterfaceSpec, SessionLimits, Stack, StackConfig};
use hoststack_transport::Rng;
use hoststack_wire::MacAddr;

/// The clients' routing domain.
pub(super) const CLIENT: DomainId = DomainId(0);
/// The servers'.
pub(super) const SERVER: DomainId = DomainId(1);
/// Ports that the servers listen on.
const PORTS: [u16; 2] = [7, 80];
/// A port that refuses.
const CLOSED_PORT: u16 = 9;
/// Addresses of each family at each end.
const ADDRESSES: u8 = 4;

/// What happens how often: one in so many; 0 is never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Temper {
    pub(super) panic: u32,
    pub(super) detach_self: u32,
    pub(super) cancel: u32,
    pub(super) short_deadline: u32,
    pub(super) nowhere: u32,
}

/// A slice's plan.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) config: StackConfig,
    pub(super) wire: MemoryWireConfig,
    links: [Impairments; 2],
    pub(super) temper: Temper,
    /// Client applications, and app workers of each.
    pub(super) clients: usize,
    pub(super) units: u32,
    /// Connects that each app worker keeps under way.
    pub(super) in_flight: i64,
    /// Connects between two acts of the conductor.
    pub(super) pace: usize,
    pub(super) half_opens_max: usize,
    pub(super) pending_connects_max: usize,
    /// Whether all outcomes are waited for before the last detach.
    pub(super) waits_at_end: bool,
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len() as u32) as usize]
}

impl Plan {
    /// Draws one. The first words of `rng` decide, so a seed means the same plan for ever.
    pub(super) fn draw(rng: &mut Rng, workers: usize, connects: usize) -> Plan {
        let is_small = rng.below(3) == 0;
        let is_bad = rng.below(3) == 0;
        let has_macs = rng.below(4) == 0;
        let config = StackConfig {
            workers,
            seed: Some(rng.u64()),
            tcp: TcpConfig {
                connections_max: if is_small { 3_000 } else { 1 << 18 },
                half_opens_max: if is_small { 300 } else { 1 << 18 },
                syn_received_max: if is_small { 500 } else { 1 << 16 },
                time_wait_max: if is_small { 1_000 } else { 1 << 18 },
                ..TcpConfig::default()
            },
            sessions: SessionLimits {
                sessions: if is_small { 2_000 } else { 1 << 18 },
                chunk_bytes: pick(rng, &[64, 512, 4096]),
                chunks: if is_small { 200 } else { 1 << 14 },
            },
            channel_batches: pick(rng, &[1, 2, 64]),
            parked_max: pick(rng, &[0, 2, 4096]),
            pending_connects_max: pick(rng, &[50, 500, 2_000]),
            rx_burst_max: pick(rng, &[16, 256]),
            // A machine may be busy; no callback hangs, so no worker may be named as stuck.
            detach_grace: Duration::from_secs(100),
            ..StackConfig::default()
        };
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        let wire = MemoryWireConfig {
            ring_packets: pick(rng, &[16, 1024, 4096]),
            macs: has_macs.then(|| [mac(1), mac(2)]),
            ..MemoryWireConfig::default()
        };
        let mut link = || Impairments {
            seed: rng.u64(),
            loss: if is_bad { 0.01 } else { 0.0 },
            duplicate: if is_bad { 0.05 } else { 0.0 },
            reorder: if is_bad { 0.05 } else { 0.0 },
            ..Impairments::default()
        };
        let links = [link(), link()];
        Plan {
            config,
            wire,
            links,
            temper: Temper {
                panic: pick(rng, &[0, 20_000, 5_000]),
                detach_self: pick(rng, &[0, 30_000]),
                cancel: pick(rng, &[10, 30, 100]),
                short_deadline: pick(rng, &[10, 50]),
                nowhere: pick(rng, &[20, 60]),
            },
            clients: 1 + rng.below(3) as usize,
            units: 1 + rng.below(4),
            in_flight: pick(rng, &[20, 100, 400]),
            pace: pick(rng, &[connects / 200, connects / 60]).max(50),
            half_opens_max: if is_small { pick(rng, &[50, 300]) } else { 1 << 16 },
            pending_connects_max: if is_small { pick(rng, &[20, 100]) } else { 1 << 16 },
            waits_at_end: rng.below(4) == 0,
        }
    }

    /// The plan in a line.
    pub(super) fn sentence(&self) -> String {
        format!(
            "{} worker(s), {} client(s) of {} app worker(s), {} connects each, {}, {}, channel_batches {}",
            self.config.workers,
            self.clients,
            self.units,
            self.in_flight,
            if self.links[0].loss > 0.0 { "bad link" } else { "good link" },
            if self.config.tcp.half_opens_max < 1000 { "small pools" } else { "large pools" },
            self.config.channel_batches,
        )
    }

    /// Starts the stack.
    pub(super) fn start(&self) -> Result<Stack, BuildError> {
        let (client, server) = memory_wire(self.wire.clone());
        let spec = |device, domain, first| {
            let spec = InterfaceSpec::new(device).domain(domain);
            (0..ADDRESSES)
                .fold(spec, |spec, n| spec.address(cidr(v4(first + n), 24)).address(cidr(v6(first + n), 64)))
        };
        Stack::builder()
            .config(self.config.clone())
            .interface(spec(impair(Box::new(client), self.links[0]), CLIENT, CLIENT_FIRST))
            .interface(spec(impair(Box::new(server), self.links[1]), SERVER, SERVER_FIRST))
            .start()
    }
}

const CLIENT_FIRST: u8 = 1;
const SERVER_FIRST: u8 = 101;
/// On the link, and nobody's: what is sent there vanishes.
const NOBODY: u8 = 77;

fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn v6(last: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)))
}

fn of_family(is_v6: bool, last: u8) -> IpAddr {
    if is_v6 { v6(last) } else { v4(last) }
}

fn cidr(addr: IpAddr, prefix: u8) -> Cidr {
    Cidr::new(addr, prefix).expect("cannot fail because the prefixes are shorter than the addresses")
}

/// Where the servers listen.
pub(super) fn listens() -> Vec<ListenOptions> {
    let addresses = (0..ADDRESSES).flat_map(|n| [v4(SERVER_FIRST + n), v6(SERVER_FIRST + n)]);
    let endpoints = addresses.flat_map(|addr| PORTS.map(|port| SocketAddr::new(addr, port)));
    endpoints.map(|on| ListenOptions { domain: SERVER, ..ListenOptions::on(on) }).collect()
}

/// Where a connect goes.
pub(super) struct Target {
    pub(super) remote: SocketAddr,
    pub(super) local_addr: Option<IpAddr>,
    pub(super) local_port: u16,
    pub(super) timeout: Duration,
}

/// Draws one: mostly a server, at times one that refuses, is not there, or cannot be reached.
pub(super) fn target(rng: &mut Rng, temper: &Temper) -> Target {
    let is_v6 = rng.below(2) == 0;
    let server = of_family(is_v6, SERVER_FIRST + rng.below(u32::from(ADDRESSES)) as u8);
    let local = of_family(is_v6, CLIENT_FIRST + rng.below(u32::from(ADDRESSES)) as u8);
    let mut target = Target {
        remote: SocketAddr::new(server, pick(rng, &PORTS)),
        local_addr: Some(local),
        local_port: 0,
        timeout: Duration::from_secs(5),
    };
    if rng.below(temper.short_deadline) == 0 {
        target.timeout = Duration::from_micros(1 + u64::from(rng.below(3_000)));
    }
    if rng.below(temper.nowhere) > 0 {
        return target;
    }
    match rng.below(6) {
        0 => target.remote.set_port(CLOSED_PORT),
        1 | 2 => {
            target.remote.set_ip(of_family(is_v6, NOBODY));
            target.timeout = Duration::from_micros(1 + u64::from(rng.below(100_000)));
        }
        3 => {
            let nowhere = if is_v6 {
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
            } else {
                Ipv4Addr::new(192, 0, 2, 1).into()
            };
            target.remote.set_ip(nowhere);
        }
        4 => target.local_port = 5_000 + rng.below(3) as u16,
        _ => target.local_addr = Some(of_family(is_v6, NOBODY)),
    }
    target
}
