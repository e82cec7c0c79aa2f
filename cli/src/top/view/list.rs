//! A list: a line of headings and a line a thing, the columns that fit.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{BAD, BOLD, CHOSEN, DIM, HEADING, PLAIN, rule};
use crate::top::lists::{Column, Key, ListState, Row};
use crate::top::text::cut;

/// Blanks between columns.
const GAP: usize = 2;
/// The least that is left of a text.
const NARROWEST: usize = 8;

/// Draws the list with its title and its cursor.
pub(super) fn draw<R: Row>(frame: &mut Frame<'_>, area: Rect, title: &str, state: &ListState, rows: &[R]) {
    let mut lines = vec![rule(title, area.width)];
    if rows.is_empty() {
        let text = if state.filter.is_empty() { "  none" } else { "  none that the filter lets through" };
        lines.push(Line::styled(text, DIM));
        return frame.render_widget(Paragraph::new(lines), area);
    }
    let height = usize::from(area.height).saturating_sub(2);
    lines.extend(table(usize::from(area.width), height, state, rows, Some(state.cursor)));
    frame.render_widget(Paragraph::new(lines), area);
}

/// The headings and as many rows as there is room for, those around the cursor.
pub(super) fn table<R: Row>(
    width: usize,
    height: usize,
    state: &ListState,
    rows: &[R],
    cursor: Option<usize>,
) -> Vec<Line<'static>> {
    let last = rows.len().saturating_sub(height);
    let first = cursor.map_or(0, |cursor| cursor.saturating_sub(height / 2).min(last));
    let rows = &rows[first..(first + height).min(rows.len())];
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| R::COLUMNS.iter().map(|column| (column.text)(row)).collect()).collect();
    let mark = if state.reversed { "▲" } else { "▼" };
    let heading = |(index, column): (usize, &Column<R>)| {
        let mark = if index == state.sort && cursor.is_some() { mark } else { "" };
        format!("{}{mark}", column.title)
    };
    let headings: Vec<String> = R::COLUMNS.iter().enumerate().map(heading).collect();
    let is_number =
        |index: usize| rows.first().is_some_and(|row| matches!((R::COLUMNS[index].key)(row), Key::Number(_)));
    let columns = fit::<R>(width, &headings, &cells, &is_number);
    let line = |cells: &[String], style: &dyn Fn(usize) -> Style| {
        let mut spans = vec![Span::raw(" ")];
        for (index, wide) in &columns {
            let text = cut(&cells[*index], *wide);
            let text = if is_number(*index) { format!("{text:>wide$}") } else { format!("{text:<wide$}") };
            spans.push(Span::styled(text, style(*index)));
            spans.push(Span::raw(" ".repeat(GAP)));
        }
        Line::from(spans)
    };
    let of_heading = |index: usize| if index == state.sort { HEADING.patch(BOLD) } else { HEADING };
    let mut lines = vec![line(&headings, &of_heading)];
    for (index, cells) in cells.iter().enumerate() {
        let style = if rows[index].is_alarming() { BAD } else { PLAIN };
        let drawn = line(cells, &|_| style);
        let is_chosen = cursor == Some(first + index);
        lines.push(if is_chosen { padded(drawn, width).style(CHOSEN) } else { drawn });
    }
    lines
}

/// The line, filled up so that its style reaches the edge.
fn padded(mut line: Line<'static>, width: usize) -> Line<'static> {
    let rest = width.saturating_sub(line.width());
    line.spans.push(Span::styled(" ".repeat(rest), Style::new().remove_modifier(Modifier::BOLD)));
    line
}

/// The columns that fit, with their widths: spare ones are left out first, then the widest texts are cut.
fn fit<R: Row>(
    width: usize,
    headings: &[String],
    cells: &[Vec<String>],
    is_number: &dyn Fn(usize) -> bool,
) -> Vec<(usize, usize)> {
    let natural = |index: usize| {
        let cells = cells.iter().map(|row| row[index].chars().count());
        cells.chain([headings[index].chars().count()]).max().unwrap_or(0)
    };
    let mut columns: Vec<(usize, usize)> = (0..headings.len()).map(|index| (index, natural(index))).collect();
    let room = width.saturating_sub(1);
    let needed = |columns: &[(usize, usize)]| {
        columns.iter().map(|(_, wide)| wide + GAP).sum::<usize>().saturating_sub(GAP)
    };
    while needed(&columns) > room {
        let spare = columns.iter().map(|(index, _)| R::COLUMNS[*index].spare).max().unwrap_or(0);
        if spare == 0 {
            break;
        }
        let at = columns.iter().rposition(|(index, _)| R::COLUMNS[*index].spare == spare);
        columns.remove(at.unwrap_or(columns.len() - 1));
    }
    while needed(&columns) > room {
        let texts = columns.iter_mut().filter(|(index, wide)| !is_number(*index) && *wide > NARROWEST);
        let Some((_, wide)) = texts.max_by_key(|(_, wide)| *wide) else { break };
        *wide -= 1;
    }
    columns
}
