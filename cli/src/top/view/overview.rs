//! The overview: workers, rates over time, sessions by state, how connects ended, latencies, drops.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{BAD, BOLD, DIM, GOOD, HEADING, PLAIN, WARN, list, rule};
use crate::top::lists::{self, BY_COUNT, ErrorRow, ListState};
use crate::top::model::Model;
use crate::top::rates::{RATES, Rates, WorkerRates};
use crate::top::text::{bar, count, cut, optional, plot, rate, span};

/// Lines of the panels below the rates, their headings left out.
const PANEL: usize = 8;
/// Lines of the list of sessions that are worth the room: a rule, headings, some sessions.
const SESSIONS: usize = 5;
/// Lines of that list beyond which plots are rather made higher.
const SESSIONS_MANY: usize = 12;

/// Draws the overview, with the more the larger the screen is.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let height = usize::from(area.height);
    let workers = model.snapshot.as_ref().map_or(0, |snapshot| snapshot.workers.len()).max(1);
    // Headings, main, the rates and the panels.
    let fixed = 1 + 1 + 1 + RATES.len() + 1 + PANEL;
    let worker_lines = workers.min(height.saturating_sub(fixed).max(1));
    let spare = height.saturating_sub(fixed + worker_lines);
    let rate_height = if spare >= RATES.len() + SESSIONS_MANY { 2 } else { 1 };
    let spare = spare - (rate_height - 1) * RATES.len();
    let length = |lines: usize| Constraint::Length(u16::try_from(lines).unwrap_or(u16::MAX));
    let [top, middle, panels, rest] = Layout::vertical([
        length(1 + worker_lines + 1),
        length(1 + RATES.len() * rate_height),
        length(1 + PANEL),
        Constraint::Fill(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(worker_table(model, top, worker_lines)), top);
    frame.render_widget(Paragraph::new(rate_lines(model, middle, rate_height)), middle);
    draw_panels(frame, panels, model);
    if spare >= SESSIONS {
        let mut lines = vec![rule("slowest sessions", rest.width)];
        let slowest = ListState::sorted_by(lists::BY_RTT);
        let rows = model.snapshot.as_ref().map(|snapshot| snapshot.sessions.clone()).unwrap_or_default();
        let rows = slowest.arranged(rows, true);
        if rows.is_empty() {
            lines.push(Line::styled(" none", DIM));
        } else {
            lines.extend(list::table(usize::from(rest.width), spare - 2, &slowest, &rows, None));
        }
        frame.render_widget(Paragraph::new(lines), rest);
    }
}

fn worker_table(model: &Model, area: Rect, lines: usize) -> Vec<Line<'static>> {
    let workers = model.snapshot.as_ref().map(|snapshot| snapshot.workers.as_slice()).unwrap_or_default();
    let last = workers.len().saturating_sub(lines);
    model.last_first_worker.set(Some(last));
    let first = model.first_worker.min(last);
    // What the columns beside it leave, up to a width at which it still is a bar.
    let wide = usize::from(area.width).saturating_sub(66).clamp(10, 40);
    let name = if workers.len() > lines {
        format!("{}-{} of {}", first, first + lines - 1, workers.len())
    } else {
        "worker".to_owned()
    };
    let heading = format!(
        " {name:>6} {:<bar$}{:>9}{:>6}{:>9}{:>9}{:>9}{:>9}",
        "  load",
        "steps/s",
        "vec",
        "rx/s",
        "tx/s",
        "sleeps/s",
        "sessions",
        bar = wide + 7,
    );
    let mut table = vec![Line::styled(cut(&heading, area.width.into()), HEADING)];
    let rates = model.rates.as_ref();
    for worker in workers.iter().skip(first).take(lines) {
        let of_it = |rates: &Rates| rates.workers.iter().find(|rates| rates.number == worker.number).copied();
        let sessions = worker.figures.get("sessions");
        table.push(thread_line(&worker.number.to_string(), rates.and_then(of_it), sessions, wide));
    }
    table.push(thread_line("main", rates.map(|rates| rates.main), None, wide));
    table
}

