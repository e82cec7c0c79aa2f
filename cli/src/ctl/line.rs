//! A line as it is typed: commands between `;`, each a list of words, filters of its text behind `|`.
//!
//! Quotes, `"..."` or `'...'`, keep blanks, `;` and `|` in a word; within double quotes a backslash takes the meaning from a
//! quote or a backslash behind it. A quoted word is never taken for a word of the grammar.

use regex::{Regex, RegexBuilder};

/// A word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Without its quotes.
    pub(crate) text: String,
    /// Whether any of it was quoted.
    pub(crate) quoted: bool,
    /// Where it begins in the line, in bytes.
    pub(crate) start: usize,
}

/// A command of a line, not understood yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statement {
    /// The command's words, `--json` left out.
    pub(crate) words: Vec<Word>,
    /// Whether `--json` was among them.
    pub(crate) json: bool,
    /// What its lines of text must pass, in order.
    pub(crate) filters: Vec<Filter>,
}

/// A filter of lines of text.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    keeps: bool,
    text: String,
    regex: Option<Regex>,
}

impl Filter {
    fn new(keeps: bool, text: &str) -> Filter {
        // A pattern that is no regular expression, like `[::`, or too large a one, is text all the same.
        let regex = RegexBuilder::new(text).size_limit(REGEX_SIZE_MAX).build().ok();
        Filter { keeps, text: text.to_owned(), regex }
    }

    /// Whether the line passes: it contains the pattern, or matches it as a regular expression (or, to be excluded, does not).
    pub(crate) fn passes(&self, line: &str) -> bool {
        let found =
            line.contains(&self.text) || self.regex.as_ref().is_some_and(|regex| regex.is_match(line));
        found == self.keeps
    }
}

/// Bytes that a compiled pattern may have: 256 clients may each have one.
const REGEX_SIZE_MAX: usize = 1 << 20;

/// Asks for JSON, anywhere in a command.
pub(crate) const JSON: &str = "--json";

/// What may stand behind `|`.
pub(crate) const FILTERS: &[(&str, &str)] = &[
    ("include", "only lines that contain PATTERN, or match it as a regular expression; headings stay"),
    ("exclude", "only the other lines"),
];

/// What is wrong with a line; each says what to type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineError {
    /// A quote without its end.
    Quote(char),
    /// No filter behind `|`.
    Filter,
}

impl std::fmt::Display for LineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LineError::Quote(quote) => write!(f, "a quote {quote} has no end: close it"),
            LineError::Filter => f.write_str(
                "behind `|` stands `include PATTERN` or `exclude PATTERN`; a pattern with blanks, `;` or `|` wants quotes",
            ),
        }
    }
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A word.
    Word(Word),
    /// `;`
    Semicolon,
    /// `|`
    Bar,
}

/// Cuts a line into its pieces. The flag says whether the last word may still grow: nothing stands behind it. A quote without
/// its end is told besides, and what it holds is the last word.
pub(crate) fn pieces(line: &str) -> (Vec<Piece>, bool, Option<LineError>) {
    let mut pieces = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let fresh = || Word { text: String::new(), quoted: false, start: at };
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some('"'), '\\') => {
                let escaped = chars.next_if(|(_, next)| matches!(next, '"' | '\\')).map_or('\\', |(_, c)| c);
                word.get_or_insert_with(fresh).text.push(escaped);
            }
            (Some(_), c) => word.get_or_insert_with(fresh).text.push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_with(fresh).quoted = true;
            }
            (None, c) if c.is_whitespace() => pieces.extend(word.take().map(Piece::Word)),
            (None, ';' | '|') => {
                pieces.extend(word.take().map(Piece::Word));
                pieces.push(if c == ';' { Piece::Semicolon } else { Piece::Bar });
            }
            (None, c) => word.get_or_insert_with(fresh).text.push(c),
        }
    }
    let grows = word.is_some();
    pieces.extend(word.map(Piece::Word));
    (pieces, grows, quote.map(LineError::Quote))
}

