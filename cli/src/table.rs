//! Aligned text: columns as wide as their widest cell, numbers to the right.

use std::borrow::Cow;
use std::fmt;

use crate::plain;

/// A column: its heading, and which side its cells stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Column {
    const fn heading(self) -> &'static str {
        match self {
            Column::Left(heading) | Column::Right(heading) => heading,
        }
    }
}

/// A table under construction; `Display` is the text, each line ended by a line feed.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: &[Column]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, surplus ones are left out. A cell is one line, whatever is in it.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().take(self.columns.len()).map(in_line).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |index: usize, column: &Column| {
            let cells = self.rows.iter().map(|row| plain::width(&row[index]));
            cells.chain([plain::width(column.heading())]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = self.columns.iter().enumerate().map(|(index, c)| width(index, c)).collect();
        let headings: Vec<String> = self.columns.iter().map(|column| column.heading().to_owned()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, column), &width) in row.iter().zip(&self.columns).zip(&widths) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                let blanks = " ".repeat(width.saturating_sub(plain::width(cell)));
                match column {
                    Column::Left(_) => line.extend([cell.as_str(), &blanks]),
                    Column::Right(_) => line.extend([blanks.as_str(), cell]),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `name value` lines, values aligned: for summaries.
pub(crate) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let pairs: Vec<_> = pairs.into_iter().collect();
    let width = pairs.iter().map(|(name, _)| plain::width(name)).max().unwrap_or(0);
    pairs.into_iter().map(|(name, value)| format!("{name:<width$}  {}\n", in_line(value))).collect()
}

/// The text as one line that no terminal takes for an order.
fn in_line(text: String) -> String {
    match plain::line(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(safe) => safe,
    }
}

/// A number with a space between thousands, so that long ones can be read.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A span of time for people: `850 us`, `12.3 ms`, `4.56 s`, `3m05s`, `2h07m`, `12d03h`.
pub(crate) fn span_us(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} us"),
        1000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        1_000_000..60_000_000 => format!("{:.2} s", micros as f64 / 1e6),
        _ => match micros / 1_000_000 {
            seconds @ 0..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
            seconds @ 3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
            seconds => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
        },
    }
}

/// Bytes for people, in powers of 1000 as network people count: `512 B`, `1.5 MB`.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1000 => format!("{count} B"),
        1000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_trailing_space() {
        let mut table = Table::new(&[Column::Left("name"), Column::Right("count"), Column::Left("help")]);
        assert!(table.is_empty());
        table.row(["a-long-name".to_owned(), "7".to_owned(), "x".to_owned()]);
        table.row(["b".to_owned(), "123456".to_owned()]);
        assert!(!table.is_empty());
        assert_eq!(
            table.to_string(),
            "name          count  help\na-long-name       7  x\nb            123456\n"
        );
    }

    #[test]
    fn a_cell_stays_in_its_row_and_its_column() {
        let mut table = Table::new(&[Column::Left("name"), Column::Right("n")]);
        table.row(["a\nb\u{1b}[2J".to_owned(), "1".to_owned()]);
        table.row(["日本語".to_owned(), "22".to_owned()]);
        let lines = ["name               n", r"a\u{a}b\u{1b}[2J   1", "日本語            22"];
        assert_eq!(table.to_string().lines().collect::<Vec<_>>(), lines);
        assert_eq!(pairs([("one", "a\nb".to_owned())]), "one  a\\u{a}b\n");
    }

    #[test]
    fn an_empty_first_cell_keeps_the_columns_apart() {
        let mut table = Table::new(&[Column::Left("a"), Column::Right("b")]);
        table.row([String::new(), "1".to_owned()]);
        assert_eq!(table.to_string(), "a  b\n   1\n");
    }

    #[test]
    fn pairs_align_their_values() {
        assert_eq!(pairs([("one", "1".to_owned()), ("seven", "7".to_owned())]), "one    1\nseven  7\n");
    }

    #[test]
    fn numbers_spans_and_bytes_are_readable() {
        assert_eq!(["0", "999", "1 000", "1 234 567"], [0, 999, 1000, 1_234_567].map(grouped));
        assert_eq!(
            ["999 us", "1.0 ms", "1.50 s", "1m00s", "1h02m", "12d03h"],
            [999, 1000, 1_500_000, 60_000_000, 3_725_000_000, 1_047_600_000_000].map(span_us)
        );
        assert_eq!(["12 B", "1.5 kB", "2.0 MB", "3.20 GB"], [12, 1500, 2_000_000, 3_200_000_000].map(bytes));
    }
}
