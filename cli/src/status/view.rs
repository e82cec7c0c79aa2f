//! What a page shows, before it is HTML or JSON: tiles, plots and tables of plain text. `page.js` reads the JSON of it.

use std::cmp::Ordering;

use serde::Serialize;

/// A page.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct View {
    /// Its heading.
    pub(super) title: String,
    /// Figures to see at a glance.
    pub(super) tiles: Vec<Tile>,
    /// Plots.
    pub(super) plots: Vec<Plot>,
    /// Tables.
    pub(super) tables: Vec<Table>,
}

/// A figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Tile {
    pub(super) label: &'static str,
    pub(super) value: String,
    /// Whether it should draw the eye: something goes wrong now.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_alarming: bool,
}

/// A plot of the last five minutes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Plot {
    pub(super) title: &'static str,
    /// What its upper edge is.
    pub(super) top: String,
    pub(super) lines: Vec<Line>,
}

/// A line of a plot.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    pub(super) name: &'static str,
    /// Its last value.
    pub(super) now: String,
    /// The path of an SVG.
    pub(super) path: String,
}

/// A table.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Table {
    /// Its stable name, unique in its page.
    pub(super) id: String,
    pub(super) title: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
    /// What is said instead of no rows.
    pub(super) empty: &'static str,
}

/// A column.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Numbers, to the right.
    pub(super) is_number: bool,
}

/// A column of text.
pub(super) const fn text(name: &'static str) -> Column {
    Column { name, is_number: false }
}

/// A column of numbers.
pub(super) const fn number(name: &'static str) -> Column {
    Column { name, is_number: true }
}

/// A cell.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Cell {
    pub(super) text: String,
    /// What it is sorted by, if not its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<f64>,
    /// Where it leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) href: Option<String>,
    /// How full a bar behind it is, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bar: Option<f64>,
    /// Whether it should draw the eye: something is wrong.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_alarming: bool,
}

impl Cell {
    /// Text.
    pub(super) fn text(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), ..Cell::default() }
    }

    /// A number, written for people.
    pub(super) fn number(number: u64) -> Cell {
        Cell::measured(number as f64, crate::table::grouped(number))
    }

    /// A number, written as `text`.
    pub(super) fn measured(number: f64, text: impl Into<String>) -> Cell {
        Cell { text: text.into(), number: Some(number), ..Cell::default() }
    }

    /// A share of a whole, with a bar.
    pub(super) fn share(part: f64) -> Cell {
        // Spaces as wide as a digit: bars stand in a line.
        let text = format!("{:>3.0}", part * 100.0).replace(' ', "\u{2007}") + " %";
        Cell { bar: Some(part.clamp(0.0, 1.0)), ..Cell::measured(part, text) }
    }

    /// The same, drawing the eye if something is wrong.
    pub(super) fn alarming(self, is_alarming: bool) -> Cell {
        Cell { is_alarming, ..self }
    }

    /// The same, leading to `href`.
    pub(super) fn leading_to(self, href: String) -> Cell {
        Cell { href: Some(href), ..self }
    }
}

impl Table {
    /// Sorts by a column as `page.js` does: numbers by value, text by its letters, equals as they were.
    pub(super) fn sort(&mut self, column: usize, descending: bool) {
        if column >= self.columns.len() {
            return;
        }
        self.rows.sort_by(|a, b| {
            let order = match (a.get(column), b.get(column)) {
                (Some(Cell { number: Some(a), .. }), Some(Cell { number: Some(b), .. })) => a.total_cmp(b),
                (Some(a), Some(b)) => a.text.cmp(&b.text),
                _ => Ordering::Equal,
            };
            if descending { order.reverse() } else { order }
        });
    }
}

/// A sort that a page's address asks for: `TABLE.COLUMN`, with `-` before it for the largest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) table: String,
    pub(super) column: usize,
    pub(super) descending: bool,
}

impl Sort {
    pub(super) fn parse(text: &str) -> Option<Sort> {
        let (descending, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (table, column) = rest.rsplit_once('.')?;
        Some(Sort { table: table.to_owned(), column: column.parse().ok()?, descending })
    }

    /// Sorts the table that is meant, if it is there.
    pub(super) fn apply(&self, view: &mut View) {
        if let Some(table) = view.tables.iter_mut().find(|table| table.id == self.table) {
            table.sort(self.column, self.descending);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_sorted_by_numbers_where_there_are_some() {
        let row = |name: &str, count| vec![Cell::text(name), Cell::number(count)];
        let table = Table {
            id: "t".to_owned(),
            columns: vec![text("name"), number("count")],
            rows: vec![row("b", 9), row("a", 10), row("c", 9)],
            ..Table::default()
        };
        let mut view = View { tables: vec![table], ..View::default() };
        let mut sorted = |by: &str| {
            Sort::parse(by).unwrap().apply(&mut view);
            view.tables[0].rows.iter().map(|row| row[0].text.as_str()).collect::<String>()
        };
        assert_eq!([sorted("t.0"), sorted("t.1"), sorted("-t.1")], ["abc", "bca", "abc"]);
        assert_eq!([sorted("t.7"), sorted("-x.0"), sorted("-t.0")], ["abc", "abc", "cba"]);
        for bad in ["", "t", "t.x", "t.-1", "-"] {
            assert_eq!(Sort::parse(bad), None, "{bad}");
        }
    }
}
