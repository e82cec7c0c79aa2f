//! What is on the screen and what keys do to it: pure, without terminal, socket or clock.

use std::cell::Cell;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::data::{Pair, Session, Snapshot, pairs};
use super::lists::{self, AppRow, BY_COUNT, BY_RTT, ErrorRow, ListState};
use super::rates::{Between, History, Rates, between};
use super::source::{Look, Wants};
use crate::ctl::is_filter_word;
use crate::error::CliError;

/// Times between looks that `+` and `-` go through, in milliseconds.
const INTERVALS: [u64; 9] = [100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];
/// Lines of a page, for the keys that turn pages.
const PAGE: isize = 10;
/// How long a notice is shown, in seconds.
const NOTICE: f64 = 10.0;
/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum View {
    /// Workers, rates, sessions by state, outcomes.
    Overview,
    /// Sessions.
    Sessions,
    /// App workers.
    Apps,
    /// Reasons for drops.
    Errors,
}

impl View {
    /// All, in the order of their keys `1`, `2`, ...
    pub(super) const ALL: [View; 4] = [View::Overview, View::Sessions, View::Apps, View::Errors];

    /// Its name on the screen.
    pub(super) fn name(self) -> &'static str {
        match self {
            View::Overview => "overview",
            View::Sessions => "sessions",
            View::Apps => "apps",
            View::Errors => "errors",
        }
    }

    fn turned(self, by: usize) -> View {
        let index = View::ALL.iter().position(|view| *view == self).unwrap_or(0);
        View::ALL[(index + by) % View::ALL.len()]
    }
}

/// What the one who runs the model has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing but to draw.
    Draw,
    /// Look at the stack at once: something is wanted that is not there.
    Look,
    /// Draw everything anew: something else wrote on the screen.
    Redraw,
    /// Stop, as the shell's job.
    Stop,
    /// End.
    Quit,
}

/// What stands over the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing.
    Nothing,
    /// The list of keys.
    Help,
    /// A filter is being typed; what it was before.
    Filter(String),
}

/// What a detail is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The session of this handle.
    Session(String),
    /// The app worker of this name.
    App(String),
    /// The drop reason of this name.
    Error(String),
}

/// All about one thing.
#[derive(Clone, Debug)]
pub(super) struct Detail {
    /// What it is of.
    pub(super) subject: Subject,
    /// Names and values.
    pub(super) pairs: Vec<Pair>,
    /// Which of them are not what they were at the look before.
    pub(super) changed: Vec<bool>,
    /// What is to be said of it.
    pub(super) note: Option<String>,
    /// The first line shown.
    pub(super) scroll: usize,
    /// The most that it can be on the screen, which is known when it is drawn.
    pub(super) last_scroll: Cell<Option<usize>>,
}

impl Detail {
    fn set(&mut self, new: Vec<Pair>) {
        let (was, is) = (paths(&self.pairs), paths(&new));
        let changed = |path: &String, pair: &Pair| {
            let before = was.iter().position(|other| other == path).map(|index| &self.pairs[index].value);
            !self.pairs.is_empty() && before != Some(&pair.value)
        };
        self.changed = is.iter().zip(&new).map(|(path, pair)| changed(path, pair)).collect();
        self.pairs = new;
    }
}

/// Each pair's name with the names of what it stands in.
fn paths(pairs: &[Pair]) -> Vec<String> {
    let mut outer: Vec<&str> = Vec::new();
    let path = |pair: &Pair, outer: &[&str]| format!("{}.{}", outer.join("."), pair.name);
    pairs
        .iter()
        .map(|pair| {
            outer.truncate(pair.depth);
            let path = path(pair, &outer);
            outer.push(&pair.name);
            path
        })
        .collect()
}

/// Whether the stack is there.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Link {
    /// It is.
    Up,
    /// It is not.
    Gone {
        /// Why.
        why: String,
        /// Since when, in seconds of our time.
        since: f64,
    },
}

