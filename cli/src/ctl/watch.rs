//! `watch INTERVAL [count N] COMMAND`: the same line again and again. The client's affair: the server knows nothing of it.

use std::time::Duration;

use super::client::{Connection, clear_screen};
use super::grammar;
use super::interactive::Interrupt;
use super::line::{Piece, Word, pieces};
use super::wire::{Format, Reply};
use crate::error::CliError;
use crate::output::print_on;

/// A line that is to be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    interval: Duration,
    count: Option<u64>,
    /// All that stands behind, `;` and `|` included.
    line: String,
}

impl Watch {
    /// Reads a line; `None`: it is another command.
    ///
    /// # Errors
    /// What to type instead.
    pub(crate) fn read(line: &str) -> Result<Option<Watch>, String> {
        let (pieces, _, error) = pieces(line);
        let words: Vec<Word> = pieces
            .iter()
            .map_while(|piece| match piece {
                Piece::Word(word) => Some(word.clone()),
                Piece::Semicolon | Piece::Bar => None,
            })
            .collect();
        if words.first().is_none_or(|word| word.quoted || word.text != "watch") {
            return Ok(None);
        }
        if let Some(error) = error {
            return Err(error.to_string());
        }
        let matched = grammar::parse(&words).map_err(|error| error.to_string())?;
        let count = matched.number("count");
        if count == Some(0) {
            return Err("`count` wants to be 1 or more".to_owned());
        }
        // Cannot fail because: the pattern has taken these words, and one more.
        let at = words.get(if count.is_some() { 4 } else { 2 }).map_or(line.len(), |word| word.start);
        let interval = matched.span("INTERVAL").unwrap_or(Duration::from_secs(1));
        let inner = match &pieces[..] {
            // A whole line in quotes, as a shell's user types it.
            [.., Piece::Word(last)] if last.quoted && last.start == at => last.text.clone(),
            _ => line.get(at..).unwrap_or_default().to_owned(),
        };
        if inner.split_whitespace().next() == Some("watch") {
            return Err("`watch` cannot be watched: type it once".to_owned());
        }
        Ok(Some(Watch { interval, count, line: inner }))
    }

    /// Asks and prints, until it was so often or the user has had enough; whether somebody still reads. What fails is said, and
    /// done again: it may be there the next time.
    ///
    /// # Errors
    /// The stack does not answer, or does not understand the line; it failed the last time.
    pub(crate) fn run(
        &self,
        connection: &mut Connection,
        format: Format,
        interrupt: &Interrupt,
    ) -> Result<bool, CliError> {
        let mut times = 0;
        loop {
            // Printed at once: a screen that is cleared before the answer is there flickers.
            let mut text = String::new();
            let reply = connection.ask_each(format, &self.line, &mut |part| {
                text.push_str(part);
                Ok(())
            })?;
            let error = match reply {
                Reply::Ok(last) => {
                    text.push_str(&last);
                    None
                }
                Reply::Error(why) => Some(CliError::failed(why.trim_end())),
                Reply::Usage(why) => return Err(CliError::usage(why.trim_end())),
            };
            clear_screen()?;
            if !print_on(&text)? {
                return Ok(false);
            }
            if let Some(error) = &error {
                let _ = error.report();
            }
            times += 1;
            if self.count.is_some_and(|count| times >= count) || interrupt.wait(self.interval) {
                return error.map_or(Ok(true), |_| Err(CliError::Silent));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_behind_is_taken_whole() {
        let watch = Watch::read("watch 2 show app; show worker | include 'a b'").unwrap().unwrap();
        assert_eq!(
            watch,
            Watch {
                interval: Duration::from_secs(2),
                count: None,
                line: "show app; show worker | include 'a b'".to_owned()
            }
        );
        let watch = Watch::read("watch 250ms count 3 show app").unwrap().unwrap();
        assert_eq!((watch.interval, watch.count), (Duration::from_millis(250), Some(3)));
        assert_eq!(watch.line, "show app");
        assert_eq!(Watch::read("show app"), Ok(None));
        // As the words of a shell become it: `ctl watch 1 'show app; show worker'`.
        let watch = Watch::read("watch 1 \"show app; show 'a b'\"").unwrap().unwrap();
        assert_eq!(watch.line, "show app; show 'a b'");
        let watch = Watch::read("watch 1 show app 'a b'").unwrap().unwrap();
        assert_eq!(watch.line, "show app 'a b'");
    }

    #[test]
    fn what_cannot_be_watched_is_told() {
        assert!(Watch::read("watch").unwrap_err().contains("watch INTERVAL [count N] COMMAND..."));
        assert!(Watch::read("watch x show app").unwrap_err().contains("a number of seconds"));
        assert!(Watch::read("watch 0 show app").unwrap_err().contains("a number of seconds"));
        assert!(Watch::read("watch 1 count 0 show app").unwrap_err().contains("1 or more"));
        assert!(Watch::read("watch 1 watch 1 show app").unwrap_err().contains("once"));
        assert!(Watch::read("watch 1 'watch 1 show app'").unwrap_err().contains("once"));
        // A pipe's line may be of any length: it takes no more of the stack.
        assert!(Watch::read(&"watch 1 ".repeat(100_000)).unwrap_err().contains("once"));
        assert!(Watch::read("watch 1 'show").is_err());
    }
}