/// Reads a line. Empty commands, as after a last `;`, are left out.
///
/// # Errors
/// A quote without its end, no filter behind `|`.
pub(crate) fn statements(line: &str) -> Result<Vec<Statement>, LineError> {
    let (pieces, _, error) = pieces(line);
    if let Some(error) = error {
        return Err(error);
    }
    let mut statements = Vec::new();
    for part in pieces.split(|piece| *piece == Piece::Semicolon) {
        let mut sections = part.split(|piece| *piece == Piece::Bar).map(words);
        let mut statement = Statement::default();
        for word in sections.next().into_iter().flatten() {
            if word.text == JSON && !word.quoted {
                statement.json = true;
            } else {
                statement.words.push(word.clone());
            }
        }
        for section in sections {
            let [name, pattern] = &section[..] else { return Err(LineError::Filter) };
            let mut begun =
                FILTERS.iter().filter(|(full, _)| !name.text.is_empty() && full.starts_with(&name.text));
            let (Some((full, _)), None) = (begun.next(), begun.next()) else { return Err(LineError::Filter) };
            statement.filters.push(Filter::new(*full == "include", &pattern.text));
        }
        if statement.words.is_empty() && !statement.filters.is_empty() {
            return Err(LineError::Filter);
        }
        if !statement.words.is_empty() {
            statements.push(statement);
        }
    }
    Ok(statements)
}

fn words(section: &[Piece]) -> Vec<&Word> {
    let words = section.iter().filter_map(|piece| match piece {
        Piece::Word(word) => Some(word),
        Piece::Semicolon | Piece::Bar => None,
    });
    words.collect()
}

/// A word as it must be typed to be read as `text`.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, ';' | '|' | '"' | '\'');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<Vec<String>> {
        let read = statements(line).expect(line);
        read.into_iter().map(|one| one.words.into_iter().map(|word| word.text).collect()).collect()
    }

    #[test]
    fn commands_are_cut_at_semicolons_that_are_not_quoted() {
        assert_eq!(texts("show app;show  worker ; "), [vec!["show", "app"], vec!["show", "worker"]]);
        assert_eq!(texts("set log \"a;b\" 'c | d' e\"f\"g"), [vec!["set", "log", "a;b", "c | d", "efg"]]);
        assert_eq!(texts(r#"x "a\"b\\c\d" 'e\'"#), [vec!["x", "a\"b\\c\\d", "e\\"]]);
        assert_eq!(texts(" ; ;"), Vec::<Vec<String>>::new());
        assert_eq!(texts("x \"\""), [vec!["x", ""]]);
    }

    #[test]
    fn filters_are_text_or_regular_expressions() {
        let of = |line| statements(line).expect(line).remove(0);
        let one = of("show app | include ec.o | exc 'a b'");
        assert_eq!((one.words.len(), one.filters.len()), (2, 2));
        assert!(one.filters[0].passes("xecho") && !one.filters[0].passes("eco"));
        assert!(one.filters[1].passes("ab") && !one.filters[1].passes("x a b"));
        // No regular expression, or one that means another thing: the text itself is found.
        assert!(of("a | include [::").filters[0].passes("tcp://[::]:7"));
        assert!(of("a | include [::]:7").filters[0].passes("tcp://[::]:7"));
        for bad in ["a |", "a | grep b", "a | include", "a | include b c", "| include a", "a | | include a"] {
            assert_eq!(statements(bad).err(), Some(LineError::Filter), "{bad}");
        }
    }

    #[test]
    fn an_open_quote_is_told_and_json_may_be_asked_for_anywhere() {
        assert_eq!(statements("a 'b").err(), Some(LineError::Quote('\'')));
        assert!(statements("show --json app").expect("good")[0].json);
        assert!(!statements("show '--json'").expect("good")[0].json);
    }

    #[test]
    fn what_is_quoted_is_read_back() {
        for text in ["", "plain", "two words", "a;b|c", "it's", "say \"x\\y\"", "back\\slash", "ä ö"] {
            assert_eq!(texts(&format!("x {}", quoted(text)))[0][1], text);
        }
    }
}
