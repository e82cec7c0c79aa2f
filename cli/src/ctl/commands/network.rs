//! Commands about the network as the stack knows it, 4-tuples, channels between threads, memory.

use hoststack::inspect::{
    ChannelInfo, Clear, DropInfo, Held, InterfaceInfo, IpInfo, LocalPorts, MemoryInfo, NeighborInfo,
    NetworkInfo, PathMtuInfo, PoolInfo, PortsInfo, QueueInfo, RemotePorts, RouteInfo, WaitingInfo,
};
use hoststack::{Answer, Query};
use serde_json::json;

use super::{LIMIT, LISTED_MAX, Shown, Spec, shown, workers};
use crate::ctl::console::{CommandError, Console, Output};
use crate::ctl::grammar::Matched;
use crate::ctl::show::{channels, memory, network, ports};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "show interface [verbose]",
        help: "interfaces, their addresses, and what they received, sent and dropped",
        details: "Bytes count link headers. `tx waiting` are packets that wait for the device now.",
        options: &[("verbose", "also each worker's queue, and what devices dropped")],
        run: |console, matched| {
            Output::one(interfaces(console.ask(Query::Network { limit: 0 })?, matched.has("verbose")))
        },
        sample: || Box::new(interfaces(of_network(sample()), true)),
        ..Spec::BASE
    },
    Spec {
        pattern: "show route [limit N]",
        help: "routes with the source address that each gives, then the path MTUs that workers learnt; 1024 of each at most",
        details: "`connected` is the network of one of the stack's own addresses, `on-link` a route without a router.",
        options: &[("limit N", "list so many of them")],
        run: |console, matched| Output::one(routes(ask(console, matched)?)),
        sample: || Box::new(routes(sample())),
        ..Spec::BASE
    },
    Spec {
        pattern: "show neighbor [limit N]",
        help: "neighbours (ARP, NDP), their state, and the packets that wait for them; 1024 at most",
        details: "A row that begins with `!` is of a neighbour that a worker knows otherwise than main does: an update under way, \
                  if it is not there the next time.",
        options: &[("limit N", "list so many of them")],
        run: |console, matched| Output::one(neighbors(ask(console, matched)?)),
        sample: || Box::new(neighbors(sample())),
        ..Spec::BASE
    },
    Spec {
        pattern: "show ports [limit N]",
        help: "the 4-tuples that connects use, by local address and by remote, the fullest first; 100 unless said otherwise",
        details: "`full` is the share of the ephemeral ports that are in use from this local address to this remote: at 100% a \
                  further connect fails with an address in use.",
        options: &[("limit N", "list so many remotes")],
        run: |console, matched| {
            let limit = matched.count("limit").unwrap_or(LIMIT);
            let ports = console.ask(Query::Ports { limit })?.ports.ok_or_else(unanswered)?;
            Output::one(in_ports(*ports))
        },
        sample: || Box::new(in_ports(sample_ports())),
        ..Spec::BASE
    },
    Spec {
        pattern: "show channel",
        help: "the channels between threads: messages sent and waiting, how full they are and were",
        details: "A row that begins with `!` is of a channel that is full: `outbox` messages wait with their sender. `most` is the most \
                  that the column before it ever was.",
        run: |console, _| Output::one(in_channels(console.ask(Query::Channels)?.channels)),
        sample: || {
            Box::new(in_channels(vec![ChannelInfo {
                kind: "commands",
                from: "main".to_owned(),
                to: "worker 0".to_owned(),
                sent: 12_345,
                handled: 12_340,
                waiting: 5,
                batches: 1,
                batches_max: 4,
                outbox: 0,
                outbox_max: 70,
            }]))
        },
        ..Spec::BASE
    },
    Spec {
        pattern: "show memory [all]",
        help: "what main and the workers hold in memory, by pool, with limits",
        details: "`used` elements of `each` so many bytes, `most` so many at a time so far; `full` is the share of the limit, `held` the \
                  memory that the pool keeps, used or not.",
        options: &[("all", "also pools that hold nothing and never did")],
        run: |console, matched| {
            let held = console.ask(Query::Memory)?.memory.ok_or_else(unanswered)?;
            Output::one(in_memory(*held, matched.has("all")))
        },
        sample: || {
            let pool = PoolInfo {
                owner: "worker 0".to_owned(),
                pool: "sessions",
                used: 1001,
                high_water: Some(2000),
                limit: Some(100_000),
                element_bytes: 320,
                held_bytes: 1_310_720,
            };
            Box::new(in_memory(MemoryInfo { held_bytes: 1_310_720, pools: vec![pool] }, true))
        },
        ..Spec::BASE
    },
];

/// The stack answers each question with what it is about, so this is never seen.
fn unanswered() -> CommandError {
    CommandError::failed("the stack gave no answer, which is a bug: please report it")
}

