//! The screen: a line of views and what the stack is, the view, and a line of keys or of what is wrong.

mod ascii;
mod detail;
mod help;
mod list;
mod overview;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};

use super::lists::ListState;
use super::model::{Link, Model, Over, View};
use super::text::{count, cut, span};

/// The smallest screen that all views fit on.
pub(super) const SMALLEST: (u16, u16) = (80, 24);

const PLAIN: Style = Style::new();
const DIM: Style = Style::new().fg(Color::DarkGray);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const HEADING: Style = Style::new().fg(Color::Cyan);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);
const GOOD: Style = Style::new().fg(Color::Green);
const WARN: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);

/// Draws everything. `now` is in seconds, of the clock that the model was told.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, now: f64) {
    draw_all(frame, model, now);
    if model.is_ascii {
        ascii::translate(frame.buffer_mut());
    }
}

fn draw_all(frame: &mut Frame<'_>, model: &Model, now: f64) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!(
            "this terminal is {}x{}:\nhoststack top wants {}x{}",
            area.width, area.height, SMALLEST.0, SMALLEST.1
        );
        return frame.render_widget(Paragraph::new(text).alignment(Alignment::Center), area);
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(head_line(model, head.width), head);
    match (&model.detail, model.view) {
        (Some(shown), _) => detail::draw(frame, body, shown),
        (None, View::Overview) => overview::draw(frame, body, model),
        (None, View::Sessions) => {
            list::draw(frame, body, &list_title(model), &model.sessions, &model.session_rows());
        }
        (None, View::Apps) => list::draw(frame, body, &list_title(model), &model.apps, &model.app_rows()),
        (None, View::Errors) => {
            list::draw(frame, body, &list_title(model), &model.errors, &model.error_rows())
        }
    }
    frame.render_widget(foot_line(model, now), foot);
    if model.over == Over::Help {
        let help = help::text();
        let over = centred(body, help::WIDTH, u16::try_from(help.lines.len() + 2).unwrap_or(u16::MAX));
        frame.render_widget(Clear, over);
        frame.render_widget(Paragraph::new(help).block(help::frame()), over);
    }
}

fn head_line(model: &Model, width: u16) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, view) in (1..).zip(View::ALL) {
        let style = if view == model.view { CHOSEN.add_modifier(Modifier::BOLD) } else { PLAIN };
        spans.push(Span::styled(format!(" {number} {} ", view.name()), style));
    }
    let snapshot = model.snapshot.as_ref();
    let version = snapshot.and_then(|snapshot| snapshot.version.clone()).unwrap_or_default();
    let up = snapshot.and_then(|snapshot| snapshot.at_us).map(|at_us| format!("up {}", span(at_us.floor())));
    let pace = if model.is_paused { "paused".to_owned() } else { interval(model.interval_ms) };
    let parts = ["hoststack".to_owned(), version, up.unwrap_or_default()];
    let right = parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ");
    let used: usize = spans.iter().map(Span::width).sum();
    let gap = usize::from(width).saturating_sub(used + right.chars().count() + pace.chars().count() + 4);
    spans.push(Span::raw(" ".repeat(gap)));
    spans.push(Span::styled(right, HEADING));
    spans.push(Span::raw("  "));
    spans.push(Span::styled(format!(" {pace} "), if model.is_paused { WARN.patch(CHOSEN) } else { DIM }));
    Line::from(spans)
}

fn interval(millis: u64) -> String {
    if millis < 1000 { format!("{millis} ms") } else { format!("{} s", millis / 1000) }
}

fn foot_line(model: &Model, now: f64) -> Line<'static> {
    if let Over::Filter(_) = model.over {
        let typed = model.list().map(|list| list.filter.clone()).unwrap_or_default();
        return Line::from(vec![
            Span::styled(" filter: ", HEADING),
            Span::styled(typed, BOLD),
            Span::styled(" ", CHOSEN),
            Span::styled("   Enter keeps it, Esc undoes it", DIM),
        ]);
    }
    if let Link::Gone { why, since } = &model.link {
        let gone = format!(" the stack is away since {}, trying again: {why}", span((now - since) * 1e6));
        return Line::styled(gone, BAD.patch(CHOSEN));
    }
    if let Some(why) = &model.filter_refused {
        return Line::styled(format!(" matched here, for the stack says: {why}"), WARN);
    }
    if let Some(notice) = model.notice(now) {
        return Line::styled(format!(" {notice}"), WARN);
    }
    let keys: &[(&str, &str)] = match (&model.detail, model.view) {
        (Some(_), _) => &[("Esc", "back"), ("↑↓", "scroll"), ("p", "pause"), ("?", "help"), ("q", "quit")],
        (None, View::Overview) => &[
            ("Tab", "next view"),
            ("/", "find sessions"),
            ("p", "pause"),
            ("+-", "interval"),
            ("?", "help"),
            ("q", "quit"),
        ],
        (None, _) => &[
            ("↑↓", "move"),
            ("Enter", "detail"),
            ("s", "sort"),
            ("r", "reverse"),
            ("/", "filter"),
            ("p", "pause"),
            ("?", "help"),
            ("q", "quit"),
        ],
    };
    let key = |(key, what): &(&'static str, &'static str)| {
        [Span::styled(format!(" {key} "), BOLD), Span::styled(format!("{what} "), DIM)]
    };
    Line::from(keys.iter().flat_map(key).collect::<Vec<_>>())
}

/// What a list is, how much of it is shown, through which filter.
fn list_title(model: &Model) -> String {
    let (shown, of) = match model.view {
        View::Sessions => {
            let total = model.snapshot.as_ref().and_then(|snapshot| snapshot.summary.get("total"));
            (model.session_rows().len(), total)
        }
        View::Apps => (model.app_rows().len(), None),
        View::Overview | View::Errors => (model.error_rows().len(), None),
    };
    let mut title = match (model.view, of) {
        // Cannot lose anything: a screen's worth of lines.
        (_, Some(total)) if total > shown as f64 => format!("{shown} of {} sessions", count(total)),
        (View::Apps, _) => counted(shown, "app worker", "app workers"),
        (View::Errors, _) => counted(shown, "reason for drops", "reasons for drops"),
        _ => counted(shown, "session", "sessions"),
    };
    match model.list() {
        Some(ListState { filter, .. }) if !filter.is_empty() => {
            title.push_str(&format!(", filter: {filter}"))
        }
        _ => {}
    }
    title
}

fn counted(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// `─ title ─────────`, as wide as it must be.
fn rule(title: &str, width: u16) -> Line<'static> {
    let width = usize::from(width);
    let title = cut(title, width.saturating_sub(4));
    let rest = width.saturating_sub(title.chars().count() + 3);
    Line::from(vec![
        Span::styled("─ ", DIM),
        Span::styled(title, HEADING),
        Span::styled(format!(" {}", "─".repeat(rest)), DIM),
    ])
}

fn centred(within: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(within.width), height.min(within.height));
    Rect::new(within.x + (within.width - width) / 2, within.y + (within.height - height) / 2, width, height)
}

#[cfg(test)]
mod tests;
