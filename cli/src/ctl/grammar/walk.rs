//! A command's pattern held against a line's words, part by part.

use super::near::{distance, is_near};
use super::{GrammarError, Matched, Next};
use crate::ctl::commands::Spec;
use crate::ctl::kinds::Value;
use crate::ctl::line::Word;
use crate::ctl::pattern::{Alternative, Argument, Part, parts, resolve};

/// How far a command's pattern and a line agree.
pub(super) struct Walk {
    pub(super) matched: Matched,
    /// Words of the line that were understood.
    pub(super) depth: usize,
    pub(super) end: End,
}

pub(super) enum End {
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
pub(super) fn walk(spec: &'static Spec, words: &[Word]) -> Walk {
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