fn ask(console: &Console<'_>, matched: &Matched) -> Result<NetworkInfo, CommandError> {
    let limit = matched.count("limit").unwrap_or(LISTED_MAX);
    let network = console.ask(Query::Network { limit })?.network.ok_or_else(unanswered)?;
    Ok(*network)
}

fn of_network(network: NetworkInfo) -> Answer {
    Answer { network: Some(Box::new(network)), ..workers::sample() }
}

fn interfaces(answer: Answer, verbose: bool) -> Shown<Answer> {
    fn text(answer: &Answer, verbose: bool) -> String {
        let text = answer.network.as_ref().map(|network| network::interfaces(network, verbose));
        text.unwrap_or_default() + &workers::since(answer, Clear::Counters)
    }
    Shown {
        value: answer,
        text: if verbose { |answer| text(answer, true) } else { |answer| text(answer, false) },
        json: |answer| {
            let interfaces = answer.network.as_ref().map_or(&[][..], |network| &network.interfaces);
            json!({ "interfaces": interfaces, "since": answer.since })
        },
        headings: 1,
    }
}

fn routes(network: NetworkInfo) -> Shown<NetworkInfo> {
    Shown {
        value: network,
        text: network::routes,
        json: |network| json!({ "routes": network.routes, "total": network.routes_total, "path_mtus": network.path_mtus }),
        headings: 1,
    }
}

fn neighbors(network: NetworkInfo) -> Shown<NetworkInfo> {
    let headings = usize::from(!network.neighbors.is_empty());
    Shown {
        value: network,
        text: network::neighbors,
        json: |network| json!({ "neighbors": network.neighbors, "total": network.neighbors_total }),
        headings,
    }
}

fn in_ports(info: PortsInfo) -> Shown<PortsInfo> {
    Shown { headings: 0, ..shown(info, ports::ports) }
}

fn in_channels(all: Vec<ChannelInfo>) -> Shown<Vec<ChannelInfo>> {
    Shown {
        value: all,
        text: |all| channels::channels(all),
        json: |all| json!({ "channels": all }),
        headings: 1,
    }
}

fn in_memory(held: MemoryInfo, all: bool) -> Shown<MemoryInfo> {
    shown(held, if all { |held| memory::memory(held, true) } else { |held| memory::memory(held, false) })
}

/// A network with one of each.
pub(super) fn sample() -> NetworkInfo {
    let drop = DropInfo {
        reason: "device-tx-error".to_owned(),
        count: 3,
        help: "A device or its wire dropped the packet.".to_owned(),
    };
    let queue = QueueInfo {
        worker: 0,
        rx_packets: 1000,
        rx_bytes: 100_000,
        tx_packets: 2000,
        tx_bytes: 1_000_000,
        drops: vec![drop],
        ..QueueInfo::default()
    };
    NetworkInfo {
        interfaces: vec![InterfaceInfo {
            interface: 0,
            name: "tap0".to_owned(),
            domain: 0,
            link: "ethernet",
            mac: Some("02:00:00:00:00:01".to_owned()),
            mtu: 1500,
            addresses: vec!["10.9.0.2/24".to_owned()],
            queues: vec![queue],
        }],
        routes: vec![RouteInfo {
            domain: 0,
            prefix: "0.0.0.0/0".to_owned(),
            via: Some("10.9.0.1".to_owned()),
            interface: 0,
            interface_name: "tap0".to_owned(),
            is_connected: false,
            source: Some("10.9.0.2".to_owned()),
        }],
        routes_total: 1,
        neighbors: vec![NeighborInfo {
            domain: 0,
            interface: 0,
            interface_name: "tap0".to_owned(),
            address: "10.9.0.1".to_owned(),
            mac: Some("02:00:00:00:00:02".to_owned()),
            state: "reachable".to_owned(),
            age_us: 1_250_000,
            waiting: vec![WaitingInfo { worker: 0, packets: 2 }],
            disagreeing: vec![1],
        }],
        neighbors_total: 1,
        path_mtus: vec![PathMtuInfo {
            worker: 0,
            domain: 0,
            destination: "198.51.100.7".to_owned(),
            mtu: 1400,
        }],
        ip: vec![IpInfo { worker: 0, counters: vec![("echo_replies", 3)] }],
        pings: 0,
    }
}

fn sample_ports() -> PortsInfo {
    let held = Held { half_opens: 1, connections: 30_000, time_wait: 2 };
    let local = [10, 9, 0, 2].into();
    PortsInfo {
        first: 1024,
        last: 65535,
        tuples: 30_010,
        held,
        under_way: 7,
        locals: vec![LocalPorts { domain: 0, local, held }],
        remotes: vec![RemotePorts {
            domain: 0,
            local,
            remote: "10.9.0.1:80".to_owned(),
            held,
            full_permille: 466,
        }],
        ..PortsInfo::default()
    }
}
