//! `show transport`: what each transport holds and did.

use hoststack::inspect::TransportInfo;
use serde::Serialize;

use crate::table::{Column, Table, bytes, grouped};

/// `show transport`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Transports {
    /// One for each.
    pub(crate) transports: Vec<TransportInfo>,
}

impl Transports {
    /// What is held now, with the limits; then what happened so far.
    pub(crate) fn text(&self) -> String {
        let mut held = Table::new(&[
            Column::Left("transport"),
            Column::Right("connections"),
            Column::Right("limit"),
            Column::Right("half-opens"),
            Column::Right("limit"),
            Column::Right("listeners"),
            Column::Right("limit"),
        ]);
        let mut did = Table::new(&[
            Column::Left("so far"),
            Column::Right("connected"),
            Column::Right("accepted"),
            Column::Right("closed"),
            Column::Right("failed"),
            Column::Right("bytes in"),
            Column::Right("bytes out"),
            Column::Right("retransmitted"),
            Column::Right("segments"),
            Column::Right("drops"),
        ]);
        for info in &self.transports {
            held.row([
                info.transport.to_owned(),
                grouped(info.connections),
                grouped(info.connections_max),
                grouped(info.half_opens),
                info.half_opens_max.map_or("-".to_owned(), grouped),
                grouped(info.listeners),
                grouped(info.listeners_max),
            ]);
            let of_tcp = |text: String| if info.transport == "tcp" { text } else { "-".to_owned() };
            did.row([
                info.transport.to_owned(),
                grouped(info.connected),
                grouped(info.accepted),
                grouped(info.closed),
                grouped(info.failed),
                bytes(info.bytes_in),
                bytes(info.bytes_out),
                of_tcp(bytes(info.retransmitted_bytes)),
                of_tcp(grouped(info.retransmitted_segments)),
                of_tcp(grouped(info.drops)),
            ]);
        }
        format!("{held}\n{did}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_transport_does_not_know_is_a_dash() {
        let tcp = TransportInfo {
            transport: "tcp",
            connections: 12_000,
            connections_max: 1 << 20,
            half_opens_max: Some(1 << 20),
            bytes_in: 1_500_000,
            retransmitted_segments: 7,
            retransmitted_bytes: 9000,
            ..TransportInfo::default()
        };
        let local = TransportInfo { transport: "local", connected: 3, ..TransportInfo::default() };
        let text = Transports { transports: vec![tcp, local] }.text();
        let cells: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(cells[1], ["tcp", "12 000", "1 048 576", "0", "1 048 576", "0", "0"]);
        assert_eq!(cells[2], ["local", "0", "0", "0", "-", "0", "0"]);
        assert_eq!(cells[5], ["tcp", "0", "0", "0", "0", "1.5 MB", "0 B", "9.0 kB", "7", "0"]);
        assert_eq!(cells[6], ["local", "3", "0", "0", "0", "0 B", "0 B", "-", "-", "-"]);
    }
}
