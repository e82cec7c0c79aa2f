//! `show worker`, `show main`, `show counters`.

use std::collections::BTreeMap;

use hoststack::inspect::{IpInfo, MainInfo, PaceInfo, WorkerInfo};
use serde::Serialize;

use super::{mean, percent};
use crate::table::{Column, Table, bytes, grouped, pairs, span_us};

/// `show worker`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Workers {
    /// One per worker, in order.
    pub(crate) workers: Vec<WorkerInfo>,
}

impl Workers {
    /// A table of what each worker did and holds, then where the time of its steps goes.
    #[allow(clippy::type_complexity, reason = "lists of a name and how to get its figure")]
    pub(crate) fn text(&self) -> String {
        // The headings are static: a worker's number stands in the first row instead.
        let mut columns = vec![Column::Left("")];
        columns.extend(self.workers.iter().map(|_| Column::Right("worker")));
        let mut table = Table::new(&columns);
        let mut row = |name: &str, cell: &dyn Fn(&WorkerInfo) -> String| {
            table.row([name.to_owned()].into_iter().chain(self.workers.iter().map(cell)));
        };
        row("number", &|worker| worker.worker.to_string());
        row("load, last seconds", &|worker| percent(worker.pace.load_recent_permille));
        row("load, since start", &|worker| percent(worker.pace.load_permille));
        row("busy for", &|worker| span_us(worker.pace.busy_us));
        let figures: [(&str, fn(&WorkerInfo) -> u64); 4] = [
            ("steps", |worker| worker.steps),
            ("busy steps", |worker| worker.busy_steps),
            ("sleeps", |worker| worker.sleeps),
            ("packets received", |worker| worker.rx_packets),
        ];
        figures.iter().for_each(|(name, figure)| row(name, &|worker| grouped(figure(worker))));
        row("packets at a time", &|worker| mean(worker.rx_packets, worker.rx_vectors));
        row("packets sent", &|worker| grouped(worker.tx_packets));
        row("packets at a time", &|worker| mean(worker.tx_packets, worker.tx_vectors));
        row("bytes in", &|worker| bytes(worker.bytes_in));
        row("bytes out", &|worker| bytes(worker.bytes_out));
        let figures: [(&str, fn(&WorkerInfo) -> u64); 17] = [
            ("packets handed over", |worker| worker.handed_over),
            ("accepts", |worker| worker.accepts),
            ("connects", |worker| worker.connects),
            ("connects failed", |worker| worker.connect_failures),
            ("sessions ended", |worker| worker.ends),
            ("callbacks", |worker| worker.callbacks),
            ("sessions", |worker| worker.sessions as u64),
            ("establishing", |worker| worker.establishing as u64),
            ("fifo chunks", |worker| worker.fifo_chunks as u64),
            ("connections", |worker| worker.connections as u64),
            ("half-open entries", |worker| worker.half_open_entries as u64),
            ("SYN-RECEIVED", |worker| worker.syn_received as u64),
            ("TIME-WAIT", |worker| worker.time_wait as u64),
            ("timers", |worker| worker.timers as u64),
            ("flows", |worker| worker.flows as u64),
            ("parked segments", |worker| worker.parked as u64),
            ("listeners", |worker| worker.listeners as u64),
        ];
        figures.iter().for_each(|(name, figure)| row(name, &|worker| grouped(figure(worker))));
        format!("{table}{}", stages(&self.workers.iter().map(|worker| &worker.pace).collect::<Vec<_>>()))
    }
}

/// `show main`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct MainThread {
    /// Main's figures.
    pub(crate) main: MainInfo,
}

