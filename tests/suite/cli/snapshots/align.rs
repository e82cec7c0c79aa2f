//! Whether the columns of an answer stand under their headings.

/// A cell: where it begins, where it ends, what it is; in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cell {
    start: usize,
    end: usize,
    text: String,
}

/// What stands between runs of two blanks or more.
fn cells(line: &str) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    let mut blanks = usize::MAX;
    for (at, c) in line.chars().enumerate() {
        if c == ' ' {
            blanks = blanks.saturating_add(1);
            continue;
        }
        match cells.last_mut() {
            Some(cell) if blanks < 2 => {
                cell.text.extend((cell.end..at).map(|_| ' '));
                cell.text.push(c);
                cell.end = at + 1;
            }
            _ => cells.push(Cell { start: at, end: at + 1, text: c.to_string() }),
        }
        blanks = 0;
    }
    cells
}

/// Words and no figures, three or more: a heading.
fn is_heading(line: &str) -> bool {
    let cells = cells(line);
    let is_word = |cell: &Cell| {
        let figures = cell.text.chars().filter(char::is_ascii_digit).count();
        figures == 0 || cell.text.starts_with('p') || cell.text == "4-tuples"
    };
    !line.starts_with("    ") && cells.len() >= 3 && cells.iter().all(is_word)
}

/// A number with its unit, or without one: it belongs on the right.
fn is_figure(text: &str) -> bool {
    let units = ["us", "ms", "s", "B", "kB", "MB", "GB", "kB/s", "MB/s"];
    let digits = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    let mut words = text.split(' ').peekable();
    let first = words.next().unwrap_or_default();
    if first.matches('.').count() > 1 {
        return false;
    }
    first.strip_suffix('%').is_some_and(digits)
        || digits(first) && !first.contains(':') && words.all(|word| digits(word) || units.contains(&word))
}

/// A column: its heading, whether all its cells begin with it, end with it; whether there are figures, and nothing else.
struct Column {
    heading: Cell,
    begin: bool,
    end: bool,
    figures: bool,
    others: bool,
}

/// A table's columns that are not straight, and figures that stand on the left.
///
/// A column is straight if each cell begins where its heading does, or each ends where it does. Columns named in `left`
/// have numbers on the left: names of things, no figures.
pub(super) fn crooked(text: &str, left: &[&str]) -> Vec<String> {
    let mut crooked = Vec::new();
    let mut table: Vec<Column> = Vec::new();
    let mut close = |table: &mut Vec<Column>| {
        for Column { heading, begin, end, figures, others } in table.drain(..) {
            let name = &heading.text;
            if !begin && !end {
                crooked.push(format!("the column `{name}` is not straight"));
            } else if figures && !others && !end && !left.contains(&name.as_str()) {
                crooked.push(format!("the column `{name}` has its figures on the left"));
            }
        }
    };
    for line in text.lines() {
        let row = cells(line);
        if is_heading(line) && table.is_empty() {
            let column = |heading| Column { heading, begin: true, end: true, figures: false, others: false };
            table = row.into_iter().map(column).collect();
        } else if row.len() < 2 && !line.starts_with("    ") {
            close(&mut table);
        } else {
            // What belongs to a row stands under it, indented, and is no row.
            let is_row = !line.starts_with("    ") || row.first().is_some_and(|cell| is_figure(&cell.text));
            for cell in row.iter().filter(|_| is_row) {
                // Marks at the beginning have no heading.
                let over =
                    |column: &&mut Column| cell.start < column.heading.end && column.heading.start < cell.end;
                let Some(column) = table.iter_mut().find(over) else { continue };
                // `  worker 0` under an interface: a row of its own that belongs to it.
                let indent = if line.starts_with("  worker") { 2 } else { 0 };
                column.begin &=
                    cell.start == column.heading.start || cell.start == column.heading.start + indent;
                column.end &= cell.end == column.heading.end;
                column.figures |= is_figure(&cell.text);
                column.others |= !is_figure(&cell.text) && cell.text != "-";
            }
        }
    }
    close(&mut table);
    crooked
}

#[test]
fn columns_are_straight_on_one_side_and_figures_on_the_right() {
    let good = "   name  worker  age\n!  a          1  2.50 s\n";
    assert_eq!(crooked(good, &[]), ["the column `age` has its figures on the left"]);
    assert_eq!(crooked(&good.replace("2.50 s", " 12"), &[]), [""; 0]);
    let shifted = "name  worker  dom\nab         1  0\nc      7      0\n";
    assert_eq!(crooked(shifted, &["dom"]), ["the column `worker` is not straight"]);
    let under = "name  worker  dom\nab         1  x\n    state  7  and more\n";
    assert_eq!(crooked(under, &[]), [""; 0]);
}
