//! All about one thing: names and values, those that changed since the last look marked.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{BOLD, DIM, HEADING, PLAIN, WARN, rule};
use crate::top::model::{Detail, Subject};

/// The narrowest that a column of names and values may be.
const COLUMN: usize = 46;
/// The widest that names are given.
const NAMES: usize = 24;

/// Draws the detail, in as many columns as it needs and there is room for.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, detail: &Detail) {
    let title = match &detail.subject {
        Subject::Session(handle) => format!("session {handle}"),
        Subject::App(name) => format!("app worker {name}"),
        Subject::Error(reason) => format!("drops: {reason}"),
    };
    let mut head = vec![rule(&title, area.width)];
    head.extend(detail.note.as_ref().map(|note| Line::styled(format!(" {note}"), WARN)));
    if detail.pairs.is_empty() && detail.note.is_none() {
        head.push(Line::styled("  the stack is being asked", DIM));
    }
    let [top, body] = {
        use ratatui::layout::{Constraint, Layout};
        let length = u16::try_from(head.len()).unwrap_or(u16::MAX);
        Layout::vertical([Constraint::Length(length), Constraint::Fill(1)]).areas(area)
    };
    frame.render_widget(Paragraph::new(head), top);
    let (width, height) = (usize::from(body.width), usize::from(body.height));
    let most = (width / COLUMN).max(1);
    let columns = (1..=most).find(|columns| lines(detail, width / columns).len() <= columns * height);
    let columns = columns.unwrap_or(most);
    let lines = lines(detail, width / columns);
    let last = lines.len().saturating_sub(columns * height);
    detail.last_scroll.set(Some(last));
    let shown = &lines[detail.scroll.min(last)..];
    for (index, part) in shown.chunks(height.max(1)).take(columns).enumerate() {
        // Cannot truncate because: within the screen.
        let x = body.x + (index * (width / columns)) as u16;
        let column = Rect { x, width: (width / columns) as u16, ..body };
        frame.render_widget(Paragraph::new(part.to_vec()), column);
    }
}

fn lines(detail: &Detail, width: usize) -> Vec<Line<'static>> {
    let longest =
        detail.pairs.iter().map(|pair| 2 * pair.depth + pair.name.chars().count()).max().unwrap_or(0);
    let names = longest.min(NAMES);
    let mut lines = Vec::new();
    for (index, pair) in detail.pairs.iter().enumerate() {
        let indent = "  ".repeat(pair.depth);
        let name = format!(" {indent}{:<1$}  ", pair.name, names.saturating_sub(2 * pair.depth));
        if pair.value.is_empty() {
            lines.push(Line::styled(name, HEADING));
            continue;
        }
        let has_changed = detail.changed.get(index).is_some_and(|changed| *changed);
        let style = if has_changed { WARN.patch(BOLD) } else { PLAIN };
        let room = width.saturating_sub(name.chars().count() + 1).max(8);
        let mut name = Some(name);
        for part in wrapped(&pair.value, room) {
            let blank = " ".repeat(names + 3);
            let left = name.take().unwrap_or(blank);
            lines.push(Line::from(vec![Span::styled(left, DIM), Span::styled(part, style)]));
        }
    }
    lines
}

/// The text in lines of at most `width` characters, broken at blanks where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let characters: Vec<char> = word.chars().collect();
        for (index, piece) in characters.chunks(width.max(1)).enumerate() {
            let line = lines.last_mut().expect("cannot fail because there is always a line");
            let is_first = line.is_empty();
            if !is_first && (index > 0 || line.chars().count() + 1 + piece.len() > width) {
                lines.push(piece.iter().collect());
            } else {
                line.extend((!is_first).then_some(' '));
                line.extend(piece);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_broken_at_blanks_or_where_they_must() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("0123456789", 4), ["0123", "4567", "89"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
