//! The commands of `hoststack ctl`: one table that the parser, the help and the near matches are made from.

use std::fmt;

/// A command that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Sessions by state; listed, when asked for.
    ShowSession {
        /// With the transport's variables.
        verbose: bool,
        /// The most that are listed; 0: the summary alone.
        limit: usize,
    },
    /// Connects without an outcome.
    ShowHalfOpen {
        /// The most that are listed.
        limit: usize,
    },
    /// Listeners.
    ShowListener {
        /// The most that are listed.
        limit: usize,
    },
    /// Applications and their app workers.
    ShowApp,
    /// Workers and main.
    ShowWorker,
    /// Drop reasons.
    ShowErrors,
    /// What is held.
    ShowLeaks,
    /// Detach an application, or one of its app workers.
    AppDetach {
        /// The application's name.
        name: String,
        /// The app worker's number; `None`: the whole application.
        app_worker: Option<u32>,
        /// Reset sessions at once, instead of closing them.
        reset: bool,
    },
    /// What there is.
    Help,
}

/// Sessions or half-opens listed when no limit is given.
pub(crate) const LIMIT: usize = 100;
/// Most that a command may ask to be listed.
pub(crate) const LIMIT_MAX: usize = 1_000_000;

/// A command of the table.
struct Spec {
    /// What is typed: words, NAMES of arguments, and `[options]` in any order after them.
    pattern: &'static str,
    help: &'static str,
    build: fn(&Matched<'_>) -> Result<Command, GrammarError>,
}

const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "show session [verbose] [limit N]",
        help: "sessions by state; listed with `limit N`, with the transport's variables with `verbose`",
        build: |matched| {
            let verbose = matched.has("verbose");
            let limit = matched.number("limit")?;
            Ok(Command::ShowSession { verbose, limit: limit.unwrap_or(if verbose { LIMIT } else { 0 }) })
        },
    },
    Spec {
        pattern: "show half-open [limit N]",
        help: "connects without an outcome, 100 of them unless said otherwise",
        build: |matched| Ok(Command::ShowHalfOpen { limit: matched.number("limit")?.unwrap_or(LIMIT) }),
    },
    Spec {
        pattern: "show listener [limit N]",
        help: "where apps listen, as URIs, and what must happen before they accept; 100 unless said otherwise",
        build: |matched| Ok(Command::ShowListener { limit: matched.number("limit")?.unwrap_or(LIMIT) }),
    },
    Spec {
        pattern: "show app",
        help: "applications, their app workers, listeners and how their connects ended",
        build: |_| Ok(Command::ShowApp),
    },
    Spec {
        pattern: "show worker",
        help: "what each worker and main holds and did, TCP's counters",
        build: |_| Ok(Command::ShowWorker),
    },
    Spec {
        pattern: "show errors",
        help: "why packets and segments were dropped, by reason",
        build: |_| Ok(Command::ShowErrors),
    },
    Spec {
        pattern: "show leaks",
        help: "what is held now: all zero when no app is attached; TIME-WAIT apart",
        build: |_| Ok(Command::ShowLeaks),
    },
    Spec {
        pattern: "app detach NAME [app-worker N] [reset]",
        help: "detach an application, or one app worker of it; its sessions are closed, or reset",
        build: |matched| {
            let app_worker = matched.number("app-worker")?;
            let app_worker = app_worker.map(|number| {
                u32::try_from(number)
                    .map_err(|_| GrammarError::BadNumber { option: "app-worker", found: number.to_string() })
            });
            Ok(Command::AppDetach {
                name: matched.arguments.first().copied().unwrap_or_default().to_owned(),
                app_worker: app_worker.transpose()?,
                reset: matched.has("reset"),
            })
        },
    },
    Spec { pattern: "help", help: "this list", build: |_| Ok(Command::Help) },
];

