//! `show interface`, `show route`, `show neighbor`.

use hoststack::inspect::{NetworkInfo, QueueInfo};

use crate::table::{Column, Table, bytes, grouped, span_us};

/// A line per interface; `verbose`: one per worker's queue besides, and what the devices dropped.
pub(crate) fn interfaces(network: &NetworkInfo, verbose: bool) -> String {
    let mut table = Table::new(&[
        Column::Left("interface"),
        Column::Right("domain"),
        Column::Left("link"),
        Column::Right("mtu"),
        Column::Right("rx packets"),
        Column::Right("rx bytes"),
        Column::Right("tx packets"),
        Column::Right("tx bytes"),
        Column::Right("tx waiting"),
        Column::Right("drops"),
        Column::Left("addresses"),
    ]);
    for interface in &network.interfaces {
        let link = interface.mac.as_deref().unwrap_or(interface.link);
        let head = [
            interface.name.clone(),
            interface.domain.to_string(),
            link.to_owned(),
            interface.mtu.to_string(),
        ];
        let addresses = interface.addresses.join(" ");
        table.row(head.into_iter().chain(figures(&interface.total())).chain([addresses]));
        for queue in interface.queues.iter().filter(|_| verbose) {
            let head = [format!("  worker {}", queue.worker), String::new(), String::new(), String::new()];
            table.row(head.into_iter().chain(figures(queue)));
        }
    }
    let mut text = table.to_string();
    for interface in network.interfaces.iter().filter(|_| verbose) {
        for drop in interface.total().drops {
            text += &format!("{}: {} {}: {}\n", interface.name, grouped(drop.count), drop.reason, drop.help);
        }
    }
    text
}

fn figures(queue: &QueueInfo) -> [String; 6] {
    [
        grouped(queue.rx_packets),
        bytes(queue.rx_bytes),
        grouped(queue.tx_packets),
        bytes(queue.tx_bytes),
        grouped(queue.tx_waiting as u64),
        grouped(queue.drops.iter().map(|drop| drop.count).sum()),
    ]
}

