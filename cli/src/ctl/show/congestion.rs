//! `show congestion`: how TCP's connections stand, by algorithm.

use hoststack::inspect::CongestionInfo;
use serde::Serialize;

use crate::table::{Column, Table, bytes, grouped, span_us};

/// `show congestion`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Congestion {
    /// By algorithm.
    pub(crate) congestion: Vec<CongestionInfo>,
}

impl Congestion {
    /// A row for each algorithm that is in use.
    pub(crate) fn text(&self) -> String {
        if self.congestion.is_empty() {
            return "no TCP connection\n".to_owned();
        }
        let mut table = Table::new(&[
            Column::Left("algorithm"),
            Column::Right("connections"),
            Column::Right("slow start"),
            Column::Right("avoidance"),
            Column::Right("recovery"),
            Column::Right("loss"),
            Column::Right("paced"),
            Column::Right("mean rate"),
            Column::Right("mean cwnd"),
            Column::Right("max cwnd"),
            Column::Right("in flight"),
            Column::Right("mean srtt"),
            Column::Right("max srtt"),
        ]);
        let dash = |shown: bool, text: String| if shown { text } else { "-".to_owned() };
        for info in &self.congestion {
            table.row([
                info.algorithm.to_owned(),
                grouped(info.connections),
                grouped(info.slow_start),
                grouped(info.avoidance),
                grouped(info.fast_recovery),
                grouped(info.loss_recovery),
                grouped(info.paced),
                dash(info.paced > 0, format!("{}/s", bytes(info.pacing_rate_mean))),
                bytes(info.cwnd_mean),
                bytes(info.cwnd_max),
                bytes(info.flight),
                dash(info.measured > 0, span_us(info.srtt_mean_us)),
                dash(info.measured > 0, span_us(info.srtt_max_us)),
            ]);
        }
        table.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let bbr = CongestionInfo {
            algorithm: "bbr",
            connections: 1200,
            avoidance: 1200,
            paced: 1200,
            pacing_rate_mean: 2_500_000,
            cwnd_mean: 14_480,
            measured: 3,
            srtt_mean_us: 20_000,
            srtt_max_us: 1_500_000,
            ..CongestionInfo::default()
        };
        let cubic = CongestionInfo { algorithm: "cubic", connections: 2, ..CongestionInfo::default() };
        let text = Congestion { congestion: vec![bbr, cubic] }.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("bbr              1 200           0      1 200"), "{text}");
        assert!(lines[1].contains("2.5 MB/s") && lines[1].ends_with("20.0 ms    1.50 s"), "{text}");
        assert!(lines[2].ends_with("-         -"), "{text}");
        assert_eq!(Congestion::default().text(), "no TCP connection\n");
    }
}
