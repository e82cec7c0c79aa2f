//! The first page: what a person looks at first, in one screen, and the tables beneath it.

use hoststack::Answer;
use hoststack::inspect::{HistogramInfo, SessionInfo, WorkerInfo};

use super::plot;
use super::samples::{Sample, Samples};
use super::view::{Cell, Column, Line, Plot, Table, Tile, View, number, text};
use crate::table::{bytes, grouped, span_us};

/// Sessions that are listed on it.
pub(super) const FIRST_SESSIONS: usize = 20;

/// The view of `answer`; `before` is an answer of some seconds ago, for the workers' rates.
pub(super) fn view(answer: &Answer, before: Option<&(f64, Answer)>, at: f64, samples: &Samples) -> View {
    let tables = vec![
        threads(answer, before, at),
        apps(answer),
        drops(answer),
        latencies(answer),
        session_table("sessions", "Slowest sessions", &answer.sessions),
        states(answer),
        tcp(answer),
    ];
    View { title: "Overview".to_owned(), tiles: tiles(answer, samples), plots: plots(samples), tables }
}

fn last(points: &[Option<f64>]) -> Option<f64> {
    points.last().copied().flatten()
}

/// A rate, for people; `-` while there is none.
fn rate(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        // Cannot be negative or too large because: it is a difference of counters over some second.
        Some(value) if value >= 10.0 || value.fract() == 0.0 => grouped(value.round() as u64),
        Some(value) => format!("{value:.1}"),
    }
}

/// The histogram of that name, of all workers; none while nothing was counted.
fn histogram<'a>(answer: &'a Answer, name: &str) -> Option<&'a HistogramInfo> {
    answer.histograms.iter().find(|one| one.name == name && one.worker.is_none() && one.count > 0)
}

fn tiles(answer: &Answer, samples: &Samples) -> Vec<Tile> {
    let total =
        |value: fn(&WorkerInfo) -> usize| grouped(answer.workers.iter().map(value).sum::<usize>() as u64);
    let per_second = |value: fn(&Sample) -> u64| rate(last(&samples.rate(value)));
    let throughput = |value: fn(&Sample) -> u64| match last(&samples.rate(value)) {
        Some(value) => format!("{}/s", bytes(value as u64)),
        None => "-".to_owned(),
    };
    let strikes = |value: fn(&Sample) -> u64| last(&samples.rate(value)).is_some_and(|rate| rate > 0.0);
    let latency = histogram(answer, "connect-latency")
        .map_or("-".to_owned(), |one| format!("{} / {}", span_us(one.p50), span_us(one.p99)));
    // Whole seconds.
    let up_us = answer.since.now_us / 1_000_000 * 1_000_000;
    let calm = |label, value| Tile { label, value, is_alarming: false };
    let alarm = |label, value: fn(&Sample) -> u64| Tile {
        label,
        value: per_second(value),
        is_alarming: strikes(value),
    };
    vec![
        calm("Sessions", total(|worker| worker.sessions)),
        calm("Half-open", grouped(answer.main.half_open_sessions as u64)),
        calm("Connects/s", per_second(|sample| sample.connected)),
        alarm("Failed connects/s", |sample| sample.failed),
        calm("Accepts/s", per_second(|sample| sample.accepted)),
        calm("Ends/s", per_second(|sample| sample.ended)),
        calm("In", throughput(|sample| sample.rx_bytes)),
        calm("Out", throughput(|sample| sample.tx_bytes)),
        calm("Connect p50 / p99", latency),
        calm("Retransmits/s", per_second(|sample| sample.retransmitted)),
        alarm("Drops/s", |sample| sample.dropped),
        calm("Up", span_us(up_us).replace(".00 s", " s")),
    ]
}

fn plots(samples: &Samples) -> Vec<Plot> {
    let plot = |title, write: fn(f64) -> String, lines: Vec<(&'static str, Vec<Option<f64>>)>| {
        let top = plot::top(lines.iter().flat_map(|(_, points)| points).flatten().copied());
        let line = |(name, points): (_, Vec<Option<f64>>)| Line {
            name,
            now: last(&points).map_or("-".to_owned(), write),
            path: plot::path(&points, top),
        };
        Plot { title, top: write(top), lines: lines.into_iter().map(line).collect() }
    };
    let plain: fn(f64) -> String = |value| rate(Some(value));
    let volume: fn(f64) -> String = |value| format!("{}/s", bytes(value as u64));
    let share: fn(f64) -> String = |permille| format!("{:.0} %", permille / 10.0);
    vec![
        plot(
            "Sessions per second",
            plain,
            vec![
                ("connected", samples.rate(|s| s.connected)),
                ("accepted", samples.rate(|s| s.accepted)),
                ("failed", samples.rate(|s| s.failed)),
            ],
        ),
        plot(
            "Sessions",
            plain,
            vec![("sessions", samples.gauge(|s| s.sessions)), ("half-open", samples.gauge(|s| s.half_opens))],
        ),
        plot(
            "Load",
            share,
            vec![
                ("busiest worker", samples.gauge(|s| s.busiest_permille)),
                ("main", samples.gauge(|s| s.main_permille)),
            ],
        ),
        plot(
            "Throughput",
            volume,
            vec![("in", samples.rate(|s| s.rx_bytes)), ("out", samples.rate(|s| s.tx_bytes))],
        ),
        plot(
            "Packets per second",
            plain,
            vec![("in", samples.rate(|s| s.rx_packets)), ("out", samples.rate(|s| s.tx_packets))],
        ),
        plot(
            "Trouble per second",
            plain,
            vec![
                ("retransmitted", samples.rate(|s| s.retransmitted)),
                ("dropped", samples.rate(|s| s.dropped)),
            ],
        ),
    ]
}