/// Why a command was not understood. Each says what to type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GrammarError {
    /// Nothing was typed.
    Empty,
    /// No command begins like this.
    Unknown {
        /// What was typed.
        found: String,
        /// The commands most like it, best first.
        near: Vec<&'static str>,
    },
    /// The command's beginning, and then nothing.
    Incomplete {
        /// What was typed.
        found: String,
        /// What could follow.
        expected: Vec<&'static str>,
    },
    /// A word that the command does not take.
    BadOption {
        /// The command.
        pattern: &'static str,
        /// The word.
        found: String,
        /// The option most like it.
        near: Option<&'static str>,
    },
    /// An option that was given twice.
    Twice {
        /// The option.
        option: &'static str,
    },
    /// No number where one belongs, or one above the limit.
    BadNumber {
        /// The option.
        option: &'static str,
        /// What stands there; empty: nothing.
        found: String,
    },
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |patterns: &[&str]| {
            let quoted: Vec<String> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
            quoted.join(" or ")
        };
        match self {
            GrammarError::Empty => f.write_str("no command: `help` lists what there is"),
            GrammarError::Unknown { found, near } if near.is_empty() => {
                write!(f, "unknown command `{found}`: `help` lists what there is")
            }
            GrammarError::Unknown { found, near } => {
                write!(f, "unknown command `{found}`: did you mean {}?", list(near))
            }
            GrammarError::Incomplete { found, expected } => {
                write!(f, "`{found}` wants more: {}", list(expected))
            }
            GrammarError::BadOption { pattern, found, near: None } => {
                write!(f, "`{found}` does not belong there: `{pattern}`")
            }
            GrammarError::BadOption { pattern, found, near: Some(near) } => {
                write!(f, "`{found}` does not belong there, did you mean `{near}`? `{pattern}`")
            }
            GrammarError::Twice { option } => write!(f, "`{option}` is given twice: once is enough"),
            GrammarError::BadNumber { option, found } if found.is_empty() => {
                write!(f, "`{option}` wants a number after it")
            }
            GrammarError::BadNumber { option, found } => {
                write!(f, "`{option}` wants a number up to {LIMIT_MAX}, found `{found}`")
            }
        }
    }
}

impl std::error::Error for GrammarError {}

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A word, typed as it is or as the beginning of it.
    Word(&'static str),
    /// An argument.
    Argument,
    /// `[word]`.
    Flag(&'static str),
    /// `[word N]`.
    Number(&'static str),
}

/// The parts of a pattern, in order.
fn parts(pattern: &'static str) -> Vec<Part> {
    let mut words = pattern.split(' ');
    let mut parts = Vec::new();
    while let Some(word) = words.next() {
        parts.push(match word.strip_prefix('[') {
            Some(option) => match option.strip_suffix(']') {
                Some(flag) => Part::Flag(flag),
                None => {
                    words.next();
                    Part::Number(option)
                }
            },
            None if word.bytes().all(|c| c.is_ascii_uppercase()) => Part::Argument,
            None => Part::Word(word),
        });
    }
    parts
}

/// What stood in the places of a pattern.
#[derive(Debug, Default)]
struct Matched<'t> {
    arguments: Vec<&'t str>,
    flags: Vec<&'static str>,
    numbers: Vec<(&'static str, usize)>,
}

impl Matched<'_> {
    fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }

    fn number(&self, option: &str) -> Result<Option<usize>, GrammarError> {
        match self.numbers.iter().find(|(name, _)| *name == option) {
            Some((name, number)) if *number > LIMIT_MAX => {
                Err(GrammarError::BadNumber { option: name, found: number.to_string() })
            }
            found => Ok(found.map(|(_, number)| *number)),
        }
    }
}

