//! `complete LINE`: what could be typed next, for clients that know nothing of this server's commands.
//!
//! It is asked with a line as far as it was typed, its last blank included, and answers with words that could stand in the
//! place of its last one.

use hoststack::app::WorkerId;
use hoststack::inspect::{Filter, SessionQuery};
use hoststack::{Query, StackHandle};
use serde_json::json;

use crate::ctl::format;
use crate::ctl::grammar::{self, Next};
use crate::ctl::kinds::Source;
use crate::ctl::line::{FILTERS, JSON, Piece, Word, pieces, quoted};
use crate::ctl::wire::Format;
use crate::plain;

/// Most candidates of one kind: a person reads them.
const CANDIDATES_MAX: usize = 100;

/// The answer: a candidate a line; in JSON with where the word begins that they would replace.
pub(crate) fn answer(stack: &StackHandle, line: &str, format: Format) -> String {
    let (start, candidates) = candidates(line, &|source, typed| things(stack, source, typed));
    match format {
        Format::Text => candidates.iter().map(|candidate| format!("{candidate}\n")).collect(),
        Format::Json => format::to_json(&json!({ "start": start, "candidates": candidates })),
    }
}

/// Names of what there is; `typed` is how they begin, of which only what narrows the question is heeded.
fn things(stack: &StackHandle, source: Source, typed: &str) -> Vec<String> {
    let ask = |query| stack.inspect(query).unwrap_or_default();
    match source {
        Source::None | Source::Words(_) => Vec::new(),
        Source::Sessions => {
            let filter = Filter { worker: worker_of(typed), ..Filter::default() };
            let query = SessionQuery { filter, limit: CANDIDATES_MAX, ..SessionQuery::default() };
            let sessions = ask(Query::Sessions(Box::new(query))).sessions;
            sessions.into_iter().map(|session| session.session.to_string()).collect()
        }
        Source::Connects => {
            let half_opens = ask(Query::half_opens(CANDIDATES_MAX)).half_opens;
            half_opens.into_iter().map(|half_open| half_open.connect).collect()
        }
        Source::Apps => ask(Query::Summary).apps.into_iter().map(|app| app.name).collect(),
        Source::Workers => (0..stack.workers()).map(|worker| worker.to_string()).collect(),
    }
}

/// The worker that the beginning of a handle names, `3:`: else the first hundred sessions may all be of others.
fn worker_of(typed: &str) -> Option<WorkerId> {
    typed.split_once(':').and_then(|(worker, _)| worker.parse().ok()).map(WorkerId)
}

/// Where the last word begins, and what could stand there.
fn candidates(line: &str, things: &dyn Fn(Source, &str) -> Vec<String>) -> (usize, Vec<String>) {
    let (mut pieces, grows, _) = pieces(line);
    let last = match pieces.last() {
        Some(Piece::Word(_)) if grows => pieces.pop(),
        _ => None,
    };
    let (start, typed) = match last {
        Some(Piece::Word(word)) => (word.start, word.text),
        _ => (line.len(), String::new()),
    };
    let cut = pieces.iter().rposition(|piece| !matches!(piece, Piece::Word(_)));
    let words: Vec<Word> = pieces[cut.map_or(0, |cut| cut + 1)..]
        .iter()
        .filter_map(|piece| match piece {
            // It may stand anywhere and belongs to no pattern.
            Piece::Word(word) if word.text == JSON && !word.quoted => None,
            Piece::Word(word) => Some(word.clone()),
            Piece::Semicolon | Piece::Bar => None,
        })
        .collect();
    let mut found: Vec<String> = Vec::new();
    let mut offer = |candidate: &str| {
        let candidate = quoted(candidate);
        if !found.contains(&candidate) {
            found.push(candidate);
        }
    };
    let begins = |candidate: &str| candidate.starts_with(&typed);
    // An option may be typed with two dashes.
    let dashed = typed.strip_prefix("--").map(str::to_owned);
    if cut.is_some_and(|cut| pieces[cut] == Piece::Bar) {
        let filters = FILTERS.iter().map(|(name, _)| *name).filter(|name| words.is_empty() && begins(name));
        filters.for_each(offer);
        return (start, found);
    }
    for next in grammar::next(inner(&words)) {
        match next {
            Next::Word(word) => match &dashed {
                Some(bare) if word.starts_with(bare) => offer(&format!("--{word}")),
                _ if begins(word) => offer(word),
                _ => {}
            },
            Next::Argument(argument) => {
                let (words, source) = argument.candidates();
                // States of TCP are typed in any case.
                let fits = |word: &&str| {
                    word.get(..typed.len()).is_some_and(|start| start.eq_ignore_ascii_case(&typed))
                };
                words.into_iter().filter(fits).for_each(&mut offer);
                if source != Source::None {
                    // What no line can hold cannot be typed.
                    let typeable = |thing: &&String| begins(thing) && plain::line(thing) == **thing;
                    things(source, &typed).iter().filter(typeable).for_each(|thing| offer(thing));
                }
            }
        }
    }
    (start, found)
}

