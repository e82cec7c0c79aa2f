//! Lists of things: their columns, and in what order and through which filter they are shown.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::data::{AppWorker, Session, Snapshot};
use super::rates::Rates;
use super::text::{bytes, count, optional, rate, span};

/// What a list is sorted by.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Key {
    /// Largest first, unless reversed.
    Number(f64),
    /// From A to Z, unless reversed.
    Text(String),
}

impl Key {
    fn order(&self, other: &Key) -> Ordering {
        match (self, other) {
            (Key::Number(one), Key::Number(other)) => other.total_cmp(one),
            (Key::Text(one), Key::Text(other)) => one.cmp(other),
            (Key::Number(_), Key::Text(_)) => Ordering::Less,
            (Key::Text(_), Key::Number(_)) => Ordering::Greater,
        }
    }
}

/// A column of a list.
pub(super) struct Column<R> {
    /// Its heading.
    pub(super) title: &'static str,
    /// When a screen is too narrow, the column with the largest number goes first; 0 stays.
    pub(super) spare: u8,
    /// What the list is sorted by when this column is chosen.
    pub(super) key: fn(&R) -> Key,
    /// What stands in the cell.
    pub(super) text: fn(&R) -> String,
}

/// A thing that stands in a list.
pub(super) trait Row: Sized + 'static {
    /// The columns, left to right. Those sorted as numbers stand to the right.
    const COLUMNS: &'static [Column<Self>];
    /// What it is known by from look to look.
    fn id(&self) -> String;
    /// Whether it should draw the eye.
    fn is_alarming(&self) -> bool {
        false
    }
}

/// Where a person is in a list.
#[derive(Clone, Debug, Default)]
pub(super) struct ListState {
    /// The line of the cursor.
    pub(super) cursor: usize,
    /// What the cursor stays on while lines move; nothing: it stays on the first line.
    held: Option<String>,
    /// Index of the column that it is sorted by.
    pub(super) sort: usize,
    /// The other way round.
    pub(super) reversed: bool,
    /// Words that must stand in a line, all of them.
    pub(super) filter: String,
}

impl ListState {
    /// Sorted by this column.
    pub(super) fn sorted_by(sort: usize) -> ListState {
        ListState { sort, ..ListState::default() }
    }

    /// The rows that the filter lets through, in order; ties keep the order that they came in.
    pub(super) fn arranged<R: Row>(&self, rows: Vec<R>, is_filtered: bool) -> Vec<R> {
        let words: Vec<String> = self.filter.split_whitespace().map(str::to_lowercase).collect();
        let passes = |row: &R| {
            let cells: Vec<String> =
                R::COLUMNS.iter().map(|column| (column.text)(row).to_lowercase()).collect();
            words.iter().all(|word| cells.iter().any(|cell| cell.contains(word.as_str())))
        };
        let mut rows: Vec<R> = rows.into_iter().filter(|row| is_filtered || passes(row)).collect();
        if let Some(column) = R::COLUMNS.get(self.sort) {
            let order = |one: &R, other: &R| (column.key)(one).order(&(column.key)(other));
            rows.sort_by(|one, other| if self.reversed { order(other, one) } else { order(one, other) });
        }
        rows
    }

    /// Puts the cursor where what it stood on is now.
    pub(super) fn follow<R: Row>(&mut self, rows: &[R]) {
        let held = self.held.as_ref().and_then(|held| rows.iter().position(|row| row.id() == *held));
        self.cursor = held.unwrap_or(self.cursor).min(rows.len().saturating_sub(1));
    }

    /// Moves the cursor by some lines.
    pub(super) fn step<R: Row>(&mut self, rows: &[R], lines: isize) {
        self.cursor = self.cursor.saturating_add_signed(lines).min(rows.len().saturating_sub(1));
        // On the first line one sees what comes first, whatever it is.
        self.held = rows.get(self.cursor).filter(|_| self.cursor > 0).map(Row::id);
    }

    /// Sorts by the next column, or the one before.
    pub(super) fn next_sort<R: Row>(&mut self, forward: bool) {
        let columns = R::COLUMNS.len();
        self.sort = (self.sort + if forward { 1 } else { columns - 1 }) % columns;
        self.reversed = false;
    }
}

fn number(figure: Option<f64>) -> Key {
    Key::Number(figure.unwrap_or(-1.0))
}

/// `a` before `b`, `2` before `10`: handles and addresses by their numbers.
fn text_key(text: &str) -> Key {
    let mut key = String::new();
    let mut digits = String::new();
    for character in text.chars().chain(['\0']) {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        if !digits.is_empty() {
            key.push_str(&format!("{digits:0>10}"));
            digits.clear();
        }
        key.push(character);
    }
    Key::Text(key)
}