/// A line per route, then one per path MTU that a worker learnt.
pub(crate) fn routes(network: &NetworkInfo) -> String {
    let mut table = Table::new(&[
        Column::Right("domain"),
        Column::Left("prefix"),
        Column::Left("via"),
        Column::Left("interface"),
        Column::Left("source"),
    ]);
    for route in &network.routes {
        let on_link = if route.is_connected { "connected" } else { "on-link" };
        table.row([
            route.domain.to_string(),
            route.prefix.clone(),
            route.via.clone().unwrap_or_else(|| on_link.to_owned()),
            route.interface_name.clone(),
            route.source.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    let mut text = table.to_string() + &more(network.routes.len(), network.routes_total, "routes");
    if !network.path_mtus.is_empty() {
        let mut table = Table::new(&[
            Column::Right("domain"),
            Column::Left("destination"),
            Column::Right("path MTU"),
            Column::Right("worker"),
        ]);
        for path in &network.path_mtus {
            let cells = [
                path.domain.to_string(),
                path.destination.clone(),
                path.mtu.to_string(),
                path.worker.to_string(),
            ];
            table.row(cells);
        }
        text += &format!("\n{table}");
    }
    text
}

/// A line per neighbour. `!` marks one that a worker knows otherwise than main does.
pub(crate) fn neighbors(network: &NetworkInfo) -> String {
    let mut table = Table::new(&[
        Column::Left(""),
        Column::Left("interface"),
        Column::Left("address"),
        Column::Left("ethernet address"),
        Column::Left("state"),
        Column::Right("age"),
        Column::Left("waiting packets"),
        Column::Left("workers that disagree"),
    ]);
    for neighbor in &network.neighbors {
        let waiting = neighbor.waiting.iter();
        let waiting = waiting.map(|waiting| format!("worker {}: {}", waiting.worker, waiting.packets));
        let disagreeing: Vec<String> = neighbor.disagreeing.iter().map(ToString::to_string).collect();
        table.row([
            if disagreeing.is_empty() { "" } else { "!" }.to_owned(),
            neighbor.interface_name.clone(),
            neighbor.address.clone(),
            neighbor.mac.clone().unwrap_or_else(|| "-".to_owned()),
            neighbor.state.clone(),
            span_us(neighbor.age_us),
            waiting.collect::<Vec<_>>().join(", "),
            disagreeing.join(" "),
        ]);
    }
    if table.is_empty() {
        return "no neighbors are known\n".to_owned();
    }
    table.to_string() + &more(network.neighbors.len(), network.neighbors_total, "neighbors")
}

/// That not all are listed.
fn more(listed: usize, total: usize, what: &str) -> String {
    if listed < total {
        format!("({} of {} {what}: `limit N` lists more)\n", grouped(listed as u64), grouped(total as u64))
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack::inspect::{DropInfo, InterfaceInfo, NeighborInfo, PathMtuInfo, RouteInfo, WaitingInfo};

    fn sample() -> NetworkInfo {
        let queue = |worker, packets, drops| QueueInfo {
            worker,
            rx_packets: packets,
            rx_bytes: packets * 100,
            tx_packets: 2 * packets,
            tx_bytes: packets * 1000,
            drops,
            ..QueueInfo::default()
        };
        let drop =
            DropInfo { reason: "device-tx-error".into(), count: 3, help: "A device dropped it.".into() };
        NetworkInfo {
            interfaces: vec![InterfaceInfo {
                interface: 0,
                name: "tap0".into(),
                domain: 0,
                link: "ethernet",
                mac: Some("02:00:00:00:00:01".into()),
                mtu: 1500,
                addresses: vec!["10.0.0.1/24".into(), "fd00::1/64".into()],
                queues: vec![queue(0, 1000, vec![drop.clone()]), queue(1, 500, vec![drop])],
            }],
            routes: vec![
                RouteInfo {
                    prefix: "10.0.0.0/24".into(),
                    interface_name: "tap0".into(),
                    is_connected: true,
                    source: Some("10.0.0.1".into()),
                    ..RouteInfo::default()
                },
                RouteInfo {
                    prefix: "0.0.0.0/0".into(),
                    via: Some("10.0.0.254".into()),
                    interface_name: "tap0".into(),
                    source: Some("10.0.0.1".into()),
                    ..RouteInfo::default()
                },
            ],
            routes_total: 7,
            neighbors: vec![NeighborInfo {
                interface_name: "tap0".into(),
                address: "10.0.0.254".into(),
                mac: None,
                state: "incomplete".into(),
                age_us: 1500,
                waiting: vec![WaitingInfo { worker: 1, packets: 3 }],
                disagreeing: vec![0],
                ..NeighborInfo::default()
            }],
            neighbors_total: 1,
            path_mtus: vec![PathMtuInfo { worker: 1, domain: 0, destination: "192.0.2.7".into(), mtu: 1400 }],
            ..NetworkInfo::default()
        }
    }

    #[test]
    fn an_interface_is_a_line_and_with_verbose_one_more_per_queue() {
        let text = interfaces(&sample(), false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let cells: Vec<&str> = lines[1].split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(
            cells,
            [
                "tap0",
                "0",
                "02:00:00:00:00:01",
                "1500",
                "1 500",
                "150.0 kB",
                "3 000",
                "1.5 MB",
                "0",
                "6",
                "10.0.0.1/24 fd00::1/64",
            ]
        );
        let text = interfaces(&sample(), true);
        assert!(text.contains("  worker 1"), "{text}");
        assert!(text.ends_with("tap0: 6 device-tx-error: A device dropped it.\n"), "{text}");
    }

    #[test]
    fn routes_tell_their_way_and_how_many_are_not_listed() {
        assert_eq!(
            routes(&sample()),
            "domain  prefix       via         interface  source
     0  10.0.0.0/24  connected   tap0       10.0.0.1
     0  0.0.0.0/0    10.0.0.254  tap0       10.0.0.1
(2 of 7 routes: `limit N` lists more)

domain  destination  path MTU  worker
     0  192.0.2.7        1400       1\n"
        );
    }

    #[test]
    fn a_neighbor_on_which_threads_disagree_is_marked() {
        assert_eq!(
            neighbors(&sample()),
            "   interface  address     ethernet address  state          age  waiting packets  workers that disagree
!  tap0       10.0.0.254  -                 incomplete  1.5 ms  worker 1: 3      0\n"
        );
        assert_eq!(neighbors(&NetworkInfo::default()), "no neighbors are known\n");
    }
}