fn table(id: &str, title: &str, columns: &[Column], empty: &'static str) -> Table {
    Table { id: id.to_owned(), title: title.to_owned(), columns: columns.to_vec(), rows: Vec::new(), empty }
}

fn threads(answer: &Answer, before: Option<&(f64, Answer)>, at: f64) -> Table {
    let columns = [
        text("thread"),
        number("load"),
        number("steps/s"),
        number("sleeps/s"),
        number("packets in/s"),
        number("packets out/s"),
        number("vector"),
        number("callbacks/s"),
        number("sessions"),
        number("establishing"),
        number("TIME-WAIT"),
        number("timers"),
        number("fifo chunks"),
        number("drops"),
    ];
    let mut table = table("workers", "Workers and main", &columns, "no workers");
    let seconds = before.map_or(0.0, |(then, _)| at - then);
    // What a counter rose by per second; nothing if there is nothing to compare with, or it was cleared.
    let per_second = |now: u64, was: Option<u64>| {
        let rise = was.and_then(|was| now.checked_sub(was)).filter(|_| seconds > 0.0);
        let rise = rise.map(|rise| rise as f64 / seconds);
        Cell::measured(rise.unwrap_or(0.0), rate(rise))
    };
    let load = |permille: u32| Cell::share(f64::from(permille) / 1000.0);
    for now in &answer.workers {
        let was = before.and_then(|(_, before)| before.workers.iter().find(|was| was.worker == now.worker));
        let rise = |value: fn(&WorkerInfo) -> u64| per_second(value(now), was.map(value));
        let between = |value: fn(&WorkerInfo) -> u64| {
            value(now).checked_sub(was.map_or(0, value)).unwrap_or_else(|| value(now))
        };
        let vectors = between(|worker| worker.rx_vectors);
        let vector = between(|worker| worker.rx_packets) as f64 / vectors.max(1) as f64;
        let count = |count: usize| Cell::number(count as u64);
        table.rows.push(vec![
            Cell::measured(f64::from(now.worker), format!("worker {}", now.worker)),
            load(now.pace.load_recent_permille),
            rise(|worker| worker.steps),
            rise(|worker| worker.sleeps),
            rise(|worker| worker.rx_packets),
            rise(|worker| worker.tx_packets),
            if vectors == 0 {
                Cell::measured(0.0, "-")
            } else {
                Cell::measured(vector, format!("{vector:.1}"))
            },
            rise(|worker| worker.callbacks),
            count(now.sessions),
            count(now.establishing),
            count(now.time_wait),
            count(now.timers),
            count(now.fifo_chunks),
            Cell::number(now.drops.iter().map(|drop| drop.count).sum()),
        ]);
    }
    let (main, was) = (&answer.main, before.map(|(_, before)| &before.main));
    let mut row = vec![
        // After the workers, however it is sorted by.
        Cell::measured(256.0, "main"),
        load(main.pace.load_recent_permille),
        per_second(main.steps, was.map(|was| was.steps)),
        per_second(main.sleeps, was.map(|was| was.sleeps)),
    ];
    row.resize_with(columns.len(), || Cell::measured(0.0, "-"));
    table.rows.push(row);
    table
}

/// How long things take, and how much comes and goes at a time.
fn latencies(answer: &Answer) -> Table {
    let columns = [
        text("distribution"),
        number("count"),
        number("mean"),
        number("p50"),
        number("p90"),
        number("p99"),
        number("p99.9"),
        number("max"),
    ];
    let mut table = table("latencies", "Latencies and vectors", &columns, "nothing was measured yet");
    for one in answer.histograms.iter().filter(|one| one.worker.is_none() && one.count > 0) {
        let in_unit = |value: u64| {
            let text = if one.unit == "us" { span_us(value) } else { grouped(value) };
            Cell::measured(value as f64, text)
        };
        let values = [one.mean(), one.p50, one.p90, one.p99, one.p999, one.max].map(in_unit);
        let head = [Cell::text(one.name.replace('-', " ")), Cell::number(one.count)];
        table.rows.push(head.into_iter().chain(values).collect());
    }
    table
}