/// The whole state of the program. Times are seconds of any clock that goes forward.
pub(super) struct Model {
    /// What is shown.
    pub(super) view: View,
    /// What stands over it.
    pub(super) over: Over,
    /// The last look, if there was one.
    pub(super) snapshot: Option<Snapshot>,
    /// What happened since the look before.
    pub(super) rates: Option<Rates>,
    /// What happened before that.
    pub(super) history: History,
    /// The first worker of the overview's list.
    pub(super) first_worker: usize,
    /// The most that it can be on the screen, which is known when it is drawn.
    pub(super) last_first_worker: Cell<Option<usize>>,
    /// The list of sessions.
    pub(super) sessions: ListState,
    /// The list of app workers.
    pub(super) apps: ListState,
    /// The list of drop reasons.
    pub(super) errors: ListState,
    /// What is drilled into.
    pub(super) detail: Option<Detail>,
    /// The terminal can show nothing but ASCII.
    pub(super) is_ascii: bool,
    /// No looks are taken.
    pub(super) is_paused: bool,
    /// Milliseconds between looks.
    pub(super) interval_ms: u64,
    /// Whether the stack is there.
    pub(super) link: Link,
    /// Why the stack did not take the filter.
    pub(super) filter_refused: Option<String>,
    /// Whether the sessions listed are those that the stack's filter let through.
    is_filtered: bool,
    notice: Option<(f64, String)>,
}

impl Model {
    /// Before the first look.
    pub(super) fn new(view: View, interval_ms: u64, filter: &str) -> Model {
        let mut model = Model {
            view,
            over: Over::Nothing,
            snapshot: None,
            rates: None,
            history: History::default(),
            first_worker: 0,
            last_first_worker: Cell::new(None),
            sessions: ListState::sorted_by(BY_RTT),
            apps: ListState::default(),
            errors: ListState::sorted_by(BY_COUNT),
            detail: None,
            is_ascii: false,
            is_paused: false,
            interval_ms,
            link: Link::Up,
            filter_refused: None,
            is_filtered: false,
            notice: None,
        };
        if let Some(list) = model.list_mut() {
            filter.clone_into(&mut list.filter);
        }
        model
    }

    /// What the next look is to bring.
    pub(super) fn wants(&self) -> Wants {
        let session = match &self.detail {
            Some(Detail { subject: Subject::Session(handle), .. }) => Some(handle.clone()),
            _ => None,
        };
        let is_listed = self.view == View::Sessions;
        Wants { sessions: is_listed.then(|| self.filter_of_the_stack()), session }
    }

    /// The filter of the sessions, when it is one of the stack's and not being typed.
    fn filter_of_the_stack(&self) -> Option<String> {
        let filter = self.sessions.filter.trim();
        // It knows all sessions, we know some.
        let is_stacks = is_filter_word(filter.split_whitespace().next()?)
            // What ends a command is no filter.
            && !filter.contains([';', '|'])
            && !matches!(self.over, Over::Filter(_));
        is_stacks.then(|| filter.to_owned())
    }

    /// The sessions listed, arranged.
    pub(super) fn session_rows(&self) -> Vec<Session> {
        let rows = self.snapshot.as_ref().map(|snapshot| snapshot.sessions.clone());
        self.sessions.arranged(rows.unwrap_or_default(), self.is_filtered)
    }

    /// The app workers listed, arranged.
    pub(super) fn app_rows(&self) -> Vec<AppRow> {
        let rows = self.snapshot.as_ref().map(|snapshot| lists::apps(snapshot, self.rates.as_ref()));
        self.apps.arranged(rows.unwrap_or_default(), false)
    }

    /// The drop reasons listed, arranged.
    pub(super) fn error_rows(&self) -> Vec<ErrorRow> {
        let rows = self.snapshot.as_ref().map(|snapshot| lists::errors(snapshot, self.rates.as_ref()));
        self.errors.arranged(rows.unwrap_or_default(), false)
    }