/// A worker's line, or main's, whose packets and sessions are those of the workers.
fn thread_line(name: &str, rates: Option<WorkerRates>, sessions: Option<f64>, wide: usize) -> Line<'static> {
    let WorkerRates { load, steps, vectors, rx, tx, sleeps, .. } = rates.unwrap_or_default();
    let filled = bar(load.unwrap_or(0.0), wide);
    let rest = "·".repeat(wide.saturating_sub(filled.chars().count()));
    let style = match load.unwrap_or(0.0) {
        0.9.. => BAD,
        0.7.. => WARN,
        _ => GOOD,
    };
    let vectors = vectors.map_or_else(|| "-".to_owned(), |vectors| format!("{vectors:.1}"));
    Line::from(vec![
        Span::raw(format!(" {name:>6}  ")),
        Span::styled(filled, style),
        Span::styled(rest, DIM),
        Span::styled(
            format!("{:>5} ", optional(load, |load| format!("{:.0}%", load * 100.0))),
            style.patch(BOLD),
        ),
        Span::raw(format!(
            "{:>9}{:>6}{:>9}{:>9}{:>9}{:>9}",
            optional(steps, rate),
            vectors,
            optional(rx, rate),
            optional(tx, rate),
            optional(sleeps, rate),
            optional(sessions, count),
        )),
    ])
}

fn rate_lines(model: &Model, area: Rect, height: usize) -> Vec<Line<'static>> {
    const NAMES: usize = 15;
    const FIGURES: usize = 8;
    const LARGEST: usize = 12;
    let wide = usize::from(area.width).saturating_sub(NAMES + FIGURES + LARGEST + 3);
    let title = match model.history.span_us(wide) {
        0.0 => "a second; plots begin with the next look".to_owned(),
        span_us => format!("a second; plots go back {}", span(span_us)),
    };
    let mut lines = vec![rule(&title, area.width)];
    for (index, name) in RATES.iter().enumerate() {
        let now = model.rates.as_ref().and_then(|rates| rates.totals[index]);
        let values = model.history.last(index, wide);
        let largest = values.iter().flatten().copied().reduce(f64::max);
        let style = colour(index, largest.unwrap_or(0.0));
        for (line, plot) in plot(&values, wide, height).into_iter().enumerate() {
            let is_last = line == height - 1;
            let name = if is_last { *name } else { "" };
            let figure = if is_last { optional(now, rate) } else { String::new() };
            let most = if is_last { optional(largest, rate) } else { String::new() };
            let most = if most.is_empty() { most } else { format!("max {most}") };
            lines.push(Line::from(vec![
                Span::raw(format!(" {name:<NAMES$}")),
                Span::styled(format!("{figure:>FIGURES$}  "), BOLD),
                Span::styled(plot, style),
                Span::styled(format!("{most:>LARGEST$}"), DIM),
            ]));
        }
    }
    lines
}

/// Of the rate at this index, when its largest value is this: what never happens does not draw the eye.
fn colour(index: usize, largest: f64) -> Style {
    if largest == 0.0 {
        return DIM;
    }
    Style::new().fg(match RATES[index] {
        "connects/s" | "accepts/s" => Color::Green,
        "ends/s" => Color::Gray,
        "in B/s" | "out B/s" => Color::Blue,
        "retransmits/s" => Color::Yellow,
        _ => Color::Red,
    })
}

fn draw_panels(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let [sessions, connects, latency, drops] = Layout::horizontal([
        Constraint::Length(20),
        Constraint::Length(20),
        Constraint::Length(20),
        Constraint::Fill(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(session_lines(model, inner(sessions))), sessions);
    frame.render_widget(Paragraph::new(connect_lines(model, inner(connects))), connects);
    frame.render_widget(Paragraph::new(latency_lines(model, inner(latency))), latency);
    frame.render_widget(Paragraph::new(drop_lines(model, usize::from(drops.width))), drops);
}

/// The width of a panel that has another to its right.
fn inner(area: Rect) -> usize {
    usize::from(area.width) - 1
}

fn panel(title: &str, width: usize, pairs: Vec<(&str, String, Style)>) -> Vec<Line<'static>> {
    // Cannot truncate because: within the screen.
    let mut lines = vec![rule(title, width as u16)];
    for (name, value, style) in pairs {
        let room = width.saturating_sub(name.chars().count() + 2);
        lines.push(Line::from(vec![
            Span::raw(format!(" {name} ")),
            Span::styled(format!("{value:>room$}"), style),
        ]));
    }
    lines
}

/// A count, bold where there is something.
fn figure(name: &str, value: Option<f64>, style: Style) -> (&str, String, Style) {
    let style = if value.unwrap_or(0.0) == 0.0 { DIM } else { style };
    (name, optional(value, count), style)
}

fn session_lines(model: &Model, width: usize) -> Vec<Line<'static>> {
    let get = |name: &str| model.snapshot.as_ref().and_then(|snapshot| snapshot.summary.get(name));
    let pairs = vec![
        figure("open", get("open"), BOLD),
        figure("peer closed", get("peer_closed"), BOLD),
        figure("half closed", get("half_closed"), BOLD),
        figure("closing", get("closing"), BOLD),
        figure("ended", get("ended"), BOLD),
        figure("unannounced", get("unannounced"), BOLD),
        figure("TIME-WAIT", model.snapshot.as_ref().and_then(|snapshot| snapshot.time_wait), BOLD),
        figure(
            "listeners",
            model.snapshot.as_ref().and_then(|snapshot| snapshot.main.get("listeners")),
            BOLD,
        ),
    ];
    panel(&format!("sessions {}", optional(get("total"), count)), width, pairs)
}

