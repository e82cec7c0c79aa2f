//! What may be typed: the table of commands, read as a grammar.
//!
//! [`parse`] finds the command that a line means, and its arguments; [`next`] what could be typed at a line's end, for
//! completion. Both walk the same patterns ([`super::pattern`]).

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hoststack::app::{ConnectId, SessionHandle, Uri};
use hoststack::net::Cidr;

use super::commands::{Spec, commands};
use super::kinds::{Kind, Source, Value, kind};
use super::line::Word;
use super::pattern::{Alternative, Argument, Part, parts, resolve};

/// A command that was understood, with what stood in the places of its pattern.
#[derive(Debug)]
pub(crate) struct Matched {
    /// The command.
    pub(crate) spec: &'static Spec,
    words: Vec<&'static str>,
    flags: Vec<&'static str>,
    values: Vec<(&'static str, Value)>,
}

/// What a caller of the accessors names: an option by its word, another argument by its kind, as the pattern has it.
#[allow(
    dead_code,
    reason = "one for each type of argument: commands that come later use those that today's do not"
)]
impl Matched {
    fn of(spec: &'static Spec) -> Matched {
        Matched { spec, words: Vec::new(), flags: Vec::new(), values: Vec::new() }
    }

    /// Whether the word was given: an option, or one of the words of an `a|b`.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.flags.contains(&word) || self.words.contains(&word)
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// A number: `N`, `WORKER`, `PORT`, `BYTES`.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A number, as a count of things.
    pub(crate) fn count(&self, name: &str) -> Option<usize> {
        self.number(name).and_then(|number| usize::try_from(number).ok())
    }

    /// Text: `NAME`, `FILE`, `WORD`, one of several words.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// `PREFIX`.
    pub(crate) fn prefix(&self, name: &str) -> Option<Cidr> {
        match self.value(name)? {
            Value::Prefix(prefix) => Some(*prefix),
            _ => None,
        }
    }

    /// `SPAN`.
    pub(crate) fn span(&self, name: &str) -> Option<Duration> {
        match self.value(name)? {
            Value::Span(span) => Some(*span),
            _ => None,
        }
    }

    /// `HANDLE`.
    pub(crate) fn session(&self, name: &str) -> Option<SessionHandle> {
        match self.value(name)? {
            Value::Session(session) => Some(*session),
            _ => None,
        }
    }

    /// `CONNECT`.
    pub(crate) fn connect(&self, name: &str) -> Option<ConnectId> {
        match self.value(name)? {
            Value::Connect(connect) => Some(*connect),
            _ => None,
        }
    }

    /// `ADDRESS`.
    pub(crate) fn address(&self, name: &str) -> Option<IpAddr> {
        match self.value(name)? {
            Value::Address(address) => Some(*address),
            _ => None,
        }
    }

    /// `URI`.
    pub(crate) fn uri(&self, name: &str) -> Option<&Uri> {
        match self.value(name)? {
            Value::Uri(uri) => Some(uri),
            _ => None,
        }
    }
}

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
    /// The command's beginning, and then nothing; or a word that several begin with.
    Incomplete {
        /// What was typed.
        found: String,
        /// What could be meant, as patterns or as words.
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
    /// An argument that is none of its kind, or is not there.
    BadArgument {
        /// The option, or the kind.
        name: &'static str,
        /// What it wants.
        wants: String,
        /// What stands there; `None`: nothing.
        found: Option<String>,
    },
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |patterns: &[&str], between: &str| {
            let quoted: Vec<String> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
            quoted.join(between)
        };
        match self {
            GrammarError::Empty => f.write_str("no command: `help` lists what there is"),
            GrammarError::Unknown { found, near } if near.is_empty() => {
                write!(f, "unknown command `{found}`: `help` lists what there is")
            }
            GrammarError::Unknown { found, near } => {
                write!(f, "unknown command `{found}`: did you mean {}?", list(near, " or "))
            }
            GrammarError::Incomplete { found, expected } => {
                write!(
                    f,
                    "`{found}` wants more: {}",
                    list(expected, if expected.len() > 3 { ", " } else { " or " })
                )
            }
            GrammarError::BadOption { pattern, found, near: None } => match resembled(pattern, found) {
                Some(kind) => {
                    write!(f, "`{found}` is no {} like `{}`: `{pattern}`", kind.name, kind.example)
                }
                None => write!(f, "`{found}` does not belong there: `{pattern}`"),
            },
            GrammarError::BadOption { pattern, found, near: Some(near) } => {
                write!(f, "`{found}` does not belong there, did you mean `{near}`? `{pattern}`")
            }
            GrammarError::Twice { option } => write!(f, "`{option}` is given twice: once is enough"),
            GrammarError::BadArgument { name, wants, found: None } => {
                write!(f, "`{name}` is missing: it wants to be {wants}")
            }
            GrammarError::BadArgument { name, wants, found: Some(found) } => {
                write!(f, "`{name}` wants to be {wants}, found `{found}`")
            }
        }
    }
}