impl Row for Session {
    const COLUMNS: &'static [Column<Session>] = &[
        Column {
            title: "session",
            spare: 0,
            key: |row| text_key(&row.handle),
            text: |row| row.handle.clone(),
        },
        Column {
            title: "app worker",
            spare: 3,
            key: |row| text_key(&row.app_worker),
            text: |row| row.app_worker.clone(),
        },
        Column {
            title: "transport",
            spare: 5,
            key: |row| text_key(&row.transport),
            text: |row| row.transport.clone(),
        },
        Column { title: "local", spare: 4, key: |row| text_key(&row.local), text: |row| row.local.clone() },
        Column {
            title: "remote",
            spare: 0,
            key: |row| text_key(&row.remote),
            text: |row| row.remote.clone(),
        },
        Column { title: "state", spare: 0, key: |row| text_key(&row.state), text: |row| row.state.clone() },
        Column { title: "rx", spare: 2, key: |row| number(row.rx), text: |row| optional(row.rx, bytes) },
        Column { title: "tx", spare: 2, key: |row| number(row.tx), text: |row| optional(row.tx, bytes) },
        Column {
            title: "queued",
            spare: 0,
            key: |row| number(Some(row.queued())),
            text: |row| bytes(row.queued()),
        },
        Column {
            title: "rtt",
            spare: 0,
            key: |row| number(row.srtt_us),
            text: |row| optional(row.srtt_us, span),
        },
        Column {
            title: "age",
            spare: 0,
            key: |row| number(row.age_us),
            text: |row| optional(row.age_us, span),
        },
    ];

    fn id(&self) -> String {
        self.handle.clone()
    }

    fn is_alarming(&self) -> bool {
        self.is_stuck
    }
}

/// Index of `rtt` among the columns of sessions.
pub(super) const BY_RTT: usize = 9;

/// An app worker and what it does.
#[derive(Clone, Debug)]
pub(super) struct AppRow {
    /// The app worker.
    pub(super) worker: AppWorker,
    /// Its connects that came up, a second.
    pub(super) established_rate: Option<f64>,
}

impl AppRow {
    fn figure(&self, name: &str) -> Option<f64> {
        self.worker.figures.get(name)
    }
}

/// A column that is a figure of the row: title, spare, and where it stands in the answer.
macro_rules! figure {
    ($title:literal, $spare:literal, $path:literal) => {
        Column {
            title: $title,
            spare: $spare,
            key: |row| number(row.figure($path)),
            text: |row| optional(row.figure($path), count),
        }
    };
}

impl Row for AppRow {
    const COLUMNS: &'static [Column<AppRow>] = &[
        Column { title: "app worker", spare: 0, key: |row| text_key(&row.id()), text: Row::id },
        Column {
            title: "state",
            spare: 2,
            key: |row| text_key(&row.worker.state),
            text: |row| row.worker.state.clone(),
        },
        Column {
            title: "sessions",
            spare: 0,
            key: |row| number(row.worker.sessions),
            text: |row| optional(row.worker.sessions, count),
        },
        figure!("half-open", 0, "half_opens"),
        Column {
            title: "connects/s",
            spare: 2,
            key: |row| number(row.established_rate),
            text: |row| optional(row.established_rate, rate),
        },
        figure!("requested", 3, "outcomes.requested"),
        figure!("established", 0, "outcomes.established"),
        figure!("refused", 0, "outcomes.refused"),
        figure!("timed out", 1, "outcomes.timed_out"),
        figure!("unreachable", 4, "outcomes.unreachable"),
        figure!("cancelled", 4, "outcomes.cancelled"),
        figure!("failed", 3, "outcomes.failed"),
        Column {
            title: "listens at",
            spare: 0,
            key: |row| text_key(&row.worker.listeners.join(" ")),
            text: |row| match &row.worker.listeners[..] {
                [] => "-".to_owned(),
                listeners => listeners.join(" "),
            },
        },
    ];

    fn id(&self) -> String {
        self.worker.name()
    }
}

/// The app workers of a look.
pub(super) fn apps(snapshot: &Snapshot, rates: Option<&Rates>) -> Vec<AppRow> {
    let established =
        |worker: &AppWorker| rates.and_then(|rates| rates.established.get(&worker.name()).copied());
    let row = |worker: &AppWorker| AppRow { worker: worker.clone(), established_rate: established(worker) };
    snapshot.apps.iter().map(row).collect()
}

/// A reason for drops, on all workers.
#[derive(Clone, Debug)]
pub(super) struct ErrorRow {
    /// Stable name.
    pub(super) reason: String,
    /// What it means.
    pub(super) help: String,
    /// How often, all workers together.
    pub(super) count: f64,
    /// A second.
    pub(super) rate: Option<f64>,
    /// How often on each worker where it happened.
    pub(super) workers: BTreeMap<u64, f64>,
}

