//! Which transitions happened after which faults, and which actions inside which callbacks: two tables of counts.

use super::faults::Fault;

/// A transition: a row of the first table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Row {
    /// Connect outcomes.
    Established,
    Refused,
    TimedOut,
    Unreachable,
    Cancelled,
    Detached,
    AddressInUse,
    AddressNotAvailable,
    NoRoom,
    /// An inbound session.
    Accepted,
    /// Ends of sessions.
    Finished,
    PeerReset,
    LocalReset,
    EndTimedOut,
    EndUnreachable,
    EndNoRoom,
    /// The peer closed its direction.
    PeerClosed,
    /// An answer of the peer after the outcome was decided.
    Late,
    /// An outcome that could not be told.
    Undelivered,
    /// Ends of app workers.
    DetachReset,
    DetachLinger,
    DetachStuck,
    DetachPanic,
}

/// Rows of the first table, with names in order.
pub(crate) const ROWS: [&str; 23] = [
    "connect established",
    "connect refused",
    "connect timed-out",
    "connect unreachable",
    "connect cancelled",
    "connect detached",
    "connect in-use",
    "connect no-address",
    "connect no-room",
    "accepted",
    "closed finished",
    "closed peer-reset",
    "closed local-reset",
    "closed timed-out",
    "closed unreachable",
    "closed no-room",
    "peer closed",
    "late answer",
    "undelivered",
    "detach reset",
    "detach linger",
    "detach stuck",
    "detach panic",
];

/// A callback: a row of the second table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Callback {
    Attached,
    Accepted,
    ConnectedOk,
    ConnectedErr,
    Readable,
    Writable,
    PeerClosed,
    Reset,
    Closed,
    Timer,
    Notified,
    Detaching,
    MainAttached,
    MainListening,
    MainCleaned,
    MainWorkerDetached,
}

/// Callbacks, with names in order.
pub(crate) const CALLBACKS: [&str; 16] = [
    "attached",
    "accepted",
    "connected ok",
    "connected err",
    "readable",
    "writable",
    "peer_closed",
    "reset",
    "closed",
    "timer",
    "notified",
    "detaching",
    "main attached",
    "main listening",
    "main cleaned",
    "main wrk detached",
];

/// What an app does: a column of the second table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Action {
    Connect,
    Cancel,
    Listen,
    Unlisten,
    Detach,
    Panic,
    // On workers only.
    Close,
    HalfClose,
    Reset,
    Read,
    Write,
    Splice,
    Timer,
    Stale,
    // On main only.
    DetachApp,
}

/// Actions, with names in order.
pub(crate) const ACTIONS: [&str; 15] = [
    "connect", "cancel", "listen", "unlist", "detach", "panic", "close", "half", "reset", "read", "write",
    "splice", "timer", "stale", "det-app",
];

const COLUMNS: usize = Fault::COUNT + 1;

/// Cells of the first table that cannot be reached, with the reason. `*` stands for every fault.
pub(crate) const IMPOSSIBLE: &[(&str, &str, &str)] = &[
    ("closed no-room", "*", "no transport ends a session with this reason"),
    ("closed timed-out", "none", "between hosts that step and links that carry nothing times out"),
    ("closed unreachable", "none", "only an ICMP error gives this reason"),
    ("detach stuck", "none", "only a worker that does not step is stuck"),
];

/// Cells of the second table that cannot be reached, with the reason.
pub(crate) const IMPOSSIBLE_ACTIONS: &[(&str, &str, &str)] = &[
    ("attached", "close", "the first callback of an object: it has no session yet"),
    ("attached", "half", "as above"),
    ("attached", "reset", "as above"),
    ("attached", "read", "as above"),
    ("attached", "write", "as above"),
    ("attached", "splice", "as above"),
];

/// Both tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    cells: [[u64; COLUMNS]; ROWS.len()],
    actions: [[u64; ACTIONS.len()]; CALLBACKS.len()],
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage { cells: [[0; COLUMNS]; ROWS.len()], actions: [[0; ACTIONS.len()]; CALLBACKS.len()] }
    }
}

