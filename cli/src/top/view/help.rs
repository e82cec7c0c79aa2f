//! The list of keys.

use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, BorderType, Padding};

use super::{BOLD, DIM, HEADING};

/// As wide as the frame around it.
pub(super) const WIDTH: u16 = 70;

const KEYS: &[(&str, &str)] = &[
    ("1 2 3 4  Tab", "overview, sessions, apps, errors; Tab: the next"),
    ("↑ ↓ PgUp PgDn", "move; Home and End, k j g G as well"),
    ("Enter  Esc", "all about the line under the cursor; back"),
    ("s  < >", "sort by the next column; the one before, or after"),
    ("r", "the other way round"),
    ("/", "filter: words that must all stand in a line;"),
    ("", "of sessions also what the stack itself filters by:"),
    ("", "  state open, remote 10.0.0.0/8, older 5m,"),
    ("", "  queued 1000, app echo, stuck"),
    ("p", "pause, and go on"),
    ("+ -", "more time between looks, or less"),
    ("q  Ctrl-Z", "quit; stop, and go on with the shell's fg"),
];

/// What the figures mean.
const MEANINGS: &[&str] = &[
    "Rates are differences of two looks by the stack's own time.",
    "load: share of the time (or of steps) with something to do.",
    "vec: packets received at a time.",
];

/// Keys and what they do.
pub(super) fn text() -> Text<'static> {
    let line = |(key, what): &(&'static str, &'static str)| {
        Line::from(vec![Span::styled(format!("{key:<15}"), BOLD), Span::raw(*what)])
    };
    let meanings = MEANINGS.iter().map(|meaning| Line::styled(*meaning, DIM));
    Text::from(KEYS.iter().map(line).chain([Line::default()]).chain(meanings).collect::<Vec<_>>())
}

/// The frame around the list.
pub(super) fn frame() -> Block<'static> {
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(HEADING)
        .padding(Padding::horizontal(1))
        .title(" keys: any closes this ")
}