impl Row for ErrorRow {
    const COLUMNS: &'static [Column<ErrorRow>] = &[
        Column {
            title: "reason",
            spare: 0,
            key: |row| text_key(&row.reason),
            text: |row| row.reason.clone(),
        },
        Column { title: "count", spare: 0, key: |row| number(Some(row.count)), text: |row| count(row.count) },
        Column {
            title: "per second",
            spare: 0,
            key: |row| number(row.rate),
            text: |row| optional(row.rate, rate),
        },
        Column { title: "meaning", spare: 0, key: |row| text_key(&row.help), text: |row| row.help.clone() },
    ];

    fn id(&self) -> String {
        self.reason.clone()
    }

    fn is_alarming(&self) -> bool {
        self.rate.is_some_and(|rate| rate > 0.0)
    }
}

/// Index of `count` among the columns of errors.
pub(super) const BY_COUNT: usize = 1;

/// The drop reasons of a look. One that struck for the first time since the last look rose from zero.
pub(super) fn errors(snapshot: &Snapshot, rates: Option<&Rates>) -> Vec<ErrorRow> {
    let mut rows: BTreeMap<&str, ErrorRow> = BTreeMap::new();
    for worker in &snapshot.workers {
        for drop in &worker.drops {
            let row = rows.entry(&drop.reason).or_insert_with(|| ErrorRow {
                reason: drop.reason.clone(),
                help: drop.help.clone(),
                count: 0.0,
                rate: rates.and_then(|rates| rates.drops.get(&drop.reason).copied()),
                workers: BTreeMap::new(),
            });
            row.count += drop.count;
            *row.workers.entry(worker.number).or_insert(0.0) += drop.count;
        }
    }
    rows.into_values().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sessions() -> Vec<Session> {
        [("0:10.0", "echo/0", 5, 50), ("0:2.0", "sink/0", 900, 10), ("1:1.0", "echo/1", 0, 70)]
            .map(|(handle, app, rx, age)| {
                Session::read(&json!({ "session": handle, "app_worker": app, "rx_bytes": rx, "age_us": age }))
            })
            .into()
    }

    fn handles(rows: &[Session]) -> Vec<&str> {
        rows.iter().map(|row| row.handle.as_str()).collect()
    }

    #[test]
    fn numbers_sort_largest_first_and_handles_by_their_numbers() {
        let by = |sort| ListState::sorted_by(sort);
        const BY_QUEUED: usize = 8;
        assert_eq!([BY_QUEUED, BY_RTT].map(|index| Session::COLUMNS[index].title), ["queued", "rtt"]);
        assert_eq!(ErrorRow::COLUMNS[BY_COUNT].title, "count");
        assert_eq!(handles(&by(BY_QUEUED).arranged(sessions(), false)), ["0:2.0", "0:10.0", "1:1.0"]);
        assert_eq!(handles(&by(0).arranged(sessions(), false)), ["0:2.0", "0:10.0", "1:1.0"]);
        let reversed = ListState { reversed: true, ..by(10) };
        assert_eq!(handles(&reversed.arranged(sessions(), false)), ["0:2.0", "0:10.0", "1:1.0"]);
    }

    #[test]
    fn a_filter_wants_all_its_words_whatever_their_case() {
        let filtered = |filter: &str| ListState { filter: filter.to_owned(), ..ListState::default() };
        assert_eq!(handles(&filtered("ECHO 1:").arranged(sessions(), false)), ["1:1.0"]);
        assert!(filtered("echo sink").arranged(sessions(), false).is_empty());
        assert_eq!(filtered("app echo").arranged(sessions(), true).len(), 3, "the stack has filtered them");
    }

    #[test]
    fn the_cursor_stays_on_what_it_was_put_on_but_on_the_first_line() {
        let mut state = ListState::sorted_by(0);
        let rows = state.arranged(sessions(), false);
        state.step(&rows, 1);
        assert_eq!(rows[state.cursor].handle, "0:10.0");
        state.reversed = true;
        let rows = state.arranged(sessions(), false);
        state.follow(&rows);
        assert_eq!(rows[state.cursor].handle, "0:10.0");
        state.step(&rows, -9);
        state.reversed = false;
        let rows = state.arranged(sessions(), false);
        state.follow(&rows);
        assert_eq!(rows[state.cursor].handle, "0:2.0", "the first line, whatever stands there");
        state.step(&rows, 99);
        state.follow(&rows[..1]);
        assert_eq!(state.cursor, 0, "what it stood on is gone");
    }

    #[test]
    fn sorting_goes_round_the_columns() {
        let mut state = ListState { reversed: true, ..ListState::default() };
        state.next_sort::<ErrorRow>(false);
        assert_eq!((state.sort, state.reversed), (3, false));
        state.next_sort::<ErrorRow>(true);
        assert_eq!(state.sort, 0);
    }

    #[test]
    fn drops_of_all_workers_are_one_line_a_reason() {
        let drop = |count: u64| json!([{ "reason": "checksum", "count": count, "help": "bad" }]);
        let workers = json!([{ "worker": 0, "drops": drop(2) }, { "worker": 1, "drops": drop(3) }]);
        let rows = errors(&Snapshot::read(&json!({ "workers": workers })), None);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].count, rows[0].workers[&1], rows[0].rate), (5.0, 3.0, None));
    }
}