/// Understands a command: words separated by blanks; a beginning that fits one word only stands for it.
///
/// # Errors
/// What to type instead.
pub(crate) fn parse(text: &str) -> Result<Command, GrammarError> {
    let typed: Vec<&str> = text.split_whitespace().collect();
    if typed.is_empty() {
        return Err(GrammarError::Empty);
    }
    let mut specs: Vec<&Spec> = COMMANDS.iter().collect();
    let mut depth = 0;
    // Word by word, until what is left of the table has no further words in common.
    loop {
        let expected = |spec: &&Spec| match parts(spec.pattern).get(depth) {
            Some(Part::Word(word)) => Some(*word),
            _ => None,
        };
        if let [spec] = specs[..]
            && expected(&spec).is_none()
        {
            return options(spec, &typed, depth);
        }
        let Some(word) = typed.get(depth) else {
            let expected = specs.iter().map(|spec| spec.pattern).collect();
            return Err(GrammarError::Incomplete { found: typed.join(" "), expected });
        };
        let exact: Vec<&Spec> = specs.iter().filter(|spec| expected(spec) == Some(word)).copied().collect();
        let begun = specs.iter().filter(|spec| expected(spec).is_some_and(|full| full.starts_with(*word)));
        let next: Vec<&Spec> = if exact.is_empty() { begun.copied().collect() } else { exact };
        let mut meant: Vec<_> = next.iter().filter_map(expected).collect();
        meant.dedup();
        match meant.len() {
            0 => return Err(GrammarError::Unknown { found: typed.join(" "), near: near_commands(&typed) }),
            1 => specs = next,
            _ => {
                let expected = next.iter().map(|spec| spec.pattern).collect();
                return Err(GrammarError::Incomplete { found: typed.join(" "), expected });
            }
        }
        depth += 1;
    }
}

/// The arguments and options of a command whose words were found.
fn options(spec: &Spec, typed: &[&str], words: usize) -> Result<Command, GrammarError> {
    let parts = parts(spec.pattern);
    let mut matched = Matched::default();
    let mut rest = typed[words..].iter();
    for _ in parts.iter().filter(|part| **part == Part::Argument) {
        let Some(argument) = rest.next() else {
            return Err(GrammarError::Incomplete { found: typed.join(" "), expected: vec![spec.pattern] });
        };
        matched.arguments.push(argument);
    }
    while let Some(word) = rest.next() {
        let fits = |option: &&Part| match option {
            Part::Flag(name) | Part::Number(name) => name.starts_with(word),
            _ => false,
        };
        match parts.iter().find(fits) {
            Some(Part::Flag(name)) => {
                if matched.has(name) {
                    return Err(GrammarError::Twice { option: name });
                }
                matched.flags.push(name);
            }
            Some(Part::Number(name)) => {
                let found = rest.next().copied().unwrap_or_default();
                let number = found
                    .parse()
                    .map_err(|_| GrammarError::BadNumber { option: name, found: found.to_owned() })?;
                if matched.numbers.iter().any(|(other, _)| other == name) {
                    return Err(GrammarError::Twice { option: name });
                }
                matched.numbers.push((name, number));
            }
            _ => {
                let names = parts.iter().filter_map(|part| match part {
                    Part::Flag(name) | Part::Number(name) => Some(*name),
                    _ => None,
                });
                let near = names.min_by_key(|name| distance(word, name)).filter(|name| is_near(word, name));
                return Err(GrammarError::BadOption {
                    pattern: spec.pattern,
                    found: (*word).to_owned(),
                    near,
                });
            }
        }
    }
    (spec.build)(&matched)
}

/// The patterns whose words are most like what was typed, best first; none that is not alike at all.
fn near_commands(typed: &[&str]) -> Vec<&'static str> {
    let score = |spec: &Spec| {
        let words: Vec<&str> = parts(spec.pattern)
            .into_iter()
            .filter_map(|part| match part {
                Part::Word(word) => Some(word),
                _ => None,
            })
            .collect();
        let whole = distance(&typed[..typed.len().min(words.len())].join(" "), &words.join(" "));
        // `sessions` alone means `show session`: the last word may come alone.
        let last = words.last().map_or(usize::MAX, |word| distance(typed[0], word) + 1);
        let limit = words.join(" ").len() / 3;
        let best = whole.min(last);
        (best <= limit.max(2)).then_some((best, spec.pattern))
    };
    let mut near: Vec<_> = COMMANDS.iter().filter_map(score).collect();
    near.sort_by_key(|(score, _)| *score);
    near.truncate(2);
    near.into_iter().map(|(_, pattern)| pattern).collect()
}

fn is_near(typed: &str, name: &str) -> bool {
    distance(typed, name) <= (name.len() / 3).max(1)
}

/// Insertions, deletions and replacements that make one text of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

/// The list of commands, for people.
pub(crate) fn help() -> String {
    crate::table::pairs(COMMANDS.iter().map(|spec| (spec.pattern, spec.help.to_owned())))
}