fn connect_lines(model: &Model, width: usize) -> Vec<Line<'static>> {
    let sum = |name: &str| {
        let apps = model.snapshot.as_ref().map(|snapshot| snapshot.apps.as_slice()).unwrap_or_default();
        apps.iter()
            .filter_map(|app| app.figures.get(&format!("outcomes.{name}")))
            .reduce(|sum, count| sum + count)
    };
    let half_open = model.snapshot.as_ref().and_then(|snapshot| snapshot.main.get("half_open_sessions"));
    let pairs = vec![
        figure("half-open", half_open, BOLD),
        figure("established", sum("established"), GOOD),
        figure("refused", sum("refused"), WARN),
        figure("timed out", sum("timed_out"), WARN),
        figure("unreachable", sum("unreachable"), WARN),
        figure("cancelled", sum("cancelled"), PLAIN),
        figure("detached", sum("detached"), PLAIN),
        figure("failed", sum("failed"), BAD),
    ];
    panel("connects", width, pairs)
}

fn latency_lines(model: &Model, width: usize) -> Vec<Line<'static>> {
    let of = |histogram: &str, figure: &str| {
        let figures = &model.snapshot.as_ref()?.histogram(histogram)?.figures;
        // Of nothing there is no latency.
        figures.get("count").filter(|count| *count > 0.0)?;
        figures.get(figure)
    };
    let time = |name: &'static str, histogram: &str, figure: &str| {
        let value = of(histogram, figure);
        (name, optional(value, span), if value.is_none() { DIM } else { BOLD })
    };
    let pairs = vec![
        time("p50", "connect-latency", "p50"),
        time("p90", "connect-latency", "p90"),
        time("p99", "connect-latency", "p99"),
        time("p99.9", "connect-latency", "p999"),
        time("max", "connect-latency", "max"),
        time("rtt p50", "rtt", "p50"),
        time("rtt p99", "rtt", "p99"),
        time("step p99", "step", "p99"),
    ];
    panel("connect latency", width, pairs)
}

fn drop_lines(model: &Model, width: usize) -> Vec<Line<'static>> {
    let rows = model.snapshot.as_ref().map(|snapshot| lists::errors(snapshot, model.rates.as_ref()));
    let rows = ListState::sorted_by(BY_COUNT).arranged(rows.unwrap_or_default(), true);
    // Those that strike now go before those that struck often.
    let (now, before): (Vec<ErrorRow>, Vec<ErrorRow>) =
        rows.into_iter().partition(|row| row.rate.is_some_and(|rate| rate > 0.0));
    let mut lines = vec![rule("drops", width as u16)];
    for row in now.into_iter().chain(before).take(PANEL) {
        let strikes = row.rate.is_some_and(|rate| rate > 0.0);
        let figure = if strikes { format!("{}/s", optional(row.rate, rate)) } else { count(row.count) };
        let room = width.saturating_sub(figure.chars().count() + 2);
        lines.push(Line::from(vec![
            Span::raw(format!(" {:<room$} ", cut(&row.reason, room))),
            Span::styled(figure, if strikes { BAD.patch(BOLD) } else { PLAIN }),
        ]));
    }
    if lines.len() == 1 {
        lines.push(Line::styled(" none", DIM));
    }
    lines
}