impl std::error::Error for GrammarError {}

/// What could be typed next.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    /// This word.
    Word(&'static str),
    /// An argument.
    Argument(Argument),
}

/// How far a command's pattern and a line agree.
struct Walk {
    matched: Matched,
    /// Words of the line that were understood.
    depth: usize,
    end: End,
}

enum End {
    /// All of it; what could follow.
    Done(Vec<Next>),
    /// The line ends where the pattern goes on; the option whose argument is missing, if it is that.
    Wants(Vec<Next>, Option<GrammarError>),
    Fails(GrammarError),
}

/// The words of a line, one by one.
struct Typed<'w> {
    words: &'w [Word],
    at: usize,
}

impl<'w> Typed<'w> {
    fn peek(&self) -> Option<&'w Word> {
        self.words.get(self.at)
    }
}

/// Holds a pattern against words.
fn walk(spec: &'static Spec, words: &[Word]) -> Walk {
    let mut walk = Walk { matched: Matched::of(spec), depth: 0, end: End::Done(Vec::new()) };
    let mut typed = Typed { words, at: 0 };
    walk.end = match steps(&parts(spec.pattern), &mut typed, &mut walk.matched) {
        Ok(next) if typed.at == words.len() => End::Done(next),
        // Words that no part took.
        Ok(_) => End::Fails(bad_option(spec, &words[typed.at].text)),
        Err(end) => end,
    };
    walk.depth = typed.at;
    walk
}

/// Takes what the parts take; what could follow where both end.
fn steps(parts: &[Part], typed: &mut Typed<'_>, matched: &mut Matched) -> Result<Vec<Next>, End> {
    let mut at = 0;
    let mut next = Vec::new();
    while let Some(part) = parts.get(at) {
        match part {
            Part::Words(words) => {
                let Some(word) = typed.peek() else {
                    next.extend(words.iter().copied().map(Next::Word));
                    return Err(End::Wants(next, None));
                };
                let meant =
                    if word.quoted { Err(Vec::new()) } else { resolve(words.iter().copied(), &word.text) };
                match meant {
                    Ok(word) => matched.words.push(word),
                    Err(_) => return Err(End::Fails(bad_option(matched.spec, &word.text))),
                }
                typed.at += 1;
                at += 1;
            }
            Part::Argument(argument) => {
                if typed.peek().is_none() {
                    next.push(Next::Argument(argument.clone()));
                    return Err(End::Wants(next, None));
                }
                let value = take(argument, argument.name, typed)?;
                matched.values.push((argument.name, value));
                at += 1;
            }
            Part::Optional(_) => {
                let end = parts[at..].iter().position(|part| !matches!(part, Part::Optional(_)));
                let end = end.map_or(parts.len(), |count| at + count);
                let run: Vec<&[Alternative]> = parts[at..end].iter().map(alternatives).collect();
                next = optionals(&run, parts.get(end), typed, matched)?;
                at = end;
                continue;
            }
        }
        next.clear();
    }
    Ok(next)
}