    /// The list that is shown.
    pub(super) fn list(&self) -> Option<&ListState> {
        match self.view {
            View::Overview => None,
            View::Sessions => Some(&self.sessions),
            View::Apps => Some(&self.apps),
            View::Errors => Some(&self.errors),
        }
    }

    fn list_mut(&mut self) -> Option<&mut ListState> {
        match self.view {
            View::Overview => None,
            View::Sessions => Some(&mut self.sessions),
            View::Apps => Some(&mut self.apps),
            View::Errors => Some(&mut self.errors),
        }
    }

    /// Something that happened a moment ago and is worth a word.
    pub(super) fn notice(&self, now: f64) -> Option<&str> {
        self.notice.as_ref().filter(|(since, _)| now - since < NOTICE).map(|(_, text)| text.as_str())
    }

    /// A look is there.
    pub(super) fn on_look(&mut self, look: Look, now: f64) {
        let Look { snapshot, filter_refused, session } = look;
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            Err(why) => {
                let since = match &self.link {
                    Link::Gone { since, .. } => *since,
                    Link::Up => {
                        self.history.push_gap();
                        now
                    }
                };
                self.link = Link::Gone { why, since };
                return;
            }
        };
        if matches!(self.link, Link::Gone { .. }) {
            self.notice = Some((now, "the stack answers again".to_owned()));
        }
        self.link = Link::Up;
        match self.snapshot.as_ref().map(|before| between(before, &snapshot)) {
            Some(Between::Rates(rates)) => {
                self.history.push(&rates);
                self.rates = Some(*rates);
            }
            Some(Between::Restarted) => {
                self.history.push_gap();
                self.rates = None;
                self.notice = Some((now, "the stack was started anew".to_owned()));
            }
            Some(Between::Nothing) | None => {}
        }
        self.is_filtered = self.filter_of_the_stack().is_some() && filter_refused.is_none();
        self.filter_refused = filter_refused;
        self.snapshot = Some(snapshot);
        self.follow();
        self.fill_detail(session);
    }

    fn follow(&mut self) {
        let rows = self.session_rows();
        self.sessions.follow(&rows);
        let rows = self.app_rows();
        self.apps.follow(&rows);
        let rows = self.error_rows();
        self.errors.follow(&rows);
    }

    fn fill_detail(&mut self, session: Option<Result<Value, String>>) {
        let Some(mut detail) = self.detail.take() else { return };
        let gone = |what: &str| Some(format!("{what}; what it was last"));
        match &detail.subject {
            Subject::Session(handle) => {
                let mut listed = self.snapshot.iter().flat_map(|snapshot| &snapshot.sessions);
                let listed = listed.find(|row| row.handle == *handle).map(|row| row.all.clone());
                match (session, listed) {
                    (Some(Ok(answer)), _) => {
                        detail.note = None;
                        detail.set(pairs(only_session(&answer)));
                    }
                    (Some(Err(why)), Some(listed)) => {
                        detail.note = Some(format!("as far as the list goes: {why}"));
                        detail.set(pairs(&listed));
                    }
                    (Some(Err(why)), None) => detail.note = gone(&format!("it is gone ({why})")),
                    // It was chosen after this look began.
                    (None, listed) => {
                        if let Some(listed) = listed.filter(|_| detail.pairs.is_empty()) {
                            detail.set(pairs(&listed));
                        }
                    }
                }
            }
            Subject::App(name) => {
                match self.app_rows_all().into_iter().find(|row| lists::Row::id(row) == *name) {
                    Some(row) => {
                        let mut value = json!({ "app": row.worker.app });
                        if let (Some(value), Some(all)) = (value.as_object_mut(), row.worker.all.as_object())
                        {
                            value.extend(all.clone());
                        }
                        detail.note = None;
                        detail.set(pairs(&value));
                    }
                    None => detail.note = gone("it is detached"),
                }
            }
            Subject::Error(reason) => {
                let rows =
                    self.snapshot.as_ref().map(|snapshot| lists::errors(snapshot, self.rates.as_ref()));
                if let Some(row) = rows.unwrap_or_default().into_iter().find(|row| row.reason == *reason) {
                    let counts = row
                        .workers
                        .iter()
                        .map(|(worker, count)| (format!("worker {worker}"), json!(whole(*count))));
                    let workers: serde_json::Map<String, Value> = counts.collect();
                    detail.set(pairs(&json!({
                        "reason": row.reason, "meaning": row.help, "count": whole(row.count), "per second": row.rate,
                        "by worker": workers,
                    })));
                }
            }
        }
        self.detail = Some(detail);
    }

    fn app_rows_all(&self) -> Vec<AppRow> {
        self.snapshot.as_ref().map(|snapshot| lists::apps(snapshot, self.rates.as_ref())).unwrap_or_default()
    }

    /// A key was pressed.
    pub(super) fn on_key(&mut self, key: KeyEvent) -> Effect {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Effect::Quit,
            KeyCode::Char('z') if is_control => return Effect::Stop,
            KeyCode::Char('l') if is_control => return Effect::Redraw,
            _ => {}
        }
        // Together with these a letter is another key.
        let is_other = key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
            && matches!(key.code, KeyCode::Char(_));
        match std::mem::replace(&mut self.over, Over::Nothing) {
            Over::Help => Effect::Draw,
            Over::Filter(before) => self.on_filter_key(key.code, is_control, is_other, before),
            Over::Nothing if is_other => Effect::Draw,
            Over::Nothing => self.on_plain_key(key.code),
        }
    }

    fn on_filter_key(&mut self, key: KeyCode, is_control: bool, is_other: bool, before: String) -> Effect {
        let Some(list) = self.list_mut() else { return Effect::Draw };
        match key {
            // As in a shell: the whole line, the last word.
            KeyCode::Char('u') if is_control => list.filter.clear(),
            KeyCode::Char('w') if is_control => {
                let mut before = list.filter.trim_end().char_indices();
                let blank = before.rfind(|(_, character)| character.is_whitespace());
                let kept = blank.map_or(0, |(at, character)| at + character.len_utf8());
                list.filter.truncate(kept);
            }
            // What some terminals send for Backspace.
            KeyCode::Char('h') if is_control => {
                list.filter.pop();
            }
            KeyCode::Char(_) if is_other => {}
            KeyCode::Enter => return Effect::Look,
            KeyCode::Esc => {
                list.filter = before;
                return Effect::Look;
            }
            KeyCode::Backspace => {
                list.filter.pop();
            }
            KeyCode::Char(character) => list.filter.push(character),
            _ => {}
        }
        self.over = Over::Filter(before);
        self.is_filtered = false;
        self.filter_refused = None;
        self.follow();
        Effect::Draw
    }

    fn on_plain_key(&mut self, key: KeyCode) -> Effect {
        match key {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Char('?' | 'h') => self.over = Over::Help,
            KeyCode::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                return if self.is_paused { Effect::Draw } else { Effect::Look };
            }
            KeyCode::Char('+') => {
                let longer = INTERVALS.into_iter().find(|interval| *interval > self.interval_ms);
                self.interval_ms = longer.unwrap_or(self.interval_ms);
            }
            KeyCode::Char('-') => {
                let shorter = INTERVALS.into_iter().rfind(|interval| *interval < self.interval_ms);
                self.interval_ms = shorter.unwrap_or(self.interval_ms);
            }
            KeyCode::Tab => return self.show(self.view.turned(1)),
            KeyCode::BackTab => return self.show(self.view.turned(View::ALL.len() - 1)),
            KeyCode::Char(digit @ '1'..='4') => {
                // Cannot fail because: the digits are those of ALL.
                return self.show(View::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left if self.detail.is_some() => self.detail = None,
            KeyCode::Esc => {
                if let Some(list) = self.list_mut() {
                    list.filter.clear();
                    return Effect::Look;
                }
            }
            KeyCode::Char('/') => {
                if self.view == View::Overview {
                    self.view = View::Sessions;
                }
                self.detail = None;
                self.over = Over::Filter(self.list().map(|list| list.filter.clone()).unwrap_or_default());
            }
            KeyCode::Char('s' | '>') => self.sort(true),
            KeyCode::Char('<') => self.sort(false),
            KeyCode::Char('r') => {
                if let Some(list) = self.list_mut() {
                    list.reversed = !list.reversed;
                }
            }
            KeyCode::Enter | KeyCode::Right if self.detail.is_none() => return self.drill(),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            _ => {}
        }
        self.follow();
        Effect::Draw
    }

    fn show(&mut self, view: View) -> Effect {
        (self.view, self.detail) = (view, None);
        // Sessions are asked for in full only where they are listed.
        Effect::Look
    }

    fn sort(&mut self, forward: bool) {
        match self.view {
            View::Overview => {}
            View::Sessions => self.sessions.next_sort::<Session>(forward),
            View::Apps => self.apps.next_sort::<AppRow>(forward),
            View::Errors => self.errors.next_sort::<ErrorRow>(forward),
        }
    }

    fn step(&mut self, lines: isize) {
        if let Some(detail) = &mut self.detail {
            let last = detail.last_scroll.get().unwrap_or(detail.pairs.len().saturating_sub(1));
            // What it was may be too much for a screen that has grown.
            detail.scroll = detail.scroll.min(last).saturating_add_signed(lines).min(last);
            return;
        }
        match self.view {
            View::Overview => {
                let workers = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.workers.len());
                let last = self.last_first_worker.get().unwrap_or(workers.saturating_sub(1));
                self.first_worker = self.first_worker.min(last).saturating_add_signed(lines).min(last);
            }
            View::Sessions => {
                let rows = self.session_rows();
                self.sessions.step(&rows, lines);
            }
            View::Apps => {
                let rows = self.app_rows();
                self.apps.step(&rows, lines);
            }
            View::Errors => {
                let rows = self.error_rows();
                self.errors.step(&rows, lines);
            }
        }
    }

    fn drill(&mut self) -> Effect {
        let subject = match self.view {
            View::Overview => return self.show(View::Sessions),
            View::Sessions => {
                self.session_rows().get(self.sessions.cursor).map(|row| Subject::Session(row.handle.clone()))
            }
            View::Apps => self.app_rows().get(self.apps.cursor).map(|row| Subject::App(lists::Row::id(row))),
            View::Errors => {
                self.error_rows().get(self.errors.cursor).map(|row| Subject::Error(row.reason.clone()))
            }
        };
        let detail = |subject| Detail {
            subject,
            pairs: Vec::new(),
            changed: Vec::new(),
            note: None,
            scroll: 0,
            last_scroll: Cell::new(None),
        };
        self.detail = subject.map(detail);
        self.fill_detail(None);
        Effect::Look
    }
}

/// A count as the whole number that it is.
fn whole(count: f64) -> u64 {
    // Cannot lose anything that matters because: no counter that was told is negative or has a fraction.
    count as u64
}

/// The session of an answer that is a list of one.
fn only_session(answer: &Value) -> &Value {
    match answer["sessions"].as_array().map(Vec::as_slice) {
        Some([only]) => only,
        _ => answer,
    }
}

/// How long between looks, of `--interval`.
///
/// # Errors
/// A time that is too short or too long.
pub(super) fn interval_ms(interval: std::time::Duration) -> Result<u64, CliError> {
    match u64::try_from(interval.as_millis()) {
        Ok(millis @ 100..=60_000) => Ok(millis),
        _ => Err(CliError::usage("--interval wants a time from 100ms to 60s, for example 2s")),
    }
}

#[cfg(test)]
mod tests;
