//! What was meant by a word that is none: what is most like it.

use super::{leading, texts};
use crate::ctl::commands::{Spec, commands};
use crate::ctl::kinds::{Kind, Source, kind};
use crate::ctl::line::Word;
use crate::ctl::pattern::{Part, parts};

/// The patterns whose words are most like what was typed, best first; none that is not alike at all.
pub(super) fn near_commands(typed: &[Word]) -> Vec<&'static str> {
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

pub(super) fn is_near(typed: &str, name: &str) -> bool {
    distance(typed, name) <= (name.len() / 3).max(1)
}

/// Insertions, deletions and replacements that make one text of the other (Levenshtein).
pub(super) fn distance(a: &str, b: &str) -> usize {
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

/// What a word that a command does not take may have been meant for: an argument that stands alone, if it is one of numbers.
pub(super) fn resembled(pattern: &'static str, found: &str) -> Option<&'static Kind> {
    let kinds = parts(pattern).into_iter().filter_map(|part| match part {
        Part::Optional(all) => all.into_iter().find(|one| one.word.is_none()).and_then(|one| one.argument),
        Part::Words(_) | Part::Argument(_) => None,
    });
    let is_handle = |kind: &&Kind| matches!(kind.source, Source::Sessions | Source::Connects);
    let mut kinds = kinds.filter_map(|argument| kind(argument.name)).filter(is_handle);
    let has_digits = found.bytes().any(|byte| byte.is_ascii_digit());
    kinds.find(|kind| has_digits && (kind.parse)(found).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