fn alternatives(part: &Part) -> &[Alternative] {
    match part {
        Part::Optional(alternatives) => alternatives,
        Part::Words(_) | Part::Argument(_) => &[],
    }
}

/// Takes an argument, or all that is left when it is of that sort.
fn take(argument: &Argument, name: &'static str, typed: &mut Typed<'_>) -> Result<Value, End> {
    let bad = |found: Option<&str>| {
        let found = found.map(str::to_owned);
        End::Fails(GrammarError::BadArgument { name, wants: argument.wants(), found })
    };
    let Some(word) = typed.peek() else { return Err(bad(None)) };
    let value = if argument.rest {
        let texts: Vec<&str> = typed.words[typed.at..].iter().map(|word| word.text.as_str()).collect();
        argument.parse(&texts.join(" "))
    } else {
        argument.parse(&word.text)
    };
    let value = value.ok_or_else(|| bad(Some(&word.text)))?;
    typed.at = if argument.rest { typed.words.len() } else { typed.at + 1 };
    Ok(value)
}

/// Takes options that stand together, in any order; `then` follows them.
fn optionals(
    run: &[&[Alternative]],
    then: Option<&Part>,
    typed: &mut Typed<'_>,
    matched: &mut Matched,
) -> Result<Vec<Next>, End> {
    let mut used = vec![false; run.len()];
    // An argument of the last option that may still come.
    let mut pending = None;
    loop {
        let Some(word) = typed.peek() else {
            let left =
                run.iter().zip(&used).filter(|(_, used)| !**used).flat_map(|(option, _)| option.iter());
            let first = |one: &Alternative| match (one.word, &one.argument) {
                (Some(word), _) => Some(Next::Word(word)),
                (None, argument) => argument.clone().map(Next::Argument),
            };
            return Ok(pending.into_iter().chain(left.filter_map(first)).collect());
        };
        pending = None;
        let name = if word.quoted { "" } else { word.text.strip_prefix("--").unwrap_or(&word.text) };
        let words = run.iter().flat_map(|option| option.iter().filter_map(|one| one.word));
        let meant = match resolve(words, name) {
            // What must follow has the first claim to a word that is not wholly the option's.
            Ok(word) if word != name && then.is_some() => None,
            Ok(word) => Some(word),
            Err(several) if several.len() > 1 && then.is_none() => {
                let found = typed.words[..=typed.at].iter().map(|word| word.text.as_str());
                let found = found.collect::<Vec<_>>().join(" ");
                return Err(End::Fails(GrammarError::Incomplete { found, expected: several }));
            }
            Err(_) => None,
        };
        let has_word = |one: &&Alternative| one.word == meant && (meant.is_some() || fits(one, word));
        let found = run.iter().enumerate().find_map(|(index, option)| {
            // An argument alone is taken once; a word that is there twice is an error.
            let one = option.iter().find(has_word)?;
            (meant.is_some() || !used[index]).then_some((index, one))
        });
        let Some((index, one)) = found else { return Ok(Vec::new()) };
        if used[index] {
            return Err(End::Fails(GrammarError::Twice { option: meant.unwrap_or_default() }));
        }
        used[index] = true;
        let Some(option) = one.word else {
            if let Some(argument) = &one.argument {
                let value = take(argument, argument.name, typed)?;
                matched.values.push((argument.name, value));
                // More words of it may follow.
                pending = argument.rest.then(|| Next::Argument(argument.clone()));
            }
            continue;
        };
        typed.at += 1;
        matched.flags.push(option);
        let Some(argument) = &one.argument else { continue };
        match typed.peek() {
            None if one.is_argument_optional => pending = Some(Next::Argument(argument.clone())),
            None => {
                let missing =
                    GrammarError::BadArgument { name: option, wants: argument.wants(), found: None };
                return Err(End::Wants(vec![Next::Argument(argument.clone())], Some(missing)));
            }
            Some(word) if one.is_argument_optional && argument.parse(&word.text).is_none() => {}
            Some(_) => {
                let value = take(argument, option, typed)?;
                matched.values.push((option, value));
            }
        }
    }
}

