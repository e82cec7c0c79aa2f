//! What may be typed: the table of commands, read as a grammar.
//!
//! [`parse`] finds the command that a line means, and its arguments ([`Matched`]); [`next`] what could be typed at a line's
//! end, for completion. Both choose among the commands by the words that these begin with, and then hold their patterns
//! ([`super::pattern`]) against the line ([`mod@walk`]). What is like a word that is none is found in [`near`].

mod error;
mod matched;
mod near;
mod walk;

pub(crate) use self::error::GrammarError;
pub(crate) use self::matched::Matched;
use self::near::near_commands;
use self::walk::{End, walk};
use super::commands::{Spec, commands};
use super::line::Word;
use super::pattern::{Argument, Part, parts, resolve};

/// What could be typed next.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    /// This word.
    Word(&'static str),
    /// An argument.
    Argument(Argument),
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

#[cfg(test)]
mod tests;