impl MainThread {
    /// What main did and holds, then where the time of its steps goes.
    pub(crate) fn text(&self) -> String {
        let main = &self.main;
        let figures = pairs([
            ("load, last seconds", percent(main.pace.load_recent_permille)),
            ("load, since start", percent(main.pace.load_permille)),
            ("busy for", span_us(main.pace.busy_us)),
            ("steps", grouped(main.steps)),
            ("busy steps", grouped(main.busy_steps)),
            ("sleeps", grouped(main.sleeps)),
            ("half-open sessions", grouped(main.half_open_sessions as u64)),
            ("half-open connections", grouped(main.half_open_connections as u64)),
            ("4-tuples", grouped(main.tuples as u64)),
            ("listeners", grouped(main.listeners as u64)),
            ("messages waiting", grouped(main.messages)),
            ("tickets dropped", grouped(main.tickets_dropped)),
            ("connects orphaned", grouped(main.connects_orphaned)),
        ]);
        format!("{figures}{}", stages(&[&main.pace]))
    }
}

/// Where the time of steps goes, a column for each thread; nothing if none was measured.
fn stages(paces: &[&PaceInfo]) -> String {
    let Some(names) = paces.iter().map(|pace| &pace.stages).find(|stages| !stages.is_empty()) else {
        return String::new();
    };
    let mut columns = vec![Column::Left("stage")];
    paces.iter().for_each(|_| columns.extend([Column::Right("share"), Column::Right("ns/step")]));
    let mut table = Table::new(&columns);
    for name in names.iter().map(|stage| stage.stage) {
        let cells =
            paces.iter().flat_map(|pace| match pace.stages.iter().find(|stage| stage.stage == name) {
                Some(stage) => {
                    let per_step = stage.total_ns.checked_div(pace.sampled_steps).unwrap_or(0);
                    [percent(stage.share_permille), grouped(per_step)]
                }
                None => ["-".to_owned(), "-".to_owned()],
            });
        table.row([name.to_owned()].into_iter().chain(cells));
    }
    let sampled: Vec<String> = paces.iter().map(|pace| grouped(pace.sampled_steps)).collect();
    format!("time of busy steps, one in 64 measured ({}):\n{table}", sampled.join(", "))
}

/// `show counters`: what TCP and IP count, by name.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Counters {
    /// Each counter of TCP's that is not zero on some worker, by name.
    pub(crate) counters: Vec<CounterInfo>,
    /// The same of the workers' IP paths.
    pub(crate) ip: Vec<CounterInfo>,
}

/// A counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CounterInfo {
    /// Its name.
    pub(crate) name: String,
    /// All workers'.
    pub(crate) total: u64,
    /// Each worker's, in order.
    pub(crate) workers: Vec<u64>,
}

impl Counters {
    /// The counters of these workers, and of their IP paths.
    pub(crate) fn of(workers: &[WorkerInfo], ip: &[IpInfo]) -> Counters {
        let tcp: Vec<Vec<(&str, u64)>> = workers
            .iter()
            .map(|worker| worker.tcp.iter().map(|(name, count)| (name.as_str(), *count)).collect())
            .collect();
        let ip: Vec<Vec<(&str, u64)>> = ip.iter().map(|info| info.counters.clone()).collect();
        Counters { counters: added_up(&tcp), ip: added_up(&ip) }
    }

    /// A row for each counter.
    pub(crate) fn text(&self) -> String {
        match (&self.counters[..], &self.ip[..]) {
            ([], []) => "nothing was counted\n".to_owned(),
            (tcp, []) => counter_table("tcp counter", tcp),
            ([], ip) => counter_table("ip counter", ip),
            (tcp, ip) => {
                format!("{}\n{}", counter_table("tcp counter", tcp), counter_table("ip counter", ip))
            }
        }
    }
}

/// Of the workers' counters each one, by name.
fn added_up(of_workers: &[Vec<(&str, u64)>]) -> Vec<CounterInfo> {
    let mut counters: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (worker, own) in of_workers.iter().enumerate() {
        for (name, count) in own {
            counters.entry(name).or_insert_with(|| vec![0; of_workers.len()])[worker] += count;
        }
    }
    counters
        .into_iter()
        .map(|(name, workers)| CounterInfo { name: name.to_owned(), total: workers.iter().sum(), workers })
        .collect()
}