/// Whether an alternative without a word takes it.
fn fits(one: &Alternative, word: &Word) -> bool {
    one.argument.as_ref().is_some_and(|argument| argument.parse(&word.text).is_some())
}

fn bad_option(spec: &'static Spec, found: &str) -> GrammarError {
    let parts = parts(spec.pattern);
    let names = parts.iter().flat_map(|part| match part {
        Part::Words(words) => words.clone(),
        Part::Argument(_) => Vec::new(),
        Part::Optional(all) => all.iter().filter_map(|one| one.word).collect(),
    });
    let near = names.min_by_key(|name| distance(found, name)).filter(|name| is_near(found, name));
    GrammarError::BadOption { pattern: spec.pattern, found: found.to_owned(), near }
}

/// What a word that a command does not take may have been meant for: an argument that stands alone, if it is one of numbers.
fn resembled(pattern: &'static str, found: &str) -> Option<&'static Kind> {
    let kinds = parts(pattern).into_iter().filter_map(|part| match part {
        Part::Optional(all) => all.into_iter().find(|one| one.word.is_none()).and_then(|one| one.argument),
        Part::Words(_) | Part::Argument(_) => None,
    });
    let is_handle = |kind: &&Kind| matches!(kind.source, Source::Sessions | Source::Connects);
    let mut kinds = kinds.filter_map(|argument| kind(argument.name)).filter(is_handle);
    let has_digits = found.bytes().any(|byte| byte.is_ascii_digit());
    kinds.find(|kind| has_digits && (kind.parse)(found).is_none())
}

/// Words that a pattern begins with.
fn leading(spec: &'static Spec) -> Vec<Vec<&'static str>> {
    let words = |part| match part {
        Part::Words(words) => Some(words),
        Part::Argument(_) | Part::Optional(_) => None,
    };
    parts(spec.pattern).into_iter().map_while(words).collect()
}

/// The commands that may be meant, by the words that they begin with; and how many of those were typed.
fn meant(words: &[Word]) -> Result<(Vec<&'static Spec>, usize), GrammarError> {
    let mut specs: Vec<(&'static Spec, Vec<Vec<&'static str>>)> =
        commands().map(|spec| (spec, leading(spec))).collect();
    let mut depth = 0;
    while specs.iter().any(|(_, leading)| leading.len() > depth) {
        let Some(word) = words.get(depth) else { break };
        let offered = |leading: &Vec<Vec<&'static str>>| leading.get(depth).cloned().unwrap_or_default();
        let all = specs.iter().flat_map(|(_, leading)| offered(leading));
        let meant = if word.quoted { Err(Vec::new()) } else { resolve(all, &word.text) };
        // Those whose arguments begin here.
        let begun = specs.iter().any(|(_, leading)| leading.len() <= depth);
        match meant {
            Ok(meant) => {
                let exact = meant == word.text;
                specs.retain(|(_, leading)| {
                    offered(leading).contains(&meant) || begun && !exact && leading.len() <= depth
                });
                if begun && !exact {
                    break;
                }
            }
            Err(_) if begun => {
                specs.retain(|(_, leading)| leading.len() <= depth);
                break;
            }
            Err(several) if several.is_empty() => {
                let near = near_commands(words);
                let is_one = |(spec, _): &(&'static Spec, _)| near.contains(&spec.pattern);
                // Few words can follow what was understood, and this is like none of them.
                let mut expected: Vec<&'static str> =
                    specs.iter().flat_map(|(_, leading)| offered(leading)).collect();
                expected.dedup();
                if depth > 0 && expected.len() <= 6 && !specs.iter().any(is_one) {
                    return Err(GrammarError::Incomplete { found: texts(&words[..depth]), expected });
                }
                return Err(GrammarError::Unknown { found: texts(words), near });
            }
            Err(several) => {
                let found = texts(&words[..=depth]);
                let patterns = specs
                    .iter()
                    .filter(|(_, leading)| offered(leading).iter().any(|word| several.contains(word)));
                let patterns: Vec<&str> = patterns.map(|(spec, _)| spec.pattern).collect();
                let expected = if patterns.len() > 3 { several } else { patterns };
                return Err(GrammarError::Incomplete { found, expected });
            }
        }
        depth += 1;
    }
    Ok((specs.into_iter().map(|(spec, _)| spec).collect(), depth))
}

fn texts(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// Understands a command: a beginning that fits one word only stands for it.
///
/// # Errors
/// What to type instead.
pub(crate) fn parse(words: &[Word]) -> Result<Matched, GrammarError> {
    if words.is_empty() {
        return Err(GrammarError::Empty);
    }
    let (specs, depth) = meant(words)?;
    if depth == words.len() && specs.len() > 3 && specs.iter().all(|spec| leading(spec).len() > depth) {
        let mut expected: Vec<&'static str> = Vec::new();
        for word in specs.iter().flat_map(|spec| leading(spec).swap_remove(depth)) {
            if !expected.contains(&word) {
                expected.push(word);
            }
        }
        return Err(GrammarError::Incomplete { found: texts(words), expected });
    }
    let mut done = Vec::new();
    let mut wants = Vec::new();
    let mut failures = Vec::new();
    for spec in specs {
        let walk = walk(spec, words);
        match walk.end {
            End::Done(_) => done.push(walk.matched),
            End::Wants(_, missing) => wants.push((spec.pattern, missing)),
            End::Fails(error) => failures.push((walk.depth, error)),
        }
    }
    if done.len() > 1 {
        let expected = done.iter().map(|matched| matched.spec.pattern).collect();
        return Err(GrammarError::Incomplete { found: texts(words), expected });
    }
    if let Some(matched) = done.pop() {
        return Ok(matched);
    }
    if let [(_, Some(missing))] = &wants[..] {
        return Err(missing.clone());
    }
    if !wants.is_empty() {
        let expected = wants.into_iter().map(|(pattern, _)| pattern).collect();
        return Err(GrammarError::Incomplete { found: texts(words), expected });
    }
    // The one that came furthest; of several, the one that knows best what was meant.
    let knows = |error: &GrammarError| match error {
        GrammarError::BadOption { near: None, .. } => 0,
        GrammarError::BadArgument { .. } => 1,
        _ => 2,
    };
    let best = failures.into_iter().rev().max_by_key(|(depth, error)| (*depth, knows(error)));
    Err(best.map_or(GrammarError::Empty, |(_, error)| error))
}

/// What could follow these words, which are whole or beginnings that fit one word only.
pub(crate) fn next(words: &[Word]) -> Vec<Next> {
    let Ok((specs, _)) = meant(words) else { return Vec::new() };
    let mut all = Vec::new();
    for spec in specs {
        match walk(spec, words).end {
            End::Done(next) | End::Wants(next, _) => all.extend(next),
            End::Fails(_) => {}
        }
    }
    all
}

/// The patterns whose words are most like what was typed, best first; none that is not alike at all.
fn near_commands(typed: &[Word]) -> Vec<&'static str> {
    let score = |spec: &'static Spec| {
        let leading = leading(spec);
        // Each of `a|b` as a command of its own.
        let choices = leading.iter().map(Vec::len).max().unwrap_or(0);
        let spelled = (0..choices).map(|choice| {
            let pick = |words: &Vec<&'static str>| words[choice.min(words.len() - 1)];
            leading.iter().map(pick).collect::<Vec<_>>()
        });
        let best = spelled.filter_map(|words| {
            let whole = distance(&texts(&typed[..typed.len().min(words.len())]), &words.join(" "));
            // `sessions` alone means `show session`: the last word may come alone.
            let last = words.last().map_or(usize::MAX, |word| distance(&typed[0].text, word) + 1);
            let limit = words.join(" ").len() / 3;
            let best = whole.min(last);
            (best <= limit.max(2)).then_some(best)
        });
        best.min().map(|best| (best, spec.pattern))
    };
    let mut near: Vec<_> = commands().filter_map(score).collect();
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

#[cfg(test)]
mod tests;