/// The commands as they are typed, for programs.
pub(crate) fn patterns() -> Vec<&'static str> {
    COMMANDS.iter().map(|spec| spec.pattern).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_command_of_the_issue_is_understood() {
        let listed = |verbose, limit| Command::ShowSession { verbose, limit };
        assert_eq!(parse("show session"), Ok(listed(false, 0)));
        assert_eq!(parse("show session verbose"), Ok(listed(true, LIMIT)));
        assert_eq!(parse(" show  session limit 7 verbose "), Ok(listed(true, 7)));
        assert_eq!(parse("show session limit 7"), Ok(listed(false, 7)));
        assert_eq!(parse("show half-open"), Ok(Command::ShowHalfOpen { limit: LIMIT }));
        assert_eq!(parse("show app"), Ok(Command::ShowApp));
        assert_eq!(parse("show worker"), Ok(Command::ShowWorker));
        assert_eq!(parse("show errors"), Ok(Command::ShowErrors));
        assert_eq!(parse("show leaks"), Ok(Command::ShowLeaks));
        assert_eq!(parse("help"), Ok(Command::Help));
        let detach = |app_worker, reset| Command::AppDetach { name: "echo".to_owned(), app_worker, reset };
        assert_eq!(parse("app detach echo"), Ok(detach(None, false)));
        assert_eq!(parse("app detach echo app-worker 3"), Ok(detach(Some(3), false)));
        assert_eq!(parse("app detach echo reset app-worker 3"), Ok(detach(Some(3), true)));
    }

    #[test]
    fn a_beginning_that_fits_one_word_only_stands_for_it() {
        assert_eq!(parse("sh le"), Ok(Command::ShowLeaks));
        assert_eq!(parse("sh s v"), parse("show session verbose"));
        assert_eq!(parse("a d echo app 1"), parse("app detach echo app-worker 1"));
    }

    #[test]
    fn a_command_cut_short_says_what_could_follow() {
        assert_eq!(parse(""), Err(GrammarError::Empty));
        let text = error("show");
        assert!(
            text.contains("`show session [verbose] [limit N]`") && text.contains("`show leaks`"),
            "{text}"
        );
        assert_eq!(error("app detach"), "`app detach` wants more: `app detach NAME [app-worker N] [reset]`");
    }

    #[test]
    fn a_mistyped_command_brings_its_neighbours() {
        assert!(error("show sesion").contains("did you mean `show session [verbose] [limit N]`"));
        assert!(error("shwo leaks").contains("`show leaks`"));
        assert!(error("sessions").contains("`show session [verbose] [limit N]`"));
        assert!(error("halp").contains("`help`"));
        assert_eq!(error("xyzzy quux"), "unknown command `xyzzy quux`: `help` lists what there is");
    }

    #[test]
    fn a_mistyped_option_or_number_is_named() {
        assert_eq!(
            error("show session verbsoe"),
            "`verbsoe` does not belong there, did you mean `verbose`? `show session [verbose] [limit N]`"
        );
        assert_eq!(error("show app now"), "`now` does not belong there: `show app`");
        assert_eq!(error("show session limit"), "`limit` wants a number after it");
        assert_eq!(error("show session limit x"), "`limit` wants a number up to 1000000, found `x`");
        assert_eq!(
            error("show session limit 1000001"),
            "`limit` wants a number up to 1000000, found `1000001`"
        );
        assert_eq!(error("show session limit 1 limit 2"), "`limit` is given twice: once is enough");
        assert_eq!(error("show session verbose v"), "`verbose` is given twice: once is enough");
        assert_eq!(
            error("app detach echo app-worker -1"),
            "`app-worker` wants a number up to 1000000, found `-1`"
        );
    }

    #[test]
    fn help_has_a_line_for_every_command_and_every_pattern_parses() {
        let help = help();
        for spec in COMMANDS {
            assert!(help.contains(spec.pattern) && help.contains(spec.help));
            let filled: Vec<String> = spec
                .pattern
                .split(' ')
                .map(|word| word.trim_matches(['[', ']']).replace("NAME", "a-name").replace('N', "1"))
                .collect();
            assert!(parse(&filled.join(" ")).is_ok(), "{}", spec.pattern);
        }
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
