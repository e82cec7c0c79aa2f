//! Text that comes from elsewhere, made safe to print.
//!
//! A peer chooses its socket's name, a configuration its applications' names: what is in them must not move a terminal's
//! cursor, set its title or turn the rest of a line around. Characters that could are written as their number, `\u{1b}`.

use std::borrow::Cow;

use ratatui::text::Span;

/// Whether a terminal takes the character for an order, and not for something to show: the control characters of Unicode
/// (C0, DEL, C1: ECMA-48 §5), and those that change the direction of text (Unicode Standard Annex #9, §2).
fn is_order(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text of several lines.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_order(c), |c| c.escape_unicode().to_string())
}

/// Text within a line: a line feed in it would begin a line that looks like one of ours.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_order, |c| c.escape_unicode().to_string())
}

/// JSON as `serde_json` writes it, which leaves DEL, C1 and what changes directions in strings as they are. It is the same
/// value afterwards.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    // RFC 8259 §7. All of them are in the Basic Multilingual Plane, and in strings: outside there is only ASCII.
    escaped(
        text,
        |c| !c.is_ascii_control() && is_order(c) || c == '\u{7f}',
        |c| format!("\\u{:04x}", u32::from(c)),
    )
}

fn escaped(text: &str, is_bad: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(&is_bad) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_bad(c) { safe.push_str(&escape(c)) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// Columns that a terminal shows the text in: two for a character of East Asia, none for one that is set upon another.
pub(crate) fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { Span::raw(text).width() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_to_a_terminal_are_written_as_numbers() {
        let title = "a\u{1b}]0;x\u{7}b\u{9b}31m\u{7f}\u{202e}c\r\n";
        assert_eq!(lines(title), "a\\u{1b}]0;x\\u{7}b\\u{9b}31m\\u{7f}\\u{202e}c\\u{d}\n");
        assert_eq!(line("a\nb\t"), "a\\u{a}b\\u{9}");
        for text in ["", "plain", "ä 日本 \u{301} 👍", "two\nlines\n"] {
            assert!(matches!(lines(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ "a\u{9b}": "x\u{1b}\u{7f}\u{85}\u{202e}\n\"\\ä" });
        let text = serde_json::to_string_pretty(&value).expect("it is JSON");
        let safe = json(&text);
        assert!(!safe.contains(|c| c != '\n' && is_order(c)), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).expect("it is JSON still"), value);
    }

    #[test]
    fn widths_are_those_of_a_terminal() {
        assert_eq!(["abc", "ä", "日本", "e\u{301}", ""].map(width), [3, 1, 4, 1, 0]);
    }
}