/// A row for each counter, and one above with the workers' numbers.
fn counter_table(heading: &'static str, counters: &[CounterInfo]) -> String {
    let workers = counters.first().map_or(0, |counter| counter.workers.len());
    let mut columns = vec![Column::Left(heading), Column::Right("total")];
    columns.extend((0..workers).map(|_| Column::Right("worker")));
    let mut table = Table::new(&columns);
    let number = (0..workers).map(|worker| worker.to_string());
    table.row([String::new(), String::new()].into_iter().chain(number));
    for counter in counters {
        let cells = counter.workers.iter().map(|count| grouped(*count));
        table.row([counter.name.clone(), grouped(counter.total)].into_iter().chain(cells));
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack::inspect::StageInfo;

    fn pace() -> PaceInfo {
        let stage = |stage, total_ns, share_permille| StageInfo { stage, total_ns, share_permille };
        PaceInfo {
            busy_us: 2_500_000,
            load_permille: 125,
            load_recent_permille: 998,
            sampled_steps: 10,
            stages: vec![stage("receive", 30_000, 750), stage("flush", 10_000, 250)],
        }
    }

    fn worker(number: u8) -> WorkerInfo {
        WorkerInfo {
            worker: number,
            steps: 1_234_567,
            rx_packets: 100,
            rx_vectors: 40,
            bytes_in: 1_500_000,
            pace: pace(),
            tcp: vec![("segments_in".to_owned(), 10 + u64::from(number))],
            ..WorkerInfo::default()
        }
    }

    fn line<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
        let line =
            text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"));
        line[start.len()..].split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
    }

    #[test]
    fn workers_stand_beside_each_other_with_their_load_and_stages() {
        let shown =
            Workers { workers: vec![worker(0), WorkerInfo { pace: PaceInfo::default(), ..worker(1) }] };
        let text = shown.text();
        assert_eq!(line(&text, "number"), ["0", "1"]);
        assert_eq!(line(&text, "load, last seconds"), ["99.8%", "0.0%"]);
        assert_eq!(line(&text, "busy for"), ["2.50 s", "0 us"]);
        assert_eq!(line(&text, "steps"), ["1 234 567", "1 234 567"]);
        assert_eq!(line(&text, "packets at a time"), ["2.5", "2.5"]);
        assert_eq!(line(&text, "bytes in"), ["1.5 MB", "1.5 MB"]);
        assert_eq!(line(&text, "receive"), ["75.0%", "3 000", "-", "-"]);
        assert!(text.contains("one in 64 measured (10, 0)"));
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(json["workers"][0]["pace"]["stages"][0]["stage"], "receive");
        assert_eq!(json["workers"][1]["rx_vectors"], 40);
    }

    #[test]
    fn main_has_its_load_and_no_stages_when_none_was_measured() {
        let main = MainInfo { steps: 7, pace: pace(), ..MainInfo::default() };
        let text = MainThread { main: main.clone() }.text();
        assert_eq!(line(&text, "load, since start"), ["12.5%"]);
        assert_eq!(line(&text, "flush"), ["25.0%", "1 000"]);
        let text = MainThread { main: MainInfo { pace: PaceInfo::default(), ..main } }.text();
        assert_eq!(line(&text, "steps"), ["7"]);
        assert!(!text.contains("stage"));
    }

    #[test]
    fn counters_are_added_up() {
        let mut other = worker(1);
        other.tcp.push(("rtos".to_owned(), 1000));
        let shown = Counters::of(&[worker(0), other], &[]);
        let rtos = CounterInfo { name: "rtos".to_owned(), total: 1000, workers: vec![0, 1000] };
        assert_eq!(shown.counters[0], rtos);
        let text = shown.text();
        assert_eq!(line(&text, "segments_in"), ["21", "10", "11"]);
        assert_eq!(line(&text, "rtos"), ["1 000", "0", "1 000"]);
        assert_eq!(Counters::of(&[], &[]).text(), "nothing was counted\n");
        let ip = |worker, count| IpInfo { worker, counters: vec![("echo_replies", count)] };
        let text = Counters::of(&[worker(0), worker(1)], &[ip(0, 2), ip(1, 3)]).text();
        assert_eq!(line(&text, "echo_replies"), ["5", "2", "3"]);
        assert_eq!(line(&text, "ip counter"), ["total", "worker", "worker"]);
    }
}