/// The words of the command that a command is about: `help` and `watch` have one behind them.
fn inner(mut words: &[Word]) -> &[Word] {
    loop {
        let text = |index: usize| words.get(index).map(|word| word.text.as_str());
        let skipped = match text(0) {
            Some("help") => 1,
            Some("watch") if text(2) == Some("count") && words.len() >= 4 => 4,
            Some("watch") if words.len() >= 2 && text(2) != Some("count") => 2,
            _ => return words,
        };
        words = &words[skipped..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(line: &str) -> (usize, Vec<String>) {
        let things = |source, _: &str| match source {
            Source::Apps => vec!["echo".to_owned(), "two words".to_owned(), "\u{1b}[2J".to_owned()],
            Source::Workers => vec!["0".to_owned(), "1".to_owned()],
            _ => Vec::new(),
        };
        candidates(line, &things)
    }

    fn words(line: &str) -> Vec<String> {
        complete(line).1
    }

    #[test]
    fn words_options_and_names_are_completed() {
        assert_eq!(complete("show ses"), (5, vec!["session".to_owned()]));
        assert_eq!(complete("app detach "), (11, vec!["echo".to_owned(), "\"two words\"".to_owned()]));
        assert!(words("").contains(&"show".to_owned()) && words("").contains(&"app".to_owned()));
        assert_eq!(words("app detach e"), ["echo"]);
        let options = words("app detach echo ");
        assert_eq!(options, ["app-worker", "now", "reset", "linger"]);
        assert_eq!(words("app detach echo linger 5s a"), ["app-worker"]);
        assert_eq!(words("sh app "), ["echo", "\"two words\""]);
        assert_eq!(words("show session tcp-state fin"), ["FIN-WAIT-1", "FIN-WAIT-2"]);
        assert_eq!(words("session reset tcp-state CLOSE-"), ["CLOSE-WAIT"]);
        assert_eq!(words("half-open cancel tcp-state syn-s"), ["SYN-SENT"]);
        assert_eq!(words("show events --fo"), ["--follow"]);
        assert_eq!(words("show --json app e"), ["echo"]);
    }

    #[test]
    fn only_the_last_command_of_a_line_counts_and_filters_have_their_words() {
        assert_eq!(complete("show app; show le"), (15, vec!["leaks".to_owned()]));
        assert_eq!(words("show app | "), ["include", "exclude"]);
        assert_eq!(words("show app | i"), ["include"]);
        assert!(words("show app | include ").is_empty());
        assert_eq!(words("help show le"), ["leaks"]);
        assert_eq!(words("watch 2 show le"), ["leaks"]);
        assert_eq!(words("watch 2 count 3 show le"), ["leaks"]);
        assert!(words("watch 2 ").contains(&"show".to_owned()));
    }

    #[test]
    fn the_beginning_of_a_handle_names_its_worker() {
        assert_eq!(["3:", "3:17."].map(worker_of), [Some(WorkerId(3)); 2]);
        assert!(["3", "", "x:1", "300:"].iter().all(|typed| worker_of(typed).is_none()));
    }

    #[test]
    fn nonsense_has_no_candidates_and_an_open_quote_is_completed() {
        assert!(words("xyzzy ").is_empty());
        assert!(words("show nothing here ").is_empty());
        assert_eq!(words("app detach 'two"), ["\"two words\""]);
    }
}