/// Sessions by state, under their stable names.
pub(super) fn session_states(answer: &Answer) -> [(&'static str, usize); 6] {
    let summary = answer.session_summary;
    [
        ("unannounced", summary.unannounced),
        ("open", summary.open),
        ("peer-closed", summary.peer_closed),
        ("half-closed", summary.half_closed),
        ("closing", summary.closing),
        ("ended", summary.ended),
    ]
}

fn states(answer: &Answer) -> Table {
    let mut table =
        table("states", "Sessions by state", &[text("state"), number("sessions"), number("share")], "");
    let total = answer.session_summary.total.max(1) as f64;
    for (state, count) in session_states(answer) {
        table.rows.push(vec![
            Cell::text(state),
            Cell::number(count as u64),
            Cell::share(count as f64 / total),
        ]);
    }
    table
}

fn apps(answer: &Answer) -> Table {
    let columns = [
        text("app worker"),
        text("state"),
        number("sessions"),
        number("half-open"),
        number("connects"),
        number("up"),
        number("refused"),
        number("timed out"),
        number("unreachable"),
        number("cancelled"),
        number("detached"),
        number("failed"),
        text("listens on"),
    ];
    let mut table =
        table("apps", "Applications: how their connects ended", &columns, "no application is attached");
    for app in &answer.apps {
        for worker in &app.app_workers {
            let outcomes = worker.outcomes;
            let counts = [
                outcomes.requested,
                outcomes.established,
                outcomes.refused,
                outcomes.timed_out,
                outcomes.unreachable,
                outcomes.cancelled,
                outcomes.detached,
                outcomes.failed,
            ];
            let mut row = vec![
                Cell::text(format!("{}/{}", app.name, worker.unit)),
                Cell::text(&*worker.state),
                Cell::number(worker.sessions.iter().sum::<usize>() as u64),
                Cell::number(worker.half_opens as u64),
            ];
            row.extend(counts.map(Cell::number));
            row.push(Cell::text(worker.listeners.join(", ")));
            table.rows.push(row);
        }
    }
    table
}

fn drops(answer: &Answer) -> Table {
    let columns = [text("reason"), number("count"), number("worker"), text("meaning")];
    let mut table = table("drops", "Drops", &columns, "nothing was dropped");
    for worker in &answer.workers {
        for drop in &worker.drops {
            table.rows.push(vec![
                Cell::text(&*drop.reason),
                Cell::number(drop.count),
                Cell::number(u64::from(worker.worker)),
                Cell::text(&*drop.help),
            ]);
        }
    }
    table
}

/// What a session's row says of its state: of one that cannot go on by itself why, of one that is not announced what it waits
/// for.
fn state(session: &SessionInfo) -> Cell {
    let text = match (session.fault, session.stage) {
        (Some(fault), _) => format!("! {fault}, {}", session.state()),
        (None, Some(stage)) => format!("{} ({stage})", session.state()),
        (None, None) => session.state(),
    };
    Cell::text(text).alarming(session.fault.is_some())
}

/// A list of sessions, each leading to its page; those that cannot go on by themselves are marked.
pub(super) fn session_table(id: &str, title: &str, sessions: &[SessionInfo]) -> Table {
    let columns = [
        text("session"),
        text("app worker"),
        text("transport"),
        text("local"),
        text("remote"),
        text("declared"),
        text("state"),
        number("to read"),
        number("to send"),
        number("round trip"),
        number("age"),
    ];
    let mut table = table(id, title, &columns, "no sessions");
    for session in sessions {
        table.rows.push(vec![
            Cell::measured(session.session.as_u64() as f64, session.session.to_string())
                .leading_to(format!("/session/{}", session.session))
                .alarming(session.fault.is_some()),
            Cell::text(&*session.app_worker),
            Cell::text(session.flow.protocol.name()),
            Cell::text(session.local()),
            Cell::text(session.remote()),
            Cell::text(if session.declared.is_empty() { "-" } else { &session.declared }),
            state(session),
            Cell::measured(session.rx_bytes as f64, bytes(session.rx_bytes as u64)),
            Cell::measured(session.tx_bytes as f64, bytes(session.tx_bytes as u64)),
            session.srtt_us.map_or_else(
                || Cell::measured(-1.0, "-"),
                |srtt_us| Cell::measured(f64::from(srtt_us), span_us(u64::from(srtt_us))),
            ),
            Cell::measured(session.age_us as f64, span_us(session.age_us)),
        ]);
    }
    table
}

fn tcp(answer: &Answer) -> Table {
    let mut table =
        table("tcp", "TCP counters", &[text("counter"), number("all workers")], "TCP did nothing yet");
    let mut totals: Vec<(&str, u64)> = Vec::new();
    for (name, count) in answer.workers.iter().flat_map(|worker| &worker.tcp) {
        match totals.iter_mut().find(|(known, _)| known == name) {
            Some((_, total)) => *total += count,
            None => totals.push((name, *count)),
        }
    }
    table.rows =
        totals.into_iter().map(|(name, count)| vec![Cell::text(name), Cell::number(count)]).collect();
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack::inspect::{DropInfo, PaceInfo};

    fn worker(steps: u64) -> WorkerInfo {
        let drop = DropInfo { reason: "bad-checksum".to_owned(), count: 3, help: "A sum.".to_owned() };
        WorkerInfo {
            worker: 1,
            steps,
            pace: PaceInfo { load_recent_permille: 500, ..PaceInfo::default() },
            rx_packets: 30 * steps,
            rx_vectors: 10 * steps,
            bytes_in: steps,
            connect_failures: steps,
            sessions: 4,
            tcp: vec![("bytes_in".to_owned(), steps)],
            drops: vec![drop],
            ..WorkerInfo::default()
        }
    }

    fn find<'a>(view: &'a View, id: &str) -> &'a Table {
        view.tables.iter().find(|table| table.id == id).unwrap()
    }

    #[test]
    fn an_answer_has_its_rows_and_rates_are_those_between_two_answers() {
        let before = Answer { workers: vec![worker(100)], ..Answer::default() };
        let session = crate::ctl::show::sessions::a_session(2);
        let mut stuck = session.clone();
        stuck.fault = Some("no timer");
        let histogram = |worker| HistogramInfo {
            name: "connect-latency",
            unit: "us",
            worker,
            count: 3,
            sum: 600,
            p50: 150,
            p99: 400,
            ..HistogramInfo::default()
        };
        let histograms = vec![histogram(None), histogram(Some(1))];
        let sessions = vec![session, stuck];
        let mut answer = Answer { workers: vec![worker(500)], sessions, histograms, ..Answer::default() };
        answer.since.now_us = 12_345_678;
        let mut samples = Samples::default();
        samples.push(Some(Sample::of(&before, 10.0)));
        samples.push(Some(Sample::of(&answer, 12.0)));
        let view = view(&answer, Some(&(10.0, before)), 12.0, &samples);
        let texts = |table: &str, row: usize| -> Vec<String> {
            find(&view, table).rows[row].iter().map(|cell| cell.text.clone()).collect()
        };
        assert_eq!(texts("workers", 0)[..3], ["worker 1", "\u{2007}50 %", "200"]);
        assert_eq!(texts("workers", 0)[6], "3.0", "packets at a time");
        assert_eq!(texts("workers", 1)[..4], ["main", "\u{2007}\u{2007}0 %", "0", "0"]);
        assert_eq!(texts("latencies", 0)[..4], ["connect latency", "3", "200 us", "150 us"]);
        assert_eq!(find(&view, "latencies").rows.len(), 1, "of all workers together");
        let states = find(&view, "sessions").rows.iter().map(|row| (row[6].is_alarming, &*row[6].text));
        assert!(states.eq([(false, "open/open"), (true, "! no timer, open/open")]));
        assert_eq!(find(&view, "drops").rows[0][3].text, "A sum.");
        assert_eq!(find(&view, "sessions").rows[0][0].href.as_deref(), Some("/session/0:2.1"));
        let tile = |label| &view.tiles.iter().find(|tile| tile.label == label).unwrap().value;
        assert_eq!([tile("Sessions"), tile("In"), tile("Up")], ["4", "200 B/s", "12 s"]);
        assert_eq!([tile("Connect p50 / p99"), tile("Accepts/s")], ["150 us / 400 us", "0"]);
        let alarms = view.tiles.iter().filter(|tile| tile.is_alarming).map(|tile| tile.label);
        assert!(alarms.eq(["Failed connects/s"]), "drops are those of before");
        for table in &view.tables {
            assert!(table.rows.iter().all(|row| row.len() == table.columns.len()), "{}", table.id);
        }
        let ids: std::collections::BTreeSet<&str> =
            view.tables.iter().map(|table| table.id.as_str()).collect();
        assert_eq!(ids.len(), view.tables.len());
    }

    #[test]
    fn without_anything_to_compare_with_there_are_no_rates() {
        let answer = Answer { workers: vec![worker(500)], ..Answer::default() };
        let view = view(&answer, None, 0.0, &Samples::default());
        assert_eq!(find(&view, "workers").rows[0][2].text, "-");
        assert!(
            view.plots
                .iter()
                .all(|plot| plot.lines.iter().all(|line| line.now == "-" && line.path.is_empty()))
        );
    }
}
