//! `show ports`: which local ports connects use, towards whom.

use hoststack::inspect::{Held, PortsInfo};

use crate::table::{Column, Table, grouped, pairs};

/// A summary, then a line per local address, then one per remote.
pub(crate) fn ports(ports: &PortsInfo) -> String {
    let Held { half_opens, connections, time_wait } = ports.held;
    let mut text = pairs([
        ("ephemeral ports", format!("{} to {}", ports.first, ports.last)),
        ("4-tuples in use", grouped(ports.tuples as u64)),
        ("half-open", grouped(half_opens as u64)),
        ("connected", grouped(connections as u64)),
        ("TIME-WAIT", grouped(time_wait as u64)),
        ("under way", grouped(ports.under_way as u64)),
    ]);
    let mut locals = Table::new(&[
        Column::Right("domain"),
        Column::Left("local address"),
        Column::Right("half-open"),
        Column::Right("connected"),
        Column::Right("TIME-WAIT"),
    ]);
    for local in &ports.locals {
        locals.row([local.domain.to_string(), local.local.to_string()].into_iter().chain(held(local.held)));
    }
    let mut remotes = Table::new(&[
        Column::Right("domain"),
        Column::Left("local address"),
        Column::Left("remote"),
        Column::Right("half-open"),
        Column::Right("connected"),
        Column::Right("TIME-WAIT"),
        Column::Right("full"),
    ]);
    for remote in &ports.remotes {
        let names = [remote.domain.to_string(), remote.local.to_string(), remote.remote.clone()];
        let full = format!("{}.{}%", remote.full_permille / 10, remote.full_permille % 10);
        remotes.row(names.into_iter().chain(held(remote.held)).chain([full]));
    }
    for table in [locals, remotes] {
        if !table.is_empty() {
            text += &format!("\n{table}");
        }
    }
    let elsewhere = ports.elsewhere.total();
    if elsewhere > 0 {
        text += &format!("and {} to remotes that were not counted apart\n", grouped(elsewhere as u64));
    }
    text
}

fn held(held: Held) -> [String; 3] {
    [held.half_opens, held.connections, held.time_wait].map(|count| grouped(count as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack::inspect::{LocalPorts, RemotePorts};

    #[test]
    fn a_remote_shows_how_full_its_ports_are() {
        let held = Held { half_opens: 1, connections: 30_000, time_wait: 2 };
        let local = "10.0.0.1".parse().unwrap();
        let shown = PortsInfo {
            first: 1024,
            last: 65535,
            tuples: 30_010,
            held,
            under_way: 7,
            locals: vec![LocalPorts { domain: 0, local, held }],
            remotes: vec![RemotePorts {
                domain: 0,
                local,
                remote: "192.0.2.1:80".into(),
                held,
                full_permille: 466,
            }],
            elsewhere: Held { half_opens: 0, connections: 0, time_wait: 1234 },
        };
        assert_eq!(
            ports(&shown),
            "ephemeral ports  1024 to 65535
4-tuples in use  30 010
half-open        1
connected        30 000
TIME-WAIT        2
under way        7

domain  local address  half-open  connected  TIME-WAIT
     0  10.0.0.1               1     30 000          2

domain  local address  remote        half-open  connected  TIME-WAIT   full
     0  10.0.0.1       192.0.2.1:80          1     30 000          2  46.6%
and 1 234 to remotes that were not counted apart\n"
        );
        let empty = ports(&PortsInfo::default());
        assert_eq!(empty.lines().count(), 6, "{empty}");
    }
}
