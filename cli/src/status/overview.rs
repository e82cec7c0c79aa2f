//! The first page: what a person looks at first, in one screen, and the tables beneath it.

use hoststack::Answer;
use hoststack::inspect::{SessionInfo, WorkerInfo};

use super::plot;
use super::samples::{Sample, Samples};
use super::view::{Cell, Column, Line, Plot, Table, Tile, View, number, text};
use crate::table::{bytes, grouped, span_us};

/// Sessions that are listed on it.
pub(super) const FIRST_SESSIONS: usize = 20;

/// The view of `answer`; `before` is an answer of some seconds ago, for the workers' rates.
pub(super) fn view(answer: &Answer, before: Option<&(f64, Answer)>, at: f64, samples: &Samples) -> View {
    let tables = vec![
        workers(answer, before, at),
        apps(answer),
        session_table("sessions", "First sessions", &answer.sessions),
        drops(answer),
        states(answer),
        tcp(answer),
    ];
    View { title: "Overview".to_owned(), tiles: tiles(answer, at, samples), plots: plots(samples), tables }
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

fn tiles(answer: &Answer, at: f64, samples: &Samples) -> Vec<Tile> {
    let total =
        |value: fn(&WorkerInfo) -> usize| grouped(answer.workers.iter().map(value).sum::<usize>() as u64);
    let per_second = |value: fn(&Sample) -> u64| rate(last(&samples.rate(value)));
    let throughput = |value: fn(&Sample) -> u64| match last(&samples.rate(value)) {
        Some(value) => format!("{}/s", bytes(value as u64)),
        None => "-".to_owned(),
    };
    [
        ("Sessions", total(|worker| worker.sessions)),
        ("Half-open", grouped(answer.main.half_open_sessions as u64)),
        ("Connects/s", per_second(|sample| sample.established)),
        ("TCP accepts/s", per_second(|sample| sample.accepted)),
        ("TCP in", throughput(|sample| sample.rx_bytes)),
        ("TCP out", throughput(|sample| sample.tx_bytes)),
        ("Retransmits/s", per_second(|sample| sample.retransmitted)),
        ("Drops/s", per_second(|sample| sample.dropped)),
        ("TIME-WAIT", grouped(answer.time_wait as u64)),
        ("Watched for", span_us((at * 1e6) as u64 / 1_000_000 * 1_000_000)),
    ]
    .map(|(label, value)| Tile { label, value })
    .into()
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
    vec![
        plot(
            "Connects per second",
            plain,
            vec![
                ("up", samples.rate(|s| s.established)),
                ("failed", samples.rate(|s| s.failed)),
                ("TCP accepted", samples.rate(|s| s.accepted)),
            ],
        ),
        plot(
            "Sessions",
            plain,
            vec![("sessions", samples.gauge(|s| s.sessions)), ("half-open", samples.gauge(|s| s.half_opens))],
        ),
        plot("Callbacks per second", plain, vec![("callbacks", samples.rate(|s| s.callbacks))]),
        plot(
            "TCP throughput",
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

fn workers(answer: &Answer, before: Option<&(f64, Answer)>, at: f64) -> Table {
    let columns = [
        text("worker"),
        number("busy steps"),
        number("steps/s"),
        number("sleeps/s"),
        number("packets in/s"),
        number("packets out/s"),
        number("callbacks/s"),
        number("sessions"),
        number("establishing"),
        number("connections"),
        number("TIME-WAIT"),
        number("timers"),
        number("fifo chunks"),
        number("drops"),
    ];
    let mut table = table("workers", "Workers", &columns, "no workers");
    for now in &answer.workers {
        let was = before.and_then(|(then, answer)| {
            let was = answer.workers.iter().find(|was| was.worker == now.worker)?;
            (at > *then).then_some((at - then, was))
        });
        let per_second = |value: fn(&WorkerInfo) -> u64| {
            let rate_now = was.map(|(seconds, was)| value(now).saturating_sub(value(was)) as f64 / seconds);
            Cell::measured(rate_now.unwrap_or(0.0), rate(rate_now))
        };
        let steps = was.map_or(now.steps, |(_, was)| now.steps - was.steps).max(1);
        let busy = was.map_or(now.busy_steps, |(_, was)| now.busy_steps - was.busy_steps);
        let count = |count: usize| Cell::number(count as u64);
        table.rows.push(vec![
            Cell::measured(f64::from(now.worker), now.worker.to_string()),
            Cell::share(busy as f64 / steps as f64),
            per_second(|worker| worker.steps),
            per_second(|worker| worker.sleeps),
            per_second(|worker| worker.rx_packets),
            per_second(|worker| worker.tx_packets),
            per_second(|worker| worker.callbacks),
            count(now.sessions),
            count(now.establishing),
            count(now.connections),
            count(now.time_wait),
            count(now.timers),
            count(now.fifo_chunks),
            Cell::number(now.drops.iter().map(|drop| drop.count).sum()),
        ]);
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

/// A list of sessions, each leading to its page.
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
        number("age"),
    ];
    let mut table = table(id, title, &columns, "no sessions");
    for session in sessions {
        table.rows.push(vec![
            Cell::measured(session.handle as f64, &*session.session)
                .leading_to(format!("/session/{}", session.session)),
            Cell::text(&*session.app_worker),
            Cell::text(session.protocol),
            Cell::text(&*session.local),
            Cell::text(&*session.remote),
            Cell::text(if session.declared.is_empty() { "-" } else { &session.declared }),
            Cell::text(&*session.state),
            Cell::measured(session.rx_bytes as f64, bytes(session.rx_bytes as u64)),
            Cell::measured(session.tx_bytes as f64, bytes(session.tx_bytes as u64)),
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
    use hoststack::inspect::DropInfo;

    fn worker(steps: u64) -> WorkerInfo {
        let drop = DropInfo { reason: "bad-checksum".to_owned(), count: 3, help: "A sum.".to_owned() };
        WorkerInfo {
            worker: 1,
            steps,
            busy_steps: steps / 2,
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
        let mut session = SessionInfo::default();
        session.session = "1:2.3".to_owned();
        let answer = Answer { workers: vec![worker(500)], sessions: vec![session], ..Answer::default() };
        let mut samples = Samples::default();
        samples.push(Some(Sample::of(&before, 10.0)));
        samples.push(Some(Sample::of(&answer, 12.0)));
        let view = view(&answer, Some(&(10.0, before)), 12.0, &samples);
        let workers = &find(&view, "workers").rows[0];
        assert_eq!([&workers[0].text, &workers[1].text, &workers[2].text], ["1", "\u{2007}50 %", "200"]);
        assert_eq!(find(&view, "drops").rows[0][3].text, "A sum.");
        assert_eq!(find(&view, "sessions").rows[0][0].href.as_deref(), Some("/session/1:2.3"));
        let tile = |label| &view.tiles.iter().find(|tile| tile.label == label).unwrap().value;
        assert_eq!([tile("Sessions"), tile("TCP in"), tile("Watched for")], ["4", "200 B/s", "12.00 s"]);
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
