//! What is wrong with a configuration, and where: the line, and the key as `app[1].listen[0]`.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    line: Option<usize>,
    key: Option<String>,
    what: String,
}

impl ConfigError {
    pub(super) fn at(text: &str, span: Option<Range<usize>>, what: impl fmt::Display) -> ConfigError {
        let line = span.as_ref().map(|span| line_of(text, span.start));
        let key = span.and_then(|span| key_at(text, span.start).or_else(|| key_before(text, span.start)));
        ConfigError { line, key, what: what.to_string() }
    }

    /// One line: `FILE:LINE: KEY: what was expected`.
    pub(crate) fn message(&self, file: &Path) -> String {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        let key = self.key.as_ref().map(|key| format!(" {key}:")).unwrap_or_default();
        format!("{}{line}:{key} {}", file.display(), self.what)
    }
}

/// Where a mistake is in the file's text, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(super) at: Range<usize>,
    pub(super) what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

pub(super) fn mistake<T, V>(at: &Spanned<T>, what: impl Into<String>) -> Result<V, Mistake> {
    Err(Mistake { at: at.span(), what: what.into() })
}

/// The number of the line that `offset` is in, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The key whose name or value covers `offset`, as `app[1].listen[0]`. Found even when the file does not parse.
fn key_at(text: &str, offset: usize) -> Option<String> {
    let (table, _) = toml::de::DeTable::parse_recoverable(text);
    let mut path = String::new();
    descend_table(table.get_ref(), offset, &mut path);
    (!path.is_empty()).then_some(path)
}

/// What stands before the `=` of the line, for a file that does not parse.
fn key_before(text: &str, offset: usize) -> Option<String> {
    let line = text.get(..offset)?.lines().next_back()?;
    let key = line.split_once('=').map_or(line, |(key, _)| key).trim();
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (!key.is_empty() && key.bytes().all(bare)).then(|| key.to_owned())
}

fn descend_table(table: &toml::de::DeTable<'_>, offset: usize, path: &mut String) {
    let covers = |span: Range<usize>| span.contains(&offset);
    let direct = table.iter().find(|(key, value)| covers(key.span()) || covers(value.span()));
    // A [[table]]'s own span is that of its heading; what stands below it is told by the values inside.
    let found = direct.or_else(|| table.iter().find(|(_, value)| spans_below(value, offset)));
    let Some((key, value)) = found else { return };
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key.get_ref());
    if !covers(key.span()) || spans_below(value, offset) {
        descend(value.get_ref(), offset, path);
    }
}

fn descend(value: &toml::de::DeValue<'_>, offset: usize, path: &mut String) {
    match value {
        toml::de::DeValue::Table(table) => descend_table(table, offset, path),
        toml::de::DeValue::Array(items) => {
            let found = items
                .iter()
                .enumerate()
                .find(|(_, item)| item.span().contains(&offset) || spans_below(item, offset));
            if let Some((index, item)) = found {
                path.push_str(&format!("[{index}]"));
                descend(item.get_ref(), offset, path);
            }
        }
        _ => {}
    }
}

/// Whether something inside a value covers `offset`.
fn spans_below(value: &Spanned<toml::de::DeValue<'_>>, offset: usize) -> bool {
    match value.get_ref() {
        toml::de::DeValue::Table(table) => table.iter().any(|(key, value)| {
            key.span().contains(&offset) || value.span().contains(&offset) || spans_below(value, offset)
        }),
        toml::de::DeValue::Array(items) => {
            items.iter().any(|item| item.span().contains(&offset) || spans_below(item, offset))
        }
        _ => false,
    }
}