impl Coverage {
    /// A transition happened on a host that these faults had struck.
    pub(crate) fn transit(&mut self, row: Row, struck: u32) {
        let row = &mut self.cells[row as usize];
        if struck == 0 {
            row[0] += 1;
        }
        for (fault, cell) in row[1..].iter_mut().enumerate() {
            *cell += u64::from(struck >> fault & 1);
        }
    }

    /// An app did something in a callback.
    pub(crate) fn act(&mut self, callback: Callback, action: Action) {
        self.actions[callback as usize][action as usize] += 1;
    }

    /// Adds another world's.
    pub fn add(&mut self, other: &Coverage) {
        let rows = self.cells.iter_mut().flatten().zip(other.cells.iter().flatten());
        let actions = self.actions.iter_mut().flatten().zip(other.actions.iter().flatten());
        rows.chain(actions).for_each(|(cell, more)| *cell += more);
    }

    /// Both tables, as text.
    #[must_use]
    pub fn tables(&self) -> String {
        let mut text = String::from("transition x fault that had struck the host\n");
        let columns: Vec<&str> = std::iter::once("none").chain(Fault::NAMES).collect();
        table(&mut text, &ROWS, &columns, |row, column| self.cells[row][column]);
        text.push_str("\ncallback x action inside it\n");
        table(&mut text, &CALLBACKS, &ACTIONS, |row, column| self.actions[row][column]);
        text
    }

    /// Cells that are empty and not known to be impossible.
    #[must_use]
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        let columns: Vec<&str> = std::iter::once("none").chain(Fault::NAMES).collect();
        for (row, cells) in ROWS.iter().zip(&self.cells) {
            for (column, _) in columns.iter().zip(cells).filter(|(_, count)| **count == 0) {
                if !is_listed(IMPOSSIBLE, row, column) {
                    gaps.push(format!("{row} after {column}"));
                }
            }
        }
        for (number, (row, cells)) in CALLBACKS.iter().zip(&self.actions).enumerate() {
            for (action, (column, _)) in
                ACTIONS.iter().zip(cells).enumerate().filter(|(_, (_, count))| **count == 0)
            {
                if is_offered(number, action) && !is_listed(IMPOSSIBLE_ACTIONS, row, column) {
                    gaps.push(format!("{column} in {row}"));
                }
            }
        }
        gaps
    }
}

/// Whether the context of a callback offers an action at all.
fn is_offered(callback: usize, action: usize) -> bool {
    let on_main = callback >= Callback::MainAttached as usize;
    let main_only = action == Action::DetachApp as usize;
    let worker_only = action >= Action::Close as usize && !main_only;
    if on_main { !worker_only } else { !main_only }
}

fn is_listed(list: &[(&str, &str, &str)], row: &str, column: &str) -> bool {
    list.iter().any(|(r, c, _)| (*r == row || *r == "*") && (*c == column || *c == "*"))
}

fn table(text: &mut String, rows: &[&str], columns: &[&str], cell: impl Fn(usize, usize) -> u64) {
    use std::fmt::Write;
    let _ = write!(text, "{:19}", "");
    for column in columns {
        let _ = write!(text, " {column:>8}");
    }
    text.push('\n');
    for (number, row) in rows.iter().enumerate() {
        let _ = write!(text, "{row:19}");
        for column in 0..columns.len() {
            match cell(number, column) {
                0 => text.push_str("        -"),
                count => {
                    let _ = write!(text, " {count:>8}");
                }
            }
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_has_gaps_and_a_cell_counts_for_each_fault_that_struck() {
        let mut coverage = Coverage::default();
        assert!(coverage.gaps().iter().any(|gap| gap == "connect refused after none"));
        coverage.transit(Row::Refused, 0);
        coverage.transit(Row::Refused, (1 << Fault::Loss as u8) | (1 << Fault::Cut as u8));
        coverage.act(Callback::Reset, Action::Connect);
        let gaps = coverage.gaps();
        for covered in [
            "connect refused after none",
            "connect refused after loss",
            "connect refused after cut",
            "connect in reset",
        ] {
            assert!(!gaps.iter().any(|gap| gap == covered), "{covered}");
        }
        assert!(gaps.iter().any(|gap| gap == "connect refused after delay"));
        let mut sum = Coverage::default();
        sum.add(&coverage);
        assert_eq!(sum, coverage);
        assert!(sum.tables().contains("connect refused"));
    }
}
